"""What a request that is passed on must not be: anything that the next hop might read otherwise than we do. Pure.

Tornado has parsed it, and passes some things (bare line feeds, several Hosts, lists of equal lengths) that are refused
here, before a byte of it goes anywhere (RFC 9112 sections 2.2, 3.2, 5.1, 6.3 and 11.2).
"""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders

from controlplane.errors import MalformedRequest

FIELD_LIMIT = 128
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/1\.[01]\r\n(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")


def check_head(head: bytes) -> None:
    """The bytes of the head as they came, behind the empty lines that may precede it. Raises MalformedRequest."""
    head = head.lstrip(b"\r\n")
    if _HEAD.fullmatch(head) is None:
        raise _refused(_fault_of_head(head))
    if head.count(b"\r\n") - 2 > FIELD_LIMIT:
        raise _refused(f"it has more than {FIELD_LIMIT} header fields")


def _fault_of_head(head: bytes) -> str:
    """In words, for a head that is known to be wrong."""
    if re.search(rb"(?<!\r)\n", head):
        return "a line ends with a bare line feed"
    if re.search(rb"\r(?!\n)", head):
        return "a bare carriage return stands in it"
    if re.search(rb"\r\n[ \t]", head):
        return "a header is folded over several lines"
    if re.search(rb"\r\n" + _TOKEN + rb"[ \t]+:", head):
        return "a space stands between a header's name and its colon"
    return "its head is not that of an HTTP/1.1 request"


def check_request(method: str, target: str, version: str, headers: HTTPHeaders) -> None:
    """Raises MalformedRequest."""
    if method in ("CONNECT", "TRACE"):
        raise _refused(f"{method} is not served here")
    if not target.startswith("/") or "#" in target:
        raise _refused("its target is not a path")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise _refused("its version is neither HTTP/1.1 nor HTTP/1.0")
    if version == "HTTP/1.0" and "Connection" in headers and headers["Connection"].lower() != "close":
        raise _refused("HTTP/1.0 may not keep a connection here: its answers may have no length")
    if len(headers.get_list("Host")) != 1:
        raise _refused("it has no Host, or several")
    _check_framing(version, headers)
    if has_body(headers) and "Upgrade" in headers:
        raise _refused("it asks for an upgrade and has a body")


def has_body(headers: HTTPHeaders) -> bool:
    """By its framing; a length of zero is no body."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0").strip("0") != ""


def _check_framing(version: str, headers: HTTPHeaders) -> None:
    lengths, codings = headers.get_list("Content-Length"), headers.get_list("Transfer-Encoding")
    if codings and lengths:
        raise _refused("it has both a Content-Length and a Transfer-Encoding")
    if codings and ([coding.lower() for coding in codings] != ["chunked"] or version == "HTTP/1.0"):
        raise _refused("its Transfer-Encoding is not exactly chunked")
    if lengths and (len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19)):
        raise _refused("its Content-Length is not one number")


def _refused(why: str) -> MalformedRequest:
    return MalformedRequest(f"This request is not passed on: {why}.", code="request_refused")
