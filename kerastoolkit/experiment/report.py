"""The report of an experiment: one HTML page that needs nothing else.

No script, font or image is fetched: figures are inline SVG in the page's own colours, so the page works offline, in
mail, on paper, and in light or dark. It works on telephones, too: a figure that would be too small there is drawn a
second time for a narrow page, and a table that is too wide scrolls by itself.

If a part of the page fails, the page says so in its place, and nothing else is lost.
"""

from __future__ import annotations

import functools
import json
import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import plotting
from kerastoolkit._version import __version__
from kerastoolkit.evaluation import Evaluation, FoldScores, Score
from kerastoolkit.experiment._page import (
    NOTHING,
    PAGE,
    STYLE,
    Html,
    Numbers,
    Words,
    card,
    code,
    definitions,
    escaped,
    figure,
    html,
    joined,
    list_of,
    notice,
    reason,
    section,
    table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kerastoolkit.experiment.result import Experiment

__all__ = ["render_report"]

_MAX_COLUMNS_OPEN = 12
_MAX_CANDIDATES_OPEN = 10
# In inches: the width of a figure on a telephone, and of the smallest cell in which a number can be read there.
_NARROW, _MIN_CELL = 3.6, 0.27


def render_report(experiment: Experiment, folder: str | None = None) -> str:
    """Reports an experiment as one self-contained HTML page.

    Whatever cannot be drawn or written is named in its place; the rest of the page is there all the same.

    Args:
        experiment: The experiment, whether complete or not.
        folder: Name of the folder that it is saved in, for the commands that use it. Defaults to `None`: not known.

    Returns:
        The page, text that can be written in UTF-8.
    """
    use = functools.partial(_use, folder=folder)
    parts = (_answer, _data, _candidates, _training, _test, _decisions, use, _record)
    filled = {
        "title": f"Predicting {experiment.target} from {experiment.name}",
        "target": experiment.target,
        "name": experiment.name,
        "subtitle": _written(_subtitle, experiment),
        "style": Html(STYLE),
        "sections": joined(_written(part, experiment) for part in parts),
        "version": __version__,
    }
    return PAGE.substitute({name: escaped(value) for name, value in filled.items()})


def _written(part: Callable[[Experiment], str], experiment: Experiment) -> str:
    """A part of the page; or what happened if it fails, since the report comes last and no result may be lost to it."""
    try:
        return part(experiment)
    except Exception as error:
        return notice(f"A part of this report could not be written: {reason(error)}")


# -------------------------------------------------------------------------------------------------------- the parts


def _subtitle(experiment: Experiment) -> str:
    data = experiment.record["data"]
    began = str(experiment.record["began"]).replace("T", " ")[:16]
    return (
        f"{experiment.task.capitalize()} on {data['n_rows']:,} rows and {data['n_columns']} columns · "
        f"{began} · {_duration(experiment.seconds)}"
    )


def _answer(experiment: Experiment) -> Html:
    cards = []
    if experiment.test is not None:
        score = experiment.test.scores[experiment.scoring]
        words = f"{_title(score.metric)}, {_interval(score)}"
        cards.append(card("Winner on the test rows", _score_value(score), words, leading=True))
    scored = experiment.candidates()
    if scored:
        best = scored[experiment.best_index][1] if experiment.best_index is not None else _best([s for _, s in scored])
        cards.append(card("Best network", _folds_value(best), f"over the folds: {best.name}"))
    if experiment.baselines:
        rival = _best(experiment.baselines)
        cards.append(card("Best baseline", _folds_value(rival), f"over the folds: {rival.name}"))
    notices = joined(notice(text) for text in _warnings(experiment))
    conclusion = _conclusion(experiment) if scored else NOTHING
    return html('<section>{}<div class="cards">{}</div>{}</section>', notices, joined(cards), conclusion)


def _conclusion(experiment: Experiment) -> Html:
    fine = (
        "The folds share training rows; the interval and p allow for that, after Nadeau and Bengio (2003). The best "
        "network was chosen from all candidates on these rows, which favours it a little; the test rows favour neither."
    )
    return html('<p class="conclusion">{}</p><p class="fine">{}</p>', experiment.explain(), fine)


def _warnings(experiment: Experiment) -> Iterable[str]:
    total = experiment.record["n_candidates"]
    if experiment.status == "interrupted":
        yield (
            f"This run was interrupted after {experiment.n_evaluated} of {total} candidates. No winner was fitted or "
            "tested; below is what was found by then."
        )
    if experiment.status == "failed":
        yield "This run ended with an error before a winner was fitted. Below is what was found by then."
    if experiment.left_out:
        yield (
            f"Time ran out: {len(experiment.left_out)} of {total} candidates were left out. They are listed below the "
            "table of candidates."
        )
    if experiment.failed:
        yield f"{len(experiment.failed)} of {total} candidates could not be trained; the reasons are listed below."
    for question in experiment.questions:
        yield question.text


def _data(experiment: Experiment) -> Html:
    columns = experiment.columns
    data = experiment.record["data"]
    used = sum(column.is_used for column in columns)
    lead = [html("{} of {} columns are used to predict <b>{}</b>.", used, len(columns), experiment.target)]
    if data["n_blank_targets"]:
        lead.append(html(" {} rows without a target were left out.", data["n_blank_targets"]))
    lead += [html(" {}.", note[:1].upper() + note[1:]) for note in data["notes"]]
    rows = [
        [
            html("<b>{}</b>", column.name),
            html('<span class="kind{}">{}</span>', "" if column.is_used else " unused", column.kind),
            column.detail,
            f"{column.n_distinct:,}",
            _blanks(column.n_blank, column.n_rows),
            column.note,
        ]
        for column in columns
    ]
    headings = ["Column", "Kind", Words("Holds"), Numbers("Distinct"), Numbers("Blank"), Words("Note")]
    if not any(column.note for column in columns):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    listed = table(headings, rows, open_rows=_MAX_COLUMNS_OPEN)
    return section("Data", html("<p>{}</p>{}", joined(lead), listed))


# What is said of columns of these kinds, if there are any.
_OF_KINDS = (
    (
        {"number", "boolean", "date", "category"},
        "Preparation",
        "The networks and the linear model get the columns prepared as follows, learned from the rows of each fit "
        "alone. Gradient boosting gets blanks and categories as they are.",
    ),
    (
        {"number", "boolean", "date"},
        "Numbers",
        "A blank is replaced by the median of its column, and a column with blanks gets a second input that marks "
        "them. All are then scaled to mean 0 and standard deviation 1.",
    ),
    ({"boolean"}, "Booleans", "True and yes count as 1, false and no as 0."),
    (
        {"date"},
        "Dates",
        "A date becomes its days since 1970, its year, month, day and day of the week, and the hour if it has one.",
    ),
    (
        {"category"},
        "Categories",
        "Each category has an input of its own. A column with more than 30 categories has an input for each of the 29 "
        "most frequent ones, and one that all others share. A category never seen before counts as one of those "
        "others; if there are none, it turns on none of the inputs. A blank is a category like any other.",
    ),
)


def _decisions(experiment: Experiment) -> Html:
    decided = [(title, f"{words}.") for title, words in experiment.decisions]
    used = {column.kind for column in experiment.columns if column.is_used}
    decided += [(title, words) for kinds, title, words in _OF_KINDS if kinds & used]
    if experiment.task == "regression":
        scaled = (
            "The networks learn it scaled to mean 0 and standard deviation 1; scores and predictions are in its units."
        )
        decided.append(("Target", scaled))
    decided.append(("Fitting", _fitting(experiment)))
    return section("What was done", definitions(decided))


def _fitting(experiment: Experiment) -> str:
    split = _validation_split(experiment)
    own = {name.split("__")[0] for grid in experiment.record["param_grid"] for name in grid}
    own &= {"callbacks", "fit", "validation_split"}
    exception = f" Candidates with their own {' or '.join(sorted(own))} differ in this." if own else ""
    return (
        f"Each network learns from {1 - split:.0%} of the rows it is given and validates on the other {split:.0%}: "
        f"training stops once the loss on them no longer falls, and the weights of the best epoch are "
        f"kept.{exception}"
    )


def _validation_split(experiment: Experiment) -> float:
    return 0.15 if experiment.network is None else float(experiment.network.validation_split)


def _candidates(experiment: Experiment) -> Html:
    scored = experiment.candidates()
    if not scored and not experiment.baselines:
        return NOTHING
    order = sorted(range(len(scored)), key=lambda row: -_sortable(scored[row][1].mean))
    names = list(dict.fromkeys(name for params, _ in scored for name in params))
    rows = [
        [
            str(rank),
            _folds_value(scored[row][1]),
            *(_param(scored[row][0].get(name)) for name in names),
            f"{scored[row][1].fit_seconds:.1f} s",
        ]
        for rank, row in enumerate(order, 1)
    ]
    of_folds = [Numbers(f"{_title(experiment.scoring)} over the folds"), Numbers("Time per fit")]
    parts = [_candidates_figure(experiment, [scores for _, scores in scored])]
    if experiment.baselines:
        simple = [[s.name, _folds_value(s), f"{s.fit_seconds:.1f} s"] for s in experiment.baselines]
        parts.append(html("<h3>Baselines</h3>{}", table(["Model", *of_folds], simple)))
    if rows:
        of_params = [name.rsplit("__", 1)[-1].replace("_", " ") for name in names]
        headings = [Numbers("Rank"), of_folds[0], *of_params, of_folds[1]]
        parts.append(html("<h3>Networks</h3>{}", table(headings, rows, open_rows=_MAX_CANDIDATES_OPEN)))
    parts.append(
        html(
            '<p class="fine">Mean ± sample standard deviation over the folds. The best of many candidates was also a '
            "little lucky: its score over the folds flatters it, the score on the test rows does not.</p>"
        )
    )
    parts.append(list_of("Left out for lack of time", [_spelt(params) for params in experiment.left_out]))
    parts.append(list_of("Could not be trained", [f"{_spelt(f['params'])}: {f['error']}" for f in experiment.failed]))
    return section("Candidates and baselines", joined(parts))


def _candidates_figure(experiment: Experiment, scored: Sequence[FoldScores]) -> Html:
    sign = _sign(experiment.scoring)
    networks = {scores.name: [sign * score for score in scores.scores] for scores in scored}
    baselines = {scores.name: [sign * score for score in scores.scores] for scores in experiment.baselines}
    n_rows = min(len(networks), 16) + len(baselines)

    def draw(ax: Axes, **options: Any) -> None:
        plotting.plot_candidate_scores(
            networks, baselines, metric=_title(experiment.scoring), lower_is_better=sign < 0, ax=ax, **options
        )

    return figure(
        draw,
        size=(8.6, 1.2 + 0.3 * n_rows),
        narrow=(_NARROW, 1.2 + 0.45 * n_rows),
        draw_narrow=lambda ax: draw(ax, names="above"),
        label="Scores of candidates and baselines over the folds",
        caption="All were trained and scored on the same folds of the training rows.",
    )


def _training(experiment: Experiment) -> Html:
    if "loss" not in experiment.history:
        return NOTHING
    curves = figure(
        lambda ax: plotting.plot_learning_curves(experiment.history, best_epoch=experiment.best_epoch, ax=ax),
        size=(8.0, 3.2),
        narrow=(_NARROW, 2.8),
        label="Learning curves of the winner",
        caption=_of_the_last_fit(experiment),
    )
    return section("Learning curves", curves)


def _of_the_last_fit(experiment: Experiment) -> str:
    split, n_rows = _validation_split(experiment), experiment.record["split"]["train"]
    words = f"The winner, trained once more on the {n_rows} training rows"
    if split:
        words += f": it learned from {1 - split:.0%} of them and was validated on the other {split:.0%}"
    n_epochs, kept = len(experiment.history["loss"]), experiment.best_epoch
    words += f". It trained for {n_epochs} epoch{'s' * (n_epochs != 1)}"
    words += "." if kept is None else f" and kept the weights of epoch {kept}."
    return words + " The loss is measured on the scaled target." * (experiment.task == "regression")


def _test(experiment: Experiment) -> Html:
    test = experiment.test
    if test is None:
        return NOTHING
    rows = [[_title(score.metric), _score_value(score), *_interval_and_how(score)] for score in test.scores.values()]
    first = next(iter(test.scores.values()))
    lead = html(
        "<p>The winner, scored once on {}. No choice was based on these rows. An interval says where the score would "
        "lie on many more rows of this kind, with a confidence of {}.</p>",
        experiment.tested_on(),
        f"{first.confidence_level:.0%}",
    )
    scores = joined([table(["Metric", Numbers("Score"), "Interval", "Method"], rows), _beside(experiment, first)])
    if test.classes is None:
        figures, per_class = _residual_figures(test), NOTHING
    else:
        figures, per_class = _confusion_figure(test, test.classes), _per_class(test, test.classes)
    return section("Test", html('{}{}<div class="figures">{}</div>{}', lead, scores, figures, per_class))


def _beside(experiment: Experiment, first: Score) -> Html:
    """The baselines on the test rows, by the metric that chose the winner."""
    beside = {
        name: scores[first.metric] for name, scores in experiment.baseline_tests.items() if first.metric in scores
    }
    if not beside:
        return NOTHING
    scored = {"The winner": first, **beside}
    rows = [[name, _score_value(score), *_interval_and_how(score)] for name, score in scored.items()]
    headings = ["Model", Numbers(_title(first.metric)), "Interval", "Method"]
    return html("<h3>The baselines on the same rows</h3>{}", table(headings, rows))


def _confusion_figure(test: Evaluation, classes: np.ndarray) -> Html:
    n_classes = len(classes)
    side = float(np.clip(1.8 + 0.5 * n_classes, 3.2, 7.5))
    names = plotting.width_of_names(classes)
    square = _NARROW - names - 0.5  # inches that are left beside the names and the label
    below = 0.6 if names < square / n_classes else 0.6 + 0.6 * names  # tilted, if there is no room for them
    return figure(
        lambda ax: plotting.plot_confusion(test.y_true, test.y_pred, classes, ax=ax),
        size=(side + 0.4 + names, side + 0.5 * names),
        narrow=(_NARROW, square + below) if square / n_classes > _MIN_CELL else None,
        label="Confusion of classes on the test rows",
        caption="Rows by true and predicted class; shares are of the true class. Blue is right, orange is wrong.",
    )


def _residual_figures(test: Evaluation) -> Html:
    shown = min(len(test.y_true), 2000)
    note = "" if shown == len(test.y_true) else f" {shown:,} of {len(test.y_true):,} rows are drawn."
    first = figure(
        lambda ax: plotting.plot_predictions(test.y_true, test.y_pred, ax=ax),
        size=(4.0, 3.4),
        label="Predicted against true values on the test rows",
        caption=f"Predicted against true values.{note}",
    )
    second = figure(
        lambda ax: plotting.plot_predictions(test.y_true, test.y_pred, residuals=True, ax=ax),
        size=(4.0, 3.4),
        label="Residuals on the test rows",
        caption="What the predictions miss; a pattern in it is something that could still be learned.",
    )
    return joined([first, second])


def _per_class(test: Evaluation, classes: np.ndarray) -> Html:
    found = plotting.confusion(test.y_true, test.y_pred, classes)
    right = np.diag(found.counts)
    n_true, n_predicted = found.counts.sum(axis=1), found.counts.sum(axis=0)
    rows = [
        [
            name,
            f"{n_true[at]:,}",
            f"{n_predicted[at]:,}",
            f"{right[at] / n_true[at]:.1%}" if n_true[at] else "–",
            f"{right[at] / n_predicted[at]:.1%}" if n_predicted[at] else "–",
        ]
        for at, name in enumerate(found.classes)
    ]
    of_numbers = map(Numbers, ("Rows", "Predicted", "Recall", "Precision"))
    words = (
        "Recall: the share of the rows of a class that were recognised. Precision: the share of the rows predicted as "
        "a class that really belong to it."
    )
    listed = table(["Class", *of_numbers], rows, open_rows=_MAX_COLUMNS_OPEN)
    return html('{}<p class="fine">{}</p>', listed, words)


def _use(experiment: Experiment, folder: str | None) -> Html:
    if experiment.network is None:
        return NOTHING
    name = folder or "FOLDER"
    typed = shlex.quote(f"./{name}" if name.startswith("-") else name)
    where = "if the folder of this report is called FOLDER" if folder is None else "beside the folder of this report"
    use = html(
        "<p>In a shell, {}, where NEW.csv is a table with the same columns:</p>"
        "<pre>kerastoolkit predict {} NEW.csv</pre><p>In Python:</p>"
        "<pre>from kerastoolkit import load_experiment\n\n"
        'experiment = load_experiment({})\nexperiment.predict("NEW.csv")</pre>'
        "<p>Blanks and categories never seen before are fine. "
        "Columns that were not used may be missing.</p>",
        where,
        typed,
        _literal(name),
    )
    elsewhere = html(
        "<h3>Taking it elsewhere</h3><p>As one file that needs no Keras where it is used; and behind a URL, with a "
        "form to try it:</p><pre>kerastoolkit export {0} model.onnx\nkerastoolkit serve {0}</pre>",
        typed,
    )
    return section("Using it", joined([use, _instead(experiment, name), elsewhere]))


def _literal(text: str) -> str:
    """Text as Python and people read it."""
    return json.dumps(text, ensure_ascii=False)


def _instead(experiment: Experiment, name: str) -> Html:
    """How to use the best baseline instead, unless the network is ahead of it."""
    rival, comparison = experiment.best_baseline, experiment.comparison
    if rival is None or comparison is None or comparison.outcome == "ahead":
        return NOTHING
    return html(
        "<h3>Using {} instead</h3><p>A scikit-learn pipeline, fitted to all rows of TABLE.csv, the table of this "
        "report:</p><pre>from kerastoolkit import load_experiment\n\n"
        'model = load_experiment({}).fit_baseline("{}", "TABLE.csv")\nmodel.predict("NEW.csv")</pre>',
        rival.name[:1].lower() + rival.name[1:],
        _literal(name),
        rival.name,
    )


def _record(experiment: Experiment) -> Html:
    record = experiment.record
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    arguments = json.dumps(record["arguments"], ensure_ascii=False)
    data = html("{}, SHA-256 <code>{}</code>", record["data"]["name"], record["data"]["sha256"])
    items: list[tuple[str, str]] = [("Data", data), ("Arguments", code(arguments)), ("Versions", versions)]
    if experiment.best_params:
        items.insert(0, ("Chosen", code(_spelt(experiment.best_params))))
    return section("To repeat it", definitions(items))


# ------------------------------------------------------------------------------------------------------------ words


def _title(metric: str) -> str:
    return metric.removeprefix("neg_").replace("_", " ").replace("roc auc", "ROC AUC").replace("r2", "R²")


def _sign(metric: str) -> int:
    """scikit-learn turns errors into scores by a minus sign; people read them without."""
    return -1 if metric.startswith("neg_") else 1


def _score_value(score: Score) -> str:
    return _figures(_sign(score.metric) * score.value)


def _interval(score: Score) -> str:
    ends, how = _interval_and_how(score)
    return f"{score.confidence_level:.0%} interval {ends} ({how})" if score.has_interval else how


def _interval_and_how(score: Score) -> tuple[str, str]:
    ends = sorted((_sign(score.metric) * score.low, _sign(score.metric) * score.high))
    return (f"{_figures(ends[0])} to {_figures(ends[1])}" if score.has_interval else "–"), score.how


def _folds_value(scores: FoldScores) -> str:
    if not scores.is_scored:
        return "not scored"
    return f"{_figures(_sign(scores.metric) * scores.mean)} ± {_figures(scores.std)}"


def _figures(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _best(scores: Sequence[FoldScores]) -> FoldScores:
    return max(scores, key=lambda one: _sortable(one.mean))


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _param(value: object) -> str:
    if isinstance(value, (tuple, list)):  # a tuple comes back from a file as a list
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _spelt(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_param(value)}" for name, value in params.items())


def _blanks(n_blank: int, n_rows: int) -> str:
    return f"{n_blank:,} ({n_blank / n_rows:.0%})" if n_blank else "–"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
