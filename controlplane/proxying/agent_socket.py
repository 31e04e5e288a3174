"""A plain non-blocking socket to an agent, for bytes that pass through without an HTTP client in between.

No proxies and no names: `check_dial` judges the address, TLS is checked as for every other call to an agent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from controlplane.agents.faults import unreachable
from controlplane.errors import AgentTimeout
from controlplane.models import AgentEndpoint


async def open_agent_socket(
    endpoint: AgentEndpoint, *, check_dial: Callable[[str], None], tls: ssl.SSLContext, timeout_seconds: float
) -> socket.socket:
    """Connected. Raises AgentUnreachable or AgentTimeout, or what `check_dial` raises."""
    check_dial(endpoint.address)
    connection = socket.socket(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(timeout_seconds):
            await asyncio.get_running_loop().sock_connect(connection, (endpoint.address, endpoint.port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return await _secured(connection, endpoint.address, tls) if endpoint.https else connection
    except TimeoutError as error:
        connection.close()
        raise AgentTimeout(f"The agent did not accept the connection within {timeout_seconds:.3g} s.") from error
    except OSError as error:
        connection.close()
        raise unreachable(error) from error
    except BaseException:
        connection.close()
        raise


async def _secured(connection: socket.socket, address: str, tls: ssl.SSLContext) -> ssl.SSLSocket:
    secured = tls.wrap_socket(connection, server_hostname=address, do_handshake_on_connect=False)
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            await _until_ready(secured, for_writing=False)
        except ssl.SSLWantWriteError:
            await _until_ready(secured, for_writing=True)
        else:
            return secured


async def _until_ready(connection: socket.socket, *, for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = connection.fileno()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if for_writing else loop.add_reader)(descriptor, tell)
    try:
        await ready
    finally:
        (loop.remove_writer if for_writing else loop.remove_reader)(descriptor)
