"""Taking a connection away from Tornado: for websockets and uploads, whose bytes need no HTTP layer any more.

What is then said on it, and to whom, is decided by the caller.
"""

from __future__ import annotations

import socket

import tornado.web
from tornado.iostream import IOStream

from handlers.strict_stream import StrictStream


def take_over(handler: tornado.web.RequestHandler) -> tuple[socket.socket, bytes]:
    """The client's non-blocking socket, and what was read from it behind the request's headers.

    Tornado is done with the connection afterwards: nothing of the handler's answer is sent, and the caller closes the
    socket. To be called at the latest in the verb of a request without a body, or in `prepare` of one with a body.
    """
    return release_socket(handler.detach())


def release_socket(stream: IOStream) -> tuple[socket.socket, bytes]:
    """The same of a stream that its connection was detached from already."""
    assert isinstance(stream, StrictStream)
    stream.let_go()
    # IOStream has no call that gives up its socket: these are the steps of its own `close`, without the closing.
    stream.io_loop.remove_handler(stream.fileno())
    connection = stream.socket
    # Read ahead together with the headers: a pipelined body or the first frames.
    ahead = bytes(stream._read_buffer[: stream._read_buffer_size])  # noqa: SLF001
    stream.socket = None  # type: ignore[assignment]
    stream._closed = True  # noqa: SLF001
    return connection, ahead
