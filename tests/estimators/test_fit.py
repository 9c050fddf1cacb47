"""What a fit takes, what it refuses, what it leaves behind, and what it leaves alone.

Many claims are about what Keras gets. `Recorder` is a model that keeps the arguments of its `fit`, so that the tests
look at those and not at scores.
"""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import joblib
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from keras.callbacks import EarlyStopping
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import cross_val_score, cross_validate
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ModelMismatchError, ParameterError
from kerastoolkit.search import fused

# One step an epoch over all rows, in their order: what is trained does not depend on how rows fall into batches.
WHOLE = {"batch_size": -1, "shuffle": False, "optimizer": "sgd", "optimizer__learning_rate": 0.1, "random_state": 0}


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Thirty scaled features of 200 patients, and whether the tumour was benign: 93 were."""
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X)[:200], y[:200]


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Ten scaled features of 200 patients, and the progress of the disease."""
    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X)[:200], y[:200]


SEEN: list[dict[str, Any]] = []


@keras.saving.register_keras_serializable("kerastoolkit tests")
class Recorder(keras.Model):
    """A model that keeps the arguments of its `fit` in `SEEN`."""

    def fit(self, **arguments: Any) -> Any:
        SEEN.append(arguments)
        return super().fit(**arguments)


def recorder(input_shape: Any, head: Any, width: int = 4) -> keras.Model:
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(width, "relu")(keras.layers.Flatten()(inputs))
    return Recorder(inputs, head.output_layer()(hidden))


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    """Arguments of the fits of recording models in this test."""
    SEEN.clear()
    return SEEN


def weights_of(estimator: Any) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in estimator.model_.get_weights()])


# -- rows held out ----------------------------------------------------------------------------------------------------


def test_validation_split_of_sorted_rows_holds_out_every_class_in_its_share(iris: Any, seen: Any) -> None:
    X, y = iris
    KerasClassifier(recorder, epochs=1, validation_split=0.2, random_state=0).fit(X, y)
    (got,) = seen
    held_out_X, held_out_y = got["validation_data"]
    assert_array_equal(np.bincount(np.ravel(held_out_y)), [10, 10, 10])
    assert_array_equal(np.bincount(np.ravel(got["y"])), [40, 40, 40])
    everything = np.concatenate([got["x"], held_out_X])
    assert_array_equal(everything[np.lexsort(everything.T)], X[np.lexsort(X.T)])  # no row twice, none lost
    assert not np.array_equal(held_out_X, np.concatenate([X[40:50], X[90:100], X[140:]]))  # shuffled within classes


