"""A graph as one function of TensorFlow, and that function in TensorFlow's own format.

LiteRT and OpenVINO read that format, so that they begin here, too. They have neither tables of numbers nor float64:
`single=True` computes in float32, and with operations that both of them have.
"""

# mypy: disable-error-code="no-any-return"
# since TensorFlow has no types

from __future__ import annotations

import contextlib
import keyword
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kerastoolkit._keras import inputs_structure, layers_of, nodes_in_order
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph as g
from kerastoolkit.export._converting import NETWORK

if TYPE_CHECKING:
    import keras

Tensor: TypeAlias = Any
SIGNATURE = "serving_default"

_MAX_COMPARED = 256  # categories that are compared one by one; more numbers are found by bisection


def check_backend(what: str) -> None:
    """Refuses to write what only TensorFlow writes.

    Raises:
        ExportError: Keras runs on another backend.
    """
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow":
        raise ExportError(
            f"{what} is written by TensorFlow, and Keras runs on {backend} here. Save the estimator (`save`), load it "
            "(`kerastoolkit.load`) in a process with the environment variable KERAS_BACKEND=tensorflow, and export it "
            "there; `kerastoolkit.export.onnx` needs no other backend."
        )


class Function:
    """A graph as a function of TensorFlow.

    Args:
        graph: What it computes.
        single: Whether float64 becomes float32. Defaults to `False`.
        unroll: Whether recurrent layers become one operation after another instead of a loop. Defaults to `False`.
        apart: Whether what scales columns is kept apart from the layers behind it, into whose weights a converter
            would multiply it; in few bits, such weights of very different sizes are lost. Defaults to `False`.

    Raises:
        ExportError: There is an operation in the graph that is not known here.
    """

    def __init__(self, graph: g.Graph, *, single: bool = False, unroll: bool = False, apart: bool = False) -> None:
        import tensorflow as tf

        unknown = [type(node.operation).__name__ for node in graph.nodes if _writer(node.operation) is None]
        if unknown:
            raise ExportError(f"{unknown[0]} cannot be written with TensorFlow.")
        self.graph, self.single, self.unroll, self.apart = graph, single, unroll, apart
        with tf.init_scope():
            self.tables = {
                number: table
                for number, node in enumerate(graph.nodes)
                if (table := _table_of(node.operation)) is not None
            }

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Answers by name, for raw inputs in the order of the graph."""
        import tensorflow as tf

        known = {value.name: tensor for value, tensor in zip(self.graph.inputs, inputs, strict=True)}
        for number, node in enumerate(self.graph.nodes):
            given = [known[value.name] for value in node.inputs]
            if isinstance(node.operation, g.Network):
                made = self._network(node, given)
                known.update({value.name: tensor for value, tensor in zip(node.outputs, made, strict=True)})
                continue
            with tf.name_scope(f"{type(node.operation).__name__}_{number}"):
                operation = self._in_precision(node.operation)
                write, table = _writer(operation), self.tables.get(number)
                arguments = (operation, *given) if table is None else (operation, *given, table)
                known[node.outputs[0].name] = write(*arguments)  # type: ignore[misc]
            if self.single and known[node.outputs[0].name].dtype == tf.float64:
                known[node.outputs[0].name] = tf.cast(known[node.outputs[0].name], tf.float32)
        return {name: tf.identity(known[value.name]) for name, value in self.graph.outputs.items()}

    def _in_precision(self, operation: g.Operation) -> g.Operation:
        if self.single and isinstance(operation, g.Lookup) and operation.table.dtype == np.float64:
            return g.Lookup(operation.table.astype("float32"))
        if self.single and isinstance(operation, g.Cast):
            return g.Cast(self.dtype(operation.dtype))
        return operation

    def _network(self, node: g.Node, given: list[Tensor]) -> list[Tensor]:
        import keras
        import tensorflow as tf

        model = node.operation.model  # type: ignore[attr-defined]
        cast = [tf.cast(one, self.input_dtype(two)) for one, two in zip(given, model.inputs, strict=True)]
        if self.apart:
            raw = {value.name for value in self.graph.inputs}
            cast = [one if value.name in raw else _apart(one) for one, value in zip(cast, node.inputs, strict=True)]
        packed = keras.tree.pack_sequence_as(inputs_structure(g.functional_of(model)), cast)
        with contextlib.ExitStack() as stack:
            stack.enter_context(tf.name_scope(NETWORK))
            if self.single:
                stack.enter_context(_in_float32(model))
            if self.unroll:
                stack.enter_context(_unrolled(model))
            if self.apart:
                stack.enter_context(_scaling_apart(model))
            made = keras.tree.flatten(model(packed, training=False))
        return [tf.cast(one, self.dtype(value.dtype)) for one, value in zip(made, node.outputs, strict=True)]

    def input_dtype(self, tensor: keras.KerasTensor) -> str:
        """TensorFlow's type for an input of a network."""
        return g.single_precision(str(tensor.dtype)) if self.single else str(tensor.dtype)

    def dtype(self, name: str) -> str:
        """TensorFlow's type for the type of a value."""
        return "float32" if self.single and name == "float64" else name


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """A block in which TensorFlow says neither where it wrote nor that the name of an input is none of Python's."""

    def is_other(record: logging.LogRecord) -> bool:
        chatter = "is not a valid tf.function parameter name", "Assets written to"
        return not any(words in record.getMessage() for words in chatter)

    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_other)


