"""A small extractor, and images for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def small() -> Callable[..., Any]:
    """The quickest extractor there is, with arguments of `feature_extractor` as keywords."""
    from kerastoolkit import transfer  # not before the backend is chosen

    def build(**arguments: Any) -> Any:
        return transfer.feature_extractor(
            "MobileNet",
            **{"weights": None, "input_size": 32, "layer": "conv_pw_3_relu", "random_state": 0, **arguments},
        )

    return build


@pytest.fixture
def digits() -> tuple[Any, Any]:
    """Grey images of 8 by 8 pixels, 0 to 255, and their digits."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X * 255 / 16).round().astype("uint8").reshape(-1, 8, 8, 1), y
