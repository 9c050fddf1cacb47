"""Files that somebody else may have written: opened, measured and checked before anything in them is used.

A file that was damaged or forged is refused with a `SavedFileError`. The limits follow one rule: a file can take no
more memory than a small multiple of the bytes that it really has. So archives are not compressed (`save` never
compresses), arrays in HDF5 files are stored as they are, and the entries of JSON are counted before it is read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from kerastoolkit.exceptions import KerasToolkitError, SavedFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEBIBYTE = 2**20
_MAX_MEMBERS = 1000
# Python needs up to 70 bytes for each comma, colon or bracket of JSON: 300 megabytes at most.
_MAX_JSON_BYTES, _MAX_JSON_MARKS, _MAX_JSON_LEVELS = 64 * MEBIBYTE, 2**22, 100


@contextlib.contextmanager
def refusing(path: str | Path, writer: str) -> Iterator[None]:
    """A block that reads a file: whatever a damaged or forged one raises becomes a `SavedFileError` that names it.

    Args:
        path: The file, as the message names it.
        writer: What writes such files, as `"an estimator's `save`"`.

    Raises:
        SavedFileError: The block raised one, or an error that is not ours.
    """
    try:
        yield
    except SavedFileError as error:
        if str(path) in str(error):
            raise
        raise SavedFileError(f"{str(path)!r} cannot be read. {error}") from error
    except (KerasToolkitError, PermissionError):
        raise
    except Exception as error:  # zip, JSON, HDF5, NumPy, scikit-learn and Keras raise anything on nonsense
        raise SavedFileError(
            f"{str(path)!r} is damaged or was not written by {writer}: {type(error).__name__}: {_short(error)}"
        ) from error


def _short(error: Exception) -> str:
    text = str(error).strip()
    return text if len(text) <= 400 else f"{text[:400]} ..."


def regular_file(path: str | Path, *, within: Path | None = None) -> Path:
    """The path, if it is an ordinary file: not a folder, a pipe or a device.

    Args:
        path: The file.
        within: A folder that it must be in, after links are followed. Defaults to `None`: anywhere.

    Raises:
        FileNotFoundError: There is nothing by that name.
        SavedFileError: It is not a file, or is a link that leads out of the folder.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "There is no file", str(path))
    if not path.is_file():
        raise SavedFileError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'a device or a pipe'}, not a file.")
    if within is not None and not path.resolve().is_relative_to(within.resolve()):
        raise SavedFileError(f"{str(path)!r} is a link that leads out of its folder, so it was not read.")
    return path


def read_small(path: Path) -> bytes:
    """The content of a file that should be small.

    Raises:
        SavedFileError: It is too large.
    """
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise SavedFileError(f"{str(path)!r} has {path.stat().st_size} bytes; at most {_MAX_JSON_BYTES} are read.")
    return path.read_bytes()


# -- archives -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def folder_for(path: Path) -> Iterator[str]:
    """A folder beside a file to be written, from which the whole file is moved there; it is gone at the end.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no folder for the file.
        IsADirectoryError: It is a folder itself.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "`path` must be a file, and is a folder", str(path))
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder to write a file in", str(path.parent))
    with tempfile.TemporaryDirectory(dir=path.resolve().parent) as folder:
        yield folder


@contextlib.contextmanager
def archive(
    path: str | Path, allowed: Callable[[str], object], writer: str, *, needed: tuple[str, ...] = ()
) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive that has only expected members, each of them once and uncompressed.

    Args:
        path: The archive.
        allowed: Whether a member may have this name.
        writer: What writes such archives, for the message.
        needed: Names that must be there. Defaults to none.

    Raises:
        SavedFileError: It is not such an archive; the message names the member.
    """
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        names = {member.filename for member in members}
        if not names >= set(needed):
            hint = " A model saved by Keras is read by keras.saving.load_model." if "config.json" in names else ""
            hint = " It is read by kerastoolkit.load." if "object.json" in names else hint
            missing = next(name for name in needed if name not in names)
            raise SavedFileError(f"{str(path)!r} was not written by {writer}: it has no {missing}.{hint}")
        if members and min(member.header_offset for member in members) > 0:
            # An archive inside of another that was cut short: Python takes what is before it for a program.
            raise SavedFileError(f"{str(path)!r} is damaged: it does not begin as {writer} begins a file.")
        size = Path(path).stat().st_size
        if len(members) > _MAX_MEMBERS:
            raise SavedFileError(f"{str(path)!r} holds {len(members)} members, and {writer} writes a few.")
        seen: set[str] = set()
        for member in members:
            name = member.filename
            if not allowed(name) or member.orig_filename != name:
                raise SavedFileError(f"{str(path)!r} holds {name[:100]!r}, which {writer} never writes.")
            if name in seen:
                raise SavedFileError(f"{str(path)!r} holds {name!r} twice.")
            seen.add(name)
            if member.flag_bits & 0x1:
                raise SavedFileError(f"{name!r} in {str(path)!r} is encrypted, which {writer} never does.")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise SavedFileError(f"{name!r} in {str(path)!r} is compressed, which {writer} never does.")
        if sum(member.file_size for member in members) > size:
            raise SavedFileError(f"The members of {str(path)!r} add up to more than its {size} bytes.")
        yield file


def copy_member(file: zipfile.ZipFile, name: str, path: Path) -> Path:
    """Copies a member to a path of ours, and checks its checksum on the way."""
    with file.open(name) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, MEBIBYTE)
    return path


