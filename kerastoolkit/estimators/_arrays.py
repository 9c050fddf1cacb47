"""Arrays of whatever was given: tensors, lists, sparse matrices, and columns of pandas' own types.

A number becomes the number of numpy that it is, and what no network learns from is refused in our words. What
scikit-learn's checks refuse keeps their words, which its users know, and says what to do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse

from kerastoolkit._types import Rows
from kerastoolkit._values import shown
from kerastoolkit.builders.targets import ONE_COLUMN_PER_LABEL
from kerastoolkit.exceptions import DataError, KerasToolkitError

_MISSING = "Input {name} contains missing values (None or NaN). Drop those rows or fill them in."

# What scikit-learn says, and what there is to do.
_ADVICE = {
    r"0 sample\(s\)": "Look at how the rows were chosen: did none pass a filter?",
    r"0 feature\(s\)": "Look at how the columns were chosen.",
    r"Complex data": "Give the parts as columns of their own, for example np.hstack([X.real, X.imag]).",
    r"argument must be": "Turn such values into numbers first, or drop their column.",
}


class _DataTypeError(DataError, TypeError):
    """Data of a type that scikit-learn refuses by a TypeError."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """A block of scikit-learn's checks: what they refuse is a `DataError`, and says what to do."""
    try:
        yield
    except KerasToolkitError:
        raise
    except (ValueError, TypeError) as error:
        said = str(error).strip()
        found = next(((text, what) for text, what in _ADVICE.items() if re.search(text, said)), None)
        if found is not None:
            # The first line is enough: the others are the array.
            said = f"{said.splitlines()[0].rstrip('.')}. {found[1]}"
        raise (_DataTypeError if isinstance(error, TypeError) else DataError)(said) from error


def array_of(values: Any, name: str) -> Any:
    """Values as an array of numpy.

    Args:
        values: A list, an array, a tensor, a sparse matrix, which is made dense, or columns of pandas or polars.
        name: How a message names them.

    Raises:
        DataError: Rows are of different lengths, values are missing, or too large for a float64.
    """
    if issparse(values):
        return np.asarray(values.toarray())
    values = without_tensor(values)
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(_MISSING.format(name=name))
    if isinstance(getattr(values, "dtype", None), pd.api.extensions.ExtensionDtype):
        values = _of_pandas(values, name)
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(_ragged(values, name)) from None
    if array.dtype.kind == "T":  # numpy's text of any length
        array = array.astype(object)
    return in_double_precision(_inferred(array) if array.dtype == object else array, name)


def without_tensor(values: object) -> Any:
    """A tensor of torch or TensorFlow as an array, and all else as it is."""
    module = type(values).__module__.partition(".")[0]
    if module == "torch" and hasattr(values, "detach"):
        return values.detach().cpu().numpy()
    return values.numpy() if module == "tensorflow" and hasattr(values, "numpy") else values


def _of_pandas(values: pd.Series[Any], name: str) -> Any:
    """A column of one of pandas' own types in that of numpy: `Int64` is not float64 because it might have gaps."""
    if values.isna().any():
        raise DataError(_MISSING.format(name=name))
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return array_of(values.astype(dtype.categories.dtype), name)
    plain = getattr(dtype, "numpy_dtype", None)
    return values if plain is None or plain.kind not in "biufmM" else values.to_numpy(dtype=plain)


def _inferred(array: NDArray[Any]) -> Any:
    """Objects that are all numbers or truth values as such; what is anything else as it is."""
    wanted = {
        "integer": "int64",
        "boolean": "bool",
        "floating": "float64",
        "mixed-integer-float": "float64",
    }.get(pd.api.types.infer_dtype(array.ravel(), skipna=False))
    with contextlib.suppress(OverflowError):  # an integer beyond 64 bits
        return array if wanted is None else array.astype(wanted)
    return array


