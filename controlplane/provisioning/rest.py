"""One bounded HTTP client for the APIs of machine hosts: TCP with a pinned authority, or a unix socket.

It moves requests and complete replies, and turns every failure to get one into ProviderUnavailable; what a reply means
is decided by `proxmox_api` and `lxd_api`. It follows no redirect and uses no proxy from the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient, CurlError
from tornado.httpclient import HTTPRequest, HTTPResponse

from controlplane.errors import ProviderUnavailable

UNAVAILABLE = "The host of the instance does not answer at the moment."
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 2.0
_TOO_LARGE = 63  # CURLE_FILESIZE_EXCEEDED


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer, whatever its status. `reason` is the phrase of the status line."""

    status: int
    reason: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Trust:
    """PEM. `authority` signs the server's certificate, or is that certificate itself; with `pinned` the name in it does
    not count, as the certificate is known. `certificate` and `key` are the client's own."""

    authority: bytes | None = None
    pinned: bool = False
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


class RestClient:
    """`base_url` has no slash at its end. `max_clients` bounds the calls under way; a call waits for its turn within
    its own deadline. A reply larger than `body_limit_bytes` is not read."""

    def __init__(
        self,
        base_url: str,
        *,
        max_clients: int,
        body_limit_bytes: int,
        trust: Trust | None = None,
        unix_socket: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._body_limit_bytes = body_limit_bytes
        self._trust = trust or Trust()
        self._unix_socket = unix_socket
        self._turn = asyncio.Semaphore(max_clients)
        self._under_way: set[asyncio.Future[HTTPResponse]] = set()
        self._client = CurlAsyncHTTPClient(force_instance=True, max_clients=max_clients)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_seconds: float,
    ) -> Reply:
        """`target` begins with a slash. Raises ProviderUnavailable when no complete answer came in time."""
        request = HTTPRequest(
            self._base_url + target,
            method=method,
            headers=dict(headers),
            body=body,
            allow_nonstandard_methods=True,  # a POST without a body, a DELETE with one
            connect_timeout=min(CONNECT_SECONDS, timeout_seconds),
            request_timeout=timeout_seconds,
            follow_redirects=False,
            decompress_response=False,
            prepare_curl_callback=partial(self._prepare, is_safe=method == "GET"),
        )
        try:
            async with asyncio.timeout(timeout_seconds + CONNECT_SECONDS):
                await self._turn.acquire()
                # Who waits may be cancelled; curl goes on, and the turn is taken until it is done.
                response = await asyncio.shield(self._begin(request))
        except TimeoutError as error:
            raise self._unavailable(method, target, "no answer in time") from error
        except CurlError as error:
            raise self._unavailable(method, target, self._reason(error)) from error
        return _reply(response)

    async def close(self) -> None:
        """Lets the calls under way end, for a moment."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSE_SECONDS)
        self._client.close()

    def _begin(self, request: HTTPRequest) -> asyncio.Future[HTTPResponse]:
        fetch = self._client.fetch(request, raise_error=False)
        self._under_way.add(fetch)
        fetch.add_done_callback(self._ended)
        return fetch

    def _ended(self, fetch: asyncio.Future[HTTPResponse]) -> None:
        self._under_way.discard(fetch)
        self._turn.release()
        if not fetch.cancelled():
            fetch.exception()  # known to whoever waits, if anybody still does

    def _prepare(self, curl: Any, *, is_safe: bool) -> None:
        # On a kept connection that ends without an answer curl sends again, whatever was asked: on a fresh one, once.
        curl.setopt(pycurl.FRESH_CONNECT, 0 if is_safe else 1)
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)  # HTTP/2 has no reason phrase
        curl.setopt(pycurl.MAXFILESIZE_LARGE, self._body_limit_bytes)
        if self._unix_socket is not None:
            curl.setopt(pycurl.UNIX_SOCKET_PATH, self._unix_socket)
        trust = self._trust
        if trust.authority is not None:
            curl.setopt(pycurl.CAINFO_BLOB, trust.authority)
        if trust.pinned:
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        if trust.certificate is not None and trust.key is not None:
            curl.setopt(pycurl.SSLCERT_BLOB, trust.certificate)
            curl.setopt(pycurl.SSLKEY_BLOB, trust.key)

    def _reason(self, error: CurlError) -> str:
        if error.errno == _TOO_LARGE:
            return f"an answer of more than {self._body_limit_bytes} bytes"
        return str(error.message)

    def _unavailable(self, method: str, target: str, reason: str) -> ProviderUnavailable:
        where = self._unix_socket or self._base_url
        path = target.partition("?")[0]
        return ProviderUnavailable(UNAVAILABLE, operator_message=f"{method} {path} at {where}: {reason}")


def _reply(response: HTTPResponse) -> Reply:
    return Reply(response.code, response.reason or "", response.body or b"")


def read_object(reply: Reply, what: str) -> dict[str, Any]:
    """The JSON object of a reply. Raises ProviderUnavailable for anything else: it cannot be believed."""
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ProviderUnavailable(
            UNAVAILABLE, operator_message=f"{what}: status {reply.status} with a body that is no JSON object"
        )
    return document
