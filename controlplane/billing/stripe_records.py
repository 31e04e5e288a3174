"""Stripe's objects, as their JSON came, to our records. Pure. What is of another shape raises `Unreadable`.

Shapes are those of API version 2025-03-31 and later: periods stand on a subscription's items, and an invoice names its
subscription in `parent.subscription_details`. A field that can be expanded is an id or the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from controlplane.billing.records import (
    Checkout,
    Invoice,
    InvoicePreview,
    PendingUpdate,
    PortalSession,
    PreviewLine,
    Price,
    Schedule,
    SchedulePhase,
    Subscription,
    SubscriptionItem,
    WebhookEvent,
)

Json: TypeAlias = Mapping[str, Any]
Record = TypeVar("Record")


class Unreadable(Exception):
    """An object that Stripe's documentation does not describe. `kind` names what it should have been."""

    def __init__(self, kind: str, why: Exception) -> None:
        super().__init__(f"this is no {kind}: {why!r}")
        self.kind = kind


def read(reader: Callable[[Json], Record], data: Any) -> Record:
    """Raises Unreadable."""
    try:
        return reader(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, OSError) as error:
        raise Unreadable(reader.__name__, error) from error


def read_page(reader: Callable[[Json], Record], data: Any) -> tuple[tuple[Record, ...], str | None]:
    """The records of a list, and the id to go on after; None at its end. Raises Unreadable."""

    def page(listed: Json) -> tuple[tuple[Record, ...], str | None]:
        found = listed["data"]
        return tuple(reader(one) for one in found), _text(found[-1]["id"]) if listed["has_more"] and found else None

    return read(page, data)


def price(data: Json) -> Price:
    recurring = data.get("recurring") or {}
    return Price(
        id=_text(data["id"]),
        amount=_number(data["unit_amount"] or 0),
        currency=_text(data["currency"]),
        interval=str(recurring.get("interval", "")),
        is_active=data["active"] is True,
    )


def subscription(data: Json) -> Subscription:
    return Subscription(
        id=_text(data["id"]),
        customer_id=_id(data["customer"]),
        status=_text(data["status"]),
        items=tuple(_item(one) for one in data["items"]["data"]),
        created_at=moment(data["created"]),
        cancel_at_period_end=data["cancel_at_period_end"] is True,
        cancel_at=_moment_or_none(data.get("cancel_at")),
        canceled_at=_moment_or_none(data.get("canceled_at")),
        ended_at=_moment_or_none(data.get("ended_at")),
        trial_end=_moment_or_none(data.get("trial_end")),
        pending_update=_pending_update(data["pending_update"]) if data.get("pending_update") else None,
        schedule=schedule(data["schedule"]) if data.get("schedule") else None,
        latest_invoice=invoice(data["latest_invoice"]) if data.get("latest_invoice") else None,
        metadata={str(key): str(value) for key, value in (data.get("metadata") or {}).items()},
    )


def schedule(data: Json) -> Schedule:
    return Schedule(
        id=_text(data["id"]),
        status=_text(data["status"]),
        phases=tuple(
            SchedulePhase(
                price_ids=tuple(_id(item["price"]) for item in phase["items"]),
                starts_at=moment(phase["start_date"]),
                ends_at=_moment_or_none(phase.get("end_date")),
            )
            for phase in data["phases"]
        ),
    )


def invoice(data: Json) -> Invoice:
    return Invoice(
        id=_text(data["id"]),
        customer_id=_id(data["customer"]),
        subscription_id=_subscription_of_invoice(data),
        status=_text(data["status"] or "draft"),
        amount_due=_number(data["amount_due"]),
        amount_paid=_number(data["amount_paid"]),
        currency=_text(data["currency"]),
        created_at=moment(data["created"]),
        number=data.get("number"),
        hosted_url=data.get("hosted_invoice_url"),
        pdf_url=data.get("invoice_pdf"),
        attempt_count=_number(data["attempt_count"]),
        next_attempt_at=_moment_or_none(data.get("next_payment_attempt")),
    )


