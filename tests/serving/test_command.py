"""The real command: it serves, stops without losing a request, survives a kill, and shares a port between workers."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kerastoolkit import export
from kerastoolkit.cli import main
from kerastoolkit.exceptions import DataError, ModelMismatchError, ParameterError, ServerError
from kerastoolkit.serving import Client, serve
from kerastoolkit.serving._dockerfile import PACKAGES

GOOD = {"age": 40, "income (k)": 50.5, "plan": "basic"}
Start = Callable[..., contextlib.AbstractContextManager[Any]]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")


class Load:
    """Clients that ask again and again until the server takes no more connections."""

    def __init__(self, url: str, n_clients: int = 8) -> None:
        self.port = int(url.rsplit(":", 1)[1])
        self.answered: set[str] = set()
        self.lost: list[str] = []
        self.many = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(place % 2 == 0,)) for place in range(n_clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self, keeps_connections: bool) -> None:
        body = json.dumps({"rows": [GOOD]})
        connection = None
        while True:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
                    connection.connect()
            except ConnectionError:
                if connection is not None:
                    connection.close()
                return
            try:
                connection.request("POST", "/predict", body)
                answer = connection.getresponse()
                self.answered.add(json.loads(answer.read())["id"])
                if not keeps_connections or answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
                connection = None
            if len(self.answered) > 200:
                self.many.set()

    def end(self) -> None:
        for thread in self.threads:
            thread.join()


def logged(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [request for (request,) in file.execute("SELECT id FROM requests")]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_stops_answers_what_it_took(
    start: Start, files: dict[str, Path], tmp_path: Path, workers: str
) -> None:
    log = tmp_path / "requests.db"
    with start(files["churn"], tmp_path / "errors", "--log", str(log), "--workers", workers) as server:
        load = Load(server.url)
        load.many.wait()
        server.process.send_signal(signal.SIGTERM)
        load.end()
        assert server.process.wait() == 0
    assert not load.lost
    assert sorted(logged(log)) == sorted(load.answered)
    served = [json.loads(line) for line in (tmp_path / "errors").read_text().splitlines()]
    assert {line["id"] for line in served if line["status"] == 200} == load.answered


def test_a_server_that_is_killed_leaves_a_log_that_can_be_read(
    start: Start, files: dict[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "requests.db"
    with start(files["churn"], tmp_path / "errors", "--log", str(log)) as server:
        load = Load(server.url)
        load.many.wait()
        server.process.kill()
        load.end()
    # What was written had been taken; an answer may have been on its way still.
    assert len(set(logged(log)) - load.answered) <= len(load.threads)
    with start(files["churn"], tmp_path / "errors", "--log", str(log)) as server:
        assert Client(server.url).predict([GOOD]).tolist() == ["stays"]


def test_workers_share_a_port_and_their_numbers(start: Start, files: dict[str, Path], tmp_path: Path) -> None:
    with start(files["churn"], tmp_path / "errors", "--workers", "2") as server:
        clients = [Client(server.url) for _ in range(6)]
        for client in clients:
            client.predict([GOOD, GOOD])
        with contextlib.closing(http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc)) as connection:
            connection.request("GET", "/metrics")
            assert "\nkerastoolkit_rows_total 12.0\n" in connection.getresponse().read().decode()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait() == 0


def test_a_worker_that_dies_is_replaced(start: Start, files: dict[str, Path], tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    with start(files["churn"], tmp_path / "errors", "--workers", "2") as server:

        def workers() -> list[Any]:
            found = psutil.Process(server.process.pid).children()
            return [one for one in found if "spawn_main" in " ".join(one.cmdline())]

        first = workers()
        assert len(first) == 2
        first[0].kill()
        first[0].wait()
        while len(workers()) < 2:
            time.sleep(0.05)
        assert Client(server.url, timeout=600).predict([GOOD]).tolist() == ["stays"]
        server.process.kill()  # the workers do not go on alone
        psutil.wait_procs([*first, *workers()])
    assert "a worker ended" in (tmp_path / "errors").read_text()


# -- the client -----------------------------------------------------------------------------------------------------


def test_a_client_answers_as_the_file(start: Start, files: dict[str, Path], tmp_path: Path) -> None:
    model = export.load(files["churn"])
    frame = pd.DataFrame(
        {
            "plan": pd.Series(["pro", None, "gold"] * 5, dtype="category"),
            "age": np.linspace(18, 90, 15),
            "income (k)": pd.Series([50, None, 10] * 5, dtype="Int64"),
        },
        index=range(100, 115),
    )
    with start(files["churn"], tmp_path / "errors", KERASTOOLKIT_TOKEN="secret") as server:
        client = Client(server.url + "/", token="secret", max_rows=4, timeout=600)
        expected = model.predict_proba(frame.astype({"plan": object}))
        for X in (frame, frame.to_dict("list"), frame.astype({"plan": object}).to_dict("records")):
            np.testing.assert_array_equal(client.predict_proba(X), expected)
        assert client.predict(frame).tolist() == model.predict(frame.astype({"plan": object})).tolist()
        assert client.classes == model.classes == ("leaves", "stays")
        assert client.predict_proba(frame[:0]).shape == (0, 2)
        in_order = frame[["age", "income (k)", "plan"]].astype(object)
        np.testing.assert_array_equal(client.predict_proba(in_order.to_numpy()), expected)
        with pytest.raises(
            DataError, match=r"row 3, column 'age': must be a number; got null \(of the rows from 4 on\)"
        ):
            client.predict(frame.assign(age=[*frame["age"][:7], None, *frame["age"][8:]]))
        with pytest.raises(DataError, match="X must have 3 columns: age, income"):
            client.predict([[1, 2]])
        with pytest.raises(ServerError, match="status 401: Give the token"):
            Client(server.url, token="wrong").predict(frame)
    with pytest.raises(ServerError, match="cannot be asked"):
        client.predict(frame)


def test_a_client_of_arrays_and_texts(start: Start, files: dict[str, Path], tmp_path: Path) -> None:
    X = np.array([[1, 2, 3], [0, 1, 0.5]], "float32")
    with start(files["numbers"], tmp_path / "errors") as server:
        client = Client(server.url)
        predicted = client.predict(X)
        np.testing.assert_array_equal(predicted, export.load(files["numbers"]).predict(X))
        assert predicted.dtype == np.float32
        with pytest.raises(ModelMismatchError, match="no probabilities"):
            client.predict_proba(X)
    with start(files["text"], tmp_path / "errors") as server:
        client = Client(server.url)
        texts = ["hello", "bye"]
        assert client.predict(texts).tolist() == export.load(files["text"]).predict(texts).tolist() == [[1, 1], [0, 0]]
        assert client.predict_proba(pd.Series(texts)).tolist() == [[1, 1], [0, 0]]


def test_a_client_gives_its_token_to_nobody_else() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            redirects = self.path == "/away/spec"
            self.send_response(302 if redirects else 200)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/elsewhere")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            pass

    asked: list[str] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        with pytest.raises(ServerError, match="status 302"):
            Client(f"{url}/away", token="secret").predict([GOOD])
        with pytest.raises(ServerError, match="is no server of kerastoolkit"):
            Client(url).predict([GOOD])
        other.shutdown()
    assert asked == ["/away/spec", "/spec"]


@pytest.mark.parametrize(("arguments", "said"), [({"url": "localhost:80"}, "`url`"), ({"timeout": 0}, "`timeout`")])
def test_arguments_of_a_client(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Client(**{"url": "http://127.0.0.1:80", **arguments})


# -- what the command says ------------------------------------------------------------------------------------------


def test_a_server_that_others_can_reach_warns_without_a_token(
    start: Start, files: dict[str, Path], tmp_path: Path
) -> None:
    with start(files["churn"], tmp_path / "errors", "--host", "0.0.0.0") as server:
        assert any(line.startswith("Warning: whoever can reach") for line in server.said)
    with start(files["churn"], tmp_path / "errors", "--host", "0.0.0.0", "--token", "secret") as server:
        assert not any("Warning" in line for line in server.said)
        assert "secret" not in "".join(server.said)


def test_an_empty_token_does_not_open_the_server(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASTOOLKIT_TOKEN", "")
    with pytest.raises(ParameterError, match="KERASTOOLKIT_TOKEN is empty"):
        serve(files["churn"], port=0)
    with pytest.raises(ParameterError, match="`token` must be"):
        serve(files["churn"], port=0, token="")


def test_mistakes_are_one_message(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(files["churn"])
    Path("other.onnx").write_bytes(b"x" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = {
            ("nothing.onnx",): "No such file: 'nothing.onnx'. Did you mean 'other.onnx'?",
            ("other.onnx", "--port", "0"): "'other.onnx'",
            (model, "--port", str(taken.getsockname()[1])): "The server cannot listen at '127.0.0.1'",
            (model, "--port", "70000"): "`port` must be",
            (model, "--host", "no such host"): "cannot listen at 'no such host'",
            (model, "--workers", "0"): "`workers` must be",
            (model, "--token", ""): "`token` must be visible ASCII",
            (model, "--sample", "0.5"): "give --log FILE",
            (model, "--port", "0", "--log", "other.onnx"): "is no request log",
            (model, "--port", "0", "--log", "new.db", "--log-exclude", "aeg"): "Did you mean 'age'?",
            ("other.onnx", "--dockerfile"): "'other.onnx'",
        }
        for words, said in cases.items():
            assert main(["serve", *words]) == 2
            told = capsys.readouterr().err
            assert said in told and told.count("\n") == 1, told


def test_a_dockerfile_beside_the_model(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "my churn.onnx"
    model.write_bytes(files["churn"].read_bytes())
    assert main(["serve", str(model), "--dockerfile"]) == 0
    text = (tmp_path / "Dockerfile").read_text()
    assert 'COPY --chown=server ["my churn.onnx", "model.onnx"]' in text
    assert "USER server" in text and "HEALTHCHECK" in text and "--no-deps kerastoolkit==" in text
    assert "tensorflow" not in text.lower().replace("without tensorflow", "")
    capsys.readouterr()
    assert main(["serve", str(model), "--dockerfile"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "Dockerfile").read_text() == text


def test_a_dockerfile_installs_what_serving_needs() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    names = {re.split("[>=]", line)[0] for line in setup["options.extras_require"]["serve"].split() if line[0] != "#"}
    assert names - {"kerastoolkit[onnx]"} | {"numpy", "onnxruntime"} == set(PACKAGES)


def test_export_refuses_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.zip").write_bytes(b"")
    cases = {
        ("mdel.zip", "out.onnx"): "Did you mean 'model.zip'?",
        ("model.zip", "out.onxn"): "--format is missing",
        ("model.zip", "model.zip", "--format", "tfjs"): "exists already",
        ("model.zip", "out.onnx", "--quantize", "int8"): "cannot be had for onnx; litert has it",
        ("model.zip", "web", "--format", "tfjs", "--quantize", "int8"): "cannot be had for tfjs",
        ("model.zip", "out.onnx", "--sample", "rows.csv"): "No such file: 'rows.csv'",
    }
    for words, said in cases.items():
        assert main(["export", *words]) == 2
        assert said in capsys.readouterr().err
