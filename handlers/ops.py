"""The service's own operation: liveness, readiness with reasons, metrics, and the description of the API."""

from __future__ import annotations

import hmac

from controlplane.errors import ControlPlaneError, Unauthenticated
from handlers.base import Answer, ApiHandler, bearer_token

MAX_LOOP_LAG_SECONDS = 1.0


class HealthzHandler(ApiHandler):
    """Alive: the IOLoop answers."""

    def on_get(self) -> Answer:
        return Answer({"status": "alive"})


class ReadyzHandler(ApiHandler):
    """Ready to serve, or 503 with what is missing by name."""

    async def on_get(self) -> Answer:
        services = self.services
        checks = {
            "startup": "ok" if services.lifecycle.serving else services.lifecycle.problem,
            "draining": "no" if not services.lifecycle.draining else "the process is stopping",
            "database": await self._database(),
            "loopLag": self._loop_lag(),
            "poller": self._poller(),
        }
        healthy = {"startup": "ok", "draining": "no", "database": "ok", "loopLag": "ok"}
        failed = {name for name, expected in healthy.items() if checks[name] != expected}
        if checks["poller"] not in ("ok", "another process polls"):
            failed.add("poller")
        status = 503 if failed else 200
        headers = {"Retry-After": "2"} if failed else {}
        return Answer({"ready": not failed, "failed": sorted(failed), "checks": checks}, status, headers)

    async def _database(self) -> str:
        try:
            await self.services.storage.ping()
        except ControlPlaneError as error:
            return error.message
        return "ok"

    def _loop_lag(self) -> str:
        worst = self.services.loop_lag.worst_seconds
        return "ok" if worst <= MAX_LOOP_LAG_SECONDS else f"{worst:.3f} s at worst in the latest 30 s"

    def _poller(self) -> str:
        if not self.services.lifecycle.polls_here:
            return "another process polls"
        overdue = self.services.poller.overdue_seconds(self.services.clock.monotonic())
        limit = self.services.settings.agent_stale_after_seconds
        return "ok" if overdue <= limit else f"polls are {overdue:.0f} s behind their schedule"


class MetricsHandler(ApiHandler):
    """Prometheus text. Where METRICS_TOKEN is set, it is needed as the bearer token."""

    def on_get(self) -> Answer:
        expected = self.services.settings.metrics_token
        if expected is not None and not hmac.compare_digest(bearer_token(self.request).encode(), expected.encode()):
            raise Unauthenticated("That is not the metrics token.", code="token_invalid")
        metrics = self.services.metrics
        self.services.instance_views.observe(metrics.instances)
        return Answer(metrics.render(), headers={"Content-Type": metrics.content_type})


class OpenApiHandler(ApiHandler):
    def initialize(self, description: bytes, **kwargs: object) -> None:  # type: ignore[override]
        super().initialize(**kwargs)  # type: ignore[arg-type]
        self._description = description

    def on_get(self) -> Answer:
        return Answer(self._description, headers={"Cache-Control": "public, max-age=60"})
