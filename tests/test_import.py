"""Importing is quick, since nothing heavy loads before it is used; `benchmarks/import_time.py` measures the time."""

from __future__ import annotations

import json

import pytest

HEAVY = {"jax", "keras", "matplotlib", "numpy", "pandas", "scikeras", "scipy", "sklearn", "tensorflow", "torch"}


# what a program ends with, so that the test sees what it loaded
TELL = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"


@pytest.fixture
def heavy_modules_after(run_python):
    def run(program: str) -> set[str]:
        return HEAVY & set(json.loads(run_python(program + TELL).stdout.splitlines()[-1]))

    return run


@pytest.mark.parametrize("module", ["kerastoolkit", "kerastoolkit.cli", "kerastoolkit.exceptions"])
def test_importing_loads_nothing_heavy(heavy_modules_after, module):
    assert heavy_modules_after(f"import {module}") == set()


def test_help_loads_nothing_heavy(heavy_modules_after):
    ask_for_help = "from kerastoolkit.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert heavy_modules_after(ask_for_help) == set()


def test_no_module_loads_keras_or_matplotlib_before_they_are_used(heavy_modules_after):
    import_all = (
        "import importlib, pkgutil, kerastoolkit\n"
        "for module in pkgutil.walk_packages(kerastoolkit.__path__, 'kerastoolkit.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    assert heavy_modules_after(import_all) <= {"numpy", "pandas", "scipy", "sklearn"}
