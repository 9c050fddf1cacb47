"""The candidates of an experiment, searched by `kerastoolkit.search`.

The search trains candidates of one structure as one program, in batches small enough to keep to a timeout, and to lose
little when it is interrupted. What an experiment adds is the order of the candidates, the time that it keeps for the
comparison at its end, and a record of what failed.
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterGrid

from kerastoolkit._types import Rows, Target
from kerastoolkit.exceptions import DataError, KerasToolkitWarning
from kerastoolkit.search._options import Refit
from kerastoolkit.search._progress import SearchProgress
from kerastoolkit.search.searches import GridSearchCV

__all__ = ["CandidateSearch"]

_CANDIDATES_PER_TURN = 4  # with a timeout, structures take turns

_Candidate = Mapping[str, Any]  # its parameters, by the names that the pipeline has for them


class Report(Protocol):
    """Tells how far the search is: the stage, fits done and in total, seconds left if known, and a message."""

    def __call__(self, stage: str, done: int, total: int, seconds_left: float | None, message: str) -> None: ...


class CandidateSearch(GridSearchCV):
    """`kerastoolkit.search.GridSearchCV` as an experiment needs it.

    After `fit`, however it ends, `left_out_` are the candidates for which there was no time, `failed_` those that could
    not be trained and scored on all folds, with their errors, and `seconds_` what each evaluated candidate took.

    Args:
        estimator: A pipeline whose last step, `"network"`, is varied.
        param_grid: Values to try by parameter, or a list of such dicts.
        scoring: The scorer.
        cv: Positions of the training rows and of the scored rows of each fold.
        report: What tells how far the search is.
        on_results: A function that is called with the table of results after each batch.
        timeout: Seconds after which no further candidate is started. Defaults to `None`: no limit.
        n_repeats: Number of cross-validations of one candidate for which time is kept after the search, up to a third
            of the timeout. Defaults to `0`.
        random_state: Seed of the order in which candidates come if there is a timeout. Defaults to `0`.
        journal: Where finished fits are recorded, so that an interrupted search resumes. Defaults to `None`: nowhere.
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
        n_repeats: int = 0,
        random_state: int = 0,
        journal: str | Path | None = None,
    ) -> None:
        super().__init__(
            estimator,
            _in_order(param_grid, None if timeout is None else random_state),
            scoring=scoring,
            cv=cv,
            # Without a limit it comes in batches, too, so that an interruption loses little.
            timeout=math.inf if timeout is None else max(timeout, 1e-3),
            on_progress=self._watch,
            journal=journal,
        )
        self.report = report
        self.on_results = on_results
        self.n_repeats = n_repeats
        self.random_state = random_state
        self._start()

    def _start(self) -> None:
        self.left_out_: list[_Candidate] = []
        self.failed_: list[dict[str, Any]] = []
        self.seconds_: list[float] = []
        self._errors: dict[int, tuple[_Candidate, list[str]]] = {}
        self._n_together: list[int] = []  # with how many fits each evaluated candidate shared its time
        self._began = self._began_batch = time.monotonic()

    @property
    def _n_folds(self) -> int:
        return len(self.cv)  # type: ignore[arg-type]

    def fit(self, X: Rows, y: Target = None, **params: object) -> CandidateSearch:
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
        try:
            with warnings.catch_warnings():
                # The report says what was left out.
                warnings.filterwarnings("ignore", "The `timeout` of", KerasToolkitWarning)
                super().fit(X, y, **params)
        except ValueError as error:
            if isinstance(error, DataError) or self.seconds_ or not self._errors:
                raise
            raise DataError(self._nothing_trained()) from error
        finally:
            self.failed_ = self._failures()
            self.left_out_ = [_bare(candidate) for candidate in self.left_out_]
        return self

    def _select_best_index(self, refit: Refit, refit_metric: str, results: Mapping[str, Any]) -> int:
        if self._errors and not np.isfinite(results["mean_test_score"]).any():
            raise DataError(self._nothing_trained())
        per_fit = (time.monotonic() - self._began) / max(len(self._n_together) * self._n_folds, 1)
        self.report("final fit", 0, 1, per_fit, "fitting the winner to the rows of all folds")
        return super()._select_best_index(refit, refit_metric, results)

    def _watch(self, progress: SearchProgress) -> None:
        """Notes what failed and what was evaluated, and tells how far the search is."""
        fit, results = progress.fit, progress.results
        if fit is not None and (fit.error is not None or fit.score is None or not math.isfinite(fit.score)):
            error = fit.error or "what it predicts could not be scored"
            self._errors.setdefault(fit.candidate, (fit.parameters, []))[1].append(error)
        if results is not None and (n_new := len(results["params"]) - len(self._n_together)):
            self._n_together += [n_new * self._n_folds] * n_new
            self.seconds_ += [(time.monotonic() - self._began_batch) / n_new] * n_new
            self._began_batch = time.monotonic()
            self.on_results(self.results_table(results).reset_index(drop=True))
        is_training = 0 < progress.training < 1
        if fit is None and not is_training:
            return
        left = progress.seconds_left
        if left is not None:
            per_fit = progress.seconds / progress.n_fits_done
            left += per_fit * (1 + self.n_repeats * self._n_folds)
            if self.timeout is not None and math.isfinite(self.timeout):
                left = min(left, max(self.timeout - progress.seconds, per_fit))
        message = f"training, {progress.training:.0%}" if is_training else "searching"
        self.report("candidates", progress.n_fits_done, progress.n_fits, left, message)

    def _seconds_to_reserve(self, seconds_of_a_candidate: float) -> float:
        """For the comparison, of which each repeat costs what a candidate does, and for the fit of the winner."""
        if self.timeout is None or not math.isfinite(self.timeout):
            return 0.0
        comparison = min(self.n_repeats * seconds_of_a_candidate, self.timeout / 3)
        return comparison + seconds_of_a_candidate / self._n_folds

    def _failures(self) -> list[dict[str, Any]]:
        """The candidates that failed, in their order."""
        failures = []
        for _, (candidate, errors) in sorted(self._errors.items()):
            where = "" if len(errors) == self._n_folds else f"in {len(errors)} of {self._n_folds} folds, "
            failures.append({"params": _bare(candidate), "error": where + _last_line(errors[-1])})
        return failures

    def _nothing_trained(self) -> str:
        return f"No candidate could be trained; the last one ended with: {self._failures()[-1]['error']}"

    def results_table(self, results: Mapping[str, Any]) -> pd.DataFrame:
        """`cv_results_` without candidates that have no score, the column `params`, and the pipeline's prefixes.

        Fits that were trained together share their time, so that each candidate has its share of it.
        """
        table = pd.DataFrame({key: list(values) for key, values in results.items() if key != "params"})
        for name in ("mean_fit_time", "std_fit_time"):
            table[name] /= self._n_together
        table = table[table.filter(regex=r"^split\d+_test_score").notna().any(axis=1)]
        return table.rename(columns=lambda name: re.sub(r"^param_network__(regressor__)?", "param_", name))


def _in_order(
    param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]], random_state: int | None
) -> list[dict[str, list[Any]]]:
    """The candidates as grids of one, those of one structure in a row; shuffled, and in turns, if there is a seed.

    The order, and so who wins among equals, does not depend on the speed of the candidates.
    """
    candidates = list(ParameterGrid(param_grid))
    per_turn = len(candidates)
    if random_state is not None:
        # In the order of the grid, a timeout would always cut off the same corner of it.
        order = np.random.RandomState(random_state).permutation(len(candidates))
        candidates, per_turn = [candidates[position] for position in order], _CANDIDATES_PER_TURN
    alike: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        alike.setdefault(_structure(candidate), []).append(candidate)
    turns = range(0, len(candidates), per_turn)
    ordered = [one for turn in turns for some in alike.values() for one in some[turn : turn + per_turn]]
    return [{name: [value] for name, value in candidate.items()} for candidate in ordered]


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
