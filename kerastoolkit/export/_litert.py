"""LiteRT (TensorFlow Lite), for phones and small devices; smaller and quicker if quantized."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._optional import require
from kerastoolkit.exceptions import ExportError, ParameterError
from kerastoolkit.export import _converting
from kerastoolkit.export import _graph as g
from kerastoolkit.export._outside import ROUNDED, by_column, cut, described, notes_of
from kerastoolkit.export._parity import EXACT, Parity, Tolerance, accepted_rows, compare, half_precision
from kerastoolkit.export._report import Report
from kerastoolkit.export._saved_model import as_texts
from kerastoolkit.export._spec import Spec
from kerastoolkit.export._subject import Subject, subject_of
from kerastoolkit.export._tensorflow import (
    SIGNATURE,
    Function,
    check_backend,
    recurrent_layers,
    write_saved_model,
)
from kerastoolkit.export._writing import replacing_file, size_of

Arrays: TypeAlias = dict[str, NDArray[Any]]
Quantize: TypeAlias = Literal["float16", "dynamic", "int8"]

SPEC, OUTSIDE = "kerastoolkit.json", "outside.json"

_MAX_UNROLLED = 128  # steps
_MAX_CALIBRATION_ROWS = 300
_MAX_ROWS = 1000
_TEXT = (g.CategoryIndex, g.IsMissing, g.Lookup, g.Reshape)  # operations on texts that LiteRT has
_WORDS = (g.TokenIds, g.WordCounts)


def litert(
    source: Any,
    path: str | Path,
    *,
    sample: Any = None,
    quantize: Quantize | None = None,
    min_agreement: float = 0.99,
    time_limit: float = 900.0,
) -> Report:
    """Writes a LiteRT (TensorFlow Lite) file.

    The file reads raw input, categories in text and gaps included, and answers labels. Words are the one thing that
    LiteRT cannot find: a file for texts takes token ids or counts of words. The file carries `kerastoolkit.json`, what
    the model takes and answers, and, where something is computed outside of it, `outside.json`, which says what: both
    are read by unpacking the file as a zip archive. A file of a network with recurrent layers takes one row at a time.

    `quantize` makes the file smaller: `"float16"` keeps weights in half precision, `"dynamic"` keeps them in int8 and
    computes in both, `"int8"` computes the networks in int8, scaled by the rows of `sample`. Figures of both files
    stand side by side in the report.

    Example:

    >>> report = litert(estimator, "digits.tflite", sample=X_test, quantize="int8")  # doctest: +SKIP
    >>> report.quantization["int8"].agreement  # doctest: +SKIP
    1.0

    Args:
        source: A fitted estimator, a scikit-learn pipeline or search around one, an experiment or a Keras model.
        path: Where to write. A file that is there is replaced once the new one is right.
        sample: Rows as the model takes them, which the answers of the file are compared for; `"int8"` needs them.
            Defaults to `None`: typical rows, made up from what the model knows.
        quantize: `"float16"`, `"dynamic"` or `"int8"`. Defaults to `None`: float32, and the answers of the model.
        min_agreement: With `quantize`, the fraction of the rows of `sample` for which the file has to answer the label
            that the model answers; for numbers, R2 of its answers against the model's. Defaults to `0.99`.
        time_limit: Seconds after which the conversion is given up. Defaults to `900.0`.

    Returns:
        What was written, and how well it answers as the model.

    Raises:
        ExportError: The model cannot be written, its answers differ, too few of them agree, the converter failed, or
            Keras runs on another backend than TensorFlow. Nothing was written.
        ParameterError: An argument is not allowed, or `"int8"` was asked for without a `sample`.
        MissingPackageError: ai-edge-litert, which runs the file for the comparison, is not installed.
    """
    _check(quantize, min_agreement, sample)
    check_backend("A LiteRT file")
    require("ai_edge_litert")
    subject = subject_of(source)
    path = Path(path)
    parts = cut(by_column(subject.graph), _can_in_int8 if quantize == "int8" else _can)
    half = half_precision(subject.graph)
    one_row = any(recurrent_layers(model) for model in subject.graph.networks)
    with replacing_file(path, ".tflite") as temporary:
        arrays = accepted_rows(subject) if sample is None else subject.spec.arrays(subject.read(sample))
        arrays = {name: array[:_MAX_ROWS] for name, array in arrays.items()}
        folder = temporary.parent
        function = Function(
            parts.inside, single=True, unroll=quantize == "int8" and one_row, apart=quantize is not None
        )
        if function.unroll:
            _check_steps(parts.inside)
        write_saved_model(function, folder / _converting.MODEL, rows=1 if one_row else None)
        _convert(folder, quantize, parts, arrays, time_limit)
        exact = File((folder / _converting.FLOAT32).read_bytes(), parts, subject.spec)
        if quantize is None:
            run, made, tolerance = exact, folder / _converting.FLOAT32, half or ROUNDED
            figures: dict[str, Quantized] = {}
        else:
            what = "The LiteRT file in float32, from which the smaller one is made,"
            compare(subject, exact, sample, tolerance=half or ROUNDED, what=what)
            made = folder / _converting.QUANTIZED
            run = File(made.read_bytes(), parts, subject.spec)
            figures = {"float32": _measured(subject, exact, arrays), quantize: _measured(subject, run, arrays)}
            tolerance = _agreeing(min_agreement)
            _check_agreement(quantize, figures[quantize].agreement, min_agreement)
        parity = compare(subject, run, sample, tolerance=tolerance, what="The LiteRT file")
        if tolerance.min_agreement < 1:  # the rows that were made up only have to have an answer
            parity = dataclasses.replace(parity, differences=figures[str(quantize)].differences)
        notes = _notes(subject, parts, one_row, quantize, figures)
        spec = _spec_of(subject.spec, parity, figures, notes)
        os.replace(made, temporary)
        _append(temporary, spec, parts)
        n_bytes = size_of(temporary)
    return Report(path, "litert", n_bytes, parity, spec, notes, figures)


def _agreeing(least: float) -> Tolerance:
    """Labels are compared, and numbers are not (`_check_agreement` did); 1.0 would mean the opposite."""
    largest = float(np.finfo("float64").max)
    return EXACT._replace(numbers=largest, min_agreement=min(least, float(np.nextafter(1.0, 0.0))))


def _notes(
    subject: Subject, parts: g.Parts, one_row: bool, quantize: str | None, figures: Mapping[str, Quantized]
) -> tuple[str, ...]:
    notes = [*subject.notes, *notes_of(parts)]
    if one_row:
        notes.append("The file takes one row at a time, since it has a recurrent layer.")
    if quantize is not None and figures[quantize].n_bytes >= figures["float32"].n_bytes:
        notes.append(f"`quantize={quantize!r}` saves nothing here: no layer is large enough.")
    return tuple(notes)


def _check(quantize: str | None, min_agreement: float, sample: Any) -> None:
    if quantize is not None and quantize not in get_args(Quantize):
        raise ParameterError(f"`quantize` must be None, 'float16', 'dynamic' or 'int8'; got {quantize!r}.")
    if not 0 <= min_agreement <= 1:
        raise ParameterError(f"`min_agreement` must be a fraction from 0 to 1; got {min_agreement!r}.")
    if quantize == "int8" and sample is None:
        raise ParameterError(
            "`quantize='int8'` needs `sample`: a hundred rows or more as the model takes them, whose values give int8 "
            "its scale. 'float16' and 'dynamic' do without."
        )


def _check_steps(graph: g.Graph) -> None:
    for model in graph.networks:
        for layer in recurrent_layers(model):
            steps = _steps_of(layer)
            if steps is None or steps > _MAX_UNROLLED:
                raise ExportError(
                    f"{layer.name!r} reads {steps or 'any number of'} steps, and recurrent layers in int8 are written "
                    f"for at most {_MAX_UNROLLED} of them, and for a number that is known. "
                    "Give `quantize='dynamic'`, which has no such limit."
                )


def _steps_of(layer: Any) -> int | None:
    built: Mapping[str, Any] = layer.get_build_config() or {}
    shape = built.get("input_shape") or next(iter(built.get("shapes_dict", {}).values()), (None, None))
    steps: int | None = (shape[0] if isinstance(shape[0], (list, tuple)) else shape)[1]
    return steps


# -- what LiteRT can compute ----------------------------------------------------------------------------------------


def _can(node: g.Node) -> bool:
    if isinstance(node.operation, _WORDS):
        return False
    of_text = any(value.dtype == "string" for value in (*node.inputs, *node.outputs))
    return not of_text or isinstance(node.operation, _TEXT)


def _can_in_int8(node: g.Node) -> bool:
    """Rows that scale a file in int8 may not hold texts: TensorFlow gets shapes behind its tables wrong then."""
    return _can(node) and not any(value.dtype == "string" for value in node.inputs)


# -- conversion -----------------------------------------------------------------------------------------------------


def _convert(folder: Path, quantize: str | None, parts: g.Parts, arrays: Arrays, time_limit: float) -> None:
    """Lets a process of its own convert, which may crash.

    Raises:
        ExportError: It failed, crashed, or took too long.
    """
    names = [value.name for value in parts.inside.inputs]
    request = {"quantize": quantize, "inputs": names}
    (folder / _converting.REQUEST).write_text(json.dumps(request), encoding="utf-8")
    if quantize == "int8":
        few = {name: array[:_MAX_CALIBRATION_ROWS] for name, array in arrays.items()}
        known = {**few, **parts.before.compute(few)}
        rows = {f"input_{place}": _storable(known[name]) for place, name in enumerate(names)}
        np.savez(folder / _converting.ROWS, **rows)  # type: ignore[arg-type]
    command = [sys.executable, "-m", _converting.__name__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=time_limit, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"TensorFlow's converter to LiteRT did not end within {time_limit:g} s. Give it more (`time_limit`), or "
            "export to ONNX."
        ) from None
    if done.returncode:
        raise ExportError(_why(done.returncode, done.stderr, quantize))


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == object:
        return array.astype(str)
    return array.astype("float32") if array.dtype == np.float64 else array


def _why(code: int, errors: str, quantize: str | None) -> str:
    """A message for a converter that failed."""
    way = "`quantize=None` or 'dynamic' may do, and ONNX holds it." if quantize == "int8" else "ONNX may hold it."
    if code < 0:
        name = signal.Signals(-code).name
        return f"TensorFlow's converter to LiteRT crashed on this model ({name}). Nothing was written. {way}"
    missing = re.findall(r"(?:Flex ops|Custom ops): ([\w, ]+)", errors) or re.findall(
        r"'(tf\.\w+)' op is neither", errors
    )
    if missing:
        operations = missing[0].replace("Flex", "")
        return f"LiteRT has no operation for {operations} of TensorFlow, which the model needs. {way}"
    last = [line for line in errors.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)] or ["no message"]
    return f"TensorFlow's converter to LiteRT failed: {last[-1][:300]}. {way}"


# -- the file -------------------------------------------------------------------------------------------------------


class File:
    """The answers of a LiteRT file, with what is computed around it.

    Args:
        content: The file.
        parts: What is computed outside.
        spec: What the whole takes and answers.
    """

    def __init__(self, content: bytes, parts: g.Parts, spec: Spec) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.parts, self.spec, self.n_bytes = parts, spec, len(content)
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._run = self._interpreter.get_signature_runner(SIGNATURE)
        details = self._run.get_input_details()
        self._dtypes = {name: np.dtype(one["dtype"]) for name, one in details.items()}
        self._one_row = any(one["shape_signature"][0] == 1 for one in details.values())

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        made = self.parts.compute(arrays, self.run)
        found = {one.name: as_texts(np.asarray(made[one.name])) for one in self.spec.outputs}
        return {one.name: _in_dtype(found[one.name], one.dtype) for one in self.spec.outputs}

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """Answers of the file itself."""
        given = {name: self._in_file(name, array) for name, array in arrays.items()}
        n_rows = len(next(iter(given.values())))
        if not self._one_row:
            return self._once(given)
        rows = [self._once({name: array[row : row + 1] for name, array in given.items()}) for row in range(n_rows)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _once(self, given: Arrays) -> Arrays:
        try:
            made = self._run(**given)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"The LiteRT runtime cannot run the file: {error}") from error
        return {name: as_texts(np.array(array)) for name, array in made.items()}

    def _in_file(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        return array if array.dtype == object else array.astype(self._dtypes[name])


def _in_dtype(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    return array if dtype == "string" else array.astype(dtype)


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Figures of a file.

    Attributes:
        n_bytes: Size.
        ms_per_row: CPU milliseconds for a row alone, on this machine.
        agreement: Fraction of the rows with the label of the model; for numbers R2 against the model's.
        differences: By output, the largest difference of a probability; of a number, in standard deviations of the
            model's answers.
    """

    n_bytes: int
    ms_per_row: float
    agreement: float
    differences: Mapping[str, float]

    def __str__(self) -> str:
        parts = [f"{name} within {value:.1e}" for name, value in self.differences.items()]
        figures = f"{self.n_bytes:,} bytes, {self.ms_per_row:.3f} ms a row, agreement {self.agreement:.2%}"
        return ", ".join([figures, *parts])


