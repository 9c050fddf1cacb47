"""kerastoolkit's own estimators by the name that a file has for them; each enters itself as its class is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ESTIMATORS: dict[str, Any] = {}


def reference_to(thing: type | Callable[..., Any]) -> str:
    """The name of a function or class: `"module:qualname"`."""
    return f"{thing.__module__}:{thing.__qualname__}"


def enter(kind: type) -> None:
    """Enters a class, if it is one of kerastoolkit's that users make instances of."""
    if kind.__module__.partition(".")[0] == "kerastoolkit" and not kind.__name__.startswith("_"):
        ESTIMATORS[reference_to(kind)] = kind
