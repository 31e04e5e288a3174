from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.refagent.options import parse

NEEDED = ("--port", "0", "--dir", "somewhere")


def test_everything_after_the_dashes_is_the_command() -> None:
    options = parse([*NEEDED, "--token", "secret", "--", "game", "--port", "7", "--", "x"], {})
    assert options.command == ("game", "--port", "7", "--", "x")
    assert options.port == 0
    assert options.folder == Path("somewhere").resolve()
    assert options.start_on_boot


def test_the_token_does_not_show_in_the_record() -> None:
    assert "secret" not in repr(parse([*NEEDED, "--token", "secret", "--", "game"], {}))


def test_a_token_file_comes_before_the_command_line_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment = {"AGENT_TOKEN": "from-environment"}
    assert parse([*NEEDED, "--", "game"], environment).token == "from-environment"
    assert parse([*NEEDED, "--token", "given", "--", "game"], environment).token == "given"
    both = parse([*NEEDED, "--token", "given", "--token-file", str(file), "--", "game"], environment)
    assert both.token == "from-file"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*NEEDED, "--token", "t"], "after --"),
        ([*NEEDED, "--token", "t", "--"], "after --"),
        ([*NEEDED, "--", "game"], "a token is needed"),
        ([*NEEDED, "--token", "two words", "--", "game"], "printable ASCII"),
        ([*NEEDED, "--token-file", "/no/such/file", "--", "game"], "--token-file"),
        ([*NEEDED, "--token", "t", "--ready-pattern", "(", "--", "game"], "--ready-pattern"),
        ([*NEEDED, "--token", "t", "--ready-pattern", "x", "--ready-port", "1", "--", "game"], "not allowed with"),
        ([*NEEDED, "--token", "t", "--stop-line", "a\nb", "--", "game"], "--stop-line"),
        ([*NEEDED, "--token", "t", "--stop-seconds", "0", "--", "game"], "--stop-seconds"),
        ([*NEEDED, "--token", "t", "--codeserver-command", "'", "--", "game"], "--codeserver-command"),
        (["--port", "65536", "--dir", "d", "--token", "t", "--", "game"], "--port"),
        (["--dir", "d", "--token", "t", "--", "game"], "--port"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(arguments, {})
    assert refused.value.code == 2
    assert named in capsys.readouterr().err
