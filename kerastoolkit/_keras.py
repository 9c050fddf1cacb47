"""What Keras does not promise, and whether this Keras keeps to it.

A name that begins with an underscore, or is in a module under `keras.src`, may disappear with the next release, or
change its meaning. All such names that we use are used here. A Keras of another version than those that were
tried is looked at once, before it trains; if it lacks something, or trains a small model otherwise than the programs
here do, then it trains every model itself, one by one, and one warning says so.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kerastoolkit.exceptions import KerasToolkitWarning

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

# The versions whose inside was read and tried.
FIRST_TRIED, LAST_TRIED = (3, 12), (3, 15)

_checked: set[str] = set()  # backends
_incompatibilities: dict[str, str | None] = {}  # by backend; None as soon as a check begins


class NotPureError(Exception):
    """A model cannot be trained by a shared program; the message says why."""


# -- whether it is as it was ----------------------------------------------------------------------------------------


def is_tried() -> bool:
    """Whether this version of Keras is among those that were tried."""
    import keras

    return FIRST_TRIED <= _numbers(keras.__version__) <= LAST_TRIED


@functools.cache
def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def is_settled() -> bool:
    """Whether this Keras was tried or checked."""
    import keras

    return is_tried() or keras.config.backend() in _checked


def is_trusted() -> bool:
    """Whether this Keras was tried, or checked without finding anything."""
    return is_settled() and incompatibility() is None


def incompatibility() -> str | None:
    """Why this Keras must train by itself, in words; None if it need not."""
    import keras

    if is_tried():
        return None
    otherwise = f"Keras {keras.__version__} was not tried, and cannot be looked at now"
    return _incompatibilities.get(keras.config.backend(), otherwise)


def check_compatibility(trains_otherwise: Callable[[], str | None]) -> None:
    """Checks a Keras that has not been tried, once for each backend; warns if it must train every model itself.

    One thread at a time may call it.

    Args:
        trains_otherwise: Trains with it, and says in words what came out differently; None if nothing did.
    """
    import keras

    backend, version = keras.config.backend(), keras.__version__
    if is_tried() or backend in _incompatibilities:  # checked before, or this is the check's own training
        return
    _incompatibilities[backend] = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the user has warnings raise, Keras' own would
            found = _missing() or trains_otherwise()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    except BaseException:  # the user interrupted it; it is checked again the next time
        del _incompatibilities[backend]
        raise
    if found:
        _incompatibilities[backend] = f"Keras {version} is built otherwise inside ({found})"
    _checked.add(backend)
    if found:
        first, last = (".".join(map(str, tried)) for tried in (FIRST_TRIED, LAST_TRIED))
        newer = _numbers(version) > LAST_TRIED
        warnings.warn(
            f"Keras {version} is none of those that this version of kerastoolkit was tried with ({first} to {last}), "
            f"and built otherwise inside: {found}. So it trains every model by itself, one after another: what comes "
            f"out is right, and takes longer. Install a Keras from {first} to {last}"
            f"{', or a newer kerastoolkit' * newer}.",
            KerasToolkitWarning,
            stacklevel=4,
        )


def _missing() -> str | None:
    """A name that is needed and not there."""
    import keras
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    needed: dict[Any, tuple[str, ...]] = {
        model: (
            "_call_has_training_arg", "_clear_losses", "_compile_config", "_compute_loss", "_flatten_layers",
            "_initial_epoch", "_loss_tracker", "_metrics", "_symbolic_build",
        ),
        model.layers[0]: ("_non_trainable_variables", "_seed_generators", "_trainable_variables"),
        model.optimizer: ("_learning_rate", "_model_variables_moving_average", "_trainable_variables"),
        BaseOptimizer: ("_backend_update_step", "_var_key", "stateless_apply"),
        keras.losses.MeanSquaredError(): ("_fn_kwargs",),
    }  # fmt: skip
    for owner, names in needed.items():
        for name in names:
            if not hasattr(owner, name):
                kind = owner if isinstance(owner, type) else type(owner)
                return f"{kind.__name__} has no `{name}`"
    return None


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """A block in which models are built of variables that have a shape and no values."""
    import keras

    state, name = state_of_process(), "uninitialized_variables"
    waiting = state.get_global_attribute(name)
    state.set_global_attribute(name, [])  # Keras gives those that are left a value at its next opportunity
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        state.set_global_attribute(name, waiting)


# -- models and layers ----------------------------------------------------------------------------------------------


def layers_of(model: keras.Model, *, itself: bool = True) -> list[keras.layers.Layer]:
    """A model and all layers in it, including those inside layers; without the model itself if `itself` is False."""
    return list(model._flatten_layers(include_self=itself))


def inputs_structure(model: keras.Model) -> Any:
    """How the inputs of a functional model stand in lists and dicts; None for one that does not know."""
    return getattr(model, "_inputs_struct", None)


def outputs_structure(model: keras.Model) -> Any:
    """How the outputs of a functional model stand in lists and dicts."""
    return model._outputs_struct


def nodes_in_order(model: keras.Function) -> list[Any]:
    """The calls in the graph of a functional model, in an order in which they can be computed."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def calls_into(layer: Any) -> list[Any]:
    """The calls of a layer in all graphs, as Keras' own list."""
    nodes: list[Any] = layer._inbound_nodes
    return nodes


