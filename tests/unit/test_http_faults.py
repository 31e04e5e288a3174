"""A parser's errors become ours; a callback's own mistake stays one."""

from __future__ import annotations

import httptools
import pytest

from controlplane.errors import AgentProtocolError
from controlplane.http_faults import fault_of


class Refusing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def on_headers_complete(self) -> None:
        raise self._error


def error_of(answer: bytes, callback: Exception) -> httptools.HttpParserError:
    with pytest.raises(httptools.HttpParserError) as caught:
        httptools.HttpResponseParser(Refusing(callback)).feed_data(answer)
    return caught.value


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_what_a_callback_refuses_is_the_fault_and_else_it_is_no_http() -> None:
    refused = AgentProtocolError("Too many.", code="http_invalid")
    assert fault_of(error_of(OK, refused)) is refused
    assert fault_of(error_of(b"SSH-2.0-OpenSSH_9.2\r\n", refused)).stable_code == "http_invalid"


def test_a_callback_that_fails_is_not_the_agents_fault() -> None:
    with pytest.raises(httptools.HttpParserCallbackError):
        fault_of(error_of(OK, KeyError("x")))
