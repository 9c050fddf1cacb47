"""Values of parameters become what Keras takes: arguments of a build function, optimizers, losses, metrics, callbacks.

A name, a class or an instance may stand for each of them, with options routed below its name; see `_parameters`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kerastoolkit import _copies
from kerastoolkit._values import shown
from kerastoolkit.estimators import _spellings
from kerastoolkit.estimators._parameters import arguments_of, describe, keras_arguments, plain
from kerastoolkit.estimators._spellings import near_miss
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training._structure import NUMBERS_AS_GIVEN, OptimizerLike

# What an estimator passes to a build function that has such an argument, and only if that has no default. All else that
# it offers (scikeras' "meta", "compile_kwargs" and "params") is always passed.
_OFFERED_IF_REQUIRED = ("input_shape", "head", "columns")
_OF_SCIKERAS = ("meta", "compile_kwargs", "params")


class NotLoaded:
    """Stands for a parameter of which a file contains only the name.

    Args:
        name: The name in the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<not loaded: {self.name}>"

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Raises an error: there is nothing to call.

        Raises:
            ParameterError: Always; the message says how to restore the parameter.
        """
        raise ParameterError(
            f"A parameter of this estimator was {self.name}, of which the file contains only the name. Pass it to "
            f"kerastoolkit.load as custom_objects={{{self.name!r}: ...}}, or set it again with set_params."
        )


# -- the build function ---------------------------------------------------------------------------------------------


def call_arguments(
    build: Callable[..., Any],
    *,
    routed: Mapping[str, Any],
    undeclared: Mapping[str, Any],
    declared: Mapping[str, Callable[[], Any]],
    offered: Mapping[str, Callable[[], Any]],
) -> dict[str, Any]:
    """The arguments for a call of a build function.

    Args:
        build: The build function.
        routed: Parameters given as `model__name`; they take precedence.
        undeclared: Parameters given by their bare name.
        declared: The estimator's own parameters that are set (`optimizer`, `epochs`, ...), made only if needed.
        offered: What the estimator can pass (`meta`, `input_shape`, ...), made only if needed.

    Returns:
        Values by name.

    Raises:
        ParameterError: An argument without a default got no value.
    """
    parameters = arguments_of(build)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {name: plain(make()) for name, make in declared.items() if name in parameters}
    arguments |= {name: plain(value) for name, value in undeclared.items() if name in parameters}
    if takes_any:
        others = keras_arguments("fit") | keras_arguments("compile")
        arguments |= {name: plain(value) for name, value in undeclared.items() if name not in others}
    arguments |= _nested(routed)
    # Objects are copied, so that the next fit starts from scratch.
    arguments = {name: _copies.copied_with_layers(value, name) for name, value in arguments.items()}
    for name, make in offered.items():
        named = name in parameters and (
            name not in _OFFERED_IF_REQUIRED or parameters[name].default is inspect.Parameter.empty
        )
        # scikeras passes its three to every function with `**kwargs`; here, only to a function that reads them.
        read = takes_any and name in _OF_SCIKERAS and name in _strings_in(build)
        if (named or read) and name not in arguments:
            arguments[name] = make()
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in arguments
    ]
    if missing:
        raise ParameterError(
            f"{describe(build)} needs {', '.join(f'`{name}`' for name in missing)}, which got no value. Pass it to "
            f"the estimator ({missing[0]}=... or model__{missing[0]}=...), or give the argument a default."
        )
    return arguments


def _strings_in(build: Callable[..., Any]) -> set[str]:
    """The strings in a function's code, such as the names that it looks up in its `**kwargs`."""
    codes = [getattr(getattr(build, "func", build), "__code__", None)]  # of a functools.partial, too
    found: set[str] = set()
    while codes:
        constants = getattr(codes.pop(), "co_consts", ())
        found |= {constant for constant in constants if isinstance(constant, str)}
        codes += [constant for constant in constants if isinstance(constant, types.CodeType)]
    return found


# -- names, classes and objects -------------------------------------------------------------------------------------


