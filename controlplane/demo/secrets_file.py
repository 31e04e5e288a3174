"""What a second start of the demo on the same folder needs again: keys and the two accounts. Blocking, small files."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Credentials:
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class DemoSecrets:
    """What a second start on the same folder needs again."""

    jwt_secret: str
    credentials_key: str
    admin: Credentials
    customer: Credentials


def load_or_make_secrets(file: Path, random_key: str) -> DemoSecrets:
    """`random_key` is a fresh base64 key, used when the folder has none yet."""
    if not file.exists():
        return DemoSecrets(
            jwt_secret=secrets.token_urlsafe(48),
            credentials_key=random_key,
            admin=Credentials("admin@demo.example", secrets.token_urlsafe(12)),
            customer=Credentials("customer@demo.example", secrets.token_urlsafe(12)),
        )
    try:
        raw = json.loads(file.read_text())
        return DemoSecrets(
            jwt_secret=raw["jwt_secret"],
            credentials_key=raw["credentials_key"],
            admin=Credentials(**raw["admin"]),
            customer=Credentials(**raw["customer"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("--data-dir", f"{file} cannot be read: {error!r}") from error


def save_secrets(file: Path, demo: DemoSecrets) -> None:
    write_private(file, json.dumps(asdict(demo), indent=2))


def write_private(file: Path, text: str) -> None:
    """Atomically, readable by its owner alone from the first byte on."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(file)
