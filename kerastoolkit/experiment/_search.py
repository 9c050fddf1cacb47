"""The search of an experiment: scikit-learn's grid search, fed a few candidates at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, ParameterGrid

from kerastoolkit.exceptions import DataError
from kerastoolkit.experiment.result import RESULTS_FILE

if TYPE_CHECKING:
    from kerastoolkit.experiment.run import Run

__all__ = ["InBatches", "Watch", "results_table"]

_SECONDS_BETWEEN_REPORTS = 0.2  # of the epochs done, while fits are trained
# What is trained together is lost together when the search is interrupted; with a budget, structures take turns.
_SECONDS_A_BATCH, _A_TURN_WITH_A_BUDGET = 20, 4


class InBatches(GridSearchCV):
    """scikit-learn's grid search, a few candidates at a time."""

    watch: Watch

    def _run_search(self, evaluate_candidates: Callable[..., dict[str, Any]]) -> None:
        self.watch.search(list(ParameterGrid(self.param_grid)), evaluate_candidates)


class Watch:
    """Cuts the search into batches, counts its fits, keeps the budget, saves results as they come."""

    def __init__(self, run: Run) -> None:
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
        self.experiment.left_out = [bare_names(candidate) for candidate in left]
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
            self.experiment.results = results_table(evaluate(batch)).reset_index(drop=True)
        except ValueError:  # what scikit-learn raises if all fits failed
            if sum(map(len, self.errors.values())) < self.fits_together:
                raise
        if self.plan.out is not None and self.experiment.n_evaluated:
            with contextlib.suppress(OSError):  # a full disk is told at the end, when the folder is written
                self.experiment.results.to_csv(self.plan.out / RESULTS_FILE, index=False)
        for place, errors in sorted(self.errors.items()):
            where = "" if len(errors) == n_folds else f"in {len(errors)} of {n_folds} folds, "
            self.experiment.failed.append({"params": bare_names(batch[place]), "error": where + _last_line(errors[-1])})
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


def results_table(results: dict[str, Any]) -> pd.DataFrame:
    """`cv_results_` without candidates that have no score, the column `params`, and the pipeline's prefixes."""
    table = pd.DataFrame({key: list(values) for key, values in results.items() if key != "params"})
    table = table[table.filter(regex=r"^split\d+_test_score").notna().any(axis=1)]
    return table.rename(columns=lambda name: re.sub(r"^param_network__(regressor__)?", "param_", name))


def bare_names(candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"^network__(regressor__)?", "", key): value for key, value in candidate.items()}


def _last_line(error: object) -> str:
    # scikit-learn tells a candidate's error as a traceback that ends with it.
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
