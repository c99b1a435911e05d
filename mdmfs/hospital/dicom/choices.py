"""By which service each PACS was found to give its images, remembered over restarts of hospitald and shown by doctor.

One small file, by the names of the PACSs. It is not synced and may be deleted: then a PACS is asked for C-GET first, as
at the first time. What the configuration says goes before what is remembered.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from mdmfs.hospital.dicom.pacs import PacsAddress, RetrievalService

FILE: Final = "pacs.json"
"""Its name in the hospital's directory."""

log = structlog.get_logger()


class Choice(msgspec.Struct, frozen=True):
    """What was negotiated with one PACS."""

    address: str
    """With whom: another one under the same name is asked anew."""
    service: RetrievalService
    since: float
    """Seconds since the epoch."""


_DECODER: Final = msgspec.json.Decoder(dict[str, Choice])


class Choices:
    """What is remembered of all PACSs of one hospital."""

    def __init__(self, path: pathlib.Path, clock: Callable[[], float]) -> None:
        """Read what an earlier run has left; what cannot be read is forgotten, and the log says so."""
        self._path = path
        self._clock = clock
        self._known: dict[str, Choice] = {}
        try:
            self._known = _DECODER.decode(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log.warning("it is not known by which service PACSs give their images", file=path.name, reason=str(error))

    def of(self, name: str, address: PacsAddress) -> Choice | None:
        """Give what is remembered of a PACS at this address."""
        choice = self._known.get(name)
        return choice if choice is not None and choice.address == str(address) else None

    def keep(self, name: str, address: PacsAddress, service: RetrievalService) -> None:
        """Remember a choice. Where it cannot be written, it holds until the next restart, and the log says so."""
        self._known[name] = Choice(str(address), service, self._clock())
        draft = self._path.with_suffix(".new")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(self._known))
            draft.rename(self._path)
        except OSError as error:
            log.warning("how a PACS gives its images cannot be remembered", pacs=name, reason=error.strerror)
