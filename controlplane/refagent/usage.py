"""What the workload really uses: CPU and memory of its process tree, bytes of its folder.

Everything here blocks on /proc or the disk and runs in a worker thread; answers are cached, so that asking often costs
nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import psutil

PROCESS_CACHE_SECONDS = 1.0
DISK_CACHE_SECONDS = 30.0
DISK_PAUSE_FACTOR = 20  # a walk that takes long is made at most a twentieth of the time
DISK_WAIT_SECONDS = 0.2
_CGROUP_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # cgroup v2: a number, or "max"


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    cpu_percent: float  # of one core
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class DiskUsage:
    used_bytes: int
    limit_bytes: int  # what is used here and what is free on the file system


class UsageMeter:
    """Samples on demand, at most once in the cache time each."""

    def __init__(self, folder: Path, executor: Executor) -> None:
        self._folder = folder
        self._executor = executor
        self._tree = TreeSampler()
        self._lock = asyncio.Lock()
        self._process: tuple[int, float, ProcessUsage] | None = None
        self._disk: DiskUsage | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._measure_again_at = 0.0

    async def process(self, pid: int) -> ProcessUsage:
        loop = asyncio.get_running_loop()
        async with self._lock:
            known = self._process
            if known is not None and known[0] == pid and loop.time() - known[1] < PROCESS_CACHE_SECONDS:
                return known[2]
            usage = await loop.run_in_executor(self._executor, self._tree.sample, pid)
            self._process = (pid, loop.time(), usage)
            return usage

    async def disk(self) -> DiskUsage | None:
        """The latest figure. A large folder takes long to walk: nobody waits for that, at first there is None."""
        loop = asyncio.get_running_loop()
        if self._measuring is None and loop.time() >= self._measure_again_at:
            self._measuring = loop.create_task(self._measure_disk())
        if self._measuring is not None:
            await asyncio.wait([self._measuring], timeout=DISK_WAIT_SECONDS)
        return self._disk

    async def _measure_disk(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._disk = await loop.run_in_executor(self._executor, measure_disk, self._folder)
        finally:
            ended = loop.time()
            self._measure_again_at = ended + max(DISK_CACHE_SECONDS, DISK_PAUSE_FACTOR * (ended - began))
            self._measuring = None


class TreeSampler:
    """CPU of a process tree between two samples; the first one averages since the process began."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, float], float] = {}
        self._last_at = 0.0

    def sample(self, pid: int) -> ProcessUsage:
        """Blocking. A process that is gone uses nothing."""
        now = time.time()
        spent: dict[tuple[int, float], float] = {}
        memory = 0
        used = 0.0
        since = now
        for process in _tree(pid):
            try:
                with process.oneshot():
                    key = (process.pid, process.create_time())
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue
            spent[key] = times.user + times.system
            used += spent[key] - self._last.get(key, 0.0)
            since = min(since, self._last_at if key in self._last else key[1])
        self._last, self._last_at = spent, now
        return ProcessUsage(cpu_percent=round(100 * used / max(now - since, 0.01), 1), memory_bytes=memory)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def memory_limit_bytes() -> int:
    """The container's limit, or the machine's memory where there is none. Blocking, but short."""
    machine: int = psutil.virtual_memory().total
    try:
        limit = _CGROUP_MEMORY_LIMIT.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def measure_disk(folder: Path) -> DiskUsage:
    """Blocking: walks the folder without following links; what cannot be read counts nothing."""
    used = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.lstat(os.path.join(parent, name)).st_blocks * 512  # stat(2): units of 512 bytes
            except OSError:
                continue
    return DiskUsage(used_bytes=used, limit_bytes=used + shutil.disk_usage(folder).free)
