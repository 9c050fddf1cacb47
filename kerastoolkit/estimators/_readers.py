"""Readers of arrays: rows that go into the network as they are, and rows that an encoder changes on the way.

`ArrayReader` learns nothing from the values: it remembers what rows looked like in `fit`, and compares. scikit-learn's
own checks do that, so that feature names, messages and refusals are those its users know; they speak of an estimator,
so each method takes the one that reads, `owner`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

from kerastoolkit import _files
from kerastoolkit._types import InputArrays, Rows
from kerastoolkit.data.columns import TableEncoder
from kerastoolkit.data.readers import Reader, RowShape, checked_config, register_reader
from kerastoolkit.estimators import _advice, _inputs
from kerastoolkit.estimators._arrays import (
    in_double_precision,
    is_text,
    refuse_no_rows,
    refusing,
    rows_of,
    without_tensor,
)
from kerastoolkit.estimators._encoders import not_for_a_file
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, SavedFileError


class Data:
    """Checked inputs, targets and weights of one fit; `y` is None for a data set, of which there is one batch."""

    def __init__(
        self, X: Any, y: Any, weights: NDArray[Any] | None, sample: object = None, sample_target: Any = None
    ) -> None:
        self.X, self.y, self.weights, self.sample, self.sample_target = X, y, weights, sample, sample_target
        self.belonging: dict[str, np.ndarray] = {}  # `groups` or `time` of the rows

    @property
    def rows(self) -> Any:
        """The rows, of a data set those of one batch."""
        return self.sample if self.y is None else self.X

    def form(self) -> Data:
        """The same with a single row of X: what a model is built for."""
        return Data(self.X if self.y is None else _inputs.rows(self.X, slice(0, 1)), self.y, None, self.sample)


# -- arrays ---------------------------------------------------------------------------------------------------------


@register_reader("array")
@dataclasses.dataclass(frozen=True, eq=False)
class ArrayReader(Reader):
    """Reads arrays, tables of numbers and sparse matrices, or a dict or list of arrays for several inputs, as they are.

    Args:
        shape: Shape of a row: a tuple, or a dict or list of tuples, one for each input.
        n_features: Features of a row. Defaults to `None`: several inputs, which have no number of features.
        feature_names: Names of the columns, shape `(n_features,)`. Defaults to `None`: they had none.
        of_text: Whether the rows are text. Defaults to `False`.
        value_range: The least and the largest number of the images that were learned from. Defaults to `None`: they
            were no images.
    """

    shape: RowShape
    n_features: int | None = None
    feature_names: np.ndarray | None = None
    of_text: bool = False
    value_range: tuple[float, float] | None = None

    @classmethod
    def learn(cls, X: Rows, **options: Any) -> ArrayReader:
        """Learns what rows look like; see `learn_and_encode`."""
        return cls.learn_and_encode(X, **options)[0]

    @classmethod
    def learn_and_encode(  # type: ignore[override]
        cls, X: Any, *, n_rows: int | None = None, text: bool = False, owner: BaseEstimator | None = None
    ) -> tuple[ArrayReader, Any]:
        """Checks rows, and learns what they look like.

        Args:
            X: The rows.
            n_rows: Rows of the target, which tells a list of rows from a list of inputs. Defaults to `None`: unknown.
            text: Whether the model may take text. Defaults to `False`.
            owner: The estimator that reads, for messages. Defaults to `None`.

        Returns:
            The reader, and the rows as arrays.

        Raises:
            DataError: There are no rows, or the table has columns that are not numbers, or numbers too large for a
                network, or scikit-learn refuses them: NaN, complex numbers, ...
        """
        if _inputs.kind_of(X, n_rows) != "array":
            arrays = _inputs.read_structure(X)
            return cls(_inputs.shapes_of(arrays)), arrays
        owner = _stand_in("ArrayReader") if owner is None else owner
        checked = _stand_in(type(owner).__name__)
        if _is_plain(X):
            checked.n_features_in_ = X.shape[1]  # an array has no names, which scikit-learn takes long to find out
        else:
            X = _checked_rows(X, owner, checked, reset=True, text=text)
        names = getattr(checked, "feature_names_in_", None)
        values = _advice.range_of_images(X)
        reader = cls(_inputs.shapes_of(X), checked.n_features_in_, names, _inputs.is_of_objects(X), values)
        return reader, X

    @classmethod
    def of_batch(cls, batch: object) -> ArrayReader:
        """The reader of a data set, which brings its own batches, from the inputs of one."""
        import keras

        shape = keras.tree.map_structure(lambda part: tuple(part.shape[1:]), batch)
        is_of_columns = isinstance(shape, tuple) and len(shape) == 1 and not isinstance(shape[0], tuple)
        return cls(shape, int(shape[0]) if is_of_columns else None)

    def encode(
        self, X: Any, *, n_rows: int | None = None, text: bool = False, owner: BaseEstimator | None = None
    ) -> Any:
        """Checks that rows are like those in `fit`.

        Args:
            X: The rows.
            n_rows: As for `learn_and_encode`. Defaults to `None`.
            text: Whether the model takes text. Defaults to `False`.
            owner: The estimator that reads, for messages. Defaults to `None`.

        Returns:
            The rows as arrays.

        Raises:
            DataError: As for `learn_and_encode`; or rows have another shape or other names than in `fit`.

        Warns:
            KerasToolkitWarning: Images have another range of numbers than in `fit`.
        """
        if _inputs.kind_of(X, n_rows) != "array":
            return _inputs.read_structure(X, self.shape)
        owner = _stand_in("ArrayReader") if owner is None else owner
        if isinstance(self.shape, (dict, list)):
            raise DataError(
                f"X is one array, but {type(owner).__name__} was fitted with inputs of the shapes {self.shape}."
            )
        if not _is_plain(X):
            X = _checked_rows(X, owner, self._stand_in(owner), reset=False, text=text or self.of_text)
        elif self.feature_names is not None or self.n_features != X.shape[1]:
            check_features(self, X, owner)
        if X.shape[1:] != self.shape:
            raise DataError(
                f"X has rows of the shape {X.shape[1:]}, but {type(owner).__name__} was fitted with rows of the shape "
                f"{self.shape}."
            )
        told = None if self.value_range is None else _advice.on_another_range(self.value_range, X)
        if told is not None:
            warnings.warn(told, KerasToolkitWarning, stacklevel=6)
        return X

    def _stand_in(self, owner: BaseEstimator) -> BaseEstimator:
        return _stand_in(type(owner).__name__, self.n_features, self.feature_names)

    @property
    def row_shape(self) -> RowShape:
        """Shape of a row, as it was in `fit`."""
        return self.shape

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this reader again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ArrayReader:
        """Makes a reader from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        made = cls(**checked_config(config, _OF_ARRAYS, "What a file says of the rows"))
        number, names = made.n_features, made.feature_names
        agree = names is None or number == len(names)
        if number is not None and isinstance(made.shape, tuple):
            agree = agree and made.shape[:1] == (number,)
        if not agree:
            raise SavedFileError(
                f"What a file says of the rows disagrees: a shape of {made.shape} and {number} features, of the names "
                f"{names}."
            )
        return made


