"""Viewers over real sockets, an agent over a real one, and a clock that the tests move."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from controlplane.auth.live import LiveConnections
from controlplane.auth.tickets import ConsoleTickets
from controlplane.instances import InstanceDirectory, Registration
from controlplane.models import AgentEndpoint, AuditEntry, ConsoleTicket, InstanceKind
from controlplane.observability.audit import AuditTrail
from controlplane.observability.metrics import Metrics
from controlplane.proxying import websocket
from controlplane.proxying.console_channel import REPLAY_SECONDS
from controlplane.proxying.console_hub import ConsoleHub
from controlplane.proxying.frames import PING, Frame
from controlplane.proxying.upgrade import open_websocket
from controlplane.proxying.websocket import WebSocket
from controlplane.secretbox import SecretBox
from tests.account_house import AccountHouse
from tests.console_agent import ConsoleAgent
from tests.fake_repositories import FakeInstanceRepository

TLS = ssl.create_default_context()


class Tickets:
    """None are issued here."""

    async def add(self, ticket: ConsoleTicket) -> None:
        raise AssertionError(ticket)

    async def consume(self, ticket_hash: str, now: object) -> None:
        return None


class AuditRows:
    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def add(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


class Client(WebSocket):
    """A viewer's browser. `answers_pings` false makes it one whose network is gone."""

    def __init__(self) -> None:
        super().__init__(is_client=True, message_limit_bytes=8 << 20)
        self.events: list[dict[str, Any]] = []
        self.pinged = 0
        self.answers_pings = True
        self.code: int | None = None
        self._news = asyncio.Event()

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        self.events.append(orjson.loads(message))
        self._news.set()

    def _take_control(self, frame: Frame) -> None:
        if frame.opcode == PING:
            self.pinged += 1
            self._news.set()
            if not self.answers_pings:
                return
        super()._take_control(frame)

    def closed(self, code: int) -> None:
        self.code = code
        self._news.set()

    def tell(self, event: str, **fields: Any) -> None:
        self.send_text(orjson.dumps({"event": event, **fields}))

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(30):
            while not (answer := condition()):
                self._news.clear()
                await self._news.wait()
        return answer

    async def named(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first such event, from now on or earlier."""
        wanted = {"event": name, **fields}.items()
        found: dict[str, Any]
        found = await self.until(lambda: next((event for event in self.events if wanted <= event.items()), None))
        return found

    async def ended(self) -> int:
        return int(await self.until(lambda: self.code))


def was_pinged(client: Client, times: int) -> bool:
    return client.pinged == times


def has_printed(client: Client, start: str) -> bool:
    return any(event.get("data", "").startswith(start) for event in client.events)


async def eventually(condition: Callable[[], Any]) -> None:
    """For what happens on the hub's side, of which no client hears."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the hub has no event for it
            await asyncio.sleep(0.002)


class House:
    """`async with` it, together with an agent."""

    def __init__(self, endpoint: AgentEndpoint, **limits: Any) -> None:
        self.accounts = AccountHouse()
        self.clock = self.accounts.clock
        self._endpoint = endpoint
        self._clients: list[Client] = []
        self._upstreams: list[WebSocket] = []
        metrics = Metrics()
        authenticator = self.accounts.authenticator
        self.directory = InstanceDirectory(
            FakeInstanceRepository(),
            self.accounts.users,
            SecretBox(bytes(32)),
            self.clock,
            check_address=lambda _address: None,
        )
        self.audit = AuditRows()
        self.trail = AuditTrail(self.audit, self.clock, metrics.audit_dropped)
        self.hub = ConsoleHub(
            directory=self.directory,
            authenticator=authenticator,
            live=LiveConnections(authenticator),
            tickets=ConsoleTickets(Tickets(), authenticator, self.clock),
            audit=self.trail,
            clock=self.clock,
            metrics=metrics,
            dial=self._dial,
            **limits,
        )

    async def _dial(self, endpoint: AgentEndpoint, make: Callable[[], WebSocket]) -> WebSocket:
        upstream = await open_websocket(
            endpoint, "/console/stream", make, check_dial=lambda _: None, tls=TLS, timeout_seconds=30
        )
        self._upstreams.append(upstream)
        return upstream

    async def __aenter__(self) -> House:
        user = await self.accounts.user()
        self.instance = await self.directory.register(
            Registration(
                InstanceKind.GAME, "Oakvale", 100, self._endpoint.address, self._endpoint.port, "t" * 16, user.id
            )
        )
        new_viewer = partial(
            self.hub.new_viewer,
            InstanceKind.GAME,
            self.instance.id,
            request_id="r",
            address="192.0.2.1",
            compressed=False,
        )
        self._server = await asyncio.get_running_loop().create_server(new_viewer, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.abort()
            await client.ended()
        await self.hub.close()
        for upstream in self._upstreams:
            upstream.abort()
        for _turn in range(5):  # transports close their sockets a turn or two later
            await asyncio.sleep(0)
        self._server.close()
        await self._server.wait_closed()

    async def stranger(self, *, receive_bytes: int | None = None) -> Client:
        """Connected, and nothing said."""
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, self._server.sockets[0].getsockname())
        _, client = await loop.create_connection(Client, sock=connection)
        self._clients.append(client)
        return client

    async def token(self) -> str:
        return (await self.accounts.login()).access_token

    async def viewer(self, token: str | None = None, *, receive_bytes: int | None = None) -> Client:
        """Told hello, and that the agent is connected."""
        client = await self.stranger(receive_bytes=receive_bytes)
        client.tell("auth", token=token or await self.token())
        await client.named("hello")
        await client.named("state", connected=True)
        return client

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.hub.run_once()


@pytest.fixture
def nobody() -> Iterator[AgentEndpoint]:
    """Where nothing listens, nor will: the port stays taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield AgentEndpoint("127.0.0.1", taken.getsockname()[1], "t" * 16)


@asynccontextmanager
async def open_house(**limits: int) -> AsyncIterator[tuple[House, ConsoleAgent]]:
    async with ConsoleAgent() as agent, House(agent.endpoint, **limits) as house:
        yield house, agent


@pytest.mark.gen_test
async def test_who_says_nothing_for_ten_seconds_is_sent_away() -> None:
    async with open_house() as (house, agent):
        client = await house.stranger()
        await eventually(lambda: [viewer.is_open for viewer in house.hub._viewers] == [True])
        await house.pass_time(9)
        assert client.code is None
        await house.pass_time(1)
        assert await client.ended() == 4401
        assert agent.opened == 0


@pytest.mark.gen_test
async def test_a_viewer_is_warned_a_minute_before_its_token_expires_and_closed_when_it_has() -> None:
    async with open_house() as (house, _):
        client = await house.viewer()
        await house.pass_time(839)
        client.tell("dance")
        await client.named("error")
        assert not [event for event in client.events if event["event"] == "tokenExpiring"]
        await house.pass_time(1)
        assert (await client.named("tokenExpiring"))["expiresInSeconds"] == 60
        await house.pass_time(59)
        assert client.is_open
        await house.pass_time(1)
        assert await client.ended() == 4401


@pytest.mark.gen_test
async def test_a_renewed_viewer_outlives_its_first_token_on_the_same_socket_and_is_warned_anew() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        await house.pass_time(850)
        await client.named("tokenExpiring")
        client.tell("auth", token=await house.token())
        client.tell("command", id=1, command="still the same socket")  # taken in order, behind the renewal
        await client.named("commandAck", id=1, accepted=True)
        client.events.clear()
        await house.pass_time(100)
        agent.print("behind the first token's end")
        await client.named("output", data="behind the first token's end")
        await house.pass_time(740)
        await client.named("tokenExpiring")
        await house.pass_time(60)
        assert await client.ended() == 4401
        assert agent.opened == 1


@pytest.mark.gen_test
async def test_viewers_are_pinged_and_one_that_answers_nothing_is_cut_off() -> None:
    async with open_house() as (house, _):
        here, away = await house.viewer(), await house.viewer()
        away.answers_pings = False
        for number in range(1, 4):
            await house.pass_time(20)
            await here.until(partial(was_pinged, here, number))
            await away.until(partial(was_pinged, away, number))
            await eventually(lambda: [viewer.pings for viewer in house.hub._viewers].count(0) == 1)
        await house.pass_time(20)
        assert await away.ended() == 1006
        assert here.is_open


@pytest.mark.gen_test
async def test_a_viewers_own_ping_is_answered() -> None:
    async with open_house() as (house, _):
        client = await house.viewer()
        client.ping()
        client.tell("dance")
        await client.named("error")
        assert client.pings == 0


@pytest.mark.gen_test
async def test_an_agent_that_is_slow_to_repeat_its_scrollback_does_not_show_it_twice() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        agent.print("one\ntwo")
        await client.named("output")
        client.events.clear()
        agent.streams[0].abort()
        await client.named("state", connected=False)
        await client.named("state", connected=True)
        loop = asyncio.get_running_loop()
        late = loop.time() + 2 * REPLAY_SECONDS
        await eventually(lambda: loop.time() >= late)
        agent.print("one\ntwo")
        agent.print("three")
        assert (await client.named("output"))["data"] == "three"


@pytest.mark.gen_test
async def test_an_agent_that_answers_no_pings_is_given_up_told_and_dialled_again() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        agent.is_deaf = True
        for _ in range(3):
            await house.pass_time(20)
            await eventually(lambda: [viewer.pings for viewer in house.hub._viewers] == [0])
        assert agent.opened == 1
        agent.is_deaf = False  # in time for the next connection, too late for this one
        client.events.clear()
        await house.pass_time(20)
        told = await client.named("state", connected=False)
        assert told["reason"] == "console_closed"
        assert told["retryInSeconds"] > 0
        await client.named("state", connected=True)
        assert agent.opened == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x81\x7e\x10\x00half a frame",
        b"\x81\x7f" + (5 << 30).to_bytes(8, "big") + b"x" * 1000,
        b"\x83\x00",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"\x88\x02\x03\xe8",
    ],
)
@pytest.mark.gen_test
async def test_an_agent_that_breaks_off_in_a_frame_or_breaks_the_protocol_is_told_and_dialled_again(
    garbage: bytes,
) -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        client.events.clear()
        transport = agent.streams[0].transport
        assert transport is not None
        transport.write(garbage)
        transport.close()
        assert (await client.named("state", connected=False))["reason"] == "console_closed"
        await client.named("state", connected=True)
        agent.print("again")
        await client.named("output", data="again")
        assert client.is_open


@pytest.mark.gen_test
async def test_output_that_is_no_text_is_shown_with_what_could_not_be_read_marked() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        agent.streams[0].send_text(b"caf\xe9 \x00\x1b[31m")
        assert (await client.named("output"))["data"] == "caf\ufffd \x00\x1b[31m"


@pytest.mark.gen_test
async def test_an_agent_that_stays_away_for_two_minutes_sends_its_viewers_away(nobody: AgentEndpoint) -> None:
    async with House(nobody) as house:
        client = await house.stranger()
        client.tell("auth", token=await house.token())
        await client.named("state", connected=False, reason="agent_unreachable")
        house.clock.advance(119)
        client.events.clear()
        house.hub._channels[house.instance.id].retry_now()
        await client.named("state", connected=False, reason="agent_unreachable")
        assert client.code is None
        house.clock.advance(1)
        house.hub._channels[house.instance.id].retry_now()
        assert await client.ended() == 1013


@pytest.mark.gen_test
async def test_a_viewer_that_reads_nothing_for_half_a_minute_is_closed_as_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 60.0)  # what it did not read comes before the code
    async with open_house() as (house, agent):
        slow, fast = await house.viewer(receive_bytes=4096), await house.viewer()
        assert slow.transport is not None
        slow.transport.pause_reading()
        printed = 0
        while not any(viewer.is_congested for viewer in house.hub._viewers):
            agent.print(f"{printed} " + "x" * 50_000)
            await fast.until(partial(has_printed, fast, f"{printed} "))
            printed += 1
        await house.pass_time(29)
        assert all(viewer.is_open for viewer in house.hub._viewers)
        await house.pass_time(1)
        slow.transport.resume_reading()
        assert await slow.ended() == 4408
        assert fast.is_open
        assert agent.streams[0].congestions == 0


@pytest.mark.gen_test
async def test_the_viewers_of_a_console_and_of_an_account_are_limited() -> None:
    for limits in ({"viewers_per_instance": 2}, {"viewers_per_user": 2}):
        async with open_house(**limits) as (house, _):
            first, _ = await house.viewer(), await house.viewer()
            third = await house.stranger()
            third.tell("auth", token=await house.token())
            assert await third.ended() == 4429
            first.close(1000)
            await first.ended()
            await eventually(lambda: len(house.hub._viewers) == 1)
            await house.viewer()


@pytest.mark.gen_test
async def test_a_console_that_nobody_watches_is_kept_for_a_reload_and_then_closed() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        client.close(1000)
        await client.ended()
        await eventually(lambda: not house.hub._viewers)
        await house.pass_time(29)
        assert len(agent.streams) == 1
        await house.pass_time(1)
        assert house.hub._channels == {}


@pytest.mark.gen_test
async def test_every_command_is_audited_without_its_text() -> None:
    async with open_house() as (house, agent):
        client = await house.viewer()
        client.tell("command", id="a", command="say the password")
        await client.named("output", data="say the password")
        await house.trail.flush()
        (entry,) = house.audit.entries
        assert (entry.action, entry.subject) == ("instance.console_command", house.instance.id)
        assert "password" not in repr(entry)
        assert agent.streams[0].lines == ["say the password"]
