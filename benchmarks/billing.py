"""What a slow payment provider does to everybody else: `python -m benchmarks.billing [CHECKOUTS [SECONDS]]`.

The fake Stripe in a process of its own takes SECONDS (5) for each answer while CHECKOUTS (50) are ordered at once by
the gateway; prints how late the IOLoop ran its timers meanwhile. Then the same with more orders than the waiting room
holds: how many were sent away at once. Then what reading answers costs the loop: a subscription, a page, an event.

Last the same over HTTP: the control plane in a process of its own, on its embedded database, while CHECKOUTS customers
order one each and another client lists its servers a hundred times a second.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import multiprocessing
import multiprocessing.connection
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvloop
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.httpclient import HTTPRequest

from benchmarks import plane
from controlplane.billing.stripe_gateway import StripeGateway
from controlplane.billing.stripe_http import REQUESTS_AT_ONCE, WAITING_LIMIT
from controlplane.clock import SystemClock
from controlplane.errors import PaymentBusy

PROBE_SECONDS = 0.002
READ_SECONDS = 0.01
QUIET_SECONDS = 5.0
SERVERS = 20
FIRST_PORT = 1
"""Of agents that are not there: nobody listens on the lowest ports, so polls fail at once."""

PLANS_FILE = Path(__file__).resolve().parent.parent / "conf" / "plans.toml"
PLAN_PRICES = tuple(f"price_{plan}_{each}" for plan in ("starter", "builder", "studio") for each in ("month", "year"))
API_KEY, WEBHOOK_SECRET, PRICE = "sk_test_benchmark", "whsec_benchmark", "price_benchmark"
URLS = {"success_url": "https://portal.example/ok", "cancel_url": "https://portal.example/"}


class LagProbe:
    """How late timers run while the block is under way."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    async def __aenter__(self) -> LagProbe:
        self._task = asyncio.create_task(self._probe())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            self.lags.append(loop.time() - due)

    def row(self) -> str:
        return spread(self.lags)


def spread(seconds: list[float]) -> str:
    """p50, p99 and the worst."""
    ordered = sorted(seconds)
    p50, p99, worst = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1]
    return f"{1000 * p50:7.2f} ms {1000 * p99:7.2f} ms {1000 * worst:7.2f} ms"


def control(url: str, verb: str, body: Any, method: str = "POST") -> None:
    request = urllib.request.Request(f"{url}/_control/{verb}", data=json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=10):
        pass


async def order(gateway: StripeGateway, customer_id: str, number: int) -> str:
    try:
        await gateway.create_checkout(
            customer_id=customer_id, user_id="usr_1", price_id=PRICE, trial_days=0, **URLS, key=f"order-{number}"
        )
    except PaymentBusy:
        return "sent away"
    return "served"


async def measure(url: str, checkouts: int, seconds: float) -> None:
    gateway = StripeGateway(
        secret_key=API_KEY, webhook_secret=WEBHOOK_SECRET, api_base=url, timeout_seconds=60, clock=SystemClock()
    )
    customer_id = await gateway.create_customer(user_id="usr_1", email="ada@example.org", key="customer")
    await order(gateway, customer_id, -1)
    print(f"{REQUESTS_AT_ONCE} requests at once, {WAITING_LIMIT} may wait, {seconds:g} s an answer")
    print(f"{'orders':>8} {'lag p50':>10} {'lag p99':>10} {'lag max':>10}   outcome")
    room = REQUESTS_AT_ONCE + WAITING_LIMIT
    for orders, wait in ((checkouts, seconds), (room + checkouts, seconds / 10)):
        control(url, "mischief", {"kind": "slow", "seconds": wait, "path": "/v1/checkout", "times": orders})
        began = time.perf_counter()
        async with LagProbe() as probe:
            outcomes = Counter(
                await asyncio.gather(*(order(gateway, customer_id, orders * 1000 + one) for one in range(orders)))
            )
        took = time.perf_counter() - began
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        print(f"{orders:8} {probe.row()}   {said} in {took:.1f} s")
    control(url, "mischief", None, "DELETE")
    await reading(gateway, url, customer_id)
    await gateway.close()


async def reading(gateway: StripeGateway, url: str, customer_id: str) -> None:
    for _ in range(20):
        checkout = await gateway.create_checkout(
            customer_id=customer_id, user_id="usr_1", price_id=PRICE, trial_days=0, **URLS, key=f"read-{_}"
        )
        control(url, f"checkout/{checkout.id}", {"outcome": "pay"})
    newest = (await gateway.list_subscriptions(limit=1)).items[0]
    event = json.dumps(
        {
            "id": "evt_1",
            "object": "event",
            "type": "invoice.paid",
            "created": int(time.time()),
            "data": {
                "object": {"object": "invoice", "id": "in_1", "metadata": {str(one): "x" * 500 for one in range(400)}}
            },
        }
    ).encode()
    print(f"{'CPU of this process for one':<44}{'mean':>10}")
    for name, call in (
        ("subscription, expanded", lambda: gateway.retrieve_subscription(newest.id)),
        ("page of subscriptions, expanded", lambda: gateway.list_subscriptions()),
        (f"webhook of {len(event) >> 10} KiB", lambda: verify(gateway, event)),
    ):
        print(f"{name:<44}{await cpu(call):7.2f} ms")


