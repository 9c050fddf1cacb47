"""A model as its structure and its state; the `keras.Model` itself is built when somebody asks for it.

Building a small Keras model takes longer than training it, and Keras never frees all the memory of a built model. A
search makes hundreds of models whose layers nobody ever looks at: for those the state is enough. Their initial weights
are drawn as a build would draw them; see `_drawing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._cache import Cache
from kerastoolkit._copies import copied
from kerastoolkit._types import InputArrays
from kerastoolkit.training import _backends
from kerastoolkit.training._drawing import Blueprint
from kerastoolkit.training._program import Forward, Program
from kerastoolkit.training._state import Array, Samples, State, assign, form_of, value_of
from kerastoolkit.training._structure import (
    Structure,
    compile_key,
    fingerprint,
    structure_of,
    surroundings,
)
from kerastoolkit.training._unsupported import unsupported
from kerastoolkit.training.seeds import isolated

if TYPE_CHECKING:
    import keras


# Each program and each blueprint holds a model. A search over more structures than this has to trace again.
_MAX_KEPT = 64
_SEED_OF_TEMPLATES = 20_240_229  # any number: nobody sees the weights of a template


class Recipe:
    """How a compiled model is made.

    Args:
        build: Builds a model; called for each model.
        compile: Compiles a model, with a new optimizer, loss and metrics in each call; None if `build` does. Defaults
            to `None`.
        function: The function behind `build` and its arguments, from which it can be proved that two builds do the
            same; None if there is no such function. Defaults to `None`.
        compile_arguments: From whether `build` compiles to what `compile` will pass to `Model.compile`, including the
            optimizer if it is a new one. Defaults to nothing.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        compile: Callable[[keras.Model], None] | None = None,
        *,
        function: tuple[Callable[..., Any], Mapping[str, Any]] | None = None,
        compile_arguments: Callable[[bool], Mapping[str, Any]] = lambda compiled: {},
    ) -> None:
        self._build, self._compile, self._compile_arguments = build, compile, compile_arguments
        self._function = function
        self.origin = None if function is None else _origin(*function)

    @property
    def would_differ(self) -> bool:
        """Whether something outside that the function uses has changed since, so that it would build another model."""
        return self._function is not None and _origin(*self._function) != self.origin

    @property
    def trusted_origin(self) -> Any:
        """Key of the models that the function builds; None where they may differ by what they draw."""
        blueprint = self.blueprint()
        return None if blueprint is not None and blueprint.draws_elsewhere else self.origin

    def make(self) -> keras.Model:
        """Builds and compiles a model."""
        blueprint = self.blueprint()
        model = self._build() if blueprint is None else blueprint.make(self._build)
        if self._compile is not None:
            self._compile(model)
        return model

    def blueprint(self) -> Blueprint | None:
        """What is known of the build function with these arguments; None where nothing can be known."""
        if self.origin is None or not _keras.is_trusted():
            return None
        return _BLUEPRINTS.find(self.origin) or _BLUEPRINTS.keep(self.origin, Blueprint())

    def key(self) -> tuple[Any, Any]:
        """Key of the compiled models that this makes, and their optimizer if it is new; None where it is unknown."""
        blueprint = self.blueprint()
        if blueprint is None or blueprint.compiles is None:
            return None, None
        arguments = self._compile_arguments(blueprint.compiles)
        try:
            return (self.origin, compile_key(arguments)), arguments.get("optimizer")
        except Exception:
            return None, None


