"""What `fit` says of a network that diverged, when a network counts as one, and what it takes to mend it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_predict, cross_val_score, learning_curve
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor
from kerastoolkit.exceptions import DivergedError, KerasToolkitWarning

Data = tuple[Any, Any]
HUGE: dict[str, Any] = {"optimizer__learning_rate": 1e30, "epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def iris() -> Data:
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X).astype("float32"), y


def _network(*hidden: layers.Layer) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        return keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3, "softmax")])

    return build


def _late(epoch: int, rate: float) -> float:
    """A rate that is fine for two epochs."""
    return 0.01 if epoch < 2 else 1e30


# -- what counts ----------------------------------------------------------------------------------------------------


def test_a_sound_fit_warns_of_nothing(iris: Data) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasToolkitWarning)
        KerasClassifier(epochs=2, validation_split=0.2, normalization="batch", random_state=0).fit(*iris).score(*iris)


@pytest.mark.backend("tensorflow", "jax")  # torch gets a variance of NaN
def test_an_infinite_variance_counts_though_loss_and_output_are_finite(iris: Data) -> None:
    X, y = iris
    large = layers.Dense(8, kernel_initializer=keras.initializers.Constant(1e25), trainable=False)
    estimator = KerasClassifier(_network(large, layers.BatchNormalization()), epochs=2, random_state=0)
    with pytest.warns(KerasToolkitWarning, match="diverged: 1 of its 8 arrays of weights contain NaN or infinity"):
        estimator.fit(X, y)
    assert np.isfinite(estimator.history_["loss"]).all() and np.isfinite(estimator.model_.predict(X, verbose=0)).all()
    with pytest.raises(DivergedError):
        estimator.predict(X)
    with pytest.warns(KerasToolkitWarning, match="1 of its 8.* It had already diverged before this call"):
        estimator.partial_fit(X, y)  # to which it is no constant


def test_weights_count_that_a_relu_hides(iris: Data) -> None:
    X, y = iris

    class Forgiving(layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.where(keras.ops.isnan(x), 0.0, x)  # as some kernels of ReLU do

    model = _network(layers.Dense(3), Forgiving())()
    model.layers[0].set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    estimator = KerasClassifier(lambda: model, epochs=1, random_state=0, fit__steps_per_epoch=1)
    with pytest.warns(KerasToolkitWarning, match="1 of its 4 arrays of weights contain NaN"):
        estimator.initialize(X, y)
    assert np.isfinite(estimator.model_.predict(X, verbose=0)).all()
    with pytest.raises(DivergedError):
        estimator.predict_proba(X)


def test_a_loss_that_overflows_counts_though_the_weights_do_not(iris: Data) -> None:
    X, _ = iris

    def build() -> keras.Model:
        far = layers.Dense(1, bias_initializer=keras.initializers.Constant(1e20), trainable=False)
        return keras.Sequential([keras.Input((4,)), layers.Dense(1), far])

    small: dict[str, Any] = {"optimizer": "sgd", "optimizer__learning_rate": 1e-25, "metrics": [], "random_state": 0}
    estimator = KerasRegressor(build, loss="mae", **small).fit(X, X[:, 0])
    assert_allclose(estimator.predict(X), 1e20, rtol=1e-6)  # wrong, but a number
    estimator = KerasRegressor(build, loss="mse", **small)
    with pytest.warns(KerasToolkitWarning, match="its loss has been inf since epoch 1. It has no predictions"):
        estimator.fit(X, X[:, 0])
    with pytest.raises(DivergedError, match="its loss has been inf"):
        estimator.predict(X)


@pytest.mark.parametrize("ready", [False, True])
def test_a_constant_may_be_infinite(iris: Data, ready: bool) -> None:
    X, y = iris

    @keras.saving.register_keras_serializable("test_divergence")
    class NoThirdClass(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.mask = self.add_weight(shape=(3,), trainable=False, initializer="zeros")
            self.mask.assign([0.0, 0.0, -np.inf])

        def call(self, x: Any) -> Any:
            return x + self.mask

    def build() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), NoThirdClass()])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    estimator = KerasClassifier(build() if ready else build, random_state=0)
    for _ in range(2):
        estimator.partial_fit(X[:100], y[:100], classes=[0, 1, 2])
    assert_array_equal(estimator.predict_proba(X)[:, 2], 0.0)
    assert set(estimator.predict(X)) == {0, 1}


def test_a_network_of_half_precision_whose_steps_were_all_left_out_counts(iris: Data) -> None:
    with pytest.warns(KerasToolkitWarning, match="its loss has been nan"):
        estimator = KerasClassifier(precision="mixed_float16", **HUGE).fit(*iris)
    with pytest.raises(DivergedError):
        estimator.predict(iris[0])


# -- callbacks ------------------------------------------------------------------------------------------------------


class _Guard(keras.callbacks.Callback):
    """Goes back to the weights before the epoch whose loss is no number."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.kept = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not np.isfinite(logs["loss"]):
            self.model.set_weights(self.kept)
            self.model.stop_training = True


