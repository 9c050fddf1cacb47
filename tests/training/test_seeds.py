"""Inside the block generators start at the seed; after it they stand where they stood."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit.training import isolated


def _draws() -> list[Any]:
    layer = keras.layers.Dense(2)
    layer.build((1, 3))
    dropped = keras.random.dropout(keras.ops.ones((1, 50)), 0.5)
    return [
        random.random(),
        np.random.rand(),
        keras.ops.convert_to_numpy(layer.kernel).tolist(),
        keras.ops.convert_to_numpy(dropped).tolist(),
    ]


def test_a_seed_repeats_everything_that_is_drawn() -> None:
    with isolated(3):
        first = _draws()
    with isolated(3):
        second = _draws()
    with isolated(4):
        third = _draws()
    assert first == second
    assert all(one != other for one, other in zip(first, third, strict=True))


def test_the_generators_of_the_process_go_on_as_if_nothing_had_been() -> None:
    keras.utils.set_random_seed(0)
    undisturbed = [_draws(), _draws()]
    keras.utils.set_random_seed(0)
    disturbed = [_draws()]
    with isolated(3):
        _draws()
    disturbed.append(_draws())
    assert undisturbed == disturbed


def test_they_are_put_back_after_an_error_too() -> None:
    keras.utils.set_random_seed(0)
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), isolated(3):
        random.random()
        raise ZeroDivisionError
    assert random.getstate() == before


def test_without_a_seed_the_block_draws_from_the_process() -> None:
    keras.utils.set_random_seed(0)
    with isolated(None):
        first = _draws()
    keras.utils.set_random_seed(0)
    assert first == _draws()


def test_metrics_are_numbered_from_the_start_and_layers_are_not() -> None:
    outside = keras.layers.Dense(1).name
    keras.metrics.AUC()
    names = []
    for _ in range(2):
        with isolated(None):
            names.append((keras.metrics.AUC().name, keras.layers.Dense(1).name))
    assert names[0] == names[1]
    assert names[0][0] == "auc"
    assert names[0][1] != outside
