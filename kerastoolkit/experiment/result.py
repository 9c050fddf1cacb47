"""What comes out of an experiment, and the folder that it is saved as.

The folder holds

    report.html            to read: data, baselines, candidates, learning curves, test, what was done
    run.json               to repeat it: versions, seed, arguments, digest of the data, what was chosen and why
    results.csv            every candidate's scores and times
    test_predictions.csv   the held-out rows: true and predicted values
    preprocessing.skops    imputing, scaling, encoding as fitted to the training rows; no pickle
    network.zip            the network, as `kerastoolkit.load` reads it; no pickle
    search.journal         until the experiment is complete: finished fits, so that it can be resumed

and nothing in it is executed when it is read.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import _files
from kerastoolkit._words import printable, quoted
from kerastoolkit.data.repeats import Question
from kerastoolkit.data.tables import (
    EXACTLY,
    Column,
    Table,
    as_features,
    category_names,
    read_table,
    read_target,
    unread_entries,
)
from kerastoolkit.evaluation import Comparison, Evaluation, FoldScores, Score, compare_on_folds, make_baselines
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.experiment._models import Task, fit_baseline, for_tables, make_preprocessor
from kerastoolkit.experiment._records import (
    RUN_FILE,
    as_json,
    check_preprocessing,
    read_column,
    read_comparison,
    read_fold_scores,
    read_record,
    read_scores,
)
from kerastoolkit.experiment.report import render_report

if TYPE_CHECKING:
    from kerastoolkit.estimators import KerasClassifier, KerasRegressor

__all__ = ["Experiment", "load_experiment"]

RESULTS_FILE = "results.csv"
# Finished fits of a search; it is there only until the experiment is complete.
JOURNAL_FILE = "search.journal"
_REPORT = "report.html"
_TEST_PREDICTIONS, _PREPROCESSING, _NETWORK = "test_predictions.csv", "preprocessing.skops", "network.zip"
# What skops does not trust by itself and a preprocessing of ours holds. Nothing that a file says is added to it.
_TRUSTED_TYPES = ("numpy.dtype", "sklearn.compose._column_transformer._RemainderColsList")  # the latter of 1.6


@dataclass(repr=False)
class Experiment:
    """An experiment that was carried out: what was found, what was tried, what won, and how good it is.

    Attributes:
        name: Name of the data.
        target: Name of the target column.
        task: `"classification"` or `"regression"`.
        scoring: Name of the scorer that chose the winner.
        columns: What each column but the target holds.
        decisions: What was decided and why, as pairs of a title and a sentence.
        record: What `run.json` says of the data, the arguments and the versions.
        status: `"complete"`, `"interrupted"` or `"failed"`.
        seconds: How long it took.
        baselines: Scores of the baselines, on the same folds as the candidates.
        results: scikit-learn's `cv_results_`, one row for each candidate. Fits trained together share their time.
        best_index: Row of the winner in `results`; None if the search was not completed.
        left_out: Candidates for which there was no time.
        failed: Candidates that could not be trained and scored on all folds, with their errors.
        history: The winner's training, values by epoch.
        test: The winner on the held-out rows; None if there is no winner.
        baseline_tests: Scores of the baselines on the held-out rows, by name of the baseline and of the metric.
        baseline_models: The baselines, fitted to the training rows, by name: scikit-learn pipelines that predict
            tables as `predict` takes them. They are not saved: `fit_baseline` makes them again.
        comparison: Whether the winner or the best baseline is better, on folds of other splits than the search's, or
            on the search's if there was no time for others. None until the search is complete, and for experiments of
            earlier versions.
        test_rows: Positions of the held-out rows in the table, shape `(n_test,)`.
        preprocessor: The fitted transformer of the winner: typed features to the network's inputs.
        network: The fitted `KerasClassifier` or `KerasRegressor`.
        target_scaler: The fitted scaler of a regression target; None for classification.
        unsaved: Why the run could not write all of its folder, such as a full disk; empty if it could.
    """

    name: str
    target: str
    task: Task
    scoring: str
    columns: list[Column]
    decisions: list[tuple[str, str]]
    record: dict[str, Any]
    status: Literal["complete", "interrupted", "failed"] = "interrupted"
    seconds: float = 0.0
    baselines: list[FoldScores] = field(default_factory=list)
    results: pd.DataFrame = field(default_factory=pd.DataFrame)
    best_index: int | None = None
    left_out: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    test: Evaluation | None = None
    baseline_tests: dict[str, dict[str, Score]] = field(default_factory=dict)
    baseline_models: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    test_rows: np.ndarray | None = None
    preprocessor: ColumnTransformer | None = None
    network: KerasClassifier | KerasRegressor | None = None
    target_scaler: StandardScaler | None = None
    unsaved: str = ""

    def __repr__(self) -> str:
        """What it is and how good, in a few lines."""
        data = self.record["data"]
        lines = [
            f"<Experiment on {quoted(self.name)}: {self.status}>",
            f"  predicts {quoted(self.target)} ({self.task}) from {data['n_rows']} rows, {data['n_columns']} columns",
        ]
        if self.best_index is not None:
            candidates = "candidate" if self.n_evaluated == 1 else "candidates"
            lines.append(f"  winner of {self.n_evaluated} {candidates}: {self.candidates()[self.best_index][1]}")
        elif self.n_evaluated:
            lines.append(f"  {self.n_evaluated} of {self.record['n_candidates']} candidates were evaluated")
        if self.test is not None:
            lines.append(f"  on {self.tested_on()}: {self.test.scores[self.scoring]}")
        if self.n_evaluated:
            lines.append(f"  {self.explain()}")
        return "\n".join(map(printable, lines))

    @property
    def questions(self) -> tuple[Question, ...]:
        """Columns whose rows may belong together, and which neither `groups` nor `time` has answered for."""
        return tuple(Question(**question) for question in self.record["questions"])

    def tested_on(self) -> str:
        """Says what the test rows are, in words that claim no more than is true of them."""
        split = self.record["split"]
        n_rows = split["test"] if self.test is None else len(self.test.y_true)
        if split["groups"] is not None:
            of = f"{split['n_test_values']:,} values of {quoted(split['groups'])}"
            return f"{n_rows:,} rows of {of} that are not among the training rows"
        if split["time"] is not None:
            return f"the latest {n_rows:,} rows, from {split['from']} on in {quoted(split['time'])}"
        rows = f"{n_rows:,} rows held out at random"
        if asked := [quoted(question.column) for question in self.questions if question.argument == "groups"]:
            return f"{rows} (with rows of the same {' or '.join(asked)} among the training rows)"
        if asked := [quoted(question.column) for question in self.questions]:
            return f"{rows} (with rows before and after them in {' or '.join(asked)} among the training rows)"
        return rows

    @property
    def n_evaluated(self) -> int:
        """Number of candidates that were evaluated."""
        return len(self.results)

    @property
    def best_score(self) -> float | None:
        """Best mean score of a candidate over the folds; None if there is none."""
        if self.results.empty:
            return None
        best = float(self.results["mean_test_score"].max())
        return best if math.isfinite(best) else None

    @property
    def best_baseline(self) -> FoldScores | None:
        """The baseline with the best mean over the folds; None if there is none that all folds could score."""
        return _best(self.baselines)

    @property
    def best_params(self) -> dict[str, Any]:
        """The winner's values by parameter; empty if there is no winner."""
        return {} if self.best_index is None else self.candidates()[self.best_index][0]

    @property
    def best_epoch(self) -> int | None:
        """The epoch of `history`, counted from 1, whose weights the winner kept; None if there is no winner."""
        return None if self.network is None else self.network.best_epoch_

    def candidates(self) -> list[tuple[dict[str, Any], FoldScores]]:
        """The candidates in the order of `results`: their parameters, and their scores over the folds."""
        splits = [name for name in self.results.columns if re.fullmatch(r"split\d+_test_score", name)]
        names = [name for name in self.results.columns if name.startswith("param_")]
        found = []
        for row in self.results.to_dict("records"):
            params = {name.removeprefix("param_"): row[name] for name in names if not _is_masked(row[name])}
            scores = tuple(float(row[split]) for split in splits)
            found.append((params, FoldScores(_spelt(params), self.scoring, scores, float(row["mean_fit_time"]))))
        return found

    def explain(self) -> str:
        """Says whether the best network or the best baseline is better, or that this cannot be told, in a sentence."""
        comparison = self.comparison or self._compare_on_search_folds()
        if comparison is None:
            return "There is nothing to compare yet."
        return f"{comparison}{' Prefer it, unless you need a network.' * (comparison.outcome == 'behind')}"

    def _compare_on_search_folds(self) -> Comparison | None:
        """The comparison on the folds of the search, which are few, and by which the best network was chosen."""
        scored = [scores for _, scores in self.candidates()]
        best = scored[self.best_index] if self.best_index is not None else _best(scored)
        rival, split = self.best_baseline, self.record["split"]
        if best is None or rival is None:
            return None
        n_test = split["train"] / (split["folds"] + (split["time"] is not None))
        # Forward in time, each fold is trained on more than the one before: a mean.
        n_train = split["train"] / 2 if split["time"] is not None else split["train"] - n_test
        best = replace(best, name="the best network")
        rival = replace(rival, name=rival.name[:1].lower() + rival.name[1:])
        return compare_on_folds(best, rival, n_train, n_test)

    def fit_baseline(self, name: str, table: str | Path | pd.DataFrame) -> Pipeline:
        """Fits one of the baselines to all rows of a table that have a target, to use it in place of the network.

        Example:

        >>> experiment = load_experiment("FOLDER")  # doctest: +SKIP
        >>> model = experiment.fit_baseline("Gradient boosting", "TABLE.csv")  # doctest: +SKIP
        >>> model.predict("NEW.csv")  # doctest: +SKIP

        Args:
            name: Name of the baseline, as in `baselines` and in the report.
            table: Path of a CSV or Parquet file, or a DataFrame: the table of the experiment, or one with its columns.

        Returns:
            A fitted scikit-learn pipeline, whose `predict` takes tables as `Experiment.predict` does.

        Raises:
            ParameterError: If there is no such baseline; the message names those there are.
            DataError: If the table cannot be read, or lacks a column.
        """
        read = read_table(table, columns=self.columns)
        self._warn_of_doubts(read)
        X = as_features(read.frame, self.columns)
        random_state = self.record["arguments"].get("random_state", 0)
        models = make_baselines(
            self.task,
            make_preprocessor(self.columns, X),
            categories=category_names(self.columns),
            random_state=random_state,
        )
        if name not in models:
            raise ParameterError(f"There is no baseline {quoted(name)}, only {', '.join(map(quoted, models))}.")
        found = read_target(read, self.target, task=self.task)
        return for_tables(fit_baseline(models[name], X.iloc[found.kept], found.values), self.columns)

    def predict(self, table: str | Path | pd.DataFrame) -> pd.DataFrame:
        """Predicts the target of new rows.

        Blanks, and categories never seen before, are fine; columns that were not used may be missing.

        Args:
            table: Path of a CSV or Parquet file, or a DataFrame, with the columns that are used.

        Returns:
            A table of the same length and index: the prediction, named after the target, and for classification the
            probability of each class.

        Warns:
            KerasToolkitWarning: If entries could not be read as their column's kind, such as words among numbers, or
                if they can be read in two ways and the first table did not show which is meant.

        Raises:
            DataError: If the table cannot be read, or lacks a column.
            SavedFileError: If the experiment has no model, having been interrupted.
        """
        if self.network is None or self.preprocessor is None:
            raise SavedFileError(f"This experiment has no model to predict with: it was {self.status}. Run it again.")
        read = read_table(table, columns=self.columns)
        self._warn_of_doubts(read)
        frame = read.frame
        features = as_features(frame, self.columns)
        self._warn_of_unread(unread_entries(frame, features, self.columns), len(frame))
        inputs = self.preprocessor.transform(features)
        index = (table if isinstance(table, pd.DataFrame) else frame).index
        predicted = self.network.predict(inputs)
        if self.target_scaler is not None:
            values = self.target_scaler.inverse_transform(np.reshape(predicted, (-1, 1)))[:, 0]
            return pd.DataFrame({f"predicted_{self.target}": values}, index=index)
        probabilities = self.network.predict_proba(inputs)
        named = {f"probability_{label}": probabilities[:, at] for at, label in enumerate(self.network.classes_)}
        return pd.DataFrame({f"predicted_{self.target}": predicted, **named}, index=index)

    def _warn_of_doubts(self, read: Table) -> None:
        """Warns of numbers and dates that can be read in two ways, where the first rows did not settle it."""
        used = {column.name for column in self.columns if column.is_used}
        doubts = [f"{quoted(name)}: {how.doubt}" for name, how in read.spellings.items() if how.doubt and name in used]
        if doubts:
            message = f"Some entries of the new rows can be read in two ways: {'. '.join(doubts)}."
            warnings.warn(message, KerasToolkitWarning, stacklevel=3)

    def _warn_of_unread(self, unread: Mapping[str, int], n_rows: int) -> None:
        if not unread:
            return
        kinds = {column.name: column.kind for column in self.columns}
        which = ", ".join(f"{n} of {n_rows} in {quoted(name)} ({kinds[name]})" for name, n in unread.items())
        warnings.warn(
            f"Entries that are not of their column's kind were taken as blanks: {which}.",
            KerasToolkitWarning,
            stacklevel=3,
        )

    def save(self, folder: str | Path) -> Path:
        """Writes the folder that `load_experiment` reads, with the report; files of an earlier save are replaced.

        Args:
            folder: Where to write; it is made if need be.

        Returns:
            The folder.

        Raises:
            OSError: If a file could not be written; all the others have been.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        errors = []
        # The report comes last: no result may be lost to it. If one file fails, the others are still written.
        for write in (self._write_model, self._write_record, self._write_tables, self._write_report):
            try:
                write(folder)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return folder

    def _write_model(self, folder: Path) -> None:
        if self.network is None:
            return
        import skops.io

        skops.io.dump({"features": self.preprocessor, "target": self.target_scaler}, folder / _PREPROCESSING)
        self.network.save(folder / _NETWORK)

    def _write_record(self, folder: Path) -> None:
        (folder / RUN_FILE).write_text(json.dumps(self.to_dict(), indent=2, default=as_json) + "\n", encoding="utf-8")

    def _write_tables(self, folder: Path) -> None:
        if not self.results.empty:
            self.results.to_csv(folder / RESULTS_FILE, index=False)
        if self.test is not None:
            self._test_table(self.test).to_csv(folder / _TEST_PREDICTIONS, index=False)

    def _write_report(self, folder: Path) -> None:
        (folder / _REPORT).write_text(render_report(self, folder.resolve().name or None), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values: what `run.json` holds."""
        chosen = None
        if self.best_index is not None:
            chosen = {
                "params": self.best_params,
                "why": f"greatest mean {self.scoring} over the folds among {self.n_evaluated} candidates",
                "folds": self.candidates()[self.best_index][1].to_dict(),
                "index": self.best_index,
            }
        return {
            **self.record,
            "status": self.status,
            "seconds": self.seconds,
            "name": self.name,
            "target": self.target,
            "task": self.task,
            "scoring": self.scoring,
            "decisions": dict(self.decisions),
            "explanation": self.explain(),
            "chosen": chosen,
            "test": None if self.test is None else [score.to_dict() for score in self.test.scores.values()],
            "baselines": [scores.to_dict() for scores in self.baselines],
            "baseline_tests": {
                name: [score.to_dict() for score in scores.values()] for name, scores in self.baseline_tests.items()
            },
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "n_evaluated": self.n_evaluated,
            "left_out": self.left_out,
            "failed": self.failed,
            "history": self.history,
            "columns": [column.to_dict() for column in self.columns],
        }

    def _take_model(self, pipeline: Pipeline) -> None:
        network = pipeline.named_steps["network"]
        if self.task == "regression":
            self.target_scaler, network = network.transformer_, network.regressor_
        self.preprocessor, self.network = pipeline.named_steps["preprocessor"], network
        self.history = {name: [float(value) for value in values] for name, values in network.history_.items()}

    def _test_table(self, test: Evaluation) -> pd.DataFrame:
        table: dict[str, Any] = {"row": self.test_rows, "true": test.y_true, "predicted": test.y_pred}
        if test.y_proba is not None and test.classes is not None:
            table.update({f"probability_{label}": test.y_proba[:, at] for at, label in enumerate(test.classes)})
        return pd.DataFrame(table)


