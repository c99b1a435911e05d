"""Records whose content never shows: neither ``repr`` nor a pretty printer tells what is inside."""

from __future__ import annotations

from typing import Any

import msgspec


class Veiled(msgspec.Struct, frozen=True, array_like=True):
    """The root of the records that hold a patient, a real DICOM UID or a key: logs and tracebacks show their kind."""

    def __repr__(self) -> str:
        """Name the kind of record and nothing of it."""
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell rich as little as everybody else."""
        return []
