"""How the numbers and dates of a table are written, and which of its words mean "not available".

1234.5 may be written 1,234.5 or 1.234,5, 1 234,5, 1'234.5, $1,234.50 or (1,234.50), and a single entry is often
ambiguous: 1.234 is more than a thousand in Rome and little more than one in London, 03/04/2021 is in March or in April.
So a spelling is found for a whole column: the one that reads all of its entries, or all but a few. If a column is still
ambiguous, the other columns decide, then its own whole numbers, then the delimiter, and a note always says so.

Only text is considered; numbers stay as they are. A spelling is kept with the description of its column, so that new
rows are read as the first ones were.
"""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from kerastoolkit._words import printable, quoted

__all__ = [
    "MAYBE_BLANKS",
    "SURE_BLANKS",
    "TRUTH",
    "Numbers",
    "Spelling",
    "find_spellings",
    "is_blank",
    "is_text",
    "number_in",
    "read_dates",
    "read_numbers",
    "respelt",
]

# Never a value, whatever the column holds.
SURE_BLANKS = frozenset(
    ["", "?", "nan", "NaN", "-nan", "-NaN", "<NA>", "#N/A", "#NA", "#N/A N/A"]
    + ["1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"]
)
# Blanks among numbers and dates. Among words "NA" may be Namibia, and "None" an answer.
MAYBE_BLANKS = frozenset(["NA", "N/A", "n/a", "NULL", "null", "None"])
TRUTH = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0}

_MAX_STRAYS, _SHARE_OF_STRAYS, _MIN_READ = 3, 0.01, 5  # distinct entries
_SAMPLE = 300  # distinct entries that tell whether a column may hold numbers or dates at all
_MIN_PER_WORD = 20  # "4 doors" is a class, and "4 doors" to "400 doors" are numbers

# Spaces that do not break, minus signs and apostrophes as typesetters write them.
_PLAINER = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2212": "-", "\u2019": "'", "\u02bc": "'"})
_CODES = (
    "EUR|USD|GBP|CHF|JPY|CNY|INR|BRL|CAD|AUD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|ZAR|MXN|KRW|SGD|HKD|"
    "ILS|THB|IDR|MYR|PHP|VND|AED|SAR|EGP|NGN|KES|CLP|COP|ARS|PEN|TWD"
)
_SIGNS = r"(?:US|CA|AU|NZ|HK|A|C|R|S)?\$|[€£¥₹₽₩₺₴₪฿₫]"
_MEASURES = (
    "km/h|mph|m/s|km²|km2|m²|m2|m³|m3|cm³|ha|km|cm|mm|kg|mg|g|lbs|lb|oz|ml|kWh|kW|MW|Hz|kHz|MHz|GHz|kB|KB|MB|GB|TB|"
    "hPa|ms|min|°C|°F|°|m|l|s|t"
)
_MONEY = rf"{_CODES}|kr\.?|Kč|zł|Rs\.?|Fr\.?|Ft|lei"
_KNOWN = re.compile(rf"[%‰]|{_SIGNS}|{_MONEY}|{_MEASURES}")
_BEFORE = rf"(?P<before>{_SIGNS}|(?:{_MONEY})(?![^\W\d_]))"
_AFTER = rf"(?P<after>[%‰]|{_SIGNS}|(?:{_MONEY}|{_MEASURES})(?![^\W\d_])|(?<= )[^\W\d_]{{2,12}}\.?)"
_ENTRY = re.compile(
    rf"(?P<open>\()?(?P<sign>[+-])? ?(?:{_BEFORE} ?)?(?P<late>[+-])?(?P<body>[.,]?[0-9](?:[0-9.,' ]*[0-9.])?)"
    rf"(?P<power>[eE][+-]?[0-9]+)?(?P<last>-)?(?: ?{_AFTER})?(?(open)\))"
)
_PARTS = ("open", "sign", "before", "late", "body", "power", "last", "after")
# Digits, in groups of three or not; or in groups as in India: 12,34,567.
_GROUPS = r"[1-9][0-9]{0,2}(?P<mark>[%s '])[0-9]{3}(?:(?P=mark)[0-9]{3})*"
_BODY = {
    ".": re.compile(rf"(?:[0-9]+|{_GROUPS % ','}|[1-9][0-9]?(?:,[0-9]{{2}})+,[0-9]{{3}})(?:\.[0-9]*)?|\.[0-9]+"),
    ",": re.compile(rf"(?:[0-9]+|{_GROUPS % '.'})(?:,[0-9]+)?|,[0-9]+"),
}
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