def load_experiment(folder: str | Path) -> Experiment:
    """Reads the folder that an experiment wrote.

    The folder may come from a stranger: nothing in it is executed, and no other file is read. The preprocessing may
    hold nothing but what a preprocessing is made of here, and the network is read as `kerastoolkit.load` reads it in
    safe mode.

    Args:
        folder: The folder.

    Returns:
        The `Experiment`, able to predict if its search was completed.

    Raises:
        SavedFileError: If it is no such folder, is damaged, or was written by a newer version.
    """
    folder = Path(folder)
    with _files.refusing(folder, "an experiment"):
        try:
            return _from_record(read_record(folder), folder)
        except FileNotFoundError as error:
            missing = Path(error.filename or "").name or str(error)
            raise SavedFileError(f"'{folder}' is incomplete: it has no {missing}.") from error


def _from_record(record: dict[str, Any], folder: Path) -> Experiment:
    own = ("format", "format_version", "began", "arguments", "data", "split", "questions", "param_grid", "n_candidates")
    experiment = Experiment(
        name=record["name"],
        target=record["target"],
        task=record["task"],
        scoring=record["scoring"],
        columns=[read_column(column) for column in record["columns"]],
        decisions=list(record["decisions"].items()),
        record={key: record[key] for key in (*own, "versions")},
        status=record["status"],
        seconds=record["seconds"],
        baselines=[read_fold_scores(scores) for scores in record["baselines"]],
        best_index=record["chosen"]["index"] if record["chosen"] else None,
        left_out=record["left_out"],
        failed=record["failed"],
        history=record["history"],
        baseline_tests={name: read_scores(scores) for name, scores in record["baseline_tests"].items()},
    )
    if record["comparison"] is not None:
        experiment.comparison = read_comparison(record["comparison"])
    if (folder / RESULTS_FILE).exists():
        experiment.results = _with_tuples(_read_csv(folder / RESULTS_FILE))
        experiment.candidates()  # which a damaged table has not
    if record["chosen"]:
        if experiment.best_index not in range(len(experiment.results)):
            raise SavedFileError(f"'{folder}' is damaged: the winner is none of its {len(experiment.results)} results.")
        _load_model(experiment, folder)
    if record["test"]:
        _load_test(experiment, record["test"], folder)
    return experiment


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    content = _files.read_small(_files.regular_file(path, within=path.parent))
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **EXACTLY, **options)
    return table


