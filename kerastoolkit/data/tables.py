"""A table from a file: read whole or refused, and looked at column by column.

Reading is strict where a lenient reader would guess: rows of another length, a repeated header, bytes that are not
text are refused with their line number, because a table read wrongly trains without complaint. One streaming pass
finds these before pandas parses anything.

What a column *is* (`describe_columns`) depends on its values as written, never on a statistic that the model uses:
medians, scales and category lists are learned later, inside the pipeline, from training rows alone. `as_features`
turns a table into typed columns by that description only, so new rows are read as the first ones were.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd

from kerastoolkit._optional import require
from kerastoolkit._words import did_you_mean, printable, quoted
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

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
_TRUTH = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0}
# Tried in this order; the first that reads every value is taken.
_DATE_FORMATS = ("ISO8601", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d %H:%M:%S",
                 "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M", "%d-%b-%Y", "%b %d, %Y")  # fmt: skip
_ID_NAME = re.compile(r"(^|[^a-z])(id|idx|index|uuid|guid|key|rownames?|row|nr|no|number|unnamed)([^a-z]|$)|[a-z]Id$")
_NO_TEXT = "hold a NUL character or half of a character, which no text file can keep"
_MAX_STRAY_ENTRIES = 3
_MAX_CLASSES_OF_NUMBERS = 20


@dataclass(frozen=True)
class Table:
    """A table in memory, and where it came from.

    Attributes:
        frame: The rows, shape `(n_rows, n_columns)`, with distinct string names.
        name: File name, or the name given by the caller.
        sha256: Digest of the file's bytes, or of the values where there was no file.
        notes: What reading decided on the way (delimiter, decimal comma), one sentence each.
    """

    frame: pd.DataFrame
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """What one column holds, and what happens to it.

    Attributes:
        name: Name of the column.
        kind: One of `number`, `boolean`, `category`, `date`, which are used; or `text`, `id`, `constant`, `empty`,
            `other`, which are left out, as is a column that an experiment divides the rows by, a `group` or `time`.
        n_rows: Number of rows.
        n_blank: Number of rows without a value.
        n_distinct: Number of distinct values, blanks apart.
        detail: Range, most frequent values or first value, for people to read.
        note: What would surprise: entries read as blanks, why the column is left out. Often empty.
        date_format: For dates written as text, the format that reads them.
        has_time: For dates, whether hours are worth a feature.
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

    @property
    def is_used(self) -> bool:
        """Whether the model sees this column."""
        return self.kind in ("number", "boolean", "category", "date")

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Column:
        """The column of a record that `as_dict` wrote; unknown entries of later versions are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in record.items() if key in known})


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


def read_table(source: str | Path | pd.DataFrame, *, name: str | None = None) -> Table:
    """Reads a CSV or Parquet file, or takes a DataFrame, and refuses what cannot be one table.

    Text files are UTF-8 (a byte-order mark is fine, gzip as well). The delimiter is found among comma, semicolon, tab
    and vertical bar, and so is a decimal comma; both are told in `Table.notes`. `?` and the usual spellings of "not
    available" are blanks.

    Args:
        source: Path of a `.csv`, `.tsv`, `.txt`, `.csv.gz` or `.parquet` file, or a DataFrame, which is not changed.
        name: Name to report. Defaults to the file name, or `"table"`.

    Returns:
        A `Table`.

    Raises:
        DataError: If there is no such file, or it is no table; the message names the line and what to do.
        MissingPackageError: If a Parquet file is read without pyarrow.
    """
    if isinstance(source, pd.DataFrame):
        frame = _checked_frame(source, name or "table")
        return Table(frame, name or "table", _digest_of_values(frame))
    path = Path(source)
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"No such file: {quoted(path)}.{did_you_mean(path.name, beside)}")
    if path.is_dir():
        raise DataError(f"{quoted(path)} is a folder. Give one file, as {_endings()}.")
    lowered = path.name.lower()
    if not lowered.endswith(_TEXT_ENDINGS + _PARQUET_ENDINGS):
        raise DataError(f"{quoted(path.name)} has an unknown ending: give {_endings()}.{_what_it_looks_like(path)}")
    if path.stat().st_size == 0:
        raise DataError(f"{quoted(path.name)} is empty (0 bytes).")
    notes: tuple[str, ...] = ()
    if lowered.endswith(_PARQUET_ENDINGS):
        frame = _read_parquet(path)
    else:
        frame, notes = _read_text(path)
    return Table(_checked_frame(frame, path.name), name or path.name, _digest_of_file(path), notes)


def _read_parquet(path: Path) -> pd.DataFrame:
    if _head(path, 4) != b"PAR1":
        looks = _what_it_looks_like(path)
        raise DataError(f"{quoted(path.name)} is not a Parquet file: it does not begin with PAR1.{looks}")
    pyarrow = require("pyarrow", f"Reading {quoted(path.name)}")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        names = parquet.read_schema(path).names
        _refuse_duplicates(names, path.name)
        frame = pd.read_parquet(path)
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise DataError(f"{quoted(path.name)} is a damaged Parquet file: {_first_line(error)}") from error
    # A named index is a column that pandas put aside; a numbered one is nothing the file's author wrote.
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _read_text(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    head = _head(path, 1 << 16, unzip=True)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{quoted(path.name)} is UTF-16 text. Save it as UTF-8.")
    if b"\x00" in head or head.startswith((b"PAR1", b"PK\x03\x04", b"%PDF", b"\x89PNG", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{quoted(path.name)} is a binary file, not text.{_what_it_looks_like(path)}")
    delimiter = _find_delimiter(head)
    header = _check_lines(path, delimiter)
    decimal = _find_decimal(head, delimiter)
    # Through our own door, since pandas goes by the name to see whether a file is zipped.
    with _open_text(path) as file:
        frame = pd.read_csv(
            file,
            sep=delimiter,
            names=header,
            header=0,
            index_col=False,
            decimal=decimal,
            skipinitialspace=True,
            na_values=["?"],
            low_memory=False,
        )
    notes = []
    if delimiter != ",":
        notes.append(f"columns are separated by a {_DELIMITERS[delimiter]}")
    if decimal == ",":
        notes.append("numbers are written with a decimal comma")
    return frame, tuple(notes)


def _check_lines(path: Path, delimiter: str) -> list[str]:
    """Reads every line once, in constant memory; returns the header, or refuses with a line number."""
    try:
        with _open_text(path) as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            header = _header(reader, path)
            started = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(_ragged_message(path, header, row, started, delimiter))
                if row and row[0].strip() == header[0] and [cell.strip() for cell in row] == header:
                    raise DataError(
                        f"{quoted(path.name)} repeats its header in line {started}. Are these several files in one? "
                        "Remove the repeated line."
                    )
                started = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(
            f"{quoted(path.name)} is not UTF-8 text: line {_first_undecodable_line(path)} has the byte "
            f"0x{error.object[error.start]:02x}. Save it as UTF-8 (iconv -f latin1 -t utf-8 OLD > NEW)."
        ) from error
    except csv.Error as error:
        raise DataError(f"{quoted(path.name)} cannot be read after line {started}: {error}.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{quoted(path.name)} cannot be read: {_first_line(error)}.") from error
    return header


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    row = next((row for row in reader if row), None)
    if row is None:
        raise DataError(f"{quoted(path.name)} holds no lines.")
    header = [cell.strip() or f"column {position}" for position, cell in enumerate(row, 1)]
    if len(header) > 1 and all(_is_number(cell) for cell in header):
        raise DataError(
            f"The first line of {quoted(path.name)} holds numbers ({', '.join(header[:3])} ...), not column names. "
            "Add a header line."
        )
    _refuse_duplicates(header, path.name)
    return header


def _ragged_message(path: Path, header: list[str], row: list[str], line: int, delimiter: str) -> str:
    hint = "Is a delimiter inside a value without quotes, or a quote never closed?"
    if len(row) == len(header) + 1:
        hint = "Are row names, a trailing delimiter or an unquoted delimiter in the way?"
    return (
        f"{quoted(path.name)} is ragged: line {line} has {_count(len(row), 'field')}, the header has {len(header)} "
        f"(separated by a {_DELIMITERS[delimiter]}). {hint}"
    )


def _find_delimiter(head: bytes) -> str:
    """The delimiter that cuts the header, and most of the first lines like it."""
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    # The last line is cut off where the sample ends.
    lines = [line for line in lines[:51] if line.strip()] if len(lines) < 51 else lines[:50]

    def fitness(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        if not widths or widths[0] == 1:
            return (0.0, 1)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0])

    return max(_DELIMITERS, key=fitness)


def _find_decimal(head: bytes, delimiter: str) -> str:
    if delimiter == ",":
        return "."
    sample = head.decode("utf-8-sig", errors="replace")
    edge = re.escape(delimiter)
    with_comma = re.findall(rf"(?:^|{edge})\s*-?\d+,\d+(?={edge}|\s*$)", sample, flags=re.MULTILINE)
    with_point = re.findall(rf"(?:^|{edge})\s*-?\d+\.\d+(?={edge}|\s*$)", sample, flags=re.MULTILINE)
    return "," if with_comma and not with_point else "."


def _checked_frame(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    names = [str(column) for column in frame.columns]
    _refuse_duplicates(names, name)
    if not names:
        raise DataError(f"{quoted(name)} has no columns.")
    if broken := _unwritable(names):
        raise DataError(f"{quoted(name)} has column names that {_NO_TEXT}: {_listed(broken)}. Rename them.")
    if len(frame) == 0:
        raise DataError(f"{quoted(name)} has a header of {_count(len(names), 'column')} and no rows.")
    if isinstance(frame.index, pd.RangeIndex) and names == list(frame.columns):
        return frame
    frame = frame.reset_index(drop=True)
    frame.columns = pd.Index(names)
    return frame


def _refuse_duplicates(names: Sequence[str], source: str) -> None:
    seen: set[str] = set()
    twice = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise DataError(
            f"{quoted(source)} has duplicate column names: {_listed(twice)}. Give each column a name of its own."
        )


# ----------------------------------------------------------------------------------------------------- description


def describe_columns(frame: pd.DataFrame) -> list[Column]:
    """Says what each column holds.

    Text whose values are all numbers but for at most three distinct entries is a number, these entries being blanks.
    Text that repeats is a category; text with a value of its own in most rows is an id (single words) or text
    (several). Whole numbers are an id if they count the rows or are unique under a name such as `customer_id`.

    Args:
        frame: The table, shape `(n_rows, n_columns)`.

    Returns:
        One `Column` for each column, in order.
    """
    return [_describe(frame[name]) for name in frame.columns]


def _describe(series: pd.Series[Any]) -> Column:
    name, n_rows = str(series.name), len(series)
    values = series.dropna()
    base: dict[str, Any] = {"name": name, "n_rows": n_rows, "n_blank": n_rows - len(values), "n_distinct": 0}
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
        return _describe_dates(values, None, base)
    if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        return _describe_numbers(values, base)
    return _describe_strings(values, base)


def _describe_numbers(values: pd.Series[Any], base: dict[str, Any], note: str = "") -> Column:
    numbers = _as_floats(values)
    finite = numbers[np.isfinite(numbers)]
    n_infinite = len(numbers) - len(finite)
    if len(finite) == 0:
        return Column(kind="empty", note="left out: no finite value", **base)
    if n_infinite:
        base = {**base, "n_blank": base["n_blank"] + n_infinite}
        note = f"{_count(n_infinite, 'infinite entry', 'infinite entries')} read as blank"
    if _counts_rows(finite, base):
        span = f"{_number(finite.min())} to {_number(finite.max())}"
        return Column(kind="id", detail=span, note="left out: a number for each row", **base)
    if base["n_distinct"] == 2 and set(np.unique(finite)) == {0.0, 1.0}:
        return Column(kind="boolean", detail=f"1 in {np.mean(finite == 1):.0%}", note=note, **base)
    span = f"{_number(finite.min())} to {_number(finite.max())}, median {_number(np.median(finite))}"
    return Column(kind="number", detail=span, note=note, **base)


def _describe_strings(values: pd.Series[Any], base: dict[str, Any]) -> Column:
    texts = values.astype("str").str.strip()
    counts = texts.value_counts()
    base = {**base, "n_distinct": len(counts)}
    if set(counts.index.str.lower()) <= set(_TRUTH) and len(counts) == 2:
        return Column(kind="boolean", detail=_shares(texts), **base)
    if (stray := _stray_entries(counts)) is not None:
        numbers = pd.to_numeric(texts, errors="coerce").dropna()
        base = {**base, "n_blank": base["n_rows"] - len(numbers), "n_distinct": int(numbers.nunique())}
        spelt = ", ".join(f"'{_short(entry)}'" for entry in stray)
        return _describe_numbers(numbers, base, f"entries {spelt} read as blank" if stray else "")
    if (date_format := _date_format(counts.index)) is not None:
        return _describe_dates(pd.to_datetime(texts, format=date_format), date_format, base)
    n_values, n_distinct = len(texts), len(counts)
    first = f"such as '{_short(texts.iloc[0])}'"
    if n_distinct > 0.5 * n_values and n_distinct > 10:
        n_words = np.mean([len(text.split()) for text in texts.head(1000)])
        if n_words >= 3:
            return Column(kind="text", detail=first, note="left out: free text", **base)
        share = "a value of its own" if n_distinct == n_values else "nearly a value of its own"
        return Column(kind="id", detail=first, note=f"left out: {share} in each row", **base)
    note = "rare values share one place" if n_distinct > 30 else ""
    return Column(kind="category", detail=_shares(texts), note=note, **base)


def _describe_dates(dates: pd.Series[Any], date_format: str | None, base: dict[str, Any]) -> Column:
    dates = _without_zone(dates)
    has_time = bool((dates != dates.dt.normalize()).any())
    detail = f"{dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}"
    note = ""
    if date_format in ("%m/%d/%Y", "%m/%d/%Y %H:%M") and bool((dates.dt.day <= 12).all()):
        note = "read as month/day/year, which the values leave open"
    return Column(kind="date", detail=detail, note=note, date_format=date_format, has_time=has_time, **base)


def _counts_rows(numbers: np.ndarray, base: dict[str, Any]) -> bool:
    """Whether whole numbers are names of rows: unique, and consecutive or called an id."""
    if base["n_blank"] or base["n_distinct"] != base["n_rows"] or base["n_rows"] < 10:
        return False
    if not np.array_equal(numbers, np.round(numbers)):
        return False
    consecutive = numbers.max() - numbers.min() == len(numbers) - 1
    name = base["name"]
    return bool(consecutive or _ID_NAME.search(name.lower()) or _ID_NAME.search(name))


def _stray_entries(counts: pd.Series[int]) -> list[str] | None:
    """The few entries that keep a column from being numbers; None where it is not one."""
    as_numbers = pd.to_numeric(pd.Series(counts.index.astype("object")), errors="coerce").to_numpy()
    strays = np.flatnonzero(np.isnan(as_numbers))
    n_strays = int(counts.to_numpy()[strays].sum())
    if len(strays) > _MAX_STRAY_ENTRIES or n_strays > 0.5 * counts.sum() or len(strays) == len(counts):
        return None
    # Two spellings of which one is a number ("0" and "none") are more likely two categories.
    if len(strays) and len(counts) - len(strays) < 5:
        return None
    return [str(entry) for entry in counts.index[strays]]


def _date_format(distinct: Iterable[Any]) -> str | None:
    texts = pd.Series(list(distinct), dtype="object")
    # Cheap refusal first: a date has two separators or the name of a month.
    if not texts.head(50).str.match(r"^(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}-\w{3}-\d{4}|\w{3} \d)").all():
        return None
    for candidate in _DATE_FORMATS:
        try:
            pd.to_datetime(texts, format=candidate, utc=candidate == "ISO8601")
        except (ValueError, TypeError):
            continue
        return candidate
    return None


# -------------------------------------------------------------------------------------------------------- features


def as_features(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The columns that are used, typed by their description: numbers as float64, categories as strings.

    Nothing is learned here. A date becomes its days since 1970, year, month, day of month and day of week (and hour
    if it has one); a boolean becomes 0 and 1; what cannot be read as its kind becomes a blank. Blanks are NaN.

    Args:
        frame: A table that has the described columns; others are passed over.
        columns: What `describe_columns` said about the first table.

    Returns:
        A new table, shape `(n_rows, n_features)`.

    Raises:
        DataError: If a used column is not there.
    """
    used = [column for column in columns if column.is_used]
    missing = [column.name for column in used if column.name not in frame.columns]
    if missing:
        hint = did_you_mean(missing[0], [str(name) for name in frame.columns])
        raise DataError(f"The table lacks {_count(len(missing), 'column')}: {_listed(missing)}.{hint}")
    features: dict[str, Any] = {}
    for column in used:
        features.update(_features_of(frame[column.name], column))
    return pd.DataFrame(features, index=frame.index)


