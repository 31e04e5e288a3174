"""The control plane's library: everything but HTTP. It never imports `handlers` (see docs/architecture.md)."""

__version__ = "0.1.0"
