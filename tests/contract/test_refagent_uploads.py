"""Uploads to the reference agent over real sockets: where they may land, and what is left when they end early."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest

from tests.file_trees import sizes_below
from tests.refagent_process import TOKEN, AgentProcess, until

IDLE = ("/bin/sh", "-c", "cat >/dev/null")
LIMIT = 40_000_000


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent") / "data"
    with AgentProcess(folder, IDLE, "--max-upload-bytes", str(LIMIT)) as agent:
        yield agent


async def until_nothing_is_staged(agent: AgentProcess) -> None:
    async def empty() -> bool:
        return not sizes_below(agent.folder / "staging")

    await until(empty)


class RawUpload:
    """An upload written by hand, so that it can stop anywhere."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def begin(cls, agent: AgentProcess, path: str, *headers: str) -> RawUpload:
        parts = urlsplit(agent.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = (
            f"POST /game/files/upload?path={quote(path)} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Authorization: Bearer {TOKEN}",
            *headers,
        )
        writer.write("\r\n".join((*head, "", "")).encode())
        await writer.drain()
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int:
        async with asyncio.timeout(60):
            head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.mark.gen_test
async def test_a_file_arrives_whole_in_folders_that_are_made_for_it(agent: AgentProcess) -> None:
    content = os.urandom(3_000_000)
    answer = await agent.call("POST", "/game/files/upload?path=plugins/deep/tool.jar", content)
    assert answer.status == 201
    assert answer.body == {"path": "plugins/deep/tool.jar", "sizeBytes": len(content)}
    assert (agent.files / "plugins/deep/tool.jar").read_bytes() == content


@pytest.mark.gen_test
async def test_a_replaced_script_keeps_its_mode(agent: AgentProcess) -> None:
    script = agent.files / "start.sh"
    script.write_text("old")
    script.chmod(0o755)
    assert (await agent.call("POST", "/game/files/upload?path=start.sh", b"new")).status == 201
    assert script.read_text() == "new"
    assert script.stat().st_mode & 0o777 == 0o755


@pytest.mark.gen_test
async def test_an_empty_body_makes_an_empty_file(agent: AgentProcess) -> None:
    assert (await agent.call("POST", "/game/files/upload?path=empty", b"")).status == 201
    assert (agent.files / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../outside",
        "a/../../outside",
        "a/..",
        "a/./b",
        "a//b",
        "a/",
        "/etc/passwd",
        "//etc/passwd",
        "..\\outside",
        "a\\b",
        "nul\0byte",
        "line\nbreak",
        "delete\x7f",
        "bidi\u202e",
        " leading",
        "trailing ",
        "x" * 256,
        "d/" * 33 + "deep",
        "/".join(["long" * 50] * 6),
    ],
)
@pytest.mark.gen_test
async def test_a_path_that_is_not_plainly_below_is_refused(agent: AgentProcess, path: str) -> None:
    before = sizes_below(agent.folder)
    answer = await agent.call("POST", f"/game/files/upload?path={quote(path, safe='')}", b"owned")
    assert answer.status == 422
    assert sizes_below(agent.folder) == before


@pytest.mark.parametrize("query", ["", "?path=", "?path=a&path=b", "?path=%ff%fe"])
@pytest.mark.gen_test
async def test_a_path_must_be_given_once_in_utf8(agent: AgentProcess, query: str) -> None:
    assert (await agent.call("POST", f"/game/files/upload{query}", b"x")).status == 422


