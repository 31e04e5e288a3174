"""Backups of the reference agent: real archives, restored into place over a running process."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.refagent_process import GAME_OPTIONS, LINE_GAME, AgentProcess, Answer, until


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent") / "data"
    with AgentProcess(folder, LINE_GAME, *GAME_OPTIONS) as agent:
        yield agent


def depth(agent: AgentProcess) -> int:
    """As the game has saved it: whole, by a rename."""
    try:
        depth: int = json.loads((agent.files / "world.json").read_text())["depth"]
    except FileNotFoundError:
        return 0
    return depth


async def dig(agent: AgentProcess) -> int:
    """The depth when it is saved."""
    wanted = depth(agent) + 1
    await agent.command("dig")

    async def has_dug() -> bool:
        return depth(agent) == wanted

    await until(has_dug)
    return wanted


def plant(agent: AgentProcess, backup_id: str, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """An archive that is not ours, with notes that make it look so."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    plant_raw(agent, backup_id, packed.getvalue())


def plant_raw(agent: AgentProcess, backup_id: str, archive: bytes) -> None:
    folder = agent.folder / "backups"
    (folder / f"{backup_id}.tar.gz").write_bytes(archive)
    notes = {"id": backup_id, "createdAt": "", "checksum": f"sha256:{hashlib.sha256(archive).hexdigest()}"}
    (folder / f"{backup_id}.json").write_text(json.dumps(notes))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info, b"owned" if kind == tarfile.REGTYPE else b""


