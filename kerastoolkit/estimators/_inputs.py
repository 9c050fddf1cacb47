"""What may be given as `X`, `y` and weights, and what Keras gets of it.

Three kinds of `X` are told apart:

- an array of any rank, a table (pandas, polars) or a sparse matrix: read as scikit-learn's own checks read it, so
  that feature names, messages and refusals are those its users know;
- a dict or list of arrays, for models of several inputs;
- a data set that brings its own batches and targets (`tf.data.Dataset`, `keras.utils.PyDataset`, a torch
  `DataLoader`): handed to Keras as it is.

Large arrays are not copied here, nor changed in type; training casts float64 once, as a whole.
"""

from __future__ import annotations

import functools
import math
import numbers
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse, spmatrix
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    column_or_1d,
)

from kerastoolkit._types import Dataset, InputArrays, Target
from kerastoolkit.data.readers import RowShape
from kerastoolkit.estimators._arrays import (
    array_of,
    is_text,
    refusing,
    target_of,
)
from kerastoolkit.exceptions import DataError

if TYPE_CHECKING:
    import keras
    import pandas as pd

Kind = Literal["array", "structure", "dataset"]


def kind_of(X: object, n_rows: int | None = None) -> Kind:
    """Tells which of the three kinds `X` is.

    A list of arrays of two or more axes is ambiguous: rows (images), or the inputs of a model. It is inputs
    unless there are as many of them as targets, `n_rows`.
    """
    if issparse(X):  # one of scipy's formats is a dict
        return "array"
    if isinstance(X, Mapping):
        return "structure"
    if _is_dataset(X):
        return "dataset"
    if isinstance(X, (list, tuple)) and X and all(_is_matrix(part) for part in X):
        if n_rows is not None:
            return "array" if len(X) == n_rows else "structure"
        return "structure" if len({len(part) for part in X}) == 1 else "array"
    return "array"


def _is_matrix(part: object) -> bool:
    return hasattr(part, "shape") and len(part.shape) >= 2


def _is_dataset(X: object) -> bool:
    # Only what the caller already loaded can have made X.
    if "keras" in sys.modules and isinstance(X, sys.modules["keras"].utils.PyDataset):
        return True
    tensorflow, torch = sys.modules.get("tensorflow"), sys.modules.get("torch")
    if tensorflow is not None and hasattr(tensorflow, "data") and isinstance(X, tensorflow.data.Dataset):
        return True
    return torch is not None and hasattr(torch, "utils") and isinstance(X, torch.utils.data.DataLoader)


# -- X --------------------------------------------------------------------------------------------------------------


def largest_number() -> float:
    """The largest number that Keras computes with."""
    import keras

    return float(np.finfo(keras.config.floatx()).max)


def passes_as_it_is(array: Any, limit: float) -> bool:
    """Whether `check_array` has nothing to say of an array, which takes it ten times as long to find out.

    A search hands over every fold for every candidate.
    """
    kind = array.dtype.kind if type(array) is np.ndarray else ""
    if kind != "f" or array.itemsize not in (4, 8) or not array.size:
        return kind in ("b", "i")
    return bool(-limit <= array.min() and array.max() <= limit)  # neither is so with a NaN


def refuse_too_large(X: Any, what: str, names: Sequence[str] | NDArray[Any] | None = None) -> None:
    """Refuses finite numbers that would be infinite in the type that Keras computes in.

    Raises:
        DataError: There is one; the message names its column.
    """
    values = X.data if issparse(X) else X
    limit = largest_number()
    if values.dtype.kind != "f" or not values.size or (values.max() <= limit and values.min() >= -limit):
        return
    place = int(np.argmax(np.abs(values)))
    if issparse(X):
        X = X.tocoo()
        row, column = int(X.row[place]), [int(X.col[place])]
    else:
        row, *column = (int(part) for part in np.unravel_index(place, X.shape))
    number = str(tuple(column)) if len(column) > 1 else str(column[0])
    name = number if names is None else repr(str(names[column[0]]))
    raise DataError(
        f"{what} holds {values.flat[place]:.4g} in column {name}, row {row}, but a network computes in {_floatx()}, "
        f"which ends at {limit:.2g}: a value too large for dtype({_floatx()!r}). Give the column in another unit, or "
        "scale it first, for example by StandardScaler()."
    )


