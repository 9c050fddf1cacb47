"""The main job: from a table to a tuned network, an honest score, and a folder that tells how.

`plan_experiment` reads, describes and decides; whatever can be refused is refused there, within seconds and before
Keras is loaded. `Plan.run` trains: the models to beat and every candidate on the same folds of the training rows, then
the winner and the models to beat once on the test rows, and the winner beside the best simple model on folds of other
splits. `run_experiment` is both. An `Experiment` is what comes out; saved, it is a folder:

    report.html            to read: data, models to beat, candidates, learning curves, test, what was done
    run.json               to repeat: versions, seed, arguments, digest of the data, what was chosen and why
    results.csv            every candidate's scores and times
    test_predictions.csv   the held-out rows: true and predicted
    preprocessing.skops    imputing, scaling, encoding as fitted on the training rows; no pickle
    network.zip            the network, as `kerastoolkit.load` reads it; no pickle

scikit-learn owns folds, scoring and `cv_results_`: the search is its `GridSearchCV`, fed a few candidates at a time.
Those of one structure come together and are trained as one program; they are few enough that a time budget is kept,
and that an interrupted search leaves almost all it has done.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import logging
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline

from kerastoolkit import _files
from kerastoolkit._values import is_whole
from kerastoolkit._version import __version__
from kerastoolkit._words import did_you_mean, printable, quoted
from kerastoolkit.data.repeats import Question, find_questions
from kerastoolkit.data.splits import GROUPS_OR_TIME, Holdout, folds, holdout
from kerastoolkit.data.tables import (
    EXACTLY,
    Column,
    Kind,
    Table,
    Target,
    as_features,
    category_names,
    describe_columns,
    read_table,
    read_target,
    unread_entries,
)
from kerastoolkit.evaluation import (
    Comparison,
    Evaluation,
    FoldScores,
    Outcome,
    Score,
    baselines,
    choose_metric,
    compare_on_folds,
    evaluate,
    metric_scorer,
    score_on_folds,
    threads_for,
)
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.search.backend import FusedBackend

__all__ = ["Experiment", "Plan", "Progress", "load_experiment", "plan_experiment", "run_experiment"]

Task = Literal["classification", "regression"]

_FORMAT = "kerastoolkit experiment"
_FORMAT_VERSION = 1
_TEST_FRACTION = 0.2
_FEWEST_ROWS = 20
# One to test on, and two folds of two: of each that are trained on, one is watched to know when to stop.
_FEWEST_GROUPS = 5
_MOST_CATEGORIES = 30
# Of the winner with the best simple model: twice as many would narrow the interval by 8% only.
_FOLDS_OF_A_COMPARISON = 15
_SECONDS_BETWEEN_REPORTS = 0.2  # of the epochs done, while fits are trained
# What is trained together is lost together when the search is interrupted; with a budget, structures take turns.
_SECONDS_A_BATCH, _A_TURN_WITH_A_BUDGET = 20, 4
_REPORT, _RUN, _RESULTS = "report.html", "run.json", "results.csv"
_TEST_PREDICTIONS, _PREPROCESSING, _NETWORK = "test_predictions.csv", "preprocessing.skops", "network.zip"

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
# What skops does not trust by itself and a preprocessing of ours holds. Nothing that a file says is added to it.
_TRUSTED_TYPES = ("numpy.dtype", "sklearn.compose._column_transformer._RemainderColsList")  # the latter of 1.6
# Scored on the test rows beside the metric that chose.
_ALSO_SCORED = {
    "classification": ("accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"),
    "regression": ("r2", "neg_root_mean_squared_error", "neg_mean_absolute_error"),
}


# -------------------------------------------------------------------------------------------------------- the doors


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
    belonging = _find_belonging(read.frame, columns, found, groups, time)
    columns = belonging.columns
    if not any(column.is_used for column in columns):
        raise DataError(_nothing_to_learn_from(target, columns))
    if len(found.kept) < _FEWEST_ROWS:
        few = f"{quoted(read.name)} has {len(found.kept)} rows with a target"
        raise DataError(f"{few}; at least {_FEWEST_ROWS} are needed.")
    chosen_metric, metric_why = choose_metric(found.values, found.task, metric)
    held_out = holdout(found.values, _TEST_FRACTION, task=found.task, random_state=seed, **belonging.of_rows())
    n_folds, cv_why = _choose_folds(found, held_out, cv, belonging, seed)
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
        n_repeats=_choose_repeats(n_repeats, n_folds, belonging),
        seed=seed,
        time_budget=time_budget,
        out=folder,
        arguments=arguments,
        X=X,
        belonging=belonging,
    )


def load_experiment(folder: str | Path) -> Experiment:
    """Reads the folder that an experiment wrote.

    The folder may come from a stranger: nothing in it is executed, and no other file is read. The preprocessing may
    hold nothing but what a preprocessing is made of here, and the network is read as `kerastoolkit.load` reads it in
    safe mode.

    Args:
        folder: The folder.

    Returns:
        The `Experiment`, able to predict if its search was completed.

    Raises:
        SavedFileError: If it is no such folder, is damaged, or was written by a newer version.
    """
    folder = Path(folder)
    with _files.refusing(folder, "an experiment"):
        try:
            return _from_record(_read_record(folder), folder)
        except FileNotFoundError as error:
            missing = Path(error.filename or "").name or str(error)
            raise SavedFileError(f"'{folder}' is incomplete: it has no {missing}.") from error


@dataclass(frozen=True)
class Progress:
    """How far an experiment is.

    Attributes:
        stage: `"models to beat"`, `"candidates"`, `"final fit"`, `"test"`, `"comparison"` or `"done"`.
        done: Fits finished in this stage.
        total: Fits of this stage.
        seconds: Seconds since the experiment began.
        seconds_left: Seconds it will probably still take; None while unknown.
        best: Best mean score so far; None while unknown.
        message: The step in words.
    """

    stage: str
    done: int
    total: int
    seconds: float
    seconds_left: float | None
    best: float | None
    message: str


# --------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Belonging:
    """Which rows belong together, or when they were taken; or what there is to ask about it.

    Attributes:
        columns: What each column but the target holds; a column of groups or times is no feature.
        groups: Name of the column of groups; None without.
        time: Name of the column of times; None without.
        values: Number of the group of each row that has a target, or its time, shape `(n_rows,)`; None without.
        is_date: Whether the times are dates, in days since 1970.
        questions: Columns that may keep rows together, if neither was given.
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

    def of_rows(self, rows: Any = slice(None)) -> dict[str, np.ndarray]:
        """The groups or times of some rows, by the name of the argument that takes them; empty without."""
        return {} if self.values is None else {"groups" if self.groups is not None else "time": self.values[rows]}

    def n_values(self, rows: Any = slice(None)) -> int:
        """Number of different groups or times among some rows."""
        return 0 if self.values is None else len(np.unique(self.values[rows]))

    def beginning(self, rows: Any) -> str:
        """The first time of some rows, for people to read."""
        if self.values is None or self.time is None:
            return ""
        first = float(self.values[rows].min())
        if not self.is_date:
            return f"{first:.12g}"
        moment = (pd.Timestamp(0) + pd.Timedelta(days=first)).round("s")
        return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M:%S}"


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
        belonging: Which rows belong together, or when they were taken.
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
    belonging: Belonging

    def __repr__(self) -> str:
        return f"<Plan to predict {quoted(self.target.name)}>\n{self.describe(most_columns=10)}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Columns whose rows may belong together: `groups` or `time` answers, and so does False for either."""
        return self.belonging.questions

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
            ("Comparison", _where_compared(self.n_repeats, self.n_folds)),
        ]
        if self.target.n_blank:
            decided.insert(1, ("Left out", f"{self.target.n_blank} rows without a target"))
        if self.time_budget is not None:
            decided.append(("Time budget", f"no candidate is begun after {self.time_budget:g} s"))
        return decided

    def _held_out_why(self) -> str:
        belonging, test = self.belonging, self.held_out.test
        if belonging.groups is not None:
            told = f"{belonging.n_values(test)} of the {belonging.n_values()} values of {quoted(belonging.groups)}"
            return f"{told}, none of which is among the training rows"
        if belonging.time is not None:
            return f"the latest, from {belonging.beginning(test)} on in {quoted(belonging.time)}"
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
        return _Run(self, progress).carry_out()


