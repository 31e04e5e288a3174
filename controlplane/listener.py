"""The listening socket, opened before anything is built: only then is it known which port a `0` became."""

from __future__ import annotations

import socket

from tornado.netutil import bind_sockets

from controlplane.errors import ConfigurationError


def open_listener(address: str, port: int) -> socket.socket:
    """Connections wait in its queue until it is served; 0 takes a free port. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return bind_sockets(port, address, family=family)[0]
    except OSError as error:
        raise ConfigurationError("HTTP_PORT", f"{address}:{port} cannot be listened on: {error.strerror}") from error
