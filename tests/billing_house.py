"""Billing on a real database, with a gateway, a clock and effects that a test holds in its hands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.agents.cache import StateCache
from controlplane.billing.accounts import BillingAccount, Notice
from controlplane.billing.records import Subscription, WebhookEvent
from controlplane.errors import ControlPlaneError
from controlplane.events import EventHub
from controlplane.instance_views import InstanceViews
from controlplane.instances import InstanceDirectory, Registration
from controlplane.models import Holding, Instance, InstanceKind, Principal, Role, Suspension, User
from controlplane.observability.audit import AuditTrail
from controlplane.observability.metrics import Metrics
from controlplane.provisioning.board import OperationBoard
from controlplane.secretbox import SecretBox
from controlplane.settings import BillingSettings
from controlplane.storage.agent_states import MongoAgentStateRepository
from controlplane.storage.audit import MongoAuditRepository
from controlplane.storage.billing_notices import MongoNoticeRepository
from controlplane.storage.database import Database
from controlplane.storage.instances import MongoInstanceRepository
from controlplane.storage.leases import MongoLeaseRepository
from controlplane.storage.operations import MongoOperationRepository
from controlplane.storage.users import MongoUserRepository
from controlplane.wiring.billing import make_billing, make_billing_base
from tests.billing_samples import START, subscription
from tests.fake_gateway import FakeGateway
from tests.fakes import FakeClock, FakeMailer

PLANS_FILE = Path(__file__).resolve().parent.parent / "conf" / "plans.toml"


def settings(**changes: Any) -> BillingSettings:
    fields: dict[str, Any] = {
        "stripe_secret_key": "sk_test_fake",
        "stripe_webhook_secret": "whsec_fake",
        "stripe_api_base": "http://127.0.0.1:9",
        "stripe_timeout_seconds": 5.0,
        "billing_plans_file": PLANS_FILE,
        "billing_mail_dir": None,
        "billing_grace_days": 10,
        "billing_termination_enabled": False,
        "billing_termination_days": 30,
        "billing_actions_per_run": 20,
        "billing_schedule_interval_seconds": 60.0,
        "billing_reconcile_interval_seconds": 3600.0,
    }
    return BillingSettings(**{**fields, **changes})


class FakeEffects:
    """Does at once what it is asked for, each key once; `failure` is raised instead while it is set."""

    def __init__(self, directory: InstanceDirectory) -> None:
        self._directory = directory
        self.asked: list[tuple[str, str, str]] = []
        self.keys: set[str] = set()
        self.failure: ControlPlaneError | None = None
        self.being_made: list[Holding] = []

    async def _once(self, action: str, instance_id: str, key: str) -> bool:
        if self.failure is not None:
            raise self.failure
        self.asked.append((action, instance_id, key))
        is_new = key not in self.keys
        self.keys.add(key)
        return is_new

    async def suspend(self, instance_id: str, reason: str, *, key: str) -> str:
        if await self._once("suspend", instance_id, key):
            await self._directory.set_suspension(instance_id, Suspension(reason, START))
        return f"op_{key}"

    async def unsuspend(self, instance_id: str, *, key: str) -> str:
        if await self._once("unsuspend", instance_id, key):
            await self._directory.set_suspension(instance_id, None)
        return f"op_{key}"

    async def unsuspend_again(self, instance_id: str, *, key: str) -> str | None:
        return None if key in self.keys else await self.unsuspend(instance_id, key=key)

    async def delete(self, instance_id: str, reason: str, *, key: str) -> str:
        if await self._once("delete", instance_id, key):
            await self._directory.remove(instance_id)
        return f"op_{key}"

    @asynccontextmanager
    async def holdings(self, owner_id: str) -> AsyncIterator[list[Holding]]:
        yield [*(each.holding for each in self._directory.of_owner(owner_id)), *self.being_made]

    def actions(self) -> list[tuple[str, str]]:
        """What was done, without repetitions of a key."""
        return [(action, instance_id) for action, instance_id, _ in dict.fromkeys(self.asked)]


class BillingHouse:
    """One process's billing. Several on one database are several processes; share `gateway` and `clock` then."""

    def __init__(
        self,
        database: Database,
        *,
        owner: str = "first",
        gateway: FakeGateway | None = None,
        clock: FakeClock | None = None,
        **changes: Any,
    ) -> None:
        self.gateway = gateway or FakeGateway()
        self.clock = clock or FakeClock(START)
        self.mailer = FakeMailer()
        self.metrics = Metrics()
        self.users = MongoUserRepository(database)
        self.leases = MongoLeaseRepository(database)
        self._notices = MongoNoticeRepository(database)
        self._database = database
        self._vmid = 100
        self.directory = InstanceDirectory(
            MongoInstanceRepository(database),
            self.users,
            SecretBox(bytes(range(32))),
            self.clock,
            check_address=lambda _address: None,
        )
        states = StateCache(MongoAgentStateRepository(database), self.clock)
        board = OperationBoard(MongoOperationRepository(database))
        views = InstanceViews(self.directory, states, self.clock, board, stale_after_seconds=30)
        self.events = EventHub(self.directory, views)
        self.effects = FakeEffects(self.directory)
        base = make_billing_base(settings(**changes), database)
        assert base is not None
        self.accounts = base.accounts
        self.entitlements = base.entitlements
        billing = make_billing(
            base,
            database,
            gateway=self.gateway,
            service_url="https://portal.example",
            users=self.users,
            leases=self.leases,
            directory=self.directory,
            effects=self.effects,
            audit=AuditTrail(MongoAuditRepository(database), self.clock, self.metrics.audit_dropped),
            events=self.events,
            mailer=self.mailer,
            metrics=self.metrics,
            clock=self.clock,
            owner=owner,
        )
        assert billing is not None
        billing.service._turns._wait_seconds = 60.0  # a slow disk is no reason to be sent away
        self.billing = billing

    async def user(self, number: int = 1, role: Role = Role.CUSTOMER) -> Principal:
        """`usr_1`, who is `cus_1` once there is an account."""
        user = User(f"usr_{number}", f"user{number}@example.org", "x", role, START, START)
        await self.users.add(user)
        return Principal(user.id, user.email, role, session_id="ses_1")

    async def set_role(self, user_id: str, role: Role) -> None:
        await self._database.collection("users").update_one({"_id": user_id}, {"$set": {"role": role.value}})

    async def instance(self, owner: Principal, name: str = "mine", kind: InstanceKind = InstanceKind.GAME) -> Instance:
        self._vmid += 1
        return await self.directory.register(
            Registration(kind, name, self._vmid, "127.0.0.1", 20_000 + self._vmid, "x" * 16, owner.user_id)
        )

    async def subscribe(self, number: int = 1, status: str = "active", **changes: Any) -> Subscription:
        """The account of `usr_n` is adopted, and the provider has a subscription for it; nothing is settled yet."""
        made = subscription(
            status, **{"id": f"sub_{number}", "customer_id": f"cus_{number}", "created_at": START, **changes}
        )
        self.gateway.put(made)
        if await self.accounts.get(f"usr_{number}") is None:
            await self.accounts.put(
                BillingAccount(f"usr_{number}", customer_id=f"cus_{number}", attention_at=START, revision=1)
            )
        return made

    async def account(self, number: int = 1) -> BillingAccount:
        found = await self.accounts.get(f"usr_{number}")
        assert found is not None
        return found

    def event(self, event_type: str, number: int = 1, event_id: str | None = None, **changes: Any) -> WebhookEvent:
        fields: dict[str, Any] = {
            "object_id": f"sub_{number}",
            "customer_id": f"cus_{number}",
            "subscription_id": f"sub_{number}",
        }
        created: datetime = changes.pop("created_at", self.clock.now())
        made = WebhookEvent(event_id or f"evt_{len(self.gateway.events)}", event_type, created, **{**fields, **changes})
        self.gateway.events.append(made)
        return made

    async def notices(self) -> list[str]:
        """The ids of all that exist."""
        rows = await self._database.collection("billing_notices").find({}, {"_id": 1}).to_list(None)
        return sorted(row["_id"] for row in rows)

    async def notice(self, notice_id: str) -> Notice:
        found = await self._notices.get(notice_id)
        assert found is not None
        return found

    async def audited(self) -> list[tuple[str, str]]:
        rows = await self._database.collection("audit").find({}).sort("_id", 1).to_list(None)
        return [(row["action"], row["subject"]) for row in rows]
