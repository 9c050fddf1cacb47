"""Keras models from files that somebody else may have written.

`keras.saving.load_model(safe_mode=True)` refuses code, and leaves much: its configuration may name any class of Keras,
with any numbers, so that a file of some kilobytes calls for gigabytes or a download, and classes that read files. So
the configuration is read here first. A name must be one of Keras' layers, losses, optimizers and the like, or one that
the user registered or handed over; the model is built once without values, and may need no more memory than a small
multiple of the weights that the file really holds. Only then does Keras read it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastoolkit import _files, _keras
from kerastoolkit._hdf5 import check_plain
from kerastoolkit.exceptions import SavedFileError

if TYPE_CHECKING:
    import keras

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ASSET = re.compile(r"assets(/\w+)*/?(/vocabulary\.txt)?")
_WRITER = "Keras' `Model.save`"

# A model of which all weights are in the file has a few more: seeds, what an optimizer keeps, the counts of metrics.
_MORE_THAN_STORED, _ROOM = 2, 16 * _files.MEBIBYTE
_MOST_NUMBERS_A_ROW = 2**28  # in the output of a layer, for one row
# Arguments that are no sizes of weights, and by which something is done so many times. Others are sizes.
_COUNTS = {
    "bins": 100_000, "chain_depth": 100, "ngrams": 100, "num_chains": 100, "num_layers": 1000, "num_mel_bins": 100_000,
    "num_ops": 100, "num_thresholds": 100_000, "power_iterations": 1000,
}  # fmt: skip
# They read other files, or hold code.
_NEVER = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"}


def read_model(path: Path, custom_objects: Mapping[str, Any] | None, safe_mode: bool, *, compile: bool = True) -> Any:
    """Reads a `.keras` file after it has been looked at.

    Args:
        path: The file.
        custom_objects: The user's own classes and functions by name.
        safe_mode: Whether to allow nothing else than them and what Keras has.
        compile: Whether to compile the model as the file says. Defaults to `True`.

    Returns:
        The model.

    Raises:
        SavedFileError: The file is damaged, or asks for what it may not have; the message says what.
    """
    import keras

    with _files.archive(path, _may_be_member, _WRITER) as file:
        config = _files.read_json(file.read(_CONFIG), f"{_CONFIG} of {path.name}")
        weights = _files.copy_member(file, _WEIGHTS, path.with_name(f"{path.stem}.weights.h5"))
        _read_the_rest(file)
    stored = check_plain(weights)
    weights.unlink()
    if not isinstance(config, dict):
        raise SavedFileError(f"{_CONFIG} of {path.name} describes no model.")
    check_config(config, custom_objects, safe_mode)
    _check_size(config, stored, custom_objects, safe_mode)
    with warnings.catch_warnings():
        # Of an optimizer that has not trained yet there is nothing to read.
        warnings.filterwarnings("ignore", r"Skipping variable loading.*saved optimizer has [02] variables", UserWarning)
        return keras.saving.load_model(
            path, custom_objects=_as_dict(custom_objects), compile=compile, safe_mode=safe_mode
        )


def read_object(config: Any, custom_objects: Mapping[str, Any] | None, safe_mode: bool) -> Any:
    """Makes an optimizer, loss, metric, layer or the like from what `keras.saving.serialize_keras_object` said of it.

    Raises:
        SavedFileError: It is none of Keras', nor one that the user registered or handed over.
    """
    import keras

    config = _without("build_config", _without("compile_config", config))  # which would make weights
    check_config(config, custom_objects, safe_mode)
    kind = classes().get((config.get("module"), config.get("class_name")))
    if kind is None or issubclass(kind, (keras.Layer, keras.Metric)):  # others have no weights before they are used
        _check_size(config, 0, custom_objects, safe_mode)
    return keras.saving.deserialize_keras_object(config, custom_objects=_as_dict(custom_objects), safe_mode=safe_mode)


def unknown_name(config: object, custom_objects: Mapping[str, Any] | None) -> str | None:
    """What an object is of, or holds, of the user's own, where that is neither registered nor handed over.

    Args:
        config: What `keras.saving.serialize_keras_object` said of the object.
        custom_objects: The user's own classes and functions by name.

    Returns:
        Its name; None where there is none.
    """
    known = {*(custom_objects or {}), *_keras.registered()}
    for part in _dicts_in(config):
        kind, module = part.get("class_name"), part.get("module")
        is_of_keras = kind in _VALUES or (isinstance(module, str) and module.partition(".")[0] == "keras")
        is_of_keras = is_of_keras or (kind == "function" and (module, part.get("config")) in functions())
        name = None if kind is None or is_of_keras else _looked_up(part)
        if name is not None and name not in known:
            return f"a {name}"
    return None


def _as_dict(custom_objects: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if custom_objects is None else dict(custom_objects)


def _may_be_member(name: str) -> bool:
    return name in (_CONFIG, _METADATA, _WEIGHTS) or _ASSET.fullmatch(name) is not None


def _read_the_rest(file: zipfile.ZipFile) -> None:
    """Compares the checksums of members that were not read."""
    for member in file.infolist():
        if member.filename not in (_CONFIG, _WEIGHTS):
            with file.open(member) as content:
                while content.read(_files.MEBIBYTE):
                    pass


# -- what a configuration names -------------------------------------------------------------------------------------


def check_config(config: object, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> None:
    """Refuses a configuration that names what it may not, or counts higher than anybody would.

    Args:
        config: What Keras wrote of a model, layer, optimizer or the like.
        custom_objects: The user's own classes and functions by name. Defaults to `None`.
        safe_mode: Whether names are looked at at all. Defaults to `True`.

    Raises:
        SavedFileError: The message says which name.
    """
    known = {*(custom_objects or {}), *_keras.registered()}
    for part in _dicts_in(config):
        for name, most in _COUNTS.items():
            if _files.is_whole(part.get(name)) and part[name] > most:
                raise SavedFileError(f"The model asks for {name}={part[name]}; at most {most} is read.")
        if safe_mode:
            _check_part(part, known)


def _dicts_in(value: object) -> Iterator[dict[str, Any]]:
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            yield found
        left += found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()


def _check_part(part: dict[str, Any], known: set[str]) -> None:
    if isinstance(part.get("vocabulary"), str):
        raise SavedFileError(f"The model reads its vocabulary from the file {part['vocabulary'][:100]!r}.")
    nodes = part.get("inbound_nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and _is_symbolic(node) for node in nodes):
        # Keras would compute it at once, whatever its size.
        raise SavedFileError("The model calls a layer on something else than the output of another.")
    if "class_name" in part:
        _check_name(part, known)
    elif "registered_name" in part or "spec_name" in part:
        raise SavedFileError("The model names something without its class.")


def _is_symbolic(node: dict[str, Any]) -> bool:
    return any(part.get("class_name") == "__keras_tensor__" for part in _dicts_in(node))


_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_DTYPE = _files.matching(r"(bool|string|(u?int|b?float|complex)\d{0,3}(_\w{1,10})?)")


def _check_name(part: dict[str, Any], known: set[str]) -> None:
    name, module, config = part["class_name"], part.get("module", ""), part.get("config")
    if name in _VALUES:
        dtype = config.get("dtype", "float32") if isinstance(config, dict) else "float32"
        if not _DTYPE(dtype):
            raise SavedFileError(f"The model holds an array of {str(dtype)[:100]!r}.")
        return
    if _looked_up(part) in known:
        return
    if name == "function":
        # Keras up to 3.6 left out the package under which a function was registered.
        if isinstance(config, str) and any(one.endswith(f">{config}") for one in known):
            return
        if (module, config) in functions():
            return
    elif isinstance(name, str) and (module, name) in classes():
        _check_values(classes()[module, name], config)
        return
    shown = f"{module}.{config if name == 'function' else name}"[:200]
    raise SavedFileError(
        f"The model names {shown!r}, which is no layer, loss, optimizer or the like of Keras, nor registered. If it is "
        "your own, register it with @keras.saving.register_keras_serializable(), or hand it over: "
        "custom_objects={'name': ...}. If it is code and you trust the file, give safe_mode=False."
    )


def _check_values(kind: type, config: object) -> None:
    """Refuses numbers that no backend counts to, and what would be no truth value in one of its operations."""
    for name, value in config.items() if isinstance(config, dict) else ():
        numbers = value if isinstance(value, list) else [value]
        if name != "seed" and any(_files.is_whole(one) and not -(2**31) <= one < 2**31 for one in numbers):
            wanted = "no backend counts so far"
        elif name in _truth_values(kind) and value not in (True, False, None):
            wanted = "it is True or False"
        else:
            continue
        asked = f"{str(name)[:100]}={str(value)[:100]}"
        raise SavedFileError(f"The model asks for {asked} in {kind.__name__}; {wanted}.")


@functools.cache
def _truth_values(kind: type | Callable[..., Any]) -> frozenset[str]:
    """Arguments of a class of Keras that are true or false by default."""
    parameters = inspect.signature(kind).parameters.values() if inspect.isclass(kind) else ()
    return frozenset(one.name for one in parameters if isinstance(one.default, bool))


def _looked_up(part: dict[str, Any]) -> str | None:
    """The name by which Keras looks for something that was registered or handed over."""
    name = part.get("class_name")
    found = part.get("config") if name == "function" else part.get("registered_name", name)
    return found if isinstance(found, str) else None


@functools.cache
def classes() -> dict[tuple[str, str], Any]:
    """Keras' layers, losses, optimizers and the like, by module and name: those that a file may name."""
    import keras

    bases = (
        keras.Operation, keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.Loss, keras.Metric,
        keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule, keras.DTypePolicy, keras.Quantizer,
        keras.random.SeedGenerator,
    )  # fmt: skip
    places = [keras, keras.optimizers.schedules, *(getattr(keras, name) for name in _PUBLIC)]
    places += _keras.modules_of_operations()
    places += [inspect.getmodule(kind) for kind in (keras.Sequential, keras.Model)]
    found = {
        (place.__name__, name): kind
        for place in places
        for name, kind in vars(place).items()
        if inspect.isclass(kind) and issubclass(kind, bases) and name not in _NEVER
    }
    functional = type(keras.Model(one := keras.Input((1,)), keras.layers.Identity()(one)))
    return {**found, (functional.__module__, functional.__name__): functional}


