"""One fake for each module of these tests: every test has customers of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import stripe

from tests.fake_stripe_process import FakeStripeProcess
from tests.stripe_driver import Recorder, library
from tests.stripe_endpoint import Endpoint

START = 1_767_225_600  # 2026-01-01


@pytest.fixture(scope="module")
def process() -> Iterator[FakeStripeProcess]:
    with FakeStripeProcess("--freeze-at", str(START)) as fake:
        yield fake


@pytest.fixture
def fake(process: FakeStripeProcess) -> Iterator[FakeStripeProcess]:
    """One process for the whole module; each test has customers of its own."""
    process.control("dunning", {"retryDays": [3, 7], "end": "unpaid"})
    yield process
    process.control("cards", {"outcome": "succeed"})
    process.control("mischief", method="DELETE")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(fake: FakeStripeProcess, recorder: Recorder) -> stripe.StripeClient:
    return library(fake.url, recorder)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
