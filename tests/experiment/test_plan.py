"""What an experiment will do, and what is refused before anything is trained."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.experiment import Experiment, Plan, plan_experiment


def test_the_plan_says_what_was_found(tables: Any) -> None:
    frame = tables.plain(key=range(60), blank=[None] * 60, same=1, group=["u", "v", None] * 20)
    plan = plan_experiment(frame, "y", name="mine", timeout=60)
    assert isinstance(plan, Plan)
    text = plan.explain()
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
        "Comparison: the best network with the best baseline, on 15 folds of other splits",
        "no candidate is started after 60 s",
    ):
        assert line in text
    assert list(plan.X.columns) == ["x", "group"]


def test_one_candidate_is_one_network(tables: Any) -> None:
    plan = plan_experiment(tables.cancer(), "target", param_grid={"hidden": [[4]]}, cv=2)
    assert ("Candidates", "1 network, 2 fits") in plan.decisions()


def test_rows_without_a_target_are_left_out_and_said(tables: Any) -> None:
    frame = tables.plain()
    frame.loc[::10, "y"] = None
    plan = plan_experiment(frame, "y")
    assert len(plan.X) == 54
    assert "Left out: 6 rows without a target" in plan.explain()


def test_a_small_class_lowers_the_folds(tables: Any) -> None:
    frame = tables.plain(y=["a"] * 57 + ["b"] * 3)
    plan = plan_experiment(frame, "y")
    assert (plan.n_folds, plan.cv_why) == (2, "the class 'b' has 2 training rows")


OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # but for line breaks

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "folds for a small class": ({"y": ["a"] * 54 + ["b"] * 6}, {"cv": 10}, "`cv` of 10 is more than the 5"),
    "class of two": ({"y": ["a"] * 58 + ["b"] * 2}, {}, "class 'b' of the target 'y' has too few rows"),
    "folds for few rows": ({"y": np.linspace(0, 9, 60) ** 1.5}, {"cv": 40}, "`cv` of 40 is too much for 48 training"),
    "one fold": ({}, {"cv": 1}, "`cv` must be a whole number of folds, at least 2. Got 1"),
    "repeats": ({}, {"n_repeats": -1}, "`n_repeats` must be a whole number of repeats, at least 0. Got -1"),
    "random_state": ({}, {"random_state": -1}, "`random_state` must be a whole number"),
    "seed that is a truth value": ({}, {"random_state": True}, "`random_state` must be a whole number"),
    "timeout": ({}, {"timeout": 0}, "`timeout` must be a number of seconds above 0"),
    "scoring": ({}, {"scoring": "acuracy"}, "Did you mean accuracy"),
    "task": ({}, {"task": "ranking"}, "`task` must be 'classification' or 'regression'"),
    "grid name": ({}, {"param_grid": "smal"}, "there is no file 'smal'. Did you mean 'small'"),
    "grid key": ({}, {"param_grid": {"hiden": [[8]]}}, "(?s)grid cannot be used.*hidden"),
    "grid value": ({}, {"param_grid": {"dropout": 0.5}}, "must give a list of values to try for 'dropout'. Got 0.5"),
    "grid of nothing": ({}, {"param_grid": {}}, "must map parameters to lists of values"),
    "no features": ({"x": [None] * 60}, {}, r"No column is left to predict 'y' from: 'x' \(empty\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_training(case: str, tables: Any) -> None:
    columns, arguments, message = REFUSED[case]
    with pytest.raises((ParameterError, DataError), match=message):
        plan_experiment(tables.plain(**columns), "y", **arguments)


def test_few_rows_and_a_lone_target_are_refused(tables: Any) -> None:
    with pytest.raises(DataError, match="has 10 rows with a target; at least 20 are needed"):
        plan_experiment(tables.plain(10), "y")
    with pytest.raises(DataError, match="no column but the target 'y'"):
        plan_experiment(tables.plain()[["y"]], "y")


def test_a_grid_comes_from_a_file(tmp_path: Path, tables: Any) -> None:
    path = tmp_path / "grid.json"
    path.write_text('[{"hidden": [[8], [4, 4]], "dropout": [0, 0.5]}, {"hidden": [[2]]}]')
    plan = plan_experiment(tables.plain(), "y", param_grid=path)
    assert plan.n_candidates == 5
    assert plan.param_grid[0]["hidden"] == [(8,), (4, 4)]
    path.write_text("hidden: 8")
    with pytest.raises(ParameterError, match="The grid 'grid.json' is not JSON"):
        plan_experiment(tables.plain(), "y", param_grid=path)


def test_no_folder_is_made_through_a_link_that_leads_nowhere(tmp_path: Path, tables: Any) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "somewhere")
    with pytest.raises(
        ParameterError, match="`out` must be a folder, and '.*link' is a link to something that does not"
    ):
        plan_experiment(tables.plain(), "y", out=tmp_path / "link")
    with pytest.raises(ParameterError, match="cannot be made: '.*link' cannot be written to"):
        plan_experiment(tables.plain(), "y", out=tmp_path / "link" / "inside")


def test_nothing_is_overwritten(tmp_path: Path, tables: Any) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ParameterError, match="is not empty, and nothing is overwritten"):
        plan_experiment(tables.plain(), "y", out=tmp_path)
    with pytest.raises(ParameterError, match="is a file"):
        plan_experiment(tables.plain(), "y", out=tmp_path / "mine.txt")
    plan_experiment(tables.plain(), "y", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()  # only a run makes it


# ------------------------------------------------------------------------------------------ rows that belong together


def test_an_answer_ends_the_question(tables: Any) -> None:
    assert "Question: 'patient' repeats: 80 values" in plan_experiment(tables.clinic(), "healthy").explain()
    for answer in ({"groups": False}, {"groups": "patient"}, {"groups": False, "time": False}):
        plan = plan_experiment(tables.clinic(), "healthy", **answer)
        assert plan.questions == () and "Question" not in plan.explain()


def test_a_number_may_tell_the_time(tables: Any) -> None:
    frame = tables.clinic().assign(year=lambda table: 2000 + np.arange(len(table)) % 20)
    plan = plan_experiment(frame, "healthy", time="year")
    assert plan.n_repeats == 0 and dict(plan.decisions())["Comparison"].endswith("folds of the search alone")
    with pytest.raises(ParameterError, match="`n_repeats` must be 0, or left out, together with `time`: .* Got 2"):
        plan_experiment(frame, "healthy", time="year", n_repeats=2)
    assert "held out by time: the latest, from 2016 on in 'year'" in plan.explain()


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
def test_groups_and_times_that_cannot_be_are_refused_before_training(case: str, tables: Any) -> None:
    columns, arguments, message = BELONGING[case]
    frame = tables.clinic()
    for name, values in columns.items():
        frame[name] = list(itertools.islice(itertools.cycle(values), len(frame)))
    frame["rare"] = np.arange(len(frame)) % 40
    frame["late"] = np.arange(len(frame))
    if case.startswith("class"):
        is_ill = frame["rare"] < 2 if "two" in case else frame["late"] > len(frame) - 9
        frame["healthy"] = np.where(is_ill, "ill", frame["healthy"])
    with pytest.raises((ParameterError, DataError), match=message):
        plan_experiment(frame, "healthy", **arguments)


# ---------------------------------------------------------------------------- text of the user's: shown, never obeyed


def test_a_plan_and_what_is_refused_name_columns_and_classes_on_one_line(
    odd: tuple[Experiment, Path, str], tables: Any
) -> None:
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
        ({}, {"param_grid": {evil: 3}}),
        ({}, {"param_grid": {evil: [3]}}),
    ):
        with pytest.raises((DataError, ParameterError), match=r"a(\\n| )b\\x1b\[2J") as error:
            plan_experiment(tables.plain(**columns), "y", **arguments)
        assert not OBEYED.search(str(error.value))


def test_a_label_that_no_file_can_keep_is_refused(tables: Any) -> None:
    with pytest.raises(DataError, match=r"The target 'y' has classes that hold a NUL .*: 'b\\x00c'"):
        plan_experiment(tables.plain(y=["a", "b\0c"] * 30), "y")
    broken = pd.Series(["a", "b\ud800"] * 30, dtype=object)
    with pytest.raises(DataError, match=r"'k' has values that hold .* half of a character.*: 'b\\ud800'"):
        plan_experiment(tables.plain().assign(k=broken), "y")
    frame = tables.plain()
    frame.columns = pd.Index(["x\udc80", "y"], dtype=object)
    with pytest.raises(DataError, match=r"'table' has column names that hold .*: 'x\\udc80'"):
        plan_experiment(frame, "y")
