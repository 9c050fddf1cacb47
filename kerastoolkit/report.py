"""The report of an experiment: one HTML page that needs nothing else.

No script, no font, no picture is fetched: figures are inline SVG in the page's own colours, so the page works offline,
in mail, on paper, and in light or dark. It is read on telephones, too: a figure that would be too small there is drawn
a second time for a narrow page, and a table that is too wide scrolls within itself.

Whatever comes from the data or from a record, which may be a stranger's file, is escaped: `_html` escapes every value
that is not HTML of its own making, so that a value that nobody thought of is shown and not obeyed. A figure or a part
of the page that fails says so in its place, and costs nothing else.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import plotting
from kerastoolkit._version import __version__
from kerastoolkit._words import printable
from kerastoolkit.evaluation import FoldScores, Score

if TYPE_CHECKING:
    from kerastoolkit.experiment import Experiment

__all__ = ["render_report"]

_MOST_COLUMNS_OPEN = 12
_MOST_CANDIDATES_OPEN = 10
# In inches: what a telephone leaves for a figure, and the smallest cell there that a number can be read in.
_NARROW, _LEAST_CELL = 3.6, 0.27


def render_report(experiment: Experiment) -> str:
    """Tells an experiment as one self-contained HTML page.

    What cannot be drawn or told is named in its place; the rest of the page is there all the same.

    Args:
        experiment: The experiment, whether complete or not.

    Returns:
        The page, text that can be written in UTF-8.
    """
    parts = (_answer, _data, _candidates, _training, _test, _decisions, _use, _record)
    filled = {
        "title": f"Predicting {experiment.target} from {experiment.name}",
        "target": experiment.target,
        "name": experiment.name,
        "subtitle": _told(_subtitle, experiment),
        "style": _Html(_STYLE),
        "sections": _joined(_told(part, experiment) for part in parts),
        "version": __version__,
    }
    return _PAGE.substitute({name: _escaped(value) for name, value in filled.items()})


def _told(part: Callable[[Experiment], str], experiment: Experiment) -> str:
    """A part of the page; or, if it fails, what happened, since the report comes last and must cost no result."""
    try:
        return part(experiment)
    except Exception as error:
        return _notice(f"A part of this report could not be written: {_reason(error)}")


# -------------------------------------------------------------------------------------------------------- the parts


def _subtitle(experiment: Experiment) -> str:
    data = experiment.record["data"]
    began = str(experiment.record["began"]).replace("T", " ")[:16]
    return (
        f"{experiment.task.capitalize()} on {data['n_rows']:,} rows and {data['n_columns']} columns · "
        f"{began} · {_duration(experiment.seconds)}"
    )


def _answer(experiment: Experiment) -> _Html:
    cards = []
    if experiment.test is not None:
        score = experiment.test.scores[experiment.metric]
        words = f"{_title(score.metric)}, {_interval(score)}"
        cards.append(_card("Winner on the test rows", _score_value(score), words, leading=True))
    scored = experiment.candidates()
    if scored:
        best = scored[experiment.best_index][1] if experiment.best_index is not None else _best([s for _, s in scored])
        cards.append(_card("Best network", _folds_value(best), f"over the folds: {best.name}"))
    if experiment.baselines:
        rival = _best(experiment.baselines)
        cards.append(_card("Best simple model", _folds_value(rival), f"over the folds: {rival.name}"))
    notices = _joined(_notice(text) for text in _warnings(experiment))
    verdict = _verdict(experiment) if scored else _NOTHING
    return _html('<section>{}<div class="cards">{}</div>{}</section>', notices, _joined(cards), verdict)


def _verdict(experiment: Experiment) -> _Html:
    fine = (
        "Folds share rows to train on; interval and p allow for that, after Nadeau and Bengio (2003). The best network "
        "was chosen among candidates on these rows, which favours it a little; the test rows favour nobody."
    )
    return _html('<p class="verdict">{}</p><p class="fine">{}</p>', experiment.verdict(), fine)


def _warnings(experiment: Experiment) -> Iterable[str]:
    total = experiment.record["n_candidates"]
    if experiment.status == "interrupted":
        yield (
            f"This run was interrupted after {experiment.n_evaluated} of {total} candidates. No winner was fitted or "
            "tested; what follows is what there was."
        )
    if experiment.status == "failed":
        yield "This run ended with an error before a winner was fitted. What follows is what there was."
    if experiment.left_out:
        yield (
            f"The time budget was spent: {len(experiment.left_out)} of {total} candidates were left out. They are "
            "listed below the table of candidates."
        )
    if experiment.failed:
        yield f"{len(experiment.failed)} of {total} candidates could not be trained; the reasons are below."
    for question in experiment.questions:
        yield question.text


def _data(experiment: Experiment) -> _Html:
    columns = experiment.columns
    data = experiment.record["data"]
    used = sum(column.is_used for column in columns)
    lead = [_html("{} of {} columns are used to predict <b>{}</b>.", used, len(columns), experiment.target)]
    if data["n_blank_targets"]:
        lead.append(_html(" {} rows without a target were left out.", data["n_blank_targets"]))
    lead += [_html(" {}.", note[:1].upper() + note[1:]) for note in data["notes"]]
    rows = [
        [
            _html("<b>{}</b>", column.name),
            _html('<span class="kind{}">{}</span>', "" if column.is_used else " unused", column.kind),
            column.detail,
            f"{column.n_distinct:,}",
            _blanks(column.n_blank, column.n_rows),
            column.note,
        ]
        for column in columns
    ]
    headings = ["Column", "Kind", _Words("Holds"), _Numbers("Distinct"), _Numbers("Blank"), _Words("Note")]
    if not any(column.note for column in columns):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    table = _table(headings, rows, open_rows=_MOST_COLUMNS_OPEN)
    return _section("Data", _html("<p>{}</p>{}", _joined(lead), table))


# What is told of columns of these kinds, where there are any.
_OF_KINDS = (
    (
        {"number", "boolean", "date", "category"},
        "Preparation",
        "The networks and the linear model get the columns prepared as follows, using only the rows of each fit. "
        "Gradient boosting gets blanks and categories as they are.",
    ),
    (
        {"number", "boolean", "date"},
        "Numbers",
        "A blank becomes the median of its column, and a column that has blanks gets a second input that marks them. "
        "All are then scaled to mean 0 and standard deviation 1.",
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
        "Each category has an input of its own. A column with more than 30 has 29 for the most frequent ones, and one "
        "that all others share. A category never seen before joins those others; where there are none, it turns on "
        "none of the inputs. A blank is a category like any other.",
    ),
)


def _decisions(experiment: Experiment) -> _Html:
    decided = [(title, f"{words}.") for title, words in experiment.decisions]
    used = {column.kind for column in experiment.columns if column.is_used}
    decided += [(title, words) for kinds, title, words in _OF_KINDS if kinds & used]
    if experiment.task == "regression":
        scaled = "Networks learn it scaled to mean 0 and standard deviation 1; scores and predictions are in its units."
        decided.append(("Target", scaled))
    decided.append(("Fitting", _fitting(experiment)))
    return _section("What was done", _definitions(decided))


def _fitting(experiment: Experiment) -> str:
    split = 0.15 if experiment.network is None else experiment.network.validation_split
    own = {name.split("__")[0] for grid in experiment.record["grid"] for name in grid}
    own &= {"callbacks", "fit", "validation_split"}
    exception = f" Candidates with {' or '.join(sorted(own))} of their own do otherwise." if own else ""
    return (
        f"Each network learns from {1 - split:.0%} of the rows it is given and watches the other {split:.0%}: training "
        f"stops once the loss on them no longer falls, and the weights of the best epoch are kept.{exception}"
    )


def _candidates(experiment: Experiment) -> _Html:
    scored = experiment.candidates()
    if not scored and not experiment.baselines:
        return _NOTHING
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
    of_folds = [_Numbers(f"{_title(experiment.metric)} over the folds"), _Numbers("A fit")]
    parts = [_candidates_figure(experiment, [scores for _, scores in scored])]
    if experiment.baselines:
        simple = [[s.name, _folds_value(s), f"{s.fit_seconds:.1f} s"] for s in experiment.baselines]
        parts.append(_html("<h3>Models to beat</h3>{}", _table(["Model", *of_folds], simple)))
    if rows:
        of_params = [name.rsplit("__", 1)[-1].replace("_", " ") for name in names]
        headings = [_Numbers("Rank"), of_folds[0], *of_params, of_folds[1]]
        parts.append(_html("<h3>Networks</h3>{}", _table(headings, rows, open_rows=_MOST_CANDIDATES_OPEN)))
    parts.append(
        _html(
            '<p class="fine">Mean ± sample standard deviation over the folds. The best of many candidates is a little '
            "lucky: its score over the folds flatters it, the score on the test rows does not.</p>"
        )
    )
    parts.append(_list_of("Left out for want of time", [_spelt(params) for params in experiment.left_out]))
    parts.append(_list_of("Could not be trained", [f"{_spelt(f['params'])}: {f['error']}" for f in experiment.failed]))
    return _section("Candidates and models to beat", _joined(parts))


def _candidates_figure(experiment: Experiment, scored: Sequence[FoldScores]) -> _Html:
    sign = _sign(experiment.metric)
    networks = {scores.name: [sign * score for score in scores.scores] for scores in scored}
    simple = {scores.name: [sign * score for score in scores.scores] for scores in experiment.baselines}
    n_rows = min(len(networks), 16) + len(simple)

    def draw(ax: Any, **options: Any) -> None:
        plotting.plot_candidate_scores(
            networks, simple, metric=_title(experiment.metric), lower_is_better=sign < 0, ax=ax, **options
        )

    return _figure(
        draw,
        size=(8.6, 1.2 + 0.3 * n_rows),
        narrow=(_NARROW, 1.2 + 0.45 * n_rows),
        draw_narrow=lambda ax: draw(ax, names="above"),
        label="Scores of candidates and models to beat over the folds",
        caption="All were trained and scored on the same folds of the training rows.",
    )


def _training(experiment: Experiment) -> _Html:
    if "loss" not in experiment.history:
        return _NOTHING
    figure = _figure(
        lambda ax: plotting.plot_learning_curves(experiment.history, best_epoch=experiment.best_epoch, ax=ax),
        size=(8.0, 3.2),
        narrow=(_NARROW, 2.8),
        label="Learning curves of the winner",
        caption=_of_the_last_fit(experiment),
    )
    return _section("Learning curves", figure)


def _of_the_last_fit(experiment: Experiment) -> str:
    split, n_rows = experiment.network.validation_split, experiment.record["split"]["train"]
    words = f"The winner, trained once more on the {n_rows} training rows"
    if split:
        words += f": it learned from {1 - split:.0%} of them and watched the other {split:.0%}, the validation rows"
    n_epochs, kept = len(experiment.history["loss"]), experiment.best_epoch
    words += f". It trained for {n_epochs} epoch{'s' * (n_epochs != 1)}"
    words += "." if kept is None else f" and kept the weights of epoch {kept}."
    return words + " The loss is measured on the scaled target." * (experiment.task == "regression")


def _test(experiment: Experiment) -> _Html:
    test = experiment.test
    if test is None:
        return _NOTHING
    rows = [[_title(score.metric), _score_value(score), *_interval_and_how(score)] for score in test.scores.values()]
    first = next(iter(test.scores.values()))
    lead = _html(
        "<p>The winner, scored once on {}. No choice was made by these rows. An interval tells where the score would "
        "be on many more such rows, with a confidence of {}.</p>",
        experiment.tested_on(),
        f"{first.level:.0%}",
    )
    scores = _joined([_table(["Metric", _Numbers("Score"), "Interval", "Made by"], rows), _beside(experiment, first)])
    figures = _confusion_figure(test) if test.classes is not None else _residual_figures(test)
    per_class = _per_class(test) if test.classes is not None else _NOTHING
    return _section("Test", _html('{}{}<div class="figures">{}</div>{}', lead, scores, figures, per_class))


def _beside(experiment: Experiment, first: Score) -> _Html:
    """The models to beat on the test rows, by the metric that chose the winner."""
    beside = {
        name: scores[first.metric] for name, scores in experiment.baseline_tests.items() if first.metric in scores
    }
    if not beside:
        return _NOTHING
    scored = {"The winner": first, **beside}
    rows = [[name, _score_value(score), *_interval_and_how(score)] for name, score in scored.items()]
    headings = ["Model", _Numbers(_title(first.metric)), "Interval", "Made by"]
    return _html("<h3>Beside it, on the same rows</h3>{}", _table(headings, rows))


def _confusion_figure(test: Any) -> _Html:
    n_classes = len(test.classes)
    side = float(np.clip(1.8 + 0.5 * n_classes, 3.2, 7.5))
    names = plotting.width_of_names(test.classes)
    square = _NARROW - names - 0.5  # inches that the names and the label beside them leave
    below = 0.6 if names < square / n_classes else 0.6 + 0.6 * names  # tilted, where there is no room for them
    return _figure(
        lambda ax: plotting.plot_confusion(test.y_true, test.y_pred, test.classes, ax=ax),
        size=(side + 0.4 + names, side + 0.5 * names),
        narrow=(_NARROW, square + below) if square / n_classes > _LEAST_CELL else None,
        label="Confusion of classes on the test rows",
        caption="Rows by true and predicted class; shares are of the true class. Blue is right, orange is wrong.",
    )


def _residual_figures(test: Any) -> _Html:
    shown = min(len(test.y_true), 2000)
    note = "" if shown == len(test.y_true) else f" {shown:,} of {len(test.y_true):,} rows are drawn."
    first = _figure(
        lambda ax: plotting.plot_predictions(test.y_true, test.y_pred, ax=ax),
        size=(4.0, 3.4),
        label="Predicted against true values on the test rows",
        caption=f"Predicted against true values.{note}",
    )
    second = _figure(
        lambda ax: plotting.plot_predictions(test.y_true, test.y_pred, residuals=True, ax=ax),
        size=(4.0, 3.4),
        label="Residuals on the test rows",
        caption="What the predictions missed; a pattern here is something still to be learned.",
    )
    return _joined([first, second])


def _per_class(test: Any) -> _Html:
    found = plotting.confusion(test.y_true, test.y_pred, test.classes)
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
    of_numbers = map(_Numbers, ("Rows", "Predicted", "Recall", "Precision"))
    words = (
        "Recall: the share of a class's rows that were recognised. Precision: the share of the rows predicted as that "
        "class that really belong to it."
    )
    table = _table(["Class", *of_numbers], rows, open_rows=_MOST_COLUMNS_OPEN)
    return _html('{}<p class="fine">{}</p>', table, words)


def _use(experiment: Experiment) -> _Html:
    if experiment.network is None:
        return _NOTHING
    use = (
        "<p>In a shell, where this folder is called FOLDER and NEW.csv is a table with the same columns:</p>"
        "<pre>kerastoolkit predict FOLDER NEW.csv</pre><p>In Python:</p>"
        "<pre>from kerastoolkit import load_experiment\n\n"
        'experiment = load_experiment("FOLDER")\nexperiment.predict("NEW.csv")</pre>'
        "<p>Blanks and categories never seen before are fine. "
        "Columns that were not used may be missing.</p>"
    )
    return _section("Using it", _joined([_html(use), _instead(experiment)]))


def _instead(experiment: Experiment) -> _Html:
    """How to take the best simple model, unless the network is ahead of it."""
    rival, comparison = experiment.best_baseline, experiment.comparison
    if rival is None or comparison is None or comparison.outcome == "ahead":
        return _NOTHING
    return _html(
        "<h3>Taking {} instead</h3><p>A scikit-learn pipeline, fitted on all rows of TABLE.csv, the table of this "
        "report:</p><pre>from kerastoolkit import load_experiment\n\n"
        'model = load_experiment("FOLDER").fit_baseline("{}", "TABLE.csv")\nmodel.predict("NEW.csv")</pre>',
        rival.name[:1].lower() + rival.name[1:],
        rival.name,
    )


def _record(experiment: Experiment) -> _Html:
    record = experiment.record
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    arguments = json.dumps(record["arguments"], ensure_ascii=False)
    data = _html("{}, SHA-256 <code>{}</code>", record["data"]["name"], record["data"]["sha256"])
    items: list[tuple[str, str]] = [("Data", data), ("Arguments", _code(arguments)), ("Versions", versions)]
    if experiment.best_params:
        items.insert(0, ("Chosen", _code(_spelt(experiment.best_params))))
    return _section("To repeat it", _definitions(items))


# ------------------------------------------------------------------------------------------------------------ words


def _title(metric: str) -> str:
    return metric.removeprefix("neg_").replace("_", " ").replace("roc auc", "ROC AUC").replace("r2", "R²")


def _sign(metric: str) -> int:
    """scikit-learn turns errors into scores by a minus; people read them without."""
    return -1 if metric.startswith("neg_") else 1


def _score_value(score: Score) -> str:
    return _figures(_sign(score.metric) * score.value)


def _interval(score: Score) -> str:
    ends, how = _interval_and_how(score)
    return f"{score.level:.0%} interval {ends} ({how})" if score.has_interval else how


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


def _param(value: Any) -> str:
    if isinstance(value, (tuple, list)):  # a tuple is a list when it comes back from a file
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _spelt(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_param(value)}" for name, value in params.items())


def _blanks(n_blank: int, n_rows: int) -> str:
    return f"{n_blank:,} ({n_blank / n_rows:.0%})" if n_blank else "–"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# ------------------------------------------------------------------------------------------------------------- HTML


class _Html(str):
    """Text that is HTML already; all other text is escaped before it becomes a part of the page."""


class _Numbers(str):
    """The heading of a column of numbers."""


class _Words(str):
    """The heading of a column of sentences."""


def _escaped(value: object) -> _Html:
    return value if isinstance(value, _Html) else _Html(html.escape(printable(value), quote=True))


def _html(template: str, *values: object) -> _Html:
    """HTML of ours, with values in place of `{}`: they are escaped, unless they are HTML themselves."""
    return _Html(template.format(*map(_escaped, values)))


def _joined(parts: Iterable[object]) -> _Html:
    return _Html("".join(map(_escaped, parts)))


_NOTHING = _Html("")


def _section(title: str, body: _Html) -> _Html:
    return _html("<section><h2>{}</h2>{}</section>", title, body)


def _card(title: str, value: str, words: str, *, leading: bool = False) -> _Html:
    kind = "card leading" if leading else "card"
    return _html('<div class="{}"><h3>{}</h3><p class="value">{}</p><p>{}</p></div>', kind, title, value, words)


def _notice(words: str) -> _Html:
    return _html('<p class="notice" role="note">{}</p>', words)


def _figure(
    draw: Callable[[Any], Any],
    *,
    size: tuple[float, float],
    label: str,
    caption: str,
    narrow: tuple[float, float] | None = None,
    draw_narrow: Callable[[Any], Any] | None = None,
) -> _Html:
    """A figure; one with a size for narrow pages is drawn for these as well, another scrolls where it is too wide."""
    try:
        svg = _svg(draw, size, label)
        if narrow is None:
            least = f"{0.8 * size[0]:.2f}in"  # a little smaller, and it can still be read
            svg = _html('<div class="scrolls"><div style="min-width: {}">{}</div></div>', least, svg)
        else:
            parts = svg, _svg(draw_narrow or draw, narrow, label)
            svg = _html('<div class="broad">{}</div><div class="narrow">{}</div>', *parts)
    except Exception as error:
        # matplotlib may raise anything, and nothing of it is worth a search of hours.
        return _notice(f"This figure could not be drawn: {_reason(error)} ({label})")
    return _html("<figure>{}<figcaption>{}</figcaption></figure>", svg, caption)


def _svg(draw: Callable[[Any], Any], size: tuple[float, float], label: str) -> _Html:
    return _Html(plotting.as_svg(draw, size=size, label=label))


def _reason(error: Exception) -> str:
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0][:300]}" if said else type(error).__name__


def _code(words: str) -> _Html:
    return _html("<code>{}</code>", words)


def _definitions(items: Iterable[tuple[str, str]]) -> _Html:
    return _html("<dl>{}</dl>", _joined(_html("<dt>{}</dt><dd>{}</dd>", title, words) for title, words in items))


def _list_of(title: str, entries: Sequence[str]) -> _Html:
    if not entries:
        return _NOTHING
    items = _joined(_html("<li>{}</li>", entry) for entry in entries)
    return _html("<details><summary>{}: {}</summary><ul>{}</ul></details>", title, len(entries), items)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, open_rows: int | None = None) -> _Html:
    """A table; those of its rows that would make it too long fold away."""
    kinds = [_class_of(heading) for heading in headings]
    head = _joined(_html('<th scope="col"{}>{}</th>', *pair) for pair in zip(kinds, headings, strict=True))
    lines = [
        _html("<tr>{}</tr>", _joined(_html("<td{}>{}</td>", *pair) for pair in zip(kinds, row, strict=True)))
        for row in rows
    ]
    shown = len(lines) if open_rows is None or len(lines) <= open_rows + 3 else open_rows

    def table(some: Sequence[_Html]) -> _Html:
        return _html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, _joined(some))

    more = _NOTHING
    if shown < len(lines):
        more = _html("<details><summary>{} more</summary>{}</details>", len(lines) - shown, table(lines[shown:]))
    return _html('<div class="wide" tabindex="0">{}{}</div>', table(lines[:shown]), more)


def _class_of(heading: str) -> _Html:
    kind = "number" if isinstance(heading, _Numbers) else "words" if isinstance(heading, _Words) else ""
    return _html(' class="{}"', kind) if kind else _NOTHING


_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --paper: #ffffff; --ink: #1f2a36; --muted: #5b6876; --line: #d9dfe6;
  --blue: #0072b2; --orange: #d55e00; --green: #009e73; --wash: #eef4f9; --warn: #fff4e0; --warn-line: #e0a030;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101418; --paper: #181e24; --ink: #e7ebef; --muted: #9dabb9; --line: #343f4a;
    --blue: #4aa8e0; --orange: #f08c3c; --green: #35c79b; --wash: #1b2833; --warn: #33280f; --warn-line: #a87a20;
  }
}
@media print {
  :root {
    --page: #fff; --paper: #fff; --ink: #000; --muted: #444; --line: #bbb; --wash: #f3f6f9; --warn: #fff;
    --blue: #0072b2; --orange: #d55e00; --green: #009e73;
  }
  body { font-size: 10pt; }
  main { max-width: none !important; padding: 0 !important; }
  section { border: 0 !important; padding: 0 !important; }
  figure, tr, .card { break-inside: avoid; }
  h2 { break-after: avoid; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
header p { margin: 0; color: var(--muted); }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h1 .from { color: var(--muted); font-weight: 400; }
h2 { font-size: 1.2rem; margin: 0 0 .8rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .5rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.4rem 1.5rem;
  margin-top: 1.25rem; }
section > p:first-child { margin-top: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.1rem; }
.card.leading { background: var(--wash); border-color: var(--blue); }
.card h3 { margin: 0; font-weight: 500; color: var(--muted); }
.card p { margin: 0; color: var(--muted); font-size: .88rem; }
.card p.value { font-size: 1.75rem; font-weight: 600; color: var(--ink); line-height: 1.35;
  font-variant-numeric: tabular-nums; }
.verdict { margin: 1.1rem 0 0; font-size: 1.05rem; }
.notice { margin: 0 0 1rem; padding: .7rem 1rem; background: var(--warn); border-left: 4px solid var(--warn-line);
  border-radius: 4px; }
/* The shade at an edge says that there is more of the table beyond it. */
.wide { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--line), transparent) left / .9rem 100% no-repeat scroll,
  linear-gradient(to left, var(--line), transparent) right / .9rem 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem; margin: .4rem 0; }
th { text-align: left; font-weight: 600; color: var(--muted); }
/* "break-word" and not "anywhere", by which a narrow page would have columns of one letter: the table scrolls. */
th, td { padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; min-width: 3.5rem; max-width: 24rem; }
.words { min-width: 11rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 1.3rem; }
th.number { white-space: normal; }
.kind { display: inline-block; padding: 0 .5rem; border-radius: 99px; background: var(--wash); color: var(--blue);
  font-size: .8rem; white-space: nowrap; }
.kind.unused { background: transparent; color: var(--muted); border: 1px dashed var(--line); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1.2rem; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .5rem 0 0; }
figure svg { width: 100%; height: auto; display: block; overflow: visible; }
figure .narrow { display: none; }
figure .scrolls { overflow-x: auto; }
figcaption, .fine { color: var(--muted); font-size: .85rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1rem 0; }
.figures figure { flex: 1 1 20rem; }
pre, code { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--wash); border-radius: 6px; padding: .7rem 1rem; overflow-x: auto; }
details { margin-top: .5rem; }
summary { cursor: pointer; color: var(--blue); font-size: .9rem; }
footer { margin-top: 1.5rem; color: var(--muted); font-size: .85rem; text-align: center; }
@media screen and (max-width: 44rem) {
  main { padding: 1.25rem .75rem 2rem; }
  section { padding: 1.1rem 1rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .5rem; }
  figure .broad { display: none; }
  figure .narrow { display: block; }
  .number { padding-right: .75rem; }
  .figures figure { flex-basis: 100%; }
  /* Which row it is stays in sight while the table is scrolled. */
  th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); max-width: 9rem; }
}
"""

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<h1>Predicting <bdi>$target</bdi> <span class="from">from <bdi>$name</bdi></span></h1>
<p>$subtitle</p>
</header>
$sections
<footer>Written by kerastoolkit $version. This page needs no network.</footer>
</main>
</body>
</html>
"""
)
