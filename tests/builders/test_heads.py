"""The head knows the end of a network: against hand arithmetic and plain Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kerastoolkit.builders import Head, HeadGroup, head
from kerastoolkit.exceptions import DataError, ModelMismatchError


@pytest.mark.parametrize(
    ("y", "kind", "units", "activation", "loss"),
    [
        ([0, 1, 1], "binary", 1, "sigmoid", "binary_crossentropy"),
        (["ham", "spam", "ham"], "binary", 1, "sigmoid", "binary_crossentropy"),
        ([True, False], "binary", 1, "sigmoid", "binary_crossentropy"),
        ([3, 1, 2], "multiclass", 3, "softmax", "sparse_categorical_crossentropy"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "multiclass", 3, "softmax", "sparse_categorical_crossentropy"),
        ([[1, 1, 0], [0, 1, 0]], "multilabel", 3, "sigmoid", "binary_crossentropy"),
        ([0.5, 1.5, 2.0], "regression", 1, None, "mse"),
        ([[0.5, 1.5], [2.0, 0.1]], "regression", 2, None, "mse"),
    ],
)
def test_the_kind_of_a_target_gives_the_end_of_the_network(
    y: Any, kind: str, units: int, activation: str | None, loss: str
) -> None:
    made = head(np.array(y))
    assert (made.kind, made.units, made.activation, made.loss) == (kind, units, activation, loss)
    layer = made.output_layer()
    assert layer.units == units
    assert layer.activation.__name__ == (activation or "linear")


def test_integers_are_labels_unless_the_task_says_otherwise() -> None:
    assert head([1, 2, 3]).kind == "multiclass"
    assert head([1, 2, 3], task="regression").kind == "regression"


@pytest.mark.parametrize("y", [[0, 0, 0], ["a"]])
def test_one_class_is_refused(y: Any) -> None:
    with pytest.raises(DataError, match="holds only one class"):
        head(y)


def test_numbers_are_no_labels() -> None:
    with pytest.raises(DataError, match="Unknown label type: continuous.*KerasRegressor"):
        head([0.5, 1.5], task="classification")


def test_labels_go_in_as_numbers_and_come_back() -> None:
    y = np.array(["b", "a", "c", "a"])
    made = head(y)
    assert_array_equal(made.encode(y), [1, 0, 2, 0])
    raw = np.eye(3)[[1, 0, 2, 0]]
    assert_array_equal(made.decode(raw), y)
    with pytest.raises(DataError, match="holds 'd', which is not one of the 3 classes"):
        made.encode(["d"])


def test_a_standardized_target_is_learned_in_units_of_its_deviation_and_predicted_in_its_own() -> None:
    y = np.array([10.0, 20.0, 60.0])
    weights = np.array([1.0, 1.0, 2.0])
    made = head(y, task="regression", standardize=True, sample_weight=weights)
    mean = (10 + 20 + 2 * 60) / 4
    deviation = np.sqrt(((10 - mean) ** 2 + (20 - mean) ** 2 + 2 * (60 - mean) ** 2) / 4)
    assert_allclose(made.encode(y)[:, 0], (y - mean) / deviation, rtol=1e-6)
    assert_allclose(made.decode(made.encode(y)), y, rtol=1e-6)
    assert made.decode(made.encode(y)).dtype == "float64"


def _model(units: int, activation: str | None, loss: Any) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation=activation)])
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("model", "encoding", "output"),
    [
        ((2, "softmax", "sparse_categorical_crossentropy"), "numbers", "probability"),
        ((2, "softmax", "categorical_crossentropy"), "one_hot", "probability"),
        ((1, "sigmoid", "binary_crossentropy"), "columns", "probability"),
        ((1, None, keras.losses.BinaryCrossentropy(from_logits=True)), "columns", "logit"),
        ((1, "tanh", "hinge"), "columns", "margin"),
    ],
)
def test_a_head_takes_the_form_that_a_model_needs(model: Any, encoding: str, output: str) -> None:
    bound = Head.binary().bind(_model(*model))
    assert isinstance(bound, Head)
    assert (bound.encoding, bound.output) == (encoding, output)


def test_logits_become_probabilities_and_stay_scores() -> None:
    bound = Head.binary().bind(_model(1, None, keras.losses.BinaryCrossentropy(from_logits=True)))
    raw = np.array([[-2.0], [0.5]])
    positive = 1 / (1 + np.exp(-raw))
    assert_allclose(bound.probabilities(raw), np.hstack([1 - positive, positive]))
    assert_allclose(bound.scores(raw), raw[:, 0])
    assert_array_equal(bound.decode(raw), [0, 1])


@pytest.mark.parametrize(
    ("made", "model", "message"),
    [
        (Head.multiclass(3), (1, "sigmoid", "binary_crossentropy"), "ends in 1 unit, .* with 3 classes: it needs 3"),
        (Head.binary(), (1, "softmax", "binary_crossentropy"), "softmax, which is 1.0 for every row"),
        (Head.multiclass(3), (3, "softmax", "binary_crossentropy"), "as 3 separate questions"),
        (Head.binary(), (1, "sigmoid", "categorical_crossentropy"), "needs one softmax unit a class"),
        (Head.binary(), (1, None, "binary_crossentropy"), "no activation, but the loss"),
        (Head.regression(1), (3, None, "mse"), "ends in 3 units, but `y` has 1 target"),
    ],
)
def test_what_keras_would_train_in_silence_to_a_wrong_end_is_refused(made: Head, model: Any, message: str) -> None:
    with pytest.raises(ModelMismatchError, match=message):
        made.bind(_model(*model))


@pytest.mark.parametrize(
    "made",
    [
        head(np.array(["a", "b"])),
        head(np.array(["a", "b", "c"], dtype=object)),
        head(np.array([1.0, 5.0, 2.5]), standardize=True),
        head(np.array([[0, 2], [1, 1], [2, 0]])),
        head({"size": np.array([0, 1]), "colour": np.array(["r", "g"])}),
    ],
    ids=["binary", "objects", "regression", "columns", "dict"],
)
def test_a_head_comes_back_from_its_config(made: Head | HeadGroup) -> None:
    again = type(made).from_config(made.get_config())
    assert str(again.get_config()) == str(made.get_config())


def test_several_columns_of_classes_are_several_heads() -> None:
    y = np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    made = head(y)
    assert isinstance(made, HeadGroup)
    assert made.units == (3, 3)
    raw = [np.eye(3)[column] for column in y.T]
    assert_array_equal(made.decode(raw), y)
    assert [part.shape for part in made.probabilities(raw)] == [(4, 3), (4, 3)]
