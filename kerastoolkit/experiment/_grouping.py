"""Rows that are held out together: the groups or times that the user has named, or what is to be asked about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from kerastoolkit._words import did_you_mean, quoted
from kerastoolkit.data.repeats import Question, find_questions
from kerastoolkit.data.splits import GROUPS_OR_TIME
from kerastoolkit.data.tables import Column, Kind, Target, as_features
from kerastoolkit.exceptions import DataError, ParameterError

__all__ = ["Grouping", "find_grouping"]

# One to test on, and two folds of two: of the two that a fold trains on, one decides when to stop.
_MIN_GROUPS = 5


@dataclass(frozen=True)
class Grouping:
    """Which rows belong together, or when they were recorded; or what is to be asked about that.

    Attributes:
        columns: What each column but the target holds; a column of groups or times is no feature.
        groups: Name of the column of groups; None without.
        time: Name of the column of times; None without.
        values: The group of each row that has a target, as a number, or its time, shape `(n_rows,)`; None without.
        is_date: Whether the times are dates, in days since 1970.
        questions: Columns whose rows may belong together, if neither was given.
    """

    columns: list[Column]
    groups: str | None = None
    time: str | None = None
    values: np.ndarray | None = None
    is_date: bool = False
    questions: tuple[Question, ...] = ()

    @property
    def name(self) -> str:
        """The name of the column; empty without."""
        return self.groups or self.time or ""

    def of_rows(self, rows: np.ndarray | slice = slice(None)) -> dict[str, np.ndarray]:
        """The groups or times of some rows, by the name of the argument that takes them; empty without."""
        return {} if self.values is None else {"groups" if self.groups is not None else "time": self.values[rows]}

    def n_values(self, rows: np.ndarray | slice = slice(None)) -> int:
        """Number of different groups or times among some rows."""
        return 0 if self.values is None else len(np.unique(self.values[rows]))

    def beginning(self, rows: np.ndarray) -> str:
        """The first time of some rows, for people to read."""
        if self.values is None or self.time is None:
            return ""
        first = float(self.values[rows].min())
        if not self.is_date:
            return f"{first:.12g}"
        moment = (pd.Timestamp(0) + pd.Timedelta(days=first)).round("s")
        return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M:%S}"


def find_grouping(
    frame: pd.DataFrame,
    columns: list[Column],
    target: Target,
    groups: str | Literal[False] | None,
    time: str | Literal[False] | None,
) -> Grouping:
    """The groups or times of the rows; or what is to be asked about columns that look like them.

    Args:
        frame: The table, shape `(n_table_rows, n_columns)`.
        columns: What each column but the target holds.
        target: The target; rows without one are left out.
        groups: Name of the column of groups, False for none, None if not known.
        time: Name of the column of times, False for none, None if not known.

    Returns:
        A `Grouping`.

    Raises:
        ParameterError: If a column cannot be what the argument says.
        DataError: If it has too few different values, or lacks some.
    """
    name_of_groups = _column_named(groups, "groups", frame, target.name)
    name_of_time = _column_named(time, "time", frame, target.name)
    if name_of_groups is not None and name_of_time is not None:
        raise ParameterError(GROUPS_OR_TIME)
    if name_of_groups is None and name_of_time is None:
        asked = find_questions(frame, columns, target, groups=groups is None, time=time is None)
        return Grouping(columns, questions=asked)
    name = name_of_groups or name_of_time
    column = next(column for column in columns if column.name == name)
    if name_of_groups is not None:
        values, note = _group_numbers(frame, column, target), "left out: all rows of a value are held out together"
        if column.n_blank:
            note += "; rows without one count as one group"
    else:
        values, note = _times(frame, column, target), "left out: the latest rows are held out by it"
    kind: Kind = "group" if name_of_groups is not None else "time"
    others = [replace(column, kind=kind, note=note) if one is column else one for one in columns]
    return Grouping(others, name_of_groups, name_of_time, values, is_date=column.kind == "date")


def _column_named(name: object, argument: str, frame: pd.DataFrame, target: str) -> str | None:
    if name is None or name is False:
        return None
    if not isinstance(name, str):
        got = repr(name) if np.isscalar(name) else f"a {type(name).__name__}"
        raise ParameterError(f"`{argument}` must be the name of a column, or False for none. Got {got}.")
    if name == target:
        raise ParameterError(f"`{argument}` must be another column than the target {quoted(target)}.")
    if name not in frame.columns:
        hint = did_you_mean(name, frame.columns)
        raise ParameterError(f"`{argument}` must be a column of the table, and there is no {quoted(name)}.{hint}")
    return name


def _group_numbers(frame: pd.DataFrame, column: Column, target: Target) -> np.ndarray:
    # As text, so that 7, 7.0 and " 7" are one patient; rows without a value are one group.
    texts = as_features(frame[[column.name]], [replace(column, kind="category")]).iloc[target.kept, 0]
    values = np.asarray(pd.factorize(texts, use_na_sentinel=False)[0])
    n_values = len(np.unique(values))
    if n_values < _MIN_GROUPS:
        raise DataError(
            f"{quoted(column.name)} has {n_values} different values in {len(values)} rows, and `groups` needs at least "
            f"{_MIN_GROUPS}: one to test on, and two in each of two folds. Leave `groups` out, or add rows with "
            "other values."
        )
    return values


def _times(frame: pd.DataFrame, column: Column, target: Target) -> np.ndarray:
    kind: Kind = "date" if column.kind == "date" else "number"
    read = as_features(frame[[column.name]], [replace(column, kind=kind)]).iloc[target.kept, 0]
    times = read.to_numpy(np.float64)
    n_unread = int(np.isnan(times).sum())
    if n_unread == len(times):
        raise DataError(
            f"`time` must be a column of dates or numbers, and {quoted(column.name)} holds {column.kind} "
            f"({column.detail})."
        )
    if n_unread:
        raise DataError(
            f"{quoted(column.name)} has no {kind} in {n_unread} of {len(times)} rows, so that these rows cannot be put "
            "in order. Correct or remove them."
        )
    if (n_values := len(np.unique(times))) < _MIN_GROUPS:
        raise DataError(
            f"{quoted(column.name)} has {n_values} different values in {len(times)} rows, and `time` needs at least "
            f"{_MIN_GROUPS}: the latest to test on, and earlier ones to train and to be scored on in turn."
        )
    return times
