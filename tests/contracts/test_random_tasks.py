"""Small tasks drawn at random, held against plain Keras: what comes out is the same, or an error that says what to do.

A task is drawn in words: the form of the target and of the rows, how the model, the loss and the optimizer are given,
and what is done with the estimator afterwards. The reference is what somebody who knows Keras would write by hand:
`y` in the form that the loss takes, the same starting weights, the same order of rows, and scikit-learn's scores.

A few tasks are drawn, always the same. `KERASTOOLKIT_TEST_TASKS=2000` asks for more, and
`KERASTOOLKIT_TEST_TASKS_FROM=500` for others: a task's number is its seed.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import StandardScaler

import kerastoolkit.search
from kerastoolkit import KerasClassifier, KerasRegressor, load
from kerastoolkit.exceptions import KerasToolkitError

N_TASKS = int(os.environ.get("KERASTOOLKIT_TEST_TASKS", "10"))
FIRST = int(os.environ.get("KERASTOOLKIT_TEST_TASKS_FROM", "0"))

MEASURED, SPECIES = load_iris(return_X_y=True)
SOME = np.random.default_rng(0).permutation(150)[:30]  # all three species are there, in no order
MEASURED = StandardScaler().fit_transform(MEASURED)[SOME].astype("float32")
SPECIES = SPECIES[SOME]
STEPS: dict[str, Any] = {"epochs": 2, "batch_size": 10, "shuffle": False}

# -- what a user brings ---------------------------------------------------------------------------------------------


def network(input_shape: Any, units: int, activation: str | None, shape: Any = None) -> keras.Model:
    """One layer that always starts from the same weights."""
    start = keras.initializers.RandomUniform(-0.5, 0.5, seed=1)
    model = keras.Sequential([keras.Input(input_shape)])
    if len(input_shape) > 1:
        model.add(layers.Flatten())
    model.add(layers.Dense(units, activation, kernel_initializer=start))
    if shape is not None:
        model.add(layers.Reshape(shape))
    return model


def own_binary(y_true: Any, y_pred: Any) -> Any:
    return keras.losses.binary_crossentropy(y_true, y_pred)


def own_logits(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.softplus(y_pred) - y_true * y_pred, axis=-1)


def own_one_hot(y_true: Any, y_pred: Any) -> Any:
    return -ops.sum(y_true * ops.log(y_pred + 1e-7), axis=-1)


def own_numbers(y_true: Any, y_pred: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(ops.cast(y_true, "int32"), y_pred)


def own_squares(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(3.0 * ops.square(y_true - y_pred), axis=-1)


class Quantile(keras.losses.Loss):
    """A loss that does not tell Keras its argument."""

    def __init__(self, q: float = 0.5, name: str = "quantile") -> None:
        super().__init__(name=name)
        self.q = q

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), axis=-1)


L = keras.losses


class Choice(NamedTuple):
    """A loss, made anew each time it is asked for, and what goes with it."""

    loss: Callable[[], Any]
    form: str  # of y for Keras: "columns", "numbers" or "one_hot"
    activation: str | None
    meaning: str  # of the output: "probability", "logit", "margin" or "value"
    options: dict[str, Any] = {}  # noqa: RUF012  never changed


BINARY = [
    Choice(lambda: None, "columns", "sigmoid", "probability"),
    Choice(lambda: "binary_crossentropy", "columns", "sigmoid", "probability"),
    Choice(lambda: L.BinaryCrossentropy, "columns", "sigmoid", "probability"),
    Choice(lambda: L.BinaryCrossentropy(label_smoothing=0.2), "columns", "sigmoid", "probability"),
    Choice(lambda: L.binary_crossentropy, "columns", "sigmoid", "probability"),
    Choice(lambda: L.BinaryFocalCrossentropy(gamma=4.0, alpha=0.7), "columns", "sigmoid", "probability"),
    Choice(lambda: L.BinaryCrossentropy(from_logits=True), "columns", None, "logit"),
    Choice(lambda: own_binary, "columns", "sigmoid", "probability"),
    Choice(lambda: own_logits, "columns", None, "logit", {"head__from_logits": True}),
    Choice(lambda: "hinge", "columns", None, "margin"),
    Choice(lambda: L.Huber(0.1), "columns", None, "value"),
    Choice(lambda: Quantile(0.9), "columns", "sigmoid", "probability"),
]
MULTILABEL = [choice for choice in BINARY if choice.meaning in ("probability", "logit")]
MULTICLASS = [
    Choice(lambda: None, "numbers", "softmax", "probability"),
    Choice(lambda: "sparse_categorical_crossentropy", "numbers", "softmax", "probability"),
    Choice(lambda: L.SparseCategoricalCrossentropy(from_logits=True), "numbers", None, "logit"),
    Choice(lambda: "categorical_crossentropy", "one_hot", "softmax", "probability"),
    Choice(lambda: L.CategoricalCrossentropy, "one_hot", "softmax", "probability"),
    Choice(lambda: L.CategoricalCrossentropy(label_smoothing=0.2, from_logits=True), "one_hot", None, "logit"),
    Choice(lambda: L.CategoricalFocalCrossentropy(alpha=0.5, gamma=3.0), "one_hot", "softmax", "probability"),
    Choice(lambda: L.kl_divergence, "one_hot", "softmax", "probability"),
    Choice(lambda: "categorical_hinge", "one_hot", None, "margin"),
    Choice(lambda: L.Huber(0.1), "one_hot", None, "value"),
    Choice(lambda: own_one_hot, "one_hot", "softmax", "probability"),
    Choice(lambda: own_numbers, "numbers", "softmax", "probability"),
]
NUMBERS = [
    Choice(lambda: None, "columns", None, "value"),
    Choice(lambda: "mae", "columns", None, "value"),
    Choice(lambda: L.MeanSquaredError, "columns", None, "value"),
    Choice(lambda: L.mean_absolute_percentage_error, "columns", None, "value"),
    Choice(lambda: L.Huber(0.05), "columns", None, "value"),
    Choice(lambda: L.Huber(20.0), "columns", None, "value"),
    Choice(lambda: L.LogCosh(), "columns", None, "value"),
    Choice(lambda: own_squares, "columns", None, "value"),
    Choice(lambda: Quantile(0.9), "columns", None, "value"),
]
CHOICES = {"binary": BINARY, "multiclass": MULTICLASS, "one-hot": MULTICLASS, "multilabel": MULTILABEL}

DAYS = np.array(["2024-02-29", "2025-01-01", "2026-12-31"], dtype="datetime64[D]")
NAMES = {
    "numbers": np.array([0, 1, 2]), "others": np.array([-4, 7, 90]), "texts": np.array(["b", "z $1", "é"]),
    "objects": np.array(["x", "y", "zz"], dtype=object), "floats": np.array([0.0, 1.0, 2.0]), "dates": DAYS,
}  # fmt: skip
AS: dict[str, Callable[[Any], Any]] = {
    "array": lambda y: y,
    "list": lambda y: y.tolist() if y.dtype.kind != "M" else list(y),
    "series": lambda y: pd.Series(y, index=np.arange(len(y)) * 3) if y.ndim == 1 else pd.DataFrame(y),
}
ROWS: dict[str, Callable[[Any], Any]] = {
    "float32": lambda X: X,
    "float64": lambda X: X.astype("float64"),
    "list": lambda X: X.tolist(),
    "table": lambda X: pd.DataFrame(X, columns=["a", "b", "c", "d"], index=range(5, 35)),
    "columns first": np.asfortranarray,
    "every second": lambda X: np.repeat(X, 2, axis=0)[::2],
    "sparse": csr_matrix,
    "series": lambda X: X.reshape(30, 2, 2),
}
OPTIMIZERS: list[Callable[[], Any]] = [
    lambda: "adam",
    lambda: "sgd",
    lambda: keras.optimizers.RMSprop,
    lambda: keras.optimizers.Adam(0.02, beta_1=0.5),
    lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.8),
]


class Task:
    """A task of one number."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        self.kind = draw.choice(["binary", "multiclass", "one-hot", "multilabel", "numbers", "columns", "three axes"])
        self.choice = draw.choice(CHOICES.get(self.kind, NUMBERS))
        self.names, self.form = draw.choice(list(NAMES)), draw.choice(list(AS))
        self.rows = draw.choice(list(ROWS))
        self.given = draw.choice(["function", "compiling function", "model", "compiled model"])
        self.optimizer = draw.choice(OPTIMIZERS)
        self.rate = draw.choice([None, None, 0.05])
        self.weighted = draw.random() < 0.2
        self.then = draw.choice(["clone", "pickle", "save", "search"])
        self.X = ROWS[self.rows](MEASURED)
        self.weights = 1.0 + np.arange(30) % 3 if self.weighted else None
        self._target(draw)

    def _target(self, draw: random.Random) -> None:
        self.shape = None
        if self.kind in ("binary", "multiclass"):
            numbers = np.minimum(SPECIES, 1 if self.kind == "binary" else 2)
            self.classes = NAMES[self.names][: numbers.max() + 1]
            y = self.classes[numbers]
            self.units = 1 if self.kind == "binary" else 3
            rows = numbers[:, None] if self.kind == "binary" else np.eye(3)[numbers]
        elif self.kind == "one-hot":
            numbers, self.units = SPECIES, 3
            rows = np.eye(3)[SPECIES]
            y = rows.astype(draw.choice(["int64", "float32", "bool"]))
        elif self.kind == "multilabel":
            rows = (MEASURED[:, :3] > 0).astype("int64")
            numbers, y, self.units = rows, rows, 3
        else:
            size = {"numbers": 1, "columns": 2, "three axes": 6}[self.kind]
            rows = MEASURED @ np.sin(np.arange(4 * size).reshape(4, size)) + 1.0
            numbers, self.units = rows, size
            y = rows[:, 0] if self.kind == "numbers" else rows
            if self.kind == "three axes":
                self.shape = draw.choice([(3, 2), (1, 6), (6, 1)])
                y = y.reshape(30, *self.shape)
            y = y.astype(draw.choice(["float64", "float32"]))
        self.y = AS[self.form if y.ndim < 3 else "array"](y)
        rows = rows.reshape(30, *(self.shape or (self.units,)))
        self.y_keras = numbers if self.choice.form == "numbers" else rows.astype("float32")

    def __repr__(self) -> str:
        loss = self.choice.loss()
        words = f"{self.kind} {self.names} as {self.form}, rows {self.rows}, {self.given}, {self.choice.activation}"
        return f"{words}, loss {getattr(loss, '__name__', loss)}, {self.optimizer()}, {self.weighted}, then {self.then}"

    @property
    def classifies(self) -> bool:
        return self.kind in CHOICES

    def loss_by_hand(self) -> Any:
        """What `loss=None` stands for, or the loss."""
        loss = self.choice.loss()
        default = {"binary": "binary_crossentropy", "multilabel": "binary_crossentropy"}
        default |= dict.fromkeys(("multiclass", "one-hot"), "sparse_categorical_crossentropy")
        loss = default.get(self.kind, "mse") if loss is None else loss
        return loss() if isinstance(loss, type) else loss

    def optimizer_by_hand(self) -> Any:
        optimizer = self.optimizer()
        made = keras.optimizers.get(optimizer() if isinstance(optimizer, type) else optimizer)
        if self.rate is None:
            return made
        return type(made).from_config({**made.get_config(), "learning_rate": self.rate})

    def build(self, *, compiled: bool) -> keras.Model:
        shape = (2, 2) if self.rows == "series" else (4,)
        model = network(shape, self.units, self.choice.activation, self.shape)
        if compiled:
            model.compile(self.optimizer_by_hand(), self.loss_by_hand())
        return model

    def estimator(self) -> Any:
        """The estimator, with all that it needs by its parameters, or in the model."""
        compiled = self.given.startswith("compil")
        parameters = {**STEPS, "random_state": 0, **self.choice.options}
        if not compiled:
            parameters |= {"loss": self.choice.loss(), "optimizer": self.optimizer(), "metrics": []}
            parameters |= {} if self.rate is None else {"optimizer__learning_rate": self.rate}
        if self.given.endswith("function"):
            parameters["model"] = lambda: self.build(compiled=compiled)
        else:
            parameters["model"] = self.build(compiled=compiled)
        return (KerasClassifier if self.classifies else KerasRegressor)(**parameters)

    def by_keras(self) -> tuple[Any, Any]:
        """Output and losses of plain Keras."""
        model = self.build(compiled=True)
        model.run_eagerly = keras.config.backend() == "tensorflow"  # tracing takes longer than these steps
        weights = None if self.weights is None else (self.weights / self.weights.mean()).astype("float32")
        if weights is not None and self.shape is not None:  # as many axes as Keras finds losses of
            weights = weights[:, None]
        X = ROWS["series" if self.rows == "series" else "float32"](MEASURED)
        history = model.fit(X, self.y_keras, sample_weight=weights, verbose=0, **STEPS).history
        return keras.ops.convert_to_numpy(model(X)), history["loss"]

    def decoded(self, raw: Any) -> tuple[Any, Any]:
        """Labels or numbers, and probabilities or None, from the output."""
        if not self.classifies:
            return raw[:, 0] if self.kind == "numbers" else raw, None
        meaning = self.choice.meaning
        cut = 0.5 if meaning in ("probability", "value") else 0.0
        if self.kind == "multilabel":
            return (raw > cut).astype(int), expit(raw) if meaning == "logit" else raw
        if self.kind == "binary":
            positive = expit(raw) if meaning == "logit" else raw
            found = np.hstack([1 - positive, positive]), self.classes[(raw[:, 0] > cut).astype(int)]
        else:
            shares = softmax(raw, axis=1) if meaning == "logit" else raw
            labels = raw.argmax(axis=1)
            found = shares, np.eye(3)[labels] if self.kind == "one-hot" else self.classes[labels]
        return found[1], found[0] if meaning in ("probability", "logit") else None


