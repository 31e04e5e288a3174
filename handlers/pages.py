"""Pages for people: the dashboard with its files, and the API's description. Nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tornado.template

from controlplane.errors import NotFound
from handlers.assets import Asset
from handlers.base import Answer, ApiHandler

_HTML = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

_DOCS = tornado.template.Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>controlplane API</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
section { border-top: 1px solid #8886; padding: .7rem 0; }
h2 { font-size: 1rem; margin: 0; } .method { font-weight: 700; display: inline-block; min-width: 4rem; }
p { margin: .2rem 0; } .access { opacity: .75; font-size: .9em; } ul { margin: .2rem 0; padding-left: 1.2rem; }
</style></head><body>
<h1>controlplane API</h1>
<p>Version {{ document["info"]["version"] }}. The same for machines: <a href="/api/openapi.json">openapi.json</a>.
Every call but the public ones needs <code>Authorization: Bearer …</code>.</p>
{% for path, operations in document["paths"].items() %}{% for method, operation in operations.items() %}
<section><h2><span class="method">{{ method.upper() }}</span> <code>{{ path }}</code></h2>
<p>{{ operation["summary"] }}</p>
<p class="access">{{ operation["x-access"] }}{% if "x-scope" in operation %} · scope
<code>{{ operation["x-scope"] }}</code>{% end %}</p>
{% set body = operation.get("requestBody") %}
{% if body and "application/json" in body["content"] %}<ul>
{% set schema = body["content"]["application/json"]["schema"] %}
{% for name, rule in schema["properties"].items() %}<li><code>{{ name }}</code>
{{ rule["type"] if isinstance(rule["type"], str) else " or ".join(rule["type"]) }}{% if name in schema["required"] %},
required{% end %}{% if "enum" in rule %}: {{ ", ".join(rule["enum"]) }}{% end %}</li>{% end %}
</ul>{% end %}</section>
{% end %}{% end %}
</body></html>
"""
)

_PAGE_HEADERS = {
    # The page runs its own modules and nothing else, and talks to its own origin alone ('self' covers its websocket).
    # Not even styles are let in inline: those that xterm.js makes are turned into constructed sheets, which a policy
    # allows to code that runs already (static/js/terminal-styles.js).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
}


def render_docs(document: dict[str, Any]) -> bytes:
    return _DOCS.generate(document=document)


class DocsHandler(ApiHandler):
    def initialize(self, page: bytes, **kwargs: object) -> None:  # type: ignore[override]
        super().initialize(**kwargs)  # type: ignore[arg-type]
        self._page = page

    def on_get(self) -> Answer:
        return Answer(self._page, headers=_HTML)


class AssetHandler(ApiHandler):
    """The page's files, revalidated by every load: their names stay the same when their content changes."""

    def initialize(self, assets: Mapping[str, Asset], **kwargs: object) -> None:  # type: ignore[override]
        super().initialize(**kwargs)  # type: ignore[arg-type]
        self._assets = assets

    def on_get(self, path: str) -> Answer:
        asset = self._assets.get(path)
        if asset is None:
            raise NotFound
        etag, body = asset.etag, asset.body
        self.set_header("Content-Type", asset.content_type)
        self.set_header("Cache-Control", "public, no-cache")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        if asset.compressed is not None:
            self.add_header("Vary", "Accept-Encoding")
            if _takes_gzip(self.request.headers.get("Accept-Encoding", "")):
                etag, body = asset.compressed_etag, asset.compressed
                self.set_header("Content-Encoding", "gzip")
        self.set_header("ETag", etag)
        if self.check_etag_header():
            self.clear_header("Content-Encoding")
            return Answer(status=304)
        return Answer(body)


class IndexHandler(AssetHandler):
    def on_get(self) -> Answer:  # type: ignore[override]
        for name, value in _PAGE_HEADERS.items():
            self.set_header(name, value)
        return super().on_get("index.html")


def _takes_gzip(accepted: str) -> bool:
    """RFC 9110 section 12.5.3, as far as browsers use it: gzip named, and not with a weight of zero."""
    for part in accepted.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in ("gzip", "x-gzip"):
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False
