"""What a hospital's administrator asks of hospitald about keys: splits, generations, certificates of destruction."""

from __future__ import annotations

import enum
from typing import Final

from mdmfs.wire.messages.message import Message

KEYS_PATH: Final = "/v1/keys"
KEYS_PROGRESS_PATH: Final = "/v1/keys-progress"
KEYS_CERTIFY_PATH: Final = "/v1/keys-certify"


class KeyTask(enum.StrEnum):
    """What can be done about the keys of all files, or of some."""

    VERIFY = "verify"
    REPAIR = "repair"
    """Verify, and give each keystore what it misses or has wrong."""
    RESPLIT = "resplit"
    """Split every key anew among the keystores that are configured now."""
    ROTATE = "rotate"
    """Make new keys; the old ones open what was sealed before, and nothing new."""
    DESTROY = "destroy"
    """Take files and their keys away for ever."""


class StartKeyTask(Message, frozen=True):
    """Start a task; raises ``BusyError`` while another one runs."""

    task: KeyTask
    guids: list[bytes] = []
    """Only of these files."""
    subject: str = ""
    """Only of this subject's files."""
    project: str = ""
    """Only of this project's files. Without guids, subject and project it is all files, but never for ``DESTROY``."""


class AskKeyTask(Message, frozen=True):
    """Ask how far the latest task is."""


class AskCertificates(Message, frozen=True):
    """Ask the hospital for what keystores certify of the keys that the latest task destroyed, a batch at a time."""

    after: int = 0
    """How many of the keys came in the batches before."""


class Certificate(Message, frozen=True):
    """What a keystore certifies: a document for people and programs, signed with its own key."""

    document: bytes
    """JSON in UTF-8."""
    signature: bytes
    """``mdmfs.pki.signature``."""
    chain: list[bytes]
    """The keystore's certificates in DER, leaf first."""


class Certificates(Message, frozen=True):
    """One certificate of each keystore, by its name, about one batch of keys."""

    certificates: dict[str, Certificate]
    silent: dict[str, str]
    """Keystores that gave none, and why."""
    count: int
    """How many keys they are about; 0 where there are no more."""


class KeyProgress(Message, frozen=True):
    """How far a task is, and what it found."""

    task: KeyTask
    files: int
    files_done: int
    faults: dict[str, int]
    """How many of each kind."""
    lost: int
    """Files whose key no shares make."""
    lines: list[str]
    """The first faults: GUID, keystore, kind."""
    silent: dict[str, str]
    """Keystores that did not answer, and why."""
    changed: int
    """Files for which something was sent on its way to keystores."""
    waiting: int
    """Items of the outbox that have yet to arrive at keystores; a hundred for each stands for more."""
    behind: list[str]
    """Keystores that have yet to acknowledge the destruction."""
    is_effective: bool
    """Whether so many keystores have acknowledged it that the others do not suffice for a key."""
    failure: str
    is_over: bool