def write_saved_model(function: Function, folder: Path, rows: int | None = None) -> None:
    """Writes a function in TensorFlow's format; inputs and answers have their own names, whatever is in them.

    Args:
        function: The function.
        folder: A folder that is empty or not there.
        rows: Rows that it always gets. Defaults to `None`: any number.
    """
    import tensorflow as tf

    graph = function.graph
    names = {_plain(place, value.name): value.name for place, value in enumerate(graph.inputs)}
    signature = {
        name: tf.TensorSpec((rows, *value.shape), function.dtype(value.dtype), name=name)
        for name, value in zip(names, graph.inputs, strict=True)
    }

    def serve(**inputs: Tensor) -> dict[str, Tensor]:
        return function([inputs[name] for name in names])

    # What is traced is ours, and the layers of the user convert themselves.
    traced = tf.function(serve, autograph=False).get_concrete_function(**signature)
    module = tf.Module()
    # Variables that belong to nobody would be lost, and be NaN or noise when the file is read.
    module.held = [list(traced.graph.variables), list(function.tables.values())]
    with without_chatter():
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: traced})
    renamed = {plain: name for plain, name in names.items() if plain != name}
    if renamed:
        _rename(folder, renamed)


def _plain(place: int, name: str) -> str:
    """A name that TensorFlow takes for an argument."""
    allowed = name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    return name if allowed and name not in ("self", "cls") else f"input_{place}_of_kerastoolkit"


