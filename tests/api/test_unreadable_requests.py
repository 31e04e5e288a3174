"""Requests that break off in what cannot be read: told once, in the envelope, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import App, IdeHouse, Seen, Wire
from tests.raw_web_app import RawWebApp
from tests.refagent_process import until
from tests.smuggling_cases import CASES, CHUNKS, LINES, Case, Outcome

HOST = IdeMode.HOST
WRONG = tuple(case for case in CASES if case.outcome is not Outcome.LEGAL)
HEAD_CODES = {400: {"malformed_request", "request_refused"}, 421: {"misdirected_request"}, 431: {"headers_too_large"}}


async def told(wire: Wire) -> tuple[int, Any]:
    """Status and body of the one answer, with which the connection ends."""
    async with asyncio.timeout(20):
        got = await wire.answer()
        assert await wire.until_closed() == b""
    body = json.loads(got.body)
    assert set(body) == {"error", "code", "details", "requestId"}
    assert got.value("Connection") == "close"
    assert got.value("Content-Type") == "application/json; charset=utf-8"
    return got.status, body


async def ask(ide: IdeHouse, raw: bytes) -> tuple[int, Any]:
    wire = await ide.connect()
    await wire.send(raw)
    return await told(wire)


def for_the_api(ide: IdeHouse, case: Case, target: bytes = b"/api/auth/login") -> bytes:
    own = b"Host: 127.0.0.1:%d\r\nX-Request-Id: mine\r\nConnection: close\r\n" % ide.port
    raw = case.raw.replace(b"<base>page", target).replace(b"<base>", b"/").replace(b"<own>", own)
    return raw.replace(b"<host>", b"127.0.0.1:%d" % ide.port)


def for_the_ide(ide: IdeHouse, case: Case, mode: IdeMode, cookie: str) -> bytes:
    host = ide.host(mode).encode()
    own = b"Host: %b\r\nCookie: %b\r\nOrigin: http://%b\r\nX-Request-Id: mine\r\n" % (host, cookie.encode(), host)
    return case.raw.replace(b"<base>", f"{ide.prefix(mode)}/".encode()).replace(b"<own>", own).replace(b"<host>", host)


@pytest.mark.parametrize("mode", list(IdeMode))
@pytest.mark.gen_test(timeout=110)
async def test_an_ides_request_that_cannot_be_read_is_told_in_the_envelope(database: Database, mode: IdeMode) -> None:
    with RawWebApp() as app:
        async with IdeHouse(database) as ide:
            await ide.house.services.instances.update(ide.workshop.id, {"ide_port": app.port})
            cookie = await ide.cookie(mode)
            for case in WRONG:
                status, body = await ask(ide, for_the_ide(ide, case, mode, cookie))
                if case in CHUNKS:
                    assert (case.name, status, body["code"], body["requestId"]) == (
                        case.name, 400, "chunked_invalid", "mine",
                    )  # fmt: skip
                else:
                    assert body["code"] in HEAD_CODES[status], (case.name, body)


@pytest.mark.gen_test(timeout=110)
async def test_a_call_whose_chunks_cannot_be_read_is_told_in_the_envelope(database: Database) -> None:
    async with IdeHouse(database) as ide:
        for case in CHUNKS:
            status, body = await ask(ide, for_the_api(ide, case))
            found = (case.name, status, body["code"], body["requestId"])
            assert found == (case.name, 400, "chunked_invalid", "mine")
        await until(lambda: _true(ide.house.services.lifecycle.requests_under_way == 0))
        lines = (await ide.house.call("GET", "/metrics")).raw.decode().split("\n")
        counted = [line for line in lines if "auth/login" in line and 'status="400"' in line and "_total{" in line]
        assert [float(line.split(" ")[-1]) for line in counted] == [float(len(CHUNKS))]


async def _true(value: bool) -> bool:
    return value


@pytest.mark.gen_test(timeout=110)
async def test_whatever_is_sent_to_the_api_no_refusal_is_without_its_envelope(database: Database) -> None:
    async with IdeHouse(database) as ide:
        for case in WRONG:
            wire = await ide.connect()
            await wire.send(for_the_api(ide, case))
            async with asyncio.timeout(20):
                got = await wire.answer()
                wire.close()
            assert "code" in json.loads(got.body), (case.name, got)


@pytest.mark.gen_test(timeout=60)
async def test_a_head_that_is_none_is_told_without_a_request_id(database: Database) -> None:
    async with IdeHouse(database) as ide:
        unreadable = next(case for case in LINES if case.name == "request line: HTTP/0.9")
        status, body = await ask(ide, for_the_api(ide, unreadable))
        assert (status, body["code"], body["requestId"]) == (400, "malformed_request", None)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_framing_that_is_none_is_named(database: Database, framing: bytes) -> None:
    async with IdeHouse(database) as ide:
        head = b"POST /api/auth/login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%b\r\nhello" % (ide.port, framing)
        status, body = await ask(ide, head)
        assert (status, body["code"]) == (400, "framing_invalid")


@pytest.mark.parametrize("fault", [b"zz\r\n", b"5\r\nhelloX\r\n", b"5;" + b"x" * 100_000])
@pytest.mark.gen_test(timeout=60)
async def test_a_fault_half_way_to_the_app_lets_it_go_and_leaves_nothing(database: Database, fault: bytes) -> None:
    arrived = asyncio.Event()

    async def taking(_seen: Seen, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            arrived.set()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=taking)) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), "Transfer-Encoding": "chunked", "X-Request-Id": "mine"}
        await wire.send(ide.request(HOST, method="PUT", cookie=cookie, headers=headers) + b"5\r\nhello\r\n")
        await arrived.wait()
        await wire.send(fault)
        status, body = await told(wire)
        assert (status, body["code"], body["requestId"]) == (400, "chunked_invalid", "mine")
        services = ide.house.services

        async def let_go() -> bool:
            return not ide.app.open and not services.ide.upstreams._open and not services.lifecycle.requests_under_way

        await until(let_go)


@pytest.mark.gen_test(timeout=60)
async def test_a_fault_behind_the_beginning_of_an_answer_is_not_written_into_it(database: Database) -> None:
    async def streaming(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await reader.read()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=streaming)) as ide:
        cookie = await ide.cookie(HOST)
        wire = await ide.connect()
        headers = {"Origin": ide.origin(HOST), "Transfer-Encoding": "chunked"}
        await wire.send(ide.request(HOST, method="PUT", cookie=cookie, headers=headers) + b"5\r\nhello\r\n")
        assert (await wire.head()).status == 200
        assert await wire.reader.readexactly(9) == b"4\r\nhalf\r\n"
        await wire.send(b"zz\r\n")
        async with asyncio.timeout(20):
            assert await wire.until_closed() == b""

        async def let_go() -> bool:
            return not ide.app.open

        await until(let_go)
