"""One step of training as a pure function, and an epoch of it as one program, for one model or for many at once.

A Keras model keeps its state in variables, and Keras traces a new program for every model. Here the state goes in and
comes out, so that one trace serves all models of a structure, one after another or, with a leading axis on every part
of the state, all of them in one step. What a step does is what `Model.train_step` does, in the same order.

`unsupported` says in words why a model must be trained by `Model.fit`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import logging
import math
import operator
import queue
import random
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._copies import copied
from kerastoolkit._keras import NotPureError
from kerastoolkit.training import _dense

if TYPE_CHECKING:
    import keras

# Tracing goes through the template's own layers and Keras' global scopes. What has been traced or compiled needs
# neither: it is called without the lock, so that threads that predict or train do not wait for each other.
_ONE_TRACE_AT_A_TIME = threading.RLock()

Kind = Literal["train", "test"]

# Multiplications of a step of one model up to which it is light, on a CPU: alone, and stacked with others.
_LIGHT_ALONE, _LIGHT_STACKED = 500_000, 100_000

# What XLA takes off a step of one model on a CPU, in seconds, alone and stacked, and how much more it takes off for
# each multiplication; up to so many of them, beyond which it is slower than TensorFlow's own products.
_SAVED_ALONE, _SAVED_STACKED, _SAVED_A_MULTIPLICATION = 90e-6, 12e-6, 1e-10
_MOST_MULTIPLICATIONS_FOR_XLA = 1_000_000

# What a step takes by TensorFlow's own operations, in seconds: of one model, and how much more for each multiplication
# forward; of a stack, the same for each model of it.
_STEP_ALONE, _MULTIPLICATION_ALONE = 100e-6, 1.5e-10
_LIGHT_STEP_STACKED, _STEP_STACKED, _MODEL_STACKED, _MULTIPLICATION_STACKED = 150e-6, 400e-6, 20e-6, 1e-10

# What a step of one model by torch takes, in seconds: it starts each operation anew. One of a stack takes twice that.
_STEP_BY_TORCH = 2e-3

# What a step of one model by XLA takes on one core, in seconds, and how much more for each multiplication forward.
_STEP_BY_XLA, _MULTIPLICATION_BY_XLA = 5e-6, 3e-10

# Structures let go of before JAX is told to let go of all that it keeps. What else it has compiled, it compiles anew.
_LET_GO_BEFORE_CLEARING = 4

# Programs of whole epochs that are kept for a structure: each is for one number of rows.
_MOST_PROGRAMS_OF_EPOCHS = 8

# The layers for which it does. Its convolutions are slower, it has no lists of tensors, which recurrent layers need,
# and its random numbers are others.
_LAYERS_FOR_XLA = ("activations", "core", "merging", "normalization", "regularization", "reshaping")

# XLA compiles for one number of steps, and no call of it takes more than these.
MOST_STEPS_BY_XLA = 256

# Models that one call of XLA's program trains at most; so many stay in the cache of a core.
_MOST_MODELS_A_CALL = 128


class State(NamedTuple):
    """Everything that a step of training reads and writes: lists of tensors, in Keras' order of the variables.

    Between trainings there are no metrics in it.
    """

    trainable: list[Any]
    others: list[Any]
    optimizer: list[Any]
    metrics: list[Any]


class Rows(NamedTuple):
    """Rows of data, each part an array or a structure of arrays; `weights` is None without weights."""

    x: Any
    y: Any
    weights: Any


def epochs_a_call(n_rows: int, size: int) -> int:
    """Epochs of so many rows that a call by XLA trains at most."""
    return max(1, MOST_STEPS_BY_XLA // -(-n_rows // size))


class Part(NamedTuple):
    """Models of a stack that train for some epochs: what `Program.run` takes, with `orders` of rows for each epoch.

    Their shape is `(models, epochs, rows)`.
    """

    state: State
    lifted: dict[int, Any]
    orders: Any
    starts: Any


class Forward:
    """The output of models of one structure, in the mode of inference.

    Args:
        template: A built model of the structure.
    """

    def __init__(self, template: keras.Model) -> None:
        self._template = template
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self.chain = _dense.chain_of(template)

    def __call__(self, trainable: list[Any], others: list[Any], x: Any) -> Any:
        """Output of a model with these variables for a batch of rows."""
        if self.chain is not None and self.chain.takes(x):
            return self.chain.output([_numpy(value) for value in (*trainable, *others)], x)
        form = form_of(x)
        compiled = self._compiled.get(form)
        if compiled is None:
            with _ONE_TRACE_AT_A_TIME:
                compiled = self._compiled.get(form) or _backend().predict(self._output, trainable, others, x)
                self._compiled[form] = compiled
        return compiled(trainable, others, x)

    def _output(self, trainable: list[Any], others: list[Any], x: Any) -> Any:
        model = self._template
        pairs = _pairs(model.trainable_variables, trainable) + _pairs(model.non_trainable_variables, others)
        with _scope(pairs) as scope:
            before = dict(scope.state_mapping)
            output = _keras.output_of(model, x, training=False)
            if any(before.get(key) is not value for key, value in scope.state_mapping.items()):
                raise NotPureError("a layer changes its state when it predicts")
        return output


class Program:
    """The programs of one structure: train an epoch, evaluate, predict; alone or stacked.

    Args:
        template: A built and compiled model of the structure. Its variables are read for their shapes; the programs
            never change them.
        slots: Where the values stand that may differ between models of the structure: `(object, attribute)`.
    """

    def __init__(self, template: keras.Model, slots: Sequence[tuple[Any, str]]) -> None:
        self.template = template
        self.slots = list(slots)
        self._rule = _Rule(template)
        # What is lifted must be what the step uses, which is not the optimizer that the template was compiled with.
        self._lifts = [(self._rule.optimizer if owner is template.optimizer else owner, name) for owner, name in slots]
        self._numbers = [float(getattr(owner, name)) for owner, name in self._lifts]
        self._liftings: list[set[int]] = []
        self._fresh_metrics: list[Any] | None = None
        self._fresh_optimizer: list[Any] | None = None
        self.forward = Forward(template)
        self._backend = _backend()
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._by_xla: dict[Any, Callable[..., Any] | None] = {}
        self._by_epochs: dict[Any, Callable[..., Any]] = {}
        self._not_by_epochs: set[Any] = set()
        self._ran: set[Any] = set()
        self._refused: dict[Any, str] = {}

    @functools.cached_property
    def place_of_rate(self) -> int | None:
        """Where the learning rate stands in the optimizer's state; None for a schedule."""
        rate = _keras.rate_of(self._rule.optimizer)
        places = [place for place, variable in enumerate(self._rule.variables) if variable is rate]
        return places[0] if places else None

    @property
    def compiles_each_size(self) -> bool:
        """Whether another number of models is compiled anew."""
        return bool(self._backend.compiles_each_size)

    @property
    def steps_a_call(self) -> int:
        """Steps that one call should begin with; it cannot be interrupted."""
        return int(self._backend.steps_a_call)

    @functools.cached_property
    def in_numpy(self) -> ProgramInNumPy | None:
        """The same steps written out in numpy; None for a structure of which something is not."""
        names = self._rule.names
        steps = _dense.steps_of(self.template, self.forward.chain, self.slots, names)
        return None if steps is None else ProgramInNumPy(self, steps)

    # -- what the outside calls ----------------------------------------------------------------------------------

    def to_lift(self, values: Sequence[Sequence[float]]) -> list[int]:
        """The slots whose values go in as data; what is alike in all models and the template is a constant.

        Constants make fewer operations, and another choice of slots another program: hence all slots from the third
        choice on.

        Args:
            values: The values of each model, one for each slot.
        """
        differ = {slot for slot, number in enumerate(self._numbers) if any(one[slot] != number for one in values)}
        if not differ:
            return []
        known = next((lifted for lifted in self._liftings if differ <= lifted), None)
        if known is None:
            known = set(range(len(self.slots))) if self._liftings else differ
            self._liftings.append(known)
        return sorted(known)

    def state_of(self, model: keras.Model) -> State:
        """The state of a model of this structure, as numpy arrays."""
        return State(
            _values(model.trainable_variables),
            _values(model.non_trainable_variables),
            self._rule.packed(_values(model.optimizer.variables)),
            [],
        )

    def assign(self, model: keras.Model, state: State) -> None:
        """Sets the variables of a model of this structure."""
        assign(model, state._replace(optimizer=self._rule.unpacked(state.optimizer)))

    def fresh_optimizer(self, given: Any) -> list[Any]:
        """The optimizer's state before training, with the learning rate of the optimizer that is given."""
        if self._fresh_optimizer is None:
            self._fresh_optimizer = _values(self._rule.variables)
        place = self.place_of_rate
        state = list(self._fresh_optimizer)
        if place is not None:
            rate = given.learning_rate
            state[place] = np.asarray(rate if isinstance(rate, float) else _numpy(rate.value), state[place].dtype)
        return state

    def values_with(self, values: Sequence[float], optimizer: Any) -> list[float]:
        """The numbers for the slots of a model like one with these, but with another optimizer."""
        return [
            float(getattr(optimizer, name)) if owner is self.template.optimizer else value
            for (owner, name), value in zip(self.slots, values, strict=True)
        ]

    def fresh_metrics(self) -> list[Any]:
        """The metrics' state before an epoch, as numpy arrays."""
        if self._fresh_metrics is None:
            variables = self.template.metrics_variables
            with _scope(list(zip(variables, [v.value for v in variables], strict=True))) as scope:
                self.template.reset_metrics()
            self._fresh_metrics = [_numpy(scope.get_current_value(v)) for v in variables]
        return self._fresh_metrics

    def run(
        self,
        kind: Kind,
        state: State,
        lifted: dict[int, Any],
        data: Rows,
        order: Any,
        starts: Rows,
        *,
        stacked: bool,
        light: bool,
        by_xla: int = 0,
    ) -> tuple[State, Any]:
        """Trains on batches of rows, or evaluates them.

        Args:
            kind: `"train"` or `"test"`.
            state: The state; with a leading axis of models when `stacked`.
            lifted: A value for each slot that is `to_lift`; the same.
            data: All rows, shared by all models.
            order: Row numbers of each batch, shape `(steps, rows)`; `(models, steps, rows)` when stacked.
            starts: Number added to the row numbers for each part of the data, scalar; `(models,)` when stacked.
            stacked: Whether there are many models.
            light: Whether the steps are light; see `is_light`.
            by_xla: Models that one call of a program compiled by XLA takes, if that can be had; 0 for TensorFlow's own.
                Defaults to `0`.

        Returns:
            The new state and the results of the metrics by name.

        Raises:
            NotPureError: The step cannot be a program, or the program failed. The template is as it was before.
        """
        key = (kind, stacked, light, tuple(lifted), form_of(data))
        arguments = (state, lifted, data, order, starts)
        try:
            program = self._compiled.get(key) if key in self._ran else None
            if program is None:
                return self._run_at_first(key, data, arguments)
            result = self._run_by_xla(key, program, by_xla, arguments) if by_xla else None
            return result or program(*arguments)
        except Exception as error:
            reason = _reason(error, stacked=stacked)
            with _ONE_TRACE_AT_A_TIME:
                self._compiled.pop(key, None)
                if key not in self._ran and self._backend.is_of_the_program(error):
                    self._refused[key] = reason
            raise NotPureError(reason) from error

    def _run_at_first(self, key: Any, data: Rows, arguments: tuple[Any, ...]) -> tuple[State, Any]:
        """Makes the program and runs it."""
        with _ONE_TRACE_AT_A_TIME:
            if key in self._refused:
                raise NotPureError(self._refused[key])
            # The first call runs all code of the model; what else it changes would be lost, or shared by others.
            with contextlib.nullcontext() if key in self._ran else _nothing_else_changes(self.template):
                result = self._program(key, data)(*arguments)
            self._ran.add(key)
            return result  # type: ignore[no-any-return]

    def _run_by_xla(
        self, key: Any, program: Callable[..., Any], n_models: int, arguments: tuple[Any, ...]
    ) -> tuple[State, Any] | None:
        """The same as the program of this key; None if XLA cannot compile it."""
        try:
            with _ONE_TRACE_AT_A_TIME:
                if key not in self._by_xla:
                    self._by_xla[key] = self._backend.by_xla(program, stacked=key[1])
                run = self._by_xla[key]
            return None if run is None else run(n_models, *arguments)
        except Exception:  # an operation that it does not know
            self._by_xla[key] = None
            return None

    def of_epochs(
        self, data: Rows, lifted: Sequence[int], lengths: set[int], *, size: int, light: bool
    ) -> Callable[[Part], tuple[State, Any] | None] | None:
        """Makes what trains a part of a stack for some epochs by XLA, on one core of the processor.

        The same as `run` does, which must have trained models like these before.

        Args:
            data: All rows, shared by all models.
            lifted: The slots whose number differs between models.
            lengths: Numbers of rows that the parts have.
            size: Rows of a batch.
            light: As for `run`.

        Returns:
            A function of a part, of no more epochs than `epochs_a_call`, to the new state and the results of the
            metrics by name, the epochs along their second axis. None, of either, if this cannot be had.
        """
        key = ("train", True, light, tuple(lifted), form_of(data))
        try:
            # Not on the threads of `on_each_core`: whoever holds this lock may wait for one of them.
            with _ONE_TRACE_AT_A_TIME:
                if key in self._not_by_epochs:
                    return None
                programs = {n_rows: self._of_epochs(key, size, n_rows) for n_rows in lengths}
        except Exception:  # an operation that it does not know
            self._not_by_epochs.add(key)
            return None

        def run(part: Part) -> tuple[State, Any] | None:
            try:
                program = programs[part.orders.shape[-1]]
                return program(part.state, part.lifted, data, *part[2:])  # type: ignore[no-any-return]
            except Exception:  # the same, when it is compiled
                self._not_by_epochs.add(key)
                return None

        return run

    def _of_epochs(self, key: Any, size: int, n_rows: int) -> Callable[..., Any]:
        program = self._by_epochs.pop((key, size, n_rows), None)
        program = program or self._backend.epochs_by_xla(self._compiled[key], size, n_rows)
        self._by_epochs[key, size, n_rows] = program  # the last to go
        while len(self._by_epochs) > _MOST_PROGRAMS_OF_EPOCHS:
            self._by_epochs.pop(next(iter(self._by_epochs)))
        return program

    # -- arrays and tensors --------------------------------------------------------------------------------------

    def tensor(self, value: Any) -> Any:
        """An array as a tensor of the backend."""
        return self._backend.tensor(value)

    def tensors(self, values: Any) -> Any:
        """Every array of a structure as a tensor."""
        return mapped(self._backend.tensor, values)

    def arrays(self, values: Any) -> Any:
        """Every tensor of a structure as an array."""
        return mapped(_numpy, values)

    def take(self, values: Any, members: Any) -> Any:
        """Some models out of stacked tensors."""
        return mapped(lambda value: self._backend.take(value, members), values)

    def cut(self, values: Any, first: int, end: int) -> list[Any]:
        """Stacked tensors cut in three: the models before `first`, those before `end`, and the others."""
        import keras

        parts = zip(*[self._backend.cut(value, first, end) for value in keras.tree.flatten(values)], strict=True)
        return [keras.tree.pack_sequence_as(values, part) for part in parts] or [values] * 3

    def joined(self, *parts: Any) -> Any:
        """What `cut` has cut."""
        return mapped(lambda *values: self._backend.joined(values), *parts)

    def put(self, values: Any, members: Any, part: Any) -> Any:
        """Stacked tensors with some models replaced."""
        return mapped(lambda value, new: self._backend.put(value, members, new), values, part)

    # -- what a search asks --------------------------------------------------------------------------------------

    def weight_places(self) -> list[tuple[str, int]]:
        """Where each of `Model.weights` stands in a state."""
        model = self.template
        places = {id(v): ("trainable", number) for number, v in enumerate(model.trainable_variables)}
        places |= {id(v): ("others", number) for number, v in enumerate(model.non_trainable_variables)}
        return [places[id(v)] for v in model.weights]

    def finalized(self, state: State) -> list[Any] | None:
        """Trainable weights after the optimizer's last word (averages of them); None if it has none."""
        optimizer = self._rule.optimizer
        if not optimizer.use_ema:
            return None
        places = {id(variable): place for place, variable in enumerate(optimizer.variables)}
        averages = [places.get(id(average)) for average in _keras.averages_of(optimizer)]
        return [
            value if place is None else state.optimizer[place]
            for value, place in zip(state.trainable, averages, strict=True)
        ]

    def bytes_of_a_step(self, batch_size: int) -> int:
        """About how much memory one model more takes in a stacked step."""
        import keras

        model = self.template
        weights = sum(int(np.prod(v.shape)) for v in model.variables)
        outputs = 0
        for layer in _keras.layers_of(model, itself=False):
            try:
                shapes = [tuple(part.shape) for part in keras.tree.flatten(layer.output)]
            except (AttributeError, ValueError):
                continue
            outputs += sum(int(np.prod([size or 1 for size in shape[1:]])) for shape in shapes)
        return 4 * (8 * weights + 4 * outputs * batch_size)

    def multiplications_of_a_step(self, batch_size: int) -> int:
        """About how many multiplications one model needs forward in a step."""
        import keras

        total = 0
        for layer in _keras.layers_of(self.template, itself=False):
            weights = [int(np.prod(v.shape)) for v in _keras.own_variables(layer)[0] if len(v.shape) > 1]
            if not weights:
                continue
            try:
                shapes = [tuple(part.shape)[1:-1] for part in keras.tree.flatten(layer.output)]
            except (AttributeError, ValueError):
                shapes = [()]
            positions = max(int(np.prod([size or 1 for size in shape])) for shape in shapes)
            total += sum(weights) * positions * batch_size
        return total

    def is_light(self, batch_size: int, *, stacked: bool) -> bool:
        """Whether a step computes so little that it is the start of each operation which takes the time."""
        return self.multiplications_of_a_step(batch_size) < (_LIGHT_STACKED if stacked else _LIGHT_ALONE)

    def saved_by_xla(self, batch_size: int, *, stacked: bool) -> float:
        """About what XLA takes off a step of one model, in seconds; 0 where it is not quicker, or not the same."""
        multiplications = self.multiplications_of_a_step(batch_size)
        if multiplications > _MOST_MULTIPLICATIONS_FOR_XLA or not self._backend.has_xla or not self._compiles_well:
            return 0.0
        return (_SAVED_STACKED if stacked else _SAVED_ALONE) + _SAVED_A_MULTIPLICATION * multiplications

    def seconds(self, n_models: int, batch_size: int, *, stacked: bool) -> float:
        """About what a step of so many models takes by TensorFlow's own operations or torch's, in seconds; else NaN."""
        if isinstance(self._backend, _Jax):
            return math.nan
        multiplications = self.multiplications_of_a_step(batch_size)
        if isinstance(self._backend, _Torch):
            one = _STEP_BY_TORCH + _MULTIPLICATION_ALONE * multiplications
            return 2 * one + n_models * _MULTIPLICATION_STACKED * multiplications if stacked else n_models * one
        if not stacked:
            return n_models * (_STEP_ALONE + _MULTIPLICATION_ALONE * multiplications)
        step = _LIGHT_STEP_STACKED if self.is_light(batch_size, stacked=True) else _STEP_STACKED
        return step + n_models * (_MODEL_STACKED + _MULTIPLICATION_STACKED * multiplications)

    def seconds_by_xla(self, batch_size: int) -> float:
        """About what a step of one model takes by XLA, in seconds."""
        return _STEP_BY_XLA + _MULTIPLICATION_BY_XLA * self.multiplications_of_a_step(batch_size)

    def models_a_call(self, n_models: int) -> int:
        """How many of so many models a call of XLA's program should take: each core of the processor has a call."""
        import joblib

        return int(min(_MOST_MODELS_A_CALL, -(-n_models // joblib.cpu_count())))

    @functools.cached_property
    def _compiles_well(self) -> bool:
        layers = _keras.layers_of(self.template, itself=False)
        groups = map(_keras.group_of, layers)
        kinds = all(group in _LAYERS_FOR_XLA and module != "lambda_layer" for group, module in groups)
        return kinds and not any(map(_draws, layers))

    @functools.cached_property
    def stacks_slowly(self) -> bool:
        """Whether many models take much longer to trace than one."""
        import keras

        layers = _keras.layers_of(self.template, itself=False)
        return self._backend.stacks_loops_slowly and any(isinstance(layer, keras.layers.RNN) for layer in layers)

    def has_traced(self, data: Rows, *, stacked: bool = False) -> bool:
        """Whether the program that trains many models, or one, is there already."""
        form = form_of(data)
        return any((key[0], key[1], key[-1]) == ("train", stacked, form) for key in self._compiled)

    def unstackable(self) -> str | None:
        """Why the models cannot be trained in one step, in words; None unless that is known beforehand."""
        return next((reason for (_, stacked, *_), reason in self._refused.items() if stacked), None)

    # -- the steps -----------------------------------------------------------------------------------------------

    def _program(self, key: Any, data: Rows) -> Callable[..., Any]:
        kind, stacked, light, slots, _ = key
        if key not in self._compiled:
            step = self._train_step if kind == "train" else self._test_step
            self._compiled[key] = self._backend.epoch(
                step, self._results, self._example(), data, slots, stacked=stacked, light=light
            )
        return self._compiled[key]

    def _example(self) -> State:
        return State(
            self.template.trainable_variables,
            self.template.non_trainable_variables,
            self._rule.variables,
            self.template.metrics_variables,
        )

    def _train_step(self, state: State, lifted: dict[int, Any], rows: Rows) -> State:
        with self._lifted(lifted):

            def loss_of(trainable: list[Any]) -> tuple[Any, Any]:
                output, loss, others, metrics = self._loss(State(trainable, *state[1:]), rows, training=True)
                return self._rule.optimizer.scale_loss(loss), (output, loss, others, metrics)

            gradients, (output, loss, others, metrics) = self._backend.gradients(loss_of, state.trainable)
            trainable, optimizer = self._rule.apply(state.optimizer, gradients, state.trainable)
        metrics = self._count(State(trainable, others, optimizer, metrics), rows, output, loss)
        return State(list(trainable), others, list(optimizer), metrics)

    def _test_step(self, state: State, lifted: dict[int, Any], rows: Rows) -> State:
        with self._lifted(lifted):
            output, loss, others, metrics = self._loss(state, rows, training=False)
        state = State(state.trainable, others, state.optimizer, metrics)
        return state._replace(metrics=self._count(state, rows, output, loss))

    def _loss(self, state: State, rows: Rows, *, training: bool) -> tuple[Any, Any, list[Any], list[Any]]:
        model = self.template
        with _scope(self._mapping(state), collect_losses=True) as scope, self._only_these_change(scope):
            output = _keras.output_of(model, rows.x, training=training)
            loss = _keras.loss_of(model, rows, output, training=training)
        others = _updated(scope, model.non_trainable_variables, state.others)
        return output, loss, others, _updated(scope, model.metrics_variables, state.metrics)

    def _count(self, state: State, rows: Rows, output: Any, loss: Any) -> list[Any]:
        import keras

        model = self.template
        with _scope(self._mapping(state)) as scope, self._only_these_change(scope):
            first = next(part for part in keras.tree.flatten(rows.x) if part is not None)
            _keras.count_loss(model, loss, keras.ops.shape(first)[0])
            model.compute_metrics(rows.x, rows.y, output, sample_weight=rows.weights)
        return _updated(scope, model.metrics_variables, state.metrics)

    def _results(self, state: State) -> dict[str, Any]:
        with _scope(self._mapping(state)):
            return dict(self.template.get_metrics_result())

    @contextlib.contextmanager
    def _only_these_change(self, scope: Any) -> Iterator[None]:
        """Sees to it that a block assigns to no other variables than those it returns."""
        before = dict(scope.state_mapping)
        yield
        model = self.template
        returned = {id(variable) for variable in (*model.non_trainable_variables, *model.metrics_variables)}
        for key, value in scope.state_mapping.items():
            if key not in returned and before.get(key) is not value:
                known = [variable for variable in model.trainable_variables if id(variable) == key]
                name = f"the weight {known[0].path!r}" if known else "a variable that is not among its own"
                raise NotPureError(f"a step of it assigns to {name}")

    def _mapping(self, state: State) -> list[tuple[Any, Any]]:
        model = self.template
        return (
            _pairs(model.trainable_variables, state.trainable)
            + _pairs(model.non_trainable_variables, state.others)
            + _pairs(model.metrics_variables, state.metrics)
        )

    @contextlib.contextmanager
    def _lifted(self, values: dict[int, Any]) -> Iterator[None]:
        """Puts tensors in the place of the numbers that differ between models, while a step is traced."""
        lifts = [self._lifts[slot] for slot in values]
        before = [getattr(owner, name) for owner, name in lifts]
        for (owner, name), value, number in zip(lifts, values.values(), before, strict=True):
            given = _kind_of_lifted()(value, number, self._backend.convert)
            if name == "rate":  # Keras' dropout takes a number only
                _set(owner, "call", self._dropout(owner, value))
            elif name in _keras.keywords_of(owner):  # a loss passes this to its function
                _keras.keywords_of(owner)[name] = given
            else:
                _set(owner, name, given)
        try:
            yield
        finally:
            for (owner, name), number in zip(lifts, before, strict=True):
                if name == "rate":
                    object.__delattr__(owner, "call")
                elif name in _keras.keywords_of(owner):
                    _keras.keywords_of(owner)[name] = number
                else:
                    _set(owner, name, number)

    def _dropout(self, layer: Any, rate: Any) -> Callable[..., Any]:
        """`Dropout.call` of the same random numbers, for a rate that is a tensor."""

        def call(inputs: Any, training: bool = False) -> Any:
            if not training:
                return inputs
            seed = layer.seed_generator.next()
            return self._backend.dropout(inputs, self._backend.convert(rate, inputs.dtype), seed)

        return call


class ProgramInNumPy(Program):
    """A program whose steps are written out in numpy, so that nothing is traced.

    Args:
        program: The program of the structure.
        steps: Its steps.
    """

    def __init__(self, program: Program, steps: _dense.Steps) -> None:
        vars(self).update(vars(program))
        self._backend, self._steps = _NumPy(), steps

    def takes(self, data: Rows) -> bool:
        """Whether it can train on these data as Keras would."""
        return self._steps.takes(*data)

    def seconds(self, n_models: int, batch_size: int, *, stacked: bool = True) -> float:
        """About what a step takes for so many models, in seconds."""
        return self._steps.seconds(n_models, batch_size)

    def run(
        self, kind: Kind, state: State, lifted: Any, data: Rows, order: Any, starts: Any, *, stacked: bool, **_: Any
    ) -> tuple[State, Any]:
        if not stacked:
            state, lifted, order, starts = mapped(lambda value: np.asarray(value)[None], (state, lifted, order, starts))
        *after, results = self._steps.run(
            kind, state.trainable, state.optimizer, state.metrics, lifted, data, order, starts
        )
        state = State(after[0], state.others, *after[1:])
        return (state, results) if stacked else mapped(lambda value: value[0], (state, results))

    def saved_by_xla(self, batch_size: int, *, stacked: bool) -> float:
        return 0.0

    def arrays(self, values: Any) -> Any:
        return values


class _Lifted:
    """A number that differs between models: compares as the template's own, computes as a tensor.

    Keras asks `if self.momentum != 0` in Python, which every model of a group answers alike. Arithmetic with Python
    numbers stays in double precision, as it is for the Python number that this stands for: `1 - beta_2` in single
    precision would be wrong in the fifth digit.
    """

    def __init__(self, value: Any, number: float, convert: Callable[..., Any]) -> None:
        self._value, self._number, self._convert = value, number, convert

    def _with(self, value: Any, number: float) -> _Lifted:
        return type(self)(value, number, self._convert)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._convert(self._value, dtype)

    def __jax_array__(self) -> Any:
        return self._convert(self._value, None)

    def __float__(self) -> float:
        raise TypeError("a number that differs between models was asked for as one number")

    def __bool__(self) -> bool:
        return bool(self._number)

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str, *, reflected: bool) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(self: _Lifted, other: Any) -> Any:
        if isinstance(other, _Lifted):
            other_value, other_number = other._value, other._number
        elif isinstance(other, (int, float)):
            other_value = other_number = other
        else:
            mine = self._convert(self._value, other.dtype)
            return function(other, mine) if reflected else function(mine, other)
        if reflected:
            return self._with(function(other_value, self._value), function(other_number, self._number))
        return self._with(function(self._value, other_value), function(self._number, other_number))

    return compute


def _comparison(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)
    return lambda self, other: function(self._number, other)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(_Lifted, f"__{_name}__", _operator(_name, reflected=False))
    setattr(_Lifted, f"__r{_name}__", _operator(_name, reflected=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Lifted, f"__{_name}__", _comparison(_name))
_Lifted.__neg__ = lambda self: self._with(-self._value, -self._number)  # type: ignore[operator]


@functools.cache
def _kind_of_lifted() -> type[_Lifted]:
    """The class of lifted numbers for the backend."""
    import keras

    if keras.config.backend() == "tensorflow":
        return _Lifted

    class LiftedVariable(_Lifted, keras.Variable):
        """A lifted number that Keras takes for one of its variables: it knows no other way to a tensor."""

        @property
        def value(self) -> Any:
            return self._convert(self._value, None)

        @property
        def dtype(self) -> str:
            return str(keras.config.floatx())

        @property
        def shape(self) -> tuple[int, ...]:
            return ()

    return LiftedVariable


def _reason(error: Exception, *, stacked: bool) -> str:
    """An error of a program, as the reason why models are trained in another way."""
    if isinstance(error, NotPureError):
        return str(error)
    # Keras puts the layer before the error, in colours, and what the layer received after it.
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    # TensorFlow says where in the graph and in the code it was before it says what it was.
    lines = [line for line in lines if not re.match(r"Graph execution error|Detected at node|File \"|\[\[", line)]
    where = re.match(r"Exception encountered when calling (\w+)", lines[0]) if lines else None
    said = lines[1 if where and len(lines) > 1 else 0][:200] if lines else ""
    what = "models of it cannot take a step together" if stacked else "a step of it cannot be a program"
    return f"{what} ({f'{where[1]}: ' if where else ''}{type(error).__name__}{f': {said}' if said else ''})"


@contextlib.contextmanager
def _nothing_else_changes(model: keras.Model) -> Iterator[None]:
    """Sees to it that a block changes no layer and draws no random numbers; puts back what it changed.

    Raises:
        NotPureError: It did.
    """
    layers = [layer for layer in _keras.layers_of(model) if not type(layer).__module__.startswith("keras.")]
    before = [_attributes(layer) for layer in layers]
    generators = _generators()
    try:
        yield
    finally:
        changed = None
        for layer, attributes in zip(layers, before, strict=True):
            for name in _put_back(layer, attributes):
                changed = f"{type(layer).__name__} changes its `{name}` in each step"
        if _generators() != generators:
            changed = changed or "a step of it draws random numbers that do not come from Keras' seeds"
    if changed is not None:
        raise NotPureError(changed)


@functools.cache
def _of_every_layer() -> frozenset[str]:
    import keras

    return frozenset(vars(keras.layers.Layer())) | {"_build_shapes_dict"}


def _attributes(layer: Any) -> dict[str, tuple[Any, Any]]:
    """What a layer keeps besides variables and layers: each attribute, and a copy of what can change in place."""
    import keras

    own = {name: value for name, value in vars(layer).items() if name not in _of_every_layer()}
    own |= dict(getattr(layer, "_buffers", {}))  # of torch
    kept: dict[str, tuple[Any, Any]] = {}
    for name, value in own.items():
        if isinstance(value, (keras.Variable, keras.layers.Layer, keras.KerasTensor)):
            continue
        if isinstance(value, (list, dict, set, np.ndarray)):
            kept[name] = value, value.copy()
        elif hasattr(value, "_version") and hasattr(value, "clone"):
            kept[name] = value, (value._version, value.detach().clone())
        else:
            kept[name] = value, None
    return kept


def _put_back(layer: Any, attributes: dict[str, tuple[Any, Any]]) -> list[str]:
    """Puts back what a layer kept; the names of what has changed."""
    import keras

    changed = []
    for name, (value, copy) in attributes.items():
        now = vars(layer).get(name, getattr(layer, "_buffers", {}).get(name))
        if now is not value:
            if keras.config.backend() == "torch" or not _is_left_behind(value, now):
                changed.append(name)
            object.__setattr__(layer, name, value) if name in vars(layer) else layer._buffers.update({name: value})
        if copy is None:
            continue
        if isinstance(copy, tuple):
            if value._version != copy[0]:
                changed.append(name)
                value.data.copy_(copy[1])
        elif not _is_same(value, copy):
            changed.append(name)
            if isinstance(value, np.ndarray):
                value[...] = copy
            else:
                value.clear()
                value.extend(copy) if isinstance(value, list) else value.update(copy)
    return changed


def _is_left_behind(before: Any, now: Any) -> bool:
    """Whether a layer only keeps a tensor of the last call to be looked at: the next call could not use it."""
    concrete = isinstance(before, (int, float, np.ndarray)) or hasattr(before, "numpy") or hasattr(before, "devices")
    return hasattr(now, "dtype") and hasattr(now, "shape") and not concrete


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(name in other and other[name] is value for name, value in one.items())
    return all(map(operator.is_, one, other)) if isinstance(one, list) else one == other


def _generators() -> Any:
    """The state of every generator that a step could draw from, other than Keras' seeds."""
    import keras

    _, numbers, *rest = np.random.get_state(legacy=True)
    states = [random.getstate(), np.asarray(numbers).tobytes(), rest, keras_generators()]
    if keras.config.backend() == "torch":
        import torch

        states.append(torch.get_rng_state().numpy().tobytes())
    return states


# -- state ----------------------------------------------------------------------------------------------------------


def _pairs(variables: Sequence[Any], values: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(variables, values, strict=True))


def _scope(mapping: list[tuple[Any, Any]], *, collect_losses: bool = False) -> Any:
    import keras

    return keras.StatelessScope(state_mapping=mapping, collect_losses=collect_losses)


def _updated(scope: Any, variables: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    after = [scope.get_current_value(variable) for variable in variables]
    return [old if new is None else new for old, new in zip(before, after, strict=True)]


def _set(owner: Any, name: str, value: Any) -> None:
    # Not setattr: optimizers and layers track what they are given, and would take a tensor for a weight.
    object.__setattr__(owner, name, value)


class _Rule:
    """An optimizer as a function from gradients and state to weights and state.

    Most optimizers treat every number of every weight alike. They are given all weights as one vector, which does the
    same to the bit in a fraction of the operations; `packed` and `unpacked` go from Keras' state to this and back.
    """

    def __init__(self, template: keras.Model) -> None:
        import keras

        self._weights = template.trainable_variables
        self.optimizer = _keras.pure_optimizer(template)
        self._places: list[list[int]] | None = None
        self.names: list[str] | None = None  # of the state of the optimizer of the vector
        self._shapes = [tuple(variable.shape) for variable in self._weights]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        if _treats_all_alike(template):
            flat = type(self.optimizer).from_config(self.optimizer.get_config())
            vector = keras.Variable(np.zeros(self._ends[-1]), dtype=self._weights[0].dtype, name="weights")
            flat.build([vector])
            self._places = self._matched(flat, vector)
            if self._places is not None:
                self.optimizer = flat
                self.names = [variable.name.removeprefix(_prefix(vector)) for variable in flat.variables]
        self.variables = self.optimizer.variables

    def _matched(self, flat: Any, vector: Any) -> list[list[int]] | None:
        """For each variable of the optimizer of the vector, the places of those that it stands for."""
        names = [variable.name for variable in self.optimizer.variables]
        paths = [variable.path.replace("/", "_") for variable in self._weights]
        places = []
        for variable in flat.variables:
            slot = variable.name.removeprefix(_prefix(vector))
            wanted = [path + slot for path in paths] if variable.shape == vector.shape else [variable.name]
            if any(names.count(name) != 1 for name in wanted):
                return None
            places.append([names.index(name) for name in wanted])
        return places if sum(map(len, places)) == len(names) else None

    def apply(self, state: list[Any], gradients: list[Any], weights: list[Any]) -> tuple[list[Any], list[Any]]:
        """New weights and a new state."""
        from keras import ops

        if self._places is None:
            return self.optimizer.stateless_apply(state, gradients, weights)  # type: ignore[no-any-return]
        if any(gradient is None for gradient in gradients):
            raise NotPureError("some weights have no part in the loss")
        if any(type(gradient).__name__ == "IndexedSlices" for gradient in gradients):  # see `_treats_all_alike`
            raise NotPureError("it has a sparse gradient where none was expected")
        vectors = [ops.concatenate([ops.reshape(part, (-1,)) for part in parts]) for parts in (gradients, weights)]
        (vector,), state = self.optimizer.stateless_apply(state, [vectors[0]], [vectors[1]])
        parts = ops.split(vector, self._ends[:-1].tolist()) if len(self._ends) > 1 else [vector]
        return [ops.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)], state

    def packed(self, values: list[Any]) -> list[Any]:
        """The state of Keras' optimizer as arrays, for this rule."""
        if self._places is None:
            return values
        # What is as large as all weights is a vector of all weights; the others are single numbers.
        parts = [[values[place] for place in places] for places in self._places]
        return [np.concatenate([value.ravel() for value in part]) if np.ndim(part[0]) else part[0] for part in parts]

    def unpacked(self, state: list[Any]) -> list[Any]:
        """The state of this rule, for Keras' optimizer."""
        if self._places is None or not state:
            return state
        values: dict[int, Any] = {}
        for value, places in zip(state, self._places, strict=True):
            if np.ndim(value) == 0:
                values[places[0]] = value
                continue
            parts = zip(places, np.split(np.asarray(value), self._ends[:-1]), self._shapes, strict=True)
            values |= {place: part.reshape(shape) for place, part, shape in parts}
        return [values[place] for place in range(len(values))]


def _prefix(variable: Any) -> str:
    """What stands before the names of what an optimizer keeps for a variable."""
    return str(variable.path.replace("/", "_"))


def _treats_all_alike(model: keras.Model) -> bool:
    """Whether an optimizer does the same to every number of every weight."""
    import keras

    optimizer, weights = model.optimizer, model.trainable_variables
    alike = {"SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion", "Ftrl"}
    layers = _keras.layers_of(model)
    dense = all(type(layer).__module__.startswith("keras.") for layer in layers)
    return (
        type(optimizer).__name__ in alike
        and type(optimizer).__module__.startswith("keras.")
        and not (optimizer.clipnorm or optimizer.global_clipnorm or optimizer.use_ema)
        and all(variable.constraint is None for variable in weights)
        and not any(getattr(variable, "overwrite_with_gradient", False) for variable in weights)
        and len({str(variable.dtype) for variable in weights}) == 1
        and dense
        # Their gradients are sparse: rows that come twice must not be added up before the rule has seen them.
        and not any(isinstance(layer, keras.layers.Embedding) for layer in layers)
    )


def unsupported(model: keras.Model) -> str | None:
    """Why `Model.fit` must train a model, in words; None if a shared program can."""
    import keras

    kind, backend = type(model), keras.config.backend()
    if not hasattr(_Backends, backend):
        return f"there is no shared program for the backend {backend}"
    objection = _keras.objection()
    if objection is not None:
        return objection
    if not model.compiled or model.optimizer is None:
        return "the model is not compiled with an optimizer"
    for name in ("train_step", "test_step", "fit", "evaluate", "make_train_function", "make_test_function"):
        if getattr(kind, name) is not getattr(keras.Model, name):
            return f"{kind.__name__} has a `{name}` of its own"
    if model.run_eagerly:
        return "the model runs eagerly"
    if _keras.fixed_batch(model) is not None:
        return "the model takes batches of one size"
    if model.jit_compile and backend == "tensorflow":
        return "the model is compiled with jit_compile"
    optimizer = model.optimizer
    if not type(optimizer).__module__.startswith("keras."):
        return f"{type(optimizer).__name__} is an optimizer of the user's"
    rate = _keras.rate_of(optimizer)
    if not _keras.is_variable(rate) and not type(rate).__module__.startswith("keras."):
        return "its learning rate is a function or a schedule of the user's"
    if _keras.leaves_weights_out(optimizer):
        return "the optimizer leaves some weights out of its weight decay"
    if type(optimizer).__name__ in ("LossScaleOptimizer", "MultiOptimizer", "ScheduleFreeAdamW"):
        return f"{type(optimizer).__name__} is more than a rule of update"
    if optimizer.gradient_accumulation_steps or optimizer.ema_overwrite_frequency:
        return "the optimizer does something else in some steps"
    if not model.trainable_variables:
        return "the model has nothing to train"
    if not _keras.is_built_for(optimizer, model.trainable_variables):
        return "layers were frozen or thawed since its optimizer was built"
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy() or _keras.is_under_strategy(model):
            return "the model is distributed over devices"
        # Its gradient by oneDNN, which Keras' own program has, is another than TensorFlow's: seen at 2.21.
        if any(type(layer).__name__ in ("MaxPooling3D", "AdaptiveMaxPooling3D") for layer in _keras.layers_of(model)):
            return "TensorFlow computes another gradient of MaxPooling3D in another program"
    elif keras.distribution.distribution() is not None:
        return "the model is distributed over devices"
    if backend == "torch":
        for layer in _keras.layers_of(model):
            if _draws(layer):
                return f"{type(layer).__name__} draws random numbers, on torch from a generator of the process"
            if type(layer).__name__ == "TorchModuleWrapper":
                return "a torch.nn.Module in it keeps its own weights"
    return None


def _draws(layer: Any) -> bool:
    """Whether a layer draws random numbers while it trains; Keras gives some a seed that never do."""
    if not _keras.is_seeded(layer):
        return False
    rates = [getattr(layer, name, None) for name in ("rate", "stddev", "dropout", "recurrent_dropout")]
    known = [rate for rate in rates if isinstance(rate, (int, float))]
    return not (type(layer).__module__.startswith("keras.") and known) or any(known)


def compiled_drawing(
    makers: Sequence[Callable[[Any], Any]],
) -> Callable[[Sequence[Sequence[int]]], list[list[Any]]] | None:
    """One function of a seed for each maker, to what they make of them as arrays, for many such rows of seeds.

    None where nothing is compiled.
    """
    import keras

    class Given(keras.random.SeedGenerator):  # what takes a seed takes one of these, too
        def __init__(self, seed: Any) -> None:
            self._given = seed

        def next(self, ordered: bool = True) -> Any:
            return self._given

    def draw(seeds: Any) -> list[Any]:
        return [maker(Given(seeds[number])) for number, maker in enumerate(makers)]

    dtype = keras.random.SeedGenerator(0).state.dtype
    compiled = _backend().for_each(draw, np.zeros((len(makers), 2), dtype))
    if compiled is None:
        return None
    return lambda rows: compiled(np.array([[(seed, 0) for seed in row] for row in rows], dtype))


def is_built(model: keras.Model) -> bool:
    """Whether Keras has built what it builds when it first sees data."""
    return bool(model.optimizer.built)


def assign(model: keras.Model, state: State) -> None:
    """Sets the variables of a model; those of the optimizer if there is a state of it."""
    if state.optimizer and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    pairs = [
        *zip(model.trainable_variables, state.trainable, strict=True),
        *zip(model.non_trainable_variables, state.others, strict=True),
        *zip(model.optimizer.variables if state.optimizer else [], state.optimizer, strict=True),
    ]
    for variable, value in pairs:
        variable.assign(value)


def clone(model: keras.Model) -> keras.Model:
    """A compiled model of the same structure, with other weights."""

    with _keras.without_tensorflow():
        copy = type(model).from_config(model.get_config())
    arguments = _keras.compile_arguments(model)
    if arguments is None:
        raise ValueError("the model was compiled in a way of its own")
    # Losses of its own: while a program is traced, a number in them is not a number.
    copy.compile(**{name: copied(value) for name, value in {**arguments, "optimizer": model.optimizer}.items()})
    return copy


def keras_generators() -> Any:
    """The state of Keras' and TensorFlow's generators for the whole process."""
    import keras

    global_state = _keras.state_of_process()
    generator = global_state.get_global_attribute("global_seed_generator")
    states = [
        None if generator is None else _numpy(generator.state.value).tolist(),
        global_state.get_global_attribute("global_random_seed"),
    ]
    if keras.config.backend() == "tensorflow":
        from tensorflow.python.eager import context

        rng = getattr(context.context(), "_rng", None)
        states.append((context.context()._seed, None if rng is None else rng.getstate()))
    return states


def let_go() -> None:
    """Gives back memory after the program of a structure was let go."""
    with _ONE_TRACE_AT_A_TIME:
        _backend().let_go()


def array(variable: Any) -> Any:
    """The value of a variable, as an array."""
    return _numpy(variable.value)


def _values(variables: Sequence[Any]) -> list[Any]:
    return [_numpy(variable.value) for variable in variables]


def _numpy(value: Any) -> Any:
    import keras

    return value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)


def mapped(function: Callable[..., Any], *structures: Any) -> Any:
    """A function of each part of data; what is None stays None."""
    import keras

    return keras.tree.map_structure(lambda part, *more: None if part is None else function(part, *more), *structures)


def form_of(data: Any) -> Any:
    """Dtypes, row shapes and structure of data: what a program is made for."""
    import keras

    leaves = [None if part is None else (str(part.dtype), tuple(part.shape[1:])) for part in keras.tree.flatten(data)]
    return str(keras.tree.map_structure(lambda part: 0, data)), tuple(leaves)


# -- backends -------------------------------------------------------------------------------------------------------


class _NumPy:
    """Arrays, for steps that are written out."""

    steps_a_call = 64
    compiles_each_size = False

    def tensor(self, value: Any) -> Any:
        return np.asarray(value)

    def take(self, value: Any, members: Any) -> Any:
        return value[members]

    def cut(self, value: Any, first: int, end: int) -> Any:
        return value[:first], value[first:end], value[end:]

    def joined(self, values: Any) -> Any:
        return np.concatenate(values)

    def put(self, value: Any, members: Any, part: Any) -> Any:
        value = value.copy()
        value[members] = part
        return value


class _TensorFlow:
    """Graphs: a loop over the steps around the step, or around the step vectorised over the models."""

    steps_a_call = 64  # at first: a call cannot be interrupted, so that it should not take long
    compiles_each_size = False
    stacks_loops_slowly = True

    def let_go(self) -> None:
        """Nothing is kept but by the program itself."""

    @functools.cached_property
    def has_xla(self) -> bool:
        """Whether to leave small steps to XLA; measured on processors alone."""
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")

    def tensor(self, value: Any) -> Any:
        import tensorflow as tf

        return tf.convert_to_tensor(value)

    def take(self, value: Any, members: Any) -> Any:
        import tensorflow as tf

        return tf.gather(value, members)

    def cut(self, value: Any, first: int, end: int) -> Any:
        import tensorflow as tf

        return tf.split(value, [first, end - first, value.shape[0] - end])

    def joined(self, values: Any) -> Any:
        import tensorflow as tf

        return tf.concat(values, 0)

    def put(self, value: Any, members: Any, part: Any) -> Any:
        import tensorflow as tf

        return tf.tensor_scatter_nd_update(value, members[:, None], part)

    def convert(self, value: Any, dtype: Any) -> Any:
        import tensorflow as tf

        return tf.cast(value, dtype or tf.float32)

    def is_of_the_program(self, error: Exception) -> bool:
        import tensorflow as tf

        return not isinstance(error, tf.errors.OpError)

    def dropout(self, inputs: Any, rate: Any, seed: Any) -> Any:
        import tensorflow as tf

        seed = tf.cast(tf.math.floormod(seed, tf.int32.max - 1), "int32")  # as Keras does
        return tf.nn.experimental.stateless_dropout(inputs, rate=rate, seed=seed)

    def gradients(self, loss_of: Callable[..., Any], trainable: list[Any]) -> tuple[list[Any], Any]:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            loss, rest = loss_of(trainable)
        gradients = tape.gradient(loss, trainable)
        for gradient, value in zip(gradients, trainable, strict=True):
            if isinstance(gradient, tf.Tensor):  # a batch of unknown size makes TensorFlow forget the shape
                gradient.set_shape(value.shape)
        return gradients, rest

    def epoch(
        self, step: Any, results: Any, example: State, data: Rows, lifted: Sequence[int], *, stacked: bool, light: bool
    ) -> Callable[..., Any]:
        import tensorflow as tf

        lead = [None] if stacked else []

        def spec(variable: Any) -> Any:
            return tf.TensorSpec([*lead, *variable.shape], variable.dtype)

        state_spec = State(*([spec(variable) for variable in part] for part in example))
        lifted_spec = {slot: tf.TensorSpec(lead, tf.float64) for slot in lifted}
        data_spec = mapped(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), data)
        starts_spec = mapped(lambda part: tf.TensorSpec(lead, tf.int32), data)
        order_spec = tf.TensorSpec([*lead, None, None], tf.int32)
        specs = [state_spec, lifted_spec, data_spec, order_spec, starts_spec]
        flat_specs = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32), *_present(specs)]
        n_state = len(_present([state_spec]))
        template = mapped(lambda part: 0, data)  # not the data itself, which would live as long as the program

        def one(arguments: Any) -> Any:
            state, lifted, parts = arguments
            return step(state, lifted, _filled(template, parts))

        def body(number: Any, steps: Any, *flat: Any) -> list[Any]:
            state, lifted, data, order, starts = _filled(specs, flat)
            batch = order[:, number] if stacked else order[number]

            def take(part: Any, start: Any) -> Any:
                return tf.gather(part, batch + (start[:, None] if stacked else start))

            arguments = (state, lifted, _present(mapped(take, data, starts)))
            state = _for_all(one, arguments, tf.shape(order)[0]) if stacked else one(arguments)
            return [number + 1, steps, *_present([state]), *flat[n_state:]]

        def run(state: State, lifted: dict[int, Any], data: Rows, order: Any, starts: Rows) -> Any:
            flat = [tf.constant(0), tf.shape(order)[-2], *_present([state, lifted, data, order, starts])]
            loop = _light_loop if light else _loop
            after = loop(lambda number, steps, *_: number < steps, body, flat, flat_specs)
            state = _filled([state_spec], after[2 : 2 + n_state])[0]
            return state, _for_all(results, state, tf.shape(order)[0]) if stacked else results(state)

        return _traced(run, specs)

    def by_xla(self, program: Callable[..., Any], *, stacked: bool) -> Callable[..., Any] | None:
        import tensorflow as tf

        compiled = program.by_xla()  # type: ignore[attr-defined]
        if compiled is None or not stacked:
            return compiled and (lambda n_models, *arguments: compiled(*arguments))

        def run(size: int, state: State, lifted: dict[int, Any], data: Rows, order: Any, starts: Rows) -> Any:
            n_models = len(order)
            n_calls = -(-n_models // size)
            full = n_calls * size == n_models
            # The last call is filled up: a program for fewer models would be compiled anew.
            filled = np.minimum(np.arange(n_calls * size), n_models - 1)

            def parts_of(some: Any) -> list[Any]:
                return [tf.split(value if full else tf.gather(value, filled), n_calls) for value in _present(some)]

            before, after = parts_of([state, lifted]), parts_of([order, starts])
            shared = _present([data])
            calls = [
                [*(parts[number] for parts in before), *shared, *(parts[number] for parts in after)]
                for number in range(n_calls)
            ]
            results = list(_threads().map(lambda call: compiled(*call), calls))
            return mapped(lambda *parts: self.joined(parts) if full else self.joined(parts)[:n_models], *results)

        return run

    def epochs_by_xla(self, program: Callable[..., Any], size: int, n_rows: int) -> Callable[..., Any]:
        return program.epochs_by_xla(size, n_rows)  # type: ignore[attr-defined,no-any-return]

    def predict(self, forward: Any, trainable: list[Any], others: list[Any], x: Any) -> Callable[..., Any]:
        import tensorflow as tf

        weights_spec = [[tf.TensorSpec(value.shape, value.dtype) for value in part] for part in (trainable, others)]
        x_spec = mapped(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), x)
        return _traced(forward, [*weights_spec, x_spec])

    def for_each(self, function: Callable[..., Any], example: Any) -> Callable[..., list[list[Any]]] | None:
        """A function of an array to a list of arrays, compiled for many."""
        import tensorflow as tf

        results = [tf.TensorSpec(value.shape, value.dtype) for value in function(tf.constant(example))]

        def all_of(many: Any) -> Any:
            return tf.map_fn(function, many, fn_output_signature=results)

        compiled = _traced(all_of, [tf.TensorSpec([None, *example.shape], example.dtype)])
        return lambda many: list(zip(*map(_numpy, compiled(many)), strict=True))  # type: ignore[arg-type]


