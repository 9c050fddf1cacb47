"""Files that were saved before what an estimator learned became one record load, and predict what they predicted.

`saved_format_1.zip` holds a file of every kind of estimator and, in `expected.json`, the probabilities or numbers that
each predicted for the rows it was fitted on, as they were computed by the code that wrote it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from kerastoolkit import load
from kerastoolkit.exceptions import DivergedError, KerasToolkitWarning, SavedFileError

_RNG = np.random.RandomState(0)
ROWS = _RNG.rand(12, 3).astype("float32")
IMAGES = _RNG.randint(0, 255, (12, 8, 8)).astype("uint8")
LABELS = np.array(["a", "b", "c"])[np.arange(12) % 3]
TEXTS = ["red wine", "green apples", "red apples", "green wine"] * 3
TABLE = pd.DataFrame({"age": [*np.arange(11.0), np.nan], "town": ["Ulm", "Bonn"] * 6})
NAMED = pd.DataFrame(ROWS, columns=["x", "y", "z"])
# By file: rows that it was fitted on, targets, and what reads them.
KINDS: dict[str, tuple[Any, Any, str]] = {
    "classifier": (ROWS, LABELS, "ArrayReader"),
    "regressor": (NAMED, ROWS[:, 0] * 9, "ArrayReader"),
    "transformer": (ROWS, None, "ArrayReader"),
    "bag": (TEXTS, LABELS, "Vocabulary"),
    "words": (TEXTS, LABELS, "Vocabulary"),
    "table": (TABLE, LABELS, "TableEncoder"),
    "model": (ROWS, LABELS, "ArrayReader"),
    "features": (IMAGES, np.arange(12) % 2, "ImageFeatures"),
    "fine_tuned": (IMAGES, np.arange(12.0), "ImageReader"),
    "inputs": ({"a": ROWS, "b": ROWS[:, :2]}, LABELS, "ArrayReader"),
    "targets": (ROWS, np.stack([LABELS, LABELS[::-1]], axis=1), "ArrayReader"),
    "images": (IMAGES[..., None], LABELS, "ArrayReader"),
}


def two_inputs(head: Any) -> Any:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model({"a": a, "b": b}, head.output_layer()(keras.layers.Concatenate()([a, b])))


# Under the name that the function had where the file was written.
OWN = {"two": two_inputs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("format_1")
    with zipfile.ZipFile(Path(__file__).with_name("saved_format_1.zip")) as file:
        file.extractall(path)
    return path


def predictions(estimator: Any, X: Any) -> list[Any]:
    found = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)
    return [np.asarray(part).tolist() for part in found] if isinstance(found, list) else np.asarray(found).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_the_first_format_predicts_what_it_did_and_goes_on_training(
    name: str, folder: Path, tmp_path: Path
) -> None:
    X, y, reader = KINDS[name]
    expected = json.loads((folder / "expected.json").read_text())[name]
    estimator = load(folder / f"{name}.zip", custom_objects=OWN)
    assert type(estimator.reader_).__name__ == reader
    # Another machine adds up in another order.
    np.testing.assert_allclose(predictions(estimator, X), expected, rtol=1e-5, atol=1e-6)
    again = load(estimator.save(tmp_path / "format_2.zip"), custom_objects=OWN)
    assert json.loads(zipfile.ZipFile(tmp_path / "format_2.zip").read("estimator.json"))["format"] == 2
    assert predictions(again, X) == predictions(estimator, X)
    assert again.history_ == estimator.history_ and again.n_iter_ == estimator.n_iter_
    again.callbacks = ()  # of which no file holds instances
    assert again.partial_fit(X, y).n_iter_ == estimator.n_iter_ + 1


def test_what_was_learned_is_all_there(folder: Path) -> None:
    classifier, regressor, features = (load(folder / f"{name}.zip") for name in ("classifier", "regressor", "features"))
    assert classifier.classes_.tolist() == ["a", "b", "c"] and classifier.best_epoch_ == classifier.n_iter_ == 2
    assert list(regressor.feature_names_in_) == ["x", "y", "z"] and regressor.n_features_in_ == 3
    assert sorted(load(folder / "bag.zip").vocabulary_) == ["apples", "green", "red", "wine"]
    assert list(load(folder / "table.zip").columns_) == ["age", "town"]
    assert features.model_.input_shape == (None, None, None, 1) and features.head_history_ == {}
    assert list(load(folder / "fine_tuned.zip").history_) == ["loss", "r2_score"]
    assert load(folder / "images.zip").reader_.value_range is not None
    with pytest.raises(DivergedError, match="its loss has been nan since epoch 2"):
        load(folder / "diverged.zip").predict(ROWS)
    with pytest.warns(KerasToolkitWarning, match="Sub', which was not found: it is read as a KerasClassifier"):
        assert load(folder / "subclass.zip").predict(ROWS).shape == (12,)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("classifier", lambda file: file["learned"].update(_after_build={"reference": "os:system"}), "_after_build"),
        ("classifier", lambda file: file["learned"].update(n_iter_={"reference": "os:system"}), "cannot stand there"),
        ("classifier", lambda file: file["learned"].update(_best_epoch=3), "weights of epoch 3"),
        ("classifier", lambda file: file["learned"].pop("_input_shape"), "has None as 'shape'"),
        ("classifier", lambda file: file["learned"].update(n_features_in_=4), "disagrees"),
        ("classifier", lambda file: file.update(words={"dict": []}), "no reader of KerasClassifier"),
        ("classifier", lambda file: file.update(more=1), "unknown field 'more'"),
        ("classifier", lambda file: file.update(base="os:system"), "which cannot be"),
        ("classifier", lambda file: file.update(head={"dict": [["class", "Head"]]}), "A saved head has no field"),
        ("regressor", lambda file: file["learned"].update(_range={"tuple": [1.0, 0.0]}), "'value_range'"),
        ("bag", lambda file: file.pop("words"), "has no 'words'"),
        ("bag", lambda file: file.update(words=None), "has no 'words'"),
        ("features", lambda file: file["learned"].update(_input_shape={"tuple": [8]}), "as 'shape'"),
        ("table", lambda file: file.update(columns={"dict": []}), "no field 'columns'"),
    ],
)
def test_a_forged_file_of_the_first_format_is_refused(
    name: str, change: Callable[[Any], object], message: str, folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(folder / f"{name}.zip") as file:
        members = {member: file.read(member) for member in file.namelist()}
    description = json.loads(members["estimator.json"])
    assert description["format"] == 1
    change(description)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for member, written in (members | {"estimator.json": json.dumps(description).encode()}).items():
            file.writestr(member, written)
    path = tmp_path / "forged.zip"
    path.write_bytes(content.getvalue())
    for safe_mode in (True, False):
        with pytest.raises(SavedFileError, match=message):
            load(path, safe_mode=safe_mode)
