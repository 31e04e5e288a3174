"""Any web app may stand on an IDE's port: one that shares nothing with code-server, without a framework, and picky."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import IdeHouse
from tests.raw_web_app import PAGE, RawWebApp

BOTH = pytest.mark.parametrize("mode", list(IdeMode))


async def moved_in(house: IdeHouse, app: RawWebApp, mode: IdeMode) -> str:
    """The cookie that opens the house's dev container, with this app on the IDE's port."""
    await house.house.services.instances.update(house.workshop.id, {"ide_port": app.port})
    return await house.cookie(mode)


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_answers_of_every_framing_arrive_whole(database: Database, mode: IdeMode) -> None:
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            cookie = await moved_in(house, app, mode)
            for path in ("/length", "/chunked", "/until-close"):
                got = await house.ask(mode, path, cookie=cookie)
                assert (got.status, got.body) == (200, PAGE), path
            assert (await house.ask(mode, "/length", cookie=cookie, method="HEAD")).body == b""
            assert app.faults == []


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_bodies_arrive_whole_however_they_are_framed(database: Database, mode: IdeMode) -> None:
    body = bytes(range(256)) * 4096
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            cookie = await moved_in(house, app, mode)
            origin = {"Origin": house.origin(mode)}
            await house.ask(mode, "/a", method="POST", cookie=cookie, headers=origin, body=body)
            wire = await house.connect()
            chunked = {**origin, "Transfer-Encoding": "chunked"}
            await wire.send(house.request(mode, "/b", method="PUT", cookie=cookie, headers=chunked))
            for at in range(0, len(body), 100_000):
                piece = body[at : at + 100_000]
                await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await wire.send(b"0\r\n\r\n")
            assert (await wire.answer()).status == 200
            wire.close()
            assert [(seen.method, seen.target, seen.body) for seen in app.requests] == [
                ("POST", "/a", body),
                ("PUT", "/b", body),
            ]


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_redirect_to_its_own_whole_address_stays_inside(database: Database, mode: IdeMode) -> None:
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            got = await house.ask(mode, "/absolute", cookie=await moved_in(house, app, mode))
            inside = house.prefix(mode) if mode is IdeMode.PATH else house.origin(mode)
            assert (got.status, got.value("Location")) == (301, f"{inside}/chunked?a=1")


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_its_websocket_takes_large_frames_and_ends_with_it(database: Database, mode: IdeMode) -> None:
    payload = bytes(range(256)) * (12 << 12)  # 12 MiB: more than proxies that read messages take
    frame = b"\x82\xff" + len(payload).to_bytes(8) + bytes(4) + payload
    with RawWebApp() as app:
        async with IdeHouse(database) as house:
            cookie = await moved_in(house, app, mode)
            wire, got = await house.websocket(mode, "/echo", cookie=cookie)
            assert (got.status, got.value("X-App")) == (101, "raw")
            sending = asyncio.create_task(wire.send(frame))
            echoed = await wire.reader.readexactly(10 + len(payload))
            await sending
            assert echoed == b"\x82\x7f" + len(payload).to_bytes(8) + payload
            await wire.send(b"\x88\x80" + bytes(4))
            assert await wire.until_closed() == b"\x88\x00"
            wire.close()
