"""The fake as a program: its command line, its control calls, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from tests.announced_process import ROOT
from tests.fake_stripe_process import SMALL, FakeStripeProcess
from tests.stripe_driver import customer, library, order, subscribed, visit
from tests.stripe_endpoint import Endpoint


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.demo.fake_stripe", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "price",
    ["", "price_1", "price_1=9:eur", "price_1=nine:eur:month:Small", "price_1=9:eur:moon:Small", "=9:eur:month:S"],
)
def test_a_price_that_is_none_is_refused(price: str) -> None:
    refused = run("--port", "0", "--price", price)
    assert refused.returncode == 2
    assert "ID=AMOUNT:CURRENCY:INTERVAL:PRODUCT" in refused.stderr


def test_a_port_that_is_taken_ends_it_with_a_sentence(fake: FakeStripeProcess) -> None:
    refused = run("--port", str(urlsplit(fake.url).port))
    assert refused.returncode == 1
    assert "cannot listen" in refused.stderr


def test_it_ends_in_order() -> None:
    with FakeStripeProcess() as fake:
        fake.process.terminate()
        assert fake.process.wait(60) == 0


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("clock", {"advanceSeconds": -1}),
        ("clock", {"advanceSeconds": "soon"}),
        ("cards", {"outcome": "maybe"}),
        ("dunning", {"retryDays": [1], "end": "happy"}),
        ("prices", [{"id": "price_x", "amount": 1, "currency": "eur", "interval": "moon", "product": "X"}]),
        ("prices", [{"id": "price_x"}]),
        ("checkout/cs_nothing", {"outcome": "pay"}),
        ("webhooks", {"colour": "red"}),
        ("release", {"order": "alphabetical"}),
        ("mischief", {"kind": "flood"}),
        ("mischief", {"kind": "slow", "colour": "red"}),
        ("objects/sub_nothing", {"set": {}}),
        ("dance", {}),
    ],
)
def test_a_control_call_that_makes_no_sense_says_why(fake: FakeStripeProcess, verb: str, body: Any) -> None:
    with pytest.raises(AssertionError, match=r"(400|404) \{\"error\":"):
        fake.control(verb, body)


def test_the_same_seed_gives_the_same_ids() -> None:
    def ids() -> list[str]:
        with FakeStripeProcess("--seed", "7", "--freeze-at", "1767225600") as fake:
            return [event["id"] for event in fake.events()] + [customer(library(fake.url))]

    assert ids() == ids()


def test_time_runs_unless_it_is_frozen(fake: FakeStripeProcess) -> None:
    with FakeStripeProcess() as running:
        before = running.advance(days=40)
        assert running.state()["now"] >= before
        assert not running.state()["frozen"]
        running.control("clock", {"freeze": True})
        assert running.state()["frozen"]
    assert fake.state()["frozen"]


def test_an_object_can_become_what_no_call_would_make_of_it(
    fake: FakeStripeProcess, client: stripe.StripeClient
) -> None:
    made = subscribed(client)
    told = len(fake.events())
    fake.control(f"objects/{made.id}", {"set": {"status": "hibernating"}, "quiet": True})
    assert client.v1.subscriptions.retrieve(made.id).status == "hibernating"
    assert len(fake.events()) == told


@pytest.mark.parametrize("page", ["/pay/nothing", "/invoice/nothing", "/portal/nothing"])
def test_a_page_of_nothing_is_a_404(fake: FakeStripeProcess, page: str) -> None:
    assert visit(fake.url + page)[0] == 404


def test_pages_show_names_as_text(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    fake.control(
        "prices",
        [{"id": "price_evil", "amount": 100, "currency": "eur", "interval": "month", "product": "<script>1</script>"}],
    )
    session = client.v1.checkout.sessions.create(
        order(customer(client), line_items=[{"price": "price_evil", "quantity": 1}])
    )
    assert session.url is not None
    page = visit(session.url)[2]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_body_that_is_no_form_is_refused(fake: FakeStripeProcess) -> None:
    request = urllib.request.Request(
        f"{fake.url}/v1/customers",
        data=b'{"email": "ada@example.org"}',
        headers={"Authorization": "Bearer sk_test_fake", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value:
        assert refused.value.code == 400


def test_a_first_payment_is_answered_by_one_card_only(fake: FakeStripeProcess, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order(customer(client)))
    owner = str(session.customer)
    fake.control("cards", {"customer": owner, "outcome": "succeed", "times": 1})
    fake.control("cards", {"customer": owner, "outcome": "decline", "times": 1})
    paid = fake.pay(session.id)
    assert client.v1.subscriptions.retrieve(paid["subscription"]).status == "active"
    with pytest.raises(stripe.CardError):
        client.v1.subscriptions.create(
            {
                "customer": owner,
                "items": [{"price": SMALL}],
                "default_payment_method": "pm_card_visa",
                "payment_behavior": "error_if_incomplete",
            }
        )


def test_an_account_outlives_its_process(tmp_path: Path) -> None:
    state = ("--state-file", str(tmp_path / "account.json"))
    with FakeStripeProcess(*state) as fake:
        client = library(fake.url)
        made = subscribed(client)
        fake.control("cards", {"customer": str(made.customer), "outcome": "decline"})
        later = fake.advance(days=3)
    with FakeStripeProcess(*state) as fake:
        client = library(fake.url)
        assert fake.state()["now"] >= later
        found = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
        assert (found.status, found.latest_invoice.status) == ("active", "paid")  # type: ignore[union-attr]
        fake.advance(days=40)
        assert client.v1.subscriptions.retrieve(made.id).status == "past_due"


def test_what_was_not_delivered_is_delivered_after_the_next_start(tmp_path: Path, endpoint: Endpoint) -> None:
    state = ("--state-file", str(tmp_path / "account.json"))
    with FakeStripeProcess(*state) as fake:
        made = customer(library(fake.url))
    with FakeStripeProcess(*state, "--webhook-url", endpoint.url) as fake:
        assert fake.settle()
    assert [event.data.object["id"] for event in endpoint.events()] == [made]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 7}', b'{"version": 1}'])
def test_a_state_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "account.json"
    file.write_bytes(content)
    refused = run("--port", "0", "--state-file", str(file))
    assert refused.returncode == 1
    assert str(file) in refused.stderr
