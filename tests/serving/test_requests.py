"""What a server answers: rows of every kind, in three protocols; and what it refuses, by row and column."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit import export, serving
from kerastoolkit.exceptions import ParameterError, SavedFileError
from kerastoolkit.serving._model import served_model

GOOD = {"age": 40, "income (k)": 50.5, "plan": "basic"}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def churn(files: dict[str, Path]) -> Any:
    return serving.app(files["churn"], max_rows=5, max_body=2000)


@pytest.fixture(scope="module")
def app_of(files: dict[str, Path]) -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    return lambda name: made.setdefault(name, serving.app(files[name]))


# -- right answers --------------------------------------------------------------------------------------------------


def test_rows_are_answered_as_the_file_answers_them(ask: Ask, churn: Any, files: dict[str, Path]) -> None:
    rows = [GOOD, {"age": 71.5, "income (k)": None, "plan": None}, {"age": 18, "income (k)": -3, "plan": "never seen"}]
    model = export.load(files["churn"])
    answer = ask(churn, "/predict", {"rows": rows})
    assert answer.status == 200
    predictions = answer.json["predictions"]
    assert [one["label"] for one in predictions] == model.predict(rows).tolist()
    assert {one["label"] for one in predictions} == {"leaves", "stays"}
    assert all(list(one["probabilities"]) == ["leaves", "stays"] for one in predictions)
    np.testing.assert_array_equal(
        np.array([list(one["probabilities"].values()) for one in predictions], "float32"), model.predict_proba(rows)
    )
    assert answer.json["id"] == answer.headers["x-request-id"]
    assert ask(churn, "/predict", rows).json["predictions"] == predictions  # a bare list


def test_an_array_of_named_columns_is_given_by_name_or_by_place(ask: Ask, app_of: Any) -> None:
    rows = [[1, 2, 3], [0.5, 0, -2]]
    expected = [{"prediction": pytest.approx(1.5 * a - 2 * b + 0.5 * c)} for a, b, c in rows]
    named = [dict(zip("abc", row, strict=True)) for row in rows]
    for body in (rows, named, {"rows": rows}, {"rows": named}):
        assert ask(app_of("numbers"), "/predict", body).json["predictions"] == expected
    assert "row 1: must be a list" in ask(app_of("numbers"), "/predict", [rows[0], named[0]]).error


def test_texts_and_several_labels(ask: Ask, app_of: Any) -> None:
    answer = ask(app_of("text"), "/predict", {"rows": ["hello", {"text": ""}][:1] * 2 + [""]})
    labels = [one["labels"] for one in answer.json["predictions"]]
    assert labels == [{"greeting": True, "7": True}] * 2 + [{"greeting": False, "7": False}]


def test_images_of_any_size(ask: Ask, app_of: Any) -> None:
    pixels = np.arange(4 * 2 * 3).reshape(4, 2, 3)
    answer = ask(app_of("image"), "/predict", [pixels.tolist()])
    assert answer.json["predictions"] == [{"label": 2, "raw": pixels.mean((0, 1)).tolist()}]
    two = [pixels.tolist(), pixels[:3].tolist()]
    assert (
        "row 1, 'image': it has the shape (3, 2, 3), and row 0 has (4, 2, 3)"
        in ask(app_of("image"), "/predict", two).error
    )
    ragged = [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]
    assert "row 0, 'image': its lists have different lengths" in ask(app_of("image"), "/predict", [ragged]).error
    assert "(at [0, 1] in it)" in ask(app_of("image"), "/predict", [[[[1, 2, 3], [1, 2]]]]).error


def test_tensorflow_serving(ask: Ask, churn: Any, app_of: Any) -> None:
    rows = [GOOD, {**GOOD, "plan": None}]
    own = ask(churn, "/predict", rows).json["predictions"]
    by_row = ask(churn, "/v1/models/model:predict", {"signature_name": "serving_default", "instances": rows}).json
    assert by_row["predictions"] == [
        {"label": one["label"], "probabilities": list(one["probabilities"].values())} for one in own
    ]
    columns = {name: [row[name] for row in rows] for name in GOOD}
    by_column = ask(churn, "/v1/models/model/versions/1:predict", {"inputs": columns}).json["outputs"]
    assert by_column == {name: [one[name] for one in by_row["predictions"]] for name in ("label", "probabilities")}
    # a model of one output leaves out its name, and one of one input takes a list
    path = "/v1/models/model:predict"
    for inputs in ([[1, 2, 3]], {"X": [[1, 2, 3]]}, {"a": [1], "b": [2], "c": [3]}):
        assert ask(app_of("numbers"), path, {"inputs": inputs}).json == {"outputs": [-1.0]}
    assert ask(app_of("numbers"), path, {"instances": [[1, 2, 3]]}).json == {"predictions": [-1.0]}
    state = ask(churn, "/v1/models/model").json["model_version_status"]
    assert [(one["version"], one["state"]) for one in state] == [("1", "AVAILABLE")]
    assert 'either "instances"' in ask(churn, path, {}).error
    assert 'either "instances"' in ask(churn, path, {"instances": rows, "inputs": columns}).error
    assert "different numbers of rows" in ask(churn, path, {"inputs": {**columns, "age": [1]}}).error
    assert "must be a list" in ask(churn, path, {"inputs": {**columns, "age": 1}}).error
    assert "must be an object" in ask(churn, path, {"inputs": [1]}).error


def test_open_inference_protocol(ask: Ask, churn: Any, app_of: Any) -> None:
    described = ask(churn, "/v2/models/model").json
    assert [(one["name"], one["datatype"], one["shape"]) for one in described["inputs"]] == [
        ("age", "FP32", [-1]), ("income (k)", "FP32", [-1]), ("plan", "BYTES", [-1]),
    ]  # fmt: skip
    assert described["outputs"][1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    rows = [GOOD, {**GOOD, "income (k)": None}]
    inputs = [
        {"name": "age", "shape": [2, 1], "datatype": "INT64", "data": [[40], [40]]},
        {"name": "income (k)", "shape": [2], "datatype": "FP64", "data": [50.5, None]},
        {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["basic", "basic"]},
    ]
    infer = "/v2/models/model/infer"
    answer = ask(churn, infer, {"id": "mine", "inputs": inputs}).json
    own = ask(churn, "/predict", rows).json["predictions"]
    assert answer["id"] == "mine" and answer["model_name"] == "model"
    label, probabilities = answer["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": [one["label"] for one in own]}
    assert probabilities["shape"] == [2, 2]
    assert probabilities["data"] == [p for one in own for p in one["probabilities"].values()]
    chosen = ask(churn, infer, {"inputs": inputs, "outputs": [{"name": "label"}]}).json["outputs"]
    assert [one["name"] for one in chosen] == ["label"]
    flat = {"name": "image", "shape": [1, 2, 1, 3], "datatype": "FP32", "data": [0, 1, 2, 2, 3, 4]}
    raw = ask(app_of("image"), infer, {"inputs": [flat]}).json["outputs"][1]
    assert raw["data"] == [1.0, 2.0, 3.0]
    wrong = {
        "age": [{**inputs[0], "name": "aeg"}, *inputs[1:]],
        "is missing": inputs[1:],
        "given twice": [*inputs, inputs[0]],
        "datatype BYTES": [*inputs[:2], {**inputs[2], "datatype": "FP32"}],
        "but 2 values": [{**inputs[0], "shape": [3]}, *inputs[1:]],
        "positive sizes": [{**inputs[0], "shape": [10**12, 0]}, *inputs[1:]],
        "neither flat nor evenly nested": [{**inputs[0], "data": [[40], 40]}, *inputs[1:]],
        "row 1, column 'age': must be a number; got 'x'": [{**inputs[0], "data": [1, "x"]}, *inputs[1:]],
    }
    for said, given in wrong.items():
        refused = ask(churn, infer, {"inputs": given})
        assert refused.status == 422 and said in refused.error, refused
    assert "Did you mean 'label'" in ask(churn, infer, {"inputs": inputs, "outputs": [{"name": "lable"}]}).error
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/model/ready", "/health", "/ready"):
        assert ask(churn, path).status == 200, path


def test_examples_of_the_documentation_work(ask: Ask, app_of: Any) -> None:
    n_tried = 0
    for name in ("churn", "image", "numbers", "text"):
        document = ask(app_of(name), "/openapi.json").json
        for path, methods in document["paths"].items():
            if "post" in methods:
                example = methods["post"]["requestBody"]["content"]["application/json"]["example"]
                assert ask(app_of(name), path, example).status == 200, (name, path, example)
                n_tried += 1
            else:
                assert ask(app_of(name), path).status == 200, (name, path)
    assert n_tried == 12
    row = ask(app_of("churn"), "/openapi.json").json["components"]["schemas"]["Row"]
    assert row["required"] == list(GOOD) and row["additionalProperties"] is False
    assert row["properties"]["plan"]["x-categories"] == ["basic", "pro"]


# -- what is refused ------------------------------------------------------------------------------------------------


def body(**changed: Any) -> bytes:
    return json.dumps({"rows": [GOOD, {**GOOD, **changed}]}).encode()


def spelt(value: str) -> bytes:
    return body(age="here").replace(b'"here"', value.encode())


REFUSED: dict[str, tuple[bytes, str]] = {
    "no body": (b" ", "The body is not JSON"),
    "bad JSON": (b'{"rows": [', "The body is not JSON"),
    "bad UTF-8": (b'{"rows": [{"plan": "\xff"}]}', "The body is not JSON"),
    "half a character": (b'{"rows": [{"plan": "\\ud800"}]}', "The body is not JSON"),
    "deep JSON": (b"[" * 1900, "The body is not JSON: recursion limit"),
    "deep value": (body(age=1).replace(b'"age": 1', b'"age": ' + b"[" * 900 + b"]" * 900), "The body is not JSON"),
    "another field": (b'{"rows": [], "row": 1}', "'row': is not known"),
    "no rows at all": (b"{}", "'rows': is missing"),
    "a row alone": (
        json.dumps(GOOD).encode(),
        'The body is a row. Put it in a list, even if it is the only one: {"rows": ',
    ),
    "rows are no list": (b'{"rows": {}}', "'rows': must be a list; got an object of 0"),
    "no rows": (b'{"rows": []}', "'rows': at least 1 must be given"),
    "too many rows": (json.dumps({"rows": [GOOD] * 6}).encode(), "'rows': at most 5 values are taken"),
    "a row is no object": (b'{"rows": [3]}', "row 0: must be an object; got 3"),
    "missing column": (json.dumps([{"age": 1, "plan": None}]).encode(), "row 0, column 'income (k)': is missing"),
    "extra column": (body(plam="basic"), "row 1, column 'plam': is not known. Did you mean 'plan'?"),
    "text for a number": (body(age="40"), "row 1, column 'age': must be a number; got '40'"),
    "bool for a number": (body(age=True), "row 1, column 'age': must be a number; got true"),
    "list for a number": (body(age=[1]), "row 1, column 'age': must be a number; got a list of 1"),
    "null where none may be": (body(age=None), "row 1, column 'age': must be a number; got null"),
    "number for a text": (body(plan=3), "row 1, column 'plan': must be text; got 3"),
    "NaN": (spelt("NaN"), "row 1, column 'age': must be a finite number; got NaN"),
    "Infinity": (spelt("-Infinity"), "row 1, column 'age': must be a finite number; got -Infinity"),
    "1e400": (spelt("1e400"), "row 1, column 'age': must be a finite number"),
    "1e39": (spelt("1e39"), "row 1, column 'age': must be a number of float32"),
    "many digits": (spelt("9" * 500), "row 1, column 'age': must be a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_422_and_names_row_and_column(ask: Ask, churn: Any, case: str) -> None:
    content, said = REFUSED[case]
    answer = ask(churn, "/predict", content)
    assert answer.status == 422
    assert answer.error.startswith(said) or said in answer.error.split("; "), answer.error


def test_a_row_alone_is_told_from_a_list_by_each_path(ask: Ask, churn: Any) -> None:
    assert '{"instances": [ROW]}' in ask(churn, "/v1/models/model:predict", GOOD).error
    assert '{"inputs": [ROW]}' not in ask(churn, "/v2/models/model/infer", GOOD).error


def test_what_some_shells_put_before_text_is_no_part_of_it(ask: Ask, churn: Any) -> None:
    for path, rows in (("/predict", "rows"), ("/v1/models/model:predict", "instances")):
        assert ask(churn, path, json.dumps({rows: [GOOD]}).encode("utf-8-sig")).status == 200


def test_mistakes_are_told_one_by_one(ask: Ask, churn: Any) -> None:
    errors = ask(churn, "/predict", body(age="x", plan=1)).json["errors"]
    assert [(one["row"], one["column"]) for one in errors] == [(1, "age"), (1, "plan")]
    # in few words, however many there are
    many = {f"column {place}": 1 for place in range(90)}
    answer = ask(churn, "/predict", [many])
    assert len(answer.json["errors"]) == 5 and answer.error.endswith("and 88 more")


def test_a_row_without_a_finite_answer_is_refused(ask: Ask, app_of: Any) -> None:
    answer = ask(app_of("numbers"), "/predict", [[1, 2, 3], [3e38, -3e38, 0]])
    assert answer.status == 422
    assert answer.error == "row 1: the model has no finite answer for this row"


@pytest.mark.parametrize("chunk", [0, 500])
def test_a_body_that_is_too_large_is_413(ask: Ask, churn: Any, chunk: int) -> None:
    answer = ask(churn, "/predict", b" " * 10_000_000 if not chunk else b" " * 100_000, chunk=chunk)
    assert answer.status == 413 and "more than the 2000 bytes" in answer.error
    assert ask(churn, "/predict", body().ljust(2000), chunk=chunk).status == 200


def test_whoever_has_no_token_is_401(ask: Ask, files: dict[str, Path]) -> None:
    application = serving.app(files["churn"], token="secret")
    for headers in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "secret"}, {"Authorization": "Bearer ü"}):
        for path in ("/predict", "/spec", "/openapi.json", "/metrics", "/v2/models/model", "/nowhere"):
            answer = ask(application, path, [GOOD] if path == "/predict" else None, headers=headers)
            assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": "Bearer secret"}
    for headers in (right, {"Authorization": "bearer  secret"}):  # RFC 9110: the scheme has no case
        assert ask(application, "/predict", [GOOD], headers=headers).status == 200
    assert ask(application, "/openapi.json", headers=right).json["security"] == [{"token": []}]
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/page/form.js"):
        assert ask(application, path).status == 200, path


def test_what_is_not_there(ask: Ask, churn: Any) -> None:
    assert ask(churn, "/v2/models/other").status == 404
    assert "named 'model'" in ask(churn, "/v1/models/other:predict", {}).error
    assert ask(churn, "/predict").status == 405


def test_who_goes_away_or_is_slow(ask: Ask, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    application = serving.app(files["churn"], timeout=0.05)
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        await asyncio.sleep(60)

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(application(dict(scope), never, send))
    assert sent[0]["status"] == 408 and b"did not arrive within 0.05 seconds" in sent[1]["body"]
    sent.clear()
    asyncio.run(application(dict(scope), gone, send))
    assert not sent
    assert [json.loads(line)["status"] for line in capsys.readouterr().err.splitlines()] == [408, 499]


def test_a_fault_is_told_in_the_log_and_not_to_whoever_asks(
    ask: Ask, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    served = served_model(files["churn"])
    calls = iter([1, 2])

    def run(arrays: Any) -> Any:
        if next(calls, None) is None:
            raise RuntimeError("secret of the house")
        return served.run(arrays)

    application = serving.app(dataclasses.replace(served, run=run))
    answer = ask(application, "/predict", [GOOD])
    assert answer.status == 500 and "secret" not in answer.error
    assert "secret of the house" in capsys.readouterr().err


def test_a_slow_model_runs_beside_the_server_and_within_its_time(ask: Ask, files: dict[str, Path]) -> None:
    served = served_model(files["churn"])
    threads, goes_on = set(), threading.Event()

    def slow(arrays: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        if len(arrays["age"]) == 3:
            goes_on.wait()
        else:
            time.sleep(0.006)
        return served.run(arrays)

    application = serving.app(dataclasses.replace(served, run=slow), timeout=0.5)
    threads.clear()
    assert ask(application, "/predict", [GOOD, GOOD]).status == 200
    assert threads == {False}
    threading.Timer(1.0, goes_on.set).start()  # the answer that nobody waits for any more
    late = ask(application, "/predict", [GOOD] * 3)
    assert late.status == 503 and "There was no answer within 0.5 seconds" in late.error


def test_a_server_that_stops_is_not_ready_and_ends_its_connections(ask: Ask, files: dict[str, Path]) -> None:
    application = serving.app(files["churn"])
    application.state.draining = True
    for path in ("/ready", "/v2/health/ready", "/v2/models/model/ready"):
        assert ask(application, path).status == 503
    assert ask(application, "/health").status == 200
    answer = ask(application, "/predict", [GOOD])
    assert answer.status == 200 and answer.headers["connection"] == "close"


def test_an_application_is_mounted_and_extended(ask: Ask, files: dict[str, Path]) -> None:
    import fastapi

    application = serving.app(files["churn"], token="secret")

    @application.get("/more")
    def more() -> dict[str, int]:
        return {"more": 1}

    whole = fastapi.FastAPI()
    whole.mount("/models/churn", application)
    right = {"Authorization": "Bearer secret"}
    assert ask(whole, "/models/churn/health").status == 200
    assert ask(whole, "/models/churn/predict", [GOOD]).status == 401
    assert ask(whole, "/models/churn/predict", [GOOD], headers=right).json["predictions"][0]["label"] == "stays"
    assert ask(whole, "/models/churn/more").status == 401
    assert ask(whole, "/models/churn/more", headers=right).json == {"more": 1}
    assert {"/more", "/predict"} <= set(ask(application, "/openapi.json", headers=right).json["paths"])


# -- what is counted ------------------------------------------------------------------------------------------------


def test_unseen_categories_labels_and_requests_are_counted(ask: Ask, files: dict[str, Path]) -> None:
    application = serving.app(files["churn"])
    rows = [{**GOOD, "plan": plan} for plan in ("gold", "basic", None, "", "silver")]
    assert ask(application, "/predict", rows).status == 200
    ask(application, "/predict", b"[")
    ask(application, "/somewhere/else")
    lines = dict(
        line.rsplit(" ", 1) for line in ask(application, "/metrics").body.decode().splitlines() if line[0] != "#"
    )
    assert lines['kerastoolkit_unseen_categories_total{column="plan"}'] == "2.0"
    assert lines["kerastoolkit_rows_total"] == "5.0"
    assert sum(float(n) for name, n in lines.items() if name.startswith("kerastoolkit_labels_total")) == 5
    assert lines['kerastoolkit_requests_total{path="/predict",status="422"}'] == "1.0"
    assert lines['kerastoolkit_requests_total{path="other",status="404"}'] == "1.0"
    assert lines['kerastoolkit_request_seconds_count{path="/predict"}'] == "2.0"


def test_a_request_is_one_line_of_json(ask: Ask, churn: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ask(churn, "/predict\n\x1b[31m", [GOOD])
    answer = ask(churn, "/predict", [GOOD, GOOD])
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["path"] == "/predict\n\x1b[31m" and first["status"] == 404
    assert (second["status"], second["rows"], second["id"]) == (200, 2, answer.headers["x-request-id"])
    assert math.isfinite(second["ms"]) and "error" not in second


# -- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs", "/page/form.js", "/page/docs.js", "/page/page.css"])
def test_pages_load_nothing_from_elsewhere(ask: Ask, churn: Any, path: str) -> None:
    answer = ask(churn, path)
    assert answer.status == 200
    assert b"http" not in answer.body and b"innerHTML" not in answer.body
    assert "default-src 'none'" in answer.headers["content-security-policy"]


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "a/b"}, "`name` must be letters"),
        ({"token": ""}, "`token` must be visible ASCII"),
        ({"max_rows": 0}, "`max_rows` must be a whole number of at least 1; got 0"),
        ({"max_body": 1.5}, "`max_body` must be"),
        ({"timeout": 0}, "`timeout` must be a number of seconds"),
    ],
)
def test_arguments_are_checked(files: dict[str, Path], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        serving.app(files["churn"], **arguments)


def test_other_files_are_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "model.onnx").write_bytes(files["churn"].read_bytes()[:300])
    with pytest.raises(SavedFileError, match="model.onnx"):
        serving.app(tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError):
        serving.app(tmp_path / "nothing.onnx")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed: https://nodejs.org")
def test_the_form_sends_pixels_on_the_scale_of_the_model() -> None:
    script = """
        const found = { addEventListener() {} };
        globalThis.document = { getElementById: () => found };
        require("node:vm").runInThisContext(require("node:fs").readFileSync(process.argv[1], "utf8"));
        const ranges = [[0, 0.996], [0, 250], [null, null], [0, 15], [-1, 0.99], [0, 1000]];
        console.log(JSON.stringify(ranges.map(([minimum, maximum]) => scaleOf({ minimum, maximum }))));
    """
    form = resources.files("kerastoolkit.serving") / "page" / "form.js"
    said = subprocess.run(["node", "-e", script, str(form)], capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(said.stdout) == [[0, 1], [0, 255], [0, 255], [0, 16], [-1, 0.99], [0, 1000]]
