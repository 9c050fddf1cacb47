"""What an experiment will do: the table is read and described, and everything is decided.

Whatever can be refused is refused here, within seconds and before Keras is loaded. `Plan.run` carries the plan out.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import ParameterGrid

from kerastoolkit._values import is_whole
from kerastoolkit._words import did_you_mean, printable, quoted
from kerastoolkit.data.repeats import Question
from kerastoolkit.data.splits import Holdout, folds, holdout
from kerastoolkit.data.tables import (
    Column,
    Table,
    Target,
    as_features,
    describe_columns,
    read_table,
    read_target,
)
from kerastoolkit.evaluation import choose_metric
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError
from kerastoolkit.experiment._grouping import Grouping, find_grouping
from kerastoolkit.experiment._models import Task, estimator_class
from kerastoolkit.experiment.result import Experiment
from kerastoolkit.experiment.run import Progress, Run, where_compared

__all__ = ["Plan", "plan_experiment", "run_experiment"]

_TEST_FRACTION = 0.2
_MIN_ROWS = 20
# Of the winner with the best simple model: twice as many would narrow the interval by 8% only.
_FOLDS_OF_A_COMPARISON = 15

_GRIDS: dict[str, dict[str, list[Any]]] = {
    "small": {
        "hidden": [(64,), (128, 64)],
        "dropout": [0.0, 0.3],
        "optimizer__learning_rate": [0.001, 0.005],
    },
    "wide": {
        "hidden": [(32,), (128,), (128, 64), (256, 128, 64)],
        "dropout": [0.0, 0.2, 0.4],
        "optimizer__learning_rate": [0.0003, 0.001, 0.003, 0.01],
    },
}


def run_experiment(
    table: str | Path | pd.DataFrame,
    target: str,
    *,
    task: Task | None = None,
    metric: str | None = None,
    cv: int | None = None,
    groups: str | Literal[False] | None = None,
    time: str | Literal[False] | None = None,
    grid: str | Path | Mapping[str, Sequence[Any]] = "small",
    n_repeats: int | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    out: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    name: str | None = None,
) -> Experiment:
    """Searches a Keras network for a table, and tells how good it is beside simple models.

    A fifth of the rows is held out before anything is learned, by class or by quantile of the target. On the other
    rows, candidates and models to beat are cross-validated on the same folds; imputing, scaling and encoding are part
    of every model and learned from its own training rows. The best candidate is fitted again to the rows of all folds
    and scored once on the held-out ones, as the models to beat are. In each fit of a network, 15% of its rows are
    watched to stop it in time, and not learned from. At last the best candidate and the best model to beat are
    cross-validated anew, on other splits of the training rows, to tell which is better, or that it cannot be told.

    Where several rows are of one patient, shop or day, rows held out at random are of patients that the model knows.
    Give the column as `groups` if new rows will be of new ones, or as `time` if they will be later ones. A column that
    looks so is asked about, by a warning before the training and in the report, until one of them is given.

    Example:

    >>> from sklearn.datasets import load_iris
    >>> experiment = run_experiment(load_iris(as_frame=True).frame, "target")  # doctest: +SKIP
    >>> print(experiment.test.scores["accuracy"])  # doctest: +SKIP
    accuracy 0.967 (95% interval 0.833 to 0.994, Wilson)

    Args:
        table: Path of a CSV or Parquet file, or a DataFrame.
        target: Name of the column to predict.
        task: `"classification"` or `"regression"`. Defaults to `None`, inferred from the target.
        metric: A scikit-learn scorer name. Defaults to `None`, chosen for the task.
        cv: Number of folds, at least 2. Defaults to `None`: 3, or 2 where a class is too small for 3.
        groups: Name of the column that says which rows belong together, such as the patient. Its values are held out
            as wholes: by the test rows, by the folds, and by the rows of each fit that tell when to stop. It is no
            feature then, and `predict` does not need it. At least 5 values are needed. `False` says that rows do not
            belong together. Defaults to `None`: rows are held out at random, and columns that look like it are asked
            about.
        time: Name of the column, of dates or numbers, that says when a row was taken. The latest rows are the test
            rows, and each fold is scored on rows later than those that it is trained on. It is no feature then, and
            `predict` does not need it. Not together with `groups`. `False` says that it does not matter.
            Defaults to `None`, as for `groups`.
        grid: `"small"` (8 candidates), `"wide"` (48), the path of a JSON file, or a dict: values to try by parameter
            of `KerasClassifier` or `KerasRegressor`, such as `{"hidden": [[64], [128, 64]]}`.
            Defaults to `"small"`.
        n_repeats: How often the best candidate and the best model to beat are cross-validated anew to be compared; 0
            compares them on the folds of the search alone, which are few. Defaults to `None`, as often as gives
            fifteen folds; 0 with `time`, since folds that go forward in time have no other splits.
        seed: Seed of the splits and of every fit. Defaults to `0`.
        time_budget: Seconds after which no further candidate is begun; at least one is evaluated. With a budget the
            candidates come in a shuffled order, and up to a third of the time is kept for the comparison, which is
            repeated as often as there is time for. Defaults to `None`, no limit.
        out: Folder to write, new or empty. Defaults to `None`: nothing is written until `Experiment.save`.
        progress: A function that is called with a `Progress` after each step, and while networks train.
            Defaults to `None`.
        name: Name of the data in the report. Defaults to the file name.

    Returns:
        An `Experiment`.

    Raises:
        ParameterError: If an argument cannot be used; the message names near misses.
        DataError: If the table cannot be read or learned from.
        KeyboardInterrupt: If interrupted; with `out`, what is there so far has been written.

    Warns:
        KerasToolkitWarning: If a column looks as if rows with the same value belonged together.
    """
    options: dict[str, Any] = {"task": task, "metric": metric, "cv": cv, "n_repeats": n_repeats, "seed": seed}
    options |= {"time_budget": time_budget, "groups": groups, "time": time}
    return plan_experiment(table, target, grid=grid, out=out, name=name, **options).run(progress=progress)


def plan_experiment(
    table: str | Path | pd.DataFrame,
    target: str,
    *,
    task: Task | None = None,
    metric: str | None = None,
    cv: int | None = None,
    groups: str | Literal[False] | None = None,
    time: str | Literal[False] | None = None,
    grid: str | Path | Mapping[str, Sequence[Any]] = "small",
    n_repeats: int | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    out: str | Path | None = None,
    name: str | None = None,
) -> Plan:
    """Reads the table, decides what is to be done, and refuses what cannot be; nothing is trained.

    Args:
        table, target, task, metric, cv, groups, time, grid, n_repeats, seed, time_budget, out, name: As for
            `run_experiment`.

    Returns:
        A `Plan`, which can be read (`describe`, `questions`) and carried out (`run`).

    Raises:
        ParameterError: If an argument cannot be used.
        DataError: If the table cannot be read or learned from.
    """
    arguments = dict[str, Any](target=target, task=task, metric=metric, cv=cv, seed=seed, time_budget=time_budget)
    arguments |= {"groups": groups, "time": time, "grid": dict(grid) if isinstance(grid, Mapping) else str(grid)}
    arguments["n_repeats"] = n_repeats
    _check_numbers(cv, seed, time_budget, n_repeats)
    folder = _checked_folder(out)
    read = read_table(table, name=name)
    found = read_target(read, target, task=task)
    columns = [column for column in describe_columns(read) if column.name != target]
    grouping = find_grouping(read.frame, columns, found, groups, time)
    columns = grouping.columns
    if not any(column.is_used for column in columns):
        raise DataError(_nothing_to_learn_from(target, columns))
    if len(found.kept) < _MIN_ROWS:
        few = f"{quoted(read.name)} has {len(found.kept)} rows with a target"
        raise DataError(f"{few}; at least {_MIN_ROWS} are needed.")
    chosen_metric, metric_why = choose_metric(found.values, found.task, metric)
    held_out = holdout(found.values, _TEST_FRACTION, task=found.task, random_state=seed, **grouping.of_rows())
    n_folds, cv_why = _choose_folds(found, held_out, cv, grouping, seed)
    grids = _read_grid(grid)
    _check_grid(grids, found.task)
    X = as_features(read.frame, columns).iloc[found.kept].reset_index(drop=True)
    return Plan(
        table=Table(read.frame.head(0), read.name, read.sha256, read.notes),
        columns=columns,
        target=found,
        metric=chosen_metric,
        metric_why=metric_why,
        held_out=held_out,
        n_folds=n_folds,
        cv_why=cv_why,
        grids=grids,
        n_repeats=_choose_repeats(n_repeats, n_folds, grouping),
        seed=seed,
        time_budget=time_budget,
        out=folder,
        arguments=arguments,
        X=X,
        grouping=grouping,
    )


@dataclass(frozen=True, repr=False)
class Plan:
    """An experiment decided on and not yet carried out.

    Attributes:
        table: Name, digest and notes of the table; its rows are in `X`.
        columns: What each column but the target holds.
        target: The target of the rows that have one.
        metric: Scorer name.
        metric_why: Why this metric, as a clause.
        held_out: Which rows are trained on and which are tested on, as positions in `X`.
        n_folds: Number of folds.
        cv_why: Why so many, as a clause.
        grids: Values to try, by parameter, as scikit-learn's `ParameterGrid` takes them.
        n_repeats: How often the winner and the best model to beat are cross-validated anew, to be compared.
        seed: Seed of the splits and fits.
        time_budget: Seconds; None without limit.
        out: Folder to write; None to write nothing.
        arguments: The arguments as given.
        X: Typed features of the rows that have a target, shape `(n_rows, n_features)`; blanks are NaN.
        grouping: Which rows belong together, or when they were taken.
    """

    table: Table
    columns: list[Column]
    target: Target
    metric: str
    metric_why: str
    held_out: Holdout
    n_folds: int
    cv_why: str
    grids: list[dict[str, list[Any]]]
    n_repeats: int
    seed: int
    time_budget: float | None
    out: Path | None
    arguments: dict[str, Any]
    X: pd.DataFrame
    grouping: Grouping

    def __repr__(self) -> str:
        return f"<Plan to predict {quoted(self.target.name)}>\n{self.describe(most_columns=10)}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Columns whose rows may belong together: `groups` or `time` answers, and so does False for either."""
        return self.grouping.questions

    @property
    def n_candidates(self) -> int:
        """Number of candidates of the grid."""
        return len(ParameterGrid(self.grids))

    def describe(self, *, most_columns: int = 40) -> str:
        """What was found and what will be done, as lines of text.

        Args:
            most_columns: How many columns to list. Defaults to `40`.

        Returns:
            The text, without a final line break.
        """
        lines = [f"{self.table.name}: {len(self.X) + self.target.n_blank} rows, {len(self.columns) + 1} columns"]
        lines += [f"  note: {note}" for note in self.table.notes]
        shown = self.columns[:most_columns]
        names = [printable(column.name)[:32] for column in shown]
        width = max(map(len, names), default=0)
        for name, column in zip(names, shown, strict=True):
            blanks = f"{column.n_blank} blank" if column.n_blank else ""
            words = "; ".join(part for part in (column.detail, column.note, blanks) if part)
            lines.append(f"  {name:<{width}}  {column.kind:<8}  {words}")
        if len(self.columns) > most_columns:
            lines.append(f"  and {len(self.columns) - most_columns} more columns")
        lines += [f"{title}: {text}" for title, text in self.decisions()]
        lines += [f"Question: {question.text}" for question in self.questions]
        return "\n".join(map(printable, lines))

    def decisions(self) -> list[tuple[str, str]]:
        """What was decided and why, as pairs of a title and a sentence."""
        n_train, n_test = len(self.held_out.train), len(self.held_out.test)
        decided = [
            ("Task", f"{self.target.task}, because {self.target.why}"),
            ("Metric", f"{self.metric} ({self.metric_why})"),
            ("Test set", f"{n_test} of {n_train + n_test} rows held out {self.held_out.how}: {self._held_out_why()}"),
            ("Folds", f"{self.n_folds} on the {n_train} training rows ({self.cv_why})"),
            ("Candidates", f"{self.n_candidates} networks, {self.n_candidates * self.n_folds} fits"),
            ("Comparison", where_compared(self.n_repeats, self.n_folds)),
        ]
        if self.target.n_blank:
            decided.insert(1, ("Left out", f"{self.target.n_blank} rows without a target"))
        if self.time_budget is not None:
            decided.append(("Time budget", f"no candidate is begun after {self.time_budget:g} s"))
        return decided

    def _held_out_why(self) -> str:
        grouping, test = self.grouping, self.held_out.test
        if grouping.groups is not None:
            told = f"{grouping.n_values(test)} of the {grouping.n_values()} values of {quoted(grouping.groups)}"
            return f"{told}, none of which is among the training rows"
        if grouping.time is not None:
            return f"the latest, from {grouping.beginning(test)} on in {quoted(grouping.time)}"
        return self.held_out.why

    def run(self, *, progress: Callable[[Progress], None] | None = None) -> Experiment:
        """Carries the plan out.

        Args:
            progress: A function that is called with a `Progress` after each step. Defaults to `None`.

        Returns:
            An `Experiment`.

        Raises:
            KeyboardInterrupt: If interrupted; with `out`, what is there so far has been written.

        Warns:
            KerasToolkitWarning: For each of the `questions`.
        """
        for question in self.questions:
            warnings.warn(question.text, KerasToolkitWarning, stacklevel=2)
        return Run(self, progress).carry_out()


