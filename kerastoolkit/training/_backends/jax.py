"""JAX: one compiled scan over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kerastoolkit._cache import Cache
from kerastoolkit.training._backends.base import TRACING_LOCK, Backend, CompiledSteps, Predict, Steps
from kerastoolkit.training._state import Array, Samples, State, Tensor, as_array, tree_map

# Programs that are dropped before JAX is told to drop all that it keeps. What is used again, it compiles again.
_RELEASES_BEFORE_CLEARING = 4


class JaxBackend(Backend):
    """One compiled scan over the steps, around the step or around the step vectorised over the models."""

    steps_a_call = 10**9  # another number of steps would be compiled anew
    compiles_each_size = True

    def __init__(self) -> None:
        self._n_released = 0

    def release_memory(self) -> None:
        """Has JAX drop what it compiled, every fourth time.

        To build a model, Keras calls operations of JAX one by one. JAX compiles each of them for each shape, which
        takes two megabytes, and keeps thousands. It has no public way to drop some of them.
        """
        import jax

        self._n_released += 1
        if self._n_released % _RELEASES_BEFORE_CLEARING == 0:
            clear: Callable[[], object] = jax.clear_caches
            clear()

    def tensor(self, value: Array) -> Tensor:
        import jax.numpy as jnp

        return jnp.asarray(value)

    def take(self, value: Tensor, members: Array) -> Tensor:
        return value[members]

    def put(self, value: Tensor, members: Array, part: Tensor) -> Tensor:
        return value.at[members].set(part)

    def convert(self, value: Any, dtype: Any) -> Tensor:
        import jax.numpy as jnp

        return jnp.asarray(value, dtype or jnp.float32)

    def is_out_of_memory(self, error: BaseException) -> bool:
        import jax

        said_by_xla = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        return said_by_xla or isinstance(error, MemoryError)

    def is_of_the_program(self, error: Exception) -> bool:
        import jax

        return not isinstance(error, jax.errors.JaxRuntimeError)

    def dropout(self, inputs: Tensor, rate: Tensor, seed: Tensor) -> Tensor:
        import jax

        kept = 1 - rate
        mask = jax.random.bernoulli(seed, p=kept, shape=inputs.shape)
        return jax.lax.select(mask, inputs / kept, jax.numpy.zeros_like(inputs))

    def gradients(
        self, loss_of: Callable[[list[Tensor]], tuple[Tensor, Any]], trainable: list[Tensor]
    ) -> tuple[list[Tensor], Any]:
        import jax

        (_, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        return gradients, rest

    def compile(self, steps: Steps) -> CompiledSteps:
        import jax

        step, results, stacked = steps.step, steps.results, steps.stacked

        def run(state: State, traced: dict[int, Tensor], data: Samples, indices: Tensor, offsets: Samples) -> Any:
            def body(state: State, batch: Any) -> tuple[State, None]:
                def take(part: Tensor, offset: Tensor) -> Tensor:
                    return part[batch + (offset[:, None] if stacked else offset)]

                one = jax.vmap(step) if stacked else step
                return one(state, traced, tree_map(take, data, offsets)), None

            state, _ = jax.lax.scan(body, state, indices.swapaxes(0, 1) if stacked else indices)
            return state, jax.vmap(results)(state) if stacked else results(state)

        return _CompiledByJax(run)

    def predict(self, forward: Predict, trainable: list[Tensor], others: list[Tensor], x: Any) -> Predict:
        return _CompiledByJax(forward)

    def for_each(
        self, function: Callable[[Any], list[Tensor]], example: Array
    ) -> Callable[[Array], Sequence[Sequence[Array]]] | None:
        compiled = _CompiledByJax(function)  # all at once would be compiled anew for each number of them
        return lambda many: [list(map(as_array, compiled(one))) for one in many]


# Forms of arguments for which a function is kept; an epoch has two or three, and each number of models others.
_MAX_FORMS = 64

# Settings of JAX that show in what a function is compiled to.
_SETTINGS_OF_JAX = (
    "jax_debug_infs", "jax_debug_nans", "jax_default_device", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_enable_x64", "jax_numpy_dtype_promotion", "jax_threefry_partitionable",
)  # fmt: skip


class _CompiledByJax:
    """A function compiled by JAX for each form of its arguments, kept here alone, whatever JAX keeps itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Cache[Any, Callable[..., Any]] = Cache(_MAX_FORMS)

    def __call__(self, *arguments: Any) -> Any:
        import jax

        leaves, structure = jax.tree.flatten(arguments)
        forms = [(x.shape, x.dtype, getattr(x, "weak_type", False), getattr(x, "sharding", None)) for x in leaves]
        key = (structure, *forms, *(getattr(jax.config, name, None) for name in _SETTINGS_OF_JAX))
        compiled = self._compiled.find(key)
        if compiled is None:
            with TRACING_LOCK:
                compiled = self._compiled.keep(key, jax.jit(self._function).lower(*arguments).compile())
        return compiled(*arguments)