def test_validation_split_draws_the_same_rows_for_the_same_seed(iris: Any, seen: Any) -> None:
    for seed in (0, 0, 1):
        KerasClassifier(recorder, epochs=1, validation_split=0.1, random_state=seed).fit(*iris)
    first, again, other = (got["validation_data"][0] for got in seen)
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_validation_split_holds_out_whole_groups_or_the_latest_rows(iris: Any, seen: Any) -> None:
    X, y = iris
    X = np.column_stack([X, np.arange(150) / 64])  # so that each row can be told
    patients, weights = np.arange(150) // 5, np.where(np.arange(150) < 3, 0.0, 1.0)
    estimator = KerasClassifier(recorder, epochs=1, validation_split=0.2, random_state=0)
    for belonging in ({"groups": patients}, {"time": -np.arange(150)}):
        estimator.fit(X, y, sample_weight=weights, **belonging)
    by_group, by_time = ([64 * got["x"][:, -1], 64 * got["validation_data"][0][:, -1]] for got in seen)
    trained, watched = (set(rows // 5) for rows in by_group)
    assert not trained & watched and len(trained) + len(watched) == 30
    assert len(watched) in (5, 6) and {patient // 10 for patient in watched} == {0, 1, 2}  # patients of each class
    assert_array_equal(by_time[1], np.arange(3, 32))  # the latest are those with the smallest number
    with pytest.raises(DataError, match=r"`groups` must have an entry for each of the 150 rows of X. Got \(3,\)"):
        estimator.fit(X, y, groups=[1, 2, 3])


def test_validation_split_of_a_regression_is_drawn_from_all_rows(diabetes: Any, seen: Any) -> None:
    X, y = diabetes
    order = np.argsort(y)
    model = KerasRegressor(recorder, epochs=1, validation_split=0.25, random_state=0).fit(X[order], y[order])
    held_out = np.ravel(seen[0]["validation_data"][1])
    assert len(held_out) == 50
    assert held_out.min() < np.median(y) < held_out.max()
    assert set(model.history_) == {"loss", "val_loss", "r2_score", "val_r2_score"}


@pytest.mark.parametrize("labels", [["ham", "spam", "tofu"], [10, 20, 30]], ids=["text", "numbers"])
def test_validation_data_is_encoded_like_the_target(iris: Any, seen: Any, labels: Any) -> None:
    X, y = iris
    named = np.asarray(labels)[y]
    data = (X[1::2], named[1::2], np.full(75, 2.0))
    model = KerasClassifier(recorder, epochs=2).fit(X[::2], named[::2], validation_data=data)
    assert_array_equal(np.ravel(seen[0]["validation_data"][1]), y[1::2])
    assert_allclose(model.history_["val_accuracy"][-1], model.score(X[1::2], named[1::2]), atol=1e-6)


def test_validation_data_is_scaled_like_the_target_of_a_regression(diabetes: Any) -> None:
    X, y = diabetes
    model = KerasRegressor(epochs=2, hidden=()).fit(X, y, validation_data=(X[:50], y[:50]))
    error = np.mean((model.predict(X[:50]) - y[:50]) ** 2) / y.std() ** 2
    assert_allclose(model.history_["val_loss"][-1], error, rtol=1e-4)


def test_validation_data_with_an_unknown_label_or_other_columns_is_refused(iris: Any) -> None:
    X, y = iris
    with pytest.raises(DataError, match="7"):
        KerasClassifier(epochs=1).fit(X, y, validation_data=(X[:2], [0, 7]))
    with pytest.raises(ValueError, match="3 features.*4 features"):
        KerasClassifier(epochs=1).fit(X, y, validation_data=(X[:2, :3], y[:2]))
    with pytest.raises(DataError, match="must be .X, y."):
        KerasClassifier(epochs=1).fit(X, y, validation_data=X)


def test_the_validation_loss_does_not_depend_on_the_unit_of_the_weights(cancer: Any) -> None:
    X, y = cancer
    losses = []
    for unit in (1.0, 1000.0):
        weight = np.where(y == 1, 1.0, 3.0) * unit
        model = KerasClassifier(hidden=(), epochs=1, validation_split=0.3, random_state=0).fit(X, y, weight)
        losses.append([model.history_["loss"][0], model.history_["val_loss"][0]])
    assert_allclose(losses[0], losses[1], rtol=1e-5)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["two classes", "three classes", "regression", "regression of yours"])
def test_a_row_of_weight_two_is_the_row_twice_and_of_weight_zero_no_row(
    iris: Any, cancer: Any, diabetes: Any, task: str
) -> None:
    X, y = {"two classes": cancer, "three classes": iris}.get(task, diabetes)
    X, y = X[::3], y[::3] if task != "regression of yours" else y[::3] / 100
    times = np.random.RandomState(0).randint(0, 3, len(y))
    kind: Any = KerasRegressor if "regression" in task else KerasClassifier
    model = kind(recorder if "yours" in task else None, epochs=5, **WHOLE)
    weighted = clone(model).fit(X, y, sample_weight=times)
    repeated = clone(model).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    assert_allclose(weights_of(weighted), weights_of(repeated), atol=1e-5)
    assert_allclose(weighted.history_["loss"], repeated.history_["loss"], rtol=1e-4)
    assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-4)
    plain = clone(model).fit(X, y)
    assert np.abs(weights_of(plain) - weights_of(weighted)).max() > 1e-3


def test_only_ratios_of_weights_count(iris: Any) -> None:
    ratios = np.random.RandomState(0).uniform(0.5, 2, 150)
    first, second = (KerasClassifier(epochs=3, **WHOLE).fit(*iris, ratios * unit) for unit in (1.0, 64.0))
    assert_allclose(weights_of(first), weights_of(second), atol=1e-6)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.full(150, -1.0), "must not be negative; the smallest is -1.0"),
        (np.zeros(150), "at least one non-zero"),
        (np.ones(149), "149"),
        (np.full(150, np.nan), "NaN"),
    ],
    ids=["negative", "zeros", "too few", "NaN"],
)
def test_impossible_weights_are_refused(iris: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasClassifier(epochs=1).fit(*iris, sample_weight=weight)


@pytest.mark.parametrize("class_weight", [{"no": 1, "yes": 3}, "balanced"], ids=["dict", "balanced"])
def test_class_weights_reach_keras_as_hand_arithmetic_says(cancer: Any, seen: Any, class_weight: Any) -> None:
    X, y = cancer[0], np.where(cancer[1] == 1, "yes", "no")
    KerasClassifier(recorder, class_weight=class_weight, epochs=1).fit(X, y)
    yes, no = np.sum(y == "yes"), np.sum(y == "no")
    expected = np.where(y == "yes", 200 / (2 * yes), 200 / (2 * no))
    if class_weight != "balanced":
        expected = np.where(y == "yes", 3.0, 1.0)
    assert_allclose(np.ravel(seen[0]["sample_weight"]), expected / expected.mean(), rtol=1e-6)
    assert seen[0].get("class_weight") is None  # not weighed twice


def test_class_weights_multiply_the_weights_of_rows(iris: Any) -> None:
    X, y = iris
    rows = np.random.RandomState(0).uniform(0.5, 2, 150)
    both = KerasClassifier(class_weight={0: 1, 1: 2, 2: 5}, epochs=3, **WHOLE).fit(X, y, rows)
    by_hand = KerasClassifier(epochs=3, **WHOLE).fit(X, y, rows * np.array([1, 2, 5])[y])
    assert_allclose(weights_of(both), weights_of(by_hand), atol=1e-6)


def test_class_weights_work_on_one_hot_rows_and_in_the_call_of_fit(iris: Any) -> None:
    X, y = iris
    numbers = KerasClassifier(class_weight={0: 1, 1: 2, 2: 5}, epochs=2, **WHOLE).fit(X, y)
    one_hot = KerasClassifier(class_weight={0: 1, 1: 2, 2: 5}, epochs=2, **WHOLE).fit(X, np.eye(3)[y])
    called = KerasClassifier(epochs=2, **WHOLE).fit(X, y, class_weight={0: 1, 1: 2, 2: 5})
    assert_allclose(weights_of(numbers), weights_of(one_hot), atol=1e-5)
    assert_allclose(weights_of(numbers), weights_of(called), atol=1e-6)


def test_a_weight_for_no_class_is_refused(iris: Any) -> None:
    with pytest.raises(ParameterError, match=r"weights for \['setosa'\]; the classes are \[0, 1, 2\]"):
        KerasClassifier(class_weight={"setosa": 2}, epochs=1).fit(*iris)


# -- going on ---------------------------------------------------------------------------------------------------------


def test_warm_start_goes_on_where_the_last_fit_ended(iris: Any) -> None:
    whole = KerasClassifier(epochs=5, **WHOLE).fit(*iris)
    warm = KerasClassifier(epochs=2, warm_start=True, **WHOLE).fit(*iris)
    network = warm.model_
    warm.set_params(epochs=3).fit(*iris)
    assert warm.model_ is network
    assert warm.n_iter_ == len(warm.history_["loss"]) == int(network.optimizer.iterations) == 5
    assert_allclose(weights_of(warm), weights_of(whole), atol=1e-6)
    assert_allclose(warm.history_["loss"], whole.history_["loss"], rtol=1e-5)


def test_a_cold_start_forgets_the_last_fit(iris: Any) -> None:
    model = KerasClassifier(epochs=2, **WHOLE).fit(*iris)
    first, network = weights_of(model), model.model_
    model.fit(*iris)
    assert model.model_ is not network
    assert model.n_iter_ == len(model.history_["loss"]) == 2
    assert_array_equal(weights_of(model), first)


def test_partial_fit_trains_an_epoch_a_call_on_all_the_classes_named_first(iris: Any) -> None:
    X, y = iris
    labels = np.array(["a", "b", "c"])
    model = KerasClassifier(epochs=7, **WHOLE)
    for start in (0, 50, 100):
        rows = slice(start, start + 50)
        model.partial_fit(X[rows], labels[y[rows]], classes=labels if start == 0 else None)
        assert_array_equal(model.classes_, labels)
    assert model.n_iter_ == len(model.history_["loss"]) == 3
    assert model.predict_proba(X).shape == (150, 3)


def test_partial_fit_refuses_labels_it_was_not_told_of(iris: Any) -> None:
    X, y = iris
    model = KerasClassifier().partial_fit(X[:100], y[:100])
    before = weights_of(model)
    with pytest.raises(DataError, match="`y` holds 2.*partial_fit.X, y, classes"):
        model.partial_fit(X, y)
    assert_array_equal(weights_of(model), before)
    with pytest.raises(DataError, match="not among `classes`"):
        KerasClassifier().partial_fit(X, y, classes=[0, 1])


class Interrupts(keras.callbacks.Callback):
    """An error of the user's, after an epoch has changed the weights."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise ZeroDivisionError("of the user")


@pytest.mark.parametrize("verbose", [0, 2])  # 2: trained by Keras' own `fit`
def test_training_that_fails_leaves_a_model_that_was_only_initialized_as_it_was(iris: Any, verbose: int) -> None:
    for _ in range(3):  # from here on it is known how the weights are drawn, and nothing is built
        KerasClassifier(hidden=(4,), **WHOLE).fit(*iris)
    model = KerasClassifier(hidden=(4,), random_state=3).initialize(*iris)
    before = clone(model).initialize(*iris).predict_proba(iris[0])
    with pytest.raises(ZeroDivisionError, match="of the user"):
        model.partial_fit(*iris, callbacks=[Interrupts()], verbose=verbose)
    assert_array_equal(model.predict_proba(iris[0]), before)


def test_partial_fit_weighs_rows_and_takes_arguments_of_fit(diabetes: Any) -> None:
    X, y = diabetes
    times = np.random.RandomState(0).randint(0, 3, len(y))
    weighted = KerasRegressor(**WHOLE).partial_fit(X, y, sample_weight=times, epochs=2)
    repeated = KerasRegressor(**WHOLE).partial_fit(np.repeat(X, times, axis=0), np.repeat(y, times), epochs=2)
    assert weighted.n_iter_ == 2
    assert_allclose(weights_of(weighted), weights_of(repeated), atol=1e-5)


# -- seeds ------------------------------------------------------------------------------------------------------------


def drawn() -> list[float]:
    """The next number of every generator there is."""
    numbers = [random.random(), float(np.random.rand()), float(keras.random.uniform(()))]
    numbers.append(float(keras.initializers.RandomUniform()((1,))[0]))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        numbers.append(float(tf.random.uniform(())))
    if keras.config.backend() == "torch":
        import torch

        numbers.append(float(torch.rand(())))
    return numbers


def restless(input_shape: Any, head: Any, broken: bool = False) -> keras.Model:
    """A model that draws: weights, dropout, and numbers of its build function."""
    np.random.rand(), random.random()
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(8, "relu")(inputs))
    if broken:
        raise RuntimeError("broken on purpose")
    return keras.Model(inputs, head.output_layer()(hidden))


@pytest.mark.parametrize("broken", [False, True], ids=["fit", "failing fit"])
def test_a_seeded_fit_leaves_every_generator_of_the_process_where_it_was(iris: Any, broken: bool) -> None:
    keras.utils.set_random_seed(7)
    drawn()
    expected = drawn()
    keras.utils.set_random_seed(7)
    drawn()
    states = random.getstate(), pickle.dumps(np.random.get_state())
    model = KerasClassifier(restless, broken=broken, epochs=1, random_state=0, validation_split=0.2)
    if broken:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            model.fit(*iris)
    else:
        model.fit(*iris).predict(iris[0])
    assert states == (random.getstate(), pickle.dumps(np.random.get_state()))
    assert drawn() == expected


def test_the_same_seed_gives_the_same_weights_whatever_ran_before(iris: Any) -> None:
    model = KerasClassifier(restless, epochs=2, random_state=3, validation_split=0.1)
    first = clone(model).fit(*iris)
    keras.utils.set_random_seed(99)
    KerasClassifier(hidden=(5, 5), epochs=1).fit(*iris)
    second, third = clone(model).fit(*iris), first.fit(*iris)
    assert_array_equal(weights_of(first), weights_of(second))
    assert_array_equal(weights_of(second), weights_of(third))
    assert first.history_ == second.history_
    other = clone(model).set_params(random_state=4).fit(*iris)
    assert np.abs(weights_of(other) - weights_of(first)).max() > 1e-3


def test_fits_without_a_seed_differ_and_follow_the_seed_of_the_process(iris: Any) -> None:
    def fitted() -> np.ndarray:
        return weights_of(KerasClassifier(restless, epochs=1, validation_split=0.1).fit(*iris))

    keras.utils.set_random_seed(5)
    first, second = fitted(), fitted()
    assert np.abs(first - second).max() > 1e-3
    keras.utils.set_random_seed(5)
    assert_array_equal(fitted(), first)


def test_a_generator_gives_another_seed_to_each_fit(iris: Any) -> None:
    def fitted(generator: Any) -> np.ndarray:
        return weights_of(KerasClassifier(restless, epochs=1, random_state=generator).fit(*iris))

    generator = np.random.RandomState(0)
    first, second = fitted(generator), fitted(generator)
    assert np.abs(first - second).max() > 1e-3
    assert_array_equal(fitted(np.random.RandomState(0)), first)
    assert np.abs(fitted(np.random.RandomState(1)) - first).max() > 1e-3


def test_a_seeded_warm_start_repeats_as_a_whole(iris: Any) -> None:
    def fitted() -> np.ndarray:
        model = KerasClassifier(restless, epochs=1, random_state=0, warm_start=True)
        return weights_of(model.fit(*iris).fit(*iris))

    assert_array_equal(fitted(), fitted())


def test_a_fit_after_a_seeded_one_needs_no_seed(iris: Any) -> None:
    KerasClassifier(restless, epochs=1, random_state=0).fit(*iris)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(3, "softmax")])
    network.compile("sgd", "sparse_categorical_crossentropy")
    trained = network.fit(*iris, verbose=0, shuffle=True)
    assert np.isfinite(trained.history["loss"]).all()


# -- callbacks, metrics, history --------------------------------------------------------------------------------------


class Counter(keras.callbacks.Callback):
    """Counts epochs, in an attribute that shows whether it was copied."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.epochs = self.start = start

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1


def test_each_fit_works_on_copies_of_the_callbacks(iris: Any) -> None:
    given = Counter()
    model = KerasClassifier(hidden=(), epochs=2, batch_size=-1, callbacks=[given])
    for _ in range(2):
        (used,) = model.fit(*iris).callbacks_
        assert used is not given
        assert used.epochs == 2
    assert given.epochs == 0
    assert model.callbacks == [given]


@pytest.mark.parametrize(
    "callbacks",
    [Counter, Counter(), [Counter], (Counter(),), {"count": Counter}, {"count": Counter()}, {"all": [Counter()]}],
    ids=["class", "instance", "list", "tuple", "dict of class", "dict", "dict of list"],
)
def test_callbacks_come_alone_in_lists_and_in_dicts_as_classes_and_instances(iris: Any, callbacks: Any) -> None:
    model = KerasClassifier(hidden=(), epochs=2, batch_size=-1, callbacks=callbacks).fit(*iris)
    (used,) = model.callbacks_
    assert used.epochs == 2
    clone(model)


def test_callbacks_given_to_fit_are_used_themselves_beside_the_others(iris: Any) -> None:
    given = Counter()
    model = KerasClassifier(hidden=(), epochs=2, batch_size=-1, callbacks=Counter).fit(*iris, callbacks=[given])
    assert given.epochs == 2
    assert len(model.callbacks_) == 2


class Half(keras.metrics.Mean):
    """A metric of the user's own that takes an automatic name."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(keras.ops.mean(y_pred) / 2)


def with_auc(input_shape: Any, head: Any) -> keras.Model:
    network = recorder(input_shape, head)
    network.compile("adam", head.loss, metrics=[keras.metrics.AUC()])
    return network


def with_half(input_shape: Any, head: Any) -> keras.Model:
    network = recorder(input_shape, head)
    network.compile("adam", head.loss, metrics=[Half(name=None)])
    return network


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"hidden": (), "metrics": ["auc"]}, "auc"),
        ({"hidden": (), "metrics": [keras.metrics.AUC]}, "auc"),
        ({"hidden": (), "metrics": ["accuracy", keras.metrics.Precision, "AUC"]}, "precision"),
        ({"model": with_auc}, "auc"),
    ],
    ids=["name", "class", "several", "build function"],
)
def test_a_metric_has_the_same_name_in_every_fold(cancer: Any, parameters: Any, name: str) -> None:
    keras.metrics.AUC(), keras.metrics.Precision()  # the process has made some before
    stop = EarlyStopping(monitor=f"val_{name}", mode="max", min_delta=1e6, patience=1)
    model = KerasClassifier(**parameters, epochs=4, batch_size=-1, validation_split=0.2, callbacks=stop)
    folds = cross_validate(model, *cancer, cv=3, return_estimator=True, error_score="raise")
    for estimator in folds["estimator"]:
        assert {name, f"val_{name}"} <= set(estimator.history_)
        assert estimator.n_iter_ == 2


def test_a_metric_of_ones_own_has_the_same_name_in_every_fit(cancer: Any) -> None:
    names = [sorted(KerasClassifier(with_half, epochs=1).fit(*cancer).history_) for _ in range(2)]
    assert names[0] == names[1]


def test_history_is_a_dict_of_lists_of_numbers_one_an_epoch(iris: Any) -> None:
    model = KerasClassifier(hidden=(), epochs=3, validation_split=0.2).fit(*iris)
    assert set(model.history_) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for values in model.history_.values():
        assert type(values) is list
        assert [type(value) for value in values] == [float] * 3
    assert model.n_iter_ == 3
    assert model.model_.history.model is model.model_  # as Keras has it
    assert model.model_.history.history == model.history_
    model.partial_fit(*iris)
    assert model.model_.history.epoch == [3]


def test_early_stopping_leaves_the_number_of_epochs_trained(iris: Any) -> None:
    stop = EarlyStopping(monitor="loss", min_delta=1e6, patience=2)
    assert KerasClassifier(hidden=(), epochs=50, callbacks=stop, batch_size=-1).fit(*iris).n_iter_ == 3


def test_a_model_of_the_package_trains_long_enough_and_one_of_yours_as_keras_does(iris: Any) -> None:
    assert KerasClassifier(hidden=(), batch_size=-1, callbacks=Counter).fit(*iris).callbacks_[0].epochs == 100
    assert KerasClassifier(recorder).fit(*iris).n_iter_ == 1


def test_an_argument_that_fit_does_not_know_is_refused(iris: Any) -> None:
    with pytest.raises(ParameterError, match="unexpected argument 'epoch'. Did you mean 'epochs'"):
        KerasClassifier().fit(*iris, epoch=3)


# -- inputs -----------------------------------------------------------------------------------------------------------


def images(input_shape: Any, head: Any) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 16)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, head.output_layer()(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_images_are_arrays_of_four_axes(dtype: str) -> None:
    digits = load_digits()
    X = digits.images[:300, :, :, None].astype(dtype)
    y = digits.target[:300]
    model = KerasClassifier(images, epochs=4, optimizer__learning_rate=0.02, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.6
    assert model.model_.input_shape == (None, 8, 8, 1)
    assert_allclose(model.predict_proba(X[:1])[0], model.predict_proba(X)[0], atol=1e-5)
    with pytest.raises(DataError, match=r"rows of the shape \(8, 7, 1\).*fitted with.*\(8, 8, 1\)"):
        model.predict(X[:, :, :7])


def test_sequences_are_arrays_of_three_axes() -> None:
    digits = load_digits()

    def build(units: int = 4) -> keras.Model:
        layers = [keras.Input((8, 8)), keras.layers.SimpleRNN(units), keras.layers.Dense(1)]
        return keras.Sequential(layers)

    X, y = digits.images[:100] / 16, digits.images[:100].mean(axis=(1, 2))
    model = KerasRegressor(build, epochs=1).fit(X, y)
    assert model.predict(X).shape == (100,)


def test_large_arrays_are_not_copied(seen: Any) -> None:
    for dtype in ("float32", "float64"):
        X = np.random.RandomState(0).rand(64, 8).astype(dtype)
        KerasClassifier(recorder, epochs=1).fit(X, np.arange(64) % 2)
        assert np.shares_memory(seen[-1]["x"], X)


def test_a_fit_changes_none_of_its_arguments(cancer: Any) -> None:
    X, y, weight = cancer[0].copy(), cancer[1].copy(), np.ones(200)
    X.flags.writeable = y.flags.writeable = weight.flags.writeable = False
    class_weight, callbacks, metrics = {0: 1, 1: 2}, [Counter()], ["accuracy"]
    model = KerasClassifier(hidden=(), epochs=1, class_weight=class_weight, callbacks=callbacks, metrics=metrics)
    before = {name: value for name, value in model.get_params().items()}
    model.fit(X, y, weight).predict(X)
    assert all(value is before[name] for name, value in model.get_params().items())
    assert (class_weight, metrics, len(callbacks)) == ({0: 1, 1: 2}, ["accuracy"], 1)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_columns_are_kept_and_checked(library: str) -> None:
    data, y = load_wine(return_X_y=True, as_frame=True)
    data = (data - data.mean()) / data.std()
    frame: Any = data if library == "pandas" else pl.from_pandas(data)
    model = KerasClassifier(epochs=1, random_state=0).fit(frame, y if library == "pandas" else pl.Series(y.to_numpy()))
    assert_array_equal(model.feature_names_in_, data.columns)
    assert model.n_features_in_ == 13
    swapped = frame[[*data.columns[1::-1], *data.columns[2:]]]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(swapped)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list(data.columns[:5])])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        bare = model.predict_proba(data.to_numpy())
    assert_array_equal(model.predict_proba(frame), bare)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "Float32", "int8", "bool"])
def test_columns_of_pandas_that_may_be_missing_are_numbers(dtype: str) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    X = (X > X.median()).astype(dtype) if "bool" in dtype else X.round().astype(dtype)
    model = KerasClassifier(epochs=1, random_state=0).fit(X, y)
    plain = KerasClassifier(epochs=1, random_state=0).fit(X.to_numpy(dtype="float64"), y)
    assert_allclose(model.predict_proba(X), plain.predict_proba(X.to_numpy(dtype="float64")), atol=1e-6)
    if dtype[0].isupper():
        X.iloc[3, 1] = pd.NA
        with pytest.raises(ValueError, match="NaN"):
            model.fit(X, y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_that_are_not_numbers_are_named_with_the_way_out(library: str) -> None:
    frame: Any = pd.DataFrame({"age": [1.0, 2, 3, 4], "port": ["a", "b", "a", "b"], "deck": ["x", "y", "x", "y"]})
    frame = frame if library == "pandas" else pl.from_pandas(frame)
    with pytest.raises(DataError, match="2 columns that are not numeric: 'port', 'deck'.*make_pipeline.*OneHotEncoder"):
        KerasClassifier().fit(frame, [0, 1, 0, 1])


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix", "coo_array"])
@pytest.mark.parametrize("large", [False, True])
def test_sparse_rows_are_learned_as_dense_ones_are(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:  # too large to be dense as a whole
        monkeypatch.setattr("kerastoolkit.estimators._inputs._FEW_BYTES", 0)
    X, y = load_digits(return_X_y=True)
    X, y = X[:100] / 16, y[:100]
    sparse = getattr(scipy.sparse, kind)(X)
    model = KerasClassifier(epochs=2, validation_split=0.2, **WHOLE)
    learned, dense = clone(model).fit(sparse, y), clone(model).fit(X, y)
    assert_allclose(weights_of(learned), weights_of(dense), atol=1e-5)
    assert_allclose(learned.predict_proba(sparse), dense.predict_proba(X), atol=1e-5)
    assert_allclose(learned.predict_proba(X), learned.predict_proba(sparse), atol=1e-6)
    assert_array_equal(learned.predict(sparse[:1] if "csr" in kind else X[:1]), learned.predict(X)[:1])
    assert learned.n_features_in_ == 64


def test_weighted_sparse_rows_are_learned_as_dense_ones_are() -> None:
    X, y = load_digits(return_X_y=True)
    X, y, weight = X[:60] / 16, y[:60], np.arange(60) % 3
    sparse = KerasClassifier(epochs=2, **WHOLE).fit(scipy.sparse.csr_array(X), y, weight)
    dense = KerasClassifier(epochs=2, **WHOLE).fit(X, y, weight)
    assert_allclose(weights_of(sparse), weights_of(dense), atol=1e-5)


def test_a_small_sparse_matrix_is_shuffled_and_trained_as_a_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:60] / 16, y[:60]
    model = KerasClassifier(epochs=2, validation_split=0.2, random_state=0)
    with fused() as report:
        folds = [cross_val_score(model, rows, y, cv=3) for rows in (scipy.sparse.csr_array(X), X)]
    assert_array_equal(*folds)
    assert [one.how for one in report.trained] == ["fused"] * 6
    monkeypatch.setattr("kerastoolkit.estimators._inputs._FEW_BYTES", 60 * 64)
    with fused() as report:
        cross_val_score(model, scipy.sparse.csr_array(X), y, cv=3)
    assert {one.how for one in report.trained} == {"Model.fit"}


def two_inputs(width: int = 4) -> keras.Model:
    petals, sepals = keras.Input((2,), name="petals"), keras.Input((2,), name="sepals")
    joined = keras.layers.concatenate([keras.layers.Dense(width)(petals), sepals])
    return keras.Model({"petals": petals, "sepals": sepals}, keras.layers.Dense(3, "softmax")(joined))


def two_listed_inputs() -> keras.Model:
    network = two_inputs()
    return keras.Model([network.input["petals"], network.input["sepals"]], network.output)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_a_model_of_two_inputs_takes_a_dict_or_a_list(iris: Any, form: str) -> None:
    X, y = iris

    def parts(rows: Any) -> Any:
        return {"petals": X[rows, 2:], "sepals": X[rows, :2]} if form == "dict" else [X[rows, 2:], X[rows, :2]]

    everything = slice(None)
    model = KerasClassifier(
        two_inputs if form == "dict" else two_listed_inputs,
        epochs=20, optimizer__learning_rate=0.05, validation_split=0.2, random_state=0,
    ).fit(parts(everything), y, sample_weight=np.ones(150))  # fmt: skip
    assert model.score(parts(everything), y) > 0.8
    assert_allclose(model.predict_proba(parts(slice(0, 1)))[0], model.predict_proba(parts(everything))[0], atol=1e-5)
    model.fit(parts(slice(0, 150, 2)), y[::2], validation_data=(parts(slice(1, 150, 2)), y[1::2]), epochs=1)
    assert "val_loss" in model.history_
    with pytest.raises(DataError, match="different numbers of rows"):
        model.fit({"petals": X[:, 2:], "sepals": X[:9, :2]}, y)
    with pytest.raises(DataError, match="one array, but KerasClassifier was fitted with inputs"):
        model.predict(X)
    bad = parts(everything)
    bad["petals" if form == "dict" else 0] = X
    with pytest.raises(DataError, match="shapes.*but was fitted with"):
        model.predict(bad)


# -- data sets --------------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Iris in batches of 30."""

    def __init__(self, X: Any, y: Any) -> None:
        super().__init__()
        self.X, self.y = X.astype("float32"), y

    def __len__(self) -> int:
        return -(-len(self.X) // 30)

    def __getitem__(self, step: int) -> Any:
        rows = slice(30 * step, 30 * (step + 1))
        return self.X[rows], self.y[rows]


def dataset_of(kind: str, X: Any, y: Any) -> Any:
    if kind == "PyDataset":
        return Batches(X, y)
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        return tf.data.Dataset.from_tensor_slices((X.astype("float32"), y)).batch(30)
    torch = pytest.importorskip("torch", reason="brings the DataLoader")
    rows = torch.utils.data.TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(y))
    return torch.utils.data.DataLoader(rows, batch_size=30)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "DataLoader"])
