"""What the tests of the Proxmox provider share: the container that is asked for, and what it looks like once made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from controlplane.models import InstanceKind, MachineSpec
from controlplane.provisioning.proxmox import ProxmoxProvider
from tests.proxmox_server import Guest

Make: TypeAlias = Callable[..., ProxmoxProvider]

VMID = 105
SECRET = "a-secret-of-one-instance-0123456789"
SPEC = MachineSpec(
    vmid=VMID,
    operation_id="op_first",
    kind=InstanceKind.GAME,
    hostname="testholm",
    cores=2,
    memory_mib=1024,
    disk_gib=8,
    agent_token=SECRET,
)


def ours(*, running: bool) -> Guest:
    """As `create` leaves it; it does not shut down by itself."""
    config = {"description": "controlplane mark=controlplane operation=op_first", "env": f"AGENT_TOKEN={SECRET}"}
    return Guest("pve1", config, running=running, stubborn=True)
