"""The audit trail: who changed what. Every entry is logged at once; it is stored too, now, with the next flush, or when
the database is back.

Entries that wait for the database are bounded in number; what falls out at the bound is still in the log, and counted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter

from controlplane.errors import ControlPlaneError
from controlplane.models import AuditEntry, Principal
from controlplane.ports import AuditRepository, Clock

logger = logging.getLogger(__name__)

WAITING_ENTRIES = 10_000


class AuditTrail:
    def __init__(self, repository: AuditRepository, clock: Clock, dropped: Counter) -> None:
        self._repository = repository
        self._clock = clock
        self._dropped = dropped
        self._waiting: deque[AuditEntry] = deque()
        self._is_database_away = False

    async def record(
        self,
        action: str,
        subject: str,
        *,
        actor: Principal,
        request_id: str,
        address: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """`action` is a stable name such as `instance.start`, `subject` the id of what was acted on."""
        self.note(action, subject, actor=actor, request_id=request_id, address=address, detail=detail)
        if not self._is_database_away:  # else the job that flushes writes it: no request waits for a timeout twice
            await self.flush()

    def note(
        self,
        action: str,
        subject: str,
        *,
        actor: Principal,
        request_id: str,
        address: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """As `record`, stored by the next flush: for what must not wait for the database, such as a console's lines."""
        entry = AuditEntry(self._clock.now(), actor.user_id, action, subject, request_id, address, detail or {})
        logger.info(
            "audit",
            extra={
                "action": action,
                "subject": subject,
                "actor": actor.user_id,
                "address": address,
                "detail": detail or {},
            },
        )
        if len(self._waiting) >= WAITING_ENTRIES:
            self._waiting.popleft()
            self._dropped.inc()
        self._waiting.append(entry)

    async def flush(self) -> None:
        """Store what waits, oldest first; what cannot be stored now stays."""
        while self._waiting:
            entry = self._waiting.popleft()
            try:
                await self._repository.add(entry)
            except ControlPlaneError as error:
                self._waiting.appendleft(entry)
                self._is_database_away = True
                logger.warning(
                    "audit entries wait for the database", extra={"waiting": len(self._waiting), "why": error.message}
                )
                return
        self._is_database_away = False
