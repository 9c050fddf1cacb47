"""A mixed table as the inputs of a network: one array a column, numbers as numbers, categories as places in a list.

What is learned (`learn_table`) comes from the training rows alone: means, deviations, categories. `TableEncoder.encode`
then reads any rows by it. Nothing is guessed from values: a column of numbers is a number unless it is named as a
category, a column of text is a category, and anything else is refused by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kerastoolkit import _files
from kerastoolkit._types import Rows
from kerastoolkit._values import shown, whole_number_wanted
from kerastoolkit._words import did_you_mean
from kerastoolkit.data.readers import Reader, register_reader
from kerastoolkit.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CategoryColumn", "NumberColumn", "TableEncoder", "learn_table"]

MISSING, UNSEEN, FIRST = 0, 1, 2  # places of a category: none given, none of those learned, the first of those


@dataclasses.dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes:
        name: As in the table.
        mean: Of the training rows that have a number.
        deviation: Their standard deviation; 1 where all are equal.
        missing: Whether some training rows have none. The network is then told which, and gets the mean instead.
    """

    name: Any
    mean: float
    deviation: float
    missing: bool

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this column again, as plain Python values."""
        return {"kind": "number", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class CategoryColumn:
    """A column of categories.

    Attributes:
        name: As in the table.
        categories: Those learned, sorted.
    """

    name: Any
    categories: tuple[Any, ...]

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this column again, as plain Python values."""
        return {"kind": "category", **dataclasses.asdict(self)}

    @property
    def n_places(self) -> int:
        """Numbers that `encode` makes of it: 0 for missing, 1 for unseen, then one a category."""
        return len(self.categories) + FIRST


