"""Notices go out once, also when the mail server is away for a while, through a real SMTP server."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest

from controlplane.billing.accounts import NoticeKind
from controlplane.billing.notices import STALE_AFTER
from controlplane.mail import SmtpMailer
from controlplane.settings import SmtpSettings
from controlplane.storage.database import Database
from tests.billing_house import BillingHouse
from tests.unit.test_mail import Postbox, serving


def read(content: bytes | str | None) -> EmailMessage:
    assert isinstance(content, bytes)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def posted(database: Database, url: str) -> BillingHouse:
    house = BillingHouse(database)
    house.billing.notices._mailer = SmtpMailer(SmtpSettings(url=url, sender="service@example.org", timeout_seconds=30))
    await house.user()
    await house.subscribe()
    assert await house.billing.notices.post(await house.account(), NoticeKind.PAYMENT_FAILED, "in_1")
    return house


async def let_time_pass(database: Database) -> None:
    await database.collection("billing_notices").update_many({}, {"$set": {"lease_ms": 0}})


@pytest.mark.gen_test(timeout=60)
async def test_a_notice_arrives_once_in_both_forms(database: Database) -> None:
    box = Postbox()
    async with serving(box) as url:
        house = await posted(database, url)
        assert not await house.billing.notices.post(await house.account(), NoticeKind.PAYMENT_FAILED, "in_1")
        for _ in range(3):
            await house.billing.notices.run_once()
    (envelope,) = box.envelopes
    message = read(envelope.content)
    assert (message["To"], message["Subject"]) == ("user1@example.org", "Your payment did not go through")
    assert message.get_content_type() == "multipart/alternative"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    for part in (plain, html):
        assert "https://portal.example/#/billing" in part.get_content()
    notice = await house.notice("usr_1:payment_failed:in_1")
    assert notice.sent_at == house.clock.now()


@pytest.mark.gen_test(timeout=60)
async def test_a_mail_server_that_is_away_gets_it_later_under_the_same_id(database: Database) -> None:
    box = Postbox()
    box.refuses = True
    async with serving(box) as url:
        house = await posted(database, url)
        await house.billing.notices.run_once()
        await house.billing.notices.run_once()  # not again at once
        waiting = await house.notice("usr_1:payment_failed:in_1")
        assert (waiting.attempts, waiting.sent_at) == (1, None)
        box.refuses = False
        await let_time_pass(database)
        await house.billing.notices.run_once()
        await database.collection("billing_notices").update_many({}, {"$set": {"open": True, "lease_ms": 0}})
        await house.billing.notices.run_once()  # as after a death between the mail and its mark
    assert len({read(each.content)["Message-ID"] for each in box.envelopes}) == 1
    assert len(box.envelopes) == 2


@pytest.mark.gen_test(timeout=60)
async def test_what_is_no_longer_true_enough_is_not_sent(database: Database) -> None:
    box = Postbox()
    async with serving(box) as url:
        house = await posted(database, url)
        house.clock.advance(STALE_AFTER.total_seconds() + 1)
        await house.billing.notices.run_once()
        await let_time_pass(database)
        await house.billing.notices.run_once()
    assert box.envelopes == []
    assert (await house.notice("usr_1:payment_failed:in_1")).attempts == 1