def test_data_sets_bring_batches_to_fit_predict_and_score(iris: Any, kind: str) -> None:
    order = np.random.RandomState(0).permutation(150)
    X, y = iris[0][order].astype("float32"), iris[1][order]
    dataset = dataset_of(kind, X, y)
    model = KerasClassifier(epochs=12, optimizer__learning_rate=0.05, random_state=0)
    model.fit(dataset, validation_data=dataset_of(kind, X[:40], y[:40]))
    assert int(model.model_.optimizer.iterations) == 12 * 5
    assert len(model.history_["val_loss"]) == 12
    assert_array_equal(model.classes_, [0, 1, 2])
    assert model.n_features_in_ == 4
    assert_array_equal(model.predict(dataset), model.predict(X))
    assert model.score(dataset) == model.score(X, y) > 0.8
    assert_allclose(model.predict_proba(dataset).sum(axis=1), 1)
    with pytest.raises(DataError, match="brings its own targets"):
        model.fit(dataset, y)
    with pytest.raises(ParameterError, match="cannot divide a data set"):
        clone(model).set_params(validation_split=0.2).fit(dataset)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "DataLoader"])
def test_arrays_may_be_watched_on_a_data_set(iris: Any, kind: str) -> None:
    X, y = iris[0].astype("float32"), iris[1]
    model = KerasClassifier(epochs=2, random_state=0)
    watched = clone(model).fit(X, y, validation_data=dataset_of(kind, X[:90], y[:90]))
    alone = clone(model).fit(X, y, validation_data=(X[:90], y[:90]))
    assert_allclose(watched.history_["val_loss"], alone.history_["val_loss"], rtol=1e-5)
    assert_allclose(watched.history_["loss"], alone.history_["loss"], rtol=1e-5)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_data_sets_of_numbers_to_predict(diabetes: Any, kind: str) -> None:
    X, y = diabetes[0].astype("float32"), (diabetes[1] / 100).astype("float32")
    dataset = dataset_of(kind, X, y)
    model = KerasRegressor(epochs=2, random_state=0).fit(dataset)
    assert model.predict(dataset).shape == (200,)
    assert_allclose(model.score(dataset), model.score(X, y), rtol=1e-5)


