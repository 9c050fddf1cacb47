"""A guard: a step of training must change its own state alone, and draw random numbers from Keras' seeds alone."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._keras import NotPureError
from kerastoolkit.training.seeds import generators

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def no_side_effects(model: keras.Model) -> Iterator[None]:
    """A block that must change no layer of a model and draw no random numbers; what it changed is put back.

    Raises:
        NotPureError: The block changed a layer, or drew random numbers.
    """
    layers = [layer for layer in _keras.layers_of(model) if not type(layer).__module__.startswith("keras.")]
    before = [_attributes(layer) for layer in layers]
    states = generators()
    try:
        yield
    finally:
        changed = None
        for layer, attributes in zip(layers, before, strict=True):
            for name in _put_back(layer, attributes):
                changed = f"{type(layer).__name__} changes its `{name}` in each step"
        if generators() != states:
            changed = changed or "a step of it draws random numbers that do not come from Keras' seeds"
    if changed is not None:
        raise NotPureError(changed)


@contextlib.contextmanager
def no_other_assignments(model: keras.Model, scope: keras.StatelessScope) -> Iterator[None]:
    """A block that must assign to no variables but those whose new values a step returns.

    Args:
        model: The model.
        scope: Keras' `StatelessScope`, in which the block runs.

    Raises:
        NotPureError: The block assigned to another variable.
    """
    before = dict(scope.state_mapping)
    yield
    returned = {id(variable) for variable in (*model.non_trainable_variables, *model.metrics_variables)}
    for key, value in scope.state_mapping.items():
        if key not in returned and before.get(key) is not value:
            known = [variable for variable in model.trainable_variables if id(variable) == key]
            name = f"the weight {known[0].path!r}" if known else "a variable that is not among its own"
            raise NotPureError(f"a step of it assigns to {name}")


@functools.cache
def _of_every_layer() -> frozenset[str]:
    import keras

    return frozenset(vars(keras.layers.Layer())) | {"_build_shapes_dict"}


def _attributes(layer: keras.layers.Layer) -> dict[str, tuple[Any, Any]]:
    """The attributes of a layer but variables and layers: each value, and a copy of those that can change in place."""
    import keras

    own = {name: value for name, value in vars(layer).items() if name not in _of_every_layer()}
    own |= dict(getattr(layer, "_buffers", {}))  # of torch
    kept: dict[str, tuple[Any, Any]] = {}
    for name, value in own.items():
        if isinstance(value, (keras.Variable, keras.layers.Layer, keras.KerasTensor)):
            continue
        if isinstance(value, (list, dict, set, np.ndarray)):
            kept[name] = value, value.copy()
        elif hasattr(value, "_version") and hasattr(value, "clone"):
            kept[name] = value, (value._version, value.detach().clone())
        else:
            kept[name] = value, None
    return kept


def _put_back(layer: keras.layers.Layer, attributes: dict[str, tuple[Any, Any]]) -> list[str]:
    """Puts the attributes of a layer back; returns the names of those that had changed."""
    import keras

    changed = []
    for name, (value, copy) in attributes.items():
        now = vars(layer).get(name, getattr(layer, "_buffers", {}).get(name))
        if now is not value:
            if keras.config.backend() == "torch" or not _is_left_behind(value, now):
                changed.append(name)
            object.__setattr__(layer, name, value) if name in vars(layer) else layer._buffers.update({name: value})
        if copy is None:
            continue
        if isinstance(copy, tuple):
            if value._version != copy[0]:
                changed.append(name)
                value.data.copy_(copy[1])
        elif not _is_same(value, copy):
            changed.append(name)
            if isinstance(value, np.ndarray):
                value[...] = copy
            else:
                value.clear()
                value.extend(copy) if isinstance(value, list) else value.update(copy)
    return changed


def _is_left_behind(before: object, now: object) -> bool:
    """Whether an attribute only holds a tensor of the last call, which the next call could not use."""
    concrete = isinstance(before, (int, float, np.ndarray)) or hasattr(before, "numpy") or hasattr(before, "devices")
    return hasattr(now, "dtype") and hasattr(now, "shape") and not concrete


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(name in other and other[name] is value for name, value in one.items())
    return all(map(operator.is_, one, other)) if isinstance(one, list) else one == other
