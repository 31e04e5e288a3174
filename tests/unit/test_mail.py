"""Mail against a real SMTP server on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from controlplane.errors import Unavailable
from controlplane.mail import LogMailer, SmtpMailer
from controlplane.ports import MailMessage
from controlplane.settings import SmtpSettings

MESSAGE = MailMessage("ada@example.org", "Set a new password", "https://portal.example/#reset=secret\n")


class Postbox:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuses = False

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuses:
            return "550 not here"
        self.envelopes.append(envelope)
        return "250 OK"


@asynccontextmanager
async def serving(box: Postbox) -> AsyncIterator[str]:
    """A server that says who it is without asking the name service, which would hold up the loop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop, hostname="localhost"), "127.0.0.1", 0)
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def mailer(url: str) -> SmtpMailer:
    return SmtpMailer(SmtpSettings(url=url, sender="service@example.org", timeout_seconds=30))


@pytest.mark.gen_test
async def test_a_mail_arrives_with_its_headers() -> None:
    box = Postbox()
    async with serving(box) as url:
        await mailer(url).send(MESSAGE)
    (envelope,) = box.envelopes
    assert isinstance(envelope.content, bytes)
    text = envelope.content.decode()
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert "Subject: Set a new password" in text
    assert "From: service@example.org" in text
    assert "#reset=secret" in text


@pytest.mark.gen_test
async def test_a_server_that_refuses_or_is_away_is_unavailable() -> None:
    box = Postbox()
    box.refuses = True
    async with serving(box) as url:
        with pytest.raises(Unavailable, match="not here"):
            await mailer(url).send(MESSAGE)
    with pytest.raises(Unavailable):
        await mailer("smtp://127.0.0.1:1").send(MESSAGE)


@pytest.mark.gen_test
async def test_headers_cannot_be_injected() -> None:
    box = Postbox()
    async with serving(box) as url:
        with pytest.raises(Unavailable):
            await mailer(url).send(MailMessage("ada@example.org\r\nBcc: all@example.org", "Hello", ""))
    assert box.envelopes == []


@pytest.mark.gen_test
async def test_without_a_server_the_whole_mail_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await LogMailer().send(MESSAGE)
    (record,) = [each for each in caplog.records if each.name == "controlplane.mail"]
    assert record.text == MESSAGE.text  # type: ignore[attr-defined]
