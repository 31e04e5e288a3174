"""What counts as progress of a client that takes an answer."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.iostream import StreamClosedError

from handlers.strict_stream import ClientLimits, StrictStream
from tests.refagent_process import until

ANSWER_BYTES = 16 << 20


def connected() -> tuple[socket.socket, socket.socket]:
    """Ours holds much for a client who takes little at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.connect(listener.getsockname())
        client.setblocking(False)
        ours, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    ours.setblocking(False)
    return ours, client


@pytest.mark.gen_test(timeout=60)
async def test_a_client_moves_although_the_socket_does_not_say_so_yet() -> None:
    ours, client = connected()
    stream = StrictStream(ours, ClientLimits(60, 1), max_buffer_size=1 << 20)
    loop = asyncio.get_running_loop()
    written = stream.write(bytes(ANSWER_BYTES))
    sent_at_once = stream._total_write_done_index
    end = loop.time() + 2.5

    async def is_over() -> bool:
        assert not stream.closed()
        await loop.sock_recv(client, 16 << 10)
        return loop.time() >= end

    await until(is_over)
    assert stream._total_write_done_index == sent_at_once  # the buffer was never free enough
    with pytest.raises(StreamClosedError):
        await written
    client.close()
