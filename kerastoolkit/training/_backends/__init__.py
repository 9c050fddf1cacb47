"""What each backend of Keras does in its own way to run a step as a program."""

from __future__ import annotations

import functools
from collections.abc import Callable

from kerastoolkit.training._backends import tensorflow, torch
from kerastoolkit.training._backends.base import TRACING_LOCK, Backend
from kerastoolkit.training._backends.jax import JaxBackend
from kerastoolkit.training._backends.tensorflow import TensorFlowBackend
from kerastoolkit.training._backends.torch import TorchBackend

__all__ = ["current", "is_known", "release_memory", "tensorflow", "torch"]

_BACKENDS: dict[str, Callable[[], Backend]] = {
    "jax": JaxBackend,
    "tensorflow": TensorFlowBackend,
    "torch": TorchBackend,
}


def is_known(name: str) -> bool:
    """Whether there are programs for a backend of Keras."""
    return name in _BACKENDS


@functools.cache
def current() -> Backend:
    """The backend that Keras runs on, which does not change in a process."""
    import keras

    return _BACKENDS[keras.config.backend()]()


def release_memory() -> None:
    """Gives back what the backend keeps of a program that was dropped."""
    with TRACING_LOCK:
        current().release_memory()