def _floatx() -> str:
    import keras

    return str(keras.config.floatx())


def columns_that_are_not_numbers(X: Any) -> list[Any]:
    if not hasattr(X, "dtypes") or not hasattr(X, "columns"):
        return []
    if isinstance(X.dtypes, list):  # polars
        pairs = [(name, kind.is_numeric() or str(kind) in ("Boolean", "Null")) for name, kind in X.schema.items()]
    else:
        import pandas as pd

        if not isinstance(X, pd.DataFrame):
            return []
        # Columns of objects may hold numbers; scikit-learn converts those, and only those.
        pairs = [(name, _is_number(X.iloc[:, place])) for place, name in enumerate(X.columns)]
    return [name for name, numeric in pairs if not numeric]


def _is_number(column: pd.Series[Any]) -> bool:
    import pandas as pd

    if column.dtype == object:
        return bool(pd.api.types.infer_dtype(column, skipna=True) in _NUMBERS)
    return bool(pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype))


_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty", "complex")


def read_structure(X: Any, fitted: RowShape | None = None) -> Any:
    """Checks a dict or list of arrays, each of shape `(n, ...)`, and returns the same of numpy arrays.

    Args:
        X: The arrays, one for each input of the model.
        fitted: What `shapes_of` said of the inputs in `fit`. Defaults to `None`: this is `fit`.

    Raises:
        DataError: There are no arrays, they differ in length, or `fit` saw other names or shapes.
    """
    parts = dict(X) if isinstance(X, Mapping) else dict(enumerate(X))
    if not parts:
        raise DataError("X is empty; give one array for each input of the model.")
    parts = {name: _read_part(f"X[{name!r}]", part) for name, part in parts.items()}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The inputs in X have different numbers of rows: {lengths}.")
    arrays = parts if isinstance(X, Mapping) else list(parts.values())
    if fitted is not None and shapes_of(arrays) != fitted:
        raise DataError(f"X has inputs with rows of the shapes {shapes_of(arrays)}, but was fitted with {fitted}.")
    return arrays


def _read_part(name: str, part: object) -> Any:
    if part is None:
        raise DataError(f"{name} is None; give an array for each input of the model.")
    array = array_of(part, name)
    if is_text(array):
        array = array.astype(object)  # for a model that looks words up
    elif array.dtype == object:
        try:
            array = array.astype("float64")
        except (TypeError, ValueError):
            raise DataError(
                f"{name} holds other things than numbers, such as {_first_of_another_kind(array)!r}. Turn them into "
                "numbers, or give them as an input of their own."
            ) from None
    elif array.dtype.kind not in "fiubc":
        raise DataError(f"{name} has the dtype {array.dtype}, of which no network learns. Turn it into numbers.")
    with refusing():
        array = check_array(array, ensure_2d=False, allow_nd=True, dtype=None, input_name=name)
    if 0 in array.shape[1:]:
        raise DataError(f"{name} has the shape {array.shape}, whose rows hold no numbers at all.")
    refuse_too_large(array, name)
    return array if array.ndim > 1 else array[:, None]


def _first_of_another_kind(array: NDArray[Any]) -> Any:
    return next((one for one in array.flat if not isinstance(one, numbers.Number)), array.flat[0])