def test_a_data_set_that_repeats_needs_its_classes_named(iris: Any) -> None:
    X, y = iris
    endless = dataset_of("tf.data", X, y).repeat()
    with pytest.raises(DataError, match="repeats for ever.*classes=.*steps_per_epoch"):
        KerasClassifier(epochs=1).fit(endless)
    model = KerasClassifier(epochs=1).fit(endless, classes=[0, 1, 2], steps_per_epoch=3)
    assert int(model.model_.optimizer.iterations) == 3


def test_labels_of_a_data_set_must_be_the_numbers_of_classes(iris: Any) -> None:
    with pytest.raises(DataError, match="must be the numbers 0, 1, 2"):
        KerasClassifier(epochs=1).fit(Batches(iris[0], iris[1] + 5))


def test_classes_of_a_data_set_may_be_weighed(iris: Any) -> None:
    model = KerasClassifier(epochs=1, class_weight={0: 1.0, 1: 2.0, 2: 5.0}, random_state=0, shuffle=False)
    weighed = clone(model).fit(Batches(*iris))
    plain = clone(model).set_params(class_weight=None).fit(Batches(*iris))
    assert np.abs(weights_of(weighed) - weights_of(plain)).max() > 1e-4
    with pytest.raises(ParameterError, match="needs all labels at once"):
        clone(model).set_params(class_weight="balanced").fit(Batches(*iris))


