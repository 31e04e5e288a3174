"""Mail by SMTP, or to the log where no server is configured."""

from __future__ import annotations

import logging
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import unquote, urlsplit

import aiosmtplib

from controlplane.errors import Unavailable
from controlplane.ports import MailMessage
from controlplane.settings import SmtpSettings

logger = logging.getLogger(__name__)

_DEFAULT_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class LogMailer:
    """Writes the whole mail to the log: an operator without a mail server can hand on a reset link."""

    async def send(self, message: MailMessage) -> None:
        logger.info(
            "mail was not sent, since SMTP_URL is not set",
            extra={"to": message.to, "subject": message.subject, "text": message.text},
        )


class SmtpMailer:
    """Speaks to one server (RFC 5321); TLS as the URL's scheme says."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._parts = urlsplit(settings.url)

    async def send(self, message: MailMessage) -> None:
        parts = self._parts
        try:
            await aiosmtplib.send(
                self._compose(message),
                hostname=parts.hostname,
                port=parts.port or _DEFAULT_PORTS[parts.scheme],
                username=None if parts.username is None else unquote(parts.username),
                password=None if parts.password is None else unquote(parts.password),
                use_tls=parts.scheme == "smtps",
                start_tls=parts.scheme == "smtp+starttls",
                timeout=self._settings.timeout_seconds,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise Unavailable(f"The mail server did not take the mail: {error}") from error

    def _compose(self, message: MailMessage) -> EmailMessage:
        """EmailMessage refuses line ends in headers with ValueError."""
        mail = EmailMessage()
        mail["From"] = self._settings.sender
        mail["To"] = message.to
        mail["Subject"] = message.subject
        mail["Date"] = formatdate(usegmt=True)
        domain = self._settings.sender.rpartition("@")[2]
        own_id = message.message_id
        mail["Message-ID"] = make_msgid(domain=domain) if own_id is None else f"<{own_id}@{domain}>"
        mail.set_content(message.text)
        if message.html is not None:  # RFC 2046 section 5.1.4: the richest form last
            mail.add_alternative(message.html, subtype="html")
        return mail
