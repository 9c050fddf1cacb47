"""What a fitted estimator computes, from raw input to labels, as a graph of few and simple operations.

Every export begins with this graph and ends with a writer that says each operation in the words of its target: nodes
of ONNX, functions of TensorFlow, entries of a JSON file for JavaScript. An operation computes with NumPy itself, which
defines what it means; the graph is therefore held against the estimator before anything is written.

Values have rows as their first axis. The type and the shape of a row of each value are found by computing with no rows
at all, so that they are not stated twice. A missing number is NaN; a missing text is `""`.
"""

# mypy: disable-error-code="no-any-return"
# since NumPy has no types for what it makes of arrays of any type

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._keras import inputs_structure
from kerastoolkit.exceptions import ExportError

if TYPE_CHECKING:
    import keras

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]


class Value(NamedTuple):
    """A value in a graph.

    Attributes:
        name: Unique in its graph.
        dtype: `"float32"`, `"float64"`, `"int32"`, `"int64"`, `"uint8"`, `"bool"` or `"string"`.
        shape: Of a row; None for a size that differs between calls.
    """

    name: str
    dtype: str
    shape: Shape


class Operation(abc.ABC):
    """One step from values to a value. What it needs to know are its fields; the arrays it gets have rows first."""

    @abc.abstractmethod
    def compute(self, *arrays: Array) -> Array:
        """Computes with NumPy; text is an array of `str` objects."""


class Node(NamedTuple):
    """An operation at work: what goes in and what comes out."""

    operation: Operation
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class Graph:
    """Operations in an order in which they can be computed.

    Attributes:
        inputs: Raw inputs.
        nodes: What is computed, in order.
        outputs: Answers by name, such as `"label"` and `"probabilities"`.
    """

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.outputs: dict[str, Value] = {}
        self._n_values = 0

    def input(self, name: str, dtype: str, shape: Shape = ()) -> Value:
        """Adds a raw input.

        Raises:
            ExportError: There is one of that name.
        """
        if any(one.name == name for one in self.inputs):
            raise ExportError(f"Two inputs are called {name!r}. Rename one of the columns.")
        if any(value.name == name for node in self.nodes for value in node.outputs):
            raise ExportError(f"An input cannot be called {name!r}, as what is computed is. Rename the column.")
        value = Value(name, dtype, shape)
        self.inputs.append(value)
        return value

    def add(self, operation: Operation, *inputs: Value) -> Value:
        """Adds an operation of one output, and returns the output."""
        with np.errstate(all="ignore"):
            made = operation.compute(*(_no_rows(value) for value in inputs))
        shape = tuple(made.shape[1:])
        if isinstance(operation, SHAPE_OF_INPUT):
            shape = inputs[0].shape
        output = Value(self._new_name(), _dtype_of(made), shape)
        self.nodes.append(Node(operation, inputs, (output,)))
        return output

    def add_network(self, network: Network, *inputs: Value) -> tuple[Value, ...]:
        """Adds a network, and returns its outputs."""
        outputs = tuple(
            Value(self._new_name(), single_precision(str(one.dtype)), tuple(one.shape[1:]))
            for one in network.model.outputs
        )
        self.nodes.append(Node(network, inputs, outputs))
        return outputs

    def compute(self, arrays: Mapping[str, Array], *, noise: np.random.Generator | None = None) -> dict[str, Array]:
        """Computes the outputs with NumPy, and the networks with Keras.

        Args:
            arrays: Raw inputs by name, `n` rows each.
            noise: Changes the last digit of each weight of the networks and of each number that they take and put out,
                up or down at random, which shows how far rounding moves the outputs. Defaults to `None`: nothing.
        """
        known: dict[str, Array] = {value.name: np.asarray(arrays[value.name]) for value in self.inputs}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                given = [known[value.name] for value in node.inputs]
                if isinstance(node.operation, Network):
                    made = node.operation.compute_all(*given, noise=noise)
                    known.update({value.name: array for value, array in zip(node.outputs, made, strict=True)})
                else:
                    known[node.outputs[0].name] = node.operation.compute(*given)
        return {name: known[value.name] for name, value in self.outputs.items()}

    @property
    def networks(self) -> list[keras.Model]:
        """The networks in it, in order."""
        return [node.operation.model for node in self.nodes if isinstance(node.operation, Network)]

    def prune(self) -> None:
        """Drops operations and inputs that no output needs."""
        needed = {value.name for value in self.outputs.values()}
        kept = []
        for node in reversed(self.nodes):
            if any(value.name in needed for value in node.outputs):
                kept.append(node)
                needed.update(value.name for value in node.inputs)
        self.nodes = kept[::-1]
        self.inputs = [value for value in self.inputs if value.name in needed]

    def split(self, can: Callable[[Node], bool]) -> Parts:
        """Cuts off what a target cannot compute, at the raw inputs and at the answers.

        Args:
            can: Whether the target can compute a node.

        Returns:
            Three graphs. What cannot be computed and leads to a network comes before, with all that it needs; what
            cannot be computed and comes from a network is left behind, with all that needs it; the rest is inside.
        """
        sources = {value.name: node for node in self.nodes for value in node.outputs}
        before: set[int] = set()
        behind: set[int] = set()
        leads = {id(node) for node in self.nodes if isinstance(node.operation, Network)}
        for node in reversed(self.nodes):
            feeds = [sources[value.name] for value in node.inputs if value.name in sources]
            if id(node) in leads:
                leads.update(map(id, feeds))
                if not can(node):
                    before.add(id(node))
            if id(node) in before:
                before.update(map(id, feeds))
        for node in self.nodes:
            feeds = [sources[value.name] for value in node.inputs if value.name in sources]
            if id(node) not in before and (not can(node) or any(id(one) in behind for one in feeds)):
                behind.add(id(node))
        inside = [node for node in self.nodes if id(node) not in before | behind]
        parts = [[node for node in self.nodes if id(node) in before], inside]
        return _parts(self, [*parts, [node for node in self.nodes if id(node) in behind]])

    def _new_name(self) -> str:
        known = {one.name for one in self.inputs}
        while True:
            self._n_values += 1
            if (name := f"computed_{self._n_values}") not in known:
                return name


