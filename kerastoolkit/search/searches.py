"""scikit-learn's own searches, whose Keras fits are trained together.

Which candidates are tried, the folds, the scores and `cv_results_` are scikit-learn's. What is added: fits of one
structure become one program (`fused`), a line tells how far the search is, and a `journal` keeps every finished fit, so
that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import joblib
import numpy as np
from sklearn import model_selection
from sklearn.base import is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  scikit-learn asks for this line
from sklearn.model_selection import check_cv

from kerastoolkit.exceptions import ParameterError
from kerastoolkit.search._names import check_grid
from kerastoolkit.search.backend import FusedBackend, TrainingReport
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.rungs import Ladder, Refused, Rungs

__all__ = ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"]

# A search that is killed loses what was trained together and not yet scored.
_MAX_UNRECORDED = 64

Self = TypeVar("Self", bound="_Together")


class _Together:
    """What the searches add to scikit-learn's. Not to be used directly."""

    journal: str | Path | Journal | None
    progress: bool | str
    max_memory: float | None
    early_stopping: Rungs | Literal["rungs"] | None = None
    cv: Any

    def fit(self: Self, X: Any, y: Any = None, **params: Any) -> Self:
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
                the message has the full name to write.
            JournalError: The journal cannot be read or written.
        """
        if self.progress not in (True, False, "auto"):
            raise ParameterError(f"`progress` must be True, False or 'auto'; got {self.progress!r}.")
        check_grid(self.estimator, getattr(self, "param_grid", getattr(self, "param_distributions", None)))  # type: ignore[attr-defined]
        ladder = self._new_ladder()
        # scikit-learn counts the folds, too, but before 1.8 keeps the number to itself until the search is over.
        if isinstance(self.cv, Iterator):
            self.cv = list(self.cv)  # it would be used up by counting
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))  # type: ignore[attr-defined]
        self._n_splits: int = splitter.get_n_splits(X, y, params.get("groups"))
        with self._journal() as self._recording, self._line() as self._progress:
            line, self._ladder = self._progress, ladder
            backend = FusedBackend(
                max_memory=self.max_memory,
                around=self._around(self._recording, line, ladder),
                on_epoch_end=line.watch,
                max_together=None if self._recording is None else _MAX_UNRECORDED,
                ladder=ladder,
            )
            try:
                with joblib.parallel_config(backend=backend):
                    super().fit(X, y, **params)  # type: ignore[misc]
            except Refused as refused:
                raise refused.error from None
            finally:
                del self._recording, self._progress, self._ladder
        self.report_ = backend.report
        return self

    def explain(self) -> str:
        """Says in words which fits of the last search were trained together, which were not, and why."""
        report: TrainingReport = self.report_
        return report.explain()

    def _run_search(self, evaluate_candidates: Callable[..., Any], callback_ctx: Any = None) -> None:
        # scikit-learn hands over the context of its callbacks since 1.9, to methods that name it.
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}

        def counted(candidates: Any, *args: Any, **kwargs: Any) -> Any:
            candidates = list(candidates)
            if self._recording is not None:
                self._recording.check(self.estimator, candidates)  # type: ignore[attr-defined]
            self._progress.expect(len(candidates), self._n_splits)
            if self._ladder is not None:
                more = {**(kwargs.get("more_results") or {}), **self._ladder.expect(len(candidates), self._n_splits)}
                kwargs["more_results"] = more
            return evaluate_candidates(candidates, *args, **kwargs)

        super()._run_search(counted, **context)  # type: ignore[misc]

    def _select_best_index(self, refit: Any, refit_metric: str, results: Mapping[str, Any]) -> int:
        """The place of the best candidate; one that was stopped at a rung is not refitted to its end, unless no other
        has a score.
        """
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
                "`early_stopping` and `journal` do not go together: who is stopped at a rung depends on all that were "
                "there, and a journal would go on without those it has. Give one of them."
            )
        return Ladder(rungs)

    @contextlib.contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        if self.journal is None or isinstance(self.journal, Journal):
            yield self.journal
            return
        with Journal(self.journal) as journal:
            yield journal

    @staticmethod
    def _around(journal: Journal | None, line: _Line, ladder: Ladder | None) -> Callable[[Any], Any]:
        def around(call: Any) -> Any:
            inner = call if journal is None else journal.around(call)
            inner = inner if ladder is None else ladder.around(call, inner)

            def observed() -> Any:
                results = inner()
                for (_, _, keywords), result in zip(call.items, results, strict=True):
                    line.finished(keywords.get("parameters"), result)
                return results

            return observed

        return around

    @contextlib.contextmanager
    def _line(self) -> Iterator[_Line]:
        refit = self.refit if isinstance(self.refit, str) else "score"  # type: ignore[attr-defined]
        line = _Line(refit, self.progress)
        try:
            yield line
        finally:
            line.end()


class _Line:
    """A line that tells how far a search is: fits done, best mean score so far, time left."""

    def __init__(self, metric: str, wanted: bool | str) -> None:
        self._metric = metric
        self._shows = wanted is True or (wanted == "auto" and sys.stderr.isatty())
        self._total = self._done = self._n_splits = 0
        self._epochs_done = self._epochs_in_sight = 0
        self._scores: dict[str, list[float]] = {}
        self._best: float | None = None
        self._begun, self._shown, self._width = time.monotonic(), 0.0, 0

    def expect(self, n_candidates: int, n_splits: int) -> None:
        """More candidates will be fitted."""
        self._n_splits = n_splits
        self._total += n_candidates * n_splits

    def finished(self, parameters: Any, result: Any) -> None:
        """A fit of a candidate was scored."""
        if not isinstance(result, Mapping) or "test_scores" not in result:
            return
        self._done += 1
        scores = result["test_scores"]
        score = scores.get(self._metric) if isinstance(scores, Mapping) else scores
        if isinstance(score, (int, float, np.number)):
            of_candidate = self._scores.setdefault(repr(parameters), [])
            of_candidate.append(float(score))
            if len(of_candidate) == self._n_splits and np.isfinite(mean := float(np.mean(of_candidate))):
                self._best = mean if self._best is None else max(self._best, mean)
        self._show()

    def watch(self, epochs_done: int, epochs: int) -> None:
        """So many of the epochs of the fits in training are done."""
        self._epochs_done, self._epochs_in_sight = epochs_done, epochs
        self._show()

    def _text(self) -> str:
        seconds = time.monotonic() - self._begun
        waiting = self._epochs_done / self._epochs_in_sight if self._epochs_in_sight else 0.0
        parts = [f"{self._done} of {self._total} fits"]
        if 0 < waiting < 1:
            parts.append(f"training, {waiting:.0%}")
        if self._best is not None:
            parts.append(f"best so far {self._best:.4g}")
        if self._done and self._done < self._total:
            parts.append(f"{_duration(seconds / self._done * (self._total - self._done))} left")
        elif self._done:
            parts.append(_duration(seconds))
        return " · ".join(parts)

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not self._shows or (now - self._shown < 0.2 and not last):
            return
        self._shown, text = now, self._text()
        # A carriage return works in terminals and in notebooks.
        print(f"\r{text:{self._width}}", end="\n" if last else "", file=sys.stderr, flush=True)
        self._width = len(text)

    def end(self) -> None:
        """No more is to come."""
        if self._done:
            self._show(last=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


_WORKERS = """\
        {}: Taken, so that a search of scikit-learn's runs here as it is, and without effect:
            all fits share one program, which uses the cores by itself."""

_RUNGS = """
        early_stopping: `"rungs"` stops the worst candidates at certain epochs, as a `Rungs` says in detail; then
            `cv_results_` has the epochs of each fit (`split0_n_epochs`, ..., `mean_n_epochs`) and `stopped_early`, and
            the best candidate is the best of those that were not stopped. Defaults to `None`: all train to the end."""

_ADDED = """
        journal: Where every finished fit is recorded: a path or a `Journal`. A search that was stopped, started again
            with the same journal, trains only what is missing. Defaults to `None`: nowhere.
        progress: Whether a line tells fits done, best score so far and time left; `"auto"` in terminals only.
            Defaults to `"auto"`.
        max_memory: Bytes that models trained together may take. Defaults to `None`: half of what is free.

    A fit whose network diverged (weights or loss of NaN or infinity) has failed, and gets `error_score`.
    After `fit`, `report_` says what was trained together, and `explain()` says it in words.
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

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        early_stopping: Rungs | Literal["rungs"] | None = None,
        journal: str | Path | Journal | None = None,
        progress: bool | str = "auto",
        max_memory: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.early_stopping = early_stopping
        self.journal = journal
        self.progress = progress
        self.max_memory = max_memory


