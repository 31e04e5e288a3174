"""Idempotency keys: which requests are held while they run. What holds under contention: tests/contract/storage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial

import pytest

from controlplane.idempotency import Idempotency, RawAnswer
from controlplane.models import StoredAnswer
from controlplane.secretbox import SecretBox
from tests.fakes import FakeClock


class FakeIdempotencyRepository:
    """Every key is new. `renewals` are the claims of each renewal, `abandoned` the keys that were given up."""

    def __init__(self) -> None:
        self.renewals: list[set[tuple[str, str]]] = []
        self.abandoned: list[str] = []

    async def begin(self, scope: str, key: str, request_hash: str, *, now: datetime) -> StoredAnswer | None:
        return None

    async def renew(self, claims: Sequence[tuple[str, str]], *, now: datetime) -> None:
        self.renewals.append(set(claims))

    async def finish(self, scope: str, key: str, answer: StoredAnswer, *, now: datetime) -> None: ...

    async def abandon(self, scope: str, key: str) -> None:
        self.abandoned.append(key)


async def _wait_for(end: asyncio.Future[RawAnswer]) -> RawAnswer:
    return await end


@pytest.mark.gen_test
async def test_a_key_is_held_for_as_long_as_its_request_runs() -> None:
    repository = FakeIdempotencyRepository()
    idempotency = Idempotency(repository, SecretBox(bytes(32)), FakeClock())
    ends: dict[str, asyncio.Future[RawAnswer]] = {key: asyncio.Future() for key in ("answers", "fails")}
    requests = [
        asyncio.create_task(idempotency.run(scope="usr_1", key=key, request=b"", execute=partial(_wait_for, end)))
        for key, end in ends.items()
    ]
    await asyncio.sleep(0)
    await idempotency.renew_claims()
    ends["answers"].set_result(RawAnswer(201, b"{}"))
    assert await requests[0] == (RawAnswer(201, b"{}"), False)
    await idempotency.renew_claims()
    ends["fails"].set_exception(ValueError("the request failed"))
    with pytest.raises(ValueError, match="the request failed"):
        await requests[1]
    await idempotency.renew_claims()
    assert repository.renewals == [{("usr_1", "answers"), ("usr_1", "fails")}, {("usr_1", "fails")}]
    assert repository.abandoned == ["fails"]