def is_shape(value: object) -> bool:
    """Whether a value is a shape without its first axis, or a list or dict of such."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_shape(one) for name, one in value.items())
    if isinstance(value, list) or (isinstance(value, tuple) and any(isinstance(one, tuple) for one in value)):
        return all(map(is_shape, value))
    return isinstance(value, tuple) and all(one is None or _files.is_count(one) for one in value)


def _is_range(value: object) -> bool:
    """Whether a value is the least and the largest number of the images that were learned from."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(one, float) for one in value):
        return False
    return bool(0 <= value[0] <= value[1] < math.inf)


def _is_names(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and all(map(_files.is_text, value.tolist()))


_OF_ARRAYS = {
    "shape": is_shape,
    "n_features": _files.optional(_files.is_count),
    "feature_names": _files.optional(_is_names),
    "of_text": _files.is_flag,
    "value_range": _files.optional(_is_range),
}


def _is_plain(X: Any) -> bool:
    """Whether scikit-learn's checks would have nothing to say of an array."""
    return _inputs.passes_as_it_is(X, _inputs.largest_number()) and X.ndim >= 2 and X.size > 0


def _checked_rows(X: Any, owner: BaseEstimator, checked: BaseEstimator, *, reset: bool, text: bool) -> Any:
    """Rows that need a closer look: tables, lists, sparse matrices, and numbers of other types than a network's.

    Args:
        X: The rows.
        owner: The estimator that reads.
        checked: What stands for it in scikit-learn's checks, and gets or has the number and names of the features.
        reset: Whether this is `fit`.
        text: Whether the model may take text.
    """
    name = type(owner).__name__
    refuse_no_rows(X, name)
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        # Looked at value by value only where no column is of numbers.
        of_text = text and len(_inputs.columns_that_are_not_numbers(X)) == X.shape[1] > 0
        of_text = of_text and is_text(np.asarray(X, object))
    else:
        X = X if issparse(X) else rows_of(X, name, text=text)
        of_text = text and isinstance(X, np.ndarray) and is_text(X)
    if not of_text and (columns := _inputs.columns_that_are_not_numbers(X)):
        raise DataError(_advice.on_words_and_dates(X, columns, owner))
    with refusing(), _missing_values_explained(X, owner):
        X = validate_data(
            checked, X, reset=reset, accept_sparse=("csr",), allow_nd=True, dtype=object if of_text else "numeric",
            ensure_min_samples=1,
        )  # fmt: skip
    _inputs.refuse_too_large(X, "X", getattr(checked, "feature_names_in_", None))
    return in_double_precision(X, "X")


@contextlib.contextmanager
def _missing_values_explained(X: Rows, owner: BaseEstimator) -> Iterator[None]:
    """A block of scikit-learn's checks: of missing values it would advise to take another model."""
    try:
        yield
    except ValueError as error:
        if "Input X contains NaN" not in str(error):
            raise
        raise DataError(_advice.on_missing_values(X, owner)) from None


# -- columns --------------------------------------------------------------------------------------------------------


def check_features(reader: Reader, X: Rows, owner: BaseEstimator) -> None:
    """Compares number and names of the columns with those in `fit`, in scikit-learn's words.

    Raises:
        DataError: They are others.
    """
    with refusing():
        validate_data(
            _stand_in(type(owner).__name__, reader.n_features, reader.feature_names), X, reset=False,
            skip_check_array=True,
        )  # fmt: skip


@functools.cache
def _class_named(name: str) -> type[BaseEstimator]:
    return type(name, (BaseEstimator,), {})


def _stand_in(name: str, n_features: int | None = None, feature_names: np.ndarray | None = None) -> Any:
    """What scikit-learn's checks take for an estimator: they name its class, and read or set what it knows of columns.

    The estimator itself keeps all that it learned in one record, to which these checks could not write.
    """
    made = _class_named(name)()
    if n_features is not None:
        made.n_features_in_ = n_features
    if feature_names is not None:
        made.feature_names_in_ = feature_names
    return made


def read_table(X: Rows, owner: BaseEstimator) -> Any:
    """A table for `TableEncoder`, or what stands for one.

    Raises:
        DataError: It has no rows, or is no table.
    """
    refuse_no_rows(X, type(owner).__name__)
    if _inputs.kind_of(X) != "array":
        raise DataError(f"X must be a table (pandas, polars) or an array of rows and columns; got {type(X).__name__}.")
    return without_tensor(X)


def learn_table(X: Rows, owner: BaseEstimator, **options: Any) -> tuple[TableEncoder, Any]:
    """Learns the columns of a table, for an estimator; see `kerastoolkit.data.learn_table`."""
    X = read_table(X, owner)
    with refusing():
        validate_data(_stand_in(type(owner).__name__), X, skip_check_array=True)  # names and number of the columns
    return TableEncoder.learn_and_encode(X, **options)


def encode_table(reader: TableEncoder, X: Rows, owner: BaseEstimator) -> Any:
    """Reads a table, for an estimator, by its columns."""
    X = read_table(X, owner)
    check_features(reader, X, owner)
    return reader.encode(X)


# -- encoders -------------------------------------------------------------------------------------------------------


class EncodedReader(Reader):
    """Reads rows by another reader, and changes them by a transformer: scikeras' `feature_encoder`.

    Args:
        reader: Reads what users give.
        encoder: A fitted transformer of scikit-learn's kind.
    """

    def __init__(self, reader: Reader, encoder: Any) -> None:
        self.reader, self.encoder = reader, encoder
        self.n_features, self.feature_names = reader.n_features, reader.feature_names

    @classmethod
    def learn(cls, X: Rows, *, reader: Reader, encoder: TransformerMixin) -> EncodedReader:  # type: ignore[override]
        """Fits the transformer to what a reader that was learned makes of rows."""
        return cls(reader, encoder.fit(reader.encode(X)))

    def encode(self, X: Any) -> Any:
        """What the transformer makes of the rows."""
        return self.transform(self.reader.encode(X))

    def transform(self, arrays: InputArrays) -> Any:
        """What the transformer makes of rows that the other reader has read."""
        return self.encoder.transform(arrays)

    @property
    def row_shape(self) -> RowShape:
        """Shape of a row before it is changed."""
        return self.reader.row_shape

    def offered(self) -> Mapping[str, Any]:
        """What the other reader offers."""
        return self.reader.offered()

    def get_config(self) -> dict[str, Any]:
        """Refuses: an encoder is Python code of the user's, without which the model predicts something else.

        Raises:
            SavedFileError: Always.
        """
        raise not_for_a_file("feature_encoder", self.encoder)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncodedReader:
        """Refuses, as `get_config` does.

        Raises:
            SavedFileError: Always.
        """
        raise SavedFileError("A file names an encoder of somebody's own, which no file holds.")


register_reader("encoded")(EncodedReader)


def first_of(reader: Reader) -> Reader:
    """The reader of what users give: the one before an encoder, if there is one."""
    return reader.reader if isinstance(reader, EncodedReader) else reader