class Parts(NamedTuple):
    """A graph cut in three; each part is a graph of its own, whose inputs are raw inputs or outputs of those before it.

    What goes from one part to the next has the name of the raw input that it is made of, or of the answer that is made
    of it, where there is just one; `"label_index"` becomes `"label"` behind.

    Attributes:
        before: From raw inputs to what the target takes; it may be empty.
        inside: What the target computes.
        behind: From what the target answers to the answers of the whole graph; it may be empty.
    """

    before: Graph
    inside: Graph
    behind: Graph

    def compute(
        self, arrays: Mapping[str, Array], run: Callable[[dict[str, Array]], Mapping[str, Array]] | None = None
    ) -> dict[str, Array]:
        """Computes the whole, as `Graph.compute` does.

        Args:
            arrays: Raw inputs by name, `n` rows each.
            run: Computes the part inside. Defaults to `None`: NumPy and Keras do.
        """
        known = {**arrays, **self.before.compute(arrays)}
        made = (run or self.inside.compute)({value.name: known[value.name] for value in self.inside.inputs})
        known.update(made)
        return {**known, **self.behind.compute(known)}


def _parts(graph: Graph, groups: Sequence[Sequence[Node]]) -> Parts:
    """Graphs of some of the nodes each, in an order in which they can be computed."""
    home = {value.name: place for place, nodes in enumerate(groups) for node in nodes for value in node.outputs}
    raw = _raw_inputs(graph)
    used = [{value.name for node in nodes for value in node.inputs} for nodes in groups]
    answers = {value.name: name for name, value in reversed(graph.outputs.items())}
    order = [value.name for value in graph.inputs]
    values = [value for node in graph.nodes for value in node.outputs]
    crossing = [
        value for value in values if any(value.name in names for names in used[home[value.name] + 1 :])
    ]  # computed in one part and used in a later one
    taken = {*graph.outputs, *(name for names in used[1:] for name in names if name in order)}
    names: dict[str, str] = {}
    for value in crossing:
        names[value.name] = answers.get(value.name) or _free(_name_of(value, graph, raw, home[value.name]), taken)
        taken.add(names[value.name])
    made = []
    for place, nodes in enumerate(groups):
        part = Graph()
        given = [value for value in graph.inputs if value.name in used[place]]
        given += [value for value in crossing if value.name in used[place] and home[value.name] < place]
        given.sort(key=lambda value: min((order.index(name) for name in raw[value.name]), default=0))
        renamed = {value.name: value._replace(name=names.get(value.name, value.name)) for value in given}
        part.inputs = list(renamed.values())
        part.nodes = [
            Node(one.operation, tuple(renamed.get(value.name, value) for value in one.inputs), one.outputs)
            for one in nodes
        ]
        part.outputs = {names[value.name]: value for value in crossing if home[value.name] == place}
        part.outputs.update({name: value for name, value in graph.outputs.items() if home.get(value.name, 1) == place})
        made.append(part)
    return Parts(*made)


