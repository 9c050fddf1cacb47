"""The comparison that is a part of every export: a file is handed over only if it answers as the model it came from.

Compared are the rows of the sample, all at once and some alone, and rows made up of what goes wrong elsewhere: a gap in
each input, a category that was never seen, an empty text, large and small numbers. What the model itself refuses is no
question to the file.

No answer is exact: a network that takes a year as it is loses four digits of it. Where answers are further apart than
the tolerance, they may be so by a few times what the model's own answer changes when the last digit of each number
changes: of those that it gets and of those that it has learned.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._keras import layers_of
from kerastoolkit.exceptions import DataError, ExportError, KerasToolkitError
from kerastoolkit.export._graph import Graph, last_digit_changed
from kerastoolkit.export._spec import InputSpec, OutputSpec
from kerastoolkit.export._subject import Subject

Arrays = dict[str, NDArray[Any]]
_Compute = Callable[[Arrays], Arrays]
Run = Callable[[Arrays], Mapping[str, NDArray[Any]]]

_MAX_ROWS, _ALONE, _MAX_CATEGORIES = 1000, 5, 30
UNSEEN = "never seen before"


class Tolerance(NamedTuple):
    """How far answers may be apart.

    Attributes:
        probabilities: Largest difference of a probability.
        numbers: Largest difference of a number, relative to its size or to the spread of all answers.
        min_agreement: Fraction of labels of the sample that have to be equal, where a tie does not count. Below 1, it
            stands in place of `probabilities`, and made-up rows only have to have an answer. Defaults to `1.0`.
    """

    probabilities: float = 1e-5
    numbers: float = 1e-6
    min_agreement: float = 1.0


EXACT = Tolerance()
FLOAT16 = Tolerance(5e-3, 5e-3)
_BFLOAT16 = Tolerance(4e-2, 4e-2)


def half_precision(graph: Graph) -> Tolerance | None:
    """How far a file in float32 may be from a model that computes in half precision; None for other models."""
    types = {str(getattr(layer, "compute_dtype", "")) for model in graph.networks for layer in layers_of(model)}
    if "bfloat16" in types:
        return _BFLOAT16
    return FLOAT16 if "float16" in types else None


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
        ExportError: Answers differ; the message says in which row and output, and by how much. Or there is no sample,
            and the model refuses all typical rows.
        DataError: The sample is not of the kind that the model takes.
    """
    if sample is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _compared(subject, run, accepted_rows(subject), "made up", tolerance, what)
    sample = subject.read(sample)
    return _compared(subject, run, subject.spec.arrays(sample), "given", tolerance, what, _answers_to(subject, sample))


def _answers_to(subject: Subject, sample: Any) -> Arrays | None:
    """What the model answers to rows as users have them; None where they are of a kind that only a file takes."""
    if subject.spec.task == "unknown":  # a Keras model, which takes arrays by input
        return None
    if hasattr(sample, "iloc"):
        rows = sample.iloc[:_MAX_ROWS]
    elif isinstance(sample, np.ndarray):
        rows = sample[:_MAX_ROWS]
    else:
        return None
    try:
        return subject.predict(rows)
    except _REFUSALS:
        return None


def _compared(
    subject: Subject,
    run: Run,
    arrays: Arrays,
    sample: str,
    tolerance: Tolerance,
    what: str,
    known: Arrays | None = None,
) -> Parity:
    arrays = {name: array[:_MAX_ROWS] for name, array in arrays.items()}
    n_rows = _length(arrays)
    if not n_rows:
        raise DataError("`sample` has no rows.")
    found = _Found(subject, run, tolerance, what)
    of = "sample" if sample == "given" else "typical rows"
    found.add([f"row {row} of the {of}" for row in range(n_rows)], arrays, known, counts=True)
    for row in range(min(n_rows, _ALONE)):
        found.add([f"row {row} of the {of}, alone"], _one(arrays, row))
    n_refused = n_made_up = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model warns of odd rows, which these are on purpose
        for wheres, batch in _batches(made_up(subject, arrays)):
            refused = found.add_accepted(wheres, batch)
            n_refused, n_made_up = n_refused + refused, n_made_up + len(wheres) - refused
    return Parity(
        n_rows=n_rows,
        n_made_up=n_made_up,
        differences=found.differences,
        agreement=found.agreement,
        refused=n_refused,
        digest=_digest(arrays),
        sample=sample,
    )


# What a model raises that has no answer to rows, scikit-learn and NumPy included.
_REFUSALS = (KerasToolkitError, ValueError, TypeError, OverflowError)


