"""Runs TensorFlow's converter to LiteRT, as a program of its own: `python -m kerastoolkit.export._converting FOLDER`.

The converter is C++ that ends its process on some networks. The folder holds a SavedModel (`saved_model`) and what is
wanted (`request.json`, `rows.npz`); the files are written beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODEL, REQUEST, ROWS, FLOAT32, QUANTIZED = "saved_model", "request.json", "rows.npz", "float32.tflite", "small.tflite"
NETWORK = "network"  # begins the names of all tensors of a network


def convert(folder: Path) -> None:
    """Writes the file in float32, and the quantized one if one is wanted."""
    import tensorflow as tf

    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    exact = tf.lite.TFLiteConverter.from_saved_model(str(folder / MODEL)).convert()
    (folder / FLOAT32).write_bytes(exact)
    if request["quantize"] == "float16":
        (folder / QUANTIZED).write_bytes(in_float16(exact))
    elif request["quantize"] is not None:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / MODEL))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        is_int8 = request["quantize"] == "int8"
        made = _in_int8(converter, folder, request["inputs"]) if is_int8 else converter.convert()
        (folder / QUANTIZED).write_bytes(made)


def _in_int8(converter: Any, folder: Path, names: list[str]) -> bytes:
    """int8 from the first layer with weights on, scaled by rows; what reads and what decodes stays in float32.

    A tensor in int8 has one scale for all columns, and raw columns are of any size.
    """
    import numpy as np
    import tensorflow as tf

    with np.load(folder / ROWS, allow_pickle=False) as file:
        rows = {name: file[f"input_{place}"] for place, name in enumerate(names)}
    rows = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in rows.items()}

    def samples() -> Iterator[dict[str, Any]]:
        for row in range(len(next(iter(rows.values())))):
            yield {name: array[row : row + 1] for name, array in rows.items()}

    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    outside = _outside_of_int8((folder / FLOAT32).read_bytes())
    if not outside:
        made: bytes = converter.convert()
        return made
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=outside)
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
    left: bytes = debugger.get_nondebug_quantized_model()
    return left


_LAYERS = ("BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def _names_of_operations(model: Any) -> list[str]:
    from tensorflow.lite.python import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return [names[max(one.builtinCode, one.deprecatedBuiltinCode)] for one in model.operatorCodes]


def _outside_of_int8(content: bytes) -> list[str]:
    """Names of tensors that come before the first layer with weights, or from outside of the networks."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = _names_of_operations(model)
    graph = model.subgraphs[0]
    behind: set[int] = set()
    outside = []
    for one in graph.operators:
        kind = names[one.opcodeIndex]
        if kind in _LAYERS or behind.intersection(one.inputs):
            behind.update(one.outputs)
        for place in one.outputs:
            inside = _is_of_network(graph.tensors[place].name)
            if not inside or (kind != "GATHER" and place not in behind):
                outside.append(graph.tensors[place].name.decode())
    return outside


def _is_of_network(name: bytes) -> bool:
    return any(part.startswith(NETWORK) for part in name.decode().split(";"))


_MIN_WEIGHTS = 256  # smaller tensors stay as they are


def in_float16(content: bytes) -> bytes:
    """A file with the weights of its layers in half precision.

    The converter's own float16 takes all numbers, those of the readers as well: a mean of 4,200 is off by 2 then.
    """
    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = _names_of_operations(model)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that takes float16
    model.operatorCodes.append(code)
    halves: dict[int, int] = {}
    for graph in model.subgraphs:
        for place in _weights(model, graph, names):
            tensor = graph.tensors[place]
            if tensor.buffer not in halves:
                data = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4")
                with np.errstate(over="ignore"):
                    half = data.astype("<f2")
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(half.tobytes(), "uint8")
                model.buffers.append(buffer)
                halves[tensor.buffer] = len(model.buffers) - 1
            stored = schema.TensorT()
            stored.name, stored.shape = tensor.name + b"_float16", tensor.shape
            stored.type, stored.buffer = schema.TensorType.FLOAT16, halves[tensor.buffer]
            graph.tensors.append(stored)
            tensor.buffer = 0
            step = schema.OperatorT()
            step.opcodeIndex = len(model.operatorCodes) - 1
            step.inputs, step.outputs = [len(graph.tensors) - 1], [place]
            graph.operators.insert(0, step)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    for number in set(halves) - used:
        model.buffers[number].data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _weights(model: Any, graph: Any, names: list[str]) -> list[int]:
    """Tensors that are weights of layers or tables of embeddings."""
    from tensorflow.lite.python import schema_py_generated as schema

    found: dict[int, None] = {}
    for one in graph.operators:
        kind = names[one.opcodeIndex]
        is_table = kind == "GATHER" and _is_of_network(graph.tensors[one.outputs[0]].name)
        for place in one.inputs if kind in _LAYERS or is_table else ():
            tensor = graph.tensors[place]
            data = model.buffers[tensor.buffer].data if place >= 0 else None
            if data is not None and tensor.type == schema.TensorType.FLOAT32 and len(data) >= 4 * _MIN_WEIGHTS:
                found[int(place)] = None
    return list(found)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
