"""Data: what a table, a text or an image holds, how it goes into a network, and what is held out of it."""

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
