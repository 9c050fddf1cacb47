"""What arguments are, where their type takes more than a word: data as users give them, and as a network takes them.

Keras, TensorFlow, scikit-learn and scipy carry no types: a type checker takes their classes for anything, a reader does
not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import pandas as pd
    import polars as pl
    import tensorflow as tf
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import spmatrix
    from torch.utils.data import DataLoader

# Batches of (x, y) or (x, y, weights), which Keras takes as they are.
Dataset: TypeAlias = "keras.utils.PyDataset | tf.data.Dataset | DataLoader[Any]"

# What an estimator may be given as `X`: an array, a table, a sparse matrix, texts, files, a folder; a dict or list of
# arrays for several inputs; or a data set.
Table: TypeAlias = "pd.DataFrame | pl.DataFrame"
Rows: TypeAlias = "ArrayLike | Table | spmatrix | Mapping[str, ArrayLike] | Sequence[ArrayLike] | Path | Dataset"

# What it may be given as `y`; None beside a data set or a folder, which bring their own.
Target: TypeAlias = "ArrayLike | pd.Series[Any] | Mapping[str, ArrayLike] | None"

# `(X, y)` or `(X, y, sample_weight)`, or a data set.
Validation: TypeAlias = "tuple[Rows, Target] | tuple[Rows, Target, ArrayLike] | Dataset | None"

# Weights by label, for several targets a list of them; or "balanced".
ClassWeight: TypeAlias = "Mapping[Any, float] | Sequence[Mapping[Any, float] | None] | str | None"

# What a reader makes of rows and a network takes, what it learns to predict, and what it puts out.
InputArrays: TypeAlias = "NDArray[Any] | spmatrix | Mapping[str, NDArray[Any]] | list[NDArray[Any]]"
TargetArrays: TypeAlias = "NDArray[Any] | Mapping[str, NDArray[Any]]"
OutputArrays: TypeAlias = "NDArray[Any] | Mapping[str, NDArray[Any]] | list[NDArray[Any]]"
