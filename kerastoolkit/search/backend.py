"""A joblib backend under which the fits of any scikit-learn tool are trained together.

Every task of a search is a thread, and only the thread that holds the baton runs. A task that is ready to train its
network hands the fit in, passes the baton on and sleeps. When no task can run, all fits that were handed in are
trained together (`training.fit_many`), and the tasks wake one by one to score. Because one task runs at a time, in the
order of the search, what they draw from the random generators of the process does not depend on timing.

Tasks of one split share its rows where nothing can write into them (`_rows`), and only as many tasks wait as together
need little more memory than one alone. Where the order of tasks makes no difference, those that share rows which are in
memory already come first.

A task that starts a search of its own (nested cross-validation, an ensemble inside a search) waits for its subtasks
without the baton, and their fits are handed in like all others.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import gc
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
from joblib._parallel_backends import FallbackToBackend, ParallelBackendBase, SequentialBackend
from sklearn import config_context

from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.search._rows import Needs, SharedRows, owner
from kerastoolkit.search._tasks import tasks_of
from kerastoolkit.search.rungs import Ladder
from kerastoolkit.training._memory import free_memory
from kerastoolkit.training.fit import Fit, Trained, fit_many, gathering
from kerastoolkit.training.seeds import Settings, is_inside, put_settings, settings

__all__ = ["FusedBackend", "fused"]

# Tasks in flight at once. More of them make larger groups, but each keeps its rows in memory while it waits.
_MAX_TASKS = 256

# Bytes that tasks in flight may hold beyond those of one task, which would hold them if it ran alone, too.
_MAX_BYTES = 64 * 2**20

# How many of these may be rows of other splits, where the fits of one split may be trained before those of the next.
_MAX_BYTES_OF_ROWS = 24 * 2**20

# Bytes for each row of a fit that waits or trains, whatever is in it: its place in the permutation of an epoch.
_BYTES_OF_A_PERMUTATION = 4

# How long the end of a search waits for tasks that were cancelled; code of the user's may take any time.
_SECONDS_TO_CANCEL = 2.0

# How many more bytes tasks may hold before the free memory is measured again.
_BYTES_BETWEEN_CHECKS = 4 * 2**20


@contextlib.contextmanager
def fused(*, max_memory: float | None = None) -> Iterator[TrainingReport]:
    """Trains the Keras fits of everything that scikit-learn does inside the block together.

    This covers searches, cross-validation, learning curves, ensembles, and whatever else hands its work to joblib;
    estimators of other kinds are fitted as usual. `n_jobs` makes no difference.

    Example:

    >>> with fused() as report:
    ...     scores = cross_val_score(KerasClassifier(), X, y, cv=10)
    >>> print(report.explain())
    10 fits trained together, as one program.

    Args:
        max_memory: Bytes that models trained together may take. Defaults to `None`: half of what is free.

    Yields:
        A `TrainingReport`, which says what was trained and how.
    """
    backend = FusedBackend(max_memory=max_memory)
    with joblib.parallel_config(backend=backend):
        yield backend.report


class TrainingReport:
    """What was trained inside a block of `fused` or by a search, and how.

    Attributes:
        trained: A `training.Trained` for every fit, in the order of training, without its model.
        seconds: Time spent training, in seconds.
    """

    def __init__(self) -> None:
        self.trained: list[Trained] = []
        self.seconds = 0.0

    def explain(self) -> str:
        """Says in words which fits were trained together, which were not, and why."""
        from kerastoolkit.training import explain

        return explain(self.trained)


class Cancelled(BaseException):
    """The search was cancelled while a task slept. Not an Exception, so that no error score takes its place."""


class _Task:
    """A call that joblib handed over, run in a thread of its own.

    Args:
        call: The call.
        done: Called with the task when it has ended, as joblib wants it.
        parent: The task that waits for it; None if there is none.
        scored: Whether it is one of many fits that are scored, some of which may fail.
    """

    def __init__(
        self, call: Callable[[], Any], done: Callable[[Any], None], parent: _Task | None, scored: bool
    ) -> None:
        self.call, self.done, self.parent = call, done, parent
        self.is_scored: bool = scored or (parent is not None and parent.is_scored)
        self.was_cancelled = False
        self.settings = Settings()
        self.result: Any = None
        self.error: BaseException | None = None
        self.wakes = threading.Event()
        self.finished = threading.Event()
        self.needs = Needs()
        self.fit: Fit | None = None
        self.owners: list[Any] = []  # arrays whose memory the fit keeps
        self.n_bytes = self.n_bytes_of_fit = 0  # what it keeps while it sleeps, without the rows that it shares
        self.trained: Trained | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any longer for it, or for the task that started it."""
        return self.was_cancelled or (self.parent is not None and self.parent.is_cancelled)

    def end_with(self, error: BaseException) -> None:
        """Ends a task that never ran."""
        del self.call
        self.error = error
        self.finished.set()
        self.done(self)

    def get(self, timeout: float | None = None) -> Any:
        """The result, for joblib."""
        if not self.finished.wait(timeout):
            raise TimeoutError("the task did not end in time")
        if self.error is not None:
            raise self.error
        return self.result


