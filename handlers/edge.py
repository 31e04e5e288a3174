"""What the edge asks for: its routes, as Traefik reads them. The edge has a token of its own."""

from __future__ import annotations

import hmac

from controlplane.errors import NotFound, StorageUnavailable, Unauthenticated
from controlplane.publishing.traefik import EdgePlan, dynamic_configuration
from handlers.base import Answer, ApiHandler, bearer_token


class TraefikHandler(ApiHandler):
    """404 where EDGE_TOKEN is not set. Never an empty table because the instances are not known yet: 503 then, and
    Traefik keeps the routes that it has."""

    def on_get(self) -> Answer:
        settings = self.services.settings
        if settings.edge_token is None:
            raise NotFound
        if not hmac.compare_digest(bearer_token(self.request).encode(), settings.edge_token.encode()):
            raise Unauthenticated("That is not the edge's token.", code="token_invalid")
        if not self.services.lifecycle.serving:
            raise StorageUnavailable(f"Not serving yet: {self.services.lifecycle.problem}.")
        plan = EdgePlan(
            control_plane_url=settings.edge_control_plane_url,
            ide_host_suffix=settings.dev_ide_host_suffix,
            ide_entry_points=settings.edge_ide_entry_points,
            ide_tls=settings.edge_ide_tls,
        )
        return Answer(dynamic_configuration(self.services.instances.all(), plan))
