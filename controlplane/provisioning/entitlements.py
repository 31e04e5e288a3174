"""What customers may have, and whether that covers one more instance. Administrators are exempt: they are not asked."""

from __future__ import annotations

from controlplane.errors import Conflict, Forbidden
from controlplane.models import Entitlement, InstanceKind
from controlplane.provisioning.plans import PLANS


class FixedEntitlements:
    """Satisfies `ports.Entitlements`: the same for everybody, where nothing is billed."""

    def __init__(self, entitlement: Entitlement) -> None:
        self._entitlement = entitlement

    async def of(self, user_id: str) -> Entitlement | None:
        return self._entitlement


def check_covers(entitlement: Entitlement | None, kind: InstanceKind, plan: str, *, used: int) -> None:
    """`used` is how many of this kind there are or are being made. Raises Forbidden (`not_entitled`,
    `plan_not_entitled`) or Conflict (`quota_reached`)."""
    if entitlement is None or not entitlement.instances.get(kind, 0):
        raise Forbidden("Your subscription does not cover this.", code="not_entitled", details={"kind": kind.value})
    limit = entitlement.instances[kind]
    if used >= limit:
        raise Conflict(
            f"You may have {limit} of these; delete one first, or change your subscription.",
            code="quota_reached",
            details={"kind": kind.value, "limit": limit, "used": used},
        )
    if PLANS[plan].memory_mib > entitlement.memory_mib:
        raise Forbidden(
            "Your subscription does not cover an instance of this size.",
            code="plan_not_entitled",
            details={"plan": plan, "memoryMib": PLANS[plan].memory_mib, "memoryLimitMib": entitlement.memory_mib},
        )
