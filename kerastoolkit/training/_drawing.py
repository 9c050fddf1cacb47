"""Initial weights, drawn as a build of the model would draw them.

Keras takes the seed of every initializer from Python's generator when the initializer is made. So one build shows which
variable depends on which draw. That is trusted only after it has predicted another build of the same function to the
bit.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastoolkit import _keras
from kerastoolkit.training import _backends
from kerastoolkit.training._state import Array, Tensor, as_array
from kerastoolkit.training._structure import attributes_of_users_layers
from kerastoolkit.training.seeds import generators

if TYPE_CHECKING:
    import keras

_MAX_DRAWS = 10_000
_MANY_DRAWINGS = 150  # from here on it is worth compiling


class Blueprint:
    """What is known of a build function with certain arguments: which variable depends on which draw.

    Attributes:
        compiles: Whether the function compiles its models; None before the first build.
        verified: Whether what is known has predicted a build with other draws than those that it was learnt from.
        is_all_weights: Whether its models differ in nothing but weights: no layer of the user's holds anything else.
        draws_elsewhere: Whether a build drew from other generators than Python's, from which Keras takes its seeds.
    """

    def __init__(self) -> None:
        self.compiles: bool | None = None
        self.verified = self.draws_elsewhere = False
        self._plan: list[Callable[[Any], Any]] | None = None
        self.is_all_weights = False
        self._attributes: Any = None
        self._draws: list[int] = []
        self._repeats = False  # whether another build with the same draws gave the same
        self._compiled: _Drawing | None = None
        self._n_draws = self._n_drawn = 0

    def make(self, build: Callable[[], keras.Model]) -> keras.Model:
        """Builds a model, and learns from it how the weights of the next can be drawn."""
        before = generators()
        model = build()
        self.compiles = bool(getattr(model, "compiled", False))
        draws = _draws_between(before, generators())
        self.draws_elsewhere = self.draws_elsewhere or draws is None
        if draws is None or not getattr(model, "built", False):
            return model
        attributes = _attributes(model)
        self.is_all_weights = attributes == ()
        if self._plan is None:
            self._n_draws = len(draws)
            self._plan, self._attributes, self._draws = _plan(model, draws), attributes, draws
        elif not self.verified:
            alike = len(draws) == self._n_draws and attributes is not None and attributes == self._attributes
            alike = alike and _equal([maker(draws) for maker in self._plan], model)
            if draws and draws == self._draws:  # of other draws this says nothing
                self._repeats = alike
            else:
                self.verified = alike
        return model

    def predicts(self, seed: int | None) -> bool:
        """Whether it is known what a build would give with Python's generator at this seed, or where it is for None."""
        if self.verified:
            return True
        return seed is not None and self.is_all_weights and self._repeats and self.draws(seed) == self._draws

    def draws(self, seed: int | None) -> list[int]:
        """What a build with Python's generator at this seed would draw from it."""
        generator: Any = random if seed is None else random.Random(seed)
        return [generator.randint(1, 10**9) for _ in range(self._n_draws)]

    def values(self, all_draws: list[list[int]]) -> list[list[Any]]:
        """Initial values of the variables of each model, from its draws."""
        plan, self._n_drawn = self._plan or [], self._n_drawn + len(all_draws)
        if self._n_drawn >= _MANY_DRAWINGS and self._compiled is None:
            self._compiled = _compiled_plan(plan, all_draws[0]) or _one_by_one(plan)
        return (self._compiled or _one_by_one(plan))(all_draws)


def _attributes(model: keras.Model) -> Any:
    """What layers of the user's hold; None where that is not known."""
    try:
        return attributes_of_users_layers(model)
    except Exception:  # an object of the user's may raise anything
        return None


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
    variable: keras.Variable,
    initializers: list[keras.initializers.Initializer],
    places: Mapping[int, int],
    draws: list[int],
) -> Callable[[list[int]], Any]:
    """A function from the draws to the initial value of a variable; one that depends on no draw is a constant."""
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
    """The initial value of a variable, as its initializer draws it."""

    def __init__(
        self, initializer: keras.initializers.Initializer, place: int, shape: tuple[int, ...], dtype: object
    ) -> None:
        self._initializer, self.place, self._shape, self._dtype = initializer, place, shape, dtype

    def __call__(self, draws: list[int]) -> Array:
        return as_array(self.with_seed(draws[self.place]))

    def with_seed(self, seed: object) -> Tensor:
        """The value as a tensor; the seed is a number, or an object with the `next` of Keras' `SeedGenerator`."""
        initializer = copy.copy(self._initializer)
        initializer.seed = seed
        return initializer(self._shape, dtype=self._dtype)


_Drawing = Callable[[list[list[int]]], list[list[Any]]]


def _one_by_one(plan: list[Callable[[Any], Any]]) -> _Drawing:
    return lambda all_draws: [[maker(draws) for maker in plan] for draws in all_draws]


def _compiled_plan(plan: list[Callable[[Any], Any]], draws: list[int]) -> _Drawing | None:
    """All values of a plan as one compiled function; None if its values are not equal to the bit."""
    drawn = [maker for maker in plan if isinstance(maker, _Drawn)]
    try:
        run = _compiled_drawing([maker.with_seed for maker in drawn]) if drawn else None
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


def _equal(values: list[Array], model: keras.Model) -> bool:
    import keras

    built = [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]
    return len(values) == len(built) and all(map(np.array_equal, values, built))


def _draws_between(before: Any, after: Any) -> list[int] | None:
    """The seeds that Keras drew between two states of the generators; None if something else was drawn."""
    if before[1] != after[1]:
        return None
    generator = random.Random()
    generator.setstate(before[0])
    draws: list[int] = []
    while generator.getstate() != after[0]:
        if len(draws) == _MAX_DRAWS:
            return None
        draws.append(generator.randint(1, 10**9))
    return draws


def _compiled_drawing(
    makers: Sequence[Callable[[Any], Any]],
) -> Callable[[Sequence[Sequence[int]]], Sequence[Sequence[Any]]] | None:
    """Functions of a seed as one compiled function of many seeds; None where nothing is compiled.

    Args:
        makers: From a seed to a tensor, each.

    Returns:
        A function from rows of seeds, one for each maker, to rows of arrays.
    """
    import keras

    class Given(keras.random.SeedGenerator):  # what takes a seed takes one of these, too
        def __init__(self, seed: object) -> None:
            self._given = seed

        def next(self, ordered: bool = True) -> Any:
            return self._given

    def draw(seeds: Any) -> list[Any]:
        return [maker(Given(seeds[number])) for number, maker in enumerate(makers)]

    dtype = keras.random.SeedGenerator(0).state.dtype
    compiled = _backends.current().for_each(draw, np.zeros((len(makers), 2), dtype))
    if compiled is None:
        return None
    return lambda rows: compiled(np.array([[(seed, 0) for seed in row] for row in rows], dtype))
