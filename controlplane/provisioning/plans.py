"""How large an instance may be asked for, by name. What a plan costs, and who may have it, is not decided here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.models import Operation


@dataclass(frozen=True, slots=True)
class Plan:
    """What a machine is given."""

    cores: int
    memory_mib: int
    disk_gib: int


PLANS: Mapping[str, Plan] = {
    "small": Plan(cores=1, memory_mib=1024, disk_gib=8),
    "standard": Plan(cores=2, memory_mib=2048, disk_gib=16),
    "large": Plan(cores=4, memory_mib=4096, disk_gib=32),
}
DEFAULT_PLAN = "standard"


def size_of(provisioning: Operation) -> Plan:
    """What its machine is given."""
    return PLANS[provisioning.plan or DEFAULT_PLAN]
