"""Pairs of sockets: bounded in number, ended when nothing moves, and whole until then."""

from __future__ import annotations

import asyncio
import socket

import pytest

from controlplane.errors import Overloaded
from controlplane.proxying.splice import Pair, Splices
from tests.fakes import FakeClock
from tests.refagent_process import until


class Ends:
    """A pair with the far ends of both of its sockets."""

    def __init__(self, hub: Splices) -> None:
        self.browser, client = _sockets()
        self.app, upstream = _sockets()
        self.closed: list[Pair] = []
        self.pair = hub.join(client, upstream, self.closed.append)

    async def has_closed(self) -> bool:
        return bool(self.closed)

    async def receive(self, end: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await asyncio.get_running_loop().sock_recv(end, 1 << 16)
            assert piece
            data += piece
        return data

    async def is_closed(self, end: socket.socket) -> bool:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(end, 1) == b""

    def close(self) -> None:
        self.pair.close()
        self.browser.close()
        self.app.close()


def _sockets() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for each in (near, far):
        each.setblocking(False)
    return near, far


def hub_of(clock: FakeClock, limit: int = 10) -> Splices:
    return Splices(clock.monotonic, idle_seconds=60, limit=limit)


@pytest.mark.gen_test
async def test_what_either_side_sent_ahead_comes_first() -> None:
    ends = Ends(hub_of(FakeClock()))
    ends.browser.send(b" and later")
    ends.app.send(b" goes on")
    ends.pair.start(b"from the browser", b"from the app")
    assert await ends.receive(ends.app, 26) == b"from the browser and later"
    assert await ends.receive(ends.browser, 20) == b"from the app goes on"
    ends.close()


@pytest.mark.gen_test
async def test_a_pair_on_which_nothing_moves_ends_and_one_that_moves_does_not() -> None:
    clock = FakeClock()
    hub = hub_of(clock)
    still, moving = Ends(hub), Ends(hub)
    still.pair.start(b"", b"")
    moving.pair.start(b"", b"")
    for _ in range(4):
        clock.advance(20)
        moving.app.send(b"x")
        await moving.receive(moving.browser, 1)
        await hub.run_once()
    assert await still.is_closed(still.browser)
    assert await still.is_closed(still.app)
    assert still.closed == [still.pair]
    assert moving.closed == []
    assert len(hub) == 1
    still.close()
    moving.close()


@pytest.mark.gen_test
async def test_there_is_room_for_so_many() -> None:
    hub = hub_of(FakeClock(), limit=2)
    pairs = [Ends(hub), Ends(hub)]
    with pytest.raises(Overloaded):
        hub.check_room()
    pairs[0].close()
    hub.check_room()
    pairs[1].close()


@pytest.mark.gen_test
async def test_closing_while_an_end_is_being_flushed_closes_both_once() -> None:
    ends = Ends(hub_of(FakeClock()))
    ends.pair.start(b"", b"x" * (16 << 20))  # more than the browser's buffers hold
    ends.app.close()
    ends.browser.send(b"y")
    await asyncio.sleep(0)
    ends.pair.close()
    ends.pair.close()
    await until(ends.has_closed)
    assert ends.closed == [ends.pair]
    ends.browser.close()
