"""Files of the first format: what was learned stands in entries of its own there, under the names of attributes.

They are checked as strictly, and then converted to the second format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kerastoolkit import _files, _renamed, transfer
from kerastoolkit.exceptions import SavedFileError

if TYPE_CHECKING:
    from kerastoolkit.estimators._base import KerasEstimator

_FIELDS: dict[str, Callable[[Any], object]] = {
    "format": _files.is_count,
    "versions": lambda value: isinstance(value, dict),
    "class": _files.is_text,
    "base": _files.is_text,
    "task": _files.is_text,
    "parameters": lambda value: isinstance(value, dict),
    "head": lambda value: isinstance(value, dict),
    "columns": lambda value: value is None or isinstance(value, dict),
    "words": lambda value: value is None or isinstance(value, dict),
    "learned": lambda value: isinstance(value, dict),
    "generator": lambda value: value is None or isinstance(value, dict),
    "compiled": lambda value: value is None or isinstance(value, dict),
    "optimizer": lambda value: isinstance(value, list),
}
_OPTIONAL = ("base", "columns", "compiled", "optimizer", "words")
_LEARNED = (
    "n_features_in_", "feature_names_in_", "history_", "n_iter_", "_best_epoch", "_input_shape", "head_history_",
    "_diverged", "_range",
)  # fmt: skip
_KEPT = ("versions", "class", "task", "parameters", "compiled", "optimizer")


def brought_up_to_date(description: object, estimators: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A description of the first format in the form of the second; values stay encoded, and are checked there.

    Args:
        description: What the file holds.
        estimators: kerastoolkit's estimators by the name that a file has for them.
        what: What messages call the file.

    Raises:
        SavedFileError: It has an entry that no file of the first format has, or lacks one.
    """
    old = _files.checked_fields(description, _FIELDS, what, optional=_OPTIONAL)
    learned = _files.checked_fields(
        old["learned"], dict.fromkeys(_LEARNED, lambda value: True), what, optional=_LEARNED
    )  # fmt: skip
    base = _base_of(old, estimators)
    fitted = {
        "reader": _reader_of(old, learned, estimators.get(base), what),
        "head": old["head"],
        "history": learned.get("history_", {"dict": []}),
        "n_iter": learned.get("n_iter_", 0),
        "best_epoch": learned.get("_best_epoch"),
        "divergence": learned.get("_diverged"),
        "generator": old["generator"],
        "head_history": learned.get("head_history_"),
    }
    kept = {name: old[name] for name in _KEPT if name in old}
    kept["parameters"] = _renamed.parameters(old["parameters"], getattr(estimators.get(base), "__name__", ""))
    return {"format": 2, "base": base, "fitted": fitted, **kept}


def _base_of(old: Mapping[str, Any], estimators: Mapping[str, Any]) -> str:
    """The name of the class of ours that a file is of; files of the first weeks do not say it of subclasses."""
    if old.get("base") is not None:
        return str(old["base"])
    if old["class"] in estimators:
        return str(old["class"])
    task, images = old["task"], "backbone" in old["parameters"]
    end = "Transformer" if task == "reconstruction" else "Classifier" if task == "classification" else "Regressor"
    start = "Text" if old.get("words") is not None else "Image" if images else "Keras"
    return next((name for name, kind in estimators.items() if kind.__name__ == start + end), "")


def _reader_of(
    old: Mapping[str, Any], learned: Mapping[str, Any], base: type[KerasEstimator] | None, what: str
) -> dict[str, Any]:
    """The reader, as the second format has it; `base` is None for a file that will be refused."""
    config: Any
    names: tuple[str, ...] = () if base is None else base.reader_names
    if "text" in names and old.get("words") is None:
        raise SavedFileError(f"{what} has no 'words', without which it cannot read what it predicts from.")
    if "image" in names:
        # Features are read where the head alone was trained, which leaves the whole network without a compilation.
        is_whole = old["parameters"].get("strategy") == "fine_tune"
        is_whole = old["compiled"] is not None if "compiled" in old else is_whole
        name = "image" if is_whole else "image_features"
        config = {"size": _size_of(old["parameters"]), "shape": learned.get("_input_shape")}
    elif old.get("words") is not None:
        name, config = "text", old["words"]
    elif old.get("columns") is not None:
        name, config = "table", old["columns"]
    else:
        name = "array"
        config = {
            "shape": learned.get("_input_shape"),
            "n_features": learned.get("n_features_in_"),
            "feature_names": learned.get("feature_names_in_"),
            "of_text": False,  # the model says it
            "value_range": learned.get("_range"),
        }
    if name not in ("text", "table"):
        config = {"dict": list(map(list, config.items()))}
    return {"dict": [["name", name], ["config", config]]}


def _size_of(parameters: Mapping[str, Any]) -> Any:
    """The size to which images are resized, in pixels: which the parameters said when they were read."""
    size, backbone = parameters.get("input_size"), parameters.get("backbone")
    return size if size is not None else transfer.get(backbone).default_size  # type: ignore[arg-type]
