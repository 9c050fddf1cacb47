"""Images as arrays, lists of files, or a folder with one sub-folder a class.

Whatever comes in goes out as one array of shape `(n, height, width, channels)`, 0 to 255, with one channel for grey
images and three for colour. Files are read as colour images, the right way up, each resized only where they differ
in size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerastoolkit.exceptions import DataError, KerasToolkitWarning

__all__ = ["list_images", "read_images"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def list_images(folder: str | Path) -> tuple[list[str], list[str]]:
    """Lists the images of a folder that has one sub-folder for each class.

    Example:

    >>> files, labels = list_images("flowers")
    >>> train, test, y_train, y_test = train_test_split(files, labels, stratify=labels)

    Args:
        folder: The folder, as `keras.utils.image_dataset_from_directory` takes it.

    Returns:
        Paths, sorted, and for each the name of its sub-folder.

    Raises:
        DataError: There is no such folder, it has no sub-folders, or one of them holds no images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}.")
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(
            f"{str(folder)!r} has no sub-folders. It needs one for each class, {str(root / 'cats')!r} and "
            f"{str(root / 'dogs')!r} for example, with the images in them; or give a list of files and their labels."
        )
    found = {path.name: _images_below(path) for path in classes}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{len(empty)} sub-folder{'s' * (len(empty) != 1)} of {str(folder)!r} hold{'s' * (len(empty) == 1)} no "
            f"images: {', '.join(empty[:5])}. Images end in {', '.join(sorted(_SUFFIXES))}."
        )
    pairs = [(file, name) for name, files in found.items() for file in files]
    return [file for file, _ in pairs], [name for _, name in pairs]


def _images_below(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))
    return sorted(str(path) for path in files)


def is_path(X: Any) -> bool:
    """Whether this is one path, of a file or a folder."""
    return isinstance(X, (str, os.PathLike))


def are_paths(X: Any) -> bool:
    """Whether this is a path or several."""
    if is_path(X):
        return True
    values = X if isinstance(X, (list, tuple)) else np.asarray(X)
    return len(np.shape(values[:1])) == 1 and len(values) > 0 and all(map(is_path, values))


def read_images(X: Any, size: int, *, learning: bool = True) -> Any:
    """Reads images into one array, and refuses what a network would misread.

    Args:
        X: An array of shape `(n, height, width)` or `(n, height, width, channels)`, integers or floats from 0 to 255;
            a list of such images, of files, or the path of a file or folder.
        size: Height and width to which images are resized if they differ in size, in pixels.
        learning: Whether they are to be learned from: floats from 0 to 1 are refused then, and else warned of, since
            a single image may be that dark. Defaults to `True`.

    Returns:
        Shape `(n, height, width, 1 or 3)`, in the type they came in; resized ones as uint8.

    Raises:
        DataError: Files cannot be read (the message names them), or the array has another form or other values.
    """
    if is_path(X):
        path = Path(X)
        if not path.exists():
            raise DataError(f"There is no file or folder {str(X)!r}.")
        X = _images_below(path) if path.is_dir() else [str(path)]
        if not X:
            raise DataError(f"{str(path)!r} holds no images. Images end in {', '.join(sorted(_SUFFIXES))}.")
    if are_paths(X):
        return _stacked(_read_files(list(X)), size)
    values = X if isinstance(X, (list, tuple)) else np.asarray(X)
    if isinstance(values, (list, tuple)) and len({np.shape(image) for image in values}) > 1:
        return _stacked([_checked(np.asarray(image)[None], learning=learning)[0] for image in values], size)
    return _checked(np.asarray(values), learning=learning)


def _read_files(files: Sequence[Any]) -> list[Any]:
    from PIL import Image, ImageOps

    images, broken = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
        except (OSError, ValueError, SyntaxError) as error:  # all three come from damaged files
            missing = isinstance(error, FileNotFoundError)
            reason = "there is no such file" if missing else "it cannot be read as an image"
            broken.append(f"{str(file)!r}: {reason}")
    if broken:
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(f"{len(broken)} of {len(files)} files cannot be used:\n  " + "\n  ".join(broken[:5]) + more)
    return images


def _stacked(images: list[Any], size: int) -> Any:
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    return np.stack([_resized(image, size) for image in images])


def _resized(image: Any, size: int) -> Any:
    from PIL import Image

    colour = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    image = Image.fromarray(np.clip(np.rint(colour), 0, 255).astype("uint8"))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _checked(X: Any, *, learning: bool) -> Any:
    if X.ndim == 3 and X.shape[-1] in (3, 4) and X.shape[0] > 4:
        raise DataError(
            f"X has the shape {X.shape}: a single image? Images come as (n, height, width, channels): X[None]."
        )
    if X.ndim == 2:
        side = round(X.shape[1] ** 0.5)
        hint = f" If each row is a flattened image: X.reshape(-1, {side}, {side})."
        hint = hint if side * side == X.shape[1] else ""
        raise DataError(f"X has the shape {X.shape}, but images come as (n, height, width[, channels]).{hint}")
    if X.ndim not in (3, 4):
        raise DataError(f"X has the shape {X.shape}, but images come as (n, height, width[, channels]).")
    X = X[..., None] if X.ndim == 3 else X
    if X.shape[-1] not in (1, 3):
        hint = _hint_on_channels(X)
        raise DataError(f"X has the shape {X.shape}, but images have 1 channel or 3, on the last axis.{hint}")
    if 0 in X.shape:
        raise DataError(f"X has the shape {X.shape}: there are no images in it.")
    if X.dtype.kind not in "uif":
        raise DataError(f"X holds values of the type {X.dtype}; images are numbers from 0 to 255.")
    low, high = X.min(), X.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("X holds NaN or infinite values; images are numbers from 0 to 255.")
    if low < 0 or high > 255:
        raise DataError(
            f"X holds values from {low:g} to {high:g}; images are numbers from 0 to 255. Preprocessing is done "
            "inside: give them as they were read."
        )
    if high <= 1 and (high > 0 or learning):
        message = (
            f"X holds values from {low:g} to {high:g}, where images are numbers from 0 to 255: they look black. If "
            "they were divided by 255, give them as they were read, or X * 255."
        )
        if learning:
            raise DataError(message)
        warnings.warn(message, KerasToolkitWarning, stacklevel=2)
    return X


def _hint_on_channels(X: Any) -> str:
    if X.shape[-1] == 4:
        return " The fourth is transparency? X[..., :3]."
    if X.shape[1] in (1, 3):
        return " They seem to be the second: np.moveaxis(X, 1, -1)."
    return ""