async def until_held_up(agent: AgentProcess) -> tuple[asyncio.Task[Answer], psutil.Process]:
    """A backup that is being made, and its program, which stands still. One that ended before is made again."""
    while True:
        making = asyncio.create_task(agent.post("/game/backups"))
        while not making.done():
            await asyncio.sleep(0.01)
            for child in psutil.Process(agent.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "controlplane.refagent.archive" not in child.cmdline():
                        continue
                    child.suspend()
                    if child.status() == psutil.STATUS_STOPPED:
                        return making, child
        assert (await making).status == 201


async def create(agent: AgentProcess, name: str | None = None) -> dict[str, Any]:
    answer = await agent.post("/game/backups", {"name": name} if name else None)
    assert answer.status == 201, answer.raw
    notes: dict[str, Any] = answer.body
    return notes


@pytest.mark.gen_test
async def test_a_restore_brings_back_the_old_world_and_the_process(agent: AgentProcess) -> None:
    await agent.until_ready()
    dug = await dig(agent)
    script = agent.files / "tools" / "run.sh"
    script.parent.mkdir(exist_ok=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.symlink("tools/run.sh", agent.files / "run")
    os.link(script, agent.files / "same")
    (agent.files / "größe.txt").write_text("naïve")

    notes = await create(agent, "before digging on")
    archive = agent.folder / "backups" / f"{notes['id']}.tar.gz"
    assert notes["checksum"] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert notes["sizeBytes"] == archive.stat().st_size
    assert (notes["name"], notes["state"], notes["warnings"]) == ("before digging on", "completed", [])
    assert (await agent.get("/game/backups"))["backups"][0] == notes

    old_pid = (await agent.get("/status"))["pid"]
    assert await dig(agent) == dug + 1
    (agent.files / "added-later").write_text("x")
    script.unlink()
    (agent.files / "größe.txt").write_text("changed")

    answer = await agent.post(f"/game/backups/restore?id={notes['id']}")
    assert (answer.status, answer.body["restored"]["id"]) == (200, notes["id"])
    await agent.until_ready()
    assert (await agent.get("/status"))["pid"] != old_pid
    assert depth(agent) == dug
    assert not (agent.files / "added-later").exists()
    assert (agent.files / "größe.txt").read_text() == "naïve"
    assert script.stat().st_mode & 0o777 == 0o755
    assert (agent.files / "run").readlink() == Path("tools/run.sh")
    assert (agent.files / "same").samefile(script)
    assert list((agent.folder / "staging").iterdir()) == []


@pytest.mark.gen_test
async def test_a_restore_leaves_a_stopped_process_stopped(agent: AgentProcess) -> None:
    notes = await create(agent)
    await agent.post("/stop")
    await agent.until_state("stopped")
    try:
        assert (await agent.post(f"/game/backups/restore?id={notes['id']}")).status == 200
        assert (await agent.get("/status"))["state"] == "stopped"
    finally:
        await agent.post("/start")


@pytest.mark.gen_test
async def test_a_deleted_backup_is_gone(agent: AgentProcess) -> None:
    notes = await create(agent)
    assert (await agent.call("DELETE", f"/game/backups/{notes['id']}")).status == 200
    assert notes["id"] not in [one["id"] for one in (await agent.get("/game/backups"))["backups"]]
    assert not list((agent.folder / "backups").glob(f"{notes['id']}*"))
    assert (await agent.call("DELETE", f"/game/backups/{notes['id']}")).status == 404


@pytest.mark.parametrize("backup_id", ["unknown", "..", "%2e%2e%2ffiles", "a%00b", ".hidden", "x" * 100])
@pytest.mark.gen_test
async def test_an_unknown_backup_is_a_404(agent: AgentProcess, backup_id: str) -> None:
    assert (await agent.call("DELETE", f"/game/backups/{backup_id}")).status == 404
    assert (await agent.post(f"/game/backups/restore?id={backup_id}")).status == 404


@pytest.mark.parametrize(
    "target", ["/game/backups/restore", "/game/backups/restore?id=", "/game/backups/restore?id=a&id=b"]
)
@pytest.mark.gen_test
async def test_a_restore_needs_one_id(agent: AgentProcess, target: str) -> None:
    assert (await agent.post(target)).status == 422


@pytest.mark.parametrize("body", [{"name": 1}, {"name": ""}, {"name": "a\nb"}, {"name": "x" * 101}, {"other": 1}])
@pytest.mark.gen_test
async def test_a_backup_with_a_wrong_name_is_refused(agent: AgentProcess, body: Any) -> None:
    assert (await agent.post("/game/backups", body)).status == 422


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped")],
        [member("a/../../escaped")],
        [member("/tmp/escaped")],
        [member("out", tarfile.SYMTYPE, "/"), member("out/escaped")],
        [member("out", tarfile.SYMTYPE, ".."), member("out/escaped")],
        [member("in", tarfile.SYMTYPE, "."), member("in/escaped")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../../x")],
        [member("a", tarfile.SYMTYPE, "."), member("b", tarfile.SYMTYPE, "a/..")],
        [member("hard", tarfile.LNKTYPE, "../../world.json")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("target", tarfile.SYMTYPE, "x"), member("target")],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("disk", tarfile.BLKTYPE)],
    ],
    ids=lambda members: "+".join(f"{info.name}>{info.linkname}" for info, _ in members),
)
@pytest.mark.gen_test
async def test_a_hostile_archive_is_refused_and_changes_nothing(
    agent: AgentProcess, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    plant(agent, "hostile", members)
    files = sorted(path.name for path in agent.files.iterdir())
    pid = (await agent.get("/status")).get("pid")
    answer = await agent.post("/game/backups/restore?id=hostile")
    assert (answer.status, answer.body["code"]) == (409, "archive_refused")
    assert sorted(path.name for path in agent.files.iterdir()) == files
    assert not list(agent.folder.parent.rglob("escaped"))
    assert (await agent.get("/status")).get("pid") == pid  # it was not even stopped


@pytest.mark.gen_test
async def test_a_damaged_archive_is_refused(agent: AgentProcess) -> None:
    notes = await create(agent)
    archive = agent.folder / "backups" / f"{notes['id']}.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    answer = await agent.post(f"/game/backups/restore?id={notes['id']}")
    assert (answer.status, answer.body["code"]) == (409, "backup_damaged")
    nothing = gzip.compress(bytes(10_240))
    for raw in (
        b"",
        b"not gzip",
        gzip.compress(b"not tar" * 200),
        whole[: len(whole) // 2],
        whole[:-4],  # all members, but not gzip's sum of them
        nothing[: len(nothing) // 2],
        gzip.compress(bytes(8 << 20)),
    ):
        plant_raw(agent, "damaged", raw)
        answer = await agent.post("/game/backups/restore?id=damaged")
        assert (answer.status, answer.body["code"]) == (409, "backup_damaged"), raw[:20]


@pytest.mark.gen_test
async def test_one_operation_at_a_time_and_the_loop_stays_free(agent: AgentProcess) -> None:
    (agent.files / "large").write_bytes(os.urandom(30_000_000))
    making, program = await until_held_up(agent)
    try:
        assert (await agent.get("/game/backups"))["backups"][0]["state"] == "creating"
        for busy in (
            agent.post("/game/backups"),
            agent.post("/game/backups/restore?id=x"),
            agent.call("DELETE", "/game/backups/x"),
        ):
            answer = await busy
            assert (answer.status, answer.body["code"], answer.body["operation"]) == (409, "backup_busy", "create")
        assert (await agent.call("GET", "/health")).status == 200
    finally:
        program.resume()
    assert (await making).status == 201
    (agent.files / "large").unlink()


@pytest.mark.gen_test
async def test_what_cannot_be_archived_is_left_out_and_said(agent: AgentProcess) -> None:
    os.mkfifo(agent.files / "pipe")
    os.symlink("/etc", agent.files / "etc")
    try:
        notes = await create(agent)
        assert [warning.split(":")[0] for warning in notes["warnings"]] == ["etc", "pipe"]
        assert (await agent.post(f"/game/backups/restore?id={notes['id']}")).status == 200
    finally:
        for name in ("pipe", "etc"):
            (agent.files / name).unlink(missing_ok=True)


@pytest.mark.gen_test
async def test_a_restore_cut_short_is_put_right_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    moved = folder / "staging" / "replaced-x"
    moved.mkdir(parents=True)
    (moved / "world.json").write_text("kept")
    (folder / "staging" / "half.tar.gz").write_text("half")
    (folder / "backups").mkdir()
    (folder / "backups" / "half.json").write_text("{}")
    with AgentProcess(folder, ("/bin/sh", "-c", "cat"), "--no-start-on-boot") as agent:
        assert (agent.files / "world.json").read_text() == "kept"
        assert list((folder / "staging").iterdir()) == []
        assert (await agent.get("/game/backups"))["backups"] == []
