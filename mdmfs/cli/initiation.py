"""``mdmfs init``: write a commented configuration from answers or options, then look at everything that it names."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import pathlib
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import click
import msgspec
import trio

from mdmfs.cli.doctor import checks_for, report
from mdmfs.cli.output import is_json, tell
from mdmfs.daemon.configuration import beside
from mdmfs.daemon.diagnosis import examine
from mdmfs.model.errors import MdmfsError, using

MODE: Final = 0o640
"""Readable by the daemon's group; the key is a file of its own."""
_ISSUER: Final = """\
# Who gave the Patient IDs of images that do not say so; inclusion lists name patients by ID^^^ISSUER.
# issuer = "AMC"
"""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextlib.contextmanager
def _unless_nobody_answers() -> Iterator[None]:
    """Go on behind the block where standard input has ended, and nobody at a terminal said to stop."""
    try:
        yield
    except click.Abort:
        if sys.stdin.isatty():
            raise


class _Asked(click.Option):
    """An option that is asked for; with JSON nobody is asked."""

    def prompt_for_value(self, ctx: click.Context) -> Any:  # noqa: ANN401 as click has it
        """Ask; where questions would be mixed with JSON, take the default, and without one it is missing."""
        if not is_json():
            with _unless_nobody_answers():
                return super().prompt_for_value(ctx)
        if self.default is None:
            raise click.MissingParameter(ctx=ctx, param=self)
        return self.default


def _option(name: str, help_text: str, default: str | None = None) -> Decorator:
    """Make an option that is asked for where it is not given."""
    is_shown = default is not None
    return click.option(name, cls=_Asked, prompt=help_text, default=default, show_default=is_shown, help=help_text)


