"""A fitted estimator of kerastoolkit as operations, from its record: reader, network, head."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerastoolkit._keras import calls_after, inputs_structure, layer_of
from kerastoolkit._words import quoted
from kerastoolkit.data.columns import FIRST, MISSING, UNSEEN, CategoryColumn, NumberColumn, TableEncoder
from kerastoolkit.data.readers import Reader, RowShape
from kerastoolkit.data.text import Vocabulary
from kerastoolkit.estimators._image_readers import ImageFeatures
from kerastoolkit.estimators._readers import ArrayReader, EncodedReader
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._columns import Column, Columns, plain_categories
from kerastoolkit.export._graph import (
    ONLY_TRAIN,
    Above,
    Affine,
    Cast,
    CategoryIndex,
    Clip,
    Concatenate,
    FillMissing,
    Function,
    Graph,
    IsMissing,
    Multiply,
    Network,
    Normalize,
    RepeatChannels,
    Reshape,
    ResizeImages,
    Take,
    TokenIds,
    Value,
    WordCounts,
    functional_of,
    single_precision,
)
from kerastoolkit.export._heads import Answer, answers_of_head

if TYPE_CHECKING:
    import keras

Inputs = Value | dict[str, Value] | list[Value]


def answers_of_fitted(graph: Graph, fitted: Fitted, inputs: Inputs, notes: list[str]) -> list[Answer]:
    """The answers of a fitted estimator to what its reader makes of rows.

    Args:
        graph: The graph; the operations are added to it.
        fitted: What was learned.
        inputs: Values in the form in which the reader hands rows to the network.
        notes: What is to be told of the file; some is added.
    """
    model = whole_model(fitted)
    outputs = add_model(graph, model, inputs, notes)
    return answers_of_head(graph, fitted.head, outputs, is_softmax=[ends_in_softmax(one) for one in model.outputs])


def whole_model(fitted: Fitted) -> keras.Model:
    """The network behind the reader, where the reader is a network itself both, as a model that knows its inputs.

    Raises:
        ExportError: It is Python code (a subclass of `keras.Model`) that cannot be followed.
    """
    model = fitted.model if isinstance(fitted.reader, ImageFeatures) else fitted.network.model
    if is_functional(model):
        return model
    return _followed(model, fitted.reader.row_shape)


def is_functional(model: keras.Model) -> bool:
    """Whether a model knows its inputs: it is functional, or sequential and built."""
    return inputs_structure(functional_of(model)) is not None


def _followed(model: keras.Model, shape: RowShape) -> keras.Model:
    import keras

    try:
        if not isinstance(shape, tuple):
            raise TypeError("it has several inputs")
        x = keras.Input(shape)
        return keras.Model(x, model(x, training=False))
    except Exception as error:  # code of the user's may raise anything
        raise ExportError(
            f"{type(model).__name__} is a model whose layers are called by Python code, which cannot be followed (the "
            "reason stands above). Build it of keras.Input and layers, functional or sequential."
        ) from error


# -- networks -------------------------------------------------------------------------------------------------------


def add_model(graph: Graph, model: keras.Model, inputs: Inputs, notes: list[str]) -> tuple[Value, ...]:
    """Adds a model behind values, which get the types and shapes of its inputs.

    Args:
        graph: The graph.
        model: A functional or sequential model.
        inputs: A value, or values by name or in order.
        notes: What is to be told of the file; some is added.

    Returns:
        Its outputs.
    """
    left_out = [layer.name for layer in model.layers if type(layer).__name__ in ONLY_TRAIN]
    if left_out:
        notes.append(f"Layers that only train are left out: {', '.join(left_out)}.")
    given = [_fitting(graph, value, one) for value, one in zip(_in_order(model, inputs), model.inputs, strict=True)]
    rest = _without_resize(functional_of(model))
    if rest is not None and len(given) == 1:
        size, repeats, model = rest
        if repeats > 1:
            given = [graph.add(RepeatChannels(repeats), given[0])]
        given = [graph.add(ResizeImages(*size), given[0])]
    return graph.add_network(Network(model), *given)


def _in_order(model: keras.Model, inputs: Inputs) -> list[Value]:
    if isinstance(inputs, Value):
        return [inputs]
    if isinstance(inputs, list):
        return inputs
    names = names_of_inputs(model, inputs)
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ExportError(f"The model has an input {missing[0]!r}, for which there is none of {list(inputs)}.")
    return [inputs[name] for name in names]


def names_of_inputs(model: keras.Model, known: Collection[str] = ()) -> list[str]:
    """The names of a model's inputs, in the order of `model.inputs`.

    Args:
        model: A functional or sequential model.
        known: Names by which data come. Defaults to none.
    """
    model = functional_of(model)
    struct = inputs_structure(model)
    if isinstance(struct, Mapping):
        by_tensor = {id(tensor): name for name, tensor in struct.items()}
        if all(id(one) in by_tensor for one in model.inputs):
            return [by_tensor[id(one)] for one in model.inputs]
    # The name of a tensor, by which Keras finds its entry in a dict, need not be that of its layer, which users know.
    of_tensors = [str(one.name) for one in model.inputs]
    if known and set(of_tensors) <= set(known):
        return of_tensors
    return [str(getattr(layer_of(one), "name", one.name)) for one in model.inputs]


def _fitting(graph: Graph, value: Value, one: keras.KerasTensor) -> Value:
    """A value in the type and the number of axes of an input of a model."""
    shape = tuple(one.shape[1:])
    if len(shape) != len(value.shape):
        sizes = [size for size in value.shape if size != 1]
        if [size for size in shape if size != 1] != sizes or None in value.shape:
            raise ExportError(f"The model takes rows of the shape {shape}, but gets those of the shape {value.shape}.")
        value = graph.add(Reshape(tuple(size or 1 for size in shape) if sizes else (1,) * len(shape)), value)
    dtype = single_precision(str(one.dtype))
    return value if value.dtype == dtype else graph.add(Cast(dtype), value)


def _without_resize(model: keras.Model) -> tuple[tuple[int, int], int, keras.Model] | None:
    """Size, repeated channels and rest of a model that first resizes its images; None if it does not.

    No target of an export resizes as Keras does, so that this is an operation of its own.
    """
    import keras

    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        return None
    users = [node.operation for node in calls_after(layer_of(model.inputs[0]))]
    in_model = {id(one) for one in model.operations}
    first = next((one for one in users if id(one) in in_model), None)
    repeats = 1
    if isinstance(first, keras.layers.Concatenate) and first.name == "grey_to_rgb":
        repeats = 3
        first = next((node.operation for node in calls_after(first) if id(node.operation) in in_model), None)
    options = {"interpolation": "bilinear", "antialias": True, "data_format": "channels_last"}
    if type(first).__name__ != "Resize" or first is None:
        return None
    found = {name: getattr(first, name, None) for name in options}
    plain = not any(getattr(first, name, False) for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"))
    if found != options or not plain:
        return None
    size = (int(first.size[0]), int(first.size[1]))
    return size, repeats, keras.Model(first.output, model.outputs[0] if len(model.outputs) == 1 else model.outputs)


def ends_in_softmax(output: keras.KerasTensor) -> bool:
    """Whether an output of a model comes from a softmax, and so adds up to 1."""
    import keras

    operation = layer_of(output)
    while isinstance(operation, keras.Model) and is_functional(operation):
        operation = layer_of(operation.outputs[0])
    if isinstance(operation, keras.layers.Softmax):
        return operation.axis in (-1, len(output.shape) - 1)
    return getattr(getattr(operation, "activation", None), "__name__", "") == "softmax"


# -- readers --------------------------------------------------------------------------------------------------------


def read_columns(columns: Columns, reader: Reader, given: Sequence[Column]) -> Inputs:
    """What a reader of columns makes of a table, or of what steps before it made.

    Args:
        columns: The raw columns, and the graph.
        reader: An `ArrayReader` of rows of numbers, a `TableEncoder`, or a `Vocabulary` for a column of texts.
        given: The columns.

    Raises:
        ExportError: The reader is of another kind.
    """
    if reader.n_features is not None and reader.n_features != len(given):
        raise ExportError(f"The estimator reads {reader.n_features} columns, but gets {len(given)}.")
    if isinstance(reader, TableEncoder):
        return _read_table(columns, reader, given)
    if isinstance(reader, Vocabulary) and len(given) == 1:
        return read_texts(columns.graph, reader, columns.text(given[0]))
    if isinstance(reader, ArrayReader) and isinstance(reader.shape, tuple) and len(reader.shape) == 1:
        return columns.numbers(given)
    raise unknown_reader(reader)


def unknown_reader(reader: Reader) -> ExportError:
    """The error for a reader that a graph has no operations for."""
    if isinstance(reader, EncodedReader) and not isinstance(reader, ImageFeatures):
        return ExportError(
            f"The estimator has a `feature_encoder` of its own, a {type(reader.encoder).__name__}: Python code, which "
            "no file holds. Put a step of scikit-learn before the estimator instead, in a pipeline."
        )
    return ExportError(
        f"The estimator reads its rows by a {type(reader).__name__}, which no file can hold: it is Python code. Export "
        "the network alone, `estimator.model_`, and encode rows before."
    )


def _read_table(columns: Columns, reader: TableEncoder, given: Sequence[Column]) -> dict[str, Value]:
    graph, values = columns.graph, {}
    for (key, column), one in zip(reader.items(), given, strict=True):
        if isinstance(column, CategoryColumn):
            values[key] = _category(columns, column, one)
            continue
        number = columns.numbers([one])
        values[key] = graph.add(FillMissing(np.asarray(column.mean)), number)
        if column.missing:
            values[f"{key}_missing"] = graph.add(IsMissing(), number)
        _tell_number(columns, column, one)
    return values


def _tell_number(columns: Columns, column: NumberColumn, one: Column) -> None:
    if one.origin is not None:
        raw = columns.raw[one.origin]
        raw.example, raw.may_be_missing = column.mean, True
        raw.minimum, raw.maximum = column.mean - 2 * column.deviation, column.mean + 2 * column.deviation


def _category(columns: Columns, column: CategoryColumn, one: Column) -> Value:
    categories = plain_categories(column.categories, f"The column {quoted(column.name)}")
    of_text = not categories or isinstance(categories[0], str)
    # An empty text stands for a missing one, unless the model knows it as a category, which sorts it first.
    knows_empty = of_text and "" in categories
    first, missing = (FIRST + 1, FIRST) if knows_empty else (FIRST, MISSING)
    value = columns.texts([one]) if of_text else columns.numbers([one])
    columns.tell_categories(one, column.categories)
    if one.origin is not None:
        columns.raw[one.origin].may_be_missing = not knows_empty
    index = CategoryIndex(categories[1:] if knows_empty else categories, first, UNSEEN, missing)
    return columns.graph.add(Cast("int32"), columns.graph.add(index, value))


def read_texts(graph: Graph, vocabulary: Vocabulary, texts: Value) -> Value:
    """What a vocabulary makes of texts: token ids, or tf-idf weights."""
    words, ngrams = vocabulary.words, (vocabulary.ngram_range[0], vocabulary.ngram_range[1])
    if vocabulary.max_length is not None:
        return graph.add(TokenIds(words, vocabulary.max_length, ngrams), texts)
    counts = graph.add(WordCounts(words, ngrams), texts)
    weights = graph.add(Normalize("l2"), graph.add(Affine(vocabulary.idf, np.zeros(())), sublinear(graph, counts)))
    # padding, unknown words, and places that stay free, so that all folds of a search have networks of one size
    zero = graph.add(Affine(np.zeros(()), np.zeros(())), graph.add(Take((0,)), weights))
    places = (0, 0, *range(1, len(words) + 1), *[0] * (vocabulary.size - FIRST - len(words)))
    return graph.add(Take(places), graph.add(Concatenate(), zero, weights))


def sublinear(graph: Graph, counts: Value) -> Value:
    """1 + the logarithm of counts, and 0 where there is none."""
    logarithm = graph.add(Function("log"), graph.add(Clip(np.ones(()), np.asarray(np.inf)), counts))
    some = graph.add(Cast(counts.dtype), graph.add(Above(0.0), counts))
    return graph.add(Multiply(), graph.add(Affine(np.ones(()), np.ones(())), logarithm), some)
