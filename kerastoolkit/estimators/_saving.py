"""One file for a fitted estimator, readable after an upgrade, without pickle.

The file is a zip archive of `estimator.json` (class, parameters, head, features, history, versions), `model.keras`
(the trained model in Keras' own format) and, where the parameter `model` is itself a `keras.Model`, `parameter.keras`.

Nothing in a file is executed: functions and classes of the user's are kept by name, and looked up only in modules
that are imported already. What is not found becomes a `NotLoaded`, which predicts nothing and spoils nothing: the
trained model is there, and only training anew asks for the function.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit._copies import compiled as compile_model
from kerastoolkit._copies import compiled_with, is_configured, taken_apart
from kerastoolkit._keras import is_layer, without_advice, without_compile_config
from kerastoolkit._version import __version__
from kerastoolkit.data import Columns, Vocabulary
from kerastoolkit.exceptions import ParameterError, SavedFileError

if TYPE_CHECKING:
    from kerastoolkit.estimators._base import KerasEstimator

_FORMAT = 1
_DESCRIPTION, _MODEL, _PARAMETER = "estimator.json", "model.keras", "parameter.keras"
# What was learned of the form of the data, by its place in the file: where it is kept, and its class.
_READERS: dict[str, tuple[str, Any]] = {"columns": ("columns_", Columns), "words": ("words_", Vocabulary)}
_LEARNED = ("n_features_in_", "feature_names_in_", "history_", "n_iter_", "_input_shape", "head_history_", "_diverged")


class NotLoaded:
    """Stands for a parameter that a file holds only by name.

    Args:
        name: What the file says of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<not loaded: {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: there is nothing to call.

        Raises:
            ParameterError: Always; the message says how to get the thing back.
        """
        raise ParameterError(
            f"A parameter of this estimator was {self.name}, which its file holds only by name. Import its module "
            "before kerastoolkit.load, or set it again with set_params."
        )


def save(estimator: KerasEstimator, path: str | Path) -> Path:
    """Writes a fitted estimator to `path`; see `KerasEstimator.save`."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.resolve().parent) as folder:
        models = {_MODEL: estimator.model_}
        description = json.dumps(_describe(estimator, models), indent=1, allow_nan=False)
        archive = Path(folder) / "archive"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(_DESCRIPTION, description)
            for name, model in models.items():
                # What it was compiled with is in the description, whole: Keras' configs leave things out.
                with without_compile_config(model) if compiled_with(model) else contextlib.nullcontext():
                    model.save(Path(folder) / name)
                file.write(Path(folder) / name, name)
        os.replace(archive, path)
    return path


def load(path: str | Path, *, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Any:
    """Reads an estimator that `save` wrote.

    Args:
        path: The file.
        custom_objects: Layers, losses and the like of your own by name, where they are not registered with
            `keras.saving.register_keras_serializable`. Defaults to `None`.
        safe_mode: Whether to refuse Python code inside the model (`Lambda` layers). Defaults to `True`; turn it off
            only for files you trust.

    Returns:
        The fitted `KerasClassifier`, `KerasRegressor`, `KerasTransformer` or `TextClassifier`.

    Raises:
        FileNotFoundError: There is no such file.
        SavedFileError: The file is damaged, of another kind, or written by a newer version; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            if damaged is not None:
                raise SavedFileError(f"{str(path)!r} is damaged: {damaged} does not match its checksum.")
            description = json.loads(file.read(_DESCRIPTION))
            with tempfile.TemporaryDirectory() as folder:
                for name in (_MODEL, _PARAMETER):
                    if name in file.namelist():
                        file.extract(name, folder)
                return _restore(description, Path(folder), str(path), custom_objects, safe_mode)
    except zipfile.BadZipFile as error:
        raise SavedFileError(
            f"{str(path)!r} is damaged or was not written by an estimator's `save`: {error}."
        ) from error
    except KeyError as error:
        raise SavedFileError(
            f"{str(path)!r} was not written by an estimator's `save`: {error.args[0]}. A model saved by Keras is read "
            "by keras.saving.load_model."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SavedFileError(f"{str(path)!r} is damaged: {_DESCRIPTION} cannot be read ({error}).") from error


def _describe(estimator: KerasEstimator, models: dict[str, Any]) -> dict[str, Any]:
    import keras
    import sklearn

    learned = {name: _encode(vars(estimator)[name], models) for name in _LEARNED if name in vars(estimator)}
    generator = estimator._generator
    return {
        "format": _FORMAT,
        "versions": {
            "kerastoolkit": __version__,
            "keras": keras.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "python": sys.version.split()[0],
            "backend": keras.config.backend(),
        },
        "class": _reference(type(estimator)),
        "task": estimator._task,
        "parameters": {name: _encode(value, models) for name, value in estimator.get_params(deep=False).items()},
        "head": _encode(estimator.head_.get_config(), models),
        **{
            name: _encode(vars(estimator)[attribute].get_config(), models)
            for name, (attribute, _) in _READERS.items()
            if attribute in vars(estimator)
        },
        "learned": learned,
        **_describe_compiled(estimator, models),
        "generator": None if generator is None else _encode(generator.get_state(legacy=False), models),
    }


def _describe_compiled(estimator: KerasEstimator, models: dict[str, Any]) -> dict[str, Any]:
    waiting = vars(estimator).get("_to_compile")
    if waiting is None:
        return {"compiled": _encode(compiled_with(estimator.model_), models)}
    return {"compiled": _encode(waiting[0], models), "optimizer": _encode(waiting[1], models)}


def _restore(
    description: Mapping[str, Any], folder: Path, path: str, custom_objects: Mapping[str, Any] | None, safe_mode: bool
) -> Any:
    import keras

    from kerastoolkit.estimators.classifier import KerasClassifier
    from kerastoolkit.estimators.regressor import KerasRegressor
    from kerastoolkit.estimators.text import TextClassifier
    from kerastoolkit.estimators.transformer import KerasTransformer

    if description["format"] > _FORMAT:
        raise SavedFileError(
            f"{path!r} was written by kerastoolkit {description['versions']['kerastoolkit']} in format "
            f"{description['format']}; this is {__version__}, which reads up to format {_FORMAT}. Upgrade kerastoolkit."
        )

    def read_model(name: str, compile: bool) -> Any:
        try:
            return keras.saving.load_model(
                folder / name, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode
            )
        except Exception as error:
            raise SavedFileError(
                f"The model in {path!r}, written by Keras {description['versions']['keras']}, cannot be read by Keras "
                f"{keras.__version__}: {error}"
            ) from error

    def load_model(name: str, compiled: Any) -> Any:
        model = read_model(name, compile=compiled is None)
        if compiled is None:  # by an older version, or not compiled at all
            return model
        arguments = _decode(compiled, load_model)
        missing = _not_loaded(arguments)
        if missing is not None:
            return NotLoaded(f"a model compiled with {missing.name}")
        return compile_model(model, arguments, _optimizer_state(folder / name))

    kinds: tuple[type[KerasEstimator], ...] = (KerasClassifier, KerasRegressor, KerasTransformer)
    base = {kind._task: kind for kind in kinds}[description["task"]]
    base = base if description.get("words") is None else TextClassifier
    kind = _lookup(description["class"])
    kind = kind if inspect.isclass(kind) and issubclass(kind, base) else base
    parameters = {name: _decode(value, load_model) for name, value in description["parameters"].items()}
    estimator = kind(**parameters)
    head = _decode(description["head"], load_model)
    estimator.head_ = estimator._head_from_config(head)
    for name, (attribute, reader) in _READERS.items():
        if description.get(name) is not None:
            setattr(estimator, attribute, reader.from_config(_decode(description[name], load_model)))
    for name, value in description["learned"].items():
        setattr(estimator, name, _decode(value, load_model))
    generator = description["generator"]
    estimator._generator = None
    if generator is not None:
        estimator._generator = np.random.RandomState()
        estimator._generator.set_state(_decode(generator, load_model))
    estimator._after_build(estimator.head_)
    compiled = description.get("compiled")
    estimator.model_ = read_model(_MODEL, compile=compiled is None)
    if compiled is not None:
        state = description.get("optimizer")
        state = _optimizer_state(folder / _MODEL) if state is None else _decode(state, load_model)
        estimator._to_compile = _decode(compiled, load_model), state
        if _not_loaded(estimator._to_compile[0]) is None:
            compile_loaded(estimator)
    return estimator


def compile_loaded(estimator: KerasEstimator) -> None:
    """Compiles a model that came from a file, as it was compiled before.

    What the file holds only by name is taken from the parameters.

    Raises:
        ParameterError: It is not in the parameters either.
    """
    arguments, state = estimator._to_compile
    missing = {name: found for name, value in arguments.items() if (found := _not_loaded(value)) is not None}
    if missing:
        now = estimator._compile_arguments(estimator.head_, defaults=False)
        for name, found in missing.items():
            if name not in now:
                found()
        arguments = {**arguments, **{name: now[name] for name in missing}}
    compile_model(estimator.model_, arguments, state)
    del estimator._to_compile


def _optimizer_state(path: Path) -> list[np.ndarray[Any, Any]]:
    """Values of the optimizer's variables in a file of Keras', in their order."""
    import h5py

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
        values = file["optimizer/vars"] if "optimizer/vars" in file else {}
        return [np.asarray(values[name]) for name in sorted(values, key=int)]


def _not_loaded(value: Any) -> NotLoaded | None:
    """What is missing in a value, if anything is."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((missing for item in value if (missing := _not_loaded(item)) is not None), None)
    return value if isinstance(value, NotLoaded) else None


# -- values as JSON -------------------------------------------------------------------------------------------------


def _encode(value: Any, models: dict[str, Any]) -> Any:
    """A value as JSON: plain ones as they are, others as a dict of one key that says what they are."""
    import keras

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_encode(item, models) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, models) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_encode(key, models), _encode(item, models)] for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        dtype = "object" if value.dtype == object else value.dtype.str
        return {"array": _encode(value.tolist(), models), "dtype": dtype}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, keras.Model):
        models[_PARAMETER] = value
        return {"model": _PARAMETER, "compiled": _encode(compiled_with(value), models)}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"reference": _reference(value)}
    if _has_config(value) and (described := _described(value)) is not None:
        return {"keras": described}
    if isinstance(value, NotLoaded):
        return {"reference": value.name}
    return {"repr": repr(value)[:200]}


