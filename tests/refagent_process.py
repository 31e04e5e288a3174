"""A reference agent as a real process for the tests, and a small client that speaks to it over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.announced_process import AnnouncedProcess

TOKEN = "test-token-0123456789"
LINE_GAME = (sys.executable, "-u", "-m", "controlplane.demo.line_game", "Testholm")
GAME_OPTIONS = ("--ready-pattern", "World ready", "--stop-line", "quit")


def python(source: str) -> tuple[str, ...]:
    """A command that runs this source, unbuffered."""
    return (sys.executable, "-u", "-c", source)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class AgentProcess(AnnouncedProcess):
    """Use it in a `with`: the agent is ended, and its process waited for, at the end."""

    def __init__(
        self, folder: Path, command: tuple[str, ...], *options: str, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            super().__init__(
                "controlplane.refagent",
                *("--port", "0", "--dir", str(folder), "--die-with-parent", *options, "--", *command),
                environment={"AGENT_TOKEN": TOKEN, **(environment or {})},
                stderr=log,
            )

    @property
    def files(self) -> Path:
        return self.folder / "files"

    async def call(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        client = AsyncHTTPClient(force_instance=True)
        try:
            response: HTTPResponse = await client.fetch(
                HTTPRequest(
                    self.url + target,
                    method=method,
                    body=body,
                    headers={**({"Authorization": f"Bearer {token}"} if token is not None else {}), **(headers or {})},
                    allow_nonstandard_methods=True,
                    follow_redirects=False,
                    connect_timeout=60,
                    request_timeout=60,
                ),
                raise_error=False,
            )
        finally:
            client.close()
        return Answer(response.code, {name.lower(): value for name, value in response.headers.items()}, response.body)

    async def get(self, target: str) -> Any:
        return (await self.call("GET", target)).body

    async def post(self, target: str, body: Any = None) -> Answer:
        return await self.call("POST", target, b"" if body is None else json.dumps(body).encode())

    async def command(self, line: str) -> Answer:
        return await self.post("/console/command", {"command": line})

    async def until_state(self, *states: str, seconds: float = 60) -> dict[str, Any]:
        async def seen() -> dict[str, Any] | None:
            status: dict[str, Any] = await self.get("/status")
            return status if status["state"] in states else None

        found: dict[str, Any] = await until(seen, seconds=seconds)
        return found

    async def until_ready(self, seconds: float = 60) -> None:
        async def ready() -> bool:
            return (await self.get("/ready"))["ready"] is True

        await until(ready, seconds=seconds)

    async def console(self, **options: Any) -> Console:
        request = HTTPRequest(
            self.url.replace("http", "ws", 1) + "/console/stream", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        return Console(await websocket_connect(request, **options))


class Console:
    """A console stream; remembers every line since it was opened."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket
        self.lines: list[str] = []

    async def until_line(self, text: str, seconds: float = 60) -> str:
        """The first line, from now on or earlier, that holds `text`."""
        seen = 0
        async with asyncio.timeout(seconds):
            while True:
                for line in self.lines[seen:]:
                    if text in line:
                        return line
                seen = len(self.lines)
                frame = await self.socket.read_message()
                assert isinstance(frame, str), f"the stream was closed before {text!r}: {self.lines[-20:]}"
                self.lines += frame.split("\n")

    async def close(self) -> None:
        if self.socket.close_code is not None:
            return
        self.socket.close()
        async with asyncio.timeout(60):
            while await self.socket.read_message() is not None:
                pass


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 60) -> Any:
    """Ask again and again until the answer is truthy; fails at the deadline with the last one."""
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        await asyncio.sleep(0.03)
    return answer


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until_gone(pid: int, seconds: float = 60) -> None:
    async def gone() -> bool:
        return not is_alive(pid)

    await until(gone, seconds=seconds)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
