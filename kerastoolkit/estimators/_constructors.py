"""Constructors that name only their own parameters.

The parameters that all estimators share are declared once, in the constructor of `KerasEstimator`, and described once,
in its docstring. A subclass names its own and passes on the others, as any Python class does:

    class Mine(KerasClassifier):
        def __init__(self, model=None, *, depth=2, **params):
            super().__init__(model, **params)
            self.depth = depth

By themselves, `inspect.signature`, `help` and the tab key would show only `depth` and `**params`. So when the class is
created, `complete` gives its constructor the full signature, and its docstring the full list of parameters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from kerastoolkit.estimators import _docstrings
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    from kerastoolkit.estimators._base import KerasEstimator

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def complete(kind: type[KerasEstimator]) -> None:
    """Gives the constructor of a new class a signature with all its parameters, and its docstring a list of them.

    Args:
        kind: The class. Its constructor is wrapped; if it has none of its own, it gets one that passes on everything.

    Raises:
        ParameterError: `reader_names` or `unused_parameters` of the class is no tuple of names.
    """
    _check_tuples(kind)
    own: Callable[..., None] | None = vars(kind).get("__init__")
    init = _forwarding(kind) if own is None else _keeping_routed(own)
    init._written = own  # type: ignore[attr-defined]
    kind.__init__ = init  # type: ignore[method-assign]
    init.__signature__ = signature_of(kind)  # type: ignore[attr-defined]
    kind.__doc__ = _docstrings.completed(kind, init.__signature__.parameters)  # type: ignore[attr-defined]


def signature_of(kind: type) -> inspect.Signature:
    """The signature of a constructor with the parameters of its parents, as long as each passes `**kwargs` on."""
    found: dict[str, inspect.Parameter] = {}
    unused: set[str] = set()
    takes_positional, rest = True, None
    for one in kind.__mro__[:-1]:  # without `object`
        own = _own_signature(one)
        parameters = list(own.parameters.values()) if own is not None else []
        for parameter in parameters:
            name, by_place = parameter.name, parameter.kind in _POSITIONAL
            if name in found or name in unused or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            only_named = by_place and not takes_positional
            found[name] = parameter.replace(kind=parameter.KEYWORD_ONLY) if only_named else parameter
        unused |= set(vars(one).get("unused_parameters", ()))
        if own is None:
            continue
        kinds = {parameter.kind: parameter for parameter in parameters}
        rest = kinds.get(inspect.Parameter.VAR_KEYWORD)
        # Arguments by place go further up only past `(self, *args, **kwargs)`.
        is_open = inspect.Parameter.VAR_POSITIONAL in kinds and sum(one.kind in _POSITIONAL for one in parameters) == 1
        takes_positional = takes_positional and is_open
        if rest is None:
            break
    by_kind = sorted(found.values(), key=lambda parameter: parameter.kind)
    return inspect.Signature([*by_kind, *([rest] if rest is not None else [])])


@functools.cache
def declared_names(kind: type) -> tuple[str, ...]:
    """Names of all parameters that a constructor declares, sorted, without those routed to another object."""
    parameters = signature_of(kind).parameters.items()
    declared = (name for name, parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)
    return tuple(sorted(name for name in declared if name != "self" and "__" not in name))


@functools.cache
def unused_parameters(kind: type) -> tuple[str, ...]:
    """Names of shared parameters that a class has no use for, and does not declare itself."""
    names = {name for one in kind.__mro__ for name in vars(one).get("unused_parameters", ())}
    return tuple(sorted(names - set(declared_names(kind))))


def _check_tuples(kind: type) -> None:
    for name in ("reader_names", "unused_parameters"):
        value = vars(kind).get(name, ())
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            raise ParameterError(f"`{name}` of {kind.__name__} must be a tuple of names, ('...',); got {value!r}.")


def as_written(init: Callable[..., None]) -> Callable[..., None] | None:
    """The constructor of a class as its author wrote it, before `complete`; None if the class had none of its own."""
    written: Callable[..., None] | None = getattr(init, "_written", init)
    return written


def _own_signature(kind: type) -> inspect.Signature | None:
    """The signature of a constructor as it was written; None if the class had none of its own."""
    init = vars(kind).get("__init__")
    written = None if init is None else as_written(init)
    return None if written is None else inspect.signature(written)


def _forwarding(kind: type[KerasEstimator]) -> Callable[..., None]:
    """A constructor that passes on all its arguments."""

    def forwarding(self: KerasEstimator, *args: object, **kwargs: object) -> None:
        if len(args) > 1:
            by_place = [name for name, one in inspect.signature(kind).parameters.items() if one.kind in _POSITIONAL]
            if len(args) > len(by_place):
                raise TypeError(
                    f"{kind.__name__} takes {len(by_place)} positional argument ({', '.join(by_place)}), but "
                    f"{len(args)} were given. Name the others: {kind.__name__}({args[0]!r}, epochs=10)."
                )
        super(kind, self).__init__(*args, **kwargs)

    forwarding.__name__, forwarding.__qualname__ = "__init__", f"{kind.__qualname__}.__init__"
    forwarding.__module__ = kind.__module__
    return forwarding


def _keeping_routed(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that stores the routed parameters that it names, such as `optimizer__learning_rate=0.001`."""
    signature = inspect.signature(init)
    names_routed = any("__" in name for name in signature.parameters)

    @functools.wraps(init)
    def keeping(self: KerasEstimator, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        if names_routed:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            routed = {name: value for name, value in bound.arguments.items() if "__" in name}
            self._params = {**routed, **self._params}

    return keeping