def _loop(goes_on: Callable[..., Any], body: Callable[..., Any], values: list[Any], specs: list[Any]) -> list[Any]:
    """A loop whose steps become part of the program around it, with oneDNN's operations in it."""
    import tensorflow as tf

    return list(tf.while_loop(goes_on, body, values, parallel_iterations=1))


def _light_loop(
    goes_on: Callable[..., Any], body: Callable[..., Any], values: list[Any], specs: list[Any]
) -> list[Any]:
    """A loop that calls its steps as a function, which TensorFlow does not rewrite for oneDNN.

    An operation of oneDNN costs some 50 microseconds before it begins to compute: more than all of a small product.
    """
    import tensorflow as tf

    def traced(function: Callable[..., Any], specs: list[Any]) -> Any:
        return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()

    step = traced(body, specs)
    outside = step.captured_inputs
    if outside:  # constants of the layers, which such a loop must be handed like all else
        if not hasattr(step, "inference_fn") or any(value.dtype in (tf.resource, tf.variant) for value in outside):
            return _loop(goes_on, body, values, specs)
        inner, n_values = step.inference_fn, len(specs)
        specs = [*specs, *(tf.TensorSpec(value.shape, value.dtype) for value in outside)]
        step = traced(lambda *flat: [*inner.call_flat(*flat), *flat[n_values:]], specs)
    after: list[Any] = tf.raw_ops.While(
        input=[*values, *outside], cond=traced(goes_on, specs), body=step, parallel_iterations=1
    )
    for value, spec in zip(after, specs, strict=True):
        value.set_shape(spec.shape)
    return after


