"""Every parameter that a search sets arrives in the trained model, and a name that reaches nothing is an error.

A search that trains the same model again and again has scores too. So no test here reads scores: each looks into the
trained models, at their layers, optimizer, steps and weights.
"""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from typing import Any

import keras
import numpy as np
import pytest
from keras.callbacks import EarlyStopping
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import loguniform, randint, uniform
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor
from kerastoolkit.estimators._parameters import build_arguments
from kerastoolkit.exceptions import ParameterError

SPLIT = ShuffleSplit(n_splits=1, test_size=0.2, random_state=0)  # iris: 120 rows to train on


def searched(model: Any, grid: Any, X: Any, y: Any, n_iter: int | None = None) -> list[tuple[dict[str, Any], Any]]:
    """Searches over one split; returns the parameters and the trained estimator of each candidate."""
    trained: list[Any] = []

    def keep(estimator: Any, X: Any, y: Any) -> float:
        trained.append(estimator)
        return 0.0

    options: dict[str, Any] = dict(cv=SPLIT, scoring=keep, refit=False, error_score="raise")
    if n_iter is None:
        search = GridSearchCV(model, grid, **options)
    else:
        search = RandomizedSearchCV(model, grid, n_iter=n_iter, random_state=0, **options)
    search.fit(X, y)
    candidates = list(zip(search.cv_results_["params"], trained, strict=True))
    assert len(candidates) > 1
    return candidates


def widths(estimator: Any) -> list[int]:
    """Units of the hidden layers."""
    return [layer.units for layer in estimator.model_.layers if isinstance(layer, keras.layers.Dense)][:-1]


def rate(estimator: Any) -> float:
    return float(estimator.model_.optimizer.learning_rate)