def _with_tuples(results: pd.DataFrame) -> pd.DataFrame:
    """A file has only text where a parameter was a tuple."""
    for name in results.filter(regex="^param_"):
        results[name] = [
            ast.literal_eval(value) if isinstance(value, str) and re.fullmatch(r"\([\d., ]*\)", value) else value
            for value in results[name].astype("object")
        ]
    return results


def _load_model(experiment: Experiment, folder: Path) -> None:
    import skops.io

    from kerastoolkit.estimators import load

    path = _files.regular_file(folder / _PREPROCESSING, within=folder)
    with _files.refusing(path, "an experiment"):
        check_preprocessing(path)
        parts = skops.io.load(path, trusted=list(_TRUSTED_TYPES))
    wanted = {"features": "ColumnTransformer", "target": "StandardScaler" * (experiment.task == "regression")}
    found = {name: "" if part is None else type(part).__name__ for name, part in parts.items()}
    if found != wanted:
        raise SavedFileError(f"'{path}' was not written by an experiment of kerastoolkit.")
    experiment.preprocessor, experiment.target_scaler = parts["features"], parts["target"]
    experiment.network = network = load(_files.regular_file(folder / _NETWORK, within=folder))
    if network._task != experiment.task:
        raise SavedFileError(f"'{folder}' is damaged: its network is not for {experiment.task}.")
    _try_on_a_blank_row(experiment, parts["features"], network.n_features_in_)


