"""The fetches of one directory: one at a time, and each answers all who had asked before it began.

A directory may change faster than it is listed: no copy is right by the time that it is here, but it is as new as those
want it who asked before. Whoever asks later waits for the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import trio

from mdmfs.model.errors import MdmfsError, again


class Fetches:
    """Of one directory, for as long as somebody waits for one."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.asking = 0
        """Who waits, or fetches."""
        self.turn: Final = trio.Lock()
        self.begun = 0
        """The number of the fetch that began last."""
        self._answered = 0
        """That of the last one whose answer is everybody's who had asked before."""
        self._failure: MdmfsError | None = None

    def is_answered(self, begun: int) -> bool:
        """Ask whether a fetch has ended well that began after the one numbered so; raises what another ended with."""
        if self._answered <= begun:
            return False
        if self._failure is not None:
            raise again(self._failure) from self._failure
        return True

    @contextlib.contextmanager
    def fetch(self) -> Iterator[int]:
        """Fetch in this block, under a number; what it raises is raised to all who had asked before."""
        self.begun += 1
        number, failure = self.begun, None
        try:
            yield number
        except MdmfsError as error:
            failure = error
            raise
        except BaseException:
            number = 0  # who fetched was stopped, and the next one begins anew
            raise
        finally:
            if number == self.begun:
                self._answered, self._failure = number, failure

    def disown(self) -> None:
        """Know that what is under way or has just come answers nobody."""
        self.begun += 1
        self._answered = 0
