"""What a value must be: a whole number, a fraction, yes or no; and the sentence for a value that is something else.

The rule is scikit-learn's: `16.0`, `"16"` and `True` are not whole numbers. NumPy's numbers are like any others.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

__all__ = [
    "flag_wanted",
    "fraction_wanted",
    "is_flag",
    "is_number",
    "is_whole",
    "number_wanted",
    "shown",
    "whole_number_wanted",
]

_MAX_SHOWN = 80


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, of Python or of numpy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is one finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def is_flag(value: object) -> bool:
    """Whether a value is `True` or `False`."""
    return isinstance(value, (bool, np.bool_))


def whole_number_wanted(name: str, value: Any, *, at_least: int = 1, otherwise: str = "") -> str | None:
    """The sentence for a value that is not a whole number, or is too small; None if there is nothing to say.

    Args:
        name: Name of the argument.
        value: The value that was given.
        at_least: The smallest value allowed. Defaults to `1`.
        otherwise: What else may be given, for the sentence, such as `", or None"`. Defaults to nothing.
    """
    if is_whole(value) and value >= at_least:
        return None
    return f"`{name}` must be a whole number of at least {at_least}{otherwise}; got {shown(value)}.{_advice(value)}"


def fraction_wanted(name: str, value: Any) -> str | None:
    """The sentence for a value that is not a fraction from 0 to less than 1; None for one that is."""
    if is_number(value) and 0 <= value < 1:
        return None
    return f"`{name}` must be a fraction from 0 up to, not including, 1; got {shown(value)}.{_unquoted(value)}"


def number_wanted(name: str, value: Any) -> str | None:
    """The sentence for a value that is not a finite number, or is negative; None if there is nothing to say."""
    if is_number(value) and value >= 0:
        return None
    wanted = "must not be negative" if is_number(value) else "must be a number, 0 or more"
    return f"`{name}` {wanted}; got {shown(value)}.{_unquoted(value)}"


def flag_wanted(name: str, value: object) -> str | None:
    """The sentence for a value that is neither `True` nor `False`, nor 1 or 0; None for one that is."""
    if is_flag(value) or (is_whole(value) and value in (0, 1)):
        return None
    return f"`{name}` must be True or False; got {shown(value)}."


def shown(value: object) -> str:
    """A value as a message shows it: on one line, and cut short if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 4]} ..."


def _advice(value: object) -> str:
    """What to write for a whole number that was given in another form."""
    if isinstance(value, numbers.Real) and not is_whole(value) and not isinstance(value, bool):
        number = float(value)
        return f" That is a float: write {int(number)}." if number.is_integer() else ""
    return _unquoted(value)


def _unquoted(value: object) -> str:
    try:
        return f" That is text: write {value.strip()}." if isinstance(value, str) and is_number(float(value)) else ""
    except ValueError:
        return ""
