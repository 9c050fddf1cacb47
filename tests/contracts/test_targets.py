"""A target, a loss and a model that do not speak of the same thing are brought together, or refused before training.

The references are plain Keras on a target in the form that its loss takes, from the same starting weights and in the
same order of rows.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.preprocessing import StandardScaler

import kerastoolkit.search
from kerastoolkit import KerasClassifier, KerasRegressor
from kerastoolkit.exceptions import DataError, ModelMismatchError

IRIS, SPECIES = load_iris(return_X_y=True)
IRIS = StandardScaler().fit_transform(IRIS).astype("float32")
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
ONE_HOT = np.eye(3, dtype=int)[SPECIES]
IS_VIRGINICA = (SPECIES == 2).astype(int)
# As targets of several numbers a row: four measures of a flower from two of its standardized ones.
MEASURES = np.stack([IRIS @ np.cos(np.arange(8).reshape(4, 2) + shift) for shift in range(3)], axis=1)  # (150, 3, 2)

STEPS: dict[str, Any] = {"epochs": 15, "shuffle": False, "batch_size": 25}


def dense(input_shape: Any, units: int = 1, activation: str | None = None, shape: Any = None) -> keras.Model:
    """A layer that always starts from the same weights."""
    model = keras.Sequential([keras.Input(input_shape), layers.Dense(units, activation, kernel_initializer="zeros")])
    if shape is not None:
        model.add(layers.Reshape(shape))
    return model


def by_keras(y: Any, loss: Any, **end: Any) -> Any:
    """What plain Keras predicts after the same training."""
    model = dense((4,), **end)
    model.compile("adam", loss)
    model.fit(IRIS, y, verbose=0, **STEPS)
    return model.predict(IRIS, verbose=0)


# -- targets of several axes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [MEASURES, MEASURES[:, :1], MEASURES[:, :, :1]], ids=["3x2", "1x2", "3x1"])
def test_a_target_of_three_axes_is_learned_and_predicted_in_its_shape(target: Any) -> None:
    shape = target.shape[1:]
    end = {"units": int(np.prod(shape)), "shape": shape}
    ours = KerasRegressor(dense, optimizer="adam", **end, **STEPS).fit(IRIS, target)
    predicted = ours.predict(IRIS)
    assert predicted.shape == target.shape
    assert_allclose(predicted, by_keras(target, "mse", **end), atol=1e-5)
    flat = r2_score(target.reshape(150, -1), predicted.reshape(150, -1))
    assert ours.score(IRIS, target) == pytest.approx(flat)


def test_a_builder_learns_a_target_of_three_axes_in_a_search_too() -> None:
    grid = {"hidden": [(8,), (16,)]}
    network = KerasRegressor(epochs=40, random_state=0)
    folds = KFold(2, shuffle=True, random_state=0)
    fused = kerastoolkit.search.GridSearchCV(network, grid, cv=folds).fit(IRIS, MEASURES)
    plain = GridSearchCV(network, grid, cv=folds).fit(IRIS, MEASURES)
    assert_allclose(fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-4)
    assert fused.best_score_ > 0.5
    assert fused.predict(IRIS).shape == MEASURES.shape


@pytest.mark.parametrize(
    ("target", "end", "message"),
    [
        (MEASURES, {"units": 6, "shape": (2, 3)}, r"of the shape \(2, 3\), but those of `y` have the shape \(3, 2"),
        (MEASURES.reshape(150, 6), {"units": 6, "shape": (3, 2)}, r"of the shape \(3, 2\).*shape \(6,\)"),
        (MEASURES, {"units": 2, "shape": (1, 2)}, "ends in 2 units, but `y` has 6 targets a row, of the shape"),
    ],
)
def test_an_output_that_would_only_be_stretched_to_meet_the_target_is_refused(
    target: Any, end: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelMismatchError, match=message):
        KerasRegressor(dense, **end).fit(IRIS, target)


class Subclassed(keras.Model):
    """A model that does not say what it puts out."""

    def __init__(self, units: int, over_rows: bool = False) -> None:
        super().__init__()
        self.end, self.over_rows = layers.Dense(units), over_rows

    def call(self, inputs: Any) -> Any:
        output = self.end(inputs)
        return ops.mean(output, axis=0, keepdims=True) if self.over_rows else output


@pytest.mark.parametrize("loss", ["mse", lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred), axis=-1)])
def test_a_subclassed_model_is_held_against_the_target_too(loss: Any) -> None:
    one = MEASURES[:, 0, 0]
    with pytest.raises(ModelMismatchError, match="ends in 3 units, but `y` has 1 target"):
        KerasRegressor(lambda: Subclassed(3), loss=loss).fit(IRIS, one)
    with pytest.raises(ModelMismatchError, match=r"puts out the shape \(1, 1\) for 2 rows"):
        KerasRegressor(lambda: Subclassed(1, over_rows=True), loss=loss).fit(IRIS, one)
    assert KerasRegressor(lambda: Subclassed(1), loss=loss).fit(IRIS, one).predict(IRIS).shape == (150,)


def test_a_later_target_of_another_shape_is_refused() -> None:
    numbers = KerasRegressor(epochs=1).fit(IRIS, MEASURES[:, 0])
    with pytest.raises(DataError, match=r"`y` has the shape \(150,\), but \(n, 2\) in the first fit"):
        numbers.partial_fit(IRIS, MEASURES[:, 0, 0])
    classes = KerasClassifier(epochs=1).fit(IRIS, ONE_HOT)
    with pytest.raises(DataError, match=r"row 149 is \[0, 0, 0\]: not a single 1 among 0s"):
        classes.partial_fit(IRIS, np.vstack([ONE_HOT[:-1], [[0, 0, 0]]]))


# -- losses of the user's -------------------------------------------------------------------------------------------


def loss_of_logits(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.softplus(y_pred) - y_true * y_pred, axis=-1)


def loss_of_one_hot(y_true: Any, y_pred: Any) -> Any:
    return -ops.sum(y_true * ops.log(y_pred + 1e-7), axis=-1)


def loss_of_numbers(y_true: Any, y_pred: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(ops.cast(y_true, "int32"), y_pred)


def test_what_a_linear_end_means_to_a_loss_of_the_users_must_be_said() -> None:
    with pytest.raises(ModelMismatchError, match="'loss_of_logits' is one of your own.*head__from_logits=True"):
        KerasClassifier(dense, loss=loss_of_logits).fit(IRIS, IS_VIRGINICA)
    ours = KerasClassifier(dense, loss=loss_of_logits, head__from_logits=True, optimizer="adam", **STEPS)
    ours.fit(IRIS, IS_VIRGINICA)
    logits = by_keras(IS_VIRGINICA[:, None], keras.losses.BinaryCrossentropy(from_logits=True))[:, 0]
    assert_allclose(ours.predict_proba(IRIS)[:, 1], 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert_array_equal(ours.predict(IRIS), (logits > 0).astype(int))


def test_numbers_fitted_to_0_and_1_are_labels_from_a_half_on_and_no_probabilities() -> None:
    ours = KerasClassifier(dense, loss="mse", optimizer="adam", **STEPS).fit(IRIS, IS_VIRGINICA)
    raw = by_keras(IS_VIRGINICA[:, None], "mse")[:, 0]
    assert_array_equal(ours.predict(IRIS), (raw > 0.5).astype(int))
    assert_allclose(ours.decision_function(IRIS), raw - 0.5, atol=1e-5)
    assert not hasattr(ours, "predict_proba")
    with pytest.raises(AttributeError, match="no probabilities.*head__from_logits=True"):
        ours.predict_proba(IRIS)


def test_what_turns_out_to_be_no_probability_is_not_called_one() -> None:
    def build(input_shape: Any) -> keras.Model:
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, layers.Rescaling(50.0)(layers.Dense(1)(inputs)))

    ours = KerasClassifier(build, loss=loss_of_logits, epochs=1).fit(IRIS, IS_VIRGINICA)
    for predict in (ours.predict, ours.predict_proba, ours.decision_function):
        with pytest.raises(ModelMismatchError, match="which are no probabilities. If they are logits"):
            predict(IRIS)


@pytest.mark.parametrize("target", [SPECIES, ONE_HOT], ids=["numbers", "one-hot"])
@pytest.mark.parametrize("loss", [loss_of_one_hot, loss_of_numbers])
def test_a_loss_of_the_users_gets_the_form_of_the_target_that_it_takes(loss: Any, target: Any) -> None:
    # Batches of as many rows as there are classes: numpy's rules would let numbers of classes meet one-hot rows.
    steps: dict[str, Any] = {"epochs": 3, "shuffle": False, "batch_size": 3}
    end: dict[str, Any] = {"units": 3, "activation": "softmax"}
    ours = KerasClassifier(dense, loss=loss, optimizer="adam", **end, **steps).fit(IRIS, target)
    plain = dense((4,), **end)
    plain.compile("adam", "categorical_crossentropy")
    plain.fit(IRIS, ONE_HOT, verbose=0, **steps)
    expected = plain.predict(IRIS, verbose=0)
    assert_allclose(ours.predict_proba(IRIS), expected, atol=1e-4)
    labels = expected.argmax(axis=1)
    assert_array_equal(ours.predict(IRIS), labels if target.ndim == 1 else np.eye(3)[labels])


# -- metrics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [SPECIES, ONE_HOT], ids=["numbers", "one-hot"])
def test_a_metric_that_compares_one_hot_rows_gets_them(target: Any) -> None:
    metrics = [keras.metrics.AUC(name="auc", num_thresholds=2000), "accuracy", keras.metrics.F1Score(name="f1")]
    ours = KerasClassifier(metrics=metrics, epochs=10, random_state=0)
    ours.fit(IRIS, target, validation_data=(IRIS, target))
    expected = roc_auc_score(ONE_HOT.ravel(), ours.predict_proba(IRIS).ravel())
    assert ours.history_["val_auc"][-1] == pytest.approx(expected, abs=2e-3)
    assert ours.history_["val_accuracy"][-1] == pytest.approx(ours.score(IRIS, target), abs=1e-6)


@pytest.mark.parametrize(
    ("target", "parameters", "message"),
    [
        (SPECIES, {"loss": "sparse_categorical_crossentropy", "metrics": "AUC"}, "loss='categorical_crossentropy'"),
        (SPECIES, {"loss": "categorical_crossentropy", "metrics": ["sparse_categorical_accuracy"]}, "in place of"),
        (SPECIES, {"metrics": [keras.metrics.MeanIoU(3)]}, "sparse_y_pred=False"),
        (SPECIES, {"metrics": [keras.metrics.Accuracy()]}, "The string 'accuracy'"),
        (IS_VIRGINICA, {"metrics": "categorical_accuracy"}, "the same whatever is predicted"),
    ],
)
def test_a_metric_that_would_compare_two_different_things_is_refused(
    target: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelMismatchError, match=message):
        KerasClassifier(**parameters).fit(IRIS, target)


@pytest.mark.backend("tensorflow")
def test_a_data_set_of_one_hot_labels_is_learned_from_as_it_is() -> None:
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices((IRIS, ONE_HOT.astype("float32"))).batch(25)
    numbers = tf.data.Dataset.from_tensor_slices((IRIS, SPECIES)).batch(25)
    end: dict[str, Any] = {"units": 3, "activation": "softmax", "optimizer": "adam", "epochs": 15}
    ours = KerasClassifier(dense, **end).fit(rows)
    plain = by_keras(ONE_HOT, "categorical_crossentropy", units=3, activation="softmax")
    assert_allclose(ours.predict_proba(IRIS), plain, atol=1e-5)
    assert_array_equal(ours.predict(IRIS), np.eye(3)[plain.argmax(1)])
    own = KerasClassifier(dense, loss=loss_of_one_hot, **end).fit(rows)
    assert_allclose(own.predict_proba(IRIS), plain, atol=1e-4)
    with pytest.raises(DataError, match=r"shape \(n, 3\), but the loss of the model takes class numbers"):
        KerasClassifier(dense, loss="sparse_categorical_crossentropy", **end).fit(rows)
    with pytest.raises(DataError, match=r"shape \(n,\), but the loss of the model takes one-hot rows"):
        KerasClassifier(dense, loss="categorical_crossentropy", **end).fit(numbers)
    three_axes = tf.data.Dataset.from_tensor_slices((IRIS, MEASURES)).batch(25)
    whole = KerasRegressor(dense, units=6, shape=(3, 2), epochs=1).fit(three_axes)
    assert whole.predict(IRIS).shape == MEASURES.shape
    with pytest.raises(DataError, match=r"shape \(n, 3, 2\), but .* rows of the shape \(n, 6\)"):
        KerasRegressor(dense, units=6, epochs=1).fit(three_axes)


# -- numbers of extreme size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "table", "columns", "sparse", "inputs", "prediction"])
def test_a_number_that_single_precision_does_not_hold_is_refused_by_the_name_of_its_column(form: str) -> None:
    from scipy.sparse import csr_matrix

    X = DIABETES.copy()
    X[7, 2] = 1e39
    table = pd.DataFrame(X, columns=load_diabetes().feature_names)
    known = KerasRegressor(hidden=(), epochs=1)
    if form == "prediction":
        fitted = known.fit(DIABETES, PROGRESS)
        with pytest.raises(DataError, match=r"X holds 1e\+39 in column 2, row 7"):
            fitted.predict(X)
        return
    rows, network, column = {
        "array": (X, known, "column 2, row 7"),
        "table": (table, known, "column 'bmi', row 7"),
        "columns": (table, KerasRegressor("tabular"), r"Column 'bmi' holds 1e\+39, in row 7"),
        "sparse": (csr_matrix(X), known, "column 2, row 7"),
        "inputs": ({"one": X, "other": DIABETES}, KerasRegressor("multi_input"), r"X\['one'\].* column 2, row 7"),
    }[form]
    with pytest.raises(DataError, match=column):
        network.fit(rows, PROGRESS)


@pytest.mark.parametrize("unit", [1e-300, 1e-170, 1e-30, 1e30, 1e160, 1e300])
def test_a_target_in_an_extreme_unit_is_learned_as_in_any_other(unit: float) -> None:
    network = KerasRegressor(hidden=(8,), epochs=10, random_state=0)
    expected = network.fit(DIABETES, PROGRESS).predict(DIABETES)
    score = network.score(DIABETES, PROGRESS)
    network.fit(DIABETES, PROGRESS * unit)
    assert_allclose(network.predict(DIABETES) / unit, expected, rtol=1e-4)
    assert network.score(DIABETES, PROGRESS * unit) == pytest.approx(score, abs=1e-5)
    assert np.isfinite(cross_val_score(network, DIABETES, PROGRESS * unit, cv=2)).all()


@pytest.mark.parametrize("unit", [1e40, 1e-60])
def test_a_model_of_the_users_refuses_a_target_that_would_be_infinite_or_zero(unit: float) -> None:
    with pytest.raises(DataError, match="TransformedTargetRegressor"):
        KerasRegressor(dense).fit(DIABETES, PROGRESS * unit)


def test_weights_count_by_their_ratios_whatever_their_size() -> None:
    weights = np.where(PROGRESS > 150, 2.0, 1.0)
    network = KerasRegressor(hidden=(8,), epochs=5, random_state=0)
    expected = network.fit(DIABETES, PROGRESS, sample_weight=weights).predict(DIABETES)
    for size in (8e307, 1e-200):
        network.fit(DIABETES, PROGRESS, sample_weight=weights * size)
        assert_allclose(network.predict(DIABETES), expected, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [25, 3])
def test_weights_of_rows_are_no_weights_of_steps(batch_size: int) -> None:
    # With as many rows in a batch as there are steps, Keras would weigh each step by another row's weight.
    weights = np.where(SPECIES == 0, 0.2, 1.4)
    end: dict[str, Any] = {"units": 6, "shape": (3, 2)}
    steps = {**STEPS, "batch_size": batch_size, "epochs": 3}
    ours = KerasRegressor(dense, optimizer="adam", **end, **steps).fit(IRIS, MEASURES, sample_weight=weights)
    plain = dense((4,), **end)
    plain.compile("adam", "mse")
    plain.fit(IRIS, MEASURES, sample_weight=(weights / weights.mean())[:, None], verbose=0, **steps)
    assert_allclose(ours.predict(IRIS), plain.predict(IRIS, verbose=0), atol=1e-5)
