"""The stream under Tornado's HTTP parser: it keeps the head of the latest request as it came, for `request_guard`.

Where a head is larger than the server takes, Tornado closes without a word; here the client is told 431.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable
from typing import Any

import orjson
from tornado.iostream import IOStream, UnsatisfiableReadError

from controlplane.proxying.upload import linger

_BODY = orjson.dumps(
    {
        "error": "The request's headers are too large.",
        "code": "headers_too_large",
        "details": None,
        "requestId": None,
    }
)
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)
_refusals: set[asyncio.Task[None]] = set()


class StrictStream(IOStream):
    """`head` is what `read_until_regex` read last."""

    head = b""

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        reading = super().read_until_regex(regex, max_bytes)
        assert isinstance(reading, asyncio.Future)
        if reading.done():
            self._keep_head(reading)
        else:
            reading.add_done_callback(self._keep_head)  # called before whoever awaits it
        return reading

    def _keep_head(self, reading: asyncio.Future[bytes]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            self.head = reading.result()

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and self.socket is not None:
            refusal = asyncio.get_running_loop().create_task(_refuse(self.socket.dup()))
            _refusals.add(refusal)  # bounded by the server's connections, each ends within seconds
            refusal.add_done_callback(_refusals.discard)
        super().close(exc_info)


async def _refuse(client: socket.socket) -> None:
    client.setblocking(False)
    try:
        with contextlib.suppress(OSError):
            client.send(_ANSWER)
            await linger(client)
    finally:
        client.close()
