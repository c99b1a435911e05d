"""The frozen objects of tests/vectors, and the page that explains one of them."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor

from mdmfs.model.errors import ERRORS_BY_CODE, IntegrityError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SALT_SIZE, SEALED_CHUNK_SIZE, TAG_SIZE
from mdmfs.sealing.seal import seal
from mdmfs.sealing.unseal import unseal

ROOT = pathlib.Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/sealed-objects.json").read_text())["objects"]
OPENING = [vector for vector in VECTORS if vector["outcome"] == "opens"]
FAILING = [vector for vector in VECTORS if vector["outcome"] != "opens"]


def name_of(vector: dict[str, Any]) -> str:
    """Name the test after the vector."""
    return str(vector["name"])


def context_of(vector: dict[str, Any]) -> ObjectContext:
    """Read the context."""
    role = {"body": Role.BODY, "prefix": Role.PREFIX}[vector["role"]]
    return ObjectContext(role, Guid.parse(vector["guid"]), vector["generation"], vector["size"])


def plaintext_of(vector: dict[str, Any]) -> bytes:
    """Read the plaintext, or make the pattern that the file describes."""
    if "plaintext" in vector:
        return bytes.fromhex(vector["plaintext"])
    return bytes((7 * i + i // 251) % 256 for i in range(vector["pattern_size"]))


def sealed_of(vector: dict[str, Any]) -> bytes:
    """Read the object as it is served: whole in the file, or the pattern's, its chunks in the order given."""
    if "sealed" in vector:
        return bytes.fromhex(vector["sealed"])
    key, salt = FileKey(bytes.fromhex(vector["key"])), bytes.fromhex(vector["salt"])
    sealed = seal(plaintext_of(vector), key, context_of(vector), salt)
    assert hashlib.sha256(sealed).hexdigest() == vector["sealed_sha256"]
    chunks = [sealed[at : at + SEALED_CHUNK_SIZE] for at in range(HEADER_SIZE, len(sealed), SEALED_CHUNK_SIZE)]
    return sealed[:HEADER_SIZE] + b"".join(chunks[number] for number in vector["chunks"])


@pytest.mark.parametrize("vector", OPENING, ids=name_of)
def test_a_frozen_object_is_sealed_to_the_same_bytes_and_opens(vector: dict[str, Any]) -> None:
    """By us in both directions, and by the library."""
    key, context, plaintext = bytes.fromhex(vector["key"]), context_of(vector), plaintext_of(vector)
    sealed = sealed_of(vector)
    assert context.encode().hex() == vector["context"]
    assert seal(plaintext, FileKey(key), context, bytes.fromhex(vector["salt"])) == sealed
    assert unseal(sealed, FileKey(key), context) == plaintext
    decryptor = Cobblestone256Decryptor(key, context.encode())
    assert decryptor.update(sealed) + decryptor.finalize() == plaintext


@pytest.mark.parametrize("vector", FAILING, ids=name_of)
def test_a_frozen_forgery_fails_by_its_name(vector: dict[str, Any]) -> None:
    """A wrong key is called a wrong key, damage is called damage."""
    expected = ERRORS_BY_CODE[vector["outcome"]]
    with pytest.raises(IntegrityError) as caught:
        unseal(sealed_of(vector), FileKey(bytes.fromhex(vector["key"])), context_of(vector))
    assert type(caught.value) is expected


def test_the_vectors_hold_what_the_page_promises() -> None:
    """Every edge size opens, and both refusals are there."""
    sizes = {vector["size"] for vector in OPENING}
    assert sizes >= {0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1}
    assert {vector["outcome"] for vector in FAILING} == {"wrong-key", "integrity"}


def test_the_worked_example_of_the_page_is_the_frozen_one() -> None:
    """The bytes that docs/sealed-object.md shows, line by line."""
    page = (ROOT / "docs/sealed-object.md").read_text()
    block = re.search(r"^## Worked example.*?^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    shown = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in block[1].splitlines())
    example = next(vector for vector in VECTORS if vector["name"] == "worked example")
    sealed = bytes.fromhex(example["sealed"])
    assert shown == {
        "GUID": example["guid"],
        "file key": example["key"],
        "context": shown["context"],
        "salt": sealed[:SALT_SIZE].hex(),
        "commitment": sealed[SALT_SIZE:HEADER_SIZE].hex(),
        "ciphertext": sealed[HEADER_SIZE:-TAG_SIZE].hex(),
        "tag": sealed[-TAG_SIZE:].hex(),
    }
    assert shown["context"].replace(" ", "") == example["context"]
    assert f"{len(sealed)} bytes" in page
    assert f"`{plaintext_of(example).decode()}`, body, generation {example['generation']}" in page