# -- targets ----------------------------------------------------------------------------------------------------------


NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.mark.parametrize(
    ("encode", "classes"),
    [
        (lambda y: NAMES[y], NAMES),
        (lambda y: NAMES.astype(object)[y], NAMES),
        (lambda y: list(NAMES[y]), NAMES),
        (lambda y: pd.Series(NAMES[y], dtype="str"), NAMES),
        (lambda y: pd.Series(pd.Categorical(NAMES[y], categories=NAMES[::-1])), NAMES),
        (lambda y: pl.Series(NAMES[y]), NAMES),
        (lambda y: y - 1, [-1, 0, 1]),
        (lambda y: (y * 1.0).astype("float32"), [0.0, 1.0, 2.0]),
        (lambda y: pd.Series(y + 3, dtype="Int64"), [3, 4, 5]),
        (lambda y: y == 1, [False, True]),
        (lambda y: pd.Series(y == 1, dtype="boolean"), [False, True]),
    ],
    ids=[
        "text", "objects", "list", "pandas text", "categorical", "polars", "negative", "floats", "Int64", "bools",
        "boolean",
    ],
)  # fmt: skip
def test_labels_of_every_kind_come_back_as_they_were(iris: Any, encode: Any, classes: Any) -> None:
    X, y = iris[0], encode(iris[1])
    model = KerasClassifier(epochs=15, optimizer__learning_rate=0.05, random_state=0).fit(X, y)
    assert_array_equal(model.classes_, classes)
    assert model.n_classes_ == len(classes)
    predicted = model.predict(X)
    assert predicted.dtype.kind == model.classes_.dtype.kind
    assert set(np.unique(predicted)) <= set(classes)
    assert np.mean(predicted == np.asarray(y)) == pytest.approx(model.score(X, y))
    assert model.score(X, y) > 0.6
    assert model.predict_proba(X).shape == (150, len(classes))
    assert_array_equal(predicted, np.asarray(classes)[model.predict_proba(X).argmax(axis=1)])


