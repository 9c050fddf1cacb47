"""Saving: an estimator of kerastoolkit, or what scikit-learn builds of them, in one file without a pickle.

The file of anything but a single estimator is a zip archive of `object.json` (the object with its classes by name, see
`_writing`), `arrays.bin` (the bytes of its arrays) and `estimators/0.zip`, ... (its Keras estimators, each as its own
`save` writes it). It is read on any backend.

Why not skops, which writes scikit-learn's objects without a pickle, with our estimators taken out before and put back
after? It does not tell where in an object something is that it cannot hold, which is most of what a user needs to know;
it refuses forests, since it does not look at the nodes of their trees; and of a file it reports types, while here the
places of values matter: what a search tried may be lost, and what predicts may not.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kerastoolkit import (
    _files,
    search,  # noqa: F401  so that joblib knows the backend "kerastoolkit" as soon as there are fits
)
from kerastoolkit._version import __version__
from kerastoolkit.estimators import saving as estimator_files
from kerastoolkit.exceptions import KerasToolkitWarning, SavedFileError
from kerastoolkit.saving._reading import Reader
from kerastoolkit.saving._writing import Writer

__all__ = ["load", "save"]

_FORMAT = 1
_OBJECT, _ARRAYS = "object.json", "arrays.bin"
_MEMBER = re.compile(r"object\.json|arrays\.bin|estimators/\d{1,6}\.zip")
_WRITER = "kerastoolkit.save"
_FIELDS: dict[str, Callable[[Any], object]] = {
    "format": _files.is_count,
    "versions": _files.dict_of(_files.is_text),
    "object": lambda value: isinstance(value, dict),
}


def save(obj: Any, path: str | Path) -> Path:
    """Writes an estimator, or what scikit-learn builds of estimators, to one file without a pickle.

    A pipeline, search or ensemble is written with every estimator in it, fitted or not, however deep. Functions and
    classes of yours are kept by name, and are to be handed to `load`. A single estimator of kerastoolkit is written as
    its own `save` does it.

    Example:

    >>> model = make_pipeline(StandardScaler(), KerasClassifier()).fit(X, y)  # doctest: +SKIP
    >>> path = kerastoolkit.save(model, "model.zip")  # doctest: +SKIP
    >>> kerastoolkit.load(path).predict(X)  # doctest: +SKIP

    Args:
        obj: A fitted estimator of kerastoolkit, or any estimator of scikit-learn: a `Pipeline`, `ColumnTransformer`,
            `GridSearchCV`, `StackingClassifier`, ...
        path: Where to write; an existing file is replaced.

    Returns:
        The path written.

    Raises:
        FileNotFoundError, IsADirectoryError: There is no folder to write in, or `path` is one.
        NotFittedError: A single estimator of kerastoolkit was not fitted.
        SavedFileError: The object holds something that no file can hold; the message says where. Nothing is written.

    Warns:
        KerasToolkitWarning: Something was left out that belongs to this machine (a `journal`, a `memory`, a storage of
            Optuna), or a value that a search tried and no file can hold; the message says where. Or the file needs
            `load(..., safe_mode=False)`, since it holds gradient boosting, `SVC` or their kin.
    """
    path = Path(path)
    if estimator_files.can_be_saved(obj):
        return estimator_files.save(obj, path)
    if not hasattr(obj, "get_params") or isinstance(obj, type):
        raise SavedFileError(
            f"`obj` is {_files.shown(obj)}, which is no estimator. Give an estimator of kerastoolkit or scikit-learn."
        )
    with _files.folder_for(path) as folder:
        writer = Writer(Path(folder))
        try:
            written = writer.encode(obj, "")
        except RecursionError as error:
            raise SavedFileError(f"The {type(obj).__name__} is nested too deeply for a file.") from error
        description = {"format": _FORMAT, "versions": estimator_files.versions(), "object": written}
        content = json.dumps(description, allow_nan=False).encode()
        _files.read_json(content, f"{_OBJECT} of the file {path.name!r} to be")
        archive = Path(folder) / "archive"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(_OBJECT, content)
            file.writestr(_ARRAYS, bytes(writer.arrays))
            for number in range(writer.n_estimators):
                file.write(Path(folder) / f"{number}.zip", f"estimators/{number}.zip")
        os.replace(archive, path)
    if writer.not_kept:
        warnings.warn(_words_on_what_is_not_kept(obj, writer.not_kept), KerasToolkitWarning, stacklevel=2)
    if writer.unchecked:
        warnings.warn(
            f"The file holds {', '.join(sorted(writer.unchecked))}, which is read only from files that you trust: load "
            f"it by kerastoolkit.load({path.name!r}, safe_mode=False).",
            KerasToolkitWarning,
            stacklevel=2,
        )
    return path


def _words_on_what_is_not_kept(obj: object, places: list[str]) -> str:
    shown = ", ".join(f"`{place}`" for place in places[:10])
    more = f" and {len(places) - 10} more" if len(places) > 10 else ""
    return (
        f"The file of the {type(obj).__name__} does not hold {shown}{more}: it belongs to this machine, or is nothing "
        "that a file can hold. Set it again where you load the file and need it; predicting does not."
    )


def load(path: str | Path, *, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Any:
    """Reads what `save` wrote, or the `save` of an estimator.

    In safe mode a file from a stranger can run no code, read or write no other file, and take no more memory than a
    small multiple of its size; `docs/security.md` says what is checked, and what scikit-learn does not check.

    Example:

    >>> model = kerastoolkit.load("model.zip", custom_objects={"clean": clean})  # doctest: +SKIP

    Args:
        path: The file.
        custom_objects: Functions and classes of your own by name, `"clean"` or `"my_module:clean"`: transformers, the
            function of a `FunctionTransformer`, the build function and the losses of a network. Defaults to `None`.
        safe_mode: Whether to refuse Python code inside a network (`Lambda` layers) and the kinds of scikit-learn whose
            numbers its compiled code does not check (gradient boosting, `SVC`), and to follow no name to anything of
            yours that is not in `custom_objects`. Defaults to `True`. With `False`, which is for files that you trust,
            names are looked up in your own modules that are imported already.

    Returns:
        The object: a pipeline, search, ensemble or estimator.

    Raises:
        FileNotFoundError: There is no such file.
        SavedFileError: The file is damaged, forged, of another kind, or written by a newer version, or needs a function
            or class that was not handed over; the message says which.

    Warns:
        InconsistentVersionWarning: The file was written with another minor version of scikit-learn.
        KerasToolkitWarning: See the warnings of an estimator's file: a subclass that was not found, a folder that is
            not used.
    """
    folder = Path(path)
    if folder.is_dir() and (folder / "run.json").exists():
        raise SavedFileError(
            f"{str(folder)!r} is the folder of an experiment, not a file. Read it by kerastoolkit.load_experiment."
        )
    path = _files.regular_file(path)
    if not _is_of_an_object(path):
        return estimator_files.load(path, custom_objects=custom_objects, safe_mode=safe_mode)
    with _files.refusing(path, _WRITER), tempfile.TemporaryDirectory() as copies:
        with _files.archive(path, _MEMBER.fullmatch, _WRITER, needed=(_OBJECT, _ARRAYS)) as file:
            description = _files.read_json(file.read(_OBJECT), f"{_OBJECT} of {str(path)!r}")
            arrays = file.read(_ARRAYS)
            for name in file.namelist():
                if name not in (_OBJECT, _ARRAYS):
                    _files.copy_member(file, name, Path(copies) / Path(name).name)
        description = _checked(description, repr(str(path)))
        reading = estimator_files.Reading(str(path), None, custom_objects, safe_mode)
        reader = Reader(reading, arrays, lambda number: _read_estimator(reading, Path(copies) / f"{number}.zip"))
        reader.check_names(description["object"])
        made = reader.decode(description["object"])
    _warn_of_version(description["versions"].get("scikit-learn", "?"), type(made).__name__)
    return made


def _is_of_an_object(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return _OBJECT in file.namelist()
    except Exception:  # what is no archive is refused by the reader of estimators
        return False


def _checked(description: Any, what: str) -> dict[str, Any]:
    number = description.get("format") if isinstance(description, dict) else None
    if _files.is_whole(number) and number > _FORMAT:
        raise SavedFileError(
            f"{what} was written in format {number}; this is kerastoolkit {__version__}, which reads up to format "
            f"{_FORMAT}. Upgrade kerastoolkit."
        )
    return _files.checked_fields(description, _FIELDS, what)


def _read_estimator(reading: estimator_files.Reading, path: Path) -> Any:
    """An estimator of an archive; messages say in which archive it is."""
    if not path.exists():
        raise SavedFileError(f"{reading.path} has no estimators/{path.name}.")
    try:
        return estimator_files.load(path, custom_objects=reading.custom_objects, safe_mode=reading.safe_mode)
    except SavedFileError as error:
        shown = str(error).replace(str(path), f"{reading.path}/estimators/{path.name}")
        raise SavedFileError(shown) from error


def _warn_of_version(written: str, name: str) -> None:
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    if written.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=name, current_sklearn_version=sklearn.__version__, original_sklearn_version=written[:20]
            ),
            stacklevel=3,
        )
