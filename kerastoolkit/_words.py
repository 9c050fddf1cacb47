"""Words for people: suggestions for a mistyped name, and the user's text, made safe to show."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

__all__ = ["did_you_mean", "near_misses", "printable", "quoted"]

# What a terminal, a page or a log may act on: control characters, line breaks, halves of characters, and signs that
# change the direction of a line or are invisible.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners, which Persian, Hindi and many emoji need, and the soft hyphen.
_HARMLESS = "\u200c\u200d\u00ad"


def near_misses(wanted: object, known: Iterable[object], n: int = 2) -> list[str]:
    """The known names that are most like the wanted one, regardless of case, spaces and punctuation.

    Args:
        wanted: What was asked for.
        known: The names that exist.
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

    # Of names that differ only in case and punctuation, the one that is written as the user writes it.
    return [max(by_plain[plain], key=likeness) for plain in close]


def did_you_mean(wanted: object, known: Iterable[object], n: int = 2) -> str:
    """A sentence that suggests the nearest names, after a space; or nothing."""
    found = near_misses(wanted, known, n)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def printable(text: object, *, keep: str = "") -> str:
    """The text as it can be shown anywhere: what a terminal would act on is spelt out, such as `\\x1b` or `\\n`.

    Args:
        text: The text to show.
        keep: Characters to leave as they are. Defaults to none; `"\\n"` for text of several lines.

    Returns:
        The text, with visible characters only, which can be written in UTF-8.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(character if _is_seen(character, keep) else _spelt(character) for character in shown)


def quoted(text: object) -> str:
    """The text in quotation marks, on one line, as a message names a column, a class or a file."""
    return f"'{printable(text)}'"


def _is_seen(character: str, keep: str) -> bool:
    return character in keep or character in _HARMLESS or unicodedata.category(character) not in _OBEYED


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
