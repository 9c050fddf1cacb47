"""What there is to compute on, as far as Keras' backend says."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

__all__ = ["Device", "Devices", "counted", "detect"]


@dataclasses.dataclass(frozen=True)
class Device:
    """A device to compute on.

    Attributes:
        name: Its name, such as `"gpu:0"`.
        memory: Its memory, in bytes; None where that is not known.
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
        devices: All devices, including those of other processes.
        n_processes: Number of processes that compute together.
        process_id: Number of this process, from 0.
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
        """The devices that the backend prefers: TPUs, else GPUs, else CPUs."""
        return self.names("tpu") or self.names("gpu") or self.names("cpu")

    def __str__(self) -> str:
        lines = [f"Keras computes on {self.backend}, in {counted(self.n_processes, 'process')}."]
        for kind in ("tpu", "gpu", "cpu"):
            some = [device for device in self.devices if device.kind == kind]
            known = [f"{device.memory / 2**30:.1f} GiB" for device in some if device.memory]
            memory = f", {'each ' * (len(some) > 1)}{known[0]}" if known and len(set(known)) == 1 else ""
            lines.append(f"{kind.upper()}: {', '.join(device.name for device in some) or 'none'}{memory}")
        return "\n".join(lines)


def detect() -> Devices:
    """Says what there is to compute on.

    On TensorFlow this starts no device, so that memory growth and logical devices can still be set. On JAX it starts
    them: call `initialize` first.

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


def _jax_memory(device: jax.Device) -> int | None:
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
    """Memory of this computer, in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one."""
    return f"{number} {noun}{('es' if noun.endswith('s') else 's') * (number != 1)}"