def check_text(model: keras.Model, X: InputArrays) -> None:
    """Holds text and numbers against what the inputs of a model take.

    Raises:
        DataError: An input gets the one where it takes the other; the message names it.
    """
    inputs = _types_of_inputs(model)
    parts = X if isinstance(X, Mapping) else dict(zip(inputs, X if isinstance(X, list) else [X], strict=False))
    for name, part in parts.items():
        is_of_text, takes = is_of_objects(part), inputs.get(name)
        if takes is None or is_of_text == (takes == "string"):
            continue
        which = f"X[{name!r}]" if isinstance(X, Mapping) else "X"
        if not is_of_text:
            raise DataError(f"{which} holds {getattr(part, 'dtype', part)!s}, but the model takes text there.")
        raise DataError(
            f"{which} holds text, such as {part.flat[0]!r}, but the model takes numbers there ({takes}). Turn the text "
            "into numbers first, or begin the model with keras.Input(shape, dtype='string') and a layer that looks "
            "words up, such as keras.layers.StringLookup."
        )


def takes_text(model: keras.Model) -> bool:
    """Whether an input of a model is known to take text."""
    return "string" in _types_of_inputs(model).values()


def _types_of_inputs(model: keras.Model) -> dict[str, str]:
    try:
        return {one.name: str(one.dtype) for one in model.inputs}
    except (AttributeError, ValueError, TypeError):  # of a subclassed model nothing is known
        return {}


def holds_text(X: InputArrays) -> bool:
    """Whether checked inputs hold text somewhere."""
    parts = X.values() if isinstance(X, Mapping) else X if isinstance(X, list) else [X]
    return any(map(is_of_objects, parts))


def is_of_objects(part: object) -> bool:
    return bool(getattr(part, "dtype", None) == np.dtype(object))  # an encoder of the user's may return anything


def for_keras(X: InputArrays) -> Any:
    """Checked inputs as Keras takes them: numbers as they are, text as tensors.

    Raises:
        DataError: There is text, and the backend knows none.
    """
    import keras

    if not holds_text(X):
        return X
    if keras.config.backend() != "tensorflow":
        raise DataError(
            f"X holds text, which Keras looks up on TensorFlow alone, and the backend is {keras.config.backend()}. "
            "Turn it into numbers first, for example by keras.layers.StringLookup before the model."
        )
    import tensorflow as tf

    return keras.tree.map_structure(lambda part: tf.constant(part) if is_of_objects(part) else part, X)


def length_of(y: Any) -> int | None:
    """Number of rows of a target as it was given; None where that is not to be told."""
    if isinstance(y, Mapping) and not issparse(y):
        return None
    try:
        return int(y.shape[0]) if hasattr(y, "shape") else len(y)
    except (TypeError, IndexError):  # a single value
        return None


def shapes_of(X: InputArrays) -> Any:
    """Shapes of a row: a tuple, or a dict or list of them."""
    if isinstance(X, Mapping):
        return {name: part.shape[1:] for name, part in X.items()}
    if isinstance(X, list):
        return [part.shape[1:] for part in X]
    return tuple(X.shape[1:])


def rows(X: InputArrays, index: NDArray[Any] | slice) -> Any:
    """Takes rows of an array, or of each array of a structure."""
    if isinstance(X, Mapping):
        return {name: part[index] for name, part in X.items()}
    if isinstance(X, list):
        return [part[index] for part in X]
    return X[index]


def filled(X: InputArrays, more: int) -> Any:
    """Adds copies of the first row, `more` of them; a sparse matrix comes back dense."""
    if isinstance(X, Mapping):
        return {name: filled(part, more) for name, part in X.items()}
    if isinstance(X, list):
        return [filled(part, more) for part in X]
    X = X.toarray() if hasattr(X, "toarray") else X
    return np.concatenate([X, np.repeat(X[:1], more, axis=0)]) if more else X


def first_part(X: InputArrays) -> Any:
    """An array as it is, or the first of a structure."""
    return next(iter(X.values())) if isinstance(X, Mapping) else X[0] if isinstance(X, list) else X


def n_rows(X: InputArrays) -> int:
    """Number of rows of an array or structure."""
    return int(first_part(X).shape[0])


# -- y and weights --------------------------------------------------------------------------------------------------


