"""Data: what a table holds, how its columns go into a network, and what is held out of it."""

from __future__ import annotations

from kerastoolkit.data.columns import CategoryColumn, Columns, NumberColumn, learn_columns
from kerastoolkit.data.splits import Holdout, holdout, holdout_indices

__all__ = ["CategoryColumn", "Columns", "Holdout", "NumberColumn", "holdout", "holdout_indices", "learn_columns"]
