"""The documentation and the code say the same: what stands in a table of docs/ is read, and compared with the code."""

from __future__ import annotations

import dataclasses
import enum
import errno
import importlib
import inspect
import json
import pathlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import click
import msgspec
import prometheus_client
import pytest

from mdmfs.cli.main import SECTIONS, cli
from mdmfs.cli.record import CollectionFile
from mdmfs.daemon.configuration import read_configuration
from mdmfs.hospital import tables
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.kept.audit import Event
from mdmfs.hospital.projects import ProjectFile
from mdmfs.keystore import configuration as keystore_configuration
from mdmfs.metadata.configuration import MetadataFile
from mdmfs.metadata.query import parse
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES
from mdmfs.wire import messages
from mdmfs.worker.attributes import ATTRIBUTES, COMMENT_ATTRIBUTE, WHY_ATTRIBUTE
from mdmfs.worker.configuration import CONFIGURATION_ATTRIBUTE, MountConfiguration
from mdmfs.worker.fuse import operations
from mdmfs.worker.fuse.errnos import ERRNOS

ROOT: Final = pathlib.Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
MAX_ADR_LINES: Final = 60
REQUIRED: Final = "required"
SHARED: Final = "Options of many commands"
EVERYWHERE: Final = "--json"
"""An option of every command: it has a section of its own."""
HAVE_A_THIRD_CODE: Final = (
    *("doctor", "find", "record show", "setfacl", "snapshot create", "snapshot drop", "snapshot list"),
    *("stage start", "subject identify"),
)
SET_BY_THE_READER: Final = {"folder", "file"}
"""No keys of a file: where the file lies."""
FILES: Final = {
    "hospital.toml": HospitalConfiguration,
    "A project": ProjectFile,
    "A collection": CollectionFile,
    "keystore.toml": keystore_configuration._File,  # noqa: SLF001 the file's own shape
    "metadata.toml": MetadataFile,
    "mount.toml": MountConfiguration,
}

_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
_DECISION = re.compile(r"\[ADR ([0-9]+)\]\((?:adr/)?([0-9]+)")
_OPTION = re.compile(r"`(--[a-z-]+)")
_NAME_OF_REQUIREMENT = re.compile(r"[A-Za-z0-9_-]+")
_ERRNO = re.compile(r"errno\.(E[A-Z0-9]+)")


def section(page: str, title: str) -> str:
    """Give what stands under a heading, to the next one of its level or above."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"docs/{page} has no heading {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> Iterator[list[str]]:
    """Give the cells of each row of each table, without heads and rules."""
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines):
        is_head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("|") and not line.startswith("|---") and not is_head:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(text: str) -> set[str]:
    """Give what stands in code type in the first cells of all tables."""
    return {name for row in rows(text) for name in _CODE.findall(row[0])}


def keys(kind: type[msgspec.Struct], table: str = "") -> Iterator[tuple[str, str]]:
    """Give the keys of a configuration file as ``table.key``, each with its default as TOML writes it."""
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        parts = [hints[field.name], *get_args(hints[field.name])]
        nested = next((part for part in parts if inspect.isclass(part) and issubclass(part, msgspec.Struct)), None)
        if nested is not None:
            yield from keys(nested, field.name + ".")
        elif field.name not in SET_BY_THE_READER:
            is_made = field.default_factory is not msgspec.NODEFAULT
            yield table + field.name, written(field.default_factory() if is_made else field.default)


def written(default: Any) -> str:  # noqa: ANN401 of any field
    """Write a default as TOML does."""
    if default is msgspec.NODEFAULT or default is dataclasses.MISSING:
        return REQUIRED
    if isinstance(default, enum.Enum):
        return json.dumps(default.value)
    if isinstance(default, str | bool):
        return json.dumps(default)
    if isinstance(default, tuple):
        return json.dumps(list(default))
    return "[]" if default == frozenset() else repr(default)


def told_defaults(text: str) -> dict[str, str]:
    """Read a table of keys: in the first cell the key, in the second its default."""
    return {_CODE.findall(row[0])[0]: row[1].strip("`") for row in rows(text)}


def example(text: str) -> str:
    """Give the first TOML of a section."""
    found = re.search(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """Give every command that does something, as it is typed, with its arguments."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")
        else:
            arguments = [one.human_readable_name for one in command.params if isinstance(one, click.Argument)]
            yield " ".join([above, name, *arguments]), command


def options(command: click.Command) -> set[str]:
    """Give the options of a command that are for people."""
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return {next(name for name in one.opts if name.startswith("--")) for one in shown} - {EVERYWHERE}


COMMANDS: Final = dict(commands(cli, "mdmfs"))


# The mount


