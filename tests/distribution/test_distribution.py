"""Models end the same over one, two and four devices, and what would not is refused with the reason.

How many devices there are is fixed when a process begins, so that each topology is a process of its own, `worker.py`;
those that take long are started once and asked for many figures.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale

from kerastoolkit import KerasClassifier, distribution
from kerastoolkit.distribution import strategy
from kerastoolkit.exceptions import DistributionError, ParameterError
from kerastoolkit.training import Fit, explain, fit_many

Ask = Callable[[str, int, str], Any]

# What one device is asked for at once.
ONE = "figures,normalized,dead_tpu"
FOUR_OF_JAX = "figures,on_jax"

SECONDS = 1500  # a net against what hangs: what takes seconds takes minutes on a busy machine

WORKER = Path(__file__).with_name("worker.py")
REPOSITORY = WORKER.parents[2]


def need(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}: pip install {backend}")


def start(*arguments: Any) -> subprocess.Popen[str]:
    need(arguments[0])
    # The package that is under test, wherever Python would look for one.
    package = str(Path(distribution.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, cwd=REPOSITORY, **pipes)  # type: ignore[no-any-return,call-overload]


def answer(process: subprocess.Popen[str]) -> Any:
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])  # before it, what the libraries write themselves


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, str], Any]:
    """Asks a process with so many devices, once in a run of the tests."""
    # Tests run in several processes, which have the folder above their own in common.
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    @functools.cache
    def ask(backend: str, n_devices: int, tasks: str) -> Any:
        need(backend)
        known = folder / f"{backend}-{n_devices}-{tasks}.json"
        try:
            known.with_suffix(".asked").touch(exist_ok=False)
        except FileExistsError:
            until = time.monotonic() + SECONDS
            while not known.exists() and time.monotonic() < until:
                time.sleep(0.2)
            return json.loads(known.read_text())
        try:
            found = answer(start(backend, n_devices, tasks))
        except BaseException as error:
            found = {"error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            unfinished = known.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(found))
            unfinished.rename(known)
        return found

    return ask


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


# -- equal to one device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "first", "n_devices", "then"),
    [
        ("tensorflow", ONE, 2, "figures"),
        ("tensorflow", ONE, 4, "figures"),
        ("jax", "figures", 2, "figures"),
        ("jax", "figures", 4, FOUR_OF_JAX),
    ],
    ids=["tensorflow-2", "tensorflow-4", "jax-2", "jax-4"],
)
def test_losses_and_predictions_are_those_of_one_device(
    ask: Ask, backend: str, first: str, n_devices: int, then: str
) -> None:
    one, several = (ask(backend, number, tasks)["figures"] for number, tasks in ((1, first), (n_devices, then)))
    assert len(several) > 1
    for claim in several:
        assert_same(several[claim], one[claim])


def test_two_processes_with_two_devices_each_end_as_one_device(ask: Ask) -> None:
    with socket.socket() as kept:
        # JAX listens with this option, too, so that the port can be kept from all others until it does.
        kept.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR), 1)
        kept.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{kept.getsockname()[1]}"
        processes = [start("jax", 2, "joined", number, address) for number in (0, 1)]
        one = ask("jax", 1, "figures")["figures"]
        answers = [answer(process)["joined"] for process in processes]
    for number, found in enumerate(answers):
        assert (found["devices"], found["processes"]) == (4, [2, number])
        assert "Processes: 2; each runs the same program on the same rows" in found["explained"]
        assert "give `random_state`" in found["no seed"]
        assert "joined with others already" in found["twice"]
        for claim in one:
            assert_same(found["figures"][claim], one[claim])


def test_synchronized_batch_normalization_is_that_of_one_device(ask: Ask) -> None:
    found, one = (ask("tensorflow", *asked)["normalized"] for asked in ((2, "normalized"), (1, ONE)))
    assert_same(found["normalization"], one["normalization"])


def test_several_steps_at_once_under_a_mirrored_strategy_are_those_of_one_device(ask: Ask) -> None:
    one = ask("tensorflow", 1, ONE)["figures"]["sgd, arrays, last batch of 1"]
    assert_same(ask("tensorflow", 2, "steps_per_execution")["steps_per_execution"], one)


def test_mixed_precision_under_a_mirrored_strategy_trains_and_predicts_in_single_precision(ask: Ask) -> None:
    found, one = ask("tensorflow", 2, "precision")["precision"], ask("tensorflow", 1, ONE)["figures"]
    expected = one["sgd, arrays, last batch of 1"]
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0.01)
    np.testing.assert_allclose(found["predicted"], expected["predicted"], atol=0.02)
    assert found["policy of layers"] == "mixed_float16" and found["policy after"] == "float32"
    assert found["raw"] == "float32" and found["loss scaled by"] == "LossScaleOptimizer"
    assert found["score"] > 0.8


# -- what Keras makes of it, and why it is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "fails_with"),
    [
        ("jit_compile", "InvalidArgumentError.*Trying to access resource"),
        ("gradient_accumulation", "RuntimeError: .*merge_call"),
    ],
)
def test_what_is_refused_fails_in_keras(ask: Ask, task: str, fails_with: str) -> None:
    assert re.search(fails_with, ask("tensorflow", 2, task)[task], re.DOTALL)


def test_what_is_refused_is_wrong_in_keras(ask: Ask) -> None:
    keras_alone, one = ask("tensorflow", 2, "of_keras")["of_keras"], ask("tensorflow", 1, ONE)["figures"]
    one_device = one["sgd, arrays, last batch of 1"]
    # The reason for `prepare`: one row in a batch of its own counts half.
    assert abs(keras_alone["last batch of 1"]["loss"][-1] - one_device["loss"][-1]) > 1e-3
    assert abs(keras_alone["clipping"]["loss"][0] - keras_alone["clipping, one device"]["loss"][0]) > 0.05
    assert np.isnan(keras_alone["normalization"]["loss"][-1])
    assert keras_alone["predict_on_batch"] == 128  # for 64 rows
    assert abs(keras_alone["CentralStorage"][0] - keras_alone["one device"][0]) > 0.05


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("accumulation", "`gradient_accumulation_steps` fails .*issues/20582.*Use a larger `batch_size`"),
        ("clipping", "`global_clipnorm` is computed wrongly .*before it adds them up"),
        ("jit_compile", "`jit_compile=True` fails .*Leave it out"),
        ("normalization", r"'norm' would learn its statistics from each replica's share.*synchronized=True"),
        ("frozen normalization", "nothing was refused"),
        ("sum", "'binary_crossentropy' is reduced by 'sum'.*reduction='sum_over_batch_size'"),
        ("predict_on_batch", "each device predicts all 64 rows.*Use `predict`"),
        ("not compiled", "`model` is not compiled. Call model.compile"),
        ("step of its own", "train_step of its own needs batches that divide"),
        ("one device of a kind", "needs two devices or more of one kind: `devices` names cpu:1"),
        ("schedule", "cannot scale a schedule"),
    ],
)
def test_a_model_that_keras_would_compute_wrongly_is_refused(ask: Ask, action: str, message: str) -> None:
    assert re.search(message, ask("tensorflow", 2, "refusals,estimators")["refusals"][action], re.DOTALL)


def test_an_estimator_is_used_where_there_are_no_such_devices(ask: Ask) -> None:
    found = ask("tensorflow", 2, "refusals,estimators")["estimators"]
    assert found["unpickled"] == found["loaded"] < 1e-6  # one device computes in another order than two
    assert not found["pickle holds the strategy"]
    assert found["goes on"] < 1e-6
    assert found["explained"].startswith("mirrored: each device has a copy of the model")
    assert "Devices: cpu:0, cpu:1 (tensorflow)" in found["explained"]


def test_the_batch_and_the_learning_rate_grow_with_the_devices_if_asked_to(ask: Ask) -> None:
    found = ask("tensorflow", 2, "refusals,estimators")["estimators"]
    assert found["steps"] == 2 * -(-569 // 32)  # two devices with 16 rows each
    assert found["rate"] == pytest.approx(0.01 * 2**0.5)
    assert found["rate after going on"] == pytest.approx([0.01 * 2**0.5] * 2)  # and not twice


# -- TPUs -----------------------------------------------------------------------------------------------------------


def test_a_tpu_is_connected_started_and_trained_on(ask: Ask) -> None:
    found = ask("tensorflow", 2, "fake_tpu")["fake_tpu"]
    assert found["calls"][:2] == ["connect to resolver of grpc://fake", "initialize resolver of grpc://fake"]
    assert found["devices"] == ["tpu:0", "tpu:1"] and found["used"] == "tpu"
    one = ask("tensorflow", 1, ONE)["figures"]["sgd, arrays, last batch of 1"]
    assert_same({name: found[name] for name in one if not name.startswith("val_")}, without_validation(one))


def without_validation(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in figures.items() if not name.startswith("val_")}


def test_a_tpu_that_does_not_answer_is_given_up(ask: Ask) -> None:
    found = ask("tensorflow", 1, ONE)["dead_tpu"]
    assert "'grpc://127.0.0.1:1' cannot be used: it did not answer within 6 s" in found["explicit"]
    assert re.search("TPU 'local' cannot be used: .*", found["local"])
    assert "no TPU is named. Give `address`" in found["unnamed"]
    assert found["auto"] == "none"
    assert re.search("did not answer within 0.5 s.*'auto' continues without the TPU", found["warning"][0])


# -- JAX ------------------------------------------------------------------------------------------------------------


def test_jax_divides_rows_and_weights(ask: Ask) -> None:
    found, one = ask("jax", 4, FOUR_OF_JAX)["on_jax"], ask("jax", 1, "figures")["figures"]
    assert found["auto"] == ["data_parallel", "JAX sees 4 devices of the best kind."]
    assert found["rows of a device"] and all(shape == [8, 16] for shape in found["rows of a device"])  # of 32 rows
    assert_same(found["model_parallel"], one["adam, tf.data, last batch of 25"])
    assert found["part of a weight"] == [30, 8] and found["part by layout"] == [15, 16]  # of 30 x 16


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("mesh", r"`mesh` is \(3, 2\), 6 devices in all; there are 4"),
        ("mirrored", "belongs to tf.distribute, which JAX does not run. Use 'data_parallel'"),
        ("address", "`address` must be the host and port of process 0.*got 'nowhere'"),
        ("number", "`process_id` from 0 to one less; got n_processes=2, process_id=2"),
        ("nobody", "Nobody listens at 127.0.0.1:1 after 0.3 s"),
        ("too late", "All of them have to call `initialize` before anything computes"),
        ("memory", "XLA_PYTHON_CLIENT_PREALLOCATE=false"),
    ],
)
def test_what_jax_cannot_do_is_refused(ask: Ask, action: str, message: str) -> None:
    assert re.search(message, ask("jax", 4, FOUR_OF_JAX)["on_jax"][action], re.DOTALL)


# -- torch ----------------------------------------------------------------------------------------------------------


def test_torch_says_what_keras_cannot_do(run_python: Any) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch: pip install torch")
    program = (
        "from kerastoolkit import distribution\n"
        "from kerastoolkit.exceptions import DistributionError\n"
        "print(distribution.strategy().explain())\n"
        "for name in ('mirrored', 'data_parallel', 'gpu'):\n"
        "    try: distribution.strategy(name)\n"
        "    except DistributionError as error: print(error)\n"
        "with distribution.strategy('cpu').scope():\n"
        "    import keras\n"
        "    print(keras.layers.Dense(1)(keras.ops.ones((2, 3))).device)\n"
    )
    lines = run_python(program, KERAS_BACKEND="torch", PYTHONPATH=str(REPOSITORY)).stdout.splitlines()
    assert lines[0].startswith("none: ") and "issues/23418" in lines[1]
    assert lines[2].startswith(
        "The strategy 'mirrored' was asked for on torch, on which this Keras distributes nothing"
    )
    assert lines[3].startswith("The strategy 'data_parallel' was asked for on torch")
    assert "DistributedDataParallel" in lines[3]
    assert lines[4].startswith("The strategy 'gpu' was asked for, and there is no GPU") or len(lines) == 5
    assert lines[-1] == "cpu"


# -- names and options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("central_storage", "CentralStorageStrategy reports a wrong loss under Keras 3. Use 'mirrored'"),
        ("multi_worker_mirrored", "never trains under Keras 3 .*issues/20585.*distribution.initialize"),
        ("parameter_server", "does not support parameter servers .*issues/18624"),
    ],
)
def test_a_strategy_that_keras_computes_wrongly_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        strategy(name)


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("name", ["data_parallel", "model_parallel"])
def test_what_keras_ignores_on_tensorflow_is_refused(name: str) -> None:
    with pytest.raises(DistributionError, match="Keras accepts keras.distribution and silently ignores it.*'mirrored'"):
        strategy(name)


@pytest.mark.backend("tensorflow", "torch")
def test_processes_are_joined_on_jax_alone() -> None:
    with pytest.raises(DistributionError, match="on JAX alone; this is .*KERAS_BACKEND=jax"):
        distribution.initialize("127.0.0.1:1234", n_processes=2, process_id=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mirored"}, "no strategy 'mirored'. Did you mean 'mirrored'"),
        ({"name": "none", "precision": "float8"}, "`precision` must be one of auto, float32.*got 'float8'"),
        ({"name": "none", "scale_learning_rate": "linear"}, "Give `per_device_batch=True`, too"),
        ({"name": "none", "per_device_batch": True, "scale_learning_rate": "cubic"}, "'linear', 'sqrt' or None"),
        ({"name": "none", "mesh": (1, 2)}, "`mesh` and `layout` are for 'model_parallel'"),
        ({"name": "none", "devices": ["cpu:0"]}, "`devices` has no meaning for 'none'"),
        ({"name": "cpu", "devices": ["cpu:0", "cpu:0"]}, "names a device twice"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        strategy(**options)


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mirrored"}, "needs two devices or more of one kind: tensorflow sees .*set_logical_device"),
        ({"name": "mirrored", "devices": ["GPU:8", "GPU:9"]}, "there is no gpu:8, gpu:9: tensorflow sees"),
        ({"name": "one_device", "devices": ["/device:CPU:77"]}, "there is no cpu:77"),
    ],
)
def test_devices_that_are_not_there_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        strategy(**options)


def test_what_is_here_is_told() -> None:
    here = distribution.detect()
    assert here.best and here.n_processes == 1
    assert "CPU: cpu:0, " in str(here) and "GiB" in str(here)


@pytest.mark.backend("tensorflow")
def test_mixed_precision_is_not_chosen_where_it_is_slower() -> None:
    if distribution.detect().best != ("cpu:0",):
        pytest.skip("there is more than a CPU")
    chosen = strategy("auto", precision="auto")
    assert (chosen.name, chosen.precision) == ("none", "float32")
    assert "On this CPU bfloat16 is no faster than float32." in chosen.explain()


def test_a_strategy_can_be_pickled_and_compared() -> None:
    chosen = strategy("cpu", precision="mixed_bfloat16")
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert chosen.summary == "'cpu' in mixed_bfloat16"


# -- estimators in this process -------------------------------------------------------------------------------------


def data() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X), y


SMALL = {"hidden": (8,), "dropout": 0.0, "epochs": 2, "random_state": 0}


@pytest.mark.parametrize("name", ["cpu", "one_device"])
def test_one_device_by_name_is_the_device_itself(name: str) -> None:
    X, y = data()
    named, plain = (KerasClassifier(distribution=one, **SMALL).fit(X, y) for one in (name, None))
    np.testing.assert_allclose(named.predict_proba(X), plain.predict_proba(X), atol=1e-5)


def test_a_strategy_that_changes_nothing_trains_in_the_shared_program() -> None:
    X, y = data()
    estimators = [KerasClassifier(distribution=name, **SMALL).fit(X, y) for name in ("none", None)]
    assert estimators[0]._fitted.strategy is None
    np.testing.assert_array_equal(*(one.predict_proba(X) for one in estimators))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_predicts_in_single_precision(precision: str) -> None:
    import keras

    X, y = data()
    mixed, single = (KerasClassifier(precision=one, **SMALL).fit(X, y) for one in (precision, "float32"))
    assert mixed.model_.layers[0].dtype_policy.name == precision
    assert keras.config.dtype_policy().name == "float32"
    assert mixed._raw_output(X[:3]).dtype == mixed._raw_output(X[:3], batch_size=2).dtype == "float32"
    np.testing.assert_allclose(mixed.predict_proba(X), single.predict_proba(X), atol=0.03)
    again = pickle.loads(pickle.dumps(mixed))
    np.testing.assert_allclose(again.predict_proba(X), mixed.predict_proba(X), atol=1e-6)


def test_fits_under_a_strategy_say_why_they_are_not_fused() -> None:
    import keras

    def build() -> keras.Model:
        model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    X, y = data()
    trained = fit_many([Fit(build, X, y, seed=0, strategy=strategy("cpu")) for _ in range(2)])
    assert explain(trained) == ("2 fits trained one by one by Model.fit: it trains under a strategy of its own, 'cpu'.")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"distribution": "mirrord"}, "no strategy 'mirrord'. Did you mean 'mirrored'"),
        ({"distribution": 4}, "`distribution` must be the name of a strategy.*got 4"),
        ({"distribution__devices": ["cpu:0"]}, "`distribution__devices` is an option .*`distribution` names none"),
        ({"distribution": "cpu", "distribution__device": "cpu:0"}, "distribution.strategy has no argument 'device'"),
        ({"precision": "half"}, "`precision` must be one of"),
    ],
)
def test_a_parameter_of_the_estimator_that_cannot_be_is_refused(parameters: dict[str, Any], message: str) -> None:
    X, y = data()
    with pytest.raises(ParameterError, match=message):
        KerasClassifier(**parameters, **SMALL).fit(X, y)


def test_a_refused_fit_leaves_the_estimator_as_it_was() -> None:
    X, y = data()
    estimator = KerasClassifier(**SMALL).fit(X, y)
    before = estimator.predict_proba(X)
    with pytest.raises(DistributionError):
        estimator.set_params(distribution="central_storage").fit(X, y)
    np.testing.assert_array_equal(estimator.predict_proba(X), before)
