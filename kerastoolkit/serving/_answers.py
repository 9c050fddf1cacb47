"""Answers of the model as JSON: one object a row, or one array an output."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.export._spec import OutputSpec, Spec
from kerastoolkit.serving._rows import RequestError


class Answers:
    """Turns arrays of answers into JSON.

    Args:
        spec: What the model answers.
    """

    def __init__(self, spec: Spec) -> None:
        self.outputs = spec.outputs
        self._classes = {one.name: [key_of(label) for label in one.classes] for one in spec.outputs}

    def check(self, made: dict[str, NDArray[Any]]) -> None:
        """Refuses what JSON cannot say.

        Raises:
            RequestError: An answer is not finite; the message names the row.
        """
        for one in self.outputs:
            array = made[one.name]
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                mistake = {"row": row, "column": None, "message": "the model has no finite answer for this row"}
                raise RequestError(f"row {row}: {mistake['message']}", errors=[mistake])

    def rows(self, made: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
        """One object a row, with an entry for each output: a label, probabilities by class, a number, a list."""
        parts = [(one.name, self._values(one, made[one.name])) for one in self.outputs]
        n_rows = len(parts[0][1])
        return [{name: values[row] for name, values in parts} for row in range(n_rows)]

    def _values(self, one: OutputSpec, array: NDArray[Any]) -> list[Any]:
        values: list[Any] = array.tolist()
        classes = self._classes[one.name]
        if one.kind == "label" or not classes or array.ndim != 2 or array.shape[1] != len(classes):
            return values
        if one.kind == "labels":
            return [dict(zip(classes, map(bool, row), strict=True)) for row in values]
        return [dict(zip(classes, row, strict=True)) for row in values]

    def labels(self, made: dict[str, NDArray[Any]]) -> dict[tuple[str, str], int]:
        """How often each label was answered, by the name of the output and the label."""
        counts: dict[tuple[str, str], int] = {}
        for one in self.outputs:
            array = made[one.name]
            if one.kind == "label":
                for label in array.ravel().tolist():
                    key = (one.name, key_of(label))
                    counts[key] = counts.get(key, 0) + 1
            elif one.kind == "labels" and array.ndim == 2:
                classes = self._classes[one.name] or [str(place) for place in range(array.shape[1])]
                sums = array.astype("int64").sum(axis=0).tolist()
                counts.update({(one.name, label): n for label, n in zip(classes, sums, strict=False) if n})
        return counts


def key_of(label: object) -> str:
    """A label as a key of JSON."""
    return label if isinstance(label, str) else json.dumps(label)
