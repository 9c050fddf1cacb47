"""What messages advise for rows of which a network would learn nothing, or the wrong thing, as they are.

Columns of words and dates, and missing values, are errors: their messages have code that works. Images of another range
than in `fit` are a warning.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator

from kerastoolkit._types import InputArrays, Table

if TYPE_CHECKING:
    from kerastoolkit.estimators._base import KerasEstimator

# Values of a column that are looked at.
_MAX_VALUES = 500

# Features of a row from which on it may be a flattened image.
PIXELS = 49


# -- tables ---------------------------------------------------------------------------------------------------------


def on_words_and_dates(X: Table, columns: Sequence[Any], estimator: KerasEstimator) -> str:
    """The message for a table with columns that are not numeric, with code that works.

    Args:
        X: The table, of pandas or polars.
        columns: Names of those columns.
        estimator: The estimator that was given the table.
    """
    owner = type(estimator).__name__
    days = [name for name in columns if _is_of_time(X, name)]
    words = [name for name in columns if name not in days]
    told = []
    if days:
        told.append(
            f"X has {_counted(days)} of dates or times: {_listed(days)}. Turn them into numbers first: "
            f"{_code_for_days(X, days)}. Scale these, or use the builder 'tabular', which does so itself."
        )
    if words:
        chosen = repr(words)
        if len(words) > 5 and hasattr(X, "iloc"):
            chosen = "make_column_selector(dtype_exclude=['number', 'bool'])"
        told.append(
            f"X has {_counted(words)} that {'is' if len(words) == 1 else 'are'} not numeric: {_listed(words)}."
            f"{_on_tabular(estimator, 'numbers, text and missing values')} encode them before it: make_pipeline("
            f"make_column_transformer((OneHotEncoder(handle_unknown='ignore'), {chosen}), remainder=make_pipeline("
            f"SimpleImputer(), StandardScaler())), {owner}()); or drop them."
        )
    return "\n".join(told)


def on_missing_values(X: Any, estimator: BaseEstimator) -> str:
    """The message for rows with missing values, with code that works.

    Args:
        X: The rows as they were given.
        estimator: The estimator that was given them.
    """
    owner, where = type(estimator).__name__, ""
    if not issparse(X) and np.ndim(X) != 2 and not hasattr(X, "columns"):
        return "Input X contains NaN. Fill in the missing values first, for example with 0: np.nan_to_num(X)."
    if not issparse(X):
        table = pd.DataFrame(X.to_dict(as_series=False) if hasattr(X, "get_columns") else X)
        names = table.columns[table.isna().any()].tolist()
        columns = "the column" if len(names) == 1 else _counted(names)
        n_rows = int(table.isna().any(axis=1).sum())
        where = f": {n_rows} of {len(table)} rows have missing values, in {columns} {_listed(names)}"
    takes = " For a network," if issparse(X) else _on_tabular(estimator, "missing values")
    scaler = "MaxAbsScaler" if issparse(X) else "StandardScaler"
    return (
        f"Input X contains NaN{where}.{takes} fill them in before it: make_pipeline(SimpleImputer(), {scaler}(), "
        f"{owner}())."
    )


def _on_tabular(estimator: BaseEstimator, what: str) -> str:
    """The beginning of a sentence; it names the builder that takes tables as they are if the estimator can use it."""
    if not may_be_tabular(estimator):
        return " For a network,"
    return f" {type(estimator).__name__}('tabular') takes tables with {what} as they are. For any other network,"


def may_be_tabular(estimator: BaseEstimator) -> bool:
    """Whether an estimator can use the builder for tables."""
    is_of_rows = getattr(estimator, "default_model", "") == "mlp" and "model" in estimator.get_params(deep=False)
    return is_of_rows and estimator._task in ("classification", "regression")


def _counted(names: Sequence[Any]) -> str:
    return "1 column" if len(names) == 1 else f"{len(names)} columns"


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")


def _values(X: Table, name: Any) -> list[Any]:
    """The values of a column that are not missing."""
    column = X[name]
    column = column.drop_nulls() if hasattr(column, "drop_nulls") else column.dropna()
    return list(column.to_list()[:_MAX_VALUES]) if len(column.shape) == 1 else []


def _is_of_time(X: Table, name: Any) -> bool:
    """Whether a column contains dates or times, or text that looks like them."""
    values = _values(X, name)
    if values and isinstance(values[0], str):
        return all(isinstance(value, str) and _DATE.match(value) for value in values)
    return bool(values) and all(isinstance(value, (datetime.date, datetime.timedelta)) for value in values)


_DATE = re.compile(r"\s*(\d{4}-\d{1,2}-\d{1,2}|(\d{1,2})[./-]\d{1,2}[./-]\d{2,4})(?!\w|[./-])")


def _code_for_days(X: Table, names: Sequence[Any]) -> str:
    """Code that replaces dates and times by numbers."""
    is_pandas, parts = hasattr(X, "iloc"), []
    for name in names:
        values, column = _values(X, name), f"X[{name!r}]"
        if isinstance(values[0], datetime.timedelta):
            parts.append(f"{f'{name} in seconds'!r}: {column}.dt.total_seconds()")
            continue
        found = [_DATE.match(value) for value in values] if isinstance(values[0], str) else []
        first = [int(one.group(2)) for one in found if one is not None and one.group(2)]
        dayfirst = ", dayfirst=True" if first and (max(first) > 12 or "." in values[0]) else ""
        day = f"pd.to_datetime({column}{dayfirst})" if is_pandas else f"{column}.str.to_date()" if found else column
        call = "" if is_pandas else "()"
        units = ("year", "month", "day_of_week" if is_pandas else "weekday")
        parts += [f"{f'{name} {unit}'!r}: {day}.dt.{unit}{call}" for unit in units]
    made = f"**{{{', '.join(parts)}}}"
    if is_pandas:
        return f"X = X.assign({made}).drop(columns={list(names)!r})"
    return f"X = X.with_columns({made}).drop({list(names)!r})"


# -- images -------------------------------------------------------------------------------------------------------


def range_of_images(X: InputArrays) -> tuple[float, float] | None:
    """The smallest and the largest value of images, including flattened ones; None for rows of anything else.

    Args:
        X: Rows, shape `(n, ...)`.
    """
    if issparse(X) or not isinstance(X, np.ndarray) or X.dtype.kind not in "uif" or not X.size:
        return None
    if X.ndim < 3 and (X.ndim < 2 or X.shape[1] < PIXELS):
        return None
    low, high = float(X.min()), float(X.max())
    is_usual = low >= 0 and (high <= 1 or (high <= 255 and bool(np.all(X[:100] == np.round(X[:100])))))
    return (low, high) if is_usual and high > 0 else None


def on_another_range(learned: tuple[float, float], X: InputArrays) -> str | None:
    """The warning for images from 0 to 1 where those in `fit` were from 0 to 255, or the other way round.

    A single image may be as dark as that, but then its values are whole numbers.

    Args:
        learned: What `range_of_images` returned in `fit`.
        X: Rows to predict, shape `(n, ...)`.
    """
    if issparse(X) or not isinstance(X, np.ndarray) or not X.size:
        return None
    low, high = float(X.min()), float(X.max())
    was, now = f"from {learned[0]:g} to {learned[1]:g}", f"from {low:g} to {high:g}"
    if learned[1] > 1 and low >= 0 and high <= 1 and bool(np.any(X != np.round(X))):
        what = f"They seem to be divided already: give X * {learned[1]:g}, or divide those for `fit` as well."
    elif learned[1] <= 1 and high > 10:
        what = f"They do not seem to be divided yet: give X / {high:g}."
    else:
        return None
    return f"X has values {now}, but those in `fit` were {was}, and the network has learned from no others. {what}"
