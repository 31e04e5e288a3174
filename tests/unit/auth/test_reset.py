"""Password resets: quiet, once, in time, and every session ends."""

from __future__ import annotations

import re

import pytest

from controlplane.errors import InvalidInput, TooManyRequests, Unauthenticated
from controlplane.models import Suspension
from tests.account_house import ADDRESS, AccountHouse

NEW_PASSWORD = "an entirely new one"


async def token_by_mail(house: AccountHouse) -> str:
    await house.resets.forgot("ada@example.org", address=ADDRESS)
    await house.resets.after_answer.idle()
    found = re.search(r"https://portal\.example/#reset=(\S+)", house.mailer.sent[-1].text)
    assert found
    return found.group(1)


@pytest.mark.gen_test
async def test_a_reset_sets_the_password_and_ends_every_session() -> None:
    house = AccountHouse()
    await house.user()
    login = await house.login()
    token = await token_by_mail(house)
    assert token not in repr(house.reset_rows.tokens)
    await house.resets.reset(token, NEW_PASSWORD, address=ADDRESS)
    with pytest.raises(Unauthenticated):
        await house.authenticator.authenticate(login.access_token)
    with pytest.raises(Unauthenticated):
        await house.login()
    await house.login(password=NEW_PASSWORD)


@pytest.mark.gen_test
async def test_a_token_works_once() -> None:
    house = AccountHouse()
    await house.user()
    token = await token_by_mail(house)
    await house.resets.reset(token, NEW_PASSWORD, address=ADDRESS)
    with pytest.raises(Unauthenticated) as refused:
        await house.resets.reset(token, NEW_PASSWORD, address=ADDRESS)
    assert refused.value.stable_code == "reset_invalid"


@pytest.mark.gen_test
async def test_a_token_is_too_old_after_half_an_hour() -> None:
    house = AccountHouse()
    await house.user()
    token = await token_by_mail(house)
    house.clock.advance(1800)
    with pytest.raises(Unauthenticated):
        await house.resets.reset(token, NEW_PASSWORD, address=ADDRESS)


@pytest.mark.gen_test
async def test_a_newer_token_replaces_the_older() -> None:
    house = AccountHouse()
    await house.user()
    older, newer = await token_by_mail(house), await token_by_mail(house)
    with pytest.raises(Unauthenticated):
        await house.resets.reset(older, NEW_PASSWORD, address=ADDRESS)
    await house.resets.reset(newer, NEW_PASSWORD, address=ADDRESS)


@pytest.mark.gen_test
async def test_a_weak_password_does_not_use_the_token_up() -> None:
    house = AccountHouse()
    await house.user()
    token = await token_by_mail(house)
    with pytest.raises(InvalidInput):
        await house.resets.reset(token, "short", address=ADDRESS)
    await house.resets.reset(token, NEW_PASSWORD, address=ADDRESS)


@pytest.mark.gen_test
async def test_unknown_and_suspended_accounts_get_the_same_silence() -> None:
    house = AccountHouse()
    user = await house.user()
    await house.users.set_suspension(user.id, Suspension("unpaid", house.clock.now()))
    for email in ("nobody@example.org", "ada@example.org"):
        await house.resets.forgot(email, address=ADDRESS)
    await house.resets.after_answer.idle()
    assert house.mailer.sent == []


@pytest.mark.gen_test
async def test_mail_is_bounded_in_number() -> None:
    house = AccountHouse()
    await house.user()
    for _ in range(3):
        await house.resets.forgot("ada@example.org", address=ADDRESS)
    with pytest.raises(TooManyRequests):
        await house.resets.forgot("ada@example.org", address=ADDRESS)
    await house.resets.after_answer.idle()
    assert len(house.mailer.sent) == 3


@pytest.mark.gen_test
async def test_guessing_tokens_is_throttled() -> None:
    house = AccountHouse()
    for number in range(5):
        with pytest.raises(Unauthenticated):
            await house.resets.reset(str(number), NEW_PASSWORD, address=ADDRESS)
    with pytest.raises(TooManyRequests):
        await house.resets.reset("one more", NEW_PASSWORD, address=ADDRESS)
