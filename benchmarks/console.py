"""Consoles: round trip, fan-out to many viewers, a flood beside others, idle memory: `python -m benchmarks.console`.

Agents, control plane and viewers are three processes on this machine. An agent is a socket that echoes what it is sent,
or prints so many lines a second, a frame each; the control plane is the real one, on its embedded database.
"""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import multiprocessing.connection
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from typing import cast

import orjson
import psutil
import uvloop

from benchmarks import plane
from controlplane.models import AgentEndpoint
from controlplane.proxying import console_viewer
from controlplane.proxying.frames import TEXT, build_frame
from controlplane.proxying.upgrade import open_websocket
from controlplane.proxying.websocket import WebSocket
from tests.console_agent import ConsoleAgent, Stream

ROUND_TRIPS = 2_000
FAN_OUT_SECONDS = 8.0
LINES_A_SECOND = 1_000
FLOODS = (20_000, 200_000)
FLOOD_TRIPS = 500
FLOOD_FRAME = build_frame(TEXT, b"[12:00:00] [Server thread/INFO]: a line as games print them")
IDLE_VIEWERS = 5_000
GREETING_BYTES = 300
"""More than the handshake's answer, less than that and `hello` together."""

TLS = ssl.create_default_context()


class PrintingAgent(ConsoleAgent):
    """Echoes; `print N` makes it print N lines a second, each with the moment it was printed; `flood N` N bare ones."""

    def __init__(self) -> None:
        super().__init__()
        self._printer: asyncio.Task[None] | None = None

    def said(self, stream: Stream, message: bytes) -> None:
        verb, _, rest = message.partition(b" ")
        loop = asyncio.get_running_loop()
        if verb == b"print":
            self._printer = loop.create_task(_print(int(rest), lambda count: _stamped(stream, count)))
        elif verb == b"flood":
            self._printer = loop.create_task(_print(int(rest), lambda count: stream.send_frame(count * FLOOD_FRAME)))
        elif message == b"hush" and self._printer is not None:
            self._printer.cancel()
        else:
            super().said(stream, message)


