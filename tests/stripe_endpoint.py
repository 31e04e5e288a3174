"""A webhook endpoint on a thread of its own: what came, and whether the official library believes it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stripe

from tests.fake_stripe_process import WEBHOOK_SECRET


class Endpoint(ThreadingHTTPServer):
    """Keeps what came; answers `statuses` first, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.statuses: list[int] = []
        self.received: list[tuple[bytes, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def events(self) -> list[stripe.Event]:
        """Verified, in the order in which they came."""
        return [stripe.Webhook.construct_event(body, signature, WEBHOOK_SECRET) for body, signature in self.received]


class _Receive(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.received.append((body, self.headers["Stripe-Signature"]))
            status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The test says what it saw."""
