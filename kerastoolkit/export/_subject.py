"""What is exported: a fitted estimator, pipeline, search, experiment or Keras model, as a graph with its reference.

The graph is derived from what the fitted object knows of itself (`Fitted`: reader, network, head; the attributes of
scikit-learn's transformers). The reference is the object's own `predict` and `predict_proba`, which every written file
is compared with.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._keras import inputs_structure, outputs_structure
from kerastoolkit.data.columns import TableEncoder
from kerastoolkit.data.text import Vocabulary
from kerastoolkit.estimators._image_readers import ImageFeatures, ImageReader
from kerastoolkit.estimators._readers import ArrayReader
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.estimators.saving import versions
from kerastoolkit.estimators.transformer import KerasTransformer
from kerastoolkit.exceptions import ExportError, KerasToolkitError
from kerastoolkit.export._columns import Columns, Raw
from kerastoolkit.export._composites import Whole, answers_of, fitted_of, inside
from kerastoolkit.export._estimators import (
    Inputs,
    add_model,
    is_functional,
    names_of_inputs,
    read_columns,
    unknown_reader,
    whole_model,
)
from kerastoolkit.export._graph import Graph, Reshape, Value, functional_of, single_precision, size_of
from kerastoolkit.export._heads import Answer
from kerastoolkit.export._spec import InputSpec, OutputKind, OutputSpec, Spec

if TYPE_CHECKING:
    import keras

    from kerastoolkit.experiment import Experiment

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

    import kerastoolkit
    from kerastoolkit.experiment import Experiment, load_experiment

    if isinstance(source, (str, Path)):
        source = load_experiment(source) if Path(source).is_dir() else kerastoolkit.load(source)
    if isinstance(source, Experiment):
        return _of_experiment(source)
    if isinstance(source, keras.Model):
        return _of_model(source)
    if isinstance(source, type):
        raise ExportError(f"`{source.__name__}` is a class. Give a fitted object of it: {source.__name__}().fit(X, y).")
    if not hasattr(source, "predict") and not isinstance(source, KerasTransformer):
        raise ExportError(
            f"A {type(source).__name__} cannot be exported. Give a fitted estimator or pipeline, a search, an "
            "experiment, or a Keras model."
        )
    return _of_predictor(source)


# -- a Keras model --------------------------------------------------------------------------------------------------


def _of_model(model: keras.Model) -> Subject:
    if not is_functional(model):
        if type(model).__name__ == "Sequential":
            raise ExportError(
                "The model is not built: it does not know the shape of its input. Put `keras.Input(shape)` before its "
                "first layer, or fit it."
            )
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
        versions(),
    )
    struct = inputs_structure(functional_of(model))

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
    struct = outputs_structure(functional_of(model))
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


# -- an estimator, or what stands around it --------------------------------------------------------------------------


def _of_predictor(source: Any, read: Callable[[Any], Any] = _as_they_are, name: str = "") -> Subject:
    predictor = inside(source)
    first = _first(predictor)
    fitted = fitted_of(first)
    if isinstance(predictor, KerasTransformer):
        return _of_transformer(predictor)
    if fitted is not None and not _are_columns(fitted):
        graph = Graph()
        specs, inputs, rows = _arrays_of(graph, fitted)
        whole = Whole(graph, inputs)
        answers = answers_of(predictor, whole)
        return _finished(source, graph, specs, answers, rows, whole.notes, read, name)
    raw = _raw_columns(first, fitted)
    dtype = "float64" if fitted is None or not _reads_directly(predictor) else _first_dtype(fitted)

    texts: set[int] = set()

    def build(in_array: Sequence[int] = ()) -> tuple[Columns, list[Answer]]:
        while True:
            some = [dataclasses.replace(one, is_known_as_text=place in texts) for place, one in enumerate(raw)]
            columns = Columns(Graph(), some, dtype, in_array=in_array)
            try:
                return columns, answers_of(predictor, (columns, columns.all()))
            except ExportError:
                if columns.after_all_texts <= texts:
                    raise
                texts.update(columns.after_all_texts)

    columns, answers = build()
    accepted = _accepting_gaps(source, columns) if columns.know_gaps else set()
    of_table = fitted is not None and isinstance(fitted.reader, TableEncoder)
    if columns.are_numbers and not of_table and accepted in (set(), set(columns.used)):
        named = all(isinstance(one.label, str) for one in raw)
        columns, answers = build(columns.used if named else range(len(raw)))
    for place in accepted:
        columns.raw[place].may_be_missing = True
    rows = rows_of_columns(columns)
    return _finished(source, columns.graph, columns.specs(), answers, rows, columns.notes, read, name)


def _first(estimator: Any) -> Any:
    """The estimator or transformer that reads the raw rows."""
    while True:
        estimator, kind = inside(estimator), type(estimator).__name__
        if kind == "Pipeline":
            steps = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
            estimator = steps[0]
        elif kind == "FeatureUnion":
            estimator = next(step for _, step in estimator.transformer_list if not isinstance(step, str))
        elif kind == "TransformedTargetRegressor":
            estimator = getattr(estimator, "regressor_", estimator.regressor)
        elif kind == "CalibratedClassifierCV" and hasattr(estimator, "calibrated_classifiers_"):
            estimator = estimator.calibrated_classifiers_[0].estimator
        elif kind.startswith(("Voting", "Stacking")) and hasattr(estimator, "estimators_"):
            estimator = estimator.estimators_[0]
        else:
            return estimator


def _reads_directly(estimator: Any) -> bool:
    """Whether nothing but networks reads the raw rows."""
    estimator, kind = inside(estimator), type(estimator).__name__
    if kind == "TransformedTargetRegressor":
        return _reads_directly(estimator.regressor_)
    if kind.startswith(("Voting", "Bagging")):
        return all(map(_reads_directly, estimator.estimators_))
    return fitted_of(estimator) is not None


def _are_columns(fitted: Fitted) -> bool:
    """Whether a reader takes columns, or texts, which are one column."""
    reader = fitted.reader
    if isinstance(reader, ArrayReader):
        return isinstance(reader.shape, tuple) and len(reader.shape) == 1 and not reader.of_text
    return isinstance(reader, (TableEncoder, Vocabulary))


def _raw_columns(first: Any, fitted: Fitted | None) -> list[Raw]:
    if fitted is not None and isinstance(fitted.reader, Vocabulary):
        return [Raw("text", "text", example=" ".join(fitted.reader.words[:8]))]
    if fitted is not None and isinstance(fitted.reader, TableEncoder):
        labels = [column.name for column in fitted.reader.values()]
    elif type(first).__name__ in ("CountVectorizer", "TfidfVectorizer"):
        return [Raw("text", "text", example=" ".join(sorted(first.vocabulary_, key=len)[-8:]))]
    else:
        _check_is_fitted(first)
        if not hasattr(first, "n_features_in_"):  # it reads something else than columns
            return [Raw("text", "text")]
        names = getattr(first, "feature_names_in_", None)
        labels = list(range(first.n_features_in_)) if names is None else list(names)
    known = [str(label) for label in labels]
    twice = next((name for place, name in enumerate(known) if name in known[:place]), None)
    if twice is not None:
        raise ExportError(f"Two columns are called {twice!r}. Rename one of them.")
    return [Raw(name, label) for name, label in zip(known, labels, strict=True)]


def _check_is_fitted(estimator: Any) -> None:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


def _accepting_gaps(source: Any, columns: Columns) -> set[int]:
    """Numbers of the raw columns without which the model still has an answer."""
    # where the empty text is a category, nothing is left to stand for a missing one
    used = [
        place for place in columns.used if columns.raw[place].kind != "text" and "" not in columns.raw[place].categories
    ]
    rows = rows_of_columns(columns)

    def answers(places: Sequence[int]) -> bool:
        arrays = {columns.raw[place].name: _usual(columns.raw[place], len(places)) for place in columns.used}
        for row, place in enumerate(places):
            raw = columns.raw[place]
            arrays[raw.name] = arrays[raw.name].copy()
            arrays[raw.name][row] = "" if raw.of_text else np.nan
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source.predict(rows(arrays))
        except (KerasToolkitError, ValueError, TypeError, OverflowError):
            return False
        return True

    def accepted(places: Sequence[int]) -> set[int]:
        if not places:
            return set()
        if answers(places):
            return set(places)
        half = len(places) // 2
        return accepted(places[:half]) | accepted(places[half:]) if half else set()

    return accepted(used)


def _usual(raw: Raw, n: int) -> NDArray[Any]:
    example = raw.example if raw.example is not None else "word" if raw.of_text else 1.0
    return np.full(n, example, object if raw.of_text else "float64")


def _of_transformer(estimator: Any) -> Subject:
    graph = Graph()
    notes: list[str] = []
    fitted = estimator._fitted
    if _are_columns(fitted):
        raw = _raw_columns(estimator, fitted)
        columns = Columns(graph, raw, _first_dtype(fitted), in_array=range(len(raw)))
        inputs, rows = read_columns(columns, fitted.reader, columns.all()), rows_of_columns(columns)
        specs = columns.specs()
    else:
        specs, inputs, rows = _arrays_of(graph, fitted)
    (code,) = add_model(graph, estimator.encoder_, inputs, notes)
    flat = graph.add(Reshape((size_of(code.shape),)), code)
    graph.outputs = {"code": flat}
    outputs = (OutputSpec("code", "number", flat.dtype, flat.shape),)
    spec = Spec(type(estimator).__name__, "transformation", specs, outputs, versions())
    return Subject(graph, spec, lambda X: {"code": estimator.transform(X)}, rows, tuple(notes))


# -- inputs that are no columns -------------------------------------------------------------------------------------


def _first_dtype(fitted: Fitted) -> str:
    dtypes = {single_precision(str(one.dtype)) for one in whole_model(fitted).inputs}
    is_table = isinstance(fitted.reader, TableEncoder)
    return dtypes.pop() if len(dtypes) == 1 and not is_table else "float32"


def _arrays_of(graph: Graph, fitted: Fitted) -> tuple[tuple[InputSpec, ...], Inputs, Callable[[Arrays], Any]]:
    """Inputs, the values that go into the network, and rows of arrays."""
    if isinstance(fitted.reader, (ImageReader, ImageFeatures)):
        *sides, _ = tuple(fitted.model.inputs[0].shape[1:])
        shape = (*sides, fitted.reader.row_shape[-1])  # type: ignore[index]
        spec = InputSpec("image", "image", "float32", shape, minimum=0.0, maximum=255.0)
        return (spec,), graph.input("image", "float32", shape), lambda arrays: arrays["image"]
    if not isinstance(fitted.reader, ArrayReader):
        raise unknown_reader(fitted.reader)
    shapes: Any = fitted.reader.row_shape
    model = whole_model(fitted)
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
        if fitted.reader.value_range is not None:
            low, high = fitted.reader.value_range
            specs = (dataclasses.replace(specs[0], minimum=low, maximum=high),)
        return specs, values[0], lambda arrays: arrays["X"].reshape(-1, *parts[0])
    return specs, values, lambda arrays: [arrays[name] for name in names]


def rows_of_columns(columns: Columns) -> Callable[[Arrays], Any]:
    """Makes a table, or an array where the columns had no names, of arrays by input."""

    def rows(arrays: Arrays) -> Any:
        import pandas as pd

        named = all(isinstance(raw.label, str) for raw in columns.raw)
        if columns.array is not None:
            X = arrays["X"]
            if not named:
                return X
            table = pd.DataFrame(np.nan, index=range(len(X)), columns=[raw.label for raw in columns.raw])
            table[[columns.raw[place].label for place in columns.in_array]] = X
            return table
        n = len(next(iter(arrays.values())))
        if [raw.kind for raw in columns.raw] == ["text"]:
            return list(arrays[columns.raw[0].name])
        made: dict[Any, Any] = {}
        for raw in columns.raw:
            if raw.name not in arrays:  # nothing that is answered depends on it
                made[raw.label] = np.full(n, raw.categories[0] if raw.categories else np.nan)
                continue
            values = arrays[raw.name]
            if raw.of_text and raw.kind == "category" and "" not in raw.categories:
                texts = [raw.missing if value == "" else value for value in values]
                made[raw.label] = pd.Series(texts, dtype=object)  # of another type, None would become NaN
                continue
            if raw.dtype and np.array_equal(values, values.astype(raw.dtype)):
                values = values.astype(raw.dtype)
            made[raw.label] = values
        return pd.DataFrame(made)

    return rows


# -- an experiment --------------------------------------------------------------------------------------------------


def _of_experiment(experiment: Experiment) -> Subject:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    from kerastoolkit.data.tables import as_features, read_table

    if experiment.network is None or experiment.preprocessor is None:
        raise ExportError(f"This experiment has no model to export: it was {experiment.status}. Run it again.")
    last: Any = experiment.network
    if experiment.target_scaler is not None:
        last = TransformedTargetRegressor(experiment.network, transformer=experiment.target_scaler)
        last.regressor_, last.transformer_, last._training_dim = experiment.network, experiment.target_scaler, 1
    pipeline = Pipeline([("preprocessor", experiment.preprocessor), ("network", last)])

    def read(table: Any) -> Any:
        return as_features(read_table(table, columns=experiment.columns).frame, experiment.columns)

    made = _of_predictor(pipeline, read, experiment.name)
    changed = [column.name for column in experiment.columns if column.is_used and column.kind in ("boolean", "date")]
    if not changed:
        return made
    note = f"Of {', '.join(map(repr, changed))} the file takes the numbers that the experiment makes of them."
    return dataclasses.replace(made, notes=(*made.notes, note))


# -- answers --------------------------------------------------------------------------------------------------------

_WORD: dict[str, str] = {"label": "label", "labels": "labels", "number": "prediction", "raw": "output"}


def _finished(
    estimator: Any,
    graph: Graph,
    inputs: tuple[InputSpec, ...],
    answers: Sequence[Answer],
    rows: Callable[[Arrays], Any],
    notes: Sequence[str],
    read: Callable[[Any], Any] = _as_they_are,
    name: str = "",
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
        name: As in `Spec`. Defaults to that of the class of the last estimator.
    """
    taken = [one.name for one in inputs]
    outputs: list[OutputSpec] = []
    for number, answer in enumerate(answers):
        own = _WORD[answer.kind]
        full = f"{answer.target}_{{}}" if answer.target else f"{{}}_{number}" if len(answers) > 1 else "{}"
        made: list[tuple[str, OutputKind, Value]] = [(own, answer.kind, answer.value)]
        if answer.probabilities is not None:
            made.append(("probabilities", "probabilities", answer.probabilities))
        for word, kind, value in made:
            (known_as,) = _distinct([full.format(word)], taken)
            outputs.append(OutputSpec(known_as, kind, value.dtype, value.shape, answer.classes, answer.target))
            graph.outputs[known_as] = value
    task = "regression" if all(answer.kind == "number" for answer in answers) else "classification"
    graph.prune()
    needed = {value.name for value in graph.inputs}
    inputs = tuple(one for one in inputs if one.name in needed)
    spec = Spec(name or _name_of(estimator), task, inputs, tuple(outputs), versions())

    def predict(X: Any) -> Arrays:
        return reference(estimator, outputs, X)

    return Subject(graph, spec, predict, rows, tuple(notes), read)


def _name_of(estimator: Any) -> str:
    estimator = inside(estimator)
    return _name_of(estimator.steps[-1][1]) if type(estimator).__name__ == "Pipeline" else type(estimator).__name__


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
        if one.dtype == "bool" and values.dtype.kind == "U":  # beside a column of texts
            values = values == "True"
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
