"""Runs an exported ONNX file with onnxruntime alone: no TensorFlow, no Keras, no scikit-learn, no pandas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._optional import require
from kerastoolkit.exceptions import DataError, ModelMismatchError, ParameterError, SavedFileError
from kerastoolkit.export._spec import InputSpec, OutputSpec, Spec

if TYPE_CHECKING:
    import onnxruntime

Answers: TypeAlias = "NDArray[Any] | list[NDArray[Any]] | dict[str, NDArray[Any]]"

KEY = "kerastoolkit"  # of the spec among the metadata of a file
_WRITER = "kerastoolkit.export.onnx"
_ONNX_TYPES = {
    "float32": "float", "float64": "double", "int32": "int32", "int64": "int64", "uint8": "uint8", "bool": "bool",
    "string": "string",
}  # fmt: skip


class OnnxModel:
    """An exported model. `load` opens one.

    Args:
        content: The ONNX file.
        path: Where it was read, for messages. Defaults to `""`.
        n_threads: Threads that compute one call. Defaults to `1`, which is fastest for a few rows.

    Attributes:
        spec: What it takes and answers, and how it was compared when it was made.
        digest: SHA-256 of the file, in hexadecimal digits.

    Raises:
        SavedFileError: It is no file that `kerastoolkit.export.onnx` wrote.
    """

    def __init__(self, content: bytes, path: str | Path = "", n_threads: int = 1) -> None:
        if isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1:
            raise ParameterError(f"`n_threads` must be a whole number of 1 or more; got {n_threads!r}.")
        ort = require("onnxruntime")
        self.digest = hashlib.sha256(content).hexdigest()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
        options.log_severity_level = 4  # what goes wrong is raised
        self._path = path
        with _files.refusing(path, _WRITER):
            if _reads_other_files(content):
                raise SavedFileError("It has weights in other files, which none has that was written here.")
            self._session: onnxruntime.InferenceSession = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            found = self._session.get_modelmeta().custom_metadata_map
            if KEY not in found:
                raise SavedFileError(f"It was not written by {_WRITER}.")
            self.spec = Spec.from_json(found[KEY])
            _check(self.spec.inputs, self._session.get_inputs(), "input")
            _check(self.spec.outputs, self._session.get_outputs(), "output")

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph.

        Args:
            arrays: Raw inputs by name, `n` rows each, as `spec.arrays` makes them.

        Returns:
            Answers by name.

        Raises:
            DataError: An input is missing, or the graph cannot compute these rows.
            SavedFileError: The file answers with another number of rows.
        """
        names, needed = [one.name for one in self.spec.outputs], [one.name for one in self.spec.inputs]
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise DataError(f"`arrays` has no {missing[0]!r}. The model takes {', '.join(map(repr, needed))}.")
        try:
            made = self._session.run(names, {name: arrays[name] for name in needed})
        except Exception as error:  # onnxruntime's errors have no class that could be named
            why = str(error).strip().splitlines()[0][:300]
            raise DataError(f"The model cannot compute these rows: {why}") from error
        n_rows = len(arrays[needed[0]])
        if any(np.ndim(array) == 0 or len(array) != n_rows for array in made):
            shapes = [np.shape(array) for array in made]
            raise SavedFileError(f"{str(self._path)!r} answers {n_rows} rows with arrays of the shapes {shapes}.")
        return dict(zip(names, made, strict=True))

    def predict(self, X: Any) -> Answers:
        """Predicts labels or numbers.

        Args:
            X: Rows as the exported model takes them: a table, a dict of columns, a list of dicts, an array, texts.

        Returns:
            Shape `(n,)` or `(n, columns)`; where there are several targets a dict by target, or columns.

        Raises:
            DataError: The rows are not of the kind that the model takes; the message names row and column.
        """
        wanted = [one for one in self.spec.outputs if one.kind != "probabilities"]
        answers = self._answers(X, wanted)
        if isinstance(answers, list):
            return np.column_stack(answers) if all(one.ndim == 1 for one in answers) else answers
        return answers

    def predict_proba(self, X: Any) -> Answers:
        """Predicts probabilities.

        Args:
            X: As for `predict`.

        Returns:
            Shape `(n, n_classes)`, in the order of `classes`; where there are several targets a list, or a dict by
            target.

        Raises:
            DataError: As for `predict`.
            ModelMismatchError: The model has no probabilities.
        """
        wanted = [one for one in self.spec.outputs if one.kind == "probabilities"]
        if not wanted:
            raise ModelMismatchError(f"The model answers {[one.name for one in self.spec.outputs]}: no probabilities.")
        return self._answers(X, wanted)

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """Labels in the order of the probabilities; None for a model of numbers, or of several targets."""
        found = [one.classes for one in self.spec.outputs if one.kind == "probabilities"]
        return found[0] if len(found) == 1 else None

    def _answers(self, X: Any, wanted: list[OutputSpec]) -> Answers:
        made = self.run(self.spec.arrays(X))
        if all(one.target is not None for one in wanted):
            return {str(one.target): made[one.name] for one in wanted}
        if len(wanted) == 1:
            return made[wanted[0].name]
        return [made[one.name] for one in wanted]

    def __repr__(self) -> str:
        takes = ", ".join(one.name for one in self.spec.inputs[:6])
        return f"OnnxModel({self.spec.name}: {takes} -> {', '.join(one.name for one in self.spec.outputs)})"


