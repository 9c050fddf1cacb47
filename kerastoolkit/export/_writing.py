"""Files and folders are written beside their place, compared there, and moved when they are right."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerastoolkit.exceptions import ExportError


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A block that writes a file to the path it is given; without an error the file then takes its place."""
    _check_parent(path)
    if path.is_dir():
        raise ExportError(f"{str(path)!r} is a folder, and a file is to be written. Name a file in it.")
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".export-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def replacing_folder(path: Path, mark: str) -> Iterator[Path]:
    """A block that writes a folder to the path it is given; without an error the folder then takes its place.

    Args:
        path: The folder. One that is there is replaced whole, if it is empty or holds the file `mark`.
        mark: A file that such a folder always has.

    Raises:
        ExportError: There is another folder, or a file, in its place.
    """
    _check_parent(path)
    if path.exists() and not path.is_dir():
        raise ExportError(f"{str(path)!r} is a file, and a folder is to be written.")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise ExportError(f"The folder {str(path)!r} holds other files. Name a new folder, or an empty one.")
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".export-") as folder:
        temporary = Path(folder) / "new"
        yield temporary
        if path.is_dir():
            os.replace(path, Path(folder) / "old")
        os.replace(temporary, path)


def _check_parent(path: Path) -> None:
    if not path.resolve().parent.is_dir():
        raise ExportError(f"There is no folder {str(path.resolve().parent)!r}. Make it first.")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
