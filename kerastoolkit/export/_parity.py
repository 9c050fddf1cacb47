"""The comparison that is a part of every export: a file is handed over only if it answers as the model it came from.

Compared are the rows of the sample, all at once and one by one, and rows made up of what goes wrong elsewhere: a gap in
each input, a category that was never seen, an empty text, large and small numbers. What the model itself refuses is no
question to the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerastoolkit.exceptions import ExportError, KerasToolkitError
from kerastoolkit.export._spec import InputSpec, OutputSpec
from kerastoolkit.export._subject import Subject

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Mapping[str, NDArray[Any]]]

_MAX_ROWS, _ALONE = 1000, 5
UNSEEN = "never seen before"


class Tolerance(NamedTuple):
    """How far answers may be apart.

    Attributes:
        probabilities: Largest difference of a probability.
        numbers: Largest difference of a number, relative to its size or to the spread of all answers.
        min_agreement: Fraction of labels that have to be equal, where a tie does not count. Defaults to `1.0`.
    """

    probabilities: float = 1e-5
    numbers: float = 1e-6
    min_agreement: float = 1.0


EXACT = Tolerance()
FLOAT16 = Tolerance(5e-3, 5e-3)


@dataclasses.dataclass(frozen=True)
class Parity:
    """What the comparison found.

    Attributes:
        n_rows: Rows of the sample.
        n_made_up: Rows made up.
        differences: Largest difference by output; of numbers it is relative.
        agreement: Fraction of equal labels, ties left out; None without labels.
        refused: Made-up rows that the model itself refuses.
        digest: SHA-256 of the compared rows.
        sample: `"given"`, or `"made up"` where no sample was.
    """

    n_rows: int
    n_made_up: int
    differences: Mapping[str, float]
    agreement: float | None
    refused: int
    digest: str
    sample: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        parts = [f"{name} within {value:.1e}" for name, value in self.differences.items()]
        if self.agreement is not None:
            parts.append(f"{self.agreement:.2%} of labels equal")
        return f"{self.n_rows} rows and {self.n_made_up} made up compared: {', '.join(parts)}"


def compare(
    subject: Subject, run: Run, sample: Any = None, *, tolerance: Tolerance = EXACT, what: str = "The file"
) -> Parity:
    """Compares a file with the model that it came from.

    Args:
        subject: What was exported.
        run: Answers of the file, by output, for arrays by input; run by the runtime that will run it.
        sample: Rows as the model takes them. Defaults to `None`: typical rows, made up from what the model knows.
        tolerance: How far answers may be apart. Defaults to `EXACT`.
        what: What messages call the file. Defaults to `"The file"`.

    Raises:
        ExportError: Answers differ; the message says in which row and output, and by how much.
        DataError: The sample is not of the kind that the model takes.
    """
    arrays = typical_rows(subject) if sample is None else subject.spec.arrays(sample)
    n_rows = _length(arrays)
    if n_rows > _MAX_ROWS:
        arrays = {name: array[:_MAX_ROWS] for name, array in arrays.items()}
        n_rows = _MAX_ROWS
    batches = [(f"row {{row}} of the {'sample' if sample is not None else 'typical rows'}", arrays)]
    batches += [(f"row {row}, alone", _one(arrays, row)) for row in range(min(n_rows, _ALONE))]
    batches += list(made_up(subject, arrays))
    found = _Found(subject, tolerance, what)
    refused = 0
    for where, batch in batches:
        try:
            expected = subject.predict(subject.rows(batch))
        except (KerasToolkitError, ValueError, OverflowError):
            if batch is arrays:
                raise
            refused += 1  # the model itself has no answer to such a row
            continue
        found.add(where, expected, run(batch), counts=batch is arrays)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(repr(arrays[name].tolist()).encode())
    return Parity(
        n_rows=n_rows,
        n_made_up=len(batches) - 1 - min(n_rows, _ALONE) - refused,
        differences=found.differences,
        agreement=found.agreement,
        refused=refused,
        digest=digest.hexdigest(),
        sample="made up" if sample is None else "given",
    )


class _Found:
    """Differences so far."""

    def __init__(self, subject: Subject, tolerance: Tolerance, what: str) -> None:
        self.outputs, self.tolerance, self.what = subject.spec.outputs, tolerance, what
        self.differences: dict[str, float] = {}
        self.scale: dict[str, float] = {}
        self.n_labels = self.n_equal = 0

    @property
    def agreement(self) -> float | None:
        return self.n_equal / self.n_labels if self.n_labels else None

    def add(
        self, where: str, expected: Mapping[str, NDArray[Any]], made: Mapping[str, NDArray[Any]], counts: bool
    ) -> None:
        ties = self._ties(expected)
        for one in self.outputs:
            want, have = np.asarray(expected[one.name]), np.asarray(made[one.name])
            if want.shape != have.shape:
                raise ExportError(
                    f"{self.what} answers {one.name!r} with the shape {have.shape}, the model with {want.shape}. "
                    "Nothing was written."
                )
            if one.kind in ("label", "labels"):
                self._labels(where, one, want, have, ties.get(one.target), counts)
            else:
                self._numbers(where, one, want, have, counts)

    def _ties(self, expected: Mapping[str, NDArray[Any]]) -> dict[str | None, Any]:
        """By target, the rows whose most probable classes are as good as equal."""
        found: dict[str | None, Any] = {}
        for one in self.outputs:
            if one.kind == "probabilities":
                p = np.asarray(expected[one.name])
                if self._are_independent(one.target):
                    found[one.target] = (np.abs(p - 0.5) < 2 * self.tolerance.probabilities).any(axis=-1)
                else:
                    # also the median of ordered classes, which changes where a sum of probabilities passes a half
                    top = np.sort(p, axis=-1)
                    near_half = np.abs(np.cumsum(p, axis=-1) - 0.5) < 2 * self.tolerance.probabilities
                    near = top[..., -1] - top[..., -2] < 2 * self.tolerance.probabilities
                    found[one.target] = near | near_half.any(axis=-1)
        return found

    def _are_independent(self, target: str | None) -> bool:
        return any(one.kind == "labels" and one.target == target for one in self.outputs)

    def _labels(
        self, where: str, one: OutputSpec, want: NDArray[Any], have: NDArray[Any], ties: Any, counts: bool
    ) -> None:
        equal = want == have
        equal = equal.reshape(len(want), -1).all(axis=1)
        relevant = np.ones(len(want), bool) if ties is None else ~ties
        if counts:
            self.n_labels += int(relevant.sum())
            self.n_equal += int((equal & relevant).sum())
        wrong = ~equal & relevant
        limit = self.tolerance.min_agreement
        if wrong.any() and (limit >= 1 or (counts and equal[relevant].mean() < limit)):
            row = int(np.argmax(wrong))
            raise ExportError(
                f"{self.what} answers {have[row]!r} as {one.name!r} in {where.format(row=row)}, where the model "
                f"answers {want[row]!r}; {wrong.sum()} of {len(want)} rows differ. Nothing was written."
            )

    def _numbers(self, where: str, one: OutputSpec, want: NDArray[Any], have: NDArray[Any], counts: bool) -> None:
        if not want.size:
            return
        want, have = want.astype("float64"), have.astype("float64")
        difference = np.abs(want - have)
        limit = self.tolerance.probabilities
        if one.kind != "probabilities":
            if counts:
                self.scale[one.name] = float(want.std())
            difference = difference / np.maximum(np.maximum(np.abs(want), self.scale.get(one.name, 0.0)), 1e-30)
            limit = self.tolerance.numbers
        difference = np.where(np.isfinite(difference), difference, np.inf)
        difference = np.where((want == have) | (np.isnan(want) & np.isnan(have)), 0.0, difference)
        worst = float(difference.max())
        self.differences[one.name] = max(worst, self.differences.get(one.name, 0.0))
        if worst > limit and self.tolerance.min_agreement >= 1:
            place = tuple(int(part) for part in np.argwhere(difference == difference.max())[0])
            raise ExportError(
                f"{self.what} answers {have[place]:.7g} as {one.name!r}, column {place[1:] or 0}, in "
                f"{where.format(row=place[0])}, where the model answers {want[place]:.7g}: {worst:.1e} apart, and at "
                f"most {limit:.0e} is allowed. Nothing was written."
            )


# -- rows -----------------------------------------------------------------------------------------------------------


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _one(arrays: Arrays, row: int) -> Arrays:
    return {name: array[row : row + 1] for name, array in arrays.items()}


def typical_rows(subject: Subject, n_rows: int = 32) -> Arrays:
    """Rows drawn, always the same, from what the spec knows of its inputs."""
    random = np.random.default_rng(0)
    return {one.name: _typical(one, n_rows, random) for one in subject.spec.inputs}


def _typical(one: InputSpec, n_rows: int, random: np.random.Generator) -> NDArray[Any]:
    if one.kind == "category" and one.categories:
        values = list(one.categories)
        return np.array([values[place] for place in random.integers(len(values), size=n_rows)], _dtype(one))
    if one.dtype == "string":
        words = str(one.example or "").split() or ["word"]
        texts = [" ".join(random.choice(words, random.integers(1, 2 + 2 * len(words)))) for _ in range(n_rows)]
        return np.array(texts, dtype=object)
    shape = (n_rows, *(16 if size is None else size for size in one.shape))
    low, high = one.minimum, one.maximum
    if one.dtype.startswith(("int", "uint")):
        low, high = low or 0, (255 if one.kind == "image" else 1) if high is None else high
        return random.integers(int(low), int(high), size=shape, endpoint=True).astype(one.dtype)
    made = random.normal(size=shape) if low is None or high is None else random.uniform(low, high, shape)
    return made.astype(one.dtype)


def _dtype(one: InputSpec) -> np.dtype[Any]:
    return np.dtype(object if one.dtype == "string" else one.dtype)


def made_up(subject: Subject, arrays: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Rows of what goes wrong elsewhere, one at a time: each is the first row with one input changed."""
    first = _one(arrays, 0)
    for one in subject.spec.inputs:
        for words, value in _oddities(one, first[one.name]):
            changed = np.array(value, dtype=_dtype(one)).reshape(first[one.name].shape)
            yield f"a made-up row with {words} as {one.name!r}", {**first, one.name: changed}


def _oddities(one: InputSpec, value: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    if one.dtype == "string":
        if one.may_be_missing or one.kind == "text":
            yield "an empty text", ""
        yield "a value that was never seen", UNSEEN
        if one.kind == "text":
            yield "letters of other languages", "İSTANBUL ÜBER Straße ΟΔΟΣ café naïve été don't film_film 3D"
            yield "a long text", " ".join([UNSEEN] * 400)
        return
    floats = one.dtype.startswith("float")
    if one.may_be_missing and floats:
        yield "a gap", np.full(value.shape, np.nan)
        if value.size > 1:
            with_gap = value.copy()
            with_gap.reshape(-1)[-1] = np.nan
            yield "a gap in its last place", with_gap
    if one.kind == "category":
        yield "a number that was never seen", np.full(value.shape, -987_654)
        return
    yield "zero", np.zeros(value.shape)
    if floats:
        size = max(abs(one.minimum or 0.0), abs(one.maximum or 0.0), 1.0)
        for factor in (-10.0, 10.0, 1000.0):
            yield f"{factor * size:g}", np.full(value.shape, factor * size)