def _described(thing: Any) -> Any:
    """A thing that is configured in Keras' way, with what its config leaves out; None where that cannot be said."""
    import keras

    try:
        with without_advice():
            text = json.dumps(keras.saving.serialize_keras_object(_saying_all(thing)), allow_nan=False)
    except Exception:  # of the user's code, or of Keras about it
        return None
    # Under torch Keras writes the module of its own torch optimizers, which would ask for torch wherever it is read.
    return json.loads(re.sub(r'"keras\.src\.backend\.\w+\.optimizers\.\w+"', '"keras.optimizers"', text))


def _has_config(value: Any) -> bool:
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
    parts = taken_apart(value)
    if parts.attributes or parts.arguments is None:
        raise ValueError(f"a {parts.kind.__name__} is more than its arguments")
    arguments = _saying_all(parts.arguments)
    other: Any = object.__new__(parts.kind)
    vars(other).update({**vars(value), "get_config": lambda: arguments})
    return other


def _decode(value: Any, load_model: Any) -> Any:
    import keras

    if isinstance(value, list):
        return [_decode(item, load_model) for item in value]
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "tuple" in value:
        return tuple(_decode(item, load_model) for item in value["tuple"])
    if "dict" in value:
        return {_decode(key, load_model): _decode(item, load_model) for key, item in value["dict"]}
    if "array" in value:
        return np.array(_decode(value["array"], load_model), dtype=value["dtype"])
    if "path" in value:
        return Path(value["path"])
    if "model" in value:
        return load_model(value["model"], value.get("compiled"))
    if "keras" in value:
        described = value["keras"]
        try:
            return keras.saving.deserialize_keras_object(described)
        except Exception:  # of a class or function that is not registered here, or of the code of the class
            return NotLoaded(f"a {described.get('registered_name') or described.get('class_name')}")
    if "reference" in value:
        found = _lookup(value["reference"])
        return NotLoaded(value["reference"]) if found is None else found
    return NotLoaded(value["repr"])


def _reference(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _lookup(reference: str) -> Any:
    """A function or class by name, from modules that are imported already."""
    module, _, qualname = reference.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
