"""A fit to be done, and what became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kerastoolkit.distribution import Strategy
from kerastoolkit.training.network import Network

if TYPE_CHECKING:
    import keras

How = Literal["fused", "alone", "Model.fit"]


@dataclasses.dataclass(eq=False)
class Fit:
    """One fit: a model, its data, and what `Model.fit` takes.

    Example:

    >>> fits = [Fit(build(rate), X, y, epochs=30, seed=0) for rate in (0.001, 0.01)]
    >>> best = min(fit_many(fits), key=lambda trained: trained.history["loss"][-1])

    Args:
        model: A compiled `keras.Model`, which is trained in place, or a function without arguments that returns one.
        x: Inputs: an array of shape `(n, ...)`, or a list or dict of them; or a data set of batches.
        y: Targets, shape `(n, ...)`, or a list or dict of them. Defaults to `None`.
        sample_weight: Weights of the rows, shape `(n,)`. Defaults to `None`.
        batch_size: Rows in each step. Defaults to `None`: 32.
        epochs: Number of the last epoch, as in Keras. Defaults to `1`.
        initial_epoch: Number of epochs before the first, as in Keras. Defaults to `0`.
        validation_data: `(x, y)` or `(x, y, sample_weight)`, or a data set. Defaults to `None`.
        validation_batch_size: Rows in each step of validation. Defaults to `None`: `batch_size`.
        validation_freq: Epochs from one validation to the next, or the numbers of the epochs with one. Defaults to
            `1`.
        callbacks: Callbacks. Defaults to none.
        shuffle: Whether the rows come in a new order in each epoch. Defaults to `True`.
        seed: Seed of that order and of everything random in training. Defaults to `None`: one is drawn.
        verbose: Keras' verbosity. Defaults to `0`; anything else is left to `Model.fit`.
        strategy: A `distribution.Strategy` that the model was built under; the fit is left to `Model.fit`. Defaults to
            `None`.
        options: Other arguments of `Model.fit`, with which the fit is left to it. Defaults to none.
    """

    model: keras.Model | Callable[[], keras.Model] | Network
    x: Any
    y: Any = None
    sample_weight: Any = None
    batch_size: int | None = None
    epochs: int = 1
    initial_epoch: int = 0
    validation_data: Any = None
    validation_batch_size: int | None = None
    validation_freq: int | Sequence[int] = 1
    callbacks: Sequence[keras.callbacks.Callback] = ()
    shuffle: bool | str = True
    seed: int | None = None
    verbose: int | str = 0
    strategy: Strategy | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Trained:
    """What became of a fit.

    Attributes:
        history: Losses and metrics by name, a number for each epoch.
        how: `"fused"` with others in one program, `"alone"` in a program of its own, or by `"Model.fit"`.
        n_together: Number of fits in its program, including this one.
        program: Number of the program that it was fused in; None if it was not fused.
        reason: Why it was not fused, in words; None if it was fused.
        error: What it raised; None if it was trained. It does not affect other fits.
    """

    def __init__(self, network: Network | None) -> None:
        self.network = network
        self.history: dict[str, list[Any]] = {}
        self.how: How = "alone"
        self.n_together = 1
        self.program: int | None = None
        self.reason: str | None = None
        self.error: BaseException | None = None

    def note_how(self, how: How, reason: str | None, n_together: int = 1, program: int | None = None) -> None:
        """Notes how it is trained; see the attributes."""
        self.how, self.reason, self.n_together, self.program = how, reason, n_together, program

    def without_model(self) -> Trained:
        """A copy without the model and everything that it keeps in memory."""
        light = Trained(None)
        vars(light).update(vars(self), network=None)
        return light

    @classmethod
    def failed(cls, error: BaseException) -> Trained:
        """A fit that raised an error."""
        trained = cls(None)
        trained.error = error
        return trained

    @property
    def model(self) -> keras.Model:
        """The trained model."""
        if self.network is None:
            raise self.error or RuntimeError("there is no model")
        return self.network.model
