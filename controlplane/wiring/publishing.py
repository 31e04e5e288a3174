"""What publishing is made of: the publisher that provisioning speaks to, and the webhooks behind it."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.instances import InstanceDirectory
from controlplane.jobs import Job
from controlplane.ports import Clock
from controlplane.publishing.publisher import InstancePublisher
from controlplane.publishing.sender import CurlWebhookSender
from controlplane.publishing.webhooks import Webhooks
from controlplane.secretbox import SecretBox
from controlplane.storage.database import Database
from controlplane.storage.webhooks import MongoWebhookDeliveryRepository, MongoWebhookEndpointRepository
from controlplane.wiring.database import Repositories


@dataclass(frozen=True, slots=True)
class Publishing:
    publisher: InstancePublisher
    webhooks: Webhooks
    sender: CurlWebhookSender

    def jobs(self) -> list[Job]:
        return [Job("webhooks", self.webhooks.run_once, 1, 45)]

    def close(self) -> None:
        self.sender.close()


def make_publishing(
    database: Database,
    repositories: Repositories,
    *,
    directory: InstanceDirectory,
    secret_box: SecretBox,
    clock: Clock,
    owner: str,
) -> Publishing:
    """`owner` names this process."""
    sender = CurlWebhookSender()
    webhooks = Webhooks(
        endpoints=MongoWebhookEndpointRepository(database),
        deliveries=MongoWebhookDeliveryRepository(database),
        leases=repositories.leases,
        sender=sender,
        secret_box=secret_box,
        clock=clock,
        owner=owner,
    )
    return Publishing(InstancePublisher(directory, webhooks), webhooks, sender)
