"""Small dense networks that are trained in numpy end as `Model.fit` would end them, and only those go there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_wine

from kerastoolkit.training import Fit, Trained, _dense, fit_many
from kerastoolkit.training._program import Program, ProgramInNumPy
from kerastoolkit.training.network import Network

pytestmark = pytest.mark.backend("tensorflow", "torch")

layers = keras.layers
TOLERANCE = 5e-6  # relative; rounding, grown over the steps of a few epochs
CROSSENTROPY = "sparse_categorical_crossentropy"


@pytest.fixture(autouse=True)
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of models of each call that trained in numpy."""
    calls: list[int] = []
    run = _dense.NumPySteps.run

    def noted(self: Any, kind: str, *arguments: Any) -> Any:
        if kind == "train":
            calls.append(len(arguments[0][0]))
        return run(self, kind, *arguments)

    monkeypatch.setattr(_dense.NumPySteps, "run", noted)
    return calls


def table() -> tuple[Any, Any]:
    X, y = load_wine(return_X_y=True)
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype("float32"), y.astype("int32")


def network(hidden: Callable[[], list[Any]], rate: float = 0.01, **compiled: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((13,)), *hidden(), layers.Dense(3, activation="softmax")])
    model.compile(**{"optimizer": keras.optimizers.Adam(rate), "loss": CROSSENTROPY, **compiled})
    return model


def by_keras(fit: Fit) -> Fit:
    """The same fit, sent to `Model.fit` by a callback that looks at batches and does nothing."""
    idle = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)
    fit.callbacks = [*fit.callbacks, idle]
    return fit


def both_ways(make: Callable[[int], Fit], n: int = 2) -> list[tuple[Trained, Trained]]:
    """The same fits by us and by `Model.fit`, in pairs."""

    def made(number: int) -> Fit:
        random.seed(number)
        return make(number)

    ours = fit_many([made(number) for number in range(n)])
    theirs = fit_many([by_keras(made(number)) for number in range(n)])
    assert {one.how for one in ours} == {"fused" if n > 1 else "alone"}
    assert {one.how for one in theirs} == {"Model.fit"}
    return list(zip(ours, theirs, strict=True))


def assert_equal(pairs: list[tuple[Trained, Trained]], x: Any, tolerance: float) -> None:
    for ours, theirs in pairs:
        assert ours.history.keys() == theirs.history.keys()
        for name, values in theirs.history.items():
            np.testing.assert_allclose(ours.history[name], values, rtol=tolerance, atol=tolerance, err_msg=name)
        found, expected = (one.model.predict(x, verbose=0) for one in (ours, theirs))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=10 * tolerance, atol=10 * tolerance)


def hidden() -> list[Any]:
    return [layers.Dense(8, activation="relu")]


def numbers() -> tuple[Any, Any]:
    """Rows of the table, and two numbers for each."""
    X, y = table()
    return X, np.stack([y + X[:, 0], X[:, 1] ** 2], axis=1).astype("float32")


def fits(make: Callable[[int], keras.Model], X: Any, y: Any, **options: Any) -> Callable[[int], Fit]:
    """Fits that differ in their rows and seeds."""

    def fit(number: int) -> Fit:
        kept = np.arange(len(X)) % 3 != number
        chosen = {name: value[kept] if name == "sample_weight" else value for name, value in options.items()}
        return Fit(make(number), X[kept], y[kept], **{"epochs": 3, "seed": number, **chosen})

    return fit


OPTIMIZERS: dict[str, Callable[[int], Any]] = {
    "sgd": lambda n: keras.optimizers.SGD(0.02 * (n + 1)),
    "sgd momentum": lambda n: keras.optimizers.SGD(0.01, momentum=0.5 + 0.1 * n),
    "sgd nesterov": lambda n: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.01 * (n + 1)),
    "adam": lambda n: keras.optimizers.Adam(0.01 * (n + 1)),
    "adam betas": lambda n: keras.optimizers.Adam(0.01, 0.8 + 0.05 * n, 0.99 + 0.001 * n, epsilon=1e-5),
    "adamw": lambda n: keras.optimizers.AdamW(0.01, weight_decay=0.1 * (n + 1)),
    "rmsprop": lambda n: keras.optimizers.RMSprop(0.003 * (n + 1)),
    "rmsprop momentum": lambda n: keras.optimizers.RMSprop(0.003, rho=0.8 + 0.05 * n, momentum=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, in_numpy: list[int]) -> None:
    X, y = table()
    pairs = both_ways(fits(lambda n: network(hidden, optimizer=OPTIMIZERS[name](n)), X, y))
    assert_equal(pairs, X, TOLERANCE)
    assert in_numpy
    for ours, theirs in pairs:
        for one, other in zip(ours.model.optimizer.variables, theirs.model.optimizer.variables, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5, err_msg=one.path)


