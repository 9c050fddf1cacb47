"""What an estimator costs beside the training itself: a fit, a clone, the memory of many fits, predicting in threads.

    python benchmarks/overhead.py [--fits N]

Time of a fit: that of the whole `fit` less that of training inside it and of making and compiling the model, which a
user of plain Keras would pay as well. Memory: resident bytes of the process after many fits of a small network, less
those after the first few, beside the same loop in plain Keras. Throughput: rows a second that eight threads predict,
with one model or with a model each, over those of one thread; 2,000 rows of 100 columns a call, 64 hidden units. On two
cores 1.6 is wanted. The exit status is 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from typing import Any

LIMITS = {"fit, outside training": 3.0, "clone": 0.1, "growth": 50.0}  # ms, ms, MB
WANTED_RATIO = 1.6  # of eight threads to one, on two cores


def resident() -> float:
    """Resident memory of this process, MB."""
    import psutil

    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


class Spent:
    """Counts the time spent inside some methods."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Any) -> Any:
        """The same function, its time counted once however deep it calls itself."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        return timed


def throughput(estimators: list[Any], rows: Any, seconds: float = 3.0) -> float:
    """Rows a second of one thread for each estimator in the list, all at once."""
    begin, n_calls = threading.Barrier(len(estimators)), [0] * len(estimators)

    def predict(number: int) -> None:
        estimators[number].predict(rows)  # makes the program
        begin.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            estimators[number].predict(rows)
            n_calls[number] += 1

    threads = [threading.Thread(target=predict, args=(number,)) for number in range(len(estimators))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(n_calls) * len(rows) / seconds


def in_threads(n_threads: int = 8) -> dict[str, float]:
    """Throughput of many threads as a ratio to that of one: with one model, and with a model each."""
    import numpy as np

    from kerastoolkit import KerasClassifier

    rows = np.random.default_rng(0).normal(size=(2_000, 100)).astype("float32")
    labels = (rows[:, 0] > 0).astype(int)
    models = [
        KerasClassifier(hidden=64, epochs=1, random_state=number).fit(rows, labels) for number in range(n_threads)
    ]
    alone = throughput(models[:1], rows)
    return {
        "one model": throughput(models[:1] * n_threads, rows) / alone,
        "a model each": throughput(models, rows) / alone,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of an estimator beside training.")
    parser.add_argument("--fits", type=int, default=200, help="fits whose memory is watched (default: %(default)s)")
    fits = parser.parse_args().fits

    import keras
    from sklearn.base import clone
    from sklearn.datasets import load_breast_cancer

    from kerastoolkit import KerasClassifier
    from kerastoolkit.estimators import _base

    X, y = load_breast_cancer(return_X_y=True)
    spent = Spent()

    def build(units: int = 8) -> Any:
        layers = keras.layers
        model = keras.Sequential([keras.Input((30,)), layers.Dense(units), layers.Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy")
        return model

    _base.train_model = spent.around(_base.train_model)
    _base.Network = spent.around(_base.Network)

    def outside(random_state: int | None) -> float:
        estimator = KerasClassifier(build, units=8, epochs=1, random_state=random_state)
        estimator.fit(X, y)
        milliseconds = []
        for _ in range(20):
            spent.seconds, start = 0.0, time.perf_counter()
            estimator.fit(X, y)
            milliseconds.append((time.perf_counter() - start - spent.seconds) * 1e3)
        return statistics.median(milliseconds)

    seeded, unseeded = outside(0), outside(None)

    plain = KerasClassifier(build, units=8, epochs=1)
    clones = []
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(20):
            clone(plain)
        clones.append((time.perf_counter() - start) / 20 * 1e3)

    def growth(one_fit: Any) -> float:
        for _ in range(10):
            one_fit()
        before = resident()
        for _ in range(fits):
            one_fit()
        return resident() - before

    grown = growth(lambda: KerasClassifier(build, units=8, epochs=1, random_state=0).fit(X, y).predict(X))
    plainly = growth(lambda: build().fit(X, y, verbose=0))

    figures = {
        "fit, outside training": unseeded,
        "clone": statistics.median(clones),
        "growth": grown,
    }
    units = {"fit, outside training": "ms", "clone": "ms", "growth": f"MB in {fits} fits"}
    for name, value in figures.items():
        print(f"{name:24}{value:9.3f} {units[name]} (limit {LIMITS[name]:g})")
    print(f"{'the same with a seed':24}{seeded:9.3f} ms")
    print(f"{'growth, plain Keras':24}{plainly:9.3f} MB in {fits} fits")
    for name, ratio in in_threads().items():
        print(f"{f'8 threads, {name}':24}{ratio:9.2f} times the rows of one thread (wanted {WANTED_RATIO:g})")
    return int(any(figures[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
