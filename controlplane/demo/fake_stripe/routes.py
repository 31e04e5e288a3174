"""Every call that is offered under `/v1`, and the parameters that it accepts; a test compares them with Stripe's."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from controlplane.demo.fake_stripe import (
    catalog,
    changes,
    checkout,
    customers,
    events,
    invoices,
    payments,
    portal,
    previews,
    schedules,
    subscriptions,
)
from controlplane.demo.fake_stripe.parameters import Kind, ListOf, Text
from controlplane.demo.fake_stripe.world import Wire, World

Call: TypeAlias = Callable[[World, dict[str, Any], str], Wire]
"""The world, the parameters, and the id in the path ("" where it has none)."""

EXPAND: dict[str, Kind] = {"expand": ListOf(Text(), most=20)}


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    call: Call
    fields: dict[str, Kind] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @property
    def accepts(self) -> dict[str, Kind]:
        return self.fields if self.method == "DELETE" and "customers" in self.path else {**self.fields, **EXPAND}


def _needs(*names: str) -> frozenset[str]:
    return frozenset(names)


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/products", catalog.create_product, catalog.CREATE_PRODUCT, _needs("name")),
    Route("GET", "/v1/prices", catalog.list_prices, catalog.LIST_PRICES),
    Route(
        "POST", "/v1/prices", catalog.create_price, catalog.CREATE_PRICE, _needs("currency", "unit_amount", "product")
    ),
    Route("GET", "/v1/prices/:id", catalog.retrieve_price),
    Route("GET", "/v1/customers", customers.list_, customers.LIST),
    Route("POST", "/v1/customers", customers.create, customers.FIELDS),
    Route("GET", "/v1/customers/search", customers.search, customers.SEARCH, _needs("query")),
    Route("GET", "/v1/customers/:id", customers.retrieve),
    Route("POST", "/v1/customers/:id", customers.update, customers.FIELDS),
    Route("DELETE", "/v1/customers/:id", customers.delete),
    Route("GET", "/v1/checkout/sessions", checkout.list_, checkout.LIST),
    Route("POST", "/v1/checkout/sessions", checkout.create, checkout.CREATE),
    Route("GET", "/v1/checkout/sessions/:id", checkout.retrieve),
    Route("POST", "/v1/checkout/sessions/:id/expire", checkout.expire),
    Route("GET", "/v1/checkout/sessions/:id/line_items", checkout.line_items),
    Route("GET", "/v1/subscriptions", subscriptions.list_, subscriptions.LIST),
    Route("POST", "/v1/subscriptions", subscriptions.create, subscriptions.CREATE, _needs("customer", "items")),
    Route("GET", "/v1/subscriptions/:id", subscriptions.retrieve),
    Route("POST", "/v1/subscriptions/:id", changes.update, changes.UPDATE),
    Route("DELETE", "/v1/subscriptions/:id", subscriptions.cancel, subscriptions.CANCEL),
    Route("POST", "/v1/subscriptions/:id/resume", subscriptions.resume, subscriptions.RESUME),
    Route("GET", "/v1/subscription_schedules", schedules.list_, schedules.LIST),
    Route("POST", "/v1/subscription_schedules", schedules.create, schedules.CREATE, _needs("from_subscription")),
    Route("GET", "/v1/subscription_schedules/:id", schedules.retrieve),
    Route("POST", "/v1/subscription_schedules/:id", schedules.update, schedules.UPDATE),
    Route("POST", "/v1/subscription_schedules/:id/release", schedules.release, schedules.RELEASE),
    Route("POST", "/v1/subscription_schedules/:id/cancel", schedules.cancel, schedules.CANCEL),
    Route("GET", "/v1/invoices", invoices.list_, invoices.LIST),
    Route("POST", "/v1/invoices/create_preview", previews.create, previews.PREVIEW),
    Route("GET", "/v1/invoices/:id", invoices.retrieve),
    Route("POST", "/v1/invoices/:id/pay", payments.pay, payments.PAY),
    Route("POST", "/v1/billing_portal/sessions", portal.create, portal.CREATE, _needs("customer")),
    Route("GET", "/v1/events", events.list_, events.LIST),
    Route("GET", "/v1/events/:id", events.retrieve),
)
"""A fixed path stands before the pattern that it would match too."""

_PATTERNS = tuple((re.compile(route.path.replace(":id", "([^/]+)")), route) for route in ROUTES)


def find(method: str, path: str) -> tuple[Route, str] | None:
    """The route of a request, and the id in its path."""
    for pattern, route in _PATTERNS:
        if route.method == method and (found := pattern.fullmatch(path)):
            return route, found[1] if found.groups() else ""
    return None
