"""Figures of results: learning curves, confusion, predictions against true values, candidates beside baselines.

Each figure is computed first, as a small record of numbers that can be tested and read, and drawn second. This is the
only file that imports matplotlib. `as_svg` draws without pyplot, so that no window system and no global figure is
involved, and leaves the colours to the page: text and axes follow its light or dark scheme.

Labels come from the user's data, and are drawn as they are written: matplotlib would take "$10-$20" for mathematics.

The colours are those of Okabe and Ito, which can be told apart with any kind of colour vision; two series in one figure
also differ in line style or shape.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kerastoolkit._words import did_you_mean, printable, quoted
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CandidateScores",
    "Confusion",
    "LearningCurves",
    "Predictions",
    "as_svg",
    "candidate_scores",
    "confusion",
    "learning_curves",
    "plot_candidate_scores",
    "plot_confusion",
    "plot_learning_curves",
    "plot_predictions",
    "predictions",
]

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
# Stand-ins that `as_svg` replaces by the page's own variables; by themselves they read well on white.
_INK, _MUTED, _LINE = "#1f2a36", "#5b6876", "#c9d1da"
_PAGE_COLOURS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _LINE: "var(--line)",
                 BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)"}  # fmt: skip
# Text as it is written: neither as matplotlib's mathematics, nor as TeX if the user's settings ask for it. On the
# user's own axes, the numbers beside an axis and the legend stay as they are: the user may want mathematics there.
_LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}
_LITERAL_EVERYWHERE: dict[Any, Any] = {
    "text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False
}  # fmt: skip
_MAX_LABELLED_CLASSES = 20
_MAX_POINTS = 2000


# -------------------------------------------------------------------------------------------------- learning curves


class LearningCurves(NamedTuple):
    """What to draw of a training: curves over the epochs, and the epoch whose weights were kept.

    Attributes:
        epochs: Epoch numbers from 1, shape `(n_epochs,)`.
        train: Values on the training rows, shape `(n_epochs,)`.
        validation: Values on the validation rows, shape `(n_epochs,)`; None without any.
        best_epoch: The epoch whose weights were restored after training, counted from 1; None if none were.
        quantity: Name of what is drawn, such as `"loss"`.
    """

    epochs: np.ndarray
    train: np.ndarray
    validation: np.ndarray | None
    best_epoch: int | None
    quantity: str


def learning_curves(history: object, quantity: str = "loss", *, best_epoch: int | None = None) -> LearningCurves:
    """Computes the curves of one quantity of a training.

    Args:
        history: A fitted estimator; or values of each quantity by epoch, as in its `history_`; or what
            `keras.Model.fit` returns.
        quantity: Which quantity, such as `"accuracy"`. Defaults to `"loss"`.
        best_epoch: The epoch whose weights were restored after training, counted from 1. Defaults to `None`: the
            estimator's `best_epoch_`; none for a history, which does not know it.

    Returns:
        A `LearningCurves`.

    Raises:
        ParameterError: The history has no such quantity or epoch, or the validation rows were not scored in every
            epoch.
    """
    if best_epoch is None:
        best_epoch = getattr(history, "best_epoch_", None)
    history = getattr(history, "history_", getattr(history, "history", history))
    if not isinstance(history, Mapping):
        raise ParameterError(
            "`history` must be a fitted estimator, its `history_`, or what keras.Model.fit returns; got "
            f"{_label(repr(history), 60)}."
        )
    if quantity not in history:
        known = ", ".join(map(quoted, history)) or "nothing"
        raise ParameterError(
            f"`quantity` is {quoted(quantity)}, and the history has {known}.{did_you_mean(quantity, list(history))}"
        )
    train = np.asarray(history[quantity], dtype=float)
    validation = None
    if f"val_{quantity}" in history:
        validation = np.asarray(history[f"val_{quantity}"], dtype=float)
        if len(validation) != len(train):
            raise ParameterError(
                f"`history` has {len(train)} values of {quoted(quantity)} and {len(validation)} of "
                f"{quoted('val_' + quantity)}, and does not say to which epochs they belong. To draw the training rows "
                f"alone, pass {{{quantity!r}: history[{quantity!r}]}}."
            )
    if best_epoch is not None and not 1 <= best_epoch <= len(train):
        raise ParameterError(f"`best_epoch` must be one of the {len(train)} epochs, from 1; got {best_epoch!r}.")
    return LearningCurves(np.arange(1, len(train) + 1), train, validation, best_epoch, quantity)


def plot_learning_curves(
    history: object, quantity: str = "loss", *, best_epoch: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draws one quantity over the epochs, on training and on validation rows.

    A dotted line marks the epoch whose weights were restored after training, if it is known that some were:

    >>> axes = plot_learning_curves(classifier, "accuracy")  # doctest: +SKIP

    Args:
        history: A fitted estimator; or values of each quantity by epoch, as in its `history_`; or what
            `keras.Model.fit` returns.
        quantity: Which quantity, such as `"accuracy"`. Defaults to `"loss"`.
        best_epoch: The epoch to mark, counted from 1. Defaults to `None`: the estimator's `best_epoch_`; none for a
            history, which does not know it.
        ax: Axes to draw on. Defaults to `None`, new ones.

    Returns:
        The axes.

    Raises:
        ParameterError: The same as `learning_curves`.
    """
    curves = learning_curves(history, quantity, best_epoch=best_epoch)
    ax = _axes(ax)
    marker = "o" if len(curves.epochs) == 1 else None  # a line through one point is nothing
    ax.plot(curves.epochs, curves.train, color=BLUE, linewidth=1.8, marker=marker, label="training rows")
    if curves.validation is not None:
        ax.plot(curves.epochs, curves.validation, color=ORANGE, linewidth=1.8, marker=marker, linestyle=(0, (5, 2)),
                label="validation rows")  # fmt: skip
    if curves.best_epoch is not None:
        ax.axvline(
            curves.best_epoch, color=_MUTED, linewidth=1, linestyle=":", label=f"kept: epoch {curves.best_epoch}"
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(_label(curves.quantity.replace("_", " "), 60))
    ax.locator_params(axis="x", integer=True)
    ax.legend(frameon=False, labelcolor=_INK)
    return _dress(ax, grid="y")


# -------------------------------------------------------------------------------------------------------- confusion


class Confusion(NamedTuple):
    """Which class was mistaken for which.

    Attributes:
        counts: Rows by true class (first axis) and predicted class, shape `(n_classes, n_classes)`.
        shares: The same as a fraction of each true class, shape `(n_classes, n_classes)`.
        classes: Names of the classes.
    """

    counts: np.ndarray
    shares: np.ndarray
    classes: tuple[str, ...]


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[Any] | np.ndarray) -> Confusion:
    """Counts which class was mistaken for which.

    Args:
        y_true: True classes, shape `(n_rows,)`.
        y_pred: Predicted classes, shape `(n_rows,)`.
        classes: All classes, in the order to show.

    Returns:
        A `Confusion`.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(y_true, y_pred, labels=list(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Confusion(counts, shares, tuple(str(label) for label in classes))


def plot_confusion(
    y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[Any] | np.ndarray, *, ax: Axes | None = None
) -> Axes:
    """Draws which class was mistaken for which; a darker cell is a larger share of the true class.

    Args:
        y_true: True classes, shape `(n_rows,)`.
        y_pred: Predicted classes, shape `(n_rows,)`.
        classes: All classes, in the order to show.
        ax: Axes to draw on. Defaults to `None`, new ones.

    Returns:
        The axes.
    """
    found = confusion(y_true, y_pred, classes)
    n_classes = len(found.classes)
    ax = _axes(ax)
    side = _side_of_square(ax, found.classes)
    edges = np.arange(n_classes + 1) - 0.5
    # Each cell is the same blue, more or less see-through: so it reads on a light page and on a dark one.
    for row in range(n_classes):
        for column in range(n_classes):
            share = found.shares[row, column]
            colour = BLUE if row == column else ORANGE
            # At most half, so that text can be read on it on a light page and on a dark one.
            ax.fill(*_square(row, column), color=colour, alpha=0.05 + 0.5 * share if share else 0.0, linewidth=0)
            if n_classes <= _MAX_LABELLED_CLASSES and found.counts[row, column]:
                _cell_text(ax, row, column, found, 72 * side / n_classes)
    ax.hlines(edges, -0.5, n_classes - 0.5, color=_LINE, linewidth=0.6)
    ax.vlines(edges, -0.5, n_classes - 0.5, color=_LINE, linewidth=0.6)
    ax.set(xlim=(-0.5, n_classes - 0.5), ylim=(n_classes - 0.5, -0.5), xlabel="predicted", ylabel="true")
    ax.set_aspect("equal")
    step = math.ceil(n_classes / _MAX_LABELLED_CLASSES)
    ticks = np.arange(0, n_classes, step)
    names = [_label(found.classes[tick], 16) for tick in ticks]
    tilted = width_of_names(names) > side * step / n_classes
    ax.set_xticks(ticks, names, rotation=40 if tilted else 0, ha="right" if tilted else "center", **_LITERAL)
    ax.set_yticks(ticks, names, **_LITERAL)
    return _dress(ax, grid=None, frame=False)


def _side_of_square(ax: Axes, classes: Sequence[str]) -> float:
    """About how many inches a square gets on axes that are not laid out yet: what the names of the classes leave."""
    box, dpi = ax.get_window_extent(), ax.figure.dpi
    # matplotlib's axes begin as about three quarters of their place.
    return float(max(min(box.width / 0.775 / dpi - width_of_names(classes) - 0.5, box.height / 0.77 / dpi - 0.6), 0.5))


def width_of_names(classes: Sequence[Any] | np.ndarray) -> float:
    """About how many inches the longest name of a class takes as a label."""
    return 0.085 * max(_n_places(_label(str(name), 16)) for name in classes)


def _cell_text(ax: Axes, row: int, column: int, found: Confusion, side: float) -> None:
    """Writes the numbers of a cell with sides of so many points."""
    text = f"{found.counts[row, column]}"
    if len(found.classes) <= 6 and side > 30:
        text += f"\n{found.shares[row, column]:.0%}"
    size = float(np.clip(side / 3, 7, 11))
    ax.text(column, row, text, ha="center", va="center", fontsize=size, color=_INK, **_LITERAL)


def _square(row: int, column: int) -> tuple[list[float], list[float]]:
    return (
        [column - 0.5, column + 0.5, column + 0.5, column - 0.5],
        [row - 0.5, row - 0.5, row + 0.5, row + 0.5],
    )


# ------------------------------------------------------------------------------------------------------ predictions


class Predictions(NamedTuple):
    """Predicted values beside the true ones, at most two thousand of them.

    Attributes:
        y_true: True values, shape `(n_points,)`.
        y_pred: Predicted values, shape `(n_points,)`.
        residuals: True minus predicted, shape `(n_points,)`.
        span: Least and greatest value of either, for a square figure.
        n_rows: Number of rows the points were drawn from.
    """

    y_true: np.ndarray
    y_pred: np.ndarray
    residuals: np.ndarray
    span: tuple[float, float]
    n_rows: int


def predictions(y_true: np.ndarray, y_pred: np.ndarray) -> Predictions:
    """Pairs predicted values with true ones; of many rows, a fixed sample.

    Args:
        y_true: True values, shape `(n_rows,)`.
        y_pred: Predicted values, shape `(n_rows,)`.

    Returns:
        A `Predictions`.
    """
    y_true, y_pred = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    n_rows = len(y_true)
    if n_rows > _MAX_POINTS:
        rows = np.sort(np.random.RandomState(0).permutation(n_rows)[:_MAX_POINTS])
        y_true, y_pred = y_true[rows], y_pred[rows]
    span = float(min(y_true.min(), y_pred.min())), float(max(y_true.max(), y_pred.max()))
    return Predictions(y_true, y_pred, y_true - y_pred, span, n_rows)


def plot_predictions(
    y_true: np.ndarray, y_pred: np.ndarray, *, residuals: bool = False, ax: Axes | None = None
) -> Axes:
    """Draws predicted values against true ones, or the residuals against the predictions.

    Args:
        y_true: True values, shape `(n_rows,)`.
        y_pred: Predicted values, shape `(n_rows,)`.
        residuals: Whether to draw true minus predicted. Defaults to `False`.
        ax: Axes to draw on. Defaults to `None`, new ones.

    Returns:
        The axes.
    """
    found = predictions(y_true, y_pred)
    ax = _axes(ax)
    alpha = 0.7 if len(found.y_true) <= 300 else 0.35
    points: dict[str, Any] = {"s": 16, "color": BLUE, "alpha": alpha, "linewidth": 0}
    if residuals:
        ax.scatter(found.y_pred, found.residuals, **points)
        ax.axhline(0, color=ORANGE, linewidth=1.4, linestyle=(0, (5, 2)))
        ax.set(xlabel="predicted", ylabel="true minus predicted")
    else:
        ax.scatter(found.y_true, found.y_pred, **points)
        ax.plot(found.span, found.span, color=ORANGE, linewidth=1.4, linestyle=(0, (5, 2)), label="exact")
        ax.set(xlabel="true", ylabel="predicted")
        ax.legend(frameon=False, labelcolor=_INK, loc="upper left")
    return _dress(ax, grid="both")


# ------------------------------------------------------------------------------------------------------- candidates


class CandidateScores(NamedTuple):
    """Models in the order of their mean score over the folds, the best first.

    Attributes:
        names: Name of each model.
        scores: Score of each fold of each model.
        means: Mean of each model, shape `(n_models,)`.
        is_baseline: Whether each model is a baseline, not a candidate.
        n_left_out: Number of candidates below those kept.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    means: np.ndarray
    is_baseline: tuple[bool, ...]
    n_left_out: int


