"""Agents that break the contract, each a real socket server on loopback. `KINDS` names every way of being broken.

A broken agent answers `/health`, `/ready` and `/status` with the same misbehaviour, unless its kind says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

from controlplane.models import AgentEndpoint

HEALTHY = {
    "/health": b'{"status": "ok"}',
    "/ready": b'{"ready": true}',
    "/status": b'{"state": "running", "version": "1.0"}',
}
TOKEN = "broken-agent-token-0123456789"
TURNS_TO_A_TASK = 10
"""Turns of the loop after which a connection that was accepted has its task; asyncio takes five. One without would stay
open and be told of as a leak, in whichever test the garbage is collected."""

Behaviour = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def says(
    body: bytes, *paths: str, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n"
) -> Behaviour:
    """Healthy, except that these paths (all three where none is named) answer this."""

    async def behave(path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not paths or path in paths:
            writer.write(answer(body, status, headers))
        else:
            writer.write(answer(HEALTHY.get(path, b"{}")))

    return behave


def writes_raw(data: bytes, *paths: str, then_close: bool = True) -> Behaviour:
    async def behave(path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if paths and path not in paths:
            writer.write(answer(HEALTHY.get(path, b"{}")))
            return
        writer.write(data)
        if then_close:
            await writer.drain()
            writer.close()

    return behave


async def healthy(path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(HEALTHY.get(path, b"{}")))


async def never_answers(_path: str, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drips(_path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in answer(b'{"ready": true, "state": "running"}'):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def resets(_path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def endless_body(_path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(80_000):  # five gigabytes, if somebody reads them
        writer.write(chunk)
        await writer.drain()


async def endless_headers(_path: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1_000_000):
        writer.write(b"X-%d: " % number + b"x" * 1000 + b"\r\n")
        await writer.drain()


def _redirect() -> Behaviour:
    return says(b"", status="302 Found", headers="Location: http://169.254.169.254/latest/meta-data\r\n")


@dataclass(frozen=True, slots=True)
class Kind:
    """`reason` is the stable code that the normalized state gives; `clause` the contract check that fails first."""

    behave: Behaviour
    reason: str
    clause: str = "GET /health"


_NESTED = b"[" * 100_000 + b"]" * 100_000

KINDS: dict[str, Kind] = {
    "never answers": Kind(never_answers, "agent_timeout"),
    "drips one byte a second": Kind(drips, "agent_timeout"),
    "resets the connection": Kind(resets, "agent_unreachable"),
    "closes without an answer": Kind(writes_raw(b""), "agent_unreachable"),
    "breaks off in the body": Kind(writes_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), "answer_truncated"),
    "speaks no HTTP": Kind(writes_raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "http_invalid"),
    "sends a huge body by length": Kind(
        writes_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5368709120\r\n\r\n" + b"x" * 1000), "body_too_large"
    ),
    "sends a huge body in chunks": Kind(endless_body, "body_too_large"),
    "sends endless headers": Kind(endless_headers, "headers_too_large"),
    "sends two lengths": Kind(
        writes_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}"), "http_invalid"
    ),
    "redirects to a metadata service": Kind(_redirect(), "agent_refused"),
    "answers 500": Kind(says(b"boom", status="500 Internal Server Error"), "agent_refused"),
    "is ready in HTML": Kind(says(b"<html>ready</html>", "/ready"), "ready_invalid", "GET /ready"),
    "is ready in half a document": Kind(says(b'{"ready": tr', "/ready"), "ready_invalid", "GET /ready"),
    "is ready in a list": Kind(says(b'[{"ready": true}]', "/ready"), "ready_invalid", "GET /ready"),
    "is ready as a string": Kind(says(b'{"ready": "true"}', "/ready"), "ready_invalid", "GET /ready"),
    "is ready without saying": Kind(says(b'{"status": "fine"}', "/ready"), "ready_invalid", "GET /ready"),
    "is ready in UTF-16": Kind(says('{"ready": true}'.encode("utf-16"), "/ready"), "ready_invalid", "GET /ready"),
    "has a status of NaN": Kind(says(b'{"state": NaN}', "/status"), "status_invalid", "GET /status"),
    "nests its status deeply": Kind(
        says(b'{"state": "running", "x": ' + _NESTED + b"}", "/status"), "status_invalid", "GET /status"
    ),
    "has a state of its own": Kind(says(b'{"state": "on fire"}', "/status"), "status_invalid", "GET /status"),
    "has a list as its status": Kind(says(b"[]", "/status"), "status_invalid", "GET /status"),
}


@dataclass
class SocketAgent:
    """A real server; `async with` it. Counts what was asked, and what it sent."""

    behave: Behaviour = healthy
    needs_token: bool = True
    requests: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> SocketAgent:
        self.asked = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for _ in range(TURNS_TO_A_TASK):
            await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> AgentEndpoint:
        return AgentEndpoint("127.0.0.1", self.port, TOKEN)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        for line in head.split("\r\n"):
            if line.lower().startswith("content-length:"):
                await reader.readexactly(int(line.partition(":")[2]))
        self.requests.append(f"{method} {target}")
        self.heads.append(head)
        self.asked.set()
        if self.needs_token and f"Authorization: Bearer {TOKEN}" not in head:
            writer.write(answer(b"{}", "401 Unauthorized"))
        else:
            await self.behave(target.partition("?")[0], reader, writer)
        await writer.drain()
        return not writer.is_closing()
