"""Weights from a file into a network, layer by layer, all or none; nothing of the file is trusted."""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._hdf5 import check_plain, max_text_bytes
from kerastoolkit.exceptions import ParameterError, SavedFileError
from kerastoolkit.transfer.zoo import Backbone

if TYPE_CHECKING:
    import h5py
    import keras

__all__ = ["copy_weights", "load_backbone_weights", "load_weights"]

Array: TypeAlias = NDArray[Any]

_MAX_BYTES = 2**33  # of all weights; the largest network of Keras, with all that an optimizer adds, has half of it
_MAX_NAME_BYTES = 2**28  # of the names of the weights of one layer


def load_weights(model: keras.Model, path: str | Path, *, name: str | None = None) -> None:
    """Loads the weights of every layer of a model from a file that may hold more than the model.

    Layers are found by name, and those that Keras named (`conv2d_5`) by their place among the layers of their kind, so
    that a file with a classifier on top fits a network without one.

    Only the weights of a `.keras` file are read; none of its layers is created. HDF5 has no checksums: a number that
    was changed on the way is not noticed as long as it is finite.

    Args:
        model: A built model; only its own layers count, not those of models inside it.
        path: A `.weights.h5` or `.keras` file, or an `.h5` file of older Keras, as Keras downloads them.
        name: What the message calls the model. Defaults to the name of the model.

    Raises:
        ParameterError: There is no such file, it is damaged or holds more than plain arrays, it holds no weights, or a
            layer of the model is missing from it, has another shape in it or numbers that are not finite; the message
            names the layers. Nothing is loaded then.
    """
    _assign(model, _stored_weights(Path(path)), f"`weights` is {str(path)!r}", name or model.name)


def _assign(model: keras.Model, stored: Mapping[str, list[Array]], source: str, name: str) -> None:
    """Puts arrays into layers, all or none."""
    wanted = [layer for layer in model.layers if layer.weights]
    found = _found_layers([layer.name for layer in wanted], stored)
    problems, values = [], []
    for layer in wanted:
        arrays = stored.get(found.get(layer.name, ""))
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if arrays is None:
            problems.append(f"{layer.name}: not in the file")
        elif [array.shape for array in arrays] != shapes:
            there = ", ".join(str(array.shape) for array in arrays) or "no weights"
            problems.append(f"{layer.name}: the file holds {there}, the layer takes {', '.join(map(str, shapes))}")
        elif not all(np.isfinite(array).all() for array in arrays):
            problems.append(f"{layer.name}: the file holds NaN or infinite numbers")
        else:
            values += list(zip(layer.weights, arrays, strict=True))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        hint = " The file belongs to another network." if len(problems) == len(wanted) else ""
        raise ParameterError(
            f"{source}, of which {len(problems)} of the {len(wanted)} layers with weights of {name} did not match."
            f"{hint}\n  " + "\n  ".join(problems[:10]) + more
        )
    for variable, array in values:
        variable.assign(array)
    for layer in wanted:
        if hasattr(layer, "finalize_state"):  # Normalization keeps a second copy of its weights
            layer.finalize_state()


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of one extractor into another of the same backbone, which may have more layers.

    Raises:
        ParameterError: A layer of `target` has no layer of its name and shapes in `source`.
    """
    _assign(target, {layer.name: layer.get_weights() for layer in source.layers}, "`source`", source.name)


def _stored_weights(path: Path) -> dict[str, list[Array]]:
    """The arrays of a file, by the name of their layer."""
    import h5py

    if not os.path.isfile(path):
        raise ParameterError(f"`weights` is {str(path)!r}, but there is no such file.")
    try:
        is_archive = zipfile.is_zipfile(path)
        with io.BytesIO(_read_member(path, "model.weights.h5")) if is_archive else open(path, "rb") as opened:
            check_plain(opened, max_bytes=_MAX_BYTES)
            with h5py.File(opened, "r") as file:
                stored = _arrays_by_layer(file, opened)
    except Exception as error:  # on a damaged file h5py and zipfile raise nearly anything, RuntimeError included
        raise ParameterError(
            f"`weights` is {str(path)!r}, which is not a .weights.h5 or .keras file that can be read ({error})."
        ) from error
    if not stored:
        raise ParameterError(
            f"`weights` is {str(path)!r}, which holds no weights by the name of their layers. Load it with the Keras "
            "that wrote it, and save it again by model.save_weights('name.weights.h5')."
        )
    return stored


def _read_member(path: Path, name: str) -> bytes:
    """The content of a member of an archive; Keras compresses none, so no archive holds more than its own size."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
            raise SavedFileError(f"{name} is compressed in it, which Keras does not do")
        return archive.read(member)


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _arrays_by_layer(file: h5py.File, opened: BinaryIO) -> dict[str, list[Array]]:
    """The arrays by the name of their layer; `file` is the file `opened` as h5py reads it."""
    left = opened.seek(0, os.SEEK_END)

    def read_array(group: h5py.Group, name: str) -> Array:
        nonlocal left
        found = group[name]
        left -= found.nbytes
        if left < 0:  # a list of names may contain the same one many times
            raise SavedFileError("it has arrays under two names")
        numbers: Array = np.asarray(found[()])
        if numbers.dtype.kind == "V" and found.attrs.get("dtype") == "bfloat16":  # the upper half of a float32
            numbers = (numbers.view("<u2").astype("<u4") << 16).view("<f4")
        if numbers.dtype.kind not in "fiub":
            raise SavedFileError(f"{found.name} has numbers of the type {numbers.dtype}")
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)

    if "layer_names" not in file.attrs and "model_weights" in file:
        file = file["model_weights"]
    is_old = "layer_names" in file.attrs  # written by Keras 2
    text_bytes = max_text_bytes(opened) if is_old else 0
    stored: dict[str, list[Array]] = {}

    def visit(place: str, group: h5py.Group | h5py.Dataset) -> None:
        if is_old and "weight_names" in group.attrs and place != "top_level_model_weights":
            if math.prod(group.attrs.get_id("weight_names").shape) * text_bytes > _MAX_NAME_BYTES:
                raise SavedFileError(f"the names of the weights of {place} may take all memory")
            stored[place] = [read_array(group, _text(name)) for name in group.attrs["weight_names"]]
        elif place.rpartition("/")[2] == "vars" and "name" in group.attrs and len(group) and "optimizer" not in place:
            stored[_text(group.attrs["name"])] = [read_array(group, key) for key in sorted(group, key=int)]

    file.visititems(visit)
    return stored


