"""`Idempotency-Key`: the same key gives the first answer again (https://docs.stripe.com/api/idempotent_requests)."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.demo.fake_stripe.faults import StripeFault

KEPT_SECONDS = 86_400
MAX_KEYS = 100_000
MAX_KEY_CHARACTERS = 255


@dataclass(slots=True)
class Entry:
    """`answer` is None while the first request still runs."""

    request: str
    request_id: str
    since: int
    answer: tuple[int, bytes] | None = None


class IdempotencyKeys:
    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def claim(self, key: str, request: str, request_id: str, now: int) -> Entry | None:
        """An entry with its answer: it ran before. None: the caller runs it, then calls `keep` or `drop`.

        Raises StripeFault: 400 for another request under the same key, 409 while the first one runs.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            raise StripeFault(f"Idempotency keys may have {MAX_KEY_CHARACTERS} characters.", kind="idempotency_error")
        entry = self._entries.get(key)
        if entry is not None and entry.answer is not None and now - entry.since > KEPT_SECONDS:
            entry = None
        if entry is None:
            self._entries[key] = Entry(request, request_id, now)
            while len(self._entries) > MAX_KEYS:
                del self._entries[next(iter(self._entries))]
            return None
        if entry.request != request:
            raise StripeFault(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
                f"using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if entry.answer is None:
            raise StripeFault(
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later.",
                status=409,
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        return entry

    def keep(self, key: str, status: int, body: bytes) -> None:
        if key in self._entries:
            self._entries[key].answer = (status, body)

    def drop(self, key: str) -> None:
        """Nothing was done: the key is free again."""
        self._entries.pop(key, None)
