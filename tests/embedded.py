"""The embedded database for tests, on a thread with a loop of its own, so that it outlives the loop of each test."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from controlplane.storage.embedded_server import EmbeddedServer

START_SECONDS = 60.0


class EmbeddedThread:
    """Use it in a `with`: `uri` is the connection string. The thread must live: the server dies with it."""

    def __init__(self, folder: Path) -> None:
        self.server = EmbeddedServer(folder)
        self.uri = ""
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="embedded-database")

    def __enter__(self) -> EmbeddedThread:
        self._thread.start()
        self._ready.wait(START_SECONDS)
        if not self.uri:
            self.__exit__(None, None, None)
            raise AssertionError("the embedded database did not start") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended already, with a start that failed
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()  # before the start: who gives up on it ends what starts late
        try:
            self.uri = await self.server.start()
        except Exception as failure:
            self._failure = failure  # raised where the fixture waits
            return
        finally:
            self._ready.set()
        await self._ended.wait()
        await self.server.stop()
