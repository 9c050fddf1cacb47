"""Fits in one program end as `Model.fit` would end them, one by one.

The reference is `Model.fit` itself, on the same starting weights and with the rows in the same order. A callback that
looks at batches sends a fit there.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.training import Fit, Trained, _drawing, _program, _state, _threads, explain, fit_many, fused
from kerastoolkit.training import network as network_module
from kerastoolkit.training._backends.base import TRACING_LOCK
from kerastoolkit.training._backends.jax import _CompiledByJax
from kerastoolkit.training._backends.tensorflow import TensorFlowBackend
from kerastoolkit.training._costs import Costs
from kerastoolkit.training._program import Forward, Program
from kerastoolkit.training._run import Run
from kerastoolkit.training._stack import Pool
from kerastoolkit.training.network import Network, Recipe, draw
from kerastoolkit.training.seeds import isolated

layers = keras.layers
TOLERANCE = 2e-5  # relative; rounding, grown over the steps of a few epochs


@pytest.fixture(autouse=True)
def _by_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small dense networks are trained by programs, as all others are, and not in numpy: see test_dense.py."""
    monkeypatch.setattr(fused, "_SECONDS_IN_NUMPY", -math.inf)


def table() -> tuple[Any, Any]:
    X, y = load_wine(return_X_y=True)
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype("float32"), y.astype("int32")


def network(hidden: Callable[[], list[Any]], rate: float = 0.01, **compiled: Any) -> keras.Model:
    X, _ = table()
    model = keras.Sequential([keras.Input(X.shape[1:]), *hidden(), layers.Dense(3, activation="softmax")])
    arguments = {"optimizer": keras.optimizers.Adam(rate), "loss": "sparse_categorical_crossentropy", **compiled}
    model.compile(**arguments)
    return model


def dense() -> list[Any]:
    return [layers.Dense(8, activation="relu")]


def watched_batches() -> Any:
    """A callback that looks at batches and does nothing: it leaves the fit to `Model.fit`."""
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)


def three_ways(make: Callable[[int], Fit], n: int = 3, together: bool = True) -> list[tuple[Trained, Trained]]:
    """The same fits together and by `Model.fit`, in pairs."""

    def fits(by_keras: bool) -> list[Fit]:
        made = []
        for number in range(n):
            random.seed(number)
            fit = make(number)
            if by_keras:
                fit.callbacks = [*fit.callbacks, watched_batches()]
            made.append(fit)
        return made

    ours = fit_many(fits(False))
    theirs = fit_many(fits(True))
    for one in [*ours, *theirs]:
        if one.error is not None:
            raise one.error
    assert {one.how for one in theirs} == {"Model.fit"}
    if together:
        assert {one.how for one in ours} == {"fused"}, explain(ours)
    return list(zip(ours, theirs, strict=True))


def assert_equal(pairs: list[tuple[Trained, Trained]], x: Any, tolerance: float = TOLERANCE) -> None:
    for ours, theirs in pairs:
        assert ours.history.keys() == theirs.history.keys()
        for name, values in theirs.history.items():
            np.testing.assert_allclose(ours.history[name], values, rtol=tolerance, atol=tolerance, err_msg=name)
        expected = keras.tree.flatten(theirs.model.predict(x, verbose=0))
        found = keras.tree.flatten(ours.model.predict(x, verbose=0))
        for a, b in zip(found, expected, strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=10 * tolerance)


def simple(number: int, **options: Any) -> Fit:
    """Fits that differ in rate, rows and seed."""
    X, y = table()
    kept = np.arange(len(X)) % 3 != number % 3
    given = {"epochs": 3, "seed": number, **options}
    return Fit(network(dense, rate=0.01 * (number + 1)), X[kept], y[kept], **given)


def test_fused_fits_end_as_model_fit() -> None:
    X, _ = table()
    assert_equal(three_ways(simple), X)


@pytest.mark.backend("tensorflow", "torch")  # on JAX, Keras itself refuses it
def test_layers_frozen_since_the_first_fit_are_left_to_keras() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        model = network(dense, rate=0.01 * (number + 1))
        model.fit(X, y, verbose=0, shuffle=False)
        model.layers[0].trainable = False
        return Fit(model, X, y, epochs=2, seed=number)

    pairs = three_ways(make, n=2, together=False)
    assert {ours.reason for ours, _ in pairs} == {"layers were frozen or thawed since its optimizer was built"}
    assert_equal(pairs, X)


def test_a_fit_alone_ends_as_model_fit() -> None:
    X, _ = table()
    pairs = three_ways(simple, n=1, together=False)
    assert pairs[0][0].how == "alone"
    assert_equal(pairs, X)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [16, 59, 1000])
def test_batches_that_are_not_whole(batch_size: int, shuffle: bool) -> None:
    X, _ = table()
    assert_equal(three_ways(lambda number: simple(number, batch_size=batch_size, shuffle=shuffle)), X)


def test_folds_of_very_unequal_size() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        n = (50, 51, 130, 20)[number]
        return Fit(network(dense), X[:n], y[:n], epochs=3, seed=number)

    assert_equal(three_ways(make, n=4), X)


def test_a_model_has_the_history_of_its_last_fit() -> None:
    fits = [simple(number) for number in range(2)]
    histories = [one.history for one in fit_many(fits)]
    for fit, history in zip(fits, histories, strict=True):
        assert fit.model.history.history == history
        assert fit.model.history.model is fit.model


