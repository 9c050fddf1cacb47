"""What `run.json` says, and what of it is believed when it is read: the file may come from a stranger.

Records of the first format are read, too: `_RENAMED` has the names that have changed since.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from kerastoolkit import _files
from kerastoolkit._version import __version__
from kerastoolkit.data.tables import Column, Kind
from kerastoolkit.evaluation import Comparison, FoldScores, Outcome, Score
from kerastoolkit.exceptions import SavedFileError

if TYPE_CHECKING:
    from kerastoolkit.experiment.plan import Plan

RUN_FILE = "run.json"
_FORMAT = "kerastoolkit experiment"
_FORMAT_VERSION = 2
# What the first format called otherwise, by the part of the record: arguments and the record itself, and scores.
_RENAMED = {"grid": "param_grid", "metric": "scoring", "seed": "random_state", "time_budget": "timeout"}
_RENAMED_IN_SCORES = {"level": "confidence_level"}


def first_record(plan: Plan) -> dict[str, Any]:
    """What `run.json` says of the beginning, in the form in which it is read again: arrays are lists, say.

    Args:
        plan: The plan that is about to be carried out.

    Returns:
        Plain values.
    """
    record = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "arguments": plan.arguments,
        "data": {
            "name": plan.table.name,
            "sha256": plan.table.sha256,
            "n_rows": len(plan.X) + plan.target.n_blank,
            "n_columns": len(plan.columns) + 1,
            "n_blank_targets": plan.target.n_blank,
            "notes": list(plan.table.notes),
        },
        "split": {
            "train": len(plan.held_out.train),
            "test": len(plan.held_out.test),
            "how": plan.held_out.how,
            "why": plan.held_out.why,
            "folds": plan.n_folds,
            "groups": plan.grouping.groups,
            "time": plan.grouping.time,
            "n_test_values": plan.grouping.n_values(plan.held_out.test),
            "from": plan.grouping.beginning(plan.held_out.test),
        },
        "questions": [question.to_dict() for question in plan.questions],
        "param_grid": plan.param_grid,
        "n_candidates": plan.n_candidates,
        "versions": _versions(),
    }
    return as_read(record)


def as_read(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it comes back from a file."""
    return dict(json.loads(json.dumps(record, default=as_json)))


