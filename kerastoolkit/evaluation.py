"""Scores with their spread, beside those of simple baselines.

A score without its spread cannot be compared, so everything here is a small record that has both. Two kinds of spread
are kept apart: over folds (how much the score depends on the rows trained on) and over the rows of one test set (how
much it depends on the rows tested on).

The method for an interval on test rows depends on the metric. Resampling fails for a score near its best: if all
predictions of 30 rows are right, so are those of every resample, and the interval would be 1 to 1. Shares, such as
accuracy or recall, therefore get an interval in closed form; other metrics are resampled, and every `Score` says which
method was used. Predictions are made only once: the bootstrap resamples predictions that were already made, by scoring
a stand-in that replays them, so that every scikit-learn scorer works, including your own.

Two models are compared on folds by a test that allows for the rows that folds share (`compare_on_folds`). It has three
outcomes: ahead, behind, and cannot tell.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import sklearn.metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer_names, make_scorer

from kerastoolkit._words import near_misses, printable
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = [
    "Comparison",
    "Evaluation",
    "FoldScores",
    "Score",
    "bootstrap_score",
    "choose_scoring",
    "compare_on_folds",
    "evaluate",
    "get_scorer",
    "make_baselines",
    "score_on_folds",
]

Task = Literal["classification", "regression"]
Outcome = Literal["ahead", "behind", "cannot tell"]

_MIN_ROWS_FOR_THREADS = 20_000

_REGRESSION_METRICS = frozenset(
    """r2 explained_variance max_error neg_mean_absolute_error neg_mean_absolute_percentage_error neg_max_error
    neg_mean_squared_error neg_mean_squared_log_error neg_median_absolute_error neg_root_mean_squared_error
    neg_root_mean_squared_log_error neg_mean_poisson_deviance neg_mean_gamma_deviance d2_absolute_error_score""".split()
)
# They compare clusterings, need several labels per row, or are ratios, by which a search cannot rank.
_UNFIT_METRICS = re.compile(
    r"rand_score|_info_score|(completeness|fowlkes_mallows|homogeneity|v_measure)|_samples|ratio$"
)
# Scorers of one class against the rest, which must be told that class if it is not called 1.
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
    """One score on one test set, with an interval for the score on many more rows of the same kind.

    Attributes:
        metric: Name of the metric; greater is better.
        value: Score on all rows.
        low: Lower end of the interval, in units of the metric; NaN if there is no interval.
        high: Upper end of the interval; NaN if there is none.
        confidence_level: Confidence of the interval, a fraction of 1.
        n_rows: Number of rows scored.
        n_resamples: Number of resamples behind the interval; 0 for an interval in closed form.
        method: How the interval was computed: `"Wilson"`, `"Wilson by class"`, `"Newcombe"`, `"Newcombe by class"`,
            `"bootstrap"`, `"bootstrap of groups"`, or `"none"`, as `evaluate` explains.
        n_unscored: Number of resamples that could not be scored, since a class was missing, say.
    """

    metric: str
    value: float
    low: float
    high: float
    confidence_level: float
    n_rows: int
    n_resamples: int
    method: str = "bootstrap"
    n_unscored: int = 0

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval; one without width does not count."""
        return self.low < self.high

    @property
    def how(self) -> str:
        """How the interval was computed, or why there is none, as a clause."""
        if not self.has_interval:
            why = "all resamples of the rows score the same" if self.n_resamples else "no resample could be scored"
            return f"no interval: {why}"
        if not self.n_unscored:
            return printable(self.method)
        return f"{printable(self.method)}; {self.n_unscored} of {self.n_unscored + self.n_resamples} not scored"

    def __str__(self) -> str:
        interval = (
            f"{self.confidence_level:.0%} interval {self.low:.3f} to {self.high:.3f}, " if self.has_interval else ""
        )
        return f"{printable(self.metric)} {self.value:.3f} ({interval}{self.how})"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class FoldScores:
    """One model's scores over the folds of a cross-validation.

    Attributes:
        name: Name of the model, for people to read.
        metric: Name of the metric; greater is better.
        scores: Score of each fold; NaN if the model could not be fitted or scored there.
        fit_seconds: Mean time of a fit, in seconds.
    """

    name: str
    metric: str
    scores: tuple[float, ...]
    fit_seconds: float

    @property
    def mean(self) -> float:
        """Mean over the folds; NaN if one of them has no score."""
        return float(np.mean(self.scores)) if self.is_scored else float("nan")

    @property
    def std(self) -> float:
        """Sample standard deviation over the folds (divided by one fold less than there are); NaN for a single one.

        scikit-learn's `std_test_score` is that of the population, which is smaller: by 18% with three folds.
        """
        return float(np.std(self.scores, ddof=1)) if self.is_scored and len(self.scores) > 1 else float("nan")

    @property
    def is_scored(self) -> bool:
        """Whether every fold has a score; a model that fails on some of the rows has none."""
        return len(self.scores) > 0 and bool(np.isfinite(self.scores).all())

    def __str__(self) -> str:
        name, metric, n_folds = printable(self.name), printable(self.metric), len(self.scores)
        if not self.is_scored:
            n_failed = n_folds - int(np.isfinite(self.scores).sum())
            return f"{name}: no {metric}, since {n_failed} of {n_folds} folds could not be scored"
        spread = f" ± {self.std:.3f}" if n_folds > 1 else ""
        return f"{name}: {metric} {self.mean:.3f}{spread} over {n_folds} fold{'s' * (n_folds > 1)}"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return {**asdict(self), "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Comparison:
    """Which of two models is better, as far as their scores on the same folds can tell.

    Attributes:
        first: Name of the first model, for people to read.
        second: Name of the second model.
        metric: Name of the metric; greater is better.
        outcome: `"ahead"` if the first model is better, `"behind"` if the second is, or `"cannot tell"`.
        difference: Mean over the folds of the first model's score less the second's, in units of the metric; NaN where
            there are fewer than two folds, or one has no score.
        low: Lower end of the interval of the difference; NaN if there is none, as where all scores are equal.
        high: Upper end of the interval of the difference; NaN if there is none.
        confidence_level: Confidence of the interval, a fraction of 1.
        p_value: How often two equal models would differ as much, a fraction of 1; NaN if there is none.
        n_folds: Number of folds.
        n_unscored: Number of folds on which a model has no score.
        differences: The first model's score less the second's on each fold, shape `(n_folds,)`.
    """

    first: str
    second: str
    metric: str
    outcome: Outcome
    difference: float
    low: float
    high: float
    confidence_level: float
    p_value: float
    n_folds: int
    n_unscored: int = 0
    differences: tuple[float, ...] = ()

    def __str__(self) -> str:
        first, second = printable(self.first), printable(self.second)
        of_folds = f"{self.n_folds} fold{'s' * (self.n_folds != 1)}"
        if self.n_unscored:
            which = f"one of them could not be scored on {self.n_unscored} of {of_folds}"
            return _sentence(f"{first} and {second} cannot be compared: {which}.")
        if math.isnan(self.p_value):
            return _sentence(f"{first} and {second} cannot be compared on {of_folds}.")
        if not self.difference and math.isnan(self.low):
            return _sentence(f"{first} and {second} score the same on each of {of_folds}.")
        metric = printable(self.metric.removeprefix("neg_").replace("_", " "))
        leader, other = (first, second) if self.difference >= 0 else (second, first)
        low, high = (self.low, self.high) if self.difference >= 0 else (-self.high, -self.low)
        p = f"p = {self.p_value:.2g}" if self.p_value >= 0.001 else "p < 0.001"
        by = f"by {abs(self.difference):.3g} in {metric}"
        spread = f"({self.confidence_level:.0%} interval {low:.3g} to {high:.3g}, {p}, {of_folds})"
        if self.outcome != "cannot tell":
            return _sentence(f"{leader} is ahead of {other} {by} {spread}.")
        few = "; so few folds can only show a large difference" if self.n_folds < 6 else ""
        unknown = f"the folds cannot tell whether {first} or {second} is better"
        return _sentence(f"{unknown}: {leader} leads {by}, which may be chance {spread}{few}.")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


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


def choose_scoring(y: np.ndarray, task: Task, scoring: str | None = None) -> tuple[str, str]:
    """Chooses a scorer and says why, or refuses one that cannot score the task.

    If none is given, regression is scored by R². Classification is scored by accuracy, unless more than four rows in
    five are of one class, so that always answering this class would look good: then by ROC AUC (two classes) or
    balanced accuracy.

    Args:
        y: Target, shape `(n_rows,)`.
        task: `"classification"` or `"regression"`.
        scoring: Name of a scikit-learn scorer. Defaults to `None`: it is chosen.

    Returns:
        The scorer's name, and the reason as a clause.

    Raises:
        ParameterError: If the name is unknown (near misses are named), or the scorer does not fit the task.
    """
    n_classes = len(np.unique(y)) if task == "classification" else 0
    if scoring is not None:
        return _checked_scoring(scoring, task, n_classes), "as requested"
    if task == "regression":
        return "r2", "the usual one for regression"
    share = float(np.unique(y, return_counts=True)[1].max() / len(y))
    if share <= 0.8:
        return "accuracy", f"no class has more than {share:.0%} of the rows"
    reason = f"the largest class has {share:.0%} of the rows, which would make accuracy look good"
    return ("roc_auc" if n_classes == 2 else "balanced_accuracy"), reason


def _checked_scoring(scoring: str, task: Task, n_classes: int) -> str:
    known = [name for name in get_scorer_names() if not _UNFIT_METRICS.search(name)]
    usual = "r2, neg_mean_absolute_error" if task == "regression" else "accuracy, balanced_accuracy, neg_log_loss"
    if scoring not in known:
        other_name = _OTHER_NAMES.get(scoring.casefold().replace("-", "_"))
        found = [other_name] if other_name else near_misses(scoring, known) or near_misses(f"neg_{scoring}", known)
        hint = f"Did you mean {' or '.join(found)}?" if found else f"For {task} take, for instance, {usual}."
        raise ParameterError(f"`scoring={scoring!r}` names no scikit-learn scorer for a single target. {hint}")
    if (scoring in _REGRESSION_METRICS) != (task == "regression"):
        raise ParameterError(f"`scoring={scoring!r}` does not score {task}. Take, for instance, {usual}.")
    if n_classes > 2 and scoring in _TWO_CLASSES_ONLY:
        raise ParameterError(
            f"`scoring={scoring!r}` scores two classes, and the target has {n_classes}. "
            f"Take {_TWO_CLASSES_ONLY[scoring]!r}."
        )
    return scoring


def get_scorer(scoring: str, classes: Sequence[Any] | np.ndarray | None = None) -> Callable[..., float]:
    """scikit-learn's scorer of that name, told which of two classes is the positive one.

    By themselves, `f1`, `precision` and their like look for a class called 1, and fail where the classes are words.
    Here the positive class is the later of the two in sorted order, as everywhere in scikit-learn. The log loss is told
    all classes, so that it can score rows among which one is missing.

    Args:
        scoring: Name of a scikit-learn scorer.
        classes: The classes of the target, sorted. Defaults to `None`, regression.

    Returns:
        A callable `scorer(estimator, X, y)`.
    """
    if scoring == "neg_log_loss" and classes is not None:
        log_loss: Callable[..., float] = make_scorer(
            sklearn.metrics.log_loss, response_method="predict_proba", greater_is_better=False, labels=list(classes)
        )
        return log_loss
    if scoring not in _POSITIVE_CLASS_METRICS or classes is None or len(classes) != 2:
        usual: Callable[..., float] = sklearn.metrics.get_scorer(scoring)
        return usual
    function = getattr(sklearn.metrics, _POSITIVE_CLASS_METRICS[scoring])
    wants_proba = scoring in ("average_precision", "d2_brier_score", "neg_brier_score")
    scorer: Callable[..., float] = make_scorer(
        function,
        response_method="predict_proba" if wants_proba else "predict",
        greater_is_better=scoring != "neg_brier_score",
        pos_label=classes[1],
    )
    return scorer


# ------------------------------------------------------------------------------------------------------- baselines


def make_baselines(
    task: Task, preprocessor: BaseEstimator, *, categories: Sequence[str] = (), random_state: int = 0
) -> dict[str, Any]:
    """Makes the baselines, unfitted: one that ignores the features, a linear model, and boosted trees.

    Args:
        task: `"classification"` or `"regression"`.
        preprocessor: Transformer that imputes, scales and encodes, for the linear model. It is cloned.
        categories: Names of the feature columns that hold categories; the trees take them as they are. Defaults to
            none.
        random_state: Seed of the models that draw numbers. Defaults to `0`.

    Returns:
        Estimators that take the typed table of `kerastoolkit.data.tables.as_features`, by names for people to read.
    """
    from sklearn.base import clone
    from sklearn.compose import ColumnTransformer
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    # The trees take at most 255 categories per column; the rarest share the last one.
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=250
    )
    encode = ColumnTransformer([("categories", encoder, list(categories))], remainder="passthrough")
    is_category = np.arange(len(categories)) if categories else None
    if task == "classification":
        return {
            "Most frequent class": DummyClassifier(strategy="prior"),
            "Logistic regression": make_pipeline(clone(preprocessor), LogisticRegression(max_iter=1000)),
            "Gradient boosting": make_pipeline(
                encode, HistGradientBoostingClassifier(random_state=random_state, categorical_features=is_category)
            ),
        }
    return {
        "Mean of the target": DummyRegressor(),
        "Ridge regression": make_pipeline(clone(preprocessor), Ridge()),
        "Gradient boosting": make_pipeline(
            encode, HistGradientBoostingRegressor(random_state=random_state, categorical_features=is_category)
        ),
    }


