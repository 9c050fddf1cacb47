"""What is held out, and how.

`holdout` splits by a target: it decides between a plain split and one by class or by quantile, keeps groups together or
takes the latest rows if asked to, and says what it did and why. `folds` cuts the rows for a cross-validation in the
same way. `holdout_indices` is the bare mechanism underneath, which the estimators use for `validation_split`.

All return row positions, never copies of the data: the caller cuts once, where the data are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.utils import check_random_state

from kerastoolkit.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Holdout", "folds", "holdout", "holdout_indices"]

Task = Literal["classification", "regression"]

# With fewer rows per quantile, the held-out part of a bin would be one or two rows, and the strata would mean nothing.
_ROWS_PER_BIN = 10
_MAX_BINS = 10
GROUPS_OR_TIME = (
    "`groups` and `time` answer two questions: how good a model is for groups that it has not seen, and how good it is "
    "later on. Pass the one that matches how the model will be used."
)
# Of this many random ways to deal out the groups (fewer for millions of rows), the one that keeps the classes nearest
# to their shares is taken.
_DRAWS = 200


@dataclass(frozen=True, repr=False)
class Holdout:
    """Which rows are for training and which are held out, and how they were chosen.

    Attributes:
        train: Positions of the training rows, shape `(n_train,)`, sorted.
        test: Positions of the held-out rows, shape `(n_test,)`, sorted.
        how: One of `"by class"`, `"by quantile"`, `"plain"`, `"by group"`, `"by time"`.
        why: The reason, as a sentence for the user.
    """

    train: np.ndarray
    test: np.ndarray
    how: Literal["by class", "by quantile", "plain", "by group", "by time"]
    why: str

    def __repr__(self) -> str:
        return f"<Holdout {self.how}: {len(self.train)} rows to train on, {len(self.test)} to test on; {self.why}>"


def holdout(
    y: ArrayLike,
    fraction: float = 0.2,
    *,
    task: Task = "classification",
    groups: ArrayLike | None = None,
    time: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Holdout:
    """Holds out a share of the rows, with the target distributed alike on both sides.

    A classification target is split by class. A regression target is split by quantile, in as many bins as leave ten
    rows in each (at most ten bins); a target with too few rows or too few distinct values is split at random.

    Rows that belong together, such as the visits of one patient, must not be on both sides, or else the model is scored
    on patients that it knows: with `groups`, whole groups are held out, as many as come nearest to `fraction` of the
    rows, and the target is distributed as alike as whole groups allow. With `time`, the latest rows are held out, as in
    a forecast; rows of one time stay together.

    Example:

    >>> y = [0] * 80 + [1] * 20
    >>> held_out = holdout(y, 0.25, random_state=0)
    >>> len(held_out.train), len(held_out.test), held_out.how
    (75, 25, 'by class')
    >>> patients = [row // 10 for row in range(100)]
    >>> held_out = holdout(y, 0.25, groups=patients, random_state=0)
    >>> {patients[row] for row in held_out.train} & {patients[row] for row in held_out.test}
    set()

    Args:
        y: Target, shape `(n_rows,)`; any dtype for classification, numbers for regression.
        fraction: Share of the rows to hold out, between 0 and 1, both excluded. Defaults to `0.2`.
        task: `"classification"` or `"regression"`. Defaults to `"classification"`.
        groups: Group of each row, shape `(n_rows,)`, any dtype; rows without one are a group. Defaults to `None`.
        time: When each row was recorded, shape `(n_rows,)`, numbers or dates. Not together with `groups`, and
            `random_state` then has no effect. Defaults to `None`.
        random_state: Seed or generator of the shuffle. Defaults to `None`: another split in every call.

    Returns:
        A `Holdout`: two arrays of row positions, and how they were chosen.

    Raises:
        ParameterError: If `fraction`, `task`, `groups` or `time` cannot be used.
        DataError: If there are fewer than two rows, groups or times, or a row has no time.
    """
    y = np.asarray(y)
    strata = _strata(y, task)
    train, test, kept = _split(len(y), fraction, strata, random_state, groups, time)
    if groups is not None:
        codes = _codes(groups, len(y), "groups")
        told = f"{len(np.unique(codes[test]))} of {len(np.unique(codes))} groups, each of them whole on one side"
        return Holdout(train, test, "by group", told)
    if time is not None:
        return Holdout(train, test, "by time", "the latest rows, as the future is when the model is used")
    if task == "classification":
        if kept:
            return Holdout(train, test, "by class", "each class has the same share of both sides")
        return Holdout(train, test, "plain", "a class is too small to be on both sides, so rows were drawn at random")
    if strata is not None and kept:
        n_bins = len(np.unique(strata))
        return Holdout(train, test, "by quantile", f"the target was cut into {n_bins} quantiles, each on both sides")
    return Holdout(train, test, "plain", "too few rows or distinct values for quantiles, so rows were drawn at random")


def folds(
    y: ArrayLike,
    n_folds: int,
    *,
    task: Task = "classification",
    groups: ArrayLike | None = None,
    time: ArrayLike | None = None,
    random_state: int | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cuts the rows into the folds of a cross-validation, as scikit-learn's `cv` takes them.

    Plain folds are those of scikit-learn's `StratifiedKFold` or `KFold`, shuffled. With `groups`, each fold consists of
    whole groups, dealt out at random, with sizes and classes (or quantiles of a quantity) as alike as whole groups
    allow. scikit-learn's `StratifiedGroupKFold` is not used, because its folds are the same for every seed if groups
    differ in size. With `time`, the rows are put in order and cut into one part more than there are folds; each fold is
    scored on one part and trained on all that came before it, as in `TimeSeriesSplit`, but rows of one time stay
    together. There is only one way to do this, whatever the seed.

    Example:

    >>> [(len(train), len(scored)) for train, scored in folds([0, 1] * 6, 3, time=range(12))]
    [(3, 3), (6, 3), (9, 3)]

    Args:
        y: Target, shape `(n_rows,)`.
        n_folds: Number of folds, at least 2.
        task: `"classification"` or `"regression"`. Defaults to `"classification"`.
        groups: Group of each row, shape `(n_rows,)`. Defaults to `None`.
        time: When each row was recorded, shape `(n_rows,)`, numbers or dates; not together with `groups`.
            Defaults to `None`.
        random_state: Seed of the shuffle. Defaults to `None`: other folds in every call.

    Returns:
        For each fold, the positions of the rows to train on and of those to score, sorted.

    Raises:
        ParameterError: If an argument cannot be used.
        DataError: If there are too few groups or times for so many folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    y = np.asarray(y)
    strata = _strata(y, task)
    if groups is None and time is None:
        kind = StratifiedKFold if task == "classification" else KFold
        return list(kind(n_folds, shuffle=True, random_state=random_state).split(y, y))
    if time is not None:
        part = _parts(len(y), np.full(n_folds + 1, 1 / (n_folds + 1)), None, None, groups, time)
        return [(np.flatnonzero(part < scored), np.flatnonzero(part == scored)) for scored in range(1, n_folds + 1)]
    generator = check_random_state(random_state)
    part = _parts(len(y), np.full(n_folds, 1 / n_folds), strata, generator, groups, None)
    return [(np.flatnonzero(part != scored), np.flatnonzero(part == scored)) for scored in range(n_folds)]


def holdout_indices(
    n_rows: int,
    fraction: float,
    *,
    stratify: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    time: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the positions of the training rows and of the held-out rows.

    The rows are shuffled before they are cut, and both results are sorted, so that cutting keeps the order of the
    data. At least one row stays on each side. With `stratify`, each class keeps its share on both sides; if a class
    has fewer than two rows, or there are fewer held-out or training rows than classes, the split is plain instead.
    With `groups`, whole groups are held out, and the classes keep their shares as nearly as that allows; with `time`,
    the latest rows are held out.

    Args:
        n_rows: Number of rows to split.
        fraction: Share to hold out, between 0 and 1, both excluded; rounded up to whole rows, or to the nearest
            number of rows that whole groups or times have.
        stratify: Class of each row, shape `(n_rows,)`. In a 2-D array, each distinct row is a class. Defaults to
            `None`: a plain split.
        groups: Group of each row, shape `(n_rows,)`, any dtype; rows without one are a group. Defaults to `None`.
        time: When each row was recorded, shape `(n_rows,)`, numbers or dates; not together with `groups`.
            Defaults to `None`.
        random_state: Seed or generator of the shuffle. Defaults to `None`: another split in every call.

    Returns:
        Two sorted integer arrays, shapes `(n_train,)` and `(n_held_out,)`: the positions of the training rows and of
        the held-out rows. Together they hold every position once.

    Raises:
        ParameterError: If `fraction` is not between 0 and 1, or `stratify`, `groups` or `time` cannot be used.
        DataError: If there are fewer than two rows, groups or times, or a row has no time.
    """
    train, held_out, _ = _split(n_rows, fraction, stratify, random_state, groups, time)
    return train, held_out


def _split(
    n_rows: int,
    fraction: float,
    stratify: ArrayLike | None,
    random_state: int | np.random.RandomState | None,
    groups: ArrayLike | None = None,
    time: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """`holdout_indices`, and whether the strata were kept."""
    if not 0.0 < fraction < 1.0:
        raise ParameterError(f"The fraction to hold out must be between 0 and 1, both excluded. Got {fraction!r}.")
    if n_rows < 2:
        raise DataError(f"Holding out needs at least 2 rows. Got {n_rows}.")
    generator = check_random_state(random_state)
    if groups is not None or time is not None:
        is_held_out = _parts(n_rows, np.array([1 - fraction, fraction]), stratify, generator, groups, time) == 1
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out), False
    # Minus a little, since 0.1 * 30 is 3.0000000000000004 in floating point, and three rows are meant.
    n_held_out = min(max(math.ceil(fraction * n_rows - 1e-9), 1), n_rows - 1)
    strata = None if stratify is None else _codes(stratify, n_rows, "stratify")
    kept = strata is not None and _can_stratify(strata, n_held_out)
    if strata is not None and kept:
        held_out = _draw_by_class(strata, n_held_out, generator)
    else:
        held_out = generator.permutation(n_rows)[:n_held_out]
    is_held_out = np.zeros(n_rows, dtype=bool)
    is_held_out[held_out] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out), kept


