"""Data: tables, texts and images as they come, what of them is held out, and how they become arrays.

A `Reader` learns from raw input and encodes it: `TableEncoder` reads tables, `Vocabulary` texts; `register_reader` adds
one of your own.
"""

from __future__ import annotations

from kerastoolkit.data.columns import CategoryColumn, NumberColumn, TableEncoder, learn_table
from kerastoolkit.data.images import list_images, read_images
from kerastoolkit.data.readers import (
    Reader,
    checked_config,
    deserialize_reader,
    get_reader,
    list_readers,
    register_reader,
    serialize_reader,
)
from kerastoolkit.data.splits import Holdout, folds, holdout, holdout_indices
from kerastoolkit.data.text import Vocabulary, learn_vocabulary
from kerastoolkit.data.vectors import read_vectors

__all__ = [
    "CategoryColumn",
    "Holdout",
    "NumberColumn",
    "Reader",
    "TableEncoder",
    "Vocabulary",
    "checked_config",
    "deserialize_reader",
    "folds",
    "get_reader",
    "holdout",
    "holdout_indices",
    "learn_table",
    "learn_vocabulary",
    "list_images",
    "list_readers",
    "read_images",
    "read_vectors",
    "register_reader",
    "serialize_reader",
]
