"""A table from a file: read whole or refused, and described column by column.

Files of text are checked line by line before pandas parses them (`_text_files.py`). How numbers and dates are written
is found for each column (`_spelling.py`), with the help of the others, and reported. What a column *is*
(`describe_columns`) depends on its values as written, never on a statistic that the model uses: medians, scales and
category lists are learned later, inside the pipeline, from training rows alone. `as_features` turns a table into typed
columns by that description only, so that new rows are read as the first ones were.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from kerastoolkit._optional import require
from kerastoolkit._words import did_you_mean, printable, quoted
from kerastoolkit.data._spelling import (
    MAYBE_BLANKS,
    SURE_BLANKS,
    TRUTH,
    Numbers,
    Spelling,
    find_spellings,
    is_blank,
    is_text,
    read_dates,
    read_numbers,
    respelt,
)
from kerastoolkit.data._text_files import (
    DELIMITERS,
    TextFile,
    check_lines,
    count,
    first_line,
    head_of,
    listed,
    looks_like,
    refuse_duplicates,
    text_file,
    unquoted_blanks,
)
from kerastoolkit.exceptions import DataError, ParameterError

__all__ = [
    "Column",
    "Table",
    "Target",
    "as_features",
    "category_names",
    "describe_columns",
    "read_table",
    "read_target",
    "unread_entries",
]

Kind = Literal["number", "boolean", "category", "date", "text", "id", "constant", "empty", "other", "group", "time"]
Task = Literal["classification", "regression"]

_PANDAS = tuple(int(number) for number in pd.__version__.split(".")[:2])
_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
_ID_NAME = re.compile(r"(^|[^a-z])(id|idx|index|uuid|guid|key|rownames?|row|nr|no|number|unnamed)([^a-z]|$)|[a-z]Id$")
_NO_TEXT = "hold a NUL character or half of a character, which no text file can keep"
_MAX_CLASSES_OF_NUMBERS = 20
_MAX_NOTES = 8
# Before pandas 3.1, a number is not always read exactly as it was written unless this is set; since then it always is.
EXACTLY: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}
_PLAIN = {mark: re.compile(rf"[+-]?([0-9]+[{mark}]?[0-9]*|[{mark}][0-9]+)([eE][+-]?[0-9]+)?") for mark in ".,"}


@dataclass(frozen=True)
class Table:
    """A table in memory, and where it came from.

    Attributes:
        frame: The rows, shape `(n_rows, n_columns)`, with distinct string names.
        name: File name, or the name given by the caller.
        sha256: Digest of the file's bytes, or of the values if there was no file.
        notes: What was decided while reading (delimiter, decimal comma, what is a blank, what could be read in two
            ways), one sentence each.
        spellings: How the columns of text were written, by name.
    """

    frame: pd.DataFrame
    name: str
    sha256: str
    notes: tuple[str, ...] = ()
    spellings: Mapping[str, Spelling] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Column:
    """What one column holds, and what happens to it.

    Attributes:
        name: Name of the column.
        kind: One of `number`, `boolean`, `category`, `date`, which are used; or `text`, `id`, `constant`, `empty`,
            `other`, which are left out, like the column by which an experiment divides the rows, a `group` or `time`.
        n_rows: Number of rows.
        n_blank: Number of rows without a value.
        n_distinct: Number of distinct values, not counting blanks.
        detail: Range, most frequent values or first value, for people to read.
        note: Anything surprising: how entries were read that can be read in two ways, entries taken as blanks, why the
            column is left out. Often empty.
        date_format: For dates written as text, their format.
        has_time: For dates, whether the hour deserves a feature.
        decimal: For numbers written as text, the decimal mark, `"."` or `","`; `""` if all are whole and nothing in
            the table shows it. None if they were numbers already.
        unit: For numbers written as text, what is written before or after them, such as `"%"` or `"$"`.
        words: Usual spellings of "not available", such as `"NA"`, that are values in this column.
    """

    name: str
    kind: Kind
    n_rows: int
    n_blank: int
    n_distinct: int
    detail: str = ""
    note: str = ""
    date_format: str | None = None
    has_time: bool = False
    decimal: str | None = None
    unit: str = ""
    words: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether the model sees this column."""
        return self.kind in ("number", "boolean", "category", "date")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Column:
        """The column of a record that `to_dict` wrote; unknown entries of later versions are ignored."""
        known = {key: record[key] for key in (each.name for each in fields(cls)) if key in record}
        return cls(**{**known, "words": tuple(known.get("words", ()))})


