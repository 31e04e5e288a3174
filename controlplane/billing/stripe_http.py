"""How the official library's requests reach Stripe: over Tornado's curl client, on the IOLoop, within bounds.

A fixed number of requests is under way, a fixed number waits its turn, and for no longer than a request may take; who
comes after that is told so at once. No proxy from the environment is used, no redirect followed, no large answer read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pycurl
import stripe
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from controlplane.errors import ConfigurationError, PaymentBusy

REQUESTS_AT_ONCE = 16
WAITING_LIMIT = 100
ANSWER_LIMIT_BYTES = 4 << 20
CONNECT_SECONDS = 10.0
_no_answer: Callable[..., Exception] = stripe.APIConnectionError  # its constructor has no types
_BUSY = "The payment provider answers slowly and many are waiting for it. Try again in a few seconds."


class RequestLine:
    """`at_once` holders and at most `waiting` others in line, first come, first served."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._limit = waiting
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._line)

    def check(self) -> None:
        """Raises PaymentBusy when the line is full."""
        if not self._free and len(self._line) >= self._limit:
            raise PaymentBusy(_BUSY, operator_message=f"{len(self._line)} requests wait for Stripe already")

    async def take(self, *, seconds: float) -> None:
        """Raises PaymentBusy when the line is full, or when the turn did not come in time."""
        self.check()
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # `give_back` may have passed over it already
                    self._line.remove(turn)
            else:  # it came in the very moment that nobody waited any more
                self.give_back()
            if isinstance(error, TimeoutError):
                why = f"no request to Stripe ended within {seconds:g} s"
                raise PaymentBusy(_BUSY, operator_message=why) from error
            raise

    def give_back(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class TornadoStripeClient(stripe.HTTPClient):
    """`stripe.HTTPClient` for `…_async` calls alone: a blocking call fails loudly, since `request` is not there."""

    name = "tornado"

    def __init__(self, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is for one attempt, and again for the wait before it. Raises ConfigurationError where the
        library came without its certificates, as it does in a binary that was told nothing of them."""
        super().__init__()
        if not Path(stripe.ca_bundle_path).is_file():
            raise ConfigurationError("STRIPE_API_BASE", "the certificates of Stripe's library are not in this build")
        self._timeout_seconds = timeout_seconds
        self._requests = RequestLine(REQUESTS_AT_ONCE, WAITING_LIMIT)
        self._client = CurlAsyncHTTPClient(force_instance=True, max_clients=REQUESTS_AT_ONCE)

    def check_room(self) -> None:
        """Raises PaymentBusy when a request would be sent away: before the library has worked for nothing."""
        self._requests.check()

    async def request_async(  # type: ignore[override]  # text: the library takes it as readily as bytes
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[str, int, Mapping[str, str]]:
        """Raises PaymentBusy, or stripe.APIConnectionError where there was no answer."""
        request = HTTPRequest(
            url,
            method=method.upper(),
            headers=HTTPHeaders(headers),
            body=(post_data or "") if method.lower() == "post" else None,
            connect_timeout=min(CONNECT_SECONDS, self._timeout_seconds),
            request_timeout=self._timeout_seconds,
            follow_redirects=False,
            decompress_response=False,
            prepare_curl_callback=_limit,
            ca_certs=stripe.ca_bundle_path,
        )
        await self._requests.take(seconds=self._timeout_seconds)
        # A fetch whose caller has gone keeps its curl handle until it ends, so its turn ends with it and no sooner.
        fetch = self._client.fetch(request, raise_error=False)
        fetch.add_done_callback(self._ended)
        try:
            response: HTTPResponse = await asyncio.shield(fetch)
        except (HTTPClientError, OSError, pycurl.error) as error:
            raise _no_answer(f"No answer from Stripe: {error}", should_retry=True) from error
        try:
            body = response.body.decode()  # the library fails on other bytes where it logs them
        except UnicodeDecodeError as error:
            raise _no_answer("Invalid response body: it is not UTF-8", should_retry=False) from error
        return body, response.code, response.headers

    def _ended(self, fetch: asyncio.Future[HTTPResponse]) -> None:
        self._requests.give_back()
        if not fetch.cancelled():
            fetch.exception()  # the caller may have gone: nobody else asks

    async def sleep_async(self, secs: float) -> None:
        await asyncio.sleep(secs)

    async def close_async(self) -> None:
        self._client.close()


def _limit(curl: Any) -> None:
    curl.setopt(pycurl.NOPROXY, "*")
    curl.setopt(pycurl.MAXFILESIZE_LARGE, ANSWER_LIMIT_BYTES)
