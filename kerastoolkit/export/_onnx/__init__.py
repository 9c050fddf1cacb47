"""One ONNX file from raw input to labels."""

from __future__ import annotations
