"""Copies of Keras' losses, metrics and optimizers, in which nothing is lost.

Keras copies, pickles and saves each of them by its config. Some configs do not name every argument, including some of
Keras' own (`delta` of `Huber` is one), and a user's class need not have a config: the copy would silently train with
other numbers. Here an object is taken apart into the arguments of its config, those that the config leaves out, and, if
its class is the user's, the attributes in which an object made from these arguments would differ.

Python asks `copyreg` how to copy and pickle an object that does not define it itself. `register` answers there for
classes that would be copied by Keras' config: scikit-learn copies the candidates of a grid before an estimator sees
them.

Pickles name `put_together`, `_OfItself`, `_itself` and `_unpickled_model`, so these keep their names.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras


class Parts(NamedTuple):
    """What an object can be put together from.

    Attributes:
        kind: Its class.
        arguments: The arguments of its config, or of its constructor; None if neither can make one.
        by_constructor: Whether they are those of the constructor.
        attributes: The attributes to set afterwards, by name.
    """

    kind: type
    arguments: dict[str, Any] | None
    by_constructor: bool
    attributes: dict[str, Any]


class _OfItself(NamedTuple):
    """An attribute that is a method of the object itself."""

    name: str


def is_configured(value: object) -> bool:
    """Whether a value is a loss, a metric, an optimizer or a learning rate schedule."""
    return "keras" in sys.modules and isinstance(value, _keras.classes_with_config())


def copied(value: Any, options: Mapping[str, Any] | None = None, what: str = "parameter") -> Any:
    """A copy of a loss, metric, optimizer or schedule, or of each in a list or dict; anything else as it is.

    Args:
        value: The object; or a list, tuple or dict.
        options: Arguments that replace its own. Defaults to `None`.
        what: Name of the parameter, for errors. Defaults to `"parameter"`.

    Returns:
        The copy, as if new: an optimizer without a state, a metric that has counted nothing.

    Raises:
        ParameterError: It cannot be copied, or options cannot be set on a copy of it.
    """
    if type(value) in (list, tuple, dict):
        items = value.values() if type(value) is dict else value
        made = [copied(item, options, what) for item in items]
        if all(map(operator.is_, made, items)):
            return value
        return dict(zip(value, made, strict=True)) if type(value) is dict else type(value)(made)
    if not is_configured(value):
        return value
    try:
        parts = take_apart(value)
    except ParameterError:
        raise
    except Exception as error:
        raise _not_copied(type(value), error) from error
    if options:
        if parts.arguments is None or parts.attributes:
            lost = ", ".join(f"`{name}`" for name in parts.attributes)
            raise ParameterError(
                f"`{what}__{next(iter(options))}` cannot be set on the instance of {parts.kind.__name__}: its "
                f"`get_config` does not say what it was made with ({lost}). Give `{what}` as a class and each "
                f"argument as an option, {what}__name=..., or have `get_config` name every argument."
            )
        parts = parts._replace(arguments={**parts.arguments, **options})
    register()  # for the objects that it holds
    try:
        return put_together(*parts._replace(attributes=copy.deepcopy(parts.attributes, _shared(parts.attributes))))
    except ParameterError:
        raise
    except Exception as error:
        if options:
            raise
        raise _not_copied(parts.kind, error) from error


def copied_with_layers(value: Any, what: str) -> Any:
    """As `copied`, but copies layers and models, too, unless all their weights are frozen.

    Args:
        value: An argument of a function that builds a model.
        what: Its name, for errors.

    Returns:
        A value that can be trained without changing the original.

    Raises:
        ParameterError: A layer cannot be copied.
    """
    if type(value) in (list, tuple):
        made = [copied_with_layers(item, what) for item in value]
        return value if all(map(operator.is_, made, value)) else type(value)(made)
    if "keras" not in sys.modules or not _keras.is_layer(value):
        return copied(value)
    if value.built and not value.trainable_variables:
        return value
    try:
        with _keras.without_lambda_warning():
            if value.built:
                return copied_model(value) if hasattr(value, "compile") else copy.deepcopy(value)
            made = type(value).from_config(value.get_config())
    except Exception as error:
        raise _layer_not_copied(value, what, error) from error
    for name, held in vars(value).items():
        of_users = isinstance(held, (bool, int, float, str)) and name not in _keras.names_of_any_layer()
        if of_users and not is_same(held, vars(made).get(name)):
            raise _layer_not_copied(value, what, f"its `get_config` leaves out {name!r}")
    return made


def _layer_not_copied(layer: keras.Layer, what: str, error: Exception | str) -> ParameterError:
    return ParameterError(
        f"`{what}` is an instance of {type(layer).__name__}, which cannot be copied ({error}), and each fit trains a "
        "layer of its own. Give the class or a function that makes it; or register the class with "
        "@keras.saving.register_keras_serializable() and have its `get_config` name every argument."
    )


def _not_copied(kind: type, error: Exception | str) -> ParameterError:
    return ParameterError(
        f"An instance of {kind.__name__} cannot be copied ({error}), and each fit works on a copy. Have its "
        "`get_config` name every argument, or give the class, and each argument as an option."
    )


def _shared(attributes: Mapping[str, Any]) -> dict[int, Any]:
    """What a copy shares with the original: models and layers, which a loss calls but does not train."""
    return {id(value): value for value in attributes.values() if _keras.is_layer(value)}


def take_apart(thing: object) -> Parts:
    """What an object can be put together from, so that nothing of it is lost.

    Raises:
        ParameterError: A function that it holds reads the object itself, so that a copy would still read the original.
    """
    kind = type(thing)
    is_of_keras = kind.__module__.startswith("keras.")
    try:
        arguments, by_constructor = _arguments(thing, guess=not is_of_keras)
        if is_of_keras:
            return Parts(kind, arguments, by_constructor, {})
        made = put_together(kind, arguments, by_constructor, {})
    except Exception:  # in the user's code, or Keras finds no class by that name
        if is_of_keras:
            raise
        made, arguments, by_constructor = None, None, False
    skipped = _keras.tracking_attributes(thing)
    attributes = {}
    for name, value in vars(thing).items():
        if name in skipped:
            continue
        if made is not None and name in vars(made) and is_same(value, vars(made)[name], ((thing, made),)):
            continue
        if isinstance(value, types.MethodType) and value.__self__ is thing:
            value = _OfItself(value.__name__)
        elif isinstance(value, types.FunctionType) and any(cell is thing for cell in _cells(value)):
            raise _not_copied(kind, f"its {name!r} is a function that reads the instance")
        attributes[name] = _untracked(value)
    return Parts(kind, arguments, by_constructor, attributes)


def _untracked(value: object) -> Any:
    """Lists and dicts as Python's own, since Keras and TensorFlow wrap those that an object holds."""
    if isinstance(value, (list, dict)) and type(value).__module__.startswith(("keras.", "tensorflow.")):
        if isinstance(value, dict):
            return {name: _untracked(item) for name, item in value.items()}
        return [_untracked(item) for item in value]
    return value


