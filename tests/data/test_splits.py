"""What is held out: always every row once, with every class on both sides where that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import TimeSeriesSplit

from kerastoolkit.data import folds, holdout, holdout_indices
from kerastoolkit.exceptions import DataError, ParameterError


def test_every_row_is_on_one_side_whatever_the_classes() -> None:
    generator = np.random.RandomState(0)
    for seed in range(300):
        n_rows, fraction = generator.randint(2, 200), generator.uniform(0.001, 0.999)
        labels = generator.randint(0, generator.randint(1, 8), n_rows)
        train, held_out = holdout_indices(n_rows, fraction, stratify=labels, random_state=seed)
        assert sorted([*train, *held_out]) == list(range(n_rows))
        assert len(train) > 0
        assert len(held_out) == min(max(int(np.ceil(fraction * n_rows - 1e-9)), 1), n_rows - 1)


def test_classes_keep_their_shares_to_one_row() -> None:
    _, y = load_breast_cancer(return_X_y=True)
    _, held_out = holdout_indices(len(y), 0.2, stratify=y, random_state=0)
    exact = np.bincount(y) * len(held_out) / len(y)
    assert np.all(np.abs(np.bincount(y[held_out]) - exact) < 1)


def test_rows_sorted_by_class_are_still_shuffled() -> None:
    # Keras takes the tail before any shuffle; a class-sorted table then validates on one class.
    y = np.repeat([0, 1, 2], 50)
    _, plain = holdout_indices(len(y), 0.2, random_state=0)
    assert set(y[plain]) == {0, 1, 2}


def test_strings_multilabel_rows_and_missing_labels_are_classes() -> None:
    words = np.array(["a", "b", None] * 10, dtype=object)
    rows = np.array([[0, 1], [1, 0], [1, 1]] * 10)
    for labels in (words, rows):
        _, held_out = holdout_indices(30, 0.2, stratify=labels, random_state=0)
        assert len(held_out) == 6
        assert {position % 3 for position in held_out} == {0, 1, 2}


@pytest.mark.parametrize(
    "labels",
    [
        [0] * 29 + [1],  # a class with one member
        list(range(15)) * 2,  # more classes than held-out rows
        [0] * 30,  # one class
    ],
)
def test_what_cannot_be_stratified_is_split_plainly(labels: list[int]) -> None:
    train, held_out = holdout_indices(30, 0.2, stratify=labels, random_state=0)
    assert (len(train), len(held_out)) == (24, 6)


def test_the_seed_decides_and_a_generator_moves_on() -> None:
    first, second = (holdout_indices(100, 0.3, random_state=7)[1] for _ in range(2))
    assert np.array_equal(first, second)
    generator = np.random.RandomState(7)
    first, second = (holdout_indices(100, 0.3, random_state=generator)[1] for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_quantity_is_held_out_by_quantile() -> None:
    _, y = load_diabetes(return_X_y=True)
    found = holdout(y, 0.2, task="regression", random_state=0)
    assert found.how == "by quantile"
    edges = np.quantile(y, np.linspace(0, 1, 11))
    counts = np.histogram(y[found.test], edges)[0]
    assert counts.min() >= 7 and counts.max() <= 11


def test_few_rows_or_one_value_leave_no_quantiles() -> None:
    assert holdout(np.arange(12.0), task="regression", random_state=0).how == "plain"
    assert holdout(np.ones(500), task="regression", random_state=0).how == "plain"


def test_a_class_with_one_row_is_said() -> None:
    found = holdout(["a"] * 20 + ["b"], random_state=0)
    assert found.how == "plain"
    assert "too small" in found.why


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"between 0 and 1, both excluded. Got 1.5"):
        holdout_indices(10, 1.5)
    with pytest.raises(DataError, match="at least 2 rows. Got 1"):
        holdout_indices(1, 0.5)
    with pytest.raises(ParameterError, match="one entry a row: 10. Got 3"):
        holdout_indices(10, 0.5, stratify=[1, 2, 3])
    with pytest.raises(ParameterError, match="`task` must be"):
        holdout([0, 1], task="ranking")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ rows that belong together


def _visits(n_patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Patients with one to nine visits each, in no order, and a diagnosis that goes with the patient."""
    generator = np.random.RandomState(seed)
    patients = generator.permutation(np.repeat(np.arange(n_patients), generator.randint(1, 10, n_patients)))
    return patients, (generator.rand(n_patients) < 0.3)[patients]


