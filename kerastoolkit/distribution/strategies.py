"""The strategy that was chosen: a scope, what it corrects in a model, and what it says about itself."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kerastoolkit import _keras
from kerastoolkit.distribution import _jax, _tensorflow
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["Strategy"]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a model is distributed, made by `strategy`. It holds only names, so that it can be pickled.

    Attributes:
        name: Name of what is used; never `"auto"`.
        backend: Keras' backend.
        devices: Names of the devices.
        reason: Why it was chosen.
        precision: Keras' dtype policy; None to keep Keras' setting.
        per_device_batch: Whether `batch_size` is that of one device.
        scale_learning_rate: The rule by which the learning rate grows with the number of devices; None if it stays.
        mesh: Parts of the batch and parts of the weights, for `"model_parallel"`.
        layout: How the weights are divided, for `"model_parallel"`.
        address: Address of the TPU.
        n_processes: Number of processes that compute together.
        resolver: Makes the cluster resolver of a TPU from its address; it is not pickled.
    """

    name: str
    backend: str
    devices: tuple[str, ...]
    reason: str
    precision: str | None = None
    per_device_batch: bool = False
    scale_learning_rate: str | None = None
    mesh: tuple[int, int] | None = None
    layout: _jax.Layout = ()
    address: str | None = None
    n_processes: int = 1
    resolver: _tensorflow.Resolver | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return len(self.devices)

    @property
    def n_replicas(self) -> int:
        """Number of parts that each batch is divided into."""
        if self.name == "model_parallel":
            return (self.mesh or (1, 1))[0]
        return self.n_devices if self.name in ("mirrored", "tpu", "data_parallel") else 1

    @property
    def divides_on_tensorflow(self) -> bool:
        """Whether tf.distribute divides the batches."""
        return self.name in ("mirrored", "tpu")

    @property
    def changes_nothing(self) -> bool:
        """Whether it leaves everything to Keras."""
        return self.name == "none" and self.precision is None

    @property
    def summary(self) -> str:
        """Its name, number of devices and precision, in a few words."""
        several = f" over {self.n_devices} devices" if self.n_devices > 1 else ""
        return f"{self.name!r}{several}" + (f" in {self.precision}" if self.precision is not None else "")

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """A block in which what is built, compiled, loaded and trained belongs to the strategy."""
        with self._policy(), self._placement():
            yield

    def global_batch_size(self, batch_size: int | None) -> int | None:
        """The batch size to give to Keras.

        Args:
            batch_size: Rows of a batch, of one device with `per_device_batch`, else of all together; None for Keras'
                default, 32.

        Returns:
            The rows that all devices take together in a step; None for Keras' default.
        """
        if not self.per_device_batch or self.n_replicas == 1 or batch_size == -1:
            return batch_size
        return (batch_size or 32) * self.n_replicas

    def prepare(self, model: keras.Model) -> keras.Model:
        """Corrects, in a compiled model, what Keras would get wrong under this strategy, or refuses it.

        Call it inside `scope`, after `compile`. Estimators do so by themselves.

        Args:
            model: A compiled model; its steps are changed in place. Everything else works as before, except for
                `predict_on_batch` under `"mirrored"`, which Keras gets wrong and which raises an error.

        Returns:
            The model.

        Raises:
            DistributionError: The model or its optimizer asks for something that Keras computes wrongly, or not at all,
                under this strategy; the message says what it is, and what to use.
            ParameterError: The model is not compiled, or `scale_learning_rate` is set for a schedule.
        """
        if self.n_replicas == 1 and self.n_devices == 1:
            return model
        if not model.compiled:
            raise ParameterError("`model` is not compiled. Call model.compile(...) inside the scope, then prepare it.")
        if _prepared.get(model) is model.optimizer:
            return model
        if self.name in ("mirrored", "tpu"):
            _tensorflow.check_for_replicas(model, self.name)
            _tensorflow.weight_rows_equally(model)
        else:
            _jax.share_rows(model, self._distribution(), self.n_processes)
        if self.scale_learning_rate is not None and model.optimizer not in _scaled:
            _scale_learning_rate(model.optimizer, self.scale_learning_rate, self.n_replicas)
        _prepared[model] = model.optimizer
        return model

    def keep_learning_rate(self, model: keras.Model) -> None:
        """Keeps `prepare` from scaling the learning rate of a model that was trained under a strategy before."""
        _scaled.add(model.optimizer)

    def explain(self) -> str:
        """What was chosen, why, and what it means for a fit, in words."""
        where = f"{', '.join(self.devices)} ({self.backend})"
        lines = [f"{self.name}: {_DESCRIPTIONS[self.name]} Devices: {where}.", f"Why: {self.reason}"]
        if self.n_processes > 1:
            lines.append(
                f"Processes: {self.n_processes}; each runs the same program on the same rows, and predicts all of them."
            )
        if self.n_replicas > 1:
            of = "one device" if self.per_device_batch else "all devices together, as in Keras"
            lines.append(f"Batches: `batch_size` is that of {of}; each is divided into {self.n_replicas} parts.")
            lines.append(
                "Results: those of one device up to rounding, also for a last batch that does not divide; layers that "
                "draw at random (dropout) draw differently."
            )
        if self.scale_learning_rate is not None and self.n_replicas > 1:
            factor = _factor(self.scale_learning_rate, self.n_replicas)
            lines.append(f"Learning rate: times {factor:.4g} ({self.scale_learning_rate} in the number of devices).")
        if self.precision is not None:
            lines.append(f"Precision: {self.precision}; estimators predict in float32.")
        if self.name in ("mirrored", "tpu"):
            lines.append(
                "Refused: gradient accumulation, gradient clipping, jit_compile=True, BatchNormalization without "
                "synchronized=True, losses that are not means, predict_on_batch."
            )
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "resolver"
        }
        return _from_state, (state,)

    @contextlib.contextmanager
    def _policy(self) -> Iterator[None]:
        if self.precision is None:
            yield
            return
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)

    def _placement(self) -> contextlib.AbstractContextManager[Any]:
        import keras

        if self.name == "none":
            return contextlib.nullcontext()
        if self.name in ("data_parallel", "model_parallel"):
            return self._distribution().scope()  # type: ignore[no-any-return]
        if self.name == "mirrored":
            return _tensorflow.mirrored(self.devices).scope()  # type: ignore[no-any-return]
        if self.name == "tpu":
            return _tensorflow.tpu(self.address, self.resolver).scope()  # type: ignore[no-any-return]
        if self.name == "one_device" and self.backend == "tensorflow":
            return _tensorflow.one_device(self.devices[0]).scope()  # type: ignore[no-any-return]
        return keras.device(self.devices[0])  # type: ignore[no-any-return]

    def _distribution(self) -> keras.distribution.Distribution:
        return _jax.distribution_over(self.devices, self.mesh, self.layout, self.n_processes)


