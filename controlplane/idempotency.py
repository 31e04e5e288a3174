"""Idempotency keys: the same key and request give the stored answer, another request under that key is a conflict.

The answer is stored sealed, since it may show a secret once. Rule: the IETF draft `Idempotency-Key` header, section 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controlplane.errors import InvalidInput
from controlplane.models import StoredAnswer
from controlplane.ports import Clock, IdempotencyRepository
from controlplane.secretbox import SecretBox

MAX_KEY_CHARACTERS = 128
RENEWAL_SECONDS = 10
"""A claim that is not renewed is taken over after some of these: its process must have died."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A finished answer: status and JSON bytes."""

    status: int
    body: bytes


class Idempotency:
    def __init__(self, repository: IdempotencyRepository, secret_box: SecretBox, clock: Clock) -> None:
        self._repository = repository
        self._secret_box = secret_box
        self._clock = clock
        self._running: set[tuple[str, str]] = set()

    async def run(
        self, *, scope: str, key: str, request: bytes, execute: Callable[[], Awaitable[RawAnswer]]
    ) -> tuple[RawAnswer, bool]:
        """The answer, and whether it is a replay. `scope` is whose key it is; `request` is hashed to tell them apart.

        Raises InvalidInput for an unusable key and Conflict as `IdempotencyRepository.begin` does. When `execute`
        raises, nothing is stored and the key is free again. The claim is held by `renew_claims` while it runs.
        """
        if not (1 <= len(key) <= MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
            raise InvalidInput({"Idempotency-Key": [f"must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"]})
        request_hash = hashlib.sha256(request).hexdigest()
        context = f"idempotency:{scope}:{key}"
        stored = await self._repository.begin(scope, key, request_hash, now=self._clock.now())
        if stored is not None:
            return RawAnswer(stored.status, self._secret_box.open(stored.sealed_body, context)), True
        self._running.add((scope, key))
        try:
            answer = await execute()
        except BaseException:
            await self._repository.abandon(scope, key)
            raise
        finally:
            self._running.discard((scope, key))
        sealed = StoredAnswer(request_hash, answer.status, self._secret_box.seal(answer.body, context))
        await self._repository.finish(scope, key, sealed, now=self._clock.now())
        return answer, False

    async def renew_claims(self) -> None:
        """Tell that the requests under way here still run. To be called every RENEWAL_SECONDS."""
        if self._running:
            await self._repository.renew(list(self._running), now=self._clock.now())
