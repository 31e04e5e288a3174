"""The texts of mails: complete, escaped, and an operator's where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.billing.accounts import NoticeKind
from controlplane.billing.notice_texts import FACTS, OWN_FOLDER, NoticeTexts
from controlplane.errors import ConfigurationError

SAMPLE = {name: f"<{name}&>" for name in FACTS}


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_every_notice_has_both_texts_with_the_same_facts(kind: NoticeKind) -> None:
    text = NoticeTexts(None).render(kind, SAMPLE)
    assert text.subject
    assert "<plan&>" in text.plain
    assert "&lt;plan&amp;&gt;" in text.html
    assert "<plan&>" not in text.html
    told = {name for name in FACTS if f"<{name}&>" in text.subject + text.plain}
    assert told == {name for name in FACTS if f"&lt;{name}&amp;&gt;" in text.html}


def test_there_is_no_text_that_no_notice_uses() -> None:
    expected = {f"{kind.value}.{form}" for kind in NoticeKind for form in ("txt", "html")}
    assert {file.name for file in OWN_FOLDER.iterdir()} == expected


def test_what_is_not_known_leaves_no_hole() -> None:
    text = NoticeTexts(None).render(NoticeKind.SUSPENDED, {"plan": "Starter", "billing_url": "https://x.example"})
    assert "deleted" not in text.plain
    assert "Pay now" not in text.plain + text.html


def test_an_operator_replaces_one_text_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "suspended.txt").write_text("Wir bedauern\n\n{{ plan }} ist angehalten.\n")
    texts = NoticeTexts(tmp_path)
    text = texts.render(NoticeKind.SUSPENDED, SAMPLE)
    assert (text.subject, text.plain) == ("Wir bedauern", "<plan&> ist angehalten.\n")
    assert "&lt;plan&amp;&gt;" in text.html
    assert texts.render(NoticeKind.RESTORED, SAMPLE) == NoticeTexts(None).render(NoticeKind.RESTORED, SAMPLE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("suspended.txt", b"Subject\n\n{{ plann }}\n"),
        ("suspended.html", b"{% if plan %}"),
        ("suspended.html", b"{{ plan"),
        ("suspended.html", b"{{ plan + }}"),
        ("suspended.txt", b"\xff\xfe"),
        ("suspended.txt", b"Only a subject\n"),
        ("suspended.txt", b"\n\nNo subject\n"),
    ],
)
def test_a_text_that_cannot_be_filled_in_is_refused_at_start(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match="suspended") as refused:
        NoticeTexts(tmp_path)
    assert refused.value.setting == "BILLING_MAIL_DIR"
