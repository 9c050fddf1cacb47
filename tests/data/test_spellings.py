"""Random tables as people of five countries write them: read as written, or refused, or told; never changed in silence.

A table is drawn as values first, and then written: separators, decimal marks, marks between thousands, currencies,
dates, offsets, blanks, quotes, encodings. What was read is held against the values. Where the file leaves open what it
means, a wrong guess is allowed only if the note names an entry, how it was read, and, rightly, what else it could be.

A few tables are drawn, always the same. `KERASTOOLKIT_TEST_TABLES=300` asks for more, and
`KERASTOOLKIT_TEST_TABLES_FROM=500` for others: a table's number is its seed.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kerastoolkit.data.tables import (
    Column,
    Table,
    as_features,
    describe_columns,
    read_table,
    read_target,
    unread_entries,
)
from kerastoolkit.exceptions import DataError

N_TABLES = int(os.environ.get("KERASTOOLKIT_TEST_TABLES", "60"))
FIRST = int(os.environ.get("KERASTOOLKIT_TEST_TABLES_FROM", "0"))


@dataclass
class Country:
    """How numbers and dates are written there."""

    decimal: str
    thousands: tuple[str, ...]
    delimiters: tuple[str, ...]
    money: tuple[str, ...]
    dates: tuple[str, ...]
    times: tuple[str, ...] = (" %H:%M", " %H:%M:%S")


COUNTRIES = {
    "United States": Country(".", (",",), (",", "\t"), ("${}", "USD {}"), ("%m/%d/%Y", "%m/%d/%y"), (" %I:%M %p",)),
    "Britain": Country(".", (",",), (",", "|"), ("£{}", "{} GBP"), ("%d/%m/%Y", "%d/%m/%y", "%d %b %Y")),
    "Germany": Country(",", (".",), (";", "\t"), ("{} €", "EUR {}"), ("%d.%m.%Y", "%d.%m.%y")),
    "France": Country(",", ("\u202f", "\u00a0", " "), (";",), ("{} €", "{}€"), ("%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y")),
    "Switzerland": Country(".", ("'", "’"), (";", ","), ("CHF {}", "Fr. {}"), ("%d.%m.%Y", "%d.%m.%y")),
}
BLANKS = ("", "", "", "NA", "?", "n/a", "None", "null", "-")
WORDS = (("red", "green", "blue"), ("None", "mild", "severe"), ("DE", "FR", "NA"), ("Köln", "Zürich", "Bern"))


@dataclass
class Drawn:
    """A column: its values, None where it has none, and how they are written."""

    name: str
    kind: str  # number, date or words
    values: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Writer:
    """One person with habits, who writes tables."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.country = COUNTRIES[draw.choice(list(COUNTRIES))]
        self.thousands = draw.choice(self.country.thousands) if draw.random() < 0.7 else ""
        self.delimiter = draw.choice(self.country.delimiters)
        self.blank = draw.choice(BLANKS)
        self.encoding = draw.choices(["utf-8", "utf-8-sig", "utf-16", "cp1252"], [6, 2, 1, 1])[0]
        if self.encoding == "cp1252":
            self.thousands = self.thousands.replace("\u202f", "\u00a0")
        self.quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        kinds = ["whole", "fixed", "fixed", "free", "money", "percent", "accounts", "date", "time", "offset", "words"]
        kinds += ["code", "spoilt", "mistaken", "foreign"]
        self.recipes = [self._recipe(kind) for kind in draw.choices(kinds, k=draw.randint(1, 6))]
        self.names = [f"{kind}{place}" for place, (kind, *_) in enumerate(self.recipes)]

    def _recipe(self, kind: str) -> tuple[Any, ...]:
        draw, country = self.draw, self.country
        size = 10 ** draw.choice([1, 2, 3, 4, 6])
        if kind in ("date", "time", "mistaken"):
            when = draw.choice(country.dates) + (draw.choice(country.times) if kind == "time" else "")
            return kind, when, 0
        return kind, size, draw.choice([1, 2, 2, 3, 3, 4]), draw.choice(country.money), draw.choice(WORDS)

    def number(self, value: float, digits: int, *, strip: bool = False) -> str:
        """As this person writes it; `strip` leaves out zeros at the end."""
        text = f"{abs(value):,.{digits}f}"
        whole, _, part = text.partition(".")
        part = part.rstrip("0") if strip else part
        whole = whole.replace(",", self.thousands)
        return ("-" if value < 0 else "") + whole + (self.country.decimal + part if part else "")

    def cell(self, recipe: tuple[Any, ...]) -> tuple[Any, str]:
        """A value and how it is written."""
        kind, draw = recipe[0], self.draw
        if kind in ("date", "time", "mistaken"):
            day = datetime(1990, 1, 1) + timedelta(minutes=draw.randrange(60 * 24 * 365 * 30))
            text = day.strftime(recipe[1])
            return datetime.strptime(text, recipe[1]), text
        if kind == "offset":
            day = datetime(2020, 1, 1) + timedelta(hours=draw.randrange(24 * 365 * 2))
            zone = timezone(timedelta(hours=2 if 4 <= day.month < 10 else 1))
            local = day.replace(tzinfo=zone)
            return local.astimezone(UTC).replace(tzinfo=None), local.isoformat()
        _, size, digits, money, words = recipe
        if kind == "words":
            word = draw.choice(words)
            return word, word
        if kind == "code":
            text = f"{draw.randrange(40):04d}"
            return text, text
        value = round(draw.uniform(-size if kind == "accounts" else 0, size), 0 if kind == "whole" else digits)
        if kind in ("whole", "fixed", "free", "spoilt"):
            return value, self.number(value, 0 if kind == "whole" else digits, strip=kind == "free")
        if kind == "money":
            value = round(value, 2)
            return value, money.format(self.number(value, 2))
        if kind == "foreign":  # from another program, which writes decimals as others do
            value = round(value % 1000, digits)
            mark = "," if self.country.decimal == "." else "."
            return value, f"{value:.{digits}f}".replace(".", mark)
        if kind == "percent":
            value = round(value % 100, digits)
            return value, self.number(value, digits) + "%"
        text = self.number(abs(value), digits)
        return value, f"({text})" if value < 0 else text

    def table(self, n_rows: int) -> list[Drawn]:
        drawn = []
        for name, recipe in zip(self.names, self.recipes, strict=True):
            kind = {"words": "words", "code": "words"}.get(recipe[0], "number")
            column = Drawn(name, "date" if recipe[0] in ("date", "time", "offset", "mistaken") else kind)
            has_blanks = self.draw.random() < 0.5
            for row in range(n_rows):
                value, text = self.cell(recipe)
                if has_blanks and self.draw.random() < 0.1:
                    value, text = None, "" if column.kind == "words" and self.blank == "-" else self.blank
                elif recipe[0] in ("spoilt", "mistaken") and row == 7:
                    value, text = None, "unknown" if recipe[0] == "spoilt" else "31.02.2020"
                column.values.append(value)
                column.texts.append(text)
            drawn.append(column)
        return drawn

    def file(self, table: list[Drawn], path: Path) -> Path:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, quoting=self.quoting, lineterminator="\r\n")
        writer.writerow([column.name for column in table])
        writer.writerows(zip(*(column.texts for column in table), strict=True))
        path.write_bytes(text.getvalue().encode(self.encoding))
        return path


