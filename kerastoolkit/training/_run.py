"""One fit while it trains: its data, its callbacks, its history; and those who observe it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._values import is_whole, whole_number_wanted
from kerastoolkit.exceptions import DataError, ParameterError
from kerastoolkit.training._compatibility import has_limits
from kerastoolkit.training._data import Casts, NotArraysError, n_rows_of, rows_of, unpack_validation
from kerastoolkit.training._fits import Fit, Trained
from kerastoolkit.training._program import Program
from kerastoolkit.training._stack import Stack
from kerastoolkit.training._state import Array, Samples, State, form_of, tree_map
from kerastoolkit.training.network import Network, Recipe

if TYPE_CHECKING:
    import keras

# From fits that trained an epoch together, each with the number of its epochs and the logs of the last, to those of
# them that must stop.
ShouldStop = Callable[[Mapping[Fit, tuple[int, Mapping[str, Any]]]], set[Fit]]


class Observers:
    """The callables that `fit_many` was given: told of each epoch, asked which fits must stop.

    Args:
        runs: All fits.
        on_epoch_end: As for `fit_many`.
        should_stop: As for `fit_many`.
        while_computing: As for `fit_many`.

    Attributes:
        expected_ratio: How many times as many fits like these there will be as there are here.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        on_epoch_end: Callable[[int, int], None] | None,
        should_stop: ShouldStop | None,
        while_computing: Callable[[], None] | None,
    ) -> None:
        self._on_epoch_end, self._should_stop, self._while_computing = on_epoch_end, should_stop, while_computing
        self.expected_ratio = 1.0
        self._epochs = sum(run.epochs for run in runs)
        self._done: dict[Run, int] = {}

    def __call__(self, *runs: tuple[Run, int]) -> None:
        """Reports how many epochs of some fits are done."""
        self._done.update(runs)
        if self._on_epoch_end is not None:
            self._on_epoch_end(sum(self._done.values()), self._epochs)

    def while_computing(self, compute: Callable[[], None]) -> None:
        """Runs what takes long and needs little Python in a thread, and `while_computing` in this one."""
        if self._while_computing is None:
            compute()
            return
        with concurrent.futures.ThreadPoolExecutor(1, "kerastoolkit-training") as thread:
            computed = thread.submit(compute)
            self._while_computing()
            computed.result()

    @property
    def can_stop(self) -> bool:
        """Whether fits may be stopped before their last epoch."""
        return self._should_stop is not None

    def must_stop(self, logs: Mapping[Run, tuple[int, Mapping[str, Any]]]) -> set[Run]:
        """Those of the runs that trained an epoch which must not train another."""
        if self._should_stop is None:
            return set()
        stopping = self._should_stop({run.fit: progress for run, progress in logs.items()})
        return {run for run in logs if run.fit in stopping}


