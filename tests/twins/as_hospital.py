"""Commands about ACLs, typed by the hospital itself, which owns what it has registered."""

from __future__ import annotations

import click
from click.testing import CliRunner

from mdmfs.demo.site import READER, Site


def as_hospital(site: Site, command: click.Command, *typed: str) -> tuple[int, str, str]:
    """Type a command; gives its exit code and what it says."""
    configuration = site.mount_file(READER).with_name("hospital.toml")
    text = site.mount_file(READER).read_text()
    shown = 'certificate = "../pki/hospital.pem"\nkey = "../pki/hospital.key"'
    configuration.write_text(text.replace('proxy = "../pki/reader.proxy"', shown))
    run = CliRunner().invoke(command, ["--configuration", str(configuration), *typed])
    return run.exit_code, run.stdout, run.stderr or str(run.exception or "")
