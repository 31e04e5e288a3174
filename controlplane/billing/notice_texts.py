"""The texts of notices, from a folder: for each kind `KIND.txt`, whose first line is the subject, and `KIND.html`.

An operator's folder may replace any of them; what it lacks comes from the texts of this package. The files are Tornado
templates: what is filled into HTML is escaped. They are compiled once, at start, so that a mistake shows then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tornado.template import Loader, ParseError, Template

from controlplane.billing.accounts import NoticeKind
from controlplane.errors import ConfigurationError

SETTING = "BILLING_MAIL_DIR"
OWN_FOLDER = Path(__file__).resolve().parent / "mail_texts"
FACTS = (
    "plan",
    "trial_end",
    "period_end",
    "amount",
    "pay_url",
    "suspension_day",
    "deletion_day",
    "billing_url",
    "service_url",
)
"""What a text may say, each as text ready for reading."""


@dataclass(frozen=True, slots=True)
class Text:
    subject: str
    plain: str
    html: str


class NoticeTexts:
    """Raises ConfigurationError that names the file that cannot be used."""

    def __init__(self, operator_folder: Path | None) -> None:
        self._plain: dict[NoticeKind, Template] = {}
        self._html: dict[NoticeKind, Template] = {}
        sample = {name: name for name in FACTS}
        for kind in NoticeKind:
            self._plain[kind] = _compile(_file(operator_folder, f"{kind.value}.txt"), autoescape=None)
            self._html[kind] = _compile(_file(operator_folder, f"{kind.value}.html"), autoescape="xhtml_escape")
            self._try(operator_folder, kind, sample)

    def render(self, kind: NoticeKind, facts: Mapping[str, str]) -> Text:
        """`facts` gives what FACTS names; what is missing is empty."""
        filled = {name: facts.get(name, "") for name in FACTS}
        subject, _, plain = self._plain[kind].generate(**filled).decode().partition("\n")
        return Text(subject.strip(), plain.lstrip("\n"), self._html[kind].generate(**filled).decode())

    def _try(self, operator_folder: Path | None, kind: NoticeKind, sample: Mapping[str, str]) -> None:
        try:
            text = self.render(kind, sample)
        except Exception as error:  # a template runs whatever it says
            raise ConfigurationError(SETTING, f"the texts of {kind.value} cannot be filled in: {error}") from error
        if not text.subject or not text.plain.strip():
            file = _file(operator_folder, f"{kind.value}.txt")
            raise ConfigurationError(SETTING, f"{file} must begin with a line for the subject, then the text")


def _file(operator_folder: Path | None, name: str) -> Path:
    if operator_folder is not None and (operator_folder / name).is_file():
        return operator_folder / name
    return OWN_FOLDER / name


def _compile(file: Path, *, autoescape: str | None) -> Template:
    try:
        source = file.read_text("utf-8")
        return Template(source, name=file.name, loader=Loader(str(file.parent), autoescape=autoescape))
    except (OSError, UnicodeDecodeError, ParseError, SyntaxError) as error:
        raise ConfigurationError(SETTING, f"{file} cannot be used: {error}") from error