def _where_compared(n_repeats: int, n_folds: int) -> str:
    where = f"{n_repeats * n_folds} folds of other splits" if n_repeats else f"the {n_folds} folds of the search alone"
    return f"the best network with the best simple model, on {where}"


def _choose_repeats(n_repeats: int | None, n_folds: int, belonging: Belonging) -> int:
    if belonging.time is None:
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


def _choose_folds(
    target: Target, held_out: Holdout, cv: int | None, belonging: Belonging, seed: int
) -> tuple[int, str]:
    n_train = len(held_out.train)
    if belonging.values is not None:
        return _choose_whole_folds(target, held_out, cv, belonging, seed)
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
    target: Target, held_out: Holdout, cv: int | None, belonging: Belonging, seed: int
) -> tuple[int, str]:
    """As many folds as leave every class on both sides of each, where groups or times are not divided."""
    train, name = held_out.train, quoted(belonging.name)
    y, kept = target.values[train], belonging.of_rows(train)
    _refuse_missing_classes(target, held_out, belonging)
    most = belonging.n_values(train) - (belonging.time is not None)
    if cv is not None and cv > most:
        raise ParameterError(f"`cv` of {cv} is too much for {name} among the training rows. Take at most {most}.")
    why = f", each of whole values of {name}"
    if belonging.time is not None:
        why = ", each scored on rows later than those that it is trained on"
    for n_folds in (3, 2) if cv is None else (cv,):
        if n_folds > most:
            continue
        cut = folds(y, n_folds, task=target.task, random_state=seed, **kept)
        if all(_can_be_scored(target, y, fold) and belonging.n_values(train[fold[0]]) > 1 for fold in cut):
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


def _refuse_missing_classes(target: Target, held_out: Holdout, belonging: Belonging) -> None:
    if target.task == "regression":
        return
    if belonging.groups is not None:
        for label in np.unique(target.values):
            if (n_with := belonging.n_values(target.values == label)) < 3:
                raise DataError(
                    f"The class {quoted(label)} of the target {quoted(target.name)} has rows of {n_with} of the "
                    f"{belonging.n_values()} values of {quoted(belonging.groups)}, and at least 3 are needed: two to "
                    "train on in turn and one to test on. Add some, or remove the class."
                )
    for side, rows in (("training", held_out.train), ("test", held_out.test)):
        missing = np.setdiff1d(target.values, target.values[rows])
        if not len(missing):
            continue
        which = f"The class {quoted(missing[0])} of the target {quoted(target.name)} is not among the {side} rows"
        if belonging.time is not None:
            told = f"which begin with {belonging.beginning(held_out.test)}" if side == "test" else "which are earlier"
            raise DataError(f"{which}, {told} in {quoted(belonging.time)}. Leave the class or `time` out.")
        raise DataError(
            f"{which}, since {quoted(belonging.name)} is held out by whole values. Try another `seed`, add rows of "
            "the class, or remove it."
        )


# ------------------------------------------------------------------------------------------- rows that belong together


def _find_belonging(
    frame: pd.DataFrame,
    columns: list[Column],
    target: Target,
    groups: str | Literal[False] | None,
    time: str | Literal[False] | None,
) -> Belonging:
    """The groups or times of the rows, and the columns without theirs; or what there is to ask."""
    name_of_groups = _column_named(groups, "groups", frame, target.name)
    name_of_time = _column_named(time, "time", frame, target.name)
    if name_of_groups is not None and name_of_time is not None:
        raise ParameterError(GROUPS_OR_TIME)
    if name_of_groups is None and name_of_time is None:
        asked = find_questions(frame, columns, target, groups=groups is None, time=time is None)
        return Belonging(columns, questions=asked)
    name = name_of_groups or name_of_time
    column = next(column for column in columns if column.name == name)
    if name_of_groups is not None:
        values, note = _group_numbers(frame, column, target), "left out: its values are held out as wholes"
        if column.n_blank:
            note += "; rows without one are kept together"
    else:
        values, note = _times(frame, column, target), "left out: the latest rows are held out by it"
    kind: Kind = "group" if name_of_groups is not None else "time"
    others = [replace(column, kind=kind, note=note) if one is column else one for one in columns]
    return Belonging(others, name_of_groups, name_of_time, values, is_date=column.kind == "date")


def _column_named(name: Any, argument: str, frame: pd.DataFrame, target: str) -> str | None:
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
    # As text, so that 7, 7.0 and " 7" are one patient; those without a value are one group.
    texts = as_features(frame[[column.name]], [replace(column, kind="category")]).iloc[target.kept, 0]
    values = np.asarray(pd.factorize(texts, use_na_sentinel=False)[0])
    n_values = len(np.unique(values))
    if n_values < _FEWEST_GROUPS:
        raise DataError(
            f"{quoted(column.name)} has {n_values} different values in {len(values)} rows, and `groups` needs at least "
            f"{_FEWEST_GROUPS}: one to test on, and two in each of two folds. Leave `groups` out, or add rows of "
            "other ones."
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
            f"{quoted(column.name)} has no {kind} in {n_unread} of {len(times)} rows, which so have no place in time. "
            "Correct or remove them."
        )
    if (n_values := len(np.unique(times))) < _FEWEST_GROUPS:
        raise DataError(
            f"{quoted(column.name)} has {n_values} different values in {len(times)} rows, and `time` needs at least "
            f"{_FEWEST_GROUPS}: the latest to test on, and earlier ones to train and to be scored on in turn."
        )
    return times


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
            _estimator_class(task)().set_params(**candidate)
        except ParameterError as error:
            raise ParameterError(f"The grid cannot be used. {error}") from error


# ------------------------------------------------------------------------------------------------------- the models


def _estimator_class(task: Task) -> Any:
    from kerastoolkit.estimators import KerasClassifier, KerasRegressor

    return KerasClassifier if task == "classification" else KerasRegressor


