"""What scikit-learn builds around estimators: pipelines, searches, ensembles, targets that are transformed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._columns import Column, Columns, eye
from kerastoolkit.export._estimators import Inputs, answers_of_fitted, read_columns
from kerastoolkit.export._graph import (
    Above,
    Add,
    Affine,
    ArgMax,
    Cast,
    Clip,
    Function,
    Graph,
    Interpolate,
    Lookup,
    MatMul,
    Reshape,
    Softmax,
    Value,
)
from kerastoolkit.export._heads import Answer, label_of, scores, shares
from kerastoolkit.export._sklearn import function_named, transformed


@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """Inputs that are no columns: images, sequences, several arrays; one estimator reads them.

    Args:
        graph: The graph.
        inputs: Values in the form in which the reader hands rows to the network.
        notes: What is to be told of the file. Defaults to none.
    """

    graph: Graph
    inputs: Inputs
    notes: list[str] = dataclasses.field(default_factory=list)


Given: TypeAlias = Whole | tuple[Columns, Sequence[Column]]


def fitted_of(estimator: Any) -> Fitted | None:
    """The record of a fitted estimator of kerastoolkit; None for anything else."""
    from kerastoolkit.estimators._base import KerasEstimator

    if not isinstance(estimator, KerasEstimator):
        return None
    _check_is_fitted(estimator)
    found: Fitted = estimator._fitted
    return found


def _check_is_fitted(estimator: Any) -> None:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


def answers_of(estimator: Any, given: Given) -> list[Answer]:
    """The answers of a fitted predictor, one a target.

    Args:
        estimator: An estimator of kerastoolkit, or one of scikit-learn around such.
        given: What it gets.

    Raises:
        ExportError: There is no counterpart in a graph; the message names the class.
        sklearn.exceptions.NotFittedError: It was not fitted.
    """
    fitted = fitted_of(estimator)
    if fitted is not None:
        if isinstance(given, Whole):
            return answers_of_fitted(given.graph, fitted, given.inputs, given.notes)
        columns, some = given
        return answers_of_fitted(
            columns.graph, fitted, read_columns(columns, fitted.reader, some), columns.notes
        )  # fmt: skip
    inner = inside(estimator)
    if inner is not estimator:
        return answers_of(inner, given)
    kind = type(estimator)
    convert = _CONVERTERS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if convert is None:
        raise ExportError(
            f"No file can hold a {kind.__name__}. Estimators of kerastoolkit can be exported, and around them "
            f"pipelines, searches, {', '.join(sorted(set(_CONVERTERS) - {'Pipeline'}))}."
        )
    _check_is_fitted(estimator)
    return convert(estimator, given)


def inside(estimator: Any) -> Any:
    """The fitted estimator that predicts for a search; any other one as it is."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection._search import BaseSearchCV

    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, BaseSearchCV) or (
            hasattr(estimator, "best_estimator_") and hasattr(estimator, "best_params_")
        ):
            _check_is_fitted(estimator)
            if not hasattr(estimator, "best_estimator_"):
                raise ExportError("The search did not fit its best candidate again. Run it with refit=True.")
            estimator = estimator.best_estimator_
        else:
            return estimator


def graph_of(given: Given) -> Graph:
    return given.graph if isinstance(given, Whole) else given[0].graph


def _pipeline(pipeline: Any, given: Given) -> list[Answer]:
    for name, step in pipeline.steps[:-1]:
        if step is None or step == "passthrough":
            continue
        if isinstance(given, Whole):
            raise ExportError(
                f"The step {name!r} ({type(step).__name__}) changes rows that are no columns; no file can hold it."
            )
        columns, some = given
        given = columns, transformed(columns, step, some, name)
    return answers_of(pipeline.steps[-1][1], given)


# -- a target that is transformed -----------------------------------------------------------------------------------


def _transformed_target(estimator: Any, given: Given) -> list[Answer]:
    graph = graph_of(given)
    (answer,) = answers_of(estimator.regressor_, given)
    values = graph.add(Cast("float64"), answer.value)
    width = values.shape[0] if values.shape else 1
    if len(values.shape) != 1:
        values = graph.add(Reshape((width or 1,)), values)
    for operation in _inverse(estimator.transformer_):
        values = graph.add(operation, values)
    if estimator._training_dim == 1:
        values = graph.add(Reshape(()), values)
    return [Answer("number", values)]