@dataclass(frozen=True)
class Target:
    """The column to predict, checked.

    Attributes:
        name: Name of the column.
        task: `"classification"` or `"regression"`.
        why: Why that task, as a sentence.
        values: Target of the rows kept, shape `(n_kept,)`: float64 for regression; strings, whole numbers or bools
            for classification.
        kept: Positions of the rows that have a target, shape `(n_kept,)`.
        n_blank: Number of rows left out because their target is blank.
    """

    name: str
    task: Task
    why: str
    values: np.ndarray
    kept: np.ndarray
    n_blank: int


# --------------------------------------------------------------------------------------------------------- reading


def read_table(
    source: str | Path | pd.DataFrame, *, name: str | None = None, columns: Sequence[Column] | None = None
) -> Table:
    """Reads a CSV or Parquet file, or takes a DataFrame, and refuses what cannot be one table.

    Text files are UTF-8, or UTF-16 with a byte-order mark, gzipped or not. The delimiter may be a comma, semicolon, tab
    or vertical bar. Numbers and dates are read column by column, as they are written: with a decimal point or comma,
    with thousands separators, with `%` or a currency. If the entries of a column can be read in two ways, such as
    `1.234`, then the other columns decide, and after them the delimiter; `Table.notes` always says so, and also what
    was taken as a blank. Empty fields, `?` and `nan` are blanks; `NA`, `null` and `None` are blanks among numbers and
    dates, and among words if the table shows that it means blanks by them. Columns of text in a DataFrame are read in
    the same way; numbers and dates there stay what they are. So if a note says that a column was mistaken for something
    else, pass the result of `pandas.read_csv(path, sep=";", decimal=".")`, say, instead of the path.

    Args:
        source: Path of a `.csv`, `.tsv`, `.txt`, `.csv.gz` or `.parquet` file, or a DataFrame, which is not changed.
        name: Name to report. Defaults to the file name, or `"table"`.
        columns: What `describe_columns` said of the first table, if these are new rows for it: text in its columns is
            left to `as_features`, which reads it as that of the first table was read. Defaults to `None`.

    Returns:
        A `Table`.

    Raises:
        DataError: If there is no such file, or it is not a table; the message names the line and what to do.
        MissingPackageError: If a Parquet file is read without pyarrow.
    """
    known = {column.name: column for column in columns or () if column.decimal is not None or column.kind != "number"}
    if isinstance(source, pd.DataFrame):
        frame = _checked_frame(source, name or "table")
        digest = _digest_of_values(frame)
        frame, notes, spellings = _respelt(frame, known)
        return Table(frame, name or "table", digest, notes, spellings)
    path = Path(source)
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"No such file: {quoted(path)}.{did_you_mean(path.name, beside)}")
    if path.is_dir():
        raise DataError(f"{quoted(path)} is a folder. Give one file, as {_endings()}.")
    lowered = path.name.lower()
    if not lowered.endswith(_TEXT_ENDINGS + _PARQUET_ENDINGS):
        raise DataError(f"{quoted(path.name)} has an unknown ending: give {_endings()}.{looks_like(path)}")
    if path.stat().st_size == 0:
        raise DataError(f"{quoted(path.name)} is empty (0 bytes).")
    if lowered.endswith(_PARQUET_ENDINGS):
        frame, notes, spellings = _respelt(_checked_frame(_read_parquet(path), path.name), known)
    else:
        frame, notes, spellings = _read_text(path, known)
    return Table(frame, name or path.name, _digest_of_file(path), notes, spellings)