def checkout(data: Json) -> Checkout:
    return Checkout(
        id=_text(data["id"]),
        status=_text(data["status"]),
        payment_status=_text(data["payment_status"]),
        customer_id=_id_or_none(data.get("customer")),
        subscription_id=_id_or_none(data.get("subscription")),
        url=data.get("url"),
        expires_at=moment(data["expires_at"]),
        user_id=_user_id(data) or data.get("client_reference_id"),
    )


def portal_session(data: Json) -> PortalSession:
    return PortalSession(url=_text(data["url"]))


def customer_id(data: Json) -> str:
    return _text(data["id"])


def preview(data: Json) -> InvoicePreview:
    """Lines that begin later than the change say what the next period will cost: nothing of it is charged now."""
    lines = data["lines"]["data"]
    details = (data.get("parent") or {}).get("subscription_details") or {}
    at = details.get("subscription_proration_date") or data["created"]
    is_charged_now = any(line["period"]["start"] <= at for line in lines)
    return InvoicePreview(
        amount_due=_number(data["amount_due"]) if is_charged_now else 0,
        currency=_text(data["currency"]),
        lines=tuple(
            PreviewLine(
                description=str(line.get("description") or ""),
                amount=_number(line["amount"]),
                is_proration=_is_proration(line),
            )
            for line in lines
        ),
        prorated_at=moment(at),
    )


def event(data: Json) -> WebhookEvent:
    """An object without an id, as some events that are no business of ours have, gives an empty `object_id`."""
    about: Json = data["data"]["object"]
    kind = about.get("object")
    object_id = about.get("id")
    own_id = object_id if isinstance(object_id, str) else ""
    is_invoice = kind == "invoice"
    is_subscription = kind == "subscription"
    return WebhookEvent(
        id=_text(data["id"]),
        type=_text(data["type"]),
        created_at=moment(data["created"]),
        object_id=own_id,
        customer_id=own_id if kind == "customer" else _id_or_none(about.get("customer")),
        subscription_id=own_id
        if is_subscription
        else _subscription_of_invoice(about)
        if is_invoice
        else _id_or_none(about.get("subscription") or about.get("released_subscription")),
        invoice_id=own_id if is_invoice else _id_or_none(about.get("invoice")),
        checkout_id=own_id if kind == "checkout.session" else None,
        user_id=_user_id(about) or (_user_id_of_invoice(about) if is_invoice else None),
    )


def moment(seconds: Any) -> datetime:
    return datetime.fromtimestamp(_number(seconds), UTC)


def _item(data: Json) -> SubscriptionItem:
    return SubscriptionItem(
        id=_text(data["id"]),
        price=price(data["price"]),
        period_start=moment(data["current_period_start"]),
        period_end=moment(data["current_period_end"]),
    )


def _pending_update(data: Json) -> PendingUpdate:
    return PendingUpdate(
        price_ids=tuple(_id(item["price"]) for item in data.get("subscription_items") or ()),
        expires_at=moment(data["expires_at"]),
    )


def _is_proration(line: Json) -> bool:
    parent = line.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    return details.get("proration") is True


def _subscription_of_invoice(data: Json) -> str | None:
    details = (data.get("parent") or {}).get("subscription_details") or {}
    return _id_or_none(details.get("subscription"))


def _user_id(data: Json) -> str | None:
    found = (data.get("metadata") or {}).get("user_id")
    return found if isinstance(found, str) and found else None


def _user_id_of_invoice(data: Json) -> str | None:
    return _user_id((data.get("parent") or {}).get("subscription_details") or {})


def _id(data: Any) -> str:
    """Of a field that may be expanded."""
    return _text(data["id"] if isinstance(data, Mapping) else data)


def _id_or_none(data: Any) -> str | None:
    return _id(data) if data else None


def _moment_or_none(seconds: Any) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value