# ------------------------------------------------------------------------------------- rows that belong together


def _parts(
    n_rows: int,
    shares: np.ndarray,
    stratify: ArrayLike | None,
    generator: np.random.RandomState | None,
    groups: ArrayLike | None,
    time: ArrayLike | None,
) -> np.ndarray:
    """The part of each row, shape `(n_rows,)`: whole groups at random, or one stretch of time after the other."""
    if groups is not None and time is not None:
        raise ParameterError(GROUPS_OR_TIME)
    what = "groups" if time is None else "time"
    codes = _ranks(time, n_rows) if time is not None else _codes(np.asarray(groups), n_rows, what)
    n_blocks = int(codes.max()) + 1
    if n_blocks < len(shares):
        noun = "groups" if time is None else "different times"
        raise DataError(f"`{what}` must have at least {len(shares)} {noun} for this split. Got {n_blocks}.")
    if time is not None or generator is None:
        return np.asarray(_cut(np.bincount(codes), shares)[codes])
    strata = np.zeros(n_rows, dtype=np.int64) if stratify is None else _codes(stratify, n_rows, "stratify")
    return _deal_out(codes, strata, shares, generator)


def _deal_out(
    codes: np.ndarray, strata: np.ndarray, shares: np.ndarray, generator: np.random.RandomState
) -> np.ndarray:
    """The part of each row: of many random ways to deal out the groups, the one that keeps the strata best."""
    sizes, n_strata = np.bincount(codes), int(strata.max()) + 1
    wanted = np.outer(shares, np.bincount(strata))
    best: tuple[float, float] = (math.inf, math.inf)
    kept = codes
    for _ in range(int(np.clip(10_000_000 // len(codes), _DRAWS // 10, _DRAWS))):
        order = generator.permutation(len(sizes))
        part = np.empty(len(sizes), dtype=np.int64)
        part[order] = _cut(sizes[order], shares)
        found = np.bincount(part[codes] * n_strata + strata, minlength=wanted.size).reshape(wanted.shape)
        # A class that is missing on one side is worse than shares that are slightly off.
        missed = (float((found == 0).sum()), float(np.mean(np.abs(found - wanted) / wanted)))
        if missed < best:
            best, kept = missed, part[codes]
    return kept


def _cut(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each block, where the parts get their shares of the rows as nearly as whole blocks allow.

    The blocks stay in their order, and no part is empty.
    """
    n_parts, ends = len(shares), np.cumsum(sizes)
    wanted = np.cumsum(shares)[:-1] * ends[-1]
    at = np.array([np.argmin(np.abs(ends - rows)) + 1 for rows in wanted], dtype=np.int64)
    steps = np.arange(n_parts - 1)
    at = np.maximum.accumulate(at - steps) + steps
    at = np.minimum(at, len(sizes) - (n_parts - 1) + steps)
    return np.searchsorted(at, np.arange(len(sizes)), side="right")


def _ranks(time: ArrayLike, n_rows: int) -> np.ndarray:
    """Times numbered from the first to the last."""
    import pandas as pd

    times = pd.Series(np.asarray(time)) if not isinstance(time, pd.Series) else time.reset_index(drop=True)
    if len(times) != n_rows:
        raise ParameterError(f"`time` must have one entry a row: {n_rows}. Got {len(times)}.")
    kinds = (pd.api.types.is_numeric_dtype, pd.api.types.is_datetime64_any_dtype, pd.api.types.is_timedelta64_dtype)
    if not any(is_kind(times.dtype) for is_kind in kinds):
        raise ParameterError(f"`time` must hold numbers or dates, which have an order. Got {times.dtype}.")
    if n_blank := int(times.isna().sum()):
        raise DataError(f"`time` is blank in {n_blank} of {n_rows} rows, which cannot be put in order. Remove them.")
    return np.asarray(pd.factorize(times, sort=True)[0])


def _strata(y: np.ndarray, task: Task) -> np.ndarray | None:
    if task not in ("classification", "regression"):
        raise ParameterError(f"`task` must be 'classification' or 'regression'. Got {task!r}.")
    return y if task == "classification" else _quantile_bins(y.astype(np.float64))


# ---------------------------------------------------------------------------------------------------------- strata


def _draw_by_class(codes: np.ndarray, n_held_out: int, generator: np.random.RandomState) -> np.ndarray:
    """Held-out positions with every class on both sides, in shares as near to its own as whole rows allow."""
    counts = np.bincount(codes)
    exact = counts * (n_held_out / len(codes))
    quota = np.clip(np.floor(exact).astype(np.int64), 1, counts - 1)
    # Largest remainder, one row at a time; ties are broken at random, so that no class is always favoured.
    tiebreak = generator.permutation(len(counts))
    while (missing := n_held_out - int(quota.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = quota < counts - 1 if step > 0 else quota > 1
        gap = np.where(room, (exact - quota) * step, -np.inf)
        order = np.lexsort((tiebreak, -gap))
        quota[order[: min(abs(missing), int(room.sum()))]] += step
    by_class = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    drawn = [generator.permutation(rows)[:n] for rows, n in zip(by_class, quota, strict=True)]
    return np.concatenate(drawn)


def _can_stratify(codes: np.ndarray, n_held_out: int) -> bool:
    counts = np.bincount(codes)
    n_train = len(codes) - n_held_out
    return len(counts) > 1 and counts.min() >= 2 and min(n_held_out, n_train) >= len(counts)


def _codes(labels: ArrayLike, n_rows: int, what: str) -> np.ndarray:
    """Classes numbered from 0 in the order in which they first occur, for any dtype (missing values are a class)."""
    import pandas as pd

    labels = np.asarray(labels)
    if len(labels) != n_rows:
        raise ParameterError(f"`{what}` must have one entry a row: {n_rows}. Got {len(labels)}.")
    if labels.ndim > 1:
        return np.unique(labels.reshape(n_rows, -1), axis=0, return_inverse=True)[1].reshape(-1)
    return np.asarray(pd.factorize(labels, use_na_sentinel=False)[0])


def _quantile_bins(y: np.ndarray) -> np.ndarray | None:
    """Bin of each row, or None if quantiles would mean nothing."""
    n_bins = min(_MAX_BINS, len(y) // _ROWS_PER_BIN)
    if n_bins < 2:
        return None
    edges = np.unique(np.quantile(y, np.linspace(0, 1, n_bins + 1)[1:-1]))
    bins = np.searchsorted(edges, y, side="right")
    return bins if len(np.unique(bins)) > 1 else None
