"""What to do about an error, by its code: a command says it below what happened, to which path or GUID."""

from __future__ import annotations

from typing import Final

ADVICE: Final = {
    "internal": "report it, with what the log says about it",
    "malformed-name": "write the name in the form that is told; docs/glossary.md has all of them",
    "malformed-query": "mend it at that column; mdmfs find --schema '' lists the attributes, docs/query.md the grammar",
    "malformed-message": "mend what it names; if that is nothing of yours, see that both sides run versions that fit",
    "configuration": "mend what is named there; mdmfs doctor CONFIGURATION looks at everything that a file names",
    "no-such-file": "look for the name with ls or mdmfs find; mdmfs why PATH tells whether it is hidden from you",
    "stale-number": "open the path again",
    "not-a-directory": "name a directory",
    "is-a-directory": "name a file",
    "no-such-attribute": "getfattr -d -m - PATH lists the attributes that there are",
    "read-only": "write your results elsewhere; collections and aliases may be made where you have the right w",
    "name-taken": "take another name, or remove what has this one",
    "not-empty": "remove what is in it first",
    "refused-name": "take another name",
    "other-hospital": "make it there and remove it here",
    "quota": "remove what you no longer need",
    "access-denied": "mdmfs why PATH tells who you are and what decides; who has the right a can change it",
    "credential-refused": "make a proxy, of a CA and VO that the site trusts; mdmfs doctor looks at it",
    "credential-expired": "make a new proxy; it is found by itself",
    "peer-unreachable": "see whether it runs and can be reached from here: mdmfs doctor CONFIGURATION",
    "peer-timed-out": "try again; if it stays so: mdmfs doctor CONFIGURATION",
    "pacs-unreachable": "the hospital has to see to its PACS: mdmfs doctor hospital.toml; staged files go on opening",
    "recall-timed-out": "try again: the recall goes on",
    "recall-failed": "the hospital looks into its log and its PACS; mdmfs doctor hospital.toml tries it",
    "instance-refused": "the hospital asks mdmfs quarantine list why",
    "instance-changed": "list the directory again; the hospital's mdmfs reconcile tells what has changed in the PACS",
    "instance-lost": "the hospital looks for it in its PACS: mdmfs reconcile tells what is gone",
    "integrity": "fetch it anew; if that does not help, tell the hospital which file it is",
    "wrong-key": "tell the hospital which file it is: mdmfs keys verify --guid GUID finds the fault",
    "too-few-shares": "see which keystores answer: mdmfs why PATH",
    "out-of-space": "make room there, or allow it more in the configuration",
    "busy": "try again later",
    "interrupted": "start it again: what daemons were told to do goes on",
    "store": "restore it from its backup: mdmfs restore; use a program of the version that wrote it, or a newer one",
    "failed": "see the hospital's log; started again, it goes on where it stopped",
    "unexpected": "report it, with the version that mdmfs --version tells",
}
"""For each code of ``mdmfs.model.errors``, and those of the command line itself."""
