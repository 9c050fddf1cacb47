"""TensorFlow's own format, for TensorFlow Serving: raw input to label, behind one signature."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.export._parity import EXACT, compare
from kerastoolkit.export._report import Report
from kerastoolkit.export._spec import Spec
from kerastoolkit.export._subject import subject_of
from kerastoolkit.export._tensorflow import SIGNATURE, Function, check_backend, without_chatter, write_saved_model
from kerastoolkit.export._writing import replacing_folder, size_of

_MARK = "saved_model.pb"
# TensorFlow leaves this folder to others, and TensorFlow Serving carries it along.
_SPEC = Path("assets.extra", "kerastoolkit.json")


def saved_model(source: Any, folder: str | Path, *, sample: Any = None) -> Report:
    """Writes a folder in TensorFlow's format, from raw input to label, for TensorFlow Serving.

    Its signature `serving_default` takes each raw input by its name, any number of rows, and answers by name, such as
    `"label"` and `"probabilities"`; texts, categories and gaps are read inside. Nothing is drawn at random in it. What
    it takes and answers is also written to `assets.extra/kerastoolkit.json`. TensorFlow Serving looks for numbered
    folders: give `"models/churn/1"`, then its REST interface answers rows
    (`{"instances": [{"tenure": 12, "Contract": "One year"}]}`).

    Example:

    >>> report = saved_model(estimator, "models/churn/1", sample=X)  # doctest: +SKIP

    Args:
        source: A fitted estimator, a scikit-learn pipeline or search around one, an experiment or a Keras model.
        folder: Where to write. A model that is there is replaced once the new one is right.
        sample: Rows as the model takes them, which the folder's answers are compared for. Defaults to `None`: typical
            rows, made up from what the model knows.

    Returns:
        What was written, and how well it answers as the model.

    Raises:
        ExportError: The model cannot be written, its answers differ, Keras runs on another backend than TensorFlow, or
            the folder holds something else. Nothing was written.
    """
    check_backend("A SavedModel")
    subject = subject_of(source)
    path = Path(folder)
    with replacing_folder(path, _MARK) as temporary:
        write_saved_model(Function(subject.graph), temporary)
        parity = compare(subject, Folder(temporary, subject.spec), sample, tolerance=EXACT, what="The SavedModel")
        spec = dataclasses.replace(subject.spec, report={**parity.to_dict(), "notes": list(subject.notes)})
        (temporary / _SPEC).parent.mkdir()
        (temporary / _SPEC).write_text(spec.to_json(), encoding="utf-8")
        n_bytes = size_of(temporary)
    return Report(path, "saved_model", n_bytes, parity, spec, subject.notes)


class Folder:
    """The answers of a written folder, by TensorFlow alone.

    Args:
        folder: The folder.
        spec: What it takes and answers.
    """

    def __init__(self, folder: Path, spec: Spec) -> None:
        import tensorflow as tf

        self.spec = spec
        with without_chatter():
            self._model = tf.saved_model.load(str(folder))  # it owns the variables
        self._serve = self._model.signatures[SIGNATURE]

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import tensorflow as tf

        made = self._serve(
            **{name: tf.constant(array.tolist() if array.dtype == object else array) for name, array in arrays.items()}
        )
        return {one.name: as_texts(made[one.name].numpy()) for one in self.spec.outputs}


def as_texts(array: NDArray[Any]) -> NDArray[Any]:
    """An array with texts instead of bytes."""
    if array.dtype.kind not in "OS":
        return array
    texts = np.empty(array.size, dtype=object)
    texts[:] = [one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()]
    return texts.reshape(array.shape)
