"""Connections that outlive a request (consoles, uploads, events, the IDE) end with the credential that opened them.

At once when it is revoked in this process, and within a few seconds when another process did it: a job asks storage.
How a connection ends, with which close code or error, is its owner's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.auth.authenticator import Authenticator
from controlplane.models import Principal

OnEnd = Callable[[], None]


@dataclass(slots=True, eq=False)
class Watch:
    """One connection under watch. `on_end` is called once, when its credential may no longer be used."""

    principal: Principal
    on_end: OnEnd


class LiveConnections:
    """Bounded by whoever accepts the connections."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._watches: dict[str, set[Watch]] = {}
        authenticator.add_revocation_listener(self._end)

    def watch(self, principal: Principal, on_end: OnEnd) -> Watch:
        watch = Watch(principal, on_end)
        self._watches.setdefault(principal.credential_id, set()).add(watch)
        return watch

    def release(self, watch: Watch) -> None:
        """The connection ended by itself."""
        watches = self._watches.get(watch.principal.credential_id)
        if watches is None:
            return
        watches.discard(watch)
        if not watches:
            del self._watches[watch.principal.credential_id]

    async def check(self) -> None:
        """End those whose credential is gone. Raises StorageUnavailable, and then ends none."""
        principals = [next(iter(watches)).principal for watches in self._watches.values()]
        for credential_id in await self._authenticator.find_gone(principals):
            self._end(credential_id)

    def _end(self, credential_id: str) -> None:
        for watch in self._watches.pop(credential_id, ()):
            watch.on_end()
