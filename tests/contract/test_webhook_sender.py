"""The sender of webhooks against real sockets: what it sends, and what it does not let a receiver do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from controlplane.errors import Unavailable
from controlplane.publishing.sender import ANSWER_LIMIT_BYTES, CurlWebhookSender

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def receiver(answering: Answering) -> AsyncIterator[str]:
    under_way: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        with suppress(ConnectionError):
            await answering(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        under_way.discard(task)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in?x=1"
    finally:
        server.close()
        await asyncio.gather(*under_way)  # what is still open when the loop ends is an error of some later test


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.mark.gen_test
async def test_the_body_and_the_headers_arrive_and_the_status_comes_back() -> None:
    seen: list[bytes] = []

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head_of(reader))
        seen.append(await reader.readexactly(len(b'{"type":"x"}')))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    sender = CurlWebhookSender()
    async with receiver(answering) as url:
        assert await sender.post(url, {"webhook-id": "evt_1"}, b'{"type":"x"}') == 202
    sender.close()
    head, body = seen
    assert head.startswith(b"POST /in?x=1 HTTP/1.1\r\n")
    assert b"webhook-id: evt_1\r\n" in head.lower()
    assert b"content-type: application/json\r\n" in head.lower()
    assert body == b'{"type":"x"}'


@pytest.mark.gen_test
async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    asked = 0

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await head_of(reader)
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    sender = CurlWebhookSender()
    async with receiver(answering) as url:
        assert await sender.post(url, {}, b"{}") == 307
    sender.close()
    assert asked == 1


@pytest.mark.gen_test
async def test_no_listener_silence_and_a_reset_are_said_as_unavailable() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def closing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await head_of(reader)

    sender = CurlWebhookSender(timeout_seconds=0.3)
    for answering in (silent, closing):
        async with receiver(answering) as url:
            with pytest.raises(Unavailable, match="could not be reached"):
                await sender.post(url, {}, b"{}")
    with pytest.raises(Unavailable, match="could not be reached"):
        await sender.post("http://127.0.0.1:9/in", {}, b"{}")
    sender.close()


@pytest.mark.gen_test
async def test_an_answer_without_end_is_cut_at_the_bound() -> None:
    written = 0

    async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n")
        while written < 1024 * ANSWER_LIMIT_BYTES:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    sender = CurlWebhookSender()
    async with receiver(flooding) as url:
        with pytest.raises(Unavailable, match="more than"):
            await sender.post(url, {}, b"{}")
    sender.close()
    assert written < 1024 * ANSWER_LIMIT_BYTES
