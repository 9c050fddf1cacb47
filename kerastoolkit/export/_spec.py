"""What an exported file takes and answers, in words that its user knows: names, types, categories, labels.

The spec travels inside of every exported file as JSON, and is all that a runtime, a server or a web page needs beside
the graph. It knows neither Keras nor scikit-learn nor pandas. A file may come from anybody, so that `Spec.from_json`
trusts nothing in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from kerastoolkit import _files
from kerastoolkit._values import shown
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import DataError, SavedFileError

InputKind: TypeAlias = Literal["number", "category", "text", "image", "array"]
OutputKind: TypeAlias = Literal["label", "labels", "probabilities", "number", "raw"]

FORMAT = 1
_LARGEST = float(np.finfo("float32").max)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One raw input.

    Args:
        name: As users know it: the name of a column, or `"X"`, `"text"`, `"image"`.
        kind: `"number"` and `"category"` are columns of a table, one value a row; `"text"` is one text a row, `"image"`
            pixels of shape `(height, width, channels)`, `"array"` numbers of any shape.
        dtype: Type in the file: `"float32"`, `"float64"`, `"int32"`, `"int64"`, `"uint8"` or `"string"`.
        shape: Of a row: `()` for a column or a text. None for a size that may differ.
        features: Names of the columns of an `"array"` of shape `(n_features,)`. Defaults to `()`: they have none.
        categories: Known values of a `"category"`, texts or numbers. Defaults to `()`.
        may_be_missing: Whether a value may be missing: None, NaN or `""`. `""` is one of the categories where the model
            learned it, and then nothing may be missing. Defaults to `False`.
        minimum: A number at the lower end of what is usual. Defaults to `None`: not known.
        maximum: A number at the upper end of what is usual. Defaults to `None`: not known.
        example: A typical value (a mean, the first category, ...), as JSON has it: no row of anybody's. Defaults to
            `None`.
    """

    name: str
    kind: InputKind
    dtype: str
    shape: tuple[int | None, ...] = ()
    features: tuple[str, ...] = ()
    categories: tuple[Any, ...] = ()
    may_be_missing: bool = False
    minimum: float | None = None
    maximum: float | None = None
    example: Any = None

    @property
    def is_column(self) -> bool:
        """Whether it is a column of a table."""
        return self.kind in ("number", "category")


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """One answer.

    Args:
        name: In the file: `"label"`, `"probabilities"`, `"prediction"`, with the name of the target in front where
            there are several, such as `"age_prediction"`.
        kind: `"label"`: one label a row; `"labels"`: for each label whether the row has it, int64; `"probabilities"`:
            one a class; `"number"`; `"raw"`: what a plain Keras model puts out.
        dtype: As for inputs.
        shape: Of a row.
        classes: Labels, in the order of the probabilities. Defaults to `()`.
        target: Name of the target, where there are several. Defaults to `None`.
    """

    name: str
    kind: OutputKind
    dtype: str
    shape: tuple[int | None, ...] = ()
    classes: tuple[Any, ...] = ()
    target: str | None = None


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a file takes and answers.

    Args:
        name: What the model is called, such as the name of the class of its estimator.
        task: `"classification"`, `"regression"`, `"transformation"` or `"unknown"` (a plain Keras model).
        inputs: In the order of the file.
        outputs: In the order of the file.
        versions: Of the packages that wrote the file, by name. Defaults to none.
        report: What the comparison found when the file was made (`Parity.to_dict()`), and further facts. Defaults to
            none.
    """

    name: str
    task: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_table(self) -> bool:
        """Whether the inputs are the columns of a table."""
        return all(one.is_column for one in self.inputs)

    def output(self, kind: str) -> OutputSpec | None:
        """The first output of a kind; None if there is none."""
        return next((one for one in self.outputs if one.kind == kind), None)

    # -- rows -----------------------------------------------------------------------------------------------------

    def arrays(self, X: Any) -> dict[str, NDArray[Any]]:
        """Rows as the arrays that the file takes.

        Args:
            X: A table (pandas, polars), a dict of columns or a list of dicts; for a single input an array, which may be
                sparse, or a list of rows; for several inputs a dict of arrays by name, or a list of them.

        Returns:
            Arrays by the names of the inputs, `n` rows each.

        Raises:
            DataError: A column is missing, or a value is of another kind, infinite, too large or missing where
                none may be; the message names row and column.
        """
        columns = self._by_input(X)
        arrays = {one.name: _array_of(one, columns[one.name]) for one in self.inputs}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"The inputs have different numbers of rows: {lengths}.")
        return arrays

    def _by_input(self, X: Any) -> Mapping[str, Any]:
        named = all(isinstance(one.name, str) for one in self.inputs)
        if isinstance(X, Mapping) and named:
            columns: Mapping[str, Any] = X
        elif hasattr(X, "columns") and hasattr(X, "to_dict"):
            columns = _columns_of(X)
        elif isinstance(X, Sequence) and X and all(isinstance(row, Mapping) for row in X):
            self._refuse_unknown({str(name) for row in X for name in row})
            names = self.inputs[0].features if self._is_one_array_of_features else [one.name for one in self.inputs]
            columns = {name: [row.get(name, _ABSENT) for row in X] for name in names}
        elif self._are_listed(X):
            return {one.name: part for one, part in zip(self.inputs, X, strict=True)}
        elif self.is_table and np.ndim(rows := np.asarray(X, dtype=object)) == 2 and rows.shape[1] == len(self.inputs):
            return {one.name: rows[:, place] for place, one in enumerate(self.inputs)}
        elif len(self.inputs) == 1 and not isinstance(X, str):
            return {self.inputs[0].name: X}
        else:
            names_of = ", ".join(repr(one.name) for one in self.inputs)
            raise DataError(
                f"X must be a table, a dict or a list of dicts with the inputs {names_of}; got {type(X).__name__}."
            )
        if self._is_one_array_of_features and self.inputs[0].name not in columns:
            features = self.inputs[0].features
            self._refuse_missing(columns, features)
            whole = self.inputs[0]
            parts = [
                _array_of(InputSpec(name, "number", whole.dtype, may_be_missing=whole.may_be_missing), columns[name])
                for name in features
            ]
            return {whole.name: np.stack(parts, axis=1)}
        self._refuse_missing(columns, [one.name for one in self.inputs])
        return columns

    def _are_listed(self, X: Any) -> bool:
        """Whether X lists an array for each of several inputs."""
        several = isinstance(X, (list, tuple)) and len(X) == len(self.inputs) > 1 and not self.is_table
        return several and all(getattr(part, "ndim", 0) > 0 for part in X)

    @property
    def _is_one_array_of_features(self) -> bool:
        return len(self.inputs) == 1 and len(self.inputs[0].features) > 0

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns of a row: of the features where the only input is an array of them."""
        return self.inputs[0].features if self._is_one_array_of_features else tuple(one.name for one in self.inputs)

    def _refuse_missing(self, columns: Mapping[str, Any], names: Sequence[str]) -> None:
        missing = [name for name in names if name not in columns]
        if missing:
            near = did_you_mean(missing[0], list(columns))
            raise DataError(f"X has no column {missing[0]!r}.{near} It needs: {', '.join(map(repr, names))}.")

    def _refuse_unknown(self, names: set[str]) -> None:
        known = set(self.column_names)
        unknown = sorted(names - known)
        if unknown:
            raise DataError(f"X has a column {unknown[0]!r}, which the model does not know.")

    # -- JSON -----------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The spec as JSON."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Spec:
        """Reads a spec, of which nothing is trusted.

        Raises:
            SavedFileError: It is not what `to_json` writes, or is of a newer version.
        """
        content = text.encode() if isinstance(text, str) else text
        given = _files.checked_fields(_files.read_json(content, "The spec in a file"), _SPEC, "The spec in a file")
        if given.pop("format") != FORMAT:
            raise SavedFileError("The file was exported by a newer version of kerastoolkit.")
        inputs = [_files.checked_fields(one, _INPUT, "An input in a file") for one in given["inputs"]]
        outputs = [_files.checked_fields(one, _OUTPUT, "An output in a file") for one in given["outputs"]]
        names = [one["name"] for one in (*inputs, *outputs)]
        if not inputs or not outputs or len(set(names)) != len(names):
            raise SavedFileError(f"The spec in a file has the inputs and outputs {_files.shown(names)}.")
        given["inputs"] = tuple(InputSpec(**_with_tuples(one)) for one in inputs)
        given["outputs"] = tuple(OutputSpec(**_with_tuples(one)) for one in outputs)
        return cls(**given)


