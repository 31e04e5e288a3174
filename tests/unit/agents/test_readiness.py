"""Semantic readiness: 200 and exactly `ready: true`."""

from __future__ import annotations

import pytest

from controlplane.agents.readiness import is_agent_ready_result


def test_only_200_with_ready_true_is_ready() -> None:
    assert is_agent_ready_result(200, {"ready": True, "more": 1})


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (200, {"ready": False}),
        (200, {"ready": "true"}),
        (200, {"ready": 1}),
        (200, {"ready": None}),
        (200, {"ready": {"ready": True}}),
        (200, {}),
        (200, None),
        (200, [True]),
        (200, True),
        (201, {"ready": True}),
        (204, None),
        (302, {"ready": True}),
        (404, {"ready": True}),
        (503, {"ready": True}),
    ],
)
def test_everything_else_is_not_ready(status: int, document: object) -> None:
    assert not is_agent_ready_result(status, document)