def test_one_hot_rows_come_back_as_one_hot_rows(iris: Any) -> None:
    X, y = iris[0], np.eye(3)[iris[1]]
    model = KerasClassifier(epochs=10, optimizer__learning_rate=0.05, random_state=0).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == (150, 3)
    assert_array_equal(predicted.sum(axis=1), 1)
    assert model.score(X, y) > 0.7
    numbers = KerasClassifier(epochs=10, optimizer__learning_rate=0.05, random_state=0).fit(X, iris[1])
    assert_allclose(model.predict_proba(X), numbers.predict_proba(X), atol=1e-5)


def test_any_number_of_labels_at_once(iris: Any) -> None:
    X, y = iris[0], np.column_stack([iris[1] > 0, iris[1] > 1]).astype(int)
    model = KerasClassifier(epochs=20, optimizer__learning_rate=0.05, random_state=0).fit(X, y)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (150, 2)
    assert_array_equal(model.predict(X), (probabilities > 0.5).astype(int))
    assert model.score(X, y) == np.mean(np.all(model.predict(X) == y, axis=1))
    assert model.score(X, y) > 0.7
    assert model.model_.layers[-1].activation is keras.activations.sigmoid


@pytest.mark.parametrize("kind", [KerasClassifier, KerasRegressor])
def test_one_column_is_flattened_with_the_warning_of_scikit_learn(iris: Any, kind: Any) -> None:
    X, y = iris
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        model = kind(hidden=(), epochs=1).fit(X, y[:, None])
    assert model.predict(X).shape == (150,)


def test_several_classifications_at_once(iris: Any) -> None:
    X, y = iris
    targets = np.column_stack([y, np.arange(150) % 4])
    model = KerasClassifier(epochs=3, random_state=0).fit(X, targets)
    assert [list(classes) for classes in model.classes_] == [[0, 1, 2], [0, 1, 2, 3]]
    assert model.n_classes_ == [3, 4]
    assert model.predict(X).shape == (150, 2)
    assert [part.shape for part in model.predict_proba(X)] == [(150, 3), (150, 4)]
    assert model.score(X, targets) == np.mean(np.all(model.predict(X) == targets, axis=1))
    assert not hasattr(model, "decision_function")


def test_several_numbers_at_once() -> None:
    X, y = load_linnerud(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = KerasRegressor(epochs=60, batch_size=4, optimizer__learning_rate=0.02, random_state=0).fit(X, y)
    assert model.predict(X).shape == (20, 3)
    assert model.predict(X).dtype == np.float64
    assert model.score(X, y) > 0.2
    assert_allclose(model.predict(X).mean(axis=0), y.mean(axis=0), rtol=0.3)  # in the units of y


def two_outputs(head: Any) -> keras.Model:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, "relu")(inputs)
    outputs = {name: part.output_layer(name)(hidden) for name, part in zip(head.names, head.heads, strict=True)}
    return keras.Model(inputs, outputs)


