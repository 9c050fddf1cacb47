"""One file for a fitted estimator, readable after an upgrade, without pickle.

The file is a zip archive of `estimator.json` (class, parameters, versions, and the config of what `fit` learned, see
`Fitted`), `model.keras` (the trained model in Keras' own format) and, where the parameter `model` is itself a
`keras.Model`, `parameter.keras`. Files of the first format are read as well (`_format_1`). An estimator that is not
fitted, such as the one that a search clones, has a file without `model.keras`.

A file may come from anybody, so that nothing in it decides what is done with it: which entries there are, of which type
each is and where it goes stands here and in the classes that learn from data. Functions and classes are kept by name.
Those of Keras and of kerastoolkit are found in a list of names; those of the user are looked up in what `load` was
handed, and with `safe_mode=False` in the user's modules that are imported already. What is not found becomes a
`NotLoaded`, which predicts nothing and spoils nothing: the trained model is there, and only training anew asks for the
function.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import math
import os
import re
import site
import sys
import sysconfig
import tempfile
import types
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _files, builders
from kerastoolkit._copies import compile_model, compiled_with, is_configured, take_apart
from kerastoolkit._keras import is_layer, without_compile_config, without_lambda_warning
from kerastoolkit._version import __version__
from kerastoolkit.data import list_readers
from kerastoolkit.estimators import _format_1, _keras_files, _parameters
from kerastoolkit.estimators._objects import NotLoaded
from kerastoolkit.estimators._readers import ArrayReader, first_of
from kerastoolkit.estimators._recipe import compile_arguments
from kerastoolkit.estimators._registry import ESTIMATORS, reference_to
from kerastoolkit.estimators.fitted import SHOWN, Fitted, ToCompile
from kerastoolkit.exceptions import KerasToolkitWarning, SavedFileError

if TYPE_CHECKING:
    import keras

    from kerastoolkit.estimators._base import KerasEstimator

_FORMAT = 2
_DESCRIPTION, _MODEL, _PARAMETER = "estimator.json", "model.keras", "parameter.keras"
_WRITER = "an estimator's `save`"


# -- what a file may hold -------------------------------------------------------------------------------------------


_FIELDS: dict[str, Callable[[Any], object]] = {
    "format": _files.is_count,
    "versions": _files.dict_of(_files.is_text),
    "class": _files.is_text,
    "base": _files.is_text,
    "task": _files.one_of("classification", "reconstruction", "regression"),
    "parameters": lambda value: isinstance(value, dict),
    "fitted": lambda value: value is None or isinstance(value, dict),
    "compiled": lambda value: value is None or isinstance(value, dict),
    "optimizer": lambda value: isinstance(value, list),
    "requests": _files.dict_of(_files.dict_of(lambda value: value is None or isinstance(value, (bool, str)))),
}
_OF_FITTED = ("compiled", "optimizer")
_OPTIONAL = (*_OF_FITTED, "requests")
# Parameters that may be a function, a class or an object; so may what is handed to a build function.
_OBJECTS = {"augment", "build_fn", "callbacks", "loss", "metrics", "model", "optimizer"}
# Parameters that predicting reads, too.
_SIZES = ("batch_size", "epochs", "input_size", "validation_batch_size")


# -- writing --------------------------------------------------------------------------------------------------------


def can_be_saved(estimator: object) -> bool:
    """Whether an estimator is one of kerastoolkit's, or of a class derived from one, and so has a file to go into."""
    return any(kind in ESTIMATORS.values() for kind in type(estimator).__mro__)


