"""Models from a few words: functions that return an uncompiled `keras.Model`.

Each is usable alone, `mlp(input_shape=(30,), head=Head.binary())`, and by name or as a function in an estimator,
`KerasClassifier("mlp", hidden=(64, 32))`, where the shapes and the head come from the data.

for                              builder
rows of features                 `mlp`, `residual_mlp`, `wide_and_deep`
tables of numbers and categories `tabular`
images                         `cnn`
series and words                 `conv1d`, `rnn`, `transformer_encoder`; `mlp` for words in any order
several inputs                   `multi_input`
several targets                  `multi_output`; every other builder can have several outputs as well
rows to be compressed            `autoencoder`, which `KerasTransformer` trains
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
