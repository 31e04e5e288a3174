"""A customer's months under the fake Stripe's clock, day by day, as a readable timeline: `make billing-month`.

All but the days is real: the application, its database, webhooks over HTTP, mail over SMTP, a server that runs.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from controlplane.models import AgentEndpoint
from controlplane.storage.database import Database
from controlplane.storage.migrations import migrate
from tests.billing_samples import START
from tests.embedded import EmbeddedThread
from tests.fakes import FakeClock
from tests.refagent_process import GAME_OPTIONS, LINE_GAME, TOKEN, AgentProcess
from tests.stripe_house import StripeHouse

DAYS = 112
FIRST_LINE = "day  date        status     access  plan      server     what happened"


class Postbox:
    """A mail server that keeps subjects."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        text = envelope.content.decode()
        self.subjects += [
            line.removeprefix("Subject: ").strip() for line in text.splitlines() if line.startswith("Subject: ")
        ]
        return "250 OK"


Act = Callable[[StripeHouse], Awaitable[str]]


async def _buys(shop: StripeHouse) -> str:
    await shop.buy("starter")
    return "Ada buys Starter, with a trial"


async def _upgrades(shop: StripeHouse) -> str:
    preview = (await shop.ask("GET", "/preview?planId=studio")).body
    body = {"planId": "studio", "proratedAt": preview["proratedAt"]}
    answer = await shop.ask("POST", "/upgrade", body)
    assert answer.status == 200, answer.raw
    return f"Ada upgrades to Studio for {preview['amountDue'] / 100:.2f} {preview['currency'].upper()} now"


async def _card_expires(shop: StripeHouse) -> str:
    await shop.control("cards", {"outcome": "decline"})
    return "Ada's card expires"


async def _pays(shop: StripeHouse) -> str:
    listed = (await shop.ask("GET", "/invoices")).body["items"]
    (unpaid,) = [each["id"] for each in listed if each["status"] == "open"]
    await shop.control("cards", {"outcome": "succeed"})
    await shop.control(f"pay-invoice/{unpaid}")
    return "Ada pays with another card"


async def _downgrades(shop: StripeHouse) -> str:
    answer = await shop.ask("POST", "/downgrade", {"planId": "builder"})
    assert answer.status == 200, answer.raw
    return f"Ada downgrades to Builder, from {answer.body['pendingChange']['at'][:10]}"


async def _cancels(shop: StripeHouse) -> str:
    answer = await shop.ask("POST", "/cancel")
    assert answer.status == 200, answer.raw
    return f"Ada cancels, with the end of {answer.body['periodEnd'][:10]}"


ACTS: Mapping[int, Act] = {0: _buys, 20: _upgrades, 30: _card_expires, 57: _pays, 60: _downgrades, 80: _cancels}


async def live(database: Database, folder: Path) -> list[str]:
    """The timeline, a line for each day on which something happened."""
    box, loop = Postbox(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop, hostname="localhost"), "127.0.0.1", 0)
    clock = FakeClock(START)
    settings: dict[str, Any] = {
        "PROVISION_ATTEMPTS": "5",
        "AGENT_TIMEOUT_SECONDS": "20",
        "AGENT_ACTION_TIMEOUT_SECONDS": "20",
        "SMTP_URL": f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "SMTP_SENDER": "service@example.org",
    }
    with AgentProcess(folder / "agent", LINE_GAME, *GAME_OPTIONS) as agent:
        port = int(agent.url.rsplit(":", 1)[1])
        async with StripeHouse(database, clock=clock, **settings) as shop:
            await shop.house.instance(shop.house.ada, AgentEndpoint("127.0.0.1", port, TOKEN))
            try:
                return await _day_by_day(shop, box)
            finally:
                server.close()


async def _day_by_day(shop: StripeHouse, box: Postbox) -> list[str]:
    lines, before = [FIRST_LINE], ""
    assert shop.clock is not None
    for day in range(DAYS):
        if day:
            await shop.advance(days=1)
        happened = [await ACTS[day](shop)] if day in ACTS else []
        await _settle(shop)
        happened += [f"mail: {subject}" for subject in box.subjects]
        box.subjects.clear()
        state = await _state(shop)
        if happened or state != before:
            lines.append(f"{day:3}  {shop.clock.now():%Y-%m-%d}  {state}{'; '.join(happened)}".rstrip())
        before = state
    return lines


async def _settle(shop: StripeHouse) -> None:
    """All that this day brings is done: events, what time brings due, operations, mails."""
    billing = shop.house.services.billing
    assert billing is not None
    await shop.settle()
    await billing.scheduler.run_once()
    runner = shop.house.plane.provisioning.runner
    operations = shop.database.collection("operations")
    while await operations.count_documents({"is_finished": False}):
        await runner.run_once()
        await asyncio.sleep(0.02)
    notices = shop.database.collection("billing_notices")
    while await notices.count_documents({"open": True}):
        await billing.notices.run_once()
        await asyncio.sleep(0.02)


async def _state(shop: StripeHouse) -> str:
    state: Any = await shop.state()
    await shop.house.services.instances.sync()
    (instance,) = shop.house.services.instances.all()
    plan = "-" if state["plan"] is None else state["plan"]["id"]
    server = "suspended" if instance.suspension is not None else "usable"
    return f"{state['status'] or '-':9}  {state['access']:6}  {plan:8}  {server:9}  "


def main() -> int:
    async def run(uri: str, folder: Path) -> None:
        database = Database(uri, "billing_month", timeout_seconds=5)
        try:
            await migrate(database)
            for line in await live(database, folder):
                print(line)
        finally:
            database.close()

    with tempfile.TemporaryDirectory() as name, EmbeddedThread(Path(name) / "storage") as embedded:
        asyncio.run(run(embedded.uri, Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