def save(estimator: KerasEstimator, path: str | Path) -> Path:
    """Writes a fitted estimator to `path`; see `KerasEstimator.save`."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    models: dict[str, Any] = {}
    description = _describe(estimator, models)
    return _write(Path(path), description, {**models, _MODEL: estimator.model_})


def save_unfitted(estimator: KerasEstimator, path: str | Path) -> Path:
    """Writes the class and the parameters of an estimator to `path`, and nothing that `fit` learned."""
    models: dict[str, Any] = {}
    return _write(Path(path), {**_describe_parameters(estimator, models), "fitted": None}, models)


def _write(path: Path, description: dict[str, Any], models: Mapping[str, Any]) -> Path:
    with _files.folder_for(path) as folder:
        content = json.dumps(description, indent=1, allow_nan=False)
        # What could not be read again is refused now, while everything is there.
        _checked(_files.read_json(content.encode(), _DESCRIPTION), f"The file {path.name!r} to be")
        archive = Path(folder) / "archive"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(_DESCRIPTION, content)
            for name, model in models.items():
                # What it was compiled with is in the description, whole: Keras' configs leave things out.
                with without_compile_config(model) if compiled_with(model) else contextlib.nullcontext():
                    model.save(Path(folder) / name)
                _without_backend(Path(folder) / name)
                file.write(Path(folder) / name, name)
        os.replace(archive, path)
    return path


def _without_backend(path: Path) -> None:
    """Names optimizers in a .keras file by their public names: a model in a model keeps what it was compiled with."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = json.dumps(_public(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def _describe(estimator: KerasEstimator, models: dict[str, Any]) -> dict[str, Any]:
    fitted = estimator._fitted
    return {
        **_describe_parameters(estimator, models),
        "fitted": {
            name: _encode(value, models, _attribute_of(name, fitted)) for name, value in fitted.get_config().items()
        },
        **_describe_compiled(estimator, models),
    }


def _describe_parameters(estimator: KerasEstimator, models: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "versions": versions(),
        "class": reference_to(type(estimator)),
        "base": reference_to(next(kind for kind in type(estimator).__mro__ if reference_to(kind) in ESTIMATORS)),
        "task": estimator._task,
        "parameters": {name: _encode(value, models, None) for name, value in estimator.get_params(deep=False).items()},
        **_describe_requests(estimator),
    }


def _describe_requests(estimator: KerasEstimator) -> dict[str, Any]:
    """What `set_fit_request` and its kin were told of metadata, by method; nothing if they were not called."""
    from sklearn.utils._metadata_requests import SIMPLE_METHODS

    told = vars(estimator).get("_metadata_request")
    if told is None:
        return {}
    return {"requests": {method: dict(getattr(told, method).requests) for method in SIMPLE_METHODS}}


def versions() -> dict[str, str]:
    """The versions that a file is written with, by package."""
    import keras
    import sklearn

    return {
        "kerastoolkit": __version__,
        "keras": keras.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "backend": keras.config.backend(),
    }


def object_as_json(value: object) -> dict[str, Any] | None:
    """A loss, optimizer, layer or the like as an entry of a file, which `Reading.decode` reads; None for anything else.

    Args:
        value: Any value.
    """
    described = _described(value) if _has_config(value) and not inspect.isclass(value) else None
    return None if described is None else {"keras": described}


def _describe_compiled(estimator: KerasEstimator, models: dict[str, Any]) -> dict[str, Any]:
    """What the model was compiled with; of one that waits to be compiled, the state of its optimizer as well."""
    waiting = estimator._fitted.to_compile
    if waiting is None:
        return {"compiled": _encode(compiled_with(estimator.model_), models, None)}
    return {"compiled": _encode(waiting.arguments, models, None), "optimizer": _encode(waiting.state, models, None)}


def _attribute_of(name: str, fitted: Fitted) -> str:
    """How messages call a part of what was learned: by the attribute that shows it."""
    if name == "reader":
        return first_of(fitted.reader).shown_as or "reader_"
    return "random_state" if name == "generator" else f"{name}_"


# -- reading --------------------------------------------------------------------------------------------------------


