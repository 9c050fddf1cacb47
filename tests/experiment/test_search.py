"""The candidates of an experiment: batches, time, failures, interruptions."""

from __future__ import annotations

import itertools
import json
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit.estimators import KerasClassifier
from kerastoolkit.exceptions import (
    DataError,
    KerasToolkitError,
    KerasToolkitWarning,
    ParameterError,
    SavedFileError,
)
from kerastoolkit.experiment import Experiment, Progress, load_experiment, plan_experiment, run_experiment
from kerastoolkit.experiment._search import CandidateSearch
from kerastoolkit.search.journal import Journal

# Small enough for a test: what is searched is not what these tests are about.
TINY = {"hidden": [[16], [4]], "optimizer__learning_rate": [0.01], "epochs": [12]}


RATES = {"hidden": [[8], [4]], "optimizer__learning_rate": [0.003, 0.01, 0.03], "epochs": [4]}


def _scores(experiment: Experiment) -> pd.DataFrame:
    return experiment.results.filter(regex=r"^param_|_test_score$")


@pytest.fixture(scope="module")
def one_by_one(tables: Any) -> Experiment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerastoolkit.search._run._SECONDS_A_BATCH", 0)
        return run_experiment(tables.cancer(), "target", param_grid=RATES, cv=2, n_repeats=0, scoring="neg_log_loss")


def test_the_seed_repeats_the_experiment_however_candidates_are_trained_together(
    one_by_one: Experiment, monkeypatch: pytest.MonkeyPatch, tables: Any
) -> None:
    monkeypatch.setattr("kerastoolkit.search._run._SECONDS_A_BATCH", 10_000)
    told: list[Progress] = []
    options: dict[str, Any] = {"cv": 2, "n_repeats": 0, "scoring": "neg_log_loss", "progress": told.append}
    together = run_experiment(tables.cancer(), "target", param_grid=RATES, **options)
    pd.testing.assert_frame_equal(_scores(one_by_one), _scores(together), rtol=1e-5)
    assert one_by_one.test is not None and together.test is not None
    assert np.array_equal(one_by_one.test.y_pred, together.test.y_pred)
    # The first candidate alone, since nobody knows yet how long it takes; then those like it; then the rest.
    if keras.backend.backend() != "torch":
        assert dict(together.decisions)["Training"] == "12 fits trained together, as 4 programs"
        assert dict(one_by_one.decisions)["Training"] == "12 fits trained together, as 6 programs"
    # What fits trained together cost is told once.
    seconds = [progress.seconds for progress in told if progress.stage == "candidates"]
    assert 0 < 2 * together.results["mean_fit_time"].sum() < seconds[-1] - seconds[0]


def test_a_failure_leaves_the_others_of_its_batch_alone(
    one_by_one: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tables: Any
) -> None:
    monkeypatch.setattr("kerastoolkit.search._run._SECONDS_A_BATCH", 10_000)
    # Of 455 training rows one fold has 227 and the other 228.
    fit = KerasClassifier.fit

    def failing(self: Any, X: Any, y: Any, **params: Any) -> Any:
        rate = self.get_params()["optimizer__learning_rate"]
        if rate == 0.01 or (rate == 0.03 and len(X) == 227):
            raise ValueError(f"no {rate}")
        return fit(self, X, y, **params)

    monkeypatch.setattr(KerasClassifier, "fit", failing)
    some = {**RATES, "hidden": [[4]], "optimizer__learning_rate": [0.02, 0.01, 0.03, 0.003]}
    options = {"cv": 2, "n_repeats": 0, "scoring": "neg_log_loss"}
    found = run_experiment(tables.cancer(), "target", param_grid=some, out=tmp_path / "out", **options)
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