def unread_entries(frame: pd.DataFrame, features: pd.DataFrame, columns: Sequence[Column]) -> dict[str, int]:
    """How many entries of each column became blanks because they could not be read as its kind.

    Args:
        frame: The table as read.
        features: What `as_features` made of it.
        columns: The description that it followed.

    Returns:
        Numbers of entries by column, of columns that have any.
    """
    found = {}
    for column in columns:
        if column.kind not in ("number", "boolean", "date"):
            continue
        read = features[f"{column.name} (days)" if column.kind == "date" else column.name]
        n_unread = int((frame[column.name].notna() & read.isna()).sum())
        if n_unread:
            found[column.name] = n_unread
    return found


def category_names(columns: Sequence[Column]) -> list[str]:
    """Names of the features that `as_features` writes as strings."""
    return [column.name for column in columns if column.kind == "category"]


def _features_of(series: pd.Series[Any], column: Column) -> dict[str, Any]:
    if column.kind == "category":
        texts = series.astype("object").where(series.notna(), None)
        return {column.name: np.array([_as_category(value) for value in texts], dtype=object)}
    if column.kind == "boolean":
        return {column.name: _as_truth(series)}
    if column.kind == "date":
        return _date_parts(series, column)
    return {column.name: _as_floats(series, finite=True)}


