"""One backup at a time within its limit, and the normalized view of the lists that agents are known to send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from controlplane.agents.client import AgentClient
from controlplane.backups import NORMALIZED_LIMIT, BackupService, normalize_backups
from controlplane.errors import AgentProtocolError, Conflict
from controlplane.models import Instance
from controlplane.ports import AgentResponse
from tests.fakes import FakeTransport
from tests.provisioning_house import ProvisioningHouse


def one(row: dict[str, Any]) -> dict[str, Any]:
    view = normalize_backups(json.dumps([row]).encode())
    assert view["unreadable"] == []
    backup: dict[str, Any] = view["backups"][0]
    return backup


ROW = {"id": "b1", "size": 10}


@pytest.mark.parametrize("document", [[ROW], {"backups": [ROW]}, {"data": [ROW], "total": 1}])
def test_known_shapes_of_the_list_are_read(document: object) -> None:
    assert [backup["id"] for backup in normalize_backups(json.dumps(document).encode())["backups"]] == ["b1"]


@pytest.mark.parametrize("raw", [b"", b"<html>", b"{}", b'{"backups": {"b1": {}}}', b'"b1"', b"null"])
def test_an_unknown_shape_is_an_error_of_the_agent(raw: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        normalize_backups(raw)


@pytest.mark.parametrize(
    ("row", "backup_id"),
    [({"uuid": "u"}, "u"), ({"name": "n"}, "n"), ({"file": "f.tar"}, "f.tar"), ({"id": 7, "name": "n"}, "7")],
)
def test_the_id_is_found_under_its_known_names(row: dict[str, Any], backup_id: str) -> None:
    assert one(row)["id"] == backup_id


@pytest.mark.parametrize(
    "created",
    ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01T12:00:00", 1_772_366_400, 1_772_366_400_000],
)
def test_times_are_read_from_iso_seconds_and_milliseconds(created: object) -> None:
    assert one({"id": "b", "created_at": created})["createdAt"] == "2026-03-01T12:00:00.000Z"


@pytest.mark.parametrize(("key", "value"), [("size", 5), ("bytes", "5"), ("sizeBytes", 5.0), ("size_bytes", 5)])
def test_sizes_are_read_under_their_known_names(key: str, value: object) -> None:
    assert one({"id": "b", key: value})["sizeBytes"] == 5


def test_what_is_absent_is_null_and_the_rest_is_kept_as_detail() -> None:
    assert one({"id": "b", "note": "before the update"}) == {
        "id": "b",
        "name": "b",
        "state": None,
        "sizeBytes": None,
        "createdAt": None,
        "completedAt": None,
        "checksum": None,
        "locked": None,
        "detail": {"note": "before the update"},
    }


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("sizeBytes", {"size": -1}),
        ("sizeBytes", {"size": "big"}),
        ("sizeBytes", {"size": True}),
        ("createdAt", {"created": "yesterday"}),
        ("createdAt", {"created": 1e300}),
        ("createdAt", {"created": [1]}),
        ("locked", {"locked": "no"}),
        ("checksum", {"checksum": {"sha256": "x"}}),
    ],
)
def test_what_cannot_be_read_is_named_and_not_invented(field: str, row: dict[str, Any]) -> None:
    view = normalize_backups(json.dumps([{"id": "a"}, {"id": "b", **row}]).encode())
    assert view["backups"][1][field] is None
    assert view["unreadable"] == [{"index": 1, "fields": [field]}]


def test_an_entry_without_an_id_or_of_another_kind_is_named() -> None:
    view = normalize_backups(b'[{"size": 1}, "b1", {"id": "good"}]')
    assert [backup["id"] for backup in view["backups"]] == ["good"]
    assert view["unreadable"] == [{"index": 0, "fields": ["id"]}, {"index": 1, "fields": ["(entry)"]}]


def test_the_view_is_bounded_and_says_so() -> None:
    rows = [{"id": str(number), "note": "x" * 10_000} for number in range(NORMALIZED_LIMIT + 1)]
    view = normalize_backups(json.dumps(rows).encode())
    assert len(view["backups"]) == NORMALIZED_LIMIT
    assert view["backups"][0]["detail"] == {}
    assert view["unreadable"] == [{"index": NORMALIZED_LIMIT, "fields": ["more than the view shows"]}]


# -- within the limit --------------------------------------------------------------------------------------------------


class Archives(FakeTransport):
    """An agent whose backups are listed once they are made, which takes until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.go = asyncio.Event()
        self.begun: asyncio.Queue[str] = asyncio.Queue()

    def request(self, endpoint, method, target, **rest):  # type: ignore[no-untyped-def]
        return self._create(target) if method == "POST" else self._list()

    async def _list(self) -> AgentResponse:
        listed = json.dumps([{"id": backup_id} for backup_id in self.made]).encode()
        await asyncio.sleep(0)
        return AgentResponse(200, {}, listed)

    async def _create(self, target: str) -> AgentResponse:
        self.begun.put_nowait(target)
        await self.go.wait()
        self.made.append(f"b{len(self.made)}")
        return AgentResponse(201, {}, json.dumps({"id": self.made[-1]}).encode())


