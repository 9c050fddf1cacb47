"""What a format cannot compute is left outside of its file, which then says what that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import Graph, Node, Operation, Parts


def cut(graph: Graph, can: Callable[[Node], bool]) -> Parts:
    """A graph cut for a target that computes its networks.

    Args:
        graph: The graph.
        can: Whether the target can compute a node.

    Raises:
        ExportError: A network needs what only the outside can compute of another one.
    """
    parts = graph.split(can)
    if parts.before.networks or parts.behind.networks:
        raise ExportError("A network in the model takes what the format cannot compute. Export to ONNX instead.")
    return parts


def notes_of(parts: Parts) -> list[str]:
    """What is computed outside of the file, as sentences."""
    notes = []
    for value in parts.inside.inputs:
        if value.name in parts.before.outputs:
            shape = f" of shape {value.shape}" if value.shape else ""
            steps = ", ".join(dict.fromkeys(type(node.operation).__name__ for node in parts.before.nodes))
            notes.append(f"The file takes {value.name!r} as {value.dtype}{shape}, which {steps} makes outside of it.")
    for name, value in parts.behind.outputs.items():
        made = next((node for node in parts.behind.nodes if value in node.outputs), None)
        if made is not None:
            notes.append(f"{name!r} is made outside of the file, of {made.inputs[0].name!r}.")
    return notes


def described(parts: Parts) -> dict[str, Any]:
    """What has to be computed before and behind a file as plain values, for JSON."""
    return {"before": _as_dict(parts.before), "behind": _as_dict(parts.behind)}


def _as_dict(graph: Graph) -> dict[str, Any]:
    return {
        "inputs": [value._asdict() for value in graph.inputs],
        "nodes": [
            {
                "operation": type(node.operation).__name__,
                **_fields_of(node.operation),
                "inputs": [value.name for value in node.inputs],
                "output": node.outputs[0].name,
            }
            for node in graph.nodes
        ],
        "outputs": {name: value.name for name, value in graph.outputs.items()},
    }


def _fields_of(operation: Operation) -> dict[str, Any]:
    fields = dataclasses.fields(operation)  # type: ignore[arg-type]
    return {one.name: _plain(getattr(operation, one.name)) for one in fields}


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(map(_plain, value)) if isinstance(value, (tuple, list)) else value
