"""Fits of one structure as one program: how many together, by which program, epoch by epoch."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training import _state
from kerastoolkit.training._fits import How
from kerastoolkit.training._memory import free_memory
from kerastoolkit.training._program import Program
from kerastoolkit.training._run import Observers, Run, is_for_nan
from kerastoolkit.training._stack import Pool, Stack
from kerastoolkit.training._state import Array, EpochInputs, Kind, State, StepInputs, Tensor, epochs_a_call, tree_map
from kerastoolkit.training._threads import on_each_core
from kerastoolkit.training.by_keras import train_by_keras
from kerastoolkit.training.network import draw

# A step of fewer multiplications spends most of its time between operations; on a CPU these take about a millisecond.
_FEW_MULTIPLICATIONS = 2_000_000

# Numbers of models with more multiplications that are tried together.
_SIZES_OF_LARGE_MODELS = (2, 4)

# A call of a program cannot be interrupted, and should not take much longer than this.
_SECONDS_A_CALL = 1.0

# Time that XLA takes to compile the steps of an epoch, and whole epochs. Whether that is worth it is estimated by
# counting, so that the same fits always go the same way.
_SECONDS_OF_XLA, _SECONDS_OF_XLA_FOR_EPOCHS = 0.7, 1.0

# Time that tracing a program and compiling it with XLA takes: steps in numpy may take so much longer than its steps.
_SECONDS_IN_NUMPY = 1.5

# Time that tracing a program takes.
_SECONDS_TO_TRACE = 1.0

# Large models that can be trained one by one in less time than this are: training them together saves a third at most,
# and finding out takes two programs.
_SECONDS_WORTH_MEASURING = 10.0

# Models that a call of XLA's trains for whole epochs; the number is fixed, since XLA compiles for each number. Of 256
# models there are six shards, also where three folds are of one or two sizes, so that each of two cores has three.
_MODELS_PER_SHARD = 43

# Row indices that are drawn for the epochs of a call, for all models: 64 MiB of them.
_MAX_INDICES = 2**24

# To take models out of a stack for an incomplete batch, and to put them back, takes as long as so many steps.
_STEPS_OF_AN_INCOMPLETE_BATCH = 3

# On TensorFlow, recurrent layers of many models take some 7 seconds longer to trace than those of one model, and a step
# takes about a millisecond less for each model: with fewer steps in all, training one by one is quicker.
_STEPS_WORTH_STACKING = 5_000
_PROGRAMS = itertools.count()


def train_group(runs: list[Run], observers: Observers) -> None:
    """Trains fits of one structure, as many together as is quickest.

    Fits that cannot be trained together are trained one by one; where memory ran out, half as many are tried first.

    Args:
        runs: The fits.
        observers: Those who observe them.
    """
    draw([run.network for run in runs])
    unstackable = runs[0].program.unstackable()
    size = _quickest_size(runs) if len(runs) > 1 and unstackable is None else 1
    chunks = collections.deque(_chunks(runs, size))
    while chunks:
        chunk = chunks.popleft()
        if len(chunk) == 1:
            no_other = "nothing else to train has its structure"
            reason = no_other if len(runs) == 1 else unstackable or chunk[0].trained.reason or "one by one was quicker"
            _train_alone(chunk[0], reason, observers)
            continue
        number = next(_PROGRAMS)
        for run in chunk:
            run.trained.note_how("fused", None, len(chunk), number)
        left, lacked_memory = _attempt(chunk, "alone", functools.partial(_train_together, chunk, observers))
        if lacked_memory and left:
            chunks.extendleft(reversed(_chunks(left, -(-len(left) // 2))))
            continue
        for run in left:
            _train_alone(run, run.trained.reason, observers)


def _train_alone(run: Run, reason: str | None, observers: Observers) -> None:
    """Trains one fit by a program of its own, or else by Keras."""
    run.trained.note_how("alone", reason)
    left, _ = _attempt([run], "Model.fit", functools.partial(_train_one, run, observers))
    if left:
        train_by_keras(run, observers)


def _train_together(runs: list[Run], observers: Observers) -> None:
    _Training(runs, observers, stacked=True).carry_out()


def _chunks(runs: list[Run], size: int) -> list[list[Run]]:
    """The runs in chunks of about the same length, none longer than `size`."""
    n_parts = -(-len(runs) // size)
    return [list(chunk) for chunk in np.array_split(np.array(runs, dtype=object), n_parts)]


def _train_one(run: Run, observers: Observers) -> None:
    # Tracing costs more than training: one fit after many, such as the last of a search, is run by their program.
    program = run.program
    stacked = program.has_traced(run.rows, stacked=True) and not program.has_traced(run.rows)
    _Training([run], observers, stacked=stacked).carry_out()


def _quickest_size(runs: list[Run]) -> int:
    """How many models to train together so that each takes least time; measured where that is not obvious.

    Of large models only a few are trained together: many need more memory and are slower, since their weights do not
    stay in the processor's cache from one operation to the next.
    """
    program, n_rows = runs[0].program, runs[0].batch_size
    if program.costs.stacks_slowly and not program.has_traced(runs[0].rows, stacked=True):
        if sum(map(_steps_ahead, runs)) < _STEPS_WORTH_STACKING:
            return 1
    steps = max(_steps_ahead(run) for run in runs)
    if program.costs.multiplications_of_a_step(n_rows) < _FEW_MULTIPLICATIONS:
        together, alone = (program.costs.seconds(n, runs[0].sizes[0], stacked=n > 1) for n in (len(runs), 1))
        slower = steps * (together - len(runs) * alone) > _SECONDS_TO_TRACE
        return 1 if slower and _quickest_program(runs, 1.0) is program else len(runs)
    try:
        seconds = {1: _seconds_a_step(runs[:1], stacked=False)}
        if seconds[1] * steps * len(runs) < _SECONDS_WORTH_MEASURING:
            return 1
        sizes = {min(size, len(runs)) for size in _SIZES_OF_LARGE_MODELS}
        seconds |= {size: _seconds_a_step(runs[:size], stacked=True) / size for size in sizes}
    except _keras.NotPureError:
        # Training itself will find out what is wrong, and what to do about it.
        return min(len(runs), max(_SIZES_OF_LARGE_MODELS))
    return min(seconds, key=lambda size: seconds[size])


def _quickest_program(runs: list[Run], expected_ratio: float) -> Program:
    """The program for fits of one structure: in numpy where that trains them before another one would be traced."""
    program, size = runs[0].program, runs[0].sizes[0]
    in_numpy = program.in_numpy
    if in_numpy is None or program.costs.multiplications_of_a_step(size) >= _FEW_MULTIPLICATIONS:
        return program
    if not all(in_numpy.takes(rows) for run in runs for rows in (run.rows, run.validation) if rows is not None):
        return program
    steps, of_an_epoch = max((_steps_ahead(run), -(-run.n_rows // size)) for run in runs)
    first = later = program.costs.seconds(len(runs), size, stacked=len(runs) > 1)
    if program.costs.saved_by_xla(size, stacked=len(runs) > 1):  # after the first epoch, on each core
        later = min(first, program.costs.seconds_by_xla(size) * program.costs.models_a_call(len(runs)))
    by_program = first * of_an_epoch + later * (steps - of_an_epoch)
    longer = (in_numpy.costs.seconds(len(runs), size, stacked=True) * steps - by_program) * expected_ratio
    return in_numpy if longer < _SECONDS_IN_NUMPY else program


def _steps_ahead(run: Run) -> int:
    return (run.fit.epochs - run.fit.initial_epoch) * -(-run.n_rows // run.sizes[0])


def _seconds_a_step(runs: list[Run], *, stacked: bool) -> float:
    """Time of one step, in seconds; its results are discarded."""
    program = runs[0].program
    stack = Stack(program, [run.network for run in runs], stacked=stacked)
    size = min(run.batch_size for run in runs)
    pool = Pool(program, [tree_map(lambda part: part[:size], run.rows) for run in runs])
    indices = np.broadcast_to(np.arange(size, dtype="int32"), (len(runs), 2, size))
    offsets = pool.offsets if stacked else tree_map(lambda offset: offset[0], pool.offsets)
    indices = np.ascontiguousarray(indices if stacked else indices[0])
    inputs = StepInputs(stack.state, stack.traced, pool.data, program.tensor(indices), program.tensors(offsets))
    light = program.costs.is_light(runs[0].batch_size, stacked=stacked)
    program.arrays(program.run("train", inputs, stacked=stacked, light=light)[1])  # traces
    begun = time.perf_counter()
    program.arrays(program.run("train", inputs, stacked=stacked, light=light)[1])
    return (time.perf_counter() - begun) / 2


def _attempt(runs: list[Run], otherwise: How, train: Callable[[], None]) -> tuple[list[Run], bool]:
    """Trains fits by a program.

    Args:
        runs: The fits.
        otherwise: How the fits are trained that the program cannot train.
        train: Trains them.

    Returns:
        The fits that it could not train, with their state of before, and whether memory ran out.
    """
    before = {run: run.network.state for run in runs}
    try:
        train()
    except Exception as error:
        words = str(error) if isinstance(error, _keras.NotPureError) else f"the program raised {type(error).__name__}"
        left = [run for run in runs if run.trained.error is None and not run.has_ended]
        for run in left:
            run.network.state = before[run]  # a callback may have changed it, or been given that of the stack
            run.trained.note_how(otherwise, words)
        return left, runs[0].program.lacked_memory(error)
    return [], False


def rounds(runs: list[Run], max_memory: float | None, max_together: int | None) -> list[list[Run]]:
    """The fits of one structure in rounds, each of no more than fit in memory together.

    Args:
        runs: The fits.
        max_memory: Bytes that those of a round may take; None for half of what is free.
        max_together: Fits in a round at most; None for as many as there is memory for.
    """
    budget = max_memory if max_memory is not None else free_memory() / 2
    each = runs[0].program.costs.bytes_of_a_step(runs[0].batch_size)
    most = max(1, min(int(budget // max(each, 1)), max_together or len(runs)))
    n_rounds = -(-len(runs) // most)
    size = -(-len(runs) // n_rounds)
    found: list[list[Run]] = []
    for run in runs:
        # A callback that two fits share holds the state of one of them.
        callbacks = {id(callback) for callback in run.fit.callbacks}
        for round_ in found:
            others = {id(callback) for other in round_ for callback in other.fit.callbacks}
            if len(round_) < size and not callbacks & others:
                round_.append(run)
                break
        else:
            found.append([run])
    return found


class _Shard:
    """Models of a stack with equal numbers of rows and of epochs, which are trained apart from the others."""

    def __init__(self, training: _Training, runs: list[Run]) -> None:
        self.runs, self.has_trained = runs, False
        self.places = np.array([run.place for run in runs], "int32")
        self._epochs_a_call = training._epochs_a_call(runs[0].n_rows)
        numbers = np.array([run.number for run in runs], "int32")
        fill = _MODELS_PER_SHARD - len(runs)
        places, numbers = np.pad(self.places, (0, fill), "edge"), np.pad(numbers, (0, fill), "edge")
        stack, program = training._stack, training._program
        self._program = program
        self.state: State = program.take(stack.state, places)
        self._fresh = program.take(stack.fresh, places)
        self._traced = program.take(stack.traced, places)
        self._offsets = tree_map(lambda offset: offset[numbers], training._train_pool.offsets)

    def next(self) -> EpochInputs:
        """The inputs of the next epochs, as many as one call takes."""
        first = self.runs[0]
        self._before = [run.rng.bit_generator.state for run in self.runs]
        n_epochs = min(first.fit.epochs - first.epoch, self._epochs_a_call)
        permutations = np.zeros((_MODELS_PER_SHARD, n_epochs, first.n_rows), "int32")
        for of_run, run in zip(permutations, self.runs, strict=False):
            for number in range(n_epochs):
                of_run[number] = run.permutation()
        return EpochInputs(self.state._replace(metrics=self._fresh), self._traced, permutations, self._offsets)

    def undo(self) -> None:
        """Takes back epochs that could not be trained, so that the next ones have their permutations."""
        for run, before in zip(self.runs, self._before, strict=True):
            run.rng.bit_generator.state = before

    def take(self, state: State, results: dict[str, Tensor]) -> None:
        """Notes the state after the epochs, and the results of each of them."""
        self.state, results = state, self._program.arrays(results)
        self.has_trained = True
        values = [value.tolist() if value.ndim == 2 else list(map(list, value)) for value in results.values()]
        for run, *of_run in zip(self.runs, *values, strict=False):
            last = dict(zip(results, [of_metric.pop() for of_metric in of_run], strict=True))
            history, n_before = run.history, len(of_run[0])
            history.epoch.extend(range(run.epoch, run.epoch + n_before))  # as it does itself, one by one
            for name, of_metric in zip(results, of_run, strict=True):
                plain = of_metric if type(last[name]) is float else map(_plain_value, of_metric)
                history.history.setdefault(name, []).extend(plain)
            run.epoch += n_before
            run.end_epoch(_plain(last))


class _Training:
    """Fits of one structure while a program trains them, stacked; or one fit."""

    def __init__(self, runs: list[Run], observers: Observers, *, stacked: bool) -> None:
        # Models with the same number of rows take their last batch together, and are neighbours for it.
        runs = sorted(runs, key=lambda run: run.n_rows)
        self._runs, self._observers, self._stacked = runs, observers, stacked
        self._expected_ratio = observers.expected_ratio
        self._program = program = _quickest_program(runs, observers.expected_ratio)
        self._stack = Stack(program, [run.network for run in runs], stacked=stacked)
        self._train_pool = Pool(program, [run.rows for run in runs])
        watched: Any = [run.validation for run in runs]
        self._validation = None if watched[0] is None else Pool(program, watched)
        self._size, self._validation_size = runs[0].sizes
        self._light = program.costs.is_light(self._size, stacked=stacked)
        self._steps_a_call = program.steps_a_call
        self._saved_a_step = program.costs.saved_by_xla(self._size, stacked=stacked)
        self._has_xla_for_epochs = stacked and self._saved_a_step > 0
        self._models_a_call = program.costs.models_a_call(len(runs))
        self._sure_epochs = self._epochs_done = 0
        for number, run in enumerate(runs):
            run.number = run.place = number
        self._in_stack = list(runs)

    def carry_out(self) -> None:
        try:
            self._run_epochs(self._observers)
        except Exception:
            raise  # the fits that are not done are trained in another way
        except BaseException:  # the user interrupted it, and keeps what was trained so far
            self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        for run in self._runs:
            run.finish()

    def _run_epochs(self, observers: Observers) -> None:
        for run in self._runs:
            run.attempt(lambda run: run.begin(self._stack))
        if not observers.can_stop and not any(run.fit.callbacks for run in self._runs):
            self._sure_epochs = max(run.fit.epochs - run.fit.initial_epoch for run in self._runs)
        while active := self._still_active():
            self._drop_finished(active)
            if self._train_to_the_end(observers):
                continue
            logs = self._train_epoch(active)
            self._validate([run for run in active if run.is_validated()], logs)
            for run in active:
                run.attempt(lambda run: run.end_epoch(_plain(logs[run])))  # noqa: B023  called at once
            if observers.can_stop:
                for run in observers.must_stop({run: (run.epoch, run.logs) for run in active if not run.is_done()}):
                    run.view.stop_training = True
            observers(*((run, run.fit.epochs if run.is_done() else run.epoch) for run in active))

    def _train_to_the_end(self, observers: Observers) -> bool:
        """Trains models for all epochs that are left, many in a call of XLA's, where nobody observes them and it pays.

        A call takes models with the same number of rows through all their batches, so that they need not be taken out
        of the stack for the incomplete one and put back in every epoch.

        Returns:
            Whether any were trained.
        """
        shards = self._shards_for_xla()
        if not shards:
            return False
        try:
            observers.while_computing(lambda: self._train_parts(shards, observers))
        finally:  # also when the user interrupts it
            trained = [shard for shard in shards if shard.has_trained]
            if trained:
                self._epochs_done += 1
                self._stack.take_over([(shard.places, shard.state) for shard in trained])
        return bool(trained)

    def _train_parts(self, shards: list[_Shard], observers: Observers) -> None:
        lengths = {shard.runs[0].n_rows for shard in shards}
        by_xla = self._program.of_epochs(
            self._train_pool.data, list(self._stack.traced), lengths, size=self._size, light=self._light
        )
        if by_xla is None:
            self._has_xla_for_epochs = False
            return

        def train(shard: _Shard) -> Iterator[list[tuple[Run, int]]]:
            while not shard.runs[0].is_done():
                found = by_xla(shard.next())
                if found is None:
                    self._has_xla_for_epochs = False
                    shard.undo()
                    return
                shard.take(*found)
                yield [(run, run.epoch) for run in shard.runs]

        with contextlib.closing(on_each_core([train(shard) for shard in shards])) as all_of_them:
            for done in all_of_them:
                observers(*done)

    def _epochs_a_call(self, n_rows: int) -> int:
        """Epochs in a call of XLA's, which cannot be interrupted."""
        seconds = self._program.costs.seconds_by_xla(self._size) * -(-n_rows // self._size) * len(self._in_stack)
        at_most = epochs_a_call(n_rows, self._size)
        return max(1, min(at_most, int(_SECONDS_A_CALL / seconds)))

    def _shards_for_xla(self) -> list[_Shard]:
        if not (self._has_xla_for_epochs and self._sure_epochs and self._epochs_done) or self._validation is not None:
            return []
        program = self._program
        alike: dict[tuple[int, int], list[Run]] = {}
        for run in self._in_stack:
            alike.setdefault((run.n_rows, run.fit.epochs - run.epoch), []).append(run)
        shards: list[tuple[int, _Shard]] = []
        for (n_rows, n_epochs), runs in sorted(alike.items(), key=lambda item: -len(item[1])):
            whole, rest = divmod(n_rows, self._size)
            steps = whole + _STEPS_OF_AN_INCOMPLETE_BATCH * bool(rest)
            # The padding of a shard is computed as well.
            filled = (whole + bool(rest)) * (-len(runs) % _MODELS_PER_SHARD)
            saved = self._saved_a_step * steps * len(runs) - program.costs.seconds_by_xla(self._size) * filled
            # A second program is compiled on another core meanwhile, which takes half as long.
            costs = _SECONDS_OF_XLA_FOR_EPOCHS / (2 if shards else 1)
            pays = saved * n_epochs * self._expected_ratio > costs
            few_indices = n_rows * self._epochs_a_call(n_rows) * len(runs) <= _MAX_INDICES
            if pays and few_indices and whole < _state.MAX_STEPS_BY_XLA:
                some = range(0, len(runs), _MODELS_PER_SHARD)
                shards += [(first, _Shard(self, runs[first : first + _MODELS_PER_SHARD])) for first in some]
        # The first shards of each number of rows come first, so that their programs are compiled at the same time.
        return [shard for _, shard in sorted(shards, key=lambda shard: shard[0])]

    def _still_active(self) -> list[Run]:
        return [run for run in self._in_stack if run.trained.error is None and not run.is_done()]

    def _drop_finished(self, active: list[Run]) -> None:
        """Takes fits that have ended out of the stack, so that the others are quicker."""
        if not self._stacked or len(active) == len(self._in_stack):
            return
        for run in set(self._in_stack) - set(active):
            run.finish()
        if self._program.compiles_each_size and len(active) > len(self._in_stack) / 2:
            return  # training those that have ended as well is quicker than compiling for each number of models
        self._stack.keep(np.array([run.place for run in active], "int32"))
        self._in_stack = active
        for place, run in enumerate(active):
            run.place = place

    def _train_epoch(self, active: list[Run]) -> dict[Run, dict[str, Any]]:
        for run in active:
            if run.fit.callbacks:
                run.attempt(lambda run: run.call_with_state("on_epoch_begin", run.epoch, {}))
        self._stack.reset_metrics()
        before = self._stack.state
        running = set(active)  # those that have ended and are still in the stack may have their rows in any order
        permutations = {run: run.permutation() if run in running else np.arange(run.n_rows) for run in self._in_stack}
        logs = self._sweep("train", permutations, self._train_pool, self._size)
        for run in active:
            if not math.isfinite(logs[run]["loss"]) and any(map(is_for_nan, run.callbacks)):
                logs[run] = self._stop_at_nan(run, permutations[run], before)
        self._epochs_done += 1
        return logs

    def _validate(self, runs: list[Run], logs: dict[Run, dict[str, Any]]) -> None:
        if not runs or self._validation is None:
            return
        for run in runs:
            run.attempt(lambda run: run.call_with_state("on_test_begin", {}))
        self._stack.reset_metrics()
        watched = set(runs)
        taken = (run for run in self._in_stack if run in watched or run.has_ended)
        permutations = {run: np.arange(run.n_validation_rows) for run in taken}
        found = self._sweep("test", permutations, self._validation, self._validation_size)
        for run in runs:
            run.attempt(lambda run: run.call_with_state("on_test_end", _plain(found[run])))
            logs[run] = {**logs[run], **{f"val_{name}": value for name, value in found[run].items()}}

    def _sweep(self, kind: Kind, permutations: Mapping[Run, Any], pool: Pool, size: int) -> dict[Run, dict[str, Any]]:
        """Takes each run through all its batches: the whole batches of all together, then the incomplete ones.

        Args:
            kind: Whether to train or to evaluate.
            permutations: The row indices of each run, in the order of the stack.
            pool: The rows.
            size: Rows of a batch.
        """
        logs: dict[Run, dict[str, Any]] = {}
        whole = {run: len(indices) // size for run, indices in permutations.items()}
        done = 0
        for until in sorted(set(whole.values())):
            chosen = {run: indices for run, indices in permutations.items() if whole[run] >= until}
            for steps, by_xla in self._calls(kind, until - done):
                begun = time.perf_counter()
                logs |= self._take_steps(kind, chosen, pool, done * size, steps, size, by_xla=by_xla)
                if steps == self._steps_a_call and time.perf_counter() - begun < _SECONDS_A_CALL / 2:
                    self._steps_a_call *= 2
                done += steps
        rests = {run: (whole[run], len(indices) % size) for run, indices in permutations.items()}
        for steps, rest in sorted({rest for rest in rests.values() if rest[1]}):
            chosen = {run: indices for run, indices in permutations.items() if rests[run] == (steps, rest)}
            logs |= self._take_steps(kind, chosen, pool, steps * size, 1, rest)
        return logs

    def _calls(self, kind: Kind, steps: int) -> Iterator[tuple[int, bool]]:
        """The calls that take so many steps: the steps of each, and whether XLA runs them.

        XLA never runs the first epoch, since it does not report a label or an index out of range; nor the last few
        models, for which the program for many would be slower, and another one would have to be compiled.
        """
        saved = (
            self._saved_a_step
            * len(self._runs)
            * steps
            * max(self._sure_epochs, self._epochs_done)
            * self._expected_ratio
        )
        many = 2 * len(self._in_stack) >= self._models_a_call
        if kind == "train" and self._epochs_done and many and saved > _SECONDS_OF_XLA:
            n_calls = -(-steps // _state.MAX_STEPS_BY_XLA)
            for _ in range(n_calls):
                yield steps // n_calls, True
            steps %= n_calls
        while steps:
            some = min(steps, self._steps_a_call)
            yield some, False
            steps -= some

    def _take_steps(
        self,
        kind: Kind,
        permutations: Mapping[Run, Any],
        pool: Pool,
        first: int,
        steps: int,
        size: int,
        *,
        by_xla: bool = False,
    ) -> dict[Run, dict[str, Any]]:
        """Takes runs through `steps` batches of `size` rows, beginning at index `first` of their permutations."""
        program, runs = self._program, list(permutations)
        indices = np.stack([numbers[first : first + steps * size] for numbers in permutations.values()]).astype("int32")
        indices = indices.reshape(len(runs), steps, size)
        if not self._stacked:
            offsets = tree_map(lambda offset: offset[0], pool.offsets)
            members, indices = None, indices[0]
        else:
            places, numbers = np.array([(run.place, run.number) for run in runs], "int32").T
            if len(runs) == 1:  # some operations cannot be vectorised over one model
                places, numbers, indices = np.repeat(places, 2), np.repeat(numbers, 2), np.repeat(indices, 2, axis=0)
            offsets = tree_map(lambda offset: offset[numbers], pool.offsets)
            members = None if len(runs) == len(self._in_stack) > 1 else places
        batches = pool.data, program.tensor(indices), program.tensors(offsets)
        models = self._models_a_call if by_xla else 0

        def run(state: State, traced: dict[int, Any]) -> tuple[State, Any]:
            inputs = StepInputs(state, traced, *batches)
            return program.run(kind, inputs, stacked=self._stacked, light=self._light, by_xla=models)

        results = program.arrays(self._stack.advance(members, run))
        if not self._stacked:
            return {runs[0]: results}
        # Python's numbers from here on; it is quickest to convert all at once.
        values = [value.tolist() if value.ndim == 1 else value for value in results.values()]
        return {run: dict(zip(results, of_run, strict=True)) for run, *of_run in zip(runs, *values, strict=False)}

    def _stop_at_nan(self, run: Run, indices: Array, before: State) -> dict[str, Any]:
        """Repeats an epoch step by step, up to the one whose loss is not a number."""
        self._stack.put(before, run.place)
        logs: dict[str, Any] = {}
        for step, first in enumerate(range(0, run.n_rows, self._size)):
            rows = min(self._size, run.n_rows - first)
            logs = self._take_steps("train", {run: indices}, self._train_pool, first, 1, rows)[run]
            for callback in filter(is_for_nan, run.callbacks):
                callback.on_batch_end(step, _plain(logs))
            if run.view.stop_training:
                break
        return logs


def _plain(logs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if type(value) is float else _plain_value(value) for name, value in logs.items()}


def _plain_value(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.array(value)