def calls_after(layer: Any) -> list[Any]:
    """The calls that take what a layer puts out, in all graphs, as Keras' own list."""
    nodes: list[Any] = layer._outbound_nodes
    return nodes


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a symbolic tensor a mask, as Keras does."""
    tensor._keras_mask = mask


def fixed_batch(model: keras.Model) -> int | None:
    """The number of rows that a model takes at once, where it was built for one (`Input(batch_shape=...)`)."""
    try:
        shapes = [tuple(one.shape) for one in model.inputs]
    except (AttributeError, ValueError, TypeError):  # nothing is known about a subclassed model
        return None
    return next((shape[0] for shape in shapes if shape and shape[0] is not None), None)


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """A block in which Keras does not load TensorFlow merely to ask whether a value is one of TensorFlow's.

    Under JAX and torch it does so whenever it serializes a layer: two seconds and 450 MB, once in a process.

    Other threads may do anything meanwhile. Only the module that serializes asks differently, and what it is told is
    true for every thread: as long as nobody has loaded TensorFlow, no value can be one of TensorFlow's. Where a thread
    needs TensorFlow, as for the layers that read text, Keras loads it as ever.
    """
    global _n_without_tensorflow
    from keras.src.saving import serialization_lib

    if "tensorflow" in sys.modules or not hasattr(serialization_lib, "tf"):
        yield
        return
    with _serialization:
        if not _n_without_tensorflow:
            serialization_lib.tf = _IfLoaded(serialization_lib.tf)
        _n_without_tensorflow += 1
    try:
        yield
    finally:
        with _serialization:
            _n_without_tensorflow -= 1
            if not _n_without_tensorflow:
                serialization_lib.tf = serialization_lib.tf.lazy


_serialization = threading.Lock()
_n_without_tensorflow = 0  # blocks that have been entered and not left, in all threads


class _IfLoaded:
    """A module that Keras loads lazily, which is available only once somebody has loaded it."""

    def __init__(self, lazy: types.ModuleType) -> None:
        self.lazy = lazy

    @property
    def available(self) -> bool:
        return self.lazy.name in sys.modules and bool(self.lazy.available)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lazy, name)


@contextlib.contextmanager
def fresh_states(model: keras.Model) -> Iterator[None]:
    """A block in which layers that remember the last batch (`stateful=True`) start empty; then they are as before."""
    import keras

    layers = [layer for layer in layers_of(model) if getattr(layer, "stateful", False)]
    states = [state for layer in layers for state in keras.tree.flatten(getattr(layer, "states", None))]
    kept = [(state, keras.ops.convert_to_numpy(state.value)) for state in states if isinstance(state, keras.Variable)]
    for state, value in kept:
        state.assign(0 * value)
    try:
        yield
    finally:
        for state, value in kept:
            state.assign(value)


def layer_of(tensor: keras.KerasTensor) -> keras.layers.Layer | None:
    """The layer of a functional model that makes a tensor; None if that is not known."""
    return getattr(getattr(tensor, "_keras_history", None), "operation", None)


def registered() -> dict[str, Any]:
    """The user's classes and functions that Keras finds by name: those registered, or in this thread's scope."""
    import keras

    scope = state_of_process().get_global_attribute("custom_objects_scope_dict")
    return {**keras.saving.get_custom_objects(), **(scope or {})}


def modules_of_operations() -> list[types.ModuleType]:
    """The modules of Keras' operations, such as an addition, which a config of a model that adds can name."""
    from keras.src import ops

    return [module for module in vars(ops).values() if inspect.ismodule(module)]


