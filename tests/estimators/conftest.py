"""Data that several files of these tests share."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler


@pytest.fixture(scope="module")
def iris() -> tuple[np.ndarray, np.ndarray]:
    """Four scaled features of 150 flowers, sorted by their three species."""
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y