def _read_parquet(path: Path) -> pd.DataFrame:
    if head_of(path, 4) != b"PAR1":
        looks = looks_like(path)
        raise DataError(f"{quoted(path.name)} is not a Parquet file: it does not begin with PAR1.{looks}")
    pyarrow = require("pyarrow", f"Reading {quoted(path.name)}")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        names = parquet.read_schema(path).names
        refuse_duplicates(names, path.name)
        frame = pd.read_parquet(path)
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise DataError(f"{quoted(path.name)} is a damaged Parquet file: {first_line(error)}") from error
    # A named index is a column that pandas set aside; a numbered one was not written by the file's author.
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _read_text(path: Path, known: Mapping[str, Column]) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, Spelling]]:
    text = text_file(path)
    lines = check_lines(text)
    looks = {name: _Sample(cells) for name, cells in zip(lines.header, zip(*lines.sample, strict=True), strict=False)}
    shown = {look.numbers.proven() for look in looks.values()}
    # pandas reads plain numbers, much faster than any code of ours; everything else comes as text.
    decimal = "," if "," in shown and "." not in shown and not known else "."
    as_text = [name for name, look in looks.items() if _must_be_text(look, decimal, known.get(name))]
    blanks = dict[str, list[str]]({name: [] for name in lines.header})
    blanks.update({name: look.blanks_if_numbers(decimal) for name, look in looks.items() if name not in as_text})
    options: dict[str, Any] = {
        "sep": text.delimiter, "names": lines.header, "header": 0, "index_col": False, "skipinitialspace": True,
        "keep_default_na": False, "low_memory": False, "decimal": decimal, **EXACTLY,
    }  # fmt: skip
    # Opened by us, since pandas goes by the name to see whether a file is zipped.
    with text.open() as file:
        na_values: Any = {name: ["", *words] for name, words in blanks.items()}
        frame = pd.read_csv(file, dtype=dict.fromkeys(as_text, "str"), na_values=na_values, **options)
    again = [
        name
        for name, look in looks.items()
        if name not in as_text
        and _is_doubtful(frame[name], look, decimal, known.get(name), blanks[name], is_whole=lines.is_whole)
    ]
    if again:
        with text.open() as file:
            na_values = dict.fromkeys(again, [""])
            texts = pd.read_csv(file, usecols=again, dtype="str", na_values=na_values, **options)
        frame[again] = texts[again]
    typed = {
        name: (decimal if looks[name].numbers.only[decimal] or _has_decimals(frame[name]) else "", blanks[name])
        for name in looks
        if pd.api.types.is_numeric_dtype(frame[name].dtype) and not pd.api.types.is_bool_dtype(frame[name].dtype)
    }
    frame = _checked_frame(frame, path.name)
    frame, notes, spellings = _respelt(frame, known, text=text, typed=typed)
    return frame, notes, spellings


class _Sample:
    """What some rows of a column hold, before the whole file is parsed."""

    def __init__(self, cells: Sequence[str]) -> None:
        found = Counter(cell.strip() for cell in cells)
        self.blanks = [text for text in found if text and (text in SURE_BLANKS or text in MAYBE_BLANKS)]
        self.texts = [text for text in found if text and text not in self.blanks]
        self.numbers = Numbers({text: found[text] for text in self.texts})

    def blanks_if_numbers(self, decimal: str) -> list[str]:
        """The words that pandas may take as blanks in a column of numbers."""
        return self.blanks if self.texts and all(map(_PLAIN[decimal].fullmatch, self.texts)) else []


def _must_be_text(look: _Sample, decimal: str, known: Column | None) -> bool:
    """Whether pandas would lose how a column is written."""
    if known is not None:
        return known.kind == "category" or known.decimal == "," or bool(known.unit)
    return look.numbers.are_codes() or (bool(look.numbers.either) and not look.numbers.only[decimal])


def _is_doubtful(
    series: pd.Series[Any], look: _Sample, decimal: str, known: Column | None, blanks: list[str], *, is_whole: bool
) -> bool:
    """Whether a column that pandas has read must be looked at as text after all."""
    if not pd.api.types.is_numeric_dtype(series.dtype):
        return bool(blanks)
    if not pd.api.types.is_float_dtype(series.dtype) or (known is not None and known.decimal != ""):
        return False
    if known is None and (look.numbers.only[decimal] or _has_decimals(series)):
        return False
    return bool(look.numbers.either) or not is_whole