def test_a_dict_of_targets_goes_to_the_outputs_of_its_names(iris: Any) -> None:
    X, y = iris
    targets = {"kind": NAMES[y], "large": X[:, 2] > 0}
    model = KerasClassifier(two_outputs, epochs=15, optimizer__learning_rate=0.05, random_state=0).fit(X, targets)
    predicted = model.predict(X)
    assert set(predicted) == {"kind", "large"}
    assert np.mean(predicted["kind"] == targets["kind"]) > 0.7
    assert np.mean(predicted["large"] == targets["large"]) > 0.7
    assert model.predict_proba(X)["kind"].shape == (150, 3)
    both = (predicted["kind"] == targets["kind"]) & (predicted["large"] == targets["large"])
    assert model.score(X, targets) == pytest.approx(both.mean())


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_numbers_come_back_in_the_precision_of_the_target(diabetes: Any, dtype: str) -> None:
    X, y = diabetes[0], diabetes[1].astype(dtype)
    predicted = KerasRegressor(hidden=(), epochs=1).fit(X, y).predict(X)
    assert predicted.dtype == ("float32" if dtype == "float32" else "float64")


def test_scores_and_logarithms_agree_with_the_probabilities(cancer: Any, iris: Any) -> None:
    model = KerasClassifier(hidden=(), epochs=2, random_state=0).fit(*cancer)
    probabilities = model.predict_proba(cancer[0])
    assert_allclose(probabilities.sum(axis=1), 1)
    assert_array_equal(model.decision_function(cancer[0]) > 0, model.predict(cancer[0]) == 1)
    assert_allclose(np.exp(model.predict_log_proba(cancer[0])), probabilities)
    sure = 1 / (1 + np.exp(-model.decision_function(cancer[0])))
    assert_allclose(sure, probabilities[:, 1], atol=1e-6)
    three = KerasClassifier(hidden=(), epochs=2, random_state=0).fit(*iris)
    assert three.decision_function(iris[0]).shape == (150, 3)
    assert_array_equal(three.decision_function(iris[0]).argmax(axis=1), three.predict(iris[0]))


@pytest.mark.parametrize("saturated", [0.0, 1.0])
def test_scores_of_sure_predictions_are_finite(cancer: Any, saturated: float) -> None:
    X, y = cancer
    model = KerasClassifier(hidden=(), epochs=1).fit(X, y)
    kernel, bias = model.model_.get_weights()
    model.model_.set_weights([kernel * 0, bias * 0 + (500.0 if saturated else -500.0)])
    assert_array_equal(model.predict_proba(X)[:, 1], saturated)
    assert np.all(np.isfinite(model.decision_function(X)))


# -- ends that do not fit ---------------------------------------------------------------------------------------------


def ending(units: int, activation: str | None, loss: Any) -> keras.Model:
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    network.compile("sgd", loss)
    return network


@pytest.mark.parametrize(
    ("end", "classes", "message"),
    [
        ((1, "sigmoid", "binary_crossentropy"), 3, "ends in 1 unit, but `y` is a multiclass target with 3 classes"),
        (
            (2, "softmax", "sparse_categorical_crossentropy"),
            3,
            "ends in 2 units.*needs 3.*Dense.3, activation='softmax'",
        ),
        ((1, "softmax", "binary_crossentropy"), 2, "one unit with a softmax, which is 1.0 for every row"),
        (
            (1, None, "binary_crossentropy"),
            2,
            "no activation, but the loss 'binary_crossentropy' expects probabilities",
        ),
        ((3, None, "sparse_categorical_crossentropy"), 3, "no activation.*activation='softmax'.*from_logits=True"),
        ((1, "sigmoid", keras.losses.BinaryCrossentropy(from_logits=True)), 2, "already applies a sigmoid"),
        ((3, "softmax", "binary_crossentropy"), 3, "treats the 3 units of the last layer as 3 separate questions"),
        ((1, "sigmoid", "sparse_categorical_crossentropy"), 2, "needs one softmax unit a class"),
    ],
    ids=lambda value: "-".join(str(part) for part in value)[:40] if isinstance(value, tuple) else None,
)
def test_an_end_that_cannot_learn_the_classes_is_refused(iris: Any, end: Any, classes: int, message: str) -> None:
    X, y = iris[0][: 50 * classes], iris[1][: 50 * classes]
    with pytest.raises(ModelMismatchError, match=message):
        KerasClassifier(ending(*end)).fit(X, y)


@pytest.mark.parametrize(
    ("end", "columns", "message"),
    [
        ((3, None, "mse"), 1, "ends in 3 units, but `y` has 1 target. End the model with Dense.1."),
        ((1, None, "mse"), 2, "ends in 1 unit, but `y` has 2 targets. End the model with Dense.2."),
        ((1, "softmax", "mse"), 1, "one unit with a softmax"),
    ],
    ids=["too many", "too few", "softmax"],
)
def test_an_end_that_cannot_learn_the_numbers_is_refused(iris: Any, end: Any, columns: int, message: str) -> None:
    X = iris[0]
    y = X[:, 0] if columns == 1 else X[:, :columns]
    with pytest.raises(ModelMismatchError, match=message):
        KerasRegressor(ending(*end)).fit(X, y)