def _cells(function: types.FunctionType) -> list[Any]:
    """The values of other scopes that a function reads."""
    cells = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            cells.append(cell.cell_contents)
    return cells


def put_together(kind: Any, arguments: dict[str, Any] | None, by_constructor: bool, attributes: dict[str, Any]) -> Any:
    """Makes an object from its parts; see `Parts`."""
    register_class(kind)
    if arguments is None:
        attributes = dict(attributes)
        made = _keras.without_constructor(kind, attributes)
    elif by_constructor:
        made = kind(**{name: copied(value) for name, value in arguments.items()})
    else:
        made = kind.from_config({name: copied(value) for name, value in arguments.items()})
    for name, value in attributes.items():
        setattr(made, name, getattr(made, value.name) if isinstance(value, _OfItself) else value)
    if attributes:
        _keras.reset(made)
    return made


def _arguments(thing: object, *, guess: bool) -> tuple[dict[str, Any], bool]:
    """Arguments that an object was made with, and whether they are those of its constructor instead of its config.

    What the config only describes, so that Keras would look it up by name, is taken from the object itself.
    """
    with _keras.without_lambda_warning():
        config = {name: _untracked(value) for name, value in _keras.config_of(thing).items()}
    kind: Any = type(thing)
    names, takes_any = _parameters(kind)
    held = {**vars(thing), **_keras.keywords_of(thing)}
    for name in names:
        places = (name, f"_{name}") if guess or name == "dtype" else (name,)
        place = next((place for place in places if place in held), None)
        if name not in config and place is not None:
            config[name] = _untracked(held[place])
    described = {name for name, value in config.items() if _is_described(value)}
    live = {name: held.get(name, held.get(f"_{name}")) for name in described}
    found = all(value is not None and not _keras.is_variable(value) for value in live.values())
    if described and found and (takes_any or config.keys() <= set(names)):
        return {**config, **live}, True
    return config, False


