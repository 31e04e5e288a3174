"""The audit trail while the database is there, and while it is not."""

from __future__ import annotations

import pytest

from controlplane.errors import StorageUnavailable
from controlplane.models import AuditEntry, Principal, Role
from controlplane.observability import audit as audit_module
from controlplane.observability.audit import AuditTrail
from controlplane.observability.metrics import Metrics
from tests.fakes import FakeClock

ADA = Principal("usr_ada", "ada@example.org", Role.CUSTOMER, "ses_1")


class Rows:
    def __init__(self) -> None:
        self.actions: list[str] = []
        self.tries = 0
        self.is_away = False

    async def add(self, entry: AuditEntry) -> None:
        self.tries += 1
        if self.is_away:
            raise StorageUnavailable
        self.actions.append(entry.action)


class House:
    def __init__(self) -> None:
        self.rows = Rows()
        self.metrics = Metrics()
        self.trail = AuditTrail(self.rows, FakeClock(), self.metrics.audit_dropped)

    async def record(self, action: str) -> None:
        await self.trail.record(action, "gs_1", actor=ADA, request_id="r", address="192.0.2.1")

    def note(self, action: str) -> None:
        self.trail.note(action, "gs_1", actor=ADA, request_id="r", address="192.0.2.1")


@pytest.mark.gen_test
async def test_a_record_is_stored_at_once_and_a_note_before_the_next_record_or_by_a_flush() -> None:
    house = House()
    await house.record("one")
    house.note("two")
    assert house.rows.actions == ["one"]
    await house.record("three")
    house.note("four")
    await house.trail.flush()
    assert house.rows.actions == ["one", "two", "three", "four"]


@pytest.mark.gen_test
async def test_while_the_database_is_away_one_request_finds_out_and_the_job_writes_all_in_order() -> None:
    house = House()
    house.rows.is_away = True
    for action in ("one", "two", "three"):
        await house.record(action)
    assert house.rows.tries == 1
    house.rows.is_away = False
    await house.trail.flush()
    await house.record("four")
    assert house.rows.actions == ["one", "two", "three", "four"]


@pytest.mark.gen_test
async def test_entries_that_wait_are_bounded_and_those_that_fall_out_are_counted() -> None:
    house = House()
    for number in range(audit_module.WAITING_ENTRIES + 2):
        house.note(str(number))
    await house.trail.flush()
    assert house.rows.actions[0] == "2"
    assert len(house.rows.actions) == audit_module.WAITING_ENTRIES
    assert house.metrics.registry.get_sample_value("controlplane_audit_dropped_total") == 2
