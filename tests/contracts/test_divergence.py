"""A network that diverged has no prediction and no score, whatever it predicts and whoever asks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn import model_selection
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  scikit-learn asks for this line
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, load, search
from kerastoolkit.estimators import KerasTransformer
from kerastoolkit.exceptions import DivergedError, KerasToolkitWarning

Data = tuple[Any, Any]
HUGE: dict[str, Any] = {"optimizer__learning_rate": 1e30, "epochs": 2, "random_state": 0}
RATES = {"optimizer__learning_rate": [1e30, 0.01, 1e25]}


@pytest.fixture(scope="module")
def iris() -> Data:
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def _diverged(estimator: Any, X: Any, y: Any = None) -> Any:
    with pytest.warns(KerasToolkitWarning, match="The network diverged: its loss has been nan since epoch 1"):
        return estimator.fit(X, y)


@pytest.mark.parametrize(
    "options", [{}, {"head__from_logits": True}, {"normalization": "batch"}], ids=["softmax", "logits", "batch norm"]
)
def test_of_classes_there_is_no_label_no_probability_and_no_score(iris: Data, options: dict[str, Any]) -> None:
    X, y = iris
    estimator = _diverged(KerasClassifier(**HUGE, **options), X, y)
    for ask in (
        estimator.predict,
        estimator.predict_proba,
        estimator.predict_log_proba,
        estimator.decision_function,
        lambda X: estimator.score(X, y),
    ):
        with pytest.raises(DivergedError, match="diverged while it was trained.*optimizer__learning_rate"):
            ask(X)
    assert np.isnan(estimator.history_["loss"]).all()  # which stays to be looked at


@pytest.mark.parametrize("kind", ["binary", "multilabel", "ordinal"])
def test_nor_of_units_with_a_sigmoid(iris: Data, kind: str) -> None:
    X, y = iris
    target = {"binary": (y > 0).astype(int), "multilabel": np.c_[y == 0, y < 2].astype(int), "ordinal": y}[kind]
    estimator = _diverged(KerasClassifier(head__kind=kind, **HUGE), X, target)
    for ask in (estimator.predict, estimator.predict_proba, estimator.decision_function):
        with pytest.raises(DivergedError):
            ask(X)


@pytest.mark.backend("torch")
def test_a_crossentropy_that_refuses_nan_says_that_the_network_diverged(iris: Data) -> None:
    X, y = iris
    idle = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)  # so that torch trains it
    with pytest.raises(DivergedError, match="of which torch makes no loss"):
        KerasClassifier(callbacks=[idle], **HUGE).fit(X, (y > 0).astype(int))


@pytest.mark.parametrize(
    ("options", "target"), [({}, "one"), ({}, "two"), ({"head__kind": "counts"}, "one")], ids=["one", "two", "counts"]
)
def test_nor_of_numbers(options: dict[str, Any], target: str) -> None:
    X, y = load_diabetes(return_X_y=True)
    y = y if target == "one" else np.c_[y, -y]
    estimator = _diverged(KerasRegressor(**HUGE, **options), X, y)
    for ask in (estimator.predict, lambda X: estimator.score(X, y)):
        with pytest.raises(DivergedError):
            ask(X)


def test_nor_of_rows_that_were_to_be_squeezed(iris: Data) -> None:
    X, _ = iris
    estimator = _diverged(KerasTransformer(n_components=2, **HUGE), X)
    for ask in (
        estimator.transform,
        estimator.predict,
        estimator.score,
        lambda X: estimator.inverse_transform(X[:, :2]),
    ):
        with pytest.raises(DivergedError):
            ask(X)


def test_nor_after_a_pickle_or_a_file(iris: Data, tmp_path: Path) -> None:
    X, y = iris
    estimator = _diverged(KerasClassifier(**HUGE), X, y)
    for again in (pickle.loads(pickle.dumps(estimator)), load(estimator.save(tmp_path / "diverged.zip"))):
        with pytest.raises(DivergedError, match="its loss has been nan since epoch 1"):
            again.predict(X)


@pytest.mark.parametrize(
    "name", ["GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "OptunaSearchCV"]
)
def test_no_search_of_ours_chooses_it(iris: Data, name: str) -> None:
    if name == "OptunaSearchCV":
        pytest.importorskip("optuna", reason="pip install optuna")
    options: dict[str, Any] = {
        "GridSearchCV": {},
        "RandomizedSearchCV": {"n_iter": 3},
        "OptunaSearchCV": {"n_trials": 8, "random_state": 0, "storage": None},
    }.get(name, {"min_resources": 60, "random_state": 0})
    with pytest.warns() as warned:
        found = getattr(search, name)(KerasClassifier(epochs=2, random_state=0), RATES, cv=2, **options).fit(*iris)
    assert found.best_params_ == {"optimizer__learning_rate": 0.01}
    rates = np.array([candidate["optimizer__learning_rate"] for candidate in found.cv_results_["params"]])
    assert_array_equal(np.isnan(found.cv_results_["mean_test_score"]), rates > 1)
    assert (rates > 1).any()
    # One for all that failed, and none for each.
    kinds = [warning.category.__name__ for warning in warned]
    assert "KerasToolkitWarning" not in kinds
    assert kinds.count("FitFailedWarning") == 1 or name == "OptunaSearchCV"


@pytest.mark.parametrize("name", ["GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"])
def test_nor_does_one_of_scikit_learns(iris: Data, name: str) -> None:
    options: dict[str, Any] = {"GridSearchCV": {}, "RandomizedSearchCV": {"n_iter": 3}}.get(
        name, {"min_resources": 60, "random_state": 0}
    )
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(epochs=2, random_state=0))
    grid = {f"kerasclassifier__{parameter}": rates for parameter, rates in RATES.items()}
    with pytest.warns() as warned:
        found = getattr(model_selection, name)(pipeline, grid, cv=2, **options).fit(*iris)
    messages = {str(warning.message)[:21] for warning in warned}
    assert {"The network diverged:", "Scoring failed. The s"} <= messages
    assert found.best_params_ == {"kerasclassifier__optimizer__learning_rate": 0.01}


def test_nor_does_an_ensemble_vote_with_it(iris: Data) -> None:
    members = [("network", KerasClassifier(**HUGE)), ("linear", LogisticRegression())]
    with pytest.warns(KerasToolkitWarning, match="diverged"):
        ensemble = VotingClassifier(members, voting="soft").fit(*iris)
    with pytest.raises(DivergedError):
        ensemble.predict(iris[0])
