"""Whether a version of Keras that was not tested trains as the programs here do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training._fits import Fit, Trained
from kerastoolkit.training.seeds import isolated

if TYPE_CHECKING:
    import keras


def check_keras(fit_many: Callable[[Sequence[Fit]], list[Trained]]) -> None:
    """Trains two small models with a Keras that was not tested, unless settings of the user's would affect them.

    Args:
        fit_many: The function of this name, passed in to avoid a circular import.
    """
    import keras

    with isolated(0):  # one thread at a time
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            if keras.config.floatx() == "float32" and not (has_limits() or _has_ambient_settings()):
                _keras.check_compatibility(lambda: _difference(fit_many))
        finally:
            keras.config.set_dtype_policy(policy)


def has_limits() -> bool:
    """Whether the user limits the epochs or steps of every `Model.fit`."""
    import keras

    names = "max_epochs", "max_steps_per_epoch"
    return any(getattr(keras.config, name, lambda: None)() is not None for name in names)


def _has_ambient_settings() -> bool:
    """Whether models are distributed over devices, or torch records no gradients."""
    import keras

    if keras.config.backend() == "torch":
        import torch

        return not torch.is_grad_enabled()
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.distribute.has_strategy())
    return keras.distribution.distribution() is not None


def _difference(fit_many: Callable[[Sequence[Fit]], list[Trained]]) -> str | None:
    """How two small models that `fit_many` trains differ from those that this Keras trains; None if they do not."""
    import keras
    from keras import layers

    def build(factor: float) -> keras.Model:
        with isolated(0):
            penalty = keras.regularizers.L2(factor)
            model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh", kernel_regularizer=penalty)])
            model.add(layers.BatchNormalization())
            model.add(layers.Dense(3, "softmax"))
            optimizer = keras.optimizers.AdamW(0.5 * factor, weight_decay=factor)
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    rows = np.arange(20)
    x, y, weights = np.sin(np.outer(rows, [1.0, 2.0, 3.0])).astype("float32"), rows % 3, 1 + rows % 2
    rest: dict[str, Any] = {"sample_weight": weights, "batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    factors = 0.2, 0.02
    fits = [Fit(build(factor), x, y, validation_data=(x, y), seed=0, **rest) for factor in factors]
    for factor, trained in zip(factors, fit_many(fits), strict=True):
        if trained.error is not None or trained.how == "Model.fit":
            return str(trained.error or trained.reason)
        model = build(factor)
        with isolated(0):
            history = model.fit(x, y, validation_data=(x, y), **rest).history
        pairs = [*zip(trained.model.get_weights(), model.get_weights(), strict=True)]
        pairs += [(trained.history[name], history[name]) for name in history]
        if not all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in pairs):
            return "a small model does not end as the steps that were known have it end"
    return None