class Run:
    """A fit while it trains: its data, its callbacks, its history.

    Args:
        fit: The fit.
        casts: Arrays that were cast for other fits; see `rows_of`.

    Attributes:
        trained: What becomes of it.
        seed: Its seed; drawn if the fit has none.
        group: Key of the fits that one program can train; `("Model.fit",)` for what no program can train.
        number: Its place among the runs of its program.
        place: Its place among those that are still in the stack.
        rng: The generator of the order of rows in each epoch.
    """

    network: Network
    program: Program
    rows: Samples
    validation: Samples | None
    stack: Stack
    view: Any

    def __init__(self, fit: Fit, casts: Casts) -> None:
        self.fit = fit
        self.trained = Trained(None)
        self.seed = int(np.random.randint(2**31 - 1)) if fit.seed is None else fit.seed
        self.group: Any = ("Model.fit",)
        self.number = self.place = 0
        self.has_ended = False
        try:
            self._prepare(casts)
        except Exception as error:
            self.trained.error = error

    def _prepare(self, casts: Casts) -> None:
        fit = self.fit
        _check_sizes(fit)
        _check_rows(fit)
        reason = _unsupported_fit(fit)
        rows = None
        if reason is None:
            try:
                rows = rows_of(fit.x, fit.y, fit.sample_weight, casts)
                self.validation = (
                    None if fit.validation_data is None else rows_of(*unpack_validation(fit.validation_data), casts)
                )
            except NotArraysError as error:
                rows, reason = None, str(error)
        network = fit.model if isinstance(fit.model, Network) else None
        network = network or Network(_model_or_recipe(fit.model), fit.seed)
        if rows is not None:
            network.ready(tree_map(lambda part: part[:1], rows))
            reason = network.reason
        self.trained.network, self.trained.reason = network, reason
        if reason is not None or rows is None:
            self.trained.how = "Model.fit"
            return
        self.rows, self.network = rows, network
        self.program = network.program  # type: ignore[assignment]  # there is one, since there is no reason
        self.n_rows = n_rows_of(rows.x)
        self.batch_size = min(fit.batch_size or 32, self.n_rows)
        self.n_validation_rows = 0 if self.validation is None else n_rows_of(self.validation.x)
        self.sizes = fit.batch_size or 32, fit.validation_batch_size or fit.batch_size or 32
        form = form_of(rows), self.validation and form_of(self.validation)
        self.group = (id(self.program), form, self.sizes)

    @property
    def epochs(self) -> int:
        """Epochs to count for it; 0 where the fit was refused, whose `epochs` may be anything."""
        return self.fit.epochs if is_whole(self.fit.epochs) else 0

    # -- callbacks -----------------------------------------------------------------------------------------------

    def attempt(self, action: Callable[[Run], None]) -> None:
        """Calls something that may raise an error of this run alone, which ends this run and no other."""
        if self.trained.error is None:
            try:
                action(self)
            except Exception as error:
                self.trained.error = error

    def begin(self, stack: Stack) -> None:
        """Begins training in a stack."""
        import keras

        fit = self.fit
        self.stack = stack
        self.logs: dict[str, Any] = {}
        self.history = keras.callbacks.History()
        self.callbacks = [*fit.callbacks, self.history]
        # Keras' own callbacks use little of a model, which a view has; others get the model itself.
        self.whole = not all(type(callback) in _served_by_view() for callback in fit.callbacks)
        self.view = self.network.model if self.whole else ModelView(self)
        self.view.stop_training = False
        params = {"verbose": 0, "epochs": fit.epochs, "steps": -(-self.n_rows // self.batch_size)}
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(self.view)
        self.rng = np.random.default_rng((self.seed, fit.initial_epoch))
        self.epoch = fit.initial_epoch
        self.call_with_state("on_train_begin", {})
        self.epoch = max(self.epoch, _keras.first_epoch(self.view))

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Ends an epoch with its losses and metrics."""
        self.call_with_state("on_epoch_end", self.epoch, logs)
        self.logs = logs
        self.epoch += 1

    def finish(self) -> None:
        """Ends training: of the optimizer, of the callbacks; the network gets its state back."""
        if self.has_ended:
            return
        self.has_ended = True
        self.attempt(Run._end)
        if self.trained.error is None:
            self.network.state = State(*[[np.array(value) for value in part] for part in self.stack.read(self.place)])
        self.trained.history = dict(self.history.history)
        # Callbacks keep the view, which would keep the rows and the states of all models trained together.
        view = getattr(self, "view", None)  # there is none if a callback raised at once
        if isinstance(view, ModelView):
            view.detach(self.network)
            # A cycle of history and network would live until Python's garbage collector finds it.
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
        """Calls a hook of the callbacks; one that gets the model itself finds the current weights in it."""
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
        """Whether it has trained its last epoch."""
        return bool(self.view.stop_training) or self.epoch >= self.fit.epochs

    def permutation(self) -> Array:
        """Row indices of the next epoch, shape `(rows,)`, int32."""
        permutation = self.rng.permutation(self.n_rows) if self.fit.shuffle else np.arange(self.n_rows)
        return permutation.astype("int32")  # for many models and many rows they take memory as well

    def is_validated(self) -> bool:
        """Whether this epoch ends with a validation."""
        every = self.fit.validation_freq
        if self.validation is None:
            return False
        return (self.epoch + 1) % every == 0 if isinstance(every, int) else self.epoch + 1 in every


class ModelView:
    """What Keras' own callbacks see of a model that exists as one row of a stack."""

    def __init__(self, run: Run) -> None:
        self._run: Run | None = run
        self._network = run.network
        self.stop_training = False
        self.optimizer = OptimizerView(run)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        model = self._network.model if self._run is None else self._run.program.template
        return list(model.metrics)

    def detach(self, network: Network) -> None:
        """Becomes a proxy of the model, when training is over."""
        stopped = self.stop_training
        vars(self).clear()
        vars(self).update(stop_training=stopped, _network=network, _run=None)

    def get_weights(self) -> list[Array]:
        if self._run is None:
            return self._network.model.get_weights()  # type: ignore[no-any-return]
        state = self._run.stack.read(self._run.place)
        return [np.array(getattr(state, part)[number]) for part, number in self._run.program.weight_places()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        if self._run is None:
            self._network.model.set_weights(weights)
            return
        for (part, number), value in zip(self._run.program.weight_places(), weights, strict=True):
            self._run.stack.write(self._run.place, part, number, value)

    def jax_state_sync(self) -> None:
        # On JAX, Keras' callbacks call this before they read their model. A stack is always current; without this
        # method every fit would build a model that nobody asked for, and trace a program of its own to predict.
        if self._run is None:
            self._network.model.jax_state_sync()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        network = self._network if self._run is None else self._run.network
        return getattr(network.model, name)


class OptimizerView:
    """What they see of its optimizer."""

    def __init__(self, run: Run) -> None:
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
    def learning_rate(self, value: float | Array) -> None:
        self._run.stack.write(self._run.place, "optimizer", self._place_of_rate(), np.asarray(value))


def _served_by_view() -> tuple[type, ...]:
    """The callbacks for which a view is enough."""
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


def _is_default(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Whether a callback does nothing in a hook."""
    import keras

    return getattr(getattr(callback, hook), "__func__", None) is getattr(keras.callbacks.Callback, hook)


def is_for_nan(callback: keras.callbacks.Callback) -> bool:
    """Whether it is Keras' callback that ends training at a loss which is not a number."""
    import keras

    return type(callback) is keras.callbacks.TerminateOnNaN


def _watches_batches(callback: keras.callbacks.Callback) -> bool:
    import keras

    if is_for_nan(callback):
        return False  # which `fused` calls in the epoch whose loss is not a number
    if type(callback) in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq != "epoch")
    hooks = ["on_batch_begin", "on_batch_end"]
    hooks += [f"on_{kind}_batch_{end}" for kind in ("train", "test") for end in ("begin", "end")]
    return not all(_is_default(callback, hook) for hook in hooks)


def _unsupported_fit(fit: Fit) -> str | None:
    """Why `Model.fit` must do a fit, by its arguments; None if a program can."""
    import keras

    if fit.strategy is not None:
        return f"it trains under a strategy of its own, {fit.strategy.summary}"
    for callback in fit.callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            return f"{callback!r} is no Keras callback"
        if _watches_batches(callback):
            return f"{type(callback).__name__} looks at every batch"
    if fit.verbose not in (0, None, False):
        return f"verbose={fit.verbose!r} shows progress by batch"
    if fit.options:
        return f"{', '.join(f'`{name}`' for name in fit.options)} is left to Keras"
    if has_limits():
        return "keras.config limits the epochs or steps of every fit"
    if fit.shuffle not in (True, False, 0, 1):
        return f"shuffle={fit.shuffle!r} is left to Keras"
    return None


def _check_sizes(fit: Fit) -> None:
    """Refuses numbers that a program would accept and Keras would not, or the other way round."""
    sizes = {"batch_size": fit.batch_size, "validation_batch_size": fit.validation_batch_size}
    found = [
        *(whole_number_wanted(name, size, otherwise=", or None") for name, size in sizes.items() if size is not None),
        whole_number_wanted("epochs", fit.epochs),
        whole_number_wanted("initial_epoch", fit.initial_epoch, at_least=0),
    ]
    problems = [sentence for sentence in found if sentence is not None]
    if problems:
        raise ParameterError("\n".join(problems))


def _check_rows(fit: Fit) -> None:
    """Refuses data without rows."""
    import keras

    for name, data in (("x", fit.x), ("validation_data", fit.validation_data)):
        if any(isinstance(part, np.ndarray) and part.ndim and not len(part) for part in keras.tree.flatten(data)):
            raise DataError(f"`{name}` must have rows; it has none.{' Leave it out to train without.' * (name != 'x')}")


def _model_or_recipe(model: keras.Model | Callable[[], keras.Model]) -> keras.Model | Recipe:
    if is_model(model):
        return model
    if callable(model):
        return Recipe(model, function=(model, {}))
    raise ParameterError(f"`model` must be a compiled keras.Model or a function that returns one; got {model!r}.")


def is_model(model: object) -> TypeGuard[keras.Model]:
    """Whether something is a model of Keras."""
    import keras

    return isinstance(model, keras.Model)
