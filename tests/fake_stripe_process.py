"""The fake Stripe as a real process for the tests. What `control` can do is listed in its control.py."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.announced_process import AnnouncedProcess

SETTLE_SECONDS = 60
API_KEY = "sk_test_fake"
WEBHOOK_SECRET = "whsec_fake"
SMALL, LARGE, SMALL_YEARLY = "price_small_month", "price_large_month", "price_small_year"
PRICES = (f"{SMALL}=900:eur:month:Small", f"{LARGE}=2900:eur:month:Large", f"{SMALL_YEARLY}=9000:eur:year:Small")


class FakeStripeProcess(AnnouncedProcess):
    """Use it in a `with`: it is ended, and waited for, at the end. `options` go to its command line."""

    def __init__(self, *options: str, prices: tuple[str, ...] = PRICES) -> None:
        sold = (word for price in prices for word in ("--price", price))
        super().__init__("controlplane.demo.fake_stripe", "--port", "0", "--die-with-parent", *sold, *options)

    def control(self, verb: str, body: Any = None, *, method: str = "POST", seconds: float = 30) -> Any:
        """`verb` with its id, as `checkout/cs_test_…`. Blocks: the fake must not need this process's loop to answer.
        Raises AssertionError with the fake's words when it refuses."""
        request = urllib.request.Request(
            f"{self.url}/_control/{verb}",
            data=None if method != "POST" else json.dumps(body if body is not None else {}).encode(),
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{verb}: {error.code} {error.read().decode()}") from None

    def state(self) -> Any:
        return self.control("state", method="GET")

    def requests(self) -> list[dict[str, Any]]:
        """Every call of the API, the oldest first."""
        found: list[dict[str, Any]] = self.control("requests", method="GET")
        return found

    def events(self) -> list[dict[str, Any]]:
        """Everything that happened, the oldest first."""
        found: list[dict[str, Any]] = self.control("events", method="GET")
        return found

    def deliveries(self) -> list[dict[str, Any]]:
        """Every attempt to deliver an event."""
        found: list[dict[str, Any]] = self.control("webhooks", method="GET")
        return found

    def settle(self) -> Any:
        """Waits until nothing is under way; whether that came. Blocks, as `control` does."""
        return self.control("settle", {"seconds": SETTLE_SECONDS}, seconds=SETTLE_SECONDS + 20)["idle"]

    def advance(self, *, days: float = 0, seconds: int = 0) -> int:
        """Moves time; the new one, in seconds since the epoch."""
        return int(self.control("clock", {"advanceSeconds": int(days * 86_400) + seconds})["now"])

    def pay(self, checkout_id: str) -> Any:
        """The person on the checkout page pays."""
        return self.control(f"checkout/{checkout_id}", {"outcome": "pay"})
