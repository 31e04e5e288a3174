"""One request to an IDE: who may ask, what is asked of the app, and what is said when it does not answer.

Bytes are moved by `proxying.relay` and `proxying.splice`; what a page of another origin may do is `ide.admission`'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from http import HTTPStatus

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders

from controlplane.errors import (
    AgentError,
    ControlPlaneError,
    Forbidden,
    NotFound,
    StorageUnavailable,
    Unauthenticated,
    Unavailable,
)
from controlplane.ide.admission import Approach, check_approach
from controlplane.ide.cookies import cookie_name, read_cookies, set_cookie, take_token
from controlplane.ide.sessions import Grant
from controlplane.ide.targets import IdeTarget
from controlplane.models import Instance
from controlplane.proxying.handshake import UPGRADE_FRAMING, Handshake, ask_for_upgrade, switching_protocols
from controlplane.proxying.headers import Route, request_head
from controlplane.proxying.http_upstream import Key, UpstreamConnection
from controlplane.proxying.relay import Relay, Request
from controlplane.proxying.request_guard import check_head, check_request
from controlplane.services import Services
from handlers import ide_pages
from handlers.client_address import request_scheme
from handlers.error_map import retry_after_seconds
from handlers.ide_pages import Notice
from handlers.message import Message, OwnAnswer
from handlers.request_log import RequestLog
from handlers.takeover import release_socket

OWN_PATHS = "/__controlplane/"
START_PATH = OWN_PATHS + "codeserver/start"
"""Below the IDE's own address, since the page with the button is served there. The app never sees these."""