_PUBLIC = (
    "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics", "mixed_precision", "models",
    "optimizers", "quantizers", "random", "regularizers",
)  # fmt: skip


@functools.cache
def functions() -> dict[tuple[str, str], Any]:
    """Keras' functions from tensors to tensors, by module and name: those that a file may name."""
    import keras

    places = ("activations", "constraints", "initializers", "losses", "metrics", "regularizers", "ops")
    return {
        (module, name): thing
        for place in places
        for name, thing in vars(getattr(keras, place)).items()
        if callable(thing) and name not in ("deserialize", "get", "serialize")
        for module in (f"keras.{place}", *(() if place == "ops" else ("builtins",)))
    }


# -- how large it is ------------------------------------------------------------------------------------------------


def _check_size(config: object, stored: int, custom_objects: Mapping[str, Any] | None, safe_mode: bool) -> None:
    """Builds a model without values, and refuses it if it is larger than its file can account for."""
    import keras

    most = _MORE_THAN_STORED * stored + _ROOM
    options = {"custom_objects": _as_dict(custom_objects), "safe_mode": safe_mode}
    own = {*(custom_objects or {}), *_keras.registered()}
    try:
        with _keras.without_values():
            made = keras.saving.deserialize_keras_object(_without("compile_config", copy.deepcopy(config)), **options)
            needed = sum(map(_bytes_of, _variables_of(made)))
            for part in _dicts_in(config):
                if part.get("module") == "keras.metrics" and part.get("class_name") != "function":
                    needed += sum(map(_bytes_of, keras.saving.deserialize_keras_object(part, **options).variables))
    except Exception:
        # A layer of the user's may need values while it is built. What names Keras alone can be built without.
        if any(_looked_up(part) in own for part in _dicts_in(config)):
            return
        raise
    if needed > most:
        raise SavedFileError(
            f"The model asks for {needed} bytes of weights, but its file holds {stored}; at most {most} are given."
        )
    for layer in _keras.layers_of(made) if isinstance(made, keras.Model) else ():
        _check_output(layer)


