"""Estimators: Keras models with scikit-learn's interface.

`KerasClassifier`, `KerasRegressor` and `KerasTransformer` take any model; `ImageClassifier`, `ImageRegressor` and
`TextClassifier` take images and texts as they are. `load` reads what their `save` wrote, and `from_scikeras` takes over
an estimator of scikeras.
"""

from __future__ import annotations

from kerastoolkit.estimators._scikeras import from_scikeras
from kerastoolkit.estimators.classifier import KerasClassifier
from kerastoolkit.estimators.image import ImageClassifier, ImageRegressor
from kerastoolkit.estimators.regressor import KerasRegressor
from kerastoolkit.estimators.saving import load
from kerastoolkit.estimators.text import TextClassifier
from kerastoolkit.estimators.transformer import KerasTransformer

__all__ = [
    "ImageClassifier",
    "ImageRegressor",
    "KerasClassifier",
    "KerasRegressor",
    "KerasTransformer",
    "TextClassifier",
    "from_scikeras",
    "load",
]
