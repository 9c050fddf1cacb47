"""The searches declare what they take once, and each shows all of it, as if it had listed it itself."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import optuna
import pytest
from sklearn import model_selection
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from kerastoolkit.search import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    OptunaSearchCV,
    RandomizedSearchCV,
    Rungs,
)

RESUMING = {"journal", "timeout", "on_progress", "max_memory"}
ADDED: dict[Any, set[str]] = {
    GridSearchCV: {"early_stopping", *RESUMING},
    RandomizedSearchCV: {"early_stopping", *RESUMING},
    HalvingGridSearchCV: RESUMING,
    HalvingRandomSearchCV: RESUMING,
}
KINDS = [*ADDED, OptunaSearchCV]


def defaults(kind: Any) -> dict[str, Any]:
    return {name: repr(one.default) for name, one in inspect.signature(kind).parameters.items()}


@pytest.mark.parametrize("kind", ADDED)
def test_a_search_takes_what_scikit_learn_s_takes_with_its_defaults_and_then_ours(kind: Any) -> None:
    theirs = defaults(getattr(model_selection, kind.__name__))
    assert defaults(kind) == {**theirs, **dict.fromkeys(ADDED[kind], "None")}
    assert list(defaults(kind))[: len(theirs)] == list(theirs)


def test_a_search_with_optuna_takes_what_a_grid_search_takes() -> None:
    ours, grid = defaults(OptunaSearchCV), defaults(GridSearchCV)
    shared = [name for name in grid if name not in ("param_grid", "journal")]
    assert {name: ours[name] for name in shared} == {name: grid[name] for name in shared}
    assert "journal" not in ours


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_type_and_a_description(kind: Any) -> None:
    assert all(one.annotation is not one.empty for one in inspect.signature(kind).parameters.values())
    described = inspect.getdoc(kind) or ""
    assert not [name for name in inspect.signature(kind).parameters if name not in described]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_kept_and_cloned(kind: Any) -> None:
    given: dict[str, Any] = {
        name: object() for name, one in inspect.signature(kind).parameters.items() if one.kind is one.KEYWORD_ONLY
    }
    search = kind(LogisticRegression(), {"C": [1.0]}, **given)
    assert search.get_params(deep=False).items() >= given.items()
    assert all(vars(search)[name] is value for name, value in given.items())
    rungs = {} if kind in (HalvingGridSearchCV, HalvingRandomSearchCV) else {"early_stopping": Rungs(factor=4)}
    again = pickle.loads(pickle.dumps(clone(kind(LogisticRegression(), {"C": [1.0]}, max_memory=9, **rungs))))
    assert (again.max_memory, again.timeout, again.estimator.C) == (9, None, 1.0)
    assert getattr(again.early_stopping, "factor", 4) == 4


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (GridSearchCV, "random_state"),
        (HalvingGridSearchCV, "early_stopping"),
        (HalvingRandomSearchCV, "pre_dispatch"),
        (OptunaSearchCV, "journal"),
        (RandomizedSearchCV, "n_trials"),
    ],
)
def test_what_a_search_does_not_take_is_refused(kind: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{kind.__name__}.__init__\(\) got an unexpected keyword argument '{name}'$"):
        kind(LogisticRegression(), {"C": [1.0]}, **{name: None})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'param_"):
        kind(LogisticRegression())


def test_a_subclass_takes_the_same() -> None:
    class Mine(GridSearchCV):
        pass

    assert inspect.signature(Mine) == inspect.signature(GridSearchCV)
    assert clone(Mine(LogisticRegression(), {"C": [1.0]}, cv=4)).cv == 4


def test_optuna_s_own_parameters_stay_optuna_s() -> None:
    sampler = optuna.samplers.RandomSampler(seed=0)
    search = OptunaSearchCV(LogisticRegression(), {"C": [1.0]}, sampler=sampler, timeout=60.0, return_train_score=True)
    assert (search.sampler, search.timeout, search.return_train_score) == (sampler, 60.0, True)
