"""The main job on real tables: what it finds and keeps apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from kerastoolkit.estimators import _fit_arguments
from kerastoolkit.exceptions import KerasToolkitWarning
from kerastoolkit.experiment import Experiment, Progress, load_experiment, plan_experiment, run_experiment
from kerastoolkit.experiment.run import Run

SHORT = {"hidden": [[16]], "epochs": [8], "optimizer__learning_rate": [0.01]}


# ------------------------------------------------------------------------------------------------------- what it does


def test_breast_cancer_is_learned(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    experiment, _, _ = cancer
    assert experiment.status == "complete"
    assert (experiment.task, experiment.scoring) == ("classification", "accuracy")
    assert experiment.test is not None
    score = experiment.test.scores["accuracy"]
    assert score.value > 0.92 and score.low < score.value <= score.high
    assert list(experiment.test.scores) == ["accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"]
    assert [scores.name for scores in experiment.baselines] == [
        "Most frequent class", "Logistic regression", "Gradient boosting"
    ]  # fmt: skip
    assert len(experiment.results) == 2
    assert set(experiment.best_params) == {"hidden", "optimizer__learning_rate", "epochs"}
    assert "network" in experiment.explain()


def test_the_best_network_and_the_best_simple_model_are_compared_on_folds_of_other_splits(
    cancer: tuple[Experiment, Path, list[Progress]], monkeypatch: pytest.MonkeyPatch, tables: Any
) -> None:
    experiment, folder, told = cancer
    comparison = experiment.comparison
    assert comparison is not None and comparison.outcome in ("ahead", "behind", "cannot tell")
    best = max(experiment.baselines, key=lambda scores: scores.mean).name.lower()
    assert (comparison.first, comparison.second, comparison.n_folds) == ("the best network", best, 6)
    assert experiment.explain().startswith(str(comparison))
    assert load_experiment(folder).comparison == comparison
    assert dict(experiment.decisions)["Comparison"].endswith("on 6 folds of other splits")
    assert [progress.message for progress in told if progress.stage == "comparison"][1].startswith(
        "the best network on"
    )
    # The simple model's part in it by scikit-learn alone; what is left are the network's, whole rows of a fold.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert best == "logistic regression"
    frame = tables.cancer().drop(index=experiment.test_rows)
    model, X, y = make_pipeline(StandardScaler(), LogisticRegression()), frame.drop(columns="target"), frame["target"]
    splits = [StratifiedKFold(2, shuffle=True, random_state=seed) for seed in range(1, 4)]
    theirs = np.concatenate([cross_val_score(model, X, y, cv=split) for split in splits])
    n_test = np.concatenate([[len(test) for _, test in split.split(X, y)] for split in splits])
    right = (theirs + comparison.differences) * n_test
    assert np.allclose(right, np.round(right)) and (right / n_test > 0.85).all() and (right <= n_test).all()


def test_a_quantity_is_learned_on_a_scale_of_its_own(diabetes: tuple[Experiment, Path], page: Any, report: Any) -> None:
    # Unscaled, targets of 25 to 346 keep a network's first epochs near an RMSE of 160.
    experiment, _ = diabetes
    assert experiment.test is not None
    assert experiment.test.scores["neg_root_mean_squared_error"].value > -70
    assert experiment.test.y_pred.mean() == pytest.approx(152, abs=30)
    assert "R²" in page(report(diabetes[1])).text


def test_blanks_and_words_are_learned_from(titanic: tuple[Experiment, Path]) -> None:
    experiment, _ = titanic
    assert experiment.test is not None
    assert experiment.test.scores["accuracy"].value > 0.7
    assert experiment.network.n_features_in_ == 9  # 3 numbers, a mark for blank ages, 3 classes, 2 sexes


def test_ten_classes_are_learned() -> None:
    experiment = run_experiment(
        load_digits(as_frame=True).frame, "target", param_grid={"hidden": [[32]], "epochs": [15]}, cv=2, n_repeats=0
    )
    assert experiment.test is not None
    assert experiment.test.scores["accuracy"].value > 0.9
    assert experiment.test.scores["roc_auc_ovr"].value > 0.98
    constant = [column.name for column in experiment.columns if column.kind == "constant"]
    assert constant == ["pixel_0_0", "pixel_4_0", "pixel_4_7"]


def test_test_rows_touch_no_statistic(cancer: tuple[Experiment, Path, list[Progress]], tables: Any) -> None:
    experiment, _, _ = cancer
    assert experiment.test_rows is not None
    frame = tables.cancer().drop(columns="target")
    train = np.setdiff1d(np.arange(len(frame)), experiment.test_rows)
    scaler = experiment.preprocessor.named_transformers_["numbers"][-1]
    assert np.allclose(scaler.mean_, frame.iloc[train].mean().to_numpy())
    assert not np.allclose(scaler.mean_, frame.mean().to_numpy())


def test_classes_have_the_same_share_among_the_test_rows(
    cancer: tuple[Experiment, Path, list[Progress]], tables: Any
) -> None:
    experiment, _, _ = cancer
    assert experiment.test is not None
    share = np.mean(tables.cancer()["target"] == "malignant")
    assert np.mean(experiment.test.y_true == "malignant") == pytest.approx(share, abs=0.01)


def test_progress_counts_every_fit(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    _, _, told = cancer
    candidates = [progress for progress in told if progress.stage == "candidates"]
    fits = [progress for progress in candidates if not progress.message.startswith("training, ")]
    assert [progress.done for progress in fits] == [0, 1, 2, 3, 4]
    assert {progress.total for progress in candidates} == {4}
    assert all(progress.seconds_left > 0 for progress in fits[1:])  # type: ignore[operator]
    assert told[-1].stage == "done"
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)


@pytest.mark.parametrize("failing", ["fit", "predict"])
def test_a_simple_model_that_fails_has_no_score_and_ends_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Any, page: Any, report: Any
) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def fails(*args: Any, **options: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(HistGradientBoostingClassifier, failing, fails)
    grid = {"hidden": [[4]], "epochs": [2]}
    experiment = run_experiment(tables.cancer(), "target", param_grid=grid, cv=2, n_repeats=1, out=tmp_path / "out")
    assert not experiment.baselines[2].is_scored and "Gradient boosting" not in experiment.baseline_tests
    assert experiment.comparison is not None and experiment.comparison.second == "logistic regression"
    assert "not scored" in page(report(tmp_path / "out")).text


def test_an_interruption_of_the_comparison_loses_nothing_else(tmp_path: Path, tables: Any) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "comparison":
            raise KeyboardInterrupt

    grid = {"hidden": [[4]], "epochs": [2]}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tables.cancer(), "target", param_grid=grid, cv=2, out=tmp_path / "out", progress=interrupt)
    loaded = load_experiment(tmp_path / "out")
    assert loaded.status == "complete" and loaded.comparison is not None and loaded.comparison.n_folds == 2
    assert "so few folds can only show a large difference" in loaded.explain() or loaded.comparison.p_value < 0.05
    assert len(loaded.predict(tables.cancer())) == 569


@pytest.mark.parametrize(("passed", "n"), [(0, 5), (40, 5), (80, 2), (94, 0), (200, 0)])
def test_the_comparison_is_repeated_as_often_as_there_is_time(
    passed: float, n: int, monkeypatch: pytest.MonkeyPatch, tables: Any
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment.run.Run.seconds", passed)
    run = Run(plan_experiment(tables.plain(), "y", timeout=100), None)
    assert run._repeats_in_time(8.0) == n
    words = {5: "15 folds of other splits", 2: "6 folds of other splits, for lack of time",
             0: "the 3 folds of the search alone, for lack of time"}[n]  # fmt: skip
    assert dict(run.experiment.decisions)["Comparison"].endswith(words)


# ------------------------------------------------------------------------------------------ rows that belong together


def test_patients_are_held_out_as_wholes(clinic: tuple[Experiment, Path], tables: Any, page: Any, report: Any) -> None:
    experiment, frame = clinic[0], tables.clinic()
    assert experiment.test is not None and experiment.test_rows is not None
    tested = set(frame["patient"][experiment.test_rows])
    others = set(frame["patient"].drop(experiment.test_rows))
    assert not tested & others
    told = f"{len(experiment.test_rows)} rows of {len(tested)} values of 'patient' that are not among the training rows"
    assert experiment.tested_on() == told and told in page(report(clinic[1])).text
    # There is nothing to learn of new patients, and boosting finds as much.
    boosting = {scores.name: scores for scores in experiment.baselines}["Gradient boosting"]
    assert boosting.mean == pytest.approx(0.5, abs=0.12)
    # Intervals are by patients, too, and other splits keep them together.
    assert {score.method for score in experiment.test.scores.values()} == {"bootstrap of groups"}
    assert experiment.comparison is not None and experiment.comparison.n_folds == 2
    assert experiment.comparison.outcome == "cannot tell"


def test_patients_on_both_sides_are_noticed_warned_of_and_told(
    tmp_path: Path, tables: Any, page: Any, report: Any
) -> None:
    # The same table by rows: boosting seems to be almost always right.
    with pytest.warns(KerasToolkitWarning, match="'patient' repeats: 80 values in 407 rows.*groups='patient'"):
        experiment = run_experiment(tables.clinic(), "healthy", param_grid=SHORT, cv=2, out=tmp_path / "out")
    boosting = {scores.name: scores for scores in experiment.baselines}["Gradient boosting"]
    assert boosting.mean > 0.7
    assert [(question.column, question.argument) for question in experiment.questions] == [("patient", "groups")]
    told = "rows held out at random (with rows of the same 'patient' among the training rows)"
    assert experiment.tested_on().endswith(told)
    shown = page(report(tmp_path / "out")).text
    assert experiment.questions[0].text in shown and told in shown
    loaded = load_experiment(tmp_path / "out")
    assert loaded.questions == experiment.questions and loaded.tested_on() == experiment.tested_on()


def test_folds_and_the_rows_that_stop_a_fit_are_whole_patients(monkeypatch: pytest.MonkeyPatch, tables: Any) -> None:
    frame = tables.clinic().assign(score=lambda table: table["height"] + 5)
    plan = plan_experiment(frame, "score", groups="patient", param_grid=SHORT, cv=2, n_repeats=1)
    train = plan.held_out.train
    patients = frame["patient"].to_numpy()[train]
    run = Run(plan, None)
    by_seed = {seed: run._folds(seed) for seed in (0, 7)}
    for cut in by_seed.values():
        assert len(cut) == 2
        assert not any(set(patients[fitted]) & set(patients[scored]) for fitted, scored in cut)
    assert np.array_equal(run._folds(0)[0][0], by_seed[0][0][0])
    assert not np.array_equal(by_seed[0][0][0], by_seed[7][0][0])

    seen: list[Any] = []
    split = _fit_arguments.holdout_indices

    def watched(n_rows: int, fraction: float, **belonging: Any) -> Any:
        cut = split(n_rows, fraction, **belonging)
        seen.append([set(belonging["groups"][rows]) for rows in cut])
        return cut

    monkeypatch.setattr(_fit_arguments, "holdout_indices", watched)
    plan.run()
    assert len(seen) == 5  # two folds, the winner, and two folds of another split that it is compared on
    assert all(fitted and watched and not fitted & watched for fitted, watched in seen)


def _sales(n_days: int = 120) -> pd.DataFrame:
    """Two shops that grow; a random row lies between known ones, the latest do not."""
    day = np.arange(n_days).repeat(2)
    sold = 50 + 0.5 * day + 10 * (np.arange(2 * n_days) % 2) + np.random.RandomState(0).randn(2 * n_days)
    date = (pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")).strftime("%d.%m.%Y")
    frame = pd.DataFrame({"date": date, "shop": ["north", "south"] * n_days, "area": day % 7 + 0.5, "sold": sold})
    return frame.sample(frac=1, random_state=0, ignore_index=True)


def test_the_latest_rows_are_held_out_and_folds_go_forward(tmp_path: Path, page: Any, report: Any) -> None:
    frame = _sales()
    plan = plan_experiment(frame, "sold", time="date", param_grid=SHORT, cv=3, out=tmp_path / "out")
    days = pd.to_datetime(frame["date"], format="%d.%m.%Y").to_numpy()
    assert set(days[plan.held_out.test]) == {np.datetime64("2024-04-06") + day for day in range(24)}
    for line in (
        "Test set: 48 of 240 rows held out by time: the latest, from 2024-04-06 on in 'date'",
        "Folds: 3 on the 192 training rows (as requested, each scored on rows later than those it is trained on)",
        "date  time      2024-01-01 to 2024-04-29; left out: the latest rows are held out by it",
    ):
        assert line in plan.explain()
    experiment = plan.run()
    assert experiment.tested_on() == "the latest 48 rows, from 2024-04-06 on in 'date'"
    assert experiment.tested_on() in page(report(tmp_path / "out")).text
    assert "predicted_sold" in load_experiment(tmp_path / "out").predict(frame[["shop", "area"]].head(3))
