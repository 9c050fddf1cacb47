"""Take a model anywhere: raw input to label in one file, compared with the model before it is handed over.

    onnx          one ONNX file, which `load` runs with onnxruntime alone: no TensorFlow, no Keras, no scikit-learn
    litert        one LiteRT (TensorFlow Lite) file for phones and small devices, quantized if wanted
    tfjs          a folder for TensorFlow.js with a page that predicts
    saved_model   TensorFlow's format, for TensorFlow Serving
    openvino      Intel's format

Each takes a fitted estimator, a scikit-learn pipeline or search around one, an experiment or a Keras model, and returns
a `Report`. Nothing is written unless the file answers as the model does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerastoolkit.export._litert import litert
    from kerastoolkit.export._onnx import onnx
    from kerastoolkit.export._openvino import openvino
    from kerastoolkit.export._report import Report
    from kerastoolkit.export._runtime import OnnxModel, load
    from kerastoolkit.export._saved_model import saved_model
    from kerastoolkit.export._tfjs import tfjs

__all__ = ["OnnxModel", "Report", "litert", "load", "onnx", "openvino", "saved_model", "tfjs"]

# Loaded when first used: `load` works where neither Keras nor scikit-learn is installed.
_HOME = {
    "OnnxModel": "_runtime",
    "Report": "_report",
    "litert": "_litert",
    "load": "_runtime",
    "onnx": "_onnx",
    "openvino": "_openvino",
    "saved_model": "_saved_model",
    "tfjs": "_tfjs",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
