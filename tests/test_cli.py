"""The shell's door: quick help, one clear message for bad input with exit status 2, Ctrl-C, predictions."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from kerastoolkit import __version__
from kerastoolkit.cli import _checked_output, _say, main
from kerastoolkit.exceptions import ParameterError

_Run = Callable[..., subprocess.CompletedProcess[str]]

GOOD = "x,group,y\n" + "\n".join(f"{n},{'uv'[n % 2]},{'ab'[n // 3 % 2]}" for n in range(60))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text(GOOD)
    return tmp_path


def test_help_and_version_answer_without_heavy_imports(run_python: _Run) -> None:
    program = """
import sys
from kerastoolkit.cli import main
for words in (["--help"], ["search", "--help"], ["--version"]):
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
for heavy in ("numpy", "pandas", "sklearn", "keras", "tensorflow", "matplotlib"):
    assert heavy not in sys.modules, heavy
"""
    said = run_python(program).stdout
    assert "search" in said and "--timeout" in said
    assert f"kerastoolkit {__version__}" in said


# The words after `search`, what else there is beside good.csv, and what is said.
REFUSED: dict[str, tuple[list[str], dict[str, bytes], str]] = {
    "no file": (["god.csv", "--target", "y"], {}, "No such file: 'god.csv'. Did you mean 'good.csv'?"),
    "no table": ([], {}, "TABLE is missing. Give a table and its target, or --demo"),
    "no target": (["good.csv"], {}, "--target COLUMN is missing"),
    "demo and table": (["good.csv", "--demo", "iris"], {}, "--demo brings its own table"),
    "no such column": (["good.csv", "--target", "Y "], {}, "The table has no column 'Y '. Did you mean 'y'?"),
    "target is an id": (["good.csv", "--target", "x"], {}, "The target 'x' looks like an id: 60 distinct values"),
    "empty file": (["t.csv", "--target", "y"], {"t.csv": b""}, "'t.csv' is empty (0 bytes)"),
    "header only": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n"}, "header of 2 columns and no rows"),
    "binary": (["t.csv", "--target", "y"], {"t.csv": bytes(range(256))}, "is a binary file"),
    "ending": (["t.xlsx", "--target", "y"], {"t.xlsx": b"PK\x03\x04"}, "unknown ending"),
    "encoding": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,\xfc\n"}, "not UTF-8 text: line 2 has the byte 0xfc"),
    "delimiter": (["t.csv", "--target", "y"], {"t.csv": b"x y\n1 2\n3 4\n"}, "read as one column, 'x y'"),
    "ragged": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,2\n1,2,3\n"}, "line 3 has 3 fields, the header has 2"),
    "duplicates": (["t.csv", "--target", "y"], {"t.csv": b"x,y,x\n1,2,3\n"}, "duplicate column names: 'x'"),
    "two headers": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,2\nx,y\n"}, "repeats its header in line 3"),
    "empty target": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,\n2,\n"}, "The target 'y' is empty"),
    "constant target": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,5\n2,5\n"}, "The target 'y' is constant"),
    "lone class": (["t.csv", "--target", "y"], {"t.csv": GOOD.encode() + b"\n7,u,c\n"}, "has one row only: 'c'"),
    "infinite target": (["t.csv", "--target", "y"], {"t.csv": b"x,y\n1,1.5\n2,inf\n3,2.5\n"}, "infinite in 1 row"),
    "metric": (["good.csv", "--target", "y", "--scoring", "f11"], {}, "for a single target. Did you mean"),
    "folds": (["good.csv", "--target", "y", "--cv", "50"], {}, "`cv` of 50 is more than the 24 training rows"),
    "grid": (["good.csv", "--target", "y", "--param-grid", "wid"], {}, "Did you mean 'wide'"),
    "grid key": (["good.csv", "--target", "y", "--param-grid", "g.json"], {"g.json": b'{"hiden": [8]}'}, "hidden"),
    "folder": (["good.csv", "--target", "y", "--out", "full"], {"full/mine": b""}, "'full' is not empty"),
    "groups": (["good.csv", "--target", "y", "--groups", "grup"], {}, "there is no 'grup'. Did you mean 'group'?"),
    "few groups": (["good.csv", "--target", "y", "--groups", "group"], {}, "has 2 different values in 60 rows, and"),
    "timeout": (["good.csv", "--target", "y", "--timeout", "-5"], {}, "`timeout` must be a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_message_and_exit_status_2(
    case: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, files, message = REFUSED[case]
    for name, content in files.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(content)
    before = sorted(here.rglob("*"))
    assert main(["search", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("kerastoolkit: ") and message in said.err
    assert sorted(here.rglob("*")) == before


def test_bad_input_is_told_before_tensorflow_is_loaded(run_python: _Run, here: Path) -> None:
    program = """
