"""IDEs behind a real TLS front: nginx with conf/nginx.conf as it is shipped, but for its ports and certificates."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.models import IdeMode
from controlplane.storage.database import Database
from tests.control_plane_process import ROOT
from tests.ide_house import App, IdeHouse, Wire, echo

NGINX = shutil.which("nginx")
HOST = "dev-201.ide.example.org"
SETTINGS = {
    "PUBLIC_URL": "https://control.example.org",
    "TRUSTED_PROXIES": "127.0.0.0/8",
    "DEV_IDE_HOST_SUFFIX": "ide.example.org",
    "DEV_IDE_RETURN_HOSTED_URL": "true",
}

pytestmark = pytest.mark.skipif(NGINX is None, reason="apt-get install nginx")  # .ci/run installs it


def certificate(folder: Path) -> ssl.SSLContext:
    """For every host of the tests, in `folder`; the context trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("*.ide.example.org"), x509.DNSName("control.example.org")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    (folder / "chain.pem").write_bytes(public)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return ssl.create_default_context(cadata=public.decode())


def shipped(folder: Path, port: int, upstream_port: int) -> str:
    text = (ROOT / "conf" / "nginx.conf").read_text()
    for pattern, value in (
        (r"listen (\[::\]:)?80;", ""),
        (r"listen \[::\]:443 ssl;", ""),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"http2 on;", ""),  # nginx before 1.25 has no such directive
        (r"/etc/ssl/[a-z.]+/fullchain\.pem", str(folder / "chain.pem")),
        (r"/etc/ssl/[a-z.]+/privkey\.pem", str(folder / "key.pem")),
        (r"server 127\.0\.0\.1:8080;", f"server 127.0.0.1:{upstream_port};"),
    ):
        text, count = re.subn(pattern, value, text)
        assert count, pattern
    # What is left of the server that sends plain HTTP elsewhere would listen on port 80.
    return text[: text.rindex("server {")]


@asynccontextmanager
async def front(folder: Path, upstream_port: int) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Its port, and what trusts it."""
    assert NGINX is not None
    context = certificate(folder)
    # Handed on to nginx, as to one that takes over from another: nobody else can get the port in between, and who
    # connects before nginx runs waits for it.
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    temporary = " ".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        # A worker is that of who runs the tests: the folder is nobody else's.
        f"daemon off; user {getpass.getuser()}; worker_processes 1; pid {folder / 'pid'}; error_log stderr warn;\n"
        "events {}\n"
        f"http {{ access_log off; {temporary}\n{shipped(folder, port, upstream_port)}\n}}\n"
    )
    with listener:
        process = await asyncio.create_subprocess_exec(
            *(NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")),
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=(listener.fileno(),),
        )
    try:
        yield port, context
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def connect(port: int, context: ssl.SSLContext) -> Wire:
    return Wire(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST))


def request(port: int, path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", *fields, "", ""]).encode()


@pytest.mark.gen_test(timeout=60)
async def test_an_ide_opens_behind_the_front_that_is_shipped(database: Database, tmp_path: Path) -> None:
    async with IdeHouse(database, settings=SETTINGS) as ide, front(tmp_path, ide.port) as (port, context):
        token = await ide.token(IdeMode.HOST)
        wire = await connect(port, context)
        await wire.send(request(port, f"/?folder=x&ide_token={token}", "Sec-Fetch-Mode: navigate"))
        got = await wire.answer()
        assert (got.status, got.value("Location")) == (303, "/?folder=x")
        assert got.value("Set-Cookie").startswith("__Host-cp-ide=")
        cookie = got.value("Set-Cookie").partition(";")[0]
        await wire.send(request(port, "/", f"Cookie: {cookie}", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: http"))
        assert (await wire.answer()).body == b"ok"
        seen = ide.app.seen[-1]
        assert seen.values("Host") == [f"{HOST}:{port}"]
        assert seen.values("X-Forwarded-Proto") == ["https"]
        assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
        wire.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_websocket_passes_the_front_with_its_origin(database: Database, tmp_path: Path) -> None:
    async with (
        IdeHouse(database, App(answering=echo), settings=SETTINGS) as ide,
        front(tmp_path, ide.port) as (port, context),
    ):
        wire = await connect(port, context)
        await wire.send(request(port, f"/?ide_token={await ide.token(IdeMode.HOST)}"))
        cookie = (await wire.answer()).value("Set-Cookie").partition(";")[0]
        for origin, status in ((f"https://{HOST}:{port}", 101), ("https://dev-202.ide.example.org", 403)):
            wire.close()
            wire = await connect(port, context)
            upgrade = (
                *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
                *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Cookie: {cookie}", f"Origin: {origin}"),
            )
            await wire.send(request(port, "/socket", *upgrade))
            assert (await wire.head()).status == status
            if status == 101:
                await wire.send(b"\x81\x85abcdhello")
                assert await wire.reader.readexactly(11) == b"\x81\x85abcdhello"
        wire.close()
