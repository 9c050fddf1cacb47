"""Images as arrays, lists of files, or a folder with one sub-folder per class.

All of these become one array of shape `(n, height, width, channels)`, from 0 to 255, with one channel for grey images
and three for colour images. Files are read as colour images, the right way up, and resized only if their sizes differ.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kerastoolkit.exceptions import DataError, KerasToolkitWarning

__all__ = ["list_images", "read_images"]

Images: TypeAlias = NDArray[Any]  # of shape (n, height, width, channels), or one image without the first axis
ImagesLike: TypeAlias = ArrayLike | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]  # or files, or a folder

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_WHAT_IS_FOUND = f"Files of images end in {', '.join(sorted(_SUFFIXES))}."


def list_images(folder: str | Path) -> tuple[list[str], list[str]]:
    """Lists the images of a folder that has one sub-folder per class.

    Example:

    >>> files, labels = list_images("flowers")
    >>> train, test, y_train, y_test = train_test_split(files, labels, stratify=labels)

    Args:
        folder: The folder, as `keras.utils.image_dataset_from_directory` takes it.

    Returns:
        The paths, sorted, and the name of the sub-folder of each.

    Raises:
        DataError: There is no such folder, it has no sub-folders, or one of them contains no images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}.")
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(
            f"{str(folder)!r} has no sub-folders. It needs one per class, such as {str(root / 'cats')!r} and "
            f"{str(root / 'dogs')!r}, with the images in them; or give a list of files and their labels."
        )
    found = {path.name: _images_below(path) for path in classes}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{len(empty)} sub-folder{'s' * (len(empty) != 1)} of {str(folder)!r} contain{'s' * (len(empty) == 1)} no "
            f"images: {', '.join(empty[:5])}. {_WHAT_IS_FOUND}"
        )
    pairs = [(file, name) for name, files in found.items() for file in files]
    return [file for file, _ in pairs], [name for _, name in pairs]


def _images_below(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))
    return sorted(str(path) for path in files)


def is_path(X: object) -> bool:
    """Whether this is the path of one file or folder."""
    return isinstance(X, (str, os.PathLike))


def are_paths(X: object) -> bool:
    """Whether this is a path, or a list or array of paths."""
    if is_path(X):
        return True
    values = X if isinstance(X, (list, tuple)) else np.asarray(X)
    return len(np.shape(values[:1])) == 1 and len(values) > 0 and all(map(is_path, values))


def read_images(X: ImagesLike, size: int, *, learning: bool = True) -> Images:
    """Reads images into one array, and refuses what a network would misinterpret.

    Args:
        X: An array of shape `(n, height, width)` or `(n, height, width, channels)`, integers or floats from 0 to 255;
            a list of such images or of files; or the path of a file or folder.
        size: Height and width to which images are resized if their sizes differ, in pixels.
        learning: Whether a network is to learn from them. Floats from 0 to 1 are then refused; otherwise there is only
            a warning, since a single image may be that dark. Defaults to `True`.

    Returns:
        Shape `(n, height, width, 1 or 3)`, in the dtype of `X`, or as uint8 where images were resized.

    Raises:
        DataError: Files cannot be read (the message names them), or the array has another shape or other values.
    """
    if isinstance(X, (str, os.PathLike)):
        path = Path(X)
        if not path.exists():
            raise DataError(f"There is no file or folder {str(X)!r}.")
        files = _images_below(path) if path.is_dir() else [str(path)]
        if not files:
            raise DataError(f"{str(path)!r} contains no images. {_WHAT_IS_FOUND}")
        return _stacked(_read_files(files), size)
    if are_paths(X):
        return _stacked(_read_files(list(X)), size)  # type: ignore[arg-type]
    values = X if isinstance(X, (list, tuple)) else np.asarray(X)
    if isinstance(values, (list, tuple)) and len({np.shape(image) for image in values}) > 1:
        return _stacked([_checked(np.asarray(image)[None], learning=learning)[0] for image in values], size)
    return _checked(np.asarray(values), learning=learning)


def _read_files(files: Sequence[str | os.PathLike[str]]) -> list[Images]:
    from PIL import Image, ImageOps

    images, broken = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
        except (OSError, ValueError, SyntaxError) as error:  # damaged files raise all three
            missing = isinstance(error, FileNotFoundError)
            reason = "there is no such file" if missing else "it cannot be read as an image"
            broken.append(f"{str(file)!r}: {reason}")
    if broken:
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(f"{len(broken)} of {len(files)} files cannot be used:\n  " + "\n  ".join(broken[:5]) + more)
    return images


def _stacked(images: list[Images], size: int) -> Images:
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    return np.stack([_resized(image, size) for image in images])


def _resized(image: Images, size: int) -> Images:
    from PIL import Image

    colour = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    made = Image.fromarray(np.clip(np.rint(colour), 0, 255).astype("uint8"))
    return np.asarray(made.resize((size, size), Image.Resampling.BILINEAR))


def _checked(X: NDArray[Any], *, learning: bool) -> Images:
    if X.ndim == 3 and X.shape[-1] in (3, 4) and X.shape[0] > 4:
        raise DataError(
            f"X has the shape {X.shape}. Is it a single image? Images have the shape (n, height, width, channels): "
            "give X[None]."
        )
    if X.ndim == 2:
        side = round(X.shape[1] ** 0.5)
        hint = f" If each row is a flattened image, give X.reshape(-1, {side}, {side})."
        hint = hint if side * side == X.shape[1] else ""
        raise DataError(f"X has the shape {X.shape}, but images have the shape (n, height, width[, channels]).{hint}")
    if X.ndim not in (3, 4):
        raise DataError(f"X has the shape {X.shape}, but images have the shape (n, height, width[, channels]).")
    X = X[..., None] if X.ndim == 3 else X
    if X.shape[-1] not in (1, 3):
        hint = _hint_on_channels(X)
        raise DataError(f"X has the shape {X.shape}, but images have 1 channel or 3, on the last axis.{hint}")
    if 0 in X.shape:
        raise DataError(f"X has the shape {X.shape}, and so contains no images.")
    if X.dtype.kind not in "uif":
        raise DataError(f"X has the dtype {X.dtype}; images are numbers from 0 to 255.")
    low, high = X.min(), X.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("X contains NaN or infinite values; images are numbers from 0 to 255.")
    if low < 0 or high > 255:
        raise DataError(
            f"X contains values from {low:g} to {high:g}; images are numbers from 0 to 255. The model preprocesses "
            "them itself: give them as they were read."
        )
    if high <= 1 and (high > 0 or learning):
        message = (
            f"X contains values from {low:g} to {high:g}, but images are numbers from 0 to 255: these look black. If "
            "they were divided by 255, give them as they were read, or X * 255."
        )
        if learning:
            raise DataError(message)
        warnings.warn(message, KerasToolkitWarning, stacklevel=2)
    return X


def _hint_on_channels(X: NDArray[Any]) -> str:
    if X.shape[-1] == 4:
        return " Is the fourth one transparency? Then give X[..., :3]."
    if X.shape[1] in (1, 3):
        return " They seem to be on the second: give np.moveaxis(X, 1, -1)."
    return ""
