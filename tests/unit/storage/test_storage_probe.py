"""The probe of ``mdmfs doctor``: which of what a storage element is to do fails is told, and nothing stays there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest

from mdmfs.hospital.storage.port import BrokenOffError, StorageError
from mdmfs.hospital.storage.probe import probe
from tests.twins.storage import TwinElement

OPAQUE: Final = re.compile(r"[0-9a-f]{64}")


class NotedElement(TwinElement):
    """A storage element that refuses one of what it is asked, and notes under which names it kept something."""

    def __init__(self, refused: str = "") -> None:
        super().__init__()
        self._refused = refused
        self.names: list[str] = []
        self.breaks_after = False

    def put(self, name: str, content: Callable[..., object], length: int) -> None:
        """Keep it."""
        self._refuse_if("put")
        super().put(name, content, length)  # type: ignore[arg-type]
        self.names.append(name)
        if self.breaks_after:
            message = f"storage {self.name} does not answer PUT: TimeoutError"
            raise BrokenOffError(message)

    def size(self, name: str) -> int | None:
        """Tell its size."""
        self._refuse_if("size")
        return super().size(name)

    def delete(self, name: str) -> None:
        """Forget it."""
        self._refuse_if("delete")
        super().delete(name)

    def _refuse_if(self, asked: str) -> None:
        if asked == self._refused:
            message = f"storage {self.name} answers with status 403"
            raise StorageError(message)


def test_a_probe_that_goes_through_leaves_nothing_and_looks_like_any_replica() -> None:
    """Its name is as opaque, and another one each time."""
    element = NotedElement()
    probe(element)
    probe(element)
    assert not element.kept
    assert len(set(element.names)) == len(element.names) == 2
    assert all(map(OPAQUE.fullmatch, element.names))


@pytest.mark.parametrize(
    ("refused", "told", "left"),
    [
        ("put", "cannot be put: storage tier1 answers with status 403; is the bucket or collection there", 0),
        ("size", "cannot be found: storage tier1 answers with status 403; may the hospital look", 0),
        ("delete", "cannot be deleted: storage tier1 answers with status 403; may the hospital delete there", 1),
    ],
)
def test_what_is_refused_is_told_by_name(refused: str, told: str, left: int) -> None:
    """And what could not be deleted, by its SURL."""
    element = NotedElement(refused)
    with pytest.raises(StorageError, match=told) as raised:
        probe(element)
    assert len(element.kept) == left
    assert all(f"Delete s3://tier1/{name} by hand" in str(raised.value) for name in element.kept)


def test_what_was_kept_although_its_put_broke_off_is_deleted() -> None:
    """And it is named, for it may yet appear."""
    element = NotedElement()
    element.breaks_after = True
    with pytest.raises(StorageError, match=r"cannot be put: .* may stay") as raised:
        probe(element)
    assert not element.kept
    assert element.names[0] in str(raised.value)


def test_what_arrives_cut_or_is_not_deleted_is_told() -> None:
    """A storage element that says yes to everything."""
    element = NotedElement()
    element.cut = 1
    with pytest.raises(StorageError, match="cannot be found: it has 4095 bytes of 4096"):
        probe(element)
    assert not element.kept
    element.cut, element.is_deaf = 0, True
    with pytest.raises(StorageError, match=r"cannot be deleted: it is still there"):
        probe(element)
