"""Seconds and memory of a search on large tables, beside scikit-learn's own search with the same estimator.

    python benchmarks/large_tables.py [--quick] [--repeats 2] [--out benchmarks/results/large_tables.md]

`kerastoolkit.search.GridSearchCV` and `sklearn.model_selection.GridSearchCV` go over four learning rates of
`KerasClassifier(hidden=(32,), random_state=0)` on three folds, on tables of 1,000 to 250,000 rows and 20 to 1,000
columns of float32, with batches of 32 rows and of 256. Each search is in a process of its own, and the two of a table
take turns, so that what else the machine does hits both. Measured from `fit` called to scores there: seconds, CPU
seconds, and the peak of resident memory from then on, with the table and all that was imported, and beside them. Linux
only, since no other system counts that peak from a moment on.

The exit status is 1 if a search of ours took more than 1.5 times the memory of the other, or scores differ by more than
rounding (a thousandth). Seconds are not judged: look at the ratios, of CPU seconds if the machine is busy.

`--quick` takes the smallest, some in the middle and one of many rows, once each: under five minutes. A round of all
takes ten minutes on a quiet machine, and up to 5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from search import machine, number

ROWS, COLUMNS = (1_000, 10_000, 50_000, 250_000), (20, 200, 1_000)
QUICK = [(1_000, 20), (10_000, 200), (50_000, 200), (250_000, 20), (50_000, 1_000)]
SIZES_OF_BATCHES = (32, 256)
WHO = ("scikit-learn", "ours")


def search(who: str, n_rows: int, n_columns: int, batch_size: int) -> dict[str, Any]:
    """One search in this process."""
    import numpy as np
    from sklearn import model_selection

    from kerastoolkit import KerasClassifier
    from kerastoolkit import search as ours

    generator = np.random.default_rng(0)
    X = generator.standard_normal((n_rows, n_columns), dtype="float32")
    y = (X[:, 0] + X[:, 1] + 0.5 * generator.standard_normal(n_rows) > 0).astype(int)
    KerasClassifier(hidden=(2,), epochs=1, random_state=0).fit(X[:64, :2], np.arange(64) % 2)  # what is made once
    estimator = KerasClassifier(hidden=(32,), epochs=1, batch_size=batch_size, random_state=0)
    grid, folds = {"optimizer__learning_rate": [0.0003, 0.001, 0.003, 0.01]}, model_selection.KFold(3)
    kind: Any = {"ours": ours.GridSearchCV, "scikit-learn": model_selection.GridSearchCV}[who]
    made = kind(estimator, grid, cv=folds, refit=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before, seconds, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    made.fit(X, y)
    return {
        "seconds": time.perf_counter() - seconds,
        "cpu": time.process_time() - cpu,
        "peak": memory("VmHWM"),
        "beside": memory("VmHWM") - before,
        "scores": made.cv_results_["mean_test_score"].tolist(),
        "how": made.explain() if who == "ours" else "",
    }


def memory(name: str) -> float:
    """Memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def run(*arguments: Any) -> dict[str, Any]:
    """The same in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def middle(runs: list[dict[str, Any]], name: str) -> float:
    """The median of a figure."""
    return statistics.median(one[name] for one in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description="Searches on large tables: seconds and memory.")
    parser.add_argument("--quick", action="store_true", help="a few tables, once each")
    parser.add_argument("--repeats", type=int, default=2, help="searches of each kind; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "large_tables.md")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(search(given.one[0], *map(int, given.one[1:]))))
        return 0
    tables = QUICK if given.quick else [(n_rows, n_columns) for n_rows in ROWS for n_columns in COLUMNS]
    lines, broken = [], []
    for n_rows, n_columns in tables:
        for size in SIZES_OF_BATCHES:
            runs: dict[str, list[dict[str, Any]]] = {who: [] for who in WHO}
            for _ in range(1 if given.quick else given.repeats):
                for who in WHO:
                    runs[who].append(run(who, n_rows, n_columns, size))
            theirs, ours = runs["scikit-learn"], runs["ours"]
            ratios = {name: middle(ours, name) / middle(theirs, name) for name in ("seconds", "cpu", "peak")}
            difference = max(abs(a - b) for a, b in zip(ours[0]["scores"], theirs[0]["scores"], strict=True))
            what = f"{n_rows:,} x {n_columns:,}, batches of {size}"
            broken += [what] * (ratios["peak"] > 1.5 or difference > 0.001)
            cells = [f"{n_rows:,}", f"{n_columns:,}", f"{n_rows * n_columns * 4 / 2**20:,.0f}", str(size)]
            for name in ("seconds", "cpu", "peak"):
                cells += [number(middle(theirs, name)), number(middle(ours, name)), f"**{ratios[name]:.2f}**"]
            cells += [number(middle(runs[who], "beside")) for who in WHO]
            lines.append(f"| {' | '.join(cells)} |")
            shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            print(f"{what}: {shown}; {ours[0]['how']}", flush=True)
    given.out.write_text(page(lines, given.quick), encoding="utf-8")
    print(*[f"broken: {what}" for what in broken], sep="\n")
    return int(bool(broken))


def page(lines: list[str], quick: bool) -> str:
    """The table, with what it was measured on."""
    found = machine()
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    return f"""# Searches on large tables

Made by `python benchmarks/large_tables.py{" --quick" * quick}`: four learning rates on three folds, scikit-learn's
`GridSearchCV` and ours with the same `KerasClassifier(hidden=(32,))`, one epoch, float32. Bold: ours as a part of
scikit-learn's. Peak is the resident memory of the whole process; the last two columns are what the search took of it
beside the table and what had been imported.

{found["processor"]}, {found["cores"]} cores, load {found["load"]:.1f}, {found["date"]}; {versions}.

| rows | columns | MB of it | batch | seconds, scikit-learn | ours | | CPU seconds, scikit-learn | ours | | peak MB, \
scikit-learn | ours | | beside, scikit-learn | ours |
| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
