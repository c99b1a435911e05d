"""A real mount for many users: each is shown what his own proxy may see, and no name, size or byte of another's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.twins.octets import octets
from tests.twins.users import COUNT, FIRST_UID, SIZES, Ground, User, interleave, shared_mount

A, B = FIRST_UID, FIRST_UID + 1
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts for everybody")


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """One mount for all tests."""
    with shared_mount() as running:
        yield running


@pytest.fixture(scope="module")
def both(ground: Ground) -> tuple[User, User]:
    """Start a shell of each."""
    return ground.both()


def test_in_random_orders_nobody_learns_anything_of_the_other(ground: Ground, both: tuple[User, User]) -> None:
    """No name, size or byte, with caches that the other has just filled; and each finds his own, exactly."""
    assert interleave(ground, both, 20, seed=1) == []


def test_at_the_end_the_lease_of_each_principal_is_given_back() -> None:
    """Once the mount has gone, for all at once."""
    with shared_mount() as ground:
        for user in ground.both():
            assert user.does("read", ground.point / "both/003-MR/0001.dcm")
    assert ground.given_back == 2


def test_without_a_proxy_there_is_a_mount_point_and_nothing_else(ground: Ground) -> None:
    """Not for root either; ``ls`` of the directory above and ``df`` work."""
    for uid in (FIRST_UID + 7, 0):
        nobody = ground.user(uid, None)
        assert nobody.does("stat", ground.point) == [0]
        assert nobody.does("room", ground.point) == [0]
        for operation in ("list", "enter", "attributes"):
            assert nobody.does(operation, ground.point) == "EACCES"
        for path in ("both", "only-a", "nothing", "both/003-MR/0001.dcm"):
            assert nobody.does("stat", ground.point / path) == "EACCES"


def test_nobody_uses_the_proxy_of_another(ground: Ground, both: tuple[User, User]) -> None:
    """Root neither: whose file it is decides, not who can read it. Nor one that others may read."""
    assert both[0].does("list", ground.point) == ["both", "only-a"]
    others = ground.proxy("a", A, "others")
    loose = ground.proxy("a", B, "loose", mode=0o644)
    link = ground.folder / "link"
    link.symlink_to(others)
    pipe = ground.folder / "pipe"
    os.mkfifo(pipe, 0o600)
    os.chown(pipe, B, B)
    for uid, proxy in ((B, others), (0, others), (B, link), (B, loose), (B, pipe)):
        assert ground.user(uid, proxy).does("list", ground.point) == "EACCES"


def test_two_shells_of_one_login_are_two_principals_at_once(ground: Ground) -> None:
    """Each sees its own; neither's pages, numbers or names are the other's."""
    uid = FIRST_UID + 2
    first = ground.user(uid, ground.proxy("a", uid))
    second = ground.user(uid, ground.proxy("b", uid))
    for _ in range(3):
        assert first.does("list", ground.point) == ["both", "only-a"]
        assert second.does("list", ground.point) == ["both", "only-b"]
        assert second.does("stat", ground.point / "only-a/003-MR/0001.dcm") == "ENOENT"
        assert first.does("stat", ground.point / "only-a/003-MR/0001.dcm") == [SIZES["only-a"]]
    path = ground.point / "both/003-MR/0001.dcm"
    assert first.does("inode", path) != second.does("inode", path)
    assert first.does("inode", path.parent) == second.does("inode", path.parent)


def test_a_renewed_proxy_is_taken_over_and_another_one_is_another_principal(ground: Ground) -> None:
    """Without a remount; an open file reads on."""
    uid = FIRST_UID + 3
    proxy = ground.proxy("a", uid, "renewed")
    user, path = ground.user(uid, proxy), ground.point / "only-a/003-MR/0001.dcm"
    assert user.does("hold", path) is None
    number = user.does("inode", path)
    ground.proxy("a", uid, "renewed")
    assert user.does("inode", path) == number
    ground.proxy("b", uid, "renewed")
    assert user.does("stat", path) == "ENOENT"
    assert user.does("list", ground.point) == ["both", "only-b"]
    proxy.unlink()
    assert user.does("list", ground.point) == "EACCES"


def test_a_program_started_with_another_proxy_works_in_the_same_directory(ground: Ground) -> None:
    """A shell may stand where another principal has looked: what that one may see is there, and no more."""
    uid = FIRST_UID + 4
    user = ground.user(uid, ground.proxy("a", uid))
    other = ground.proxy("b", uid)
    run = f"cd {ground.point}/{{}} && X509_USER_PROXY={other} ls"
    assert user.does("run", run.format("both/003-MR")) == [f"{number:04}.dcm" for number in range(1, COUNT + 1)]
    assert user.does("run", run.format("only-a/003-MR") + " 2>/dev/null") == []


def test_a_descriptor_that_is_handed_on_opens_nothing_anew(ground: Ground) -> None:
    """A number of another principal's leads nowhere, even through /proc."""
    uid = FIRST_UID + 5
    user = ground.user(uid, ground.proxy("a", uid))
    other = ground.proxy("b", uid)
    path = ground.point / "only-a/003-MR/0001.dcm"
    own = f"exec 3<{path}; head -c 4 /proc/self/fd/3 | wc -c"
    assert user.does("run", own) == ["4"]
    foreign = f"exec 3<{path}; X509_USER_PROXY={other} head -c 4 /proc/self/fd/3 2>/dev/null | wc -c"
    assert user.does("run", foreign) == ["0"]


def test_several_hospitals_show_each_user_his_own_part_of_each() -> None:
    """Files of one name at two hospitals are two, and each user has both, and nothing of the other user's."""
    names, size = ["amc", "umc"], SIZES["both"]
    folders = [[f"/grid/medical/{{hospital}}/{folder}/003-MR", COUNT, size] for folder in SIZES]
    with shared_mount(hospitals=names, folders=folders) as ground:
        a, b = ground.both()
        for user, own, others in ((a, "only-a", "only-b"), (b, "only-b", "only-a")):
            assert user.does("list", ground.point) == names
            for name in names:
                assert user.does("list", ground.point / name) == ["both", own]
                path = ground.point / name / "both/003-MR/0001.dcm"
                expected = hashlib.sha256(octets(size, f"/grid/medical/{name}/both/003-MR1")).hexdigest()
                assert user.does("run", f"sha256sum <{path}") == [expected, "-"]
                assert user.does("digest", path) == expected
                assert user.does("read", ground.point / name / others / "003-MR/0001.dcm") == "ENOENT"
        inodes = [user.does("inode", ground.point / "umc/both/003-MR/0001.dcm") for user in (a, b)]
        assert inodes[0] != inodes[1]
