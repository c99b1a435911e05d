"""Users of this machine on one mount: processes of other uids, each with a proxy, that do what they are told."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mdmfs.demo.pki import Issued, delegate
from mdmfs.worker.service import umount
from tests.twins import certificates as make
from tests.twins.octets import octets

FIRST_UID: Final = 30_001
COUNT: Final = 3
SIZES: Final = {"only-a": 40_011, "only-b": 50_023, "both": 60_047}
SECONDS: Final = 30

# What a user runs: operations on paths, one JSON line each, answered by a JSON line.
_SCRIPT: Final = r"""
import ctypes, errno, hashlib, json, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def statx(path, flags):
    answer = (ctypes.c_uint64 * 32)()
    if libc.statx(-100, os.fsencode(path), flags, 0x7ff, answer):
        raise OSError(ctypes.get_errno(), "statx")
    return [answer[5]]

def opened(path, act, flags=os.O_RDONLY):
    descriptor = os.open(path, flags)
    try:
        return act(descriptor)
    finally:
        os.close(descriptor)

def digest(octets):
    return [len(octets), hashlib.sha256(octets).hexdigest()]

def whole(descriptor):
    octets = b""
    while more := os.read(descriptor, 100_000):
        octets += more
    return digest(octets)

def mapped(descriptor):
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as pages:
        return digest(bytes(pages))

def scanned(path):
    def size(one):
        return one.stat(follow_symlinks=False).st_size if one.is_file() else 0
    return sorted([one.name, size(one)] for one in os.scandir(path))

def entered(path):
    before = os.getcwd()
    os.chdir(path)
    try:
        return sorted(os.listdir("."))
    finally:
        os.chdir(before)

held = {}
def hold(path):
    held[path] = os.open(path, os.O_RDONLY)

def give(path):
    return [os.pread(held[path], 16, 0).hex(), os.fstat(held[path]).st_size]

DO = {
    "stat": lambda path: [os.stat(path).st_size],
    "lstat": lambda path: [os.lstat(path).st_size],
    "statx": lambda path: statx(path, 0),
    "statx-cached": lambda path: statx(path, 0x4000),
    "path-only": lambda path: opened(path, lambda fd: [os.fstat(fd).st_size], os.O_PATH),
    "read": lambda path: opened(path, whole),
    "map": lambda path: opened(path, mapped),
    "list": lambda path: sorted(os.listdir(path)),
    "scan": scanned,
    "enter": entered,
    "access": lambda path: [os.access(path, os.F_OK), os.access(path, os.R_OK)],
    "guid": lambda path: [len(os.getxattr(path, "user.guid"))],
    "attributes": lambda path: [len(os.listxattr(path)) > 0],
    "digest": lambda path: os.getxattr(path, "user.mdmfs.sha256").decode(),
    "acl": lambda path: [len(os.getxattr(path, "user.mdmfs.acl")) > 0],
    "why": lambda path: [len(os.getxattr(path, "user.mdmfs.why")) > 0],
    "stage": lambda path: os.setxattr(path, "user.mdmfs.stage", b"1"),
    "link": lambda path: os.readlink(path),
    "write": lambda path: os.close(os.open(path, os.O_WRONLY)),
    "remove": lambda path: os.remove(path),
    "make": lambda path: os.mkdir(path),
    "room": lambda path: [os.statvfs(path).f_files],
    "inode": lambda path: [os.stat(path).st_ino],
    "hold": hold,
    "give": give,
    "become": lambda path: os.environ.update(X509_USER_PROXY=path),
    "run": lambda path: os.popen(path).read().split(),
}
for line in sys.stdin:
    name, path = json.loads(line)
    try:
        answer = DO[name](path)
    except OSError as error:
        answer = errno.errorcode[error.errno]
    except RuntimeError as error:
        answer = type(error).__name__
    print(json.dumps(answer), flush=True)
