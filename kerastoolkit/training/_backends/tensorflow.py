"""TensorFlow: a graph with a loop over the steps, and all that is private to TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit._keras import NotPureError
from kerastoolkit.training._backends.base import TRACING_LOCK, Backend, CompiledSteps, Predict, Steps
from kerastoolkit.training._state import (
    Array,
    Samples,
    State,
    Tensor,
    as_array,
    epochs_a_call,
    tree_leaves,
    tree_map,
    tree_unflatten,
)
from kerastoolkit.training._threads import workers

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# What a step takes in TensorFlow's own operations, in seconds: for one model, and for each multiplication forward; then
# for a stack (light or not), for each of its models, and for each multiplication forward of a model.
_STEP_ALONE, _MULTIPLICATION_ALONE = 100e-6, 1.5e-10
_LIGHT_STEP_STACKED, _STEP_STACKED, _MODEL_STACKED, _MULTIPLICATION_STACKED = 150e-6, 400e-6, 20e-6, 1e-10


class TensorFlowBackend(Backend):
    """Graphs: a loop over the steps around the step, or around the step vectorised over the models."""

    steps_a_call = 64  # at first: a call cannot be interrupted, so that it should not take long
    compiles_each_size = False
    stacks_loops_slowly = True

    def __init__(self) -> None:
        import tensorflow as tf

        self.has_xla = not tf.config.list_physical_devices("GPU")  # measured on processors alone

    def seconds_of_a_step(self, n_models: int, multiplications: int, *, stacked: bool, light: bool) -> float:
        if not stacked:
            return n_models * (_STEP_ALONE + _MULTIPLICATION_ALONE * multiplications)
        step = _LIGHT_STEP_STACKED if light else _STEP_STACKED
        return step + n_models * (_MODEL_STACKED + _MULTIPLICATION_STACKED * multiplications)

    def tensor(self, value: Array) -> Tensor:
        import tensorflow as tf

        return tf.convert_to_tensor(value)

    def take(self, value: Tensor, members: Array) -> Tensor:
        import tensorflow as tf

        return tf.gather(value, members)

    def cut(self, value: Tensor, first: int, end: int) -> Sequence[Tensor]:
        import tensorflow as tf

        return list(tf.split(value, [first, end - first, value.shape[0] - end]))

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        import tensorflow as tf

        return tf.concat(values, 0)

    def put(self, value: Tensor, members: Array, part: Tensor) -> Tensor:
        import tensorflow as tf

        return tf.tensor_scatter_nd_update(value, members[:, None], part)

    def convert(self, value: Any, dtype: Any) -> Tensor:
        import tensorflow as tf

        return tf.cast(value, dtype or tf.float32)

    def is_out_of_memory(self, error: BaseException) -> bool:
        import tensorflow as tf

        return isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)

    def is_of_the_program(self, error: Exception) -> bool:
        import tensorflow as tf

        return not isinstance(error, tf.errors.OpError)

    def dropout(self, inputs: Tensor, rate: Tensor, seed: Tensor) -> Tensor:
        import tensorflow as tf

        seed = tf.cast(tf.math.floormod(seed, tf.int32.max - 1), "int32")  # as Keras does
        return tf.nn.experimental.stateless_dropout(inputs, rate=rate, seed=seed)

    def gradients(
        self, loss_of: Callable[[list[Tensor]], tuple[Tensor, Any]], trainable: list[Tensor]
    ) -> tuple[list[Tensor], Any]:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            loss, rest = loss_of(trainable)
        gradients = tape.gradient(loss, trainable)
        for gradient, value in zip(gradients, trainable, strict=True):
            if isinstance(gradient, tf.Tensor):  # a batch of unknown size makes TensorFlow forget the shape
                gradient.set_shape(value.shape)
        return gradients, rest

    def compile(self, steps: Steps) -> CompiledSteps:
        import tensorflow as tf

        step, results, example, data, traced, stacked, light = steps
        lead = [None] if stacked else []

        def spec(variable: keras.Variable) -> tf.TensorSpec:
            return tf.TensorSpec([*lead, *variable.shape], variable.dtype)

        state_spec = State(*([spec(variable) for variable in part] for part in example))
        traced_spec = {slot: tf.TensorSpec(lead, tf.float64) for slot in traced}
        data_spec = tree_map(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), data)
        offsets_spec = tree_map(lambda part: tf.TensorSpec(lead, tf.int32), data)
        indices_spec = tf.TensorSpec([*lead, None, None], tf.int32)
        specs = [state_spec, traced_spec, data_spec, indices_spec, offsets_spec]
        flat_specs = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32), *tree_leaves(specs)]
        n_state = len(tree_leaves([state_spec]))
        template = tree_map(lambda part: 0, data)  # not the data itself, which would live as long as the program

        def one(arguments: Any) -> Any:
            state, traced, parts = arguments
            return step(state, traced, tree_unflatten(template, parts))

        def body(number: Tensor, steps: Tensor, *flat: Tensor) -> list[Tensor]:
            state, traced, data, indices, offsets = tree_unflatten(specs, flat)
            batch = indices[:, number] if stacked else indices[number]

            def take(part: Tensor, offset: Tensor) -> Tensor:
                return tf.gather(part, batch + (offset[:, None] if stacked else offset))

            arguments = (state, traced, tree_leaves(tree_map(take, data, offsets)))
            state = _for_all(one, arguments, tf.shape(indices)[0]) if stacked else one(arguments)
            return [number + 1, steps, *tree_leaves([state]), *flat[n_state:]]

        def run(state: State, traced: dict[int, Tensor], data: Samples, indices: Tensor, offsets: Samples) -> Any:
            flat = [tf.constant(0), tf.shape(indices)[-2], *tree_leaves([state, traced, data, indices, offsets])]
            loop = _light_loop if light else _loop
            after = loop(lambda number, steps, *_: number < steps, body, flat, flat_specs)
            state = tree_unflatten([state_spec], after[2 : 2 + n_state])[0]
            return state, _for_all(results, state, tf.shape(indices)[0]) if stacked else results(state)

        return _TracedFunction(run, specs)

    def by_xla(self, program: CompiledSteps, *, stacked: bool) -> Callable[..., tuple[State, Any]] | None:
        import tensorflow as tf

        compiled = program.by_xla()  # type: ignore[attr-defined]
        if compiled is None or not stacked:
            return compiled and (lambda n_models, *arguments: compiled(*arguments))

        def run(
            size: int, state: State, traced: dict[int, Tensor], data: Samples, indices: Tensor, offsets: Samples
        ) -> Any:
            n_models = len(indices)
            n_calls = -(-n_models // size)
            full = n_calls * size == n_models
            # The last call is filled up: a program for fewer models would be compiled anew.
            filled = np.minimum(np.arange(n_calls * size), n_models - 1)

            def parts_of(some: Any) -> list[Any]:
                return [tf.split(value if full else tf.gather(value, filled), n_calls) for value in tree_leaves(some)]

            before, after = parts_of([state, traced]), parts_of([indices, offsets])
            shared = tree_leaves([data])
            calls = [
                [*(parts[number] for parts in before), *shared, *(parts[number] for parts in after)]
                for number in range(n_calls)
            ]
            results = list(workers().map(lambda call: compiled(*call), calls))
            return tree_map(lambda *parts: self.joined(parts) if full else self.joined(parts)[:n_models], *results)

        return run

    def epochs_by_xla(self, program: CompiledSteps, size: int, n_rows: int) -> Callable[..., tuple[State, Any]]:
        return program.epochs_by_xla(size, n_rows)  # type: ignore[attr-defined,no-any-return]

    def predict(self, forward: Predict, trainable: list[Tensor], others: list[Tensor], x: Any) -> Predict:
        import tensorflow as tf

        weights_spec = [[tf.TensorSpec(value.shape, value.dtype) for value in part] for part in (trainable, others)]
        x_spec = tree_map(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), x)
        return _TracedFunction(forward, [*weights_spec, x_spec])

    def for_each(
        self, function: Callable[[Any], list[Tensor]], example: Array
    ) -> Callable[[Array], Sequence[Sequence[Array]]] | None:
        """A function of an array to a list of arrays, compiled for many."""
        import tensorflow as tf

        results = [tf.TensorSpec(value.shape, value.dtype) for value in function(tf.constant(example))]

        def all_of(many: Any) -> Any:
            return tf.map_fn(function, many, fn_output_signature=results)

        compiled = _TracedFunction(all_of, [tf.TensorSpec([None, *example.shape], example.dtype)])
        return lambda many: list(zip(*map(as_array, compiled(many)), strict=True))


def _loop(
    goes_on: Callable[..., Tensor], body: Callable[..., list[Tensor]], values: list[Tensor], specs: list[tf.TensorSpec]
) -> list[Tensor]:
    """A loop whose steps become part of the program around it, with oneDNN's operations in it."""
    import tensorflow as tf

    return list(tf.while_loop(goes_on, body, values, parallel_iterations=1))