def _options(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _refuse_taken(_: click.Context, __: click.Parameter, path: pathlib.Path) -> pathlib.Path:
    """Refuse a file that is there before anything is asked."""
    with using(path):
        if path.exists():
            raise FileExistsError
    return path


_OUTPUT = _options(
    click.argument(
        "configuration",
        type=click.Path(dir_okay=False, path_type=pathlib.Path),
        is_eager=True,
        callback=_refuse_taken,
    ),
    click.option("--no-check", is_flag=True, help="Do not look at what it names."),
)
_TRUST = _option("--trust", "CA directory, or a PEM bundle of CAs", "/etc/grid-security/certificates")
_IDENTITY = _options(
    _option("--certificate", "Certificate, PEM, leaf first", "/etc/grid-security/hostcert.pem"),
    _option("--key", "Its key, PEM, mode 0600", "/etc/grid-security/hostkey.pem"),
    _TRUST,
)
_KEYSTORES = click.option(
    "--keystore",
    "keystores",
    type=(str, str, str),
    multiple=True,
    metavar="NAME HOST:PORT DN",
    help="A keystore; again for each.",
)


@click.group(name="init")
def init() -> None:
    """Write a configuration and check what it names.

    What is not given as an option is asked for. A file that is there is never overwritten. Exits as mdmfs doctor does.
    """


@init.command()
@_OUTPUT
@_option("--name", "Directory of the hospital on the grid: /grid/medical/NAME")
@_option("--listen", "HOST:PORT to listen on", "0.0.0.0:8443")
@_option("--directory", "Directory of the store, for staging and the audit log", "/var/lib/mdmfs-hospital")
@_option("--projects", "Folder of the projects", "projects")
@_IDENTITY
@click.option("--threshold", type=int, default=2, show_default=True, help="How many shares make a key.")
@click.option("--pacs", type=(str, str), multiple=True, metavar="NAME AET@HOST:PORT", help="A PACS; again for each.")
@_KEYSTORES
def hospital(
    configuration: pathlib.Path,
    *,
    no_check: bool,
    pacs: Sequence[tuple[str, str]],
    keystores: Sequence[tuple[str, str, str]],
    **values: str | int,
) -> None:
    """Write the configuration of a hospital's daemon."""
    pacs = pacs or [(one, address) for one, address in _ask_rows("PACS", ("name", "AET@HOST:PORT"))]
    keystores = keystores or _ask_keystores()
    if not pacs:
        message = "a hospital has at least one PACS: give --pacs NAME AET@HOST:PORT"
        raise click.UsageError(message)
    tables = [_table("pacs", {"name": name, "address": address}) + _ISSUER for name, address in pacs]
    tables += _keystore_tables(keystores)
    _write(configuration, "hospital", values, tables, no_check=no_check, folder=str(values["projects"]))


@init.command()
@_OUTPUT
@_option("--name", "What logs call this keystore")
@_option("--listen", "HOST:PORT to listen on", "0.0.0.0:8443")
@_option("--directory", "Directory of the shelf", "/var/lib/mdmfs-keystore")
@click.option("--hospital", "hospitals", multiple=True, help="DN of a hospital that may register; again for each.")
@_IDENTITY
def keystore(
    configuration: pathlib.Path, *, no_check: bool, hospitals: Sequence[str], **values: str | Sequence[str]
) -> None:
    """Write the configuration of a keystore's daemon."""
    hospitals = hospitals or [row[0] for row in _ask_rows("hospital", ("DN of its certificate",))]
    _write(configuration, "keystore", {**values, "hospitals": list(hospitals)}, [], no_check=no_check)


@init.command()
@_OUTPUT
@_option("--listen", "HOST:PORT to listen on", "0.0.0.0:8444")
@_option("--database", "Path of its database, or postgresql://...", "/var/lib/mdmfs-metadata/metadata.sqlite")
@_option("--hospital", "DN of the one hospital that writes here")
@_IDENTITY
def metadata(configuration: pathlib.Path, *, no_check: bool, **values: str) -> None:
    """Write the configuration of a metadata service's daemon."""
    _write(configuration, "metadata", values, [], no_check=no_check)


@init.command()
@_OUTPUT
@_option("--address", "HOST:PORT of the hospital")
@_option("--dn", "DN of the hospital's certificate")
@_TRUST
@_option("--cache-size", "How much ciphertext the cache holds", "10 GiB")
@_KEYSTORES
def worker(
    configuration: pathlib.Path, *, no_check: bool, keystores: Sequence[tuple[str, str, str]], **values: str
) -> None:
    """Write the configuration of a mount."""
    keystores = keystores or _ask_keystores()
    _write(configuration, "worker", values, _keystore_tables(keystores), no_check=no_check)


def _ask_rows(what: str, fields: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Ask for one after another, until nothing is answered; with JSON nobody is asked."""
    while not is_json():
        first = ""
        with _unless_nobody_answers():
            first = click.prompt(f"{what}: {fields[0]} (nothing to end)", default="", show_default=False)
        if not first:
            return
        yield (first, *(click.prompt(f"{what}: {field}") for field in fields[1:]))


def _ask_keystores() -> list[tuple[str, str, str]]:
    return [(name, at, dn) for name, at, dn in _ask_rows("keystore", ("name", "HOST:PORT", "DN of its certificate"))]


def _keystore_tables(keystores: Iterable[tuple[str, str, str]]) -> list[str]:
    return [_table("keystores", {"name": name, "address": address, "dn": dn}) for name, address, dn in keystores]


def _table(name: str, values: dict[str, str]) -> str:
    return "\n".join([f"\n[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in values.items())]) + "\n"


def _toml(value: object) -> str:
    """Write a value: what JSON says of strings, whole numbers and lists of them TOML says too, but for DEL."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _write(
    path: pathlib.Path,
    template: str,
    values: dict[str, Any],
    tables: Sequence[str],
    *,
    no_check: bool,
    folder: str = "",
) -> None:
    """Write a file that its daemon can read, or none; make the folder that it names; and look at what else it names."""
    source = importlib.resources.files("mdmfs.cli") / "templates" / f"{template}.toml"
    text = string.Template(source.read_text(encoding="utf-8")).substitute(
        {name: _toml(value) for name, value in values.items()}
    )
    with using(path):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with using(path), os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "".join(tables))
        checks = checks_for(path)
        if folder:
            _make(beside(path, folder))
    except MdmfsError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    tell({"wrote": path}, f"wrote {path}")
    if not no_check:
        sys.exit(report(trio.run(examine, checks)))


def _make(folder: pathlib.Path) -> None:
    with using(folder):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
