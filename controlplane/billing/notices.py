"""Notices to customers by mail, each once: stored under what it is about first, sent then, and marked.

`post` is part of what causes a notice and only stores it; `run_once` sends, so that a slow mail server holds up nobody.
A process that dies between the two leaves a notice that another sends. One that dies after the mail server took the
mail and before the mark leads to the same mail again, under the same Message-ID.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from controlplane.billing.accounts import BillingAccount, Notice, NoticeKind
from controlplane.billing.notice_texts import NoticeTexts
from controlplane.billing.plans import PlanCatalog
from controlplane.billing.ports import NoticeRepository
from controlplane.billing.timeline import Policy, facts, notice_id
from controlplane.errors import Unavailable
from controlplane.ports import Clock, Mailer, MailMessage, UserRepository

logger = logging.getLogger(__name__)

BATCH = 50
AT_ONCE = 5
LEASE_SECONDS = 120.0  # longer than a mail server may take
FIRST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 3600.0
STALE_AFTER = timedelta(days=3)
"""What could not be delivered for so long is no longer true enough to be sent."""


class Notices:
    """`page_url` is where a customer looks after a subscription, `owner` names this process."""

    def __init__(
        self,
        *,
        notices: NoticeRepository,
        users: UserRepository,
        mailer: Mailer,
        texts: NoticeTexts,
        plans: PlanCatalog,
        policy: Policy,
        clock: Clock,
        service_url: str,
        owner: str,
        on_sent: Callable[[NoticeKind], None] = lambda _kind: None,
    ) -> None:
        self._notices = notices
        self._users = users
        self._mailer = mailer
        self._texts = texts
        self._plans = plans
        self._policy = policy
        self._clock = clock
        self._service_url = service_url
        self._owner = owner
        self._on_sent = on_sent

    async def post(self, account: BillingAccount, kind: NoticeKind, reference: str) -> bool:
        """False when this notice exists already."""
        plan = self._plans.get(account.plan_id)
        return await self._notices.add(
            Notice(
                id=notice_id(account, kind, reference),
                user_id=account.user_id,
                kind=kind,
                created_at=self._clock.now(),
                facts=facts(account, self._policy, "" if plan is None else plan.name),
            )
        )

    async def sent_at(self, account: BillingAccount, kind: NoticeKind, reference: str) -> datetime | None:
        notice = await self._notices.get(notice_id(account, kind, reference))
        return None if notice is None else notice.sent_at

    async def run_once(self) -> None:
        """Send what waits, a few at a time."""
        waiting = await self._notices.unsent(limit=BATCH)
        for start in range(0, len(waiting), AT_ONCE):
            await asyncio.gather(*(self._send(each) for each in waiting[start : start + AT_ONCE]))

    async def _send(self, notice_id: str) -> None:
        notice = await self._notices.claim(notice_id, self._owner, lease_seconds=LEASE_SECONDS)
        if notice is None:
            return  # another process was first
        user = await self._users.get(notice.user_id)
        if user is None or notice.created_at + STALE_AFTER < self._clock.now():
            logger.warning("a notice was given up", extra={"notice": notice.id, "attempts": notice.attempts})
            await self._notices.give_up(notice.id, self._owner)
            return
        text = self._texts.render(notice.kind, {**notice.facts, **self._links()})
        message = MailMessage(user.email, text.subject, text.plain, text.html, _message_id(notice))
        try:
            await self._mailer.send(message)
        except Unavailable as error:
            wait = min(FIRST_RETRY_SECONDS * 2 ** (notice.attempts - 1), LONGEST_RETRY_SECONDS)
            logger.warning("a notice waits for the mail server", extra={"notice": notice.id, "why": error.message})
            await self._notices.give_back(notice.id, self._owner, retry_seconds=wait)
            return
        await self._notices.mark_sent(notice.id, self._owner, self._clock.now())
        self._on_sent(notice.kind)

    def _links(self) -> dict[str, str]:
        return {"service_url": self._service_url, "billing_url": f"{self._service_url}/#/billing"}


def _message_id(notice: Notice) -> str:
    """The left part of a Message-ID, the same however often the notice is sent."""
    return "notice." + hashlib.sha256(notice.id.encode()).hexdigest()[:32]
