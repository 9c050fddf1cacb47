"""Scores with their spread, beside the models to beat.

A score without its spread cannot be compared, so everything here comes as a small record that carries both. Two kinds
of spread are kept apart: over folds (how much the score depends on the rows trained on) and over bootstrap resamples
of one test set (how much it depends on the rows tested on).

Predictions are made once. A bootstrap draws rows of predictions already made, by scoring a stand-in that replays
them, so that every scikit-learn scorer works, also your own, and a thousand resamples cost no further prediction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names, make_scorer

from kerastoolkit._words import near_misses, printable
from kerastoolkit.exceptions import ParameterError

__all__ = [
    "Evaluation",
    "FoldScores",
    "Score",
    "baselines",
    "bootstrap_score",
    "choose_metric",
    "evaluate",
    "metric_scorer",
    "score_on_folds",
]

Task = Literal["classification", "regression"]

_ROWS_WORTH_THREADS = 20_000

_REGRESSION_METRICS = frozenset(
    """r2 explained_variance max_error neg_mean_absolute_error neg_mean_absolute_percentage_error neg_max_error
    neg_mean_squared_error neg_mean_squared_log_error neg_median_absolute_error neg_root_mean_squared_error
    neg_root_mean_squared_log_error neg_mean_poisson_deviance neg_mean_gamma_deviance d2_absolute_error_score""".split()
)
# They compare clusterings, want several labels a row, or are ratios that a search cannot rank.
_UNFIT_METRICS = re.compile(
    r"rand_score|_info_score|(completeness|fowlkes_mallows|homogeneity|v_measure)|_samples|ratio$"
)
# Scorers of one class against the rest, which must be told the class where it is not called 1.
_POSITIVE_CLASS_METRICS = {
    "average_precision": "average_precision_score",
    "d2_brier_score": "d2_brier_score",
    "f1": "f1_score",
    "jaccard": "jaccard_score",
    "neg_brier_score": "brier_score_loss",
    "precision": "precision_score",
    "recall": "recall_score",
}
_TWO_CLASSES_ONLY = {
    "average_precision": "roc_auc_ovr",
    "f1": "f1_macro",
    "jaccard": "jaccard_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "roc_auc": "roc_auc_ovr",
}
_OTHER_NAMES = {
    "auc": "roc_auc",
    "brier": "neg_brier_score",
    "cross_entropy": "neg_log_loss",
    "log_loss": "neg_log_loss",
    "logloss": "neg_log_loss",
    "mae": "neg_mean_absolute_error",
    "mape": "neg_mean_absolute_percentage_error",
    "mcc": "matthews_corrcoef",
    "mse": "neg_mean_squared_error",
    "r2_score": "r2",
    "rmse": "neg_root_mean_squared_error",
}


@dataclass(frozen=True)
class Score:
    """One score on one test set, with the interval that resampling its rows gives.

    Attributes:
        metric: Name of the metric; greater is better.
        value: Score on all rows.
        low: Lower end of the interval, in units of the metric.
        high: Upper end of the interval.
        level: Share of the resamples inside the interval, a fraction of 1.
        n_rows: Number of rows scored.
        n_resamples: Number of resamples the interval comes from; 0 where none could be scored.
    """

    metric: str
    value: float
    low: float
    high: float
    level: float
    n_rows: int
    n_resamples: int

    def __str__(self) -> str:
        interval = f"{self.level:.0%} interval {self.low:.3f} to {self.high:.3f}"
        return f"{printable(self.metric)} {self.value:.3f} ({interval})"

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class FoldScores:
    """One model's scores over the folds of a cross-validation.

    Attributes:
        name: Name of the model, for people to read.
        metric: Name of the metric; greater is better.
        scores: Score of each fold.
        fit_seconds: Mean time of a fit, in seconds.
    """

    name: str
    metric: str
    scores: tuple[float, ...]
    fit_seconds: float

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.scores))

    @property
    def std(self) -> float:
        """Standard deviation over the folds, as scikit-learn reports it (population)."""
        return float(np.std(self.scores))

    def __str__(self) -> str:
        scores = f"{self.mean:.3f} ± {self.std:.3f} over {len(self.scores)} folds"
        return f"{printable(self.name)}: {printable(self.metric)} {scores}"

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return {**asdict(self), "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Evaluation:
    """A fitted model on rows it has not seen.

    Attributes:
        scores: Scores by metric name; the first is the one the model was chosen by.
        y_true: Targets, shape `(n_rows,)`.
        y_pred: Predictions, shape `(n_rows,)`.
        classes: Classes in the order of the probabilities, shape `(n_classes,)`; None for regression.
        y_proba: Probabilities, shape `(n_rows, n_classes)`; None where the model gives none.
    """

    scores: dict[str, Score]
    y_true: np.ndarray = field(repr=False)
    y_pred: np.ndarray = field(repr=False)
    classes: np.ndarray | None = None
    y_proba: np.ndarray | None = field(default=None, repr=False)


# --------------------------------------------------------------------------------------------------------- metrics


def choose_metric(y: np.ndarray, task: Task, metric: str | None = None) -> tuple[str, str]:
    """Settles on a metric and says why, or refuses one that cannot score the task.

    Unasked, regression is scored by R². Classes are scored by accuracy, unless the largest holds more than four rows
    in five, when answering it always would look good: then by ROC AUC (two classes) or balanced accuracy.

    Args:
        y: Target, shape `(n_rows,)`.
        task: `"classification"` or `"regression"`.
        metric: A scikit-learn scorer name. Defaults to `None`, chosen here.

    Returns:
        The scorer's name, and the reason as a clause.

    Raises:
        ParameterError: If the name is unknown (near misses are named), or the metric does not fit the task.
    """
    n_classes = len(np.unique(y)) if task == "classification" else 0
    if metric is not None:
        return _checked_metric(metric, task, n_classes), "asked for"
    if task == "regression":
        return "r2", "the usual one for regression"
    share = float(np.unique(y, return_counts=True)[1].max() / len(y))
    if share <= 0.8:
        return "accuracy", f"no class has more than {share:.0%} of the rows"
    reason = f"the largest class has {share:.0%} of the rows, which would make accuracy look good"
    return ("roc_auc" if n_classes == 2 else "balanced_accuracy"), reason


def _checked_metric(metric: str, task: Task, n_classes: int) -> str:
    known = [name for name in get_scorer_names() if not _UNFIT_METRICS.search(name)]
    usual = "r2, neg_mean_absolute_error" if task == "regression" else "accuracy, balanced_accuracy, neg_log_loss"
    if metric not in known:
        other_name = _OTHER_NAMES.get(metric.casefold().replace("-", "_"))
        found = [other_name] if other_name else near_misses(metric, known) or near_misses(f"neg_{metric}", known)
        hint = f"Did you mean {' or '.join(found)}?" if found else f"For {task} take, for instance, {usual}."
        raise ParameterError(f"There is no `metric` {metric!r} for one target. {hint}")
    if (metric in _REGRESSION_METRICS) != (task == "regression"):
        raise ParameterError(f"The `metric` {metric!r} does not score {task}. Take, for instance, {usual}.")
    if n_classes > 2 and metric in _TWO_CLASSES_ONLY:
        raise ParameterError(
            f"The `metric` {metric!r} scores two classes, and the target has {n_classes}. "
            f"Take {_TWO_CLASSES_ONLY[metric]!r}."
        )
    return metric


def metric_scorer(metric: str, classes: Sequence[Any] | np.ndarray | None = None) -> Callable[..., float]:
    """The scorer of a metric, told which of two classes is the positive one.

    scikit-learn's `f1`, `precision` and their like take the class called 1; with words as classes they fail. Here the
    positive class is the later of the two in sorted order, as everywhere in scikit-learn.

    Args:
        metric: A scikit-learn scorer name.
        classes: The classes of the target, sorted. Defaults to `None`, regression.

    Returns:
        A callable `scorer(estimator, X, y)`.
    """
    if metric not in _POSITIVE_CLASS_METRICS or classes is None or len(classes) != 2:
        usual: Callable[..., float] = get_scorer(metric)
        return usual
    import sklearn.metrics

    function = getattr(sklearn.metrics, _POSITIVE_CLASS_METRICS[metric])
    wants_proba = metric in ("average_precision", "d2_brier_score", "neg_brier_score")
    scorer: Callable[..., float] = make_scorer(
        function,
        response_method="predict_proba" if wants_proba else "predict",
        greater_is_better=metric != "neg_brier_score",
        pos_label=classes[1],
    )
    return scorer


# ------------------------------------------------------------------------------------------------------- baselines


def baselines(task: Task, prepare: BaseEstimator, *, categories: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """The models to beat, unfitted, by name: one that ignores the data, a linear one, and boosted trees.

    Args:
        task: `"classification"` or `"regression"`.
        prepare: Transformer that imputes, scales and encodes, for the linear model. It is cloned.
        categories: Names of the feature columns that hold categories; the trees take them as they are.
        seed: Seed of the models that draw numbers. Defaults to `0`.

    Returns:
        Names for people to read, and estimators that take the typed table of `kerastoolkit.data.tables.as_features`.
    """
    from sklearn.base import clone
    from sklearn.compose import ColumnTransformer
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    # The trees take at most 255 categories a column; the rarest share the last place.
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=250
    )
    encode = ColumnTransformer([("categories", encoder, list(categories))], remainder="passthrough")
    is_category = np.arange(len(categories)) if categories else None
    if task == "classification":
        return {
            "Most frequent class": DummyClassifier(strategy="prior"),
            "Logistic regression": make_pipeline(clone(prepare), LogisticRegression(max_iter=1000)),
            "Gradient boosting": make_pipeline(
                encode, HistGradientBoostingClassifier(random_state=seed, categorical_features=is_category)
            ),
        }
    return {
        "Mean of the target": DummyRegressor(),
        "Ridge regression": make_pipeline(clone(prepare), Ridge()),
        "Gradient boosting": make_pipeline(
            encode, HistGradientBoostingRegressor(random_state=seed, categorical_features=is_category)
        ),
    }


def score_on_folds(
    name: str,
    estimator: Any,
    X: Any,
    y: np.ndarray,
    *,
    folds: Iterable[tuple[np.ndarray, np.ndarray]],
    metric: str,
    scorer: Callable[..., float] | None = None,
) -> FoldScores:
    """Fits and scores a model on given folds.

    Args:
        name: Name for people to read.
        estimator: An unfitted estimator; it is cloned.
        X: Features, shape `(n_rows, n_features)`.
        y: Target, shape `(n_rows,)`.
        folds: Positions of the training rows and of the scored rows of each fold.
        metric: A scikit-learn scorer name, reported with the scores.
        scorer: The callable that scores. Defaults to `None`, the metric's own.

    Returns:
        A `FoldScores`.
    """
    from sklearn.model_selection import cross_validate

    with _threads_for(len(y)):
        found = cross_validate(estimator, X, y, cv=list(folds), scoring=scorer or get_scorer(metric))
    scores = tuple(float(score) for score in found["test_score"])
    return FoldScores(name, metric, scores, float(np.mean(found["fit_time"])))


def _threads_for(n_rows: int) -> AbstractContextManager[Any]:
    """One thread for a small table: boosted trees on several wait for each other, up to 40 times as long as they work
    where other programs hold the cores.
    """
    if n_rows > _ROWS_WORTH_THREADS:
        return nullcontext()
    limits: AbstractContextManager[Any] = import_module("threadpoolctl").threadpool_limits(1, user_api="openmp")
    return limits


# ------------------------------------------------------------------------------------------------------ evaluation


def evaluate(
    model: Any,
    X: Any,
    y: np.ndarray,
    metrics: Sequence[str] | Mapping[str, Callable[..., float]],
    *,
    level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Scores a fitted model once on rows it has not seen, each score with its interval.

    Args:
        model: A fitted estimator with `predict`, and `predict_proba` where a metric asks for it.
        X: Features, shape `(n_rows, n_features)`.
        y: Target, shape `(n_rows,)`.
        metrics: Scorer names, or names with their scorers. The first is the leading one.
        level: Share of the resamples inside the interval, a fraction of 1. Defaults to `0.95`.
        n_resamples: Number of bootstrap resamples. Defaults to `500`.
        seed: Seed of the resampling. Defaults to `0`.

    Returns:
        An `Evaluation`.
    """
    y = np.asarray(y)
    y_pred = np.asarray(model.predict(X))
    y_proba = np.asarray(model.predict_proba(X)) if hasattr(model, "predict_proba") else None
    classes = getattr(model, "classes_", None)
    replay = _replay(y_pred, y_proba, classes)
    scorers = (
        dict(metrics) if isinstance(metrics, Mapping) else {name: metric_scorer(name, classes) for name in metrics}
    )
    whole = {name: float(scorer(replay, np.arange(len(y)), y)) for name, scorer in scorers.items()}
    drawn: dict[str, list[float]] = {name: [] for name in scorers}
    for rows in _resamples(y, n_resamples, stratify=classes is not None, seed=seed):
        for name, scorer in scorers.items():
            drawn[name].append(_try_score(scorer, replay, rows, y[rows]))
    scores = {name: _with_interval(name, whole[name], drawn[name], level, len(y)) for name in scorers}
    return Evaluation(scores, y, y_pred, classes, y_proba)


