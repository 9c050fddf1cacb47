"""The report: one page that holds everything, obeys nothing and survives a part that fails."""

from __future__ import annotations

import copy
import html
import html.parser
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kerastoolkit import plotting
from kerastoolkit._words import printable
from kerastoolkit.evaluation import FoldScores
from kerastoolkit.experiment import Experiment, Progress, load_experiment, plan_experiment
from kerastoolkit.experiment.report import render_report
from kerastoolkit.experiment.run import Run


@pytest.mark.parametrize("which", ["cancer", "titanic", "diabetes"])
def test_the_report_is_one_page_that_fetches_nothing(
    which: str, request: pytest.FixtureRequest, page: Any, report: Any
) -> None:
    found = request.getfixturevalue(which)
    folder = found[1] / "out" if which == "titanic" else found[1]
    text = report(folder)
    found = page(text)
    assert found.open == []
    assert found.fetched == []
    assert "<script" not in text and "@import" not in text and "url(" not in text.replace("url(#", "")
    for title in ("Data", "Candidates and baselines", "Learning curves", "Test", "What was done", "Using it"):
        assert title in found.text
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
def test_figures_can_be_read_on_a_telephone_and_on_a_desk(
    which: str, request: pytest.FixtureRequest, report: Any
) -> None:
    text = report(request.getfixturevalue(which)[1])
    figures = re.findall(
        r'<div class="(broad|narrow|scrolls)">(?:<div style="min-width: ([\d.]+)in">)?(<svg.*?</svg>)', text, re.DOTALL
    )
    kinds = [kind for kind, _, _ in figures]
    assert kinds.count("broad") + kinds.count("scrolls") == text.count("<figure>")
    assert kinds.count("broad") == kinds.count("narrow") >= 2
    for kind, least, svg in figures:
        assert kind == "broad" or _smallest_text(svg, max(340.0, 96 * float(least or 0))) > 9
        assert kind == "narrow" or _smallest_text(svg, 850 if kind == "broad" else 400) > 9


def test_the_report_says_how_to_take_a_simple_model_that_is_ahead(titanic: tuple[Experiment, Path], page: Any) -> None:
    from kerastoolkit.evaluation import compare_on_folds

    experiment, folder = titanic
    rival = max(experiment.baselines, key=lambda scores: scores.mean).name
    for scores, outcome, words in (
        ((0.1, 0.2, 0.1), "behind", "Prefer it, unless you need a network."), ((0.9, 0.9, 0.8), "ahead", "is ahead of")
    ):  # fmt: skip
        told = copy.copy(experiment)
        told.comparison = compare_on_folds(
            FoldScores("the best network", "accuracy", scores, 0.1),
            FoldScores(rival.lower(), "accuracy", (0.5, 0.55, 0.5), 0.1),
            500,
            250,
        )
        assert told.comparison.outcome == outcome and words in told.explain()
        text = page(render_report(told)).text
        assert told.explain() in text and "The baselines on the same rows" in text
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


def test_the_report_says_which_rows_stopped_the_winner_and_what_it_kept(
    cancer: tuple[Experiment, Path, list[Progress]], diabetes: tuple[Experiment, Path], page: Any, report: Any
) -> None:
    for experiment, folder, n_rows in ((*cancer[:2], 455), (*diabetes, 353)):
        history = experiment.history
        best = int(np.argmin(history["val_loss"])) + 1
        assert experiment.best_epoch == load_experiment(folder).best_epoch == best
        text = page(report(folder)).text
        assert (
            f"The winner, trained once more on the {n_rows} training rows: it learned from 85% of them and was "
            f"validated on the other 15%. It trained for {len(history['loss'])} epochs and kept the weights of "
            f"epoch {best}."
        ) in text
        assert f">kept: epoch {best}</text>" in report(folder)
        assert "all training rows" not in text
        assert "Each network learns from 85% of the rows it is given and validates on the other 15%: " in text
    assert "all training rows" not in "".join(told.message for told in cancer[2])