LOSSES: dict[str, tuple[Any, int, str | None, list[Any], str]] = {
    "labels": (CROSSENTROPY, 3, "softmax", ["accuracy"], "labels"),
    "labels in a column": (CROSSENTROPY, 3, "softmax", ["accuracy"], "column"),
    "many labels": (CROSSENTROPY, 20, "softmax", ["accuracy"], "labels"),
    "two labels": (CROSSENTROPY, 2, "softmax", ["accuracy"], "two"),
    "logits": (lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3, None, ["accuracy"], "labels"),
    "one-hot": ("categorical_crossentropy", 3, "softmax", ["accuracy"], "one-hot"),
    "smoothed": (
        lambda: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2), 3, "linear", [], "one-hot",
    ),
    "binary": ("binary_crossentropy", 1, "sigmoid", ["accuracy", "mae"], "binary"),
    "binary logits": (
        lambda: keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), 1, None,
        [lambda: keras.metrics.BinaryAccuracy(threshold=0.0)], "binary",
    ),
    "several questions": ("binary_crossentropy", 3, "sigmoid", ["binary_accuracy"], "one-hot"),
    "squares": ("mse", 2, "linear", ["r2_score", "mae"], "numbers"),
    "of a unit": (keras.losses.MeanSquaredError, 2, "tanh", [], "numbers"),
    "distances": ("mae", 2, None, ["mse"], "numbers"),
}  # fmt: skip


WITH_WEIGHTS = ["labels", "smoothed", "binary", "squares", "distances"]  # one for each way to compute a loss


def targets(kind: str) -> Any:
    _, y = table()
    first = (y == 0).astype("float32")
    return {
        "labels": y, "column": y[:, None], "two": (y == 1).astype("int32"), "one-hot": np.eye(3, dtype="float32")[y],
        "binary": first[:, None], "numbers": numbers()[1],
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "weighted"), [*((name, False) for name in LOSSES), *((name, True) for name in WITH_WEIGHTS)]
)
def test_losses_and_metrics(name: str, weighted: bool, in_numpy: list[int]) -> None:
    loss, units, activation, metrics, kind = LOSSES[name]
    X, y = table()[0], targets(kind)

    def make(number: int) -> keras.Model:
        model = keras.Sequential([keras.Input((13,)), *hidden(), layers.Dense(units, activation=activation)])
        fresh = [metric if isinstance(metric, str) else metric() for metric in metrics]
        model.compile(keras.optimizers.Adam(0.01), loss if isinstance(loss, str) else loss(), metrics=fresh)
        return model

    weights = {"sample_weight": np.linspace(0, 2, len(X)).astype("float32")} if weighted else {}
    assert_equal(both_ways(fits(make, X, y, validation_data=(X[::4], y[::4]), **weights)), X, TOLERANCE)
    assert in_numpy


@pytest.mark.parametrize("name", ["labels", "one-hot", "binary", "several questions"])
def test_probabilities_of_zero_and_one(name: str, in_numpy: list[int]) -> None:
    """Where Keras bounds them before it takes a logarithm, what is beyond has no gradient."""
    loss, units, activation, _, kind = LOSSES[name]
    X, y = table()[0] * np.float32(30), targets(kind)

    def make(number: int) -> keras.Model:
        model = keras.Sequential([keras.Input((13,)), *hidden(), layers.Dense(units, activation=activation)])
        model.compile(keras.optimizers.SGD(0.01), loss)
        return model

    pairs = both_ways(fits(make, X, y), 2)
    assert_equal(pairs, X, 10 * TOLERANCE)
    assert in_numpy
    found = pairs[0][0].model.predict(X, verbose=0)
    assert ((found < 1e-7) | (found > 1 - 1e-7)).any()


