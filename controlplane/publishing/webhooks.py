"""Outbound webhooks: who is told, what waits to be told, and the attempts until it is told or given up.

Delivery is at least once and in no order: a receiver tells a repetition by `webhook-id`. What could not be delivered
stays on the dead-letter list, from which an administrator replays it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import orjson

from controlplane.clock import rfc3339
from controlplane.errors import Conflict, InvalidInput, NotFound, Unavailable
from controlplane.models import DeliveryState, Instance, WebhookDelivery, WebhookEndpoint, WebhookEvent
from controlplane.ports import (
    Clock,
    LeaseRepository,
    WebhookDeliveryRepository,
    WebhookEndpointRepository,
    WebhookSender,
)
from controlplane.publishing.signing import new_secret, signed_headers
from controlplane.secretbox import SecretBox

logger = logging.getLogger(__name__)

MAX_ENDPOINTS = 20
ATTEMPTS_AT_ONCE = 5
"""Of one endpoint in one round, so that one that never answers takes no turn from the others."""

LEASE_NAME = "webhooks"
LEASE_SECONDS = 60.0
RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After the first attempt, the second, and so on: the schedule that Standard Webhooks recommends, three days in all."""

_GONE = 410


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """`secret` is shown this once."""

    endpoint: WebhookEndpoint
    secret: str = field(repr=False)