def _preparation(columns: Sequence[Column], X: pd.DataFrame) -> BaseEstimator:
    """Imputes, scales and encodes; blanks and categories never seen have a place."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = category_names(columns)
    numbers = [name for name in X.columns if name not in set(categories)]
    # A column that is blank in one fold alone must keep its place, or the networks' inputs would differ.
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encode = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES, sparse_output=False, dtype=np.float32
    )
    fill = SimpleImputer(strategy="constant", fill_value="(blank)", keep_empty_features=True)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(impute, StandardScaler()), numbers),
            ("categories", make_pipeline(fill, encode), categories),
        ],
        verbose_feature_names_out=False,
        sparse_threshold=0.0,
    )


def _network(task: Task, n_rows: int, seed: int) -> Any:
    """The estimator that the grid varies: sized for the number of rows, stopped when validation rows say so."""
    import keras

    batch_size, epochs, patience = _training_size(n_rows)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)
    estimator = _estimator_class(task)(
        epochs=epochs,
        batch_size=batch_size,
        validation_split=0.15,
        callbacks={"early_stopping": stop},
        random_state=seed,
    )
    if task == "classification":
        return estimator
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    # A network starts near 0; a target in the hundreds would take it most of its epochs to reach.
    return TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())


def _training_size(n_rows: int) -> tuple[int, int, int]:
    """Batch size, most epochs and patience: small tables many epochs of small batches, large ones the reverse.

    An epoch costs some 40 ms however few its rows, so that steps are cheaper in longer epochs: hence small batches.
    """
    batch_size = int(min(max(2 ** round(math.log2(max(n_rows, 1) / 30)), 16), 512))
    steps_per_epoch = max(n_rows // batch_size, 1)
    epochs = int(min(max(4000 // steps_per_epoch, 15), 40))
    return batch_size, epochs, max(epochs // 6, 3)


def _prefix(task: Task) -> str:
    return "network__" if task == "classification" else "network__regressor__"


# ---------------------------------------------------------------------------------------------------------- the run


class _Run:
    """One plan being carried out: keeps the time, tells progress, and holds what there is so far."""

    def __init__(self, plan: Plan, progress: Callable[[Progress], None] | None) -> None:
        self.plan = plan
        self.tell = progress or (lambda progress: None)
        self.began = time.monotonic()
        self.experiment = Experiment(
            name=plan.table.name,
            target=plan.target.name,
            task=plan.target.task,
            metric=plan.metric,
            columns=plan.columns,
            decisions=plan.decisions(),
            record=_first_record(plan),
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def carry_out(self) -> Experiment:
        if self.plan.out is not None:
            self.plan.out.mkdir(parents=True, exist_ok=True)
        try:
            with _without_expected_warnings():
                self._train()
        except KeyboardInterrupt:
            self._ended_with("interrupted")
            raise
        except Exception:
            self._ended_with("failed")
            raise
        finally:
            # Rounded once, so that what is saved is what is shown.
            self.experiment.seconds = round(self.seconds, 1)
            self._save()
        self.report("done", 1, 1, 0.0, "done")
        return self.experiment

    def _ended_with(self, status: Literal["interrupted", "failed"]) -> None:
        # If it is complete, only the comparison is missing, and the folds of the search make up for it.
        if self.experiment.status != "complete":
            self.experiment.status = status

    def _save(self) -> None:
        """Writes the folder; if it cannot be written, says so, and what hours of training have found is returned."""
        if self.plan.out is None:
            return
        try:
            self.experiment.save(self.plan.out)
        except Exception as error:
            self.experiment.unsaved = why = f"{type(error).__name__}: {error}"
            message = f"Not all of the folder {quoted(self.plan.out)} could be written ({why})."
            if self.experiment.status == "complete":
                message += " The `Experiment` that is returned holds everything: call its `save` with another folder."
            warnings.warn(message, KerasToolkitWarning, stacklevel=5)

    def _train(self) -> None:
        plan, experiment = self.plan, self.experiment
        X, y = plan.X.iloc[plan.held_out.train].reset_index(drop=True), plan.target.values[plan.held_out.train]
        folds = _folds(X, y, plan)
        classes = np.unique(y) if plan.target.task == "classification" else None
        scorer = metric_scorer(plan.metric, classes)
        prepare = _preparation(plan.columns, X)
        models = baselines(plan.target.task, prepare, categories=category_names(plan.columns), seed=plan.seed)
        self._score_baselines(models, X, y, folds, scorer)

        self.report("candidates", 0, plan.n_candidates * plan.n_folds, None, "loading Keras")
        network = _network(plan.target.task, int(len(X) * (1 - 1 / plan.n_folds)), plan.seed)
        search = _InBatches(
            Pipeline([("prepare", prepare), ("network", network)]),
            [{_prefix(plan.target.task) + key: values for key, values in grid.items()} for grid in plan.grids],
            scoring=scorer,
            cv=folds,
        )
        search.watch = watch = _Watch(self)
        backend = FusedBackend(on_epoch_end=watch.while_training, around=watch.around)
        try:
            with joblib.parallel_config(backend=backend):
                search.fit(X, y, **self._kept_together())
        finally:
            experiment.decisions.append(("Training", backend.report.explain().replace("\n", " ").rstrip(".")))
        experiment.best_index = _results_table(search.cv_results_).index.tolist().index(search.best_index_)
        experiment._take_model(search.best_estimator_)

        self._score_test_rows(search.best_estimator_, models, X, y)
        experiment.status = "complete"
        experiment.comparison = experiment._compared_by_the_search()
        self._compare(clone(search.estimator).set_params(**search.best_params_), models, X, y, max(watch.seconds))

    def _kept_together(self) -> dict[str, np.ndarray]:
        """What `fit` is told so that none of the rows that tell when to stop belong to rows that are trained on."""
        kept = self.plan.belonging.of_rows(self.plan.held_out.train)
        return {f"network__{name}": values for name, values in kept.items()}

    def _score_baselines(
        self, models: dict[str, Any], X: pd.DataFrame, y: np.ndarray, folds: list[Any], scorer: Callable[..., float]
    ) -> None:
        for done, (name, model) in enumerate(models.items()):
            self.report("models to beat", done, len(models), None, name)
            scores = score_on_folds(name, model, X, y, folds=folds, metric=self.plan.metric, scorer=scorer)
            self.experiment.baselines.append(scores)

    def _score_test_rows(self, winner: Any, models: dict[str, Any], X: pd.DataFrame, y: np.ndarray) -> None:
        """The winner on the test rows, and the models to beat, fitted on the same training rows."""
        plan, experiment = self.plan, self.experiment
        X_test, y_test = plan.X.iloc[plan.held_out.test], plan.target.values[plan.held_out.test]
        classes = np.unique(y) if plan.target.task == "classification" else None
        scorers = _test_scorers(plan.metric, plan.target.task, classes)
        options: dict[str, Any] = {"n_resamples": int(np.clip(2_000_000 // len(y_test), 100, 500)), "seed": plan.seed}
        options["groups"] = plan.belonging.of_rows(plan.held_out.test).get("groups")
        self.report("test", 0, 1 + len(models), None, "scoring the test rows")
        experiment.test = evaluate(winner, X_test, y_test, scorers, **options)
        experiment.test_rows = plan.target.kept[plan.held_out.test]
        for done, (name, model) in enumerate(models.items(), 1):
            self.report("test", done, 1 + len(models), None, name)
            # A model that fails here, as on folds that have no score, is one that nobody can take.
            with contextlib.suppress(ValueError):
                fitted = _fit_baseline(model, X, y)
                experiment.baseline_tests[name] = evaluate(fitted, X_test, y_test, scorers, **options).scores
                experiment.baseline_models[name] = _on_tables(fitted, plan.columns)

    def _compare(self, network: Any, models: dict[str, Any], X: pd.DataFrame, y: np.ndarray, seconds: float) -> None:
        """Cross-validates the winner and the best model to beat on splits that no choice was made by."""
        plan, experiment = self.plan, self.experiment
        rival = experiment.best_baseline
        if rival is None or experiment.comparison is None:
            return
        n_repeats = self._repeats_in_time(seconds + rival.fit_seconds * plan.n_folds)
        seeds = [(plan.seed + 1 + repeat) % 2**32 for repeat in range(n_repeats)]
        folds = [fold for seed in seeds for fold in _folds(X, y, plan, seed)]
        if not folds:
            return
        classes = np.unique(y) if plan.target.task == "classification" else None
        options: dict[str, Any] = {"folds": folds, "metric": plan.metric, "scorer": metric_scorer(plan.metric, classes)}
        self.report("comparison", 0, 2, None, f"{rival.name} on {len(folds)} folds of other splits")
        theirs = score_on_folds(experiment.comparison.second, models[rival.name], X, y, **options)
        self.report("comparison", 1, 2, None, f"the best network on {len(folds)} folds of other splits")
        options["fit_params"] = self._kept_together()
        with joblib.parallel_config(backend=FusedBackend()):
            ours = score_on_folds(experiment.comparison.first, network, X, y, **options)
        n_train, n_test = (float(np.mean([len(rows) for rows in some])) for some in zip(*folds, strict=True))
        experiment.comparison = compare_on_folds(ours, theirs, n_train, n_test)

    def _repeats_in_time(self, seconds: float) -> int:
        """How often there is time for a cross-validation of the winner and its rival that takes so many seconds."""
        plan, n_repeats = self.plan, self.plan.n_repeats
        if plan.time_budget is not None:
            n_repeats = int(np.clip((plan.time_budget - self.seconds) / max(seconds, 1e-9), 0, n_repeats))
        if n_repeats < plan.n_repeats:
            told = dict(self.experiment.decisions)
            told["Comparison"] = f"{_where_compared(n_repeats, plan.n_folds)}, for want of time"
            self.experiment.decisions = list(told.items())
        return n_repeats

    def report(self, stage: str, done: int, total: int, left: float | None, message: str) -> None:
        self.tell(Progress(stage, done, total, self.seconds, left, self.experiment.best_score, message))


class _InBatches(GridSearchCV):
    """scikit-learn's grid search, a few candidates at a time."""

    watch: _Watch

    def _run_search(self, evaluate_candidates: Callable[..., dict[str, Any]]) -> None:
        self.watch.search(list(ParameterGrid(self.param_grid)), evaluate_candidates)


