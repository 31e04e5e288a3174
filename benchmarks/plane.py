"""A control plane in a process of its own for benchmarks: on its embedded database, with one customer who has some
agents, and others who have none.

The pipe gives `Plane` once it serves; whatever is sent then is answered with the loop's lags since the last time, in
seconds, and None ends it.
"""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.rest import SECRETS
from controlplane.auth.sessions import SessionService
from controlplane.instances import Registration
from controlplane.models import InstanceKind, Role, User
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.wiring import ControlPlane
from handlers.server import ApiServer

AGENT_TOKEN = "a-token-of-sixteen-and-more"
PASSWORD = "correct horse battery"
PROBE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Plane:
    """`instances` are the ids of the game servers, in the order of their agents' ports; `others` are the tokens of the
    customers who have none."""

    port: int
    instances: list[str]
    access_token: str
    others: list[str]


def serve(
    pipe: multiprocessing.connection.Connection,
    folder: str,
    agent_ports: Sequence[int],
    others: int = 0,
    settings: Mapping[str, str] | None = None,
) -> None:
    """The process's main function."""
    allow_many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, Path(folder), agent_ports, others, settings or {}))


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))


async def _serve(
    pipe: multiprocessing.connection.Connection,
    folder: Path,
    agent_ports: Sequence[int],
    others: int,
    settings: Mapping[str, str],
) -> None:
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "benchmark", timeout_seconds=5)
    environment = {**SECRETS, "HTTP_PORT": "0", "BCRYPT_COST": "4", "ACCESS_LOG": "errors", **settings}
    plane = ControlPlane(Settings.from_env(environment), database)
    server = ApiServer(plane.services)
    port = server.listen()
    await plane.start()
    sessions = plane.services.sessions
    user, token = await _customer(sessions, "ada@example.org")
    tokens = [(await _customer(sessions, f"customer{number}@example.org"))[1] for number in range(others)]
    instances = [
        await plane.services.instances.register(
            Registration(InstanceKind.GAME, f"Agent {number}", 100 + number, "127.0.0.1", each, AGENT_TOKEN, user.id)
        )
        for number, each in enumerate(agent_ports)
    ]
    lags: list[float] = []
    probing = asyncio.create_task(_probe(lags))
    pipe.send(Plane(port, [instance.id for instance in instances], token, tokens))
    while await asyncio.to_thread(pipe.recv) is not None:
        pipe.send(list(lags))
        lags.clear()
    probing.cancel()
    await server.drain(limit_seconds=1)
    await plane.stop()
    database.close()
    await embedded.stop()


async def _customer(sessions: SessionService, email: str) -> tuple[User, str]:
    """With an access token. Each from an address of its own, as sign-ins are throttled by it."""
    user = await sessions.create_user(email, PASSWORD, Role.CUSTOMER)
    return user, (await sessions.login(email, PASSWORD, address=email, user_agent="x")).access_token


async def _probe(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + PROBE_SECONDS
        await asyncio.sleep(PROBE_SECONDS)
        lags.append(loop.time() - due)
