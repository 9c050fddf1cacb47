"""One step of training as a pure function, and an epoch of it as one program, for one model or for many at once.

A Keras model keeps its state in variables, and Keras traces a new program for every model. Here the state is an
argument and a result, so that one trace serves all models of a structure, one after another or, with a leading axis on
every part of the state, all of them in one step. A step does what `Model.train_step` does, in the same order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._cache import Cache
from kerastoolkit._keras import NotPureError
from kerastoolkit.training import _backends, _dense
from kerastoolkit.training._backends.base import TRACING_LOCK, ArrayBackend, CompiledSteps, Steps
from kerastoolkit.training._backends.numpy import NumPyBackend
from kerastoolkit.training._costs import Costs, CostsInNumPy
from kerastoolkit.training._hyperparameters import traced_in_place
from kerastoolkit.training._optimizer import PureOptimizer
from kerastoolkit.training._purity import no_other_assignments, no_side_effects
from kerastoolkit.training._state import (
    Array,
    EpochInputs,
    Kind,
    Samples,
    State,
    StepInputs,
    Tensor,
    as_array,
    assign,
    form_of,
    tree_map,
    values_of,
)
from kerastoolkit.training._structure import OptimizerLike

if TYPE_CHECKING:
    import keras


# Programs of whole epochs that are kept for a structure, each for one number of rows.
_MAX_PROGRAMS_OF_EPOCHS = 8

# Forms of data for which the programs of a structure are kept, in training and in prediction.
_MAX_FORMS = 32

# What a program is for: its kind, whether it is for many models, whether its steps are light, the slots of the
# hyper-parameters that are passed as tensors, and the form of the data.
_Key = tuple[Kind, bool, bool, tuple[int, ...], Any]


@dataclasses.dataclass(eq=False)
class _Form:
    """The program for one form of data, and what is known of it.

    Attributes:
        steps: The program; None before it is made, and after it failed.
        has_run: Whether it has run successfully.
        refused: Why it cannot be made, in words; None if it can.
        by_xla: The program compiled by XLA; None before it is compiled.
        is_not_for_xla: Whether XLA cannot compile it.
        is_not_for_epochs: Whether XLA cannot compile whole epochs of it.
    """

    steps: CompiledSteps | None = None
    has_run: bool = False
    refused: str | None = None
    by_xla: Callable[..., tuple[State, Any]] | None = None
    is_not_for_xla: bool = False
    is_not_for_epochs: bool = False


class OutOfMemoryError(NotPureError):
    """There was not enough memory for a program, which may run for fewer models."""


class Forward:
    """The output of models of one structure, in inference mode.

    Args:
        template: A built model of the structure.
    """

    def __init__(self, template: keras.Model) -> None:
        self._template = template
        self._compiled: Cache[Any, Callable[..., Tensor]] = Cache(_MAX_FORMS)
        self.chain = _dense.chain_of(template)

    def __call__(self, trainable: list[Tensor], others: list[Tensor], x: Any) -> Any:
        """Output of a model with these variables for a batch of rows."""
        if self.chain is not None and self.chain.takes(x):
            return self.chain.output([as_array(value) for value in (*trainable, *others)], x)
        form = form_of(x)
        compiled = self._compiled.find(form)
        if compiled is None:
            with TRACING_LOCK:
                compiled = self._compiled.find(form)
                if compiled is None:
                    made = _backends.current().predict(self._output, trainable, others, x)
                    compiled = self._compiled.keep(form, made)
        return compiled(trainable, others, x)

    def _output(self, trainable: list[Tensor], others: list[Tensor], x: object) -> Any:
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
        template: A built and compiled model of the structure. The programs read the shapes of its variables, and never
            assign to them.
        slots: The hyper-parameters that may differ between models of the structure: `(object, attribute)`.
    """

    def __init__(self, template: keras.Model, slots: Sequence[tuple[Any, str]]) -> None:
        self.template = template
        self.slots = list(slots)
        self._optimizer = PureOptimizer(template)
        # The step uses a copy of the optimizer that the template was compiled with.
        self._traceable = [
            (self._optimizer.optimizer if owner is template.optimizer else owner, name) for owner, name in slots
        ]
        self._numbers = [float(getattr(owner, name)) for owner, name in self._traceable]
        self._traced_sets: list[set[int]] = []
        self._fresh_metrics: list[Array] | None = None
        self._fresh_optimizer: list[Array] | None = None
        self.forward = Forward(template)
        self._backend = _backends.current()
        self._arrays: ArrayBackend = self._backend
        self.costs = Costs(template, self._backend)
        self._forms: Cache[_Key, _Form] = Cache(_MAX_FORMS)
        self._of_epochs_kept: Cache[Any, Callable[..., tuple[State, Any]]] = Cache(_MAX_PROGRAMS_OF_EPOCHS)

    @functools.cached_property
    def place_of_rate(self) -> int | None:
        """Index of the learning rate in the state of the optimizer; None for a schedule."""
        rate = _keras.rate_of(self._optimizer.optimizer)
        places = [place for place, variable in enumerate(self._optimizer.variables) if variable is rate]
        return places[0] if places else None

    @property
    def compiles_each_size(self) -> bool:
        """Whether each number of models needs compiling."""
        return self._arrays.compiles_each_size

    @property
    def steps_a_call(self) -> int:
        """Steps of the first call, which cannot be interrupted."""
        return self._arrays.steps_a_call

    @functools.cached_property
    def in_numpy(self) -> ProgramInNumPy | None:
        """The same steps written out in numpy; None where some part of the structure is not written out."""
        names = self._optimizer.names
        steps = _dense.steps_of(self.template, self.forward.chain, self.slots, names)
        return None if steps is None else ProgramInNumPy(self, steps)

    # -- what the outside calls ----------------------------------------------------------------------------------

    def to_trace(self, values: Sequence[Sequence[float]]) -> list[int]:
        """The slots whose values are passed as tensors; a value that all models share with the template is a constant.

        Constants need fewer operations, but each choice of slots needs a program: hence all slots from the third
        choice on.

        Args:
            values: The values of each model, one for each slot.
        """
        differ = {slot for slot, number in enumerate(self._numbers) if any(one[slot] != number for one in values)}
        if not differ:
            return []
        known = next((traced for traced in self._traced_sets if differ <= traced), None)
        if known is None:
            known = set(range(len(self.slots))) if self._traced_sets else differ
            self._traced_sets.append(known)
        return sorted(known)

    def state_of(self, model: keras.Model) -> State:
        """The state of a model of this structure, as numpy arrays."""
        return State(
            values_of(model.trainable_variables),
            values_of(model.non_trainable_variables),
            self._optimizer.packed(values_of(model.optimizer.variables)),
            [],
        )

    def assign(self, model: keras.Model, state: State) -> None:
        """Sets the variables of a model of this structure."""
        assign(model, state._replace(optimizer=self._optimizer.unpacked(state.optimizer)))

    def fresh_optimizer(self, given: keras.optimizers.Optimizer | OptimizerLike) -> list[Array]:
        """The state of the optimizer before training, with the learning rate of a given optimizer."""
        if self._fresh_optimizer is None:
            self._fresh_optimizer = values_of(self._optimizer.variables)
        place = self.place_of_rate
        state = list(self._fresh_optimizer)
        if place is not None:
            rate = given.learning_rate
            state[place] = np.asarray(rate if isinstance(rate, float) else as_array(rate.value), state[place].dtype)
        return state

    def values_with(
        self, values: Sequence[float], optimizer: keras.optimizers.Optimizer | OptimizerLike
    ) -> list[float]:
        """The values of a model that has these, but another optimizer."""
        return [
            float(getattr(optimizer, name)) if owner is self.template.optimizer else value
            for (owner, name), value in zip(self.slots, values, strict=True)
        ]

    def fresh_metrics(self) -> list[Array]:
        """The state of the metrics before an epoch, as numpy arrays."""
        if self._fresh_metrics is None:
            variables = self.template.metrics_variables
            with _scope(list(zip(variables, [v.value for v in variables], strict=True))) as scope:
                self.template.reset_metrics()
            self._fresh_metrics = [as_array(scope.get_current_value(v)) for v in variables]
        return self._fresh_metrics

    def run(self, kind: Kind, inputs: StepInputs, *, stacked: bool, light: bool, by_xla: int = 0) -> tuple[State, Any]:
        """Trains on batches of rows, or evaluates them.

        Args:
            kind: `"train"` or `"test"`.
            inputs: The models and their batches.
            stacked: Whether there is an axis of models.
            light: Whether the steps are light; see `Costs.is_light`.
            by_xla: Number of models in each call of a program compiled by XLA, where that is possible; 0 to use
                TensorFlow's own operations. Defaults to `0`.

        Returns:
            The new state and the results of the metrics by name.

        Raises:
            OutOfMemoryError: There was not enough memory.
            NotPureError: The step cannot be a program, or the program failed. The template is unchanged.
        """
        key = (kind, stacked, light, tuple(inputs.traced), form_of(inputs.data))
        form = self._forms.find_or_make(key, _Form)
        try:
            if form.steps is None or not form.has_run:
                return self._run_at_first(form, key, inputs)
            result = self._run_by_xla(form, by_xla, inputs, stacked=stacked) if by_xla else None
            return result or form.steps(*inputs)
        except Exception as error:
            is_for_memory = self.lacked_memory(error)
            reason = _reason(error, stacked=stacked, for_memory=is_for_memory)
            with TRACING_LOCK:
                form.steps = None
                if not form.has_run and not is_for_memory and self._backend.is_of_the_program(error):
                    form.refused = reason
            raise (OutOfMemoryError if is_for_memory else NotPureError)(reason) from error

    def lacked_memory(self, error: BaseException) -> bool:
        """Whether an error, of this program or of the backend, means that there was not enough memory."""
        return isinstance(error, OutOfMemoryError) or self._backend.is_out_of_memory(error)

    def _run_at_first(self, form: _Form, key: _Key, inputs: StepInputs) -> tuple[State, Any]:
        """Makes the program and runs it, unless that is known to fail."""
        with TRACING_LOCK:
            if form.refused is not None:
                raise NotPureError(form.refused)
            # The first call runs all code of the model. Its side effects would be lost, or shared with other models.
            with contextlib.nullcontext() if form.has_run else no_side_effects(self.template):
                if form.steps is None:
                    form.steps = self._compiled(key, inputs.data)
                result = form.steps(*inputs)
            form.has_run = True
            return result

    def _run_by_xla(self, form: _Form, n_models: int, inputs: StepInputs, *, stacked: bool) -> tuple[State, Any] | None:
        """The same steps compiled by XLA; None if it cannot compile them, or has not enough memory now."""
        if form.is_not_for_xla:
            return None
        try:
            with TRACING_LOCK:
                if form.by_xla is None and form.steps is not None:
                    form.by_xla = self._backend.by_xla(form.steps, stacked=stacked)
                if form.by_xla is None:
                    form.is_not_for_xla = True
                    return None
            return form.by_xla(n_models, *inputs)
        except Exception as error:
            if not self._backend.is_out_of_memory(error):  # an operation unknown to XLA
                form.is_not_for_xla, form.by_xla = True, None
            return None

    def of_epochs(
        self, data: Samples, traced: Sequence[int], lengths: set[int], *, size: int, light: bool
    ) -> Callable[[EpochInputs], tuple[State, Any] | None] | None:
        """A function that trains some models of a stack for some epochs with XLA, on one core of the processor.

        It does the same as `run`, which must have trained models like these before.

        Args:
            data: All rows, shared by all models.
            traced: The slots whose values differ between models.
            lengths: The numbers of rows that models have.
            size: Rows of a batch.
            light: As for `run`.

        Returns:
            A function from `EpochInputs`, with no more epochs than `epochs_a_call`, to the new state and the results of
            the metrics by name, with the epochs along their second axis. It returns None where XLA fails; None instead
            of the function where XLA cannot compile the epochs.
        """
        key: _Key = ("train", True, light, tuple(traced), form_of(data))
        form = self._forms.find_or_make(key, _Form)
        try:
            # Not in the threads of `on_each_core`: a thread that holds this lock may wait for one of them.
            with TRACING_LOCK:
                if form.is_not_for_epochs or form.steps is None:
                    return None
                programs = {n_rows: self._of_epochs(form.steps, key, size, n_rows) for n_rows in lengths}
        except Exception as error:
            form.is_not_for_epochs = not self._backend.is_out_of_memory(error)  # an unknown operation
            return None

        def run(inputs: EpochInputs) -> tuple[State, Any] | None:
            try:
                program = programs[inputs.permutations.shape[-1]]
                return program(inputs.state, inputs.traced, data, inputs.permutations, inputs.offsets)
            except Exception as error:  # XLA compiles it when it is first called
                form.is_not_for_epochs = form.is_not_for_epochs or not self._backend.is_out_of_memory(error)
                return None

        return run

    def _of_epochs(self, steps: CompiledSteps, key: _Key, size: int, n_rows: int) -> Callable[..., tuple[State, Any]]:
        return self._of_epochs_kept.find_or_make(
            (key, size, n_rows), lambda: self._backend.epochs_by_xla(steps, size, n_rows)
        )

    # -- arrays and tensors --------------------------------------------------------------------------------------

    def tensor(self, value: Array) -> Tensor:
        """An array as a tensor of the backend."""
        return self._arrays.tensor(value)

    def tensors(self, values: object) -> Any:
        """All arrays of a structure as tensors."""
        return tree_map(self._arrays.tensor, values)

    def arrays(self, values: object) -> Any:
        """All tensors of a structure as arrays."""
        return tree_map(as_array, values)

    def take(self, values: object, members: Array) -> Any:
        """Some models of stacked tensors."""
        return tree_map(lambda value: self._arrays.take(value, members), values)

    def cut(self, values: object, first: int, end: int) -> list[Any]:
        """Stacked tensors cut in three: the models before `first`, those before `end`, and the others."""
        import keras

        parts = zip(*[self._arrays.cut(value, first, end) for value in keras.tree.flatten(values)], strict=True)
        return [keras.tree.pack_sequence_as(values, part) for part in parts] or [values] * 3

    def joined(self, *parts: object) -> Any:
        """Joins what `cut` has cut."""
        return tree_map(lambda *values: self._arrays.joined(values), *parts)

    def put(self, values: object, members: Array, part: object) -> Any:
        """Stacked tensors with some models replaced."""
        return tree_map(lambda value, new: self._arrays.put(value, members, new), values, part)

    # -- what a search asks --------------------------------------------------------------------------------------

    def weight_places(self) -> list[tuple[str, int]]:
        """Place of each of `Model.weights` in a state: the name of the list, and the index in it."""
        model = self.template
        places = {id(v): ("trainable", number) for number, v in enumerate(model.trainable_variables)}
        places |= {id(v): ("others", number) for number, v in enumerate(model.non_trainable_variables)}
        return [places[id(v)] for v in model.weights]

    def finalized(self, state: State) -> list[Tensor] | None:
        """Trainable weights as the optimizer leaves them at the end (averages); None if it does not change them."""
        optimizer = self._optimizer.optimizer
        if not optimizer.use_ema:
            return None
        places = {id(variable): place for place, variable in enumerate(optimizer.variables)}
        averages = [places.get(id(average)) for average in _keras.averages_of(optimizer)]
        return [
            value if place is None else state.optimizer[place]
            for value, place in zip(state.trainable, averages, strict=True)
        ]

    def has_traced(self, data: Samples, *, stacked: bool = False) -> bool:
        """Whether the program that trains many models, or one, has been traced."""
        wanted = "train", stacked, form_of(data)
        return any((key[0], key[1], key[-1]) == wanted and form.steps is not None for key, form in self._forms.items())

    def unstackable(self) -> str | None:
        """Why models cannot be trained together, in words; None unless that is known already."""
        refused = (form.refused for (_, stacked, *_), form in self._forms.items() if stacked and form.refused)
        return next(refused, None)

    # -- the steps -----------------------------------------------------------------------------------------------

    def _compiled(self, key: _Key, data: Samples) -> CompiledSteps:
        kind, stacked, light, slots, _ = key
        step = self._train_step if kind == "train" else self._test_step
        steps = Steps(step, self._results, self._example(), data, slots, stacked=stacked, light=light)
        return self._backend.compile(steps)

    def _example(self) -> State:
        return State(
            self.template.trainable_variables,
            self.template.non_trainable_variables,
            self._optimizer.variables,
            self.template.metrics_variables,
        )

    def _train_step(self, state: State, traced: dict[int, Tensor], rows: Samples) -> State:
        with traced_in_place(self._traceable, traced, self._backend):

            def loss_of(trainable: list[Tensor]) -> tuple[Tensor, Any]:
                output, loss, others, metrics = self._loss(State(trainable, *state[1:]), rows, training=True)
                return self._optimizer.optimizer.scale_loss(loss), (output, loss, others, metrics)

            gradients, (output, loss, others, metrics) = self._backend.gradients(loss_of, state.trainable)
            trainable, optimizer = self._optimizer.apply(state.optimizer, gradients, state.trainable)
        metrics = self._count(State(trainable, others, optimizer, metrics), rows, output, loss)
        return State(list(trainable), others, list(optimizer), metrics)

    def _test_step(self, state: State, traced: dict[int, Tensor], rows: Samples) -> State:
        with traced_in_place(self._traceable, traced, self._backend):
            output, loss, others, metrics = self._loss(state, rows, training=False)
        state = State(state.trainable, others, state.optimizer, metrics)
        return state._replace(metrics=self._count(state, rows, output, loss))

    def _loss(self, state: State, rows: Samples, *, training: bool) -> tuple[Any, Tensor, list[Tensor], list[Tensor]]:
        model = self.template
        with _scope(self._mapping(state), collect_losses=True) as scope, no_other_assignments(self.template, scope):
            output = _keras.output_of(model, rows.x, training=training)
            loss = _keras.loss_of(model, rows, output, training=training)
        others = _updated(scope, model.non_trainable_variables, state.others)
        return output, loss, others, _updated(scope, model.metrics_variables, state.metrics)

    def _count(self, state: State, rows: Samples, output: object, loss: Tensor) -> list[Tensor]:
        import keras

        model = self.template
        with _scope(self._mapping(state)) as scope, no_other_assignments(self.template, scope):
            first = next(part for part in keras.tree.flatten(rows.x) if part is not None)
            _keras.count_loss(model, loss, keras.ops.shape(first)[0])
            model.compute_metrics(rows.x, rows.y, output, sample_weight=rows.weights)
        return _updated(scope, model.metrics_variables, state.metrics)

    def _results(self, state: State) -> dict[str, Tensor]:
        with _scope(self._mapping(state)):
            return dict(self.template.get_metrics_result())

    def _mapping(self, state: State) -> list[tuple[keras.Variable, Tensor]]:
        model = self.template
        return (
            _pairs(model.trainable_variables, state.trainable)
            + _pairs(model.non_trainable_variables, state.others)
            + _pairs(model.metrics_variables, state.metrics)
        )


