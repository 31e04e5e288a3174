"""The embedded server as a child: ours alone, restarted when it dies, gone with its parent, honest about harm."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient

from controlplane.errors import StorageDamaged, StorageError, StorageLocked, StorageTooNew, StorageUnavailable
from controlplane.storage import embedded_launcher
from controlplane.storage.database import Database
from controlplane.storage.embedded_folder import EmbeddedFolder
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.storage.users import MongoUserRepository
from tests.contract.storage import processes
from tests.contract.storage.processes import eventually
from tests.embedded import EmbeddedThread
from tests.refagent_process import until, until_gone

PROGRAM = Path(sys.executable).with_name("secantusd-py")
WRITERS = 10
STORES = 3  # one stop in twenty hangs on a busy machine


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[EmbeddedServer, Database]]:
    server = EmbeddedServer(folder)
    database = Database(await server.start(), "test", timeout_seconds=30)
    try:
        yield server, database
    finally:
        database.close()
        await server.stop()


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(file.relative_to(folder)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mode)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose server was used and stopped in order; to be copied."""
    for _ in range(STORES):
        folder = tmp_path_factory.mktemp("made") / "storage"
        with EmbeddedThread(folder) as embedded, MongoClient[dict[str, Any]](embedded.uri) as client:
            client["test"]["things"].insert_many([{"_id": n, "pad": "x" * 500} for n in range(100)])
        if was_stopped_in_order(folder):
            return folder
    raise AssertionError(f"the server did not stop in order, {STORES} times in a row")


def was_stopped_in_order(folder: Path) -> bool:
    """Then only are the sizes of its files written down."""
    return None not in json.loads((folder / "store" / "FILES").read_text())["files"].values()


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_store, tmp_path / "storage"))


