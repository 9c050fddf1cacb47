"""Whether a file of weights holds its numbers in the way Keras writes them, and nothing else.

HDF5 can do much more than store arrays. A dataset may keep its numbers in another file, anywhere on the disk, or be
composed from other files; a link may lead to another file, or in a circle; a few bytes may declare gigabytes,
compressed, never written, or shared by many names. Keras uses none of this. So before anything of a file is read, we
check that every number of it is stored in the file itself, once and uncompressed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kerastoolkit.exceptions import SavedFileError

if TYPE_CHECKING:
    import h5py

__all__ = ["check_plain", "max_text_bytes"]

_MAX_DEPTH = 100  # groups inside groups; Keras writes two for each model inside a model


def check_plain(file: str | Path | BinaryIO, *, max_bytes: int | None = None) -> int:
    """Refuses an HDF5 file that holds more than plain arrays with texts beside them, before any array is read.

    How long the texts are is not checked, since Keras reads none of them when it loads weights. If you read them, ask
    `max_text_bytes` first.

    Args:
        file: The path of the file, or the file itself, open for reading in binary mode; it stays open.
        max_bytes: How many bytes all arrays of the file may take together in memory; never more than the file
            itself has. Defaults to `None`: as many as the file has.

    Returns:
        Number of bytes of all arrays in it.

    Raises:
        SavedFileError: The file cannot be read, is not HDF5 or is damaged; or it has links other than those of a tree,
            arrays that are stored elsewhere, compressed or in pieces, types other than numbers, or declares more than
            it holds. The message says which, and names the file.
    """
    if isinstance(file, (str, os.PathLike)):
        if not os.path.isfile(file):  # opening a pipe would wait for ever
            raise SavedFileError(f"{str(file)!r} is not a file.")
        try:
            with open(file, "rb") as opened:
                return _check(opened, max_bytes, repr(str(file)))
        except OSError as error:
            raise SavedFileError(f"{str(file)!r} cannot be read: {error}.") from error
    before = file.tell()
    found = _check(file, max_bytes, "the HDF5 file")
    file.seek(before)
    return found


def _check(file: BinaryIO, max_bytes: int | None, where: str) -> int:
    import h5py

    size = file.seek(0, os.SEEK_END)
    try:
        with h5py.File(file, "r") as opened:
            limit = size if max_bytes is None else min(size, max_bytes)
            return _Check(size, limit, where).tree(opened.id)
    except SavedFileError:
        raise
    except Exception as error:  # on a damaged file h5py raises nearly anything, RuntimeError and TypeError included
        raise SavedFileError(f"{where} is damaged, or is not an HDF5 file: {error}") from error


class _Check:
    """Walks through a file by h5py's low-level functions, which describe an object without following where it leads."""

    def __init__(self, size: int, max_bytes: int, where: str) -> None:
        self._size, self._max_bytes, self._where = size, max_bytes, where

    def tree(self, root: h5py.h5f.FileID) -> int:
        """Bytes of all arrays below a group, if everything there is plain."""
        from h5py import h5d, h5g, h5l, h5o

        of_arrays, beside, seen = 0, 0, set()
        waiting = [("/", h5g.open(root, b"/"), 0)]
        while waiting:
            path, node, depth = waiting.pop()
            refuse = self._refusal(path)
            place = h5o.get_info(node).addr
            if place in seen or depth > _MAX_DEPTH:
                raise refuse("is in it under two names" if place in seen else "lies too deep in it")
            seen.add(place)
            if isinstance(node, h5d.DatasetID):
                of_arrays += self._bytes_of_array(node, refuse)
            elif not isinstance(node, h5g.GroupID):
                raise refuse("is neither a group nor an array")
            beside += self._bytes_beside(node, refuse)
            if of_arrays + beside > self._max_bytes:
                is_all = self._max_bytes == self._size
                raise SavedFileError(
                    f"{self._where} declares more than {self._max_bytes:,} bytes of arrays and texts, which "
                    f"{'is all it holds' if is_all else 'is the most that is read of such a file'}."
                )
            for name in node if isinstance(node, h5g.GroupID) else ():
                inner = f"{path.rstrip('/')}/{name.decode(errors='replace')}"
                if node.links.get_info(name).type != h5l.TYPE_HARD:
                    raise self._refusal(inner)("is a link to another place or another file")
                waiting.append((inner, h5o.open(node, name), depth + 1))
        return of_arrays

    def _refusal(self, path: str) -> Callable[[str], SavedFileError]:
        return lambda what: SavedFileError(
            f"{self._where} is no plain file of weights, as Keras writes them: {path[:200]!r} {what}."
        )

    def _bytes_of_array(self, array: h5py.h5d.DatasetID, refuse: Callable[[str], SavedFileError]) -> int:
        from h5py import h5d, h5t

        made, kind = array.get_create_plist(), array.get_type()
        layout = made.get_layout()
        if made.get_external_count() or made.get_nfilters() or layout not in (h5d.CONTIGUOUS, h5d.COMPACT):
            raise refuse("is kept in another file, or compressed, or in pieces; save it again by model.save_weights")
        # Keras stores truth values as an enumeration, and bfloat16 and float8 as they are, which HDF5 calls opaque.
        if not isinstance(kind, (h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeEnumID, h5t.TypeOpaqueID)):
            raise refuse("does not hold numbers")
        taken = math.prod((0,) if array.shape is None else array.shape) * int(kind.get_size())
        if taken and layout == h5d.CONTIGUOUS:
            start = array.get_offset()
            if start is None or start + taken > self._size or array.get_storage_size() != taken:
                raise refuse(f"declares {taken:,} bytes that are not in the file")
        return taken

    def _bytes_beside(
        self, node: h5py.h5g.GroupID | h5py.h5d.DatasetID, refuse: Callable[[str], SavedFileError]
    ) -> int:
        """Bytes of the attributes of a group or an array."""
        from h5py import h5a, h5t

        total = 0
        for index in range(h5a.get_num_attrs(node)):
            attribute = h5a.open(node, index=index)
            kind, count = attribute.get_type(), math.prod((0,) if attribute.shape is None else attribute.shape)
            if not isinstance(kind, (h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeEnumID, h5t.TypeStringID)):
                raise refuse("has something beside it that is neither numbers nor text")
            total += count * int(kind.get_size())
        return total


def max_text_bytes(file: BinaryIO) -> int:
    """An upper bound on the length of any text in an HDF5 file, in bytes.

    A list of texts stores for each of them where it is. All of them may be in one and the same place, so that a small
    file could fill the memory of whoever reads the list; their number times this bound is the most that it can take.

    Args:
        file: The file, open for reading in binary mode.

    Returns:
        The size of the longest block of texts; a block begins with four letters and its size.
    """
    longest, end, size = 0, b"", file.seek(0, os.SEEK_END)
    file.seek(0)
    while piece := file.read(2**20):
        content = end + piece
        at = content.find(b"GCOL")
        while 0 <= at <= len(content) - 16:
            longest = max(longest, min(int.from_bytes(content[at + 8 : at + 16], "little"), size))
            at = content.find(b"GCOL", at + 4)
        end = content[-15:]
    return longest
