"""The whole application with billing switched on, beside the fake Stripe as a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any

from controlplane.billing.accounts import BillingAccount
from controlplane.ports import Provider
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.database import Database
from tests.api_house import Answer, ApiHouse
from tests.fake_stripe_process import API_KEY, WEBHOOK_SECRET, FakeStripeProcess
from tests.fakes import FakeClock

PLANS_FILE = Path(__file__).resolve().parent.parent / "conf" / "plans.toml"
PRICES = tuple(
    f"price_{plan}_{interval}={amount * (10 if interval == 'year' else 1)}:eur:{interval}:{plan.title()}"
    for plan, amount in (("starter", 900), ("builder", 2900), ("studio", 9900))
    for interval in ("month", "year")
)


def settings_for(stripe: FakeStripeProcess) -> dict[str, Any]:
    return {
        "STRIPE_SECRET_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_API_BASE": stripe.url,
        "BILLING_PLANS_FILE": str(PLANS_FILE),
        "BILLING_SCHEDULE_INTERVAL_SECONDS": "3600",
        "BILLING_RECONCILE_INTERVAL_SECONDS": "3600",
        "PROVISION_ATTEMPTS": "1",  # where nobody answers, nobody is waited for
        "PROVISION_RETRY_SECONDS": "0.01",
    }


class StripeHouse:
    """`async with` it. Ada buys; events arrive by themselves. With a `clock`, billing and Stripe go by that one."""

    def __init__(
        self,
        database: Database,
        *,
        clock: FakeClock | None = None,
        provider: Provider | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock
        frozen = () if clock is None else ("--freeze-at", str(int(clock.now().timestamp())))
        self.stripe = FakeStripeProcess(*frozen, prices=PRICES)
        try:
            self.house = ApiHouse(
                database, provider=provider, billing_clock=clock, **{**settings_for(self.stripe), **settings}
            )
        except BaseException:
            self.stripe.end()
            raise
        self.accounts = MongoBillingAccountRepository(database)
        self.database = database

    async def __aenter__(self) -> StripeHouse:
        try:
            await self.house.__aenter__()
        except BaseException:
            self.stripe.end()
            raise
        await self.control("webhooks", {"urls": [f"{self.house.url}/api/billing/webhook"]})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.house.__aexit__(kind, error, trace)
        finally:
            self.stripe.end()

    async def control(self, verb: str, body: Any = None) -> Any:
        """In a thread: deliveries want this loop."""
        return await asyncio.to_thread(self.stripe.control, verb, body)

    async def no_more_mischief(self) -> None:
        await asyncio.to_thread(self.stripe.control, "mischief", method="DELETE")

    async def settle(self) -> None:
        """Every event is delivered and answered."""
        state = await asyncio.to_thread(self.stripe.control, "settle", {"seconds": 60}, seconds=90)
        assert state["idle"], state

    async def advance(self, *, days: float) -> None:
        """Both clocks; what Stripe makes of it is not delivered yet."""
        assert self.clock is not None
        self.clock.advance(days * 86_400)
        await self.control("clock", {"advanceTo": int(self.clock.now().timestamp())})

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Answer:
        return await self.house.call(
            method, f"/api/billing{path}", body, token=token or self.house.ada_token, headers=headers
        )

    async def checkout(self, plan_id: str = "starter", interval: str = "month", token: str | None = None) -> str:
        """The checkout's id."""
        answer = await self.ask("POST", "/checkout", {"planId": plan_id, "interval": interval}, token)
        assert answer.status == 201, answer.raw
        return str(answer.body["url"]).rstrip("/").rsplit("/", 1)[1].partition("#")[0]

    async def buy(self, plan_id: str = "starter", interval: str = "month", token: str | None = None) -> None:
        await self.control(f"checkout/{await self.checkout(plan_id, interval, token)}", {"outcome": "pay"})
        await self.settle()

    async def state(self, token: str | None = None) -> Any:
        answer = await self.ask("GET", "", token=token)
        assert answer.status == 200, answer.raw
        return answer.body

    async def account(self) -> BillingAccount:
        found = await self.accounts.get(self.house.ada.id)
        assert found is not None
        return found

    async def notices(self) -> list[str]:
        rows = await self.database.collection("billing_notices").find({}, {"_id": 1}).to_list(None)
        return sorted(row["_id"].partition(":")[2] for row in rows)

    async def inbox(self) -> dict[str, str]:
        """The state of every event."""
        rows = await self.database.collection("billing_inbox").find({}, {"state": 1}).to_list(None)
        return {row["_id"]: row["state"] for row in rows}

    def calls(self, method: str, path: str) -> int:
        """How often the provider was asked."""
        return sum(call["method"] == method and call["path"].startswith(path) for call in self.stripe.requests())