@pytest.mark.gen_test
async def test_no_symbolic_link_is_followed_or_replaced(agent: AgentProcess, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    links = {"out": outside, "inside": agent.files, "file": outside / "secret", "up": Path(".."), "gone": Path("none")}
    for name, target in links.items():
        (agent.files / name).symlink_to(target)
    try:
        for path in ("out/new", "inside/new", "file", "up/new", "gone", "gone/new", "out/a/b"):
            answer = await agent.call("POST", f"/game/files/upload?path={path}", b"owned")
            assert (answer.status, answer.body["code"]) == (403, "path_refused"), path
        assert sizes_below(outside) == {Path("secret"): len("untouched")}
    finally:
        for name in links:
            (agent.files / name).unlink()


@pytest.mark.gen_test
async def test_what_is_in_the_way_is_named(agent: AgentProcess) -> None:
    (agent.files / "folder").mkdir()
    (agent.files / "plain").write_text("x")
    over_folder = await agent.call("POST", "/game/files/upload?path=folder", b"x")
    assert (over_folder.status, over_folder.body["code"]) == (409, "not_a_file")
    below_file = await agent.call("POST", "/game/files/upload?path=plain/x", b"x")
    assert (below_file.status, below_file.body["code"]) == (409, "not_a_folder")


@pytest.mark.gen_test
async def test_a_client_that_goes_away_leaves_no_file(agent: AgentProcess) -> None:
    (agent.files / "kept").write_text("old content")
    for headers, data in (
        ("Content-Length: 30000000", os.urandom(2_000_000)),
        ("Transfer-Encoding: chunked", b"1000\r\n" + b"x" * 4096 + b"\r\n1000\r\nhalf"),
    ):
        upload = await RawUpload.begin(agent, "kept", headers)
        await upload.send(data)

        async def staged() -> bool:
            return bool(sizes_below(agent.folder / "staging"))

        await until(staged)
        await upload.close()
        await until_nothing_is_staged(agent)
        assert (agent.files / "kept").read_text() == "old content"


@pytest.mark.gen_test
async def test_a_length_over_the_limit_is_refused_before_the_body(agent: AgentProcess) -> None:
    upload = await RawUpload.begin(agent, "big", f"Content-Length: {LIMIT + 1}")
    assert await upload.status() == 413
    await upload.close()
    assert not (agent.files / "big").exists()


@pytest.mark.gen_test
async def test_a_chunked_body_is_refused_half_way_and_the_answer_arrives(agent: AgentProcess) -> None:
    upload = await RawUpload.begin(agent, "big", "Transfer-Encoding: chunked")
    answered = asyncio.create_task(upload.status())
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with contextlib.suppress(ConnectionError):  # who still sends some seconds after the answer is cut off
        for _ in range(LIMIT // (1 << 20) + 4):
            await upload.send(chunk)
    assert await answered == 413
    await upload.close()
    await until_nothing_is_staged(agent)
    assert not (agent.files / "big").exists()


@pytest.mark.gen_test
async def test_who_waits_for_permission_gets_it_or_the_refusal(agent: AgentProcess) -> None:
    allowed = await RawUpload.begin(agent, "asked", "Content-Length: 3", "Expect: 100-continue")
    assert await allowed.status() == 100
    await allowed.send(b"yes")
    assert await allowed.status() == 201
    await allowed.close()
    refused = await RawUpload.begin(agent, "../asked", "Content-Length: 3", "Expect: 100-continue")
    assert await refused.status() == 422
    await refused.close()


@pytest.mark.gen_test
async def test_a_form_is_refused(agent: AgentProcess) -> None:
    answer = await agent.call(
        "POST", "/game/files/upload?path=form", b"--x--", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert (answer.status, answer.body["code"]) == (415, "raw_body_wanted")


@pytest.mark.gen_test
async def test_too_many_uploads_at_once_are_refused_and_the_places_come_back(agent: AgentProcess) -> None:
    uploads = [await RawUpload.begin(agent, f"many/{number}", "Content-Length: 10") for number in range(8)]

    async def all_entered() -> bool:
        return len(sizes_below(agent.folder / "staging")) == 8

    await until(all_entered)
    answer = await agent.call("POST", "/game/files/upload?path=many/one-more", b"x")
    assert (answer.status, answer.body["code"]) == (503, "too_many_uploads")
    for upload in uploads:
        await upload.send(b"0123456789")
        assert await upload.status() == 201
        await upload.close()
    assert (await agent.call("POST", "/game/files/upload?path=many/one-more", b"x")).status == 201


@pytest.mark.gen_test(timeout=110)  # 400 MB onto a disk that others use too
async def test_a_large_upload_does_not_grow_the_agent(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "data", IDLE) as agent:
        size = 400 << 20
        piece = bytes(1 << 20)
        memory = psutil.Process(agent.process.pid)
        for warm_up in (True, False):
            total = 32 << 20 if warm_up else size
            upload = await RawUpload.begin(agent, "large", f"Content-Length: {total}")
            before = memory.memory_info().rss
            grown = 0
            for _ in range(total >> 20):
                await upload.send(piece)
                grown = max(grown, memory.memory_info().rss - before)
            assert await upload.status() == 201
            await upload.close()
        assert (agent.files / "large").stat().st_size == size
        assert grown < 8 << 20