@pytest.fixture(autouse="KERASTOOLKIT_TEST_XLA" in os.environ)
def by_xla(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every training counts as long enough for XLA; whether each call that was meant for it was its."""
    calls: list[bool] = []
    run = Program._run_by_xla

    def counted(self: Program, *arguments: Any, **options: Any) -> Any:
        result = run(self, *arguments, **options)
        calls.append(result is not None)
        return result

    monkeypatch.setattr(Program, "_run_by_xla", counted)
    monkeypatch.setattr(fused, "_SECONDS_OF_XLA", 1e-6)
    if os.environ.get("KERASTOOLKIT_TEST_XLA") == "epochs":
        monkeypatch.setattr(fused, "_SECONDS_OF_XLA_FOR_EPOCHS", 1e-6)
        monkeypatch.setattr(fused, "_MODELS_PER_SHARD", 3)
    return calls


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("n", [1, 2, 5])  # five: more than one call, and the last one filled up
def test_long_trainings_are_by_xla(n: int, by_xla: list[bool]) -> None:
    # the second fit stops after two epochs of four
    fits = three_ways(lambda number: simple(number, epochs=2 if number == 1 else 4), n=n, together=n > 1)
    assert_equal(fits, table()[0])
    # None in the first epoch, then one call in each, since batches of another size are left to TensorFlow.
    assert by_xla == [True] * 3


@pytest.mark.backend("tensorflow")
def test_the_last_of_many_are_not_by_xla(by_xla: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Costs, "models_a_call", lambda self, n_models: 4)
    # All but one end after two epochs of five.
    assert_equal(three_ways(lambda number: simple(number, epochs=5 if number == 2 else 2), n=6), table()[0])
    assert by_xla == [True]


@pytest.mark.backend("tensorflow")
def test_long_epochs_by_xla_are_several_calls(by_xla: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "MAX_STEPS_BY_XLA", 4)
    # 14 or 15 steps: three calls of 4 and the rest by TensorFlow
    assert_equal(three_ways(lambda number: simple(number, epochs=2, batch_size=8)), table()[0])
    assert len(by_xla) == 4


@pytest.mark.backend("tensorflow")
def test_what_callbacks_may_end_is_by_xla_when_it_has_trained_long_enough(
    by_xla: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_SECONDS_OF_XLA", 3 * 3 * 2.5 * 12e-6)  # three fits, three steps, after 2.5 epochs

    def fit(number: int) -> Fit:
        return simple(number, epochs=6, callbacks=[keras.callbacks.EarlyStopping("loss", patience=10)])

    assert_equal(three_ways(fit), table()[0])
    assert len(by_xla) == 3


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(lambda: [layers.Dense(8), layers.Dropout(0.3)], id="its random numbers are others"),
        pytest.param(lambda: [layers.Reshape((13, 1)), layers.Conv1D(4, 3), layers.Flatten()], id="it is slower"),
    ],
)
def test_what_is_not_for_xla(hidden: Callable[[], list[Any]], by_xla: list[bool]) -> None:
    assert_equal(three_ways(lambda number: Fit(network(hidden), *table(), epochs=3, seed=number)), table()[0])
    assert by_xla == []


def loss_by_strings(y: Any, output: Any) -> Any:
    """A loss with an operation that XLA does not know."""
    import tensorflow as tf

    found = keras.losses.sparse_categorical_crossentropy(y, output)
    return found + 0.0 * tf.cast(tf.strings.length(tf.strings.as_string(found)), found.dtype)


@pytest.mark.backend("tensorflow")
def test_what_xla_does_not_know_is_trained_without_it(by_xla: list[bool]) -> None:
    def fit(number: int) -> Fit:
        return Fit(network(dense, loss=loss_by_strings), *table(), epochs=3, seed=number)

    assert_equal(three_ways(fit, n=1, together=False), table()[0])
    assert by_xla == [False] * 2


@pytest.fixture
def epochs_by_xla(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whole epochs pay for XLA, two models a call; models and epochs of each call, None if it failed."""
    calls: list[Any] = []
    of_epochs = Program.of_epochs

    def watched(self: Program, *arguments: Any, **options: Any) -> Any:
        run = of_epochs(self, *arguments, **options)

        def noted(part: Any) -> Any:
            found = run(part)  # type: ignore[misc]
            calls.append(None if found is None else part.permutations.shape[:2])
            return found

        return run and noted

    monkeypatch.setattr(Program, "of_epochs", watched)
    monkeypatch.setattr(fused, "_SECONDS_OF_XLA_FOR_EPOCHS", 1e-6)
    monkeypatch.setattr(fused, "_MODELS_PER_SHARD", 2)
    return calls


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("batch_size", [7, 32, 1000])  # of 118 or 119 rows: 7 divides these
def test_epochs_that_nobody_looks_at_are_by_xla(batch_size: int, epochs_by_xla: list[Any]) -> None:
    assert_equal(three_ways(lambda number: simple(number, batch_size=batch_size, epochs=4), n=5), table()[0])
    # The first epoch is by TensorFlow. Two fits have 118 rows and three 119, of which the last is filled up to two.
    assert epochs_by_xla == [(2, 3)] * 3


@pytest.mark.backend("tensorflow")
def test_epochs_by_xla_are_several_calls(epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "MAX_STEPS_BY_XLA", 9)
    # The second ends after two epochs of six. An epoch of all is four steps, so that a call takes two of them.
    pairs = three_ways(lambda number: simple(number, epochs=2 if number == 1 else 6), n=3)
    assert_equal(pairs, table()[0])
    assert sorted(epochs for _, epochs in epochs_by_xla) == sorted([2, 2, 1, 1, 2, 2, 1])


@pytest.mark.backend("tensorflow")
def test_states_of_all_kinds_by_xla(epochs_by_xla: list[Any]) -> None:
    def make(number: int) -> Fit:
        hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dense(4, "tanh")]
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.01 * (number + 1), clipnorm=1.0)
        metrics = [keras.metrics.F1Score(), keras.metrics.CategoricalAccuracy()]  # a number for each class, and one
        model = network(lambda: hidden, optimizer=optimizer, loss="categorical_crossentropy", metrics=metrics)
        X, y = table()
        weights = np.linspace(0.5, 2, len(X)).astype("float32")
        return Fit(model, X, np.eye(3, dtype="float32")[y], weights, epochs=3, seed=number)

    assert_equal(three_ways(make), table()[0])
    assert epochs_by_xla == [(2, 2)] * 2  # three fits, two a call


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("watched", ["by callbacks", "by validation", "by a judge"])
def test_epochs_that_somebody_looks_at_are_not_taken_together(watched: str, epochs_by_xla: list[Any]) -> None:
    def make(number: int) -> Fit:
        stopping = [keras.callbacks.EarlyStopping("loss", patience=9)] if watched == "by callbacks" else []
        return simple(number, callbacks=stopping, validation_data=table() if watched == "by validation" else None)

    judge: Any = (lambda logs: set()) if watched == "by a judge" else None
    trained = fit_many([make(number) for number in range(3)], should_stop=judge)
    assert [one.how for one in trained] == ["fused"] * 3
    assert epochs_by_xla == []


@pytest.mark.backend("tensorflow")
def test_epochs_that_xla_does_not_know_are_trained_without_it(epochs_by_xla: list[Any]) -> None:
    def fit(number: int) -> Fit:
        return Fit(network(dense, loss=loss_by_strings), *table(), epochs=3, seed=number)

    assert_equal(three_ways(fit), table()[0])
    assert set(epochs_by_xla) == {None}


