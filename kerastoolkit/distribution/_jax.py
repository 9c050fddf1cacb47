"""`keras.distribution`, and what it cannot do by itself.

A batch that does not divide by the number of devices raises an error in Keras. Under a prepared model every device gets
the whole batch, and computes its share of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from kerastoolkit import _keras
from kerastoolkit.exceptions import DistributionError

if TYPE_CHECKING:
    import keras

__all__ = ["Layout", "distribution_over", "share_rows"]

# For a regular expression on the path of a weight, the axes of the mesh that its dimensions are divided by.
Layout: TypeAlias = tuple[tuple[str, tuple[str | None, ...]], ...]


@functools.cache
def distribution_over(
    devices: tuple[str, ...], parts: tuple[int, int] | None, given: Layout, n_processes: int
) -> keras.distribution.Distribution:
    """The `keras.distribution` of a strategy, one for all calls with the same arguments.

    Args:
        devices: Names of the devices.
        parts: Parts of the batch, and parts of the weights; None if only the batch is divided.
        given: How the weights are divided; `()` for the last dimension of every weight that allows it.
        n_processes: Number of processes that compute together.
    """
    import keras

    kinds = keras.distribution
    divided = parts is not None
    shape, axes = (parts, ("batch", "model")) if divided else ((len(devices),), ("batch",))
    mesh = kinds.DeviceMesh(shape, axes, list(devices))
    base = kinds.ModelParallel if divided else kinds.DataParallel

    class Distribution(base):  # type: ignore[misc, valid-type]
        """The same, which gives all data to all devices once a prepared model divides it itself."""

        whole = n_processes > 1

        def get_data_layout(self, data_shape: Sequence[int | None]) -> keras.distribution.TensorLayout:
            if self.whole:
                return kinds.TensorLayout([None] * len(data_shape), mesh)
            return super().get_data_layout(data_shape)

        def get_variable_layout(self, variable: keras.Variable) -> keras.distribution.TensorLayout | None:
            known = _keras.has_layout(variable)
            if parts is not None and not given and not known:
                return kinds.TensorLayout(_divided_axes(variable.shape, parts), mesh)
            return super().get_variable_layout(variable)

    if not divided:
        return Distribution(device_mesh=mesh, auto_shard_dataset=False)
    layout = kinds.LayoutMap(mesh)
    for pattern, names in given:
        layout[pattern] = tuple(names)
    return Distribution(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)


def _divided_axes(shape: Sequence[int], mesh: tuple[int, int]) -> list[str | None]:
    """The axes by which a weight is divided where the user names none."""
    axes: list[str | None] = [None] * len(shape)
    if len(shape) > 1 and shape[-1] % mesh[1] == 0:
        axes[-1] = "model"
    return axes


def share_rows(model: keras.Model, distribution: keras.distribution.Distribution, n_processes: int) -> None:
    """Lets each device compute its share of a batch that all of them get; changes the steps of the model.

    Keras puts a part of a batch on each device, and these must have one size. Inside a compiled step XLA divides any
    number of rows.

    Args:
        model: A compiled model.
        distribution: From `distribution_over`; from now on it gives all data to all devices.
        n_processes: Number of processes that compute together.

    Raises:
        DistributionError: Keras uses NNX, whose models cannot be changed in this way.
    """
    import jax
    import keras

    if keras.config.is_nnx_enabled():
        raise DistributionError("Keras uses flax's NNX, and then models cannot be prepared. Turn NNX off.")
    distribution.whole = True
    kinds = keras.distribution
    rows = kinds.TensorLayout([distribution.batch_dim_name], distribution.device_mesh)
    everywhere = kinds.TensorLayout([], distribution.device_mesh)

    def laid_out(tree: object, layout: keras.distribution.TensorLayout) -> Any:
        def one(part: object) -> Any:
            traced = isinstance(part, jax.core.Tracer) and part.ndim
            return kinds.distribute_tensor(part, layout) if traced else part

        return keras.tree.map_structure(one, tree)

    def dividing(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda state, data: step(state, laid_out(data, rows))

    steps = {name: getattr(type(model), name).__get__(model) for name in ("train_step", "test_step", "predict_step")}
    model.train_step, model.test_step = dividing(steps["train_step"]), dividing(steps["test_step"])
    predict = dividing(steps["predict_step"])

    def predict_step(state: object, data: object) -> Any:
        outputs, others = predict(state, data)
        # A process can only read what its own devices hold.
        return laid_out(outputs, everywhere) if n_processes > 1 else outputs, others

    model.predict_step = predict_step
    model.train_function = model.test_function = model.predict_function = None