def _for_all(function: Callable[[Any], Any], arguments: Any, n_models: Any) -> Any:
    """What a function makes of each model's part of the arguments, for all models at once.

    `tf.vectorized_map` does the same, but takes every part of the state apart and together again in every step.
    """
    import tensorflow as tf

    pfor = _pfor()
    if pfor is None:
        return tf.vectorized_map(function, arguments)
    graph = tf.compat.v1.get_default_graph()
    before = set(graph.get_operations())
    number = tf.compat.v1.placeholder_with_default(0, [])

    def of_one(stacked: Any) -> Any:
        shape = stacked.shape[1:]
        any_value = tf.zeros([size or 1 for size in shape], stacked.dtype)  # XLA knows no placeholder without one
        return tf.compat.v1.placeholder_with_default(any_value, shape)

    parts = tf.nest.map_structure(of_one, arguments)
    results = tf.nest.map_structure(tf.convert_to_tensor, function(parts))
    operations = set(graph.get_operations()) - before
    if any(operation.op_def.is_stateful for operation in operations):  # it would run for the placeholders, too
        return tf.vectorized_map(function, arguments)
    converter = pfor.PFor(number, n_models, operations, fallback_to_while_loop=True, warn=True)
    for part, stacked in zip(tf.nest.flatten(parts), tf.nest.flatten(arguments), strict=True):
        converter._add_conversion(part, pfor.wrap(stacked, True))
    return tf.nest.map_structure(converter.convert, results)


