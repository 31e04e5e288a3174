"""`python -m controlplane.refagent`: start, serve until SIGTERM or SIGINT, stop the process, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from controlplane.refagent.app import Agent
from controlplane.refagent.child import die_with_parent
from controlplane.refagent.faults import AgentFault
from controlplane.refagent.http import BODY_LIMIT_BYTES
from controlplane.refagent.options import TOKEN_VARIABLE, Options, parse

IDLE_CONNECTION_SECONDS = 300
BODY_SECONDS = 30  # a small body; uploads lift it for themselves
CHUNK_BYTES = 512 << 10
BUFFER_BYTES = 1 << 20

_LOG = logging.getLogger("refagent")


def main() -> int:
    options = parse(sys.argv[1:], os.environ)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if options.die_with_parent:
        die_with_parent(signal.SIGTERM)
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    return asyncio.run(serve(options, environment))


async def serve(options: Options, environment: Mapping[str, str]) -> int:
    """Returns the exit status: 0 after a signal, 1 when the address cannot be bound."""
    try:
        sockets = bind_sockets(options.port, options.address)
    except OSError as error:
        _LOG.error("cannot listen on %s port %d: %s", options.address, options.port, error.strerror or error)
        return 1
    agent = Agent(options, environment)
    server = HTTPServer(
        agent.application(),
        max_body_size=BODY_LIMIT_BYTES,
        body_timeout=BODY_SECONDS,
        idle_connection_timeout=IDLE_CONNECTION_SECONDS,
        chunk_size=CHUNK_BYTES,
        max_buffer_size=BUFFER_BYTES,
    )
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _end, agent, ending)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    print(f"refagent listening on http://{options.address}:{port}", flush=True)  # noqa: T201 - what --port 0 is asked for
    if options.start_on_boot:
        for supervisor in agent.supervisors:
            with contextlib.suppress(AgentFault):  # its state says why
                await supervisor.start()
    await ending.wait()
    server.stop()
    await asyncio.gather(*(supervisor.retire() for supervisor in agent.supervisors))
    await server.close_all_connections()
    agent.executor.shutdown(wait=False, cancel_futures=True)
    agent.guard.end()
    return 0


def _end(agent: Agent, ending: asyncio.Event) -> None:
    """The first signal asks the process to stop, the second does not ask."""
    if ending.is_set():
        for supervisor in agent.supervisors:
            supervisor.kill()
    ending.set()


if __name__ == "__main__":
    sys.exit(main())
