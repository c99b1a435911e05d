"""Names that users make, asked of the hospital: who may, what is refused, what an image's end leaves of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from mdmfs.access.edit import Edit, EditKind
from mdmfs.access.text import parse_acl
from mdmfs.hospital.names.change import MAX_MADE, MAX_TARGET_BYTES
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import (
    AccessDeniedError,
    IsADirectoryFileError,
    MdmfsError,
    NameTakenError,
    NoSuchFileError,
    NotADirectoryFileError,
    NotEmptyError,
    QuotaError,
    ReadOnlyError,
    RefusedNameError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.acls import CHANGE_ACL_PATH, ChangeAcl, ChangedAcls
from mdmfs.wire.messages.files import LIST_PATH, DirectoryPage, ListDirectory
from mdmfs.wire.messages.names import (
    LIST_NAMES_PATH,
    MAX_COMMENT_BYTES,
    REMOVE_NAMES_PATH,
    ListNames,
    MadeNames,
    NameChange,
    RemovedNames,
    RemoveNames,
)
from mdmfs.worker.attributes import COMMENT_ATTRIBUTE
from mdmfs.worker.finding.virtual import PlacedNode
from tests.twins.clinic import OWNER as HOSPITAL_ITSELF
from tests.twins.clinic import PROJECT_LFN, READER, STRANGER
from tests.twins.named import OWNER, SERIES, WRITER, NamedClinic, named_clinic
from tests.twins.records import guid_of, new_file

COHORT = PROJECT_LFN / "cohort"
IMAGE = SERIES / "0001.dcm"
MAKE, ALIAS, RENAME = NameChange.COLLECTION, NameChange.ALIAS, NameChange.RENAME
REMOVE, RMDIR, COMMENT = NameChange.REMOVE, NameChange.REMOVE_COLLECTION, NameChange.COMMENT


@pytest.fixture
async def named(tmp_path: Path) -> AsyncIterator[NamedClinic]:
    """Open a hospital where the writer may make names."""
    async with named_clinic(tmp_path) as opened:
        yield opened


async def seen(named: NamedClinic, lfn: Lfn, who: object = READER) -> list[str]:
    """List a directory as somebody."""
    page = await named.told(LIST_PATH, ListDirectory(str(lfn)), who)  # type: ignore[arg-type]
    return [node.name for node in cast("DirectoryPage", page).entries]


async def test_a_collection_shows_while_it_is_empty_and_goes_when_it_is_removed(named: NamedClinic) -> None:
    """To those who may enter the project, by the defaults of the directory above."""
    made = await named.change(MAKE, COHORT)
    assert made.node is not None
    assert made.node.is_made
    assert "cohort" in await seen(named, PROJECT_LFN)
    assert await seen(named, COHORT) == []
    with pytest.raises(NameTakenError):
        await named.change(MAKE, COHORT)
    gone = await named.change(RMDIR, COHORT)
    assert gone.node is None
    assert gone.version == made.version + 1
    assert "cohort" not in await seen(named, PROJECT_LFN)
    with pytest.raises(NoSuchFileError):
        await seen(named, COHORT)


async def test_a_principal_has_so_many_names_and_no_more_until_he_removes_some(named: NamedClinic) -> None:
    """Collections and aliases together; moving, commenting and removing need no room, and others have theirs."""
    await named.change(MAKE, COHORT)

    def fill(tx: Transaction) -> None:
        maker = tx.names._makers.known(str(WRITER.dn).encode())  # type: ignore[attr-defined]  # noqa: SLF001 250,000 are the bench's
        tx.names._count(maker, MAX_MADE - 1)  # type: ignore[attr-defined]  # noqa: SLF001 as above

    await named.hospital.store.write(fill)
    other = PROJECT_LFN / "other"
    for kind, target in ((MAKE, None), (ALIAS, IMAGE)):
        with pytest.raises(QuotaError, match="remove some"):
            await named.change(kind, other, target)
    await named.change(COMMENT, COHORT, text="full")
    await named.change(RENAME, COHORT, other)
    await named.change(MAKE, PROJECT_LFN / "of-the-owner", who=OWNER)
    await named.change(RMDIR, other)
    await named.change(MAKE, COHORT)


async def test_an_alias_leads_to_a_name_and_gives_no_right(named: NamedClinic) -> None:
    """Whoever may list the collection sees where it leads; the image is the image's business."""
    await named.change(MAKE, COHORT)
    made = await named.change(ALIAS, COHORT / "first.dcm", IMAGE)
    assert made.node is not None
    assert made.node.target == str(IMAGE)
    assert not made.node.guid
    assert await seen(named, COHORT) == ["first.dcm"]
    store = named.hospital.store
    assert store.read(lambda tx: Sight(tx, READER, 0.0).node(IMAGE)).guid
    with pytest.raises(NoSuchFileError):
        store.read(lambda tx: Sight(tx, READER, 0.0).node(COHORT / "first.dcm"))
    [chain] = store.read(lambda tx: tx.acls.chains_of(guid_of(1)))
    assert len(chain) == len(IMAGE.parts) + 1


