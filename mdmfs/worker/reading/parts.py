"""What one opener works with, and those share who work for it: no rules, only where everything is."""

from __future__ import annotations

import dataclasses
from collections import Counter

import trio

from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.memory import Memory
from mdmfs.worker.reading.headers import Headers
from mdmfs.worker.reading.kept import KeptFiles
from mdmfs.worker.reading.kernel_pages import KernelPages
from mdmfs.worker.reading.open_file import OpenFiles
from mdmfs.worker.reading.pages import Pages
from mdmfs.worker.reading.slow_disk import SlowDisk
from mdmfs.worker.story import Stories


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """Those of one opener; the nursery outlives all open files."""

    hospital: Hospital
    cache: CiphertextCache
    keys: KeyRing
    nursery: trio.Nursery
    memory: Memory
    headers: Headers
    pages: KernelPages
    files: OpenFiles
    kept: KeptFiles
    disk: SlowDisk
    stories: Stories
    handles: Counter[int]
    """How many the kernel has of each inode, of what is in ``files`` or of what broke: it may be reading it.

    Who still waits for an open has none."""

    @classmethod
    def around(
        cls,
        hospital: Hospital,
        cache: CiphertextCache,
        keys: KeyRing,
        pages: Pages,
        nursery: trio.Nursery,
        memory: Memory | None = None,
    ) -> Parts:
        """Make what is an opener's own beside what it is given; without ``memory``, that too."""
        files, memory = OpenFiles(), memory or Memory()
        return cls(
            hospital,
            cache,
            keys,
            nursery,
            memory,
            Headers(hospital, memory),
            KernelPages(pages),
            files,
            KeptFiles(files.leave, memory, keys.clock),
            SlowDisk(cache, memory, nursery),
            Stories(),
            Counter(),
        )
