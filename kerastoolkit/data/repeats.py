"""Rows that belong together: which columns repeat like a person, a place or a day.

Several rows of one patient, shop or day are alike. If there are some of them on both sides of a split, a model is
tested on patients that it knows, and its score says little about others. Whether that matters is for the user to say,
who knows where new rows will come from; all that can be done here is to notice it and to ask, before anything is
trained.

A name alone is no reason to ask, nor is similarity alone: rows of one brand are alike, too, and a brand is a proper
feature. A column is asked about if rows that share a value are alike beyond chance, and if it also looks like the name
of something that was measured repeatedly: by its own name, by values that look like codes, or by a partner, such as a
visit or a year, with which no value of it occurs twice. How alike rows are is measured by the intraclass correlation
(Shrout and Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability"), of ranks for numbers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from kerastoolkit._words import printable, quoted
from kerastoolkit.data.tables import Column, Target, as_features

__all__ = ["Question", "find_questions"]

_MAX_ROWS = 4000  # to measure how alike rows are
_MAX_FEATURES = 30
_MAX_QUESTIONS = 3
_MIN_VALUES = 5  # fewer cannot be held out as groups

# What people call whatever is measured repeatedly, in the singular: a plural is more likely a count.
_UNITS = frozenset(
    """patient patientin subject subj pat cust emp usr mrn ssn msno person participant proband respondent user
    customer client buyer guest member student pupil child individual animal mouse rat chick dog cow pig horse
    employee worker driver player author speaker rater reviewer household mother doctor physician teacher
    instructor interviewer operator technician donor singer mare calf sheep goat bird fish cat rabbit monkey
    herd litter flock hive nest colony cage tank shop store site hospital clinic ward school kindergarten center
    centre station farm branch restaurant hotel airport firm company machine device sensor vehicle car truck
    engine turbine batch session trip specimen well plate product item article movie film team cluster panel uid
    pid kunde kundin filiale laden schule klinik markt firma maschine magasin ecole tienda cliente paciente
    escuela negozio paziente probandin""".split()
)
# The same, but just as often features: asked about only if one of them is the whole name.
_PERHAPS_UNITS = frozenset(
    "group unit case block field plot family room plant tree run lot line village twin pair cohort sample seed".split()
)
# Places of many rows are features; those with few rows each, or one a year, are measured repeatedly.
_PLACES = frozenset(
    """country nation state province county city town district region zip zipcode postcode postal neighborhood
    neighbourhood municipality location place stadt ort land kreis plz pays ville ciudad pais citta comune""".split()
)
_ID = frozenset("id ids uuid guid identifier code key nr nbr no num number nummer kennung".split())
_DAYS = frozenset("day date week datum tag jour dia giorno session round".split())
_TIMES = _DAYS | frozenset("time times timestamp datetime year yr month quarter period wave visit days".split())
# What makes rows alike and is a proper feature all the same.
_KINDS = frozenset(
    """model make maker manufacturer brand class type kind category colour color species genus order shape style
    size grade level status education occupation job industry sector department diagnosis sex gender race
    religion""".split()
)
_COUNTED = frozenset("n num number no count total nb sum mean avg average years months days hours".split())
_RELATIONS = frozenset("at by from in of per since to with".split())  # years at company, distance to school
# Such as P017, 2019-0043, a UUID or an address.
_CODE = re.compile(r"[A-Za-z]{0,4}[-_ ./]?\d{2,}([-_./]\d+)*|[0-9a-fA-F]{6,}(-[0-9a-fA-F]{4,}){0,4}|\S+@\S+")
_BIRTH = ("birth", "born", "dob", "hire", "geburt", "naissance", "nacimiento")


@dataclass(frozen=True)
class Question:
    """A column whose rows may belong together, which only the user can know.

    Attributes:
        column: Name of the column.
        argument: The argument that answers, `"groups"` or `"time"`: with the column's name for yes, with False for no.
        text: The question, what each answer does, and how to give it.
    """

    column: str
    argument: Literal["groups", "time"]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class _Candidate:
    """A column that repeats, and how."""

    column: Column
    codes: np.ndarray  # value of each row, numbered; each row without one has a number of its own
    values: pd.Index[Any]  # in the order of their numbers
    words: tuple[str, ...]  # of its name
    is_nominal: bool  # its values have no order that means something
    partner: Column | None = None  # never the same value twice together with this one
    partner_codes: np.ndarray | None = None

    @property
    def is_a_count(self) -> bool:
        """Whether its numbers may count or measure something, such as kilograms of seed."""
        if self.is_nominal or self.partner is not None or not set(self.words) & _PERHAPS_UNITS:
            return False
        return self.n_values < 20 or self.n_values < 0.8 * (float(self.values[-1]) - float(self.values[0]) + 1)

    @property
    def n_values(self) -> int:
        return len(self.values)


def find_questions(
    frame: pd.DataFrame, columns: Sequence[Column], target: Target, *, groups: bool = True, time: bool = True
) -> tuple[Question, ...]:
    """Looks for columns that repeat like a person, a place or a day, and for a target that drifts over time.

    At most three are returned, of columns with at least five values. The result depends on the table alone: whatever is
    drawn at random is the same in every call.

    Args:
        frame: The table, shape `(n_rows, n_columns)`.
        columns: What `kerastoolkit.data.tables.describe_columns` says of all its columns but the target.
        target: The column to predict; rows without one are ignored.
        groups: Whether to ask for `groups`. Defaults to `True`.
        time: Whether to ask for `time`. Defaults to `True`.

    Returns:
        The questions; those about people and things come before those about places and days.
    """
    frame = frame.iloc[target.kept].reset_index(drop=True)
    goal = _view_of_target(target)
    candidates = [one for column in columns if groups and (one := _candidate(frame, column)) is not None]
    found: list[tuple[int, _Candidate]] = []
    for candidate in _with_partners(candidates, frame, columns):
        rank = _rank(candidate, goal, frame, columns)
        if rank is not None and not any(_is_same_partition(candidate.codes, other.codes) for _, other in found):
            found.append((rank, candidate))
    found.sort(key=lambda pair: pair[0])
    # If people or places were measured on several days, the question about them mentions the days.
    found = [pair for pair in found if pair[0] < 2 or found[0][0] == 2][:_MAX_QUESTIONS]
    questions = [Question(one.column.name, "groups", _words_of_group(one)) for _, one in found]
    if time and not questions:
        drifting = [column for column in columns if _drifts(frame, column, goal)][:_MAX_QUESTIONS]
        questions = [Question(column.name, "time", _words_of_drift(column, target.name)) for column in drifting]
    return tuple(questions)


# ------------------------------------------------------------------------------------------------ columns that repeat


def _candidate(frame: pd.DataFrame, column: Column) -> _Candidate | None:
    """The column with its values numbered, if they repeat enough to keep rows together."""
    if column.kind in ("boolean", "constant", "empty", "other") or column.n_distinct < _MIN_VALUES:
        return None
    values = frame[column.name]
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if column.kind == "number":
        numbers = as_features(frame, [column]).iloc[:, 0].dropna()
        if not np.array_equal(numbers, np.round(numbers)):
            return None
    if column.kind == "date":
        values = np.floor(as_features(frame, [column]).iloc[:, 0])  # the day
    elif not is_number:
        values = as_features(frame, [replace(column, kind="category")]).iloc[:, 0]
    codes, names = pd.factorize(values, sort=is_number or column.kind == "date")
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    with_others = sizes[sizes > 1].sum() / max(len(codes), 1)
    if len(names) < _MIN_VALUES or with_others < 0.2:
        return None
    # A row without a value belongs to no other row.
    lone = codes < 0
    codes = np.where(lone, len(names) + np.cumsum(lone) - 1, codes)
    return _Candidate(column, codes, pd.Index(names), _words(column.name), not is_number and column.kind != "date")


def _words(name: str) -> tuple[str, ...]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", " ", name)
    words = [word for word in re.split(r"[\W_\d]+", apart.lower()) if word]
    # Written as one word: userid, kundennummer.
    for ending in ("id", "nr", "nummer", "number"):
        if words and (stem := words[-1].removesuffix(ending)) != words[-1]:
            found = next((unit for unit in (stem, stem[:-1], stem[:-2]) if unit in _UNITS), "")  # Patient-en-nummer
            words[-1:] = [found, ending] if found else words[-1:]
    return tuple(words)


def _kind_of_name(words: tuple[str, ...]) -> Literal["unit", "name", "place", "day", "kind", ""]:
    """What the name of a column stands for, judging by its last words: "patient age" is an age."""
    if not words or (words[0] in _COUNTED and len(words) > 1) or set(words[1:]) & _RELATIONS:
        return ""
    if words == ("name",):
        return "name"
    bare = tuple(word for word in words if word not in _ID and word not in ("name", "the"))
    has_id = len(bare) < len(words) and words[-1] in _ID | {"name"} or words[0] == "id"
    if not bare:
        return "unit"
    if set(bare) & _KINDS:
        return "kind"
    if bare[-1] in _UNITS or (bare[-1] in _PERHAPS_UNITS and len(bare) == 1):
        return "unit"
    if bare[-1] in _PLACES and (len(bare) == 1 or has_id):
        return "place"
    if bare[-1] in _DAYS and len(bare) == 1:
        return "day"
    return "unit" if has_id and words[-1] in ("id", "uuid", "guid", "identifier", "kennung") else ""


def _with_partners(
    candidates: Sequence[_Candidate], frame: pd.DataFrame, columns: Sequence[Column]
) -> list[_Candidate]:
    """Each with a partner, if there is one: a year for a firm, a visit for a patient."""
    if not candidates:
        return []
    others = []
    for column in columns:
        if column.kind in ("number", "date", "category") and 3 <= column.n_distinct <= len(frame) / 3:
            others.append((column, np.asarray(pd.factorize(frame[column.name], use_na_sentinel=False)[0])))
    others.sort(key=lambda other: not set(_words(other[0].name)) & _TIMES)  # those that look like a time first
    return [_with_partner(candidate, others) for candidate in candidates]


def _with_partner(candidate: _Candidate, others: Sequence[tuple[Column, np.ndarray]]) -> _Candidate:
    n_rows, shares = len(candidate.codes), np.bincount(candidate.codes) / len(candidate.codes)
    for column, codes in others:
        if column.name == candidate.column.name:
            continue
        # By chance, this many pairs of rows would share both values. If none does, the table was made that way.
        by_chance = float(shares @ shares) * float(np.sum((np.bincount(codes) / n_rows) ** 2))
        pairs = candidate.codes.astype(np.int64) * (int(codes.max()) + 1) + codes
        if by_chance * n_rows * (n_rows - 1) / 2 >= 10 and _are_distinct(pairs[:5000]) and _are_distinct(pairs):
            return replace(candidate, partner=column, partner_codes=codes)
    return candidate


def _are_distinct(values: np.ndarray) -> bool:
    return len(np.unique(values)) == len(values)


def _is_same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = first.astype(np.int64) * (int(second.max()) + 1) + second
    return len(np.unique(pairs)) == int(first.max()) + 1 == int(second.max()) + 1


# ------------------------------------------------------------------------------------------------------ similarity


def _rank(candidate: _Candidate, goal: np.ndarray, frame: pd.DataFrame, columns: Sequence[Column]) -> int | None:
    """The rank of its question: 0 for people and things, 1 for places, 2 for days; None if there is no question."""
    name, rows_a_value = _kind_of_name(candidate.words), len(goal) / candidate.n_values
    if name == "kind" and candidate.is_nominal:
        return None
    rows = _some_rows(candidate.codes)
    codes, values = np.unique(candidate.codes[rows], return_inverse=True)[1], goal[rows]
    is_alike = _is_alike(codes, values)
    if candidate.column.kind == "date" or name == "day":
        if candidate.n_values <= 7:  # days of the week, which will come again
            return None
        # A number called "day" may count days, and what grows with it is a feature.
        is_trend = candidate.column.kind != "date" and not _is_alike(codes, _less_neighbours(codes, values))
        return 2 if is_alike and not is_trend and rows_a_value >= 1.5 else None
    if not is_alike and candidate.partner_codes is not None:
        # Within a year, say: growth from year to year hides how alike the rows of a firm are.
        is_alike = _is_alike(codes, _less_means(values, candidate.partner_codes[rows]))
    if name == "unit" and candidate.is_a_count:
        return None
    if name == "unit":
        of_whom = [column for column in columns if column.is_used and column is not candidate.column][:_MAX_FEATURES]
        views = (_view(frame.iloc[rows], column) for column in of_whom)
        return 0 if is_alike or any(_is_alike(codes, view, 0.3) for view in views) else None
    if not is_alike:
        return None
    if name == "name":
        return 0 if rows_a_value >= 3 else None
    sizes = np.bincount(candidate.codes)
    if name == "place":  # with about as many rows each: visited in turn, not just where rows happen to come from
        is_visited = rows_a_value <= 50 and sizes.std() <= 0.5 * sizes.mean()
        return 1 if candidate.partner is not None or is_visited else None
    if candidate.partner is not None and candidate.is_nominal and candidate.partner.kind in ("number", "date"):
        return 1
    looks_coded = candidate.n_values >= 20 and 2 <= rows_a_value <= 50 and _looks_coded(candidate, codes, values)
    return 1 if looks_coded and _is_alike(codes, values, 0.2, 8) else None


def _looks_coded(candidate: _Candidate, codes: np.ndarray, values: np.ndarray) -> bool:
    """Whether the values of a column are names of something, not kinds or quantities."""
    if candidate.is_nominal:
        return float(np.mean([_CODE.fullmatch(str(value)) is not None for value in candidate.values])) >= 0.9
    numbers = candidate.values.to_numpy(np.float64)
    # Long numbers that are not rounded and yet repeat.
    if np.median(numbers) >= 10_000 and np.mean(numbers % 10 == 0) <= 0.3:
        return True
    # Numbers with hardly a gap, in a table sorted by them, whose neighbours have nothing in common.
    in_order = np.count_nonzero(np.diff(candidate.codes)) <= 1.1 * candidate.n_values
    is_dense = candidate.n_values >= 0.8 * (numbers[-1] - numbers[0] + 1)
    return bool(in_order and is_dense) and _is_alike(codes, _less_neighbours(codes, values))


def _is_alike(codes: np.ndarray, values: np.ndarray, correlation: float = 0.1, deviations: float = 5) -> bool:
    """Whether rows with the same code have values that are alike, beyond chance.

    The measure is the intraclass correlation. If codes were assigned to the rows at random, the share of the sum of
    squares between codes would follow a beta distribution; how many standard deviations the share lies above its mean
    says whether it is chance.
    """
    n_rows, sizes = len(codes), np.bincount(codes)
    n_groups, values = len(sizes), values - values.mean(axis=0)
    total = float((values**2).sum())
    if n_groups < 2 or n_groups >= n_rows or total <= 1e-12 * n_rows:
        return False
    between = float(sum((np.bincount(codes, column, n_groups) ** 2 / sizes).sum() for column in values.T))
    share, by_chance = between / total, (n_groups - 1) / (n_rows - 1)
    deviation = np.sqrt(2 * by_chance * (1 - by_chance) / (n_rows + 1))
    of_group, of_row = between / (n_groups - 1), max(total - between, 0.0) / (n_rows - n_groups)
    rows_a_group = (n_rows - float((sizes**2).sum()) / n_rows) / (n_groups - 1)
    found = (of_group - of_row) / (of_group + (rows_a_group - 1) * of_row)
    return bool(found >= correlation and share - by_chance >= deviations * deviation)


def _less_neighbours(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values less the mean of the three nearest numbers on either side: without a trend."""
    around = np.array([1, 1, 1, 0, 1, 1, 1])

    def of_neighbours(sums: np.ndarray) -> np.ndarray:
        return np.convolve(sums, around)[3:-3]

    n_rows = of_neighbours(np.bincount(codes).astype(np.float64))
    means = np.stack([of_neighbours(np.bincount(codes, column)) / n_rows for column in values.T], axis=1)
    return np.asarray(values - means[codes])


