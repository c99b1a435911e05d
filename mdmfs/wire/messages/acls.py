"""Access control lists, and why somebody may or may not."""

from __future__ import annotations

from typing import Final

from mdmfs.access.edit import Edit
from mdmfs.wire.messages.message import Message

READ_ACL_PATH: Final = "/v1/read-acl"
CHANGE_ACL_PATH: Final = "/v1/change-acl"
ACL_EFFECT_PATH: Final = "/v1/acl-effect"
WHY_PATH: Final = "/v1/why"


class ReadAcl(Message, frozen=True):
    """Ask for the ACL of a name; of a directory also for the one that the files in it share."""

    lfn: str


class AclTexts(Message, frozen=True):
    """ACLs as ``getfacl`` prints them."""

    texts: list[str]


class ChangeAcl(Message, frozen=True):
    """Change the ACL of a directory, or those of all below it; all or nothing."""

    lfn: str
    edits: list[Edit]
    files: bool = False
    """The one that the files directly in it share, in place of its own."""
    recursive: bool = False
    """Both, of it and of every directory below."""
    keeps_mask: bool = False
    is_test: bool = False
    """Only say what would be."""
    expected_version: int = 0
    """Change nothing unless this is the version of the one ACL that is named; 0: whatever it is."""


class ChangedAcls(Message, frozen=True):
    """What was changed, or would be."""

    count: int
    texts: list[str]
    """The first ones, as they are now."""
    epoch: int
    """For ``AskAclEffect``."""
    version: int
    """For ``AskAclEffect``."""


class AskAclEffect(Message, frozen=True):
    """Ask whether a change holds everywhere; the numbers are those of ``ChangedAcls``."""

    epoch: int
    version: int


class AclEffect(Message, frozen=True):
    """Whether a change holds everywhere: at n - k + 1 keystores, and at every mount that holds a lease."""

    is_effective: bool
    keystores: list[str]
    """Those that have yet to acknowledge it."""
    mounts: list[str]


class AskWhy(Message, frozen=True):
    """Ask which entries decide on the way to a name: for the caller, or, where he may administer it, for another DN."""

    lfn: str
    dn: str = ""
    """Empty: the caller."""
    fqans: list[str] = []
    """Of the other DN."""


class WhyStep(Message, frozen=True):
    """What decides at one step of a path."""

    lfn: str
    right: str
    """The letter that is wanted: x of a directory, r of a file."""
    is_allowed: bool
    reason: str
    """The entry that decides, or why there is none."""


class Why(Message, frozen=True):
    """Why a name can be read, or cannot: no more than what is refused would have told."""

    dn: str
    fqans: list[str]
    not_after: float
    """When the caller's credential ends; infinity for another DN."""
    steps: list[WhyStep]
    """From the root to the name, or to the first step that is refused; what lies behind it is not told."""
    guid: bytes
    """Of a file that may be known; else empty."""
    locality: str
    pacs: str
    """How it is with the PACS of a file that may be read; else empty."""