def _rename(folder: Path, names: dict[str, str]) -> None:
    """Gives inputs their names, which need not be names of arguments in Python."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    for meta in model.meta_graphs:
        ends = meta.signature_def[SIGNATURE]
        for plain, name in names.items():
            ends.inputs[name].CopyFrom(ends.inputs[plain])
            del ends.inputs[plain]
        for node in meta.object_graph_def.nodes:
            if node.WhichOneof("kind") == "bare_concrete_function":
                keywords = node.bare_concrete_function.argument_keywords
                keywords[:] = [names.get(one, one) for one in keywords]
    path.write_bytes(model.SerializeToString())
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # it was taken of the file with the other names


# -- recurrent layers -----------------------------------------------------------------------------------------------


def _each_layer(model: keras.Model) -> Iterator[Any]:
    """All layers of a model, with those inside of other layers."""
    seen: set[int] = set()
    for layer in layers_of(model, itself=False):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def recurrent_layers(model: keras.Model) -> list[Any]:
    """Its recurrent layers: `LSTM`, `GRU`, `SimpleRNN`, `RNN`, those inside of `Bidirectional` included."""
    import keras

    return [layer for layer in _each_layer(model) if isinstance(layer, keras.layers.RNN)]


@contextlib.contextmanager
def _in_float32(model: keras.Model) -> Iterator[None]:
    """A block in which layers of mixed precision compute in float32, as which their weights are kept anyway."""
    layers = [layer for layer in _each_layer(model) if layer.compute_dtype in ("float16", "bfloat16")]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


@contextlib.contextmanager
def _unrolled(model: keras.Model) -> Iterator[None]:
    """A block in which recurrent layers do without a loop."""
    layers = recurrent_layers(model)
    before = [layer.unroll for layer in layers]
    try:
        for layer in layers:
            layer.unroll = True
        yield
    finally:
        for layer, unroll in zip(layers, before, strict=True):
            layer.unroll = unroll


# -- what scales columns ---------------------------------------------------------------------------------------------


def _apart(x: Tensor) -> Tensor:
    """The same numbers, behind an operation that no converter looks through."""
    import tensorflow as tf

    return tf.maximum(tf.constant(x.dtype.min, x.dtype), x) if x.dtype.is_floating else x


@contextlib.contextmanager
def _scaling_apart(model: keras.Model) -> Iterator[None]:
    """A block in which what scales raw columns inside of a network is kept apart from the layers behind it."""
    layers = _scaling_layers(model)
    try:
        for layer in layers:
            layer.__dict__["call"] = _and_apart(layer.call)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


def _and_apart(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments, **options: _apart(call(*arguments, **options))


def _scaling_layers(model: keras.Model) -> list[Any]:
    """Normalizations with no layer of weights before them."""
    import keras

    scaling = (keras.layers.BatchNormalization, keras.layers.Normalization)
    functional = g.functional_of(model)
    behind: set[int] = set()  # tensors behind a layer with weights
    found = []
    for node in nodes_in_order(functional):
        layer = node.operation
        is_behind = any(id(one) in behind for one in node.input_tensors)
        if isinstance(layer, scaling) and not is_behind:
            found.append(layer)
        elif is_behind or (getattr(layer, "weights", None) and not isinstance(layer, keras.layers.Embedding)):
            behind.update(map(id, node.outputs))
    return found


# -- operations -----------------------------------------------------------------------------------------------------


def _writer(operation: g.Operation) -> Callable[..., Tensor] | None:
    return _WRITERS.get(type(operation))


def _table_of(operation: g.Operation) -> Any:
    """A table of texts, which has to be made outside of the function."""
    import tensorflow as tf

    if isinstance(operation, g.CategoryIndex) and _is_text(operation):
        keys = ["", *operation.categories]
        values = [operation.missing, *range(operation.first, operation.first + len(operation.categories))]
        default = operation.unseen
    elif isinstance(operation, (g.TokenIds, g.WordCounts)):
        first, default = (2, 1) if isinstance(operation, g.TokenIds) else (0, -1)
        # The blank, which is no word: a table may not be empty.
        keys, values = [" ", *operation.words], [default, *range(first, first + len(operation.words))]
    else:
        return None
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys, tf.string), tf.constant(values, tf.int64))
    return tf.lookup.StaticHashTable(initializer, default)


def _is_text(operation: g.CategoryIndex) -> bool:
    return all(isinstance(one, str) for one in operation.categories)


def _constant(values: Any, like: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.constant(np.asarray(values).astype(like.dtype.as_numpy_dtype), like.dtype)


def _is_nan(x: Tensor) -> Tensor:
    import tensorflow as tf

    # LiteRT has no operation of that name, but numbers that differ from themselves.
    return tf.math.not_equal(x, x) if x.dtype.is_floating else tf.zeros_like(x, tf.bool)


def _cast(operation: g.Cast, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.cast(x, operation.dtype)


def _reshape(operation: g.Reshape, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.reshape(x, [-1, *operation.shape])


def _concatenate(operation: g.Concatenate, *tensors: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.concat(tensors, axis=-1)


def _take(operation: g.Take, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.gather(x, tf.constant(operation.places, tf.int32), axis=-1)


def _is_missing(operation: g.IsMissing, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.cast(tf.equal(x, "") if x.dtype == tf.string else _is_nan(x), tf.float32)


def _fill_missing(operation: g.FillMissing, x: Tensor) -> Tensor:
    import tensorflow as tf

    if x.dtype == tf.string:
        return tf.where(tf.equal(x, ""), tf.constant(operation.values.tolist(), tf.string), x)
    return tf.where(_is_nan(x), _constant(operation.values, x), x)


def _category_index(operation: g.CategoryIndex, x: Tensor, table: Any = None) -> Tensor:
    import tensorflow as tf

    if table is not None:
        return table.lookup(x)
    if x.dtype == tf.bool:
        x = tf.cast(x, tf.float32)
    categories = np.asarray(operation.categories).astype(x.dtype.as_numpy_dtype)
    if len(np.unique(categories)) < len(categories):
        raise ExportError("Two categories are one number in float32. Give them as texts, or export to ONNX.")
    order = np.argsort(categories)
    ordered, places = tf.constant(categories[order]), tf.constant(order + operation.first, tf.int64)
    if len(categories) <= _MAX_COMPARED:
        equal = tf.equal(x[..., None], ordered)
        found, place = tf.reduce_any(equal, axis=-1), tf.argmax(tf.cast(equal, tf.int32), axis=-1)
    else:
        place = _bisect(ordered, x)
        found = tf.equal(tf.gather(ordered, place), x)
    index = tf.where(found, tf.gather(places, place), tf.constant(operation.unseen, tf.int64))
    return tf.where(_is_nan(x), tf.constant(operation.missing, tf.int64), index)


def _bisect(ordered: Tensor, x: Tensor) -> Tensor:
    """The last place whose number is not above x, or 0; by halving, since LiteRT has no search of its own."""
    import tensorflow as tf

    n_ordered = int(ordered.shape[0])
    place = tf.zeros_like(x, tf.int32)
    step = 1 << (n_ordered - 1).bit_length()
    while step := step // 2:
        further = tf.minimum(place + step, n_ordered - 1)
        place = tf.where(tf.gather(ordered, further) <= x, further, place)
    return place


def _lookup(operation: g.Lookup, x: Tensor) -> Tensor:
    import tensorflow as tf

    table = operation.table
    texts = table.dtype.kind in "OU"
    return tf.gather(tf.constant(table.tolist(), tf.string) if texts else tf.constant(table), tf.cast(x, tf.int32))


def _bin(operation: g.Bin, x: Tensor) -> Tensor:
    import tensorflow as tf

    columns = []
    for place, edges in enumerate(operation.edges):
        column, constant = x[..., place, None], _constant(edges, x)
        passed = tf.greater(column, constant) if operation.right else tf.greater_equal(column, constant)
        # NaN is above every edge, as in NumPy. TensorFlow would turn "not below" into "at or above".
        count = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        columns.append(tf.where(_is_nan(x[..., place]), len(edges), count))
    return tf.cast(tf.stack(columns, axis=-1), tf.int64)


def _standardize(operation: g.Standardize, x: Tensor) -> Tensor:
    return (x - _constant(operation.mean, x)) / _constant(operation.scale, x)


def _affine(operation: g.Affine, x: Tensor) -> Tensor:
    return x * _constant(operation.scale, x) + _constant(operation.offset, x)


def _clip(operation: g.Clip, x: Tensor) -> Tensor:
    import tensorflow as tf

    clipped = tf.minimum(tf.maximum(x, _constant(operation.low, x)), _constant(operation.high, x))
    return tf.where(_is_nan(x), x, clipped)  # LiteRT takes the number where one of two is NaN


def _function(operation: g.Function, x: Tensor) -> Tensor:
    import tensorflow as tf

    return getattr(tf.math, operation.name)(x)


def _add(operation: g.Add, *tensors: Tensor) -> Tensor:
    return sum(tensors[1:], tensors[0])


def _multiply(operation: g.Multiply, one: Tensor, other: Tensor) -> Tensor:
    return one * other


def _matmul(operation: g.MatMul, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.matmul(x, _constant(operation.matrix, x)) + _constant(operation.bias, x)


def _polynomial(operation: g.Polynomial, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.reduce_prod(tf.pow(x[..., None, :], _constant(operation.powers, x)), axis=-1)


def _interpolate(operation: g.Interpolate, x: Tensor) -> Tensor:
    import tensorflow as tf

    columns = []
    for place, (knots, values) in enumerate(zip(operation.x, operation.y, strict=True)):
        column, at, value = x[..., place], _constant(knots, x), _constant(values, x)
        reached = tf.cast(column[..., None] >= at, tf.int32)
        left = tf.clip_by_value(tf.reduce_sum(reached, axis=-1) - 1, 0, len(knots) - 1)
        right = tf.minimum(left + 1, len(knots) - 1)
        width, rise = tf.gather(at, right) - tf.gather(at, left), tf.gather(value, right) - tf.gather(value, left)
        inside = tf.clip_by_value(column, at[0], at[-1]) - tf.gather(at, left)
        share = inside / tf.where(width > 0, width, tf.ones_like(width))
        columns.append(tf.gather(value, left) + share * rise)
    return tf.stack(columns, axis=-1)


def _yeo_johnson(operation: g.YeoJohnson, x: Tensor) -> Tensor:
    import tensorflow as tf

    power = operation.lambdas.astype(x.dtype.as_numpy_dtype)
    two = 2 - power
    # Both sides are computed for all numbers, and one of them is taken: the other must not overflow.
    up, down = tf.maximum(x, 0), tf.maximum(-x, 0)
    above = (tf.pow(up + 1, power) - 1) / np.where(power == 0, 1, power).astype(power.dtype)
    above = tf.where(tf.constant(power == 0), tf.math.log1p(up), above)
    below = -(tf.pow(down + 1, two) - 1) / np.where(two == 0, 1, two).astype(power.dtype)
    below = tf.where(tf.constant(two == 0), -tf.math.log1p(down), below)
    return tf.where(_is_nan(x), x, tf.where(x >= 0, above, below))


def _normalize(operation: g.Normalize, x: Tensor) -> Tensor:
    import tensorflow as tf

    if operation.norm == "l2":
        norm = tf.sqrt(tf.reduce_sum(tf.square(x), axis=-1, keepdims=True))
    else:
        reduce = tf.reduce_sum if operation.norm == "l1" else tf.reduce_max
        norm = reduce(tf.abs(x), axis=-1, keepdims=True)
    return x / tf.where(tf.equal(norm, 0), tf.ones_like(norm), norm)


def _words(texts: Tensor, ngram_range: tuple[int, int], lowercase: bool) -> Tensor:
    """Words and n-grams of texts as a ragged tensor, as scikit-learn's analyzer finds them."""
    import tensorflow as tf

    if lowercase:
        texts = tf.strings.lower(texts, encoding="utf-8")
    words = tf.strings.split(tf.strings.regex_replace(texts, r"[^\pL\pN_]+", " "))
    words = tf.ragged.boolean_mask(words, tf.strings.length(words, unit="UTF8_CHAR") >= 2)
    sizes = range(ngram_range[0], ngram_range[1] + 1)
    grams = [words if size == 1 else tf.strings.ngrams(words, size, separator=" ") for size in sizes]
    return tf.concat(grams, axis=1)


