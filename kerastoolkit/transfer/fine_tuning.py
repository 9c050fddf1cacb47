"""Fine-tuning: which layers train, how fast each, and what BatchNormalization makes of the new images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._copies import copied
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.transfer._graphs import layers_of

if TYPE_CHECKING:
    import keras

__all__ = ["check_rates", "first_unfrozen", "optimizer_by_depth", "unfreeze", "update_batch_norm"]


def unfreeze(
    layers: Sequence[keras.layers.Layer],
    amount: int | float | str = 1.0,
    *,
    batch_norm: Literal["inference", "training"] = "inference",
) -> list[keras.layers.Layer]:
    """Lets the upper layers of a network train, and freezes all others.

    Example:

    >>> model = feature_extractor("MobileNetV2", weights=None, input_size=64)
    >>> unfreeze(model.layers, "block_16")[0].name
    'block_16_expand'

    Args:
        layers: Layers from the bottom to the top, such as `model.layers`.
        amount: Which of them train: a whole number of layers, a fraction of them, or the name of the lowest layer or
            block to train. Defaults to `1.0`: all.
        batch_norm: `"inference"` keeps the statistics of BatchNormalization and its weights as they are; `"training"`
            lets those of the unfrozen layers follow the new data, with a momentum of at most 0.9: call
            `update_batch_norm` when the training is over. Defaults to `"inference"`.

    Returns:
        The layers with weights that train now, from the bottom to the top.

    Raises:
        ParameterError: `amount` is none of the three, or no layer has that name.
    """
    import keras

    first = first_unfrozen([layer.name for layer in layers], amount)
    if batch_norm not in ("inference", "training"):
        raise ParameterError(f"`batch_norm` must be 'inference' or 'training'; got {batch_norm!r}.")
    for place, layer in enumerate(layers):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place >= first and not (normalizes and batch_norm == "inference")
        if normalizes and layer.trainable:
            # At the 0.999 of many networks the statistics would follow thousands of steps behind the weights.
            layer.momentum = min(layer.momentum, 0.9)
    return [layer for layer in layers if layer.trainable_weights]


def update_batch_norm(model: keras.Model, X: NDArray[Any], *, batch_size: int = 32, max_samples: int = 2048) -> None:
    """Computes the statistics of BatchNormalization again, for the weights as they are now.

    While a network trains, the means and variances that it will predict with are running averages. Each step changes
    the weights, so most of an average comes from weights that are gone. With a large learning rate that is enough to
    make a good network predict badly after one epoch and well after the next. Here the statistics become the averages
    over batches of training rows with the final weights ("precise" batch normalization: Wu and Johnson, "Rethinking
    'Batch' in BatchNorm", 2021, arXiv:2105.07576). `ImageClassifier` and `ImageRegressor` do this at the end of `fit`.

    Frozen layers (`trainable=False`) keep theirs. All other layers work as they do while training: images are
    augmented, units are dropped.

    Example:

    >>> model.fit(X, y, epochs=5)
    >>> update_batch_norm(model, X)

    Args:
        model: A trained model with one input.
        X: Rows that it was trained on, shape `(n, ...)`.
        batch_size: Rows of a batch, best as many as in training. Defaults to `32`.
        max_samples: Number of rows used at most; if `X` has more, these are drawn, always the same ones. Defaults to
            `2048`.
    """
    import keras

    layers = [layer for layer in layers_of(model) if isinstance(layer, keras.layers.BatchNormalization)]
    layers = [layer for layer in layers if layer.trainable]
    momenta = [layer.momentum for layer in layers]
    n_rows = len(X) if layers else 0
    chosen = np.random.default_rng(0).permutation(n_rows)[:max_samples]
    try:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            for layer in layers:
                layer.momentum = start / (start + len(batch))  # so that the running average is the plain one
            model(np.asarray(X[batch], "float32"), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def first_unfrozen(names: Sequence[str], amount: int | float | str) -> int:
    """The place of the lowest layer that `unfreeze` would let train.

    Args:
        names: Names of the layers, from the bottom to the top.
        amount: As for `unfreeze`.

    Raises:
        ParameterError: As `unfreeze`.
    """
    amount = amount.item() if isinstance(amount, np.generic) else amount
    if isinstance(amount, str):
        found = [place for place, name in enumerate(names) if name == amount or name.startswith(amount + "_")]
        if not found:
            raise ParameterError(
                f"`unfreeze` is {amount!r}, but no layer or block has that name.{did_you_mean(amount, names)}"
            )
        return found[0]
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount:
        return max(len(names) - amount, 0)
    if isinstance(amount, float) and 0.0 <= amount <= 1.0:
        return len(names) - round(len(names) * amount)
    raise ParameterError(
        f"`unfreeze` must be a whole number of layers, a fraction of them from 0.0 to 1.0, or the name of a layer or "
        f"block; got {amount!r}."
    )


def check_rates(learning_rate: float, bottom_rate: float) -> None:
    """Refuses rates that `optimizer_by_depth` would refuse; the arguments are the same.

    Raises:
        ParameterError: A rate is out of range, or this Keras has no `MultiOptimizer`.
    """
    import keras

    if not learning_rate > 0:
        raise ParameterError(f"`learning_rate` must be greater than 0; got {learning_rate!r}.")
    if not 0 < bottom_rate <= 1:
        raise ParameterError(f"`bottom_rate` must be a fraction greater than 0, up to 1; got {bottom_rate!r}.")
    if bottom_rate < 1 and not hasattr(keras.optimizers, "MultiOptimizer"):
        raise ParameterError(
            f"Keras {keras.__version__} has no MultiOptimizer, which learning rates by depth need. Upgrade it (pip "
            "install --upgrade keras), or set bottom_rate=1 for a single rate."
        )


_N_RATES = 5  # one learning rate for each layer would mean one optimizer for each layer


def optimizer_by_depth(
    optimizer: keras.optimizers.Optimizer,
    layers: Sequence[keras.layers.Layer],
    learning_rate: float,
    bottom_rate: float = 0.01,
) -> keras.optimizers.Optimizer:
    """An optimizer whose learning rate falls towards the bottom of a network.

    The layers are divided into five groups of about the same number of layers; the rates of the groups are spaced
    geometrically (Howard and Ruder, "Universal language model fine-tuning", 2018). Weights of layers that are not
    given here, such as the head, have the full rate.

    Args:
        optimizer: An optimizer of the wanted kind, with everything but the learning rate as it should be.
        layers: Built layers that train, from the bottom to the top, as `unfreeze` returns them.
        learning_rate: Learning rate of the head.
        bottom_rate: Learning rate of the lowest group as a fraction of that of the head; `1` for a single rate.
            Defaults to `0.01`.

    Returns:
        A `keras.optimizers.MultiOptimizer`, or for a single rate an optimizer of the given kind.

    Raises:
        ParameterError: A rate is out of range, or this Keras has no `MultiOptimizer`.
    """
    import keras

    check_rates(learning_rate, bottom_rate)

    def with_rate(rate: float) -> keras.optimizers.Optimizer:
        return copied(optimizer, {"learning_rate": rate}, "optimizer")

    if bottom_rate == 1 or not layers:
        return with_rate(learning_rate)
    groups = np.array_split(np.asarray(layers, dtype=object), min(_N_RATES, len(layers)))
    factors = np.geomspace(bottom_rate, 1.0, len(groups) + 1)[:-1]
    # By names and not by a function, since the file of a compiled model can hold names only.
    rates = {
        "|".join(re.escape(weight.path) for layer in group for weight in layer.trainable_weights): with_rate(
            float(learning_rate * factor)
        )
        for group, factor in zip(groups, factors, strict=True)
    }
    rest = with_rate(float(learning_rate))
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, rates))
