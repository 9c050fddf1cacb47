"""Writes the operations of `keras.ops` that make values of values: arithmetic, reductions, shapes, products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerastoolkit.export._onnx.network import Call, Made, Shape, Tensor, Write, array_of, known_dtype

WRITERS: dict[str, Write] = {}


def writer_into(table: dict[str, Write]) -> Callable[..., Callable[[Write], Write]]:
    """A decorator that puts a function into a table, as the writer of operations of these names."""

    def writes(*names: str) -> Callable[[Write], Write]:
        def keep(write: Write) -> Write:
            table.update(dict.fromkeys(names, write))
            return write

        return keep

    return writes


writes = writer_into(WRITERS)


# -- one value ------------------------------------------------------------------------------------------------------

_SAME = {
    "numpy.Absolute": "Abs", "numpy.Abs": "Abs", "numpy.Fabs": "Abs", "numpy.Arccos": "Acos",
    "numpy.Arccosh": "Acosh", "numpy.Arcsin": "Asin", "numpy.Arcsinh": "Asinh", "numpy.Arctan": "Atan",
    "numpy.Arctanh": "Atanh", "numpy.Ceil": "Ceil", "numpy.Conjugate": "Identity", "numpy.Copy": "Identity",
    "numpy.Cos": "Cos", "numpy.Cosh": "Cosh", "numpy.Exp": "Exp", "numpy.Floor": "Floor", "numpy.Log": "Log",
    "numpy.Negative": "Neg", "numpy.Reciprocal": "Reciprocal", "numpy.Sign": "Sign", "numpy.Sin": "Sin",
    "numpy.Sinh": "Sinh", "numpy.Sqrt": "Sqrt", "numpy.Tan": "Tan", "numpy.Tanh": "Tanh", "math.Erf": "Erf",
    "nn.Relu": "Relu", "nn.Selu": "Selu", "nn.Sigmoid": "Sigmoid", "nn.Softplus": "Softplus",
    "nn.Softsign": "Softsign", "core.StopGradient": "Identity", "core.Cast": "Identity",
    "core.ConvertToTensor": "Identity", "numpy.Array": "Identity", "activations.Linear": "Identity",
}  # fmt: skip


@writes(*_SAME)
def _same(call: Call) -> Made:
    kind = type(call.of)
    op_type = _SAME[f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"]
    x = call.name(call.first, call.dtype)
    return x if op_type == "Identity" else call.node(op_type, x)


def _one(name: str, write: Callable[[Call, str], str]) -> None:
    WRITERS[name] = lambda call: write(call, call.name(call.first, call.dtype))


def _clip(call: Call, x: str, low: float, high: float) -> str:
    return call.node("Clip", x, call.number(low), call.number(high))


def _mul(call: Call, x: str, y: str | float) -> str:
    return call.node("Mul", x, y if isinstance(y, str) else call.number(y))


def _add(call: Call, x: str, y: str | float) -> str:
    return call.node("Add", x, y if isinstance(y, str) else call.number(y))


def hard_sigmoid(call: Call, x: str) -> str:
    """Keras' `hard_sigmoid`."""
    return call.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _gelu(call: Call, x: str) -> str:
    if not call.of.approximate:
        inner = call.node("Erf", _mul(call, x, math.sqrt(0.5)))
    else:
        cube = _mul(call, call.node("Mul", call.node("Mul", x, x), x), 0.044715)
        inner = call.node("Tanh", _mul(call, _add(call, x, cube), math.sqrt(2 / math.pi)))
    return _mul(call, _mul(call, x, 0.5), _add(call, inner, 1.0))


def _relu_of_layer(call: Call, x: str) -> str:
    slope, top, threshold = float(call.of.negative_slope), call.of.max_value, float(call.of.threshold or 0.0)
    kept = call.node("Relu", x)
    if threshold:
        kept = call.node("Where", call.node("Greater", x, call.number(threshold)), x, call.number(0.0))
    if top is not None:
        kept = call.node("Min", kept, call.number(float(top)))
    if not slope:
        return kept
    below = call.node("Less", x, call.number(threshold))
    return call.node("Where", below, _mul(call, _add(call, x, -threshold), slope), kept)


def _threshold(call: Call, x: str) -> str:
    above = call.node("Greater", x, call.number(float(call.of.threshold)))
    return call.node("Where", above, x, call.number(float(call.of.default_value)))


def _sparse_plus(call: Call, x: str) -> str:
    middle = call.node("Clip", _add(call, x, 1.0), call.number(0.0), call.number(2.0))
    middle = _mul(call, call.node("Mul", middle, middle), 0.25)
    return call.node("Where", call.node("Greater", x, call.number(1.0)), x, middle)


def _sinc(call: Call, x: str) -> str:
    y = _mul(call, x, math.pi)
    is_zero = call.node("Equal", y, call.number(0.0))
    return call.node("Where", is_zero, call.number(1.0), call.node("Div", call.node("Sin", y), y))


