"""A trained model behind a URL, without TensorFlow in the server where the model can be written as an ONNX file.

    serve     runs a server; the same as `kerastoolkit serve FILE`
    app       the ASGI application, to run or mount it yourself
    Client    asks a server: `predict` and `predict_proba` on tables, arrays and lists

A server answers rows as JSON at `/predict`, and speaks the REST protocol of TensorFlow Serving and the Open Inference
Protocol as well. Whatever it is sent is checked against what the model takes before the model sees it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerastoolkit.serving._app import app
    from kerastoolkit.serving._client import Client
    from kerastoolkit.serving._server import serve

__all__ = ["Client", "app", "serve"]

# Loaded when first used: a client needs no server, and neither needs Keras.
_HOME = {"Client": "_client", "app": "_app", "serve": "_server"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