def test_every_operation_of_the_mount_is_described_and_no_other() -> None:
    """What a program may ask the kernel for is one table."""
    answered = {name for name, value in vars(operations.MdmfsOperations).items() if inspect.iscoroutinefunction(value)}
    assert names(section("semantics.md", "Operations")) == {name for name in answered if not name.startswith("_")}


def test_every_error_has_the_errno_that_the_table_says() -> None:
    """A line for each error class, by its code, with its errno; no other lines."""
    told = {}
    for code, number, *_ in rows(section("semantics.md", "Errors")):
        told[code.strip("`")] = number.strip("`")
    assert told == {kind.code: errno.errorcode[number] for kind, number in ERRNOS.items()}


def test_errnos_that_no_error_stands_for_are_described_too() -> None:
    """Some are given by the operations themselves."""
    given = set(_ERRNO.findall(pathlib.Path(operations.__file__).read_text(encoding="utf-8")))
    text = (DOCS / "semantics.md").read_text(encoding="utf-8")
    assert given <= set(_CODE.findall(text))


def test_every_extended_attribute_is_described_and_no_other() -> None:
    """Programs of the grid go by these names."""
    unlisted = {
        WHY_ATTRIBUTE.decode(),
        COMMENT_ATTRIBUTE.decode(),
        operations.PID_ATTRIBUTE.decode(),
        CONFIGURATION_ATTRIBUTE,
    }
    known = {name.decode() for name in ATTRIBUTES} | unlisted
    assert names(section("semantics.md", "Extended attributes")) == known


# Commands and configuration


def test_every_command_has_its_section() -> None:
    """The heading is how it is typed, under those whom it is for; a command that has gone leaves no heading behind."""
    told = {title: re.findall(r"^### (mdmfs .*)$", section("commands.md", title), re.MULTILINE) for title in SECTIONS}
    assert sorted(typed for typeds in told.values() for typed in typeds) == sorted(COMMANDS)
    for title, typeds in told.items():
        of_others = {typed for typed in typeds if typed.split()[1] not in SECTIONS[title]}
        assert of_others <= {"mdmfs record show SUBJECT"}, title


@pytest.mark.parametrize(("typed", "command"), COMMANDS.items(), ids=COMMANDS)
def test_every_option_of_a_command_is_described_and_no_other(typed: str, command: click.Command) -> None:
    """Options stand in the command's own section, or where those of many are."""
    own, shared = set(_OPTION.findall(section("commands.md", typed))), names(section("commands.md", SHARED))
    assert own <= options(command)
    assert options(command) - own <= {_OPTION.findall(f"`{name}")[0] for name in shared if name.startswith("--")}