for _name, _write in {
    "activations.Mish": lambda call, x: _mul(call, x, call.node("Tanh", call.node("Softplus", x))),
    "activations.ReLU": _relu_of_layer,
    "math.Rsqrt": lambda call, x: call.node("Reciprocal", call.node("Sqrt", x)),
    "math.Erfc": lambda call, x: call.node("Sub", call.number(1.0), call.node("Erf", x)),
    "nn.Celu": lambda call, x: call.node("Celu", x, alpha=float(call.of.alpha)),
    "nn.Elu": lambda call, x: call.node("Elu", x, alpha=float(call.of.alpha)),
    "nn.Gelu": _gelu,
    "nn.HardShrink": lambda call, x: call.node("Shrink", x, lambd=float(call.of.threshold), bias=0.0),
    "nn.HardSigmoid": hard_sigmoid,
    "nn.HardSilu": lambda call, x: _mul(call, x, hard_sigmoid(call, x)),
    "nn.HardTanh": lambda call, x: _clip(call, x, -1.0, 1.0),
    "nn.LeakyRelu": lambda call, x: call.node("LeakyRelu", x, alpha=float(call.of.negative_slope)),
    "nn.LogSigmoid": lambda call, x: call.node("Neg", call.node("Softplus", call.node("Neg", x))),
    "nn.Relu6": lambda call, x: _clip(call, x, 0.0, 6.0),
    "nn.Silu": lambda call, x: _mul(call, x, call.node("Sigmoid", x)),
    "nn.SoftShrink": lambda call, x: call.node(
        "Shrink", x, lambd=float(call.of.threshold), bias=float(call.of.threshold)
    ),
    "nn.SparsePlus": _sparse_plus,
    "nn.SparseSigmoid": lambda call, x: _clip(call, _mul(call, _add(call, x, 1.0), 0.5), 0.0, 1.0),
    "nn.Squareplus": lambda call, x: _mul(
        call, _add(call, x, call.node("Sqrt", _add(call, call.node("Mul", x, x), float(call.of.b)))), 0.5
    ),
    "nn.TanhShrink": lambda call, x: call.node("Sub", x, call.node("Tanh", x)),
    "nn.Threshold": _threshold,
    "numpy.Deg2rad": lambda call, x: _mul(call, x, math.pi / 180),
    "numpy.Exp2": lambda call, x: call.node("Exp", _mul(call, x, math.log(2))),
    "numpy.Expm1": lambda call, x: _add(call, call.node("Exp", x), -1.0),
    "numpy.Log10": lambda call, x: _mul(call, call.node("Log", x), 1 / math.log(10)),
    "numpy.Log1p": lambda call, x: call.node("Log", _add(call, x, 1.0)),
    "numpy.Log2": lambda call, x: _mul(call, call.node("Log", x), 1 / math.log(2)),
    "numpy.Rad2deg": lambda call, x: _mul(call, x, 180 / math.pi),
    "numpy.Sinc": _sinc,
    "numpy.Square": lambda call, x: call.node("Mul", x, x),
}.items():
    _one(_name, _write)


# Activations by their name in `keras.activations`, as they are with no other arguments.
ACTIVATIONS: dict[str, Callable[[Call, str], str]] = {
    "exponential": lambda call, x: call.node("Exp", x),
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda call, x: _mul(call, x, hard_sigmoid(call, x)),
    "linear": lambda call, x: x,
    "mish": lambda call, x: _mul(call, x, call.node("Tanh", call.node("Softplus", x))),
    "relu": lambda call, x: call.node("Relu", x),
    "relu6": lambda call, x: _clip(call, x, 0.0, 6.0),
    "selu": lambda call, x: call.node("Selu", x),
    "sigmoid": lambda call, x: call.node("Sigmoid", x),
    "silu": lambda call, x: _mul(call, x, call.node("Sigmoid", x)),
    "softmax": lambda call, x: call.node("Softmax", x, axis=-1),
    "softplus": lambda call, x: call.node("Softplus", x),
    "softsign": lambda call, x: call.node("Softsign", x),
    "tanh": lambda call, x: call.node("Tanh", x),
}


@writes("numpy.Round")
def _round(call: Call) -> Made:
    if call.of.decimals:
        raise call.refused("`round` with `decimals` is not among the operations that can be written.")
    return call.node("Round", call.name(call.first, call.dtype))


@writes("nn.Softmax", "nn.LogSoftmax")
def _softmax(call: Call) -> Made:
    return softmax(call, call.name(call.first, call.dtype), call.of.axis, len(call.shape), type(call.of).__name__)


def softmax(call: Call, x: str, axis: Any, rank: int, op_type: str = "Softmax") -> str:
    """Softmax along an axis or several."""
    axes = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    if len(axes) == 1:
        return call.node(op_type, x, axis=int(axes[0]))
    powers = call.node("Exp", call.node("Sub", x, call.node("ReduceMax", x, call.ints(*axes), keepdims=1)))
    made = call.node("Div", powers, call.node("ReduceSum", powers, call.ints(*axes), keepdims=1))
    return made if op_type == "Softmax" else call.node("Log", made)


