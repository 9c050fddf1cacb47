"""Each layer of Keras in an ONNX file, with random weights, against plain Keras."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
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

pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
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
def test_a_layer_answers_as_in_keras(make: Callable[[], Any], shape: tuple[int, ...], backend: str) -> None:
    if backend == "torch" and isinstance(make(), layers.LayerNormalization) and make().axis == 1:
        pytest.skip("Keras cannot compute it on torch")
    check(one(make(), *shape), drawn(*shape))


ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
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


# -- recurrent layers and masks -------------------------------------------------------------------------------------

RECURRENT = {
    "lstm": lambda **given: layers.LSTM(4, **given),
    "gru": lambda **given: layers.GRU(4, **given),
    "gru, reset before": lambda **given: layers.GRU(4, reset_after=False, **given),
    "rnn": lambda **given: layers.SimpleRNN(4, **given),
    "lstm without bias": lambda **given: layers.LSTM(4, use_bias=False, **given),
    "lstm with other activations": lambda **given: layers.LSTM(
        4, activation="relu", recurrent_activation="hard_sigmoid", **given
    ),
    "gru with other activations": lambda **given: layers.GRU(
        4, activation="elu", recurrent_activation="softsign", **given
    ),
    "rnn of leaky relu": lambda **given: layers.SimpleRNN(4, activation="leaky_relu", **given),
    "rnn of nothing": lambda **given: layers.SimpleRNN(4, activation=None, **given),
    "lstm of what ONNX has not": lambda **given: layers.LSTM(4, activation="gelu", **given),
}
HOW = [
    {},
    {"return_sequences": True},
    {"go_backwards": True},
    {"go_backwards": True, "return_sequences": True},
]


@pytest.mark.parametrize("masked", [False, True], ids=["all steps", "masked"])
@pytest.mark.parametrize("how", HOW, ids=lambda how: ", ".join(how) or "last")
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_answers_as_in_keras(name: str, how: dict[str, bool], masked: bool) -> None:
    if name == "lstm of what ONNX has not" and (how.get("go_backwards") or not masked):
        return  # written step by step, which takes long and has no more cases
    x = keras.Input((8,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=masked)(x)
    check(keras.Model(x, RECURRENT[name](**how)(y)), words(8))


@pytest.mark.parametrize("masked", [False, True], ids=["all steps", "masked"])
@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_both_directions_are_merged_as_in_keras(merge: str | None, sequences: bool, masked: bool) -> None:
    x = keras.Input((8,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=masked)(x)
    kind = layers.GRU if sequences else layers.LSTM
    both = layers.Bidirectional(kind(4, return_sequences=sequences), merge_mode=merge)
    check(keras.Model(x, both(y)), words(8))


def test_states_go_in_and_out() -> None:
    x, h, c = keras.Input((6, 3)), keras.Input((4,)), keras.Input((4,))
    y, *ends = layers.LSTM(4, return_state=True, return_sequences=True)(x, initial_state=[h, c])
    again = layers.GRU(4, return_state=True)(y, initial_state=ends[0])
    both = layers.Bidirectional(layers.SimpleRNN(4, return_state=True))(y, initial_state=[h, ends[1]])
    check(keras.Model([x, h, c], [y, *ends, *again, *both]), drawn(6, 3), drawn(4, seed=1), drawn(4, seed=2))


def test_cells_of_other_kinds_are_written_step_by_step() -> None:
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=True)(x)
    cells = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True)(y)
    check(keras.Model(x, [cells, layers.RNN(layers.SimpleRNNCell(2), go_backwards=True)(y)]), words(5))


def test_sequences_may_be_of_any_length() -> None:
    x = keras.Input((None,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(y)
    y = layers.TimeDistributed(layers.Dense(3, activation="relu"))(y)
    model = keras.Model(x, layers.GlobalAveragePooling1D()(layers.Conv1D(3, 2, padding="same")(y)))
    check(model, words(8))
    check(model, words(5))


@pytest.mark.parametrize("layer", [layers.LSTM(2, stateful=True), layers.GRU(2, stateful=True)])
def test_a_layer_that_remembers_is_refused(layer: Any) -> None:
    x = keras.Input(batch_shape=(3, 4, 2))
    with pytest.raises(ExportError, match=f"'{layer.name}'.* stateful"):
        written(keras.Model(x, layer(x)))


def test_masks_go_where_they_go_in_keras() -> None:
    """Through layers that keep them, into layers that heed them, merged where values are merged."""
    x, z = keras.Input((8,), dtype="int32"), keras.Input((8,), dtype="int32")
    first = layers.Embedding(9, 4, mask_zero=True)(x)
    second = layers.Dropout(0.5)(layers.Embedding(9, 4, mask_zero=True)(z))
    third = layers.Embedding(9, 4)(z)
    pool = layers.GlobalAveragePooling1D()
    outputs = [
        pool(first),
        pool(layers.Add()([first, second])),
        pool(layers.Concatenate()([first, second])),
        pool(layers.Concatenate()([first, third])),
        pool(layers.Multiply()([first, third])),
        pool(layers.LayerNormalization()(first)),
        pool(layers.Conv1D(3, 2)(first)),
        layers.Softmax(axis=1)(layers.Dense(1)(second)[:, :, 0]),
        layers.LSTM(3)(layers.TimeDistributed(layers.Dense(3))(first)),
        pool(layers.Masking(mask_value=0.5)(layers.ReLU()(third))),
    ]
    check(keras.Model([x, z], outputs), words(8), words(8)[[1, 0, 0]])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["all steps", "masked"])
def test_attention_answers_as_in_keras(masked: bool, causal: bool) -> None:
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=masked)(x)
    heads = layers.MultiHeadAttention(2, 3, value_dim=5, dropout=0.1)(y, y, use_causal_mask=causal)
    scores = layers.MultiHeadAttention(2, 3)(y, y, return_attention_scores=True)[1]
    shared = layers.GroupQueryAttention(4, 4, 2)(y, y)
    single = layers.Attention(use_scale=True)([y, y], use_causal_mask=causal)
    summed = layers.AdditiveAttention()([y, y])
    kept = 2 if masked else 3  # in Keras, too, a row without words has no answer that all backends share
    for output in (heads, scores, shared, single, summed):
        check(keras.Model(x, output), words(6)[:kept])


def test_attention_takes_the_mask_from_its_input_as_in_keras() -> None:
    """Whatever is computed after it, and was not told the mask when the model was built, has none."""
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    first, second = layers.MultiHeadAttention(2, 3)(y, y), layers.MultiHeadAttention(2, 3)(y, y)
    after = [layers.GroupQueryAttention(4, 4, 2)(y, y), layers.Attention(use_scale=True)([y, y])]
    pooled = layers.GlobalAveragePooling1D()(layers.Add()([y, first]))
    check(keras.Model(x, [first, second, *after, pooled]), words(6)[:2])


# -- graphs ---------------------------------------------------------------------------------------------------------


def test_layers_that_merge_answer_as_in_keras() -> None:
    x, z, w = keras.Input((4, 3)), keras.Input((4, 3)), keras.Input((3,))
    kinds = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
    outputs = [kind()([x, z]) for kind in kinds] + [layers.Add()([x, z, w]), layers.Concatenate(axis=1)([x, z])]
    outputs += [layers.Dot(axes=2)([x, z]), layers.Dot(axes=(1, 1), normalize=True)([x, z]), layers.Dot((2, 1))([x, w])]
    check(keras.Model([x, z, w], outputs), drawn(4, 3), drawn(4, 3, seed=1), drawn(3, seed=2))


def test_operations_in_a_functional_graph_answer_as_in_keras(backend: str) -> None:
    x, ids = keras.Input((4, 3)), keras.Input((2,), dtype="int32")
    outputs = [
        x + 1.5, 2 - x, x * x, x / 3.0, x**2.0, -x, abs(x), x[:, 1:, ::2], x[:, -1], x[..., None, 0],
        ops.mean(x, axis=(1, 2), keepdims=True), ops.sum(x, axis=-1), ops.max(x, axis=1), ops.min(x, axis=(1, 2)),
        ops.prod(x, axis=2), ops.std(x, axis=1), ops.var(x, axis=-1), ops.logsumexp(x, axis=1),
        ops.argmax(x, axis=1), ops.argmin(x, axis=-1), ops.cumsum(x, axis=1), ops.any(x > 0, axis=1),
        ops.all(x > -1, axis=2), ops.reshape(x, (-1, 12)),
        ops.transpose(x, (0, 2, 1)), ops.swapaxes(x, 1, 2), ops.moveaxis(x, 1, 2), ops.expand_dims(x, 1),
        ops.squeeze(x[:, :1], 1),
        ops.concatenate([x, x], axis=2), ops.stack([x, x], axis=1), ops.repeat(x, 2, axis=1), ops.tile(x, (1, 2, 1)),
        ops.flip(x, axis=1), ops.roll(x, 1, axis=1), ops.pad(x, ((0, 0), (1, 2), (0, 0))),
        ops.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect"), *ops.split(x, 2, axis=1), *ops.unstack(x, axis=2),
        ops.take(x, [0, 2], axis=1), ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1), ops.sort(x, axis=1),
        ops.top_k(x, 2)[0], ops.clip(x, -0.5, 0.5), ops.where(x > 0, x, 0.1), ops.maximum(x, 0.2),
        ops.minimum(x, x[:, :1]),
        ops.equal(ids, 1), ops.not_equal(ids, ids[:, :1]), ops.less(ids, 2), ops.greater_equal(x, 0.0),
        ops.logical_and(x > 0, x < 1), ops.logical_not(x > 0), ops.logical_xor(x > 0, x > 1), ops.mod(ids, 2),
        ops.floor_divide(ids, 2), ops.cast(ids, "float32"), ids + 1.5, ops.cast(x, "int32"), ops.one_hot(ids, 3),
        ops.multi_hot(ids, 9), ops.zeros_like(x), ops.ones_like(x), ops.full_like(x, 2.0), ops.tril(x), ops.triu(x, 1),
        ops.matmul(x, ops.transpose(x, (0, 2, 1))), ops.tensordot(x, np.ones((3, 2), "float32"), axes=1),
        ops.einsum("abc,abd->acd", x, x), ops.dot(x, np.ones((3, 2), "float32")), ops.normalize(x, axis=1),
        ops.normalize(x, order=1), ops.isnan(x), ops.isfinite(x), ops.nan_to_num(x), ops.exp(x), ops.expm1(x),
        ops.log1p(abs(x)), ops.log(abs(x) + 1), ops.log2(abs(x) + 1), ops.sqrt(abs(x)), ops.rsqrt(abs(x) + 1),
        ops.square(x), ops.sign(x), ops.floor(x), ops.ceil(x), ops.round(x), ops.sin(x), ops.cos(x), ops.arctan(x),
        ops.erf(x), ops.tanh(x), ops.divide_no_nan(x, ops.relu(x)), ops.stop_gradient(x), ops.moments(x, axes=1)[1],
        ops.softmax(x, axis=1), ops.log_softmax(x), ops.batch_normalization(x, np.ones(3), np.ones(3), axis=-1),
    ]  # fmt: skip
    if backend != "torch":  # which has no steps back, and turns counts round
        outputs += [x[:, ::-1], ops.count_nonzero(x > 0, axis=1)]
    check(keras.Model([x, ids], outputs), drawn(4, 3), words(2, n=4))


def test_models_inside_models_and_layers_called_twice_answer_as_in_keras() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.BatchNormalization()])
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    outputs = {"sum": inner(a) + inner(b), "product": layers.Multiply()([inner(a), inner(b)])}
    both = keras.Model({"b": b, "a": a}, outputs)
    x, z, shared = keras.Input((4,)), keras.Input((4,)), layers.Dense(4)
    made = both({"a": shared(x), "b": shared(shared(z))})
    check(keras.Model([z, x], [made["sum"], made["product"]]), drawn(4), drawn(4, seed=1))


def test_a_mask_goes_into_a_model_inside_a_model() -> None:
    steps = keras.Input((8, 4))
    inner = keras.Model(steps, layers.GRU(3, return_sequences=True)(layers.LayerNormalization()(steps)))
    x = keras.Input((8,), dtype="int32")
    y = inner(layers.Embedding(9, 4, mask_zero=True)(x))
    model = keras.Model(x, [y, layers.GlobalAveragePooling1D()(y)])
    nodes = len(inner.layers[-1]._inbound_nodes)
    check(model, words(8))
    assert len(inner.layers[-1]._inbound_nodes) == nodes, "following a model must leave no traces in it"


class Scaled(layers.Layer):
    """A layer of a user's own, of layers and operations."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="own")
        self.inner = layers.Dense(3)
        self.inner.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        x = ops.where(x > 0, x * self.scale, ops.tanh(x))
        return self.inner(x) + (100.0 if training else 0.0)


