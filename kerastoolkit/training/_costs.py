"""What a step of training costs in time and memory: estimated by counting, so that the same fits go the same way."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training._backends.base import Backend
from kerastoolkit.training._dense import NumPySteps
from kerastoolkit.training._unsupported import draws_while_training

if TYPE_CHECKING:
    import keras


# Multiplications in a step of one model up to which the step is light, on a CPU: alone, and stacked with others.
_LIGHT_ALONE, _LIGHT_STACKED = 500_000, 100_000

# What XLA saves in a step of one model on a CPU, in seconds, alone and stacked, and what more it saves for each
# multiplication; with more multiplications than the last number, TensorFlow's own products are quicker.
_SAVED_ALONE, _SAVED_STACKED, _SAVED_A_MULTIPLICATION = 90e-6, 12e-6, 1e-10
_MAX_MULTIPLICATIONS_FOR_XLA = 1_000_000

# What a step of one model takes with XLA on one core, in seconds, and for each multiplication forward.
_STEP_BY_XLA, _MULTIPLICATION_BY_XLA = 5e-6, 3e-10

# The layers that XLA compiles well. Its convolutions are slower, it has no lists of tensors, which recurrent layers
# need, and it draws other random numbers.
_LAYERS_FOR_XLA = ("activations", "core", "merging", "normalization", "regularization", "reshaping")

# Models that one call of a program of XLA's trains at most: those that fit in the cache of a core.
_MAX_MODELS_A_CALL = 128


class Costs:
    """Approximate costs of a step of models of one structure.

    Args:
        template: A built model of the structure.
        backend: The backend that runs the steps.
    """

    def __init__(self, template: keras.Model, backend: Backend) -> None:
        self._template, self._backend = template, backend

    def bytes_of_a_step(self, batch_size: int) -> int:
        """Approximate memory that each model takes in a stacked step, in bytes."""
        import keras

        model = self._template
        weights = sum(int(np.prod(v.shape)) for v in model.variables)
        outputs = 0
        for layer in _keras.layers_of(model, itself=False):
            try:
                shapes = [tuple(part.shape) for part in keras.tree.flatten(layer.output)]
            except (AttributeError, ValueError):
                continue
            outputs += sum(int(np.prod([size or 1 for size in shape[1:]])) for shape in shapes)
        return 4 * (8 * weights + 4 * outputs * batch_size)

    def multiplications_of_a_step(self, batch_size: int) -> int:
        """Approximate number of multiplications that one model needs for the forward pass of a step."""
        import keras

        total = 0
        for layer in _keras.layers_of(self._template, itself=False):
            weights = [int(np.prod(v.shape)) for v in _keras.own_variables(layer)[0] if len(v.shape) > 1]
            if not weights:
                continue
            try:
                shapes = [tuple(part.shape)[1:-1] for part in keras.tree.flatten(layer.output)]
            except (AttributeError, ValueError):
                shapes = [()]
            positions = max(int(np.prod([size or 1 for size in shape])) for shape in shapes)
            total += sum(weights) * positions * batch_size
        return total

    def is_light(self, batch_size: int, *, stacked: bool) -> bool:
        """Whether a step computes so little that starting its operations takes most of the time."""
        return self.multiplications_of_a_step(batch_size) < (_LIGHT_STACKED if stacked else _LIGHT_ALONE)

    def saved_by_xla(self, batch_size: int, *, stacked: bool) -> float:
        """Approximate time that XLA saves in a step of one model, in seconds; 0 where it is slower, or differs."""
        multiplications = self.multiplications_of_a_step(batch_size)
        if multiplications > _MAX_MULTIPLICATIONS_FOR_XLA or not self._backend.has_xla or not self._compiles_well:
            return 0.0
        return (_SAVED_STACKED if stacked else _SAVED_ALONE) + _SAVED_A_MULTIPLICATION * multiplications

    def seconds(self, n_models: int, batch_size: int, *, stacked: bool) -> float:
        """Approximate time of a step of so many models without XLA, in seconds; NaN if unknown."""
        multiplications, light = self.multiplications_of_a_step(batch_size), self.is_light(batch_size, stacked=stacked)
        return self._backend.seconds_of_a_step(n_models, multiplications, stacked=stacked, light=light)

    def seconds_by_xla(self, batch_size: int) -> float:
        """Approximate time of a step of one model with XLA, in seconds."""
        return _STEP_BY_XLA + _MULTIPLICATION_BY_XLA * self.multiplications_of_a_step(batch_size)

    def models_a_call(self, n_models: int) -> int:
        """How many of these models each call of a program of XLA's should take, with a call for each core."""
        import joblib

        return int(min(_MAX_MODELS_A_CALL, -(-n_models // joblib.cpu_count())))

    @functools.cached_property
    def _compiles_well(self) -> bool:
        layers = _keras.layers_of(self._template, itself=False)
        groups = map(_keras.group_of, layers)
        kinds = all(group in _LAYERS_FOR_XLA and module != "lambda_layer" for group, module in groups)
        return kinds and not any(map(draws_while_training, layers))

    @functools.cached_property
    def stacks_slowly(self) -> bool:
        """Whether many models take much longer to trace than one."""
        import keras

        layers = _keras.layers_of(self._template, itself=False)
        return self._backend.stacks_loops_slowly and any(isinstance(layer, keras.layers.RNN) for layer in layers)


class CostsInNumPy(Costs):
    """The same for steps that are written out in numpy.

    Args:
        template: A built model of the structure.
        backend: The backend of Keras, whose steps these replace.
        steps: The steps.
    """

    def __init__(self, template: keras.Model, backend: Backend, steps: NumPySteps) -> None:
        super().__init__(template, backend)
        self._steps = steps

    def seconds(self, n_models: int, batch_size: int, *, stacked: bool = True) -> float:
        """Approximate time of a step of so many models, in seconds."""
        return self._steps.seconds(n_models, batch_size)

    def saved_by_xla(self, batch_size: int, *, stacked: bool) -> float:
        """Always 0: nothing is compiled."""
        return 0.0
