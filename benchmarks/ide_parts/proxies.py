"""The proxies that are compared, each a process of its own in front of the same app."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import multiprocessing.connection
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import uvloop

from benchmarks.ide_parts.load import Way
from benchmarks.rest import SECRETS
from controlplane.instances import Registration
from controlplane.models import Connection, InstanceKind, Role
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.wiring import ControlPlane
from handlers.server import ApiServer

JUPYTER = Path("tools-cache/jupyter/bin/jupyter-server")
INSTALL_JUPYTER = (
    "python3.11 -m venv tools-cache/jupyter && tools-cache/jupyter/bin/pip install jupyter-server-proxy==4.6.0"
)
START_SECONDS = 30.0
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream app {{ server 127.0.0.1:{app}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location /ide/ {{
      proxy_pass http://app/; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_read_timeout 600s;
      proxy_buffers 8 256k; proxy_buffer_size 256k; proxy_busy_buffers_size 512k;
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(folder: Path, app_port: int) -> Iterator[tuple[Way, psutil.Process]]:
    """Tuned: 256k buffers, kept connections to the app. The process is its one worker."""
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, app=app_port))
    with _child("nginx", "-c", f"{folder}/nginx.conf", "-p", str(folder)) as process:
        _until_listening(port)
        worker = psutil.Process(process.pid).children()[0]
        yield Way("nginx, tuned", port, "/ide"), worker


@contextlib.contextmanager
def jupyter(folder: Path, app_port: int) -> Iterator[tuple[Way, psutil.Process]]:
    port = free_port()
    with _child(
        str(JUPYTER),
        *("--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={folder}"),
        *("--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"),
        "--log-level=CRITICAL",
    ) as process:
        _until_listening(port)
        yield Way("jupyter-server-proxy", port, f"/proxy/{app_port}"), psutil.Process(process.pid)


@contextlib.contextmanager
def control_plane(folder: Path, app_port: int) -> Iterator[tuple[Way, psutil.Process]]:
    """By path, as a browser with its cookie."""
    context = multiprocessing.get_context("spawn")
    pipe, its_end = context.Pipe()
    process = context.Process(target=_serve, args=(its_end, str(folder), app_port), daemon=True)
    process.start()
    try:
        port, instance_id, token = pipe.recv()
        base = f"/__ide/{instance_id}"
        cookie = _cookie(port, instance_id, token)
        yield Way("control plane", port, base, f"Cookie: {cookie}\r\n"), psutil.Process(process.pid)
    finally:
        pipe.send(None)
        process.join()


def _cookie(port: int, instance_id: str, token: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/dev/{instance_id}/ide-token", b'{"mode": "path"}', headers)
    url = json.loads(connection.getresponse().read())["url"]
    connection.request("GET", url, headers={"Sec-Fetch-Mode": "navigate"})
    answer = connection.getresponse()
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def _serve(pipe: multiprocessing.connection.Connection, folder: str, app_port: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(pipe, Path(folder), app_port))


async def _serve_until_told(pipe: multiprocessing.connection.Connection, folder: Path, app_port: int) -> None:
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "benchmark", timeout_seconds=5)
    settings = Settings.from_env({**SECRETS, "HTTP_PORT": "0", "BCRYPT_COST": "4", "ACCESS_LOG": "errors"})
    plane = ControlPlane(settings, database)
    server = ApiServer(plane.services)
    port = server.listen()
    await plane.start()
    services = plane.services
    user = await services.sessions.create_user("ada@example.org", "correct horse battery", Role.CUSTOMER)
    login = await services.sessions.login("ada@example.org", "correct horse battery", address="x", user_agent="x")
    instance = await services.instances.register(
        Registration(InstanceKind.DEV, "App", 100, "127.0.0.1", app_port, "t" * 16, user.id, ide_port=app_port)
    )
    while services.states.get(instance.id).connection is not Connection.CONNECTED:  # noqa: ASYNC110 - polled, as a portal does
        await asyncio.sleep(0.05)
    pipe.send((port, instance.id, login.access_token))
    await asyncio.to_thread(pipe.recv)
    await server.drain(limit_seconds=1)
    await plane.stop()
    database.close()
    await embedded.stop()


@contextlib.contextmanager
def _child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