def _search(param_grid: dict[str, list[Any]] | None = None, **options: Any) -> CandidateSearch:
    cv = [(np.arange(2), np.arange(2, 4))] * 3
    told: dict[str, Any] = {"report": lambda *step: None, "on_results": lambda results: None}
    return CandidateSearch(KerasClassifier(), param_grid or {}, scoring=accuracy, cv=cv, **told, **options)


accuracy = make_scorer(accuracy_score)


def test_with_a_timeout_structures_take_turns() -> None:
    grid = {"hidden": [(8,), (4,)], "optimizer__learning_rate": list(np.linspace(0.01, 0.1, 6)), "dropout": [0, 0.1]}
    candidates = list(ParameterGrid(grid))
    for timeout, a_turn in ((None, [6, 6, 6, 6]), (1000, [4, 4, 4, 4, 2, 2, 2, 2])):
        ordered = list(ParameterGrid(_search(grid, timeout=timeout).param_grid))
        assert sorted(map(repr, ordered)) == sorted(map(repr, candidates))
        kinds = [(one["hidden"], one["dropout"] > 0) for one in ordered]
        assert [len(list(alike)) for _, alike in itertools.groupby(kinds)] == a_turn


@pytest.mark.parametrize(
    ("timeout", "n_repeats", "reserved"), [(None, 5, 0.0), (120, 0, 4 / 3), (120, 5, 20 + 4 / 3), (30, 5, 10 + 4 / 3)]
)
def test_time_is_kept_for_the_comparison_and_the_fit_of_the_winner(
    timeout: float | None, n_repeats: int, reserved: float
) -> None:
    # 4 s a candidate, and a third of it for the winner; the comparison gets no more than a third of the time.
    search = _search(timeout=timeout, n_repeats=n_repeats)
    assert search._seconds_to_reserve(4.0) == pytest.approx(reserved)


def test_a_search_by_itself_is_scikit_learns_with_what_was_left_out_and_failed() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    cv = list(StratifiedKFold(2, shuffle=True, random_state=0).split(X, y))
    pipeline = Pipeline([("scale", StandardScaler()), ("network", KerasClassifier(epochs=2, random_state=0))])
    grid = {"network__hidden": [(4,)], "network__activation": ["relu", "rellu"]}
    steps: list[tuple[Any, ...]] = []
    tables: list[pd.DataFrame] = []
    told: dict[str, Any] = {"report": lambda *step: steps.append(step), "on_results": tables.append}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = CandidateSearch(pipeline, grid, scoring=accuracy, cv=cv, **told).fit(X, y)
        usual = GridSearchCV(pipeline, grid, scoring=accuracy, cv=cv).fit(X, y)
    assert search.best_params_ == usual.best_params_
    by_params = {repr(params): score for params, score in zip(
        usual.cv_results_["params"], usual.cv_results_["mean_test_score"], strict=True)}  # fmt: skip
    assert search.best_score_ == pytest.approx(by_params[repr(search.best_params_)], abs=0.02)
    assert search.left_out_ == [] and [failed["params"]["activation"] for failed in search.failed_] == ["rellu"]
    assert "rellu" in search.failed_[0]["error"]
    assert len(tables[-1]) == 1 and list(tables[-1].filter(regex="^param_")) == ["param_activation", "param_hidden"]
    assert len(search.seconds_) == 2 and steps[-1][0] == "final fit"
    assert {step[:3] for step in steps if step[0] == "candidates"} >= {("candidates", 4, 4)}
    late = CandidateSearch(pipeline, {**grid, "network__activation": ["relu", "tanh"]}, scoring=accuracy, cv=cv,
                         timeout=1e-3, **told).fit(X, y)  # fmt: skip
    assert len(late.left_out_) == 1 and late.left_out_[0]["hidden"] == (4,) and len(late.seconds_) == 1


# -------------------------------------------------------------------------------------------- timeout, interruptions