@register_reader("table")
class TableEncoder(Reader, Mapping[str, "NumberColumn | CategoryColumn"]):
    """Reads a table: its columns by the names of a network's inputs, which are theirs in letters that Keras takes.

    Args:
        columns: The columns in the order of the table.
    """

    shown_as = "columns_"
    offers = ("columns",)

    def __init__(self, columns: Sequence[NumberColumn | CategoryColumn]) -> None:
        self._columns: dict[str, NumberColumn | CategoryColumn] = {}
        flags: set[str] = set()
        for place, column in enumerate(columns):
            key = re.sub(r"[^0-9A-Za-z]+", "_", str(column.name)).strip("_") or f"column_{place}"
            while key in self._columns or key in flags or f"{key}_missing" in self._columns:
                key += "_"
            self._columns[key] = column
            if isinstance(column, NumberColumn) and column.missing:
                flags.add(f"{key}_missing")

    def __getitem__(self, key: str) -> NumberColumn | CategoryColumn:
        return self._columns[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"TableEncoder({list(self._columns.values())!r})"

    @classmethod
    def learn(cls, X: Rows, **options: Any) -> TableEncoder:
        """Learns what each column of a table is; see `learn_table`."""
        return learn_table(X, **options)

    @property
    def n_features(self) -> int:  # type: ignore[override]
        """Columns of the table."""
        return len(self)

    @property
    def feature_names(self) -> np.ndarray | None:  # type: ignore[override]
        """Names of the columns, shape `(n_features,)`; None where they are called by their numbers."""
        names = [column.name for column in self.values()]
        return np.array(names, dtype=object) if all(isinstance(name, str) for name in names) else None

    @property
    def row_shape(self) -> dict[str, tuple[int, ...]]:
        """One number for each column, and for each flag of a missing one."""
        shapes: dict[str, tuple[int, ...]] = {}
        for key, column in self.items():
            shapes[key] = (1,)
            if isinstance(column, NumberColumn) and column.missing:
                shapes[f"{key}_missing"] = (1,)
        return shapes

    def offered(self) -> dict[str, TableEncoder]:
        """Itself, as `columns`."""
        return {"columns": self}

    def encode(self, X: Rows) -> dict[str, np.ndarray]:
        """Reads rows as they were learned.

        Args:
            X: A table with these columns, or an array with as many, `n` rows.

        Returns:
            An array of shape `(n, 1)` for each column: float32 numbers, with the mean where there is none, or int32
            places of categories. For a column whose numbers may be missing also `<name>_missing`, of 0.0 and 1.0.

        Raises:
            DataError: A column is not there, or holds what cannot be read as a number.
        """
        table = _series_of(X)
        missing = [column.name for column in self._columns.values() if column.name not in table]
        if missing:
            raise DataError(f"X has no column {missing[0]!r}, which was there in `fit`. It has: {list(table)}.")
        arrays: dict[str, np.ndarray] = {}
        for key, column in self._columns.items():
            if isinstance(column, CategoryColumn):
                arrays[key] = _places(table[column.name], column.categories)[:, None]
                continue
            numbers = _numbers(table[column.name], column.name)
            empty = np.isnan(numbers)
            arrays[key] = np.where(empty, column.mean, numbers).astype("float32")[:, None]
            if column.missing:
                arrays[f"{key}_missing"] = empty.astype("float32")[:, None]
        return arrays

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make these columns again, as plain Python values."""
        return {"columns": [column.get_config() for column in self.values()]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TableEncoder:
        """Makes columns from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        given = _files.checked_fields(config, {"columns": _files.list_of(lambda value: True)}, "Saved columns")
        made: list[NumberColumn | CategoryColumn] = []
        for column in given["columns"]:
            of_numbers = isinstance(column, Mapping) and column.get("kind") == "number"
            fields = _files.checked_fields(column, _NUMBER if of_numbers else _CATEGORY, "A saved column")
            del fields["kind"]
            if not of_numbers:
                fields["categories"] = tuple(fields["categories"])
            made.append(NumberColumn(**fields) if of_numbers else CategoryColumn(**fields))
        return cls(made)


def _is_label(value: object) -> bool:
    """Whether a value is one that pandas calls a column, or a category, by."""
    return isinstance(value, (str, int, float)) or (isinstance(value, tuple) and all(map(_is_label, value)))


_NUMBER: dict[str, Callable[[Any], object]] = {
    "kind": _files.one_of("number"),
    "name": _is_label,
    "mean": _files.is_number,
    "deviation": _files.is_number,
    "missing": _files.is_flag,
}
_CATEGORY: dict[str, Callable[[Any], object]] = {
    "kind": _files.one_of("category"),
    "name": _is_label,
    "categories": _files.list_of(_is_label),
}


def learn_table(
    X: Rows, *, categorical: Sequence[Any] = (), min_count: int = 2, max_categories: int = 10_000
) -> TableEncoder:
    """Learns what each column of a table is.

    Example:

    >>> import pandas as pd
    >>> columns = learn_table(pd.DataFrame({"age": [3.0, 5.0], "town": ["Ulm", "Ulm"]}))
    >>> columns["town"].categories
    ('Ulm',)
    >>> columns.encode(pd.DataFrame({"age": [4.0], "town": ["Bonn"]}))["town"]
    array([[1]], dtype=int32)

    Args:
        X: The training rows: a pandas or polars table, or an array of shape `(n, columns)`, whose columns are called
            by their numbers. Numbers and truth values are numbers; text and pandas' categories are categories.
        categorical: Names of columns of numbers that are categories (a postcode, the number of a shop). Defaults to
            `()`.
        min_count: Rows that a category needs to have a place of its own. Rarer ones share the place of categories
            that were never seen, which so learns what to say of those. Defaults to `2`.
        max_categories: Categories that a column may have. Defaults to `10_000`.

    Returns:
        The columns.

    Raises:
        DataError: A column is neither number nor category, has nothing in it, has too many categories, or a category
            for nearly every row; the message names it and says what to do.
        ParameterError: `categorical` names a column that is not there, or a number is no whole one.
    """
    table = _series_of(X)
    for option, value in (("min_count", min_count), ("max_categories", max_categories)):
        problem = whole_number_wanted(option, value)
        if problem is not None:
            raise ParameterError(problem)
    if isinstance(categorical, str):
        raise ParameterError(f"`categorical` is the text {categorical!r}; give a list of columns: [{categorical!r}].")
    for name in categorical:
        if name not in table:
            meant = did_you_mean(name, table)
            raise ParameterError(f"`categorical` names {name!r}, which is no column of X.{meant}")
    columns: list[NumberColumn | CategoryColumn] = []
    for name, series in table.items():
        if name in categorical or not _holds_numbers(series):
            columns.append(_category_column(name, series, min_count, max_categories))
        else:
            columns.append(_number_column(name, series))
    return TableEncoder(columns)


def _series_of(X: Any) -> dict[Any, pd.Series[Any]]:
    """The columns of a table by name, those of an array by number."""
    if isinstance(X, (list, tuple)):
        X = _table_of_rows(X)
    table: dict[Any, pd.Series[Any]]
    if isinstance(X, pd.DataFrame):
        twice = X.columns[X.columns.duplicated()]
        if len(twice):
            raise DataError(f"X has two columns called {twice[0]!r}. Rename one of them, or drop it.")
        table = {name: X.iloc[:, place] for place, name in enumerate(X.columns)}
    elif hasattr(X, "get_columns"):  # polars
        table = {one.name: pd.Series(one.to_list(), dtype=_dtype_of(one)) for one in X.get_columns()}
    else:
        values = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
            values = np.ma.filled(X.astype(object), None)
        if values.ndim != 2:
            column = " Make a table of one column: X.to_frame()." if isinstance(X, pd.Series) else ""
            raise DataError(f"X must be a table of rows and columns; got an array of shape {values.shape}.{column}")
        table = {place: pd.Series(values[:, place]) for place in range(values.shape[1])}
    if not table:
        raise DataError("X has no columns. Look at how they were chosen.")
    if not len(next(iter(table.values()))):
        raise DataError("X has no rows. Look at how they were chosen: did none pass a filter?")
    return table


def _table_of_rows(rows: Sequence[Any]) -> pd.DataFrame:
    """A list of rows, each a list of values of any kinds, whose columns are called by their numbers."""
    are_rows = [isinstance(row, (Sequence, np.ndarray)) and not isinstance(row, str) for row in rows]
    lengths = [len(row) if is_row else None for row, is_row in zip(rows, are_rows, strict=True)]
    if all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(list(rows))
    odd = next((place for place, length in enumerate(lengths) if length is None or length != lengths[0]), None)
    if odd is not None:
        raise DataError(
            f"X must be a table, or a list of rows of one length; row 0 is {shown(rows[0])}, row {odd} is "
            f"{shown(rows[odd])}."
        )
    return pd.DataFrame([list(row) for row in rows])


def _dtype_of(series: pl.Series) -> Any:
    return "float64" if series.dtype.is_numeric() or str(series.dtype) == "Boolean" else object


def _holds_numbers(series: pd.Series[Any]) -> bool:
    if series.dtype == object:
        return pd.api.types.infer_dtype(series, skipna=True) in _NUMBERS
    return bool(pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype))