def _as_category(value: Any) -> Any:
    """A category as text, written alike whether a file's reader took it for text, a whole number or a float."""
    if value is None:
        return np.nan
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _as_truth(series: pd.Series[Any]) -> np.ndarray:
    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_numeric_dtype(series.dtype):
        return _as_floats(series, finite=True)
    texts = series.astype("object").map(lambda value: value if pd.isna(value) else str(value).strip().lower())
    return texts.map({**_TRUTH, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}).to_numpy(dtype=np.float64)


def _date_parts(series: pd.Series[Any], column: Column) -> dict[str, Any]:
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        texts = series.astype("object")
        parse = column.date_format or "ISO8601"
        series = pd.to_datetime(texts, format=parse, errors="coerce", utc=parse == "ISO8601")
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


def _as_floats(series: pd.Series[Any], *, finite: bool = False) -> np.ndarray:
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        series = series.dt.total_seconds()
    elif not pd.api.types.is_numeric_dtype(series.dtype):
        series = pd.to_numeric(series.astype("object"), errors="coerce")
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if finite and np.isinf(numbers).any():
        numbers = np.where(np.isinf(numbers), np.nan, numbers)
    return numbers


def _without_zone(dates: pd.Series[Any]) -> pd.Series[Any]:
    zone = getattr(dates.dt, "tz", None)
    return dates if zone is None else dates.dt.tz_convert("UTC").dt.tz_localize(None)


