"""What is exported: a fitted estimator, pipeline, search, experiment or Keras model, as a graph with its reference.

The graph is derived from what the fitted object knows of itself (`Fitted`: reader, network, head; the attributes of
scikit-learn's transformers). The reference is the object's own `predict` and `predict_proba`, which every written file
is compared with.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._version import __version__
from kerastoolkit.data.columns import TableEncoder
from kerastoolkit.data.text import Vocabulary
from kerastoolkit.estimators._image_readers import ImageFeatures, ImageReader
from kerastoolkit.estimators._readers import ArrayReader
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._columns import Columns, Raw
from kerastoolkit.export._estimators import (
    Inputs,
    add_model,
    answers_of_fitted,
    names_of_inputs,
    read_columns,
    read_texts,
    unknown_reader,
)
from kerastoolkit.export._graph import Graph, Reshape, Value, functional_of, single_precision, size_of
from kerastoolkit.export._heads import Answer
from kerastoolkit.export._spec import InputSpec, OutputKind, OutputSpec, Spec

if TYPE_CHECKING:
    import keras

Arrays = dict[str, NDArray[Any]]


def _as_they_are(X: Any) -> Any:
    return X


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is exported.

    Args:
        graph: From raw input to the answers.
        spec: What the graph takes and answers, in its user's words; inputs and outputs have the names of the graph's.
        predict: What the user's own object answers to rows as `rows` makes them, by the names of the outputs.
        rows: Makes rows, as the user's own object takes them, of arrays by input (`Spec.arrays` the other way round):
            a data frame, an array, a list of texts, ...
        notes: What was left out, and why, such as layers that only train. Defaults to none.
        read: Makes of a sample, as users have it, what `Spec.arrays` takes; an experiment reads its table so. Defaults
            to a function that changes nothing.
    """

    graph: Graph
    spec: Spec
    predict: Callable[[Any], dict[str, NDArray[Any]]]
    rows: Callable[[dict[str, NDArray[Any]]], Any]
    notes: tuple[str, ...] = ()
    read: Callable[[Any], Any] = _as_they_are


def subject_of(source: Any) -> Subject:
    """Finds out what is to be exported, and refuses what cannot be.

    Args:
        source: A fitted estimator of kerastoolkit; a scikit-learn pipeline or search around one; an experiment; the
            path of a folder of `kerastoolkit search` or of a file of `kerastoolkit.save`; or a built `keras.Model`.

    Raises:
        ExportError: A step, a reader or a layer has no counterpart in a graph; the message names it.
        sklearn.exceptions.NotFittedError: It was not fitted.
    """
    import keras

    if isinstance(source, keras.Model):
        return _of_model(source)
    fitted = fitted_of(source)
    if fitted is not None:
        return _of_estimator(source, fitted)
    raise ExportError(f"A {type(source).__name__} cannot be exported.")


def fitted_of(estimator: Any) -> Fitted | None:
    """The record of a fitted estimator of kerastoolkit; None for anything else."""
    from sklearn.utils.validation import check_is_fitted

    from kerastoolkit.estimators._base import KerasEstimator

    if not isinstance(estimator, KerasEstimator):
        return None
    check_is_fitted(estimator)
    return estimator._fitted


# -- a Keras model --------------------------------------------------------------------------------------------------


def _of_model(model: keras.Model) -> Subject:
    if getattr(functional_of(model), "_inputs_struct", None) is None:
        raise ExportError(
            f"{type(model).__name__} is a model whose layers are called by Python code, and its inputs are not known. "
            "Build it of keras.Input and layers (functional or sequential), or fit it by an estimator of kerastoolkit."
        )
    graph = Graph()
    notes: list[str] = []
    names = names_of_inputs(model)
    specs, values = [], []
    for name, one in zip(names, model.inputs, strict=True):
        of_input, value = _input(graph, name, tuple(one.shape[1:]), single_precision(str(one.dtype)))
        specs.append(of_input)
        values.append(value)
    outputs = add_model(graph, model, values, notes)
    names_out = _distinct(_names_of_outputs(model), names)
    graph.outputs = dict(zip(names_out, outputs, strict=True))
    spec = Spec(
        model.name,
        "unknown",
        tuple(specs),
        tuple(OutputSpec(name, "raw", one.dtype, one.shape) for name, one in graph.outputs.items()),
        _versions(),
    )
    struct = functional_of(model)._inputs_struct

    def predict(rows: Any) -> Arrays:
        import keras

        packed = keras.tree.pack_sequence_as(struct, [rows[name] for name in names])
        made = keras.tree.flatten(model(packed, training=False))
        found = [np.asarray(keras.ops.convert_to_numpy(one)) for one in made]
        return {name: one.astype(two.dtype) for (name, two), one in zip(graph.outputs.items(), found, strict=True)}

    def rows(arrays: Arrays) -> Any:
        return {
            name: arrays[name].reshape(-1, *(size or 1 for size in one.shape[1:]))
            if one.dtype == "string"
            else arrays[name]
            for name, one in zip(names, model.inputs, strict=True)
        }

    return Subject(graph, spec, predict, rows, tuple(notes))


