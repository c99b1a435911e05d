"""Names of collections of records."""

from __future__ import annotations

import pytest

from mdmfs.model.collection import MAX_DEPTH, above, is_collection_name, lies_within, lineage


@pytest.mark.parametrize("name", ["followup", "followup.onco", "f_1.Onco.x", ".".join("a" * MAX_DEPTH), "a" * 64])
def test_words_with_dots_between_them_are_names(name: str) -> None:
    """Letters, digits and underscores, a letter first."""
    assert is_collection_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "1a", "a b", "a\n", "ä", "a/b", ".".join("a" * (MAX_DEPTH + 1)), "a" * 65]
)
def test_nothing_else_is(name: str) -> None:
    """Nor are too many words, or a word too long."""
    assert not is_collection_name(name)


def test_a_collection_lies_in_those_whose_words_it_begins_with() -> None:
    """Whole words: ``followup2`` is no part of ``followup``."""
    assert above("a.b.c") == "a.b"
    assert above("a") == ""
    assert lineage("a.b.c") == ["a", "a.b", "a.b.c"]
    assert lies_within("a.b", "a.b")
    assert lies_within("a.b.c", "a")
    assert not lies_within("a", "a.b")
    assert not lies_within("followup2", "followup")