def _has_decimals(series: pd.Series[Any]) -> bool:
    """Whether numbers cannot be whole ones with marks between thousands: 0.123, 12.5, 1234.567."""
    values = np.abs(series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = values[np.isfinite(values)]
    fractions = values != np.floor(values)
    in_thousands = values[fractions] * 1000
    return bool(
        (fractions & ((values < 1) | (values >= 1000))).any()
        or (np.abs(in_thousands - np.round(in_thousands)) > 1e-6).any()
    )


def _has_fractions(series: pd.Series[Any]) -> bool:
    values = _as_floats(series)
    values = values[np.isfinite(values)]
    return bool((values != np.floor(values)).any())


def _respelt(
    frame: pd.DataFrame,
    known: Mapping[str, Column],
    *,
    text: TextFile | None = None,
    typed: Mapping[str, tuple[str, Sequence[str]]] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, Spelling]]:
    """The table with the numbers in its columns of text read, notes about it, and how its columns were written."""
    unknown = [name for name in frame.columns if name not in known and is_text(frame[name])]
    where: dict[str, Any] = {}
    if text is not None:
        where = {"delimiter": text.delimiter, "blank_words": unquoted_blanks(text.head, text.delimiter)}
    spellings = find_spellings(frame[unknown], typed=typed, **where)
    read = {name: respelt(frame[name], spellings[str(name)]) for name in unknown}
    changed = {name: series for name, series in read.items() if series is not frame[name]}
    if changed:
        frame = frame.copy(deep=False)
        for name, series in changed.items():
            frame[name] = series
    notes = []
    if text is not None and text.delimiter != "," and frame.shape[1] > 1:
        notes.append(f"columns are separated by a {DELIMITERS[text.delimiter]}")
    notes += _told(frame, spellings)
    if text is not None and text.encoding != "utf-8-sig":
        notes.append(f"the text is {text.encoding.upper()}")
    return frame, tuple(notes), spellings


def _told(frame: pd.DataFrame, spellings: Mapping[str, Spelling]) -> list[str]:
    """Notes about how the columns of the table were written."""
    notes = []
    sure = {name: how.decimal for name, how in spellings.items() if how.decimal and not how.doubt}
    commas, points = ([name for name in sure if sure[name] == mark and _has_fractions(frame[name])] for mark in ",.")
    if commas:
        where = f" in {listed(commas, 3)}, with a decimal point in {listed(points, 3)}" if points else ""
        notes.append(f"numbers are written with a decimal comma{where}")
    notes += [f"{quoted(name)}: {how.doubt}" for name, how in spellings.items() if how.doubt]
    notes += [f"{quoted(name)}: {note}" for name, how in spellings.items() if how.kind == "words" for note in how.notes]
    if len(notes) <= _MAX_NOTES:
        return notes
    return [*notes[:_MAX_NOTES], f"{len(notes) - _MAX_NOTES} more columns have notes of this kind"]


