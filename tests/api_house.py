"""The real application over HTTP on a real database: composition root, listening socket and all."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from controlplane.instances import Registration
from controlplane.models import AgentEndpoint, Instance, InstanceKind, Role, User
from controlplane.ports import Clock, Provider
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.wiring import ControlPlane
from handlers.server import ApiServer

JWT_SECRET = "kP3nVb8sXw2qLz9tRf6yHj4mGd7cNa5e"
PASSWORD = "correct horse battery"
NOWHERE = AgentEndpoint("127.0.0.1", 9, "a-token-of-sixteen-and-more")  # the discard port: nobody listens
SETTINGS = {
    "JWT_SECRET": JWT_SECRET,
    "CREDENTIALS_KEY": base64.b64encode(bytes(range(32))).decode(),
    "HTTP_PORT": "0",
    "BCRYPT_COST": "4",
    "REGISTRATION_ENABLED": "true",
    "CORS_ORIGINS": "https://portal.example",
    "AGENT_POLL_INTERVAL_SECONDS": "0.2",
    # Longer than a busy machine holds up an agent or this process: a test that waits for it to elapse has its own.
    "AGENT_TIMEOUT_SECONDS": "20",
    "AGENT_ACTION_TIMEOUT_SECONDS": "20",
    "DRAIN_SECONDS": "5",
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        return str(self.body["code"])


class ApiHouse:
    """`async with` it. Ada and Bob are customers, Root is an administrator; all have PASSWORD."""

    def __init__(
        self,
        database: Database,
        *,
        provider: Provider | None = None,
        billing_clock: Clock | None = None,
        **settings: str,
    ) -> None:
        self.settings = Settings.from_env({**SETTINGS, **settings})
        self.plane = ControlPlane(self.settings, database, provider=provider, billing_clock=billing_clock)
        self.services = self.plane.services
        self.server = ApiServer(self.services)
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_clients=100)
        self._vmid = 100

    async def __aenter__(self) -> ApiHouse:
        self.url = f"http://127.0.0.1:{self.server.listen()}"
        await self.plane.start()
        self.ada = await self._user("ada@example.org", Role.CUSTOMER)
        self.bob = await self._user("bob@example.org", Role.CUSTOMER)
        self.root = await self._user("root@example.org", Role.ADMIN)
        self.ada_token = await self.token("ada@example.org")
        self.bob_token = await self.token("bob@example.org")
        self.root_token = await self.token("root@example.org")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        await self.server.drain(limit_seconds=1)
        await self.plane.stop()

    async def _user(self, email: str, role: Role) -> User:
        known = await self.services.users.find_by_email(email)
        return known or await self.services.sessions.create_user(email, PASSWORD, role)

    async def login(self, email: str, password: str = PASSWORD) -> Answer:
        return await self.call("POST", "/api/auth/login", {"email": email, "password": password})

    async def token(self, email: str) -> str:
        return str((await self.login(email)).body["accessToken"])

    async def instance(
        self, owner: User, endpoint: AgentEndpoint = NOWHERE, kind: InstanceKind = InstanceKind.GAME
    ) -> Instance:
        self._vmid += 1
        port = endpoint.port if endpoint is not NOWHERE else 20_000 + self._vmid
        return await self.services.instances.register(
            Registration(kind, f"instance {self._vmid}", self._vmid, endpoint.address, port, endpoint.token, owner.id)
        )

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """`body` is sent as JSON, `raw` as it is."""
        own = {"Content-Type": "application/json"} if body is not None or raw is not None else {}
        if token is not None:
            own["Authorization"] = f"Bearer {token}"
        sent = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        response = await self._client.fetch(
            HTTPRequest(
                self.url + target,
                method=method,
                body=sent or (b"" if method in ("POST", "PATCH", "PUT") else None),
                headers={**own, **(headers or {})},
                allow_nonstandard_methods=True,
                follow_redirects=False,
                connect_timeout=60,
                request_timeout=60,
                decompress_response=False,
            ),
            raise_error=False,
        )
        return Answer(response.code, response.headers, response.body)
