"""The portal's hot read: 20 servers with state, authenticated, beside a bare Tornado handler with the same bytes.

`python -m benchmarks.rest [seconds]`: server and load generator are two processes; the load is `wrk`-like but ours, 32
keep-alive connections on loopback. Prints requests per second of both in turns, so that noise of the machine hits both.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import statistics
import sys
import tempfile
import time
from pathlib import Path

import tornado.httpserver
import tornado.netutil
import tornado.web
import uvloop

from controlplane.agents.states import Observation, next_state
from controlplane.instances import Registration
from controlplane.models import InstanceKind, Role
from controlplane.ports import AgentResponse
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.wiring import ControlPlane
from handlers.server import ApiServer

CONNECTIONS = 32
ROUNDS = 5
SERVERS = 20
SECRETS = {
    "JWT_SECRET": "kP3nVb8sXw2qLz9tRf6yHj4mGd7cNa5e",
    "CREDENTIALS_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
}
STATUS = (
    b'{"state": "running", "version": "1.21.4", "uptimeSeconds": 86400, "players": {"online": 7, "max": 20}, '
    b'"cpuPercent": 37.5, "memory": {"usedBytes": 2147483648, "limitBytes": 4294967296}, '
    b'"disk": {"usedBytes": 10737418240, "limitBytes": 53687091200}}'
)


class BareHandler(tornado.web.RequestHandler):
    """The least that Tornado can do with these bytes."""

    def initialize(self, body: bytes) -> None:
        self._body = body

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(self._body)

    def compute_etag(self) -> None:
        return None


def serve(pipe: multiprocessing.connection.Connection, folder: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, Path(folder)))


async def _serve(pipe: multiprocessing.connection.Connection, folder: Path) -> None:
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "benchmark", timeout_seconds=5)
    settings = Settings.from_env({**SECRETS, "HTTP_PORT": "0", "BCRYPT_COST": "4", "ACCESS_LOG": "errors"})
    plane = ControlPlane(settings, database)
    server = ApiServer(plane.services)
    port = server.listen()
    await plane.start()
    services = plane.services
    services.poller.pause()
    services.lifecycle.polls_here = False
    user = await services.sessions.create_user("ada@example.org", "correct horse battery", Role.CUSTOMER)
    login = await services.sessions.login("ada@example.org", "correct horse battery", address="x", user_agent="x")
    ok = AgentResponse(200, {}, b'{"ready": true}')
    for number in range(SERVERS):
        instance = await services.instances.register(
            Registration(
                InstanceKind.GAME, f"server {number}", 100 + number, "127.0.0.1", 9000 + number, "t" * 32, user.id
            )
        )
        seen = Observation(ok, ok, AgentResponse(200, {}, STATUS))
        services.states.put(next_state(services.states.get(instance.id), seen, services.clock.now()))
    principal = await services.authenticator.authenticate(login.access_token)
    body = services.instance_views.page(principal, InstanceKind.GAME, {"limit": 50})
    bare_sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    tornado.httpserver.HTTPServer(
        tornado.web.Application([("/bare", BareHandler, {"body": body})], log_function=lambda _handler: None)
    ).add_sockets(bare_sockets)
    pipe.send((port, bare_sockets[0].getsockname()[1], login.access_token, len(body)))
    await asyncio.to_thread(pipe.recv)
    await plane.stop()
    database.close()
    await embedded.stop()


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it was answered."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self.answers = 0
        self.wrong = 0
        self.running = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.index(b"content-length: ") + 16
        length = int(head[at : head.find(b"\r\n", at) if b"\r\n" in head[at:] else None])
        if len(self._buffer) < end + 4 + length:
            return
        self.answers += 1
        self.wrong += not head.startswith(b"http/1.1 200")
        self._buffer = b""
        if self.running:
            self._transport.write(self._request)  # type: ignore[attr-defined]


async def load(port: int, target: str, token: str, seconds: float) -> float:
    """Answers per second."""
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: Client(request), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0.3)
    began, before = time.perf_counter(), sum(client.answers for _, client in pairs)
    await asyncio.sleep(seconds)
    answers, took = sum(client.answers for _, client in pairs) - before, time.perf_counter() - began
    wrong = sum(client.wrong for _, client in pairs)
    for transport, client in pairs:
        client.running = False
        transport.abort()
    if wrong:
        print(f"{wrong} answers of {target} were not 200", file=sys.stderr)
    return answers / took


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=serve, args=(theirs, folder))
        server.start()
        port, bare_port, token, size = ours.recv()
        rates: dict[str, list[float]] = {"bare": [], "list": []}

        async def measure() -> None:
            for _ in range(ROUNDS):
                rates["bare"].append(await load(bare_port, "/bare", token, seconds))
                rates["list"].append(await load(port, "/api/game/servers", token, seconds))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure())
        ours.send("stop")
        server.join(20)
    bare, listed = statistics.median(rates["bare"]), statistics.median(rates["list"])
    print(f"{CONNECTIONS} connections, {size} bytes of JSON, {ROUNDS} rounds of {seconds:g} s in turns, medians")
    print(f"{'':34} {'req/s':>8} {'µs each':>8} {'ratio':>6}")
    print(f"{'bare Tornado handler, same bytes':34} {bare:8.0f} {1e6 / bare:8.0f} {1:6.2f}")
    print(f"{'GET /api/game/servers (20)':34} {listed:8.0f} {1e6 / listed:8.0f} {listed / bare:6.2f}")


if __name__ == "__main__":
    main()
