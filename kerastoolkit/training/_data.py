"""Data in the form in which a step takes them."""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from kerastoolkit.training._state import Array, Samples, tree_map


class NotArraysError(Exception):
    """The data are not arrays; the message says what they are."""


# Arrays in Keras' own precision, by the address of those that they were cast from.
Casts = MutableMapping[int, Array]


def rows_of(x: object, y: object, weights: object, casts: Casts) -> Samples:
    """Data as Keras passes them to a step: floats in Keras' own precision, weights for each output.

    Args:
        x: Inputs, as for `Fit`.
        y: Targets, as for `Fit`.
        weights: Weights of the rows, as for `Fit`.
        casts: Arrays that were cast already, for fits that share their rows; filled here.

    Raises:
        NotArraysError: They are not numpy arrays of numbers.
        ValueError: Parts of them differ in their number of rows.
    """
    import keras

    cast = functools.partial(_array, casts=casts)
    rows = Samples(tree_map(cast, x), tree_map(cast, y), tree_map(cast, weights))
    if weights is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(weights):
        rows = rows._replace(weights=keras.tree.map_structure(lambda _: rows.weights, rows.y))
    lengths = {len(part) for part in keras.tree.flatten(rows) if part is not None}
    if len(lengths) != 1:
        raise ValueError(f"Data must have the same number of rows in all its parts; found {sorted(lengths)}.")
    return rows


def _array(part: object, casts: Casts) -> Array:
    import keras

    if not isinstance(part, np.ndarray):
        raise NotArraysError(f"data of {type(part).__name__} is left to Keras")
    if part.dtype.kind == "f" and part.dtype != keras.config.floatx():
        found = casts.get(id(part))  # of fits that share their rows
        casts[id(part)] = found = part.astype(keras.config.floatx()) if found is None else found
        return found
    if part.dtype.kind not in "fiub":
        raise NotArraysError(f"data of {part.dtype} is left to Keras")
    return part


def n_rows_of(x: object) -> int:
    """Number of rows of an array, or of nested arrays."""
    import keras

    return len(next(part for part in keras.tree.flatten(x) if part is not None))


def unpack_validation(data: object) -> tuple[Any, Any, Any]:
    """`validation_data` as inputs, targets and weights."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise NotArraysError("validation data that is a data set is left to Keras")
    x, y, *weights = data
    return x, y, weights[0] if weights else None