class _Worker(threading.Thread):
    """A thread that runs tasks one after another, since starting a thread takes a tenth of the time of a small fit.

    Each task finds the settings of numpy, scikit-learn and Keras, and the context variables, of a new thread.
    """

    def __init__(self, run: Callable[[_Task, _Worker], None]) -> None:
        super().__init__(name="kerastoolkit-task", daemon=True)
        self._run = run
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self.start()

    def take(self, task: _Task | None) -> None:
        """Runs a task after those before it; None ends the thread."""
        self._tasks.put(task)

    def run(self) -> None:
        while (task := self._tasks.get()) is not None:
            contextvars.Context().run(self._run, task, self)
            del task  # so that waiting for the next task keeps no result in memory


class _Conductor:
    """Lets tasks run one at a time, gathers their fits, and trains them when no task can run."""

    def __init__(
        self,
        max_memory: float | None,
        report: TrainingReport,
        on_epoch_end: Callable[[int, int], None] | None,
        max_together: int | None,
        ladder: Ladder | None,
    ) -> None:
        self._max_memory, self.report = max_memory, report
        self._on_epoch_end, self._max_together = on_epoch_end, max_together
        self._ladder = ladder
        self._lock = threading.Lock()
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._new: collections.deque[_Task] = collections.deque()
        self._awake: collections.deque[_Task] = collections.deque()  # may continue: cancelled, or back from subtasks
        self._trained: collections.deque[_Task] = collections.deque()  # may continue, before all others
        self._are_waking = False  # those that were trained
        self._asleep: list[_Task] = []
        self._waiting: dict[_Task, list[_Task]] = {}  # for subtasks
        self._training: list[_Task] = []
        self._local = threading.local()
        self._idle: list[_Worker] = []
        self._thread: threading.Thread | None = None
        self._rows = SharedRows()
        self._bytes_asleep = self._bytes_in_training = 0
        self._bytes_of_one = self._rows_of_one = 0  # of the first that sleeps or trains, shared rows included
        self._held_at_check, self._free = 2**62, 0.0
        self._users = self._n_trained = 0
        self._has_frozen = False
        self._handing_over = 0  # calls of joblib that have not yet handed over all their first tasks

    def another(self) -> _Conductor:
        """A conductor like this one, which does not wait for the tasks of this one."""
        return _Conductor(self._max_memory, self.report, self._on_epoch_end, self._max_together, self._ladder)

    # -- what joblib calls ---------------------------------------------------------------------------------------

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                self._n_trained = 0
                # Python's garbage collector goes through all objects again and again, a million of them with
                # TensorFlow. While a search runs it need not go through those that were there before.
                self._has_frozen = not gc.get_freeze_count()
                if self._has_frozen:
                    gc.freeze()
            self._users += 1
            self._handing_over += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._conduct, name="kerastoolkit-search", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._has_frozen:
                gc.unfreeze()
        self._news.put(None)

    def handed_over(self) -> None:
        with self._lock:
            self._handing_over -= 1
        self._news.put(None)

    def add(self, task: _Task) -> None:
        self._new.append(task)
        self._news.put(None)

    def prepare(self, call: Callable[[], Any]) -> Needs:
        """Lets a task share the rows of its split with others, and says what it will need."""
        return self._rows.prepare(call)

    def current(self) -> _Task | None:
        """The task whose thread this is."""
        return getattr(self._local, "task", None)

    def cancel(self, tasks: list[_Task]) -> None:
        """Cancels tasks: those that have not begun never will, and those that sleep end."""
        for task in tasks:
            task.was_cancelled = True
        self._news.put(None)

    @contextlib.contextmanager
    def without_baton(self, subtasks: list[_Task]) -> Iterator[None]:
        """Lets other tasks run while a task waits for its subtasks."""
        task = self.current()
        if task is None:
            yield
            return
        task.wakes.clear()
        self._waiting[task] = subtasks
        self._baton_back()
        try:
            yield
        finally:
            self._awake.append(task)
            self._waiting.pop(task, None)
            self._news.put(None)
            task.wakes.wait()

    # -- inside a task's thread ----------------------------------------------------------------------------------

    def _run(self, task: _Task, worker: _Worker) -> None:
        self._local.task = task
        try:
            put_settings(task.settings, only=True)
            with np.errstate(), config_context(), gathering(self._hand_in, scored=task.is_scored):
                task.result = task.call()
        except BaseException as error:
            task.error = error
        finally:
            del task.call  # it holds the fitted estimator, and the search keeps its tasks
            task.finished.set()
            try:
                task.done(task)
                del self._local.task
                self._idle.append(worker)  # unless joblib raised: then its thread ends
            finally:
                self._baton_back()

    def _hand_in(self, fit: Fit) -> Trained:
        task: _Task = self._local.task
        if task.is_cancelled:
            raise Cancelled
        if self._ladder is not None:
            self._ladder.enter(fit)
        task.fit = fit
        self._weigh(task, fit)
        self._waiting.pop(task, None)
        task.wakes.clear()
        self._asleep.append(task)
        self._bytes_asleep += task.n_bytes
        self._baton_back()
        task.wakes.wait()
        task.fit, task.owners = None, []
        if task.trained is None:
            raise Cancelled
        trained, task.trained = task.trained, None
        return trained

    def _baton_back(self) -> None:
        # Another task that can run gets it at once, which takes half as many switches of threads as by the conductor.
        if not self._hand_baton():
            self._baton.set()

    def _after_epoch(self, done: int, epochs: int) -> None:
        if all(task.is_cancelled for task in self._training):
            raise Cancelled
        if self._on_epoch_end is not None:
            self._on_epoch_end(done, epochs)

    # -- inside the conductor's thread ---------------------------------------------------------------------------

    def _conduct(self) -> None:
        self._baton = threading.Event()
        while True:
            if self._let_some_run():
                continue
            if self._asleep and not self._handing_over and not self._somebody_will_wake():
                self._train()
            else:
                with self._lock:
                    if not self._users and not self._new and not self._awake:
                        self._thread = None
                        while self._idle:
                            self._idle.pop().take(None)
                        return
                self._wait_for_news()

    def _let_some_run(self) -> bool:
        """Passes the baton to a task that can run, and waits until no task can; False if none could."""
        self._baton.clear()
        if not self._hand_baton():
            return False
        self._baton.wait()
        return True

    def _hand_baton(self) -> bool:
        """Passes the baton on for a task that is about to wait or to end; False if it must go to the conductor."""
        while True:
            if self._trained:
                self._trained.popleft().wakes.set()
            elif self._are_waking:
                return False  # others begin once the networks of all fits that were handed in are gone
            elif self._awake:
                self._awake.popleft().wakes.set()
            elif self._new and self._new[0].is_cancelled:
                self._new.popleft().end_with(Cancelled())  # a task may still wait for it
                continue
            elif (task := self._next()) is not None:
                try:
                    worker = self._idle.pop() if self._idle else _Worker(self._run)
                except RuntimeError as error:  # the system has no more threads
                    task.end_with(error)
                    continue
                worker.take(task)
            else:
                return False
            return True

    def _prepare_others(self) -> None:
        """While fits are trained, lets other tasks prepare theirs: all that have room, however long that takes.

        So the order in which tasks draw random numbers does not depend on how fast training is.
        """
        while True:
            if self._let_some_run():
                continue
            if not self._somebody_will_wake():
                return
            self._wait_for_news()

    def _wait_for_news(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=1.0)

    def _somebody_will_wake(self) -> bool:
        """Whether a task waits for subtasks that have all ended: joblib is about to wake it."""
        return any(all(one.finished.is_set() for one in subtasks) for subtasks in list(self._waiting.values()))

    def _next(self) -> _Task | None:
        """Takes the next task to begin, if there is one and there is room for it."""
        if not self._new or len(self._asleep) >= _MAX_TASKS:
            return None
        if self._has_room(self._new[0]):
            return self._new.popleft()
        for task in list(self._new):  # those that share rows with the ones that sleep
            if not task.needs.in_any_order:
                return None
            if not task.is_cancelled and self._has_room(task):
                self._new.remove(task)
                return task
        return None

    def _has_room(self, task: _Task) -> bool:
        others = self._asleep or self._training
        if not others:
            return True
        # Every task that sleeps keeps its rows. The best guess at the bytes of the next fit are those of the last.
        rows = self._rows.missing(task.needs)
        more = rows + task.needs.own + others[-1].n_bytes_of_fit
        beside_one = self._bytes_asleep + self._bytes_in_training + self._rows.n_bytes - self._bytes_of_one
        if beside_one + more > _MAX_BYTES:
            return False
        if rows and task.needs.in_any_order and self._rows.n_bytes - self._rows_of_one + rows > _MAX_BYTES_OF_ROWS:
            return False
        # Asking the system takes longer than handing over a task.
        if not self._held_at_check <= beside_one <= self._held_at_check + _BYTES_BETWEEN_CHECKS:
            self._held_at_check, self._free = beside_one, free_memory()
        return beside_one + more < self._free / 4 + beside_one / 4

    def _weigh(self, task: _Task, fit: Fit) -> None:
        """Counts the bytes of a fit that is handed in, without arrays that others keep in memory anyway."""
        others = [*self._asleep, *self._training]
        kept = task.needs.given.union(*(map(id, other.owners) for other in others))
        owners = {id(one): one for one in map(owner, _arrays(fit)) if not self._rows.has(one)}
        task.owners = list(owners.values())
        task.n_bytes_of_fit = sum(one.nbytes for place, one in owners.items() if place not in kept)
        task.n_bytes_of_fit += _BYTES_OF_A_PERMUTATION * _n_rows(fit)
        task.n_bytes = task.n_bytes_of_fit + task.needs.own
        if not others:
            self._rows_of_one = self._rows.n_bytes
            self._bytes_of_one = task.n_bytes + self._rows_of_one

    def _train(self) -> None:
        tasks, self._asleep = self._asleep, []
        self._bytes_in_training, self._bytes_asleep = self._bytes_asleep, 0
        self._training = [task for task in tasks if not task.is_cancelled]
        self._awake.extend(task for task in tasks if task.is_cancelled)
        by_fit = {id(task.fit): task for task in self._training}
        if self._training:
            put_settings(self._training[0].settings)
        fits: Any = [task.fit for task in self._training]
        begun = time.perf_counter()

        def finished(fits: list[Fit], trained: list[Trained]) -> None:
            """Lets the tasks of trained fits continue at once, to score and to be recorded."""
            self._n_trained += len(fits)  # before joblib has the last of them, and may begin anew
            if self._ladder is not None:
                self._ladder.finished(fits, trained)
            self.report.trained += [one.without_model() for one in trained]
            for fit, one in zip(fits, trained, strict=True):
                task = by_fit.pop(id(fit))
                task.trained = one
                self._trained.append(task)
            self._are_waking = True
            self._let_some_run()
            self._are_waking = False

        try:
            fit_many(
                fits,
                max_memory=self._max_memory,
                on_epoch_end=self._after_epoch,
                max_together=self._max_together,
                should_stop=None if self._ladder is None else self._ladder.judge,
                finished=finished,
                n_expected=self._n_trained + len(fits) + len(self._new),
                while_computing=self._prepare_others,
            )
        except Cancelled:
            pass
        except BaseException as error:
            for task in by_fit.values():
                task.trained = Trained.failed(error)
        self.report.seconds += time.perf_counter() - begun
        self._training, self._bytes_in_training = [], 0
        self._awake.extend(by_fit.values())


