"""The months of a customer end, day by day, as they are written down in tests/billing_month.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.storage.database import Database
from tests import billing_month

pytestmark = pytest.mark.timeout(300)


@pytest.mark.gen_test(timeout=290)
async def test_a_customers_months_are_as_written_down(database: Database, tmp_path: Path) -> None:
    expected = Path(billing_month.__file__).with_suffix(".txt").read_text().splitlines()
    assert await billing_month.live(database, tmp_path) == expected
