"""Many fits as one program: the engine under every search.

`fit_many` trains a list of models as if `Model.fit` had been called for each, and gives each its model and history.
Fits of one structure (same layers, same kind of optimizer, same batch size) become one program: their weights,
optimizer states and metric states are stacked along a leading axis, and one step trains all of them. What differs
between them (numbers of the optimizer, dropout rates, penalties, the smoothing of labels, rows, weights of rows,
epochs, callbacks) goes in as data.

A fit on its own runs the same program for one model, which is traced once for all models of the structure. What no
program can do (a `train_step` of the user's, callbacks that look at batches, data sets) is left to `Model.fit`, and the
result says so.

Small networks of dense layers spend their steps between operations, not in them: on TensorFlow to trace a program takes
longer than many of them train, and torch takes milliseconds for a step of some microseconds. What such networks are
mostly made of is therefore written out in numpy for both. On TensorFlow, where so
many steps are ahead that they would take longer than to compile, XLA makes one piece of machine code of them, and each
core of the processor runs it for some of the models.

On every path the rows of an epoch come in an order drawn from the seed of the fit alone, so that a fit is the same
whatever is trained beside it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._values import is_whole, whole_number_wanted
from kerastoolkit._words import printable
from kerastoolkit.distribution import Strategy
from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.training import _program
from kerastoolkit.training._memory import free_memory
from kerastoolkit.training._program import Kind, Program, Rows, State, mapped
from kerastoolkit.training.network import Network, Recipe, draw
from kerastoolkit.training.seeds import is_inside, isolated

if TYPE_CHECKING:
    import keras

__all__ = ["Fit", "Trained", "explain", "fit_many"]

How = Literal["fused", "alone", "Model.fit"]
Judge = Callable[[Mapping["Fit", tuple[int, Mapping[str, Any]]]], "set[Fit]"]

# A step of fewer multiplications than this spends most of its time between them, on a CPU about a millisecond's worth.
_FEW_MULTIPLICATIONS = 2_000_000

# Of models with more, so many are tried together.
_SIZES_OF_LARGE_MODELS = (2, 4)

# A call of a program cannot be interrupted, so that one should not take much longer than this.
_SECONDS_A_CALL = 1.0

# XLA compiles for about so long: the steps of an epoch, and whole epochs. Whether that is worth it is counted, not
# timed, so that the same fits go the same way again.
_SECONDS_OF_XLA, _SECONDS_OF_XLA_FOR_EPOCHS = 0.7, 1.0

# Steps in numpy are not worth tracing a program for, until they take so much longer than those of the program: that is
# what it takes to trace it, and to compile it with XLA.
_SECONDS_IN_NUMPY = 1.5

# To trace a program takes about so long, in seconds.
_SECONDS_TO_TRACE = 1.0

# Large models that are trained one by one in less than this are: together they gain a third at most, and to find out
# takes two programs.
_SECONDS_WORTH_A_LOOK = 10.0

# Models of a stack that a call of XLA trains for whole epochs: always so many, since it compiles for each number. Of
# 256 models these are six parts, and of three folds of one or two sizes too, so that two cores have three each.
_MODELS_OF_A_PART = 43

# Numbers of rows that are drawn for the epochs of a call, of all models: 64 MiB of them.
_MOST_ORDERS = 2**24

# Taking models out of a stack for an incomplete batch, and putting them back, takes as long as so many steps.
_STEPS_OF_AN_INCOMPLETE_BATCH = 3

# On TensorFlow, recurrent layers of many models take some 7 seconds longer to trace than those of one, and a step takes
# about a millisecond less for each model: with fewer steps of all models than these, one by one is quicker.
_STEPS_WORTH_STACKING = 5_000


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
        batch_size: Rows a step. Defaults to `None`: 32.
        epochs: Number of the last epoch, as in Keras. Defaults to `1`.
        initial_epoch: Number of the first epoch, less one. Defaults to `0`.
        validation_data: `(x, y)` or `(x, y, sample_weight)`, or a data set. Defaults to `None`.
        validation_batch_size: Rows a step of validation. Defaults to `None`: `batch_size`.
        validation_freq: Epochs from one validation to the next, or the numbers of the epochs with one. Defaults to
            `1`.
        callbacks: Callbacks. Defaults to none.
        shuffle: Whether the rows come in a new order each epoch. Defaults to `True`.
        seed: Seed of that order and of all that is random while training. Defaults to `None`: one is drawn.
        verbose: Keras' verbosity. Defaults to `0`; anything else is left to `Model.fit`.
        strategy: A `distribution.Strategy` that the model was built under; the fit is left to `Model.fit`. Defaults to
            `None`.
        options: Other arguments of `Model.fit`, with which the fit is left to it. Defaults to none.
    """

    model: Any
    x: Any
    y: Any = None
    sample_weight: Any = None
    batch_size: int | None = None
    epochs: int = 1
    initial_epoch: int = 0
    validation_data: Any = None
    validation_batch_size: int | None = None
    validation_freq: Any = 1
    callbacks: Sequence[Any] = ()
    shuffle: Any = True
    seed: int | None = None
    verbose: int | str = 0
    strategy: Strategy | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Trained:
    """What became of a fit.

    Attributes:
        history: Losses and metrics by name, one number an epoch.
        how: `"fused"` with others in one program, `"alone"` in a program of its own, or by `"Model.fit"`.
        together: Fits in its program, itself among them.
        reason: Why it was not fused, in words; None if it was.
        error: What it raised; None if it was trained. Other fits are not touched by it.
    """

    def __init__(self, network: Network | None) -> None:
        self.network = network
        self.history: dict[str, list[Any]] = {}
        self.how: How = "alone"
        self.together = 1
        self.reason: str | None = None
        self.error: BaseException | None = None

    def without_model(self) -> Trained:
        """The same, without the model and all that it keeps in memory."""
        light = Trained(None)
        vars(light).update(vars(self), network=None)
        return light

    @classmethod
    def failed(cls, error: BaseException) -> Trained:
        """A fit that raised."""
        trained = cls(None)
        trained.error = error
        return trained

    @property
    def model(self) -> keras.Model:
        """The trained model."""
        if self.network is None:
            raise self.error or RuntimeError("there is no model")
        return self.network.model


