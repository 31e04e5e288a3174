"""The fake Stripe against what Stripe itself says: its description of the API, stripe-mock, and the library's types."""

from __future__ import annotations

import typing
import urllib.error
import urllib.request
from typing import Any

import pytest
import stripe

from controlplane.demo.fake_stripe import routes
from controlplane.demo.fake_stripe.parameters import Clearable, Group, Kind, ListOf, ValueOrGroup
from tests.fake_stripe_process import API_KEY, FakeStripeProcess
from tests.stripe_description import Description
from tests.stripe_driver import Exchange, Recorder, library
from tests.stripe_scene import HANDLED_EVENTS, walk

START = 1_767_225_600
# stripe-mock describes an older API version than the pinned one: what differs, and how it was before.
NEWER_VALUES = {("checkout.session", "ui_mode"): {"hosted_page": "hosted"}}


class Scene(typing.NamedTuple):
    exchanges: list[Exchange]
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    recorder = Recorder()
    with FakeStripeProcess("--freeze-at", str(START), "--seed", "1") as fake:
        client = library(fake.url, recorder)
        walk(fake, client)
        events = fake.events()
    return Scene(recorder.exchanges, events)


def as_described(part: Any) -> Any:
    """The same with the values that the older description knows."""
    if isinstance(part, list):
        return [as_described(one) for one in part]
    if not isinstance(part, dict):
        return part
    kind = str(part.get("object"))
    return {
        name: NEWER_VALUES.get((kind, name), {}).get(value, value) if isinstance(value, str) else as_described(value)
        for name, value in part.items()
    }


def test_the_scene_makes_every_call_and_every_event(scene: Scene) -> None:
    called = [found[0] for one in scene.exchanges if (found := routes.find(one.method, one.path))]
    assert [route for route in routes.ROUTES if route not in called] == []
    assert HANDLED_EVENTS - {event["type"] for event in scene.events} == set()
    assert {400, 402, 404, 429, 500} - {one.status for one in scene.exchanges} == set()


def test_every_answer_is_as_described(scene: Scene, description: Description) -> None:
    problems = [
        f"{one.method} {one.path} {one.status}: {problem}"
        for one in scene.exchanges
        if (
            problem := description.problem(
                as_described(one.answer), description.response_schema(one.method, one.path, one.status)
            )
        )
    ]
    assert problems == []


def test_every_event_is_as_described(scene: Scene, description: Description) -> None:
    """The event itself, and the object that it carries, which the description of events leaves open."""
    problems = []
    for event in scene.events:
        about = event["data"]["object"]
        schema = description.object_schema(about["object"], deleted=about.get("deleted") is True)
        for what, kind in ((event, description.object_schema("event")), (about, schema)):
            if problem := description.problem(as_described(what), kind):
                problems.append(f"{event['type']}: {problem}")
    assert problems == []


def test_a_wrong_answer_would_be_noticed(scene: Scene, description: Description) -> None:
    """The validator is not asleep: what must not pass does not."""
    subscription = next(one.answer for one in scene.exchanges if one.answer.get("object") == "subscription")
    schema = description.object_schema("subscription")
    assert description.problem(subscription, schema) is None
    for wrong in (
        {"status": "fine"},
        {"created": "today"},
        {"cancel_at": "never"},
        {"customer": None},
        {"items": {**subscription["items"], "data": [{"id": "si_1"}]}},
        {"latest_invoice": {"object": "invoice"}},
    ):
        assert description.problem({**subscription, **wrong}, schema), wrong
    assert description.problem({name: value for name, value in subscription.items() if name != "items"}, schema)


def test_stripe_mock_accepts_whatever_the_fake_accepts(scene: Scene, mock_url: str) -> None:
    refused = [
        f"{one.method} {one.path}?{one.query} {one.body}: {answer}"
        for one in scene.exchanges
        if one.status == 200 and (answer := refusal(mock_url, one.method, one.path, one.query, one.body))
    ]
    assert refused == []