@pytest.mark.parametrize("guard", ["early stopping", "own"])
def test_weights_that_a_callback_put_back_predict(iris: Data, guard: str) -> None:
    X, y = iris
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    callbacks = [keras.callbacks.LearningRateScheduler(_late), stop if guard == "early stopping" else _Guard()]
    with pytest.warns(KerasToolkitWarning, match="The loss has been nan since epoch 3, but the weights are finite"):
        estimator = KerasClassifier(epochs=8, random_state=0, callbacks=callbacks).fit(X, y)
    two_epochs = KerasClassifier(epochs=2, random_state=0, optimizer__learning_rate=0.01).fit(X, y)
    assert_allclose(estimator.predict_proba(X), two_epochs.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", ["EarlyStopping", "TerminateOnNaN", "ReduceLROnPlateau", "none"])
def test_callbacks_that_put_nothing_back_save_nothing(iris: Data, name: str, capsys: Any) -> None:
    guard: Any = {
        "EarlyStopping": lambda: keras.callbacks.EarlyStopping("loss", patience=1),
        "TerminateOnNaN": keras.callbacks.TerminateOnNaN,
        "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss", patience=1),
    }.get(name)
    callbacks = [keras.callbacks.LearningRateScheduler(_late), *([guard()] if guard else [])]
    with pytest.warns(KerasToolkitWarning, match="The network diverged: its loss has been nan since epoch 3"):
        estimator = KerasClassifier(epochs=5, random_state=0, callbacks=callbacks).fit(*iris)
    with pytest.raises(DivergedError):
        estimator.score(*iris)


# -- rows -----------------------------------------------------------------------------------------------------------


def test_rows_beyond_the_range_of_floats_are_refused_and_the_others_are_not(iris: Data) -> None:
    X, y = iris
    far = X.copy()
    far[3] = [3e38, -3e38, 3e38, 3e38]
    estimator = KerasRegressor(hidden=(64, 64), epochs=30, random_state=0)
    with pytest.warns(KerasToolkitWarning, match="The loss of the validation data has been (nan|inf) since epoch 1: "):
        estimator.fit(X, X[:, 0] * 1e3, validation_data=(far, X[:, 0] * 1e3))
    assert np.isfinite(estimator.predict(X)).all()
    with pytest.raises(DivergedError, match="infinite for 1 of 150 rows, the first of them row 3"):
        estimator.predict(far * 1.1)


def test_half_precision_of_the_target_is_no_excuse_for_infinity(iris: Data) -> None:
    X, _ = iris
    y = (X[:, 0] * 20_000).astype("float16")
    estimator = KerasRegressor(hidden=(), epochs=60, random_state=0, optimizer__learning_rate=0.1).fit(X, y)
    with pytest.raises(DivergedError, match=r"infinite for 1 of 150 rows, the first of them row 7: \[inf\]"):
        estimator.predict(np.where(np.arange(150)[:, None] == 7, 100.0, X))


def test_of_several_targets_the_one_is_named(iris: Data) -> None:
    X, _ = iris
    y = {"length": X[:, 0], "width": X[:, 1]}
    estimator = KerasRegressor("multi_output", epochs=1, random_state=0).fit(X, y)
    last = estimator.model_.get_layer("width")
    last.set_weights([np.full_like(last.get_weights()[0], np.nan), last.get_weights()[1]])
    with pytest.raises(DivergedError, match="Of the target 'width': .* for 150 of 150 rows, the first of them row 0"):
        estimator.predict(X)


