"""Scores with their spread, and the models to beat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, get_scorer, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit.evaluation import (
    FoldScores,
    baselines,
    bootstrap_score,
    choose_metric,
    evaluate,
    metric_scorer,
    score_on_folds,
)
from kerastoolkit.exceptions import ParameterError


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
        assert score.low <= score.value <= score.high
        assert (score.n_rows, score.n_resamples) == (169, 20)


def test_scores_are_those_of_scikit_learn() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = Ridge().fit(X, y)
    found = evaluate(model, X, y, ["r2", "neg_mean_absolute_error"], n_resamples=10)
    for name, score in found.scores.items():
        assert score.value == pytest.approx(get_scorer(name)(model, X, y))
    assert found.classes is None and found.y_proba is None


def test_the_interval_narrows_as_rows_grow_and_follows_the_seed() -> None:
    generator = np.random.RandomState(0)

    def width(n_rows: int, seed: int = 0) -> float:
        y = generator.randint(0, 2, n_rows)
        right = generator.rand(n_rows) < 0.9
        score = bootstrap_score(accuracy_score, y, np.where(right, y, 1 - y), stratify=True, seed=seed)
        return score.high - score.low

    # The standard error of a share of 0.9 in n rows, twice on each side.
    assert width(100) == pytest.approx(4 * 0.03, rel=0.4)
    assert width(2500) == pytest.approx(4 * 0.006, rel=0.4)
    y = np.arange(50) % 2
    once, again, other = (bootstrap_score(accuracy_score, y, y[::-1] * 0, seed=seed) for seed in (1, 1, 2))
    assert once == again != other


def test_a_small_class_is_in_every_resample() -> None:
    y = np.array(["a"] * 60 + ["b"] * 2)
    X = np.linspace(0, 1, 62)[:, None]
    model = LogisticRegression().fit(X, y)
    assert evaluate(model, X, y, ["roc_auc"], n_resamples=200).scores["roc_auc"].n_resamples == 200


def test_a_metric_that_is_not_defined_on_resamples_says_so_by_their_number() -> None:
    def never(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float("nan") if len(np.unique(y_true)) < 3 else 1.0

    score = bootstrap_score(never, [1, 2, 3], [1, 2, 3], n_resamples=50)
    assert score.value == 1.0
    assert 0 < score.n_resamples < 50


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
    assert choose_metric(np.array(y), task)[0] == metric  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "task", "message"),
    [
        ("acuracy", "classification", "no `metric` 'acuracy' for one target. Did you mean accuracy"),
        ("rmse", "regression", "Did you mean neg_root_mean_squared_error"),
        ("mean_absolute_error", "regression", "Did you mean neg_mean_absolute_error"),
        ("r2", "classification", "does not score classification"),
        ("accuracy", "regression", "does not score regression. Take, for instance, r2"),
        ("roc_auc", "classification", "scores two classes, and the target has 3. Take 'roc_auc_ovr'"),
        ("v_measure_score", "classification", "no `metric` 'v_measure_score'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric: str, task: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        choose_metric(np.array([0, 1, 2] * 5), task, metric)  # type: ignore[arg-type]


def test_simple_models_take_categories_and_blanks() -> None:
    generator = np.random.RandomState(0)
    kind = generator.choice(["a", "b", "c"], 300).astype(object)
    size = generator.rand(300)
    y = (kind == "a") * 3.0 + size
    kind[::17], size[::13] = np.nan, np.nan
    X = pd.DataFrame({"size": size, "kind": kind})

    from kerastoolkit.data.tables import describe_columns
    from kerastoolkit.experiment import _preparation

    prepare = _preparation(describe_columns(X), X)
    folds = list(KFold(3).split(X))
    scores = {
        name: score_on_folds(name, model, X, y, folds=folds, metric="r2")
        for name, model in baselines("regression", prepare, categories=["kind"]).items()
    }
    assert [len(found.scores) for found in scores.values()] == [3, 3, 3]
    assert scores["Mean of the target"].mean < 0.01
    assert scores["Ridge regression"].mean > 0.8
    assert scores["Gradient boosting"].mean > 0.8


def test_simple_models_of_classes() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    models = baselines("classification", StandardScaler())
    means = [score_on_folds(name, m, X, y, folds=folds, metric="accuracy").mean for name, m in models.items()]
    assert means[0] == pytest.approx(1 / 3, abs=0.02)
    assert min(means[1:]) > 0.9


def test_records_read_well() -> None:
    scores = FoldScores("Ridge", "r2", (0.4, 0.6), 0.1)
    assert (scores.mean, scores.std) == (0.5, pytest.approx(0.1))
    assert str(scores) == "Ridge: r2 0.500 ± 0.100 over 2 folds"
    score = bootstrap_score(r2_score, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert str(score).startswith("r2_score 1.000 (95% interval")


def test_a_pipeline_is_evaluated_through_its_last_step() -> None:
    X, y = _cancer()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert evaluate(model, X, y, {"mine": metric_scorer("f1", np.unique(y))}, n_resamples=5).scores["mine"].value > 0.9
