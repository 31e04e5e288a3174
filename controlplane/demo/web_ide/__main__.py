"""`python -m controlplane.demo.web_ide --port P [--dir D]`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from controlplane.demo.web_ide.app import SAVE_LIMIT_BYTES, make_app
from controlplane.demo.web_ide.terminals import Terminals

KEEP_ALIVE_SECONDS = 5  # Node's default, so code-server's: whoever pools connections to it meets stale ones


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m controlplane.demo.web_ide", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one and prints it")
    parser.add_argument("--dir", type=Path, default=Path(), help="the folder that is edited (the present one)")
    given = parser.parse_args()
    folder = given.dir.resolve()
    if not folder.is_dir():
        parser.error(f"--dir: {folder} is no folder")
    return asyncio.run(serve(given.port, folder))


async def serve(port: int, folder: Path) -> int:
    """Returns the exit status: 0 after a signal, 1 when the port cannot be listened on."""
    try:
        sockets = bind_sockets(port, "127.0.0.1")
    except OSError as error:
        print(f"web_ide: cannot listen on port {port}: {error.strerror}", file=sys.stderr)
        return 1
    terminals = Terminals(folder)
    server = HTTPServer(
        make_app(folder, terminals), max_body_size=SAVE_LIMIT_BYTES, idle_connection_timeout=KEEP_ALIVE_SECONDS
    )
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    server.add_sockets(sockets)
    print(f"web_ide listening on http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)
    await ending.wait()
    server.stop()
    terminals.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await server.close_all_connections()
    return 0


if __name__ == "__main__":
    sys.exit(main())
