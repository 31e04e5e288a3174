"""The one-file binary that is deployed, as `make binary` built it: without a checkout, a Python or a static folder."""

from __future__ import annotations

import os
import secrets
import shutil
import urllib.request
from pathlib import Path

import pytest

from controlplane import __version__
from tests.control_plane_process import ROOT, SECRETS, ControlPlaneProcess, call, login, run, until

pytestmark = [pytest.mark.binary, pytest.mark.timeout(240)]

PASSWORD = "correct horse battery"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A copy far from the checkout."""
    copy = tmp_path / "bin" / "controlplane"
    copy.parent.mkdir()
    shutil.copy2(ROOT / "dist" / "controlplane", copy)
    return copy


def test_it_says_its_version(binary: Path) -> None:
    said = run("version", program=[str(binary)])
    assert (said.returncode, said.stdout.strip()) == (0, __version__)


def test_without_a_database_it_says_that_it_needs_one(binary: Path, tmp_path: Path) -> None:
    refused = run("serve", program=[str(binary)], **SECRETS, HTTP_PORT="0", DATA_DIR=str(tmp_path / "data"))
    assert refused.returncode == 1
    assert "MONGODB_URI" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_it_serves_the_page_and_the_api_and_drains(binary: Path, mongodb_uri: str, tmp_path: Path) -> None:
    environment = {
        **SECRETS,
        "HTTP_PORT": "0",
        "BCRYPT_COST": "4",
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": f"test_{secrets.token_hex(8)}",
        "TMPDIR": os.fspath(tmp_path),
    }
    program = [str(binary)]
    made = run("create-admin", "--email", "root@example.org", stdin=PASSWORD + "\n", program=program, **environment)
    assert made.returncode == 0, made.stderr
    with ControlPlaneProcess("serve", program=program, **environment) as process:
        url = process.until_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        token = login(url, {"email": "root@example.org", "password": PASSWORD})
        assert call(url, "GET", "/api/admin/users", None, token).body["items"][0]["role"] == "admin"
        for path in ("/", "/static/js/main.js", "/static/vendor/xterm/xterm.mjs", "/docs"):
            with urllib.request.urlopen(url + path, timeout=20) as answer:
                assert answer.status == 200, path
        assert process.stop() == 0