class ProgramInNumPy(Program):
    """A program whose steps are written out in numpy, so that nothing is traced.

    Args:
        program: The program of the structure.
        steps: Its steps.
    """

    def __init__(self, program: Program, steps: _dense.NumPySteps) -> None:
        vars(self).update(vars(program))
        self._arrays, self._steps = NumPyBackend(), steps
        self.costs = CostsInNumPy(program.template, program._backend, steps)

    def takes(self, data: Samples) -> bool:
        """Whether it trains on these data as Keras would."""
        return self._steps.takes(*data)

    def run(self, kind: Kind, inputs: StepInputs, *, stacked: bool, **_: object) -> tuple[State, Any]:
        state, traced, data, indices, offsets = inputs
        if not stacked:
            state, traced, indices, offsets = tree_map(
                lambda value: np.asarray(value)[None], (state, traced, indices, offsets)
            )
        *after, results = self._steps.run(
            kind, state.trainable, state.optimizer, state.metrics, traced, data, indices, offsets
        )
        state = State(after[0], state.others, *after[1:])
        return (state, results) if stacked else tree_map(lambda value: value[0], (state, results))

    def arrays(self, values: object) -> Any:
        return values


def _reason(error: Exception, *, stacked: bool, for_memory: bool) -> str:
    """What an error of a program says, as the reason why models are trained in another way."""
    if isinstance(error, NotPureError):
        return str(error)
    if for_memory:
        what = "models of it together" if stacked else "a program of it"
        return f"there was not enough memory for {what} ({type(error).__name__})"
    # Keras puts the layer before the error, in colours, and what the layer received after it.
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    # TensorFlow says where in the graph and in the code it was before it says what it was.
    lines = [line for line in lines if not re.match(r"Graph execution error|Detected at node|File \"|\[\[", line)]
    where = re.match(r"Exception encountered when calling (\w+)", lines[0]) if lines else None
    said = lines[1 if where and len(lines) > 1 else 0][:200] if lines else ""
    what = "models of it cannot take a step together" if stacked else "a step of it cannot be a program"
    return f"{what} ({f'{where[1]}: ' if where else ''}{type(error).__name__}{f': {said}' if said else ''})"


def _pairs(variables: Sequence[keras.Variable], values: Sequence[Tensor]) -> list[tuple[keras.Variable, Tensor]]:
    return list(zip(variables, values, strict=True))


def _scope(mapping: list[tuple[keras.Variable, Tensor]], *, collect_losses: bool = False) -> keras.StatelessScope:
    import keras

    return keras.StatelessScope(state_mapping=mapping, collect_losses=collect_losses)


def _updated(
    scope: keras.StatelessScope, variables: Sequence[keras.Variable], before: Sequence[Tensor]
) -> list[Tensor]:
    after = [scope.get_current_value(variable) for variable in variables]
    return [old if new is None else new for old, new in zip(before, after, strict=True)]
