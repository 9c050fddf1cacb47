"""Names in files that were saved under earlier ones become the names of today.

`tests/estimators/test_saved_format_1.py` reads such files as wholes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kerastoolkit import _renamed
from kerastoolkit.data import Vocabulary
from kerastoolkit.exceptions import SavedFileError

OLD_TEXTS = {"max_words": 30, "min_count": 3, "length": None, "ngrams": 2}
NEW_TEXTS = {"max_features": 30, "min_df": 3, "max_length": None, "ngram_range": {"tuple": [1, 2]}}


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("TextClassifier", OLD_TEXTS, NEW_TEXTS),
        ("TextClassifier", {"model": "conv1d", "embedding_size": 4}, {"model": "conv1d", "embedding_dim": 4}),
        ("TextClassifier", {"model__width": 8}, {"model__embedding_dim": 8}),
        (
            "KerasRegressor",
            {"model": "transformer_encoder", "width": 3},
            {"model": "transformer_encoder", "embedding_dim": 3},
        ),
        ("ImageClassifier", {"strategy": "fine_tune"}, {"training": "fine_tune"}),
        ("ImageRegressor", {"strategy": "features"}, {"training": "features"}),
        ("KerasClassifier", {"distribution__time_limit": 5}, {"distribution__timeout": 5}),
    ],
)
def test_parameters(kind: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert _renamed.parameters({"epochs": 3, **old}, kind) == {"epochs": 3, **new}


def test_a_builder_of_ours_that_a_file_names_as_a_function() -> None:
    builder = {"reference": "kerastoolkit.builders.sequential:rnn"}
    found = _renamed.parameters({"model": builder, "embedding_size": 4}, "TextClassifier")
    assert found == {"model": builder, "embedding_dim": 4}


def test_arguments_of_a_users_function_and_of_other_estimators_keep_their_names() -> None:
    saved = {"model": {"reference": "mine:build"}, "width": 3, "length": 5, "strategy": "a", "ngrams": 2}
    assert _renamed.parameters(saved, "KerasClassifier") == saved


def test_a_vocabulary() -> None:
    old = {"words": ["red", "wine"], "rarity": [1.0, 1.5], "length": None, "ngrams": 2}
    vocabulary = Vocabulary.from_config(old)
    assert vocabulary.ngram_range == (1, 2) and vocabulary.idf.tolist() == [1.0, 1.5] and vocabulary.max_length is None
    expected = Vocabulary(["red", "wine"], [1.0, 1.5], None, (1, 2)).encode(["red wine", "wine"])
    np.testing.assert_array_equal(vocabulary.encode(["red wine", "wine"]), expected)
    with pytest.raises(SavedFileError):
        Vocabulary.from_config({**old, "ngrams": -1})