async def _print(lines_a_second: int, send: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    began, printed = loop.time(), 0
    while True:
        due = int((loop.time() - began) * lines_a_second)
        send(due - printed)
        printed = due
        await asyncio.sleep(0.001)


def _stamped(stream: Stream, count: int) -> None:
    for _ in range(count):
        stream.send_text(b"%.6f the quick brown fox jumps over the lazy dog, and again" % time.time())


def serve_agent(pipe: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        async with PrintingAgent() as quiet, PrintingAgent() as loud:
            pipe.send([quiet.port, loud.port])
            await asyncio.to_thread(pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def serve_plane(pipe: multiprocessing.connection.Connection, folder: str, agent_ports: list[int]) -> None:
    # One person sends five commands a second at most; here thousands of round trips are wanted.
    console_viewer.MESSAGES_PER_SECOND = console_viewer.MESSAGE_BURST = 1e9
    console_viewer.COMMANDS_PER_SECOND = console_viewer.COMMAND_BURST = 1e9
    plane.serve(pipe, folder, agent_ports)


class Client(WebSocket):
    """Hands every message to `on_message`."""

    __slots__ = ("on_message", "stream_id")

    def __init__(self) -> None:
        super().__init__(is_client=True, message_limit_bytes=8 << 20)
        self.stream_id = ""
        self.on_message: Callable[[bytes], None] = lambda message: None

    def message_received(self, message: bytes, *, is_text: bool) -> None:
        self.on_message(message)


class Viewer(asyncio.Protocol):
    """As cheap a reader as can be: counts bytes. The handshake's answer and `hello` are in the count."""

    __slots__ = ("_auth", "_greeting", "greeted", "received", "transport")

    def __init__(self, greeting: bytes, auth: bytes) -> None:
        self._greeting = greeting
        self._auth = auth
        self.greeted = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.transport.write(self._auth)
        self.received += len(data)
        if self.received > GREETING_BYTES and not self.greeted.done():
            self.greeted.set_result(None)


async def open_client(port: int, target: str, token: str) -> Client:
    endpoint = AgentEndpoint("127.0.0.1", port, token)
    return await open_websocket(endpoint, target, Client, check_dial=lambda _address: None, tls=TLS, timeout_seconds=10)


async def through_hub(port: int, target: str, token: str) -> Client:
    """Authenticated, told that the agent is connected, behind the scrollback."""
    client = await open_client(port, target, token)
    connected = asyncio.get_running_loop().create_future()

    def see(message: bytes) -> None:
        event = orjson.loads(message)
        if event["event"] == "hello":
            client.stream_id = event["streamId"]
            client.send_text(orjson.dumps({"event": "resume", "streamId": event["streamId"], "afterSeq": 1 << 40}))
        elif event["event"] == "state" and event["connected"] and not connected.done():
            connected.set_result(None)

    client.on_message = see
    client.send_text(orjson.dumps({"event": "auth", "token": token}))
    await asyncio.wait_for(connected, 10)
    return client


async def round_trips(
    client: Client, count: int, wrap: Callable[[int], bytes], is_answer: Callable[[bytes, int], bool]
) -> list[float]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    waiting: asyncio.Future[None] = loop.create_future()
    number = 0

    def see(message: bytes) -> None:
        if is_answer(message, number) and not waiting.done():
            waiting.set_result(None)

    client.on_message = see
    for number in range(count):
        waiting = loop.create_future()
        began = time.perf_counter()
        client.send_text(wrap(number))
        await waiting
        times.append(time.perf_counter() - began)
    return sorted(times)


async def hub_round_trips(client: Client, count: int) -> list[float]:
    return await round_trips(
        client,
        count,
        lambda number: orjson.dumps({"event": "command", "id": number, "command": f"line {number}."}),
        lambda message, number: b'"output"' in message and b"line %d." % number in message,
    )


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(*seconds: float) -> str:
    return "".join(f"{1000 * each:9.3f} ms" for each in seconds)


async def measure_round_trip(agent_port: int, hub: Client) -> None:
    """A line to the agent and its echo back, direct and through the hub."""
    print(f"{'round trip':<22}{'p50':>12}{'p99':>12}")
    direct = await open_client(agent_port, "/console/stream", plane.AGENT_TOKEN)
    for name, times in (
        ("direct", await round_trips(direct, ROUND_TRIPS, lambda number: b"%d" % number, lambda message, _: True)),
        ("through the hub", await hub_round_trips(hub, ROUND_TRIPS)),
    ):
        print(f"{name:<22}{milliseconds(percentile(times, 0.5), percentile(times, 0.99))}")
    direct.close(1000)


async def connect_viewers(port: int, target: str, token: str, count: int, stream_id: str = "") -> list[Viewer]:
    """They go on behind the scrollback where they are given the stream's id: a megabyte each is another matter."""
    key = base64.b64encode(os.urandom(16)).decode()
    greeting = (
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()
    auth = build_frame(TEXT, orjson.dumps({"event": "auth", "token": token}), key=b"\1\2\3\4")
    if stream_id:
        resume = orjson.dumps({"event": "resume", "streamId": stream_id, "afterSeq": 1 << 40})
        auth += build_frame(TEXT, resume, key=b"\1\2\3\4")
    loop = asyncio.get_running_loop()
    viewers: list[Viewer] = []
    for begin in range(0, count, 50):
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda: Viewer(greeting, auth), "127.0.0.1", port)
                for _ in range(min(50, count - begin))
            )
        )
        viewers += [viewer for _, viewer in made]
        await asyncio.gather(*(viewer.greeted for viewer in viewers[begin:]))
    return viewers


async def measure_fan_out(port: int, target: str, token: str, process: psutil.Process, count: int) -> None:
    hub = await through_hub(port, target, token)
    lags: list[float] = []
    lines = 0

    def see(message: bytes) -> None:
        nonlocal lines
        if b'"output"' not in message:
            return
        now = time.time()
        for line in orjson.loads(message)["data"].split("\n"):
            if line[:1].isdigit():  # else an echo
                lines += 1
                lags.append(now - float(line[:17]))

    viewers = await connect_viewers(port, target, token, count - 1, hub.stream_id)
    hub.on_message = see
    hub.send_text(orjson.dumps({"event": "command", "id": 1, "command": f"print {LINES_A_SECOND}"}))
    await asyncio.sleep(1)
    before = [viewer.received for viewer in viewers]
    lags.clear()
    lines = 0
    cpu, began = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(FAN_OUT_SECONDS)
    took = time.perf_counter() - began
    used = (sum(process.cpu_times()[:2]) - cpu) / took
    received = sorted(viewer.received - start for viewer, start in zip(viewers, before, strict=True))
    hub.send_text(orjson.dumps({"event": "command", "id": 2, "command": "hush"}))
    lags.sort()
    print(
        f"{count:>8,}{lines / took:>10.0f}{used:>10.0%}{1000 * lags[len(lags) // 2]:>9.1f} ms"
        f"{1000 * lags[int(len(lags) * 0.99)]:>9.1f} ms{received[0] / received[-1]:>14.3f}"
    )
    for viewer in viewers:
        viewer.transport.abort()
    hub.close(1000)
    await asyncio.sleep(1)


async def measure_flood(hub: Client, loud: Client, pipe: multiprocessing.connection.Connection, lines: int) -> None:
    """Round trips on one console while another's agent prints far more than anybody reads."""
    seen: list[int] = []
    loud.on_message = lambda message: seen.append(message.count(b"\\n") + 1 if b'"output"' in message else 0)
    if lines:
        loud.send_text(orjson.dumps({"event": "command", "id": 1, "command": f"flood {lines}"}))
    await asyncio.sleep(1)
    ask(pipe)
    seen.clear()
    began = time.perf_counter()
    times = await hub_round_trips(hub, FLOOD_TRIPS)
    took = time.perf_counter() - began
    lags = sorted(ask(pipe))
    if lines:
        loud.send_text(orjson.dumps({"event": "command", "id": 2, "command": "hush"}))
    print(
        f"{lines:>10,}{sum(seen) / took:>12,.0f}{milliseconds(percentile(times, 0.5), percentile(times, 0.99))}"
        f"{milliseconds(percentile(lags, 0.5), percentile(lags, 0.99), lags[-1])}"
    )
    await asyncio.sleep(1)


def ask(pipe: multiprocessing.connection.Connection) -> list[float]:
    """The lags of the control plane's loop since the last time."""
    pipe.send("lags")
    lags: list[float] = pipe.recv()
    return lags


async def measure_idle(port: int, target: str, token: str, process: psutil.Process) -> None:
    warm = await connect_viewers(port, target, token, 200)
    for viewer in warm:
        viewer.transport.abort()
    await asyncio.sleep(1)
    before = process.memory_info().rss
    viewers = await connect_viewers(port, target, token, IDLE_VIEWERS)
    await asyncio.sleep(2)
    grown = process.memory_info().rss - before
    print(f"{IDLE_VIEWERS:,} idle viewers: {grown / IDLE_VIEWERS / 1024:.1f} KiB each")
    for viewer in viewers:
        viewer.transport.abort()
    await asyncio.sleep(2)


async def measure(
    agent_port: int, serving: plane.Plane, process: psutil.Process, pipe: multiprocessing.connection.Connection
) -> None:
    port, token = serving.port, serving.access_token
    quiet, noisy = (f"/api/game/servers/{each}/console" for each in serving.instances)
    await measure_idle(port, quiet, token, process)  # first, while no memory that others gave back can be used again
    print()
    hub, loud = await through_hub(port, quiet, token), await through_hub(port, noisy, token)
    await measure_round_trip(agent_port, hub)
    print(
        f"\n{'flood/s':>10}{'shown/s':>12}{'trip p50':>12}{'trip p99':>12}{'lag p50':>12}{'lag p99':>12}{'lag max':>12}"
    )
    for lines in (0, *FLOODS):
        await measure_flood(hub, loud, pipe, lines)
    loud.close(1000)
    hub.close(1000)
    print(f"\n{'viewers':>8}{'lines/s':>10}{'of a core':>10}{'p50':>12}{'p99':>12}{'least/most':>14}")
    for count in (10, 100, 1_000):
        await measure_fan_out(port, quiet, token, process, count)


def main() -> None:
    plane.allow_many_files()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        agent_pipe, its_end = context.Pipe()
        agent_process = context.Process(target=serve_agent, args=(its_end,))
        agent_process.start()
        agent_ports = agent_pipe.recv()
        plane_pipe, its_end = context.Pipe()
        plane_process = context.Process(target=serve_plane, args=(its_end, folder, agent_ports))
        plane_process.start()
        serving = plane_pipe.recv()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(agent_ports[0], serving, psutil.Process(plane_process.pid), plane_pipe))
        finally:
            plane_pipe.send(None)
            plane_process.join()
            agent_pipe.send(None)
            agent_process.join()


if __name__ == "__main__":
    main()