def _try_on_a_blank_row(experiment: Experiment, preprocessor: ColumnTransformer, n_features: int) -> None:
    """Whether the parts of a loaded experiment go together."""
    blank = pd.DataFrame({column.name: [None] for column in experiment.columns})
    inputs = preprocessor.transform(as_features(blank, experiment.columns))
    if inputs.shape[1] != n_features:
        raise SavedFileError(
            f"An experiment is damaged: its preprocessing makes {inputs.shape[1]} columns, its network reads "
            f"{n_features}."
        )
    if experiment.target_scaler is not None:
        experiment.target_scaler.inverse_transform(np.zeros((1, 1)))


def _load_test(experiment: Experiment, scores: list[dict[str, Any]], folder: Path) -> None:
    classes = getattr(experiment.network, "classes_", None)
    table = _read_csv(folder / _TEST_PREDICTIONS, keep_default_na=False)
    kind = np.asarray(classes).dtype if classes is not None else np.float64
    proba = table.filter(regex="^probability_").to_numpy("float64") if classes is not None else None
    if proba is not None and proba.shape[1] != len(np.asarray(classes)):
        raise SavedFileError(f"'{folder}' is damaged: {_TEST_PREDICTIONS} has probabilities of other classes.")
    experiment.test_rows = table["row"].to_numpy("int64")
    experiment.test = Evaluation(
        scores=read_scores(scores),
        y_true=table["true"].to_numpy().astype(kind),
        y_pred=table["predicted"].to_numpy().astype(kind),
        classes=classes,
        y_proba=proba,
    )


def _spelt(params: Mapping[str, Any]) -> str:
    """A candidate's parameters for people to read: `hidden 64-32, learning rate 0.001`."""
    words = []
    for key, value in params.items():
        name = key.rsplit("__", 1)[-1].replace("_", " ")
        shown = "-".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        words.append(f"{name} {shown:g}" if isinstance(value, float) else f"{name} {shown}")
    return ", ".join(words)


def _is_masked(value: object) -> bool:
    return value is np.ma.masked or (isinstance(value, float) and math.isnan(value))


def _best(scores: Sequence[FoldScores]) -> FoldScores | None:
    """The best of those that every fold could score."""
    return max((one for one in scores if one.is_scored), key=lambda one: one.mean, default=None)
