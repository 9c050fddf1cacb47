"""Rows of a request: checked against the spec by one pydantic type, which the OpenAPI document shows as well."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._optional import require
from kerastoolkit._values import shown
from kerastoolkit._words import did_you_mean
from kerastoolkit.export._spec import InputSpec, Spec

Row: TypeAlias = dict[str, Any]

_LARGEST = float(np.finfo("float32").max)
_MAX_ERRORS = 5  # more than that nobody reads
_FIRST_ROW = re.compile(rb"\[\s*([^\s])")


class RequestError(Exception):
    """A request that cannot be answered as it is.

    Args:
        message: What is wrong, and where.
        status: Of HTTP. Defaults to `422`.
        errors: Each mistake on its own, with `row`, `column` and `message`. Defaults to none.
    """

    def __init__(self, message: str, status: int = 422, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.message, self.status, self.errors = message, status, list(errors)


class Rows:
    """Reads rows, and makes arrays of them.

    A row is an object of one value a column; for a model of a single input it may also be that value alone: an array,
    a text, or the numbers of the columns in their order.

    Args:
        spec: What the model takes.
        max_rows: Rows of a request at most.
    """

    def __init__(self, spec: Spec, max_rows: int) -> None:
        self.spec, self.max_rows = spec, max_rows
        self.columns = spec.column_names
        self._known = {one.name: frozenset(one.categories) for one in spec.inputs if one.kind == "category"}
        self.by_column = _fields(spec)
        # Rows are all objects, or all values.
        self.row_types = {"object": strict_object("Row", self.by_column)}
        if len(spec.inputs) == 1:
            self.row_types["value"] = type_of(spec.inputs[0])
        self._list = self.reader(lambda rows: rows)

    # -- reading --------------------------------------------------------------------------------------------------

    def reader(self, type_of_body: Callable[[Any], Any]) -> Reader:
        """Makes what reads the body of a request.

        Args:
            type_of_body: The type of a body, for the type of its rows.
        """
        pydantic = require("pydantic")
        limits = pydantic.Field(min_length=1, max_length=self.max_rows)
        adapters = {
            kind: pydantic.TypeAdapter(type_of_body(Annotated[list[row], limits, pydantic.FailFast()]))  # type: ignore[valid-type]
            for kind, row in self.row_types.items()
        }
        return Reader(adapters, self.columns)

    def read_list(self, body: bytes) -> list[Row]:
        """Reads a body that is a list of rows."""
        return self.as_objects(self._list.read(body))

    def of_columns(self, columns: Mapping[str, Any]) -> list[Row]:
        """Makes rows of columns: for each input, or feature, a list with a value for each row."""
        lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
        if len(lengths) < len(columns):
            name = next(name for name in columns if name not in lengths)
            raise RequestError(f"The input {shown(name)} must be a list, with a value for each row.")
        if len(set(lengths.values())) > 1:
            raise RequestError(f"The inputs have different numbers of rows: {_short(lengths)}.")
        if len(self.spec.inputs) == 1 and list(columns) == [self.spec.inputs[0].name]:
            return self.of_values(columns[self.spec.inputs[0].name])
        rows = zip(*columns.values(), strict=True)
        return self.of_values([dict(zip(columns, values, strict=True)) for values in rows])

    def of_values(self, values: Any) -> list[Row]:
        """Checks rows that were read already."""
        return self.as_objects(self._list.check(values))

    def as_objects(self, rows: list[Any]) -> list[Row]:
        """Rows that are a value alone as objects, too."""
        if len(self.spec.inputs) > 1:
            return rows
        name, features = self.spec.inputs[0].name, self.spec.inputs[0].features
        if features:
            return [row if isinstance(row, dict) else dict(zip(features, row, strict=True)) for row in rows]
        return [row if isinstance(row, dict) else {name: row} for row in rows]

    # -- for the model --------------------------------------------------------------------------------------------

    def arrays(self, rows: list[Row]) -> dict[str, NDArray[Any]]:
        """Makes arrays of checked rows.

        Raises:
            RequestError: Arrays of different shapes.
        """
        first = self.spec.inputs[0]
        if len(self.spec.inputs) == 1 and first.features:
            return {first.name: np.array([[row[name] for name in first.features] for row in rows], first.dtype)}
        return {one.name: _array(one, [row[one.name] for row in rows]) for one in self.spec.inputs}

    def unseen(self, rows: list[Row]) -> dict[str, int]:
        """How many values of each column are none of the categories that were learned, where there are any."""
        found: dict[str, int] = {}
        for name, known in self._known.items():
            n = sum(1 for row in rows if (value := row[name]) not in known and value is not None and value != "")
            if n:
                found[name] = n
        return found

    def example(self) -> Row:
        """A row that works."""
        if len(self.spec.inputs) == 1 and self.spec.inputs[0].features:
            one = self.spec.inputs[0]
            given = one.example if isinstance(one.example, list) else []
            values = given if len(given) == len(one.features) else [0.0] * len(one.features)
            return dict(zip(one.features, values, strict=True))
        return {one.name: _example(one) for one in self.spec.inputs}


# -- types ----------------------------------------------------------------------------------------------------------


def strict_object(name: str, fields: Mapping[str, Any]) -> Any:
    """A type of objects with these fields, whose names may be any text, and no other."""
    from typing_extensions import TypedDict  # of pydantic, which cannot take that of Python 3.11

    make: Any = TypedDict
    kind = make(name, dict(fields))
    kind.__pydantic_config__ = require("pydantic").ConfigDict(extra="forbid")
    return kind


class Reader:
    """Reads bodies of a type, whose rows may be written as objects or as values.

    Args:
        adapters: Of pydantic, for rows as `"object"` and, where there is one, as `"value"`.
        columns: Names for the hint at the one that may have been meant. Defaults to none.
    """

    def __init__(self, adapters: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        self._objects, self._values, self._columns = adapters["object"], adapters.get("value"), columns
        self._error = require("pydantic").ValidationError

    def read(self, body: bytes) -> Any:
        """Reads JSON.

        Raises:
            RequestError: It is not JSON, or not of the type; the message names row and column.
        """
        adapter = self._objects
        if self._values is not None and (first := _FIRST_ROW.search(body)) and first[1] != b"{":
            adapter = self._values
        try:
            return adapter.validate_json(body)
        except self._error as error:
            raise _explained(error, self._columns) from None

    def check(self, values: Any) -> Any:
        """Checks what was read already, as `read` does."""
        is_object = not isinstance(values, list) or not values or isinstance(values[0], dict)
        adapter = self._objects if is_object or self._values is None else self._values
        try:
            return adapter.validate_python(values)
        except self._error as error:
            raise _explained(error, self._columns) from None


def _fields(spec: Spec) -> dict[str, Any]:
    one = spec.inputs[0]
    if len(spec.inputs) == 1 and one.features:
        element = dataclasses.replace(one, kind="number", shape=(), features=(), example=None)
        examples = one.example if isinstance(one.example, list) else []
        return {
            name: type_of(dataclasses.replace(element, name=name, example=examples[place] if examples else None))
            for place, name in enumerate(one.features)
        }
    return {one.name: type_of(one) for one in spec.inputs}


def type_of(one: InputSpec) -> Any:
    """The type of a value of an input, with bounds and what the documentation shows of it."""
    pydantic = require("pydantic")
    kind = _element(one)
    for size in reversed(one.shape):
        n = {"min_length": 1} if size is None else {"min_length": size, "max_length": size}
        kind = Annotated[list[kind], pydantic.Field(**n), pydantic.FailFast()]  # type: ignore[valid-type]
    more: dict[str, Any] = {"title": one.name}
    if one.categories:
        more["x-categories"] = list(one.categories[:100])
    if (words := _words(one)) is not None:
        more["description"] = words
    return Annotated[kind, pydantic.Field(json_schema_extra=more)]


def _element(one: InputSpec) -> Any:
    pydantic = require("pydantic")
    kind: Any
    if one.dtype == "string":
        least = 1 if one.kind == "category" and not one.may_be_missing else 0
        kind = Annotated[str, pydantic.Field(strict=True, min_length=least)]
    elif one.dtype == "bool":
        kind = Annotated[bool, pydantic.Field(strict=True)]
    elif one.dtype.startswith("float"):
        kind = Annotated[float, pydantic.Field(strict=True, allow_inf_nan=False, ge=-_LARGEST, le=_LARGEST)]
    else:
        info = np.iinfo(one.dtype)
        kind = Annotated[int, pydantic.Field(strict=True, ge=int(info.min), le=int(info.max))]
    can_be_null = one.may_be_missing and one.kind != "text" and (one.dtype == "string" or one.dtype.startswith("float"))
    return kind | None if can_be_null else kind


def _words(one: InputSpec) -> str | None:
    parts = []
    if one.kind == "image":
        parts.append("pixels, as lists of rows of colours")
    if one.minimum is not None and one.maximum is not None:
        parts.append(f"{one.minimum:g} to {one.maximum:g} when the model was exported")
    if one.categories:
        many = ", ..." if len(one.categories) > 10 else ""
        parts.append(f"learned: {', '.join(map(str, one.categories[:10]))}{many}; anything else is taken as unseen")
    if one.may_be_missing:
        parts.append("null where it is missing")
    return "; ".join(parts) or None


def _array(one: InputSpec, values: list[Any]) -> NDArray[Any]:
    if one.dtype == "string":
        made = np.empty(len(values), dtype=object)
        made[:] = ["" if value is None else value for value in values]
        return made
    try:
        return np.array(values, one.dtype)
    except ValueError:
        raise RequestError(_why_ragged(one, values)) from None


def _why_ragged(one: InputSpec, values: list[Any]) -> str:
    shapes = []
    for row, value in enumerate(values):
        try:
            shapes.append(np.shape(value))
        except ValueError:
            return f"row {row}, {one.name!r}: its lists have different lengths."
        if shapes[row] != shapes[0]:
            return (
                f"row {row}, {one.name!r}: it has the shape {shapes[row]}, and row 0 has {shapes[0]}. "
                "Send rows of different shapes in requests of their own."
            )
    return f"{one.name!r} holds what is no array."


def _example(one: InputSpec) -> Any:
    if one.example is not None and (one.kind != "array" or np.shape(one.example) == one.shape):
        return one.example
    if one.kind == "category" and one.categories:
        return one.categories[0]
    if one.dtype == "string":
        return "an example"
    if one.is_column:
        return 0 if one.minimum is None or one.maximum is None else _middle(one)
    return np.zeros([32 if size is None else size for size in one.shape], one.dtype).tolist()


def _middle(one: InputSpec) -> float | int:
    middle = (float(one.minimum or 0) + float(one.maximum or 0)) / 2
    return middle if one.dtype.startswith("float") else int(middle)


# -- errors ---------------------------------------------------------------------------------------------------------

_MESSAGES = {
    "missing": "is missing",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "extra_forbidden": "is not known",
    "greater_than_equal": "must be a number of float32, or in the range of its type",
    "less_than_equal": "must be a number of float32, or in the range of its type",
}
_SAYS_ENOUGH = {"missing", "extra_forbidden", "json_invalid", "too_long", "too_short"}


def _explained(error: Any, columns: Sequence[str]) -> RequestError:
    """The mistakes that pydantic found, in words that name row and column."""
    found = error.errors(include_url=False)
    at_top = {one["loc"][0]: one["type"] for one in found if len(one["loc"]) == 1}
    if any(kind == "extra_forbidden" and name in columns for name, kind in at_top.items()):
        name = next((name for name, kind in at_top.items() if kind == "missing"), "instances")
        return RequestError(f'The body is a row. Put it in a list, even if it is the only one: {{"{name}": [ROW]}}.')
    mistakes = []
    for one in found[:_MAX_ERRORS]:
        place = list(one["loc"])
        row = next((part for part in place if isinstance(part, int)), None)
        after = place if row is None else place[place.index(row) + 1 :]
        column = next((part for part in after if isinstance(part, str)), None)
        inside = [part for part in after if isinstance(part, int)]
        message = _said(one, column, columns) + (f" (at {inside} in it)" if inside else "")
        mistakes.append({"row": row, "column": column, "message": message})
    texts = [_located(one) for one in mistakes]
    more = error.error_count() - len(mistakes)
    return RequestError("; ".join(texts) + (f"; and {more} more" if more > 0 else ""), errors=mistakes)


def _said(one: Mapping[str, Any], column: str | None, columns: Sequence[str]) -> str:
    kind, context = one["type"], one.get("ctx") or {}
    if kind == "json_invalid":
        return f"The body is not JSON: {context.get('error', one['msg'])}"
    if kind == "too_long" and "actual_length" in context:
        return f"at most {context['max_length']} values are taken"
    if kind == "too_short":
        return f"at least {context['min_length']} must be given"
    text = _MESSAGES.get(kind, str(one["msg"]))
    if kind == "extra_forbidden" and column is not None and (hint := did_you_mean(column, columns)):
        return f"{text}.{hint}"
    return text if kind in _SAYS_ENOUGH else f"{text}; got {_short(one.get('input'))}"


def _short(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shown(value)


def _located(mistake: Mapping[str, Any]) -> str:
    where = [] if mistake["row"] is None else [f"row {mistake['row']}"]
    if mistake["column"] is not None:
        where.append(f"{'column ' if where else ''}{mistake['column'][:100]!r}")
    return f"{', '.join(where)}: {mistake['message']}" if where else str(mistake["message"])
