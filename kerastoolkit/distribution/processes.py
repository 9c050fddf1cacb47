"""Several processes that compute together, on one host or on several; on JAX only."""

from __future__ import annotations

import math
import socket
import time

from kerastoolkit.distribution._tensorflow import KERAS_ISSUES
from kerastoolkit.distribution.devices import Devices, detect
from kerastoolkit.exceptions import DistributionError, ParameterError

__all__ = ["initialize"]


def initialize(
    address: str | None = None,
    *,
    n_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 60.0,
) -> Devices:
    """Joins this process with others, on this or other hosts, to compute together; on JAX only.

    Each process calls it before anything computes. Afterwards `strategy("data_parallel")` uses the devices of all of
    them, and every process runs the same program on the same data.

    Example:

    >>> initialize("10.0.0.1:1234", n_processes=2, process_id=0)  # doctest: +SKIP

    Args:
        address: Host and port of process 0, such as `"10.0.0.1:1234"`; any free port. Defaults to `None`: JAX finds
            it by itself, on Cloud TPU and under Slurm.
        n_processes: Number of processes. Defaults to `None`: JAX finds it by itself.
        process_id: Number of this process, from 0. Defaults to `None`: JAX finds it by itself.
        timeout: How long to wait for the other processes, in seconds. Defaults to `60.0`.

    Returns:
        The devices of all processes.

    Raises:
        ParameterError: The address or a number is not one.
        DistributionError: The backend is not JAX, something was computed already, or the others did not join in time.
    """
    import keras

    backend = keras.config.backend()
    if backend != "jax":
        raise DistributionError(
            f"Several processes compute together on JAX alone; this is {backend}. Start with KERAS_BACKEND=jax. "
            f"(MultiWorkerMirroredStrategy never trains under Keras 3: {KERAS_ISSUES}20585.)"
        )
    import jax

    if jax.distributed.is_initialized():
        raise DistributionError("This process has been joined with others already, which can be done only once.")
    if address is not None:
        _check_processes(address, n_processes, process_id)
        if process_id:
            _wait_for(address, timeout)
    try:
        jax.distributed.initialize(address, n_processes, process_id, initialization_timeout=max(1, math.ceil(timeout)))
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


def _wait_for(address: str, timeout: float) -> None:
    """Waits for process 0 to listen, since JAX would end this process if nobody did."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=max(0.1, timeout)).close()
            return
        except OSError as error:
            if time.monotonic() >= until:
                raise DistributionError(
                    f"Nobody listens at {address} after {timeout:g} s ({error}). Process 0 has to run there and "
                    "call `initialize`, and the port must be open."
                ) from error
            time.sleep(0.2)


def _seed_alike() -> None:
    """Seeds all processes alike, so that they draw the same weights and the same order of rows."""
    import keras
    import numpy as np
    from jax.experimental import multihost_utils

    drawn = np.uint32(np.random.default_rng().integers(2**31))
    keras.utils.set_random_seed(int(multihost_utils.broadcast_one_to_all(drawn)))
