"""An optional package that is missing says what needs it, and the line to type."""

from __future__ import annotations

import re
import sys
from importlib.metadata import metadata, requires

import pytest

from kerastoolkit._optional import _OPTIONAL, require
from kerastoolkit.exceptions import MissingPackageError


@pytest.fixture
def no_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # Python's own way to say: not to be found


def test_an_installed_package_is_imported():
    pyarrow = pytest.importorskip("pyarrow", reason='pip install "kerastoolkit[parquet]"')
    assert require("pyarrow") is pyarrow


def test_a_missing_package_names_the_feature_and_the_line_to_type(no_pyarrow):
    message = (
        "Reading sales.parquet needs the package pyarrow, which is not installed. "
        'To install it: pip install "kerastoolkit[parquet]"'
    )
    with pytest.raises(MissingPackageError, match=re.escape(message)) as error:
        require("pyarrow", "Reading sales.parquet")
    assert error.value.name == "pyarrow"
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_without_a_feature_the_table_speaks(no_pyarrow):
    with pytest.raises(ImportError, match=r"^Reading and writing Parquet files needs the package pyarrow"):
        require("pyarrow")


def test_a_broken_package_is_not_called_missing(monkeypatch, tmp_path):
    # one that is there, and needs another that is not
    (tmp_path / "polars.py").write_text("import a_package_that_is_not_there", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there") as error:
        require("polars")
    assert not isinstance(error.value, MissingPackageError)


@pytest.mark.parametrize("name", sorted(_OPTIONAL))
def test_every_optional_package_is_in_the_extra_that_it_names(name):
    extra = _OPTIONAL[name].extra
    assert extra in (metadata("kerastoolkit").get_all("Provides-Extra") or [])
    distribution = name.replace("_", "[-_]")
    assert any(re.match(rf"{distribution}\b.*extra == .{extra}.$", line) for line in requires("kerastoolkit") or [])
