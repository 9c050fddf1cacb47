"""Docstrings in Google's form: what they say of each argument, and those of a class with what it inherits added.

A subclass describes its own parameters alone. Whoever asks for help wants all of them in one place, so `completed`
puts the descriptions of the parents beside those of the class, in the order of the constructor.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

_ARGUMENTS = ("Args:", "Arguments:", "Parameters:", "Args", "Arguments", "Parameters")
_ATTRIBUTES = ("Attributes:",)
_ENTRY = re.compile(r"^(?P<indent> *)(?P<names>[*`\w]+(?:, *[*`\w]+)*) ?(?:\([^)]*\))?:(?P<text>.*)$")


def documented(thing: object) -> dict[str, str]:
    """What a docstring says of each argument: the first sentence, and what `None` means.

    Args:
        thing: A function, a `functools.partial` of one, or a class.

    Returns:
        Sentences by name; none for a thing without a docstring.
    """
    text = inspect.getdoc(getattr(thing, "func", thing)) or ""
    found: dict[str, str] = {}
    for names, lines in _entries(_section(text.splitlines(), _ARGUMENTS)):
        said = _first_sentence(" ".join(" ".join([_ENTRY.sub(r"\g<text>", lines[0]), *lines[1:]]).split()))
        found |= dict.fromkeys(_split(names), said)
    return found


def completed(kind: type, names: Iterable[str]) -> str | None:
    """The docstring of a class with what its parents say of the parameters and attributes that it inherits.

    Args:
        kind: The class.
        names: Names of all its parameters, in the order in which they are to be described.

    Returns:
        The text. It is the docstring as it is where that lists neither arguments nor attributes.
    """
    text = vars(kind).get("__doc__")
    if not text:
        return text
    lines = inspect.cleandoc(text).splitlines()
    if not any(line in (*_ARGUMENTS, *_ATTRIBUTES) for line in lines):
        return str(text)
    arguments, attributes = _inherited(kind, _ARGUMENTS), _inherited(kind, _ATTRIBUTES)
    of_arguments = [arguments[name] for name in names if name in arguments]
    before, after = _around(lines)
    blocks = ["\n".join(before).rstrip()]
    for heading, entries in (("Args:", of_arguments), ("Attributes:", list(attributes.values()))):
        if entries:
            blocks.append("\n".join([heading, *(line for entry in entries for line in entry)]))
    if after:
        blocks.append("\n".join(after))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _inherited(kind: type, headings: tuple[str, ...]) -> dict[str, list[str]]:
    """The lines on each argument or attribute, from the nearest class that describes it, in the order of the MRO."""
    found: dict[str, list[str]] = {}
    for one in kind.__mro__:
        text = vars(one).get("__doc__") if one is not object else None
        for names, lines in _entries(_section(inspect.cleandoc(text or "").splitlines(), headings)):
            for name in _split(names):
                found.setdefault(name, lines)
    return found


def _split(names: str) -> list[str]:
    return [name.strip("*` ") for name in names.split(",")]


def _section(lines: list[str], headings: tuple[str, ...]) -> list[str]:
    """The lines below a heading, which Keras indents at times, up to the next line that is not indented."""
    start = next((place for place, line in enumerate(lines, 1) if line.strip() in headings), None)
    found: list[str] = []
    for line in lines[start:] if start is not None else ():
        if line.strip() and not line.startswith(" "):
            break
        found.append(line)
    return found


def _around(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines before the sections on arguments and attributes, and those after them."""
    places = [place for place, line in enumerate(lines) if line in (*_ARGUMENTS, *_ATTRIBUTES)]
    last = places[-1] + 1
    end = last + len(_section(lines[places[-1] :], (lines[places[-1]],)))
    return lines[: places[0]], lines[end:]


def _entries(section: list[str]) -> list[tuple[str, list[str]]]:
    """The entries of a section: the names that each describes, and its lines."""
    found: list[tuple[str, list[str]]] = []
    filled = [line for line in section if line.strip()]
    depth = len(filled[0]) - len(filled[0].lstrip()) if filled else 0
    for line in filled:
        indent = len(line) - len(line.lstrip())
        entry = _ENTRY.match(line) if indent == depth else None
        if entry is not None:
            found.append((entry["names"], []))
        if found:
            found[-1][1].append(line)
    return found


def _first_sentence(text: str) -> str:
    found = re.match(r"(.{20,}?[.])(?= [A-Z`\"]|$)", text)  # Keras begins with the type alone: "Float."
    first = found.group(1) if found else text
    default = re.search(r"Defaults? (?:to|is)? ?`?None`?: ([^.]*(?:\.[^ ][^.]*)*\.)", text)
    return first if default is None or default.group(0) in first else f"{first} None: {default.group(1)}"
