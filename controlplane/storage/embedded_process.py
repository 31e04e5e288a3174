"""One run of the embedded server: started, listened to until it serves, stopped. Restarts are not its matter."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from controlplane.errors import StorageError
from controlplane.storage import embedded_launcher

logger = logging.getLogger(__name__)

START_SECONDS = 60.0  # a large log is recovered before it listens
STOP_SECONDS = 15.0
_KEPT_LINES = 40
_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")


class ServerExited(StorageError):
    """The process ended before it served. `lines` are the last that it wrote."""

    def __init__(self, status: int, lines: Sequence[str]) -> None:
        last = lines[-1] if lines else "it wrote nothing"
        super().__init__(f"The embedded database ended with status {status} before it served: {last}")
        self.lines = tuple(lines)


class ServerProcess:
    """`port` is 0 until it serves."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.port = 0
        self._process = process
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listening = asyncio.Event()
        self._reader = asyncio.create_task(self._read_lines())

    @property
    def id(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, program: Path, arguments: Sequence[str]) -> ServerProcess:
        """Returns once it listens. Raises ServerExited, or StorageError when it takes too long."""
        launcher = (sys.executable, "-I", embedded_launcher.__file__, str(os.getpid()))
        try:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                str(program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # an interrupt from the terminal is for us: we stop it when we are done
            )
        except OSError as error:
            raise StorageError(f"The embedded database {program} cannot be started: {error.strerror}.") from error
        server = cls(process)
        try:
            await server._wait_until_listening()
        except BaseException:
            await server.kill()
            raise
        return server

    async def _wait_until_listening(self) -> None:
        listening = asyncio.create_task(self._listening.wait())
        try:
            await asyncio.wait((listening, self._reader), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._listening.is_set():
            return
        if self._reader.done():
            raise ServerExited(await self._process.wait(), list(self._lines))
        raise StorageError(f"The embedded database did not serve within {START_SECONDS:g} s.")

    async def _read_lines(self) -> None:
        """To the end, also when nobody waits: a full pipe would stop the server."""
        assert self._process.stderr is not None
        while True:
            try:
                raw = await self._process.stderr.readline()
            except ValueError:  # a line beyond the stream's limit; what was read of it is dropped
                continue
            if not raw:
                return
            text = raw.decode(errors="replace").rstrip()
            if text:
                self._lines.append(text)
                logger.debug("embedded database", extra={"line": text})
            found = _LISTENING.search(raw)
            if found:
                self.port = int(found[1])
                self._listening.set()

    async def wait(self) -> int:
        return await self._process.wait()

    @property
    def last_lines(self) -> list[str]:
        return list(self._lines)

    async def stop(self, *, limit_seconds: float = STOP_SECONDS) -> bool:
        """True when it ended in order, with its files complete; it is killed when that takes too long."""
        self._signal(signal.SIGINT)
        try:
            async with asyncio.timeout(limit_seconds):
                await self._process.wait()
        except TimeoutError:
            logger.warning("the embedded database does not stop and is killed", extra={"pid": self.id})
        finally:
            await self.kill()
        return self._process.returncode == 0

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._reader

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
