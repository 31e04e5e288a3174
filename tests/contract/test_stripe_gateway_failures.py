"""The gateway when Stripe is slow, away, wrong, hostile, or not Stripe at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import pytest
import stripe
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.testing import bind_unused_port

from controlplane.billing.stripe_gateway import API_VERSION
from controlplane.billing.stripe_http import REQUESTS_AT_ONCE, WAITING_LIMIT
from controlplane.errors import (
    PaymentBusy,
    PaymentMisconfigured,
    PaymentRefused,
    PaymentUnavailable,
)
from tests.fake_stripe_process import API_KEY, SMALL, FakeStripeProcess
from tests.refagent_process import until
from tests.stripe_gateways import gateway_to, serving


@pytest.fixture(scope="module")
def process() -> Iterator[FakeStripeProcess]:
    with FakeStripeProcess() as fake:
        yield fake


@pytest.fixture
def fake(process: FakeStripeProcess) -> Iterator[FakeStripeProcess]:
    yield process
    process.control("cards", {"outcome": "succeed"})
    process.control("mischief", method="DELETE")


def posts(fake: FakeStripeProcess, key: str) -> list[dict[str, Any]]:
    return [one for one in fake.requests() if one["idempotencyKey"] == key]


@pytest.mark.parametrize("kind", ["lost", "reset"])
@pytest.mark.gen_test
async def test_a_connection_that_ends_is_tried_again_under_the_same_key(fake: FakeStripeProcess, kind: str) -> None:
    fake.control("mischief", {"kind": kind, "method": "POST", "path": "/v1/customers"})
    async with gateway_to(fake.url) as gateway:
        before = fake.state()["objects"].get("customer", 0)
        assert await gateway.create_customer(user_id=kind, email=f"{kind}@example.org", key=f"{kind}-1")
        assert fake.state()["objects"]["customer"] == before + 1
    statuses = [one["status"] for one in posts(fake, f"{kind}-1")]
    assert statuses == ([0, 200] if kind == "lost" else [200])


@pytest.mark.parametrize(
    ("mischief", "failure", "calls"),
    [
        ({"kind": "error", "status": 503}, PaymentUnavailable, 3),
        ({"kind": "error", "status": 429}, PaymentUnavailable, 1),
        ({"kind": "garbage"}, PaymentUnavailable, 1),
        ({"kind": "reset"}, PaymentUnavailable, 0),
    ],
)
@pytest.mark.gen_test
async def test_no_answer_that_can_be_believed_leaves_the_outcome_open(
    fake: FakeStripeProcess, mischief: dict[str, Any], failure: type[Exception], calls: int
) -> None:
    fake.control("mischief", {**mischief, "path": "/v1/subscriptions", "times": None})
    before = len(fake.requests())
    async with gateway_to(fake.url) as gateway:
        with pytest.raises(failure) as failed:
            await gateway.retrieve_subscription("sub_1")
        assert "sub_1" not in str(failed.value)
    assert len(fake.requests()) - before == calls


@pytest.mark.gen_test
async def test_a_failure_that_stripe_keeps_under_a_key_asks_for_another_key(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "error", "status": 500, "method": "POST", "path": "/v1/customers"})
    async with gateway_to(fake.url) as gateway:
        who = {"user_id": "spent", "email": "spent@example.org"}
        with pytest.raises(PaymentUnavailable):
            await gateway.create_customer(**who, key="spent-1")
        with pytest.raises(PaymentRefused) as spent:
            await gateway.create_customer(**who, key="spent-1")
        assert spent.value.reason == "key_is_spent"
        assert await gateway.create_customer(**who, key="spent-2")


@pytest.mark.gen_test
async def test_a_wrong_key_is_the_operators_business(fake: FakeStripeProcess) -> None:
    async with gateway_to(fake.url, key="sk_test_wrong") as gateway:
        with pytest.raises(PaymentMisconfigured) as refused:
            await gateway.retrieve_subscription("sub_1")
    assert "sk_test_wrong" not in refused.value.operator_message
    assert "key" in refused.value.operator_message


@pytest.mark.gen_test
async def test_a_slow_answer_is_given_up(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 60, "path": "/v1/prices", "times": None})
    async with gateway_to(fake.url, timeout_seconds=0.3) as gateway:
        with pytest.raises(PaymentUnavailable):
            await gateway.retrieve_price(SMALL)


@pytest.mark.gen_test
async def test_who_finds_the_waiting_room_full_is_told_at_once(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 60, "path": "/v1/prices", "times": None})
    async with gateway_to(fake.url, timeout_seconds=50) as gateway:
        room = REQUESTS_AT_ONCE + WAITING_LIMIT
        calls = [asyncio.create_task(gateway.retrieve_price(SMALL)) for _ in range(room + 5)]

        async def has_refused() -> bool:
            return sum(call.done() for call in calls) == 5

        await until(has_refused)
        fake.control("mischief", method="DELETE")
        answers = await asyncio.gather(*calls, return_exceptions=True)
    busy = [one for one in answers if isinstance(one, PaymentBusy)]
    assert len(busy) == 5
    assert len([one for one in answers if one is not None and not isinstance(one, BaseException)]) == room


@pytest.mark.gen_test
async def test_callers_who_leave_give_their_turns_back(fake: FakeStripeProcess) -> None:
    fake.control("mischief", {"kind": "slow", "seconds": 0.5, "path": "/v1/prices", "times": REQUESTS_AT_ONCE})
    async with gateway_to(fake.url) as gateway:
        calls = [asyncio.create_task(gateway.retrieve_price(SMALL)) for _ in range(REQUESTS_AT_ONCE * 2)]
        await asyncio.sleep(0)  # let them take their places
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        found = await asyncio.gather(*(gateway.retrieve_price(SMALL) for _ in range(REQUESTS_AT_ONCE * 2)))
    assert {one.id for one in found if one is not None} == {SMALL}


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        ({"Location": "/v1/prices/elsewhere"}, b"", "302"),
        ({"Content-Length": str(1 << 40)}, b"{", "Maximum file size"),
        ({"Transfer-Encoding": "chunked"}, b"x" * (5 << 20), "file size"),
        ({}, b"[]", "no object"),
        ({}, b'{"object": "price", "id": 7}', "no price"),
        ({}, b"\xff\xfe", "Invalid response body"),
        ({}, b"[" * 100_000, "Invalid response body"),
    ],
)
@pytest.mark.gen_test
async def test_an_answer_that_breaks_the_rules_is_not_believed(headers: dict[str, str], body: bytes, why: str) -> None:
    asked: list[str | None] = []

    def answer(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.path)
        length = {} if {"Content-Length", "Transfer-Encoding"} & headers.keys() else {"Content-Length": str(len(body))}
        return 302 if "Location" in headers else 200, {**headers, **length}, body

    async with serving(answer) as url, gateway_to(url) as gateway:
        with pytest.raises(PaymentUnavailable) as failed:
            await gateway.retrieve_price("price_1")
    assert why in failed.value.operator_message
    assert set(asked) == {"/v1/prices/price_1"}


@pytest.mark.gen_test
async def test_a_server_that_no_authority_vouches_for_gets_no_key(tmp_path: Path) -> None:
    seen: list[HTTPServerRequest] = []
    sockets, port = bind_unused_port()
    server = HTTPServer(seen.append, ssl_options=_own_certificate(tmp_path))
    server.add_socket(sockets)
    async with gateway_to(f"https://127.0.0.1:{port}") as gateway:
        with pytest.raises(PaymentUnavailable) as failed:
            await gateway.retrieve_price(SMALL)
    server.stop()
    assert "certificate" in failed.value.operator_message
    assert seen == []


def _own_certificate(folder: Path) -> ssl.SSLContext:
    """For 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.gen_test
