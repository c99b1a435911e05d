"""The JSON of the Tape REST API: durations, limits, and what is told."""

from __future__ import annotations

import random

import msgspec
import pytest

from mdmfs.hospital.ledger.stages import StageFile, StageRequest, StageState
from mdmfs.hospital.tape.bodies import (
    DAY,
    DEFAULT_LIFETIME,
    MAX_FILES,
    MAX_LIFETIME,
    MAX_PATH,
    AskedFile,
    AskPaths,
    AskStage,
    Wish,
    parsed,
    progress,
    submitted,
)
from mdmfs.model.errors import MalformedMessageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, DEFAULT_LIFETIME),
        ("", DEFAULT_LIFETIME),
        ("PT60S", 60),
        ("PT1.5S", 1),
        ("P1D", DAY),
        ("P1DT2H3M4S", DAY + 2 * 3600 + 3 * 60 + 4),
        ("P1W", MAX_LIFETIME),
        ("P9999D", MAX_LIFETIME),
    ],
)
def test_a_lifetime_is_a_duration_of_iso_8601(text: str | None, seconds: float) -> None:
    """A week is the longest."""
    assert AskedFile("/a", text).lifetime == seconds


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([None], "P1D"),
        (["PT36H"], "PT36H"),
        (["P1W"], "P1W"),
        (["P8D"], "P7D"),
        (["P2D", "P30D", None], "P7D"),
        (["P2D", None, "PT1S"], "P2D"),
    ],
)
def test_what_is_granted_of_a_lifetime_is_told(asked: list[str | None], told: str) -> None:
    """That of the file that stays longest, as it was asked for; a week, where that was more."""
    replica = AskedFile("/a", "P6D", {"amc": msgspec.Raw(b'{"replica": "tier1"}')})
    body = submitted("1f", "amc", [replica, *(AskedFile("/a", text) for text in asked)])
    assert body == {"requestId": "1f", "diskLifetime": told}
    assert submitted("1f", "amc", [replica]) == {"requestId": "1f"}


@pytest.mark.parametrize("text", ["P", "PT", "1D", "P-1D", "P1Y", "86400", "P1D ", "PT" + "9" * 50 + "S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Not guessed at."""
    with pytest.raises(MalformedMessageError):
        _ = AskedFile("/a", text).lifetime


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"files": [{}]}',
        b'{"files": [{"path": 1}]}',
        b'{"files": [{"path": "\xff"}]}',
        b"[" * 100_000,
        msgspec.json.encode({"files": [{"path": "/a"}] * (MAX_FILES + 1)}),
        msgspec.json.encode({"files": [{"path": "/" + "a" * MAX_PATH}]}),
    ],
)
def test_a_body_out_of_bounds_is_refused(octets: bytes) -> None:
    """Whatever it is, it is one kind of error."""
    with pytest.raises(MalformedMessageError):
        parsed(octets, AskStage)


def test_what_other_servers_are_told_is_passed_over() -> None:
    """Metadata for their sake is no reason to refuse."""
    octets = b'{"files": [{"path": "/a", "targetedMetadata": {"x": {"y": [1]}}, "pinned": true}], "more": 1}'
    (file,) = parsed(octets, AskStage).files
    assert (file.path, file.lifetime, file.wish_to("amc")) == ("/a", AskedFile("/a").lifetime, Wish())


def test_whatever_comes_is_read_or_refused() -> None:
    """Bytes of a real body, changed at random: no other exception comes out."""
    chance = random.Random(2021)  # noqa: S311 no secrets
    body = b'{"files": [{"path": "/grid/medical/a", "diskLifetime": "P1D"}, {"path": "/b"}], "paths": ["/a", "/b"]}'
    for _ in range(2000):
        octets = bytearray(body)
        for _ in range(chance.randint(1, 6)):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        for kind in (AskStage, AskPaths):
            try:
                asked = parsed(bytes(octets), kind)
                _ = [file.lifetime for file in asked.files] if isinstance(asked, AskStage) else asked.paths
            except MalformedMessageError:
                continue


def test_progress_is_told_in_the_words_of_the_api() -> None:
    """States by name, whole seconds, an error only where there is one, and why it waits while it does."""
    request = StageRequest(bytes(16), "/CN=a", [], "", 10.9, 3, 1)
    files = [
        StageFile(0, "/a", bytes(16), 5, DAY, StageState.COMPLETED, 11.0, 12.0),
        StageFile(1, "/b", b"", 0, DAY, StageState.FAILED, finished=11.0, error="no such file"),
        StageFile(2, "/c", bytes(16), 5, DAY, StageState.STARTED, 11.5),
    ]
    told = progress(request, files, {0}, "the PACS is away")
    assert told["id"] == "00" * 16
    assert (told["createdAt"], told["startedAt"], told["reason"]) == (10, 11, "the PACS is away")
    assert "completedAt" not in told
    assert [file["state"] for file in told["files"]] == ["COMPLETED", "FAILED", "STARTED"]
    assert [file["onDisk"] for file in told["files"]] == [True, False, False]
    assert [file.get("error") for file in told["files"]] == [None, "no such file", None]
    over = progress(msgspec.structs.replace(request, left=0), files[:2], {0}, "")
    assert over["completedAt"] == 12