# What of the messages in an ONNX file may hold a tensor: by message, the fields to look into.
_INSIDE = {
    "model": {7: "graph", 25: "function"}, "graph": {1: "node", 5: "tensor", 15: "sparse"}, "function": {7: "node"},
    "node": {5: "attribute"}, "sparse": {1: "tensor", 2: "tensor"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}  # fmt: skip
_EXTERNAL = (13, 14)  # fields of a tensor that say that it is elsewhere


def _reads_other_files(content: bytes) -> bool:
    """Whether a file has onnxruntime read others, from wherever the process happens to be."""
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        for field, value in _fields(message):
            if kind == "tensor" and field in _EXTERNAL:
                return True
            inside = _INSIDE.get(kind, {}).get(field)
            if inside is not None and value is not None:
                waiting.append((inside, value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """The fields of a message of Protocol Buffers: number, and content of those that have a length."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        wire = tag & 7
        if wire == 2:
            length, place = _number(message, place)
            if length > len(message) - place:
                raise SavedFileError("It ends too early.")
            yield tag >> 3, message[place : place + length]
            place += length
        elif wire == 0:
            _, place = _number(message, place)
            yield tag >> 3, None
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
            yield tag >> 3, None
        else:
            raise SavedFileError("It is no ONNX file.")


def _number(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if place >= len(message):
            raise SavedFileError("It ends too early.")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise SavedFileError("It is no ONNX file.")


def _check(specs: Sequence[InputSpec | OutputSpec], held: Sequence[Any], what: str) -> None:
    """Refuses a spec that says something else than the graph of its file."""
    said = [(one.name, f"tensor({_ONNX_TYPES[one.dtype]})", (None, *one.shape)) for one in specs]
    found = [(one.name, one.type, tuple(size if isinstance(size, int) else None for size in one.shape)) for one in held]
    if [one[:2] for one in said] != [one[:2] for one in found]:
        raise SavedFileError(f"Its spec has the {what}s {_files.shown(said)}, its graph {_files.shown(found)}.")
    for (name, _, shape), (_, _, other) in zip(said, found, strict=True):
        sizes = zip(shape, other, strict=False)
        if len(shape) != len(other) or any(None not in pair and pair[0] != pair[1] for pair in sizes):
            raise SavedFileError(f"Its spec gives {what} {name!r} the shape {shape}, its graph {other}.")


def load(path: str | Path, n_threads: int = 1) -> OnnxModel:
    """Opens a file that `kerastoolkit.export.onnx` wrote, with onnxruntime alone.

    Example:

    >>> load("model.onnx").predict_proba(rows)  # doctest: +SKIP

    Args:
        path: The file.
        n_threads: Threads that compute one call. Defaults to `1`, which is fastest for a few rows.

    Raises:
        FileNotFoundError: There is no such file.
        SavedFileError: It is damaged, or was not written by `kerastoolkit.export.onnx`.
        MissingPackageError: onnxruntime is not installed.
        ParameterError: `n_threads` is no whole number of 1 or more.
    """
    return OnnxModel(_files.regular_file(path).read_bytes(), path, n_threads)