def _light_loop(
    goes_on: Callable[..., Tensor], body: Callable[..., list[Tensor]], values: list[Tensor], specs: list[tf.TensorSpec]
) -> list[Tensor]:
    """A loop that calls its steps as a function, which TensorFlow does not rewrite for oneDNN.

    An operation of oneDNN takes some 50 microseconds before it begins to compute: longer than a small product takes.
    """
    import tensorflow as tf

    def traced(function: Callable[..., Any], specs: list[Any]) -> Any:
        return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()

    step = traced(body, specs)
    outside = step.captured_inputs
    if outside:  # constants of the layers, which must be arguments of such a loop as everything else
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


def _for_all(function: Callable[[Any], Any], arguments: Any, n_models: Tensor) -> Any:
    """What a function makes of each model's part of the arguments, for all models at once.

    `tf.vectorized_map` does the same, but unstacks and restacks every part of the state in every step.
    """
    import tensorflow as tf

    pfor = _pfor()
    if pfor is None:
        return tf.vectorized_map(function, arguments)
    with _more_converters(pfor):
        graph = tf.compat.v1.get_default_graph()
        before = set(graph.get_operations())
        number = tf.compat.v1.placeholder_with_default(0, [])

        def of_one(stacked: Tensor) -> Tensor:
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
    """The module that `tf.vectorized_map` is made of; None if this TensorFlow's is not as it is used here."""
    try:
        from tensorflow.python.ops.parallel_for import pfor

        parameters = inspect.signature(pfor.PFor).parameters
        names = pfor._pfor_converter_registry, pfor.PFor._add_conversion, pfor.PFor.convert, pfor._tile_variant
    except (AttributeError, ImportError):
        return None
    needed = {"loop_var", "loop_len", "pfor_ops", "fallback_to_while_loop", "warn"}
    return pfor if needed <= set(parameters) and all(names) else None