async def verify(gateway: StripeGateway, raw: bytes) -> None:
    at = int(time.time())
    digest = hmac.new(WEBHOOK_SECRET.encode(), b"%d." % at + raw, "sha256").hexdigest()
    gateway.verify_webhook(raw, f"t={at},v1={digest}")


class Reader:
    """Another client, which lists its servers while the block is under way. `times` are its waits for an answer."""

    def __init__(self, serving: plane.Plane, client: CurlAsyncHTTPClient) -> None:
        self._request = HTTPRequest(
            f"http://127.0.0.1:{serving.port}/api/game/servers",
            headers={"Authorization": f"Bearer {serving.access_token}"},
        )
        self._client = client
        self._is_over = False
        self.times: list[float] = []

    async def __aenter__(self) -> Reader:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await self._task

    async def _read(self) -> None:
        while not self._is_over:
            began = time.perf_counter()
            await self._client.fetch(self._request)
            self.times.append(time.perf_counter() - began)
            await asyncio.sleep(READ_SECONDS)


async def over_http(
    serving: plane.Plane, pipe: multiprocessing.connection.Connection, stripe_url: str, seconds: float
) -> None:
    client = CurlAsyncHTTPClient(force_instance=True, max_clients=len(serving.others) + 1)
    titles = ("lag p50", "lag p99", "lag max", "read p50", "read p99", "read max")
    print(f"\n{'over HTTP':>10}" + "".join(f"{title:>11}" for title in titles) + "   outcome")
    for tokens in ([], serving.others):
        control(stripe_url, "mischief", None, "DELETE")
        control(stripe_url, "mischief", {"kind": "slow", "seconds": seconds, "path": "/v1/checkout", "times": None})
        await lags_since_the_last_time(pipe)
        began = time.perf_counter()
        async with Reader(serving, client) as reader:
            statuses = Counter(await asyncio.gather(*(post_checkout(serving, client, token) for token in tokens)))
            if not tokens:
                await asyncio.sleep(QUIET_SECONDS)
        took = time.perf_counter() - began
        lags = await lags_since_the_last_time(pipe)
        said = ", ".join(f"{count} answered {status}" for status, count in sorted(statuses.items())) or "nobody orders"
        print(f"{len(tokens):10} {spread(lags)} {spread(reader.times)}   {said} in {took:.1f} s")
    client.close()


async def lags_since_the_last_time(pipe: multiprocessing.connection.Connection) -> list[float]:
    pipe.send("lags")
    return cast("list[float]", await asyncio.to_thread(pipe.recv))


async def post_checkout(serving: plane.Plane, client: CurlAsyncHTTPClient, token: str) -> int:
    response = await client.fetch(
        HTTPRequest(
            f"http://127.0.0.1:{serving.port}/api/billing/checkout",
            method="POST",
            body=json.dumps({"planId": "builder"}),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            request_timeout=120,
        ),
        raise_error=False,
    )
    return response.code


def measure_over_http(stripe_url: str, checkouts: int, seconds: float) -> None:
    settings = {
        "STRIPE_SECRET_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_API_BASE": stripe_url,
        "BILLING_PLANS_FILE": str(PLANS_FILE),
    }
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        ports = range(FIRST_PORT, FIRST_PORT + SERVERS)
        process = context.Process(target=plane.serve, args=(theirs, folder, ports, checkouts, settings))
        process.start()
        theirs.close()
        try:
            serving = cast("plane.Plane", ours.recv())
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(over_http(serving, ours, stripe_url, seconds))
            ours.send(None)
            process.join(20)
        finally:
            process.kill()


async def cpu(call: Callable[[], Awaitable[Any]], times: int = 100) -> float:
    began = time.process_time()
    for _ in range(times):
        await call()
    return 1000 * (time.process_time() - began) / times


def main() -> None:
    checkouts = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    fake = subprocess.Popen(
        [
            *(sys.executable, "-m", "controlplane.demo.fake_stripe", "--port", "0", "--die-with-parent"),
            *("--api-key", API_KEY, "--price", f"{PRICE}=900:eur:month:Benchmark"),
            *(word for each in PLAN_PRICES for word in ("--price", f"{each}=900:eur:{each.rpartition('_')[2]}:Plan")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert fake.stdout is not None
    try:
        url = fake.stdout.readline().removeprefix("fake stripe listening on ").strip()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(url, checkouts, seconds))
        measure_over_http(url, checkouts, seconds)
    finally:
        fake.terminate()
        fake.wait(10)


if __name__ == "__main__":
    main()