class _Watch:
    """Cuts the search into batches, counts its fits, keeps the budget, saves results as they come."""

    def __init__(self, run: _Run) -> None:
        self.run, self.plan, self.experiment = run, run.plan, run.experiment
        self.fits_done = self.fits_before = self.fits_together = 0  # before this batch, and in it
        self.seconds: list[float] = []  # a candidate
        self.errors: dict[int, list[str]] = {}  # by place in the batch
        self.began, self.last_told = time.monotonic(), 0.0

    def search(self, candidates: list[dict[str, Any]], evaluate: Callable[..., dict[str, Any]]) -> None:
        left = self._in_order(candidates)
        while left and (batch := self._next_batch(left)):
            left = left[len(batch) :]
            self._train(batch, evaluate)
        self.experiment.left_out = [_bare(candidate) for candidate in left]
        failed = self.experiment.failed
        if self.experiment.best_score is None and failed:
            raise DataError(f"No candidate could be trained; the last one ended with: {failed[-1]['error']}")
        seconds = (time.monotonic() - self.began) / max(self.fits_done, 1)
        self.run.report("final fit", 0, 1, seconds, "fitting the winner to the rows of all folds")

    def _in_order(self, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of one structure in a row. The order, and so who wins among equals, does not depend on their speed."""
        a_turn = len(candidates)
        if self.plan.time_budget is not None:
            # In the order of the grid, a budget would always cut off the same corner of it.
            order = np.random.RandomState(self.plan.seed).permutation(len(candidates))
            candidates, a_turn = [candidates[position] for position in order], _A_TURN_WITH_A_BUDGET
        alike: dict[str, list[dict[str, Any]]] = {}
        for candidate in candidates:
            alike.setdefault(_structure(candidate), []).append(candidate)
        turns = range(0, len(candidates), a_turn)
        return [one for turn in turns for some in alike.values() for one in some[turn : turn + a_turn]]

    def _next_batch(self, left: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As many of one structure as there is time for, none if there is no time; one while the speed is unknown."""
        if not self.seconds:
            return left[:1]
        n_together = max(int(_SECONDS_A_BATCH / np.mean(self.seconds)), 1)
        if self.plan.time_budget is not None:
            # A candidate costs its folds, as a repeat of the comparison does, and the winner one fit more.
            kept = min(self.plan.n_repeats * max(self.seconds), self.plan.time_budget / 3)
            in_time = (self.plan.time_budget - kept - self.run.seconds) / max(self.seconds) - 1 / self.plan.n_folds
            n_together = min(n_together, max(int(in_time), 0))
        structure = _structure(left[0])
        return list(itertools.takewhile(lambda one: _structure(one) == structure, left[:n_together]))

    def _train(self, batch: list[dict[str, Any]], evaluate: Callable[..., dict[str, Any]]) -> None:
        """Candidates that cannot be trained are noted and passed over: the others may still be good."""
        n_folds, n_before, began = self.plan.n_folds, self.experiment.n_evaluated, time.monotonic()
        self.fits_before, self.fits_together, self.errors = self.fits_done, len(batch) * n_folds, {}
        try:
            self.experiment.results = _results_table(evaluate(batch)).reset_index(drop=True)
        except ValueError:  # what scikit-learn raises if all fits failed
            if sum(map(len, self.errors.values())) < self.fits_together:
                raise
        if self.plan.out is not None and self.experiment.n_evaluated:
            with contextlib.suppress(OSError):  # a full disk is told at the end, when the folder is written
                self.experiment.results.to_csv(self.plan.out / _RESULTS, index=False)
        for place, errors in sorted(self.errors.items()):
            where = "" if len(errors) == n_folds else f"in {len(errors)} of {n_folds} folds, "
            self.experiment.failed.append({"params": _bare(batch[place]), "error": where + _last_line(errors[-1])})
        if n_scored := self.experiment.n_evaluated - n_before:
            self.seconds += [(time.monotonic() - began) / n_scored] * n_scored

    def around(self, call: Any) -> Callable[[], Any]:
        """The same task of joblib's, whose fits are counted."""

        def observed() -> Any:
            results = call()
            for (_, _, keywords), result in zip(call.items, results, strict=True):
                if "candidate_progress" in keywords:  # a fit of the search
                    if math.isnan(result["test_scores"]):
                        error = result["fit_error"] or "what it predicts could not be scored"
                        self.errors.setdefault(keywords["candidate_progress"][0], []).append(error)
                    result["fit_time"] /= self.fits_together  # each has waited for all
                    self.fits_done += 1
                    self._tell(self.fits_done, "searching")
            return results

        return observed

    def while_training(self, epochs_done: int, epochs: int) -> None:
        """So many of the epochs of the fits in training are done."""
        if time.monotonic() - self.last_told > _SECONDS_BETWEEN_REPORTS:
            share = epochs_done / max(epochs, 1)
            with contextlib.suppress(Exception):  # it would be taken for a failure of the training; raised after it
                self._tell(self.fits_before + share * self.fits_together, f"training, {share:.0%}")

    def _tell(self, fits_done: float, message: str) -> None:
        self.last_told = time.monotonic()
        per_fit = (self.last_told - self.began) / max(fits_done, 1)
        total, left = self.plan.n_candidates * self.plan.n_folds, None
        if fits_done >= 1:
            left = per_fit * (total - fits_done + 1 + self.plan.n_repeats * self.plan.n_folds)
            if self.plan.time_budget is not None:
                left = min(left, max(self.plan.time_budget - self.run.seconds, per_fit))
        self.run.report("candidates", self.fits_done, total, left, message)


def _structure(candidate: Mapping[str, Any]) -> str:
    """What candidates share that become one program, as far as their names tell: `fit_many` looks at the networks.

    Numbers go into a program as data, unless they are sizes; of dropout and penalties, 0 leaves out a part of it.
    """
    sizes = ("hidden", "batch_size")
    is_data = {name: isinstance(value, (int, float)) and not name.endswith(sizes) for name, value in candidate.items()}
    return repr({name: value != 0 if is_data[name] else value for name, value in candidate.items()})


def _folds(X: pd.DataFrame, y: np.ndarray, plan: Plan, seed: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds of the training rows; those of another seed are others, unless they go forward in time."""
    kept, seed = plan.belonging.of_rows(plan.held_out.train), plan.seed if seed is None else seed
    return folds(y, plan.n_folds, task=plan.target.task, random_state=seed, **kept)


def _best(scores: Sequence[FoldScores]) -> FoldScores | None:
    """The best of those that every fold could score."""
    return max((one for one in scores if one.is_scored), key=lambda one: one.mean, default=None)


def _fit_baseline(model: Any, X: pd.DataFrame, y: np.ndarray) -> Any:
    with threads_for(len(y)):
        return clone(model).fit(X, y)


def _on_tables(fitted: Any, columns: list[Column]) -> Pipeline:
    """A model fitted on typed features, for tables as `Experiment.predict` takes them."""
    from sklearn.preprocessing import FunctionTransformer

    return Pipeline([("features", FunctionTransformer(_features, kw_args={"columns": columns})), ("model", fitted)])


def _features(table: str | Path | pd.DataFrame, columns: list[Column]) -> pd.DataFrame:
    return as_features(read_table(table, columns=columns).frame, columns)


def _test_scorers(metric: str, task: Task, classes: np.ndarray | None) -> dict[str, Callable[..., float]]:
    names = [metric]
    for name in _ALSO_SCORED[task]:
        name = "roc_auc_ovr" if name == "roc_auc" and classes is not None and len(classes) > 2 else name
        if name not in names:
            names.append(name)
    return {name: metric_scorer(name, classes) for name in names}


def _results_table(results: dict[str, Any]) -> pd.DataFrame:
    """`cv_results_` without candidates that have no score, the column `params`, and the pipeline's prefixes."""
    table = pd.DataFrame({key: list(values) for key, values in results.items() if key != "params"})
    table = table[table.filter(regex=r"^split\d+_test_score").notna().any(axis=1)]
    return table.rename(columns=lambda name: re.sub(r"^param_network__(regressor__)?", "param_", name))


def _bare(candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"^network__(regressor__)?", "", key): value for key, value in candidate.items()}


def _last_line(error: object) -> str:
    # scikit-learn tells a candidate's error as a traceback that ends with it.
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def _without_expected_warnings() -> Iterator[None]:
    """Silence about what is expected: a linear model that could go on, a candidate that fails, many models."""
    log = logging.getLogger("tensorflow")
    level = log.level
    # TensorFlow takes many small models for a mistake, and says so at each.
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", FitFailedWarning)
            warnings.filterwarnings("ignore", "One or more of the test scores are non-finite", UserWarning)
            warnings.filterwarnings("ignore", "Scoring failed", UserWarning)
            yield
    finally:
        log.setLevel(level)


# ----------------------------------------------------------------------------------------------------- what comes out


@dataclass(repr=False)
class Experiment:
    """An experiment carried out: what was found, what was tried, what won, and how good it is.

    Attributes:
        name: Name of the data.
        target: Name of the target column.
        task: `"classification"` or `"regression"`.
        metric: Name of the scorer that chose the winner.
        columns: What each column but the target holds.
        decisions: What was decided and why, as pairs of a title and a sentence.
        record: What `run.json` says of the data, the arguments and the versions.
        status: `"complete"`, `"interrupted"` or `"failed"`.
        seconds: How long it took.
        baselines: Scores of the models to beat, on the same folds as the candidates.
        results: scikit-learn's `cv_results_`, a row a candidate. Fits trained together share their time.
        best_index: Row of the winner in `results`; None if the search was not completed.
        left_out: Candidates for which there was no time.
        failed: Candidates that could not be trained and scored on all folds, with their errors.
        history: The winner's training, values by epoch.
        test: The winner on the held-out rows; None if there is no winner.
        baseline_tests: Scores of the models to beat on the held-out rows, by name of the model and of the metric.
        baseline_models: The models to beat, fitted on the training rows, by name: scikit-learn pipelines that predict
            tables as `predict` takes them. They are not saved: `fit_baseline` makes them anew.
        comparison: Whether the winner or the best model to beat is better, on folds of other splits than the search's;
            on the search's, if there was no time for others. None until the search is complete, and for experiments of
            earlier versions.
        test_rows: Positions of the held-out rows in the table, shape `(n_test,)`.
        prepare: The fitted transformer of the winner: typed features to the network's inputs.
        network: The fitted `KerasClassifier` or `KerasRegressor`.
        target_scale: The fitted scaler of a regression target; None for classification.
        unsaved: Why the run could not write all of its folder, such as a full disk; empty if it could.
    """

    name: str
    target: str
    task: Task
    metric: str
    columns: list[Column]
    decisions: list[tuple[str, str]]
    record: dict[str, Any]
    status: Literal["complete", "interrupted", "failed"] = "interrupted"
    seconds: float = 0.0
    baselines: list[FoldScores] = field(default_factory=list)
    results: pd.DataFrame = field(default_factory=pd.DataFrame)
    best_index: int | None = None
    left_out: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    test: Evaluation | None = None
    baseline_tests: dict[str, dict[str, Score]] = field(default_factory=dict)
    baseline_models: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    test_rows: np.ndarray | None = None
    prepare: Any = None
    network: Any = None
    target_scale: Any = None
    unsaved: str = ""

    def __repr__(self) -> str:
        """What it is and how good, in a few lines."""
        data = self.record["data"]
        lines = [
            f"<Experiment on {quoted(self.name)}: {self.status}>",
            f"  predicts {quoted(self.target)} ({self.task}) from {data['n_rows']} rows, {data['n_columns']} columns",
        ]
        if self.best_index is not None:
            lines.append(f"  winner of {self.n_evaluated} candidates: {self.candidates()[self.best_index][1]}")
        elif self.n_evaluated:
            lines.append(f"  {self.n_evaluated} of {self.record['n_candidates']} candidates were evaluated")
        if self.test is not None:
            lines.append(f"  on {self.tested_on()}: {self.test.scores[self.metric]}")
        if self.n_evaluated:
            lines.append(f"  {self.verdict()}")
        return "\n".join(map(printable, lines))

    @property
    def questions(self) -> tuple[Question, ...]:
        """Columns whose rows may belong together, and which neither `groups` nor `time` has answered for."""
        return tuple(Question(**question) for question in self.record["questions"])

    def tested_on(self) -> str:
        """What the test rows are, in words that claim no more than is true of them."""
        split = self.record["split"]
        n_rows = split["test"] if self.test is None else len(self.test.y_true)
        if split["groups"] is not None:
            of = f"{split['n_test_values']:,} values of {quoted(split['groups'])}"
            return f"{n_rows:,} rows of {of} that are not among the training rows"
        if split["time"] is not None:
            return f"the latest {n_rows:,} rows, from {split['from']} on in {quoted(split['time'])}"
        told = f"{n_rows:,} rows held out at random"
        if asked := [quoted(question.column) for question in self.questions if question.argument == "groups"]:
            return f"{told} (with rows of the same {' or '.join(asked)} among the training rows)"
        if asked := [quoted(question.column) for question in self.questions]:
            return f"{told} (with rows before and after them in {' or '.join(asked)} among the training rows)"
        return told

    @property
    def n_evaluated(self) -> int:
        """Number of candidates that were evaluated."""
        return len(self.results)

    @property
    def best_score(self) -> float | None:
        """Best mean score of a candidate over the folds; None without any."""
        if self.results.empty:
            return None
        best = float(self.results["mean_test_score"].max())
        return best if math.isfinite(best) else None

    @property
    def best_baseline(self) -> FoldScores | None:
        """The model to beat with the best mean over the folds; None without any that all folds could score."""
        return _best(self.baselines)

    @property
    def best_params(self) -> dict[str, Any]:
        """The winner's values by parameter; empty if there is no winner."""
        return {} if self.best_index is None else self.candidates()[self.best_index][0]

    @property
    def best_epoch(self) -> int | None:
        """The epoch of `history`, counted from 1, whose weights the winner kept; None if there is no winner."""
        return None if self.network is None else self.network.best_epoch_

    def candidates(self) -> list[tuple[dict[str, Any], FoldScores]]:
        """The candidates in the order of `results`: their parameters, and their scores over the folds."""
        splits = [name for name in self.results.columns if re.fullmatch(r"split\d+_test_score", name)]
        names = [name for name in self.results.columns if name.startswith("param_")]
        found = []
        for row in self.results.to_dict("records"):
            params = {name.removeprefix("param_"): row[name] for name in names if not _is_masked(row[name])}
            scores = tuple(float(row[split]) for split in splits)
            found.append((params, FoldScores(_spelt(params), self.metric, scores, float(row["mean_fit_time"]))))
        return found

    def verdict(self) -> str:
        """Whether the best network or the best model to beat is better, or that it cannot be told, in a sentence."""
        comparison = self.comparison or self._compared_by_the_search()
        if comparison is None:
            return "There is nothing to compare yet."
        return f"{comparison}{' Prefer it, unless a network is needed.' * (comparison.outcome == 'behind')}"

    def _compared_by_the_search(self) -> Comparison | None:
        """The comparison on the folds of the search, which are few, and by which the best network was chosen."""
        scored = [scores for _, scores in self.candidates()]
        best = scored[self.best_index] if self.best_index is not None else _best(scored)
        rival, split = self.best_baseline, self.record["split"]
        if best is None or rival is None:
            return None
        n_test = split["train"] / (split["folds"] + (split["time"] is not None))
        # Forward in time, each fold is trained on more than the one before: a mean.
        n_train = split["train"] / 2 if split["time"] is not None else split["train"] - n_test
        best = replace(best, name="the best network")
        rival = replace(rival, name=rival.name[:1].lower() + rival.name[1:])
        return compare_on_folds(best, rival, n_train, n_test)

    def fit_baseline(self, name: str, table: str | Path | pd.DataFrame) -> Pipeline:
        """Fits one of the models to beat on all rows of a table that have a target, to take it in the network's place.

        Example:

        >>> experiment = load_experiment("FOLDER")  # doctest: +SKIP
        >>> model = experiment.fit_baseline("Gradient boosting", "TABLE.csv")  # doctest: +SKIP
        >>> model.predict("NEW.csv")  # doctest: +SKIP

        Args:
            name: Name of the model, as in `baselines` and in the report.
            table: Path of a CSV or Parquet file, or a DataFrame: the table of the experiment, or one with its columns.

        Returns:
            A fitted scikit-learn pipeline, whose `predict` takes tables as `Experiment.predict` does.

        Raises:
            ParameterError: If there is no such model; near misses are named.
            DataError: If the table cannot be read, or lacks a column.
        """
        read = read_table(table, columns=self.columns)
        self._warn_of_doubts(read)
        X = as_features(read.frame, self.columns)
        seed = self.record["arguments"].get("seed", 0)
        models = baselines(self.task, _preparation(self.columns, X), categories=category_names(self.columns), seed=seed)
        if name not in models:
            raise ParameterError(f"There is no model {quoted(name)} to beat, but {', '.join(map(quoted, models))}.")
        found = read_target(read, self.target, task=self.task)
        return _on_tables(_fit_baseline(models[name], X.iloc[found.kept], found.values), self.columns)

    def predict(self, table: str | Path | pd.DataFrame) -> pd.DataFrame:
        """Predicts the target of new rows.

        Categories never seen and blanks are fine; columns that were not used may be missing.

        Args:
            table: Path of a CSV or Parquet file, or a DataFrame, with the columns that are used.

        Returns:
            A table of the same length and index: the prediction, named after the target, and for classification the
            probability of each class.

        Warns:
            KerasToolkitWarning: If entries could not be read as their column's kind, such as words among numbers, or
                if they have two readings and the first table has not shown which is meant.

        Raises:
            DataError: If the table cannot be read, or lacks a column.
            SavedFileError: If the experiment has no model, having been interrupted.
        """
        if self.network is None:
            raise SavedFileError(f"This experiment has no model to predict with: it was {self.status}. Run it again.")
        read = read_table(table, columns=self.columns)
        self._warn_of_doubts(read)
        frame = read.frame
        features = as_features(frame, self.columns)
        self._warn_of_unread(unread_entries(frame, features, self.columns), len(frame))
        inputs = self.prepare.transform(features)
        index = (table if isinstance(table, pd.DataFrame) else frame).index
        predicted = self.network.predict(inputs)
        if self.task == "regression":
            values = self.target_scale.inverse_transform(np.reshape(predicted, (-1, 1)))[:, 0]
            return pd.DataFrame({f"predicted_{self.target}": values}, index=index)
        probabilities = self.network.predict_proba(inputs)
        named = {f"probability_{label}": probabilities[:, at] for at, label in enumerate(self.network.classes_)}
        return pd.DataFrame({f"predicted_{self.target}": predicted, **named}, index=index)

    def _warn_of_doubts(self, read: Table) -> None:
        """Says how numbers and dates were read that the new rows leave open, and the first rows did not settle."""
        used = {column.name for column in self.columns if column.is_used}
        doubts = [f"{quoted(name)}: {how.doubt}" for name, how in read.spellings.items() if how.doubt and name in used]
        if doubts:
            told = f"The new rows leave open how they are to be read: {'. '.join(doubts)}."
            warnings.warn(told, KerasToolkitWarning, stacklevel=3)

    def _warn_of_unread(self, unread: Mapping[str, int], n_rows: int) -> None:
        if not unread:
            return
        kinds = {column.name: column.kind for column in self.columns}
        told = ", ".join(f"{n} of {n_rows} in {quoted(name)} ({kinds[name]})" for name, n in unread.items())
        warnings.warn(
            f"Entries that are not of their column's kind were taken as blanks: {told}.",
            KerasToolkitWarning,
            stacklevel=3,
        )

    def save(self, folder: str | Path) -> Path:
        """Writes the folder that `load_experiment` reads, with the report; files of an earlier save are replaced.

        Args:
            folder: Where to write; it is made if need be.

        Returns:
            The folder.

        Raises:
            OSError: If a file could not be written; all others have been.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        errors = []
        # The report comes last: what was trained must not be lost to it. If a file fails, the others are written still.
        for write in (self._write_model, self._write_record, self._write_tables, self._write_report):
            try:
                write(folder)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return folder

    def _write_model(self, folder: Path) -> None:
        if self.network is None:
            return
        import skops.io

        skops.io.dump({"features": self.prepare, "target": self.target_scale}, folder / _PREPROCESSING)
        self.network.save(folder / _NETWORK)

    def _write_record(self, folder: Path) -> None:
        (folder / _RUN).write_text(json.dumps(self.as_dict(), indent=2, default=_plain) + "\n", encoding="utf-8")

    def _write_tables(self, folder: Path) -> None:
        if not self.results.empty:
            self.results.to_csv(folder / _RESULTS, index=False)
        if self.test is not None:
            self._test_table(self.test).to_csv(folder / _TEST_PREDICTIONS, index=False)

    def _write_report(self, folder: Path) -> None:
        from kerastoolkit.report import render_report

        (folder / _REPORT).write_text(render_report(self), encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values: what `run.json` holds."""
        chosen = None
        if self.best_index is not None:
            chosen = {
                "params": self.best_params,
                "why": f"greatest mean {self.metric} over the folds among {self.n_evaluated} candidates",
                "folds": self.candidates()[self.best_index][1].as_dict(),
                "index": self.best_index,
            }
        return {
            **self.record,
            "status": self.status,
            "seconds": self.seconds,
            "name": self.name,
            "target": self.target,
            "task": self.task,
            "metric": self.metric,
            "decisions": dict(self.decisions),
            "verdict": self.verdict(),
            "chosen": chosen,
            "test": None if self.test is None else [score.as_dict() for score in self.test.scores.values()],
            "baselines": [scores.as_dict() for scores in self.baselines],
            "baseline_tests": {
                name: [score.as_dict() for score in scores.values()] for name, scores in self.baseline_tests.items()
            },
            "comparison": None if self.comparison is None else self.comparison.as_dict(),
            "n_evaluated": self.n_evaluated,
            "left_out": self.left_out,
            "failed": self.failed,
            "history": self.history,
            "columns": [column.as_dict() for column in self.columns],
        }

    def _take_model(self, pipeline: Pipeline) -> None:
        network = pipeline.named_steps["network"]
        if self.task == "regression":
            self.target_scale, network = network.transformer_, network.regressor_
        self.prepare, self.network = pipeline.named_steps["prepare"], network
        self.history = {name: [float(value) for value in values] for name, values in network.history_.items()}

    def _test_table(self, test: Evaluation) -> pd.DataFrame:
        table: dict[str, Any] = {"row": self.test_rows, "true": test.y_true, "predicted": test.y_pred}
        if test.y_proba is not None and test.classes is not None:
            table.update({f"probability_{label}": test.y_proba[:, at] for at, label in enumerate(test.classes)})
        return pd.DataFrame(table)


def _first_record(plan: Plan) -> dict[str, Any]:
    """What `run.json` says of the beginning, as it comes back from there: arrays are lists, say."""
    record = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "arguments": plan.arguments,
        "data": {
            "name": plan.table.name,
            "sha256": plan.table.sha256,
            "n_rows": len(plan.X) + plan.target.n_blank,
            "n_columns": len(plan.columns) + 1,
            "n_blank_targets": plan.target.n_blank,
            "notes": list(plan.table.notes),
        },
        "split": {
            "train": len(plan.held_out.train),
            "test": len(plan.held_out.test),
            "how": plan.held_out.how,
            "why": plan.held_out.why,
            "folds": plan.n_folds,
            "groups": plan.belonging.groups,
            "time": plan.belonging.time,
            "n_test_values": plan.belonging.n_values(plan.held_out.test),
            "from": plan.belonging.beginning(plan.held_out.test),
        },
        "questions": [question.as_dict() for question in plan.questions],
        "grid": plan.grids,
        "n_candidates": plan.n_candidates,
        "versions": _versions(),
    }
    return dict(json.loads(json.dumps(record, default=_plain)))


