"""Errors: what each says, where it is told, and what the system's own errors are called."""

from __future__ import annotations

import errno
import os

import pytest

from mdmfs.model.errors import (
    MdmfsError,
    NameTakenError,
    OutOfSpaceError,
    StoreError,
    UnusableFileError,
    again,
    unusable,
    using,
)


def test_where_it_failed_is_told_here_only() -> None:
    """A message may go to a peer; the directory of this machine is not in it, through whatever hands it goes."""
    failed = StoreError("the store failed", what_to_do="look at it")
    assert failed.told_here == "the store failed"
    failed.place = "/srv/store"
    for told, message in (
        (failed, "the store failed"),
        (failed.about("guid 1"), "guid 1: the store failed"),
        (again(failed), "the store failed"),
    ):
        assert (str(told), told.told_here) == (message, f"{message} (in /srv/store)")
        assert (type(told), told.what_to_do) == (StoreError, "look at it")


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.EEXIST, NameTakenError),
        (errno.ENOSPC, OutOfSpaceError),
        (errno.EDQUOT, OutOfSpaceError),
        (errno.EACCES, UnusableFileError),
    ],
)
def test_what_the_system_says_about_a_path_has_its_name(number: int, named: type[MdmfsError]) -> None:
    """A name that is taken, a full disk, and whatever else keeps a path from being used."""
    told = unusable("/srv/file", OSError(number, os.strerror(number)))
    assert type(told) is named
    assert "/srv/file" in str(told)
    with pytest.raises(named, match="/srv/file"), using("/srv/file"):
        raise OSError(number, os.strerror(number))


def test_a_path_that_works_is_not_spoken_of() -> None:
    """Nor is what goes wrong there and is no affair of the system's."""
    with using("/srv/file"):
        pass
    with pytest.raises(KeyError), using("/srv/file"):
        raise KeyError
