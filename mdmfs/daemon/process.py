"""What every daemon does to its own process before it holds a key."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
from typing import Final

from mdmfs.model.errors import ConfigurationError

COLLECT: Final = (10_000, 20, 50)
"""Objects made, and collections of the generation before, between two collections of each generation."""
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
"""What says that a process, or its machine, may open nothing more just now."""
MORE_DESCRIPTORS: Final = "let it open more files: LimitNOFILE of its unit, or ulimit -n where it is started"
_PR_SET_DUMPABLE: Final = 4
"""prctl(2)."""


def forbid_core_dumps() -> None:
    """Keep memory out of core files, and the process out of reach of the same user's debuggers.

    ``RLIMIT_CORE`` 0 binds core files, ``PR_SET_DUMPABLE`` 0 also those piped to a program, which know no limit. From
    then on files of /proc/PID belong to root. Called once, at the start; a program started from here is dumpable again,
    but inherits the limit. Raises ``ConfigurationError`` where the kernel says no.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _set_undumpable()
    except (OSError, ValueError) as error:
        message = f"core dumps cannot be forbidden, and they would hold keys: {error}"
        raise ConfigurationError(message) from error


def allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: shells give 1,024, and a thousand mounts need more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def collect_seldom() -> None:
    """Let the garbage collector leave alone what is there now, and pass over all the rest seldom.

    A pass over what a thousand connections need holds up everyone for 0.3 s. Little here is made in circles, and what
    is, young, is found by the small passes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def _set_undumpable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
