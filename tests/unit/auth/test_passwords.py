"""Passwords: what is accepted, and bcrypt that neither truncates nor raises."""

from __future__ import annotations

import asyncio

import bcrypt
import pytest

from controlplane.auth.passwords import QUEUE, PasswordHasher, check_password
from controlplane.errors import InvalidInput, Overloaded

COST = 4


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "123456789",
        "1234567890",
        "PASSWORD123",
        "aaaaaaaaaaaa",
        "ada@example.org",
        "abababababab",
        "x" * 1025,
    ],
)
def test_weak_and_oversized_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_password(password, "ada@example.org", "newPassword")
    assert set(refused.value.fields) == {"newPassword"}


@pytest.mark.parametrize(
    "password", ["correct horse battery", "пароль-из-слов", "x9" * 400 + "yz", "with\0nul and more"]
)
def test_long_and_odd_passwords_are_accepted_and_verified_whole(password: str, io_loop: object) -> None:
    check_password(password, "ada@example.org")

    async def verify() -> tuple[bool, bool]:
        hasher = PasswordHasher(COST)
        stored = await hasher.hash(password)
        right, wrong = await hasher.verify(password, stored), await hasher.verify(password + "!", stored)
        hasher.close()
        return right, wrong

    assert io_loop.run_sync(verify) == (True, False)  # type: ignore[attr-defined]


@pytest.mark.gen_test
async def test_a_damaged_hash_is_a_wrong_password() -> None:
    hasher = PasswordHasher(COST)
    for stored in ("", "x", "$2b$04$short", "$2b$99$" + "a" * 53):
        assert not await hasher.verify("correct horse battery", stored)
    hasher.close()


@pytest.mark.gen_test
async def test_no_account_is_never_a_match() -> None:
    hasher = PasswordHasher(COST)
    assert not await hasher.verify("correct horse battery", None)
    hasher.close()


@pytest.mark.gen_test
async def test_the_queue_is_bounded() -> None:
    hasher = PasswordHasher(COST)
    waiting = [asyncio.ensure_future(hasher.hash("correct horse battery")) for _ in range(QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hasher.hash("one too many")
    hashes = await asyncio.gather(*waiting)
    assert len(set(hashes)) == QUEUE
    assert bcrypt.checkpw(b"x", hashes[0].encode()) is False
    assert await hasher.hash("again")
    hasher.close()
