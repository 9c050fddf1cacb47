"""The candidates of an experiment, trained a few at a time.

scikit-learn owns the folds, the scores and `cv_results_`: the search is its `GridSearchCV`. Candidates of one structure
come together and are trained as one program, in batches small enough to keep to a timeout, and to lose little when the
search is interrupted.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, ParameterGrid

from kerastoolkit.exceptions import DataError
from kerastoolkit.search.backend import FusedBackend

__all__ = ["BatchedSearch", "results_table"]

_SECONDS_BETWEEN_REPORTS = 0.2  # of the epochs done, while fits are trained
# What is trained together is lost together if the search is interrupted; with a timeout, structures take turns.
_SECONDS_PER_BATCH, _CANDIDATES_PER_TURN = 20, 4

_Candidate = dict[str, Any]  # its parameters, by the names that the pipeline has for them


class Report(Protocol):
    """Tells how far the search is: the stage, fits done and in total, seconds left if known, and a message."""

    def __call__(self, stage: str, done: int, total: int, seconds_left: float | None, message: str) -> None: ...


class BatchedSearch(GridSearchCV):
    """scikit-learn's grid search, a few candidates at a time.

    An experiment needs no more of a search than this, so that another one can take its place:

    - `fit(X, y, **params)`, and then `cv_results_`, `best_index_`, `best_params_`, `best_estimator_`, as in
      scikit-learn. Candidates that cannot be trained are passed over; if none can be, `fit` raises a `DataError`.
    - Nothing is started that would not end in time, but for the first candidate (`timeout`).
    - While it runs, `on_results` is called with the results so far, and `report` with how far it is.
    - However `fit` ends: `left_out_` are the candidates for which there was no time, `failed_` those that could not be
      trained and scored on all folds, with their errors, and `report_` tells what was trained together.
    - `seconds_`, the seconds that each evaluated candidate took.

    Args:
        estimator: A pipeline whose last step, `"network"`, is varied.
        param_grid: Values to try by parameter, or a list of such dicts.
        scoring: The scorer.
        cv: Positions of the training rows and of the scored rows of each fold.
        report: What tells how far the search is.
        on_results: A function that is called with the table of results after each batch.
        timeout: Seconds after which no further candidate is started. Defaults to `None`: no limit.
        elapsed: A function that returns how many seconds of the timeout are spent. Defaults to `None`: those since
            `fit` was called.
        n_repeats: Number of cross-validations of one candidate for which time is kept after the search, up to a third
            of the timeout. Defaults to `0`.
        random_state: Seed of the order in which candidates come if there is a timeout. Defaults to `0`.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
        *,
        scoring: Callable[..., float],
        cv: Sequence[tuple[np.ndarray, np.ndarray]],
        report: Report,
        on_results: Callable[[pd.DataFrame], None],
        timeout: float | None = None,
        elapsed: Callable[[], float] | None = None,
        n_repeats: int = 0,
        random_state: int = 0,
    ) -> None:
        super().__init__(estimator, param_grid, scoring=scoring, cv=cv)
        self.report = report
        self.on_results = on_results
        self.timeout = timeout
        self.elapsed = elapsed
        self.n_repeats = n_repeats
        self.random_state = random_state
        self._start()

    def _start(self) -> None:
        self.left_out_: list[_Candidate] = []
        self.failed_: list[dict[str, Any]] = []
        self.seconds_: list[float] = []
        self._n_evaluated = self._n_scored = 0
        self._fits_done = self._fits_before = self._fits_together = 0  # before this batch, and in it
        self._errors: dict[int, list[str]] = {}  # by place in the batch
        self._began, self._last_told = time.monotonic(), 0.0

    def fit(self, X: pd.DataFrame, y: np.ndarray, **params: object) -> BatchedSearch:
        """Searches, and fits the winner to all rows.

        Args:
            X: Features, shape `(n_rows, n_features)`.
            y: Target, shape `(n_rows,)`.
            **params: Further arguments of the pipeline's `fit`; those with an entry for each row are split as the rows
                are.

        Returns:
            The search itself, fitted.

        Raises:
            DataError: If no candidate could be trained.
        """
        self._start()
        backend = FusedBackend(on_epoch_end=self._while_training, around=self._around)
        self.report_ = backend.report
        with joblib.parallel_config(backend=backend):
            super().fit(X, y, **params)
        return self

    def _elapsed(self) -> float:
        return time.monotonic() - self._began if self.elapsed is None else self.elapsed()

    def _run_search(self, evaluate_candidates: Callable[..., dict[str, Any]]) -> None:
        left = self._in_order(list(ParameterGrid(self.param_grid)))
        while left and (batch := self._next_batch(left)):
            left = left[len(batch) :]
            self._train(batch, evaluate_candidates)
        self.left_out_ = [_bare(candidate) for candidate in left]
        if not self._n_scored and self.failed_:
            raise DataError(f"No candidate could be trained; the last one ended with: {self.failed_[-1]['error']}")
        seconds = (time.monotonic() - self._began) / max(self._fits_done, 1)
        self.report("final fit", 0, 1, seconds, "fitting the winner to the rows of all folds")

    def _in_order(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """Those of one structure in a row. The order, and so who wins among equals, does not depend on their speed."""
        per_turn = len(candidates)
        if self.timeout is not None:
            # In the order of the grid, a timeout would always cut off the same corner of it.
            order = np.random.RandomState(self.random_state).permutation(len(candidates))
            candidates, per_turn = [candidates[position] for position in order], _CANDIDATES_PER_TURN
        alike: dict[str, list[_Candidate]] = {}
        for candidate in candidates:
            alike.setdefault(_structure(candidate), []).append(candidate)
        turns = range(0, len(candidates), per_turn)
        return [one for turn in turns for some in alike.values() for one in some[turn : turn + per_turn]]

    def _next_batch(self, left: list[_Candidate]) -> list[_Candidate]:
        """As many of one structure as there is time for, none if there is no time; one while the speed is unknown."""
        if not self.seconds_:
            return left[:1]
        n_together = max(int(_SECONDS_PER_BATCH / np.mean(self.seconds_)), 1)
        if self.timeout is not None:
            # A candidate costs its folds, as a repeat of the comparison does, and the winner costs one more fit.
            kept = min(self.n_repeats * max(self.seconds_), self.timeout / 3)
            in_time = (self.timeout - kept - self._elapsed()) / max(self.seconds_) - 1 / len(self.cv)
            n_together = min(n_together, max(int(in_time), 0))
        structure = _structure(left[0])
        return list(itertools.takewhile(lambda one: _structure(one) == structure, left[:n_together]))

    def _train(self, batch: list[_Candidate], evaluate: Callable[..., dict[str, Any]]) -> None:
        """Candidates that cannot be trained are noted and passed over: the others may still be good."""
        n_folds, n_before, began = len(self.cv), self._n_evaluated, time.monotonic()
        self._fits_before, self._fits_together, self._errors = self._fits_done, len(batch) * n_folds, {}
        try:
            results = results_table(evaluate(batch)).reset_index(drop=True)
        except ValueError:  # what scikit-learn raises if all fits failed
            if sum(map(len, self._errors.values())) < self._fits_together:
                raise
        else:
            self._n_evaluated = len(results)
            self._n_scored = int(np.isfinite(results["mean_test_score"]).sum())
            self.on_results(results)
        for place, errors in sorted(self._errors.items()):
            where = "" if len(errors) == n_folds else f"in {len(errors)} of {n_folds} folds, "
            self.failed_.append({"params": _bare(batch[place]), "error": where + _last_line(errors[-1])})
        if n_new := self._n_evaluated - n_before:
            self.seconds_ += [(time.monotonic() - began) / n_new] * n_new

    def _around(self, call: Any) -> Callable[[], list[Any]]:
        """The same task of joblib's, whose fits are counted."""

        def observed() -> list[Any]:
            results: list[Any] = call()
            for (_, _, keywords), result in zip(call.items, results, strict=True):
                if "candidate_progress" in keywords:  # a fit of the search
                    if math.isnan(result["test_scores"]):
                        error = result["fit_error"] or "what it predicts could not be scored"
                        self._errors.setdefault(keywords["candidate_progress"][0], []).append(error)
                    result["fit_time"] /= self._fits_together  # each has waited for all
                    self._fits_done += 1
                    self._tell(self._fits_done, "searching")
            return results

        return observed

    def _while_training(self, epochs_done: int, epochs: int) -> None:
        """So many of the epochs of the fits in training are done."""
        if time.monotonic() - self._last_told > _SECONDS_BETWEEN_REPORTS:
            share = epochs_done / max(epochs, 1)
            with contextlib.suppress(Exception):  # it would be taken for a failure of the training; raised after it
                self._tell(self._fits_before + share * self._fits_together, f"training, {share:.0%}")

    def _tell(self, fits_done: float, message: str) -> None:
        self._last_told = time.monotonic()
        per_fit = (self._last_told - self._began) / max(fits_done, 1)
        n_folds = len(self.cv)
        total, left = len(ParameterGrid(self.param_grid)) * n_folds, None
        if fits_done >= 1:
            left = per_fit * (total - fits_done + 1 + self.n_repeats * n_folds)
            if self.timeout is not None:
                left = min(left, max(self.timeout - self._elapsed(), per_fit))
        self.report("candidates", self._fits_done, total, left, message)


def results_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """`cv_results_` without candidates that have no score, the column `params`, and the pipeline's prefixes."""
    table = pd.DataFrame({key: list(values) for key, values in results.items() if key != "params"})
    table = table[table.filter(regex=r"^split\d+_test_score").notna().any(axis=1)]
    return table.rename(columns=lambda name: re.sub(r"^param_network__(regressor__)?", "param_", name))


def _structure(candidate: _Candidate) -> str:
    """What candidates share that become one program, as far as their names tell: `fit_many` looks at the networks.

    Numbers go into a program as data, unless they are sizes; of dropout and penalties, 0 leaves out a part of it.
    """
    sizes = ("hidden", "batch_size")
    is_data = {name: isinstance(value, (int, float)) and not name.endswith(sizes) for name, value in candidate.items()}
    return repr({name: value != 0 if is_data[name] else value for name, value in candidate.items()})


def _bare(candidate: _Candidate) -> dict[str, Any]:
    return {re.sub(r"^network__(regressor__)?", "", key): value for key, value in candidate.items()}


def _last_line(error: object) -> str:
    # scikit-learn tells a candidate's error as a traceback that ends with it.
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
