"""One HTTP/1.1 answer, read as it arrives and bounded in size. Parsing is llhttp's (through httptools)."""

from __future__ import annotations

import httptools

from controlplane.errors import AgentProtocolError
from controlplane.http_faults import fault_of
from controlplane.ports import AgentResponse

HEADER_LIMIT_BYTES = 32 << 10
_INTERIM_LIMIT = 8


class AnswerParser:
    """`response` is there once the answer is complete; interim answers (1xx) are passed over."""

    def __init__(self, body_limit_bytes: int) -> None:
        self._body_limit_bytes = body_limit_bytes
        self._interim = 0
        self._received_bytes = 0
        self.response: AgentResponse | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_head_complete = False
        self._is_interim = False

    @property
    def has_begun(self) -> bool:
        return self._received_bytes > 0

    def feed(self, data: bytes) -> None:
        """Raises AgentProtocolError for what is no answer, or too large a one."""
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise AgentProtocolError("The agent switched protocols unasked.", code="http_invalid") from error
        except httptools.HttpParserError as error:
            raise fault_of(error) from error
        if not self._is_head_complete and self._received_bytes > HEADER_LIMIT_BYTES:
            raise AgentProtocolError("The answer's headers are too large.", code="headers_too_large")

    def end(self) -> None:
        """The agent closed the connection: that ends an answer without a length (RFC 9112 section 6.3)."""
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._is_head_complete and not self._is_interim and not framed:
            self.on_message_complete()

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_head_complete = True
        self._is_interim = 100 <= self._parser.get_status_code() < 200
        if self._is_interim:
            self._interim += 1
            if self._interim > _INTERIM_LIMIT:
                raise AgentProtocolError("The agent sends interim answers without end.", code="http_invalid")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._body_limit_bytes:
            raise AgentProtocolError("The answer's body is too large.", code="body_too_large")
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._headers = {}
            self._is_head_complete = False
        elif self.response is None:
            self.response = AgentResponse(self._parser.get_status_code(), dict(self._headers), b"".join(self._body))
