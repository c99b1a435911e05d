"""The hospital's store in LMDB."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from mdmfs.daemon.formats import Format
from mdmfs.hospital.store import FEED_LENGTH, STORE_FORMAT, Store, store_layout
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.environment import MAP_SIZE
from mdmfs.rows.port import Rows


class LmdbStore(Store):
    """The store in one directory of mode 0700."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size: int = MAP_SIZE,
        random: Callable[[int], bytes] = secrets.token_bytes,
        feed_length: int = FEED_LENGTH,
        clock: Callable[[], float] = time.time,
        store_format: Format[Rows] = STORE_FORMAT,
    ) -> Self:
        """Open the store in a directory, see ``Embedded.open``."""
        engine = Embedded.open(path, store_layout(random, store_format), map_size=map_size)
        return cls(engine, random, feed_length, clock)

    @classmethod
    @contextlib.contextmanager
    def looking(cls, path: Path) -> Iterator[Self]:
        """Give a store to read from, also while the daemon works on it; nothing is made. Raises ``StoreError``."""
        with Embedded.looking(path, store_layout()) as engine:
            yield cls(engine)
