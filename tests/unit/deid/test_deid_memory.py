"""A memory of the instance before makes no difference to any output, trace or refusal."""

from __future__ import annotations

import random
from typing import Final

import pytest

from mdmfs.hospital.deid.classes import CLASSES
from mdmfs.hospital.deid.deidentify import deidentify
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.residue import ResidueGate
from mdmfs.hospital.deid.rules import compile_rules, prepare
from mdmfs.hospital.deid.walk import Memory, Trace
from tests.twins.deid_fuzz import BLANKED
from tests.twins.deidentified import (
    OTHER_SUBJECT,
    RESEARCH,
    STRICT,
    SUBJECT,
    elements_of_example,
    header_of,
    part10,
    reviewed,
)
from tests.twins.planted import Kind, planted_file

SERIES: Final = 600
RETAINING: Final = Policy.parse(
    'name = "r"\nheads = "agreement"\noptions = ["retain-full-dates", "retain-institution", "retain-device", '
    '"clean-descriptors"]\n[approvals]\nretain-full-dates = "the board"\nretain-institution = "the board"\n'
)
POLICIES: Final = (RESEARCH, STRICT, RETAINING, BLANKED)
CHOICES: Final[dict[int, tuple[bytes, tuple[bytes, ...]]]] = {
    0x00080005: (b"CS", (b"ISO_IR 100", b"ISO_IR 192", b"")),
    0x00080018: (b"UI", (b"1.2.3.4.5.1\0", b"1.2.3.4.5.12", b"no uid")),
    0x00080020: (b"DA", (b"20180312", b"20180313", b"2018")),
    0x00080022: (b"DA", (b"20180312", b"20171231", b"soon")),
    0x00080030: (b"TM", (b"101530.250", b"235959", b"23")),
    0x00080032: (b"TM", (b"101530.250", b"235959", b"late")),
    0x0008002A: (b"DT", (b"20180312101530", b"20180312235959", b"2018")),
    0x00080080: (b"LO", (b"Mercy Hospital", b"Jane Memorial")),
    0x00080081: (b"ST", (b"1 Doe Street", b"")),
    0x0008103E: (b"LO", (b"t1 axial jane", b"t1 axial", b"chest axial 7654321")),
    0x00081090: (b"LO", (b"Somatom", b"jane")),
    0x00100010: (b"PN", (b"Doe^Jane", b"Axial^Chest", b"M\xfcller^Ren\xe9")),
    0x00100020: (b"LO", (b"H1234567", b"7654321 ", b"")),
    0x00100040: (b"CS", (b"F", b"M", b"?")),
    0x00101010: (b"AS", (b"063Y", b"095Y", b"63")),
    0x00180050: (b"DS", (b"1.5", b"2.0 \\1", b"Doe")),
    0x00200013: (b"IS", (b"1", b"12", b"7654321", b"one")),
    0x00204000: (b"LT", (b"seen by Jane Doe", b"")),
    0x00280010: (b"US", (b"\4\0", b"\5\0")),
    0x00280103: (b"US", (b"\0\0", b"\1\0")),
    0x00280106: (b"US", (b"\1\0", b"\xff\xff")),
}
NESTED: Final = (
    encode_items(head(0x00081140, b"SQ"), [encode(head(0x00081155, b"UI"), b"1.2.3.4.5.9\0")]),
    encode_items(
        head(0x00400275, b"SQ"),
        [encode(head(0x00400007, b"LO"), b"Chest for Jane"), encode(head(0x00400002, b"DA"), b"20180312")],
    ),
    encode_items(head(0x00400275, b"SQ"), [encode(head(0x00400007, b"LO"), b"Chest axial 7654321")]),
    encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER"),
    encode(head(0x00190010, b"LO"), b"JANE DOE"),
    encode(head(0x0019100A, b"US"), b"\x24\0"),
    encode(head(0x0019100B, b"LO"), b"Doe 7654321"),
    encode(head(0x00280106, b"UN"), b"\1\0"),
)


def outcome(file: bytes, policy: Policy, subject: Subject, memory: Memory | None) -> object:
    """Give all that can be seen of a de-identification: output, traces, or the refusal."""
    try:
        run = deidentify(header_of(file), policy, subject, memory=memory)
        gate = ResidueGate(run)
        octets = b"".join(bytes(piece.octets) for piece in [*gate.feed(b""), *gate.finish()])
    except RefusedError as refused:
        return refused.reason, refused.where
    return octets, run.study_date, run.sop_instance, {kind: run.traces.values(kind) for kind in Trace}


def test_a_series_becomes_the_same_with_and_without_a_memory() -> None:
    """Whatever changes from one instance to the next: values, names, partners of dates, patients and policies."""
    chosen, memory, seen = random.Random(13), Memory(), set()  # noqa: S311 the same in each run
    elements, policy, subject = elements_of_example(), RESEARCH, SUBJECT
    for _ in range(SERIES):
        for tag in chosen.sample(sorted(CHOICES), chosen.randint(0, 2)):
            vr, values = CHOICES[tag]
            elements[tag] = encode(head(tag, vr), chosen.choice(values), b"\0" if vr == b"UI" else b" ")
        for element in chosen.sample(NESTED, chosen.randint(0, 1)):
            tag = int.from_bytes(element[:2], "little") << 16 | int.from_bytes(element[2:4], "little")
            elements[tag] = element
        if chosen.random() < 0.2:
            elements = elements_of_example()
            policy, subject = chosen.choice(POLICIES), chosen.choice((SUBJECT, OTHER_SUBJECT))
        file = part10(elements)
        found = outcome(file, policy, subject, memory)
        assert found == outcome(file, policy, subject, None)
        seen.add(type(found[0]) if isinstance(found, tuple) else None)
    assert len(seen) > 1  # some were let through, some were refused


@pytest.mark.parametrize("kind", Kind)
def test_an_instance_that_comes_again_becomes_the_same_again(kind: Kind) -> None:
    """Every attribute of the table, at every depth, from a memory that holds it already."""
    file, memory = planted_file(kind)[0], Memory()
    policy = reviewed(kind.value)
    first = outcome(file, policy, SUBJECT, None)
    assert [outcome(file, policy, SUBJECT, memory) for _ in range(2)] == [first, first]


def test_a_memory_shows_nothing_of_itself() -> None:
    """It holds what identifies a patient."""
    memory = Memory()
    outcome(part10(elements_of_example()), RESEARCH, SUBJECT, memory)
    assert "Doe" not in f"{memory!r}"


@pytest.mark.parametrize("policy", POLICIES)
def test_what_the_rules_of_all_classes_share_stays_as_it_was_prepared(policy: Policy) -> None:
    """Rules compiled for one class, afresh, are the same before and after those of all the others."""
    prepare(policy)
    of = {sop_class: compile_rules.__wrapped__(policy, sop_class) for sop_class in CLASSES}
    assert all(compile_rules.__wrapped__(policy, sop_class) == rules for sop_class, rules in of.items())
