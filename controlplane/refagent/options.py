"""The command line of the agent, read once into a frozen record."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TOKEN_VARIABLE = "AGENT_TOKEN"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class Options:
    """Everything the agent can be told. Sizes in bytes, times in seconds."""

    address: str
    port: int
    token: str = field(repr=False)
    folder: Path
    command: tuple[str, ...]
    terminal: bool
    ready_pattern: re.Pattern[str] | None
    ready_port: int | None
    stop_line: str | None
    stop_seconds: float
    start_on_boot: bool
    crash_restart: bool
    console_lines: int
    codeserver_command: tuple[str, ...] | None
    codeserver_port: int
    max_upload_bytes: int | None
    die_with_parent: bool

    @property
    def files(self) -> Path:
        """The server's own files: what is run in, uploaded to, backed up and restored."""
        return self.folder / "files"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def staging(self) -> Path:
        """What is under way: half uploads, half archives, restores. Emptied at start."""
        return self.folder / "staging"


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Exits with status 2 and a message when something is missing or wrong."""
    parser = _parser()
    own, command = _split(arguments)
    given = parser.parse_args(own)
    if not command:
        parser.error("name the command to supervise after --")
    return Options(
        address=given.address,
        port=given.port,
        token=_token(parser, given, environment),
        folder=Path(given.dir).resolve(),
        command=command,
        terminal=given.pty,
        ready_pattern=given.ready_pattern,
        ready_port=given.ready_port,
        stop_line=given.stop_line,
        stop_seconds=given.stop_seconds,
        start_on_boot=given.start_on_boot,
        crash_restart=given.crash_restart == "yes",
        console_lines=given.console_lines,
        codeserver_command=given.codeserver_command,
        codeserver_port=given.codeserver_port,
        max_upload_bytes=given.max_upload_bytes,
        die_with_parent=given.die_with_parent,
    )


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    if "--" not in arguments:
        return list(arguments), ()
    at = list(arguments).index("--")
    return list(arguments[:at]), tuple(arguments[at + 1 :])


def _token(parser: argparse.ArgumentParser, given: argparse.Namespace, environment: Mapping[str, str]) -> str:
    token: str = given.token or environment.get(TOKEN_VARIABLE, "")
    if given.token_file is not None:
        try:
            token = Path(given.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"--token-file: {error}")
    if not token:
        parser.error(f"a token is needed: --token-file, {TOKEN_VARIABLE} or --token (which `ps` shows to everybody)")
    if not (token.isascii() and token.isprintable() and " " not in token):
        parser.error("the token must be printable ASCII without spaces")
    return token


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def _command(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not words:
        raise argparse.ArgumentTypeError("the command is empty")
    return words


def _integer(low: int, high: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low} to {high}")
        return value

    return integer


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 3600")
    return value


def _line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("it must be one printable line")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.refagent",
        usage="%(prog)s --port P --token-file F --dir D [options] -- COMMAND [ARGUMENT ...]",
        description="Supervise COMMAND in D/files and serve the agent contract (docs/agent-contract.md) over HTTP.",
        allow_abbrev=False,
    )
    port = _integer(1, 65535)
    add = parser.add_argument
    add("--address", default="127.0.0.1", help="where to listen (%(default)s)")
    add("--port", type=_integer(0, 65535), required=True, help="0 picks a free one and prints it")
    add("--token-file", metavar="FILE", help="holds the bearer token; comes before the other two ways")
    add("--token", help=f"the bearer token; `ps` shows it to everybody, {TOKEN_VARIABLE} in the environment does not")
    add("--dir", required=True, help="the agent's folder: files/, backups/ and staging/ are made in it")
    add("--pty", action="store_true", help="give the process a terminal rather than pipes")
    ready = parser.add_mutually_exclusive_group()
    ready.add_argument("--ready-pattern", type=_pattern, metavar="REGEX", help="ready once an output line matches")
    ready.add_argument("--ready-port", type=port, metavar="PORT", help="ready while 127.0.0.1:PORT accepts")
    add("--stop-line", type=_line, metavar="LINE", help="written to the process before SIGTERM")
    add("--stop-seconds", type=_seconds, default=10.0, metavar="S", help="grace of the first stage (%(default)s)")
    add("--start-on-boot", action=argparse.BooleanOptionalAction, default=True, help="start with the agent")
    add("--crash-restart", choices=("yes", "no"), default="no", help="start again after a crash (%(default)s)")
    add("--console-lines", type=_integer(0, 100_000), default=1000, metavar="N", help="scrollback (%(default)s)")
    add("--codeserver-command", type=_command, metavar="COMMAND", help="what the code-server controls start and stop")
    add("--codeserver-port", type=port, default=8080, metavar="PORT", help="where it listens (%(default)s)")
    add("--max-upload-bytes", type=_integer(1, 1 << 60), metavar="N", help="refuse larger uploads with 413")
    add("--die-with-parent", action="store_true", help="end when the process that started the agent ends")
    return parser
