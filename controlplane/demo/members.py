"""The demo's instances, as they are provisioned at its first start, and what `demo.json` says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from controlplane.demo.secrets_file import DemoSecrets
from controlplane.models import Instance, InstanceKind


@dataclass(frozen=True, slots=True)
class Member:
    """One instance of the demo. `key` finds the operation that made it at the next start."""

    title: str
    kind: InstanceKind

    @property
    def key(self) -> str:
        return f"demo:{self.title}"


@dataclass(frozen=True, slots=True)
class RunningMember:
    """An instance with its agent's process."""

    instance: Instance
    token: str = field(repr=False)
    pid: int

    @property
    def url(self) -> str:
        return f"http://{self.instance.address}:{self.instance.port}"


MEMBERS: tuple[Member, ...] = (
    Member("Oakvale", InstanceKind.GAME),
    Member("Emberfall", InstanceKind.GAME),
    Member("Workshop", InstanceKind.DEV),
)


def description(url: str, demo: DemoSecrets, running: Sequence[RunningMember]) -> dict[str, Any]:
    """What `demo.json` holds."""

    def ids(kind: InstanceKind) -> list[str]:
        return [each.instance.id for each in running if each.instance.kind is kind]

    return {
        "url": url,
        "admin": asdict(demo.admin),
        "customer": asdict(demo.customer),
        "gameServers": ids(InstanceKind.GAME),
        "devContainers": ids(InstanceKind.DEV),
        "agents": [
            {
                "id": each.instance.id,
                "vmid": each.instance.vmid,
                "url": each.url,
                "token": each.token,
                "pid": each.pid,
            }
            for each in running
        ],
    }
