"""What is known of scikit-learn's private functions is what the installed one does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, _validation, cross_val_predict, cross_validate, learning_curve

from kerastoolkit.search import FusedBackend
from kerastoolkit.search._tasks import (
    NOT_RECORDED,
    RESULT_OF_A_SPLIT,
    Position,
    Replay,
    ScoredFit,
    SubtaskContexts,
    Task,
    can_be_of_a_result,
    error_of,
    is_success,
    replace_functions,
    score_of,
    scores_of,
    tasks_of,
    with_scores,
)

X, Y = load_iris(return_X_y=True)
FOLDS = list(KFold(3, shuffle=True, random_state=0).split(X))


def tasks_while(run: Callable[[], Any]) -> list[tuple[Task, Any]]:
    """The tasks that a tool of scikit-learn's hands to joblib, each with what it returned."""
    seen: list[tuple[Task, Any]] = []

    def around(call: Any) -> Callable[[], Any]:
        def noted() -> Any:
            results = call()
            seen.extend(zip(tasks_of(call), results, strict=True))
            return results

        return noted

    with joblib.parallel_config(backend=FusedBackend(around=around)):
        run()
    return seen


def search(**options: Any) -> GridSearchCV:
    return GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=FOLDS, refit=False, **options)


def test_the_tasks_of_a_search_know_their_candidate_and_split() -> None:
    seen = [task for task, _ in tasks_while(lambda: search().fit(X, Y))]
    seen.sort(key=lambda task: task.position or Position(-1, -1))  # the order in which they end is not fixed
    assert all(task.is_fit for task in seen)
    assert [task.position for task in seen] == [Position(one, split) for one in range(2) for split in range(3)]
    assert [task.parameters for task in seen] == [{"C": 0.1}] * 3 + [{"C": 1.0}] * 3
    for task in seen:
        split = task.split()
        assert split is not None and task.position is not None
        np.testing.assert_array_equal(split.train, FOLDS[task.position.split][0])
        np.testing.assert_array_equal(split.test, FOLDS[task.position.split][1])
        assert split.X is X and isinstance(split.estimator, LogisticRegression) and not split.returns_train_score


@pytest.mark.parametrize(
    ("run", "is_fit"),
    [
        (lambda: cross_validate(LogisticRegression(max_iter=500), X, Y, cv=FOLDS), True),
        (lambda: cross_val_predict(LogisticRegression(max_iter=500), X, Y, cv=FOLDS), False),
        (lambda: learning_curve(LogisticRegression(max_iter=500), X, Y, cv=FOLDS, train_sizes=[0.5]), True),
    ],
    ids=["cross_validate", "cross_val_predict", "learning_curve"],
)
def test_other_tools_have_rows_to_share_and_no_place_in_a_search(run: Callable[[], Any], is_fit: bool) -> None:
    seen = [task for task, _ in tasks_while(run)]
    assert len(seen) == 3
    for task in seen:
        assert (task.is_fit, task.position) == (is_fit, None)
        assert task.split() is not None


def test_what_is_no_task_of_scikit_learn_is_left_alone() -> None:
    assert tasks_of(lambda: None) == []
    assert Task(len, (X,), {}).split() is None and not Task(len, (X,), {}).is_fit


def test_every_keyword_that_is_read_is_one_of_scikit_learn() -> None:
    known = set(inspect.signature(_validation._fit_and_score).parameters)
    read = {
        "estimator", "X", "train", "test", "parameters", "scorer", "return_train_score", "fit_params", "score_params",
        "error_score", "return_estimator", "split_progress", "candidate_progress", "verbose",
    }  # fmt: skip
    assert read <= known


def test_what_determines_a_fit_is_named_as_errors_speak_of_it() -> None:
    seen = tasks_while(lambda: search(error_score=-1.0).fit(X, Y, sample_weight=np.ones(len(X))))
    task = seen[0][0]
    fit = ScoredFit(task.function, task.arguments, task.keywords)
    assert (fit.parameters, fit.split, fit.error_score, fit.returns_estimator) == ({"C": 0.1}, 0, -1.0, False)
    assert fit.fit_params is not None and set(fit.fit_params) == {"sample_weight"}
    parts = fit.determining()
    assert {"the estimator", "the parameter `C`", "the fit parameter `sample_weight`", "`X`", "`y`"} <= set(parts)
    assert not {"`verbose`", "`candidate_progress`", "`split_progress`", "`caller`", "`callback_ctx`"} & set(parts)


