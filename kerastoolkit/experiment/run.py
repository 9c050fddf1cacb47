"""A plan carried out: the baselines, the candidates, the test of the winner, and the comparison of both."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from kerastoolkit._words import quoted
from kerastoolkit.data.splits import folds
from kerastoolkit.data.tables import category_names
from kerastoolkit.evaluation import compare_on_folds, evaluate, get_scorer, make_baselines, score_on_folds
from kerastoolkit.exceptions import JournalError, KerasToolkitWarning, ParameterError
from kerastoolkit.experiment._models import (
    fit_baseline,
    for_tables,
    make_network,
    make_preprocessor,
    make_scorers,
    network_prefix,
)
from kerastoolkit.experiment._records import first_record
from kerastoolkit.experiment._search import CandidateSearch
from kerastoolkit.experiment.result import JOURNAL_FILE, RESULTS_FILE, Experiment
from kerastoolkit.search.backend import FusedBackend
from kerastoolkit.search.journal import Journal

if TYPE_CHECKING:
    from kerastoolkit.experiment.plan import Plan

__all__ = ["Progress", "Run", "where_compared"]


@dataclass(frozen=True)
class Progress:
    """How far an experiment is.

    Attributes:
        stage: `"baselines"`, `"candidates"`, `"final fit"`, `"test"`, `"comparison"` or `"done"`.
        done: Fits finished in this stage.
        total: Fits of this stage.
        seconds: Seconds since the experiment began.
        seconds_left: Seconds it will probably still take; None while that is unknown.
        best: Best mean score of a candidate so far; None while there is none.
        message: The step in words.
    """

    stage: str
    done: int
    total: int
    seconds: float
    seconds_left: float | None
    best: float | None
    message: str


class Run:
    """One plan being carried out: keeps the time, tells progress, and holds everything found so far.

    Attributes:
        plan: The plan.
        experiment: What was found so far.
        X: Features of the training rows, shape `(n_train, n_features)`.
        y: Their targets, shape `(n_train,)`.
        classes: The classes of the training rows, sorted; None for regression.
    """

    def __init__(self, plan: Plan, progress: Callable[[Progress], None] | None) -> None:
        self.plan = plan
        self.X = plan.X.iloc[plan.held_out.train].reset_index(drop=True)
        self.y = plan.target.values[plan.held_out.train]
        self.classes = np.unique(self.y) if plan.target.task == "classification" else None
        self._progress = progress
        self._began = time.monotonic()
        self.experiment = Experiment(
            name=plan.table.name,
            target=plan.target.name,
            task=plan.target.task,
            scoring=plan.scoring,
            columns=plan.columns,
            decisions=plan.decisions(),
            record=first_record(plan),
        )

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def carry_out(self) -> Experiment:
        """Trains, scores, compares and saves.

        Returns:
            The experiment.

        Raises:
            KeyboardInterrupt: If interrupted; everything found so far has been written.
        """
        if self.plan.out is not None:
            self.plan.out.mkdir(parents=True, exist_ok=True)
            # Before anything is trained, so that the experiment can be resumed even if the process is killed.
            self.experiment._write_record(self.plan.out)
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
        """Writes the folder; if it cannot be written, warns and keeps what hours of training have found."""
        if self.plan.out is None:
            return
        try:
            if self.experiment.status == "complete":
                for beside in ("", "-journal", "-wal", "-shm"):  # what SQLite keeps beside a database
                    (self.plan.out / f"{JOURNAL_FILE}{beside}").unlink(missing_ok=True)
            self.experiment.save(self.plan.out)
        except Exception as error:
            self.experiment.unsaved = why = f"{type(error).__name__}: {error}"
            message = f"Not all of the folder {quoted(self.plan.out)} could be written ({why})."
            if self.experiment.status == "complete":
                message += " The `Experiment` that is returned holds everything: call its `save` with another folder."
            warnings.warn(message, KerasToolkitWarning, stacklevel=5)

    def _train(self) -> None:
        plan, experiment = self.plan, self.experiment
        folds = self._folds(plan.random_state)
        preprocessor = make_preprocessor(plan.columns, self.X)
        models = make_baselines(
            plan.target.task, preprocessor, categories=category_names(plan.columns), random_state=plan.random_state
        )
        self._score_baselines(models, folds)
        search = self._search(preprocessor, folds)
        self._score_test_rows(search.best_estimator_, models)
        experiment.status = "complete"
        experiment.comparison = experiment._compare_on_search_folds()
        self._compare(clone(search.estimator).set_params(**search.best_params_), models, max(search.seconds_))

    def _folds(self, random_state: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The folds of the training rows; other seeds give other folds, unless they go forward in time."""
        plan = self.plan
        kept = plan.grouping.of_rows(plan.held_out.train)
        return folds(self.y, plan.n_folds, task=plan.target.task, random_state=random_state, **kept)

    def _fit_params(self) -> dict[str, np.ndarray]:
        """The groups or times of the rows, so that each fit of a network divides its own rows by them, too."""
        kept = self.plan.grouping.of_rows(self.plan.held_out.train)
        return {f"network__{name}": values for name, values in kept.items()}

    def _score_baselines(self, models: dict[str, Any], folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        scorer = get_scorer(self.plan.scoring, self.classes)
        for done, (name, model) in enumerate(models.items()):
            self.report("baselines", done, len(models), None, name)
            scores = score_on_folds(name, model, self.X, self.y, cv=folds, scoring=self.plan.scoring, scorer=scorer)
            self.experiment.baselines.append(scores)

    def _search(self, preprocessor: BaseEstimator, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> CandidateSearch:
        """Searches the grid; the winner, its history and all results are the experiment's."""
        plan, experiment = self.plan, self.experiment
        self.report("candidates", 0, plan.n_candidates * plan.n_folds, None, "loading Keras")
        network = make_network(plan.target.task, int(len(self.X) * (1 - 1 / plan.n_folds)), plan.random_state)
        prefix = network_prefix(plan.target.task)
        pipeline = Pipeline([("preprocessor", preprocessor), ("network", network)])
        param_grid = [{prefix + name: values for name, values in grid.items()} for grid in plan.param_grid]
        search = CandidateSearch(
            pipeline,
            param_grid,
            scoring=get_scorer(plan.scoring, self.classes),
            cv=folds,
            report=self.report,
            on_results=self._take_results,
            timeout=None if plan.timeout is None else plan.timeout - self.seconds,
            n_repeats=plan.n_repeats,
            random_state=plan.random_state,
            journal=self._journal(pipeline, param_grid),
        )
        try:
            search.fit(self.X, self.y, **self._fit_params())
        finally:
            experiment.left_out, experiment.failed = [dict(one) for one in search.left_out_], search.failed_
            if hasattr(search, "report_"):  # the search has ended
                experiment.decisions.append(("Training", search.explain().replace("\n", " ").rstrip(".")))
        experiment.best_index = search.results_table(search.cv_results_).index.tolist().index(search.best_index_)
        experiment._take_model(search.best_estimator_)
        return search

    def _journal(self, pipeline: Pipeline, param_grid: list[dict[str, list[Any]]]) -> Path | None:
        """Where the search records finished fits; None, with a warning if there is a folder, if they cannot be.

        Raises:
            JournalError: There is a file already, and it is damaged or another program's.
        """
        if self.plan.out is None:
            return None
        path = self.plan.out / JOURNAL_FILE
        is_new = not path.exists()
        try:
            with Journal(path) as journal:
                journal.check(pipeline, ParameterGrid(param_grid))
        except (JournalError, ParameterError) as error:
            if not is_new:
                raise
            path.unlink(missing_ok=True)
            message = f"If this experiment is interrupted, it cannot be resumed: {error}"
            warnings.warn(message, KerasToolkitWarning, stacklevel=6)
            return None
        return path

    def _take_results(self, results: pd.DataFrame) -> None:
        """Keeps and writes the results so far: a search that is interrupted has lost only its last batch."""
        self.experiment.results = results
        if self.plan.out is not None and len(results):
            with contextlib.suppress(OSError):  # a full disk is reported at the end, when the folder is written
                results.to_csv(self.plan.out / RESULTS_FILE, index=False)

    def _score_test_rows(self, winner: Pipeline, models: dict[str, Any]) -> None:
        """Scores the winner on the test rows, and the baselines, fitted to the same training rows."""
        plan, experiment = self.plan, self.experiment
        X_test, y_test = plan.X.iloc[plan.held_out.test], plan.target.values[plan.held_out.test]
        options: dict[str, Any] = {
            "scoring": make_scorers(plan.scoring, plan.target.task, self.classes),
            "groups": plan.grouping.of_rows(plan.held_out.test).get("groups"),
            "n_resamples": int(np.clip(2_000_000 // len(y_test), 100, 500)),
            "random_state": plan.random_state,
        }
        self.report("test", 0, 1 + len(models), None, "scoring the test rows")
        experiment.test = evaluate(winner, X_test, y_test, **options)
        experiment.test_rows = plan.target.kept[plan.held_out.test]
        for done, (name, model) in enumerate(models.items(), 1):
            self.report("test", done, 1 + len(models), None, name)
            # A model that fails here, as on folds that have no score, is one that nobody can use.
            with contextlib.suppress(ValueError):
                fitted = fit_baseline(model, self.X, self.y)
                experiment.baseline_tests[name] = evaluate(fitted, X_test, y_test, **options).scores
                experiment.baseline_models[name] = for_tables(fitted, plan.columns)

    def _compare(self, network: Pipeline, models: dict[str, Any], seconds: float) -> None:
        """Cross-validates the winner and the best baseline on splits by which nothing was chosen."""
        plan, experiment = self.plan, self.experiment
        rival = experiment.best_baseline
        if rival is None or experiment.comparison is None:
            return
        n_repeats = self._repeats_in_time(seconds + rival.fit_seconds * plan.n_folds)
        seeds = [(plan.random_state + 1 + repeat) % 2**32 for repeat in range(n_repeats)]
        folds = [fold for seed in seeds for fold in self._folds(seed)]
        if not folds:
            return
        options: dict[str, Any] = {"cv": folds, "scoring": plan.scoring}
        options["scorer"] = get_scorer(plan.scoring, self.classes)
        self.report("comparison", 0, 2, None, f"{rival.name} on {len(folds)} folds of other splits")
        theirs = score_on_folds(experiment.comparison.second, models[rival.name], self.X, self.y, **options)
        self.report("comparison", 1, 2, None, f"the best network on {len(folds)} folds of other splits")
        options["params"] = self._fit_params()
        with joblib.parallel_config(backend=FusedBackend()):
            ours = score_on_folds(experiment.comparison.first, network, self.X, self.y, **options)
        n_train, n_test = (float(np.mean([len(rows) for rows in some])) for some in zip(*folds, strict=True))
        experiment.comparison = compare_on_folds(ours, theirs, n_train, n_test)

    def _repeats_in_time(self, seconds: float) -> int:
        """How often there is time for a cross-validation of the winner and its rival that takes so many seconds."""
        plan, n_repeats = self.plan, self.plan.n_repeats
        if plan.timeout is not None:
            n_repeats = int(np.clip((plan.timeout - self.seconds) / max(seconds, 1e-9), 0, n_repeats))
        if n_repeats < plan.n_repeats:
            decisions = dict(self.experiment.decisions)
            decisions["Comparison"] = f"{where_compared(n_repeats, plan.n_folds)}, for lack of time"
            self.experiment.decisions = list(decisions.items())
        return n_repeats

    def report(self, stage: str, done: int, total: int, seconds_left: float | None, message: str) -> None:
        """Tells how far the experiment is, if anybody wants to know."""
        if self._progress is not None:
            best = self.experiment.best_score
            self._progress(Progress(stage, done, total, self.seconds, seconds_left, best, message))


def where_compared(n_repeats: int, n_folds: int) -> str:
    """On which folds the winner and the best baseline are compared, as a clause."""
    where = f"{n_repeats * n_folds} folds of other splits" if n_repeats else f"the {n_folds} folds of the search alone"
    return f"the best network with the best baseline, on {where}"


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
