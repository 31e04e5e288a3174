from __future__ import annotations

import pytest

from controlplane.refagent.http import authorized


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "BEARER  secret"])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert authorized(header, "secret")


@pytest.mark.parametrize(
    "header",
    [None, "", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "Bearer \udcff"],
)
def test_everything_else_is_refused(header: str | None) -> None:
    assert not authorized(header, "secret")
