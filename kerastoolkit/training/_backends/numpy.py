"""Arrays of numpy, for steps that are written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerastoolkit.training._backends.base import ArrayBackend


class NumPyBackend(ArrayBackend):
    """Arrays, for the steps that `_dense` writes out."""

    steps_a_call = 64
    compiles_each_size = False

    def tensor(self, value: Any) -> Any:
        return np.asarray(value)

    def take(self, value: Any, members: Any) -> Any:
        return value[members]

    def joined(self, values: Any) -> Any:
        return np.concatenate(values)

    def put(self, value: Any, members: Any, part: Any) -> Any:
        value = value.copy()
        value[members] = part
        return value