def _versions() -> dict[str, str]:
    import importlib.metadata

    versions = {"kerastoolkit": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("keras", "tensorflow", "jax", "torch", "scikit-learn", "numpy", "pandas", "skops"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / _RUN
    if not folder.is_dir():
        raise SavedFileError(f"There is no folder '{folder}'.")
    if not path.is_file():
        raise SavedFileError(f"'{folder}' is not the folder of an experiment: it has no {_RUN}.")
    record = _files.read_json(_files.read_small(_files.regular_file(path, within=folder)), f"'{path}'", constants=True)
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise SavedFileError(f"'{path}' was not written by an experiment of kerastoolkit.")
    number, versions = record.get("format_version"), record.get("versions")
    if _files.is_whole(number) and number > _FORMAT_VERSION:
        version = versions.get("kerastoolkit") if isinstance(versions, dict) else None
        raise SavedFileError(
            f"'{folder}' was written by a newer kerastoolkit ({str(version)[:20]}); this is {__version__}. Upgrade to "
            "read it."
        )
    record = {**_LATER, **record}
    checked = _files.checked_fields({name: record[name] for name in _RECORD if name in record}, _RECORD, f"'{path}'")
    checked["split"] = _checked_part({**_OF_NO_GROUPS, **checked["split"]}, _SPLIT, "The split of the rows")
    checked["questions"] = [_checked_part(question, _QUESTION, "A question") for question in checked["questions"]]
    return checked


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


# What is read of a record, and whether a value may be there. Entries of later versions are passed over.
_RECORD: dict[str, Callable[[Any], object]] = {
    "format": _files.is_text,
    "format_version": _files.is_count,
    "began": _files.is_text,
    "arguments": _is_table,
    "data": _is_table,
    "split": _is_table,
    "questions": _files.list_of(_is_table),
    "grid": _files.list_of(_files.dict_of(lambda value: isinstance(value, list))),
    "n_candidates": _files.is_count,
    "versions": _files.dict_of(_files.is_text),
    "name": _files.is_text,
    "target": _files.is_text,
    "task": _files.one_of("classification", "regression"),
    "metric": _files.is_text,
    "columns": _files.list_of(_is_table),
    "decisions": _files.dict_of(_files.is_text),
    "status": _files.one_of("complete", "interrupted", "failed"),
    "seconds": _files.is_number,
    "baselines": _files.list_of(_is_table),
    "chosen": _files.optional(lambda value: isinstance(value, dict) and _files.is_count(value.get("index"))),
    "left_out": _files.list_of(_is_table),
    "failed": _files.list_of(_is_table),
    "history": _files.dict_of(_files.list_of(_files.is_real)),
    "test": _files.optional(_files.list_of(_is_table)),
    "baseline_tests": _files.dict_of(_files.list_of(_is_table)),
    "comparison": _files.optional(_is_table),
}
# What records were written without before there was such a thing.
_LATER: dict[str, Any] = {"baseline_tests": {}, "comparison": None, "questions": []}
_SPLIT: dict[str, Callable[[Any], object]] = {
    "train": _files.is_count,
    "test": _files.is_count,
    "how": _files.is_text,
    "why": _files.is_text,
    "folds": _files.is_count,
    "groups": _files.optional(_files.is_text),
    "time": _files.optional(_files.is_text),
    "n_test_values": _files.is_count,
    "from": _files.is_text,
}
# What records were written without before rows could be held out by group or time.
_OF_NO_GROUPS: dict[str, Any] = {"groups": None, "time": None, "n_test_values": 0, "from": ""}
_QUESTION: dict[str, Callable[[Any], object]] = {
    "column": _files.is_text,
    "argument": _files.one_of("groups", "time"),
    "text": _files.is_text,
}
_COLUMN: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "kind": _files.one_of(*get_args(Kind)),
    "n_rows": _files.is_count,
    "n_blank": _files.is_count,
    "n_distinct": _files.is_count,
    "detail": _files.is_text,
    "note": _files.is_text,
    "date_format": _files.optional(_files.is_text),
    "has_time": _files.is_flag,
    "decimal": _files.optional(_files.one_of(".", ",", "")),
    "unit": _files.is_text,
    "words": _files.list_of(_files.is_text),
}
_COLUMN_SINCE = ("decimal", "unit", "words")  # which earlier versions did not write
_SCORE: dict[str, Callable[[Any], object]] = {
    "metric": _files.is_text,
    "value": _files.is_real,
    "low": _files.is_real,
    "high": _files.is_real,
    "level": _files.is_number,
    "n_rows": _files.is_count,
    "n_resamples": _files.is_count,
    "method": _files.is_text,
    "n_unscored": _files.is_count,
}
_LATER_IN_SCORES = ("method", "n_unscored")
_COMPARISON: dict[str, Callable[[Any], object]] = {
    "first": _files.is_text,
    "second": _files.is_text,
    "metric": _files.is_text,
    "outcome": _files.one_of(*get_args(Outcome)),
    "difference": _files.is_real,
    "low": _files.is_real,
    "high": _files.is_real,
    "level": _files.is_number,
    "p_value": _files.is_real,
    "n_folds": _files.is_count,
    "n_unscored": _files.is_count,
    "differences": _files.list_of(_files.is_real),
}
_FOLD_SCORES: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "metric": _files.is_text,
    "scores": _files.list_of(_files.is_real),
    "fit_seconds": _files.is_real,
}


