"""Passwords: the rules for new ones, and bcrypt off the IOLoop in two threads with a bounded queue."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import bcrypt

from controlplane.errors import InvalidInput, Overloaded

MIN_CHARACTERS = 10
MAX_CHARACTERS = 1024
THREADS = 2
QUEUE = 200  # at a quarter of a second each in two threads the last one waits for about 25 s
_NICENESS = 10

# The most used passwords of ten characters or more in published leaks; shorter ones are refused by length.
_COMMON = frozenset(
    {
        "1234567890", "0123456789", "qwertyuiop", "1q2w3e4r5t", "q1w2e3r4t5", "1qaz2wsx3edc", "password123",
        "password1234", "passw0rd123", "iloveyou123", "qwerty12345", "qwerty123456", "12345678910", "123456789a",
        "123456789q", "a123456789", "1111111111", "0000000000", "0987654321", "9876543210", "asdfghjkl123",
        "administrator", "letmein1234", "welcome1234", "changeme123", "zaq12wsxcde3", "football123", "abcdefghij",
    }
)  # fmt: skip

_T = TypeVar("_T")


def check_password(password: str, email: str, field: str = "password") -> None:
    """Raises InvalidInput on `field` for a password that is not fit. Rule: NIST SP 800-63B section 5.1.1.2."""
    problem = None
    if len(password) < MIN_CHARACTERS:
        problem = f"must have {MIN_CHARACTERS} characters or more"
    elif len(password) > MAX_CHARACTERS:
        problem = f"must have {MAX_CHARACTERS} characters or fewer"
    elif password.casefold() in (email.casefold(), email.casefold().partition("@")[0]):
        problem = "must not be the email address"
    elif password.casefold() in _COMMON or len(set(password)) < 4:
        problem = "is one that everybody tries first"
    if problem is not None:
        raise InvalidInput({field: [problem]})


class Hasher(Protocol):
    """What the services ask of `PasswordHasher`; tests bring one without the cost."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, stored_hash: str | None) -> bool: ...


class PasswordHasher:
    """`cost` is bcrypt's: each step doubles the time; 12 takes about a quarter of a second."""

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._executor = ThreadPoolExecutor(THREADS, "bcrypt", initializer=_be_nice)
        self._under_way = 0
        self._dummy = ""
        self._dummy_lock = threading.Lock()

    async def hash(self, password: str) -> str:
        """Raises Overloaded when the queue is full."""
        return await self._run(lambda: bcrypt.hashpw(_prehash(password), bcrypt.gensalt(self._cost)).decode())

    async def verify(self, password: str, stored_hash: str | None) -> bool:
        """Takes the same time where there is no hash (no such user): a dummy of the same cost is checked.

        Raises Overloaded when the queue is full. A damaged hash is a wrong password.
        """
        return await self._run(lambda: self._check(password, stored_hash))

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _check(self, password: str, stored_hash: str | None) -> bool:
        try:
            matches = bcrypt.checkpw(_prehash(password), (stored_hash or self._dummy_hash()).encode())
        except ValueError:
            return False
        return matches and stored_hash is not None

    def _dummy_hash(self) -> str:
        with self._dummy_lock:
            if not self._dummy:
                self._dummy = bcrypt.hashpw(os.urandom(32).hex()[:44].encode(), bcrypt.gensalt(self._cost)).decode()
            return self._dummy

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._under_way >= QUEUE:
            raise Overloaded("Too many sign-ins are under way; try again.", retry_after_seconds=5)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._under_way -= 1


def _prehash(password: str) -> bytes:
    """44 ASCII bytes: bcrypt 5 refuses more than 72 and stops at NUL."""
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())


def _be_nice() -> None:
    """Let the IOLoop's thread go first: on Linux niceness is a thread's own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
