"""Delivers events: signed, at least once, again with backoff until a 2xx, and in whatever order it is told.

https://docs.stripe.com/webhooks#verify-manually has the scheme: HMAC-SHA256 over `<t>.<body>`.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from controlplane.demo.fake_stripe.world import Wire

TIMEOUT_SECONDS = 20.0
MAX_LOG = 20_000


def sign(body: bytes, secret: str, at: int) -> str:
    """The `Stripe-Signature` header."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, "sha256").hexdigest()
    return f"t={at},v1={digest}"


@dataclass(slots=True)
class Orders:
    """How to deliver. `retry_seconds` is the backoff; after it the event is given up. `drop_types` None with
    `drop_times` above 0 drops whatever comes."""

    urls: list[str] = field(default_factory=list)
    secret: str = ""
    hold: bool = False
    concurrency: int = 4
    retry_seconds: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 30.0, 30.0)
    duplicate_share: float = 0.0
    drop_types: frozenset[str] | None = None
    drop_times: int = 0
    signs_with_clock: bool = False


@dataclass(slots=True)
class Delivery:
    """`turn` says which endpoint is asked first; each further attempt goes to the next one."""

    event: Wire
    turn: int
    attempts: int = 0


class Webhooks:
    """`now` is the account's clock."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.orders = Orders()
        self.log: deque[dict[str, Any]] = deque(maxlen=MAX_LOG)
        self._now = now
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_clients=64)
        self._held: list[Wire] = []
        self._queue: deque[Delivery] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._sleeping = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._random = random.Random(0)  # noqa: S311 - which of them come twice
        self._turn = 0

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._running) + self._sleeping

    def take(self, event: Wire) -> None:
        """An event has happened."""
        orders = self.orders
        if orders.drop_times and (orders.drop_types is None or event["type"] in orders.drop_types):
            orders.drop_times -= 1
            return
        if orders.hold:
            self._held.append(event)
        else:
            self._push(event, orders.duplicate_share)

    def send(self, event: Wire) -> None:
        """Once more, whatever became of it before."""
        self._push(event, 0.0)

    def release(self, *, order: str, seed: int, duplicate_share: float, count: int | None) -> int:
        """Deliver what was held, the oldest `count` of it: `fifo`, `reversed` or `shuffled`. How many were sent."""
        chosen, self._held = self._held[:count], self._held[count:] if count is not None else []
        self._random = random.Random(seed)  # noqa: S311
        events = chosen + [event for event in chosen if self._random.random() < duplicate_share]
        if order == "reversed":
            events.reverse()
        elif order == "shuffled":
            self._random.shuffle(events)
        for event in events:
            self._push(event, 0.0)
        return len(events)

    async def until_idle(self, seconds: float) -> bool:
        """Whether everything that is not held was delivered or given up in that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._client.close()

    def _push(self, event: Wire, duplicate_share: float) -> None:
        times = 2 if duplicate_share and self._random.random() < duplicate_share else 1
        for _ in range(times):
            self._queue.append(Delivery(event, self._turn))
            self._turn += 1
        self._fill()

    def _fill(self) -> None:
        while self.orders.urls and self._queue and len(self._running) < self.orders.concurrency:
            task = asyncio.get_running_loop().create_task(self._attempt(self._queue.popleft()))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if self.waiting:
            self._idle.clear()
        else:
            self._idle.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._fill()

    async def _attempt(self, delivery: Delivery) -> None:
        orders = self.orders
        event = delivery.event
        url = orders.urls[(delivery.turn + delivery.attempts) % len(orders.urls)]
        delivery.attempts += 1
        body = orjson.dumps(event, option=orjson.OPT_INDENT_2)
        at = self._now() if orders.signs_with_clock else int(time.time())
        request = HTTPRequest(
            url,
            method="POST",
            body=body,
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": sign(body, orders.secret, at),
                "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            },
            connect_timeout=TIMEOUT_SECONDS,
            request_timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
        )
        try:
            status = (await self._client.fetch(request, raise_error=False)).code
        except (OSError, HTTPError):  # refused, or ended half-way
            status = 599
        self.log.append(
            {"event": event["id"], "type": event["type"], "url": url, "status": status, "attempt": delivery.attempts}
        )
        if 200 <= status < 300:
            event["pending_webhooks"] = 0
        elif delivery.attempts <= len(orders.retry_seconds):
            self._sleeping += 1
            asyncio.get_running_loop().call_later(orders.retry_seconds[delivery.attempts - 1], self._again, delivery)

    def _again(self, delivery: Delivery) -> None:
        self._sleeping -= 1
        self._queue.append(delivery)
        self._fill()
