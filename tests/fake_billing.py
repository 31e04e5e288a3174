"""What billing keeps, in memory. What holds under contention is shown in tests/contract/storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.billing.accounts import BillingAccount, Notice
from controlplane.errors import StaleRevision
from controlplane.models import AuditEntry


class FakeBillingAccountRepository:
    def __init__(self) -> None:
        self.accounts: dict[str, BillingAccount] = {}

    async def get(self, user_id: str) -> BillingAccount | None:
        return self.accounts.get(user_id)

    async def find_by_customer(self, customer_id: str) -> BillingAccount | None:
        return next((each for each in self.accounts.values() if each.customer_id == customer_id), None)

    async def allowed(self, user_ids: Sequence[str]) -> set[str]:
        return {each for each in user_ids if each in self.accounts and self.accounts[each].access.allows}

    async def put(self, account: BillingAccount) -> None:
        known = self.accounts.get(account.user_id)
        if account.revision != (1 if known is None else known.revision + 1):
            raise StaleRevision("Another writer was first.")
        self.accounts[account.user_id] = account

    async def needing_attention(self, now: datetime, *, limit: int) -> list[BillingAccount]:
        waiting = [
            each for each in self.accounts.values() if each.attention_at is not None and each.attention_at <= now
        ]
        return sorted(waiting, key=lambda each: each.attention_at or now)[:limit]

    async def page(self, *, limit: int, after: str | None) -> list[BillingAccount]:
        return [self.accounts[key] for key in sorted(self.accounts) if after is None or key > after][:limit]

    async def changed_since(self, since: datetime | None) -> tuple[list[BillingAccount], datetime]:
        raise NotImplementedError


class FakeNoticeRepository:
    """Notices that nobody sends."""

    def __init__(self) -> None:
        self.notices: dict[str, Notice] = {}

    async def add(self, notice: Notice) -> bool:
        return self.notices.setdefault(notice.id, notice) is notice

    async def get(self, notice_id: str) -> Notice | None:
        return self.notices.get(notice_id)

    async def claim(self, notice_id: str, owner: str, *, lease_seconds: float) -> Notice | None:
        return None

    async def mark_sent(self, notice_id: str, owner: str, at: datetime) -> None: ...

    async def give_back(self, notice_id: str, owner: str, *, retry_seconds: float) -> None: ...

    async def give_up(self, notice_id: str, owner: str) -> None: ...

    async def unsent(self, *, limit: int) -> list[str]:
        return []


class FakeAuditRepository:
    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def add(self, entry: AuditEntry) -> None:
        self.entries.append(entry)