def score_on_folds(
    name: str,
    estimator: BaseEstimator,
    X: ArrayLike | pd.DataFrame,
    y: np.ndarray,
    *,
    cv: Iterable[tuple[np.ndarray, np.ndarray]],
    scoring: str,
    scorer: Callable[..., float] | None = None,
    params: Mapping[str, Any] | None = None,
) -> FoldScores:
    """Fits and scores a model on given folds.

    Args:
        name: Name for people to read.
        estimator: An unfitted estimator; it is cloned.
        X: Features, shape `(n_rows, n_features)`.
        y: Target, shape `(n_rows,)`.
        cv: Positions of the training rows and of the scored rows of each fold.
        scoring: Name of a scikit-learn scorer, which is reported with the scores.
        scorer: The callable that scores, such as `get_scorer` returns. Defaults to `None`: scikit-learn's of that name.
        params: Further arguments of `fit`; those with an entry for each row are split as the rows are. Defaults to
            `None`.

    Returns:
        A `FoldScores`; a fold on which the model could not be fitted or scored has NaN.

    Warns:
        FitFailedWarning, UserWarning: What failed, and why, as scikit-learn's `cross_validate` warns of it.
    """
    from sklearn.model_selection import cross_validate

    folds = list(cv)
    with threads_for(len(y)):
        try:
            found = cross_validate(estimator, X, y, cv=folds, scoring=scorer or scoring, params=dict(params or {}))
        except ValueError as error:
            if "fits failed" not in str(error):  # scikit-learn takes it for a mistake if all folds failed
                raise
            return FoldScores(name, scoring, (float("nan"),) * len(folds), float("nan"))
    scores = tuple(float(score) for score in found["test_score"])
    return FoldScores(name, scoring, scores, float(np.mean(found["fit_time"])))


