"""Texts as numbers: which words a network knows, and how a text becomes numbers by them.

What is learned (`learn_vocabulary`) comes from the training texts alone: the words, how rare each is, and how long
texts are. `Vocabulary.encode` then reads any texts by it.

Words are found by scikit-learn's analyzer, in Python, and not by Keras' `TextVectorization`. That layer computes with
TensorFlow under every backend, so that under JAX and torch a model that holds it refuses texts; and its weights of
words are a dense array of texts by words (0.9 GB for 11,000 texts and 20,000 words). Words get the numbers that it
gives them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from kerastoolkit import _files
from kerastoolkit.data.readers import Reader, register_reader
from kerastoolkit.exceptions import DataError, SavedFileError

__all__ = ["Vocabulary", "learn_vocabulary"]

PADDING, UNKNOWN, FIRST = 0, 1, 2  # numbers of words: what fills a text up, a word not learned, the first learned

_LONGEST = 256  # words of a text, where nobody says how many
_TEXTS_KEPT_WHOLE = 0.9  # of the training texts, fraction

# Numbers in a dense array of weights, 128 megabytes. What is larger stays sparse.
_MOST_DENSE = 2**25


@register_reader("text")
class Vocabulary(Reader):
    """Reads texts: the words that a network knows, and what it gets of a text.

    Args:
        words: The words, those of most texts first.
        rarity: Weight of each word, larger for those of fewer texts, shape `(n_words,)`. Defaults to none: texts
            become the numbers of their words.
        length: Words of a text that are read, from its beginning, where texts become numbers of words. Defaults to
            `None`: texts become weights of words.
        ngrams: Words that follow each other and are looked up together, at most. Defaults to `1`.

    Attributes:
        size: Numbers that words may have: 0 fills up, 1 is a word not learned, then one a word. Some more are left
            free, so that the vocabularies of the folds of a search have one size and train as one program.
    """

    shown_as = "words_"
    offers = ("vocabulary_size",)

    def __init__(
        self, words: Sequence[str], rarity: ArrayLike = (), length: int | None = None, ngrams: int = 1
    ) -> None:
        self.words = tuple(words)
        self.rarity = np.asarray(rarity, dtype="float64")
        self.length = length
        self.ngrams = ngrams
        self.size = _rounded_up(FIRST + len(self.words))
        self.numbers = {word: number for number, word in enumerate(self.words, FIRST)}

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words, length={self.length}, ngrams={self.ngrams})"

    @classmethod
    def learn(cls, X: Sequence[str], **options: Any) -> Vocabulary:
        """Learns words from texts; see `learn_vocabulary`."""
        return learn_vocabulary(X, **options)

    @property
    def row_shape(self) -> tuple[int]:
        """The words of a text that are read; where texts become weights of words, the words there may be."""
        return (self.size if self.length is None else self.length,)

    def offered(self) -> dict[str, int]:
        """`vocabulary_size`, where a network gets the numbers of words."""
        return {} if self.length is None else {"vocabulary_size": self.size}

    def encode(self, texts: Iterable[str]) -> Any:
        """Reads texts by the words that were learned.

        Args:
            texts: `n` texts.

        Returns:
            With a `length`, the number of each word, shape `(n, length)`, int32: shorter texts are filled up with 0
            at their end, longer ones are cut off. Without, the weight of each word (tf-idf), shape `(n, size)`,
            float32, an array or, where that would be large, a sparse matrix; each row has length 1, or 0 where no
            word is known.
        """
        found = map(_words_of(self.ngrams), texts)
        return self._weights(list(found)) if self.length is None else self._in_order(list(found), self.length)

    def _in_order(self, texts: list[list[str]], length: int) -> Any:
        rows = np.full((len(texts), length), PADDING, dtype="int32")
        for row, words in zip(rows, texts, strict=True):
            # A text without words has one that nobody knows, so that there is something to take the mean of.
            numbers = [self.numbers.get(word, UNKNOWN) for word in words[:length]] or [UNKNOWN]
            row[: len(numbers)] = numbers
        return rows

    def _weights(self, texts: list[list[str]]) -> Any:
        places: list[int] = []
        ends = [0]
        for words in texts:
            places += [number for word in words if (number := self.numbers.get(word)) is not None]
            ends.append(len(places))
        shape = (len(texts), self.size)
        rows = csr_matrix((np.ones(len(places)), places, ends), shape=shape)
        rows.sum_duplicates()
        # As scikit-learn's TfidfVectorizer(sublinear_tf=True): the tenth time says less than the first.
        rows.data = (1 + np.log(rows.data)) * self.rarity[rows.indices - FIRST]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        rows.data /= np.repeat(lengths, np.diff(rows.indptr))
        rows = rows.astype("float32")
        return rows.toarray() if shape[0] * shape[1] <= _MOST_DENSE else rows

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this vocabulary again, as plain Python values."""
        return {
            "words": list(self.words), "rarity": self.rarity.tolist(), "length": self.length, "ngrams": self.ngrams,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Vocabulary:
        """Makes a vocabulary from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        given = _files.checked_fields(config, _CONFIG, "A saved vocabulary")
        of_weights = given["length"] is None
        if len(given["rarity"]) != of_weights * len(given["words"]) or len(set(given["words"])) != len(given["words"]):
            raise SavedFileError(
                f"A saved vocabulary has {len(given['words'])} words, weights of {len(given['rarity'])}, and reads "
                f"{given['length']} words of a text, which disagree."
            )
        return cls(**given)


_CONFIG: dict[str, Callable[[Any], object]] = {
    "words": _files.list_of(_files.is_text),
    "rarity": _files.list_of(_files.is_number),
    "length": _files.optional(lambda value: _files.is_count(value) and value > 0),
    "ngrams": lambda value: _files.is_count(value) and value > 0,
}


def learn_vocabulary(
    texts: Sequence[str],
    *,
    max_words: int = 20_000,
    min_count: int = 2,
    length: int | Literal["auto"] | None = None,
    ngrams: int = 1,
) -> Vocabulary:
    """Learns words from texts.

    A word is two or more letters or digits, in lower case. One that stands in more texts comes before one of fewer.

    Example:

    >>> words = learn_vocabulary(["Red apples", "green apples", "red wine"], length=3)
    >>> words.words
    ('apples', 'red')
    >>> words.encode(["red wine", "apples"])
    array([[3, 1, 0],
           [2, 0, 0]], dtype=int32)

    Args:
        texts: The training texts.
        max_words: Words that are kept, those of most texts. Defaults to `20_000`.
        min_count: Training texts that a word must stand in. Defaults to `2`.
        length: Words of a text that are read, in their order; `"auto"` for what keeps nine of ten training texts
            whole, 256 at most. Defaults to `None`: texts become weights of words.
        ngrams: Words that follow each other and count as one more word, at most. Defaults to `1`.

    Returns:
        The vocabulary.

    Raises:
        DataError: No word is left.
    """
    found = list(map(_words_of(ngrams), texts))
    counts = collections.Counter(word for words in found for word in set(words))
    if not counts:
        raise DataError(
            f"There is no word in any of the {len(texts)} texts; the first is {texts[0][:40]!r}. A word is two or more "
            "letters or digits."
        )
    # By name where counts are equal: the vocabulary must not depend on the order of the texts.
    ranked = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    words = ranked[:max_words]
    if not words:
        raise DataError(
            f"No word stands in {min_count} or more of the {len(texts)} texts (`min_count`); the commonest, "
            f"{max(counts, key=counts.__getitem__)!r}, stands in {max(counts.values())}. Give more texts, or a smaller "
            "`min_count`."
        )
    if length is None:
        in_texts = np.array([counts[word] for word in words])
        return Vocabulary(words, np.log((1 + len(texts)) / (1 + in_texts)) + 1, ngrams=ngrams)
    if length == "auto":
        whole = int(np.quantile([len(words) for words in found], _TEXTS_KEPT_WHOLE, method="higher"))
        length = min(_rounded_up(max(whole, 1)), _LONGEST)
    return Vocabulary(words, length=length, ngrams=ngrams)


def _words_of(ngrams: int) -> Callable[[str], list[str]]:
    """A function from a text to its words, in their order, groups of words after single ones."""
    return CountVectorizer(ngram_range=(1, ngrams)).build_analyzer()  # type: ignore[no-any-return]


def _rounded_up(number: int) -> int:
    """A number with at most three binary digits that are not 0: at most a quarter more."""
    step = 1 << max(number.bit_length() - 3, 0)
    return -(-number // step) * step