def test_the_report_tells_only_of_kinds_of_columns_that_are_there(
    cancer: tuple[Experiment, Path, list[Progress]], titanic: tuple[Experiment, Path], report: Any
) -> None:
    of_numbers, of_words = (report(folder) for folder in (cancer[1], titanic[1] / "out"))
    for title in ("Preparation", "Numbers", "Categories", "Dates", "Target"):
        assert (f"<dt>{title}</dt>" in of_numbers) == (title in ("Preparation", "Numbers"))
        assert (f"<dt>{title}</dt>" in of_words) == (title in ("Preparation", "Numbers", "Categories"))


def test_a_grid_that_changes_what_is_watched_is_told_of(cancer: tuple[Experiment, Path, list[Progress]]) -> None:

    other = copy.copy(cancer[0])
    other.record = {**other.record, "param_grid": [{"validation_split": [0.1], "callbacks__patience": [2]}]}
    assert "Candidates with their own callbacks or validation_split differ in this." in render_report(other)


# --------------------------------------------------------------------------------------------- what is saved is shown


@pytest.mark.parametrize(
    ("took", "saved", "shown"), [(119.96, 120.0, "2 min"), (2.4499, 2.4, "2 s"), (2.46, 2.5, "2 s")]
)
def test_a_loaded_experiment_shows_the_seconds_that_were_saved(
    took: float, saved: float, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Any, report: Any
) -> None:
    monkeypatch.setattr(Run, "seconds", took)
    monkeypatch.setattr(Run, "_train", lambda run: None)
    experiment = plan_experiment(tables.plain(), "y", out=tmp_path / "out").run()
    assert experiment.seconds == json.loads((tmp_path / "out" / "run.json").read_text())["seconds"] == saved
    loaded = load_experiment(tmp_path / "out")
    assert loaded.seconds == saved
    loaded.save(tmp_path / "again")
    text = report(tmp_path / "again")
    assert f" · {shown}</p>" in text
    assert text == report(tmp_path / "out")


@pytest.mark.parametrize("which", ["cancer", "diabetes", "odd"])
def test_the_report_of_a_loaded_experiment_is_the_one_that_was_saved(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, report: Any
) -> None:
    folder = request.getfixturevalue(which)[1]
    load_experiment(folder).save(tmp_path / "again")
    again, name = report(tmp_path / "again"), folder.name
    assert again.replace("serve again", f"serve {name}") != again
    for told in ("serve {}", "export {} model", "predict {} NEW", "&quot;{}&quot;"):
        again = again.replace(told.format("again"), told.format(name))
    assert again == report(folder)


def test_so_is_that_of_what_was_given_as_arrays_left_out_or_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Any, report: Any
) -> None:
    monkeypatch.setattr(Run, "_train", lambda run: None)
    grid = {"hidden": [(8, 4)], "optimizer__learning_rate": np.array([0.1, 0.01])}
    experiment = plan_experiment(tables.plain(), "y", param_grid=grid, random_state=np.int64(3)).run()
    experiment.left_out = [{"hidden": (8, 4), "optimizer__learning_rate": np.float64(0.1)}]
    experiment.failed = [{"params": {"hidden": (8, 4)}, "error": "ValueError: no"}]
    experiment.baselines = [FoldScores("Most frequent class", "accuracy", (0.5, 0.5), 0.1)]
    experiment.save(tmp_path / "out")
    text = report(tmp_path / "out")
    assert "hidden=8-4, optimizer__learning_rate=0.1" in text and "hidden=8-4: ValueError: no" in text
    assert html.escape('"optimizer__learning_rate": [0.1, 0.01]') in text and html.escape('"random_state": 3') in text
    load_experiment(tmp_path / "out").save(tmp_path / "again")
    assert report(tmp_path / "again") == text


# ---------------------------------------------------------------------------- text of the user's: shown, never obeyed


OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # but for line breaks


def test_labels_of_all_kinds_come_through_to_the_report(
    odd: tuple[Experiment, Path, str], tables: Any, page: Any, report: Any
) -> None:
    text = report(odd[1])
    found = page(text)
    assert found.open == [] and text.count("<figure>") == 3
    assert "could not be" not in found.text
    for label in tables.LABELS:
        assert printable(label) in found.text  # in the table
        shown = printable(label)
        drawn = shown if len(shown) <= 16 else shown[:15] + "…"
        assert len(re.findall(rf">{re.escape(html.escape(drawn, quote=False))}</text>", text)) == 2
    assert "<script" not in text and "<img" not in text
    assert not OBEYED.search(text)
    assert re.search(r'http-equiv="Content-Security-Policy"\s+content="default-src \'none\';', text)


