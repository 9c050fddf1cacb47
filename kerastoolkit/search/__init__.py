"""Search: scikit-learn's searches over Keras models, trained as one program."""

from __future__ import annotations

from kerastoolkit.search.backend import FusedBackend, Report, fused
from kerastoolkit.search.journal import Journal
from kerastoolkit.search.searches import GridSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV

__all__ = [
    "FusedBackend",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "Journal",
    "RandomizedSearchCV",
    "Report",
    "fused",
]