@writes("nn.Glu")
def _glu(call: Call) -> Made:
    x, axis = call.first, call.of.axis
    a, b = call.writer.node("Split", [x.name], n_outputs=2, axis=axis, num_outputs=2)
    return call.node("Mul", a, call.node("Sigmoid", b))


@writes("numpy.Clip")
def _numpy_clip(call: Call) -> Made:
    x = call.name(call.first, call.dtype)
    x = call.node("Max", x, call.name(call.of.x_min, call.dtype))
    return call.node("Min", x, call.name(call.of.x_max, call.dtype))


@writes("numpy.Isnan", "numpy.Isinf", "numpy.Isfinite")
def _is(call: Call) -> Made:
    x = call.name(call.first, _float(known_dtype(call.first.dtype)))
    kind = type(call.of).__name__
    if kind != "Isfinite":
        return call.node({"Isnan": "IsNaN", "Isinf": "IsInf"}[kind], x)
    return call.node("Not", call.node("Or", call.node("IsNaN", x), call.node("IsInf", x)))


@writes("numpy.NanToNum")
def _nan_to_num(call: Call) -> Made:
    info, x = np.finfo(call.dtype), call.name(call.first, call.dtype)
    top = float(info.max) if call.of.posinf is None else call.of.posinf
    low = float(info.min) if call.of.neginf is None else call.of.neginf
    x = call.node("Where", call.node("IsNaN", x), call.number(call.of.nan), x)
    for value, positive in ((top, 1), (low, 0)):
        is_inf = call.node("IsInf", x, detect_positive=positive, detect_negative=1 - positive)
        x = call.node("Where", is_inf, call.number(value), x)
    return x


def _float(dtype: str) -> str:
    return dtype if dtype.startswith("float") else "float32"


@writes("core.SaturateCast")
def _saturate_cast(call: Call) -> Made:
    x = call.first
    if not x.dtype.startswith("float") or call.dtype.startswith("float"):
        return call.name(x, call.dtype)
    info = np.iinfo(call.dtype)
    top = float(np.nextafter(np.float32(info.max), np.float32(0)))
    clipped = call.node("Clip", x.name, call.number(float(info.min), x.dtype), call.number(top, x.dtype))
    return call.writer.cast(clipped, call.dtype)


# -- two values -----------------------------------------------------------------------------------------------------

_BINARY = {
    "numpy.Add": "Add", "numpy.Subtract": "Sub", "numpy.Multiply": "Mul", "numpy.Divide": "Div",
    "numpy.TrueDivide": "Div", "numpy.Power": "Pow", "numpy.Maximum": "Max", "numpy.Minimum": "Min",
}  # fmt: skip
_COMPARISONS = {
    "numpy.Equal": "Equal", "numpy.NotEqual": "Equal", "numpy.Greater": "Greater", "numpy.Less": "Less",
    "numpy.GreaterEqual": "GreaterOrEqual", "numpy.LessEqual": "LessOrEqual",
}  # fmt: skip
_LOGICAL = {
    "numpy.LogicalAnd": "And", "numpy.LogicalOr": "Or", "numpy.LogicalXor": "Xor", "numpy.BitwiseAnd": "And",
    "numpy.BitwiseOr": "Or", "numpy.BitwiseXor": "Xor",
}  # fmt: skip


def _key(call: Call) -> str:
    kind = type(call.of)
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def _pair(call: Call, dtype: str) -> tuple[str, str]:
    first, second = list(call.arguments.values())[:2]
    return call.name(first, dtype), call.name(second, dtype)


@writes(*_BINARY)
def _binary(call: Call) -> Made:
    op_type, dtype = _BINARY[_key(call)], call.dtype
    if dtype == "bool":
        dtype_of = {"Add": "Or", "Max": "Or", "Mul": "And", "Min": "And"}
        if op_type not in dtype_of:
            raise call.refused(f"`{type(call.of).__name__.lower()}` of truth values is not among what can be written.")
        return call.node(dtype_of[op_type], *_pair(call, "bool"))
    return call.node(op_type, *_pair(call, dtype))


@writes(*_COMPARISONS)
def _compare(call: Call) -> Made:
    import keras

    values = list(call.arguments.values())[:2]
    types = [one.dtype if isinstance(one, Tensor) else _type_of_constant(one) for one in values]
    if "bool" in types and types[0] == types[1]:
        dtype = "bool" if _COMPARISONS[_key(call)] == "Equal" else "int32"
    else:
        dtype = known_dtype(keras.backend.result_type(*types))
    made = call.node(_COMPARISONS[_key(call)], *_pair(call, dtype))
    if type(call.of).__name__ != "NotEqual":
        return made
    made = call.node("Not", made)
    x, other = values
    if isinstance(x, Tensor) and x.name in call.writer.padded_at_end and not isinstance(other, Tensor):
        if np.all(array_of(other) == 0):
            call.walk.prefix_masks.add(made)
    return made


def _type_of_constant(value: Any) -> Any:
    return type(value) if isinstance(value, (bool, int, float)) else array_of(value).dtype.name


