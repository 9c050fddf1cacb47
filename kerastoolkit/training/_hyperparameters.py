"""Hyper-parameters that differ between models of one structure, passed to one program as tensors."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerastoolkit import _keras
from kerastoolkit.training._backends.base import Backend
from kerastoolkit.training._state import Tensor

if TYPE_CHECKING:
    import keras


class TracedNumber:
    """A number that differs between models: it compares as the template's number, and computes as a tensor.

    Keras asks `if self.momentum != 0` in Python, to which all models of a group give the same answer. Arithmetic with
    Python numbers stays in double precision, as it is for the Python number that this replaces: `1 - beta_2` in single
    precision would be wrong in the fifth digit.

    Args:
        value: The tensor, in double precision.
        number: The template's number.
        convert: `Backend.convert`.
    """

    def __init__(self, value: Tensor, number: float, convert: Callable[[Any, Any], Tensor]) -> None:
        self._value, self._number, self._convert = value, number, convert

    def _with(self, value: Tensor, number: float) -> TracedNumber:
        return type(self)(value, number, self._convert)

    def __tf_tensor__(self, dtype: object = None, name: str | None = None) -> Any:
        return self._convert(self._value, dtype)

    def __jax_array__(self) -> Any:
        return self._convert(self._value, None)

    def __float__(self) -> float:
        raise TypeError("a number that differs between models was asked for as one number")

    def __bool__(self) -> bool:
        return bool(self._number)

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str, *, reflected: bool) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(self: TracedNumber, other: Any) -> Any:
        if isinstance(other, TracedNumber):
            other_value, other_number = other._value, other._number
        elif isinstance(other, (int, float)):
            other_value = other_number = other
        else:
            mine = self._convert(self._value, other.dtype)
            return function(other, mine) if reflected else function(mine, other)
        if reflected:
            return self._with(function(other_value, self._value), function(other_number, self._number))
        return self._with(function(self._value, other_value), function(self._number, other_number))

    return compute


def _comparison(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)
    return lambda self, other: function(self._number, other)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(TracedNumber, f"__{_name}__", _operator(_name, reflected=False))
    setattr(TracedNumber, f"__r{_name}__", _operator(_name, reflected=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(TracedNumber, f"__{_name}__", _comparison(_name))
TracedNumber.__neg__ = lambda self: self._with(-self._value, -self._number)  # type: ignore[operator]


@functools.cache
def traced_number_class() -> type[TracedNumber]:
    """The class of traced numbers for the backend."""
    import keras

    if keras.config.backend() == "tensorflow":
        return TracedNumber

    class TracedVariable(TracedNumber, keras.Variable):
        """A traced number that Keras treats as one of its variables, which is how it makes a tensor of it."""

        @property
        def value(self) -> Any:
            return self._convert(self._value, None)

        @property
        def dtype(self) -> str:
            return str(keras.config.floatx())

        @property
        def shape(self) -> tuple[int, ...]:
            return ()

    return TracedVariable


def _set(owner: object, name: str, value: object) -> None:
    # Not setattr: optimizers and layers track what is assigned to them, and would treat a tensor as a weight.
    object.__setattr__(owner, name, value)


@contextlib.contextmanager
def traced_in_place(
    places: Sequence[tuple[Any, str]], values: Mapping[int, Tensor], backend: Backend
) -> Iterator[None]:
    """A block in which tensors replace the numbers that differ between models, so that a step can be traced.

    Args:
        places: The numbers of a structure: `(object, attribute)`.
        values: Tensors for some of them, by their index in this list.
        backend: The backend of the tensors.
    """
    traced = [places[slot] for slot in values]
    before = [getattr(owner, name) for owner, name in traced]
    for (owner, name), value, number in zip(traced, values.values(), before, strict=True):
        given = traced_number_class()(value, number, backend.convert)
        if name == "rate":  # Keras' dropout takes nothing but a number
            _set(owner, "call", _dropout(owner, value, backend))
        elif name in _keras.keywords_of(owner):  # a loss passes this to its function
            _keras.keywords_of(owner)[name] = given
        else:
            _set(owner, name, given)
    try:
        yield
    finally:
        for (owner, name), number in zip(traced, before, strict=True):
            if name == "rate":
                object.__delattr__(owner, "call")
            elif name in _keras.keywords_of(owner):
                _keras.keywords_of(owner)[name] = number
            else:
                _set(owner, name, number)


def _dropout(layer: keras.layers.Dropout, rate: Tensor, backend: Backend) -> Callable[..., Tensor]:
    """`Dropout.call` with the same random numbers, for a rate that is a tensor."""

    def call(inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return inputs
        seed = layer.seed_generator.next()
        return backend.dropout(inputs, backend.convert(rate, inputs.dtype), seed)

    return call
