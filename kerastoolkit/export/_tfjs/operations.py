"""The graph before and behind the networks as JSON, which `kerastoolkit.js` computes; and the same read back.

An operation is written by its name and its fields. Arrays become `{"dtype", "shape", "data"}`, where what JSON has no
number for is text: `"NaN"`, `"Infinity"`, `"-Infinity"`. A test holds the operations of the JavaScript against those of
`_graph.py`, and an operation that the JavaScript does not know is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _graph
from kerastoolkit.export._graph import Graph, Network, Node, Operation, Value

if TYPE_CHECKING:
    import keras

# What kerastoolkit.js computes; those beyond are refused by name.
KNOWN = (
    "Above", "Add", "Affine", "ArgMax", "Bin", "Cast", "CategoryIndex", "Clip", "Concatenate", "CumulativeMin",
    "FillMissing", "Function", "Interpolate", "IsMissing", "Lookup", "MatMul", "Multiply", "Normalize", "Polynomial",
    "RepeatChannels", "Reshape", "ResizeImages", "Softmax", "Standardize", "Sum", "Take", "TokenIds", "WordCounts",
    "YeoJohnson",
)  # fmt: skip

_LARGEST_WHOLE = 2**53  # beyond, JavaScript's numbers skip some


def check(graph: Graph) -> None:
    """Refuses what the JavaScript cannot compute.

    Raises:
        ExportError: An operation is unknown to it, or a number has no place in JavaScript; the message names it.
    """
    for node in graph.nodes:
        name = type(node.operation).__name__
        if name != "Network" and name not in KNOWN:
            raise ExportError(
                f"The step {name!r} is not among those that TensorFlow.js exports compute. Use `export.onnx`: ONNX "
                "files run in browsers as well, by onnxruntime-web. Nothing was written."
            )


def to_json(graph: Graph, networks: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """A graph as plain values.

    Args:
        graph: The graph.
        networks: For each network its file, and the types of its inputs in TensorFlow.js.
    """
    left = list(networks)
    nodes = []
    for node in graph.nodes:
        if isinstance(node.operation, Network):
            path, dtypes = left.pop(0)
            fields: dict[str, Any] = {"path": path, "dtypes": list(dtypes)}
        else:
            fields = {
                one.name: _plain(getattr(node.operation, one.name))
                for one in dataclasses.fields(node.operation)  # type: ignore[arg-type]
            }
        nodes.append(
            {
                "operation": type(node.operation).__name__,
                "fields": fields,
                "inputs": [one.name for one in node.inputs],
                "outputs": [_value(one) for one in node.outputs],
            }
        )
    return {
        "inputs": [_value(one) for one in graph.inputs],
        "nodes": nodes,
        "outputs": {name: value.name for name, value in graph.outputs.items()},
    }


def _value(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": list(value.shape)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return array_to_json(value)
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    made = _number(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, (float, np.floating)) and isinstance(made, str):
        raise ExportError(f"{value} as a setting of a step cannot be exported to TensorFlow.js. Nothing was written.")
    return made


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
        raise ExportError(
            f"{value} is a whole number that JavaScript cannot hold. Use `export.onnx`, or text as labels and "
            "categories. Nothing was written."
        )
    return value


def array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    """An array as plain values."""
    dtype = "string" if array.dtype.kind in "OU" else array.dtype.name
    values = [_number(one.item() if isinstance(one, np.generic) else one) for one in array.ravel().tolist()]
    if dtype == "string" and not all(isinstance(one, str) for one in values):
        raise ExportError("Labels of several types at once cannot be exported to TensorFlow.js. Nothing was written.")
    return {"dtype": dtype, "shape": list(array.shape), "data": values}


def array_from_json(content: Mapping[str, Any]) -> NDArray[Any]:
    """What `array_to_json` made plain."""
    is_text = content["dtype"] == "string"
    values = content["data"] if is_text else [float(one) if isinstance(one, str) else one for one in content["data"]]
    made = np.empty(len(values), object) if is_text else np.array(values, content["dtype"])
    if is_text:
        made[:] = values
    return made.reshape(content["shape"])


# -- read back ------------------------------------------------------------------------------------------------------


def from_json(content: Mapping[str, Any], models: Mapping[str, keras.Model]) -> Graph:
    """The graph that `to_json` made plain, with the networks given by their files."""
    graph = Graph()
    values = {one["name"]: _value_from(one) for one in content["inputs"]}
    graph.inputs = list(values.values())
    for node in content["nodes"]:
        fields = node["fields"]
        kind: type[Operation] = getattr(_graph, node["operation"])
        made = Network(models[fields["path"]]) if kind is Network else kind(**{k: _read(v) for k, v in fields.items()})
        outputs = tuple(map(_value_from, node["outputs"]))
        values |= {one.name: one for one in outputs}
        graph.nodes.append(Node(made, tuple(values[name] for name in node["inputs"]), outputs))
    graph.outputs = {name: values[value] for name, value in content["outputs"].items()}
    return graph


def _value_from(content: Mapping[str, Any]) -> Value:
    return Value(content["name"], content["dtype"], tuple(content["shape"]))


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return array_from_json(value)
    return tuple(map(_read, value)) if isinstance(value, list) else value