def compare_on_folds(
    first: FoldScores | Sequence[float],
    second: FoldScores | Sequence[float],
    n_train: float,
    n_test: float,
    *,
    confidence_level: float = 0.95,
) -> Comparison:
    """Tells which of two models is better, by a paired test of their scores on the same folds.

    Folds share rows, so their scores are not independent, and the usual paired t-test takes far too many differences
    for real. Here the variance of the mean difference is `(1 / n_folds + n_test / n_train)` times that of the
    folds, after Nadeau and Bengio (2003, Inference for the generalization error, Machine Learning 52), with
    `n_folds - 1` degrees of freedom; for repeated k-fold cross-validation this is the test that Bouckaert and Frank
    (2004, PAKDD) recommend. Three folds have next to no power: repeat the cross-validation on other splits.

    Example:

    >>> a, b = [0.91, 0.93, 0.90, 0.94, 0.92, 0.93], [0.85, 0.88, 0.86, 0.87, 0.87, 0.86]
    >>> found = compare_on_folds(a, b, n_train=200, n_test=100)
    >>> found.outcome, round(found.difference, 3)
    ('ahead', 0.057)

    Args:
        first: Scores of the first model, shape `(n_folds,)`, or its `FoldScores`, which have its name.
        second: Scores of the second model on the same folds, in the same order.
        n_train: Number of rows that a fold trains on, or their mean.
        n_test: Number of rows that a fold scores, or their mean.
        confidence_level: Confidence of the interval, a fraction of 1; the outcome is "cannot tell" where the interval
            holds 0. Defaults to `0.95`.

    Returns:
        A `Comparison`. If a model has no score (NaN) on some fold, the comparison would not be fair: the outcome is
        `"cannot tell"` then, as it is for a single fold.

    Raises:
        ParameterError: If the models have different numbers of folds or metrics, or a number cannot be used.
    """
    from scipy import stats

    one, other = _named(first, "the first model"), _named(second, "the second model")
    _check_comparison(one, other, n_train, n_test, confidence_level)
    scores = np.array([one.scores, other.scores], dtype=float)
    is_scored = np.isfinite(scores).all(axis=0)
    gaps = np.where(is_scored, np.subtract(*np.where(is_scored, scores, 0.0)), math.nan)
    found = Comparison(
        first=one.name,
        second=other.name,
        metric=one.metric or other.metric or "score",
        outcome="cannot tell",
        difference=math.nan,
        low=math.nan,
        high=math.nan,
        confidence_level=confidence_level,
        p_value=math.nan,
        n_folds=len(gaps),
        n_unscored=int((~is_scored).sum()),
        differences=tuple(gaps.tolist()),
    )
    if found.n_unscored or found.n_folds < 2:
        return found
    if not gaps.any():
        return replace(found, difference=0.0, p_value=1.0)
    difference, spread = float(gaps.mean()), float(gaps.std(ddof=1))
    if spread <= 1e-12 * np.abs(scores).max():
        # Differences that are all the same say nothing about their spread: it is taken to be one row of a fold.
        spread = 1 / n_test
    error = spread * math.sqrt(1 / len(gaps) + n_test / n_train)
    margin = error * float(stats.t.ppf((1 + confidence_level) / 2, len(gaps) - 1))
    p_value = float(2 * stats.t.sf(abs(difference) / error, len(gaps) - 1))
    return replace(
        found,
        outcome="cannot tell" if p_value >= 1 - confidence_level else "ahead" if difference > 0 else "behind",
        difference=difference,
        low=difference - margin,
        high=difference + margin,
        p_value=p_value,
    )


