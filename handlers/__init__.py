"""The HTTP and websocket surface (Tornado). Thin: authenticate, authorize, validate, call one service, render."""