def test_an_encoder_of_the_users_gets_no_output_that_is_no_number(iris: Data) -> None:
    class Encoded(KerasRegressor):
        @property
        def target_encoder(self) -> Any:
            return FunctionTransformer()

    X, _ = iris
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    estimator = Encoded(model, loss="mse", metrics=[], epochs=1, random_state=0).fit(X, X[:, 0])
    assert np.isfinite(estimator.predict(X)).all()
    estimator.model_.set_weights([np.full((4, 1), np.inf), np.zeros(1)])
    with pytest.raises(DivergedError, match="NaN or infinite for 150 of 150 rows"):
        estimator.predict(X)


# -- before and after -----------------------------------------------------------------------------------------------


def test_a_warning_that_is_an_error_leaves_the_fitted_estimator(iris: Data) -> None:
    estimator = KerasClassifier(**HUGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasToolkitWarning)
        with pytest.raises(KerasToolkitWarning, match="The network diverged"):
            estimator.fit(*iris)
    assert estimator.n_iter_ == 2
    with pytest.raises(DivergedError):
        estimator.predict(iris[0])


@pytest.mark.parametrize("again", ["partial_fit", "warm_start"])
def test_more_training_does_not_bring_it_back(iris: Data, again: str) -> None:
    with pytest.warns(KerasToolkitWarning, match="The network diverged"):
        estimator = KerasClassifier(warm_start=again == "warm_start", **HUGE).fit(*iris)
    estimator.set_params(optimizer__learning_rate=0.001)
    with pytest.warns(KerasToolkitWarning, match="It had already diverged before this call"):
        (estimator.fit if again == "warm_start" else estimator.partial_fit)(*iris)
    with pytest.raises(DivergedError):
        estimator.predict(iris[0])
    estimator.set_params(warm_start=False).fit(*iris).predict(iris[0])  # which begins anew


def test_weights_of_the_users_bring_it_back(iris: Data) -> None:
    X, y = iris
    with pytest.warns(KerasToolkitWarning, match="The network diverged"):
        estimator = KerasClassifier(**HUGE).fit(X, y)
    sound = KerasClassifier(epochs=2, random_state=0).fit(X, y)
    estimator.model_.set_weights(sound.model_.get_weights())
    assert_array_equal(estimator.predict_proba(X), sound.predict_proba(X))


def test_a_ready_model_of_nan_is_told_of(iris: Data) -> None:
    model = _network()()
    model.layers[-1].set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    with pytest.warns(KerasToolkitWarning, match="its loss has been nan since epoch 1"):
        estimator = KerasClassifier(model, epochs=1).fit(*iris)
    with pytest.raises(DivergedError):
        estimator.predict(iris[0])


@pytest.mark.backend("tensorflow")
def test_a_data_set_diverges_as_arrays_do(iris: Data) -> None:
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(iris).batch(32)
    with pytest.warns(KerasToolkitWarning, match="The network diverged"):
        estimator = KerasClassifier(**HUGE).fit(batches)
    for ask in (estimator.predict, estimator.score):
        with pytest.raises(DivergedError):
            ask(batches)


# -- scikit-learn's tools -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The network diverged", "ignore:Scoring failed")
def test_tools_of_scikit_learn_get_their_error_score(iris: Data) -> None:
    X, y = iris
    estimator = KerasClassifier(**HUGE)
    assert np.isnan(cross_val_score(estimator, X, y, cv=2)).all()
    assert_array_equal(cross_val_score(estimator, X, y, cv=2, error_score=-1.0), [-1.0, -1.0])
    assert np.isnan(learning_curve(estimator, X, y, cv=2, train_sizes=[0.5], shuffle=True)[2]).all()
    with pytest.raises(DivergedError):
        cross_val_score(estimator, X, y, cv=2, error_score="raise")
    with pytest.raises(DivergedError):
        cross_val_predict(estimator, X, y, cv=2)