def _named(scores: FoldScores | Sequence[float], name: str) -> FoldScores:
    return scores if isinstance(scores, FoldScores) else FoldScores(name, "", tuple(scores), math.nan)


def _check_comparison(
    one: FoldScores, other: FoldScores, n_train: float, n_test: float, confidence_level: float
) -> None:
    n_first, n_second = len(one.scores), len(other.scores)
    if n_first != n_second:
        raise ParameterError(
            f"`first` and `second` must be scored on the same folds. Got scores of {n_first} and of {n_second} folds."
        )
    if one.metric and other.metric and one.metric != other.metric:
        raise ParameterError(
            f"`first` and `second` must be scored by one metric. Got {one.metric!r} and {other.metric!r}."
        )
    for name, value in (("n_train", n_train), ("n_test", n_test)):
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"`{name}` must be a number of rows above 0. Got {value!r}.")
    _check_confidence_level(confidence_level)


def _check_confidence_level(confidence_level: float) -> None:
    if not 0 < confidence_level < 1:
        raise ParameterError(
            f"`confidence_level` must be between 0 and 1, both excluded, such as 0.95. Got {confidence_level!r}."
        )


def threads_for(n_rows: int) -> AbstractContextManager[Any]:
    """One thread for a small table: boosted trees on several threads wait for each other, up to 40 times as long as
    they work if other programs use the cores.
    """
    if n_rows > _MIN_ROWS_FOR_THREADS:
        return nullcontext()
    limits: AbstractContextManager[Any] = import_module("threadpoolctl").threadpool_limits(1, user_api="openmp")
    return limits


