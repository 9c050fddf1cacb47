"""Asking a model for its layers: which have a graph of their own, and what comes out at a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

__all__ = ["has_graph", "layers_of", "pooled"]


def has_graph(layer: keras.Layer) -> bool:
    """Whether a layer is a Sequential or functional model, whose layers can be had one by one."""
    import keras

    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations"))


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Layers of a model and of the models inside it, from the bottom to the top."""
    for layer in model.layers:
        yield from layers_of(layer) if has_graph(layer) else [layer]


def pooled(x: keras.KerasTensor) -> keras.KerasTensor:
    """A series or a map of features, averaged over its steps or pixels; anything else as it is."""
    import keras

    pooling = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
    return pooling[len(x.shape)]()(x) if len(x.shape) in pooling else x