def _token_ids(operation: g.TokenIds, texts: Tensor, table: Any) -> Tensor:
    import tensorflow as tf

    words = _words(texts, getattr(operation, "ngram_range", (1, 1)), lowercase=True)
    ids = tf.ragged.map_flat_values(table.lookup, words).to_tensor(0, shape=(None, operation.max_length))
    unknown = tf.one_hot(0, operation.max_length, dtype=tf.int64)  # a text without words has one unknown word
    return tf.cast(tf.where(words.row_lengths()[:, None] == 0, unknown, ids), tf.int32)


def _word_counts(operation: g.WordCounts, texts: Tensor, table: Any) -> Tensor:
    import tensorflow as tf

    words = _words(texts, operation.ngram_range, operation.lowercase)
    n_words, n_rows = len(operation.words), tf.shape(texts, tf.int64)[0]
    ids, rows = table.lookup(words.flat_values), words.value_rowids()
    places = tf.boolean_mask(rows * n_words + ids, ids >= 0)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(places, tf.float32), places, n_rows * n_words)
    return tf.reshape(counts, [-1, n_words])


def _resize_images(operation: g.ResizeImages, x: Tensor) -> Tensor:
    import tensorflow as tf

    x = tf.cast(x, tf.float32)
    n, old_height, old_width, channels = (
        tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)
    )
    height, width = operation.height, operation.width
    rows, columns = _triangle_weights(old_height, height), _triangle_weights(old_width, width)
    x = tf.reshape(tf.matmul(rows, tf.reshape(x, [n, old_height, old_width * channels])), [-1, old_width, channels])
    return tf.reshape(tf.matmul(columns, x), [n, height, width, channels])


