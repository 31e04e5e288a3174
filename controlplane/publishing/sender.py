"""Posts webhooks through Tornado's curl client: no redirects, no proxy from the environment, bounded in every way."""

from __future__ import annotations

from collections.abc import Mapping

import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.httpclient import HTTPClientError, HTTPRequest

from controlplane import __version__
from controlplane.errors import Unavailable

CONNECTIONS = 32
TIMEOUT_SECONDS = 15.0  # what Standard Webhooks asks a sender to wait at least
ANSWER_LIMIT_BYTES = 64 << 10


class CurlWebhookSender:
    """Satisfies `ports.WebhookSender`. A request that waits for one of the connections waits within its deadline."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._client = CurlAsyncHTTPClient(force_instance=True, max_clients=CONNECTIONS)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        sink = _BoundedSink()
        request = HTTPRequest(
            url,
            method="POST",
            headers={"Content-Type": "application/json", **headers},
            body=body,
            follow_redirects=False,
            connect_timeout=self._timeout_seconds,
            request_timeout=self._timeout_seconds,
            user_agent=f"controlplane/{__version__}",
            decompress_response=False,
            prepare_curl_callback=sink.attach,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
        except (HTTPClientError, pycurl.error, OSError, ValueError) as error:
            if sink.is_full:
                raise Unavailable(f"answered with more than {ANSWER_LIMIT_BYTES} bytes") from error
            raise Unavailable(f"could not be reached: {error}") from error
        return response.code

    def close(self) -> None:
        self._client.close()


class _BoundedSink:
    """Throws an answer's body away, and ends the transfer at the bound: curl stops when less than all was taken.

    In the place of Tornado's own, which collects the whole body and only then shows it.
    """

    def __init__(self) -> None:
        self._received = 0

    @property
    def is_full(self) -> bool:
        return self._received > ANSWER_LIMIT_BYTES

    def attach(self, curl: pycurl.Curl) -> None:
        curl.setopt(pycurl.WRITEFUNCTION, self._take)
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)

    def _take(self, chunk: bytes) -> int:
        self._received += len(chunk)
        return -1 if self.is_full else len(chunk)
