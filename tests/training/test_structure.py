"""What looks alike and is not: fits of such models must not share a program, and a build must not be foretold wrongly.

Each case was once trained wrongly in silence. The reference is `Model.fit` on the same starting weights and rows.
"""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from kerastoolkit import KerasRegressor, fused
from kerastoolkit.estimators._objects import make_optimizer, optimizer_to_look_at
from kerastoolkit.search import GridSearchCV
from kerastoolkit.training import Fit, fit_many
from kerastoolkit.training._structure import UnknownError, compile_key, fingerprint, structure_of
from kerastoolkit.training._unsupported import unsupported

layers = keras.layers
DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(64, 4)).astype("float32")
Y = (X[:, :1] * 2 + np.tanh(X[:, 1:2])).astype("float32")


def stack(*middle: Any, **compiled: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), *middle, layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


def relu(x: Any) -> Any:
    """Not Keras' own."""
    return keras.ops.maximum(x, 0) * 0.1


def with_weight(what: str) -> keras.Model:
    model = stack(layers.Dense(5))
    kernel = model.layers[0].kernel
    if what == "penalty":
        kernel.regularizer = keras.regularizers.L2(1.0)
    if what == "constraint":
        kernel.constraint = keras.constraints.MaxNorm(0.1)
    return model


def with_exclusion(excluded: bool) -> keras.Model:
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=5.0)
    if excluded:
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return stack(layers.Dense(5), optimizer=optimizer)


class Impatient(keras.optimizers.SGD):
    """An optimizer whose config leaves an argument out."""

    def __init__(self, learning_rate: Any = 0.01, factor: float = 1.0, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.factor = factor

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, gradient * keras.ops.cast(learning_rate, variable.dtype) * self.factor)


def adapted(scale: float) -> keras.Model:
    normalization = layers.Normalization()
    normalization.adapt(X * scale)
    return stack(normalization, layers.Dense(5))


