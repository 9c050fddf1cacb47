"""How far a search is: counted for programs (`on_progress`), shown to people (`verbose`).

In terminals rich draws the line: it keeps what others print above the line, and removes the line at the end. In
notebooks rich needs ipywidgets, which nothing here requires, and warns where they are missing; there the line is a
display of IPython's own, updated in place. Where the output is neither, nothing is shown.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from kerastoolkit.search._tasks import Result, Task, error_of, score_of, scores_of

__all__ = ["FinishedFit", "SearchProgress", "Tally", "shown_line"]

_SECONDS_BETWEEN_UPDATES = 0.2  # during training

# One line at a time: a search inside another shows none.
_LINE = threading.Lock()


@dataclasses.dataclass(frozen=True)
class FinishedFit:
    """A fit of a search that was scored, or failed.

    Attributes:
        candidate: Number of the candidate in the order of the search, from 0.
        split: Number of the split, from 0.
        parameters: The candidate's parameters.
        score: The test score that `refit` names, or the only one; the `error_score` if the fit failed.
        error: The traceback of a fit that failed, as text; None if it did not.
    """

    candidate: int
    split: int
    parameters: Mapping[str, Any]
    score: float | None
    error: str | None


@dataclasses.dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        n_fits: Fits that are known to come, those done among them: candidates times splits.
        n_fits_done: Fits that were scored or failed.
        training: Fraction of the epochs done of the fits that are in training, from 0 to 1.
        best_score: Best mean test score of a candidate so far; None before the first.
        seconds: Seconds since the search began.
        seconds_left: Seconds that the remaining fits will probably take, no more than `timeout` leaves; None before the
            first fit is done.
        fit: The fit that was just scored; None if only epochs went by.
        results: `cv_results_` of the candidates that have been evaluated: with a `timeout` it grows with each batch,
            else it is None until all candidates of a search (or of an iteration of halving) have been evaluated.
    """

    n_fits: int
    n_fits_done: int
    training: float
    best_score: float | None
    seconds: float
    seconds_left: float | None
    fit: FinishedFit | None
    results: Mapping[str, Any] | None

    def __str__(self) -> str:
        parts = [f"{self.n_fits_done} of {self.n_fits} fits"]
        if 0 < self.training < 1:
            parts.append(f"training, {self.training:.0%}")
        if self.best_score is not None:
            parts.append(f"best so far {self.best_score:.4g}")
        if self.n_fits_done < self.n_fits and self.seconds_left is not None:
            parts.append(f"{_duration(self.seconds_left)} left")
        elif self.n_fits_done:
            parts.append(_duration(self.seconds))
        return " · ".join(parts)


