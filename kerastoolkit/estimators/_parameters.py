"""The names of an estimator's parameters, what each of them reaches, and which values are allowed.

A name without `__` is an argument of the build function, of `Model.fit` or of `Model.compile`, in this order. A name
with `__` says where it goes: `model__hidden`, `optimizer__learning_rate`, `loss__from_logits`,
`metrics__auc__num_thresholds`, `callbacks__early_stopping__patience`, `fit__steps_per_epoch`, `predict__batch_size`,
`compile__run_eagerly`, `head__label_smoothing`. A name that cannot reach anything is an error, which suggests the name
that was meant: a grid over a misspelt name would otherwise train the same model again and again.

Nothing here depends on scikit-learn: an estimator passes its parameters as plain dicts. `_objects` turns their values
into what Keras takes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from kerastoolkit._values import flag_wanted, fraction_wanted, is_number, is_whole, shown, whole_number_wanted
from kerastoolkit.distribution import strategy
from kerastoolkit.estimators import _spellings
from kerastoolkit.exceptions import DataError, ParameterError

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

OPTIONS_OF_HEAD = {"class_weight", "focal", "from_logits", "kind", "label_smoothing", "weight"}

# Options of functions that the estimator calls: how an error refers to the function, and the names that can be set.
_OPTIONS = {
    "head": ("the head", OPTIONS_OF_HEAD),
    "columns": ("the encoding of columns", {"categorical", "max_categories", "min_count"}),
    # `distribution` and `precision` are parameters of the estimator.
    "distribution": ("distribution.strategy", {*inspect.signature(strategy).parameters} - {"name", "precision"}),
}

# Arguments of `Model.fit` that the estimator fills in itself.
_NOT_FOR_FIT = {"self", "x", "y", "sample_weight", "class_weight", "validation_data"}


# -- names ----------------------------------------------------------------------------------------------------------


def check_names(names: Iterable[str], *, declared: Iterable[str], build: Callable[..., Any] | None, owner: str) -> None:
    """Refuses every name that cannot reach anything, all in one message.

    Args:
        names: Names of undeclared and routed parameters.
        declared: Names of the estimator's own parameters, for near misses.
        build: The build function, `None` for a model that is already built.
        owner: Name of the estimator's class, for the message.

    Raises:
        ParameterError: One line for each name that cannot reach anything.
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

    def meant(of: str, near: Iterable[str]) -> str:
        found = _spellings.meant(name, fits, DESTINATIONS)
        return found or _spellings.near_miss(of, near) or _spellings.near_miss_elsewhere(name, fits)

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
            f"{_spellings.near_miss(first, accepted or ()) or meant(first, ())} It takes: "
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
    """Whether a name can reach something; options of an object that is made later, such as a loss, are checked then."""
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
    """The message for an argument of `Model.fit` that is not a parameter, or a parameter of classifiers only."""
    instead = {
        "x": "Give the rows to fit(X, y).",
        "y": "Give the targets to fit(X, y).",
        "class_weight": "There are no classes to weight. Weight the rows: fit(X, y, sample_weight=...).",
    }.get(argument, f"Give it to fit: fit(X, y, {argument}=...); a search passes it on from its own fit.")
    return f"Invalid parameter {name!r} for estimator {owner}: `{argument}` is not a parameter. {instead}"


def _place(destination: str) -> tuple[str, Iterable[str] | None]:
    """How an error refers to the place that a parameter is routed to, and the names of its options."""
    if destination in _OPTIONS:
        return _OPTIONS[destination]
    return f"Model.{destination}", keras_arguments(destination)


def build_arguments(build: Callable[..., Any] | None) -> set[str] | None:
    """Names of the arguments of a build function; `None` if it takes any (`**kwargs`), empty for a built model."""
    if build is None:
        return set()
    parameters = arguments_of(build)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return set(parameters)


def options_of(place: str) -> set[str]:
    """Names of the options of a function that the estimator calls: `"head"`, `"columns"` or `"distribution"`."""
    return set(_OPTIONS[place][1])


@functools.cache
def keras_arguments(method: str) -> frozenset[str]:
    """Names of the arguments of `keras.Model.fit`, `compile` or `predict` that a user may set."""
    import keras

    names = frozenset(inspect.signature(getattr(keras.Model, method)).parameters)
    return names - (_NOT_FOR_FIT if method in ("fit", "predict") else {"self"})