PAIRS: dict[str, tuple[Callable[[], keras.Model], ...]] = {
    "a loss whose config leaves an argument out": (
        lambda: stack(layers.Dense(5), loss=keras.losses.Huber(delta=0.01)),
        lambda: stack(layers.Dense(5), loss=keras.losses.Huber(delta=10.0)),
    ),
    "a metric whose config leaves an argument out": (
        lambda: stack(layers.Dense(5), metrics=[keras.metrics.CosineSimilarity(axis=-1, name="c")]),
        lambda: stack(layers.Dense(5), metrics=[keras.metrics.CosineSimilarity(axis=0, name="c")]),
    ),
    "a layer named like its activation": (
        lambda: stack(layers.Dense(5), layers.Activation("tanh", name="tanh")),
        lambda: stack(layers.Dense(5), layers.Activation("relu", name="relu")),
    ),
    "a function named like an activation": (
        lambda: stack(layers.Dense(5, activation="relu")),
        lambda: stack(layers.Dense(5, activation=relu)),
    ),
    "penalties and constraints set on weights": (
        lambda: with_weight(""),
        lambda: with_weight("penalty"),
        lambda: with_weight("constraint"),
    ),
    "weights left out of weight decay": (lambda: with_exclusion(False), lambda: with_exclusion(True)),
    "an optimizer of the user's": (
        lambda: stack(layers.Dense(5), optimizer=Impatient(0.001, factor=1.0)),
        lambda: stack(layers.Dense(5), optimizer=Impatient(0.001, factor=10.0)),
    ),
    "normalization learned from data": (lambda: adapted(1.0), lambda: adapted(100.0)),
    "dropouts of several kinds": (
        lambda: stack(layers.Dense(5), layers.AlphaDropout(0.01), layers.Dropout(0.1)),
        lambda: stack(layers.Dense(5), layers.AlphaDropout(0.9), layers.Dropout(0.1)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_models_that_look_alike_are_trained_as_themselves(name: str) -> None:
    def fits(by_keras: bool) -> list[Fit]:
        looks = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)
        made = []
        for make in PAIRS[name]:
            random.seed(1)
            made.append(Fit(make(), X, Y, epochs=2, seed=0, callbacks=[looks] if by_keras else []))
        return made

    if keras.config.backend() == "torch" and "dropout" in name:
        pytest.skip("torch draws dropout from the process' generator")
    ours, theirs = fit_many(fits(False)), fit_many(fits(True))
    for one, other in zip(ours, theirs, strict=True):
        if one.error is not None or other.error is not None:
            raise one.error or other.error  # type: ignore[misc]
        assert_allclose(one.history["loss"], other.history["loss"], rtol=1e-4)
        assert_allclose(one.model.predict(X, verbose=0), other.model.predict(X, verbose=0), rtol=1e-3, atol=1e-4)
        for metric, values in other.history.items():
            assert_allclose(one.history[metric], values, rtol=1e-3, atol=1e-5)
    assert len({tuple(one.history["loss"]) for one in theirs}) > 1 or "metric" in name  # the models do differ


ALIKE: dict[str, Callable[[Any], Any]] = {
    "both ways": lambda x: layers.Bidirectional(layers.GRU(2))(x),
    "a mask": lambda x: layers.GRU(2)(layers.Masking()(x)),
    "numbers of a normalization": lambda x: layers.Flatten()(layers.Normalization(mean=0.5, variance=2.0)(x)),
}


@pytest.mark.parametrize("name", ALIKE)
def test_models_made_twice_are_of_one_structure(name: str) -> None:
    def make() -> keras.Model:
        inputs = keras.Input((4, 2))
        model = keras.Model(inputs, layers.Dense(1)(ALIKE[name](inputs)))
        model.compile("sgd", "mse")
        return model

    one, other = structure_of(make()), structure_of(make())
    assert one.kind == "config"
    assert one.key == other.key


def test_inputs_that_are_named_the_other_way_round() -> None:
    left, right = (DRAWN.normal(size=(64, 4)).astype("float32") for _ in "ab")

    def make(dense: str) -> keras.Model:
        inputs = {name: keras.Input((4,), name=name) for name in "ab"}
        other = inputs["b" if dense == "a" else "a"]
        joined = layers.Concatenate()([layers.Dense(4, activation="tanh")(inputs[dense]), other])
        model = keras.Model([inputs[dense], other], layers.Dense(1)(joined))
        model.compile("sgd", "mse")
        return model

    losses = []
    for dense in "ab":
        random.seed(1)
        losses.append(fit_many([Fit(make(dense), {"a": left, "b": right}, Y, epochs=2, seed=0)])[0].history["loss"])
    assert losses[0] != losses[1]


# -- build functions ------------------------------------------------------------------------------------------------

FACTOR = 1.0
SMALL: dict[str, Any] = {"loss": "mse", "optimizer": "sgd", "epochs": 2, "random_state": 0}


def by_global(input_shape: Any) -> keras.Model:
    return keras.Sequential(
        [keras.Input(input_shape), layers.Dense(5, activation=lambda x: x * FACTOR), layers.Dense(1)]
    )


def by_attribute(input_shape: Any) -> keras.Model:
    activation = by_attribute.activation  # type: ignore[attr-defined]
    return keras.Sequential([keras.Input(input_shape), layers.Dense(5, activation=activation), layers.Dense(1)])


def by_argument(input_shape: Any, activation: str = "relu", units: int = 5, rate: float = 0.0) -> keras.Model:
    middle = [layers.Dense(units, activation=activation), layers.Dropout(rate)]
    return keras.Sequential([keras.Input(input_shape), *middle, layers.Dense(1)])


def by_initializer(input_shape: Any, initializer: Any = None) -> keras.Model:
    return keras.Sequential(
        [keras.Input(input_shape), layers.Dense(4, kernel_initializer=initializer), layers.Dense(1)]
    )


def test_a_global_that_an_activation_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for factor in (1.0, 1.0, 0.1):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        model = KerasRegressor(by_global, **SMALL).fit(X, Y[:, 0])
        assert_allclose(model.predict(X), model.model_.predict(X, verbose=0)[:, 0], rtol=1e-4, atol=1e-5)
        losses.append(model.history_["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_an_attribute_of_the_build_function() -> None:
    losses = []
    for by_attribute.activation in ("relu", "relu", "exponential"):  # type: ignore[attr-defined]
        losses.append(KerasRegressor(by_attribute, **SMALL).fit(X, Y[:, 0]).history_["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_an_initializer_whose_config_leaves_an_argument_out() -> None:
    kernels = []
    for gain in (1.0, 1.0, 5.0):
        initializer = keras.initializers.Identity(gain)
        model = KerasRegressor(by_initializer, initializer=initializer, **{**SMALL, "optimizer__learning_rate": 1e-12})
        kernels.append(model.fit(X, Y[:, 0]).model_.layers[0].kernel.numpy()[0, 0])
    assert_allclose(kernels, [1.0, 1.0, 5.0], rtol=1e-4)


def test_a_search_over_an_argument_that_the_config_of_a_loss_leaves_out() -> None:
    model = KerasRegressor(hidden=(5,), **{**SMALL, "loss": keras.losses.Huber})
    losses = [keras.losses.Huber(delta) for delta in (0.01, 10.0)]
    scores = [
        GridSearchCV(model, grid, cv=2, refit=False).fit(X, Y[:, 0]).cv_results_["mean_test_score"].tolist()
        for grid in ({"loss__delta": [0.01, 10.0]}, {"loss": losses})
    ]
    assert_allclose(*scores, rtol=1e-5)
    assert scores[0][0] != scores[0][1]


# -- the model behind an estimator ----------------------------------------------------------------------------------


def test_parameters_set_after_the_fit_do_not_change_the_fitted_model() -> None:
    model = KerasRegressor(by_argument, **SMALL).fit(X, Y[:, 0])
    before = model.predict(X)
    model.set_params(activation="exponential", units=3)
    assert_allclose(model.predict(X), before)
    assert_allclose(pickle.loads(pickle.dumps(model)).predict(X), before, rtol=1e-5)
    assert_allclose(model.model_.predict(X, verbose=0)[:, 0], before, rtol=1e-5, atol=1e-6)


def test_what_is_changed_in_the_model_is_what_predicts() -> None:
    model = KerasRegressor(by_argument, units=4, **SMALL).fit(X, Y[:, 0])
    before = model.predict(X)
    model.model_.layers[0].trainable = False
    assert_allclose(model.predict(X), before, rtol=1e-5)
    model.model_.layers[0].activation = keras.activations.exponential
    assert_allclose(model.predict(X), model.model_.predict(X, verbose=0)[:, 0], rtol=1e-4)
    assert not np.allclose(model.predict(X), before)


def test_a_layer_that_draws_when_it_predicts_goes_on_drawing() -> None:
    class Always(layers.Dropout):
        def call(self, inputs: Any, training: Any = None) -> Any:
            return super().call(inputs, training=True)

    model = KerasRegressor(lambda input_shape: stack(Always(0.5)), epochs=1, random_state=0).fit(X, Y[:, 0])
    assert np.std([model.predict(X) for _ in range(4)], axis=0).max() > 0


def test_a_fit_that_fails_leaves_a_warm_started_model_as_it_was() -> None:
    class Raises(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise ZeroDivisionError

    model = KerasRegressor(by_argument, warm_start=True, **SMALL).fit(X, Y[:, 0])
    before = model.predict(X)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y[:, 0], callbacks=[Raises()])
    assert_allclose(model.predict(X), before, rtol=1e-6)


def test_a_callback_that_fits_share_holds_the_state_of_one_at_a_time() -> None:
    from sklearn.model_selection import cross_validate

    def epochs_trained() -> list[int]:
        stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=1.5)
        model = KerasRegressor(by_argument, **{**SMALL, "epochs": 8, "optimizer__learning_rate": 0.02})
        wide, target = np.concatenate([X, X * 3]), np.concatenate([Y, Y * 7])[:, 0]
        found = cross_validate(model, wide, target, cv=4, params={"callbacks": [stop]}, return_estimator=True)
        return [one.n_iter_ for one in found["estimator"]]

    alone = epochs_trained()
    with fused():
        assert epochs_trained() == alone


def test_settings_of_keras_hold_in_a_search() -> None:
    from sklearn.model_selection import cross_validate

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with fused():
            found = cross_validate(KerasRegressor(by_argument, **SMALL), X, Y[:, 0], cv=2, return_estimator=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {one.model_.layers[0].compute_dtype for one in found["estimator"]} == {"bfloat16"}


def test_a_fitted_search_is_pickled() -> None:
    search = GridSearchCV(KerasRegressor(hidden=(3,), epochs=1, random_state=0), {"epochs": [1, 2]}, cv=2)
    search.fit(X, Y[:, 0])
    assert_allclose(pickle.loads(pickle.dumps(search)).predict(X), search.predict(X), rtol=1e-5)


@pytest.mark.parametrize("activation", [functools.partial(keras.activations.leaky_relu, negative_slope=0.3), "relu"])
def test_what_keras_cannot_put_into_a_config_is_trained_all_the_same(activation: Any) -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
    for rate in (schedule, 0.01):
        model = stack(layers.Dense(5, activation=activation), optimizer=keras.optimizers.SGD(rate))
        trained = fit_many([Fit(model, X, Y, epochs=1, seed=0)])[0]
        assert trained.error is None


# -- layers of the user's in a build function ------------------------------------------------------------------------


class Scale(layers.Layer):
    """A layer of the user's: a weight, a number, a property, a method of the class and a parent's."""

    exponent = 1.0

    def __init__(self, factor: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
        super().build(input_shape)

    @property
    def doubled(self) -> float:
        return 2 * self.factor

    @staticmethod
    def power(x: Any, exponent: float) -> Any:
        return x * keras.ops.abs(x) ** (exponent - 1.0)

    def call(self, inputs: Any) -> Any:
        return self.power(inputs * self.scale * self.doubled, self.exponent)


class Draws(Scale):
    """One that draws its number as Keras draws weights."""

    def __init__(self, **options: Any) -> None:
        super().__init__(factor=float(keras.initializers.RandomUniform(0.5, 1.5)(())), **options)


class DrawsFromNumpy(Scale):
    def __init__(self, **options: Any) -> None:
        super().__init__(factor=float(np.random.uniform(0.5, 1.5)), **options)


def with_layer(input_shape: Any, kind: Any = Scale, **options: Any) -> keras.Model:
    return keras.Sequential([keras.Input(input_shape), layers.Dense(5, "tanh"), kind(**options), layers.Dense(1)])


RATES = {"optimizer__learning_rate": [0.003, 0.01, 0.03]}


def trained_with(grid: Any = RATES, **parameters: Any) -> tuple[Any, Any]:
    """Scores of a search, and how many of its fits were trained together with each."""
    search = GridSearchCV(KerasRegressor(with_layer, **{**SMALL, **parameters}), grid, cv=2, refit=False)
    search.fit(X, Y[:, 0])
    return search.cv_results_["mean_test_score"], [one.n_together for one in search.report_.trained]


def one_by_one(grid: Any = RATES, **parameters: Any) -> Any:
    from sklearn.model_selection import GridSearchCV as OfScikitLearn

    looks = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)  # left to Model.fit
    model = KerasRegressor(with_layer, callbacks=[looks], **{**SMALL, **parameters})
    return OfScikitLearn(model, grid, cv=2, refit=False).fit(X, Y[:, 0]).cv_results_["mean_test_score"]


def test_a_layer_of_the_users_is_trained_with_others() -> None:
    scores, together = trained_with()
    assert together == [6] * 6
    assert_allclose(scores, one_by_one(), rtol=1e-4)


@pytest.mark.parametrize("kind", [Draws, DrawsFromNumpy])
def test_layers_that_draw_their_numbers_are_trained_as_themselves(kind: Any) -> None:
    grid = {"random_state": [0, 1, 2]}
    scores, together = trained_with(grid, kind=kind)
    assert together == [1] * 6
    assert_allclose(scores, one_by_one(grid, kind=kind), rtol=1e-4)


class Mixes(layers.Layer):
    """One that keeps no initializer of the weights that it draws."""

    def build(self, input_shape: Any) -> None:
        self.mixing = self.add_weight(shape=(input_shape[-1], 3), initializer="random_normal", name="mixing")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return keras.ops.matmul(inputs, self.mixing)


def test_weights_of_which_it_is_not_known_how_they_are_drawn() -> None:
    grid = {"random_state": [0, 1, 2]}  # two folds with the same draws tell nothing of others
    scores, together = trained_with(grid, kind=Mixes)
    assert together == [6] * 6
    assert_allclose(scores, one_by_one(grid, kind=Mixes), rtol=1e-4)
    assert len(set(scores)) == 3


def test_a_change_of_a_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    slowly = {"optimizer__learning_rate": [0.0003, 0.001, 0.003]}  # squares of large numbers diverge
    before, _ = trained_with(slowly)
    monkeypatch.setattr(Scale, "exponent", 2.0)
    changed, together = trained_with(slowly)
    assert together == [6] * 6
    assert_allclose(changed, one_by_one(slowly), rtol=1e-4)
    assert not np.allclose(before, changed)
    monkeypatch.setattr(Scale, "power", staticmethod(lambda x, exponent: x))
    changed_again, _ = trained_with(slowly)
    assert_allclose(changed_again, one_by_one(slowly), rtol=1e-4)
    assert not np.allclose(changed, changed_again)


class Meta(type):
    pass


class OfMeta(metaclass=Meta):
    pass


class WithList:
    values = [1, 2]


class ReadsAFile:
    def call(self, inputs: Any) -> Any:
        return open("factor").read()


class Refers:
    """A class whose method and default refer to itself and to a function that refers to it."""

    def again(self, kind: Any = None) -> Any:
        return refers(Refers)


def refers(kind: Any = Refers) -> Any:
    return Refers().again(kind)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(OfMeta, "has a metaclass, Meta"), (WithList, "'values', which it may change"), (ReadsAFile, "reads 'open'")],
)
def test_classes_that_nobody_can_see_through_are_refused(kind: type, reason: str) -> None:
    with pytest.raises(UnknownError, match=reason):
        fingerprint(kind)


def test_keys_of_classes() -> None:
    assert fingerprint(Scale) == fingerprint(Scale)
    assert fingerprint(Scale) != fingerprint(Draws)
    assert fingerprint(layers.Dense) is layers.Dense
    assert fingerprint(refers) == fingerprint(refers)
    assert hash(fingerprint(Refers)) == hash(fingerprint(Refers))


# -- optimizers that are only looked at -----------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "name": ("adam", {"learning_rate": 0.02}),
    "class": (keras.optimizers.SGD, {"learning_rate": 0.3, "momentum": 0.5, "nesterov": True}),
    "weight decay": ("adamw", {"learning_rate": 1e-3, "weight_decay": 0.05, "beta_1": 0.8}),
    "weight decay where it is off": ("rmsprop", {"weight_decay": 0.05, "rho": 0.8}),
    "no weight decay": ("adamw", {"weight_decay": 0.0}),
    "whole numbers": ("adam", {"weight_decay": 1, "clipnorm": 1}),
    "nothing": ("adagrad", {}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_to_look_at_is_like_one_that_is_made(name: str) -> None:
    spec, options = OPTIMIZERS[name]
    real, like = make_optimizer(spec, options), optimizer_to_look_at(spec, options)
    assert compile_key({"optimizer": like}) == compile_key({"optimizer": real})
    for number, value in real.get_config().items():
        if isinstance(value, float):
            assert float(keras.ops.convert_to_numpy(getattr(like, number))) == pytest.approx(value, rel=1e-7)


def test_optimizers_of_other_kinds_do_not_look_alike() -> None:
    looked_at = [
        optimizer_to_look_at(spec, options) for spec, options in [*OPTIMIZERS.values(), ("sgd", {"momentum": 0.0})]
    ]
    keys = [compile_key({"optimizer": optimizer}) for optimizer in looked_at]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])


def test_candidates_that_differ_in_rate_share_what_is_looked_at() -> None:
    one, other = (optimizer_to_look_at("adam", {"learning_rate": rate, "beta_1": 0.8}) for rate in (0.1, 0.2))
    assert one.known is other.known
    assert (one.learning_rate, other.learning_rate) == (0.1, 0.2)
    assert optimizer_to_look_at("adam", {"learning_rate": 0.1, "beta_1": 0.7}).known is not one.known


@pytest.mark.backend("tensorflow", "torch")  # JAX has no double precision unless it is asked for
def test_the_precision_of_an_optimizer_to_look_at_is_that_of_now() -> None:
    one = optimizer_to_look_at("adam", {"learning_rate": 0.1})
    try:
        keras.config.set_floatx("float64")
        other = optimizer_to_look_at("adam", {"learning_rate": 0.1})
        assert other.known is not one.known
    finally:
        keras.config.set_floatx("float32")


def test_to_look_whether_keras_is_known_draws_nothing_from_the_users_generators() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    before = random.getstate(), np.random.get_state()[1].tobytes()
    unsupported(model)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before
