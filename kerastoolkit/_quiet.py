"""TensorFlow, started without its chatter.

`TF_CPP_MIN_LOG_LEVEL=3` asks TensorFlow for fatal errors only. TensorFlow 2.20 obeys; 2.21 writes half a dozen lines
while it loads all the same, since they come before its log exists, and writes them past `sys.stderr` to the standard
error of the process. Who imports TensorFlow, and when, cannot be known: Keras does on its TensorFlow backend, and on
the others when it first saves a model. So we join in where Python looks for the package, and hold the stream back for
the seconds that it takes to load; what is no chatter is written to it afterwards. `TF_CPP_MIN_LOG_LEVEL=0` shows
everything again.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# How TensorFlow logs, in its new form and in its old one (I, W, E: information, warning, error; F, fatal, stays), and
# the line with which it opens.
_CHATTER = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:\d+\.\d+ "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    rb"|WARNING: All log messages before absl::InitializeLog\(\)"
)
_STDERR = 2


def quieten_tensorflow() -> None:
    """Lets TensorFlow load in silence in this process, unless the user has chosen a log level."""
    # TensorFlow looks at it only once, when it loads.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.meta_path.insert(0, _QuietTensorFlow())


class _QuietTensorFlow:
    """Finds TensorFlow where Python would, and loads it without its chatter; an entry of `sys.meta_path`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow" or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        load = loader.exec_module

        def load_in_silence(module: ModuleType) -> None:
            with _without_chatter():
                load(module)

        loader.exec_module = load_in_silence  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back the standard error of the process; when the block ends, all but the chatter is written to it."""
    import tempfile  # half of what importing kerastoolkit would cost, and few processes get here

    try:
        stderr = os.dup(_STDERR)
    except OSError:  # there is none, as in a Windows program without a console
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(_STDERR, line)
