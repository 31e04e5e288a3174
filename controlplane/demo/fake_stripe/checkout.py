"""Checkout sessions in subscription mode: a hosted page on which a person pays, and what comes of it.

The subscription is made after the payment, as since API version 2025-03-31.
"""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import customers, invoices, payments, subscriptions
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.faults import StripeFault, declined
from controlplane.demo.fake_stripe.listing import PAGE, listed, page
from controlplane.demo.fake_stripe.parameters import Choice, Flag, Group, Kind, ListOf, Metadata, Number, Text
from controlplane.demo.fake_stripe.world import Wire, World

LIFETIME_SECONDS = 86_400
MIN_LIFETIME_SECONDS = 1800
CREATE: dict[str, Kind] = {
    "mode": Choice(("payment", "setup", "subscription")),
    "line_items": ListOf(Group({"price": Text(), "quantity": Number(1)}), most=20),
    "customer": Text(),
    "customer_email": Text(),
    "client_reference_id": Text(),
    "success_url": Text(),
    "cancel_url": Text(),
    "expires_at": Number(),
    "locale": Text(),
    "allow_promotion_codes": Flag(),
    "payment_method_collection": Choice(("always", "if_required")),
    "metadata": Metadata(),
    "subscription_data": Group(
        {
            "metadata": Metadata(),
            "trial_period_days": Number(1, 730),
            "trial_settings": subscriptions.TRIAL_SETTINGS,
            "description": Text(),
        }
    ),
}
LIST: dict[str, Kind] = {
    **PAGE,
    "customer": Text(),
    "subscription": Text(),
    "status": Choice(("complete", "expired", "open")),
}


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    if params.get("mode") != "subscription":
        raise StripeFault("Only `mode=subscription` is offered here.", param="mode")
    if "success_url" not in params:
        raise StripeFault("Missing required param: success_url.", code="parameter_missing", param="success_url")
    if "customer" in params and "customer_email" in params:
        raise StripeFault("You may only specify one of these parameters: customer, customer_email.", param="customer")
    if "customer" in params:
        customers.live(world, params["customer"], "customer")
    prices = records.read_prices(world, params.get("line_items", []), "line_items")
    expires_at = params.get("expires_at", world.now + LIFETIME_SECONDS)
    if not world.now + MIN_LIFETIME_SECONDS <= expires_at <= world.now + LIFETIME_SECONDS:
        raise StripeFault("`expires_at` must be between 30 minutes and 24 hours from now.", param="expires_at")
    session = world.add(_shape(world, params, prices, expires_at))
    note = world.note(session["id"])
    note["prices"] = [(price["id"], quantity) for price, quantity in prices]
    note["data"] = params.get("subscription_data", {})
    note["line_items"] = [_line_item(world, price, quantity) for price, quantity in prices]
    world.wake(expires_at, session)
    return session


def retrieve(world: World, _: dict[str, Any], session_id: str) -> Wire:
    return world.get("checkout.session", session_id, "session")


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    wanted = {name: params[name] for name in ("customer", "subscription", "status") if name in params}
    return page(
        world,
        "checkout.session",
        params,
        "/v1/checkout/sessions",
        lambda session: all(session[name] == value for name, value in wanted.items()),
    )


def line_items(world: World, _: dict[str, Any], session_id: str) -> Wire:
    world.get("checkout.session", session_id, "session")
    return listed(world.note(session_id)["line_items"], f"/v1/checkout/sessions/{session_id}/line_items")


def expire(world: World, _: dict[str, Any], session_id: str) -> Wire:
    session = world.get("checkout.session", session_id, "session")
    if session["status"] != "open":
        raise StripeFault(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
            f"`{session['status']}`.",
            param="session",
        )
    _expire(world, session)
    return session


def look(world: World, session: Wire) -> None:
    """An alarm: nobody has paid in time."""
    if session["status"] == "open" and world.now >= session["expires_at"]:
        _expire(world, session)


def pay(world: World, session_id: str, *, bank_debit: bool = False) -> Wire:
    """The person on the page pays; `bank_debit` is answered by the bank days later (`bank_answers`).

    Raises StripeFault 402 when the card declines: the session stays open.
    """
    session = world.get("checkout.session", session_id, "session")
    if session["status"] != "open":
        raise StripeFault(f"This Checkout Session is {session['status']}.", param="session")
    data = world.note(session_id)["data"]
    trial_days = data.get("trial_period_days")
    if not trial_days and not bank_debit and world.cards.answer(session["customer"] or "") != "succeed":
        raise declined()
    if session["customer"] is None:
        session["customer"] = customers.create(world, {"email": session["customer_email"]}, "")["id"]
    card_needed = not trial_days or session["payment_method_collection"] != "if_required"
    prices = [(world.get("price", price_id), quantity) for price_id, quantity in world.note(session_id)["prices"]]
    subscription = subscriptions.start(
        world,
        customer_id=session["customer"],
        prices=prices,
        trial_end=world.now + trial_days * 86_400 if trial_days else None,
        metadata=data.get("metadata") or {},
        card="pm_card_visa" if card_needed else None,
        trial_settings=data.get("trial_settings"),
        payment="later" if bank_debit else "made",
    )
    subscription["description"] = data.get("description")
    customer = world.get("customer", session["customer"], "customer")
    session.update(
        status="complete",
        url=None,
        subscription=subscription["id"],
        invoice=subscription["latest_invoice"],
        payment_status="unpaid" if bank_debit else "no_payment_required" if trial_days else "paid",
        customer_details={
            "address": None,
            "email": customer["email"],
            "name": customer["name"],
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
    )
    world.emit("checkout.session.completed", session)
    return session


def bank_answers(world: World, session_id: str, *, paid: bool) -> Wire:
    """A bank debit went through, or came back."""
    session = world.get("checkout.session", session_id, "session")
    invoice = world.get("invoice", session["invoice"] or "", "invoice")
    if invoice["status"] != "open":
        raise StripeFault("No bank debit is under way.", param="session")
    if paid:
        session["payment_status"] = "paid"
        payments.settle_paid(world, invoice)
        world.emit("checkout.session.async_payment_succeeded", session)
    else:
        payments.fail(world, invoice)
        world.emit("checkout.session.async_payment_failed", session)
    return session


def _expire(world: World, session: Wire) -> None:
    session.update(status="expired", url=None)
    world.emit("checkout.session.expired", session)


def _line_item(world: World, price: Wire, quantity: int) -> Wire:
    amount = price["unit_amount"] * quantity
    return {
        "id": "li_" + world.new_id("subscription_item").removeprefix("si_"),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": invoices.name(world, {"price": price}),
        "metadata": {},
        "price": dict(price),
        "quantity": quantity,
    }


def _shape(world: World, params: dict[str, Any], prices: list[tuple[Wire, int]], expires_at: int) -> Wire:
    session_id = world.new_id("checkout.session")
    total = (
        0
        if params.get("subscription_data", {}).get("trial_period_days")
        else sum(price["unit_amount"] * quantity for price, quantity in prices)
    )
    return {
        "id": session_id,
        "object": "checkout.session",
        "after_expiration": None,
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "consent": None,
        "consent_collection": None,
        "created": world.now,
        "currency": prices[0][0]["currency"],
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": params.get("customer"),
        "customer_creation": None if "customer" in params else "always",
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "discounts": [],
        "expires_at": expires_at,
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": params.get("metadata") or {},
        "mode": "subscription",
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": params.get("payment_method_collection", "always"),
        "payment_method_options": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{world.base_url}/pay/{session_id}",
    }
