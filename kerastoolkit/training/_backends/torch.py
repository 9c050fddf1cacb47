"""torch: a loop of Python over the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kerastoolkit import _keras
from kerastoolkit._keras import NotPureError
from kerastoolkit.training._backends.base import TRACING_LOCK, Backend, CompiledSteps, Predict, Steps
from kerastoolkit.training._state import Array, Samples, State, Tensor, tree_leaves, tree_map, tree_unflatten

# What a step of one model takes, in seconds, and for each multiplication forward. Every operation is started anew from
# Python, and a stacked step starts twice as many.
_STEP, _MULTIPLICATION = 2e-3, 1.5e-10


class TorchBackend(Backend):
    """A loop of Python over the steps; stacked, each step is vectorised over the models."""

    steps_a_call = 64
    compiles_each_size = False
    _stacked = False  # whether the step that runs is one of several models
    _looks_ahead = False  # whether it is a trial step of one model, which shows what those of several hide

    def seconds_of_a_step(self, n_models: int, multiplications: int, *, stacked: bool, light: bool) -> float:
        each = _MULTIPLICATION * multiplications
        return 2 * _STEP + n_models * each if stacked else n_models * (_STEP + each)

    def tensor(self, value: Array) -> Tensor:
        import keras

        return keras.ops.convert_to_tensor(value)

    def take(self, value: Tensor, members: Array) -> Tensor:
        return value[members]

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        import torch

        return torch.cat(list(values))

    def put(self, value: Tensor, members: Array, part: Tensor) -> Tensor:
        value = value.clone()
        value[members] = part
        return value

    def convert(self, value: Any, dtype: Any) -> Tensor:
        import keras

        return keras.ops.cast(value, keras.config.floatx() if dtype is None else keras.backend.standardize_dtype(dtype))

    def is_out_of_memory(self, error: BaseException) -> bool:
        import torch

        # On a processor torch has no class of its own for it.
        said = isinstance(error, RuntimeError) and "not enough memory" in str(error)
        return said or isinstance(error, torch.OutOfMemoryError | MemoryError)

    def is_of_the_program(self, error: Exception) -> bool:
        return isinstance(error, NotPureError)  # each step runs the code again: it may be the data

    def gradients(
        self, loss_of: Callable[[list[Tensor]], tuple[Tensor, Any]], trainable: list[Tensor]
    ) -> tuple[list[Tensor], Any]:
        import keras
        import torch

        if self._stacked:
            gradients, (_, rest) = torch.func.grad_and_value(loss_of, has_aux=True)(trainable)
            return gradients, rest
        # The usual way takes any operation, numpy's among them, and shows which weights have no part in the loss.
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in trainable]
            loss, rest = loss_of(leaves)
        found = list(torch.autograd.grad(loss, leaves, allow_unused=True))
        if self._looks_ahead and any(gradient is None for gradient in found):
            raise NotPureError("some weights have no part in the loss, which torch does not tell of several models")
        return found, keras.tree.map_structure(lambda part: part.detach() if torch.is_tensor(part) else part, rest)

    def compile(self, steps: Steps) -> CompiledSteps:
        import torch

        step, results, stacked = steps.step, steps.results, steps.stacked
        template = tree_map(lambda part: 0, steps.data)  # not the data, which would live as long as the program

        def one(state: State, traced: dict[int, Tensor], parts: list[Any]) -> State:
            return step(state, traced, tree_unflatten(template, parts))

        ahead = [stacked]  # not yet looked

        def look_ahead(state: State, traced: dict[int, Tensor], rows: list[Any]) -> None:
            first = State(*([value[0] for value in part] for part in state))
            self._stacked, self._looks_ahead = False, True
            try:
                one(first, {slot: value[0] for slot, value in traced.items()}, [part[0] for part in rows])
            finally:
                self._stacked, self._looks_ahead = True, False
            ahead[0] = False

        def run(state: State, traced: dict[int, Tensor], data: Samples, indices: Tensor, offsets: Samples) -> Any:
            with TRACING_LOCK, torch.no_grad():  # each step goes through the template's own layers
                self._stacked = stacked
                for number in range(indices.shape[-2]):
                    batch = indices[..., number, :].long()

                    def take(part: Tensor, offset: Tensor, batch: Tensor = batch) -> Tensor:
                        return part[batch + (offset[:, None] if stacked else offset)]

                    rows = tree_leaves(tree_map(take, data, offsets))
                    if ahead[0]:
                        look_ahead(state, traced, rows)
                    with _keras.in_a_way_that_vmap_takes() if stacked else contextlib.nullcontext():
                        state = (torch.func.vmap(one) if stacked else one)(state, traced, rows)
                return state, torch.func.vmap(results)(state) if stacked else results(state)

        return run

    def predict(self, forward: Predict, trainable: list[Tensor], others: list[Tensor], x: Any) -> Predict:
        import torch

        def run(trainable: list[Any], others: list[Any], x: Any) -> Any:
            with TRACING_LOCK, torch.no_grad():  # it goes through the template's own layers each time
                return forward(trainable, others, x)

        return run

    def for_each(
        self, function: Callable[[Any], list[Tensor]], example: Array
    ) -> Callable[[Array], Sequence[Sequence[Array]]] | None:
        return None


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which torch's generators start at a seed; they stand where they stood afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def generator() -> bytes:
    """The state of torch's generator of the process."""
    import torch

    return bytes(torch.get_rng_state().numpy().tobytes())