def read_target(y: Any, X: InputArrays, *, numeric: bool, owner: str, name: str = "y") -> Any:
    """Checks a target: shape `(n,)` or `(n, columns)`, or a dict of such.

    Args:
        y: The target.
        X: The checked inputs, for the number of rows.
        numeric: Whether `y` must be numbers.
        owner: Name of the estimator's class, for messages.
        name: How messages name it. Defaults to `"y"`.

    Raises:
        DataError: `y` is missing, or has NaN, infinite or missing values, or another number of rows than `X`, or holds
            what is neither a number nor a label.
    """
    if y is None:
        raise DataError(f"{owner} requires y to be passed, but the target {name} is None.")
    if isinstance(y, Mapping) and not issparse(y):  # one of scipy's formats is a dict
        if not y:
            raise DataError(f"`{name}` is an empty dict; give a target for each output of the model.")
        return {
            key: read_target(target, X, numeric=numeric, owner=owner, name=f"y[{key!r}]") for key, target in y.items()
        }
    if passes_as_it_is(y, np.finfo("float64").max) and y.ndim == 1:
        _check_length(X, y)
        return y
    y = target_of(y, name, owner, numeric=numeric)
    with refusing():
        y = check_array(
            y, ensure_2d=False, allow_nd=True, dtype=None, input_name=name, ensure_min_samples=0, estimator=owner
        )
    if y.ndim == 2 and y.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of y to "
            "(n_samples,), for example using ravel().",
            DataConversionWarning,
            stacklevel=4,
        )
        y = column_or_1d(y)
    _check_length(X, y)
    return y


def _check_length(X: InputArrays, y: NDArray[Any]) -> None:
    with refusing():
        check_consistent_length(first_part(X), y)


def read_weights(sample_weight: ArrayLike, X: InputArrays) -> Any:
    """Checks weights, shape `(n,)`; returns them float64.

    Raises:
        ValueError: A wrong shape, a negative weight, or nothing but zeros.
    """
    weights = sample_weight if np.isscalar(sample_weight) else _array_of_weights(sample_weight)
    with refusing():
        weights = _check_sample_weight(weights, first_part(X), dtype=np.float64)
    if np.any(weights < 0):
        raise DataError(f"`sample_weight` must not be negative; the smallest is {weights.min()}.")
    if not np.any(weights > 0):
        raise DataError("Sample weights must contain at least one non-zero number; all of them are zero.")
    return of_ordinary_size(weights)


def _array_of_weights(sample_weight: ArrayLike) -> Any:
    if isinstance(sample_weight, Mapping) and not issparse(sample_weight):
        raise DataError("`sample_weight` is a dict; give one weight a row, shape (n,), which counts for all targets.")
    weights = array_of(sample_weight, "sample_weight")
    if weights.dtype.kind not in "fiub":
        raise DataError(f"`sample_weight` must hold numbers; got {weights.dtype}, beginning {weights.flat[0]!r}.")
    return weights


def of_ordinary_size(weights: NDArray[Any]) -> Any:
    """The same weights in another unit, where their sum or their products would be no numbers any more."""
    largest = weights.max()
    return weights if 1e-100 < largest < 1e100 else weights / largest


def read_classes(classes: ArrayLike) -> Any:
    """All the labels there will be, shape `(n_classes,)`.

    Raises:
        DataError: They are something else than labels.
    """
    labels = target_of(classes, "classes", "A classifier", numeric=False)
    if labels.ndim != 1:
        raise DataError(f"`classes` must be a list of labels, (n_classes,); got the shape {labels.shape}.")
    return labels


def true_target(y: Target, *, numeric: bool, owner: str) -> Any:
    """What predictions are compared with: a target as an array, or a dict of them.

    Raises:
        DataError: There is none, or it holds what is neither a number nor a label.
    """
    if y is None:
        raise DataError(f"{owner}.score requires y to be passed, but the target y is None.")
    if isinstance(y, Mapping) and not issparse(y):
        return {key: true_target(part, numeric=numeric, owner=owner) for key, part in y.items()}
    return target_of(y, "y", owner, numeric=numeric)


# -- sparse rows ----------------------------------------------------------------------------------------------------


# A sparse matrix that takes no more than this when it is dense is made dense as a whole, and so trains with others.
_FEW_BYTES = 64 * 2**20


