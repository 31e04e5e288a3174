"""What an owner's entitlement lets be done with an instance that is there. Administrators are exempt: none is asked.

How many instances a customer may have is provisioning's question; whether payment is overdue, the suspension's.
"""

from __future__ import annotations

from controlplane.errors import Forbidden
from controlplane.models import Instance, Principal
from controlplane.ports import Entitlements


class OwnerRights:
    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements

    async def covers_ide(self, principal: Principal, instance: Instance) -> bool:
        """Raises StorageUnavailable."""
        if principal.is_admin:
            return True
        entitlement = await self._entitlements.of(instance.owner_id)
        return entitlement is not None and entitlement.ide

    async def require_ide(self, principal: Principal, instance: Instance) -> None:
        """Raises Forbidden (`not_entitled`); StorageUnavailable."""
        if not await self.covers_ide(principal, instance):
            raise Forbidden(
                "Your subscription does not cover the browser IDE.", code="not_entitled", details={"feature": "ide"}
            )

    async def backup_limit(self, principal: Principal, instance: Instance) -> int | None:
        """How many backups the instance may have; None for any number."""
        if principal.is_admin:
            return None
        entitlement = await self._entitlements.of(instance.owner_id)
        return 0 if entitlement is None else entitlement.backups
