"""Which devices a model trains on, by which strategy, and why.

`strategy("auto")` chooses, `strategy("mirrored")` asks by name, and `explain()` says what came of it. What is asked for
by name is met or refused with the reason; nothing is replaced in silence.

Keras 3 distributes by two ways, and tells neither where it does nothing nor where it is wrong:

- on TensorFlow, `tf.distribute`. Keras divides the loss of a batch by the number of replicas even if the last batch
  leaves them unequal shares, so that its rows count for too much or too little; `Strategy.prepare` gives every row the
  same weight again. `keras.distribution` is accepted there and ignored;
- on JAX, `keras.distribution`. A batch that does not divide by the devices raises an error; a prepared model takes such
  a batch whole on every device, and each computes its share of it.

So a prepared model ends as on one device, up to rounding, whatever the batch size, except for what it draws at random.
What cannot be made equal is refused by `prepare`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kerastoolkit import _keras
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import DistributionError, KerasToolkitWarning, ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["Device", "Devices", "Strategy", "detect", "initialize", "strategy"]

_NAMES = ("auto", "none", "cpu", "gpu", "one_device", "mirrored", "tpu", "data_parallel", "model_parallel")
_OF_BACKEND = {
    "mirrored": "tensorflow",
    "tpu": "tensorflow",
    "data_parallel": "jax",
    "model_parallel": "jax",
}
_PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
_KERAS_ISSUES = "https://github.com/keras-team/keras/issues/"

# Strategies that other libraries know and that Keras 3 computes wrongly, or never trains with.
_REFUSED = {
    "central_storage": (
        "TensorFlow's CentralStorageStrategy reports a wrong loss under Keras 3. Use 'mirrored': it keeps a copy of "
        "the weights on each device and ends as one device does."
    ),
    "multi_worker_mirrored": (
        f"MultiWorkerMirroredStrategy never trains under Keras 3 ({_KERAS_ISSUES}20585, open). Use the JAX backend: "
        "distribution.initialize(...) in each process, then 'data_parallel'."
    ),
    "parameter_server": (
        f"Keras 3 does not support parameter servers ({_KERAS_ISSUES}18624). Use the JAX backend: "
        "distribution.initialize(...) in each process, then 'data_parallel'."
    ),
}


# -- what is here ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        name: Its name, such as `"gpu:0"`.
        memory: Its memory in bytes; None where that is not known.
    """

    name: str
    memory: int | None = None

    @property
    def kind(self) -> str:
        """`"cpu"`, `"gpu"` or `"tpu"`."""
        return self.name.partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Devices:
    """What there is to compute on.

    Attributes:
        backend: Keras' backend.
        devices: All devices, those of other processes among them.
        n_processes: Processes that compute together.
        process_id: Number of this one, from 0.
    """

    backend: str
    devices: tuple[Device, ...]
    n_processes: int = 1
    process_id: int = 0

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of the devices of a kind."""
        return tuple(device.name for device in self.devices if device.kind == kind)

    @property
    def best(self) -> tuple[str, ...]:
        """The devices that a backend computes on by itself: TPUs, else GPUs, else CPUs."""
        return self.names("tpu") or self.names("gpu") or self.names("cpu")

    def __str__(self) -> str:
        lines = [f"Keras computes on {self.backend}, in {_count(self.n_processes, 'process')}."]
        for kind in ("tpu", "gpu", "cpu"):
            some = [device for device in self.devices if device.kind == kind]
            known = [f"{device.memory / 2**30:.1f} GiB" for device in some if device.memory]
            memory = f", {'each ' * (len(some) > 1)}{known[0]}" if known and len(set(known)) == 1 else ""
            lines.append(f"{kind.upper()}: {', '.join(device.name for device in some) or 'none'}{memory}")
        return "\n".join(lines)


def detect() -> Devices:
    """Says what there is to compute on.

    On TensorFlow nothing is started by looking, so that memory growth and logical devices can still be set. JAX starts
    its devices when they are looked at: call `initialize` before.

    Example:

    >>> print(detect())  # doctest: +SKIP
    Keras computes on tensorflow, in 1 process.
    TPU: none
    GPU: gpu:0, gpu:1
    CPU: cpu:0, 31.3 GiB

    Returns:
        The devices by kind, with memory where it is known.
    """
    import keras

    backend = str(keras.config.backend())
    if backend == "tensorflow":
        return Devices(backend, tuple(_tensorflow_devices()))
    if backend == "jax":
        import jax

        found = {(device.platform, device.id): device for kind in (None, "cpu") for device in jax.devices(kind)}
        devices = tuple(Device(f"{_kind(name)}:{number}", _jax_memory(one)) for (name, number), one in found.items())
        return Devices(backend, devices, jax.process_count(), jax.process_index())
    return Devices(backend, (Device("cpu:0", _main_memory()), *(_torch_gpus() if backend == "torch" else ())))


def _kind(platform: str) -> str:
    return "gpu" if platform in ("cuda", "rocm", "gpu") else platform


def _tensorflow_devices() -> Iterator[Device]:
    import tensorflow as tf

    for kind in ("CPU", "GPU", "TPU"):
        number = 0
        for physical in tf.config.list_physical_devices(kind):
            logical = tf.config.get_logical_device_configuration(physical) if kind != "TPU" else None
            for part in logical or [None]:
                limit = getattr(part, "memory_limit", None)
                memory = _main_memory() if kind == "CPU" else int(limit) * 2**20 if limit else None
                yield Device(f"{kind.lower()}:{number}", memory)
                number += 1


def _torch_gpus() -> list[Device]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [Device(f"gpu:{number}", torch.cuda.get_device_properties(number).total_memory) for number in range(count)]


def _jax_memory(device: Any) -> int | None:
    if device.platform == "cpu":
        return _main_memory()
    if device.process_index != _jax_process():
        return None
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit")


def _jax_process() -> int:
    import jax

    return int(jax.process_index())


def _main_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{('es' if noun.endswith('s') else 's') * (number != 1)}"


# -- choosing -------------------------------------------------------------------------------------------------------


def strategy(
    name: str = "auto",
    *,
    devices: Sequence[str] | None = None,
    precision: str | None = None,
    per_device_batch: bool = False,
    scale_learning_rate: Literal["linear", "sqrt"] | None = None,
    memory_growth: bool | None = None,
    mesh: tuple[int, int] | None = None,
    layout: Mapping[str, Sequence[str | None]] | None = None,
    address: str | None = None,
    time_limit: float = 60.0,
    resolver: Callable[[str | None], Any] | None = None,
) -> Strategy:
    """Chooses how a model is distributed over the devices.

    Example:

    >>> chosen = strategy("auto")
    >>> with chosen.scope():  # doctest: +SKIP
    ...     model = build()
    ...     model.compile(optimizer="adam", loss="mse")
    ...     chosen.prepare(model).fit(X, y, batch_size=256)
    >>> print(chosen.explain())  # doctest: +SKIP

    Args:
        name: What to use. Defaults to `"auto"`: `"data_parallel"` on JAX with several devices; on TensorFlow `"tpu"`
            if one is named and answers, else `"mirrored"` with several GPUs; else `"none"`.

            - `"none"`: what Keras does by itself;
            - `"cpu"`, `"gpu"`: the first device of the kind, or the one in `devices`;
            - `"one_device"`: the device in `devices`; on TensorFlow by `tf.distribute.OneDeviceStrategy`;
            - `"mirrored"` (TensorFlow): a copy of the model on each device, each takes a share of every batch;
            - `"tpu"` (TensorFlow): the same on the cores of a TPU;
            - `"data_parallel"` (JAX): the same, on several hosts as well;
            - `"model_parallel"` (JAX): the weights are divided, too, for a model that no device can hold.
        devices: Names of devices as `detect` shows them. Defaults to `None`: all of the best kind.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"`: `"mixed_bfloat16"` where that is
            faster (TPUs, GPUs of compute capability 8.0 and later), else `"float32"`. Defaults to `None`: Keras'
            setting.
        per_device_batch: Whether `batch_size` is that of one device. Defaults to `False`: of all together, as in Keras,
            so that the result does not depend on the number of devices.
        scale_learning_rate: With `per_device_batch`, the rule by which the learning rate grows with the number n of
            devices: `"linear"`, times n (Goyal et al. 2017, arXiv:1706.02677), or `"sqrt"`, times its square root
            (Krizhevsky 2014, arXiv:1404.5997). Defaults to `None`: it stays.
        memory_growth: Whether TensorFlow takes the memory of a GPU as it needs it, rather than all at once. Defaults to
            `None`: yes, if its GPUs are not in use yet.
        mesh: For `"model_parallel"`: parts of the batch, and parts of the weights. Defaults to `None`: `(1, n)`.
        layout: For `"model_parallel"`: from a regular expression on the path of a variable to the axes its dimensions
            are divided by, `"batch"`, `"model"` or None. Defaults to `None`: the last dimension of every weight of two
            or more is divided by `"model"` where it can be.
        address: For `"tpu"`: name or address, such as `"grpc://10.0.0.2:8470"` or `"local"`. Defaults to `None`: that
            of the environment variable `TPU_NAME`.
        time_limit: Seconds that a TPU may take to answer. Defaults to `60.0`.
        resolver: Makes the cluster resolver of a TPU from its address; it is used without being probed first. Defaults
            to `None`: `tf.distribute.cluster_resolver.TPUClusterResolver`.

    Returns:
        The strategy.

    Raises:
        ParameterError: A name or an option that there is not.
        DistributionError: What was asked for cannot be had here; the message says why, and what can.
    """
    name = _checked_name(name)
    _check_options(name, precision, per_device_batch, scale_learning_rate, mesh, layout)
    here = detect()
    address = address or os.environ.get("TPU_NAME")
    found = _Request(here, tuple(map(_device_name, devices or ())), address, time_limit, resolver, mesh)
    made, chosen, reason = _auto(found) if name == "auto" else (name, _MEETS[name](found), "It was asked for by name.")
    policy, why = _precision(precision, here, chosen)
    growth = _grow_memory(here, memory_growth)
    parts = (1, len(chosen)) if mesh is None and made == "model_parallel" else mesh
    if parts is not None and made == "model_parallel" and math.prod(parts) != len(chosen):
        raise DistributionError(
            f"`mesh` is {tuple(parts)}, {math.prod(parts)} devices in all; there are {len(chosen)}: "
            f"{', '.join(chosen)}."
        )
    return Strategy(
        name=made,
        backend=here.backend,
        devices=chosen,
        reason=" ".join(part for part in (reason, why, growth) if part),
        precision=policy,
        per_device_batch=per_device_batch,
        scale_learning_rate=scale_learning_rate,
        mesh=None if parts is None else (int(parts[0]), int(parts[1])),
        layout=tuple((pattern, tuple(axes)) for pattern, axes in (layout or {}).items()),
        address=address if made == "tpu" else None,
        n_processes=here.n_processes,
        resolver=resolver,
    )


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a strategy is chosen from."""

    here: Devices
    devices: tuple[str, ...]
    address: str | None
    time_limit: float
    resolver: Callable[[str | None], Any] | None
    mesh: tuple[int, int] | None