def _choose_repeats(n_repeats: int | None, n_folds: int, grouping: Grouping) -> int:
    if grouping.time is None:
        return math.ceil(_FOLDS_OF_A_COMPARISON / n_folds) if n_repeats is None else n_repeats
    if n_repeats:
        raise ParameterError(
            f"`n_repeats` must be 0, or left out, together with `time`: folds that go forward in time have no other "
            f"splits. Got {n_repeats!r}."
        )
    return 0


def _check_numbers(cv: int | None, seed: int, time_budget: float | None, n_repeats: int | None) -> None:
    if cv is not None and (not is_whole(cv) or cv < 2):
        raise ParameterError(f"`cv` must be a whole number of folds, at least 2. Got {cv!r}.")
    if n_repeats is not None and (not is_whole(n_repeats) or n_repeats < 0):
        raise ParameterError(f"`n_repeats` must be a whole number of repeats, at least 0. Got {n_repeats!r}.")
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise ParameterError(f"`seed` must be a whole number from 0 to 2**32 - 1. Got {seed!r}.")
    if time_budget is not None and not (time_budget > 0 and math.isfinite(time_budget)):
        raise ParameterError(f"`time_budget` must be a number of seconds above 0. Got {time_budget!r}.")


def _checked_folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if folder.exists() else "a link to something that is not there"
        raise ParameterError(f"`out` must be a folder, and '{folder}' is {what}.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ParameterError(
            f"The folder '{folder}' is not empty, and nothing is overwritten. Name a new one as `out`."
        )
    standing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise ParameterError(f"The folder '{folder}' cannot be made: '{standing}' cannot be written to.")
    return folder