def own_variables(layer: keras.layers.Layer) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Variables of a layer itself, without those of layers in it: the trainable ones, and the others."""
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def compile_arguments(model: keras.Model) -> dict[str, Any] | None:
    """What a model was compiled with, each argument as it was given; None if that is not known."""
    config = getattr(model, "_compile_config", None)
    return None if config is None else dict(config.config)


def own_metrics(layer: keras.layers.Layer) -> list[keras.metrics.Metric]:
    """Metrics that are attributes of a layer or model, without those that it was compiled with."""
    return list(layer._metrics)


def is_seeded(layer: keras.layers.Layer) -> bool:
    """Whether a layer has generators of random numbers, which it may not use."""
    return bool(getattr(layer, "_seed_generators", ()))


def group_of(layer: keras.layers.Layer) -> tuple[str, str]:
    """Where Keras defines a layer: the group, such as `"core"`, and the module; empty for a user's layer."""
    _, is_its_own, place = type(layer).__module__.partition("keras.src.layers.")
    return (place.partition(".")[0], place.rpartition(".")[2]) if is_its_own else ("", "")


def backend_of(value: keras.Layer) -> Any:
    """The backend of a preprocessing layer, which has one of its own."""
    return value._backend


def first_epoch(model: keras.Model) -> int:
    """The epoch at which a callback makes a training begin."""
    return int(getattr(model, "_initial_epoch", None) or 0)


def is_under_strategy(model: keras.Model) -> bool:
    """Whether TensorFlow distributes a model."""
    return model._distribute_strategy is not None


def has_layout(variable: keras.Variable) -> bool:
    """Whether it was said how JAX divides a variable."""
    return getattr(variable, "_layout", None) is not None


def keywords_of(loss: keras.Loss) -> dict[str, Any]:
    """What a loss passes to its function; a change of this dict changes what is passed."""
    return getattr(loss, "_fn_kwargs", None) or {}


def file_of(model: keras.Model) -> bytes:
    """Layers and weights of a model, as the content of Keras' file of it."""
    with without_compile_config(model):
        _, (file,) = model.__reduce__()
    return bytes(file.getvalue())


@contextlib.contextmanager
def without_compile_config(model: keras.Model) -> Iterator[None]:
    """A block in which a file of the model leaves out what it was compiled with, which not every config could say."""
    vars(model)["get_compile_config"] = lambda: None
    try:
        yield
    finally:
        del vars(model)["get_compile_config"]


def uncompiled_model_of(file: bytes) -> keras.Model:
    """A model from the content of a file that was made here, not compiled."""
    from keras.src.saving import saving_lib

    return saving_lib._load_model_from_fileobj(io.BytesIO(file), custom_objects=None, compile=False, safe_mode=False)


# -- losses, metrics and optimizers as objects -----------------------------------------------------------------------


def classes_with_config() -> tuple[type, ...]:
    """The classes whose objects Keras copies by their config, so that whatever it leaves out is lost."""
    import keras

    optimizers = keras.optimizers
    kinds = (keras.losses.Loss, keras.metrics.Metric, optimizers.Optimizer, optimizers.schedules.LearningRateSchedule)
    return (*kinds, optimizers.OptimizerMap) if hasattr(optimizers, "OptimizerMap") else kinds


def is_copied_by_config(kind: type) -> bool:
    """Whether Python copies and pickles objects of a class by Keras' file of them."""
    from keras.src.saving.keras_saveable import KerasSaveable

    own: Any = kind
    return own.__reduce_ex__ is object.__reduce_ex__ and own.__reduce__ is KerasSaveable.__reduce__


def is_layer(value: object) -> bool:
    """Whether a value is a layer or a model."""
    import keras

    return isinstance(value, keras.layers.Layer)


@functools.cache
def names_of_any_layer() -> frozenset[str]:
    """Names of the attributes that Keras gives to every layer."""
    import keras

    return frozenset(vars(keras.layers.Layer()))


