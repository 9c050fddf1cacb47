"""The grammar of an estimator's parameters: which name reaches what, and how a value becomes a Keras object.

A name without `__` is an argument of the build function, of `Model.fit` or of `Model.compile`, in this order. A name
with `__` says where it goes: `model__hidden`, `optimizer__learning_rate`, `loss__from_logits`,
`metrics__auc__num_thresholds`, `callbacks__early_stopping__patience`, `fit__steps_per_epoch`, `predict__batch_size`,
`compile__run_eagerly`, `head__label_smoothing`. What could reach nothing is an error that names the near miss: a grid
over a misspelt name would otherwise train the same model again and again.

Nothing here knows scikit-learn: an estimator hands in its parameters as plain dicts.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kerastoolkit import _copies
from kerastoolkit._values import flag_wanted, fraction_wanted, is_number, is_whole, shown, whole_number_wanted
from kerastoolkit._words import did_you_mean
from kerastoolkit.distribution import strategy
from kerastoolkit.estimators import _spellings
from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.training._structure import NUMBERS_AS_GIVEN, OptimizerLike

DESTINATIONS = (
    "model",
    "optimizer",
    "loss",
    "metrics",
    "callbacks",
    "fit",
    "predict",
    "compile",
    "score",
    "head",
    "columns",
    "distribution",
)

# What an estimator hands to a build function that names it, and only where that has no default of its own. All else
# that it offers (scikeras' "meta", "compile_kwargs" and "params") is always handed over.
_OFFERED_IF_REQUIRED = ("input_shape", "head", "columns")
_OF_SCIKERAS = ("meta", "compile_kwargs", "params")

# What Keras called things once, and books and courses still do.
_OLD_NAMES = {"lr": "learning_rate", "learn_rate": "learning_rate", "nb_epoch": "epochs", "decay": "weight_decay"}

OPTIONS_OF_HEAD = {"class_weight", "focal", "from_logits", "kind", "label_smoothing", "weight"}

# Options of functions that the estimator calls: how an error names the function, and the names that a user may set.
_OPTIONS = {
    "head": ("the head", OPTIONS_OF_HEAD),
    "columns": ("the reading of columns", {"categorical", "max_categories", "min_count"}),
    # `distribution` and `precision` are parameters of the estimator.
    "distribution": ("distribution.strategy", {*inspect.signature(strategy).parameters} - {"name", "precision"}),
}

# Arguments of fit that the estimator fills in itself.
_NOT_FOR_FIT = {"self", "x", "y", "sample_weight", "class_weight", "validation_data"}


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
            f"A parameter of this estimator was {self.name}, which its file holds only by name. Hand it to "
            f"kerastoolkit.load as custom_objects={{{self.name!r}: ...}}, or set it again with set_params."
        )


# -- names ----------------------------------------------------------------------------------------------------------


def check_names(names: Iterable[str], *, declared: Iterable[str], build: Callable[..., Any] | None, owner: str) -> None:
    """Refuses every name that could reach nothing, all in one message.

    Args:
        names: Names of undeclared and routed parameters.
        declared: Names of the estimator's own parameters, for near misses.
        build: The build function, `None` for a model that is already built.
        owner: Name of the estimator's class, for the message.

    Raises:
        ParameterError: One line for each name that reaches nothing.
    """
    declared, own = list(declared), build_arguments(build)
    complaints = [complaint for name in names if (complaint := _complaint(name, declared, build, own, owner))]
    if complaints:
        raise ParameterError("\n".join(complaints))


def _complaint(
    name: str, declared: list[str], build: Callable[..., Any] | None, own: set[str] | None, owner: str
) -> str | None:
    if _fits(name, declared, build, own):
        return None
    destination, routed, rest = name.partition("__")

    def fits(other: str) -> bool:
        return _fits(other, declared, build, own)

    def meant(*near: Any) -> str:
        found = _spellings.meant(name, fits, DESTINATIONS)
        return found or near_miss(*near) or _spellings.near_miss_elsewhere(name, fits)

    if routed and destination not in DESTINATIONS:
        known = [f"{place}__{rest}" for place in DESTINATIONS]
        return (
            f"Invalid parameter {name!r} for estimator {owner}: nothing is called {destination!r}."
            f"{meant(name, known + declared)} A routed parameter begins with "
            f"{', '.join(place + '__' for place in DESTINATIONS)}."
        )
    if routed and destination == "columns" and "columns" not in (own or ()):
        return f"Invalid parameter {name!r} for estimator {owner}: {describe(build)} takes no columns; `tabular` does."
    if routed:
        first = rest.split("__")[0]
        if destination == "fit" and first in _NOT_FOR_FIT:
            settable = name == "fit__class_weight" and "class_weight" in declared
            return None if settable else _not_routed(name, first, owner)
        what, accepted = (describe(build), own) if destination == "model" else _place(destination)
        return (
            f"Invalid parameter {name!r} for estimator {owner}: {what} has no argument {first!r}."
            f"{near_miss(first, accepted or ()) or meant(first, ())} It takes: "
            f"{', '.join(sorted(accepted or ())) or 'none'}."
        )
    candidates = [*declared, *(own or ())]
    return (
        f"Invalid parameter {name!r} for estimator {owner}: it is no parameter of the estimator and no argument of "
        f"{describe(build)}.{meant(name, candidates)} Arguments of {describe(build)}: "
        f"{', '.join(sorted(own or ())) or 'none'}. Valid parameters are: {sorted(declared)!r}. "
        "`list_parameters()` shows each with its value."
    )


def _fits(name: str, declared: list[str], build: Callable[..., Any] | None, own: set[str] | None) -> bool:
    """Whether a name could reach something; of what is made later (an optimizer, say), options are checked there."""
    destination, routed, rest = name.partition("__")
    if not routed:
        known = name in declared or own is None or name in own
        return known or name in keras_arguments("fit") | keras_arguments("compile")
    if destination not in DESTINATIONS or (destination == "columns" and "columns" not in (own or ())):
        return False
    if destination in ("model", "fit", "compile", "predict", *_OPTIONS):
        accepted = own if destination == "model" else _place(destination)[1]
        return accepted is None or rest.split("__")[0] in accepted
    return True


def _not_routed(name: str, argument: str, owner: str) -> str:
    """What to say of an argument of `Model.fit` that is no setting, or is one of a classifier alone."""
    instead = {
        "x": "Rows are given to fit(X, y).",
        "y": "Targets are given to fit(X, y).",
        "class_weight": "It has no classes to weigh. Weigh the rows: fit(X, y, sample_weight=...).",
    }.get(argument, f"Give it to fit: fit(X, y, {argument}=...); a search passes it on from its own fit.")
    return f"Invalid parameter {name!r} for estimator {owner}: `{argument}` is no setting of the estimator. {instead}"


def _place(destination: str) -> tuple[str, Iterable[str] | None]:
    """How an error names what a routed parameter goes to, and the names that it takes."""
    if destination in _OPTIONS:
        return _OPTIONS[destination]
    return f"Model.{destination}", keras_arguments(destination)


def build_arguments(build: Callable[..., Any] | None) -> set[str] | None:
    """Names of a build function's arguments; `None` if it takes any (`**kwargs`), empty for a built model."""
    if build is None:
        return set()
    parameters = _signature(build)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return set(parameters)


