"""Where the time of a search goes, and how far training is from what the arithmetic alone would take.

    python benchmarks/where_time_goes.py [--case a] [--scale 0.5]

Does the job of a case of `search.py` with kerastoolkit in this process, once with nothing known and once more, with
clocks around its parts: drawing or building networks, tracing programs, running their steps, scoring. What is left is
scikit-learn, estimators and threads, and what happens around the steps. The clocks look at names inside of
kerastoolkit that are not promised to anybody; if one is gone this program says so and wants mending.

In a search of many waves (case g) some of this goes on at the same time: fits are prepared while others are trained, so
that the parts add up to more than the whole and the rest, which is what they leave, is too small.

The arithmetic: multiply-adds of all steps of all fits (forward once, backward twice, in the first layer once) over the
rate at which this machine multiplies two large matrices.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import _contestants
from _contestants import CONTESTANTS, Case, cases, folds_of, prepare


class Clocks:
    """Time spent in named parts. A part inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._local = threading.local()

    def around(self, part: str | Callable[[], str], function: Any) -> Any:
        """The same function with a clock."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            name = part if isinstance(part, str) else part()
            inner = getattr(self._local, "inner", None)
            self._local.inner, begun = [0.0], time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begun
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._local.inner[0]
                self._local.inner = inner
                if inner is not None:
                    inner[0] += spent

        return timed


def watch(clocks: Clocks) -> None:
    """Puts the clocks around the parts of a search."""
    from kerastoolkit.training import _dense, _program, fit, fused
    from kerastoolkit.training._backends import tensorflow
    from kerastoolkit.training.network import Network

    Network.__init__ = clocks.around("weights: building models, drawing", Network.__init__)  # type: ignore[method-assign]
    Network.ready = clocks.around("finding the program", Network.ready)  # type: ignore[method-assign]
    fit.train_group = clocks.around("around the steps", fit.train_group)
    fused.draw = clocks.around("weights: building models, drawing", fused.draw)
    _contestants.right = clocks.around("scoring", _contestants.right)
    traced = tensorflow._TracedFunction
    traced.__init__ = clocks.around("tracing programs", traced.__init__)  # type: ignore[method-assign]
    run, by_xla, ran = traced.__call__, _program.Program._run_by_xla, set()
    parts = {1: "weights: building models, drawing", 3: "scoring", 5: "steps"}

    def call(program: Any, *arguments: Any) -> Any:
        """What a program is for shows in what it is given; its first call, which improves it, counts as tracing."""
        part = parts[len(arguments)] if program in ran else "tracing programs"
        ran.add(program)
        return clocks.around(part, run)(program, *arguments)

    traced.__call__ = call  # type: ignore[method-assign]
    _dense.Steps.run = clocks.around("steps", _dense.Steps.run)  # type: ignore[method-assign]
    _program.Program._run_by_xla = clocks.around("steps", by_xla)  # type: ignore[method-assign]
    of_epochs = clocks.around("tracing programs", _program.Program.of_epochs)

    def epochs(*arguments: Any, **options: Any) -> Any:
        run = of_epochs(*arguments, **options)
        return run and clocks.around("steps", run)

    _program.Program.of_epochs = epochs  # type: ignore[method-assign]


def multiply_adds(case: Case) -> float:
    """Of all fits of a case of dense layers: forward once, backward twice, the first layer once."""
    X, y = case.data()
    rows_seen = sum(len(train) for train, _ in folds_of(case, X, y)) * case.epochs
    classes = len(set(y.tolist()))
    total = 0
    for candidate in case.candidates:
        widths = [X.shape[1], *candidate["hidden"], classes]
        total += sum(3 * before * after for before, after in itertools.pairwise(widths)) - widths[0] * widths[1]
    return float(total * rows_seen)


def matmul_rate(side: int = 1024) -> float:
    """Multiply-adds a second of this machine, the best of ten products of two large matrices."""
    import tensorflow as tf

    one = tf.random.normal((side, side))
    fastest = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        float(tf.linalg.matmul(one, one)[0, 0])
        fastest = min(fastest, time.perf_counter() - begun)
    return side**3 / fastest


def main() -> int:
    known = {case.name: case for case in cases() if case.network == "mlp"}
    parser = argparse.ArgumentParser(description="Where the time of a search goes.")
    parser.add_argument("--case", default="a", choices=list(known), help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="share of candidates and epochs")
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    case = known[options.case].shrunk(options.scale)
    who = CONTESTANTS["ours"]
    prepare(who)
    X, y = case.data()
    folds = folds_of(case, X, y)
    clocks = Clocks()
    watch(clocks)
    arithmetic = multiply_adds(case)
    training = 0.0
    print(f"{case.title}\nhere: {len(case.candidates)} candidates, {case.epochs} epochs")
    for turn in ("first search in the process", "second search"):
        clocks.seconds.clear()
        begun = time.perf_counter()
        who.job(case, case.candidates, X, y, folds)
        total = time.perf_counter() - begun
        clocks.seconds["scikit-learn, estimators, threads"] = total - sum(clocks.seconds.values())
        print(f"\n{turn}: {total:.2f} s")
        for part, seconds in sorted(clocks.seconds.items(), key=lambda item: -item[1]):
            print(f"    {part:36}{seconds:8.3f} s {seconds / total:6.1%}")
        training = clocks.seconds.get("steps", 0.0)
    rate = matmul_rate()
    print(f"\nmultiply-adds of all steps: {arithmetic:.3g}; this machine: {rate:.3g} a second at best")
    print(f"arithmetic alone: {arithmetic / rate:.4f} s; the steps of the second search took {training:.2f} s,")
    print(f"{training * rate / arithmetic:.0f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