@contextlib.contextmanager
def _more_converters(pfor: Any) -> Iterator[None]:
    """A block in which this thread vectorises three operations in a way of its own; TensorFlow's is put back after."""
    with TRACING_LOCK:
        before = pfor._pfor_converter_registry
        pfor._pfor_converter_registry = _Converters(before, _own_converters(pfor))
        try:
            yield
        finally:
            pfor._pfor_converter_registry = before


class _Converters:
    """TensorFlow's registry of converters; the thread that made it finds its own first.

    Args:
        known: TensorFlow's registry, which other threads go on to read and to write.
        own: Converters for this thread.
    """

    def __init__(self, known: dict[str, Callable[[Any], Any]], own: dict[str, Callable[[Any], Any]]) -> None:
        self._known, self._own, self._thread = known, own, threading.get_ident()

    def get(self, name: str, default: Any = None) -> Any:
        if threading.get_ident() == self._thread and name in self._own:
            return self._own[name]
        return self._known.get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self._known[name]

    def __setitem__(self, name: str, converter: Callable[[Any], Any]) -> None:
        self._known[name] = converter

    def __contains__(self, name: object) -> bool:
        return name in self._known


def _own_converters(pfor: Any) -> dict[str, Callable[[Any], Any]]:
    """How three operations are vectorised here.

    TensorFlow bitcasts one model after another. Keras' `argmax` has that in it, so that counting an accuracy would take
    longer than the step. It makes no zeros like a list of tensors, and takes a shape that is not known for that of a
    number; the gradient of a recurrent layer needs both, if there is something to train before it.
    """
    import tensorflow as tf

    zeros_like = pfor._pfor_converter_registry["ZerosLike"]
    shape_of_elements = pfor._pfor_converter_registry["TensorListElementShape"]

    def bitcast(given: Any) -> Any:
        return pfor.wrap(tf.bitcast(given.stacked_input(0), given.get_attr("type")), True)

    def zeros(given: Any) -> Any:
        value = given.stacked_input(0)
        if value.dtype != tf.variant:
            return zeros_like(given)
        found = tf.raw_ops.ZerosLike(x=pfor._untile_variant(value))  # a list of stacks, not a stack of lists
        return pfor.wrap(pfor._tile_variant(found, given), True)

    def element_shape(given: Any) -> Any:
        of_one, dtype = given.outputs[0].shape, given.get_attr("shape_type")
        if of_one.rank == 0:
            return pfor.wrap(tf.constant(-1, dtype), False)  # nothing is known of it
        if not of_one.is_fully_defined():
            return shape_of_elements(given)
        # Of a stack nothing is known where not all is known.
        handle = pfor._untile_variant(given.stacked_input(0))
        shape = tf.reshape(tf.raw_ops.TensorListElementShape(input_handle=handle, shape_type=dtype), [-1])
        return pfor.wrap(tf.concat([shape[1:], tf.fill(of_one, tf.constant(-1, dtype))], 0)[: of_one[0]], False)

    return {"Bitcast": bitcast, "ZerosLike": zeros, "TensorListElementShape": element_shape}


