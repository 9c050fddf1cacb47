"""One process with some simulated devices: trains what it is told to, and prints the figures as JSON.

How many devices there are can be chosen once in a process, before anything computes, so that each test of a topology
starts this file anew: `worker.py BACKEND DEVICES TASK [PROCESS ADDRESS]`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale

BACKEND, N_DEVICES, TASK = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PROCESS, ADDRESS = (int(sys.argv[4]), sys.argv[5]) if len(sys.argv) > 4 else (0, None)
NAME = {"tensorflow": "mirrored", "jax": "data_parallel"}[BACKEND] if N_DEVICES > 1 else "none"

os.environ["KERAS_BACKEND"] = BACKEND
if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={N_DEVICES}"

import keras  # noqa: E402

from kerastoolkit import KerasClassifier, distribution, load  # noqa: E402
from kerastoolkit.exceptions import KerasToolkitError  # noqa: E402

if BACKEND == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * N_DEVICES)
    tf.get_logger().setLevel("ERROR")

X, y = load_breast_cancer(return_X_y=True)
X, y = scale(X).astype("float32"), y.astype("float32")[:, None]
ARRAYS = {"sample_weight": np.linspace(0.1, 2.0, 545).astype("float32"), "shuffle": False, "batch_size": 32}
layers = keras.layers


class Batches(keras.utils.PyDataset):
    """Batches of 32 of the first 547 rows; the last has 3."""

    def __len__(self) -> int:
        return 18

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * 32, min(index * 32 + 32, 547))
        return X[rows], y[rows]


def built(*hidden: Any, optimizer: Any = "sgd", **compiled: Any) -> keras.Model:
    start = keras.initializers.GlorotUniform
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(16, activation="relu", kernel_initializer=start(seed=1), kernel_regularizer="l2"),
            *hidden,
            layers.Dense(1, activation="sigmoid", kernel_initializer=start(seed=2)),
        ]
    )
    model.compile(optimizer, **{"loss": "binary_crossentropy", "metrics": ["accuracy"], **compiled})
    return model


def trained(
    chosen: distribution.Strategy, *data: Any, make: Callable[[], keras.Model] = built, prepare: bool = True, **fit: Any
) -> dict[str, Any]:
    """Losses and predictions of a model after two epochs."""
    with chosen.scope():
        model = make()
        if prepare:
            chosen.prepare(model)
        history = model.fit(*data, epochs=2, verbose=0, **fit).history
        predicted = model.predict(X[:101], verbose=0)
    return {**{name: list(map(float, values)) for name, values in history.items()}, "predicted": predicted.tolist()}


def figures() -> dict[str, Any]:
    """The same fits on each topology."""
    chosen = distribution.strategy(NAME)
    found = {
        "sgd, arrays, last batch of 1": trained(chosen, X[:545], y[:545], validation_data=(X[545:], y[545:]), **ARRAYS),
        "adam, tf.data, last batch of 25": trained(
            chosen, batches_of_tensorflow(), make=lambda: built(optimizer="adam"), shuffle=False
        ),
        "sgd, PyDataset, last batch of 3": trained(chosen, Batches(), shuffle=False),
        "adam, estimator": of_estimator(),
    }
    if BACKEND == "jax":
        found |= normalized()
    return found


def normalized() -> dict[str, Any]:
    """BatchNormalization over the whole batch, which has to be asked for on TensorFlow alone."""
    options = {"synchronized": True} if BACKEND == "tensorflow" else {}
    make = lambda: built(layers.BatchNormalization(**options))  # noqa: E731
    return {"normalization": trained(distribution.strategy(NAME), X[:545], y[:545], make=make, **ARRAYS)}


def batches_of_tensorflow() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, y)).batch(32)


def of_estimator() -> dict[str, Any]:
    options = {} if NAME == "none" else {"distribution": NAME}
    estimator = KerasClassifier(hidden=(16,), dropout=0.0, epochs=2, validation_split=0.2, random_state=0, **options)
    estimator.fit(X[:545], y[:545, 0])
    return {**estimator.history_, "predicted": estimator.predict_proba(X[:101]).tolist()}


def refusal(action: Callable[[], Any]) -> str:
    try:
        action()
    except KerasToolkitError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def refusals() -> dict[str, str]:
    """What `prepare` and `strategy` say no to, over two devices of TensorFlow."""
    chosen = distribution.strategy("mirrored")

    def prepared(*hidden: Any, **compiled: Any) -> str:
        with chosen.scope():
            return refusal(lambda: chosen.prepare(built(*hidden, **compiled)))

    with chosen.scope():
        model = chosen.prepare(built())

    class OwnStep(keras.Model):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    with chosen.scope():
        inputs = keras.Input((30,))
        own = OwnStep(inputs, layers.Dense(1, activation="sigmoid")(inputs))
        own.compile("sgd", "binary_crossentropy")
        chosen.prepare(own).fit(X[:64], y[:64], verbose=0)
        try:
            own.fit(X[:65], y[:65], verbose=0)
            uneven = "nothing was refused"
        except tf.errors.InvalidArgumentError as error:
            uneven = str(error)
    sgd = keras.optimizers.SGD
    summed = keras.losses.BinaryCrossentropy(reduction="sum")
    return {
        "accumulation": prepared(optimizer=sgd(gradient_accumulation_steps=2)),
        "clipping": prepared(optimizer=sgd(global_clipnorm=1.0)),
        "jit_compile": prepared(jit_compile=True),
        "normalization": prepared(layers.BatchNormalization(name="norm")),
        "frozen normalization": prepared(layers.BatchNormalization(trainable=False)),
        "sum": prepared(loss=summed),
        "predict_on_batch": refusal(lambda: model.predict_on_batch(X[:64])),
        "step of its own": uneven,
        "not compiled": refusal(lambda: chosen.prepare(keras.Sequential([layers.Dense(1)]))),
        "one device of a kind": refusal(lambda: distribution.strategy("mirrored", devices=["cpu:1"])),
        "schedule": scaled(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    }


def scaled(rate: Any) -> str:
    chosen = distribution.strategy(NAME, per_device_batch=True, scale_learning_rate="linear")
    with chosen.scope():
        model = built(optimizer=keras.optimizers.Adam(rate))
        return refusal(lambda: chosen.prepare(model))


def rate_of(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def of_keras() -> dict[str, Any]:
    """What Keras makes of it where nothing is prepared: the reasons for the refusals."""
    chosen = distribution.strategy("mirrored")
    arrays = {"shuffle": False, "batch_size": 32, "prepare": False}
    clipped = lambda: built(optimizer=keras.optimizers.SGD(1.0, global_clipnorm=0.1))  # noqa: E731
    found: dict[str, Any] = {
        "last batch of 1": trained(chosen, X[:545], y[:545], prepare=False, **ARRAYS),
        "clipping": trained(chosen, X[:512], y[:512], make=clipped, **arrays),
        "clipping, one device": trained(distribution.strategy("none"), X[:512], y[:512], make=clipped, **arrays),
        "normalization": trained(chosen, X[:545], y[:545], make=lambda: built(layers.BatchNormalization()), **arrays),
    }
    with chosen.scope():
        found["predict_on_batch"] = len(built().predict_on_batch(X[:64]))
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], parameter_device="CPU:0")
    for name, scope in (("CentralStorage", central.scope), ("one device", contextlib.nullcontext)):
        with scope():
            found[name] = built().fit(X[:512], y[:512], epochs=1, verbose=0, shuffle=False).history["loss"]
    return found


def failing(make: Callable[[], keras.Model]) -> str:
    """How a fit fails that is not prepared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trained(distribution.strategy("mirrored"), X, y, make=make, prepare=False)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "it trained"


