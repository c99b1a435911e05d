"""Texts that attack a database through what is asked of it: a closing, a wish, a hiding of the rest.

The kinds are those that SQL injection is sorted into: tautologies and blind questions, errors that quote, unions,
further statements, waiting, files and programs of the server, and other spellings of all that.
"""

from __future__ import annotations

import itertools
import random

CLOSING = (
    "",
    "'",
    '"',
    ")",
    "')",
    '")',
    "'))",
    "`",
    "\\'",
    '\\"',
    "%'",
    "1",
    "-1'",
    "\u2019",
    "%27",
    "';",
    '" ',
    "\x1f",
)
WANTED = (
    "or 1=1",
    "or 'a'='a'",
    'or ""=""',
    "and 1=0",
    "and (select count(*) from acls) > 0",
    "and substr((select path from series), 1, 1) = '/'",
    "and 1=cast((select version()) as integer)",
    "and 1=(select 1 from (select count(*), version()) x)",
    "and json_extract('{', (select path from series limit 1))",
    "union all select null, null, null",
    "union select path, chain, class from series",
    "intersect select 1",
    "; drop table series",
    "; update series set visible = true",
    "; delete from acls; commit",
    "; attach database '/tmp/x' as x",
    "and sleep(5)",
    "; select pg_sleep(5)",
    "and randomblob(1000000000) is not null",
    "and (with recursive n(i) as (select 1 union all select i+1 from n) select count(*) from n) > 0",
    "and load_extension('x')",
    "; copy series to program 'id'",
    "; pragma writable_schema = 1",
    "order by (select 1)",
    "oR/**/1/**/=/**/1",
    "\uff4f\uff52 1\uff1d1",
    "%6fr 1=1",
    "or chr(49)||chr(49) = '11'",
    ":k0 or %(k0)s or $1 or ?",
)
HIDING = ("", " -- ", "--+", "#", "/*", ";", "\n", " and '1'='1", ' and "1"="1', "%00")


def attacks(draw: random.Random, count: int) -> list[str]:
    """Give so many of all of them, or all."""
    every = [f"{closing} {wanted}{hiding}" for closing, wanted, hiding in itertools.product(CLOSING, WANTED, HIDING)]
    return draw.sample(every, min(count, len(every)))


def queries(attack: str) -> list[str]:
    """Put it wherever a query can hold something: as all of it, behind it, as value, name, key and bound."""
    return [
        attack,
        f'Modality == "MR" {attack}',
        f"Modality == {attack}",
        f"Age in (1, {attack})",
        f"{attack} == 1",
        f"StudyDate > date({attack})",
        f'Modality == "MR" order by {attack}',
        f'Modality == "MR" limit {attack}',
    ]


def quoted(text: str) -> str:
    """Write a text as a value."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
