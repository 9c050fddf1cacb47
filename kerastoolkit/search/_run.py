"""One fit of a search: its candidates are handed to scikit-learn, and its tasks pass through here on their way.

Without a `timeout` scikit-learn gets all candidates at once. With one it gets them in batches: the first is one
candidate, whose speed is not known yet, and each further one is as large as the time left allows. A batch is trained
together, begins only before the time is up, and is finished then. An iteration of halving after the first is evaluated
whole or not at all, since some of it would not be comparable with the rest.

scikit-learn refuses to evaluate candidates of which all fits fail. It means all of a search; of a batch that is nothing
special. So a batch of failures is evaluated together with the next one; once there is a score, it is evaluated again as
one that did not fail, by its error scores. No fit is trained twice for that: its result is known (`Replay`).
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning

from kerastoolkit.search._progress import Tally
from kerastoolkit.search._tasks import (
    Call,
    Position,
    Replay,
    Result,
    SubtaskContexts,
    error_of,
    replace_functions,
    scores_of,
    tasks_of,
    with_scores,
)
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.rungs import Ladder

__all__ = ["SearchRun"]

Candidate: TypeAlias = Mapping[str, Any]
CVResults: TypeAlias = dict[str, Any]

# Seconds that a batch should take: long enough to make the fixed costs of a batch small, short enough to end in time.
_SECONDS_A_BATCH = 20

# By how much a batch may be larger than the one before: what comes next may be slower.
_GROWTH = 4

# Most candidates of a batch while their speed is unknown, since all results so far came from a journal.
_MAX_UNKNOWN = 16


class Pace:
    """How many candidates make the next batch.

    Args:
        seconds_left: Seconds in which candidates may still begin, given the seconds that one takes.
    """

    def __init__(self, seconds_left: Callable[[float], float]) -> None:
        self._seconds_left = seconds_left
        self._size = 0
        self._seconds: float | None = None  # of a candidate

    def next(self) -> int:
        """The size of the next batch; 0 when the time is up."""
        left = self._seconds_left(self._seconds or 0.0)
        if not self._size:
            self._size = 1  # one candidate is evaluated, whatever the time
        elif left <= 0:
            return 0
        elif self._seconds is None:
            self._size = max(self._size, min(2 * self._size, _MAX_UNKNOWN))
        else:
            in_time = min(left, _SECONDS_A_BATCH) / max(self._seconds, 1e-9)
            self._size = max(1, int(min(in_time, _GROWTH * self._size)))
        return self._size

    def took(self, seconds: float, n_candidates: float) -> None:
        """A batch took so long, in which so many candidates were trained."""
        if n_candidates:
            self._seconds = seconds / n_candidates


class SearchRun:
    """What one fit of a search knows.

    Args:
        n_splits: Splits of each candidate.
        error_score: The score of a fit that failed, or `"raise"`.
        tally: Counts the fits.
        journal: Records them; None for no journal.
        ladder: Compares candidates at its rungs; None where all train to the end.
        timeout: Seconds after which no candidate begins; None for any time.
        reserve: Seconds of these to be left for other things, given the seconds that a candidate takes.

    Attributes:
        n_splits, journal, ladder: As given.
        left_out: The candidates that were not begun in time.
        is_over: Whether something was left out.
        n_parts: How often scikit-learn asked for candidates to be evaluated (once; in halving, once an iteration), as
            far as there was time.
    """

    def __init__(
        self,
        n_splits: int,
        error_score: float | str,
        tally: Tally,
        *,
        journal: Journal | None,
        ladder: Ladder | None,
        timeout: float | None,
        reserve: Callable[[float], float],
    ) -> None:
        self.n_splits, self.journal, self.ladder = n_splits, journal, ladder
        self.left_out: list[Candidate] = []
        self.is_over = False
        self.n_parts = 0
        self._error_score, self._tally, self._timeout, self._reserve = error_score, tally, timeout, reserve
        self._begun = time.monotonic()
        self._n_expected = self._n_trained = 0
        self._first = 0  # number of the first candidate of those that are evaluated
        self._is_again = False
        self._known: dict[Position, Result] = {}
        self._results: dict[Position, Result] = {}
        self._score_names: tuple[str, ...] = ()
        self._cv_results: CVResults | None = None

    # -- tasks ---------------------------------------------------------------------------------------------------

    def around(self, call: Call) -> Callable[[], Any]:
        """A task that comes from the journal or goes into it, is compared at rungs, noted, and counted."""
        if self._timeout is not None:
            replace_functions(call, lambda task: self._counting(task.function))
        inner = call if self.journal is None else self.journal.around(call)
        tasks = tasks_of(call)
        if not self._n_expected or len(tasks) != 1 or tasks[0].position is None:
            return lambda: inner()  # of what is fitted when all is over
        self._n_expected -= 1
        (task,) = tasks
        is_known = task.position in self._known
        inner = Replay(inner, self._known, self._results) if self._timeout is not None else inner
        inner = inner if self.ladder is None else self.ladder.around(call, inner)

        def observed() -> Any:
            results = inner()
            if not is_known:
                self._tally.finished(task, results[0])
            return results

        return observed

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a task, which is called only if its fit is trained, and not taken from the journal."""

        @functools.wraps(function)
        def counting(*arguments: object, **keywords: object) -> Any:
            result = function(*arguments, **keywords)
            self._n_trained += isinstance(result, Mapping) and error_of(result) is None
            return result

        return counting

    # -- candidates ----------------------------------------------------------------------------------------------

    def evaluating(self, evaluate: Callable[..., CVResults], estimator: BaseEstimator) -> Callable[..., CVResults]:
        """scikit-learn's function that evaluates candidates, for one that keeps to the time.

        Args:
            evaluate: scikit-learn's function.
            estimator: What is searched.
        """

        def evaluate_in_time(
            candidates: Any, cv: Any = None, more_results: Mapping[str, Sequence[Any]] | None = None, **context: Any
        ) -> CVResults:
            candidates = list(candidates)
            if self.journal is not None:
                self.journal.check(estimator, candidates)
            if self._cv_results is not None and self._seconds_left(0.0) <= 0:  # a further iteration of halving
                self.is_over = True
                return self._cv_results
            self.n_parts += 1
            self._tally.expect(len(candidates))
            some = functools.partial(self._evaluate, evaluate, cv, context, more_results or {})
            if self._timeout is None or self._cv_results is not None or not candidates:
                return some(candidates, 0)
            if context.get("callback_ctx") is not None:
                context["callback_ctx"] = SubtaskContexts(context["callback_ctx"])
            return self._in_batches(some, candidates)

        return evaluate_in_time

    def _in_batches(
        self, evaluate: Callable[[Sequence[Candidate], int], CVResults], candidates: Sequence[Candidate]
    ) -> CVResults:
        pace = Pace(self._seconds_left)
        first = end = 0  # of what is evaluated next; the first ones may have failed before
        error: ValueError | None = None
        while end < len(candidates) and (size := pace.next()):
            begun, n_before, end = time.monotonic(), self._n_trained, min(end + size, len(candidates))
            batch = candidates[first:end]
            try:
                evaluate(batch, first)
            except ValueError as raised:
                if not self._all_failed(len(batch)):
                    raise
                error, self._is_again, self._known = raised, True, dict(self._results)
                if self._cv_results is not None:
                    self._evaluate_failures(evaluate, batch, first, raised)
                    first = end
            else:
                first = end
            if first == end:
                self._is_again, self._known = False, {}
            pace.took(time.monotonic() - begun, (self._n_trained - n_before) / self.n_splits)
        if error is not None and self._cv_results is None:
            raise error
        self.left_out = list(candidates[end:])
        self.is_over = bool(self.left_out)
        self._tally.leave_out(len(self.left_out))
        return self._cv_results or {}

    def _evaluate(
        self,
        evaluate: Callable[..., CVResults],
        cv: object,
        context: Mapping[str, Any],
        more_results: Mapping[str, Sequence[Any]],
        candidates: Sequence[Candidate],
        first: int,
    ) -> CVResults:
        """Evaluates some candidates; `first` is the number of the first among those that scikit-learn asked for."""
        contexts = context.get("callback_ctx")
        if isinstance(contexts, SubtaskContexts):
            contexts.first = first * self.n_splits
        more: dict[str, Iterable[Any]] = {
            name: list(values)[first : first + len(candidates)] for name, values in more_results.items()
        }
        if self.ladder is not None:
            if self._is_again:
                self.ladder.expect_again()
            more |= self.ladder.expect(len(candidates), self.n_splits)
        self._results = {}
        self._n_expected = len(candidates) * self.n_splits
        self._tally.begin(self._first, again=self._is_again)
        found = evaluate(candidates, cv, more_results=more or None, **context)
        self._first += len(candidates)
        scores = next((scores_of(result) for result in self._results.values() if error_of(result) is None), None)
        self._score_names = tuple(scores) if isinstance(scores, Mapping) else ()
        self._cv_results = found
        self._tally.evaluated({**found, "params": list(found["params"])})  # a list that scikit-learn extends later
        return found

    def _evaluate_failures(
        self,
        evaluate: Callable[[Sequence[Candidate], int], CVResults],
        batch: Sequence[Candidate],
        first: int,
        error: ValueError,
    ) -> None:
        """Candidates of which all fits failed, after others that did not: by their error scores."""
        warnings.warn(f"A batch of candidates failed: {error}", FitFailedWarning, stacklevel=2)
        self._known = {
            position: with_scores(result, self._score_names, float(self._error_score))
            for position, result in self._results.items()
        }
        names = self._score_names
        evaluate(batch, first)
        self._score_names = names

    def _all_failed(self, n_candidates: int) -> bool:
        n_failed = sum(error_of(result) is not None for result in self._results.values())
        return n_failed == n_candidates * self.n_splits

    def _seconds_left(self, seconds_of_a_candidate: float) -> float:
        if self._timeout is None:
            return float("inf")
        return self._timeout - (time.monotonic() - self._begun) - self._reserve(seconds_of_a_candidate)
