"""The searches find what scikit-learn's own find, whatever scikit-learn it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import model_selection
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  scikit-learn asks for this line
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, search

RATES = {"kerasclassifier__optimizer__learning_rate": [0.003, 0.03, 0.1]}
SEARCHES: dict[str, dict[str, Any]] = {
    "GridSearchCV": {"param_grid": RATES},
    "RandomizedSearchCV": {"param_distributions": RATES, "n_iter": 2, "random_state": 0},
    "HalvingGridSearchCV": {"param_grid": RATES, "min_resources": 50, "random_state": 0},
    "HalvingRandomSearchCV": {"param_distributions": RATES, "min_resources": 50, "random_state": 0},
}


def pipeline() -> Any:
    return make_pipeline(StandardScaler(), KerasClassifier(hidden=(8,), epochs=3, random_state=0))


def assert_same_scores(ours: Any, theirs: Any) -> None:
    for split in range(3):
        name = f"split{split}_test_score"
        assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], atol=1e-6)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_what_scikit_learns_own_finds(name: str) -> None:
    X, y = load_iris(return_X_y=True)
    ours = getattr(search, name)(pipeline(), cv=3, **SEARCHES[name]).fit(X, y)
    theirs = getattr(model_selection, name)(pipeline(), cv=3, **SEARCHES[name]).fit(X, y)
    assert_same_scores(ours, theirs)
    assert ours.best_params_ == theirs.best_params_
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert any(one.how == "fused" for one in ours.report_.trained)


def test_folds_may_come_from_a_generator() -> None:
    X, y = load_iris(return_X_y=True)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    ours = search.GridSearchCV(pipeline(), RATES, cv=(fold for fold in folds)).fit(X, y)
    assert_same_scores(ours, model_selection.GridSearchCV(pipeline(), RATES, cv=folds).fit(X, y))


def test_candidates_that_stop_at_rungs_say_so() -> None:
    X, y = load_iris(return_X_y=True)
    model = pipeline().set_params(kerasclassifier__epochs=9, kerasclassifier__validation_split=0.2)
    found = search.GridSearchCV(model, RATES, cv=3, early_stopping="rungs").fit(X, y).cv_results_
    assert_array_equal(found["stopped_early"], found["mean_n_epochs"] < 9)
    assert 1 <= found["stopped_early"].sum() <= 2


def test_a_study_chooses_candidates_and_scikit_learn_scores_them() -> None:
    pytest.importorskip("optuna")
    X, y = load_iris(return_X_y=True)
    ours = search.OptunaSearchCV(pipeline(), RATES, n_trials=3, cv=3, storage=None, random_state=0).fit(X, y)
    asked = [{name: [value] for name, value in params.items()} for params in ours.cv_results_["params"]]
    assert_same_scores(ours, model_selection.GridSearchCV(pipeline(), asked, cv=3).fit(X, y))
    assert [trial.value for trial in ours.study_.trials] == pytest.approx(list(ours.cv_results_["mean_test_score"]))
    assert np.isfinite(ours.best_score_)