@functools.cache
def _pfor() -> Any:
    """What `tf.vectorized_map` is made of, if this TensorFlow has it as it is used here; it learns three operations.

    TensorFlow bitcasts one model after another. Keras' `argmax` has that in it, so that counting an accuracy would take
    longer than the step. It makes no zeros like a list of tensors, and takes a shape that is not known for that of a
    number; the gradient of a recurrent layer needs both, if there is something to train before it.
    """
    import tensorflow as tf

    try:
        from tensorflow.python.ops.parallel_for import pfor

        parameters = inspect.signature(pfor.PFor).parameters
        if not {"loop_var", "loop_len", "pfor_ops", "fallback_to_while_loop", "warn"} <= set(parameters):
            return None
        known = pfor._pfor_converter_registry, pfor.PFor._add_conversion, pfor.PFor.convert, pfor._tile_variant
    except (AttributeError, ImportError):
        return None
    if "Bitcast" not in known[0]:

        @pfor.RegisterPFor("Bitcast")  # type: ignore[untyped-decorator]
        def convert(given: Any) -> Any:
            return pfor.wrap(tf.bitcast(given.stacked_input(0), given.get_attr("type")), True)

        zeros_like, shape_of_elements = known[0]["ZerosLike"], known[0]["TensorListElementShape"]

        def convert_zeros(given: Any) -> Any:
            value = given.stacked_input(0)
            if value.dtype != tf.variant:
                return zeros_like(given)
            zeros = tf.raw_ops.ZerosLike(x=pfor._untile_variant(value))  # a list of stacks, not a stack of lists
            return pfor.wrap(pfor._tile_variant(zeros, given), True)

        def convert_shape(given: Any) -> Any:
            of_one, dtype = given.outputs[0].shape, given.get_attr("shape_type")
            if of_one.rank == 0:
                return pfor.wrap(tf.constant(-1, dtype), False)  # nothing is known of it
            if not of_one.is_fully_defined():
                return shape_of_elements(given)
            # Of a stack nothing is known where not all is known.
            handle = pfor._untile_variant(given.stacked_input(0))
            shape = tf.reshape(tf.raw_ops.TensorListElementShape(input_handle=handle, shape_type=dtype), [-1])
            return pfor.wrap(tf.concat([shape[1:], tf.fill(of_one, tf.constant(-1, dtype))], 0)[: of_one[0]], False)

        known[0].update(ZerosLike=convert_zeros, TensorListElementShape=convert_shape)

    return pfor