# ---------------------------------------------------------------------------------------------------------- target


def read_target(frame: pd.DataFrame, name: str, *, task: Task | None = None) -> Target:
    """Takes the column to predict, decides what kind of task it is, and refuses what cannot be learned.

    Words and truth values are classes. Whole numbers are classes if there are at most 20 different ones, each in
    twenty rows on average; other numbers are a quantity.

    Args:
        frame: The table.
        name: Name of the target column.
        task: `"classification"` or `"regression"` to decide it oneself. Defaults to `None`, inferred.

    Returns:
        A `Target`; rows whose target is blank are not in it.

    Raises:
        ParameterError: If there is no such column (near misses are named), or `task` is unknown.
        DataError: If the target is empty, constant, an id, a date, infinite, or has a class with one row.
    """
    if task not in (None, "classification", "regression"):
        raise ParameterError(f"`task` must be 'classification' or 'regression'. Got {task!r}.")
    if name not in frame.columns:
        raise ParameterError(_no_such_column(name, [str(column) for column in frame.columns]))
    series = frame[name]
    column = _describe(series)
    _refuse_unlearnable(column)
    values, is_number = _target_values(series, column)
    kept = np.flatnonzero(~pd.isna(values))
    inferred, why = _infer_task(values[kept], is_number, column)
    if task == "regression" and not is_number:
        held = f"{quoted(name)} holds {column.kind} ({column.detail})"
        raise DataError(f"Regression needs a target of numbers, and {held}.")
    if task is not None and task != inferred:
        inferred, why = task, f"asked for; by itself it would be {inferred}: {why}"
    if inferred == "classification":
        if broken := _unwritable([value for value in pd.unique(values[kept]) if isinstance(value, str)]):
            raise DataError(f"The target {quoted(name)} has classes that {_NO_TEXT}: {_listed(broken)}. Rename them.")
        labels = _as_labels(values[kept], is_number)
        _refuse_lone_classes(labels, name)
    else:
        labels = values[kept].astype(np.float64)
    return Target(name, inferred, why, labels, kept, len(values) - len(kept))