def is_variable(value: object) -> bool:
    """Whether a value is a variable of Keras."""
    import keras

    return isinstance(value, keras.Variable)


def as_numpy(value: object) -> NDArray[Any]:
    """A tensor as an array."""
    import keras

    array: NDArray[Any] = keras.ops.convert_to_numpy(value)
    return array


def config_of(thing: keras.Loss | keras.Metric | keras.optimizers.Optimizer) -> dict[str, Any]:
    """The config of an object; for an optimizer with its learning rate as it is, which need not have a config."""
    import keras

    if not isinstance(thing, keras.optimizers.Optimizer) or is_variable(thing._learning_rate):
        return dict(thing.get_config())
    other = object.__new__(type(thing))
    vars(other).update({**vars(thing), "_learning_rate": None})
    return {**other.get_config(), "learning_rate": thing._learning_rate}


def tracking_attributes(thing: object) -> set[str]:
    """Names of the attributes by which Keras keeps track of what an object holds and of what it was built for."""
    import keras

    if isinstance(thing, keras.metrics.Metric):
        return {"_metrics", "_tracker", "_variables"}
    if not isinstance(thing, keras.optimizers.Optimizer):
        return set()
    names = {
        "_distribution_strategy", "_iterations", "_lock", "_tracker", "_trainable_variables",
        "_trainable_variables_indices", "_variables", "built",
    }  # fmt: skip
    names |= {name for name in vars(thing) if name.startswith("_self_")}  # TensorFlow's
    if thing.built:
        held = {name: keras.tree.flatten(value) for name, value in vars(thing).items() if name != "_learning_rate"}
        names |= {name for name, several in held.items() if any(map(is_variable, several))}
    return names


def without_constructor(kind: Any, attributes: dict[str, Any]) -> Any:
    """An object of a class whose constructor cannot be called, made by the constructor of Keras' base class.

    Removes from the attributes what that constructor sets.
    """
    import keras

    made = kind.__new__(kind)
    if issubclass(kind, keras.metrics.Metric):
        keras.metrics.Metric.__init__(made, name=attributes["name"], dtype=attributes["_dtype_policy"])
    elif issubclass(kind, keras.optimizers.Optimizer):
        rate = attributes.pop("_learning_rate")
        keras.optimizers.Optimizer.__init__(made, float(as_numpy(rate)) if is_variable(rate) else rate)
    return made


def reset(thing: object) -> None:
    """Makes a metric forget what it has counted; leaves anything else as it is."""
    import keras

    if isinstance(thing, keras.metrics.Metric):
        thing.reset_state()


@contextlib.contextmanager
def without_lambda_warning() -> Iterator[None]:
    """A block without Keras' warning that a config with a lambda cannot be read elsewhere, where it never will be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`", UserWarning)
        yield


def state_of_process() -> Any:
    """The module that keeps Keras' state of the whole process, and of each thread.

    The public `keras.utils.set_random_seed` sets seeds, and imports TensorFlow under every backend; there is no public
    way to read seeds, and so none to restore them.
    """
    from keras.src.backend.common import global_state

    return global_state


# -- a step of training ---------------------------------------------------------------------------------------------


def build(model: keras.Model, batch: tuple[Any, Any, Any]) -> None:
    """Builds what Keras builds when it first sees data `(x, y, weights)`: metrics, loss, optimizer."""
    x, y, weights = batch
    model._symbolic_build(data_batch=(x, y) if weights is None else (x, y, weights))


def output_of(model: keras.Model, x: object, *, training: bool) -> Any:
    """Output of a model, as `Model.train_step` asks for it."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def loss_of(model: keras.Model, batch: tuple[Any, Any, Any], output: object, *, training: bool) -> Any:
    """The loss of a batch `(x, y, weights)`, penalties included, which are counted anew for the next."""
    x, y, weights = batch
    loss = model._compute_loss(x=x, y=y, y_pred=output, sample_weight=weights, training=training)
    model._clear_losses()
    return loss


def count_loss(model: keras.Model, loss: object, n_rows: object) -> None:
    """Adds the loss of a batch to the mean of an epoch."""
    model._loss_tracker.update_state(loss, sample_weight=n_rows)