def bootstrap_score(
    metric: Callable[[np.ndarray, np.ndarray], float],
    y_true: Any,
    y_pred: Any,
    *,
    stratify: bool = False,
    level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
) -> Score:
    """The score of predictions already made, with its percentile interval over resampled rows.

    Example:

    >>> from sklearn.metrics import accuracy_score
    >>> score = bootstrap_score(accuracy_score, [0, 1] * 50, [0, 1] * 45 + [1, 0] * 5)
    >>> round(score.value, 2), score.low < 0.9 < score.high
    (0.9, True)

    Args:
        metric: A function of true and predicted values; greater is better.
        y_true: True values, shape `(n_rows,)`.
        y_pred: Predictions, first axis `n_rows`.
        stratify: Whether to resample within each class, so that none is lost. Defaults to `False`.
        level: Share of the resamples inside the interval, a fraction of 1. Defaults to `0.95`.
        n_resamples: Number of resamples. Defaults to `500`.
        seed: Seed of the resampling. Defaults to `0`.

    Returns:
        A `Score` under the function's own name.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    resamples = _resamples(y_true, n_resamples, stratify=stratify, seed=seed)
    drawn = [float(metric(y_true[rows], y_pred[rows])) for rows in resamples]
    name = getattr(metric, "__name__", type(metric).__name__)
    return _with_interval(name, float(metric(y_true, y_pred)), drawn, level, len(y_true))


def _try_score(scorer: Callable[..., float], replay: Any, rows: np.ndarray, y: np.ndarray) -> float:
    try:
        return float(scorer(replay, rows, y))
    except ValueError:
        # A resample on which the metric is not defined (a negative value under a logarithm) tells nothing.
        return float("nan")


def _with_interval(name: str, value: float, drawn: Sequence[float], level: float, n_rows: int) -> Score:
    finite = np.asarray(drawn)[np.isfinite(drawn)]
    if len(finite) == 0:
        return Score(name, value, float("nan"), float("nan"), level, n_rows, 0)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Score(name, value, float(low), float(high), level, n_rows, len(finite))


def _resamples(y: np.ndarray, n_resamples: int, *, stratify: bool, seed: int) -> Iterator[np.ndarray]:
    """Row positions of one resample after the other, each of shape `(n_rows,)`."""
    generator = np.random.RandomState(seed)
    groups = [np.flatnonzero(y == label) for label in np.unique(y)] if stratify else [np.arange(len(y))]
    for _ in range(n_resamples):
        yield np.concatenate([rows[generator.randint(0, len(rows), len(rows))] for rows in groups])


class _Replay(BaseEstimator):
    """Stands in for a fitted model whose predictions are known: `X` is an array of row positions."""

    def __init__(self, y_pred: np.ndarray, y_proba: np.ndarray | None = None, classes_: np.ndarray | None = None):
        self.y_pred = y_pred
        self.y_proba = y_proba
        self.classes_ = classes_

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.y_pred[X])


class _ReplayRegressor(RegressorMixin, _Replay):
    pass


class _ReplayClassifier(ClassifierMixin, _Replay):
    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        if self.y_proba is None:
            raise ParameterError("The model gives no probabilities, which the metric asks for.")
        return np.asarray(self.y_proba[X])


def _replay(y_pred: np.ndarray, y_proba: np.ndarray | None, classes: np.ndarray | None) -> _Replay:
    kind = _ReplayRegressor if classes is None else _ReplayClassifier
    return kind(y_pred, y_proba, classes)
