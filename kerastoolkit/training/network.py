"""A model as its structure and its state; the `keras.Model` itself is made when somebody asks for it.

Building a small Keras model takes longer than training it, and every built model leaves memory behind that Keras never
gives back. A search makes hundreds of models of which nobody ever looks at the layers: for those the state is enough.

Starting weights are drawn as a build would draw them. Keras takes the seed of every initializer from Python's generator
at the moment the initializer is made, so that from one build it can be read which variable hangs on which draw. That is
trusted only after it has foretold another build of the same function to the bit.
"""

from __future__ import annotations

import collections
import copy
import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training import _program
from kerastoolkit.training._program import Program, State
from kerastoolkit.training._structure import (
    Structure,
    compile_key,
    fingerprint,
    structure_of,
    surroundings,
)
from kerastoolkit.training.seeds import isolated

if TYPE_CHECKING:
    import keras

# Programs and blueprints hold a model each. A search over more structures than this begins to trace again.
_MOST_KEPT = 64
_MOST_DRAWS = 10_000
_MANY_DRAWINGS = 150  # from here on it pays to compile the drawing
_SEED_OF_TEMPLATES = 20_240_229  # any number: nobody sees the weights of a template


class _Kept(collections.OrderedDict[Any, Any]):
    """What was used last, up to a number."""

    def __init__(self, most: int, let_go: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._most, self._let_go, self._lock = most, let_go, threading.Lock()

    def find(self, key: Any) -> Any:
        with self._lock:
            if key in self:
                self.move_to_end(key)
                return self[key]
            return None

    def keep(self, key: Any, value: Any) -> Any:
        with self._lock:
            value = self.setdefault(key, value)
            self.move_to_end(key)
            too_many = len(self) - self._most
            for _ in range(too_many):
                self.popitem(last=False)
        for _ in range(too_many):
            self._let_go()
        return value


_BLUEPRINTS, _EXAMPLES, _STARTS = (_Kept(_MOST_KEPT) for _ in range(3))
_PROGRAMS = _Kept(_MOST_KEPT, _program.let_go)


class Recipe:
    """How a compiled model is made.

    Args:
        build: Makes a model; called anew for each.
        compile: Compiles it, with new optimizer, loss and metrics for each call; None if `build` does. Defaults to
            `None`.
        function: The function behind `build` and its arguments, by which it is known that two builds do the same;
            None if that cannot be known. Defaults to `None`.
        compile_arguments: From whether `build` compiles to what `compile` will pass to `Model.compile`, an optimizer
            among it if there is a new one. Defaults to nothing.
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
        """Whether what the function reads from outside has changed since, so that it would build another model."""
        return self._function is not None and _origin(*self._function) != self.origin

    def make(self) -> keras.Model:
        """Builds and compiles a model."""
        blueprint = self.blueprint()
        model = self._build() if blueprint is None else blueprint.make(self._build)
        if self._compile is not None:
            self._compile(model)
        return model

    def blueprint(self) -> Blueprint | None:
        """What is known of the build function for these arguments; None where nothing can be known."""
        if self.origin is None or not _keras.is_trusted():
            return None
        found: Blueprint = _BLUEPRINTS.find(self.origin) or _BLUEPRINTS.keep(self.origin, Blueprint())
        return found

    def key(self) -> tuple[Any, Any]:
        """Key of the compiled models that this makes, and their optimizer if it is new; None for what is unknown."""
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
    except Exception:  # a user's object may raise anything where it is looked at
        return None


class Blueprint:
    """What a build function makes of certain arguments: which variable hangs on which draw from the generator."""

    def __init__(self) -> None:
        self.compiles: bool | None = None  # whether the function compiles its models
        self.foretold = False  # whether the plan has been right about a build that it was not made from
        self._plan: list[Callable[[Any], Any]] | None = None
        self._compiled: _Drawing | None = None
        self._n_draws = self._n_drawn = 0

    def make(self, build: Callable[[], keras.Model]) -> keras.Model:
        """Builds a model, and learns from it how the next could be drawn."""
        before = _generators()
        model = build()
        self.compiles = bool(getattr(model, "compiled", False))
        draws = _draws_between(before, _generators())
        if draws is None or not getattr(model, "built", False):
            return model
        if self._plan is None:
            self._n_draws = len(draws)
            self._plan = _plan(model, draws)
        elif not self.foretold:
            self.foretold = len(draws) == self._n_draws and _equal([maker(draws) for maker in self._plan], model)
        return model

    def draws(self, seed: int | None) -> list[int]:
        """What a build with Python's generator at this seed would draw from it."""
        generator: Any = random if seed is None else random.Random(seed)
        return [generator.randint(1, 10**9) for _ in range(self._n_draws)]

    def values(self, all_draws: list[list[int]]) -> list[list[Any]]:
        """Starting values of a model's variables, for the draws of each model."""
        plan, self._n_drawn = self._plan or [], self._n_drawn + len(all_draws)
        if self._n_drawn >= _MANY_DRAWINGS and self._compiled is None:
            self._compiled = _compiled_plan(plan, all_draws[0]) or _one_by_one(plan)
        return (self._compiled or _one_by_one(plan))(all_draws)


class _Start(NamedTuple):
    """What a network needs to begin training."""

    reason: str | None
    program: Program | None
    values: list[float]


class _Undrawn(NamedTuple):
    """The state before training of weights that are still to be drawn, many at once."""

    blueprint: Blueprint
    draws: list[int]
    optimizer: list[Any]


class Network:
    """A compiled model: its structure, its state, and the `keras.Model` when it is asked for.

    Args:
        source: A compiled model, or a recipe for one.
        seed: Seed for building it and drawing its weights; None to draw from the generators of the process. Defaults
            to `None`.

    Attributes:
        reason: Why `Model.fit` must train it, in words; None if a shared program can.
        program: The program, once the network is `ready`; None if there is a reason.
        values: The numbers in which it differs from other models of its structure.
        history: The `keras.callbacks.History` of its last fit.
    """

    def __init__(self, source: keras.Model | Recipe, seed: int | None = None) -> None:
        self.reason: str | None = None
        self.program: Program | None = None
        self.values: list[float] = []
        self._history: Any = None
        self._recipe = source if isinstance(source, Recipe) else None
        self._forward: _program.Forward | None = None
        self._forward_key: Any = None
        self._forward_model: Any = None
        # Either a model, or a state and an example: a model of the same structure that nobody outside can change.
        self._model: Any = None if isinstance(source, Recipe) else source
        self._state: Any = None
        self._example: Any = None
        self._key: Any = None
        self._optimizer: Any = None
        self._batch: Any = None
        self._handed_out = not isinstance(source, Recipe)
        if self._recipe is not None:
            self._begin(self._recipe, seed)

    def _begin(self, recipe: Recipe, seed: int | None) -> None:
        """Draws the starting weights without building, where that is known to be the same."""
        blueprint = recipe.blueprint()
        self._key, self._optimizer = recipe.key()
        example = _EXAMPLES.find(self._key) if self._key is not None else None
        if blueprint is not None and blueprint.foretold and example is not None:
            self._example = example
            self._state = _Undrawn(blueprint, blueprint.draws(seed), [])
            return
        with isolated(seed):
            model = recipe.make()
        self._key, self._optimizer = recipe.key()
        alike = example is None or (blueprint is not None and blueprint.foretold)
        if self._key is None or not model.built or not alike:
            self._model = model
            return
        self._example = _EXAMPLES.keep(self._key, model)
        self._state = _state_of(model, [_program.array(variable) for variable in model.variables])

    @property
    def example(self) -> keras.Model:
        """A model of the structure, to look at: the model itself, or one with other weights."""
        return self._model if self._model is not None else self._example

    def ready(self, batch: Any) -> None:
        """Finds or makes the program that trains it.

        Args:
            batch: Rows `(x, y, weights)` as they will be trained on, to build what Keras builds when it sees data.
        """
        form = _program.form_of(batch)
        self._forward, self._batch = None, batch
        if self._model is not None:
            self.reason, self.program, self.values = self._start(self._model, batch, form, private=False)
            return
        start = _STARTS.find((self._key, form))
        if start is None:
            example = self._example
            if _program.is_built(example):  # for data of another form
                with isolated(_SEED_OF_TEMPLATES):
                    example = self._recipe.make()  # type: ignore[union-attr]
            start = _STARTS.keep((self._key, form), self._start(example, batch, form, private=True))
        self.reason, self.program, self.values = start
        if self.program is None:
            return
        if self._optimizer is not None:
            self.values = self.program.values_with(self.values, self._optimizer)
        if not self._state.optimizer:
            given = self._example.optimizer if self._optimizer is None else self._optimizer
            self._state = self._state._replace(optimizer=self.program.fresh_optimizer(given))

    def _start(self, model: keras.Model, batch: Any, form: Any, *, private: bool) -> _Start:
        reason = _program.unsupported(model)
        if reason is not None:
            return _Start(reason, None, [])
        _keras.build(model, batch)
        # Whoever got the model may have changed it; then it is no more what its function makes.
        origin = None if self._recipe is None or self._handed_out else self._recipe.origin
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
            return _Start(f"its optimizer cannot be made again ({type(error).__name__})", None, [])
        return _Start(None, program, structure.values)

    def _template(self, model: keras.Model, batch: Any, structure: Structure, origin: Any) -> Any:
        """Another model of the structure, which nobody outside can change, and its slots."""
        if origin is None and structure.kind != "config":
            return None
        try:
            with isolated(_SEED_OF_TEMPLATES):
                made = self._recipe.make() if origin is not None else None  # type: ignore[union-attr]
                template = _program.clone(model) if made is None else made
            _keras.build(template, batch)
            own = structure_of(template, origin)
        except Exception:  # what cannot be copied is its own template
            return None
        return (template, own.slots) if own.key == structure.key else None  # None: it does not do the same twice

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """All that training reads and writes, as arrays."""
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

    def weights(self) -> list[Any]:
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
        return [(variable, _program.array(variable)) for variable in variables]

    def restore(self, kept: Any) -> None:
        """Goes back to what `snapshot` found."""
        if not isinstance(kept, list):
            if self._model is None:
                self._state = kept
            else:  # it was made meanwhile
                assign = _program.assign if self.program is None else self.program.assign
                assign(self._model, kept)
            return
        for variable, value in kept:
            variable.assign(value)

    def sums(self) -> tuple[list[float], list[float]]:
        """The sum of each array of weights: those that are trained, and the others. One is finite if all numbers are.

        A sum is the quickest look at all numbers of an array, and in double precision none overflows.
        """
        if self._model is None:
            return _sums(self.state.trainable), _sums(self.state.others)
        return _sums_of(self._model.trainable_variables), _sums_of(self._model.non_trainable_variables)

    def sums_at_first(self) -> Callable[[], list[float]]:
        """The sums of the weights that are not trained, as they are before training; to be asked for when it is over.

        Those of an example cost nothing unless they are asked for.
        """
        example = self._example
        if self._model is None:
            return lambda: _sums_of(example.non_trainable_variables)
        sums = _sums_of(self._model.non_trainable_variables)
        return lambda: sums

    @property
    def model(self) -> keras.Model:
        """The `keras.Model`, made now if it has not been made before."""
        if self._model is None:
            with isolated(_SEED_OF_TEMPLATES):
                changed = self._recipe.would_differ  # type: ignore[union-attr]
                model = _program.clone(self._example) if changed else self._recipe.make()  # type: ignore[union-attr]
            if self._batch is not None and self.reason is None:
                _keras.build(model, self._batch)  # a model that was trained has metrics to ask
            draw([self])
            assign = _program.assign if self.program is None else self.program.assign
            assign(model, self._state)
            self._model, self._state, self._example = model, None, None
            self._hand_over_history()
        self._handed_out = True
        return self._model

    @property
    def history(self) -> Any:
        return self._history

    @history.setter
    def history(self, history: Any) -> None:
        self._history = history
        self._hand_over_history()

    def _hand_over_history(self) -> None:
        """A model has that of its last fit, as `Model.fit` leaves it."""
        if self._model is not None and self._history is not None:
            self._history.set_model(self._model)
            self._model.history = self._history

    def predict(self, x: Any) -> Any:
        """Output for a batch of rows, in the mode of inference."""
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

    def _forward_for_now(self) -> _program.Forward:
        if not self._handed_out and self.program is not None:
            self._forward_model = self._model
            return self.program.forward
        # Whoever got the model may have changed it since the last time.
        model = self.model
        key = structure_of(model).key if model.compiled and model.optimizer is not None else None
        if self._forward is None or key != self._forward_key:
            self._forward, self._forward_key = _program.Forward(model), key
        self._forward_model = model
        return self._forward


def _state_of(model: keras.Model, values: list[Any]) -> State:
    """The state before training, of values for the variables of a model."""
    trainable, others = _places(model)
    return State([values[place] for place in trainable], [values[place] for place in others], [], [])


def _places(model: keras.Model) -> tuple[list[int], list[int]]:
    """Where the trainable and the other variables of a model stand among all of them."""
    # What Keras adds to the variables for metrics comes last, and is in neither.
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    return (
        [places[id(variable)] for variable in model.trainable_variables],
        [places[id(variable)] for variable in model.non_trainable_variables],
    )


def _sums_of(variables: Sequence[Any]) -> list[float]:
    # Of what is spread over several hosts none sees all.
    return _sums([_program.array(one) for one in variables if getattr(one.value, "is_fully_addressable", True)])


def _sums(arrays: Sequence[Any]) -> list[float]:
    with np.errstate(invalid="ignore"):
        return [
            float(array.sum(dtype=np.float64)) if _is_of_floats(array) else 0.0 for array in map(np.asarray, arrays)
        ]


def _is_of_floats(array: Any) -> bool:
    return array.dtype.kind == "f" or "float" in array.dtype.name  # half precision of brains is no float to numpy


def draw(networks: Sequence[Network]) -> None:
    """Draws the starting weights of networks that have none yet; those that are built alike in one go."""
    undrawn: dict[Any, list[Network]] = {}
    for network in networks:
        if isinstance(network._state, _Undrawn):
            undrawn.setdefault((id(network._state.blueprint), id(network._example)), []).append(network)
    for some in undrawn.values():
        trainable, others = _places(some[0]._example)
        all_values = some[0]._state.blueprint.values([network._state.draws for network in some])
        for network, values in zip(some, all_values, strict=True):
            parts = [values[place] for place in trainable], [values[place] for place in others]
            network._state = State(*parts, network._state.optimizer, [])


# -- drawing starting weights ---------------------------------------------------------------------------------------


def _plan(model: keras.Model, draws: list[int]) -> list[Callable[[list[int]], Any]]:
    import keras

    places = {seed: place for place, seed in enumerate(draws)}
    initializers: dict[int, list[Any]] = {}
    for layer in _keras.layers_of(model):
        own = [part for part in vars(layer).values() if isinstance(part, keras.initializers.Initializer)]
        for variable in itertools.chain(*_keras.own_variables(layer)):
            initializers[id(variable)] = own
    return [_maker(variable, initializers.get(id(variable), []), places, draws) for variable in model.variables]


def _maker(
    variable: Any, initializers: list[Any], places: Mapping[int, int], draws: list[int]
) -> Callable[[list[int]], Any]:
    """A function from the draws to the starting value of a variable; what hangs on no draw is taken for constant."""
    import keras

    value = keras.ops.convert_to_numpy(variable.value)
    if value.shape == (2,) and value.dtype.kind in "iu" and int(value[1]) == 0 and int(value[0]) in places:
        place = places[int(value[0])]
        return lambda draws: np.array([draws[place], 0], value.dtype)
    for initializer in initializers:
        seed = getattr(initializer, "seed", None)
        if not isinstance(seed, int) or seed not in places:
            continue
        drawn = _Drawn(initializer, places[seed], tuple(variable.shape), variable.dtype)
        try:
            if np.array_equal(drawn(draws), value):
                return drawn
        except ValueError:  # an initializer for variables of another rank
            continue
    return lambda draws: value


class _Drawn:
    """The starting value of a variable as its initializer draws it."""

    def __init__(self, initializer: Any, place: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._initializer, self.place, self._shape, self._dtype = initializer, place, shape, dtype

    def __call__(self, draws: list[int]) -> Any:
        import keras

        return keras.ops.convert_to_numpy(self.with_seed(draws[self.place]))

    def with_seed(self, seed: Any) -> Any:
        """The value as a tensor; the seed is a number, or an object with Keras' `next`."""
        initializer = copy.copy(self._initializer)
        initializer.seed = seed
        return initializer(self._shape, dtype=self._dtype)


_Drawing = Callable[[list[list[int]]], list[list[Any]]]


def _one_by_one(plan: list[Callable[[Any], Any]]) -> _Drawing:
    return lambda all_draws: [[maker(draws) for maker in plan] for draws in all_draws]


def _compiled_plan(plan: list[Callable[[Any], Any]], draws: list[int]) -> _Drawing | None:
    """All values of a plan as one compiled function; None if it does not draw the same to the bit."""
    drawn = [maker for maker in plan if isinstance(maker, _Drawn)]
    try:
        run = _program.compiled_drawing([maker.with_seed for maker in drawn]) if drawn else None
    except Exception:  # an initializer that needs its seed as a number of Python
        return None
    if run is None:
        return None

    def draw(all_draws: list[list[int]]) -> list[list[Any]]:
        rows = run([[draws[maker.place] for maker in drawn] for draws in all_draws])
        found = []
        for draws, row in zip(all_draws, rows, strict=True):
            values = iter(row)
            found.append([next(values) if isinstance(maker, _Drawn) else maker(draws) for maker in plan])
        return found

    return draw if all(map(np.array_equal, draw([draws])[0], _one_by_one(plan)([draws])[0])) else None


def _equal(values: list[Any], model: keras.Model) -> bool:
    import keras

    built = [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]
    return len(values) == len(built) and all(map(np.array_equal, values, built))


def _generators() -> Any:
    """The state of every generator that a build could draw from, Python's first."""
    import keras

    state = np.random.get_state()
    others: list[Any] = [state[1].tobytes(), state[2:], _program.keras_generators()]  # type: ignore[index]
    if keras.config.backend() == "torch":
        import torch

        others.append(torch.get_rng_state().numpy().tobytes())
    return random.getstate(), others


def _draws_between(before: Any, after: Any) -> list[int] | None:
    """The seeds that Keras drew between two states of the generators; None if anything else was drawn."""
    if before[1] != after[1]:
        return None
    generator = random.Random()
    generator.setstate(before[0])
    draws: list[int] = []
    while generator.getstate() != after[0]:
        if len(draws) == _MOST_DRAWS:
            return None
        draws.append(generator.randint(1, 10**9))
    return draws
