"""Raw bytes against the IDE's proxy, by path and by host: nothing gets through that two readers could read differently.

The table is `tests/smuggling_cases.py`. What the app got is told by `tests/raw_web_app.py`, which notes every byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
from dataclasses import dataclass, field

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import IdeHouse
from tests.raw_web_app import RawWebApp, Seen
from tests.refagent_process import until
from tests.smuggling_cases import CASES, SMUGGLED, Case, Outcome

BOTH = pytest.mark.parametrize("mode", list(IdeMode))
ANSWER_SECONDS = 20.0
STAYED_OPEN = 0
UNTIL_CLOSED = 99
MUTANTS = 400
AT_ONCE = 200
STILL_LOOKS = 40
LOOK_SECONDS = 0.05
"""Some mutants are requests that do not end: nothing is waited for when so many looks in a row find nothing new.

Looks are counted rather than seconds, so that a machine that holds this process up is not taken for stillness.
"""

SEED = 20261125


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where an app is reached, and the headers that let a request through."""

    port: int
    base: bytes
    host: bytes
    cookie: bytes

    @property
    def own(self) -> bytes:
        return b"Host: %b\r\nCookie: %b\r\nOrigin: http://%b\r\n" % (self.host, self.cookie, self.host)

    def fill(self, raw: bytes) -> bytes:
        return raw.replace(b"<base>", self.base).replace(b"<own>", self.own).replace(b"<host>", self.host)


async def entrance(house: IdeHouse, mode: IdeMode, app: RawWebApp) -> Entrance:
    """To the house's dev container, with this app on the IDE's port."""
    await house.house.services.instances.update(house.workshop.id, {"ide_port": app.port})
    cookie = await house.cookie(mode)
    base = house.prefix(mode) + "/"
    return Entrance(house.port, base.encode(), house.host(mode).encode(), cookie.encode())


