"""The line before Stripe: who waits, for how long, and who is sent away."""

from __future__ import annotations

import asyncio

import pytest
import stripe

from controlplane.billing.stripe_http import RequestLine, TornadoStripeClient
from controlplane.errors import ConfigurationError, PaymentBusy


async def until_waiting(turns: RequestLine, number: int) -> None:
    while turns.waiting != number:  # noqa: ASYNC110 - a few turns of the loop, no time passes
        await asyncio.sleep(0)


@pytest.mark.gen_test(timeout=60)
async def test_turns_come_in_the_order_of_asking() -> None:
    turns = RequestLine(1, 10)
    await turns.take(seconds=1)
    order: list[int] = []

    async def wait(number: int) -> None:
        await turns.take(seconds=60)
        order.append(number)
        turns.give_back()

    waiting = []
    for number in range(3):
        waiting.append(asyncio.create_task(wait(number)))
        await until_waiting(turns, number + 1)
    turns.give_back()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]


@pytest.mark.gen_test(timeout=60)
async def test_a_full_line_refuses_at_once() -> None:
    turns = RequestLine(1, 1)
    await turns.take(seconds=1)
    waiting = asyncio.create_task(turns.take(seconds=60))
    await until_waiting(turns, 1)
    with pytest.raises(PaymentBusy, match="many are waiting"):
        await turns.take(seconds=60)
    turns.give_back()
    await waiting


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_too_long_leaves_the_line() -> None:
    turns = RequestLine(1, 10)
    await turns.take(seconds=1)
    with pytest.raises(PaymentBusy):
        await turns.take(seconds=0.01)
    assert turns.waiting == 0
    turns.give_back()
    await turns.take(seconds=0.01)


@pytest.mark.gen_test(timeout=60)
async def test_a_turn_given_to_one_who_has_just_left_goes_on_to_the_next() -> None:
    turns = RequestLine(1, 10)
    await turns.take(seconds=1)
    leaving = asyncio.create_task(turns.take(seconds=60))
    staying = asyncio.create_task(turns.take(seconds=60))
    await until_waiting(turns, 2)
    turns.give_back()  # the first in line has its turn, but has not run yet
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await staying
    assert turns.waiting == 0


@pytest.mark.gen_test(timeout=60)
async def test_a_turn_passes_over_one_who_was_canceled_and_has_not_run_yet() -> None:
    turns = RequestLine(1, 10)
    await turns.take(seconds=1)
    leaving = asyncio.create_task(turns.take(seconds=60))
    staying = asyncio.create_task(turns.take(seconds=60))
    await until_waiting(turns, 2)
    leaving.cancel()
    turns.give_back()
    await staying
    await asyncio.gather(leaving, return_exceptions=True)
    turns.give_back()
    await turns.take(seconds=0.01)


def test_a_build_without_certificates_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "ca_bundle_path", "/nowhere/ca-certificates.crt")
    with pytest.raises(ConfigurationError, match="certificates"):
        TornadoStripeClient(timeout_seconds=1)


@pytest.mark.gen_test(timeout=60)
async def test_a_blocking_call_fails_loudly() -> None:
    http = TornadoStripeClient(timeout_seconds=1)
    client = stripe.StripeClient("sk_test_1", http_client=http, base_addresses={"api": "http://127.0.0.1:9"})
    with pytest.raises(NotImplementedError):
        client.v1.prices.list()
    await http.close_async()
