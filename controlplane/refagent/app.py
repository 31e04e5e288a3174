"""The agent's route table and the parts behind it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from tornado.web import Application

from controlplane.refagent.backup_routes import BackupList, BackupRestore, OneBackup
from controlplane.refagent.backups import Backups, recover
from controlplane.refagent.console import Console
from controlplane.refagent.console_socket import ConsoleClients, ConsoleStream
from controlplane.refagent.control import CodeserverStatus, ConsoleCommand, Health, Power, Ready, Status
from controlplane.refagent.guard import GroupGuard
from controlplane.refagent.http import BODY_LIMIT_BYTES, NoSuchRoute
from controlplane.refagent.options import Options
from controlplane.refagent.readiness import PortAccepts, PrintsPattern, Readiness, RunningIsReady
from controlplane.refagent.supervisor import Program, Supervisor
from controlplane.refagent.uploads import Upload, UploadGate
from controlplane.refagent.usage import UsageMeter, memory_limit_bytes

CODESERVER_CONSOLE_LINES = 200
PING_SECONDS = 20
WORKER_THREADS = 4


class Agent:
    """Every part of one running agent. Make it on the event loop."""

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        self._options = options
        recover(options.files, options.backups, options.staging)
        self.executor = ThreadPoolExecutor(WORKER_THREADS, thread_name_prefix="agent")
        self.console = Console(max_lines=options.console_lines)
        self.guard = GroupGuard()
        self.workload = Supervisor(_workload(options, environment), self.console, _readiness(options), self.guard)
        self.codeserver = _codeserver(options, environment, self.guard)
        self.meter = UsageMeter(options.files, self.executor)
        self.memory_limit_bytes = memory_limit_bytes()
        self.uploads = UploadGate(options.files, options.staging, options.max_upload_bytes, self.executor)
        self.backups = Backups(
            files=options.files,
            folder=options.backups,
            staging=options.staging,
            executor=self.executor,
            uploads=self.uploads,
            supervisors=self.supervisors,
            new_id=lambda now: f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        )

    def application(self) -> Application:
        workload = {"supervisor": self.workload}
        backups = {"backups": self.backups}
        codeserver = {"supervisor": self.codeserver, "missing": "This agent was given no code-server to control."}
        return Application(
            [
                (r"/health", Health),
                (r"/ready", Ready, workload),
                (r"/status", Status, {**workload, "meter": self.meter, "memory_limit_bytes": self.memory_limit_bytes}),
                (r"/(start|stop|restart)", Power, workload),
                (r"/console/command", ConsoleCommand, workload),
                (r"/console/stream", ConsoleStream, {**workload, "console": self.console, "clients": ConsoleClients()}),
                (r"/game/backups", BackupList, backups),
                (r"/game/backups/restore", BackupRestore, backups),
                (r"/game/backups/([^/]+)", OneBackup, backups),
                (r"/game/files/upload", Upload, {"gate": self.uploads}),
                (r"/dev/codeserver/(start|stop|restart)", Power, codeserver),
                (r"/dev/codeserver/status", CodeserverStatus, {**codeserver, "port": self._options.codeserver_port}),
            ],
            default_handler_class=NoSuchRoute,
            token=self._options.token,
            log_function=lambda handler: None,  # the control plane logs its calls; the console is not for them
            websocket_ping_interval=PING_SECONDS,
            websocket_max_message_size=BODY_LIMIT_BYTES,
        )

    @property
    def supervisors(self) -> list[Supervisor]:
        return [one for one in (self.workload, self.codeserver) if one is not None]


def _workload(options: Options, environment: Mapping[str, str]) -> Program:
    return Program(
        name="the server",
        command=options.command,
        folder=options.files,
        environment=environment,
        terminal=options.terminal,
        stop_line=options.stop_line,
        stop_seconds=options.stop_seconds,
        crash_restart=options.crash_restart,
    )


def _readiness(options: Options) -> Readiness:
    if options.ready_pattern is not None:
        return PrintsPattern(options.ready_pattern)
    if options.ready_port is not None:
        return PortAccepts(options.ready_port)
    return RunningIsReady()


def _codeserver(options: Options, environment: Mapping[str, str], guard: GroupGuard) -> Supervisor | None:
    if options.codeserver_command is None:
        return None
    program = Program(
        name="code-server",
        command=options.codeserver_command,
        folder=options.files,
        environment=environment,
        terminal=False,
        stop_line=None,
        stop_seconds=options.stop_seconds,
        crash_restart=options.crash_restart,
    )
    console = Console(max_lines=CODESERVER_CONSOLE_LINES)
    return Supervisor(program, console, PortAccepts(options.codeserver_port), guard)
