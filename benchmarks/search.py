"""A search from `fit` called to scores there, beside everybody else who could do it.

    python benchmarks/search.py [--case a,b] [--who ours,scikeras] [--repeats 3] [--slow-repeats 1] [--scale 0.1]

A job is a grid of candidates, each trained on the same folds and scored on what was held out, or one fit. Every
contestant does it in a process of its own; the clock runs from the call of `fit` to the scores, so that building,
training and scoring count, and imports and the loading of data do not (the workers of `n_jobs=2` are started, and have
imported everything, before the clock starts). Measured are seconds, CPU seconds of all its processes, and their peak
of resident memory, imports included. The scores stand beside them: whoever is quick because he learned less is found
out. Contestants take turns, so that a disturbance of the machine hits them all, and the table shows medians and the
range from the least to the most.

The cases, the networks and the contestants are in `_contestants.py`. Rivals that are not installed are left out with a
line that says so; `pip install -r benchmarks/requirements.txt` installs them.

Written to `benchmarks/results`: `search.md`, `search.json` (after each run, so that a stopped benchmark is not lost;
`--add` keeps the runs that are in it of other cases and contestants), `search.png`, and `growth.png` for case h.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from _contestants import CONTESTANTS, Case, Contestant, cases

PACKAGES = ["kerastoolkit", "keras", "tensorflow", "scikit-learn", "scikeras", "skorch", "torch", "keras-tuner"]
CONTESTANTS_FILE = Path(__file__).with_name("_contestants.py")


def run(case: Case, who: str, scale: float, timeout: float) -> dict[str, Any]:
    """One job in a fresh process: what it measured, or `error`."""
    command = [sys.executable, str(CONTESTANTS_FILE), "--case", case.name, "--who", who, "--scale", str(scale)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:g} s"}
    finally:
        if process.poll() is None:  # given up, here or by Ctrl-C: with its workers, which are in its session
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        result = dict(json.loads(out.strip().splitlines()[-1]))
        del result["scores"]  # of every candidate: too many to keep
        return result
    lines = [line for line in errors.splitlines() if line and not line.startswith((" ", "\t"))]
    named = [line for line in lines if "Error" in line.split(":")[0]]
    return {"error": (named or lines or [f"exit status {process.returncode}"])[-1][:200]}


# -- what it was measured on ----------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The machine, the versions and the moment."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "commit": _commit(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(CONTESTANTS_FILE.parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# -- figures --------------------------------------------------------------------------------------------------------


class Figures:
    """The runs of one contestant in one case, as figures of a whole job.

    Args:
        runs: Its runs; those of rivals that trained a part of the candidates are multiplied.
    """

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        good = [one for one in runs if "error" not in one]
        self.error = None if good else runs[-1]["error"]
        self.n_runs = len(good)
        if good:
            self.times = good[0]["times"]
            self.all_seconds = [one["seconds"] * self.times for one in good]
            self.seconds = statistics.median(self.all_seconds)
            self.cpu = statistics.median(one["cpu"] for one in good) * self.times
            self.peak = statistics.median(one["peak_mb"] for one in good)
            self.best = statistics.mean(one["best"] for one in good)
            self.mean = statistics.mean(one["mean"] for one in good)

    @property
    def spread(self) -> str:
        """The range of the seconds, in words."""
        if self.n_runs < 2:
            return "one run"
        return f"{number(min(self.all_seconds))} to {number(max(self.all_seconds))}"


def number(value: float) -> str:
    """Three digits are enough."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def figures_of(found: dict[str, Any], case: str) -> dict[str, Figures]:
    """The figures of a case by contestant, in the order of the contestants."""
    runs = found["runs"].get(case, {})
    return {who: Figures(runs[who]) for who in CONTESTANTS if runs.get(who)}


