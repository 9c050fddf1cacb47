"""scikit-learn's own searches, whose Keras fits are trained together.

Which candidates are tried, the folds, the scores and `cv_results_` are scikit-learn's. What is added: fits of one
structure become one program (`fused`), `verbose` shows how far the search is, a `journal` records every finished fit,
so that an interrupted search resumes, and a `timeout` ends it in time.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

import joblib
import numpy as np
from sklearn import model_selection
from sklearn.base import BaseEstimator, is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  scikit-learn asks for this line
from sklearn.model_selection import check_cv

from kerastoolkit._types import Rows, Target
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.search._names import check_grid
from kerastoolkit.search._options import (
    Folds,
    GridOptions,
    HalvingOptions,
    HalvingRandomOptions,
    ParamGrid,
    RandomizedOptions,
    Refit,
    takes,
)
from kerastoolkit.search._progress import SearchProgress, Tally, shown_line
from kerastoolkit.search._run import SearchRun
from kerastoolkit.search._scikeras import take_over
from kerastoolkit.search._tasks import Call
from kerastoolkit.search.backend import FusedBackend, TrainingReport
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.rungs import Ladder, Refused, Rungs

__all__ = ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"]

# A search that is killed loses what was trained together and not yet scored.
_MAX_UNRECORDED = 64

Self = TypeVar("Self", bound="_Together")


class _Together:
    """What the searches add to scikit-learn's. Not to be used directly."""

    estimator: BaseEstimator
    cv: Folds
    error_score: float | Literal["raise"]
    refit: Refit
    verbose: int

    def __init__(
        self,
        *args: Any,
        early_stopping: Rungs | Literal["rungs"] | None = None,
        journal: str | Path | Journal | None = None,
        timeout: float | None = None,
        on_progress: Callable[[SearchProgress], object] | None = None,
        max_memory: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.early_stopping = early_stopping
        self.journal = journal
        self.timeout = timeout
        self.on_progress = on_progress
        self.max_memory = max_memory

    def fit(self: Self, X: Rows, y: Target = None, **params: object) -> Self:
        """Searches, and fits the best candidate on all rows.

        Args:
            X: Rows, as the estimator takes them.
            y: Targets. Defaults to `None`.
            **params: Passed on to the estimator's `fit`, to the splitter (`groups`) and the scorer, as in
                scikit-learn.

        Returns:
            The search itself, fitted.

        Raises:
            ParameterError: A parameter of the search has an impossible value, or a name of the grid reaches nothing;
                the message has the full name to write; or an Optuna study is of another search.
            JournalError: The journal cannot be read or written.
            SavedFileError: The file of an Optuna study is damaged, or of another program; it is left unchanged.
            MissingPackageError: `OptunaSearchCV` is used, and Optuna is not installed.
        """
        with self._prepared(X, y):
            check_timeout(self.timeout)
            given = self.estimator
            self.estimator, notes = take_over(given)
            for note in notes:
                warnings.warn(note, KerasToolkitWarning, stacklevel=2)
            try:
                grid = "param_grid" if hasattr(self, "param_grid") else "param_distributions"
                check_grid(self.estimator, getattr(self, grid))
                run = self._fit_together(X, y, params)
            finally:
                self.estimator = given
            self.left_out_ = run.left_out
            if run.is_over:
                warnings.warn(self._words_on_time(run), KerasToolkitWarning, stacklevel=2)
        return self

    @contextlib.contextmanager
    def _prepared(self, X: Rows, y: Target) -> Iterator[None]:
        """What a search needs while it fits, and keeps when it is over."""
        yield

    def _fit_together(self, X: Rows, y: Target, params: Mapping[str, Any]) -> SearchRun:
        """scikit-learn's own `fit`, under the backend that trains fits together."""
        ladder = self._new_ladder()
        # scikit-learn counts the folds, too, but before 1.8 keeps the number to itself until the search is over.
        if isinstance(self.cv, Iterator):
            self.cv = list(self.cv)  # it would be used up by counting
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        n_splits: int = splitter.get_n_splits(X, y, params.get("groups"))
        with self._opened_journal() as journal, self._tally(n_splits) as tally:
            run = self._search_run = SearchRun(
                n_splits,
                self.error_score,
                tally,
                journal=journal,
                ladder=ladder,
                timeout=self._timeout_of_batches(),
                reserve=self._seconds_to_reserve,
            )
            backend = FusedBackend(
                max_memory=self.max_memory,
                around=self._around,
                on_epoch_end=tally.on_epoch_end,
                max_together=None if journal is None else _MAX_UNRECORDED,
                ladder=ladder,
            )
            try:
                with joblib.parallel_config(backend=backend):
                    super().fit(X, y, **params)  # type: ignore[misc]
                tally.raise_error()
            except Refused as refused:
                raise refused.error from None
            finally:
                del self._search_run
                self.report_ = backend.report  # of an interrupted search as well
        return run

    def explain(self) -> str:
        """Says in words which fits of the last search were trained together, which were not, and why."""
        report: TrainingReport = self.report_
        return report.explain()

    def _run_search(self, evaluate_candidates: Callable[..., Any], callback_ctx: object = None) -> None:
        # scikit-learn hands over the context of its callbacks since 1.9, to methods that name it.
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        evaluate = self._search_run.evaluating(evaluate_candidates, self.estimator)
        super()._run_search(evaluate, **context)  # type: ignore[misc]

    def _select_best_index(self, refit: Refit, refit_metric: str, results: Mapping[str, Any]) -> int:
        """The index of the best candidate, which is one that was stopped at a rung only if no other has a score."""
        if "stopped_early" in results and not callable(refit):
            ranks, stopped = results[f"rank_test_{refit_metric}"], results["stopped_early"]
            failed = np.isnan(results[f"mean_test_{refit_metric}"])
            results = {**results, f"rank_test_{refit_metric}": ranks + (stopped + 2 * failed) * len(ranks)}
        found: int = super()._select_best_index(refit, refit_metric, results)  # type: ignore[misc]
        return found

    def _new_ladder(self) -> Ladder | None:
        rungs = Rungs() if self.early_stopping == "rungs" else self.early_stopping
        if rungs is None:
            return None
        if not isinstance(rungs, Rungs):
            raise ParameterError(f"`early_stopping` must be 'rungs', a `Rungs` or None; got {rungs!r}.")
        if self.journal is not None:
            raise ParameterError(
                "`early_stopping` and `journal` do not go together: which candidates stop at a rung depends on all "
                "that came to it, and a resumed search would compare without those in the journal. Give one of them."
            )
        return Ladder(rungs)

    # -- time ----------------------------------------------------------------------------------------------------

    def _timeout_of_batches(self) -> float | None:
        """Seconds within which the candidates that scikit-learn asks for may begin."""
        return self.timeout

    def _seconds_to_reserve(self, seconds_of_a_candidate: float) -> float:
        """Seconds of `timeout` that no candidate is begun in; for subclasses that have something else to do in them.

        Args:
            seconds_of_a_candidate: What a candidate takes, all its splits, in the last batch; 0 if that is not known.
        """
        return 0.0

    def _words_on_time(self, run: SearchRun) -> str:
        more = "Give more time or fewer candidates."
        if self.journal is not None:
            more = "Fitted again with the same `journal`, the search trains only these."
        n_given = len(run.left_out) + len(self.cv_results_["params"])  # type: ignore[attr-defined]
        return (
            f"The `timeout` of {self.timeout:g} seconds ended the search before {len(run.left_out)} of {n_given} "
            f"candidates had begun; they are in `left_out_`, not in `cv_results_`. {more}"
        )

    # -- what is around it ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened_journal(self) -> Iterator[Journal | None]:
        if self.journal is None or isinstance(self.journal, Journal):
            yield self.journal
            return
        with Journal(self.journal) as journal:
            yield journal

    def _around(self, call: Call) -> Callable[[], Any]:
        return self._search_run.around(call)

    @contextlib.contextmanager
    def _tally(self, n_splits: int) -> Iterator[Tally]:
        refit = self.refit if isinstance(self.refit, str) else "score"
        with shown_line() if self.verbose else contextlib.nullcontext() as line:
            observers = [observer for observer in (line, self.on_progress) if observer is not None]
            yield Tally(refit, n_splits, self.timeout, observers)


class _Halving(_Together):
    """What the halving searches add. Not to be used directly."""

    factor: float
    n_iterations_: int
    n_candidates_: list[int]
    n_resources_: list[int]

    def _run_search(self, evaluate_candidates: Callable[..., Any], callback_ctx: object = None) -> None:
        super()._run_search(evaluate_candidates, callback_ctx)
        run = self._search_run
        self._n_planned: int = self.n_iterations_
        if run.is_over:  # scikit-learn counts what it asked for
            self.n_iterations_ = run.n_parts
            del self.n_resources_[run.n_parts :], self.n_candidates_[run.n_parts :]
            self.n_candidates_[0] -= len(run.left_out)
            self.n_remaining_candidates_ = math.ceil(self.n_candidates_[-1] / self.factor)

    def _words_on_time(self, run: SearchRun) -> str:
        if not run.left_out:
            return (
                f"The `timeout` of {self.timeout:g} seconds ended the search after {run.n_parts} of {self._n_planned} "
                "iterations: the best candidate is the best of the last one. Give more time or fewer candidates."
            )
        return f"{super()._words_on_time(run)} There was no time for further iterations."


def check_timeout(timeout: object) -> None:
    """Refuses an impossible time limit."""
    is_number = isinstance(timeout, (int, float, np.number)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0):  # type: ignore[operator]
        raise ParameterError(f"`timeout` must be seconds, greater than 0, or None; got {timeout!r}.")


_WORKERS = """\
        {}: Accepted as in scikit-learn, without effect: all fits share one
            program, which uses all cores."""

_RUNGS = """
        early_stopping: `"rungs"` stops the worst candidates at certain epochs, and a `Rungs` sets the details. Then
            `cv_results_` also has the epochs of each fit (`split0_n_epochs`, ..., `mean_n_epochs`) and `stopped_early`,
            and the best candidate is the best of those that were not stopped. Defaults to `None`: all train to the
            end."""

_ADDED = """
        journal: Where every finished fit is recorded: a path or a `Journal`. An interrupted search resumes when it is
            fitted again with the same journal: it trains only what is missing. Defaults to `None`: nowhere.
        timeout: Seconds after which no candidate begins; those in training are finished, and at least one is
            evaluated. Candidates are evaluated in their order, in batches as large as the time allows. Those that have
            not begun are in `left_out_` instead of `cv_results_`, and a warning says how many. With `math.inf`
            candidates come in batches, too, but none is left out. Defaults to `None`: all at once, without a limit.
        on_progress: Called with a `SearchProgress` after each fit, and a few times a second while fits are trained;
            what it raises ends the search. It is called from the thread that trains, so it should be quick. Defaults to
            `None`.
        max_memory: Bytes that models trained together may take. Defaults to `None`: half of what is free.

    With `verbose=1` a line shows how far the search is, in terminals and notebooks; `verbose=0` is silent.
    An estimator of scikeras, alone or in a pipeline, is taken over (`from_scikeras`), with a warning that says so.
    A fit whose network diverged (weights or loss of NaN or infinity) counts as failed, and gets `error_score`.
    After `fit`, `report_` holds what was trained together, and `explain()` says it in words.
"""


class GridSearchCV(_Together, model_selection.GridSearchCV):
    __doc__ = f"""`sklearn.model_selection.GridSearchCV`, whose Keras fits are trained together.

    Example:

    >>> search = GridSearchCV(KerasClassifier(), {{"optimizer__learning_rate": [0.001, 0.01, 0.1]}}, cv=3)
    >>> search.fit(X, y).best_params_
    {{'optimizer__learning_rate': 0.01}}

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_grid: Values to try by name of parameter, or a list of such dicts.
        scoring, refit, cv, verbose, error_score, return_train_score: As in scikit-learn.
{_WORKERS.format("n_jobs, pre_dispatch")}{_RUNGS}{_ADDED}"""

    @takes(GridOptions, as_in=model_selection.GridSearchCV)
    def __init__(self, estimator: BaseEstimator, param_grid: ParamGrid, **options: Unpack[GridOptions]) -> None:
        super().__init__(estimator, param_grid, **options)


class RandomizedSearchCV(_Together, model_selection.RandomizedSearchCV):
    __doc__ = f"""`sklearn.model_selection.RandomizedSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_distributions: Values or distributions by name of parameter, or a list of such dicts.
        n_iter: Candidates to draw. Defaults to `10`.
        scoring, refit, cv, verbose, random_state, error_score, return_train_score: As in scikit-learn.
{_WORKERS.format("n_jobs, pre_dispatch")}{_RUNGS}{_ADDED}"""

    @takes(RandomizedOptions, as_in=model_selection.RandomizedSearchCV)
    def __init__(
        self, estimator: BaseEstimator, param_distributions: ParamGrid, **options: Unpack[RandomizedOptions]
    ) -> None:
        super().__init__(estimator, param_distributions, **options)


class HalvingGridSearchCV(_Halving, model_selection.HalvingGridSearchCV):
    __doc__ = f"""`sklearn.model_selection.HalvingGridSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_grid: Values to try by name of parameter, or a list of such dicts.
        factor, resource, max_resources, min_resources, aggressive_elimination: As in scikit-learn;
            `resource="epochs"` gives the better candidates more epochs.
        cv, scoring, refit, error_score, return_train_score, random_state, verbose: As in scikit-learn.
{_WORKERS.format("n_jobs")}{_ADDED}"""

    @takes(HalvingOptions, as_in=model_selection.HalvingGridSearchCV)
    def __init__(self, estimator: BaseEstimator, param_grid: ParamGrid, **options: Unpack[HalvingOptions]) -> None:
        super().__init__(estimator, param_grid, **options)


class HalvingRandomSearchCV(_Halving, model_selection.HalvingRandomSearchCV):
    __doc__ = f"""`sklearn.model_selection.HalvingRandomSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_distributions: Values or distributions by name of parameter, or a list of such dicts.
        n_candidates, factor, resource, max_resources, min_resources, aggressive_elimination: As in scikit-learn.
        cv, scoring, refit, error_score, return_train_score, random_state, verbose: As in scikit-learn.
{_WORKERS.format("n_jobs")}{_ADDED}"""

    @takes(HalvingRandomOptions, as_in=model_selection.HalvingRandomSearchCV)
    def __init__(
        self, estimator: BaseEstimator, param_distributions: ParamGrid, **options: Unpack[HalvingRandomOptions]
    ) -> None:
        super().__init__(estimator, param_distributions, **options)