@writes(*_LOGICAL)
def _logical(call: Call) -> Made:
    if call.dtype != "bool":
        raise call.refused("operations on bits are not among those that can be written.")
    return call.node(_LOGICAL[_key(call)], *_pair(call, "bool"))


@writes("numpy.LogicalNot", "numpy.BitwiseNot", "numpy.BitwiseInvert")
def _not(call: Call) -> Made:
    if call.dtype != "bool":
        raise call.refused("operations on bits are not among those that can be written.")
    return call.node("Not", call.name(call.first, "bool"))


@writes("numpy.Mod", "numpy.FloorDivide")
def _mod(call: Call) -> Made:
    x, y = _pair(call, call.dtype)
    is_float = call.dtype.startswith("float")
    if is_float:
        floor = call.node("Floor", call.node("Div", x, y))
        is_mod = type(call.of).__name__ == "Mod"
        return call.node("Sub", x, call.node("Mul", floor, y)) if is_mod else floor
    rest = call.node("Mod", x, y)
    return rest if type(call.of).__name__ == "Mod" else call.node("Div", call.node("Sub", x, rest), y)


@writes("numpy.DivideNoNan")
def _divide_no_nan(call: Call) -> Made:
    x, y = _pair(call, call.dtype)
    is_zero = call.node("Equal", y, call.number(0))
    return call.node("Where", is_zero, call.number(0), call.node("Div", x, y))


@writes("numpy.Where")
def _where(call: Call) -> Made:
    if call.arguments.get("x1") is None or call.arguments.get("x2") is None:
        raise call.refused("`where` with a condition alone is not among the operations that can be written.")
    condition = call.name(call["condition"], "bool")
    return call.node("Where", condition, call.name(call["x1"], call.dtype), call.name(call["x2"], call.dtype))


# -- reductions -----------------------------------------------------------------------------------------------------