import sys
from kerastoolkit.cli import main
assert main(["search", "good.csv", "--target", "y", "--scoring", "accurac"]) == 2
assert main(["search", "good.csv", "--target", "y", "--cv", "30"]) == 2
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    assert run_python(program).stderr.count("kerastoolkit: ") == 2


@pytest.mark.parametrize("words", [["search", "--cv", "many"], ["search", "--task", "ranking"], ["serch"], []])
def test_words_that_cannot_be_read_end_with_2_as_well(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("search good.csv --target y --seed 3", "--random-state"),
        ("search good.csv --target y --metric f1", "--scoring"),
        ("search good.csv --target y --grid wide", "--param-grid"),
        ("search good.csv --target y --param_grid=wide", "--param-grid"),
        ("search good.csv --target y --time-budget 60", "--timeout"),
        ("search good.csv --target y --repeats 2", "--n-repeats"),
        ("search good.csv --target y --scorring f1", "--scoring"),
        ("predict folder new.csv --output found.csv", "--out"),
        ("predict folder new.csv --seed 3", None),  # which only a search has
        ("predict folder new.csv more.csv", None),
    ],
)
def test_an_option_by_another_usual_name_gets_the_right_one(
    words: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "unrecognized arguments: " in said
    assert said.rstrip().endswith(f". Did you mean {meant}?") if meant else "Did you mean" not in said


def test_search_then_predict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_breast_cancer(as_frame=True)
    frame = data.frame.iloc[:, [0, 1, 2, 3, -1]].assign(target=data.target_names[data.target])
    frame.to_csv("cells.csv", index=False)
    (here / "grid.json").write_text('{"hidden": [[8], [4]], "epochs": [10]}')
    command = ["search", "cells.csv", "--target", "target", "--param-grid", "grid.json", "--cv", "2", "--scoring", "f1",
               "--n-repeats", "3"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr()
    for line in (
        "cells.csv: 569 rows, 5 columns",
        "mean radius     number",
        "Task: classification, because 'target' holds 2 different words",
        "Metric: f1 (as requested)",
        "Logistic regression: f1 0.",
        "Winner: epochs=10, hidden=(",
        "(± is the sample standard deviation over the folds)",
        " f1 (95% interval ",
        ", 6 folds)",
        "  Logistic regression on the same rows: f1 0.",
        "On 114 rows held out at random: f1 0.",
        f"Report:  {Path('kerastoolkit-cells') / 'report.html'}",
        "Predict: kerastoolkit predict kerastoolkit-cells NEW.csv",
        "Export:  kerastoolkit export kerastoolkit-cells model.onnx",
        "Serve:   kerastoolkit serve kerastoolkit-cells",
    ):
        assert line in said.out
    assert "4 of 4 fits, best f1 0." in said.err and re.search(r"\d (s|min|h) left", said.err)
    assert "tensorflow" not in (said.out + said.err).lower()

    new = frame.drop(columns="target").head(7)
    new.loc[3, "mean radius"] = np.nan
    new = new.astype({"mean area": object})
    new.loc[4, "mean area"] = "much"
    new.to_csv("new.csv", index=False)
    for expected in ("new-predictions.csv", "new-predictions-2.csv"):
        assert main(["predict", "kerastoolkit-cells", "new.csv"]) == 0
        said = capsys.readouterr()
        assert f"7 rows predicted: {expected}" in said.out
        assert "taken as blanks: 1 of 7 in 'mean area' (number)" in said.err
    predicted = pd.read_csv("new-predictions.csv")
    assert list(predicted.columns) == [
        *new.columns, "predicted_target", "probability_benign", "probability_malignant"
    ]  # fmt: skip
    assert set(predicted["predicted_target"]) <= {"benign", "malignant"}

    # What cannot be predicted is told alike.
    new.drop(columns="mean area").to_csv("less.csv", index=False)
    for words, message in (
        (["kerastoolkit-cells", "less.csv"], "lacks 1 column: 'mean area'"),
        (["kerastoolkit-cell", "new.csv"], "There is no folder 'kerastoolkit-cell'"),
        (["kerastoolkit-cells", "nw.csv"], "No such file: 'nw.csv'. Did you mean 'new.csv'?"),
        (["kerastoolkit-cells", "new.csv", "--out", "new.csv"], "exists already, and nothing is overwritten"),
        (["kerastoolkit-cells", "new.csv", "--out", "new.txt"], "must end in .csv or .parquet"),
    ):
        assert main(["predict", *words]) == 2
        assert message in capsys.readouterr().err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "typed", "groups"),
    [
        ([], None, None),  # a script, which has nobody to ask
        ([], "y\n", "patient"),
        ([], "N\n", False),
        ([], "\n", None),
        ([], "", None),  # the terminal is gone
        (["--groups", "patient"], "n\n", "patient"),  # and so nothing is asked
        (["--no-groups", "--no-time"], "y\n", False),
    ],
)
def test_a_terminal_is_asked_what_belongs_together_and_a_script_is_not(
    words: list[str],
    typed: str | None,
    groups: object,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kerastoolkit import experiment

    patient = np.arange(200) // 5
    height = np.random.RandomState(0).randn(40)[patient]
    frame = pd.DataFrame({"patient": patient, "height": height, "y": np.where(height > 0, "a", "b")})
    frame.to_csv("visits.csv", index=False)
    ran: list[experiment.Plan] = []
    monkeypatch.setattr(experiment.Plan, "run", lambda plan, progress: ran.append(plan) or 1 / 0)
    if typed is not None:
        monkeypatch.setattr(sys, "stdin", _Terminal(typed))
        monkeypatch.setattr(sys, "stderr", _Terminal())
    with pytest.raises(ZeroDivisionError):
        main(["search", "visits.csv", "--target", "y", *words])
    said = capsys.readouterr().out
    assert ("Question: 'patient' repeats: 40 values in 200 rows" in said) == (not words)
    assert ran[0].arguments["groups"] == groups
    assert ("8 of the 40 values of 'patient', none of which is among" in said) == (groups == "patient")


EVIL = "\x1b]0;owned\x07\x1b[2J\u202e"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_a_terminal_obeys_nothing_of_a_table_or_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({f"size{EVIL}": np.arange(60) % 7 + 0.5, "group": ["u", "v"] * 30, "y": ["b"] * 60})
    frame.loc[::3, "y"] = f"a{EVIL}"
    table, new = f"we{EVIL}ird.csv", f"new{EVIL}.csv"
    frame.to_csv(table, index=False)
    frame.assign(**{f"size{EVIL}": "much"}).to_csv(new, index=False)
    (here / "grid.json").write_text('{"hidden": [[4]], "epochs": [1]}')
    spelt = r"\x1b]0;owned\x07\x1b[2J\u202e"
    for words, status in (
        (["search", table, *"--target y --param-grid grid.json --cv 2 --n-repeats 0 --out".split(), f"out{EVIL}"], 0),
        (["predict", f"out{EVIL}", new, "--out", f"found{EVIL}.csv"], 0),  # with a warning
        (["predict", f"none{EVIL}", table], 2),
        (["search", f"none{EVIL}.csv", "--target", "y"], 2),
        (["search", table, "--target", f"y{EVIL}"], 2),
        (["search", table, "--target", "y", "--scoring", EVIL], 2),
        (["search", table, "--target", "y", "--param-grid", EVIL], 2),
    ):
        assert main(words) == status
        said = "".join(capsys.readouterr())
        assert not set(said) & set("\x1b\x07\u202e")
        assert spelt in said
    with pytest.raises(SystemExit):
        main(["predict", "out", table, new])  # as a shell fills in a star
    said = capsys.readouterr().err
    assert "\x1b" not in said and f"unrecognized arguments: new{spelt}.csv" in said
    # Data stay as they are.
    assert f"probability_a{EVIL}" in pd.read_csv(f"found{EVIL}.csv").columns


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_a_terminal_would_obey_or_its_encoding_lacks_is_spelt_out(encoding: str) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding, newline="\n", write_through=True)
    _say("R² 0.5 ± 0.1 of '日本'\nsecond \ud800\x1b[31m line", stream)
    first = {
        "ascii": r"R\xb2 0.5 \xb1 0.1 of '\u65e5\u672c'",
        "cp1252": r"R² 0.5 ± 0.1 of '\u65e5\u672c'",
        "utf-8": "R² 0.5 ± 0.1 of '日本'",
    }[encoding]
    assert written.getvalue().decode(encoding).splitlines() == [first, r"second \ud800\x1b[31m line"]