def test_whole_groups_are_on_one_side_in_about_the_shares_asked_for() -> None:
    for seed, fraction in enumerate((0.1, 0.15, 0.2, 0.2, 0.5, 0.7)):
        patients, y = _visits(60, seed)
        found = holdout(y, fraction, groups=patients, random_state=seed)
        assert not set(patients[found.train]) & set(patients[found.test])
        assert sorted([*found.train, *found.test]) == list(range(len(y)))
        assert len(found.test) / len(y) == pytest.approx(fraction, abs=0.03)
        assert np.mean(y[found.test]) == pytest.approx(np.mean(y), abs=0.08)
        assert found.how == "by group"
        assert found.why.startswith(f"{len(set(patients[found.test]))} of 60 groups")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_folds_of_groups_are_whole_alike_and_others_for_another_seed(task: str) -> None:
    patients, y = _visits(60, 0)
    y = y if task == "classification" else patients + np.random.RandomState(0).rand(len(y))
    found = folds(y, 3, task=task, groups=patients, random_state=0)  # type: ignore[arg-type]
    assert sorted(np.concatenate([scored for _, scored in found])) == list(range(len(y)))
    for train, scored in found:
        assert not set(patients[train]) & set(patients[scored])
        assert sorted([*train, *scored]) == list(range(len(y)))
        assert len(scored) == pytest.approx(len(y) / 3, abs=0.05 * len(y))
        assert np.mean(y[scored]) == pytest.approx(np.mean(y), abs=0.25 * np.std(y))
    again, other = (folds(y, 3, task=task, groups=patients, random_state=seed) for seed in (0, 1))  # type: ignore[arg-type]
    assert all(np.array_equal(first[1], second[1]) for first, second in zip(found, again, strict=True))
    assert not any(np.array_equal(first[1], second[1]) for first, second in zip(found, other, strict=True))


def test_few_groups_of_unlike_sizes_leave_no_part_empty() -> None:
    patients = np.repeat(np.arange(5), [200, 1, 1, 1, 1])
    for seed in range(20):
        assert {len(scored) > 0 for _, scored in folds(patients, 5, groups=patients, random_state=seed)} == {True}
        found = holdout(patients, groups=patients, task="regression", random_state=seed)
        assert len(found.train) > 0 and len(found.test) > 0


def test_groups_may_be_words_dates_or_blank() -> None:
    names = np.array(["a", "b", None, "c"] * 5, dtype=object)
    train, held_out = holdout_indices(20, 0.2, groups=names, random_state=0)
    assert len(held_out) == 5 and len(set(names[held_out])) == 1
    days = np.array(["2024-01-01", "2024-01-02", "NaT", "2024-01-03"] * 5, dtype="datetime64[D]")
    assert np.array_equal(holdout_indices(20, 0.2, groups=days, random_state=0)[1], held_out)


def test_time_goes_forward_and_rows_of_one_time_stay_together() -> None:
    generator = np.random.RandomState(0)
    days = generator.permutation(np.repeat(np.arange(50), generator.randint(1, 8, 50)))
    dates = np.datetime64("2024-01-01") + days
    found = holdout(days, 0.2, time=dates, task="regression")
    assert found.how == "by time" and days[found.train].max() < days[found.test].min()
    assert len(found.test) / len(days) == pytest.approx(0.2, abs=0.02)
    parts = folds(days, 4, time=dates, task="regression")
    for train, scored in parts:
        assert days[train].max() < days[scored].min()
        assert len(scored) == pytest.approx(len(days) / 5, abs=8)
    # Each is trained on all that came before, as by scikit-learn's splitter where no two times are equal.
    for (train, _), (earlier, scored) in zip(parts[1:], parts, strict=False):
        assert set(train) == {*earlier, *scored}
    expected = TimeSeriesSplit(3).split(np.zeros(40))
    for (train, scored), (its_train, its_scored) in zip(folds(range(40), 3, time=range(40)), expected, strict=True):
        assert np.array_equal(train, its_train) and np.array_equal(scored, its_scored)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": [1] * 10}, DataError, "`groups` must have at least 2 groups for this split. Got 1"),
        ({"time": [1] * 10}, DataError, "`time` must have at least 2 different times"),
        ({"groups": [1, 2]}, ParameterError, "`groups` must have one entry a row: 10. Got 2"),
        ({"time": [1, 2]}, ParameterError, "`time` must have one entry a row: 10. Got 2"),
        ({"time": ["Mon", "Tue"] * 5}, ParameterError, "`time` must hold numbers or dates, which have an order"),
        ({"time": [1.0, np.nan] * 5}, DataError, "`time` is blank in 5 of 10 rows"),
        ({"time": range(10), "groups": range(10)}, ParameterError, "answer two questions"),
    ],
)
def test_groups_and_times_that_cannot_be_kept_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        holdout([0, 1] * 5, **arguments)
    with pytest.raises(error, match=message.replace("at least 2", "at least [34]")):
        folds([0, 1] * 5, 3, **arguments)