def _check_output(layer: keras.Layer) -> None:
    import keras

    try:
        outputs = keras.tree.flatten(layer.output)
    except (AttributeError, ValueError):  # it has none, or several
        return
    for output in outputs:
        size = math.prod(length or 1 for length in output.shape[1:])
        if size > _MOST_NUMBERS_A_ROW:
            raise SavedFileError(f"The layer {layer.name[:100]!r} makes {size} numbers of one row.")


def _variables_of(made: object) -> list[Any]:
    variables = getattr(made, "variables", [])
    return list(variables) if isinstance(variables, (list, tuple)) else []


def _bytes_of(variable: keras.Variable) -> int:
    return int(math.prod(variable.shape)) * (8 if "64" in str(variable.dtype) else 4)


def _without(key: str, value: object) -> Any:
    """A configuration without all entries of a name."""
    if isinstance(value, dict):
        return {name: _without(key, inner) for name, inner in value.items() if name != key}
    return [_without(key, inner) for inner in value] if isinstance(value, list) else value


def shapes_of(model: keras.Model) -> dict[str, list[tuple[Any, ...]]]:
    """Shapes of the inputs and outputs of a model, for one row; none of a model that does not know them."""
    import keras

    found: dict[str, list[tuple[Any, ...]]] = {"inputs": [], "outputs": []}
    for name, shapes in found.items():
        with contextlib.suppress(AttributeError, ValueError):
            shapes += [tuple(tensor.shape[1:]) for tensor in keras.tree.flatten(getattr(model, name))]
    return found
