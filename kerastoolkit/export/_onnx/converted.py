"""Converts by tf2onnx what is not written here: layers that compute by functions of TensorFlow itself."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import Any

from kerastoolkit._optional import require
from kerastoolkit.export._onnx.network import Call, Mask, Tensor, known_dtype
from kerastoolkit.export._onnx.writer import OPSET


def by_tf2onnx(call: Call) -> list[Tensor] | None:
    """Writes a call of a layer as tf2onnx converts it; None if it cannot, or is not installed, or on other backends."""
    import keras

    if keras.config.backend() != "tensorflow" or importlib.util.find_spec("tf2onnx") is None:
        return None
    given = {name: value for name, value in call.arguments.items() if value is not None}
    parts = keras.tree.flatten(given)
    if any(isinstance(one, Mask) or not isinstance(one, Tensor) for one in parts):
        return None
    try:
        made = _converted(call.of, given, parts)
    except Exception:  # whatever tf2onnx and TensorFlow raise; the caller knows why it came here
        return None
    names = call.writer.include(made, [one.name for one in parts])
    if len(names) != len(call.outputs):
        return None
    outputs = []
    for name, like in zip(names, call.outputs, strict=True):
        dtype = known_dtype(like.dtype)
        same = dtype == str(like.dtype)
        outputs.append(Tensor(name if same else call.writer.cast(name, dtype), dtype, tuple(like.shape)))
    return outputs


def _converted(layer: Any, given: dict[str, Any], parts: list[Tensor]) -> Any:
    import keras
    import tensorflow

    tf2onnx = require("tf2onnx")
    signature = [tensorflow.TensorSpec(one.shape, one.dtype, f"in_{place}") for place, one in enumerate(parts)]

    @tensorflow.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def compute(*arrays: Any) -> Any:
        return keras.tree.flatten(layer(**keras.tree.pack_sequence_as(given, list(arrays))))

    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made, _ = tf2onnx.convert.from_function(compute, input_signature=signature, opset=OPSET)
    finally:
        logger.setLevel(level)
    require("onnx").checker.check_model(made)  # where it knows no counterpart, tf2onnx leaves what there was
    return made
