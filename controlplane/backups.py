"""Backups: forwarded to the agent, one backup and one restore at a time per instance, and a normalized view of what
agents list.

Agents take minutes over an archive: these calls have their own deadline and their own places (see `agents.client`).
The normalization is pure, and names what it could not read rather than invent it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from controlplane.agents.client import AgentClient, AgentReply
from controlplane.clock import rfc3339
from controlplane.errors import AgentError, AgentProtocolError, Conflict, ControlPlaneError
from controlplane.events import EventHub, EventKind
from controlplane.instances import InstanceDirectory
from controlplane.models import Instance
from controlplane.ports import LeaseRepository
from controlplane.turns import Turns

LEASE_SECONDS = 60.0
BACKUPS_AT_MOST = 10
BACKUP_WAIT_SECONDS = 10.0
NORMALIZED_LIMIT = 1_000
_DETAIL_LIMIT_BYTES = 4 << 10
_MILLISECONDS_FROM = 1e11
"""A number beyond this is milliseconds since the epoch: as seconds it would be the year 5138."""


class BackupService:
    """Any method may raise what `AgentClient`'s do. `owner` names this process among all that share the database."""

    def __init__(
        self,
        agents: AgentClient,
        directory: InstanceDirectory,
        events: EventHub,
        leases: LeaseRepository,
        owner: str,
        *,
        backup_wait_seconds: float = BACKUP_WAIT_SECONDS,
    ) -> None:
        self._agents = agents
        self._directory = directory
        self._events = events
        self._backups = Turns(
            leases,
            owner,
            "backup",
            at_most=BACKUPS_AT_MOST,
            wait_seconds=backup_wait_seconds,
            busy=_backing_up,
            lease_seconds=LEASE_SECONDS,
        )
        self._restores = Turns(
            leases, owner, "restore", at_most=1, wait_seconds=0, busy=_restoring, lease_seconds=LEASE_SECONDS
        )

    async def list(self, instance: Instance, *, request_id: str) -> AgentReply:
        return await self._agents.list_backups(self._directory.endpoint(instance), request_id=request_id)

    async def create(self, instance: Instance, name: str | None, *, limit: int | None, request_id: str) -> AgentReply:
        """Raises Conflict: `quota_reached` when there are `limit` already (None lets there be any number),
        `backup_in_progress` when those that were asked for before take too long.

        One at a time, in whichever process, so that the count is still true when the next one is made.
        """
        async with self._backups.of(instance.id) as turn:
            if limit is not None:
                await self._require_room(instance, limit, request_id=request_id)
                await turn.check()
            call = self._agents.create_backup(self._directory.endpoint(instance), name, request_id=request_id)
            return await self._telling(instance, "created", None, call)

    async def _require_room(self, instance: Instance, limit: int, *, request_id: str) -> None:
        used = await self._count(instance, request_id=request_id)
        if used >= limit:
            raise Conflict(
                f"This instance has {used} backups and may have {limit}: delete some first, or change your "
                "subscription.",
                code="quota_reached",
                details={"limit": limit, "used": used},
            )

    async def _count(self, instance: Instance, *, request_id: str) -> int:
        """0 where the agent's list cannot be had or read: the call that follows tells what is wrong."""
        try:
            return len(_rows((await self.list(instance, request_id=request_id)).raw))
        except AgentError:
            return 0

    async def restore(self, instance: Instance, backup_id: str, *, request_id: str) -> AgentReply:
        """Raises Conflict (`restore_in_progress`) while another one is under way, in whichever process."""
        async with self._restores.of(instance.id):
            call = self._agents.restore_backup(self._directory.endpoint(instance), backup_id, request_id=request_id)
            return await self._telling(instance, "restored", backup_id, call)

    async def delete(self, instance: Instance, backup_id: str, *, request_id: str) -> AgentReply:
        call = self._agents.delete_backup(self._directory.endpoint(instance), backup_id, request_id=request_id)
        return await self._telling(instance, "deleted", backup_id, call)

    async def _telling(
        self, instance: Instance, action: str, backup_id: str | None, call: Awaitable[AgentReply]
    ) -> AgentReply:
        try:
            reply = await call
        except ControlPlaneError:
            self._publish(instance, "failed", backup_id)
            raise
        self._publish(instance, action, backup_id or _id_of(reply.document or {}))
        return reply

    def _publish(self, instance: Instance, action: str, backup_id: str | None) -> None:
        data = {"instanceId": instance.id, "action": action, "backupId": backup_id}
        self._events.publish(EventKind.BACKUP, instance.owner_id, orjson.dumps(data))


