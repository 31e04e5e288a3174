"""How instances read as JSON: the record, its normalized state, and pages of both. Reads memory only.

This is the portal's hot path: what does not change with the moment of reading is serialized once per revision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from prometheus_client import Gauge

from controlplane.agents.cache import StateCache
from controlplane.agents.states import is_stale, state_json_around_age
from controlplane.clock import rfc3339
from controlplane.instances import InstanceDirectory
from controlplane.models import AgentState, Connection, Instance, InstanceKind, Operation, Principal
from controlplane.ports import Clock
from controlplane.provisioning.board import OperationBoard
from controlplane.provisioning.documents import state_operation


@dataclass(frozen=True, slots=True)
class _Rendered:
    """An instance's JSON but for the age of its state, and what it was made of. Milliseconds since the epoch.

    `observed_ms` is None where the agent was never observed; `stale_from_ms` is when a fresh state goes stale by age.
    Before and behind the age stand `head` and `tail`; the state itself begins at `state_start` and ends one byte early.
    """

    instance: Instance
    state: AgentState
    operation: Operation | None
    is_stale: bool
    stale_from_ms: int
    observed_ms: int | None
    head: bytes
    tail: bytes
    state_start: int

    def state_at(self, now_ms: int) -> bytes:
        return _around_age(self.head[self.state_start :], self.observed_ms, now_ms, self.tail[:-1])

    def document_at(self, now_ms: int) -> bytes:
        return _around_age(self.head, self.observed_ms, now_ms, self.tail)


class InstanceViews:
    """`stale_after_seconds` is the age from which a state is served as stale."""

    def __init__(
        self,
        directory: InstanceDirectory,
        states: StateCache,
        clock: Clock,
        operations: OperationBoard,
        *,
        stale_after_seconds: float,
    ) -> None:
        self._directory = directory
        self._operations = operations
        self._states = states
        self._clock = clock
        self._stale_after_seconds = stale_after_seconds
        self._rendered: dict[str, _Rendered] = {}
        directory.add_listener(self._forget)

    def document(self, instance: Instance) -> bytes:
        """`{"id","kind","vmid","name","ownerId","createdAt","state"}` (docs/api.md, "Instances")."""
        return self._document(instance, self._clock.now())

    def documents(self, principal: Principal) -> Iterator[bytes]:
        """Every instance that the caller may see, as `document`. To be read while instances come and go."""
        last_id = ""
        while True:
            instance = next(self._directory.visible_to(principal, after=last_id), None)
            if instance is None:
                return
            last_id = instance.id
            yield self.document(instance)

    def admin_document(self, instance: Instance) -> bytes:
        """As `document`, with where the agent lives. Never its secret."""
        where = {
            "address": instance.address,
            "port": instance.port,
            "https": instance.https,
            "idePort": instance.ide_port,
            "gamePort": instance.game_port,
            "published": instance.published,
        }
        return self._document(instance, self._clock.now())[:-1] + b"," + orjson.dumps(where)[1:]

    def state_document(self, instance: Instance) -> bytes:
        now = self._clock.now()
        now_ms = _milliseconds(now)
        rendered = self._render(instance, now, now_ms)
        return rendered.state_at(now_ms)

    def etag(self, instance: Instance) -> str:
        """The state's revision. A state that went stale by age alone is told apart: no poll raised its revision."""
        state = self._states.get(instance.id)
        aged = state.confirmed and is_stale(state, self._clock.now(), self._stale_after_seconds)
        operation = self._operations.of_instance(instance.id)
        under_way = "" if operation is None else f"-{operation.id}.{operation.revision}"
        return f'"{state.revision}.{instance.revision}{under_way}{"-stale" if aged else ""}"'

    def page(self, principal: Principal, kind: InstanceKind | None, query: Mapping[str, Any]) -> bytes:
        """`{"items","nextAfter"}` of what the caller may see and the query's filters let through."""
        now = self._clock.now()
        now_ms = _milliseconds(now)
        limit: int = query["limit"]
        only = InstanceKind(query["kind"]) if "kind" in query else kind
        if kind is not None and only is not kind:
            return b'{"items":[],"nextAfter":null}'
        ready: str | None = query.get("ready")
        connection: str | None = query.get("connection")
        owner: str | None = query.get("ownerId")
        is_filtered = ready is not None or connection is not None
        items: list[bytes] = []
        last_id = ""
        next_after = None
        for instance in self._directory.visible_to(principal, after=query.get("after")):
            if (only is not None and instance.kind is not only) or (owner is not None and instance.owner_id != owner):
                continue
            rendered = self._render(instance, now, now_ms)
            if is_filtered and not _lets_through(rendered, ready, connection):
                continue
            if len(items) == limit:
                next_after = last_id
                break
            items.append(rendered.document_at(now_ms))
            last_id = instance.id
        return b'{"items":[%b],"nextAfter":%b}' % (b",".join(items), orjson.dumps(next_after))

    def observe(self, gauge: Gauge) -> None:
        """Set the gauge of instances by kind and connection."""
        counts = Counter(
            (instance.kind.value, self._states.get(instance.id).connection.value) for instance in self._directory.all()
        )
        for kind in InstanceKind:
            for connection in Connection:
                gauge.labels(kind.value, connection.value).set(counts[kind.value, connection.value])

    def _document(self, instance: Instance, now: datetime) -> bytes:
        now_ms = _milliseconds(now)
        rendered = self._render(instance, now, now_ms)
        return rendered.document_at(now_ms)

    def _render(self, instance: Instance, now: datetime, now_ms: int) -> _Rendered:
        state = self._states.get(instance.id)
        operation = self._operations.of_instance(instance.id)
        known = self._rendered.get(instance.id)
        if (
            known is not None
            and known.state is state
            and known.operation is operation
            and known.instance is instance
            and (known.is_stale or now_ms <= known.stale_from_ms)
        ):
            return known
        stale = is_stale(state, now, self._stale_after_seconds)
        ahead, behind = state_json_around_age(
            state, suspension=instance.suspension, operation=state_operation(operation), stale=stale
        )
        record = _record_prefix(instance)
        observed_ms = None if state.observed_at is None else _milliseconds(state.observed_at)
        rendered = _Rendered(
            instance=instance,
            state=state,
            operation=operation,
            is_stale=stale,
            stale_from_ms=(observed_ms or 0) + int(self._stale_after_seconds * 1000),
            observed_ms=observed_ms,
            head=record + ahead,
            tail=behind + b"}",
            state_start=len(record),
        )
        self._rendered[instance.id] = rendered
        return rendered

    def _forget(self, before: Instance | None, after: Instance | None) -> None:
        if after is None and before is not None:
            self._rendered.pop(before.id, None)


def _around_age(head: bytes, observed_ms: int | None, now_ms: int, tail: bytes) -> bytes:
    """An age is never negative, though clocks are set back."""
    if observed_ms is None:
        return b"%bnull%b" % (head, tail)
    return b"%b%d%b" % (head, now_ms - observed_ms if now_ms > observed_ms else 0, tail)


def _record_prefix(instance: Instance) -> bytes:
    record = {
        "id": instance.id,
        "kind": instance.kind.value,
        "vmid": instance.vmid,
        "name": instance.name,
        "ownerId": instance.owner_id,
        "createdAt": rfc3339(instance.created_at),
    }
    return orjson.dumps(record)[:-1] + b',"state":'


def _lets_through(rendered: _Rendered, ready: str | None, connection: str | None) -> bool:
    state = rendered.state
    if connection is not None and state.connection.value != connection:
        return False
    return ready is None or (state.ready and not rendered.is_stale) == (ready == "true")


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
