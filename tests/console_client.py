"""A viewer of a console, as a browser would be one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

Event = dict[str, Any]


class ConsoleClient:
    """`async with` it. Remembers every event."""

    def __init__(self, url: str, *, origin: str | None = None, compressed: bool = False) -> None:
        self._request = HTTPRequest(url.replace("http", "ws", 1), headers={} if origin is None else {"Origin": origin})
        self._compressed = compressed
        self.events: list[Event] = []

    async def __aenter__(self) -> ConsoleClient:
        self.socket: WebSocketClientConnection = await websocket_connect(
            self._request, compression_options={} if self._compressed else None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()
        if self.socket.close_code is None:
            await self.closed(10)

    async def send(self, event: str, **fields: Any) -> None:
        await self.socket.write_message(json.dumps({"event": event, **fields}))

    async def until(self, matches: Callable[[Event], bool], seconds: float = 20) -> Event:
        """The first event, from now on or earlier, that matches."""
        seen = 0
        async with asyncio.timeout(seconds):
            while True:
                for event in self.events[seen:]:
                    if matches(event):
                        return event
                seen = len(self.events)
                message = await self.socket.read_message()
                assert message is not None, f"closed with {self.socket.close_code}: {self.events[-5:]}"
                self.events.append(json.loads(message))

    async def named(self, name: str) -> Event:
        return await self.until(lambda event: event["event"] == name)

    async def printed(self, text: str) -> Event:
        return await self.until(lambda event: event["event"] == "output" and text in event["data"])

    async def closed(self, seconds: float = 20) -> int | None:
        """The code that the server closes with."""
        async with asyncio.timeout(seconds):
            while (message := await self.socket.read_message()) is not None:
                self.events.append(json.loads(message))
        return self.socket.close_code

    @property
    def output(self) -> str:
        return "\n".join(event["data"] for event in self.events if event["event"] == "output")

    def output_until(self, seq: int) -> list[str]:
        """What was printed up to that number: a game may say more at any time."""
        return [event["data"] for event in self.events if event["event"] == "output" and event["seq"] <= seq]

    @property
    def numbers(self) -> list[int]:
        return [event["seq"] for event in self.events if event["event"] == "output"]
