"""A search with a `timeout` ends in time, and what it has evaluated is what it would have evaluated without."""

from __future__ import annotations

import math
import re
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn import model_selection
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from kerastoolkit import KerasClassifier
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.search import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    Journal,
    RandomizedSearchCV,
    SearchProgress,
    _progress,
    _run,
)
from kerastoolkit.search._run import Pace

X, Y = load_iris(return_X_y=True)


class Clock:
    """Time that goes by only where somebody works."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    ticking = Clock()
    Works.clock = ticking
    for module in (_run, _progress):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=ticking.monotonic))
    yield ticking
    Works.clock = None


class Works(ClassifierMixin, BaseEstimator):
    """Takes so many seconds to fit, or fails."""

    clock: Clock | None = None
    n_fits = 0

    def __init__(self, seconds: float = 1.0, fails: bool = False, number: int = 0) -> None:
        self.seconds, self.fails, self.number = seconds, fails, number

    def fit(self, X: Any, y: Any) -> Works:
        type(self).n_fits += 1
        if self.clock is not None:
            self.clock.now += self.seconds
        if self.fails:
            raise ArithmeticError(f"candidate {self.number} cannot be fitted")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[self.number % 3])


def numbers(search: Any) -> list[int]:
    return [params["number"] for params in search.cv_results_["params"]]


# -- how many there is time for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "60", [1], True])
def test_impossible_times_are_refused(timeout: Any) -> None:
    with pytest.raises(ParameterError, match="`timeout` must be seconds, greater than 0, or None; got"):
        GridSearchCV(Works(), {"number": [1]}, timeout=timeout).fit(X, Y)


def sizes(left: float, seconds: list[float]) -> list[int]:
    """The sizes of batches whose candidates take so many seconds each, until the time is up."""
    pace = Pace(lambda seconds: left)
    found = []
    for one in seconds:
        found.append(size := pace.next())
        pace.took(one * size, size)
        left -= one * size
    return found


def test_batches_grow_with_the_speed_that_was_measured() -> None:
    assert sizes(1000, [1.0] * 6) == [1, 4, 16, 20, 20, 20]  # at most twenty seconds each
    assert sizes(1000, [1.0, 0.01, 0.01, 0.01]) == [1, 4, 16, 64]
    assert sizes(math.inf, [50.0] * 3) == [1, 1, 1]


def test_the_last_batches_fit_into_the_time_that_is_left() -> None:
    assert sizes(10, [1.0] * 5) == [1, 4, 5, 0, 0]
    assert sizes(10, [9.5, 9.5, 9.5]) == [1, 1, 0]  # one more, since there was time to begin it


def test_while_a_journal_has_all_of_them_batches_stay_small() -> None:
    pace = Pace(lambda seconds: 100.0)
    found = []
    for _ in range(7):
        found.append(pace.next())
        pace.took(0.001, 0)  # nothing was trained
    assert found == [1, 2, 4, 8, 16, 16, 16]


# -- what is left out -------------------------------------------------------------------------------------------------


def test_candidates_that_were_not_begun_are_left_out_and_counted(clock: Clock) -> None:
    search = GridSearchCV(Works(), {"number": list(range(12))}, cv=3, timeout=20)
    message = "The `timeout` of 20 seconds ended the search before 5 of 12 candidates had begun; they"
    with pytest.warns(KerasToolkitWarning, match=message) as told:
        search.fit(X, Y)
    assert told[0].filename == __file__
    assert numbers(search) == list(range(7))  # in their order: one, four, and two that still had time to begin
    assert search.left_out_ == [{"number": number} for number in range(7, 12)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        all_of_them = model_selection.GridSearchCV(Works(), {"number": list(range(7))}, cv=3).fit(X, Y)
    for name in ("mean_test_score", "rank_test_score", "split2_test_score"):
        assert_array_equal(search.cv_results_[name], all_of_them.cv_results_[name])
    assert search.best_params_ == all_of_them.best_params_


def test_one_candidate_is_evaluated_whatever_the_time(clock: Clock) -> None:
    search = GridSearchCV(Works(seconds=100), {"number": [0, 1, 2]}, cv=2, timeout=0.001)
    with pytest.warns(KerasToolkitWarning, match="before 2 of 3 candidates"):
        search.fit(X, Y)
    assert numbers(search) == [0] and search.best_params_ == {"number": 0}


@pytest.mark.parametrize("timeout", [None, 1000, math.inf])
def test_with_time_enough_nothing_is_left_out(clock: Clock, timeout: float | None) -> None:
    search = GridSearchCV(Works(), {"number": list(range(12))}, cv=3, timeout=timeout).fit(X, Y)
    assert numbers(search) == list(range(12)) and search.left_out_ == []


def test_drawn_candidates_are_the_same_with_and_without_a_timeout(clock: Clock) -> None:
    options = {"param_distributions": {"number": range(1000)}, "n_iter": 12, "random_state": 0, "cv": 2}
    with pytest.warns(KerasToolkitWarning, match="candidates had begun"):
        some = RandomizedSearchCV(Works(), **options, timeout=12).fit(X, Y)
    every = model_selection.RandomizedSearchCV(Works(), **options).fit(X, Y)
    assert 1 < len(numbers(some)) < 12
    assert numbers(some) + [params["number"] for params in some.left_out_] == numbers(every)


def test_a_subclass_may_reserve_time(clock: Clock) -> None:
    class Reserves(GridSearchCV):
        asked: list[float] = []

        def _seconds_to_reserve(self, seconds_of_a_candidate: float) -> float:
            self.asked.append(seconds_of_a_candidate)
            return 10.0 + seconds_of_a_candidate

    with pytest.warns(KerasToolkitWarning, match="before 8 of 12"):
        search = Reserves(Works(), {"number": list(range(12))}, cv=2, timeout=20).fit(X, Y)
    assert numbers(search) == [0, 1, 2, 3]
    assert Reserves.asked == [0.0, 2.0, 2.0]


# -- halving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "iterations", "message"),
    [
        (5, [3], "before 6 of 9 candidates had begun.* There was no time for further iterations"),
        (20, [9, 3], "ended the search after 2 of 3 iterations: the best candidate is the best of the last one"),
        (1000, [9, 3, 1], None),
    ],
    ids=["in the first iteration", "after the second", "never"],
)
@pytest.mark.parametrize("kind", [HalvingGridSearchCV, HalvingRandomSearchCV])
def test_halving_ends_with_a_whole_iteration(
    clock: Clock, kind: Any, timeout: float, iterations: list[int], message: str | None
) -> None:
    options = {"n_candidates": 9} if kind is HalvingRandomSearchCV else {}
    search = kind(
        Works(), {"number": list(range(9))}, cv=2, min_resources=15, random_state=0, timeout=timeout, **options
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        search.fit(X, Y)
    texts = [str(one.message) for one in told if one.category is KerasToolkitWarning]
    assert len(texts) == (message is not None)
    if message is not None:
        assert re.search(message, texts[0])
    assert search.n_candidates_ == iterations and search.n_iterations_ == len(iterations)
    assert len(search.n_resources_) == len(iterations)
    assert search.n_remaining_candidates_ == math.ceil(iterations[-1] / 3)
    assert_array_equal(np.bincount(search.cv_results_["iter"]), iterations)
    assert search.cv_results_["iter"][search.best_index_] == len(iterations) - 1


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "balanced_accuracy"], "both"])
@pytest.mark.parametrize("fails", [[0, 1], [1, 2], [2, 3, 4, 5], [5], [0, 5], []])
def test_candidates_that_fail_get_the_error_score_in_their_place(clock: Clock, fails: list[int], scoring: Any) -> None:
    grid = [{"number": [number], "fails": [number in fails]} for number in range(6)]
    refit = "right" if scoring == "both" else "accuracy" if isinstance(scoring, list) else True

    def of_both(estimator: Any, X: Any, y: Any) -> dict[str, float]:
        return {"right": float(estimator.score(X, y)), "wrong": 1 - float(estimator.score(X, y))}

    options = {"cv": 2, "scoring": of_both if scoring == "both" else scoring, "refit": refit, "error_score": -1.0}
    Works.n_fits = 0
    ours = GridSearchCV(Works(), grid, timeout=math.inf, **options).fit(X, Y)
    assert Works.n_fits == 6 * 2 + 1  # nothing twice
    theirs = model_selection.GridSearchCV(Works(), grid, **options).fit(X, Y)
    assert list(ours.cv_results_["params"]) == list(theirs.cv_results_["params"])
    for name in theirs.cv_results_:
        if "test" in name:
            assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name], err_msg=name)
    assert ours.best_params_ == theirs.best_params_


def test_where_all_fail_scikit_learn_says_so(clock: Clock) -> None:
    search = GridSearchCV(Works(fails=True), {"number": [1, 2, 3]}, cv=2, timeout=math.inf)
    with pytest.raises(ValueError, match="All the 6 fits failed"):
        search.fit(X, Y)
    with pytest.raises(ArithmeticError, match="candidate 1 cannot be fitted"):
        search.set_params(error_score="raise").fit(X, Y)


# -- with a journal, at rungs, of networks ----------------------------------------------------------------------------


def test_with_a_journal_the_next_search_trains_the_rest(clock: Clock, tmp_path: Path) -> None:
    def tick(progress: SearchProgress) -> None:
        clock.now += progress.fit is not None

    grid = {"max_depth": list(range(1, 13))}
    with Journal(tmp_path / "search.db") as journal:
        options: dict[str, Any] = {"cv": 3, "journal": journal, "on_progress": tick, "refit": False}
        search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, timeout=20, **options)
        with pytest.warns(KerasToolkitWarning, match="with the same `journal`, the search trains only these"):
            search.fit(X, Y)
        assert len(journal) == len(search.cv_results_["params"]) * 3 == 7 * 3
        recorded = journal.results()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            search.set_params(timeout=1000).fit(X, Y)
        assert len(search.cv_results_["params"]) == 12
        assert len(journal) == 12 * 3 and journal.results()[: 7 * 3] == recorded


def test_networks_score_the_same_in_batches() -> None:
    model = KerasClassifier(hidden=(8,), epochs=3, random_state=0)
    grid = {"optimizer__learning_rate": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]}
    at_once, in_batches = (GridSearchCV(model, grid, cv=2, timeout=timeout).fit(X, Y) for timeout in (None, math.inf))
    for split in range(2):
        name = f"split{split}_test_score"
        np.testing.assert_allclose(in_batches.cv_results_[name], at_once.cv_results_[name], atol=1e-6)
    assert in_batches.best_params_ == at_once.best_params_
    assert all(one.how != "Model.fit" for one in in_batches.report_.trained)
    assert max(one.n_together for one in in_batches.report_.trained) >= 4


def test_candidates_of_several_batches_are_compared_at_rungs() -> None:
    model = KerasClassifier(hidden=(8,), epochs=9, random_state=0, validation_split=0.2)
    grid = {"optimizer__learning_rate": [0.03, 1e-6, 1e-7, 1e-8, 0.1]}
    found = GridSearchCV(model, grid, cv=2, early_stopping="rungs", timeout=math.inf).fit(X, Y).cv_results_
    assert len(found["stopped_early"]) == 5
    assert_array_equal(found["stopped_early"], found["mean_n_epochs"] < 9)
    assert not found["stopped_early"][0] and found["stopped_early"][1:4].all()
