"""Messages about names that users make: collections, aliases, comments."""

from __future__ import annotations

import enum
from typing import Final

from mdmfs.wire.messages.files import Node
from mdmfs.wire.messages.message import Message

CHANGE_NAME_PATH: Final = "/v1/change-name"
READ_COMMENT_PATH: Final = "/v1/read-comment"
LIST_NAMES_PATH: Final = "/v1/list-names"
REMOVE_NAMES_PATH: Final = "/v1/remove-names"
TOKEN_SIZE: Final = 16
MAX_COMMENT_BYTES: Final = 1024
MAX_NAMES: Final = 5000
"""In one answer."""


class NameChange(enum.StrEnum):
    """What is done to a name."""

    COLLECTION = "collection"
    """It becomes a directory."""
    ALIAS = "alias"
    """It becomes a symbolic link to ``other``."""
    RENAME = "rename"
    """``other`` takes its place."""
    REMOVE = "remove"
    """The alias goes."""
    REMOVE_COLLECTION = "remove-collection"
    """The empty collection goes."""
    COMMENT = "comment"
    """``text`` is said of it; an empty one is none."""


class ChangeName(Message, frozen=True):
    """Change one name, at once and whole. Asked again under the same token, it is done once."""

    token: bytes
    """16 random bytes."""
    kind: NameChange
    lfn: str
    other: str = ""
    text: str = ""
    may_replace: bool = True
    """Whether what has the new name already may go."""
    since: int = -1
    """The version that the caller's listings of the directories show; -1: he has none."""


class ChangedName(Message, frozen=True):
    """A change that is made."""

    version: int
    """Of the feed, which the change is."""
    node: Node | None
    """What has the name now; None where nothing has."""
    is_only_change: bool
    """Whether a listing of the version that the caller told of, with this change, is right."""


class ReadComment(Message, frozen=True):
    """Ask for the comment on a name."""

    lfn: str


class Comment(Message, frozen=True):
    """A comment; empty where there is none."""

    text: str


class ListNames(Message, frozen=True):
    """Ask, as the hospital's own people, what users made at and below a name, after so many."""

    lfn: str
    skip: int = 0


class MadeName(Message, frozen=True):
    """A name that a user made, or a comment on one that he did not."""

    lfn: str
    maker: str
    """A DN; empty where only the comment is a user's."""
    target: str
    """Where an alias leads."""
    leads: bool
    """Whether something is there."""
    modified: float
    comment: str


class MadeNames(Message, frozen=True):
    """Some of them; fewer than ``MAX_NAMES`` are the last."""

    names: list[MadeName]


class RemoveNames(Message, frozen=True):
    """Take away, as the hospital's own people, all names and comments that users made at and below a name."""

    lfn: str
    comments_only: bool = False


class RemovedNames(Message, frozen=True):
    """How many went."""

    names: int
    comments: int