def _versions() -> dict[str, str]:
    versions = {"kerastoolkit": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("keras", "tensorflow", "jax", "torch", "scikit-learn", "numpy", "pandas", "skops"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def read_record(folder: Path) -> dict[str, Any]:
    """Reads and checks the record in the folder of an experiment.

    Args:
        folder: The folder.

    Returns:
        Its known entries, by the names of the newest format.

    Raises:
        SavedFileError: If there is no record, or it is damaged, or was written by a newer version.
    """
    path = folder / RUN_FILE
    if not folder.is_dir():
        raise SavedFileError(f"There is no folder '{folder}'.")
    if not path.is_file():
        raise SavedFileError(f"'{folder}' is not the folder of an experiment: it has no {RUN_FILE}.")
    record = _files.read_json(_files.read_small(_files.regular_file(path, within=folder)), f"'{path}'", constants=True)
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise SavedFileError(f"'{path}' was not written by an experiment of kerastoolkit.")
    number, versions = record.get("format_version"), record.get("versions")
    if _files.is_whole(number) and number > _FORMAT_VERSION:
        version = versions.get("kerastoolkit") if isinstance(versions, dict) else None
        raise SavedFileError(
            f"'{folder}' was written by a newer kerastoolkit ({str(version)[:20]}); this is {__version__}. Upgrade to "
            "read it."
        )
    record = {**_LATER, **(_from_first_format(record) if _files.is_whole(number) and number == 1 else record)}
    checked = _files.checked_fields({name: record[name] for name in _RECORD if name in record}, _RECORD, f"'{path}'")
    checked["split"] = checked_part({**_OF_NO_GROUPS, **checked["split"]}, _SPLIT, "The split of the rows")
    checked["questions"] = [checked_part(question, _QUESTION, "A question") for question in checked["questions"]]
    return checked


def _from_first_format(record: dict[str, Any]) -> dict[str, Any]:
    """The record by the names of the newest format."""
    record = _renamed(record, _RENAMED)
    record["format_version"] = _FORMAT_VERSION
    record["arguments"] = _renamed(record.get("arguments"), _RENAMED)
    for name in ("test", "baseline_tests", "comparison"):
        if name in record:
            record[name] = _renamed_scores(record[name])
    return record


def _renamed_scores(value: object) -> Any:
    """The same with the scores renamed, whether it is one, or holds some."""
    if isinstance(value, list):
        return [_renamed_scores(one) for one in value]
    if isinstance(value, dict):
        return {key: _renamed_scores(one) for key, one in _renamed(value, _RENAMED_IN_SCORES).items()}
    return value


def _renamed(entries: object, names: Mapping[str, str]) -> Any:
    return {names.get(name, name): value for name, value in entries.items()} if isinstance(entries, dict) else entries


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


# What is read of a record, and whether a value may be there. Entries of later versions are passed over.
_RECORD: dict[str, Callable[[Any], object]] = {
    "format": _files.is_text,
    "format_version": _files.is_count,
    "began": _files.is_text,
    "arguments": _is_table,
    "data": _is_table,
    "split": _is_table,
    "questions": _files.list_of(_is_table),
    "param_grid": _files.list_of(_files.dict_of(lambda value: isinstance(value, list))),
    "n_candidates": _files.is_count,
    "versions": _files.dict_of(_files.is_text),
    "name": _files.is_text,
    "target": _files.is_text,
    "task": _files.one_of("classification", "regression"),
    "scoring": _files.is_text,
    "columns": _files.list_of(_is_table),
    "decisions": _files.dict_of(_files.is_text),
    "status": _files.one_of("complete", "interrupted", "failed"),
    "seconds": _files.is_number,
    "baselines": _files.list_of(_is_table),
    "chosen": _files.optional(lambda value: isinstance(value, dict) and _files.is_count(value.get("index"))),
    "left_out": _files.list_of(_is_table),
    "failed": _files.list_of(_is_table),
    "history": _files.dict_of(_files.list_of(_files.is_real)),
    "test": _files.optional(_files.list_of(_is_table)),
    "baseline_tests": _files.dict_of(_files.list_of(_is_table)),
    "comparison": _files.optional(_is_table),
}
# What older records lack, since there was no such thing then.
_LATER: dict[str, Any] = {"baseline_tests": {}, "comparison": None, "questions": []}
_SPLIT: dict[str, Callable[[Any], object]] = {
    "train": _files.is_count,
    "test": _files.is_count,
    "how": _files.is_text,
    "why": _files.is_text,
    "folds": _files.is_count,
    "groups": _files.optional(_files.is_text),
    "time": _files.optional(_files.is_text),
    "n_test_values": _files.is_count,
    "from": _files.is_text,
}
# What older records lack, since rows could not be held out by group or time then.
_OF_NO_GROUPS: dict[str, Any] = {"groups": None, "time": None, "n_test_values": 0, "from": ""}
_QUESTION: dict[str, Callable[[Any], object]] = {
    "column": _files.is_text,
    "argument": _files.one_of("groups", "time"),
    "text": _files.is_text,
}
_COLUMN: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "kind": _files.one_of(*get_args(Kind)),
    "n_rows": _files.is_count,
    "n_blank": _files.is_count,
    "n_distinct": _files.is_count,
    "detail": _files.is_text,
    "note": _files.is_text,
    "date_format": _files.optional(_files.is_text),
    "has_time": _files.is_flag,
    "decimal": _files.optional(_files.one_of(".", ",", "")),
    "unit": _files.is_text,
    "words": _files.list_of(_files.is_text),
}
_COLUMN_SINCE = ("decimal", "unit", "words")  # which earlier versions did not write
_SCORE: dict[str, Callable[[Any], object]] = {
    "metric": _files.is_text,
    "value": _files.is_real,
    "low": _files.is_real,
    "high": _files.is_real,
    "confidence_level": _files.is_number,
    "n_rows": _files.is_count,
    "n_resamples": _files.is_count,
    "method": _files.is_text,
    "n_unscored": _files.is_count,
}
_LATER_IN_SCORES = ("method", "n_unscored")
_COMPARISON: dict[str, Callable[[Any], object]] = {
    "first": _files.is_text,
    "second": _files.is_text,
    "metric": _files.is_text,
    "outcome": _files.one_of(*get_args(Outcome)),
    "difference": _files.is_real,
    "low": _files.is_real,
    "high": _files.is_real,
    "confidence_level": _files.is_number,
    "p_value": _files.is_real,
    "n_folds": _files.is_count,
    "n_unscored": _files.is_count,
    "differences": _files.list_of(_files.is_real),
}
_FOLD_SCORES: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "metric": _files.is_text,
    "scores": _files.list_of(_files.is_real),
    "fit_seconds": _files.is_real,
}


