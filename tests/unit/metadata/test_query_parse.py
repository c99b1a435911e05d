"""The query language: what is a query, what is none, and in which column it stops being one."""

# ruff: noqa: S311 what is drawn here is drawn again from the same seed

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from mdmfs.metadata.query.check import check
from mdmfs.metadata.query.parse import MAX_BYTES, MAX_DEPTH, MAX_TESTS, MAX_TEXT, MAX_VALUES, parse
from mdmfs.metadata.schema import AttributeType, Collection, Column, Level, Schema
from mdmfs.model.errors import MalformedQueryError
from tests.twins.random_metadata import random_query

FOLLOWUP = {"Diagnosis": AttributeType.TEXT, "Dead": AttributeType.BOOLEAN, "Remark": AttributeType.NOTE}


def collection(number: int, project: str, name: str, attributes: dict[str, AttributeType]) -> Collection:
    """Make a collection."""
    return Collection(
        number, project, name, {one: Column(n, one, kind, name) for n, (one, kind) in enumerate(attributes.items())}
    )


SCHEMA = Schema(
    [
        collection(1, "neuro", "followup", FOLLOWUP),
        collection(2, "onco", "followup", FOLLOWUP),
        collection(3, "onco", "pathology", {"Diagnosis": AttributeType.TEXT, "Grade": AttributeType.NUMBER}),
        collection(4, "neuro", "pathology", {"Grade": AttributeType.TEXT}),
    ]
)


def refused(text: str, level: Level = Level.SERIES) -> str:
    """Give the sentence by which a text is refused."""
    with pytest.raises(MalformedQueryError) as caught:
        check(parse(text), SCHEMA, level)
    return str(caught.value)


@pytest.mark.parametrize("seed", range(300))
def test_a_query_in_its_normal_form_is_the_same_query(seed: int) -> None:
    """Written and read again, nothing changes."""
    query = parse(random_query(random.Random(seed), images=bool(seed % 2)))
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        ('Modality=="MR"', 'Modality == "MR"'),
        ('Modality == "a\\"b\\\\c"', 'Modality == "a\\"b\\\\c"'),
        ("Age >= 60 and (Age < 70 and Age != 65)", "Age >= 60 and Age < 70 and Age != 65"),
        ("not not (Age == 1)", "not not Age == 1"),
        ("Age == 1 or Age == 2 and Age == 3", "Age == 1 or (Age == 2 and Age == 3)"),
        (
            "Age is not missing order by Age asc, Modality desc limit 7",
            "Age is not missing order by Age, Modality desc limit 7",
        ),
        ("StudyDate > date( 2024-01-01 )", "StudyDate > date(2024-01-01)"),
        ("SliceThickness in (1, -2.5, 1e3)", "SliceThickness in (1, -2.5, 1000.0)"),
        ("limit 5", "limit 5"),
    ],
)
def test_what_is_written_is_understood(text: str, normal: str) -> None:
    """``and`` binds before ``or``, brackets that say nothing go, texts keep what stands in them."""
    assert str(parse(text)) == normal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('Modality = "MR"', "column 10: equal is written =="),
        ("Modality == 'MR'", "column 13: texts stand in double quotation marks"),
        ("Modality == MR", "column 13: here stands"),
        ('Modality == "MR', "column 13: this text does not end"),
        ("Age == 1 Modality", 'column 10: expected "and"'),
        ("Age", "column 4: after Age follows"),
        ("(Age == 1", "column 10: after ("),
        ("Age == 1)", "column 9: expected"),
        ("and", "column 1: a condition begins with the name"),
        ("Age in ()", "column 9: here stands"),
        ("Age in (1 2)", "column 11: after ("),
        ("Age is lost", 'column 8: after "is" follows'),
        ("order Age", 'column 7: after "order" follows "by"'),
        ("limit -1", 'column 7: after "limit" follows'),
        ("limit 1.5", 'column 7: after "limit" follows'),
        ("limit true", 'column 7: after "limit" follows'),
        ("StudyDate == date(2024-02-30)", "column 14: 2024-02-30 is no day"),
        ("Age == 9223372036854775808", "column 8: this number is too large"),
        ("Age == 1e999", "column 8: this number is too large"),
        ("Ünge == 1", "column 1: 'Ü' means nothing here"),
        ("Age == \u0661", "column 8:"),
        ("Age == 1; drop table series", "column 9: ';' means nothing here"),
        ("Age == 1 -- x", "column 10: '-' means nothing here"),
        ('Modality == "a\0b"', "column 15: a query holds no NUL"),
        ('Modality == "\ud800"', "column 14: this is no valid Unicode"),
    ],
)
def test_what_is_no_query_is_refused_where_it_stops_being_one(text: str, said: str) -> None:
    """The column counts characters, from 1."""
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'Modalty == "MR"',
            "column 1: there is no attribute Modalty, or it is not for this identity; did you mean Modality?",
        ),
        ("Modality == 3", 'column 13: Modality is of type text: compare it with a "text"'),
        ('Age in (1, "a")', "column 12: Age is of type integer"),
        ("Age == true", "column 8: Age is of type integer"),
        ("Dead == 1", "column 9: Dead is of type boolean"),
        ("Dead < true", "column 1: Dead is true or false"),
        ('StudyDate == "2024-01-01"', "column 14: StudyDate is of type date"),
        ('Age like "6%"', "column 10: Age is of type integer"),
        ('Modality like "a\\\\"', "column 15: in a pattern"),
        ('Remark == "x"', "column 1: Remark is sealed"),
        (
            'Diagnosis == "x"',
            "column 1: Diagnosis is in several collections: write followup.Diagnosis or pathology.Diagnosis",
        ),
        ("Grade == 1", "column 1: Grade has other types in other projects"),
        ("order by followup.Dead", "column 10: followup.Dead cannot order the result"),
        ("order by InstanceNumber", "column 10: InstanceNumber cannot order the result"),
        ('nowhere.Diagnosis == "x"', "column 1: there is no attribute nowhere.Diagnosis"),
        ('followup.Modality == "x"', "column 1: there is no attribute followup.Modality"),
    ],
)
def test_what_the_schema_does_not_have_is_refused_in_its_column(text: str, said: str) -> None:
    """Names and types are checked before any database is asked."""
    assert refused(text).startswith(said)


