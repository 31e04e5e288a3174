"""Billing portal sessions: where a customer changes the card and reads invoices."""

from __future__ import annotations

from typing import Any

from controlplane.demo.fake_stripe import customers
from controlplane.demo.fake_stripe.parameters import Kind, Text
from controlplane.demo.fake_stripe.world import Wire, World

CREATE: dict[str, Kind] = {"customer": Text(), "return_url": Text(), "configuration": Text(), "locale": Text()}


def create(world: World, params: dict[str, Any], _: str) -> Wire:
    customers.live(world, params["customer"], "customer")
    session_id = world.new_id("billing_portal.session")
    return world.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": params.get("configuration", "bpc_1FakeStripeDefault"),
            "created": world.now,
            "customer": params["customer"],
            "flow": None,
            "livemode": False,
            "locale": params.get("locale"),
            "on_behalf_of": None,
            "return_url": params.get("return_url"),
            "url": f"{world.base_url}/portal/{session_id}",
        }
    )