@dataclass
class Talk:
    """What is sent on one connection, and what has come back."""

    data: bytes
    received: bytearray = field(default_factory=bytearray)
    is_over: bool = False

    @property
    def statuses(self) -> list[int]:
        """STAYED_OPEN is one of them where neither the answers nor the end of the connection came."""
        found = [int(each) for each in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", self.received)]
        return found if self.is_over else [*found, STAYED_OPEN]

    async def hold(self, to: Entrance, answers: int) -> None:
        """Until there are so many answers, or the other side closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        try:
            writer.write(self.data)
            while self._count() < answers and (piece := await reader.read(1 << 16)):
                self.received += piece
            self.is_over = True
        except ConnectionError:
            self.is_over = True
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _count(self) -> int:
        return len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", self.received))


async def say(to: Entrance, data: bytes, answers: int = 1) -> list[int]:
    """The statuses of what came back, until there are so many, the other side closes, or the time is over."""
    talk = Talk(data)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await talk.hold(to, answers)
    return talk.statuses


async def say_all(to: Entrance, batch: list[bytes]) -> list[list[int]]:
    """The statuses of what came back for each, side by side, until nothing more comes."""
    talks = [Talk(data) for data in batch]
    under_way = [asyncio.create_task(talk.hold(to, 1)) for talk in talks]
    seen, looks = (-1, -1), 0
    while looks < STILL_LOOKS and not all(talk.is_over for talk in talks):
        await asyncio.sleep(LOOK_SECONDS)
        before, seen = seen, (sum(len(talk.received) for talk in talks), sum(talk.is_over for talk in talks))
        looks = looks + 1 if seen == before else 0
    for task in under_way:
        task.cancel()
    for ended in await asyncio.gather(*under_way, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    return [talk.statuses for talk in talks]


async def until_read(house: IdeHouse, app: RawWebApp) -> None:
    """Everything that was passed on to the app is in `received`: also what came before a connection was closed."""

    async def is_read() -> bool:
        upstreams = house.house.services.ide.upstreams
        return await asyncio.to_thread(app.count_open) <= sum(map(len, upstreams._open.values()))

    await until(is_read)


def check_seen(seen: Seen, to: Entrance) -> None:
    """What every request that reaches an app looks like: ours, whole, and without our cookie."""
    assert seen.target.startswith("/")
    assert len(seen.all("host")) == len(seen.all("x-request-id")) == 1
    assert seen.all("x-forwarded-host") == seen.all("host")
    assert to.cookie.decode() not in str(seen.all("cookie"))


async def check_health(to: Entrance, app: RawWebApp) -> list[Seen]:
    """A good request passes. Gives what else the app has got until then."""
    assert await say(to, to.fill(b"GET <base>healthy HTTP/1.1\r\n<own>\r\n")) == [200]
    seen = list(app.requests)
    healthy = [each for each in seen if each.target == "/healthy"]
    assert len(healthy) == 1
    return [each for each in seen if each not in healthy]


@BOTH
@pytest.mark.gen_test(timeout=110)
async def test_what_could_be_read_two_ways_is_refused_before_a_byte_of_it_reaches_the_app(
    database: Database, mode: IdeMode
) -> None:
    wrong = []
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            to = await entrance(house, mode, app)
            for case in CASES:
                app.forget()
                answers = case.requests if case.outcome is Outcome.LEGAL else UNTIL_CLOSED
                got = await say(to, to.fill(case.raw), answers)
                await until_read(house, app)
                passed = bytes(app.received)
                fault = judge(case, got, passed, await check_health(to, app), to)
                if fault or app.faults:
                    wrong.append(f"{case.name}: {fault or app.faults}")
    assert not wrong, "\n" + "\n".join(wrong)


def judge(case: Case, got: list[int], passed: bytes, seen: list[Seen], to: Entrance) -> str | None:
    """What is wrong, in words."""
    if case.outcome is Outcome.LEGAL:
        for each in seen:
            check_seen(each, to)
            assert each.all("host") == [to.host.decode()]
            assert to.cookie.partition(b"=")[2].decode() not in str(each)
        if got[:1] != [case.status] or len(got) != case.requests or len(seen) != case.requests:
            return f"legal, answered {got}, the app saw {len(seen)}"
        return None if seen[0].body == case.body else f"the app got another body: {seen[0].body!r}"
    if len(got) != 1 or not 400 <= got[0] < 500:  # one answer, and then the end of the connection
        return f"answered {got}"
    if case.outcome is Outcome.REFUSED and passed:
        return f"refused, but the app got {passed[:200]!r}"
    return f"the app saw a whole request: {seen}" if seen else None


def test_the_table_names_each_case_once_and_hides_a_request_where_it_can() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(SMUGGLED in case.raw for case in CASES) > len(CASES) / 2


SEEDS = (
    b"GET <base>page HTTP/1.1\r\n<own>X-Case: <case>\r\n\r\n",
    b"POST <base>page HTTP/1.1\r\n<own>X-Case: <case>\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT <base>page HTTP/1.1\r\n<own>X-Case: <case>\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    (
        b"GET <base>page HTTP/1.1\r\n<own>X-Case: <case>\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ),
)
PIECES = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\x00",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\x0b",
        b"\xff",
        b"0",
        b"5",
    ),
    *(b"chunked", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: <host>\r\n", b"HTTP/1.1"),
    *(b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"Upgrade: websocket\r\n", b"\r\n "),
)


def name_of(number: int) -> bytes:
    """Unlike any other's, also when a letter of it is damaged."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:16].encode()


def mutant(chance: random.Random, number: int, to: Entrance) -> bytes:
    """A good request with one to four faults. It is known by its name wherever it arrives."""
    data = to.fill(chance.choice(SEEDS).replace(b"<case>", name_of(number)))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        lines = data.split(b"\r\n")
        which = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                data = data[:at] + to.fill(chance.choice(PIECES)) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 4) :]
            case 2:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 3:
                data = b"\r\n".join([*lines[:which], lines[which], *lines[which:]])
            case 4:
                chance.shuffle(lines)
                data = b"\r\n".join(lines)
            case _:
                data = data.replace(b"\r\n", chance.choice((b"\n", b"\r", b"\r\n ", b"\r\n\r\n")), 1)
    return data


@BOTH
@pytest.mark.gen_test(timeout=110)
async def test_a_damaged_request_never_becomes_two_and_is_never_half_passed_on(
    database: Database, mode: IdeMode
) -> None:
    chance = random.Random(SEED)
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            to = await entrance(house, mode, app)
            mutants = [mutant(chance, number, to) for number in range(MUTANTS)]
            app.forget()
            got: list[list[int]] = []
            for first in range(0, MUTANTS, AT_ONCE):
                batch = mutants[first : first + AT_ONCE]
                got += await say_all(to, batch)
            await until_read(house, app)
            assert app.faults == []
            for seen in await check_health(to, app):
                check_seen(seen, to)
            for number, (sent, answered) in enumerate(zip(mutants, got, strict=True)):
                name = name_of(number)
                whole = [seen for seen in app.requests if name.decode() in str(seen)]
                assert len(whole) <= 1, (sent, whole)
                if 400 in answered[:1] and not re.search(rb"transfer-encoding", sent, re.IGNORECASE):
                    assert name not in app.received, (sent, answered)
            assert sum(answered[:1] == [400] for answered in got) > MUTANTS / 10
            assert sum(answered[:1] == [200] for answered in got) > MUTANTS / 50
