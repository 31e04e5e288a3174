"""What was tried against the IDE's proxy on the wire, one row each, and what has to become of it.

`<base>` is where the app begins as the browser sees it, `<own>` the headers that let a request through, `<host>` its
Host. Where another request could hide behind or in the first one, it is SMUGGLED, which must never reach the app.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """REFUSED: a 4xx of ours, and not a byte reaches the app. BROKEN: the fault lies in the body, whose head may have
    gone ahead: a 4xx, and the app never sees a whole request. LEGAL: the app sees exactly `requests`, well-formed."""

    REFUSED = "refused"
    BROKEN = "broken"
    LEGAL = "legal"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    outcome: Outcome
    raw: bytes
    body: bytes = b""
    """What the app gets as the first request's, where it is legal."""
    status: int = 200
    requests: int = 1


SMUGGLED = b"GET <base>smuggled HTTP/1.1\r\n<own>\r\n"
_GET = b"GET <base>page HTTP/1.1\r\n<own>"
_POST = b"POST <base>page HTTP/1.1\r\n<own>"
_KEY = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
_UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + _KEY
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


def _refused(name: str, raw: bytes) -> Case:
    return Case(name, Outcome.REFUSED, raw)


def _legal(name: str, raw: bytes, body: bytes = b"", *, status: int = 200, requests: int = 1) -> Case:
    return Case(name, Outcome.LEGAL, raw, body, status, requests)


def _length(name: str, value: bytes, body: bytes = b"hello") -> Case:
    return _refused(f"Content-Length: {name}", _POST + b"Content-Length:" + value + b"\r\n\r\n" + body + SMUGGLED)


