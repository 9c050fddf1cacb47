"""What a network puts out: its shapes, and the output for rows, each row's the same whatever rows stand around it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kerastoolkit import _keras
from kerastoolkit._types import Dataset, InputArrays
from kerastoolkit.estimators import _inputs
from kerastoolkit.estimators._readers import Data
from kerastoolkit.estimators._recipe import one_row
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import ModelMismatchError

if TYPE_CHECKING:
    import keras


def of_dataset(fitted: Fitted, dataset: Dataset, arguments: Mapping[str, Any]) -> Any:
    """Output for a data set, which brings its own batches.

    Args:
        fitted: What was learned.
        dataset: Batches of what the network takes.
        arguments: Of `Model.predict`.

    Returns:
        An array of shape `(n, ...)`, or a list or dict of them.
    """
    import keras

    with _scope(fitted):
        raw = fitted.network.model.predict(dataset, **{"verbose": 0, **arguments})
    return keras.tree.map_structure(_in_single_precision, raw)


def of_rows(fitted: Fitted, X: InputArrays, arguments: dict[str, Any], *, at_least: int = 0) -> Any:
    """Output for rows.

    Args:
        fitted: What was learned.
        X: Encoded rows.
        arguments: Of `Model.predict`.
        at_least: Rows of a batch at least, where `arguments` name no size. Defaults to `0`.

    Returns:
        An array of shape `(n, ...)`, or a list or dict of them.

    Raises:
        DataError: There is text where the network takes numbers, or the other way round.
    """
    import keras

    network, strategy = fitted.network, fitted.strategy
    _inputs.check_text(network.example, X)
    arguments = dict(arguments)
    batch_size = arguments.pop("batch_size", None)
    if batch_size in (None, -1):
        batch_size = max(at_least, _batch_rows(X))
    fixed = _keras.fixed_batch(network.example)
    if fixed is not None:
        return _in_batches_of(fixed, fitted, X, arguments)
    ordinary = type(network.example).predict_step is keras.Model.predict_step and not arguments
    ordinary = ordinary and (strategy is None or strategy.n_devices == 1)
    ordinary = ordinary and not _inputs.holds_text(X)
    if not ordinary and not hasattr(X, "toarray"):
        with _scope(fitted):
            given = _inputs.for_keras(X)
            raw = network.model.predict(given, **{"verbose": 0, "batch_size": batch_size, **arguments})
        return keras.tree.map_structure(_in_single_precision, raw)
    return _by_rows(fitted, X, batch_size)


def _in_batches_of(size: int, fitted: Fitted, X: InputArrays, arguments: Mapping[str, Any]) -> Any:
    """Output of a model that takes so many rows at once, and may remember the last of them.

    It begins with nothing remembered, so that predictions depend on the rows alone.
    """
    import keras

    n_rows, model = _inputs.n_rows(X), fitted.network.model
    with _scope(fitted), _keras.fresh_states(model):
        raw = model.predict(_inputs.filled(X, -n_rows % size), **{"verbose": 0, **arguments, "batch_size": size})
    return keras.tree.map_structure(lambda part: _in_single_precision(part[:n_rows]), raw)


def _by_rows(fitted: Fitted, X: InputArrays, batch_size: int) -> Any:
    """Output for the rows of `X`, by a program that all models of a structure share.

    `Model.predict` traces a program of its own for every new model, 0.3 s on a CPU. Rows are filled up to a multiple of
    32, because matrix products of other shapes add up in another order: a row alone would differ in the seventh digit.
    """
    import keras

    parts = []
    for start in range(0, _inputs.n_rows(X), batch_size):
        batch = _inputs.rows(X, slice(start, start + batch_size))
        length = _inputs.n_rows(batch)
        output = fitted.network.predict(_inputs.filled(batch, -length % 32))
        parts.append(keras.tree.map_structure(lambda part, n=length: keras.ops.convert_to_numpy(part)[:n], output))
    return keras.tree.map_structure(lambda *part: _in_single_precision(np.concatenate(part)), *parts)


def _scope(fitted: Fitted) -> Any:
    return contextlib.nullcontext() if fitted.strategy is None else fitted.strategy.scope()


def _in_single_precision(part: ArrayLike) -> Any:
    """Output as numpy; models of mixed precision put out numbers of half precision, which numpy hardly knows."""
    part = np.asarray(part)
    return part.astype("float32") if part.dtype.name in ("bfloat16", "float16") else part


def _batch_rows(X: InputArrays) -> int:
    """Rows a batch when predicting: about a megabyte of floats, from 32 to 4096 rows."""
    size = int(np.prod(_inputs.first_part(X).shape[1:])) or 1
    return int(np.clip(2**18 // size, 32, 4096))


def row_shapes(model: keras.Model, data: Data) -> list[tuple[int, ...]] | None:
    """Shapes of a row of each output of a subclassed model, which does not tell them itself; None for any other.

    Raises:
        ModelMismatchError: The output has not a row for each row of the input.
    """
    import keras

    try:
        if keras.tree.flatten(model.outputs):
            return None
    except (AttributeError, ValueError):
        pass
    row = one_row(data)
    two = keras.tree.map_structure(lambda part: np.repeat(keras.ops.convert_to_numpy(part), 2, axis=0), row)
    outputs = keras.tree.flatten(model(two, training=False))
    for output in outputs:
        if len(output.shape) < 2 or output.shape[0] != 2:
            raise ModelMismatchError(
                f"The model puts out the shape {tuple(output.shape)} for 2 rows, where (2, units) was expected. Let it "
                "return one prediction for each row, without taking sums or means over the batch."
            )
    return [tuple(output.shape)[1:] for output in outputs]