def _refuse_unlearnable(column: Column) -> None:
    name = f"The target {quoted(column.name)}"
    if column.kind == "empty":
        raise DataError(f"{name} is empty: no row has a value.")
    if column.n_distinct == 1:
        raise DataError(f"{name} is constant: every row with a value has '{column.detail or 'the same'}'.")
    if column.kind == "id":
        raise DataError(
            f"{name} looks like an id: {column.n_distinct} distinct values in {column.n_rows} rows "
            f"({column.detail}). An id cannot be predicted; name another column."
        )
    if column.kind in ("text", "date", "other"):
        raise DataError(f"{name} holds {column.kind} ({column.detail}). It must hold numbers or classes.")


def _target_values(series: pd.Series[Any], column: Column) -> tuple[np.ndarray, bool]:
    """The target's values with blanks as NaN, and whether they are numbers."""
    if column.kind == "category" or not (column.kind == "number" or pd.api.types.is_numeric_dtype(series.dtype)):
        if pd.api.types.is_bool_dtype(series.dtype):
            return series.to_numpy(dtype=object), False
        texts = series.astype("object").where(series.notna(), None)
        return np.array([_as_category(value) for value in texts], dtype=object), False
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=object, na_value=np.nan), False
    numbers = _as_floats(series)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise DataError(
            f"The target {quoted(column.name)} is infinite in {_count(len(infinite), 'row')}, first in row "
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
        hint = " If it is a quantity, ask for regression." if len(lone) > 5 and labels.dtype.kind in "if" else ""
        have = "has" if len(lone) == 1 else "have"
        raise DataError(
            f"{_count(len(lone), 'class', 'classes')} of the target {quoted(name)} {have} one row only: {shown}. A "
            f"class needs rows to train on and rows to test on: add some, or remove it.{hint}"
        )


# ----------------------------------------------------------------------------------------------------------- words


def _no_such_column(name: str, columns: list[str]) -> str:
    hint = did_you_mean(name, columns) or f" The table has {_listed(columns)}."
    if len(columns) == 1:
        hint = (
            f" The table was read as one column, {columns[0]!r}: its columns must be separated by a comma, semicolon, "
            "tab or vertical bar."
        )
    return f"The table has no column {name!r}.{hint}"


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _unwritable(texts: Sequence[str]) -> list[str]:
    """Texts that would not come back from a file as they are; a lone surrogate is what a broken character leaves."""
    return [text for text in texts if "\x00" in text or text.encode(errors="replace").decode() != text]


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _short(value: Any, width: int = 40) -> str:
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _endings() -> str:
    return "a .csv, .tsv, .txt, .csv.gz or .parquet file"


def _what_it_looks_like(path: Path) -> str:
    looks = {
        b"PAR1": " It looks like Parquet: name it .parquet.",
        b"PK\x03\x04": " It looks like an Excel workbook or zip archive: save the sheet as CSV.",
        b"\xd0\xcf\x11\xe0": " It looks like an old Excel workbook: save the sheet as CSV.",
        b"\x1f\x8b": " It looks gzipped: name it .csv.gz.",
        b"%PDF": " It looks like a PDF.",
    }
    head = _head(path, 4)
    return next((words for magic, words in looks.items() if head.startswith(magic)), "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


# ----------------------------------------------------------------------------------------------------------- files


def _open_bytes(path: Path) -> IO[bytes]:
    # By content, not by name: a file renamed from .csv.gz is read all the same.
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def _head(path: Path, n_bytes: int, *, unzip: bool = False) -> bytes:
    try:
        with _open_bytes(path) if unzip else open(path, "rb") as file:
            return file.read(n_bytes)
    except (OSError, EOFError) as error:
        raise DataError(f"{quoted(path)} cannot be read: {_first_line(error)}.") from error


def _first_undecodable_line(path: Path) -> int:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


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
