"""A folder for TensorFlow.js: the network, what stands before and behind it, and a page that predicts.

topology.py     a network as a "layers model"; layers.py has the rule for each layer
networks.py     model.json and the shards of weights, written and read back
operations.py   the graph around the networks as JSON
page/           what the folder gets: kerastoolkit.js computes the graph, index.html is a form made from the spec
node.py         the folder at work in Node, to compare it
ml5.py          three files for `ml5.neuralNetwork().load`
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._values import shown
from kerastoolkit.exceptions import ExportError, ParameterError, SavedFileError
from kerastoolkit.export._parity import EXACT, FLOAT16, Parity, Tolerance, accepted_rows, compare
from kerastoolkit.export._report import Report
from kerastoolkit.export._spec import Spec
from kerastoolkit.export._subject import Subject, subject_of
from kerastoolkit.export._tfjs import ml5 as ml5_files
from kerastoolkit.export._tfjs import node, operations
from kerastoolkit.export._tfjs.networks import GENERATED_BY, Precision, WrittenNetwork, put_together

__all__ = ["tfjs"]

_PAGE = Path(__file__).parent / "page"
_CONTENT = "kerastoolkit.json"
_CHECKED_ROWS, _CHECKED_NUMBERS = 8, 200_000


def tfjs(
    source: Any, folder: str | Path, *, sample: Any = None, dtype: Precision = "float32", ml5: bool = False
) -> Report:
    """Writes a folder for TensorFlow.js, and a page that predicts in any browser.

    The folder takes raw input to labels. `index.html` in it is a form made from what the model takes; your own page
    loads `kerastoolkit.js` and calls `await kerastoolkit.load("folder/")`, then `predict(rows)` and
    `predictProba(rows)`. Nothing leaves the visitor's device. The page loads TensorFlow.js from a content delivery
    network, or from a file `tf.es2017.min.js` beside it if there is one.

    Where Node and the package @tensorflow/tfjs are installed (in `node_modules` of the working directory, or by
    NODE_PATH), the folder is compared by running it there. Where they are not, its files are read back
    and compared in Python, and a note of the report says so. The page compares itself, too, whenever it is opened.

    Example:

    >>> tfjs(classifier, "web/", sample=X)  # doctest: +SKIP

    Args:
        source: A fitted estimator; a pipeline or search of scikit-learn around one; an experiment; or a Keras model.
        folder: The folder to write, with its parents. An earlier export in it is replaced; files of yours beside it,
            such as `tf.es2017.min.js`, stay.
        sample: Rows to compare with, as the model takes them. Defaults to `None`: rows made up from what the model
            knows. No row of them is written.
        dtype: `"float32"`, or `"float16"` for files of half the size, whose probabilities differ by up to 5e-3; what is
            divided by, such as moving variances, stays in float32. Defaults to `"float32"`.
        ml5: Whether to write the three files that `ml5.neuralNetwork().load` takes, instead. That is possible for
            dense networks on a table of numbers. Defaults to `False`.

    Returns:
        What was written, and how it was compared.

    Raises:
        ExportError: TensorFlow.js cannot hold the model, or the folder answers unlike it, or `folder` holds other
            files; nothing was written. The message names the layer or step, and the format that can.
        ParameterError: `dtype` is none of the two.
    """
    if dtype not in ("float32", "float16"):
        raise ParameterError(f"`dtype` must be 'float32' or 'float16'; got {shown(dtype)}.")
    folder = Path(folder).absolute()
    _check_folder(folder)
    subject = subject_of(source)
    return _write(ml5_files.subject_for_ml5(subject) if ml5 else subject, folder, sample, dtype, ml5)


def _write(subject: Subject, folder: Path, sample: Any, dtype: Precision, ml5: bool) -> Report:
    operations.check(subject.graph)
    models = subject.graph.networks
    names = ["model.json", *(f"model_{number}.json" for number in range(2, len(models) + 1))]
    written = [WrittenNetwork(model, name) for model, name in zip(models, names, strict=False)]
    graph = operations.to_json(subject.graph, [(one.name, one.dtypes) for one in written])
    if ml5 and any(one.has_own_layers for one in written):
        ml5_files.refuse("its network has layers that only kerastoolkit.js knows")
    tolerance = FLOAT16 if dtype == "float16" else EXACT
    if any(one.has_exponential for one in written):
        # It multiplies what is rounded before it: by up to 88, of which float32 keeps seven digits.
        tolerance = tolerance._replace(numbers=max(tolerance.numbers, 1e-4))
    checked = _checked_rows(subject, tolerance)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        made = Path(place, "made")
        shutil.copytree(_PAGE, made)
        for one in written:
            one.write(made, dtype)
        _write_content(made, graph, subject.spec, checked)
        parity, notes = _compare(subject, made, written, sample, tolerance)
        spec = dataclasses.replace(subject.spec, report={"parity": parity.to_dict()})
        if ml5:
            made = _only_ml5(made, Path(place, "ml5"), spec)
        else:
            _write_content(made, graph, spec, checked)
        n_bytes = sum(path.stat().st_size for path in made.iterdir())
        replace_folder(made, folder)
    notes += _notes(written, spec.task, ml5)
    return Report(folder, "tfjs", n_bytes, parity, spec, (*subject.notes, *notes))


def _only_ml5(made: Path, folder: Path, spec: Spec) -> Path:
    """The files of ml5 of an export, in a folder of their own."""
    folder.mkdir()
    put_together(made / "model.json", folder / "model.json", ml5_files.WEIGHTS)
    ml5_files.write_meta(folder, spec)
    return folder


def _notes(written: list[WrittenNetwork], task: str, ml5: bool) -> list[str]:
    if ml5:
        return [
            "In a page: ml5.setBackend('cpu'); const nn = ml5.neuralNetwork({task: '"
            f"{task}'}}); await nn.load({{model: 'model.json', metadata: 'model_meta.json', weights: "
            "'model.weights.bin'}). No value may be missing."
        ]
    notes = []
    if any(one.has_own_layers for one in written):
        notes.append("model.json has layers that kerastoolkit.js registers: load the folder by `kerastoolkit.load`.")
    notes.append(
        "Open the page through a web server, such as `python -m http.server`. It loads TensorFlow.js from "
        "cdn.jsdelivr.net, or from tf.es2017.min.js beside index.html if that file is there."
    )
    return notes


def _write_content(folder: Path, graph: Mapping[str, Any], spec: Spec, checked: Mapping[str, Any]) -> None:
    content = {"format": 1, "spec": json.loads(spec.to_json()), "graph": graph, "check": checked}
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    (folder / _CONTENT).write_text(text, encoding="utf-8")


# -- the comparison -------------------------------------------------------------------------------------------------


def _compare(
    subject: Subject, folder: Path, written: list[WrittenNetwork], sample: Any, tolerance: Tolerance
) -> tuple[Parity, list[str]]:
    found = node.find_node()
    if found is not None:
        with node.running(found, folder) as model:
            parity = compare(subject, model.run, sample, tolerance=tolerance, what="The folder for TensorFlow.js")
            return parity, [f"Compared by TensorFlow.js {model.version} in Node."]
    content = json.loads((folder / _CONTENT).read_text(encoding="utf-8"))
    graph = operations.from_json(content["graph"], {one.name: one.read(folder) for one in written})
    parity = compare(subject, graph.compute, sample, tolerance=tolerance, what="The folder for TensorFlow.js")
    return parity, [
        "TensorFlow.js was not run: the files were read back and compared in Python, and the page compares itself when "
        f"it is opened. To compare in TensorFlow.js now, install Node, and the package by: {node.INSTALL}"
    ]


def _checked_rows(subject: Subject, tolerance: Tolerance) -> dict[str, Any]:
    """Made-up rows with the model's answers, by which the page compares itself."""
    rows = accepted_rows(subject, _CHECKED_ROWS)
    n_rows = max(1, min(_CHECKED_ROWS, _CHECKED_NUMBERS * _CHECKED_ROWS // sum(one.size for one in rows.values())))
    rows = {name: array[:n_rows] for name, array in rows.items()}
    answers = subject.predict(subject.rows(rows))
    kept = _decided(subject, answers)
    rows, answers = ({name: array[kept] for name, array in part.items()} for part in (rows, answers))
    return {
        "rows": {name: operations.array_to_json(array) for name, array in rows.items()},
        "answers": {name: operations.array_to_json(np.asarray(answers[name])) for name in subject.graph.outputs},
        # Graphics cards round otherwise than processors.
        "tolerance": 10 * tolerance.probabilities,
    }


def _decided(subject: Subject, answers: Mapping[str, NDArray[Any]]) -> NDArray[np.intp]:
    """Rows no label of which hangs by a thread; all rows if there are none."""
    gap = np.full(len(next(iter(answers.values()))), np.inf)
    for one in subject.spec.outputs:
        if one.kind == "probabilities":
            p = np.asarray(answers[one.name])
            top = np.sort(p, axis=-1)
            between = top[..., -1] - top[..., -2] if p.shape[-1] > 1 else np.ones(len(p))
            gap = np.minimum(gap, np.minimum(between, np.abs(p - 0.5).min(axis=-1)))
    kept = np.flatnonzero(gap > 0.02)
    return kept if len(kept) else np.arange(len(gap))


# -- the folder -----------------------------------------------------------------------------------------------------


def _check_folder(folder: Path) -> None:
    """Refuses a folder that holds other files than an earlier export."""
    if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
        raise ExportError(f"`folder` is {str(folder)!r}, which holds other files. Give a new folder.")
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"`folder` is {str(folder)!r}, which is a file.")


def _is_export(folder: Path) -> bool:
    """Whether we wrote the network in a folder."""
    path = folder / "model.json"
    try:
        content = _files.read_json(_files.read_small(path), path.name) if path.is_file() else None
    except SavedFileError:
        return False
    return isinstance(content, dict) and content.get("generatedBy") == GENERATED_BY


def replace_folder(made: Path, folder: Path) -> None:
    """Puts a new folder in the place of an earlier export; files of the user's in that are kept."""
    if not folder.exists():
        made.rename(folder)
        return
    for path in folder.iterdir():
        if not (made / path.name).exists() and not _is_ours(path):
            shutil.copytree(path, made / path.name) if path.is_dir() else shutil.copy2(path, made / path.name)
    old = made.with_name("old")
    folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def _is_ours(path: Path) -> bool:
    named = path.name.startswith("model") and path.suffix in (".json", ".bin")
    return path.is_file() and (named or path.name == _CONTENT)