def several_steps() -> dict[str, Any]:
    make = lambda: built(steps_per_execution=4)  # noqa: E731
    return trained(
        distribution.strategy(NAME), X[:545], y[:545], make=make, validation_data=(X[545:], y[545:]), **ARRAYS
    )


def precision() -> dict[str, Any]:
    """Mixed precision over two devices, by a strategy and by an estimator."""
    chosen = distribution.strategy(NAME, precision="mixed_bfloat16")
    found = trained(chosen, X[:545], y[:545], **ARRAYS)
    options = {"hidden": (16,), "dropout": 0.0, "epochs": 2, "random_state": 0}
    estimator = KerasClassifier(distribution=NAME, precision="mixed_float16", **options).fit(X, y[:, 0])
    return {
        **found,
        "policy after": keras.config.dtype_policy().name,
        "policy of layers": estimator.model_.layers[0].dtype_policy.name,
        "raw": str(estimator._raw_output(X[:3]).dtype),
        "loss scaled by": type(estimator.model_.optimizer).__name__,
        "score": estimator.score(X, y[:, 0]),
    }


def estimators() -> dict[str, Any]:
    """What becomes of an estimator that was trained over several devices."""
    options = {"hidden": (16,), "dropout": 0.0, "epochs": 2, "random_state": 0}
    estimator = KerasClassifier(distribution=NAME, **options).fit(X, y[:, 0])
    pickled = pickle.dumps(estimator)
    again = pickle.loads(pickled)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(estimator.save(Path(folder) / "one.zip"))
    expected = estimator.predict_proba(X)
    bigger = KerasClassifier(distribution=NAME, distribution__per_device_batch=True, batch_size=16, **options)
    bigger.set_params(distribution__scale_learning_rate="sqrt", optimizer__learning_rate=0.01).fit(X, y[:, 0])
    rate, steps = rate_of(bigger.model_), int(keras.ops.convert_to_numpy(bigger.model_.optimizer.iterations))
    bigger.partial_fit(X, y[:, 0])
    moved = pickle.loads(pickle.dumps(bigger)).partial_fit(X, y[:, 0])
    return {
        "explained": estimator._fitted.strategy.explain(),
        "unpickled": float(np.abs(again.predict_proba(X) - expected).max()),
        "loaded": float(np.abs(loaded.predict_proba(X) - expected).max()),
        "goes on": float(
            np.abs(again.partial_fit(X, y[:, 0]).predict(X) - estimator.partial_fit(X, y[:, 0]).predict(X)).max()
        ),
        "pickle holds the strategy": b"Strategy" in pickled,
        "steps": steps,
        "rate": rate,
        "rate after going on": [rate_of(one.model_) for one in (bigger, moved)],
    }


