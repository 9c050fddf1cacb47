"""Files of text that hold a table: their encoding, their delimiter, and their lines, each of which is checked.

Reading is strict where a lenient reader would guess: rows of another length, a repeated header, bytes that are not
text are refused with their line number, because a table that was read wrongly trains without complaint. One streaming
pass finds these before pandas parses anything.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kerastoolkit._words import quoted
from kerastoolkit.data._spelling import MAYBE_BLANKS, SURE_BLANKS, TRUTH, number_in
from kerastoolkit.exceptions import DataError

__all__ = [
    "DELIMITERS",
    "TextFile",
    "check_lines",
    "count",
    "first_line",
    "head_of",
    "listed",
    "looks_like",
    "refuse_duplicates",
    "text_file",
    "unquoted_blanks",
]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
# Byte-order marks; that of UTF-32 begins like that of UTF-16.
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class TextFile:
    """A text file: how it is encoded, what separates its columns, and how it begins.

    Attributes:
        path: The file, gzipped or not.
        encoding: Its encoding, as Python calls it.
        delimiter: What separates its columns.
        head: Its beginning, at most 64 kibibytes of it, without a line that tells the delimiter.
        tells_delimiter: Whether its first line tells the delimiter, as spreadsheets write it (`sep=;`).
    """

    path: Path
    encoding: str
    delimiter: str
    head: str
    tells_delimiter: bool

    def open(self) -> io.TextIOWrapper:
        """The text from its header on."""
        file = io.TextIOWrapper(_open_bytes(self.path), encoding=self.encoding, newline="")
        if self.tells_delimiter:
            file.readline()
        return file


def text_file(path: Path) -> TextFile:
    encoding, head = _encoding_of(path)
    # A first line that spreadsheets write and read.
    told = re.match(rf'"?sep=([{"".join(DELIMITERS)}])"?\r?\n', head)
    if told is not None:
        return TextFile(path, encoding, told[1], head[told.end() :], True)
    return TextFile(path, encoding, _find_delimiter(head), head, False)


def _encoding_of(path: Path) -> tuple[str, str]:
    """The encoding that a text file shows, and its beginning; anything but text is refused."""
    head = head_of(path, 1 << 16, unzip=True)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding, head.decode(encoding, errors="ignore")
    if head.startswith((b"PAR1", b"PK\x03\x04", b"%PDF", b"\x89PNG", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{quoted(path.name)} is a binary file, not text.{looks_like(path)}")
    if b"\x00" in head:
        pairs = head[: len(head) // 2 * 2]
        for name, zeros in (("utf-16le", pairs[1::2]), ("utf-16be", pairs[::2])):
            if zeros.count(0) > 0.9 * len(zeros):
                raise DataError(
                    f"{quoted(path.name)} looks like {name.upper()} text without a byte-order mark. Save it as UTF-8 "
                    f"(iconv -f {name} -t utf-8 OLD > NEW)."
                )
        raise DataError(f"{quoted(path.name)} is a binary file, not text.{looks_like(path)}")
    return "utf-8-sig", head.decode("utf-8-sig", errors="replace")


def _find_delimiter(head: str) -> str:
    """The delimiter that cuts the header, and most of the first lines, into the same number of fields."""
    lines = head.splitlines()
    # The last line is cut off where the sample ends.
    lines = [line for line in lines[:51] if line.strip()] if len(lines) < 51 else lines[:50]

    def fitness(delimiter: str) -> tuple[float, bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
        if not widths or widths[0] == 1:
            return (0.0, False, 1)
        # Commas occur in names and numbers as well ("weight, kg"; 1,5), and may be just as regular there.
        return (sum(width == widths[0] for width in widths) / len(widths), delimiter in ";\t", widths[0])

    best = max(DELIMITERS, key=fitness)
    with_comma = [line for line in lines[1:] if "," in line]
    are_numbers = with_comma and all(number_in(line, ".") or number_in(line, ",") for line in with_comma)
    return "\t" if fitness(best)[0] == 0 and are_numbers else best  # one column, of numbers with commas in them


def unquoted_blanks(head: str, delimiter: str) -> dict[str, str]:
    """Spellings of blanks that have no quotes in a file that quotes all its words, as R writes them."""
    edge = re.escape(delimiter)
    body = head.partition("\n")[2]
    bare = set(re.findall(rf"(?:^|{edge})[ ]*([^\W\d][^{edge}\"\r\n]*)(?={edge}|\r?$)", body, flags=re.MULTILINE))
    in_quotes = set(re.findall(rf'(?:^|{edge})[ ]*"([^"\n]*)"(?={edge}|\r?$)', body, flags=re.MULTILINE))
    words = {word for word in in_quotes if re.search(r"[^\W\d]", word)}
    other = {word for word in bare if word not in MAYBE_BLANKS | SURE_BLANKS and word.lower() not in TRUTH}
    if not words or other:
        return {}
    return dict.fromkeys((bare & MAYBE_BLANKS) - in_quotes, "as it is written without quotes")


def _open_bytes(path: Path) -> IO[bytes]:
    # By content, not by name: a renamed .csv.gz file can be read all the same.
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]


def head_of(path: Path, n_bytes: int, *, unzip: bool = False) -> bytes:
    try:
        with _open_bytes(path) if unzip else open(path, "rb") as file:
            return file.read(n_bytes)
    except (OSError, EOFError) as error:
        raise DataError(f"{quoted(path)} cannot be read: {first_line(error)}.") from error


def _undecodable_message(text: TextFile, error: UnicodeDecodeError) -> str:
    path = text.path
    if text.encoding != "utf-8-sig":
        begins = f"it begins as {text.encoding.upper()} text and is none"
        return f"{quoted(path.name)} is damaged: {begins}. Save it as UTF-8."
    number, line = _first_undecodable_line(path)
    told = f"{quoted(path.name)} is not UTF-8 text: line {number} has the byte 0x{error.object[error.start]:02x}."
    # Windows-1252 is Latin-1 with more letters; only a reader can tell which of the many encodings it is.
    guess = "cp1252"
    try:
        shown = line.decode(guess)
    except UnicodeDecodeError:
        return f"{told} Save it as UTF-8 (iconv -f ENCODING -t utf-8 OLD > NEW, with the encoding it was saved in)."
    near = next(place for place, character in enumerate(shown) if ord(character) > 127)
    shown = quoted(shown[max(near - 20, 0) : near + 20].strip())
    return (
        f"{told} If it should say {shown} there, it is Windows-1252: save it as UTF-8 (iconv -f {guess} -t utf-8 OLD > "
        f"NEW). Otherwise name its own encoding in place of {guess}."
    )


def _first_undecodable_line(path: Path) -> tuple[int, bytes]:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number, line
    return 0, b""


# ------------------------------------------------------------------------------------------------------------ lines


@dataclass(frozen=True)
class _Lines:
    """What the lines of a file hold: the header, some rows, and whether these are all."""

    header: list[str]
    sample: list[list[str]]
    is_whole: bool


def check_lines(text: TextFile) -> _Lines:
    """Reads every line once, in constant memory; refuses with a line number."""
    path, first = text.path, 1 + text.tells_delimiter
    started = first
    try:
        with text.open() as file, _cells_of_any_length():
            reader = csv.reader(file, delimiter=text.delimiter, skipinitialspace=True)
            header = _header(reader, path)
            started = first + reader.line_num
            sample: list[list[str]] = []
            n_rows, n_sample = 0, max(min(200_000 // len(header), 1000), 100)
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(_ragged_message(path, header, row, started, text.delimiter))
                if row and row[0].strip() == header[0] and [cell.strip() for cell in row] == header:
                    raise DataError(
                        f"{quoted(path.name)} repeats its header in line {started}. Are these several files in one? "
                        "Remove the repeated line."
                    )
                started = first + reader.line_num
                if row:
                    n_rows += 1
                    if n_rows <= n_sample or (n_rows % 997 == 0 and len(sample) < 2 * n_sample):
                        sample.append(row)
    except UnicodeDecodeError as error:
        raise DataError(_undecodable_message(text, error)) from error
    except csv.Error as error:
        raise DataError(f"{quoted(path.name)} cannot be read after line {started}: {error}.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{quoted(path.name)} cannot be read: {first_line(error)}.") from error
    return _Lines(header, sample, n_rows == len(sample))


@contextlib.contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Python's csv module refuses cells beyond 131,072 characters, unless the whole process allows more."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    row = next((row for row in reader if row), None)
    if row is None:
        raise DataError(f"{quoted(path.name)} holds no lines.")
    header = [cell.strip() or f"column {position}" for position, cell in enumerate(row, 1)]
    if len(header) > 1 and all(number_in(cell, ".") or number_in(cell, ",") for cell in header):
        raise DataError(
            f"The first line of {quoted(path.name)} holds numbers ({', '.join(header[:3])} ...), not column names. "
            "Add a header line."
        )
    refuse_duplicates(header, path.name)
    return header


def _ragged_message(path: Path, header: list[str], row: list[str], line: int, delimiter: str) -> str:
    hint = "Is a delimiter inside a value without quotes, or a quote never closed?"
    if len(row) == len(header) + 1:
        hint = "Are row names, a trailing delimiter or an unquoted delimiter in the way?"
    return (
        f"{quoted(path.name)} is ragged: line {line} has {count(len(row), 'field')}, the header has {len(header)} "
        f"(separated by a {DELIMITERS[delimiter]}). {hint}"
    )


def refuse_duplicates(names: Sequence[str], source: str) -> None:
    seen: set[str] = set()
    twice = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise DataError(
            f"{quoted(source)} has duplicate column names: {listed(twice)}. Give each column a name of its own."
        )


# ------------------------------------------------------------------------------------------------------------ words


def listed(names: Sequence[str], max_names: int = 10) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:max_names])
    return shown + (f" and {len(names) - max_names} more" if len(names) > max_names else "")


def count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def looks_like(path: Path) -> str:
    looks = {
        b"PAR1": " It looks like Parquet: name it .parquet.",
        b"PK\x03\x04": " It looks like an Excel workbook or zip archive: save the sheet as CSV.",
        b"\xd0\xcf\x11\xe0": " It looks like an old Excel workbook: save the sheet as CSV.",
        b"\x1f\x8b": " It looks gzipped: name it .csv.gz.",
        b"%PDF": " It looks like a PDF.",
    }
    head = head_of(path, 4)
    return next((words for magic, words in looks.items() if head.startswith(magic)), "")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
