"""One customer cannot use up what the payment provider allows all of us."""

from __future__ import annotations

import pytest

from controlplane.billing.pace import Pace
from controlplane.errors import TooManyRequests
from tests.fakes import FakeClock


def test_calls_above_the_pace_wait_for_the_window() -> None:
    clock = FakeClock()
    pace = Pace(clock, calls=3)
    for _ in range(3):
        pace.take("usr_1")
        clock.advance(10)
    with pytest.raises(TooManyRequests) as refused:
        pace.take("usr_1")
    assert refused.value.retry_after_seconds == 31
    pace.take("usr_2")
    clock.advance(30)
    pace.take("usr_1")
    with pytest.raises(TooManyRequests):
        pace.take("usr_1")
