"""Experiments saved before their parameters had the names of today: `saved_before` was written by that code.

There are two: iris by two columns, and diabetes by persons of three rows each. Beside what an experiment writes, they
hold what it predicted then.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier

from kerastoolkit.exceptions import SavedFileError
from kerastoolkit.experiment import load_experiment

SAVED = Path(__file__).with_name("saved_before")
NAMES = sorted(folder.name for folder in SAVED.iterdir())


def _iris() -> pd.DataFrame:
    data = load_iris(as_frame=True)
    return data.frame.iloc[:, [2, 3, 4]].assign(target=data.target_names[data.target])


def _table(name: str) -> pd.DataFrame:
    return _iris() if name == "iris" else load_diabetes(as_frame=True).frame.loc[:119, ["bmi", "bp", "target"]]


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_predicts_and_concludes_as_it_did(name: str) -> None:
    loaded = load_experiment(SAVED / name)
    assert (loaded.status, loaded.task) == ("complete", "classification" if name == "iris" else "regression")
    expected = pd.read_csv(SAVED / name / "predicted.csv")
    pd.testing.assert_frame_equal(loaded.predict(_table(name)), expected, rtol=1e-4, check_dtype=False)
    assert loaded.test is not None and loaded.comparison is not None
    before = json.loads((SAVED / name / "run.json").read_text(encoding="utf-8"))
    for field in ("first", "second", "metric", "outcome", "difference", "low", "high", "p_value", "n_folds"):
        assert getattr(loaded.comparison, field) == before["comparison"][field]
    assert loaded.explain().startswith(str(loaded.comparison))
    assert [score.value for score in loaded.test.scores.values()] == [score["value"] for score in before["test"]]
    levels = [score.confidence_level for scores in loaded.baseline_tests.values() for score in scores.values()]
    levels += [score.confidence_level for score in loaded.test.scores.values()]
    assert {*levels, loaded.comparison.confidence_level} == {0.95}


@pytest.mark.parametrize("name", NAMES)
def test_its_arguments_have_the_names_of_today(name: str) -> None:
    loaded = load_experiment(SAVED / name)
    before = json.loads((SAVED / name / "run.json").read_text(encoding="utf-8"))
    arguments = before["arguments"]
    assert loaded.record["arguments"] == {
        "target": "target", "task": None, "scoring": arguments["metric"], "cv": 2, "groups": arguments["groups"],
        "time": None, "param_grid": {"hidden": [[2]], "epochs": [1]}, "n_repeats": 1, "random_state": 3,
        "timeout": arguments["time_budget"],
    }  # fmt: skip
    assert loaded.scoring == before["metric"] and loaded.record["param_grid"] == before["grid"]


def test_a_baseline_is_fitted_with_its_seed() -> None:
    table = _iris()
    loaded = load_experiment(SAVED / "iris")
    model = HistGradientBoostingClassifier(random_state=3).fit(table.iloc[:, :2].to_numpy(), table["target"])
    found = loaded.fit_baseline("Gradient boosting", table)
    assert found[-1][-1].get_params()["random_state"] == 3
    assert np.array_equal(found.predict(table), model.predict(table.iloc[:, :2].to_numpy()))


@pytest.mark.parametrize("name", NAMES)
def test_saved_again_it_has_the_format_of_today(name: str, tmp_path: Path) -> None:
    loaded = load_experiment(SAVED / name)
    loaded.save(tmp_path / "again")
    record = json.loads((tmp_path / "again" / "run.json").read_text(encoding="utf-8"))
    assert record["format_version"] == 2 and record["scoring"] == loaded.scoring
    assert not {"grid", "metric", "verdict"} & set(record) and "level" not in record["comparison"]
    again = load_experiment(tmp_path / "again")
    assert again.record == loaded.record and again.test is not None and loaded.test is not None
    assert again.explain() == loaded.explain() and list(again.test.scores) == list(loaded.test.scores)
    pd.testing.assert_frame_equal(again.predict(_table(name)), loaded.predict(_table(name)))


@pytest.mark.parametrize(
    ("entry", "value"), [("arguments", 3), ("test", 3), ("test", [3]), ("comparison", [3]), ("baseline_tests", [3])]
)
def test_nonsense_in_it_is_refused_as_in_any_other(entry: str, value: object, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SAVED / "iris", tmp_path / "copy"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**record, entry: value}), encoding="utf-8")
    with pytest.raises(SavedFileError, match=entry):
        load_experiment(folder)
