"""Changes of accounts are told once, whoever made them, and none is lost while storage is away."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import pytest

from controlplane.billing.accounts import Access, BillingAccount
from controlplane.billing.news import BillingNews
from controlplane.errors import StorageUnavailable
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.billing_samples import account


class Listener:
    """Storage is away from it for so many times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.told: list[Set[str]] = []

    async def __call__(self, user_ids: Set[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable
        self.told.append(set(user_ids))


async def begun(database: Database, listener: Listener) -> tuple[BillingHouse, BillingNews]:
    house = BillingHouse(database)
    news = BillingNews(house.accounts, house.events)
    news.add_listener(listener)
    await news.run_once()
    return house, news


def accounts() -> list[BillingAccount]:
    return [account(user_id=f"usr_{number}", customer_id=f"cus_{number}") for number in range(3)]


@pytest.mark.gen_test(timeout=60)
async def test_each_change_is_told_once_with_all_that_changed_together(database: Database) -> None:
    listener = Listener()
    house, news = await begun(database, listener)
    for each in accounts():
        await house.accounts.put(each)
    await news.run_once()
    await news.run_once()
    assert listener.told == [{"usr_0", "usr_1", "usr_2"}]
    await house.accounts.put(replace(accounts()[1], access=Access.NONE, revision=2))
    await news.run_once()
    assert listener.told[1:] == [{"usr_1"}]


@pytest.mark.gen_test(timeout=60)
async def test_what_a_listener_could_not_take_is_told_again(database: Database) -> None:
    listener = Listener(failures=2)
    house, news = await begun(database, listener)
    await house.accounts.put(accounts()[0])
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await news.run_once()
    await news.run_once()
    await news.run_once()
    assert listener.told == [{"usr_0"}]
