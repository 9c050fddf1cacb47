"""`KerasRegressor`: what regression adds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from kerastoolkit._types import Dataset, Rows
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.estimators import _inputs
from kerastoolkit.estimators._base import KerasEstimator


class KerasRegressor(RegressorMixin, KerasEstimator):
    """A Keras model as a scikit-learn regressor.

    Example:

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> KerasRegressor(hidden=(16,), epochs=20, random_state=0).fit(X, y).predict(X[:2]).shape
    (2,)

    A builder of kerastoolkit trains on `(y - mean) / standard deviation`, so that targets of any unit can be learned
    with the default learning rate: `history_` is in these units, `predict` and `score` are in the units of `y`. A model
    of yours trains on `y` itself.

    Parameters that are not listed below are set as for `KerasClassifier`, those of the head being `head__kind` and
    `head__weight`; `list_parameters()` lists all parameters with their values.

    Args:
        loss: Name, class, function or instance. Defaults to `None`: what the model was compiled with, or mean
            squared error.
        metrics: A metric or a list or dict of them. Defaults to `None`: what the model was compiled with, or R2.

    Attributes:
        n_features_in_: Number of features per row, for `X` of one array.
        feature_names_in_: Names of the features, for tables with string column names.
        columns_: The `TableEncoder` of the table, where the builder takes them.
    """

    _task = "regression"
    unused_parameters: tuple[str, ...] = ("class_weight",)

    def score(self, X: Rows, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination, R2.

        Args:
            X: Rows, as for `fit`; a data set brings its own `y`.
            y: True targets.
            sample_weight: Weights, shape `(n,)`. Defaults to `None`.

        Returns:
            1 for perfect predictions, 0 for those of the mean, negative for worse.
        """
        X, y = self._with_true_target(X, y)
        predicted = self.predict(X)
        if isinstance(predicted, dict):
            y, predicted = np.column_stack([y[name] for name in predicted]), np.column_stack(list(predicted.values()))
        if np.ndim(predicted) > 2:  # R2 of each number of a row, as of columns
            y, predicted = np.reshape(y, (len(predicted), -1)), predicted.reshape(len(predicted), -1)
        return self._scored(y, predicted, sample_weight, ours=KerasRegressor.scorer)

    @staticmethod
    def scorer(y_true: ArrayLike, y_pred: ArrayLike, **options: object) -> float:
        """What `score` computes; override it to score otherwise. `score__` parameters are its options.

        Args:
            y_true: True targets.
            y_pred: Predictions.
            **options: Arguments of `sklearn.metrics.r2_score`.

        Returns:
            R2, 1 for perfect predictions.
        """
        largest = float(np.max(np.abs(np.asarray(y_true)), initial=0.0))
        if largest > 0 and not 1e-100 < largest < 1e100:  # whose squares are no numbers; R2 has no unit
            y_true, y_pred = np.asarray(y_true) / largest, np.asarray(y_pred) / largest
        return float(r2_score(y_true, y_pred, **options))

    def _dataset_head(self, dataset: Dataset, classes: ArrayLike | None) -> Head | HeadGroup:
        y = next(_inputs.batches(dataset))[1]
        n_targets = 1 if y.ndim == 1 else int(np.prod(y.shape[1:]))
        counts = self._params.get("head__kind") == "counts"
        made = (Head.counts if counts else Head.regression)(n_targets)
        return dataclasses.replace(made, shape=y.shape[1:]) if y.ndim > 2 else made