def checked_part(
    record: dict[str, Any], fields: Mapping[str, Callable[[Any], object]], what: str, *, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    known = {name: record[name] for name in fields if name in record}
    return _files.checked_fields(known, fields, what, optional=optional)


def read_column(record: dict[str, Any]) -> Column:
    return Column.from_dict(checked_part(record, _COLUMN, "A column", optional=_COLUMN_SINCE))


def read_comparison(record: dict[str, Any]) -> Comparison:
    known = checked_part(record, _COMPARISON, "The comparison")
    return Comparison(**{**known, "differences": tuple(known["differences"])})


def read_scores(records: list[dict[str, Any]]) -> dict[str, Score]:
    read = [Score(**checked_part(score, _SCORE, "A score", optional=_LATER_IN_SCORES)) for score in records]
    return {score.metric: score for score in read}


def read_fold_scores(record: dict[str, Any]) -> FoldScores:
    known = checked_part(record, _FOLD_SCORES, "The scores of a model")
    return FoldScores(**{**known, "scores": tuple(known["scores"])})


def check_preprocessing(path: Path) -> None:
    """Refuses a file of skops that holds anything but the parts of a preprocessing of ours.

    skops itself trusts everything in scikit-learn, some of which reads files or takes functions.
    """
    with _files.archive(
        path, re.compile(r"schema\.json|\d+\.npy").fullmatch, "an experiment", needed=("schema.json",)
    ) as file:
        for name in file.namelist():
            if name != "schema.json":
                _files.check_npy(file, name)
        left = [_files.read_json(file.read("schema.json"), f"'{path}'")]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            named = tuple(part.get(name) for name in ("__module__", "__class__", "__loader__"))
            if named != (None, None, None) and named not in _PARTS_OF_A_PREPROCESSING:
                raise SavedFileError(
                    f"'{path}' holds types that a preprocessing of kerastoolkit never has, so it was not loaded: "
                    f"{'.'.join(map(str, named))[:200]}"
                )
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


_PARTS_OF_A_PREPROCESSING = {
    *(("builtins", kind, f"{kind.capitalize()}Node") for kind in ("dict", "list", "slice", "tuple")),
    *(("builtins", kind, "TypeNode") for kind in ("bool", "float", "int", "str")),
    ("builtins", "str", "JsonNode"),
    ("numpy", "dtype", "DTypeNode"),
    ("numpy", "ndarray", "NdArrayNode"),
    *(
        ("numpy", kind, node)
        for kind in ("bool", "bool_", "float32", "float64", "int32", "int64", "object_", "str_")
        for node in ("NdArrayNode", "TypeNode")
    ),
    ("sklearn.compose._column_transformer", "ColumnTransformer", "ObjectNode"),
    ("sklearn.compose._column_transformer", "_RemainderColsList", "ObjectNode"),  # of scikit-learn 1.6
    ("sklearn.impute._base", "MissingIndicator", "ObjectNode"),
    ("sklearn.impute._base", "SimpleImputer", "ObjectNode"),
    ("sklearn.pipeline", "Pipeline", "ObjectNode"),
    ("sklearn.preprocessing._data", "StandardScaler", "ObjectNode"),
    ("sklearn.preprocessing._encoders", "OneHotEncoder", "ObjectNode"),
}


def as_json(value: object) -> Any:
    """What JSON does not know: numpy's numbers and arrays, and objects by their repr."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return repr(value)