"""


class User:
    """One shell of one login."""

    def __init__(self, uid: int, proxy: Path | None) -> None:
        environment = {} if proxy is None else {"X509_USER_PROXY": str(proxy)}
        self._process = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-c", _SCRIPT],
            user=uid,
            group=uid,
            extra_groups=[],
            env=environment | {"PATH": "/usr/bin:/bin"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, path: Path | str) -> None:
        """Have something done, and wait for nothing."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, str(path)]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> object:
        """Give the next answer: what came, or the name of an errno."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def does(self, name: str, path: Path | str) -> object:
        """Have something done and give the answer."""
        self.ask(name, path)
        return self.answer()

    def end(self) -> None:
        """End."""
        self._process.kill()
        self._process.wait(SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@dataclasses.dataclass
class Ground:
    """A mount for many users. Of its people ``a`` sees ``only-a`` and ``both``, ``b`` sees ``only-b`` and ``both``."""

    folder: Path
    people: dict[str, Issued]
    stack: contextlib.ExitStack
    given_back: int = 0
    """Leases, when it was unmounted."""

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return self.folder / "mnt"

    def proxy(self, person: str, uid: int, name: str = "", *, mode: int = 0o600) -> Path:
        """Write a fresh proxy of somebody as a file of a uid."""
        path = self.folder / (name or f"{person}-{uid}")
        delegate(self.people[person], make.VALID).save_proxy(path)
        path.chmod(mode)
        os.chown(path, uid, uid)
        return path

    def user(self, uid: int, proxy: Path | None) -> User:
        """Start a shell."""
        user = User(uid, proxy)
        self.stack.callback(user.end)
        return user

    def both(self) -> tuple[User, User]:
        """Start a shell of each."""
        return tuple(  # type: ignore[return-value] # two of them
            self.user(FIRST_UID + place, self.proxy(person, FIRST_UID + place)) for place, person in enumerate("ab")
        )


@contextlib.contextmanager
def shared_mount(**scene: object) -> Iterator[Ground]:
    """Mount for everybody, for a block; only root can."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="mdmfs-users-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)
        (folder / "mnt").mkdir()
        people = {person: make.person(f"user {person}") for person in "ab"}
        told = {
            "folders": [[f"/grid/medical/{name}/003-MR", COUNT, size] for name, size in SIZES.items()],
            "rights": {str(people[one].dn): [f"only-{one}", "both"] for one in "ab"},
            "cache": str(folder / "cache"),
            "mountpoint": str(folder / "mnt"),
            **scene,
        }
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.twins.shared_mount"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        stack.callback(process.stdin.close)
        stack.callback(process.wait, SECONDS)
        stack.callback(process.kill)
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "ready", (folder / "log").read_text()
        ground = Ground(folder, people, stack.enter_context(contextlib.ExitStack()))
        try:
            yield ground
            ground.stack.close()
            umount(ground.point)
            assert process.wait(SECONDS) == 0, (folder / "log").read_text()
            ground.given_back = int(process.stdout.read())
        finally:
            ground.stack.close()
            subprocess.run(["umount", "-l", str(ground.point)], check=False, capture_output=True)


# What each of the two must find, and what of the other's he must not

ON_FILES: Final = (
    "stat", "lstat", "statx", "statx-cached", "path-only", "read", "map", "access", "guid", "attributes", "digest",
    "acl", "why", "stage", "link", "write",
)  # fmt: skip
ON_DIRECTORIES: Final = (
    "stat", "lstat", "statx", "statx-cached", "path-only", "list", "scan", "enter", "access", "attributes", "acl",
)  # fmt: skip


def expected(person: str, operation: str, path: Path) -> object:
    """Say what an operation gives somebody, for a path below the mount point; ENOENT where it is not for him."""
    parts = path.parts
    if not parts:
        names = sorted(["both", f"only-{person}"])
        return _of_directory(operation, names, [0, 0])
    if parts[0] not in {"both", f"only-{person}"}:
        return [False, False] if operation == "access" else "ENOENT"
    if len(parts) == 1:
        return _of_directory(operation, ["003-MR"], [0])
    names = [f"{number:04}.dcm" for number in range(1, COUNT + 1)]
    if len(parts) == 2:
        return _of_directory(operation, names, [SIZES[parts[0]]] * COUNT)
    return _of_file(operation, parts[0], int(parts[2][:4]))


def _of_directory(operation: str, names: Sequence[str], sizes: Sequence[int]) -> object:
    match operation:
        case "list" | "enter":
            return list(names)
        case "scan":
            return [[name, size] for name, size in zip(names, sizes, strict=True)]
        case "access":
            return [True, True]
        case "attributes" | "acl":
            return [True]
        case _:
            return [0]


def _of_file(operation: str, folder: str, number: int) -> object:
    size = SIZES[folder]
    sha256 = hashlib.sha256(octets(size, f"/grid/medical/{folder}/003-MR{number}")).hexdigest()
    particular: dict[str, object] = {
        "read": [size, sha256],
        "map": [size, sha256],
        "digest": sha256,
        "access": [True, True],
        "guid": [36],
        "attributes": [True],
        "acl": [True],
        "why": [True],
        "stage": None,
        "link": "EINVAL",
        "write": "EROFS",
    }
    return particular.get(operation, [size])


def interleave(ground: Ground, users: tuple[User, User], count: int, seed: int, length: int = 6) -> list[str]:
    """Let both do things at once, in ``count`` random orders; gives what was not as it must be."""
    draw, wrong = random.Random(seed), []  # noqa: S311 no secret
    files = [f"{folder}/003-MR/{number:04}.dcm" for folder in SIZES for number in range(1, COUNT + 1)]
    folders = ["", *SIZES, *(f"{folder}/003-MR" for folder in SIZES)]
    for _ in range(count):
        asked: list[tuple[int, str, str]] = []
        for _ in range(length):
            who, is_file = draw.randrange(2), draw.random() < 0.7
            path = draw.choice(files if is_file else folders)
            asked.append((who, draw.choice(ON_FILES if is_file else ON_DIRECTORIES), path))
        for who, operation, path in asked:
            users[who].ask(operation, ground.point / path)
        for who, operation, path in asked:
            found, right = users[who].answer(), expected("ab"[who], operation, Path(path))
            if found != right:
                wrong.append(f"{'ab'[who]} {operation} {path}: {found}, not {right}")
    return wrong
