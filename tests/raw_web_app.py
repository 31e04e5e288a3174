"""A web app without a framework, on plain sockets in threads: any app may stand on an IDE's port. This one is picky.

It takes requests exactly as RFC 9112 writes them and remembers every byte, so that a test can say what reached it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(
    rb"(?P<method>%b) (?P<target>[!-~]+) HTTP/1\.1\r\n(?P<fields>(?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % (_TOKEN, _TOKEN)
)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})\r\n")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAGE = b"<!doctype html><title>Another app</title><h1>Another app</h1>"
NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One whole request as it arrived. Names of headers are lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]


class _Ended(Exception):
    """The connection is over before a request is whole."""


@dataclass
class _Connection:
    """Reads requests from one socket."""

    socket: socket.socket
    app: RawWebApp
    rest: bytes = b""

    def more(self) -> None:
        data = self.socket.recv(64 << 10)
        if not data:
            raise _Ended
        self.app.note(data)
        self.rest += data

    def take(self, count: int) -> bytes:
        while len(self.rest) < count:
            self.more()
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def line(self) -> bytes:
        while b"\r\n" not in self.rest:
            self.more()
        return self.take(self.rest.index(b"\r\n") + 2)

    def request(self) -> Seen:
        """Raises ValueError for what is not well-formed."""
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head = self.take(self.rest.index(b"\r\n\r\n") + 4)
        found = _HEAD.fullmatch(head)
        if found is None:
            raise ValueError(f"a head that is none: {head!r}")
        headers = tuple(
            (name.decode().lower(), value.strip().decode("latin-1"))
            for name, _, value in (line.partition(b":") for line in found["fields"].split(b"\r\n")[:-1])
        )
        seen = Seen(found["method"].decode(), found["target"].decode(), headers, b"")
        return Seen(seen.method, seen.target, headers, self._body(seen))

    def _body(self, seen: Seen) -> bytes:
        lengths, codings = seen.all("content-length"), seen.all("transfer-encoding")
        if len(seen.all("host")) != 1 or len(lengths) + len(codings) > 1:
            raise ValueError(f"Host or framing is ambiguous: {seen}")
        if codings == ["chunked"]:
            return self._chunks()
        if codings or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
            raise ValueError(f"framing that is none: {seen}")
        return self.take(int(lengths[0])) if lengths else b""

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self.line()
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise ValueError(f"a chunk's size that is none: {line!r}")
            size = int(found[1], 16)
            body += self.take(size)
            if self.take(2) != b"\r\n":
                raise ValueError("a chunk that is longer than it says, or a trailer")
            if size == 0:
                return body


class RawWebApp:
    """Use it in a `with`. `requests` are the whole ones, `received` every byte, `faults` what was not HTTP/1.1."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self.forget()

    def __enter__(self) -> RawWebApp:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join(10)
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with suppress(OSError):  # its thread, or its peer, may have closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        with self._lock:
            self.requests: list[Seen] = []
            self.received = bytearray()
            self.faults: list[str] = []

    def note(self, data: bytes) -> None:
        with self._lock:
            self.received += data

    def count_open(self) -> int:
        """Connections that are not at their end, or whose bytes are not all in `received` yet. Blocks.

        Connections are accepted in their order: when this one has been, so have all before it.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reading = _Connection(connection, self)
        try:
            while True:
                seen = reading.request()
                with self._lock:
                    self.requests.append(seen)
                if not self._answer(reading, seen):
                    return
        except ValueError as error:
            with self._lock:
                self.faults.append(str(error))
            with suppress(OSError):
                connection.sendall(NOT_HTTP)
        except (_Ended, OSError):
            return
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _answer(self, reading: _Connection, seen: Seen) -> bool:
        """Whether the connection goes on."""
        send = reading.socket.sendall
        path = seen.target.partition("?")[0]
        if seen.all("upgrade"):
            if path == "/echo":
                _echo(reading, seen)
                return False
            send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
        elif path == "/until-close":
            send(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE)
            return False
        elif path == "/chunked":
            send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n")
            for at in range(0, len(PAGE), 10):
                piece = PAGE[at : at + 10]
                send(b"%x;odd=extension\r\n%b\r\n" % (len(piece), piece))
            send(b"0\r\nX-Trailer: dropped\r\n\r\n")
        elif path == "/absolute":
            host = seen.all("host")[0].encode()
            send(b"HTTP/1.1 301 Moved\r\nLocation: http://%b/chunked?a=1\r\nContent-Length: 0\r\n\r\n" % host)
        else:
            send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(PAGE))
            send(PAGE if seen.method != "HEAD" else b"")
        return True


def _echo(reading: _Connection, seen: Seen) -> None:
    """The websocket: unmasked frames back with the opcode that they came with, until a Close."""
    key = seen.all("sec-websocket-key")[0].encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    reading.socket.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nX-App: raw\r\n\r\n" % accept
    )
    opcode = 0
    while opcode != 8:
        first, second = reading.take(2)
        opcode, length = first & 15, second & 127
        size = 2 if length == 126 else 8 if length == 127 else 0
        extended = reading.take(size)
        mask = reading.take(4)
        payload = reading.take(int.from_bytes(extended) if size else length)
        pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
        plain = (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(len(payload))
        reading.socket.sendall(bytes((first, length)) + extended + plain)
