"""One fake as a server: the account behind it, its routes, and the tick that lets time pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.web import Application

from controlplane.demo.fake_stripe import saved
from controlplane.demo.fake_stripe.api import Account, ApiHandler
from controlplane.demo.fake_stripe.clock import TestClock
from controlplane.demo.fake_stripe.control import ControlHandler, offer
from controlplane.demo.fake_stripe.pages import PAGES
from controlplane.demo.fake_stripe.webhooks import Webhooks
from controlplane.demo.fake_stripe.world import World

TICK_MILLISECONDS = 500
BODY_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """`frozen_at` in seconds since the epoch, or None where time runs. `prices`: (id, amount, currency, interval,
    product)."""

    address: str
    port: int
    api_key: str
    webhook_urls: Sequence[str]
    webhook_secret: str
    frozen_at: int | None
    seed: int | None
    state_file: Path | None
    prices: Sequence[tuple[str, int, str, str, str]]


class FakeStripe:
    """Listens once it is made; `stop` ends it."""

    def __init__(self, options: Options) -> None:
        """Raises OSError when the address cannot be bound, StateUnreadable when the state file cannot be read."""
        sockets = bind_sockets(options.port, options.address)
        self.url = f"http://{options.address}:{sockets[0].getsockname()[1]}"
        self._clock = clock = TestClock(options.frozen_at)
        self._world = world = World(now=clock.now(), base_url=self.url, seed=options.seed)
        self._state_file = options.state_file
        self._webhooks = Webhooks(clock.now)
        self._webhooks.orders.urls = list(options.webhook_urls)
        self._webhooks.orders.secret = options.webhook_secret
        world.on_event = self._webhooks.take
        if options.state_file is not None:
            clock.offset, undelivered = saved.load(options.state_file, world)
            for event in undelivered:
                self._webhooks.take(event)
        account = Account(world, clock, self._webhooks, options.api_key)
        for price_id, amount, currency, interval, product in options.prices:
            offer(account, id=price_id, amount=amount, currency=currency, interval=interval, product=product)
        given = {"account": account}
        self._server = HTTPServer(
            Application(
                [
                    (r"/_control/([a-z-]+)(?:/([^/]+))?", ControlHandler, given),
                    *((pattern, handler, given) for pattern, handler in PAGES),
                    (r"/v1/.*", ApiHandler, given),
                ],
                log_function=lambda handler: None,
            ),
            max_body_size=BODY_LIMIT_BYTES,
        )
        self._server.add_sockets(sockets)
        self._tick = PeriodicCallback(self._pass_time, TICK_MILLISECONDS)
        self._tick.start()

    def _pass_time(self) -> None:
        self._clock.tick(self._world)
        if self._state_file is not None and not self._world.is_saved:
            saved.save(self._state_file, self._world, offset=self._clock.offset)
            self._world.is_saved = True

    async def stop(self) -> None:
        self._tick.stop()
        self._pass_time()
        self._server.stop()
        await self._webhooks.close()
        await self._server.close_all_connections()