def test_images_can_be_ordered_by_what_images_have() -> None:
    """Each has exactly one of it."""
    assert check(parse("order by InstanceNumber"), SCHEMA, Level.IMAGE).order[0][0].name == "InstanceNumber"


MOST_BYTES = 4 * 2**20
BOMBS = {
    "nots": "not " * 100_000 + "Age == 1",
    "brackets": "(" * 2000 + "Age == 1" + ")" * 2000,
    "deep": "not (" * (MAX_DEPTH // 2 + 1) + "Age == 1" + ")" * (MAX_DEPTH // 2 + 1),
    "tests": " and ".join(["Age == 1"] * (MAX_TESTS + 1)),
    "values": f"Age in ({', '.join(['1'] * (MAX_VALUES + 2))})",
    "text": f'Modality == "{"a" * (MAX_TEXT + 1)}"',
    "digits": "Age == " + "9" * 4000,
    "huge": 'Modality == "' + "\U0001f9e0" * 1_000_000 + '"',
    "quotes": '"' * MAX_BYTES,
    "backslashes": 'Modality == "' + "\\" * 4000,
    "blanks": " " * 4000 + "x",
    "pattern": 'Modality like "' + "%a" * 500 + '"',
    "exponent": "SliceThickness == 1e" + "9" * 3000,
    "keys": "order by " + ", ".join(["Age"] * 9),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_with_a_column_and_costs_nothing(name: str) -> None:
    """Depth, count, length and wildcards have bounds; none is met by working through it first."""
    begun = time.process_time()
    assert refused(BOMBS[name]).startswith("column ")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(name: str) -> None:
    """Beyond the text itself, less than a long query takes."""
    tracemalloc.start()
    try:
        refused(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES + 4 * len(BOMBS[name])
    finally:
        tracemalloc.stop()


def test_whatever_is_thrown_at_it_the_parser_refuses_in_order() -> None:
    """Random pieces of queries, and random bytes: an error of ours with a column, or a query."""
    draw = random.Random(8)
    pieces = [
        *'()<>=!,."\\%-+ ',
        "and",
        "or",
        "not",
        "like",
        "in",
        "is",
        "missing",
        "order",
        "by",
        "limit",
        "date(",
        "Age",
        '"x"',
        "7",
    ]
    for _ in range(3000):
        parts = draw.choices(pieces, k=draw.randrange(12))
        text = draw.choice(["", " "]).join(parts) if draw.random() < 0.8 else draw.randbytes(9).decode("latin-1")
        try:
            assert parse(str(parse(text))) == parse(text)
        except MalformedQueryError as error:
            assert str(error).startswith("column ")  # noqa: PT017 what it says is the point
