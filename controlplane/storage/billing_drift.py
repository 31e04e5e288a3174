"""Comparisons with the payment provider, in `billing_drift`, and in `meta` how far its events were read."""

from __future__ import annotations

from datetime import datetime

from pymongo import DESCENDING

from controlplane.billing.accounts import Drift, DriftReport, Finding
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_CURSOR = "billing_events"


class MongoDriftRepository:
    """Satisfies `billing.ports.DriftRepository`."""

    def __init__(self, database: Database) -> None:
        self._reports = database.collection("billing_drift")
        self._meta = database.collection("meta")

    async def add(self, report: DriftReport) -> None:
        with translated():
            await self._reports.insert_one(_to_document(report))

    async def latest(self) -> DriftReport | None:
        with translated():
            row = await self._reports.find_one({"dry_run": False}, sort=[("started_at", DESCENDING)])
        return None if row is None else _to_report(row)

    async def events_read_until(self) -> datetime | None:
        with translated():
            row = await self._meta.find_one({"_id": _CURSOR})
        if row is None:
            return None
        moment = row["read_until"]
        assert isinstance(moment, datetime)
        return moment

    async def set_events_read_until(self, moment: datetime) -> None:
        with translated():
            await self._meta.update_one({"_id": _CURSOR}, {"$max": {"read_until": moment}}, upsert=True)


def _to_document(report: DriftReport) -> Document:
    return {
        "_id": exact(report.id),
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "dry_run": report.dry_run,
        "subscriptions_read": report.subscriptions_read,
        "accounts_read": report.accounts_read,
        "events_read": report.events_read,
        "findings": [
            {
                "drift": each.drift.value,
                "subject": each.subject,
                "user_id": each.user_id,
                "detail": each.detail,
                "repaired": each.repaired,
            }
            for each in report.findings
        ],
        "findings_omitted": report.findings_omitted,
        "problem": report.problem,
    }


def _to_report(row: Document) -> DriftReport:
    fields = dict(row)
    return DriftReport(
        id=fields.pop("_id"),
        findings=[Finding(**{**each, "drift": Drift(each["drift"])}) for each in fields.pop("findings")],
        **fields,
    )
