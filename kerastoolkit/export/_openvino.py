"""OpenVINO, which runs networks on Intel's processors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._optional import require
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph as g
from kerastoolkit.export._outside import ROUNDED, cut, described, notes_of
from kerastoolkit.export._parity import compare, half_precision
from kerastoolkit.export._report import Report
from kerastoolkit.export._saved_model import as_texts
from kerastoolkit.export._spec import Spec
from kerastoolkit.export._subject import subject_of
from kerastoolkit.export._tensorflow import Function, check_backend, write_saved_model
from kerastoolkit.export._writing import replacing_file

_KEY = "kerastoolkit"  # of the spec and of what is outside, among the metadata of the model


def openvino(source: Any, path: str | Path, *, sample: Any = None) -> Report:
    """Writes a model in OpenVINO's format: `model.xml`, and its weights in `model.bin` beside it.

    OpenVINO has no texts. Categories in text go in as the numbers that they have, words as token ids or counts, and
    labels in text come out as their place among the classes; the report's notes say so, and the metadata of the file
    (`kerastoolkit` in `rt_info`) say how. Feed the inputs by their names: OpenVINO has an order of its own. Numbers are
    computed in float32 where the device is asked to (`INFERENCE_PRECISION_HINT`), which the comparison does.

    Example:

    >>> report = openvino(estimator, "model.xml", sample=X)  # doctest: +SKIP

    Args:
        source: A fitted estimator, a scikit-learn pipeline or search around one, an experiment or a Keras model.
        path: Where to write the `.xml` file. Files that are there are replaced once the new ones are right.
        sample: Rows as the model takes them, which the answers are compared for. Defaults to `None`: typical rows, made
            up from what the model knows.

    Returns:
        What was written, and how well it answers as the model.

    Raises:
        ExportError: The model cannot be written, its answers differ, the path does not end in `.xml`, or Keras runs on
            another backend than TensorFlow. Nothing was written.
        MissingPackageError: openvino is not installed.
    """
    path = Path(path)
    if path.suffix != ".xml":
        raise ExportError(f"`path` must end in '.xml', beside which OpenVINO looks for the weights; got {str(path)!r}.")
    check_backend("An OpenVINO file")
    ov = require("openvino")
    subject = subject_of(source)
    parts = cut(subject.graph, _can)
    with replacing_file(path, ".xml") as temporary:
        folder = temporary.parent / "saved_model"
        write_saved_model(Function(parts.inside, single=True), folder)
        model = _converted(ov, folder, parts.inside)
        _write(ov, model, temporary, subject.spec, parts)
        file = File(temporary, parts, subject.spec)
        parity = compare(
            subject, file, sample, tolerance=half_precision(subject.graph) or ROUNDED, what="The OpenVINO file"
        )
        notes = (*subject.notes, *notes_of(parts))
        spec = dataclasses.replace(subject.spec, report={**parity.to_dict(), "notes": list(notes)})
        _write(ov, model, temporary, spec, parts)
        weights = temporary.with_suffix(".bin")
        n_bytes = temporary.stat().st_size + weights.stat().st_size
        os.replace(weights, path.with_suffix(".bin"))
    return Report(path, "openvino", n_bytes, parity, spec, notes)


def _can(node: g.Node) -> bool:
    return not any(value.dtype == "string" for value in (*node.inputs, *node.outputs))


def _converted(ov: ModuleType, folder: Path, graph: g.Graph) -> Any:
    """The graph as OpenVINO's own, with names at its ends.

    Raises:
        ExportError: OpenVINO has no such operation.
    """
    try:
        model = ov.convert_model(str(folder))
    except Exception as error:  # OpenVINO raises its own errors and RuntimeErrors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(f"OpenVINO cannot read the model: {lines[-1][:300]}. ONNX may hold it.") from error
    for one in (*model.inputs, *model.outputs):
        names = set(one.get_names()) & ({value.name for value in graph.inputs} | set(graph.outputs))
        one.get_tensor().set_names(names)
    return model


def _write(ov: ModuleType, model: Any, path: Path, spec: Spec, parts: g.Parts) -> None:
    model.set_rt_info(spec.to_json(), [_KEY, "spec"])
    if parts.before.nodes or parts.behind.nodes:
        model.set_rt_info(json.dumps(described(parts), ensure_ascii=False), [_KEY, "outside"])
    ov.save_model(model, str(path), compress_to_fp16=False)


class File:
    """The answers of an OpenVINO file, with what is computed around it.

    Args:
        path: The `.xml` file.
        parts: What is computed outside.
        spec: What the whole takes and answers.
    """

    def __init__(self, path: Path, parts: g.Parts, spec: Spec) -> None:
        ov = require("openvino")
        self.parts, self.spec = parts, spec
        self._model = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        made = self.parts.compute(arrays, self.run)
        found = {one.name: (one, as_texts(np.asarray(made[one.name]))) for one in self.spec.outputs}
        return {
            name: array if one.dtype == "string" else array.astype(one.dtype) for name, (one, array) in found.items()
        }

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answers of the file itself."""
        singles = {
            name: array.astype("float32") if array.dtype == np.float64 else array for name, array in arrays.items()
        }
        made = self._model(singles)
        return {name: np.array(made[name]) for name in self.parts.inside.outputs}
