"""Writes the operations of a graph as nodes of ONNX.

Each function writes one operation, and gets the names of its inputs. What ONNX computes differently from NumPy is
spelt out: `log1p` and `expm1` near 0, a cumulative minimum, an interpolation. Words are split by an operator that
onnxruntime adds to ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph
from kerastoolkit.export._graph import Graph, Node, triangle_weights
from kerastoolkit.export._onnx.writer import Writer

# Words as scikit-learn finds them, two or more letters, digits or underscores, in the regular expressions of RE2.
_WORD = r"[\pL\pN_]{2,}"
_MS, _ML = "com.microsoft", "ai.onnx.ml"


def write_operation(writer: Writer, node: Node, inputs: Sequence[str]) -> str:
    """Writes an operation that is not a network.

    Args:
        writer: What the nodes are added to.
        node: The operation; `node.inputs` and `node.outputs` say types and shapes.
        inputs: What the inputs are called in the ONNX graph.

    Returns:
        What the output is called in the ONNX graph.

    Raises:
        ExportError: ONNX has no words for it.
    """
    write = _WRITERS.get(type(node.operation))
    if write is None:
        raise ExportError(f"An ONNX file cannot hold the operation {type(node.operation).__name__}. `saved_model` can.")
    return write(_Nodes(writer, node), node.operation, *inputs)


def notes_of(graph: Graph) -> list[str]:
    """What an ONNX file of a graph does otherwise than the model: small letters that onnxruntime takes for others."""
    operations = [node.operation for node in graph.nodes]
    words = {word for one in operations if isinstance(one, _graph.TokenIds) for word in one.words}
    words |= {word for one in operations if isinstance(one, _graph.WordCounts) and one.lowercase for word in one.words}
    notes = []
    if any(word.endswith("ς") for word in words):
        notes.append("A word in capitals that ends in Σ is unknown to the file: its small letter is σ there, and no ς.")
    if any(letter in word for word in words for letter in "ıĞğŞş"):
        notes.append("A word with a capital İ may be another one to the file: its small letter is i there.")
    return notes


class _Nodes:
    """Short spellings for the nodes of one operation, whose constants have the type of its first input."""

    def __init__(self, writer: Writer, node: Node) -> None:
        self.writer, self.node = writer, node
        self.dtype = node.inputs[0].dtype if node.inputs else "float32"
        self.shape = node.inputs[0].shape if node.inputs else ()

    @property
    def is_text(self) -> bool:
        return self.dtype == "string"

    def __call__(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return str(self.writer.node(op_type, list(inputs), domain=domain, **attributes))

    def number(self, value: Any) -> str:
        """A constant of the type of the input."""
        return self.writer.constant(np.asarray(value, self.dtype))

    def whole(self, value: Any) -> str:
        """A constant of whole numbers."""
        return self.writer.constant(np.asarray(value, "int64"))

    def text(self, value: Any) -> str:
        """A constant of texts."""
        return self.writer.constant(np.asarray(value, object))

    def sum(self, x: str, *, keepdims: bool = False) -> str:
        """The sum along the last axis."""
        return self("ReduceSum", x, self.whole([-1]), keepdims=int(keepdims))

    def behind(self, x: str) -> str:
        """The same with a last axis of 1."""
        return self("Unsqueeze", x, self.whole([-1]))

    def is_missing(self, x: str) -> str:
        """Whether a number is NaN, or a text is empty."""
        if not self.is_text:
            return self("IsNaN", x)
        empty = self("LabelEncoder", x, domain=_ML, keys_strings=[""], values_int64s=[1], default_int64=0)
        return self.writer.cast(empty, "bool")


# -- shapes and types -----------------------------------------------------------------------------------------------


def _cast(on: _Nodes, operation: _graph.Cast, x: str) -> str:
    return on.writer.cast(x, operation.dtype)


def _reshape(on: _Nodes, operation: _graph.Reshape, x: str) -> str:
    return on("Reshape", x, on.whole([0, *operation.shape]))


def _concatenate(on: _Nodes, operation: _graph.Concatenate, *values: str) -> str:
    return on("Concat", *values, axis=-1)


def _take(on: _Nodes, operation: _graph.Take, x: str) -> str:
    return on("Gather", x, on.whole(operation.places), axis=-1)


# -- missing values and categories ----------------------------------------------------------------------------------


def _is_missing(on: _Nodes, operation: _graph.IsMissing, x: str) -> str:
    return on.writer.cast(on.is_missing(x), "float32")


def _fill_missing(on: _Nodes, operation: _graph.FillMissing, x: str) -> str:
    values = on.text(operation.values) if on.is_text else on.number(operation.values)
    return on("Where", on.is_missing(x), values, x)


def _category_index(on: _Nodes, operation: _graph.CategoryIndex, x: str) -> str:
    numbers = list(range(operation.first, operation.first + len(operation.categories)))
    if on.is_text:
        return on(
            "LabelEncoder", x, domain=_ML, keys_strings=["", *operation.categories],
            values_int64s=[operation.missing, *numbers], default_int64=operation.unseen,
        )  # fmt: skip
    # Compared in full precision: the operator LabelEncoder knows numbers of float32 alone.
    known = on("Equal", on.behind(x), on.number(operation.categories))
    steps = on("Mul", on.writer.cast(known, "int64"), on.whole(np.array(numbers, "int64") - operation.unseen))
    index = on("Add", on.sum(steps), on.whole(operation.unseen))
    if on.dtype.startswith("float"):
        index = on("Where", on("IsNaN", x), on.whole(operation.missing), index)
    return index


def _lookup(on: _Nodes, operation: _graph.Lookup, x: str) -> str:
    return on("Gather", on.writer.constant(operation.table), x, axis=0)


def _padded(rows: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Rows of different lengths as one array."""
    made = np.full((len(rows), max(map(len, rows))), value, "float64")
    for row, values in zip(made, rows, strict=True):
        row[: len(values)] = values
    return made


