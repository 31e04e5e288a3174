"""Errors of sockets and of the parser become ours; a callback's own mistake stays one."""

from __future__ import annotations

import errno
import ssl

import httptools
import pytest

from controlplane.agents.faults import fault_of, unreachable
from controlplane.errors import AgentProtocolError


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


def refused_handshake() -> ssl.SSLError:
    """What a peer that speaks no TLS comes to."""
    incoming = ssl.MemoryBIO()
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="agent").do_handshake()
    return caught.value


def test_a_connection_that_could_not_be_made_says_why() -> None:
    assert "Connection refused" in unreachable(OSError(errno.ECONNREFUSED, "")).message
    assert "no address" in unreachable(OSError("no address")).message
    assert "TLS was refused: WRONG_VERSION_NUMBER" in unreachable(refused_handshake()).message