@pytest.mark.parametrize(("name", "units"), [("BinaryCrossentropy", 1), ("CategoricalCrossentropy", 3)])
def test_smoothings_that_differ(name: str, units: int, in_numpy: list[int]) -> None:
    X, y = table()[0], targets("binary" if units == 1 else "one-hot")
    smoothings = iter([0.1, 0.3] * 2)

    def make(number: int) -> keras.Model:
        output = layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")
        model = keras.Sequential([keras.Input((13,)), *hidden(), output])
        loss = getattr(keras.losses, name)(label_smoothing=next(smoothings))
        model.compile(keras.optimizers.Adam(0.01), loss)
        return model

    assert_equal(both_ways(fits(make, X, y, validation_data=(X[::4], y[::4]))), X, TOLERANCE)
    assert set(in_numpy) == {2}


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "linear"])
def test_activations_of_layers_of_their_own(activation: str, in_numpy: list[int]) -> None:
    X, y = table()

    def make(number: int) -> keras.Model:
        inputs = keras.Input((13,))
        x = layers.Activation(activation)(layers.Dense(8)(inputs))
        x = layers.Dense(5, activation=activation, use_bias=False)(x)
        model = keras.Model(inputs, layers.Activation("softmax")(layers.Dense(3)(x)))
        model.compile(keras.optimizers.Adam(0.01), CROSSENTROPY, metrics=["accuracy"])
        return model

    assert_equal(both_ways(fits(make, X, y)), X, TOLERANCE)
    assert in_numpy


def test_penalties_that_differ(in_numpy: list[int]) -> None:
    X, y = table()

    def make(number: int) -> keras.Model:
        l2 = [keras.regularizers.L2(0.01 * (number + 1)) for _ in range(2)]
        both = keras.regularizers.L1L2(0.001 * (number + 1), 0.01)
        first = layers.Dense(8, activation="tanh", kernel_regularizer=l2[0], bias_regularizer=l2[1])
        second = layers.Dense(5, kernel_regularizer=both, bias_regularizer=keras.regularizers.L1(0.01))
        return network(lambda: [first, second])

    assert_equal(both_ways(fits(make, X, y, validation_data=(X, y))), X, TOLERANCE)
    assert in_numpy


@pytest.mark.parametrize("batch_size", [1, 17, 1000])
def test_batches_that_are_not_whole(batch_size: int, in_numpy: list[int]) -> None:
    X, y = table()
    assert_equal(both_ways(fits(lambda n: network(hidden), X, y, batch_size=batch_size)), X, 2e-5)
    assert in_numpy


def test_a_fit_alone_and_its_going_on(in_numpy: list[int]) -> None:
    X, y = table()
    ours, theirs = both_ways(fits(lambda n: network(hidden), X, y), n=1)[0]
    again = [Fit(trained.model, X, y, epochs=6, initial_epoch=3, seed=5) for trained in (ours, theirs)]
    pairs = [(fit_many([again[0]])[0], fit_many([by_keras(again[1])])[0])]
    assert pairs[0][0].how == "alone"
    assert_equal(pairs, X, TOLERANCE)
    assert int(ours.model.optimizer.iterations) == 6 * -(-len(again[0].x) // 32) - 3 * (6 - 4)
    assert set(in_numpy) == {1}


def test_what_callbacks_see_and_do(in_numpy: list[int]) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True, min_delta=0.03)
        slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7)
        model = network(hidden, rate=(0.0001, 0.03, 0.2)[number])
        return Fit(model, X, y, epochs=9, seed=number, validation_data=(X[::3], y[::3]), callbacks=[stopping, slower])

    pairs = both_ways(make, n=3)
    assert_equal(pairs, X, 2e-5)
    assert len({len(ours.history["loss"]) for ours, _ in pairs}) > 1  # some have left the others before
    assert in_numpy


def test_a_loss_that_is_lost_is_that_of_its_own_model(in_numpy: list[int]) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        random.seed(number)
        model = network(hidden, optimizer=keras.optimizers.SGD(1e30 if number == 1 else 0.01), loss="mse")
        target = np.eye(3, dtype="float32")[y]
        linear = keras.Sequential([keras.Input((13,)), layers.Dense(4), layers.Dense(3)])
        linear.compile(model.optimizer, "mse")
        return Fit(linear, X, target, epochs=3, seed=number, callbacks=[keras.callbacks.TerminateOnNaN()])

    trained = fit_many([make(number) for number in range(3)])
    assert [len(one.history["loss"]) for one in trained] == [3, 1, 3]
    assert [np.isfinite(one.history["loss"]).all() for one in trained] == [True, False, True]
    assert in_numpy