@pytest.mark.backend("tensorflow")
def test_a_training_by_xla_that_the_user_stops_keeps_what_it_has_learned(
    epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state, "MAX_STEPS_BY_XLA", 9)

    def make(number: int, epochs: int) -> Fit:
        random.seed(number)
        return simple(number, epochs=epochs)

    # More than other threads train while this one waits for its turn on a busy machine.
    fits = [make(number, 20_000) for number in range(3)]

    def stop(done: int, epochs: int) -> None:
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_many(fits, on_epoch_end=stop)
    n_epochs = [int(keras.ops.convert_to_numpy(fit.model.optimizer.iterations)) // 4 for fit in fits]
    assert 9 <= sum(n_epochs)  # one by TensorFlow, then calls of two, on every core
    assert max(n_epochs) < 20_000
    for number, (fit, epochs) in enumerate(zip(fits, n_epochs, strict=True)):
        whole = make(number, epochs)
        whole.callbacks = [watched_batches()]
        expected = fit_many([whole])[0].model.predict(table()[0], verbose=0)
        np.testing.assert_allclose(fit.model.predict(table()[0], verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.backend("tensorflow")
def test_training_by_xla_does_not_wait_for_whoever_waits_for_its_threads(
    epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state, "MAX_STEPS_BY_XLA", 9)
    waited: list[Any] = []

    def train_something_else(done: int, epochs: int) -> None:
        if epochs_by_xla and not waited:  # as a program does that XLA compiled, step by step
            with TRACING_LOCK:
                waited.extend(_threads.workers().map(str, [1]))

    fit_many([simple(number, epochs=200) for number in range(5)], on_epoch_end=train_something_else)
    assert waited == ["1"]


@pytest.mark.backend("tensorflow", "jax")  # on torch each call goes through the code of the layers
def test_who_predicts_does_not_wait_for_who_traces() -> None:
    model, rows = network(lambda: [layers.Dense(8), layers.BatchNormalization()]), np.ones((50, 13), "float32")
    forward = Forward(model)
    parts = model.trainable_variables, model.non_trainable_variables
    values = [[variable.value for variable in part] for part in parts]
    expected = keras.ops.convert_to_numpy(forward(*values, rows))
    found: list[Any] = []
    predicting = threading.Thread(target=lambda: found.append(forward(*values, rows)), daemon=True)
    with TRACING_LOCK:
        predicting.start()
        predicting.join(1500)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found[0]), expected)


def test_threads_that_predict_while_another_trains_get_what_one_gets() -> None:
    X, y = table()
    networks = [network(dense), network(lambda: [layers.Dense(8), layers.BatchNormalization()])]
    trained = fit_many([Fit(one, X, y, epochs=1, seed=0) for one in networks])
    rows = np.concatenate([X] * 5)
    expected = [keras.ops.convert_to_numpy(one.network.predict(rows)) for one in trained]
    found: list[tuple[int, Any]] = []

    def predict(which: int) -> None:
        for _ in range(20):
            found.append((which, keras.ops.convert_to_numpy(trained[which].network.predict(rows))))

    threads = [threading.Thread(target=predict, args=(number % 2,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    fit_many([Fit(network(dense, 0.02), X, y, epochs=3, seed=1) for _ in range(2)])
    for thread in threads:
        thread.join(1500)
    assert len(found) == 160
    for which, output in found:
        np.testing.assert_array_equal(output, expected[which])


def test_whoever_stops_work_does_not_wait_for_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, others_are_done = _threads.workers(), threading.Event()
    others = [pool.submit(others_are_done.wait) for _ in range(joblib.cpu_count())]

    class Full:
        handed_in = 0

        def submit(self, *call: Any) -> Any:
            self.handed_in += 1
            if self.handed_in == 2:
                raise RuntimeError("can't start new thread")
            return pool.submit(*call)

    full = Full()
    monkeypatch.setattr(_threads, "workers", lambda: full)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(_threads.on_each_core([iter([1]), iter([2])]))
        assert not any(other.done() for other in others)
    finally:
        others_are_done.set()


def test_work_on_each_core_ends_where_a_part_of_it_raises_or_the_caller_leaves() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def failing() -> Iterator[int]:
        yield 0
        raise ValueError("lost")

    def endless() -> Iterator[int]:
        for number in itertools.count():
            begun.append(number)
            time.sleep(0.05)
            ended.append(number)
            yield number

    with pytest.raises(ValueError, match="lost"):
        list(_threads.on_each_core([failing(), endless()]))
    assert begun == ended  # what had begun was waited for
    left_early = _threads.on_each_core([endless()])
    next(left_early)
    time.sleep(0.01)  # it goes on meanwhile
    left_early.close()
    assert begun == ended
    after = len(begun)
    time.sleep(0.1)
    assert len(begun) == after


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(("expected", "calls"), [(0, 0), (15, 0), (60, 2)])  # of one fit with 118 rows, two with 119
def test_what_pays_for_many_is_done_for_a_few_of_them(
    expected: int, calls: int, epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 118 or 119 rows are three steps and a short one, which counts as three; two epochs are left after the first.
    monkeypatch.setattr(fused, "_SECONDS_OF_XLA_FOR_EPOCHS", 6 * 2 * 12.5e-6 * 10)
    fit_many([simple(number) for number in range(3)], n_expected=expected)
    assert len(epochs_by_xla) == calls


@pytest.mark.backend("tensorflow")
def test_another_number_of_rows_is_compiled_beside_the_first_for_half(
    epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three fits of 119 rows save 0.40 ms in two epochs, what they are filled up with counted; two of 118 save 0.30.
    for costs, parts in [(0.35e-3, 3), (0.5e-3, 0)]:
        epochs_by_xla.clear()
        monkeypatch.setattr(fused, "_SECONDS_OF_XLA_FOR_EPOCHS", costs)
        fit_many([simple(number) for number in range(5)])
        assert len(epochs_by_xla) == parts


@pytest.mark.backend("tensorflow")
def test_fits_of_several_structures_are_not_taken_for_many_of_each(
    epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_SECONDS_OF_XLA_FOR_EPOCHS", 6 * 2 * 12.5e-6 * 10)
    others = [Fit(network(lambda: [layers.Dense(5)]), *table(), epochs=3, seed=number) for number in range(3)]
    fit_many([*[simple(number) for number in range(3)], *others], n_expected=600)
    assert epochs_by_xla == []


@pytest.mark.backend("tensorflow")
def test_calls_by_xla_are_short_and_hold_few_orders(epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_SECONDS_A_CALL", 2.5 * 4 * 3 * 6.3e-6)  # two epochs and a half of four steps of three
    fit_many([simple(number, epochs=4) for number in range(3)])
    assert sorted(epochs for _, epochs in epochs_by_xla) == [1, 1, 2, 2]
    monkeypatch.setattr(fused, "_MAX_INDICES", 118)
    fit_many([simple(number, epochs=4) for number in range(3)])
    assert len(epochs_by_xla) == 4


@pytest.mark.backend("tensorflow")
def test_what_parts_are_filled_up_with_counts(epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fits = [simple(number) for number in (0, 3)]
    monkeypatch.setattr(fused, "_MODELS_PER_SHARD", 32)  # thirty would be trained for nothing
    assert {one.how for one in fit_many(fits)} == {"fused"}
    assert epochs_by_xla == []


@pytest.mark.backend("tensorflow")
def test_programs_of_epochs_are_kept_for_a_few_numbers_of_rows(
    epochs_by_xla: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_program, "_MAX_PROGRAMS_OF_EPOCHS", 2)
    X, y = table()
    for n in (100, 101, 102, 100):
        pair = [Fit(network(lambda: [layers.Dense(11)]), X[:n], y[:n], epochs=2, seed=number) for number in range(2)]
        trained = fit_many(pair)
    assert len(epochs_by_xla) == 4
    assert trained[0].network is not None
    assert trained[0].network.program is not None
    assert [key[-1] for key, _ in trained[0].network.program._of_epochs_kept.items()] == [102, 100]


def test_epochs_that_differ() -> None:
    X, _ = table()
    pairs = three_ways(lambda number: simple(number, epochs=1 + 2 * number))
    assert [len(ours.history["loss"]) for ours, _ in pairs] == [1, 3, 5]
    assert_equal(pairs, X)


def test_weights_of_rows_that_differ() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        weights = np.random.default_rng(number).uniform(0.1, 2, len(X)).astype("float32")
        model = network(dense, metrics=["accuracy"], weighted_metrics=["accuracy"])
        return Fit(model, X, y, weights, epochs=3, seed=0)

    assert_equal(three_ways(make), X)


def test_validation_each_epoch_and_every_second() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        options = {"validation_data": (X[::3], y[::3]), "validation_batch_size": 7, "validation_freq": 1 + number % 2}
        return Fit(network(dense, metrics=["accuracy"]), X, y, epochs=4, seed=number, **options)

    pairs = three_ways(make, n=4)
    assert [len(ours.history["val_loss"]) for ours, _ in pairs] == [4, 2, 4, 2]
    assert_equal(pairs, X)


OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "adadelta": lambda rate: keras.optimizers.Adadelta(100 * rate),
    "adafactor": lambda rate: keras.optimizers.Adafactor(rate),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "adam amsgrad": lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
    "adam betas": lambda rate: keras.optimizers.Adam(0.01, beta_1=0.9 - rate, beta_2=0.99 + rate / 10),
    "adam epsilon": lambda rate: keras.optimizers.Adam(0.01, epsilon=rate),
    "adam ema": lambda rate: keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.9),
    "adam weight decay": lambda rate: keras.optimizers.Adam(0.01, weight_decay=rate),
    "adam clipnorm": lambda rate: keras.optimizers.Adam(0.01, clipnorm=10 * rate),
    "adam clipvalue": lambda rate: keras.optimizers.Adam(0.01, clipvalue=rate),
    "adam global clipnorm": lambda rate: keras.optimizers.Adam(0.01, global_clipnorm=10 * rate),
    "adam schedule": lambda rate: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)),
    "adam warmed up": lambda rate: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.001, 12, warmup_target=0.02, warmup_steps=4)
    ),
    "adam by pieces": lambda rate: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay([4, 9, 12], [0.03, 0.02, 0.01, 0.005])
    ),
    "adamax": lambda rate: keras.optimizers.Adamax(rate),
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1 * rate),
    "ftrl": lambda rate: keras.optimizers.Ftrl(10 * rate),
    "lamb": lambda rate: keras.optimizers.Lamb(rate),
    "lion": lambda rate: keras.optimizers.Lion(0.1 * rate),
    "muon": lambda rate: keras.optimizers.Muon(rate),
    "nadam": lambda rate: keras.optimizers.Nadam(rate),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate),
    "rmsprop centered": lambda rate: keras.optimizers.RMSprop(rate, rho=0.9 - rate, momentum=0.5, centered=True),
    "sgd": lambda rate: keras.optimizers.SGD(rate),
    "sgd momentum": lambda rate: keras.optimizers.SGD(0.01, momentum=0.5 + rate),
    "sgd nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
}


