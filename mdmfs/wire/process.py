"""What every daemon does to its own process before it holds a key."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from typing import Final

from mdmfs.model.errors import ConfigurationError

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


def collect_less_garbage() -> None:
    """Leave what was made until now out of every garbage collection: modules and tables live as long as the process.

    A full collection of them holds up everybody for 60 ms. Called once, before the daemon's loop begins.
    """
    gc.collect()
    gc.freeze()


def _set_undumpable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
