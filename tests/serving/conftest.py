"""Models built by hand as ONNX files, so that serving is tested on its own; and how a server is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from kerastoolkit.export._spec import InputSpec, OutputSpec, Spec

# -- models ---------------------------------------------------------------------------------------------------------


def onnx_file(spec: Spec, nodes: list[Any], constants: dict[str, np.ndarray]) -> bytes:
    """A file as `export.onnx` writes them: the spec is in its metadata."""
    from onnx import TensorProto, helper, numpy_helper

    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "string": TensorProto.STRING}
    inputs, outputs = (
        [helper.make_tensor_value_info(one.name, types[one.dtype], ["n", *one.shape]) for one in part]
        for part in (spec.inputs, spec.outputs)
    )
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "model", inputs, outputs, held)
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = "kerastoolkit", spec.to_json()
    return model.SerializeToString()


def churn() -> bytes:
    """Stays or leaves, by a logistic function of age, gaps in income, and plan; raw values in, labels out."""
    from onnx import helper

    spec = Spec(
        "KerasClassifier",
        "classification",
        (
            InputSpec("age", "number", "float32", minimum=18, maximum=90, example=40),
            InputSpec("income (k)", "number", "float32", may_be_missing=True, example=50.5),
            InputSpec("plan", "category", "string", categories=("basic", "pro"), may_be_missing=True, example="basic"),
        ),
        (
            OutputSpec("label", "label", "string", classes=("leaves", "stays")),
            OutputSpec("probabilities", "probabilities", "float32", (2,), classes=("leaves", "stays")),
        ),
    )
    nodes = [
        helper.make_node("IsNaN", ["income (k)"], ["gap"]),
        helper.make_node("Where", ["gap", "mean", "income (k)"], ["income"]),
        helper.make_node(
            "LabelEncoder", ["plan"], ["index"], domain="ai.onnx.ml",
            keys_strings=["", "basic", "pro"], values_floats=[0.0, 2.0, 3.0], default_float=1.0,
        ),
        *(helper.make_node("Unsqueeze", [one, "one"], [f"{one}_1"]) for one in ("age", "income", "index")),
        helper.make_node("Concat", ["age_1", "income_1", "index_1"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml",
            keys_int64s=[0, 1], values_strings=["leaves", "stays"],
        ),
    ]  # fmt: skip
    constants = {
        "mean": np.array(50, "float32"),
        "one": np.array([1]),
        "w": np.array([[-0.02, 0.03], [0.01, 0.02], [0.3, -0.4]], "float32"),
        "b": np.array([0.5, -0.5], "float32"),
    }
    return onnx_file(spec, nodes, constants)


W = np.array([[1.5], [-2.0], [0.5]], "float32")


def numbers() -> bytes:
    """A regression on an array of three named columns, without gaps."""
    from onnx import helper

    spec = Spec(
        "KerasRegressor",
        "regression",
        (InputSpec("X", "array", "float32", (3,), features=("a", "b", "c"), example=[1.0, 2.0, 3.0]),),
        (OutputSpec("prediction", "number", "float32"),),
    )
    nodes = [
        helper.make_node("MatMul", ["X", "w"], ["y"]),
        helper.make_node("Squeeze", ["y", "one"], ["prediction"]),
    ]
    return onnx_file(spec, nodes, {"w": W, "one": np.array([1])})


def image() -> bytes:
    """The mean colour of an image of any size, and a label by it."""
    from onnx import helper

    spec = Spec(
        "ImageClassifier",
        "classification",
        (InputSpec("image", "image", "float32", (None, None, 3)),),
        (OutputSpec("label", "label", "int64", classes=(0, 1, 2)), OutputSpec("raw", "raw", "float32", (3,))),
    )
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["raw"], keepdims=0),
        helper.make_node("ArgMax", ["raw"], ["label"], axis=1, keepdims=0),
    ]
    return onnx_file(spec, nodes, {"axes": np.array([1, 2])})


def text() -> bytes:
    """Says whether a text is a greeting, for two labels at once."""
    from onnx import TensorProto, helper

    spec = Spec(
        "TextClassifier",
        "classification",
        (InputSpec("text", "text", "string", example="hello"),),
        (
            OutputSpec("labels", "labels", "int64", (2,), classes=("greeting", 7)),
            OutputSpec("probabilities", "probabilities", "float32", (2,), classes=("greeting", 7)),
        ),
    )
    nodes = [
        helper.make_node(
            "LabelEncoder", ["text"], ["known"], domain="ai.onnx.ml",
            keys_strings=["hello"], values_floats=[1.0], default_float=0.0,
        ),
        helper.make_node("Unsqueeze", ["known", "one"], ["p"]),
        helper.make_node("Concat", ["p", "p"], ["probabilities"], axis=1),
        helper.make_node("Cast", ["probabilities"], ["labels"], to=TensorProto.INT64),
    ]  # fmt: skip
    return onnx_file(spec, nodes, {"one": np.array([1])})


# -- asking ---------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(
    application: Any, path: str, content: Any = None, *, headers: dict[str, str] | None = None, chunk: int = 0
) -> Answer:
    """Asks by GET, or by POST if there is content: bytes as they are, anything else as JSON.

    Args:
        chunk: Bytes of a part, of a body whose length is not told. Defaults to `0`: all at once, with its length.
    """
    body = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    parts = [body[at : at + chunk] for at in range(0, len(body), chunk)] if chunk else [body]
    given = {"host": "here", **(headers or {}), **({} if chunk else {"content-length": str(len(body))})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET" if content is None else "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    messages = iter([{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]))


# -- fixtures -------------------------------------------------------------------------------------------------------

MODELS: dict[str, Callable[[], bytes]] = {"churn": churn, "image": image, "numbers": numbers, "text": text}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models as files, by name."""
    for needed in ("onnx", "fastapi", "onnxruntime", "prometheus_client", "uvicorn"):
        pytest.importorskip(needed, reason='pip install "kerastoolkit[serve]"')
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        (folder / f"{name}.onnx").write_bytes(make())
    return {name: folder / f"{name}.onnx" for name in MODELS}


@pytest.fixture(name="ask", scope="session")
def ask_fixture() -> Callable[..., Answer]:
    return ask


class Server(NamedTuple):
    """A server that was started by the command line."""

    process: subprocess.Popen[str]
    url: str
    said: list[str]
    errors: Path


@pytest.fixture(scope="session")
def start() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Starts the real command at a port that is free, and kills what is left of it at the end."""

    @contextlib.contextmanager
    def starting(model: Path, errors: Path, *options: str, **environment: str) -> Iterator[Server]:
        command = [sys.executable, "-m", "kerastoolkit.cli", "serve", str(model), "--port", "0", *options]
        with errors.open("w") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment}
            )
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line.strip())
                if found := re.match(r"Ready: (http://[^/ ]+)/", line):
                    yield Server(process, found[1], said, errors)
                    return
            raise AssertionError((said, errors.read_text()))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    return starting
