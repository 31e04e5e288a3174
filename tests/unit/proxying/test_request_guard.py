"""Requests that another reader might read otherwise are not passed on. What goes over the wire is in tests/api."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from controlplane.errors import MalformedRequest
from controlplane.proxying.request_guard import check_head, check_request, has_body


def headers(*fields: tuple[str, str]) -> HTTPHeaders:
    made = HTTPHeaders()
    for name, value in (("Host", "x"), *fields):
        made.add(name, value)
    return made


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROPFIND /a?b=c%20d HTTP/1.0\r\nHost:x\r\nX-A:\r\nX-B: \t caf\xe9 \r\n\r\n",
        b"GET /%C3%A9 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_plain_head_passes(head: bytes) -> None:
    check_head(head)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"GET / HTTP/1.1\nHost: x\r\n\r\n", "bare line feed"),
        (b"GET / HTTP/1.1\r\nHost: x\n\r\n", "bare line feed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\n", "bare line feed"),
        (b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", "bare carriage return"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nX : a\r\n\r\n", "a space stands between"),
        (b"GET / HTTP/1.1\r\nX: a\x00\r\n\r\n", "not that of"),
        (b"GET / HTTP/1.1\r\nX: a\x7f\r\n\r\n", "not that of"),
        (b"GET  / HTTP/1.1\r\n\r\n", "not that of"),
        (b"GET / HTTP/2.0\r\n\r\n", "not that of"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "not that of"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", "not that of"),  # RFC 9112 section 3.2: percent-encoded
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", "not that of"),
        (b"GET / HTTP/1.1\r\nX(): a\r\n\r\n", "not that of"),
        (b"", "not that of"),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 129 + b"\r\n", "more than 128"),
    ],
)
def test_a_head_that_could_be_read_otherwise_is_refused_with_its_fault(head: bytes, why: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        check_head(head)
    assert why in refused.value.message
    assert refused.value.stable_code == "request_refused"


@pytest.mark.parametrize(
    ("method", "target", "version", "fields"),
    [
        ("CONNECT", "x:443", "HTTP/1.1", ()),
        ("CONNECT", "/", "HTTP/1.1", ()),
        ("TRACE", "/", "HTTP/1.1", ()),
        ("GET", "http://x/", "HTTP/1.1", ()),
        ("OPTIONS", "*", "HTTP/1.1", ()),
        ("GET", "/a#b", "HTTP/1.1", ()),
        ("GET", "/", "HTTP/1.2", ()),
        ("GET", "/", "HTTP/1.0", (("Connection", "keep-alive"),)),
        ("GET", "/", "HTTP/1.1", (("Host", "x"),)),
        ("POST", "/", "HTTP/1.1", (("Content-Length", "5"), ("Transfer-Encoding", "chunked"))),
        ("POST", "/", "HTTP/1.1", (("Content-Length", "5"), ("Content-Length", "5"))),
        ("POST", "/", "HTTP/1.1", (("Content-Length", "5, 5"),)),
        ("POST", "/", "HTTP/1.1", (("Content-Length", "+5"),)),
        ("POST", "/", "HTTP/1.1", (("Content-Length", "\xb2"),)),
        ("POST", "/", "HTTP/1.1", (("Transfer-Encoding", "gzip, chunked"),)),
        ("POST", "/", "HTTP/1.1", (("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked"))),
        ("POST", "/", "HTTP/1.1", (("Transfer-Encoding", "identity"),)),
        ("POST", "/", "HTTP/1.0", (("Transfer-Encoding", "chunked"),)),
        ("GET", "/", "HTTP/1.1", (("Upgrade", "websocket"), ("Content-Length", "5"))),
        ("GET", "/", "HTTP/1.1", (("Upgrade", "websocket"), ("Transfer-Encoding", "chunked"))),
    ],
)
def test_an_ambiguous_request_is_refused(
    method: str, target: str, version: str, fields: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(MalformedRequest):
        check_request(method, target, version, headers(*fields))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("Content-Length", "5"),),
        (("Transfer-Encoding", "Chunked"),),
        (("Upgrade", "websocket"), ("Content-Length", "0")),
    ],
)
def test_a_clear_request_passes(fields: tuple[tuple[str, str], ...]) -> None:
    check_request("POST", "/a?b", "HTTP/1.1", headers(*fields))


def test_a_length_of_zero_is_no_body() -> None:
    assert not has_body(headers())
    assert not has_body(headers(("Content-Length", "000")))
    assert has_body(headers(("Content-Length", "10")))
    assert has_body(headers(("Transfer-Encoding", "chunked")))