def _measured(subject: Subject, file: File, arrays: Arrays) -> Quantized:
    expected, made = subject.predict(subject.rows(arrays)), file(arrays)
    agreements, differences = [], {}
    has_labels = any(one.kind in ("label", "labels") for one in subject.spec.outputs)
    for one in subject.spec.outputs:
        want, have = np.asarray(expected[one.name]), made[one.name]
        if one.kind in ("label", "labels"):
            agreements.append(float((want == have).reshape(len(want), -1).all(axis=1).mean()))
            continue
        want, have = want.astype("float64"), have.astype("float64")
        spread = 1.0 if one.kind == "probabilities" else float(want.std()) or 1.0
        difference = np.abs(have - want) / spread
        differences[one.name] = float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0))
        if not has_labels or one.kind == "number":
            agreements.append(_r2(want, have))
    return Quantized(file.n_bytes, _cpu_time(file, arrays), min(agreements), differences)


def _r2(want: NDArray[Any], have: NDArray[Any]) -> float:
    """The smallest R2 of a column; 0 for a column without spread that is not met."""
    error, variance = ((have - want) ** 2).mean(axis=0), want.var(axis=0)
    with np.errstate(all="ignore"):
        r2 = np.where(error == 0, 1.0, np.where(variance == 0, 0.0, 1 - error / variance))
    return float(np.min(np.nan_to_num(r2, nan=-np.inf)))