def open_to_others(folder: Path) -> list[Path]:
    """A server that runs removes files meanwhile: those are nobody's."""
    found = []
    for file in [folder, *folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                found.append(file)
    return found


@pytest.mark.gen_test
async def test_what_was_written_is_there_after_a_restart_and_only_we_can_read_it(store: Path) -> None:
    async with running(store) as (server, database):
        assert await database.collection("things").count_documents({}) == 100
        password = (store / "store" / "password").read_text().strip()
        assert server.process_id is not None
        process = psutil.Process(server.process_id)
        assert password not in " ".join(process.cmdline())
        assert open_to_others(store) == []
        (listener,) = [each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        assert listener.ip == "127.0.0.1"
        stranger = Database(f"mongodb://127.0.0.1:{listener.port}/?directConnection=true", "test", timeout_seconds=2)
        with pytest.raises(StorageUnavailable):
            await MongoUserRepository(stranger).get("usr_1")
        stranger.close()


@pytest.mark.gen_test
async def test_a_first_start_that_was_interrupted_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "storage"
    (folder / "first-start" / "data").mkdir(parents=True)
    (folder / "first-start" / "data" / "WiredTiger").write_text("half")
    async with running(folder) as (_, database):
        await database.ping()
    assert names_in(folder) == ["lock", "store"]
    assert names_in(folder / "store") == ["FILES", "FORMAT", "data", "password", "server.toml"]


@pytest.mark.gen_test
async def test_a_killed_server_runs_again_under_the_same_connection_string(store: Path) -> None:
    async with running(store) as (server, database):
        first = server.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)

        async def answers() -> int | None:
            with contextlib.suppress(StorageUnavailable):
                await database.ping()
                return server.process_id if server.process_id != first else None
            return None

        assert await eventually(answers) != first
        assert await database.collection("things").count_documents({}) == 100


async def has_grown_beyond(names: list[str], count: int) -> bool:
    return len(names) > count


async def runs_anew(server: EmbeddedServer, former: int) -> bool:
    return server.process_id not in (None, former)


@pytest.mark.timeout(300)
@pytest.mark.gen_test(timeout=280)
async def test_a_kill_under_ten_writers_loses_nothing_that_was_acknowledged(store: Path) -> None:
    async with running(store) as (server, database):
        written = database.collection("written")
        acknowledged: list[str] = []

        async def write(writer: int, rounds: int) -> None:
            number = 0
            while not stopping.is_set():
                name = f"{rounds}-{writer}-{number}"
                number += 1
                try:
                    await written.insert_one({"_id": name, "pad": "x" * 200})
                except Exception:  # whatever pymongo makes of a server that dies
                    await asyncio.sleep(0.02)
                    continue
                acknowledged.append(name)

        for rounds in range(3):
            stopping = asyncio.Event()
            before = len(acknowledged)
            writers = [asyncio.create_task(write(writer, rounds)) for writer in range(WRITERS)]

            await eventually(functools.partial(has_grown_beyond, acknowledged, before + 300))
            assert server.process_id is not None
            killed = server.process_id
            os.kill(killed, signal.SIGKILL)
            await eventually(functools.partial(runs_anew, server, killed))
            stopping.set()
            await asyncio.gather(*writers)
        stored = {row["_id"] async for row in written.find({}, {"_id": True})}
        assert set(acknowledged) - stored == set()


@pytest.mark.gen_test
async def test_a_killed_parent_leaves_no_child(store: Path) -> None:
    parent = processes.start("serve", str(store))
    assert parent.stdout is not None
    child = int(await asyncio.to_thread(parent.stdout.readline))
    await asyncio.to_thread(parent.stdout.readline)
    parent.kill()
    await asyncio.to_thread(parent.communicate)
    await until_gone(child)
    async with running(store) as (_, database):
        assert await database.collection("things").count_documents({}) == 100


def stands_still(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):  # a thread that ends meanwhile
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
    return False


@contextlib.asynccontextmanager
async def held_still(pid: int) -> AsyncIterator[None]:
    """From when its last thread stopped: one that writes to the disk does so first."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: asyncio.to_thread(stands_still, pid))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.gen_test
async def test_a_folder_in_use_is_refused_and_left_alone(store: Path) -> None:
    async with running(store) as (server, _):
        assert server.process_id is not None
        async with held_still(server.process_id):  # it writes when it likes
            before = contents(store)
            with pytest.raises(StorageLocked) as caught:
                await EmbeddedServer(store).start()
            assert str(store) in caught.value.message
            assert contents(store) == before


@pytest.mark.gen_test
async def test_a_folder_in_use_is_in_use_however_its_files_look_at_the_moment(store: Path) -> None:
    user = EmbeddedFolder(store)
    user.acquire()
    try:
        with (store / "store" / "data" / "WiredTigerHS.wt").open("ab") as table:
            table.write(bytes(4096))  # its server has begun to write, the sizes are still those of before
        with pytest.raises(StorageLocked):
            await EmbeddedServer(store).start()
    finally:
        user.release()


@pytest.mark.gen_test
async def test_a_newer_folder_is_refused_and_unchanged(store: Path) -> None:
    (store / "store" / "FORMAT").write_text(json.dumps({"format": 99, "anything": "else"}))
    before = contents(store)
    with pytest.raises(StorageTooNew) as caught:
        await EmbeddedServer(store).start()
    assert str(store) in caught.value.message
    assert "99" in caught.value.message
    assert contents(store) == before


def missing(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garbled(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"\xa5" * 64)


TORN = [
    ("FORMAT", missing),
    ("FORMAT", garbled),
    ("FILES", missing),
    ("FILES", emptied),
    ("password", missing),
    ("password", emptied),
    ("data/WiredTiger", missing),
    ("data/WiredTiger.wt", halved),
    ("data/WiredTiger.wt", garbled),
    ("data/WiredTiger.turtle", emptied),
    ("data/WiredTiger.turtle", halved),
    ("data/WiredTigerLog.0000000002", missing),
    ("data/WiredTigerLog.0000000002", halved),
    ("data/secantus_users.wt", missing),
    ("data/secantus_users.wt", halved),
    ("data/secantus_collections.wt", garbled),
    ("data/secantus_collections.wt", emptied),
    ("data/WiredTigerHS.wt", missing),
]


@pytest.mark.parametrize(("name", "harm"), TORN, ids=lambda each: getattr(each, "__name__", each))
@pytest.mark.gen_test
async def test_a_torn_folder_is_named_and_unchanged(store: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(store / "store" / name)
    before = contents(store)
    with pytest.raises(StorageDamaged) as caught:
        await EmbeddedServer(store).start()
    assert str(store) in caught.value.message
    assert contents(store) == before


@pytest.mark.gen_test
async def test_a_table_that_the_server_itself_refuses_leaves_the_folder_unchanged(store: Path) -> None:
    """As after an end out of order, where no sizes are known: WiredTiger finds it, having begun to recover."""
    record = store / "store" / "FILES"
    files = json.loads(record.read_text())["files"]
    record.write_text(json.dumps({"files": {name: None for name in files if name.endswith(".wt")}}))
    table = store / "store" / "data" / "WiredTigerHS.wt"
    with table.open("r+b") as stream:
        stream.seek(16)
        stream.write(b"\xa5" * 64)
    before = contents(store)
    with pytest.raises(StorageDamaged):
        await EmbeddedServer(store).start()
    assert contents(store) == before


@pytest.mark.gen_test
async def test_a_folder_of_something_else_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(StorageDamaged, match=r"letters\.txt"):
        await EmbeddedServer(tmp_path).start()
    assert contents(tmp_path) == before


@pytest.mark.gen_test
async def test_a_password_that_others_may_read_is_refused(store: Path) -> None:
    (store / "store" / "password").chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        await EmbeddedServer(store).start()


@pytest.mark.gen_test
async def test_another_password_is_reported(store: Path) -> None:
    (store / "store" / "password").write_text("not-the-one-that-was-generated\n")
    with pytest.raises(StorageDamaged) as caught:
        await EmbeddedServer(store).start()
    assert "not-the-one" not in caught.value.message


@pytest.mark.gen_test
async def test_a_program_that_is_not_there_is_reported(store: Path) -> None:
    with pytest.raises(StorageError, match="none-such"):
        await EmbeddedServer(store, program=Path("/nonexistent/none-such")).start()


@pytest.mark.gen_test
async def test_a_start_that_failed_can_be_tried_again(store: Path) -> None:
    server = EmbeddedServer(store)
    (store / "store" / "password").chmod(0o644)
    with pytest.raises(StorageError):
        await server.start()
    (store / "store" / "password").chmod(0o600)
    database = Database(await server.start(), "test", timeout_seconds=30)
    await database.ping()
    database.close()
    await server.stop()


BUSY_ONCE = """#!{python}
import os, pathlib, sys
written = pathlib.Path(sys.argv[sys.argv.index("--storage-path") + 1], "written-by-the-former")
if written.exists():
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
written.touch()
sys.exit("wiredtiger_open: WiredTiger database is already being managed by another process: Device or resource busy")
"""


@pytest.mark.gen_test
async def test_what_a_former_server_writes_until_its_end_is_left_alone(store: Path, tmp_path: Path) -> None:
    program = tmp_path / "busy-once"
    program.write_text(BUSY_ONCE.format(python=sys.executable, program=str(PROGRAM)))
    program.chmod(0o755)
    server = EmbeddedServer(store, program=program, former_seconds=60)
    await server.start()
    await server.stop()
    assert (store / "store" / "data" / "written-by-the-former").exists()


@pytest.mark.gen_test
async def test_a_former_server_that_is_still_ending_is_waited_for(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one may that was killed with its control plane while it waited for the disk."""
    EmbeddedFolder(store).store.files.note_running()
    options = ("--config", str(store / "store" / "server.toml"), "--storage-path", str(store / "store" / "data"))
    former = await asyncio.create_subprocess_exec(
        PROGRAM, *options, "--host", "127.0.0.1", "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert former.stderr is not None
        while b"listening on" not in await former.stderr.readline():
            pass
        server = EmbeddedServer(store, former_seconds=60)
        starting = asyncio.create_task(server.start())

        async def is_waited_for() -> bool:
            return starting.done() or "still has the files" in caplog.text

        await eventually(is_waited_for)
    finally:
        former.kill()
        await former.communicate()
    await starting
    await server.stop()


@pytest.mark.gen_test
async def test_a_server_that_keeps_the_files_is_told_of_and_its_files_are_left_alone(
    store: Path, tmp_path: Path
) -> None:
    program = tmp_path / "busy"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('Device or resource busy')\n")
    program.chmod(0o755)
    before = contents(store)
    with pytest.raises(StorageLocked, match="another database process"):
        await EmbeddedServer(store, program=program, former_seconds=0).start()
    assert contents(store) == before


HANGS_ONCE = """#!{python}
import os, pathlib, signal, subprocess, sys
marker = pathlib.Path(sys.argv[0] + ".ran")
if marker.exists():
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
marker.touch()
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the real server runs in a session of its own, and hears of no stop
sys.exit(subprocess.call([sys.executable, "-I", {launcher!r}, str(os.getpid()), {program!r}, *sys.argv[1:]]))
"""


@pytest.mark.gen_test
async def test_a_server_that_hangs_when_it_was_made_is_made_anew(tmp_path: Path) -> None:
    program = tmp_path / "hangs-once"
    program.write_text(
        HANGS_ONCE.format(python=sys.executable, program=str(PROGRAM), launcher=embedded_launcher.__file__)
    )
    program.chmod(0o755)
    server = EmbeddedServer(tmp_path / "data", program=program)
    uri = await server.start()
    try:
        database = Database(uri, "controlplane", timeout_seconds=10)
        await database.ping()
        database.close()
    finally:
        await server.stop()
    assert (tmp_path / "hangs-once.ran").exists()
