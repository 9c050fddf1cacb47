"""Data: what a table, a text or an image holds, how it goes into a network, and what is held out of it."""

from __future__ import annotations

from kerastoolkit.data.columns import CategoryColumn, Columns, NumberColumn, learn_columns
from kerastoolkit.data.images import list_images, read_images
from kerastoolkit.data.splits import Holdout, folds, holdout, holdout_indices
from kerastoolkit.data.text import Vocabulary, learn_vocabulary
from kerastoolkit.data.vectors import read_vectors

__all__ = [
    "CategoryColumn",
    "Columns",
    "Holdout",
    "NumberColumn",
    "Vocabulary",
    "folds",
    "holdout",
    "holdout_indices",
    "learn_columns",
    "learn_vocabulary",
    "list_images",
    "read_images",
    "read_vectors",
]
