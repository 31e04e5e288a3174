"""Whoever may no longer use an IDE loses it within seconds: requests, streams and open websockets, in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from controlplane.models import IdeMode, Suspension
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.database import Database
from tests.api_house import ApiHouse
from tests.billing_house import PLANS_FILE
from tests.billing_samples import account, subscribed
from tests.ide_house import App, IdeHouse, echo

HOST = IdeMode.HOST
WITHIN_SECONDS = 30.0
"""Seconds where the machine has time; a busy one may take its own."""

BILLING = {
    "STRIPE_SECRET_KEY": "sk_test_x",
    "STRIPE_WEBHOOK_SECRET": "whsec_x",
    "STRIPE_API_BASE": "http://127.0.0.1:9",  # nobody is there: what is stored decides
    "BILLING_PLANS_FILE": str(PLANS_FILE),
}

Ending = Callable[[ApiHouse, IdeHouse], Awaitable[object]]


async def logout(where: ApiHouse, ide: IdeHouse) -> object:
    return await where.call("POST", "/api/auth/logout", token=ide.house.ada_token)


async def suspend_user(where: ApiHouse, ide: IdeHouse) -> object:
    target = f"/api/admin/users/{ide.house.ada.id}/suspend"
    return await where.call("POST", target, {"reason": "x"}, token=ide.house.root_token)


async def suspend_instance(where: ApiHouse, ide: IdeHouse) -> object:
    suspension = Suspension("unpaid", where.services.clock.now())
    return await where.services.instances.set_suspension(ide.workshop.id, suspension)


async def give_away(where: ApiHouse, ide: IdeHouse) -> object:
    return await where.services.instances.update(ide.workshop.id, {"owner_id": ide.house.bob.id})


async def delete(where: ApiHouse, ide: IdeHouse) -> None:
    await where.services.instances.remove(ide.workshop.id)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("end", [logout, suspend_user, suspend_instance, give_away, delete])
@pytest.mark.gen_test(timeout=90)
async def test_an_ide_ends_with_what_allowed_it(database: Database, end: Ending, elsewhere: bool) -> None:
    async with IdeHouse(database, App(answering=echo)) as ide:
        cookie = await ide.cookie(HOST)
        socket, got = await ide.websocket(HOST, cookie=cookie)
        assert got.status == 101
        if elsewhere:
            async with ApiHouse(database) as other:
                await end(other, ide)
                async with asyncio.timeout(WITHIN_SECONDS):
                    assert await socket.until_closed() == b""
        else:
            await end(ide.house, ide)
            async with asyncio.timeout(WITHIN_SECONDS):
                assert await socket.until_closed() == b""
        before = len(ide.app.seen)
        assert (await ide.ask(HOST, cookie=cookie)).status == 401
        assert len(ide.app.seen) == before


@pytest.mark.gen_test(timeout=60)
async def test_a_stream_under_way_ends_too(database: Database) -> None:
    async def streaming(_seen: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await reader.read()
        raise asyncio.IncompleteReadError(b"", None)

    async with IdeHouse(database, App(answering=streaming)) as ide:
        wire = await ide.connect()
        await wire.send(ide.request(HOST, cookie=await ide.cookie(HOST)))
        await wire.head()
        await logout(ide.house, ide)
        async with asyncio.timeout(WITHIN_SECONDS):
            assert await wire.until_closed() == b"2\r\nhi\r\n"


@pytest.mark.gen_test(timeout=60)
async def test_a_suspension_that_is_lifted_does_not_bring_an_old_session_back(database: Database) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(HOST)
        token = await ide.token(HOST)
        await suspend_instance(ide.house, ide)
        await ide.house.services.ide.sessions.revalidate()
        await ide.house.services.instances.set_suspension(ide.workshop.id, None)
        assert (await ide.ask(HOST, cookie=cookie)).status == 401
        assert (await ide.ask(HOST, f"/?ide_token={token}")).status == 401


@pytest.mark.gen_test(timeout=60)
async def test_a_session_opens_in_another_process_too(database: Database) -> None:
    async with IdeHouse(database) as ide, ApiHouse(database, DEV_IDE_HOST_SUFFIX="localhost") as other:
        cookie = await ide.cookie(HOST)
        host = f"dev-{ide.workshop.vmid}.localhost:1"
        await other.services.instances.sync()
        answer = await other.call("GET", "/", headers={"Cookie": cookie, "Host": host})
        assert (answer.status, answer.raw) == (200, b"ok")


@pytest.mark.gen_test(timeout=90)
async def test_a_plan_that_has_no_ide_ends_what_is_open_and_another_opens_it_again(database: Database) -> None:
    """Whichever process wrote the account: here none of them did."""
    async with IdeHouse(database, App(answering=echo), BILLING) as ide:
        accounts = MongoBillingAccountRepository(database)
        builder = account(user_id=ide.house.ada.id, subscription=subscribed(plan_id="builder"))
        await accounts.put(builder)
        cookie = await ide.cookie(HOST)
        socket, got = await ide.websocket(HOST, cookie=cookie)
        assert got.status == 101
        await accounts.put(replace(builder, subscription=subscribed(plan_id="starter"), revision=2))
        async with asyncio.timeout(WITHIN_SECONDS):
            assert await socket.until_closed() == b""
        assert (await ide.ask(HOST, cookie=cookie)).status == 401
        await accounts.put(replace(builder, revision=3))
        socket, got = await ide.websocket(HOST, cookie=cookie)
        assert got.status == 101
        socket.close()