def _nothing_to_learn_from(target: str, columns: list[Column]) -> str:
    if not columns:
        return f"The table has no column but the target {quoted(target)}, so there is nothing to predict it from."
    seen = "; ".join(f"{quoted(column.name)} ({column.kind})" for column in columns[:10])
    return f"No column is left to predict {quoted(target)} from: {seen}."


def _choose_folds(target: Target, held_out: Holdout, cv: int | None, grouping: Grouping, seed: int) -> tuple[int, str]:
    n_train = len(held_out.train)
    if grouping.values is not None:
        return _choose_whole_folds(target, held_out, cv, grouping, seed)
    if target.task == "regression":
        if cv is not None and cv > n_train // 2:
            raise ParameterError(f"`cv` of {cv} is too much for {n_train} training rows. Take at most {n_train // 2}.")
        return (cv, "asked for") if cv is not None else (3, "the usual number here")
    classes, counts = np.unique(target.values[held_out.train], return_counts=True)
    label, smallest = classes[np.argmin(counts)], int(counts.min())
    if smallest < 2 or len(classes) < len(np.unique(target.values)):
        which = quoted(label) if len(classes) == len(np.unique(target.values)) else "the smallest"
        raise DataError(
            f"The class {which} of the target {quoted(target.name)} has too few rows: at least 3 are needed, two to "
            "train on in turn and one to test on. Add some, or remove the class."
        )
    if cv is not None:
        if cv > smallest:
            raise ParameterError(
                f"`cv` of {cv} is more than the {smallest} training rows of the class {quoted(label)}. "
                f"Take at most {smallest}."
            )
        return cv, "asked for"
    if smallest < 3:
        return 2, f"the class {quoted(label)} has {smallest} training rows"
    return 3, "the usual number here"


