"""The end of a network that makes its input again, as `KerasTransformer` trains it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kerastoolkit.builders import Head
from kerastoolkit.builders.targets import check_finite
from kerastoolkit.exceptions import ModelMismatchError

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction(Head):
    """The end of a network whose target is its input.

    Args:
        layer: Name of the layer that `transform` reads. Defaults to `"code"`.
    """

    layer: str = "code"

    @property
    def metrics(self) -> list[Any]:
        """None: the loss says it."""
        return []

    def bind(self, model: keras.Model, outputs: object = None) -> Reconstruction:
        """Holds the model against its input.

        Raises:
            ModelMismatchError: The output has another shape than the input, or there is no such layer.
        """
        names = [layer.name for layer in model.layers]
        if self.layer not in names:
            raise ModelMismatchError(
                f"The model has no layer {self.layer!r}, whose output `transform` would return. Name that layer so, or "
                f"give its name as `code_layer`: {', '.join(names)}."
            )
        if model.output_shape != model.input_shape:
            raise ModelMismatchError(
                f"The model makes {model.output_shape} of {model.input_shape}; a KerasTransformer trains it to make "
                "its input again, so that both must be the same."
            )
        return dataclasses.replace(self, output_shape=tuple(size or 1 for size in model.output_shape[1:]))

    def encode(self, y: ArrayLike) -> Any:
        """The rows themselves, in Keras' float type."""
        import keras

        return np.asarray(y, dtype=keras.config.floatx())

    def decode(self, raw: Any) -> Any:
        """What the network made of rows.

        Raises:
            DivergedError: Some of it is NaN or infinite.
        """
        check_finite(raw)
        return raw