# Numbers that are not lifted into the program: JAX has single precision only, and `1 - beta_2` would lose its digits.
DIFFERENT_FOR_JAX = {"adam betas", "adam clipvalue", "rmsprop centered"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        model = network(dense, optimizer=OPTIMIZERS[name](0.01 * (number + 1)))
        return Fit(model, X, y, epochs=3, seed=number)

    together = keras.config.backend() != "jax" or name not in DIFFERENT_FOR_JAX
    assert_equal(three_ways(make, together=together), X)


@pytest.mark.backend("torch")
def test_nadam_of_torch_subtracts_in_double_precision() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        optimizer = keras.optimizers.Nadam(0.01, beta_2=0.999 if number else 0.99)
        return Fit(network(dense, optimizer=optimizer), X, y, epochs=8, seed=number)

    for ours, theirs in three_ways(make):
        a, b = (keras.ops.convert_to_numpy(one.model(X)) for one in (ours, theirs))
        assert np.abs(a - b).max() < 1.5e-6  # of a probability; 5e-6 in single precision


LAYERS: dict[str, Callable[[], list[Any]]] = {
    "activations": lambda: [layers.Dense(8), layers.LeakyReLU(), layers.Dense(8), layers.PReLU()],
    "batch normalization": lambda: [layers.Dense(8), layers.BatchNormalization(), layers.Activation("relu")],
    "layer normalization": lambda: [layers.Dense(8), layers.LayerNormalization(), layers.Activation("relu")],
    "unit normalization": lambda: [layers.Dense(8), layers.UnitNormalization()],
    "convolution 1-d": lambda: [layers.Reshape((13, 1)), layers.Conv1D(4, 3), layers.GlobalMaxPooling1D()],
    "convolution 2-d": lambda: [
        layers.Dense(16),
        layers.Reshape((4, 4, 1)),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
    ],
    "separable": lambda: [layers.Dense(16), layers.Reshape((4, 4, 1)), layers.SeparableConv2D(4, 3), layers.Flatten()],
    "gru": lambda: [layers.Reshape((13, 1)), layers.GRU(4)],
    "lstm of what is trained": lambda: [layers.Dense(12), layers.Reshape((6, 2)), layers.LSTM(3)],
    "normalization": lambda: [layers.Normalization(mean=0.5, variance=2.0), layers.Dense(8)],
    "attention": lambda: [layers.Reshape((13, 1)), layers.Dense(4), SelfAttention(), layers.Flatten()],
    "activity penalty": lambda: [layers.Dense(8, activity_regularizer="l2")],
    "constraint": lambda: [layers.Dense(8, kernel_constraint=keras.constraints.MaxNorm(0.5))],
}


class SelfAttention(layers.Layer):
    """A layer of a user's: nothing about it is known to the toolkit."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 2)

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)

    def call(self, inputs: Any) -> Any:
        return self.attention(inputs, inputs)


# The others are made by a function, so that it is known that they are alike.
MADE_BY_HAND = {"attention", "normalization"}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_STEPS_WORTH_STACKING", 0)
    X, y = table()

    def make(number: int) -> Fit:
        build = functools.partial(network, LAYERS[name])
        return Fit(build() if name in MADE_BY_HAND else build, X, y, epochs=2, seed=number)

    assert_equal(three_ways(make, together=name != "attention"), X, tolerance=1e-4)


def test_a_recurrent_layer_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_STEPS_WORTH_STACKING", 0)
    words = np.random.default_rng(0).integers(0, 9, (80, 5)).astype("int32")  # 0: there is no word
    target = (words.sum(axis=1) % 2).astype("float32")[:, None]

    def make(number: int) -> Fit:
        inputs = keras.Input((5,), dtype="int32")
        x = layers.SimpleRNN(3)(layers.Embedding(9, 4, mask_zero=True)(inputs))
        model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
        model.compile(keras.optimizers.Adam(0.01 * (number + 1)), "binary_crossentropy")
        return Fit(model, words, target, epochs=2, seed=number)

    assert_equal(three_ways(make), words)


@pytest.mark.backend("tensorflow")
def test_few_steps_of_recurrent_layers_are_quicker_one_by_one() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        return Fit(network(lambda: [layers.Reshape((13, 1)), layers.GRU(5)]), X, y, epochs=1, seed=number)

    for one in fit_many([make(number) for number in range(2)]):
        assert (one.how, one.reason, one.error) == ("alone", "one by one was quicker", None)


@pytest.mark.backend("tensorflow", "jax")
def test_numbers_of_layers_that_differ() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        penalty = keras.regularizers.L2(0.01 * (number + 1))
        hidden = [layers.Dropout(0.1 + number / 10), layers.Dense(8, kernel_regularizer=penalty)]
        return Fit(network(lambda: hidden), X, y, epochs=3, seed=number)

    assert_equal(three_ways(make), X)


PENALTIES: dict[str, Callable[[int], Any]] = {
    "l1": lambda number: keras.regularizers.L1(0.01),
    "l2": lambda number: keras.regularizers.L2(0.01 * (number + 1)),
    "l1 and l2": lambda number: keras.regularizers.L1L2(0.01 * (number + 1), 0.02 / (number + 1)),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_that_differ(name: str) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        hidden = [layers.Dense(8, kernel_regularizer=PENALTIES[name](number))]
        return Fit(network(lambda: hidden), X, y, epochs=3, seed=number)

    assert_equal(three_ways(make), X)


SMOOTHED = {
    "BinaryCrossentropy": 1, "BinaryFocalCrossentropy": 1, "CategoricalCrossentropy": 3,
    "CategoricalFocalCrossentropy": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothings_of_labels_that_differ(name: str) -> None:
    X, y = table()
    units = SMOOTHED[name]
    target = np.eye(3, dtype="float32")[y] if units == 3 else (y > 0).astype("float32")[:, None]
    losses = []

    def make(number: int) -> Fit:
        output = layers.Dense(units, activation="softmax" if units == 3 else "sigmoid")
        model = keras.Sequential([keras.Input((13,)), *dense(), output])
        losses.append(getattr(keras.losses, name)(label_smoothing=0.1 * (number + 1)))
        model.compile(keras.optimizers.Adam(0.01), losses[-1])
        return Fit(model, X, target, epochs=2, seed=number, validation_data=(X[::3], target[::3]))

    pairs = three_ways(make)
    assert_equal(pairs, X)
    for loss, number in zip(losses, [0, 1, 2] * 2, strict=True):
        assert loss.get_config()["label_smoothing"] == 0.1 * (number + 1)
    for (ours, _), number in zip(pairs, range(3), strict=True):
        assert ours.model.loss is losses[number]
        expected = ours.model.evaluate(X[::3], target[::3], verbose=0)
        np.testing.assert_allclose(ours.history["val_loss"][-1], expected, rtol=1e-5)


def test_a_program_has_losses_of_its_own() -> None:
    """While it is traced, the smoothing in them is a tensor, and the user's model may be trained elsewhere."""
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    X, y = table()
    trained = fit_many([Fit(network(dense, loss=loss), X, np.eye(3, dtype="float32")[y])])[0]
    own = trained.network.program.template.loss  # type: ignore[union-attr]
    assert own is not loss
    assert own._fn_kwargs == loss._fn_kwargs
    assert own._fn_kwargs is not loss._fn_kwargs


def test_no_smoothing_and_smoothing_are_not_fused() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1 * number)
        return Fit(network(dense, loss=loss), X, np.eye(3, dtype="float32")[y], epochs=2, seed=number)

    pairs = three_ways(make, n=2, together=False)
    assert [ours.how for ours, _ in pairs] == ["alone", "alone"]
    assert_equal(pairs, X)


@pytest.mark.backend("torch")
def test_random_numbers_of_torch_are_left_to_keras() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        return Fit(network(lambda: [layers.Dropout(0.1), layers.Dense(8)]), X, y, epochs=2, seed=number)

    pairs = three_ways(make, n=2, together=False)
    assert [ours.how for ours, _ in pairs] == ["Model.fit"] * 2
    assert pairs[0][0].reason == "Dropout draws random numbers, on torch from a generator of the process"
    assert_equal(pairs, X)


