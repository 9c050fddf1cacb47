"""What every test starts from: the chosen Keras backend, fixed seeds, no window and no chatter."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without it scikit-learn leaves out a check of its own; it has to be there before anything imports SciPy.
os.environ.setdefault("SCIPY_ARRAY_API", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keras-backend",
        choices=("tensorflow", "jax", "torch"),
        help="Keras backend of this run. Defaults to what Keras itself would take.",
    )


def pytest_configure(config: pytest.Config) -> None:
    backend = config.getoption("--keras-backend")
    if backend is None:
        return
    # Keras chooses its backend when it is first imported, and keeps it.
    if "keras" in sys.modules and sys.modules["keras"].config.backend() != backend:
        raise pytest.UsageError("Keras was imported before --keras-backend could be set: by a conftest.py?")
    os.environ["KERAS_BACKEND"] = backend


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("backend")
    if marker is not None:
        import keras

        if keras.config.backend() not in marker.args:
            pytest.skip(f"is about {' and '.join(marker.args)}, not {keras.config.backend()}")


@pytest.fixture(scope="session")
def backend() -> str:
    """The Keras backend of this run: "tensorflow", "jax" or "torch"."""
    import keras

    return str(keras.config.backend())


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a fresh Python, with environment variables as keywords; None takes one away."""

    def run(program: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        command = [sys.executable, "-c", program]
        finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=1500)
        assert finished.returncode == 0, finished.stderr
        return finished

    return run


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Lets every test draw the same random numbers, whichever tests ran before it."""
    import numpy as np

    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:  # importing it takes seconds, which tests that do without should not spend
        sys.modules["keras"].utils.set_random_seed(0)
