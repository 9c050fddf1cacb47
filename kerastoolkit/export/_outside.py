"""What formats with a converter of their own have in common: what they cannot compute is left outside of the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import (
    CategoryIndex,
    Concatenate,
    FillMissing,
    Graph,
    Node,
    Operation,
    Parts,
    Reshape,
    Take,
    Value,
)
from kerastoolkit.export._parity import EXACT

# How far a converter's rounding takes answers: it joins multiplications and additions, and deep networks add up what
# that changes. Raw numbers much larger than their spread do the same.
ROUNDED = EXACT._replace(probabilities=1e-4, numbers=1e-4)


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
        raise ExportError(
            "A network in the model takes texts, or what else the format cannot compute. `saved_model` can."
        )
    return parts


def by_column(graph: Graph) -> Graph:
    """The graph with each text taken from the column that it comes from, and its gaps filled where it becomes a number.

    Pipelines put columns side by side, fill their gaps and take them apart again, and few formats can do that to texts.
    """
    made = Graph()
    made.inputs, made.outputs, made._n_values = list(graph.inputs), dict(graph.outputs), graph._n_values
    columns = {value.name: [_Column(value)] for value in graph.inputs if value.dtype == "string" and not value.shape}
    for node in graph.nodes:
        operation, given = node.operation, [columns.get(value.name) for value in node.inputs]
        of_columns = _columns_of(operation, [one for one in given if one is not None]) if all(given) else None
        if of_columns is not None:
            columns[node.outputs[0].name] = of_columns
        if isinstance(operation, CategoryIndex) and given[0] is not None and len(given[0]) == 1:
            (column,) = given[0]
            if column.fill is not None:
                (index,) = operation.compute(np.array([column.fill], dtype=object)).tolist()
                operation = dataclasses.replace(operation, missing=index)
            number = made.add(operation, column.value)
            made.nodes.append(Node(Reshape(_known(node.outputs[0].shape)), (number,), node.outputs))
        else:
            made.nodes.append(node)
    made.prune()
    return made


class _Column(NamedTuple):
    """A column of texts: the raw input that it is, and what stands in its gaps."""

    value: Value
    fill: str | None = None


def _columns_of(operation: Operation, given: Sequence[list[_Column]]) -> list[_Column] | None:
    """The columns that an operation makes of columns; None where they are no longer columns of texts."""
    if isinstance(operation, Reshape) and len(operation.shape) < 2:
        return given[0]
    if isinstance(operation, Concatenate):
        return [column for columns in given for column in columns]
    if isinstance(operation, Take):
        return [given[0][place] for place in operation.places]
    if isinstance(operation, FillMissing):
        fills = np.broadcast_to(operation.values, (len(given[0]),)).tolist()
        return [
            column if column.fill is not None else column._replace(fill=fill)
            for column, fill in zip(given[0], fills, strict=True)
        ]
    return None


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)


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
