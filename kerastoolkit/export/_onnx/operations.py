"""Writes the operations of a graph as nodes of ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import Node
from kerastoolkit.export._onnx.writer import Writer


def write_operation(writer: Writer, node: Node, inputs: Sequence[str]) -> str:
    """Writes an operation that is not a network.

    Args:
        writer: What the nodes are added to.
        node: The operation; `node.inputs` and `node.outputs` say types and shapes.
        inputs: What the inputs are called in the ONNX graph.

    Returns:
        What the output is called in the ONNX graph.

    Raises:
        ExportError: ONNX has no words for it.
    """
    name = type(node.operation).__name__
    raise ExportError(f"An ONNX file cannot hold the operation {name}. `saved_model` can.")
