"""What the hospital says of single files, remembered for a while: all but the locality never changes under a GUID."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import FileDescription
from mdmfs.worker.hospital.port import Hospital

MAX_KEPT: Final = 10_000


class Descriptions:
    """Descriptions by GUID; those not used for longest go first."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._kept: OrderedDict[Guid, tuple[FileDescription, float]] = OrderedDict()

    async def of(self, guid: Guid, *, max_age: float = float("inf")) -> FileDescription:
        """Give a description not older than ``max_age`` seconds; raises what the hospital's answer raises."""
        kept = self._kept.get(guid)
        if kept is not None and trio.current_time() - kept[1] <= max_age:
            self._kept.move_to_end(guid)
            return kept[0]
        description = await self._hospital.describe(guid)
        self._kept[guid] = (description, trio.current_time())
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return description

    def forget(self, guid: Guid) -> None:
        """Drop what is known of a file."""
        self._kept.pop(guid, None)