_REDUCTIONS = {
    "numpy.Sum": "ReduceSum", "numpy.Mean": "ReduceMean", "numpy.Max": "ReduceMax", "numpy.Min": "ReduceMin",
    "numpy.Amax": "ReduceMax", "numpy.Amin": "ReduceMin", "numpy.Prod": "ReduceProd",
    "math.Logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def axes_of(axis: Any, rank: int) -> list[int]:
    """Axes as a list of numbers of 0 or more."""
    axes = range(rank) if axis is None else axis if isinstance(axis, (list, tuple)) else [axis]
    return [int(one) % rank for one in axes]


@writes(*_REDUCTIONS)
def _reduce(call: Call) -> Made:
    if getattr(call.of, "initial", None) is not None:
        raise call.refused("a reduction with `initial` is not among the operations that can be written.")
    x, axes = call.name(call.first, call.dtype), axes_of(call.of.axis, len(call.first.shape))
    op_type = _REDUCTIONS[_key(call)]
    if op_type == "ReduceLogSumExp":  # the largest number is taken out first, which ONNX does not promise
        top = call.node("ReduceMax", x, call.ints(*axes), keepdims=1)
        total = call.node("ReduceSum", call.node("Exp", call.node("Sub", x, top)), call.ints(*axes), keepdims=1)
        made = call.node("Add", call.node("Log", total), top)
        return made if call.of.keepdims else call.node("Squeeze", made, call.ints(*axes))
    if call.dtype == "bool":
        made = call.node(op_type, call.writer.cast(x, "int32"), call.ints(*axes), keepdims=int(call.of.keepdims))
        return call.writer.cast(made, "bool")
    return call.node(op_type, x, call.ints(*axes), keepdims=int(call.of.keepdims))


@writes("numpy.Any", "numpy.All")
def _any(call: Call) -> Made:
    x, axes = call.writer.cast(call.name(call.first, "bool"), "int32"), axes_of(call.of.axis, len(call.first.shape))
    op_type = {"Any": "ReduceMax", "All": "ReduceMin"}[type(call.of).__name__]
    return call.writer.cast(call.node(op_type, x, call.ints(*axes), keepdims=int(call.of.keepdims)), "bool")


@writes("numpy.CountNonzero")
def _count_nonzero(call: Call) -> Made:
    x, axes = call.name(call.first, "bool"), axes_of(call.of.axis, len(call.first.shape))
    return call.node("ReduceSum", call.writer.cast(x, call.dtype), call.ints(*axes), keepdims=0)


def moments(call: Call, x: str, axes: Sequence[int], keepdims: bool = True) -> tuple[str, str]:
    """Mean and variance."""
    mean = call.node("ReduceMean", x, call.ints(*axes), keepdims=1)
    away = call.node("Sub", x, mean)
    variance = call.node("ReduceMean", call.node("Mul", away, away), call.ints(*axes), keepdims=int(keepdims))
    return (mean if keepdims else call.node("Squeeze", mean, call.ints(*axes))), variance


@writes("numpy.Var", "numpy.Std", "nn.Moments")
def _moments(call: Call) -> Made:
    kind = type(call.of).__name__
    axis = call.of.axes if kind == "Moments" else call.of.axis
    axes = axes_of(axis, len(call.first.shape))
    mean, variance = moments(call, call.name(call.first, call.dtype), axes, bool(call.of.keepdims))
    return (mean, variance) if kind == "Moments" else variance if kind == "Var" else call.node("Sqrt", variance)


@writes("numpy.Argmax", "numpy.Argmin")
def _argmax(call: Call) -> Made:
    x, axis, keep = call.first, call.of.axis, int(call.of.keepdims)
    name = call.writer.cast(x.name, "int32") if x.dtype == "bool" else x.name
    if axis is None:
        name, axis, keep = call.node("Reshape", name, call.ints(-1)), 0, 0
        if call.of.keepdims:
            raise call.refused("`argmax` of all axes with `keepdims` is not among what can be written.")
    op_type = {"Argmax": "ArgMax", "Argmin": "ArgMin"}[type(call.of).__name__]
    return call.writer.cast(call.node(op_type, name, axis=int(axis), keepdims=keep), call.dtype)


@writes("numpy.Cumsum")
def _cumsum(call: Call) -> Made:
    x, axis = call.name(call.first, call.dtype), call.of.axis
    if axis is None:
        x, axis = call.node("Reshape", x, call.ints(-1)), 0
    return call.node("CumSum", x, call.writer.constant(np.array(axis, "int64")))


# -- shapes ---------------------------------------------------------------------------------------------------------


def reshape(call: Call, x: str, before: Shape, after: Sequence[int | None]) -> str:
    """Reshapes; of the new sizes, at most one may be unknown that is not an old one in the same place."""
    sizes = [-1 if size is None else int(size) for size in after]
    unknown = [place for place, size in enumerate(sizes) if size == -1]
    for place in unknown[:-1]:
        if place >= len(before) or before[place] is not None or tuple(after[:place]) != tuple(before[:place]):
            raise call.refused(f"it reshapes {before} to {tuple(after)}, where more than one size is not known.")
        sizes[place] = 0
    if len(unknown) == 1 and unknown[0] < len(before) and tuple(after[: unknown[0] + 1]) == before[: unknown[0] + 1]:
        known = [math.prod(size or 1 for size in shape[unknown[0] :]) for shape in (before, tuple(after))]
        if known[0] == known[1] and None not in before[unknown[0] + 1 :]:
            sizes[unknown[0]] = 0  # the same size stays in its place, also where it is 0
    return call.node("Reshape", x, call.ints(*sizes))


@writes("numpy.Reshape", "numpy.Ravel")
def _reshape(call: Call) -> Made:
    return reshape(call, call.first.name, call.first.shape, call.shape)


@writes("numpy.Transpose")
def _transpose(call: Call) -> Made:
    axes = call.of.axes or range(len(call.first.shape))[::-1]
    return call.node("Transpose", call.first.name, perm=[int(axis) % len(call.first.shape) for axis in axes])


@writes("numpy.Swapaxes")
def _swapaxes(call: Call) -> Made:
    perm = list(range(len(call.shape)))
    a, b = call.of.axis1 % len(perm), call.of.axis2 % len(perm)
    perm[a], perm[b] = perm[b], perm[a]
    return call.node("Transpose", call.first.name, perm=perm)


@writes("numpy.Moveaxis")
def _moveaxis(call: Call) -> Made:
    rank = len(call.shape)
    source, destination = axes_of(call.of.source, rank), axes_of(call.of.destination, rank)
    perm = [axis for axis in range(rank) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        perm.insert(place, axis)
    return call.node("Transpose", call.first.name, perm=perm)


@writes("numpy.ExpandDims")
def _expand_dims(call: Call) -> Made:
    return call.node("Unsqueeze", call.first.name, call.ints(*axes_of(call.of.axis, len(call.shape))))


@writes("numpy.Squeeze")
def _squeeze(call: Call) -> Made:
    shape = call.first.shape
    axes = (
        [a for a, size in enumerate(shape) if size == 1] if call.of.axis is None else axes_of(call.of.axis, len(shape))
    )
    return call.node("Squeeze", call.first.name, call.ints(*axes))


@writes("numpy.Concatenate", "numpy.Hstack", "numpy.Vstack")
def _concatenate(call: Call) -> Made:
    kind, parts = type(call.of).__name__, list(call.first)
    axis = call.of.axis if kind == "Concatenate" else {"Hstack": 1, "Vstack": 0}[kind]
    if kind != "Concatenate" and any(len(part.shape) < 2 for part in parts):
        raise call.refused(f"`{kind.lower()}` of vectors is not among the operations that can be written.")
    return call.writer.node("Concat", [call.name(part, call.dtype) for part in parts], axis=int(axis))


@writes("numpy.Append")
def _append(call: Call) -> Made:
    if call.of.axis is None:
        raise call.refused("`append` without an axis is not among the operations that can be written.")
    return call.writer.node("Concat", list(_pair(call, call.dtype)), axis=int(call.of.axis))


@writes("numpy.Stack")
def _stack(call: Call) -> Made:
    axis = call.of.axis % len(call.shape)
    parts = [call.node("Unsqueeze", call.name(part, call.dtype), call.ints(axis)) for part in call.first]
    return call.writer.node("Concat", parts, axis=axis)


@writes("numpy.Repeat")
def _repeat(call: Call) -> Made:
    axis, repeats, x = call.of.axis, np.ravel(array_of(call.of.repeats)), call.first
    if axis is None or len(repeats) != 1:
        raise call.refused("`repeat` without an axis, or with several counts, is not among what can be written.")
    axis = axis % len(x.shape)
    return repeat(call, x.name, x.shape, axis, int(repeats[0]))


def repeat(call: Call, x: str, shape: Shape, axis: int, times: int) -> str:
    """Repeats each place of an axis."""
    if times == 1:
        return x
    size = shape[axis]
    if size is not None:
        places = np.repeat(np.arange(size), times)
        return call.node("Gather", x, call.writer.constant(places), axis=axis)
    longer = call.node("Unsqueeze", x, call.ints(axis + 1))
    repeats = [times if place == axis + 1 else 1 for place in range(len(shape) + 1)]
    tiled = call.node("Tile", longer, call.ints(*repeats))
    if axis == 0 or None in shape[:axis]:
        sizes = [0] * axis + [-1] + [0 if size is None else size for size in shape[axis + 1 :]]
        if None in shape[axis + 1 :]:
            raise call.refused("`repeat` along an axis of unknown size needs to know the sizes behind it.")
        return call.node("Reshape", tiled, call.ints(*sizes))
    return reshape(call, tiled, (), (*shape[:axis], None, *shape[axis + 1 :]))


@writes("numpy.Tile")
def _tile(call: Call) -> Made:
    rank = len(call.shape)
    repeats = [int(one) for one in np.ravel(array_of(call.of.repeats))]
    x = call.first.name
    if rank > len(call.first.shape):
        x = call.node("Unsqueeze", x, call.ints(*range(rank - len(call.first.shape))))
    return call.node("Tile", x, call.ints(*[1] * (rank - len(repeats)), *repeats))


@writes("numpy.Flip")
def _flip(call: Call) -> Made:
    return flip(call, call.first.name, axes_of(call.of.axis, len(call.shape)))


def flip(call: Call, x: str, axes: Sequence[int]) -> str:
    """Turns axes round."""
    far = np.iinfo("int64").min + 1
    ends = [call.ints(*[one] * len(axes)) for one in (-1, far)]
    return call.node("Slice", x, *ends, call.ints(*axes), call.ints(*[-1] * len(axes)))


@writes("numpy.Pad")
def _pad(call: Call) -> Made:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "edge"}.get(call.of.mode)
    if mode is None:
        raise call.refused(f"`pad` in the mode {call.of.mode!r} is not among the operations that can be written.")
    width = np.broadcast_to(np.asarray(call.of.pad_width), (len(call.shape), 2))
    value = call.arguments.get("constant_values")
    extra = [] if mode != "constant" else [call.number(0 if value is None else value)]
    x = call.name(call.first, call.dtype)
    if call.dtype == "bool":
        padded = call.node("Pad", call.writer.cast(x, "int32"), call.ints(*width[:, 0], *width[:, 1]), mode=mode)
        return call.writer.cast(padded, "bool")
    return call.node("Pad", x, call.ints(*width[:, 0], *width[:, 1]), *extra, mode=mode)


@writes("numpy.BroadcastTo")
def _broadcast_to(call: Call) -> Made:
    sizes = [1 if size is None or size == -1 else int(size) for size in call.of.shape]
    return call.node("Expand", call.first.name, call.ints(*sizes))


@writes("numpy.ZerosLike", "numpy.OnesLike", "numpy.FullLike", "numpy.EmptyLike")
def _like(call: Call) -> Made:
    kind = type(call.of).__name__
    value = call["fill_value"] if kind == "FullLike" else int(kind == "OnesLike")
    shape = call.node("Shape", call.first.name)
    return call.node("Expand", call.name(value, call.dtype), shape)


@writes("numpy.Take")
def _take(call: Call) -> Made:
    axis, values, indices = call.of.axis, call["x"], call["indices"]
    if axis is None:
        if isinstance(values, Tensor):
            raise call.refused("`take` without an axis is not among the operations that can be written.")
        values, axis = array_of(values).ravel(), 0
    places = call.name(indices) if isinstance(indices, Tensor) else call.writer.constant(array_of(indices, "int64"))
    if isinstance(indices, Tensor) and indices.dtype not in ("int32", "int64"):
        places = call.writer.cast(places, "int64")
    return call.node("Gather", call.name(values, call.dtype), places, axis=int(axis))


@writes("numpy.TakeAlongAxis")
def _take_along_axis(call: Call) -> Made:
    if call.of.axis is None:
        raise call.refused("`take_along_axis` without an axis is not among the operations that can be written.")
    return call.node(
        "GatherElements", call.name(call["x"], call.dtype), call.name(call["indices"], "int64"), axis=int(call.of.axis)
    )


@writes("numpy.GetItem")
def _get_item(call: Call) -> Made:
    x, key = call["x"], call["key"]
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(part, Tensor) for part in parts):
        raise call.refused("an index that is itself computed is not among what can be written.")
    parts += [] if Ellipsis in parts else [Ellipsis]
    n_given = sum(part is not None and part is not Ellipsis for part in parts)
    place = parts.index(Ellipsis)
    parts[place : place + 1] = [slice(None)] * (len(x.shape) - n_given)
    name, axis = x.name, 0
    squeezed: list[int] = []
    new: list[int] = []
    slices: list[tuple[int, int, int, int]] = []
    for where, part in enumerate(part for part in parts):
        if part is None:
            new.append(where - len(squeezed))
            continue
        if isinstance(part, slice):
            if (part.start, part.stop, part.step) != (None, None, None):
                slices.append((axis, *_slice_of(part)))
        else:
            index = int(part)
            slices.append((axis, index, index + 1 if index != -1 else np.iinfo("int64").max, 1))
            squeezed.append(axis)
        axis += 1
    if slices:
        axes, starts, stops, steps = zip(*slices, strict=True)
        name = call.node("Slice", name, call.ints(*starts), call.ints(*stops), call.ints(*axes), call.ints(*steps))
    if squeezed:
        name = call.node("Squeeze", name, call.ints(*squeezed))
    return call.node("Unsqueeze", name, call.ints(*new)) if new else name


