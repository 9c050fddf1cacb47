"""A network as the files of TensorFlow.js: `model.json` and its weights in shards; and how they are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._copies import copied_model
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._tfjs.layers import rule_for
from kerastoolkit.export._tfjs.topology import OURS, Topology

if TYPE_CHECKING:
    import keras

Precision: TypeAlias = Literal["float32", "float16"]

_SHARD = 4 * _files.MEBIBYTE  # what browsers keep in their caches
_WRITER = "kerastoolkit.export.tfjs"
GENERATED_BY = "kerastoolkit"  # says in model.json that we wrote it


class WrittenNetwork:
    """A network and its files.

    Args:
        model: The network.
        name: Of its file, such as `"model.json"`.

    Attributes:
        name: Of its file.
        dtypes: Of its inputs in TensorFlow.js.
        has_own_layers: Whether it needs the layers that `kerastoolkit.js` registers.
        has_exponential: Whether one of its activations is the exponential function.

    Raises:
        ExportError: TensorFlow.js cannot hold it.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        self.model, self.name = model, name
        self._topology = Topology(model, rule_for)
        self.dtypes = self._topology.dtypes
        self.has_own_layers = any(kind.startswith(OURS) for kind in self._topology.kinds)
        self.has_exponential = self._topology.has_function("exponential")

    def write(self, folder: Path, dtype: Precision) -> None:
        """Writes `model.json` and the shards."""
        entries, parts = [], []
        for weight in self._topology.weights:
            value = weight.read()
            entry: dict[str, Any] = {"name": weight.name, "shape": list(value.shape), "dtype": "float32"}
            if dtype == "float16" and not weight.exact:
                entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
                parts.append(_in_16_bits(weight.name, value).tobytes())
            else:
                parts.append(value.astype("<f4").tobytes())
            entries.append(entry)
        paths = _write_shards(folder, self.name.removesuffix(".json"), b"".join(parts))
        content = {
            "format": "layers-model",
            "generatedBy": GENERATED_BY,
            "convertedBy": None,
            "modelTopology": self._topology.to_dict(),
            "weightsManifest": [{"paths": paths, "weights": entries}],
        }
        (folder / self.name).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    def read(self, folder: Path) -> keras.Model:
        """A copy of the network with the weights of the files.

        Raises:
            ExportError: The files hold other numbers than were to be written.
        """
        arrays = read_weights(folder / self.name)
        copy = copied_model(self.model)
        for weight in Topology(copy, rule_for).weights:
            if weight.variable is not None and not weight.exact:
                weight.variable.assign(arrays[weight.name])
            elif not np.array_equal(weight.read(), arrays[weight.name], equal_nan=True):
                raise ExportError(
                    f"The weights {weight.name!r} were read back with other numbers. Nothing was written."
                )
        return copy


def _in_16_bits(name: str, value: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        made = value.astype("<f2")
    if not np.isfinite(made[np.isfinite(value)]).all():
        raise ExportError(
            f"The weights {name!r} reach {np.abs(value).max():.3g}, and 16 bits hold 65504 at most. Use "
            "`dtype='float32'`. Nothing was written."
        )
    return made


def _write_shards(folder: Path, name: str, content: bytes) -> list[str]:
    n_shards = max(-(-len(content) // _SHARD), 1)
    paths = [f"{name}-shard{number}of{n_shards}.bin" for number in range(1, n_shards + 1)]
    for number, path in enumerate(paths):
        (folder / path).write_bytes(content[number * _SHARD : (number + 1) * _SHARD])
    return paths


def put_together(path: Path, target: Path, weights: str) -> None:
    """Copies a network with its shards as one file.

    Args:
        path: The network.
        target: The copy, in another folder.
        weights: Name of the file of its weights, beside it.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    (manifest,) = content["weightsManifest"]
    (target.parent / weights).write_bytes(b"".join((path.parent / one).read_bytes() for one in manifest["paths"]))
    manifest["paths"] = [weights]
    target.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Weights by name, from the `model.json` and its shards that `WrittenNetwork.write` wrote.

    Raises:
        SavedFileError: The files are damaged.
    """
    with _files.refusing(path, _WRITER):
        manifest = _files.read_json(_files.read_small(path), path.name)["weightsManifest"][0]
        content = b"".join((path.parent / Path(one).name).read_bytes() for one in manifest["paths"])
        arrays, place = {}, 0
        for entry in manifest["weights"]:
            kind = np.dtype("<f2" if "quantization" in entry else "<f4")
            n_bytes = int(np.prod(entry["shape"], dtype="int64")) * kind.itemsize
            values = np.frombuffer(content[place : place + n_bytes], kind).reshape(entry["shape"])
            arrays[entry["name"]] = values.astype("float32")
            place += n_bytes
        if place != len(content):
            raise ValueError(f"the weights take {place} bytes, and the shards have {len(content)}")
    return arrays