def _checked_part(
    record: Any, fields: Mapping[str, Callable[[Any], object]], what: str, *, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    known = {name: record[name] for name in fields if name in record}
    return _files.checked_fields(known, fields, what, optional=optional)


def _column(record: Any) -> Column:
    return Column.from_dict(_checked_part(record, _COLUMN, "A column", optional=_COLUMN_SINCE))


def _from_record(record: dict[str, Any], folder: Path) -> Experiment:
    own = ("format", "format_version", "began", "arguments", "data", "split", "questions", "grid", "n_candidates")
    experiment = Experiment(
        name=record["name"],
        target=record["target"],
        task=record["task"],
        metric=record["metric"],
        columns=[_column(column) for column in record["columns"]],
        decisions=list(record["decisions"].items()),
        record={key: record[key] for key in (*own, "versions")},
        status=record["status"],
        seconds=record["seconds"],
        baselines=[_fold_scores(scores) for scores in record["baselines"]],
        best_index=record["chosen"]["index"] if record["chosen"] else None,
        left_out=record["left_out"],
        failed=record["failed"],
        history=record["history"],
        baseline_tests={name: _read_scores(scores) for name, scores in record["baseline_tests"].items()},
    )
    if record["comparison"] is not None:
        known = _checked_part(record["comparison"], _COMPARISON, "The comparison")
        experiment.comparison = Comparison(**{**known, "differences": tuple(known["differences"])})
    if (folder / _RESULTS).exists():
        experiment.results = _with_tuples(_read_csv(folder / _RESULTS))
        experiment.candidates()  # which a damaged table has not
    if record["chosen"]:
        if experiment.best_index not in range(len(experiment.results)):
            raise SavedFileError(f"'{folder}' is damaged: the winner is none of its {len(experiment.results)} results.")
        _load_model(experiment, folder)
    if record["test"]:
        _load_test(experiment, record["test"], folder)
    return experiment


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    content = _files.read_small(_files.regular_file(path, within=path.parent))
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **EXACTLY, **options)
    return table