def _slice_of(part: slice) -> tuple[int, int, int]:
    step, far = int(part.step or 1), np.iinfo("int64")
    start = (0 if step > 0 else -1) if part.start is None else int(part.start)
    stop = (far.max if step > 0 else far.min + 1) if part.stop is None else int(part.stop)
    return start, stop, step


@writes("core.Slice")
def _core_slice(call: Call) -> Made:
    x, starts = call["inputs"], call["start_indices"]
    if any(isinstance(one, Tensor) for one in (starts if isinstance(starts, (list, tuple)) else [starts])):
        raise call.refused("a slice whose start is itself computed is not among what can be written.")
    begin = [int(one) for one in np.ravel(array_of(starts))]
    if None in call.of.shape:
        raise call.refused("a slice of unknown size is not among what can be written.")
    stops = [one + int(size) for one, size in zip(begin, call.of.shape, strict=True)]
    return call.node("Slice", x.name, call.ints(*begin), call.ints(*stops))


@writes("numpy.Split", "numpy.ArraySplit", "core.Unstack")
def _split(call: Call) -> Made:
    x, axis, kind = call.first, call.of.axis % len(call.first.shape), type(call.of).__name__
    sizes = [1] * len(call.outputs) if kind == "Unstack" else [one.shape[axis] for one in call.outputs]
    if None in sizes:
        raise call.refused("a split along an axis of unknown size is not among what can be written.")
    if len(sizes) == 1:
        parts = [x.name]
    else:
        parts = call.writer.node("Split", [x.name, call.ints(*sizes)], n_outputs=len(sizes), axis=axis)
    return [call.node("Squeeze", part, call.ints(axis)) for part in parts] if kind == "Unstack" else parts