def _names_of_outputs(model: keras.Model) -> list[str]:
    struct = functional_of(model)._outputs_struct
    if isinstance(struct, Mapping):
        by_tensor = {id(tensor): name for name, tensor in struct.items()}
        if all(id(one) in by_tensor for one in model.outputs):
            return [by_tensor[id(one)] for one in model.outputs]
    return [str(name) for name in functional_of(model).output_names]


def _input(graph: Graph, name: str, shape: tuple[int | None, ...], dtype: str) -> tuple[InputSpec, Value]:
    if dtype == "string":
        if any(size != 1 for size in shape):
            raise ExportError(f"The input {name!r} takes {shape} texts a row; a file takes one.")
        return InputSpec(name, "text", dtype), graph.input(name, dtype)
    is_image = len(shape) == 3 and shape[-1] in (1, 3)
    return InputSpec(name, "image" if is_image else "array", dtype, shape), graph.input(name, dtype, shape)


def _distinct(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Names of outputs, another one for each that an input has."""
    return [f"predicted_{name}" if name in taken else name for name in names]


def _versions() -> dict[str, str]:
    import keras
    import sklearn

    return {
        "kerastoolkit": __version__,
        "keras": keras.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


# -- an estimator ---------------------------------------------------------------------------------------------------


def _of_estimator(estimator: Any, fitted: Fitted) -> Subject:
    from kerastoolkit.estimators._reconstruction import Reconstruction

    graph = Graph()
    notes: list[str] = []
    specs, inputs, rows = _inputs_of(graph, fitted)
    if isinstance(fitted.head, Reconstruction):
        (code,) = add_model(graph, estimator.encoder_, inputs, notes)
        flat = graph.add(Reshape((size_of(code.shape),)), code)
        graph.outputs = {"code": flat}
        outputs = (OutputSpec("code", "number", flat.dtype, flat.shape),)
        spec = Spec(type(estimator).__name__, "transformation", specs, outputs, _versions())
        return Subject(graph, spec, lambda X: {"code": estimator.transform(X)}, rows, tuple(notes))
    answers = answers_of_fitted(graph, fitted, inputs, notes)
    return subject_of_answers(estimator, graph, specs, answers, rows, notes)


def _inputs_of(graph: Graph, fitted: Fitted) -> tuple[tuple[InputSpec, ...], Inputs, Callable[[Arrays], Any]]:
    """Inputs, what the reader makes of them, and rows of arrays."""
    reader = fitted.reader
    if isinstance(reader, Vocabulary):
        texts = graph.input("text", "string")
        spec = InputSpec("text", "text", "string", example=" ".join(reader.words[:8]))
        return (spec,), read_texts(graph, reader, texts), lambda arrays: list(arrays["text"])
    if isinstance(reader, (ImageReader, ImageFeatures)):
        return _images_of(graph, fitted)
    if isinstance(reader, TableEncoder) or (
        isinstance(reader, ArrayReader)
        and isinstance(reader.shape, tuple)
        and len(reader.shape) == 1
        and not reader.of_text
    ):
        return _table_of(graph, fitted)
    if isinstance(reader, ArrayReader):
        return _arrays_of(graph, fitted)
    raise unknown_reader(reader)


def _images_of(graph: Graph, fitted: Fitted) -> tuple[tuple[InputSpec, ...], Inputs, Callable[[Arrays], Any]]:
    model = fitted.model
    *sides, _ = tuple(model.inputs[0].shape[1:])
    channels = fitted.reader.row_shape[-1]  # type: ignore[index]
    shape = (*sides, channels)
    spec = InputSpec("image", "image", "float32", shape, minimum=0.0, maximum=255.0)
    return (spec,), graph.input("image", "float32", shape), lambda arrays: arrays["image"]


def _table_of(graph: Graph, fitted: Fitted) -> tuple[tuple[InputSpec, ...], Inputs, Callable[[Arrays], Any]]:
    reader = fitted.reader
    names = reader.feature_names
    labels = list(range(reader.n_features or 0)) if names is None else [str(name) for name in names]
    if isinstance(reader, TableEncoder):
        labels = [column.name for column in reader.values()]
        raw = [Raw(str(label), label) for label in labels]
        columns = Columns(graph, raw, "float32")
    else:
        raw = [Raw(str(label), label) for label in labels]
        columns = Columns(graph, raw, _first_dtype(fitted), is_one_array=True)
    inputs = read_columns(columns, reader, columns.all())
    return columns.specs(), inputs, rows_of_columns(columns)


def _first_dtype(fitted: Fitted) -> str:
    dtypes = {single_precision(str(one.dtype)) for one in fitted.network.model.inputs}
    return dtypes.pop() if len(dtypes) == 1 else "float32"


def _arrays_of(graph: Graph, fitted: Fitted) -> tuple[tuple[InputSpec, ...], Inputs, Callable[[Arrays], Any]]:
    shapes: Any = fitted.reader.row_shape
    model = fitted.network.model
    if isinstance(shapes, Mapping):
        order = names_of_inputs(model, shapes)
        dtypes = dict(zip(order, model.inputs, strict=True))
        pairs = {
            name: _input(graph, name, shape, single_precision(str(dtypes[name].dtype)))
            for name, shape in shapes.items()
            if name in dtypes
        }
        specs = tuple(spec for spec, _ in pairs.values())
        return specs, {name: value for name, (_, value) in pairs.items()}, dict
    parts = [shapes] if isinstance(shapes, tuple) else list(shapes)
    names = ["X"] if isinstance(shapes, tuple) else names_of_inputs(model)
    made = [
        _input(graph, name, shape, single_precision(str(one.dtype)))
        for name, shape, one in zip(names, parts, model.inputs, strict=True)
    ]
    specs, values = tuple(spec for spec, _ in made), [value for _, value in made]
    if isinstance(shapes, tuple):
        return specs, values[0], lambda arrays: arrays["X"].reshape(-1, *parts[0])
    return specs, values, lambda arrays: [arrays[name] for name in names]


def rows_of_columns(columns: Columns) -> Callable[[Arrays], Any]:
    """Makes a table, or an array where the columns had no names, of arrays by input."""

    def rows(arrays: Arrays) -> Any:
        import pandas as pd

        named = all(isinstance(raw.label, str) for raw in columns.raw)
        if columns.array is not None:
            X = arrays["X"]
            return pd.DataFrame(X, columns=[raw.label for raw in columns.raw]) if named else X
        n = len(next(iter(arrays.values())))
        table = {}
        for raw in columns.raw:
            if raw.name not in arrays:
                table[raw.label] = np.full(n, np.nan)
                continue
            values = arrays[raw.name]
            if raw.of_text and raw.kind == "category" and "" not in raw.categories:
                values = np.array([raw.missing if value == "" else value for value in values], dtype=object)
            elif raw.dtype and not np.isnan(values).any():
                values = values.astype(raw.dtype)
            table[raw.label] = values
        return pd.DataFrame(table)

    return rows


# -- answers --------------------------------------------------------------------------------------------------------

_WORD: dict[str, str] = {"label": "label", "labels": "labels", "number": "prediction", "raw": "output"}


def subject_of_answers(
    estimator: Any,
    graph: Graph,
    inputs: tuple[InputSpec, ...],
    answers: Sequence[Answer],
    rows: Callable[[Arrays], Any],
    notes: Sequence[str],
    read: Callable[[Any], Any] = _as_they_are,
) -> Subject:
    """The subject of an object that predicts.

    Args:
        estimator: The user's object, with `predict` and, for classes, `predict_proba`.
        graph: The graph, to which outputs are added.
        inputs: Its inputs.
        answers: What it answers, one a target.
        rows: As in `Subject`.
        notes: As in `Subject`.
        read: As in `Subject`.
    """
    taken = [one.name for one in inputs]
    outputs: list[OutputSpec] = []
    for number, answer in enumerate(answers):
        name = _WORD[answer.kind]
        full = f"{answer.target}_{{}}" if answer.target else f"{{}}_{number}" if len(answers) > 1 else "{}"
        made: list[tuple[str, OutputKind, Value]] = [(name, answer.kind, answer.value)]
        if answer.probabilities is not None:
            made.append(("probabilities", "probabilities", answer.probabilities))
        for word, kind, value in made:
            (known_as,) = _distinct([full.format(word)], taken)
            outputs.append(OutputSpec(known_as, kind, value.dtype, value.shape, answer.classes, answer.target))
            graph.outputs[known_as] = value
    task = "regression" if all(answer.kind == "number" for answer in answers) else "classification"
    spec = Spec(type(estimator).__name__, task, inputs, tuple(outputs), _versions())

    def predict(X: Any) -> Arrays:
        return reference(estimator, outputs, X)

    return Subject(graph, spec, predict, rows, tuple(notes), read)


def reference(estimator: Any, outputs: Sequence[OutputSpec], X: Any) -> Arrays:
    """What an object answers to rows, by the names of outputs."""
    predicted = estimator.predict(X)
    targets = [one for one in outputs if one.kind != "probabilities"]
    found: Arrays = {}
    for place, one in enumerate(targets):
        if isinstance(predicted, Mapping):
            values = np.asarray(predicted[one.target])
        else:
            values = np.asarray(predicted) if len(targets) == 1 else np.asarray(predicted)[:, place]
        found[one.name] = values.astype(one.dtype if one.dtype != "string" else object)
    of_classes = [one for one in outputs if one.kind == "probabilities"]
    if of_classes:
        made = estimator.predict_proba(X)
        for one in of_classes:
            place = targets.index(_target_of(one, outputs))
            part = made[one.target] if isinstance(made, Mapping) else made if len(targets) == 1 else made[place]
            found[one.name] = np.asarray(part)
    return found


def _target_of(probabilities: OutputSpec, outputs: Sequence[OutputSpec]) -> OutputSpec:
    """The output that stands before the probabilities of the same target."""
    return outputs[list(outputs).index(probabilities) - 1]
