"""The IDE's cookie, and the token in a query."""

from __future__ import annotations

import pytest

from controlplane.ide.cookies import cookie_name, read_cookies, set_cookie, take_token
from controlplane.models import IdeMode


def test_names_bind_the_cookie_to_its_host_over_tls_and_are_plain_without() -> None:
    assert cookie_name(IdeMode.HOST, secure=True) == "__Host-cp-ide"
    assert cookie_name(IdeMode.PATH, secure=True) == "__Secure-cp-ide"
    assert {cookie_name(mode, secure=False) for mode in IdeMode} == {"cp-ide"}


def test_the_attributes_are_those_that_the_prefixes_demand() -> None:
    assert set_cookie(IdeMode.HOST, "s", "", secure=True, seconds=60) == (
        "__Host-cp-ide=s; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    )
    assert set_cookie(IdeMode.PATH, "s", "/__ide/dev_1", secure=True, seconds=60) == (
        "__Secure-cp-ide=s; Path=/__ide/dev_1/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    )
    assert "Secure" not in set_cookie(IdeMode.PATH, "s", "/__ide/dev_1", secure=False, seconds=60)


def test_every_cookie_of_the_name_is_looked_at_up_to_a_bound() -> None:
    assert read_cookies("a=1; cp-ide=x;cp-ide=y ;CP-IDE=z", "cp-ide") == ["x", "y"]
    assert len(read_cookies("; ".join(["cp-ide=x"] * 50), "cp-ide")) == 4
    assert read_cookies("", "cp-ide") == []


@pytest.mark.parametrize(
    ("target", "token", "rest"),
    [
        ("/", None, "/"),
        ("/?a=1", None, "/?a=1"),
        ("/?ide_token=x", "x", "/"),
        ("/p?a=1&ide_token=x&b=%20", "x", "/p?a=1&b=%20"),
        ("/p?ide%5Ftoken=x%2By", "x+y", "/p"),
        ("/p?ide_token=x&ide_token=y", "y", "/p"),
        ("/p?ide_token", "", "/p"),
        ("/p?tkn=x&my_ide_token=z", None, "/p?tkn=x&my_ide_token=z"),
    ],
)
def test_a_token_is_taken_out_of_a_query(target: str, token: str | None, rest: str) -> None:
    assert take_token(target) == (token, rest)
