"""Runs an exported folder in Node, by the JavaScript that runs in browsers, where Node and TensorFlow.js are there."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError

INSTALL = "npm install @tensorflow/tfjs"
_PACKAGE = Path("@tensorflow", "tfjs", "package.json")
_RUNNER = Path(__file__).with_name("in_node.js")
_SECONDS = 120  # for one answer: a large network takes seconds for a batch of images in plain JavaScript
_BATCH = 2**20  # numbers that are sent at once


def find_node() -> str | None:
    """The program, if it and the package @tensorflow/tfjs are found as Node finds them; None otherwise."""
    here = Path.cwd()
    folders = [folder / "node_modules" for folder in (here, *here.parents)]
    folders += [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder]
    return shutil.which("node") if any((folder / _PACKAGE).is_file() for folder in folders) else None


class NodeModel:
    """A folder at work in Node. `running` starts one.

    Attributes:
        version: Of TensorFlow.js.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version: str = self._answer()["tfjs"]

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answers by output, for arrays by input.

        Raises:
            ExportError: The JavaScript raises an error, ends, or takes too long.
        """
        n = len(next(iter(arrays.values())))
        step = max(_BATCH * n // max(sum(array.size for array in arrays.values()), 1), 1)
        parts = [
            self._run({name: array[start : start + step] for name, array in arrays.items()})
            for start in range(0, max(n, 1), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        line = json.dumps({name: _encoded(array) for name, array in arrays.items()})
        return {name: _decoded(one) for name, one in self._answer(line)["answers"].items()}

    def _answer(self, line: str | None = None) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ExportError("Node was started without pipes.")
        timer = threading.Timer(_SECONDS, self._process.kill)
        timer.start()
        try:
            if line is not None:
                stdin.write(f"{line}\n")
                stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            raise ExportError(
                f"TensorFlow.js in Node ended, or gave no answer within {_SECONDS} seconds. Nothing was written."
            )
        made: dict[str, Any] = json.loads(answer)
        if "error" in made:
            raise ExportError(f"TensorFlow.js cannot run the export: {made['error']}. Nothing was written.")
        return made


@contextlib.contextmanager
def running(program: str, folder: Path) -> Iterator[NodeModel]:
    """A block with an exported folder at work in Node.

    Raises:
        ExportError: TensorFlow.js cannot load it.
    """
    with subprocess.Popen(
        [program, str(_RUNNER), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield NodeModel(process)
        finally:
            process.kill()


def _encoded(array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype.kind in "OU":
        return {"shape": array.shape, "text": array.ravel().tolist()}
    return {"shape": array.shape, "numbers": base64.b64encode(array.astype("<f8").tobytes()).decode()}


def _decoded(one: Mapping[str, Any]) -> NDArray[Any]:
    if "text" in one:
        made = np.empty(len(one["text"]), object)
        made[:] = one["text"]
        return made.reshape(one["shape"])
    return np.frombuffer(base64.b64decode(one["numbers"]), "<f8").reshape(one["shape"])
