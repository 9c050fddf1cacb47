"""How long `import kerastoolkit` and `kerastoolkit --help` take, beside the packages they do not load.

    python benchmarks/import_time.py [--repeat N]

Each is timed in fresh processes; the best of N counts, since whatever else the machine does only adds to it. The start
of Python itself is measured too, and counted for the command, which a user waits for as a whole, but not for the
import. The exit status is 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

LIMITS = {"import kerastoolkit": 0.3, "kerastoolkit --help": 0.5}  # seconds

HELP = "import sys; from kerastoolkit.cli import main; sys.exit(main(['--help']))"


def best_time(program: str, repeat: int) -> float:
    """Runs a program `repeat` times, each in a new Python, and returns the shortest time in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of importing kerastoolkit, and of its help.")
    parser.add_argument("--repeat", type=int, default=5, help="fresh processes for each line (default: %(default)s)")
    repeat = parser.parse_args().repeat

    python = best_time("pass", repeat)
    seconds = {
        "import kerastoolkit": best_time("import kerastoolkit", repeat) - python,
        "kerastoolkit --help": best_time(HELP, repeat),
        "import sklearn.pipeline": best_time("import sklearn.pipeline", repeat) - python,
        "import pandas": best_time("import pandas", repeat) - python,
        "import keras": best_time("import keras", repeat) - python,
    }
    print(f"{'best of ' + str(repeat):26}{'seconds':>9}{'limit':>8}")
    for what, taken in seconds.items():
        print(f"{what:26}{taken:9.3f}{LIMITS.get(what, ''):>8}")
    return int(any(seconds[what] > limit for what, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
