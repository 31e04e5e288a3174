"""Connections under watch end with their credential."""

from __future__ import annotations

import pytest

from controlplane.auth.live import LiveConnections
from controlplane.errors import StorageUnavailable
from tests.account_house import AccountHouse


class Ended:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.mark.gen_test
async def test_a_revocation_here_ends_the_sessions_connections_at_once_and_no_others() -> None:
    house = AccountHouse()
    await house.user()
    live = LiveConnections(house.authenticator)
    first = await house.authenticator.authenticate((await house.login()).access_token)
    second = await house.authenticator.authenticate((await house.login()).access_token)
    ended, other, released = Ended(), Ended(), Ended()
    live.watch(first, ended)
    live.watch(second, other)
    live.release(live.watch(first, released))
    house.authenticator.evict_session(first.session_id or "")
    assert (ended.times, other.times, released.times) == (1, 0, 0)


@pytest.mark.gen_test
async def test_a_revocation_elsewhere_is_found_by_the_check_though_the_token_expired_long_ago() -> None:
    house = AccountHouse()
    await house.user()
    live = LiveConnections(house.authenticator)
    principal = await house.authenticator.authenticate((await house.login()).access_token)
    ended = Ended()
    live.watch(principal, ended)
    house.clock.advance(3_600)
    await house.authenticator.revalidate()
    await live.check()
    assert ended.times == 0
    await house.session_rows.revoke(principal.session_id or "", at=house.clock.now(), reason="elsewhere")
    await live.check()
    await live.check()
    assert ended.times == 1


@pytest.mark.gen_test
async def test_a_database_that_is_away_ends_nothing() -> None:
    house = AccountHouse()
    await house.user()
    live = LiveConnections(house.authenticator)
    principal = await house.authenticator.authenticate((await house.login()).access_token)
    ended = Ended()
    live.watch(principal, ended)
    house.session_rows.is_away = True
    with pytest.raises(StorageUnavailable):
        await live.check()
    assert ended.times == 0
