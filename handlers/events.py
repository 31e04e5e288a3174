"""`GET /api/events`: server-sent events (WHATWG HTML, section 9.2) of what the caller may see.

A subscriber without a usable cursor gets a snapshot first. Which events there are is decided by `controlplane.events`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
from tornado.iostream import StreamClosedError

from controlplane.auth.live import Watch
from controlplane.events import Event, Subscription
from handlers.base import Answer, ApiHandler

BATCH = 100
SNAPSHOT_ITEMS = 200


class EventsHandler(ApiHandler):
    _subscription: Subscription | None = None
    _watch: Watch | None = None
    _is_over = False

    async def on_get(self) -> Answer:
        events = self.services.events
        self._subscription = subscription = events.subscribe(self.principal, self.request.headers.get("Last-Event-ID"))
        self._watch = self.services.live.watch(self.principal, self._end)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")  # nginx would gather events otherwise
        try:
            await self._send([b"retry: 2000\n\n"])
            if self.request.headers.get("Last-Event-ID") is None:
                await self._send_snapshot(subscription)
            while not self._is_over and not events.is_closed:
                await self._send_next(subscription)
            await self.finish()
        except (StreamClosedError, TimeoutError):
            self._cut()
        finally:
            self._release()
        return Answer()

    async def _send_next(self, subscription: Subscription) -> None:
        events = self.services.events
        found = events.read(subscription, BATCH) if subscription.gone is None else []
        if subscription.gone is not None:
            await self._send([_block("resync", orjson.dumps({"reason": subscription.gone.value}))])
            subscription.gone = None
            await self._send_snapshot(subscription)
        elif found:
            await self._send([_event_block(events.event_id(event.number), event) for event in found])
        else:
            await self._wait(subscription)

    async def _wait(self, subscription: Subscription) -> None:
        try:
            async with asyncio.timeout(self.services.events.keepalive_seconds):
                await subscription.news.wait()
        except TimeoutError:
            await self._send([b": keepalive\n\n"])

    async def _send_snapshot(self, subscription: Subscription) -> None:
        """The cursor goes out with the last page alone: who loses the connection before gets everything again."""
        number = subscription.cursor - 1
        for items, is_last in _pages(self.services.instance_views.documents(self.principal)):
            data = b'{"items":[%b],"complete":%b}' % (b",".join(items), b"true" if is_last else b"false")
            block = _block("snapshot", data, self.services.events.event_id(number) if is_last else None)
            await self._send([block])

    async def _send(self, blocks: list[bytes]) -> None:
        """Raises TimeoutError when the client does not read."""
        self.write(b"".join(blocks))
        async with asyncio.timeout(self.services.events.slow_seconds):
            await self.flush()

    def _end(self) -> None:
        self._is_over = True
        if self._subscription is not None:
            self._subscription.news.set()

    def _release(self) -> None:
        if self._subscription is not None:
            self.services.events.unsubscribe(self._subscription)
        if self._watch is not None:
            self.services.live.release(self._watch)

    def _cut(self) -> None:
        """A client that went away, or does not read: nothing more can be said to it."""
        self._finished = True
        self.detach().close()
        self._discount()

    def on_connection_close(self) -> None:
        self._end()
        self._release()
        super().on_connection_close()


def _pages(documents: Iterator[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Lists of at most SNAPSHOT_ITEMS, at least one, and whether it is the last."""
    page: list[bytes] = []
    for document in documents:
        if len(page) == SNAPSHOT_ITEMS:
            yield page, False
            page = []
        page.append(document)
    yield page, True


def _event_block(event_id: str, event: Event) -> bytes:
    return _block(event.kind.value, event.data, event_id)


def _block(name: str, data: bytes, event_id: str | None = None) -> bytes:
    """`data` is JSON on one line."""
    head = f"event: {name}\n" if event_id is None else f"id: {event_id}\nevent: {name}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)
