"""The models of an experiment: how a table becomes inputs, the network that a grid varies, and fitted baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

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
    "make_scorers",
    "network_prefix",
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
    """Makes the transformer that imputes, scales and encodes; blanks and categories never seen before have a place.

    Args:
        columns: What each column of the table holds.
        X: Typed features, shape `(n_rows, n_features)`; only the names of their columns are used.

    Returns:
        The unfitted transformer.
    """
    categories = category_names(columns)
    numbers = [name for name in X.columns if name not in set(categories)]
    # A column that is blank in only one fold must keep its place, or else the networks' inputs would differ.
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
    """Makes the estimator that the grid varies, trained in a way that suits the number of rows.

    Args:
        task: `"classification"` or `"regression"`.
        n_rows: Number of rows that a fit gets.
        random_state: Seed of every fit.

    Returns:
        The unfitted estimator; for regression it scales its target, and scores and predicts in its units.
    """
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
    # A network starts near 0, and would need most of its epochs to reach a target in the hundreds.
    return TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())


def _training_size(n_rows: int) -> tuple[int, int, int]:
    """Batch size, maximum number of epochs, and patience: many epochs of small batches for a small table.

    An epoch costs some 40 ms however few rows it has, so steps are cheaper in longer epochs: hence small batches.
    """
    batch_size = int(min(max(2 ** round(math.log2(max(n_rows, 1) / 30)), 16), 512))
    steps_per_epoch = max(n_rows // batch_size, 1)
    epochs = int(min(max(4000 // steps_per_epoch, 15), 40))
    return batch_size, epochs, max(epochs // 6, 3)


def network_prefix(task: Task) -> str:
    """What comes before the names of the estimator's parameters in the pipeline of an experiment."""
    return "network__" if task == "classification" else "network__regressor__"


def fit_baseline(model: BaseEstimator, X: pd.DataFrame, y: np.ndarray) -> BaseEstimator:
    """Fits a copy of a baseline to typed features, shape `(n_rows, n_features)`, and targets, shape `(n_rows,)`."""
    with threads_for(len(y)):
        return clone(model).fit(X, y)


def for_tables(fitted: BaseEstimator, columns: list[Column]) -> Pipeline:
    """Wraps a model that was fitted to typed features, so that it takes tables as `Experiment.predict` does."""
    return Pipeline([("features", FunctionTransformer(_features, kw_args={"columns": columns})), ("model", fitted)])


def _features(table: str | Path | pd.DataFrame, columns: list[Column]) -> pd.DataFrame:
    return as_features(read_table(table, columns=columns).frame, columns)


def make_scorers(scoring: str, task: Task, classes: np.ndarray | None) -> dict[str, Callable[..., float]]:
    """Makes the scorers for the test rows: the one that chose the winner comes first.

    Args:
        scoring: Name of the scorer that chose the winner.
        task: `"classification"` or `"regression"`.
        classes: The classes, sorted; None for regression.

    Returns:
        Scorers by name.
    """
    names = [scoring]
    for name in _ALSO_SCORED[task]:
        name = "roc_auc_ovr" if name == "roc_auc" and classes is not None and len(classes) > 2 else name
        if name not in names:
            names.append(name)
    return {name: get_scorer(name, classes) for name in names}