def _raw_inputs(graph: Graph) -> dict[str, set[str]]:
    """For each value, the raw inputs that it is made of."""
    found = {value.name: {value.name} for value in graph.inputs}
    for node in graph.nodes:
        together = set().union(*(found[value.name] for value in node.inputs))
        found.update({value.name: together for value in node.outputs})
    return found


def _name_of(value: Value, graph: Graph, raw: Mapping[str, set[str]], place: int) -> str:
    if place == 0:
        return next(iter(raw[value.name])) if len(raw[value.name]) == 1 else "features"
    needed = {value.name}
    for node in graph.nodes:
        if any(one.name in needed for one in node.inputs):
            needed.update(one.name for one in node.outputs)
    led_to = [name for name, answer in graph.outputs.items() if answer.name in needed]
    return f"{led_to[0]}_index" if len(led_to) == 1 and value.dtype == "int64" else "raw"


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)


def _no_rows(value: Value) -> Array:
    return np.empty((0, *(1 if size is None else size for size in value.shape)), as_numpy(value.dtype))


def single_precision(dtype: str) -> str:
    """The type of what a network takes or puts out: numbers of half precision come and go as float32."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def as_numpy(dtype: str) -> np.dtype[Any]:
    """NumPy's type for the type of a value: that of objects for text."""
    return np.dtype(object if dtype == "string" else dtype)


def _dtype_of(array: Array) -> str:
    return "string" if array.dtype.kind in "OU" else array.dtype.name


