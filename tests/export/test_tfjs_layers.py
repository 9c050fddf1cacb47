"""Each layer that is written for TensorFlow.js computes there what it computes in Keras; every other is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerastoolkit.export._graph import Graph, Network
from kerastoolkit.export._tfjs import node, operations
from kerastoolkit.export._tfjs.layers import _ACTIVATIONS, _OPERATIONS, _OWN_FUNCTIONS, _RULES
from kerastoolkit.export._tfjs.networks import WrittenNetwork

L = keras.layers
VECTOR, SERIES, IMAGE, IDS = (7,), (6, 5), (8, 9, 4), (6,)


def one(shape: tuple[int, ...], *layers: Any, dtype: str = "float32") -> keras.Model:
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def two(shape: tuple[int, ...], merge: Callable[[Any], Any]) -> keras.Model:
    inputs = [keras.Input(shape), keras.Input(shape)]
    return keras.Model(inputs, merge(inputs))


def ids(*layers: Any, dtype: str = "int32") -> keras.Model:
    return one(IDS, *layers, dtype=dtype)


def shared() -> keras.Model:
    """A layer and a model that are called twice, the one with an activation that is a layer of its own there."""
    inputs = keras.Input(VECTOR)
    dense = L.Dense(7, "leaky_relu")
    inner = keras.Sequential([keras.Input(VECTOR), L.Dense(7, "tanh"), L.Dense(7)])
    return keras.Model(inputs, L.Concatenate()([inner(dense(inputs)), inner(dense(dense(inputs)))]))


def several_outputs() -> keras.Model:
    a, b = keras.Input(VECTOR, name="a"), keras.Input(IDS, name="b", dtype="int32")
    x = L.Dense(4)(a)
    y = L.Flatten()(L.Embedding(10, 3)(b))
    return keras.Model({"b": b, "a": a}, {"z": L.Concatenate()([x, y]), "y": y, "x": x})


def masked(*layers: Any, value: float = 0.0) -> keras.Model:
    return one(SERIES, L.Masking(value), *layers)


def both_read_the_mask() -> keras.Model:
    inputs = keras.Input(IDS, dtype="int32")
    x = L.Dropout(0.5)(L.Embedding(10, 4, mask_zero=True)(inputs))
    return keras.Model(inputs, L.Concatenate()([L.LSTM(3)(x), L.GlobalAveragePooling1D()(x)]))


def operations_of_keras() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = (2.0 - inputs / 127.5) * 3.0 + np.arange(4, dtype="float32")
    return keras.Model(inputs, x - inputs + x * inputs)


def adapted() -> keras.Model:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(3).normal(5, 20, (50, 7)))
    return one(VECTOR, layer)


CASES: dict[str, Callable[[], keras.Model]] = {
    **{f"Dense {name}": lambda name=name: one(VECTOR, L.Dense(5, name)) for name in (*_ACTIVATIONS, *_OWN_FUNCTIONS)},
    "Dense of a series": lambda: one(SERIES, L.Dense(3, use_bias=False)),
    "Activation": lambda: one(SERIES, L.Activation("relu6")),
    "Activation exponential": lambda: one(VECTOR, L.Activation("exponential")),
    "ReLU": lambda: one(VECTOR, L.ReLU(max_value=0.7)),
    "ReLU with a slope": lambda: one(VECTOR, L.ReLU(negative_slope=0.4)),
    "LeakyReLU": lambda: one(VECTOR, L.LeakyReLU(0.15)),
    "PReLU": lambda: one(SERIES, L.PReLU(alpha_initializer="uniform")),
    "PReLU, shared": lambda: one(IMAGE, L.PReLU(alpha_initializer="uniform", shared_axes=[1, 2])),
    "ELU": lambda: one(VECTOR, L.ELU()),
    "Softmax": lambda: one(SERIES, L.Softmax()),
    "Flatten": lambda: one(IMAGE, L.Flatten()),
    "Flatten of a vector": lambda: one(VECTOR, L.Dense(3), L.Flatten()),
    "Reshape": lambda: one(SERIES, L.Reshape((3, -1))),
    "Permute": lambda: one(IMAGE, L.Permute((3, 1, 2))),
    "RepeatVector": lambda: one(VECTOR, L.RepeatVector(3)),
    "TimeDistributed": lambda: one(SERIES, L.TimeDistributed(L.Dense(3, "leaky_relu"))),
    **{
        f"Conv1D {padding} {strides} {dilation}": lambda p=padding, s=strides, d=dilation: one(
            SERIES, L.Conv1D(3, 3, s, p, dilation_rate=d, activation="relu")
        )
        for padding in ("valid", "same")
        for strides, dilation in ((1, 1), (2, 1), (1, 2))
    },
    **{
        f"Conv2D {padding} {strides} {dilation}": lambda p=padding, s=strides, d=dilation: one(
            IMAGE, L.Conv2D(3, (3, 2), s, p, dilation_rate=d, activation="silu")
        )
        for padding in ("valid", "same")
        for strides, dilation in ((1, 1), (2, 1), (1, 2))
    },
    **{
        f"{kind.__name__} {padding} {strides}": lambda k=kind, p=padding, s=strides: one(
            IMAGE, k(kernel_size=3, strides=s, padding=p, **({"filters": 5} if k is not L.DepthwiseConv2D else {}))
        )
        for kind in (L.DepthwiseConv2D, L.SeparableConv2D, L.Conv2DTranspose)
        for padding in ("valid", "same")
        for strides in (1, 2)
    },
    "DepthwiseConv2D with a multiplier": lambda: one(IMAGE, L.DepthwiseConv2D(3, depth_multiplier=2)),
    "SeparableConv2D, two of each": lambda: one(IMAGE, L.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False)),
    **{
        f"{kind.__name__} {padding} {strides}": lambda k=kind, r=shape, p=padding, s=strides: one(r, k(3, s, p))
        for kind, shape in (
            (L.MaxPooling1D, SERIES),
            (L.AveragePooling1D, SERIES),
            (L.MaxPooling2D, IMAGE),
            (L.AveragePooling2D, IMAGE),
        )
        for padding in ("valid", "same")
        for strides in (1, 2, None)
        # On torch Keras counts what it pads into the mean, so that this is refused there.
        if not (keras.config.backend() == "torch" and padding == "same" and strides != 1 and "Average" in kind.__name__)
    },
    "GlobalAveragePooling1D": lambda: one(SERIES, L.GlobalAveragePooling1D()),
    "GlobalMaxPooling1D": lambda: one(SERIES, L.GlobalMaxPooling1D()),
    "GlobalAveragePooling2D": lambda: one(IMAGE, L.GlobalAveragePooling2D()),
    "GlobalMaxPooling2D": lambda: one(IMAGE, L.GlobalMaxPooling2D()),
    "ZeroPadding2D": lambda: one(IMAGE, L.ZeroPadding2D(((1, 2), (0, 3)))),
    "Cropping2D": lambda: one(IMAGE, L.Cropping2D(((1, 2), (0, 3)))),
    "UpSampling2D": lambda: one(IMAGE, L.UpSampling2D((2, 3))),
    "BatchNormalization": lambda: one(IMAGE, L.BatchNormalization()),
    "BatchNormalization of a vector": lambda: one(VECTOR, L.BatchNormalization(scale=False, epsilon=0.1)),
    "BatchNormalization of a series": lambda: one(SERIES, L.BatchNormalization(center=False)),
    "LayerNormalization": lambda: one(SERIES, L.LayerNormalization()),
    "LayerNormalization without scale": lambda: one(VECTOR, L.LayerNormalization(scale=False, center=False)),
    "Normalization": adapted,
    "Normalization by given numbers": lambda: one(IMAGE, L.Normalization(mean=3.0, variance=4.0)),
    "Rescaling": lambda: one(IMAGE, L.Rescaling(1 / 127.5, -1)),
    "Rescaling by channel": lambda: one(IMAGE, L.Rescaling([1.0, 2.0, 3.0, 0.5], [0.0, 1.0, -2.0, 3.0])),
    "Concatenate": lambda: two(SERIES, L.Concatenate(axis=1)),
    **{
        name: lambda k=name: two(SERIES, getattr(L, k)())
        for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    "layers that only train": lambda: one(VECTOR, L.Dropout(0.5), L.Dense(3), L.GaussianNoise(1.0), L.Identity()),
    "Embedding": lambda: ids(L.Embedding(10, 3)),
    "Embedding of a mask that nothing reads": lambda: ids(L.Embedding(10, 3, mask_zero=True), L.GlobalMaxPooling1D()),
    **{
        f"{kind.__name__} {options}": lambda k=kind, o=options: one(SERIES, k(4, **o))
        for kind in (L.LSTM, L.SimpleRNN)
        for options in (
            {},
            {"return_sequences": True},
            {"go_backwards": True},
            {"use_bias": False, "activation": "softsign"},
        )
    },
    **{
        f"GRU {options}": lambda o=options: one(SERIES, L.GRU(4, reset_after=False, **o))
        for options in ({}, {"return_sequences": True}, {"use_bias": False})
    },
    **{
        f"Bidirectional {mode} {sequences}": lambda m=mode, s=sequences: one(
            SERIES, L.Bidirectional(L.LSTM(3, return_sequences=s), m)
        )
        for mode in ("concat", "sum", "ave", "mul")
        for sequences in (False, True)
    },
    **{
        f"GRU as Keras has it {options}": lambda o=options: one(SERIES, L.GRU(4, **o))
        for options in (
            {},
            {"return_sequences": True},
            {"go_backwards": True},
            {"use_bias": False, "activation": "softsign", "recurrent_activation": "softplus"},
        )
    },
    "Bidirectional GRU as Keras has it": lambda: one(SERIES, L.Bidirectional(L.GRU(3, return_sequences=True), "sum")),
    "masked GRU as Keras has it": lambda: ids(
        L.Embedding(10, 4, mask_zero=True),
        L.Bidirectional(L.GRU(3, return_sequences=True)),
        L.GRU(3, return_sequences=True),
        L.GRU(2, go_backwards=True),
    ),
    "Bidirectional GRU": lambda: one(SERIES, L.Bidirectional(L.GRU(3, reset_after=False))),
    **{
        f"masked {name}": lambda k=kind, o=options: ids(L.Embedding(10, 4, mask_zero=True), L.Dropout(0.3), k(3, **o))
        for name, kind, options in (
            ("LSTM", L.LSTM, {}),
            ("GRU", L.GRU, {"reset_after": False}),
            ("SimpleRNN", L.SimpleRNN, {"return_sequences": True}),
        )
    },
    "masked Bidirectional": lambda: ids(L.Embedding(10, 4, mask_zero=True), L.Bidirectional(L.LSTM(3))),
    "masked, one after the other": lambda: ids(
        L.Embedding(10, 4, mask_zero=True),
        L.Bidirectional(L.LSTM(3, return_sequences=True)),
        L.LayerNormalization(),
        L.Dense(4, "exponential"),
        L.LSTM(2),
    ),
    "masked mean": lambda: ids(L.Embedding(10, 4, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(3)),
    "masked mean of a recurrent layer": lambda: ids(
        L.Embedding(10, 4, mask_zero=True), L.LSTM(3, return_sequences=True), L.GlobalAveragePooling1D()
    ),
    "a mask that two layers read": both_read_the_mask,
    "Masking": lambda: masked(L.LSTM(3)),
    "Masking, mean of a recurrent layer": lambda: masked(L.LSTM(3, return_sequences=True), L.GlobalAveragePooling1D()),
    "a layer and a model called twice": shared,
    "several inputs and outputs": several_outputs,
    "operations": operations_of_keras,
    "Sequential": lambda: keras.Sequential([keras.Input(VECTOR), L.Dense(3), L.ReLU()]),
}


def arrays_for(model: keras.Model, random: np.random.Generator) -> list[Any]:
    found = []
    for tensor in model.inputs:
        shape = (5, *tensor.shape[1:])
        if str(tensor.dtype).startswith("int"):
            values = random.integers(1, 10, shape)
            for row in range(4):
                values[row, 2 + row :] = 0  # padding at the end, of each length
        else:
            values = random.normal(size=shape)
            if len(shape) == 3:
                values[1, 4:] = 0.0
                values[2, :2] = 0.0
        found.append(values.astype(str(tensor.dtype)))
    return found


def with_random_weights(model: keras.Model, random: np.random.Generator) -> keras.Model:
    for variable in model.weights:
        if "variance" in variable.name and "normalization" in variable.path.split("/")[0]:
            variable.assign(random.uniform(0.2, 2, variable.shape))
        elif str(variable.dtype) == "float32":
            variable.assign(random.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def made() -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    """One graph with the networks of all cases side by side, their inputs, and their answers in Keras."""
    random, graph, arrays, answers = np.random.default_rng(0), Graph(), {}, {}
    for number, (name, build) in enumerate(CASES.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns where a mask ends
            model = build() if name == "Normalization" else with_random_weights(build(), random)
            given = arrays_for(model, random)
            made = Network(model).compute_all(*given)
        values = []
        for place, array in enumerate(given):
            value = graph.input(f"input {number} {place}", array.dtype.name, array.shape[1:])
            arrays[value.name] = array
            values.append(value)
        for place, (value, answer) in enumerate(zip(graph.add_network(Network(model), *values), made, strict=True)):
            graph.outputs[f"{name} {place}"] = value
            answers[f"{name} {place}"] = answer
    return graph, arrays, answers


@pytest.fixture(scope="module")
def in_tfjs(made: Any, tmp_path_factory: pytest.TempPathFactory, node_packages: Path) -> dict[str, Any]:
    """What TensorFlow.js answers."""
    graph, arrays, _ = made
    folder = tmp_path_factory.mktemp("layers")
    networks = [WrittenNetwork(model, f"{number}.json") for number, model in enumerate(graph.networks)]
    for network in networks:
        network.write(folder, "float32")
    content = operations.to_json(graph, [(network.name, network.dtypes) for network in networks])
    spec = {"name": "layers", "task": "unknown", "inputs": [], "outputs": [], "versions": {}, "report": {}}
    (folder / "kerastoolkit.json").write_text(json.dumps({"format": 1, "spec": spec, "graph": content, "check": {}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_PATH", str(node_packages))
        found = node.find_node()
        assert found is not None
        with node.running(found, folder) as model:
            return model.run(arrays)


@pytest.mark.parametrize("name", CASES)
def test_a_layer_computes_in_tensorflow_js_as_in_keras(name: str, made: Any, in_tfjs: dict[str, Any]) -> None:
    _, _, answers = made
    found = [key for key in answers if key.rpartition(" ")[0] == name]
    assert found
    for key in found:
        scale = max(np.abs(answers[key]).max(), 1.0)
        np.testing.assert_allclose(in_tfjs[key], answers[key], rtol=0, atol=3e-6 * scale)
        assert np.ptp(answers[key]) > 0  # else a network that answers one number would pass


def test_every_rule_has_a_case(made: Any) -> None:
    graph, _, _ = made
    from kerastoolkit._keras import calls_of

    used = {type(call.operation).__name__ for model in graph.networks for call in calls_of(model)}
    assert set(_RULES) <= used
    assert set(_OPERATIONS) <= used | {"Divide"}  # TrueDivide by another name