def load(path: str | Path, *, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Any:
    """Reads an estimator that `save` wrote.

    In safe mode a file from a stranger can run no code, read or write no other file, and take no more memory than a
    small multiple of its size; `docs/security.md` says what is checked. Functions and classes of yours that the
    estimator was made with are not looked for then. Hand them over, or set them again, to train anew; predicting needs
    none but those that the model itself is made of.

    Example:

    >>> classifier = load("flowers.zip", custom_objects={"build": build})  # doctest: +SKIP

    Args:
        path: The file.
        custom_objects: Functions and classes of your own by name, `"build"` or `"my_module:build"`: the build function,
            losses, layers that are not registered with `keras.saving.register_keras_serializable`, a subclass of an
            estimator. Defaults to `None`.
        safe_mode: Whether to refuse Python code inside the model (`Lambda` layers), and to follow no name to a function
            of yours that is not in `custom_objects`. Defaults to `True`. With `False`, which is for files that you
            trust, names are looked up in your own modules that are imported already.

    Returns:
        The estimator, such as a `KerasClassifier`: fitted, or not where it was written so.

    Warns:
        KerasToolkitWarning: The file is of a subclass that was not found, or names a folder for its cache, which is not
            used in safe mode.

    Raises:
        FileNotFoundError: There is no such file.
        SavedFileError: The file is damaged, forged, of another kind, or written by a newer version; the message says
            which.
    """
    path = _files.regular_file(path)
    with _files.refusing(path, _WRITER), tempfile.TemporaryDirectory() as folder:
        members = (_DESCRIPTION, _MODEL, _PARAMETER)
        with _files.archive(path, members.__contains__, _WRITER, needed=(_DESCRIPTION,)) as file:
            content = _files.read_json(file.read(_DESCRIPTION), f"{_DESCRIPTION} of {str(path)!r}")
            for name in (_MODEL, _PARAMETER):
                if name in file.namelist():
                    _files.copy_member(file, name, Path(folder) / name)
        description = _checked(content, repr(str(path)))
        return _restore(description, Reading(str(path), Path(folder), custom_objects, safe_mode))


def _checked(description: Any, what: str) -> dict[str, Any]:
    """A description that has its entries and no others, each of its type; all but the parameters are decoded.

    Raises:
        SavedFileError: It has not, or is of a newer format.
    """
    number = description.get("format") if isinstance(description, dict) else None
    if _files.is_whole(number) and number > _FORMAT:
        versions = description.get("versions")
        version = versions.get("kerastoolkit") if isinstance(versions, dict) else None
        raise SavedFileError(
            f"{what} was written by kerastoolkit {str(version)[:20]} in format {number}; this is {__version__}, which "
            f"reads up to format {_FORMAT}. Upgrade kerastoolkit."
        )
    if number == 1:
        description = _format_1.brought_up_to_date(description, ESTIMATORS, what)
    checked = _files.checked_fields(description, _FIELDS, what, optional=_OPTIONAL)
    checked["base"] = base = _base_of(checked, what)
    for name, value in checked["parameters"].items():
        _check_parameter(name, value, base, what)
    if checked["fitted"] is None:
        if any(name in checked for name in _OF_FITTED):
            raise SavedFileError(f"{what} was not fitted, and yet was compiled, which cannot be.")
        return checked
    plain = Reading(what)
    config = {name: plain.decode(value) for name, value in checked["fitted"].items()}
    _check_reader(config.get("reader"), base, what)
    checked["fitted"] = Fitted.from_config(config, base._heads, what=what)
    return checked


def _base_of(description: Mapping[str, Any], what: str) -> Any:
    """The class of ours that a file is of, or that the subclass is of which it is."""
    name = description["base"]
    base = ESTIMATORS.get(name)
    if base is None or base._task != description["task"] or description["class"] in ESTIMATORS.keys() - {name}:
        raise SavedFileError(
            f"{what} says that it holds a {description['class'][:100]!r} for {description['task']}, which cannot be."
        )
    return base


def _check_reader(config: object, base: type[KerasEstimator], what: str) -> None:
    """Refuses a reader of another estimator of ours; a subclass may have one that a user registered."""
    name = config.get("name") if isinstance(config, dict) else None
    others = {one for kind in ESTIMATORS.values() for one in kind.reader_names} - set(base.reader_names)
    if not isinstance(name, str) or name in others or name not in list_readers():
        raise SavedFileError(
            f"{what} is read by {_files.shown(name)}, which is no reader of {base.__name__} and none that is "
            f"registered: that has {' or '.join(map(repr, base.reader_names))}."
        )


def _check_parameter(name: str, value: object, base: type[KerasEstimator], what: str) -> None:
    """Refuses a parameter that an estimator of this class could not have."""
    start, routed, _ = name.partition("__")
    known = name in base._get_param_names()
    if not known and (
        not name.isidentifier() or name.startswith("_") or hasattr(base, name) or name in SHOWN
        or (routed and start not in _parameters.DESTINATIONS)
    ):  # fmt: skip
        raise SavedFileError(f"{what} has a parameter {name[:100]!r}, which no estimator can have.")
    is_size = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if name in _SIZES and known and not is_size and not (isinstance(value, dict) and "repr" in value):
        raise SavedFileError(f"{what} has {str(value)[:100]!r} as parameter {name!r}, which must be a number.")


def _restore_requests(estimator: KerasEstimator, requests: Mapping[str, Mapping[str, Any]], path: str) -> None:
    from sklearn.utils._metadata_requests import SIMPLE_METHODS

    told = estimator.get_metadata_routing()
    for method, by_name in requests.items():
        known = dict(getattr(told, method).requests) if method in SIMPLE_METHODS else {}
        for name, alias in by_name.items():
            if name not in known or (isinstance(alias, str) and not alias.isidentifier()):
                raise SavedFileError(f"{path} asks for {name[:100]!r} in {method[:100]!r}, which no estimator does.")
            getattr(told, method).add_request(param=name, alias=alias)
    estimator.__dict__["_metadata_request"] = told


def _restore(description: Mapping[str, Any], reading: Reading) -> Any:
    base = description["base"]
    kind = base if description["class"] in ESTIMATORS else reading.find(description["class"])
    parameters = {
        name: reading.parameter(name, value, declared=name in base._get_param_names())
        for name, value in description["parameters"].items()
    }
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        kind = base
        _warn_of_subclass(description["class"], base)
        if "model" in base._get_param_names() and parameters.get("model") is None is parameters.get("build_fn"):
            # It may build its model itself. Another must not take its place without a word.
            parameters["model"] = NotLoaded(description["class"])
    if reading.safe_mode and isinstance(parameters.get("cache"), (str, Path)):
        warnings.warn(
            f"The file keeps features in the folder {str(parameters['cache'])!r}, which is not used in safe mode: they "
            "are kept in your own cache. Set `cache` again, or load the file with safe_mode=False.",
            KerasToolkitWarning,
            stacklevel=3,
        )
        parameters["cache"] = True
    estimator = kind(**parameters)
    if "requests" in description:
        _restore_requests(estimator, description["requests"], reading.path)
    compiled, fitted = description.get("compiled"), description["fitted"]
    if fitted is None:
        return estimator
    model = reading.model(_MODEL, compile=compiled is None)
    _check_shapes(fitted, model, reading.path)
    estimator._set_fitted(fitted.with_model(model))
    if compiled is not None:
        arguments = reading.compile_arguments(compiled)
        state = description.get("optimizer")
        state = reading.optimizer_state(_MODEL) if state is None else reading.decode(state)
        to_compile = ToCompile(arguments, _checked_state(state, reading.path))
        estimator._set_fitted(estimator._fitted.with_fields(to_compile=to_compile))
        if _not_loaded(arguments) is None:
            with _files.refusing(reading.path, _WRITER):
                compile_loaded(estimator)
    return estimator


def compile_loaded(estimator: KerasEstimator) -> None:
    """Compiles a model that came from a file, as it was compiled before.

    What the file holds only by name is taken from the parameters.

    Raises:
        ParameterError: It is not in the parameters either.
    """
    waiting = estimator._fitted.to_compile
    if waiting is None:
        return
    arguments = waiting.arguments
    missing = {name: found for name, value in arguments.items() if (found := _not_loaded(value)) is not None}
    if missing:
        now = compile_arguments(estimator._current_parameters(), estimator.head_, defaults=False)
        for name, found in missing.items():
            if name not in now:
                found()
        arguments = {**arguments, **{name: now[name] for name in missing}}
    compile_model(estimator.model_, dict(arguments), waiting.state)
    estimator._set_fitted(estimator._fitted.with_fields(to_compile=None))


def _checked_state(state: object, path: str) -> list[Any]:
    arrays: list[Any] = state if isinstance(state, list) else [None]
    if not all(isinstance(one, np.ndarray) and one.dtype.kind in "fiub" for one in arrays):
        raise SavedFileError(f"The state of the optimizer in {path} is no list of arrays.")
    return arrays


def _not_loaded(value: object) -> NotLoaded | None:
    """What is missing in a value, if anything is."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((missing for item in value if (missing := _not_loaded(item)) is not None), None)
    return value if isinstance(value, NotLoaded) else None


def _warn_of_subclass(name: str, base: type[KerasEstimator]) -> None:
    warnings.warn(
        f"The file is of the class {name[:200]!r}, which was not found: it is read as a {base.__name__}, without what "
        f"that class does otherwise. Hand the class over: load(..., custom_objects={{{name[:200]!r}: ...}}).",
        KerasToolkitWarning,
        stacklevel=4,
    )


def _check_shapes(fitted: Fitted, model: keras.Model, path: str) -> None:
    """Holds a model against what was read beside it: what goes in, and what comes out."""
    shapes = _keras_files.shapes_of(model)
    head, reader = fitted.head, first_of(fitted.reader)
    units = head.units if isinstance(head, builders.HeadGroup) else (head.units,)  # type: ignore[union-attr]
    made = [None if None in shape else math.prod(shape) for shape in shapes["outputs"]]
    agree = not made or len(made) == len(units)
    agree = agree and all(one in (None, unit) for one, unit in zip(made, units, strict=False))
    # A reader that makes arrays knows how long they are; one that takes them as they are leaves it to the model.
    given, taken = reader.row_shape, shapes["inputs"][0] if len(shapes["inputs"]) == 1 else ()
    if not isinstance(reader, ArrayReader) and isinstance(given, tuple):
        agree = agree and taken[-1:] in (given[-1:], (None,), ())
    if not agree:
        raise SavedFileError(f"The model in {path!r} and what is said of its inputs and outputs do not go together.")


class Reading:
    """The reading of one file.

    Args:
        path: How messages name the file.
        folder: Where its models lie. Defaults to `None`: there are none.
        custom_objects: Functions and classes of the user's by name. Defaults to `None`.
        safe_mode: Whether names are looked up nowhere else. Defaults to `True`.
    """

    def __init__(
        self,
        path: str,
        folder: Path | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        safe_mode: bool = True,
    ) -> None:
        self.path, self.folder, self.custom_objects, self.safe_mode = path, folder, custom_objects, safe_mode

    def parameter(self, name: str, value: object, *, declared: bool) -> Any:
        """The value of a parameter; of a declared one that takes no function, a plain value."""
        return self.decode(value, objects=not declared or name in _OBJECTS, lost=True)

    def decode(self, value: object, *, objects: bool = False, lost: bool = False) -> Any:
        """A value from JSON, as `_encode` wrote it.

        Args:
            value: What the file says.
            objects: Whether functions, classes, objects of Keras and models may be among it. Defaults to `False`.
            lost: Whether it may have been a value that no file holds. Defaults to `False`.
        """
        if isinstance(value, list):
            return [self.decode(item, objects=objects, lost=lost) for item in value]
        if not isinstance(value, dict):
            return value
        kind = "array" if set(value) == {"array", "dtype"} else next(iter(value)) if len(value) == 1 else None
        inner = value[kind] if kind in value else None
        if kind in ("tuple", "array", "dict") and isinstance(inner, list):
            inner = self.decode(inner, objects=objects, lost=lost)
            if kind == "dict":
                return dict(inner)
            return tuple(inner) if kind == "tuple" else _files.array_from(inner, value["dtype"])
        if kind == "array" and _files.is_number(inner):  # one without axes, as an optimizer counts its steps
            return _files.array_from([inner], value["dtype"]).reshape(())
        if kind == "float" and inner in ("nan", "inf", "-inf"):
            return float(inner)
        if kind == "scalar" and isinstance(inner, list) and len(inner) == 2:
            return _files.array_from(inner[:1], inner[1])[0]
        if kind == "bytes" and isinstance(inner, str):
            return inner.encode("latin-1")
        if kind == "path" and isinstance(inner, str):
            return Path(inner)
        if kind == "repr" and isinstance(inner, str) and lost:
            return NotLoaded(inner)
        if inner is None and set(value) == {"model", "compiled"} and value["model"] == _PARAMETER and objects:
            return self.compiled_model(value["compiled"])
        if kind == "model" and inner == _PARAMETER and objects:
            return self.model(_PARAMETER)
        if kind == "keras" and isinstance(inner, dict) and objects:
            return self.object(inner)
        if kind == "reference" and isinstance(inner, str) and objects:
            found = self.find(inner)
            return NotLoaded(inner) if found is None else found
        raise SavedFileError(f"{self.path} holds {str(value)[:100]}, which cannot stand there.")

    def find(self, reference: str) -> Any:
        """A function or class by name; None where it is not to be had."""
        for name in (reference, reference.partition(":")[2]):
            if self.custom_objects is not None and name in self.custom_objects:
                return self.custom_objects[name]
        if reference in _known():
            return _known()[reference]
        return None if self.safe_mode else _in_modules_of_the_user(reference)

    def object(self, config: dict[str, Any]) -> Any:
        """A loss, metric, optimizer or the like; what stands for it where it is of a class that is not to be had."""
        name = _keras_files.unknown_name(config, self.custom_objects)
        if name is not None:
            return NotLoaded(name)
        return _keras_files.read_object(_public(config), self.custom_objects, self.safe_mode)

    def compile_arguments(self, compiled: Any) -> dict[str, Any]:
        """What a model was compiled with; arguments of `Model.compile` by name."""
        arguments = self.decode(compiled, objects=True, lost=True)
        if not isinstance(arguments, dict) or not arguments.keys() <= _parameters.keras_arguments("compile"):
            raise SavedFileError(f"{self.path} holds a model that was compiled with what Keras does not take.")
        return arguments

    def compiled_model(self, compiled: Any) -> Any:
        """The model that is a parameter, compiled as it was."""
        if compiled is None:
            return self.model(_PARAMETER)
        arguments = self.compile_arguments(compiled)
        missing = _not_loaded(arguments)
        if missing is not None:
            return NotLoaded(f"a model compiled with {missing.name}")
        state = _checked_state(self.optimizer_state(_PARAMETER), self.path)
        with _files.refusing(self.path, _WRITER):
            return compile_model(self.model(_PARAMETER, compile=False), arguments, state)

    def optimizer_state(self, name: str) -> list[Any]:
        """Values of the optimizer's variables in a model of the file, in their order; that was looked at before."""
        import h5py

        if self.folder is None:
            return []
        with zipfile.ZipFile(self.folder / name) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            values = file["optimizer/vars"] if "optimizer/vars" in file else {}
            return [np.asarray(values[place]) for place in sorted(values, key=int)]

    def model(self, name: str, *, compile: bool = True) -> Any:
        """A model of the file."""
        import keras

        if self.folder is None or not (self.folder / name).exists():
            raise SavedFileError(f"{self.path} has no {name}.")
        try:
            return _keras_files.read_model(self.folder / name, self.custom_objects, self.safe_mode, compile=compile)
        except Exception as error:
            raise SavedFileError(
                f"The model in {self.path!r} cannot be read by Keras {keras.__version__}: {str(error)[:2000]}"
            ) from error


@functools.cache
def _known() -> dict[str, Any]:
    """Functions and classes of kerastoolkit and Keras that a file may name, by that name."""
    import keras

    found = [builders.get(name) for name in builders.list_builders()]
    found += [*_keras_files.classes().values(), *_keras_files.functions().values()]
    found += [
        kind
        for name, kind in vars(keras.callbacks).items()
        if inspect.isclass(kind) and issubclass(kind, keras.callbacks.Callback) and name not in _WRITING_CALLBACKS
    ]
    return {reference_to(thing): thing for thing in found if hasattr(thing, "__qualname__")}


# They write files, or send what they see, to where a parameter says.
_WRITING_CALLBACKS = (
    "BackupAndRestore", "CSVLogger", "ModelCheckpoint", "OrbaxCheckpoint", "RemoteMonitor", "TensorBoard",
)  # fmt: skip


def _in_modules_of_the_user(reference: str) -> Any:
    """A function or class of a module that is imported already and belongs to no package that was installed."""
    module, _, qualname = reference.partition(":")
    found: Any = sys.modules.get(module)
    if found is None or not _is_of_the_user(found):
        return None
    for name in qualname.split("."):
        found = getattr(found, name, None) if inspect.ismodule(found) or inspect.isclass(found) else None
    wanted = inspect.isclass(found) or inspect.isroutine(found)
    # Not what the module itself has imported, such as a function of `os`.
    return found if wanted and reference_to(found) == reference else None


def _is_of_the_user(module: types.ModuleType) -> bool:
    name, path = module.__name__.partition(".")[0], getattr(module, "__file__", None)
    if name == "kerastoolkit" or (name in sys.stdlib_module_names and name != "__main__"):
        return False
    installed = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed |= {*site.getsitepackages(), site.getusersitepackages()}
    return path is None or not any(Path(path).resolve().is_relative_to(Path(one).resolve()) for one in installed)


# -- values as JSON -------------------------------------------------------------------------------------------------


def _encode(value: object, models: dict[str, Any], attribute: str | None) -> Any:
    """A value as JSON: plain ones as they are, others as a dict of one key that says what they are.

    Args:
        value: The value.
        models: Where a model is put, to be written beside.
        attribute: Name of the attribute that it is of, of which nothing may be lost; None for a parameter.

    Raises:
        SavedFileError: A part of an attribute could not be read again.
    """
    import keras

    if isinstance(value, (np.datetime64, np.timedelta64)):
        return {"scalar": [*_files.as_list(np.array([value])), value.dtype.str]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, list):
        return [_encode(item, models, attribute) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, models, attribute) for item in value]}
    if isinstance(value, Mapping):
        return {
            "dict": [[_encode(key, models, attribute), _encode(item, models, attribute)] for key, item in value.items()]
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in _files.KINDS_OF_ARRAYS:
        return {"array": _encode(_files.as_list(value), models, attribute), "dtype": _files.name_of_dtype(value)}
    if attribute is not None:
        raise SavedFileError(
            f"`{attribute}` holds {str(value)[:100]!r}, a {type(value).__name__}, which no file of ours can hold. "
            "Pickle the estimator, or fit it with text or numbers in that place."
        )
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, keras.Model):
        if models.setdefault(_PARAMETER, value) is not value:
            raise SavedFileError(
                "Two parameters of the estimator are models, and a file holds one. Give a function that builds the "
                "other, or pickle the estimator."
            )
        return {"model": _PARAMETER, "compiled": _encode(compiled_with(value), models, None)}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"reference": reference_to(value)}
    if _has_config(value) and (described := _described(value)) is not None:
        return {"keras": described}
    if isinstance(value, NotLoaded):
        return {"reference" if re.fullmatch(r"[\w.]+:[\w.<>]+", value.name) else "repr": value.name}
    return {"repr": repr(value)[:200]}


