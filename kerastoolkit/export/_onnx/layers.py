"""Writes the layers of Keras that are not written by following what they compute.

These are layers that compute by a backend's own functions, layers that only train, and layers for which ONNX has a node
of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerastoolkit.export._graph import ONLY_TRAIN
from kerastoolkit.export._onnx import spatial
from kerastoolkit.export._onnx.network import Call, Made, Tensor, Write, array_of
from kerastoolkit.export._onnx.ops import ACTIVATIONS, moments, reshape, softmax
from kerastoolkit.export._onnx.recurrent import bidirectional, recurrent, time_distributed


@functools.cache
def writers() -> Mapping[type, Write]:
    """What writes a layer, by class."""
    import keras

    named: dict[str, Write] = {
        "Activation": _activation, "BatchNormalization": _batch_normalization, "Bidirectional": bidirectional,
        "Dense": _dense, "CenterCrop": _center_crop, "Flatten": _flatten, "GRU": recurrent,
        "GroupNormalization": _group_normalization, "LSTM": recurrent, "Normalization": _normalization,
        "GroupQueryAttention": _attention, "MultiHeadAttention": _attention, "PReLU": _prelu, "RNN": recurrent,
        "RepeatVector": _repeat_vector, "Rescaling": _rescaling, "Reshape": _reshape, "Resizing": _resizing,
        "SimpleRNN": recurrent, "Softmax": _softmax, "TimeDistributed": time_distributed,
    }  # fmt: skip
    named |= dict.fromkeys(ONLY_TRAIN, _left_out)
    named |= dict.fromkeys(_MERGES, _merge)
    named |= {name: _as_operation(*words) for name, words in _LIKE_OPERATIONS.items()}
    return {getattr(keras.layers, name): write for name, write in named.items() if hasattr(keras.layers, name)}


# Layers with the attributes of an operation: the operation, and its arguments by the layer's attributes.
_CONV, _DEPTHWISE = ("nn.Conv", {"kernel": "kernel"}), ("nn.DepthwiseConv", {"kernel": "kernel"})
_TRANSPOSED = ("nn.ConvTranspose", {"kernel": "kernel"})
_SEPARABLE = ("nn.SeparableConv", {"depthwise_kernel": "depthwise_kernel", "pointwise_kernel": "pointwise_kernel"})
_LIKE_OPERATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "Conv1D": _CONV, "Conv2D": _CONV, "Conv3D": _CONV, "DepthwiseConv1D": _DEPTHWISE, "DepthwiseConv2D": _DEPTHWISE,
    "SeparableConv1D": _SEPARABLE, "SeparableConv2D": _SEPARABLE, "Conv1DTranspose": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED, "Conv3DTranspose": _TRANSPOSED,
}  # fmt: skip


@functools.cache
def functions() -> Mapping[Any, Callable[[Call, str], str]]:
    """What writes an activation, by function."""
    import keras

    return {getattr(keras.activations, name): write for name, write in ACTIVATIONS.items()}


def _as_operation(name: str, weights: Mapping[str, str]) -> Write:
    """What writes a layer as an operation, then adds its bias and applies its activation."""

    def write(call: Call) -> Made:
        layer, x = call.of, call.first
        given = {"inputs": x, **{one: getattr(layer, of) for one, of in weights.items()}}
        made = spatial.WRITERS[name](Call(call.walk, layer, given, call.outputs))
        y = made if isinstance(made, str) else call.node("Identity", x.name)
        if layer.use_bias:
            n = len(call.shape) - 2
            shape = (-1,) if layer.data_format == "channels_last" else (-1, *[1] * n)
            y = call.node("Add", y, call.name(array_of(layer.bias).reshape(shape), call.dtype))
        return call.walk.function(layer.activation, call.tensor(y)) if layer.activation is not None else y

    return write


def _dense(call: Call) -> Made:
    layer, x = call.of, call.name(call.first, call.dtype)
    y = call.node("MatMul", x, call.name(layer.kernel, call.dtype))
    if layer.use_bias:
        y = call.node("Add", y, call.name(layer.bias, call.dtype))
    return call.walk.function(layer.activation, call.tensor(y)) if layer.activation is not None else y


# Layers that merge values, and the node that merges two.
_MERGES = {
    "Add": "Add", "Average": "Add", "Maximum": "Max", "Minimum": "Min", "Multiply": "Mul", "Subtract": "Sub"
}  # fmt: skip


def _merge(call: Call) -> Made:
    import keras

    if any(one.mask is not None for one in call.first):  # of which some of these layers take account
        return call.walk.follow(call.of, call.arguments)
    name = next(one for one in _MERGES if isinstance(call.of, getattr(keras.layers, one)))
    rank = max(len(one.shape) for one in call.first)
    values = []
    for one in call.first:
        missing = rank - len(one.shape)
        x = call.name(one, call.dtype)
        values.append(call.node("Unsqueeze", x, call.ints(*range(1, 1 + missing))) if missing else x)
    made = values[0]
    for other in values[1:]:
        made = call.node(_MERGES[name], made, other)
    return call.node("Div", made, call.number(float(len(values)))) if name == "Average" else made


def _activation(call: Call) -> Made:
    return call.walk.function(call.of.activation, call.first)


def _batch_normalization(call: Call) -> Made:
    layer = call.of
    given = {
        "x": call.first, "mean": layer.moving_mean, "variance": layer.moving_variance,
        "scale": layer.gamma if layer.scale else None, "offset": layer.beta if layer.center else None,
    }  # fmt: skip
    return spatial.WRITERS["nn.BatchNorm"](Call(call.walk, layer, given, call.outputs))


def _attention(call: Call) -> Made:
    """Followed, but for the causal mask: inside, Keras does not know how many steps there are."""
    given = dict(call.arguments)
    if given.get("use_causal_mask"):
        steps = [given[name].shape[1] for name in ("query", "value")]
        if None in steps or len(given["query"].shape) != 3:
            raise call.refused("a causal mask needs sequences of known length.")
        before, causal = given.get("attention_mask"), call.writer.constant(np.tri(*steps)[None].astype(bool))
        if before is not None:
            causal = call.node("And", call.name(before, "bool"), causal)
        given["attention_mask"] = Tensor(causal, "bool", (1 if before is None else None, *steps))
        given["use_causal_mask"] = False
    return call.walk.follow(call.of, given)


def _left_out(call: Call) -> Made:
    call.walk.note_only_training(call.of)
    x = call.first
    return x if x.dtype == call.dtype else Tensor(call.name(x, call.dtype), call.dtype, x.shape)


def _flatten(call: Call) -> Made:
    x, name = call.first, call.first.name
    if call.of.data_format == "channels_first" and len(x.shape) > 1:
        name = call.node("Transpose", name, perm=[0, *range(2, len(x.shape)), 1])
    return call.node("Flatten", name, axis=1)


def _reshape(call: Call) -> Made:
    return reshape(call, call.first.name, call.first.shape, call.shape)


def _repeat_vector(call: Call) -> Made:
    x = call.node("Unsqueeze", call.first.name, call.ints(1))
    return call.node("Tile", x, call.ints(1, call.of.n, 1))


def _prelu(call: Call) -> Made:
    return call.node("PRelu", call.name(call.first, call.dtype), call.name(call.of.alpha, call.dtype))


def _softmax(call: Call) -> Made:
    x, axis, given = call.name(call.first, call.dtype), call.of.axis, call.mask()
    rank = len(call.shape)
    if given is None:
        return softmax(call, x, axis, rank)
    mask = given.tensor()
    if mask.dtype == "bool":
        is_kept = mask.name
    else:
        is_kept = call.node("Greater", mask.name, call.writer.constant(np.asarray(0.5, mask.dtype)))
    low = call.number(-1e9)
    made = softmax(call, call.node("Where", is_kept, x, low), axis, rank)
    return call.node("Where", is_kept, made, call.number(0.0))


def _normalization(call: Call) -> Made:
    import keras

    mean, variance = array_of(call.of.mean, "float64"), array_of(call.of.variance, "float64")
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    x = call.name(call.first, call.dtype)
    if call.of.invert:
        return call.node("Add", call.node("Mul", x, call.name(deviation, call.dtype)), call.name(mean, call.dtype))
    return call.node("Div", call.node("Sub", x, call.name(mean, call.dtype)), call.name(deviation, call.dtype))


def _rescaling(call: Call) -> Made:
    import keras

    scale, offset = array_of(call.of.scale, call.dtype), array_of(call.of.offset, call.dtype)
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
    x = call.node("Mul", call.name(call.first, call.dtype), call.name(scale))
    return call.node("Add", x, call.name(offset)) if np.any(offset) else x


def _resizing(call: Call) -> Made:
    layer, x = call.of, call.first
    if layer.pad_to_aspect_ratio:
        raise call.refused("resizing with `pad_to_aspect_ratio` is not among what can be written.")
    if len(x.shape) != 4:
        raise call.refused("resizing of a single image is not among what can be written.")
    return spatial.resize(call, x, layer, layer.data_format == "channels_last")


def _center_crop(call: Call) -> Made:
    layer, x = call.of, call.first
    first = 1 if layer.data_format == "channels_last" else 2
    sizes, new = x.shape[first : first + 2], (layer.height, layer.width)
    if len(x.shape) != 4 or None in sizes or sizes[0] < new[0] or sizes[1] < new[1]:
        raise call.refused("it needs images of known size, not smaller than what is cut out.")
    starts = [(old - one) // 2 for old, one in zip(sizes, new, strict=True)]
    stops = [start + one for start, one in zip(starts, new, strict=True)]
    return call.node(
        "Slice", call.name(x, call.dtype), call.ints(*starts), call.ints(*stops), call.ints(first, first + 1)
    )


def _group_normalization(call: Call) -> Made:
    layer, x = call.of, call.first
    axis, groups, rank = layer.axis % len(x.shape), layer.groups, len(x.shape)
    channels = x.shape[axis]
    sizes = [0] * axis + [groups, channels // groups] + [-1 if size is None else size for size in x.shape[axis + 1 :]]
    name = call.node("Reshape", call.name(x, call.dtype), call.ints(*sizes)) if sizes.count(-1) <= 1 else ""
    if not name:
        raise call.refused("group normalization needs all sizes behind its axis but one.")
    mean, variance = moments(call, name, [place for place in range(1, rank + 1) if place != axis])
    made = call.node("Sub", name, mean)
    made = call.node("Div", made, call.node("Sqrt", call.node("Add", variance, call.number(float(layer.epsilon)))))
    shape = [1] * (rank + 1)
    shape[axis], shape[axis + 1] = groups, channels // groups
    if layer.scale:
        made = call.node("Mul", made, call.name(array_of(layer.gamma).reshape(shape), call.dtype))
    if layer.center:
        made = call.node("Add", made, call.name(array_of(layer.beta).reshape(shape), call.dtype))
    back = [0] * axis + [channels] + [-1 if size is None else size for size in x.shape[axis + 1 :]]
    return call.node("Reshape", made, call.ints(*back))