def _is_described(value: object) -> bool:
    """Whether a value of a config describes an object or a function, or contains such a description."""
    if isinstance(value, Mapping):
        return "class_name" in value or any(map(_is_described, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_described, value))


@functools.lru_cache(maxsize=512)
def _parameters(kind: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """Names of a constructor's arguments, and whether it takes any others."""
    found = [p for name, p in inspect.signature(kind.__init__).parameters.items() if name != "self"]
    named = tuple(p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return named, any(p.kind is p.VAR_KEYWORD for p in found)


# -- whether two objects are the same -------------------------------------------------------------------------------


def is_same(one: Any, other: Any, assumed: tuple[tuple[Any, Any], ...] = ()) -> bool:
    """Whether two values are the same in all that they hold.

    Args:
        one: A value.
        other: Another.
        assumed: Pairs that are assumed to be the same, because they are being compared. Defaults to none.
    """
    if one is other or any(one is left and other is right for left, right in assumed):
        return True
    if type(one) is not type(other):
        return False
    if _keras.is_variable(one):  # its value is a state, which does not count
        return tuple(one.shape) == tuple(other.shape) and str(one.dtype) == str(other.dtype)
    if isinstance(one, (bool, int, str, bytes)):
        return bool(one == other)
    if isinstance(one, float):
        return bool(one.hex() == other.hex())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(is_same(*pair, assumed) for pair in zip(one, other, strict=True))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(is_same(value, other[name], assumed) for name, value in one.items())
    if isinstance(one, np.ndarray):
        alike = bool(one.dtype == other.dtype) and one.shape == other.shape
        if one.dtype == object:
            return alike and is_same(one.tolist(), other.tolist(), assumed)
        return alike and one.tobytes() == other.tobytes()
    if isinstance(one, types.MethodType):
        return one.__func__ is other.__func__ and is_same(one.__self__, other.__self__, assumed)
    if isinstance(one, functools.partial):
        return is_same([one.func, one.args, one.keywords], [other.func, other.args, other.keywords], assumed)
    if isinstance(one, types.FunctionType):  # made twice by the same code, as in a constructor
        first, second = ([f.__defaults__, f.__kwdefaults__, _cells(f)] for f in (one, other))
        same_code = one.__code__ is other.__code__ and one.__globals__ is other.__globals__
        return same_code and is_same(first, second, assumed)
    if inspect.isclass(one) or isinstance(one, (types.ModuleType, types.BuiltinFunctionType)):
        return False
    if hasattr(one, "shape") and hasattr(one, "dtype"):
        return is_same(_keras.as_numpy(one), _keras.as_numpy(other), assumed)
    if hasattr(one, "__dict__"):
        left, right = (
            {name: item for name, item in vars(thing).items() if name not in _keras.tracking_attributes(one)}
            for thing in (one, other)
        )
        return is_same(left, right, (*assumed, (one, other)))
    try:
        return bool(one == other)
    except Exception:  # its own comparison does not say
        return False


# -- Python's copy and pickle ---------------------------------------------------------------------------------------


def register() -> None:
    """Makes Python copy and pickle every known class of losses, metrics, optimizers and models without loss."""
    if "keras" not in sys.modules:
        return
    import keras

    for kind in (*_keras.classes_with_config(), keras.Model):
        _register_below(kind)


def _register_below(kind: type) -> None:
    register_class(kind)
    others: list[type] = kind.__subclasses__()
    for other in others:
        _register_below(other)


def register_class(kind: type) -> None:
    """Registers one class, unless it defines itself how it is copied."""
    if kind not in copyreg.dispatch_table and _keras.is_copied_by_config(kind):
        copyreg.pickle(kind, _reduced_model if hasattr(kind, "compile") else _reduced)


def _reduced(thing: object) -> tuple[Any, ...]:
    parts = take_apart(thing)
    if parts.kind.__module__.startswith("keras.") and not parts.by_constructor:
        # Without our names, so that a pickle of Keras' own objects can be read without kerastoolkit.
        return parts.kind.from_config, (parts.arguments,)  # type: ignore[attr-defined]
    return put_together, tuple(parts)


# -- models ---------------------------------------------------------------------------------------------------------


def copied_model(model: keras.Model) -> keras.Model:
    """A copy of a model: layers and weights by Keras, what it was compiled with by `copied`.

    Raises:
        ParameterError: What it was compiled with cannot be copied.
        Exception: Whatever Keras raises for a layer that it cannot copy.
    """
    arguments = compiled_with(model)
    if arguments is None:
        return copy.deepcopy(model)
    made = _keras.uncompiled_model_of(_keras.file_of(model))
    return compile_model(made, _rebound(copied(arguments), model, made), _optimizer_state(model))


def _reduced_model(model: keras.Model) -> tuple[Any, ...]:
    arguments = compiled_with(model)
    if arguments is None or all(map(_is_in_file, arguments.values())):
        by_keras: Any = model.__reduce__()
        return tuple(by_keras)
    return _itself, (_Carried(model, arguments),)


class _Carried:
    """Stands in for a model that Python copies or pickles, and comes out as that model with nothing lost."""

    def __init__(self, model: keras.Model, arguments: dict[str, Any]) -> None:
        self._model, self._arguments = model, arguments

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copied_model(self._model)

    def __reduce__(self) -> Any:
        import joblib

        # A function that builds a model often compiles it with functions that pickle alone does not accept.
        wrapped = joblib.wrap_non_picklable_objects(self._arguments, keep_wrapper=False)
        return _unpickled_model, (_keras.file_of(self._model), wrapped, _optimizer_state(self._model))


def _itself(model: object) -> Any:
    return model


def _is_in_file(value: object) -> bool:
    """Whether Keras' own file of a model holds all of this, and can be read without kerastoolkit."""
    import keras

    if isinstance(value, keras.optimizers.Optimizer):
        has_plain_rate = type(value).__module__.startswith("keras.") and _keras.is_variable(_keras.rate_of(value))
        return has_plain_rate and not take_apart(value).by_constructor
    if isinstance(value, Mapping):
        value = list(value.values())
    return all(map(_is_in_file, value)) if isinstance(value, (list, tuple)) else type(value) in _PLAIN


_PLAIN = (bool, float, int, str, type(None))


def _unpickled_model(file: bytes, arguments: dict[str, Any], state: list[Any]) -> keras.Model:
    return compile_model(_keras.uncompiled_model_of(file), arguments, state)


def compiled_with(model: keras.Model) -> dict[str, Any] | None:
    """Arguments of `Model.compile` that a model was compiled with; None if it was not, or by a `compile` of its own."""
    import keras

    kind = type(model)
    if kind.compile is not keras.Model.compile or not _keras.is_copied_by_config(kind) or hasattr(kind, "__deepcopy__"):
        return None
    arguments = _keras.compile_arguments(model) if model.compiled else None
    # Its optimizer need not be the one that was given: Keras wraps it to scale the loss in half precision.
    return None if arguments is None else {**arguments, "optimizer": model.optimizer}


def _optimizer_state(model: keras.Model) -> list[Any]:
    optimizer = model.optimizer
    return [_keras.as_numpy(variable) for variable in optimizer.variables] if optimizer and optimizer.built else []


def compile_model(model: keras.Model, arguments: dict[str, Any], state: list[Any]) -> keras.Model:
    """Compiles a model, and gives its optimizer the state of another one, if there is one.

    Args:
        model: The model.
        arguments: Arguments of `Model.compile`.
        state: Values of the optimizer's variables; none for a new optimizer.
    """
    model.compile(**arguments)
    if state:
        model.optimizer.build(model.trainable_variables)
        own = model.optimizer.variables
        # If layers were frozen or unfrozen since it was built, its state belongs to other weights.
        if [tuple(variable.shape) for variable in own] == [np.shape(value) for value in state]:
            for variable, value in zip(own, state, strict=True):
                variable.assign(value)
    return model


def _rebound(value: Any, model: keras.Model, made: keras.Model) -> Any:
    """A value in which methods of a model are replaced by those of another."""
    if isinstance(value, types.MethodType) and value.__self__ is model:
        return getattr(made, value.__name__)
    if type(value) in (list, tuple):
        return type(value)(_rebound(item, model, made) for item in value)
    if type(value) is dict:
        return {name: _rebound(item, model, made) for name, item in value.items()}
    return value