# -- optimizers -----------------------------------------------------------------------------------------------------


def rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate as the optimizer keeps it: a variable, or a schedule."""
    return optimizer._learning_rate


def averages_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Its averages of the weights, in their order; None for what has none."""
    return list(optimizer._model_variables_moving_average)


def leaves_weights_out(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether some weights are left out of its weight decay."""
    return any(getattr(optimizer, f"_exclude_from_weight_decay{end}", None) for end in ("", "_pattern"))


def is_built_for(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> bool:
    """Whether an optimizer is for these variables, or for none as yet."""
    own = getattr(optimizer, "_trainable_variables", None) if optimizer.built else None
    return own is None or list(map(id, own)) == list(map(id, variables))


def pure_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """An optimizer like that of a model whose `stateless_apply` is a function of tensors."""
    import keras

    optimizer = model.optimizer
    if keras.config.backend() == "jax":
        return optimizer
    kind = type(optimizer)
    if keras.config.backend() == "torch" and kind.__module__.startswith("keras.src.backend.torch"):
        kind = next(base for base in kind.__mro__ if base.__module__.startswith("keras.src.optimizers."))
    pure_kind = _nadam_of_torch() if kind is keras.optimizers.Nadam and kind is not type(optimizer) else _pure(kind)  # type: ignore[arg-type]
    pure = pure_kind.from_config(optimizer.get_config())  # type: ignore[attr-defined]
    pure.build(model.trainable_variables)
    return pure


@functools.lru_cache(maxsize=32)
def _pure(kind: type) -> type:
    """An optimizer class with the same rule of update, without what a backend adds for devices.

    TensorFlow's optimizers refuse `stateless_apply`, and torch's work in place. The class of the user comes first in
    the order of resolution, so that an optimizer which overrides one of these methods itself keeps its own.
    """
    import keras
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    names = [
        "_apply_weight_decay",
        "_backend_increment_gradient_accumulators",
        "_backend_reset_gradient_accumulators",
        "_backend_update_step",
        "_clip_by_norm",
        "_overwrite_model_variables_with_average_value",
        "_var_key",
        "add_variable_from_reference",
        "assign",
        "assign_add",
        "assign_sub",
        "stateless_apply",
    ]
    if keras.config.backend() == "tensorflow":
        names.remove("_clip_by_norm")  # TensorFlow's own keeps the gradient of an embedding as it is
    methods = {name: getattr(BaseOptimizer, name) for name in names if hasattr(BaseOptimizer, name)}
    plain = type("Plain", (keras.optimizers.Optimizer,), methods)
    return type(kind.__name__, (kind, plain), {"__module__": kind.__module__})


@functools.cache
def _nadam_of_torch() -> type:
    """Keras' Nadam with `1 - beta` as on torch: of numbers of Python, where the others subtract in single precision."""
    import keras
    from keras import ops

    class Nadam(_pure(keras.optimizers.Nadam)):  # type: ignore[misc]
        def assign_add(self, variable: keras.Variable, value: Any) -> None:
            for slots, beta in ((self._momentums, self.beta_1), (self._velocities, self.beta_2)):
                if any(variable is slot for slot in slots):
                    value = value * ((1 - beta) / (1 - ops.cast(beta, variable.dtype)))
            super().assign_add(variable, value)

    return Nadam


# -- torch ---------------------------------------------------------------------------------------------------------


_in_vmap = threading.local()
_ONE_BLOCK_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def in_a_way_that_vmap_takes() -> Iterator[None]:
    """A block in which Keras computes in a way that torch can vectorise; what it computes is the same.

    Functions of Keras are replaced by others that do what they did in every thread but this one, and put back.
    """
    import keras
    from keras.src.backend.torch import core, nn

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (nn, "_maybe_convert_to_channels_last", lambda tensor: tensor),  # only about how fast a convolution is
        (core, "cond", functools.partial(_cond, getattr(core, "cond", keras.ops.cond))),
        (core, "scatter", _scatter),
        (keras.regularizers.L1L2, "__call__", _penalty),
        (keras.optimizers.schedules.PiecewiseConstantDecay, "__call__", _piecewise),
    ]
    with _ONE_BLOCK_AT_A_TIME:
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced if hasattr(owner, name)]
        for owner, name, function in replaced:
            if hasattr(owner, name):
                setattr(owner, name, _for_this_thread(function, getattr(owner, name)))
        outside, _in_vmap.now = getattr(_in_vmap, "now", False), True
        try:
            yield
        finally:
            _in_vmap.now = outside
            for owner, name, function in before:
                setattr(owner, name, function)


