"""A small line-based game, run as a real process for the demo: `python -m controlplane.demo.line_game NAME`.

Pure standard library. Reads commands from standard input, prints lines, keeps its world in `world.json` in the folder
that it runs in, so that a backup and a restore visibly change it.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

WORLD_FILE = Path("world.json")
START_STEPS = ("Reading the map", "Growing the forest", "Filling the rivers", "Waking the villagers")
START_STEP_SECONDS = 0.25
CHATTER_SECONDS = 10.0
MAX_PLAYERS = 20
FLOOD_LIMIT = 10_000_000
FINDS = ("clay", "an old coin", "a turnip", "iron ore", "nothing but worms", "a clay pipe", "a silver ring")
CHATTER = (
    "Rain falls over {name}.",
    "A fox crosses the market square.",
    "The miller of {name} counts his sacks.",
    "Somewhere a bell rings.",
    "The wind turns to the north.",
)


@dataclass
class World:
    """What is kept between runs."""

    name: str
    days: int = 1
    depth: int = 0
    treasure: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, name: str) -> World:
        try:
            kept = json.loads(WORLD_FILE.read_text())
            return cls(name=name, days=kept["days"] + 1, depth=kept["depth"], treasure=kept["treasure"])
        except FileNotFoundError:
            return cls(name=name)

    def save(self) -> None:
        """Whole or not at all, so that a backup never meets half a world."""
        fresh = WORLD_FILE.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.replace(WORLD_FILE)


class Game:
    """The commands, one method each; each prints its answer."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.players: list[str] = []
        self.ended = False
        self._chance = chance
        self._began = time.monotonic()
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "help": ("help", self._help),
            "players": ("players", self._players),
            "join": ("join NAME", self._join),
            "leave": ("leave NAME", self._leave),
            "say": ("say TEXT", self._say),
            "time": ("time", self._time),
            "save": ("save", self._save),
            "dig": ("dig", self._dig),
            "status": ("status", self._status),
            "crash": ("crash", self._crash),
            "flood": ("flood N", self._flood),
            "quit": ("quit", self._quit),
        }

    def obey(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        known = self._commands.get(word.lower())
        if known is None:
            print(f"Unknown command: {word[:40]}. Try help.")
            return
        known[1](rest.strip())

    def chatter(self) -> None:
        print(self._chance.choice(CHATTER).format(name=self.world.name))

    def _help(self, rest: str) -> None:
        print("Commands: " + ", ".join(usage for usage, _ in self._commands.values()))

    def _players(self, rest: str) -> None:
        print(f"Players ({len(self.players)}/{MAX_PLAYERS}): {', '.join(self.players) or 'nobody'}")

    def _join(self, name: str) -> None:
        name = name[:24]
        if not name or name in self.players or len(self.players) >= MAX_PLAYERS:
            print("Nobody joins: give a new name." if len(self.players) < MAX_PLAYERS else "The world is full.")
            return
        self.players.append(name)
        print(f"{name} joins the game")

    def _leave(self, name: str) -> None:
        if name not in self.players:
            print(f"There is no {name[:24] or 'one'} here.")
            return
        self.players.remove(name)
        print(f"{name} leaves the game")

    def _say(self, text: str) -> None:
        print(f"[Server] {text}")

    def _time(self, rest: str) -> None:
        minutes = int(time.monotonic() - self._began) + 6 * 60
        print(f"Day {self.world.days}, {minutes // 60 % 24:02}:{minutes % 60:02}")

    def _save(self, rest: str) -> None:
        self.world.save()
        print("World saved")

    def _dig(self, rest: str) -> None:
        self.world.depth += 1
        find = self._chance.choice(FINDS)
        if not find.startswith("nothing"):
            self.world.treasure = [*self.world.treasure, find][-100:]
        self.world.save()
        print(f"You dig to {self.world.depth} m and find {find}")

    def _status(self, rest: str) -> None:
        world = self.world
        print(f"{world.name}: day {world.days}, {world.depth} m deep, {len(world.treasure)} finds kept")

    def _crash(self, rest: str) -> None:
        print("The sky falls.", flush=True)
        os._exit(70)  # at once, without saving: a crash

    def _flood(self, rest: str) -> None:
        count = min(int(rest), FLOOD_LIMIT) if rest.isdecimal() else 1000
        began = time.monotonic()
        for first in range(0, count, 1000):
            lines = (f"flood line {number} of {count}\n" for number in range(first + 1, min(first + 1000, count) + 1))
            sys.stdout.write("".join(lines))
        sys.stdout.flush()
        print(f"Flood over: {count} lines in {time.monotonic() - began:.2f} s")

    def _quit(self, rest: str) -> None:
        self.world.save()
        print("World saved, good night")
        self.ended = True


def start(name: str) -> World:
    print(f"Starting {name}")
    for step in START_STEPS:
        print(f"{step} ...", flush=True)
        time.sleep(START_STEP_SECONDS)
    world = World.load(name)
    print(f"World ready: {name}, day {world.days}", flush=True)
    return world


def incoming(wait_seconds: float) -> Iterator[str | None]:
    """Lines of standard input as they come; None whenever `wait_seconds` pass without one."""
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], wait_seconds)
        if not readable:
            yield None
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
        rest = rest[-4096:]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m controlplane.demo.line_game NAME", file=sys.stderr)
        return 2
    game = Game(start(sys.argv[1]), random.Random())  # noqa: S311 - a game's chance, no secret
    for line in incoming(CHATTER_SECONDS):
        if line is None:
            game.chatter()
        else:
            game.obey(line)
        sys.stdout.flush()
        if game.ended:
            return 0
    game.world.save()  # the input is closed: nobody is left to say quit
    return 0


if __name__ == "__main__":
    sys.exit(main())