class Tally:
    """Counts the fits of one search, and says so after each.

    Args:
        metric: Name of the score that is best where it is greatest.
        n_splits: Splits of each candidate.
        timeout: Seconds that the search may take; None for any time.
        observers: Called with a `SearchProgress`, from the thread that trains or scores.
    """

    def __init__(
        self, metric: str, n_splits: int, timeout: float | None, observers: list[Callable[[SearchProgress], object]]
    ) -> None:
        self._metric, self._n_splits, self._timeout, self._observers = metric, n_splits, timeout, observers
        self._lock = threading.RLock()
        self._scores: dict[int, dict[int, float]] = {}  # by candidate and split
        self._best: float | None = None
        self._n_fits = self._n_done = 0
        self._training = 0.0
        self._begun, self._updated = time.monotonic(), 0.0
        self._error: BaseException | None = None
        self._first = 0  # number of the first candidate of the batch
        self._results: Mapping[str, Any] | None = None

    def expect(self, n_candidates: int) -> None:
        """More candidates will be evaluated."""
        self._n_fits += n_candidates * self._n_splits

    def leave_out(self, n_candidates: int) -> None:
        """Some of them will not."""
        self._n_fits -= n_candidates * self._n_splits

    def begin(self, first: int, *, again: bool) -> None:
        """A batch begins.

        Args:
            first: Number of its first candidate.
            again: Whether candidates of the last batch are in it again, whose results are known.
        """
        self._first = first
        if not again:  # scikit-learn may have refused a batch, whose numbers are free again
            self._scores = {candidate: scores for candidate, scores in self._scores.items() if candidate < first}

    def finished(self, task: Task, result: Result) -> None:
        """The task of a candidate and a split has ended."""
        position = task.position
        if position is None or scores_of(result) is None:
            return
        with self._lock:
            candidate = self._first + position.candidate
            of_candidate = self._scores.setdefault(candidate, {})
            score = score_of(result, self._metric)
            of_candidate[position.split] = np.nan if score is None else score
            self._n_done += 1
            if len(of_candidate) == self._n_splits and np.isfinite(mean := float(np.mean(list(of_candidate.values())))):
                self._best = mean if self._best is None else max(self._best, mean)
            self._say(FinishedFit(candidate, position.split, task.parameters, score, error_of(result)))
        self.raise_error()

    def evaluated(self, results: Mapping[str, Any]) -> None:
        """All candidates of a batch have been evaluated."""
        with self._lock:
            self._results = results
            self._say(None)

    def on_epoch_end(self, done: int, epochs: int) -> None:
        """So many of the epochs of the fits in training are done."""
        with self._lock:
            self._training = done / epochs if epochs else 0.0
            if self._error is not None or time.monotonic() - self._updated < _SECONDS_BETWEEN_UPDATES:
                return
            try:
                self._say(None)
            except Exception as error:  # raised here it would look like a training that failed
                self._error = error

    def raise_error(self) -> None:
        """Raises what an observer raised while fits were in training."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _say(self, fit: FinishedFit | None) -> None:
        self._updated = time.monotonic()
        seconds, left = self._updated - self._begun, None
        if self._n_done:
            left = seconds / self._n_done * (self._n_fits - self._n_done)
            left = left if self._timeout is None else min(left, max(0.0, self._timeout - seconds))
        progress = SearchProgress(
            self._n_fits, self._n_done, self._training, self._best, seconds, left, fit, self._results
        )
        for observer in self._observers:
            observer(progress)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


# -- the line -------------------------------------------------------------------------------------------------------


class _Console(Protocol):
    """What of a console of rich's tells where its output goes."""

    @property
    def is_jupyter(self) -> bool: ...

    @property
    def is_terminal(self) -> bool: ...


@contextlib.contextmanager
def shown_line(console: _Console | None = None) -> Iterator[Callable[[SearchProgress], None] | None]:
    """A line that tells how far a search is for as long as the block runs, and is gone afterwards.

    Args:
        console: Where it is shown. Defaults to `None`: standard error.

    Yields:
        Something to be called with each `SearchProgress`; None where nobody could see a line, or one is shown already.
    """
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    is_seen = console.is_jupyter or console.is_terminal
    if not is_seen or not _LINE.acquire(blocking=False):
        yield None
        return
    try:
        with _in_notebook() if console.is_jupyter else _in_terminal(console) as update:
            yield update
    finally:
        _LINE.release()


@contextlib.contextmanager
def _in_terminal(console: Any) -> Iterator[Callable[[SearchProgress], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        row = bar.add_task("", total=None)

        def update(progress: SearchProgress) -> None:
            bar.update(row, description=str(progress), completed=progress.n_fits_done, total=progress.n_fits)

        yield update


@contextlib.contextmanager
def _in_notebook() -> Iterator[Callable[[SearchProgress], None]]:
    from IPython.display import display

    handle: Any = display({"text/plain": ""}, raw=True, display_id=True)
    # Other threads do not know which cell they work for.
    context, lock, shown = contextvars.copy_context(), threading.Lock(), 0.0

    def write(text: str) -> None:
        with lock:
            context.run(handle.update, {"text/plain": text}, raw=True)

    def update(progress: SearchProgress) -> None:
        nonlocal shown
        if time.monotonic() - shown > _SECONDS_BETWEEN_UPDATES:
            shown = time.monotonic()
            write(str(progress))

    try:
        yield update
    finally:
        write("")
