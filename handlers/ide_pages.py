"""The few pages that people read in the place of an IDE: why it cannot be shown, and what to do. Pure.

They run no script: they load themselves again by `refresh`, and the one button is a form below the IDE's own address.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from controlplane.errors import AgentRefused, ControlPlaneError
from controlplane.ide.codeserver import Condition

CONTENT_TYPE = "text/html; charset=utf-8"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
RETRY_SECONDS = 3

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1.2rem; }}
h1 {{ font-size: 1.3rem; }} a, button {{ font: inherit; }} .quiet {{ opacity: .7; font-size: .9em; }}
button {{ padding: .4rem 1rem; }}
</style></head><body><main>
<h1>{title}</h1>
{body}
</main></body></html>
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """`retries` loads the page again by itself, `start` is where a button that starts code-server leads, `back` the
    IDE itself, `dashboard` where it is opened anew."""

    title: str
    sentences: tuple[str, ...]
    retries: bool = False
    start: str | None = None
    back: str | None = None
    dashboard: str | None = None


def render(notice: Notice) -> bytes:
    parts = [f"<p>{escape(sentence)}</p>" for sentence in notice.sentences]
    if notice.start is not None:
        button = '<button type="submit">Start code-server</button>'
        parts.append(f'<form method="post" action="{escape(notice.start)}">{button}</form>')
    if notice.back is not None:
        parts.append(f'<p><a href="{escape(notice.back)}">Back to the IDE</a></p>')
    if notice.dashboard is not None:
        parts.append(f'<p><a href="{escape(notice.dashboard)}" rel="noreferrer">Go to the dashboard</a></p>')
    if notice.retries:
        parts.append(f'<p class="quiet">This page tries again every {RETRY_SECONDS} seconds.</p>')
    refresh = f'<meta http-equiv="refresh" content="{RETRY_SECONDS}">\n' if notice.retries else ""
    return _PAGE.format(refresh=refresh, title=escape(notice.title), body="\n".join(parts)).encode()


def not_admitted(error: ControlPlaneError, dashboard: str) -> Notice:
    """For whoever opened an address without a session for it, or with a link that was used."""
    titles = {
        "ide_session_missing": "This IDE is not open here",
        "ide_token_invalid": "This link was used, or is too old",
    }
    title = titles.get(error.stable_code)
    if title is None:
        return Notice("This IDE cannot be opened like this", (error.message,), dashboard=dashboard)
    sentence = "Open it again from the dashboard: press Open IDE on your dev container."
    return Notice(title, (sentence,), dashboard=dashboard)


def not_started(error: ControlPlaneError, back: str) -> Notice:
    """For whoever pressed the button, where the agent did not do it."""
    details = error.body if isinstance(error, AgentRefused) and isinstance(error.body, dict) else {}
    said = details.get("error")
    more = (said[:500],) if isinstance(said, str) else ()
    return Notice("code-server could not be started", (error.message, *more), back=back)


def app_away(condition: Condition, name: str, error: ControlPlaneError, start: str) -> Notice:
    """For whoever may see the IDE of `name`, whose port does not answer."""
    if condition is Condition.STOPPED:
        return Notice("code-server is stopped", (f"It does not run in {name}. Start it to open the IDE.",), True, start)
    if condition is Condition.STARTING:
        return Notice("code-server is starting", (f"It does not answer in {name} yet; this takes seconds.",), True)
    if condition is Condition.AGENT_AWAY:
        return Notice(
            f"{name} cannot be reached",
            ("Its container may be stopped, or the network to it down. Start it from the dashboard if it is stopped.",),
            retries=True,
        )
    return Notice(
        "The IDE does not answer",
        (f"Nothing listens on the IDE's port of {name}, or it is busy. {error.message}", "Starting it may help."),
        retries=True,
        start=start,
    )
