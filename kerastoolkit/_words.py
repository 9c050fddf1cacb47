"""What an error says to somebody who mistyped a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "near_misses"]


def near_misses(wanted: object, known: Iterable[object], n: int = 2) -> list[str]:
    """The known names that look most like the wanted one, letter case, spaces and punctuation apart.

    Args:
        wanted: What was asked for.
        known: What there is.
        n: How many to return at most. Defaults to `2`.

    Returns:
        Known names, the nearest first; often empty.
    """
    by_plain: dict[str, str] = {}
    for name in sorted(map(str, known)):
        by_plain.setdefault(_plain(name), name)
    return [by_plain[plain] for plain in difflib.get_close_matches(_plain(str(wanted)), by_plain, n=n)]


def did_you_mean(wanted: object, known: Iterable[object], n: int = 2) -> str:
    """A sentence with the near misses, after a space, or nothing."""
    found = near_misses(wanted, known, n)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