# -- table ----------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Everything that was measured, in Markdown."""
    on = found["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in on["versions"].items())
    lines = [
        "# Searches, from `fit` called to scores there",
        "",
        f"{on['processor']}, {on['cores']} cores, {on['system']}; {versions}; commit {on['commit']}; {on['date']}; "
        f"load of the machine at the beginning {on['load']:.1f}. Made by `python benchmarks/search.py`, which says how "
        "it is measured. Seconds and CPU seconds are medians; a ratio is to kerastoolkit's, and above 1 is more than "
        "it takes. Memory is the peak of all processes, with what the imports take.",
    ]
    if found["scale"] != 1:
        lines += ["", f"**A trial at scale {found['scale']:g}: fewer candidates and epochs than the titles say.**"]
    for case in cases():
        if case.grows_with is None and case.name in {**found["runs"], **found["left_out"]}:
            lines += ["", f"## {case.name}: {case.title}", "", *_rows_of(found, case)]
    for kind, title in (("models", "number of models"), ("rows", "number of rows")):
        points = _points(found, kind)
        if points:
            lines += ["", f"## h: growth with the {title}", "", f"| {kind} | seconds | range | CPU s | peak MB |"]
            lines += ["| --: | --: | --- | --: | --: |"]
            lines += [
                f"| {at:,} | {number(one.seconds)} | {one.spread} | {number(one.cpu)} | {number(one.peak)} |"
                for at, one in points
            ]
    return "\n".join(lines) + "\n"


def _rows_of(found: dict[str, Any], case: Case) -> list[str]:
    lines = [
        "| | seconds | range | ratio | CPU s | ratio | peak MB | ratio | best score | mean score |",
        "| --- | --: | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    figures = figures_of(found, case.name)
    ours = figures.get("ours")
    notes = [f"{CONTESTANTS[who].title}: {why}." for who, why in found["left_out"].get(case.name, {}).items()]
    for who, one in figures.items():
        title = CONTESTANTS[who].title
        if one.error is not None:
            notes.append(f"{title}: {one.error}.")
            continue
        if one.times != 1:
            title += f" \\*{one.times:g}"
            notes.append(f"{title}: trained one in {one.times:g} of the candidates, and its seconds are multiplied.")
        cells = [title, number(one.seconds), one.spread, _ratio(one, ours, "seconds"), number(one.cpu)]
        cells += [_ratio(one, ours, "cpu"), number(one.peak), _ratio(one, ours, "peak")]
        lines.append(f"| {' | '.join(cells)} | {one.best:.3f} | {one.mean:.3f} |")
    return [*lines, *(f"\n{note}" for note in notes)]


def _ratio(one: Figures, ours: Figures | None, name: str) -> str:
    if ours is None or ours.error is not None or one is ours:
        return ""
    return number(getattr(one, name) / getattr(ours, name))


def _points(found: dict[str, Any], kind: str) -> list[tuple[int, Figures]]:
    points = []
    for case in cases():
        if case.grows_with is not None and case.grows_with[0] == kind:
            one = figures_of(found, case.name).get("ours")
            if one is not None and one.error is None:
                points.append((case.grows_with[1], one))
    return points


# -- plots ----------------------------------------------------------------------------------------------------------


def plot(found: dict[str, Any], folder: Path) -> None:
    """Bars of the seconds of each case, and the curves of case h."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plots")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    shown: list[tuple[Case, dict[str, Figures]]] = []
    for case in cases():
        figures = {who: one for who, one in figures_of(found, case.name).items() if one.error is None}
        if case.grows_with is None and figures:
            shown.append((case, figures))
    if shown:
        heights = [len(figures) + 2 for _, figures in shown]
        figure, axes = pyplot.subplots(
            len(shown), figsize=(9, 0.32 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
        )
        for axis, (case, figures) in zip(axes[:, 0], shown, strict=True):
            _bars(axis, case, figures)
        figure.savefig(folder / "search.png", dpi=120)
        pyplot.close(figure)
    curves = {kind: points for kind in ("models", "rows") if (points := _points(found, kind))}
    if curves:
        figure, axes = pyplot.subplots(1, len(curves), figsize=(4.5 * len(curves), 4), squeeze=False)
        for axis, (kind, points) in zip(axes[0], curves.items(), strict=True):
            _curve(axis, kind, points)
        figure.tight_layout()
        figure.savefig(folder / "growth.png", dpi=120)
        pyplot.close(figure)


def _bars(axis: Any, case: Case, figures: dict[str, Figures]) -> None:
    names = [CONTESTANTS[who].title.replace("`", "") + " *" * (one.times != 1) for who, one in figures.items()]
    seconds = [one.seconds for one in figures.values()]
    least = [one.seconds - min(one.all_seconds) for one in figures.values()]
    most = [max(one.all_seconds) - one.seconds for one in figures.values()]
    colours = ["tab:orange" if who == "ours" else "tab:blue" for who in figures]
    axis.barh(names, seconds, xerr=[least, most], color=colours, height=0.7, error_kw={"elinewidth": 1})
    axis.set_xscale("log")
    axis.set_xlim(min(seconds) / 2, max(seconds) * 3)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter("{x:g} s")
    axis.xaxis.set_minor_formatter("")
    for place, (value, more) in enumerate(zip(seconds, most, strict=True)):
        end = (value + more, place)
        axis.annotate(f"{number(value)} s", end, (6, 0), textcoords="offset points", va="center", size=8)
    axis.set_title(f"{case.name}: {case.title}", loc="left", size=8, wrap=True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _curve(axis: Any, kind: str, points: list[tuple[int, Figures]]) -> None:
    at, seconds = [place for place, _ in points], [one.seconds for _, one in points]
    axis.fill_between(
        at,
        [min(one.all_seconds) for _, one in points],
        [max(one.all_seconds) for _, one in points],
        color="tab:orange",
        alpha=0.3,
        linewidth=0,
    )
    axis.loglog(at, seconds, "o-", color="tab:orange", label="kerastoolkit")
    axis.loglog(at, [seconds[-1] * place / at[-1] for place in at], ":", color="grey", label="in proportion")
    axis.set_xlabel(f"number of {kind}")
    axis.set_ylabel("seconds from fit to scores")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


# -- the whole ------------------------------------------------------------------------------------------------------


def _chosen(given: str | None, known: list[str], what: str, parser: argparse.ArgumentParser) -> list[str]:
    if given is None:
        return known
    found = []
    for wanted in given.split(","):
        # A letter stands for all cases of the letter.
        same = [name for name in known if name == wanted or (what == "case" and name[:1] == wanted)]
        if not same:
            parser.error(f"there is no {what} {wanted!r}; there are {', '.join(known)}")
        found += same
    return [name for name in known if name in found]


def write(found: dict[str, Any], folder: Path) -> None:
    """The figures and the table, whatever there is so far."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "search.md").write_text(table(found))


def _says(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])
    return f"{number(result['seconds'])} s, {number(result['peak_mb'])} MB, best {result['best']:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Searches, from fit called to scores there, side by side.")
    parser.add_argument("--case", help="letters or names of cases, with commas (default: all)")
    parser.add_argument("--who", help="names of contestants, with commas (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--slow-repeats", type=int, help="runs of a rival whose first was slow (default: as --repeats)")
    parser.add_argument("--slow", type=float, default=120.0, help="seconds from which it is (default: %(default)g)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of candidates and epochs, for a trial")
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds for a run (default: %(default)g)")
    parser.add_argument("--add", action="store_true", help="keep the other runs that are in search.json")
    parser.add_argument("--out", type=Path, default=CONTESTANTS_FILE.parent / "results", help="where results go")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a job does not go on without its parent
    slow_repeats = options.repeats if options.slow_repeats is None else options.slow_repeats

    all_cases = {case.name: case for case in cases()}
    chosen = [all_cases[name] for name in _chosen(options.case, list(all_cases), "case", parser)]
    if options.scale < 1:  # a trial leaves out the far ends of the curves
        far = {"models": 512 * options.scale, "rows": 1e6 * options.scale}
        chosen = [case for case in chosen if case.grows_with is None or case.grows_with[1] <= far[case.grows_with[0]]]
    contestants = _chosen(options.who, list(CONTESTANTS), "contestant", parser)

    found: dict[str, Any] = {"runs": {}, "left_out": {}}
    if options.add and (options.out / "search.json").exists():
        found = json.loads((options.out / "search.json").read_text())
        if found["scale"] != options.scale:
            parser.error(f"search.json was measured at scale {found['scale']:g}")
    found |= {"machine": machine(), "scale": options.scale}

    for case in chosen:
        taking_part: dict[str, Contestant] = {}
        left_out = found["left_out"].setdefault(case.name, {})
        for name in contestants:
            if case.who is not None and name not in case.who:
                continue
            left_out.pop(name, None)
            reason = CONTESTANTS[name].reason_against(case)
            if reason is None:
                taking_part[name] = CONTESTANTS[name]
                found["runs"].setdefault(case.name, {})[name] = []
            elif reason:
                left_out[name] = reason
                print(f"{case.name:14}{name:16}left out: {reason}", flush=True)
        for turn in range(options.repeats):
            for name in taking_part:
                runs = found["runs"][case.name][name]
                failed = bool(runs) and "error" in runs[0]
                is_slow = bool(runs) and name != "ours" and not failed and runs[0]["seconds"] > options.slow
                if failed or (is_slow and turn >= slow_repeats):
                    continue
                runs.append(run(case, name, options.scale, options.timeout))
                print(f"{case.name:14}{name:16}{turn + 1}: {_says(runs[-1])}", flush=True)
                write(found, options.out)
    write(found, options.out)
    plot(found, options.out)
    print(f"Written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
