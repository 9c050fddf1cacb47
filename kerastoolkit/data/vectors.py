"""Vectors of words that somebody else has trained, from files.

Two forms of files are read, without any package beside numpy:

- text, one word a line and its numbers after it: GloVe, fastText, word2vec (also with a first line of two numbers, and
  also `.gz`);
- a matrix (`.npy`, `.safetensors`) with a file of its words: a word a line, or the JSON of a tokenizer, as WordLlama
  and Model2Vec have. A tokenizer knows parts of words; a word that it does not know whole gets the mean of its parts,
  which are the longest that fit from its beginning on.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from kerastoolkit.exceptions import DataError, ParameterError

__all__ = ["read_vectors"]

Source: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]"

_STARTS = ("▁", "Ġ")  # how tokenizers mark the part that begins a word
_GOES_ON = "##"  # and the part that goes on with one


def read_vectors(source: Source, words: tuple[str, ...]) -> np.ndarray:
    """Reads vectors of words from a file.

    Args:
        source: A text file of words and numbers; or a pair of a matrix (`.npy`, `.safetensors`) and a file of the words
            of its rows (`.txt`, a word a line, or the `.json` of a tokenizer).
        words: The words that are wanted.

    Returns:
        Their vectors, shape `(len(words), size)`, float32, with NaN for a word that has none.

    Raises:
        ParameterError: `source` is none of these, or there is no such file.
        DataError: A file is damaged, or the two do not belong together; the message says which.
    """
    paths = check_source(source)
    return _read(paths, tuple(path.stat().st_mtime_ns for path in paths), words).copy()


def check_source(source: Any) -> tuple[Path, ...]:
    """The one or two files that are meant, which are there.

    Raises:
        ParameterError: They are not.
    """
    single = isinstance(source, (str, os.PathLike))
    parts = (source,) if single else tuple(source) if isinstance(source, (tuple, list)) else ()
    paths = tuple(Path(part) for part in parts if isinstance(part, (str, os.PathLike)))
    if len(paths) not in (1, 2) or len(paths) != len(parts) or (len(paths) == 2 and not _is_matrix(paths[0])):
        raise ParameterError(
            "`embedding` must be None, 'learned', the path of a text file of words and their numbers, or a pair of "
            f"paths: of a matrix (.npy, .safetensors) and of its words (.txt, .json); got {source!r}."
        )
    if len(paths) == 1 and _is_matrix(paths[0]):
        raise ParameterError(
            f"`embedding` is a matrix without words, {source!r}. Give a pair: that path, and the path of the words of "
            "its rows (.txt with a word a line, or the .json of the tokenizer)."
        )
    for path in paths:
        if not path.is_file():
            raise ParameterError(f"`embedding` names a file that is not there: {str(path)!r}.")
    return paths


def _is_matrix(path: Path) -> bool:
    return path.suffix in (".npy", ".safetensors")


# A search reads the same file for each candidate.
@functools.lru_cache(maxsize=4)
def _read(paths: tuple[Path, ...], changed: tuple[int, ...], words: tuple[str, ...]) -> np.ndarray:
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
            vector[:] = matrix[parts].astype("float32").mean(axis=0)
    return vectors


# -- text -----------------------------------------------------------------------------------------------------------


def _from_text(path: Path, words: tuple[str, ...]) -> np.ndarray:
    wanted = {word: place for place, word in enumerate(words)}
    vectors: np.ndarray | None = None
    for number, line in enumerate(_lines(path), 1):
        fields = line.rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            continue  # how many words, and how many numbers each has
        if vectors is None:
            vectors = np.full((len(words), len(fields) - 1), np.nan, dtype="float32")
        size = vectors.shape[1]
        word = " ".join(fields[: len(fields) - size])  # some files have words with spaces
        if word not in wanted:
            continue
        try:
            vectors[wanted[word]] = [float(field) for field in fields[-size:]]
        except ValueError:
            raise DataError(
                f"Line {number} of {str(path)!r} is no word and {size} numbers: {line[:60].rstrip()!r}."
            ) from None
    if vectors is None or vectors.shape[1] == 0:
        raise DataError(f"{str(path)!r} does not hold a word and its numbers in each line.")
    return vectors


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        try:
            yield from file
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"{str(path)!r} cannot be read as text: {error}.") from error


# -- a matrix and its words -----------------------------------------------------------------------------------------


def _matrix(path: Path) -> Any:
    try:
        matrix = _safetensors(path) if path.suffix == ".safetensors" else np.load(path, mmap_mode="r")
    except (ValueError, KeyError, EOFError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}.") from error
    if getattr(matrix, "ndim", 0) != 2 or matrix.dtype.kind != "f":
        raise DataError(
            f"{str(path)!r} must hold a matrix of floats, (words, numbers); it holds {matrix.dtype} of the shape "
            f"{matrix.shape}."
        )
    return matrix


def _safetensors(path: Path) -> np.ndarray:
    """The one matrix of a file: eight bytes with the length of a JSON header, the header, the numbers."""
    content = np.memmap(path, mode="r")
    length = int.from_bytes(bytes(content[:8]), "little")
    header = json.loads(bytes(content[8 : 8 + length]))
    tensors = [entry for name, entry in header.items() if name != "__metadata__" and len(entry["shape"]) == 2]
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} matrices and should hold one")
    start, end = tensors[0]["data_offsets"]
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
    numbers = content[8 + length + start : 8 + length + end].view(kinds[tensors[0]["dtype"]])
    if tensors[0]["dtype"] == "BF16":  # the upper half of a float32
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    return np.asarray(numbers.reshape(tensors[0]["shape"]))


def _rows(path: Path) -> dict[str, int]:
    """Row of each word."""
    words: Any
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{str(path)!r} cannot be read as JSON: {error}.") from error
        words = content.get("model", {}).get("vocab", content) if isinstance(content, Mapping) else content
    else:
        words = [line.rstrip("\r\n") for line in _lines(path)]
    if isinstance(words, list):  # of words, or of words with a score
        words = {word[0] if isinstance(word, list) else word: row for row, word in enumerate(words)}
    if not isinstance(words, Mapping) or not words or not all(isinstance(row, int) for row in words.values()):
        raise DataError(f"{str(path)!r} holds no words: it must be a word a line, or the JSON of a tokenizer.")
    return {str(word): int(row) for word, row in words.items()}


class _Marks(NamedTuple):
    """How a tokenizer writes the part that begins a word, and a part inside; None inside where it has no parts."""

    start: str
    inside: str | None


def _marks(rows: Mapping[str, int]) -> _Marks:
    for start in _STARTS:
        if any(word.startswith(start) and len(word) > 1 for word in rows):
            return _Marks(start, "")
    return _Marks("", _GOES_ON if any(word.startswith(_GOES_ON) for word in rows) else None)


def _parts(word: str, rows: Mapping[str, int], marks: _Marks) -> list[int]:
    """Rows of the word, or of the longest parts that make it up; none if there are no such parts."""
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
