"""Many fits as one program: the engine under every search.

`fit_many` trains a list of models as if `Model.fit` had been called for each, and returns a model and a history for
each. Fits of one structure (the same layers, the same kind of optimizer, the same batch size) become one program: their
weights, optimizer states and metric states are stacked along a leading axis, and one step trains all of them. What
differs between them (hyper-parameters of the optimizer, dropout rates, penalties, label smoothing, rows, sample
weights, epochs, callbacks) goes in as data.

A single fit runs the same program for one model, which is traced once for all models of its structure. What no program
can do (a `train_step` of the user's, callbacks that look at batches, data sets) is left to `Model.fit`, and the result
says so.

Small networks of dense layers spend more time between operations than in them: on TensorFlow, tracing a program takes
longer than training many of them, and torch takes milliseconds for a step of some microseconds. The layers, losses and
optimizers that such networks mostly consist of are therefore written out in numpy for both. On TensorFlow, where so
many steps are to come that compiling is worth it, XLA compiles them, and each core of the processor runs the machine
code for some of the models.

On every path the rows of an epoch come in an order drawn from the seed of the fit alone, so that a fit does not depend
on what is trained beside it.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kerastoolkit import _keras
from kerastoolkit._words import printable
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training._compatibility import check_keras
from kerastoolkit.training._data import Casts
from kerastoolkit.training._fits import Fit, Trained
from kerastoolkit.training._run import Observers, Run, ShouldStop, is_model
from kerastoolkit.training.by_keras import train_by_keras
from kerastoolkit.training.fused import rounds, train_group
from kerastoolkit.training.seeds import is_inside

__all__ = ["Fit", "Trained", "explain", "fit_many"]


def fit_many(
    fits: Sequence[Fit],
    *,
    max_memory: float | None = None,
    max_together: int | None = None,
    on_epoch_end: Callable[[int, int], None] | None = None,
    should_stop: ShouldStop | None = None,
    finished: Callable[[list[Fit], list[Trained]], None] | None = None,
    n_expected: int = 0,
    while_computing: Callable[[], None] | None = None,
) -> list[Trained]:
    """Trains many models, those of one structure as one program.

    The results are those of `Model.fit` with the rows in the same order: on a CPU, weights differ by rounding errors of
    about 1e-6.

    Args:
        fits: The fits. No two may share a model; those that share a callback are trained one after the other.
        max_memory: Bytes that stacked models may take; models that do not fit are trained in several rounds. Defaults
            to `None`: half of the memory that is free.
        max_together: Maximum number of fits to train together. Defaults to `None`: as many as there is memory for.
        on_epoch_end: Called after each epoch with the number of epochs done and the number of all epochs of all fits;
            an exception that it raises ends the training. Defaults to `None`.
        should_stop: Called after each epoch with the fits that trained it together, each with its number of epochs and
            the logs of the last one; returns those that must stop. Defaults to `None`.
        finished: Called with fits that were trained together and their results, as soon as they are trained. Defaults
            to `None`.
        n_expected: Number of fits like these that there will be in all, in this call and others: compiling may be worth
            it for all of them where it is not for these alone. Defaults to `0`: no more than these.
        while_computing: Called while the processor computes for long without Python, to do something else. Defaults to
            `None`.

    Returns:
        A `Trained` for each fit, in their order. An exception that a fit raised is in its `error`.

    Raises:
        ParameterError: Two fits share a model.
    """
    if not _keras.is_settled():
        check_keras(fit_many)
    models = [id(fit.model) for fit in fits if is_model(fit.model)]
    if len(set(models)) < len(models):
        raise ParameterError(
            "`fits` must have a model each; two of them share one. Build or clone a model for each fit."
        )
    casts: Casts = weakref.WeakValueDictionary()
    runs = [Run(fit, casts) for fit in fits]
    observers = Observers(runs, on_epoch_end, should_stop, while_computing)
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group if run.trained.error is None else ("failed",), []).append(run)
    if len(groups) == 1:  # of several structures nobody knows how many fits each will have
        observers.expected_ratio = max(1.0, n_expected / len(runs))
    for group, members in groups.items():
        together = group[0] not in ("failed", "Model.fit")
        for some in rounds(members, max_memory, max_together) if together else [[run] for run in members]:
            if together:
                train_group(some, observers)
            elif group[0] == "Model.fit":
                train_by_keras(some[0], observers)
            observers(*((run, run.epochs) for run in some))
            if finished is not None:
                finished([run.fit for run in some], [run.trained for run in some])
    return [run.trained for run in runs]


def explain(trained: Sequence[Trained]) -> str:
    """Says in words which fits were trained together, which were not, and why.

    Args:
        trained: What `fit_many` returned.

    Returns:
        A few lines.
    """
    alike: dict[tuple[str, str | None], list[Trained]] = {}
    for one in trained:
        how = one.how if one.error is None else f"failed: {type(one.error).__name__}"
        alike.setdefault((how, one.reason), []).append(one)
    lines = []
    for (how, reason), some in alike.items():
        n_programs = len({one.program for one in some})
        words = {
            "fused": f"trained together, as {'one program' if n_programs == 1 else f'{n_programs} programs'}",
            "alone": "trained one by one, each by a program shared with all models of its structure",
            "Model.fit": "trained one by one by Model.fit",
        }.get(how, how)
        lines.append(f"{len(some)} fit{'s' * (len(some) != 1)} {words}{f': {printable(reason)}' if reason else ''}.")
    return "\n".join(lines) or "No fits."


_gathering = threading.local()


@contextlib.contextmanager
def gathering(gather: Callable[[Fit], Trained], *, scored: bool = False) -> Iterator[None]:
    """A block in which every `train` of this thread calls a function that may wait for other fits to train with.

    Args:
        gather: Trains a fit.
        scored: Whether the fits are some of many that are scored, by a search that knows what to do with one that
            failed. Defaults to `False`.
    """
    before = getattr(_gathering, "gather", None), is_scored()
    _gathering.gather, _gathering.scored = gather, scored
    try:
        yield
    finally:
        _gathering.gather, _gathering.scored = before


def is_scored() -> bool:
    """Whether a fit of this thread is one of many that are scored, so that it may fail; see `gathering`."""
    return bool(getattr(_gathering, "scored", False))


def train(fit: Fit) -> Trained:
    """Trains one model, by itself or with the other fits that this thread's `gathering` finds.

    Raises:
        Exception: Whatever training raised.
    """
    # A block of `isolated` lets no other thread train: inside of one, waiting for other fits would never end.
    gather = None if is_inside() else getattr(_gathering, "gather", None)
    trained = gather(fit) if gather is not None else fit_many([fit])[0]
    if trained.error is not None:
        raise trained.error
    return trained
