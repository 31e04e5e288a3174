from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.demo.line_game import WORLD_FILE, Game, World


@pytest.fixture
def game(tmp_path: Path) -> Iterator[Game]:
    with contextlib.chdir(tmp_path):  # the game keeps its world in the folder that it runs in
        yield Game(World.load("Testholm"), random.Random(1))


def answer(game: Game, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    game.obey(line)
    return capsys.readouterr().out.strip()


def test_every_command_of_the_help_is_known(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    listed = answer(game, "help", capsys).removeprefix("Commands: ").split(", ")
    assert [usage.split()[0] for usage in listed] == [
        *("help", "players", "join", "leave", "say", "time", "save", "dig", "status", "crash", "flood", "quit")
    ]
    assert answer(game, "jump", capsys) == "Unknown command: jump. Try help."


def test_players_come_and_go(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(game, "join Ada", capsys) == "Ada joins the game"
    assert answer(game, "players", capsys) == "Players (1/20): Ada"
    assert answer(game, "leave Ada", capsys) == "Ada leaves the game"
    assert answer(game, "players", capsys) == "Players (0/20): nobody"


def test_a_dig_changes_the_world_on_the_disk(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(game, "dig", capsys).startswith("You dig to 1 m and find ")
    assert json.loads(WORLD_FILE.read_text())["depth"] == 1
    assert World.load("Testholm").depth == 1


def test_a_flood_has_the_length_that_was_asked_for(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    lines = answer(game, "flood 2500", capsys).split("\n")
    assert lines[0] == "flood line 1 of 2500"
    assert lines[2499] == "flood line 2500 of 2500"
    assert lines[2500].startswith("Flood over: 2500 lines")


def test_a_quit_saves_and_ends(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    answer(game, "quit", capsys)
    assert game.ended
    assert WORLD_FILE.exists()
