"""The stream under Tornado's HTTP parser: it keeps the head of the latest request as it came, for `request_guard`.

Where a head is larger than the server takes, Tornado closes without a word; here the client is told 431.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import orjson
from tornado.iostream import IOStream, UnsatisfiableReadError

from handlers.parting import part

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
            part(self.socket.dup(), _ANSWER)
        super().close(exc_info)
