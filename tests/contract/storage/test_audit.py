"""The audit trail: what is added is there to read."""

from __future__ import annotations

import json

import pytest

from controlplane.models import AuditEntry
from controlplane.storage.audit import MongoAuditRepository
from controlplane.storage.database import Database
from tests.contract.storage.moments import NOW


@pytest.mark.gen_test
async def test_an_entry_is_appended_whole(database: Database) -> None:
    audit = MongoAuditRepository(database)
    entry = AuditEntry(NOW, "usr_1", "instance.start", "gs_1", "req_1", "192.0.2.7", {"$where": "1", "big": 1 << 80})
    await audit.add(entry)
    await audit.add(entry)
    rows = await database.collection("audit").find({}).to_list(10)
    assert len(rows) == 2
    assert json.loads(rows[0].pop("detail")) == entry.detail
    del rows[0]["_id"]
    assert rows[0] == {
        "at": NOW,
        "actor_id": "usr_1",
        "action": "instance.start",
        "subject": "gs_1",
        "request_id": "req_1",
        "address": "192.0.2.7",
    }
