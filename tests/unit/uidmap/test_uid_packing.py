"""UIDs take half their room in the store and come back as they were."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from mdmfs.hospital.uidmap.instances import pack_uid, unpack_uid


@hypothesis.given(st.one_of(st.text(alphabet="0123456789.", max_size=64), st.text(max_size=80)))
def test_every_text_comes_back(uid: str) -> None:
    """UIDs, and what a PACS takes for one."""
    assert unpack_uid(pack_uid(uid)) == uid


@hypothesis.given(st.text(alphabet="0123456789.af\xff", max_size=3), st.text(alphabet="0123456789.af\xff", max_size=3))
def test_different_texts_stay_different(first: str, second: str) -> None:
    """Neither padding nor the mark of other texts makes two of them alike."""
    assert (pack_uid(first) == pack_uid(second)) is (first == second)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.1", "2.25." + "9" * 39, "1." * 31 + "11"])
def test_a_uid_takes_half_its_room(uid: str) -> None:
    """Rounded up."""
    assert len(pack_uid(uid)) == (len(uid) + 1) // 2