def candidate_scores(
    candidates: Mapping[str, Sequence[float]],
    baselines: Mapping[str, Sequence[float]],
    *,
    max_candidates: int = 16,
    lower_is_better: bool = False,
) -> CandidateScores:
    """Orders candidates and baselines by their mean score.

    Args:
        candidates: Fold scores of each candidate by name.
        baselines: Fold scores of each baseline by name.
        max_candidates: How many candidates to keep, the best ones. Defaults to `16`.
        lower_is_better: Whether the scores are errors. Defaults to `False`.

    Returns:
        A `CandidateScores`; models that could not be scored are not in it.
    """
    scored = {name: tuple(scores) for name, scores in candidates.items() if np.isfinite(scores).all()}
    sign = 1 if lower_is_better else -1
    kept = sorted(scored, key=lambda name: sign * float(np.mean(scored[name])))[:max_candidates]
    models = [(name, scored[name], False) for name in kept]
    models += [(name, tuple(scores), True) for name, scores in baselines.items() if np.isfinite(scores).all()]
    models.sort(key=lambda model: sign * float(np.mean(model[1])))
    return CandidateScores(
        names=tuple(name for name, _, _ in models),
        scores=tuple(scores for _, scores, _ in models),
        means=np.array([np.mean(scores) for _, scores, _ in models]),
        is_baseline=tuple(is_baseline for _, _, is_baseline in models),
        n_left_out=len(scored) - len(kept),
    )


