"""Authenticated encryption for secrets at rest: AES-256-GCM under a key from the settings.

A database dump alone reveals no agent token. The associated data binds a ciphertext to its place, so that a sealed
value copied to another record does not open there.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controlplane.errors import StorageDamaged

KEY_BYTES = 32
_NONCE_BYTES = 12  # NIST SP 800-38D section 5.2.1.1


class SecretBox:
    """Seals and opens short secrets. `key` is 32 bytes, `context` names the record that the secret belongs to."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a secret box needs a key of {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises StorageDamaged when the key is another one or the value was tampered with."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError) as error:
            raise StorageDamaged(
                f"The stored secret of {context} does not open: CREDENTIALS_KEY is not the one that sealed it, "
                "or the record was changed outside the control plane."
            ) from error
