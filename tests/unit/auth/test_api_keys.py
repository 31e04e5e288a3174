"""API keys: scoped, expiring, shown once, revoked."""

from __future__ import annotations

import pytest

from controlplane.auth.api_keys import MAX_KEYS_PER_USER, Scope
from controlplane.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from controlplane.models import Principal, Role, User
from tests.account_house import AccountHouse


def of(user: User) -> Principal:
    return Principal(user.id, user.email, user.role, "ses_1")


@pytest.mark.gen_test
async def test_a_key_authenticates_with_its_scopes_alone_and_is_stored_hashed() -> None:
    house = AccountHouse()
    user = await house.user()
    created = await house.api_keys.create(of(user), "ci", [Scope.INSTANCES_READ], expires_in_days=None)
    assert created.secret.startswith("cpk_")
    assert created.secret not in repr(house.key_rows.keys)
    assert created.secret not in repr(created)
    principal = await house.authenticator.authenticate(created.secret)
    assert principal.may(Scope.INSTANCES_READ)
    assert not principal.may(Scope.INSTANCES_POWER)
    assert principal.session_id is None


@pytest.mark.gen_test
async def test_a_key_expires_also_when_it_is_remembered() -> None:
    house = AccountHouse()
    created = await house.api_keys.create(of(await house.user()), "ci", ["instances:read"], expires_in_days=1)
    house.clock.advance(86_399)
    await house.authenticator.authenticate(created.secret)
    house.clock.advance(1)
    assert house.authenticator.authenticate_cached(created.secret) is None
    with pytest.raises(Unauthenticated):
        await house.authenticator.authenticate(created.secret)


@pytest.mark.gen_test
async def test_a_revoked_key_is_refused_at_once_and_only_its_owner_revokes_it() -> None:
    house = AccountHouse()
    user, other = await house.user(), await house.user("bob@example.org")
    created = await house.api_keys.create(of(user), "ci", ["instances:read"], expires_in_days=None)
    await house.authenticator.authenticate(created.secret)
    with pytest.raises(NotFound):
        await house.api_keys.revoke(other.id, created.key.id)
    await house.api_keys.revoke(user.id, created.key.id)
    assert house.authenticator.authenticate_cached(created.secret) is None
    with pytest.raises(Unauthenticated):
        await house.authenticator.authenticate(created.secret)
    assert await house.api_keys.list_keys(user.id) == []


@pytest.mark.gen_test
async def test_unknown_scopes_are_named_and_admin_is_for_admins() -> None:
    house = AccountHouse()
    customer, admin = await house.user(), await house.user("root@example.org", Role.ADMIN)
    with pytest.raises(InvalidInput, match="scopes") as refused:
        await house.api_keys.create(of(customer), "ci", ["instances:read", "everything"], expires_in_days=None)
    assert "everything" in refused.value.fields["scopes"][0]
    with pytest.raises(Forbidden):
        await house.api_keys.create(of(customer), "ci", ["admin"], expires_in_days=None)
    await house.api_keys.create(of(admin), "ci", ["admin"], expires_in_days=None)


@pytest.mark.gen_test
async def test_the_number_of_keys_is_bounded() -> None:
    house = AccountHouse()
    user = await house.user()
    for number in range(MAX_KEYS_PER_USER):
        await house.api_keys.create(of(user), str(number), ["instances:read"], expires_in_days=None)
    with pytest.raises(Conflict):
        await house.api_keys.create(of(user), "more", ["instances:read"], expires_in_days=None)


@pytest.mark.gen_test
async def test_the_last_use_is_noted_at_most_once_a_minute() -> None:
    house = AccountHouse()
    created = await house.api_keys.create(of(await house.user()), "ci", ["instances:read"], expires_in_days=None)
    for _ in range(5):
        await house.authenticator.authenticate(created.secret)
    assert house.key_rows.touches == 1
    house.clock.advance(60)
    await house.authenticator.authenticate(created.secret)
    assert house.key_rows.touches == 2


@pytest.mark.gen_test
async def test_garbage_is_no_key() -> None:
    house = AccountHouse()
    for secret in ("cpk_", "cpk_x", "cpk_" + "a" * 10_000, "cpk_\ud800"):
        with pytest.raises(Unauthenticated):
            await house.authenticator.authenticate(secret)
