"""A small dense network on a small table: `KerasClassifier.fit` beside the same training in plain Keras.

    python benchmarks/small_networks.py [--backends tensorflow torch] [--repeats N]

Iris, one hidden layer of 32 units, Adam, 100 epochs of 5 steps. Each backend has a process of its own, in which both
take turns; what is printed are medians, without the first fit of each, and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time


def measure(repeats: int) -> None:
    """Prints one row of the table, for the backend of this process."""
    import keras
    from sklearn.datasets import load_iris

    from kerastoolkit import KerasClassifier

    X, y = load_iris(return_X_y=True)
    X = X.astype("float32")

    def ours(seed: int) -> None:
        KerasClassifier(hidden=(32,), epochs=100, random_state=seed).fit(X, y)

    def plain(seed: int) -> None:
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((4,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential(layers)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(X, y, epochs=100, verbose=0)

    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(repeats + 1):
        for name, train in (("ours", ours), ("plain", plain)):
            begun = time.perf_counter()
            train(number)
            seconds[name].append(time.perf_counter() - begun)
    ours_s, plain_s = (statistics.median(seconds[name][1:]) for name in ("ours", "plain"))
    first = seconds["plain"][0] / seconds["ours"][0]
    row = (keras.config.backend(), f"{ours_s:.3f} s", f"{plain_s:.2f} s", f"{plain_s / ours_s:.0f}x", f"{first:.1f}x")
    print(f"| {' | '.join(row)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "torch"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.repeats)
        return 0
    print("| backend | ours | plain Keras | ratio | of the first fits |\n| --- | --: | --: | --: | --: |", flush=True)
    for backend in options.backends:
        command = [sys.executable, __file__, "--measure", "--repeats", str(options.repeats)]
        subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
