"""The frozen shares of tests/vectors, and the page that explains one of them."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from mdmfs.model.errors import ERRORS_BY_CODE, MdmfsError
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share, combine, split

ROOT = pathlib.Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/shares.json").read_text())


def name_of(vector: dict[str, Any]) -> str:
    """Name the test after the vector."""
    return str(vector["name"])


@pytest.mark.parametrize("vector", VECTORS["splits"], ids=name_of)
def test_a_frozen_split_gives_the_same_shares(vector: dict[str, Any]) -> None:
    """Byte for byte, and the first of them give the key."""
    shares = split(
        bytes.fromhex(vector["secret"]),
        guid=Guid.parse(vector["guid"]),
        generation=vector["generation"],
        threshold=vector["threshold"],
        total=vector["total"],
        split_id=bytes.fromhex(vector["split_id"]),
        coefficients=bytes.fromhex(vector["coefficients"]),
    )
    assert [share.encode().hex() for share in shares] == vector["shares"]
    assert combine(shares[-vector["threshold"] :]).hex() == vector["secret"]


@pytest.mark.parametrize("vector", VECTORS["records"], ids=name_of)
def test_a_frozen_record_parses_or_fails_by_its_name(vector: dict[str, Any]) -> None:
    """What parses writes the same bytes again."""
    record = bytes.fromhex(vector["record"])
    if vector["outcome"] == "parses":
        assert Share.parse(record).encode() == record
        return
    with pytest.raises(MdmfsError) as caught:
        Share.parse(record)
    assert type(caught.value) is ERRORS_BY_CODE[vector["outcome"]]


@pytest.mark.parametrize("vector", VECTORS["combinations"], ids=name_of)
def test_a_frozen_combination_gives_the_key_or_fails_by_its_name(vector: dict[str, Any]) -> None:
    """One outcome for each set of shares."""
    shares = [Share.parse(bytes.fromhex(record)) for record in vector["shares"]]
    if vector["outcome"] == "combines":
        assert combine(shares).hex() == vector["secret"]
        return
    with pytest.raises(MdmfsError) as caught:
        combine(shares)
    assert type(caught.value) is ERRORS_BY_CODE[vector["outcome"]]


def test_the_share_on_the_page_is_the_frozen_one() -> None:
    """The bytes that docs/sealed-object.md shows, field by field."""
    page = (ROOT / "docs/sealed-object.md").read_text()
    block = re.search(r"^## Share record.*?^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    shown = "".join(re.split(r"\s{2,}", line, maxsplit=1)[1] for line in block[1].splitlines())
    example = next(vector for vector in VECTORS["splits"] if vector["name"] == "2 of 3")
    assert shown == example["shares"][0]
