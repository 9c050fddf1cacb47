"""Pretrained word vectors, read from files.

Two kinds of files are read, with no package but numpy:

- text, with a word and its numbers in each line: GloVe, fastText, word2vec (with or without a first line of two
  numbers, and also compressed as `.gz`);
- a matrix (`.npy`, `.safetensors`) together with a file of its words: one word per line, or the JSON of a tokenizer, as
  WordLlama and Model2Vec publish them. A tokenizer knows parts of words: a word that it does not know as a whole gets
  the mean of its parts, each of them the longest that fits.

Such files may come from anyone. Nothing in them is executed, and what they declare is compared with what they contain
before memory is allocated for it.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import DataError, ParameterError

__all__ = ["read_vectors"]

Source: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]"

_STARTS = ("▁", "Ġ")  # how tokenizers mark the part that begins a word
_CONTINUES = "##"  # and a part that continues one

_MAX_DIM = 2**14  # numbers of one vector, as many as those of the largest language models have
_MAX_LINE = 2**20  # characters
_MAX_JSON = 2**26  # bytes; the tokenizers with the most words need half of them
_MAX_HEADER = 2**23  # bytes
_MAX_UNZIPPED = 100  # times the size of the file; numbers as text come to 3

_NOT_FINITE = "has numbers that are not finite as float32"


def read_vectors(source: Source, words: tuple[str, ...]) -> NDArray[np.float32]:
    """Reads word vectors from a file.

    Args:
        source: A text file of words and numbers; or a pair of a matrix (`.npy`, `.safetensors`) and a file of the words
            of its rows (`.txt` with one word per line, or the `.json` of a tokenizer).
        words: The words that are wanted.

    Returns:
        Their vectors, shape `(len(words), embedding_dim)`, float32, with NaN for a word without a vector.

    Raises:
        ParameterError: `source` is none of these, or there is no such file.
        DataError: A file is damaged or cannot be read, it contains numbers that are not finite as float32, or the two
            files do not belong together; the message says which.
    """
    paths = check_source(source)
    return _read(paths, tuple(path.stat().st_mtime_ns for path in paths), words).copy()


def check_source(source: object) -> tuple[Path, ...]:
    """The one or two files that are meant.

    Raises:
        ParameterError: `source` means no files, or they do not exist.
    """
    single = isinstance(source, (str, os.PathLike))
    parts = (source,) if single else tuple(source) if isinstance(source, (tuple, list)) else ()
    paths = tuple(Path(part) for part in parts if isinstance(part, (str, os.PathLike)))
    if len(paths) not in (1, 2) or len(paths) != len(parts) or (len(paths) == 2 and not _is_matrix(paths[0])):
        raise ParameterError(
            "`embedding` must be None, 'learned', the path of a text file of words and their vectors, or a pair of "
            f"paths: of a matrix (.npy, .safetensors) and of its words (.txt, .json); got {source!r}."
        )
    if len(paths) == 1 and _is_matrix(paths[0]):
        raise ParameterError(
            f"`embedding` is a matrix without words, {source!r}. Give a pair: that path, and the path of the words of "
            "its rows (.txt with one word per line, or the .json of the tokenizer)."
        )
    for path in paths:
        if not os.path.isfile(path):
            raise ParameterError(f"`embedding` names a file that does not exist: {str(path)!r}.")
    return paths


def _is_matrix(path: Path) -> bool:
    return path.suffix in (".npy", ".safetensors")


# A search reads the same file for each candidate.
@functools.lru_cache(maxsize=4)
def _read(paths: tuple[Path, ...], changed: tuple[int, ...], words: tuple[str, ...]) -> NDArray[np.float32]:
    if len(paths) == 1:
        return _from_text(paths[0], words)
    matrix, rows = _matrix(paths[0]), _rows(paths[1])
    if max(rows.values()) >= len(matrix):
        raise DataError(
            f"{str(paths[1])!r} has words for {max(rows.values()) + 1} rows, but the matrix in {str(paths[0])!r} has "
            f"{len(matrix)}."
        )
    vectors = np.full((len(words), matrix.shape[1]), np.nan, dtype="float32")
    marks = _marks(rows)
    for vector, word in zip(vectors, words, strict=True):
        parts = _parts(word, rows, marks)
        if parts:
            numbers = _numbers(matrix[parts])
            if not np.isfinite(numbers).all():
                raise DataError(f"{str(paths[0])!r} {_NOT_FINITE}, in the rows {parts} of the word {word[:60]!r}.")
            vector[:] = numbers.mean(axis=0, dtype="float64")
    return vectors


# -- text -----------------------------------------------------------------------------------------------------------


def _from_text(path: Path, words: tuple[str, ...]) -> NDArray[np.float32]:
    wanted = {word: place for place, word in enumerate(words)}
    vectors: NDArray[np.float32] | None = None
    size = n_lines = n_longer = 0
    for number, line in enumerate(_lines(path), 1):
        fields = line.rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
            size = int(fields[1][:9])
            continue  # the number of words, and of the numbers of each
        if fields == [""]:
            continue
        if vectors is None:
            if not 0 < len(fields) - 1 <= _MAX_DIM or size not in (0, len(fields) - 1):
                break
            size = len(fields) - 1
            vectors = np.full((len(words), size), np.nan, dtype="float32")
        n_lines, n_longer = n_lines + 1, n_longer + (len(fields) > size + 1)
        word = " ".join(fields[:-size])  # some files have words with spaces
        if len(fields) > size and word not in wanted:
            continue
        vector = _from_fields(fields[-size:]) if len(fields) > size else None
        if vector is None:
            raise DataError(f"Line {number} of {str(path)!r} is not a word and {size} numbers: {line[:60].rstrip()!r}.")
        if not np.isfinite(vector).all():
            raise DataError(f"Line {number} of {str(path)!r} {_NOT_FINITE}: {line[:60].rstrip()!r}.")
        vectors[wanted[word]] = vector
    if vectors is None or 2 * n_longer > n_lines:  # the first line has fewer numbers than most others
        raise DataError(
            f"{str(path)!r} does not have a word and its vector in each line, with the same number of numbers "
            f"everywhere, {_MAX_DIM:,} at most."
        )
    return vectors


def _from_fields(fields: list[str]) -> NDArray[np.float32] | None:
    """The numbers of one line; None where a field is not a number."""
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return None
    if any("_" in field for field in fields):  # which only Python reads as a number
        return None
    with np.errstate(over="ignore"):
        return np.array(numbers).astype("float32")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, none of them long enough to fill the memory."""
    zipped = path.suffix == ".gz"
    try:
        left = _MAX_LINE + _MAX_UNZIPPED * path.stat().st_size
        with (gzip.open if zipped else open)(path, "rt", encoding="utf-8", newline="\n") as file:
            while line := file.readline(_MAX_LINE):
                left -= len(line)
                if len(line) == _MAX_LINE:
                    raise DataError(
                        f"{str(path)!r} has a line of more than {_MAX_LINE:,} characters, and so is no file of words."
                    )
                if left < 0:
                    raise DataError(
                        f"{str(path)!r} unzips to more than {_MAX_UNZIPPED} times its size, and so is no file of words."
                    )
                yield line
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be read as text: {error}.") from error


