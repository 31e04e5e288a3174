"""Uploads through the control plane and through nginx without request buffering: `python -m benchmarks.upload GIB N`.

The agent is a sink that keeps nothing; client, proxies and sink are processes on this machine. Prints MB/s, the proxy's
CPU for a gigabyte, and how much its memory grew, in turns so that noise of the machine hits all alike.
"""

from __future__ import annotations

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

from benchmarks import plane
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
        process = context.Process(target=plane.serve, args=(its_end, name, [sink_port]))
        process.start()
        serving = plane_pipe.recv()
        port, token = serving.port, serving.access_token
        target = f"/api/game/servers/{serving.instances[0]}/files/upload?path=world.bin"
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
                Contender("control plane", port, target, token, [psutil.Process(process.pid)]),
            ]
            for _ in range(rounds):
                for contender in contenders:
                    contender.measure(size)
        finally:
            nginx.terminate()
            nginx.wait()
            plane_pipe.send(None)
            process.join()
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
