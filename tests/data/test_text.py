"""Texts become the numbers that scikit-learn and Keras make of them; nothing is learned but from the texts given."""

from __future__ import annotations

import inspect
import json
import random

import numpy as np
import pytest
import sklearn.cluster
import sklearn.linear_model
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.feature_extraction.text import TfidfVectorizer

from kerastoolkit.data import Vocabulary, learn_vocabulary, text
from kerastoolkit.exceptions import DataError, SavedFileError

TEXTS = [
    inspect.getdoc(getattr(room, name)) or ""
    for room in (sklearn.cluster, sklearn.linear_model)
    for name in room.__all__
]
FRUIT = ["Red apples", "green apples", "red wine"]


@pytest.mark.parametrize("ngram_range", [(1, 1), (1, 2), (2, 3)])
def test_weights_are_those_of_scikit_learn(ngram_range: tuple[int, int]) -> None:
    theirs = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=ngram_range).fit(TEXTS[:40])
    words = learn_vocabulary(TEXTS[:40], max_features=None, ngram_range=ngram_range)
    assert set(words.words) == set(theirs.vocabulary_)
    ours = words.encode(TEXTS[40:])
    columns = [words.ids[word] for word in theirs.get_feature_names_out()]
    assert_allclose(ours[:, columns], theirs.transform(TEXTS[40:]).toarray(), atol=1e-6)
    assert ours.dtype == np.float32
    assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)  # nothing but those columns


def test_large_weights_stay_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    words = learn_vocabulary(TEXTS)
    dense = words.encode(TEXTS)
    monkeypatch.setattr(text, "_MAX_DENSE", dense.size - 1)
    sparse = words.encode(TEXTS)
    assert sparse.format == "csr"
    assert_array_equal(sparse.toarray(), dense)


def test_token_ids_are_those_of_keras() -> None:
    import keras

    texts = [" ".join(word for word in text.split() if word.isalpha() and len(word) > 1) for text in TEXTS]
    words = learn_vocabulary(texts, max_length=50)
    layer = keras.layers.TextVectorization(vocabulary=list(words.words), output_sequence_length=50)
    assert_array_equal(words.encode(texts), np.asarray(layer(texts)))


def test_a_text_of_no_known_word_has_one_unknown_word_or_no_weight() -> None:
    assert learn_vocabulary(FRUIT, max_length=3).encode(["", "blue"]).tolist() == [[1, 0, 0], [1, 0, 0]]
    assert not learn_vocabulary(FRUIT).encode(["", "blue"]).any()


def test_words_of_most_texts_come_first_and_their_order_is_that_of_no_text() -> None:
    words = learn_vocabulary(TEXTS, max_features=100)
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    assert learn_vocabulary(shuffled, max_features=100).words == words.words
    counts = [sum(word in set(text._words_of((1, 1))(one)) for one in TEXTS) for word in words.words]
    assert counts == sorted(counts, reverse=True)
    assert len(words) == 100


def test_a_word_of_one_text_is_learned_when_asked_for() -> None:
    assert learn_vocabulary(FRUIT).words == ("apples", "red")
    assert learn_vocabulary(FRUIT, min_df=1).words == ("apples", "red", "green", "wine")


@pytest.mark.parametrize("min_df", [1, 5, 0.1, 0.25, 1.0])
def test_words_of_too_few_texts_are_left_out_as_by_scikit_learn(min_df: float) -> None:
    texts = [f"{one} everywhere" for one in TEXTS]
    theirs = TfidfVectorizer(min_df=min_df).fit(texts)
    assert set(learn_vocabulary(texts, max_features=None, min_df=min_df).words) == set(theirs.vocabulary_)


def test_the_length_keeps_nine_of_ten_texts_whole() -> None:
    texts = [" ".join(["word"] * length) for length in range(1, 101)]
    length = learn_vocabulary(texts, max_length="auto").max_length
    assert length is not None
    assert 90 <= length < 1.25 * 91
    assert learn_vocabulary(TEXTS, max_length="auto").max_length == 256  # docstrings are longer than that


@pytest.mark.parametrize("number", [1, 2, 7, 9, 100, 1023, 20_002])
def test_sizes_are_rounded_up_by_a_quarter_at_most(number: int) -> None:
    rounded = text._rounded_up(number)
    assert number <= rounded <= 1.25 * number
    assert text._rounded_up(rounded) == rounded


@pytest.mark.parametrize("length", [None, 7])
def test_a_vocabulary_is_made_again_from_its_config(length: int | None) -> None:
    words = learn_vocabulary(TEXTS, max_length=length, ngram_range=(1, 2))
    again = Vocabulary.from_config(json.loads(json.dumps(words.get_config())))
    assert_array_equal(again.encode(TEXTS), words.encode(TEXTS))
    assert again.size == words.size


def test_a_config_of_the_first_versions_is_read_under_the_names_of_today() -> None:
    for words in (learn_vocabulary(TEXTS, ngram_range=(1, 3)), learn_vocabulary(TEXTS, max_length=7)):
        config = words.get_config()
        old = {"words": config["words"], "rarity": config["idf"], "length": config["max_length"]}
        again = Vocabulary.from_config({**old, "ngrams": words.ngram_range[1]})
        assert again.get_config() == config
        assert_array_equal(again.encode(TEXTS), words.encode(TEXTS))
    for broken in ({**old, "ngrams": 0}, {**old, "ngrams": "2"}, {**old, "ngrams": 1, "idf": [1.0]}, old):
        with pytest.raises(SavedFileError, match="A saved vocabulary has"):
            Vocabulary.from_config(broken)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["", "a b c"], "There is no word in any of the 2 texts; the first is ''"),
        (
            ["one", "two two"],
            "No word occurs in 2 or more of the 2 texts .`min_df`.; the most frequent, '.*', occurs in 1",
        ),
    ],
)
def test_texts_without_words_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        learn_vocabulary(texts)
