"""Columns on their way through a graph: raw ones, whose kind shows when a step first reads them, and made ones.

A step of scikit-learn takes some columns and makes others. Whether a raw column is a number or a text is nowhere
written; it is what the first step takes it for that reads it: an encoder of texts has texts as its categories. Until
then a column has no value in the graph, and one that nothing reads is no input of the file.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from kerastoolkit._words import quoted
from kerastoolkit.exceptions import ExportError
from kerastoolkit.export._graph import Array, Cast, Concatenate, Graph, Reshape, Take, Value
from kerastoolkit.export._spec import InputSpec

RawKind = Literal["number", "category", "text"]


class Column(NamedTuple):
    """One column on its way.

    Attributes:
        value: The value that holds it, of shape `(k,)`, or of shape `()`; None for a raw one that nothing has read yet.
        place: Its place there; the number of a raw column.
        name: What scikit-learn calls it. Defaults to `""`.
        origin: The raw column whose values it still holds, filled or not. Defaults to `None`: it holds others.
    """

    value: Value | None
    place: int
    name: str = ""
    origin: int | None = None


@dataclasses.dataclass
class Raw:
    """A raw column.

    Args:
        name: As users know it.
        label: As their table has it: a text or a number.
        kind: What it holds; None until a step reads it.
        of_text: Whether it holds texts. Defaults to `False`.
        categories: Known values, in order. Defaults to none.
        example: A typical value. Defaults to `None`.
        minimum: A number at the lower end of what is usual. Defaults to `None`.
        maximum: A number at the upper end of what is usual. Defaults to `None`.
        missing: What stands for a missing text in the rows that the model takes. Defaults to NaN.
        dtype: Type of the column in those rows. Defaults to `""`: that of the file, or objects for texts.
        may_be_missing: Whether the model has an answer to rows without it. Defaults to `False`.
        is_known_as_text: Whether a step further back reads it as text. Defaults to `False`.
    """

    name: str
    label: Any
    kind: RawKind | None = None
    of_text: bool = False
    categories: tuple[Any, ...] = ()
    example: Any = None
    minimum: float | None = None
    maximum: float | None = None
    missing: float | None = math.nan
    dtype: str = ""
    may_be_missing: bool = False
    is_known_as_text: bool = False

    def spec(self, dtype: str) -> InputSpec:
        """What the file says of it."""
        return InputSpec(
            self.name,
            "number" if self.kind is None else self.kind,
            "string" if self.of_text else dtype,
            categories=self.categories,
            may_be_missing=self.may_be_missing,
            minimum=self.minimum,
            maximum=self.maximum,
            example=self.example,
        )


class Columns:
    """The raw columns of a graph, and how values are made of columns.

    Args:
        graph: The graph that is made.
        raw: The raw columns, in the order of the table.
        dtype: Type of numbers, `"float32"` or `"float64"`.
        in_array: Numbers of the raw columns that are one input together, an array of numbers `"X"`. Defaults to none:
            each column is an input of its own.

    Attributes:
        notes: What is to be told of the file.
        know_gaps: Whether a step does something about missing values.
        after_all_texts: Numbers of the raw columns that a step read as numbers, before another read them as texts.
    """

    def __init__(self, graph: Graph, raw: Sequence[Raw], dtype: str, *, in_array: Sequence[int] = ()) -> None:
        self.graph, self.raw, self.dtype, self.in_array = graph, list(raw), dtype, list(in_array)
        self.notes: list[str] = []
        self.know_gaps = False
        self.after_all_texts: set[int] = set()
        self._inputs: dict[int, Value] = {}
        self._rows: dict[str, Value] = {}
        self.array = graph.input("X", dtype, (len(self.in_array),)) if self.in_array else None

    def all(self) -> list[Column]:
        """The raw columns."""
        return [Column(None, place, str(one.label), place) for place, one in enumerate(self.raw)]

    def made(self, value: Value, names: Iterable[str] = (), origins: Iterable[int | None] = ()) -> list[Column]:
        """Columns of a value of shape `(k,)`."""
        width = value.shape[0] or 0
        pairs = itertools.zip_longest(range(width), names, origins)
        return [Column(value, place, name or "", origin) for place, name, origin in pairs]

    # -- values of columns ----------------------------------------------------------------------------------------

    def numbers(self, columns: Sequence[Column]) -> Value:
        """The columns side by side, shape `(k,)`, as numbers."""
        return self._side_by_side(columns, of_text=False)

    def texts(self, columns: Sequence[Column]) -> Value:
        """The columns side by side, shape `(k,)`, as texts."""
        return self._side_by_side(columns, of_text=True)

    def text(self, column: Column) -> Value:
        """A column of texts, shape `()`, each of which is read as a text and not as a category."""
        if column.value is None:
            return self._input(column.place, "text", of_text=True)
        if column.value.dtype != "string":
            raise ExportError(f"{quoted(column.name)} is read as text, but holds numbers.")
        picked = column.value if column.value.shape == (1,) else self.graph.add(Take((column.place,)), column.value)
        return self.graph.add(Reshape(()), picked)

    def holds_text(self, column: Column) -> bool:
        """Whether a column is known to hold texts."""
        if column.value is not None:
            return column.value.dtype == "string"
        return self.raw[column.place].of_text or self.raw[column.place].is_known_as_text

    def _side_by_side(self, columns: Sequence[Column], *, of_text: bool) -> Value:
        known = [self._known(column, of_text=of_text) for column in columns]
        parts = []
        for value, group in itertools.groupby(known, key=lambda pair: pair[0]):
            places = tuple(place for _, place in group)
            whole = places == tuple(range(value.shape[0] or 0))
            parts.append(value if whole else self.graph.add(Take(places), value))
        if any((part.dtype == "string") != of_text for part in parts):
            names = ", ".join(quoted(column.name) for column in columns[:5])
            raise ExportError(f"Of the columns {names}, some are texts and some numbers, but one step reads all.")
        wanted = "string" if of_text else str(np.result_type(*{part.dtype for part in parts}))
        wanted = wanted if of_text or wanted.startswith("float") else self.dtype
        parts = [part if part.dtype == wanted else self.graph.add(Cast(wanted), part) for part in parts]
        return parts[0] if len(parts) == 1 else self.graph.add(Concatenate(), *parts)

    def _known(self, column: Column, *, of_text: bool) -> tuple[Value, int]:
        if column.value is not None:
            return column.value, column.place
        raw = self._input(column.place, "category" if of_text else "number", of_text=of_text)
        if self.array is not None:
            return raw, self.in_array.index(column.place)
        if raw.name not in self._rows:
            self._rows[raw.name] = self.graph.add(Reshape((1,)), raw)
        return self._rows[raw.name], 0

    def _input(self, place: int, kind: RawKind, *, of_text: bool) -> Value:
        raw = self.raw[place]
        if raw.kind is None:
            raw.kind, raw.of_text = kind, of_text
        elif raw.of_text != of_text:
            self.after_all_texts.add(place)
            raise ExportError(f"The column {quoted(raw.name)} is read as text by one step, and as numbers by another.")
        elif kind == "category":
            raw.kind = "category" if raw.kind == "number" else raw.kind
        if self.array is not None:
            return self.array
        if place not in self._inputs:
            self._inputs[place] = self.graph.input(raw.name, "string" if of_text else self.dtype)
        return self._inputs[place]

    # -- what steps know of raw columns ---------------------------------------------------------------------------

    def tell_categories(self, column: Column, categories: Sequence[Any]) -> None:
        """Says which categories a column has, where it holds the values of a raw one."""
        if column.origin is None or self.raw[column.origin].kind == "text":
            return
        raw = self.raw[column.origin]
        raw.kind = "category"
        if not raw.categories:
            raw.categories = tuple(categories)
            raw.example = raw.categories[0] if raw.categories else raw.example

    def tell_numbers(
        self, given: Sequence[Column], examples: Sequence[Any], low: Sequence[Any] = (), high: Sequence[Any] = ()
    ) -> None:
        """Says what numbers are usual in columns, where they hold the values of raw ones."""
        for column, example, least, most in itertools.zip_longest(given, examples, low, high):
            if column.origin is None or isinstance(example, str) or example != example:
                continue
            raw = self.raw[column.origin]
            raw.example = float(example) if raw.example is None else raw.example
            if least is not None and raw.minimum is None:
                raw.minimum, raw.maximum = float(least), float(most)

    @property
    def used(self) -> list[int]:
        """Numbers of the raw columns that something reads."""
        return sorted(self.in_array or self._inputs)

    @property
    def are_numbers(self) -> bool:
        """Whether all columns that something reads are numbers, and no categories."""
        return bool(self.used) and all(self.raw[place].kind == "number" for place in self.used)

    def specs(self) -> tuple[InputSpec, ...]:
        """What the file says of its inputs, in the order of the table, in which the graph's are put, too."""
        if self.array is None:
            self.graph.inputs[:] = [self._inputs[place] for place in self.used]
            return tuple(self.raw[place].spec(self.dtype) for place in self.used)
        some = [self.raw[place] for place in self.in_array]
        features = tuple(one.name for one in some) if all(isinstance(one.label, str) for one in some) else ()
        example = [one.example for one in some]
        of_array = InputSpec(
            "X", "array", self.dtype, (len(some),), features, 
            may_be_missing=all(one.may_be_missing for one in some if one.kind is not None),
            example=None if None in example else example,
        )  # fmt: skip
        return (of_array,)


def plain_categories(values: Iterable[Any], what: str) -> tuple[str, ...] | tuple[float, ...]:
    """Categories that a file can hold: texts, or numbers.

    Raises:
        ExportError: There are both, or something else.
    """
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    if all(isinstance(value, str) for value in found):
        return tuple(found)
    if all(isinstance(value, (int, float)) for value in found):
        return tuple(map(float, found))
    kinds = sorted({type(value).__name__ for value in found})
    raise ExportError(
        f"{what} has categories of the types {', '.join(kinds)}, but a file holds texts or numbers, not both. Turn the "
        "column into one type before fitting: table[column].astype(str)."
    )


def eye(n: int, dtype: str) -> Array:
    """Rows with a single 1 each, shape `(n, n)`."""
    return np.eye(n, dtype=dtype)