def _bin(on: _Nodes, operation: _graph.Bin, x: str) -> str:
    edges = on.number(_padded(operation.edges, np.nan))  # with which no comparison is true
    passed = on("Less" if operation.right else "LessOrEqual", edges, on.behind(x))
    return on.sum(on.writer.cast(passed, "int64"))


# -- arithmetic -----------------------------------------------------------------------------------------------------


def _standardize(on: _Nodes, operation: _graph.Standardize, x: str) -> str:
    return on("Div", on("Sub", x, on.number(operation.mean)), on.number(operation.scale))


def _affine(on: _Nodes, operation: _graph.Affine, x: str) -> str:
    if (operation.scale != 1).any():
        x = on("Mul", x, on.number(operation.scale))
    return on("Add", x, on.number(operation.offset)) if (operation.offset != 0).any() else x


def _clip(on: _Nodes, operation: _graph.Clip, x: str) -> str:
    if (operation.low != -np.inf).any():
        x = on("Max", x, on.number(operation.low))
    return on("Min", x, on.number(operation.high)) if (operation.high != np.inf).any() else x


_FUNCTIONS = {
    "abs": "Abs", "exp": "Exp", "log": "Log", "negative": "Neg", "reciprocal": "Reciprocal", "sigmoid": "Sigmoid",
    "sign": "Sign", "sqrt": "Sqrt", "tanh": "Tanh",
}  # fmt: skip


def _function(on: _Nodes, operation: _graph.Function, x: str) -> str:
    if operation.name in _FUNCTIONS:
        return on(_FUNCTIONS[operation.name], x)
    if operation.name == "square":
        return on("Mul", x, x)
    one = on.number(1)
    is_small = on("Less", on("Abs", x), on.number(0.5))
    # Near 0 the rounding of 1 + x is divided out again (Goldberg, "What every computer scientist should know", 1991).
    if operation.name == "log1p":
        above = on("Add", x, one)
        rounded = on("Sub", above, one)
        plain = on("Log", above)
        exact = on("Mul", plain, on("Div", x, rounded))
    elif operation.name == "expm1":
        above = on("Exp", x)
        rounded = on("Sub", above, one)
        plain = rounded
        exact = on("Mul", rounded, on("Div", x, on("Log", above)))
    else:
        raise ExportError(f"An ONNX file cannot hold the function {operation.name!r}. `saved_model` can.")
    exact = on("Where", on("Equal", rounded, on.number(0)), x, exact)
    return on("Where", is_small, exact, plain)


def _add(on: _Nodes, operation: _graph.Add, *values: str) -> str:
    total = values[0]
    for value in values[1:]:
        total = on("Add", total, value)
    return total


def _multiply(on: _Nodes, operation: _graph.Multiply, x: str, y: str) -> str:
    return on("Mul", x, y)


def _matmul(on: _Nodes, operation: _graph.MatMul, x: str) -> str:
    made = on("MatMul", x, on.number(operation.matrix))
    return on("Add", made, on.number(operation.bias)) if (operation.bias != 0).any() else made


def _polynomial(on: _Nodes, operation: _graph.Polynomial, x: str) -> str:
    n_features = operation.powers.shape[1]
    factors = [np.repeat(np.arange(n_features), powers.astype(int)) for powers in operation.powers]
    degree = max(max(map(len, factors)), 1)
    places = np.full((len(factors), degree), n_features)  # where there is a 1
    for row, numbers in zip(places, factors, strict=True):
        row[: len(numbers)] = numbers
    with_one = on("Pad", x, on.whole([0, 0, 0, 1]), on.number(1))
    made = on("Gather", with_one, on.whole(places[:, 0]), axis=-1)
    for some in places.T[1:]:
        made = on("Mul", made, on("Gather", with_one, on.whole(some), axis=-1))
    return made


