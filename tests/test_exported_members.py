"""The public list of the package, and of each room, equals the truth."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import kerastoolkit

_NOT_A_ROOM = {"cli"}  # users reach it from the command line

ROOMS = sorted(
    module.name
    for module in pkgutil.iter_modules(kerastoolkit.__path__)
    if not module.name.startswith("_") and module.name not in _NOT_A_ROOM
)


def test_the_list_is_sorted():
    assert kerastoolkit.__all__ == sorted(kerastoolkit.__all__)


def test_every_listed_name_loads():
    for name in kerastoolkit.__all__:
        assert getattr(kerastoolkit, name) is not None


def test_every_room_is_listed():
    listed = [name for name in kerastoolkit.__all__ if isinstance(getattr(kerastoolkit, name), ModuleType)]
    assert listed == ROOMS


def test_dir_shows_the_list_and_nothing_else():
    assert dir(kerastoolkit) == kerastoolkit.__all__


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(kerastoolkit.__file__).read_text(encoding="utf-8"))
    twin = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in twin.body for alias in node.names}
    assert sorted([*seen, "__version__"]) == kerastoolkit.__all__
    for name, module in seen.items():  # each comes from the same place
        value = getattr(kerastoolkit, name)
        if module == "kerastoolkit":
            assert value is importlib.import_module(f"kerastoolkit.{name}")
        else:
            assert value is getattr(importlib.import_module(module), name)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'kerastoolkit' has no attribute 'KerasClasifier'") as error:
        kerastoolkit.KerasClasifier  # noqa: B018
    # what Python needs to add "Did you mean: 'KerasClassifier'?"
    assert (error.value.name, error.value.obj) == ("KerasClasifier", kerastoolkit)


@pytest.mark.parametrize("room", ROOMS)
def test_the_list_of_a_room_is_sorted_and_true(room):
    module = importlib.import_module(f"kerastoolkit.{room}")
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_the_package_says_that_it_is_typed():
    assert Path(kerastoolkit.__file__).with_name("py.typed").is_file()