def in_double_precision(array: Any, name: str) -> Any:
    """Numbers of more than 64 bits as float64, which Keras and scikit-learn know; sparse ones too.

    Raises:
        DataError: One is too large.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize <= 8:
        return array
    with np.errstate(over="ignore"):
        made = array.astype("float64")
    values, before = (made.data, array.data) if issparse(made) else (made, array)
    too_large = np.isinf(values) & np.isfinite(before)
    if too_large.any():
        raise DataError(f"{name} holds {before[too_large][0]!s}, too large for a float64. Give it in another unit.")
    return made


def _ragged(values: Any, name: str) -> str:
    lengths = [len(row) if hasattr(row, "__len__") and not isinstance(row, (str, bytes)) else None for row in values]
    other = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
    if other is None:
        return f"{name} holds sequences of different lengths inside its rows. Give all of them one length."
    found = [f"{length} values" if length is not None else "no sequence" for length in (lengths[0], lengths[other])]
    return (
        f"The rows of {name} differ in length: row 0 is {found[0]}, row {other} is {found[1]}. "
        f"{_SEVERAL_LABELS if name.startswith('y') else 'Give all rows one length: cut them, or fill them up.'}"
    )


_SEVERAL_LABELS = f"Are these several labels a row? {ONE_COLUMN_PER_LABEL}"

# -- X --------------------------------------------------------------------------------------------------------------


def is_text(array: NDArray[Any]) -> bool:
    """Whether an array holds text, and nothing else."""
    if array.dtype.kind in "UST":
        return True
    return array.dtype == object and array.size > 0 and all(isinstance(one, (str, bytes)) for one in array.flat)


def refuse_no_rows(X: Any, owner: str) -> None:
    """Refuses what is no rows at all.

    Raises:
        DataError: It is None, a single text or the name of a file.
    """
    if X is None:
        raise DataError(f"X is None; {owner} takes rows of shape (n, features).")
    if isinstance(X, (str, bytes)) or hasattr(X, "__fspath__"):
        raise DataError(f"X is {shown(X)}, not rows. If that is a file, read it first: X = pandas.read_csv(...).")
    if _runs_out(X):
        raise DataError(f"X is a {type(X).__name__}, and not rows; give a list of them: list(X).")
    if isinstance(X, (list, tuple)) and not X:
        raise DataError("X has no rows; at least 1 is needed.")
    if 0 in getattr(X, "shape", ()) and len(X.shape) == 2:
        what, place = ("sample(s)", "rows") if X.shape[0] == 0 else ("feature(s)", "columns")
        raise DataError(
            f"Found array with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required by {owner}. Look at "
            f"how the {place} were chosen."
        )


def _runs_out(values: object) -> bool:
    """Whether values are gone once they are looked at, or come in no order."""
    return isinstance(values, (set, frozenset)) or hasattr(values, "__next__")


def rows_of(X: Rows, owner: str, *, text: bool) -> Any:
    """Rows as scikit-learn's checks take them; what they would not name is refused here.

    Args:
        X: Anything that is no table and no sparse matrix.
        owner: Name of the estimator's class, for messages.
        text: Whether text is taken, shape `(n,)` or `(n, ...)`.

    Returns:
        An array; of text, of objects with two axes or more.

    Raises:
        DataError: It is ragged or has no rows, or holds text, dates or records.
    """
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise DataError("X has masked values. Fill them in, X.filled(0.0) for example, or drop their rows.")
    array = array_of(X, "X") if isinstance(X, (list, tuple)) else without_tensor(X)
    kind = getattr(getattr(array, "dtype", None), "kind", None)
    if not isinstance(array, np.ndarray) or kind is None:
        return array
    if is_text(array) and text:
        array = array.astype(object)
        return array[:, None] if array.ndim == 1 else array
    if kind in "UST" or (kind == "O" and any(isinstance(one, (str, bytes)) for one in array.flat)):
        first = next(one for one in array.flat if isinstance(one, (str, bytes)))
        raise DataError(
            f"X holds text, such as {shown(first.item() if isinstance(first, np.generic) else first)}, but {owner} "
            "takes numbers. Texts are for TextClassifier. Of categories, OneHotEncoder() makes numbers, or give the "
            f"table as a pandas.DataFrame to {owner}('tabular')."
        )
    if kind in "Mm":
        raise DataError(f"X holds {_DATES[kind].format(name='X', dtype=array.dtype)}")
    if kind == "V":
        raise DataError("X is an array of records. Give a table, pandas.DataFrame(X), or one array of numbers.")
    if array.ndim == 1 and not array.size:
        raise DataError("X has no rows; at least 1 is needed.")
    if array.ndim > 2 and 0 in array.shape[1:]:
        raise DataError(f"X has the shape {array.shape}, whose rows hold no numbers at all.")
    return in_double_precision(array, "X")


_DATES = {
    "M": "dates ({dtype}). Turn them into numbers, such as days: ({name} - {name}.min()) / np.timedelta64(1, 'D').",
    "m": "durations ({dtype}). Turn them into numbers, such as days: {name} / np.timedelta64(1, 'D').",
}

# -- y --------------------------------------------------------------------------------------------------------------


def target_of(y: Any, name: str, owner: str, *, numeric: bool) -> Any:
    """A target as an array of what an estimator can learn: numbers, or labels.

    Args:
        y: The target.
        name: How a message names it.
        owner: Name of the estimator's class, for messages.
        numeric: Whether it must be numbers.

    Raises:
        DataError: It is no array, has missing values, or holds what is neither; the message says what came.
    """
    if _runs_out(y):
        raise DataError(f"`{name}` is a {type(y).__name__}, without a value for each row; give a list: list({name}).")
    y = array_of(y, name)
    if y.ndim == 0:
        raise DataError(f"{name} should be a 1d array of one value a row, got the single value {shown(y.tolist())}.")
    if 0 in y.shape[1:]:
        raise DataError(f"`{name}` has the shape {y.shape}, without a single column.")
    if y.dtype == object and pd.isna(y.ravel()).any():
        raise DataError(_MISSING.format(name=name))
    if y.dtype.kind == "c":
        raise DataError(f"Complex data not supported: `{name}` has the dtype {y.dtype}. Give the parts as two columns.")
    return _numbers(y, name, owner) if numeric else _labels(y, name, owner)


def _numbers(y: NDArray[Any], name: str, owner: str) -> Any:
    if y.dtype.kind in "fiub":
        return y
    if y.dtype.kind in "Mm":
        raise DataError(f"`{name}` holds {_DATES[y.dtype.kind].format(name='y', dtype=y.dtype)}")
    try:
        if y.dtype == object:
            return y.astype("float64")  # decimals, say
    except (TypeError, ValueError):
        pass
    if not y.size:
        return y  # which has another length than X
    first = next((one for one in y.ravel().tolist() if isinstance(one, (str, bytes))), y.ravel()[:1].tolist()[0])
    what = "text" if isinstance(first, (str, bytes)) else f"a {type(first).__name__}"
    hint = " For labels use KerasClassifier." if what == "text" else ""
    raise DataError(f"`{name}` holds {what}, such as {shown(first)}, but {owner} predicts numbers.{hint}")


def _labels(y: NDArray[Any], name: str, owner: str) -> Any:
    flat = y.ravel()
    if y.dtype.kind == "S" or (y.dtype == object and any(isinstance(one, bytes) for one in flat)):
        first = next(one for one in flat.tolist() if isinstance(one, bytes))
        raise DataError(f"`{name}` holds bytes, such as {first!r}. Make text of them: [label.decode() for label in y].")
    if y.dtype.kind == "V":
        raise DataError(f"`{name}` is an array of records; give one label a row, or a dict of targets by name.")
    if y.ndim > 2:
        raise DataError(f"`{name}` has the shape {y.shape}, but labels come as (n,), or in columns, (n, columns).")
    if y.dtype != object or not y.size:
        return y
    several = next((one for one in flat if isinstance(one, (list, tuple, set, frozenset, dict, np.ndarray))), None)
    if several is not None:
        what = type(several).__name__
        raise DataError(f"`{name}` holds a {what}, {shown(several)}, where a label should be. {_SEVERAL_LABELS}")
    columns = [y] if y.ndim == 1 else list(y.reshape(-1, y.shape[-1]).T)
    for column in columns:
        of_text = [isinstance(one, str) for one in column]
        if not any(of_text) and y.ndim == 1:
            raise DataError(
                f"Unknown label type: `{name}` holds the {type(column[0]).__name__} {shown(column[0])}, but a "
                "classifier needs labels: integers, text or booleans. Make text of them: [str(label) for label in y]."
            )
        if any(of_text) and not all(of_text):
            pair = column[of_text.index(True)], column[of_text.index(False)]
            raise DataError(
                f"`{name}` mixes text and other values, such as {pair[0]!r} and {shown(pair[1])}. Make all labels "
                "text, y.astype(str), or give those that mean the same one spelling."
            )
    if len({isinstance(column[0], str) for column in columns}) > 1:
        raise DataError(f"The columns of `{name}` are of different types. Give a dict of targets: {{name: column}}.")
    return y