def _coding(name: str, *fields: bytes) -> Case:
    lines = b"".join(b"%b\r\n" % each for each in fields)
    return _refused(f"Transfer-Encoding: {name}", _POST + lines + b"\r\n5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)


def _chunk(name: str, body: bytes) -> Case:
    return Case(f"chunks: {name}", Outcome.BROKEN, _CHUNKED + body + SMUGGLED)


def _field(name: str, line: bytes) -> Case:
    return _refused(f"header: {name}", _GET + line + b"\r\n\r\n" + SMUGGLED)


def _line(name: str, line: bytes) -> Case:
    return _refused(f"request line: {name}", line + b"\r\n<own>\r\n" + SMUGGLED)


LENGTHS = (
    _length("twice, different", b" 5\r\nContent-Length: 6"),
    _length("twice, the same", b" 5\r\nContent-Length: 5"),
    _length("a list, different", b" 5, 6"),
    _length("a list, the same", b" 5, 5"),
    _length("a list with a hole", b" 5,,5"),
    _length("negative", b" -5"),
    _length("with a plus", b" +5"),
    _length("hexadecimal", b" 0x5"),
    _length("with an underscore", b" 1_0"),
    _length("a fraction", b" 5.0"),
    _length("with an exponent", b" 5e0"),
    _length("two numbers", b" 5 5"),
    _length("quoted", b' "5"'),
    _length("empty", b" "),
    _length("no number", b" five"),
    _length("digits of another script", b" \xd9\xa5"),
    _length("superscript", b" \xb2"),
    _length("larger than any file", b" 18446744073709551621"),
    _length("of four hundred digits", b" " + b"9" * 400),
    _length("with a NUL", b" 5\x00"),
    _length("with a vertical tab", b"\x0b5"),
    _length("with a no-break space", b" 5\xa0"),
    _refused(
        "both lengths, length first",
        _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ),
    _refused(
        "both lengths, coding first",
        _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ),
    _refused(
        "both lengths, zero",
        _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    ),
    _refused("a length with an underscore in its name", _POST + b"Content_Length: 5\r\nContent-Length: x\r\n\r\n"),
)

CODINGS = (
    _coding("unknown", b"Transfer-Encoding: xchunked"),
    _coding("gzip before chunked", b"Transfer-Encoding: gzip, chunked"),
    _coding("chunked before identity", b"Transfer-Encoding: chunked, identity"),
    _coding("chunked twice", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    _coding("a list of chunked", b"Transfer-Encoding: chunked, chunked"),
    _coding("two lines", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    _coding("identity", b"Transfer-Encoding: identity"),
    _coding("with a parameter", b"Transfer-Encoding: chunked;q=1"),
    _coding("quoted", b'Transfer-Encoding: "chunked"'),
    _coding("empty", b"Transfer-Encoding:"),
    _coding("a comma behind", b"Transfer-Encoding: chunked,"),
    _coding("a comma before", b"Transfer-Encoding: ,chunked"),
    _coding("a vertical tab before", b"Transfer-Encoding: \x0bchunked"),
    _coding("a NUL behind", b"Transfer-Encoding: chunked\x00"),
    _coding("space before the colon", b"Transfer-Encoding : chunked"),
    _coding("folded", b"Transfer-Encoding:\r\n chunked"),
    _coding("folded with a tab", b"Transfer-Encoding:\r\n\tchunked"),
    _coding("behind a bare CR", b"X: y\rTransfer-Encoding: chunked"),
    _coding("a letter like k", "Transfer-Encoding: chun\u212aed".encode()),
    _refused(
        "Transfer-Encoding in HTTP/1.0",
        b"POST <base>page HTTP/1.0\r\n<own>Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ),
)

CHUNKS = (
    _chunk("size is no number", b"x\r\nhello\r\n0\r\n\r\n"),
    _chunk("size is empty", b"\r\nhello\r\n0\r\n\r\n"),
    _chunk("size is negative", b"-5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size with a space behind", b"5 \r\nhello\r\n0\r\n\r\n"),
    _chunk("size with a space before", b" 5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size larger than any file", b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
    _chunk("size of a hundred digits", b"0" * 100 + b"5\r\nhello\r\n0\r\n\r\n"),
    _chunk("shorter than they are", b"3\r\nhello\r\n0\r\n\r\n"),
    _chunk("longer than they are", b"6\r\nhello\r\n0\r\n\r\n"),
    _chunk("bare LF behind the size", b"5\nhello\r\n0\r\n\r\n"),
    _chunk("bare LF behind the data", b"5\r\nhello\n0\r\n\r\n"),
    _chunk("bare LF at the end", b"5\r\nhello\r\n0\n\n"),
    _chunk("bare CR behind the size", b"5\rXhello\r\n0\r\n\r\n"),
    _chunk("an extension", b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    _chunk("an extension with a bare LF", b"5;a\nX\r\nhello\r\n0\r\n\r\n"),
    _chunk("an extension without end", b"5;" + b"a" * 100_000),
    _chunk("a trailer", b"5\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n"),
    _chunk("a trailer with a length", b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
    _chunk("garbage behind the last", b"5\r\nhello\r\n0\r\nX"),
)

FIELDS = (
    _field("space before the colon", b"X-A : b"),
    _field("tab before the colon", b"X-A\t: b"),
    _field("name is empty", b": b"),
    _field("no colon", b"garbage"),
    _field("folded", b"X-A: b\r\n c"),
    _field("folded with a tab", b"X-A: b\r\n\tc"),
    _field("NUL in the value", b"X-A: b\x00c"),
    _field("NUL in the name", b"X-\x00A: b"),
    _field("bare CR in the value", b"X-A: b\rc"),
    _field("bare LF in the value", b"X-A: b\nX-B: c"),
    _field("escape in the value", b"X-A: \x1b[2J"),
    _field("DEL in the value", b"X-A: b\x7f"),
    _field("bracket in the name", b"X-(A): b"),
    _field("name not in ASCII", "X-\u00c4: b".encode()),
    _field("name with a slash", b"X/A: b"),
    _field("space before the first", b" X-A: b"),
    _field("Host again", b"Host: elsewhere.example"),
    _field("Host again, the same", b"Host: <host>"),
    _field("Host again, after a space", b"Host : <host>"),
    _refused("header: space before all of them", b"GET <base>page HTTP/1.1\r\n X-A: b\r\n<own>\r\n" + SMUGGLED),
    _refused("header: one megabyte in one", _GET + b"X-A: " + b"a" * (1 << 20) + b"\r\n\r\n"),
    _refused("header: one megabyte in many", _GET + b"X-A: 0123456789\r\n" * 62_000 + b"\r\n"),
    _refused("header: a thousand of them", _GET + b"X-A: b\r\n" * 1000 + b"\r\n"),
    _refused("header: bare LF ends them all", (_GET + b"X-A: b\r\n\r\n").replace(b"\r\n", b"\n") + SMUGGLED),
    _refused("header: bare LF ends the head", _GET + b"X-A: b\r\n\n" + SMUGGLED),
    _refused("Host: none", b"GET <base>page HTTP/1.1\r\nCookie: a=b\r\n\r\n" + SMUGGLED),
    _refused("Host: empty", b"GET <base>page HTTP/1.1\r\nHost:\r\n\r\n" + SMUGGLED),
    _refused("Host: unknown", b"GET <base>page HTTP/1.1\r\nHost: dev-999.elsewhere.example\r\n\r\n" + SMUGGLED),
    _refused("Host: a list", b"GET <base>page HTTP/1.1\r\nHost: <host>, <host>\r\n\r\n" + SMUGGLED),
    _refused("Host: with a user", b"GET <base>page HTTP/1.1\r\nHost: a@<host>\r\n\r\n" + SMUGGLED),
    _refused("Host: with a path", b"GET <base>page HTTP/1.1\r\nHost: <host>/x\r\n\r\n" + SMUGGLED),
    _refused("Host: port is no number", b"GET <base>page HTTP/1.1\r\nHost: <host>x\r\n\r\n" + SMUGGLED),
)

LINES = (
    _line("absolute-form", b"GET http://<host><base>page HTTP/1.1"),
    _line("absolute-form to elsewhere", b"GET http://elsewhere.example/ HTTP/1.1"),
    _line("CONNECT", b"CONNECT 127.0.0.1:22 HTTP/1.1"),
    _line("CONNECT with a path", b"CONNECT <base>page HTTP/1.1"),
    _line("TRACE", b"TRACE <base>page HTTP/1.1"),
    _line("asterisk", b"OPTIONS * HTTP/1.1"),
    _line("no leading slash", b"GET page HTTP/1.1"),
    _line("a fragment", b"GET <base>page#x HTTP/1.1"),
    _line("HTTP/0.9", b"GET <base>page"),
    _line("HTTP/2.0", b"GET <base>page HTTP/2.0"),
    _line("HTTP/1.2", b"GET <base>page HTTP/1.2"),
    _line("HTTP/1.10", b"GET <base>page HTTP/1.10"),
    _line("HTTP/01.1", b"GET <base>page HTTP/01.1"),
    _line("http in small letters", b"GET <base>page http/1.1"),
    _line("another protocol", b"GET <base>page ICY/1.1"),
    _line("version cut off", b"GET <base>page HTTP/1."),
    _line("two spaces", b"GET  <base>page HTTP/1.1"),
    _line("a tab between", b"GET\t<base>page HTTP/1.1"),
    _line("a space in the target", b"GET <base>a b HTTP/1.1"),
    _line("a space behind", b"GET <base>page HTTP/1.1 "),
    _line("NUL in the target", b"GET <base>a\x00b HTTP/1.1"),
    _line("bare CR in the target", b"GET <base>a\rb HTTP/1.1"),
    _line("a letter that is not ASCII", "GET <base>p\u00e4ge HTTP/1.1".encode()),
    _line("a byte that is no UTF-8", b"GET <base>p\xffge HTTP/1.1"),
    _line("method with a bracket", b"G(T <base>page HTTP/1.1"),
    _line("method is empty", b" <base>page HTTP/1.1"),
    _line("method of a hundred thousand letters", b"G" * 100_000 + b" <base>page HTTP/1.1"),
    _line("target of a hundred thousand letters", b"GET <base>" + b"a" * 100_000 + b" HTTP/1.1"),
    _refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    _refused("TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(40) + b"\r\n\r\n"),
    _refused("bytes that are nothing", bytes(range(255, 0, -1)) + b"\r\n\r\n"),
)

UPGRADES = (
    _refused("upgrade in HTTP/1.0", b"GET <base>page HTTP/1.0\r\n<own>" + _UPGRADE + b"\r\n" + SMUGGLED),
    _refused("upgrade with a length", _GET + _UPGRADE + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED),
    _refused("upgrade with chunks", _GET + _UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
    # An upgrade that is asked for may be left alone (RFC 9110 section 7.8): the app must then not see it either.
    _legal("upgrade by POST", _POST + _UPGRADE + b"\r\n"),
    _legal(
        "upgrade to HTTP/2",
        _GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ),
    _legal("upgrade to two protocols", _GET + _UPGRADE.replace(b"websocket", b"h2c, websocket") + b"\r\n"),
    _legal("upgrade that Connection does not name", _GET + _UPGRADE.replace(b": Upgrade", b": close") + b"\r\n"),
    # The app refuses this one, and what stands behind it is a request in its own right, not bytes for the app.
    _legal("upgrade refused, a request behind", _GET + _UPGRADE + b"\r\n" + _GET + b"\r\n", status=404, requests=2),
)

LEGAL = (
    _legal("GET", _GET + b"\r\n"),
    _legal("HTTP/1.0", b"GET <base>page HTTP/1.0\r\n<own>\r\n"),
    _legal("an empty line before", b"\r\n" + _GET + b"\r\n"),
    _legal("two in a row", _GET + b"\r\n" + _GET + b"\r\n", requests=2),
    _legal("a length", _POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    _legal("a length of zero", _POST + b"Content-Length: 0\r\n\r\n"),
    _legal("a length with zeros before", _POST + b"Content-Length: 0005\r\n\r\nhello", b"hello"),
    _legal("chunks", _CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    _legal("chunks of one byte", _CHUNKED + b"1\r\na\r\n" * 50 + b"0\r\n\r\n", b"a" * 50),
    _legal("chunks with zeros before the size", _CHUNKED + b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
    _legal("no chunk but the last", _CHUNKED + b"0\r\n\r\n"),
    _legal("coding in capitals", _POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    _legal(
        "a body that is a request",
        _POST + b"Content-Length: 19\r\n\r\nGET / HTTP/1.1\r\n\r\n\n",
        b"GET / HTTP/1.1\r\n\r\n\n",
    ),
    _legal("a body of GET", _GET + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    _legal("a hop-by-hop header", _GET + b"Connection: X-A\r\nX-A: b\r\nTE: trailers\r\n\r\n"),
    _legal(
        "Connection names what frames",
        _POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    _legal("Connection names Host", _GET + b"Connection: Host, Cookie, Origin\r\n\r\n"),
    _legal("a value in Latin-1", _GET + b"X-A: \xe4\r\n\r\n"),
    _legal("a target with percent signs", b"GET <base>%2e%2e/%0d%0aX:%20y HTTP/1.1\r\n<own>\r\n"),
)

CASES = (*LENGTHS, *CODINGS, *CHUNKS, *FIELDS, *LINES, *UPGRADES, *LEGAL)