def arguments_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Arguments of a function, or of what makes an object of a class, by name."""
    return _signature(function)


def options_of(place: str) -> set[str]:
    """Names of the options of a function that the estimator calls: `"head"`, `"columns"` or `"distribution"`."""
    return set(_OPTIONS[place][1])


def configurable(spec: Any, what: str) -> list[tuple[list[str], type, Any]]:
    """What options can be routed to in losses, metrics or callbacks: its names there, its class, and itself if made."""
    import keras

    rooms = {"loss": (keras.losses, keras.losses.Loss), "metrics": (keras.metrics, keras.metrics.Metric)}
    entries, found = _named(spec), []
    for name, entry in entries.items():
        alone = what != "callbacks" and not isinstance(spec, (list, tuple, Mapping))
        aliases = [""] if alone else sorted(_aliases(name, entry, entries), key=lambda one: not one.isidentifier())
        if isinstance(entry, str) and entry in ("accuracy", "acc", "crossentropy", "ce"):
            continue  # which of several it is, Keras sees from the target
        kind = entry if what == "callbacks" else _find(entry, *rooms[what], what)
        if inspect.isclass(kind) or _copies.is_configured(kind) or _is_callback(kind):
            made = None if inspect.isclass(kind) else kind
            found.append((aliases, kind if inspect.isclass(kind) else type(kind), made))
    return found


@functools.cache
def keras_arguments(method: str) -> frozenset[str]:
    """Names of the arguments of `keras.Model.fit`, `compile` or `predict` that a user may set."""
    import keras

    names = frozenset(inspect.signature(getattr(keras.Model, method)).parameters)
    return names - (_NOT_FOR_FIT if method in ("fit", "predict") else {"self"})


@contextlib.contextmanager
def named_below(destination: str) -> Iterator[None]:
    """A block that calls a function with options: its errors name them as the user of an estimator writes them.

    Args:
        destination: Where the options were routed to: `"head"`, `"columns"` or `"distribution"`.
    """
    names = "|".join(_OPTIONS[destination][1])
    try:
        yield
    except (DataError, ParameterError) as error:
        said = re.sub(rf"(?<=`)({names})(?=`)|(?<![\w'])({names})(?==)", rf"{destination}__\g<0>", str(error))
        if said == str(error):
            raise
        raise type(error)(said) from error


def near_miss(name: str, candidates: Iterable[str]) -> str:
    """A sentence with the names that look like `name`, or nothing."""
    known = sorted(set(candidates))
    old = _OLD_NAMES.get(name)
    return f" Did you mean {old!r}?" if old in known else did_you_mean(name, known)


def describe(build: Callable[..., Any] | None) -> str:
    """How an error names a build function."""
    if build is None:
        return "the model, which is already built"
    function = getattr(build, "func", build)
    return f"`{getattr(function, '__name__', type(function).__name__)}`"


def below(parameters: Mapping[str, Any], destination: str) -> dict[str, Any]:
    """The parameters routed to `destination`, without its name."""
    start = destination + "__"
    names = [name for name in parameters if name.startswith(start)]  # mostly none, and asked for again and again
    return {name[len(start) :]: plain(parameters[name]) for name in names}


def plain(value: Any) -> Any:
    """A number of numpy as a number of Python: grids are made by `np.arange`, layers check for `int`."""
    return value.item() if isinstance(value, np.generic) else value


# -- values ---------------------------------------------------------------------------------------------------------


def complaints(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A sentence for each argument of `Model.fit` or `predict` that no program could train or predict with.

    Args:
        values: Values by name; names that nothing is known of are passed over.
        prefix: What the user writes before the name, such as `"fit__"`. Defaults to nothing.
    """
    found = [_RULES[name](prefix + name, value) for name, value in values.items() if name in _RULES]
    return [sentence for sentence in found if sentence is not None]


