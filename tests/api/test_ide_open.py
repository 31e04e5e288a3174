"""Opening an IDE: a token, a cookie, a redirect without the token, and then the app, by path and by host."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import App, Got, IdeHouse, echo

BOTH = pytest.mark.parametrize("mode", list(IdeMode))
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_token_is_exchanged_for_a_cookie_that_opens_the_app(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        token = await ide.token(mode)
        got = await ide.ask(mode, f"/some/page?folder=%2Fhome&ide_token={token}&x=1", headers=NAVIGATION)
        assert got.status == 303
        assert got.value("Location") == ide.prefix(mode) + "/some/page?folder=%2Fhome&x=1"
        assert got.value("Cache-Control") == "no-store"
        assert got.value("Referrer-Policy") == "no-referrer"
        assert ide.app.seen == []
        cookie = got.value("Set-Cookie").partition(";")[0]
        got = await ide.ask(mode, "/some/page?folder=%2Fhome&x=1", cookie=cookie)
        assert (got.status, got.body) == (200, b"ok")
        assert ide.app.seen[0].line == "GET /some/page?folder=%2Fhome&x=1 HTTP/1.1"


@BOTH
@pytest.mark.gen_test(timeout=60)
async def test_a_websocket_is_spliced_to_the_app(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database, App(answering=echo)) as ide:
        wire, got = await ide.websocket(mode, cookie=await ide.cookie(mode))
        assert got.status == 101
        assert got.value("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        sent = bytes(range(256)) * 20_000
        sending = asyncio.create_task(wire.send(sent))
        assert await wire.reader.readexactly(len(sent)) == sent
        await sending
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_path_may_name_the_instance_by_its_vmid(database: Database) -> None:
    async with IdeHouse(database) as ide:

        async def ask(path: str, *fields: str) -> Got:
            wire = await ide.connect()
            lines = (f"GET /__ide/201/{path} HTTP/1.1", f"Host: {ide.host(IdeMode.PATH)}", *fields, "", "")
            await wire.send("\r\n".join(lines).encode())
            got = await wire.answer()
            wire.close()
            return got

        got = await ask(f"?ide_token={await ide.token(IdeMode.PATH)}")
        assert (got.status, got.value("Location")) == (303, "/__ide/201/")
        assert "Path=/__ide/201/;" in got.value("Set-Cookie")
        cookie = got.value("Set-Cookie").partition(";")[0]
        assert (await ask("x", f"Cookie: {cookie}")).body == b"ok"
        assert ide.app.seen[-1].line == "GET /x HTTP/1.1"
        assert ide.app.seen[-1].values("X-Forwarded-Prefix") == ["/__ide/201"]