class IdeRequest(Message):
    route = "(ide)"

    def __init__(self, services: Services, log: RequestLog, connection: HTTP1Connection, target: IdeTarget) -> None:
        super().__init__(services, log, connection)
        self._ide = services.ide
        self._place = target
        self._grant: Grant | None = None
        self._relay: Relay | None = None
        self._adopted: tuple[UpstreamConnection, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._approach: Approach | None = None
        self._is_revoked = False

    # -- may it be asked? ----------------------------------------------------------------------------------------------

    def decide(self) -> Awaitable[None] | None:
        check_head(getattr(self.connection.stream, "head", b""))
        check_request(self.method, self.target, self.version, self.headers)
        trusted = self.services.settings.trusted_proxies
        scheme = request_scheme(self.peer, self.headers.get("X-Forwarded-Proto"), trusted)
        host = self.headers["Host"]
        self._approach = approach = Approach(self.method, scheme, host, self._is_upgrade(), self.headers)
        self._way = Route(scheme, host, self._place.prefix, self.client, self.request_id)
        if not self.services.lifecycle.serving:
            raise StorageUnavailable(f"Not serving yet: {self.services.lifecycle.problem}.")
        if self._place.path is None:
            self.answer(OwnAnswer(308, headers={"Location": self._with_slash()}))
            return None
        check_approach(approach)
        token, rest = take_token(self._place.path)
        if token is not None:
            return self._exchange(approach, token, rest)
        cookies = self._cookies(approach)
        grant = self._ide.sessions.find_cached(cookies, self._place.reference, self._place.mode)
        if grant is not None:
            return self._admit(grant, approach)
        return self._find(cookies, approach)

    def _is_upgrade(self) -> bool:
        """To a websocket; any other upgrade that is asked for is not passed on, as a server may ignore it."""
        tokens = {token.strip().lower() for token in self.headers.get("Connection", "").split(",")}
        return self.method == "GET" and "upgrade" in tokens and self.headers.get("Upgrade", "").lower() == "websocket"

    def _with_slash(self) -> str:
        path, question, query = self.target.partition("?")
        return f"{path}/{question}{query}"

    def _cookies(self, approach: Approach) -> list[str]:
        name = cookie_name(self._place.mode, secure=approach.is_secure)
        return read_cookies("; ".join(self.headers.get_list("Cookie")), name)

    async def _exchange(self, approach: Approach, token: str, rest: str) -> None:
        """The token for a cookie, and on to the same address without it: what follows never carries it."""
        if not approach.may_exchange:
            raise Unauthenticated("A token is exchanged where an IDE is opened.", code="ide_token_invalid")
        mode = self._place.mode
        secret = await self._ide.tokens.exchange(token, self._instance(), mode)
        cookie = set_cookie(
            mode,
            secret,
            self._place.prefix,
            secure=approach.is_secure,
            seconds=self._ide.tokens.session_max_seconds,
        )
        # One slash at its beginning and no backslash: browsers read "//host" and "/\host" as another site's address.
        location = f"{self._place.prefix}/{rest.lstrip('/')}".replace("\\", "%5C")
        self.answer(OwnAnswer(303, headers={"Location": location, "Set-Cookie": cookie}))

    def _instance(self) -> Instance | None:
        return self.services.instances.get_by_reference(self._place.reference)

    async def _find(self, cookies: list[str], approach: Approach) -> None:
        grant = await self._ide.sessions.find(cookies, self._place.reference, self._place.mode)
        admitting = self._admit(grant, approach)
        if admitting is not None:
            await admitting

    def _admit(self, grant: Grant, approach: Approach) -> Awaitable[None] | None:
        instance = self.services.instances.get(grant.session.instance_id)
        if instance is None:
            raise NotFound
        grant.hold(self._revoked)
        self._grant = grant
        path = self._place.path or "/"
        if path.partition("?")[0].startswith(OWN_PATHS):
            return self._serve_own(instance, path)
        key = (instance.address, instance.ide_port)
        if approach.is_upgrade:
            return self._open_websocket(grant, key, path)
        framing = _framing(self.headers)
        head = request_head(self.method, path, self.headers.get_all(), self._way, framing)
        chunked = "Transfer-Encoding" in self.headers if self.has_body else None
        self._relay = self._make_relay(Request(key, self.method, head, chunked))
        return None

    def _make_relay(self, request: Request) -> Relay:
        return Relay(
            self._ide.upstreams,
            self.connection,
            request,
            self._way,
            on_done=self._relayed,
            on_failure=self._app_failed,
        )

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._relay is None else self._relay.body(chunk)

    def proceed(self) -> None:
        if self._relay is None:
            return
        if self._adopted is not None:
            self._relay.take(*self._adopted)
        elif self.has_body:
            self._relay.body_end()
        else:
            self._relay.start()

    def _relayed(self, status: int, whole: bool) -> None:
        self.end(status)
        if not whole:
            self.connection.close()

    def client_gone(self) -> None:
        if self._relay is not None:
            self._relay.cancel()
        super().client_gone()

    def _revoked(self) -> None:
        self._is_revoked = True
        if self._relay is not None:
            self._relay.cancel()
            self.connection.close()

    def end(self, status: int) -> None:
        if self._grant is not None:
            self._grant.release(self._revoked)
        super().end(status)

    # -- websockets ----------------------------------------------------------------------------------------------------

    async def _open_websocket(self, grant: Grant, key: Key, path: str) -> None:
        """The app's own answer is the browser's: 101 with whatever it agreed to, or its refusal as it is."""
        if self.services.lifecycle.draining:
            raise Unavailable("The control plane is stopping.")
        self._ide.splices.check_room()
        head = request_head(self.method, path, self.headers.get_all(), self._way, UPGRADE_FRAMING)
        upstream = await self._ide.upstreams.dial(key)
        try:
            handshake = await ask_for_upgrade(upstream, head)
        except BaseException:
            upstream.close()
            raise
        if self._is_revoked:
            upstream.close()
            raise Unauthenticated("This IDE was closed.", code="ide_session_missing")
        if handshake.status != HTTPStatus.SWITCHING_PROTOCOLS:
            connection = await self._ide.upstreams.adopt(key, upstream)
            self._relay = self._make_relay(Request(key, self.method, head, None))
            self._adopted = (connection, handshake.received)
            return
        self._splice(grant, upstream, handshake)

    def _splice(self, grant: Grant, upstream: socket.socket, handshake: Handshake) -> None:
        client, ahead = release_socket(self.connection.detach())
        pair = self._ide.splices.join(client, upstream, on_close=lambda closed: grant.release(closed.close))
        self.end(handshake.status)
        grant.hold(pair.close)  # in the place that the request has left
        pair.start(ahead, switching_protocols(handshake, self._way) + handshake.behind)

    # -- what is served here -------------------------------------------------------------------------------------------

    async def _serve_own(self, instance: Instance, path: str) -> None:
        """The button of the page below. `check_approach` has seen that it was pressed on a page of this IDE."""
        if (self.method, path) != ("POST", START_PATH):
            raise NotFound
        assert self._grant is not None
        await self.services.audit.record(
            "instance.codeserver_start",
            instance.id,
            actor=self._grant.principal,
            request_id=self.request_id,
            address=self.client,
        )
        endpoint = self.services.instances.endpoint(instance)
        try:
            await self._ide.codeserver.act("start", endpoint, request_id=self.request_id)
        except AgentError as error:
            self.answer(self._page(self._unavailable(error), ide_pages.not_started(error, f"{self._place.prefix}/")))
            return
        self.answer(OwnAnswer(303, headers={"Location": f"{self._place.prefix}/"}))

    def _app_failed(self, error: ControlPlaneError) -> None:
        if not self._is_navigation or not isinstance(error, AgentError):
            self.answer(self._unavailable(error))
            return
        explaining = asyncio.get_running_loop().create_task(self._explain(error))
        self._tasks.add(explaining)
        explaining.add_done_callback(self._tasks.discard)

    def _unavailable(self, error: ControlPlaneError) -> OwnAnswer:
        """A plain answer, with a time to come back whatever the reason."""
        plain = self.render_error(error)
        retry = {"Retry-After": str(retry_after_seconds(error) or ide_pages.RETRY_SECONDS)}
        return OwnAnswer(plain.status, plain.body, {**plain.headers, **retry})

    async def _explain(self, error: AgentError) -> None:
        instance = self._instance()
        if instance is None:
            self.answer(self._unavailable(error))
            return
        try:
            endpoint = self.services.instances.endpoint(instance)
            condition = await self._ide.codeserver.condition(endpoint, request_id=self.request_id)
        except ControlPlaneError as fault:
            self.answer(self._unavailable(fault))
            return
        notice = ide_pages.app_away(condition, instance.name, error, self._start_url)
        self.answer(self._page(self._unavailable(error), notice))

    @property
    def _is_navigation(self) -> bool:
        return self._approach is not None and self._approach.is_navigation

    @property
    def _start_url(self) -> str:
        return self._place.prefix + START_PATH

    def render_error(self, error: ControlPlaneError) -> OwnAnswer:
        """A page where somebody opened one and can do something about it."""
        plain = super().render_error(error)
        if not self._is_navigation or not isinstance(error, Unauthenticated | Forbidden):
            return plain
        return self._page(plain, ide_pages.not_admitted(error, self.services.settings.public_url))

    def _page(self, plain: OwnAnswer, notice: Notice) -> OwnAnswer:
        headers = {
            **plain.headers,
            "Content-Type": ide_pages.CONTENT_TYPE,
            "Content-Security-Policy": ide_pages.POLICY,
            # A form's Origin is `null` on a page that sends no referrer; there is no token in an address with a form.
            **({"Referrer-Policy": "same-origin"} if notice.start is not None else {}),
        }
        return OwnAnswer(plain.status, ide_pages.render(notice), headers)


def _framing(headers: HTTPHeaders) -> str:
    """Of the request to the app: as the browser framed it, which `check_request` has found to be clear."""
    if "Transfer-Encoding" in headers:
        return "Transfer-Encoding: chunked\r\n"
    return f"Content-Length: {headers['Content-Length']}\r\n" if "Content-Length" in headers else ""
