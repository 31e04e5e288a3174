"""The composition root, the only package that imports adapters: what each part of the control plane is made of."""

from controlplane.wiring.billing import check_billing
from controlplane.wiring.database import export_to, import_from, open_database, prepare_database
from controlplane.wiring.plane import ControlPlane
from controlplane.wiring.reconcile import compare_billing, reconcile_billing

__all__ = [
    "ControlPlane",
    "check_billing",
    "compare_billing",
    "export_to",
    "import_from",
    "open_database",
    "prepare_database",
    "reconcile_billing",
]
