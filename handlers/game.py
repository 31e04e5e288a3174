"""Game servers: `/api/game/servers/…`."""

from __future__ import annotations

from controlplane.models import InstanceKind
from handlers import instances, operations


class GameServersHandler(operations.ProvisioningListHandler):
    kind = InstanceKind.GAME


class GameServerHandler(operations.DeletableHandler):
    kind = InstanceKind.GAME


class GameServerStateHandler(instances.InstanceStateHandler):
    kind = InstanceKind.GAME


class GameServerPowerHandler(instances.PowerHandler):
    kind = InstanceKind.GAME


class GameServerCommandHandler(instances.ConsoleCommandHandler):
    kind = InstanceKind.GAME