def _choose_whole_folds(
    target: Target, held_out: Holdout, cv: int | None, grouping: Grouping, seed: int
) -> tuple[int, str]:
    """As many folds as leave every class on both sides of each, where groups or times are not divided."""
    train, name = held_out.train, quoted(grouping.name)
    y, kept = target.values[train], grouping.of_rows(train)
    _refuse_missing_classes(target, held_out, grouping)
    most = grouping.n_values(train) - (grouping.time is not None)
    if cv is not None and cv > most:
        raise ParameterError(f"`cv` of {cv} is too much for {name} among the training rows. Take at most {most}.")
    why = f", each of whole values of {name}"
    if grouping.time is not None:
        why = ", each scored on rows later than those that it is trained on"
    for n_folds in (3, 2) if cv is None else (cv,):
        if n_folds > most:
            continue
        cut = folds(y, n_folds, task=target.task, random_state=seed, **kept)
        if all(_can_be_scored(target, y, fold) and grouping.n_values(train[fold[0]]) > 1 for fold in cut):
            return n_folds, ("asked for" if cv is not None else "the usual number here" if n_folds == 3 else "3 would "
                             "leave out a class") + why  # fmt: skip
    lacking = "a class" if target.task == "classification" else f"more than one value of {name}"
    raise DataError(
        f"The {len(train)} training rows cannot be cut into {cv or 2} folds by {name}: one of them would be without "
        f"{lacking}. Add rows, or leave `{next(iter(kept))}` out."
    )


