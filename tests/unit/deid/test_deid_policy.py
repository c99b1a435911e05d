"""A policy is one TOML text; what it does not understand it names."""

from __future__ import annotations

from typing import Final

import pytest

from mdmfs.hospital.deid.policy import Heads, Option, Policy, Times
from mdmfs.model.errors import ConfigurationError
from tests.twins.deidentified import RESEARCH, STRICT

START: Final = 'name = "a"\nheads = "refuse"\n'
APPROVED: Final = '[approvals]\nretain-full-dates = "the board, 12 May 2026"\n'

RULE: Final = '[[regions]]\nsop_class = "1.2.3"\nblank = [[0, 0, 1, 1]]\n'


def test_the_shipped_policies_say_what_they_are() -> None:
    """The strict one is the Basic Profile alone, research has five options."""
    assert (STRICT.name, STRICT.heads, STRICT.options) == ("strict", Heads.REFUSE, frozenset())
    assert (RESEARCH.name, RESEARCH.heads, RESEARCH.times) == ("research", Heads.AGREEMENT, Times.SHIFT)
    others = {Option.STRUCTURED_CONTENT, Option.FULL_DATES, Option.DEVICE, Option.INSTITUTION}
    assert RESEARCH.options == frozenset(Option) - others


def test_the_digest_is_of_what_a_policy_says() -> None:
    """Order and spacing do not count; each word does."""
    first = Policy.parse('name = "a"\nheads = "refuse"\nterms = ["one", "two"]')
    second = Policy.parse('# a comment\nterms = ["two", "one"]\nheads="refuse"\nname="a"\ntimes = "shift"')
    assert len(first.digest) == 32
    assert first == second
    assert first.digest == second.digest
    others = [
        'name = "b"\nheads = "refuse"\nterms = ["one", "two"]',
        'name = "a"\nheads = "agreement"\nterms = ["one", "two"]',
        'name = "a"\nheads = "refuse"\nterms = ["one"]',
        'name = "a"\nheads = "refuse"\nterms = ["one", "two"]\ntimes = "keep"',
        'name = "a"\nheads = "refuse"\nterms = ["one", "two"]\noptions = ["clean-graphics"]',
        'name = "a"\nheads = "refuse"\nterms = ["one", "two"]\nknown_uids = ["1.2.3"]',
    ]
    assert len({first.digest, *(Policy.parse(text).digest for text in others)}) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"', "'heads' is one of refuse, agreement (it is missing)"),
        ('heads = "refuse"', "'name' must match"),
        ('name = "a"\nheads = "ignore"', "'heads' is one of refuse, agreement (line 2)"),
        ('name = "a"\nheads = "refuse"\n\nfaces = 1', "'faces' is none of"),
        ('name = "a"\nheads = "refuse"\n\nfaces = 1', "(line 4)"),
        ('name = "a"\nheads = "refuse"\noptions = ["retain-uids"]', "'options' is one of"),
        ('name = "a"\nheads = "refuse"\noptions = "clean-graphics"', "'options' is a list of texts"),
        ('name = "a"\nheads = "refuse"\nterms = ["Jane Doe"]', "'terms' must match"),
        ('name = "a"\nheads = "refuse"\nknown_uids = ["1.02"]', "'known_uids' must match"),
        ('name = "a"\nheads = "refuse"\ntimes = true', "'times' is one of shift, keep"),
        ('name = "a" heads', "not TOML"),
        (f'{START}options = ["retain-institution"]', "[approvals] does not say who approved it (line 3)"),
        (f'{START}options = ["retain-full-dates"]\n[approvals]', "retain-full-dates, and [approvals]"),
        ('name = "a"\nheads = "refuse"\n[approvals]\nretain-device = "the board, 2026"', "'approvals' is a table of"),
        ('name = "a"\nheads = "refuse"\n[approvals]\nretain-full-dates = "me"', "'retain-full-dates' must match"),
        (
            f'{START}options = ["retain-full-dates", "retain-modified-dates"]\n{APPROVED}',
            "choose one (line 3)",
        ),
        ('name = "a"\nheads = "refuse"\n[[reviews]]\nsop_class = "1.2"', "'review' must match"),
        ('name = "a"\nheads = "refuse"\n[[reviews]]\nblank = [1]', "'reviews' is [[reviews]] tables of"),
        (f"{START}{RULE}{RULE}{RULE.replace('1.2.3', 'x')}{RULE}", "'sop_class' must match"),
        (f"{START}{RULE}{RULE}{RULE.replace('1.2.3', 'x')}{RULE}", "(line 10)"),
        (f"{START}{RULE}{RULE.replace('blank', '# blank')}{RULE}", "must say what is blanked"),
        (f"{START}{RULE}{RULE.replace('blank', '# blank')}{RULE}", "(in the table of line 6)"),
        (f'regions = [{{sop_class = "x", blank = [[0, 0, 1, 1]]}}]\n{START}', "'sop_class' must match"),
    ],
)
def test_a_wrong_policy_is_refused_with_field_and_line(text: str, message: str) -> None:
    """There is no default for heads, and no unknown word is passed over."""
    with pytest.raises(ConfigurationError) as caught:
        Policy.parse(text)
    assert message in str(caught.value)
