"""Two sockets made one: bytes pass from each to the other as they are, at the pace of the slower side.

For websockets behind their handshake: no frame is read, so that none is too large, and what the two ends agreed on
(compression, subprotocol) stays theirs. All pairs share one scratch buffer: an idle pair costs two sockets and a few
small objects. Either end closes both, since code-server does not notice a peer that is half closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from controlplane.errors import Overloaded
from controlplane.proxying.upload import linger

SCRATCH_BYTES = 256 << 10
PAIR_LIMIT = 4096
FLUSH_SECONDS = 30.0
"""For one side to take what is left when the other has ended."""

_WOULD_BLOCK = (BlockingIOError, InterruptedError)
_NOTHING = memoryview(b"")


class _Direction:
    """From `source` to `target`. `pending` is what the target has not taken yet: nothing is read meanwhile.

    `has_moved` says whether a byte passed since it was last looked at. What is done for each message is spelled out and
    its calls bound beforehand: at this size of work each lookup is felt by whoever waits for an echo.
    """

    __slots__ = ("_on_end", "_receive", "_scratch", "_send", "has_moved", "pending", "source", "target")

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        scratch: memoryview,
        on_end: Callable[[_Direction], None],
    ) -> None:
        self.source = source
        self.target = target
        self.pending: memoryview = _NOTHING
        self.has_moved = False
        self._scratch = scratch
        self._receive = source.recv_into
        self._send = target.send
        self._on_end = on_end

    def start(self, ahead: bytes) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.source.fileno(), self._on_readable)
        if ahead:
            try:
                self._hold(memoryview(ahead), self._send(ahead))
            except _WOULD_BLOCK:
                self._hold(memoryview(ahead), 0)
            except OSError:
                self._on_end(self)

    def _on_readable(self) -> None:
        received = 0
        try:
            received = self._receive(self._scratch)
            if received:
                self.has_moved = True
                sent = self._send(self._scratch[:received])
                if sent != received:
                    self._hold(self._scratch[:received], sent)
                return
        except _WOULD_BLOCK:
            if received:
                self._hold(self._scratch[:received], 0)
            return
        except OSError:
            pass
        asyncio.get_running_loop().remove_reader(self.source.fileno())
        self._on_end(self)

    def _hold(self, data: memoryview, sent: int) -> None:
        """Keep what was not sent, and read no more until it is."""
        if sent < len(data):
            self.pending = memoryview(bytes(data[sent:]))
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.source.fileno())
            loop.add_writer(self.target.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        try:
            sent = self._send(self.pending)
        except _WOULD_BLOCK:
            return
        except OSError:
            self.pending = _NOTHING
            self._on_end(self)
            return
        self.has_moved = True
        self.pending = self.pending[sent:]
        if not self.pending:
            self.pending = _NOTHING
            loop = asyncio.get_running_loop()
            loop.remove_writer(self.target.fileno())
            loop.add_reader(self.source.fileno(), self._on_readable)


class Pair:
    """`on_close` is called once, when both sockets are closed."""

    __slots__ = ("_client", "_down", "_ending", "_hub", "_moved_at", "_on_close", "_up", "_upstream")

    def __init__(
        self, hub: Splices, client: socket.socket, upstream: socket.socket, on_close: Callable[[Pair], None]
    ) -> None:
        self._moved_at = hub.now()
        self._hub = hub
        self._client = client
        self._upstream = upstream
        self._on_close = on_close
        self._ending: asyncio.Task[None] | None = None
        self._up = _Direction(client, upstream, hub.scratch, self._ended)
        self._down = _Direction(upstream, client, hub.scratch, self._ended)

    def start(self, ahead_of_client: bytes, ahead_of_upstream: bytes) -> None:
        """With what each side had sent already."""
        self._down.start(ahead_of_upstream)
        if self._ending is None:
            self._up.start(ahead_of_client)

    def close(self) -> None:
        """At once: whoever was connected may be no longer, or the process stops."""
        if self._ending is not None:
            self._ending.cancel()  # its waits must leave the sockets before these are closed
            return
        self._detach()
        self._close()

    def idle_seconds(self, moment: float) -> float:
        """Since a byte passed, as exactly as this is asked."""
        if self._up.has_moved or self._down.has_moved:
            self._up.has_moved = self._down.has_moved = False
            self._moved_at = moment
        return moment - self._moved_at

    def _ended(self, direction: _Direction) -> None:
        """One side is through: the other gets what is left, and then both are closed."""
        if self._ending is None:
            self._detach()
            self._ending = asyncio.get_running_loop().create_task(self._end(direction))
            self._ending.add_done_callback(lambda _: self._close())

    async def _end(self, direction: _Direction) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.get_running_loop().sock_sendall(direction.target, direction.pending)
            if direction is self._down:
                await linger(self._client)  # else a reset for what it still sends would cost it the end

    def _detach(self) -> None:
        loop = asyncio.get_running_loop()
        for each in (self._client, self._upstream):
            if each.fileno() >= 0:
                loop.remove_reader(each.fileno())
                loop.remove_writer(each.fileno())

    def _close(self) -> None:
        if self._client.fileno() < 0:
            return
        self._client.close()
        self._upstream.close()
        self._hub.left(self)
        self._on_close(self)


class Splices:
    """All pairs of this process. `now` is the monotonic clock; a pair ends when nothing moves for `idle_seconds`."""

    def __init__(self, now: Callable[[], float], *, idle_seconds: float, limit: int = PAIR_LIMIT) -> None:
        self.now = now
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._idle_seconds = idle_seconds
        self._limit = limit
        self._pairs: set[Pair] = set()

    def __len__(self) -> int:
        return len(self._pairs)

    def check_room(self) -> None:
        """Raises Overloaded."""
        if len(self._pairs) >= self._limit:
            raise Overloaded("Too many websockets are open here; try again.")

    def join(self, client: socket.socket, upstream: socket.socket, on_close: Callable[[Pair], None]) -> Pair:
        """Both are non-blocking and belong to the pair from now on. Nothing passes before `start`."""
        for each in (client, upstream):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        pair = Pair(self, client, upstream, on_close)
        self._pairs.add(pair)
        return pair

    def left(self, pair: Pair) -> None:
        self._pairs.discard(pair)

    async def run_once(self) -> None:
        moment = self.now()
        for pair in list(self._pairs):
            if pair.idle_seconds(moment) > self._idle_seconds:
                pair.close()

    def close(self) -> None:
        for pair in list(self._pairs):
            pair.close()
