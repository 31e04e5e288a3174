"""An account that outlives its process: everything but idempotency keys, as one JSON file, replaced atomically.

Events that had not been delivered are delivered at the next start: at least once holds across both.
"""

from __future__ import annotations

import heapq
import os
from pathlib import Path
from typing import Any

import orjson

from controlplane.demo.fake_stripe.cards import Cards, Dunning
from controlplane.demo.fake_stripe.world import Wire, World

VERSION = 1
EVENTS_KEPT = 2_000


class StateUnreadable(Exception):
    """The file is not one of ours, or of another version."""


def save(file: Path, world: World, *, offset: int) -> None:
    """`offset`: how far the account's time is ahead of the machine's, in seconds."""
    objects = {kind: list(found.values()) for kind, found in world.objects.items()}
    objects["event"] = objects.get("event", [])[-EVENTS_KEPT:]
    state = {
        "version": VERSION,
        "offset": offset,
        "objects": objects,
        "notes": world.notes,
        "alarms": world.alarms,
        "cards": world.cards.told,
        "dunning": [world.dunning.retry_days, world.dunning.end],
    }
    temporary = file.with_name(f".{file.name}.new")
    with temporary.open("wb") as handle:
        handle.write(orjson.dumps(state))
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(file)


def load(file: Path, world: World) -> tuple[int, list[Wire]]:
    """Fill an empty world; the offset, and the events that nobody has taken yet. Nothing happens without the file.
    Raises StateUnreadable."""
    if not file.exists():
        return 0, []
    try:
        state = orjson.loads(file.read_bytes())
        if state["version"] != VERSION:
            raise StateUnreadable(f"{file} is of version {state['version']}, not {VERSION}")
        _fill(world, state)
        offset = int(state["offset"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnreadable(f"{file} cannot be read: {error!r}") from error
    return offset, [event for event in world.objects["event"].values() if event["pending_webhooks"]]


def _fill(world: World, state: dict[str, Any]) -> None:
    for kind, found in state["objects"].items():
        world.objects[kind] = {one["id"]: one for one in found}
    world.notes.update(state["notes"])
    for at, number, kind, object_id in state["alarms"]:
        heapq.heappush(world.alarms, (at, number, kind, object_id))
    world.alarms_set = max((number for _, number, _, _ in world.alarms), default=0)
    world.cards = Cards.from_told(state["cards"])
    retry_days, end = state["dunning"]
    world.dunning = Dunning(tuple(retry_days), end)
