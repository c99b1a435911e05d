"""An example of each command that does not show one in its own words; help and manual pages end with it."""

from __future__ import annotations

from typing import Final

import click

EXAMPLES: Final = {
    "audit export": "audit export hospital.toml --format dicom --syslog collector.hospital.example:6514",
    "audit patient": "audit patient hospital.toml",
    "audit verify": "audit verify hospital.toml",
    "audit what": "audit what hospital.toml '/DC=org/DC=example/CN=Jane Doe'",
    "audit who": "audit who hospital.toml /grid/medical/amc/neuro",
    "deidentify": "deidentify --policy strict -o out images",
    "doctor": "doctor --json hospital.toml",
    "getfacl": "getfacl ~/grid/amc/neuro",
    "harvest": "harvest --dry-run hospital.toml neuro",
    "hospitald": "hospitald /etc/mdmfs/hospital/hospital.toml",
    "init hospital": "init hospital /etc/mdmfs/hospital/hospital.toml --name amc --threshold 2",
    "init keystore": "init keystore /etc/mdmfs/keystore/site.toml --name keystore-1",
    "init metadata": "init metadata /etc/mdmfs/metadata/metadata.toml",
    "init worker": "init worker ~/.config/mdmfs/amc.toml --address mdm.hospital.example:8443",
    "inspect": "inspect 0001.dcm.sealed",
    "keys destroy": "keys destroy hospital.toml --project neuro",
    "keys resplit": "keys resplit hospital.toml --project neuro",
    "keys rotate": "keys rotate hospital.toml --guid 3f2a9c5e-0d8b-4b7e-9a51-6a3c2f1e0b7d",
    "keys verify": "keys verify hospital.toml --repair",
    "keystored": "keystored /etc/mdmfs/keystore/keystore-1.toml",
    "metadatad": "metadatad /etc/mdmfs/metadata/metadata.toml",
    "names list": "names list hospital.toml /grid/medical/amc/neuro",
    "names remove": "names remove hospital.toml /grid/medical/amc/neuro/cohort",
    "policy digest": "policy digest research",
    "policy explain": "policy explain --policy research image.dcm",
    "quarantine explain": "quarantine explain hospital.toml 9c41f07a",
    "quarantine list": "quarantine list hospital.toml --project neuro",
    "quarantine retry": "quarantine retry hospital.toml 9c41f07a",
    "reconcile": "reconcile hospital.toml neuro",
    "record define": "record define hospital.toml followup.toml",
    "record import": "record import hospital.toml followup.toml visits.csv",
    "record show": "record show sub-6pyajauo6lm6cwpl --at ~/grid",
    "replicas": "replicas hospital.toml",
    "rerender": "rerender hospital.toml --project neuro",
    "setfacl": "setfacl -R -m 'u:/DC=org/DC=example/CN=Jane Doe:r-x' ~/grid/amc/neuro",
    "shelf forget-signer": "shelf forget-signer keystore.toml '/DC=org/DC=example/OU=hosts/CN=mdm.hospital.example'",
    "snapshot create": "snapshot create march 'Modality == \"MR\"' --at ~/grid",
    "snapshot drop": "snapshot drop march --at ~/grid",
    "snapshot list": "snapshot list --at ~/grid",
    "stage cancel": "stage cancel 5f1c6b0e2d3a4958b7c60d1e2f3a4b5c --at ~/grid",
    "stage release": "stage release 5f1c6b0e2d3a4958b7c60d1e2f3a4b5c --at ~/grid",
    "stage status": "stage status 5f1c6b0e2d3a4958b7c60d1e2f3a4b5c --at ~/grid --wait",
    "subject forget": "subject forget hospital.toml sub-6pyajauo6lm6cwpl",
    "subject identify": "subject identify mount.toml sub-6pyajauo6lm6cwpl --purpose 'incidental finding'",
    "subject merge": "subject merge hospital.toml neuro --dry-run",
    "umount": "umount ~/grid",
    "unseal": "unseal x.sealed --mount-config mount.toml --guid 3f2a9c5e-0d8b-4b7e-9a51-6a3c2f1e0b7d -o x.dcm",
    "why": "why ~/grid/amc/neuro",
    "withdraw": "withdraw hospital.toml /grid/medical/amc/neuro/sub-6pyajauo6lm6cwpl",
}
"""By what is typed after ``mdmfs``."""


def show_examples(command: click.Command, typed: str) -> None:
    """Let a command, or all of a group, end its help with an example."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            show_examples(below, f"{typed} {name}")
    elif typed in EXAMPLES and not command.epilog:
        command.epilog = f"Example: mdmfs {EXAMPLES[typed]}"