def refusal(mock_url: str, method: str, path: str, query: str, body: str | None) -> str | None:
    """What stripe-mock has against a request, or None."""
    request = urllib.request.Request(
        f"{mock_url}{path}" + (f"?{query}" if query else ""),
        data=None if body is None else body.encode(),
        method=method,
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/x-www-form-urlencoded"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.read().decode()}"


@pytest.mark.parametrize("route", routes.ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_parameter_is_offered_that_stripe_does_not_know(route: routes.Route, description: Description) -> None:
    template = description.template(route.method, route.path.replace(":id", "x"))
    described = description.parameters(route.method, template)
    assert unknown(route.accepts, {"properties": described}) == []


def unknown(fields: Any, described: dict[str, Any], above: str = "") -> list[str]:
    """The parameters, nested ones too, that are not in a described object."""
    found = []
    for name, kind in fields.items():
        properties = [one["properties"] for one in alternatives(described) if "properties" in one]
        schemas = [one[name] for one in properties if name in one]
        if not schemas:
            found.append(f"{above}{name}")
        for inner in nested(kind):
            found += unknown(inner.fields, {"anyOf": schemas}, f"{above}{name}.")
    return found


def nested(kind: Kind) -> list[Group]:
    if isinstance(kind, Group):
        return [kind]
    if isinstance(kind, ListOf):
        return nested(kind.item)
    if isinstance(kind, Clearable):
        return nested(kind.inner)
    return [kind.group] if isinstance(kind, ValueOrGroup) else []


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema with its `anyOf` and items taken apart."""
    found = [schema]
    for one in schema.get("anyOf", []):
        found += alternatives(one)
    if "items" in schema:
        found += alternatives(schema["items"])
    return found


PINNED_PARAMETERS = {
    "POST /v1/products": "ProductCreateParams",
    "GET /v1/prices": "PriceListParams",
    "POST /v1/prices": "PriceCreateParams",
    "GET /v1/customers": "CustomerListParams",
    "POST /v1/customers": "CustomerCreateParams",
    "GET /v1/customers/search": "CustomerSearchParams",
    "POST /v1/customers/:id": "CustomerUpdateParams",
    "GET /v1/checkout/sessions": "checkout.SessionListParams",
    "POST /v1/checkout/sessions": "checkout.SessionCreateParams",
    "GET /v1/subscriptions": "SubscriptionListParams",
    "POST /v1/subscriptions": "SubscriptionCreateParams",
    "POST /v1/subscriptions/:id": "SubscriptionUpdateParams",
    "DELETE /v1/subscriptions/:id": "SubscriptionCancelParams",
    "GET /v1/subscription_schedules": "SubscriptionScheduleListParams",
    "POST /v1/subscription_schedules": "SubscriptionScheduleCreateParams",
    "POST /v1/subscription_schedules/:id": "SubscriptionScheduleUpdateParams",
    "POST /v1/subscription_schedules/:id/release": "SubscriptionScheduleReleaseParams",
    "POST /v1/subscription_schedules/:id/cancel": "SubscriptionScheduleCancelParams",
    "GET /v1/invoices": "InvoiceListParams",
    "POST /v1/invoices/create_preview": "InvoiceCreatePreviewParams",
    "POST /v1/invoices/:id/pay": "InvoicePayParams",
    "POST /v1/billing_portal/sessions": "billing_portal.SessionCreateParams",
    "GET /v1/events": "EventListParams",
}


@pytest.mark.parametrize("route", routes.ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_parameter_is_offered_that_the_pinned_version_does_not_know(route: routes.Route) -> None:
    """The library's own types are of the version that is pinned."""
    name = PINNED_PARAMETERS.get(f"{route.method} {route.path}")
    if name is None:
        assert set(route.accepts) <= {"expand", "billing_cycle_anchor", "proration_behavior"}
        return
    place: Any = stripe.params
    for part in name.split("."):
        place = getattr(place, part)
    assert set(route.accepts) <= set(place.__annotations__)
