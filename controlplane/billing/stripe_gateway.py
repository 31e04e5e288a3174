"""The payment gateway over Stripe's API: what billing asks, in Stripe's calls, and the answers in our records.

Calls go through the official library's `raw_request_async`: its encoding, version header, retries, idempotency and
errors. Its typed services build a StripeObject of every answer, which costs the loop 3 ms for one subscription and
140 ms for a page of a hundred; reading the plain JSON costs a twentieth of it (docs/adr/0007-stripe-raw-requests.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import stripe

from controlplane.billing import stripe_records as records
from controlplane.billing.records import (
    Checkout,
    EventPage,
    InvoicePage,
    InvoicePreview,
    PortalSession,
    Price,
    Subscription,
    SubscriptionPage,
    WebhookEvent,
)
from controlplane.billing.stripe_errors import NO_ANSWER, is_missing, translated
from controlplane.billing.stripe_http import TornadoStripeClient
from controlplane.billing.stripe_webhooks import verified_event
from controlplane.errors import PaymentRefused, PaymentUnavailable
from controlplane.ports import Clock

logger = logging.getLogger(__name__)

API_VERSION = "2026-10-28.endive"
"""What the records are read as. A new major version of the library brings another one: change both together."""
MAX_NETWORK_RETRIES = 2
SUBSCRIPTION_EXPANSIONS = ("latest_invoice", "schedule")
# Reading a page costs the loop about a millisecond at these sizes; who asks for more gets the first of it.
SUBSCRIPTIONS_PER_PAGE = 10
INVOICES_PER_PAGE = 20
EVENTS_PER_PAGE = 25
SCHEDULE_IS_OVER = frozenset({"released", "completed", "canceled"})

Record = TypeVar("Record")


class StripeGateway:
    """Satisfies `PaymentGateway`."""

    def __init__(
        self, *, secret_key: str, webhook_secret: str, api_base: str, timeout_seconds: float, clock: Clock
    ) -> None:
        """`timeout_seconds` is for one attempt; with retries and pauses a call takes three times as long at most."""
        stripe.enable_telemetry = False  # it writes a file into the home directory
        logging.getLogger("stripe").setLevel(logging.WARNING)  # its INFO and DEBUG lines carry parameters and bodies
        self._http = TornadoStripeClient(timeout_seconds=timeout_seconds)
        client = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": api_base.rstrip("/")},
            max_network_retries=MAX_NETWORK_RETRIES,
            http_client=self._http,
        )
        self._request: Callable[..., Awaitable[Any]] = client.raw_request_async
        self._webhook_secret = webhook_secret
        self._deadline_seconds = 3 * timeout_seconds
        self._clock = clock

    # -- customers and what they buy ---------------------------------------------------------------------------------

    async def create_customer(self, *, user_id: str, email: str, key: str) -> str:
        answer = await self._post("customers", key, email=email, metadata={"user_id": user_id})
        return _read(records.customer_id, answer)

    async def create_checkout(
        self,
        *,
        customer_id: str,
        user_id: str,
        price_id: str,
        trial_days: int,
        success_url: str,
        cancel_url: str,
        key: str,
    ) -> Checkout:
        subscription: dict[str, Any] = {"metadata": {"user_id": user_id}}
        if trial_days:
            subscription["trial_period_days"] = trial_days
        answer = await self._post(
            "checkout/sessions",
            key,
            mode="subscription",
            customer=customer_id,
            client_reference_id=user_id,
            metadata={"user_id": user_id},
            line_items=[{"price": price_id, "quantity": 1}],
            subscription_data=subscription,
            success_url=success_url,
            cancel_url=cancel_url,
        )
        return _read(records.checkout, answer)

    async def retrieve_checkout(self, checkout_id: str) -> Checkout | None:
        return await self._find(records.checkout, _path("checkout/sessions", checkout_id))

    async def expire_checkout(self, checkout_id: str, *, key: str) -> None:
        try:
            await self._post(_path("checkout/sessions", checkout_id, "expire"), key)
        except PaymentRefused:
            found = await self.retrieve_checkout(checkout_id)
            if found is None or found.status != "expired":
                raise

    async def create_portal_session(self, *, customer_id: str, return_url: str, key: str) -> PortalSession:
        answer = await self._post("billing_portal/sessions", key, customer=customer_id, return_url=return_url)
        return _read(records.portal_session, answer)

    async def retrieve_price(self, price_id: str) -> Price | None:
        return await self._find(records.price, _path("prices", price_id))

    # -- subscriptions -----------------------------------------------------------------------------------------------

    async def retrieve_subscription(self, subscription_id: str) -> Subscription | None:
        return await self._find(
            records.subscription, _path("subscriptions", subscription_id), expand=[*SUBSCRIPTION_EXPANSIONS]
        )

    async def list_subscriptions(
        self, *, customer_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> SubscriptionPage:
        answer = await self._get(
            "subscriptions",
            status="all",
            limit=min(limit, SUBSCRIPTIONS_PER_PAGE),
            expand=[f"data.{name}" for name in SUBSCRIPTION_EXPANSIONS],
            **_given(customer=customer_id, starting_after=after),
        )
        return SubscriptionPage(*_read_page(records.subscription, answer))

    async def change_subscription_now(
        self, *, subscription_id: str, item_id: str, price_id: str, prorated_at: datetime | None, key: str
    ) -> Subscription:
        answer = await self._post(
            _path("subscriptions", subscription_id),
            key,
            items=[{"id": item_id, "price": price_id}],
            proration_behavior="always_invoice",
            payment_behavior="pending_if_incomplete",
            expand=[*SUBSCRIPTION_EXPANSIONS],
            **_given(proration_date=None if prorated_at is None else int(prorated_at.timestamp())),
        )
        return _read(records.subscription, answer)

    async def preview_change(self, *, subscription_id: str, item_id: str, price_id: str) -> InvoicePreview:
        answer = await self._call(
            "post",
            "invoices/create_preview",
            {
                "subscription": subscription_id,
                "subscription_details": {
                    "items": [{"id": item_id, "price": price_id}],
                    "proration_behavior": "always_invoice",
                },
            },
        )
        return _read(records.preview, answer)

    async def schedule_downgrade(self, *, subscription_id: str, price_id: str, key: str) -> Subscription:
        subscription = await self._get(_path("subscriptions", subscription_id), expand=["schedule"])
        price = await self._get(_path("prices", price_id))
        schedule = subscription.get("schedule") or await self._post(
            "subscription_schedules", f"{key}:schedule", from_subscription=subscription_id
        )
        path, phases = _read(lambda given: _phases(*given), (subscription, schedule, price))
        await self._post(path, f"{key}:phases", phases=phases, end_behavior="release", proration_behavior="none")
        answer = await self._get(_path("subscriptions", subscription_id), expand=[*SUBSCRIPTION_EXPANSIONS])
        return _read(records.subscription, answer)

    async def release_schedule(self, schedule_id: str, *, key: str) -> None:
        try:
            await self._post(_path("subscription_schedules", schedule_id, "release"), key)
        except PaymentRefused:
            found = await self._find(records.schedule, _path("subscription_schedules", schedule_id))
            if found is None or found.status not in SCHEDULE_IS_OVER:
                raise

    async def set_cancel_at_period_end(self, subscription_id: str, cancel: bool, *, key: str) -> Subscription:
        answer = await self._post(
            _path("subscriptions", subscription_id),
            key,
            cancel_at_period_end=cancel,
            expand=[*SUBSCRIPTION_EXPANSIONS],
        )
        return _read(records.subscription, answer)

    # -- invoices and events -----------------------------------------------------------------------------------------

    async def list_invoices(self, *, customer_id: str, after: str | None = None, limit: int = 20) -> InvoicePage:
        answer = await self._get(
            "invoices", customer=customer_id, limit=min(limit, INVOICES_PER_PAGE), **_given(starting_after=after)
        )
        return InvoicePage(*_read_page(records.invoice, answer))

    async def list_events_since(self, since: datetime, *, after: str | None = None, limit: int = 100) -> EventPage:
        answer = await self._get(
            "events",
            created={"gte": int(since.timestamp())},
            limit=min(limit, EVENTS_PER_PAGE),
            **_given(starting_after=after),
        )
        return EventPage(*_read_page(records.event, answer))

    def verify_webhook(self, raw: bytes, signature: str | None) -> WebhookEvent:
        return verified_event(raw, signature, secret=self._webhook_secret, now=self._clock.now().timestamp())

    async def close(self) -> None:
        await self._http.close_async()

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _find(self, reader: Callable[[records.Json], Record], path: str, **params: Any) -> Record | None:
        """None when Stripe says that it does not exist."""
        try:
            answer = await self._get(path, **params)
        except PaymentRefused as refusal:
            if isinstance(refusal.__cause__, stripe.StripeError) and is_missing(refusal.__cause__):
                return None
            raise
        return _read(reader, answer)

    async def _get(self, path: str, **params: Any) -> records.Json:
        return await self._call("get", path, params)

    async def _post(self, path: str, key: str, **params: Any) -> records.Json:
        return await self._call("post", path, {**params, "idempotency_key": key})

    async def _call(self, method: str, path: str, params: Mapping[str, Any]) -> records.Json:
        """Raises PaymentRefused, PaymentUnavailable, or PaymentBusy when too many wait already."""
        self._http.check_room()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                response = await self._request(method, f"/v1/{path}", **params)
        except stripe.StripeError as error:
            failure = translated(error)
            logger.warning(
                "a call to Stripe failed",
                extra={"call": f"{method} {path}", "why": failure.operator_message, "kind": type(failure).__name__},
            )
            raise failure from error
        except TimeoutError as error:
            why = f"{method} {path}: no answer within {self._deadline_seconds:g} s"
            raise PaymentUnavailable(NO_ANSWER, operator_message=why) from error
        answer = response.data
        if not isinstance(answer, dict):
            raise PaymentUnavailable(NO_ANSWER, operator_message=f"{method} {path}: the answer is no object")
        return answer


def _phases(
    subscription: records.Json, schedule: records.Json, price: records.Json
) -> tuple[str, list[dict[str, Any]]]:
    """The path of the schedule, and its phases from the present one on: what runs now, to its end; then `price` for one
    interval, after which the schedule lets go."""
    present = schedule["current_phase"]
    phase: dict[str, Any] = {
        "items": [
            {"price": item["price"]["id"], "quantity": item.get("quantity", 1)}
            for item in subscription["items"]["data"]
        ],
        "start_date": present["start_date"],
        "end_date": subscription["items"]["data"][0]["current_period_end"],
        "proration_behavior": "none",
    }
    if subscription["status"] == "trialing":
        phase["trial_end"] = subscription["trial_end"]
    recurring = price["recurring"]
    later = {
        "items": [{"price": price["id"], "quantity": 1}],
        "duration": {"interval": recurring["interval"], "interval_count": recurring["interval_count"]},
        "proration_behavior": "none",
    }
    return _path("subscription_schedules", schedule["id"]), [phase, later]


def _path(*segments: str) -> str:
    return "/".join([segments[0], *(quote(segment, safe="") for segment in segments[1:])])


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _read(reader: Callable[[Any], Record], answer: Any) -> Record:
    try:
        return records.read(reader, answer)
    except records.Unreadable as error:
        raise PaymentUnavailable(NO_ANSWER, operator_message=f"Stripe's answer cannot be read: {error}") from error


def _read_page(reader: Callable[[records.Json], Record], answer: records.Json) -> tuple[tuple[Record, ...], str | None]:
    try:
        return records.read_page(reader, answer)
    except records.Unreadable as error:
        raise PaymentUnavailable(NO_ANSWER, operator_message=f"Stripe's answer cannot be read: {error}") from error