def make_optimizer(spec: object, options: Mapping[str, Any]) -> Any:
    """A new optimizer from a name, a class or an instance, with options over its own.

    Raises:
        ParameterError: The name is unknown, or an option is not one of the optimizer's.
    """
    import keras

    if isinstance(spec, str):
        spec = _class_of_name(spec, keras.optimizers, keras.optimizers.Optimizer, "optimizer")
    made = _make(spec, _nested(options), "optimizer")
    return made if isinstance(made, keras.optimizers.Optimizer) else _checked(made, keras.optimizers, "optimizer")


def optimizer_to_look_at(spec: object, options: Mapping[str, Any]) -> Any:
    """As `make_optimizer`, but only to be read: one of Keras' own is made once for many candidates."""
    import keras

    plain = {name: (type(value), value) for name, value in options.items()}
    of_keras = isinstance(spec, str) or (isinstance(spec, type) and spec.__module__.startswith("keras."))
    if not of_keras or any(kind not in (bool, float, int, str) for kind, _ in plain.values()):
        return make_optimizer(spec, options)
    numbers = {name: value for name, (kind, value) in plain.items() if name in NUMBERS_AS_GIVEN and kind is float}
    numbers = {name: value for name, value in numbers.items() if value}
    others = tuple((name, *plain[name]) for name in plain if name not in numbers)
    return OptimizerLike(_known_optimizer(spec, others, tuple(numbers), keras.config.floatx()), numbers)


@functools.lru_cache(maxsize=64)
def _known_optimizer(
    spec: object, options: tuple[tuple[str, type, Any], ...], numbers: tuple[str, ...], floatx: str
) -> Any:
    return make_optimizer(spec, {**{name: value for name, _, value in options}, **dict.fromkeys(numbers, 1.0)})


def make_loss(spec: object, options: Mapping[str, Any]) -> Any:
    """A loss, or a list or dict of them, from names, classes, functions or instances, with options over their own."""
    import keras

    return _make_each(spec, _nested(options), "loss", keras.losses, keras.losses.Loss)


def make_metrics(spec: object, options: Mapping[str, Any]) -> Any:
    """Metrics as `Model.compile` takes them; one alone becomes a list."""
    import keras

    made = _make_each(spec, _nested(options), "metrics", keras.metrics, keras.metrics.Metric)
    return made if isinstance(made, (list, tuple, Mapping)) else [made]


def make_callbacks(spec: object, options: Mapping[str, Any]) -> list[Any]:
    """New callbacks for one fit: classes are made, instances copied, options set.

    Args:
        spec: A callback or a list or dict of them, each an instance or a class, or `None` to leave it out; or `None`
            for no callbacks at all, whatever options there are.
        options: By name: `early_stopping__patience` (the class in snake case, the index in the list, or the key in
            the dict); a bare `patience` reaches every callback that has one; a bare `early_stopping` replaces a
            callback; a number is a positional argument of a class that is not in a list.

    Raises:
        ParameterError: Something is not a callback, or an option does not reach any of them.
    """
    import keras

    entries = _named(spec)
    nested = _nested(options)
    positional: dict[str, Any] = {}
    if inspect.isclass(spec):
        numbers = [name for name, value in nested.items() if name.isdigit() and not _is_options_or_callback(value)]
        positional = {name: nested.pop(name) for name in numbers}
    for name, value in list(nested.items()):
        given = value.value if isinstance(value, _Options) and value.given else value
        if _is_callback(given) or (name in entries and not isinstance(given, _Options)):
            entries[name] = given
            if value is given:
                del nested[name]
    left_out = {name for name, entry in entries.items() if entry is None}
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    if not entries and (spec is None or left_out):
        return []
    for name, entry in entries.items():
        if not _is_callback(entry):
            raise ParameterError(
                f"`callbacks` has {entry!r} at {name!r}, which is not a Keras callback. Give an instance or class of "
                "keras.callbacks.Callback, or a list or dict of them."
            )
    made, reached = [], set()
    for name, entry in entries.items():
        own = dict(positional)
        for option, value in nested.items():
            if option in _aliases(name, entry, entries) and isinstance(value, _Options):
                own |= _nested(value.below)
                reached.add(option)
            elif option not in entries and _has_argument(entry, option):
                own.setdefault(option, value)
                reached.add(option)
        made.append(_make_callback(entry, own, f"callbacks__{name}"))
    lost = [option for option in nested if option not in reached | left_out]
    if lost:
        names = sorted({alias for name, entry in entries.items() for alias in _aliases(name, entry, entries)})
        advice = f" {_spellings.HOW_TO_STOP_EARLY.format('')} With callbacks=None, such options are ignored."
        raise ParameterError(
            f"`callbacks__{lost[0]}` reaches no callback.{near_miss(lost[0].split('__')[0], names)} "
            f"The callbacks are: {', '.join(names) or 'none'}."
            f"{'' if names else advice}"
        )
    for callback in made:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ParameterError(f"`callbacks` made {callback!r}, which is not a Keras callback.")
    return made


