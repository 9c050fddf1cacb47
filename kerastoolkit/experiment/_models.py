"""The models of an experiment: how a table becomes inputs, the network that a grid varies, and fitted baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from kerastoolkit.data.tables import Column, as_features, category_names, read_table
from kerastoolkit.evaluation import get_scorer, threads_for

if TYPE_CHECKING:
    from kerastoolkit.estimators import KerasClassifier, KerasRegressor

__all__ = [
    "Task",
    "estimator_class",
    "fit_baseline",
    "for_tables",
    "make_network",
    "make_preprocessor",
    "network_prefix",
    "test_scorers",
]

Task = Literal["classification", "regression"]

_MAX_CATEGORIES = 30
# Scored on the test rows, too, besides the metric that chose the winner.
_ALSO_SCORED = {
    "classification": ("accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"),
    "regression": ("r2", "neg_root_mean_squared_error", "neg_mean_absolute_error"),
}


def estimator_class(task: Task) -> type[KerasClassifier] | type[KerasRegressor]:
    from kerastoolkit.estimators import KerasClassifier, KerasRegressor

    return KerasClassifier if task == "classification" else KerasRegressor


def make_preprocessor(columns: Sequence[Column], X: pd.DataFrame) -> BaseEstimator:
    """Imputes, scales and encodes; blanks and categories never seen have a place."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = category_names(columns)
    numbers = [name for name in X.columns if name not in set(categories)]
    # A column that is blank in one fold alone must keep its place, or the networks' inputs would differ.
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encode = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=_MAX_CATEGORIES, sparse_output=False, dtype=np.float32
    )
    fill = SimpleImputer(strategy="constant", fill_value="(blank)", keep_empty_features=True)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(impute, StandardScaler()), numbers),
            ("categories", make_pipeline(fill, encode), categories),
        ],
        verbose_feature_names_out=False,
        sparse_threshold=0.0,
    )


def make_network(task: Task, n_rows: int, random_state: int) -> BaseEstimator:
    """The estimator that the grid varies: sized for the number of rows, stopped when validation rows say so."""
    import keras

    batch_size, epochs, patience = _training_size(n_rows)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)
    estimator = estimator_class(task)(
        epochs=epochs,
        batch_size=batch_size,
        validation_split=0.15,
        callbacks={"early_stopping": stop},
        random_state=random_state,
    )
    if task == "classification":
        return estimator
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    # A network starts near 0; a target in the hundreds would take it most of its epochs to reach.
    return TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())


def _training_size(n_rows: int) -> tuple[int, int, int]:
    """Batch size, most epochs and patience: small tables many epochs of small batches, large ones the reverse.

    An epoch costs some 40 ms however few its rows, so that steps are cheaper in longer epochs: hence small batches.
    """
    batch_size = int(min(max(2 ** round(math.log2(max(n_rows, 1) / 30)), 16), 512))
    steps_per_epoch = max(n_rows // batch_size, 1)
    epochs = int(min(max(4000 // steps_per_epoch, 15), 40))
    return batch_size, epochs, max(epochs // 6, 3)


def network_prefix(task: Task) -> str:
    return "network__" if task == "classification" else "network__regressor__"


def fit_baseline(model: BaseEstimator, X: pd.DataFrame, y: np.ndarray) -> BaseEstimator:
    with threads_for(len(y)):
        return clone(model).fit(X, y)


def for_tables(fitted: BaseEstimator, columns: list[Column]) -> Pipeline:
    """A model fitted on typed features, for tables as `Experiment.predict` takes them."""
    from sklearn.preprocessing import FunctionTransformer

    return Pipeline([("features", FunctionTransformer(_features, kw_args={"columns": columns})), ("model", fitted)])


def _features(table: str | Path | pd.DataFrame, columns: list[Column]) -> pd.DataFrame:
    return as_features(read_table(table, columns=columns).frame, columns)


def test_scorers(scoring: str, task: Task, classes: np.ndarray | None) -> dict[str, Callable[..., float]]:
    names = [scoring]
    for name in _ALSO_SCORED[task]:
        name = "roc_auc_ovr" if name == "roc_auc" and classes is not None and len(classes) > 2 else name
        if name not in names:
            names.append(name)
    return {name: get_scorer(name, classes) for name in names}