def accepted_rows(subject: Subject, n_rows: int = 32) -> Arrays:
    """Typical rows without those that the model refuses.

    Raises:
        ExportError: It refuses all of them.
    """
    arrays = typical_rows(subject, n_rows)
    accepted = []
    for row in range(_length(arrays)):
        try:
            if row == 0:
                subject.predict(subject.rows(arrays))
                return arrays
        except _REFUSALS:
            pass
        try:
            subject.predict(subject.rows(_one(arrays, row)))
            accepted.append(row)
        except _REFUSALS as error:
            reason = error
    if not accepted:
        raise ExportError(
            f"The model refuses the rows that were made up to compare the file with it ({reason}). Give some rows as "
            "`sample`."
        )
    return {name: array[accepted] for name, array in arrays.items()}


def _batches(rows: Iterator[tuple[str, Arrays]]) -> list[tuple[list[str], Arrays]]:
    """Rows of the same shapes together: many rows at once cost the model little more than one."""
    groups: dict[Any, tuple[list[str], list[Arrays]]] = {}
    for where, row in rows:
        wheres, members = groups.setdefault(tuple(array.shape for array in row.values()), ([], []))
        wheres.append(where)
        members.append(row)
    return [
        (wheres, {name: np.concatenate([row[name] for row in members]) for name in members[0]})
        for wheres, members in groups.values()
    ]


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(name.encode() + str(array.shape).encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
    return digest.hexdigest()


class _Found:
    """Differences so far."""

    def __init__(self, subject: Subject, run: Run, tolerance: Tolerance, what: str) -> None:
        self.subject, self.run, self.tolerance, self.what = subject, run, tolerance, what
        self.differences: dict[str, float] = {}
        self.spread: dict[str, NDArray[Any]] = {}
        self.n_labels = self.n_equal = 0

    @property
    def agreement(self) -> float | None:
        return self.n_equal / self.n_labels if self.n_labels else None

    def add_accepted(self, wheres: Sequence[str], arrays: Arrays) -> int:
        """Compares the rows that the model has an answer to, and returns how many it refuses."""
        try:
            rows = _Rows(self.subject, wheres, arrays)
        except _REFUSALS:
            n = len(wheres)
            if n == 1:
                return 1
            halves = slice(0, n // 2), slice(n // 2, n)
            return sum(self.add_accepted(wheres[half], _rows(arrays, half)) for half in halves)
        self._compare(rows, counts=False)
        return 0

    def add(self, wheres: Sequence[str], arrays: Arrays, known: Arrays | None = None, *, counts: bool = False) -> None:
        """Compares rows.

        Args:
            wheres: What messages call each of them.
            arrays: The rows.
            known: What the model answers to them as they were given. Defaults to `None`: it is asked.
            counts: Whether they are all of the sample, so that their agreement counts. Defaults to `False`.
        """
        self._compare(_Rows(self.subject, wheres, arrays, known), counts=counts)

    def _compare(self, rows: _Rows, *, counts: bool) -> None:
        try:
            made = self.run(rows.arrays)
        except Exception as error:  # whatever a runtime raises
            raise ExportError(
                f"{self.what} cannot be run on {rows.wheres[0]}, where the model has an answer: {error}. "
                "Nothing was written."
            ) from error
        outputs = self.subject.spec.outputs
        for place, one in enumerate(outputs):
            want, have = rows.expected[one.name], np.asarray(made[one.name])
            if want.shape != have.shape:
                raise ExportError(
                    f"{self.what} answers {one.name!r} with the shape {have.shape}, the model with {want.shape}. "
                    "Nothing was written."
                )
            if not want.size:
                continue
            if one.kind in ("label", "labels"):
                behind = outputs[place + 1] if place + 1 < len(outputs) else None
                of_same = behind is not None and behind.kind == "probabilities" and behind.target == one.target
                self._labels(rows, one, have, behind if of_same else None, counts)
            else:
                self._numbers(rows, one, have, counts)

    def _ties(
        self, rows: _Rows, one: OutputSpec, probabilities: OutputSpec | None, rounded: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """Rows whose most probable labels are as good as equal, or that lie on a threshold; `rounded` are in doubt."""
        if probabilities is None:
            return np.zeros(len(rows.wheres), bool)
        p = rows.expected[probabilities.name]
        near = np.full((len(p), 1), 2 * max(self.tolerance.probabilities, 1e-6))
        if rounded is not None:
            rounding = np.minimum(rows.rounding(probabilities, rounded), _MOST_ROUNDING)
            near = np.maximum(near, 2 * rounding[:, None])
        half = (np.abs(p - 0.5) < near).any(axis=-1)
        # the median of ordered classes changes where a sum of probabilities passes a half
        median = (np.abs(np.cumsum(p, axis=-1) - 0.5) < near).any(axis=-1)
        top = np.sort(p, axis=-1)
        equal = top[..., -1] - top[..., -2] < near[:, 0] if p.shape[-1] > 1 else np.zeros(len(p), bool)
        return np.asarray(equal | median | half if one.kind == "labels" else equal | median)

    def _labels(
        self, rows: _Rows, one: OutputSpec, have: NDArray[Any], probabilities: OutputSpec | None, counts: bool
    ) -> None:
        want, limit = rows.expected[one.name], self.tolerance.min_agreement
        equal = (want == have).reshape(len(want), -1).all(axis=1)
        ties = self._ties(rows, one, probabilities)
        if (~equal & ~ties).any():
            ties = self._ties(rows, one, probabilities, ~equal & ~ties)
        wrong = ~equal & ~ties
        if counts:
            self.n_labels += int((~ties).sum())
            self.n_equal += int((equal & ~ties).sum())
        too_few = counts and wrong.any() and 1 - wrong.sum() / (~ties).sum() < limit
        if too_few or (wrong.any() and limit >= 1):
            row = int(np.argmax(wrong))
            several = f"; {wrong.sum()} of {len(want)} rows differ" if len(want) > 1 else ""
            raise ExportError(
                f"{self.what} answers {_shown(have[row])} as {one.name!r} in {rows.wheres[row]}, where the model "
                f"answers {_shown(want[row])}{several}. Nothing was written."
            )

    def _numbers(self, rows: _Rows, one: OutputSpec, have: NDArray[Any], counts: bool) -> None:
        want = rows.expected[one.name].astype("float64")
        size: Any = 1.0
        limit = self.tolerance.probabilities
        if one.kind != "probabilities":
            if counts:
                self.spread[one.name] = np.nan_to_num(want.std(axis=0))
            size = np.maximum(np.maximum(np.abs(want), self.spread.get(one.name, 0.0)), 1e-30)
            limit = max(self.tolerance.numbers, 2e-3 * (rows.expected[one.name].dtype == np.float16))
        difference = _apart(want, have.astype("float64")) / size
        worst = float(difference.max())
        self.differences[one.name] = max(worst, self.differences.get(one.name, 0.0))
        # where quantized probabilities may differ, the labels are what counts
        if self.tolerance.min_agreement < 1 and (one.kind == "probabilities" or not counts):
            limit = np.finfo("float64").max
        if worst <= limit:
            return
        far = (difference > limit).reshape(len(want), -1).any(axis=1)
        rounding = rows.rounding(one, far).reshape(-1, *(1,) * (want.ndim - 1)) / size
        allowed = np.minimum(rounding, _MOST_ROUNDING)
        excess = np.where(difference > np.maximum(limit, allowed), difference, 0.0)
        if excess.any():
            place = tuple(int(part) for part in np.argwhere(excess == excess.max())[0])
            where = f", column {place[1] if len(place) == 2 else place[1:]}," * (len(place) > 1)
            raise ExportError(
                f"{self.what} answers {have[place]:.7g} as {one.name!r}{where} in {rows.wheres[place[0]]}, where the "
                f"model answers {want[place]:.7g}: {excess.max():.1e} apart, and at most {limit:.0e} is allowed. "
                "Nothing was written."
            )


def _apart(want: NDArray[Any], have: NDArray[Any]) -> NDArray[Any]:
    """How far numbers are apart: not at all where both are NaN, infinitely where one is."""
    with np.errstate(all="ignore"):
        difference = np.abs(want - have)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    return np.asarray(np.where((want == have) | (np.isnan(want) & np.isnan(have)), 0.0, difference))


class _Rows:
    """Rows, and what the model answers to them."""

    def __init__(self, subject: Subject, wheres: Sequence[str], arrays: Arrays, known: Arrays | None = None) -> None:
        self.subject, self.wheres, self.arrays = subject, wheres, arrays
        self.expected = self._answers(arrays) if known is None else known

    def _answers(self, arrays: Arrays) -> Arrays:
        made = self.subject.predict(self.subject.rows(arrays))
        return {name: np.asarray(array) for name, array in made.items()}

    def rounding(self, one: OutputSpec, rows: NDArray[np.bool_]) -> NDArray[Any]:
        """How far answers may be off by rounding alone, shape `(n,)`: of some rows, and 0 for the others."""
        found = np.zeros(len(self.wheres))
        places = np.flatnonzero(rows)
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            found[some] = self._rounding({name: array[some] for name, array in self.arrays.items()}, one)
        return _TIMES_ROUNDING * found

    def _rounding(self, arrays: Arrays, one: OutputSpec) -> NDArray[Any]:
        """How far the answers move where the last digit of what goes into them does: of rows, and of weights."""
        noise = np.random.default_rng(0)
        numbers = {other.name for other in self.subject.spec.inputs if other.kind != "category"}
        found = self._moved(arrays, one, self._answers, self._answers, numbers, noise)
        if self.subject.graph.networks:
            compute = self.subject.graph.compute
            with_noise = functools.partial(compute, noise=noise)
            found = np.maximum(found, self._moved(arrays, one, compute, with_noise, numbers, noise))
        return found

    def _moved(
        self, arrays: Arrays, one: OutputSpec, compute: _Compute, again: _Compute, numbers: set[str],
        noise: np.random.Generator,
    ) -> NDArray[Any]:  # fmt: skip
        """How far answers are moved by noise, shape `(n,)`."""
        want = compute(arrays)[one.name].astype("float64")
        found = np.zeros(want.shape)
        for _ in range(_N_NOISE):
            moved = {name: last_digit_changed(a, noise) if name in numbers else a for name, a in arrays.items()}
            try:
                found = np.maximum(found, _apart(want, again(moved)[one.name].astype("float64")))
            except _REFUSALS:  # a number at the edge of what the model takes
                continue
        return np.asarray(found.reshape(len(found), -1).max(axis=1))


# Rounding adds up along the layers; what is more than a thousandth is no rounding.
_TIMES_ROUNDING, _MOST_ROUNDING = 4.0, 1e-3
_N_NOISE, _AT_ONCE = 3, 32


def _shown(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value)


# -- rows -----------------------------------------------------------------------------------------------------------


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _rows(arrays: Arrays, rows: slice) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}


def _one(arrays: Arrays, row: int) -> Arrays:
    return _rows(arrays, slice(row, row + 1))


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
    if low is not None and high is not None:
        return random.uniform(low, high, shape).astype(one.dtype)
    made = random.normal(size=shape)
    made[::2] = np.abs(made[::2])  # a step may take positive numbers only
    return made.astype(one.dtype)


def _dtype(one: InputSpec) -> np.dtype[Any]:
    return np.dtype(object if one.dtype == "string" else one.dtype)


def made_up(subject: Subject, arrays: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Rows of what goes wrong elsewhere, one at a time: each is the first row with one input changed."""
    first = _one(arrays, 0)
    for one in subject.spec.inputs:
        for words, value in _oddities(one, first[one.name]):
            made = np.empty((1, *np.shape(value)), _dtype(one))
            made[0] = value
            yield f"a made-up row with {words} as {one.name!r}", {**first, one.name: made}
    gaps = {one.name: one for one in subject.spec.inputs if one.may_be_missing and one.is_column}
    if len(gaps) > 1:
        empty = {name: "" if one.dtype == "string" else np.nan for name, one in gaps.items()}
        changed = {name: np.array([value], _dtype(gaps[name])) for name, value in empty.items()}
        yield "a made-up row with nothing in it", {**first, **changed}


def _oddities(one: InputSpec, values: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    value = values[0]
    if one.dtype == "string":
        if one.may_be_missing or one.kind == "text":
            yield "an empty text", ""
        yield "a value that was never seen", UNSEEN
        for category in one.categories[:_MAX_CATEGORIES]:
            yield f"the category {category!r}", category
        if one.kind == "text":
            yield (
                "letters of other languages",
                "ÜBER Straße ΟΔΟΙ Дом café e\u0301te\u0301 don't film_film 3D 東京",
            )
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
        if not all(isinstance(category, bool) for category in one.categories):
            yield "a number that was never seen", -987_654
        for category in one.categories[:_MAX_CATEGORIES]:
            yield f"the category {category!r}", category
        return
    yield "zeros", np.zeros(value.shape)
    if None in one.shape:
        sizes = [value.shape[axis] + (3 if size is None else 0) for axis, size in enumerate(one.shape)]
        yield "another size", np.resize(value, sizes)
    if floats:
        size = max(abs(one.minimum or 0.0), abs(one.maximum or 0.0), 1.0)
        for factor in (-10.0, 10.0, 1000.0):
            yield f"{factor * size:g}", np.full(value.shape, factor * size)
