"""Outbound webhooks: who is told, in `webhook_endpoints`; what they are told, in `webhook_deliveries`."""

from __future__ import annotations

from datetime import datetime

from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from controlplane.errors import Conflict
from controlplane.models import DeliveryState, WebhookDelivery, WebhookEndpoint, WebhookEvent
from controlplane.storage.database import Database, Document, read_all
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated


class MongoWebhookEndpointRepository:
    """Satisfies `ports.WebhookEndpointRepository`."""

    def __init__(self, database: Database) -> None:
        self._endpoints = database.collection("webhook_endpoints")

    async def add(self, endpoint: WebhookEndpoint) -> None:
        try:
            with translated():
                await self._endpoints.insert_one(
                    {
                        "_id": endpoint.id,
                        "url": endpoint.url,
                        "events": sorted(event.value for event in endpoint.events),
                        "sealed_secret": endpoint.sealed_secret,
                        "created_at": endpoint.created_at,
                        "disabled_at": endpoint.disabled_at,
                    }
                )
        except DuplicateKeyError as error:
            raise Conflict("A webhook with this id exists.") from error

    async def get(self, endpoint_id: str) -> WebhookEndpoint | None:
        with translated():
            row = await self._endpoints.find_one({"_id": exact(endpoint_id)})
        return None if row is None else _to_endpoint(row)

    async def list_enabled(self) -> list[WebhookEndpoint]:
        return await read_all(self._endpoints.find({"disabled_at": None}).sort("_id", ASCENDING), _to_endpoint)

    async def disable(self, endpoint_id: str, at: datetime) -> bool:
        with translated():
            result = await self._endpoints.update_one(
                {"_id": exact(endpoint_id), "disabled_at": None}, {"$set": {"disabled_at": at}}
            )
        return result.matched_count == 1


class MongoWebhookDeliveryRepository:
    """Satisfies `ports.WebhookDeliveryRepository`."""

    def __init__(self, database: Database) -> None:
        self._deliveries = database.collection("webhook_deliveries")

    async def add(self, delivery: WebhookDelivery) -> None:
        try:
            with translated():
                await self._deliveries.insert_one({"_id": delivery.id, **_to_document(delivery)})
        except DuplicateKeyError:
            return

    async def get(self, delivery_id: str) -> WebhookDelivery | None:
        with translated():
            row = await self._deliveries.find_one({"_id": exact(delivery_id)})
        return None if row is None else _to_delivery(row)

    async def due(self, endpoint_id: str, now: datetime, *, limit: int) -> list[WebhookDelivery]:
        pending = {
            "endpoint_id": exact(endpoint_id),
            "state": DeliveryState.PENDING.value,
            "next_attempt_at": {"$lte": now},
        }
        return await read_all(
            self._deliveries.find(pending).sort("next_attempt_at", ASCENDING).limit(limit), _to_delivery
        )

    async def replace(self, delivery: WebhookDelivery, *, attempted: WebhookDelivery) -> bool:
        begun = {
            "_id": exact(delivery.id),
            "attempts": exact(attempted.attempts),
            "next_attempt_at": attempted.next_attempt_at,
        }
        with translated():
            result = await self._deliveries.update_one(begun, {"$set": _to_document(delivery)})
        return result.matched_count == 1

    async def restart(self, delivery_id: str, now: datetime) -> WebhookDelivery | None:
        fresh = {"state": DeliveryState.PENDING.value, "attempts": 0, "next_attempt_at": now, "outcome": None}
        with translated():
            row: Document | None = await self._deliveries.find_one_and_update(
                {"_id": exact(delivery_id)}, {"$set": fresh}, return_document=ReturnDocument.AFTER
            )
        return _to_delivery(row) if row else None

    async def page(self, *, state: DeliveryState | None, limit: int, after: str | None) -> list[WebhookDelivery]:
        wanted: Document = {} if state is None else {"state": state.value}
        if after is not None:
            wanted["_id"] = {"$gt": exact(after)}
        return await read_all(self._deliveries.find(wanted).sort("_id", ASCENDING).limit(limit), _to_delivery)


def _to_endpoint(row: Document) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=row["_id"],
        url=row["url"],
        events=frozenset(WebhookEvent(name) for name in row["events"]),
        sealed_secret=bytes(row["sealed_secret"]),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
    )


def _to_document(delivery: WebhookDelivery) -> Document:
    """Without `_id`."""
    return {
        "endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event": delivery.event.value,
        "body": delivery.body,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.next_attempt_at,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "outcome": delivery.outcome,
    }


def _to_delivery(row: Document) -> WebhookDelivery:
    return WebhookDelivery(
        id=row["_id"],
        endpoint_id=row["endpoint_id"],
        event_id=row["event_id"],
        event=WebhookEvent(row["event"]),
        body=bytes(row["body"]),
        created_at=row["created_at"],
        next_attempt_at=row["next_attempt_at"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        outcome=row["outcome"],
    )
