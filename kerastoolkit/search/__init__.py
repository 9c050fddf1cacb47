"""Search: scikit-learn's searches over Keras models, trained as one program.

`GridSearchCV`, `RandomizedSearchCV`, the halving searches and `OptunaSearchCV` train their fits together; inside
`fused()` so does everything else that hands its fits to joblib. A `Journal` lets an interrupted search resume, and
`Rungs` stop its worst candidates early.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kerastoolkit.search.backend import FusedBackend, TrainingReport, fused
from kerastoolkit.search.rungs import Rungs

if TYPE_CHECKING:
    from kerastoolkit.search._progress import FinishedFit, SearchProgress
    from kerastoolkit.search.journal import Journal
    from kerastoolkit.search.optuna import OptunaSearchCV
    from kerastoolkit.search.searches import (
        GridSearchCV,
        HalvingGridSearchCV,
        HalvingRandomSearchCV,
        RandomizedSearchCV,
    )

__all__ = [
    "FinishedFit",
    "FusedBackend",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "Journal",
    "OptunaSearchCV",
    "RandomizedSearchCV",
    "Rungs",
    "SearchProgress",
    "TrainingReport",
    "fused",
]


def __getattr__(name: str) -> object:
    """Loads the searches when they are first asked for: the backend is needed by more, and loads quicker."""
    if name in __all__:
        rooms = {"FinishedFit": "_progress", "SearchProgress": "_progress", "Journal": "journal"}
        module = {**rooms, "OptunaSearchCV": "optuna"}.get(name, "searches")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