def _backing_up() -> Conflict:
    return Conflict("A backup of this instance is being made; try again when it is done.", code="backup_in_progress")


def _restoring() -> Conflict:
    return Conflict("A restore of this instance is under way.", code="restore_in_progress")


# -- the normalized view ---------------------------------------------------------------------------------------------


def normalize_backups(raw: bytes) -> dict[str, Any]:
    """`{"backups": […], "unreadable": [{"index", "fields"}]}` of an agent's list (docs/api.md, "Backups").

    Known shapes are a bare list, `{backups: […]}` and `{data: […]}`. Raises AgentProtocolError for any other.
    """
    rows = _rows(raw)
    backups: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for index, row in enumerate(rows[:NORMALIZED_LIMIT]):
        backup, fields = _normalize(row)
        if backup is not None:
            backups.append(backup)
        if fields:
            unreadable.append({"index": index, "fields": fields})
    if len(rows) > NORMALIZED_LIMIT:
        unreadable.append({"index": NORMALIZED_LIMIT, "fields": ["more than the view shows"]})
    return {"backups": backups, "unreadable": unreadable}


def _rows(raw: bytes) -> list[Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise AgentProtocolError("The agent's list of backups is not JSON.", code="backups_invalid") from error
    if isinstance(document, dict):
        document = next((document[key] for key in ("backups", "data") if key in document), None)
    if not isinstance(document, list):
        raise AgentProtocolError("The agent's list of backups has an unknown shape.", code="backups_invalid")
    return document


def _normalize(row: object) -> tuple[dict[str, Any] | None, list[str]]:
    """The backup, and the names of what was there but could not be read."""
    if not isinstance(row, dict):
        return None, ["(entry)"]
    backup_id = _id_of(row)
    if backup_id is None:
        return None, ["id"]
    backup: dict[str, Any] = {"id": backup_id}
    wrong: list[str] = []
    for name, (keys, parse) in _FIELDS.items():
        value = next((row[key] for key in keys if row.get(key) is not None), None)
        backup[name] = None if value is None else parse(value)
        if value is not None and backup[name] is None:
            wrong.append(name)
    backup["name"] = backup["name"] or backup_id
    return {**backup, "detail": _detail(row)}, wrong


_ID_KEYS = ("id", "uuid", "name", "file")


def _id_of(row: Mapping[str, Any]) -> str | None:
    for key in _ID_KEYS:
        value = row.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and 0 < len(value) <= 200:
            return value
    return None


def _text(value: object) -> str | None:
    return value[:500] if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _size(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 62:
        return None
    return int(value)


def _moment(value: object) -> str | None:
    """RFC 3339 from ISO 8601 (taken as UTC where it names no zone), or seconds or milliseconds since the epoch."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return rfc3339(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            return None
        seconds = value / 1000 if value >= _MILLISECONDS_FROM else value
        return rfc3339(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError):
        return None


_FIELDS: Mapping[str, tuple[tuple[str, ...], Callable[[object], Any]]] = {
    "name": (("name", "file", "filename"), _text),
    "state": (("state", "status"), _text),
    "sizeBytes": (("sizeBytes", "size_bytes", "bytes", "size"), _size),
    "createdAt": (("createdAt", "created_at", "created", "mtime"), _moment),
    "completedAt": (("completedAt", "completed_at", "completed"), _moment),
    "checksum": (("checksum", "sha256", "sha1", "hash"), _text),
    "locked": (("locked", "isLocked", "is_locked"), _flag),
}
"""Where agents are known to say what, and how it reads; the first key that is there counts."""

_KNOWN = frozenset({*_ID_KEYS, *(key for keys, _ in _FIELDS.values() for key in keys)})


def _detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """What has no place of its own, as long as it is small."""
    rest = {key: value for key, value in row.items() if key not in _KNOWN}
    return rest if len(orjson.dumps(rest)) <= _DETAIL_LIMIT_BYTES else {}
