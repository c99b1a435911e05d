"""What commands take: files, and values made of what was typed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Final, TypeVar

import click

from mdmfs.model.errors import ConfigurationError, MalformedNameError

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)
_QUOTED: Final = 200
"""Characters of what was typed that an error quotes."""

T = TypeVar("T")


def parsed(parse: Callable[[str], T], text: str) -> T:
    """Make a value of what was typed; an error says of what."""
    try:
        return parse(text)
    except (MalformedNameError, ConfigurationError) as error:
        raise error.about(repr(text[:_QUOTED])) from error
