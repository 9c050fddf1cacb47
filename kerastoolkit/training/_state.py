"""What goes into a program and comes out of it: the state of models, rows of data, and trees of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Array = NDArray[Any]

# Of the backend, whose class is known when it is loaded; or an array, which every backend takes.
Tensor = Any

Kind = Literal["train", "test"]

# XLA compiles for one number of steps; a call of it takes at most so many.
MAX_STEPS_BY_XLA = 256


class State(NamedTuple):
    """Everything that a step of training reads and writes: lists of tensors, in Keras' order of the variables.

    Between trainings it has no metrics.
    """

    trainable: list[Tensor]
    others: list[Tensor]
    optimizer: list[Tensor]
    metrics: list[Tensor]


class Samples(NamedTuple):
    """Rows of data, each part an array or a structure of arrays; `weights` is None without weights."""

    x: Any
    y: Any
    weights: Any


def epochs_a_call(n_rows: int, size: int) -> int:
    """Maximum number of epochs of so many rows in a call of XLA's."""
    return max(1, MAX_STEPS_BY_XLA // -(-n_rows // size))


class StepInputs(NamedTuple):
    """Models, and the batches that they are trained on or evaluated with; one model alone has no axis of models.

    Attributes:
        state: The state, with a leading axis of models.
        traced: A value for each slot of `Program.to_trace`, shape `(models,)`.
        data: All rows, shared by all models.
        indices: Row indices of each batch, shape `(models, steps, rows)`.
        offsets: Number added to the row indices for each part of the data, shape `(models,)`.
    """

    state: State
    traced: dict[int, Tensor]
    data: Samples
    indices: Tensor
    offsets: Samples


class EpochInputs(NamedTuple):
    """Models of a stack that are trained for some epochs: as in `StepInputs`, with row indices for each epoch.

    The indices, `permutations`, have the shape `(models, epochs, rows)`.
    """

    state: State
    traced: dict[int, Tensor]
    permutations: Array
    offsets: Samples


def tree_map(function: Callable[..., Any], *structures: object) -> Any:
    """A function applied to each leaf of nested lists, tuples and dicts; what is None stays None."""
    import keras

    return keras.tree.map_structure(lambda part, *more: None if part is None else function(part, *more), *structures)


def tree_leaves(structure: object) -> list[Any]:
    """The leaves of a structure that are not None, in order."""
    import keras

    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def tree_unflatten(structure: object, leaves: Sequence[Any]) -> Any:
    """A structure like this one, with None where it has None, of these leaves."""
    following = iter(leaves)
    return tree_map(lambda _: next(following), structure)


def form_of(data: object) -> Any:
    """Dtypes, row shapes and structure of data: what a program is made for."""
    import keras

    leaves = [None if part is None else (str(part.dtype), tuple(part.shape[1:])) for part in keras.tree.flatten(data)]
    return str(keras.tree.map_structure(lambda part: 0, data)), tuple(leaves)


def as_array(value: Tensor) -> Array:
    """A tensor as an array."""
    import keras

    return value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)


def value_of(variable: keras.Variable) -> Array:
    """The value of a variable, as an array."""
    return as_array(variable.value)


def values_of(variables: Sequence[keras.Variable]) -> list[Array]:
    """The values of variables, as arrays."""
    return [as_array(variable.value) for variable in variables]


def assign(model: keras.Model, state: State) -> None:
    """Sets the variables of a model; those of the optimizer if there is a state of it."""
    if state.optimizer and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    pairs = [
        *zip(model.trainable_variables, state.trainable, strict=True),
        *zip(model.non_trainable_variables, state.others, strict=True),
        *zip(model.optimizer.variables if state.optimizer else [], state.optimizer, strict=True),
    ]
    for variable, value in pairs:
        variable.assign(value)
