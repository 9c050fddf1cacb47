"""What comes out: shown, written to a folder, read back, and used to predict."""

from __future__ import annotations

import errno
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.experiment import Experiment, Progress, load_experiment, plan_experiment, run_experiment
from kerastoolkit.experiment.run import Run


def test_an_experiment_is_shown_in_a_few_lines(clinic: tuple[Experiment, Path], tmp_path: Path, tables: Any) -> None:
    experiment = clinic[0]
    text = repr(experiment)
    assert len(text.splitlines()) < 10 and len(text) < 1000
    for words in ("<Experiment on 'table': complete>", "predicts 'healthy' (classification)", "hidden 16",
                  str(experiment.test.scores["accuracy"]), experiment.tested_on(), experiment.explain()):  # fmt: skip
        assert words in text
    assert repr(load_experiment(clinic[1])) == text
    assert len(repr(experiment.test)) < 1500 and "y_true" not in repr(experiment.test)
    for one in (plan_experiment(tables.plain(), "y"), Run(plan_experiment(tables.plain(), "y"), None).experiment):
        assert len(repr(one)) < 1200 and "'y'" in repr(one)
    assert "48 rows to train on, 12 to test on" in repr(plan_experiment(tables.plain(), "y").held_out)


def test_simple_models_are_scored_on_the_test_rows_and_can_be_taken(
    cancer: tuple[Experiment, Path, list[Progress]], diabetes: tuple[Experiment, Path], tables: Any
) -> None:
    from sklearn.metrics import get_scorer

    for experiment, folder, frame in (
        (cancer[0], cancer[1], tables.cancer()), (diabetes[0], diabetes[1], load_diabetes(as_frame=True).frame)
    ):  # fmt: skip
        assert experiment.test is not None and experiment.test_rows is not None
        names = [scores.name for scores in experiment.baselines]
        assert list(experiment.baseline_tests) == list(experiment.baseline_models) == names
        test = frame.iloc[experiment.test_rows]
        for name in names:
            scores, model = experiment.baseline_tests[name], experiment.baseline_models[name]
            assert list(scores) == list(experiment.test.scores)
            score = get_scorer(experiment.scoring)(model, test.drop(columns="target"), test["target"])
            assert scores[experiment.scoring].value == pytest.approx(score)
            assert scores[experiment.scoring].n_rows == len(test)
        loaded = load_experiment(folder)
        assert loaded.baseline_tests == experiment.baseline_tests and loaded.baseline_models == {}
        # Anew from the folder, on all rows or on those of before.
        name = names[1]
        again = loaded.fit_baseline(name, frame.drop(index=experiment.test_rows))
        assert list(again.predict(test)) == list(experiment.baseline_models[name].predict(test))
        everything = loaded.fit_baseline(name, frame)
        assert not np.allclose(everything[-1][-1].coef_, again[-1][-1].coef_)
        with pytest.raises(ParameterError, match=f"There is no baseline 'Forest', only '{names[0]}', '{names[1]}'"):
            loaded.fit_baseline("Forest", frame)


# --------------------------------------------------------------------------------------------------------- the folder


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
    assert record["arguments"]["random_state"] == 0 and record["arguments"]["cv"] == 2
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


# -------------------------------------------------------------------------------------------------------- predictions


def test_a_table_in_european_spelling_is_learned_kept_and_predicted_from(
    tmp_path: Path, page: Any, report: Any
) -> None:
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
        tmp_path / "table.csv", "price", param_grid={"hidden": [[4]], "epochs": [2]}, cv=2, out=tmp_path / "out"
    )
    assert experiment.task == "regression" and experiment.test is not None and experiment.test_rows is not None
    assert experiment.test.y_true.tolist() == truth["price"].iloc[experiment.test_rows].tolist()
    told = page(report(tmp_path / "out")).text
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


