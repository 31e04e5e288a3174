"""What becomes of output that is still gathered when the connection to the agent ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from controlplane.models import AgentEndpoint
from controlplane.proxying.console_channel import Channel
from controlplane.proxying.console_viewer import Viewer
from controlplane.proxying.websocket import WebSocket

ENDPOINT = AgentEndpoint("192.0.2.1", 8081, "a-token-of-sixteen-and-more")
CROWD = 1000
"""So many that output is gathered for as long as it ever is."""


class Onlooker:
    may_inflate = False

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.disconnected = asyncio.Event()

    def published(self, seq: int, frame: bytes) -> None:
        """Reads the channel's scrollback in the place of this."""

    def admitted(self, feed: object) -> None:
        """Has no place in it."""

    def tell(self, event: str, **fields: Any) -> None:
        if event == "state":
            (self.connected if fields["connected"] else self.disconnected).set()


@pytest.mark.gen_test
async def test_the_last_words_of_an_agent_are_shown_when_its_connection_ends() -> None:
    dialled: list[WebSocket] = []

    async def dial(_endpoint: AgentEndpoint, make: Callable[[], WebSocket]) -> WebSocket:
        dialled.append(make())
        return dialled[-1]

    channel = Channel("gs_1", ENDPOINT, "stream", dial=dial, limit_bytes=lambda: 1 << 20, now=lambda: 0.0)
    crowd = [Onlooker() for _ in range(CROWD)]
    for each in crowd:
        channel.join(cast(Viewer, each))
    await crowd[0].connected.wait()
    crowd[0].disconnected.clear()  # it was, at first
    (upstream,) = dialled
    for text in (b"all is well", b"The sky falls."):
        upstream.message_received(text, is_text=True)
    upstream.closed(1006)
    await crowd[0].disconnected.wait()
    assert channel.scrollback.last_lines(5) == ["all is well", "The sky falls."]
    await channel.close()
