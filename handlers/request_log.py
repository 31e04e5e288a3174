"""One line and three metrics a request, when it is answered. Paths without their queries, which may hold secrets."""

from __future__ import annotations

import logging

import tornado.web
from prometheus_client import Counter, Histogram

from controlplane.observability.metrics import Metrics
from handlers.base import ApiHandler

logger = logging.getLogger("controlplane.http")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestLog:
    """`every` is false where only answers of 400 and above get a line."""

    def __init__(self, metrics: Metrics, *, every: bool) -> None:
        self._metrics = metrics
        self._every = every
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def write(self, handler: tornado.web.RequestHandler) -> None:
        """What Tornado calls for each of the application's requests."""
        if isinstance(handler, ApiHandler):
            request = handler.request
            self.record(
                handler.route.name,
                request.method or "",
                request.path,
                handler.get_status(),
                seconds=request.request_time(),
                address=handler.client_address,
                request_id=handler.request_id,
            )

    def record(
        self, route: str, method: str, path: str, status: int, *, seconds: float, address: str, request_id: str
    ) -> None:
        """`route` is a label: one of few."""
        requests, durations = self._counters_of(route, method, status)
        requests.inc()
        durations.observe(seconds)
        if self._every or status >= 400:
            logger.info(
                "request",
                extra={
                    "method": method,
                    "path": path,
                    "status": status,
                    "milliseconds": round(seconds * 1000, 3),
                    "address": address,
                    "request_id": request_id,
                },
            )

    def _counters_of(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """Looked up by label once: bounded by the routes, the methods that are known and the statuses."""
        key = (route, method if method in _METHODS else "OTHER", status)
        known = self._counters.get(key)
        if known is None:
            metrics = self._metrics
            known = (metrics.http_requests.labels(*key), metrics.http_seconds.labels(route))
            self._counters[key] = known
        return known