def _traced(function: Callable[..., Any], specs: list[Any]) -> Callable[..., Any]:
    """A TensorFlow function traced once for arguments of these forms, in which None may stand for a part."""
    return _Traced(function, specs)


class _Traced:
    """What `_traced` returns."""

    def __init__(self, function: Callable[..., Any], specs: list[Any]) -> None:
        import tensorflow as tf

        def flat(*tensors: Any) -> Any:
            return function(*_filled(specs, tensors))

        self._specs, self._lengths = _present(specs), [len(_present([part])) for part in specs]
        with _without_advice():
            traced = tf.function(flat, input_signature=self._specs, autograph=False).get_concrete_function()
            _refuse_side_effects(traced)
        self._traced = traced
        # The same without looking through the arguments again, which takes longer than a small step.
        self._run = getattr(getattr(traced, "inference_fn", None), "call_preflattened", None)

    def __call__(self, *arguments: Any) -> Any:
        given = _present(list(arguments))
        if self._run is None:
            return self._traced(*given)
        tensors = map(_tensor_like, given, self._specs)
        return self._run([*tensors, *self._traced.captured_inputs])

    def by_xla(self) -> Callable[..., Any] | None:
        """The same compiled by XLA, for each shape anew; None if this TensorFlow is built otherwise."""
        import tensorflow as tf

        if self._run is None:
            return None
        captured = self._traced.captured_inputs
        specs = [*self._specs, *(tf.TensorSpec(value.shape, value.dtype) for value in captured)]
        inner = self._traced.inference_fn.call_flat
        with _without_advice():
            outer = tf.function(lambda *flat: inner(*flat), input_signature=specs, autograph=False, jit_compile=True)
            compiled = outer.get_concrete_function().inference_fn.call_flat
        structure = self._traced.structured_outputs

        def call(*arguments: Any) -> Any:
            tensors = map(_tensor_like, _present(list(arguments)), self._specs)
            return tf.nest.pack_sequence_as(structure, compiled(*tensors, *captured))

        return call

    def epochs_by_xla(self, size: int, n_rows: int) -> Callable[..., Any]:
        """Epochs of the stacked step that was traced, compiled by XLA for each number of models anew."""
        import tensorflow as tf

        at_most = epochs_a_call(n_rows, size)
        captured = self._traced.captured_inputs
        inner = self._traced.inference_fn.call_flat
        structure = self._traced.structured_outputs
        n_metrics = len(structure[0].metrics)
        n_state, *lengths, _, _ = self._lengths
        place = n_state + sum(lengths)  # of the order among the arguments
        results_spec = [tf.TensorSpec(value.shape, value.dtype) for value in _present([structure[1]])]
        whole, rest = divmod(n_rows, size)

        def epochs(n_epochs: Any, orders: Any, *flat: Any) -> Any:
            n_models = tf.shape(orders)[0]
            fresh = flat[n_state - n_metrics : n_state]

            def epoch(number: Any, state: Any, kept: Any) -> Any:
                order = tf.gather(orders, number, axis=1)
                batches = [tf.reshape(order[:, : whole * size], [n_models, whole, size])] if whole else []
                batches += [order[:, None, whole * size :]] if rest else []
                state, results = [*state[:-n_metrics], *fresh], []
                for batch in batches:
                    found = inner(*state, *flat[n_state:place], batch, *flat[place:])
                    state, results = found[:n_state], found[n_state:]
                now = tf.range(at_most) == number
                kept = [
                    tf.where(tf.reshape(now, [1, at_most] + [1] * (len(one.shape) - 1)), one[:, None], before)
                    for before, one in zip(kept, results, strict=True)
                ]
                return number + 1, list(state), kept

            none = [tf.zeros([n_models, at_most, *spec.shape[1:]], spec.dtype) for spec in results_spec]
            _, state, kept = tf.while_loop(
                lambda number, *_: number < n_epochs, epoch, (tf.constant(0), list(flat[:n_state]), none)
            )
            return [*state, *kept]

        specs = [*self._specs[:place], *self._specs[place + 1 :]]
        specs_outside = [tf.TensorSpec(value.shape, value.dtype) for value in captured]
        own = [tf.TensorSpec([], tf.int32), tf.TensorSpec([None, at_most, n_rows], tf.int32)]
        with _without_advice():
            outer = tf.function(
                epochs, input_signature=[*own, *specs, *specs_outside], autograph=False, jit_compile=True
            )
            compiled = outer.get_concrete_function().inference_fn.call_flat

        def call(state: State, lifted: dict[int, Any], data: Rows, orders: Any, starts: Rows) -> Any:
            tensors = map(_tensor_like, _present([state, lifted, data, starts]), specs)
            n_epochs = orders.shape[1]
            filled = np.pad(orders, ((0, 0), (0, at_most - n_epochs), (0, 0)))
            found = compiled(*map(_tensor_like, (n_epochs, filled), own), *tensors, *captured)
            state, results = tf.nest.pack_sequence_as(structure, found)
            return state, mapped(lambda result: result[:, :n_epochs], results)

        return call


