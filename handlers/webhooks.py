"""Outbound webhooks, for administrators: who is told of what, what could not be delivered, and its replay."""

from __future__ import annotations

from typing import Any

from controlplane.clock import rfc3339
from controlplane.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from handlers.base import Answer, ApiHandler


class WebhooksHandler(ApiHandler):
    async def on_get(self) -> Answer:
        endpoints = await self.services.webhooks.list_endpoints()
        return Answer({"items": [_endpoint_document(each) for each in endpoints], "nextAfter": None})

    async def on_post(self) -> Answer:
        created = await self.services.webhooks.create_endpoint(self.body["url"], self.body["events"])
        await self.audit("webhook.create", created.endpoint.id, {"url": created.endpoint.url})
        return Answer({**_endpoint_document(created.endpoint), "secret": created.secret}, 201)


class WebhookHandler(ApiHandler):
    async def on_delete(self, webhook_id: str) -> Answer:
        await self.services.webhooks.remove_endpoint(webhook_id)
        await self.audit("webhook.remove", webhook_id)
        return Answer(status=204)


class WebhookDeliveriesHandler(ApiHandler):
    async def on_get(self) -> Answer:
        limit = self.query["limit"]
        state = DeliveryState(self.query["state"]) if "state" in self.query else None
        found = await self.services.webhooks.page(state=state, limit=limit + 1, after=self.query.get("after"))
        shown = found[:limit]
        return Answer(
            {
                "items": [_delivery_document(each) for each in shown],
                "nextAfter": shown[-1].id if len(found) > limit else None,
            }
        )


class WebhookReplayHandler(ApiHandler):
    async def on_post(self, delivery_id: str) -> Answer:
        delivery = await self.services.webhooks.replay(delivery_id)
        await self.audit("webhook.replay", delivery.id)
        return Answer(_delivery_document(delivery), 202)


def _endpoint_document(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": sorted(event.value for event in endpoint.events),
        "createdAt": rfc3339(endpoint.created_at),
    }


def _delivery_document(delivery: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhookId": delivery.endpoint_id,
        "eventId": delivery.event_id,
        "event": delivery.event.value,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "outcome": delivery.outcome,
        "createdAt": rfc3339(delivery.created_at),
        "nextAttemptAt": rfc3339(delivery.next_attempt_at) if delivery.state is DeliveryState.PENDING else None,
    }
