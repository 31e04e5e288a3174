"""One child process with its pipes or terminal: starts it, moves its bytes, signals its group.

Knows nothing of lines, readiness or state. The child leads a session and process group of its own and is killed by the
kernel when the agent dies (PR_SET_PDEATHSIG, prctl(2)). What it starts itself is signalled through the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import pty
import signal
import termios
import tty
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

READ_BYTES = 64 << 10
# In each window the output is read this often and this far; a process that prints faster waits on its own write().
WINDOW_SECONDS = 0.01
READS_PER_WINDOW = 64
BYTES_PER_WINDOW = 240 << 10
INPUT_LIMIT_BYTES = 64 << 10
DRAIN_SECONDS = 0.5  # a grandchild may hold the output open after the process has ended
READS_AT_END = 4  # more than a pipe holds; a grandchild may go on printing

_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: nothing may be imported between fork and exec


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process `signal_number` when the thread that started it ends (prctl(2))."""
    if _LIBC.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


class InputFull(Exception):
    """The process does not read its input and the bounded buffer in front of it is full."""


class Child:
    """A running process. Made by `spawn` alone."""

    def __init__(self, process: Process, output: Output, stdin: Input) -> None:
        self._process = process
        self._output = output
        self._stdin = stdin

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        terminal: bool,
        on_output: Callable[[bytes], None],
    ) -> Child:
        """Start `command` in `folder`. `on_output` gets standard output and error as one stream, in order.

        Raises OSError when it cannot be executed.
        """
        ours_in, ours_out, theirs_in, theirs_out = _open_terminal() if terminal else _open_pipes()
        agent = os.getpid()

        def between_fork_and_exec() -> None:
            die_with_parent(signal.SIGKILL)
            if os.getppid() != agent:  # the agent died before the line above: nobody would send the signal
                os._exit(1)
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=theirs_out,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=between_fork_and_exec,
            )
        except BaseException:
            for descriptor in {ours_in, ours_out}:
                os.close(descriptor)
            raise
        finally:
            for descriptor in {theirs_in, theirs_out}:
                os.close(descriptor)
        return cls(process, Output(ours_out, on_output), Input(ours_in))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit status once the process has ended and its output is read; negative for a signal's number."""
        status = await self._process.wait()
        self.signal_group(signal.SIGKILL)  # what it left behind would stand in the way of the next start
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._output.ended.wait(), DRAIN_SECONDS)
        self._stdin.close()
        self._output.close()
        return status

    def write(self, data: bytes) -> None:
        """Queue for the process's standard input. Raises InputFull, or BrokenPipeError when it is closed."""
        self._stdin.write(data)

    def signal_group(self, signal_number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal_number)


class Output:
    """Reads a descriptor in chunks, at a bounded rate, until its end."""

    def __init__(self, descriptor: int, on_output: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._window_ends = 0.0
        self._reads_left = 0
        self._bytes_left = 0
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self.ended = asyncio.Event()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        now = self._loop.time()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._reads_left = READS_PER_WINDOW
            self._bytes_left = BYTES_PER_WINDOW
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that its last user is gone
                raise
            data = b""
        if not data:
            self._loop.remove_reader(self._descriptor)
            self.ended.set()
            return
        self._reads_left -= 1
        self._bytes_left -= len(data)
        if self._reads_left <= 0 or self._bytes_left <= 0:
            self._loop.remove_reader(self._descriptor)
            self._pause = self._loop.call_at(self._window_ends, self._resume)
        self._on_output(data)

    def _resume(self) -> None:
        self._loop.add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._descriptor)
        self._read_rest()
        os.close(self._descriptor)

    def _read_rest(self) -> None:
        """What a process printed last is told also where the agent was held up, or read no faster than it may."""
        for _ in range(READS_AT_END):
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except OSError:  # nothing is there, or a terminal's last user is gone
                return
            if not data:
                return
            self._on_output(data)


class Input:
    """Writes to a descriptor without ever blocking, with a bounded buffer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._closed = False
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        if self._closed:
            raise BrokenPipeError(errno.EPIPE, "the process's input is closed")
        if len(self._buffer) + len(data) > INPUT_LIMIT_BYTES:
            raise InputFull
        waiting = bool(self._buffer)
        self._buffer += data
        if not waiting:
            self._send()
            if self._buffer:
                self._loop.add_writer(self._descriptor, self._writable)

    def _send(self) -> None:
        try:
            sent = os.write(self._descriptor, self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self._buffer.clear()
            raise
        del self._buffer[:sent]

    def _writable(self) -> None:
        with contextlib.suppress(OSError):  # the process closed its input: its end is told by `wait`
            self._send()
        if not self._buffer:
            self._loop.remove_writer(self._descriptor)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_writer(self._descriptor)
        os.close(self._descriptor)


def _open_pipes() -> tuple[int, int, int, int]:
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    return ours_in, ours_out, theirs_in, theirs_out


def _open_terminal() -> tuple[int, int, int, int]:
    """A terminal that does not echo, so that a command does not show twice; `\\n` stays `\\n`."""
    ours, theirs = pty.openpty()
    modes = termios.tcgetattr(theirs)
    modes[tty.LFLAG] &= ~termios.ECHO
    modes[tty.OFLAG] &= ~termios.ONLCR
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    return ours, os.dup(ours), theirs, theirs
