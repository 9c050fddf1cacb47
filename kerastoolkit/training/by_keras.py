"""The ordinary path: `Model.fit`, with the rows of each epoch in an order drawn from the seed of the fit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerastoolkit.training._data import NotArraysError, n_rows_of, rows_of
from kerastoolkit.training._fits import Fit
from kerastoolkit.training._run import Observers, Run
from kerastoolkit.training._state import Samples, Tensor, tree_map
from kerastoolkit.training.seeds import isolated


def train_by_keras(run: Run, observers: Observers) -> None:
    """Trains one fit by `Model.fit`; what that raises is in `run.trained.error`.

    Args:
        run: The fit.
        observers: Who is told of its epochs, and may stop it.
    """
    import keras

    fit, trained = run.fit, run.trained
    trained.how = "Model.fit"
    history = None
    try:
        model = trained.network.model  # type: ignore[union-attr]
        scope = contextlib.nullcontext() if fit.strategy is None else fit.strategy.scope()
        arguments = _arguments(fit, run.seed, type(model).fit)

        def after_epoch(epoch: int, logs: Mapping[str, Any]) -> None:
            if observers.must_stop({run: (epoch + 1, logs)}):
                model.stop_training = True

        arguments["callbacks"].append(keras.callbacks.LambdaCallback(on_epoch_end=after_epoch))
        with isolated(run.seed), scope:
            if fit.strategy is not None:
                fit.strategy.prepare(model)
            try:
                history = model.fit(**arguments)
            finally:
                trained.network.history = history or getattr(model, "history", None)  # type: ignore[union-attr]
                trained.history = dict(getattr(trained.network.history, "history", {}))  # type: ignore[union-attr]
    except Exception as error:
        trained.error = error


def _arguments(fit: Fit, seed: int, method: Callable[..., Any]) -> dict[str, Any]:
    """Arguments of `Model.fit`.

    Args:
        fit: The fit.
        seed: Seed of the order of rows.
        method: The `fit` of the model's class.
    """
    import keras

    arguments: dict[str, Any] = {
        "epochs": fit.epochs,
        "initial_epoch": fit.initial_epoch,
        "validation_data": fit.validation_data,
        "validation_batch_size": fit.validation_batch_size,
        "validation_freq": fit.validation_freq,
        "callbacks": list(fit.callbacks),
        "verbose": fit.verbose,
        **fit.options,
    }
    try:
        rows = rows_of(fit.x, fit.y, fit.sample_weight, {})
    except NotArraysError:
        rows = None
    if (
        rows is None
        or fit.shuffle not in (True, 1)
        or fit.options.get("steps_per_epoch")
        or method is not keras.Model.fit
    ):
        given = {"x": fit.x, "y": fit.y, "sample_weight": fit.sample_weight, "shuffle": fit.shuffle}
        return {**arguments, **given, "batch_size": fit.batch_size}
    if fit.validation_batch_size is None and fit.validation_data is not None:
        arguments["validation_batch_size"] = fit.batch_size or 32
    rng = np.random.default_rng((seed, fit.initial_epoch))
    if fit.strategy is not None and fit.strategy.divides_on_tensorflow:
        return {**arguments, **_dataset(rows, fit, rng), "shuffle": False}
    batches = _batches()(rows, fit.batch_size or 32, rng)
    # Keras' adapters ask for a new order at moments that differ between backends; the begin of an epoch does not.
    reorder = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: batches.reorder())
    return {**arguments, "x": batches, "shuffle": False, "callbacks": [reorder, *arguments["callbacks"]]}


def _dataset(rows: Samples, fit: Fit, rng: np.random.Generator) -> dict[str, Any]:
    """Arguments of `Model.fit` for all epochs as one `tf.data.Dataset` of batches, with the rows in the same order.

    On several devices, batches made in Python were seen to take many times as long on a busy machine.
    """
    import keras
    import tensorflow as tf

    size, n_rows = fit.batch_size or 32, n_rows_of(rows.x)
    steps, n_epochs = -(-n_rows // size), max(fit.epochs - fit.initial_epoch, 1)
    with tf.device("CPU:0"):
        # Keras takes a list of arrays from its user, but from a data set a tuple of them.
        parts = keras.tree.lists_to_tuples(tree_map(tf.constant, rows))
        order = tf.constant(np.stack([rng.permutation(n_rows) for _ in range(n_epochs)]).astype("int32"))

    def batch(number: Tensor) -> tuple[Tensor, ...]:
        first = number % steps * size
        chosen = order[number // steps, first : first + size]
        x, y, weights = tree_map(lambda part: tf.gather(part, chosen), parts)
        return (x, y) if weights is None else (x, y, weights)

    numbers = tf.data.Dataset.range(n_epochs * steps, output_type=tf.int32)
    return {"x": numbers.map(batch), "steps_per_epoch": steps}


@functools.cache
def _batches() -> Any:
    import keras

    class Batches(keras.utils.PyDataset):
        """Batches of arrays in a new order each epoch, the one in which a program would take them."""

        def __init__(self, rows: Samples, size: int, rng: np.random.Generator) -> None:
            super().__init__()
            self._rows, self._size, self._rng = rows, size, rng
            self._n_rows = n_rows_of(rows.x)
            self._order = np.arange(self._n_rows)

        def __len__(self) -> int:
            return -(-self._n_rows // self._size)

        def reorder(self) -> None:
            self._order = self._rng.permutation(self._n_rows)

        def __getitem__(self, number: int) -> Any:
            chosen = self._order[number * self._size : (number + 1) * self._size]
            # Keras takes a list of arrays from its user, but from a data set a tuple of them.
            x, y, weights = keras.tree.lists_to_tuples(tree_map(lambda part: part[chosen], self._rows))
            return (x, y) if weights is None else (x, y, weights)

    return Batches