def _arrays(fit: Fit) -> list[Any]:
    import keras

    parts = keras.tree.flatten([fit.x, fit.y, fit.sample_weight, fit.validation_data])
    return [part for part in parts if hasattr(part, "nbytes")]


def _n_rows(fit: Fit) -> int:
    return next((len(array) for array in _arrays(fit) if getattr(array, "shape", ())), 0)


class FusedBackend(ParallelBackendBase):
    """The joblib backend behind `fused`, known to joblib as `"kerastoolkit"`.

    Args:
        max_memory: As for `fused`.
        on_epoch_end: Called after each epoch with the epochs done and the epochs of all fits in training. Defaults to
            `None`.
        max_together: Fits to train together at most. Defaults to `None`: as many as there is memory for.
        around: Called with each task; returns what runs in its place. It does not see the tasks of searches inside
            tasks. Defaults to `None`.
        ladder: The rungs at which candidates are compared. Defaults to `None`: all train to the end.

    Attributes:
        report: Says what was trained and how.
    """

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True
    default_n_jobs = _MAX_TASKS

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        max_memory: float | None = None,
        on_epoch_end: Callable[[int, int], None] | None = None,
        max_together: int | None = None,
        around: Callable[[Any], Callable[[], Any]] | None = None,
        ladder: Ladder | None = None,
        conductor: _Conductor | None = None,
        **options: object,
    ) -> None:
        if options:
            raise ParameterError(
                f"The backend 'kerastoolkit' has no option {sorted(options)[0]!r}; it takes `max_memory`."
            )
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.report = TrainingReport() if conductor is None else conductor.report
        self._shared = conductor or _Conductor(max_memory, self.report, on_epoch_end, max_together, ladder)
        self._conductor = self._shared  # of the call that runs
        self._tasks: list[_Task] = []
        self._parent: _Task | None = None
        self._hands_over = False
        self._settings = Settings()
        self._around = around

    def configure(self, n_jobs: int | None = 1, parallel: joblib.Parallel = None, **options: object) -> int:
        """joblib begins a block of `Parallel`, or one call."""
        if getattr(parallel, "return_generator", False) and self._shared.current() is not None:
            # Between two results the loop of the task would run without the baton, at the same time as another task.
            warnings.warn(
                "Parallel(return_as='generator') inside a task of a fused search runs its calls one after another, so "
                "that their fits are not trained together. With return_as='list' they are.",
                KerasToolkitWarning,
                stacklevel=4,
            )
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        return int(super().configure(n_jobs, parallel, **options))

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Tasks in flight: always the same, since they wait for one another."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return _MAX_TASKS

    def start_call(self) -> None:
        """joblib begins to hand over tasks."""
        self._all_handed_over()  # of a call that waits for this one, since its tasks are made from its results
        self._tasks = []
        self._hands_over = True
        # Nothing else trains before a block of `isolated` ends: it must not wait for other tasks.
        self._conductor = self._shared.another() if is_inside() else self._shared
        self._parent = self._conductor.current()
        self._settings = settings()
        self._conductor.enter()

    def stop_call(self) -> None:
        """joblib has all results, or cancelled the call."""
        self._all_handed_over()
        # Cancelled tasks end before the search does: where a task ends, scikit-learn restores the warning filters, and
        # those belong to the process.
        try:
            with self._conductor.without_baton(self._tasks):
                deadline = time.monotonic() + _SECONDS_TO_CANCEL
                for task in self._tasks:
                    task.finished.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also when the user interrupts the wait
            self._conductor.leave()
            self._tasks = []  # joblib has their results

    def _all_handed_over(self) -> None:
        if self._hands_over:
            self._hands_over = False
            self._conductor.handed_over()

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> _Task:
        """Takes a task, which runs when its turn comes."""
        needs = self._conductor.prepare(func)
        scored = any(task.is_fit for task in tasks_of(func))
        call = func if self._around is None else self._around(func)
        task = _Task(call, callback or (lambda task: None), self._parent, scored)
        task.settings, task.needs = self._settings, needs
        self._tasks.append(task)
        self._conductor.add(task)
        return task

    def retrieve_result_callback(self, out: _Task) -> Any:
        """The result of a task that has ended."""
        return out.get()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancels what has not ended, because a task of this call failed or the user pressed Ctrl-C."""
        self._conductor.cancel(self._tasks)

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """The backend of searches inside tasks, which hand their fits to the same conductor."""
        nested = FusedBackend(nesting_level=(self.nesting_level or 0) + 1, conductor=self._conductor)
        return nested, None

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """joblib waits for results, so all its tasks are handed over; if a task is waiting, others may run."""
        self._all_handed_over()
        with self._conductor.without_baton(self._tasks):
            yield


joblib.register_parallel_backend("kerastoolkit", FusedBackend)
