"""Many fits as one program: the engine under every search.

`fit_many` trains a list of models as if `Model.fit` had been called for each, and gives each its model and history.
Fits of one structure (same layers, same kind of optimizer, same batch size) become one program: their weights,
optimizer states and metric states are stacked along a leading axis, and one step trains all of them. What differs
between them (numbers of the optimizer, dropout rates, penalties, the smoothing of labels, rows, weights of rows,
epochs, callbacks) goes in as data.

A fit on its own runs the same program for one model, which is traced once for all models of the structure. What no
program can do (a `train_step` of the user's, callbacks that look at batches, data sets) is left to `Model.fit`, and the
result says so.

On TensorFlow, small networks of dense layers spend their steps between operations, not in them, and to trace a program
takes longer than many of them train. What such networks are mostly made of is therefore written out in numpy. Where so
many steps are ahead that they would take longer than to compile, XLA makes one piece of machine code of them, and each
core of the processor runs it for some of the models.

On every path the rows of an epoch come in an order drawn from the seed of the fit alone, so that a fit is the same
whatever is trained beside it.
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

    Each ends as `Model.fit` with the same order of rows would end it: on a CPU weights differ by rounding, about 1e-6.

    Args:
        fits: The fits. No two may share a model; those that share a callback are trained one after the other.
        memory: Bytes that stacked models may take; more of them than fit in there are trained in turns. Defaults to
            `None`: half of what is free.
        at_most: Fits to train together at most. Defaults to `None`: as many as there is memory for.
        watch: Called after each epoch with the number of epochs done and of all epochs of all fits; what it raises ends
            the training. Defaults to `None`.
        judge: Called after each epoch with the fits that trained it together, each with how many epochs it has trained
            and what its history says of the last; returns those that must stop. Defaults to `None`.
        finished: Called with fits that were trained together and what became of them, as soon as they are. Defaults to
            `None`.
        expected: Fits like these that there will be in all, by this call and others, for which it may pay to compile
            what would not pay for these alone. Defaults to `0`: no more than these.
        meanwhile: Called while the processor computes what needs no Python for long, to do something else. Defaults to
            `None`.

    Returns:
        One `Trained` for each fit, in their order. What one of them raised is in its `error`.

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
    if len(groups) == 1:  # of several structures it is not known how many of each there will be
        observers.expected_ratio = max(1.0, n_expected / len(runs))
    for group, members in groups.items():
        together = group[0] not in ("failed", "Model.fit")
        for turn in rounds(members, max_memory, max_together) if together else [[run] for run in members]:
            if together:
                train_group(turn, observers)
            elif group[0] == "Model.fit":
                train_by_keras(turn[0], observers)
            observers(*((run, run.epochs) for run in turn))
            if finished is not None:
                finished([run.fit for run in turn], [run.trained for run in turn])
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
        n_programs = round(sum(1 / one.n_together for one in some))
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
    """Lets every `train` of this thread go to a function, which may wait for others to train together with.

    Args:
        gather: Trains a fit.
        scored: Whether the fits are scored, one among many, by somebody who knows what to do with one that failed.
            Defaults to `False`.
    """
    before = getattr(_gathering, "gather", None), is_scored()
    _gathering.gather, _gathering.scored = gather, scored
    try:
        yield
    finally:
        _gathering.gather, _gathering.scored = before


def is_scored() -> bool:
    """Whether a fit of this thread is one among many that are scored, so that it may fail; see `gathering`."""
    return bool(getattr(_gathering, "scored", False))


def train(fit: Fit) -> Trained:
    """Trains one model, by itself or with whatever else this thread's `gathering` finds to train with it.

    Raises:
        Exception: Whatever training raised.
    """
    # Whoever waits inside a block of `isolated` lets nobody else come to the training that he waits for.
    gather = None if is_inside() else getattr(_gathering, "gather", None)
    trained = gather(fit) if gather is not None else fit_many([fit])[0]
    if trained.error is not None:
        raise trained.error
    return trained
