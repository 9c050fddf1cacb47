"""What is private to Keras is used so that neither other threads nor later code notice."""

from __future__ import annotations

import importlib.util

import pytest

# Under a backend other than TensorFlow, and before anybody has loaded TensorFlow.
BEGINNING = """
import sys, threading
import keras
from keras.src.saving import serialization_lib
from kerastoolkit import _keras

if "tensorflow" in sys.modules:
    print("loaded by the backend")
    sys.exit()
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
lazy = serialization_lib.tf
"""


@pytest.fixture
def without_tensorflow(run_python):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")

    def run(program: str) -> str:
        return run_python(BEGINNING + program, KERAS_BACKEND="jax").stdout

    return run


def test_serializing_a_layer_does_not_load_tensorflow(without_tensorflow):
    program = """
with _keras.without_tensorflow():
    config = keras.saving.serialize_keras_object(model.layers[0])
    with _keras.without_tensorflow():
        assert keras.saving.serialize_keras_object(model.layers[0]) == config
    keras.Sequential.from_config(model.get_config())
assert "tensorflow" not in sys.modules
assert serialization_lib.tf is lazy
try:
    with _keras.without_tensorflow():
        raise KeyError
except KeyError:
    pass
assert serialization_lib.tf is lazy
print("good")
"""
    assert without_tensorflow(program).split()[-1] in ("good", "backend")


def test_a_thread_that_needs_tensorflow_meanwhile_gets_it(without_tensorflow):
    program = """
entered, used = threading.Event(), threading.Event()

def serialize():
    with _keras.without_tensorflow():
        keras.saving.serialize_keras_object(model.layers[0])
        entered.set()
        used.wait(600)
        found.append(keras.saving.serialize_keras_object(sys.modules["tensorflow"].TensorShape([2, 3])))

found = []
thread = threading.Thread(target=serialize)
thread.start()
entered.wait(600)
found.append(keras.layers.StringLookup(vocabulary=["a", "b"]).get_vocabulary())  # refused where there is no TensorFlow
used.set()
thread.join()
assert found == [["[UNK]", "a", "b"], [2, 3]], found
assert serialization_lib.tf is lazy
print("good")
"""
    assert without_tensorflow(program).split()[-1] in ("good", "backend")
