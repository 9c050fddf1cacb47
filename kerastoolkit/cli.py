"""The main jobs from a shell: `kerastoolkit search`, `predict`, `export` and `serve`.

A thin door: the work is done in `kerastoolkit.experiment`, `export` and `serving`, which are imported only once a
command runs, so that `--help` answers at once. Exit status: 0 done, 1 done but not all of it could be written, 2
something about the input is wrong (one message on stderr), 130 interrupted.

Everything is printed by `_say`, since tables, files and folders may have any name: what a terminal would obey is
spelt out, and so is what it cannot show.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

from kerastoolkit._version import __version__
from kerastoolkit._words import did_you_mean, near_misses, printable, quoted
from kerastoolkit.exceptions import DataError, KerasToolkitError, KerasToolkitWarning, ParameterError

if TYPE_CHECKING:
    import pandas as pd

    from kerastoolkit.data.repeats import Question
    from kerastoolkit.experiment import Experiment, Plan, Progress

    _Commands = argparse._SubParsersAction["_Parser"]

__all__ = ["main"]

_DEMOS = ("breast_cancer", "diabetes", "digits", "iris", "wine")

# What `kerastoolkit export` writes, by the ending of its name.
_ENDINGS = {".onnx": "onnx", ".tflite": "litert", ".xml": "openvino"}
_FORMATS = ("litert", "onnx", "openvino", "saved_model", "tfjs")

# What other tools call our options.
_OTHER_NAMES = {
    "--budget": "--timeout",
    "--folds": "--cv",
    "--grid": "--param-grid",
    "--group": "--groups",
    "--label": "--target",
    "--max-time": "--timeout",
    "--metric": "--scoring",
    "--n-folds": "--cv",
    "--output": "--out",
    "--params": "--param-grid",
    "--rng": "--random-state",
    "--score": "--scoring",
    "--scorer": "--scoring",
    "--seed": "--random-state",
    "--time-budget": "--timeout",
    "--time-limit": "--timeout",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Words of the command line, without the program's name. Defaults to `None`, those of the process.

    Returns:
        The exit status.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_instead_of(unknown, options.known)}")
    try:
        return int(options.command(options))
    except KerasToolkitError as error:
        _say(f"kerastoolkit: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        _say("kerastoolkit: interrupted", sys.stderr)
        return 130


def _instead_of(unknown: Sequence[str], known: Sequence[str]) -> str:
    """A sentence that names the option that may have been meant; empty if none looks like it."""
    names = {**dict(zip(known, known, strict=True)), **{name: to for name, to in _OTHER_NAMES.items() if to in known}}
    options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    meant = [names[name] for option in options[:1] for name in near_misses(option, names, n=1)]
    return f". Did you mean {meant[0]}?" if meant else ""


def _say(text: str, stream: TextIO) -> None:
    print(_showable(printable(text, keep="\n"), stream), file=stream, flush=True)


def _showable(text: str, stream: TextIO) -> str:
    """The text without what the stream's encoding lacks: an error in the last line would cost the whole search."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def _warnings_are_said() -> Iterator[None]:
    """Prints our own warnings as lines on stderr, without the place in the code, which is of no use in a shell."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", KerasToolkitWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, KerasToolkitWarning):
                _say(f"kerastoolkit: {message}", sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = say
        yield


class _Parser(argparse.ArgumentParser):
    """argparse repeats words that it does not know, and a shell may have put any file name among them."""

    def error(self, message: str) -> NoReturn:
        super().error(_showable(printable(message), sys.stderr))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kerastoolkit",
        description="From a table to a tuned Keras network, with an honest report.",
        epilog="Try it: kerastoolkit search --demo",
    )
    parser.add_argument("--version", action="version", version=f"kerastoolkit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_search(commands)
    _add_predict(commands)
    _add_export(commands)
    _add_serve(commands)
    return parser


def _add_search(commands: _Commands) -> None:
    search = commands.add_parser(
        "search",
        help="search for a network that suits a table, and write a folder with the report",
        description="Search for a Keras network that predicts one column of a table from the others. Writes a folder: "
        "report.html to read, the fitted model for `kerastoolkit predict`, results.csv and run.json.",
    )
    search.add_argument("table", nargs="?", metavar="TABLE", help="a CSV or Parquet file")
    search.add_argument("--target", metavar="COLUMN", help="the column to predict")
    search.add_argument(
        "--demo",
        nargs="?",
        const=_DEMOS[0],
        choices=_DEMOS,
        metavar="NAME",
        help=f"a data set of scikit-learn instead of TABLE and --target: {', '.join(_DEMOS)} (default: {_DEMOS[0]})",
    )
    search.add_argument(
        "--out",
        metavar="FOLDER",
        help="a new folder to write, or that of an interrupted search, which then resumes (default: kerastoolkit-NAME)",
    )
    search.add_argument("--task", choices=("classification", "regression"), help="default: inferred from the target")
    search.add_argument(
        "--scoring", metavar="NAME", help="name of a scikit-learn scorer (default: chosen to suit the task)"
    )
    search.add_argument("--cv", type=int, metavar="N", help="number of folds (default: 3)")
    search.add_argument(
        "--groups", metavar="COLUMN", help="rows with the same value, such as a patient, are held out together"
    )
    search.add_argument(
        "--no-groups",
        dest="groups",
        action="store_const",
        const=False,
        help="rows do not belong together, so do not ask",
    )
    search.add_argument("--time", metavar="COLUMN", help="hold out the latest rows, by this column")
    search.add_argument(
        "--no-time", dest="time", action="store_const", const=False, help="time does not matter, so do not ask"
    )
    search.add_argument(
        "--param-grid",
        default="small",
        metavar="small|wide|FILE",
        help='8 or 48 candidates, or a JSON file such as {"hidden": [[64], [128, 64]], "dropout": [0, 0.3]}',
    )
    search.add_argument(
        "--n-repeats",
        type=int,
        metavar="N",
        help="how often the best network and the best baseline are cross-validated again to compare them "
        "(default: as often as gives fifteen folds)",
    )
    search.add_argument("--random-state", type=int, default=0, metavar="N", help="seed of splits and fits (default: 0)")
    search.add_argument("--timeout", type=float, metavar="SECONDS", help="start no further candidate after this time")
    search.set_defaults(command=_search, known=_options_of(search))


def _add_predict(commands: _Commands) -> None:
    predict = commands.add_parser(
        "predict",
        help="predict new rows with the model of a folder",
        description="Predict new rows with the model that a search has written. Writes the table with its predictions "
        "as further columns.",
    )
    predict.add_argument("folder", metavar="FOLDER", help="the folder of a search")
    predict.add_argument("table", metavar="NEW", help="a CSV or Parquet file with the same columns")
    predict.add_argument(
        "--out", metavar="FILE", help="a new .csv or .parquet file to write (default: NAME-predictions.csv)"
    )
    predict.set_defaults(command=_predict, known=_options_of(predict))


def _add_export(commands: _Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write a model as one file for other runtimes, such as ONNX",
        description="Write a model as one file, or a folder, for another runtime: raw input to label. What was written "
        "is compared with the model first; nothing is written unless it answers alike.",
    )
    export.add_argument("model", metavar="MODEL", help="the folder of a search, or a saved estimator or pipeline")
    export.add_argument("out", metavar="OUT", help="a new file or folder to write: model.onnx, model.tflite, ...")
    export.add_argument(
        "--format",
        choices=sorted(_FORMATS),
        metavar="NAME",
        help=f"{', '.join(sorted(_FORMATS))} (default: by the ending of OUT: {', '.join(sorted(_ENDINGS))})",
    )
    export.add_argument(
        "--quantize",
        choices=("dynamic", "float16", "int8"),
        help="fewer bits for each number (litert; float16 for tfjs, too)",
    )
    export.add_argument("--sample", metavar="TABLE", help="a CSV or Parquet file whose rows are compared")
    export.set_defaults(command=_export, known=_options_of(export))


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer requests over HTTP with a model",
        description="Answer requests over HTTP with a model, until it is interrupted: rows of JSON at /predict, a form "
        "at /, all paths at /docs. The token may also be in the environment variable KERASTOOLKIT_TOKEN.",
    )
    serve.add_argument("model", metavar="MODEL", help="an ONNX file, the folder of a search, or a saved estimator")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any that is free (default: 8000)")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port (default: 1)")
    serve.add_argument("--name", default="model", help="of the model in /v1/models/NAME (default: model)")
    serve.add_argument("--token", help="requests must bring it (default: none is needed)")
    serve.add_argument("--max-rows", type=int, default=1000, metavar="N", help="of a request (default: 1000)")
    serve.add_argument("--max-body", type=int, default=2**20, metavar="BYTES", help="of a request (default: 1048576)")
    serve.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of a request (default: 30)")
    serve.add_argument("--log", metavar="FILE", help="an SQLite file that keeps every row and answer (default: none)")
    serve.add_argument("--sample", type=float, metavar="FRACTION", help="of the requests that --log keeps (default: 1)")
    serve.add_argument("--log-exclude", nargs="+", metavar="COLUMN", help="columns that --log leaves out")
    serve.add_argument(
        "--dockerfile", action="store_true", help="write a Dockerfile beside the ONNX file instead of serving it"
    )
    serve.set_defaults(command=_serve, known=_options_of(serve))


def _options_of(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]


# ----------------------------------------------------------------------------------------------------------- search


def _search(options: argparse.Namespace) -> int:
    if options.demo is None and (options.table is None or options.target is None):
        lacking = "TABLE" if options.table is None else "--target COLUMN"
        raise ParameterError(f"{lacking} is missing. Give a table and its target, or --demo to try it without.")
    if options.demo is not None and (options.table is not None or options.target is not None):
        raise ParameterError("--demo brings its own table and target: leave out TABLE and --target.")
    if options.table is not None and not Path(options.table).exists():
        # Before anything is imported.
        raise DataError(_no_such_file(options.table))

    from kerastoolkit.experiment import plan_experiment

    table, target, name = (options.table, options.target, None) if options.demo is None else _demo(options.demo)
    folder = Path(options.out) if options.out else _unused(f"kerastoolkit-{options.demo or Path(options.table).stem}")
    names = ("task", "scoring", "cv", "groups", "time", "param_grid", "n_repeats", "random_state", "timeout")
    arguments: dict[str, Any] = {**{name: getattr(options, name) for name in names}, "out": folder, "name": name}
    plan = plan_experiment(table, target, **arguments)
    _say(f"{plan.explain()}\n", sys.stdout)
    if answers := _answers(plan.questions):
        plan = plan_experiment(table, target, **{**arguments, **answers})
        _say("".join(f"{title}: {words}\n" for title, words in plan.decisions()), sys.stdout)
    line = _ProgressLine(sys.stderr, scoring=plan.scoring, n_folds=plan.n_folds)
    try:
        with _warnings_are_said(), _without_questions(plan):
            experiment = plan.run(progress=line)
    except KeyboardInterrupt:
        line.close()
        _say(f"Interrupted. What was found so far: {printable(folder / 'report.html')}", sys.stderr)
        _say(f"To resume, give the same command with --out {printable(folder)}.", sys.stderr)
        return 130
    line.close()
    _say(_conclusion(experiment, folder), sys.stdout)
    return 1 if experiment.unsaved else 0


def _answers(questions: Sequence[Question]) -> dict[str, str | Literal[False]]:
    """The user's answers, if somebody sits at a terminal; a script is never kept waiting."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return {}
    denied = set()
    for question in questions:
        does = "all rows of a value" if question.argument == "groups" else "the latest rows"
        _say(f"{quoted(question.column)}: hold out {does}? y for yes, n for no, Enter to leave it open:", sys.stderr)
        answer = sys.stdin.readline().strip().lower()
        if answer in ("y", "yes"):
            return {question.argument: question.column}
        if answer in ("n", "no"):
            denied.add(question)
    left_open = {question.argument for question in questions if question not in denied}
    return {question.argument: False for question in denied if question.argument not in left_open}


