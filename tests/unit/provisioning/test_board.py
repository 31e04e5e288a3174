"""What is under way is known to this process, and every change is told once."""

from __future__ import annotations

import pytest

from controlplane.models import OperationKind
from tests.provisioning_house import ADA, begun


@pytest.mark.gen_test
async def test_the_board_knows_what_is_done_to_an_instance_and_tells_every_change_once() -> None:
    house = await begun()
    instance = await house.instance()
    operation = await house.service.request(OperationKind.DELETE, instance, ADA.user_id)
    known = house.board.of_instance(instance.id)
    assert known is not None
    assert known.id == operation.id
    await house.settle()
    assert house.board.of_instance(instance.id) is None
    told = [each.revision for each in house.seen if each.id == operation.id]
    assert told == sorted(set(told))
    count = len(house.seen)
    await house.board.sync()
    assert len(house.seen) == count
