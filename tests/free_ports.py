"""Ports for servers that are started later, or again and again, or never."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

PORTS = range(10_000, 20_000)
"""Below those that the kernel gives to connections by itself (ip_local_port_range), and to the demo's editors: nobody
takes one between its choice and its use, or while its server is away."""


def free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def closed_port() -> Iterator[int]:
    """Where connections are refused: it is taken, so that nobody else listens there meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
