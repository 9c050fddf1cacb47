"""What is held out: always every row once, with every class on both sides where that is possible."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from kerastoolkit.data import holdout, holdout_indices
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