async def test_an_image_that_is_withdrawn_ends_all_its_names(named: NamedClinic) -> None:
    """The alias leads nowhere then, and the hospital's people are told so; the comment is gone at once."""
    await named.change(ALIAS, PROJECT_LFN / "x", IMAGE)
    await named.change(COMMENT, IMAGE, text="good contrast")
    await named.hospital.store.write(lambda tx: tx.catalogue.withdraw([guid_of(1)]))
    assert named.node(IMAGE) is None
    told = cast("MadeNames", await named.told(LIST_NAMES_PATH, ListNames(str(PROJECT_LFN)), HOSPITAL_ITSELF))
    assert [(one.lfn, one.leads, one.comment) for one in told.names] == [(str(PROJECT_LFN / "x"), False, "")]
    with pytest.raises(AccessDeniedError):
        await named.told(LIST_NAMES_PATH, ListNames(str(PROJECT_LFN)), WRITER)


@pytest.mark.parametrize("who", [READER, STRANGER])
async def test_names_are_changed_by_those_who_may_write(named: NamedClinic, who: object) -> None:
    """A stranger does not even learn that there is something; both are on record."""
    await named.change(MAKE, COHORT)
    refusal: type[MdmfsError] = AccessDeniedError if who is READER else NoSuchFileError
    for kind, lfn, other in (
        (MAKE, COHORT / "below", None),
        (ALIAS, PROJECT_LFN / "a", IMAGE),
        (RENAME, COHORT, PROJECT_LFN / "other"),
        (RMDIR, COHORT, None),
        (COMMENT, COHORT, None),
    ):
        with pytest.raises(refusal):
            await named.change(kind, lfn, other, text="x" if kind is COMMENT else "", who=who)  # type: ignore[arg-type]
    refused = [record for record in named.opened.audited() if record["event"] == "refusal"]
    assert len(refused) == 5
    assert {record["outcome"] for record in refused} == {refusal.code}


async def test_each_change_is_on_record_before_it_is_made(named: NamedClinic) -> None:
    """Who made, moved and removed what; the words of a comment are not in it."""
    await named.change(MAKE, COHORT)
    await named.change(ALIAS, COHORT / "a", IMAGE)
    await named.change(RENAME, COHORT / "a", COHORT / "b")
    await named.change(COMMENT, COHORT, text="patient looks unwell")
    await named.change(REMOVE, COHORT / "b")
    told = [(record["path"], record["outcome"]) for record in named.opened.audited() if record["event"] == "name"]
    assert told == [
        (str(COHORT), "collection"),
        (str(COHORT / "a"), f"alias: {IMAGE}"),
        (str(COHORT / "a"), f"rename: {COHORT / 'b'}"),
        (str(COHORT), "comment"),
        (str(COHORT / "b"), "remove"),
    ]


