"""What scikit-learn hands to joblib."""

from __future__ import annotations

import inspect
from typing import Any


def is_fit(function: Any) -> bool:
    """Whether joblib was handed scikit-learn's function that fits and scores one candidate on one split."""
    inner = inspect.unwrap(function)
    name, module = getattr(inner, "__name__", ""), getattr(inner, "__module__", "") or ""
    return name == "_fit_and_score" and module.startswith("sklearn.model_selection.")
