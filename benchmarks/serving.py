"""What a request costs: an exported table model behind HTTP, beside HTTP alone and the same estimator with Keras.

    python benchmarks/serving.py [--seconds N] [--connections N]

A network for a table of 20 columns, numbers and categories, is trained on breast_cancer, exported and served by the
real command, once with 1 row and once with 64 rows in a request; with the request log, and with two workers, too.
Beside it, in the same run and with the same client: an application that reads the body and answers a constant, which
is what HTTP alone costs; and one that calls `predict_proba` of the estimator for each request. CPU time is that of all
processes of the server, by request; memory is the largest that one of them has resident (RSS). The table is written to
`results/serving.md`. The exit status is 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

LIMITS = {"CPU ms of a request of one row": 0.3, "seconds until it is ready": 3.0, "MB resident": 300.0}

HTTP_ALONE = """
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
application = FastAPI()
async def predict(request):
    await request.body()
    return Response(b'{"predictions": []}', media_type="application/json")
application.router.add_route("/predict", predict, methods=["POST"])
"""

WITH_KERAS = """
import sys
import pandas as pd
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse
import kerastoolkit
model = kerastoolkit.load(sys.argv[1])
application = FastAPI()
async def predict(request):
    frame = pd.DataFrame((await request.json())["rows"])
    return JSONResponse(model.predict_proba(frame).tolist())
application.router.add_route("/predict", predict, methods=["POST"])
"""

RUN = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(f"Ready: http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
uvicorn.Server(uvicorn.Config(application, log_level="warning", access_log=False)).run([listener])
"""


class Result(NamedTuple):
    """What was measured of one server."""

    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float
    ready: float


def trained(folder: Path) -> tuple[Path, Path, list[dict[str, Any]]]:
    """The estimator's file, the exported file, and rows."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    from kerastoolkit import KerasClassifier, export

    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :20].copy()
    for place in range(16, 20):
        X[X.columns[place]] = pd.qcut(X.iloc[:, place], 4, labels=["low", "middle", "high", "top"]).astype(object)
    model = KerasClassifier("tabular", epochs=20, random_state=0).fit(X, y.map({0: "malignant", 1: "benign"}))
    print(export.onnx(model, folder / "model.onnx", sample=X))
    model.save(folder / "model.zip")
    return folder / "model.zip", folder / "model.onnx", X.to_dict("records")


def measure(command: list[str], rows: list[dict[str, Any]], n_rows: int, seconds: float, n_connections: int) -> Result:
    """Starts a server, asks it for a while over some connections, and stops it."""
    import psutil

    start = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=nowhere, text=True)
    port = 0
    for line in process.stdout or ():
        if found := re.match(r"Ready: http://127.0.0.1:(\d+)/", line):
            port = int(found[1])
            break
    bodies = [json.dumps({"rows": [rows[(at + k) % len(rows)] for k in range(n_rows)]}).encode() for at in range(100)]
    with Connections(port, bodies, 1) as first:
        first.run(0.0)
    ready = time.perf_counter() - start
    one = psutil.Process(process.pid)
    server = [one, *one.children(recursive=True)]
    with Connections(port, bodies, n_connections) as connections:
        connections.run(min(2.0, seconds / 4))  # to warm up
        before = cpu_of(server)
        times = connections.run(seconds)
        cpu = cpu_of(server) - before
    memory = max(each.memory_info().rss for each in server) / 2**20
    process.terminate()
    process.wait()
    times.sort()
    n = len(times)
    return Result(n / seconds, 1000 * times[n // 2], 1000 * times[int(n * 0.99)], 1000 * cpu / n, memory, ready)


def cpu_of(processes: list[Any]) -> float:
    """CPU seconds of all of them."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


class Connections:
    """Connections that each ask again as soon as they are answered, all from one thread: a client that costs little."""

    def __init__(self, port: int, bodies: list[bytes], n: int) -> None:
        head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.requests = [head % len(body) + body for body in bodies]
        self.port, self.n = port, n

    def __enter__(self) -> Connections:
        import selectors
        import socket

        self.selector = selectors.DefaultSelector()
        for _ in range(self.n):
            connection = socket.create_connection(("127.0.0.1", self.port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(connection, selectors.EVENT_READ, {"place": 0, "answer": b"", "since": 0.0})
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def run(self, seconds: float) -> list[float]:
        """Seconds of each request."""
        times: list[float] = []
        until = time.perf_counter() + seconds
        waiting = 0
        for key in list(self.selector.get_map().values()):
            self._send(key)
            waiting += 1
        while waiting:
            for key, _ in self.selector.select():
                data = key.data
                data["answer"] += key.fileobj.recv(2**20)  # type: ignore[union-attr]
                if not whole(data["answer"]):
                    continue
                if not data["answer"].startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(data["answer"][:500])
                now = time.perf_counter()
                times.append(now - data["since"])
                if now < until:
                    self._send(key)
                else:
                    waiting -= 1
        return times

    def _send(self, key: Any) -> None:
        key.data["answer"], key.data["since"] = b"", time.perf_counter()
        key.data["place"] = (key.data["place"] + 1) % len(self.requests)
        key.fileobj.sendall(self.requests[key.data["place"]])


def whole(answer: bytes) -> bool:
    """Whether an answer has arrived."""
    head, found, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(found and length and len(body) >= int(length[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    parser.add_argument("--connections", type=int, default=16, help="at once (default: 16)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved, exported, rows = trained(folder)
        served = [sys.executable, "-m", "kerastoolkit.cli", "serve", str(exported), "--port", "0"]
        log = ["--log", str(folder / "requests.db")]
        cases: dict[str, tuple[list[str], int]] = {
            "HTTP alone": ([sys.executable, "-c", HTTP_ALONE + RUN], 1),
            "`kerastoolkit serve`, 1 row": (served, 1),
            "with `--log`": ([*served, *log], 1),
            "with `--workers 2`": ([*served, "--workers", "2"], 1),
            "64 rows": (served, 64),
            "`estimator.predict_proba`, 1 row": ([sys.executable, "-c", WITH_KERAS + RUN, str(saved)], 1),
        }
        results = {}
        for words, (command, n_rows) in cases.items():
            results[words] = measure(command, rows, n_rows, options.seconds, options.connections)
            print(words, results[words], flush=True)
    write(results, options.connections)
    one = results["`kerastoolkit serve`, 1 row"]
    broken = [
        name for name, value in zip(LIMITS, (one.cpu, one.ready, one.memory), strict=True) if value > LIMITS[name]
    ]
    for name in broken:
        print(f"More than {LIMITS[name]}: {name}", file=sys.stderr)
    return 1 if broken else 0


def write(results: dict[str, Result], n_connections: int) -> None:
    """Writes the table."""
    alone = results["HTTP alone"].cpu
    lines = [
        "# Serving",
        "",
        f"Written by `benchmarks/serving.py`: {n_connections} connections on a machine of {os.cpu_count()} cores, "
        "which the client shares; a table of 20 columns. CPU time is that of the server.",
        "",
        "| | requests a second | p50 / p99 ms | CPU ms a request | by HTTP alone | MB resident | ready after s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for words, one in results.items():
        lines.append(
            f"| {words} | {one.rate:,.0f} | {one.p50:.1f} / {one.p99:.1f} | {one.cpu:.3f} | {one.cpu / alone:.1f} | "
            f"{one.memory:.0f} | {one.ready:.1f} |"
        )
    path = Path(__file__).parent / "results" / "serving.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