def plot_candidate_scores(
    candidates: Mapping[str, Sequence[float]],
    baselines: Mapping[str, Sequence[float]],
    *,
    metric: str = "score",
    max_candidates: int = 16,
    lower_is_better: bool = False,
    names: Literal["beside", "above"] = "beside",
    ax: Axes | None = None,
) -> Axes:
    """Draws the fold scores of candidates and baselines, one line per model: a dot for each fold, a bar for the mean.

    Args:
        candidates: Fold scores of each candidate by name.
        baselines: Fold scores of each baseline by name.
        metric: Name of the score. Defaults to `"score"`.
        max_candidates: How many candidates to draw, the best ones. Defaults to `16`.
        lower_is_better: Whether the scores are errors. Defaults to `False`.
        names: Where to put the name of a model: `"beside"` its line, or `"above"` it, for a narrow figure. Defaults to
            `"beside"`.
        ax: Axes to draw on. Defaults to `None`, new ones.

    Returns:
        The axes.
    """
    found = candidate_scores(candidates, baselines, max_candidates=max_candidates, lower_is_better=lower_is_better)
    ax = _axes(ax)
    limits = _close_view(found)
    half = 0.3 if names == "beside" else 0.2
    for position, scores in enumerate(found.scores):
        is_baseline = found.is_baseline[position]
        colour, marker = (ORANGE, "D") if is_baseline else (BLUE, "o")
        ax.plot([min(scores), max(scores)], [position, position], color=colour, alpha=0.35, linewidth=5,
                solid_capstyle="round")  # fmt: skip
        ax.scatter(scores, [position] * len(scores), s=14, color=colour, marker=marker, alpha=0.65, linewidth=0)
        ax.plot([found.means[position]] * 2, [position - half, position + half], color=colour, linewidth=2.4)
    for colour, marker, label in ((BLUE, "o", "networks"), (ORANGE, "D", "baselines")):
        ax.scatter([], [], s=22, color=colour, marker=marker, label=label)
    if names == "beside":
        ax.set_yticks(range(len(found.names)), [_label(name, 60) for name in found.names], **_LITERAL)
    else:
        ax.set_yticks([])
        for position, name in enumerate(found.names):
            ax.text(0, position - 0.4, _label(name, 44), transform=ax.get_yaxis_transform(), va="center", fontsize=9,
                    color=_INK, **_LITERAL)  # fmt: skip
    ax.set_ylim(len(found.names) - 0.4, -0.6 if names == "beside" else -0.75)
    if limits is not None:
        ax.set_xlim(limits)
        _mark_far_away(ax, found, limits, lower_is_better)
    ax.set_xlabel(f"{_label(metric.replace('_', ' '), 60)}: a dot for each fold, a bar at the mean")
    ax.legend(frameon=False, labelcolor=_INK, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return _dress(ax, grid="x")


def _close_view(found: CandidateScores) -> tuple[float, float] | None:
    """Limits that leave out models far worse than the rest, which would squeeze the rest together."""
    if len(found.names) < 4:
        return None
    # In the order of their means; the last one or two may be far off.
    for n_kept in (len(found.names) - 2, len(found.names) - 1):
        kept = np.concatenate(found.scores[:n_kept])
        span = float(kept.max() - kept.min())
        if span and abs(found.means[n_kept] - found.means[0]) > 4 * span:
            return float(kept.min()) - 0.25 * span, float(kept.max()) + 0.1 * span
    return None


def _mark_far_away(ax: Axes, found: CandidateScores, limits: tuple[float, float], lower_is_better: bool) -> None:
    edge, side = (limits[1], "right") if lower_is_better else (limits[0], "left")
    for position, mean in enumerate(found.means):
        if limits[0] <= mean <= limits[1]:
            continue
        words = f"{mean:.3g} →" if lower_is_better else f"← {mean:.3g}"
        ax.annotate(words, (edge, position), xytext=(-4 if lower_is_better else 4, 0), textcoords="offset points",
                    ha=side, va="center", color=ORANGE if found.is_baseline[position] else BLUE,
                    **_LITERAL)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- drawing


def as_svg(draw: Callable[[Axes], object], *, size: tuple[float, float], label: str) -> str:
    """Draws a figure as inline SVG for a page, in the page's colours and fonts, with all text as it is written.

    The page must set the variables `--ink`, `--muted`, `--line`, `--blue`, `--orange` and `--green`.

    Args:
        draw: A function that draws on the axes it is given.
        size: Width and height, in inches of 72 points.
        label: What the figure shows, for those who cannot see it.

    Returns:
        An `<svg>` element that refers to nothing outside itself.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    label = printable(label)
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        # The same figure gives the same text, and two on one page share no ids, even one figure in two sizes.
        "svg.hashsalt": f"{size} {label}",
        "font.size": 10,
        "axes.unicode_minus": True,
        **_LITERAL_EVERYWHERE,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # That its own font lacks a Chinese or Arabic letter, say: the text will be shown in the page's fonts.
        warnings.simplefilter("ignore")
        # Room at the sides, in inches: the page's font may be wider than that of matplotlib.
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), label)


def _for_page(svg: str, label: str) -> str:
    import html

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In tags alone, since a class may be called "#0072b2".
    svg = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag.group()), svg)
    # As wide as the page allows, up to the size it was drawn for.
    svg = re.sub(r'(<svg[^>]*?) width="([^"]*)"', r'\1 style="max-width: \2"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label, quote=True)}"', 1)


def _tag_for_page(tag: str) -> str:
    tag = re.sub(r' xmlns:xlink="[^"]*"', "", tag).replace("xlink:href", "href")
    # matplotlib numbers the groups of every figure in the same way, and nothing refers to them.
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    # matplotlib names its own fonts, by one property or by two; the page's are to be used.
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    for stand_in, variable in _PAGE_COLOURS.items():
        tag = tag.replace(stand_in, variable)
    return tag


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot

    return matplotlib.pyplot.subplots(layout="constrained")[1]


def _dress(ax: Axes, *, grid: str | None, frame: bool = True) -> Axes:
    for side, spine in ax.spines.items():
        spine.set_visible(frame and side in ("left", "bottom"))
        spine.set_color(_LINE)
    ax.tick_params(colors=_MUTED, length=3 if frame else 0)
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        tick.set_color(_INK)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(color=_MUTED, **_LITERAL)
    if grid is not None:
        ax.grid(axis=grid, color=_LINE, linewidth=0.6)  # type: ignore[arg-type]
        ax.set_axisbelow(True)
    return ax


def _n_places(text: str) -> int:
    """How many Latin letters are as wide as a text: a Chinese, Japanese or Korean character counts as two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _label(text: str, width: int) -> str:
    """The user's text as a label: on one line, not too long, and never empty."""
    text = printable(text) if text.strip() else repr(text)
    if _n_places(text) <= width:
        return text
    places = itertools.accumulate(map(_n_places, text))
    return text[: sum(place < width for place in places)] + "…"
