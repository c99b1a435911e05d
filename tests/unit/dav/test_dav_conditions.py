"""Ranges and conditions as RFC 9110 says: what belongs to another sealing is never pieced together."""

from __future__ import annotations

import pytest

from mdmfs.hospital.dav.conditions import Part, Unsatisfiable, fails_match, is_known, part_of

TAG = "ab" * 24
OTHER = "cd" * 24
LENGTH = 1000


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("", None),
        ("bytes=0-9", Part(0, 10)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=990-", Part(990, 1000)),
        ("bytes=990-5000", Part(990, 1000)),
        ("bytes=-10", Part(990, 1000)),
        ("bytes=-5000", Part(0, 1000)),
        ("bytes= 1 - 2", Part(1, 3)),
        ("bytes=1000-", Unsatisfiable()),
        ("bytes=1000-2000", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=9-1", None),
        ("bytes=-", None),
        ("bytes=0-9,20-29", None),
        ("items=0-9", None),
        ("bytes=0x10-", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_a_range_is_what_the_standard_says_or_is_ignored(asked: str, part: object) -> None:
    """A server may answer with the whole; it never answers with other bytes than it says."""
    assert part_of({"range": asked}, TAG, LENGTH) == part


def test_a_range_of_another_sealing_is_the_whole() -> None:
    """The bytes that the caller has belong to the salt he names."""
    assert part_of({"range": "bytes=5-", "if-range": f'"{TAG}"'}, TAG, LENGTH) == Part(5, LENGTH)
    for other in (f'"{OTHER}"', f'W/"{TAG}"', "Thu, 26 Nov 2026 22:45:59 GMT"):
        assert part_of({"range": "bytes=5-", "if-range": other}, TAG, LENGTH) is None


@pytest.mark.parametrize(
    ("value", "tag", "fails"),
    [
        (f'"{TAG}"', TAG, False),
        (f'"{OTHER}", "{TAG}"', TAG, False),
        ("*", TAG, False),
        ("*", "", False),
        (f'"{OTHER}"', TAG, True),
        (f'W/"{TAG}"', TAG, True),
        (TAG, TAG, True),
        ('""', "", True),
        (f'"{TAG}"', "", True),
    ],
)
def test_if_match_lets_through_the_sealing_it_names_only(value: str, tag: str, *, fails: bool) -> None:
    """Compared as strong tags; what is not staged has no tag that anybody could know."""
    assert fails_match({"if-match": value}, tag) is fails
    assert not fails_match({}, tag)


def test_if_none_match_spares_who_has_the_sealing() -> None:
    """Weakly compared (section 13.1.2)."""
    assert is_known({"if-none-match": f'W/"{TAG}"'}, TAG)
    assert not is_known({"if-none-match": f'"{OTHER}"'}, TAG)
    assert not is_known({}, TAG)
