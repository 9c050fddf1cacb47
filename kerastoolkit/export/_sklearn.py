"""Fitted transformers of scikit-learn as operations on columns.

A transformer is known by its exact class: a subclass may compute anything. What has no counterpart is refused by the
name of the step, the class and the option. Encoders of categories are asked themselves what they make of each category,
of an unknown one and of none, so that infrequent, dropped and missing categories need no second account here.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerastoolkit._values import shown
from kerastoolkit._words import quoted
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._columns import Column, Columns, eye, plain_categories
from kerastoolkit.export._estimators import add_model, read_columns, sublinear
from kerastoolkit.export._graph import (
    FUNCTIONS,
    Above,
    Add,
    Affine,
    Array,
    Bin,
    Cast,
    CategoryIndex,
    Clip,
    FillMissing,
    Function,
    Interpolate,
    IsMissing,
    Lookup,
    MatMul,
    Multiply,
    Normalize,
    Operation,
    Polynomial,
    Reshape,
    Standardize,
    Take,
    Value,
    WordCounts,
    YeoJohnson,
    size_of,
)

_UNSEEN = "a category that was never seen"
_WORD = r"(?u)\b\w\w+\b"


def transformed(columns: Columns, step: Any, given: Sequence[Column], name: str = "") -> list[Column]:
    """What a fitted transformer makes of columns.

    Args:
        columns: The raw columns, and the graph.
        step: The transformer; None and `"passthrough"` change nothing, `"drop"` leaves nothing.
        given: The columns.
        name: What the step is called in its pipeline, for messages. Defaults to `""`.

    Raises:
        ExportError: There is no counterpart; the message names the step, its class and the reason.
    """
    from kerastoolkit.estimators import KerasTransformer

    if step is None or step == "passthrough":
        return list(given)
    if isinstance(step, str):  # "drop"
        return []
    kind = type(step)
    convert = _CONVERTERS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if convert is None and isinstance(step, KerasTransformer):
        convert = _network
    if convert is None and _is_selector(step):
        convert = _selected
    try:
        if convert is None:
            raise ExportError(_why_not(step))
        return convert(columns, step, list(given))
    except ExportError as error:
        if str(error).startswith("The step "):
            raise
        raise ExportError(f"The step {quoted(name or kind.__name__)} ({kind.__name__}): {error}") from None


def _why_not(step: Any) -> str:
    name = type(step).__name__
    known = {
        "KNNImputer": "It looks up the rows that it was fitted to. SimpleImputer can be exported.",
        "IterativeImputer": "It holds a model for each column. SimpleImputer can be exported.",
        "HashingVectorizer": "No file format has its hash function. TfidfVectorizer can be exported.",
        "FeatureHasher": "No file format has its hash function. OneHotEncoder can be exported.",
        "DictVectorizer": "It takes rows as dicts. Make a table of them: pandas.DataFrame(rows), and OneHotEncoder.",
    }
    return known.get(
        name,
        f"No file can hold a {name}. Those that can be exported are {', '.join(sorted(_CONVERTERS))}, selectors of "
        "features, and KerasTransformer.",
    )


def _option(step: Any, name: str, *allowed: Any) -> None:
    """Refuses an option that no file can hold."""
    value = getattr(step, name)
    if not any(value is one or (type(value) is type(one) and value == one) for one in allowed):
        wanted = " or ".join(f"{name}={one!r}" for one in allowed)
        raise ExportError(f"`{name}` is {shown(value)}, which no file can hold; {wanted} can be exported.")


def _chain(columns: Columns, given: Sequence[Column], *operations: Operation) -> list[Column]:
    """Operations on numbers, one after the other, that keep the columns."""
    value = columns.numbers(given)
    for operation in operations:
        value = columns.graph.add(operation, value)
    return columns.made(value, (column.name for column in given))


# -- numbers --------------------------------------------------------------------------------------------------------


def _standard_scaler(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    if step.with_mean and step.with_std:
        columns.tell_numbers(given, step.mean_, step.mean_ - 2 * step.scale_, step.mean_ + 2 * step.scale_)
    mean = step.mean_ if step.with_mean else np.zeros(len(given))
    scale = step.scale_ if step.with_std else np.ones(len(given))
    return _chain(columns, given, Standardize(np.asarray(mean), np.asarray(scale)))


def _robust_scaler(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    center = step.center_ if step.with_centering else np.zeros(len(given))
    scale = step.scale_ if step.with_scaling else np.ones(len(given))
    return _chain(columns, given, Standardize(np.asarray(center), np.asarray(scale)))


def _min_max_scaler(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    columns.tell_numbers(given, (step.data_min_ + step.data_max_) / 2, step.data_min_, step.data_max_)
    limits = [Clip(np.asarray(step.feature_range[0]), np.asarray(step.feature_range[1]))] if step.clip else []
    return _chain(columns, given, Affine(step.scale_, step.min_), *limits)


def _max_abs_scaler(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    limits = [Clip(np.asarray(-1.0), np.asarray(1.0))] if getattr(step, "clip", False) else []
    return _chain(columns, given, Standardize(np.zeros(len(given)), step.scale_), *limits)


def _normalizer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return _chain(columns, given, Normalize(step.norm))


def _binarizer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return _chain(columns, given, Above(float(step.threshold)), Cast(columns.dtype))


def _power_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    powers = np.asarray(step.lambdas_, "float64")
    if step.method == "yeo-johnson":
        operations: list[Operation] = [YeoJohnson(powers)]
    else:  # Box and Cox: (x ** power - 1) / power, which is the logarithm for 0
        powers = np.where(np.abs(powers) < 1e-9, 1e-9, powers)
        zero = np.zeros(())
        operations = [Function("log"), Affine(powers, zero), Function("expm1"), Affine(1 / powers, zero)]
    if step.standardize:
        operations.append(Standardize(step._scaler.mean_, step._scaler.scale_))
    return _chain(columns, given, *operations)


def _quantile_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    _option(step, "output_distribution", "uniform")
    pairs = [_steps_of_quantiles(one, step.references_) for one in step.quantiles_.T]
    return _chain(columns, given, Interpolate(tuple(x for x, _ in pairs), tuple(y for _, y in pairs)))


def _steps_of_quantiles(quantiles: Array, references: Array) -> tuple[Array, Array]:
    """Knots of a quantile transform: where several quantiles are one number, there is a step, with its middle there."""
    x: list[float] = []
    y: list[float] = []
    known = np.unique(quantiles)
    for number in known:
        same = references[quantiles == number]
        low, middle, high = float(same[0]), float((same[0] + same[-1]) / 2), float(same[-1])
        if number == known[0]:
            middle = low
        elif number == known[-1]:
            middle = high
        if low < middle:
            x.append(float(np.nextafter(number, -np.inf)))
            y.append(low)
        x.append(float(number))
        y.append(middle)
        if middle < high and number != known[-1]:
            x.append(float(np.nextafter(number, np.inf)))
            y.append(high)
    return np.array(x), np.array(y)


def _k_bins(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    edges = tuple(np.asarray(one[1:-1], "float64") for one in step.bin_edges_)
    bins = columns.graph.add(Bin(edges), columns.numbers(given))
    if step.encode == "ordinal":
        return columns.made(columns.graph.add(Cast(columns.dtype), bins))
    made = []
    for place, n_bins in enumerate(step.n_bins_):
        one = columns.graph.add(Reshape(()), _taken(columns, bins, place))
        made += columns.made(columns.graph.add(Lookup(eye(int(n_bins), columns.dtype)), one))
    return made


def _taken(columns: Columns, value: Value, place: int) -> Value:
    return value if value.shape == (1,) else columns.graph.add(Take((place,)), value)


def _polynomial_features(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return columns.made(columns.graph.add(Polynomial(np.asarray(step.powers_)), columns.numbers(given)))


def _spline_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    _option(step, "extrapolation", "constant", "linear", "continue")
    if hasattr(step, "handle_missing"):
        _option(step, "handle_missing", "error")
    if step.degree < 1:
        raise ExportError(f"`degree` is {step.degree}, which has steps; KBinsDiscretizer can be exported in its place.")
    middles = [(one.t[step.degree] + one.t[-step.degree - 1]) / 2 for one in step.bsplines_]
    made = []
    for place, column in enumerate(given):
        made += _splines(columns, step, place, column, np.asarray(middles))
    return made


def _splines(columns: Columns, step: Any, place: int, column: Column, middles: Array) -> list[Column]:
    """The splines of one column: a polynomial in each interval between knots, and in both beyond them."""
    graph, degree = columns.graph, int(step.degree)
    knots = np.unique(step.bsplines_[place].t[degree : len(step.bsplines_[place].t) - degree])
    widths = np.diff(knots)
    starts = np.concatenate([knots[:1] - widths[0], knots])
    widths = np.concatenate([widths[:1], widths, widths[-1:]])
    points = (np.arange(degree + 1) + 0.5) / (degree + 1)
    rows = np.tile(middles, (len(starts) * len(points), 1))
    rows[:, place] = (starts[:, None] + widths[:, None] * points).ravel()
    found = _asked(step, rows)
    width = found.shape[1] // len(middles)
    found = found[:, place * width : (place + 1) * width].reshape(len(starts), degree + 1, width)
    powers = np.linalg.solve(np.vander(points, increasing=True), found)  # (intervals, powers, splines)
    x = columns.numbers([column])
    interval = graph.add(Reshape(()), graph.add(Bin((knots,)), x))
    offset = graph.add(Lookup(-starts[:, None].astype(x.dtype)), interval)
    inside = graph.add(Multiply(), graph.add(Add(), x, offset), graph.add(Lookup((1 / widths)[:, None]), interval))
    raised = graph.add(Polynomial(np.arange(degree + 1)[:, None]), inside)
    spread = graph.add(MatMul(np.repeat(np.eye(degree + 1), width, axis=1), np.zeros(width * (degree + 1))), raised)
    terms = graph.add(Multiply(), spread, graph.add(Lookup(powers.reshape(len(starts), -1)), interval))
    return columns.made(graph.add(MatMul(np.tile(np.eye(width), (degree + 1, 1)), np.zeros(width)), terms))


def _function_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    if step.func is None:
        return given
    name = function_named(step.func)
    if name is None or step.kw_args:
        raise ExportError(
            f"`func` is {getattr(step.func, '__name__', step.func)!r}, Python code, which no file holds. Functions of "
            f"NumPy that can be exported are {', '.join(sorted(set(FUNCTIONS) - {'sigmoid'}))}."
        )
    return _chain(columns, given, Function(name))


def function_named(function: Any) -> str | None:
    """The name of an operation `Function` for a function of NumPy or SciPy; None if there is none."""
    from scipy.special import expit

    if function is expit:
        return "sigmoid"
    return next((name for name in FUNCTIONS if name != "sigmoid" and getattr(np, name) is function), None)


def _pca(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    components = step.components_.T
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        components = components / np.maximum(scale, np.finfo(scale.dtype).eps)
    mean = np.zeros(len(given)) if step.mean_ is None else step.mean_
    centered = columns.graph.add(Standardize(mean, np.ones(len(given))), columns.numbers(given))
    return columns.made(columns.graph.add(MatMul(components, np.zeros(components.shape[1])), centered))


def _projection(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    components = step.components_
    components = (components.toarray() if hasattr(components, "toarray") else np.asarray(components)).T
    return columns.made(
        columns.graph.add(MatMul(components, np.zeros(components.shape[1])), columns.numbers(given))
    )  # fmt: skip


def _is_selector(step: Any) -> bool:
    """Whether a step leaves columns as they are, and some of them out: it says itself which."""
    from sklearn.feature_selection import SelectorMixin

    return isinstance(step, SelectorMixin) and type(step).transform is SelectorMixin.transform


def _selected(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return [given[place] for place in step.get_support(indices=True)]


# -- gaps -----------------------------------------------------------------------------------------------------------


def _is_gap(value: object) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


def _missing_values_of(columns: Columns, step: Any, given: Sequence[Column]) -> None:
    columns.know_gaps = True
    if not _is_gap(step.missing_values):
        raise ExportError(
            f"`missing_values` is {step.missing_values!r}, but in a file NaN or an empty text is a missing value. Put "
            "NaN there before fitting."
        )
    for column in given:
        if column.origin is not None:
            columns.raw[column.origin].missing = None if step.missing_values is None else np.nan


def _simple_imputer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    _missing_values_of(columns, step, given)
    columns.tell_numbers(given, step.statistics_)
    # a column that had nothing in it is left out, unless told otherwise
    pairs = [
        (column, 0.0 if _is_gap(statistic) else statistic)
        for column, statistic in zip(given, step.statistics_, strict=True)
        if step.keep_empty_features or not _is_gap(statistic)
    ]
    made = []
    for of_text, group in itertools.groupby(pairs, key=lambda pair: isinstance(pair[1], str)):
        some = list(group)
        made += _filled(columns, [column for column, _ in some], [value for _, value in some], of_text=of_text)
    return made + (_indicators(columns, given, step.indicator_) if step.add_indicator else [])


def _filled(columns: Columns, given: Sequence[Column], statistics: Sequence[Any], *, of_text: bool) -> list[Column]:
    value = columns.texts(given) if of_text else columns.numbers(given)
    filling = FillMissing(np.array(statistics, dtype=object if of_text else "float64"))
    names, origins = [column.name for column in given], [column.origin for column in given]
    return columns.made(columns.graph.add(filling, value), names, origins)


def _indicators(columns: Columns, given: Sequence[Column], indicator: Any) -> list[Column]:
    made = []
    for place in indicator.features_:
        column = given[place]
        value = columns.texts([column]) if columns.holds_text(column) else columns.numbers([column])
        made.append(Column(columns.graph.add(IsMissing(), value), 0, f"missing_{column.name}"))
    return made


def _missing_indicator(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    _missing_values_of(columns, step, given)
    if step.features == "missing-only" and step.error_on_new:
        columns.notes.append(
            "MissingIndicator refuses gaps in columns that had none; the file passes them over (`error_on_new`)."
        )
    return _indicators(columns, given, step)


# -- categories -----------------------------------------------------------------------------------------------------


class _Categories(NamedTuple):
    """What an encoder knows of a column: categories, as they are and as a file has them, and the gaps among them."""

    present: list[Any]
    gaps: list[Any]
    plain: tuple[str, ...] | tuple[float, ...]
    of_text: bool
    dtype: np.dtype[Any]

    @property
    def unseen(self) -> Any:
        """A value that is none of them."""
        return _UNSEEN if self.of_text else max([float(value) for value in self.plain], default=0.0) + 1.0


def _categories_of(known: Array, what: str) -> _Categories:
    present = [value for value in known.tolist() if not _is_gap(value)]
    plain = plain_categories(present, what)
    of_text = isinstance(plain[0], str) if plain else known.dtype.kind in "OU"
    return _Categories(present, [value for value in known.tolist() if _is_gap(value)], plain, of_text, known.dtype)


def _encoder(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    """OneHotEncoder, OrdinalEncoder, TargetEncoder: each category becomes what the encoder itself makes of it."""
    columns.know_gaps = True
    if getattr(step, "handle_unknown", "") == "error":
        columns.notes.append(f"{type(step).__name__} refuses unknown categories; the file answers NaN.")
    known = [
        _categories_of(values, f"Column {quoted(column.name or str(place))}")
        for place, (values, column) in enumerate(zip(step.categories_, given, strict=True))
    ]
    gaps = _answer_or_nan(step, known, [one.gaps[0] if one.gaps else np.nan for one in known])
    unseen = _answer_or_nan(step, known, [one.unseen for one in known])
    longest = max(len(one.present) for one in known)
    padded = [[*one.present, *[one.present[0]] * (longest - len(one.present))] if one.present else [] for one in known]
    rows = _asked_of_columns(step, known, padded, longest)
    made = []
    for column, one, part in zip(given, known, _parts(step), strict=True):
        table = np.vstack([gaps[part], unseen[part], rows[: len(one.present), part]])
        made += _looked_up(columns, column, one, table.astype(columns.dtype))
    return made


def _parts(step: Any) -> list[slice]:
    """Where the numbers stand that an encoder makes of each column."""
    n_features = len(step.categories_)
    widths = [1] * n_features
    if type(step).__name__ == "OneHotEncoder":
        widths = [int(width) for width in step._n_features_outs]
    elif type(step).__name__ == "TargetEncoder" and step.target_type_ == "multiclass":
        widths = [len(step.classes_)] * n_features
    return [slice(end - width, end) for width, end in zip(widths, itertools.accumulate(widths), strict=True)]


def _looked_up(columns: Columns, column: Column, known: _Categories, table: Array) -> list[Column]:
    """The rows of a table: that of a gap, that of an unseen category, then those of the categories."""
    if None in known.gaps and column.origin is not None and column.value is not None:
        # An imputer before it fills NaN and leaves None as it is, which is what gaps are in this column.
        column = columns.all()[column.origin]
    if None in known.gaps:
        columns.notes.append(
            f"A gap in {quoted(column.name)} is None to the model, as in the rows that it was fitted to; NaN, which it "
            "takes for something else, is None to the file as well."
        )
    value = columns.texts([column]) if known.of_text else columns.numbers([column])
    columns.tell_categories(column, known.present)
    if column.origin is not None:
        raw = columns.raw[column.origin]
        raw.missing = None if known.gaps and known.gaps[0] is None else raw.missing
        if known.dtype.kind in "bi":
            raw.dtype = known.dtype.name
        elif known.present and all(isinstance(value, bool) for value in known.present):
            raw.dtype = "bool"
    # An empty text stands for a gap, unless it is a category itself.
    place = known.plain.index("") if known.of_text and "" in known.plain else None
    if place is not None:
        table = np.vstack([table[2 + place : 3 + place], table[1:2], np.delete(table[2:], place, axis=0)])
    plain = known.plain if place is None else tuple(str(one) for one in known.plain if one != "")
    index = columns.graph.add(CategoryIndex(plain, 2, 1, 0), value)
    return columns.made(columns.graph.add(Lookup(table), columns.graph.add(Reshape(()), index)))


def _answer_or_nan(step: Any, known: Sequence[_Categories], values: Sequence[Any]) -> Array:
    """What an encoder makes of one value a column, side by side; NaN where it refuses, which no file can."""
    try:
        return np.asarray(_asked_of_columns(step, known, [[value] for value in values], 1)[0])
    except (TypeError, ValueError):
        pass
    parts = _parts(step)
    made = np.full(parts[-1].stop, np.nan)
    for place, part in enumerate(parts):
        some = [[values[place]] if other == place else one.present[:1] for other, one in enumerate(known)]
        with contextlib.suppress(TypeError, ValueError):
            made[part] = _asked_of_columns(step, known, some, 1)[0][part]
    return made


def _asked_of_columns(step: Any, known: Sequence[_Categories], values: Sequence[Sequence[Any]], n: int) -> Array:
    """What an encoder makes of columns of values, `n` each; a column without any is one of gaps."""
    import pandas as pd

    table = {}
    for place, (one, some) in enumerate(zip(known, values, strict=True)):
        column = list(some) or [one.gaps[0]] * n
        of_numbers = one.dtype.kind in "bif"
        table[place] = pd.Series(column, dtype="float64" if of_numbers else object)
        if of_numbers and set(column) <= set(one.present):
            table[place] = table[place].astype(one.dtype)
    frame = pd.DataFrame(table)
    if hasattr(step, "feature_names_in_"):
        frame.columns = step.feature_names_in_
    return _asked(step, frame)


def _asked(step: Any, rows: Any) -> Array:
    """What a step makes of rows, as an array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of columns, and of categories that are unknown on purpose
        made = step.transform(rows)
    return np.asarray(made.toarray() if hasattr(made, "toarray") else made, "float64")


