"""A control plane with a dev container whose IDE's port is an app on a real socket that does as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from controlplane.instances import Registration
from controlplane.models import Connection, IdeMode, Instance, InstanceKind, User
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.refagent_process import until

AGENT_TOKEN = "a-token-of-sixteen-and-more"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the app got it. `head` is its bytes with the empty line."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode("latin-1")

    def values(self, name: str) -> list[str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(f"{name.lower()}:")]


Answering = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class App:
    """What listens on the IDE's port. `answer` is sent for each request, or `answering` says it all."""

    def __init__(self, answer: bytes = OK, answering: Answering | None = None) -> None:
        self.answer = answer
        self.answering = answering
        self.seen: list[Seen] = []
        self.connections = 0
        self.received_bytes = 0
        self.open: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()  # whether or not anybody takes what was written
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.received_bytes += len(head)
                if self.answering is None:
                    self.seen.append(Seen(head, await _body(head, reader)))
                    writer.write(self.answer)
                    await writer.drain()
                else:
                    self.seen.append(Seen(head, b""))
                    await self.answering(self.seen[-1], reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    seen = Seen(head, b"")
    if seen.values("Transfer-Encoding"):
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    return await reader.readexactly(int((seen.values("Content-Length") or ["0"])[0]))


class Agent:
    """The container's agent: healthy, with a code-server that is said to be in `codeserver`'s state."""

    def __init__(self) -> None:
        self.codeserver: str | None = "running"
        self.refusal: str | None = None
        self.posts: list[str] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await _body(head, reader)
                method, path, _ = head.decode().split(" ", 2)
                status, body = self._say(method, path)
                raw = json.dumps(body).encode()
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n".encode())
                writer.write(f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
                await writer.drain()
        writer.close()

    def _say(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            self.posts.append(path)
            if self.refusal is not None:
                return 404, {"error": self.refusal}
            return 202, {"state": "starting"}
        if path == "/dev/codeserver/status":
            return (404, {"error": "no"}) if self.codeserver is None else (200, {"state": self.codeserver})
        return 200, {"ready": True, "state": "running"}


@dataclass(frozen=True, slots=True)
class Got:
    """An answer as it came over the wire; `body` without its framing."""

    status: int
    head: str
    body: bytes

    def values(self, name: str) -> list[str]:
        lines = self.head.split("\r\n")[1:]
        return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(f"{name.lower()}:")]

    def value(self, name: str) -> str:
        values = self.values(name)
        assert len(values) == 1, (name, self.head)
        return values[0]


class Wire:
    """One connection to the control plane, spoken on in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Got:
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return Got(int(raw.split(" ")[1]), raw, b"")

    async def answer(self, *, to_head: bool = False) -> Got:
        """The next one, with its body."""
        got = await self.head()
        while 100 <= got.status < 200 and got.status != 101:
            got = await self.head()
        if to_head or got.status in (204, 304):
            return got
        if got.values("Transfer-Encoding"):
            body = await _body(b"\r\nTransfer-Encoding: chunked", self.reader)
        elif got.values("Content-Length"):
            body = await self.reader.readexactly(int(got.value("Content-Length")))
        else:
            body = await self.reader.read()
        return Got(got.status, got.head, body)

    async def until_closed(self) -> bytes:
        """What still comes, until the other side closes or resets."""
        data = b""
        with contextlib.suppress(OSError):
            while piece := await self.reader.read(1 << 16):
                data += piece
        self.close()
        return data

    def close(self) -> None:
        self.writer.close()


@dataclass
class IdeHouse:
    """`async with` it. `workshop` is Ada's dev container; its IDE is `app`, reached by path and by host."""

    database: Database
    app: App = field(default_factory=App)
    settings: Mapping[str, Any] = field(default_factory=dict)
    agent: Agent = field(default_factory=Agent)
    vmid: int = 201
    _wires: list[Wire] = field(default_factory=list)

    async def __aenter__(self) -> IdeHouse:
        self.house = ApiHouse(self.database, **{"DEV_IDE_HOST_SUFFIX": "localhost", **self.settings})
        await self.house.__aenter__()
        self.port = int(self.house.url.rpartition(":")[2])
        self.app_port = await self.app.start()
        self.agent_port = await self.agent.start()
        self.workshop = await self.dev_container(self.house.ada, self.vmid, self.agent_port, self.app_port)
        await self.connected(self.workshop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for wire in self._wires:  # what a test that failed left open would fail another one
            wire.writer.transport.abort()
        await self.house.__aexit__(kind, error, trace)
        await self.app.stop()
        await self.agent.stop()

    async def dev_container(self, owner: User, vmid: int, agent_port: int, ide_port: int) -> Instance:
        return await self.house.services.instances.register(
            Registration(
                InstanceKind.DEV,
                f"workshop {vmid}",
                vmid,
                "127.0.0.1",
                agent_port,
                AGENT_TOKEN,
                owner.id,
                ide_port=ide_port,
            )
        )

    async def connected(self, instance: Instance) -> None:
        async def is_connected() -> bool:
            return self.house.services.states.get(instance.id).connection is Connection.CONNECTED

        await until(is_connected)

    # -- addresses -----------------------------------------------------------------------------------------------------

    def host(self, mode: IdeMode, instance: Instance | None = None) -> str:
        name = f"dev-{(instance or self.workshop).vmid}.localhost" if mode is IdeMode.HOST else "127.0.0.1"
        return f"{name}:{self.port}"

    def prefix(self, mode: IdeMode, instance: Instance | None = None) -> str:
        return "" if mode is IdeMode.HOST else f"/__ide/{(instance or self.workshop).id}"

    # -- what a browser does -------------------------------------------------------------------------------------------

    async def token(self, mode: IdeMode, *, bearer: str | None = None, instance: Instance | None = None) -> str:
        answer = await self.house.call(
            "POST",
            f"/api/dev/{(instance or self.workshop).id}/ide-token",
            {"mode": mode.value},
            token=bearer or self.house.ada_token,
        )
        assert answer.status == 200, answer.raw
        return str(answer.body["token"])

    async def cookie(self, mode: IdeMode, *, bearer: str | None = None, instance: Instance | None = None) -> str:
        """As a Cookie header: a token exchanged."""
        secret = await self.token(mode, bearer=bearer, instance=instance)
        got = await self.ask(mode, f"/?ide_token={secret}", instance=instance, headers={"Sec-Fetch-Mode": "navigate"})
        assert got.status == 303, got
        return got.value("Set-Cookie").partition(";")[0]

    async def connect(self, first: bytes = b"") -> Wire:
        """`first` is there before the control plane can look: no time passes for it between the connection and that."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(first)
        wire = Wire(*await asyncio.open_connection(sock=connection))
        self._wires.append(wire)
        return wire

    def request(
        self,
        mode: IdeMode,
        path: str = "/",
        *,
        method: str = "GET",
        cookie: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        instance: Instance | None = None,
    ) -> bytes:
        lines = [f"{method} {self.prefix(mode, instance)}{path} HTTP/1.1", f"Host: {self.host(mode, instance)}"]
        if cookie is not None:
            lines.append(f"Cookie: {cookie}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")

    async def ask(self, mode: IdeMode, path: str = "/", **options: Any) -> Got:
        """One request on a connection of its own. Options as `request` has them."""
        wire = await self.connect()
        try:
            await wire.send(self.request(mode, path, **options))
            async with asyncio.timeout(20):
                return await wire.answer(to_head=options.get("method") == "HEAD")
        finally:
            wire.close()

    def origin(self, mode: IdeMode) -> str:
        return f"http://{self.host(mode)}"

    async def websocket(
        self, mode: IdeMode, path: str = "/socket", *, cookie: str, headers: Mapping[str, str] | None = None
    ) -> tuple[Wire, Got]:
        """The connection and the head of the handshake's answer."""
        wire = await self.connect()
        own = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Origin": self.origin(mode),
        }
        await wire.send(self.request(mode, path, cookie=cookie, headers={**own, **(headers or {})}))
        async with asyncio.timeout(20):
            return wire, await wire.head()


SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def echo(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers an upgrade, and then sends back whatever comes."""
    writer.write(SWITCHED)
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    raise asyncio.IncompleteReadError(b"", None)