def number_in(text: str, decimal: str) -> tuple[float, str] | None:
    """The number that a text is under a decimal mark, and its unit.

    Args:
        text: An entry.
        decimal: `"."` or `","`; the other one may stand between thousands, as may spaces and apostrophes. `""` if the
            mark is unknown: then what has two readings is not read.

    Returns:
        The number, and its unit or `""`; None if the text is no such number.
    """
    point, comma = _readings(text)
    if decimal == "":
        return point or comma if point is None or comma is None or point == comma else None
    return point if decimal == "." else comma


def _readings(text: str) -> tuple[tuple[float, str] | None, tuple[float, str] | None]:
    """The number and the unit that a text is with a decimal point, and with a decimal comma."""
    text = text.strip() if text.isascii() else text.translate(_PLAINER).strip()
    entry = _ENTRY.fullmatch(text)
    if entry is None:
        found = (float(text), "") if _INFINITE.fullmatch(text) else None
        return found, found
    opened, sign, before, late, body, power, last, after = entry.group(*_PARTS)
    signs = (sign or "") + (late or "") + (last or "") + (opened or "")
    if len(signs) > 1 or (before and after):
        return None, None
    factor, unit = -1 if signs in ("-", "(") else 1, before or after or ""
    plain, point, comma = body.replace(" ", "").replace("'", ""), None, None
    if _BODY["."].fullmatch(body):
        point = factor * float(plain.replace(",", "") + (power or "")), unit
    if _BODY[","].fullmatch(body):
        comma = factor * float(plain.replace(".", "").replace(",", ".") + (power or "")), unit
    return point, comma


# ------------------------------------------------------------------------------------------------------ one column


@dataclass(frozen=True)
class Spelling:
    """How the entries of one column are written.

    Attributes:
        kind: `"number"`, `"date"` or `"words"`.
        decimal: The decimal mark of numbers: `"."`, `","`, or `""` if all are whole and nothing shows it.
        unit: What is written before or after numbers, such as `"%"` or `"$"`.
        date_format: The format of dates, as pandas takes it.
        words: Spellings of "not available" that are values here.
        notes: Anything surprising.
        doubt: How entries that can be read in two ways were read, and why; empty if there are none.
    """

    kind: Literal["number", "date", "words"] = "words"
    decimal: str | None = None
    unit: str = ""
    date_format: str | None = None
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubt: str = ""

    @property
    def note(self) -> str:
        """All notes as one."""
        return "; ".join(filter(None, (self.doubt, *self.notes)))


