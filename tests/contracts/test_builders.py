"""What every builder promises, with every kind of target: it fits, predicts, is saved, pickled and cloned.

Builders are found by `list_builders`, and tried on rows of every form, so that a new one is tested without being named.
"""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

from kerastoolkit import KerasClassifier, KerasRegressor, KerasTransformer, builders, load
from kerastoolkit.builders import Head
from kerastoolkit.exceptions import ParameterError

_ROWS = 64
_PIXELS, _LABELS = load_digits(n_class=6, return_X_y=True)
_PIXELS, _LABELS = _PIXELS[:_ROWS].astype("float32") / 16, _LABELS[:_ROWS]

# Rows of every form, of the same images.
_FORMS: dict[str, Any] = {
    "features": _PIXELS,
    "series": _PIXELS.reshape(-1, 8, 8),
    "images": _PIXELS.reshape(-1, 8, 8, 1),
    "inputs": {"edge": _PIXELS[:, :8], "image": _PIXELS.reshape(-1, 8, 8, 1)},
}
_TABLE = pd.DataFrame(
    {
        "dark": _PIXELS.mean(axis=1),
        "middle": _PIXELS[:, 28],
        "shade": np.where(_PIXELS[:, 20] > 0.5, "dark", "light"),
    }
)

_TARGETS: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "binary": (KerasClassifier, np.where(_LABELS > 2, "large", "small"), {}),
    "multiclass": (KerasClassifier, _LABELS % 3, {}),
    "multilabel": (KerasClassifier, np.stack([_LABELS % 2, _LABELS > 2], axis=1).astype(int), {}),
    "ordinal": (KerasClassifier, _LABELS // 2, {"head__kind": "ordinal"}),
    "regression": (KerasRegressor, _LABELS + 0.5, {}),
    "regression of two": (KerasRegressor, np.stack([_LABELS + 0.5, -_LABELS], axis=1), {}),
    "counts": (KerasRegressor, _LABELS, {"head__kind": "counts"}),
    "several": (KerasClassifier, {"size": _LABELS + 0.5, "odd": _LABELS % 2}, {"head__kind": {"size": "regression"}}),
}


def _takes_head(name: str) -> bool:
    return "head" in inspect.signature(builders.get(name)).parameters


def _rows_for(name: str) -> Any:
    """The first form of rows that a builder does not refuse."""
    builder = builders.get(name)
    if "columns" in inspect.signature(builder).parameters:
        return _TABLE
    for X in _FORMS.values():
        shape = {key: part.shape[1:] for key, part in X.items()} if isinstance(X, dict) else X.shape[1:]
        try:
            builder(shape, Head.binary())
        except ParameterError:
            continue
        return X
    raise AssertionError(f"{name} takes no rows that are known here")


def _small(name: str) -> dict[str, Any]:
    """Fewer units and channels than the defaults, under the names that all builders share."""
    known = inspect.signature(builders.get(name)).parameters
    return {key: value for key, value in {"hidden": (8,), "filters": (4,)}.items() if key in known}


def _raw(estimator: Any, X: Any) -> list[Any]:
    made = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)
    return keras.tree.flatten(made)


@pytest.mark.parametrize("target", _TARGETS)
@pytest.mark.parametrize("name", [name for name in builders.list_builders() if _takes_head(name)])
def test_a_builder_and_a_kind_of_target_go_together(name: str, target: str, tmp_path: Path) -> None:
    kind, y, options = _TARGETS[target]
    X = _rows_for(name)
    estimator = kind(name, epochs=1, random_state=0, **_small(name), **options)
    copied = clone(estimator)
    estimator.fit(X, y)

    predicted, true = estimator.predict(X), y if isinstance(y, dict) else {"y": y}
    for key, column in true.items():
        found = predicted[key] if isinstance(y, dict) else predicted
        assert found.shape == column.shape
        of_classes = kind is KerasClassifier and column.dtype.kind != "f"
        assert np.isin(found, column).all() if of_classes else np.isfinite(found).all()
    expected = _raw(estimator, X)
    for again in (load(estimator.save(tmp_path / "one.zip")), pickle.loads(pickle.dumps(estimator))):
        for one, other in zip(_raw(again, X), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert copied.get_params() == estimator.get_params()
    assert not hasattr(copied, "head_")


@pytest.mark.parametrize("name", [name for name in builders.list_builders() if not _takes_head(name)])
def test_a_builder_without_a_target_goes_with_a_transformer(name: str, tmp_path: Path) -> None:
    X = _FORMS["features"]
    estimator = KerasTransformer(name, n_components=3, epochs=1, random_state=0, **_small(name)).fit(X)
    expected = estimator.transform(X)
    assert expected.shape == (_ROWS, 3)
    assert estimator.inverse_transform(expected).shape == X.shape
    for again in (load(estimator.save(tmp_path / "one.zip")), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(again.transform(X), expected)
    assert clone(estimator).get_params() == estimator.get_params()


@pytest.mark.parametrize("name", builders.list_builders())
def test_builders_share_the_names_of_their_arguments(name: str) -> None:
    parameters = inspect.signature(builders.get(name)).parameters
    assert next(iter(parameters)) in ("input_shape", "columns")
    defaults = {key: parameters[key].default for key in ("dropout", "l2")}
    assert defaults == {"dropout": 0.0, "l2": 0.0}
    assert {"hidden", "activation", "normalization"} <= set(parameters)


@pytest.mark.parametrize("name", builders.list_builders())
def test_every_shared_argument_reaches_the_layers(name: str) -> None:
    builder, given = builders.get(name), {"dropout": 0.25, "normalization": "batch", "l2": 0.125, "activation": "selu"}
    if name == "tabular":
        from kerastoolkit.data import learn_table

        model = builder(learn_table(_TABLE), Head.binary(), **given)
    else:
        X = _rows_for(name) if _takes_head(name) else _FORMS["features"]
        shape = {key: part.shape[1:] for key, part in X.items()} if isinstance(X, dict) else X.shape[1:]
        model = builder(shape, Head.binary(), **given) if _takes_head(name) else builder(shape, **given)
    config = str(model.get_config())
    assert "'rate': 0.25" in config
    assert "BatchNormalization" in config
    assert "0.125" in config
    assert "selu" in config
