"""The port to a PACS: what the hospital may ask of one, in values and streams; how it is asked stands beside it.

Two implementations pass one contract suite: ``RemotePacs`` (network) and ``TwinPacs`` (tests, in memory). UIDs and
patient identifiers are plain text here, because this is the hospital zone; no ``repr`` and no error message shows one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, Self

from mdmfs.model.errors import ConfigurationError

DEFAULT_CALLING_AE_TITLE: Final = "MDMFS"
MAX_PORT: Final = 65_535

_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
_HOURS = re.compile(r"([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})")
_ADDRESS = re.compile(r"(?P<ae_title>.+)@(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


@dataclasses.dataclass(frozen=True, slots=True)
class PacsAddress:
    """Where a PACS listens, what it is called, and what we call ourselves towards it."""

    ae_title: str
    """The called AE title: 1 to 16 printable characters, without a backslash (PS3.5 Table 6.2-1, AE)."""
    host: str
    port: int
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE

    def __post_init__(self) -> None:
        """Refuse titles and ports that DICOM or TCP do not know."""
        for title in (self.ae_title, self.calling_ae_title):
            if not _AE_TITLE.fullmatch(title):
                message = (
                    f"an AE title has 1 to 16 printable ASCII characters, no \\, no space at its ends, not {title!r}"
                )
                raise ConfigurationError(message)
        if not self.host or not 0 < self.port <= MAX_PORT:
            message = f"a PACS is reached at a host and a port from 1 to {MAX_PORT}, not {self.host}:{self.port}"
            raise ConfigurationError(message)

    @classmethod
    def parse(cls, text: str, *, calling_ae_title: str = DEFAULT_CALLING_AE_TITLE) -> Self:
        """Read ``AET@HOST:PORT`` (IPv6 in brackets); raises ``ConfigurationError``."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            message = f"a PACS is written AET@HOST:PORT, for example ORTHANC@pacs.example.org:4242, not {text!r}"
            raise ConfigurationError(message)
        return cls(match["ae_title"], match["host"].strip("[]"), int(match["port"]), calling_ae_title)

    def __str__(self) -> str:
        """Write ``AET@HOST:PORT``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class ClinicalHours:
    """The hours of every day in which people wait for the PACS; the end may be on the next day."""

    begin: dt.time
    end: dt.time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``08:00-18:00``; raises ``ConfigurationError``."""
        match = _HOURS.fullmatch(text)
        try:
            begin, end = (dt.time.fromisoformat(part) for part in match.groups()) if match else (None, None)
        except ValueError:
            begin = end = None
        if begin is None or end is None or begin == end:
            message = f"clinical hours are written HH:MM-HH:MM, for example 08:00-18:00, not {text!r}"
            raise ConfigurationError(message)
        return cls(begin, end)

    def hold(self, now: dt.time) -> bool:
        """Tell whether it is such an hour, in the hospital's own time."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


class RetrievalService(enum.StrEnum):
    """By which service a PACS is asked for instances."""

    GET = "get"
    MOVE = "move"


@dataclasses.dataclass(frozen=True, slots=True)
class Politeness:
    """What a clinical PACS is asked to bear."""

    max_associations: int = 2
    """At once, for everything we do; whoever wants one more waits."""
    progress_timeout: float = 30.0
    """Seconds in which an instance must end, or bring another 64 KiB; the consumer's own time does not count."""
    connect_timeout: float = 10.0
    """Seconds for the connection and the negotiation together."""
    idle_seconds: float = 60.0
    """How long an association is kept for the next request before it is released."""
    list_size: int = 32
    """SOP Instance UIDs in one request at IMAGE level; 1 for a PACS that aborts when it sees a list."""
    clinical_hours: ClinicalHours | None = None
    """When one association must do."""
    retrieval: RetrievalService | None = None
    """The service to retrieve by; None: C-GET where the PACS has it, else C-MOVE."""
    classes: tuple[str, ...] = ()
    """Private and retired SOP Class UIDs that are offered to a PACS that does not tell the class of an instance."""

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could ever be asked."""
        seconds = (self.progress_timeout, self.connect_timeout)
        if min(self.max_associations, self.list_size) < 1 or min(seconds) <= 0 or self.idle_seconds < 0:
            message = "the limits towards a PACS are at least one association, one instance a list, and positive times"
            raise ConfigurationError(message)


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceKey:
    """Names one instance as it was registered; the three UIDs are needed by the Study Root model at IMAGE level."""

    study_uid: str = dataclasses.field(repr=False)
    series_uid: str = dataclasses.field(repr=False)
    instance_uid: str = dataclasses.field(repr=False)
    class_uid: str
    transfer_syntax: str | None = None
    """As recorded; the PACS is asked for this one and no other. None where it is not yet known."""


@dataclasses.dataclass(frozen=True, slots=True)
class SeriesFound:
    """One series that a query found. Texts are empty where the PACS gave none."""

    patient_id: str = dataclasses.field(repr=False)
    issuer: str = dataclasses.field(repr=False)
    """Issuer of Patient ID (0010,0021)."""
    study_uid: str = dataclasses.field(repr=False)
    series_uid: str = dataclasses.field(repr=False)
    modality: str
    study_date: str = dataclasses.field(repr=False)
    """As the PACS has it, YYYYMMDD."""
    series_number: str = dataclasses.field(repr=False)
    instance_count: int | None
    """Number of Series Related Instances (0020,1209); None where the PACS does not count."""


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceFound:
    """One instance that a query found."""

    instance_uid: str = dataclasses.field(repr=False)
    class_uid: str
    transfer_syntax: str | None = None
    """Available Transfer Syntax UID (0008,3002) where the PACS names exactly one; else None."""


class IncomingInstance(Protocol):
    """One instance while it arrives: what it is, then the bytes of its data set (no preamble, no group 0002).

    Iterating gives buffers of 1 byte to 1 MiB, in order. A buffer is valid until the next step only: copy what must
    stay. The iteration ends, and ``is_complete`` turns true, only after the PACS marked the last fragment. Whatever
    else happens raises, and raises again at every further step, so that a truncated instance never looks whole.
    """

    @property
    def class_uid(self) -> str:
        """SOP Class UID, as the C-STORE request and its presentation context say."""

    @property
    def instance_uid(self) -> str:
        """SOP Instance UID, one of those asked for and not seen before in this retrieval."""

    @property
    def transfer_syntax(self) -> str:
        """Transfer Syntax UID of the presentation context: how the bytes are encoded."""

    @property
    def is_complete(self) -> bool:
        """Whether the last byte of the data set has been handed out."""

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """Step through the data set once."""


class Pacs(Protocol):
    """A PACS, for as long as ``open_pacs`` (or its twin) keeps it open.

    Every method raises ``PacsUnreachableError`` when there is no association to be had, ``RecallTimedOutError`` when
    the PACS stops making progress, and ``RecallFailedError`` when it answers with a failure or with something else than
    asked. All may be used from several tasks at once; cancelling one aborts its association and nothing else.
    """

    @property
    def retrieval(self) -> RetrievalService | None:
        """The service that instances are retrieved by, once it was negotiated; None before."""

    @property
    def is_left_alone(self) -> bool:
        """Whether the PACS has failed so often that it is not asked at the moment."""

    @property
    def may_look_ahead(self) -> bool:
        """Whether it may be asked now for what nobody has opened yet: not in its clinical hours."""

    async def echo(self) -> None:
        """Ask whether the PACS answers at all (C-ECHO)."""

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List the series of a patient, of a study, or of a study if it is that patient's.

        Answers that name another patient or study than asked are left out: some PACSs match loosely. Raises
        ``MalformedNameError`` when neither is given, or when one is empty, holds a wildcard, or is no identifier.
        """

    async def find_instances(
        self, *, study_uid: str, series_uid: str, are_described: bool = True
    ) -> list[InstanceFound]:
        """List the instances of a series, each once, in the order of the PACS.

        Without ``are_described`` the SOP class of all but the first may be missing: that costs some PACSs a tenth.
        """

    def retrieve(self, wanted: Sequence[InstanceKey]) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring instances, first ones first, in requests of some 32; within a request the PACS chooses the order.

        Each instance comes at most once, in the class and transfer syntax recorded for it. Stepping on drops what was
        not read of the instance before. Leaving the context before the end aborts the association.

        The iteration ends when all that was wanted has come. Where instances are missing it brings the others first,
        unless too many are missing, and then raises: ``InstanceLostError`` if the PACS says that it does not hold them,
        ``RecallFailedError`` if it holds one and does not send it. What was yielded and complete is good either way.
        """

    def retrieve_series(
        self, *, study_uid: str, series_uid: str, instances: Sequence[InstanceFound]
    ) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring a whole series, whose instances ``find_instances`` named, in one request where possible.

        Each instance comes as the PACS stores it, if it can be had so: ``transfer_syntax`` tells. Ends and raises as
        ``retrieve``; an instance that is not among ``instances`` is a failure (the series is still growing).
        """