def fake_tpu() -> dict[str, Any]:
    """The path of a TPU, whose two cores are two CPU devices here."""
    calls: list[str] = []
    cores = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    tf.config.experimental_connect_to_cluster = lambda resolver: calls.append(f"connect to {resolver}")
    tf.tpu.experimental.initialize_tpu_system = lambda resolver: calls.append(f"initialize {resolver}")
    tf.distribute.TPUStrategy = type("TPUStrategy", (), {"__new__": lambda cls, resolver: cores})
    chosen = distribution.strategy("tpu", address="grpc://fake", resolver=lambda address: f"resolver of {address}")
    figures = trained(chosen, X[:545], y[:545], **ARRAYS)
    estimator = KerasClassifier(
        distribution="tpu",
        distribution__address="grpc://fake",
        distribution__resolver=resolver_of_estimator,
        hidden=(16,),
        epochs=1,
    ).fit(X, y[:, 0])
    return {**figures, "calls": calls, "devices": list(chosen.devices), "used": estimator._fitted.strategy.name}


def resolver_of_estimator(address: str) -> str:
    return f"resolver of {address}"


def dead_tpu() -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        chosen = distribution.strategy("auto", address="grpc://127.0.0.1:1", timeout=0.5)
    return {
        "explicit": refusal(lambda: distribution.strategy("tpu", address="grpc://127.0.0.1:1", timeout=6.0)),
        "local": refusal(lambda: distribution.strategy("tpu", address="local")),
        "unnamed": refusal(lambda: distribution.strategy("tpu")),
        "auto": chosen.name,
        "warning": [str(one.message) for one in told if issubclass(one.category, UserWarning)],
    }


