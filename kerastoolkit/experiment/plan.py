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
from kerastoolkit.data.tables import Column, Table, Target, as_features, describe_columns, read_table, read_target
from kerastoolkit.evaluation import choose_scoring
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError
from kerastoolkit.experiment._grouping import Grouping, find_grouping
from kerastoolkit.experiment._models import Task, estimator_class
from kerastoolkit.experiment._records import as_read, read_record
from kerastoolkit.experiment.result import JOURNAL_FILE, Experiment
from kerastoolkit.experiment.run import Progress, Run, where_compared
from kerastoolkit.search.journal import Journal

__all__ = ["Plan", "plan_experiment", "run_experiment"]

_TEST_FRACTION = 0.2
_MIN_ROWS = 20
# Of the winner and the best baseline: twice as many would narrow the interval by only 8%.
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

_Values = dict[str, list[Any]]  # to try, by parameter


def run_experiment(
    table: str | Path | pd.DataFrame,
    target: str,
    *,
    task: Task | None = None,
    scoring: str | None = None,
    cv: int | None = None,
    groups: str | Literal[False] | None = None,
    time: str | Literal[False] | None = None,
    param_grid: str | Path | Mapping[str, Sequence[Any]] = "small",
    n_repeats: int | None = None,
    random_state: int = 0,
    timeout: float | None = None,
    out: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    name: str | None = None,
) -> Experiment:
    """Searches for a Keras network that suits a table, and tells how good it is beside simple baselines.

    A fifth of the rows is held out before anything is learned, stratified by class or by quantile of the target. On
    the other rows, all candidates and baselines are cross-validated on the same folds; imputing, scaling and encoding
    are part of every model and are learned from its training rows alone. The best candidate is fitted once more to all
    of these rows and scored once on the held-out ones, as the baselines are. Each fit of a network sets 15% of its rows
    aside to decide when to stop. In the end, the best candidate and the best baseline are cross-validated again, on
    other splits of the training rows, to tell which of them is better, or that this cannot be told.

    If several rows belong to one patient, shop or day, then rows held out at random belong to patients that the model
    knows already. Name that column as `groups` if the model will meet new patients, or name a column as `time` if it
    will be used on later rows. A warning before the training, and the report, ask about columns that look like it,
    until you answer with one of the two.

    Example:

    >>> from sklearn.datasets import load_iris
    >>> experiment = run_experiment(load_iris(as_frame=True).frame, "target")  # doctest: +SKIP
    >>> print(experiment.test.scores["accuracy"])  # doctest: +SKIP
    accuracy 0.967 (95% interval 0.833 to 0.994, Wilson)

    Args:
        table: Path of a CSV or Parquet file, or a DataFrame.
        target: Name of the column to predict.
        task: `"classification"` or `"regression"`. Defaults to `None`: inferred from the target.
        scoring: Name of a scikit-learn scorer. Defaults to `None`: chosen to suit the task.
        cv: Number of folds, at least 2. Defaults to `None`: 3, or 2 if a class is too small for 3.
        groups: Name of the column that says which rows belong together, such as the patient. All rows of a value are
            held out together: among the test rows, in the folds, and among the rows of each fit that decide when to
            stop. The column is not a feature then, and `predict` does not need it. It must have at least 5 different
            values. `False` says that rows do not belong together. Defaults to `None`: rows are held out at random, and
            columns that look like groups are asked about.
        time: Name of the column, of dates or numbers, that says when a row was recorded. The latest rows become the
            test rows, and each fold is scored on rows later than those it is trained on. The column is not a feature
            then, and `predict` does not need it. Cannot be combined with `groups`. `False` says that time does not
            matter. Defaults to `None`, as for `groups`.
        param_grid: `"small"` (8 candidates), `"wide"` (48), the path of a JSON file, or a dict: values to try by
            parameter of `KerasClassifier` or `KerasRegressor`, such as `{"hidden": [[64], [128, 64]]}`.
            Defaults to `"small"`.
        n_repeats: How often the best candidate and the best baseline are cross-validated again to compare them; 0
            compares them on the folds of the search alone, which are few. Defaults to `None`: as often as gives
            fifteen folds; 0 with `time`, since folds that go forward in time can be cut in one way only.
        random_state: Seed of the splits and of every fit. Defaults to `0`.
        timeout: Seconds after which no further candidate is started; at least one is evaluated. With a timeout, the
            candidates come in a shuffled order, and up to a third of the time is kept for the comparison, which is
            repeated as often as time allows. Defaults to `None`: no limit.
        out: Folder to write, new or empty; or that of an experiment on the same table with the same arguments that was
            interrupted, which then resumes: only what is missing is trained. Defaults to `None`: nothing is written
            until you call `Experiment.save`.
        progress: A function that is called with a `Progress` after each step, and while networks train.
            Defaults to `None`.
        name: Name of the data in the report. Defaults to the file name.

    Returns:
        An `Experiment`.

    Raises:
        ParameterError: If an argument cannot be used; the message names near misses.
        DataError: If the table cannot be read or learned from.
        KeyboardInterrupt: If interrupted; with `out`, everything found so far has been written, and the same call
            resumes.

    Warns:
        KerasToolkitWarning: If it looks as if rows with the same value in some column belonged together.
    """
    plan = plan_experiment(
        table,
        target,
        task=task,
        scoring=scoring,
        cv=cv,
        groups=groups,
        time=time,
        param_grid=param_grid,
        n_repeats=n_repeats,
        random_state=random_state,
        timeout=timeout,
        out=out,
        name=name,
    )
    return plan.run(progress=progress)


