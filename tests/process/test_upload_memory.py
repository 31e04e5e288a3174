"""Five gigabytes through the real process: its memory does not notice."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.control_plane_process import SECRETS, ControlPlaneProcess, call, login, until
from tests.upload_sink import UploadSink, send_file

pytestmark = pytest.mark.timeout(240)

PASSWORD = "correct horse battery"
SIZE = 5 << 30
GROWTH_LIMIT = 8 << 20


def test_five_gigabytes_pass_through_in_constant_memory(data_folder: Path) -> None:
    environment = {**SECRETS, "DATA_DIR": str(data_folder), "BCRYPT_COST": "4", "HTTP_PORT": "0"}
    with UploadSink() as sink, ControlPlaneProcess("serve", **environment) as process:
        url = process.until_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)
        until(lambda: call(url, "GET", "/readyz").status == 200)
        token = login(url, {"email": "root@example.org", "password": PASSWORD})
        owner = call(url, "GET", "/api/auth/me", None, token).body["id"]
        instance = call(
            url,
            "POST",
            "/api/admin/instances",
            {
                "kind": "game",
                "name": "Sink",
                "vmid": 100,
                "address": "127.0.0.1",
                "port": sink.port,
                "token": "a-token-of-sixteen-and-more",
                "ownerId": owner,
            },
            token,
        ).body["id"]
        target = f"/api/game/servers/{instance}/files/upload?path=world.bin"
        port = int(url.rpartition(":")[2])
        assert send_file(port, target, token, 64 << 20)[0] == 201  # whatever is allocated once is so now
        process_of = psutil.Process(process.process.pid)
        before = process_of.memory_info().rss
        status, answer = send_file(port, target, token, SIZE)
        assert status == 201, answer
        assert answer.endswith(b'{"sizeBytes": %d}' % SIZE)
        assert process_of.memory_info().rss - before < GROWTH_LIMIT