_FEW = 16  # rows that are read sooner all at once, by row, than by column


def _columns_of(table: Any) -> dict[str, Any]:
    """The columns of a table of pandas or polars by name."""
    names = [str(name) for name in table.columns]
    if hasattr(table, "iloc") and len(table) <= _FEW and len(set(names)) == len(names):
        return dict(zip(names, table.to_numpy(dtype=object).T, strict=True))
    return {str(name): table[name] for name in table.columns}


_ABSENT = object()  # in place of a value that a row does not give


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) and name != "example" else value for name, value in fields.items()
    }


def _array_of(one: InputSpec, values: Any) -> NDArray[Any]:
    if one.dtype == "string":
        return _texts(one, values)
    if one.is_column:
        return _numbers(one, values)
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{one.name!r} must hold numbers; got an array of {array.dtype}.")
    known = len(array.shape) == len(one.shape) + 1
    if not known or any(size not in (None, found) for size, found in zip(one.shape, array.shape[1:], strict=True)):
        raise DataError(f"{one.name!r} must have rows of the shape {one.shape}; got an array of shape {array.shape}.")
    return _checked_numbers(one, array)


def _texts(one: InputSpec, values: Any) -> NDArray[Any]:
    made = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        if value is _ABSENT:
            raise DataError(f"Row {row} has no {one.name!r}. Give null where there is none.")
        missing = value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"
        if not isinstance(value, str) and not missing:
            raise DataError(f"Row {row} has {shown(value)} as {one.name!r}, which must be text.")
        is_empty = missing or (value == "" and "" not in one.categories)
        if is_empty and not one.may_be_missing and one.kind == "category":
            raise DataError(f"Row {row} has no {one.name!r}, which may not be missing.")
        if missing and one.kind == "text":
            raise DataError(f"Row {row} has no {one.name!r}; an empty text is ''.")
        made[row] = "" if missing else value
    return made


