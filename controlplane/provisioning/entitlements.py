"""What customers may have, and whether that covers one more instance. Administrators are exempt: they are not asked."""

from __future__ import annotations

from controlplane.clock import rfc3339
from controlplane.errors import Conflict, Forbidden
from controlplane.models import ComingEntitlement, Entitlement, InstanceKind
from controlplane.provisioning.plans import PLANS


class FixedEntitlements:
    """Satisfies `ports.Entitlements`: the same for everybody, where nothing is billed."""

    def __init__(self, entitlement: Entitlement) -> None:
        self._entitlement = entitlement

    async def of(self, user_id: str) -> Entitlement | None:
        return self._entitlement

    async def coming(self, user_id: str) -> ComingEntitlement | None:
        return None


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


def check_will_cover(coming: ComingEntitlement, kind: InstanceKind, plan: str, *, used: int) -> None:
    """As `check_covers`, of what the customer will have. Raises Conflict (`exceeds_coming_plan`)."""
    try:
        check_covers(coming.entitlement, kind, plan, used=used)
    except (Conflict, Forbidden) as error:
        day = f"{coming.at.day} {coming.at:%B %Y}"
        raise Conflict(
            f"From {day} on your plan is {coming.plan}, and this would not fit into it: take the change back first.",
            code="exceeds_coming_plan",
            details={"comingPlan": coming.plan, "at": rfc3339(coming.at), **(error.details or {})},
        ) from error
