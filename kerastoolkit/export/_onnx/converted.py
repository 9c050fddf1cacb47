"""Converts by tf2onnx what is not written here: layers that compute by functions of TensorFlow itself."""

from __future__ import annotations

from kerastoolkit.export._onnx.network import Call, Tensor


def by_tf2onnx(call: Call) -> list[Tensor] | None:
    """Writes a call of a layer as tf2onnx converts it; None if it cannot, or is not installed, or on other backends."""
    return None
