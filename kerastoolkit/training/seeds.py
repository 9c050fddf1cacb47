"""The generators and names that Keras keeps for the whole process, set for one fit and restored after it.

A fit that sets seeds the usual way (`keras.utils.set_random_seed`) changes every later random number of the process; a
fit that does not cannot be repeated. `isolated` avoids both: inside the block every generator that Keras draws from
starts at the seed, and after it every generator is in the state in which it was before.

The same goes for automatic names. The third `AUC()` of a process is called `auc_2`, so that a callback that monitors
`val_auc` works in the first fold of a search and fails in the others. Inside the block the names of metrics are counted
from the beginning. Those of layers are not: a build function may use layers made outside, whose names must stay unique.
"""

from __future__ import annotations

import contextlib
import functools
import random
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training import _backends

__all__ = ["isolated"]

# Keras builds and trains on global generators; two seeded fits in two threads would draw from each other's.
_ONE_AT_A_TIME = threading.RLock()


class _Here(threading.local):
    """For each thread: how many blocks it is in, and whether it works for a thread that is in one and waits for it."""

    depth = 0
    for_block = False


_here = _Here()


@contextlib.contextmanager
def isolated(seed: int | None) -> Iterator[None]:
    """Runs a block with generators and automatic names of its own.

    One block runs at a time in a process; others wait. A search started inside a block is a part of it, whatever
    threads it uses. On a GPU, repeating a run exactly also needs deterministic kernels, which are a choice for the
    whole process and therefore left to the user (`keras.config`/`tf.config.experimental.enable_op_determinism()`).

    Example:

    >>> import random
    >>> with isolated(0):
    ...     first = random.random()
    >>> with isolated(0):
    ...     first == random.random()
    True

    Args:
        seed: Seed for Python, numpy and the backend, from 0 to 2**32 - 1. With `None` the block draws from the
            generators of the process and advances them.
    """
    with _one_at_a_time(), _metric_names_from_the_start():
        if seed is None:
            yield
            return
        with _python_and_numpy(seed), _of_keras(seed), _tensorflow(seed), _torch(seed):
            yield


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    with contextlib.nullcontext() if _here.for_block else _ONE_AT_A_TIME:
        _here.depth += 1
        try:
            yield
        finally:
            _here.depth -= 1


def is_inside() -> bool:
    """Whether this thread is in a block of `isolated`, for which other threads wait."""
    return _here.depth > 0


@contextlib.contextmanager
def _python_and_numpy(seed: int) -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def _of_keras(seed: int) -> Iterator[None]:
    with _keras_globals({"global_random_seed": seed, "global_seed_generator": None}):
        yield


@contextlib.contextmanager
def _metric_names_from_the_start() -> Iterator[None]:
    metrics = _names_of_metrics()
    names = _keras.state_of_process().get_global_attribute("object_name_uids")
    if names is None:
        yield
        return
    fresh = type(names)(names.default_factory) if hasattr(names, "default_factory") else type(names)()
    fresh.update({name: count for name, count in names.items() if name not in metrics})
    with _keras_globals({"object_name_uids": fresh}):
        yield


@functools.cache
def _names_of_metrics() -> frozenset[str]:
    import keras

    snake = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in dir(keras.metrics)}
    return frozenset(snake | {name.lower() for name in dir(keras.metrics)})


@contextlib.contextmanager
def _keras_globals(values: dict[str, Any]) -> Iterator[None]:
    state = _keras.state_of_process()
    before = {name: state.get_global_attribute(name) for name in values}
    for name, value in values.items():
        state.set_global_attribute(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            state.set_global_attribute(name, value)


# Variables that a thread still has to initialise: in another thread they would be initialised again.
_UNFINISHED = ("uninitialized_variables",)


class Settings(NamedTuple):
    """What a thread that works for another must know from it.

    Attributes:
        of_keras: What the user set in Keras: dtype policy, custom objects, seed and the like.
        in_block: Whether the work is part of a block of `isolated`.
    """

    of_keras: dict[str, Any] = {}
    in_block: bool = False


def settings() -> Settings:
    """The settings of this thread, for `put_settings` in a thread that works for it while it waits.

    Keras keeps its settings by thread, and a new thread would not have them.
    """
    in_block = is_inside() or _here.for_block
    if "keras" not in sys.modules:
        return Settings(in_block=in_block)
    found = vars(_keras.state_of_process().GLOBAL_STATE_TRACKER).items()
    of_keras = {name: value for name, value in found if "scope" not in name and name not in _UNFINISHED}
    return Settings(of_keras, in_block)


def put_settings(found: Settings, *, only: bool = False) -> None:
    """Sets in this thread what `settings` returned in another.

    Args:
        found: The settings.
        only: Whether Keras drops whatever else it keeps for this thread, as if the thread were new. Defaults to
            `False`.
    """
    _here.for_block = found.in_block
    if "keras" not in sys.modules:
        return
    of_keras = vars(_keras.state_of_process().GLOBAL_STATE_TRACKER)
    if only:
        of_keras.clear()
    of_keras.update(found.of_keras)


@contextlib.contextmanager
def _tensorflow(seed: int) -> Iterator[None]:
    # Whatever the backend: the user's data may come from TensorFlow.
    with _backends.tensorflow.seeded(seed) if "tensorflow" in sys.modules else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _torch(seed: int) -> Iterator[None]:
    import keras

    with _backends.torch.seeded(seed) if keras.config.backend() == "torch" else contextlib.nullcontext():
        yield


def generators() -> tuple[Any, list[Any]]:
    """The state of every generator that a build or a step could draw from: Python's, and those of other packages."""
    import keras

    backend = keras.config.backend()
    _, numbers, *rest = np.random.get_state(legacy=True)
    states: list[Any] = [np.asarray(numbers).tobytes(), rest, *_generator_of_keras()]
    if backend == "tensorflow":
        states.append(_backends.tensorflow.generator())
    if backend == "torch":
        states.append(_backends.torch.generator())
    return random.getstate(), states


def _generator_of_keras() -> list[Any]:
    import keras

    state = _keras.state_of_process()
    generator = state.get_global_attribute("global_seed_generator")
    value = None if generator is None else keras.ops.convert_to_numpy(generator.state.value).tolist()
    return [value, state.get_global_attribute("global_random_seed")]
