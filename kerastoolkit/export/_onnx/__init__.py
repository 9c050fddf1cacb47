"""One ONNX file from raw input to labels, written node by node and compared before it is handed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastoolkit._optional import require
from kerastoolkit._version import __version__
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import Graph, Network
from kerastoolkit.export._onnx import converted, layers, ops, spatial
from kerastoolkit.export._onnx.network import Tensor, Walk, known_dtype
from kerastoolkit.export._onnx.operations import notes_of, write_operation
from kerastoolkit.export._onnx.writer import Writer
from kerastoolkit.export._parity import EXACT, Parity, Tolerance, compare, half_precision
from kerastoolkit.export._report import Report
from kerastoolkit.export._runtime import KEY, OnnxModel
from kerastoolkit.export._spec import Spec
from kerastoolkit.export._subject import Subject, subject_of
from kerastoolkit.export._writing import check_file, replacing_file

if TYPE_CHECKING:
    import onnx as onnx_package

__all__ = ["onnx", "write_graph", "write_network"]

_OPERATIONS = {**ops.WRITERS, **spatial.WRITERS}
_MOST_BYTES = 2_000_000_000  # of a protocol buffer


def onnx(source: Any, path: str | Path, *, sample: Any = None, tolerance: Tolerance | None = None) -> Report:
    """Writes one ONNX file that takes raw input and answers as the model does, labels included.

    The file runs wherever ONNX does: with `kerastoolkit.export.load`, which needs onnxruntime alone, in browsers, on
    phones, from C#, Java or C++. It is run before it is handed over, and compared with the model row by row.

    Example:

    >>> report = onnx(estimator, "model.onnx", sample=X)  # doctest: +SKIP
    >>> load("model.onnx").predict_proba(X)  # doctest: +SKIP

    Args:
        source: A fitted estimator, a scikit-learn pipeline or search around one, an experiment, a file or folder that
            was saved, or a built `keras.Model`.
        path: Where the file goes. An existing file is replaced.
        sample: Rows as the model takes them, to compare on. Defaults to `None`: typical rows are made up.
        tolerance: How far answers may be apart. Defaults to `None`: probabilities by `1e-5`, numbers by `1e-6` of
            their size; for a model in half precision, which the file computes in float32, as far as that rounds.

    Returns:
        What was written, and how it was compared.

    Raises:
        ExportError: The model has a layer or a step that ONNX cannot hold, which the message names, or the file would
            answer unlike the model. Nothing was written then; a file that was there stays.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    path = Path(path)
    check_file(path, ".onnx")
    require("onnx"), require("onnxruntime")
    subject = subject_of(source)
    model, notes = _model_of(subject)
    spec = dataclasses.replace(subject.spec, versions={**subject.spec.versions, **_versions()})
    _annotate(model, spec)
    runs = OnnxModel(model.SerializeToString(), path)
    tolerance = tolerance or half_precision(subject.graph) or EXACT
    parity = compare(subject, runs.run, sample, tolerance=tolerance, what="The ONNX file")
    said = any("only train" in note for note in subject.notes)
    notes = (*subject.notes, *(note for note in notes if not (said and "only train" in note)))
    spec = dataclasses.replace(spec, report=_facts(parity, notes))
    _annotate(model, spec)
    content = model.SerializeToString()
    with replacing_file(path, ".onnx") as temporary:
        temporary.write_bytes(content)
    return Report(path, "onnx", len(content), parity, spec, notes)


def _model_of(subject: Subject) -> tuple[onnx_package.ModelProto, tuple[str, ...]]:
    onnx_module = require("onnx")
    writer = Writer()
    notes = write_graph(writer, subject.graph)
    model = writer.model(subject.spec.name)
    n_bytes = model.ByteSize()
    if n_bytes > _MOST_BYTES:
        raise ExportError(f"The ONNX file would have {n_bytes:,} bytes, where the format ends at 2 GB.")
    try:
        onnx_module.checker.check_model(model, full_check=True)
    except (onnx_module.checker.ValidationError, onnx_module.shape_inference.InferenceError) as error:
        raise ExportError(f"The ONNX file would not be valid: {error}. Nothing was written.") from error
    return model, (*notes, *notes_of(subject.graph))


def write_graph(writer: Writer, graph: Graph) -> list[str]:
    """Writes a graph from raw input to answers.

    Args:
        writer: What nodes, inputs and outputs are added to.
        graph: The graph.

    Returns:
        Notes: what was left out or written in another way.

    Raises:
        ExportError: ONNX cannot hold a layer or an operation.
    """
    names = {value.name: writer.input(value.name, value.dtype, value.shape) for value in graph.inputs}
    notes: list[str] = []
    for node in graph.nodes:
        given = [names[value.name] for value in node.inputs]
        if isinstance(node.operation, Network):
            given = [
                name if value.dtype == str(like.dtype) else writer.cast(name, known_dtype(like.dtype))
                for name, value, like in zip(given, node.inputs, node.operation.model.inputs, strict=True)
            ]
            made, said = write_network(writer, node.operation, given)
            notes += said
        else:
            made = [write_operation(writer, node, given)]
        names.update({value.name: name for value, name in zip(node.outputs, made, strict=True)})
    for name, value in graph.outputs.items():
        writer.output(name, names[value.name], value.dtype, value.shape)
    return notes


def write_network(writer: Writer, network: Network, inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Writes a network.

    Args:
        writer: What the nodes are added to.
        network: The network.
        inputs: What the inputs are called in the ONNX graph, in the order of `model.inputs` and in their types.

    Returns:
        What the outputs are called in the ONNX graph, in the order of `model.outputs`, and notes.
    """
    walk = Walk(writer, layers.writers(), _OPERATIONS, layers.functions(), converted.by_tf2onnx)
    model = network.model
    tensors = [
        Tensor(name, known_dtype(like.dtype), tuple(like.shape))
        for name, like in zip(inputs, model.inputs, strict=True)
    ]
    outputs = walk.model(model, tensors)
    made = []
    for one, like in zip(outputs, model.outputs, strict=True):
        same = one.dtype == str(like.dtype)
        made.append(one.name if same else writer.cast(one.name, str(like.dtype)))
    return made, walk.notes


# -- the file -------------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    return {name: require(name).__version__ for name in ("onnx", "onnxruntime")}


def _facts(parity: Parity, notes: Sequence[str]) -> dict[str, Any]:
    return {**parity.to_dict(), "notes": list(notes)}


def _annotate(model: onnx_package.ModelProto, spec: Spec) -> None:
    """Puts the spec among the metadata of a model, and who wrote it."""
    model.producer_name, model.producer_version = "kerastoolkit", __version__
    model.doc_string = f"{spec.name}: {', '.join(one.name for one in spec.outputs)}"
    require("onnx").helper.set_model_props(model, {KEY: spec.to_json()})