def test_a_loaded_experiment_predicts_the_same(titanic: tuple[Experiment, Path], tables: Any, report: Any) -> None:
    experiment, folder = titanic
    loaded = load_experiment(folder / "out")
    frame = tables.titanic().drop(columns="survived").head(50)
    pd.testing.assert_frame_equal(experiment.predict(frame), loaded.predict(frame))
    assert loaded.best_params == experiment.best_params
    assert loaded.explain() == experiment.explain()
    assert loaded.test is not None and experiment.test is not None
    assert loaded.test.scores == experiment.test.scores
    assert np.array_equal(loaded.test.y_pred, experiment.test.y_pred)
    loaded.save(folder / "again" / "out")  # the report names its folder
    assert report(folder / "again" / "out") == report(folder / "out")


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


def test_what_divides_the_rows_is_no_feature_and_not_needed_to_predict(
    clinic: tuple[Experiment, Path], tables: Any, report: Any
) -> None:
    experiment, folder = clinic
    assert [(column.name, column.kind) for column in experiment.columns if not column.is_used] == [("patient", "group")]
    new = tables.clinic().drop(columns=["patient", "healthy"]).head(5)
    loaded = load_experiment(folder)
    pd.testing.assert_frame_equal(loaded.predict(new), experiment.predict(new))
    assert loaded.tested_on() == experiment.tested_on()
    assert json.loads((folder / "run.json").read_text())["split"]["groups"] == "patient"
    again = folder.parent / "again" / folder.name  # the report names its folder
    loaded.save(again)
    assert report(again) == report(folder)


def test_labels_of_all_kinds_come_through_to_the_files_and_back(odd: tuple[Experiment, Path, str], tables: Any) -> None:
    experiment, folder, _ = odd
    loaded = load_experiment(folder)
    assert experiment.test is not None and loaded.test is not None
    assert sorted(set(experiment.test.y_true)) == sorted(tables.LABELS)
    assert np.array_equal(loaded.test.y_true, experiment.test.y_true)
    assert loaded.test.scores == experiment.test.scores
    pd.testing.assert_frame_equal(loaded.predict(tables.odd()), experiment.predict(tables.odd()))
    assert (
        f"probability_{tables.LABELS[0]}" in pd.read_csv(folder / "test_predictions.csv").columns
    )  # data stay as they are


# --------------------------------------------------------------------------------------- what was trained is not lost


@pytest.mark.parametrize("full", ["report.html", "results.csv", "network.zip"])
def test_a_full_disk_costs_only_what_could_not_be_written(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Any
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    what = {"report.html": "_write_report", "results.csv": "_write_tables", "network.zip": "_write_model"}[full]
    monkeypatch.setattr(Experiment, what, fails)
    if full == "results.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fails)  # also after each batch
    frame, grid = tables.cancer(), {"hidden": [[4]], "epochs": [1]}
    with pytest.warns(KerasToolkitWarning, match=r"Not all of the folder '.*out' could be written \(OSError: .*space"):
        experiment = run_experiment(frame, "target", param_grid=grid, cv=2, n_repeats=0, out=tmp_path / "out")
    assert experiment.status == "complete" and "No space left" in experiment.unsaved
    assert len(experiment.predict(frame)) == 569
    expected = {"network.zip", "preprocessing.skops", "report.html", "results.csv", "run.json", "test_predictions.csv"}
    lost = {"results.csv": {"results.csv", "test_predictions.csv"},
            "network.zip": {"network.zip", "preprocessing.skops"}}.get(full, {full})  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected - lost
    monkeypatch.undo()
    experiment.save(tmp_path / "elsewhere")
    assert load_experiment(tmp_path / "elsewhere").status == "complete"


# -------------------------------------------------------------------------------------- older, damaged, foreign files


def test_an_experiment_of_before_comparisons_can_be_loaded(
    cancer: tuple[Experiment, Path, list[Progress]], tmp_path: Path, report: Any
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
    assert "2 folds" in loaded.explain()  # those of the search
    assert str(loaded.test.scores["accuracy"]).startswith("accuracy 1.000 (no interval")
    loaded.save(tmp_path / "again")
    assert "1.000 to 1.000" not in report(tmp_path / "again")
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