@contextlib.contextmanager
def _without_questions(plan: Plan) -> Iterator[None]:
    """Silences the warnings that would repeat the questions of the plan."""
    with warnings.catch_warnings():
        for question in plan.questions:
            warnings.filterwarnings("ignore", re.escape(question.text), KerasToolkitWarning)
        yield


def _conclusion(experiment: Experiment, folder: Path) -> str:
    test = experiment.test
    chosen = ", ".join(f"{name}={value}" for name, value in experiment.best_params.items())
    lines = [str(scores) for scores in experiment.baselines]
    if experiment.best_index is not None:
        lines.append(str(replace(experiment.candidates()[experiment.best_index][1], name="Best network")))
        lines.append("(± is the sample standard deviation over the folds)")
    lines += ["", f"Winner: {chosen}", experiment.explain()]
    rival, comparison = experiment.best_baseline, experiment.comparison
    if rival is not None and comparison is not None and comparison.outcome == "behind":
        call = f'load_experiment("{folder}").fit_baseline("{rival.name}", TABLE)'
        lines.append(f"To use it, in Python: {call}")
    if experiment.left_out:
        lines.append(f"Left out for lack of time: {len(experiment.left_out)} candidates (see the report).")
    if experiment.failed:
        lines.append(f"Could not be trained: {len(experiment.failed)} candidates (see the report).")
    if test is not None:
        lines.append(f"On {experiment.tested_on()}: {test.scores[experiment.scoring]}")
        beside = {name: scores[experiment.scoring] for name, scores in experiment.baseline_tests.items()}
        lines += [f"  {name} on the same rows: {score}" for name, score in beside.items()]
    typed = shlex.quote(f"./{folder}" if str(folder).startswith("-") else str(folder))
    lines += [
        "",
        f"Report:  {folder / 'report.html'}",
        f"Predict: kerastoolkit predict {typed} NEW.csv",
        f"Export:  kerastoolkit export {typed} model.onnx",
        f"Serve:   kerastoolkit serve {typed}",
    ]
    return "\n".join(map(printable, lines))