# ------------------------------------------------------------------------------------------------------ evaluation


def evaluate(
    estimator: BaseEstimator,
    X: ArrayLike | pd.DataFrame,
    y: np.ndarray,
    scoring: Sequence[str] | Mapping[str, Callable[..., float]],
    *,
    groups: np.ndarray | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 500,
    random_state: int = 0,
) -> Evaluation:
    """Scores a fitted estimator once on rows it has not seen, each score with its interval.

    The method for the interval depends on the metric, since resampling gives one that is too narrow for a score near
    its best or worst, and none at all for one that is there:

    - `"Wilson"`: shares of rows, which are accuracy, and with two classes recall, precision, Jaccard and F1 (which goes
      up and down with Jaccard). Wilson (1927, Journal of the American Statistical Association 22).
    - `"Wilson by class"`: means of shares, which are balanced accuracy and macro-averaged recall and precision. It is
      Wilson's interval of as many rows as a plain share of the same variance has, the effective sample size of Korn and
      Graubard (1998, Survey Methodology 24).
    - `"Newcombe"`: ROC AUC of two classes. Newcombe (2006, Statistics in Medicine 25, part 2), method 5. For
      `roc_auc_ovr`, `"Newcombe by class"`, the mean of the ends of the classes' intervals, which is on the wide side,
      since the classes share their rows.
    - `"bootstrap"`: all others, percentiles of the score on resampled rows. The rows are drawn from all, not class by
      class, since the number of rows of each class is a matter of chance, too. The percentiles lie a little further
      out, as Hesterberg (2015, The American Statistician 69) advises: by as much as the t distribution is wider than
      the normal.
    - `"bootstrap of groups"`: all metrics, if rows belong together (`groups`). Whole groups are drawn, since ten rows
      of one patient say less than ten patients; how far out the percentiles lie depends on the number of groups.
    - `"none"`: no interval, if all resamples score the same, or none could be scored.

    Args:
        estimator: A fitted estimator with `predict`, and with `predict_proba` if a metric needs it.
        X: Features, shape `(n_rows, n_features)`.
        y: Target, shape `(n_rows,)`.
        scoring: Names of scorers, or names with their scorers. The first is the leading one. A scorer of your own under
            the name of a share is resampled, unless it scores the same.
        groups: Which rows belong together, such as the patient of each, shape `(n_rows,)`. Defaults to `None`: the rows
            are independent.
        confidence_level: Confidence of the intervals, a fraction of 1. Defaults to `0.95`.
        n_resamples: Number of bootstrap resamples. Defaults to `500`.
        random_state: Seed of the resampling. Defaults to `0`.

    Returns:
        An `Evaluation`.

    Raises:
        ParameterError: If `confidence_level` is not between 0 and 1, or `groups` has another length than `y`.
    """
    _check_confidence_level(confidence_level)
    y = np.asarray(y)
    groups = None if groups is None else np.asarray(groups)
    if groups is not None and groups.shape != (len(y),):
        raise ParameterError(f"`groups` must have one entry a row: {len(y)}. Got an array of shape {groups.shape}.")
    y_pred = np.asarray(estimator.predict(X))
    y_proba = np.asarray(estimator.predict_proba(X)) if hasattr(estimator, "predict_proba") else None
    classes = getattr(estimator, "classes_", None)
    found = Evaluation({}, y, y_pred, classes, y_proba)
    replay = _replay(y_pred, y_proba, classes)
    scorers = dict(scoring) if isinstance(scoring, Mapping) else {name: get_scorer(name, classes) for name in scoring}
    for name, scorer in scorers.items():
        value = _score_rows(scorer, replay, y, np.arange(len(y)))
        if groups is None and (known := _known_interval(name, value, found, confidence_level)) is not None:
            (low, high), method = known
            found.scores[name] = Score(name, value, low, high, confidence_level, len(y), 0, method)
        else:
            score = partial(_score_rows, scorer, replay, y)
            drawn = [_try_score(score, rows) for rows in _resamples(len(y), n_resamples, random_state, of=groups)]
            n_independent = len(y) if groups is None else len(np.unique(groups))
            made = _with_interval(name, value, drawn, confidence_level, len(y), outwards=n_independent)
            is_of_groups = groups is not None and made.has_interval
            found.scores[name] = replace(made, method="bootstrap of groups") if is_of_groups else made
    return found


