"""What an upload waits for has a limit, from before its first byte on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

import pytest

from controlplane.errors import ControlPlaneError
from controlplane.instances import InstanceDirectory
from controlplane.models import AgentEndpoint, Instance
from controlplane.proxying.upload import ClientGone, Order, Uploads


class Directory:
    def add_listener(self, _listener: Any) -> None:
        """Nothing of it changes here."""


def full_pair() -> tuple[socket.socket, socket.socket]:
    """Ours takes not a byte more for the client, who reads nothing."""
    ours, client = socket.socketpair()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(1 << 16))
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x")
    return ours, client


@pytest.mark.gen_test
async def test_a_client_that_cannot_even_be_asked_to_go_on_is_given_up() -> None:
    agent, far = socket.socketpair()
    agent.setblocking(False)
    ours, client = full_pair()

    async def dial(_endpoint: AgentEndpoint) -> socket.socket:
        return agent

    uploads = Uploads(
        dial,
        cast(InstanceDirectory, Directory()),
        limit_bytes=1 << 20,
        per_user=1,
        idle_seconds=0.05,
        answer_seconds=60,
    )
    order = Order("u", cast(Instance, None), AgentEndpoint("127.0.0.1", 1, "t"), "/", 5, "r", expects_continue=True)
    stopped: asyncio.Future[ControlPlaneError] = asyncio.get_running_loop().create_future()
    with pytest.raises(ClientGone):
        await uploads.carry(ours, b"", order, stopped)
    assert agent.fileno() < 0
    for each in (far, ours, client):
        each.close()
