"""The REST API that LXD and Incus share: envelopes, background operations, files. What is asked is `lxd`'s affair.

https://documentation.ubuntu.com/lxd/en/latest/rest-api/ and https://linuxcontainers.org/incus/docs/main/rest-api/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from controlplane.errors import ProviderUnavailable
from controlplane.provisioning.rest import UNAVAILABLE, RestClient, read_object

WAIT_SECONDS = 20  # one long poll; an operation that takes longer is asked about again
_MARGIN_SECONDS = 10.0
_SUCCESS = 200
_NOT_OURS_TO_JUDGE = frozenset({502, 503, 504})  # starting, stopping, or a member of the cluster that is away


class LxdDeclined(Exception):
    """A complete answer that says no, to a request or at the end of an operation. `status` is LXD's error code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class LxdApi:
    """`project` is that of every call. `call_seconds` bounds a call, not an operation that it begins.

    Every method raises LxdDeclined for a definite no, and ProviderUnavailable where the outcome is not known.
    """

    def __init__(self, client: RestClient, *, project: str, call_seconds: float) -> None:
        self._client = client
        self._project = project
        self._call_seconds = call_seconds

    async def get(self, path: str, **query: str) -> Any:
        """The `metadata` of the answer."""
        return (await self._call("GET", path, query=query)).get("metadata")

    async def change(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float) -> None:
        """Do it, and wait for the operation that it begins, for at most `seconds`."""
        answer = await self._call(method, path, body=None if body is None else orjson.dumps(body))
        if answer.get("type") == "async":
            await self.wait(str(answer.get("operation", "")), seconds=seconds)

    async def wait(self, operation: str, *, seconds: float) -> None:
        """Until it ends well. Raises LxdDeclined with the operation's error, ProviderUnavailable when it takes longer
        than `seconds`, was cancelled, or is not known any more (the daemon was started again)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        path = operation.removeprefix("/1.0").partition("?")[0]
        while True:
            limit = max(0, min(WAIT_SECONDS, int(deadline - loop.time())))
            try:
                answer = await self._call("GET", f"{path}/wait", query={"timeout": str(limit)}, seconds=limit)
            except LxdDeclined as error:
                raise ProviderUnavailable(
                    UNAVAILABLE, operator_message=f"LXD lost operation {path}: {error.message}"
                ) from error
            state = answer.get("metadata")
            if not isinstance(state, dict):
                raise ProviderUnavailable(UNAVAILABLE, operator_message=f"LXD's operation {path} cannot be read")
            code = state.get("status_code")
            if code == _SUCCESS:
                return
            if code == 400:
                raise LxdDeclined(400, str(state.get("err") or "the operation failed and says nothing"))
            if code == 401:
                raise ProviderUnavailable(UNAVAILABLE, operator_message=f"LXD's operation {path} was cancelled")
            if loop.time() >= deadline:
                raise ProviderUnavailable(
                    UNAVAILABLE, operator_message=f"LXD's operation {path} still runs after {seconds:g} s"
                )

    async def push(self, instance: str, path: str, content: bytes, *, mode: int) -> None:
        """Write a file in an instance, running or not, as root's."""
        headers = {
            "Content-Type": "application/octet-stream",
            "X-LXD-type": "file",
            "X-LXD-mode": f"{mode:04o}",
            "X-LXD-uid": "0",
            "X-LXD-gid": "0",
            "X-LXD-write": "overwrite",
        }
        await self._call("POST", f"/instances/{instance}/files", query={"path": path}, body=content, headers=headers)

    async def make_folder(self, instance: str, path: str) -> None:
        """No error when it exists."""
        headers = {"X-LXD-type": "directory", "X-LXD-mode": "0755", "X-LXD-uid": "0", "X-LXD-gid": "0"}
        await self._call("POST", f"/instances/{instance}/files", query={"path": path}, body=b"", headers=headers)

    async def operations_on(self, instance: str) -> list[str]:
        """Those that run at present, as paths."""
        found = []
        by_state = await self.get("/operations", recursion="1") or {}
        for state in by_state.get("running", []):
            resources = state.get("resources") or {}
            names = [url.rsplit("/", 1)[-1].partition("?")[0] for urls in resources.values() for url in urls or ()]
            if instance in names:
                found.append(f"/operations/{state['id']}")
        return found

    async def close(self) -> None:
        await self._client.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> dict[str, Any]:
        target = f"/1.0{quote(path)}?{urlencode({'project': self._project, **(query or {})})}"
        reply = await self._client.request(
            method,
            target,
            headers=headers or {"Content-Type": "application/json"},
            body=body,
            timeout_seconds=max(self._call_seconds, seconds + _MARGIN_SECONDS if seconds else 0.0),
        )
        answer = read_object(reply, f"LXD, {method} {path}")
        if answer.get("type") != "error":
            return answer
        status, message = int(answer.get("error_code") or reply.status), str(answer.get("error"))
        if status in _NOT_OURS_TO_JUDGE:
            raise ProviderUnavailable(UNAVAILABLE, operator_message=f"LXD, {method} {path}: {status} {message}")
        raise LxdDeclined(status, message)
