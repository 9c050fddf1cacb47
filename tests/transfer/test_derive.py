"""A trained network is cut where it is told to, and gets a new end."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from kerastoolkit import KerasClassifier, transfer
from kerastoolkit.builders import Head
from kerastoolkit.exceptions import ParameterError


@pytest.fixture(scope="module")
def trained() -> KerasClassifier:
    X, y = load_digits(return_X_y=True)
    return KerasClassifier(hidden=(32, 16), epochs=15, random_state=0).fit(X[y < 5], y[y < 5])


def test_the_layers_below_the_cut_are_copied(trained: KerasClassifier) -> None:
    X, _ = load_digits(return_X_y=True)
    model = transfer.derive(trained, Head.multiclass(3))
    assert model.output_shape == (None, 3)
    below = keras.Model(trained.model_.input, trained.model_.layers[-2].output)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.Model(model.input, model.layers[-2].output)(X)),
        keras.ops.convert_to_numpy(below(X)),
    )
    before = trained.model_.get_weights()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X[:100], np.zeros(100), verbose=0)
    for ours, theirs in zip(trained.model_.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # the source is not changed
    np.testing.assert_array_equal(model.layers[1].get_weights()[0], before[0])  # and what was kept is frozen
    assert len(model.trainable_variables) == 2


def test_what_is_not_frozen_trains(trained: KerasClassifier) -> None:
    model = transfer.derive(trained, Head.binary(), frozen=False)
    assert len(model.trainable_variables) == 6


def test_a_derived_network_is_the_model_of_an_estimator_and_of_a_grid(trained: KerasClassifier) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[y >= 5][:300], y[y >= 5][:300]
    names = [layer.name for layer in trained.model_.layers]
    model = KerasClassifier(transfer.derive(trained), optimizer__learning_rate=0.01, epochs=20, random_state=0)
    below = keras.Model(trained.model_.input, trained.model_.layers[-2].output)
    features = keras.ops.convert_to_numpy(below(X))
    assert model.fit(X, y).score(X, y) > LogisticRegression(max_iter=500).fit(features, y).score(features, y) - 0.1
    assert set(model.classes_) == {5, 6, 7, 8, 9}
    search = GridSearchCV(model, {"frozen": [True, False], "layer": [names[2], names[4]]}, cv=2).fit(X, y)
    assert search.best_params_["frozen"] is False  # more that can be learned, from the same start
    with pytest.raises(ParameterError, match="Did you mean 'frozen'"):
        model.set_params(frozn=True)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert copy.deepcopy(model.model) is model.model
    # Under the name in pickles and journals that were written before it moved.
    assert (type(model.model).__module__, type(model.model).__qualname__) == ("kerastoolkit.transfer", "_Derived")
    assert getattr(transfer, "_Derived") is type(model.model)  # noqa: B009


def test_a_layer_inside_a_model_inside_is_found() -> None:
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="inner_1"), keras.layers.Conv2D(2, 3, name="inner_2")],
        name="inner",
    )
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inner(inputs / 255.0))
    outer = keras.Model(inputs, keras.layers.Activation("softmax")(keras.layers.Dense(3, name="last")(x)))
    X = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype("float32")
    model = transfer.derive(outer, Head.binary(), layer="inner_1")  # a map of features, averaged
    kernel, bias = inner.get_layer("inner_1").get_weights()
    expected = keras.ops.convert_to_numpy(keras.ops.conv(X / 255.0, kernel)) + bias
    found = keras.Model(model.input, model.layers[-2].output)(X)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    whole = transfer.derive(outer, Head.binary())  # before the activation and the layer that it belongs to
    assert whole.layers[-1].input.shape == (None, 32)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (KerasClassifier(), "that is not fitted; fit it first"),
        ("MobileNet", "must be a fitted estimator of kerastoolkit or a keras.Model; got str"),
    ],
)
def test_a_source_that_cannot_be_cut_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        transfer.derive(source)


def test_a_model_without_a_graph_is_refused() -> None:
    class Mine(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ParameterError, match="a Mine whose layers are not a graph"):
        transfer.derive(Mine())


def test_a_wrong_layer_is_answered_with_the_near_miss(trained: KerasClassifier) -> None:
    name = trained.model_.layers[1].name
    with pytest.raises(ParameterError, match=re.escape(f"`layer` is '{name}0'") + ".*" + re.escape(f"'{name}'")):
        transfer.derive(trained, layer=name + "0")
