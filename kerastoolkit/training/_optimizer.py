"""An optimizer as a pure function, applied to one flat vector of all weights where it treats all weights alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._keras import NotPureError
from kerastoolkit.training._state import Array, Tensor

if TYPE_CHECKING:
    import keras


class PureOptimizer:
    """An optimizer as a function from gradients and state to weights and state.

    Most optimizers treat every element of every weight alike. They get all weights as one vector, which gives the same
    result to the bit with a fraction of the operations; `packed` and `unpacked` convert from Keras' state and back.

    Args:
        template: A built and compiled model.

    Attributes:
        optimizer: The optimizer: for the vector, or for the weights.
        variables: Its variables.
        names: Their names without that of the vector; None if it is for the weights.
    """

    def __init__(self, template: keras.Model) -> None:
        import keras

        self._weights = template.trainable_variables
        self.optimizer = _keras.pure_optimizer(template)
        self._places: list[list[int]] | None = None
        self.names: list[str] | None = None
        self._shapes = [tuple(variable.shape) for variable in self._weights]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        if _treats_all_alike(template):
            flat = type(self.optimizer).from_config(self.optimizer.get_config())
            vector = keras.Variable(np.zeros(self._ends[-1]), dtype=self._weights[0].dtype, name="weights")
            flat.build([vector])
            self._places = self._matched(flat, vector)
            if self._places is not None:
                self.optimizer = flat
                self.names = [variable.name.removeprefix(_prefix(vector)) for variable in flat.variables]
        self.variables = self.optimizer.variables

    def _matched(self, flat: keras.optimizers.Optimizer, vector: keras.Variable) -> list[list[int]] | None:
        """For each variable of the optimizer for the vector, the places of those that it replaces; None if unknown."""
        names = [variable.name for variable in self.optimizer.variables]
        paths = [variable.path.replace("/", "_") for variable in self._weights]
        places = []
        for variable in flat.variables:
            slot = variable.name.removeprefix(_prefix(vector))
            wanted = [path + slot for path in paths] if variable.shape == vector.shape else [variable.name]
            if any(names.count(name) != 1 for name in wanted):
                return None
            places.append([names.index(name) for name in wanted])
        return places if sum(map(len, places)) == len(names) else None

    def apply(
        self, state: list[Tensor], gradients: list[Tensor], weights: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """New weights, and the new state of the optimizer."""
        from keras import ops

        if self._places is None:
            return self.optimizer.stateless_apply(state, gradients, weights)  # type: ignore[no-any-return]
        if any(gradient is None for gradient in gradients):
            raise NotPureError("some weights have no part in the loss")
        if any(type(gradient).__name__ == "IndexedSlices" for gradient in gradients):  # see `_treats_all_alike`
            raise NotPureError("it has a sparse gradient where none was expected")
        vectors = [ops.concatenate([ops.reshape(part, (-1,)) for part in parts]) for parts in (gradients, weights)]
        (vector,), state = self.optimizer.stateless_apply(state, [vectors[0]], [vectors[1]])
        parts = ops.split(vector, self._ends[:-1].tolist()) if len(self._ends) > 1 else [vector]
        return [ops.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)], state

    def packed(self, values: list[Array]) -> list[Array]:
        """The state of this optimizer, from that of Keras' optimizer."""
        if self._places is None:
            return values
        # What is not a single number is a vector of the size of all weights.
        parts = [[values[place] for place in places] for places in self._places]
        return [np.concatenate([value.ravel() for value in part]) if np.ndim(part[0]) else part[0] for part in parts]

    def unpacked(self, state: list[Array]) -> list[Array]:
        """The state of Keras' optimizer, from that of this optimizer."""
        if self._places is None or not state:
            return state
        values: dict[int, Any] = {}
        for value, places in zip(state, self._places, strict=True):
            if np.ndim(value) == 0:
                values[places[0]] = value
                continue
            parts = zip(places, np.split(np.asarray(value), self._ends[:-1]), self._shapes, strict=True)
            values |= {place: part.reshape(shape) for place, part, shape in parts}
        return [values[place] for place in range(len(values))]


def _prefix(variable: keras.Variable) -> str:
    """The prefix of the names of what an optimizer keeps for a variable."""
    return str(variable.path.replace("/", "_"))


def _treats_all_alike(model: keras.Model) -> bool:
    """Whether an optimizer does the same to every element of every weight."""
    import keras

    optimizer, weights = model.optimizer, model.trainable_variables
    alike = {"SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion", "Ftrl"}
    layers = _keras.layers_of(model)
    dense = all(type(layer).__module__.startswith("keras.") for layer in layers)
    return (
        type(optimizer).__name__ in alike
        and type(optimizer).__module__.startswith("keras.")
        and not (optimizer.clipnorm or optimizer.global_clipnorm or optimizer.use_ema)
        and all(variable.constraint is None for variable in weights)
        and not any(getattr(variable, "overwrite_with_gradient", False) for variable in weights)
        and len({str(variable.dtype) for variable in weights}) == 1
        and dense
        # Their gradients are sparse: rows that occur twice must not be added up before the optimizer has seen them.
        and not any(isinstance(layer, keras.layers.Embedding) for layer in layers)
    )