def _interpolate(on: _Nodes, operation: _graph.Interpolate, x: str) -> str:
    knots, values = operation.x, operation.y
    longest = max(map(len, knots))
    if longest == 1:  # constants; a gap stays a gap
        return on("Add", on("Mul", x, on.number(0)), on.number([float(y[0]) for y in values]))
    starts, levels, slopes = [], [], []
    for at, level in zip(knots, values, strict=True):
        width, height = np.diff(at.astype("float64")), np.diff(level.astype("float64"))
        starts.append(at[:-1])
        levels.append(level[:-1])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            slope = height / width
        slopes.append(np.where(np.isfinite(slope), slope, 0))  # no number lies within so small a step
    first, last = (on.number([float(at[place]) for at in knots]) for place in (0, -1))
    low, high = (on.number([float(level[place]) for level in values]) for place in (0, -1))
    passed = on("LessOrEqual", on.number(_padded(starts, np.nan)), on.behind(x))
    place = on("Sub", on.sum(on.writer.cast(passed, "int64")), on.whole(1))
    place = on("Max", place, on.whole(0))
    flat = on("Add", place, on.whole(np.arange(len(knots)) * (longest - 1)))
    begin, value, steepness = (
        on("Gather", on.number(_padded(some, 0).ravel()), flat, axis=0) for some in (starts, levels, slopes)
    )
    made = on("Add", on("Mul", on("Sub", x, begin), steepness), value)
    made = on("Where", on("Less", x, first), low, made)
    return on("Where", on("GreaterOrEqual", x, last), high, made)


def _yeo_johnson(on: _Nodes, operation: _graph.YeoJohnson, x: str) -> str:
    zero, one = on.number(0), on.number(1)
    power = np.asarray(operation.lambdas)

    def branch(part: str, exponent: NDArray[Any]) -> str:
        raised = on("Sub", on("Pow", on("Add", part, one), on.number(exponent)), one)
        divided = on("Div", raised, on.number(np.where(exponent == 0, 1, exponent)))
        if not (exponent == 0).any():
            return divided
        return on("Where", on.writer.constant(exponent == 0), on("Log", on("Add", part, one)), divided)

    above = branch(on("Max", x, zero), power)
    below = on("Neg", branch(on("Max", on("Neg", x), zero), 2 - power))
    return on("Where", on("GreaterOrEqual", x, zero), above, below)


def _normalize(on: _Nodes, operation: _graph.Normalize, x: str) -> str:
    if operation.norm == "l2":
        norm = on("Sqrt", on.sum(on("Mul", x, x), keepdims=True))
    elif operation.norm == "l1":
        norm = on.sum(on("Abs", x), keepdims=True)
    else:
        norm = on("ReduceMax", on("Abs", x), on.whole([-1]), keepdims=1)
    return on("Div", x, on("Where", on("Equal", norm, on.number(0)), on.number(1), norm))


# -- text and images ------------------------------------------------------------------------------------------------


def _words(on: _Nodes, texts: str, *, lowercase: bool) -> str:
    """The words of texts, rows by words, with empty texts behind the last one."""
    if lowercase:
        texts = on("StringNormalizer", texts, case_change_action="LOWER", is_case_sensitive=1, locale="C.UTF-8")
    return on("Tokenizer", texts, domain=_MS, mark=0, mincharnum=1, pad_value="", tokenexp=_WORD)


def _token_ids(on: _Nodes, operation: _graph.TokenIds, texts: str) -> str:
    if operation.ngram_range != (1, 1):
        raise ExportError(
            "An ONNX file cannot hold the numbers of n-grams in their order (`ngram_range` beside `embedding`). Fit "
            "with ngram_range=(1, 1), or export by `saved_model`."
        )
    length = operation.max_length
    words = _words(on, texts, lowercase=True)
    ids = on(
        "LabelEncoder", words, domain=_ML, keys_strings=["", *operation.words],
        values_int64s=[0, *range(2, 2 + len(operation.words))], default_int64=1,
    )  # fmt: skip
    ids = on("Pad", ids, on.whole([0, 0, 0, length]), on.whole(0))
    ids = on("Slice", ids, on.whole([0]), on.whole([length]), on.whole([1]))
    # a text without words gets one unknown word
    is_empty = on("Equal", on("Gather", ids, on.whole([0]), axis=1), on.whole(0))
    first = on("Mul", on.writer.cast(is_empty, "int64"), on.whole(np.eye(1, length)))
    made = on.writer.cast(on("Add", ids, first), "int32")
    on.writer.padded_at_end.add(made)
    return made


