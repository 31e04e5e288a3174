"""What `.ci/stripe-check` sets up: stripe-mock, and Stripe's description of its API out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.stripe_description import Description


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set: these tests are started by .ci/stripe-check (make stripe-check)")
    return value


@pytest.fixture(scope="session")
def mock_url() -> str:
    return _setting("STRIPE_MOCK_URL")


@pytest.fixture(scope="session")
def description() -> Description:
    return Description(Path(_setting("STRIPE_DESCRIPTION")))