def _inverse(step: Any) -> list[Any]:
    """Operations that undo a transformer of a target."""
    name, zero = type(step).__name__, np.zeros(())
    if name == "Pipeline":
        return [operation for _, one in reversed(step.steps) for operation in _inverse(one)]
    if name == "StandardScaler":
        n = step.n_features_in_
        scale = step.scale_ if step.with_std else np.ones(n)
        return [Affine(np.asarray(scale), np.asarray(step.mean_ if step.with_mean else np.zeros(n)))]
    if name == "RobustScaler":
        n = step.n_features_in_
        scale = step.scale_ if step.with_scaling else np.ones(n)
        return [Affine(np.asarray(scale), np.asarray(step.center_ if step.with_centering else np.zeros(n)))]
    if name == "MinMaxScaler":
        return [Affine(1 / step.scale_, -step.min_ / step.scale_)]
    if name == "MaxAbsScaler":
        return [Affine(step.scale_, zero)]
    if name == "QuantileTransformer" and step.output_distribution == "uniform":
        knots = tuple(np.asarray(one) for one in step.quantiles_.T)
        return [Interpolate((step.references_,) * len(knots), knots)]
    if name == "FunctionTransformer":
        function = None if step.inverse_func is None else function_named(step.inverse_func)
        if step.inverse_func is None and step.func is None:
            return []
        if function is not None and not step.inv_kw_args:
            return [Function(function)]
    raise ExportError(
        f"The target is transformed by a {name}, which no file can undo. StandardScaler, MinMaxScaler, MaxAbsScaler, "
        "RobustScaler and functions of NumPy such as numpy.log1p and numpy.expm1 can be exported."
    )


# -- several estimators ---------------------------------------------------------------------------------------------