def _word_counts(on: _Nodes, operation: _graph.WordCounts, texts: str) -> str:
    words = _words(on, texts, lowercase=operation.lowercase)
    split = [word.split(" ") for word in operation.words]
    longest = max(operation.ngram_range[1], *map(len, split))
    pool: list[str] = []
    order: list[int] = []
    begins = []
    for size in range(1, longest + 1):
        begins.append(len(pool))
        places = [place for place, parts in enumerate(split) if len(parts) == size]
        order += places
        pool += [part for place in places for part in split[place]]
    return on(
        "TfIdfVectorizer", words, min_gram_length=operation.ngram_range[0], max_gram_length=operation.ngram_range[1],
        max_skip_count=0, mode="TF", ngram_counts=begins, ngram_indexes=order, pool_strings=pool,
    )  # fmt: skip


def _weights(on: _Nodes, images: str, axis: int, new: int) -> str:
    """Weights of a resize along one axis, shape `(new, old)`; see `triangle_weights`."""
    old = on.shape[axis - 1]
    if old is not None:
        return on.writer.constant(triangle_weights(old, new))

    def constant(value: Any) -> str:
        return on.writer.constant(np.asarray(value, "float32"))

    one, half = constant(1), constant(0.5)
    size = on("Squeeze", on("Shape", images, start=axis, end=axis + 1))
    factor = on("Div", one, on("Div", constant(new), on.writer.cast(size, "float32")))
    centers = on("Mul", constant(np.arange(new)[:, None] + 0.5), factor)
    pixels = on.writer.cast(on("Range", on.whole(0), size, on.whole(1)), "float32")
    distances = on("Abs", on("Sub", on("Add", pixels, half), centers))
    shares = on("Sub", one, on("Mul", distances, on("Div", one, on("Max", factor, one))))
    weights = on("Max", shares, constant(0))
    return on("Div", weights, on.sum(weights, keepdims=True))


def _resize_images(on: _Nodes, operation: _graph.ResizeImages, images: str) -> str:
    rows, columns = _weights(on, images, 1, operation.height), _weights(on, images, 2, operation.width)
    x = images if on.dtype == "float32" else on.writer.cast(images, "float32")
    x = on("Transpose", x, perm=[0, 3, 1, 2])
    x = on("MatMul", on("MatMul", rows, x), on("Transpose", columns, perm=[1, 0]))
    return on("Transpose", x, perm=[0, 2, 3, 1])


def _repeat_channels(on: _Nodes, operation: _graph.RepeatChannels, images: str) -> str:
    return on("Concat", *[images] * operation.n, axis=-1)


# -- what the output of a network means -----------------------------------------------------------------------------


def _softmax(on: _Nodes, operation: _graph.Softmax, x: str) -> str:
    return on("Softmax", x, axis=-1)


def _cumulative_min(on: _Nodes, operation: _graph.CumulativeMin, x: str) -> str:
    size = int(on.shape[-1] or 1)
    step = 1
    while step < size:  # each step doubles the numbers that are looked at
        x = on("Min", x, on("Gather", x, on.whole(np.maximum(np.arange(size) - step, 0)), axis=-1))
        step *= 2
    return x


def _above(on: _Nodes, operation: _graph.Above, x: str) -> str:
    return on.writer.cast(on("Greater", x, on.number(operation.threshold)), "int64")


def _sum(on: _Nodes, operation: _graph.Sum, x: str) -> str:
    return on.sum(x)


def _arg_max(on: _Nodes, operation: _graph.ArgMax, x: str) -> str:
    return on("ArgMax", x, axis=-1, keepdims=0)


_WRITERS: dict[type[_graph.Operation], Callable[..., str]] = {
    _graph.Above: _above,
    _graph.Add: _add,
    _graph.Affine: _affine,
    _graph.ArgMax: _arg_max,
    _graph.Bin: _bin,
    _graph.Cast: _cast,
    _graph.CategoryIndex: _category_index,
    _graph.Clip: _clip,
    _graph.Concatenate: _concatenate,
    _graph.CumulativeMin: _cumulative_min,
    _graph.FillMissing: _fill_missing,
    _graph.Function: _function,
    _graph.Interpolate: _interpolate,
    _graph.IsMissing: _is_missing,
    _graph.Lookup: _lookup,
    _graph.MatMul: _matmul,
    _graph.Multiply: _multiply,
    _graph.Normalize: _normalize,
    _graph.Polynomial: _polynomial,
    _graph.RepeatChannels: _repeat_channels,
    _graph.Reshape: _reshape,
    _graph.ResizeImages: _resize_images,
    _graph.Softmax: _softmax,
    _graph.Standardize: _standardize,
    _graph.Sum: _sum,
    _graph.Take: _take,
    _graph.TokenIds: _token_ids,
    _graph.WordCounts: _word_counts,
    _graph.YeoJohnson: _yeo_johnson,
}