def bootstrap_score(
    metric: Callable[[np.ndarray, np.ndarray], float],
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    stratify: bool = False,
    confidence_level: float = 0.95,
    n_resamples: int = 500,
    random_state: int = 0,
) -> Score:
    """Scores predictions that were already made, with the percentile interval over resampled rows.

    Example:

    >>> from sklearn.metrics import accuracy_score
    >>> score = bootstrap_score(accuracy_score, [0, 1] * 50, [0, 1] * 45 + [1, 0] * 5)
    >>> round(score.value, 2), score.low < 0.9 < score.high
    (0.9, True)

    Args:
        metric: A function of true and predicted values; greater is better.
        y_true: True values, shape `(n_rows,)`.
        y_pred: Predictions, first axis `n_rows`.
        stratify: Whether to resample within each class, so that none is lost. The interval is narrower then, since the
            number of rows of each class is no longer a matter of chance. Defaults to `False`.
        confidence_level: Share of the resamples inside the interval, a fraction of 1. Defaults to `0.95`.
        n_resamples: Number of resamples. Defaults to `500`.
        random_state: Seed of the resampling. Defaults to `0`.

    Returns:
        A `Score` under the function's own name. A resample that the metric cannot score (NaN, or a `ValueError`) is
        counted in `n_unscored`. If all resamples score the same, as when every prediction is right, there is no
        interval: `low` and `high` are NaN. For shares use `evaluate`, whose intervals hold there, too.

    Raises:
        ParameterError: If `confidence_level` is not between 0 and 1.
    """
    _check_confidence_level(confidence_level)
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    value = float(metric(y_true, y_pred))
    resamples = _resamples(len(y_true), n_resamples, random_state, within=y_true if stratify else None)
    drawn = [_try_score(lambda rows: metric(y_true[rows], y_pred[rows]), rows) for rows in resamples]
    name = getattr(metric, "__name__", type(metric).__name__)
    return _with_interval(name, value, drawn, confidence_level, len(y_true))


