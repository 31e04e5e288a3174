"""What an entitlement lets be done with an instance that is there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.errors import Forbidden
from controlplane.models import Entitlement, Instance, InstanceKind, Principal, Role
from controlplane.rights import OwnerRights
from tests.fakes import FakeEntitlements

ADA = Principal("usr_ada", "ada@example.org", Role.CUSTOMER, "ses_1")
ROOT = Principal("usr_root", "root@example.org", Role.ADMIN, "ses_2")
INSTANCE = Instance(
    id="dev_1",
    kind=InstanceKind.DEV,
    vmid=201,
    name="Workshop",
    owner_id=ADA.user_id,
    address="10.0.0.5",
    port=8081,
    sealed_token=b"sealed",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def without_plan() -> OwnerRights:
    return OwnerRights(FakeEntitlements(ADA.user_id, None))


def rights(*, ide: bool, backups: int) -> OwnerRights:
    return OwnerRights(FakeEntitlements(ADA.user_id, Entitlement({}, 1024, backups, ide)))


@pytest.mark.gen_test
async def test_an_ide_is_for_those_whose_plan_has_it() -> None:
    await rights(ide=True, backups=0).require_ide(ADA, INSTANCE)
    for without in (rights(ide=False, backups=9), without_plan()):
        with pytest.raises(Forbidden) as refused:
            await without.require_ide(ADA, INSTANCE)
        assert (refused.value.stable_code, refused.value.details) == ("not_entitled", {"feature": "ide"})


@pytest.mark.gen_test
async def test_backups_are_as_many_as_the_plan_says_and_none_without_one() -> None:
    assert await rights(ide=False, backups=3).backup_limit(ADA, INSTANCE) == 3
    assert await without_plan().backup_limit(ADA, INSTANCE) == 0


@pytest.mark.gen_test
async def test_an_administrator_is_exempt_also_on_a_customers_instance() -> None:
    without = without_plan()
    await without.require_ide(ROOT, INSTANCE)
    assert await without.backup_limit(ROOT, INSTANCE) is None
