"""The one door to optional packages.

What is not needed by everybody is an extra of setup.cfg. A package behind an extra is imported by `require` alone,
inside the function that needs it, so that its absence is told when it matters: what needs it, and the line to type.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

from kerastoolkit.exceptions import MissingPackageError


class _Optional(NamedTuple):
    extra: str
    feature: str


# package -> the extra that installs it, and what it is for
_OPTIONAL = {
    "ai_edge_litert": _Optional(extra="litert", feature="Running a LiteRT file"),
    "fastapi": _Optional(extra="serve", feature="Serving a model"),
    "onnx": _Optional(extra="onnx", feature="Writing an ONNX file"),
    "onnxruntime": _Optional(extra="onnx", feature="Running an ONNX file"),
    "openvino": _Optional(extra="openvino", feature="OpenVINO"),
    "optuna": _Optional(extra="optuna", feature="OptunaSearchCV"),
    "polars": _Optional(extra="polars", feature="Working with polars data frames"),
    "prometheus_client": _Optional(extra="serve", feature="Counting requests"),
    "pyarrow": _Optional(extra="parquet", feature="Reading and writing Parquet files"),
    "tf2onnx": _Optional(extra="tf2onnx", feature="Converting a layer of functions of TensorFlow to ONNX"),
    "uvicorn": _Optional(extra="serve", feature="Serving a model"),
}


def require(name: str, feature: str | None = None) -> ModuleType:
    """Imports an optional package, or says how to get it.

    Args:
        name: The package as it is imported, one of the table above.
        feature: What needs it, as the beginning of a sentence, for example "Reading sales.parquet". Defaults to what
            the table says of the package.

    Returns:
        The imported package.

    Raises:
        MissingPackageError: If it is not installed; its cause is the import error. A package that is there but fails
            to import is another matter: that error rises as it is.
    """
    optional = _OPTIONAL[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingPackageError(
            f"{feature or optional.feature} needs the package {name}, which is not installed. "
            f'To install it: pip install "kerastoolkit[{optional.extra}]"',
            name=name,
        ) from error