# -- who goes there -------------------------------------------------------------------------------------------------


def twice() -> keras.Model:
    inputs, layer = keras.Input((13,)), layers.Dense(13)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layer(layer(inputs))))


def around() -> keras.Model:
    inputs = keras.Input((13,))
    x = layers.Dense(13, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.add([inputs, x])))


def within() -> keras.Model:
    return keras.Sequential([keras.Input((13,)), keras.Sequential([layers.Dense(4)]), layers.Dense(3, "softmax")])


def frozen() -> keras.Model:
    first = layers.Dense(4)
    first.trainable = False
    return keras.Sequential([keras.Input((13,)), first, layers.Dense(3, activation="softmax")])


class OwnActivation(layers.Layer):
    """A layer whose activation is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = ["relu"]

    def call(self, inputs: Any) -> Any:
        return keras.ops.relu(inputs)


class OwnDense(layers.Dense):
    """A layer that does something else."""

    def call(self, inputs: Any) -> Any:
        return 2 * super().call(inputs)


class OwnModel(keras.Model):
    """A model that does something else with the same layers."""

    def call(self, inputs: Any) -> Any:
        return super().call(-inputs)


def own_model() -> keras.Model:
    inputs = keras.Input((13,))
    return OwnModel(inputs, layers.Dense(3, activation="softmax")(inputs))


def after(*some: Any) -> Callable[[], keras.Model]:
    return lambda: keras.Sequential([keras.Input((13,)), *[layer() for layer in some], layers.Dense(3, "softmax")])


OTHER_MODELS: dict[str, Callable[[], keras.Model]] = {
    "dropout": after(lambda: layers.Dense(4), lambda: layers.Dropout(0.2)),
    "normalization": after(lambda: layers.BatchNormalization()),
    "another activation": after(lambda: layers.Dense(4, activation="gelu")),
    "a function": after(lambda: layers.Dense(4, activation=lambda x: x * x)),
    "a softmax inside": after(lambda: layers.Dense(4, activation="softmax")),
    "two activations": after(lambda: layers.Dense(4, activation="relu"), lambda: layers.Activation("tanh")),
    "an activation of the inputs": after(lambda: layers.Activation("tanh")),
    "a penalty of outputs": after(lambda: layers.Dense(4, activity_regularizer="l2")),
    "a penalty of kernels that is written by hand": after(
        lambda: layers.Dense(4, kernel_regularizer="orthogonal_regularizer")
    ),
    "a penalty of the outputs of an activation": after(
        lambda: layers.Dense(4), lambda: layers.Activation("relu", activity_regularizer="l2")
    ),
    "an activation of the user's": after(lambda: OwnActivation()),
    "whole numbers": lambda: keras.Sequential([keras.Input((13,), dtype="int32"), layers.Dense(3, "softmax")]),
    "a constraint": after(lambda: layers.Dense(4, kernel_constraint="non_neg")),
    "half precision": after(lambda: layers.Dense(4, dtype="mixed_float16")),
    "a layer of the user's": after(lambda: OwnDense(4)),
    "a model of the user's": own_model,
    "a layer that comes twice": twice,
    "a way around": around,
    "a model inside": within,
    "a frozen layer": frozen,
}
OTHER_OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "another rule": lambda: keras.optimizers.Nadam(),
    "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True),
    "centered": lambda: keras.optimizers.RMSprop(centered=True),
    "cut values": lambda: keras.optimizers.SGD(clipvalue=0.1),
    "cut norms": lambda: keras.optimizers.SGD(clipnorm=0.1),
    "averages": lambda: keras.optimizers.SGD(use_ema=True),
    "a schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    "a scaled loss": lambda: keras.optimizers.SGD(loss_scale_factor=8.0),
    "a loss that is scaled away": lambda: keras.optimizers.SGD(loss_scale_factor=0.0),
}
OTHER_COMPILED: dict[str, dict[str, Any]] = {
    "another loss": {"loss": "kl_divergence"},
    "logits that are none": {"loss": "mse"},  # of a softmax
    "a sum": {"loss": lambda: keras.losses.SparseCategoricalCrossentropy(reduction="sum")},
    "a class left out": {"loss": lambda: keras.losses.SparseCategoricalCrossentropy(ignore_class=0)},
    "a weighted loss": {"loss_weights": [2.0]},
    "a loss without weight": {"loss_weights": 0.0},
    "a class of losses": {"loss": keras.losses.SparseCategoricalCrossentropy},
    "a metric of another form of labels": {"metrics": ["mse"]},
    "weighted metrics": {"weighted_metrics": ["accuracy"]},
    "another metric": {"metrics": [keras.metrics.SparseTopKCategoricalAccuracy(k=2)]},
}


def program_of(model: keras.Model, y: Any) -> Program:
    network = Network(model)
    network.ready((table()[0][:1], y[:1], None))
    assert network.program is not None, network.reason
    return network.program


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_other_models_are_left_to_programs(name: str) -> None:
    model = OTHER_MODELS[name]()
    model.compile("sgd", CROSSENTROPY)
    network = Network(model)
    network.ready((table()[0][:1], table()[1][:1], None))
    assert network.program is None or network.program.in_numpy is None


@pytest.mark.parametrize("name", OTHER_OPTIMIZERS)
def test_other_optimizers_are_left_to_programs(name: str) -> None:
    assert program_of(network(hidden, optimizer=OTHER_OPTIMIZERS[name]()), table()[1]).in_numpy is None


@pytest.mark.parametrize("name", OTHER_COMPILED)
def test_other_losses_and_metrics_are_left_to_programs(name: str) -> None:
    compiled = dict(OTHER_COMPILED[name])
    if callable(compiled.get("loss")) and not isinstance(compiled["loss"], type):
        compiled["loss"] = compiled["loss"]()
    y = np.eye(3, dtype="float32")[table()[1]] if name in ("another loss", "logits that are none") else table()[1]
    assert program_of(network(hidden, **compiled), y).in_numpy is None


@pytest.mark.backend("tensorflow")  # torch starts each operation anew, and is never so much quicker
def test_a_dense_network_goes_to_numpy_and_a_long_training_to_a_program(in_numpy: list[int]) -> None:
    X, y = table()
    assert isinstance(program_of(network(hidden), y).in_numpy, ProgramInNumPy)
    fit_many([Fit(network(hidden), X, y, epochs=2, seed=0)])
    assert in_numpy == [1, 1, 1, 1]  # two epochs, each with its last batch
    fit_many([Fit(network(hidden), X, y, epochs=2, seed=0) for _ in range(2)], n_expected=1_000_000)
    fit_many([Fit(network(lambda: [layers.Dense(4000), layers.Dense(40)]), X, y, epochs=1, seed=0)])
    assert len(in_numpy) == 4


def test_an_unknown_keras_is_left_to_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, known in [("3.15.9", True), ("3.16.0", False), ("4.0.0", False), ("3.11.3", False)]:
        monkeypatch.setattr(keras, "__version__", version)
        assert (_dense.chain_of(network(hidden)) is not None) == known


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused_as_by_keras(label: int, backend: str) -> None:
    X, y = table()
    wrong = np.where(np.arange(len(y)) == 5, label, y)
    bad, good = fit_many([Fit(network(hidden), X, wrong, seed=0), Fit(network(hidden), X, y, seed=0)])
    assert {"tensorflow": "outside the valid range", "torch": "out of bounds"}[backend] in str(bad.error)
    assert good.error is None


def labels_and_metrics() -> dict[str, tuple[Any, Any, int, str, list[Any]]]:
    """Labels in forms that Keras takes in a way of its own: y, loss, units, last activation, metrics."""
    _, y = table()
    is_first = (y == 0).astype("float32")
    return {
        "fractions": ((y + 0.5 * (y == 1)).astype("float32"), CROSSENTROPY, 3, "softmax", ["accuracy"]),
        "floats": (y.astype("float64"), CROSSENTROPY, 3, "softmax", ["accuracy"]),
        "bytes of many classes": (y.astype("uint8"), CROSSENTROPY, 300, "softmax", ["accuracy"]),
        "truth values": (y == 1, CROSSENTROPY, 3, "softmax", ["accuracy"]),
        "numbers of them as metrics": (y[:, None], CROSSENTROPY, 3, "softmax", ["mse", "mae", "categorical_accuracy"]),
        "a class of metrics": (y, CROSSENTROPY, 3, "softmax", [keras.metrics.SparseCategoricalAccuracy]),
        "one unit": (is_first, "binary_crossentropy", 1, "sigmoid", ["accuracy", "mse"]),
        "one unit of many": (is_first, "binary_crossentropy", 1, "sigmoid", ["categorical_accuracy"]),
        "far from zero": (1000 + is_first, "mse", 1, "linear", ["r2_score"]),
    }


@pytest.mark.parametrize("name", labels_and_metrics())
def test_labels_are_taken_as_keras_takes_them(name: str) -> None:
    y, loss, units, activation, metrics = labels_and_metrics()[name]

    def make(number: int) -> keras.Model:
        model = keras.Sequential([keras.Input((13,)), layers.Dense(4, "relu"), layers.Dense(units, activation)])
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=metrics)
        return model

    assert_equal(both_ways(fits(make, table()[0], y)), table()[0], 2e-5)


def test_a_layer_that_comes_twice_in_a_sequence_comes_twice() -> None:
    def make(number: int) -> keras.Model:
        relu, dense = layers.Activation("relu"), layers.Dense(8)
        return network(lambda: [layers.Dense(8), relu, dense, relu, dense])

    X, y = table()
    pairs = [both_ways(fits(make, X, y), n=1)[0]]
    assert_equal(pairs, X, 2e-5)


def test_what_keras_says_of_other_shapes_is_said(in_numpy: list[int]) -> None:
    X, y = table()
    one = Fit(network(hidden, loss="categorical_crossentropy"), X, y, seed=0)
    assert isinstance(fit_many([one])[0].error, ValueError)
    assert in_numpy == []


# -- predicting -----------------------------------------------------------------------------------------------------


def chain_of(model: keras.Model) -> tuple[_dense.Chain, list[Any]]:
    chain = _dense.chain_of(model)
    assert chain is not None
    return chain, model.get_weights()


def test_a_row_has_the_same_output_whatever_stands_around_it() -> None:
    for n_inputs, width, n_outputs in [(13, 40, 7), (30, 16, 1), (100, 3, 1), (7, 200, 30)]:
        model = keras.Sequential([keras.Input((n_inputs,)), layers.Dense(width, "tanh"), layers.Dense(n_outputs)])
        chain, weights = chain_of(model)
        X = np.random.default_rng(0).normal(size=(1024, n_inputs)).astype("float32")
        whole = chain.output(weights, X)
        np.testing.assert_allclose(whole, model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(chain.output(weights, X[32:64]), whole[32:64])
        np.testing.assert_array_equal(chain.output(weights, np.repeat(X[5:6], 32, axis=0))[0], whole[5])
        assert chain.takes(X)
        for other in (X[:5], X[:32].astype("float64"), X[:32, :2], X[:32, :, None], X.tolist()):
            assert not chain.takes(other)


def test_probabilities_of_large_outputs_are_numbers() -> None:
    model = network(hidden)
    chain, weights = chain_of(model)
    large = [1000 * weight for weight in weights]
    found = chain.output(large, table()[0][:32])
    model.set_weights(large)
    np.testing.assert_allclose(found, model.predict(table()[0][:32], verbose=0), rtol=1e-5, atol=1e-6)


def test_the_first_steps_of_adam_are_those_of_keras() -> None:
    # 1 - 0.999**9 loses five digits in single precision, and with a power that is rounded otherwise five others.
    weights = keras.Variable(np.zeros(1, "float32"))
    optimizer = keras.optimizers.Adam(1.0)
    optimizer.build([weights])
    w, m, v = (np.zeros((1, 1), "float32") for _ in range(3))
    for step in range(1, 60):
        weights.assign(np.zeros(1, "float32"))
        optimizer.apply([keras.ops.ones(1)], [weights])
        w[...] = 0
        state, rate, spare = {"_momentum": m, "_velocity": v}, np.ones((1, 1), "float32"), np.empty_like(w)
        _dense._adam(w, np.ones_like(w), state, rate, lambda name: getattr(optimizer, name), spare, np.float64(step))
        np.testing.assert_allclose(w[0], weights, rtol=1e-6)