LOSSES = ["mse", "mae", "huber", "log_cosh", "poisson", "mape"]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_regression(loss: str) -> None:
    X, y = table()
    target = (y + 1 + X[:, :1].T[0] ** 2).astype("float32")[:, None]

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((13,)), *dense(), layers.Dense(1, activation="softplus")])
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["mae", "r2_score", "root_mean_squared_error"])
        return Fit(model, X, target, epochs=2, seed=number)

    assert_equal(three_ways(make), X, tolerance=1e-4)


def test_metrics_with_a_state_of_their_own() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype("float32")
    y = y.astype("float32")[:, None]

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((30,)), layers.Dense(4), layers.Dense(1, activation="sigmoid")])
        metrics = [keras.metrics.AUC(name="auc"), keras.metrics.F1Score(threshold=0.5, name="f1"), "accuracy"]
        metrics += [keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")]
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=metrics)
        return Fit(model, X, y, epochs=2, seed=number, validation_data=(X[::4], y[::4]))

    assert_equal(three_ways(make), X)


@pytest.mark.parametrize("owner", ["model", "layer"])
def test_a_metric_that_is_an_attribute_is_in_the_history(owner: str) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        model = network(dense)
        holds = model if owner == "model" else model.layers[0]
        holds._tracker.unlock()
        holds._extra = keras.metrics.Mean(name="extra")  # never told of anything
        return Fit(model, X, y, epochs=2, seed=number)

    pairs = three_ways(make, together=False)
    assert all(ours.history["extra"] == [0.0, 0.0] for ours, _ in pairs)
    assert_equal(pairs, X)


def test_counts_of_training_are_not_those_of_validation() -> None:
    """On torch, Keras itself shows the validation's in their place."""
    X, y = table()
    target = (y > 0).astype("float32")[:, None]

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((13,)), layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[keras.metrics.FalseNegatives(name="missed")])
        return Fit(model, X, target, epochs=2, seed=number, validation_data=(X[::2], target[::2]))

    for one in fit_many([make(number) for number in range(2)]):
        missed = (target == 1) & (keras.ops.convert_to_numpy(one.model(X)) <= 0.5)
        assert missed.sum() != missed[::2].sum()
        assert one.history["missed"] == [missed.sum()] * 2
        assert one.history["val_missed"] == [missed[::2].sum()] * 2


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_labels_of_hinge_losses_are_told_apart_for_each_model(loss: str) -> None:
    X, y = table()
    is_first = (y == 0).astype("float32")[:, None]

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((13,)), *dense(), layers.Dense(1, activation="tanh")])
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=[keras.metrics.Hinge(name="found")])
        return Fit(model, X, 2 * is_first - 1 if number % 2 else is_first, epochs=2, seed=number)

    assert_equal(three_ways(make), X)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # by Keras itself, of JAX that has none
def test_metrics_of_overlap() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        metrics = [
            keras.metrics.MeanIoU(3, name="mean", sparse_y_pred=False),
            keras.metrics.IoU(3, [0, 2], name="some", sparse_y_pred=False),
        ]
        model = network(dense, rate=0.01 * (number + 1), metrics=metrics)
        return Fit(model, X, y, epochs=2, seed=number, validation_data=(X[::3], y[::3]))

    assert_equal(three_ways(make), X)


def test_a_gradient_through_a_condition_of_each_model() -> None:
    X, y = table()
    target = X[:, :1] + 1

    def root_or_nothing(y: Any, output: Any) -> Any:
        distance = keras.ops.mean(keras.ops.abs(y - output))
        # The root of a negative number would be NaN, if it were computed for those that do not take it.
        return keras.ops.cond(distance > 2, lambda: keras.ops.sqrt(distance - 2), lambda: 0.1 * distance)

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((13,)), layers.Dense(1, bias_initializer=keras.initializers.Constant(9))])
        model.compile(keras.optimizers.Adam(0.3), root_or_nothing)
        return Fit(model, X, target * (1 + 3 * number), epochs=3, seed=number)

    assert_equal(three_ways(make, together=False), X)


def test_several_inputs_and_outputs() -> None:
    X, y = table()
    data = {"left": X[:, :6], "right": X[:, 6:]}
    target = {"kind": y, "size": X[:, :1] * 2}

    def make(number: int) -> Fit:
        left, right = keras.Input((6,), name="left"), keras.Input((7,), name="right")
        joined = layers.concatenate([layers.Dense(4)(left), layers.Dense(4)(right)])
        outputs = {
            "kind": layers.Dense(3, activation="softmax", name="kind")(joined),
            "size": layers.Dense(1, name="size")(joined),
        }
        model = keras.Model({"left": left, "right": right}, outputs)
        losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
        model.compile(keras.optimizers.Adam(0.01 * (number + 1)), losses, loss_weights={"kind": 1.0, "size": 0.5})
        return Fit(model, data, target, epochs=2, seed=number)

    assert_equal(three_ways(make), data)


def test_embeddings_with_rows_seen_often() -> None:
    dtype = "int32" if keras.config.backend() == "jax" else "int64"  # of the other, Keras itself warns on JAX
    words = np.random.default_rng(0).integers(0, 20, (100, 6)).astype(dtype)
    target = (words.sum(axis=1) % 2).astype("float32")[:, None]

    def make(number: int) -> Fit:
        model = keras.Sequential(
            [keras.Input((6,), dtype=dtype), layers.Embedding(20, 4), layers.Flatten(), layers.Dense(1)]
        )
        model.compile(keras.optimizers.Adam(0.01 * (number + 1)), "mse")
        return Fit(model, words, target, epochs=3, seed=number)

    assert_equal(three_ways(make), words)


def test_early_stopping_restores_its_own_best_weights() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        stop = keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=number, restore_best_weights=True, start_from_epoch=1
        )
        model = network(dense, rate=0.3 * (number + 1))
        return Fit(model, X[::2], y[::2], epochs=12, seed=number, callbacks=[stop], validation_data=(X[1::2], y[1::2]))

    pairs = three_ways(make, n=4)
    assert len({len(ours.history["loss"]) for ours, _ in pairs}) > 1  # some stopped before others
    assert_equal(pairs, X, tolerance=1e-3)


CALLBACKS: dict[str, Callable[[int], Any]] = {
    "plateau": lambda number: keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10.0),
    "scheduler": lambda number: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * (0.9 - number / 10)),
    "of a user": lambda number: HalvesWeights(),
}


