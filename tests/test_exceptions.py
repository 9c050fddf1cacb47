"""Errors and warnings: what they quote is shown, and not obeyed."""

from __future__ import annotations

import pickle
import traceback
import warnings
from typing import Any

import pytest

from kerastoolkit import exceptions

KINDS = [getattr(exceptions, name) for name in exceptions.__all__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_spells_out_what_a_terminal_would_obey(kind: Any) -> None:
    error = kind("the column '\x1b[31mred\u202e' is empty.\nRename it.")
    expected = "the column '\\x1b[31mred\\u202e' is empty.\nRename it."
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == expected
    assert "\x1b" not in "".join(traceback.format_exception_only(error))


def test_so_does_a_warning() -> None:
    with pytest.warns(exceptions.KerasToolkitWarning) as caught:
        warnings.warn("the file '\x1b]0;x\x07'", exceptions.KerasToolkitWarning, stacklevel=1)
    assert "\x1b" not in warnings.formatwarning(caught[0].message, caught[0].category, "here", 1)
    assert str(caught[0].message) == r"the file '\x1b]0;x\x07'"