def _checked_name(name: Any) -> str:
    if name in _REFUSED:
        raise DistributionError(f"The strategy {name!r} is refused: {_REFUSED[name]}")
    if name not in _NAMES:
        hint = did_you_mean(name, [*_NAMES, *_REFUSED])
        raise ParameterError(f"There is no strategy {name!r}.{hint} There are: {', '.join(_NAMES)}.")
    return str(name)


def _check_options(
    name: str, precision: Any, per_device_batch: Any, scale_learning_rate: Any, mesh: Any, layout: Any
) -> None:
    if precision is not None and precision not in _PRECISIONS:
        raise ParameterError(f"`precision` must be one of {', '.join(_PRECISIONS)}, or None; got {precision!r}.")
    if scale_learning_rate not in (None, "linear", "sqrt"):
        raise ParameterError(f"`scale_learning_rate` must be 'linear', 'sqrt' or None; got {scale_learning_rate!r}.")
    if scale_learning_rate and not per_device_batch:
        raise ParameterError(
            f"`scale_learning_rate={scale_learning_rate!r}` is for batches that grow with the number of devices, and "
            "here they do not. Give `per_device_batch=True`, too, or leave it out."
        )
    if (mesh is not None or layout is not None) and name != "model_parallel":
        raise ParameterError(f"`mesh` and `layout` are for 'model_parallel', not for {name!r}.")