class Numbers:
    """The entries of a column as numbers, under a decimal point and under a decimal comma.

    Args:
        counts: Number of rows by distinct entry.
        n_rows, n_distinct: Rows, and distinct values, that are numbers already. Default to `0`.
    """

    def __init__(self, counts: Mapping[str, int], n_rows: int = 0, n_distinct: int = 0) -> None:
        self.counts, self.n_rows, self.n_distinct = counts, n_rows + sum(counts.values()), n_distinct
        self.read: dict[str, dict[str, tuple[float, str]]] = {".": {}, ",": {}}
        for sample in (list(counts)[:_SAMPLE], list(counts)[_SAMPLE:]):
            for text in sample:
                for read, found in zip(self.read.values(), _readings(text), strict=True):
                    if found is not None:
                        read[text] = found
            if len(self.read["."] | self.read[","]) < 0.5 * len(sample):
                break  # words
        point, comma = self.read["."], self.read[","]
        self.only = {".": [text for text in point if text not in comma], ",": [t for t in comma if t not in point]}
        self.either = [text for text in point if text in comma and point[text] != comma[text]]
        self.whole = [text for text in point if point[text] == comma.get(text)]

    def proven(self) -> str:
        """The decimal mark that entries prove and none contradicts, or nothing."""
        shown = [decimal for decimal in ".," if self.only[decimal]]
        return shown[0] if len(shown) == 1 and self.fits(shown[0]) else ""

    def strays(self, decimal: str) -> list[str]:
        """Entries that are no numbers under this mark."""
        return [text for text in self.counts if text not in self.read[decimal]]

    def units(self, decimal: str) -> list[str]:
        """The units under this mark."""
        return sorted({unit for _, unit in self.read[decimal].values() if unit})

    def fits(self, decimal: str) -> bool:
        """Whether the column may be numbers under this mark."""
        read = self.read[decimal]
        if not _are_few(self.strays(decimal), self.counts, self.n_rows, len(read) + self.n_distinct):
            return False
        if not read:
            return True  # numbers already
        # Where some entries are written with the other mark, they are mistakes only if they are very few.
        other = "," if decimal == "." else "."
        if self.are_codes() or 10 * len(self.only[other]) > len(self.only[decimal]) > 0:
            return False
        units = self.units(decimal)
        is_word = bool(units) and _KNOWN.fullmatch(units[0]) is None
        if len(units) > 1 or (is_word and len(read) <= _MIN_PER_WORD):
            return False
        return not all(text.startswith("(") for text in read)

    def are_codes(self) -> bool:
        """Whether entries are whole numbers of one width, of which some begin with a zero: 01067, 007."""
        read = self.read["."] | self.read[","]
        if self.n_distinct or not any(text[:1] == "0" and len(text) > 1 for text in read):
            return False
        return all(map(re.compile("[0-9]{2,}").fullmatch, read)) and len(set(map(len, read))) == 1

    def mark_of_thousands(self) -> str:
        """`"thousands"` or `"decimal"`, if whole numbers beside the entries with one mark tell what it is."""
        marked = {text for text in self.whole if re.search(r"[0-9][ '][0-9]", text.translate(_PLAINER))}
        sizes = [abs(self.read["."][text][0]) for text in self.whole if text not in marked]
        below, above = any(1 <= size < 1000 for size in sizes), any(1000 <= size < math.inf for size in sizes)
        return "" if below == above else "thousands" if below else "decimal"


def _are_few(strays: Sequence[str], counts: Mapping[str, int], n_rows: int, n_read: int) -> bool:
    """Whether entries that are not of a column's kind are so few that they are mistakes, dashes and dots apart."""
    strays = [text for text in strays if any(map(str.isalnum, text))]
    if not strays:
        return n_read > 0
    few = len(strays) <= max(_MAX_STRAYS, _SHARE_OF_STRAYS * n_read)
    # Two spellings of which one is a number ("0" and "none") are more likely two categories.
    return few and n_read >= _MIN_READ and sum(counts[text] for text in strays) <= 0.5 * n_rows


# ----------------------------------------------------------------------------------------------------------- dates

