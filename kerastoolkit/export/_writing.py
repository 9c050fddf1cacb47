"""Files and folders are written beside their place, compared there, and moved when they are right."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerastoolkit.exceptions import ExportError


@contextlib.contextmanager
def replacing_file(path: Path, suffix: str) -> Iterator[Path]:
    """A block that writes a file to the path it is given; without an error the file then takes its place."""
    check_file(path, suffix)
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".export-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


_SUFFIXES = (".onnx", ".tflite", ".xml", ".keras", ".h5", ".hdf5", ".pb", ".json", ".pkl", ".joblib")


def check_file(path: Path, suffix: str) -> None:
    """Refuses a path where no file can be written, or whose name is that of another format than `suffix`."""
    if path.suffix.lower() in _SUFFIXES and path.suffix.lower() != suffix:
        raise ExportError(
            f"`path` is {str(path)!r}, the name of another format. Let it end in {suffix!r}: "
            f"{str(path.with_suffix(suffix))!r}."
        )
    _check_parent(path, "path")
    if path.is_dir():
        raise ExportError(f"`path` is {str(path)!r}, which is a folder. Name a file in it.")


@contextlib.contextmanager
def replacing_folder(path: Path, mark: str) -> Iterator[Path]:
    """A block that writes a folder to the path it is given; without an error the folder then takes its place.

    Args:
        path: The folder. One that is there is replaced whole, if it is empty or holds the file `mark`.
        mark: A file that such a folder always has.

    Raises:
        ExportError: There is another folder, or a file, in its place.
    """
    _check_parent(path, "folder")
    if path.exists() and not path.is_dir():
        raise ExportError(f"`folder` is {str(path)!r}, which is a file. Name a new folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise ExportError(f"`folder` is {str(path)!r}, which holds other files. Name a new folder, or an empty one.")
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".export-") as folder:
        temporary = Path(folder) / "new"
        yield temporary
        old = Path(folder) / "old"
        if path.is_dir():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.is_dir():
                os.replace(old, path)
            raise


def _check_parent(path: Path, argument: str) -> None:
    if not path.resolve().parent.is_dir():
        raise ExportError(f"`{argument}` is {str(path)!r}, in a folder that does not exist. Make it first.")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