def _device_name(name: Any) -> str:
    return str(name).lower().rpartition("/")[2].replace("device:", "")


def _auto(request: _Request) -> tuple[str, tuple[str, ...], str]:
    here = request.here
    if here.backend == "jax" and len(here.best) > 1:
        chosen = _of_devices(request, here.best, "data_parallel")
        return "data_parallel", chosen, f"JAX sees {_count(len(here.best), 'device')} of the best kind."
    if here.backend == "tensorflow" and request.address:
        try:
            return "tpu", _meet_tpu(request), f"A TPU is named, {request.address!r}, and answers."
        except DistributionError as error:
            warnings.warn(f"{error} 'auto' goes on without the TPU.", KerasToolkitWarning, stacklevel=3)
    if here.backend == "tensorflow" and len(here.names("gpu")) > 1:
        chosen = _of_devices(request, here.names("gpu"), "mirrored")
        return "mirrored", chosen, f"There are {_count(len(chosen), 'GPU')}, and no TPU."
    reason = {
        "tensorflow": "There are fewer than two GPUs, and no TPU that answers.",
        "jax": "JAX sees one device.",
    }.get(here.backend, f"Keras distributes nothing on {here.backend} ({_KERAS_ISSUES}23418, open).")
    return "none", here.best[:1], reason


# Each returns the devices for one name, or refuses.


def _meet_none(request: _Request) -> tuple[str, ...]:
    if request.devices:
        raise ParameterError("`devices` has no meaning for 'none', which leaves the choice to Keras; use 'one_device'.")
    return request.here.best[:1]


def _meet_one_device(request: _Request) -> tuple[str, ...]:
    return _only(_of_devices(request, request.here.best[:1], "one_device"), "one_device")


def _meet_cpu(request: _Request) -> tuple[str, ...]:
    return _only(_of_kind(request, "cpu"), "cpu")


def _meet_gpu(request: _Request) -> tuple[str, ...]:
    return _only(_of_kind(request, "gpu"), "gpu")


