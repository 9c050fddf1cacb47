"""Figures: the numbers behind them, and SVG that stands alone."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.datasets import load_iris

from kerastoolkit import plotting
from kerastoolkit.exceptions import ParameterError

HISTORY = {"loss": [1.0, 0.5, 0.4, 0.3], "val_loss": [1.1, 0.6, 0.7, 0.8]}
CANDIDATES = {"hidden 8": (0.9, 0.92, 0.91), "hidden 16": (0.93, 0.95, 0.94), "broken": (np.nan,) * 3}
BASELINES = {"Most frequent class": (0.5, 0.5, 0.51), "Logistic regression": (0.91, 0.92, 0.93)}

DRAWINGS: dict[str, Callable[[Any], Any]] = {
    "curves": lambda ax: plotting.plot_learning_curves(HISTORY, ax=ax),
    "curves without validation": lambda ax: plotting.plot_learning_curves({"loss": [1.0, 0.5]}, ax=ax),
    "curves of one epoch": lambda ax: plotting.plot_learning_curves({"loss": [1.0]}, best_epoch=1, ax=ax),
    "confusion": lambda ax: plotting.plot_confusion(["a", "b", "b"], ["a", "b", "a"], ["a", "b"], ax=ax),
    "confusion of many": lambda ax: plotting.plot_confusion(range(40), range(40), range(40), ax=ax),
    "predictions": lambda ax: plotting.plot_predictions(np.arange(9.0), np.arange(9.0) + 1, ax=ax),
    "residuals": lambda ax: plotting.plot_predictions(np.arange(9.0), np.arange(9.0) + 1, residuals=True, ax=ax),
    "candidates": lambda ax: plotting.plot_candidate_scores(CANDIDATES, BASELINES, metric="accuracy", ax=ax),
    "candidates, narrow": lambda ax: plotting.plot_candidate_scores(CANDIDATES, BASELINES, names="above", ax=ax),
    "only baselines": lambda ax: plotting.plot_candidate_scores({}, BASELINES, ax=ax),
}


def _labels(axes: Any) -> list[str]:
    return [str(line.get_label()) for line in axes.get_lines()]


def test_an_epoch_is_marked_only_where_its_weights_were_kept() -> None:
    from matplotlib.figure import Figure

    from kerastoolkit import KerasClassifier

    X, y = load_iris(return_X_y=True)
    for restores in (True, False):
        stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=9, restore_best_weights=restores)
        fitted = KerasClassifier(hidden=(), epochs=4, validation_split=0.2, callbacks=stop, random_state=0).fit(X, y)
        best = int(np.argmin(fitted.history_["val_loss"])) + 1
        for quantity in ("loss", "accuracy"):
            drawn = _labels(plotting.plot_learning_curves(fitted, quantity, ax=Figure().subplots()))
            assert drawn == ["training rows", "validation rows", *[f"kept: epoch {best}"] * restores]
            # A history has no word of what was kept, even if it is plain which epoch was best.
            for history in (fitted.history_, fitted.model_.history):
                assert plotting.learning_curves(history, quantity).best_epoch is None
        curves = plotting.learning_curves(fitted)
        assert curves.epochs.tolist() == [1, 2, 3, 4]
        assert curves.train.tolist() == fitted.history_["loss"]
    assert plotting.learning_curves(HISTORY, best_epoch=2).best_epoch == 2


@pytest.mark.parametrize(
    ("history", "options", "message"),
    [
        (HISTORY, {"quantity": "los"}, "`quantity` is 'los', and the history has 'loss', 'val_loss'. Did you mean"),
        (HISTORY, {"best_epoch": 5}, "`best_epoch` must be one of the 4 epochs, from 1; got 5."),
        (HISTORY, {"best_epoch": 0}, "`best_epoch` must be one of the 4 epochs, from 1; got 0."),
        ({"loss": [1.0, 0.5], "val_loss": [1.0]}, {}, "2 values of 'loss' and 1 of 'val_loss', and does not say"),
        ([1.0, 0.5], {}, "`history` must be a fitted estimator, its `history_`, or"),
    ],
)
def test_a_history_that_cannot_be_drawn_is_refused(history: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        plotting.learning_curves(history, **options)
    assert message in str(error.value)


def test_a_training_of_one_epoch_is_seen() -> None:
    from matplotlib.figure import Figure

    axes = plotting.plot_learning_curves({"loss": [1.0], "val_loss": [2.0]}, ax=Figure().subplots())
    assert [line.get_marker() for line in axes.get_lines()] == ["o", "o"]


def _contrast(one: np.ndarray, other: np.ndarray) -> float:
    """The ratio by which WCAG 2 measures whether text can be read; 4.5 is asked for."""

    def luminance(colour: np.ndarray) -> float:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_numbers_in_a_confusion_can_be_read_on_a_light_page_and_on_a_dark_one(scheme: int) -> None:
    from matplotlib.figure import Figure

    from kerastoolkit.experiment._page import STYLE

    def colour(name: str) -> np.ndarray:
        found = re.findall(rf"--{name}: #(\w{{6}})", STYLE)[scheme]
        return np.array([int(found[place : place + 2], 16) / 255 for place in (0, 2, 4)])

    axes = plotting.plot_confusion(["a", "b"], ["a", "a"], ["a", "b"], ax=Figure().subplots())
    assert {text.get_color() for text in axes.texts} == {plotting._INK}
    cells = [patch for patch in axes.patches if patch.get_alpha()]
    assert len(cells) == 2
    for cell in cells:
        name = {plotting.BLUE: "blue", plotting.ORANGE: "orange"}[to_hex(cell.get_facecolor())]
        background = cell.get_alpha() * colour(name) + (1 - cell.get_alpha()) * colour("paper")
        assert _contrast(colour("ink"), background) > 4.5


def test_names_stand_beside_the_lines_or_above_them() -> None:
    from matplotlib.figure import Figure

    beside, above = (
        plotting.plot_candidate_scores(CANDIDATES, BASELINES, names=names, ax=Figure().subplots())
        for names in ("beside", "above")
    )
    names = [*plotting.candidate_scores(CANDIDATES, BASELINES).names]
    assert [label.get_text() for label in beside.get_yticklabels()] == names
    assert [text.get_text() for text in above.texts[:4]] == names  # and one that is far away
    assert [text.get_position()[1] for text in above.texts[:4]] == [place - 0.4 for place in range(4)]
    assert not above.get_yticklabels()


def test_confusion_counts_true_by_predicted() -> None:
    found = plotting.confusion(np.array(["a", "a", "b"]), np.array(["a", "b", "b"]), ["a", "b", "c"])
    assert found.counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert found.shares[0].tolist() == [0.5, 0.5, 0.0]
    assert found.shares[2].tolist() == [0.0, 0.0, 0.0]


def test_many_points_are_thinned_and_said() -> None:
    found = plotting.predictions(np.arange(10_000.0), np.arange(10_000.0))
    assert (len(found.y_true), found.n_rows) == (2000, 10_000)
    assert np.array_equal(found.residuals, found.y_true - found.y_pred)


def test_models_come_best_first_and_failures_are_left_out() -> None:
    found = plotting.candidate_scores(CANDIDATES, BASELINES)
    assert found.names == ("hidden 16", "Logistic regression", "hidden 8", "Most frequent class")
    assert found.is_baseline == (False, True, False, True)
    only_one = plotting.candidate_scores(CANDIDATES, BASELINES, max_candidates=1)
    assert only_one.n_left_out == 1 and "hidden 8" not in only_one.names
    errors = plotting.candidate_scores(CANDIDATES, BASELINES, lower_is_better=True)
    assert errors.names == found.names[::-1]


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_figure_for_a_page_is_xml_that_refers_to_nothing_outside(drawing: str) -> None:
    svg = plotting.as_svg(DRAWINGS[drawing], size=(4, 3), label=f'{drawing} "<&>"')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == f'{drawing} "<&>"'
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    assert set(re.findall(r"https?://[^\s\"']+", svg)) <= {"http://www.w3.org/2000/svg"}
    # In the page's own colours, light or dark.
    assert "var(--ink)" in svg
    assert "#0072b2" not in svg


# Labels that somebody's data may hold, and how they are drawn.
ODD = {
    "$10-$20": "$10-$20",
    "a_$\\frac{$": "a_$\\frac{$",
    "\\$5 & <b>": "\\$5 & <b>",
    "_hidden": "_hidden",
    "100% #1 {x} ~": "100% #1 {x} ~",
    "#0072b2": "#0072b2",  # a colour of ours
    'xlink:href="x"': 'xlink:href="x"',
    "font: 10px a": "font: 10px a",
    "日本語": "日本語",
    "עברית": "עברית",
    "two\nlines\x1b\0": "two\\nlines\\x1b\\…",
    "\u202e\ud800": "\\u202e\\ud800",
    "": "''",
    "x" * 1000: "x" * 15 + "…",
}
IN_ORDER = list(ODD)
DRAWINGS_OF_TEXT: dict[str, Callable[[Any], Any]] = {
    "classes": lambda ax: plotting.plot_confusion(IN_ORDER, IN_ORDER[1:] + IN_ORDER[:1], IN_ORDER, ax=ax),
    "names": lambda ax: plotting.plot_candidate_scores(
        dict.fromkeys(IN_ORDER, (0.5, 0.6)), {}, metric="$a$-$b$", ax=ax
    ),
    "quantity": lambda ax: plotting.plot_learning_curves({"$a$-$b$": [1.0, 0.5]}, "$a$-$b$", ax=ax),
}


def _texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def _assert_as_written(drawing: str, texts: list[str]) -> None:
    if drawing == "classes":
        assert all(texts.count(shown) == 2 for shown in ODD.values()), texts
    elif drawing == "names":
        longer = {"two\\nlines\\x1b\\…": "two\\nlines\\x1b\\x00", "x" * 15 + "…": "x" * 59 + "…"}
        assert {longer.get(shown, shown) for shown in ODD.values()} <= set(texts)
    assert drawing == "classes" or any("$a$-$b$" in text for text in texts)


@pytest.mark.parametrize("drawing", DRAWINGS_OF_TEXT)
@pytest.mark.parametrize("settings", [{}, {"text.usetex": True}, {"axes.formatter.use_mathtext": True}], ids=str)
def test_text_in_a_figure_for_a_page_is_drawn_as_it_is_written(drawing: str, settings: dict[str, Any]) -> None:
    import matplotlib

    with matplotlib.rc_context(settings):
        svg = plotting.as_svg(DRAWINGS_OF_TEXT[drawing], size=(4, 3), label="\x1b$\ud800")
    _assert_as_written(drawing, _texts(svg))
    assert "font-family" not in svg  # the page's own
    assert not any("mathdefault" in text for text in _texts(svg))


@pytest.mark.parametrize("drawing", DRAWINGS_OF_TEXT)
@pytest.mark.filterwarnings("ignore:Glyph .* missing", "ignore:Matplotlib currently does not support")
def test_text_on_axes_of_the_users_own_is_drawn_as_it_is_written(drawing: str) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_title("$\\alpha$ is yours")
    DRAWINGS_OF_TEXT[drawing](ax)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        ax.figure.savefig(file, format="svg")
    texts = _texts(re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL))
    _assert_as_written(drawing, texts)
    assert "$\\alpha$ is yours" not in texts  # drawn as the mathematics that it is


def test_numbers_on_a_logarithmic_axis_stay_mathematics() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_xscale("log")
    plotting.plot_candidate_scores({"$one$": (1.0, 2.0)}, {"two": (100.0, 200.0)}, ax=ax)
    assert all(tick.get_parse_math() for tick in ax.get_xticklabels())
    assert not any(tick.get_parse_math() for tick in ax.get_yticklabels())


def test_the_same_figure_gives_the_same_text() -> None:
    once, again = (plotting.as_svg(DRAWINGS["curves"], size=(4, 3), label="curves") for _ in range(2))
    assert once == again


def test_without_axes_new_ones_are_made() -> None:
    import matplotlib.pyplot

    axes = plotting.plot_learning_curves(HISTORY)
    assert _labels(axes) == ["training rows", "validation rows"]
    matplotlib.pyplot.close("all")