def test_a_folder_that_could_not_be_written_is_said_with_status_1(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerastoolkit.experiment import Experiment

    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Experiment, "_write_report", fails)
    (here / "grid.json").write_text('{"hidden": [[4]], "epochs": [1]}')
    assert main("search good.csv --target y --param-grid grid.json --cv 2 --n-repeats 0 --out out".split()) == 1
    said = capsys.readouterr()
    assert "kerastoolkit: Not all of the folder 'out' could be written (OSError: " in said.err
    assert "Winner: " in said.out
    assert main(["predict", "out", "good.csv"]) == 0


def test_a_second_search_takes_a_folder_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kerastoolkit import experiment

    asked: list[Path] = []
    monkeypatch.setattr(experiment.Plan, "run", lambda plan, progress: asked.append(plan.out) or 1 / 0)
    (here / "kerastoolkit-good").mkdir()
    (here / "kerastoolkit-good-2").symlink_to(here / "somewhere else")  # which is not there
    with pytest.raises(ZeroDivisionError):
        main(["search", "good.csv", "--target", "y"])
    assert asked == [Path("kerastoolkit-good-3")]


def test_predictions_are_not_written_through_a_link(here: Path) -> None:
    (here / "new.csv").symlink_to(here / "somewhere.csv")
    (here / "good-predictions.csv").symlink_to(here / "somewhere.csv")
    with pytest.raises(ParameterError, match="'new.csv' exists already"):
        _checked_output(argparse.Namespace(out="new.csv", table="good.csv"))
    assert _checked_output(argparse.Namespace(out=None, table="good.csv")) == Path("good-predictions-2.csv")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_ends_with_130_and_a_readable_folder(here: Path) -> None:
    # Of 48 candidates most are still to come when the first results are there.
    words = ["search", "--demo", "iris", "--out", "out", "--param-grid", "wide"]
    command = [sys.executable, "-m", "kerastoolkit.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (here / "out" / "results.csv").exists():
            time.sleep(0.2)
            assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=1500)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted. What was found so far: out" in said and "Traceback" not in said
    assert "To resume, give the same command with --out out." in said
    assert json.loads((here / "out" / "run.json").read_text())["status"] == "interrupted"
    assert "This run was interrupted after" in (here / "out" / "report.html").read_text(encoding="utf-8")
