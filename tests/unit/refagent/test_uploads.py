"""The agent's gate for uploads: who was told that a file has arrived is in nobody's way any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import bind_unused_port
from tornado.web import Application  # noqa: TID251 - to stand one handler of the reference agent in

from controlplane.refagent.uploads import Upload, UploadGate

TOKEN = "test-token-0123456789"


class HeldExecutor(Executor):
    """Lets the first `free` calls through, and holds the others until `release`."""

    def __init__(self, free: int) -> None:
        self._workers = ThreadPoolExecutor(4)
        self._free = free
        self._may_go_on = threading.Event()
        self.is_holding = asyncio.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._free:
            self._free -= 1
            return self._workers.submit(fn, *args, **kwargs)
        self.is_holding.set()
        return self._workers.submit(lambda: (self._may_go_on.wait(), fn(*args, **kwargs))[1])

    def release(self) -> None:
        self._may_go_on.set()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._workers.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.gen_test(timeout=30)
async def test_an_upload_that_was_told_to_have_arrived_keeps_no_restore_out(tmp_path: Path) -> None:
    for folder in ("files", "staging"):
        (tmp_path / folder).mkdir()
    executor = HeldExecutor(free=2)  # the file is made, and put in its place; giving it up is held
    gate = UploadGate(tmp_path / "files", tmp_path / "staging", None, executor)
    server = HTTPServer(Application([("/upload", Upload, {"gate": gate})], token=TOKEN))
    listener, port = bind_unused_port()
    server.add_socket(listener)
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        request = HTTPRequest(
            f"http://127.0.0.1:{port}/upload?path=world.bin",
            method="POST",
            body=b"",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        answer = asyncio.ensure_future(client.fetch(request))
        await executor.is_holding.wait()
        elsewhere = f"http://127.0.0.1:{port}/"
        assert (await client.fetch(elsewhere, raise_error=False)).code == 404  # an answer would have come by now
        assert not answer.done()
        executor.release()
        assert (await answer).code == 201
        gate.shut("a restore")
    finally:
        executor.release()
        server.stop()
        await server.close_all_connections()
        client.close()
        executor.shutdown()
