"""Pages for people: the front page and the API's description. No script, no style from elsewhere."""

from __future__ import annotations

from typing import Any

import tornado.template

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
{% set body = operation.get("requestBody") %}{% if body %}<ul>
{% set schema = body["content"]["application/json"]["schema"] %}
{% for name, rule in schema["properties"].items() %}<li><code>{{ name }}</code>
{{ rule["type"] if isinstance(rule["type"], str) else " or ".join(rule["type"]) }}{% if name in schema["required"] %},
required{% end %}{% if "enum" in rule %}: {{ ", ".join(rule["enum"]) }}{% end %}</li>{% end %}
</ul>{% end %}</section>
{% end %}{% end %}
</body></html>
"""
)

_INDEX = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>controlplane</title>
<style>:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem;
margin: 4rem auto; padding: 0 1rem; }</style></head><body>
<h1>controlplane</h1><p>The control plane is running. Its API is described under <a href="/docs">/docs</a>;
<a href="/readyz">/readyz</a> says whether it is ready, and why not.</p></body></html>
"""


def render_docs(document: dict[str, Any]) -> bytes:
    return _DOCS.generate(document=document)


class DocsHandler(ApiHandler):
    def initialize(self, page: bytes, **kwargs: object) -> None:  # type: ignore[override]
        super().initialize(**kwargs)  # type: ignore[arg-type]
        self._page = page

    def on_get(self) -> Answer:
        return Answer(self._page, headers=_HTML)


class IndexHandler(ApiHandler):
    def on_get(self) -> Answer:
        return Answer(_INDEX, headers=_HTML)
