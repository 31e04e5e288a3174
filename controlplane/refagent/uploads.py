"""`POST /game/files/upload?path=`: a raw body of any size to a file, in constant memory.

A chunk is taken from the socket only after the one before it was written. A refusal is answered at once; what the
client still sends is then read and dropped for a moment, so that the answer is not lost to a reset (RFC 9112 section
9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tornado.http1connection import HTTP1Connection
from tornado.web import stream_request_body

from controlplane.refagent.faults import AgentFault, conflict
from controlplane.refagent.http import Guarded
from controlplane.refagent.upload_target import UploadFile, parse_path

CONCURRENT_LIMIT = 8
IDLE_SECONDS = 60.0
LINGER_SECONDS = 3.0
LINGER_BYTES = 64 << 20
BODY_SECONDS = 7 * 86_400.0
UNLIMITED_BYTES = 1 << 62

T = TypeVar("T")


@dataclass(slots=True)
class UploadGate:
    """How many uploads are under way, and whether new ones are kept out."""

    root: Path
    staging: Path
    max_bytes: int | None
    executor: Executor
    active: int = 0
    closed_for: str | None = field(default=None)

    def enter(self) -> None:
        """Raises AgentFault 409 while a restore is under way, 503 when too many uploads are."""
        if self.closed_for is not None:
            raise conflict(self.closed_for, "A restore is under way.")
        if self.active >= CONCURRENT_LIMIT:
            raise AgentFault(503, "too_many_uploads", f"{CONCURRENT_LIMIT} uploads are under way.")
        self.active += 1

    def shut(self, reason: str) -> None:
        """Keep new ones out. Raises AgentFault 409 when one is under way."""
        if self.active:
            raise conflict("upload_in_progress", "An upload is under way.")
        self.closed_for = reason

    def open(self) -> None:
        self.closed_for = None


@stream_request_body
class Upload(Guarded):
    def initialize(self, gate: UploadGate) -> None:
        self._gate = gate
        self._entered = False
        self._answered = False
        self._gone = False
        self._dropped = 0
        self._file: UploadFile | None = None
        self._using_file = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._cleanup: asyncio.Task[None] | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        super().prepare()
        if self.request.method != "POST":
            return
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(UNLIMITED_BYTES)
            connection.set_body_timeout(BODY_SECONDS)
        try:
            await self._begin()
        except AgentFault as fault:
            if self.request.headers.get("Expect", "").lower() == "100-continue":
                raise  # no body is on its way: end now, so that no "100 Continue" follows the answer
            self._refuse(fault)

    async def _begin(self) -> None:
        self._refuse_forms()
        expected = self._expected_bytes()
        parts = parse_path(self.one_query_value("path"))
        self._check_size(expected)
        self._gate.enter()
        self._entered = True
        async with self._using_file:
            self._file = await self._blocking(
                lambda: UploadFile.create(self._gate.root, self._gate.staging, parts, expected)
            )
        if self._gone:
            self._discard()
        self._watch_idle()

    def _refuse_forms(self) -> None:
        if self.request.headers.get("Content-Type", "").startswith("multipart/"):
            raise AgentFault(415, "raw_body_wanted", "Send the file as the raw body, not as a form.")

    def _expected_bytes(self) -> int:
        length = self.request.headers.get("Content-Length", "0")
        return int(length) if length.isdecimal() else 0

    def _check_size(self, size: int) -> None:
        limit = self._gate.max_bytes
        if limit is not None and size > limit:
            raise AgentFault(413, "too_large", f"An upload may have {limit} bytes.", limitBytes=limit)

    async def data_received(self, chunk: bytes) -> None:
        if self._answered:
            self._dropped += len(chunk)
            if self._dropped > LINGER_BYTES:
                self._end_lingering()
            return
        try:
            async with self._using_file:
                file = self._file
                if file is None or self._gone:
                    return
                self._check_size(file.size + len(chunk))
                await self._blocking(lambda: file.write(chunk))
        except AgentFault as fault:
            self._refuse(fault)
        except OSError as error:
            self.log_exception(OSError, error, None)
            self._refuse(AgentFault(500, "write_failed", f"The file could not be written: {error.strerror}."))
        else:
            self._watch_idle()

    async def post(self) -> None:
        if self._answered:
            self._end_lingering()
            return
        async with self._using_file:
            file = self._file
            if file is None:
                return
            await self._blocking(file.commit)
        self._discard()
        if self._cleanup is not None:  # whoever is told may restore a backup at once
            await self._cleanup
        self.reply({"path": self.one_query_value("path"), "sizeBytes": file.size}, 201)

    def on_finish(self) -> None:
        self._discard()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        self._discard()

    def _refuse(self, fault: AgentFault) -> None:
        """Answer now, in full, but leave the connection open for what is on its way."""
        if self._answered or self._gone:
            return
        self._answered = True
        self._discard()
        self.set_header("Connection", "close")
        self.begin_reply({"error": fault.message, "code": fault.code, **fault.extra}, fault.status)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end_lingering)

    def _end_lingering(self) -> None:
        if not self._finished:
            self.finish()

    def _watch_idle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._gone and not self._answered:
            slow = AgentFault(408, "upload_idle", f"Nothing was received for {IDLE_SECONDS:g} s.")
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._refuse, slow)

    def _discard(self) -> None:
        """Give back what is held: the half file, the place among the uploads. Safe to call again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._cleanup is None and self._entered:
            self._cleanup = asyncio.get_running_loop().create_task(self._close_file())

    async def _close_file(self) -> None:
        async with self._using_file:  # after the write that may be under way
            file, self._file = self._file, None
            try:
                if file is not None:
                    await self._blocking(file.close)
            finally:
                self._gate.active -= 1

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._gate.executor, call)
