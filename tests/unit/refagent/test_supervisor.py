from __future__ import annotations

import pytest

from controlplane.refagent.supervisor import State, outcome


@pytest.mark.parametrize(
    ("status", "asked", "state", "error"),
    [
        (0, True, State.STOPPED, None),
        (1, True, State.STOPPED, None),
        (-9, True, State.STOPPED, None),
        (0, False, State.STOPPED, None),
        (3, False, State.CRASHED, "exited with status 3"),
        (-9, False, State.CRASHED, "killed by SIGKILL"),
        (-15, False, State.CRASHED, "killed by SIGTERM"),
        (-99, False, State.CRASHED, "killed by signal 99"),
    ],
)
def test_only_an_end_that_nobody_asked_for_is_a_crash(
    status: int, asked: bool, state: State, error: str | None
) -> None:
    assert outcome(status, asked_to_stop=asked) == (state, error)
