"""What is held out, and how.

Two doors. `holdout` answers for a target: it decides between plain, by class and by quantile, and says which it
took and why. `holdout_indices` is the bare mechanism below it, which the estimators use for `validation_split`.

Both return row indices, never copies of the data: the caller cuts once, where the data lives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state

from kerastoolkit.exceptions import DataError, ParameterError

__all__ = ["Holdout", "holdout", "holdout_indices"]

# Below this many rows per quantile bin a held-out bin would be one or two rows, and the strata mean nothing.
_ROWS_PER_BIN = 10
_MAX_BINS = 10


@dataclass(frozen=True)
class Holdout:
    """Rows kept for training and rows held out, and how they were chosen.

    Attributes:
        train: Positions of the training rows, shape `(n_train,)`, sorted.
        test: Positions of the held-out rows, shape `(n_test,)`, sorted.
        how: One of `"by class"`, `"by quantile"`, `"plain"`.
        why: A sentence for the user.
    """

    train: np.ndarray
    test: np.ndarray
    how: Literal["by class", "by quantile", "plain"]
    why: str


def holdout(
    y: Any,
    fraction: float = 0.2,
    *,
    task: Literal["classification", "regression"] = "classification",
    random_state: int | np.random.RandomState | None = None,
) -> Holdout:
    """Holds out a share of the rows so that the target looks alike on both sides.

    A classification target is split by class. A regression target is split by quantile, in as many bins as leave ten
    rows in each (at most ten bins); a target with too few rows or too few distinct values is split plainly.

    Example:

    >>> y = [0] * 80 + [1] * 20
    >>> held_out = holdout(y, 0.25, random_state=0)
    >>> len(held_out.train), len(held_out.test), held_out.how
    (75, 25, 'by class')

    Args:
        y: Target, shape `(n_rows,)`; any dtype for classification, numbers for regression.
        fraction: Share of the rows to hold out, between 0 and 1, both excluded. Defaults to `0.2`.
        task: `"classification"` or `"regression"`. Defaults to `"classification"`.
        random_state: Seed or generator of the shuffle. Defaults to `None`, another split at each call.

    Returns:
        A `Holdout`: two arrays of row positions, and how they came about.

    Raises:
        ParameterError: If `fraction` or `task` cannot be used.
        DataError: If there are fewer than two rows.
    """
    y = np.asarray(y)
    if task not in ("classification", "regression"):
        raise ParameterError(f"`task` must be 'classification' or 'regression'. Got {task!r}.")
    if task == "classification":
        train, test, kept = _split(len(y), fraction, y, random_state)
        if kept:
            return Holdout(train, test, "by class", "each class has the same share of both sides")
        return Holdout(train, test, "plain", "a class is too small to be on both sides, so rows were drawn at random")
    bins = _quantile_bins(y.astype(np.float64))
    train, test, kept = _split(len(y), fraction, bins, random_state)
    if bins is not None and kept:
        n_bins = len(np.unique(bins))
        return Holdout(train, test, "by quantile", f"the target was cut into {n_bins} quantiles, each on both sides")
    return Holdout(train, test, "plain", "too few rows or distinct values for quantiles, so rows were drawn at random")


def holdout_indices(
    n_rows: int,
    fraction: float,
    *,
    stratify: Sequence[Any] | np.ndarray | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the positions of the training rows and of the held-out rows.

    The rows are shuffled before they are cut, and both results are sorted, so that cutting keeps the order of the
    data. At least one row stays on each side. With `stratify`, each class keeps its share on both sides; if a class
    has fewer than two members, or there are fewer held-out or training rows than classes, the split is plain instead.

    Args:
        n_rows: Number of rows to split.
        fraction: Share to hold out, between 0 and 1, both excluded; rounded up to whole rows.
        stratify: Class of each row, shape `(n_rows,)`. Rows of a 2-D array are taken as classes. Defaults to `None`,
            a plain split.
        random_state: Seed or generator of the shuffle. Defaults to `None`, another split at each call.

    Returns:
        Two sorted integer arrays, shapes `(n_train,)` and `(n_held_out,)`: the positions to train on, and those held
        out. Together they hold every position once.

    Raises:
        ParameterError: If `fraction` is not between 0 and 1, or `stratify` has another length than `n_rows`.
        DataError: If there are fewer than two rows.
    """
    train, held_out, _ = _split(n_rows, fraction, stratify, random_state)
    return train, held_out


def _split(n_rows: int, fraction: float, stratify: Any, random_state: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """`holdout_indices`, and whether the strata were kept."""
    if not 0.0 < fraction < 1.0:
        raise ParameterError(f"The fraction to hold out must be between 0 and 1, both excluded. Got {fraction!r}.")
    if n_rows < 2:
        raise DataError(f"Holding out needs at least 2 rows. Got {n_rows}.")
    # A tiny slack first: 0.1 * 30 is 3.0000000000000004 in floating point, and three rows were asked for.
    n_held_out = min(max(math.ceil(fraction * n_rows - 1e-9), 1), n_rows - 1)
    generator = check_random_state(random_state)
    strata = None if stratify is None else _codes(stratify, n_rows)
    kept = strata is not None and _can_stratify(strata, n_held_out)
    if strata is not None and kept:
        held_out = _draw_by_class(strata, n_held_out, generator)
    else:
        held_out = generator.permutation(n_rows)[:n_held_out]
    is_held_out = np.zeros(n_rows, dtype=bool)
    is_held_out[held_out] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out), kept


def _draw_by_class(codes: np.ndarray, n_held_out: int, generator: np.random.RandomState) -> np.ndarray:
    """Held-out positions with every class on both sides, in shares as near to its own as whole rows allow."""
    counts = np.bincount(codes)
    exact = counts * (n_held_out / len(codes))
    quota = np.clip(np.floor(exact).astype(np.int64), 1, counts - 1)
    # Largest remainder, one row at a time; ties fall at random, so that no class is always favoured.
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


def _codes(labels: Any, n_rows: int) -> np.ndarray:
    """Classes numbered from 0 in the order of first sight, for any dtype (missing values are a class)."""
    import pandas as pd

    labels = np.asarray(labels)
    if len(labels) != n_rows:
        raise ParameterError(f"`stratify` must have one entry a row: {n_rows}. Got {len(labels)}.")
    if labels.ndim > 1:
        return np.unique(labels.reshape(n_rows, -1), axis=0, return_inverse=True)[1].reshape(-1)
    return np.asarray(pd.factorize(labels, use_na_sentinel=False)[0])


def _quantile_bins(y: np.ndarray) -> np.ndarray | None:
    """Bin of each row, or None where quantiles would be empty words."""
    n_bins = min(_MAX_BINS, len(y) // _ROWS_PER_BIN)
    if n_bins < 2:
        return None
    edges = np.unique(np.quantile(y, np.linspace(0, 1, n_bins + 1)[1:-1]))
    bins = np.searchsorted(edges, y, side="right")
    return bins if len(np.unique(bins)) > 1 else None
