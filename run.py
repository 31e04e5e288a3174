"""The command line: serve (the default), demo, administration, reconciliation, descriptions. `--help` lists it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from controlplane import __version__
from controlplane.agents.conformance import run_agent_check
from controlplane.billing.accounts import DriftReport
from controlplane.demo.session import run_demo
from controlplane.errors import ControlPlaneError
from controlplane.models import Role
from controlplane.observability.logs import configure_logging
from controlplane.settings import Settings
from controlplane.wiring import (
    ControlPlane,
    check_billing,
    compare_billing,
    export_to,
    import_from,
    open_database,
    prepare_database,
    reconcile_billing,
)
from handlers.app import ROUTES
from handlers.openapi import describe
from handlers.server import ApiServer

SOURCE_FOLDER = Path(__file__).resolve().parent
EMBEDDED_NOTICE = (
    "using the embedded database (SecantusDB, a beta): for evaluation and small single-VM installs; "
    "MONGODB_URI names a MongoDB replica set instead"
)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.run
    try:
        return command(given)
    except ControlPlaneError as error:
        print(f"controlplane: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="controlplane",
        description="Control plane for game servers and dev containers. Settings come from the environment: "
        "conf/controlplane.env.example lists them.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    add("serve", _serve, "serve the API (the default)")
    demo = add("demo", _demo, "a control plane with three real agents on loopback, to try it out")
    demo.add_argument("--port", type=int, default=8080, help="0 picks a free one (%(default)s)")
    demo.add_argument("--data-dir", type=Path, default=Path("demo-data"), help="kept between runs (%(default)s)")
    check = add("agent-check", _agent_check, "run the agent contract against a live agent")
    check.add_argument("url", metavar="URL", help="http://address:port of the agent")
    check.add_argument("--token", required=True, help="its bearer token")
    admin = add("create-admin", _create_admin, "make an administrator; the password is read from the terminal or stdin")
    admin.add_argument("--email", required=True)
    add("check-config", _check_config, "read the settings and say what is wrong with them")
    export = add("export", _export, "write the database as a mongodump-shaped folder")
    export.add_argument("folder", metavar="DIR", type=Path)
    restore = add("import", _import, "read a mongodump-shaped folder into an empty database")
    restore.add_argument("folder", metavar="DIR", type=Path)
    reconcile = add("reconcile", _reconcile, "compare with the payment provider and set right what can be")
    reconcile.add_argument("--dry-run", action="store_true", help="say what differs, change nothing")
    add("openapi", _openapi, "print the API's OpenAPI description")
    add("version", _version, "print the version")
    return parser


# -- serving -----------------------------------------------------------------------------------------------------------


def _serve(_given: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    listener = configure_logging(settings.log_level)
    if settings.mongodb_uri is None:
        print(f"controlplane: {EMBEDDED_NOTICE}", file=sys.stderr)
    try:
        _run(_serve_until_told(settings))
    finally:
        listener.stop()
    return 0


async def _serve_until_told(settings: Settings) -> None:
    told = _told_to_stop()
    async with open_database(settings) as database:
        plane = ControlPlane(settings, database)
        server = ApiServer(plane.services)
        port = server.listen()
        print(f"controlplane {__version__}: listening on http://{settings.http_address}:{port}", file=sys.stderr)
        starting = asyncio.ensure_future(plane.start())
        stopping = asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()  # raises what makes serving impossible
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await server.drain(limit_seconds=settings.drain_seconds)
            await plane.stop()


def _demo(given: argparse.Namespace) -> int:
    folder: Path = given.data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "demo.log").open("a", buffering=1) as log:
        listener = configure_logging("INFO", log)
        try:
            _run(_demo_until_told(folder, given.port))
        finally:
            listener.stop()
    return 0


async def _demo_until_told(folder: Path, port: int) -> None:
    """Ctrl-C ends the demo wherever it is, also while it still waits for its agents."""
    told = _told_to_stop()
    demo = asyncio.ensure_future(run_demo(folder, port, SOURCE_FOLDER, ApiServer))
    stopping = asyncio.ensure_future(told.wait())
    await asyncio.wait((demo, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not demo.done():
        print("stopping", flush=True)
        demo.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await demo


def _told_to_stop() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process as usual."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        told.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell)
    return told


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


# -- administration ----------------------------------------------------------------------------------------------------


def _agent_check(given: argparse.Namespace) -> int:
    status: int = _run(run_agent_check(given.url, given.token, print))
    return status


def _create_admin(given: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            print("controlplane: the two passwords differ", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\r\n")

    async def create() -> str:
        async with open_database(settings) as database:
            await prepare_database(database)
            plane = ControlPlane(settings, database)
            try:
                user = await plane.services.sessions.create_user(given.email, password, Role.ADMIN)
            finally:
                await plane.stop()
            return user.id

    print(f"administrator {given.email} is {_run(create())}")
    return 0


def _check_config(_given: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    check_billing(settings.billing)
    print(settings)
    return 0


def _export(given: argparse.Namespace) -> int:
    for collection, count in _run(export_to(Settings.from_env(os.environ), given.folder)):
        print(f"{collection}: {count}")
    return 0


def _import(given: argparse.Namespace) -> int:
    for collection, count in _run(import_from(Settings.from_env(os.environ), given.folder)):
        print(f"{collection}: {count}")
    return 0


def _reconcile(given: argparse.Namespace) -> int:
    """0 when nothing differs, 1 when something does or the comparison could not be finished."""
    settings = Settings.from_env(os.environ)
    report: DriftReport = _run(compare_billing(settings) if given.dry_run else reconcile_billing(settings))
    for finding in report.findings:
        repaired = " (set right)" if finding.repaired else ""
        print(f"{finding.drift.value:20} {finding.subject} {finding.user_id or '-'}: {finding.detail}{repaired}")
    if report.findings_omitted:
        print(f"and {report.findings_omitted} more")
    if report.problem:
        print(f"controlplane: {report.problem}", file=sys.stderr)
    print(
        f"compared {report.subscriptions_read} subscriptions, {report.accounts_read} accounts and "
        f"{report.events_read} events: {len(report.findings) + report.findings_omitted} differences"
    )
    return 1 if report.findings or report.problem else 0


def _openapi(_given: argparse.Namespace) -> int:
    print(describe(ROUTES).json.decode())
    return 0


def _version(_given: argparse.Namespace) -> int:
    print(__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