def _checked_frame(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    names = [str(column) for column in frame.columns]
    refuse_duplicates(names, name)
    if not names:
        raise DataError(f"{quoted(name)} has no columns.")
    if broken := _unwritable(names):
        raise DataError(f"{quoted(name)} has column names that {_NO_TEXT}: {listed(broken)}. Rename them.")
    if len(frame) == 0:
        raise DataError(f"{quoted(name)} has a header of {count(len(names), 'column')} and no rows.")
    if isinstance(frame.index, pd.RangeIndex) and names == list(frame.columns):
        return frame
    frame = frame.reset_index(drop=True)
    frame.columns = pd.Index(names)
    return frame


# ----------------------------------------------------------------------------------------------------- description


def describe_columns(table: pd.DataFrame | Table) -> list[Column]:
    """Says what each column holds.

    Text counts as numbers, or dates, if one spelling fits all of its entries but for a few (three distinct ones, or one
    in a hundred), which are blanks. Other text that repeats is a category; text with a different value in most rows is
    an id (single words) or text (several words). Whole numbers are an id if they count the rows, or are unique and have
    a name such as `customer_id`.

    Args:
        table: What `read_table` returned, or a DataFrame, of shape `(n_rows, n_columns)`.

    Returns:
        One `Column` for each column, in order.
    """
    frame, spellings = _as_read(table)
    return [_describe(frame[name], spellings.get(str(name))) for name in frame.columns]


def _as_read(table: pd.DataFrame | Table) -> tuple[pd.DataFrame, Mapping[str, Spelling]]:
    if isinstance(table, Table):
        return table.frame, table.spellings
    frame, _, spellings = _respelt(table, {})
    return frame, spellings


def _describe(series: pd.Series[Any], how: Spelling | None) -> Column:
    name, n_rows = str(series.name), len(series)
    values = series.dropna()
    base: dict[str, Any] = {"name": name, "n_rows": n_rows, "n_blank": n_rows - len(values), "n_distinct": 0}
    if how is not None:
        base.update(decimal=how.decimal, unit=how.unit, words=how.words)
    note = "" if how is None else how.note
    if len(values) == 0:
        return Column(kind="empty", note="left out: no row has a value", **base)
    try:
        base["n_distinct"] = int(values.nunique())
    except TypeError:
        return Column(kind="other", note="left out: nested values", **base)
    if base["n_distinct"] == 1 and len(values) == n_rows:
        return Column(kind="constant", detail=_short(values.iloc[0]), note="left out: always the same", **base)
    if pd.api.types.is_bool_dtype(values.dtype):
        return Column(kind="boolean", detail=_shares(values), **base)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _describe_dates(_without_zone(values), None, base)
    if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        return _describe_numbers(values, base, note)
    if how is not None and how.kind == "number":  # with a few entries that are none
        numbers = pd.Series(_as_floats(values)).dropna()
        base = {**base, "n_blank": n_rows - len(numbers), "n_distinct": int(numbers.nunique())}
        return _describe_numbers(numbers, base, note)
    texts = values.astype("str").str.strip()
    if how is not None and how.date_format is not None:
        dates = read_dates(texts, how.date_format).dropna()
        base = {**base, "n_blank": n_rows - len(dates), "n_distinct": int(dates.nunique())}
        return _describe_dates(dates, how.date_format, base, note)
    return _describe_words(texts, base, note)


def _describe_numbers(values: pd.Series[Any], base: dict[str, Any], note: str = "") -> Column:
    numbers = _as_floats(values)
    finite = numbers[np.isfinite(numbers)]
    n_infinite = len(numbers) - len(finite)
    if len(finite) == 0:
        return Column(kind="empty", note="left out: no finite value", **base)
    if n_infinite:
        base = {**base, "n_blank": base["n_blank"] + n_infinite}
        note = _noted(note, f"{count(n_infinite, 'infinite entry', 'infinite entries')} read as blank")
    if _counts_rows(finite, base):
        span = f"{_number(finite.min())} to {_number(finite.max())}"
        return Column(kind="id", detail=span, note=_noted("left out: a number for each row", note), **base)
    if base["n_distinct"] == 2 and set(np.unique(finite)) == {0.0, 1.0}:
        return Column(kind="boolean", detail=f"1 in {np.mean(finite == 1):.0%}", note=note, **base)
    if np.abs(finite).max() > 2**53 and np.array_equal(finite, np.round(finite)):
        note = _noted(note, "whole numbers of more than 15 digits, of which the last are lost")
    span = f"{_number(finite.min())} to {_number(finite.max())}, median {_number(np.median(finite))}"
    return Column(kind="number", detail=span, note=note, **base)


def _describe_words(texts: pd.Series[Any], base: dict[str, Any], note: str) -> Column:
    counts = texts.value_counts()
    n_values, n_distinct = len(texts), len(counts)
    base = {**base, "n_distinct": n_distinct}
    if set(counts.index.str.lower()) <= set(TRUTH) and n_distinct == 2:
        return Column(kind="boolean", detail=_shares(texts), note=note, **base)
    first = f"such as '{_short(texts.iloc[0])}'"
    if n_distinct > 0.5 * n_values and n_distinct > 10:
        n_words = np.mean([len(text.split()) for text in texts.head(1000)])
        if n_words >= 3:
            return Column(kind="text", detail=first, note=_noted("left out: free text", note), **base)
        share = "a value of its own" if n_distinct == n_values else "nearly a value of its own"
        return Column(kind="id", detail=first, note=_noted(f"left out: {share} in each row", note), **base)
    note = _noted(note, "rare values share one place" if n_distinct > 30 else "")
    return Column(kind="category", detail=_shares(texts), note=note, **base)


def _describe_dates(dates: pd.Series[Any], date_format: str | None, base: dict[str, Any], note: str = "") -> Column:
    has_time = bool((dates != dates.dt.normalize()).any())
    detail = f"{dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}"
    return Column(kind="date", detail=detail, note=note, date_format=date_format, has_time=has_time, **base)


def _noted(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _counts_rows(numbers: np.ndarray, base: dict[str, Any]) -> bool:
    """Whether whole numbers are names of rows: unique, and consecutive or called an id."""
    if base["n_blank"] or base["n_distinct"] != base["n_rows"] or base["n_rows"] < 10:
        return False
    if not np.array_equal(numbers, np.round(numbers)):
        return False
    consecutive = numbers.max() - numbers.min() == len(numbers) - 1
    name = base["name"]
    return bool(consecutive or _ID_NAME.search(name.lower()) or _ID_NAME.search(name))


# -------------------------------------------------------------------------------------------------------- features


def as_features(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Makes typed features of the columns that are used: numbers as float64, categories as strings.

    Nothing is learned here. A date becomes its days since 1970, year, month, day of month and day of week (and hour
    if it has one); a boolean becomes 0 and 1; an entry that cannot be read as its column's kind becomes a blank. Blanks
    are NaN.

    Args:
        frame: A table that has the described columns; others are ignored.
        columns: What `describe_columns` said of the first table.

    Returns:
        A new table, shape `(n_rows, n_features)`.

    Raises:
        DataError: If a used column is missing.
    """
    used = [column for column in columns if column.is_used]
    missing = [column.name for column in used if column.name not in frame.columns]
    if missing:
        hint = did_you_mean(missing[0], [str(name) for name in frame.columns])
        raise DataError(f"The table lacks {count(len(missing), 'column')}: {listed(missing)}.{hint}")
    features: dict[str, Any] = {}
    for column in used:
        features.update(_features_of(frame[column.name], column))
    return pd.DataFrame(features, index=frame.index)


def unread_entries(frame: pd.DataFrame, features: pd.DataFrame, columns: Sequence[Column]) -> dict[str, int]:
    """Counts the entries of each column that became blanks because they could not be read as its kind.

    Args:
        frame: The table as read.
        features: What `as_features` made of it.
        columns: The description that it followed.

    Returns:
        Number of such entries by column, for columns that have any.
    """
    found = {}
    for column in columns:
        if column.kind not in ("number", "boolean", "date"):
            continue
        read = features[f"{column.name} (days)" if column.kind == "date" else column.name]
        n_unread = int((~is_blank(frame[column.name]) & read.isna().to_numpy()).sum())
        if n_unread:
            found[column.name] = n_unread
    return found


def category_names(columns: Sequence[Column]) -> list[str]:
    """Names of the features that `as_features` writes as strings."""
    return [column.name for column in columns if column.kind == "category"]


def _features_of(series: pd.Series[Any], column: Column) -> dict[str, Any]:
    if column.kind == "category":
        return {column.name: _as_categories(series, column.words)}
    if column.kind == "boolean":
        return {column.name: _as_truth(series, column)}
    if column.kind == "date":
        return _date_parts(series, column)
    return {column.name: _as_floats(series, column, finite=True)}


def _as_categories(series: pd.Series[Any], words: Sequence[str]) -> np.ndarray:
    texts = series.astype("object").mask(is_blank(series, words), None)
    return np.array([_as_category(value) for value in texts], dtype=object)


def _as_category(value: object) -> object:
    """A category as text, the same whether a reader took it for text, a whole number or a float."""
    if value is None:
        return np.nan
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _as_truth(series: pd.Series[Any], column: Column) -> np.ndarray:
    if not is_text(series):
        return _as_floats(series, finite=True)
    texts = series.astype("object").map(lambda value: value if pd.isna(value) else str(value).strip().lower())
    truths = texts.map(TRUTH).to_numpy(dtype=np.float64)
    numbers = _as_floats(series, column)
    return np.where(np.isnan(truths) & np.isin(numbers, [0, 1]), numbers, truths)


def _date_parts(series: pd.Series[Any], column: Column) -> dict[str, Any]:
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        texts = series.astype("object").map(lambda value: value.strip() if isinstance(value, str) else value)
        series = read_dates(texts, column.date_format or "ISO8601")
    dates = _without_zone(series)
    parts = {
        "days": (dates - pd.Timestamp(0)) / pd.Timedelta(days=1),
        "year": dates.dt.year,
        "month": dates.dt.month,
        "day": dates.dt.day,
        "weekday": dates.dt.day_of_week,
    }
    if column.has_time:
        parts["hour"] = dates.dt.hour
    return {f"{column.name} ({part})": values.to_numpy(dtype=np.float64) for part, values in parts.items()}


def _as_floats(series: pd.Series[Any], column: Column | None = None, *, finite: bool = False) -> np.ndarray:
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        series = series.dt.total_seconds()
    if pd.api.types.is_numeric_dtype(series.dtype):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    elif column is not None:
        numbers = read_numbers(series, column.decimal, column.unit)
    else:  # read before; what is text still is no number
        numbers = read_numbers(series.map(lambda value: None if isinstance(value, str) else value), None)
    if finite and np.isinf(numbers).any():
        numbers = np.where(np.isinf(numbers), np.nan, numbers)
    return numbers


def _without_zone(dates: pd.Series[Any]) -> pd.Series[Any]:
    zone = getattr(dates.dt, "tz", None)
    return dates if zone is None else dates.dt.tz_convert("UTC").dt.tz_localize(None)


# ---------------------------------------------------------------------------------------------------------- target


def read_target(table: pd.DataFrame | Table, name: str, *, task: Task | None = None) -> Target:
    """Reads the column to predict, decides what kind of task it is, and refuses what cannot be learned.

    Words and booleans are classes. Whole numbers are classes if there are at most 20 different ones, each in twenty
    rows on average; other numbers are a quantity.

    Args:
        table: What `read_table` returned, or a DataFrame.
        name: Name of the target column.
        task: `"classification"` or `"regression"`. Defaults to `None`: inferred from the target.

    Returns:
        A `Target`; rows whose target is blank are left out.

    Raises:
        ParameterError: If there is no such column (near misses are named), or `task` is unknown.
        DataError: If the target is empty, constant, an id, a date, infinite, or has a class with one row.
    """
    if task not in (None, "classification", "regression"):
        raise ParameterError(f"`task` must be 'classification' or 'regression'. Got {task!r}.")
    frame, spellings = _as_read(table)
    if name not in frame.columns:
        raise ParameterError(_no_such_column(name, [str(column) for column in frame.columns]))
    series = frame[name]
    how = spellings.get(name)
    column = _describe(series, how)
    _refuse_unlearnable(column, "" if how is None else how.note)
    values, is_number = _target_values(series, column)
    kept = np.flatnonzero(~pd.isna(values))
    inferred, why = _infer_task(values[kept], is_number, column)
    why = _noted(why, "" if how is None else how.note)
    if task == "regression" and not is_number:
        held = f"{quoted(name)} holds {column.kind} ({_noted(column.detail, '' if how is None else how.note)})"
        raise DataError(f"Regression needs a target of numbers, and {held}.")
    if task is not None and task != inferred:
        inferred, why = task, f"as requested; by itself it would be {inferred}: {why}"
    if inferred == "classification":
        if broken := _unwritable([value for value in pd.unique(values[kept]) if isinstance(value, str)]):
            raise DataError(f"The target {quoted(name)} has classes that {_NO_TEXT}: {listed(broken)}. Rename them.")
        labels = _as_labels(values[kept], is_number)
        _refuse_lone_classes(labels, name)
    else:
        labels = values[kept].astype(np.float64)
    return Target(name, inferred, why, labels, kept, len(values) - len(kept))


def _refuse_unlearnable(column: Column, note: str) -> None:
    seen = _noted(column.detail, note)
    name = f"The target {quoted(column.name)}"
    if column.kind == "empty":
        raise DataError(f"{name} is empty: no row has a value{f' ({note})' if note else ''}.")
    if column.n_distinct == 1:
        value = column.detail.removesuffix(" 100%") or "the same"
        raise DataError(f"{name} is constant: every row with a value has '{value}'{f' ({note})' if note else ''}.")
    if column.kind == "id":
        raise DataError(
            f"{name} looks like an id: {column.n_distinct} distinct values in {column.n_rows} rows "
            f"({seen}). An id cannot be predicted; name another column."
        )
    if column.kind in ("text", "date", "other"):
        raise DataError(f"{name} holds {column.kind} ({seen}). It must hold numbers or classes.")


def _target_values(series: pd.Series[Any], column: Column) -> tuple[np.ndarray, bool]:
    """The target's values with blanks as NaN, and whether they are numbers."""
    if column.kind == "category" or not (column.kind == "number" or pd.api.types.is_numeric_dtype(series.dtype)):
        if pd.api.types.is_bool_dtype(series.dtype):
            return series.to_numpy(dtype=object), False
        return _as_categories(series, column.words), False
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=object, na_value=np.nan), False
    numbers = _as_floats(series)  # read before, in its spelling
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise DataError(
            f"The target {quoted(column.name)} is infinite in {count(len(infinite), 'row')}, first in row "
            f"{infinite[0] + 1} of the data. Correct or remove them."
        )
    return numbers, True


def _infer_task(values: np.ndarray, is_number: bool, column: Column) -> tuple[Task, str]:
    n_distinct, n_rows = len(pd.unique(values)), len(values)
    if not is_number:
        return "classification", f"{quoted(column.name)} holds {n_distinct} different {_word_for(column)}"
    whole = bool(np.all(values == np.round(values)))
    if not whole:
        return "regression", f"{quoted(column.name)} holds numbers with decimals"
    if n_distinct == 2:
        return "classification", f"{quoted(column.name)} holds two different numbers"
    if n_distinct <= _MAX_CLASSES_OF_NUMBERS and n_rows >= 20 * n_distinct:
        return "classification", f"{quoted(column.name)} holds {n_distinct} different whole numbers in {n_rows} rows"
    return "regression", f"{quoted(column.name)} holds {n_distinct} different whole numbers in {n_rows} rows"


def _word_for(column: Column) -> str:
    return "truth values" if column.kind == "boolean" else "words"


def _as_labels(values: np.ndarray, is_number: bool) -> np.ndarray:
    if is_number:
        whole = bool(np.all(values == np.round(values)))
        return values.astype(np.int64) if whole else values.astype(np.float64)
    if all(isinstance(value, (bool, np.bool_)) for value in values):
        return values.astype(bool)
    return values.astype(str)


def _refuse_lone_classes(labels: np.ndarray, name: str) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    lone = [f"'{_short(label)}'" for label in classes[counts == 1]]
    if lone:
        shown = ", ".join(lone[:5]) + (f" and {len(lone) - 5} more" if len(lone) > 5 else "")
        hint = " If it is a quantity, pass task='regression'." if len(lone) > 5 and labels.dtype.kind in "if" else ""
        have = "has" if len(lone) == 1 else "have"
        raise DataError(
            f"{count(len(lone), 'class', 'classes')} of the target {quoted(name)} {have} one row only: {shown}. A "
            f"class needs rows to train on and rows to test on: add some, or remove it.{hint}"
        )


# ----------------------------------------------------------------------------------------------------------- words


def _no_such_column(name: str, columns: list[str]) -> str:
    hint = did_you_mean(name, columns) or f" The table has {listed(columns)}."
    if len(columns) == 1:
        hint = (
            f" The table was read as one column, {columns[0]!r}: its columns must be separated by a comma, semicolon, "
            "tab or vertical bar."
        )
    return f"The table has no column {name!r}.{hint}"


def _unwritable(texts: Sequence[str]) -> list[str]:
    """Texts that a file could not hold as they are; a lone surrogate is what remains of a broken character."""
    return [text for text in texts if "\x00" in text or text.encode(errors="replace").decode() != text]


def _short(value: object, width: int = 40) -> str:
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= width else text[: width - 1] + "…"


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e12:
        return str(int(value))
    return f"{value:.4g}"


def _shares(values: pd.Series[Any]) -> str:
    counts = values.astype("str").value_counts(normalize=True)
    shown = ", ".join(f"{_short(value, 24)} {_share(share)}" for value, share in counts.head(3).items())
    return shown + (f" and {len(counts) - 3} more" if len(counts) > 3 else "")


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _endings() -> str:
    return "a .csv, .tsv, .txt, .csv.gz or .parquet file"


# ----------------------------------------------------------------------------------------------------------- files


def _digest_of_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_values(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256("\x1f".join(frame.columns).encode())
    for name in frame.columns:
        try:
            hashed = pd.util.hash_pandas_object(frame[name], index=False)
        except TypeError:
            hashed = pd.util.hash_pandas_object(frame[name].astype("str"), index=False)
        except UnicodeEncodeError as error:
            raise DataError(f"The column {quoted(name)} has values that {_NO_TEXT}: {error.object!r}.") from error
        digest.update(hashed.to_numpy().tobytes())
    return digest.hexdigest()