async def test_no_proxy_of_the_environment_is_asked(fake: FakeStripeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with gateway_to(fake.url) as gateway:
        assert await gateway.retrieve_price(SMALL) is not None


@pytest.mark.gen_test
async def test_a_request_names_its_version_and_its_key_and_tells_nothing_of_the_machine() -> None:
    seen: list[HTTPServerRequest] = []

    def answer(request: HTTPServerRequest) -> tuple[int, dict[str, str], bytes]:
        seen.append(request)
        body = b'{"id": "cus_1"}'
        return 200, {"Content-Length": str(len(body)), "Request-Id": "req_1"}, body

    async with serving(answer) as url, gateway_to(url) as gateway:
        for key in ("k1", "k2"):  # telemetry would go along with the second request
            await gateway.create_customer(user_id="usr_1", email="ada@example.org", key=key)
    assert [request.headers["Idempotency-Key"] for request in seen] == ["k1", "k2"]
    headers = seen[1].headers
    assert headers["Stripe-Version"] == API_VERSION == stripe.api_version
    assert headers["Authorization"] == f"Bearer {API_KEY}"
    assert "X-Stripe-Client-Telemetry" not in headers
    assert {"platform", "telemetry_id"} & orjson.loads(headers["X-Stripe-Client-User-Agent"]).keys() == set()
