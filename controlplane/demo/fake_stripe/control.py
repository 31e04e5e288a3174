"""What tests and the demo do to the fake, under `/_control/`. JSON in and out; a wrong body is a 400 that says why.

GET: `state` (time, counts, what is held, waiting, slow), `webhooks` (every attempt), `requests` (every call of the
API), `events` (all that happened, the oldest first, also what the API keeps no longer).

| POST | body | what it does |
|---|---|---|
| clock | `{"freezeAt": s}`, `{"freeze": true}`, `{"advanceSeconds": n}`, `{"advanceTo": s}` | all that is due happens |
| prices | `[{"id", "amount", "currency", "interval", "product"}]` | puts prices on sale |
| cards | `{"outcome": "succeed/decline/action", "customer"?, "times"?}` | without `times`: from now on |
| dunning | `{"retryDays": […], "end": "canceled/unpaid/past_due"}` | how failed payments are retried |
| checkout/:id | `{"outcome": "pay/decline/bank_debit/bank_paid/bank_failed"}` | the person on the page |
| pay-invoice/:id | | the person on the hosted invoice page pays with another card |
| pause/:id | | the operator pauses a subscription |
| objects/:id | `{"set": {…}, "quiet"?: true}` | an object becomes what no call would make of it |
| webhooks | any field of `webhooks.Orders`, in camelCase | how events are delivered |
| release | `{"order"?: "fifo/reversed/shuffled", "seed"?, "duplicateShare"?, "count"?}` | delivers what was held |
| settle | `{"seconds"?}` | waits until nothing is under way |
| send/:id | | delivers an event once more |
| emit | `{"type", "object"}` | an event out of nothing |
| mischief | a `mischief.Mischief`; `times` null: until cleared | what goes wrong with calls |

DELETE `mischief`: no more of it, and what is slow answers now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from tornado.web import RequestHandler

from controlplane.demo.fake_stripe import catalog, checkout, invoices, payments
from controlplane.demo.fake_stripe.api import Account
from controlplane.demo.fake_stripe.cards import EVERYBODY, OUTCOMES, Dunning
from controlplane.demo.fake_stripe.faults import StripeFault, declined
from controlplane.demo.fake_stripe.mischief import KINDS, Mischief
from controlplane.demo.fake_stripe.world import Wire

ENDS = ("canceled", "unpaid", "past_due")
ORDERS = ("fifo", "reversed", "shuffled")


class ControlHandler(RequestHandler):
    def initialize(self, account: Account) -> None:
        self._account = account

    async def get(self, verb: str, object_id: str) -> None:
        reads: dict[str, Callable[[], Any]] = {
            "state": self._state,
            "webhooks": lambda: list(self._account.webhooks.log),
            "requests": lambda: list(self._account.requests),
            "events": lambda: list(self._account.world.objects.get("event", {}).values()),
        }
        if verb not in reads:
            self._reply({"error": f"there is no {verb}"}, 404)
            return
        self._reply(reads[verb]())

    async def post(self, verb: str, object_id: str) -> None:
        try:
            body = orjson.loads(self.request.body or b"{}")
            self._account.clock.tick(self._account.world)
            answer = await self._do(verb, object_id, body)
            self._account.world.settle()
        except StripeFault as fault:
            self._account.world.settle()
            self._reply({"error": fault.message, "code": fault.code}, fault.status)
        except (KeyError, TypeError, ValueError) as error:
            self._reply({"error": f"{verb}: {error!r}"}, 400)
        else:
            self._reply(answer)

    async def delete(self, verb: str, object_id: str) -> None:
        self._account.mischiefs.clear()
        self._reply({})

    async def _do(self, verb: str, object_id: str, body: Any) -> Any:
        if verb == "settle":
            return {"idle": await self._account.webhooks.until_idle(body.get("seconds", 10)), **self._state()}
        verbs: Mapping[str, Callable[[str, Any], Any]] = {
            "clock": self._move_clock,
            "prices": self._add_prices,
            "cards": self._tell_cards,
            "dunning": self._set_dunning,
            "checkout": self._act_on_page,
            "pay-invoice": self._pay_invoice,
            "pause": self._pause,
            "objects": self._set_object,
            "webhooks": self._set_orders,
            "release": self._release,
            "send": self._send,
            "emit": self._emit,
            "mischief": self._add_mischief,
        }
        if verb not in verbs:
            raise StripeFault(f"There is no control {verb!r}.", status=404)
        return verbs[verb](object_id, body)

    def _state(self) -> dict[str, Any]:
        account = self._account
        return {
            "now": account.clock.now(),
            "frozen": account.clock.frozen_at is not None,
            "objects": {kind: len(found) for kind, found in account.world.objects.items()},
            "events": Counter(event["type"] for event in account.world.all("event")),
            "held": account.webhooks.held,
            "waiting": account.webhooks.waiting,
            "slow": account.mischiefs.slow,
        }

    def _move_clock(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        clock = self._account.clock
        if "freezeAt" in body or body.get("freeze"):
            clock.freeze(body.get("freezeAt"))
        if "advanceSeconds" in body or "advanceTo" in body:
            seconds = body.get("advanceSeconds", body.get("advanceTo", 0) - clock.now())
            if seconds < 0:
                raise StripeFault("Time does not go back.")
            clock.advance(int(seconds))
        clock.tick(self._account.world)
        return {"now": clock.now()}

    def _add_prices(self, _: str, body: list[dict[str, Any]]) -> list[Wire]:
        return [offer(self._account, **one) for one in body]

    def _tell_cards(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        _one_of(body["outcome"], OUTCOMES)
        self._account.world.cards.tell(body.get("customer", EVERYBODY), body["outcome"], body.get("times"))
        return {}

    def _set_dunning(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        _one_of(body["end"], ENDS)
        self._account.world.dunning = Dunning(tuple(sorted(body["retryDays"])), body["end"])
        return {}

    def _act_on_page(self, session_id: str, body: dict[str, Any]) -> Wire:
        world = self._account.world
        if body["outcome"] == "decline":
            world.get("checkout.session", session_id)
            raise declined()
        acts: dict[str, Callable[[], Wire]] = {
            "pay": lambda: checkout.pay(world, session_id),
            "bank_debit": lambda: checkout.pay(world, session_id, bank_debit=True),
            "bank_paid": lambda: checkout.bank_answers(world, session_id, paid=True),
            "bank_failed": lambda: checkout.bank_answers(world, session_id, paid=False),
        }
        _one_of(body["outcome"], tuple(acts))
        return acts[body["outcome"]]()

    def _pay_invoice(self, invoice_id: str, _: Any) -> Wire:
        return pay_with_another_card(self._account, invoice_id)

    def _pause(self, subscription_id: str, _: Any) -> Wire:
        subscription = self._account.world.get("subscription", subscription_id)
        subscription["status"] = "paused"
        self._account.world.emit("customer.subscription.paused", subscription)
        return subscription

    def _set_object(self, object_id: str, body: dict[str, Any]) -> Wire:
        world = self._account.world
        for kind, found in world.objects.items():
            if object_id in found:
                wire = world.get(kind, object_id)
                wire.update(body["set"])
                if body.get("quiet"):
                    world.tell_nothing(wire)
                return wire
        raise StripeFault(f"There is no {object_id}.", status=404)

    def _set_orders(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        orders = self._account.webhooks.orders
        names = {
            "urls": "urls",
            "secret": "secret",
            "hold": "hold",
            "concurrency": "concurrency",
            "retrySeconds": "retry_seconds",
            "duplicateShare": "duplicate_share",
            "dropTypes": "drop_types",
            "dropTimes": "drop_times",
            "signsWithClock": "signs_with_clock",
        }
        for name, value in body.items():
            if name not in names:
                raise StripeFault(f"There is no {name!r} to set.")
            setattr(orders, names[name], tuple(value) if isinstance(value, list) and name != "urls" else value)
        return {}

    def _release(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        order = _one_of(body.get("order", "fifo"), ORDERS)
        self._account.webhooks.orders.hold = False
        sent = self._account.webhooks.release(
            order=order,
            seed=body.get("seed", 0),
            duplicate_share=body.get("duplicateShare", 0.0),
            count=body.get("count"),
        )
        return {"sent": sent}

    def _send(self, event_id: str, _: Any) -> dict[str, Any]:
        self._account.webhooks.send(self._account.world.get("event", event_id))
        return {}

    def _emit(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        self._account.world.emit(body["type"], body["object"])
        return {"id": next(self._account.world.all("event"))["id"]}

    def _add_mischief(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        _one_of(body["kind"], KINDS)
        self._account.mischiefs.add(Mischief(**body))
        return {}

    def _reply(self, answer: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(orjson.dumps(answer))


def offer(account: Account, *, id: str, amount: int, currency: str, interval: str, product: str) -> Wire:  # noqa: A002
    """A price of this id, under the product of this name; one that is there already is left alone."""
    world = account.world
    if found := world.objects.get("price", {}).get(id):
        return found
    _one_of(interval, catalog.INTERVALS)
    known = [one for one in world.all("product") if one["name"] == product]
    product_id = (known[0] if known else catalog.add_product(world, product))["id"]
    return catalog.add_price(
        world, product_id=product_id, amount=amount, currency=currency, interval=interval, price_id=id
    )


def pay_with_another_card(account: Account, invoice_id: str) -> Wire:
    """A person pays an open invoice with a card that works, which is kept for the next time."""
    world = account.world
    invoice = world.get("invoice", invoice_id, "invoice")
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    if invoice["status"] != "open":
        raise StripeFault(f"This invoice is {invoice['status']}.")
    keep_card(account, invoice["customer"])
    payments.settle_paid(world, invoice)
    return invoice


def keep_card(account: Account, customer_id: str) -> None:
    """The customer has a card on file that pays."""
    world = account.world
    customer = world.get("customer", customer_id)
    customer["invoice_settings"]["default_payment_method"] = world.new_id("payment_method")
    world.cards.tell(customer_id, "succeed", None)


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise StripeFault(f"{value!r} is not one of {', '.join(allowed)}.")
    return str(value)
