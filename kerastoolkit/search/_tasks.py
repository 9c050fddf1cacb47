"""The one reader of what scikit-learn hands to joblib, and of what comes back.

scikit-learn's searches and cross-validations hand joblib one call for each candidate and split: a call of a private
function (`_fit_and_score`), with keywords that no release promises to keep, which returns a dict with keys that no
release promises either. Whatever the searches know of these stands here, by name. A new release of scikit-learn means
one file to look at, and `tests/search/test_tasks.py` tells whether something moved.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator

__all__ = [
    "NOT_RECORDED",
    "RESULT_OF_A_SPLIT",
    "Call",
    "Position",
    "Replay",
    "Result",
    "ScoredFit",
    "Split",
    "SubtaskContexts",
    "Task",
    "can_be_of_a_result",
    "error_of",
    "fits_and_scores",
    "is_success",
    "replace_functions",
    "score_of",
    "scores_of",
    "tasks_of",
    "with_scores",
]


class Call(Protocol):
    """What joblib hands to its backend: a `joblib.parallel.BatchedCalls` with the tasks in `items`, or any callable."""

    def __call__(self) -> Any: ...


Result: TypeAlias = Mapping[str, Any]  # what `_fit_and_score` returns

_FIT_AND_SCORE = "_fit_and_score"
_ITS_ROOM = "sklearn.model_selection."

# Arguments of a fit that make no difference to its result.
_WITHOUT_EFFECT = {"callback_ctx", "candidate_progress", "caller", "split_progress", "verbose"}

# Settings of scikit-learn that do make one.
_SETTINGS = ("array_api_dispatch", "enable_metadata_routing", "transform_output")

# Arguments that are dicts of many things, and how an error speaks of one of them.
_DICTS = {
    "fit_params": "the fit parameter", "parameters": "the parameter", "score_params": "the score parameter",
}  # fmt: skip

# Parts of a result that come back from the call itself, and are not recorded.
NOT_RECORDED = ("estimator", "parameters")

# Parts of a result that a search reads again when a split is not fitted anew.
RESULT_OF_A_SPLIT = ("fit_error", "test_scores", "train_scores", "n_test_samples", "fit_time", "score_time")


class Position(NamedTuple):
    """Where the task of a search belongs.

    Attributes:
        candidate: Number of the candidate among those evaluated together, from 0.
        split: Number of the split, from 0.
    """

    candidate: int
    split: int


class Split(NamedTuple):
    """The arguments of a function that fits an estimator to some rows of a table and scores it on others."""

    estimator: BaseEstimator
    X: Any
    train: Any
    test: Any
    parameters: Mapping[str, Any]
    scorer: Any
    returns_train_score: bool


@dataclasses.dataclass(frozen=True)
class Task:
    """One call that joblib was handed: a function with its arguments."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]

    @property
    def is_fit(self) -> bool:
        """Whether it fits and scores one candidate on one split."""
        return fits_and_scores(self.function)

    @property
    def position(self) -> Position | None:
        """Where it belongs in a search; None for a call of anything else."""
        candidate, split = self.keywords.get("candidate_progress"), self.keywords.get("split_progress")
        return None if candidate is None or split is None else Position(candidate[0], split[0])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of the candidate."""
        return self.keywords.get("parameters") or {}

    def split(self) -> Split | None:
        """The rows it works on; None for a call of anything else."""
        inner = inspect.unwrap(self.function)
        if not (getattr(inner, "__module__", "") or "").startswith(_ITS_ROOM):
            return None
        try:
            given = _signature(inner).bind(*self.arguments, **self.keywords).arguments
        except (TypeError, ValueError):
            return None
        if not {"estimator", "X", "train", "test"} <= set(given):
            return None
        return Split(
            given["estimator"],
            given["X"],
            given["train"],
            given["test"],
            parameters=given.get("parameters") or {},
            scorer=given.get("scorer"),
            returns_train_score=bool(given.get("return_train_score")),
        )


class ScoredFit:
    """The arguments of a fit that is scored, and what of them determines its result.

    Attributes:
        estimator: The estimator that is fitted.
        parameters: The candidate's parameters, to be set on it; None in a cross-validation.
        fit_params: The dict of the arguments of `fit`, the same object in all tasks of a search.
        error_score: The score of a fit that failed.
        returns_estimator: Whether the fitted estimator is part of the result.
        split: Number of the split, from 0; None in a cross-validation.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        given = inspect.signature(function).bind(*arguments, **keywords).arguments
        self._given, self._settings = given, getattr(function, "config", None) or {}
        self.estimator: BaseEstimator = given["estimator"]
        self.parameters: Mapping[str, Any] | None = given.get("parameters")
        self.fit_params: Mapping[str, Any] | None = given.get("fit_params")
        self.error_score: Any = given.get("error_score")
        self.returns_estimator = bool(given.get("return_estimator"))
        progress = given.get("split_progress")
        self.split = None if progress is None else int(progress[0])

    def determining(self) -> dict[str, Any]:
        """All that determines the result, by the names under which errors speak of it."""
        parts: dict[str, Any] = {"settings": json.dumps([self._settings.get(name) for name in _SETTINGS])}
        for name in sorted(self._given.keys() - _WITHOUT_EFFECT):
            value, what = self._given[name], _DICTS.get(name)
            if what is not None and isinstance(value, Mapping):
                parts |= {f"{what} `{key}`": value[key] for key in sorted(value)}
            else:
                parts["the estimator" if name == "estimator" else f"`{name}`"] = value
        return parts


