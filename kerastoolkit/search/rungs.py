"""Rungs: the worst candidates of a search stop early, while the others continue in the same program."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kerastoolkit._values import is_whole
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.search._tasks import Call, tasks_of
from kerastoolkit.training.fused import Fit, Trained

__all__ = ["Rungs"]

# Words in the name of a metric that tell whether lower or higher values are better; the first set takes precedence.
_LESS_IS_BETTER = {"crossentropy", "error", "hinge", "loss", "mae", "mape", "mse", "msle", "poisson", "rmse"}
_MORE_IS_BETTER = {"acc", "accuracy", "auc", "f1", "precision", "r2", "recall", "score"}


@dataclasses.dataclass(frozen=True)
class Rungs:
    """Stops the worst candidates of a search at certain epochs, called rungs.

    At each rung a candidate continues if its mean over the folds is among the best `1 / factor` of all candidates that
    have reached the rung so far. This is the rule of asynchronous successive halving (Li et al., "A System for
    Massively Parallel Hyperparameter Tuning", MLSys 2020), except that candidates that train together reach a rung
    together, and are all compared before any of them continues.

    All folds of a candidate stop after the same epoch. Folds that are trained one after the other, as by `Model.fit`,
    follow the first of them. A candidate whose mean is not finite never continues. Members of an ensemble that joblib
    trains, and fits of a search inside the search, are not stopped; of members that an estimator trains one after the
    other, as AdaBoost does, the first decides for all.

    Example:

    >>> estimator = KerasClassifier(epochs=90, validation_split=0.2)
    >>> search = GridSearchCV(estimator, {"optimizer__learning_rate": rates}, early_stopping=Rungs(factor=4))

    Args:
        factor: One of this many candidates continues. Defaults to `3`.
        min_epochs: Epochs before the first rung; each further rung comes after `factor` times as many. Defaults to
            `None`: the epochs of the fit divided by `factor` squared, rounded up, which makes two rungs at most.
        monitor: What is compared: a name in the history. Defaults to `"val_loss"`, for which the fits need validation
            data.
        mode: Whether lower or higher values are better: `"min"`, `"max"`, or `"auto"`, which is `"min"` for losses and
            errors and `"max"` for accuracy, AUC, precision, recall, F-score and R2. Defaults to `"auto"`.

    Raises:
        ParameterError: A value is impossible, or `mode="auto"` cannot decide by the name.
    """

    factor: float = 3
    min_epochs: int | None = None
    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"

    def __post_init__(self) -> None:
        if not 1 < self.factor < math.inf:
            raise ParameterError(f"`factor` of Rungs must be a number greater than 1; got {self.factor!r}.")
        if self.min_epochs is not None and not (is_whole(self.min_epochs) and self.min_epochs >= 1):
            raise ParameterError(
                f"`min_epochs` of Rungs must be a whole number of at least 1, or None; got {self.min_epochs!r}."
            )
        more_is_better(self.monitor, self.mode, "of Rungs")

    def epochs(self, n_epochs: int) -> Iterator[int]:
        """The rungs of a fit of so many epochs: the epochs after which its candidate is compared."""
        after: float = self.min_epochs or max(1, math.ceil(n_epochs / self.factor**2))
        last = 0
        while (rung := math.ceil(after)) < n_epochs:
            if rung > last:
                yield rung
            last, after = rung, after * self.factor


def more_is_better(monitor: str, mode: str, whose: str) -> bool:
    """Whether higher values of what is compared are better.

    Args:
        monitor: A name in the history.
        mode: `"min"`, `"max"`, or `"auto"`: what the name says.
        whose: Whose arguments they are, for the errors.

    Raises:
        ParameterError: One of them is impossible, or the name does not tell.
    """
    if not isinstance(monitor, str):
        raise ParameterError(f"`monitor` {whose} must be a name in the history; got {monitor!r}.")
    if mode not in ("auto", "min", "max"):
        raise ParameterError(f"`mode` {whose} must be 'auto', 'min' or 'max'; got {mode!r}.")
    if mode != "auto":
        return mode == "max"
    words = set(re.split("[^a-z0-9]+", monitor.lower()))
    if words & _LESS_IS_BETTER:
        return False
    if words & _MORE_IS_BETTER:
        return True
    raise ParameterError(
        f"`monitor` {whose} is {monitor!r}, a name that does not tell whether lower or higher values are better. "
        "Give mode='min' or mode='max'."
    )


class Refused(BaseException):
    """A search cannot compare its candidates. Not an Exception, so that no error score takes its place.

    Args:
        error: What is wrong, as the user will see it.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclasses.dataclass
class _Place:
    """The candidate and split that a fit belongs to."""

    candidate: int
    split: int
    ahead: list[int]  # epochs after which it will be compared; empty if it only follows


class Ladder:
    """The rungs of one search: which candidates have reached which rung, and which continue.

    A subclass may compare at other epochs (`_epochs_to_compare`) and by another rule (`_must_stop`).

    Args:
        rungs: The rule.
    """

    # for the errors
    _compares, _another = "Rungs compare", "early_stopping=Rungs(monitor={!r})"

    def __init__(self, rungs: Rungs) -> None:
        self._rungs = rungs
        self._more_is_better = more_is_better(rungs.monitor, rungs.mode, "of Rungs")
        self._here = threading.local()
        # Weak: another fit may have the address of one that is gone.
        self._places: weakref.WeakKeyDictionary[Fit, _Place] = weakref.WeakKeyDictionary()
        self._values: dict[int, dict[int, dict[int, float]]] = {}  # by rung, candidate and split; lower is better
        self._continued: set[tuple[int, int]] = set()  # rung and candidate
        self._stopped: dict[int, int] = {}  # by candidate, after which epoch
        self._epochs: dict[tuple[int, int], float] = {}  # by candidate and split; NaN if they were not counted
        self._first = self._n_candidates = self._n_expected = 0
        self._error: Exception | None = None

    # -- what the backend calls ----------------------------------------------------------------------------------

    def around(self, call: Call, inner: Callable[[], Any]) -> Callable[[], Any]:
        """The same task, whose fits are assigned to its candidate and split."""
        tasks = tasks_of(call)
        position = tasks[0].position if len(tasks) == 1 else None
        # The best estimator may itself be a search: when it is fitted in the end, its tasks look like ours.
        if position is None or not self._n_expected:
            return inner
        self._n_expected -= 1
        cell = self._first + position.candidate, position.split

        def placed() -> Any:
            self._here.cell, self._here.is_first = cell, True
            try:
                return inner()
            finally:
                self._here.cell = None

        return placed

    def enter(self, fit: Fit) -> None:
        """A fit is about to be trained, in the thread of its task.

        Raises:
            Refused: It will never have what is compared.
        """
        cell = getattr(self._here, "cell", None)
        if cell is None:
            return
        monitor = self._rungs.monitor
        if self._error is None and monitor.startswith("val_") and fit.validation_data is None:
            self._error = ParameterError(
                f"{self._compares} {monitor!r}, and a fit of this search has no validation data. Give the estimator "
                f"`validation_split=0.2`, or compare another value with `{self._another.format('loss')}`."
            )
        if self._error is not None:
            raise Refused(self._error)
        candidate, split = cell
        ahead = list(self._epochs_to_compare(fit)) if self._here.is_first else []
        self._places[fit] = _Place(candidate, split, ahead)
        self._here.is_first = False

    def judge(self, logs: Mapping[Fit, tuple[int, Mapping[str, Any]]]) -> set[Fit]:
        """Which of the fits that have trained an epoch must stop now.

        An error is not raised here, where it would look like a program that failed: all fits stop, and `finished`
        gives them the error.

        Args:
            logs: For each fit, the epochs it has trained and the values of its history after the last.

        Returns:
            The fits to stop.
        """
        try:
            arrived = {self._arrive(fit, epoch, values): epoch for fit, (epoch, values) in logs.items()}
            arrived.pop(None, None)
            for (rung, candidate), epoch in arrived.items():  # type: ignore[misc]  # None was removed
                self._decide(rung, candidate, epoch)
        except Exception as error:
            self._error = error
            return set(logs)
        places = {fit: self._places[fit] for fit in logs if fit in self._places}
        return {fit for fit, place in places.items() if logs[fit][0] >= self._stopped.get(place.candidate, math.inf)}

    def finished(self, fits: Sequence[Fit], trained: Sequence[Trained]) -> None:
        """Fits have been trained."""
        for fit, one in zip(fits, trained, strict=True):
            place = self._places.pop(fit, None)
            if place is None:
                continue
            if self._error is not None:
                one.error = Refused(self._error)
            cell, n_epochs = (place.candidate, place.split), len(next(iter(one.history.values()), ()))
            self._epochs[cell] = max(n_epochs, self._epochs.get(cell, 0))

    # -- what the search calls -----------------------------------------------------------------------------------

    def expect(self, n_candidates: int, n_splits: int) -> dict[str, Iterable[Any]]:
        """Announces more candidates; returns columns for `cv_results_`, to be read when they have been evaluated."""
        self._first = self._n_candidates
        self._n_candidates += n_candidates
        self._n_expected = n_candidates * n_splits
        candidates = range(self._first, self._n_candidates)

        def column(split: int) -> Iterator[float]:
            return (self._epochs.get((candidate, split), 0) for candidate in candidates)

        def mean() -> Iterator[float]:
            columns = zip(*(column(split) for split in range(n_splits)), strict=True)
            return (float(np.mean(epochs)) for epochs in columns)

        splits = {f"split{split}_n_epochs": column(split) for split in range(n_splits)}
        stopped = (candidate in self._stopped for candidate in candidates)
        return {**splits, "mean_n_epochs": mean(), "stopped_early": stopped}

    def expect_again(self) -> None:
        """Announces that the candidates of the last batch come again, at the beginning of the next."""
        self._n_candidates = self._first

    def record(self, candidate: int) -> dict[str, Any]:
        """What `recall` needs to know about a candidate of the last batch, as plain JSON values."""
        candidate += self._first
        values = {str(rung): of.get(candidate, {}) for rung, of in self._values.items()}
        return {
            "n_epochs": {str(split): n for (one, split), n in self._epochs.items() if one == candidate},
            "stopped_after": self._stopped.get(candidate),
            "rungs": {
                rung: {str(split): value if math.isfinite(value) else None for split, value in of_rung.items()}
                for rung, of_rung in values.items()
                if of_rung
            },
        }

    def recall(self, candidate: int, recorded: Mapping[str, Any]) -> None:
        """Restores what another search recorded about a candidate of the last batch, which will not be trained."""
        candidate += self._first
        for split, n_epochs in recorded["n_epochs"].items():
            self._epochs[candidate, int(split)] = n_epochs
        if recorded["stopped_after"] is not None:
            self._stopped[candidate] = recorded["stopped_after"]
        for rung, of_rung in recorded["rungs"].items():
            values = {int(split): math.inf if value is None else value for split, value in of_rung.items()}
            self._values.setdefault(int(rung), {})[candidate] = values

    # -- the rule ------------------------------------------------------------------------------------------------

    def _epochs_to_compare(self, fit: Fit) -> Iterable[int]:
        return self._rungs.epochs(fit.epochs)

    def _must_stop(self, rung: int, candidate: int) -> bool:
        """Whether a candidate is not among the best that have reached the rung so far."""
        means = {one: _mean(values) for one, values in self._values[rung].items()}
        n_better = sum(mean < means[candidate] for mean in means.values())
        return not math.isfinite(means[candidate]) or n_better >= math.ceil(len(means) / self._rungs.factor)

    def _arrive(self, fit: Fit, epoch: int, values: Mapping[str, Any]) -> tuple[int, int] | None:
        """Notes the value of a fit that reaches a rung, and returns the rung and the candidate; None at no rung."""
        place = self._places.get(fit)
        if place is None or not place.ahead or epoch < place.ahead[0]:
            return None
        monitor = self._rungs.monitor
        if monitor not in values:
            if monitor.startswith("val_") and fit.validation_freq != 1 and "loss" in values:
                return None  # compared after the next epoch with a validation
            another = self._another.format(next(iter(values), "loss"))
            raise ParameterError(
                f"{self._compares} {monitor!r}, and the history of a fit has only: "
                f"{', '.join(map(repr, values))}. Name one of these: `{another}`."
            )
        rung = place.ahead.pop(0)
        while place.ahead and place.ahead[0] <= epoch:
            place.ahead.pop(0)
        value = -float(values[monitor]) if self._more_is_better else float(values[monitor])
        if not np.isfinite([values.get(name, 0.0) for name in ("loss", "val_loss")]).all():
            value = math.inf  # the accuracy of a network that diverged means nothing
        of_candidate = self._values.setdefault(rung, {}).setdefault(place.candidate, {})
        of_candidate[place.split] = value if math.isfinite(value) else math.inf
        return rung, place.candidate

    def _decide(self, rung: int, candidate: int, epoch: int) -> None:
        """Decides once whether a candidate stops after this epoch; folds that come later follow."""
        if candidate in self._stopped or (rung, candidate) in self._continued:
            return
        if self._must_stop(rung, candidate):
            self._stopped[candidate] = epoch
        else:
            self._continued.add((rung, candidate))


def _mean(values: Mapping[int, float]) -> float:
    return float(np.mean(list(values.values())))
