"""Game servers: `/api/game/servers/…`."""

from __future__ import annotations

from controlplane.models import InstanceKind
from handlers import instances


class GameServersHandler(instances.InstanceListHandler):
    kind = InstanceKind.GAME


class GameServerHandler(instances.InstanceReadHandler):
    kind = InstanceKind.GAME


class GameServerStateHandler(instances.InstanceStateHandler):
    kind = InstanceKind.GAME


class GameServerPowerHandler(instances.PowerHandler):
    kind = InstanceKind.GAME


class GameServerCommandHandler(instances.ConsoleCommandHandler):
    kind = InstanceKind.GAME