class RandomizedSearchCV(_Together, model_selection.RandomizedSearchCV):
    __doc__ = f"""`sklearn.model_selection.RandomizedSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_distributions: Values or distributions by name of parameter, or a list of such dicts.
        n_iter: Candidates to draw. Defaults to `10`.
        scoring, refit, cv, verbose, random_state, error_score, return_train_score: As in scikit-learn.
{_WORKERS.format("n_jobs, pre_dispatch")}{_RUNGS}{_ADDED}"""

    def __init__(
        self,
        estimator: Any,
        param_distributions: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        early_stopping: Rungs | Literal["rungs"] | None = None,
        journal: str | Path | Journal | None = None,
        progress: bool | str = "auto",
        max_memory: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.early_stopping = early_stopping
        self.journal = journal
        self.progress = progress
        self.max_memory = max_memory


class HalvingGridSearchCV(_Together, model_selection.HalvingGridSearchCV):
    __doc__ = f"""`sklearn.model_selection.HalvingGridSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_grid: Values to try by name of parameter, or a list of such dicts.
        factor, resource, max_resources, min_resources, aggressive_elimination: As in scikit-learn;
            `resource="epochs"` gives the better candidates more epochs.
        cv, scoring, refit, error_score, return_train_score, random_state, verbose: As in scikit-learn.
{_WORKERS.format("n_jobs")}{_ADDED}"""

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        factor: float = 3,
        resource: str = "n_samples",
        max_resources: Any = "auto",
        min_resources: Any = "exhaust",
        aggressive_elimination: bool = False,
        cv: Any = 5,
        scoring: Any = None,
        refit: bool = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        journal: str | Path | Journal | None = None,
        progress: bool | str = "auto",
        max_memory: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.journal = journal
        self.progress = progress
        self.max_memory = max_memory


class HalvingRandomSearchCV(_Together, model_selection.HalvingRandomSearchCV):
    __doc__ = f"""`sklearn.model_selection.HalvingRandomSearchCV`, whose Keras fits are trained together.

    Args:
        estimator: The estimator, or a pipeline that ends in one.
        param_distributions: Values or distributions by name of parameter, or a list of such dicts.
        n_candidates, factor, resource, max_resources, min_resources, aggressive_elimination: As in scikit-learn.
        cv, scoring, refit, error_score, return_train_score, random_state, verbose: As in scikit-learn.
{_WORKERS.format("n_jobs")}{_ADDED}"""

    def __init__(
        self,
        estimator: Any,
        param_distributions: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        n_candidates: Any = "exhaust",
        factor: float = 3,
        resource: str = "n_samples",
        max_resources: Any = "auto",
        min_resources: Any = "smallest",
        aggressive_elimination: bool = False,
        cv: Any = 5,
        scoring: Any = None,
        refit: bool = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        journal: str | Path | Journal | None = None,
        progress: bool | str = "auto",
        max_memory: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_candidates=n_candidates,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.journal = journal
        self.progress = progress
        self.max_memory = max_memory
