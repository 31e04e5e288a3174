"""Containers on LXD or Incus, through `lxd_api`. Satisfies `ports.Provider`.

A container is named after its vmid and carries three `user.*` keys: which installation made it, for which operation,
and, written last, that it is complete. One that is not complete was interrupted: nobody knows what is in it, so
making it again begins with its removal. Which member of a cluster runs it is the cluster's choice.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import orjson

from controlplane.errors import ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import Machine, MachineAddress, MachineSpec
from controlplane.provider_settings import LxdSettings
from controlplane.provisioning.lxd_api import LxdApi, LxdDeclined
from controlplane.provisioning.rest import UNAVAILABLE
from controlplane.provisioning.seed import SeedFile, read_seed

PREFIX = "cp-"
MARK = "user.controlplane.mark"
OPERATION = "user.controlplane.operation"
COMPLETE = "user.controlplane.complete"
_RUNNING = "Running"
_MISSING = 404
_AT_ONCE = 8  # containers looked at side by side when all are listed
_PROXIED = 3  # ports of the host that a container has with proxy devices: for the agent, the IDE, and players


@dataclass(frozen=True, slots=True)
class _Seen:
    """What LXD says of one container. `ours` is whether this installation's mark is on it."""

    machine: Machine
    ours: bool

    def is_of(self, operation_id: str) -> bool:
        return self.ours and self.machine.operation_id == operation_id