class Webhooks:
    """`owner` names this process for the lease under which deliveries are attempted."""

    def __init__(
        self,
        *,
        endpoints: WebhookEndpointRepository,
        deliveries: WebhookDeliveryRepository,
        leases: LeaseRepository,
        sender: WebhookSender,
        secret_box: SecretBox,
        clock: Clock,
        owner: str,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._leases = leases
        self._sender = sender
        self._secret_box = secret_box
        self._clock = clock
        self._owner = owner

    # -- endpoints ---------------------------------------------------------------------------------------------------

    async def create_endpoint(self, url: str, events: Iterable[str]) -> NewEndpoint:
        """Raises InvalidInput for a URL or an event that is none, Conflict (`too_many_webhooks`)."""
        _check_url(url)
        known = _known_events(events)
        if len(await self._endpoints.list_enabled()) >= MAX_ENDPOINTS:
            raise Conflict(f"There are {MAX_ENDPOINTS} webhooks already.", code="too_many_webhooks")
        endpoint_id = "wh_" + secrets.token_hex(8)
        secret = new_secret()
        endpoint = WebhookEndpoint(
            id=endpoint_id,
            url=url,
            events=known,
            sealed_secret=self._secret_box.seal(secret.encode(), _secret_context(endpoint_id)),
            created_at=self._clock.now(),
        )
        await self._endpoints.add(endpoint)
        return NewEndpoint(endpoint, secret)

    async def list_endpoints(self) -> list[WebhookEndpoint]:
        return await self._endpoints.list_enabled()

    async def remove_endpoint(self, endpoint_id: str) -> None:
        """What still waits for it is given up at its next attempt. Raises NotFound."""
        if not await self._endpoints.disable(endpoint_id, self._clock.now()):
            raise NotFound

    # -- announcing --------------------------------------------------------------------------------------------------

    async def announce(self, event: WebhookEvent, instance: Instance) -> None:
        """Store what is to be told. The same event of the same revision, announced again, is the same event."""
        event_id = _event_id(event, instance)
        now = self._clock.now()
        body = orjson.dumps(
            {
                "type": event.value,
                "timestamp": rfc3339(now),
                "data": {
                    "id": instance.id,
                    "kind": instance.kind.value,
                    "vmid": instance.vmid,
                    "name": instance.name,
                    "ownerId": instance.owner_id,
                },
            }
        )
        for endpoint in await self._endpoints.list_enabled():
            if event in endpoint.events:
                await self._deliveries.add(
                    WebhookDelivery(
                        id=_delivery_id(event_id, endpoint.id),
                        endpoint_id=endpoint.id,
                        event_id=event_id,
                        event=event,
                        body=body,
                        created_at=now,
                        next_attempt_at=now,
                    )
                )

    # -- delivering --------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Attempt what is due, some of each endpoint, all side by side."""
        if await self._leases.acquire(LEASE_NAME, self._owner, ttl_seconds=LEASE_SECONDS) is None:
            return
        now = self._clock.now()
        attempts = []
        for endpoint in await self._endpoints.list_enabled():
            for delivery in await self._deliveries.due(endpoint.id, now, limit=ATTEMPTS_AT_ONCE):
                attempts.append(self._attempt(endpoint, delivery))
        await asyncio.gather(*attempts)

    async def _attempt(self, endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
        secret = self._secret_box.open(endpoint.sealed_secret, _secret_context(endpoint.id)).decode()
        headers = signed_headers(secret, delivery.event_id, delivery.body, self._clock.now())
        try:
            status = await self._sender.post(endpoint.url, headers, delivery.body)
        except Unavailable as error:
            await self._record_failure(delivery, error.message)
            return
        if 200 <= status < 300:
            await self._record(delivery, state=DeliveryState.DELIVERED, outcome=f"answered {status}")
        elif status == _GONE:
            await self._endpoints.disable(endpoint.id, self._clock.now())
            logger.warning("a webhook is gone and was disabled", extra={"webhook": endpoint.id})
            await self._record(delivery, state=DeliveryState.DEAD, outcome="answered 410: the webhook was disabled")
        else:
            await self._record_failure(delivery, f"answered {status}")

    async def _record_failure(self, delivery: WebhookDelivery, outcome: str) -> None:
        if delivery.attempts >= len(RETRY_SECONDS):
            logger.warning(
                "a webhook's event was given up",
                extra={"webhook": delivery.endpoint_id, "delivery": delivery.id, "why": outcome},
            )
            await self._record(delivery, state=DeliveryState.DEAD, outcome=outcome)
            return
        again_at = self._clock.now() + timedelta(seconds=RETRY_SECONDS[delivery.attempts])
        await self._record(delivery, state=DeliveryState.PENDING, outcome=outcome, next_attempt_at=again_at)

    async def _record(
        self,
        delivery: WebhookDelivery,
        *,
        state: DeliveryState,
        outcome: str,
        next_attempt_at: datetime | None = None,
    ) -> None:
        """Where another process recorded an attempt meanwhile, its record stays, and so does a replay."""
        ended = replace(
            delivery,
            state=state,
            outcome=outcome,
            attempts=delivery.attempts + 1,
            next_attempt_at=next_attempt_at or delivery.next_attempt_at,
        )
        await self._deliveries.replace(ended, attempted=delivery)

    # -- the dead-letter list ----------------------------------------------------------------------------------------

    async def page(self, *, state: DeliveryState | None, limit: int, after: str | None) -> list[WebhookDelivery]:
        return await self._deliveries.page(state=state, limit=limit, after=after)

    async def replay(self, delivery_id: str) -> WebhookDelivery:
        """Attempt it again from the start, delivered or not, under the same event id. Raises NotFound, and Conflict
        (`webhook_disabled`) when its endpoint is no more."""
        delivery = await self._deliveries.get(delivery_id)
        if delivery is None:
            raise NotFound
        endpoint = await self._endpoints.get(delivery.endpoint_id)
        if endpoint is None or endpoint.disabled_at is not None:
            raise Conflict("The webhook of this delivery is disabled.", code="webhook_disabled")
        restarted = await self._deliveries.restart(delivery_id, self._clock.now())
        if restarted is None:
            raise NotFound
        return restarted


def _check_url(url: str) -> None:
    problem = None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput({"url": ["is not a URL"]}) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        problem = "must be an http or https URL"
    elif parts.username is not None or parts.fragment:
        problem = "must have neither credentials nor a fragment: the signature says who calls"
    if problem is not None:
        raise InvalidInput({"url": [problem]})


def _known_events(events: Iterable[str]) -> frozenset[WebhookEvent]:
    names: Sequence[str] = list(events)
    unknown = sorted(set(names) - {event.value for event in WebhookEvent})
    if unknown:
        raise InvalidInput({"events": [f"unknown events: {', '.join(unknown)}"]})
    return frozenset(WebhookEvent(name) for name in names)


def _secret_context(endpoint_id: str) -> str:
    return f"webhook:{endpoint_id}:secret"


def _event_id(event: WebhookEvent, instance: Instance) -> str:
    return "evt_" + hashlib.sha256(f"{event.value}:{instance.id}:{instance.revision}".encode()).hexdigest()[:24]


def _delivery_id(event_id: str, endpoint_id: str) -> str:
    return "whd_" + hashlib.sha256(f"{event_id}:{endpoint_id}".encode()).hexdigest()[:24]
