"""What is served: an ONNX file, or a fitted object as one; what ONNX cannot hold as a graph with traced networks."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit.exceptions import ExportError, MissingPackageError
from kerastoolkit.export._runtime import OnnxModel
from kerastoolkit.export._spec import Spec

if TYPE_CHECKING:
    from kerastoolkit.export._graph import Network
    from kerastoolkit.export._subject import Subject

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A model as a server needs it.

    Attributes:
        spec: What it takes and answers.
        run: Answers by name, for arrays by input.
        digest: SHA-256 of the ONNX file; of the spec, where there is none.
        runtime: `"onnxruntime"`, or the backend of Keras.
        content: The ONNX file, where there is one.
        note: Why it runs with Keras, where it does.
    """

    spec: Spec
    run: Callable[[Arrays], dict[str, NDArray[Any]]]
    digest: str
    runtime: str
    content: bytes | None = None
    note: str | None = None


def served_model(source: Any) -> ServedModel:
    """Gets a model ready to be served.

    Args:
        source: The path of an ONNX file of ours; an `OnnxModel`; or what `export.onnx` takes, which is exported first.

    Raises:
        ExportError: It can neither be exported nor be served with Keras.
        FileNotFoundError, SavedFileError: There is no such file, or it is damaged.
    """
    if isinstance(source, ServedModel):
        return source
    if isinstance(source, OnnxModel):
        return _of_onnx(source, None)
    if isinstance(source, (str, Path)) and (Path(source).suffix.lower() == ".onnx" or not Path(source).exists()):
        content = _files.regular_file(source).read_bytes()
        return _of_onnx(OnnxModel(content, source), content)
    try:
        content = _exported(source)
    except ExportError as error:
        return _with_keras(source, error)
    return _of_onnx(OnnxModel(content), content)


def _of_onnx(model: OnnxModel, content: bytes | None) -> ServedModel:
    return ServedModel(model.spec, model.run, model.digest, "onnxruntime", content)


def _exported(source: Any) -> bytes:
    from kerastoolkit import export

    try:
        write = export.onnx
    except ModuleNotFoundError as error:
        if isinstance(error, MissingPackageError):
            raise
        raise MissingPackageError(
            f"To serve what is no ONNX file needs the package {error.name}, which is not installed. Export it where it "
            "was trained (kerastoolkit export MODEL model.onnx), and serve that file.",
            name=error.name,
        ) from error
    with tempfile.TemporaryDirectory(prefix="kerastoolkit-") as folder:
        path = Path(folder) / "model.onnx"
        write(source, path)
        return path.read_bytes()


def _with_keras(source: Any, error: Exception) -> ServedModel:
    import keras

    from kerastoolkit.export._parity import compare
    from kerastoolkit.export._subject import subject_of

    subject = subject_of(source)
    run = _traced(subject)
    # What kept it from ONNX may be that its graph answers unlike the model, which no server may do either.
    compare(subject, run, what="The served graph")
    digest = hashlib.sha256(subject.spec.to_json().encode()).hexdigest()
    note = f"It is served with Keras instead of onnxruntime, which takes more time and memory: {error}"
    return ServedModel(subject.spec, run, digest, keras.config.backend(), None, note)


def _traced(subject: Subject) -> Callable[[Arrays], dict[str, NDArray[Any]]]:
    """The graph with NumPy, and each network as one compiled function."""
    from kerastoolkit.export._graph import Network

    graph = subject.graph
    functions = [_compiled(node.operation) for node in graph.nodes if isinstance(node.operation, Network)]

    def run(arrays: Arrays) -> dict[str, NDArray[Any]]:
        n_rows = len(next(iter(arrays.values())))
        # A power of two, so that a compiler that compiles for each number of rows does so a few times only.
        padded = 1 << max(n_rows - 1, 0).bit_length()
        places = np.minimum(np.arange(padded), n_rows - 1)
        known = {value.name: np.asarray(arrays[value.name])[places] for value in graph.inputs}
        networks = iter(functions)
        with np.errstate(all="ignore"):
            for node in graph.nodes:
                given = [known[value.name] for value in node.inputs]
                made = (
                    next(networks)(given) if isinstance(node.operation, Network) else [node.operation.compute(*given)]
                )
                known.update({value.name: array for value, array in zip(node.outputs, made, strict=True)})
        return {name: known[value.name][:n_rows] for name, value in graph.outputs.items()}

    return run


def _compiled(network: Network) -> Callable[[list[NDArray[Any]]], list[NDArray[Any]]]:
    """One network as a function of arrays, compiled where the backend compiles."""
    import keras

    from kerastoolkit.export._graph import single_precision

    def call(*tensors: Any) -> list[Any]:
        return network.call(tensors)

    backend = keras.config.backend()
    compiled: Callable[..., list[Any]] = call
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(call, reduce_retracing=True)
    elif backend == "jax":
        import jax

        compiled = jax.jit(call)
    takes = [str(one.dtype) for one in network.model.inputs]
    gives = [single_precision(str(one.dtype)) for one in network.model.outputs]

    def run(given: list[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = [keras.ops.convert_to_tensor(array, dtype) for array, dtype in zip(given, takes, strict=True)]
        if backend == "torch":
            import torch

            with torch.inference_mode():
                made = compiled(*tensors)
        else:
            made = compiled(*tensors)
        return [
            np.asarray(keras.ops.convert_to_numpy(one)).astype(dtype) for one, dtype in zip(made, gives, strict=True)
        ]

    return run