class LxdProvider:
    name = "lxd"

    def __init__(self, api: LxdApi, settings: LxdSettings, files: Executor) -> None:
        """`files` reads the seed folders, and ends with the provider."""
        self._api = api
        self._settings = settings
        self._files = files

    async def find(self, vmid: int) -> Machine | None:
        seen = await self._look(vmid)
        return None if seen is None else seen.machine

    async def create(self, spec: MachineSpec) -> None:
        name = _name(spec.vmid)
        body = self._description(spec)  # refuses before anything is done
        seed = await self._seed(spec)
        await self._settle(name)
        seen = await self._look(spec.vmid)
        if seen is not None:
            if not seen.is_of(spec.operation_id):
                raise VmidTaken("The instance could not be made.", operator_message=f"{name} exists: {seen.machine}")
            if seen.machine.is_complete:
                return
            await self.destroy(spec.vmid, operation_id=spec.operation_id)
        try:
            await self._change("POST", "/instances", body)
        except LxdDeclined as error:
            raise await self._not_made(spec, error) from error
        try:
            await self._put_in(name, seed)
            await self._change("PATCH", f"/instances/{name}", {"config": {COMPLETE: "true"}})
        except LxdDeclined as error:
            # Something is there by now, so this is no refusal: the operation looks, and unmakes it.
            raise _unknown(f"filling {name}", error) from error

    async def start(self, vmid: int) -> None:
        seen = await self._look(vmid)
        if seen is None:
            raise ProviderRefused("The instance could not be started.", operator_message=f"{_name(vmid)} is not there")
        if not seen.machine.is_complete:
            raise ProviderRefused(
                "The instance could not be started.", operator_message=f"{_name(vmid)} was not made to its end"
            )
        if seen.machine.is_running:
            return
        try:
            await self._set_state(vmid, {"action": "start", "timeout": -1})
        except LxdDeclined as error:
            seen = await self._look(vmid)
            if seen is not None and seen.machine.is_running:
                return
            raise ProviderRefused(
                "The instance could not be started.", operator_message=f"LXD does not start {_name(vmid)}: {error}"
            ) from error

    async def locate(self, vmid: int) -> MachineAddress | None:
        settings = self._settings
        if settings.address == "proxy":
            if await self._look(vmid) is None:
                return None
            agent_port, ide_port, game_port = self._proxy_ports(vmid)
            return MachineAddress(
                settings.proxy_address, agent_port, ide_port, game_port=game_port if settings.game_port else None
            )
        try:
            state = await self._api.get(f"/instances/{_name(vmid)}/state")
        except LxdDeclined as error:
            if error.status == _MISSING:
                return None
            raise _refused("The instance could not be reached.", f"the address of {_name(vmid)}", error) from error
        address = _address(state, settings.bridge_interface)
        if address is None:
            return None
        return MachineAddress(address, settings.agent_port, settings.ide_port, game_port=settings.game_port or None)

    async def stop(self, vmid: int) -> None:
        seen = await self._look(vmid)
        if seen is None or not seen.machine.is_running:
            return
        try:
            await self._set_state(vmid, {"action": "stop", "timeout": self._settings.shutdown_seconds, "force": False})
        except LxdDeclined:
            await self._stop_by_force(vmid)

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        name = _name(vmid)
        await self._settle(name)
        seen = await self._look(vmid)
        if seen is None:
            return
        if not seen.is_of(operation_id):
            raise ProviderRefused(
                "The instance could not be removed.",
                operator_message=f"{name} is not of operation {operation_id}: {seen.machine}, ours: {seen.ours}",
            )
        if seen.machine.is_running:
            await self._stop_by_force(vmid)
        try:
            await self._change("DELETE", f"/instances/{name}")
        except LxdDeclined as error:
            if error.status == _MISSING or await self._look(vmid) is None:
                return
            # A removal can fail after its first half (the volume is gone, the record is not): do not call it a no.
            raise _unknown(f"removing {name}", error) from error

    async def list_marked(self) -> list[Machine]:
        try:
            urls: list[str] = await self._api.get("/instances") or []
        except LxdDeclined as error:
            raise _refused("The host of the instance refused to answer.", "listing the instances", error) from error
        vmids = [vmid for url in urls if (vmid := _vmid(url.rsplit("/", 1)[-1].partition("?")[0])) is not None]
        marked: list[Machine] = []
        for start in range(0, len(vmids), _AT_ONCE):
            seen = await asyncio.gather(*(self._look(vmid) for vmid in vmids[start : start + _AT_ONCE]))
            marked += [each.machine for each in seen if each is not None and each.ours]
        return marked

    async def close(self) -> None:
        await self._api.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    # -- pieces ------------------------------------------------------------------------------------------------------

    async def _look(self, vmid: int) -> _Seen | None:
        name = _name(vmid)
        try:
            instance = await self._api.get(f"/instances/{name}")
        except LxdDeclined as error:
            if error.status == _MISSING:
                return None
            raise _refused("The instance could not be looked at.", f"looking at {name}", error) from error
        config = instance.get("config") or {}
        ours = config.get(MARK) == self._settings.mark
        machine = Machine(
            vmid,
            config.get(OPERATION) if ours else None,
            instance.get("status") == _RUNNING,
            is_complete=config.get(COMPLETE) == "true" or not ours,
        )
        return _Seen(machine, ours)

    async def _not_made(self, spec: MachineSpec, error: LxdDeclined) -> Exception:
        """What a refused creation means: LXD accepts a name in use and says so only at the operation's end."""
        name = _name(spec.vmid)
        seen = await self._look(spec.vmid)
        if seen is None:
            return _refused("The instance could not be made.", f"making {name}", error)
        if seen.is_of(spec.operation_id):
            return _unknown(f"making {name}", error)
        return VmidTaken("The instance could not be made.", operator_message=f"{name} exists: {seen.machine}; {error}")

    async def _settle(self, name: str) -> None:
        """Wait for what LXD still does to it, begun by a process that is gone or by a call that went unanswered."""
        try:
            for operation in await self._api.operations_on(name):
                await self._api.wait(operation, seconds=self._settings.operation_seconds)
        except LxdDeclined:
            return  # it ended, badly: what is left shows in a moment

    async def _stop_by_force(self, vmid: int) -> None:
        try:
            await self._set_state(vmid, {"action": "stop", "timeout": -1, "force": True})
        except LxdDeclined as error:
            seen = await self._look(vmid)
            if seen is None or not seen.machine.is_running:
                return
            raise _refused("The instance could not be stopped.", f"stopping {_name(vmid)} by force", error) from error

    async def _set_state(self, vmid: int, state: dict[str, Any]) -> None:
        await self._change("PUT", f"/instances/{_name(vmid)}/state", state)

    async def _change(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        await self._api.change(method, path, body, seconds=self._settings.operation_seconds)

    async def _seed(self, spec: MachineSpec) -> Sequence[SeedFile]:
        folder = self._settings.seed(spec.kind)
        files: list[SeedFile] = []
        if folder is not None:
            files = await asyncio.get_running_loop().run_in_executor(self._files, partial(read_seed, folder))
        if self._settings.secret == "file":  # noqa: S105 - the name of a way, not a secret
            files.append(SeedFile(self._settings.token_path, 0o600, spec.agent_token.encode() + b"\n"))
        return files

    async def _put_in(self, name: str, files: Sequence[SeedFile]) -> None:
        made: set[str] = set()
        for file in files:
            for parent in reversed(PurePosixPath(file.path).parents[:-1]):
                if str(parent) not in made:
                    await self._api.make_folder(name, str(parent))
                    made.add(str(parent))
            await self._api.push(name, file.path, file.content, mode=file.mode)

    def _description(self, spec: MachineSpec) -> dict[str, Any]:
        settings = self._settings
        config = {
            "limits.cpu": str(spec.cores),
            "limits.memory": f"{spec.memory_mib}MiB",
            MARK: settings.mark,
            OPERATION: spec.operation_id,
        }
        if settings.secret == "cloud-init":  # noqa: S105 - the name of a way, not a secret
            config["cloud-init.user-data"] = _cloud_config(settings.token_path, spec.agent_token)
        devices: dict[str, dict[str, str]] = {
            "root": {"type": "disk", "path": "/", "pool": settings.storage_pool, "size": f"{spec.disk_gib}GiB"}
        }
        if settings.address == "proxy":
            devices |= self._proxies(spec.vmid)
        return {
            "name": _name(spec.vmid),
            "type": "container",
            "description": f"{spec.kind.value} {spec.hostname}",
            "source": {"type": "image", "alias": settings.image(spec.kind)},
            "profiles": list(settings.profiles),
            "config": config,
            "devices": devices,
        }

    def _proxies(self, vmid: int) -> dict[str, dict[str, str]]:
        settings = self._settings
        agent_port, ide_port, game_port = self._proxy_ports(vmid)
        forwarded = {
            "agent": ("tcp", agent_port, settings.agent_port),
            "ide": ("tcp", ide_port, settings.ide_port),
        }
        if settings.game_port:
            forwarded["game"] = ("tcp", game_port, settings.game_port)
            forwarded["game-udp"] = ("udp", game_port, settings.game_port)
        return {
            device: {
                "type": "proxy",
                "listen": f"{protocol}:{_host(settings.proxy_address)}:{outside}",
                "connect": f"{protocol}:127.0.0.1:{inside}",
            }
            for device, (protocol, outside, inside) in forwarded.items()
        }

    def _proxy_ports(self, vmid: int) -> tuple[int, int, int]:
        settings = self._settings
        first = settings.proxy_first_port + _PROXIED * (vmid - settings.proxy_first_vmid)
        if vmid < settings.proxy_first_vmid or first + _PROXIED > 65536:
            raise ProviderRefused(
                "The instance could not be made.",
                operator_message=f"LXD_PROXY_FIRST_PORT and LXD_PROXY_FIRST_VMID give vmid {vmid} no ports",
            )
        return first, first + 1, first + 2


def _name(vmid: int) -> str:
    return f"{PREFIX}{vmid}"


def _vmid(name: str) -> int | None:
    """None for a name that is not one of ours."""
    number = name.removeprefix(PREFIX)
    return int(number) if number.isdecimal() and _name(int(number)) == name else None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _cloud_config(path: str, token: str) -> str:
    """JSON is YAML: nothing in it needs another escaping."""
    file = {"path": path, "permissions": "0600", "owner": "root:root", "content": token + "\n"}
    return "#cloud-config\n" + orjson.dumps({"write_files": [file]}).decode()


def _address(state: Any, interface: str) -> str | None:
    """The first address that others can reach: IPv4 before IPv6, never link-local."""
    network = (state or {}).get("network") or {}
    addresses = [
        ipaddress.ip_address(each["address"])
        for each in (network.get(interface) or {}).get("addresses") or []
        if each.get("scope") == "global"
    ]
    usable = sorted((each for each in addresses if not each.is_link_local), key=lambda each: each.version)
    return str(usable[0]) if usable else None


def _refused(message: str, doing: str, error: LxdDeclined) -> ProviderRefused:
    return ProviderRefused(message, operator_message=f"LXD refused {doing}: {error.status} {error.message}")


def _unknown(doing: str, error: LxdDeclined) -> ProviderUnavailable:
    return ProviderUnavailable(
        UNAVAILABLE, operator_message=f"LXD failed half-way, {doing}: {error.status} {error.message}"
    )