def plan_experiment(
    table: str | Path | pd.DataFrame,
    target: str,
    *,
    task: Task | None = None,
    scoring: str | None = None,
    cv: int | None = None,
    groups: str | Literal[False] | None = None,
    time: str | Literal[False] | None = None,
    param_grid: str | Path | Mapping[str, Sequence[Any]] = "small",
    n_repeats: int | None = None,
    random_state: int = 0,
    timeout: float | None = None,
    out: str | Path | None = None,
    name: str | None = None,
) -> Plan:
    """Reads the table, decides what will be done, and refuses what cannot be; nothing is trained.

    Args:
        table, target, task, scoring, cv, groups, time, param_grid, n_repeats, random_state, timeout, out, name: As in
            `run_experiment`.

    Returns:
        A `Plan`, which you can read (`explain`, `questions`) and carry out (`run`).

    Raises:
        ParameterError: If an argument cannot be used.
        DataError: If the table cannot be read or learned from.
    """
    arguments: dict[str, Any] = {"target": target, "task": task, "scoring": scoring, "cv": cv, "groups": groups}
    arguments |= {"time": time, "param_grid": dict(param_grid) if isinstance(param_grid, Mapping) else str(param_grid)}
    arguments |= {"n_repeats": n_repeats, "random_state": random_state, "timeout": timeout}
    _check_numbers(cv, random_state, timeout, n_repeats)
    folder = _checked_folder(out)
    read = read_table(table, name=name)
    _check_resumed(folder, arguments, read)
    found = read_target(read, target, task=task)
    columns = [column for column in describe_columns(read) if column.name != target]
    grouping = find_grouping(read.frame, columns, found, groups, time)
    columns = grouping.columns
    _check_enough(read, found, columns)
    chosen, scoring_why = choose_scoring(found.values, found.task, scoring)
    held_out = holdout(found.values, _TEST_FRACTION, task=found.task, random_state=random_state, **grouping.of_rows())
    n_folds, cv_why = _choose_folds(found, held_out, cv, grouping, random_state)
    grids = _read_grid(param_grid)
    _check_grid(grids, found.task)
    X = as_features(read.frame, columns).iloc[found.kept].reset_index(drop=True)
    return Plan(
        table=Table(read.frame.head(0), read.name, read.sha256, read.notes),
        columns=columns,
        target=found,
        scoring=chosen,
        scoring_why=scoring_why,
        held_out=held_out,
        n_folds=n_folds,
        cv_why=cv_why,
        param_grid=grids,
        n_repeats=_choose_repeats(n_repeats, n_folds, grouping),
        random_state=random_state,
        timeout=timeout,
        out=folder,
        arguments=arguments,
        X=X,
        grouping=grouping,
    )


