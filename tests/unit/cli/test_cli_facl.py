"""``setfacl``'s options become edits, in the order in which it does them."""

from __future__ import annotations

import io

import pytest

from mdmfs.access.edit import EditKind
from mdmfs.cli.facl import _edits  # what the options mean is all there is to test without a hospital
from mdmfs.model.errors import MalformedNameError

NOTHING: dict[str, object] = {
    "set_file": None,
    "remove_all": False,
    "remove_default": False,
    "remove": (),
    "modify": (),
    "is_default": False,
}


def test_options_are_done_in_setfacls_order() -> None:
    """Replace, clear, clear the defaults, remove, modify."""
    text = "# file: /grid/medical/a\n# version: 7\nuser::rwxa-\ndefault:user::rwxa-\n"
    options = {
        **NOTHING,
        "set_file": io.StringIO(text),
        "remove_all": True,
        "remove_default": True,
        "remove": ("u:/O=x/CN=a",),
        "modify": ("g:/v:rx,d:g:/v:rx", "o::x"),
    }
    edits, version = _edits(options)
    assert [edit.kind for edit in edits] == [
        EditKind.REPLACE,
        EditKind.CLEAR,
        EditKind.CLEAR_DEFAULTS,
        EditKind.REMOVE,
        EditKind.MODIFY,
    ]
    assert version == 7
    assert (len(edits[-1].entries), len(edits[-1].defaults)) == (2, 1)


def test_d_means_the_default_entries() -> None:
    """Of what is modified and of what is removed."""
    edits, _ = _edits({**NOTHING, "modify": ("u:/O=x/CN=a:rx",), "remove": ("m:",), "is_default": True})
    assert [(len(edit.entries), len(edit.defaults)) for edit in edits] == [(0, 1), (0, 1)]


def test_without_an_option_nothing_is_done_and_nonsense_is_refused() -> None:
    """The command says how it is written."""
    assert _edits(NOTHING) == ([], 0)
    with pytest.raises(MalformedNameError):
        _edits({**NOTHING, "modify": ("nobody",)})