# -- shapes and types -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Cast(Operation):
    """Numbers in another type. A float becomes an integer by truncation."""

    dtype: str

    def compute(self, *arrays: Array) -> Array:
        return arrays[0].astype(self.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Operation):
    """Rows in another shape, which is that of a row and has no unknown size."""

    shape: tuple[int, ...]

    def compute(self, *arrays: Array) -> Array:
        return arrays[0].reshape(len(arrays[0]), *self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenate(Operation):
    """Values of one type side by side, along the last axis."""

    def compute(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Take(Operation):
    """Some places of the last axis, in the order given."""

    places: tuple[int, ...]

    def compute(self, *arrays: Array) -> Array:
        return arrays[0][..., list(self.places)]


# -- missing values and categories ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class IsMissing(Operation):
    """1.0 (float32) where a number is NaN, or a text is `""`, and 0.0 elsewhere."""

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return (x == "" if x.dtype.kind == "O" else np.isnan(x)).astype("float32")


@dataclasses.dataclass(frozen=True, eq=False)
class FillMissing(Operation):
    """Puts a value where a number is NaN or a text is `""`.

    Args:
        values: One value for each place of the last axis, or a single one for all, of shape `()`.
    """

    values: Array

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return np.where(x == "" if x.dtype.kind == "O" else np.isnan(x), self.values.astype(x.dtype), x)


@dataclasses.dataclass(frozen=True, eq=False)
class CategoryIndex(Operation):
    """The number of a category, int64: `first` for the first one, and so on.

    Args:
        categories: Texts, or numbers (float64), each of them once; none is missing.
        first: Number of the first category. Defaults to `0`.
        unseen: Number of a value that is none of the categories. Defaults to `-1`.
        missing: Number of NaN, or of `""`. Defaults to `-1`.
    """

    categories: tuple[str, ...] | tuple[float, ...]
    first: int = 0
    unseen: int = -1
    missing: int = -1

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        index: dict[Any, int] = {value: place for place, value in enumerate(self.categories, self.first)}
        found = [
            self.missing if (value == "" or value != value) else index.get(value, self.unseen) for value in x.ravel()
        ]
        return np.array(found, "int64").reshape(x.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """Replaces an index, 0 or more, by a row of a table: numbers of a category, a vector, or a label.

    Args:
        table: Shape `(n, ...)`, numbers or texts. The output has the axes of the input, and those of a row behind.
    """

    table: Array

    def compute(self, *arrays: Array) -> Array:
        return self.table[arrays[0]]


@dataclasses.dataclass(frozen=True, eq=False)
class Bin(Operation):
    """The number of the interval that a number falls into, int64: how many edges are not above it.

    Args:
        edges: For each place of the last axis, the edges in ascending order.
        right: Whether a number on an edge counts to the interval below it. Defaults to `False`.
    """

    edges: tuple[Array, ...]
    right: bool = False

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        side: Literal["left", "right"] = "left" if self.right else "right"
        columns = [np.searchsorted(edges, x[..., place], side) for place, edges in enumerate(self.edges)]
        return np.stack(columns, axis=-1).astype("int64")


# -- arithmetic -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Standardize(Operation):
    """`(x - mean) / scale`, in the type of x.

    Args:
        mean: One number for each place of the last axis.
        scale: One number for each place of the last axis.
    """

    mean: Array
    scale: Array

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return (x - self.mean.astype(x.dtype)) / self.scale.astype(x.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Operation):
    """`x * scale + offset`, in the type of x.

    Args:
        scale: One number for each place of the last axis, or one for all, of shape `()`.
        offset: One number for each place of the last axis, or one for all, of shape `()`.
    """

    scale: Array
    offset: Array

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return x * self.scale.astype(x.dtype) + self.offset.astype(x.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip(Operation):
    """No number below `low` or above `high`; arrays of one number for each place of the last axis, or of shape `()`."""

    low: Array
    high: Array

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return np.minimum(np.maximum(x, self.low.astype(x.dtype)), self.high.astype(x.dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class Function(Operation):
    """A function of each number.

    Args:
        name: `"abs"`, `"exp"`, `"expm1"`, `"log"`, `"log1p"`, `"negative"`, `"reciprocal"`, `"sigmoid"`, `"sign"`,
            `"sqrt"`, `"square"`, `"tanh"`.
    """

    name: str

    def compute(self, *arrays: Array) -> Array:
        return FUNCTIONS[self.name](arrays[0])


def _sigmoid(x: Array) -> Array:
    made: Array = 1 / (1 + np.exp(-x))
    return made


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    **{
        name: getattr(np, name)
        for name in (
            "abs", "exp", "expm1", "log", "log1p", "negative", "reciprocal", "sign", "sqrt", "square", "tanh"
        )
    },
    "sigmoid": _sigmoid,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of values of one shape."""

    def compute(self, *arrays: Array) -> Array:
        return sum(arrays[1:], arrays[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The product of two values: of one shape, or the second with a last axis of 1."""

    def compute(self, *arrays: Array) -> Array:
        return arrays[0] * arrays[1]


@dataclasses.dataclass(frozen=True, eq=False)
class MatMul(Operation):
    """`x @ matrix + bias`, in the type of x.

    Args:
        matrix: Shape `(features, outputs)`.
        bias: Shape `(outputs,)`.
    """

    matrix: Array
    bias: Array

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        return x @ self.matrix.astype(x.dtype) + self.bias.astype(x.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Polynomial(Operation):
    """Products of powers: output `j` is the product over `i` of `x[i] ** powers[j, i]`.

    Args:
        powers: Whole numbers of 0 or more, shape `(outputs, features)`.
    """

    powers: Array

    def compute(self, *arrays: Array) -> Array:
        return np.prod(arrays[0][..., None, :] ** self.powers.astype(arrays[0].dtype), axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Interpolate(Operation):
    """Piecewise linear between knots, and constant outside of them; for each place of the last axis its own.

    Args:
        x: Knots in ascending order, one array for each place.
        y: Values at the knots.
    """

    x: tuple[Array, ...]
    y: tuple[Array, ...]

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        columns = [np.interp(x[..., place], *knots) for place, knots in enumerate(zip(self.x, self.y, strict=True))]
        return np.stack(columns, axis=-1).astype(x.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class YeoJohnson(Operation):
    """Yeo and Johnson's power transform, as scikit-learn's `PowerTransformer` computes it before it scales.

    Args:
        lambdas: One number for each place of the last axis.
    """

    lambdas: Array

    def compute(self, *arrays: Array) -> Array:
        x, power = arrays[0], self.lambdas.astype(arrays[0].dtype)
        up, down = np.maximum(x, 0), np.maximum(-x, 0)
        above = np.where(power == 0, np.log1p(up), ((up + 1) ** power - 1) / np.where(power == 0, 1, power))
        two = 2 - power
        below = np.where(two == 0, -np.log1p(down), -((down + 1) ** two - 1) / np.where(two == 0, 1, two))
        return np.where(x >= 0, above, below).astype(x.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """Rows divided by their norm, along the last axis; a row of norm 0 stays as it is.

    Args:
        norm: `"l1"`, `"l2"` or `"max"` (of absolute values).
    """

    norm: str

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        if not x.size:
            return x
        of = {"l1": lambda v: v.sum(-1, keepdims=True), "max": lambda v: v.max(-1, keepdims=True)}
        norm = np.sqrt(np.square(x).sum(-1, keepdims=True)) if self.norm == "l2" else of[self.norm](np.abs(x))
        return x / np.where(norm == 0, np.ones_like(norm), norm)


# -- text and images ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class TokenIds(Operation):
    """Token ids of texts, int32, shape `(n, max_length)`: 0 is padding, 1 an unknown word, words begin at 2.

    Words are found as scikit-learn's `CountVectorizer` finds them: two or more letters or digits, in lower case. A text
    without words gets one unknown word.

    Args:
        words: The words.
        max_length: Words of a text that are read.
        ngram_range: The smallest and the largest number of adjacent words that count as one. Defaults to `(1, 1)`.
    """

    words: tuple[str, ...]
    max_length: int
    ngram_range: tuple[int, int] = (1, 1)

    def compute(self, *arrays: Array) -> Array:
        from kerastoolkit.data.text import Vocabulary

        words = Vocabulary(self.words, max_length=self.max_length, ngram_range=self.ngram_range)
        return np.asarray(words.encode(arrays[0].tolist()))


@dataclasses.dataclass(frozen=True, eq=False)
class WordCounts(Operation):
    """How often each word or n-gram occurs in a text, float32, shape `(n, n_words)`.

    Words are found as scikit-learn's `CountVectorizer` finds them with its default `token_pattern`.

    Args:
        words: Words, and n-grams with a blank between their words.
        ngram_range: The smallest and the largest number of adjacent words that count as one.
        lowercase: Whether texts are turned to lower case first. Defaults to `True`.
    """

    words: tuple[str, ...]
    ngram_range: tuple[int, int]
    lowercase: bool = True

    def compute(self, *arrays: Array) -> Array:
        from sklearn.feature_extraction.text import CountVectorizer

        counter = CountVectorizer(ngram_range=self.ngram_range, lowercase=self.lowercase, vocabulary=self.words)
        if not len(arrays[0]):
            return np.empty((0, len(self.words)), "float32")
        made: Array = counter.transform(arrays[0].tolist()).toarray().astype("float32")
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class ResizeImages(Operation):
    """Images of any size, uint8 or float32 of shape `(n, height, width, channels)`, resized to one: float32.

    Bilinear with a triangle that grows with the factor by which an image shrinks, as Pillow's `BILINEAR` and
    `keras.ops.image.resize(antialias=True)` compute it: a product with a matrix of weights on each side.

    Args:
        height: In pixels.
        width: In pixels.
    """

    height: int
    width: int

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0].astype("float32")
        rows, columns = triangle_weights(x.shape[1], self.height), triangle_weights(x.shape[2], self.width)
        return np.einsum("hy,nyxc,wx->nhwc", rows, x, columns, optimize=True).astype("float32")


def triangle_weights(old: int, new: int) -> Array:
    """Weights of a bilinear resize with antialias along one axis, float32, shape `(new, old)`; rows add up to 1.

    Each step is rounded to float32, as TensorFlow does it: the centers of pixels of large images depend on that.
    """
    one, half = np.float32(1), np.float32(0.5)
    factor = one / (np.float32(new) / np.float32(old))
    centers = (np.arange(new, dtype="float32") + half) * factor
    distances = (np.arange(old, dtype="float32") + half)[None] - centers[:, None]
    weights = np.maximum(np.float32(0), one - np.abs(distances * (one / np.maximum(factor, one))))
    made: Array = weights / weights.sum(axis=1, keepdims=True)
    return made


@dataclasses.dataclass(frozen=True, eq=False)
class RepeatChannels(Operation):
    """Grey images, whose last axis is 1, with that channel `n` times."""

    n: int

    def compute(self, *arrays: Array) -> Array:
        return np.repeat(arrays[0], self.n, axis=-1)


# -- networks and what their output means ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Network(Operation):
    """A network, which may have several outputs; inputs come in the order of `model.inputs`.

    Outputs of half precision are turned into float32.
    """

    model: keras.Model

    def compute(self, *arrays: Array) -> Array:
        return self.compute_all(*arrays)[0]

    def compute_all(self, *arrays: Array, noise: np.random.Generator | None = None) -> list[Array]:
        """All outputs, in the order of `model.outputs`, of one batch, as when predicting; `noise` as in a graph."""
        import keras

        made = self.call(arrays) if noise is None else self._call_with_noise(arrays, noise)
        outputs = [
            np.asarray(keras.ops.convert_to_numpy(one)).astype(single_precision(str(two.dtype)))
            for one, two in zip(made, self.model.outputs, strict=True)
        ]
        return outputs if noise is None else [last_digit_changed(one, noise) for one in outputs]

    def call(self, tensors: Sequence[Any]) -> list[Any]:
        """All outputs as tensors of the backend, in the order of `model.outputs`, as when predicting."""
        import keras

        return list(keras.tree.flatten(self.model(self._packed(tensors), training=False)))

    def _packed(self, tensors: Sequence[Any]) -> Any:
        import keras

        return keras.tree.pack_sequence_as(inputs_structure(functional_of(self.model)), list(tensors))

    def _call_with_noise(self, arrays: Sequence[Array], noise: np.random.Generator) -> list[Any]:
        import keras

        weights = [
            [
                keras.ops.cast(last_digit_changed(keras.ops.convert_to_numpy(one.value), noise), one.dtype)
                for one in variables
            ]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        ]
        packed = self._packed([last_digit_changed(array, noise) for array in arrays])
        made, _ = self.model.stateless_call(*weights, packed, training=False)
        return list(keras.tree.flatten(made))


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Operation):
    """Softmax along the last axis."""

    def compute(self, *arrays: Array) -> Array:
        x = arrays[0]
        if not x.size:
            return x
        powers = np.exp(x - x.max(-1, keepdims=True))
        made: Array = powers / powers.sum(-1, keepdims=True)
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class CumulativeMin(Operation):
    """The smallest number so far, along the last axis."""

    def compute(self, *arrays: Array) -> Array:
        return np.minimum.accumulate(arrays[0], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Above(Operation):
    """1 where a number is larger than the threshold, else 0; int64."""

    threshold: float

    def compute(self, *arrays: Array) -> Array:
        return (arrays[0] > self.threshold).astype("int64")


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Operation):
    """The sum along the last axis, which goes away."""

    def compute(self, *arrays: Array) -> Array:
        made: Array = arrays[0].sum(axis=-1)
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class ArgMax(Operation):
    """The place of the largest number along the last axis, which goes away; the first of equals; int64."""

    def compute(self, *arrays: Array) -> Array:
        return arrays[0].argmax(axis=-1).astype("int64")


def last_digit_changed(array: Array, noise: np.random.Generator) -> Array:
    """Numbers whose last digit went up or down at random; whole numbers stay."""
    if array.dtype.kind != "f":
        return array
    signs = noise.choice((-1.0, 1.0), array.shape)
    return (array * (1 + signs * np.finfo(array.dtype).eps)).astype(array.dtype)


# Layers of Keras that do nothing when predicting.
ONLY_TRAIN = (
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "GaussianDropout", "GaussianNoise",
    "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
    "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
    "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation",
    "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
)  # fmt: skip

# What leaves the shape of a row as it is, sizes that are not known included.
SHAPE_OF_INPUT = (Cast, IsMissing, FillMissing, CategoryIndex, Affine, Clip, Function, Above)


def size_of(shape: Sequence[int | None]) -> int:
    """Numbers in a row of a known shape."""
    return math.prod(1 if size is None else size for size in shape)


def functional_of(model: keras.Model) -> keras.Model:
    """The functional model inside of a sequential one; any other model as it is."""
    return getattr(model, "_functional", None) or model
