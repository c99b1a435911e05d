"""The replicas of a hospital: which storage elements there are, what is to be put there, and what is to go.

A replica is never needed: it is put after its file was staged, and whoever does not find it asks the hospital. So what
is queued here is in memory only. What has been put is in the store before it is put, so that nothing is left behind.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.storage.port import StorageElement
from mdmfs.model.names import Guid

PUTTERS: Final = 4
"""At once."""
MAX_QUEUE: Final = 100_000
MAX_TURLS: Final = 10_000
TURL_SECONDS: Final = 3600.0
REST_SECONDS: Final = 60.0
"""So long nothing is put at a storage element that failed: what waits behind it is for others, too."""
_LABEL: Final = b"mdmfs replica name 1\0"

T = TypeVar("T")


class Replicas:
    """Storage elements by name, and the queues of the tasks that work on them."""

    def __init__(self, elements: Mapping[str, StorageElement] | None = None, secret: bytes = b"") -> None:
        """``secret``: 32 bytes that only the hospital has; it makes the names."""
        self.elements: Mapping[str, StorageElement] = elements or {}
        self._secret = secret
        self.wanted: dict[Guid, None] = {}
        """Files that were let out, whose replicas may be lacking; in order."""
        self.doubtful: set[Guid] = set()
        """Files whose replicas are to go."""
        self.under_way: dict[tuple[str, str], trio.Event] = {}
        """What is just being put or taken away, by storage element and name, and what is set when that has ended."""
        self.reasons: dict[tuple[str, str], str] = {}
        """Why a replica could not be taken away last time, by storage element and name."""
        self._putting = trio.CapacityLimiter(PUTTERS)
        """Storage elements are not given more at once."""
        self.arrivals, self.departures = Bell(), Bell()
        """Ring when something is to be put, and when something is to go."""
        self._rests: dict[str, float] = {}
        """Until when nothing is put at a storage element that failed."""
        self._turls: collections.OrderedDict[tuple[str, str], tuple[str, float]] = collections.OrderedDict()

    def name_of(self, guid: Guid, generation: int, salt: bytes) -> str:
        """Give the name of a sealing on storage elements: whoever does not know the secret learns nothing by it."""
        told = _LABEL + guid.octets + generation.to_bytes(4, "big") + salt
        return hmac.new(self._secret, told, hashlib.sha256).hexdigest()

    def want(self, guid: Guid) -> None:
        """Have the replicas put that the file's project wants of it and that are lacking; it is staged."""
        if self.elements and len(self.wanted) < MAX_QUEUE:
            self.wanted[guid] = None
            self.arrivals.ring()

    def doubt(self, guid: Guid) -> None:
        """Have all replicas of a file taken away."""
        if self.elements:
            self.doubtful.add(guid)
            self.departures.ring()

    async def in_thread(self, act: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
        """Run what blocks; it has deadlines of its own, and is not waited for when we end."""
        return await trio.to_thread.run_sync(act, limiter=limiter or self._putting, abandon_on_cancel=True)

    @contextlib.contextmanager
    def alone(self, element: str, name: str) -> Iterator[None]:
        """Work on an object that nobody else works on: it is either put or taken away."""
        ended = self.under_way[element, name] = trio.Event()
        try:
            yield
        finally:
            del self.under_way[element, name]
            ended.set()

    def let_rest(self, element: str) -> None:
        """Put nothing at a storage element for a while; what is lacking there is wanted again when it is asked for."""
        self._rests[element] = trio.current_time() + REST_SECONDS

    def let_work(self, element: str) -> None:
        """Put there again what is wanted: it answers."""
        self._rests.pop(element, None)

    def is_resting(self, element: str) -> bool:
        """Tell whether it failed lately."""
        return trio.current_time() < self._rests.get(element, float("-inf"))

    def turl(self, element: str, name: str, now: float) -> str:
        """Give a URL to fetch a replica by; the same one for a while, so that caches know it again."""
        known = self._turls.get((element, name))
        if known is not None and now < known[1]:
            return known[0]
        turl = self.elements[element].turl(name, TURL_SECONDS)
        self._turls[element, name] = turl, now + TURL_SECONDS / 2
        if len(self._turls) > MAX_TURLS:
            self._turls.popitem(last=False)
        return turl