def _tensor_like(value: Any, spec: Any) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(value, spec.dtype)


def on_each_core(work: Sequence[Iterator[Any]]) -> Generator[Any]:
    """Goes through iterators, as many at a time as the processor has cores, and yields what they do as it comes.

    When one of them raises, or the caller goes no further, none begins another item, and those begun are waited for.
    """
    come: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ended = object()
    stopping = threading.Event()

    def go_through(items: Iterator[Any]) -> None:
        item = None
        try:
            while item is not ended and not stopping.is_set():
                item = next(items, ended)
                if item is not ended:
                    come.put(item)
        except BaseException:
            stopping.set()
            raise
        finally:
            come.put(ended)

    futures: list[concurrent.futures.Future[None]] = []
    try:
        for items in work:
            futures.append(_threads().submit(go_through, items))
        left = len(futures)
        while left:
            item = come.get()
            if item is ended:
                left -= 1
            else:
                yield item
        for future in futures:
            future.result()
    finally:
        stopping.set()
        concurrent.futures.wait([future for future in futures if not future.cancel()])


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    """A thread for each core, to call programs that use one core each."""
    import joblib

    return concurrent.futures.ThreadPoolExecutor(joblib.cpu_count(), "kerastoolkit-program")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """TensorFlow warns of operations that it vectorises by a loop; whether that is quicker is measured, not guessed."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# Operations that TensorFlow calls stateful, and that change and draw nothing: control flow, checks, look-ups.
_HARMLESS_OPERATIONS = (
    "Assert", "Case", "If", "LookupTable", "PartitionedCall", "Placeholder", "Print", "StatefulPartitionedCall",
    "StringFormat", "TensorList", "While", "XlaHost",
)  # fmt: skip


def _refuse_side_effects(function: Any) -> None:
    """Refuses a TensorFlow function that reads or writes more than its arguments and results, before it is called."""
    from tensorflow.python.framework import op_def_registry

    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    for name in sorted({node.op for node in nodes}):
        known = op_def_registry.get(name)
        if known is None or not known.is_stateful or name.startswith(_HARMLESS_OPERATIONS):
            continue
        if name.startswith(("Assign", "Resource")):
            raise NotPureError(f"a step of it changes a tf.Variable that Keras does not know ({name})")
        if name.startswith("ReadVariable"):
            raise NotPureError("a step of it reads a tf.Variable that Keras does not know")
        raise NotPureError(f"a step of it does more than to compute ({name})")


def _present(structure: Any) -> list[Any]:
    """The parts of a structure that are not None, in order."""
    import keras

    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _filled(structure: Any, parts: Sequence[Any]) -> Any:
    """A structure like this one, None where it has None, of these parts."""
    following = iter(parts)
    return mapped(lambda _: next(following), structure)


class _Jax:
    """One compiled scan over the steps, around the step or around the step vectorised over the models."""

    steps_a_call = 10**9  # another number of steps would be compiled anew
    compiles_each_size = True
    stacks_loops_slowly = False
    has_xla = False  # it is always by XLA

    def __init__(self) -> None:
        self._let_go = 0

    def let_go(self) -> None:
        """Gives back what JAX keeps of structures that are not kept any more.

        To build a model, Keras calls operations of JAX one by one. JAX compiles each of them for each shape, which
        takes two megabytes, and keeps thousands. It has no public way to let go of some.
        """
        import jax

        self._let_go += 1
        if self._let_go % _LET_GO_BEFORE_CLEARING == 0:
            clear: Callable[[], object] = jax.clear_caches
            clear()

    def tensor(self, value: Any) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(value)

    def take(self, value: Any, members: Any) -> Any:
        return value[members]

    def put(self, value: Any, members: Any, part: Any) -> Any:
        return value.at[members].set(part)

    def convert(self, value: Any, dtype: Any) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(value, dtype or jnp.float32)

    def is_of_the_program(self, error: Exception) -> bool:
        import jax

        return not isinstance(error, jax.errors.JaxRuntimeError)

    def dropout(self, inputs: Any, rate: Any, seed: Any) -> Any:
        import jax

        kept = 1 - rate
        mask = jax.random.bernoulli(seed, p=kept, shape=inputs.shape)
        return jax.lax.select(mask, inputs / kept, jax.numpy.zeros_like(inputs))

    def gradients(self, loss_of: Callable[..., Any], trainable: list[Any]) -> tuple[list[Any], Any]:
        import jax

        (_, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        return gradients, rest

    def epoch(
        self, step: Any, results: Any, example: State, data: Rows, lifted: Sequence[int], *, stacked: bool, light: bool
    ) -> Callable[..., Any]:
        import jax

        def run(state: State, lifted: dict[int, Any], data: Rows, order: Any, starts: Rows) -> Any:
            def body(state: State, batch: Any) -> tuple[State, None]:
                def take(part: Any, start: Any) -> Any:
                    return part[batch + (start[:, None] if stacked else start)]

                one = jax.vmap(step) if stacked else step
                return one(state, lifted, mapped(take, data, starts)), None

            state, _ = jax.lax.scan(body, state, order.swapaxes(0, 1) if stacked else order)
            return state, jax.vmap(results)(state) if stacked else results(state)

        return _CompiledByJax(run)

    def predict(self, forward: Any, trainable: list[Any], others: list[Any], x: Any) -> Callable[..., Any]:
        return _CompiledByJax(forward)

    def for_each(self, function: Callable[..., Any], example: Any) -> Callable[..., list[list[Any]]] | None:
        compiled = _CompiledByJax(function)  # all at once would be compiled anew for each number of them
        return lambda many: [list(map(_numpy, compiled(one))) for one in many]


# Settings of JAX that show in what a function is compiled to.
_SETTINGS_OF_JAX = (
    "jax_debug_infs", "jax_debug_nans", "jax_default_device", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_enable_x64", "jax_numpy_dtype_promotion", "jax_threefry_partitionable",
)  # fmt: skip


class _CompiledByJax:
    """A function compiled by JAX for each form of its arguments, kept here alone, whatever JAX keeps itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        import jax

        leaves, structure = jax.tree.flatten(arguments)
        forms = [(x.shape, x.dtype, getattr(x, "weak_type", False), getattr(x, "sharding", None)) for x in leaves]
        key = (structure, *forms, *(getattr(jax.config, name, None) for name in _SETTINGS_OF_JAX))
        compiled = self._compiled.get(key)
        if compiled is None:
            with _ONE_TRACE_AT_A_TIME:
                compiled = self._compiled[key] = jax.jit(self._function).lower(*arguments).compile()
        return compiled(*arguments)