def fit_many(
    fits: Sequence[Fit],
    *,
    memory: float | None = None,
    at_most: int | None = None,
    watch: Callable[[int, int], None] | None = None,
    judge: Judge | None = None,
    finished: Callable[[list[Fit], list[Trained]], None] | None = None,
    expected: int = 0,
    meanwhile: Callable[[], None] | None = None,
) -> list[Trained]:
    """Trains many models, those of one structure as one program.

    Each ends as `Model.fit` with the same order of rows would end it: on a CPU weights differ by rounding, about 1e-6.

    Args:
        fits: The fits. No two may share a model; those that share a callback are trained one after the other.
        memory: Bytes that stacked models may take; more of them than fit in there are trained in turns. Defaults to
            `None`: half of what is free.
        at_most: Fits to train together at most. Defaults to `None`: as many as there is memory for.
        watch: Called after each epoch with the number of epochs done and of all epochs of all fits; what it raises ends
            the training. Defaults to `None`.
        judge: Called after each epoch with the fits that trained it together, each with how many epochs it has trained
            and what its history says of the last; returns those that must stop. Defaults to `None`.
        finished: Called with fits that were trained together and what became of them, as soon as they are. Defaults to
            `None`.
        expected: Fits like these that there will be in all, by this call and others, for which it may pay to compile
            what would not pay for these alone. Defaults to `0`: no more than these.
        meanwhile: Called while the processor computes what needs no Python for long, to do something else. Defaults to
            `None`.

    Returns:
        One `Trained` for each fit, in their order. What one of them raised is in its `error`.

    Raises:
        ParameterError: Two fits share a model.
    """
    if not _keras.is_settled():
        _look_at_keras()
    models = [id(fit.model) for fit in fits if _is_model(fit.model)]
    if len(set(models)) < len(models):
        raise ParameterError(
            "`fits` must have a model each; two of them share one. Build or clone a model for each fit."
        )
    casts: _Casts = weakref.WeakValueDictionary()
    runs = [_Run(fit, casts) for fit in fits]
    told = _Told(runs, watch, judge, meanwhile)
    groups: dict[Any, list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.group if run.trained.error is None else ("failed",), []).append(run)
    if len(groups) == 1:  # of several structures it is not known how many of each there will be
        told.in_all = max(1.0, expected / len(runs))
    for group, members in groups.items():
        together = group[0] not in ("failed", "Model.fit")
        for turn in _turns(members, memory, at_most) if together else [[run] for run in members]:
            if together:
                _train_turn(turn, told)
            elif group[0] == "Model.fit":
                _by_keras(turn[0], told)
            told(*((run, run.epochs) for run in turn))
            if finished is not None:
                finished([run.fit for run in turn], [run.trained for run in turn])
    return [run.trained for run in runs]


def explain(trained: Sequence[Trained]) -> str:
    """Says in words which fits were trained together, which were not, and why.

    Args:
        trained: What `fit_many` returned.

    Returns:
        A few lines.
    """
    alike: dict[tuple[str, str | None], list[Trained]] = {}
    for one in trained:
        how = one.how if one.error is None else f"failed: {type(one.error).__name__}"
        alike.setdefault((how, one.reason), []).append(one)
    lines = []
    for (how, reason), some in alike.items():
        n_programs = round(sum(1 / one.together for one in some))
        words = {
            "fused": f"trained together, as {'one program' if n_programs == 1 else f'{n_programs} programs'}",
            "alone": "trained one by one, each by a program shared with all models of its structure",
            "Model.fit": "trained one by one by Model.fit",
        }.get(how, how)
        lines.append(f"{len(some)} fit{'s' * (len(some) != 1)} {words}{f': {printable(reason)}' if reason else ''}.")
    return "\n".join(lines) or "No fits."


class _Told:
    """Tells a watcher how many epochs are done, and asks a judge who must stop."""

    def __init__(
        self,
        runs: Sequence[_Run],
        watch: Callable[[int, int], None] | None,
        judge: Judge | None,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        self._watch, self._judge, self._meanwhile = watch, judge, meanwhile
        self.in_all = 1.0  # times as many fits like these as there are here
        self._epochs = sum(run.epochs for run in runs)
        self._done: dict[_Run, int] = {}

    def __call__(self, *runs: tuple[_Run, int]) -> None:
        self._done.update(runs)
        if self._watch is not None:
            self._watch(sum(self._done.values()), self._epochs)

    def while_computing(self, compute: Callable[[], None]) -> None:
        """Does something that takes long and needs little Python, and something else meanwhile."""
        if self._meanwhile is None:
            compute()
            return
        with concurrent.futures.ThreadPoolExecutor(1, "kerastoolkit-training") as thread:
            computed = thread.submit(compute)
            self._meanwhile()
            computed.result()

    @property
    def has_judge(self) -> bool:
        """Whether somebody may stop a run."""
        return self._judge is not None

    def must_stop(self, logs: Mapping[_Run, tuple[int, Mapping[str, Any]]]) -> set[_Run]:
        """Who of the runs that trained an epoch goes no further."""
        if self._judge is None:
            return set()
        stopping = self._judge({run.fit: told for run, told in logs.items()})
        return {run for run in logs if run.fit in stopping}


_gathering = threading.local()


@contextlib.contextmanager
def gathering(gather: Callable[[Fit], Trained], *, scored: bool = False) -> Iterator[None]:
    """Lets every `train` of this thread go to a function, which may wait for others to train together with.

    Args:
        gather: Trains a fit.
        scored: Whether the fits are scored, one among many, by somebody who knows what to do with one that failed.
            Defaults to `False`.
    """
    before = getattr(_gathering, "gather", None), is_scored()
    _gathering.gather, _gathering.scored = gather, scored
    try:
        yield
    finally:
        _gathering.gather, _gathering.scored = before


def is_scored() -> bool:
    """Whether a fit of this thread is one among many that are scored, so that it may fail; see `gathering`."""
    return bool(getattr(_gathering, "scored", False))


def train(fit: Fit) -> Trained:
    """Trains one model, by itself or with whatever else this thread's `gathering` finds to train with it.

    Raises:
        Exception: Whatever training raised.
    """
    # Whoever waits inside a block of `isolated` lets nobody else come to the training that he waits for.
    gather = None if is_inside() else getattr(_gathering, "gather", None)
    trained = gather(fit) if gather is not None else fit_many([fit])[0]
    if trained.error is not None:
        raise trained.error
    return trained


def _look_at_keras() -> None:
    """Looks at a Keras that was not tried, unless the user's settings would show in what it does."""
    import keras

    with isolated(0):  # one thread looks, and others wait
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            if keras.config.floatx() == "float32" and not (_has_limits() or _has_surroundings()):
                _keras.look(_trains_otherwise)
        finally:
            keras.config.set_dtype_policy(policy)


def _has_limits() -> bool:
    """Whether the user limits the epochs or steps of every `Model.fit`."""
    import keras

    names = "max_epochs", "max_steps_per_epoch"
    return any(getattr(keras.config, name, lambda: None)() is not None for name in names)


def _has_surroundings() -> bool:
    """Whether models are being divided among devices, or torch keeps no gradients."""
    import keras

    if keras.config.backend() == "torch":
        import torch

        return not torch.is_grad_enabled()
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.distribute.has_strategy())
    return keras.distribution.distribution() is not None


def _trains_otherwise() -> str | None:
    """What `fit_many` and this Keras make of two small models, if that differs."""
    import keras
    from keras import layers

    def build(factor: float) -> keras.Model:
        with isolated(0):
            penalty = keras.regularizers.L2(factor)
            model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh", kernel_regularizer=penalty)])
            model.add(layers.BatchNormalization())
            model.add(layers.Dense(3, "softmax"))
            optimizer = keras.optimizers.AdamW(0.5 * factor, weight_decay=factor)
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    rows = np.arange(20)
    x, y, weights = np.sin(np.outer(rows, [1.0, 2.0, 3.0])).astype("float32"), rows % 3, 1 + rows % 2
    rest: dict[str, Any] = {"sample_weight": weights, "batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    factors = 0.2, 0.02
    fits = [Fit(build(factor), x, y, validation_data=(x, y), seed=0, **rest) for factor in factors]
    for factor, trained in zip(factors, fit_many(fits), strict=True):
        if trained.error is not None or trained.how == "Model.fit":
            return str(trained.error or trained.reason)
        model = build(factor)
        with isolated(0):
            history = model.fit(x, y, validation_data=(x, y), **rest).history
        pairs = [*zip(trained.model.get_weights(), model.get_weights(), strict=True)]
        pairs += [(trained.history[name], history[name]) for name in history]
        if not all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in pairs):
            return "a small model does not end as the steps that were known have it end"
    return None


