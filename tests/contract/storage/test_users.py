"""Accounts: the unique email, compare-and-set of the password, pages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.errors import Conflict, MalformedRequest
from controlplane.models import Role, Suspension, User
from controlplane.storage.database import Database
from controlplane.storage.users import MongoUserRepository
from tests.contract.storage.moments import NOW


def user(number: int = 1, **changes: Any) -> User:
    plain = User(f"usr_{number:03}", f"player{number}@example.org", "hash-1", Role.CUSTOMER, NOW, NOW)
    return replace(plain, **changes)


@pytest.fixture
def users(database: Database) -> MongoUserRepository:
    return MongoUserRepository(database)


@pytest.mark.gen_test
async def test_a_user_comes_back_as_it_was_stored(users: MongoUserRepository) -> None:
    stored = user(suspension=Suspension("unpaid", NOW), role=Role.ADMIN)
    await users.add(stored)
    assert await users.get(stored.id) == stored
    assert await users.find_by_email(stored.email) == stored


@pytest.mark.gen_test
async def test_what_is_missing_is_none(users: MongoUserRepository) -> None:
    assert await users.get("usr_none") is None
    assert await users.find_by_email("nobody@example.org") is None
    assert await users.set_suspension("usr_none", None) is None


@pytest.mark.gen_test
async def test_an_email_in_use_is_a_conflict(users: MongoUserRepository) -> None:
    await users.add(user(1))
    with pytest.raises(Conflict) as caught:
        await users.add(user(2, email=user(1).email))
    assert caught.value.stable_code == "email_taken"


@pytest.mark.gen_test
async def test_one_of_many_racers_gets_an_email(users: MongoUserRepository) -> None:
    racers = [users.add(user(number, email="wanted@example.org")) for number in range(30)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert [result for result in results if result is None] == [None]
    assert all(isinstance(result, Conflict) for result in results if result is not None)


@pytest.mark.gen_test
async def test_one_of_many_racers_changes_a_password(users: MongoUserRepository) -> None:
    await users.add(user())
    racers = [
        users.set_password("usr_001", expected_hash="hash-1", new_hash=f"new-{number}", at=NOW) for number in range(30)
    ]
    results = await asyncio.gather(*racers)
    assert results.count(True) == 1
    changed = await users.get("usr_001")
    assert changed is not None
    assert changed.password_hash == f"new-{results.index(True)}"


@pytest.mark.gen_test
async def test_a_suspension_is_set_and_lifted(users: MongoUserRepository) -> None:
    await users.add(user())
    suspension = Suspension("abuse", NOW + timedelta(days=1))
    suspended = await users.set_suspension("usr_001", suspension)
    assert suspended == user(suspension=suspension)
    assert await users.set_suspension("usr_001", None) == user()


@pytest.mark.gen_test
async def test_pages_follow_one_another_in_order_of_id(users: MongoUserRepository) -> None:
    for number in (3, 1, 2, 5, 4):
        await users.add(user(number))
    first = await users.page(limit=2, after=None)
    second = await users.page(limit=2, after=first[-1].id)
    third = await users.page(limit=2, after=second[-1].id)
    assert [each.id for each in [*first, *second, *third]] == [f"usr_{number:03}" for number in range(1, 6)]
    assert await users.page(limit=2, after=third[-1].id) == []


@pytest.mark.gen_test
async def test_many_are_found_by_id_and_the_missing_are_left_out(users: MongoUserRepository) -> None:
    for number in range(70):
        await users.add(user(number))
    wanted = [f"usr_{number:03}" for number in range(140)]
    assert await users.get_many([*wanted, "usr_000"]) == {user(number).id: user(number) for number in range(70)}
    assert await users.get_many([]) == {}


@pytest.mark.gen_test
async def test_roles_are_counted(users: MongoUserRepository) -> None:
    await users.add(user(1))
    await users.add(user(2, role=Role.ADMIN))
    await users.add(user(3))
    assert await users.count(role=Role.ADMIN) == 1
    assert await users.count(role=Role.CUSTOMER) == 2


@pytest.mark.gen_test
async def test_an_operator_is_no_value(users: MongoUserRepository) -> None:
    await users.add(user())
    operator: Any = {"$gt": ""}
    with pytest.raises(TypeError):
        await users.find_by_email(operator)
    with pytest.raises(TypeError):
        await users.set_password("usr_001", expected_hash=operator, new_hash="x", at=NOW)


@pytest.mark.gen_test
async def test_text_that_is_no_unicode_is_refused(users: MongoUserRepository) -> None:
    with pytest.raises(MalformedRequest):
        await users.find_by_email("\ud800@example.org")