class _TracedFunction:
    """A TensorFlow function traced once for arguments of these forms, in which None may stand for a part.

    Args:
        function: The function.
        specs: A `tf.TensorSpec` for each tensor of each of its arguments.
    """

    def __init__(self, function: Callable[..., Any], specs: list[Any]) -> None:
        import tensorflow as tf

        def flat(*tensors: Any) -> Any:
            return function(*tree_unflatten(specs, tensors))

        self._specs, self._lengths = tree_leaves(specs), [len(tree_leaves([part])) for part in specs]
        with _without_advice():
            traced = tf.function(flat, input_signature=self._specs, autograph=False).get_concrete_function()
            _refuse_side_effects(traced)
        self._traced = traced
        # The same without looking through the arguments again, which takes longer than a small step.
        self._run = getattr(getattr(traced, "inference_fn", None), "call_preflattened", None)

    def __call__(self, *arguments: Any) -> Any:
        given = tree_leaves(list(arguments))
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
            tensors = map(_tensor_like, tree_leaves(list(arguments)), self._specs)
            return tf.nest.pack_sequence_as(structure, compiled(*tensors, *captured))

        return call

    def epochs_by_xla(self, size: int, n_rows: int) -> Callable[..., Any]:
        """Epochs of the stacked step that was traced, compiled by XLA for each number of models anew."""
        import tensorflow as tf

        max_epochs = epochs_a_call(n_rows, size)
        captured = self._traced.captured_inputs
        inner = self._traced.inference_fn.call_flat
        structure = self._traced.structured_outputs
        n_metrics = len(structure[0].metrics)
        n_state, *lengths, _, _ = self._lengths
        place = n_state + sum(lengths)  # of the order among the arguments
        results_spec = [tf.TensorSpec(value.shape, value.dtype) for value in tree_leaves([structure[1]])]
        whole, rest = divmod(n_rows, size)

        def epochs(n_epochs: Tensor, permutations: Tensor, *flat: Tensor) -> list[Tensor]:
            n_models = tf.shape(permutations)[0]
            fresh = flat[n_state - n_metrics : n_state]

            def epoch(
                number: Tensor, state: list[Tensor], kept: list[Tensor]
            ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
                indices = tf.gather(permutations, number, axis=1)
                batches = [tf.reshape(indices[:, : whole * size], [n_models, whole, size])] if whole else []
                batches += [indices[:, None, whole * size :]] if rest else []
                state, results = [*state[:-n_metrics], *fresh], []
                for batch in batches:
                    found = inner(*state, *flat[n_state:place], batch, *flat[place:])
                    state, results = found[:n_state], found[n_state:]
                now = tf.range(max_epochs) == number
                kept = [
                    tf.where(tf.reshape(now, [1, max_epochs] + [1] * (len(one.shape) - 1)), one[:, None], before)
                    for before, one in zip(kept, results, strict=True)
                ]
                return number + 1, list(state), kept

            none = [tf.zeros([n_models, max_epochs, *spec.shape[1:]], spec.dtype) for spec in results_spec]
            _, state, kept = tf.while_loop(
                lambda number, *_: number < n_epochs, epoch, (tf.constant(0), list(flat[:n_state]), none)
            )
            return [*state, *kept]

        specs = [*self._specs[:place], *self._specs[place + 1 :]]
        specs_outside = [tf.TensorSpec(value.shape, value.dtype) for value in captured]
        own = [tf.TensorSpec([], tf.int32), tf.TensorSpec([None, max_epochs, n_rows], tf.int32)]
        with _without_advice():
            outer = tf.function(
                epochs, input_signature=[*own, *specs, *specs_outside], autograph=False, jit_compile=True
            )
            compiled = outer.get_concrete_function().inference_fn.call_flat

        def call(state: State, traced: dict[int, Tensor], data: Samples, permutations: Array, offsets: Samples) -> Any:
            tensors = map(_tensor_like, tree_leaves([state, traced, data, offsets]), specs)
            n_epochs = permutations.shape[1]
            filled = np.pad(permutations, ((0, 0), (0, max_epochs - n_epochs), (0, 0)))
            found = compiled(*map(_tensor_like, (n_epochs, filled), own), *tensors, *captured)
            state, results = tf.nest.pack_sequence_as(structure, found)
            return state, tree_map(lambda result: result[:, :n_epochs], results)

        return call


def _tensor_like(value: Tensor, spec: tf.TensorSpec) -> Tensor:
    import tensorflow as tf

    return tf.convert_to_tensor(value, spec.dtype)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """A block in which TensorFlow does not log to this thread that it vectorises an operation by a loop.

    Whether that is quicker is measured, not guessed.
    """
    logger, silent = logging.getLogger("tensorflow"), _OtherThreads()
    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


class _OtherThreads(logging.Filter):
    """Lets through what threads other than this one log."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread or record.levelno >= logging.CRITICAL


# Operations that TensorFlow calls stateful although they change and draw nothing: control flow, checks, look-ups.
_HARMLESS_OPERATIONS = (
    "Assert", "Case", "If", "LookupTable", "PartitionedCall", "Placeholder", "Print", "StatefulPartitionedCall",
    "StringFormat", "TensorList", "While", "XlaHost",
)  # fmt: skip


def _refuse_side_effects(function: tf.types.experimental.ConcreteFunction) -> None:
    """Refuses a TensorFlow function that reads or writes anything but its arguments and results, before it is called.

    Raises:
        NotPureError: It does.
    """
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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which TensorFlow's generator of the process starts at a seed; it stands where it stood afterwards."""
    import tensorflow as tf
    from tensorflow.python.eager import context as eager

    context = eager.context()
    # `tf.random.set_seed` keeps the seed and a generator of operation seeds, and has no counterpart that reads them.
    before = context._seed, getattr(context, "_rng", None)  # there is no generator before the first operation
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        context._seed, context._rng = before
        if before[1] is None:
            del context._rng


def generator() -> tuple[Any, Any]:
    """The state of TensorFlow's generator of the process."""
    from tensorflow.python.eager import context

    rng = getattr(context.context(), "_rng", None)
    return context.context()._seed, None if rng is None else rng.getstate()