class _Torch:
    """A loop of Python over the steps; stacked, each step is vectorised over the models."""

    steps_a_call = 64
    compiles_each_size = False
    stacks_loops_slowly = False
    has_xla = False
    _stacked = False  # while a step runs
    _looks_ahead = False  # while a step of one model shows what those of several will not

    def let_go(self) -> None:
        """Nothing is kept but by the program itself."""

    def tensor(self, value: Any) -> Any:
        import keras

        return keras.ops.convert_to_tensor(value)

    def take(self, value: Any, members: Any) -> Any:
        return value[members]

    def cut(self, value: Any, first: int, end: int) -> Any:
        return value[:first], value[first:end], value[end:]

    def joined(self, values: Any) -> Any:
        import torch

        return torch.cat(values)

    def put(self, value: Any, members: Any, part: Any) -> Any:
        value = value.clone()
        value[members] = part
        return value

    def convert(self, value: Any, dtype: Any) -> Any:
        import keras

        return keras.ops.cast(value, keras.config.floatx() if dtype is None else keras.backend.standardize_dtype(dtype))

    def is_of_the_program(self, error: Exception) -> bool:
        return isinstance(error, NotPureError)  # each step runs the code anew: it could be the data

    def gradients(self, loss_of: Callable[..., Any], trainable: list[Any]) -> tuple[list[Any], Any]:
        import keras
        import torch

        if self._stacked:
            gradients, (_, rest) = torch.func.grad_and_value(loss_of, has_aux=True)(trainable)
            return gradients, rest
        # The usual way takes any operation, numpy's among them, and tells which weights have no part in the loss.
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in trainable]
            loss, rest = loss_of(leaves)
        found = list(torch.autograd.grad(loss, leaves, allow_unused=True))
        if self._looks_ahead and any(gradient is None for gradient in found):
            raise NotPureError("some weights have no part in the loss, which torch does not tell of several models")
        return found, keras.tree.map_structure(lambda part: part.detach() if torch.is_tensor(part) else part, rest)

    def epoch(
        self, step: Any, results: Any, example: State, data: Rows, lifted: Sequence[int], *, stacked: bool, light: bool
    ) -> Callable[..., Any]:
        import torch

        template = mapped(lambda part: 0, data)  # not the data itself, which would live as long as the program

        def one(state: State, lifted: dict[int, Any], parts: list[Any]) -> State:
            return step(state, lifted, _filled(template, parts))  # type: ignore[no-any-return]

        ahead = [stacked]  # not yet looked

        def look_ahead(state: State, lifted: dict[int, Any], rows: list[Any]) -> None:
            first = State(*([value[0] for value in part] for part in state))
            self._stacked, self._looks_ahead = False, True
            try:
                one(first, {slot: value[0] for slot, value in lifted.items()}, [part[0] for part in rows])
            finally:
                self._stacked, self._looks_ahead = True, False
            ahead[0] = False

        def run(state: State, lifted: dict[int, Any], data: Rows, order: Any, starts: Rows) -> Any:
            with _ONE_TRACE_AT_A_TIME, torch.no_grad():  # each step goes through the template's own layers
                self._stacked = stacked
                for number in range(order.shape[-2]):
                    batch = order[..., number, :].long()

                    def take(part: Any, start: Any, batch: Any = batch) -> Any:
                        return part[batch + (start[:, None] if stacked else start)]

                    rows = _present(mapped(take, data, starts))
                    if ahead[0]:
                        look_ahead(state, lifted, rows)
                    with _keras.as_vmap_takes_it() if stacked else contextlib.nullcontext():
                        state = (torch.func.vmap(one) if stacked else one)(state, lifted, rows)
                return state, torch.func.vmap(results)(state) if stacked else results(state)

        return run

    def predict(self, forward: Any, trainable: list[Any], others: list[Any], x: Any) -> Callable[..., Any]:
        import torch

        def run(trainable: list[Any], others: list[Any], x: Any) -> Any:
            with _ONE_TRACE_AT_A_TIME, torch.no_grad():  # it goes through the template's own layers each time
                return forward(trainable, others, x)

        return run

    def for_each(self, function: Callable[..., Any], example: Any) -> Callable[..., list[list[Any]]] | None:
        return None


class _Backends:
    """A class for each backend of Keras that has one."""

    tensorflow = _TensorFlow
    jax = _Jax
    torch = _Torch


@functools.cache
def _backend() -> Any:
    import keras

    return getattr(_Backends, keras.config.backend())()