def _of_kind(request: _Request, kind: str) -> tuple[str, ...]:
    there = request.here.names(kind)
    if not there:
        raise DistributionError(
            f"The strategy {kind!r} was asked for, and there is no {kind.upper()}: {_seen(request)}"
        )
    chosen = _of_devices(request, there[:1], kind)
    others = [name for name in chosen if not name.startswith(kind)]
    if others:
        raise ParameterError(f"`devices` names {', '.join(others)} for the strategy {kind!r}.")
    return chosen


def _only(chosen: tuple[str, ...], name: str) -> tuple[str, ...]:
    if len(chosen) != 1:
        raise ParameterError(f"The strategy {name!r} takes one device; `devices` names {', '.join(chosen)}.")
    return chosen


def _of_devices(request: _Request, default: Sequence[str], name: str) -> tuple[str, ...]:
    """The devices that were named, if they are all there; else a default."""
    there = {device.name for device in request.here.devices}
    missing = [device for device in request.devices if device not in there]
    if missing:
        raise DistributionError(
            f"The strategy {name!r} was asked for on {', '.join(request.devices)}; there is no {', '.join(missing)}: "
            f"{_seen(request)}"
        )
    if len(set(request.devices)) < len(request.devices):
        raise ParameterError(f"`devices` names a device twice: {', '.join(request.devices)}.")
    return request.devices or tuple(default)


def _seen(request: _Request) -> str:
    return f"{request.here.backend} sees {', '.join(device.name for device in request.here.devices)}."


def _meet_several(name: str) -> Callable[[_Request], tuple[str, ...]]:
    def meet(request: _Request) -> tuple[str, ...]:
        _check_backend(name, request.here.backend)
        here = request.here
        if here.n_processes > 1 and request.devices:
            raise ParameterError("`devices` cannot be chosen among those of several processes; all of them are used.")
        chosen = _of_devices(request, here.best, name)
        if len(chosen) < 2:
            seen = f"`devices` names {chosen[0]}." if request.devices else _seen(request) + _SIMULATED[here.backend]
            raise DistributionError(f"The strategy {name!r} needs two devices or more of one kind: {seen}")
        if len({device.partition(":")[0] for device in chosen}) > 1:
            raise DistributionError(f"The strategy {name!r} needs devices of one kind; got {', '.join(chosen)}.")
        return chosen

    return meet


_SIMULATED = {
    "tensorflow": (
        " To try it on one CPU, before anything else: tf.config.set_logical_device_configuration("
        "tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)."
    ),
    "jax": " To try it on one CPU, set XLA_FLAGS=--xla_force_host_platform_device_count=2 before Python starts.",
}


def _check_backend(name: str, backend: str) -> None:
    needed = _OF_BACKEND[name]
    if needed == backend:
        return
    if backend == "tensorflow":
        raise DistributionError(
            f"The strategy {name!r} was asked for on TensorFlow, where Keras accepts keras.distribution and silently "
            "ignores it: everything would run on one device. Use 'mirrored', or start with KERAS_BACKEND=jax."
        )
    if backend == "jax":
        raise DistributionError(
            f"The strategy {name!r} belongs to tf.distribute, which JAX does not run. Use 'data_parallel', or start "
            "with KERAS_BACKEND=tensorflow."
        )
    raise DistributionError(
        f"The strategy {name!r} was asked for on {backend}, on which this Keras distributes nothing "
        f"({_KERAS_ISSUES}23418, open): it trains on one device, 'cpu' or 'gpu'. Start with KERAS_BACKEND=jax for "
        "'data_parallel' or KERAS_BACKEND=tensorflow for 'mirrored', or write the loop yourself around torch's "
        "DistributedDataParallel."
    )


def _meet_tpu(request: _Request) -> tuple[str, ...]:
    _check_backend("tpu", request.here.backend)
    if request.devices:
        raise ParameterError("`devices` has no meaning for 'tpu', which takes all cores; give `address`.")
    if request.resolver is not None:
        try:
            cores = _tpu(request.address, request.resolver).num_replicas_in_sync
        except Exception as error:
            raise _no_tpu(request.address, f"{type(error).__name__}: {error}") from error
        return tuple(f"tpu:{number}" for number in range(cores))
    if not request.address:
        raise DistributionError(
            "The strategy 'tpu' was asked for, and no TPU is named. Give `address`, such as 'local' on a TPU VM or "
            "'grpc://10.0.0.2:8470', or set TPU_NAME."
        )
    return tuple(f"tpu:{number}" for number in range(_probed(request.address, request.time_limit)))


@functools.cache
def _probed(address: str, time_limit: float) -> int:
    """Cores of a TPU. TensorFlow waits for an address that is dead for ever, so that another process has to ask."""
    # The address is passed as an argument: nothing of it is executed.
    command = [sys.executable, "-c", _PROBE, address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=time_limit)
    except subprocess.TimeoutExpired:
        raise _no_tpu(address, f"it did not answer within {time_limit:g} s") from None
    if asked.returncode:
        errors = [line for line in asked.stderr.splitlines() if re.match(r"[\w.]+Error: ", line)] or ["no message"]
        raise _no_tpu(address, errors[-1].rpartition("errors_impl.")[2][:300])
    return int(asked.stdout.split()[-1])


