"""A user's own subclass of `keras.Model`, as a class and from a function, is an estimator like any other."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

from kerastoolkit import KerasClassifier, load, search


@keras.saving.register_keras_serializable(package="tests")
class Perceptron(keras.Model):
    """One hidden layer, its units given to the constructor."""

    def __init__(self, units: int = 8, n_classes: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.n_classes = units, n_classes
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.out = keras.layers.Dense(n_classes, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.out(self.hidden(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "n_classes": self.n_classes}


def build(units: int = 8) -> Any:
    model = Perceptron(units)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def wine() -> Any:
    X, y = load_wine(return_X_y=True)
    return scale(X).astype("float32"), np.array(["Barolo", "Grignolino", "Barbera"])[y]


@pytest.mark.parametrize("model", [Perceptron, build], ids=["class", "function"])
def test_it_fits_is_searched_pickled_saved_and_cloned(model: Any, wine: Any, tmp_path: Path) -> None:
    X, y = wine
    estimator = KerasClassifier(
        model, loss="sparse_categorical_crossentropy", optimizer__learning_rate=0.01, epochs=15, random_state=0
    )
    estimator.fit(X, y)
    assert estimator.score(X, y) > 0.95
    expected = estimator.predict_proba(X)
    for again in (pickle.loads(pickle.dumps(estimator)), load(estimator.save(tmp_path / "one.zip"))):
        np.testing.assert_allclose(again.predict_proba(X), expected, rtol=1e-6)
        assert again.model_.units == 8
    assert clone(estimator).fit(X, y).predict_proba(X) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [GridSearchCV, search.GridSearchCV], ids=["scikit-learn's", "ours"])
def test_a_search_reaches_its_constructor(kind: Any, wine: Any) -> None:
    X, y = wine
    estimator = KerasClassifier(Perceptron, loss="sparse_categorical_crossentropy", epochs=3, random_state=0)
    found = kind(estimator, {"units": [2, 16], "optimizer__learning_rate": [0.001, 0.03]}, cv=2).fit(X, y)
    assert found.best_params_ == {"units": 16, "optimizer__learning_rate": 0.03}
    assert found.best_estimator_.model_.units == 16