# -- a matrix and its words -----------------------------------------------------------------------------------------


def _matrix(path: Path) -> Any:
    """A matrix that stays on disk; `_numbers` turns rows of it into numbers."""
    try:
        matrix = _safetensors(path) if path.suffix == ".safetensors" else _npy(path)
    except DataError:
        raise
    except Exception as error:  # for a damaged header NumPy and JSON raise nearly anything, even RecursionError
        raise DataError(f"{str(path)!r} cannot be read: {error}.") from error
    if not 0 < matrix.shape[1] <= _MAX_DIM:
        raise DataError(f"{str(path)!r} has rows of {matrix.shape[1]:,} numbers; word vectors have 1 to {_MAX_DIM:,}.")
    return matrix


def _numbers(rows: NDArray[Any]) -> NDArray[np.float32]:
    if rows.dtype.kind == "u":  # bfloat16, the upper half of a float32
        rows = (rows.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):
        return np.asarray(rows, dtype="float32")


def _npy(path: Path) -> Any:
    # Not by np.load, which would read archives, too.
    matrix = np.lib.format.open_memmap(path, mode="r")
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise DataError(
            f"{str(path)!r} must contain a matrix of floats, (words, numbers); it contains {matrix.dtype} of the shape "
            f"{matrix.shape}."
        )
    held = path.stat().st_size - matrix.offset
    if held != matrix.nbytes:
        raise ValueError(f"it contains {held:,} bytes of numbers, and declares {matrix.nbytes:,}")
    return matrix