def given_callbacks(given: object) -> list[Any]:
    """The callbacks that were passed to `fit`, which are used as they are.

    Raises:
        ParameterError: One of them is not a callback.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    for one in several:
        if not _is_callback(one) or inspect.isclass(one):
            raise ParameterError(
                f"`callbacks` has {shown(one)}, which is not a Keras callback. Give fit(callbacks=[...]) instances of "
                "keras.callbacks.Callback."
            )
    return several


class _Options:
    """Options routed below a name, and the value of the name itself, if one was given."""

    def __init__(self) -> None:
        self.given = False
        self.value: Any = None
        self.below: dict[str, Any] = {}


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Groups `{"a": 1, "b__c": 2}` by first name: `{"a": 1, "b": _Options(c=2)}`."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        first, nested, rest = name.partition("__")
        if not nested:
            entry = result.get(first)
            if isinstance(entry, _Options):
                entry.given, entry.value = True, plain(value)
            else:
                result[first] = plain(value)
            continue
        entry = result.get(first)
        if not isinstance(entry, _Options):
            options_below = _Options()
            if first in result:
                options_below.given, options_below.value = True, entry
            result[first] = entry = options_below
        entry.below[rest] = plain(value)
    return {name: _resolved(value) for name, value in result.items()}


def _resolved(value: object) -> Any:
    """Makes an object of a class that has options: `learning_rate=ExponentialDecay, learning_rate__decay_rate=0.9`."""
    if isinstance(value, _Options) and value.given and inspect.isclass(value.value) and not _is_callback(value.value):
        return _make(value.value, _nested(value.below), value.value.__name__)
    return value


def _make_each(spec: object, options: dict[str, Any], what: str, room: types.ModuleType, kind: type) -> Any:
    """Makes one object, or each of a list or dict; options are given by index, key or class name, or for all."""
    if isinstance(spec, (list, tuple, Mapping)) and not spec and what == "loss":
        raise ParameterError(f"`loss` is {spec!r}, which is empty. Give a loss, or leave it out.")
    if not isinstance(spec, (list, tuple, Mapping)):
        return _make(_find(spec, room, kind, what) if options else _checked(spec, room, what), options, what)
    entries = _named(spec)
    known = {alias for name, entry in entries.items() for alias in _aliases(name, entry, entries)}
    for_all = {name: value for name, value in options.items() if name not in known}
    for name, value in for_all.items():
        if isinstance(value, _Options):
            raise ParameterError(
                f"`{what}__{name}__{next(iter(value.below))}` reaches nothing.{near_miss(name, known)} "
                f"In `{what}` there are: {', '.join(sorted(known))}."
            )
    made: dict[str, Any] = {}
    for name, entry in entries.items():
        own = dict(for_all)
        for alias in _aliases(name, entry, entries):
            if isinstance(options.get(alias), _Options):
                own |= _nested(options[alias].below)
        made[name] = _make_each(entry, own, what, room, kind)
    return dict(zip(spec, made.values(), strict=True)) if isinstance(spec, Mapping) else list(made.values())


def _make(spec: object, options: dict[str, Any], what: str) -> Any:
    for name, value in options.items():
        if isinstance(value, _Options):
            raise ParameterError(f"`{what}__{name}__{next(iter(value.below))}`: {name!r} takes no options of its own.")
    if inspect.isclass(spec):
        _check_options(spec, options, what)
        positional = [options[name] for name in sorted(name for name in options if name.isdigit())]
        named = {name: value for name, value in options.items() if not name.isdigit()}
        if spec.__module__.startswith("keras."):
            _check_numbers(spec, named, what)
        try:
            return spec(*positional, **named)
        except (TypeError, ValueError) as error:
            if not options or not spec.__module__.startswith("keras."):
                raise
            given = ", ".join([*map(shown, positional), *(f"{name}={shown(value)}" for name, value in named.items())])
            raise ParameterError(f"`{what}` cannot be made: {spec.__name__}({given}). {error}") from error
    if isinstance(spec, NotLoaded):
        spec()
    if _copies.is_configured(spec):
        # An instance belongs to the user: a copy is trained with, so that the next fit starts from scratch.
        _check_options(type(spec), options, what)
        return _copies.copied(spec, options, what)
    if options:
        raise ParameterError(
            f"`{what}` is {spec!r}, which takes no options, but got {', '.join(sorted(options))}. "
            f"Give `{what}` as a class or an instance."
        )
    return spec


# Numbers that Keras does not check, and fails on while it trains; they are None by default.
_NUMBERS_OR_NONE = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay")


def _check_numbers(kind: type, options: Mapping[str, Any], what: str) -> None:
    """Refuses a value that is not a number, nor makes one, for an option of a Keras class that is a number."""
    for name, value in options.items():
        parameter = arguments_of(kind).get(name)
        is_of_number = name in _NUMBERS_OR_NONE or isinstance(getattr(parameter, "default", None), float)
        of_classes = name == "alpha" and isinstance(value, (list, tuple))  # of a focal loss
        may_be = value is None or isinstance(value, (int, float)) or callable(value) or hasattr(value, "dtype")
        if is_of_number and not (may_be or of_classes):
            raise ParameterError(f"`{what}__{name}` must be a number; got {shown(value)}.")


def _check_options(kind: type, options: Iterable[str], what: str) -> None:
    parameters = arguments_of(kind)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if open_ended and not kind.__module__.startswith("keras."):
        return
    accepted = {name for name in parameters if name not in ("kwargs", "args")}
    for option in options:
        if option not in accepted and not option.isdigit():
            raise ParameterError(
                f"Invalid parameter '{what}__{option}': {kind.__name__} has no argument {option!r}."
                f"{near_miss(option, accepted)} It takes: {', '.join(sorted(accepted))}."
            )


def _find(spec: object, room: types.ModuleType, kind: type, what: str) -> Any:
    """The class that a name stands for, to set options of it."""
    if isinstance(spec, str):
        return _class_of_name(spec, room, kind, what)
    if inspect.isfunction(spec) and spec.__module__.startswith("keras."):
        return _class_of_name(spec.__name__, room, kind, what)
    return spec


def _checked(spec: object, room: types.ModuleType, what: str) -> Any:
    by_keras = isinstance(spec, str) and spec in (
        "accuracy",
        "acc",
        "crossentropy",
        "ce",
    )  # which chooses the right one itself
    if spec is None or by_keras or (callable(spec) and what != "optimizer"):
        return spec
    try:
        room.get(spec)
    except (ValueError, TypeError, KeyError):
        if not isinstance(spec, str):
            raise ParameterError(
                f"`{what}` is {shown(spec)}, which Keras does not know. Give a name, a class or an instance of "
                f"{room.__name__}."
            ) from None
        names = [_snake(name) for name in dir(room) if name[0].isupper()]
        raise ParameterError(f"`{what}` is {spec!r}, which Keras does not know.{near_miss(spec, names)}") from None
    return spec


def _class_of_name(name: str, room: types.ModuleType, kind: type, what: str) -> type:
    wanted = _plain_name(name)
    classes = {key: value for key, value in vars(room).items() if inspect.isclass(value) and issubclass(value, kind)}
    for key, value in classes.items():
        if _plain_name(key) == wanted:
            return value
    try:  # short names such as "mse", and objects that a user registered
        found = room.get(name)
    except (ValueError, TypeError):
        found = None
    if isinstance(found, kind):
        return type(found)
    if inspect.isclass(found):
        return found
    if found is not None and _plain_name(found.__name__) != wanted:
        return _class_of_name(found.__name__, room, kind, what)
    names = {_snake(key) for key in classes} | {key.lower() for key in classes}
    raise ParameterError(f"`{what}` is {name!r}, which Keras does not know.{near_miss(name.lower(), names)}")


def _named(spec: object) -> dict[str, Any]:
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        entries = dict(spec)
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        entries = {str(place): entry for place, entry in enumerate(spec)}
    else:
        return {"0": spec}
    flat: dict[str, Any] = {}
    for name, entry in entries.items():
        nested = isinstance(entry, (list, tuple)) and all(map(_is_callback, entry)) and len(entry) > 0
        flat |= {f"{name}_{place}": one for place, one in enumerate(entry)} if nested else {str(name): entry}
    return flat


def _aliases(name: str, entry: object, entries: Mapping[str, Any]) -> list[str]:
    """The names of an entry: its key or index, and its class if that is unique."""
    if isinstance(entry, str):
        return [name, entry]
    kinds = [other if inspect.isclass(other) else type(other) for other in entries.values()]
    kind = entry if inspect.isclass(entry) else type(entry)
    own = [_snake(kind.__name__), kind.__name__] if kinds.count(kind) == 1 else []
    return [name, *own]


def _is_callback(value: object) -> bool:
    import keras

    if inspect.isclass(value):
        return issubclass(value, keras.callbacks.Callback)
    return isinstance(value, keras.callbacks.Callback)


def _is_options_or_callback(value: object) -> bool:
    return isinstance(value, _Options) or _is_callback(value)


def _has_argument(entry: object, name: str) -> bool:
    if inspect.isclass(entry):
        return name in arguments_of(entry)
    return name in arguments_of(type(entry)) and hasattr(entry, name)


def _make_callback(entry: object, options: dict[str, Any], what: str) -> Any:
    if inspect.isclass(entry):
        return _make(entry, options, what)
    try:
        _copies.register()
        callback = copy.deepcopy(entry)
    except Exception as error:
        raise ParameterError(
            f"`{what}`: {type(entry).__name__} cannot be copied ({error}); each fit works on a copy of its callbacks. "
            "Give the class and its options, or pass the instance to fit(callbacks=[...])."
        ) from error
    for name, value in options.items():
        if not hasattr(callback, name):
            raise ParameterError(
                f"Invalid parameter '{what}__{name}': {type(entry).__name__} has no attribute {name!r}."
                f"{near_miss(name, vars(callback))}"
            )
        setattr(callback, name, value)
    return callback


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _plain_name(name: str) -> str:
    return name.replace("_", "").lower()


def configurable(spec: object, what: str) -> list[tuple[list[str], type, Any]]:
    """The objects among losses, metrics or callbacks that have options: names, class, and the object if it was made."""
    import keras

    rooms = {"loss": (keras.losses, keras.losses.Loss), "metrics": (keras.metrics, keras.metrics.Metric)}
    entries, found = _named(spec), []
    for name, entry in entries.items():
        alone = what != "callbacks" and not isinstance(spec, (list, tuple, Mapping))
        aliases = [""] if alone else sorted(_aliases(name, entry, entries), key=lambda one: not one.isidentifier())
        if isinstance(entry, str) and entry in ("accuracy", "acc", "crossentropy", "ce"):
            continue  # Keras chooses one of several by the target
        kind = entry if what == "callbacks" else _find(entry, *rooms[what], what)
        if inspect.isclass(kind) or _copies.is_configured(kind) or _is_callback(kind):
            made = None if inspect.isclass(kind) else kind
            found.append((aliases, kind if inspect.isclass(kind) else type(kind), made))
    return found