def test_the_options_of_all_commands_are_described() -> None:
    """They stand before the sections of the commands."""
    before = (DOCS / "commands.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert options(cli) <= set(_OPTION.findall(before))


@pytest.mark.parametrize("typed", HAVE_A_THIRD_CODE)
def test_a_code_of_its_own_stands_in_the_section_of_a_command(typed: str) -> None:
    """0, 1, 2 and 70 mean the same everywhere; 3 is some commands' own: a part is missing, or is waited for."""
    (heading,) = (name for name in COMMANDS if f"{name} ".startswith(f"mdmfs {typed} "))
    assert re.search(r"\b3\b", section("commands.md", heading))


def test_every_command_has_its_json_described_and_takes_the_option() -> None:
    """One table says what each prints; ``tests/boundary/test_demonstration.py`` compares what they print with it."""
    words = {command: len(typed.split()) for typed, command in COMMANDS.items()}
    arguments = {command: sum(isinstance(one, click.Argument) for one in command.params) for command in words}
    typed = {" ".join(name.split()[1 : words[it] - arguments[it]]) for name, it in COMMANDS.items()}
    assert names(section("commands.md", "JSON")) == typed
    assert all(any(EVERYWHERE in one.opts for one in command.params) for command in COMMANDS.values())


@pytest.mark.parametrize(("title", "kind"), FILES.items(), ids=FILES)
def test_every_key_of_a_file_is_described_with_its_default(title: str, kind: type[msgspec.Struct]) -> None:
    """A key without a line would be a secret, a line without a key a lie."""
    assert told_defaults(section("configuration.md", title)) == dict(keys(kind))


@pytest.mark.parametrize(("title", "kind"), FILES.items(), ids=FILES)
def test_the_example_of_a_file_is_one(title: str, kind: type[msgspec.Struct], tmp_path: pathlib.Path) -> None:
    """It reads as it stands, and the reader knows no silent misspellings."""
    path = tmp_path / "example.toml"
    path.write_text(example(section("configuration.md", title)), encoding="utf-8")
    assert read_configuration(path, kind)


def test_every_key_of_a_policy_is_described_with_its_default() -> None:
    """As for the other files; a policy has a reader of its own."""
    fields = {field.name: written(field.default) for field in dataclasses.fields(Policy)}
    text = section("configuration.md", "A policy")
    assert told_defaults(text) == fields
    assert Policy.parse(example(text))


# What is kept and told


def test_every_reason_of_a_refusal_is_described_and_no_other() -> None:
    """Quarantine and audit log name instances by these alone."""
    assert names(section("operations.md", "Why an instance is refused")) == {reason.value for reason in Reason}


def test_every_event_of_the_audit_log_is_described_and_no_other() -> None:
    """Whoever reads the log must know what a line means."""
    assert names(section("operations.md", "The audit log")) == {event.value for event in Event}


def test_every_table_of_the_hospitals_store_is_described_and_no_other() -> None:
    """What a hospital remembers is no secret to those who keep it."""
    assert names(section("architecture.md", "The hospital's store")) == {table.decode() for table in tables.ALL}


# The pages themselves


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """A link to a file of ours names one that is there, with a heading that is in it; a decision goes by its number."""
    text = page.read_text(encoding="utf-8")
    links = [(target, heading) for target, heading in _LINK.findall(text) if "://" not in target]
    pages = [(page.parent / target if target else page, heading) for target, heading in links]
    assert [target for target, _ in pages if not target.exists()] == []
    assert [(target.name, heading) for target, heading in pages if heading and heading not in anchors(target)] == []
    assert [(told, number) for told, number in _DECISION.findall(text) if int(told) != int(number)] == []


def anchors(page: pathlib.Path) -> set[str]:
    """Give what headings are called in a link, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def test_every_path_that_is_asked_for_is_told_and_no_other() -> None:
    """Whoever stands between the zones, a firewall or an auditor, looks there for what goes over the wire."""
    told = set(re.findall(r"`(/v1/[a-z/-]+?)(?:GUID)?`", section("architecture.md", "Who talks to whom")))
    made = set[str]()
    for module in pkgutil.iter_modules(messages.__path__, f"{messages.__name__}."):
        values = vars(importlib.import_module(module.name)).items()
        made |= {value for name, value in values if name.endswith("_PATH") and str(value).startswith("/v1/")}
    assert told == made


def test_decisions_are_numbered_dated_and_short() -> None:
    """One page each, in order, none missing."""
    pages = sorted((DOCS / "adr").glob("*.md"))
    assert pages
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.search(r"^Status: [a-z]+, \d{4}-\d{2}-\d{2}$", text, re.MULTILINE), page.name
        assert len(text.splitlines()) <= MAX_ADR_LINES, page.name


def test_every_dependency_has_its_reason() -> None:
    """A new one is named with why it is needed, or it does not come in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    found = [_NAME_OF_REQUIREMENT.match(requirement) for requirement in wanted]
    reasons = (DOCS / "adr" / "0001-dependencies.md").read_text(encoding="utf-8")
    assert {name[0] for name in found if name} == names(reasons)


def test_every_attribute_of_images_is_described_and_no_other() -> None:
    """Whoever writes a query looks there."""
    text = (DOCS / "query.md").read_text(encoding="utf-8").partition("## Attributes of images")[2]
    assert names(text) == IMAGE_ATTRIBUTES.keys()


def test_every_bound_of_a_query_is_the_one_described() -> None:
    """The numbers of the table are those of the parser."""
    told = section("query.md", "Grammar").replace(",", "")
    bounds = (parse.MAX_BYTES, parse.MAX_TESTS, parse.MAX_DEPTH, parse.MAX_VALUES, parse.MAX_TEXT, parse.MAX_WILDCARDS)
    for bound in (*bounds, parse.MAX_KEYS, parse.MAX_LIMIT):
        assert re.search(rf"\b{bound}\b", told), bound


def metrics_in_code() -> set[str]:
    """Name every metric that a module declares, as Prometheus tells it."""
    for path in (ROOT / "mdmfs").rglob("*.py"):
        if "prometheus_client" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    families = prometheus_client.REGISTRY.collect()
    ours = [family for family in families if family.name.startswith("mdmfs_")]
    return {family.name + ("_total" if family.type == "counter" else "") for family in ours}


def test_every_metric_is_told_and_the_samples_use_no_other() -> None:
    """Dashboard and alerts would be silent about a metric that has another name."""
    made = metrics_in_code()
    assert names(section("operations.md", "Metrics")) == made
    expressions = (DOCS / "alerts.yml").read_text() + (DOCS / "dashboard.json").read_text()
    used = {name.removesuffix("_bucket") for name in re.findall(r"\bmdmfs_[a-z_]+", expressions)}
    assert used <= made
    assert made - used == set()