_DATE = re.compile(r"(?P<a>[0-9]{1,4})(?P<s>[-/.] ?)(?P<b>[0-9]{1,2})(?P=s)(?P<c>[0-9]{1,4})")
_DAY_FIRST = re.compile(r"[0-9]{1,2}(?P<s>\.? |-|/)(?P<m>[A-Za-z]{3,9})(?P<z>,? |-|/)(?P<y>[0-9]{4}|[0-9]{2})\b")
_MONTH_FIRST = re.compile(r"(?P<m>[A-Za-z]{3,9})(?P<s> )[0-9]{1,2}(?P<z>,? )(?P<y>[0-9]{4})\b")
_WEEKDAY = re.compile(r"(?P<w>Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?P<full>[a-z]*)(?P<s>,? )")
_TIME = re.compile(
    r"(?P<gap>,? |T|:)[0-9]{1,2}:[0-9]{2}(?P<seconds>:[0-9]{2}(?P<part>\.[0-9]+)?)?(?P<half> ?[AaPp][Mm])?"
    r"(?P<space> ?)(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_OFFSET = re.compile(r":[0-9]{2}[.0-9]* ?(Z|[+-][0-9]{2}:?[0-9]{2})$")


def _date_formats(text: str) -> tuple[tuple[str, str], ...]:
    """The formats that a text may be written in, each with what comes first in it: day, month or year."""
    weekday = _WEEKDAY.match(text)
    start = "" if weekday is None else ("%A" if weekday["full"] else "%a") + weekday["s"]
    rest = text if weekday is None else text[weekday.end() :]
    for pattern, orders in ((_DATE, None), (_DAY_FIRST, "day"), (_MONTH_FIRST, "month")):
        if (date := pattern.match(rest)) is None:
            continue
        time = _time_format(rest[date.end() :])
        if time is None:
            return ()
        if orders is None:
            return tuple((order, start + made + time) for order, made in _numeric_orders(date, time))
        month, year = ("%b" if len(date["m"]) == 3 else "%B"), ("%Y" if len(date["y"]) == 4 else "%y")
        parts = ("%d", month) if orders == "day" else (month, "%d")
        return (("named", f"{start}{parts[0]}{date['s']}{parts[1]}{date['z']}{year}{time}"),)
    return ()


def _numeric_orders(date: re.Match[str], time: str) -> list[tuple[str, str]]:
    s, first, last = date["s"], len(date["a"]), len(date["c"])
    if first == 4 and last <= 2:
        return [("year", f"%Y{s}%m{s}%d")]
    if first > 2 or last == 3:
        return []
    year = "%Y" if last == 4 else "%y"
    found = [("day", f"%d{s}%m{s}{year}")]
    if not s.startswith("."):
        found.append(("month", f"%m{s}%d{s}{year}"))
        found += [("year", f"%y{s}%m{s}%d")] if last <= 2 else []
    return found


def _time_format(text: str) -> str | None:
    if not text:
        return ""
    time = _TIME.fullmatch(text)
    if time is None or (time["space"] and not time["zone"]):
        return None
    made = time["gap"] + ("%I:%M" if time["half"] else "%H:%M") + (":%S" if time["seconds"] else "")
    made += (".%f" if time["part"] else "") + (" %p" if (time["half"] or "").startswith(" ") else "")
    made += "%p" if time["half"] and not time["half"].startswith(" ") else ""
    return made + (time["space"] + "%z" if time["zone"] else "")


def read_dates(texts: pd.Series[Any], date_format: str) -> pd.Series[Any]:
    """Dates from text, those with an offset in UTC, without a zone; NaT where an entry is no such date.

    Args:
        texts: The entries.
        date_format: As pandas takes it.

    Returns:
        A series of datetime64.
    """
    zoned = date_format == "ISO8601" or "%z" in date_format
    dates = pd.to_datetime(texts, format=date_format, errors="coerce", utc=zoned)
    return dates.dt.tz_localize(None) if zoned else dates


class _Dates:
    """The entries of a column as dates: which formats read them.

    Args:
        counts: Number of rows by distinct entry.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts
        self.orders: dict[str, str] = {}  # what comes first, by format
        self.read: dict[str, np.ndarray] = {}  # whether each distinct entry is read, by format
        texts = list(counts)
        shapes = Counter(filter(None, map(_date_formats, texts[:_SAMPLE])))
        if shapes.total() < 0.8 * len(texts[:_SAMPLE]) - 1:
            return
        formats = {made: order for shape, _ in shapes.most_common(3) for order, made in shape}
        if all(made.startswith("%Y-%m-%d") and "%p" not in made for made in formats):
            formats = {"ISO8601": "year", **formats}  # which reads them with and without a time, with any offset
        series = pd.Series(texts, dtype="object")
        for made, order in formats.items():
            read = read_dates(series.head(_SAMPLE), made).notna().to_numpy()
            if len(series) > _SAMPLE and read.mean() > 0.2:
                read = read_dates(series, made).notna().to_numpy()
            if len(read) == len(series) and read.any():
                self.orders[made], self.read[made] = order, read

    @cached_property
    def best(self) -> str:
        """The format that reads most, the first of those that read as much; nothing if none reads nearly all."""
        best = self._most
        if not best or self.contradict:
            return ""
        n_rows, n_read = sum(self.counts.values()), int(self.read[best].sum())
        return best if _are_few(self.strays(best), self.counts, n_rows, n_read) else ""

    @property
    def _most(self) -> str:
        return max(self.read, key=lambda made: int(self.read[made].sum()), default="")

    @cached_property
    def contradict(self) -> bool:
        """Whether more than a few entries are dates in another order alone."""
        order = self.orders.get(self._most)
        others = [read for made, read in self.read.items() if self.orders[made] != order]
        return bool(others) and int((np.any(others, axis=0) & ~self.read[self._most]).sum()) > _MAX_STRAYS

    def rivals(self) -> list[str]:
        """Formats with another order that read as much as the best one."""
        read, order = self.read[self.best], self.orders[self.best]
        return [made for made, other in self.orders.items() if other != order and (self.read[made] == read).all()]

    def proven(self) -> str:
        """What comes first, if the entries tell; otherwise nothing."""
        return "" if self.rivals() else self.orders[self.best]

    def strays(self, made: str) -> list[str]:
        """Entries that are no dates in this format."""
        return [text for text, is_read in zip(self.counts, self.read[made], strict=True) if not is_read]


# ------------------------------------------------------------------------------------------------------- one table


@dataclass
class _Look:
    """What the entries of one column say by themselves."""

    counts: dict[str, int]
    blanks: dict[str, int]
    numbers: Numbers
    dates: _Dates

    @cached_property
    def kind(self) -> Literal["number", "date", "words"]:
        if self.numbers.fits(".") or self.numbers.fits(","):
            return "number"
        return "date" if self.dates.best else "words"


def find_spellings(
    frame: pd.DataFrame,
    *,
    delimiter: str | None = None,
    typed: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    blank_words: Mapping[str, str] | None = None,
) -> dict[str, Spelling]:
    """Finds how the text columns of a table are written.

    Args:
        frame: The table.
        delimiter: What separated its columns. Defaults to `None`: unknown.
        typed: Columns that were read as numbers already: by name, the decimal mark that they have shown or `""`, and
            the words that were read as blanks. Defaults to none.
        blank_words: Of `MAYBE_BLANKS`, those that the table uses for blanks, with the reason. Defaults to none.

    Returns:
        A `Spelling` for each column of text, and for those of `typed`.
    """
    looks = {str(name): _look(frame[name]) for name in frame.columns if is_text(frame[name])}
    known, marks = dict(blank_words or {}), dict[str, list[str]]({".": [], ",": []})
    shown = {name: (look.numbers.proven(), list(look.blanks)) for name, look in looks.items() if look.kind == "number"}
    for name, (mark, blanks) in {**(typed or {}), **shown}.items():
        if mark:
            marks[mark].append(name)
        known.update({word: f"as in {quoted(name)}" for word in blanks if word not in known})
    orders: dict[str, list[str]] = {"day": [], "month": []}
    for name, look in looks.items():
        if look.kind == "date":
            orders.setdefault(look.dates.proven(), []).append(name)
            known.update({word: f"as in {quoted(name)}" for word in look.blanks if word not in known})
    table = _Table(delimiter, marks, orders, known)
    found = {
        name: Spelling("number", mark or table.decimal, notes=tuple(_read_as_blank(blanks)))
        for name, (mark, blanks) in (typed or {}).items()
    }
    return {**found, **{name: table.spelling(look) for name, look in looks.items()}}


def is_text(series: pd.Series[Any]) -> bool:
    """Whether a column holds text, or may."""
    dtype = series.dtype
    is_text = pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)
    return is_text or isinstance(dtype, pd.CategoricalDtype)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, (bool, np.bool_))


def _look(series: pd.Series[Any]) -> _Look:
    values = series.dropna().astype("object") if not isinstance(series.dtype, pd.StringDtype) else series.dropna()
    n_plain = n_distinct = 0
    if values.dtype == object:
        plain = np.fromiter(map(_is_number, values), bool, len(values))
        n_plain, n_distinct = int(plain.sum()), len(set(values[plain]))
        values = values[~plain].map(str)
    found = Counter[str]()
    places, distinct = pd.factorize(values)  # in the order in which they come
    for text, n in zip(distinct, np.bincount(places), strict=True):
        found[str(text).strip()] += int(n)
    blanks = {text: n for text, n in found.items() if text in SURE_BLANKS or text in MAYBE_BLANKS}
    counts = {text: n for text, n in found.items() if text not in blanks}
    truths = n_plain == 0 and len(counts) == 2 and {text.lower() for text in counts} <= set(TRUTH)
    as_numbers = Numbers({} if truths else counts, n_plain, n_distinct)
    return _Look(counts, blanks, as_numbers, _Dates({} if n_plain else counts))


@dataclass
class _Table:
    """What the columns of one table say about each other."""

    delimiter: str | None
    marks: dict[str, list[str]]  # columns that show their decimal mark
    orders: dict[str, list[str]]  # columns of dates that show their order
    blank_words: dict[str, str]  # with the reason

    @property
    def decimal(self) -> str:
        """The decimal mark of the table: the one that all columns show that show any, or else that most do."""
        point, comma = len(self.marks["."]), len(self.marks[","])
        return "" if point == comma else "." if point > comma else ","

    def spelling(self, look: _Look) -> Spelling:
        if look.kind == "number":
            return self._of_numbers(look)
        if look.kind == "date":
            return self._of_dates(look.dates, look.blanks)
        return self._of_words(look)

    def _of_numbers(self, look: _Look) -> Spelling:
        entries = look.numbers
        fitting = [decimal for decimal in ".," if entries.fits(decimal)]
        decimal, doubt = max(fitting, key=lambda mark: len(entries.only[mark])), ""
        if not entries.only[decimal]:
            decimal = self.decimal if self.decimal in fitting else ""
            if entries.either:
                decimal, why = self._mark_of(entries)
                doubt = _two_readings(entries, decimal, why)
        reading = entries.read[decimal or "."]
        notes = [] if doubt else _example(reading)
        units = entries.units(decimal or ".")
        bare = sum(entries.counts[text] for text, (value, unit) in reading.items() if units and not unit and value)
        if bare:
            notes.append(f"{_entries(bare)} without '{units[0]}' read alike")
        notes += _read_as_blank([*look.blanks, *entries.strays(decimal or ".")])
        return Spelling("number", decimal, units[0] if units else "", notes=tuple(notes), doubt=doubt)

    def _mark_of(self, entries: Numbers) -> tuple[str, str]:
        """The decimal mark of a column whose entries can be read in two ways, and why."""
        one = entries.either[0]
        inside = "." if "." in one else ","
        thousands = "," if inside == "." else "."
        shown = entries.mark_of_thousands()
        if self.decimal:
            name = quoted(self.marks[self.decimal][0])
            return self.decimal, f"as {name} has decimal {'points' if self.decimal == '.' else 'commas'}"
        if shown == "thousands":
            return thousands, "as there are numbers below a thousand without decimals, too"
        if shown == "decimal":
            return inside, "as there are numbers above a thousand without such a mark, too"
        if any(re.fullmatch(rf"{_SIGNS}|{_MONEY}", unit) for unit in entries.units(inside)):
            return thousands, "as money does not have three decimals"
        if self.delimiter == ";":
            return ",", "as columns that are separated by semicolons mostly have decimal commas"
        return ".", "as nothing in the table shows which"

    def _of_dates(self, dates: _Dates, blanks: Iterable[str]) -> Spelling:
        best = dates.best
        rivals = {dates.orders[made]: made for made in (best, *dates.rivals())}
        doubt = ""
        if len(rivals) > 1:
            order, why = self._order_of(rivals, best)
            other = next(made for first, made in rivals.items() if first != order)
            best = rivals[order]
            doubt = _two_dates(dates, best, other, order, why)
        notes = ["years of two digits read as 1969 to 2068"] if "%y" in best else []
        offsets = {match[1] if (match := _OFFSET.search(text)) else "" for text in dates.counts}
        shown = sorted(offsets - {"", "Z"})
        if shown:
            what = "several offsets" if len(offsets) > 1 else "the offset"
            none = " or none" if "" in offsets else ""
            notes.append(f"times with {what} ({_listed(shown)}{none}) read in UTC")
        notes += _read_as_blank([*blanks, *dates.strays(best)])
        return Spelling("date", date_format=best, notes=tuple(notes), doubt=doubt)

    def _order_of(self, rivals: Mapping[str, str], best: str) -> tuple[str, str]:
        shown = [order for order in ("day", "month") if self.orders[order]]
        if len(shown) == 1 and shown[0] in rivals:
            return shown[0], f"as in {quoted(self.orders[shown[0]][0])}"
        if "%p" in best and "month" in rivals:
            return "month", "as times with AM and PM mostly are"
        if "day" in rivals and (self.decimal == "," or (self.delimiter == ";" and not self.decimal)):
            why = "decimal commas" if self.decimal == "," else "columns separated by semicolons"
            return "day", f"as tables with {why} mostly are"
        return ("month", "as is usual with slashes") if "/" in best else ("day", "as is usual with dashes")

    def _of_words(self, look: _Look) -> Spelling:
        notes, entries = [], look.numbers
        words = [text for text in look.blanks if text in MAYBE_BLANKS and text not in self.blank_words]
        if not look.counts:
            words = []  # nothing but blanks
        for text in words:
            notes.append(f"{quoted(text)} in {_rows(look.blanks[text])} taken as a value, not as a blank")
        for text, n in look.blanks.items():
            if text and text not in words:
                why = f", {self.blank_words[text]}" if text in self.blank_words else ""
                notes.append(f"{quoted(text)} in {_rows(n)} read as blank{why}")
        notes += self._nearly(look)
        if entries.are_codes():
            notes.append("whole numbers with leading zeros, taken as words")
        return Spelling(words=tuple(sorted(words)), notes=tuple(notes))

    def _nearly(self, look: _Look) -> list[str]:
        """Why words that look like numbers or dates are neither."""
        entries, dates = look.numbers, look.dates
        numbers = entries.read["."] | entries.read[","]
        if dates.contradict:
            return ["no dates, as some begin with the day and some with the month"]
        if dates.read and (share := np.any(list(dates.read.values()), axis=0)).mean() > 0.8 and not share.all():
            return [_are_none("dates", [text for text, is_one in zip(look.counts, share, strict=True) if not is_one])]
        units = {unit for _, unit in numbers.values() if unit}
        if len(numbers) <= 0.8 * len(look.counts) or any(_KNOWN.fullmatch(unit) is None for unit in units):
            return []
        if len(units) > 1:
            return [f"no numbers, as they are in several units ({_listed(sorted(units))})"]
        if entries.only["."] and entries.only[","]:
            two = [entries.only["."][0], entries.only[","][0]]
            return [f"no numbers, as they are written in two ways ({_listed(two)})"]
        others = [text for text in look.counts if text not in numbers]
        return [_are_none("numbers", others)] if others else []


def _two_readings(entries: Numbers, decimal: str, why: str) -> str:
    text = max(entries.either, key=len)
    read, other = (entries.read[mark][text][0] for mark in (decimal, "," if decimal == "." else "."))
    return f"{quoted(text)} is read as {_plain(read)}, {why}; it could be {_plain(other)}"


def _are_none(kind: str, texts: Sequence[str]) -> str:
    return f"no {kind}, as {_entries(len(texts))} cannot be read as such ({_listed(texts)})"


def _two_dates(dates: _Dates, made: str, other: str, order: str, why: str) -> str:
    texts = pd.Series([text for text, is_read in zip(dates.counts, dates.read[made], strict=True) if is_read])
    days, others = read_dates(texts, made), read_dates(texts, other)
    place = int(np.argmax(days != others))  # the first, if all mean the same
    read = f"{quoted(texts[place])} is read as {days[place]:%Y-%m-%d}, with the {order} first, {why}"
    return f"{read}; it could be {others[place]:%Y-%m-%d}" if days[place] != others[place] else read


def _example(reading: Mapping[str, tuple[float, str]]) -> list[str]:
    """One entry that is not written as Python would, and what it was read as."""
    marked = [
        text for text in list(reading)[:1000] if re.search(r"[^-0-9.,]|[0-9],[0-9]{3}(?![0-9])|\..*\.|-$|^0[0-9]", text)
    ]
    if not marked or all(re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+|[-+]?inf(inity)?|\+[0-9.]+", t) for t in marked):
        return []
    text = max(marked, key=lambda text: (len(re.findall(r"[^0-9]", text)), len(text)))
    return [f"{quoted(text)} is read as {_plain(reading[text][0])}"]


def _plain(value: float) -> str:
    return f"{value:.15g}"


def _read_as_blank(texts: Iterable[str]) -> list[str]:
    shown = [text for text in texts if text]
    return [f"entries {_listed(shown)} read as blank"] if shown else []


def _listed(texts: Sequence[str], max_texts: int = 3) -> str:
    short = [text if len(text) <= 40 else text[:39] + "…" for text in map(printable, texts[:max_texts])]
    more = f" and {len(texts) - max_texts} more" if len(texts) > max_texts else ""
    return ", ".join(f"'{text}'" for text in short) + more


def _rows(n: int) -> str:
    return f"{n} {'row' if n == 1 else 'rows'}"


def _entries(n: int) -> str:
    return f"{n} {'entry' if n == 1 else 'entries'}"


# ------------------------------------------------------------------------------------------------- reading columns


def is_blank(series: pd.Series[Any], words: Collection[str] = ()) -> np.ndarray:
    """Which entries are blanks: nothing, or a spelling of "not available" that is no value here.

    Args:
        series: The column.
        words: Spellings that are values. Defaults to none.

    Returns:
        Truth values, shape `(n_rows,)`.
    """
    blank = series.isna().to_numpy(dtype=bool, copy=True)
    if is_text(series):
        spelt = (SURE_BLANKS | MAYBE_BLANKS) - set(words)
        blank |= series.map(lambda value: isinstance(value, str) and value.strip() in spelt).to_numpy(dtype=bool)
    return blank


def read_numbers(series: pd.Series[Any], decimal: str | None, unit: str = "") -> np.ndarray:
    """A column of text, or of text among numbers, as float64; NaN where an entry is no number in this spelling.

    Args:
        series: The column.
        decimal: The decimal mark; None for a point.
        unit: The unit that entries may have. Defaults to none.

    Returns:
        Numbers, shape `(n_rows,)`.
    """

    def read(value: Any) -> float:
        if isinstance(value, str):
            found = number_in(value, "." if decimal is None else decimal)
            return found[0] if found is not None and found[1] in ("", unit) else math.nan
        try:
            return float(value)
        except (TypeError, ValueError):
            return math.nan

    places, distinct = pd.factorize(series.astype("object"))
    values = np.array([*map(read, distinct), math.nan])
    return values[places]  # blanks have the place -1


def respelt(series: pd.Series[Any], spelling: Spelling) -> pd.Series[Any]:
    """A column of text with its numbers as numbers and its blanks as NaN; entries that are no numbers stay.

    Args:
        series: The column.
        spelling: How it is written.

    Returns:
        The column, of float64 if all of it could be read.
    """
    blank = is_blank(series, spelling.words)
    if spelling.kind != "number":
        return series.mask(blank) if (blank & series.notna().to_numpy()).any() else series
    values = read_numbers(series, spelling.decimal, spelling.unit)
    read = pd.Series(values, index=series.index, name=series.name)
    strays = np.isnan(values) & ~blank
    return read if not strays.any() else read.astype("object").where(~strays, series.astype("object"))
