"""Starts the embedded server so that it cannot outlive its parent: `embedded_launcher.py PARENT_ID PROGRAM ARGUMENT…`.

It is run as a file by its path, in an interpreter of its own, and replaces itself by the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; the setting survives execve(2), see prctl(2)


def main(arguments: list[str]) -> None:
    parent, program = int(arguments[0]), arguments[1]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the line above: no signal will come
        sys.exit(1)
    os.umask(0o077)
    os.execv(program, [program, *arguments[2:]])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
