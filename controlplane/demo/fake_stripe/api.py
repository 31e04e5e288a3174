"""The `/v1` surface over HTTP: authentication, version, idempotency, mischief; then one route and its answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson
from tornado.web import RequestHandler

from controlplane.demo.fake_stripe import routes
from controlplane.demo.fake_stripe.clock import TestClock
from controlplane.demo.fake_stripe.expansion import expand
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.idempotency import IdempotencyKeys
from controlplane.demo.fake_stripe.mischief import Mischief, Mischiefs
from controlplane.demo.fake_stripe.parameters import read_parameters
from controlplane.demo.fake_stripe.webhooks import Webhooks
from controlplane.demo.fake_stripe.wire import Tree, decode
from controlplane.demo.fake_stripe.world import API_VERSION, World

VERSIONS = frozenset({API_VERSION})
MAX_REQUEST_LOG = 20_000


@dataclass(slots=True)
class Account:
    """Everything behind one fake: handlers receive it."""

    world: World
    clock: TestClock
    webhooks: Webhooks
    api_key: str
    keys: IdempotencyKeys = field(default_factory=IdempotencyKeys)
    mischiefs: Mischiefs = field(default_factory=Mischiefs)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_REQUEST_LOG))


class ApiHandler(RequestHandler):
    def initialize(self, account: Account) -> None:
        self._account = account
        self._request_id = account.world.new_id("request")
        self._encoded = ""

    def set_default_headers(self) -> None:
        self.set_header("Server", "nginx")
        self.set_header("Cache-Control", "no-cache, no-store")

    async def get(self) -> None:
        await self._serve(self.request.query)

    async def post(self) -> None:
        await self._serve(self.request.body.decode("utf-8", "replace"))

    async def delete(self) -> None:
        await self._serve(self.request.query or self.request.body.decode("utf-8", "replace"))

    async def _serve(self, encoded: str) -> None:
        key = self.request.headers.get("Idempotency-Key") if self.request.method == "POST" else None
        mischiefs = self._account.mischiefs.take(self.request.method or "", self.request.path)
        claimed = False
        self._encoded = encoded
        try:
            self._authenticate()
            if _has(mischiefs, "reset"):
                self._hang_up()
                return
            params = decode(encoded)
            if key:
                replay = self._account.keys.claim(
                    key, self._fingerprint(encoded), self._request_id, self._account.clock.now()
                )
                if replay is not None and replay.answer is not None:
                    self.set_header("Idempotent-Replayed", "true")
                    self.set_header("Original-Request", replay.request_id)
                    self._answer(*replay.answer, key)
                    return
                claimed = True
            status, body = await self._run(params, mischiefs, key)
        except StripeFault as fault:
            status, body = fault.status, orjson.dumps(fault.envelope(self._request_id))
        if claimed and key:
            self._remember(key, status, body)
        if _has(mischiefs, "lost"):
            self._note(key, 0)
            self._hang_up()
            return
        self._answer(status, b"<html>it works</html>" if _has(mischiefs, "garbage") else body, key)

    async def _run(self, given: Tree, mischiefs: list[Mischief], key: str | None) -> tuple[int, bytes]:
        for rule in mischiefs:
            if rule.seconds:
                await self._account.mischiefs.hold_back(rule.seconds)
            if rule.kind == "error":
                raise _pretended(rule.status)
        found = routes.find(self.request.method or "", self.request.path)
        if found is None:
            raise StripeFault(f"Unrecognized request URL ({self.request.method}: {self.request.path}).", status=404)
        route, object_id = found
        account = self._account
        account.clock.tick(account.world)
        params = read_parameters(route.accepts, route.required, given)
        paths = params.pop("expand", [])
        account.world.request = {"id": self._request_id, "idempotency_key": key}
        try:
            wire = route.call(account.world, params, object_id)
            account.world.settle()
        finally:
            account.world.request = {"id": None, "idempotency_key": None}
        return 200, orjson.dumps(expand(account.world, wire, paths))

    def _authenticate(self) -> None:
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        if scheme.lower() not in ("basic", "bearer") or not given:
            raise StripeFault("You did not provide an API key.", status=401)
        if given != self._account.api_key:
            raise StripeFault(f"Invalid API Key provided: {given[:8]}****", status=401)
        version = self.request.headers.get("Stripe-Version", API_VERSION)
        if version not in VERSIONS:
            raise StripeFault(f"Invalid Stripe API version: {version}")
        content_type = self.request.headers.get("Content-Type", "application/x-www-form-urlencoded")
        if self.request.body and not content_type.startswith("application/x-www-form-urlencoded"):
            raise StripeFault(
                "Invalid request (check that your POST content type is application/x-www-form-urlencoded)."
            )

    def _fingerprint(self, encoded: str) -> str:
        return hashlib.sha256(f"{self.request.method} {self.request.path}\n{encoded}".encode()).hexdigest()

    def _remember(self, key: str, status: int, body: bytes) -> None:
        """What was refused before anything ran is not kept, nor is a rate limit."""
        if status in (400, 401, 404, 409, 429):
            self._account.keys.drop(key)
        else:
            self._account.keys.keep(key, status, body)

    def _answer(self, status: int, body: bytes, key: str | None) -> None:
        self._note(key, status)
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Request-Id", self._request_id)
        self.set_header("Stripe-Version", API_VERSION)
        if key:
            if status == 500:
                self.set_header("Stripe-Should-Retry", "false")  # the key would only replay it
            self.set_header("Idempotency-Key", key)
            self.set_header("Original-Request", self._headers.get("Original-Request", self._request_id))
        self.finish(body)

    def _note(self, key: str | None, status: int) -> None:
        """`status` 0: the answer was lost."""
        found = routes.find(self.request.method or "", self.request.path)
        self._account.requests.append(
            {
                "id": self._request_id,
                "method": self.request.method,
                "path": self.request.path,
                "call": f"{self.request.method} {found[0].path if found else self.request.path}",
                "encoded": self._encoded,
                "idempotencyKey": key,
                "status": status,
            }
        )

    def _hang_up(self) -> None:
        self.request.connection.detach().close()  # type: ignore[union-attr]
        self._finished = True


def _has(mischiefs: list[Mischief], kind: str) -> bool:
    return any(rule.kind == kind for rule in mischiefs)


def _pretended(status: int) -> StripeFault:
    if status == 429:
        return StripeFault("Request rate limit exceeded.", status=429, code="rate_limit")
    return StripeFault("An unknown error occurred", status=status, kind="api_error")