# -- texts ----------------------------------------------------------------------------------------------------------


def _count_vectorizer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return columns.made(_counts(columns, step, given))


def _counts(columns: Columns, step: Any, given: list[Column]) -> Value:
    if len(given) != 1:
        raise ExportError(f"It takes one column of texts, but gets {len(given)}.")
    _option(step, "analyzer", "word")
    _option(step, "strip_accents", None)
    for name in ("preprocessor", "tokenizer"):
        _option(step, name, None)
    _option(step, "token_pattern", _WORD)
    if step.stop_words is not None and tuple(step.ngram_range) != (1, 1):
        raise ExportError(
            "`stop_words` beside `ngram_range` makes neighbours of words that are none, which no file does; either of "
            "them can be exported."
        )
    vocabulary = step.vocabulary_
    words = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    if step.stop_words is not None:
        stopped = set(step.get_stop_words() or ()) & set(words)
        if stopped:
            raise ExportError(f"`stop_words` and the vocabulary both have {sorted(stopped)[0]!r}.")
    ngrams = (int(step.ngram_range[0]), int(step.ngram_range[1]))
    counts = columns.graph.add(WordCounts(words, ngrams, bool(step.lowercase)), columns.text(given[0]))
    if step.binary:
        counts = columns.graph.add(Cast("float32"), columns.graph.add(Above(0.5), counts))
    return counts