def _for_this_thread(function: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """One function in a block of `in_a_way_that_vmap_takes`, and another in all other threads."""

    def call(*arguments: object, **keywords: object) -> Any:
        chosen = function if getattr(_in_vmap, "now", False) else otherwise
        return chosen(*arguments, **keywords)

    return call


def _cond(cond: Callable[..., Any], condition: Any, true: Callable[[], Any], false: Callable[[], Any]) -> Any:
    """Keras' `cond`; where the condition differs between models, both sides of it are computed."""
    import keras
    import torch
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    try:
        bool(condition)
    except RuntimeError:  # it differs
        scope = get_stateless_scope()
        before = dict(scope.state_mapping) if scope is not None else {}
        sides = true(), false()
        if scope is not None and any(before.get(key) is not value for key, value in scope.state_mapping.items()):
            raise NotPureError("a condition that differs between models changes a state") from None
        if any(getattr(part, "requires_grad", False) for part in keras.tree.flatten(sides)):
            # What is not finite on the side that is not taken would make the gradient NaN.
            raise NotPureError("a gradient goes through a condition that differs between models") from None
        return keras.tree.map_structure(lambda one, other: torch.where(condition, one, other), *sides)
    return cond(condition, true, false)


def _scatter(indices: Any, values: Any, shape: Any) -> Any:
    """Keras' `scatter`, not in place."""
    import keras
    import torch

    indices, values = keras.ops.convert_to_tensor(indices), keras.ops.convert_to_tensor(values)
    n_axes = indices.shape[-1]
    places = torch.reshape(indices, [-1, n_axes]).long().unbind(1)
    values = torch.reshape(values, [-1, *shape[n_axes:]])
    return values.new_zeros(shape).index_put(places, values, accumulate=True)


def _penalty(penalty: keras.Regularizer, x: Any) -> Any:
    """`L1L2.__call__`, not in place."""
    from keras import ops

    l1, l2 = penalty.l1, penalty.l2
    parts = [ops.cast(l1, x.dtype) * ops.sum(ops.absolute(x))] if l1 != 0.0 else []
    parts += [ops.cast(l2, x.dtype) * ops.sum(ops.square(x))] if l2 != 0.0 else []
    return sum(parts, ops.convert_to_tensor(0.0, dtype=x.dtype))


def _piecewise(schedule: keras.optimizers.schedules.PiecewiseConstantDecay, step: Any) -> Any:
    """`PiecewiseConstantDecay.__call__`, not in place."""
    from keras import ops

    first, *others = map(ops.convert_to_tensor, schedule.values)
    ends = [ops.cast(end, step.dtype) for end in map(ops.convert_to_tensor, schedule.boundaries)]
    reached = [ops.logical_and(step > low, step <= high) for low, high in zip(ends, ends[1:], strict=False)]
    values = [first, others[-1], *others[:-1]]
    return sum(
        ops.cast(is_now, first.dtype) * value
        for is_now, value in zip([step <= ends[0], step > ends[-1], *reached], values, strict=True)
    )


# -- the graph of a model -------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A layer or operation at work inside of a model.

    Attributes:
        operation: A layer, an inner model or an operation of `keras.ops`.
        arguments: By position; among them or inside of them the symbolic tensors that go in.
        keywords: By name, `mask` and `training` included where they were given.
        outputs: Symbolic tensors that come out, in order.
    """

    operation: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[keras.KerasTensor, ...]


def calls_of(model: keras.Model) -> list[Call]:
    """What a Sequential or functional model calls, each after what it takes its input from; no input layers.

    An inner model is one call. Tensors are told apart by `id`: those of `model.inputs` and `model.outputs` are the
    same objects as in the calls.
    """
    import keras

    function = keras.Function(model.inputs, model.outputs)
    return [
        Call(node.operation, node.arguments.args, dict(node.arguments.kwargs), tuple(node.outputs))
        for node in nodes_in_order(function)
        if not node.is_input
    ]