def nearly(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs, "float64")
    assert_allclose(np.asarray(ours, "float64"), theirs, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(theirs).max()))


def check_predictions(task: Task, fitted: Any, raw: Any) -> None:
    expected, shares = task.decoded(raw)
    predicted = fitted.predict(task.X)
    if not task.classifies:
        nearly(predicted, expected)
        y, found = np.asarray(task.y), np.asarray(expected)
        score = r2_score(y.reshape(30, -1), found.reshape(30, -1))
        assert fitted.score(task.X, task.y) == pytest.approx(score, rel=1e-3, abs=1e-3)
        return
    assert_array_equal(predicted, expected)
    assert fitted.score(task.X, task.y) == pytest.approx(accuracy_score(np.asarray(task.y), np.asarray(expected)))
    assert hasattr(fitted, "predict_proba") == (shares is not None)
    if shares is not None:
        nearly(fitted.predict_proba(task.X), shares)


def check_what_follows(task: Task, fitted: Any, folder: Path) -> None:
    if task.then == "search":
        grid = {"epochs": [1, 2]} if task.given.startswith("compil") else {"optimizer__learning_rate": [0.01, 0.1]}
        folds = KFold(2)
        ours = kerastoolkit.search.GridSearchCV(task.estimator(), grid, cv=folds, refit=False, error_score="raise")
        theirs = GridSearchCV(task.estimator(), grid, cv=folds, refit=False, error_score="raise")
        y = np.asarray(task.y)
        found = [search.fit(task.X, y).cv_results_["mean_test_score"] for search in (ours, theirs)]
        assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)
        return
    if task.then == "clone":
        again = clone(fitted).fit(task.X, task.y, sample_weight=task.weights)
        assert_array_equal(again.predict(task.X), fitted.predict(task.X))
        return
    if task.then == "pickle":
        fitted.set_params(model=None)  # a function made here has no name to pickle it by
        again = pickle.loads(pickle.dumps(fitted))
    else:
        losses = own_binary, own_logits, own_one_hot, own_numbers, own_squares, Quantile
        own = {kind.__name__: kind for kind in losses}
        again = load(fitted.save(folder / "fitted.keras.zip"), custom_objects=own)
    assert_array_equal(again.predict(task.X), fitted.predict(task.X))


