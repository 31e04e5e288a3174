"""What a hostile page, a hostile app and a hostile neighbour may not do. One test, or more, for each rule."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from controlplane.models import IdeMode
from controlplane.observability.logs import JsonFormatter
from controlplane.storage.database import Database
from handlers.app import ROUTES
from tests.api_house import ApiHouse
from tests.ide_house import App, IdeHouse, echo

HOST, PATH = IdeMode.HOST, IdeMode.PATH
BOTH = pytest.mark.parametrize("mode", list(IdeMode))
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
FRONT = {
    "TRUSTED_PROXIES": "127.0.0.0/8",
    "DEV_IDE_HOST_SUFFIX": "ide.example.org",
    "PUBLIC_URL": "https://c.example.org",
}


# -- the token ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_token_is_exchanged_once(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        token = await ide.token(mode)
        assert (await ide.ask(mode, f"/?ide_token={token}", headers=NAVIGATION)).status == 303
        again = await ide.ask(mode, f"/?ide_token={token}", headers=NAVIGATION)
        assert again.status == 401
        assert "Set-Cookie" not in again.head
        assert b"This link was used" in again.body


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_token_never_reaches_the_app_whether_good_or_not_and_however_it_is_spelt(
    database: Database, mode: IdeMode
) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(mode)
        token = await ide.token(mode)
        for path in ("/?ide_token=wrong", "/?a=1&ide%5ftoken=wrong", "/?ide_token=", "/x?ide_token=" + "w" * 5000):
            assert (await ide.ask(mode, path, cookie=cookie)).status == 401
        used = await ide.ask(mode, f"/?%69de_token={token}", cookie=cookie, headers=NAVIGATION)
        assert used.status == 303
        wire, got = await ide.websocket(mode, f"/?ide_token={await ide.token(mode)}", cookie=cookie)
        assert got.status == 401
        wire.close()
        script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
        assert (
            await ide.ask(mode, f"/?ide_token={await ide.token(mode)}", cookie=cookie, headers=script)
        ).status == 401
        assert ide.app.seen == []


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_the_redirect_stays_on_this_site(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        for path in ("//evil.example/x", "///evil.example", "/\\evil.example", "//\\evil.example"):
            got = await ide.ask(mode, f"{path}?ide_token={await ide.token(mode)}", headers=NAVIGATION)
            location = got.value("Location")
            assert got.status == 303
            assert location.startswith(f"{ide.prefix(mode)}/")
            assert not location.startswith("//")
            assert "\\" not in location


@pytest.mark.gen_test(timeout=60)
async def test_a_token_opens_nothing_but_what_it_is_for(database: Database) -> None:
    async with IdeHouse(database) as ide:
        other = await ide.dev_container(ide.house.ada, 202, 9, 9)
        for_path = await ide.token(PATH)
        assert (await ide.ask(HOST, f"/?ide_token={for_path}", headers=NAVIGATION)).status == 401
        assert (await ide.ask(PATH, f"/?ide_token={for_path}", headers=NAVIGATION)).status == 401  # it is burnt
        for mode in IdeMode:
            secret = await ide.token(mode)
            got = await ide.ask(mode, f"/?ide_token={secret}", instance=other, headers=NAVIGATION)
            assert got.status == 401, mode
        # Nor is it a bearer token, a console ticket, or anything else of the API.
        secret = await ide.token(PATH)
        assert (await ide.house.call("GET", "/api/auth/me", token=secret)).status == 401


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_token_ends_with_the_login_that_asked_for_it(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        bearer = await ide.house.token("ada@example.org")
        secret = await ide.token(mode, bearer=bearer)
        await ide.house.call("POST", "/api/auth/logout", token=bearer)
        assert (await ide.ask(mode, f"/?ide_token={secret}", headers=NAVIGATION)).status == 401


@pytest.mark.gen_test(timeout=60)
async def test_a_cookie_opens_nothing_but_what_it_is_for(database: Database) -> None:
    async with IdeHouse(database) as ide:
        other = await ide.dev_container(ide.house.ada, 202, 9, ide.app_port)
        foreign = await ide.dev_container(ide.house.bob, 203, 10, ide.app_port)
        for mode in IdeMode:
            cookie = await ide.cookie(mode)
            for instance in (other, foreign):
                assert (await ide.ask(mode, cookie=cookie, instance=instance)).status == 401
        by_host = await ide.cookie(HOST)
        assert (await ide.ask(PATH, cookie=by_host)).status == 401
        by_path = await ide.cookie(PATH)
        assert (await ide.ask(HOST, cookie=by_path)).status == 401
        assert ide.app.seen == []


@pytest.mark.gen_test(timeout=60)
async def test_an_ide_that_is_missing_looks_like_one_that_is_not_open(database: Database) -> None:
    async with IdeHouse(database) as ide:
        for headers in ({}, NAVIGATION, {"Sec-Fetch-Mode": "cors"}):
            given = {**headers, "X-Request-Id": "same"}
            there = await ide.ask(HOST, headers=given)
            wire = await ide.connect()
            await wire.send(ide.request(HOST, headers=given).replace(b"dev-201", b"dev-999"))
            missing = await wire.answer()
            wire.close()
            assert (there.status, there.head, there.body) == (missing.status, missing.head, missing.body)


@pytest.mark.gen_test(timeout=60)
async def test_no_token_and_no_cookie_is_written_to_a_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with IdeHouse(database) as ide:
        token = await ide.token(HOST)
        got = await ide.ask(HOST, f"/page?ide_token={token}", headers=NAVIGATION)
        cookie = got.value("Set-Cookie").partition(";")[0]
        referer = f"{ide.origin(HOST)}/?ide_token={token}"
        assert (await ide.ask(HOST, "/page?q=private", cookie=cookie, headers={"Referer": referer})).status == 200
        assert (await ide.ask(HOST, f"/page?ide_token={token}", headers=NAVIGATION)).status == 401
        lines = [JsonFormatter().format(record) for record in caplog.records]
        assert any('"path":"/page"' in line for line in lines)
        secret = cookie.partition("=")[2]
        for line in lines:
            assert token not in line
            assert secret not in line
            assert "private" not in line
        assert ide.app.seen[-1].values("Referer") == [f"{ide.origin(HOST)}/"]


def test_a_token_in_an_address_is_taken_out_of_whatever_is_logged() -> None:
    record = logging.makeLogRecord({"msg": "GET /?a=1&ide_token=abc-DEF_123 failed", "levelname": "INFO"})
    assert "abc-DEF_123" not in JsonFormatter().format(record)


# -- what the app gets to see, and what it may say ---------------------------------------------------------------------


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_our_secrets_never_reach_the_app_and_its_own_do(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(mode)
        headers = {"Authorization": f"Bearer {ide.house.ada_token}"}
        both = f"theirs=1; {cookie}; more=2"
        assert (await ide.ask(mode, cookie=both, headers=headers)).status == 200
        seen = ide.app.seen[-1]
        assert seen.values("Cookie") == ["theirs=1; more=2"]
        assert seen.values("Authorization") == []
        # The cookie decides, whatever stands in Authorization: that is the app's.
        assert (await ide.ask(mode, cookie=cookie, headers={"Authorization": "Basic YTpi"})).status == 200
        assert ide.app.seen[-1].values("Authorization") == ["Basic YTpi"]
        assert (await ide.ask(mode, headers=headers)).status == 401


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_the_apps_answer_is_cleaned(database: Database, mode: IdeMode) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nService-Worker-Allowed: /\r\nAccess-Control-Allow-Origin: *\r\n"
        b"Set-Cookie: a=1; Domain=localhost; Path=/\r\nSet-Cookie: cp-ide=stolen; Path=/\r\nX-Accel-Redirect: /x\r\n"
        b"Content-Security-Policy: default-src 'self'\r\nETag: \"1\"\r\nCache-Control: max-age=1\r\nVary: X\r\n\r\n"
    )
    async with IdeHouse(database, App(answer)) as ide:
        got = await ide.ask(mode, cookie=await ide.cookie(mode))
        assert got.value("Service-Worker-Allowed") == ide.prefix(mode) + "/"
        assert got.values("Access-Control-Allow-Origin") == []
        assert got.values("X-Accel-Redirect") == []
        assert got.values("Set-Cookie") == [f"a=1; Path={ide.prefix(mode)}/"]
        assert got.values("Content-Security-Policy") == ["default-src 'self'", "frame-ancestors 'self'"]
        assert (got.value("ETag"), got.value("Cache-Control"), got.value("Vary")) == ('"1"', "max-age=1", "X")


@pytest.mark.gen_test(timeout=60)
async def test_a_redirect_of_the_app_stays_below_the_prefix(database: Database) -> None:
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /proxy/3000/\r\n\r\n"
    async with IdeHouse(database, App(answer)) as ide:
        got = await ide.ask(PATH, "/proxy/3000", cookie=await ide.cookie(PATH))
        assert got.value("Location") == f"/__ide/{ide.workshop.id}/proxy/3000/"
        got = await ide.ask(HOST, "/proxy/3000", cookie=await ide.cookie(HOST))
        assert got.value("Location") == "/proxy/3000/"


@pytest.mark.gen_test(timeout=60)
async def test_the_prefix_without_its_slash_leads_to_it(database: Database) -> None:
    async with IdeHouse(database) as ide:
        got = await ide.ask(PATH, "?folder=x")
        assert (got.status, got.value("Location")) == (308, f"/__ide/{ide.workshop.id}/?folder=x")


# -- the API is another matter -----------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=90)
async def test_the_api_takes_no_cookie_as_authentication(database: Database) -> None:
    async with IdeHouse(database) as ide:
        for mode in IdeMode:
            cookie = await ide.cookie(mode)
            secret = cookie.partition("=")[2]
            names = ("cp-ide", "__Host-cp-ide", "__Secure-cp-ide", "token", "session", "access_token")
            everything = "; ".join(f"{name}={value}" for name in names for value in (secret, ide.house.ada_token))
            for target in ("/api/auth/me", "/api/dev", "/api/admin/users", f"/api/dev/{ide.workshop.id}/state"):
                assert (await ide.house.call("GET", target, headers={"Cookie": everything})).status == 401


@pytest.mark.gen_test(timeout=90)
async def test_on_an_ides_host_nothing_of_the_api_or_the_page_is_served(database: Database) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(HOST)
        for route in ROUTES:
            path = route.template.replace("{", "").replace("}", "")
            bearer = {"Authorization": f"Bearer {ide.house.root_token}"}
            assert (await ide.ask(HOST, path, headers=bearer)).status == 401
            assert (await ide.ask(HOST, path, cookie=cookie)).body == b"ok"


@pytest.mark.parametrize(
    "name", ["evil.example", "dev-x.localhost", "foo.localhost", "localhost.", "a.dev-201.localhost", ""]
)
@pytest.mark.gen_test(timeout=60)
async def test_an_unknown_host_gets_421_and_never_the_api(database: Database, name: str) -> None:
    async with ApiHouse(database, DEV_IDE_HOST_SUFFIX="localhost") as house:
        for target in ("/healthz", "/", "/api/auth/me", "/__ide/dev_1/"):
            answer = await house.call("GET", target, token=house.ada_token, headers={"Host": name})
            assert answer.status == 421, (name, target)
            assert answer.code == "misdirected_request"


@pytest.mark.gen_test(timeout=60)
async def test_a_host_of_the_settings_is_the_apis(database: Database) -> None:
    async with ApiHouse(
        database, API_HOSTS="internal.example, lb.example", PUBLIC_URL="https://c.example.org"
    ) as house:
        for name in ("internal.example:8080", "LB.example", "c.example.org", "10.1.2.3:80", "[::1]"):
            assert (await house.call("GET", "/healthz", headers={"Host": name})).status == 200, name


@pytest.mark.gen_test(timeout=60)
async def test_path_mode_can_be_off(database: Database) -> None:
    async with IdeHouse(database, settings={"DEV_IDE_PATH_MODE_ENABLED": "false"}) as ide:
        assert (await ide.ask(PATH, headers=NAVIGATION)).status == 404
        target = f"/api/dev/{ide.workshop.id}/ide-token"
        refused = await ide.house.call("POST", target, {"mode": "path"}, token=ide.house.ada_token)
        assert (refused.status, refused.code) == (409, "ide_mode_off")
        answer = await ide.house.call("POST", target, token=ide.house.ada_token)
        assert answer.body["url"].startswith(f"http://dev-201.localhost:{ide.port}/?ide_token=")


# -- pages of other origins --------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_websocket_from_a_sibling_host_fails(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database, App(answering=echo)) as ide:
        cookie = await ide.cookie(mode)
        for origin in (
            f"http://dev-202.localhost:{ide.port}",
            f"https://{ide.host(mode)}",
            f"http://localhost:{ide.port}",
            "http://dev-201.localhost",
            "null",
            "",
        ):
            wire, got = await ide.websocket(mode, cookie=cookie, headers={"Origin": origin})
            assert got.status == 403, origin
            wire.close()
        assert ide.app.seen == []


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_unsafe_methods_and_resources_are_refused_to_other_pages(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(mode)
        for site in ("same-site", "cross-site"):
            for fetch in ("cors", "no-cors", "websocket"):
                headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": fetch}
                assert (await ide.ask(mode, cookie=cookie, headers=headers)).status == 403
            form = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Origin": "http://dev-202.localhost"}
            assert (await ide.ask(mode, method="POST", cookie=cookie, headers=form)).status == 403
        assert (await ide.ask(mode, method="DELETE", cookie=cookie)).status == 403
        assert ide.app.seen == []
        opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await ide.ask(mode, cookie=cookie, headers=opened)).status == 200


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_without_a_session_only_navigations_get_a_page(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        page = await ide.ask(mode, headers=NAVIGATION)
        assert (page.status, page.value("Content-Type")) == (401, "text/html; charset=utf-8")
        assert b"Open it again from the dashboard" in page.body
        assert "default-src 'none'" in page.value("Content-Security-Policy")
        for headers in ({}, {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": "no-cors", "Accept": "text/html"}):
            plain = await ide.ask(mode, cookie="cp-ide=dead", headers=headers)
            assert (plain.status, plain.values("Location")) == (401, [])
            assert json.loads(plain.body)["code"] == "ide_session_missing"
        wire, got = await ide.websocket(mode, cookie="cp-ide=dead")
        assert got.status == 401
        wire.close()


# -- behind a TLS front ------------------------------------------------------------------------------------------------


async def behind_front(ide: IdeHouse, host: str, target: str, **headers: str) -> Any:
    given = {"Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ide.house.call("GET", target, headers={**given, **more})


@pytest.mark.gen_test(timeout=60)
async def test_over_tls_the_cookies_have_the_prefixes_that_bind_them(database: Database) -> None:
    async with IdeHouse(database, settings=FRONT) as ide:
        answer = await behind_front(ide, "dev-201.ide.example.org", f"/?ide_token={await ide.token(HOST)}")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-cp-ide=")
        assert {"Path=/", "HttpOnly", "Secure", "SameSite=Lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        pair = cookie.partition(";")[0]
        assert (await behind_front(ide, "dev-201.ide.example.org", "/", Cookie=pair)).raw == b"ok"
        seen = ide.app.seen[-1]
        assert seen.values("X-Forwarded-Proto") == ["https"]
        assert seen.values("X-Forwarded-For") == ["198.51.100.7"]
        plain = pair.replace("__Host-", "")
        assert (await behind_front(ide, "dev-201.ide.example.org", "/", Cookie=plain)).status == 401

        prefix = ide.prefix(PATH)
        answer = await behind_front(ide, "c.example.org", f"{prefix}/?ide_token={await ide.token(PATH)}")
        assert answer.headers["Set-Cookie"].startswith("__Secure-cp-ide=")
        assert f"Path={prefix}/" in answer.headers["Set-Cookie"]


@pytest.mark.gen_test(timeout=60)
async def test_only_a_trusted_proxy_is_believed_to_speak_tls(database: Database) -> None:
    settings = {**FRONT, "TRUSTED_PROXIES": "10.0.0.0/8"}
    async with IdeHouse(database, settings=settings) as ide:
        answer = await behind_front(ide, "dev-201.ide.example.org", f"/?ide_token={await ide.token(HOST)}")
        assert (answer.status, answer.code) == (403, "https_required")
        assert "Set-Cookie" not in answer.headers


# -- the address that opens it -----------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=60)
async def test_an_address_is_given_to_whoever_may_use_the_instance_while_it_is_connected(database: Database) -> None:
    async with IdeHouse(database) as ide:
        target = f"/api/dev/{ide.workshop.vmid}/ide-token"
        for bearer in (ide.house.ada_token, ide.house.root_token):
            answer = await ide.house.call("POST", target, token=bearer)
            assert set(answer.body) == {"token", "expiresAt", "url"}
            assert answer.body["url"] == f"/__ide/{ide.workshop.id}/?ide_token={answer.body['token']}"
        assert (await ide.house.call("POST", target, token=ide.house.bob_token)).status == 404
        game = await ide.house.instance(ide.house.ada)
        assert (await ide.house.call("POST", f"/api/dev/{game.id}/ide-token", token=ide.house.ada_token)).status == 404
        away = await ide.dev_container(ide.house.ada, 202, 9, 9)
        answer = await ide.house.call("POST", f"/api/dev/{away.id}/ide-token", token=ide.house.ada_token)
        assert (answer.status, answer.code) == (409, "instance_disconnected")
        assert set(answer.body["details"]) == {"connection", "reason"}


@pytest.mark.gen_test(timeout=60)
async def test_the_settings_choose_between_host_and_path(database: Database) -> None:
    async with IdeHouse(database, settings={**FRONT, "DEV_IDE_RETURN_HOSTED_URL": "true"}) as ide:
        answer = await ide.house.call("POST", f"/api/dev/{ide.workshop.id}/ide-token", token=ide.house.ada_token)
        assert answer.body["url"].startswith("https://dev-201.ide.example.org/?ide_token=")
    off = {"DEV_IDE_HOST_SUFFIX": "", "DEV_IDE_PATH_MODE_ENABLED": "false"}
    async with IdeHouse(database, settings=off, vmid=202) as ide:
        answer = await ide.house.call("POST", f"/api/dev/{ide.workshop.id}/ide-token", token=ide.house.ada_token)
        assert (answer.status, answer.code) == (409, "ide_off")
    plain = {"PUBLIC_URL": "http://c.example.org"}
    async with IdeHouse(database, settings=plain, vmid=203) as ide:
        answer = await ide.house.call("POST", f"/api/dev/{ide.workshop.id}/ide-token", token=ide.house.ada_token)
        assert (answer.status, answer.code) == (409, "https_required")


@pytest.mark.gen_test(timeout=60)
async def test_code_servers_state_is_told_where_the_agent_offers_it(database: Database) -> None:
    async with IdeHouse(database) as ide:
        target = f"/api/dev/{ide.workshop.id}/codeserver/status"
        assert (await ide.house.call("GET", target, token=ide.house.ada_token)).body == {"state": "running"}
        ide.agent.codeserver = None
        answer = await ide.house.call("GET", target, token=ide.house.ada_token)
        assert (answer.status, answer.code) == (404, "not_found")
        for action in ("start", "stop", "restart"):
            target = f"/api/dev/{ide.workshop.id}/codeserver/{action}"
            assert (await ide.house.call("POST", target, token=ide.house.ada_token)).status == 202
            assert ide.agent.posts[-1] == f"/dev/codeserver/{action}"