def _with_tuples(results: pd.DataFrame) -> pd.DataFrame:
    """A file has only text where a parameter was a tuple."""
    for name in results.filter(regex="^param_"):
        results[name] = [
            ast.literal_eval(value) if isinstance(value, str) and re.fullmatch(r"\([\d., ]*\)", value) else value
            for value in results[name].astype("object")
        ]
    return results


def _load_model(experiment: Experiment, folder: Path) -> None:
    import skops.io

    from kerastoolkit.estimators import load

    path = _files.regular_file(folder / _PREPROCESSING, within=folder)
    with _files.refusing(path, "an experiment"):
        _check_preprocessing(path)
        parts = skops.io.load(path, trusted=list(_TRUSTED_TYPES))
    wanted = {"features": "ColumnTransformer", "target": "StandardScaler" * (experiment.task == "regression")}
    found = {name: "" if part is None else type(part).__name__ for name, part in parts.items()}
    if found != wanted:
        raise SavedFileError(f"'{path}' was not written by an experiment of kerastoolkit.")
    experiment.prepare, experiment.target_scale = parts["features"], parts["target"]
    experiment.network = load(_files.regular_file(folder / _NETWORK, within=folder))
    if experiment.network._task != experiment.task:
        raise SavedFileError(f"'{folder}' is damaged: its network is not for {experiment.task}.")
    _try_on_a_blank_row(experiment)


