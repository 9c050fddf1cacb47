"""Vectors of words are read from every form of file, word for word."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kerastoolkit.data import read_vectors
from kerastoolkit.exceptions import DataError, ParameterError

WORDS = ("apple", "pear", "plum")
MATRIX = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 4.0]], dtype="float32")
NAN = [np.nan, np.nan]


def _lines() -> str:
    return "".join(f"{word} {row[0]} {row[1]}\n" for word, row in zip(WORDS, MATRIX, strict=True))


@pytest.mark.parametrize("before", ["", "3 2\n", "two words 9.0 9.0\n"], ids=["GloVe", "word2vec", "a space"])
def test_a_text_file_is_read(before: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    # the number of numbers comes from the first line that has some
    path.write_text(before + _lines() if before != "two words 9.0 9.0\n" else _lines() + before, encoding="utf-8")
    assert_array_equal(read_vectors(path, ("plum", "fig", "apple")), [MATRIX[2], NAN, MATRIX[0]])


def test_a_compressed_text_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress(_lines().encode()))
    assert_array_equal(read_vectors(str(path), WORDS), MATRIX)


def _safetensors(path: Path, kind: str, **tensors: np.ndarray) -> Path:
    """As the format is described: the length of a header, the header, the numbers one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, tensor in tensors.items():
        offsets = [len(content), len(content) + tensor.nbytes]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        content += tensor.tobytes()
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)
    return path


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [
        ("F32", MATRIX),
        ("F16", MATRIX.astype("float16")),
        ("F64", MATRIX.astype("float64")),
        ("BF16", (MATRIX.view("<u4") >> 16).astype("<u2")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_matrix_of_any_precision_is_read_with_its_words(kind: str, matrix: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    path = _safetensors(tmp_path / "matrix.safetensors", kind, embedding=matrix)
    assert_array_equal(read_vectors((path, tmp_path / "words.txt"), WORDS[::-1]), MATRIX[::-1])


@pytest.mark.parametrize(
    "content",
    [
        list(WORDS),
        dict(zip(WORDS, range(3), strict=True)),
        {"model": {"vocab": [[word, -1.0] for word in WORDS]}},
        {"model": {"type": "BPE", "vocab": {"▁" + word: row for row, word in enumerate(WORDS)}}},
    ],
    ids=["list", "rows", "unigram", "BPE"],
)
def test_words_come_from_json(content: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "matrix.npy", MATRIX)
    (tmp_path / "words.json").write_text(json.dumps(content), encoding="utf-8")
    assert_array_equal(read_vectors((tmp_path / "matrix.npy", tmp_path / "words.json"), WORDS), MATRIX)


@pytest.mark.parametrize(
    "parts", [("▁app", "le", "tree", "▁a"), ("app", "##le", "##tree", "a")], ids=["BPE", "WordPiece"]
)
def test_a_word_that_a_tokenizer_does_not_know_whole_is_the_mean_of_its_longest_parts(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    matrix = np.concatenate([MATRIX, [[7.0, 7.0]]])
    np.save(tmp_path / "matrix.npy", matrix)
    vocabulary = {"model": {"vocab": {part: row for row, part in enumerate(parts)}}}
    (tmp_path / "words.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    found = read_vectors((tmp_path / "matrix.npy", tmp_path / "words.json"), ("apple", "appletree", "a", "tree"))
    assert_allclose(found, [MATRIX[:2].mean(0), MATRIX.mean(0), matrix[3], NAN])


def test_a_list_of_words_has_no_parts(tmp_path: Path) -> None:
    np.save(tmp_path / "matrix.npy", MATRIX)
    (tmp_path / "words.txt").write_text("app\nle\ntree\n", encoding="utf-8")
    found = read_vectors((tmp_path / "matrix.npy", tmp_path / "words.txt"), ("apple", "tree"))
    assert_array_equal(found, [NAN, MATRIX[2]])


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    import os

    path = tmp_path / "vectors.txt"
    for number in (1.0, 2.0):
        path.write_text(f"apple {number} 0.0\n", encoding="utf-8")
        os.utime(path, (10 * number, 10 * number))  # further apart than any file system rounds
        assert read_vectors(path, ("apple",))[0, 0] == number


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.txt", "a file that does not exist: .*nowhere.txt"),
        ("matrix.npy", "is a matrix without words.*Give a pair"),
        (("words.txt", "matrix.npy"), "or a pair of paths"),
        (3, "or a pair of paths: of a matrix .* got 3"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=message):
        read_vectors(source, WORDS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"apple 1.0 2.0\npear 1.0 x\n", "Line 2 of .* is not a word and 2 numbers: 'pear 1.0 x'"),
        ("a.txt", b"", "does not have a word and its vector in each line"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as text"),
        ("a.txt.gz", b"apple 1.0", "cannot be read as text"),
        ("a.txt.gz", gzip.compress(b"apple 1.0 2.0" * 99, mtime=0)[:30] + b"\xff" * 9, "cannot be read as text"),
        ("a.txt.gz", gzip.compress(b"fig 1 2\n" * 10**6, mtime=0), "unzips to more than 100 times its size"),
        ("a.txt", b"apple 1.0 2.0\n" + b"9" * 2**20, "a line of more than 1,048,576 characters"),
        ("a.txt", b"apple" + b" 1" * 2**15, "16,384 at most"),
        ("a.txt", b"apple 1.0 2.0\npear 1.0", "Line 2 of .* is not a word and 2 numbers"),
        ("a.txt", b"apple 1.0 2.0\npear 1_0 2.0", "Line 2 of .* is not a word and 2 numbers"),
        ("a.txt", b"3 2\napple 1.0 2.0 3.0\n", "the same number of numbers everywhere"),
        ("a.txt", b"fig 1.02.0\npear 1.0 2.0\nplum 1.0 2.0\n", "the same number of numbers everywhere"),
        ("a.txt", b"apple 1.0 nan\n", "Line 1 of .* has numbers that are not finite as float32: 'apple 1.0 nan'"),
        ("a.txt", b"apple 1.0 1e39\n", "not finite as float32"),
    ],
)
def test_a_damaged_text_file_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / name, WORDS)


@pytest.mark.parametrize(
    ("matrix", "words", "message"),
    [
        (np.zeros((2, 2)), list(WORDS), "has words for 3 rows, but the matrix in .* has 2"),
        (np.zeros(3), list(WORDS), "must contain a matrix of floats"),
        (np.zeros((3, 2), int), list(WORDS), "must contain a matrix of floats"),
        (np.array([None]), list(WORDS), "cannot be read"),
        (MATRIX, {}, "contains no words"),
        (MATRIX, {"apple": "red"}, "contains no words"),
        (MATRIX, {"apple": -1}, "contains no words"),
        (MATRIX, {"apple": True}, "contains no words"),
        (MATRIX, [["apple"], []], "contains no words"),
        (MATRIX, {"model": []}, "contains no words"),
        (MATRIX * np.inf, list(WORDS), r"not finite as float32, in the rows \[0\] of the word 'apple'"),
        (MATRIX.astype("float64") * 1e300, list(WORDS), "not finite as float32"),
        (np.zeros((3, 0)), list(WORDS), "has rows of 0 numbers"),
    ],
    ids=str,
)
def test_a_matrix_that_does_not_go_with_its_words_is_refused(
    matrix: np.ndarray, words: Any, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "matrix.npy", matrix, allow_pickle=True)
    (tmp_path / "words.json").write_text(json.dumps(words), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_vectors((tmp_path / "matrix.npy", tmp_path / "words.json"), WORDS)


def npy(header: str, numbers: bytes = MATRIX.tobytes()) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + numbers


def tensors(header: Any, numbers: bytes = MATRIX.tobytes()) -> bytes:
    encoded = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(encoded).to_bytes(8, "little") + encoded + numbers


def tensor(kind: str = "F32", shape: Any = (3, 2), offsets: Any = (0, 24)) -> Any:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


FORGED = {
    "nothing.npy": b"",
    "gigabytes.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (400000000, 2)}\n"),
    "fewer.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}\n"),
    "negative.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, -2)}\n"),
    "pickle.npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 2)}\n", b"cos\nsystem\n(S'true'\ntR."),
    "only a pickle.npy": b"cos\nsystem\n(S'true'\ntR.",
    "fields.npy": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 2)}\n"),
    "deep.npy": npy("-" * 9000 + "1"),
    "nothing.safetensors": b"",
    "cut.safetensors": tensors({"a": tensor()})[:-1],
    "long header.safetensors": (2**40).to_bytes(8, "little") + b"{}",
    "deep.safetensors": tensors("[" * 100_000),
    "gigabytes.safetensors": tensors({"a": tensor(shape=(10**9, 2), offsets=(0, 8 * 10**9))}),
    "fewer.safetensors": tensors({"a": tensor(shape=(2, 2), offsets=(0, 16))}),
    "overlap.safetensors": tensors({"a": tensor(), "b": tensor(shape=(2,), offsets=(16, 24))}),
    "gap.safetensors": tensors({"a": tensor(shape=(2, 2), offsets=(8, 24))}),
    "negative.safetensors": tensors({"a": tensor(shape=(-3, -2))}),
    "truth.safetensors": tensors({"a": tensor(shape=(True, 6))}),
    "other.safetensors": tensors({"a": tensor(kind="F99")}),
    "integers.safetensors": tensors({"a": tensor(kind="I32")}),
    "twice.safetensors": tensors('{"a": %s, "a": %s}' % ((json.dumps(tensor()),) * 2)),
    "list.safetensors": tensors([tensor()]),
    "texts.safetensors": tensors({"a": tensor(shape=["3", "2"])}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_matrix_is_held_against_what_its_file_declares(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORGED[name])
    (tmp_path / "words.json").write_text(json.dumps(WORDS), encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read|must contain a matrix of floats"):
        read_vectors((tmp_path / name, tmp_path / "words.json"), WORDS)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"apple": 0, "apple": 1}', b"\xff", b"", b"9" * 10_000],
    ids=lambda content: content[:9],
)
def test_damaged_json_is_refused(content: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "matrix.npy", MATRIX)
    (tmp_path / "words.json").write_bytes(content)
    with pytest.raises(DataError, match="words.json' cannot be read as JSON"):
        read_vectors((tmp_path / "matrix.npy", tmp_path / "words.json"), WORDS)


def test_a_file_of_several_matrices_is_refused(tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "matrix.safetensors", "F32", one=MATRIX, two=MATRIX)
    (tmp_path / "words.json").write_text(json.dumps(WORDS), encoding="utf-8")
    with pytest.raises(DataError, match="it contains 2 matrices instead of one"):
        read_vectors((path, tmp_path / "words.json"), WORDS)


def test_real_vectors_know_what_is_alike() -> None:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        pytest.skip("needs the files of a package: pip install --no-deps wordllama==0.4.0.post1")
    folder = Path(spec.origin).parent
    matrix, words = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
    vectors = read_vectors((folder / matrix, folder / words), ("king", "queen", "banana", "unbelievability"))
    assert vectors.shape == (4, 256)
    assert not np.isnan(vectors).any()
    king, queen, banana, _ = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert king @ queen > king @ banana + 0.2
