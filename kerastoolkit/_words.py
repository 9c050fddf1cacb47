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
    wanted = str(wanted)
    by_plain: dict[str, list[str]] = {}
    for name in sorted(map(str, known)):
        by_plain.setdefault(_plain(name), []).append(name)
    close = difflib.get_close_matches(_plain(wanted), by_plain, n=n)

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, wanted, name).ratio()

    # Of names that differ in case and punctuation alone, the one that is written as the user writes.
    return [max(by_plain[plain], key=likeness) for plain in close]


def did_you_mean(wanted: object, known: Iterable[object], n: int = 2) -> str:
    """A sentence with the near misses, after a space, or nothing."""
    found = near_misses(wanted, known, n)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
