"""Writes the operations of `keras.ops` on images and series (convolutions, pooling, resizing), and normalizations.

ONNX has channels first, and Keras mostly last: such a node stands between two transpositions, most of which
onnxruntime takes out again when it opens the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerastoolkit.export._graph import triangle_weights
from kerastoolkit.export._onnx.network import Call, Made, Shape, Tensor, Write, array_of
from kerastoolkit.export._onnx.ops import axes_of, moments, writer_into

WRITERS: dict[str, Write] = {}
writes = writer_into(WRITERS)


def _channels_last(call: Call) -> bool:
    import keras

    return bool((call.of.data_format or keras.config.image_data_format()) == "channels_last")


def _to_first(call: Call, x: str, rank: int) -> str:
    return call.node("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)]) if _channels_last(call) else x


def _to_last(call: Call, x: str, rank: int) -> str:
    return call.node("Transpose", x, perm=[0, *range(2, rank), 1]) if _channels_last(call) else x


def _sizes(call: Call, shape: Shape) -> Shape:
    return tuple(shape[1:-1] if _channels_last(call) else shape[2:])


def _each(value: Any, n: int) -> list[int]:
    return [int(value)] * n if np.ndim(value) == 0 else [int(one) for one in np.ravel(value)]


def _padding(
    call: Call, sizes: Shape, kernel: Sequence[int], strides: list[int], dilations: list[int]
) -> dict[str, Any]:
    """Attributes of a node for Keras' padding, which for "same" has the smaller half in front."""
    if call.of.padding == "valid":
        return {"pads": [0] * 2 * len(sizes)}
    if call.of.padding == "causal":
        return {"pads": [(kernel[0] - 1) * dilations[0], 0]}
    if all(stride == 1 for stride in strides):  # the same for all sizes
        total = [(one - 1) * wide for one, wide in zip(kernel, dilations, strict=True)]
    elif None in sizes:
        if any(one != 1 for one in dilations):
            raise call.refused('padding "same" with strides and dilation needs inputs of known size.')
        return {"auto_pad": "SAME_UPPER"}
    else:
        total = [
            max((-(-int(size or 0) // stride) - 1) * stride + (one - 1) * wide + 1 - int(size or 0), 0)
            for size, one, stride, wide in zip(sizes, kernel, strides, dilations, strict=True)
        ]
    return {"pads": [*(one // 2 for one in total), *(one - one // 2 for one in total)]}


def _convolution(call: Call, x: Tensor, kernel: Any, group: int, strides: list[int], plain: bool = False) -> str:
    """A convolution of an `x` with the channels where they come in; `kernel` is `(*sizes, in, out)`."""
    rank, n = len(x.shape), len(x.shape) - 2
    dilations = [1] * n if plain else _each(call.of.dilation_rate, n)
    pads = {} if plain else _padding(call, _sizes(call, x.shape), kernel.shape[:n], strides, dilations)
    made = call.node(
        "Conv", _to_first(call, call.name(x, call.dtype), rank),
        call.writer.constant(np.moveaxis(kernel, [-1, -2], [0, 1])),
        kernel_shape=list(kernel.shape[:n]), strides=strides, dilations=dilations, group=group, **pads,
    )  # fmt: skip
    return _to_last(call, made, rank)


def _kernel(call: Call, name: str) -> Any:
    if isinstance(call[name], Tensor):
        raise call.refused("a kernel that is itself computed is not among what can be written.")
    return array_of(call[name], call.dtype)


@writes("nn.Conv")
def _conv(call: Call) -> Made:
    x, kernel = call["inputs"], _kernel(call, "kernel")
    channels = x.shape[-1 if _channels_last(call) else 1]
    return _convolution(call, x, kernel, channels // kernel.shape[-2], _each(call.of.strides, len(x.shape) - 2))


def _depthwise_kernel(kernel: Any) -> Any:
    *sizes, channels, times = kernel.shape
    return kernel.reshape(*sizes, 1, channels * times)


@writes("nn.DepthwiseConv")
def _depthwise(call: Call) -> Made:
    x, kernel = call["inputs"], _kernel(call, "kernel")
    return _convolution(call, x, _depthwise_kernel(kernel), kernel.shape[-2], _each(call.of.strides, len(x.shape) - 2))


@writes("nn.SeparableConv")
def _separable(call: Call) -> Made:
    x, depthwise, pointwise = call["inputs"], _kernel(call, "depthwise_kernel"), _kernel(call, "pointwise_kernel")
    n = len(x.shape) - 2
    strides = _each(call.of.strides, n)
    middle = _convolution(call, x, _depthwise_kernel(depthwise), depthwise.shape[-2], strides)
    return _convolution(call, Tensor(middle, call.dtype, (None,) * (n + 2)), pointwise, 1, [1] * n, plain=True)


@writes("nn.ConvTranspose")
def _conv_transpose(call: Call) -> Made:
    x, kernel = call["inputs"], _kernel(call, "kernel")
    n, rank, extra = len(x.shape) - 2, len(x.shape), call.of.output_padding
    strides, dilations = _each(call.of.strides, n), _each(call.of.dilation_rate, n)
    begin, end, missing = [], [], []
    extras = [None] * n if extra is None else _each(extra, n)
    for one, stride, wide, more in zip(kernel.shape[:n], strides, dilations, extras, strict=True):
        excess = _excess((one - 1) * wide + 1, stride, call.of.padding, more)
        begin.append(max(excess, 0) // 2)
        end.append(max(excess, 0) - max(excess, 0) // 2)
        missing.append(max(-excess, 0))
    out = call.node(
        "ConvTranspose", _to_first(call, call.name(x, call.dtype), rank),
        call.writer.constant(np.moveaxis(kernel, [-1, -2], [0, 1])), kernel_shape=list(kernel.shape[:n]),
        strides=strides, dilations=dilations, pads=[*begin, *end],
    )  # fmt: skip
    if any(missing):
        out = call.node("Pad", out, call.ints(*[0] * (rank + 2), *missing))
    return _to_last(call, out, rank)


def _excess(kernel: int, stride: int, padding: str, extra: int | None) -> int:
    """By how much a transposed convolution is larger than what Keras keeps of it, along an axis."""
    if padding == "valid":
        return -(max(stride - kernel, 0) if extra is None else extra)
    return kernel - (stride if extra is None else kernel % 2 + extra)


@writes("nn.MaxPool", "nn.AveragePool")
def _pool(call: Call) -> Made:
    x, rank, op_type = call["inputs"], len(call.shape), type(call.of).__name__.split("ing")[0]
    window = _each(call.of.pool_size, rank - 2)
    strides = window if call.of.strides is None else _each(call.of.strides, rank - 2)
    pads = _padding(call, _sizes(call, x.shape), window, strides, [1] * (rank - 2))
    name = _to_first(call, call.name(x, call.dtype), rank)
    if op_type == "AveragePool" and call.of.padding == "same":
        name, pads = _repeated(call, name, pads)
    made = call.node(op_type, name, kernel_shape=window, strides=strides, **pads)
    return _to_last(call, made, rank)


def _repeated(call: Call, x: str, pads: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """On torch, Keras averages the numbers at the edge once more where padding is not the same on both sides."""
    import keras

    if keras.config.backend() != "torch":
        return x, pads
    if "pads" not in pads:
        raise call.refused('average pooling with padding "same" needs inputs of known size.')
    n = len(pads["pads"]) // 2
    begin, end = pads["pads"][:n], pads["pads"][n:]
    if begin == end:
        return x, pads
    return call.node("Pad", x, call.ints(0, 0, *begin, 0, 0, *end), mode="edge"), {"pads": [0] * 2 * n}


@writes("nn.AdaptiveMaxPool", "nn.AdaptiveAveragePool")
def _adaptive_pool(call: Call) -> Made:
    x, rank = call["inputs"], len(call.shape)
    old, new = _sizes(call, x.shape), _each(call.of.output_size, rank - 2)
    op_type = "ReduceMax" if "Max" in type(call.of).__name__ else "ReduceMean"
    name, first = call.name(x, call.dtype), 1 if _channels_last(call) else 2
    for axis, (size, after) in enumerate(zip(old, new, strict=True), first):
        if size is None:
            raise call.refused("adaptive pooling needs inputs of known size.")
        parts = []
        for place in range(after):
            begin, end = place * size // after, -(-(place + 1) * size // after)
            part = call.node("Slice", name, call.ints(begin), call.ints(end), call.ints(axis))
            parts.append(call.node(op_type, part, call.ints(axis), keepdims=1))
        name = call.writer.node("Concat", parts, axis=axis)
    return name


# -- normalizations -------------------------------------------------------------------------------------------------


@writes("nn.BatchNorm")
def _batch_norm(call: Call) -> Made:
    """Statistics, scale and offset in one product and one sum, rounded as Keras rounds them."""
    parts = {name: call.arguments.get(name) for name in ("mean", "variance", "scale", "offset")}
    if any(isinstance(one, Tensor) for one in parts.values()):
        raise call.refused("normalization by statistics that are computed is not among what can be written.")
    otherwise = {"scale": 1.0, "offset": 0.0}
    arrays = {name: array_of(otherwise[name] if one is None else one, call.dtype) for name, one in parts.items()}
    factor = arrays["scale"] / np.sqrt(arrays["variance"] + np.asarray(call.of.epsilon, call.dtype))
    shift = arrays["offset"] - arrays["mean"] * factor
    shape = [1] * len(call.shape)
    shape[call.of.axis] = -1
    x = call.node("Mul", call.name(call["x"], call.dtype), call.name(factor.reshape(shape), call.dtype))
    return call.node("Add", x, call.name(shift.reshape(shape), call.dtype))


@writes("nn.LayerNorm")
def _layer_norm(call: Call) -> Made:
    x, rank, epsilon = call["x"], len(call.shape), call.of.epsilon
    axes = sorted(axes_of(call.of.axis, rank))
    gamma, beta = call.arguments.get("gamma"), call.arguments.get("beta")
    name, eps = call.name(x, call.dtype), 1e-7 if epsilon is None else float(epsilon)
    sizes = [x.shape[axis] for axis in axes]
    if None in sizes or isinstance(gamma, Tensor) or isinstance(beta, Tensor):
        raise call.refused("layer normalization needs axes of known size, and weights.")
    if axes == list(range(rank - len(axes), rank)) and not call.of.rms_scaling:
        weights = [call.name(np.ones(sizes) if gamma is None else array_of(gamma).reshape(sizes), call.dtype)]
        weights += [] if beta is None else [call.name(array_of(beta).reshape(sizes), call.dtype)]
        return call.node("LayerNormalization", name, *weights, axis=axes[0], epsilon=eps)
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(rank)]
    mean, variance = moments(call, name, axes)
    centered = name if call.of.rms_scaling else call.node("Sub", name, mean)
    made = call.node("Div", centered, call.node("Sqrt", call.node("Add", variance, call.number(eps))))
    if gamma is not None:
        made = call.node("Mul", made, call.name(array_of(gamma).reshape(shape), call.dtype))
    if beta is not None and not call.of.rms_scaling:
        made = call.node("Add", made, call.name(array_of(beta).reshape(shape), call.dtype))
    return made


@writes("nn.RMSNorm")
def _rms_norm(call: Call) -> Made:
    x, axes = call["x"], axes_of(call.of.axis, len(call.shape))
    name, scale, epsilon = call.name(x, call.dtype), call.arguments.get("scale"), call.of.epsilon
    mean = call.node("ReduceMean", call.node("Mul", name, name), call.ints(*axes), keepdims=1)
    root = call.node("Sqrt", call.node("Add", mean, call.number(1e-7 if epsilon is None else float(epsilon))))
    made = call.node("Div", name, root)
    if scale is None:
        return made
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(len(x.shape))]
    return call.node("Mul", made, call.name(array_of(scale).reshape(shape), call.dtype))


@writes("nn.Normalize")
def _normalize(call: Call) -> Made:
    axes, order, epsilon = axes_of(call.of.axis, len(call.shape)), call.of.order, call.of.epsilon
    x, eps = call.name(call["x"], call.dtype), 1e-7 if epsilon is None else float(epsilon)
    if order not in (1, 2) or (order == 1 and len(axes) > 1):
        raise call.refused(f"normalization of order {order} is not among what can be written.")
    if order == 1:
        norm = call.node("ReduceSum", call.node("Abs", x), call.ints(*axes), keepdims=1)
    else:
        norm = call.node("Sqrt", call.node("ReduceSum", call.node("Mul", x, x), call.ints(*axes), keepdims=1))
    return call.node("Div", x, call.node("Max", norm, call.number(eps)))


# -- images ---------------------------------------------------------------------------------------------------------


@writes("image.Resize")
def _resize(call: Call) -> Made:
    if call.of.pad_to_aspect_ratio:
        raise call.refused("resizing with `pad_to_aspect_ratio` is not among what can be written.")
    x = call.first
    if len(x.shape) != 4:
        raise call.refused("resizing of a single image is not among what can be written.")
    return resize(call, x, call.of, _channels_last(call))


def resize(call: Call, x: Tensor, how: Any, channels_last: bool) -> str:
    """Resizes a batch of images; `how` has Keras' `size`, `interpolation`, `antialias`, `crop_to_aspect_ratio`."""
    first = 1 if channels_last else 2
    axes = [first, first + 1]
    height, width = how.size if hasattr(how, "size") else (how.height, how.width)
    name = call.name(x, "float32")
    sizes: list[Any] = [x.shape[axis] for axis in axes]
    if how.crop_to_aspect_ratio:
        name, sizes = _cropped(call, name, sizes, axes, (height, width))
    if how.antialias:
        if how.interpolation != "bilinear" or None in sizes:
            raise call.refused('resizing with `antialias=True` needs `interpolation="bilinear"` and a known size.')
        made = _by_triangles(call, name, sizes, (height, width), channels_last)
    else:
        made = _by_node(call, name, how.interpolation, (height, width), channels_last)
    if call.dtype == "float32":
        return made
    rounded = made if call.dtype.startswith("float") or how.interpolation == "nearest" else call.node("Round", made)
    return call.writer.cast(rounded, call.dtype)


def _cropped(call: Call, x: str, sizes: list[Any], axes: list[int], target: tuple[int, int]) -> tuple[str, list[int]]:
    if None in sizes:
        raise call.refused("resizing with `crop_to_aspect_ratio` needs inputs of known size.")
    (height, width), (high, wide) = sizes, target
    new = [max(min(height, int(width * high / wide)), 1), max(min(width, int(height * wide / high)), 1)]
    starts = [(old - one) // 2 for old, one in zip(sizes, new, strict=True)]
    stops = [start + one for start, one in zip(starts, new, strict=True)]
    return call.node("Slice", x, call.ints(*starts), call.ints(*stops), call.ints(*axes)), new


def _by_node(call: Call, x: str, interpolation: str, target: tuple[int, int], channels_last: bool) -> str:
    if interpolation not in ("bilinear", "nearest"):
        raise call.refused(f"resizing by {interpolation!r} is not among what can be written.")
    name = call.node("Transpose", x, perm=[0, 3, 1, 2]) if channels_last else x
    front = call.node("Slice", call.node("Shape", name), call.ints(0), call.ints(2))
    made = call.node(
        "Resize", name, "", "", call.writer.node("Concat", [front, call.ints(*target)], axis=0),
        mode={"bilinear": "linear", "nearest": "nearest"}[interpolation], coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil",
    )  # fmt: skip
    return call.node("Transpose", made, perm=[0, 2, 3, 1]) if channels_last else made


def _by_triangles(call: Call, x: str, sizes: list[int], target: tuple[int, int], channels_last: bool) -> str:
    name = call.node("Transpose", x, perm=[0, 3, 1, 2]) if channels_last else x
    rows, columns = (triangle_weights(old, new) for old, new in zip(sizes, target, strict=True))
    shorter = call.node("MatMul", call.writer.constant(rows), name)
    made = call.node("MatMul", shorter, call.writer.constant(columns.T.copy()))
    return call.node("Transpose", made, perm=[0, 2, 3, 1]) if channels_last else made


@writes("nn.DepthToSpace", "nn.SpaceToDepth")
def _depth_to_space(call: Call) -> Made:
    name = _to_first(call, call.first.name, 4)
    return _to_last(call, call.node(type(call.of).__name__, name, blocksize=int(call.of.block_size)), 4)
