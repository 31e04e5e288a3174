"""What of a header reaches the app, and what of the app's reaches the browser."""

from __future__ import annotations

import base64
import json

import pytest

from controlplane.proxying.headers import Route, is_own_credential, request_head, response_fields, rewritten_cookie

BY_PATH = Route("https", "control.example.org", "/__ide/dev_1", "192.0.2.7", "req-1")
BY_HOST = Route("http", "dev-201.localhost:8080", "", "192.0.2.7", "req-1")


def sent(*fields: tuple[str, str], route: Route = BY_HOST, framing: str = "") -> list[str]:
    head = request_head("GET", "/x?y=1", fields, route, framing).decode("latin-1")
    assert head.endswith("\r\n\r\n")
    return head[:-4].split("\r\n")


def seen(*fields: tuple[str, str], route: Route = BY_PATH) -> dict[str, str]:
    return {name.lower(): value for name, value in response_fields(fields, route)}


def jwt_of(claims: dict[str, str]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{body}.c2ln"


# -- to the app --------------------------------------------------------------------------------------------------------


def test_the_host_is_the_browsers_own_with_its_port() -> None:
    assert sent(("Host", "ignored"))[:2] == ["GET /x?y=1 HTTP/1.1", "Host: dev-201.localhost:8080"]


def test_what_a_client_says_of_its_way_is_replaced_by_what_is_known() -> None:
    lines = sent(
        ("Forwarded", "host=evil"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Anything", "evil"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Request-Id", "evil"),
    )
    assert lines[2:] == [
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Host: dev-201.localhost:8080",
        "X-Forwarded-Proto: http",
        "X-Request-Id: req-1",
    ]
    assert "X-Forwarded-Prefix: /__ide/dev_1" in sent(route=BY_PATH)
    assert not any(line.lower().startswith("forwarded:") for line in lines)  # code-server does not unquote its host


def test_hop_by_hop_headers_and_what_connection_names_stay_here() -> None:
    lines = sent(
        ("Connection", "keep-alive, X-Secret, Cookie, content-length"),
        ("X-Secret", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Trailer", "X"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "x"),
        ("Proxy-Connection", "x"),
        ("Expect", "100-continue"),
        ("Content-Length", "7"),
        ("Cookie", "app=1"),
        framing="Content-Length: 5\r\n",
    )
    names = [line.partition(":")[0].lower() for line in lines[1:]]
    assert names == [
        "host", "cookie", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "content-length",
    ]  # fmt: skip
    assert lines[-1] == "Content-Length: 5"


def test_content_negotiation_validators_and_origin_are_left_alone() -> None:
    fields = [
        ("Accept-Encoding", "gzip, br"),
        ("If-None-Match", 'W/"1"'),
        ("Range", "bytes=0-1"),
        ("Origin", "https://x"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Sec-WebSocket-Protocol", "a, b"),
        ("Cookie", "a=1; b=2"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("X-Latin", "caf\xe9"),
    ]
    assert sent(*fields)[2 : 2 + len(fields)] == [f"{name}: {value}" for name, value in fields]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("__Host-cp-ide=s", None),
        ("a=1; __Host-cp-ide=s; b=2", "a=1; b=2"),
        ("a=1;__Secure-cp-ide=s;cp-ide=t", "a=1"),
        ("__host-CP-ide=s; cp-ide2=x", "cp-ide2=x"),
        ("cp-ide", None),
        (" cp-ide =s", None),
    ],
)
def test_our_cookies_never_reach_the_app(given: str, left: str | None) -> None:
    lines = [line for line in sent(("Cookie", given)) if line.startswith("Cookie")]
    assert lines == ([] if left is None else [f"Cookie: {left}"])


def test_our_tokens_never_reach_the_app_and_its_own_credentials_do() -> None:
    for ours in (
        "Bearer cpk_abcdef",
        "bearer  cpk_abcdef",
        f"Bearer {jwt_of({'iss': 'controlplane', 'sub': 'usr_1'})}",
    ):
        assert is_own_credential(ours), ours
        assert not any(line.startswith("Authorization") for line in sent(("Authorization", ours)))
    for theirs in (
        "Basic YTpi",
        "Bearer abc",
        "Bearer a.b.c",
        "Bearer x.%%%.y",
        f"Bearer {jwt_of({'iss': 'the-app'})}",
        "cpk_abc",
    ):
        assert f"Authorization: {theirs}" in sent(("Authorization", theirs))


def test_a_token_in_a_referer_is_cut_out() -> None:
    lines = sent(("Referer", "http://dev-201.localhost:8080/x?a=1&ide_token=secret"))
    assert "Referer: http://dev-201.localhost:8080/x?a=1" in lines


# -- from the app ------------------------------------------------------------------------------------------------------


def test_the_apps_content_headers_are_left_alone() -> None:
    fields = [
        ("Content-Type", "text/html"),
        ("Content-Length", "5"),
        ("Content-Encoding", "br"),
        ("ETag", 'W/"1"'),
        ("Cache-Control", "public, max-age=31536000"),
        ("Vary", "Accept-Encoding"),
        ("Last-Modified", "x"),
        ("X-Frame-Options", "DENY"),
        ("Sec-WebSocket-Accept", "x"),
        ("Sec-WebSocket-Protocol", "a"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("WWW-Authenticate", "Basic"),
    ]
    for route in (BY_PATH, BY_HOST):
        assert response_fields(fields, route)[:-1] == fields


def test_framing_and_connection_are_the_servers_own() -> None:
    kept = seen(
        ("Connection", "close, X-Hop, Set-Cookie, Content-Security-Policy"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Keep-Alive", "timeout=5"),
        ("Trailer", "X"),
        ("Upgrade", "h2"),
        ("Set-Cookie", "a=1"),
    )
    assert set(kept) == {"set-cookie", "content-security-policy"}


def test_frame_ancestors_is_added_beside_the_apps_own_policy() -> None:
    policies = [
        value
        for name, value in response_fields([("Content-Security-Policy", "default-src *")], BY_HOST)
        if name == "Content-Security-Policy"
    ]
    assert policies == ["default-src *", "frame-ancestors 'self'"]


def test_the_app_cannot_open_itself_to_other_origins() -> None:
    given = [
        ("Access-Control-Allow-Origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("Alt-Svc", 'h3=":443"'),
        ("X-Accel-Redirect", "/internal"),
        ("X-Sendfile", "/etc/passwd"),
    ]
    for route in (BY_PATH, BY_HOST):
        assert set(seen(*given, route=route)) == {"content-security-policy"}


def test_in_path_mode_the_app_does_not_speak_for_the_apis_origin() -> None:
    given = [("Clear-Site-Data", '"*"'), ("Strict-Transport-Security", "max-age=0"), ("Reporting-Endpoints", "a")]
    assert set(seen(*given, route=BY_PATH)) == {"content-security-policy"}
    assert "clear-site-data" in seen(*given, route=BY_HOST)


@pytest.mark.parametrize("given", ["/", "/__ide/dev_1/../../", "/__ide/dev_2/", "/__ide/dev_1/a", "https://x/"])
def test_a_service_worker_is_clamped_to_the_prefix(given: str) -> None:
    assert seen(("Service-Worker-Allowed", given))["service-worker-allowed"] == "/__ide/dev_1/"
    assert seen(("Service-Worker-Allowed", given), route=BY_HOST)["service-worker-allowed"] == given


@pytest.mark.parametrize(
    ("given", "by_path"),
    [
        ("/proxy/3000/", "/__ide/dev_1/proxy/3000/"),
        ("/", "/__ide/dev_1/"),
        ("/__ide/dev_1", "/__ide/dev_1"),
        ("/__ide/dev_1/x", "/__ide/dev_1/x"),
        ("/__ide/dev_1?x", "/__ide/dev_1?x"),
        ("/__ide/dev_10/x", "/__ide/dev_1/__ide/dev_10/x"),
        ("./?folder=/home", "./?folder=/home"),
        ("../x", "../x"),
        ("https://control.example.org/a?b#c", "/__ide/dev_1/a?b#c"),
        ("http://CONTROL.example.org", "/__ide/dev_1/"),
        ("https://control.example.org?x", "/__ide/dev_1/?x"),
        ("https://control.example.org/__ide/dev_1/a", "/__ide/dev_1/a"),
        ("https://elsewhere.example/a", "https://elsewhere.example/a"),
        ("//elsewhere.example/a", "//elsewhere.example/a"),
        ("https://[broken", "https://[broken"),
    ],
)
def test_a_redirect_stays_below_the_prefix(given: str, by_path: str) -> None:
    assert seen(("Location", given))["location"] == by_path
    assert seen(("Content-Location", given))["content-location"] == by_path
    assert seen(("Location", given), route=BY_HOST)["location"] == given


@pytest.mark.parametrize(
    ("given", "by_path", "by_host"),
    [
        ("a=1", "a=1", "a=1"),
        ("a=1; Path=/", "a=1; Path=/__ide/dev_1/", "a=1; Path=/"),
        ("a=1; path=/sub; HttpOnly", "a=1; Path=/__ide/dev_1/sub; HttpOnly", "a=1; path=/sub; HttpOnly"),
        ("a=1; Path=/__ide/dev_1/x", "a=1; Path=/__ide/dev_1/x", "a=1; Path=/__ide/dev_1/x"),
        ("a=1; Path=", "a=1; Path=/__ide/dev_1/", "a=1; Path="),
        ("a=1; Path=relative", "a=1; Path=/__ide/dev_1/", "a=1; Path=relative"),
        ("a=1; Domain=example.org; Secure", "a=1; Secure", "a=1; Secure"),
        ("a=1; dOmAiN=.example.org", "a=1", "a=1"),
        ("a=1; domain", "a=1", "a=1"),
        ("a=x=y; SameSite=None", "a=x=y; SameSite=None", "a=x=y; SameSite=None"),
    ],
)
def test_a_cookie_of_the_app_stays_with_it(given: str, by_path: str, by_host: str) -> None:
    assert rewritten_cookie(given, BY_PATH.prefix) == by_path
    assert rewritten_cookie(given, BY_HOST.prefix) == by_host


@pytest.mark.parametrize(
    "given",
    [
        "cp-ide=x",
        "__Host-cp-ide=x; Path=/; Secure",
        "__SECURE-CP-IDE=x",
        " cp-ide =x",
        "=cp-ide=x",
        "= cp-ide=x",
        "cp-ide",
    ],
)
def test_the_app_cannot_set_our_cookies(given: str) -> None:
    assert rewritten_cookie(given, "/__ide/dev_1") is None
    assert "set-cookie" not in seen(("Set-Cookie", given), route=BY_HOST)


def test_control_characters_do_not_pass() -> None:
    assert set(seen(("X-A", "b\x00c"), ("X-B", "b\nc"), ("X-C", "b\tc"))) == {"x-c", "content-security-policy"}
