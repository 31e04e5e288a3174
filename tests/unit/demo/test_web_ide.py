"""The stand-in for code-server, where a proxy could notice a difference: as a process, over real sockets."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.demo.web_ide.origin import is_same_origin
from tests.announced_process import AnnouncedProcess

FIN = b""


class WebIdeProcess(AnnouncedProcess):
    """It edits `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        super().__init__("controlplane.demo.web_ide", "--port", "0", "--dir", str(folder))
        self.port = int(self.url.rsplit(":", 1)[1])


@pytest.fixture(scope="module")
def ide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebIdeProcess]:
    with WebIdeProcess(tmp_path_factory.mktemp("ide") / "files") as running:
        yield running


class Raw:
    """A connection and what is said on it, byte by byte. One that the server closed, as it does with those that rest,
    is followed by another."""

    def __init__(self, ide: WebIdeProcess) -> None:
        self._port = ide.port
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, method: str, target: str, *headers: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        own = [f"Content-Length: {len(body)}"] if body else []
        lines = [f"{method} {target} HTTP/1.1", "Host: ide.example:81", *own, *headers, "", ""]
        request = "\r\n".join(lines).encode() + body
        first = self._first_line(request)
        if not first:
            self._close()
            self._connect()
            first = self._first_line(request)
        status = int(first.split()[1])
        seen = {}
        while line := self.file.readline().decode().strip():
            name, _, value = line.partition(":")
            seen[name.lower()] = value.strip()
        return status, seen

    def _first_line(self, request: bytes) -> bytes:
        """Of the answer; empty where the connection was closed instead."""
        try:
            self.socket.sendall(request)
            return self.file.readline()
        except ConnectionError:
            return b""

    def body(self, headers: dict[str, str]) -> bytes:
        return self.file.read(int(headers["content-length"]))

    def upgrade(self, target: str, *headers: str) -> tuple[int, dict[str, str]]:
        key = base64.b64encode(b"0123456789abcdef").decode()
        upgrade = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        return self.ask("GET", target, *upgrade, *headers)

    def send_text(self, text: bytes) -> None:
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)

    def frame(self) -> bytes:
        _, length = self.file.read(2)
        return self.file.read(int.from_bytes(self.file.read(2)) if length == 126 else length)


def test_the_page_is_reached_by_a_relative_redirect_and_port_forwarding_by_an_absolute_one(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        status, headers = raw.ask("GET", "/")
        assert (status, headers["location"]) == (302, f"./?folder={ide.folder}")
        status, headers = raw.ask("GET", "/?folder=x")
        page = raw.body(headers).decode()
        assert (status, "Domain=localhost; Path=/" in headers["set-cookie"]) == (200, True)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert not [each for each in re.findall(r'(?:src|href)="([^"]+)"', page) if each.startswith(("/", "http"))]
        status, headers = raw.ask("GET", "/proxy/3000")
        assert (status, headers["location"]) == (302, "/proxy/3000/")


def test_assets_are_compressed_where_accepted_and_validated(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        _, plain = raw.ask("GET", "/worker.js")
        raw.body(plain)
        assert plain["service-worker-allowed"] == "/"
        assert raw.ask("GET", "/worker.js", f"If-None-Match: {plain['etag']}")[0] == 304
        assert raw.ask("HEAD", "/worker.js")[0] == 405
    with Raw(ide) as raw:
        _, packed = raw.ask("GET", "/ide.js", "Accept-Encoding: gzip")
        assert packed["content-encoding"] == "gzip"
        assert b"Shell" in gzip.decompress(raw.body(packed))


def test_a_file_is_saved_read_and_listed_and_none_outside_the_folder(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        status, headers = raw.ask("PUT", "/api/files/notes/day.txt", body=b"rain")
        assert (status, json.loads(raw.body(headers))["bytes"]) == (200, 4)
        assert (ide.folder / "notes/day.txt").read_bytes() == b"rain"
        _, headers = raw.ask("GET", "/api/files")
        assert json.loads(raw.body(headers))["files"] == ["notes/day.txt"]
    for outside in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%2Fetc/passwd"):
        with Raw(ide) as raw:
            assert raw.ask("GET", f"/api/files/{outside}")[0] == 404


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Host": "a:1"}, True),
        ({"Host": "a:1", "Origin": "https://a:1"}, True),
        ({"Host": "a:1", "Origin": "http://a"}, False),
        ({"Host": "a:1", "Origin": "null"}, False),
        ({"Host": "inner", "X-Forwarded-Host": "a, b", "Origin": "http://a"}, True),
        ({"Host": "a", "X-Forwarded-Host": "b", "Origin": "http://a"}, False),
        ({"Host": "i", "X-Forwarded-Host": "b", "Forwarded": 'for=1;host="a:2"', "Origin": "http://a:2"}, True),
    ],
)
def test_a_websocket_is_opened_for_the_host_that_the_browser_asked_for(headers: dict[str, str], passes: bool) -> None:
    assert is_same_origin(headers) is passes


def test_deflate_is_accepted_plainly_and_declined_with_limits(ide: WebIdeProcess) -> None:
    for offer, answer in (
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; client_no_context_takeover", None),
    ):
        with Raw(ide) as raw:
            status, headers = raw.upgrade("/echo", f"Sec-WebSocket-Extensions: {offer}")
            assert (status, headers.get("sec-websocket-extensions")) == (101, answer)


def test_an_echo_selects_a_subprotocol_and_ends_with_a_bare_fin(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        status, headers = raw.upgrade("/echo", "Sec-WebSocket-Protocol: one, two", "Origin: http://ide.example:81")
        assert (status, headers["sec-websocket-protocol"]) == (101, "two")
        raw.send_text(b"hello")
        assert raw.frame() == b"hello"
        raw.send_text(b"bye")
        assert raw.file.read() == FIN
    with Raw(ide) as raw:
        raw.upgrade("/echo")
        raw.socket.sendall(b"\x88\x80" + bytes(4))
        assert raw.file.read() == FIN


def test_upgrades_are_refused_by_origin_and_by_the_application(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        assert raw.upgrade("/echo", "Origin: http://evil.example")[0] == 403
    for status in (401, 403, 404):
        with Raw(ide) as raw:
            assert raw.upgrade(f"/refuse/{status}")[0] == status


def test_a_shell_is_found_again_under_its_name(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw:
        raw.upgrade("/terminal?name=one")
        raw.send_text(b"echo $((40 + 2)); ANSWER=forty-two\r")
        seen = b""
        while b"42\r\n" not in seen:
            seen += raw.frame()
    with Raw(ide) as raw:
        raw.upgrade("/terminal?name=one")
        raw.send_text(b"echo still $ANSWER\r")
        while b"still forty-two" not in seen:
            seen += raw.frame()


def test_an_answer_in_parts_is_sent_as_it_comes(ide: WebIdeProcess) -> None:
    with Raw(ide) as raw, Raw(ide) as other:
        _, headers = raw.ask("GET", "/api/parts")
        assert headers["transfer-encoding"] == "chunked"
        first = b"d\r\ndata: first\n\n\r\n"
        assert raw.file.read(len(first)) == first
        other.ask("POST", "/api/parts", "Content-Length: 0")
        assert raw.file.readline() == b"e\r\n"
        assert raw.file.readline() == b"data: second\n"