def _score_rows(scorer: Callable[..., float], replay: BaseEstimator, y: np.ndarray, rows: np.ndarray) -> float:
    return float(scorer(replay, rows, y[rows]))


def _try_score(score: Callable[[np.ndarray], float], rows: np.ndarray) -> float:
    """The score of a resample; NaN if the metric is not defined on it (a class is missing, say)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # scikit-learn sets the score to 0 then, since the resample lacks a class.
            warnings.filterwarnings("error", ".*(No positive class found|no true samples)", UserWarning)
            return float(score(rows))
    except (ValueError, UserWarning):
        return float("nan")


def _with_interval(
    name: str, value: float, drawn: Sequence[float], confidence_level: float, n_rows: int, *, outwards: int = 0
) -> Score:
    """The percentile interval of resampled scores, widened as Hesterberg advises for so few independent rows."""
    from scipy import stats

    finite = np.asarray(drawn)[np.isfinite(drawn)]
    tail = (1 - confidence_level) / 2
    if outwards > 1:
        tail = stats.norm.cdf(math.sqrt(outwards / (outwards - 1)) * stats.t.ppf(tail, outwards - 1))
    low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (math.nan, math.nan)
    # Sums in another order differ in their last digits, and are still the same score.
    has_width = high - low > 1e-12 * max(abs(low), abs(high))
    ends, method = ((float(low), float(high)), "bootstrap") if has_width else ((math.nan, math.nan), "none")
    return Score(name, value, *ends, confidence_level, n_rows, len(finite), method, len(drawn) - len(finite))


def _resamples(
    n_rows: int, n_resamples: int, random_state: int, *, within: np.ndarray | None = None, of: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Row positions of one resample after the other: of rows, of rows within each class, or of whole groups."""
    generator = np.random.RandomState(random_state)
    if of is not None:
        members = [np.flatnonzero(of == one) for one in np.unique(of)]
        for _ in range(n_resamples):
            yield np.concatenate([members[at] for at in generator.randint(0, len(members), len(members))])
        return
    classes = [np.arange(n_rows)] if within is None else [np.flatnonzero(within == one) for one in np.unique(within)]
    for _ in range(n_resamples):
        yield np.concatenate([rows[generator.randint(0, len(rows), len(rows))] for rows in classes])


# --------------------------------------------------------------------------------------- intervals known in closed form

_Interval = tuple[float, float]


def _known_interval(
    metric: str, value: float, found: Evaluation, confidence_level: float
) -> tuple[_Interval, str] | None:
    """The interval of a metric that is a share, a mean of shares, or an area under the ROC curve; and its name."""
    if found.classes is None:
        return None
    if metric in ("roc_auc", "roc_auc_ovr"):
        return _interval_of_auc(metric, value, found, confidence_level)
    shares = _shares(metric, value, found)
    if not shares or any(n == 0 for _, n in shares):
        return None
    right, n = np.array(shares, dtype=float).T
    mean = float(np.mean(right / n))
    # A scorer of the user's own may go by the name.
    if not math.isclose(_from_share(metric, mean), value, rel_tol=1e-9, abs_tol=1e-12):
        return None
    low, high = _wilson(mean, _effective_rows(right / n, n), confidence_level)
    return (_from_share(metric, low), _from_share(metric, high)), "Wilson" if len(n) == 1 else "Wilson by class"


