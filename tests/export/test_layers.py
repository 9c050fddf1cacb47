"""Each layer of Keras in an ONNX file, with random weights, against plain Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerastoolkit.exceptions import ExportError

pytest.importorskip("onnx", reason="pip install 'kerastoolkit[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'kerastoolkit[onnx]'")

from kerastoolkit.export._graph import Network  # noqa: E402
from kerastoolkit.export._onnx import write_network  # noqa: E402
from kerastoolkit.export._onnx.writer import Writer  # noqa: E402

TOLERANCE = 3e-6  # of the largest number, or of 1


def with_random_weights(model: keras.Model) -> keras.Model:
    """The model with other weights than those that it begins with, statistics that were moving among them."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        drawn = random.normal(size=variable.shape) * 0.4
        if any(word in variable.path for word in ("variance", "gamma", "scale")):
            drawn = np.abs(drawn) + 0.5
        if str(variable.dtype).startswith("float") and "seed" not in variable.path:
            variable.assign(drawn)
    return model


def written(model: keras.Model) -> tuple[bytes, list[str]]:
    """The network alone as an ONNX file, and what is said about it."""
    import onnx

    writer = Writer()
    given = [
        writer.input(f"in_{place}", "float32" if "float" in str(one.dtype) else str(one.dtype), tuple(one.shape[1:]))
        for place, one in enumerate(model.inputs)
    ]
    made, notes = write_network(writer, Network(model), given)
    for place, (name, one) in enumerate(zip(made, model.outputs, strict=True)):
        writer.output(f"out_{place}", name, str(one.dtype), tuple(one.shape[1:]))
    file = writer.model("network")
    onnx.checker.check_model(file, full_check=True)
    return file.SerializeToString(), notes


def run(file: bytes, arrays: Sequence[Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {f"in_{place}": array for place, array in enumerate(arrays)}))


def check(model: keras.Model, *arrays: Any, tolerance: float = TOLERANCE) -> list[str]:
    """Compares three rows, and the first alone; returns what was said about the file."""
    with_random_weights(model)
    file, notes = written(model)
    for some in (arrays, [array[:1] for array in arrays]):
        expected = Network(model).compute_all(*some)
        for want, have in zip(expected, run(file, some), strict=True):
            assert want.shape == have.shape
            assert want.dtype == have.dtype
            size = max(1.0, float(np.abs(np.nan_to_num(want.astype("float64"))).max(initial=0)))
            np.testing.assert_allclose(have.astype("float64"), want.astype("float64"), atol=tolerance * size, rtol=0)
    return notes


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(3, *shape)).astype("float32")


def words(*shape: int, n: int = 9) -> Any:
    """Word numbers; 0 is padding: behind the second row, in the middle of the first, and the third has nothing else."""
    ids = np.random.default_rng(1).integers(1, n, size=(3, *shape)).astype("int32")
    ids[1, -2:], ids[0, 1], ids[2] = 0, 0, 0
    return ids


def one(layer: Any, *shape: int | None, dtype: str = "float32") -> keras.Model:
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(x, layer(x))


IMAGE, SERIES, ROW, VOLUME = (6, 7, 4), (8, 4), (5,), (4, 5, 6, 2)

