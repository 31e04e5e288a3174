"""Whole HTTP/1.1 answers of agents, read as they arrive and bounded in size. Parsing is llhttp's (through httptools).

Connections, deadlines and what an answer means are others'. Answers that are handed on piece by piece are not read
here but by `proxying.http_upstream`.
"""

from __future__ import annotations

import httptools

from controlplane.agents.faults import fault_of
from controlplane.errors import AgentProtocolError
from controlplane.ports import AgentResponse

HEADER_LIMIT_BYTES = 32 << 10
HEADER_LIMIT = 100
_INTERIM_LIMIT = 8
_BODILESS = frozenset({204, 304})


class AnswerParser:
    """`response` is there once the answer is complete, and `keeps_alive` then says whether another may follow on the
    connection, after `reset`. Interim answers (1xx) are passed over. Polling feeds thousands a second through this."""

    __slots__ = (
        "_body", "_body_bytes", "_headers", "_interim", "_is_framed", "_is_head_complete", "_parser", "_received_bytes",
        "body_limit_bytes", "keeps_alive", "response",
    )  # fmt: skip

    def __init__(self, body_limit_bytes: int) -> None:
        self.body_limit_bytes = body_limit_bytes
        self._parser = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        self.response: AgentResponse | None = None
        self.keeps_alive = False
        self._received_bytes = 0
        self._interim = 0
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_head_complete = False
        self._is_framed = False

    @property
    def has_begun(self) -> bool:
        return self._received_bytes > 0

    def feed(self, data: bytes) -> None:
        """Raises AgentProtocolError for what is no answer, more than one, or too large a one."""
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise AgentProtocolError(
                "The agent switched protocols without being asked to.", code="http_invalid"
            ) from error
        except httptools.HttpParserError as error:
            raise fault_of(error) from error
        overhead = self._received_bytes - self._body_bytes
        if self.response is None and overhead > HEADER_LIMIT_BYTES + 16 * self._body_bytes:
            raise AgentProtocolError("The answer's headers are too large.", code="headers_too_large")

    def end(self) -> None:
        """The agent closed the connection: that ends an answer without a length (RFC 9112 section 6.3)."""
        if self._is_head_complete and not self._is_framed:
            self._complete()

    def _complete(self) -> None:
        self.response = AgentResponse(self._parser.get_status_code(), self._headers, b"".join(self._body))

    def _too_large(self) -> AgentProtocolError:
        return AgentProtocolError(f"The answer is larger than {self.body_limit_bytes} bytes.", code="body_too_large")

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.response is not None:
            raise AgentProtocolError("The agent sent more than one answer to a request.", code="http_invalid")

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADER_LIMIT:
            raise AgentProtocolError("The answer has too many headers.", code="headers_too_large")
        if not self._is_head_complete:  # else a trailer: it may be left out (RFC 9110 section 6.5.1)
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        headers = self._headers
        length = headers.get("content-length")
        self._is_head_complete = True
        self._is_framed = (
            length is not None or "transfer-encoding" in headers or self._parser.get_status_code() in _BODILESS
        )
        if length is not None and length.isdigit() and int(length) > self.body_limit_bytes:
            raise self._too_large()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.body_limit_bytes:
            raise self._too_large()
        self._body.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:
            self._interim += 1
            if self._interim > _INTERIM_LIMIT:
                raise AgentProtocolError("The agent sent too many interim answers.", code="http_invalid")
            self._begin()
            return
        self.keeps_alive = self._is_framed and bool(self._parser.should_keep_alive())  # forgotten with the next message
        self._complete()