def _cpu_time(file: File, arrays: Arrays, repeats: int = 30) -> float:
    known = {**arrays, **file.parts.before.compute(arrays)}
    row = {value.name: known[value.name][:1] for value in file.parts.inside.inputs}
    file.run(row)
    start = time.process_time()
    for _ in range(repeats):
        file.run(row)
    return (time.process_time() - start) / repeats * 1000


def _check_agreement(quantize: str, agreement: float, least: float) -> None:
    if not agreement >= least:
        way = "Try `quantize=None`, or a lower" if quantize == "float16" else "Try 'float16', or a lower"
        raise ExportError(
            f"The file with `quantize={quantize!r}` agrees with the model for {agreement:.2%} of the rows of `sample`, "
            f"and `min_agreement` asks for {least:.2%}. Nothing was written. {way} `min_agreement`."
        )


def _spec_of(spec: Spec, parity: Parity, figures: Mapping[str, Quantized], notes: tuple[str, ...]) -> Spec:
    """The spec of the file, which has no float64."""
    report: dict[str, Any] = {**parity.to_dict(), "notes": list(notes)}
    if figures:
        report["quantization"] = {name: dataclasses.asdict(one) for name, one in figures.items()}
    inputs = tuple(dataclasses.replace(one, dtype=_single(one.dtype)) for one in spec.inputs)
    outputs = tuple(dataclasses.replace(one, dtype=_single(one.dtype)) for one in spec.outputs)
    return dataclasses.replace(spec, inputs=inputs, outputs=outputs, report=report)


def _single(dtype: str) -> str:
    return "float32" if dtype == "float64" else dtype


def _append(path: Path, spec: Spec, parts: g.Parts) -> None:
    """Puts the spec behind the model, as a zip archive, which is where files of TensorFlow Lite carry others."""
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(SPEC, spec.to_json())
        if parts.before.nodes or parts.behind.nodes:
            file.writestr(OUTSIDE, json.dumps(described(parts), ensure_ascii=False))