class _ProgressLine:
    """One line that is overwritten in a terminal; elsewhere a line for each candidate."""

    def __init__(self, stream: TextIO, *, scoring: str, n_folds: int) -> None:
        self.stream, self.scoring, self.n_folds = stream, scoring, n_folds
        self.is_terminal = stream.isatty()
        self.width, self.last_done = 0, -1

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "done":
            return
        text = _showable(printable(self._text(progress)), self.stream)
        if self.is_terminal:
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        elif progress.stage != "candidates" or (progress.done % self.n_folds == 0 and progress.done > self.last_done):
            self.stream.write(text + "\n")
            self.last_done = progress.done if progress.stage == "candidates" else -1
        self.stream.flush()

    def close(self) -> None:
        """Ends the line."""
        if self.is_terminal and self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()

    def _text(self, progress: Progress) -> str:
        if progress.stage != "candidates":
            return f"{progress.stage}: {progress.message}"
        filled = round(20 * progress.done / max(progress.total, 1))
        parts = [f"[{'#' * filled}{'-' * (20 - filled)}] {progress.done} of {progress.total} fits"]
        if progress.best is not None:
            parts.append(f"best {self.scoring} {progress.best:.3f}")
        parts.append(progress.message)
        if progress.seconds_left is not None:
            parts.append(f"{_spell(progress.seconds_left)} left")
        return ", ".join(parts)