class HalvesWeights(keras.callbacks.Callback):
    """Looks at the model itself, and changes it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.layers[0].set_weights([weight / 2 for weight in self.model.layers[0].get_weights()])


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks(name: str) -> None:
    X, _ = table()
    assert_equal(three_ways(lambda number: simple(number, epochs=4, callbacks=[CALLBACKS[name](number)])), X)


def test_a_schedule_reports_its_rate() -> None:
    trained = fit_many([simple(0, callbacks=[CALLBACKS["scheduler"](0)])])[0]
    np.testing.assert_allclose(trained.history["learning_rate"], [0.009, 0.0081, 0.00729], rtol=1e-6)
    np.testing.assert_allclose(float(trained.model.optimizer.learning_rate), 0.00729, rtol=1e-6)


@pytest.mark.parametrize("initializer", ["he_normal", "orthogonal"])
def test_weights_drawn_many_at_once_are_those_of_builds(initializer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drawing, "_MANY_DRAWINGS", 4)

    def build() -> keras.Model:
        hidden = layers.Dense(4, kernel_initializer=initializer, activation="tanh")
        model = keras.Sequential([keras.Input((13,)), hidden, layers.Dropout(0.5), layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    networks = [Network(Recipe(build, function=(build, {})), seed) for seed in range(8)]
    drawn = [one for one in networks if isinstance(one._state, network_module.PendingState)]
    assert len(drawn) == 6  # two are built, to learn how
    draw(networks)
    for seed, one in enumerate(networks):
        with isolated(seed):
            built = build()
        for a, b in zip(one.model.variables, built.variables, strict=False):  # without Adam's and the metrics'
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(a.value), keras.ops.convert_to_numpy(b.value))


def test_fits_of_a_known_structure_build_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = table()

    def build() -> keras.Model:
        model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def predicted(number: int) -> Any:
        stop = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
        callbacks = [stop, *(CALLBACKS[name](number) for name in ("plateau", "scheduler"))]
        (trained,) = fit_many([Fit(build, X, y, epochs=2, seed=number, callbacks=callbacks)])
        assert trained.network is not None
        return trained.network.predict(X)

    made: list[Recipe] = []
    make = Recipe.make
    monkeypatch.setattr(Recipe, "make", lambda recipe: [made.append(recipe), make(recipe)][1])
    first = [predicted(number) for number in range(3)]
    assert made  # to learn how the starting weights are drawn
    made.clear()
    again = [predicted(number) for number in range(3)]
    assert not made
    for one, other in zip(first, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_checkpoint_holds_the_weights_of_its_own_model(tmp_path: Any) -> None:
    fits = []
    for number in range(2):
        path = tmp_path / f"{number}.weights.h5"
        fits.append(simple(number, callbacks=[keras.callbacks.ModelCheckpoint(path, save_weights_only=True)]))
    for number, trained in enumerate(fit_many(fits)):
        saved = network(dense)
        saved.optimizer.build(saved.trainable_variables)
        saved.load_weights(tmp_path / f"{number}.weights.h5")
        for ours, theirs in zip(trained.model.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_fit_goes_on_where_another_stopped() -> None:
    X, _ = table()
    model = simple(0).model
    keras.utils.set_random_seed(0)
    other = keras.models.clone_model(model)
    other.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    other.set_weights(model.get_weights())
    for by_keras, network_ in ((False, model), (True, other)):
        for first in (0, 2):
            fit = simple(0, initial_epoch=first, epochs=first + 2, callbacks=[watched_batches()] if by_keras else [])
            fit.model = network_
            fit_many([fit])
    np.testing.assert_allclose(model.predict(X, verbose=0), other.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    assert int(model.optimizer.iterations) == int(other.optimizer.iterations)


# -- what fails, fails alone ----------------------------------------------------------------------------------------


def test_one_that_raises_leaves_the_others_unharmed() -> None:
    class Raises(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise ZeroDivisionError("of the user")

    X, _ = table()
    alone = fit_many([simple(0), simple(2)])
    random.seed(0)
    fits = [simple(0), simple(1, callbacks=[Raises()]), simple(2)]
    for fit, one in zip((fits[0], fits[2]), alone, strict=True):
        fit.model.set_weights(simple(0).model.get_weights())
        del one
    trained = fit_many(fits)
    assert isinstance(trained[1].error, ZeroDivisionError)
    assert trained[0].error is None
    assert trained[2].error is None
    assert len(trained[0].history["loss"]) == len(trained[2].history["loss"]) == 3
    assert "failed: ZeroDivisionError" in explain(trained)
    assert explain(trained).startswith("2 fits trained together, as one program.")
    assert explain([trained[0]]).startswith("1 fit trained together, as one program.")


def test_one_that_turns_nan_leaves_the_others_unharmed() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        model = network(dense, optimizer=keras.optimizers.SGD(1e30 if number == 1 else 0.01))
        return Fit(model, X, y, epochs=3, seed=number, callbacks=[keras.callbacks.TerminateOnNaN()])

    pairs = three_ways(make)
    assert np.isnan(pairs[1][0].history["loss"]).any()
    assert len(pairs[1][0].history["loss"]) == len(pairs[1][1].history["loss"]) == 1
    assert_equal([pairs[0], pairs[2]], X)


def test_rows_that_do_not_fit_the_model_are_refused_for_that_fit_alone() -> None:
    X, y = table()
    trained = fit_many([simple(0), Fit(network(dense), X[:, :5], y), simple(1)])
    assert isinstance(trained[1].error, ValueError)
    assert [one.how for one in trained if one.error is None] == ["fused", "fused"]


def test_data_without_rows_are_refused_for_that_fit_alone() -> None:
    X, y = table()
    empty = [Fit(network(dense), X[:0], y[:0]), Fit(network(dense), X, y, validation_data=(X[:0], y[:0]))]
    trained = fit_many([simple(0), *empty, simple(1)])
    assert [one.how for one in trained if one.error is None] == ["fused", "fused"]
    for one, words in zip(trained[1:3], ["`x` must have rows", "`validation_data` must have rows"], strict=True):
        assert isinstance(one.error, DataError)
        assert words in str(one.error)


def test_a_layer_of_the_users_is_no_reason_for_model_fit() -> None:
    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    X, y = table()
    model = keras.Sequential([keras.Input((13,)), Own(), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert fit_many([Fit(model, X, y)])[0].how == "alone"


def test_two_fits_cannot_share_a_model() -> None:
    X, y = table()
    model = network(dense)
    with pytest.raises(ParameterError, match="a model each"):
        fit_many([Fit(model, X, y), Fit(model, X, y)])


# -- what a program cannot do ---------------------------------------------------------------------------------------


def by_numpy(x: Any) -> Any:
    """The sine of a tensor, which the backend does not see the inside of."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        found = tf.numpy_function(np.sin, [x], tf.float32)
        found.set_shape(x.shape)
        return found
    if keras.config.backend() == "jax":
        import jax

        return jax.pure_callback(lambda x: np.sin(np.asarray(x)), jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    import torch

    return torch.from_numpy(np.sin(x.detach().cpu().numpy()))


def loss_by_numpy(y: Any, output: Any) -> Any:
    return keras.losses.mean_squared_error(y, output) * (1.5 + by_numpy(keras.ops.mean(y, axis=-1)))


@keras.saving.register_keras_serializable("tests")
class ByNumpy(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return by_numpy(inputs)


@keras.saving.register_keras_serializable("tests")
class Counts(layers.Layer):
    """Weakens its input from step to step, and counts the steps outside of Keras' variables."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = self.zero()

    @staticmethod
    def zero() -> Any:
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            return tf.Variable(0.0, trainable=False)
        if keras.config.backend() == "torch":
            import torch

            return torch.zeros(())
        return 0.0

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and keras.config.backend() == "tensorflow":
            self.steps.assign_add(1.0)
        elif training and keras.config.backend() == "torch":
            self.steps.add_(1.0)
        return inputs / (1.0 + 0.1 * self.steps)


@keras.saving.register_keras_serializable("tests")
class CountsInPython(layers.Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen = [0]

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.seen[0] += bool(training)
        return inputs / (1.0 + 0.1 * self.seen[0])


@keras.saving.register_keras_serializable("tests")
class Noise(layers.Layer):
    """Draws from the generator of the process."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        return inputs + (keras.random.normal((13,)) if training else 0.0)


@keras.saving.register_keras_serializable("tests")
class NoiseOfTheBackend(layers.Layer):
    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            return inputs + tf.random.normal((13,))
        import torch

        return inputs + torch.randn((13,), device=inputs.device)


@keras.saving.register_keras_serializable("tests")
class ShrinksItsWeights(layers.Dense):
    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.kernel.assign(self.kernel * 0.9)
        return super().call(inputs)


def test_what_no_step_of_several_models_can_do_is_trained_one_by_one() -> None:
    X, y = table()
    target = X[:, :2]

    def make(number: int) -> Fit:
        model = keras.Sequential([keras.Input((13,)), layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.01 * (number + 1)), loss_by_numpy)
        callbacks = [ByTheEpoch(), CALLBACKS["scheduler"](0)]
        return Fit(model, X, target, epochs=3, seed=number, callbacks=callbacks, validation_data=(X[:9], target[:9]))

    pairs = three_ways(make, together=False)
    assert {ours.how for ours, _ in pairs} == {"Model.fit" if keras.config.backend() == "tensorflow" else "alone"}
    assert {ours.n_together for ours, _ in pairs} == {1}
    assert re.search("does more than to compute|cannot take a step together", pairs[0][0].reason or "")
    assert_equal(pairs, X)


class ByTheEpoch(keras.callbacks.Callback):
    """Changes the model itself before anything is trained."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.set_weights([weight * 0.9 for weight in self.model.get_weights()])


SIDE_EFFECTS: dict[str, tuple[Callable[[], Any], str, tuple[str, ...]]] = {
    "numpy": (ByNumpy, "does more than to compute", ("tensorflow",)),
    "counts": (Counts, "changes|in-place", ("tensorflow", "torch")),
    "counts in Python": (CountsInPython, "changes its `seen`", ("torch",)),
    "noise": (Noise, "assigns to a variable|random numbers", ("tensorflow", "torch")),
    "noise of the backend": (NoiseOfTheBackend, "random numbers|more than to compute", ("tensorflow", "torch")),
    "weights": (lambda: ShrinksItsWeights(13), "assigns to the weight", ("tensorflow",)),
}


@pytest.mark.parametrize("name", SIDE_EFFECTS)
def test_a_layer_with_side_effects_is_left_to_keras(name: str) -> None:
    kind, reason, backends = SIDE_EFFECTS[name]
    if keras.config.backend() not in backends:
        pytest.skip("Keras itself cannot train it")
    X, y = table()

    def make(number: int) -> Fit:
        model = network(lambda: [kind(), *dense()])
        return Fit(model, X, y, epochs=2, seed=number, callbacks=[ByTheEpoch()])

    pairs = three_ways(make, n=2, together=False)
    for ours, _ in pairs:
        assert ours.how == "Model.fit"
        assert re.search(reason, ours.reason or ""), ours.reason
    if name == "noise of the backend" and keras.config.backend() == "torch":
        # torch's loader draws as well, once more where Keras builds the metrics: another noise, but the same each time.
        pairs = list(zip([ours for ours, _ in pairs], [ours for ours, _ in three_ways(make, 2, False)], strict=True))
    assert_equal(pairs, X)


@pytest.mark.backend("tensorflow", "torch")  # JAX takes any number for a label
@pytest.mark.parametrize("where", ["training", "validation"])
def test_labels_out_of_range_are_an_error_of_that_fit_alone(where: str) -> None:
    X, y = table()

    def make(number: int, wrong: int = 1) -> Fit:
        labels, validation = y.copy(), y[::2].copy()
        if number == wrong:
            (labels if where == "training" else validation)[-1] = 7
        callbacks = [ByTheEpoch(), CALLBACKS["scheduler"](0)]
        options = {"validation_data": (X[::2], validation), "callbacks": callbacks}
        return Fit(network(dense, rate=0.01 * (number + 1)), X, labels, epochs=3, seed=number, **options)

    random.seed(0)
    trained = fit_many([make(number) for number in range(3)])
    assert trained[1].error is not None
    assert trained[1].how == "Model.fit"
    assert [one.how for one in trained if one.error is None] == ["alone"] * 2
    random.seed(0)
    sound = fit_many([make(number, wrong=-1) for number in range(3)])
    assert {one.how for one in sound} == {"fused"}  # what failed for these data is not given up for others
    assert_equal([(trained[0], sound[0]), (trained[2], sound[2])], X)


def out_of_memory() -> Exception:
    """What the backend raises when there is not enough memory."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")  # type: ignore[no-any-return]
    if keras.config.backend() == "jax":
        import jax

        error: Exception = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return error
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_where_memory_is_short_fewer_are_trained_together(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, most = Program._compiled, [2]

    def for_a_few(self: Program, *arguments: Any) -> Any:
        steps = compiled(self, *arguments)

        def run(state: Any, *others: Any) -> Any:
            if state.trainable[0].ndim == 3 and len(state.trainable[0]) > most[0]:
                raise out_of_memory()
            return steps(state, *others)

        return run

    def make(number: int) -> Fit:
        return Fit(network(lambda: [layers.Dense(9)], rate=0.01 * (number + 1)), *table(), epochs=2, seed=number)

    monkeypatch.setattr(Program, "_compiled", for_a_few)
    pairs = three_ways(make, n=4)
    assert {ours.n_together for ours, _ in pairs} == {2}
    assert_equal(pairs, table()[0])
    most[0] = 9  # what memory was too short for is tried again when there is more
    assert {ours.n_together for ours in fit_many([make(number) for number in range(4)])} == {4}


def test_memory_too_short_for_one_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_at_all(*arguments: Any) -> Any:
        raise out_of_memory()

    monkeypatch.setattr(Program, "_compiled", lambda self, *arguments: none_at_all)
    pairs = three_ways(lambda number: Fit(network(lambda: [layers.Dense(10)]), *table(), seed=0), n=1, together=False)
    assert pairs[0][0].how == "Model.fit"
    assert (pairs[0][0].reason or "").startswith("there was not enough memory for a program of it")
    assert_equal(pairs, table()[0])


@pytest.mark.backend("tensorflow")
def test_what_xla_has_no_memory_for_is_tried_again(by_xla: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    by_xla_of, short = TensorFlowBackend.by_xla, [True]

    def compiled(self: Any, *arguments: Any, **options: Any) -> Any:
        run = by_xla_of(self, *arguments, **options)

        def or_not(*given: Any) -> Any:
            if short.pop() if short else False:
                raise out_of_memory()
            return run(*given)  # type: ignore[misc]

        return or_not

    monkeypatch.setattr(TensorFlowBackend, "by_xla", compiled)

    def make(number: int) -> Fit:
        return Fit(network(lambda: [layers.Dense(12)]), *table(), epochs=4, seed=number)

    assert_equal(three_ways(make), table()[0])
    assert by_xla == [False, True, True]


# -- what is fused, what not ----------------------------------------------------------------------------------------


PREPARATIONS: dict[str, Callable[[], Any]] = {
    "rescaling": lambda: layers.Rescaling(0.5, offset=1.0),
    "resizing": lambda: layers.Resizing(3, 3),
    "center crop": lambda: layers.CenterCrop(2, 2),
}


@pytest.mark.parametrize("name", PREPARATIONS)
def test_layers_that_prepare_data(name: str) -> None:
    X, y = table()
    images = X[:, :12].reshape(-1, 4, 3, 1)

    def make(number: int) -> Fit:
        hidden = [keras.Input((4, 3, 1)), PREPARATIONS[name](), layers.Flatten(), layers.Dense(3, activation="softmax")]
        model = keras.Sequential(hidden)
        model.compile(keras.optimizers.Adam(0.01 * (number + 1)), "sparse_categorical_crossentropy")
        return Fit(model, images, y, epochs=2, seed=number)

    assert_equal(three_ways(make, n=2), images)


@pytest.mark.parametrize("name", ["Embedding", "ReversibleEmbedding"])
@pytest.mark.parametrize("option", ["clipnorm", "weight_decay", "momentum"])
def test_sparse_gradients(name: str, option: str) -> None:
    X, y = table()
    words = (X[:, :5] > 0).astype("int32") + 2 * (X[:, 5:10] > 0)  # each comes many times in a batch

    def make(number: int) -> Fit:
        hidden = [keras.Input((5,), dtype="int32"), getattr(layers, name)(4, 3), layers.Flatten()]
        model = keras.Sequential([*hidden, layers.Dense(3, activation="softmax")])
        kind = keras.optimizers.SGD if option == "momentum" else keras.optimizers.Adam
        model.compile(kind(0.05 * (number + 1), **{option: 0.1}), "sparse_categorical_crossentropy")
        return Fit(model, words, y, epochs=2, seed=number)

    assert_equal(three_ways(make, n=2), words)


@pytest.mark.backend("tensorflow")
def test_pooling_whose_gradient_depends_on_the_program_is_left_to_keras() -> None:
    X, y = table()

    def make(number: int) -> Fit:
        hidden = [layers.Dense(128, activation="sigmoid"), layers.Reshape((4, 4, 4, 2)), layers.MaxPooling3D(2)]
        return Fit(network(lambda: [*hidden, layers.Flatten()]), X, y, epochs=1, seed=number)

    pairs = three_ways(make, n=2, together=False)
    assert {ours.reason for ours, _ in pairs} == {
        "TensorFlow computes another gradient of MaxPooling3D in another program"
    }
    assert_equal(pairs, X)


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")  # as Keras says, and should
@pytest.mark.parametrize("optimizer", ["AdamW", "Lamb"])
def test_weights_without_a_part_in_the_loss(optimizer: str) -> None:
    X, y = table()

    def make(number: int) -> Fit:
        inputs = keras.Input((13,))
        idle = layers.Dense(2, name="idle")(inputs)
        model = keras.Model(inputs, {"used": layers.Dense(1, name="used")(inputs), "idle": idle})
        rule = getattr(keras.optimizers, optimizer)(0.01 * (number + 1), weight_decay=0.5)
        model.compile(rule, {"used": "mse"})
        return Fit(model, X, {"used": y.astype("float32")}, epochs=2, seed=number)

    assert_equal(three_ways(make, together=False), X)  # of the idle weights, too


def test_lists_of_inputs_and_outputs_that_are_left_to_keras() -> None:
    X, y = table()
    targets = [y, X[:, :2]]

    def build() -> keras.Model:
        inputs = [keras.Input((13,)), keras.Input((13,))]
        hidden = layers.Add()(inputs)
        model = keras.Model(inputs, [layers.Dense(3, activation="softmax")(hidden), layers.Dense(2)(hidden)])
        model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
        return model

    model, plain = build(), build()
    plain.set_weights(model.get_weights())
    (trained,) = fit_many([Fit(model, [X, X], targets, shuffle=False, epochs=2, callbacks=[watched_batches()])])
    assert trained.how == "Model.fit" and trained.error is None
    plain.fit([X, X], targets, shuffle=False, epochs=2, verbose=0)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # In an order of its own the rows come from a data set, which Keras takes tuples from.
    (shuffled,) = fit_many([Fit(build(), [X, X], targets, callbacks=[watched_batches()])])
    assert shuffled.error is None and shuffled.how == "Model.fit"


class Whole(keras.utils.PyDataset):
    """All rows as one batch."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, step: int) -> Any:
        return table()


def test_a_data_set_to_watch_is_left_to_keras() -> None:
    fits = [simple(0, validation_data=Whole()), simple(0, validation_data=table())]
    fits[1].model.set_weights(fits[0].model.get_weights())
    watched, plain = fit_many(fits)
    assert watched.how == "Model.fit" and watched.error is None
    assert watched.reason == "validation data that is a data set is left to Keras"
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(watched.history[name], plain.history[name], rtol=1e-5)


def test_a_train_step_of_the_users_is_left_to_keras() -> None:
    class Own(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            return super().train_step(*arguments)

    X, y = table()
    fits = []
    for seed in range(2):
        model = Own([keras.Input((13,)), layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        fits.append(Fit(model, X, y, seed=seed))
    trained = fit_many([*fits, simple(0), simple(1)])
    assert [one.how for one in trained] == ["Model.fit", "Model.fit", "fused", "fused"]
    assert "Own has a `train_step` of its own" in explain(trained)


def test_structures_are_kept_apart() -> None:
    X, y = table()
    relu = [simple(number) for number in range(2)]
    tanh = [Fit(network(lambda: [layers.Dense(8, activation="tanh")]), X, y, seed=s) for s in range(2)]
    wide = Fit(network(lambda: [layers.Dense(9, activation="relu")]), X, y)
    trained = fit_many([relu[0], tanh[0], wide, relu[1], tanh[1]])
    assert [one.n_together for one in trained] == [2, 2, 1, 2, 2]
    assert trained[2].reason == "nothing else to train has its structure"


def test_rows_that_are_the_same_are_there_once() -> None:
    X, y = table()
    changed, in_double = X.copy(), X.astype("float64")
    changed[0, 0] += 1
    casts: dict[int, Any] = {}
    runs = [Run(Fit(network(dense), rows, y), casts) for rows in (X, changed, X.copy(), X)]
    pool = Pool(runs[0].program, [run.rows for run in runs])
    assert pool.offsets.x.tolist() == [0, len(X), 0, 0]
    assert pool.offsets.y.tolist() == [0] * 4
    assert tuple(pool.data.x.shape) == (2 * len(X), X.shape[1])
    one, other = (Run(Fit(network(dense), in_double, y), casts) for _ in range(2))
    assert one.rows.x is other.rows.x
    assert one.rows.x.dtype == "float32"


def test_groups_that_do_not_fit_in_memory_are_trained_in_turns() -> None:
    X, _ = table()
    whole = fit_many([simple(number) for number in range(4)])
    random.seed(0)
    trained = fit_many([simple(number) for number in range(4)], max_memory=20_000)
    assert {one.n_together for one in whole} == {4}
    assert {one.n_together for one in trained} < {1, 2, 3}


def test_of_large_models_few_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_FEW_MULTIPLICATIONS", 0)
    monkeypatch.setattr(fused, "_SECONDS_WORTH_MEASURING", 0.0)
    pairs = three_ways(simple, n=9, together=False)
    assert_equal(pairs, table()[0])
    assert all(ours.n_together <= 4 for ours, _ in pairs)


def test_nothing_is_traced_to_find_out_how_to_train_large_models_that_are_soon_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "_FEW_MULTIPLICATIONS", 0)
    monkeypatch.setattr(fused, "_SECONDS_WORTH_MEASURING", math.inf)
    pairs = three_ways(simple, n=3, together=False)
    assert_equal(pairs, table()[0])
    assert [(ours.how, ours.reason) for ours, _ in pairs] == [("alone", "one by one was quicker")] * 3


@pytest.mark.backend("jax")
def test_what_jax_compiled_for_structures_that_are_let_go_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    for name in ("_PROGRAMS", "_BLUEPRINTS", "_EXAMPLES", "_READY"):
        monkeypatch.setattr(getattr(network_module, name), "max_size", 2)
    X, y = table()
    jax.clear_caches()
    n_kept = []
    for units in range(21, 31):
        model = network(lambda: [layers.Dense(units, activation="relu")])  # noqa: B023  called at once
        fit_many([Fit(model, X, y, seed=0)])
        del model
        gc.collect()
        n_kept.append(len(jax.devices()[0].client.live_executables()))
    # Their number goes up and down, and other tests left some; kept, each structure would add to all before.
    assert min(n_kept[5:]) <= max(n_kept[:5])


@pytest.mark.backend("jax")
def test_what_is_kept_on_jax_is_not_compiled_again_when_other_things_are_given_back() -> None:
    import jax

    traced = []

    def double(rows: Any) -> Any:
        traced.append(rows.shape)
        return 2 * rows

    compiled = _CompiledByJax(double)
    for length in (3, 4, 3):
        np.testing.assert_array_equal(compiled(np.ones(length, "float32")), np.full(length, 2.0))
    jax.clear_caches()
    compiled(np.ones(3, "float32"))
    assert traced == [(3,), (4,)]


def test_choices_of_what_goes_in_as_data() -> None:
    """One after the other on one structure: what differs is nothing, then the momentum, then the penalty as well."""

    def fits(momenta: Any, penalties: Any) -> None:
        def fit(number: int) -> Fit:
            optimizer = keras.optimizers.SGD(0.05, momentum=momenta[number])
            dense = layers.Dense(6, kernel_regularizer=keras.regularizers.L2(penalties[number]))
            return Fit(network(lambda: [dense], optimizer=optimizer), *table(), epochs=2, seed=number)

        assert_equal(three_ways(fit, n=2), table()[0])

    fits((0.9, 0.9), (0.01, 0.01))
    fits((0.5, 0.7), (0.01, 0.01))
    fits((0.9, 0.3), (0.1, 0.001))
    fits((0.9, 0.9), (0.01, 0.1))


def test_images() -> None:
    images, y = load_digits(return_X_y=True)
    images = (images[:200] / 16).reshape(-1, 8, 8, 1).astype("float32")
    y = y[:200]

    def make(number: int) -> Fit:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(
            keras.optimizers.SGD(0.01 * (number + 1)), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return Fit(model, images, y, epochs=2, seed=number)

    assert_equal(three_ways(make, n=2), images, tolerance=1e-4)