@writes("numpy.Roll")
def _roll(call: Call) -> Made:
    axis, x = call.of.axis, call.first
    if not isinstance(axis, int) or x.shape[axis] is None:
        raise call.refused("`roll` needs one axis of known size.")
    places = np.roll(np.arange(x.shape[axis]), int(call.of.shift))
    return call.node("Gather", x.name, call.writer.constant(places), axis=axis)


@writes("numpy.Tril", "numpy.Triu")
def _tril(call: Call) -> Made:
    upper = int(type(call.of).__name__ == "Triu")
    return call.node("Trilu", call.first.name, call.writer.constant(np.array(int(call.of.k))), upper=upper)


@writes("nn.OneHot")
def _one_hot(call: Call) -> Made:
    # Outside of the classes Keras has no 1, where ONNX counts from the end.
    x, n = call.name(call.first, "int64"), int(call.of.num_classes)
    axis = call.of.axis % len(call.shape)
    classes = np.arange(n).reshape([n if place == axis else 1 for place in range(len(call.shape))])
    is_class = call.node("Equal", call.node("Unsqueeze", x, call.ints(axis)), call.writer.constant(classes))
    return call.writer.cast(is_class, call.dtype)


@writes("nn.MultiHot")
def _multi_hot(call: Call) -> Made:
    x, n = call.first, int(call.of.num_classes)
    longer = call.node("Unsqueeze", call.name(x, "int64"), call.ints(-1))
    is_class = call.node("Equal", longer, call.writer.constant(np.arange(n)))
    axis = len(x.shape) - 1 if len(x.shape) > 1 else 0
    hot = call.node("ReduceMax", call.writer.cast(is_class, "int32"), call.ints(axis), keepdims=0)
    return call.writer.cast(hot, call.dtype)


