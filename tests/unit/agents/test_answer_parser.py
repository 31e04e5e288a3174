"""Answers of agents: whole, bounded, one at a time, and then whether the connection may be used again."""

from __future__ import annotations

import pytest

from controlplane.agents.answer_parser import HEADER_LIMIT, HEADER_LIMIT_BYTES, AnswerParser
from controlplane.errors import AgentProtocolError

LIMIT = 1000


def reply(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {head}\r\n\r\n".encode("latin-1") + body


@pytest.mark.parametrize(
    ("raw", "status", "body", "keeps_alive"),
    [
        (reply("200 OK\r\nContent-Length: 5", b"hello"), 200, b"hello", True),
        (reply("200 OK\r\nContent-Length: 0"), 200, b"", True),
        (reply("200 OK\r\nContent-Length: 5\r\nConnection: close", b"hello"), 200, b"hello", False),
        (reply("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"), 200, b"hello", True),
        (reply("204 No Content"), 204, b"", True),
        (reply("100 Continue") + reply("103 Hints") + reply("201 OK\r\nContent-Length: 2", b"{}"), 201, b"{}", True),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_is_read_whole_and_the_next_one_after_it(
    raw: bytes, status: int, body: bytes, keeps_alive: bool, at_once: bool
) -> None:
    parser = AnswerParser(LIMIT)
    for _ in range(2 if keeps_alive else 1):
        assert not parser.has_begun
        for piece in (raw,) if at_once else (raw[at : at + 1] for at in range(len(raw))):
            parser.feed(piece)
        assert parser.response is not None
        assert (parser.response.status, parser.response.body, parser.keeps_alive) == (status, body, keeps_alive)
        assert "x-a" not in parser.response.headers
        parser.reset()


@pytest.mark.parametrize(("head", "is_whole"), [("200 OK", True), ("200 OK\r\nContent-Length: 9", False)])
def test_the_end_of_the_connection_ends_an_answer_without_a_length_alone(head: str, is_whole: bool) -> None:
    parser = AnswerParser(LIMIT)
    parser.end()
    assert parser.response is None
    parser.feed(reply(head, b"hello"))
    assert parser.response is None
    parser.end()
    assert (parser.response is not None) is is_whole
    assert not parser.keeps_alive


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "http_invalid"),
        (reply("101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade"), "http_invalid"),
        (reply("200 OK\r\nContent-Length: 1", b"ab"), "http_invalid"),
        (reply("200 OK\r\nContent-Length: 1", b"a") + reply("200 OK\r\nContent-Length: 0"), "http_invalid"),
        (reply("100 Continue") * 20, "http_invalid"),
        (reply(f"200 OK\r\nContent-Length: {LIMIT + 1}"), "body_too_large"),
        (reply("200 OK", bytes(LIMIT + 1)), "body_too_large"),
        (reply("200 OK\r\nX-A: " + "a" * HEADER_LIMIT_BYTES), "headers_too_large"),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * HEADER_LIMIT_BYTES, "headers_too_large"),
        (reply("200 OK" + "".join(f"\r\nX-{number}: a" for number in range(HEADER_LIMIT + 1))), "headers_too_large"),
        (reply("200 OK\r\nTransfer-Encoding: chunked", b"1;" + b"a" * HEADER_LIMIT_BYTES), "headers_too_large"),
    ],
)
def test_what_is_no_answer_or_too_much_of_one_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(AgentProtocolError) as refused:
        AnswerParser(LIMIT).feed(raw)
    assert refused.value.stable_code == code
