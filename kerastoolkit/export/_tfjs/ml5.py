"""Three files for ml5, the library of many courses on machine learning in browsers: model.json, model.weights.bin and
model_meta.json, which `ml5.neuralNetwork().load` takes.

ml5 1.0 hands numbers to one network and names what comes out; nothing can stand before or behind. So whatever an
estimator does to its numbers, and to the output of its network, has to be a weighted sum: then it becomes two more
layers. What is not is refused by name.

It also reads names from the keys of JSON objects, and JavaScript lists keys that look like whole numbers first, in
ascending order. Labels are put into that order here.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import (
    Add,
    Affine,
    ArgMax,
    Cast,
    Concatenate,
    FillMissing,
    Graph,
    IsMissing,
    Lookup,
    MatMul,
    Network,
    Node,
    Normalize,
    Reshape,
    Standardize,
    Take,
    Value,
)
from kerastoolkit.export._spec import OutputSpec, Spec
from kerastoolkit.export._subject import Subject

if TYPE_CHECKING:
    import keras

WEIGHTS, META = "model.weights.bin", "model_meta.json"
# Weighted sums, as long as nothing is missing.
_SUMS = (Add, Affine, Cast, Concatenate, FillMissing, IsMissing, MatMul, Reshape, Standardize, Take)


def refuse(why: str) -> NoReturn:
    """Says why ml5 cannot hold a model, and what can."""
    raise ExportError(f"ml5 cannot hold this model: {why}. Leave out `ml5=True`. Nothing was written.")


def subject_for_ml5(subject: Subject) -> Subject:
    """The same model as a network alone, from numbers to probabilities or numbers.

    Raises:
        ExportError: It does more than weighted sums before or behind its network, or takes or answers something else
            than numbers and labels.
    """
    spec, graph = subject.spec, subject.graph
    names = column_names(spec)
    answer = _answer_of(spec)
    networks = [node for node in graph.nodes if isinstance(node.operation, Network)]
    if len(networks) != 1 or len(networks[0].outputs) != 1:
        refuse("it has several networks, or one with several outputs")
    (node,) = networks
    place = graph.nodes.index(node)
    for one in graph.nodes[:place]:
        _check_sum(one)
    before = [_sum_of(graph.inputs, graph.nodes[:place], value) for value in node.inputs]
    wanted = graph.outputs[answer.name]
    behind = _sum_of(node.outputs, _needed(graph, wanted, node), wanted)
    order = _in_order_of_keys([str(label) for label in answer.classes]) if answer.classes else None
    model = _composed(node.operation.model, len(names), before, behind, order)  # type: ignore[attr-defined]
    inputs = tuple(dataclasses.replace(one, may_be_missing=False) for one in spec.inputs)
    outputs = tuple(one for one in spec.outputs if one.kind in ("label", "probabilities", "number"))
    made = Graph()
    values = [made.input(one.name, one.dtype, one.shape) for one in graph.inputs]
    _add_network(made, model, values, answer, order, outputs)
    new = dataclasses.replace(spec, inputs=inputs, outputs=outputs)
    return dataclasses.replace(subject, graph=made, spec=new)


def column_names(spec: Spec) -> tuple[str, ...]:
    """Names of the numbers of a row.

    Raises:
        ExportError: A row holds something else, or names of which JavaScript changes the order.
    """
    only = spec.inputs[0]
    if len(spec.inputs) == 1 and only.kind == "array" and len(only.shape) == 1 and only.shape[0] is not None:
        names = only.features or tuple(f"x{place}" for place in range(only.shape[0]))
    else:
        odd = [one for one in spec.inputs if one.kind != "number"]
        if odd:
            refuse(f"it takes {odd[0].name!r}, of kind {odd[0].kind!r}, and ml5 takes numbers")
        names = tuple(one.name for one in spec.inputs)
    if _in_order_of_keys(names) != list(range(len(names))):
        refuse(f"its columns {list(names)} have names that JavaScript puts in another order; rename them")
    return names


def write_meta(folder: Path, spec: Spec) -> None:
    """Writes what ml5 reads of names and labels."""
    names, answer = column_names(spec), _answer_of(spec)
    numbers = {"dtype": "number", "min": 0, "max": 1}
    if answer.classes:
        labels = [str(answer.classes[place]) for place in _in_order_of_keys([str(one) for one in answer.classes])]
        legend = {label: row for label, row in zip(labels, np.eye(len(labels), dtype=int).tolist(), strict=True)}
        outputs: dict[str, Any] = {"label": {"dtype": "string", "legend": legend, "uniqueValues": labels}}
        units = len(labels)
    else:
        units = answer.shape[0] or 1 if answer.shape else 1
        outputs = {answer.name if units == 1 else f"{answer.name}_{n}": numbers for n in range(units)}
    meta = {
        "inputUnits": [len(names)],
        "outputUnits": units,
        "inputs": dict.fromkeys(names, numbers),
        "outputs": outputs,
        "isNormalized": False,
    }
    (folder / META).write_text(json.dumps(meta, allow_nan=False, ensure_ascii=False), encoding="utf-8")


def _answer_of(spec: Spec) -> OutputSpec:
    """Probabilities of one target, or numbers."""
    found = [one for one in spec.outputs if one.kind in ("probabilities", "number")]
    if len(found) != 1 or any(one.kind == "labels" for one in spec.outputs) or len(found[0].shape) > 1:
        refuse("it answers neither the probabilities of one label nor numbers")
    return found[0]


def _in_order_of_keys(names: Sequence[str]) -> list[int]:
    """The order in which JavaScript lists keys."""
    whole = [
        place for place, name in enumerate(names) if re.fullmatch(r"0|[1-9]\d{0,9}", name) and int(name) < 2**32 - 1
    ]
    return sorted(whole, key=lambda place: int(names[place])) + [p for p in range(len(names)) if p not in whole]


# -- weighted sums --------------------------------------------------------------------------------------------------


def _check_sum(node: Node) -> None:
    if not isinstance(node.operation, _SUMS):
        refuse(f"it computes {type(node.operation).__name__!r} beside its network, which is no weighted sum")


def _is_share(node: Node) -> bool:
    """Whether it divides probabilities by their sum: behind a softmax that is 1. The comparison finds if it is not."""
    return isinstance(node.operation, Normalize) and node.operation.norm == "l1"


def _needed(graph: Graph, wanted: Value, network: Node) -> list[Node]:
    """The nodes from a network to a value."""
    names, found = {wanted.name}, []
    for node in reversed(graph.nodes):
        if node is not network and any(value.name in names for value in node.outputs):
            if not _is_share(node):
                _check_sum(node)
            found.append(node)
            names |= {value.name for value in node.inputs}
    return found[::-1]


def _sum_of(given: Sequence[Value], nodes: Sequence[Node], wanted: Value) -> tuple[NDArray[Any], NDArray[Any]]:
    """The matrix and the offset by which a value comes from numbers: computed for no number, and for each number 1."""
    sizes = [int(np.prod([size or 1 for size in value.shape], dtype=int)) for value in given]
    rows = np.vstack([np.zeros(sum(sizes)), np.eye(sum(sizes))])
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    known = {
        value.name: part.reshape(len(rows), *(size or 1 for size in value.shape))
        for value, part in zip(given, parts, strict=True)
    }
    for node in nodes:
        arrays = [known[value.name] for value in node.inputs]
        is_float = isinstance(node.operation, Cast) and node.operation.dtype.startswith("float")
        known[node.outputs[0].name] = arrays[0] if is_float or _is_share(node) else node.operation.compute(*arrays)
    made = known[wanted.name].reshape(len(rows), -1).astype("float64")
    return made[1:] - made[0], made[0]


def _composed(
    network: keras.Model,
    n_numbers: int,
    before: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    behind: tuple[NDArray[Any], NDArray[Any]],
    order: Sequence[int] | None,
) -> keras.Model:
    """The network between its two sums. Numbers are scaled first: sums of large ones would lose their last digits."""
    import keras

    mean, scale = np.zeros(n_numbers), np.ones(n_numbers)
    for matrix, offset in before:
        for number in range(n_numbers):
            alone = [j for j in np.flatnonzero(matrix[number]) if np.count_nonzero(matrix[:, j]) == 1]
            if alone:
                scale[number] = 1 / abs(matrix[number, alone[0]])
                mean[number] = -offset[alone[0]] / matrix[number, alone[0]]
    x = inputs = keras.Input((n_numbers,))
    if (mean != 0).any() or (scale != 1).any():
        x = keras.layers.Normalization(mean=mean, variance=scale**2)(inputs)
    given = []
    for (matrix, offset), one in zip(before, network.inputs, strict=True):
        part = _dense(x, matrix * scale[:, None], offset + mean @ matrix)
        shape = tuple(one.shape[1:])
        given.append(part if shape == tuple(part.shape[1:]) else keras.layers.Reshape(shape)(part))
    made = network(given if len(given) > 1 else given[0])
    made = keras.layers.Flatten()(made) if len(made.shape) > 2 else made
    matrix, offset = behind
    places = slice(None) if order is None else list(order)
    return keras.Model(inputs, _dense(made, matrix[:, places], offset[places]))


def _dense(x: Any, matrix: NDArray[Any], offset: NDArray[Any]) -> Any:
    import keras

    matrix, offset = matrix.astype("float32"), offset.astype("float32")
    is_same = matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, np.eye(len(matrix)), rtol=0, atol=1e-7)
    if is_same and np.abs(offset).max() < 1e-7:
        return x
    layer = keras.layers.Dense(matrix.shape[1])
    made = layer(x)
    layer.set_weights([matrix, offset])
    return made


def _add_network(
    graph: Graph,
    model: keras.Model,
    values: Sequence[Value],
    answer: OutputSpec,
    order: Sequence[int] | None,
    outputs: Sequence[OutputSpec],
) -> None:
    """The network as a graph of its own, to be compared."""
    columns = [value if value.shape else graph.add(Reshape((1,)), value) for value in values]
    columns = [graph.add(Cast("float32"), value) for value in columns]
    row = columns[0] if len(columns) == 1 else graph.add(Concatenate(), *columns)
    (made,) = graph.add_network(Network(model), row)
    if order is not None:
        made = graph.add(Take(tuple(int(place) for place in np.argsort(order))), made)
    graph.outputs[answer.name] = made if answer.shape else graph.add(Reshape(()), made)
    for one in outputs:
        if one.kind == "label":
            table = np.array(list(answer.classes), dtype=object if isinstance(answer.classes[0], str) else None)
            graph.outputs[one.name] = graph.add(Lookup(table), graph.add(ArgMax(), made))