@dataclass(frozen=True, repr=False)
class Plan:
    """An experiment that has been decided on and not yet carried out.

    Attributes:
        table: Name, digest and notes of the table; its rows are in `X`.
        columns: What each column but the target holds.
        target: The target of the rows that have one.
        scoring: Name of the scorer.
        scoring_why: Why this one, as a clause.
        held_out: Which rows are for training and which for the test, as positions in `X`.
        n_folds: Number of folds.
        cv_why: Why this number, as a clause.
        param_grid: Values to try by parameter, as scikit-learn's `ParameterGrid` takes them.
        n_repeats: How often the winner and the best baseline are cross-validated again to compare them.
        random_state: Seed of the splits and fits.
        timeout: Seconds after which no further candidate is started; None without limit.
        out: Folder to write; None to write nothing.
        arguments: The arguments as given.
        X: Typed features of the rows that have a target, shape `(n_rows, n_features)`; blanks are NaN.
        grouping: Which rows belong together, or when they were recorded.
    """

    table: Table
    columns: list[Column]
    target: Target
    scoring: str
    scoring_why: str
    held_out: Holdout
    n_folds: int
    cv_why: str
    param_grid: list[_Values]
    n_repeats: int
    random_state: int
    timeout: float | None
    out: Path | None
    arguments: dict[str, Any]
    X: pd.DataFrame
    grouping: Grouping

    def __repr__(self) -> str:
        return f"<Plan to predict {quoted(self.target.name)}>\n{self.explain(max_columns=10)}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Columns whose rows may belong together; `groups` or `time` answers, and so does False for either."""
        return self.grouping.questions

    @property
    def n_candidates(self) -> int:
        """Number of candidates of the grid."""
        return len(ParameterGrid(self.param_grid))

    def explain(self, *, max_columns: int = 40) -> str:
        """Says what was found and what will be done, as lines of text.

        Args:
            max_columns: How many columns to list at most. Defaults to `40`.

        Returns:
            The text, without a final line break.
        """
        lines = [f"{self.table.name}: {len(self.X) + self.target.n_blank} rows, {len(self.columns) + 1} columns"]
        lines += [f"  note: {note}" for note in self.table.notes]
        shown = self.columns[:max_columns]
        names = [printable(column.name)[:32] for column in shown]
        width = max(map(len, names), default=0)
        for name, column in zip(names, shown, strict=True):
            blanks = f"{column.n_blank} blank" if column.n_blank else ""
            words = "; ".join(part for part in (column.detail, column.note, blanks) if part)
            lines.append(f"  {name:<{width}}  {column.kind:<8}  {words}")
        if len(self.columns) > max_columns:
            lines.append(f"  and {len(self.columns) - max_columns} more columns")
        lines += [f"{title}: {text}" for title, text in self.decisions()]
        lines += [f"Question: {question.text}" for question in self.questions]
        return "\n".join(map(printable, lines))

    def decisions(self) -> list[tuple[str, str]]:
        """What was decided and why, as pairs of a title and a sentence."""
        n_train, n_test = len(self.held_out.train), len(self.held_out.test)
        networks = "network" if self.n_candidates == 1 else "networks"
        decided = [
            ("Task", f"{self.target.task}, because {self.target.why}"),
            ("Metric", f"{self.scoring} ({self.scoring_why})"),
            ("Test set", f"{n_test} of {n_train + n_test} rows held out {self.held_out.how}: {self._held_out_why()}"),
            ("Folds", f"{self.n_folds} on the {n_train} training rows ({self.cv_why})"),
            ("Candidates", f"{self.n_candidates} {networks}, {self.n_candidates * self.n_folds} fits"),
            ("Comparison", where_compared(self.n_repeats, self.n_folds)),
        ]
        if self.target.n_blank:
            decided.insert(1, ("Left out", f"{self.target.n_blank} rows without a target"))
        if self.timeout is not None:
            decided.append(("Timeout", f"no candidate is started after {self.timeout:g} s"))
        return decided

    def _held_out_why(self) -> str:
        grouping, test = self.grouping, self.held_out.test
        if grouping.groups is not None:
            values = f"{grouping.n_values(test)} of the {grouping.n_values()} values of {quoted(grouping.groups)}"
            return f"{values}, none of which is among the training rows"
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
            KeyboardInterrupt: If interrupted; with `out`, everything found so far has been written.

        Warns:
            KerasToolkitWarning: For each of the `questions`.
        """
        for question in self.questions:
            warnings.warn(question.text, KerasToolkitWarning, stacklevel=2)
        return Run(self, progress).carry_out()


# -------------------------------------------------------------------------------------------------------- arguments


def _check_numbers(cv: int | None, random_state: int, timeout: float | None, n_repeats: int | None) -> None:
    if cv is not None and (not is_whole(cv) or cv < 2):
        raise ParameterError(f"`cv` must be a whole number of folds, at least 2. Got {cv!r}.")
    if n_repeats is not None and (not is_whole(n_repeats) or n_repeats < 0):
        raise ParameterError(f"`n_repeats` must be a whole number of repeats, at least 0. Got {n_repeats!r}.")
    if not is_whole(random_state) or not 0 <= random_state < 2**32:
        raise ParameterError(f"`random_state` must be a whole number from 0 to 2**32 - 1. Got {random_state!r}.")
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise ParameterError(f"`timeout` must be a number of seconds above 0. Got {timeout!r}.")


def _checked_folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if folder.exists() else "a link to something that does not exist"
        raise ParameterError(f"`out` must be a folder, and '{folder}' is {what}.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_interrupted(folder):
        raise ParameterError(
            f"The folder '{folder}' is not empty, and nothing is overwritten. Give `out` the name of a new one."
        )
    existing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ParameterError(f"The folder '{folder}' cannot be made: '{existing}' cannot be written to.")
    return folder


def _is_interrupted(folder: Path) -> bool:
    journal = folder / JOURNAL_FILE
    return journal.is_file() and not journal.is_symlink()  # a link would lead to a file of somewhere else


def _check_resumed(folder: Path | None, arguments: dict[str, Any], read: Table) -> None:
    """Refuses a folder with an interrupted experiment of other arguments, or on another table."""
    if folder is None or not _is_interrupted(folder):
        return
    record = read_record(folder)
    given = as_read(arguments)
    other = [name for name in given if record["arguments"].get(name) != given[name]]
    if record["data"].get("sha256") != read.sha256:
        other.insert(0, "table")
    if other:
        raise ParameterError(
            f"The folder '{folder}' holds an interrupted experiment with other values of {', '.join(other)}. To resume "
            "it, pass the same table and arguments; to begin a new one, give `out` the name of a new folder."
        )
    with Journal(folder / JOURNAL_FILE):  # which refuses what is damaged or another program's, before anything trains
        pass


def _check_enough(read: Table, target: Target, columns: list[Column]) -> None:
    if not columns:
        raise DataError(
            f"The table has no column but the target {quoted(target.name)}, so there is nothing to predict it from."
        )
    if not any(column.is_used for column in columns):
        seen = "; ".join(f"{quoted(column.name)} ({column.kind})" for column in columns[:10])
        raise DataError(f"No column is left to predict {quoted(target.name)} from: {seen}.")
    if len(target.kept) < _MIN_ROWS:
        few = f"{quoted(read.name)} has {len(target.kept)} rows with a target"
        raise DataError(f"{few}; at least {_MIN_ROWS} are needed.")


def _read_grid(param_grid: str | Path | Mapping[str, Sequence[Any]]) -> list[_Values]:
    if isinstance(param_grid, Mapping):
        return [_checked_values(param_grid, "`param_grid`")]
    if str(param_grid) in _GRIDS:
        return [_GRIDS[str(param_grid)]]
    path = Path(param_grid)
    if not path.is_file():
        hint = did_you_mean(param_grid, _GRIDS)
        raise ParameterError(
            f"`param_grid` must be 'small', 'wide' or a JSON file; there is no file {str(param_grid)!r}.{hint}"
        )
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ParameterError(f"The grid '{path.name}' is not JSON: {error}.") from error
    grids = read if isinstance(read, list) else [read]
    if not grids:
        raise ParameterError(f"The grid '{path.name}' is empty.")
    return [_checked_values(grid, f"The grid '{path.name}'") for grid in grids]


def _checked_values(grid: object, source: str) -> _Values:
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


def _check_grid(grids: list[_Values], task: Task) -> None:
    """Refuses parameters that the estimator does not have, and names near misses."""
    for candidate in ParameterGrid(grids):
        try:
            estimator_class(task)().set_params(**candidate)
        except ParameterError as error:
            raise ParameterError(f"The grid cannot be used. {error}") from error


# ------------------------------------------------------------------------------------------------------------ folds


def _choose_repeats(n_repeats: int | None, n_folds: int, grouping: Grouping) -> int:
    if grouping.time is None:
        return math.ceil(_FOLDS_OF_A_COMPARISON / n_folds) if n_repeats is None else n_repeats
    if n_repeats:
        raise ParameterError(
            "`n_repeats` must be 0, or left out, together with `time`: folds that go forward in time can be cut in one "
            f"way only. Got {n_repeats!r}."
        )
    return 0


def _choose_folds(
    target: Target, held_out: Holdout, cv: int | None, grouping: Grouping, random_state: int
) -> tuple[int, str]:
    n_train = len(held_out.train)
    if grouping.values is not None:
        return _choose_whole_folds(target, held_out, cv, grouping, random_state)
    if target.task == "regression":
        if cv is not None and cv > n_train // 2:
            raise ParameterError(f"`cv` of {cv} is too much for {n_train} training rows. Take at most {n_train // 2}.")
        return (cv, "as requested") if cv is not None else (3, "the default")
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
        return cv, "as requested"
    if smallest < 3:
        return 2, f"the class {quoted(label)} has {smallest} training rows"
    return 3, "the default"


def _choose_whole_folds(
    target: Target, held_out: Holdout, cv: int | None, grouping: Grouping, random_state: int
) -> tuple[int, str]:
    """As many folds as leave every class on both sides of each, where groups or times are not divided."""
    train, name = held_out.train, quoted(grouping.name)
    y, kept = target.values[train], grouping.of_rows(train)
    _refuse_missing_classes(target, held_out, grouping)
    max_folds = grouping.n_values(train) - (grouping.time is not None)
    if cv is not None and cv > max_folds:
        raise ParameterError(f"`cv` of {cv} is too much for {name} among the training rows. Take at most {max_folds}.")
    how = f"each of whole values of {name}"
    if grouping.time is not None:
        how = "each scored on rows later than those it is trained on"
    for n_folds in (3, 2) if cv is None else (cv,):
        if n_folds > max_folds:
            continue
        cut = folds(y, n_folds, task=target.task, random_state=random_state, **kept)
        if all(_can_be_scored(target, y, fold) and grouping.n_values(train[fold[0]]) > 1 for fold in cut):
            why = "as requested" if cv is not None else "the default" if n_folds == 3 else "3 would leave out a class"
            return n_folds, f"{why}, {how}"
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
            begin = f"which begin with {grouping.beginning(held_out.test)}" if side == "test" else "which are earlier"
            raise DataError(f"{which}, {begin} in {quoted(grouping.time)}. Leave the class or `time` out.")
        raise DataError(
            f"{which}, since all rows of a value of {quoted(grouping.name)} are held out together. Try another "
            "`random_state`, add rows of the class, or remove it."
        )
