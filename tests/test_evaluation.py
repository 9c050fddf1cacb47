"""Scores with their spread, the models to beat, and comparisons.

What intervals and comparisons promise is tried on simulated truth, a little of it. `KERASTOOLKIT_TEST_SIMULATIONS=20`
asks for twenty times as much.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, make_scorer, r2_score, roc_auc_score
from sklearn.model_selection import KFold, RepeatedStratifiedKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit.evaluation import (
    FoldScores,
    bootstrap_score,
    choose_scoring,
    compare_on_folds,
    evaluate,
    get_scorer,
    make_baselines,
    score_on_folds,
)
from kerastoolkit.exceptions import ParameterError

SIMULATIONS = int(os.environ.get("KERASTOOLKIT_TEST_SIMULATIONS", "1"))
Z = stats.norm.ppf(0.975)


def _cancer() -> tuple[np.ndarray, np.ndarray]:
    data = load_breast_cancer()
    return StandardScaler().fit_transform(data.data), data.target_names[data.target]


def test_every_metric_of_two_classes_scores_words() -> None:
    # scikit-learn's own f1, precision and their like fail here: no class is called 1.
    X, y = _cancer()
    model = LogisticRegression().fit(X[:400], y[:400])
    names = ("accuracy", "average_precision", "f1", "jaccard", "neg_brier_score", "neg_log_loss", "precision", "recall",
             "roc_auc")  # fmt: skip
    found = evaluate(model, X[400:], y[400:], names, n_resamples=20)
    assert list(found.scores) == list(names)
    assert found.scores["f1"].value == f1_score(y[400:], model.predict(X[400:]), pos_label="malignant")
    for score in found.scores.values():
        assert np.isfinite([score.value, score.low, score.high]).all()
        assert score.low < score.value <= score.high and score.low < score.high
        resampled = score.metric in ("average_precision", "neg_brier_score", "neg_log_loss")
        assert (score.n_rows, score.n_resamples) == (169, 20 * resampled)
        assert (score.method == "bootstrap") == resampled


def test_scores_are_those_of_scikit_learn() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = Ridge().fit(X, y)
    found = evaluate(model, X, y, ["r2", "neg_mean_absolute_error"], n_resamples=10)
    for name, score in found.scores.items():
        assert score.value == pytest.approx(sklearn.metrics.get_scorer(name)(model, X, y))
    assert found.classes is None and found.y_proba is None


def test_the_interval_narrows_as_rows_grow_and_follows_the_seed() -> None:
    generator = np.random.RandomState(0)

    def width(n_rows: int, seed: int = 0) -> float:
        y = generator.randint(0, 2, n_rows)
        right = generator.rand(n_rows) < 0.9
        score = bootstrap_score(accuracy_score, y, np.where(right, y, 1 - y), stratify=True, random_state=seed)
        return score.high - score.low

    # The standard error of a share of 0.9 in n rows, twice on each side.
    assert width(100) == pytest.approx(4 * 0.03, rel=0.4)
    assert width(2500) == pytest.approx(4 * 0.006, rel=0.4)
    y = np.arange(50) % 2
    once, again, other = (bootstrap_score(accuracy_score, y, y[::-1] * 0, random_state=seed) for seed in (1, 1, 2))
    assert once == again != other


class Answers(ClassifierMixin, BaseEstimator):
    """A fitted classifier that gives the answers it was made with."""

    def __init__(self, predicted: Any, probability: Any = None, classes: Any = (0, 1)) -> None:
        self.predicted, self.probability, self.classes_ = np.asarray(predicted), probability, np.array(classes)

    def predict(self, X: Any) -> np.ndarray:
        return self.predicted

    def predict_proba(self, X: Any) -> np.ndarray:
        p = self.predicted.astype(float) if self.probability is None else self.probability
        return p if np.ndim(p) == 2 else np.c_[1 - p, p]


def _scored(y: Any, predicted: Any, *metrics: str, **options: Any) -> Any:
    model = Answers(predicted, options.pop("probability", None), np.unique(y))
    return evaluate(model, np.zeros((len(y), 1)), np.asarray(y), metrics, **options).scores


def _share_that_is_right(model: Any, X: Any, y: Any) -> float:
    return float(np.mean(model.predict(X) == y))


def test_a_score_at_its_best_has_an_interval_of_some_width_or_none() -> None:
    # 69 rows, all right: every resample is all right, too, and its interval was 1.000 to 1.000.
    y = np.arange(69) % 3 == 0
    scores = _scored(y, y, "accuracy", "recall", "f1", "roc_auc", "balanced_accuracy", "matthews_corrcoef",
                     n_resamples=40)  # fmt: skip
    assert [(round(scores[name].low, 9), scores[name].high) for name in ("accuracy", "recall")] == [
        (round(n / (n + Z**2), 9), 1.0) for n in (69, 23)
    ]
    assert str(scores["accuracy"]) == "accuracy 1.000 (95% interval 0.947 to 1.000, Wilson)"
    assert 0.8 < scores["f1"].low < 0.95 and 0.8 < scores["roc_auc"].low < 1 and scores["roc_auc"].high == 1
    assert scores["roc_auc"].method == "Newcombe" and scores["balanced_accuracy"].method == "Wilson by class"
    unknown = scores["matthews_corrcoef"]
    assert not unknown.has_interval and math.isnan(unknown.low) and unknown.method == "none"
    assert str(unknown) == "matthews_corrcoef 1.000 (no interval: all resamples of the rows score the same)"
    assert str(bootstrap_score(r2_score, [1.0, 2, 3], [1.0, 2, 3])).startswith("r2_score 1.000 (no interval: all resam")
    # At its worst alike.
    worst = _scored(y, ~y, "accuracy", "roc_auc")
    assert (worst["accuracy"].low, worst["roc_auc"].low) == (0, 0)
    assert worst["accuracy"].high == pytest.approx(Z**2 / (69 + Z**2)) and 0 < worst["roc_auc"].high < 0.2


def test_intervals_of_shares_are_those_of_the_formulas() -> None:
    generator = np.random.default_rng(0)
    y, predicted = generator.integers(0, 3, (2, 200))
    predicted = np.where(generator.random(200) < 0.7, y, predicted)
    found = _scored(y, predicted, "accuracy", "balanced_accuracy", "recall_macro", "precision_macro", "f1_micro",
                    "recall_weighted", "f1_macro", "roc_auc_ovr", probability=np.eye(3)[predicted],
                    n_resamples=40)  # fmt: skip
    assert [score.method for score in found.values()] == [
        "Wilson", "Wilson by class", "Wilson by class", "Wilson by class", "Wilson", "Wilson", "bootstrap",
        "Newcombe by class",
    ]  # fmt: skip

    def wilson(n_right: float, n: int) -> Any:
        found = stats.binomtest(int(n_right), n).proportion_ci(method="wilson")
        return pytest.approx([found.low, found.high])

    assert [found["accuracy"].low, found["accuracy"].high] == wilson(np.sum(y == predicted), 200)
    assert found["f1_micro"].low == found["recall_weighted"].low == found["accuracy"].low
    # The ends are as many standard errors away as they would be for a plain share of that variance.
    recalls, n = np.array([(np.mean(predicted[y == label] == label), np.sum(y == label)) for label in range(3)]).T
    mean, variance = recalls.mean(), np.sum(recalls * (1 - recalls) / n) / 9
    n_rows = min(mean * (1 - mean) / variance, 9 / np.sum(1 / n))
    for end in (found["balanced_accuracy"].low, found["balanced_accuracy"].high):
        assert abs(end - mean) == pytest.approx(Z * math.sqrt(end * (1 - end) / n_rows))
    assert found["balanced_accuracy"].low == pytest.approx(mean - Z * math.sqrt(variance), abs=0.01)
    # F1 is 2 J / (1 + J), where J is the share of rows that are right among those that are or are called positive.
    two = _scored(y > 0, predicted > 0, "f1", "jaccard", "precision")
    ends = np.array([two["jaccard"].low, two["jaccard"].high])
    assert [two["f1"].low, two["f1"].high] == pytest.approx(2 * ends / (1 + ends))
    n_predicted, n_right = np.sum(predicted > 0), np.sum(y[predicted > 0] > 0)
    assert [two["precision"].low, two["precision"].high] == wilson(n_right, n_predicted)


def test_the_interval_of_roc_auc_ends_where_the_area_found_is_z_standard_errors_away() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(90) % 3 == 0
    logit = generator.normal(size=90) + y
    probability = 1 / (1 + np.exp(-logit))
    score = _scored(y, logit > 0.5, "roc_auc", probability=probability)["roc_auc"]
    area = roc_auc_score(y, logit)
    for end in (score.low, score.high):
        spread = 1 + 44 * (1 - end) / (2 - end) + 44 * end / (1 + end)  # (30 + 60) / 2 - 1
        assert abs(end - area) == pytest.approx(Z * math.sqrt(end * (1 - end) * spread / (30 * 60)), rel=1e-6)
    assert score.low < area < score.high


def test_resamples_are_drawn_from_all_rows() -> None:
    # Of 216 rows of one class one is wrong, of 12 of the other 11 are: by class, .934 to .961.
    y = np.repeat([0, 1], [216, 12])
    predicted = np.r_[1, np.zeros(226, int), 1]
    assert np.mean(y == predicted) == pytest.approx(216 / 228)
    own = {"mine": _share_that_is_right, "accuracy": make_scorer(f1_score, average="micro")}
    scores = evaluate(Answers(predicted), np.zeros((228, 1)), y, own, n_resamples=2000).scores
    assert (scores["mine"].low, scores["mine"].high) == pytest.approx((0.917, 0.974), abs=0.006)
    by_class = bootstrap_score(accuracy_score, y, predicted, stratify=True)
    assert (by_class.low, by_class.high) == pytest.approx((0.934, 0.961), abs=0.006)
    # A scorer by the name of a share that is another one is not taken for it.
    assert scores["accuracy"].method == "Wilson"
    other = {"accuracy": make_scorer(f1_score, average="macro")}
    scores = evaluate(Answers(predicted), np.zeros((228, 1)), y, other, n_resamples=20).scores
    assert scores["accuracy"].method == "bootstrap"


def test_a_class_that_a_resample_lacks_is_told_by_the_number_of_resamples() -> None:
    y = np.array(["a"] * 59 + ["b", "a", "b"])
    X = np.linspace(0, 1, 62)[:, None]
    model = LogisticRegression().fit(X, y)
    found = evaluate(model, X, y, ["average_precision", "neg_log_loss"], n_resamples=200).scores
    lacking, scored = found["average_precision"].n_unscored, found["average_precision"].n_resamples
    assert lacking + scored == 200 and 10 < lacking < 45  # (60 / 62)^62 of them, which is 13%
    assert str(found["average_precision"]).endswith(f", bootstrap; {lacking} of 200 not scored)")
    assert (found["neg_log_loss"].n_resamples, found["neg_log_loss"].n_unscored) == (200, 0)


def test_rows_that_belong_together_are_drawn_together() -> None:
    # Thirty rows of each of ten patients, alike: they tell as much as ten rows.
    right = np.repeat([True] * 7 + [False] * 3, 30)
    y = np.arange(300) % 2
    patient = np.repeat(np.arange(10), 30)
    predicted = np.where(right, y, 1 - y)
    own = {"accuracy": _share_that_is_right}
    found = evaluate(Answers(predicted), np.zeros((300, 1)), y, own, groups=patient, n_resamples=2000)
    together = found.scores["accuracy"]
    alone = _scored(y, predicted, "accuracy")["accuracy"]
    assert together.method == "bootstrap of groups" and (together.n_rows, together.value) == (300, 0.7)
    tail = stats.norm.cdf(stats.t.ppf(0.025, 9) * math.sqrt(10 / 9))
    assert [together.low, together.high] == pytest.approx(stats.binom.ppf([tail, 1 - tail], 10, 0.7) / 10)
    assert together.high - together.low > 4 * (alone.high - alone.low)
    with pytest.raises(ParameterError, match=r"`groups` must have one entry a row: 300. Got an array of shape \(2,\)"):
        _scored(y, predicted, "accuracy", groups=[1, 2])


def test_a_metric_that_is_not_defined_on_resamples_says_so_by_their_number() -> None:
    def never(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float("nan") if len(np.unique(y_true)) < 3 else 1.0

    score = bootstrap_score(never, [1, 2, 3], [1, 2, 3], n_resamples=50)
    assert score.value == 1.0
    assert 0 < score.n_resamples < 50 and score.n_unscored == 50 - score.n_resamples
    alone = bootstrap_score(never, [1, 2, 2], [1, 2, 2], n_resamples=50)
    assert str(alone) == "never nan (no interval: no resample could be scored)"


@pytest.mark.parametrize(
    ("y", "task", "metric"),
    [
        ([0, 1] * 50, "classification", "accuracy"),
        ([0] * 90 + [1] * 10, "classification", "roc_auc"),
        ([0] * 180 + [1] * 10 + [2] * 10, "classification", "balanced_accuracy"),
        ([0.5, 1.5], "regression", "r2"),
    ],
)
def test_the_metric_suits_the_target(y: list[float], task: str, metric: str) -> None:
    assert choose_scoring(np.array(y), task)[0] == metric  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "task", "message"),
    [
        ("acuracy", "classification", "`scoring='acuracy'` names no scikit-learn scorer .*Did you mean accuracy"),
        ("rmse", "regression", "Did you mean neg_root_mean_squared_error"),
        ("mean_absolute_error", "regression", "Did you mean neg_mean_absolute_error"),
        ("r2", "classification", "does not score classification"),
        ("accuracy", "regression", "does not score regression. Take, for instance, r2"),
        ("roc_auc", "classification", "scores two classes, and the target has 3. Take 'roc_auc_ovr'"),
        ("v_measure_score", "classification", "`scoring='v_measure_score'` names no"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric: str, task: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        choose_scoring(np.array([0, 1, 2] * 5), task, metric)  # type: ignore[arg-type]


def test_simple_models_take_categories_and_blanks() -> None:
    generator = np.random.RandomState(0)
    kind = generator.choice(["a", "b", "c"], 300).astype(object)
    size = generator.rand(300)
    y = (kind == "a") * 3.0 + size
    kind[::17], size[::13] = np.nan, np.nan
    X = pd.DataFrame({"size": size, "kind": kind})

    from kerastoolkit.data.tables import describe_columns
    from kerastoolkit.experiment._models import make_preprocessor

    prepare = make_preprocessor(describe_columns(X), X)
    folds = list(KFold(3).split(X))
    scores = {
        name: score_on_folds(name, model, X, y, cv=folds, scoring="r2")
        for name, model in make_baselines("regression", prepare, categories=["kind"]).items()
    }
    assert [len(found.scores) for found in scores.values()] == [3, 3, 3]
    assert scores["Mean of the target"].mean < 0.01
    assert scores["Ridge regression"].mean > 0.8
    assert scores["Gradient boosting"].mean > 0.8


def test_simple_models_of_classes() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    models = make_baselines("classification", StandardScaler())
    means = [score_on_folds(name, m, X, y, cv=folds, scoring="accuracy").mean for name, m in models.items()]
    assert means[0] == pytest.approx(1 / 3, abs=0.02)
    assert min(means[1:]) > 0.9


def test_records_read_well() -> None:
    scores = FoldScores("Ridge", "r2", (0.4, 0.6), 0.1)
    assert (scores.mean, scores.std) == (0.5, pytest.approx(0.1 * math.sqrt(2)))  # the sample's
    assert str(scores) == "Ridge: r2 0.500 ± 0.141 over 2 folds"
    assert str(FoldScores("Ridge", "r2", (0.4,), 0.1)) == "Ridge: r2 0.400 over 1 fold"
    failed = FoldScores("Ridge", "r2", (0.4, math.nan, 0.6), 0.1)
    assert str(failed) == "Ridge: no r2, since 1 of 3 folds could not be scored" and math.isnan(failed.mean)
    assert str(bootstrap_score(r2_score, [1.0, 2.0, 3.0], [1.0, 2.5, 3.0])).startswith("r2_score 0.875 (95% interval")
    with pytest.raises(ParameterError, match="`confidence_level` must be between 0 and 1, both excluded.* Got 95"):
        bootstrap_score(r2_score, [1.0, 2.0], [1.0, 2.0], confidence_level=95)


def test_a_pipeline_is_evaluated_through_its_last_step() -> None:
    X, y = _cancer()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert evaluate(model, X, y, {"mine": get_scorer("f1", np.unique(y))}, n_resamples=5).scores["mine"].value > 0.9


# --------------------------------------------------------------------------------------------------------- comparisons


def test_a_comparison_is_the_paired_t_test_with_the_variance_of_folds_that_overlap() -> None:
    a = FoldScores("ridge", "neg_log_loss", (-0.31, -0.28, -0.35, -0.30, -0.29), 0.1)
    b = FoldScores("boosting", "neg_log_loss", (-0.36, -0.30, -0.37, -0.39, -0.36), 0.1)
    found = compare_on_folds(a, b, n_train=80, n_test=20)
    usual = stats.ttest_rel(a.scores, b.scores)
    t = usual.statistic / math.sqrt(1 + 5 * 20 / 80)
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 4)) and found.p_value > 2 * usual.pvalue
    ends = usual.confidence_interval()
    half = (ends.high - ends.low) / 2 * math.sqrt(1 + 5 * 20 / 80)
    assert [found.low, found.difference, found.high] == pytest.approx([0.05 - half, 0.05, 0.05 + half])
    assert found.outcome == "cannot tell"  # where the usual test is sure, with p = .015
    assert str(found) == (
        "The folds cannot tell whether ridge or boosting is better: ridge leads by 0.05 in log loss, which may be "
        f"chance (95% interval {found.low:.3g} to {found.high:.3g}, p = {found.p_value:.2g}, 5 folds); so few folds "
        "can only show a large difference."
    )
    less_sure = compare_on_folds(a, b, n_train=80, n_test=20, confidence_level=0.8)
    assert less_sure.outcome == "ahead" and less_sure.low > 0
    assert str(less_sure).startswith("Ridge is ahead of boosting by 0.05 in log loss (80% interval 0.0")
    other_way = compare_on_folds(b, a, n_train=80, n_test=20, confidence_level=0.8)
    assert other_way.outcome == "behind" and str(other_way) == str(less_sure)


@pytest.mark.parametrize(
    ("first", "second", "outcome", "said"),
    [
        # .817 against .893 on three folds was called level, and .02 by one standard deviation was called ahead.
        ((0.80, 0.82, 0.83), (0.89, 0.90, 0.89), "behind", "second model is ahead of the first model by 0.0767"),
        ((0.90, 0.93, 0.92), (0.89, 0.89, 0.91), "cannot tell", "so few folds can only show a large difference"),
        ((0.9, math.nan, 0.9), (0.1, 0.1, 0.1), "cannot tell", "one of them could not be scored on 1 of 3 folds"),
        ((0.9, math.inf), (0.1, -math.inf), "cannot tell", "one of them could not be scored on 1 of 2 folds"),
        ((0.9,), (0.1,), "cannot tell", "cannot be compared on 1 fold"),
        ((), (), "cannot tell", "cannot be compared on 0 folds"),
        ((0.5, 0.7), (0.5, 0.7), "cannot tell", "score the same on each of 2 folds"),
        # Folds that differ by one row each say little, however equal the differences are.
        ((0.9, 0.9, 0.9), (0.8, 0.8, 0.8), "cannot tell", "leads by 0.1"),
        ((1.0, 1.0, 1.0), (0.3, 0.3, 0.3), "ahead", "ahead of the second model by 0.7"),
    ],
)
def test_a_comparison_has_three_outcomes(first: Any, second: Any, outcome: str, said: str) -> None:
    found = compare_on_folds(first, second, n_train=20, n_test=10)
    assert found.outcome == outcome and said in str(found)
    assert (found.low > 0) == (outcome == "ahead") and (found.high < 0) == (outcome == "behind")


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = FoldScores("a", "r2", (1, 2), 0), FoldScores("b", "neg_log_loss", (1, 2), 0)
    for words, arguments in (
        ("same folds. Got scores of 2 and of 3 folds", ([1, 2], [1, 2, 3], 2, 1)),
        ("by one metric. Got 'r2' and 'neg_log_loss'", (a, b, 2, 1)),
        ("`n_test` must be a number of rows above 0. Got 0", (a, a, 2, 0)),
        ("`n_train` must be a number of rows above 0. Got nan", (a, a, math.nan, 1)),
    ):
        with pytest.raises(ParameterError, match=words):
            compare_on_folds(*arguments)


def test_a_model_that_fails_has_no_score() -> None:
    class Fails(LogisticRegression):
        def fit(self, X: Any, y: Any) -> Any:
            raise ValueError("no")

    X, y = _cancer()
    found = score_on_folds("Fails", Fails(), X, y, cv=KFold(3).split(X), scoring="accuracy")
    assert len(found.scores) == 3 and not found.is_scored and math.isnan(found.std)


# ------------------------------------------------------------------------------------------------------ simulated truth


@pytest.mark.parametrize("n_rows", [30, 100, 1000])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.5, 0.95, 0.98])
def test_intervals_of_shares_hold_the_truth_as_often_as_they_say(share: float, n_rows: int) -> None:
    # Not drawn: every number of right rows that there can be, as often as there is.
    y, covered = np.arange(n_rows) % 2, 0.0
    for n_right in range(n_rows + 1):
        if (probability := stats.binom.pmf(n_right, n_rows, share)) > 1e-5:
            score = _scored(y, np.where(np.arange(n_rows) < n_right, y, 1 - y), "accuracy")["accuracy"]
            covered += probability * (score.low <= share <= score.high)
    assert 0.93 <= covered <= 0.98


@pytest.mark.parametrize("n_rows", [30, 100])
def test_intervals_of_balanced_accuracy_and_roc_auc_hold_the_truth_about_as_often(n_rows: int) -> None:
    generator = np.random.default_rng(n_rows)
    n, hits = 100 * SIMULATIONS, np.zeros(2)
    for _ in range(n):
        y = generator.permutation(np.arange(n_rows) % 2)
        right = generator.random(n_rows) < np.where(y == 0, 0.98, 0.9)
        probability = stats.norm.cdf(generator.normal(size=n_rows) + 2 * y - 1)
        found = _scored(y, np.where(right, y, 1 - y), "balanced_accuracy", "roc_auc", probability=probability)
        # Of normal scores two standard deviations apart the area is Phi(2 / sqrt 2).
        truths = 0.94, stats.norm.cdf(2 / math.sqrt(2))
        hits += [score.low <= truth <= score.high for score, truth in zip(found.values(), truths, strict=True)]
    # Three standard errors of the simulation beyond what is promised.
    assert hits.min() / n >= 0.93 - 3 * math.sqrt(0.07 * 0.93 / n)


def test_equal_models_are_seldom_called_different_and_others_often() -> None:
    generator = np.random.default_rng(0)
    n_pairs, called, found = 100 * SIMULATIONS, 0, 0

    def score(X: np.ndarray, y: np.ndarray, folds: list[Any]) -> list[float]:
        fits = [(np.linalg.lstsq(X[train], y[train] - 0.5, rcond=None)[0], test) for train, test in folds]
        return [float(np.mean((X[test] @ weights > 0) == y[test])) for weights, test in fits]

    for pair in range(n_pairs):
        # Two sets of features that tell equally much, and a third that tells nothing.
        X = generator.normal(size=(200, 6))
        y = (X[:, :4].sum(axis=1) + generator.normal(size=200) > 0).astype(int)
        folds = list(RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=pair).split(X, y))
        one, other, blind = (score(X[:, columns], y, folds) for columns in ([0, 1], [2, 3], [4, 5]))
        called += compare_on_folds(one, other, 400 / 3, 200 / 3).outcome != "cannot tell"
        found += compare_on_folds(one, blind, 400 / 3, 200 / 3).outcome == "ahead"
    # At most 5 of 100, and three standard errors of the simulation.
    assert called / n_pairs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_pairs)
    assert found / n_pairs >= 0.8