def _numbers(one: InputSpec, values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            array = np.array([_number(one, row, value) for row, value in enumerate(values)], "float64")
    except OverflowError:
        raise DataError(f"{one.name!r} holds a number that is too large.") from None
    if array.ndim != 1:
        raise DataError(f"{one.name!r} must be a column, one number a row; got an array of shape {array.shape}.")
    return _checked_numbers(one, array)


def _number(one: InputSpec, row: int, value: Any) -> float:
    if value is _ABSENT:
        raise DataError(f"Row {row} has no {one.name!r}. Give null where there is none.")
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return math.nan
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return float(value)
    raise DataError(f"Row {row} has {shown(value)} as {one.name!r}, which must be a number.")


def _checked_numbers(one: InputSpec, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f":
        odd = np.isinf(array) | (np.abs(np.nan_to_num(array, nan=0.0)) > _LARGEST)
        if not one.may_be_missing:
            odd |= np.isnan(array)
        if odd.any():
            row = int(np.argwhere(odd)[0][0])
            value = array[tuple(np.argwhere(odd)[0])]
            why = "which may not be missing" if np.isnan(value) else "which must be a finite number of float32"
            raise DataError(f"Row {row} has {value:g} as {one.name!r}, {why}.")
        if one.dtype.startswith(("int", "uint")) and not np.array_equal(array, np.trunc(array)):
            raise DataError(f"{one.name!r} must hold whole numbers.")
    elif array.dtype.kind in "iu" and one.dtype in ("int32", "uint8") and array.size:
        info = np.iinfo(one.dtype)
        if array.min() < info.min or array.max() > info.max:
            raise DataError(f"{one.name!r} must hold whole numbers from {info.min} to {info.max}.")
    return array.astype(one.dtype)


# -- what JSON may hold ---------------------------------------------------------------------------------------------

_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool", "string")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bool)) or _files.is_number(value)


def _is_example(value: object) -> bool:
    return all(map(_is_example, value)) if isinstance(value, list) else _is_plain(value)


_SHAPE = _files.list_of(_files.optional(_files.is_count))
_SPEC: dict[str, Callable[[Any], object]] = {
    "format": _files.is_count,
    "name": _files.is_text,
    "task": _files.one_of("classification", "regression", "transformation", "unknown"),
    "inputs": _files.list_of(lambda value: isinstance(value, dict)),
    "outputs": _files.list_of(lambda value: isinstance(value, dict)),
    "versions": _files.dict_of(_files.is_text),
    "report": lambda value: isinstance(value, dict),
}
_INPUT: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "kind": _files.one_of(*get_args(InputKind)),
    "dtype": _files.one_of(*_DTYPES),
    "shape": _SHAPE,
    "features": _files.list_of(_files.is_text),
    "categories": _files.list_of(_is_plain),
    "may_be_missing": _files.is_flag,
    "minimum": _files.optional(_files.is_number),
    "maximum": _files.optional(_files.is_number),
    "example": _is_example,
}
_OUTPUT: dict[str, Callable[[Any], object]] = {
    "name": _files.is_text,
    "kind": _files.one_of(*get_args(OutputKind)),
    "dtype": _files.one_of(*_DTYPES),
    "shape": _SHAPE,
    "classes": _files.list_of(_is_plain),
    "target": _files.optional(_files.is_text),
}