class Residual(keras.Model):
    """A model of a user's own."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.first, self.second = layers.Dense(5, activation="relu"), layers.Dense(5)

    def call(self, x: Any) -> Any:
        return x + self.second(self.first(x))


def test_layers_and_models_of_a_users_own_are_followed() -> None:
    x = keras.Input((5,))
    notes = check(keras.Model(x, Scaled(name="mine")(Residual(name="ours")(x))), drawn(5))
    assert any("mine" in note and "written from what they compute" in note for note in notes)


class OfTensorFlow(layers.Layer):
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.math.bessel_i0e(x)


class OfTensorFlowAsWell(layers.Layer):
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.nn.crelu(tf.nn.l2_normalize(x, axis=-1))


@pytest.mark.backend("tensorflow")
def test_functions_of_tensorflow_are_converted_by_tf2onnx_and_it_is_said() -> None:
    pytest.importorskip("tf2onnx", reason="pip install 'kerastoolkit[tf2onnx]'")
    x = keras.Input((3, 4))
    y = layers.Dense(4)(OfTensorFlowAsWell(name="theirs")(layers.Dense(4)(x)))
    notes = check(keras.Model(x, y), drawn(3, 4))
    assert any("theirs" in note and "tf2onnx" in note for note in notes)


@pytest.mark.backend("tensorflow")
def test_what_tf2onnx_cannot_convert_either_is_refused_with_the_ways_out() -> None:
    x = keras.Input((3, 4))
    with pytest.raises(ExportError, match=r"'foreign' \(OfTensorFlow\).*`saved_model` takes any layer"):
        written(keras.Model(x, OfTensorFlow(name="foreign")(x)))


class Counting(layers.Layer):
    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x * self.calls


def test_a_layer_that_changes_its_state_is_refused() -> None:
    x = keras.Input((5,))
    layer = Counting(name="counter")
    model = keras.Model(x, layer(x))
    before = float(keras.ops.convert_to_numpy(layer.calls))
    with pytest.raises(ExportError, match="'counter'.*state"):
        written(model)
    assert float(keras.ops.convert_to_numpy(layer.calls)) == before


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_computed_in_float32(policy: str) -> None:
    x = keras.Input((5,))
    y = layers.BatchNormalization(dtype=policy)(layers.Dense(6, activation="relu", dtype=policy)(x))
    model = keras.Model(x, layers.Dense(2, activation="softmax", dtype="float32")(y))
    notes = check(model, drawn(5), tolerance=3e-2)
    assert any(policy.removeprefix("mixed_") in note for note in notes)
    plain = keras.Model(
        x, layers.Dense(2, activation="softmax")(layers.BatchNormalization()(layers.Dense(6, activation="relu")(x)))
    )
    plain.set_weights(model.get_weights())
    want = Network(plain).compute_all(drawn(5))[0]
    np.testing.assert_allclose(run(written(model)[0], [drawn(5)])[0], want, atol=1e-6)


def test_what_only_trains_is_left_out_and_said() -> None:
    x = keras.Input((6, 6, 3))
    y = layers.RandomFlip(name="flip")(layers.Dropout(0.5, name="drop")(x))
    notes = check(keras.Model(x, layers.Conv2D(2, 3)(y)), drawn(6, 6, 3))
    assert any("drop, flip" in note and "only train" in note for note in notes)


def test_weights_are_written_once() -> None:
    shared = layers.Dense(100, use_bias=False)
    x = keras.Input((100,))
    model = keras.Model(x, shared(shared(shared(x))))
    file, _ = written(with_random_weights(model))
    assert len(file) < 4 * model.count_params() + 2000


def test_a_series_of_which_channels_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    if keras.config.backend() == "tensorflow":
        pytest.skip("TensorFlow has no such convolutions on CPUs")
    x = keras.Input((4, 6, 7))
    y = layers.Conv2D(5, 3, data_format="channels_first", padding="same", strides=2)(x)
    y = layers.MaxPooling2D(2, data_format="channels_first")(layers.BatchNormalization(axis=1)(y))
    check(keras.Model(x, layers.Flatten(data_format="channels_first")(y)), drawn(4, 6, 7))


SIZES_OPEN = {
    "conv": lambda: layers.Conv2D(5, 3, padding="same"),
    "conv with strides": lambda: layers.Conv2D(5, 4, strides=3, padding="same"),
    "depthwise with strides": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "transposed": lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "max pooling": lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    "average": lambda: layers.GlobalAveragePooling2D(),
    "group normalization": lambda: layers.GroupNormalization(2),
    "layer normalization": lambda: layers.LayerNormalization(),
    "cropping": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "padding": lambda: layers.ZeroPadding2D(2),
    "upsampling": lambda: layers.UpSampling2D((2, 3)),
    "resizing": lambda: layers.Resizing(4, 5),
    "squeeze and excite": lambda: layers.Lambda(lambda x: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True))),
}


@pytest.mark.parametrize("name", SIZES_OPEN)
def test_images_may_be_of_any_size(name: str) -> None:
    if name == "upsampling":  # repeats along an axis of unknown size
        pytest.importorskip("tf2onnx", reason="pip install 'kerastoolkit[tf2onnx]'")
    model = one(SIZES_OPEN[name](), None, None, 4)
    check(model, drawn(6, 7, 4))
    check(model, drawn(9, 8, 4))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Resizing(3, 4, antialias=True), "known size"),
        (lambda: layers.Resizing(3, 4, interpolation="lanczos5"), "lanczos5"),
        (lambda: layers.Conv2D(2, 2, strides=2, dilation_rate=2, padding="same"), "known size|strides"),
    ],
)
def test_what_needs_a_size_or_has_no_counterpart_is_refused(layer: Callable[[], Any], reason: str) -> None:
    try:
        model = one(layer(), None, None, 4)
    except ValueError:
        return  # Keras refuses it as well
    with pytest.raises(ExportError, match=reason):
        written(model)


# -- whole models ---------------------------------------------------------------------------------------------------


def drawing() -> Any:
    """The module of tests that draws whole models, in words, for training."""
    path = Path(__file__).parents[1] / "training" / "test_random_models.py"
    spec = importlib.util.spec_from_file_location("drawing_of_models", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its classes look for themselves there
    spec.loader.exec_module(module)
    return module


def test_random_models_answer_as_in_keras() -> None:
    """Sixteen models, always the same."""
    models = drawing()
    n_written = 0

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=16,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(models.cases())
    def compare(case: Any) -> None:
        nonlocal n_written
        case = models.at(case, 0)
        model = models.built(case)
        kinds = zip(case["inputs"], model.inputs, strict=True)
        check(model, *(models.inputs_of(kind)[:3].astype(str(like.dtype)) for kind, like in kinds), tolerance=2e-5)
        n_written += 1

    compare()
    assert n_written >= 16
