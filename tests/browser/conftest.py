"""One demo for all browser tests; a browser for each file, ended with it.

Playwright's synchronous interface keeps an event loop running in the thread of the tests. It ends with the file, so
that tests which run loops of their own may follow in the same session.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visitor import PATIENCE_MILLISECONDS, Visitor, chromium
from tests.control_plane_process import ControlPlaneProcess, call, login

LISTS = ("/api/game/servers", "/api/dev")


@dataclass(frozen=True, slots=True)
class Demo:
    """`run.py demo` as a process, with what its demo.json says."""

    folder: Path
    description: dict[str, Any]
    tokens: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return str(self.description["url"])

    @property
    def customer(self) -> dict[str, str]:
        credentials: dict[str, str] = self.description["customer"]
        return credentials

    def instance(self, name: str) -> dict[str, Any]:
        """As its owner reads it."""
        lists = (call(self.url, "GET", path, None, self.token()).body["items"] for path in LISTS)
        found: dict[str, Any] = next(each for items in lists for each in items if each["name"] == name)
        return found

    def path(self, name: str) -> str:
        """Of its API."""
        instance = self.instance(name)
        return f"{LISTS[instance['kind'] == 'dev']}/{instance['id']}"

    def agent(self, name: str) -> dict[str, Any]:
        instance_id = self.instance(name)["id"]
        found: dict[str, Any] = next(agent for agent in self.description["agents"] if agent["id"] == instance_id)
        return found

    def token(self, account: str = "customer") -> str:
        """The same as long as it works: who signs in again and again is held up."""
        known = self.tokens.get(account)
        if known is None or call(self.url, "GET", "/api/auth/me", None, known).status == 401:
            known = self.tokens[account] = login(self.url, self.description[account])
        return known

    def session(self) -> str:
        """A refresh token of the customer's: the session that the visitor before left goes on, for the same reason."""
        while self.left:
            answer = call(self.url, "POST", "/api/auth/refresh", {"refreshToken": self.left.pop()})
            if answer.status == 200:
                return str(answer.body["refreshToken"])
        return str(call(self.url, "POST", "/api/auth/login", self.customer).body["refreshToken"])

    def mails(self, to: str) -> list[str]:
        """Their texts, the oldest first. They are written to the log, since the demo has no mail server."""
        with (self.folder / "demo.log").open() as log:
            records = [json.loads(line) for line in log if line.endswith("\n")]
        return [record["text"] for record in records if record.get("to") == to]

    def files(self, member: str, name: str) -> list[Path]:
        """Where a file of that name lies among the server's."""
        return sorted((self._data(member) / "files").rglob(name))

    def half_files(self, member: str) -> list[Path]:
        """What an upload has written so far, which is not among the server's files yet."""
        return sorted((self._data(member) / "staging").glob("*.partial"))

    @contextmanager
    def no_machine_is_made(self) -> Iterator[None]:
        """Whoever asks for one meanwhile waits: the lock that its provider takes first is held."""
        with (self.folder / "machines" / ".lock-ide-ports").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _data(self, member: str) -> Path:
        return self.folder / "machines" / str(self.instance(member)["vmid"]) / "data"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("browser") / "demo"
    with ControlPlaneProcess("demo", "--port", "0", "--data-dir", str(folder)) as process:
        process.until_line(r"^ready http")
        yield Demo(folder, json.loads((folder / "demo.json").read_text()))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors. At the end none of them may have met an error, or left a secret where it does not belong."""
    visitors: list[Visitor] = []

    def make(**context: Any) -> Visitor:
        visitors.append(Visitor(browser, demo.url, **context))
        return visitors[-1]

    yield make
    for visitor in visitors:
        kept = visitor.storage()
        visitor.close()
        assert visitor.complaints == []
        assert visitor.addresses_with_secrets == []
        assert kept == {"local": {}, "session": {}, "cookie": ""}


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    return visit()


@pytest.fixture
def customer(visitor: Visitor, demo: Demo) -> Iterator[Visitor]:
    """Signed in, at the fleet."""
    visitor.come_back(demo.session())
    yield visitor
    left = visitor.leave()
    if left is not None:
        demo.left.append(left)
