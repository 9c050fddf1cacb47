"""The request log: what is kept, what is left out, and which files are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerastoolkit import serving
from kerastoolkit.exceptions import JournalError, ParameterError, SavedFileError
from kerastoolkit.serving import _log

GOOD = {"age": 40, "income (k)": 50.5, "plan": "basic"}
Ask = Callable[..., Any]


def kept(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        return [dict(line) for line in file.execute("SELECT * FROM requests ORDER BY time, id, place")]


def close(application: Any) -> None:
    application.state.log.close()


def test_every_row_is_kept_with_its_answer(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    application = serving.app(files["churn"], log=path)
    answers = [ask(application, "/predict", rows).json for rows in ([GOOD], [GOOD, {**GOOD, "plan": None}])]
    ask(application, "/predict", [{}])  # refused, and so not kept
    ask(application, "/v1/models/model:predict", {"instances": [GOOD]})
    close(application)
    lines = kept(path)
    assert [line["place"] for line in lines] == [0, 0, 1, 0]
    assert [line["id"] for line in lines[:3]] == [answers[0]["id"], answers[1]["id"], answers[1]["id"]]
    assert json.loads(lines[2]["row"]) == {**GOOD, "plan": None}
    assert [json.loads(line["answer"]) for line in lines[1:3]] == answers[1]["predictions"]
    assert {line["model"] for line in lines} == {hashlib.sha256(files["churn"].read_bytes()).hexdigest()}
    assert lines[0]["time"][4] == "-" and lines[0]["time"].endswith("Z")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 or os.name == "nt"
    # another server goes on in the same file
    again = serving.app(files["churn"], log=path)
    ask(again, "/predict", [GOOD])
    close(again)
    assert len(kept(path)) == 5


def test_columns_are_left_out(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    application = serving.app(files["churn"], log=path, log_exclude=["age", "plan"])
    ask(application, "/predict", [GOOD])
    close(application)
    assert [json.loads(line["row"]) for line in kept(path)] == [{"income (k)": 50.5}]
    assert b"basic" not in path.read_bytes()


def test_a_sample_of_the_requests_is_kept(
    ask: Ask, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "requests.db"
    application = serving.app(files["churn"], log=path, sample=0.25)
    draws = iter([0.1, 0.25, 0.9, 0.2])
    monkeypatch.setattr(_log.random, "random", lambda: next(draws))
    answers = [ask(application, "/predict", [GOOD]).json["id"] for _ in range(4)]
    close(application)
    assert {line["id"] for line in kept(path)} == {answers[0], answers[3]}


def test_nothing_is_kept_unless_it_is_asked_for(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    application = serving.app(files["churn"])
    assert ask(application, "/predict", [GOOD]).status == 200
    assert application.state.log is None and not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_and_the_server_goes_on(
    ask: Ask, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.db"
    application = serving.app(files["churn"], log=path)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE VIEW other AS SELECT 1")
    assert ask(application, "/predict", [GOOD, GOOD]).status == 200
    close(application)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (lost,) = [line for line in lines if line.get("event") == "not logged"]
    assert lost["rows"] == 2 and "no request log of kerastoolkit" in lost["error"]
    assert b"kerastoolkit_log_lost_total 2.0" in ask(application, "/metrics").body


def test_a_queue_that_is_full_loses_rows_and_says_so(
    ask: Ask, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "_MAX_WAITING", 1)
    monkeypatch.setattr(_log.RequestLog, "_start", lambda self: None)  # nobody writes
    application = serving.app(files["churn"], log=tmp_path / "requests.db")
    for _ in range(3):
        assert ask(application, "/predict", [GOOD]).status == 200
    assert b"kerastoolkit_log_lost_total 2.0" in ask(application, "/metrics").body


@pytest.mark.parametrize("kind", ["text", "another program", "a view", "a folder", "a newer format"])
def test_other_files_are_refused_and_stay_as_they_were(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "requests.db"
    if kind == "text":
        path.write_text("not a database, " * 20)
    elif kind == "a folder":
        path.mkdir()
    else:
        statements = {
            "another program": "CREATE TABLE notes (text)",
            "a view": f"PRAGMA application_id = {_log._APPLICATION}; CREATE VIEW requests AS SELECT 1",
            "a newer format": f"PRAGMA application_id = {_log._APPLICATION}; PRAGMA user_version = 9; {_log._TABLE}",
        }
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.executescript(statements[kind])
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(SavedFileError, match="is no request log of kerastoolkit"):
        serving.app(files["churn"], log=path)
    if kind in ("text", "another program"):
        assert path.read_bytes() == before


def test_arguments_are_checked(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="`log_exclude` names 'aeg', which is no column. Did you mean 'age'"):
        serving.app(files["churn"], log=tmp_path / "requests.db", log_exclude=["aeg"])
    with pytest.raises(ParameterError, match="`sample` must be a fraction"):
        serving.app(files["churn"], log=tmp_path / "requests.db", sample=0)
    with pytest.raises(JournalError, match="cannot be written"):
        serving.app(files["churn"], log=tmp_path / "no folder" / "requests.db")