def test_a_spent_timeout_leaves_candidates_out_and_says_which(
    tmp_path: Path, tables: Any, page: Any, report: Any
) -> None:
    grid = {"hidden": [[8], [4], [2]], "epochs": [2]}
    experiment = run_experiment(tables.cancer(), "target", param_grid=grid, cv=2, timeout=0.01, out=tmp_path / "out")
    assert experiment.status == "complete"
    assert len(experiment.results) == 1
    assert len(experiment.left_out) == 2
    assert experiment.test is not None
    text = page(report(tmp_path / "out")).text
    assert "Time ran out: 2 of 3 candidates were left out" in text
    assert all(f"hidden={params['hidden'][0]}" in text for params in experiment.left_out)


@pytest.mark.parametrize(("done", "message"), [(2, "training, "), (3, "searching")])
def test_an_interrupted_search_leaves_a_readable_folder(
    done: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Any, page: Any, report: Any
) -> None:
    monkeypatch.setattr(
        "kerastoolkit.search._progress._SECONDS_BETWEEN_UPDATES", 0.0
    )  # the training may be over in less

    def interrupt(progress: Progress) -> None:
        if progress.stage == "candidates" and progress.done == done and progress.message.startswith(message):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(tables.cancer(), "target", param_grid=TINY, cv=2, out=tmp_path / "out", progress=interrupt)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html", "results.csv", "run.json", "search.journal"
    ]  # fmt: skip
    found = page(report(tmp_path / "out"))
    assert found.open == []
    assert "interrupted after 1 of 2 candidates" in found.text
    loaded = load_experiment(tmp_path / "out")
    assert (loaded.status, len(loaded.results), len(loaded.baselines)) == ("interrupted", 1, 3)
    with pytest.raises(SavedFileError, match="no model to predict with: it was interrupted"):
        loaded.predict(tables.cancer())


def test_a_candidate_that_cannot_be_trained_is_passed_over(tmp_path: Path, tables: Any, page: Any, report: Any) -> None:
    grid = {"hidden": [[8]], "activation": ["relu", "rellu"], "epochs": [2]}
    experiment = run_experiment(tables.cancer(), "target", param_grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    assert experiment.best_params == {"hidden": (8,), "activation": "relu", "epochs": 2}
    assert [failed["params"]["activation"] for failed in experiment.failed] == ["rellu"]
    assert "rellu" in experiment.failed[0]["error"]
    assert "could not be trained" in page(report(tmp_path / "out")).text


@pytest.mark.parametrize("load", [load_iris, load_diabetes])
def test_a_candidate_that_diverged_has_failed_in_table_record_and_report(load: Any, tmp_path: Path, page: Any) -> None:
    grid = {"hidden": [[8]], "optimizer__learning_rate": [1e30, 0.01], "epochs": [2]}
    experiment = run_experiment(
        load(as_frame=True).frame, "target", param_grid=grid, cv=2, n_repeats=0, out=tmp_path / "out"
    )
    assert experiment.best_params["optimizer__learning_rate"] == 0.01
    assert experiment.results["param_optimizer__learning_rate"].tolist() == [0.01]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (failed,) = record["failed"]
    assert failed["params"]["optimizer__learning_rate"] == 1e30
    assert "DivergedError: The network diverged: its loss has been nan since epoch 1" in failed["error"]
    assert record["explanation"] == experiment.explain() and len(record["baselines"]) == 3
    assert "The network diverged" in page((tmp_path / "out" / "report.html").read_text()).text


def test_if_all_candidates_diverge_the_error_says_so(tmp_path: Path, page: Any) -> None:
    grid = {"optimizer__learning_rate": [1e30, 1e25], "epochs": [2]}
    with pytest.raises(DataError, match=r"No candidate could be trained.*The network diverged"):
        run_experiment(
            load_iris(as_frame=True).frame, "target", param_grid=grid, cv=2, n_repeats=0, out=tmp_path / "out"
        )
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["chosen"], len(record["failed"])) == ("failed", None, 2)
    assert "The network diverged" in page((tmp_path / "out" / "report.html").read_text()).text


