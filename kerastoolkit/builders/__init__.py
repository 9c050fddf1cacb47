"""Models from a few words: functions that return an uncompiled `keras.Model`.

Each is usable alone, `mlp(input_shape=(30,), head=Head.binary())`, and by name or as a function in an estimator,
`KerasClassifier("mlp", hidden=(64, 32))`, where the shapes and the head come from the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kerastoolkit.builders.heads import Head, HeadGroup, head
from kerastoolkit.builders.sequential import mlp
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["Head", "HeadGroup", "get", "head", "list_builders", "mlp"]

_BUILDERS: dict[str, Callable[..., keras.Model]] = {"mlp": mlp}


def list_builders() -> list[str]:
    """Names of the builders that `get` and the estimators' `model` argument know, sorted."""
    return sorted(_BUILDERS)


def get(builder: str | Callable[..., Any]) -> Callable[..., Any]:
    """Finds a builder by name; a function comes back as it is.

    Raises:
        ParameterError: No builder has that name; the message lists those there are.
    """
    if not isinstance(builder, str):
        return builder
    try:
        return _BUILDERS[builder]
    except KeyError:
        raise ParameterError(
            f"`model` is {builder!r}, which is not the name of a builder. Builders: {', '.join(list_builders())}. "
            "Or pass a function that returns a keras.Model."
        ) from None
