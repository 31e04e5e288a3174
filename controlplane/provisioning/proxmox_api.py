"""Proxmox VE's REST API on the wire: token, form parameters, envelopes, tasks. What is asked is `proxmox`'s affair.

https://pve.proxmox.com/pve-docs/api-viewer/ and https://pve.proxmox.com/wiki/Proxmox_VE_API.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import orjson

from controlplane.errors import ProviderUnavailable
from controlplane.provisioning.rest import UNAVAILABLE, Reply, RestClient, read_object

Parameters: TypeAlias = Mapping[str, str | int]

LOG_LINES = 8  # of a task's log, in the operator's message
_LOG_LIMIT = 500
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 2.0
_UPID = re.compile(r"UPID:(?P<node>[A-Za-z0-9][A-Za-z0-9-]*):[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+:.*:")

# What pveproxy says of a node or a worker behind it that it could not speak to, and what passes by itself.
_GATEWAY = frozenset({408, 502, 503, 504, *range(595, 600)})
_PASSING = re.compile(r"is locked|got timeout|got lock timeout|no quorum|cluster not ready", re.IGNORECASE)
_MISSING = re.compile(r"does not exist|no such (?:CT|VM|container)", re.IGNORECASE)


class PveDeclined(Exception):
    """A complete answer that says no. `reason` is Proxmox's sentence, with the parameters at fault."""

    def __init__(self, call: str, status: int, reason: str) -> None:
        super().__init__(f"{call}: {status} {reason}")
        self.status = status
        self.reason = reason

    @property
    def says_missing(self) -> bool:
        return _MISSING.search(self.reason) is not None


class PveBusy(ProviderUnavailable):
    """A no that passes by itself: a lock, a cluster without quorum. Nothing was done."""


class PveTaskFailed(Exception):
    """A task that ended badly: its end in Proxmox's words, and the last lines of its log."""

    def __init__(self, upid: str, end: str, log: list[str]) -> None:
        lines = " | ".join(log) or "nothing in its log"
        super().__init__(f"task {upid} ended with {end!r}; {lines}")


class ProxmoxApi:
    """`token` is `user@realm!name=secret`. `call_seconds` bounds a call, `task_seconds` a task.

    Every method raises PveDeclined for a definite no, PveBusy for one that passes, and ProviderUnavailable where the
    outcome is not known.
    """

    def __init__(self, client: RestClient, *, token: str, call_seconds: float, task_seconds: float) -> None:
        self._client = client
        self._headers = {"Authorization": f"PVEAPIToken={token}", "Accept": "application/json"}
        self._call_seconds = call_seconds
        self._task_seconds = task_seconds

    @property
    def task_seconds(self) -> float:
        return self._task_seconds

    async def get(self, path: str, parameters: Parameters | None = None) -> Any:
        """The `data` of the answer."""
        return await self._call("GET", path, parameters)

    async def put(self, path: str, parameters: Parameters) -> Any:
        return await self._call("PUT", path, parameters)

    async def run(self, method: str, path: str, parameters: Parameters | None = None) -> None:
        """Do it, and wait for the task that it begins, if it begins one. Raises PveTaskFailed beside the others."""
        begun = await self._call(method, path, parameters)
        if begun is None:
            return
        found = _UPID.fullmatch(begun) if isinstance(begun, str) else None
        if found is None:
            raise ProviderUnavailable(
                UNAVAILABLE, operator_message=f"{method} {path}: {begun!r:.200} where a task's UPID belongs"
            )
        await self._finish(found["node"], begun)

    async def close(self) -> None:
        await self._client.close()

    async def _finish(self, node: str, upid: str) -> None:
        """Until the task ends well. A question about it that gets no answer is asked again until the deadline."""
        path = f"/nodes/{node}/tasks/{quote(upid, safe='')}"
        loop = asyncio.get_running_loop()
        deadline, wait = loop.time() + self._task_seconds, _FIRST_WAIT_SECONDS
        while True:
            trouble = "it still runs"
            try:
                state = await self.get(f"{path}/status")
                if isinstance(state, dict) and state.get("status") == "stopped":
                    break
            except ProviderUnavailable as error:
                trouble = error.operator_message
            except PveDeclined as error:
                raise ProviderUnavailable(UNAVAILABLE, operator_message=f"task {upid}: {error}") from error
            if loop.time() >= deadline:
                log = await self._log(path)
                raise ProviderUnavailable(
                    UNAVAILABLE,
                    operator_message=f"task {upid} did not end within {self._task_seconds:g} s ({trouble}); {log}",
                )
            await asyncio.sleep(min(wait, max(0.0, deadline - loop.time())))
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        end = str(state.get("exitstatus", "no exit status"))
        if end != "OK" and not end.startswith("WARNINGS"):
            raise PveTaskFailed(upid, end, await self._log(path))

    async def _log(self, path: str) -> list[str]:
        """The last lines; none where it cannot be read."""
        try:
            rows = await self.get(f"{path}/log", {"limit": _LOG_LIMIT})
        except (ProviderUnavailable, PveDeclined):
            return []
        return [str(row.get("t", "")) for row in rows or [] if isinstance(row, dict)][-LOG_LINES:]

    async def _call(self, method: str, path: str, parameters: Parameters | None = None) -> Any:
        target, body, headers = f"/api2/json{path}", None, dict(self._headers)
        if parameters and method in ("GET", "DELETE"):
            target = f"{target}?{urlencode(parameters)}"
        elif method in ("POST", "PUT"):
            body = urlencode(parameters or {}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        reply = await self._client.request(
            method, target, headers=headers, body=body, timeout_seconds=self._call_seconds
        )
        call = f"{method} {path}"
        if reply.status != 200:
            reason = _reason(reply)
            if reply.status == 500 and _PASSING.search(reason):
                raise PveBusy(UNAVAILABLE, operator_message=f"{call}: {reply.status} {reason}")
            if reply.status in _GATEWAY:
                raise ProviderUnavailable(UNAVAILABLE, operator_message=f"{call}: {reply.status} {reason}")
            raise PveDeclined(call, reply.status, reason)
        return read_object(reply, call).get("data")


def _reason(reply: Reply) -> str:
    """Proxmox says what is wrong in the status line, newer versions also in `message`, parameters in `errors`."""
    words = [reply.reason.strip()]
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        message = str(document.get("message") or "").strip()
        if message and message not in words[0]:
            words.append(message)
        errors = document.get("errors")
        if isinstance(errors, dict):
            words += [f"{name}: {str(what).strip()}" for name, what in sorted(errors.items())]
    return "; ".join(word for word in words if word)[:1000]