def _mean(graph: Graph, values: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
    """The mean of values of one shape, in float64 where one is."""
    share = np.asarray(weights if weights is not None else np.ones(len(values)), "float64")
    share = share / share.sum()
    dtype = str(np.result_type(*{value.dtype for value in values}))
    parts = []
    for value, weight in zip(values, share, strict=True):
        cast = value if value.dtype == dtype else graph.add(Cast(dtype), value)
        parts.append(graph.add(Affine(np.asarray(weight), np.zeros(())), cast))
    return graph.add(Add(), *parts)


def _probabilities_of(estimator: Any, given: Given) -> Value:
    answers = answers_of(estimator, given)
    if len(answers) != 1 or answers[0].kind != "label" or answers[0].probabilities is None:
        raise ExportError(f"A {type(estimator).__name__} inside of another has no probabilities of one target.")
    return answers[0].probabilities


def _classes(graph: Graph, probabilities: Value, classes: Any) -> list[Answer]:
    return [label_of(graph, graph.add(ArgMax(), probabilities), np.asarray(classes), probabilities)]


def _voting_classifier(estimator: Any, given: Given) -> list[Answer]:
    graph, weights = graph_of(given), estimator._weights_not_none
    if estimator.voting == "soft":
        parts = [_probabilities_of(one, given) for one in estimator.estimators_]
        return _classes(graph, _mean(graph, parts, weights), estimator.classes_)
    votes = []
    for one in estimator.estimators_:
        (answer,) = answers_of(one, given)
        if answer.number is None:
            raise ExportError(f"A {type(one).__name__} in a vote answers no single class.")
        places = np.searchsorted(np.arange(len(estimator.classes_)), np.asarray(answer.classes, "int64"))
        votes.append(graph.add(Lookup(eye(len(estimator.classes_), "float64")[places]), answer.number))
    answer = _classes(graph, _mean(graph, votes, weights), estimator.classes_)[0]
    return [answer._replace(probabilities=None)]


def _voting_regressor(estimator: Any, given: Given) -> list[Answer]:
    parts = [_number_of(one, given) for one in estimator.estimators_]
    return [Answer("number", _mean(graph_of(given), parts, estimator._weights_not_none))]


def _number_of(estimator: Any, given: Given) -> Value:
    (answer,) = answers_of(estimator, given)
    if answer.kind != "number":
        raise ExportError(f"A {type(estimator).__name__} inside of a regressor answers no number.")
    return answer.value


def _some_features(given: Given, features: Any) -> Given:
    if isinstance(given, Whole):
        return given
    columns, some = given
    return columns, [some[place] for place in features]


def _bagging_classifier(estimator: Any, given: Given) -> list[Answer]:
    graph, n_classes = graph_of(given), len(estimator.classes_)
    parts = []
    for one, features in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        part = _probabilities_of(one, _some_features(given, features))
        known = np.asarray(one.classes_, "int64")
        if len(known) != n_classes:  # the rows that it was fitted to had not all of them
            part = graph.add(MatMul(eye(n_classes, "float64")[known], np.zeros(n_classes)), part)
        parts.append(part)
    return _classes(graph, _mean(graph, parts), estimator.classes_)


def _bagging_regressor(estimator: Any, given: Given) -> list[Answer]:
    pairs = zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    parts = [_number_of(one, _some_features(given, features)) for one, features in pairs]
    return [Answer("number", _mean(graph_of(given), parts))]


def _stacked(estimator: Any, given: Given, n_classes: int) -> Given:
    """What the last estimator of a stack gets: the answers of the others, and the columns where it is told so."""
    if isinstance(given, Whole):
        columns = Columns(given.graph, [], "float64")
        columns.notes = given.notes
    else:
        columns = given[0]
    made: list[Column] = []
    for one, method in zip(estimator.estimators_, estimator.stack_method_, strict=True):
        if method == "predict_proba":
            found = columns.made(_probabilities_of(one, given))
            made += found[1:] if n_classes == 2 else found
        elif method == "predict":
            (answer,) = answers_of(one, given)
            made += columns.made(columns.graph.add(Reshape((1,)), answer.value))
        else:
            raise ExportError(f"A stack of `{method}` cannot be exported; stack_method='predict_proba' can.")
    if estimator.passthrough:
        if isinstance(given, Whole):
            raise ExportError("A stack with passthrough=True takes columns of numbers.")
        made += given[1]
    return columns, made


def _stacking_classifier(estimator: Any, given: Given) -> list[Answer]:
    graph, classes = graph_of(given), np.asarray(estimator.classes_)
    (answer,) = answers_of(estimator.final_estimator_, _stacked(estimator, given, len(classes)))
    if answer.number is None:
        raise ExportError("A stack of several targets cannot be exported.")
    return [label_of(graph, answer.number, classes[np.asarray(answer.classes, "int64")], answer.probabilities)]


def _stacking_regressor(estimator: Any, given: Given) -> list[Answer]:
    return answers_of(estimator.final_estimator_, _stacked(estimator, given, 0))


# -- probabilities made of scores -----------------------------------------------------------------------------------


def _calibrated(estimator: Any, given: Given) -> list[Answer]:
    graph, classes = graph_of(given), np.asarray(estimator.classes_)
    parts = [_calibrated_part(one, given, graph, len(classes)) for one in estimator.calibrated_classifiers_]
    return _classes(graph, _mean(graph, parts), classes)


def _calibrated_part(part: Any, given: Given, graph: Graph, n_classes: int) -> Value:
    if part.method not in ("sigmoid", "isotonic"):
        raise ExportError(f"`method` is {part.method!r}; 'sigmoid' and 'isotonic' can be exported.")
    (answer,) = answers_of(part.estimator, given)
    found = scores(graph, answer)
    if found.shape[0] != len(part.calibrators) or len(answer.classes) != n_classes:
        raise ExportError("Not all of its classifiers know all classes.")
    if part.method == "sigmoid":
        slopes = np.array([-float(one.a_) for one in part.calibrators])
        offsets = np.array([-float(one.b_) for one in part.calibrators])
        made = graph.add(Function("sigmoid"), graph.add(Affine(slopes, offsets), found))
    else:
        limits = np.array([[one.X_min_, one.X_max_] for one in part.calibrators]).T
        found = graph.add(Clip(*limits), found)
        knots = tuple(np.asarray(one.X_thresholds_, "float64") for one in part.calibrators)
        levels = tuple(np.asarray(one.y_thresholds_, "float64") for one in part.calibrators)
        made = graph.add(Interpolate(knots, levels), found)
    if n_classes == 2:
        return graph.add(MatMul(np.array([[-1.0, 1.0]]), np.array([1.0, 0.0])), made)
    return shares(graph, made)


# -- linear models, which end stacks --------------------------------------------------------------------------------


def _linear(estimator: Any, given: Given) -> Value:
    if isinstance(given, Whole):
        raise ExportError(f"A {type(estimator).__name__} takes columns of numbers.")
    columns, some = given
    coefficients = np.atleast_2d(estimator.coef_)
    bias = np.broadcast_to(np.asarray(estimator.intercept_, "float64"), (len(coefficients),))
    return columns.graph.add(MatMul(coefficients.T, bias), columns.numbers(some))


def _linear_regressor(estimator: Any, given: Given) -> list[Answer]:
    value = _linear(estimator, given)
    return [Answer("number", graph_of(given).add(Reshape(()), value) if np.ndim(estimator.coef_) == 1 else value)]


def _logistic_regression(estimator: Any, given: Given) -> list[Answer]:
    graph, value, classes = graph_of(given), _linear(estimator, given), np.asarray(estimator.classes_)
    if value.shape == (1,):
        positive = graph.add(Function("sigmoid"), value)
        made = graph.add(MatMul(np.array([[-1.0, 1.0]]), np.array([1.0, 0.0])), positive)
        number = graph.add(Reshape(()), graph.add(Above(0.0), value))
        return [label_of(graph, number, classes, made)]
    if estimator.solver == "liblinear" or getattr(estimator, "multi_class", "") == "ovr":
        return _classes(graph, shares(graph, graph.add(Function("sigmoid"), value)), classes)
    return [label_of(graph, graph.add(ArgMax(), value), classes, graph.add(Softmax(), value))]


_CONVERTERS: dict[str, Callable[[Any, Given], list[Answer]]] = {
    "BaggingClassifier": _bagging_classifier,
    "BaggingRegressor": _bagging_regressor,
    "CalibratedClassifierCV": _calibrated,
    "ElasticNet": _linear_regressor,
    "ElasticNetCV": _linear_regressor,
    "Lasso": _linear_regressor,
    "LassoCV": _linear_regressor,
    "LinearRegression": _linear_regressor,
    "LogisticRegression": _logistic_regression,
    "LogisticRegressionCV": _logistic_regression,
    "Pipeline": _pipeline,
    "Ridge": _linear_regressor,
    "RidgeCV": _linear_regressor,
    "StackingClassifier": _stacking_classifier,
    "StackingRegressor": _stacking_regressor,
    "TransformedTargetRegressor": _transformed_target,
    "VotingClassifier": _voting_classifier,
    "VotingRegressor": _voting_regressor,
}
