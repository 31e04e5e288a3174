"""The demo: a control plane on the embedded store, three real agents beside it, two accounts, and a person who watches.

The listening socket is handed in by the command line: this library knows nothing of `handlers`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from controlplane.demo.fleet import (
    Credentials,
    DemoSecrets,
    Fleet,
    RunningAgent,
    description,
    load_or_make_secrets,
    save_secrets,
    write_private,
)
from controlplane.demo.shop import DemoShop, forget_purchases
from controlplane.errors import Conflict
from controlplane.instances import Registration
from controlplane.listener import open_listener
from controlplane.models import Role, User
from controlplane.services import Services
from controlplane.settings import Settings
from controlplane.wiring import ControlPlane, open_database

ADDRESS = "127.0.0.1"
POLL_INTERVAL_SECONDS = 1
READY_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Server(Protocol):
    """The API over HTTP: `handlers.server.ApiServer`."""

    def listen(self, listener: socket.socket) -> int: ...

    async def drain(self, *, limit_seconds: float) -> None: ...


async def run_demo(
    folder: Path,
    port: int,
    source_folder: Path,
    make_server: Callable[[Services], Server],
) -> None:
    """Serve until cancelled, on a folder that exists; `port` 0 picks a free one.

    Prints the URL and the credentials, and when every agent is ready the one line `ready URL`.
    """
    secrets_file = folder / "secrets.json"
    demo = load_or_make_secrets(secrets_file, base64.b64encode(secrets.token_bytes(32)).decode())
    save_secrets(secrets_file, demo)
    listener = open_listener(ADDRESS, port)
    shop = DemoShop(folder, source_folder, f"http://{ADDRESS}:{listener.getsockname()[1]}")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listener)
        stack.push_async_callback(shop.stop)
        settings = _settings(folder, listener.getsockname()[1], demo, await shop.start())
        database = await stack.enter_async_context(open_database(settings))
        await forget_purchases(database)
        plane = ControlPlane(settings, database)
        server = make_server(plane.services)
        server.listen(listener)
        url = settings.public_url
        stack.push_async_callback(plane.stop)
        stack.push_async_callback(server.drain, limit_seconds=settings.drain_seconds)
        fleet = Fleet(folder / "agents", source_folder)
        stack.push_async_callback(fleet.stop)
        agents, _ = await asyncio.gather(fleet.start(demo.ports), plane.start())
        save_secrets(secrets_file, replace(demo, ports={agent.member.name: agent.port for agent in agents}))
        registered = await _seed(plane.services, demo, agents)
        write_private(folder / "demo.json", json.dumps(description(url, demo, registered), indent=2))
        _say_hello(url, folder, demo, registered)
        await _say_when_ready(plane.services, [instance_id for instance_id, _ in registered], url)
        await asyncio.get_running_loop().create_future()


def _settings(folder: Path, port: int, demo: DemoSecrets, billing: Mapping[str, str]) -> Settings:
    """`port` is the one that is listened on already: a page may open consoles from there, by either name of it."""
    return Settings.from_env(
        {
            "HTTP_ADDRESS": ADDRESS,
            "HTTP_PORT": str(port),
            "PUBLIC_URL": f"http://{ADDRESS}:{port}",
            "CORS_ORIGINS": f"http://localhost:{port}",
            "DATA_DIR": str(folder / "database"),
            "JWT_SECRET": demo.jwt_secret,
            "CREDENTIALS_KEY": demo.credentials_key,
            "REGISTRATION_ENABLED": "true",
            "AGENT_NETWORKS": "127.0.0.0/8",
            "AGENT_POLL_INTERVAL_SECONDS": str(POLL_INTERVAL_SECONDS),
            **billing,
        }
    )


async def _seed(services: Services, demo: DemoSecrets, agents: list[RunningAgent]) -> list[tuple[str, RunningAgent]]:
    """Accounts and instances, made at the first start and found again at the next."""
    await _account(services, demo.admin, Role.ADMIN)
    customer = await _account(services, demo.customer, Role.CUSTOMER)
    known = {instance.vmid: instance for instance in services.instances.all()}
    registered = []
    for agent in agents:
        instance = known.get(agent.member.vmid)
        if instance is None:
            instance = await services.instances.register(
                Registration(
                    kind=agent.member.kind,
                    name=agent.member.title,
                    vmid=agent.member.vmid,
                    address="127.0.0.1",
                    port=agent.port,
                    token=agent.token,
                    owner_id=customer.id,
                )
            )
        elif instance.port != agent.port:
            instance = await services.instances.update(instance.id, {"port": agent.port, "token": agent.token})
        registered.append((instance.id, agent))
    return registered


async def _account(services: Services, credentials: Credentials, role: Role) -> User:
    try:
        return await services.sessions.create_user(credentials.email, credentials.password, role)
    except Conflict:
        user = await services.users.find_by_email(credentials.email)
        assert user is not None
        return user


async def _say_when_ready(services: Services, instance_ids: list[str], url: str) -> None:
    """Waits as long as it takes; says so once when it takes long."""
    loop = asyncio.get_running_loop()
    late_at = loop.time() + READY_SECONDS
    while waiting := [each for each in instance_ids if not services.states.get(each).ready]:
        if loop.time() > late_at:
            late_at = float("inf")
            for each in waiting:
                print(f"still waiting for {each}: {services.states.get(each).message}", flush=True)
        await asyncio.sleep(_LOOK_SECONDS)
    print(f"ready {url}", flush=True)


def _say_hello(url: str, folder: Path, demo: DemoSecrets, registered: list[tuple[str, RunningAgent]]) -> None:
    print(f"controlplane demo at {url}    (API: {url}/docs)")
    print("  database: embedded SecantusDB, a beta: for evaluation and small single-VM installs")
    print("  billing: a pretended Stripe, which forgets at the end what was bought")
    print(f"  data: {folder}    log: {folder / 'demo.log'}")
    print(f"  admin     {demo.admin.email}  {demo.admin.password}")
    print(f"  customer  {demo.customer.email}  {demo.customer.password}")
    for instance_id, agent in registered:
        name = f"{agent.member.kind.value} {agent.member.title}"
        print(f"  {name:16} {instance_id}  agent {agent.url}  pid {agent.pid}")
    print("Ctrl-C ends everything.", flush=True)
