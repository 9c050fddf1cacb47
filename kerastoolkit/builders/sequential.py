"""Straight stacks of layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kerastoolkit.builders.heads import Head, HeadGroup
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["mlp"]


def mlp(
    input_shape: Sequence[int],
    head: Head | HeadGroup,
    hidden: int | Sequence[int] = (100,),
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: Literal["batch", "layer"] | None = None,
    l2: float = 0.0,
) -> keras.Model:
    """Builds a multilayer perceptron.

    Each hidden layer is Dense, then normalization, activation and dropout, those that are asked for.

    Example:

    >>> mlp((30,), Head.binary(), hidden=(64, 32), dropout=0.2).output_shape
    (None, 1)

    Args:
        input_shape: Shape of one row, `(features,)`.
        head: The end of the network, from `head(y)` or `Head.binary()` and its kin.
        hidden: Units of each hidden layer, or one number for one layer; `()` gives a linear model.
            Defaults to `(100,)`.
        activation: Name of the hidden layers' activation. Defaults to `"relu"`.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        normalization: `"batch"`, `"layer"` or `None`, between Dense and activation. Defaults to `None`.
        l2: Factor of the L2 penalty on the weights of the hidden layers. Defaults to `0.0`.

    Returns:
        An uncompiled model: input `(batch, features)`, output `(batch, head.units)`; for a `HeadGroup`, one output
        for each of its heads.

    Raises:
        ParameterError: An argument is out of range, or a row has more than one axis; the message says which.
    """
    import keras

    widths = _widths(hidden)
    if len(input_shape) != 1:
        raise ParameterError(
            f"`mlp` takes rows of features, but each row here has the shape {tuple(input_shape)}. Flatten it first, "
            "X.reshape(len(X), -1), or pass a function that builds a model for such rows as `model`."
        )
    if not 0.0 <= dropout < 1.0:
        raise ParameterError(f"`dropout` must be a fraction from 0 up to, not including, 1; got {dropout!r}.")
    if normalization not in (None, "batch", "layer"):
        raise ParameterError(f"`normalization` must be 'batch', 'layer' or None; got {normalization!r}.")
    if l2 < 0:
        raise ParameterError(f"`l2` must not be negative; got {l2!r}.")
    if not isinstance(head, (Head, HeadGroup)):
        raise ParameterError(
            f"`head` must be a Head, from head(y) or Head.binary(), Head.multiclass(n), ...; got {head!r}."
        )
    try:
        keras.activations.get(activation)
    except ValueError:
        close = difflib.get_close_matches(str(activation), dir(keras.activations), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise ParameterError(f"`activation` is {activation!r}, which Keras does not know.{meant}") from None

    inputs = keras.Input(tuple(input_shape))
    x: Any = inputs
    for width in widths:
        x = keras.layers.Dense(width, kernel_regularizer=keras.regularizers.L2(l2) if l2 else None)(x)
        if normalization == "batch":
            x = keras.layers.BatchNormalization()(x)
        elif normalization == "layer":
            x = keras.layers.LayerNormalization()(x)
        x = keras.layers.Activation(activation)(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
    if isinstance(head, HeadGroup):
        return keras.Model(inputs, [layer(x) for layer in head.output_layers()], name="mlp")
    return keras.Model(inputs, head.output_layer()(x), name="mlp")


def _widths(hidden: int | Sequence[int]) -> list[int]:
    widths: list[Any] = list(hidden) if isinstance(hidden, Iterable) else [hidden]
    for width in widths:
        if isinstance(width, bool) or int(width) != width or width < 1:
            raise ParameterError(
                f"`hidden` must be a whole number of units or a sequence of them, such as (64, 32); got {hidden!r}."
            )
    return [int(width) for width in widths]
