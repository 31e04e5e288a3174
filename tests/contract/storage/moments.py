"""The moment at which the tests of storage play."""

from __future__ import annotations

from datetime import UTC, datetime

NOW = datetime(2126, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
"""Far ahead: the server deletes what has expired by its own clock, also in the middle of a test."""