_NUMBERED = re.compile(
    r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|layer_normalization|normalization|dense)(_\d+)?"
)


def _found_layers(names: Sequence[str], stored: Mapping[str, list[Array]]) -> dict[str, str]:
    """For each layer of a model, the layer of the file that holds its weights."""
    found = {name: name for name in names if name in stored and not _NUMBERED.fullmatch(name)}
    kinds: dict[str, tuple[list[str], list[str]]] = {}
    for place, several in enumerate((names, stored)):
        for name in several:
            match = _NUMBERED.fullmatch(name)
            if match and stored.get(name) != []:
                kinds.setdefault(match[1], ([], []))[place].append(name)
    for own, theirs in kinds.values():
        found |= dict(zip(sorted(own, key=_number), sorted(theirs, key=_number), strict=False))
    return found


def _number(name: str) -> int:
    end = name.rpartition("_")[2]
    return int(end) if end.isdigit() else 0


def load_backbone_weights(network: keras.Model, backbone: Backbone, weights: str | Path | None) -> None:
    """Gives a network of `keras.applications` its weights.

    Args:
        network: The network; it may have layers without weights more than Keras' own.
        backbone: Which it is.
        weights: `"imagenet"`, which Keras downloads; a file as for `load_weights`; or `None`: they stay as they are.

    Raises:
        ParameterError: The weights cannot be downloaded, or the file does not fit.
    """
    if weights is None:
        return
    if weights != "imagenet":
        load_weights(network, weights, name=backbone.name)
        return
    try:
        shape = (backbone.default_size, backbone.default_size, 3)
        trained = backbone.constructor(weights="imagenet", include_top=False, input_shape=shape, pooling="avg")
    except Exception as error:  # whatever Keras, the connection or the disk raise
        raise ParameterError(
            f"The ImageNet weights of {backbone.name} could not be downloaded: {error}\nTwo ways out: on a machine "
            f"with internet run keras.applications.{backbone.name}(include_top=False).save_weights"
            f"('{backbone.name}.weights.h5'), bring the file here and give weights='{backbone.name}.weights.h5'; or "
            "give weights=None, to start from random weights."
        ) from error
    _assign(
        network, {layer.name: layer.get_weights() for layer in trained.layers}, "`weights` are Keras'", backbone.name
    )