def _spell(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _demo(name: str) -> tuple[pd.DataFrame, str, str]:
    import sklearn.datasets

    data: Any = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    frame = data.frame.copy()
    # Words say more than numbers, if the classes have names.
    if name in ("breast_cancer", "iris", "wine"):
        frame["target"] = [str(data.target_names[label]) for label in data.target]
    return frame, "target", name


# ---------------------------------------------------------------------------------------------------------- predict


def _predict(options: argparse.Namespace) -> int:
    if not Path(options.table).exists():
        raise DataError(_no_such_file(options.table))

    from kerastoolkit.data.tables import read_table
    from kerastoolkit.experiment import load_experiment

    out = _checked_output(options)
    experiment = load_experiment(options.folder)
    frame = read_table(options.table, columns=experiment.columns).frame
    with _warnings_are_said():
        predicted = experiment.predict(frame)
    # If the new table has a column of that name, from an earlier run, it is replaced.
    table = frame.drop(columns=[name for name in predicted.columns if name in frame.columns]).join(predicted)
    if out.suffix == ".parquet":
        from kerastoolkit._optional import require

        require("pyarrow", "Writing a Parquet file")
        table.to_parquet(out, index=False)
    else:
        table.to_csv(out, index=False)
    _say(f"{len(table)} rows predicted: {printable(out)}", sys.stdout)
    return 0


def _checked_output(options: argparse.Namespace) -> Path:
    if options.out is None:
        return _unused(f"{Path(options.table).stem}-predictions", ".csv")
    out = Path(options.out)
    if out.suffix not in (".csv", ".parquet"):
        raise ParameterError(f"--out must end in .csv or .parquet. Got '{out.name}'.")
    if os.path.lexists(out):  # a link that leads nowhere, too: what is written would be somewhere else
        raise ParameterError(f"'{out}' exists already, and nothing is overwritten. Give --out the name of a new file.")
    if not out.absolute().parent.is_dir():
        raise ParameterError(f"There is no folder '{out.parent}' to write '{out.name}' into.")
    return out


# ------------------------------------------------------------------------------------------------- export and serve


def _export(options: argparse.Namespace) -> int:
    for path in filter(None, (options.model, options.sample)):
        if not Path(path).exists():
            raise DataError(_no_such_file(path))
    name = options.format or _ENDINGS.get(Path(options.out).suffix.lower())
    if name is None:
        raise ParameterError(f"--format is missing, since the ending of '{options.out}' does not tell it.")
    if os.path.lexists(options.out):
        raise ParameterError(f"'{options.out}' exists already, and nothing is overwritten. Give another name.")
    more: dict[str, Any] = {}
    if options.quantize is not None:
        if name == "litert":
            more["quantize"] = options.quantize
        elif name == "tfjs" and options.quantize == "float16":
            more["dtype"] = "float16"
        else:
            raise ParameterError(f"--quantize {options.quantize} cannot be had for {name}; litert has it.")

    from kerastoolkit import export

    if options.sample is not None:
        from kerastoolkit.data.tables import read_table

        more["sample"] = read_table(options.sample).frame
    with _warnings_are_said():
        report = getattr(export, name)(options.model, options.out, **more)
    _say(str(report), sys.stdout)
    return 0


def _serve(options: argparse.Namespace) -> int:
    if not Path(options.model).exists():
        raise DataError(_no_such_file(options.model))
    if options.log is None and (options.sample is not None or options.log_exclude):
        raise ParameterError("--sample and --log-exclude say what --log keeps: give --log FILE, too.")
    if options.dockerfile:
        from kerastoolkit.serving._dockerfile import write_dockerfile

        _say(f"Written: {write_dockerfile(options.model)}", sys.stdout)
        return 0

    from kerastoolkit import serving

    names = ("host", "port", "workers", "name", "token", "max_rows", "max_body", "timeout", "log")
    with _warnings_are_said():
        serving.serve(
            options.model,
            **{name: getattr(options, name) for name in names},
            sample=1.0 if options.sample is None else options.sample,
            log_exclude=options.log_exclude or (),
        )
    return 0


def _no_such_file(table: str) -> str:
    path = Path(table)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"No such file: {quoted(table)}.{did_you_mean(path.name, beside)}"


def _unused(name: str, ending: str = "") -> Path:
    """The name, or the first of name-2, name-3, ... that is not taken."""
    path, number = Path(name + ending), 1
    while os.path.lexists(path):
        number += 1
        path = Path(f"{name}-{number}{ending}")
    return path


if __name__ == "__main__":
    sys.exit(main())
