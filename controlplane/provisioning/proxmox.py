"""Containers on a Proxmox VE cluster, through `proxmox_api`. Satisfies `ports.Provider`.

A container is a clone of a template. Its description carries the mark from the clone's first moment on; the agent's
secret comes in its environment, as its last configuration (docs/adr has why). A no of Proxmox is believed only after a
look: a call can fail after its first half, and somebody else's machine may have the vmid on any node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.errors import ProviderError, ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import InstanceKind, Machine, MachineAddress, MachineSpec
from controlplane.ports import Clock
from controlplane.provider_settings import ProxmoxSettings
from controlplane.provisioning.proxmox_api import ProxmoxApi, PveBusy, PveDeclined, PveTaskFailed
from controlplane.provisioning.proxmox_config import (
    is_complete,
    is_smaller,
    mark_line,
    operation_of,
    reachable_address,
    wanted,
)
from controlplane.provisioning.proxmox_nodes import Placement
from controlplane.provisioning.rest import UNAVAILABLE

NOT_MADE = "The instance could not be made."
NOT_STARTED = "The instance could not be started."
NOT_STOPPED = "The instance could not be stopped."
NOT_REMOVED = "The instance could not be removed."
NOT_SEEN = "The host of the instance refused to answer."
FULL = "There is no room for another instance at the moment."
_AT_ONCE = 8  # containers looked at side by side when all are listed
_REMEMBERED = 10_000  # vmids whose node is known
_UNLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """A container as the cluster has it. `config` is empty for a machine that is no container, or not ours to read."""

    node: str
    machine: Machine
    config: dict[str, Any]


class ProxmoxProvider:
    name = "proxmox"

    def __init__(self, api: ProxmoxApi, settings: ProxmoxSettings, clock: Clock) -> None:
        self._api = api
        self._settings = settings
        self._placement = Placement(clock.monotonic)
        self._node_of: dict[int, str] = {}
        self._cloning: dict[str, asyncio.Lock] = {}  # by template

    async def find(self, vmid: int) -> Machine | None:
        seen = await self._look(vmid)
        return None if seen is None else seen.machine

    async def create(self, spec: MachineSpec) -> None:
        address = self._planned(spec.vmid)
        seen = await self._look(spec.vmid)
        if seen is None:
            await self._clone(spec)
        elif seen.machine.operation_id != spec.operation_id:
            raise _taken(seen)
        seen = await self._unlocked(spec)
        if seen.machine.is_complete:
            return
        path = f"/nodes/{seen.node}/lxc/{spec.vmid}"
        try:
            if is_smaller(seen.config, spec.disk_gib):
                await self._api.run("PUT", f"{path}/resize", {"disk": "rootfs", "size": f"{spec.disk_gib}G"})
            await self._api.put(f"{path}/config", wanted(spec, self._settings, address=address, present=seen.config))
        except (PveDeclined, PveTaskFailed) as error:
            # A clone is there by now, so this is no refusal: the operation looks, and unmakes it.
            raise _unknown(error) from error

    async def start(self, vmid: int) -> None:
        seen = await self._look(vmid)
        if seen is None:
            raise ProviderRefused(NOT_STARTED, operator_message=f"no container {vmid} in the cluster")
        if seen.machine.is_running:
            return
        if not seen.machine.is_complete:
            raise ProviderRefused(NOT_STARTED, operator_message=f"container {vmid} was not made to its end")
        try:
            await self._api.run("POST", f"/nodes/{seen.node}/lxc/{vmid}/status/start")
        except (PveDeclined, PveTaskFailed) as error:
            seen = await self._look(vmid)
            if seen is not None and seen.machine.is_running:
                return
            raise _refused(NOT_STARTED, error) from error

    async def locate(self, vmid: int) -> MachineAddress | None:
        settings = self._settings
        seen = await self._look(vmid)
        if seen is None:
            return None
        if settings.address_plan is not None:
            address = settings.address_plan.address(vmid)
        elif not seen.machine.is_running:
            return None
        else:
            try:
                address = reachable_address(await self._api.get(f"/nodes/{seen.node}/lxc/{vmid}/interfaces"))
            except PveDeclined as error:
                raise _refused(NOT_SEEN, error) from error
        if address is None:
            return None
        return MachineAddress(address, settings.agent_port, settings.ide_port, game_port=settings.game_port or None)

    async def stop(self, vmid: int) -> None:
        seen = await self._look(vmid)
        if seen is None or not seen.machine.is_running:
            return
        path = f"/nodes/{seen.node}/lxc/{vmid}/status"
        try:
            await self._api.run("POST", f"{path}/shutdown", {"timeout": self._settings.shutdown_seconds})
        except (PveDeclined, PveTaskFailed):
            await self._stop_by_force(vmid, path)

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        seen = await self._look(vmid)
        if seen is None:
            return
        if seen.machine.operation_id != operation_id:
            raise ProviderRefused(
                NOT_REMOVED, operator_message=f"{seen.machine} on {seen.node} is not of operation {operation_id}"
            )
        try:
            await self._api.run(
                "DELETE",
                f"/nodes/{seen.node}/lxc/{vmid}",
                {"force": 1, "purge": 1, "destroy-unreferenced-disks": 1},
            )
        except PveDeclined as error:
            if await self._look(vmid) is None:
                return
            raise _refused(NOT_REMOVED, error) from error
        except PveTaskFailed as error:
            if await self._look(vmid) is None:
                return
            raise _unknown(error) from error  # some of its disks may be gone
        finally:
            self._node_of.pop(vmid, None)

    async def list_marked(self) -> list[Machine]:
        rows = [row for row in await self._resources("vm") if row.get("type") == "lxc" and not row.get("template")]
        marked: list[Machine] = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            seen = await asyncio.gather(*(self._look_at(str(row["node"]), int(row["vmid"])) for row in some))
            marked += [each.machine for each in seen if each is not None and each.machine.operation_id is not None]
        return marked

    async def close(self) -> None:
        await self._api.close()

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _look(self, vmid: int) -> _Seen | None:
        """None only where Proxmox itself says that the vmid is free: a list shows no more than the token may see."""
        known = self._node_of.get(vmid)
        if known is not None and (seen := await self._look_at(known, vmid)) is not None:
            return seen
        self._node_of.pop(vmid, None)
        for _ in range(2):  # a clone of ours that comes late, between the list and the question, is on the next list
            if (seen := await self._look_on_list(vmid)) is not None:
                return seen
            if await self._is_free(vmid):
                return None
        return _Seen("a node unknown", Machine(vmid, None, False), {})

    async def _look_on_list(self, vmid: int) -> _Seen | None:
        for row in await self._resources("vm"):
            if int(row["vmid"]) != vmid:
                continue
            if row.get("type") != "lxc":
                machine = Machine(vmid, None, row.get("status") == "running")
                return _Seen(str(row["node"]), machine, {})
            if (seen := await self._look_at(str(row["node"]), vmid)) is not None:
                self._remember(vmid, seen.node)
                return seen
        return None

    async def _look_at(self, node: str, vmid: int) -> _Seen | None:
        path = f"/nodes/{node}/lxc/{vmid}"
        try:
            config, status = await asyncio.gather(
                self._api.get(f"{path}/config"), self._api.get(f"{path}/status/current")
            )
        except PveDeclined as error:
            if error.says_missing:
                return None
            raise _refused(NOT_SEEN, error) from error
        if not (isinstance(config, dict) and isinstance(status, dict)):
            raise ProviderUnavailable(UNAVAILABLE, operator_message=f"{path}: an answer that is no object")
        operation_id = operation_of(config, self._settings.mark)
        machine = Machine(
            vmid,
            operation_id,
            status.get("status") == "running",
            is_complete=operation_id is None or is_complete(config),
        )
        return _Seen(node, machine, config)

    async def _is_free(self, vmid: int) -> bool:
        try:
            await self._api.get("/cluster/nextid", {"vmid": vmid})
        except PveDeclined as error:
            if error.status == 400 and "already exists" in error.reason:
                return False
            raise _refused(NOT_SEEN, error) from error
        return True

    async def _resources(self, kind: str) -> list[dict[str, Any]]:
        try:
            rows = await self._api.get("/cluster/resources", {"type": kind})
        except PveDeclined as error:
            raise _refused(NOT_SEEN, error) from error
        return [row for row in rows or [] if isinstance(row, dict)]

    def _remember(self, vmid: int, node: str) -> None:
        if len(self._node_of) >= _REMEMBERED:
            del self._node_of[next(iter(self._node_of))]
        self._node_of[vmid] = node

    # -- making ------------------------------------------------------------------------------------------------------

    async def _clone(self, spec: MachineSpec) -> None:
        settings = self._settings
        template, home, target = await self._place(spec.kind, spec.memory_mib)
        parameters: dict[str, str | int] = {
            "newid": spec.vmid,
            "hostname": spec.hostname,
            "description": mark_line(settings.mark, spec.operation_id),
            "full": 1 if settings.clone == "full" else 0,
        }
        if target != home:
            parameters["target"] = target
        if settings.storage and settings.clone == "full":
            parameters["storage"] = settings.storage
        if settings.pool:
            parameters["pool"] = settings.pool
        try:
            await self._run_clone(f"/nodes/{home}/lxc/{template}/clone", parameters)
        except (PveDeclined, PveTaskFailed) as error:
            seen = await self._look(spec.vmid)
            if seen is None:
                raise _refused(NOT_MADE, error) from error
            if seen.machine.operation_id != spec.operation_id:
                raise _taken(seen) from error
            raise _unknown(error) from error

    async def _run_clone(self, path: str, parameters: Mapping[str, str | int]) -> None:
        """Proxmox locks a template while it is cloned, and refuses the next clone: they take turns."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._api.task_seconds
        turn = self._cloning.setdefault(path, asyncio.Lock())
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError as error:
            raise PveBusy(UNAVAILABLE, operator_message=f"{path}: other clones took all the time") from error
        try:
            while True:
                try:
                    return await self._api.run("POST", path, parameters)
                except PveBusy:  # by somebody else's clone, or backup
                    if loop.time() >= deadline:
                        raise
                await asyncio.sleep(_UNLOCK_SECONDS)
        finally:
            turn.release()

    async def _place(self, kind: InstanceKind, memory_mib: int) -> tuple[int, str, str]:
        """A template, its node, and the node that the clone is for."""
        settings = self._settings
        templates = settings.templates(kind)
        home_of = {
            int(row["vmid"]): str(row["node"])
            for row in await self._resources("vm")
            if row.get("type") == "lxc" and row.get("template") and int(row["vmid"]) in templates
        }
        if not home_of:
            raise ProviderRefused(NOT_MADE, operator_message=f"none of {templates} is a template that the token sees")
        nodes = await self._resources("node")
        candidates = {str(row["node"]) for row in nodes} if settings.templates_shared else set(home_of.values())
        if settings.nodes:
            candidates &= settings.nodes
        target = self._placement.choose(nodes, candidates, memory_mib)
        if target is None:
            raise ProviderRefused(
                FULL, operator_message=f"no node of {sorted(candidates)} is online with {memory_mib} MiB free"
            )
        local = [template for template, home in sorted(home_of.items()) if home == target]
        template = local[0] if local else min(home_of)
        return template, home_of[template], target

    async def _unlocked(self, spec: MachineSpec) -> _Seen:
        """The clone, once no task works on it: one that went unanswered may still be copying."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._api.task_seconds
        while True:
            seen = await self._look(spec.vmid)
            if seen is None:
                raise ProviderUnavailable(
                    UNAVAILABLE, operator_message=f"container {spec.vmid} is gone after its clone"
                )
            if seen.machine.operation_id != spec.operation_id:
                raise _taken(seen)
            lock = seen.config.get("lock")
            if not lock:
                return seen
            if loop.time() >= deadline:
                raise ProviderUnavailable(
                    UNAVAILABLE,
                    operator_message=f"container {spec.vmid} on {seen.node} is locked ({lock}); where no task works on "
                    f"it any more, `pct unlock {spec.vmid}` frees it",
                )
            await asyncio.sleep(_UNLOCK_SECONDS)

    def _planned(self, vmid: int) -> str | None:
        plan = self._settings.address_plan
        if plan is None:
            return None
        address = plan.address(vmid)
        if address is None:
            raise ProviderRefused(NOT_MADE, operator_message=f"PROXMOX_SUBNET {plan.subnet} has no address for {vmid}")
        return address

    async def _stop_by_force(self, vmid: int, path: str) -> None:
        try:
            await self._api.run("POST", f"{path}/stop")
        except (PveDeclined, PveTaskFailed) as error:
            seen = await self._look(vmid)
            if seen is None or not seen.machine.is_running:
                return
            raise _refused(NOT_STOPPED, error) from error


def _refused(message: str, error: Exception) -> ProviderError:
    return ProviderRefused(message, operator_message=f"Proxmox: {error}")


def _unknown(error: Exception) -> ProviderError:
    return ProviderUnavailable(UNAVAILABLE, operator_message=f"Proxmox failed half-way: {error}")


def _taken(seen: _Seen) -> VmidTaken:
    return VmidTaken(NOT_MADE, operator_message=f"the vmid is in use on {seen.node}: {seen.machine}")