def dense_if_small(*matrices: Any) -> tuple[Any, ...]:
    """Matrices as they are, or all of them dense where that takes no more than 64 MiB."""
    sparse = [matrix for matrix in matrices if hasattr(matrix, "toarray")]
    if sum(math.prod(matrix.shape) * matrix.dtype.itemsize for matrix in sparse) > _FEW_BYTES:
        return matrices
    return tuple(matrix.toarray() if hasattr(matrix, "toarray") else matrix for matrix in matrices)


def sparse_batches(X: spmatrix, y: object, weights: NDArray[Any] | None, batch_size: int, *, shuffle: bool) -> Any:
    """A Keras data set over the rows of a sparse matrix, which are made dense one batch at a time.

    Keras takes sparse matrices under some backends only; this is the same under all, and never holds the whole
    matrix dense.
    """
    return _sparse_batches()(X, y, weights, batch_size, shuffle)


@functools.cache
def _sparse_batches() -> Any:
    import keras

    class SparseBatches(keras.utils.PyDataset):
        def __init__(
            self, X: spmatrix, y: object, weights: NDArray[Any] | None, batch_size: int, shuffle: bool
        ) -> None:
            super().__init__()
            self._data = (X.tocsr(), y) if weights is None else (X.tocsr(), y, weights)
            self._batch_size = batch_size
            self._shuffle = shuffle
            self._order = np.arange(X.shape[0])

        def __len__(self) -> int:
            return -(-len(self._order) // self._batch_size)

        def on_epoch_begin(self) -> None:
            if self._shuffle:
                np.random.shuffle(self._order)

        def __getitem__(self, index: int) -> Any:
            chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
            X, *others = self._data
            take = lambda part: part[chosen]  # noqa: E731
            return (X[chosen].toarray(), *(keras.tree.map_structure(take, part) for part in others))

    return SparseBatches


# -- data sets ------------------------------------------------------------------------------------------------------


def in_numbered_batches(dataset: Dataset) -> bool:
    """Whether Keras can shuffle the order of a data set's batches."""
    import keras

    return isinstance(dataset, keras.utils.PyDataset) and dataset.num_batches is not None


def batches(dataset: Any) -> Iterator[tuple[Any, Any]]:
    """Goes once through a data set: `(x, y)` of each batch as it comes, `y` as numpy or None."""
    import keras

    steps = range(len(dataset)) if isinstance(dataset, keras.utils.PyDataset) else None
    for batch in (dataset[step] for step in steps) if steps is not None else dataset:
        x, y = (batch[0], batch[1]) if isinstance(batch, (tuple, list)) and len(batch) > 1 else (batch, None)
        yield x, None if y is None else keras.tree.map_structure(keras.ops.convert_to_numpy, y)


def first_batch(dataset: Dataset) -> tuple[Any, Any]:
    """`(x, y)` of the first batch.

    Raises:
        DataError: There is none, or it has no targets.
    """
    first = next(iter(batches(dataset)), None)
    if first is None or first[1] is None:
        raise DataError("The data set holds no batches of (x, y).")
    return first


def gathered(dataset: Dataset) -> tuple[Any, Any]:
    """All rows and targets of a data set in one pass, so that a shuffling one keeps them together."""
    import keras

    parts = list(batches(dataset))
    rows = keras.tree.map_structure(
        lambda *batch: np.concatenate([keras.ops.convert_to_numpy(part) for part in batch]), *[x for x, _ in parts]
    )
    return rows, np.concatenate([y for _, y in parts])


def refuse_endless(dataset: Dataset) -> None:
    """Refuses a `tf.data.Dataset` that repeats for ever, where all of it must be read.

    Raises:
        DataError: It is endless.
    """
    cardinality = getattr(dataset, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == -1:
        raise DataError(
            "The data set repeats for ever, so that its classes cannot be read from it. Name them in "
            "fit(dataset, classes=[...], steps_per_epoch=...), or remove .repeat()."
        )
