"""What is seen of a model, and what a target and a model mean to each other."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from kerastoolkit.builders import Head
from kerastoolkit.builders.losses import form_of_metric, loss_for, loss_name, metrics_by_target, takes_logits
from kerastoolkit.builders.matching import ModelOutput, Target, check_reach, is_limited, match, outputs_of
from kerastoolkit.builders.targets import offset_and_scale
from kerastoolkit.exceptions import ModelMismatchError

THREE = Target("multiclass", 3, 3, (), "numbers", None)


def network(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), *layers])


@pytest.mark.parametrize(
    ("layers", "shape", "activation"),
    [
        ([keras.layers.Dense(3, activation="softmax")], (3,), "softmax"),
        ([keras.layers.Dense(3), keras.layers.Softmax()], (3,), "softmax"),
        ([keras.layers.Dense(3)], (3,), "linear"),
        ([keras.layers.Dense(6, activation="sigmoid"), keras.layers.Reshape((2, 3))], (2, 3), "sigmoid"),
        ([keras.layers.Dense(2), keras.layers.ReLU(max_value=6)], (2,), "relu6"),
        ([keras.layers.Dense(2, activation=lambda x: 2 * x)], (2,), None),
    ],
)
def test_an_output_is_known_by_its_shape_and_activation(
    layers: list[Any], shape: tuple[int, ...], activation: str | None
) -> None:
    assert outputs_of(network(*layers)) == [ModelOutput(shape, activation)]


def test_of_a_subclassed_model_nothing_need_be_known() -> None:
    class Mine(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    assert outputs_of(Mine()) == [ModelOutput(None, None)]
    assert outputs_of(Mine(), [(2,), (None, 3)]) == [ModelOutput((2,), None), ModelOutput((None, 3), None)]
    assert ModelOutput((2, 3), None).units == 6
    assert ModelOutput((None, 3), None).units is None


@pytest.mark.parametrize(
    ("activation", "loss", "encoding", "output"),
    [
        ("softmax", "sparse_categorical_crossentropy", "numbers", "probability"),
        ("softmax", "categorical_crossentropy", "one_hot", "probability"),
        ("linear", keras.losses.SparseCategoricalCrossentropy(from_logits=True), "numbers", "logit"),
        ("linear", "categorical_hinge", "one_hot", "margin"),
        ("linear", "mse", "one_hot", "value"),
    ],
)
def test_the_loss_says_what_the_output_means(activation: str, loss: Any, encoding: str, output: str) -> None:
    found = match(THREE, ModelOutput((3,), activation), loss, [])
    assert found == (3, encoding, output, (3,))
    model = network(keras.layers.Dense(3, activation=activation))
    model.compile(loss=loss)
    bound = Head.multiclass(3).bind(model)
    assert (bound.units, bound.encoding, bound.output, bound.output_shape) == found


def test_what_the_user_says_counts_for_a_loss_of_their_own() -> None:
    def mine(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    assert takes_logits(mine) is None
    output = ModelOutput((1,), "linear")
    binary = Target("binary", 1, 2, (), "columns", None)
    with pytest.raises(ModelMismatchError, match=r"it is not known what the output means\. Say head__from_logits"):
        match(binary, output, mine, [])
    assert match(binary._replace(from_logits=True), output, mine, []).output == "logit"
    assert match(binary._replace(from_logits=False), output, mine, []).output == "probability"


def test_an_activation_must_reach_the_numbers_of_a_target() -> None:
    assert [is_limited(name) for name in ("sigmoid", "linear", None)] == [True, False, False]
    check_reach("regression", 1, "sigmoid", np.array([[0.0], [0.4], [1.01]]))  # measurements are noisy
    with pytest.raises(ModelMismatchError, match="always between 0 and 1, but `y` holds numbers from 0 to 70"):
        check_reach("regression", 1, "sigmoid", np.array([[0.0], [70.0]]))


@pytest.mark.parametrize(
    ("y", "kind", "options", "output"),
    [
        ([[1.0], [0.0], [1.0]], "binary", {"label_smoothing": 0.2}, [[0.9], [0.2], [0.6]]),
        ([[1.0], [0.0], [1.0]], "binary", {"from_logits": True}, [[2.0], [-1.0], [0.5]]),
        ([[0.0, 1.0], [1.0, 0.0]], "multiclass", {"label_smoothing": 0.1}, [[0.3, 0.7], [0.9, 0.1]]),
    ],
)
def test_losses_with_options_are_the_crossentropy_by_hand(y: Any, kind: Any, options: Any, output: Any) -> None:
    given = {"from_logits": False, "label_smoothing": 0.0, "focal": 0.0, **options}
    loss = loss_for(kind, "one_hot" if kind == "multiclass" else "columns", **given)
    p = 1 / (1 + np.exp(-np.array(output))) if given["from_logits"] else np.array(output)
    n_classes = 2 if kind == "binary" else p.shape[1]
    smooth = np.array(y) * (1 - given["label_smoothing"]) + given["label_smoothing"] / n_classes
    other = (1 - smooth) * np.log(1 - p) if kind == "binary" else 0.0
    by_hand = -(smooth * np.log(p) + other).sum(axis=1).mean()
    assert float(keras.ops.convert_to_numpy(loss(np.array(y), np.array(output)))) == pytest.approx(by_hand, rel=1e-5)


def test_losses_are_known_by_the_class_of_keras_that_they_extend() -> None:
    class Mine(keras.losses.BinaryCrossentropy):
        pass

    assert loss_name(Mine()) == loss_name("binary_crossentropy") == "binary_crossentropy"
    assert takes_logits(Mine(from_logits=True)) is True
    assert takes_logits("mse") is False


def test_metrics_go_to_their_targets() -> None:
    names = ["age", "smiles"]
    assert metrics_by_target({"smiles": ["auc"]}, names, 2) == [[], ["auc"]]
    assert metrics_by_target([["mae"], ["auc", "accuracy"]], names, 2) == [["mae"], ["auc", "accuracy"]]
    assert [form_of_metric(name) for name in ("accuracy", "auc", "sparse_categorical_accuracy")] == [
        None, "one_hot", "numbers",
    ]  # fmt: skip


def test_numbers_are_standardized_as_scikit_learn_does_it() -> None:
    rng = np.random.default_rng(0)
    columns, weights = rng.normal([3.0, -1e6], [2.0, 1e5], (50, 2)), rng.uniform(0.1, 2.0, 50)
    scaler = StandardScaler().fit(columns, sample_weight=weights)
    offset, scale = offset_and_scale(columns, "regression", weights)
    np.testing.assert_allclose([offset, scale], [scaler.mean_, scaler.scale_], rtol=1e-9)
    counts = rng.poisson([2.0, 0.0], (50, 2)).astype("float64")
    assert offset_and_scale(counts, "counts") == ((0.0, 0.0), (pytest.approx(counts[:, 0].mean()), 1.0))