def check_values(values: Mapping[str, Any], prefix: str = "") -> None:
    """Refuses values that `complaints` has something to say of.

    Raises:
        ParameterError: One line for each.
    """
    found = complaints(values, prefix)
    if found:
        raise ParameterError("\n".join(found))


def _rows_a_step(name: str, value: Any) -> str | None:
    if value is None or (is_whole(value) and value == -1):  # scikeras' spelling of "all rows at once"
        return None
    return whole_number_wanted(name, value, otherwise=", -1 for all rows, or None")


def _whole_or_none(name: str, value: Any) -> str | None:
    return None if value is None else whole_number_wanted(name, value, otherwise=", or None")


def _epochs_with_validation(name: str, value: Any) -> str | None:
    several = list(value) if isinstance(value, (list, tuple, set, frozenset, range, np.ndarray)) else None
    if several is not None and several and all(is_whole(one) and one >= 1 for one in several):
        return None
    return whole_number_wanted(name, value, otherwise=", or a list of the numbers of epochs")


def _flag_or_none(name: str, value: Any) -> str | None:
    return None if value is None else flag_wanted(name, value)


def _verbosity(name: str, value: Any) -> str | None:
    known = (is_whole(value) or isinstance(value, (bool, str))) and value in (0, 1, 2, "auto")
    return None if known else f"`{name}` must be 0, 1, 2 or 'auto'; got {shown(value)}."


def _weights_of_losses(name: str, value: Any) -> str | None:
    several = list(value.values()) if isinstance(value, Mapping) else value
    several = several if isinstance(several, (list, tuple)) else [several]
    if value is None or (several and all(is_number(plain(one)) for one in several)):
        return None
    return f"`{name}` must be a number, or a list or dict of one for each output; got {shown(value)}."