def read_json(content: bytes, name: str, *, constants: bool = False) -> Any:
    """Reads JSON that is neither too long nor too deep.

    Args:
        content: The text, in UTF-8.
        name: What it is called in messages.
        constants: Whether Python's NaN and Infinity may be in it. Defaults to `False`.

    Raises:
        SavedFileError: It is too long, too deep, or not JSON.
    """
    marks = sum(map(content.count, (b",", b":", b"[", b"{")))
    if len(content) > _MAX_JSON_BYTES or marks > _MAX_JSON_MARKS:
        raise SavedFileError(f"{name} holds {len(content)} bytes with {marks} entries, which is more than is read.")
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=float if constants else _refuse_constant)
    except RecursionError:
        value = None
        levels = _MAX_JSON_LEVELS + 1
    except ValueError as error:
        raise SavedFileError(f"{name} is damaged: it is not JSON ({error}).") from error
    else:
        levels = _levels(value)
    if levels > _MAX_JSON_LEVELS:
        raise SavedFileError(f"{name} is nested more than {_MAX_JSON_LEVELS} levels deep.")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _levels(value: object) -> int:
    """How deep lists and dicts are nested, without recursion."""
    levels, layer = 0, [value]
    while layer and levels <= _MAX_JSON_LEVELS:
        lists = [item for item in layer if isinstance(item, list)]
        dicts = [item for item in layer if isinstance(item, dict)]
        layer = [
            inner
            for outer in (*lists, *(found.values() for found in dicts))
            for inner in outer
            if isinstance(inner, (list, dict))
        ]
        levels += 1
    return levels


# -- fields ---------------------------------------------------------------------------------------------------------


def checked_fields(
    record: object, fields: Mapping[str, Callable[[Any], object]], what: str, *, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A dict from a file, if it has the fields that it should have, each of its type, and no others.

    Args:
        record: What the file holds.
        fields: For each field, whether it may have a value.
        what: What it is called in messages.
        optional: Fields that may be missing. Defaults to none.

    Raises:
        SavedFileError: A field is missing, unknown or of another type; the message names it.
    """
    if not isinstance(record, Mapping):
        raise SavedFileError(f"{what} is not a table of fields, but {shown(record)}.")
    unknown = [name for name in record if name not in fields]
    missing = [name for name in fields if name not in record and name not in optional]
    if unknown or missing:
        wrong = f"an unknown field {shown(unknown[0])}" if unknown else f"no field {missing[0]!r}"
        raise SavedFileError(f"{what} has {wrong}.")
    for name, value in record.items():
        if not fields[name](value):
            raise SavedFileError(f"{what} has {shown(value)} as {name!r}, which cannot be.")
    return dict(record)


def shown(value: object) -> str:
    """A value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."


def is_text(value: object) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Whether a value is True or False."""
    return isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return is_real(value) and math.isfinite(value)


def is_real(value: object) -> bool:
    """Whether a value is a number, which may be NaN or infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether a value is a possible count: a whole number from 0 to 2**31 - 1."""
    return is_whole(value) and 0 <= value < 2**31


def list_of(kind: Callable[[Any], object]) -> Callable[[Any], bool]:
    """A check that a value is a list or tuple, all items of which pass a check."""
    return lambda value: isinstance(value, (list, tuple)) and all(map(kind, value))


def dict_of(kind: Callable[[Any], object]) -> Callable[[Any], bool]:
    """A check that a value is a dict with text as keys, all values of which pass a check."""
    return lambda value: isinstance(value, Mapping) and all(map(is_text, value)) and all(map(kind, value.values()))


def optional(kind: Callable[[Any], object]) -> Callable[[Any], bool]:
    """A check that None passes, too."""
    return lambda value: value is None or bool(kind(value))


def one_of(*values: str) -> Callable[[Any], bool]:
    """A check that a value is one of some texts."""
    return lambda value: isinstance(value, str) and value in values


def matching(pattern: str) -> Callable[[Any], bool]:
    """A check that a value is a text that matches a regular expression."""
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def check_npy(file: zipfile.ZipFile, name: str) -> None:
    """Refuses an array in NumPy's format unless it is a plain array of exactly the bytes that the member has.

    Raises:
        SavedFileError: It holds objects, or claims another size.
    """
    import numpy as np

    with file.open(name) as content:
        version = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(content)
        size = file.getinfo(name).file_size - content.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size:
        raise SavedFileError(f"{name} says that it holds {shape} values of {dtype} in {size} bytes.")


# -- arrays ---------------------------------------------------------------------------------------------------------

KINDS_OF_ARRAYS = "biufcSUmMO"
_is_dtype = matching(r"object|[<>|=]?([biufc]\d{1,2}|[SU]\d{1,8}|[mM]8\[\d{0,6}\w{1,2}\])")
_MAX_ARRAY_BYTES = 64 * MEBIBYTE


def as_list(values: NDArray[Any]) -> Any:
    """An array as a list of plain values; dates as whole numbers, since Python does not have all units of NumPy."""
    return values.astype("int64").tolist() if values.dtype.kind in "mM" else values.tolist()


def name_of_dtype(values: NDArray[Any]) -> str:
    """The name of the type of an array, which `array_from` needs beside the list."""
    return "object" if values.dtype == object else str(values.dtype.str)


def array_from(values: object, dtype: Any) -> NDArray[Any]:
    """An array from what `as_list` and `name_of_dtype` made of it; nothing of it is trusted.

    Raises:
        SavedFileError: It has no such type, or is larger than is read.
    """
    import numpy as np

    if not isinstance(values, list) or not _is_dtype(dtype):
        raise SavedFileError(f"A file holds an array of {shown(dtype)}, which is not a type of numbers, text or dates.")
    items = np.array(values, dtype=object)
    if dtype == "object":
        return items
    kind = np.dtype(dtype)
    if items.size * kind.itemsize > _MAX_ARRAY_BYTES:
        raise SavedFileError(f"A file holds {items.size} values of {kind.itemsize} bytes, which is more than is read.")
    return np.array(values, dtype=kind)
