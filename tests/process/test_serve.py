"""`run.py serve` and the small commands as an operator meets them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.control_plane_process import SECRETS, ControlPlaneProcess, are_gone, call, login, run, until

pytestmark = pytest.mark.timeout(240)

PASSWORD = "correct horse battery"
READY_ANSWERED = r'^(?=.*"/readyz")(?=.*"status": ?200)'


def serve(folder: Path, **environment: str) -> ControlPlaneProcess:
    return ControlPlaneProcess(
        "serve", **{**SECRETS, "HTTP_PORT": "0", "DATA_DIR": str(folder), "BCRYPT_COST": "4", **environment}
    )


def url_of(process: ControlPlaneProcess) -> str:
    return process.until_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)


@pytest.mark.parametrize(
    ("name", "value"), [("JWT_SECRET", ""), ("JWT_SECRET", "changeme"), ("CREDENTIALS_KEY", ""), ("HTTP_PORT", "http")]
)
def test_a_weak_or_missing_setting_refuses_the_start_by_name(name: str, value: str) -> None:
    refused = run("serve", **{**SECRETS, name: value})
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"controlplane: {name}: ")
    assert "Traceback" not in refused.stderr
    checked = run("check-config", **{**SECRETS, name: value})
    assert (checked.returncode, checked.stderr) == (1, refused.stderr)


def test_check_config_shows_no_secret() -> None:
    checked = run("check-config", **SECRETS, MONGODB_URI="mongodb://u:hidden-password@db")
    assert checked.returncode == 0
    assert "hidden-password" not in checked.stdout
    assert SECRETS["JWT_SECRET"] not in checked.stdout


def test_an_administrator_made_on_the_command_line_signs_in_and_sigterm_drains(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    environment = {**SECRETS, "DATA_DIR": str(folder)}
    weak = run("create-admin", "--email", "root@example.org", stdin="short\n", **environment)
    assert (weak.returncode, "password" in weak.stderr) == (1, True)
    made = run("create-admin", "--email", "root@example.org", stdin=PASSWORD + "\n", **environment)
    assert made.returncode == 0, made.stderr
    again = run("create-admin", "--email", "ROOT@example.org", stdin=PASSWORD + "\n", **environment)
    assert (again.returncode, "in use" in again.stderr) == (1, True)
    with serve(folder) as process:
        url = url_of(process)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        token = login(url, {"email": "root@example.org", "password": PASSWORD})
        assert call(url, "GET", "/api/admin/users", None, token).body["items"][0]["role"] == "admin"
        children = process.children()
        assert process.stop() == 0
        assert are_gone(children)


def test_kill_9_leaves_no_child_behind(data_folder: Path) -> None:
    with serve(data_folder) as process:
        url = url_of(process)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        children = process.children()
        assert children
        process.process.kill()
        until(lambda: are_gone(children))


def test_a_database_that_cannot_be_reached_is_a_clear_message_and_a_retry(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        uri = f"mongodb://user:hidden-password@127.0.0.1:{port}/"
        with serve(tmp_path, MONGODB_URI=uri, MONGODB_TIMEOUT_SECONDS="1") as process:
            url = url_of(process)
            for _ in range(2):
                line = process.until_line(r'"the database cannot be used yet; trying again"').string
                process.lines.remove(line)
            assert json.loads(line)["where"] == "MONGODB_URI"
            answer = call(url, "GET", "/api/game/servers", None, "x.y.z")
            assert (answer.status, answer.body["code"]) == (503, "storage_unavailable")
            assert call(url, "GET", "/readyz").body["failed"][0] == "database"
            assert process.process.poll() is None
            assert process.stop() == 0
            assert not [line for line in process.lines if "hidden-password" in line or "Traceback" in line]


def test_a_taken_port_is_named(data_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = run("serve", **SECRETS, DATA_DIR=str(data_folder), HTTP_PORT=str(taken.getsockname()[1]))
    assert refused.returncode == 1
    assert "HTTP_PORT" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_export_and_import_move_everything_and_refuse_what_is_not_empty(data_folder: Path, tmp_path: Path) -> None:
    old, new = {**SECRETS, "DATA_DIR": str(data_folder)}, {**SECRETS, "DATA_DIR": str(tmp_path / "new")}
    exported = run("export", str(tmp_path / "dump"), **old)
    assert exported.returncode == 0, exported.stderr
    assert "users: 1" in exported.stdout
    assert list((tmp_path / "dump").rglob("users.bson"))
    imported = run("import", str(tmp_path / "dump"), **new)
    assert imported.returncode == 0, imported.stderr
    refused = run("import", str(tmp_path / "dump"), **new)
    assert refused.returncode == 1
    assert "users" in refused.stderr
    with serve(tmp_path / "new") as process:
        url = url_of(process)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        assert login(url, {"email": "root@example.org", "password": PASSWORD})


def test_version_and_openapi_need_no_settings() -> None:
    assert run("version").stdout.strip() == "0.1.0"
    assert json.loads(run("openapi").stdout)["openapi"] == "3.1.0"


def test_a_second_signal_ends_it_at_once(data_folder: Path) -> None:
    with serve(data_folder) as process:
        url = url_of(process)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        children = process.children()
        os.kill(process.process.pid, signal.SIGTERM)
        process.process.send_signal(signal.SIGINT)
        process.process.wait(60)
        until(lambda: are_gone(children))


def test_output_that_nobody_reads_does_not_keep_it_from_ending(data_folder: Path) -> None:
    with serve(data_folder) as process:
        url = url_of(process)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        process.until_line(READY_ANSWERED)  # what waits in a pipe keeps it from being made smaller
        assert process.process.stdout is not None
        small = fcntl.fcntl(process.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(small // 100):  # a line of the access log is longer
            assert call(url, "GET", "/healthz").status == 200
        children = process.children()
        assert process.stop() == 0
        until(lambda: are_gone(children))
