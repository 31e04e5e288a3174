"""The routes: the page and its assets, files read and saved, and answers that a proxy has to treat well."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from controlplane.demo.web_ide.sockets import Echo, Flood, Refused, TerminalSocket
from controlplane.demo.web_ide.terminals import Terminals

SAVE_LIMIT_BYTES = 256 << 20
LIST_LIMIT = 500
SENT_BYTES = 256 << 10
PAGE = Path(__file__).parent / "page"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def make_app(folder: Path, terminals: Terminals) -> Application:
    return Application(
        [
            (r"/", Page, {"folder": folder}),
            (r"/(ide\.css|ide\.js|worker\.js|icon\.svg)", Asset),
            (r"/healthz", Health),
            (r"/api/files", FileList, {"folder": folder}),
            (r"/api/files/(.+)", File, {"folder": folder}),
            (r"/api/seen(?:/.*)?", Seen),
            (r"/api/answer", Answer),
            (r"/api/parts", Parts),
            (r"/proxy/([0-9]+)", Port),
            (r"/proxy/([0-9]+)/.*", PortPage),
            (r"/terminal", TerminalSocket, {"terminals": terminals}),
            (r"/echo", Echo),
            (r"/flood", Flood),
            (r"/refuse/(401|403|404)", Refused),
        ],
        compress_response=True,
        websocket_max_message_size=SAVE_LIMIT_BYTES,
        log_function=lambda _handler: None,
    )


class Page(RequestHandler):
    """As code-server: `/` leads to `./?folder=`, relative to wherever it is served."""

    def initialize(self, folder: Path) -> None:
        self._folder = folder

    async def get(self) -> None:
        if not self.get_query_argument("folder", ""):
            self.set_status(302)
            self.set_header("Location", f"./?folder={quote(str(self._folder))}")
            return
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Set-Cookie", "web-ide-seen=1; Domain=localhost; Path=/; SameSite=Lax")
        self.finish(await asyncio.to_thread((PAGE / "index.html").read_bytes))


class Asset(RequestHandler):
    """With ETag and 304 by Tornado, gzip by Accept-Encoding, and the claim of a worker on everything."""

    async def get(self, name: str) -> None:
        self.set_header("Content-Type", KINDS[Path(name).suffix])
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Credentials", "true")
        if name == "worker.js":
            self.set_header("Service-Worker-Allowed", "/")
        self.finish(await asyncio.to_thread((PAGE / name).read_bytes))


class Health(RequestHandler):
    def get(self) -> None:
        self.finish({"status": "alive"})


# -- files -------------------------------------------------------------------------------------------------------------


class FileList(RequestHandler):
    def initialize(self, folder: Path) -> None:
        self._folder = folder

    async def get(self) -> None:
        self.finish({"folder": self._folder.name, "files": await asyncio.to_thread(_list_files, self._folder)})


@stream_request_body
class File(RequestHandler):
    """GET reads; PUT and POST save the raw body, whole or not at all."""

    def initialize(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        self._path = _inside(self._folder, self.path_args[0])
        self._fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")
        self._hash = hashlib.sha256()
        self._received_bytes = 0
        if self.request.method in ("PUT", "POST"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._fresh.open("wb")

    def data_received(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._received_bytes += len(chunk)
        self._file.write(chunk)

    async def get(self, _name: str) -> None:
        try:
            content = await asyncio.to_thread(self._path.read_bytes)
        except OSError as error:
            raise HTTPError(404) from error
        self.set_header("Content-Type", "application/octet-stream")
        for start in range(0, len(content), SENT_BYTES):
            self.write(content[start : start + SENT_BYTES])
            await self.flush()

    def put(self, _name: str) -> None:
        self._file.close()
        self._fresh.replace(self._path)
        self.finish({"bytes": self._received_bytes, "sha256": self._hash.hexdigest()})

    post = put

    def on_connection_close(self) -> None:
        if self.request.method in ("PUT", "POST"):
            self._file.close()
            self._fresh.unlink(missing_ok=True)


def _list_files(folder: Path) -> list[str]:
    def walk() -> Iterator[str]:
        for place, folders, names in os.walk(folder):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    yield str((Path(place) / name).relative_to(folder))

    return [name for name, _ in zip(walk(), range(LIST_LIMIT), strict=False)]


def _inside(folder: Path, name: str) -> Path:
    """Raises HTTPError 404 for what lies outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or path == folder:
        raise HTTPError(404)
    return path


# -- what a proxy has to treat well ------------------------------------------------------------------------------------


class Seen(RequestHandler):
    """Any method: what arrived, header by header, as it arrived."""

    def _tell(self) -> None:
        body: dict[str, Any] = {
            "method": self.request.method,
            "target": self.request.uri,
            "headers": list(self.request.headers.get_all()),
            "bodyBytes": len(self.request.body),
        }
        self.finish(body)

    get = post = put = patch = delete = _tell


class Answer(RequestHandler):
    """`?status=&header=Name:value&body=`: answers so, with headers repeated as given."""

    def get(self) -> None:
        self.set_status(int(self.get_query_argument("status", "200")))
        for line in self.get_query_arguments("header"):
            name, _, value = line.partition(":")
            self.add_header(name, value)
        self.finish(self.get_query_argument("body", ""))

    post = get


class Parts(RequestHandler):
    """A chunked answer whose second part is sent when somebody has POSTed here: whoever waits for it sees the first."""

    waiting: asyncio.Event | None = None

    async def get(self) -> None:
        released = Parts.waiting = asyncio.Event()
        self.set_header("Content-Type", "text/event-stream")
        self.write("data: first\n\n")
        await self.flush()
        await released.wait()
        self.finish("data: second\n\n")

    def post(self) -> None:
        if Parts.waiting is not None:
            Parts.waiting.set()


class Port(RequestHandler):
    """As code-server's port forwarding: the slash is added with a root-absolute address."""

    def get(self, port: str) -> None:
        self.set_status(302)
        self.set_header("Location", f"/proxy/{port}/")


class PortPage(RequestHandler):
    def get(self, port: str) -> None:
        self.finish(f"port {re.sub('[^0-9]', '', port)}")