def _shares(metric: str, value: float, found: Evaluation) -> list[tuple[int, int]]:
    """The shares whose mean the metric is, each as the number of rows that are right and of all its rows."""
    y, y_pred = found.y_true, found.y_pred
    right = y == y_pred

    def of(rows: np.ndarray) -> tuple[int, int]:
        return int(right[rows].sum()), int(rows.sum())

    if metric == "top_k_accuracy":
        return [(round(value * len(y)), len(y))]
    if metric in ("accuracy", "f1_micro", "precision_micro", "recall_micro", "recall_weighted"):
        return [of(np.ones(len(y), bool))]
    if metric in ("balanced_accuracy", "recall_macro"):
        return [of(y == label) for label in np.unique(y)]
    if metric == "precision_macro":
        return [of(y_pred == label) for label in np.unique(y_pred)]
    if metric in ("f1", "jaccard", "precision", "recall") and found.classes is not None and len(found.classes) == 2:
        is_true, is_predicted = y == found.classes[1], y_pred == found.classes[1]
        either = is_true | is_predicted
        return [of({"precision": is_predicted, "recall": is_true}.get(metric, either))]
    return []


def _from_share(metric: str, share: float) -> float:
    """F1 from Jaccard, of which it is a function; all others are their share."""
    return 2 * share / (1 + share) if metric == "f1" else share


def _effective_rows(shares: np.ndarray, n: np.ndarray) -> float:
    """How many rows a plain share needs to have the same variance as the mean of these.

    The variance of the mean is estimated in two ways: from the shares themselves, and, since they say nothing about it
    if they are all right, as if each were their mean; the fewer rows count.
    """
    mean, n_if_equal = float(np.mean(shares)), len(n) ** 2 / float(np.sum(1 / n))
    variance = float(np.sum(shares * (1 - shares) / n)) / len(n) ** 2
    return min(n_if_equal, mean * (1 - mean) / variance) if variance else n_if_equal


def _wilson(share: float, n: float, confidence_level: float) -> _Interval:
    """Wilson's interval, also of a number of rows that is not whole, which `scipy.stats.binomtest` does not take."""
    from scipy import stats

    z2 = float(stats.norm.ppf((1 + confidence_level) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _interval_of_auc(
    metric: str, value: float, found: Evaluation, confidence_level: float
) -> tuple[_Interval, str] | None:
    from sklearn.metrics import roc_auc_score

    if found.y_proba is None or found.classes is None or (metric == "roc_auc") != (len(found.classes) == 2):
        return None
    of_classes = [1] if metric == "roc_auc" else range(len(found.classes))
    masks = [found.y_true == found.classes[at] for at in of_classes]
    if any(mask.all() or not mask.any() for mask in masks):
        return None
    areas = [float(roc_auc_score(mask, found.y_proba[:, at])) for at, mask in zip(of_classes, masks, strict=True)]
    if not math.isclose(float(np.mean(areas)), value, rel_tol=1e-9):
        return None
    ends = [
        _newcombe(area, int(m.sum()), int((~m).sum()), confidence_level) for area, m in zip(areas, masks, strict=True)
    ]
    low, high = (float(one) for one in np.mean(ends, axis=0))
    return (low, high), "Newcombe" if len(ends) == 1 else "Newcombe by class"


def _newcombe(area: float, n_positive: int, n_negative: int, confidence_level: float) -> _Interval:
    """The areas whose own standard error reaches to the one found, which has a width at 1 as well."""
    from scipy import stats
    from scipy.optimize import brentq

    z, n = stats.norm.ppf((1 + confidence_level) / 2), (n_positive + n_negative) / 2 - 1

    def beyond(a: float) -> float:
        spread = 1 + n * (1 - a) / (2 - a) + n * a / (1 + a)
        return float((a - area) ** 2 - z**2 * a * (1 - a) * spread / (n_positive * n_negative))

    low = 0.0 if area <= 0 else float(brentq(beyond, 0.0, min(area, 1 - 1e-12)))
    high = 1.0 if area >= 1 else float(brentq(beyond, max(area, 1e-12), 1.0))
    return low, high


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
            raise ParameterError("A metric needs probabilities, and the model has no `predict_proba`.")
        return np.asarray(self.y_proba[X])


def _replay(y_pred: np.ndarray, y_proba: np.ndarray | None, classes: np.ndarray | None) -> _Replay:
    kind = _ReplayRegressor if classes is None else _ReplayClassifier
    return kind(y_pred, y_proba, classes)