ON_ROWS = {
    "dense": lambda: layers.Dense(3, activation="tanh"),
    "dense without bias": lambda: layers.Dense(3, use_bias=False),
    "batch normalization": lambda: layers.BatchNormalization(),
    "batch normalization without scale": lambda: layers.BatchNormalization(scale=False, epsilon=0.1),
    "batch normalization without offset": lambda: layers.BatchNormalization(center=False),
    "layer normalization": lambda: layers.LayerNormalization(),
    "layer normalization without scale": lambda: layers.LayerNormalization(scale=False, epsilon=0.1),
    "rms normalization": lambda: layers.RMSNormalization(),
    "group normalization": lambda: layers.GroupNormalization(5),
    "unit normalization": lambda: layers.UnitNormalization(),
    "spectral normalization": lambda: layers.SpectralNormalization(layers.Dense(4)),
    "normalization": lambda: layers.Normalization(mean=np.arange(5.0), variance=np.arange(1.0, 6.0)),
    "normalization inverted": lambda: layers.Normalization(mean=1.0, variance=2.0, invert=True),
    "rescaling": lambda: layers.Rescaling(2.0, offset=-1.0),
    "dropout": lambda: layers.Dropout(0.5),
    "noise": lambda: layers.GaussianNoise(1.0),
    "multiplied noise": lambda: layers.GaussianDropout(0.5),
    "alpha dropout": lambda: layers.AlphaDropout(0.5),
    "activity": lambda: layers.ActivityRegularization(l2=0.1),
    "identity": lambda: layers.Identity(),
    "reshape": lambda: layers.Reshape((1, -1)),
    "repeat": lambda: layers.RepeatVector(3),
    "flatten": lambda: layers.Flatten(),
    "prelu": lambda: layers.PReLU(),
    "leaky relu": lambda: layers.LeakyReLU(negative_slope=0.1),
    "elu": lambda: layers.ELU(alpha=0.5),
    "relu": lambda: layers.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2),
    "relu with a threshold": lambda: layers.ReLU(threshold=0.3),
    "relu with a slope": lambda: layers.ReLU(negative_slope=0.3, max_value=1.0),
    "softmax": lambda: layers.Softmax(),
    "lambda": lambda: layers.Lambda(lambda x: ops.sin(x) * 2 + x[:, :1]),
    "einsum dense": lambda: layers.EinsumDense("ab,bc->ac", output_shape=4, bias_axes="c", activation="relu"),
}
ON_SERIES = {
    "dense": lambda: layers.Dense(3, activation="gelu"),
    "einsum dense": lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
    "einsum dense over two": lambda: layers.EinsumDense("abc,bcd->ad", output_shape=5, bias_axes="d"),
    "einsum dense of another order": lambda: layers.EinsumDense("abc,dc->adb", output_shape=(5, 8)),
    "conv": lambda: layers.Conv1D(3, 3, activation="relu"),
    "conv same with strides": lambda: layers.Conv1D(3, 4, strides=3, padding="same"),
    "conv causal dilated": lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
    "conv causal with strides": lambda: layers.Conv1D(3, 2, padding="causal", strides=2),
    "conv in groups": lambda: layers.Conv1D(6, 2, groups=2, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same"),
    "separable": lambda: layers.SeparableConv1D(5, 3, depth_multiplier=2, padding="same", activation="silu"),
    "transposed": lambda: layers.Conv1DTranspose(3, 4, strides=2, padding="same"),
    "transposed valid": lambda: layers.Conv1DTranspose(3, 2, strides=3),
    "max pooling": lambda: layers.MaxPooling1D(3, strides=2, padding="same"),
    "average pooling": lambda: layers.AveragePooling1D(3, strides=2, padding="same"),
    "global average": lambda: layers.GlobalAveragePooling1D(),
    "global maximum": lambda: layers.GlobalMaxPooling1D(keepdims=True),
    "adaptive average": lambda: layers.AdaptiveAveragePooling1D(3),
    "adaptive maximum": lambda: layers.AdaptiveMaxPooling1D(3),
    "batch normalization of steps": lambda: layers.BatchNormalization(axis=1),
    "layer normalization of both": lambda: layers.LayerNormalization(axis=(1, 2)),
    "layer normalization of steps": lambda: layers.LayerNormalization(axis=1),
    "group normalization": lambda: layers.GroupNormalization(2),
    "group normalization of steps": lambda: layers.GroupNormalization(4, axis=1),
    "unit normalization of both": lambda: layers.UnitNormalization(axis=(1, 2)),
    "rms normalization": lambda: layers.RMSNormalization(axis=-1),
    "softmax of steps": lambda: layers.Softmax(axis=1),
    "softmax of both": lambda: layers.Softmax(axis=(1, 2)),
    "flatten": lambda: layers.Flatten(),
    "flatten first": lambda: layers.Flatten(data_format="channels_first"),
    "permute": lambda: layers.Permute((2, 1)),
    "reshape": lambda: layers.Reshape((-1, 2)),
    "cropping": lambda: layers.Cropping1D((1, 2)),
    "padding": lambda: layers.ZeroPadding1D((1, 2)),
    "upsampling": lambda: layers.UpSampling1D(3),
    "spatial dropout": lambda: layers.SpatialDropout1D(0.5),
    "prelu shared": lambda: layers.PReLU(shared_axes=[1]),
    "time distributed": lambda: layers.TimeDistributed(layers.Dense(3, activation="relu")),
    "masking": lambda: layers.Masking(),
}
ON_IMAGES = {
    "conv": lambda: layers.Conv2D(5, 3),
    "conv same with strides": lambda: layers.Conv2D(5, (3, 4), strides=(2, 3), padding="same"),
    "conv dilated": lambda: layers.Conv2D(5, 2, dilation_rate=(2, 3), padding="same", activation="relu6"),
    "conv in groups": lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
    "depthwise dilated": lambda: layers.DepthwiseConv2D(2, dilation_rate=2),
    "separable": lambda: layers.SeparableConv2D(5, 3, strides=2, padding="same"),
    "transposed": lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "transposed valid": lambda: layers.Conv2DTranspose(3, (2, 3), strides=(1, 2)),
    "transposed with output padding": lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1),
    "transposed dilated": lambda: layers.Conv2DTranspose(3, 3, dilation_rate=2),
    "max pooling": lambda: layers.MaxPooling2D(2),
    "max pooling same": lambda: layers.MaxPooling2D((3, 2), strides=2, padding="same"),
    "average pooling": lambda: layers.AveragePooling2D(2),
    "average pooling same": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "global average": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "global maximum": lambda: layers.GlobalMaxPooling2D(),
    "adaptive average": lambda: layers.AdaptiveAveragePooling2D((3, 2)),
    "adaptive maximum": lambda: layers.AdaptiveMaxPooling2D((4, 3)),
    "batch normalization of rows": lambda: layers.BatchNormalization(axis=1),
    "group normalization": lambda: layers.GroupNormalization(2),
    "group normalization of all": lambda: layers.GroupNormalization(-1),
    "layer normalization": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
    "flatten": lambda: layers.Flatten(),
    "cropping": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "padding": lambda: layers.ZeroPadding2D(((1, 2), (0, 3))),
    "upsampling": lambda: layers.UpSampling2D((2, 3)),
    "upsampling bilinear": lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"),
    "resizing": lambda: layers.Resizing(9, 4),
    "resizing nearest": lambda: layers.Resizing(4, 9, interpolation="nearest"),
    "resizing smoothly": lambda: layers.Resizing(3, 4, antialias=True),
    "resizing the middle": lambda: layers.Resizing(4, 4, crop_to_aspect_ratio=True),
    "center": lambda: layers.CenterCrop(3, 4),
    "rescaling by channel": lambda: layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.0, 1.0, 2.0, 3.0]),
    "normalization of rows": lambda: layers.Normalization(axis=1, mean=np.arange(6.0), variance=np.arange(1.0, 7.0)),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5),
    "flip": lambda: layers.RandomFlip(),
    "rotation": lambda: layers.RandomRotation(0.2),
    "translation": lambda: layers.RandomTranslation(0.2, 0.2),
    "zoom": lambda: layers.RandomZoom(0.2),
    "contrast": lambda: layers.RandomContrast(0.2),
    "brightness": lambda: layers.RandomBrightness(0.2),
}
ON_VOLUMES = {
    "conv": lambda: layers.Conv3D(3, 2, strides=2, padding="same"),
    "transposed": lambda: layers.Conv3DTranspose(3, 2, strides=2),
    "max pooling": lambda: layers.MaxPooling3D(2),
    "average pooling": lambda: layers.AveragePooling3D(2, padding="same"),
    "global average": lambda: layers.GlobalAveragePooling3D(),
    "global maximum": lambda: layers.GlobalMaxPooling3D(),
    "cropping": lambda: layers.Cropping3D(1),
    "padding": lambda: layers.ZeroPadding3D(1),
    "upsampling": lambda: layers.UpSampling3D(2),
}
CASES = [
    pytest.param(make, shape, id=f"{of}: {name}")
    for of, table, shape in (
        ("rows", ON_ROWS, ROW),
        ("series", ON_SERIES, SERIES),
        ("images", ON_IMAGES, IMAGE),
        ("volumes", ON_VOLUMES, VOLUME),
    )
    for name, make in table.items()
]


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_a_layer_answers_as_in_keras(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    check(one(make(), *shape), drawn(*shape))


ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh",
    "tanh_shrink",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_answers_as_in_keras(name: str) -> None:
    check(one(layers.Activation(name), 6), drawn(6) * 3)


def test_an_activation_with_arguments_is_known_by_what_it_computes() -> None:
    def gelu(x: Any) -> Any:
        return keras.activations.gelu(x, approximate=True) + keras.activations.elu(x, alpha=0.3)

    check(one(layers.Dense(6, activation=gelu), 6), drawn(6) * 2)