def _told(column: Column, drawn: Drawn) -> bool:
    """Whether the note says of an entry that it could be what it is."""
    match = re.search(r"'(.+?)' is read as (.+?), .*; it could be ([^;]+)", column.note)
    if match is None:
        return False
    entry, meant = match[1], match[3]
    value = next(value for value, text in zip(drawn.values, drawn.texts, strict=True) if text.strip() == entry)
    if drawn.kind == "date":
        return f"{value:%Y-%m-%d}" == meant
    return math.isclose(value, float(meant), rel_tol=1e-12)


def _differs(read: pd.DataFrame, column: Column, drawn: Drawn) -> np.ndarray:
    """Rows in which another value was read than was written."""
    if drawn.kind == "date":
        meant = pd.to_datetime(pd.Series(drawn.values, dtype="object"))
        days = ((meant - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy(dtype=float)
        return ~np.isclose(read[f"{column.name} (days)"].to_numpy(), days, rtol=0, atol=1e-9, equal_nan=True)
    if drawn.kind == "words":
        words = read[column.name].astype("object")
        return np.array([a != b and not (pd.isna(a) and b is None) for a, b in zip(words, drawn.values, strict=True)])
    numbers = np.array([math.nan if value is None else value for value in drawn.values])
    return ~((read[column.name].to_numpy() == numbers) | (np.isnan(numbers) & np.isnan(read[column.name].to_numpy())))


def _check_first(writer: Writer, table: list[Drawn], path: Path, found: Counter[str]) -> list[Column] | None:
    try:
        read = read_table(path)
    except DataError as error:
        assert writer.encoding == "cp1252" and "not UTF-8" in str(error)
        found["refused"] += 1
        return None
    # A frame of the same texts is read in the same way, but for what the delimiter tells.
    _check_columns(read_table(pd.DataFrame({column.name: column.texts for column in table})), table, Counter())
    return _check_columns(read, table, found)


def _check_columns(read: Table, table: list[Drawn], found: Counter[str]) -> list[Column]:
    columns = describe_columns(read)
    features = as_features(read.frame, columns)
    for column, drawn in zip(columns, table, strict=True):
        assert column.name == drawn.name
        if not column.is_used:
            assert column.note.startswith("left out"), column
            found["left out"] += drawn.kind != "words" and column.kind != "empty" and len(set(drawn.values)) > 1
            continue
        if drawn.kind == "words":
            wrong = {drawn.texts[row] for row in np.flatnonzero(_differs(features, column, drawn))}
            assert all(f"'{word}'" in column.note for word in wrong), (column, wrong)
            found["a word for a blank, told" if wrong else "read"] += 1
            continue
        assert column.kind == drawn.kind or (column.kind == "boolean" and drawn.kind == "number"), column
        differs = _differs(features, column, drawn)
        assert not differs.any() or _told(column, drawn), (column, drawn.texts[:9], features.iloc[:9].to_dict("list"))
        found["another reading, told" if differs.any() else "read"] += 1
    return columns


def _check_target(path: Path, columns: list[Column]) -> None:
    """The same values come out of a column when it is the target."""
    read = read_table(path)
    for column in columns:
        if column.kind not in ("number", "category"):
            continue
        try:
            target = read_target(read, column.name)
        except DataError as error:
            assert "one row only" in str(error)
            continue
        features = as_features(read.frame, [column])[column.name].iloc[target.kept]
        assert list(map(str, target.values)) == list(map(str, features.astype(target.values.dtype)))


def _check_new_rows(writer: Writer, columns: list[Column], first: list[Drawn], path: Path) -> None:
    """New rows mean what they mean by the spelling of the first table, or are blanks that are counted."""
    table = writer.table(4)
    frame = read_table(writer.file(table, path), columns=columns).frame
    features = as_features(frame, columns)
    unread = unread_entries(frame, features, columns)
    for column, drawn, known in zip(columns, table, first, strict=True):
        if not column.is_used or drawn.kind == "words" or (column.note and "it could be" in column.note):
            continue
        wrong = np.flatnonzero(_differs(features, column, drawn))
        name = f"{column.name} (days)" if drawn.kind == "date" else column.name
        assert features[name].iloc[wrong].isna().all(), (column, drawn.texts, features[name].tolist(), known.texts[:9])
        assert unread.get(column.name, 0) >= len(wrong)


def test_random_tables_are_read_as_they_are_written(tmp_path: Path) -> None:
    found = Counter[str]()
    for seed in range(FIRST, FIRST + N_TABLES):
        writer = Writer(seed)
        table = writer.table(writer.draw.choice([12, 40, 40, 150, 1500] if seed % 10 == 0 else [12, 40, 40, 150]))
        path = writer.file(table, tmp_path / f"{seed}.csv")
        try:
            columns = _check_first(writer, table, path, found)
            if columns is not None:
                _check_target(path, columns)
                _check_new_rows(writer, columns, table, tmp_path / f"{seed}-new.csv")
        except Exception as error:
            error.add_note(f"table {seed}: {path}")
            raise
    print(dict(found))
    assert found["read"] >= 0.85 * found.total(), found
