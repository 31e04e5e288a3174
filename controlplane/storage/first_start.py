"""The certificate for the embedded server's first start, which must run without a password to be given one.

During that moment it accepts only who holds this certificate's key, and the key is in a folder that only our user
reads; nobody else on the machine gets in, and nobody else can pose as the server.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from controlplane.storage.durable_files import write_new_file

_VALID_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Self-signed: server, client and authority in one. `both` holds key and certificate, as pymongo wants them."""

    certificate: Path
    key: Path
    both: Path

    def remove(self) -> None:
        for file in (self.certificate, self.key, self.both):
            file.unlink(missing_ok=True)


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "controlplane first start")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID_FOR)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_text = certificate.public_bytes(Encoding.PEM)
    key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = Certificate(folder / "first.crt", folder / "first.key", folder / "first.pem")
    for file, content in (
        (files.certificate, certificate_text),
        (files.key, key_text),
        (files.both, key_text + certificate_text),
    ):
        write_new_file(file, content)
    return files