@functools.lru_cache(maxsize=64)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def fits_and_scores(function: Callable[..., Any]) -> bool:
    """Whether a function is scikit-learn's that fits and scores one candidate on one split."""
    inner = inspect.unwrap(function)
    name, module = getattr(inner, "__name__", ""), getattr(inner, "__module__", "") or ""
    return name == _FIT_AND_SCORE and module.startswith(_ITS_ROOM)


def tasks_of(call: object) -> list[Task]:
    """The tasks in a call that joblib hands to its backend (a `joblib.parallel.BatchedCalls`); none in any other."""
    items = getattr(call, "items", None)
    return [Task(*item) for item in items] if isinstance(items, list) else []


def replace_functions(call: Call, replace: Callable[[Task], Callable[..., Any]]) -> None:
    """Gives each task of a call another function, which is called with the same arguments.

    In place: a BatchedCalls also sets up the backend of what its functions call, and has no public way to be made anew.
    """
    batch: Any = call
    if tasks := tasks_of(call):
        batch.items = [(replace(task), task.arguments, task.keywords) for task in tasks]


class Replay:
    """The call of one task of a search, which notes its result; a task whose result is known is not run.

    Args:
        call: The call as joblib has it.
        known: Results that are known, by position.
        results: Where the result is noted, by position.
    """

    def __init__(self, call: Any, known: Mapping[Position, Result], results: dict[Position, Result]) -> None:
        self.items = call.items
        self._call, self._known, self._results = call, known, results

    def __call__(self) -> list[Result]:
        (task,) = tasks_of(self)
        position = task.position
        if position is None:
            return list(self._call())
        known = self._known.get(position)
        (result,) = self._call() if known is None else [dict(known)]
        self._results[position] = result
        return [result]


class SubtaskContexts:
    """The context of scikit-learn's callbacks for a search that is evaluated in several parts.

    scikit-learn numbers the subtasks of each part from 0, and gives no number twice.

    Args:
        context: The context of the whole search.
    """

    def __init__(self, context: Any) -> None:
        self._context, self._known = context, dict[int, Any]()
        self.first = 0  # number of the first subtask of the part that is evaluated

    def subcontext(self, task_name: str, task_id: int) -> Any:
        """The context of a subtask; the same one where a part is evaluated again."""
        number = self.first + task_id
        if number not in self._known:
            self._known[number] = self._context.subcontext(task_name=task_name, task_id=number)
        return self._known[number]


# -- results --------------------------------------------------------------------------------------------------------


def error_of(result: Result) -> str | None:
    """The traceback of a fit that failed, as text; None if it did not."""
    error: str | None = result.get("fit_error")
    return error


def scores_of(result: object, which: str = "test") -> Any:
    """A number, or numbers by name, of the rows that were scored (`"test"`) or trained on (`"train"`); else None."""
    return result.get(f"{which}_scores") if isinstance(result, Mapping) else None


def score_of(result: object, metric: str) -> float | None:
    """The test score of that name, or the only one; None if there is none."""
    scores = scores_of(result)
    score = scores.get(metric) if isinstance(scores, Mapping) else scores
    return float(score) if isinstance(score, (int, float, np.number)) else None


def with_scores(result: Result, names: Iterable[str], error_score: float) -> dict[str, Any]:
    """The result of a fit that failed as one that did not, with the error score as each of these scores."""
    given = dict.fromkeys(names, error_score) or error_score
    scores = {name: given for name in ("test_scores", "train_scores") if name in result}
    return {**result, **scores, "fit_error": None}


def is_success(result: object, error_score: float | str | None) -> bool:
    """Whether a result is one to record: the fit did not fail, and no score is what stands for a failure."""
    if not isinstance(result, Mapping) or error_of(result) is not None:
        return False
    scores: list[Any] = []
    for which in ("test", "train"):
        value = scores_of(result, which)
        value = [] if value is None else value
        scores += value.values() if isinstance(value, Mapping) else [value] if np.ndim(value) == 0 else []
    return not any(score == error_score or (_is_nan(score) and _is_nan(error_score)) for score in scores)


def can_be_of_a_result(name: str, value: Any) -> bool:
    """Whether the result of a fit that did not fail may have such a value of that name."""
    if name in (*NOT_RECORDED, "fit_error"):
        return value is None
    if name in ("fit_time", "score_time"):
        return _is_number(value) and 0 <= value < math.inf
    if name in ("test_scores", "train_scores") or isinstance(value, dict):
        # One score, or several by name. NaN is a score where the search does not take it for a failure.
        return all(map(_is_number, value.values() if isinstance(value, dict) else [value]))
    return value is None or isinstance(value, (int, float, str))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _is_nan(value: object) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)
