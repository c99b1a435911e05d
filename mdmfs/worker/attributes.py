"""Extended attributes: what the mount and the hospital tell of a file, beside its bytes and its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mdmfs.model.errors import IsADirectoryFileError, NoSuchAttributeError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import FileDescription, Node, NodeKind
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.namespace.inodes import Inodes

GUID_ATTRIBUTE: Final = b"user.guid"
REPLICAS_ATTRIBUTE: Final = b"user.replicas"
STATUS_ATTRIBUTE: Final = b"user.status"
SHA256_ATTRIBUTE: Final = b"user.mdmfs.sha256"
WHY_ATTRIBUTE: Final = b"user.mdmfs.why"
"""Where the bytes of a file are and how its last open went. Not listed: nobody shall copy it."""
ACL_ATTRIBUTE: Final = b"user.mdmfs.acl"
LOCALITY_ATTRIBUTE: Final = b"user.mdmfs.locality"
COMMENT_ATTRIBUTE: Final = b"user.comment"
"""What users say of a file or directory; kept by the hospital in the clear."""
STAGE_ATTRIBUTE: Final = b"user.mdmfs.stage"
"""Is set, never read: whatever it is set to, the file, or all below the directory, is brought online."""
ATTRIBUTES: Final = (
    GUID_ATTRIBUTE,
    REPLICAS_ATTRIBUTE,
    STATUS_ATTRIBUTE,
    SHA256_ATTRIBUTE,
    ACL_ATTRIBUTE,
    LOCALITY_ATTRIBUTE,
)
STATUS_SECONDS: Final = 1.0
"""How old a locality may be."""


class Attributes:
    """The extended attributes of one hospital's files and directories."""

    def __init__(
        self, hospital: Hospital, inodes: Inodes, descriptions: Descriptions, tell_story: Callable[[Node], str]
    ) -> None:
        """``tell_story`` says where the bytes of a file are, and how its last open went."""
        self._hospital = hospital
        self._inodes = inodes
        self._descriptions = descriptions
        self._tell_story = tell_story

    def names(self, inode: int) -> Sequence[bytes]:
        """Name them; a directory has its ACL, and both a comment where there is one."""
        node = self._inodes.of(inode).node
        if node.kind is NodeKind.LINK:
            return ()
        names = ATTRIBUTES if node.kind is NodeKind.FILE else (ACL_ATTRIBUTE,)
        return (*names, COMMENT_ATTRIBUTE) if node.is_commented else names

    async def of(self, inode: int, name: bytes) -> bytes:
        """Give one; what is not ours is refused without asking anybody."""
        node = self._inodes.of(inode).node
        if name == WHY_ATTRIBUTE:
            if node.kind is not NodeKind.FILE:
                message = f"inode {inode} is no file"
                raise IsADirectoryFileError(message)
            return self._tell_story(node).encode()
        if name not in self.names(inode):
            raise no_attribute(inode)
        if name == COMMENT_ATTRIBUTE:
            text = await self._hospital.comment(self._inodes.lfn_of(inode))
            if not text:
                raise no_attribute(inode)
            return text.encode()
        if name == ACL_ATTRIBUTE:
            return "\n".join(await self._hospital.acl(self._inodes.lfn_of(inode))).encode()
        guid = Guid(node.guid)
        if name == GUID_ATTRIBUTE:
            return str(guid).encode()
        max_age = STATUS_SECONDS if name in {STATUS_ATTRIBUTE, LOCALITY_ATTRIBUTE} else float("inf")
        return _written(name, await self._descriptions.of(guid, max_age=max_age))

    def forget(self, guid: Guid) -> None:
        """Drop what the hospital said of a file."""
        self._descriptions.forget(guid)


def no_attribute(inode: int) -> NoSuchAttributeError:
    """Make the error of an inode that has no such attribute."""
    return NoSuchAttributeError(f"inode {inode} has no such extended attribute")


def _written(name: bytes, description: FileDescription) -> bytes:
    if name in {STATUS_ATTRIBUTE, LOCALITY_ATTRIBUTE}:
        return description.locality.encode()
    if name == REPLICAS_ATTRIBUTE:
        return "\n".join(description.replicas).encode()
    return description.sha256.hex().encode()