def test_the_reference_is_no_echo_of_what_it_is_held_against() -> None:
    """By hand for one task: a sigmoid unit after one step of gradient descent."""
    task = Task(0)
    task.kind, task.choice, task.rows, task.rate, task.weights = "binary", BINARY[1], "float32", None, None
    task.optimizer, task.names, task.form = OPTIMIZERS[1], "numbers", "array"
    task._target(random.Random(0))
    raw, losses = task.by_keras()
    weights, bias = keras.ops.convert_to_numpy(task.build(compiled=False).layers[0].kernel).astype("float64"), 0.0
    y, seen = (SPECIES > 0).astype("float64")[:, None], []
    for _ in range(2):
        total = 0.0
        for batch in np.arange(30).reshape(3, 10):
            p = expit(MEASURED[batch] @ weights + bias)
            total += -np.mean(y[batch] * np.log(p) + (1 - y[batch]) * np.log(1 - p))
            slope = (p - y[batch]) / 10
            weights, bias = weights - 0.01 * MEASURED[batch].T @ slope, bias - 0.01 * slope.sum()
        seen.append(total / 3)
    nearly(raw, expit(MEASURED @ weights + bias))
    nearly(losses, seen)


@pytest.mark.parametrize("number", range(FIRST, FIRST + N_TASKS))
def test_a_task_ends_as_plain_keras_ends_it(number: int, tmp_path: Path) -> None:
    task = Task(number)
    raw, losses = task.by_keras()
    try:
        fitted = task.estimator().fit(task.X, task.y, sample_weight=task.weights)
    except KerasToolkitError as error:
        pytest.fail(f"{task}: refused: {error}")
    nearly(fitted.history_["loss"], losses)
    check_predictions(task, fitted, raw)
    check_what_follows(task, fitted, tmp_path)


