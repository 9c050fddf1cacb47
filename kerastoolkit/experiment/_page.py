"""The HTML of the report: sections, cards, tables and figures, and the style of the page.

Whatever comes from the data or from a record, which may be a stranger's file, is escaped: `html` escapes every value
that is not `Html` already, so that a value that nobody thought of is shown and not obeyed. A figure that fails says so
in its place, and costs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from string import Template
from typing import TYPE_CHECKING

from kerastoolkit import plotting
from kerastoolkit._words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "NOTHING",
    "PAGE",
    "STYLE",
    "Html",
    "Numbers",
    "Words",
    "card",
    "code",
    "definitions",
    "escaped",
    "figure",
    "html",
    "joined",
    "list_of",
    "notice",
    "reason",
    "section",
    "table",
]


class Html(str):
    """Text that is HTML already; all other text is escaped before it becomes a part of the page."""


class Numbers(str):
    """The heading of a column of numbers."""


class Words(str):
    """The heading of a column of sentences."""


def escaped(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(printable(value), quote=True))


def html(template: str, *values: object) -> Html:
    """HTML of ours, with values in place of `{}`: they are escaped, unless they are HTML themselves."""
    return Html(template.format(*map(escaped, values)))


def joined(parts: Iterable[object]) -> Html:
    return Html("".join(map(escaped, parts)))


NOTHING = Html("")


def section(title: str, body: Html) -> Html:
    return html("<section><h2>{}</h2>{}</section>", title, body)


def card(title: str, value: str, words: str, *, leading: bool = False) -> Html:
    kind = "card leading" if leading else "card"
    return html('<div class="{}"><h3>{}</h3><p class="value">{}</p><p>{}</p></div>', kind, title, value, words)


def notice(words: str) -> Html:
    return html('<p class="notice" role="note">{}</p>', words)


def figure(
    draw: Callable[[Axes], object],
    *,
    size: tuple[float, float],
    label: str,
    caption: str,
    narrow: tuple[float, float] | None = None,
    draw_narrow: Callable[[Axes], object] | None = None,
) -> Html:
    """A figure; one with a size for narrow pages is drawn for these as well, any other scrolls if it is too wide."""
    try:
        svg = _svg(draw, size, label)
        if narrow is None:
            least = f"{0.8 * size[0]:.2f}in"  # a little smaller, it can still be read
            svg = html('<div class="scrolls"><div style="min-width: {}">{}</div></div>', least, svg)
        else:
            parts = svg, _svg(draw_narrow or draw, narrow, label)
            svg = html('<div class="broad">{}</div><div class="narrow">{}</div>', *parts)
    except Exception as error:
        # matplotlib may raise anything, and no such error is worth losing a search of hours.
        return notice(f"This figure could not be drawn: {reason(error)} ({label})")
    return html("<figure>{}<figcaption>{}</figcaption></figure>", svg, caption)


def _svg(draw: Callable[[Axes], object], size: tuple[float, float], label: str) -> Html:
    return Html(plotting.as_svg(draw, size=size, label=label))


def reason(error: Exception) -> str:
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0][:300]}" if said else type(error).__name__


def code(words: str) -> Html:
    return html("<code>{}</code>", words)


def definitions(items: Iterable[tuple[str, str]]) -> Html:
    return html("<dl>{}</dl>", joined(html("<dt>{}</dt><dd>{}</dd>", title, words) for title, words in items))


def list_of(title: str, entries: Sequence[str]) -> Html:
    if not entries:
        return NOTHING
    items = joined(html("<li>{}</li>", entry) for entry in entries)
    return html("<details><summary>{}: {}</summary><ul>{}</ul></details>", title, len(entries), items)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, open_rows: int | None = None) -> Html:
    """A table; rows that would make it too long are folded away."""
    kinds = [_class_of(heading) for heading in headings]
    head = joined(html('<th scope="col"{}>{}</th>', *pair) for pair in zip(kinds, headings, strict=True))
    lines = [
        html("<tr>{}</tr>", joined(html("<td{}>{}</td>", *pair) for pair in zip(kinds, row, strict=True)))
        for row in rows
    ]
    shown = len(lines) if open_rows is None or len(lines) <= open_rows + 3 else open_rows

    def lines_of(some: Sequence[Html]) -> Html:
        return html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, joined(some))

    more = NOTHING
    if shown < len(lines):
        more = html("<details><summary>{} more</summary>{}</details>", len(lines) - shown, lines_of(lines[shown:]))
    return html('<div class="wide" tabindex="0">{}{}</div>', lines_of(lines[:shown]), more)


def _class_of(heading: str) -> Html:
    kind = "number" if isinstance(heading, Numbers) else "words" if isinstance(heading, Words) else ""
    return html(' class="{}"', kind) if kind else NOTHING


STYLE = """
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
.conclusion { margin: 1.1rem 0 0; font-size: 1.05rem; }
.notice { margin: 0 0 1rem; padding: .7rem 1rem; background: var(--warn); border-left: 4px solid var(--warn-line);
  border-radius: 4px; }
/* The shade at an edge says that the table goes on beyond it. */
.wide { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--line), transparent) left / .9rem 100% no-repeat scroll,
  linear-gradient(to left, var(--line), transparent) right / .9rem 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem; margin: .4rem 0; }
th { text-align: left; font-weight: 600; color: var(--muted); }
/* "break-word", since "anywhere" would give a narrow page columns of one letter: the table scrolls instead. */
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
  /* The name of a row stays in sight while the table is scrolled. */
  th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); max-width: 9rem; }
}
"""

PAGE = Template(
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
<footer>Written by kerastoolkit $version. This page works offline.</footer>
</main>
</body>
</html>
"""
)
