"""Where a symbolic link leads, as text: from the words of a program to an LFN, and to a path that works on this mount.

The catalogue keeps an LFN, so that an alias leads to the same on every mount. It is shown as a path from the alias's
own directory, which holds wherever a mount is bound to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mdmfs.model.errors import MalformedNameError, RefusedNameError
from mdmfs.model.names import ROOT_PREFIX, Lfn

_LFN: Final = "lfn:"


def parse_target(text: bytes, directory: Lfn, root: Lfn, mount_points: Iterable[str]) -> Lfn:
    """Read the target of a link in ``directory`` on a mount that shows ``root``: relative, below the mount, or an LFN.

    Whether something is there is not asked. Raises ``RefusedNameError`` for what lies outside.
    """
    try:
        path = text.decode()
        within = next((path[len(at) :] for at in mount_points if path == at or path.startswith(f"{at}/")), None)
        if within is not None:
            return _walked(root, within, root)
        if path.startswith((_LFN, f"{ROOT_PREFIX}/")) or path == ROOT_PREFIX:
            return _walked(Lfn(()), path.removeprefix(_LFN).removeprefix(ROOT_PREFIX), Lfn(()))
        if not path.startswith("/"):
            return _walked(directory, path, root)
    except (UnicodeDecodeError, MalformedNameError) as error:
        raise RefusedNameError(_outside()) from error
    raise RefusedNameError(_outside())


def path_to(target: Lfn, directory: Lfn, root: Lfn) -> str:
    """Give the path by which a link in ``directory`` leads to a target; the LFN of what the mount does not show."""
    if not target.is_below(root):
        return str(target)
    shared = 0
    for one, other in zip(target.parts, directory.parts, strict=False):
        if one != other:
            break
        shared += 1
    return "/".join([*[".."] * (len(directory.parts) - shared), *target.parts[shared:]]) or "."


def _walked(begin: Lfn, path: str, root: Lfn) -> Lfn:
    """Follow a path by its words alone; raises ``RefusedNameError`` where it leaves the root."""
    parts = list(begin.parts)
    for part in path.split("/"):
        if part == "..":
            if len(parts) <= len(root.parts):
                raise RefusedNameError(_outside())
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return Lfn(tuple(parts))


def _outside() -> str:
    return f"an alias leads to a name below the mount, or to one that begins with {ROOT_PREFIX}/"
