"""Which editor a local dev container gets."""

from __future__ import annotations

import shlex
from pathlib import Path

from controlplane.models import InstanceKind
from controlplane.provisioning.local_editor import INSTALLED, editor_command
from controlplane.provisioning.local_workloads import PROFILES
from controlplane.refagent.options import parse


def test_a_real_code_server_is_taken_where_it_is_installed(tmp_path: Path) -> None:
    installed = tmp_path / INSTALLED
    installed.parent.mkdir(parents=True)
    installed.touch()
    words = shlex.split(editor_command(tmp_path, which=lambda _: "/usr/bin/code-server"))
    assert words[0] == str(installed)
    assert words[1:5] == ["--auth", "none", "--bind-addr", "127.0.0.1:{ide_port}"]
    assert words[words.index("--user-data-dir") + 1] == "../code-server"  # of this container alone
    installed.unlink()
    assert shlex.split(editor_command(tmp_path, which=lambda _: "/usr/bin/code-server"))[0] == "/usr/bin/code-server"


def test_else_it_is_the_small_web_ide(tmp_path: Path) -> None:
    words = shlex.split(editor_command(tmp_path, which=lambda _: None))
    assert words[1:] == ["-m", "controlplane.demo.web_ide", "--port", "{ide_port}"]


def test_the_agent_of_a_dev_container_is_told_of_it_with_the_machines_port() -> None:
    options = PROFILES[InstanceKind.DEV].agent_options("workshop", 18_080)
    read = parse(("--port", "1", "--token", "t" * 16, "--dir", "/tmp/x", *options), {})
    assert read.codeserver_port == 18_080
    assert read.codeserver_command is not None
    assert any("18080" in word for word in read.codeserver_command)
    assert PROFILES[InstanceKind.GAME].codeserver is None
