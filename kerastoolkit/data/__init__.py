"""Data: what a table holds, how its columns go into a network, pictures, and what is held out."""

from __future__ import annotations

from kerastoolkit.data.columns import CategoryColumn, Columns, NumberColumn, learn_columns
from kerastoolkit.data.images import list_pictures, read_pictures
from kerastoolkit.data.splits import Holdout, holdout, holdout_indices

__all__ = [
    "CategoryColumn",
    "Columns",
    "Holdout",
    "NumberColumn",
    "holdout",
    "holdout_indices",
    "learn_columns",
    "list_pictures",
    "read_pictures",
]
