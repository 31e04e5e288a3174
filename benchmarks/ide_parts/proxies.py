"""The proxies that are compared, each a process of its own in front of the same app."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.ide_parts.load import Way

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