def _triangle_weights(old: Any, new: int) -> Tensor:
    """As `triangle_weights` of the graph, of a size that may be known only when it runs."""
    import tensorflow as tf

    if isinstance(old, int):
        return tf.constant(g.triangle_weights(old, new))
    # The same weights times twice the larger size: whole numbers, which float32 holds.
    old = tf.cast(old, tf.float32)
    centers = old * (2 * tf.range(new, dtype=tf.float32) + 1)
    far = tf.abs(new * (2 * tf.range(old, dtype=tf.float32) + 1)[None] - centers[:, None])
    weights = tf.maximum(0.0, 2 * tf.maximum(old, float(new)) - far)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _repeat_channels(operation: g.RepeatChannels, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.concat([x] * operation.n, axis=-1)


def _softmax(operation: g.Softmax, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.nn.softmax(x)


def _cumulative_min(operation: g.CumulativeMin, x: Tensor) -> Tensor:
    import tensorflow as tf

    columns = [x[..., 0]]
    for place in range(1, x.shape[-1]):
        columns.append(tf.minimum(columns[-1], x[..., place]))
    return tf.stack(columns, axis=-1)


def _above(operation: g.Above, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.cast(x > _constant(operation.threshold, x), tf.int64)


def _sum(operation: g.Sum, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.reduce_sum(x, axis=-1)


def _arg_max(operation: g.ArgMax, x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.argmax(x, axis=-1)


_WRITERS: dict[type[g.Operation], Callable[..., Tensor]] = {
    g.Above: _above,
    g.Add: _add,
    g.Affine: _affine,
    g.ArgMax: _arg_max,
    g.Bin: _bin,
    g.Cast: _cast,
    g.CategoryIndex: _category_index,
    g.Clip: _clip,
    g.Concatenate: _concatenate,
    g.CumulativeMin: _cumulative_min,
    g.FillMissing: _fill_missing,
    g.Function: _function,
    g.Interpolate: _interpolate,
    g.IsMissing: _is_missing,
    g.Lookup: _lookup,
    g.MatMul: _matmul,
    g.Multiply: _multiply,
    g.Network: Function._network,
    g.Normalize: _normalize,
    g.Polynomial: _polynomial,
    g.RepeatChannels: _repeat_channels,
    g.Reshape: _reshape,
    g.ResizeImages: _resize_images,
    g.Softmax: _softmax,
    g.Standardize: _standardize,
    g.Sum: _sum,
    g.Take: _take,
    g.TokenIds: _token_ids,
    g.WordCounts: _word_counts,
    g.YeoJohnson: _yeo_johnson,
}