def on_jax() -> dict[str, Any]:
    """What only JAX does: divide the weights, divide the rows for real, join processes."""
    import jax

    seen: list[Any] = []

    class Looks(layers.Layer):
        def call(self, x: Any) -> Any:
            if isinstance(x, jax.core.Tracer):
                jax.debug.inspect_array_sharding(
                    x, callback=lambda sharding: seen.append(sharding.shard_shape((32, 16)))
                )
            return x

    chosen = distribution.strategy("auto")
    trained(chosen, X[:64], y[:64], make=lambda: built(Looks()), shuffle=False, batch_size=32)
    squares = distribution.strategy("model_parallel", mesh=(2, N_DEVICES // 2))
    weights = []

    def make() -> keras.Model:
        weights.append(built(optimizer="adam"))
        return weights[0]

    divided = trained(squares, X, y, make=make, shuffle=False, batch_size=32)
    placed = distribution.strategy("model_parallel", layout={".*/kernel": ("model", None)}, devices=["cpu:0", "cpu:1"])
    with placed.scope():
        by_layout = built().layers[0].kernel.value.sharding.shard_shape((30, 16))
    return {
        "auto": [chosen.name, chosen.reason],
        "rows of a device": [list(shape) for shape in seen],
        "model_parallel": divided,
        "part of a weight": list(weights[0].layers[0].kernel.value.sharding.shard_shape((30, 16))),
        "part by layout": list(by_layout),
        "mesh": refusal(lambda: distribution.strategy("model_parallel", mesh=(3, 2))),
        "mirrored": refusal(lambda: distribution.strategy("mirrored")),
        "address": refusal(lambda: distribution.initialize("nowhere", n_processes=2, process_id=1)),
        "number": refusal(lambda: distribution.initialize("127.0.0.1:1234", n_processes=2, process_id=2)),
        "nobody": refusal(lambda: distribution.initialize("127.0.0.1:1", n_processes=2, process_id=1, timeout=0.3)),
        "too late": refusal(lambda: distribution.initialize("127.0.0.1:1234", n_processes=1, process_id=0)),
        "memory": refusal(lambda: distribution.strategy("none", memory_growth=True)),
        "devices": str(distribution.detect()),
    }


def joined() -> dict[str, Any]:
    """One of two processes with two devices each."""
    # The other one begins at the same time, but on a busy machine may load its libraries for a minute longer.
    there = distribution.initialize(ADDRESS, n_processes=2, process_id=PROCESS, timeout=1200)
    found = {
        "devices": len(there.devices),
        "processes": [there.n_processes, there.process_id],
        "explained": distribution.strategy("auto").explain(),
        "no seed": refusal(lambda: KerasClassifier(distribution="auto").fit(X, y[:, 0])),
        "twice": refusal(lambda: distribution.initialize(ADDRESS, n_processes=2, process_id=PROCESS)),
    }
    return {**found, "figures": figures()}


TASKS: dict[str, Callable[[], Any]] = {
    "figures": figures,
    "normalized": normalized,
    "refusals": refusals,
    "of_keras": of_keras,
    "steps_per_execution": several_steps,
    "jit_compile": lambda: failing(lambda: built(jit_compile=True)),
    "gradient_accumulation": lambda: failing(
        lambda: built(optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2))
    ),
    "precision": precision,
    "estimators": estimators,
    "fake_tpu": fake_tpu,
    "dead_tpu": dead_tpu,
    "on_jax": on_jax,
    "joined": joined,
}

if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answers = {task: TASKS[task]() for task in TASK.split(",")}
    print(json.dumps(answers))