# -- tasks that cannot be -------------------------------------------------------------------------------------------


def _with(values: Any, place: Any, value: Any) -> Any:
    changed = np.array(values, dtype=object if isinstance(value, str) else "float64")
    changed[place] = value
    return changed


# From a task to what is changed of the estimator's parameters, of X, of y and of the weights.
FAULTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "a gap in X": lambda task: {"X": _with(MEASURED, (3, 1), np.nan)},
    "infinity in X": lambda task: {"X": _with(MEASURED, (3, 1), -np.inf)},
    "beyond float32 in X": lambda task: {"X": _with(MEASURED, (3, 1), 1e39)},
    "words in X": lambda task: {"X": _with(MEASURED, (3, 1), "tall")},
    "X of one axis": lambda task: {"X": MEASURED[:, 0]},
    "no rows": lambda task: {"X": MEASURED[:0], "y": np.asarray(task.y)[:0]},
    "fewer rows in X": lambda task: {"X": MEASURED[:-1]},
    "no y": lambda task: {"y": None},
    "a gap in y": lambda task: {"y": _with(np.arange(30.0), 5, np.nan)},
    "one value of y": lambda task: {"y": np.ones((30, 2)) if task.classifies else np.full(30, "a")},
    "weights below zero": lambda task: {"weights": np.linspace(-1, 1, 30)},
    "weights of other rows": lambda task: {"weights": np.ones(29)},
    "more units than targets": lambda task: {"model": lambda: network((4,), task.units + 2, task.choice.activation)},
    "no model": lambda task: {"model": lambda: None},
    "a loss that is none": lambda task: {"loss": "binary_crossentropi"},
    "an optimizer that is none": lambda task: {"optimizer": "adem"},
    "a metric that is none": lambda task: {"metrics": ["acuracy"]},
    "a callback that is none": lambda task: {"callbacks": [print]},
    "an option that reaches nothing": lambda task: {"optimizer__learning_rat": 0.1},
    "a parameter that reaches nothing": lambda task: {"hiden": 3},
    "no epochs": lambda task: {"epochs": 0},
    "a batch of no rows": lambda task: {"batch_size": 0},
    "all rows held out": lambda task: {"validation_split": 1.0},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("number", [*range(FIRST, FIRST + N_TASKS, 23)])
def test_a_task_that_cannot_be_is_refused_in_words_and_trains_nothing(fault: str, number: int) -> None:
    numbers = (Task(drawn) for drawn in range(number * 1000, number * 1000 + 1000))
    task = next(task for task in numbers if task.given == "function" and task.rows != "series")
    changes: dict[str, Any] = {"X": task.X, "y": task.y, "weights": None, **FAULTS[fault](task)}
    X, y, weights = (changes.pop(name) for name in ("X", "y", "weights"))
    estimator = task.estimator()
    begun = {**vars(estimator)}
    with pytest.raises((KerasToolkitError, ValueError, TypeError)) as caught:
        # The constructor stores what it is given, and fit looks at it.
        type(estimator)(**{**estimator.get_params(deep=False), **changes}).fit(X, y, sample_weight=weights)
    raised_in = Path(str(caught.traceback[-1].path)).parts
    assert isinstance(caught.value, KerasToolkitError) or "sklearn" in raised_in, (task, caught.value)
    assert len(str(caught.value)) > 20
    assert vars(estimator) == begun