def _less_means(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    codes = np.unique(codes, return_inverse=True)[1]
    means = np.stack([np.bincount(codes, column) / np.bincount(codes) for column in values.T], axis=1)
    return np.asarray(values - means[codes])


def _some_rows(codes: np.ndarray) -> np.ndarray:
    """All rows; or, of a long table, those of enough values drawn at random."""
    if len(codes) <= _MAX_ROWS:
        return np.arange(len(codes))
    generator, sizes = np.random.RandomState(0), np.bincount(codes)
    order = generator.permutation(len(sizes))
    n_kept = max(int(np.searchsorted(np.cumsum(sizes[order]), _MAX_ROWS)), _MIN_VALUES)
    rows = np.flatnonzero(np.isin(codes, order[:n_kept]))
    return rows if len(rows) <= 2 * _MAX_ROWS else np.sort(generator.permutation(rows)[: 2 * _MAX_ROWS])


def _view(frame: pd.DataFrame, column: Column) -> np.ndarray:
    """A column as numbers whose distances mean something: ranks, or a column for each frequent category."""
    series = as_features(frame[[column.name]], [column]).iloc[:, 0]
    return _one_hot(series) if column.kind == "category" else _ranks(series)


def _view_of_target(target: Target) -> np.ndarray:
    values = pd.Series(target.values)
    return _ranks(values) if target.task == "regression" else _one_hot(values)


def _one_hot(values: pd.Series[Any]) -> np.ndarray:
    frequent = values.value_counts().index[:20]
    return np.stack([(values == value).to_numpy(np.float64) for value in frequent], axis=1)


def _ranks(values: pd.Series[Any]) -> np.ndarray:
    return values.rank(pct=True).fillna(0.5).to_numpy(np.float64)[:, None]


# ----------------------------------------------------------------------------------------------------------- drift


def _drifts(frame: pd.DataFrame, column: Column, goal: np.ndarray) -> bool:
    """Whether rows that follow each other in time have similar targets."""
    words = _words(column.name)
    if any(one in word for word in words for one in _BIRTH) or len(frame) < 30:
        return False
    if column.kind == "date":
        moments = as_features(frame, [column]).iloc[:, 0]
    elif column.kind in ("number", "id") and len(words) == 1 and words[0] in _TIMES - {"visit"}:
        moments = pd.to_numeric(frame[column.name], errors="coerce")
        # A duration is a number like any other; a table that was written as time went by is sorted by it.
        if not (moments.is_monotonic_increasing or moments.is_monotonic_decreasing):
            return False
        if moments.nunique() < 0.8 * len(moments):
            return False
    else:
        return False
    order = np.argsort(moments.to_numpy(np.float64, na_value=np.nan), kind="stable")
    values = goal[order] - goal.mean(axis=0)
    correlation = float((values[1:] * values[:-1]).sum() / max((values**2).sum(), 1e-12))
    return correlation >= 0.25 and correlation * np.sqrt(len(values)) >= 5


# ----------------------------------------------------------------------------------------------------------- words


def _words_of_group(candidate: _Candidate) -> str:
    name, written = candidate.column.name, printable(shlex.quote(candidate.column.name))
    n_rows, n_values = len(candidate.codes), candidate.column.n_distinct
    later = ""
    column = candidate.partner
    if candidate.column.kind == "date" or _kind_of_name(candidate.words) == "day":
        column = candidate.column
    if column is not None and (column.kind == "date" or set(_words(column.name)) & _TIMES):
        option = printable(shlex.quote(column.name))
        later = f" If it will look ahead, pass time={column.name!r} (--time {option}): the latest rows are held out."
    return (
        f"{quoted(name)} repeats: {n_values:,} values in {n_rows:,} rows, and rows that share a value are alike. If "
        f"rows are held out at random, the same {quoted(name)} is on both sides, and the score is too good for values "
        f"that the model has never seen. If the model will meet new ones, pass groups={name!r} (--groups {written}): "
        f"all rows of a value are then held out together. If not, pass groups=False (--no-groups).{later}"
    )


def _words_of_drift(column: Column, target: str) -> str:
    name, written = column.name, printable(shlex.quote(column.name))
    return (
        f"{quoted(target)} drifts along {quoted(name)}: rows that follow each other are alike. If rows are held out at "
        "random, each test row lies between training rows, which is easier than looking ahead. If the model will look "
        f"ahead, pass time={name!r} (--time {written}): the latest rows are then held out. If not, pass time=False "
        "(--no-time)."
    )
