"""Threads that train, predict or use the backend at once: each gets what it gets alone, and nothing stays changed."""

from __future__ import annotations

import gc
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose
from sklearn.model_selection import cross_val_score

from kerastoolkit import KerasClassifier, _keras
from kerastoolkit.search import fused as together
from kerastoolkit.training import Fit, fit_many, fused, isolated
from kerastoolkit.training._backends import tensorflow as our_tensorflow

X = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)


@pytest.fixture(autouse=True)
def _by_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small dense networks are trained by programs, as all others are, and not in numpy."""
    monkeypatch.setattr(fused, "_SECONDS_IN_NUMPY", -math.inf)


def build(units: int, seed: int) -> keras.Model:
    with isolated(seed):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(units, "tanh"), layers.Dense(3, "softmax")])
        penalty = keras.regularizers.L1L2(1e-3, 1e-3)
        model.layers[0].kernel.regularizer = penalty
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fits(units: int) -> list[Fit]:
    return [Fit(build(units, seed), X, Y, epochs=2, seed=seed) for seed in range(3)]


def at_once(work: Callable[[], Any], meanwhile: Callable[[], Any]) -> list[Any]:
    """Does something, and something else again and again in another thread until it is done; what that returned."""
    done, found, errors = threading.Event(), list[Any](), list[BaseException]()

    def again_and_again() -> None:
        try:
            while True:
                found.append(meanwhile())
                if done.is_set():
                    return
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join(600)
    assert not errors, errors
    return found


def test_a_model_predicts_while_others_of_its_structure_are_trained() -> None:
    alone = [one.history["loss"] for one in fit_many(fits(6))]
    trained = fit_many([Fit(build(6, 9), X, Y, epochs=1, seed=9)])[0]
    assert trained.network is not None
    network, model = trained.network, trained.model
    expected = keras.ops.convert_to_numpy(network.predict(X))
    losses: list[Any] = []
    found = at_once(
        lambda: losses.extend(one.history["loss"] for one in fit_many(fits(6))),
        lambda: (keras.ops.convert_to_numpy(network.predict(X)), model.predict(X, verbose=0)),
    )
    for ours, theirs in found:
        assert_allclose(ours, expected, atol=1e-6)
        assert_allclose(theirs, expected, atol=1e-6)
    assert_allclose(losses, alone, rtol=1e-5)


def test_two_threads_train_at_once() -> None:
    alone = [[one.history["loss"] for one in fit_many(fits(units))] for units in (7, 8)]
    losses: list[Any] = []
    found = at_once(
        lambda: losses.extend(one.history["loss"] for one in fit_many(fits(7))),
        lambda: [one.history["loss"] for one in fit_many(fits(8))],
    )
    assert_allclose(losses, alone[0], rtol=1e-5)
    for others in found:
        assert_allclose(others, alone[1], rtol=1e-5)


# -- what is TensorFlow's -------------------------------------------------------------------------------------------


@pytest.mark.backend("tensorflow")
def test_the_converters_of_tensorflow_are_ours_in_one_thread_and_then_no_more() -> None:
    from tensorflow.python.ops.parallel_for import pfor

    before, known = pfor._pfor_converter_registry, dict(pfor._pfor_converter_registry)
    names = "Bitcast", "ZerosLike", "TensorListElementShape"
    seen: dict[str, Any] = {}

    def look() -> None:
        registry = pfor._pfor_converter_registry
        seen.update({name: registry.get(name) for name in names})
        assert "Bitcast" in known or "Bitcast" not in registry

    with our_tensorflow._more_converters(pfor):
        assert all(pfor._pfor_converter_registry.get(name) is not known.get(name) for name in names)
        assert pfor._pfor_converter_registry.get("MatMul") is known["MatMul"]
        other = threading.Thread(target=look)
        other.start()
        other.join(60)
    assert seen == {name: known.get(name) for name in names}
    assert pfor._pfor_converter_registry is before
    assert dict(before) == known


@pytest.mark.backend("tensorflow")
def test_a_user_vectorises_while_fits_are_traced() -> None:
    import tensorflow as tf
    from tensorflow.python.ops.parallel_for import pfor

    before, known = pfor._pfor_converter_registry, dict(pfor._pfor_converter_registry)
    numbers = tf.constant(X[:4])

    def vectorised() -> Any:
        return tf.vectorized_map(lambda row: (tf.zeros_like(row), 2 * row), numbers)

    for zeros, doubled in at_once(lambda: fit_many(fits(9)), vectorised):
        assert_allclose(zeros, 0 * X[:4])
        assert_allclose(doubled, 2 * X[:4])
    assert pfor._pfor_converter_registry is before
    assert dict(before) == known


def test_the_log_of_tensorflow_is_silent_in_one_thread_only(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tensorflow")
    level, filters = logger.level, list(logger.filters)
    both_are_in, first_is_out = threading.Barrier(2), threading.Event()

    def other() -> None:
        with our_tensorflow._without_advice():
            both_are_in.wait(60)
            first_is_out.wait(60)
            logger.error("advice to the other thread")

    caplog.set_level(logging.WARNING, logger="tensorflow")
    caplog.handler.setLevel(logging.WARNING)
    logger.addHandler(caplog.handler)
    thread = threading.Thread(target=other)
    try:
        thread.start()
        with our_tensorflow._without_advice():
            both_are_in.wait(60)
            logger.error("advice to this thread")
        logger.error("to be heard")
        first_is_out.set()
        thread.join(60)
        logger.error("to be heard")
    finally:
        logger.removeHandler(caplog.handler)
    heard = {record.getMessage() for record in caplog.records}
    assert heard == {"to be heard"}
    caplog.set_level(level, logger="tensorflow")
    assert logger.filters == filters


# -- what is Keras', on torch ---------------------------------------------------------------------------------------


@pytest.mark.backend("torch")
def test_functions_of_keras_are_ours_in_one_thread_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.backend.torch import core

    theirs, calls = keras.regularizers.L1L2.__call__, list[str]()

    def noted(self: Any, x: Any) -> Any:
        calls.append(threading.current_thread().name)
        return theirs(self, x)

    monkeypatch.setattr(keras.regularizers.L1L2, "__call__", noted)
    before = keras.regularizers.L1L2.__call__, core.scatter, core.cond
    penalty, values, found = keras.regularizers.L1L2(0.5, 0.25), keras.ops.convert_to_tensor(X), dict[str, Any]()

    def compute(name: str) -> None:
        found[name] = keras.ops.convert_to_numpy(penalty(values))

    with _keras.in_a_way_that_vmap_takes():
        compute("ours")
        other = threading.Thread(target=compute, args=("theirs",), name="another thread")
        other.start()
        other.join(60)
    assert calls == ["another thread"]
    assert_allclose(found["ours"], found["theirs"], rtol=1e-5)
    assert_allclose(found["ours"], 0.5 * np.abs(X).sum() + 0.25 * np.square(X).sum(), rtol=1e-5)
    assert (keras.regularizers.L1L2.__call__, core.scatter, core.cond) == before


# -- what is Python's -----------------------------------------------------------------------------------------------


def test_two_searches_at_once_leave_pythons_collector_as_it_was() -> None:
    before = gc.get_freeze_count()

    def search() -> list[float]:
        model = KerasClassifier(hidden=(6,), epochs=1, random_state=0)
        with together():
            return [float(score) for score in cross_val_score(model, X, Y, cv=2)]

    expected, found = search(), list[Any]()
    for other in at_once(lambda: found.append(search()), search):
        assert_allclose(other, expected)
    assert_allclose(found[0], expected)
    assert gc.get_freeze_count() == before