class NobodyFollows:
    def publish(self, *_: object) -> None:
        """No stream is open."""


async def archiving(*owners: str, wait_seconds: float = 60) -> tuple[Archives, Instance, list[BackupService]]:
    """The services of as many processes on one database, and an instance to make backups of."""
    house = ProvisioningHouse()
    await house.begin()
    instance = await house.instance()
    agent = Archives()
    agents = AgentClient(
        agent, poll_timeout_seconds=1, action_timeout_seconds=1, backup_timeout_seconds=30, body_limit_bytes=1 << 16
    )
    return (
        agent,
        instance,
        [
            BackupService(
                agents,
                house.directory,
                NobodyFollows(),  # type: ignore[arg-type]
                house.leases,
                owner,
                backup_wait_seconds=wait_seconds,
            )
            for owner in owners
        ],
    )


def create(service: BackupService, instance: Instance, *, limit: int | None = 2) -> Awaitable[Any]:
    return asyncio.ensure_future(service.create(instance, None, limit=limit, request_id="r"))


@pytest.mark.gen_test
async def test_of_many_backups_asked_for_at_once_no_more_are_made_than_fit() -> None:
    agent, instance, services = await archiving("here", "there")
    agent.go.set()
    asked = [create(service, instance) for service in services for _ in range(4)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Conflict)]
    assert [error.stable_code for error in refused] == ["quota_reached"] * 6
    assert refused[0].details == {"limit": 2, "used": 2}
    assert agent.made == ["b0", "b1"]


@pytest.mark.gen_test
async def test_backups_beyond_a_limit_that_fell_stay_and_no_more_are_made_until_there_is_room() -> None:
    agent, instance, (service,) = await archiving("here")
    agent.go.set()
    agent.made = ["old", "older", "oldest"]
    with pytest.raises(Conflict) as refused:
        await create(service, instance, limit=1)
    assert refused.value.details == {"limit": 1, "used": 3}
    assert len(agent.made) == 3
    agent.made = []
    await create(service, instance, limit=1)
    assert agent.made == ["b0"]


@pytest.mark.gen_test
async def test_who_would_wait_too_long_for_the_backup_before_is_told_so() -> None:
    agent, instance, services = await archiving("here", "there", wait_seconds=0)
    first = create(services[0], instance)
    await agent.begun.get()
    for service in services:
        with pytest.raises(Conflict) as refused:
            await create(service, instance, limit=None)
        assert refused.value.stable_code == "backup_in_progress"
    agent.go.set()
    await first
    await create(services[1], instance)
    assert agent.made == ["b0", "b1"]


@pytest.mark.gen_test
async def test_a_restore_does_not_wait_for_a_backup() -> None:
    agent, instance, (service,) = await archiving("here")
    first = create(service, instance)
    await agent.begun.get()
    restoring = asyncio.ensure_future(service.restore(instance, "b1", request_id="r"))
    assert (await agent.begun.get()).startswith("/game/backups/restore")
    agent.go.set()
    await asyncio.gather(first, restoring)
