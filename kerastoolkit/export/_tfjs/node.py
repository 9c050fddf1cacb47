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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError

INSTALL = "npm install @tensorflow/tfjs"
_PACKAGE = Path("@tensorflow", "tfjs")
_RUNNER = Path(__file__).with_name("in_node.js")
_SECONDS = 120  # for one answer: a large network takes seconds for a batch of images in plain JavaScript
_BATCH = 2**17  # numbers that are sent at once


class Node(NamedTuple):
    """Node with TensorFlow.js.

    Attributes:
        program: Node.
        package: The folder of the package @tensorflow/tfjs.
    """

    program: str
    package: Path


def find_node() -> Node | None:
    """Node and the package @tensorflow/tfjs, if both are there; None otherwise.

    The package is looked for in the folder `node_modules` of the working directory and in those of NODE_PATH, and not,
    as Node does, in all folders above: what is in /tmp, say, may be anybody's.
    """
    program = shutil.which("node")
    folders = [Path.cwd() / "node_modules"]
    folders += [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder]
    packages = [folder / _PACKAGE for folder in folders if (folder / _PACKAGE / "package.json").is_file()]
    return Node(program, packages[0].absolute()) if program is not None and packages else None


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
def running(found: Node, folder: Path) -> Iterator[NodeModel]:
    """A block with an exported folder at work in Node.

    Raises:
        ExportError: TensorFlow.js cannot load it.
    """
    with subprocess.Popen(
        [found.program, str(_RUNNER), str(folder.absolute()), str(found.package)],
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