_PROBE = """
import sys
import tensorflow as tf
resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=sys.argv[1])
tf.config.experimental_connect_to_cluster(resolver)
tf.tpu.experimental.initialize_tpu_system(resolver)
print(len(tf.config.list_logical_devices("TPU")))
"""


def _no_tpu(address: str | None, why: str) -> DistributionError:
    return DistributionError(
        f"The strategy 'tpu' was asked for, and the TPU {address!r} cannot be used: {why}. Check its address and that "
        "it is running, or give a longer `time_limit`."
    )


_MEETS: dict[str, Callable[[_Request], tuple[str, ...]]] = {
    "none": _meet_none,
    "cpu": _meet_cpu,
    "gpu": _meet_gpu,
    "one_device": _meet_one_device,
    "mirrored": _meet_several("mirrored"),
    "data_parallel": _meet_several("data_parallel"),
    "model_parallel": _meet_several("model_parallel"),
    "tpu": _meet_tpu,
}


def _precision(asked: str | None, here: Devices, devices: tuple[str, ...]) -> tuple[str | None, str]:
    if asked != "auto":
        return asked, ""
    kind = devices[0].partition(":")[0]
    if kind == "tpu" or (kind == "gpu" and _compute_capability(here.backend) >= 8):
        return "mixed_bfloat16", f"On this {kind.upper()} bfloat16 is faster than float32."
    return "float32", f"On this {kind.upper()} bfloat16 is no faster than float32."


def _compute_capability(backend: str) -> float:
    """Of the first GPU; from 8.0 on Nvidia's have units for bfloat16."""
    if backend == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        major, minor = details.get("compute_capability", (0, 0))
    elif backend == "torch":
        import torch

        major, minor = torch.cuda.get_device_capability(0)
    else:
        import jax

        major, _, minor = str(getattr(jax.devices("gpu")[0], "compute_capability", "0.0")).partition(".")
    return float(f"{major}.{minor}")


def _grow_memory(here: Devices, asked: bool | None) -> str:
    """Lets TensorFlow take GPU memory as it needs it; returns what to say of it."""
    if here.backend != "tensorflow":
        if asked is not None:
            raise ParameterError(
                f"`memory_growth` is TensorFlow's; on {here.backend} leave it out. For JAX set the environment "
                "variable XLA_PYTHON_CLIENT_PREALLOCATE=false before Python starts."
            )
        return ""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or asked is False:
        return ""
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:  # they have been started
        if asked:
            raise DistributionError(
                f"`memory_growth=True` comes too late: {error}. Ask for the strategy before anything computes."
            ) from error
        return "GPU memory is taken as set before: the GPUs are in use already."
    except ValueError:  # logical GPUs with a limit of their own
        return ""
    return "GPU memory is taken as it is needed."


