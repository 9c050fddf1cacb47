"""Runs an exported ONNX file with onnxruntime alone: no TensorFlow, no Keras, no scikit-learn, no pandas."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._optional import require
from kerastoolkit.exceptions import ModelMismatchError, SavedFileError
from kerastoolkit.export._spec import OutputSpec, Spec

if TYPE_CHECKING:
    import onnxruntime

Answers: TypeAlias = "NDArray[Any] | list[NDArray[Any]] | dict[str, NDArray[Any]]"

KEY = "kerastoolkit"  # of the spec among the metadata of a file
_WRITER = "kerastoolkit.export.onnx"


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
        ort = require("onnxruntime")
        self.digest = hashlib.sha256(content).hexdigest()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
        options.log_severity_level = 3
        with _files.refusing(path, _WRITER):
            self._session: onnxruntime.InferenceSession = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            found = self._session.get_modelmeta().custom_metadata_map
            if KEY not in found:
                raise SavedFileError(f"It was not written by {_WRITER}.")
            self.spec = Spec.from_json(found[KEY])
            names = [[one.name for one in part] for part in (self.spec.inputs, self.spec.outputs)]
            held = [[one.name for one in part] for part in (self._session.get_inputs(), self._session.get_outputs())]
            if names != held:
                raise SavedFileError(f"Its spec has the inputs and outputs {names}, its graph {held}.")

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph.

        Args:
            arrays: Raw inputs by name, `n` rows each, as `spec.arrays` makes them.

        Returns:
            Answers by name.
        """
        names = [one.name for one in self.spec.outputs]
        return dict(zip(names, self._session.run(names, dict(arrays)), strict=True))

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
        if len(wanted) == 1:
            return made[wanted[0].name]
        if all(one.target is not None for one in wanted):
            return {str(one.target): made[one.name] for one in wanted}
        return [made[one.name] for one in wanted]

    def __repr__(self) -> str:
        takes = ", ".join(one.name for one in self.spec.inputs[:6])
        return f"OnnxModel({self.spec.name}: {takes} -> {', '.join(one.name for one in self.spec.outputs)})"


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
    """
    return OnnxModel(_files.regular_file(path).read_bytes(), path, n_threads)
