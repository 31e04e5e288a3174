"""`WS /console/stream`: the console as text frames, one bounded queue a client; a slow client is dropped, alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from controlplane.refagent.console import Console
from controlplane.refagent.control import one_line
from controlplane.refagent.faults import AgentFault
from controlplane.refagent.http import Guarded
from controlplane.refagent.supervisor import Supervisor

QUEUE_LIMIT = 8 << 20  # characters that may wait for one client
CLIENT_LIMIT = 16
TOO_SLOW = 4408
TEXT_ONLY = 1003  # RFC 6455 section 7.4.1


class ConsoleClients:
    """How many streams are open, at most CLIENT_LIMIT."""

    def __init__(self) -> None:
        self.count = 0


class ConsoleStream(Guarded, WebSocketHandler):
    """Scrollback first, then output as it comes. Text frames in are input: one or more lines."""

    def initialize(self, supervisor: Supervisor, console: Console, clients: ConsoleClients) -> None:
        self._supervisor = supervisor
        self._console = console
        self._clients = clients
        self._queue: deque[str] = deque()
        self._queued = 0
        self._wakeup = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def prepare(self) -> None:
        super().prepare()
        if self._clients.count >= CLIENT_LIMIT:
            raise AgentFault(503, "too_many_streams", f"{CLIENT_LIMIT} console streams are open.")

    def open(self, *args: str, **kwargs: str) -> None:
        self._clients.count += 1
        self._unsubscribe = self._console.listen(self._enqueue)
        for frame in self._console.recent():
            self._enqueue(frame)
        self._sender = asyncio.get_running_loop().create_task(self._send())

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.close(TEXT_ONLY, "text frames only")
            return
        for line in message.splitlines():
            if line.strip():
                self._pass_on(line)

    def on_close(self) -> None:
        if self._sender is None:
            return
        self._clients.count -= 1
        self._stop_sending()

    def _pass_on(self, line: str) -> None:
        try:
            self._supervisor.send_line(one_line(line))
        except AgentFault as fault:
            self._enqueue(f"[agent] not sent: {fault.message}")

    def _enqueue(self, frame: str) -> None:
        self._queue.append(frame)
        self._queued += len(frame)
        if self._queued > QUEUE_LIMIT:
            self._stop_sending()
            self.close(TOO_SLOW, "too slow")
            return
        self._wakeup.set()

    def _stop_sending(self) -> None:
        self._queue.clear()
        self._queued = 0
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self) -> None:
        with contextlib.suppress(WebSocketClosedError):
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                while self._queue:
                    frame = self._queue.popleft()
                    await self.write_message(frame)  # waits while the client's socket is full
                    self._queued -= len(frame)