_DESCRIPTIONS = {
    "none": "Keras computes where it would by itself.",
    "cpu": "everything is computed on one CPU device.",
    "gpu": "everything is computed on one GPU.",
    "one_device": "everything is computed on one device.",
    "mirrored": "each device has a copy of the model and takes a share of every batch "
    "(tf.distribute.MirroredStrategy).",
    "tpu": "each core has a copy of the model and takes a share of every batch (tf.distribute.TPUStrategy).",
    "data_parallel": "each device has a copy of the model and takes a share of every batch "
    "(keras.distribution.DataParallel).",
    "model_parallel": "the weights are divided over the devices (keras.distribution.ModelParallel).",
}


# Models that have been prepared, with the optimizer that they had then; optimizers whose learning rate is scaled.
_prepared: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_scaled: weakref.WeakSet[Any] = weakref.WeakSet()


def _from_state(state: dict[str, Any]) -> Strategy:
    return Strategy(**state)


def _factor(rule: str, n_replicas: int) -> float:
    return float(n_replicas) if rule == "linear" else math.sqrt(n_replicas)


def _scale_learning_rate(optimizer: keras.optimizers.Optimizer, rule: str, n_replicas: int) -> None:
    import keras

    _scaled.add(optimizer)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(_keras.rate_of(optimizer), keras.optimizers.schedules.LearningRateSchedule):
        raise ParameterError(
            f"`scale_learning_rate={rule!r}` cannot scale a schedule. Write the schedule with the rates for "
            f"{n_replicas} devices, and leave it out."
        )
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    optimizer.learning_rate = rate * _factor(rule, n_replicas)