def test_what_the_data_says_is_escaped_in_the_report() -> None:
    frame = pd.DataFrame({"<b>x</b>": np.random.rand(60), "k": ["<script>alert(1)</script>", "&"] * 30})
    frame["<i>y"] = np.where(frame["<b>x</b>"] > 0.5, "<u>up", "down")
    plan = plan_experiment(frame, "<i>y", name="<script>")

    text = render_report(Run(plan, None).experiment)
    assert "<script" not in text and "<b>x</b>" not in text and "<i>y" not in text
    assert "&lt;script&gt;" in text


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


PARTS = ["name", "target", "task", "scoring", "columns", "decisions", "record", "status", "seconds", "baselines",
         "results", "left_out", "failed", "history", "test", "baseline_tests", "comparison"]  # fmt: skip


@pytest.mark.parametrize("forge", [_with_markup, _markup_for_numbers], ids=["text", "numbers"])
@pytest.mark.parametrize("part", PARTS)
def test_nothing_in_a_record_becomes_markup_of_the_report(
    part: str, forge: Any, cancer: tuple[Experiment, Path, list[Progress]], page: Any
) -> None:

    whole = copy.copy(cancer[0])
    whole.left_out = [{"hidden": [8, 4], "activation": "relu"}]
    whole.failed = [{"params": {"hidden": [8]}, "error": "ValueError: no"}]
    text = render_report(_forgery(whole, part, forge))
    found = page(text)
    assert found.open == [] and found.fetched == []
    assert not re.search("<script|<img", text) and not OBEYED.search(text)
    assert ("<script>alert(1)</script><img" in found.text) == ("&lt;script" in text)
    # Whatever cannot be told of one part, the others are there.
    for title in {"Data", "Learning curves", "What was done", "To repeat it"} - {
        {"columns": "Data", "record": "Data", "history": "Learning curves", "results": "To repeat it"}.get(part)
    }:
        assert f"<h2>{title}</h2>" in text
    if forge is _with_markup and part not in ("task", "status", "test", "seconds", "history"):
        assert printable(MARKUP) in found.text


# --------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize("function", ["plot_confusion", "plot_candidate_scores", "plot_learning_curves"])
def test_a_figure_that_fails_leaves_a_notice_and_costs_nothing_else(
    function: str,
    cancer: tuple[Experiment, Path, list[Progress]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: Any,
    report: Any,
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise ValueError("<no> figure\nof the second line")

    monkeypatch.setattr(plotting, function, fails)
    cancer[0].save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in cancer[1].iterdir()
    )
    text = report(tmp_path / "out")
    found = page(text)
    assert found.open == [] and text.count("<figure>") == 2
    assert found.text.count("This figure could not be drawn: ValueError: <no> figure (") == 1


def test_a_warning_while_a_figure_is_drawn_is_no_failure_of_it() -> None:
    def draw(ax: Any) -> None:
        warnings.warn("something about fonts", UserWarning, stacklevel=1)
        ax.set_title("日本語")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "日本語" in plotting.as_svg(draw, size=(2, 2), label="glyphs")


def test_the_report_ends_with_the_commands_that_take_the_model_elsewhere(
    titanic: tuple[Experiment, Path], page: Any
) -> None:
    experiment = titanic[0]
    for name, typed in (
        (None, "FOLDER"),
        ("titanic", "titanic"),
        ("my 'best' <b>run</b>", shlex.quote("my 'best' <b>run</b>")),
        ("-run", "./-run"),
    ):
        written = render_report(experiment, name)
        text = page(written).text
        assert f"kerastoolkit export {typed} model.onnx\nkerastoolkit serve {typed}" in text
        assert ("is called FOLDER" in text) == (name is None)
        assert f"load_experiment({json.dumps(name or 'FOLDER')})" in text and "<b>run" not in written