_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")


def _numbers(series: pd.Series[Any], name: Hashable) -> np.ndarray:
    if pd.api.types.is_complex_dtype(series.dtype):
        raise DataError(f"Column {name!r} holds complex numbers. Make two columns of it, real and imaginary parts.")
    if series.dtype == np.longdouble:  # which pandas hardly knows
        series = series.astype("float64")
    try:
        numbers = pd.to_numeric(series).to_numpy(dtype="float64", na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise DataError(f"Column {name!r} held numbers in `fit`, but not here: {error}.") from None
    if np.isinf(numbers).any():
        raise DataError(f"Column {name!r} holds an infinite number, in row {int(np.argmax(np.isinf(numbers)))}.")
    too_large = np.abs(numbers) > np.finfo("float32").max
    if too_large.any():
        row = int(np.argmax(too_large))
        raise DataError(
            f"Column {name!r} holds {numbers[row]:.4g}, in row {row}, but a network computes in float32, which ends at "
            "3.4e38. Give the column in another unit."
        )
    return np.asarray(numbers)


def _number_column(name: Hashable, series: pd.Series[Any]) -> NumberColumn:
    numbers = _numbers(series, name)
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        raise DataError(f"Column {name!r} has no value in any of the {len(numbers)} rows. Drop it.")
    deviation = float(known.std())
    return NumberColumn(name, float(known.mean()), deviation if deviation > 0 else 1.0, len(known) < len(numbers))


def _category_column(name: Hashable, series: pd.Series[Any], min_count: int, max_categories: int) -> CategoryColumn:
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    known = [value.item() if isinstance(value, np.generic) else value for value in series[series.notna()]]
    if not known:
        raise DataError(f"Column {name!r} has no value in any of the {len(series)} rows. Drop it.")
    odd = next((value for value in known if not isinstance(value, (str, int, float))), None)
    if odd is not None:
        raise DataError(
            f"Column {name!r} holds {type(odd).__name__}, such as {str(odd)[:40]!r}, which is neither a number nor a "
            "category. Turn it into columns of those first (a date into year, month and weekday), or drop it."
        )
    counts = pd.Series(known, dtype=object).value_counts()
    if len(counts) > max_categories:
        raise DataError(
            f"Column {name!r} has {len(counts)} categories; at most {max_categories} are taken (`max_categories`). "
            "Each would learn from a handful of rows: group them, or drop the column."
        )
    if len(known) >= _ENOUGH_ROWS and len(counts) > _NEARLY_ALL * len(known):
        raise DataError(
            f"Column {name!r} has {len(counts)} categories in {len(known)} rows, such as {str(known[0])[:40]!r}: it "
            "names the rows, and says nothing of new ones. Drop it."
        )
    categories = [value for value, count in counts.items() if count >= min_count]
    return CategoryColumn(name, tuple(sorted(categories, key=lambda value: (type(value).__name__, value))))


_ENOUGH_ROWS, _NEARLY_ALL = 50, 0.9


def _places(series: pd.Series[Any], categories: tuple[Any, ...]) -> np.ndarray:
    values = series.astype(object)
    places = pd.Index(categories, dtype=object).get_indexer(pd.Index(values))
    return np.where(values.isna(), MISSING, np.where(places < 0, UNSEEN, places + FIRST)).astype("int32")
