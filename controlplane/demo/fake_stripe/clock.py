"""The account's time: the machine's, moved forward as far as it was told, or standing still between two calls."""

from __future__ import annotations

import time

from controlplane.demo.fake_stripe import lifecycle
from controlplane.demo.fake_stripe.world import World


class TestClock:
    """`frozen_at` None: time runs."""

    __test__ = False  # pytest would take it for a test

    def __init__(self, frozen_at: int | None) -> None:
        self.frozen_at = frozen_at
        self.offset = 0

    def now(self) -> int:
        return int(time.time()) + self.offset if self.frozen_at is None else self.frozen_at

    def tick(self, world: World) -> None:
        """Let happen what is due by now."""
        lifecycle.advance(world, self.now())

    def freeze(self, at: int | None) -> None:
        """From here on time stands, at `at` or where it is."""
        self.frozen_at = max(self.now(), at if at is not None else 0)

    def advance(self, seconds: int) -> None:
        if self.frozen_at is None:
            self.offset += seconds
        else:
            self.frozen_at += seconds
