"""Sessions of IDEs slide while they are used, end in any case, and are believed only while storage confirms them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from controlplane.auth.live import LiveConnections
from controlplane.errors import Conflict, StorageUnavailable, TooManyRequests, Unauthenticated
from controlplane.ide.sessions import CONNECTIONS_PER_SESSION, IdeSessions
from controlplane.ide.tokens import IdeTokens
from controlplane.instances import InstanceDirectory, Registration
from controlplane.models import (
    AgentState,
    Connection,
    Entitlement,
    IdeMode,
    IdeSession,
    IdeToken,
    Instance,
    InstanceKind,
    Principal,
    Role,
    Suspension,
)
from controlplane.rights import OwnerRights
from controlplane.secretbox import SecretBox
from tests.account_house import AccountHouse
from tests.fake_repositories import FakeInstanceRepository
from tests.fakes import FakeEntitlements

IDLE_SECONDS, MAX_SECONDS = 1000, 5000
WITH_IDE = Entitlement({}, 1024, 0, ide=True)
WITHOUT_IDE = Entitlement({}, 1024, 0, ide=False)


class FakeIdeRepository:
    """Tokens and sessions in dicts; `is_away` makes every call fail as an unreachable database does."""

    def __init__(self) -> None:
        self.tokens: dict[str, IdeToken] = {}
        self.sessions: dict[str, IdeSession] = {}
        self.extended = 0
        self.is_away = False

    def _reach(self) -> None:
        if self.is_away:
            raise StorageUnavailable

    async def get_many(self, cookie_hashes: Sequence[str]) -> dict[str, IdeSession]:
        self._reach()
        return {each: self.sessions[each] for each in cookie_hashes if each in self.sessions}

    async def extend(self, cookie_hashes: Sequence[str], idle_until: datetime) -> None:
        self._reach()
        self.extended += 1
        for each in cookie_hashes:
            self.sessions[each] = replace(self.sessions[each], idle_until=idle_until)

    async def remove_of_instance(self, instance_id: str) -> None:
        self._reach()
        self.sessions = {name: each for name, each in self.sessions.items() if each.instance_id != instance_id}

    async def add(self, opened: IdeToken | IdeSession) -> None:
        self._reach()
        if isinstance(opened, IdeToken):
            self.tokens[opened.token_hash] = opened
        else:
            self.sessions[opened.cookie_hash] = opened

    async def consume(self, token_hash: str, now: datetime) -> IdeToken | None:
        token = self.tokens.pop(token_hash, None)
        return token if token is not None and token.expires_at > now else None


class IdeDesk:
    """Ada, her dev container, and a session for it."""

    async def open(self) -> IdeDesk:
        self.house = AccountHouse()
        self.clock = self.house.clock
        self.ada = await self.house.user()
        self.rows = FakeIdeRepository()
        self.directory = InstanceDirectory(
            FakeInstanceRepository(), self.house.users, SecretBox(bytes(32)), self.clock, check_address=lambda _: None
        )
        self.instance = await self.directory.register(
            Registration(InstanceKind.DEV, "w", 201, "127.0.0.1", 1, "a-token-of-sixteen-x", self.ada.id)
        )
        self.live = LiveConnections(self.house.authenticator)
        self.connection = Connection.CONNECTED
        self.tokens = IdeTokens(
            self.rows,
            self.rows,
            self.house.authenticator,
            lambda instance_id: AgentState(instance_id, connection=self.connection),
            self.clock,
            token_seconds=60,
            idle_seconds=IDLE_SECONDS,
            max_seconds=MAX_SECONDS,
        )
        self.entitlements = FakeEntitlements(self.ada.id, WITH_IDE)
        self.sessions = self.another_process()
        self.principal = await self.house.authenticator.authenticate((await self.house.login()).access_token)
        self.secret = await self.cookie(self.principal)
        return self

    def another_process(self, *, remembered: int = 100) -> IdeSessions:
        return IdeSessions(
            self.rows,
            self.house.authenticator,
            self.live,
            self.directory,
            OwnerRights(self.entitlements),
            self.clock,
            idle_seconds=IDLE_SECONDS,
            remembered=remembered,
        )

    async def cookie(self, principal: Principal) -> str:
        issued = await self.tokens.issue(principal, self.instance, IdeMode.HOST)
        return await self.tokens.exchange(issued.secret, self.instance, IdeMode.HOST)

    async def is_open(self) -> bool:
        if self.sessions.find_cached([self.secret], "201", IdeMode.HOST) is not None:
            return True
        try:
            await self.sessions.find([self.secret], "201", IdeMode.HOST)
        except Unauthenticated:
            return False
        return True


class Ended:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.mark.gen_test
async def test_a_session_is_found_by_id_and_by_vmid_in_its_mode_alone() -> None:
    desk = await IdeDesk().open()
    for reference in ("201", desk.instance.id):
        await desk.sessions.find([desk.secret], reference, IdeMode.HOST)
        assert desk.sessions.find_cached(["other", desk.secret], reference, IdeMode.HOST) is not None
    for secrets, reference, mode in (
        ([desk.secret], "202", IdeMode.HOST),
        ([desk.secret], "201", IdeMode.PATH),
        (["x"], "201", IdeMode.HOST),
        (["x" * 10_000], "201", IdeMode.HOST),
        ([], "201", IdeMode.HOST),
    ):
        assert desk.sessions.find_cached(secrets, reference, mode) is None
        with pytest.raises(Unauthenticated):
            await desk.sessions.find(secrets, reference, mode)


@pytest.mark.gen_test
async def test_a_session_slides_while_it_is_used_and_ends_in_any_case() -> None:
    desk = await IdeDesk().open()
    for _ in range(MAX_SECONDS // 100 - 1):
        desk.clock.advance(100)
        assert await desk.is_open()
        await desk.sessions.revalidate()
    desk.clock.advance(100)
    assert not await desk.is_open()


@pytest.mark.gen_test
async def test_a_session_that_nobody_uses_ends() -> None:
    desk = await IdeDesk().open()
    assert await desk.is_open()
    for _ in range(IDLE_SECONDS // 10):
        desk.clock.advance(10)
        await desk.sessions.revalidate()
    assert not await desk.is_open()


@pytest.mark.gen_test
async def test_an_open_websocket_is_use_and_ends_with_the_absolute_end() -> None:
    desk = await IdeDesk().open()
    ended = Ended()
    (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
    for _ in range(MAX_SECONDS // 100 - 1):
        desk.clock.advance(100)
        await desk.sessions.revalidate()
    assert ended.times == 0
    desk.clock.advance(100)
    await desk.sessions.revalidate()
    await desk.sessions.revalidate()
    assert ended.times == 1


@pytest.mark.gen_test
async def test_the_idle_end_is_not_written_at_every_request() -> None:
    desk = await IdeDesk().open()
    for _ in range(100):
        desk.clock.advance(1)
        assert await desk.is_open()
        await desk.sessions.revalidate()
    assert desk.rows.extended == 1


@pytest.mark.gen_test
async def test_a_session_is_believed_while_storage_confirms_it_and_not_longer() -> None:
    desk = await IdeDesk().open()
    assert await desk.is_open()
    desk.rows.is_away = True
    desk.clock.advance(2)
    assert desk.sessions.find_cached([desk.secret], "201", IdeMode.HOST) is not None
    desk.clock.advance(2)
    assert desk.sessions.find_cached([desk.secret], "201", IdeMode.HOST) is None
    with pytest.raises(StorageUnavailable):
        await desk.sessions.find([desk.secret], "201", IdeMode.HOST)


@pytest.mark.gen_test
async def test_a_session_outlives_the_access_token_but_not_the_login() -> None:
    desk = await IdeDesk().open()
    ended = Ended()
    (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
    desk.clock.advance(950)  # access tokens last 900
    await desk.house.authenticator.revalidate()
    await desk.sessions.revalidate()
    assert ended.times == 0
    session_id = desk.principal.session_id or ""
    await desk.house.session_rows.revoke(session_id, at=desk.clock.now(), reason="elsewhere")
    await desk.sessions.revalidate()
    assert ended.times == 1
    assert not await desk.is_open()


@pytest.mark.gen_test
async def test_a_logout_here_is_felt_at_once() -> None:
    desk = await IdeDesk().open()
    ended, released = Ended(), Ended()
    grant = await desk.sessions.find([desk.secret], "201", IdeMode.HOST)
    grant.hold(ended)
    grant.hold(released)
    grant.release(released)
    desk.house.authenticator.evict_session(desk.principal.session_id or "")
    assert (ended.times, released.times) == (1, 0)
    assert desk.sessions.find_cached([desk.secret], "201", IdeMode.HOST) is None


@pytest.mark.gen_test
async def test_what_happens_to_the_instance_ends_its_sessions_at_once_and_for_good() -> None:
    async def suspend(desk: IdeDesk) -> Instance:
        await desk.directory.set_suspension(desk.instance.id, Suspension("x", desk.clock.now()))
        return await desk.directory.set_suspension(desk.instance.id, None)

    async def give_away_and_back(desk: IdeDesk) -> Instance:
        bob = await desk.house.user("bob@example.org")
        await desk.directory.update(desk.instance.id, {"owner_id": bob.id})
        return await desk.directory.update(desk.instance.id, {"owner_id": desk.ada.id})

    for change in (suspend, give_away_and_back):
        desk = await IdeDesk().open()
        ended = Ended()
        (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
        await change(desk)
        assert ended.times == 1
        await desk.sessions.revalidate()
        assert not await desk.is_open()


@pytest.mark.gen_test
async def test_a_change_of_the_name_ends_nothing() -> None:
    desk = await IdeDesk().open()
    ended = Ended()
    (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
    await desk.directory.update(desk.instance.id, {"name": "other"})
    await desk.sessions.revalidate()
    assert ended.times == 0
    assert await desk.is_open()


@pytest.mark.parametrize("entitlement", [WITHOUT_IDE, None])
@pytest.mark.gen_test
async def test_a_plan_without_an_ide_ends_what_is_open_until_there_is_another(entitlement: Entitlement | None) -> None:
    desk = await IdeDesk().open()
    ended = Ended()
    (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
    desk.entitlements.entitlement = entitlement
    await desk.sessions.review({"usr_other"})
    assert ended.times == 0
    await desk.sessions.review({desk.ada.id, "usr_other"})
    assert ended.times == 1
    assert not await desk.is_open()
    desk.entitlements.entitlement = WITH_IDE
    assert await desk.is_open()


@pytest.mark.gen_test
async def test_a_change_of_the_account_that_leaves_the_ide_ends_nothing() -> None:
    desk = await IdeDesk().open()
    ended = Ended()
    (await desk.sessions.find([desk.secret], "201", IdeMode.HOST)).hold(ended)
    await desk.sessions.review({desk.ada.id})
    assert ended.times == 0


@pytest.mark.gen_test
async def test_an_administrators_ide_is_open_whatever_the_owners_plan() -> None:
    desk = await IdeDesk().open()
    await desk.house.user("root@example.org", role=Role.ADMIN)
    login = await desk.house.login("root@example.org")
    desk.secret = await desk.cookie(await desk.house.authenticator.authenticate(login.access_token))
    desk.entitlements.entitlement = None
    assert await desk.is_open()
    await desk.sessions.review({desk.ada.id})
    assert await desk.is_open()


@pytest.mark.gen_test
async def test_connections_of_one_session_are_bounded() -> None:
    desk = await IdeDesk().open()
    grant = await desk.sessions.find([desk.secret], "201", IdeMode.HOST)
    for _ in range(CONNECTIONS_PER_SESSION):
        grant.hold(Ended())
    with pytest.raises(TooManyRequests):
        grant.hold(Ended())


@pytest.mark.gen_test
async def test_what_is_remembered_is_bounded_and_those_with_connections_stay() -> None:
    desk = await IdeDesk().open()
    sessions = desk.another_process(remembered=2)
    secrets = [desk.secret, *[await desk.cookie(desk.principal) for _ in range(3)]]
    (await sessions.find([secrets[0]], "201", IdeMode.HOST)).hold(Ended())
    for secret in secrets[1:]:
        await sessions.find([secret], "201", IdeMode.HOST)
    remembered = [sessions.find_cached([secret], "201", IdeMode.HOST) is not None for secret in secrets]
    assert remembered == [True, False, False, True]


@pytest.mark.gen_test
async def test_a_token_expires_and_is_not_issued_while_the_agent_is_away() -> None:
    desk = await IdeDesk().open()
    issued = await desk.tokens.issue(desk.principal, desk.instance, IdeMode.HOST)
    desk.clock.advance(60)
    with pytest.raises(Unauthenticated):
        await desk.tokens.exchange(issued.secret, desk.instance, IdeMode.HOST)
    for connection in (Connection.CONNECTING, Connection.DISCONNECTED):
        desk.connection = connection
        with pytest.raises(Conflict) as refused:
            await desk.tokens.issue(desk.principal, desk.instance, IdeMode.HOST)
        assert refused.value.stable_code == "instance_disconnected"


@pytest.mark.gen_test
async def test_nothing_that_opens_an_ide_is_kept_in_the_clear() -> None:
    desk = await IdeDesk().open()
    issued = await desk.tokens.issue(desk.principal, desk.instance, IdeMode.HOST)
    stored = repr([*desk.rows.tokens, *desk.rows.sessions]) + repr([desk.rows.tokens, desk.rows.sessions])
    assert issued.secret not in stored
    assert desk.secret not in stored
