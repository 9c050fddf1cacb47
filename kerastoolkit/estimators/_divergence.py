"""Networks that diverged: noticed after a fit, told of once, and never predicted with.

A step that is too large takes weights beyond the range of floats, and from then on they are NaN or infinite. Outputs
need not show it: a ReLU may make 0 of NaN, so that probabilities come out equal and labels as the first class, and
batch normalization divides whatever comes by an infinite deviation. So every fit ends with a look at all weights and
at the loss they had. What single rows make of a sound network, its head looks at (`Head.decode` and its kin).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerastoolkit.training.network import Network

ADVICE = (
    "Give it smaller steps (`optimizer__learning_rate`), clipped gradients (`optimizer__clipnorm=1.0`) or inputs of "
    "about unit scale (StandardScaler), and fit it anew."
)


class Divergence(NamedTuple):
    """What was found after a fit.

    Args:
        words: What is no number, as a clause.
        sums: Those of the weights, by which it is known whether they still are what they were.
    """

    words: str
    sums: tuple[float, ...]

    def is_of(self, network: Network) -> bool:
        """Whether a network still is the one that diverged; the user may have given it other weights since."""
        trained, others = network.sums()
        sums = (*trained, *others)
        is_unchanged = len(sums) == len(self.sums) and np.allclose(sums, self.sums, rtol=1e-9, equal_nan=True)
        return not _all_finite(trained) or is_unchanged


def find_divergence(
    network: Network, losses: Sequence[Any], sums_at_first: Callable[[], Sequence[float]]
) -> Divergence | None:
    """Looks at a network that was trained.

    Args:
        network: The network.
        losses: Of its epochs, up to the one whose weights it has; empty if it is not known which one that is.
        sums_at_first: The sums of the weights that are not trained, before they were.

    Returns:
        What is no number; None if all is well.
    """
    trained, others = network.sums()
    n_broken = sum(not math.isfinite(one) for one in trained)
    if not _all_finite(others):
        # A constant of the user's may be infinite, such as a mask; the statistics of a layer may not become so.
        before = [*sums_at_first()] or [0.0] * len(others)
        n_broken += sum(
            not math.isfinite(now) and math.isfinite(then) for now, then in zip(others, before, strict=False)
        )
    words = []
    if _end_badly(losses):
        words.append(f"its loss {_of_epochs(losses)}")
    if n_broken:
        words.append(f"{n_broken} of its {len(trained) + len(others)} arrays of weights hold NaN or infinity")
    return Divergence(", and ".join(words), (*trained, *others)) if words else None


def losses_of_weights(losses: Sequence[Any], callbacks: Sequence[Any], first_epoch: int) -> Sequence[Any]:
    """The losses up to the epoch whose weights a network has after training; none if that is not known.

    Args:
        losses: Of all epochs.
        callbacks: Those of the fit: `EarlyStopping` goes back to the weights of an earlier epoch, and what one of the
            user's own does is not known.
        first_epoch: Number of the first epoch, less one.
    """
    for callback in callbacks:
        if not type(callback).__module__.startswith("keras.") or type(callback).__name__ == "LambdaCallback":
            return ()
        if getattr(callback, "restore_best_weights", False) and callback.best_weights is not None:
            losses = losses[: callback.best_epoch - first_epoch + 1]
    return losses


def words_of_warning(found: Divergence | None, history: Mapping[str, Sequence[Any]], had_diverged: bool) -> str | None:
    """What `fit` warns of.

    Args:
        found: What was found in the network.
        history: Losses of the fit by name.
        had_diverged: Whether the fit went on with a network that had diverged before.

    Returns:
        A few sentences; None if all is well.
    """
    if found is not None:
        before = " It had diverged before this call, and went on from there: `fit` with warm_start=False begins anew."
        return (
            f"The network diverged: {found.words}. It predicts nothing and has no score: whatever asks for one raises "
            f"a DivergedError.{before if had_diverged else ''} {ADVICE}"
        )
    losses, of_validation = history.get("loss", ()), history.get("val_loss", ())
    if _end_badly(losses):
        return (
            f"The loss {_of_epochs(losses)}, but the weights are finite: those of an earlier epoch, if a callback put "
            "them back."
        )
    if _end_badly(of_validation):
        return (
            f"The loss of the validation data {_of_epochs(of_validation)}: some of its rows take the network beyond "
            "the range of floats. `predict` refuses such rows."
        )
    return None


def _end_badly(losses: Sequence[Any]) -> bool:
    return len(losses) > 0 and not np.isfinite(losses[-1]).all()


def _of_epochs(losses: Sequence[Any]) -> str:
    finite = [number for number, loss in enumerate(losses, 1) if np.isfinite(loss).all()]
    first = (finite[-1] if finite else 0) + 1
    return f"has been {np.ravel(losses[-1])[0]} since epoch {first}"


def _all_finite(sums: Sequence[float]) -> bool:
    return all(map(math.isfinite, sums))