def test_ends_that_fit_in_another_way_are_taken(iris: Any) -> None:
    X, y = iris[0][:100], iris[1][:100]
    for end in (
        (2, "softmax", "categorical_crossentropy"),
        (2, None, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (1, None, keras.losses.BinaryCrossentropy(from_logits=True)),
    ):
        model = KerasClassifier(ending(*end), optimizer="sgd", optimizer__learning_rate=0.5, epochs=10).fit(X, y)
        assert model.score(X, y) > 0.9
        assert model.predict_proba(X).shape == (100, 2)
        assert_array_equal(model.decision_function(X) > 0, model.predict(X) == 1)


# -- what cannot be learned from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [KerasClassifier, KerasRegressor])
def test_nan_and_infinity_are_refused_when_fitting_and_predicting(iris: Any, kind: Any, value: float) -> None:
    X, y = iris[0].copy(), iris[1]
    model = kind(hidden=(), epochs=1).fit(X, y)
    X[7, 2] = value
    with pytest.raises(ValueError, match="Input X contains (NaN|infinity)"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="Input X contains (NaN|infinity)"):
        model.predict(X)
    with pytest.raises(ValueError, match="contains (NaN|infinity)"):
        model.fit({"rows": X}, y)
    if kind is KerasRegressor:
        with pytest.raises(ValueError, match="Input y contains (NaN|infinity)"):
            model.fit(iris[0], np.where(np.arange(150) == 3, value, 1.0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        (np.zeros(150, int), "holds only one class, 0, in 150 rows"),
        (np.linspace(0, 1, 150), "continuous.*KerasRegressor"),
        (np.zeros(149, int), "inconsistent numbers of samples"),
        (np.array(["a", None, "b"] * 50, dtype=object), "missing values"),
    ],
    ids=["none", "one class", "continuous", "too few", "missing"],
)
def test_targets_that_cannot_be_learned_are_refused(iris: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasClassifier(epochs=1).fit(iris[0], y)


def test_an_unfitted_estimator_says_so(iris: Any) -> None:
    for method in ("predict", "predict_proba", "decision_function", "predict_log_proba"):
        with pytest.raises(NotFittedError):
            getattr(KerasClassifier(), method)(iris[0])
    with pytest.raises(NotFittedError):
        KerasRegressor().predict(iris[0])
    with pytest.raises(NotFittedError):
        KerasClassifier().score(*iris)


# -- interrupted and failing fits -------------------------------------------------------------------------------------


class Raise(keras.callbacks.Callback):
    """Raises at the end of an epoch."""

    def __init__(self, error: BaseException, epoch: int = 1) -> None:
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("reason", ["training", "data", "model", "parameter"])
def test_a_failing_fit_leaves_the_earlier_one_usable(iris: Any, reason: str) -> None:
    X, y = iris
    model = KerasClassifier(hidden=(3,), epochs=2, random_state=0).fit(X, NAMES[y])
    before, state = model.predict_proba(X), {name for name in vars(model) if name.endswith("_")}
    failing: dict[str, Any] = {"X": X[:, :3], "y": y}
    if reason == "training":
        failing["callbacks"] = [Raise(RuntimeError("broken on purpose"))]
    elif reason == "data":
        failing["y"] = np.zeros(150, int)
    elif reason == "model":
        model.set_params(hidden=(0,))
    else:
        model.set_params(optimizer="adm")
    with pytest.raises((RuntimeError, ValueError)):
        model.fit(**failing)
    assert_array_equal(model.predict_proba(X), before)
    assert_array_equal(model.classes_, NAMES)
    assert (model.n_iter_, model.n_features_in_, len(model.history_["loss"])) == (2, 4, 2)
    assert {name for name in vars(model) if name.endswith("_")} == state


def test_a_failing_first_fit_leaves_the_estimator_unfitted(iris: Any) -> None:
    model = KerasClassifier(hidden=(3,), epochs=2)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        model.fit(*iris, callbacks=[Raise(RuntimeError("broken on purpose"), epoch=0)])
    with pytest.raises(NotFittedError):
        model.predict(iris[0])
    assert not hasattr(model, "n_features_in_")


def test_an_interrupted_fit_keeps_what_was_trained(iris: Any) -> None:
    X, y = iris
    model = KerasClassifier(epochs=9, warm_start=True, **WHOLE)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, callbacks=[Raise(KeyboardInterrupt())])
    assert model.n_iter_ in (1, 2)  # the second epoch ended, but Keras may not have noted it
    assert int(model.model_.optimizer.iterations) == 2
    assert len(model.history_["loss"]) == model.n_iter_
    assert model.predict(X).shape == (150,)
    two = KerasClassifier(epochs=2, **WHOLE).fit(X, y)
    assert_allclose(weights_of(model), weights_of(two), atol=1e-6)
    trained = model.n_iter_
    model.set_params(epochs=1).fit(X, y)
    assert model.n_iter_ == trained + 1
    assert int(model.model_.optimizer.iterations) == 3


# -- copies and files -------------------------------------------------------------------------------------------------


def by_joblib(estimator: Any, folder: Any) -> Any:
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib")


@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy"])
@pytest.mark.parametrize("model", [None, recorder, "compiled"], ids=["mlp", "function", "model"])
def test_a_copied_estimator_predicts_the_same_and_goes_on_training_the_same(
    iris: Any, tmp_path: Any, way: str, model: Any
) -> None:
    X, y = iris
    if model == "compiled":
        model = ending(3, "softmax", "sparse_categorical_crossentropy")
    parameters = {**WHOLE, "optimizer": "adam"}  # an optimizer with a memory
    estimator = KerasClassifier(
        model, epochs=2, callbacks=EarlyStopping(monitor="loss"), warm_start=True, **parameters
    ).fit(pd.DataFrame(X, columns=list("abcd")), NAMES[y])  # fmt: skip
    copied = {
        "pickle": lambda: pickle.loads(pickle.dumps(estimator)),
        "joblib": lambda: by_joblib(estimator, tmp_path),
        "deepcopy": lambda: copy.deepcopy(estimator),
    }[way]()
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert_array_equal(copied.predict_proba(frame), estimator.predict_proba(frame))
    assert_array_equal(copied.predict(frame), estimator.predict(frame))
    assert copied.history_ == estimator.history_
    assert_array_equal(copied.feature_names_in_, list("abcd"))
    assert copied.get_params().keys() == estimator.get_params().keys()
    estimator.fit(frame, NAMES[y])
    assert copied.n_iter_ == 2  # a copy of its own
    copied.fit(frame, NAMES[y])
    assert copied.n_iter_ == estimator.n_iter_ == 4
    assert_allclose(weights_of(copied), weights_of(estimator), atol=1e-6)
    clone(copied)


def test_an_unfitted_estimator_is_pickled_with_all_its_parameters() -> None:
    model = KerasRegressor(recorder, width=3, optimizer__learning_rate=0.5)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()


# -- one row ----------------------------------------------------------------------------------------------------------


def test_one_row_is_predicted_in_the_shape_of_many(iris: Any, cancer: Any, diabetes: Any) -> None:
    for X, y in (iris, cancer):
        model = KerasClassifier(hidden=(3,), epochs=1).fit(X, y)
        assert model.predict(X[:1]).shape == (1,)
        assert model.predict_proba(X[:1]).shape == (1, len(np.unique(y)))
        assert model.predict_log_proba(X[:1]).shape == (1, len(np.unique(y)))
        assert_allclose(model.predict_proba(X[:1])[0], model.predict_proba(X)[0], atol=1e-6)
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            model.predict(X[0])
    regressor = KerasRegressor(hidden=(3,), epochs=1).fit(*diabetes)
    assert regressor.predict(diabetes[0][:1]).shape == (1,)
    X, y = load_linnerud(return_X_y=True)
    assert KerasRegressor(hidden=(3,), epochs=1).fit(X, y).predict(X[:1]).shape == (1, 3)
    assert KerasClassifier(hidden=(3,), epochs=1).fit(iris[0], np.eye(3)[iris[1]]).predict(iris[0][:1]).shape == (1, 3)


def test_fitting_again_makes_no_model_of_the_fit_before(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = iris
    estimator = KerasClassifier(hidden=(4,), epochs=1, random_state=0)
    for _ in range(3):  # to learn how the starting weights are drawn
        estimator.fit(X, y)
    made: list[Any] = []
    begin = keras.Model.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        begin(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "__init__", counted)
    first = estimator.fit(X, y).predict_proba(X)
    assert not made
    assert_allclose(estimator.model_.predict(X, verbose=0), first, atol=1e-6)
    assert made


def test_numbers_whose_sum_is_not_finite_are_taken_and_what_is_not_finite_is_refused(iris: Any) -> None:
    X, y = iris
    large = X.astype("float32").copy()
    large[:, 0] = np.finfo("float32").max / 4
    with pytest.warns(KerasToolkitWarning, match="The network diverged"):  # as it does on numbers of that size
        KerasClassifier(epochs=1).fit(large, y)
    with np.errstate(over="ignore"):
        assert not np.isfinite(large.sum())
    for bad in (np.nan, np.inf, -np.inf):
        wrong = X.copy()
        wrong[3, 1] = bad
        with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
            KerasClassifier(epochs=1).fit(wrong, y)
        with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
            KerasRegressor(epochs=1).fit(X, wrong[:, 1])
