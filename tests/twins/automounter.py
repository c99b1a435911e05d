"""An automounter over the kernel's autofs, for one name: what systemd's automount units and Debian's autofs do.

The kernel lets its process group, and nobody else, walk through the directory while the mount is being made.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_READY: Final = 0x9360
_FAIL: Final = 0x9361
_CATATONIC: Final = 0x9362
_MISSING_INDIRECT: Final = 3
_PACKET: Final = struct.Struct("=iiI")
_PACKET_SIZE: Final = 304
"""``struct autofs_v5_packet`` of <linux/auto_fs.h>: version, type and token at its begin."""
_DETACH: Final = 2


@contextlib.contextmanager
def automounter(folder: Path, name: str, command: Sequence[str]) -> Iterator[None]:
    """Run a command of this process group when somebody looks at a name below a folder; it has to mount there."""
    libc = ctypes.CDLL(None, use_errno=True)
    asking, told = os.pipe()
    options = f"fd={told},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect".encode()
    if libc.mount(b"automount", os.fsencode(folder), b"autofs", 0, options) < 0:
        raise OSError(ctypes.get_errno(), "autofs")
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def mount_when_asked() -> None:
        while packet := os.read(asking, _PACKET_SIZE):
            _, kind, token = _PACKET.unpack_from(packet)
            assert kind == _MISSING_INDIRECT
            (folder / name).mkdir(exist_ok=True)
            done = subprocess.run(command, check=False)
            with contextlib.suppress(OSError):  # nobody waits any more: the end
                fcntl.ioctl(directory, _FAIL if done.returncode else _READY, token)

    answering = threading.Thread(target=mount_when_asked)
    answering.start()
    os.close(told)
    try:
        yield
    finally:
        fcntl.ioctl(directory, _CATATONIC, 0)  # whoever waits is let go, and no more packets come
        answering.join()
        os.close(directory)
        os.close(asking)
        libc.umount2(os.fsencode(folder), _DETACH)
