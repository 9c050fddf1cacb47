"""Choosing a strategy: `"auto"` takes what is there; one that is named is provided, or refused with the reason."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from kerastoolkit._words import did_you_mean
from kerastoolkit.distribution._tensorflow import KERAS_ISSUES, Resolver, tpu
from kerastoolkit.distribution.devices import Devices, counted, detect
from kerastoolkit.distribution.strategies import Strategy
from kerastoolkit.exceptions import DistributionError, KerasToolkitWarning, ParameterError

__all__ = ["strategy"]

_NAMES = ("auto", "none", "cpu", "gpu", "one_device", "mirrored", "tpu", "data_parallel", "model_parallel")
_OF_BACKEND = {
    "mirrored": "tensorflow",
    "tpu": "tensorflow",
    "data_parallel": "jax",
    "model_parallel": "jax",
}
_PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
_BY_NAME = "It was asked for by name."

# Strategies that are known elsewhere, and that Keras 3 computes wrongly or never trains with.
_REFUSED = {
    "central_storage": (
        "TensorFlow's CentralStorageStrategy reports a wrong loss under Keras 3. Use 'mirrored': it keeps a copy of "
        "the weights on each device and ends up as one device does."
    ),
    "multi_worker_mirrored": (
        f"MultiWorkerMirroredStrategy never trains under Keras 3 ({KERAS_ISSUES}20585, open). Use the JAX backend: "
        "distribution.initialize(...) in each process, then 'data_parallel'."
    ),
    "parameter_server": (
        f"Keras 3 does not support parameter servers ({KERAS_ISSUES}18624). Use the JAX backend: "
        "distribution.initialize(...) in each process, then 'data_parallel'."
    ),
}


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
    timeout: float = 60.0,
    resolver: Resolver | None = None,
) -> Strategy:
    """Chooses how a model is distributed over the devices.

    Args:
        name: `"none"` (what Keras does by itself), `"cpu"` or `"gpu"` (the first device of that kind, or the one in
            `devices`), or `"one_device"` (the one in `devices`). On TensorFlow also `"mirrored"` (a copy of the model
            on each device, each takes a share of every batch) and `"tpu"` (the same on the cores of a TPU); on JAX
            `"data_parallel"` (the same, also over several hosts) and `"model_parallel"` (the weights are divided, too,
            for a model that no single device can hold). Defaults to `"auto"`: on JAX `"data_parallel"` if there are
            several devices; on TensorFlow `"tpu"` if a TPU is named and answers, else `"mirrored"` if there are several
            GPUs; else `"none"`.
        devices: Names of devices as `detect` shows them. Defaults to `None`: all of the best kind.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"`: `"mixed_bfloat16"` where that is
            faster (TPUs, GPUs of compute capability 8.0 and later), else `"float32"`. Defaults to `None`: Keras'
            setting.
        per_device_batch: Whether `batch_size` is that of one device. Defaults to `False`: that of all together, as in
            Keras, so that the result does not depend on the number of devices.
        scale_learning_rate: With `per_device_batch`, the rule by which the learning rate grows with the number n of
            devices: `"linear"`, times n (Goyal et al. 2017, arXiv:1706.02677), or `"sqrt"`, times its square root
            (Krizhevsky 2014, arXiv:1404.5997). Defaults to `None`: it stays.
        memory_growth: Whether TensorFlow takes the memory of a GPU as it needs it, rather than all at once. Defaults to
            `None`: yes, if its GPUs are not in use yet.
        mesh: For `"model_parallel"`: parts of the batch, and parts of the weights. Defaults to `None`: `(1, n)`.
        layout: For `"model_parallel"`: for a regular expression on the path of a variable, the axes that its dimensions
            are divided by, `"batch"`, `"model"` or None. Defaults to `None`: the last dimension of every weight with
            two or more is divided by `"model"` where it can be.
        address: For `"tpu"`: name or address, such as `"grpc://10.0.0.2:8470"` or `"local"`. Defaults to `None`: that
            of the environment variable `TPU_NAME`.
        timeout: How long a TPU may take to answer, in seconds. Defaults to `60.0`.
        resolver: Makes the cluster resolver of a TPU from its address; it is used without being tried first. Defaults
            to `None`: `tf.distribute.cluster_resolver.TPUClusterResolver`.

    Returns:
        The strategy.

    Raises:
        ParameterError: There is no such strategy, or an option is not one of its options.
        DistributionError: The strategy is not available here; the message says why, and what is.
    """
    name = _checked_name(name)
    _check_options(name, precision, per_device_batch, scale_learning_rate, mesh, layout)
    here = detect()
    address = address or os.environ.get("TPU_NAME")
    request = _Request(here, tuple(map(_device_name, devices or ())), address, timeout, resolver)
    chosen, on, reason = _auto(request) if name == "auto" else (name, _DEVICES_FOR[name](request), _BY_NAME)
    policy, why = _precision(precision, here, on)
    growth = _grow_memory(here, memory_growth)
    return Strategy(
        name=chosen,
        backend=here.backend,
        devices=on,
        reason=" ".join(part for part in (reason, why, growth) if part),
        precision=policy,
        per_device_batch=per_device_batch,
        scale_learning_rate=scale_learning_rate,
        mesh=_checked_mesh(mesh, on) if chosen == "model_parallel" else None,
        layout=tuple((pattern, tuple(axes)) for pattern, axes in (layout or {}).items()),
        address=address if chosen == "tpu" else None,
        n_processes=here.n_processes,
        resolver=resolver,
    )


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a strategy is chosen from."""

    here: Devices
    devices: tuple[str, ...]
    address: str | None
    timeout: float
    resolver: Resolver | None