# Types in a .safetensors file: bytes per number, and NumPy's names of those that a matrix may have here.
_FLOATS = {"F16": (2, "<f2"), "F32": (4, "<f4"), "F64": (8, "<f8"), "BF16": (2, "<u2")}
_OTHERS = {"I8": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "BOOL": 1}


def _safetensors(path: Path) -> Any:
    """The only matrix of a file, which is eight bytes with the length of a JSON header, the header, and the numbers."""
    content = np.memmap(path, mode="r")
    length = int.from_bytes(bytes(content[:8]), "little")
    if length > min(len(content) - 8, _MAX_HEADER):
        raise ValueError(f"its header should have {length:,} bytes")
    header, numbers = _json(bytes(content[8 : 8 + length])), content[8 + length :]
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    tensors = [(entry["dtype"], entry["shape"], *entry["data_offsets"]) for entry in entries]
    # In this format they follow each other without gaps, so that no number belongs to two of them.
    end = 0
    for kind, shape, start, stop in sorted(tensors, key=lambda tensor: (tensor[2], tensor[3])):
        size = _FLOATS[kind][0] if kind in _FLOATS else _OTHERS[kind]
        is_whole = all(type(number) is int and number >= 0 for number in (*shape, start, stop))
        if not is_whole or start != end or stop - start != math.prod(shape) * size:
            raise ValueError(f"{kind} of the shape {shape} cannot be its bytes {start} to {stop}")
        end = stop
    if end != len(numbers):
        raise ValueError(f"it contains {len(numbers):,} bytes of numbers, and declares {end:,}")
    matrices = [tensor for tensor in tensors if len(tensor[1]) == 2]
    if len(matrices) != 1:
        raise ValueError(f"it contains {len(matrices)} matrices instead of one")
    ((kind, shape, start, stop),) = matrices
    if kind not in _FLOATS:
        raise DataError(
            f"{str(path)!r} must contain a matrix of floats, (words, numbers); it contains {kind} of {shape}."
        )
    return numbers[start:stop].view(_FLOATS[kind][1]).reshape(shape)


def _json(content: bytes) -> Any:
    """JSON without duplicate names, of which programs take one or the other."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("it has a name twice")
        return found

    return json.loads(content.decode("utf-8"), object_pairs_hook=once)


def _rows(path: Path) -> dict[str, int]:
    """The row of each word."""
    words: Any
    if path.suffix != ".json":
        words = {line.rstrip("\r\n"): row for row, line in enumerate(_lines(path))}
    else:
        try:
            if path.stat().st_size > _MAX_JSON:
                raise ValueError(f"it has more than {_MAX_JSON:,} bytes")
            words = _json(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            raise DataError(f"{str(path)!r} cannot be read as JSON: {error}.") from error
        model = words.get("model") if isinstance(words, dict) else None
        words = model["vocab"] if isinstance(model, dict) and "vocab" in model else words
    if isinstance(words, list):  # of words, or of words with a score
        listed = [word[0] if isinstance(word, list) and word else word for word in words]
        words = {word: row for row, word in enumerate(listed)} if all(isinstance(word, str) for word in listed) else {}
    # A bool is an int as well, and a negative row would count from the end.
    if not isinstance(words, dict) or not words or not all(type(row) is int and row >= 0 for row in words.values()):
        raise DataError(
            f"{str(path)!r} contains no words: it must have one word per line, or be the JSON of a tokenizer."
        )
    return words


class _Marks(NamedTuple):
    """How a tokenizer marks the part that begins a word, and a part inside; None inside if it has whole words only."""

    start: str
    inside: str | None


def _marks(rows: Mapping[str, int]) -> _Marks:
    for start in _STARTS:
        if any(word.startswith(start) and len(word) > 1 for word in rows):
            return _Marks(start, "")
    return _Marks("", _CONTINUES if any(word.startswith(_CONTINUES) for word in rows) else None)


def _parts(word: str, rows: Mapping[str, int], marks: _Marks) -> list[int]:
    """Rows of the word, or of the longest parts that make it up; an empty list if there are none."""
    whole = rows.get(marks.start + word)
    if whole is not None or marks.inside is None:
        return [] if whole is None else [whole]
    found, mark = [], marks.start
    while word:
        ends = (end for end in range(len(word), 0, -1) if mark + word[:end] in rows)
        end = next(ends, 0)
        if not end:
            return []
        found.append(rows[mark + word[:end]])
        word, mark = word[end:], marks.inside
    return found