def _tfidf_vectorizer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return _weighted(columns, step, _counts(columns, step, given), step.idf_ if step.use_idf else None)


def _tfidf_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    return _weighted(columns, step, columns.numbers(given), step.idf_ if step.use_idf else None)


def _weighted(columns: Columns, step: Any, counts: Value, idf: Array | None) -> list[Column]:
    graph = columns.graph
    if step.sublinear_tf:
        counts = sublinear(graph, counts)
    if idf is not None:
        counts = graph.add(Affine(np.asarray(idf), np.zeros(())), counts)
    return columns.made(counts if step.norm is None else graph.add(Normalize(step.norm), counts))


# -- steps of steps -------------------------------------------------------------------------------------------------


def _pipeline(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    for name, one in step.steps:
        given = transformed(columns, one, given, name)
    return given


def _column_transformer(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    made = []
    weights = step.transformer_weights or {}
    for name, one, _ in step.transformers_:
        if isinstance(one, str) and one == "drop":
            continue
        places = step._transformer_to_input_indices[name]
        if not len(places):
            continue
        part = transformed(columns, one, [given[place] for place in places], name)
        made += _times(columns, part, weights.get(name))
    return made


def _feature_union(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    made = []
    weights = step.transformer_weights or {}
    for name, one in step.transformer_list:
        made += _times(columns, transformed(columns, one, given, name), weights.get(name))
    return made


def _times(columns: Columns, part: list[Column], weight: float | None) -> list[Column]:
    if weight is None or not part:
        return part
    return _chain(columns, part, Affine(np.asarray(float(weight)), np.zeros(())))


def _network(columns: Columns, step: Any, given: list[Column]) -> list[Column]:
    """A KerasTransformer: the first half of its network."""
    inputs = read_columns(columns, step._fitted.reader, given)
    (code,) = add_model(columns.graph, step.encoder_, inputs, columns.notes)
    return columns.made(columns.graph.add(Reshape((size_of(code.shape),)), code))


_CONVERTERS: dict[str, Callable[[Columns, Any, list[Column]], list[Column]]] = {
    "Binarizer": _binarizer,
    "ColumnTransformer": _column_transformer,
    "CountVectorizer": _count_vectorizer,
    "FeatureUnion": _feature_union,
    "FunctionTransformer": _function_transformer,
    "GaussianRandomProjection": _projection,
    "KBinsDiscretizer": _k_bins,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MissingIndicator": _missing_indicator,
    "Normalizer": _normalizer,
    "OneHotEncoder": _encoder,
    "OrdinalEncoder": _encoder,
    "PCA": _pca,
    "Pipeline": _pipeline,
    "PolynomialFeatures": _polynomial_features,
    "PowerTransformer": _power_transformer,
    "QuantileTransformer": _quantile_transformer,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": _simple_imputer,
    "SparseRandomProjection": _projection,
    "SplineTransformer": _spline_transformer,
    "StandardScaler": _standard_scaler,
    "TargetEncoder": _encoder,
    "TfidfTransformer": _tfidf_transformer,
    "TfidfVectorizer": _tfidf_vectorizer,
    "TruncatedSVD": _projection,
}