def _check_preprocessing(path: Path) -> None:
    """Refuses a file of skops that holds anything but what a preprocessing of ours is made of.

    skops itself trusts whatever scikit-learn has, of which some read files and some take functions.
    """
    with _files.archive(
        path, re.compile(r"schema\.json|\d+\.npy").fullmatch, "an experiment", needed=("schema.json",)
    ) as file:
        for name in file.namelist():
            if name != "schema.json":
                _files.check_npy(file, name)
        left = [_files.read_json(file.read("schema.json"), f"'{path}'")]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            named = tuple(part.get(name) for name in ("__module__", "__class__", "__loader__"))
            if named != (None, None, None) and named not in _PARTS_OF_A_PREPROCESSING:
                raise SavedFileError(
                    f"'{path}' holds types that a preprocessing of kerastoolkit never has, so it was not loaded: "
                    f"{'.'.join(map(str, named))[:200]}"
                )
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


_PARTS_OF_A_PREPROCESSING = {
    *(("builtins", kind, f"{kind.capitalize()}Node") for kind in ("dict", "list", "slice", "tuple")),
    *(("builtins", kind, "TypeNode") for kind in ("bool", "float", "int", "str")),
    ("builtins", "str", "JsonNode"),
    ("numpy", "dtype", "DTypeNode"),
    ("numpy", "ndarray", "NdArrayNode"),
    *(
        ("numpy", kind, node)
        for kind in ("bool", "bool_", "float32", "float64", "int32", "int64", "object_", "str_")
        for node in ("NdArrayNode", "TypeNode")
    ),
    ("sklearn.compose._column_transformer", "ColumnTransformer", "ObjectNode"),
    ("sklearn.compose._column_transformer", "_RemainderColsList", "ObjectNode"),  # of scikit-learn 1.6
    ("sklearn.impute._base", "MissingIndicator", "ObjectNode"),
    ("sklearn.impute._base", "SimpleImputer", "ObjectNode"),
    ("sklearn.pipeline", "Pipeline", "ObjectNode"),
    ("sklearn.preprocessing._data", "StandardScaler", "ObjectNode"),
    ("sklearn.preprocessing._encoders", "OneHotEncoder", "ObjectNode"),
}


def _try_on_a_blank_row(experiment: Experiment) -> None:
    """Whether the parts of a loaded experiment go together."""
    blank = pd.DataFrame({column.name: [None] for column in experiment.columns})
    inputs = experiment.prepare.transform(as_features(blank, experiment.columns))
    if inputs.shape[1] != experiment.network.n_features_in_:
        raise SavedFileError(
            f"An experiment is damaged: its preprocessing makes {inputs.shape[1]} columns, its network reads "
            f"{experiment.network.n_features_in_}."
        )
    if experiment.target_scale is not None:
        experiment.target_scale.inverse_transform(np.zeros((1, 1)))


def _load_test(experiment: Experiment, scores: list[dict[str, Any]], folder: Path) -> None:
    classes = getattr(experiment.network, "classes_", None)
    table = _read_csv(folder / _TEST_PREDICTIONS, keep_default_na=False)
    kind = np.asarray(classes).dtype if classes is not None else np.float64
    proba = table.filter(regex="^probability_").to_numpy("float64") if classes is not None else None
    if proba is not None and proba.shape[1] != len(np.asarray(classes)):
        raise SavedFileError(f"'{folder}' is damaged: {_TEST_PREDICTIONS} has probabilities of other classes.")
    experiment.test_rows = table["row"].to_numpy("int64")
    experiment.test = Evaluation(
        scores=_read_scores(scores),
        y_true=table["true"].to_numpy().astype(kind),
        y_pred=table["predicted"].to_numpy().astype(kind),
        classes=classes,
        y_proba=proba,
    )


def _read_scores(records: list[dict[str, Any]]) -> dict[str, Score]:
    read = [Score(**_checked_part(score, _SCORE, "A score", optional=_LATER_IN_SCORES)) for score in records]
    return {score.metric: score for score in read}


def _fold_scores(record: dict[str, Any]) -> FoldScores:
    known = _checked_part(record, _FOLD_SCORES, "The scores of a model")
    return FoldScores(**{**known, "scores": tuple(known["scores"])})


def _spelt(params: Mapping[str, Any]) -> str:
    """A candidate's parameters for people to read: `hidden 64-32, learning rate 0.001`."""
    words = []
    for key, value in params.items():
        name = key.rsplit("__", 1)[-1].replace("_", " ")
        shown = "-".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        words.append(f"{name} {shown:g}" if isinstance(value, float) else f"{name} {shown}")
    return ", ".join(words)


def _is_masked(value: Any) -> bool:
    return value is np.ma.masked or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's numbers and arrays, and objects by their repr."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return repr(value)