def _checked_name(name: object) -> str:
    if name in _REFUSED:
        raise DistributionError(f"The strategy {name!r} is refused: {_REFUSED[name]}")
    if name not in _NAMES:
        hint = did_you_mean(name, [*_NAMES, *_REFUSED])
        raise ParameterError(f"There is no strategy {name!r}.{hint} There are: {', '.join(_NAMES)}.")
    return str(name)


def _check_options(
    name: str, precision: object, per_device_batch: object, scale_learning_rate: object, mesh: object, layout: object
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


def _checked_mesh(mesh: tuple[int, int] | None, devices: tuple[str, ...]) -> tuple[int, int]:
    """Parts of the batch, and parts of the weights."""
    if mesh is None:
        return 1, len(devices)
    if math.prod(mesh) != len(devices):
        raise DistributionError(
            f"`mesh` is {tuple(mesh)}, {math.prod(mesh)} devices in all; there are {len(devices)}: "
            f"{', '.join(devices)}."
        )
    return int(mesh[0]), int(mesh[1])


def _device_name(name: str) -> str:
    """A device as `detect` names it, from any of TensorFlow's and JAX' spellings."""
    return str(name).lower().rpartition("/")[2].replace("device:", "")


def _auto(request: _Request) -> tuple[str, tuple[str, ...], str]:
    """Name, devices and reason of the strategy that suits what there is."""
    here = request.here
    if here.backend == "jax" and len(here.best) > 1:
        chosen = _of_devices(request, here.best, "data_parallel")
        return "data_parallel", chosen, f"JAX sees {counted(len(here.best), 'device')} of the best kind."
    if here.backend == "tensorflow" and request.address:
        try:
            return "tpu", _devices_for_tpu(request), f"A TPU is named, {request.address!r}, and answers."
        except DistributionError as error:
            warnings.warn(f"{error} 'auto' continues without the TPU.", KerasToolkitWarning, stacklevel=3)
    if here.backend == "tensorflow" and len(here.names("gpu")) > 1:
        chosen = _of_devices(request, here.names("gpu"), "mirrored")
        return "mirrored", chosen, f"There are {counted(len(chosen), 'GPU')}, and no TPU."
    reason = {
        "tensorflow": "There are fewer than two GPUs, and no TPU that answers.",
        "jax": "JAX sees one device.",
    }.get(here.backend, f"Keras distributes nothing on {here.backend} ({KERAS_ISSUES}23418, open).")
    return "none", here.best[:1], reason


# Each returns the devices for the strategy of its name, or refuses it.


def _devices_for_none(request: _Request) -> tuple[str, ...]:
    if request.devices:
        raise ParameterError("`devices` has no meaning for 'none', which leaves the choice to Keras; use 'one_device'.")
    return request.here.best[:1]


def _devices_for_one_device(request: _Request) -> tuple[str, ...]:
    return _only(_of_devices(request, request.here.best[:1], "one_device"), "one_device")


def _devices_for_cpu(request: _Request) -> tuple[str, ...]:
    return _only(_of_kind(request, "cpu"), "cpu")


def _devices_for_gpu(request: _Request) -> tuple[str, ...]:
    return _only(_of_kind(request, "gpu"), "gpu")


def _of_kind(request: _Request, kind: str) -> tuple[str, ...]:
    """The first device of a kind, or the one of that kind that was named."""
    there = request.here.names(kind)
    if not there:
        raise DistributionError(
            f"The strategy {kind!r} was asked for, and there is no {kind.upper()}: {_what_there_is(request)}"
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
    """The devices that were named, if all of them are there; the default if none was named."""
    there = {device.name for device in request.here.devices}
    missing = [device for device in request.devices if device not in there]
    if missing:
        raise DistributionError(
            f"The strategy {name!r} was asked for on {', '.join(request.devices)}; there is no {', '.join(missing)}: "
            f"{_what_there_is(request)}"
        )
    if len(set(request.devices)) < len(request.devices):
        raise ParameterError(f"`devices` names a device twice: {', '.join(request.devices)}.")
    return request.devices or tuple(default)


def _what_there_is(request: _Request) -> str:
    return f"{request.here.backend} sees {', '.join(device.name for device in request.here.devices)}."


def _devices_for_several(name: str) -> Callable[[_Request], tuple[str, ...]]:
    def devices_for(request: _Request) -> tuple[str, ...]:
        _check_backend(name, request.here.backend)
        here = request.here
        if here.n_processes > 1 and request.devices:
            raise ParameterError("`devices` cannot be chosen among those of several processes; all of them are used.")
        chosen = _of_devices(request, here.best, name)
        if len(chosen) < 2:
            there_is = _what_there_is(request) + _SIMULATED[here.backend]
            seen = f"`devices` names {chosen[0]}." if request.devices else there_is
            raise DistributionError(f"The strategy {name!r} needs two devices or more of one kind: {seen}")
        if len({device.partition(":")[0] for device in chosen}) > 1:
            raise DistributionError(f"The strategy {name!r} needs devices of one kind; got {', '.join(chosen)}.")
        return chosen

    return devices_for


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
        f"({KERAS_ISSUES}23418, open): it trains on one device, 'cpu' or 'gpu'. Start with KERAS_BACKEND=jax for "
        "'data_parallel' or KERAS_BACKEND=tensorflow for 'mirrored', or write the loop yourself around torch's "
        "DistributedDataParallel."
    )


def _devices_for_tpu(request: _Request) -> tuple[str, ...]:
    _check_backend("tpu", request.here.backend)
    if request.devices:
        raise ParameterError("`devices` has no meaning for 'tpu', which takes all cores; give `address`.")
    if request.resolver is not None:
        try:
            cores = tpu(request.address, request.resolver).num_replicas_in_sync
        except Exception as error:
            raise _no_tpu(request.address, f"{type(error).__name__}: {error}") from error
        return tuple(f"tpu:{number}" for number in range(cores))
    if not request.address:
        raise DistributionError(
            "The strategy 'tpu' was asked for, and no TPU is named. Give `address`, such as 'local' on a TPU VM or "
            "'grpc://10.0.0.2:8470', or set TPU_NAME."
        )
    return tuple(f"tpu:{number}" for number in range(_count_cores(request.address, request.timeout)))


@functools.cache
def _count_cores(address: str, timeout: float) -> int:
    """Number of cores of a TPU. Another process has to ask, since TensorFlow waits for ever if nothing answers."""
    # The address is passed as an argument: nothing of it is executed.
    command = [sys.executable, "-c", _PROBE, address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise _no_tpu(address, f"it did not answer within {timeout:g} s") from None
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
        "it is running, or give a longer `timeout`."
    )


_DEVICES_FOR: dict[str, Callable[[_Request], tuple[str, ...]]] = {
    "none": _devices_for_none,
    "cpu": _devices_for_cpu,
    "gpu": _devices_for_gpu,
    "one_device": _devices_for_one_device,
    "mirrored": _devices_for_several("mirrored"),
    "data_parallel": _devices_for_several("data_parallel"),
    "model_parallel": _devices_for_several("model_parallel"),
    "tpu": _devices_for_tpu,
}


def _precision(asked: str | None, here: Devices, devices: tuple[str, ...]) -> tuple[str | None, str]:
    if asked != "auto":
        return asked, ""
    kind = devices[0].partition(":")[0]
    if kind == "tpu" or (kind == "gpu" and _compute_capability(here.backend) >= 8):
        return "mixed_bfloat16", f"On this {kind.upper()} bfloat16 is faster than float32."
    return "float32", f"On this {kind.upper()} bfloat16 is no faster than float32."


def _compute_capability(backend: str) -> float:
    """That of the first GPU; Nvidia's GPUs have units for bfloat16 from 8.0 on."""
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
    """Lets TensorFlow take GPU memory as it needs it; returns what to say about it."""
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
    except RuntimeError as error:  # the GPUs are in use
        if asked:
            raise DistributionError(
                f"`memory_growth=True` comes too late: {error}. Ask for the strategy before anything computes."
            ) from error
        return "GPU memory is taken as set before: the GPUs are in use already."
    except ValueError:  # logical GPUs with a limit of their own
        return ""
    return "GPU memory is taken as it is needed."
