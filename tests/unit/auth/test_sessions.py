"""Sessions: sign-in without enumeration, refresh families, sign-out, password change."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.auth.sessions import GRACE_SECONDS, normalize_email
from controlplane.errors import (
    Conflict,
    ControlPlaneError,
    Forbidden,
    InvalidInput,
    NotFound,
    TooManyRequests,
    Unauthenticated,
)
from controlplane.models import Principal, Role, Suspension
from tests.account_house import ADDRESS, PASSWORD, AccountHouse

NEW_PASSWORD = "an entirely new one"


async def refused(work: object) -> str:
    with pytest.raises(ControlPlaneError) as error:
        await work  # type: ignore[misc]
    return error.value.stable_code


@pytest.mark.gen_test
async def test_a_login_gives_tokens_that_authenticate() -> None:
    house = AccountHouse()
    user = await house.user()
    login = await house.login(" Ada@Example.ORG ")
    assert login.expires_in_seconds == 900
    principal = await house.authenticator.authenticate(login.access_token)
    assert (principal.user_id, principal.role, principal.scopes) == (user.id, Role.CUSTOMER, None)
    assert login.refresh_token not in repr(house.session_rows.sessions)


@pytest.mark.gen_test
async def test_a_wrong_password_and_an_unknown_account_are_the_same_and_cost_the_same() -> None:
    house = AccountHouse()
    await house.user()
    answers = []
    for email in ("ada@example.org", "nobody@example.org"):
        before = house.hasher.verified
        with pytest.raises(Unauthenticated) as wrong:
            await house.login(email, "wrong password")
        answers.append((wrong.value.stable_code, wrong.value.message, house.hasher.verified - before))
    assert answers[0] == answers[1]
    assert answers[0][2] == 1


@pytest.mark.gen_test
async def test_throttling_comes_before_the_password_is_checked() -> None:
    house = AccountHouse()
    await house.user()
    for _ in range(5):
        await refused(house.login(password="wrong"))
    before = house.hasher.verified
    with pytest.raises(TooManyRequests):
        await house.login()
    assert house.hasher.verified == before


@pytest.mark.gen_test
async def test_a_suspended_user_is_told_only_with_the_right_password() -> None:
    house = AccountHouse()
    user = await house.user()
    await house.users.set_suspension(user.id, Suspension("unpaid", house.clock.now()))
    assert await refused(house.login(password="wrong")) == "credentials_wrong"
    assert await refused(house.login()) == "suspended"


@pytest.mark.gen_test
async def test_registration_never_tells_whether_the_address_is_taken() -> None:
    house = AccountHouse()
    for _ in range(2):
        await house.sessions.register("ada@example.org", PASSWORD, address=ADDRESS)
    await house.sessions.after_answer.idle()
    assert house.hasher.hashed == 2
    assert len(house.users.users) == 1
    assert [mail.to for mail in house.mailer.sent] == ["ada@example.org"] * 2
    assert house.mailer.sent[1].subject == "You have an account already"


@pytest.mark.gen_test
async def test_weak_passwords_and_odd_addresses_make_no_account() -> None:
    house = AccountHouse()
    with pytest.raises(InvalidInput):
        await house.sessions.register("ada@example.org", "short", address=ADDRESS)
    for email in ("", "ada", "@example.org", "ada@", "a@b@c"):
        with pytest.raises(InvalidInput):
            await house.sessions.create_user(email, PASSWORD, Role.CUSTOMER)
    assert house.users.users == {}


@pytest.mark.gen_test
async def test_a_refresh_token_is_used_once_and_replaced() -> None:
    house = AccountHouse()
    await house.user()
    first = await house.login()
    second = await house.sessions.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    third = await house.sessions.refresh(second.refresh_token)
    await house.authenticator.authenticate(third.access_token)
    assert len(house.session_rows.sessions) == 1


@pytest.mark.gen_test
async def test_of_ten_refreshes_at_once_one_wins_and_nobody_is_signed_out() -> None:
    house = AccountHouse()
    await house.user()
    login = await house.login()
    results = await asyncio.gather(
        *(house.sessions.refresh(login.refresh_token) for _ in range(10)), return_exceptions=True
    )
    winners = [each for each in results if not isinstance(each, BaseException)]
    losers = [each.stable_code for each in results if isinstance(each, ControlPlaneError)]
    assert len(winners) == 1
    assert losers == ["refresh_superseded"] * 9
    await house.sessions.refresh(winners[0].refresh_token)


@pytest.mark.gen_test
async def test_the_predecessor_is_harmless_within_its_grace_and_ends_the_family_after_it() -> None:
    house = AccountHouse()
    await house.user()
    first = await house.login()
    second = await house.sessions.refresh(first.refresh_token)
    house.clock.advance(GRACE_SECONDS)
    assert await refused(house.sessions.refresh(first.refresh_token)) == "refresh_superseded"
    house.clock.advance(1)
    assert await refused(house.sessions.refresh(first.refresh_token)) == "session_revoked"
    assert await refused(house.sessions.refresh(second.refresh_token)) == "session_revoked"
    assert await refused(house.authenticator.authenticate(second.access_token)) == "session_revoked"


@pytest.mark.gen_test
async def test_an_older_ancestor_ends_the_family_at_once() -> None:
    house = AccountHouse()
    await house.user()
    first = await house.login()
    second = await house.sessions.refresh(first.refresh_token)
    third = await house.sessions.refresh(second.refresh_token)
    assert await refused(house.sessions.refresh(first.refresh_token)) == "session_revoked"
    assert await refused(house.sessions.refresh(third.refresh_token)) == "session_revoked"


@pytest.mark.gen_test
async def test_a_session_ends_absolutely_however_often_it_was_refreshed() -> None:
    house = AccountHouse()
    await house.user()
    login = await house.login()
    for _ in range(29):
        house.clock.advance(86_400)
        login = await house.sessions.refresh(login.refresh_token)
    house.clock.advance(86_400)
    assert await refused(house.sessions.refresh(login.refresh_token)) == "refresh_invalid"


@pytest.mark.gen_test
async def test_garbage_is_no_refresh_token() -> None:
    house = AccountHouse()
    for token in ("", "x", "\ud800", "a" * 512):
        assert await refused(house.sessions.refresh(token)) == "refresh_invalid"


@pytest.mark.gen_test
async def test_sessions_are_listed_and_revoked_by_their_owner_alone() -> None:
    house = AccountHouse()
    ada = await house.user()
    bob = await house.user("bob@example.org")
    login = await house.login()
    house.clock.advance(1)
    await house.login()
    newest, oldest = await house.sessions.list_sessions(ada.id)
    assert newest.created_at > oldest.created_at
    with pytest.raises(NotFound):
        await house.sessions.revoke_session(bob.id, oldest.id)
    await house.authenticator.authenticate(login.access_token)
    await house.sessions.revoke_session(ada.id, oldest.id)
    assert house.authenticator.authenticate_cached(login.access_token) is None
    assert await refused(house.authenticator.authenticate(login.access_token)) == "session_revoked"
    assert await house.sessions.list_sessions(ada.id) == [newest]
    with pytest.raises(NotFound):
        await house.sessions.revoke_session(ada.id, oldest.id)


@pytest.mark.gen_test
async def test_logout_all_ends_every_session() -> None:
    house = AccountHouse()
    user = await house.user()
    logins = [await house.login() for _ in range(3)]
    await house.sessions.logout_all(user.id)
    for login in logins:
        assert await refused(house.authenticator.authenticate(login.access_token)) == "session_revoked"


@pytest.mark.gen_test
async def test_a_password_change_keeps_this_session_and_ends_the_others() -> None:
    house = AccountHouse()
    user = await house.user()
    mine, other = await house.login(), await house.login()
    principal = await house.authenticator.authenticate(mine.access_token)
    await house.authenticator.authenticate(other.access_token)
    await house.sessions.change_password(principal, PASSWORD, NEW_PASSWORD, address=ADDRESS)
    assert house.authenticator.authenticate_cached(other.access_token) is None
    await house.authenticator.authenticate(mine.access_token)
    assert await refused(house.login()) == "credentials_wrong"
    assert (await house.login(password=NEW_PASSWORD)).user.id == user.id


@pytest.mark.gen_test
async def test_a_password_change_needs_the_present_password_and_a_fit_new_one() -> None:
    house = AccountHouse()
    user = await house.user()
    principal = Principal(user.id, user.email, user.role, "ses_1")
    with pytest.raises(Forbidden):
        await house.sessions.change_password(principal, "wrong", NEW_PASSWORD, address=ADDRESS)
    with pytest.raises(InvalidInput) as unfit:
        await house.sessions.change_password(principal, PASSWORD, "short", address=ADDRESS)
    assert set(unfit.value.fields) == {"newPassword"}


@pytest.mark.gen_test
async def test_a_login_that_was_overtaken_by_a_password_change_gives_no_session() -> None:
    house = AccountHouse()
    user = await house.user()

    class Overtaken:
        async def hash(self, password: str) -> str:
            return await house.hasher.hash(password)

        async def verify(self, password: str, stored_hash: str | None) -> bool:
            right = await house.hasher.verify(password, stored_hash)
            await house.users.set_password(
                user.id, expected_hash=str(stored_hash), new_hash="hash of another", at=house.clock.now()
            )
            return right

    house.sessions._hasher = Overtaken()
    assert await refused(house.login()) == "credentials_wrong"
    assert await house.sessions.list_sessions(user.id) == []


@pytest.mark.gen_test
async def test_an_email_is_one_account_however_it_is_written() -> None:
    house = AccountHouse()
    await house.user("Ada@Example.org")
    with pytest.raises(Conflict):
        await house.user("ADA@example.ORG")
    assert normalize_email(" ＡＤＡ@example.org ") == "ada@example.org"