class Fails(DummyClassifier):
    """Cannot be fitted."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        raise ArithmeticError("it cannot")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scoring", [None, ["accuracy", "neg_log_loss"]], ids=["one score", "several"])
def test_results_are_read_by_name(scoring: Any) -> None:
    options = {"scoring": scoring, "return_train_score": True}
    good = tasks_while(lambda: search(**options).fit(X, Y))[0][1]
    bad = tasks_while(lambda: pytest.raises(ValueError, cross_validate, Fails(), X, Y, **options))[0][1]
    assert error_of(good) is None and "it cannot" in str(error_of(bad))
    accuracy = score_of(good, "accuracy" if scoring else "score")
    assert accuracy is not None and accuracy > 0.8
    assert np.ndim(accuracy) == 0 and scores_of(good, "train") is not None
    assert is_success(good, np.nan) and not is_success(bad, np.nan)
    assert set(good) == set(RESULT_OF_A_SPLIT)
    assert all(can_be_of_a_result(name, value) for name, value in good.items())
    # A failure can be handed on as a score.
    names = scoring or []
    read = with_scores(bad, names, -1.0)
    assert error_of(read) is None and read["fit_time"] == bad["fit_time"]
    assert scores_of(read) == scores_of(read, "train") == (dict.fromkeys(names, -1.0) if scoring else -1.0)


def test_a_score_that_stands_for_a_failure_is_no_success() -> None:
    assert is_success({"test_scores": 0.5, "fit_error": None}, -1.0)
    assert not is_success({"test_scores": -1.0, "fit_error": None}, -1.0)
    assert not is_success({"test_scores": {"a": 1.0, "b": np.nan}, "fit_error": None}, np.nan)
    assert not is_success(None, np.nan)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fit_error", "it failed"), ("fit_time", -1.0), ("score_time", np.inf), ("test_scores", "0.5"), ("any", [1])],
)
def test_what_scikit_learn_would_not_return_is_no_result(name: str, value: Any) -> None:
    assert not can_be_of_a_result(name, value)


def test_parts_that_come_back_from_the_call_are_recorded_empty() -> None:
    assert all(can_be_of_a_result(name, None) and not can_be_of_a_result(name, 1) for name in NOT_RECORDED)


class Call:
    """A call of one task, as far as a replay uses it."""

    def __init__(self, position: Position, run: Callable[[], Any]) -> None:
        keywords = {"candidate_progress": (position.candidate, 2), "split_progress": (position.split, 3)}
        self.items: list[Any] = [(run, (), keywords)]

    def __call__(self) -> list[Any]:
        return [function() for function, _, _ in self.items]


def test_a_known_result_is_given_back_and_anything_else_is_run_and_noted() -> None:
    ran: list[int] = []
    known = {Position(0, 1): {"test_scores": 0.25}}
    results: dict[Position, Any] = {}

    def run() -> dict[str, float]:
        ran.append(1)
        return {"test_scores": 0.5}

    assert Replay(Call(Position(0, 1), run), known, results)() == [{"test_scores": 0.25}] and not ran
    assert Replay(Call(Position(1, 0), run), known, results)() == [{"test_scores": 0.5}] and len(ran) == 1
    assert results == {Position(0, 1): {"test_scores": 0.25}, Position(1, 0): {"test_scores": 0.5}}
    assert known[Position(0, 1)] is not results[Position(0, 1)]


def test_functions_are_replaced_and_arguments_stay() -> None:
    call = Call(Position(0, 0), lambda: 1)
    before = call.items[0][2]
    replace_functions(call, lambda task: lambda: task.function() + 1)
    assert call() == [2] and call.items[0][2] is before


def test_subtasks_of_several_parts_are_numbered_through() -> None:
    class Context:
        numbers: list[int] = []

        def subcontext(self, task_name: str, task_id: int) -> tuple[str, int]:
            self.numbers.append(task_id)
            return task_name, task_id

    contexts = SubtaskContexts(Context())
    assert contexts.subcontext("fit", 0) == ("fit", 0)
    contexts.first = 3
    assert contexts.subcontext("fit", 0) == contexts.subcontext("fit", 0) == ("fit", 3)
    assert Context.numbers == [0, 3]