# -- one fit --------------------------------------------------------------------------------------------------------


class _Run:
    """A fit on its way: its data, its callbacks, its history."""

    network: Network
    program: Program
    rows: Rows
    validation: Rows | None
    stack: _Stack
    view: Any

    def __init__(self, fit: Fit, casts: _Casts) -> None:
        self.fit = fit
        self.trained = Trained(None)
        self.seed = int(np.random.randint(2**31 - 1)) if fit.seed is None else fit.seed
        self.group: Any = ("Model.fit",)
        self.number = self.place = 0  # among the runs of its program, and among those still in the stack
        self.has_ended = False
        try:
            self._prepare(casts)
        except Exception as error:
            self.trained.error = error

    def _prepare(self, casts: _Casts) -> None:
        fit = self.fit
        _refuse_odd_sizes(fit)
        _refuse_no_rows(fit)
        reason = _not_for_a_program(fit)
        rows = None
        if reason is None:
            try:
                rows = _rows(fit.x, fit.y, fit.sample_weight, casts)
                self.validation = None if fit.validation_data is None else _rows(*_three(fit.validation_data), casts)
            except _NotArraysError as error:
                rows, reason = None, str(error)
        network = fit.model if isinstance(fit.model, Network) else None
        network = network or Network(_source(fit.model), fit.seed)
        if rows is not None:
            network.ready(mapped(lambda part: part[:1], rows))
            reason = network.reason
        self.trained.network, self.trained.reason = network, reason
        if reason is not None or rows is None:
            self.trained.how = "Model.fit"
            return
        self.rows, self.network = rows, network
        self.program = network.program  # type: ignore[assignment]  # there is one, since there is no reason
        self.n_rows = _length(rows.x)
        self.batch_size = min(fit.batch_size or 32, self.n_rows)
        self.n_validation_rows = 0 if self.validation is None else _length(self.validation.x)
        self.sizes = fit.batch_size or 32, fit.validation_batch_size or fit.batch_size or 32
        form = _program.form_of(rows), self.validation and _program.form_of(self.validation)
        self.group = (id(self.program), form, self.sizes)

    @property
    def epochs(self) -> int:
        """Epochs to count for it; none for what was refused, since they need be no number."""
        return self.fit.epochs if is_whole(self.fit.epochs) else 0

    # -- callbacks -----------------------------------------------------------------------------------------------

    def attempt(self, action: Callable[[_Run], None]) -> None:
        """Does something of this run's own; what it raises ends this run and no other."""
        if self.trained.error is None:
            try:
                action(self)
            except Exception as error:
                self.trained.error = error

    def begin(self, stack: _Stack) -> None:
        import keras

        fit = self.fit
        self.stack = stack
        self.logs: dict[str, Any] = {}
        self.history = keras.callbacks.History()
        self.callbacks = [*fit.callbacks, self.history]
        # What Keras' own callbacks touch of a model is little; others get the model itself.
        self.whole = not all(type(callback) in _content_with_a_view() for callback in fit.callbacks)
        self.view = self.network.model if self.whole else _View(self)
        self.view.stop_training = False
        params = {"verbose": 0, "epochs": fit.epochs, "steps": -(-self.n_rows // self.batch_size)}
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(self.view)
        self.orders = np.random.default_rng((self.seed, fit.initial_epoch))
        self.epoch = fit.initial_epoch
        self.call_with_state("on_train_begin", {})
        self.epoch = max(self.epoch, _keras.first_epoch(self.view))

    def end_epoch(self, logs: dict[str, Any]) -> None:
        self.call_with_state("on_epoch_end", self.epoch, logs)
        self.logs = logs
        self.epoch += 1

    def finish(self) -> None:
        """Ends training: the last word of the optimizer and of the callbacks; the network has its state again."""
        if self.has_ended:
            return
        self.has_ended = True
        self.attempt(_Run._end)
        if self.trained.error is None:
            self.network.state = State(*[[np.array(value) for value in part] for part in self.stack.read(self.place)])
        self.trained.history = dict(self.history.history)
        # Callbacks keep the view, and would keep the rows and the states of all models trained together.
        view = getattr(self, "view", None)  # there is none if a callback raised at once
        if isinstance(view, _View):
            view.let_go(self.network)
            # The history would hold the network, which holds it, until Python's collector finds them.
            self.history.set_model(None)
        self.network.history = self.history
        for name in ("stack", "rows", "validation"):
            vars(self).pop(name, None)

    def _end(self) -> None:
        averaged = self.program.finalized(self.stack.read(self.place))
        for number, value in enumerate(averaged or ()):
            self.stack.write(self.place, "trainable", number, value)
        self.call_with_state("on_train_end", self.logs)

    def call_with_state(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of the callbacks; a callback that gets the model itself finds its weights in it."""
        if not self.fit.callbacks:
            getattr(self.history, hook)(*arguments)
            return
        theirs = [callback for callback in self.fit.callbacks if not _is_default(callback, hook)]
        if self.whole and theirs:
            self.network.state = self.stack.read(self.place)
        for callback in [*theirs, self.history]:
            getattr(callback, hook)(*arguments)
        if self.whole and theirs:
            self._read_back()

    def _read_back(self) -> None:
        """Takes over what a callback changed in the model."""
        old, new = self.stack.read(self.place), self.network.state
        for part in ("trainable", "others", "optimizer"):
            for number, (before, after) in enumerate(zip(getattr(old, part), getattr(new, part), strict=True)):
                if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
                    self.stack.write(self.place, part, number, after)

    # -- epochs --------------------------------------------------------------------------------------------------

    def is_done(self) -> bool:
        return bool(self.view.stop_training) or self.epoch >= self.fit.epochs

    def order(self) -> Any:
        """Row numbers of the next epoch."""
        order = self.orders.permutation(self.n_rows) if self.fit.shuffle else np.arange(self.n_rows)
        return order.astype("int32")  # of many models on many rows they take memory, too

    def is_validated(self) -> bool:
        every = self.fit.validation_freq
        if self.validation is None:
            return False
        return (self.epoch + 1) % every == 0 if isinstance(every, int) else self.epoch + 1 in every


class _View:
    """What Keras' own callbacks see of a model that exists as a row of a stack."""

    def __init__(self, run: _Run) -> None:
        self._run: _Run | None = run
        self._network = run.network
        self.stop_training = False
        self.optimizer = _ViewOfOptimizer(run)

    @property
    def metrics(self) -> Any:
        return self._network.model.metrics if self._run is None else self._run.program.template.metrics

    def let_go(self, network: Network) -> None:
        """Becomes a door to the model, when training is over."""
        stopped = self.stop_training
        vars(self).clear()
        vars(self).update(stop_training=stopped, _network=network, _run=None)

    def get_weights(self) -> list[Any]:
        if self._run is None:
            return self._network.model.get_weights()  # type: ignore[no-any-return]
        state = self._run.stack.read(self._run.place)
        return [np.array(getattr(state, part)[number]) for part, number in self._run.program.weight_places()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        if self._run is None:
            self._network.model.set_weights(weights)
            return
        for (part, number), value in zip(self._run.program.weight_places(), weights, strict=True):
            self._run.stack.write(self._run.place, part, number, value)

    def jax_state_sync(self) -> None:
        # On JAX, Keras' callbacks call this whenever they look at their model. A stack is never behind; without this
        # every fit would make a model that nobody asked for, and trace a program of its own to predict.
        if self._run is None:
            self._network.model.jax_state_sync()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        network = self._network if self._run is None else self._run.network
        return getattr(network.model, name)


class _ViewOfOptimizer:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def _place_of_rate(self) -> int:
        place = self._run.program.place_of_rate
        if place is None:
            raise TypeError("the learning rate of this optimizer follows a schedule, and cannot be set")
        return place

    @property
    def learning_rate(self) -> Any:
        return self._run.stack.read(self._run.place).optimizer[self._place_of_rate()]

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._run.stack.write(self._run.place, "optimizer", self._place_of_rate(), np.asarray(value))


def _content_with_a_view() -> tuple[type, ...]:
    import keras

    callbacks = keras.callbacks
    return (
        callbacks.CSVLogger,
        callbacks.EarlyStopping,
        callbacks.History,
        callbacks.LearningRateScheduler,
        callbacks.ReduceLROnPlateau,
        callbacks.TerminateOnNaN,
    )


def _is_default(callback: Any, hook: str) -> bool:
    import keras

    return getattr(getattr(callback, hook), "__func__", None) is getattr(keras.callbacks.Callback, hook)


def _is_for_nan(callback: Any) -> bool:
    import keras

    return type(callback) is keras.callbacks.TerminateOnNaN


def _looks_at_batches(callback: Any) -> bool:
    import keras

    if _is_for_nan(callback):
        return False  # `_train_together` calls it where the loss is lost
    if type(callback) in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq != "epoch")
    hooks = ["on_batch_begin", "on_batch_end"]
    hooks += [f"on_{kind}_batch_{end}" for kind in ("train", "test") for end in ("begin", "end")]
    return not all(_is_default(callback, hook) for hook in hooks)


def _not_for_a_program(fit: Fit) -> str | None:
    import keras

    if fit.strategy is not None:
        return f"it trains under a strategy of its own, {fit.strategy.summary}"
    for callback in fit.callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            return f"{callback!r} is no Keras callback"
        if _looks_at_batches(callback):
            return f"{type(callback).__name__} looks at every batch"
    if fit.verbose not in (0, None, False):
        return f"verbose={fit.verbose!r} shows progress by batch"
    if fit.options:
        return f"{', '.join(f'`{name}`' for name in fit.options)} is left to Keras"
    if _has_limits():
        return "keras.config limits the epochs or steps of every fit"
    if fit.shuffle not in (True, False, 0, 1):
        return f"shuffle={fit.shuffle!r} is left to Keras"
    return None


# -- data -----------------------------------------------------------------------------------------------------------


class _NotArraysError(Exception):
    """The data is not made of arrays; the message says what it is."""


# Arrays in Keras' own precision by the address of those that they were cast from.
_Casts = MutableMapping[int, Any]


def _rows(x: Any, y: Any, weights: Any, casts: _Casts) -> Rows:
    """Data as Keras passes it to a step: floats in Keras' own precision, weights for each output."""
    import keras

    cast = functools.partial(_array, casts=casts)
    rows = Rows(mapped(cast, x), mapped(cast, y), mapped(cast, weights))
    if weights is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(weights):
        rows = rows._replace(weights=keras.tree.map_structure(lambda _: rows.weights, rows.y))
    lengths = {len(part) for part in keras.tree.flatten(rows) if part is not None}
    if len(lengths) != 1:
        raise ValueError(f"Data must have the same number of rows in all its parts; found {sorted(lengths)}.")
    return rows


def _refuse_odd_sizes(fit: Fit) -> None:
    """Refuses numbers that a program would take and Keras would not, or the other way round."""
    sizes = {"batch_size": fit.batch_size, "validation_batch_size": fit.validation_batch_size}
    found = [
        *(whole_number_wanted(name, size, otherwise=", or None") for name, size in sizes.items() if size is not None),
        whole_number_wanted("epochs", fit.epochs),
        whole_number_wanted("initial_epoch", fit.initial_epoch, at_least=0),
    ]
    problems = [sentence for sentence in found if sentence is not None]
    if problems:
        raise ParameterError("\n".join(problems))


def _refuse_no_rows(fit: Fit) -> None:
    import keras

    for name, data in (("x", fit.x), ("validation_data", fit.validation_data)):
        if any(isinstance(part, np.ndarray) and part.ndim and not len(part) for part in keras.tree.flatten(data)):
            raise DataError(f"`{name}` must have rows; it has none.{' Leave it out to train without.' * (name != 'x')}")


def _array(part: Any, casts: _Casts) -> Any:
    import keras

    if not isinstance(part, np.ndarray):
        raise _NotArraysError(f"data of {type(part).__name__} is left to Keras")
    if part.dtype.kind == "f" and part.dtype != keras.config.floatx():
        found = casts.get(id(part))  # of fits that share their rows
        casts[id(part)] = found = part.astype(keras.config.floatx()) if found is None else found
        return found
    if part.dtype.kind not in "fiub":
        raise _NotArraysError(f"data of {part.dtype} is left to Keras")
    return part


def _length(x: Any) -> int:
    import keras

    return len(next(part for part in keras.tree.flatten(x) if part is not None))


def _three(data: Any) -> tuple[Any, Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise _NotArraysError("validation data that is a data set is left to Keras")
    x, y, *weights = data
    return x, y, weights[0] if weights else None


def _source(model: Any) -> Any:
    if _is_model(model):
        return model
    if callable(model):
        return Recipe(model, function=(model, {}))
    raise ParameterError(f"`model` must be a compiled keras.Model or a function that returns one; got {model!r}.")


def _is_model(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Model)


class _Pool:
    """The data of many fits, each different array once: `data`, and for each fit the number of its first row in it."""

    def __init__(self, program: Program, rows: Sequence[Rows]) -> None:
        import keras

        columns = list(zip(*[keras.tree.flatten(part) for part in rows], strict=True))
        parts, starts = [], []
        for column in columns:
            part, start = (None, None) if column[0] is None else self._once(column)
            parts.append(None if part is None else program.tensor(part))
            starts.append(start)
        pack = keras.tree.pack_sequence_as
        self.data = pack(rows[0], parts)
        self.starts = pack(rows[0], starts)

    @staticmethod
    def _once(arrays: Sequence[Any]) -> tuple[Any, Any]:
        known: dict[int, int] = {}
        kept: list[tuple[Any, int]] = []
        end, starts = 0, []
        for array in arrays:
            if id(array) not in known:
                same = (start for other, start in kept if _are_same(other, array))
                known[id(array)] = start = next(same, end)
                if start == end:
                    kept.append((array, end))
                    end += len(array)
            starts.append(known[id(array)])
        parts = [array for array, _ in kept]
        return parts[0] if len(parts) == 1 else np.concatenate(parts), np.array(starts, "int32")


def _are_same(one: Any, other: Any) -> bool:
    """Whether two arrays hold the same; most that do not are told apart by a few of their rows."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    few = slice(None, None, max(1, len(one) // 64))
    if not np.array_equal(one[few], other[few]):
        return False
    # All at once would take a byte for each number.
    return all(np.array_equal(one[n : n + 1024], other[n : n + 1024]) for n in range(0, len(one), 1024))


# -- training by a program ------------------------------------------------------------------------------------------


class _Stack:
    """The states of the models in training: stacked along a leading axis, or one alone without it."""

    def __init__(self, program: Program, networks: Sequence[Network], *, stacked: bool) -> None:
        self.program, self.stacked = program, stacked
        states = [network.state[:3] for network in networks]  # metrics start afresh in each epoch
        slots = program.to_lift([network.values for network in networks])
        values: Any = {slot: [network.values[slot] for network in networks] for slot in slots}
        fresh: Any = program.fresh_metrics()
        parts: Any = states[0]
        if stacked:
            parts = [[np.stack(same) for same in zip(*part, strict=True)] for part in zip(*states, strict=True)]
            fresh = [np.stack([value] * len(states)) for value in fresh]
        else:
            values = {slot: same[0] for slot, same in values.items()}
        values = {slot: np.array(same, "float64") for slot, same in values.items()}
        self.lifted, self.fresh = program.tensors(values), program.tensors(fresh)
        trainable, others, optimizer = program.tensors(list(parts))
        self.state = State(trainable, others, optimizer, self.fresh)
        self._read: State | None = None
        self._writes: list[tuple[int, str, int, Any]] = []

    def advance(self, members: Any, change: Callable[..., tuple[State, Any]]) -> Any:
        """Replaces the state of some models (all: None) by what a function makes of it."""
        self.flush()
        program = self.program
        if members is None:
            self.state, results = change(self.state, self.lifted)
        elif members[-1] - members[0] == len(members) - 1 and not program.compiles_each_size:
            # They stand in a row, which is quicker to cut out.
            ends = int(members[0]), int(members[-1]) + 1
            before, part, after = program.cut(self.state, *ends)
            part, results = change(part, program.cut(self.lifted, *ends)[1])
            self.state = program.joined(before, part, after)
        else:
            part, results = change(program.take(self.state, members), program.take(self.lifted, members))
            self.state = program.put(self.state, members, part)
        self._read = None
        return results

    def reset_metrics(self) -> None:
        self.flush()
        self.state = self.state._replace(metrics=self.fresh)

    def read(self, place: int) -> State:
        """The state of one model, as arrays."""
        self.flush()
        if self._read is None:
            self._read = self.program.arrays(self.state)
        if not self.stacked:
            return self._read
        return State(*[[value[place] for value in part] for part in self._read])

    def write(self, place: int, part: str, number: int, value: Any) -> None:
        """Sets one variable of one model, before the next step."""
        self._writes.append((place, part, number, value))

    def flush(self) -> None:
        if not self._writes:
            return
        writes, self._writes = self._writes, []
        parts = {name: list(getattr(self.state, name)) for name in State._fields}
        copies: dict[tuple[str, int], Any] = {}
        for place, part, number, value in writes:
            if (part, number) not in copies:
                copies[part, number] = np.array(self.program.arrays(parts[part][number]))
            if self.stacked:
                copies[part, number][place] = value
            else:
                copies[part, number][...] = value
        for (part, number), value in copies.items():
            parts[part][number] = self.program.tensor(value)
        self.state = State(**parts)
        self._read = None

    def put(self, source: State, place: int) -> None:
        """Sets one model to what it is in another state."""
        if not self.stacked:
            self.state = source
        else:
            index = np.array([place], "int32")
            self.state = self.program.put(self.state, index, self.program.take(source, index))
        self._read = None

    def take_over(self, parts: Sequence[tuple[Any, State]]) -> None:
        """Sets the models at some places to states, which others may follow that only fill up."""
        whole = [[np.array(value) for value in part] for part in self.program.arrays(self.state)]
        for places, state in parts:
            for values, news in zip(whole, self.program.arrays(state), strict=True):
                for value, new in zip(values, news, strict=True):
                    value[places] = new[: len(places)]
        self.state = self.program.tensors(State(*whole))
        self._read = None

    def keep(self, members: Any) -> None:
        """Goes on with some of the models only."""
        self.flush()
        self.state = self.program.take(self.state, members)
        self.lifted = self.program.take(self.lifted, members)
        self.fresh = self.program.take(self.fresh, members)
        self._read = None


def _train_turn(runs: list[_Run], told: _Told) -> None:
    """Trains fits of one structure: as many together as is quickest, and as well as they can be if it fails."""
    draw([run.network for run in runs])
    unstackable = runs[0].program.unstackable()
    size = _quickest_size(runs) if len(runs) > 1 and unstackable is None else 1
    for some in _parts(runs, size):
        fused = len(some) > 1
        for run in some:
            run.trained.how, run.trained.together = "fused" if fused else "alone", len(some)
            if not fused:
                no_other = "nothing else to train has its structure"
                run.trained.reason = no_other if len(runs) == 1 else unstackable or "one by one was quicker"
        train = _Training(some, told, stacked=True).carry_out if fused else None
        for run in some if train is None else _tried(some, "alone", train):
            for left in _tried([run], "Model.fit", functools.partial(_train_one, run, told)):
                _by_keras(left, told)


def _parts(runs: list[_Run], size: int) -> list[list[_Run]]:
    """The runs in parts of about the same length, none longer than `size`."""
    n_parts = -(-len(runs) // size)
    return [list(part) for part in np.array_split(np.array(runs, dtype=object), n_parts)]


def _train_one(run: _Run, told: _Told) -> None:
    # Tracing costs more than training: one that comes after many, as the last fit of a search does, goes their way.
    program = run.program
    stacked = program.has_traced(run.rows, stacked=True) and not program.has_traced(run.rows)
    _Training([run], told, stacked=stacked).carry_out()


def _quickest_size(runs: list[_Run]) -> int:
    """How many models to train together so that each takes least time; measured where it is not plain.

    Of large models few are trained together at most: many take more memory and are slower, since their weights do not
    stay in the processor's cache from one operation to the next.
    """
    program, n_rows = runs[0].program, runs[0].batch_size
    if program.stacks_slowly and not program.has_traced(runs[0].rows, stacked=True):
        if sum(map(_steps_ahead, runs)) < _STEPS_WORTH_STACKING:
            return 1
    steps = max(_steps_ahead(run) for run in runs)
    if program.multiplications_of_a_step(n_rows) < _FEW_MULTIPLICATIONS:
        together, alone = (program.seconds(n, runs[0].sizes[0], stacked=n > 1) for n in (len(runs), 1))
        slower = steps * (together - len(runs) * alone) > _SECONDS_TO_TRACE
        return 1 if slower and _quickest_program(runs, 1.0) is program else len(runs)
    try:
        seconds = {1: _seconds_a_step(runs[:1], stacked=False)}
        if seconds[1] * steps * len(runs) < _SECONDS_WORTH_A_LOOK:
            return 1
        sizes = {min(size, len(runs)) for size in _SIZES_OF_LARGE_MODELS}
        seconds |= {size: _seconds_a_step(runs[:size], stacked=True) / size for size in sizes}
    except _keras.NotPureError:
        # Training itself will find out what is wrong, and what to do instead.
        return min(len(runs), max(_SIZES_OF_LARGE_MODELS))
    return min(seconds, key=lambda size: seconds[size])


def _quickest_program(runs: list[_Run], in_all: float) -> Program:
    """The program for fits of one structure: in numpy where it has trained them before another one is traced."""
    program, size = runs[0].program, runs[0].sizes[0]
    in_numpy = program.in_numpy
    if in_numpy is None or program.multiplications_of_a_step(size) >= _FEW_MULTIPLICATIONS:
        return program
    if not all(in_numpy.takes(rows) for run in runs for rows in (run.rows, run.validation) if rows is not None):
        return program
    steps, of_an_epoch = max((_steps_ahead(run), -(-run.n_rows // size)) for run in runs)
    first = later = program.seconds(len(runs), size, stacked=len(runs) > 1)
    if program.saved_by_xla(size, stacked=len(runs) > 1):  # after the first epoch, on each core
        later = min(first, program.seconds_by_xla(size) * program.models_a_call(len(runs)))
    by_program = first * of_an_epoch + later * (steps - of_an_epoch)
    longer = (in_numpy.seconds(len(runs), size) * steps - by_program) * in_all
    return in_numpy if longer < _SECONDS_IN_NUMPY else program


def _steps_ahead(run: _Run) -> int:
    return (run.fit.epochs - run.fit.initial_epoch) * -(-run.n_rows // run.sizes[0])


def _seconds_a_step(runs: list[_Run], *, stacked: bool) -> float:
    """Time of one step, in seconds; what it computes is thrown away."""
    program = runs[0].program
    stack = _Stack(program, [run.network for run in runs], stacked=stacked)
    size = min(run.batch_size for run in runs)
    pool = _Pool(program, [mapped(lambda part: part[:size], run.rows) for run in runs])
    order = np.broadcast_to(np.arange(size, dtype="int32"), (len(runs), 2, size))
    starts = pool.starts if stacked else mapped(lambda start: start[0], pool.starts)
    order = np.ascontiguousarray(order if stacked else order[0])
    arguments = (stack.state, stack.lifted, pool.data, program.tensor(order), program.tensors(starts))
    light = program.is_light(runs[0].batch_size, stacked=stacked)
    program.arrays(program.run("train", *arguments, stacked=stacked, light=light)[1])  # traces
    begun = time.perf_counter()
    program.arrays(program.run("train", *arguments, stacked=stacked, light=light)[1])
    return (time.perf_counter() - begun) / 2


def _tried(runs: list[_Run], otherwise: How, train: Callable[[], None]) -> list[_Run]:
    """Trains by a program; the runs that it could not train, as they were before, to be trained otherwise."""
    before = {run: run.network.state for run in runs}
    try:
        train()
    except Exception as error:
        words = str(error) if isinstance(error, _keras.NotPureError) else f"the program raised {type(error).__name__}"
        left = [run for run in runs if run.trained.error is None and not run.has_ended]
        for run in left:
            run.network.state = before[run]  # a callback may have changed it, or been given that of the stack
            run.trained.how, run.trained.reason, run.trained.together = otherwise, words, 1
        return left
    return []


def _turns(runs: list[_Run], memory: float | None, at_most: int | None) -> list[list[_Run]]:
    """The runs in as many parts as do not fit in memory together."""
    budget = memory if memory is not None else free_memory() / 2
    each = runs[0].program.bytes_of_a_step(runs[0].batch_size)
    most = max(1, min(int(budget // max(each, 1)), at_most or len(runs)))
    n_turns = -(-len(runs) // most)
    size = -(-len(runs) // n_turns)
    turns: list[list[_Run]] = []
    for run in runs:
        # A callback that two fits share holds the state of one of them.
        callbacks = {id(callback) for callback in run.fit.callbacks}
        for turn in turns:
            others = {id(callback) for other in turn for callback in other.fit.callbacks}
            if len(turn) < size and not callbacks & others:
                turn.append(run)
                break
        else:
            turns.append([run])
    return turns


class _Part:
    """Some models of a stack, all with one number of rows and of epochs, that train apart from the others."""

    def __init__(self, training: _Training, runs: list[_Run]) -> None:
        self.runs, self.has_trained = runs, False
        self.places = np.array([run.place for run in runs], "int32")
        self._epochs_a_call = training._epochs_a_call(runs[0].n_rows)
        numbers = np.array([run.number for run in runs], "int32")
        fill = _MODELS_OF_A_PART - len(runs)
        places, numbers = np.pad(self.places, (0, fill), "edge"), np.pad(numbers, (0, fill), "edge")
        stack, program = training._stack, training._program
        self._program = program
        self.state: State = program.take(stack.state, places)
        self._fresh = program.take(stack.fresh, places)
        self._lifted = program.take(stack.lifted, places)
        self._starts = mapped(lambda start: start[numbers], training._training.starts)

    def next(self) -> _program.Part:
        """The next epochs, as many as a call takes."""
        first = self.runs[0]
        self._before = [run.orders.bit_generator.state for run in self.runs]
        n_epochs = min(first.fit.epochs - first.epoch, self._epochs_a_call)
        orders = np.zeros((_MODELS_OF_A_PART, n_epochs, first.n_rows), "int32")
        for of_run, run in zip(orders, self.runs, strict=False):
            for number in range(n_epochs):
                of_run[number] = run.order()
        return _program.Part(self.state._replace(metrics=self._fresh), self._lifted, orders, self._starts)

    def undo(self) -> None:
        """Epochs that could not be trained: their orders will be those of the next."""
        for run, before in zip(self.runs, self._before, strict=True):
            run.orders.bit_generator.state = before

    def take(self, state: State, results: Any) -> None:
        """Takes the state after the epochs, and down what was measured in each of them."""
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
    """Fits of one structure on their way through a program: stacked, or one alone."""

    def __init__(self, runs: list[_Run], told: _Told, *, stacked: bool) -> None:
        # Those of one number of rows take their last batch together, and stand in a row for it.
        runs = sorted(runs, key=lambda run: run.n_rows)
        self._runs, self._told, self._stacked = runs, told, stacked
        self._in_all = told.in_all
        self._program = program = _quickest_program(runs, told.in_all)
        self._stack = _Stack(program, [run.network for run in runs], stacked=stacked)
        self._training = _Pool(program, [run.rows for run in runs])
        watched: Any = [run.validation for run in runs]
        self._validation = None if watched[0] is None else _Pool(program, watched)
        self._size, self._validation_size = runs[0].sizes
        self._light = program.is_light(self._size, stacked=stacked)
        self._steps_a_call = program.steps_a_call
        self._saved_a_step = program.saved_by_xla(self._size, stacked=stacked)
        self._has_xla_for_epochs = stacked and self._saved_a_step > 0
        self._models_a_call = program.models_a_call(len(runs))
        self._sure_epochs = self._epochs_done = 0
        for number, run in enumerate(runs):
            run.number = run.place = number
        self._in_stack = list(runs)

    def carry_out(self) -> None:
        try:
            self._run_epochs(self._told)
        except Exception:
            raise  # what still runs is trained otherwise
        except BaseException:  # the user stopped it: what was trained so far is theirs
            self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        for run in self._runs:
            run.finish()

    def _run_epochs(self, told: _Told) -> None:
        for run in self._runs:
            run.attempt(lambda run: run.begin(self._stack))
        if not told.has_judge and not any(run.fit.callbacks for run in self._runs):
            self._sure_epochs = max(run.fit.epochs - run.fit.initial_epoch for run in self._runs)
        while active := self._still_active():
            self._let_go_of_others(active)
            if self._train_to_the_end(told):
                continue
            logs = self._train_epoch(active)
            self._validate([run for run in active if run.is_validated()], logs)
            for run in active:
                run.attempt(lambda run: run.end_epoch(_plain(logs[run])))  # noqa: B023  called at once
            if told.has_judge:
                for run in told.must_stop({run: (run.epoch, run.logs) for run in active if not run.is_done()}):
                    run.view.stop_training = True
            told(*((run, run.fit.epochs if run.is_done() else run.epoch) for run in active))

    def _train_to_the_end(self, told: _Told) -> bool:
        """Trains models for all epochs that are left, many in a call of XLA, where nobody looks on and it pays.

        A call takes a few models of one number of rows, incomplete batch and all, so that they need not be taken out of
        the stack and put back in every epoch.

        Returns:
            Whether any were trained.
        """
        parts = self._parts_for_xla()
        if not parts:
            return False
        try:
            told.while_computing(lambda: self._train_parts(parts, told))
        finally:  # also when the user stops it
            trained = [part for part in parts if part.has_trained]
            if trained:
                self._epochs_done += 1
                self._stack.take_over([(part.places, part.state) for part in trained])
        return bool(trained)

    def _train_parts(self, parts: list[_Part], told: _Told) -> None:
        lengths = {part.runs[0].n_rows for part in parts}
        by_xla = self._program.of_epochs(
            self._training.data, list(self._stack.lifted), lengths, size=self._size, light=self._light
        )
        if by_xla is None:
            self._has_xla_for_epochs = False
            return

        def train(part: _Part) -> Iterator[list[tuple[_Run, int]]]:
            while not part.runs[0].is_done():
                found = by_xla(part.next())
                if found is None:
                    self._has_xla_for_epochs = False
                    part.undo()
                    return
                part.take(*found)
                yield [(run, run.epoch) for run in part.runs]

        with contextlib.closing(_program.on_each_core([train(part) for part in parts])) as all_of_them:
            for done in all_of_them:
                told(*done)

    def _epochs_a_call(self, n_rows: int) -> int:
        """Epochs that a call by XLA takes, which cannot be interrupted."""
        seconds = self._program.seconds_by_xla(self._size) * -(-n_rows // self._size) * len(self._in_stack)
        at_most = _program.epochs_a_call(n_rows, self._size)
        return max(1, min(at_most, int(_SECONDS_A_CALL / seconds)))

    def _parts_for_xla(self) -> list[_Part]:
        if not (self._has_xla_for_epochs and self._sure_epochs and self._epochs_done) or self._validation is not None:
            return []
        program = self._program
        alike: dict[tuple[int, int], list[_Run]] = {}
        for run in self._in_stack:
            alike.setdefault((run.n_rows, run.fit.epochs - run.epoch), []).append(run)
        parts: list[tuple[int, _Part]] = []
        for (n_rows, n_epochs), runs in sorted(alike.items(), key=lambda item: -len(item[1])):
            whole, rest = divmod(n_rows, self._size)
            steps = whole + _STEPS_OF_AN_INCOMPLETE_BATCH * bool(rest)
            # What parts are filled up with is computed, too.
            filled = (whole + bool(rest)) * (-len(runs) % _MODELS_OF_A_PART)
            saved = self._saved_a_step * steps * len(runs) - program.seconds_by_xla(self._size) * filled
            # What is compiled beside another program takes half as long, on another core.
            costs = _SECONDS_OF_XLA_FOR_EPOCHS / (2 if parts else 1)
            pays = saved * n_epochs * self._in_all > costs
            few_orders = n_rows * self._epochs_a_call(n_rows) * len(runs) <= _MOST_ORDERS
            if pays and few_orders and whole < _program.MOST_STEPS_BY_XLA:
                some = range(0, len(runs), _MODELS_OF_A_PART)
                parts += [(first, _Part(self, runs[first : first + _MODELS_OF_A_PART])) for first in some]
        # The first of each number of rows come first, so that what is compiled for them is compiled at one time.
        return [part for _, part in sorted(parts, key=lambda part: part[0])]

    def _still_active(self) -> list[_Run]:
        return [run for run in self._in_stack if run.trained.error is None and not run.is_done()]

    def _let_go_of_others(self, active: list[_Run]) -> None:
        """Takes what has ended out of the stack, so that the others go faster."""
        if not self._stacked or len(active) == len(self._in_stack):
            return
        for run in set(self._in_stack) - set(active):
            run.finish()
        if self._program.compiles_each_size and len(active) > len(self._in_stack) / 2:
            return  # to train what has ended along is quicker than to compile for each number of those that go on
        self._stack.keep(np.array([run.place for run in active], "int32"))
        self._in_stack = active
        for place, run in enumerate(active):
            run.place = place

    def _train_epoch(self, active: list[_Run]) -> dict[_Run, dict[str, Any]]:
        for run in active:
            if run.fit.callbacks:
                run.attempt(lambda run: run.call_with_state("on_epoch_begin", run.epoch, {}))
        self._stack.reset_metrics()
        before = self._stack.state
        running = set(active)  # what has ended and is still in the stack goes along, in any order
        orders = {run: run.order() if run in running else np.arange(run.n_rows) for run in self._in_stack}
        logs = self._sweep("train", orders, self._training, self._size)
        for run in active:
            if not math.isfinite(logs[run]["loss"]) and any(map(_is_for_nan, run.callbacks)):
                logs[run] = self._stop_at_nan(run, orders[run], before)
        self._epochs_done += 1
        return logs

    def _validate(self, runs: list[_Run], logs: dict[_Run, dict[str, Any]]) -> None:
        if not runs or self._validation is None:
            return
        for run in runs:
            run.attempt(lambda run: run.call_with_state("on_test_begin", {}))
        self._stack.reset_metrics()
        watched = set(runs)
        taken = (run for run in self._in_stack if run in watched or run.has_ended)
        orders = {run: np.arange(run.n_validation_rows) for run in taken}
        found = self._sweep("test", orders, self._validation, self._validation_size)
        for run in runs:
            run.attempt(lambda run: run.call_with_state("on_test_end", _plain(found[run])))
            logs[run] = {**logs[run], **{f"val_{name}": value for name, value in found[run].items()}}

    def _sweep(self, kind: Kind, orders: Mapping[_Run, Any], pool: _Pool, size: int) -> dict[_Run, dict[str, Any]]:
        """Takes every run through all its batches: what is common to many at once, then the rest of each.

        Args:
            kind: What to do.
            orders: The row numbers of each run, in the order of the stack.
            pool: The rows.
            size: Rows of a batch.
        """
        logs: dict[_Run, dict[str, Any]] = {}
        whole = {run: len(order) // size for run, order in orders.items()}
        done = 0
        for until in sorted(set(whole.values())):
            chosen = {run: order for run, order in orders.items() if whole[run] >= until}
            for steps, by_xla in self._calls(kind, until - done):
                begun = time.perf_counter()
                logs |= self._take_steps(kind, chosen, pool, done * size, steps, size, by_xla=by_xla)
                if steps == self._steps_a_call and time.perf_counter() - begun < _SECONDS_A_CALL / 2:
                    self._steps_a_call *= 2
                done += steps
        rests = {run: (whole[run], len(order) % size) for run, order in orders.items()}
        for steps, rest in sorted({rest for rest in rests.values() if rest[1]}):
            chosen = {run: order for run, order in orders.items() if rests[run] == (steps, rest)}
            logs |= self._take_steps(kind, chosen, pool, steps * size, 1, rest)
        return logs

    def _calls(self, kind: Kind, steps: int) -> Iterator[tuple[int, bool]]:
        """The calls that take so many steps: how many each takes, and whether by XLA.

        The first epoch is never by XLA, which says nothing of a label or an index that is out of range; nor are the
        last of the models, for which a program of many would be slower, and another one compiled anew.
        """
        saved = self._saved_a_step * len(self._runs) * steps * max(self._sure_epochs, self._epochs_done) * self._in_all
        many = 2 * len(self._in_stack) >= self._models_a_call
        if kind == "train" and self._epochs_done and many and saved > _SECONDS_OF_XLA:
            n_calls = -(-steps // _program.MOST_STEPS_BY_XLA)
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
        orders: Mapping[_Run, Any],
        pool: _Pool,
        first: int,
        steps: int,
        size: int,
        *,
        by_xla: bool = False,
    ) -> dict[_Run, dict[str, Any]]:
        """Takes runs through `steps` batches of `size` rows, from the row `first` of their orders."""
        program, runs = self._program, list(orders)
        order = np.stack([numbers[first : first + steps * size] for numbers in orders.values()]).astype("int32")
        order = order.reshape(len(runs), steps, size)
        if not self._stacked:
            starts = mapped(lambda start: start[0], pool.starts)
            members, order = None, order[0]
        else:
            places, numbers = np.array([(run.place, run.number) for run in runs], "int32").T
            if len(runs) == 1:  # some operations are not vectorised over one
                places, numbers, order = np.repeat(places, 2), np.repeat(numbers, 2), np.repeat(order, 2, axis=0)
            starts = mapped(lambda start: start[numbers], pool.starts)
            members = None if len(runs) == len(self._in_stack) > 1 else places
        arguments = pool.data, program.tensor(order), program.tensors(starts)
        models = self._models_a_call if by_xla else 0

        def run(state: State, lifted: dict[int, Any]) -> tuple[State, Any]:
            return program.run(kind, state, lifted, *arguments, stacked=self._stacked, light=self._light, by_xla=models)

        results = program.arrays(self._stack.advance(members, run))
        if not self._stacked:
            return {runs[0]: results}
        # Numbers of Python from here on, which is quicker for all of them at once.
        values = [value.tolist() if value.ndim == 1 else value for value in results.values()]
        return {run: dict(zip(results, of_run, strict=True)) for run, *of_run in zip(runs, *values, strict=False)}

    def _stop_at_nan(self, run: _Run, order: Any, before: State) -> dict[str, Any]:
        """Goes through an epoch again, step by step, up to the one in which the loss is lost."""
        self._stack.put(before, run.place)
        logs: dict[str, Any] = {}
        for step, first in enumerate(range(0, run.n_rows, self._size)):
            rows = min(self._size, run.n_rows - first)
            logs = self._take_steps("train", {run: order}, self._training, first, 1, rows)[run]
            for callback in filter(_is_for_nan, run.callbacks):
                callback.on_batch_end(step, _plain(logs))
            if run.view.stop_training:
                break
        return logs


def _plain(logs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if type(value) is float else _plain_value(value) for name, value in logs.items()}


def _plain_value(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.array(value)


# -- training by Keras ----------------------------------------------------------------------------------------------


def _by_keras(run: _Run, told: _Told) -> None:
    """`Model.fit`, with the rows in the order of the seed."""
    import keras

    fit, trained = run.fit, run.trained
    trained.how = "Model.fit"
    history = None
    try:
        model = trained.network.model  # type: ignore[union-attr]
        scope = contextlib.nullcontext() if fit.strategy is None else fit.strategy.scope()
        arguments = _arguments(fit, run.seed, type(model).fit)

        def after_epoch(epoch: int, logs: Mapping[str, Any]) -> None:
            if told.must_stop({run: (epoch + 1, logs)}):
                model.stop_training = True

        arguments["callbacks"].append(keras.callbacks.LambdaCallback(on_epoch_end=after_epoch))
        with isolated(run.seed), scope:
            if fit.strategy is not None:
                fit.strategy.prepare(model)
            try:
                history = model.fit(**arguments)
            finally:
                trained.network.history = history or getattr(model, "history", None)  # type: ignore[union-attr]
                trained.history = dict(getattr(trained.network.history, "history", {}))  # type: ignore[union-attr]
    except Exception as error:
        trained.error = error


def _arguments(fit: Fit, seed: int, method: Any) -> dict[str, Any]:
    import keras

    arguments: dict[str, Any] = {
        "epochs": fit.epochs,
        "initial_epoch": fit.initial_epoch,
        "validation_data": fit.validation_data,
        "validation_batch_size": fit.validation_batch_size,
        "validation_freq": fit.validation_freq,
        "callbacks": list(fit.callbacks),
        "verbose": fit.verbose,
        **fit.options,
    }
    try:
        rows = _rows(fit.x, fit.y, fit.sample_weight, {})
    except _NotArraysError:
        rows = None
    if (
        rows is None
        or fit.shuffle not in (True, 1)
        or fit.options.get("steps_per_epoch")
        or method is not keras.Model.fit
    ):
        given = {"x": fit.x, "y": fit.y, "sample_weight": fit.sample_weight, "shuffle": fit.shuffle}
        return {**arguments, **given, "batch_size": fit.batch_size}
    if fit.validation_batch_size is None and fit.validation_data is not None:
        arguments["validation_batch_size"] = fit.batch_size or 32
    orders = np.random.default_rng((seed, fit.initial_epoch))
    if fit.strategy is not None and fit.strategy.divides_on_tensorflow:
        return {**arguments, **_without_python(rows, fit, orders), "shuffle": False}
    batches = _batches()(rows, fit.batch_size or 32, orders)
    # Keras' adapters ask for a new order at moments that differ between backends; the begin of an epoch does not.
    reorder = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: batches.reorder())
    return {**arguments, "x": batches, "shuffle": False, "callbacks": [reorder, *arguments["callbacks"]]}


def _without_python(rows: Rows, fit: Fit, orders: Any) -> dict[str, Any]:
    """All epochs as one `tf.data.Dataset` of batches, in the same orders.

    Over several devices, batches that are made in Python were seen to take many times as long on a busy machine.
    """
    import keras
    import tensorflow as tf

    size, n_rows = fit.batch_size or 32, _length(rows.x)
    steps, n_epochs = -(-n_rows // size), max(fit.epochs - fit.initial_epoch, 1)
    with tf.device("CPU:0"):
        # Keras takes a list of arrays from its user, but from a data set a tuple of them.
        parts = keras.tree.lists_to_tuples(mapped(tf.constant, rows))
        order = tf.constant(np.stack([orders.permutation(n_rows) for _ in range(n_epochs)]).astype("int32"))

    def batch(number: Any) -> Any:
        first = number % steps * size
        chosen = order[number // steps, first : first + size]
        x, y, weights = mapped(lambda part: tf.gather(part, chosen), parts)
        return (x, y) if weights is None else (x, y, weights)

    numbers = tf.data.Dataset.range(n_epochs * steps, output_type=tf.int32)
    return {"x": numbers.map(batch), "steps_per_epoch": steps}


@functools.cache
def _batches() -> Any:
    import keras

    class Batches(keras.utils.PyDataset):
        """Batches of arrays in a new order each epoch, the order that a program would take them in."""

        def __init__(self, rows: Rows, size: int, orders: Any) -> None:
            super().__init__()
            self._rows, self._size, self._orders = rows, size, orders
            self._n_rows = _length(rows.x)
            self._order = np.arange(self._n_rows)

        def __len__(self) -> int:
            return -(-self._n_rows // self._size)

        def reorder(self) -> None:
            self._order = self._orders.permutation(self._n_rows)

        def __getitem__(self, number: int) -> Any:
            chosen = self._order[number * self._size : (number + 1) * self._size]
            # Keras takes a list of arrays from its user, but from a data set a tuple of them.
            x, y, weights = keras.tree.lists_to_tuples(mapped(lambda part: part[chosen], self._rows))
            return (x, y) if weights is None else (x, y, weights)

    return Batches
