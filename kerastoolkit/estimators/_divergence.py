"""Networks that diverged: noticed after a fit, reported once, and never used to predict.

A step that is too large takes weights beyond the range of floats, and from then on they are NaN or infinite. The output
need not show it: a ReLU may turn NaN into 0, so that all probabilities are equal and all labels the first class, and
batch normalization divides anything by an infinite deviation. So every fit ends with a check of all weights and of the
loss. Single rows that overflow in a sound network are the business of its head (`Head.decode` and its kin).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kerastoolkit.training.network import Network

if TYPE_CHECKING:
    import keras

ADVICE = (
    "Give it smaller steps (`optimizer__learning_rate`), clipped gradients (`optimizer__clipnorm=1.0`) or inputs of "
    "about unit scale (StandardScaler), and fit it again."
)


class Divergence(NamedTuple):
    """What was found after a fit.

    Args:
        words: What is not finite, as a clause.
        sums: The sums of the weights, which show whether the weights have changed since.
    """

    words: str
    sums: tuple[float, ...]

    def is_of(self, network: Network) -> bool:
        """Whether a network still is the one that diverged: the user may have set other weights since."""
        trained, others = network.sums()
        sums = (*trained, *others)
        is_unchanged = len(sums) == len(self.sums) and np.allclose(sums, self.sums, rtol=1e-9, equal_nan=True)
        return not _all_finite(trained) or is_unchanged


def find_divergence(
    network: Network, losses: Sequence[float], sums_at_first: Callable[[], Sequence[float]]
) -> Divergence | None:
    """Checks a network after training.

    Args:
        network: The network.
        losses: Losses of its epochs, up to the one whose weights it has; empty if that is unknown.
        sums_at_first: Returns the sums of the weights that are not trained, before the training.

    Returns:
        What is not finite; None if all is well.
    """
    trained, others = network.sums()
    n_broken = sum(not math.isfinite(one) for one in trained)
    if not _all_finite(others):
        # A constant of the user's may be infinite, such as a mask; the statistics of a layer may not become infinite.
        before = [*sums_at_first()] or [0.0] * len(others)
        n_broken += sum(
            not math.isfinite(now) and math.isfinite(then) for now, then in zip(others, before, strict=False)
        )
    words = []
    if _end_badly(losses):
        words.append(f"its loss {_of_epochs(losses)}")
    if n_broken:
        words.append(f"{n_broken} of its {len(trained) + len(others)} arrays of weights contain NaN or infinity")
    return Divergence(", and ".join(words), (*trained, *others)) if words else None


def losses_of_weights(
    losses: Sequence[float], callbacks: Sequence[keras.callbacks.Callback], first_epoch: int
) -> Sequence[float]:
    """The losses up to the epoch whose weights a network has after training; empty if that is unknown.

    Args:
        losses: Losses of all epochs.
        callbacks: The callbacks of the fit: `EarlyStopping` restores the weights of an earlier epoch, and nobody knows
            what a callback of the user's own does.
        first_epoch: Index of the first epoch, from 0.
    """
    for callback in callbacks:
        if not type(callback).__module__.startswith("keras.") or type(callback).__name__ == "LambdaCallback":
            return ()
        if getattr(callback, "restore_best_weights", False) and callback.best_weights is not None:
            losses = losses[: callback.best_epoch - first_epoch + 1]
    return losses


def words_of_warning(
    found: Divergence | None, history: Mapping[str, Sequence[float]], had_diverged: bool
) -> str | None:
    """The warning of `fit`.

    Args:
        found: What was found in the network.
        history: Losses of the fit by name.
        had_diverged: Whether the fit continued with a network that had diverged before.

    Returns:
        The text; None if all is well.
    """
    if found is not None:
        before = " It had already diverged before this call: `fit` with warm_start=False starts from scratch."
        return (
            f"The network diverged: {found.words}. It has no predictions and no score: asking for one raises a "
            f"DivergedError.{before if had_diverged else ''} {ADVICE}"
        )
    losses, of_validation = history.get("loss", ()), history.get("val_loss", ())
    if _end_badly(losses):
        return (
            f"The loss {_of_epochs(losses)}, but the weights are finite: those of an earlier epoch, if a callback "
            "restored them."
        )
    if _end_badly(of_validation):
        return (
            f"The loss of the validation data {_of_epochs(of_validation)}: for some of its rows the output is beyond "
            "the range of floats. `predict` refuses such rows."
        )
    return None


def _end_badly(losses: Sequence[float]) -> bool:
    return len(losses) > 0 and not np.isfinite(losses[-1]).all()


def _of_epochs(losses: Sequence[float]) -> str:
    finite = [number for number, loss in enumerate(losses, 1) if np.isfinite(loss).all()]
    first = (finite[-1] if finite else 0) + 1
    return f"has been {np.ravel(losses[-1])[0]} since epoch {first}"


def _all_finite(sums: Sequence[float]) -> bool:
    return all(map(math.isfinite, sums))
