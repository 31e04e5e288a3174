"""Uploads through the control plane and through nginx without request buffering: `python -m benchmarks.upload GIB N`.

The agent is a sink that keeps nothing; client, proxies and sink are processes on this machine. Prints MB/s, the proxy's
CPU for a gigabyte, and how much its memory grew, in turns so that noise of the machine hits all alike.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from benchmarks.rest import SECRETS
from controlplane.instances import Registration
from controlplane.models import InstanceKind, Role
from controlplane.settings import Settings
from controlplane.storage.database import Database
from controlplane.storage.embedded_server import EmbeddedServer
from controlplane.wiring import ControlPlane
from handlers.server import ApiServer
from tests.upload_sink import UploadSink, send_file

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{sink}; proxy_http_version 1.1;
      proxy_request_buffering off; client_body_buffer_size 256k; proxy_buffers 8 256k; proxy_buffer_size 256k;
      proxy_busy_buffers_size 512k;
    }}
  }}
}}
"""


def sink(pipe: multiprocessing.connection.Connection) -> None:
    with UploadSink() as running:
        pipe.send(running.port)
        pipe.recv()


def serve(pipe: multiprocessing.connection.Connection, folder: str, sink_port: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, Path(folder), sink_port))


async def _serve(pipe: multiprocessing.connection.Connection, folder: Path, sink_port: int) -> None:
    embedded = EmbeddedServer(folder / "storage")
    database = Database(await embedded.start(), "benchmark", timeout_seconds=5)
    plane = ControlPlane(
        Settings.from_env({**SECRETS, "HTTP_PORT": "0", "BCRYPT_COST": "4", "ACCESS_LOG": "errors"}), database
    )
    server = ApiServer(plane.services)
    port = server.listen()
    await plane.start()
    sessions = plane.services.sessions
    user = await sessions.create_user("ada@example.org", "correct horse battery", Role.CUSTOMER)
    login = await sessions.login("ada@example.org", "correct horse battery", address="x", user_agent="x")
    instance = await plane.services.instances.register(
        Registration(InstanceKind.GAME, "Sink", 100, "127.0.0.1", sink_port, "t" * 16, user.id)
    )
    pipe.send((port, f"/api/game/servers/{instance.id}/files/upload?path=world.bin", login.access_token))
    await asyncio.to_thread(pipe.recv)
    await server.drain(limit_seconds=1)
    await plane.stop()
    database.close()
    await embedded.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Contender:
    """One way to the sink, and the processes whose CPU and memory it costs."""

    def __init__(self, name: str, port: int, target: str, token: str, processes: list[psutil.Process]) -> None:
        self.name = name
        self._port, self._target, self._token = port, target, token
        self._processes = processes
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self._run(64 << 20)
        self._before = self._memory()
        self.grown = 0

    def _memory(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def _cpu(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)

    def _run(self, size: int) -> None:
        status, answer = send_file(self._port, self._target, self._token, size)
        if status != 201:
            raise SystemExit(f"{self.name}: {answer!r}")

    def measure(self, size: int) -> None:
        cpu, began = self._cpu(), time.perf_counter()
        self._run(size)
        self.rates.append(size / 1e6 / (time.perf_counter() - began))
        self.cpu.append((self._cpu() - cpu) / (size / 1e9))
        self.grown = max(self.grown, self._memory() - self._before)


def main() -> None:
    size = int(float(sys.argv[1] if len(sys.argv) > 1 else "2") * (1 << 30))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        sink_pipe, its_end = context.Pipe()
        sinking = context.Process(target=sink, args=(its_end,))
        sinking.start()
        sink_port = sink_pipe.recv()
        plane_pipe, its_end = context.Pipe()
        plane = context.Process(target=serve, args=(its_end, name, sink_port))
        plane.start()
        port, target, token = plane_pipe.recv()
        nginx_port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=name, port=nginx_port, sink=sink_port))
        nginx = subprocess.Popen(["nginx", "-c", f"{name}/nginx.conf", "-p", name], stderr=subprocess.DEVNULL)
        try:
            while not psutil.Process(nginx.pid).children():
                time.sleep(0.05)
            time.sleep(0.2)
            contenders = [
                Contender("direct to the sink", sink_port, target, token, []),
                Contender("nginx, 256k buffers", nginx_port, target, token, psutil.Process(nginx.pid).children()),
                Contender("control plane", port, target, token, [psutil.Process(plane.pid)]),
            ]
            for _ in range(rounds):
                for contender in contenders:
                    contender.measure(size)
        finally:
            nginx.terminate()
            nginx.wait()
            plane_pipe.send(None)
            plane.join()
            sink_pipe.send(None)
            sinking.join()
    print(f"{size / (1 << 30):g} GiB a round, {rounds} rounds, medians")
    print(f"{'':<22}{'MB/s':>8}{'of nginx':>10}{'CPU s/GB':>10}{'grown':>10}")
    reference = statistics.median(contenders[1].rates)
    for each in contenders:
        rate = statistics.median(each.rates)
        grown = f"{each.grown / (1 << 20):.1f} MiB"
        print(f"{each.name:<22}{rate:8.0f}{rate / reference:10.2f}{statistics.median(each.cpu):10.2f}{grown:>10}")


if __name__ == "__main__":
    main()
