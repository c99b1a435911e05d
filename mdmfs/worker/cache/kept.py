"""The whole objects that a cache knows of, by GUID and by name, the one not opened for longest first.

A name is ``GUID.GENERATION.THRESHOLD.SALT``: it holds what must be known to open the object without the hospital.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Self

from mdmfs.model.names import Guid
from mdmfs.sealing.layout import SALT_SIZE


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """What is known of a sealing beside its bytes."""

    generation: int
    """Of the file key."""
    threshold: int
    """How many shares make the key."""
    salt: bytes

    def __str__(self) -> str:
        return f"{self.generation}.{self.threshold}.{self.salt.hex()}"


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """One complete object."""

    guid: Guid
    seal: Seal
    length: int
    name: str

    @classmethod
    def sealed(cls, guid: Guid, seal: Seal, length: int) -> Self:
        """Give an object the name that it has."""
        return cls(guid, seal, length, f"{guid}.{seal}")

    @classmethod
    def named(cls, name: str, length: int) -> Self | None:
        """Read a name; None for one that is none of ours."""
        try:
            guid, generation, threshold, salt = name.split(".")
            seal = Seal(int(generation), int(threshold), bytes.fromhex(salt))
            return cls(Guid.parse(guid), seal, length, name) if len(seal.salt) == SALT_SIZE else None
        except ValueError:
            # MalformedNameError is one, too
            return None


class KeptObjects:
    """One object of each GUID at most."""

    def __init__(self) -> None:
        self._by_guid: OrderedDict[Guid, Kept] = OrderedDict()
        self._by_name: dict[str, Kept] = {}

    def __len__(self) -> int:
        return len(self._by_guid)

    def get(self, guid: Guid) -> Kept | None:
        """Give the object of a GUID, or None."""
        return self._by_guid.get(guid)

    def named(self, name: str) -> Kept | None:
        """Give the object of a name, or None."""
        return self._by_name.get(name)

    def oldest(self) -> Kept | None:
        """Give the one not opened for longest; None where there is none."""
        return next(iter(self._by_guid.values()), None)

    def put(self, kept: Kept) -> None:
        """Take an object in, of whose GUID there is none."""
        self._by_guid[kept.guid] = kept
        self._by_name[kept.name] = kept

    def drop(self, kept: Kept) -> None:
        """Let an object go that is here."""
        del self._by_guid[kept.guid]
        del self._by_name[kept.name]

    def note_opened(self, kept: Kept) -> None:
        """Put it last, as it was opened now."""
        self._by_guid.move_to_end(kept.guid)

    def clear(self) -> int:
        """Let all go; gives how many bytes they have."""
        octets = sum(kept.length for kept in self._by_guid.values())
        self._by_guid.clear()
        self._by_name.clear()
        return octets