def _origin(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return fingerprint(function), fingerprint(dict(arguments)), surroundings()
    except Exception:  # an object of the user's may raise anything
        return None


class _Ready(NamedTuple):
    """What a network needs to begin training."""

    reason: str | None
    program: Program | None
    values: list[float]


class PendingState(NamedTuple):
    """The state before training of a network whose initial weights are still to be drawn, together with others."""

    blueprint: Blueprint
    draws: list[int]
    optimizer: list[Any]


_BLUEPRINTS: Cache[Any, Blueprint] = Cache(_MAX_KEPT)
_EXAMPLES: Cache[Any, keras.Model] = Cache(_MAX_KEPT)
_PROGRAMS: Cache[Any, Program] = Cache(_MAX_KEPT, on_evict=_backends.release_memory)
_READY: Cache[Any, _Ready] = Cache(_MAX_KEPT)


class Network:
    """A compiled model: its structure, its state, and the `keras.Model` when it is asked for.

    Args:
        source: A compiled model, or a recipe for one.
        seed: Seed for building the model and drawing its weights; None to draw from the generators of the process.
            Defaults to `None`.

    Attributes:
        reason: Why `Model.fit` must train it, in words; None if a shared program can.
        program: The program, once the network is `ready`; None if there is a reason.
        values: The hyper-parameters in which it may differ from other models of its structure.
        history: The `keras.callbacks.History` of its last fit.
    """

    def __init__(self, source: keras.Model | Recipe, seed: int | None = None) -> None:
        self.reason: str | None = None
        self.program: Program | None = None
        self.values: list[float] = []
        self._history: Any = None
        self._recipe = source if isinstance(source, Recipe) else None
        self._forward: Forward | None = None
        self._forward_key: Any = None
        self._forward_model: Any = None
        # Either a model, or a state and an example: a model of the same structure that nobody outside can change.
        self._model: Any = None if isinstance(source, Recipe) else source
        self._state: Any = None
        self._example: Any = None
        self._key: Any = None
        self._optimizer: Any = None
        self._batch: Samples | None = None
        self._handed_out = not isinstance(source, Recipe)
        if self._recipe is not None:
            self._begin(self._recipe, seed)

    def _begin(self, recipe: Recipe, seed: int | None) -> None:
        """Notes the draws of the initial weights instead of building, where that is known to give the same."""
        blueprint = recipe.blueprint()
        self._key, self._optimizer = recipe.key()
        example = _EXAMPLES.find(self._key) if self._key is not None else None
        if blueprint is not None and example is not None and blueprint.predicts(seed):
            self._example = example
            self._state = PendingState(blueprint, blueprint.draws(seed), [])
            return
        with isolated(seed):
            model = recipe.make()
        self._key, self._optimizer = recipe.key()
        alike = example is None or (blueprint is not None and blueprint.predicts(seed))
        # Where more than weights may depend on draws, only this very model is sure to be what was drawn.
        can_be_rebuilt = blueprint is not None and (blueprint.verified or blueprint.is_all_weights)
        if self._key is None or not model.built or not alike or not can_be_rebuilt:
            self._model = model
            return
        self._example = _EXAMPLES.keep(self._key, model)
        self._state = _state_of(model, [value_of(variable) for variable in model.variables])

    @property
    def example(self) -> keras.Model:
        """A model of the structure, not to be changed: the model itself, or one with other weights."""
        return self._model if self._model is not None else self._example

    def ready(self, batch: Samples) -> None:
        """Finds or makes the program that trains it.

        Args:
            batch: Rows `(x, y, weights)` as they will be trained on, for Keras to build what depends on data.
        """
        form = form_of(batch)
        self._forward, self._batch = None, batch
        if self._model is not None:
            self.reason, self.program, self.values = self._start(self._model, batch, form, private=False)
            return
        start = _READY.find((self._key, form))
        if start is None:
            example = self._example
            if is_built(example):  # for data of another form
                with isolated(_SEED_OF_TEMPLATES):
                    example = self._recipe.make()  # type: ignore[union-attr]
            start = _READY.keep((self._key, form), self._start(example, batch, form, private=True))
        self.reason, self.program, self.values = start
        if self.program is None:
            return
        if self._optimizer is not None:
            self.values = self.program.values_with(self.values, self._optimizer)
        if not self._state.optimizer:
            given = self._example.optimizer if self._optimizer is None else self._optimizer
            self._state = self._state._replace(optimizer=self.program.fresh_optimizer(given))

    def _start(self, model: keras.Model, batch: Any, form: Any, *, private: bool) -> _Ready:
        reason = unsupported(model)
        if reason is not None:
            return _Ready(reason, None, [])
        _keras.build(model, batch)
        # A model that was handed out may have been changed, and may differ from what its function builds.
        origin = None if self._recipe is None or self._handed_out else self._recipe.trusted_origin
        structure = structure_of(model, origin)
        key = (structure.key, form)
        program = _PROGRAMS.find(key)
        try:
            if program is None and private:
                program = _PROGRAMS.keep(key, Program(model, structure.slots))
            elif program is None:
                template = self._template(model, batch, structure, origin)
                program = Program(*template) if template else Program(model, structure.slots)
                if template:
                    program = _PROGRAMS.keep(key, program)
        except Exception as error:
            return _Ready(f"its optimizer cannot be made again ({type(error).__name__})", None, [])
        return _Ready(None, program, structure.values)

    def _template(self, model: keras.Model, batch: Any, structure: Structure, origin: Any) -> Any:
        """Another model of the structure, which nobody outside can change, and its slots; None if there is none."""
        if origin is None and structure.kind != "config":
            return None
        try:
            with isolated(_SEED_OF_TEMPLATES):
                made = self._recipe.make() if origin is not None else None  # type: ignore[union-attr]
                template = clone(model) if made is None else made
            _keras.build(template, batch)
            own = structure_of(template, origin)
        except Exception:  # what cannot be copied is its own template
            return None
        return (template, own.slots) if own.key == structure.key else None  # None: it does not do the same twice

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Everything that training reads and writes, as arrays."""
        if self._model is None:
            draw([self])
            return self._state  # type: ignore[no-any-return]
        return self.program.state_of(self._model)  # type: ignore[union-attr]

    @state.setter
    def state(self, state: State) -> None:
        if self._model is None:
            self._state = state
        else:
            self.program.assign(self._model, state)  # type: ignore[union-attr]

    def weights(self) -> list[Array]:
        """The weights as arrays, in the order of `Model.get_weights`."""
        if self._model is not None:
            return self._model.get_weights()  # type: ignore[no-any-return]
        state = self.state
        return [np.asarray(getattr(state, part)[number]) for part, number in self.program.weight_places()]  # type: ignore[union-attr]

    def snapshot(self) -> Any:
        """What `restore` needs to undo a training that failed."""
        if self._model is None:
            return self.state  # arrays that are replaced, never changed
        optimizer = getattr(self._model, "optimizer", None)  # none where a file's model waits to be compiled
        variables = [*self._model.variables, *(optimizer.variables if optimizer is not None else [])]
        return [(variable, value_of(variable)) for variable in variables]

    def restore(self, kept: Any) -> None:
        """Restores the state that `snapshot` returned."""
        if not isinstance(kept, list):
            if self._model is None:
                self._state = kept
            else:  # it was made meanwhile
                set_state = assign if self.program is None else self.program.assign
                set_state(self._model, kept)
            return
        for variable, value in kept:
            variable.assign(value)

    def sums(self) -> tuple[list[float], list[float]]:
        """The sum of each array of weights: of those that are trained, and of the others.

        A sum is finite if all elements are: the quickest test of an array, since in double precision none overflows.
        """
        if self._model is None:
            return _sums(self.state.trainable), _sums(self.state.others)
        return _sums_of(self._model.trainable_variables), _sums_of(self._model.non_trainable_variables)

    def sums_at_first(self) -> Callable[[], list[float]]:
        """A function that returns the sums, before training, of the weights that are not trained.

        Those of an example are computed only if the function is called.
        """
        example = self._example
        if self._model is None:
            return lambda: _sums_of(example.non_trainable_variables)
        sums = _sums_of(self._model.non_trainable_variables)
        return lambda: sums

    @property
    def model(self) -> keras.Model:
        """The `keras.Model`, built now if it was not built before."""
        if self._model is None:
            with isolated(_SEED_OF_TEMPLATES):
                changed = self._recipe.would_differ  # type: ignore[union-attr]
                model = clone(self._example) if changed else self._recipe.make()  # type: ignore[union-attr]
            if self._batch is not None and self.reason is None:
                _keras.build(model, self._batch)  # the user expects a trained model to have metrics
            draw([self])
            set_state = assign if self.program is None else self.program.assign
            set_state(model, self._state)
            self._model, self._state, self._example = model, None, None
            self._hand_over_history()
        self._handed_out = True
        return self._model

    @property
    def history(self) -> Any:
        return self._history

    @history.setter
    def history(self, history: keras.callbacks.History | None) -> None:
        self._history = history
        self._hand_over_history()

    def _hand_over_history(self) -> None:
        """Gives the model the history of its last fit, as `Model.fit` does."""
        if self._model is not None and self._history is not None:
            self._history.set_model(self._model)
            self._model.history = self._history

    def predict(self, x: InputArrays) -> Any:
        """Output for a batch of rows, in inference mode."""
        if not _keras.is_trusted():
            return self.model(x, training=False)
        try:
            return self._forward_for_now()(*self._values(), x)
        except _keras.NotPureError:  # a layer that draws, or counts, when it predicts
            return self.model(x, training=False)

    def _values(self) -> tuple[list[Any], list[Any]]:
        if self._model is None:
            return self.state.trainable, self.state.others
        model = self._forward_model
        return [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]

    def _forward_for_now(self) -> Forward:
        if not self._handed_out and self.program is not None:
            self._forward_model = self._model
            return self.program.forward
        # A model that was handed out may have been changed since the last time.
        model = self.model
        key = structure_of(model).key if model.compiled and model.optimizer is not None else None
        if self._forward is None or key != self._forward_key:
            self._forward, self._forward_key = Forward(model), key
        self._forward_model = model
        return self._forward


def _state_of(model: keras.Model, values: list[Array]) -> State:
    """The state before training, from values for the variables of a model."""
    trainable, others = _places(model)
    return State([values[place] for place in trainable], [values[place] for place in others], [], [])


def _places(model: keras.Model) -> tuple[list[int], list[int]]:
    """Places of the trainable and of the other variables of a model among all its variables."""
    # The variables of metrics come last, and are in neither list.
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    return (
        [places[id(variable)] for variable in model.trainable_variables],
        [places[id(variable)] for variable in model.non_trainable_variables],
    )


def _sums_of(variables: Sequence[keras.Variable]) -> list[float]:
    # No host has all of an array that is distributed over several.
    return _sums([value_of(one) for one in variables if getattr(one.value, "is_fully_addressable", True)])


def _sums(arrays: Sequence[Array]) -> list[float]:
    with np.errstate(invalid="ignore"):
        return [
            float(array.sum(dtype=np.float64)) if _is_of_floats(array) else 0.0 for array in map(np.asarray, arrays)
        ]


def _is_of_floats(array: Array) -> bool:
    return array.dtype.kind == "f" or "float" in array.dtype.name  # numpy does not count bfloat16 as a float


def draw(networks: Sequence[Network]) -> None:
    """Draws the initial weights of networks that have none yet; together for networks that are built alike."""
    pending: dict[Any, list[Network]] = {}
    for network in networks:
        if isinstance(network._state, PendingState):
            pending.setdefault((id(network._state.blueprint), id(network._example)), []).append(network)
    for some in pending.values():
        trainable, others = _places(some[0]._example)
        all_values = some[0]._state.blueprint.values([network._state.draws for network in some])
        for network, values in zip(some, all_values, strict=True):
            parts = [values[place] for place in trainable], [values[place] for place in others]
            network._state = State(*parts, network._state.optimizer, [])


def is_built(model: keras.Model) -> bool:
    """Whether Keras has built what depends on data."""
    return bool(model.optimizer.built)


def clone(model: keras.Model) -> keras.Model:
    """A compiled model of the same structure, with other weights."""

    with _keras.without_tensorflow():
        copy = type(model).from_config(model.get_config())
    arguments = _keras.compile_arguments(model)
    if arguments is None:
        raise ValueError("the model was compiled in a way of its own")
    # With losses of its own: while a program is traced, a number in them is replaced by a tensor.
    copy.compile(**{name: copied(value) for name, value in {**arguments, "optimizer": model.optimizer}.items()})
    return copy