# -- the strategy ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a model is distributed; made by `strategy`. It holds names alone, so that it can be pickled.

    Attributes:
        name: What is used; never `"auto"`.
        backend: Keras' backend.
        devices: Names of the devices.
        reason: Why it was chosen.
        precision: Keras' dtype policy; None to leave it.
        per_device_batch: Whether `batch_size` is that of one device.
        scale_learning_rate: The rule by which the learning rate grows with the devices; None if it does not.
        mesh: Parts of the batch and parts of the weights, for `"model_parallel"`.
        layout: How the weights are divided, for `"model_parallel"`.
        address: Of the TPU.
        n_processes: Processes that compute together.
        resolver: Makes the resolver of a TPU; not pickled with a strategy of names.
    """

    name: str
    backend: str
    devices: tuple[str, ...]
    reason: str
    precision: str | None = None
    per_device_batch: bool = False
    scale_learning_rate: str | None = None
    mesh: tuple[int, int] | None = None
    layout: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    address: str | None = None
    n_processes: int = 1
    resolver: Callable[[str | None], Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return len(self.devices)

    @property
    def n_replicas(self) -> int:
        """Parts that each batch is divided into."""
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
        """Makes what is built, compiled, loaded and trained inside belong to the strategy."""
        with self._policy(), self._placed():
            yield

    def global_batch_size(self, batch_size: int | None) -> int | None:
        """The batch size to give to Keras.

        Args:
            batch_size: That of one device with `per_device_batch`, else of all together; None for Keras' default, 32.

        Returns:
            The rows that all devices take together in a step; None for Keras' default.
        """
        if not self.per_device_batch or self.n_replicas == 1 or batch_size == -1:
            return batch_size
        return (batch_size or 32) * self.n_replicas

    def prepare(self, model: keras.Model) -> keras.Model:
        """Puts right, in a compiled model, what Keras would get wrong under this strategy, or refuses it.

        To be called inside `scope`, after `compile`. Estimators do it by themselves.

        Args:
            model: A compiled model; its steps are changed in place. Other calls of it go on as before, but
                `predict_on_batch` under `"mirrored"`, which Keras gets wrong, raises an error.

        Returns:
            The model.

        Raises:
            DistributionError: The model or its optimizer asks for what Keras computes wrongly, or cannot, under this
                strategy; the message says what, and what to use.
            ParameterError: The model is not compiled, or `scale_learning_rate` meets a schedule.
        """
        if self.n_replicas == 1 and self.n_devices == 1:
            return model
        if not model.compiled:
            raise ParameterError("`model` is not compiled. Call model.compile(...) inside the scope, then prepare it.")
        if _prepared.get(model) is model.optimizer:
            return model
        if self.name in ("mirrored", "tpu"):
            _check_for_replicas(model, self.name)
            _weigh_rows_alike(model)
        else:
            _share_rows(model, _distribution(self), self.n_processes)
        if self.scale_learning_rate is not None and model.optimizer not in _scaled:
            _scale_learning_rate(model.optimizer, self.scale_learning_rate, self.n_replicas)
        _prepared[model] = model.optimizer
        return model

    def keep_learning_rate(self, model: keras.Model) -> None:
        """Says that the learning rate of a model is right for this strategy: it was trained under one before."""
        _scaled.add(model.optimizer)

    def explain(self) -> str:
        """Says in words what was chosen, why, and what it means for a fit."""
        where = f"{', '.join(self.devices)} ({self.backend})"
        lines = [f"{self.name}: {_SAYS[self.name]} Devices: {where}.", f"Why: {self.reason}"]
        if self.n_processes > 1:
            lines.append(
                f"Processes: {self.n_processes}; each runs the same program on the same rows, and predicts all of them."
            )
        if self.n_replicas > 1:
            of = "one device" if self.per_device_batch else "all devices together, as in Keras"
            lines.append(f"Batches: `batch_size` is that of {of}; each is divided into {self.n_replicas} parts.")
            lines.append(
                "Results: those of one device up to rounding, also for a last batch that does not divide; layers that "
                "draw at random (dropout) draw otherwise."
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

    def __reduce__(self) -> Any:
        state = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "resolver"
        }
        return _again, (state,)

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

    def _placed(self) -> Any:
        import keras

        if self.name == "none":
            return contextlib.nullcontext()
        if self.name in ("data_parallel", "model_parallel"):
            return _distribution(self).scope()
        if self.name == "mirrored":
            return _mirrored(self.devices).scope()
        if self.name == "tpu":
            return _tpu(self.address, self.resolver).scope()
        if self.name == "one_device" and self.backend == "tensorflow":
            return _one_device(self.devices[0]).scope()
        return keras.device(self.devices[0])


_SAYS = {
    "none": "Keras computes where it does by itself.",
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

# Models that have been prepared, with the optimizer that they had; optimizers whose learning rate is right.
_prepared: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_scaled: weakref.WeakSet[Any] = weakref.WeakSet()


def _again(state: dict[str, Any]) -> Strategy:
    return Strategy(**state)


# -- on TensorFlow --------------------------------------------------------------------------------------------------


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    import tensorflow as tf

    # Left to itself, TensorFlow adds gradients up by collective operations of all devices. Those cannot be repeated by
    # `steps_per_execution`, and break all fits after one over another set of devices.
    add_up = tf.distribute.NcclAllReduce if devices[0].startswith("gpu") else tf.distribute.ReductionToOneDevice
    return tf.distribute.MirroredStrategy([device.upper() for device in devices], cross_device_ops=add_up())


@functools.cache
def _one_device(device: str) -> Any:
    import tensorflow as tf

    return tf.distribute.OneDeviceStrategy(device.upper())


@functools.cache
def _tpu(address: str | None, resolver: Callable[[str | None], Any] | None) -> Any:
    import tensorflow as tf

    found = (resolver or tf.distribute.cluster_resolver.TPUClusterResolver)(address)
    tf.config.experimental_connect_to_cluster(found)
    tf.tpu.experimental.initialize_tpu_system(found)
    return tf.distribute.TPUStrategy(found)


def _check_for_replicas(model: keras.Model, name: str) -> None:
    """Refuses what Keras computes wrongly, or not at all, where each replica takes a share of a batch."""
    import keras

    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    under = f"under the strategy {name!r}"
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise DistributionError(
            f"`gradient_accumulation_steps` fails {under} ({_KERAS_ISSUES}20582). Use a larger `batch_size`: the "
            "devices share it."
        )
    for clipping in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(optimizer, clipping, None):
            raise DistributionError(
                f"`{clipping}` is computed wrongly {under}: Keras clips the gradient of each replica's share before it "
                "adds them up. Leave it out, lower the learning rate, or use one device."
            )
    if model.jit_compile is True and name == "mirrored":
        raise DistributionError(
            f"`jit_compile=True` fails {under}: XLA cannot reach the copies of a variable on other devices. Leave it "
            "out."
        )
    for layer in _keras.layers_of(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable and not layer.synchronized:
            raise DistributionError(
                f"The layer {layer.name!r} would learn its statistics from each replica's share of a batch {under}, "
                "and NaN from an empty one. Make it BatchNormalization(synchronized=True), which gives those of the "
                "whole batch, or freeze it (trainable=False)."
            )
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean"):
            raise DistributionError(
                f"The loss {getattr(loss, 'name', loss)!r} is reduced by {reduction!r}, which Keras computes for each "
                f"replica's share {under}. Use the mean over the batch, reduction='sum_over_batch_size'."
            )


_UNEVEN = (
    "A model with a train_step of its own needs batches that divide by the number of devices under this strategy. "
    "Choose `batch_size` so, and leave out the last batch if it is smaller."
)


def _weigh_rows_alike(model: keras.Model) -> None:
    """Weighs the loss of each replica by its share of the rows.

    Keras divides the mean loss of each replica by their number. Of a last batch of 33 rows with 32 and 1 row, one row
    would count as much as the others together.
    """
    import keras
    import tensorflow as tf

    optimizer = model.optimizer
    step, scale = type(model).train_step.__get__(model), type(optimizer).scale_loss.__get__(optimizer)
    knows_loss = type(model).train_step is keras.Model.train_step
    # TensorFlow traces each replica in a thread of its own.
    replica = threading.local()

    def train_step(data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        rows = tf.shape(next(part for part in keras.tree.flatten(x) if part is not None))[0]
        context = tf.distribute.get_replica_context()
        all_rows = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
        rows = rows * context.num_replicas_in_sync
        if knows_loss:
            replica.share = tf.cast(rows, "float32") / tf.cast(all_rows, "float32")
            return step(data)
        # A step of the user's may add up its gradients as it likes.
        with tf.control_dependencies([tf.debugging.assert_equal(rows, all_rows, _UNEVEN)]):
            return step(data)

    def scale_loss(loss: Any) -> Any:
        loss = scale(loss)
        return loss * tf.cast(replica.share, loss.dtype) if knows_loss else loss

    def predict_on_batch(x: Any) -> Any:
        raise DistributionError(
            f"`predict_on_batch` is computed wrongly under tf.distribute: each device predicts all {len(x)} rows, and "
            "all of them come back. Use `predict`."
        )

    model.train_step, model.predict_on_batch = train_step, predict_on_batch
    optimizer.scale_loss = scale_loss
    model.train_function = None  # was made of the step before


# -- on JAX ---------------------------------------------------------------------------------------------------------


def _distribution(strategy: Strategy) -> Any:
    return _distribution_over(strategy.devices, strategy.mesh, strategy.layout, strategy.n_processes)


@functools.cache
def _distribution_over(devices: tuple[str, ...], parts: Any, given: Any, n_processes: int) -> Any:
    """The `keras.distribution` of a strategy, one for all over the same devices; `parts` is None for data alone."""
    import keras

    kinds = keras.distribution
    divided = parts is not None
    shape, axes = (parts, ("batch", "model")) if divided else ((len(devices),), ("batch",))
    mesh = kinds.DeviceMesh(shape, axes, list(devices))
    base = kinds.ModelParallel if divided else kinds.DataParallel

    class Distribution(base):  # type: ignore[misc, valid-type]
        """The same, whose data may be given whole to all devices, once a prepared model divides it itself."""

        whole = n_processes > 1

        def get_data_layout(self, data_shape: Any) -> Any:
            if self.whole:
                return kinds.TensorLayout([None] * len(data_shape), mesh)
            return super().get_data_layout(data_shape)

        def get_variable_layout(self, variable: Any) -> Any:
            known = _keras.has_layout(variable)
            if divided and not given and not known:
                return kinds.TensorLayout(_divided_axes(variable.shape, parts), mesh)
            return super().get_variable_layout(variable)

    if not divided:
        return Distribution(device_mesh=mesh, auto_shard_dataset=False)
    layout = kinds.LayoutMap(mesh)
    for pattern, names in given:
        layout[pattern] = tuple(names)
    return Distribution(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)


def _divided_axes(shape: Sequence[int], mesh: Any) -> list[str | None]:
    axes: list[str | None] = [None] * len(shape)
    if len(shape) > 1 and shape[-1] % mesh[1] == 0:
        axes[-1] = "model"
    return axes


def _share_rows(model: keras.Model, distribution: Any, n_processes: int) -> None:
    """Lets each device compute its part of a batch that all of them get.

    Keras puts a part of a batch on each device, which must be of one size. Inside a compiled step XLA divides any
    number of rows.
    """
    import jax
    import keras

    if keras.config.is_nnx_enabled():
        raise DistributionError("Keras runs with flax's NNX, with which models cannot be prepared. Turn it off.")
    distribution.whole = True
    kinds = keras.distribution
    rows = kinds.TensorLayout([distribution.batch_dim_name], distribution.device_mesh)
    everywhere = kinds.TensorLayout([], distribution.device_mesh)

    def laid_out(tree: Any, layout: Any) -> Any:
        def one(part: Any) -> Any:
            traced = isinstance(part, jax.core.Tracer) and part.ndim
            return kinds.distribute_tensor(part, layout) if traced else part

        return keras.tree.map_structure(one, tree)

    def dividing(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda state, data: step(state, laid_out(data, rows))

    steps = {name: getattr(type(model), name).__get__(model) for name in ("train_step", "test_step", "predict_step")}
    model.train_step, model.test_step = dividing(steps["train_step"]), dividing(steps["test_step"])
    predict = dividing(steps["predict_step"])

    def predict_step(state: Any, data: Any) -> Any:
        outputs, others = predict(state, data)
        # A process can only read what its own devices hold.
        return laid_out(outputs, everywhere) if n_processes > 1 else outputs, others

    model.predict_step = predict_step
    model.train_function = model.test_function = model.predict_function = None


# -- learning rates -------------------------------------------------------------------------------------------------


def _factor(rule: str, n_replicas: int) -> float:
    return float(n_replicas) if rule == "linear" else math.sqrt(n_replicas)


def _scale_learning_rate(optimizer: Any, rule: str, n_replicas: int) -> None:
    import keras

    _scaled.add(optimizer)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(_keras.rate_of(optimizer), keras.optimizers.schedules.LearningRateSchedule):
        raise ParameterError(
            f"`scale_learning_rate={rule!r}` cannot scale a schedule. Write the rates of the schedule for "
            f"{n_replicas} devices, and leave it out."
        )
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    optimizer.learning_rate = rate * _factor(rule, n_replicas)


# -- several processes ----------------------------------------------------------------------------------------------


def initialize(
    address: str | None = None,
    *,
    n_processes: int | None = None,
    process_id: int | None = None,
    time_limit: float = 60.0,
) -> Devices:
    """Joins this process with others, on this or other hosts, to compute together; on JAX only.

    To be called by each process, before anything computes. Afterwards `strategy("data_parallel")` takes the devices of
    all of them, and every process runs the same program on the same data.

    Example:

    >>> initialize("10.0.0.1:1234", n_processes=2, process_id=0)  # doctest: +SKIP

    Args:
        address: Host and port of process 0, such as `"10.0.0.1:1234"`; any free port. Defaults to `None`: what JAX
            finds out by itself, on Cloud TPU and under Slurm.
        n_processes: Number of processes. Defaults to `None`: the same.
        process_id: Number of this process, from 0. Defaults to `None`: the same.
        time_limit: Seconds to wait for the others. Defaults to `60.0`.

    Returns:
        The devices of all processes.

    Raises:
        ParameterError: An address or number that cannot be.
        DistributionError: The backend is not JAX, it is too late, or the others did not come.
    """
    import keras

    backend = keras.config.backend()
    if backend != "jax":
        raise DistributionError(
            f"Several processes compute together on JAX alone; this is {backend}. Start with KERAS_BACKEND=jax. "
            f"(MultiWorkerMirroredStrategy never trains under Keras 3: {_KERAS_ISSUES}20585.)"
        )
    import jax

    if jax.distributed.is_initialized():
        raise DistributionError("This process has been joined with others already; that can be done once.")
    if address is not None:
        _check_processes(address, n_processes, process_id)
        if process_id:
            _wait_for(address, time_limit)
    try:
        jax.distributed.initialize(
            address, n_processes, process_id, initialization_timeout=max(1, math.ceil(time_limit))
        )
    except (RuntimeError, ValueError) as error:
        raise DistributionError(
            f"The processes could not be joined: {error} All of them have to call `initialize` before anything "
            "computes, with the same address and number of processes."
        ) from error
    _seed_alike()
    return detect()


def _check_processes(address: str, n_processes: int | None, process_id: int | None) -> None:
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ParameterError(f"`address` must be the host and port of process 0, as '10.0.0.1:1234'; got {address!r}.")
    if n_processes is None or process_id is None or not 0 <= process_id < n_processes:
        raise ParameterError(
            f"With an `address`, `n_processes` must be given, and `process_id` from 0 to one less; got "
            f"n_processes={n_processes}, process_id={process_id}."
        )


def _wait_for(address: str, time_limit: float) -> None:
    """Waits for process 0 to listen. JAX itself ends the whole process when nobody does."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + time_limit
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=max(0.1, time_limit)).close()
            return
        except OSError as error:
            if time.monotonic() >= until:
                raise DistributionError(
                    f"Nobody listens at {address} after {time_limit:g} s ({error}). Process 0 has to run there and "
                    "call `initialize`, and the port must be open."
                ) from error
            time.sleep(0.2)


def _seed_alike() -> None:
    """Starts the generators of all processes alike, so that they draw the same weights and orders of rows."""
    import keras
    import numpy as np
    from jax.experimental import multihost_utils

    drawn = np.uint32(np.random.default_rng().integers(2**31))
    keras.utils.set_random_seed(int(multihost_utils.broadcast_one_to_all(drawn)))
