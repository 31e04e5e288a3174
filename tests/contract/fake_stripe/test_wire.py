"""Requests, errors, idempotency, lists and expansion of the fake, driven by the official library."""

from __future__ import annotations

import base64
import json
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest
import stripe

from tests.fake_stripe_process import API_KEY, SMALL, SMALL_YEARLY, FakeStripeProcess
from tests.stripe_driver import Recorder, customer, item_of, library, now, order, subscribed

# -- the wire ---------------------------------------------------------------------------------------------------------


def test_metadata_is_merged_and_an_empty_value_unsets(client: stripe.StripeClient) -> None:
    customer_id = customer(client)
    client.v1.customers.update(customer_id, {"metadata": {"shoe": "42", "user_id": ""}})
    kept = client.v1.customers.retrieve(customer_id).metadata
    assert kept is not None
    assert kept.to_dict() == {"shoe": "42"}


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"shoe_size": "42"}, "parameter_unknown", "shoe_size"),
        ({"items": [{"price": SMALL, "colour": "red"}]}, "parameter_unknown", "items[0][colour]"),
        ({"trial_period_days": "soon"}, "parameter_invalid_integer", "trial_period_days"),
        ({"items": [{"quantity": 1}]}, "parameter_missing", "items[0][price]"),
        ({"items": [{"price": "price_nowhere"}]}, "resource_missing", "items[0][price]"),
        ({"items": [{"price": SMALL}, {"price": SMALL_YEARLY}]}, None, "items"),
        ({"payment_behavior": "hope"}, None, "payment_behavior"),
        ({"off_session": "perhaps"}, None, "off_session"),
        ({"customer": ""}, "parameter_invalid_empty", "customer"),
        ({"customer": "cus_nobody"}, "resource_missing", "customer"),
        ({"expand": ["colour"]}, None, "expand"),
        ({"metadata": "none of it"}, None, "metadata"),
        ({"metadata": {"k" * 41: "v"}}, None, "metadata[" + "k" * 41 + "]"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(
    client: stripe.StripeClient, params: dict[str, Any], code: str | None, param: str
) -> None:
    asked: Any = {"customer": customer(client), "items": [{"price": SMALL}], **params}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.subscriptions.create(asked)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_a_missing_parameter_is_named(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.billing_portal.sessions.create({})
    assert (refused.value.code, refused.value.param) == ("parameter_missing", "customer")


def test_only_the_key_of_the_account_is_accepted(fake: FakeStripeProcess) -> None:
    with pytest.raises(stripe.AuthenticationError):
        library(fake.url, api_key="sk_test_other").v1.prices.list()


def test_basic_authentication_works_too(fake: FakeStripeProcess) -> None:
    credentials = base64.b64encode(f"{API_KEY}:".encode()).decode()
    request = urllib.request.Request(f"{fake.url}/v1/prices", headers={"Authorization": f"Basic {credentials}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["object"] == "list"


def test_another_api_version_is_refused(fake: FakeStripeProcess) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="API version"):
        library(fake.url, stripe_version="2019-01-01").v1.prices.list()


def test_what_is_not_offered_is_a_404(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.v1.coupons.list()


def test_errors_carry_a_request_id_and_a_link(client: stripe.StripeClient, recorder: Recorder) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.subscriptions.retrieve("sub_nothing")
    assert refused.value.http_status == 404
    assert refused.value.request_id == recorder.last.headers["Request-Id"]
    assert refused.value.error is not None
    assert refused.value.error.doc_url == "https://stripe.com/docs/error-codes/resource-missing"


# -- idempotency ------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer_again(client: stripe.StripeClient, recorder: Recorder) -> None:
    options: Any = {"idempotency_key": "order-1"}
    first = client.v1.customers.create({"email": "ada@example.org"}, options)
    original = recorder.last.headers["Request-Id"]
    again = client.v1.customers.create({"email": "ada@example.org"}, options)
    assert again.id == first.id
    assert recorder.last.headers["Idempotent-Replayed"] == "true"
    assert recorder.last.headers["Original-Request"] == original
    assert recorder.last.answer == recorder.exchanges[-2].answer


def test_the_same_key_with_other_parameters_is_refused(client: stripe.StripeClient) -> None:
    client.v1.customers.create({"email": "ada@example.org"}, {"idempotency_key": "order-2"})
    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.create({"email": "eve@example.org"}, {"idempotency_key": "order-2"})


def test_two_requests_at_once_under_one_key_make_one_object(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "method": "POST", "path": "/v1/customers", "seconds": 60})

    def create() -> str:
        try:
            made = library(fake.url).v1.customers.create({"name": "twin"}, {"idempotency_key": "order-3"})
        except stripe.APIError as conflict:
            return f"conflict {conflict.http_status}"
        return made.id

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(create), pool.submit(create)]
        wait(calls, return_when=FIRST_COMPLETED)  # the other one runs until it is let go
        fake.control("mischief", method="DELETE")
        answers = [call.result() for call in calls]
    assert sorted(answer == "conflict 409" for answer in answers) == [False, True]


def test_a_refused_request_leaves_its_key_free(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.create({"colour": "red"}, {"idempotency_key": "order-4"})  # type: ignore[arg-type]
    assert client.v1.customers.create({"email": "ada@example.org"}, {"idempotency_key": "order-4"}).id


def test_a_lost_answer_is_found_under_its_key(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    fake.control("mischief", {"kind": "lost", "method": "POST", "path": "/v1/customers"})
    with pytest.raises(OSError, match=r"without response|reset|closed"):
        client.v1.customers.create({"name": "lost and found"}, {"idempotency_key": "order-5"})
    found = client.v1.customers.create({"name": "lost and found"}, {"idempotency_key": "order-5"})
    named = [one.id for one in client.v1.customers.list({"limit": 100}).data if one.name == "lost and found"]
    assert named == [found.id]


# -- lists and expansion ----------------------------------------------------------------------------------------------


def test_pages_follow_one_another_newest_first(client: stripe.StripeClient) -> None:
    owner = customer(client)
    made = [client.v1.checkout.sessions.create(order(owner)).id for _ in range(7)]
    page = client.v1.checkout.sessions.list({"customer": owner, "limit": 3})
    assert page.has_more
    assert [one.id for one in page.auto_paging_iter()] == made[::-1]
    before = client.v1.checkout.sessions.list({"customer": owner, "limit": 3, "ending_before": made[0]})
    assert [one.id for one in before.data] == [made[3], made[2], made[1]]


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"starting_after": "cus_nobody"}])
def test_a_page_that_cannot_be_is_refused(client: stripe.StripeClient, params: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list(params)


def test_lists_are_narrowed_by_status_and_time(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    kept = subscribed(client)
    ended = client.v1.subscriptions.create({"customer": str(kept.customer), "items": [{"price": SMALL}]})
    client.v1.subscriptions.cancel(ended.id)
    listed = [one.id for one in client.v1.subscriptions.list({"customer": str(kept.customer)}).data]
    everything = client.v1.subscriptions.list({"customer": str(kept.customer), "status": "all"}).data
    assert listed == [kept.id]
    assert {one.id for one in everything} == {kept.id, ended.id}
    since = now(fake) + 1
    assert client.v1.events.list({"created": {"gte": since}}).data == []


def test_ids_expand_to_objects(client: stripe.StripeClient) -> None:
    made = subscribed(client)
    found = client.v1.subscriptions.retrieve(
        made.id, {"expand": ["customer", "latest_invoice.customer", "items.data.price.product"]}
    )
    assert isinstance(found.customer, stripe.Customer)
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert isinstance(found.latest_invoice.customer, stripe.Customer)
    assert item_of(found).price.product.name == "Small"
    listed = client.v1.subscriptions.list({"customer": found.customer.id, "expand": ["data.latest_invoice"]})
    assert listed.data[0].latest_invoice.status == "paid"  # type: ignore[union-attr]


def test_customers_are_found_by_their_metadata(client: stripe.StripeClient) -> None:
    wanted = customer(client, metadata={"user_id": "usr_findme"})
    found = client.v1.customers.search({"query": "metadata['user_id']:'usr_findme'"})
    assert [one.id for one in found.data] == [wanted]
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.search({"query": "whoever"})
