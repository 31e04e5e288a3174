"""The publisher that provisioning speaks to: marks what the edge may lead to, and announces it by webhook."""

from __future__ import annotations

from controlplane.instances import InstanceDirectory
from controlplane.models import Instance, WebhookEvent
from controlplane.publishing.webhooks import Webhooks


class InstancePublisher:
    """Satisfies `ports.Publisher`. The mark comes first: whoever is told can use the route, or is refused by it.

    Each call may come again after a crash. The mark then stands, the revision is the same, and so is the event.
    """

    def __init__(self, directory: InstanceDirectory, webhooks: Webhooks) -> None:
        self._directory = directory
        self._webhooks = webhooks

    async def publish(self, instance: Instance) -> None:
        marked = await self._directory.set_published(instance.id, published=True)
        await self._webhooks.announce(WebhookEvent.READY, marked)

    async def withdraw(self, instance: Instance) -> None:
        marked = await self._directory.set_published(instance.id, published=False)
        await self._webhooks.announce(WebhookEvent.WITHDRAWN, marked)

    async def retire(self, instance: Instance) -> None:
        await self._webhooks.announce(WebhookEvent.DELETED, instance)
