"""The normalized view of the lists that agents are known to send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.backups import NORMALIZED_LIMIT, normalize_backups
from controlplane.errors import AgentProtocolError


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
