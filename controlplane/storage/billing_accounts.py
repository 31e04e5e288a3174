"""Billing accounts, in `billing_accounts`, by the user's id. A customer of the provider belongs to one, by index.

`written_at` is set by the server, as with instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from controlplane.billing.accounts import Access, BillingAccount, DatedPlan, Subscribed
from controlplane.errors import Conflict, StaleRevision
from controlplane.storage.database import Database, Document, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated
from controlplane.storage.instances import OVERLAP


class MongoBillingAccountRepository:
    """Satisfies `billing.ports.BillingAccountRepository`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accounts = database.collection("billing_accounts")

    async def get(self, user_id: str) -> BillingAccount | None:
        with translated():
            row = await self._accounts.find_one({"_id": exact(user_id)})
        return None if row is None else _to_account(row)

    async def find_by_customer(self, customer_id: str) -> BillingAccount | None:
        with translated():
            row = await self._accounts.find_one({"customer_id": exact(customer_id)})
        return None if row is None else _to_account(row)

    async def allowed(self, user_ids: Sequence[str]) -> set[str]:
        wanted = {
            "_id": {"$in": [exact(each) for each in user_ids]},
            "access": {"$in": [each.value for each in Access if each.allows]},
        }
        return set(await read_all(self._accounts.find(wanted, {"_id": True}), _to_user_id))

    async def put(self, account: BillingAccount) -> None:
        first = account.revision == 1
        # As in `instances`: an upsert that meets an existing id fails on `_id`.
        expected: Document = {"$exists": False} if first else {"$eq": exact(account.revision - 1)}
        try:
            with translated():
                result = await self._accounts.update_one(
                    {"_id": exact(account.user_id), "revision": expected},
                    {"$set": _to_document(account), "$currentDate": {"written_at": True}},
                    upsert=first,
                )
        except DuplicateKeyError as error:
            if await self._is_anothers(account):
                raise Conflict("Another account has this customer.", code="customer_taken") from error
            raise StaleRevision("Another writer was first.") from error
        if not first and result.matched_count != 1:
            raise StaleRevision("Another writer was first.")

    async def _is_anothers(self, account: BillingAccount) -> bool:
        """Of two writers of one new account the second may be told of either index."""
        owner = None if account.customer_id is None else await self.find_by_customer(account.customer_id)
        return owner is not None and owner.user_id != account.user_id

    async def needing_attention(self, now: datetime, *, limit: int) -> list[BillingAccount]:
        cursor = self._accounts.find({"attention_at": {"$lte": now}}).sort("attention_at", ASCENDING).limit(limit)
        return await read_all(cursor, _to_account)

    async def page(self, *, limit: int, after: str | None) -> list[BillingAccount]:
        behind = {} if after is None else {"_id": {"$gt": exact(after)}}
        return await read_all(self._accounts.find(behind).sort("_id", ASCENDING).limit(limit), _to_account)

    async def changed_since(self, since: datetime | None) -> tuple[list[BillingAccount], datetime]:
        now = await self._database.server_now()
        if since is None:
            return [], now
        return await read_all(self._accounts.find({"written_at": {"$gte": since - OVERLAP}}), _to_account), now


def _to_document(account: BillingAccount) -> Document:
    """Without `_id` and `written_at`. Without a customer there is no `customer_id`, for the partial index."""
    document = {
        "subscription": None if account.subscription is None else _from_subscribed(account.subscription),
        "access": account.access.value,
        "access_since": account.access_since,
        "access_epoch": account.access_epoch,
        "applied_epoch": account.applied_epoch,
        "past_due_since": account.past_due_since,
        "past_due_invoice_id": account.past_due_invoice_id,
        "observed_at": account.observed_at,
        "attention_at": account.attention_at,
        "revision": account.revision,
    }
    return document if account.customer_id is None else {**document, "customer_id": exact(account.customer_id)}


def _to_user_id(row: Document) -> str:
    return str(row["_id"])


def _to_account(row: Document) -> BillingAccount:
    subscription = row["subscription"]
    return BillingAccount(
        user_id=row["_id"],
        customer_id=row.get("customer_id"),
        subscription=None if subscription is None else _to_subscribed(subscription),
        access=Access(row["access"]),
        access_since=row["access_since"],
        access_epoch=row["access_epoch"],
        applied_epoch=row["applied_epoch"],
        past_due_since=row["past_due_since"],
        past_due_invoice_id=row["past_due_invoice_id"],
        observed_at=row["observed_at"],
        attention_at=row["attention_at"],
        revision=row["revision"],
    )


def _from_subscribed(subscription: Subscribed) -> Document:
    return {
        "id": subscription.id,
        "status": subscription.status,
        "plan_id": subscription.plan_id,
        "price_id": subscription.price_id,
        "item_id": subscription.item_id,
        "interval": subscription.interval,
        "amount": subscription.amount,
        "currency": subscription.currency,
        "period_end": subscription.period_end,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "ended_at": subscription.ended_at,
        "trial_end": subscription.trial_end,
        "schedule_id": subscription.schedule_id,
        "next": _from_dated(subscription.next),
        "awaiting_payment": _from_dated(subscription.awaiting_payment),
        "pay_url": subscription.pay_url,
    }


def _to_subscribed(document: Document) -> Subscribed:
    fields: dict[str, Any] = dict(document)
    fields["next"] = _to_dated(document["next"])
    fields["awaiting_payment"] = _to_dated(document["awaiting_payment"])
    return Subscribed(**fields)


def _from_dated(plan: DatedPlan | None) -> Document | None:
    return None if plan is None else {"plan_id": plan.plan_id, "price_id": plan.price_id, "at": plan.at}


def _to_dated(document: Document | None) -> DatedPlan | None:
    return None if document is None else DatedPlan(document["plan_id"], document["price_id"], document["at"])
