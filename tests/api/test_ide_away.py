"""An IDE whose app is not there: people read why, and can start it; everything else is told plainly."""

from __future__ import annotations

import pytest

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.ide_house import IdeHouse

HOST = IdeMode.HOST
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}


@pytest.mark.parametrize("mode", list(IdeMode))
@pytest.mark.gen_test(timeout=60)
async def test_a_stopped_app_is_explained_and_can_be_started_from_the_page(database: Database, mode: IdeMode) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(mode)
        await ide.app.stop()
        ide.agent.codeserver = "stopped"
        got = await ide.ask(mode, "/?folder=x", cookie=cookie, headers=NAVIGATION)
        assert got.status == 503
        assert int(got.value("Retry-After")) > 0
        page = got.body.decode()
        assert "code-server is stopped" in page
        assert '<meta http-equiv="refresh"' in page
        start = ide.prefix(mode) + "/__controlplane/codeserver/start"
        assert f'<form method="post" action="{start}">' in page
        assert "script" not in page
        plain = await ide.ask(mode, "/x.js", cookie=cookie)
        assert (plain.status, plain.value("Content-Type")) == (503, "application/json; charset=utf-8")
        assert int(plain.value("Retry-After")) > 0

        path = "/__controlplane/codeserver/start"
        own = {"Origin": ide.origin(mode), "Sec-Fetch-Site": "same-origin"}
        for headers in (
            {},
            {"Origin": "null"},
            {"Origin": "http://dev-202.localhost"},
            {**own, "Sec-Fetch-Site": "same-site"},
        ):
            refused = await ide.ask(mode, path, method="POST", cookie=cookie, headers=headers)
            assert refused.status == 403, headers
        assert (await ide.ask(mode, path, method="POST", headers=own)).status == 401
        assert (await ide.ask(mode, path, cookie=cookie)).status == 404
        assert ide.agent.posts == []
        got = await ide.ask(mode, path, method="POST", cookie=cookie, headers=own)
        assert (got.status, got.value("Location")) == (303, ide.prefix(mode) + "/")
        assert ide.agent.posts == ["/dev/codeserver/start"]


@pytest.mark.parametrize(("state", "said"), [("running", "code-server is starting"), (None, "The IDE does not answer")])
@pytest.mark.gen_test(timeout=60)
async def test_the_page_says_what_the_agent_knows(database: Database, state: str | None, said: str) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(HOST)
        await ide.app.stop()
        ide.agent.codeserver = state
        page = (await ide.ask(HOST, cookie=cookie, headers=NAVIGATION)).body.decode()
        assert said in page
        assert ("<form" in page) is (state is None)


@pytest.mark.gen_test(timeout=60)
async def test_an_agent_that_is_away_too_is_named(database: Database) -> None:
    async with IdeHouse(database) as ide:
        cookie = await ide.cookie(HOST)
        await ide.app.stop()
        moved = await ide.house.services.instances.update(ide.workshop.id, {"port": 9})
        assert moved.port == 9
        page = (await ide.ask(HOST, cookie=cookie, headers=NAVIGATION)).body.decode()
        assert "workshop 201 cannot be reached" in page
        assert "<form" not in page


@pytest.mark.gen_test(timeout=60)
async def test_a_start_that_the_agent_refuses_is_told_in_its_own_words(database: Database) -> None:
    async with IdeHouse(database) as ide:
        ide.agent.refusal = "This agent was given no code-server."
        own = {"Origin": ide.origin(HOST), "Sec-Fetch-Site": "same-origin"}
        path = "/__controlplane/codeserver/start"
        got = await ide.ask(HOST, path, method="POST", cookie=await ide.cookie(HOST), headers=own)
        assert got.status == 404
        assert b"could not be started" in got.body
        assert b"This agent was given no code-server." in got.body
