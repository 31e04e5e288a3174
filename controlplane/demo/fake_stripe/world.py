"""The objects as they stand on the wire, the events that tell of their changes, and the alarms of what is due later.

Objects are the very dicts that are answered; `notes` holds what Stripe knows and does not show. Whatever was fetched
during a call or an alarm is compared afterwards with what events have told of it (`settle`): a change that no event of
its own announced becomes `….updated`, with `previous_attributes`.
"""

from __future__ import annotations

import heapq
import random
import string
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import orjson

from controlplane.demo.fake_stripe.cards import Cards, Dunning
from controlplane.demo.fake_stripe.faults import missing

Wire: TypeAlias = dict[str, Any]

API_VERSION = "2026-10-28.endive"
MAX_EVENTS = 20_000

UPDATED_EVENTS = {
    "customer": "customer.updated",
    "subscription": "customer.subscription.updated",
    "subscription_schedule": "subscription_schedule.updated",
    "invoice": "invoice.updated",
}
PREFIXES = {
    "customer": ("cus_", 14),
    "product": ("prod_", 14),
    "price": ("price_1", 23),
    "checkout.session": ("cs_test_a1", 56),
    "subscription": ("sub_1", 23),
    "subscription_item": ("si_", 14),
    "subscription_schedule": ("sub_sched_1", 23),
    "invoice": ("in_1", 23),
    "line_item": ("il_1", 23),
    "preview": ("upcoming_in_1", 23),
    "payment_method": ("pm_1", 23),
    "billing_portal.session": ("bps_1", 23),
    "event": ("evt_1", 23),
    "request": ("req_", 14),
}
KIND_NAMES = {"checkout.session": "checkout.session", "subscription_schedule": "subscription schedule"}
_ALPHABET = string.ascii_letters + string.digits


class World:
    """One Stripe account in test mode. `now` is in seconds since the epoch and only ever set forward."""

    def __init__(self, *, now: int, base_url: str, seed: int | None = None) -> None:
        self.now = now
        self.base_url = base_url
        self.random = random.Random(seed)  # noqa: S311 - ids of pretended objects
        self.objects: dict[str, dict[str, Wire]] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.cards = Cards()
        self.dunning = Dunning()
        self.alarms: list[tuple[int, int, str, str]] = []
        self.request: Wire = {"id": None, "idempotency_key": None}
        self.is_saved = True
        self.on_event: Callable[[Wire], None] = lambda event: None
        self.alarms_set = 0
        self._touched: dict[str, Wire] = {}
        self._shown: dict[str, bytes] = {}

    # -- objects -----------------------------------------------------------------------------------------------------

    def new_id(self, kind: str) -> str:
        prefix, length = PREFIXES[kind]
        return prefix + "".join(self.random.choices(_ALPHABET, k=length))

    def add(self, wire: Wire) -> Wire:
        self.objects.setdefault(wire["object"], {})[wire["id"]] = wire
        return wire

    def get(self, kind: str, object_id: str, param: str = "id") -> Wire:
        """Raises StripeFault 404 `resource_missing`, naming `param`."""
        wire = self.objects.get(kind, {}).get(object_id)
        if wire is None:
            raise missing(KIND_NAMES.get(kind, kind), object_id, param)
        self._touch(wire)
        return wire

    def all(self, kind: str) -> Iterator[Wire]:
        """Newest first."""
        return reversed(self.objects.get(kind, {}).values())

    def note(self, object_id: str) -> dict[str, Any]:
        return self.notes.setdefault(object_id, {})

    def _touch(self, wire: Wire) -> None:
        if wire["object"] in UPDATED_EVENTS and wire["id"] not in self._touched:
            self._touched[wire["id"]] = wire
            self._shown.setdefault(wire["id"], orjson.dumps(wire))

    # -- events ------------------------------------------------------------------------------------------------------

    def emit(self, event_type: str, wire: Wire, previous: Wire | None = None) -> None:
        data: Wire = {"object": orjson.loads(orjson.dumps(wire))}
        if previous is not None:
            data["previous_attributes"] = previous
        event: Wire = {
            "id": self.new_id("event"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now,
            "data": data,
            "livemode": False,
            "pending_webhooks": 1,
            "request": dict(self.request),
            "type": event_type,
        }
        self.add(event)
        kept = self.objects["event"]
        while len(kept) > MAX_EVENTS:
            del kept[next(iter(kept))]
        self.on_event(event)

    def announce(self, event_type: str, wire: Wire) -> None:
        """An event that tells of the whole object: its creation or its end. No `….updated` follows for what it told."""
        self._touched[wire["id"]] = wire
        self._shown[wire["id"]] = orjson.dumps(wire)
        self.emit(event_type, wire)

    def tell_nothing(self, wire: Wire) -> None:
        """What this object has become is no news."""
        self._shown[wire["id"]] = orjson.dumps(wire)

    def settle(self) -> None:
        """Tell of every change that no event has told of yet."""
        self.is_saved = False
        touched, self._touched = self._touched, {}
        for object_id, wire in touched.items():
            present = orjson.dumps(wire)
            shown = self._shown.get(object_id, present)
            if present != shown:
                before = orjson.loads(shown)
                changed = {name: before.get(name) for name, value in wire.items() if before.get(name) != value}
                if changed:
                    self.emit(UPDATED_EVENTS[wire["object"]], wire, changed)
            self._shown[object_id] = present

    # -- time --------------------------------------------------------------------------------------------------------

    def wake(self, at: int | None, wire: Wire) -> None:
        """Have this object looked at when `at` comes; None: never."""
        if at is not None:
            self.alarms_set += 1
            heapq.heappush(self.alarms, (max(at, self.now), self.alarms_set, wire["object"], wire["id"]))