def _described(thing: object) -> Any:
    """A thing that is configured in Keras' way, with what its config leaves out; None where that cannot be said."""
    import keras

    try:
        with without_lambda_warning():
            text = json.dumps(keras.saving.serialize_keras_object(_saying_all(thing)), allow_nan=False)
    except Exception:  # of the user's code, or of Keras about it
        return None
    return _public(json.loads(text))


def _has_config(value: object) -> bool:
    """Whether a value is known by Keras' config of it: a loss and its kin, and what else is Keras' own."""
    return is_configured(value) or (type(value).__module__.startswith("keras.") and hasattr(value, "get_config"))


def _saying_all(value: Any) -> Any:
    """A thing, or what holds things, that in its config says all that it was made with."""
    if type(value) in (list, tuple):
        return [_saying_all(item) for item in value]
    if type(value) is dict:
        return {name: _saying_all(item) for name, item in value.items()}
    if not _has_config(value) or is_layer(value) or inspect.isclass(value):
        return value
    parts = take_apart(value)
    if parts.attributes or parts.arguments is None:
        raise ValueError(f"a {parts.kind.__name__} is more than its arguments")
    arguments = _saying_all(parts.arguments)
    other: Any = object.__new__(parts.kind)
    vars(other).update({**vars(value), "get_config": lambda: arguments})
    return other


def _public(config: object) -> Any:
    """What Keras wrote of an object, with the public names of optimizers.

    Under torch Keras writes the module of its own torch optimizers, which would ask for torch wherever it is read.
    """
    return json.loads(re.sub(r'"keras\.src\.backend\.\w+\.optimizers\.\w+"', '"keras.optimizers"', json.dumps(config)))
