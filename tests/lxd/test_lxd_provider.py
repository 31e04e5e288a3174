"""The LXD provider against a real LXD: what it makes can be used, what is not its own it leaves alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.ioloop import IOLoop

from controlplane.errors import ProviderRefused, ProviderUnavailable, VmidTaken
from controlplane.models import InstanceKind, Machine, MachineSpec
from controlplane.provisioning.lxd import LxdProvider
from controlplane.settings import Settings
from controlplane.wiring.providers import make_lxd
from tests.control_plane_process import SECRETS
from tests.lxd.house import IMAGE, TOKEN_PATH, Lxd, free_ports
from tests.refagent_process import until

pytestmark = pytest.mark.timeout(300)

VMID = 10_000
SPEC = MachineSpec(
    vmid=VMID,
    operation_id="op_first",
    kind=InstanceKind.GAME,
    hostname="testholm",
    cores=1,
    memory_mib=256,
    disk_gib=2,
    agent_token="a-secret-of-one-instance-0123456789",
)


def make(lxd: Lxd, seed: Path, **changes: str) -> LxdProvider:
    return make_lxd(
        Settings.from_env(
            {
                **SECRETS,
                "LXD_URL": lxd.url,
                "LXD_GAME_IMAGE": IMAGE,
                "LXD_GAME_SEED": str(seed),
                "LXD_ADDRESS": "proxy",
                "LXD_PROXY_FIRST_PORT": str(free_ports(20)),
                "LXD_SHUTDOWN_SECONDS": "5",
                **changes,
            }
        )
    )


@pytest.fixture
def provider(lxd: Lxd, seed: Path, io_loop: IOLoop) -> Iterator[LxdProvider]:
    async def build() -> LxdProvider:
        return make(lxd, seed)

    made = io_loop.run_sync(build)
    yield made
    io_loop.run_sync(made.close)


async def ask(url: str, token: str, method: str = "GET", body: bytes | None = None) -> HTTPResponse | None:
    """None where nobody answers."""
    client = AsyncHTTPClient(force_instance=True)
    request = HTTPRequest(url, method=method, body=body, headers={"Authorization": f"Bearer {token}"})
    try:
        return await client.fetch(request, raise_error=False)
    except OSError:
        return None
    finally:
        client.close()


@pytest.mark.gen_test(timeout=280)
async def test_a_container_is_made_with_its_agent_and_serves_until_it_is_destroyed(
    lxd: Lxd, provider: LxdProvider
) -> None:
    assert await provider.find(VMID) is None
    assert await provider.locate(VMID) is None

    await provider.create(SPEC)
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)
    made = lxd.get(f"/instances/cp-{VMID}")
    assert made["config"]["limits.cpu"] == "1"
    assert made["config"]["limits.memory"] == "256MiB"
    assert made["devices"]["root"]["size"] == "2GiB"
    assert SPEC.agent_token not in json.dumps(made)
    await provider.create(SPEC)  # asked again, it is there already

    await provider.start(VMID)
    await provider.start(VMID)
    assert await provider.find(VMID) == Machine(VMID, "op_first", True)
    address = await provider.locate(VMID)
    assert address is not None
    url = f"http://{address.address}:{address.port}"

    async def is_ready() -> bool:
        answer = await ask(f"{url}/ready", SPEC.agent_token)
        return answer is not None and answer.code == 200 and json.loads(answer.body)["ready"] is True

    await until(is_ready, seconds=120)
    refused = await ask(f"{url}/status", "another-secret")
    assert refused is not None
    assert refused.code == 401

    await provider.stop(VMID)
    await provider.stop(VMID)
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)
    await provider.start(VMID)
    await until(is_ready, seconds=120)

    await provider.destroy(VMID, operation_id="op_first")  # running
    await provider.destroy(VMID, operation_id="op_first")
    assert await provider.find(VMID) is None
    assert lxd.names() == []
    await provider.stop(VMID)


@pytest.mark.gen_test(timeout=280)
async def test_a_neighbour_is_seen_and_never_touched(lxd: Lxd, provider: LxdProvider) -> None:
    await asyncio.to_thread(lxd.make_neighbour, f"cp-{VMID}")
    await asyncio.to_thread(lxd.make_neighbour, "somebody-else")
    assert await provider.find(VMID) == Machine(VMID, None, True)
    with pytest.raises(VmidTaken):
        await provider.create(SPEC)
    with pytest.raises(ProviderRefused):
        await provider.destroy(VMID, operation_id=SPEC.operation_id)
    assert await provider.list_marked() == []
    assert lxd.names() == [f"cp-{VMID}", "somebody-else"]
    assert lxd.get(f"/instances/cp-{VMID}/state")["status"] == "Running"


@pytest.mark.gen_test(timeout=280)
async def test_another_operations_and_another_installations_containers_are_not_ours_to_destroy(
    lxd: Lxd, seed: Path, provider: LxdProvider
) -> None:
    await provider.create(SPEC)
    for other in ("op_second", ""):
        with pytest.raises(ProviderRefused):
            await provider.destroy(VMID, operation_id=other)
    with pytest.raises(VmidTaken):
        await provider.create(replace(SPEC, operation_id="op_second"))
    staging = make(lxd, seed, LXD_MARK="staging")
    assert await staging.find(VMID) == Machine(VMID, None, False)
    assert await staging.list_marked() == []
    with pytest.raises(ProviderRefused):
        await staging.destroy(VMID, operation_id="op_first")
    await staging.close()
    assert await provider.list_marked() == [Machine(VMID, "op_first", False)]


@pytest.mark.gen_test(timeout=280)
async def test_two_that_make_one_vmid_at_once_make_one_container(lxd: Lxd, provider: LxdProvider) -> None:
    results = await asyncio.gather(
        provider.create(SPEC), provider.create(replace(SPEC, operation_id="op_second")), return_exceptions=True
    )
    assert [type(each) for each in results if each is not None] == [VmidTaken]
    winner = ("op_first", "op_second")[results.index(None)]
    assert await provider.find(VMID) == Machine(VMID, winner, False)


@pytest.mark.gen_test(timeout=280)
async def test_what_lxd_refuses_is_a_refusal_with_its_words_and_leaves_nothing(
    lxd: Lxd, seed: Path, provider: LxdProvider
) -> None:
    wrong = make(lxd, seed, LXD_GAME_IMAGE="no-such-image")
    with pytest.raises(ProviderRefused) as no_image:
        await wrong.create(SPEC)
    await wrong.close()
    wrong = make(lxd, seed, LXD_STORAGE_POOL="no-such-pool")
    with pytest.raises(ProviderRefused) as no_pool:
        await wrong.create(SPEC)
    await wrong.close()
    with pytest.raises(ProviderRefused) as no_ports:
        await provider.create(replace(SPEC, vmid=VMID - 1))
    for refused, words in ((no_image, "no-such-image"), (no_pool, "no-such-pool"), (no_ports, "LXD_PROXY_FIRST")):
        assert words in refused.value.operator_message or "not found" in refused.value.operator_message
        assert "LXD" not in refused.value.message
    assert lxd.names() == []


@pytest.mark.gen_test(timeout=280)
async def test_a_port_in_use_is_a_refused_start(lxd: Lxd, provider: LxdProvider) -> None:
    await provider.create(SPEC)
    address = await provider.locate(VMID)
    assert address is not None
    squatter = await asyncio.start_server(lambda reader, writer: writer.close(), address.address, address.port)
    with pytest.raises(ProviderRefused) as refused:
        await provider.start(VMID)
    squatter.close()
    await squatter.wait_closed()
    # LXD mostly adds that the address is in use, and now and then only that it heard nothing of its listener.
    assert "when starting proxy device" in refused.value.operator_message
    assert await provider.find(VMID) == Machine(VMID, "op_first", False)


@pytest.mark.gen_test(timeout=280)
async def test_the_daemon_killed_in_the_middle_of_a_creation_leaves_nothing_that_a_second_try_does_not_mend(
    lxd: Lxd, provider: LxdProvider
) -> None:
    creating = asyncio.create_task(provider.create(SPEC))

    async def is_killed_in_the_middle() -> bool:
        # Both without letting this loop run: a creation has several requests, and makes none of them meanwhile.
        if f"cp-{VMID}" not in lxd.names():
            return False
        lxd.kill()
        return True

    await until(is_killed_in_the_middle)
    with pytest.raises(ProviderUnavailable) as lost:
        await creating
    assert "unix.socket" in lost.value.operator_message or "operation" in lost.value.operator_message
    with pytest.raises(ProviderUnavailable):
        await provider.find(VMID)

    await asyncio.to_thread(lxd.start)
    half = await provider.find(VMID)
    if half is not None:
        assert (half.operation_id, half.is_complete) == ("op_first", False)
        with pytest.raises(ProviderRefused):
            await provider.start(VMID)
    await provider.create(SPEC)
    await provider.start(VMID)
    assert await provider.find(VMID) == Machine(VMID, "op_first", True)
    await provider.destroy(VMID, operation_id="op_first")
    assert lxd.names() == []


@pytest.mark.gen_test(timeout=280)
async def test_cloud_init_gets_the_secret_where_the_image_has_it(lxd: Lxd, seed: Path, provider: LxdProvider) -> None:
    by_cloud_init = make(lxd, seed, LXD_SECRET="cloud-init")
    await by_cloud_init.create(SPEC)
    user_data = lxd.get(f"/instances/cp-{VMID}")["config"]["cloud-init.user-data"]
    first, _, document = user_data.partition("\n")
    assert first == "#cloud-config"
    (file,) = json.loads(document)["write_files"]
    assert (file["path"], file["permissions"]) == (TOKEN_PATH, "0600")
    assert file["content"].strip() == SPEC.agent_token
    await by_cloud_init.close()


@pytest.mark.gen_test(timeout=280)
async def test_over_https_both_sides_are_known_by_their_certificates(
    lxd: Lxd, seed: Path, provider: LxdProvider, tmp_path: Path
) -> None:
    port = free_ports(1)
    lxd.call("PATCH", "", {"config": {"core.https_address": f"127.0.0.1:{port}"}})
    key, certificate = tmp_path / "client.key", tmp_path / "client.crt"
    command = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-nodes"),
        *("-keyout", key, "-out", certificate, "-subj", "/CN=controlplane", "-days", "2"),
    )
    await asyncio.to_thread(lambda: subprocess.run(command, check=True, capture_output=True))
    server = lxd.folder / "lxd" / "server.crt"
    over_https = {
        "LXD_URL": f"https://127.0.0.1:{port}",
        "LXD_CLIENT_CERTIFICATE_FILE": str(certificate),
        "LXD_CLIENT_KEY_FILE": str(key),
    }
    stranger = make(lxd, seed, **over_https, LXD_SERVER_CERTIFICATE_FILE=str(server))
    with pytest.raises(ProviderRefused) as not_trusted:
        await stranger.find(VMID)
    assert "403" in not_trusted.value.operator_message
    body = "".join(certificate.read_text().split("-----")[2].split())
    lxd.call("POST", "/certificates", {"name": "controlplane", "type": "client", "certificate": body})
    await stranger.create(SPEC)
    assert await stranger.find(VMID) == Machine(VMID, "op_first", False)
    await stranger.close()

    impostor = make(lxd, seed, **over_https, LXD_SERVER_CERTIFICATE_FILE=str(certificate))
    with pytest.raises(ProviderUnavailable) as refused:
        await impostor.find(VMID)
    assert "certificate" in refused.value.operator_message.lower()
    await impostor.close()
    lxd.call("PATCH", "", {"config": {"core.https_address": ""}})