_RULES: dict[str, Callable[[str, Any], str | None]] = {
    "epochs": _whole_or_none,
    "batch_size": _rows_a_step,
    "validation_batch_size": _rows_a_step,
    "validation_split": fraction_wanted,
    "shuffle": flag_wanted,
    "warm_start": flag_wanted,
    "train_embedding": flag_wanted,
    "verbose": _verbosity,
    "initial_epoch": lambda name, value: whole_number_wanted(name, value, at_least=0),
    "steps_per_epoch": _whole_or_none,
    "validation_steps": _whole_or_none,
    "validation_freq": _epochs_with_validation,
    "steps": _whole_or_none,  # of predict
    "steps_per_execution": lambda name, value: whole_number_wanted(name, value),
    "run_eagerly": _flag_or_none,
    "auto_scale_loss": flag_wanted,
    "jit_compile": lambda name, value: None if str(value) == "auto" else _flag_or_none(name, value),
    "loss_weights": _weights_of_losses,
}


def check_random_state(value: Any) -> None:
    """Refuses what is neither a seed nor a generator that seeds are drawn from.

    Raises:
        ParameterError: It is something else; the message says what may be given.
    """
    if value is None or value is np.random or isinstance(value, np.random.RandomState):
        return
    if is_whole(value) and 0 <= value < 2**32:
        return
    instead = " Draw a seed from it: int(generator.integers(2**32))." if isinstance(value, np.random.Generator) else ""
    raise ParameterError(
        f"`random_state` must be a whole number from 0 to {2**32 - 1}, a numpy.random.RandomState or None; got "
        f"{shown(value)}.{instead}"
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
    """The arguments for a call of a build function: every parameter that it names.

    Args:
        build: The build function.
        routed: Parameters given as `model__name`; they come first.
        undeclared: Parameters given by bare name.
        declared: The estimator's own parameters that are set (`optimizer`, `epochs`, ...), made only when asked for.
        offered: What the estimator can hand over (`meta`, `input_shape`, ...), made only when asked for.

    Returns:
        Values by name.

    Raises:
        ParameterError: An argument without default got no value.
    """
    parameters = _signature(build)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {name: plain(make()) for name, make in declared.items() if name in parameters}
    arguments |= {name: plain(value) for name, value in undeclared.items() if name in parameters}
    if takes_any:
        others = keras_arguments("fit") | keras_arguments("compile")
        arguments |= {name: plain(value) for name, value in undeclared.items() if name not in others}
    arguments |= _nested(routed)
    # What trains is a copy, so that the next fit starts fresh.
    arguments = {name: _copies.copied_with_layers(value, name) for name, value in arguments.items()}
    for name, make in offered.items():
        named = name in parameters and (
            name not in _OFFERED_IF_REQUIRED or parameters[name].default is inspect.Parameter.empty
        )
        # scikeras hands its three to every function of `**kwargs`, where others would not know what to do with them.
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
    """The text in a function's code, such as the names of what it takes out of its `**kwargs`."""
    codes = [getattr(getattr(build, "func", build), "__code__", None)]  # of a functools.partial, too
    found: set[str] = set()
    while codes:
        constants = getattr(codes.pop(), "co_consts", ())
        found |= {constant for constant in constants if isinstance(constant, str)}
        codes += [constant for constant in constants if isinstance(constant, types.CodeType)]
    return found


def _signature(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    if isinstance(build, type) and build.__module__.startswith(_PACKAGES_THAT_STAY):
        return _known_signature(build)
    if not isinstance(build, types.FunctionType) or vars(build):
        return _read_signature(build)
    # It takes a tenth of a millisecond. What the user wrote may change, as when a notebook reloads it.
    code, defaults, others = build.__code__, build.__defaults__, build.__kwdefaults__
    known = _SIGNATURES.get(build)
    if known is None or known[0] is not code or known[1] is not defaults or known[2] != others:
        known = code, defaults, others and dict(others), _read_signature(build)
        if _is_plain(defaults, others):
            _SIGNATURES[build] = known
    return known[3]


_PACKAGES_THAT_STAY = ("keras.", "kerastoolkit.")
_SIGNATURES: weakref.WeakKeyDictionary[Any, tuple[Any, Any, Any, Mapping[str, inspect.Parameter]]]
_SIGNATURES = weakref.WeakKeyDictionary()


def _is_plain(*values: Any) -> bool:
    """Whether values lead to no object, which would be kept as long as the function is, and could lead back to it."""
    return all(
        _is_plain(*value) if type(value) is tuple
        else _is_plain(*value.values()) if type(value) is dict
        else value is None or type(value) in (bool, int, float, str)
        for value in values
    )  # fmt: skip


@functools.cache
def _known_signature(build: Any) -> Mapping[str, inspect.Parameter]:
    return _read_signature(build)


def _read_signature(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    target = build.__init__ if inspect.isclass(build) else build
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    return parameters


# -- names, classes and objects -------------------------------------------------------------------------------------


def make_optimizer(spec: Any, options: Mapping[str, Any]) -> Any:
    """A new optimizer from a name, a class or an instance, with options over its own.

    Raises:
        ParameterError: The name is unknown, or an option is not one of the optimizer's.
    """
    import keras

    if isinstance(spec, str):
        spec = _class_of_name(spec, keras.optimizers, keras.optimizers.Optimizer, "optimizer")
    made = _make(spec, _nested(options), "optimizer")
    return made if isinstance(made, keras.optimizers.Optimizer) else _checked(made, keras.optimizers, "optimizer")


def optimizer_to_look_at(spec: Any, options: Mapping[str, Any]) -> Any:
    """As `make_optimizer`, but for whoever only reads what is in it: one of Keras' own is made once for many grids."""
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
    spec: Any, options: tuple[tuple[str, type, Any], ...], numbers: tuple[str, ...], floatx: str
) -> Any:
    return make_optimizer(spec, {**{name: value for name, _, value in options}, **dict.fromkeys(numbers, 1.0)})


def make_loss(spec: Any, options: Mapping[str, Any]) -> Any:
    """A loss, or a list or dict of them, from names, classes, functions or instances, with options over their own."""
    import keras

    return _make_each(spec, _nested(options), "loss", keras.losses, keras.losses.Loss)


def make_metrics(spec: Any, options: Mapping[str, Any]) -> Any:
    """Metrics as `Model.compile` takes them; one alone becomes a list."""
    import keras

    made = _make_each(spec, _nested(options), "metrics", keras.metrics, keras.metrics.Metric)
    return made if isinstance(made, (list, tuple, Mapping)) else [made]


def make_callbacks(spec: Any, options: Mapping[str, Any]) -> list[Any]:
    """New callbacks for one fit: classes are made, instances copied, options set.

    Args:
        spec: A callback or a list or dict of them; each an instance or a class, `None` to leave one out. `None` for
            none at all, whatever options there are.
        options: By name: `early_stopping__patience` (the class in snake case, the place in the list, or the key in
            the dict); a bare `patience` reaches every callback that has it; a bare `early_stopping` replaces one; a
            number is a positional argument of a class that stands alone.

    Raises:
        ParameterError: Something is not a callback, or an option reaches none of them.
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
                f"`callbacks` holds {entry!r} at {name!r}, which is no Keras callback. Give instances or classes of "
                "keras.callbacks.Callback, alone or in a list or dict."
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
        advice = f" {_spellings.HOW_TO_STOP_EARLY.format('')} With callbacks=None such options wait."
        raise ParameterError(
            f"`callbacks__{lost[0]}` reaches no callback.{near_miss(lost[0].split('__')[0], names)} "
            f"The callbacks are called: {', '.join(names) or 'there are none'}."
            f"{'' if names else advice}"
        )
    for callback in made:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ParameterError(f"`callbacks` made {callback!r}, which is no Keras callback.")
    return made


def given_callbacks(given: Any) -> list[Any]:
    """The callbacks of a call of fit, which are used as they are.

    Raises:
        ParameterError: Something is no callback.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    for one in several:
        if not _is_callback(one) or inspect.isclass(one):
            raise ParameterError(
                f"`callbacks` holds {shown(one)}, which is no Keras callback. Give fit(callbacks=[...]) instances of "
                "keras.callbacks.Callback."
            )
    return several


class _Options:
    """Options routed below a name, and the value given for the name itself, if any."""

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


def _resolved(value: Any) -> Any:
    """A class with options below it is made: `learning_rate=ExponentialDecay, learning_rate__decay_rate=0.9`."""
    if isinstance(value, _Options) and value.given and inspect.isclass(value.value) and not _is_callback(value.value):
        return _make(value.value, _nested(value.below), value.value.__name__)
    return value


def _make_each(spec: Any, options: dict[str, Any], what: str, room: Any, kind: type) -> Any:
    """Makes one thing, or each of a list or dict; options by place, key or class name, or for all."""
    if isinstance(spec, (list, tuple, Mapping)) and not spec and what == "loss":
        raise ParameterError(f"`loss` is {spec!r}, without any loss in it. Give a name, or leave it out.")
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


def _make(spec: Any, options: dict[str, Any], what: str) -> Any:
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
        # An instance is the user's: what trains is a copy, so that the next fit starts fresh.
        _check_options(type(spec), options, what)
        return _copies.copied(spec, options, what)
    if options:
        raise ParameterError(
            f"`{what}` is {spec!r}, which takes no options, but got {', '.join(sorted(options))}. "
            f"Give `{what}` as a class or an instance."
        )
    return spec


# Numbers that Keras takes unseen and stumbles over while it trains; by default there are none.
_NUMBERS_OR_NONE = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay")


def _check_numbers(kind: type, options: Mapping[str, Any], what: str) -> None:
    """Refuses what is no number, and can make none, where one of Keras' classes has a number."""
    for name, value in options.items():
        parameter = _signature(kind).get(name)
        is_of_number = name in _NUMBERS_OR_NONE or isinstance(getattr(parameter, "default", None), float)
        of_classes = name == "alpha" and isinstance(value, (list, tuple))  # of a focal loss
        may_be = value is None or isinstance(value, (int, float)) or callable(value) or hasattr(value, "dtype")
        if is_of_number and not (may_be or of_classes):
            raise ParameterError(f"`{what}__{name}` must be a number; got {shown(value)}.")


def _check_options(kind: type, options: Iterable[str], what: str) -> None:
    parameters = _signature(kind)
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


def _find(spec: Any, room: Any, kind: type, what: str) -> Any:
    """The class behind a name, where options are to be set on it."""
    if isinstance(spec, str):
        return _class_of_name(spec, room, kind, what)
    if inspect.isfunction(spec) and spec.__module__.startswith("keras."):
        return _class_of_name(spec.__name__, room, kind, what)
    return spec


def _checked(spec: Any, room: Any, what: str) -> Any:
    by_keras = isinstance(spec, str) and spec in ("accuracy", "acc", "crossentropy", "ce")  # which finds the right one
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


def _class_of_name(name: str, room: Any, kind: type, what: str) -> type:
    wanted = _plain_name(name)
    classes = {key: value for key, value in vars(room).items() if inspect.isclass(value) and issubclass(value, kind)}
    for key, value in classes.items():
        if _plain_name(key) == wanted:
            return value
    try:  # short names such as "mse", and what a user registered
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


def _named(spec: Any) -> dict[str, Any]:
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


def _aliases(name: str, entry: Any, entries: Mapping[str, Any]) -> list[str]:
    """Names under which an entry is reached: its key or place, and its class where that is unique."""
    if isinstance(entry, str):
        return [name, entry]
    kinds = [other if inspect.isclass(other) else type(other) for other in entries.values()]
    kind = entry if inspect.isclass(entry) else type(entry)
    own = [_snake(kind.__name__), kind.__name__] if kinds.count(kind) == 1 else []
    return [name, *own]


def _is_callback(value: Any) -> bool:
    import keras

    if inspect.isclass(value):
        return issubclass(value, keras.callbacks.Callback)
    return isinstance(value, keras.callbacks.Callback)


def _is_options_or_callback(value: Any) -> bool:
    return isinstance(value, _Options) or _is_callback(value)


def _has_argument(entry: Any, name: str) -> bool:
    if inspect.isclass(entry):
        return name in _signature(entry)
    return name in _signature(type(entry)) and hasattr(entry, name)


def _make_callback(entry: Any, options: dict[str, Any], what: str) -> Any:
    if inspect.isclass(entry):
        return _make(entry, options, what)
    try:
        _copies.register()
        callback = copy.deepcopy(entry)
    except Exception as error:
        raise ParameterError(
            f"`{what}`: {type(entry).__name__} cannot be copied ({error}); each fit works on a copy of its callbacks. "
            "Pass the class and its options, or the instance to fit(callbacks=[...])."
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
