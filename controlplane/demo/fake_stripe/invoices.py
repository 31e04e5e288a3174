"""Invoices: their shape, their lines, and their way from draft to open to paid or void. Who pays is in `payments`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.listing import PAGE, listed, page
from controlplane.demo.fake_stripe.parameters import Choice, Kind, Text
from controlplane.demo.fake_stripe.world import Wire, World

DRAFT_SECONDS = 3600  # a renewal's invoice may still be changed for about an hour before it is charged
LIST: dict[str, Kind] = {
    **PAGE,
    "customer": Text(),
    "subscription": Text(),
    "status": Choice(("draft", "open", "paid", "uncollectible", "void")),
}


def retrieve(world: World, _: dict[str, Any], invoice_id: str) -> Wire:
    return world.get("invoice", invoice_id, "invoice")


def list_(world: World, params: dict[str, Any], _: str) -> Wire:
    def keep(invoice: Wire) -> bool:
        return (
            params.get("customer") in (None, invoice["customer"])
            and params.get("subscription") in (None, subscription_id(invoice))
            and params.get("status") in (None, invoice["status"])
        )

    return page(world, "invoice", params, "/v1/invoices", keep)


def draft(world: World, subscription: Wire, lines: list[Wire], reason: str) -> Wire:
    """A stored draft for a subscription, which becomes its latest invoice. `reason` is `billing_reason`."""
    invoice = world.add(shape(world, subscription, lines, reason, invoice_id=world.new_id("invoice")))
    subscription["latest_invoice"] = invoice["id"]
    world.announce("invoice.created", invoice)
    return invoice


def shape(world: World, subscription: Wire, lines: list[Wire], reason: str, *, invoice_id: str) -> Wire:
    """An invoice that is not stored. `lines` come from `line`."""
    customer = world.get("customer", subscription["customer"], "customer")
    total = sum(one["amount"] for one in lines)
    for one in lines:
        one["invoice"] = invoice_id
    invoice = {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "DE",
        "account_name": "Demo Hosting",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": subscription["collection_method"],
        "created": world.now,
        "currency": subscription["currency"],
        "custom_fields": None,
        "customer": customer["id"],
        "customer_address": None,
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": listed(lines, f"/v1/invoices/{invoice_id}/lines"),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": max((one["period"]["end"] for one in lines), default=world.now),
        "period_start": min((one["period"]["start"] for one in lines), default=world.now),
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": customer["balance"],
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "test_clock": None,
        "total": total,
        "total_discount_amounts": [],
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
    }
    set_due(invoice, customer["balance"])
    return invoice


def set_due(invoice: Wire, balance: int) -> int:
    """What is left to pay after the customer's credit (a negative balance); the balance afterwards."""
    applied: int = invoice["total"] + balance
    invoice["starting_balance"] = balance
    invoice["amount_due"] = invoice["amount_remaining"] = max(0, applied)
    return min(0, applied)


def line(world: World, item: Wire, *, amount: int, description: str, start: int, end: int, proration: bool) -> Wire:
    """One line of an invoice, for a subscription's item."""
    price = item["price"]
    return {
        "id": world.new_id("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": proration,
                "proration_details": {"credited_items": None},
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
        "period": {"end": end, "start": start},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": item["quantity"],
        "subscription": item["subscription"],
        "subtotal": amount,
        "taxes": [],
    }


def full_lines(world: World, subscription: Wire, *, trial: bool = False) -> list[Wire]:
    """What the present period costs; nothing in a trial."""
    start, end = records.period(subscription)
    return [
        line(
            world,
            item,
            amount=0 if trial else item["price"]["unit_amount"] * item["quantity"],
            description=f"Trial period for {name(world, item)}"
            if trial
            else f"{item['quantity']} × {name(world, item)}",
            start=start,
            end=end,
            proration=False,
        )
        for item in subscription["items"]["data"]
    ]


def name(world: World, item: Wire) -> str:
    """The product's name, as lines show it."""
    product = world.objects.get("product", {}).get(item["price"]["product"])
    return str(product["name"] if product else item["price"]["id"])


def finalize(world: World, invoice: Wire) -> None:
    """No line can change any more; it can be paid now."""
    customer = world.get("customer", invoice["customer"], "customer")
    if not customer.get("deleted"):
        customer["balance"] = invoice["ending_balance"] = set_due(invoice, customer["balance"])
        sequence = customer["next_invoice_sequence"]
        customer["next_invoice_sequence"] = sequence + 1
        invoice["number"] = f"{customer['invoice_prefix']}-{sequence:04}"
    invoice["status"] = "open"
    invoice["automatically_finalizes_at"] = None
    invoice["effective_at"] = invoice["status_transitions"]["finalized_at"] = world.now
    invoice["hosted_invoice_url"] = f"{world.base_url}/invoice/{invoice['id']}"
    invoice["invoice_pdf"] = f"{world.base_url}/invoice/{invoice['id']}/pdf"
    world.announce("invoice.finalized", invoice)


def mark_paid(world: World, invoice: Wire) -> None:
    invoice.update(
        status="paid",
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
    )
    invoice["status_transitions"]["paid_at"] = world.now
    world.announce("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)


def void(world: World, invoice: Wire) -> None:
    invoice.update(status="void", auto_advance=False, next_payment_attempt=None)
    invoice["status_transitions"]["voided_at"] = world.now
    world.announce("invoice.voided", invoice)


def subscription_id(invoice: Wire) -> str | None:
    parent = invoice["parent"]
    found: str | None = parent["subscription_details"]["subscription"] if parent else None
    return found


def finalizes_at(world: World, invoice: Wire) -> None:
    """Let it stay a draft for the usual while."""
    invoice["automatically_finalizes_at"] = world.now + DRAFT_SECONDS
    world.wake(invoice["automatically_finalizes_at"], invoice)


def day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%d %b %Y")
