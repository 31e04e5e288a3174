"""The authenticator: fast for tokens seen before, and revocation is felt within seconds, here and elsewhere."""

from __future__ import annotations

import pytest

from controlplane.auth.authenticator import FRESH_SECONDS, IN_USE_SECONDS, Authenticator
from controlplane.errors import ControlPlaneError, StorageUnavailable
from controlplane.models import Suspension
from tests.account_house import AccountHouse


async def refused(work: object) -> str:
    with pytest.raises(ControlPlaneError) as error:
        await work  # type: ignore[misc]
    return error.value.stable_code


@pytest.mark.gen_test
async def test_a_token_seen_before_needs_no_storage() -> None:
    house = AccountHouse()
    await house.user()
    token = (await house.login()).access_token
    assert house.authenticator.authenticate_cached(token) is None
    principal = await house.authenticator.authenticate(token)
    reads = house.session_rows.reads
    assert house.authenticator.authenticate_cached(token) is principal
    assert house.session_rows.reads == reads


@pytest.mark.gen_test
async def test_a_remembered_token_still_expires() -> None:
    house = AccountHouse()
    await house.user()
    token = (await house.login()).access_token
    for _ in range(900):
        await house.authenticator.authenticate(token)
        house.clock.advance(1)
        await house.authenticator.revalidate()
    assert house.authenticator.authenticate_cached(token) is None
    assert await refused(house.authenticator.authenticate(token)) == "token_expired"


@pytest.mark.gen_test
async def test_what_another_process_revoked_falls_out_and_listeners_are_told() -> None:
    house = AccountHouse()
    await house.user()
    token = (await house.login()).access_token
    principal = await house.authenticator.authenticate(token)
    told: list[str] = []
    house.authenticator.add_revocation_listener(told.append)
    await house.authenticator.revalidate()
    assert house.authenticator.authenticate_cached(token) is principal
    assert told == []
    await house.session_rows.revoke(principal.session_id or "", at=house.clock.now(), reason="elsewhere")
    await house.authenticator.revalidate()
    assert house.authenticator.authenticate_cached(token) is None
    assert told == [principal.session_id]


@pytest.mark.gen_test
async def test_a_suspension_is_felt_without_an_eviction() -> None:
    house = AccountHouse()
    user = await house.user()
    token = (await house.login()).access_token
    await house.authenticator.authenticate(token)
    await house.users.set_suspension(user.id, Suspension("unpaid", house.clock.now()))
    await house.authenticator.revalidate()
    assert house.authenticator.authenticate_cached(token) is None
    assert await refused(house.authenticator.authenticate(token)) == "suspended"


@pytest.mark.gen_test
async def test_without_the_database_access_ends() -> None:
    house = AccountHouse()
    await house.user()
    token = (await house.login()).access_token
    await house.authenticator.authenticate(token)
    house.session_rows.is_away = True
    with pytest.raises(StorageUnavailable):
        await house.authenticator.revalidate()
    assert house.authenticator.authenticate_cached(token) is not None
    house.clock.advance(FRESH_SECONDS + 0.1)
    assert house.authenticator.authenticate_cached(token) is None
    with pytest.raises(StorageUnavailable):
        await house.authenticator.authenticate(token)


@pytest.mark.gen_test
async def test_revalidation_keeps_a_used_token_fresh_and_forgets_an_unused_one() -> None:
    house = AccountHouse()
    await house.user()
    token = (await house.login()).access_token
    await house.authenticator.authenticate(token)
    for _ in range(10):
        house.clock.advance(FRESH_SECONDS)
        assert house.authenticator.authenticate_cached(token) is not None
        await house.authenticator.revalidate()
    house.clock.advance(IN_USE_SECONDS + 1)
    await house.authenticator.revalidate()
    assert house.authenticator._remembered == {}


@pytest.mark.gen_test
async def test_memory_is_bounded() -> None:
    house = AccountHouse()
    await house.user()
    small = Authenticator(house.tokens, house.users, house.session_rows, house.key_rows, house.clock, remembered=3)
    tokens = [(await house.login()).access_token for _ in range(5)]
    for token in tokens:
        await small.authenticate(token)
    assert [small.authenticate_cached(token) is not None for token in tokens] == [False, False, True, True, True]


@pytest.mark.gen_test
async def test_evicting_a_user_asks_storage_again() -> None:
    house = AccountHouse()
    user = await house.user()
    token = (await house.login()).access_token
    await house.authenticator.authenticate(token)
    house.authenticator.evict_user(user.id)
    assert house.authenticator.authenticate_cached(token) is None
    await house.authenticator.authenticate(token)
