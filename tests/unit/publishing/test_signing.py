"""Signatures: the specification's own example, and what a receiver recomputes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from controlplane.publishing.signing import SECRET_BYTES, new_secret, signed_headers


def test_the_specifications_example_is_met() -> None:
    """The vector that the libraries of Standard Webhooks share."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_new_secret_is_random_and_signs() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    key = base64.b64decode(first.removeprefix("whsec_"))
    assert len(key) == SECRET_BYTES
    headers = signed_headers(first, "evt_1", b"{}", datetime.fromtimestamp(1000.9, UTC))
    expected = base64.b64encode(hmac.digest(key, b"evt_1.1000.{}", hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
