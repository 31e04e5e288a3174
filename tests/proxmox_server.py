"""A Proxmox VE cluster for the tests: a real HTTPS server on a thread of its own that speaks the published API.

What it takes and answers follows https://pve.proxmox.com/pve-docs/api-viewer/ and pve-container's sources: unknown
parameters are refused by name, work is done by tasks that take a while, a container at work is locked. It can fail
each call in each way; `calls` remembers what was asked. It shares no code with the adapter.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from controlplane.storage.first_start import make_certificate
from tests.proxmox_schema import SCHEMA

TOKEN = "controlplane@pve!provision=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
GIB = 1 << 30
_UNKNOWN_PARAMETER = "property is not defined in schema and the schema does not allow additional properties"


@dataclass(slots=True)
class Guest:
    """A container (`lxc`) or a virtual machine (`qemu`). `config` has what GET …/config answers."""

    node: str
    config: dict[str, Any]
    kind: str = "lxc"
    running: bool = False
    stubborn: bool = False  # does not end by itself


@dataclass(slots=True)
class Task:
    """`work` is done when `polls` questions about it were answered; with `failure` it is undone instead."""

    upid: str
    work: Callable[[], None]
    undo: Callable[[], None]
    polls: int
    failure: str | None
    end: str | None = None
    log: list[str] = field(default_factory=list)

    def finish(self) -> None:
        if self.end is not None:
            return
        if self.failure is None:
            self.work()
            self.end, self.log = "OK", ["TASK OK"]
        else:
            self.undo()
            self.end, self.log = self.failure, ["working", f"TASK ERROR: {self.failure}"]


class Declined(Exception):
    def __init__(self, status: int, reason: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.errors = errors


class ProxmoxServer:
    """Use it in a `with`. Two nodes; template 9000 on pve1, 9001 on pve2, with 2 GiB of root disk each.

    `fail(call, how)`: the next such call (`times` of them) is `forbidden` (403), `unauthorized` (401), `refused` (500,
    nothing done), `locked`, `gateway` (595), `dropped` (nothing done, no answer), `lost` (done to its end, no answer
    in time), `unheard` (begun, no answer in time), `garbage` (done, answered with no JSON), or its task ends badly
    (`task`).
    """

    def __init__(self, folder: Path) -> None:
        made = make_certificate(folder)
        self.ca_file, key = made.certificate, made.key
        self.nodes: dict[str, dict[str, Any]] = {
            "pve1": {"status": "online", "maxmem": 64 * GIB, "mem": 16 * GIB},
            "pve2": {"status": "online", "maxmem": 64 * GIB, "mem": 32 * GIB},
        }
        template = {"template": 1, "hostname": "agent", "rootfs": "local-lvm:base-9000-disk-0,size=2G", "env": "LANG=C"}
        self.guests = {9000: Guest("pve1", dict(template)), 9001: Guest("pve2", dict(template))}
        self.shared_storage = False
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.tasks: dict[str, Task] = {}
        self.task_polls = 0
        self.address_after = 1
        self.hidden: set[int] = set()
        self.released = threading.Event()
        self._faults: list[tuple[str, str, int]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, key)
        self._server.tls = context
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="proxmox")

    def __enter__(self) -> ProxmoxServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, call: str, how: str, times: int = 1) -> None:
        self.released.clear()
        self._faults.append((call, how, times))

    def heal(self) -> None:
        """No call fails any more, who waits for an answer hears that there is none, and tasks come to their end."""
        with self._lock:
            self._faults.clear()
            self._finish_tasks()
        self.released.set()

    def _finish_tasks(self) -> None:
        for task in self.tasks.values():
            task.finish()

    def asked(self, call: str) -> list[dict[str, str]]:
        return [parameters for name, parameters in self.calls if name == call]

    # -- one request -------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, token: str, body: str) -> tuple[int, str, bytes] | None:
        """Status, reason, body; None where the connection is to be closed without an answer."""
        parts = urlsplit(target)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True) + parse_qsl(body, keep_blank_values=True))
        with self._lock:
            name, where = self._route(method, parts.path.removeprefix("/api2/json"))
            self.calls.append((name, parameters))
            how = self._fault(name)
            if name == "task" and how:
                self._finish_tasks()  # they go on, whether or not somebody is told
            try:
                if how in ("dropped", "gateway", "refused", "locked", "forbidden", "unauthorized"):
                    return _at_once(how)
                if token != f"PVEAPIToken={TOKEN}":
                    raise Declined(401, "authentication failure")  # noqa: TRY301 - answered with the others below
                self._check(name, parameters)
                data = getattr(self, f"_do_{name}")(where, parameters, how == "task")
                if how in ("lost", "garbage"):
                    self._finish_tasks()
            except Declined as declined:
                return _declined(declined)
        if how in ("lost", "unheard"):
            self.released.wait(20)
            return None
        return (200, "OK", b"<html>") if how == "garbage" else (200, "OK", json.dumps({"data": data}).encode())

    def _route(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        for name, verb, template, _, _ in SCHEMA:
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
            if verb == method and (found := re.fullmatch(pattern, path)):
                return name, {key: unquote(value) for key, value in found.groupdict().items()}
        raise AssertionError(f"the published API has no {method} {path}")

    def _fault(self, name: str) -> str:
        for at, (call, how, times) in enumerate(self._faults):
            if call == name:
                self._faults[at : at + 1] = [(call, how, times - 1)] if times > 1 else []
                return how
        return ""

    def _check(self, name: str, parameters: dict[str, str]) -> None:
        required, optional = next((row[3], row[4]) for row in SCHEMA if row[0] == name)
        known = required | optional
        errors = {each: _UNKNOWN_PARAMETER for each in parameters if each not in known}
        errors |= {each: "property is missing and it is not optional" for each in required if each not in parameters}
        for each, value in parameters.items():
            if each in known and not re.fullmatch(known[each], value):
                errors[each] = "value does not match the regex pattern"
        if errors:
            raise Declined(400, "Parameter verification failed.", errors)

    def _guest(self, where: dict[str, str]) -> tuple[int, Guest]:
        vmid, node = int(where["vmid"]), where["node"]
        if self.nodes[node]["status"] != "online":
            raise Declined(595, "No route to host")
        guest = self.guests.get(vmid)
        if vmid in self.hidden:
            raise Declined(403, f"Permission check failed (/vms/{vmid}, VM.Audit)")
        if guest is None or guest.node != node or guest.kind != "lxc":
            raise Declined(500, f"Configuration file 'nodes/{node}/lxc/{vmid}.conf' does not exist")
        return vmid, guest

    def _unlocked(self, guest: Guest) -> None:
        if lock := guest.config.get("lock"):
            raise Declined(500, f"CT is locked ({lock})")

    def _task(
        self,
        node: str,
        kind: str,
        vmid: int,
        work: Callable[[], None],
        *,
        undo: Callable[[], None] = lambda: None,
        failure: str | None = None,
    ) -> str:
        number = len(self.tasks) + 1
        upid = f"UPID:{node}:{number:08X}:{number:08X}:6745A1B2:{kind}:{vmid}:{TOKEN.partition('=')[0]}:"
        self.tasks[upid] = Task(upid, work, undo, self.task_polls, failure)
        return upid

    # -- what each call does -----------------------------------------------------------------------------------------

    def _do_resources(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        if parameters.get("type") == "node":
            return [{"id": f"node/{name}", "type": "node", "node": name, **node} for name, node in self.nodes.items()]
        return [
            {
                "id": f"{guest.kind}/{vmid}",
                "type": guest.kind,
                "vmid": vmid,
                "node": guest.node,
                "status": "running" if guest.running else "stopped",
                "template": guest.config.get("template", 0),
                "name": guest.config.get("hostname", ""),
                "maxmem": GIB,
            }
            for vmid, guest in self.guests.items()
            if vmid not in self.hidden
        ]

    def _do_nextid(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        if int(parameters["vmid"]) in self.guests:
            what = {"vmid": f"VM {parameters['vmid']} already exists"}
            raise Declined(400, "Parameter verification failed.", what)
        return parameters["vmid"]

    def _do_config(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        _, guest = self._guest(where)
        config = {**guest.config, "digest": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}
        if "description" in config:
            config["description"] += "\n"
        return config

    def _do_status(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        return {"vmid": vmid, "status": "running" if guest.running else "stopped", "ha": {"managed": 0}}

    def _do_interfaces(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        if not guest.running:
            raise Declined(500, f"CT {vmid} is not running")
        rows = [{"name": "lo", "hwaddr": "00:00:00:00:00:00", "inet": "127.0.0.1/8", "inet6": "::1/128"}]
        eth = {"name": "eth0", "hwaddr": "bc:24:11:00:00:01", "inet6": "fe80::be24:11ff:fe00:1/64"}
        if len(self.asked("interfaces")) > self.address_after:
            eth["inet"] = "10.9.0.5/16"
        return [*rows, eth]

    def _do_clone(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, source = self._guest(where)
        newid, target = int(parameters["newid"]), parameters.get("target", source.node)
        self._unlocked(source)
        if "storage" in parameters and parameters.get("full") != "1":
            raise Declined(500, "parameter 'storage' not allowed for linked clones")
        if newid in self.guests:
            raise Declined(500, f"unable to create CT {newid}: config file already exists")
        if target != source.node and not self.shared_storage:
            raise Declined(500, f"can't clone CT to node '{target}' (CT uses local storage)")
        config = {key: value for key, value in source.config.items() if key != "template"}
        config |= {key: parameters[key] for key in ("hostname", "description") if key in parameters}
        config |= {"lock": "create", "rootfs": f"local-lvm:vm-{newid}-disk-0,size=2G"}
        clone = self.guests[newid] = Guest(source.node, config)
        source.config["lock"] = "disk"

        def end() -> None:
            source.config.pop("lock", None)
            clone.config.pop("lock", None)
            clone.node = target

        def undo() -> None:
            source.config.pop("lock", None)
            self.guests.pop(newid, None)

        failure = "clone failed: lvcreate 'pve/vm-disk' error: not enough free space" if fails else None
        return self._task(source.node, "vzclone", vmid, end, undo=undo, failure=failure)

    def _do_configure(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        _, guest = self._guest(where)
        self._unlocked(guest)
        guest.config |= {key: int(value) if value.isdecimal() else value for key, value in parameters.items()}

    def _do_resize(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        self._unlocked(guest)
        volume, _, size = guest.config["rootfs"].partition(",size=")
        new, old = int(parameters["size"].rstrip("G")), int(size.rstrip("G"))
        if new < old:
            raise Declined(500, "unable to shrink disk size")
        if new == old:
            return None

        def end() -> None:
            guest.config["rootfs"] = f"{volume},size={new}G"

        return self._task(guest.node, "resize", vmid, end, failure="storage is full" if fails else None)

    def _do_start(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        self._unlocked(guest)
        if guest.running:
            raise Declined(500, f"CT {vmid} already running")
        return self._power(vmid, guest, "vzstart", True, "startup for container '105' failed" if fails else None)

    def _do_stop(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        if not guest.running:
            raise Declined(500, f"CT {vmid} not running")
        return self._power(vmid, guest, "vzstop", False, "unable to stop" if fails else None)

    def _do_shutdown(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        if not guest.running:
            raise Declined(500, f"CT {vmid} not running")
        failure = "container did not stop" if fails or guest.stubborn else None
        return self._power(vmid, guest, "vzshutdown", False, failure)

    def _power(self, vmid: int, guest: Guest, kind: str, on: bool, failure: str | None) -> str:
        def end() -> None:
            guest.running = on

        return self._task(guest.node, kind, vmid, end, failure=failure)

    def _do_destroy(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        vmid, guest = self._guest(where)
        self._unlocked(guest)
        if guest.config.get("protection"):
            raise Declined(500, f"can't remove CT {vmid} - protection mode enabled")
        if guest.running and parameters.get("force") != "1":
            raise Declined(500, f"unable to destroy CT {vmid} - container is running")

        def end() -> None:
            self.guests.pop(vmid, None)

        return self._task(guest.node, "vzdestroy", vmid, end, failure="can't remove volume" if fails else None)

    def _do_task(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        task = self.tasks[where["upid"]]
        if task.end is None and task.polls > 0:
            task.polls -= 1
            return {"upid": task.upid, "status": "running"}
        task.finish()
        return {"upid": task.upid, "status": "stopped", "exitstatus": task.end}

    def _do_log(self, where: dict[str, str], parameters: dict[str, str], fails: bool) -> Any:
        return [{"n": number, "t": line} for number, line in enumerate(self.tasks[where["upid"]].log, 1)]


def _at_once(how: str) -> tuple[int, str, bytes] | None:
    answers = {
        "gateway": Declined(595, "Connection refused"),
        "refused": Declined(500, "got no worker upid - start worker failed"),
        "locked": Declined(500, "CT is locked (backup)"),
        "forbidden": Declined(403, "Permission check failed (/vms/105, VM.Allocate)"),
        "unauthorized": Declined(401, "authentication failure"),
    }
    return None if how == "dropped" else _declined(answers[how])


def _declined(declined: Declined) -> tuple[int, str, bytes]:
    body: dict[str, Any] = {"data": None}
    if declined.errors is not None:
        body["errors"] = declined.errors
    return declined.status, declined.reason, json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext

    def __init__(self, address: tuple[str, int], cluster: ProxmoxServer) -> None:
        super().__init__(address, _Handler)
        self.cluster = cluster

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake on the request's thread: a client that does not trust us is nobody else's trouble."""
        try:
            secured = self.tls.wrap_socket(request, server_side=True)
        except OSError:
            return
        with secured:
            _Handler(secured, client_address, self)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one segment an answer: two would wait for the client's delayed acknowledgement
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        answer = self.server.cluster.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
        if answer is None:
            self.close_connection = True
            return
        status, reason, content = answer
        self.send_response(status, reason)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server's names

    def handle(self) -> None:
        try:
            super().handle()
        except (TimeoutError, OSError):
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's name
        """Says nothing."""
