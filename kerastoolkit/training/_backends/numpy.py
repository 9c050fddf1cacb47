"""Arrays of numpy, for steps that are written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerastoolkit.training._backends.base import ArrayBackend
from kerastoolkit.training._state import Array, Tensor


class NumPyBackend(ArrayBackend):
    """Arrays, for the steps that `_dense` writes out."""

    steps_a_call = 64
    compiles_each_size = False

    def tensor(self, value: Array) -> Tensor:
        return np.asarray(value)

    def take(self, value: Tensor, members: Array) -> Tensor:
        return value[members]

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        return np.concatenate(values)

    def put(self, value: Tensor, members: Array, part: Tensor) -> Tensor:
        value = value.copy()
        value[members] = part
        return value