def test_a_grid_of_which_nothing_can_be_trained_is_an_error_with_the_reason(tmp_path: Path, tables: Any) -> None:
    with pytest.raises(DataError, match=r"No candidate could be trained.*rellu"):
        run_experiment(tables.cancer(), "target", param_grid={"activation": ["rellu"]}, cv=2, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"


# ---------------------------------------------------------------------------------------------------------- resuming


def test_an_interrupted_experiment_resumes_with_what_is_missing(
    tmp_path: Path, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "candidates" and progress.done == 4:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    options: dict[str, Any] = {"param_grid": RATES, "cv": 2, "n_repeats": 0, "scoring": "neg_log_loss"}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tables.cancer(), "target", out=out, progress=interrupt, **options)
    assert (out / "search.journal").is_file() and load_experiment(out).status == "interrupted"
    # Only the same experiment goes on there.
    for other, names in (({"cv": 3}, "cv"), ({"random_state": 1, "timeout": 60}, "random_state, timeout")):
        with pytest.raises(ParameterError, match=f"an interrupted experiment with other values of {names}. To resume"):
            plan_experiment(tables.cancer(), "target", out=out, **{**options, **other})
    with pytest.raises(ParameterError, match="other values of table"):
        plan_experiment(tables.cancer().head(500), "target", out=out, **options)
    _refuses_what_is_no_journal_of_ours(out, lambda: plan_experiment(tables.cancer(), "target", out=out, **options))
    n_fits = 0
    fit = KerasClassifier.fit

    def counted(self: Any, X: Any, y: Any, **params: Any) -> Any:
        nonlocal n_fits
        n_fits += 1
        return fit(self, X, y, **params)

    monkeypatch.setattr(KerasClassifier, "fit", counted)
    resumed = run_experiment(tables.cancer(), "target", out=out, **options)
    assert n_fits <= 12 - 4 + 1  # and the fit of the winner
    monkeypatch.setattr(KerasClassifier, "fit", fit)
    whole = run_experiment(tables.cancer(), "target", **options)
    pd.testing.assert_frame_equal(_scores(resumed), _scores(whole), rtol=1e-5)
    assert resumed.best_params == whole.best_params
    # A complete one is not overwritten.
    assert not list(out.glob("search.journal*")) and load_experiment(out).status == "complete"
    with pytest.raises(ParameterError, match="is not empty, and nothing is overwritten"):
        plan_experiment(tables.cancer(), "target", out=out, **options)


def _refuses_what_is_no_journal_of_ours(out: Path, plan: Callable[[], object]) -> None:
    """Puts other files in the place of the journal; they stay as they are."""
    journal, kept = out / "search.journal", out.parent / "kept"
    journal.rename(kept)
    with closing(sqlite3.connect(journal)) as database:
        database.execute("CREATE TABLE of_another_program (x)")
    foreign = journal.read_bytes()
    with pytest.raises(KerasToolkitError, match="search.journal"):
        plan()
    assert journal.read_bytes() == foreign
    journal.unlink()
    journal.symlink_to(kept)
    with pytest.raises(ParameterError, match="is not empty"):
        plan()
    journal.unlink()
    kept.rename(journal)


def test_what_no_journal_can_hold_is_searched_all_the_same(
    tmp_path: Path, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*args: Any) -> None:
        raise ParameterError("A journal cannot recognise the parameter `hidden`")

    monkeypatch.setattr(Journal, "check", refuses)
    options: dict[str, Any] = {"param_grid": {"hidden": [[4]], "epochs": [1]}, "cv": 2, "n_repeats": 0}
    with pytest.warns(KerasToolkitWarning, match="interrupted, it cannot be resumed: A journal cannot recognise"):
        experiment = run_experiment(tables.cancer(), "target", out=tmp_path / "out", **options)
    assert experiment.status == "complete" and not (tmp_path / "out" / "search.journal").exists()
