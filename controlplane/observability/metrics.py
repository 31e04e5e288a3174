"""Definitions of every Prometheus metric. Labels are bounded: route names, methods, outcomes; never ids or paths."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry and the metrics on it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.http_requests = Counter(
            "controlplane_http_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.http_seconds = Histogram(
            "controlplane_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route",),
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.polls = Counter("controlplane_agent_polls", "Polls by outcome.", ("outcome",), registry=self.registry)
        self.poll_seconds = Histogram(
            "controlplane_agent_poll_seconds",
            "Duration of a poll.",
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.poll_lag_seconds = Histogram(
            "controlplane_agent_poll_lag_seconds",
            "How long after its schedule a poll began.",
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.polls_in_flight = Gauge(
            "controlplane_agent_polls_in_flight", "Polls under way by lane.", ("lane",), registry=self.registry
        )
        self.instances = Gauge(
            "controlplane_instances",
            "Instances by kind and connection.",
            ("kind", "connection"),
            registry=self.registry,
        )
        self.job_failures = Counter(
            "controlplane_job_failures",
            "Ticks of a job that failed or ran out of time.",
            ("job",),
            registry=self.registry,
        )
        self.loop_lag_seconds = Histogram(
            "controlplane_loop_lag_seconds",
            "How late the IOLoop ran a timer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=self.registry,
        )
        self.console_viewers = Gauge("controlplane_console_viewers", "Open console websockets.", registry=self.registry)
        self.console_outputs_missed = Counter(
            "controlplane_console_outputs_missed",
            "Console outputs that a viewer was too slow for.",
            registry=self.registry,
        )
        self.billing_webhooks_refused = Counter(
            "controlplane_billing_webhooks_refused",
            "Webhook bodies that were not believed, by why.",
            ("reason",),
            registry=self.registry,
        )
        self.billing_notices_sent = Counter(
            "controlplane_billing_notices_sent", "Mails to customers about billing.", ("kind",), registry=self.registry
        )
        self.operations_ended = Counter(
            "controlplane_operations_ended",
            "Operations that came to an end, also one that needs an administrator.",
            ("kind", "state"),
            registry=self.registry,
        )
        self.audit_dropped = Counter(
            "controlplane_audit_dropped", "Audit entries that could only be logged.", registry=self.registry
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
