"""A plan carried out: baselines, candidates, the winner on the test rows, and the comparison of both."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.pipeline import Pipeline

from kerastoolkit._words import quoted
from kerastoolkit.data.splits import folds
from kerastoolkit.data.tables import category_names
from kerastoolkit.evaluation import baselines, compare_on_folds, evaluate, metric_scorer, score_on_folds
from kerastoolkit.exceptions import KerasToolkitWarning
from kerastoolkit.experiment._models import (
    fit_baseline,
    for_tables,
    make_network,
    make_preprocessor,
    network_prefix,
    test_scorers,
)
from kerastoolkit.experiment._records import first_record
from kerastoolkit.experiment._search import InBatches, Watch, results_table
from kerastoolkit.experiment.result import Experiment
from kerastoolkit.search.backend import FusedBackend

if TYPE_CHECKING:
    from kerastoolkit.experiment.plan import Plan

__all__ = ["Progress", "Run", "where_compared"]


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


class Run:
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
            record=first_record(plan),
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
        prepare = make_preprocessor(plan.columns, X)
        models = baselines(plan.target.task, prepare, categories=category_names(plan.columns), seed=plan.seed)
        self._score_baselines(models, X, y, folds, scorer)

        self.report("candidates", 0, plan.n_candidates * plan.n_folds, None, "loading Keras")
        network = make_network(plan.target.task, int(len(X) * (1 - 1 / plan.n_folds)), plan.seed)
        search = InBatches(
            Pipeline([("prepare", prepare), ("network", network)]),
            [{network_prefix(plan.target.task) + key: values for key, values in grid.items()} for grid in plan.grids],
            scoring=scorer,
            cv=folds,
        )
        search.watch = watch = Watch(self)
        backend = FusedBackend(watch=watch.while_training, around=watch.around)
        try:
            with joblib.parallel_config(backend=backend):
                search.fit(X, y, **self._kept_together())
        finally:
            experiment.decisions.append(("Training", backend.report.explain().replace("\n", " ").rstrip(".")))
        experiment.best_index = results_table(search.cv_results_).index.tolist().index(search.best_index_)
        experiment._take_model(search.best_estimator_)

        self._score_test_rows(search.best_estimator_, models, X, y)
        experiment.status = "complete"
        experiment.comparison = experiment._compared_by_the_search()
        self._compare(clone(search.estimator).set_params(**search.best_params_), models, X, y, max(watch.seconds))

    def _kept_together(self) -> dict[str, np.ndarray]:
        """What `fit` is told so that none of the rows that tell when to stop belong to rows that are trained on."""
        kept = self.plan.grouping.of_rows(self.plan.held_out.train)
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
        scorers = test_scorers(plan.metric, plan.target.task, classes)
        options: dict[str, Any] = {"n_resamples": int(np.clip(2_000_000 // len(y_test), 100, 500)), "seed": plan.seed}
        options["groups"] = plan.grouping.of_rows(plan.held_out.test).get("groups")
        self.report("test", 0, 1 + len(models), None, "scoring the test rows")
        experiment.test = evaluate(winner, X_test, y_test, scorers, **options)
        experiment.test_rows = plan.target.kept[plan.held_out.test]
        for done, (name, model) in enumerate(models.items(), 1):
            self.report("test", done, 1 + len(models), None, name)
            # A model that fails here, as on folds that have no score, is one that nobody can take.
            with contextlib.suppress(ValueError):
                fitted = fit_baseline(model, X, y)
                experiment.baseline_tests[name] = evaluate(fitted, X_test, y_test, scorers, **options).scores
                experiment.baseline_models[name] = for_tables(fitted, plan.columns)

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
            told["Comparison"] = f"{where_compared(n_repeats, plan.n_folds)}, for want of time"
            self.experiment.decisions = list(told.items())
        return n_repeats

    def report(self, stage: str, done: int, total: int, left: float | None, message: str) -> None:
        self.tell(Progress(stage, done, total, self.seconds, left, self.experiment.best_score, message))


def where_compared(n_repeats: int, n_folds: int) -> str:
    where = f"{n_repeats * n_folds} folds of other splits" if n_repeats else f"the {n_folds} folds of the search alone"
    return f"the best network with the best simple model, on {where}"


def _folds(X: pd.DataFrame, y: np.ndarray, plan: Plan, seed: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds of the training rows; those of another seed are others, unless they go forward in time."""
    kept, seed = plan.grouping.of_rows(plan.held_out.train), plan.seed if seed is None else seed
    return folds(y, plan.n_folds, task=plan.target.task, random_state=seed, **kept)


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
