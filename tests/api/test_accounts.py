"""Accounts over HTTP: the shapes a portal sees, and that nothing tells whether an account exists."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.storage.database import Database
from tests.api_house import PASSWORD, ApiHouse

pytestmark = pytest.mark.timeout(120)


@pytest.mark.gen_test(timeout=60)
async def test_login_refresh_and_logout(database: Database) -> None:
    async with ApiHouse(database) as house:
        login = (await house.login("ada@example.org")).body
        assert set(login) == {"accessToken", "refreshToken", "expiresInSeconds", "user"}
        assert set(login["user"]) == {"id", "email", "role", "createdAt", "suspension"}
        refreshed = await house.call("POST", "/api/auth/refresh", {"refreshToken": login["refreshToken"]})
        assert set(refreshed.body) == set(login)
        assert "Set-Cookie" not in refreshed.headers
        token = refreshed.body["accessToken"]
        assert (await house.call("GET", "/api/auth/me", token=token)).body["email"] == "ada@example.org"
        assert (await house.call("POST", "/api/auth/logout", token=token)).status == 204
        assert (await house.call("GET", "/api/auth/me", token=token)).code == "session_revoked"
        spent = await house.call("POST", "/api/auth/refresh", {"refreshToken": refreshed.body["refreshToken"]})
        assert (spent.status, spent.code) == (401, "session_revoked")


@pytest.mark.gen_test(timeout=60)
async def test_ten_refreshes_at_once_have_one_winner_and_the_session_lives(database: Database) -> None:
    async with ApiHouse(database) as house:
        login = (await house.login("ada@example.org")).body
        answers = await asyncio.gather(
            *(house.call("POST", "/api/auth/refresh", {"refreshToken": login["refreshToken"]}) for _ in range(10))
        )
        winners = [answer for answer in answers if answer.status == 200]
        assert len(winners) == 1
        assert {answer.code for answer in answers if answer.status != 200} == {"refresh_superseded"}
        again = await house.call("POST", "/api/auth/refresh", {"refreshToken": winners[0].body["refreshToken"]})
        assert again.status == 200


@pytest.mark.gen_test(timeout=60)
async def test_logout_all_and_revocation_end_sessions_at_once(database: Database) -> None:
    async with ApiHouse(database) as house:
        other = (await house.login("ada@example.org")).body["accessToken"]
        sessions = (await house.call("GET", "/api/auth/sessions", token=other)).body["items"]
        assert [session["current"] for session in sessions] == [True, False]
        assert (await house.call("DELETE", f"/api/auth/sessions/{sessions[1]['id']}", token=other)).status == 204
        assert (await house.call("GET", "/api/auth/me", token=house.ada_token)).code == "session_revoked"
        assert (await house.call("POST", "/api/auth/logout-all", token=other)).status == 204
        assert (await house.call("GET", "/api/auth/me", token=other)).code == "session_revoked"


@pytest.mark.gen_test(timeout=60)
async def test_known_and_unknown_accounts_get_the_same_answers(database: Database) -> None:
    same_id = {"X-Request-Id": "same"}
    async with ApiHouse(database) as house:
        for target, body in (
            ("/api/auth/login", {"password": "wrong password"}),
            ("/api/auth/password/forgot", {}),
            ("/api/auth/register", {"password": PASSWORD}),
        ):
            answers = [
                await house.call("POST", target, {"email": email, **body}, headers=same_id)
                for email in ("ada@example.org", "nobody@example.org")
            ]
            assert (answers[0].status, answers[0].raw) == (answers[1].status, answers[1].raw), target


@pytest.mark.gen_test(timeout=60)
async def test_registration_can_be_closed(database: Database) -> None:
    async with ApiHouse(database, REGISTRATION_ENABLED="false") as house:
        body = {"email": "new@example.org", "password": PASSWORD}
        assert (await house.call("POST", "/api/auth/register", body)).code == "registration_closed"
    async with ApiHouse(database) as house:
        assert (await house.call("POST", "/api/auth/register", body)).status == 202
        assert (await house.login("new@example.org")).body["user"]["role"] == "customer"


@pytest.mark.gen_test(timeout=60)
async def test_too_many_tries_are_told_when_to_come_back(database: Database) -> None:
    async with ApiHouse(database) as house:
        answers = [await house.login("bob@example.org", "wrong password") for _ in range(8)]
        assert answers[0].code == "credentials_wrong"
        refused = [answer for answer in answers if answer.status == 429]  # not each: the first wait is of two seconds
        assert {answer.code for answer in refused} == {"too_many_requests"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)


@pytest.mark.gen_test(timeout=60)
async def test_an_admin_suspends_a_user_whose_sessions_end(database: Database) -> None:
    async with ApiHouse(database) as house:
        target = f"/api/admin/users/{house.ada.id}"
        suspended = await house.call("POST", f"{target}/suspend", {"reason": "abuse"}, token=house.root_token)
        assert suspended.body["suspension"]["reason"] == "abuse"
        assert (await house.call("GET", "/api/auth/me", token=house.ada_token)).status in (401, 403)
        assert (await house.login("ada@example.org")).code == "suspended"
        assert (await house.call("POST", f"{target}/unsuspend", token=house.root_token)).body["suspension"] is None
        assert (await house.login("ada@example.org")).status == 200
        own = await house.call(
            "POST", f"/api/admin/users/{house.root.id}/suspend", {"reason": "x"}, token=house.root_token
        )
        assert (own.status, own.code) == (409, "cannot_suspend_self")


@pytest.mark.gen_test(timeout=60)
async def test_an_admin_lists_users_in_pages(database: Database) -> None:
    async with ApiHouse(database) as house:
        first = (await house.call("GET", "/api/admin/users?limit=2", token=house.root_token)).body
        rest = (await house.call("GET", f"/api/admin/users?after={first['nextAfter']}", token=house.root_token)).body
        assert {user["email"].partition("@")[0] for user in first["items"] + rest["items"]} == {"ada", "bob", "root"}
        assert "password" not in str(first)


@pytest.mark.gen_test(timeout=60)
async def test_an_api_keys_secret_is_shown_once_also_when_the_request_is_repeated(database: Database) -> None:
    async with ApiHouse(database) as house:
        body = {"name": "ci", "scopes": ["instances:read"], "expiresInDays": 30}
        key = {"Idempotency-Key": "make-key"}
        made = await house.call("POST", "/api/auth/api-keys", body, token=house.ada_token, headers=key)
        again = await house.call("POST", "/api/auth/api-keys", body, token=house.ada_token, headers=key)
        assert made.raw == again.raw, "a lost answer is asked for again with its idempotency key"
        listed = (await house.call("GET", "/api/auth/api-keys", token=house.ada_token)).body["items"]
        assert len(listed) == 1
        assert "secret" not in listed[0]
        assert (await house.call("GET", "/api/game/servers", token=made.body["secret"])).status == 200
        assert (
            await house.call("DELETE", f"/api/auth/api-keys/{listed[0]['id']}", token=house.ada_token)
        ).status == 204
        assert (await house.call("GET", "/api/game/servers", token=made.body["secret"])).status == 401


@pytest.mark.gen_test(timeout=60)
async def test_a_password_change_over_http(database: Database) -> None:
    async with ApiHouse(database) as house:
        other = (await house.login("ada@example.org")).body["accessToken"]
        body = {"currentPassword": PASSWORD, "newPassword": "an entirely new one"}
        assert (await house.call("POST", "/api/auth/password/change", body, token=house.ada_token)).status == 204
        assert (await house.call("GET", "/api/auth/me", token=other)).status == 401
        assert (await house.call("GET", "/api/auth/me", token=house.ada_token)).status == 200
        assert (await house.login("ada@example.org")).status == 401
        assert (await house.login("ada@example.org", "an entirely new one")).status == 200
