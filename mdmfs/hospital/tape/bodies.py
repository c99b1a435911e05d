"""The JSON of the WLCG Tape REST API: what is asked, read with its limits, and what is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from mdmfs.hospital.ledger.stages import StageFile, StageRequest, StageState
from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.locality import Locality

MAX_FILES: Final = 10_000
MAX_PATH: Final = 4096
DAY: Final = 86_400.0
DEFAULT_LIFETIME: Final = DAY
MAX_LIFETIME: Final = 7 * DAY
_DEFAULT: Final = "P1D"
_LONGEST: Final = "P7D"
_DURATION: Final = re.compile(
    r"P(?:(?P<weeks>\d{1,4})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?:(?P<hours>\d{1,8})H)?(?:(?P<minutes>\d{1,8})M)?(?:(?P<seconds>\d{1,10})(?:\.\d+)?S)?)?"
)
_SECONDS: Final = {"weeks": 7 * DAY, "days": DAY, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
_LOCALITIES: Final = {
    Locality.ONLINE: "DISK",
    Locality.NEARLINE: "TAPE",
    Locality.ONLINE_AND_NEARLINE: "DISK_AND_TAPE",
    Locality.LOST: "LOST",
    Locality.UNAVAILABLE: "UNAVAILABLE",
}

B = TypeVar("B", bound=msgspec.Struct)


class Wish(msgspec.Struct, frozen=True):
    """What is asked for a file of us besides; other sites give such members other meanings."""

    replica: str = ""
    """The storage element at which a replica is wanted."""


class AskedFile(msgspec.Struct, frozen=True, rename="camel"):
    """A file that is to be staged; members that are not named here are passed over."""

    path: str
    disk_lifetime: str | None = None
    targeted_metadata: dict[str, msgspec.Raw] | None = None
    """What is asked for besides, by the name of the site that shall understand it."""

    def wish_to(self, site: str) -> Wish:
        """Give what is asked of one site; raises ``MalformedMessageError``."""
        told = (self.targeted_metadata or {}).get(site)
        try:
            return Wish() if told is None else msgspec.json.decode(told, type=Wish)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"targetedMetadata for {site} is no object with the name of a storage element as replica: {error}"
            raise MalformedMessageError(message) from error

    @property
    def lifetime(self) -> float:
        """For how many seconds it is to stay, at most a week; raises ``MalformedMessageError``."""
        return min(self._asked, MAX_LIFETIME)

    @property
    def granted(self) -> str:
        """Write that: as it was asked, where that is no more; raises as ``lifetime``."""
        return _LONGEST if self._asked > MAX_LIFETIME else self.disk_lifetime or _DEFAULT

    @property
    def _asked(self) -> float:
        if not self.disk_lifetime:
            return DEFAULT_LIFETIME
        match = _DURATION.fullmatch(self.disk_lifetime)
        if match is None or not any(match.groupdict().values()):
            message = "diskLifetime is a duration of ISO 8601 in weeks, days, hours, minutes and seconds, such as P1D"
            raise MalformedMessageError(message)
        return sum(_SECONDS[unit] * int(count) for unit, count in match.groupdict().items() if count)


class AskStage(msgspec.Struct, frozen=True):
    """A request to stage files."""

    files: list[AskedFile]


class AskPaths(msgspec.Struct, frozen=True):
    """A question or wish about some files."""

    paths: list[str]


def parsed(octets: bytes, kind: type[B]) -> B:
    """Read the body of a request; raises ``MalformedMessageError``."""
    try:
        body = msgspec.json.decode(octets, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the body is no JSON that this request takes: {error}"
        raise MalformedMessageError(message) from error
    paths = _paths(body)
    if not 1 <= len(paths) <= MAX_FILES or max(map(len, paths)) > MAX_PATH:
        message = f"a request names 1 to {MAX_FILES} paths of at most {MAX_PATH} characters"
        raise MalformedMessageError(message)
    return body


def _paths(body: msgspec.Struct) -> list[str]:
    match body:
        case AskStage():
            return [file.path for file in body.files]
        case AskPaths():
            return body.paths
        case _:
            return []


def discovery(site: str, base: str) -> Mapping[str, Any]:
    """Tell where the API is."""
    return {
        "sitename": site,
        "description": "mdmfs: images of hospital PACSs, as sealed objects",
        "endpoints": [{"uri": base, "version": "v1", "metadata": {}}],
    }


def submitted(request_id: str, site: str, asked: Iterable[AskedFile]) -> Mapping[str, Any]:
    """Tell what a request is called, and besides, for how long what stays longest of it in staging is to stay."""
    staying = [file for file in asked if not file.wish_to(site).replica]
    granted = {"diskLifetime": max(staying, key=lambda file: file.lifetime).granted} if staying else {}
    return {"requestId": request_id, **granted}


def progress(request: StageRequest, files: Iterable[StageFile], on_disk: set[int], reason: str) -> Mapping[str, Any]:
    """Tell how far a request is; ``on_disk`` has the numbers of those staged now, ``reason`` why it waits."""
    told = [_file(file, is_on_disk=file.number in on_disk) for file in files]
    summary = _summary(request)
    started = min((it["startedAt"] for it in told if "startedAt" in it), default=None)
    if started is not None:
        summary["startedAt"] = started
    if not request.left:
        ends = [it["finishedAt"] for it in told if "finishedAt" in it]
        summary["completedAt"] = max(ends, default=summary["createdAt"])
    elif reason:
        summary["reason"] = reason
    return {**summary, "files": told}


def overview(requests: Iterable[StageRequest]) -> Mapping[str, Any]:
    """Tell which requests there are, the latest first."""
    ordered = sorted(requests, key=lambda it: it.created, reverse=True)
    return {"requests": [{**_summary(it), "count": it.count, "left": it.left} for it in ordered]}


def locality(path: str, found: Locality | str) -> Mapping[str, str]:
    """Tell where a file is, or why that is not told."""
    if isinstance(found, Locality):
        return {"path": path, "locality": _LOCALITIES[found]}
    return {"path": path, "error": found}


def _summary(request: StageRequest) -> dict[str, Any]:
    return {"id": request.id.hex(), "createdAt": int(request.created)}


def _file(file: StageFile, *, is_on_disk: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"path": file.path, "state": file.state.name, "onDisk": is_on_disk, "size": file.size}
    if file.started:
        told["startedAt"] = int(file.started)
    if file.finished:
        told["finishedAt"] = int(file.finished)
    if file.state is StageState.FAILED:
        told["error"] = file.error
    return told
