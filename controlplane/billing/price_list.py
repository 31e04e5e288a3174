"""What the plans cost, as the provider says: asked now and then, remembered meanwhile, unknown while it is away."""

from __future__ import annotations

import asyncio
import logging

from controlplane.billing.plans import PlanCatalog
from controlplane.billing.ports import PaymentGateway
from controlplane.billing.records import Price
from controlplane.errors import PaymentError
from controlplane.ports import Clock

logger = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
RETRY_SECONDS = 30.0


class PriceList:
    def __init__(self, gateway: PaymentGateway, plans: PlanCatalog, clock: Clock) -> None:
        self._gateway = gateway
        self._plans = plans
        self._clock = clock
        self._prices: dict[str, Price] = {}
        self._read_again_at = 0.0
        self._reading = asyncio.Lock()

    async def all(self) -> dict[str, Price]:
        """By price id. A price that cannot be read, or is not as the plan says, is missing."""
        if self._clock.monotonic() >= self._read_again_at:
            async with self._reading:
                if self._clock.monotonic() >= self._read_again_at:
                    await self._read()
        return self._prices

    async def _read(self) -> None:
        found: dict[str, Price] = {}
        self._read_again_at = self._clock.monotonic() + RETRY_SECONDS
        try:
            for plan in self._plans.plans:
                for interval, price_id in plan.prices.items():
                    price = await self._gateway.retrieve_price(price_id)
                    if price is None or price.interval != interval or not price.is_active:
                        logger.error(
                            "a plan cannot be sold: its price is missing, not active or of another interval",
                            extra={"plan": plan.id, "price": price_id, "interval": interval.value},
                        )
                    else:
                        found[price_id] = price
        except PaymentError as error:
            logger.warning("prices cannot be read now", extra={"why": error.operator_message})
            return
        self._prices = found
        self._read_again_at = self._clock.monotonic() + FRESH_SECONDS