@contextlib.contextmanager
def named_below(destination: str) -> Iterator[None]:
    """A context for calling a function with routed options: its errors name them as the user wrote them.

    Args:
        destination: Where the options are routed to: `"head"`, `"columns"` or `"distribution"`.
    """
    names = "|".join(_OPTIONS[destination][1])
    try:
        yield
    except (DataError, ParameterError) as error:
        said = re.sub(rf"(?<=`)({names})(?=`)|(?<![\w'])({names})(?==)", rf"{destination}__\g<0>", str(error))
        if said == str(error):
            raise
        raise type(error)(said) from error


def describe(build: Callable[..., Any] | None) -> str:
    """How an error refers to a build function."""
    if build is None:
        return "the model, which is already built"
    function = getattr(build, "func", build)
    return f"`{getattr(function, '__name__', type(function).__name__)}`"


def below(parameters: Mapping[str, Any], destination: str) -> dict[str, Any]:
    """The parameters that are routed to `destination`, without its name."""
    start = destination + "__"
    names = [name for name in parameters if name.startswith(start)]  # usually none, and called again and again
    return {name[len(start) :]: plain(parameters[name]) for name in names}


def plain(value: object) -> Any:
    """A NumPy scalar as a Python number: grids come from `np.arange`, but layers check for `int`."""
    return value.item() if isinstance(value, np.generic) else value


# -- values ---------------------------------------------------------------------------------------------------------


def complaints(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A sentence for each argument of `Model.fit` or `predict` that has an impossible value.

    Args:
        values: Values by name; unknown names are ignored.
        prefix: What the user writes before the name, such as `"fit__"`. Defaults to `""`.
    """
    found = [_RULES[name](prefix + name, value) for name, value in values.items() if name in _RULES]
    return [sentence for sentence in found if sentence is not None]


def check_values(values: Mapping[str, Any], prefix: str = "") -> None:
    """Refuses impossible values.

    Raises:
        ParameterError: One line for each of them; see `complaints`.
    """
    found = complaints(values, prefix)
    if found:
        raise ParameterError("\n".join(found))


def _rows_a_step(name: str, value: object) -> str | None:
    if value is None or (is_whole(value) and value == -1):  # scikeras' spelling of "all rows at once"
        return None
    return whole_number_wanted(name, value, otherwise=", -1 for all rows, or None")


def _whole_or_none(name: str, value: object) -> str | None:
    return None if value is None else whole_number_wanted(name, value, otherwise=", or None")


def _epochs_with_validation(name: str, value: object) -> str | None:
    several = list(value) if isinstance(value, (list, tuple, set, frozenset, range, np.ndarray)) else None
    if several is not None and several and all(is_whole(one) and one >= 1 for one in several):
        return None
    return whole_number_wanted(name, value, otherwise=", or a list of epochs")


def _flag_or_none(name: str, value: object) -> str | None:
    return None if value is None else flag_wanted(name, value)


def _verbosity(name: str, value: object) -> str | None:
    known = (is_whole(value) or isinstance(value, (bool, str))) and value in (0, 1, 2, "auto")
    return None if known else f"`{name}` must be 0, 1, 2 or 'auto'; got {shown(value)}."


def _weights_of_losses(name: str, value: object) -> str | None:
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
    """Refuses a value that is neither a seed nor a generator from which seeds can be drawn.

    Raises:
        ParameterError: The value is something else; the message says what can be given.
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


# -- signatures -----------------------------------------------------------------------------------------------------


def arguments_of(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a function, or of the constructor of a class, by name."""
    if isinstance(build, type) and build.__module__.startswith(_PACKAGES_THAT_STAY):
        return _known_signature(build)
    if not isinstance(build, types.FunctionType) or vars(build):
        return _read_signature(build)
    # Reading a signature takes 0.1 ms. A function of the user's may change, as when a notebook reloads it.
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


def _is_plain(*values: object) -> bool:
    """Whether values refer to no objects, which would live as long as the function and might refer back to it."""
    return all(
        _is_plain(*value) if type(value) is tuple
        else _is_plain(*value.values()) if type(value) is dict
        else value is None or type(value) in (bool, int, float, str)
        for value in values
    )  # fmt: skip


@functools.cache
def _known_signature(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return _read_signature(build)


def _read_signature(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    target = build.__init__ if inspect.isclass(build) else build
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    return parameters
