"""Which requests of a browser are let in, by where they come from."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from controlplane.errors import Forbidden
from controlplane.ide.admission import Approach, check_approach

HOST = "dev-201.ide.example.org"
OWN = f"https://{HOST}"


def approach(
    method: str = "GET", *, scheme: str = "https", host: str = HOST, ws: bool = False, **headers: str
) -> Approach:
    return Approach(
        method, scheme, host, ws, HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()})
    )


def refusal(given: Approach) -> str | None:
    try:
        check_approach(given)
    except Forbidden as error:
        return error.stable_code
    return None


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (OWN, None),
        (OWN.upper(), None),
        (None, "origin_refused"),
        ("null", "origin_refused"),
        ("https://dev-202.ide.example.org", "origin_refused"),
        (f"http://{HOST}", "origin_refused"),
        (f"{OWN}:8443", "origin_refused"),
        (f"{OWN}.evil.example", "origin_refused"),
        (f"{OWN}/", "origin_refused"),
    ],
)
def test_websockets_and_unsafe_methods_need_the_exact_origin(origin: str | None, code: str | None) -> None:
    headers: dict[str, Any] = {} if origin is None else {"Origin": origin}
    assert refusal(approach(ws=True, **headers)) == code
    for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND"):
        assert refusal(approach(method, **headers)) == code
    for method in ("GET", "HEAD", "OPTIONS"):
        assert refusal(approach(method, **headers)) is None


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_other_sites_may_open_an_ide_and_nothing_else(site: str) -> None:
    assert refusal(approach(Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")) is None
    for mode in ("no-cors", "cors", "websocket", "same-origin"):
        assert refusal(approach(Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)) == "cross_site_refused"
    assert refusal(approach(Sec_Fetch_Site=site)) == "cross_site_refused"
    assert refusal(approach("POST", Origin=OWN, Sec_Fetch_Site=site, Sec_Fetch_Mode="cors")) == "cross_site_refused"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_pages_and_the_address_bar_may_ask(site: str) -> None:
    assert refusal(approach(Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")) is None


def test_plain_http_is_for_loopback_alone() -> None:
    assert refusal(approach(scheme="http")) == "https_required"
    assert refusal(approach(scheme="http", host="10.0.0.5:8080")) == "https_required"
    for host in ("dev-201.localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert refusal(approach(scheme="http", host=host)) is None


def test_a_navigation_is_told_by_the_browser_or_by_what_it_accepts() -> None:
    assert approach(Sec_Fetch_Mode="navigate").is_navigation
    assert approach(Accept="text/html,*/*").is_navigation
    assert not approach(Accept="text/html", Sec_Fetch_Mode="cors").is_navigation
    assert not approach("POST", Sec_Fetch_Mode="navigate").is_navigation
    assert not approach(ws=True, Accept="text/html").is_navigation
    assert not approach().is_navigation


def test_tokens_are_exchanged_where_an_address_is_opened() -> None:
    assert approach(Sec_Fetch_Mode="navigate").may_exchange
    assert approach().may_exchange
    assert not approach(Sec_Fetch_Mode="no-cors").may_exchange
    assert not approach("HEAD").may_exchange
    assert not approach(ws=True).may_exchange