class Steps(keras.callbacks.Callback):
    """Counts batches and epochs of training, and batches of predicting."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = self.epochs = self.predicted = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.predicted += 1


def towers(width: int = 5, depth: int = 1, activation: str = "relu") -> keras.Model:
    """An uncompiled model of iris."""
    hidden = [keras.layers.Dense(width, activation) for _ in range(depth)]
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(3, "softmax")])


def compiled(width: int = 5) -> keras.Model:
    """A model of iris that is compiled with choices nobody would take by default."""
    model = towers(width)
    optimizer = keras.optimizers.RMSprop(0.02, rho=0.8)
    model.compile(optimizer, "categorical_crossentropy", metrics=["mean_squared_error"])
    return model


def line() -> keras.Model:
    """A linear model of ten features that starts at zero, uncompiled."""
    return keras.Sequential([keras.Input((10,)), keras.layers.Dense(1, kernel_initializer="zeros")])


# -- folds ------------------------------------------------------------------------------------------------------------


def test_three_folds_of_sorted_iris_score_above_nine_tenths() -> None:
    X, y = load_iris(return_X_y=True)
    scores = cross_val_score(KerasClassifier(random_state=0), X, y, cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.9


# -- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hidden", "model__hidden"])
def test_the_hidden_layers_of_the_default_model_are_searched(iris: Any, name: str) -> None:
    for parameters, trained in searched(KerasClassifier(epochs=1), {name: [(), 7, (6, 5)]}, *iris):
        assert widths(trained) == list(np.atleast_1d(parameters[name]))


def test_a_routed_argument_comes_before_the_bare_one_of_the_same_name(iris: Any) -> None:
    model = KerasClassifier(hidden=(9,), model__hidden=(4,), epochs=1).fit(*iris)
    assert widths(model) == [4]


def test_arguments_that_only_the_build_function_declares_are_searched(iris: Any) -> None:
    grid = {"width": np.arange(3, 6, 2), "model__depth": [1, 2], "activation": ["tanh"]}
    for parameters, trained in searched(KerasClassifier(towers, epochs=1), grid, *iris):
        assert widths(trained) == [parameters["width"]] * parameters["model__depth"]
        assert trained.model_.layers[0].activation is keras.activations.tanh
        assert trained.width == parameters["width"]


def test_the_model_itself_is_searched(iris: Any) -> None:
    grid = [{"model": ["mlp"], "hidden": [(2,)]}, {"model": [towers], "width": [3]}, {"model": [towers(4)]}]
    candidates = searched(KerasClassifier(epochs=1), grid, *iris)
    assert [widths(trained) for _, trained in candidates] == [[2], [3], [4]]


def test_a_build_function_with_open_keywords_gets_every_bare_name(iris: Any) -> None:
    seen = []

    def build(**options: Any) -> keras.Model:
        seen.append(options)
        return towers(options["width"])

    for parameters, trained in searched(KerasClassifier(build, epochs=1, colour="red"), {"width": [2, 3]}, *iris):
        assert widths(trained) == [parameters["width"]]
    assert seen == [{"width": 2, "colour": "red"}, {"width": 3, "colour": "red"}]


# -- optimizer, loss, metrics -----------------------------------------------------------------------------------------


def test_the_optimizer_is_searched_as_name_class_and_instance(iris: Any) -> None:
    instance = keras.optimizers.Adagrad(0.25)
    grid = {"optimizer": ["sgd", "RMSprop", keras.optimizers.Nadam, instance]}
    trained = [estimator.model_.optimizer for _, estimator in searched(KerasClassifier(epochs=2), grid, *iris)]
    names = ["SGD", "RMSprop", "Nadam", "Adagrad"]
    assert [type(optimizer).__name__ for optimizer in trained] == names
    assert float(trained[3].learning_rate) == 0.25
    assert [int(optimizer.iterations) for optimizer in trained] == [8, 8, 8, 8]
    assert int(instance.iterations) == 0  # what trained was a copy


@pytest.mark.parametrize(
    "optimizer",
    [None, "sgd", keras.optimizers.SGD, keras.optimizers.SGD(0.3)],
    ids=["default", "name", "class", "instance"],
)
def test_the_learning_rate_is_searched_over_any_optimizer(iris: Any, optimizer: Any) -> None:
    model = KerasClassifier(optimizer=optimizer, epochs=1)
    for parameters, trained in searched(model, {"optimizer__learning_rate": np.array([0.5, 0.125])}, *iris):
        assert type(trained.model_.optimizer).__name__ == ("Adam" if optimizer is None else "SGD")
        assert rate(trained) == parameters["optimizer__learning_rate"]


def test_options_of_an_optimizer_given_as_instance_are_kept_beside_the_searched_one(iris: Any) -> None:
    model = KerasClassifier(optimizer=keras.optimizers.SGD(0.3, momentum=0.75, nesterov=True), epochs=1)
    for parameters, trained in searched(model, {"optimizer__learning_rate": [0.5, 0.125]}, *iris):
        optimizer = trained.model_.optimizer
        assert (rate(trained), optimizer.momentum, optimizer.nesterov) == (
            parameters["optimizer__learning_rate"], 0.75, True,
        )  # fmt: skip


def test_optimizer_and_its_options_are_searched_together(iris: Any) -> None:
    grid = [
        {"optimizer": ["sgd"], "optimizer__momentum": [0.0, 0.5]},
        {"optimizer": ["adam"], "optimizer__beta_1": [0.6], "optimizer__learning_rate": [0.03]},
    ]
    first, second, third = (one.model_.optimizer for _, one in searched(KerasClassifier(epochs=1), grid, *iris))
    assert [type(one).__name__ for one in (first, second, third)] == ["SGD", "SGD", "Adam"]
    assert (first.momentum, second.momentum, third.beta_1) == (0.0, 0.5, 0.6)
    assert_allclose(float(third.learning_rate), 0.03, rtol=1e-6)


def test_one_step_with_the_searched_rate_ends_at_the_weights_of_hand_arithmetic() -> None:
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), y / 100
    train, _ = next(SPLIT.split(X))
    model = KerasRegressor(line, optimizer="sgd", epochs=1, batch_size=-1)
    for parameters, trained in searched(model, {"optimizer__learning_rate": [0.125, 0.01]}, X, y):
        # From zero, one step of gradient descent on the mean squared error goes to 2 / n * rate * X.T @ y.
        step = 2 / len(train) * parameters["optimizer__learning_rate"]
        kernel, bias = trained.model_.get_weights()
        assert_allclose(kernel[:, 0], step * X[train].T @ y[train], rtol=1e-4, atol=1e-6)
        assert_allclose(bias[0], step * y[train].sum(), rtol=1e-4)


def test_a_learning_rate_schedule_is_given_whole_or_as_class_and_options(iris: Any) -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay
    grid = [
        {"optimizer__learning_rate": [schedule(0.5, decay_steps=4, decay_rate=0.5)]},
        {
            "optimizer__learning_rate": [schedule],
            "optimizer__learning_rate__initial_learning_rate": [0.5],
            "optimizer__learning_rate__decay_steps": [4],
            "optimizer__learning_rate__decay_rate": [0.5],
        },
    ]
    for _, trained in searched(KerasClassifier(optimizer="sgd", epochs=2), grid, *iris):
        assert_allclose(rate(trained), 0.5 * 0.5**2, rtol=1e-5)  # 2 epochs of 4 steps


def test_loss_and_its_options_are_searched(iris: Any) -> None:
    X, y = iris
    grid = [
        {"loss": ["categorical_crossentropy"], "loss__label_smoothing": [0.25]},
        {"loss": [keras.losses.CategoricalFocalCrossentropy, "kl_divergence"]},
    ]
    model = KerasClassifier(hidden=(), epochs=1, batch_size=-1, optimizer="sgd", random_state=0)
    smooth, focal, divergence = (one for _, one in searched(model, grid, X, y))
    assert smooth.model_.loss.get_config()["label_smoothing"] == 0.25
    assert isinstance(focal.model_.loss, keras.losses.CategoricalFocalCrossentropy)
    assert divergence.model_.loss == "kl_divergence"
    # The first epoch is one step: its loss is that of the first weights, which are the same for all three.
    assert len({tuple(one.history_["loss"]) for one in (smooth, focal, divergence)}) == 3


def test_from_logits_may_be_routed_to_the_default_loss(iris: Any) -> None:
    def logits() -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    trained = KerasClassifier(logits, loss__from_logits=True, epochs=1, random_state=0).fit(*iris)
    assert trained.model_.loss.get_config()["from_logits"]
    assert_allclose(trained.predict_proba(iris[0]).sum(axis=1), 1)


def test_metrics_and_their_options_are_searched(iris: Any) -> None:
    X, y = iris
    grid = {"metrics": ["accuracy", ["accuracy", keras.metrics.SparseCategoricalCrossentropy]]}
    histories = [set(one.history_) for _, one in searched(KerasClassifier(hidden=(), epochs=1), grid, X, y)]
    assert histories == [{"loss", "accuracy"}, {"loss", "accuracy", "sparse_categorical_crossentropy"}]
    model = KerasClassifier(
        hidden=(), epochs=1, metrics=[keras.metrics.SparseTopKCategoricalAccuracy],
        metrics__sparse_top_k_categorical_accuracy__name="top",
    )  # fmt: skip
    for parameters, trained in searched(model, {"metrics__sparse_top_k_categorical_accuracy__k": [2, 3]}, X, y):
        (top,) = [metric for metric in trained.model_.metrics[1].metrics]
        assert top.get_config()["k"] == parameters["metrics__sparse_top_k_categorical_accuracy__k"]
        assert (trained.history_["top"][0] == 1.0) == (top.get_config()["k"] == 3)


def test_arguments_of_compile_are_searched_bare_and_routed(iris: Any) -> None:
    grid = [{"compile__run_eagerly": [True, False]}, {"run_eagerly": [True]}]
    model = KerasClassifier(hidden=(), epochs=1, batch_size=-1)
    assert [one.model_.run_eagerly for _, one in searched(model, grid, *iris)] == [True, False, True]


# -- training ---------------------------------------------------------------------------------------------------------


def test_epochs_and_batch_size_are_searched(iris: Any) -> None:
    model = KerasClassifier(hidden=(), callbacks=Steps)
    for parameters, trained in searched(model, {"epochs": np.arange(1, 3), "batch_size": [50, -1]}, *iris):
        steps = 3 if parameters["batch_size"] == 50 else 1
        (counted,) = trained.callbacks_
        assert counted.epochs == parameters["epochs"] == trained.n_iter_ == len(trained.history_["loss"])
        assert counted.batches == parameters["epochs"] * steps == int(trained.model_.optimizer.iterations)


@pytest.mark.parametrize("spelling", ["fit__", ""])
def test_other_arguments_of_fit_are_searched(iris: Any, spelling: str) -> None:
    model = KerasClassifier(hidden=(), epochs=2, batch_size=20, callbacks=Steps)
    name = f"{spelling}steps_per_epoch"
    for parameters, trained in searched(model, {name: [1, 3]}, *iris):
        assert trained.callbacks_[0].batches == 2 * parameters[name]


def test_arguments_of_predict_are_routed_and_those_of_a_call_come_first(iris: Any) -> None:
    X, y = iris
    model = KerasClassifier(hidden=(), epochs=1, predict__batch_size=50).fit(X, y)
    counted = Steps()
    model.predict(X, callbacks=[counted])
    assert counted.predicted == 3
    model.predict_proba(X, callbacks=[counted], batch_size=150)
    assert counted.predicted == 4


def test_epochs_routed_to_fit_come_before_the_bare_ones(iris: Any) -> None:
    assert KerasClassifier(hidden=(), epochs=3, fit__epochs=2).fit(*iris).n_iter_ == 2
    assert KerasClassifier(hidden=(), epochs=3, fit__epochs=2).fit(*iris, epochs=1).n_iter_ == 1


# -- callbacks --------------------------------------------------------------------------------------------------------


def never(patience: int = 1) -> EarlyStopping:
    """Stops after one epoch and the patience: no epoch is a million better than the one before."""
    return EarlyStopping(monitor="loss", min_delta=1e6, patience=patience)


@pytest.mark.parametrize(
    ("callbacks", "name"),
    [
        (never(), "early_stopping"),
        (never(), "EarlyStopping"),
        (never(), "0"),
        ([Steps(), never()], "early_stopping"),
        ([Steps, never()], "1"),
        ({"stop": never(), "steps": Steps}, "stop"),
        ({"stop": never(), "steps": Steps}, "early_stopping"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_patience_of_a_callback_is_searched_by_class_place_and_key(iris: Any, callbacks: Any, name: str) -> None:
    model = KerasClassifier(hidden=(), callbacks=callbacks, epochs=6, batch_size=-1)
    for parameters, trained in searched(model, {f"callbacks__{name}__patience": [2, 4]}, *iris):
        assert trained.n_iter_ == 1 + parameters[f"callbacks__{name}__patience"]


def test_two_callbacks_of_a_class_are_told_apart_by_place(iris: Any) -> None:
    model = KerasClassifier(hidden=(), callbacks=[never(9), never(9)], epochs=9, batch_size=-1)
    for parameters, trained in searched(model, {"callbacks__1__patience": [1, 3]}, *iris):
        assert [one.patience for one in trained.callbacks_] == [9, parameters["callbacks__1__patience"]]
        assert trained.n_iter_ == 1 + parameters["callbacks__1__patience"]


def test_a_callback_given_as_class_takes_its_options_from_the_grid(iris: Any) -> None:
    model = KerasClassifier(
        hidden=(), epochs=6, batch_size=-1,
        callbacks={"stop": EarlyStopping}, callbacks__stop__monitor="loss", callbacks__stop__min_delta=1e6,
    )  # fmt: skip
    for parameters, trained in searched(model, {"callbacks__stop__patience": np.arange(1, 4, 2)}, *iris):
        assert trained.n_iter_ == 1 + parameters["callbacks__stop__patience"]


def test_a_callback_with_capitals_in_a_row_is_called_as_keras_spells_it(iris: Any) -> None:
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", min_delta=1e6, patience=1, factor=0.25)
    model = KerasClassifier(hidden=(), callbacks=plateau, optimizer=keras.optimizers.SGD(1.0), epochs=2, batch_size=-1)
    for parameters, trained in searched(model, {"callbacks__reduce_lr_on_plateau__factor": [0.5, 0.125]}, *iris):
        assert rate(trained) == parameters["callbacks__reduce_lr_on_plateau__factor"]


def test_whole_callbacks_are_searched_and_left_out(iris: Any) -> None:
    model = KerasClassifier(hidden=(), callbacks={"stop": never()}, epochs=4, batch_size=-1)
    for parameters, trained in searched(model, {"callbacks__stop": [None, never(2)]}, *iris):
        assert trained.n_iter_ == (4 if parameters["callbacks__stop"] is None else 3)
    for parameters, trained in searched(model, {"callbacks": [None, [never(2)]]}, *iris):
        assert trained.n_iter_ == (4 if parameters["callbacks"] is None else 3)


# -- random searches --------------------------------------------------------------------------------------------------


def test_a_random_search_draws_from_distributions(iris: Any) -> None:
    distributions = {
        "hidden": randint(2, 9),
        "dropout": uniform(0.1, 0.5),
        "optimizer": ["sgd", keras.optimizers.Adamax],
        "optimizer__learning_rate": loguniform(1e-4, 1e-1),
        "batch_size": np.arange(30, 60),
        "epochs": randint(1, 3),
    }
    candidates = searched(KerasClassifier(), distributions, *iris, n_iter=4)
    for parameters, trained in candidates:
        assert widths(trained) == [parameters["hidden"]]
        (dropout,) = [layer for layer in trained.model_.layers if isinstance(layer, keras.layers.Dropout)]
        assert_allclose(dropout.rate, parameters["dropout"])
        assert type(trained.model_.optimizer).__name__ == (
            "SGD" if parameters["optimizer"] == "sgd" else "Adamax"
        )  # fmt: skip
        assert_allclose(rate(trained), parameters["optimizer__learning_rate"], rtol=1e-6)
        steps = -(-120 // parameters["batch_size"]) * parameters["epochs"]
        assert int(trained.model_.optimizer.iterations) == steps
    assert len({parameters["optimizer__learning_rate"] for parameters, _ in candidates}) == 4


def test_the_best_candidate_is_trained_again_with_its_parameters(iris: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(random_state=0, epochs=15, batch_size=30))
    grid = {"kerasclassifier__optimizer__learning_rate": [1e-6, 0.05], "kerasclassifier__hidden": [(4,)]}
    search = GridSearchCV(pipeline, grid, cv=SPLIT, error_score="raise").fit(*iris)
    assert search.best_params_["kerasclassifier__optimizer__learning_rate"] == 0.05
    best = search.best_estimator_[-1]
    assert_allclose(rate(best), 0.05, rtol=1e-6)
    assert widths(best) == [4]
    assert search.best_score_ > 0.8
    assert_array_equal(search.predict(iris[0]), search.best_estimator_.predict(iris[0]))


# -- what is set, and what is left unset ------------------------------------------------------------------------------


def test_what_is_left_unset_stays_as_the_model_was_compiled(iris: Any) -> None:
    model = KerasClassifier(compiled, epochs=1).fit(*iris).model_
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    assert_allclose([float(model.optimizer.learning_rate), model.optimizer.rho], [0.02, 0.8], rtol=1e-6)
    assert model.loss == "categorical_crossentropy"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_an_explicit_optimizer_replaces_that_of_a_compiled_model(iris: Any, optimizer: str) -> None:
    # "adam" is also what an uncompiled model would get: explicit must differ from unset. An explicit "rmsprop" is
    # Keras' RMSprop, not the one that the model was compiled with.
    trained = KerasClassifier(compiled, optimizer=optimizer, epochs=1).fit(*iris)
    assert type(trained.model_.optimizer).__name__.lower() == optimizer
    assert_allclose(rate(trained), 0.01 if optimizer == "sgd" else 0.001, rtol=1e-6)
    assert trained.model_.loss == "categorical_crossentropy"
    assert "mean_squared_error" in trained.history_


def test_a_routed_learning_rate_changes_the_optimizer_that_the_model_was_compiled_with(iris: Any) -> None:
    for parameters, trained in searched(
        KerasClassifier(compiled, epochs=1), {"optimizer__learning_rate": [0.5, 0.25]}, *iris
    ):
        assert isinstance(trained.model_.optimizer, keras.optimizers.RMSprop)
        assert_allclose([rate(trained), trained.model_.optimizer.rho], [parameters["optimizer__learning_rate"], 0.8])


def test_an_explicit_loss_and_metric_replace_those_of_a_compiled_model(iris: Any) -> None:
    trained = KerasClassifier(compiled, loss="mse", metrics=["mae"], epochs=1).fit(*iris)
    assert trained.model_.loss == "mse"
    assert set(trained.history_) == {"loss", "mae"}
    assert isinstance(trained.model_.optimizer, keras.optimizers.RMSprop)


def test_an_optimizer_that_the_build_function_names_is_handed_over_and_its_default_kept_when_unset(iris: Any) -> None:
    def build(optimizer: Any = "adagrad", loss: str = "kl_divergence", epochs: int = 0) -> keras.Model:
        assert epochs == 1
        model = towers()
        model.compile(optimizer, loss)
        return model

    unset = KerasClassifier(build, epochs=1).fit(*iris).model_
    assert (type(unset.optimizer).__name__, unset.loss) == ("Adagrad", "kl_divergence")
    grid = {"optimizer": ["sgd"], "optimizer__learning_rate": [0.5, 0.25], "loss": ["categorical_crossentropy"]}
    for parameters, trained in searched(KerasClassifier(build, epochs=1), grid, *iris):
        assert isinstance(trained.model_.optimizer, keras.optimizers.SGD)
        assert rate(trained) == parameters["optimizer__learning_rate"]
        assert trained.model_.loss == "categorical_crossentropy"


def test_a_model_given_as_object_is_copied_for_each_fit(iris: Any) -> None:
    given = compiled()
    before = given.get_weights()
    model = KerasClassifier(given, epochs=1, random_state=0)
    first, second = clone(model).fit(*iris), model.fit(*iris)
    for weights, untouched in zip(given.get_weights(), before, strict=True):
        assert_array_equal(weights, untouched)
    assert int(given.optimizer.iterations) == 0
    assert isinstance(first.model_.optimizer, keras.optimizers.RMSprop)
    assert any(np.any(new != old) for new, old in zip(first.model_.get_weights(), before, strict=True))
    for one, other in zip(first.model_.get_weights(), second.model_.get_weights(), strict=True):
        assert_array_equal(one, other)
    assert isinstance(model.set_params(optimizer="sgd").fit(*iris).model_.optimizer, keras.optimizers.SGD)
    assert isinstance(given.optimizer, keras.optimizers.RMSprop)


# -- names that reach nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hiden", "'hidden'"),
        ("model__hiden", "'hidden'"),
        ("epoch", "'epochs'"),
        ("batchsize", "'batch_size'"),
        ("optimiser", "'optimizer'"),
        ("optimzer__learning_rate", "'optimizer__learning_rate'"),
        ("callback__early_stopping__patience", "'callbacks__early_stopping__patience'"),
        ("fit__step_per_epoch", "'steps_per_epoch'"),
        ("compile__run_eager", "'run_eagerly'"),
        ("predict__batchsize", "'batch_size'"),
    ],
)
def test_a_name_that_reaches_nothing_is_refused_with_the_name_meant(iris: Any, name: str, meant: str) -> None:
    message = f"Invalid parameter '{name}' for estimator KerasClassifier.*Did you mean .*{meant}"
    with pytest.raises(ParameterError, match=message):
        KerasClassifier().set_params(**{name: 1})
    with pytest.raises(ParameterError, match=message):
        KerasClassifier(**{name: 1}).fit(*iris)
    with pytest.raises(ParameterError, match=message):
        GridSearchCV(KerasClassifier(), {name: [1, 2]}, cv=SPLIT).fit(*iris)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"optimizer__learning_rat": 1}, "Adam has no argument 'learning_rat'. Did you mean 'learning_rate'"),
        ({"optimizer": "sgd", "optimizer__beta_1": 1}, "SGD has no argument 'beta_1'"),
        ({"optimizer": "adm"}, "`optimizer` is 'adm', which Keras does not know. Did you mean 'adam'"),
        ({"loss": "categorical_crosentropy"}, "Did you mean .*'categorical_crossentropy'"),
        ({"loss": "mse", "loss__from_logits": True}, "MeanSquaredError has no argument 'from_logits'"),
        ({"metrics": "acuracy"}, "`metrics` is 'acuracy', which Keras does not know. Did you mean 'accuracy'"),
        ({"model": "mpl"}, "not the name of a builder. Did you mean 'mlp'"),
        ({"callbacks__early_stopping__patience": 1}, "reaches no callback. The callbacks are: none"),
        ({"callbacks": never(), "callbacks__early_stoping__patience": 1}, "Did you mean 'early_stopping'"),
        ({"callbacks": never(), "callbacks__early_stopping__patient": 1}, "Did you mean 'patience'"),
        ({"callbacks": EarlyStopping, "callbacks__0__patient": 1}, "Did you mean 'patience'"),
        ({"callbacks": "early_stopping"}, "not a Keras callback"),
        ({"metrics": ["accuracy"], "metrics__auc__name": "a"}, "auc"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_reaches_nothing_stops_the_fit(iris: Any, parameters: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        KerasClassifier(**parameters, epochs=1).fit(*iris)


def test_a_search_in_which_an_option_reaches_nothing_does_not_end_in_silence(iris: Any) -> None:
    grid = {"optimizer__momentum": [0.5, 0.9]}  # the default is Adam, which has none
    with pytest.raises(ValueError, match="All the 2 fits failed(.|\n)*Adam has no argument 'momentum'"):
        GridSearchCV(KerasClassifier(hidden=(), epochs=1), grid, cv=SPLIT).fit(*iris)
    grid = {"optimizer": ["adam", "sgd"], "optimizer__momentum": [0.5]}
    search = GridSearchCV(KerasClassifier(hidden=(), epochs=1), grid, cv=SPLIT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(*iris)
    (told,) = [str(warning.message) for warning in caught if warning.category is FitFailedWarning]
    assert "Adam has no argument 'momentum'" in told
    assert search.best_params_["optimizer"] == "sgd"


def test_a_model_that_is_already_built_has_no_arguments_to_search(iris: Any) -> None:
    with pytest.raises(ParameterError, match="'width'(.|\n)*the model, which is already built"):
        GridSearchCV(KerasClassifier(towers()), {"width": [2, 3]}, cv=SPLIT).fit(*iris)


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(ParameterError, match="'hiden'(.|\n)*'model__dropuot'(.|\n)*'fit__epoch'"):
        KerasClassifier().set_params(hiden=1, model__dropuot=2, fit__epoch=3, hidden=4)


def test_a_refused_name_leaves_the_estimator_as_it_was() -> None:
    model = KerasClassifier(hidden=(3,), epochs=2)
    before = model.get_params()
    with pytest.raises(ParameterError):
        model.set_params(epochs=5, hidden=(4,), dropuot=0.5)
    assert model.get_params() == before
    assert (model.epochs, model.hidden) == (2, (3,))


def test_an_argument_is_checked_against_the_model_that_is_set_with_it() -> None:
    model = KerasClassifier(hidden=(3,))
    assert model.set_params(model=towers, width=3).get_params()["width"] == 3
    with pytest.raises(ParameterError, match="Invalid parameter 'depth'"):
        model.set_params(model=compiled, depth=2)
    assert model.model is towers


def test_a_build_function_that_lacks_an_argument_says_how_to_give_it(iris: Any) -> None:
    def build(width: int, depth: int) -> keras.Model:
        raise AssertionError("nothing should be built")

    with pytest.raises(ParameterError, match=r"`build` needs `depth`, which got no value.*model__depth"):
        KerasClassifier(build, width=3).fit(*iris)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1, or None; got 0"),
        ({"epochs": 2.5}, "`epochs` must be a whole number"),
        ({"batch_size": -2}, "`batch_size` must be a whole number"),
        ({"epochs": "many"}, "`epochs` must be a whole number"),
        ({"validation_split": 1.0}, "`validation_split` must be a fraction from 0"),
        ({"hidden": (0,)}, "`hidden` must be a whole number"),
        ({"dropout": 1.5}, "`dropout` must be a fraction"),
        ({"model": 3}, "`model` must be the name of a builder, a function that returns a keras.Model"),
        ({"model": towers, "build_fn": towers}, "`model` and `build_fn` are both given"),
        ({"model": lambda: None}, "returned None, not a keras.Model"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_a_value_that_cannot_be_is_refused_with_the_value(iris: Any, parameters: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        KerasClassifier(**parameters).fit(*iris)


# -- parameters as scikit-learn handles them --------------------------------------------------------------------------


def test_a_clone_keeps_declared_undeclared_and_routed_parameters() -> None:
    parameters = {"model": towers, "width": 3, "epochs": 4, "optimizer__learning_rate": 0.5, "callbacks__stop": None}
    model = KerasClassifier(**parameters)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.get_params().items() >= parameters.items()
    copy.set_params(width=7)
    assert model.width == 3


def test_a_name_that_was_never_set_is_no_attribute() -> None:
    model = KerasClassifier(hidden=(3,))
    assert model.hidden == (3,)
    with pytest.raises(AttributeError, match="'KerasClassifier' object has no attribute 'dropout'"):
        model.dropout  # noqa: B018


def test_a_build_function_that_a_notebook_reloads_has_its_new_arguments() -> None:
    """`%autoreload` puts new code into the function that is there."""

    def build(units: int = 4) -> Any:
        return keras.Sequential([keras.layers.Dense(units), keras.layers.Dense(3, activation="softmax")])

    def written_again(units: int = 4, activation: str = "relu") -> Any:
        hidden = keras.layers.Dense(units, activation=activation)
        return keras.Sequential([hidden, keras.layers.Dense(3, activation="softmax")])

    X, y = load_iris(return_X_y=True)
    KerasClassifier(build, units=5, epochs=1).fit(X, y)
    build.__code__, build.__defaults__ = written_again.__code__, written_again.__defaults__
    fitted = KerasClassifier(build, units=5, activation="tanh", epochs=1).fit(X, y)
    assert fitted.model_.layers[0].activation is keras.activations.tanh


def test_a_build_function_is_not_kept_for_its_signature() -> None:
    class Lab:
        """Its function leads back to it."""

        def __init__(self) -> None:
            def build(lab: Any = self, units: int = 3) -> None: ...

            self.build = build

    lab = Lab()
    assert build_arguments(lab.build) == {"lab", "units"}
    gone = weakref.ref(lab)
    del lab
    gc.collect()
    assert gone() is None


def test_a_build_function_may_come_from_no_module() -> None:
    written: dict[str, Any] = {"keras": keras}
    exec(
        "def build(units=4):\n"
        "    return keras.Sequential([keras.layers.Dense(units), keras.layers.Dense(3, activation='softmax')])",
        written,
    )
    assert written["build"].__module__ is None
    fitted = KerasClassifier(written["build"], units=5, epochs=1).fit(*load_iris(return_X_y=True))
    assert fitted.model_.layers[0].units == 5