@writes("math.TopK")
def _top_k(call: Call) -> Made:
    return call.writer.node("TopK", [call.first.name, call.ints(int(call.of.k))], n_outputs=2, axis=-1, sorted=1)


@writes("numpy.Sort", "numpy.Argsort")
def _sort(call: Call) -> Made:
    x, axis = call.first, call.of.axis
    if axis is None or x.shape[axis] is None:
        raise call.refused("`sort` needs an axis of known size.")
    both = call.writer.node("TopK", [x.name, call.ints(x.shape[axis])], n_outputs=2, axis=int(axis), largest=0)
    return both[0] if type(call.of).__name__ == "Sort" else call.writer.cast(both[1], call.dtype)


# -- products -------------------------------------------------------------------------------------------------------


@writes("numpy.Matmul", "numpy.Dot")
def _matmul(call: Call) -> Made:
    values = list(call.arguments.values())
    ranks = [len(one.shape) for one in values]
    if type(call.of).__name__ == "Dot" and (min(ranks) == 0 or ranks[1] > 2):
        raise call.refused("`dot` of these shapes is not among the operations that can be written.")
    return call.node("MatMul", *_pair(call, call.dtype))


@writes("numpy.Tensordot")
def _tensordot(call: Call) -> Made:
    x, y, axes = call["x1"], call["x2"], call.of.axes
    n, m = len(x.shape), len(y.shape)
    a, b = (list(range(n - axes, n)), list(range(axes))) if isinstance(axes, int) else axes
    a, b = axes_of(a, n), axes_of(b, m)
    left = [chr(97 + place) for place in range(n)]
    right = [chr(97 + n + place) for place in range(m)]
    for place, other in zip(a, b, strict=True):
        right[other] = left[place]
    out = [one for p, one in enumerate(left) if p not in a] + [one for p, one in enumerate(right) if p not in b]
    return einsum(call, f"{''.join(left)},{''.join(right)}->{''.join(out)}", [x, y])


@writes("numpy.Einsum")
def _einsum(call: Call) -> Made:
    operands = call["operands"]
    return einsum(call, call.of.subscripts.replace(" ", ""), list(operands))


def einsum(call: Call, subscripts: str, operands: Sequence[Any]) -> str:
    """Einstein's sum; as a product of matrices where it is one with a constant."""
    left, _, out = subscripts.partition("->")
    parts = left.split(",")
    if len(operands) == 2 and "." not in subscripts and not isinstance(operands[1], Tensor) and out:
        x, (a, b), kernel = operands[0], parts, array_of(operands[1], call.dtype)
        inner = [one for one in b if one in a]
        outer = [one for one in b if one not in a]
        free = a[: len(a) - len(inner)]
        if a == free + "".join(inner) and b == "".join(inner + outer) and out == free + "".join(outer) and outer:
            name = call.name(x, call.dtype)
            split = math.prod(kernel.shape[: len(inner)])
            if len(inner) > 1:
                name = call.node("Reshape", name, call.ints(*[0] * len(free), split))
            made = call.node("MatMul", name, call.writer.constant(kernel.reshape(split, -1)))
            sizes = kernel.shape[len(inner) :]
            return made if len(outer) == 1 else call.node("Reshape", made, call.ints(*[0] * len(free), *sizes))
    names = [call.name(one, call.dtype) for one in operands]
    return call.writer.node("Einsum", names, equation=subscripts)


@writes("nn.DotProductAttention")
def _attention(call: Call) -> Made:
    given = call.arguments
    query, key, value = (call.name(given[name], call.dtype) for name in ("query", "key", "value"))
    size = given["query"].shape[-1]
    n_query, n_key = (given[name].shape[2] for name in ("query", "key"))
    if given.get("bias") is not None or call.of.attn_logits_soft_cap is not None or n_query % n_key:
        raise call.refused("attention with a bias or a soft cap is not among what can be written.")
    if n_query != n_key:
        key, value = (repeat(call, one, given["key"].shape, 2, n_query // n_key) for one in (key, value))
    scale = given.get("scale")
    scale = 1 / math.sqrt(size) if scale is None else float(array_of(scale))
    query = call.node("Mul", call.node("Transpose", query, perm=[0, 2, 1, 3]), call.number(scale))
    scores = call.node("MatMul", query, call.node("Transpose", key, perm=[0, 2, 3, 1]))
    low = call.number(-0.7 * float(np.finfo(call.dtype).max))
    if given.get("mask") is not None:
        scores = call.node("Where", call.name(given["mask"], "bool"), scores, low)
    if call.of.is_causal:
        sizes = [given[name].shape[1] for name in ("query", "key")]
        if None in sizes:
            raise call.refused("a causal mask needs sequences of known length.")
        scores = call.node("Where", call.writer.constant(np.tri(*sizes, dtype=bool)), scores, low)
    mixed = call.node("MatMul", call.node("Softmax", scores, axis=-1), call.node("Transpose", value, perm=[0, 2, 1, 3]))
    return call.node("Transpose", mixed, perm=[0, 2, 1, 3])