def _can_be_scored(target: Target, y: np.ndarray, fold: tuple[np.ndarray, np.ndarray]) -> bool:
    if target.task == "regression":
        return min(map(len, fold)) > 1
    return len(np.unique(y[fold[0]])) == len(np.unique(y[fold[1]])) == len(np.unique(target.values))


def _refuse_missing_classes(target: Target, held_out: Holdout, grouping: Grouping) -> None:
    if target.task == "regression":
        return
    if grouping.groups is not None:
        for label in np.unique(target.values):
            if (n_with := grouping.n_values(target.values == label)) < 3:
                raise DataError(
                    f"The class {quoted(label)} of the target {quoted(target.name)} has rows of {n_with} of the "
                    f"{grouping.n_values()} values of {quoted(grouping.groups)}, and at least 3 are needed: two to "
                    "train on in turn and one to test on. Add some, or remove the class."
                )
    for side, rows in (("training", held_out.train), ("test", held_out.test)):
        missing = np.setdiff1d(target.values, target.values[rows])
        if not len(missing):
            continue
        which = f"The class {quoted(missing[0])} of the target {quoted(target.name)} is not among the {side} rows"
        if grouping.time is not None:
            told = f"which begin with {grouping.beginning(held_out.test)}" if side == "test" else "which are earlier"
            raise DataError(f"{which}, {told} in {quoted(grouping.time)}. Leave the class or `time` out.")
        raise DataError(
            f"{which}, since {quoted(grouping.name)} is held out by whole values. Try another `seed`, add rows of "
            "the class, or remove it."
        )


# --------------------------------------------------------------------------------------------------------- the grid


def _read_grid(grid: str | Path | Mapping[str, Sequence[Any]]) -> list[dict[str, list[Any]]]:
    if isinstance(grid, Mapping):
        return [_checked_values(grid, "`grid`")]
    if str(grid) in _GRIDS:
        return [_GRIDS[str(grid)]]
    path = Path(grid)
    if not path.is_file():
        hint = did_you_mean(grid, _GRIDS)
        raise ParameterError(f"`grid` must be 'small', 'wide' or a JSON file; there is no file {str(grid)!r}.{hint}")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ParameterError(f"The grid '{path.name}' is not JSON: {error}.") from error
    grids = read if isinstance(read, list) else [read]
    if not grids:
        raise ParameterError(f"The grid '{path.name}' is empty.")
    return [_checked_values(one, f"The grid '{path.name}'") for one in grids]


def _checked_values(grid: Any, source: str) -> dict[str, list[Any]]:
    if not isinstance(grid, Mapping) or not grid:
        raise ParameterError(
            f'{source} must map parameters to lists of values, such as {{"hidden": [[64], [128, 64]]}}. Got {grid!r}.'
        )
    checked = {}
    for key, values in grid.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)) or len(values) == 0:
            raise ParameterError(f"{source} must give a list of values to try for {quoted(key)}. Got {values!r}.")
        # JSON has no tuples, and a list is what a grid unpacks.
        checked[str(key)] = [tuple(value) if isinstance(value, list) else value for value in values]
    return checked


def _check_grid(grids: list[dict[str, list[Any]]], task: Task) -> None:
    """Refuses parameters that could reach nothing, naming near misses."""
    for candidate in ParameterGrid(grids):
        try:
            estimator_class(task)().set_params(**candidate)
        except ParameterError as error:
            raise ParameterError(f"The grid cannot be used. {error}") from error