@pytest.mark.parametrize(
    ("kind", "lfn", "other"),
    [
        (MAKE, SERIES / "mine", None),
        (ALIAS, SERIES / "mine", IMAGE),
        (REMOVE, IMAGE, None),
        (RMDIR, SERIES, None),
        (RMDIR, PROJECT_LFN / "sub-a", None),
        (RENAME, PROJECT_LFN / "sub-a", PROJECT_LFN / "other"),
        (RENAME, IMAGE, PROJECT_LFN / "other"),
        (RMDIR, PROJECT_LFN, None),
        (MAKE, Lfn(("amc", "other")), None),
        (MAKE, Lfn(("mine",)), None),
        (COMMENT, Lfn(("amc",)), None),
    ],
)
async def test_what_registration_made_stays(named: NamedClinic, kind: NameChange, lfn: Lfn, other: Lfn | None) -> None:
    """No image, no directory of images and nothing above a project is made, moved or removed, whatever one's rights."""
    for who in (WRITER, OWNER, HOSPITAL_ITSELF):
        with pytest.raises(ReadOnlyError):
            await named.change(kind, lfn, other, who=who)


async def test_an_alias_takes_no_image_s_place(named: NamedClinic) -> None:
    """``mv alias sub-a`` is refused, and nothing has changed."""
    await named.change(ALIAS, PROJECT_LFN / "x", IMAGE)
    with pytest.raises(RefusedNameError):
        await named.change(RENAME, PROJECT_LFN / "x", PROJECT_LFN / "sub-a")
    with pytest.raises(ReadOnlyError):
        await named.change(RENAME, PROJECT_LFN / "x", IMAGE)
    assert named.listed(PROJECT_LFN) == ["sub-a", "x"]


@pytest.mark.parametrize(
    "name", ["sub-k7qf3x2mzt5wd4ha", ".find", ".snapshots", "to\u202egpj.exe", "zero\u200bwidth", "sub-"]
)
async def test_names_that_others_need_or_that_deceive_are_refused(named: NamedClinic, name: str) -> None:
    """Registration could not show an image whose directory somebody has taken."""
    for kind, other in ((MAKE, None), (ALIAS, IMAGE)):
        with pytest.raises(RefusedNameError):
            await named.change(kind, PROJECT_LFN / name, other)
    await named.change(MAKE, COHORT)
    with pytest.raises(RefusedNameError):
        await named.change(RENAME, COHORT, PROJECT_LFN / name)


async def test_collections_move_with_all_below_and_never_below_themselves(named: NamedClinic) -> None:
    """The names below change with it, and their inode numbers stay."""
    for lfn in (COHORT, COHORT / "a", COHORT / "a" / "b", PROJECT_LFN / "full", PROJECT_LFN / "full" / "x"):
        await named.change(MAKE, lfn)
    await named.change(ALIAS, COHORT / "a" / "image", IMAGE)
    before = named.node(COHORT / "a" / "image")
    with pytest.raises(RefusedNameError):
        await named.change(RENAME, COHORT, COHORT / "a" / "c")
    with pytest.raises(NotEmptyError):
        await named.change(RENAME, COHORT, PROJECT_LFN / "full")
    with pytest.raises(NameTakenError):
        await named.change(RENAME, COHORT, PROJECT_LFN / "full", may_replace=False)
    await named.change(RENAME, COHORT, PROJECT_LFN / "full" / "x")
    assert named.node(COHORT) is None
    assert named.node(PROJECT_LFN / "full" / "x" / "a" / "image") == before
    assert named.listed(PROJECT_LFN / "full" / "x" / "a") == ["b", "image"]
    with pytest.raises(IsADirectoryFileError):
        await named.change(RENAME, PROJECT_LFN / "full" / "x" / "a" / "image", PROJECT_LFN / "full" / "x")
    await named.change(MAKE, COHORT)
    with pytest.raises(NotADirectoryFileError):
        await named.change(RENAME, COHORT, PROJECT_LFN / "full" / "x" / "a" / "image")


