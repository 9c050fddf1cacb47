"""Memory of a process that fits and fits: searches and single fits, the same few structures again and again.

    python benchmarks/many_fits.py [--fits 10000]

After each thousand fits: resident memory and seconds. The exit status is 1 if the last figure is more than 5 % above
that after the first thousand.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description="Memory of many fits in one process.")
    parser.add_argument("--fits", type=int, default=10_000, help="default: %(default)s")
    n_fits = parser.parse_args().fits
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import numpy as np
    import psutil
    from sklearn.datasets import load_breast_cancer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from kerastoolkit import KerasClassifier
    from kerastoolkit.search import GridSearchCV

    X, y = load_breast_cancer(return_X_y=True)
    drawn = np.random.default_rng(0)
    widths = [(4,), (8,), (16,), (8, 8)]

    def pipeline() -> object:
        hidden = widths[drawn.integers(len(widths))]
        return make_pipeline(StandardScaler(), KerasClassifier(hidden=hidden, epochs=2, batch_size=128))

    done, known, first, last, begun = 0, 0, 0.0, 0.0, time.perf_counter()
    print("   fits       MB  seconds")
    while done < n_fits:
        rates = {"kerasclassifier__optimizer__learning_rate": list(10 ** drawn.uniform(-4, -1, 16))}
        GridSearchCV(pipeline(), rates, cv=3).fit(X, y)  # type: ignore[no-untyped-call]
        pipeline().fit(X, y).predict(X)  # type: ignore[attr-defined]
        done += 16 * 3 + 2
        if done // 1000 > known:
            known = done // 1000
            gc.collect()
            last = psutil.Process().memory_info().rss / 2**20
            first = first or last
            print(f"{done:7}{last:9.0f}{time.perf_counter() - begun:9.0f}", flush=True)
    print(f"grown since the first thousand: {last - first:.0f} MB, {(last / first - 1):.1%}")
    return int(last > 1.05 * first)


if __name__ == "__main__":
    sys.exit(main())
