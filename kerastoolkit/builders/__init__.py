"""Models from a few words: functions that return an uncompiled `keras.Model`.

Each is usable alone, `mlp(input_shape=(30,), head=Head.binary())`, and by name or as a function in an estimator,
`KerasClassifier("mlp", hidden=(64, 32))`, where the shapes and the head come from the data.

for                              builder
rows of features                 `mlp`, `residual_mlp`, `wide_and_deep`
tables of numbers and categories `tabular`
images                           `cnn`
series and texts                 `conv1d`, `rnn`, `transformer_encoder`; `mlp` for words in any order
several inputs                   `multi_input`
several targets                  `multi_output`; every other builder can end in several outputs, too
rows to be compressed            `autoencoder`, which `KerasTransformer` trains
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kerastoolkit._words import did_you_mean
from kerastoolkit.builders.functional import (
    multi_input,
    multi_output,
    residual_mlp,
    tabular,
    transformer_encoder,
    wide_and_deep,
)
from kerastoolkit.builders.heads import Head, HeadGroup, head
from kerastoolkit.builders.sequential import autoencoder, cnn, conv1d, mlp, rnn
from kerastoolkit.data.readers import warn_of_another
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = [
    "Head",
    "HeadGroup",
    "autoencoder",
    "cnn",
    "conv1d",
    "get",
    "head",
    "list_builders",
    "mlp",
    "multi_input",
    "multi_output",
    "register_builder",
    "residual_mlp",
    "rnn",
    "tabular",
    "transformer_encoder",
    "wide_and_deep",
]

_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    builder.__name__: builder
    for builder in (
        autoencoder,
        cnn,
        conv1d,
        mlp,
        multi_input,
        multi_output,
        residual_mlp,
        rnn,
        tabular,
        transformer_encoder,
        wide_and_deep,
    )
}


_OURS = tuple(_BUILDERS.values())

_Builder = TypeVar("_Builder", bound=Callable[..., Any])


def register_builder(name: str | None = None) -> Callable[[_Builder], _Builder]:
    """Registers a function that builds models under a name that the estimators' `model` argument takes; a decorator.

    Example:

    >>> @register_builder("linear")
    ... def linear(input_shape, head):
    ...     import keras
    ...     return keras.Sequential([keras.Input(input_shape), head.output_layer()])
    >>> get("linear") is linear
    True

    Args:
        name: The name. A later function of the same name takes its place, with a warning, unless it is the same one
            defined once more, as in a notebook. Defaults to `None`: that of the function.

    Returns:
        The decorator, which returns the function as it is.

    Raises:
        ParameterError: The name is one of kerastoolkit's own, or what is registered is no function.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise ParameterError(f"`name` must be a text; got {name!r}. Write it with brackets: @register_builder().")

    def register(build: _Builder) -> _Builder:
        known_as = name if name is not None else getattr(build, "__name__", "")
        if not callable(build) or not known_as:
            raise ParameterError(f"@register_builder is for a function that returns a keras.Model; got {build!r}.")
        known = _BUILDERS.get(known_as)
        if known is not None and is_ours(known):
            raise ParameterError(f"The builder {known_as!r} is kerastoolkit's own; register yours by another name.")
        warn_of_another(f"builder {known_as!r}", known, build)
        _BUILDERS[known_as] = build
        return build

    return register


def is_ours(build: object) -> bool:
    """Whether a function is one of kerastoolkit's builders, and not one that a user registered."""
    return any(build is one for one in _OURS)


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
        meant = did_you_mean(builder, list_builders())
        raise ParameterError(
            f"`model` is {builder!r}, which is not the name of a builder.{meant} Builders: "
            f"{', '.join(list_builders())}. "
            "Or pass a function that returns a keras.Model."
        ) from None