async def test_names_have_an_end(named: NamedClinic) -> None:
    """In depth, in bytes, of a target; also of what comes along when a collection is moved."""
    lfn = PROJECT_LFN
    while len(lfn.parts) < 48:
        lfn /= "d"
        await named.change(MAKE, lfn)
    with pytest.raises(RefusedNameError):
        await named.change(MAKE, lfn / "d")
    await named.change(MAKE, COHORT)
    with pytest.raises(RefusedNameError):
        await named.change(RENAME, PROJECT_LFN / "d", COHORT / "d")
    with pytest.raises(RefusedNameError):
        await named.change(ALIAS, COHORT / "a", Lfn(("x" * 250,) * (MAX_TARGET_BYTES // 250 + 1)))
    assert named.listed(COHORT) == []


async def test_a_change_asked_for_again_is_done_once(named: NamedClinic) -> None:
    """By its token: no EEXIST for what was made, no ENOENT for what was moved; another's token is another."""
    token = bytes(range(16))
    first = await named.change(MAKE, COHORT, token=token)
    again = await named.change(MAKE, COHORT, token=token)
    assert (again.version, again.node) == (first.version, first.node)
    with pytest.raises(NameTakenError):
        await named.change(MAKE, COHORT, token=token, who=OWNER)
    moved = await named.change(RENAME, COHORT, PROJECT_LFN / "x", token=bytes(16))
    assert (await named.change(RENAME, COHORT, PROJECT_LFN / "x", token=bytes(16))).node == moved.node
    told = [record for record in named.opened.audited() if record["event"] in {"name", "refusal"}]
    assert [record["outcome"] for record in told] == [
        "collection",
        "collection",
        "name-taken",
        f"rename: {PROJECT_LFN / 'x'}",
    ]


async def test_a_listing_is_right_with_a_change_only_if_nothing_else_changed(named: NamedClinic) -> None:
    """So a mount need not list a directory again for its own changes."""
    first = await named.change(MAKE, COHORT)
    assert (await named.change(MAKE, COHORT / "a", since=first.version)).is_only_change
    second = await named.change(MAKE, COHORT / "b")
    assert not (await named.change(MAKE, COHORT / "c", since=first.version)).is_only_change
    assert (await named.change(MAKE, PROJECT_LFN / "z", since=second.version + 1)).is_only_change


async def test_a_maker_owns_his_collection_and_the_project_keeps_it_in_hand(named: NamedClinic) -> None:
    """He may shut others out; whoever administers the project still revokes, removes and changes all below it."""
    await named.change(MAKE, COHORT)
    shut = [Edit(EditKind.REPLACE, parse_acl("user::rwxa\n").entries, ())]
    told = await named.told(CHANGE_ACL_PATH, ChangeAcl(str(COHORT), shut), WRITER)
    assert cast("ChangedAcls", told).count == 1
    assert "cohort" not in await seen(named, PROJECT_LFN)
    opened = [Edit(EditKind.MODIFY, parse_acl(f"user:{READER.dn}:rx\n").entries, ())]
    with pytest.raises(AccessDeniedError):
        await named.told(CHANGE_ACL_PATH, ChangeAcl(str(PROJECT_LFN), opened, recursive=True), READER)
    await named.told(CHANGE_ACL_PATH, ChangeAcl(str(PROJECT_LFN), opened, recursive=True), OWNER)
    assert "cohort" in await seen(named, PROJECT_LFN)


async def test_comments_are_said_and_taken_back(named: NamedClinic) -> None:
    """On images by who may write to them, on collections as on images; a new rendition keeps its name's comment."""
    await named.change(COMMENT, IMAGE, text="motion artefacts\nin slice 3")
    node = named.node(IMAGE)
    assert node is not None
    assert node.is_commented
    await named.hospital.store.write(
        lambda tx: (
            tx.catalogue.add_file(IMAGE, new_file(9), takes_over=guid_of(1)),
            tx.catalogue.show([guid_of(9)]),
        )
    )
    assert named.hospital.store.read(lambda tx: tx.names.comment(IMAGE)) == "motion artefacts\nin slice 3"
    await named.change(COMMENT, IMAGE)
    node = named.node(IMAGE)
    assert node is not None
    assert not node.is_commented
    for text in ("x" * (MAX_COMMENT_BYTES + 1), "bell\a"):
        with pytest.raises(RefusedNameError):
            await named.change(COMMENT, IMAGE, text=text)


async def test_what_is_said_of_the_top_of_a_mount_is_seen_and_makes_no_entry(
    named: NamedClinic, tmp_path: Path
) -> None:
    """A directory is no entry of itself."""
    async with named.mount(tmp_path, root=PROJECT_LFN) as mounted:
        before = await mounted.tree(Lfn(()))
        await mounted.files.set_comment(1, b"all of it")
        assert COMMENT_ATTRIBUTE in mounted.files.attribute_names(1)
        assert await mounted.files.attribute(1, COMMENT_ATTRIBUTE) == b"all of it"
        assert await mounted.tree(Lfn(())) == before
        await mounted.files.set_comment(1, b"")
        assert COMMENT_ATTRIBUTE not in mounted.files.attribute_names(1)


async def test_what_is_said_of_a_file_known_by_a_virtual_name_reaches_its_own_name(
    named: NamedClinic, tmp_path: Path
) -> None:
    """Though no directory of it is in use: the hospital has it, and so has the file here."""
    async with named.mount(tmp_path) as mounted:
        node = named.node(IMAGE)
        assert node is not None
        told = msgspec.structs.asdict(node) | {"name": "0042.dcm", "lfn": str(IMAGE), "above": (1, 8, 9)}
        mounted.files.retain(1, PlacedNode(**told))
        await mounted.files.set_comment(node.inode, b"blurred")
        assert COMMENT_ATTRIBUTE in mounted.files.attribute_names(node.inode)
        assert named.hospital.store.read(lambda tx: tx.names.comment(IMAGE)) == "blurred"


@pytest.mark.parametrize("top", ["/grid/medical", str(PROJECT_LFN.parent), str(PROJECT_LFN)])
async def test_the_hospital_lists_and_removes_what_users_made(named: NamedClinic, top: str) -> None:
    """Names and comments at once, from a project's directory or one above; the images stay."""
    await named.change(MAKE, COHORT)
    await named.change(ALIAS, COHORT / "a", IMAGE)
    await named.change(COMMENT, COHORT, text="ours")
    await named.change(COMMENT, IMAGE, text="said")
    told = cast("MadeNames", await named.told(LIST_NAMES_PATH, ListNames(top), HOSPITAL_ITSELF))
    assert [(one.lfn, one.maker, one.target, one.comment) for one in told.names] == [
        (str(COHORT), str(WRITER.dn), "", "ours"),
        (str(COHORT / "a"), str(WRITER.dn), str(IMAGE), ""),
        (str(IMAGE), "", "", "said"),
    ]
    removed = await named.told(REMOVE_NAMES_PATH, RemoveNames(top), HOSPITAL_ITSELF)
    assert removed == RemovedNames(2, 2)
    assert named.listed(PROJECT_LFN) == ["sub-a"]
    assert named.hospital.store.read(lambda tx: tx.names.made_by(str(WRITER.dn))) == 0
    assert len(named.listed(SERIES)) == 3


async def test_a_name_that_is_not_there_is_told_to_who_would_list_or_remove_below_it(named: NamedClinic) -> None:
    """A typing error is no success."""
    with pytest.raises(NoSuchFileError):
        await named.told(LIST_NAMES_PATH, ListNames("/grid/medical/nowhere"), HOSPITAL_ITSELF)
    with pytest.raises(NoSuchFileError):
        await named.told(REMOVE_NAMES_PATH, RemoveNames("/grid/medical/nowhere"), HOSPITAL_ITSELF)
