"""The demo: a control plane on the embedded store, two accounts, three instances that it provisions, and who watches.

Machines are those of the local provider: real agents on loopback, which end with the demo. An agent that is killed
stays dead, so that a person can watch the state say so. The listening socket is handed in by the command line: this
library knows nothing of `handlers`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from controlplane.demo.members import MEMBERS, Member, RunningMember, description
from controlplane.demo.secrets_file import (
    Credentials,
    DemoSecrets,
    load_or_make_secrets,
    save_secrets,
    write_private,
)
from controlplane.demo.shop import DemoShop, forget_purchases
from controlplane.errors import Conflict, ControlPlaneError
from controlplane.listener import open_listener
from controlplane.models import Instance, Operation, Phase, Principal, Role, User
from controlplane.provisioning.local import LocalProvider
from controlplane.provisioning.plans import DEFAULT_PLAN
from controlplane.services import Services
from controlplane.settings import Settings
from controlplane.wiring import ControlPlane, open_database

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
POLL_INTERVAL_SECONDS = 1
READY_SECONDS = 60.0
PROVISIONING_TRIES = 3
STOP_SECONDS = 5.0
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
    provider = LocalProvider(folder / "machines", source_folder, dies_with_parent=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listener)
        stack.push_async_callback(shop.stop)
        settings = _settings(folder, listener.getsockname()[1], demo, await shop.start())
        database = await stack.enter_async_context(open_database(settings))
        await forget_purchases(database)
        plane = ControlPlane(settings, database, provider=provider)
        server = make_server(plane.services)
        server.listen(listener)
        url = settings.public_url
        stack.push_async_callback(plane.stop)
        stack.push_async_callback(server.drain, limit_seconds=settings.drain_seconds)
        stack.push_async_callback(_end_agents, plane, provider)
        await plane.start()
        running = await _populate(plane.services, provider, demo)
        write_private(folder / "demo.json", json.dumps(description(url, demo, running), indent=2))
        _say_hello(url, folder, demo, running)
        await _say_when_ready(plane.services, [each.instance.id for each in running], url)
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
            "PROVISION_READY_INTERVAL_SECONDS": "0.2",
            **billing,
        }
    )


async def _populate(services: Services, provider: LocalProvider, demo: DemoSecrets) -> list[RunningMember]:
    """Accounts and instances, made at the first start and found again at the next, with whatever was added since."""
    await _account(services, demo.admin, Role.ADMIN)
    customer = await _account(services, demo.customer, Role.CUSTOMER)
    principal = Principal(customer.id, customer.email, customer.role, session_id=None)
    await asyncio.gather(*(_provision(services, principal, member) for member in MEMBERS))
    used = [each for each in services.instances.all() if each.provider == provider.name and each.suspension is None]
    running = await asyncio.gather(*(_started(services, provider, each) for each in used))
    order = {member.title: number for number, member in enumerate(MEMBERS)}
    running.sort(key=lambda each: (order.get(each.instance.name, len(order)), each.instance.vmid))
    return [each for each in running if each.pid]


async def _provision(services: Services, principal: Principal, member: Member) -> None:
    """As a customer does it. At the next start each key finds its operation again."""
    for number in range(PROVISIONING_TRIES):
        operation = await services.provisioning.provision(
            principal, member.kind, name=member.title, plan=DEFAULT_PLAN, key=f"{member.key}:{number}"
        )
        ended = await _ended(services, principal, operation)
        if ended.phase is Phase.SUCCEEDED:
            return
        why = "" if ended.error is None else ended.error.operator_message
        print(f"{member.title} ended as {ended.phase.value}: {why}", flush=True)


async def _ended(services: Services, principal: Principal, operation: Operation) -> Operation:
    while not operation.is_finished:
        await asyncio.sleep(_LOOK_SECONDS)
        operation = await services.provisioning.get(operation.id, principal)
    return operation


async def _started(services: Services, provider: LocalProvider, instance: Instance) -> RunningMember:
    """Its agent ended with the demo before, and may listen elsewhere now."""
    try:
        await provider.start(instance.vmid)
        where = await provider.locate(instance.vmid)
        if where is not None:
            instance = await services.instances.move(instance.id, where)
    except ControlPlaneError as error:
        print(f"{instance.name} does not start: {error.message}", flush=True)
    pid = await provider.agent_pid(instance.vmid)
    return RunningMember(instance, services.instances.endpoint(instance).token, pid or 0)


async def _end_agents(plane: ControlPlane, provider: LocalProvider) -> None:
    """In order, all at once, before the control plane ends: also those that an operation began to start."""
    await plane.provisioning.runner.stop(limit_seconds=STOP_SECONDS)
    try:
        machines = await provider.list_marked()
        await asyncio.gather(*(provider.stop(machine.vmid) for machine in machines))
    except ControlPlaneError as error:
        logger.warning("not every agent ended in order", extra={"why": error.message})


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


def _say_hello(url: str, folder: Path, demo: DemoSecrets, running: list[RunningMember]) -> None:
    print(f"controlplane demo at {url}    (API: {url}/docs)")
    print("  database: embedded SecantusDB, a beta: for evaluation and small single-VM installs")
    print("  billing: a pretended Stripe, which forgets at the end what was bought")
    print(f"  data: {folder}    log: {folder / 'demo.log'}")
    print(f"  admin     {demo.admin.email}  {demo.admin.password}")
    print(f"  customer  {demo.customer.email}  {demo.customer.password}")
    for each in running:
        name = f"{each.instance.kind.value} {each.instance.name}"
        print(f"  {name:16} {each.instance.id}  agent {each.url}  pid {each.pid}")
    print("Ctrl-C ends everything.", flush=True)
