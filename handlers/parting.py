"""Last words on a connection: an answer and then its end, without the reset that would cost the client the answer.

For requests after which nothing on the connection can be trusted, and for heads that were not read to their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from controlplane.proxying.upload import linger

SEND_SECONDS = 30.0
_partings: set[asyncio.Task[None]] = set()


def part(client: socket.socket, answer: bytes) -> None:
    """Takes the socket: it is closed when the answer is sent and the client has closed, or has had its time."""
    parting = asyncio.get_running_loop().create_task(_part(client, answer))
    _partings.add(parting)  # bounded by the server's connections; each ends by its time limits
    parting.add_done_callback(_partings.discard)


async def _part(client: socket.socket, answer: bytes) -> None:
    client.setblocking(False)
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.get_running_loop().sock_sendall(client, answer)
            await linger(client)
    finally:
        client.close()
