"""One comparison with the payment provider from the command line, beside the processes that serve."""

from __future__ import annotations

from controlplane.billing.accounts import DriftReport
from controlplane.billing.parts import Billing
from controlplane.errors import ConfigurationError, Conflict
from controlplane.settings import Settings
from controlplane.wiring.database import open_database, prepare_database
from controlplane.wiring.plane import ControlPlane


async def compare_billing(settings: Settings) -> DriftReport:
    """Changes nothing. Raises ConfigurationError where billing is off."""
    async with open_database(settings) as database:
        await prepare_database(database)
        plane = ControlPlane(settings, database)
        try:
            await plane.services.instances.load()
            return await _billing_of(plane).reconciliation.dry_run()
        finally:
            await plane.stop()


async def reconcile_billing(settings: Settings) -> DriftReport:
    """Sets right what can be. Operations that this asks for are run by the processes that serve. Raises Conflict when
    one of those compares just now, ConfigurationError where billing is off."""
    async with open_database(settings) as database:
        await prepare_database(database)
        plane = ControlPlane(settings, database)
        try:
            await plane.services.instances.load()
            await plane.provisioning.service.load()
            report = await _billing_of(plane).reconciliation.reconcile()
        finally:
            await plane.stop()
    if report is None:
        raise Conflict("Another process compares with the payment provider just now.")
    return report


def _billing_of(plane: ControlPlane) -> Billing:
    if plane.services.billing is None:
        raise ConfigurationError("STRIPE_SECRET_KEY", "is not set: billing is off")
    return plane.services.billing
