"""Features of images, kept: on disk for the next process, in memory for the next fold of a search."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kerastoolkit._sqlite import application_of, connect, has_table
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError

__all__ = ["FeatureCache", "Features"]

Features: TypeAlias = NDArray[np.float32]  # of one image, shape `(features,)`, or of several, `(n, features)`


class FeatureCache:
    """Features on disk, one SQLite database for each network, safe for several processes at once.

    A batch of features is written as one transaction, so that a process that is killed leaves whole batches only. When
    the files together take more than `max_bytes`, those that were not used for longest are deleted.

    The files have a folder of their own, and both are private to the user. No other file is read, counted or deleted,
    whatever its name: each of ours is marked inside. A row that is no longer as it was written (another length, other
    bytes, numbers that are not finite) is computed again and replaced, and a warning says so.

    Example:

    >>> FeatureCache("project").folder.name
    'kerastoolkit-features'

    Args:
        folder: Where the folder `kerastoolkit-features` with the files is; it is created when first written to.
            Defaults to `None`: the files are in `kerastoolkit/features` in the user's cache folder (`$XDG_CACHE_HOME`
            or `~/.cache`; `~/Library/Caches` on a Mac; `%LOCALAPPDATA%` on Windows).
        max_bytes: Bytes on disk that the files may take together. Defaults to `2 * 2**30`, the features of about
            400,000 images by MobileNetV2.

    Attributes:
        folder: The folder of the files.
    """

    def __init__(self, folder: str | Path | None = None, *, max_bytes: int = 2 * 2**30) -> None:
        if not isinstance(folder, (str, Path, type(None))):
            raise ParameterError(f"`folder` must be the path of a folder or None; got {folder!r}.")
        self.folder = _user_folder() if folder is None else Path(folder) / "kerastoolkit-features"
        self.max_bytes = max_bytes

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return sum(map(_bytes_of, self._files()))

    def read(self, key: str, images: set[bytes], *, n_features: int | None = None) -> dict[bytes, Features]:
        """Features that are there, by the digest of their image.

        Args:
            key: `Extractor.key`.
            images: Digests of the images.
            n_features: Number of features that each image must have. Defaults to `None`: any number.

        Returns:
            Arrays of shape `(features,)`, float32, finite; none for an image whose features are not there.
        """
        path, found, n_damaged = self._path(key), dict[bytes, Features](), 0
        wanted = list(images)
        with self._warning_instead(path, "read"):
            if not self._is_private(path):
                return {}
            with closing(self._open(path)) as database:
                for start in range(0, len(wanted) if has_table(database, "features", _FEATURES) else 0, 500):
                    some = wanted[start : start + 500]
                    marks = ",".join("?" * len(some))
                    for row in database.execute(f"SELECT * FROM features WHERE picture IN ({marks})", some):
                        features = _checked_row(key, row, n_features)
                        if features is None:
                            n_damaged += 1
                        else:
                            found[row[0]] = features
            with suppress(FileNotFoundError):  # another process has deleted it since
                os.utime(path)
        if n_damaged:
            warnings.warn(
                f"{n_damaged} of {len(wanted)} rows of features in {str(path)!r} are not as they were written. They "
                "are computed again and replaced.",
                KerasToolkitWarning,
                stacklevel=2,
            )
        return found

    def write(self, key: str, features: Mapping[bytes, ArrayLike]) -> None:
        """Keeps features; where the disk cannot be written to it warns, since the features are computed anyway.

        Args:
            key: `Extractor.key`.
            features: Arrays of shape `(features,)` by the digest of their image. Those with NaN or infinite numbers
                are not kept.
        """
        path = self._path(key)
        arrays = {image: np.asarray(row, "float32") for image, row in features.items()}
        rows = [(image, row.tobytes()) for image, row in arrays.items() if np.isfinite(row).all()]
        with self._warning_instead(path, "written"):
            self._make_private(path)
            with closing(self._open(path)) as database:
                # At once: another process must not begin to write between what is read here and what is written.
                database.execute("BEGIN IMMEDIATE")
                if not has_table(database, "features", _FEATURES):
                    database.execute(_FEATURES)
                    database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.executemany(
                    "INSERT OR REPLACE INTO features VALUES (?, ?, ?)",
                    [(image, row, _digest_of_row(key, image, row)) for image, row in rows],
                )
                database.execute("COMMIT")
            self._keep_within_size(path)

    def clear(self) -> None:
        """Deletes all features of the folder."""
        for path in self._files():
            _delete(path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.sqlite"

    def _files(self) -> list[Path]:
        """The files of the folder that are ours, by their name and by the mark inside."""
        files: list[Path] = []
        with self._warning_instead(self.folder, "found"):
            if os.path.lexists(self.folder):
                _check_ours(self.folder, stat.S_ISDIR)
                names = filter(_FILE.fullmatch, sorted(os.listdir(self.folder)))
                files = [self.folder / name for name in names if _is_ours(self.folder / name)]
        return files

    def _is_private(self, path: Path) -> bool:
        """Whether there is a file of ours of that name; makes it private.

        Raises:
            OSError: The file or its folder is somebody else's.
        """
        if not os.path.lexists(path):
            return False
        _check_ours(self.folder, stat.S_ISDIR)
        if _check_ours(path, stat.S_ISREG) and application_of(path) != _APPLICATION:
            raise PermissionError("it is not a file of features, or its beginning is damaged")
        return True

    def _make_private(self, path: Path) -> None:
        """Makes sure that there is a private file of ours of that name, perhaps an empty one."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        _check_ours(self.folder, stat.S_ISDIR)
        with suppress(FileExistsError):  # SQLite would create one that everybody may read
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._is_private(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        return connect(path, timeout=60, max_bytes=2**24)

    @contextmanager
    def _warning_instead(self, path: Path, what: str) -> Iterator[None]:
        """A block in which an error of the disk or of the database becomes a warning."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            warnings.warn(
                f"Features in {str(path)!r} cannot be {what} ({error}); they are computed instead. Give another folder "
                "as `cache`, or cache=False, or delete the file if you do not need it.",
                KerasToolkitWarning,
                stacklevel=2,
            )

    def _keep_within_size(self, latest: Path) -> None:
        files = sorted(self._files(), key=lambda path: (path == latest, path.stat().st_mtime))
        excess = sum(map(_bytes_of, files)) - self.max_bytes
        for path in files:
            if excess <= 0:
                break
            excess -= _bytes_of(path)
            _delete(path)


_APPLICATION = int.from_bytes(b"ktkf", "big")
_FILE = re.compile(r"[0-9a-f]{32}\.sqlite")
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite has beside a file while it writes, or left there when killed

# The name of the first column is that of the caches that are on disks already.
_FEATURES = "CREATE TABLE features (picture BLOB PRIMARY KEY, features BLOB NOT NULL, digest BLOB NOT NULL)"


def _digest_of_row(key: str, image: bytes, features: bytes) -> bytes:
    # It finds damage, and rows that were moved to another image. It does not find what somebody wrote who may write to
    # the file and can compute a digest as well as we can: against that the folder is private.
    parts = [key.encode(), image, features]
    content = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.blake2b(content, digest_size=16).digest()


def _checked_row(key: str, row: tuple[Any, ...], n_features: int | None) -> Features | None:
    """The features of a row; None if they are not as they were written."""
    if not all(isinstance(part, bytes) for part in row) or _digest_of_row(key, row[0], row[1]) != row[2]:
        return None
    if len(row[1]) % 4 or n_features not in (None, len(row[1]) // 4):
        return None
    features = np.frombuffer(row[1], "float32")
    return features if np.isfinite(features).all() else None


def _check_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Makes a folder or a file private to the user.

    Args:
        path: The folder or file.
        is_kind: Whether its mode is that of a folder, or of a file: `stat.S_ISDIR` or `stat.S_ISREG`.

    Returns:
        Whether there is anything in it: False for a file that was just created.

    Raises:
        OSError: It belongs to another user, or is a link, or neither a folder nor a file.
    """
    found = os.lstat(path)
    if not is_kind(found.st_mode):
        raise PermissionError(f"{str(path)!r} is a link, or of another kind")
    if hasattr(os, "getuid"):  # on Windows a user's folder is private already
        if found.st_uid != os.getuid():
            raise PermissionError(f"{str(path)!r} belongs to another user")
        if found.st_mode & 0o077:
            os.chmod(path, found.st_mode & 0o700)
    return found.st_size > 0


def _is_ours(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and application_of(path) == _APPLICATION
    except OSError:  # deleted meanwhile, or not ours to read
        return False


def _bytes_of(path: Path) -> int:
    """Bytes of a database and of the files that SQLite keeps beside it."""
    total = 0
    for beside in ("", *_BESIDE):
        with suppress(OSError):  # there is none, or another process deleted it meanwhile
            total += os.lstat(f"{path}{beside}").st_size
    return total


def _delete(path: Path) -> None:
    # The database last: without it, what is beside it would be taken for a part of the next one of its name.
    for beside in (*_BESIDE, ""):
        with suppress(OSError):  # there is none; on Windows, another process reads it
            os.unlink(f"{path}{beside}")


def _user_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kerastoolkit" / "features"
