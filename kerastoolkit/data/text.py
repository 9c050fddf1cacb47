"""Texts as numbers: the words that a network knows, and how they turn a text into token ids or weights.

What is learned (`learn_vocabulary`) comes from the training texts alone: the words, how rare each is, and how long
texts are. `Vocabulary.encode` then encodes any texts with it.

Words are found by scikit-learn's analyzer, in Python, and not by Keras' `TextVectorization`. That layer computes with
TensorFlow under every backend, so that a model that contains it refuses texts under JAX and torch; and its tf-idf
weights are a dense array of texts by words (0.9 GB for 11,000 texts and 20,000 words). The token ids are the ones that
it would give.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from kerastoolkit import _files, _renamed
from kerastoolkit._values import is_whole
from kerastoolkit.data.readers import Reader, register_reader
from kerastoolkit.exceptions import DataError, SavedFileError

__all__ = ["Vocabulary", "learn_vocabulary"]

PADDING, UNKNOWN, FIRST = 0, 1, 2  # token ids: padding, a word that was not learned, the first word that was

_MAX_LENGTH = 256  # words of a text, where `max_length` is "auto"
_KEPT_WHOLE = 0.9  # fraction of the training texts

# Numbers in a dense array of weights, 128 megabytes. Anything larger stays sparse.
_MAX_DENSE = 2**25

NgramRange: TypeAlias = tuple[int, int]


@register_reader("text")
class Vocabulary(Reader):
    """Reads texts: the words that a network knows, and what it makes of a text.

    Args:
        words: The words, the most frequent first.
        idf: Weight of each word, larger for words of fewer texts, shape `(n_words,)`. Defaults to `()`: texts become
            token ids.
        max_length: Number of words of a text that are read, from its beginning, where texts become token ids. Defaults
            to `None`: texts become tf-idf weights.
        ngram_range: The smallest and the largest number of adjacent words that count as one. Defaults to `(1, 1)`.

    Attributes:
        ids: Token id of each word: 0 is padding, 1 a word that was not learned, the words begin at 2.
        size: Number of token ids. A few of them stay unused, so that the vocabularies of the folds of a search have one
            size and train as one program.
    """

    shown_as = "words_"
    offers = ("vocabulary_size",)

    def __init__(
        self,
        words: Sequence[str],
        idf: ArrayLike = (),
        max_length: int | None = None,
        ngram_range: NgramRange = (1, 1),
    ) -> None:
        self.words = tuple(words)
        self.idf: NDArray[np.float64] = np.asarray(idf, dtype="float64")
        self.max_length = max_length
        self.ngram_range = ngram_range
        self.size = _rounded_up(FIRST + len(self.words))
        self.ids = {word: token_id for token_id, word in enumerate(self.words, FIRST)}

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words, max_length={self.max_length}, ngram_range={self.ngram_range})"

    @classmethod
    def learn(cls, X: Sequence[str], **options: Any) -> Vocabulary:
        """Learns words from texts; see `learn_vocabulary`."""
        return learn_vocabulary(X, **options)

    @property
    def row_shape(self) -> tuple[int]:
        """The words of a text that are read; where texts become tf-idf weights, the number of token ids."""
        return (self.size if self.max_length is None else self.max_length,)

    def offered(self) -> dict[str, int]:
        """`vocabulary_size`, where a network gets token ids."""
        return {} if self.max_length is None else {"vocabulary_size": self.size}

    def encode(self, texts: Iterable[str]) -> NDArray[Any] | csr_matrix:
        """Encodes texts by the words that were learned.

        Args:
            texts: `n` texts.

        Returns:
            With a `max_length`, the token ids of each text, shape `(n, max_length)`, int32: shorter texts are padded
            with 0 at their end, longer ones are truncated. Without, the tf-idf weight of each word, shape
            `(n, size)`, float32, as an array or, where that would be large, as a sparse matrix; each row has a norm of
            1, or of 0 where it has no known word.
        """
        found = list(map(_words_of(self.ngram_range), texts))
        return self._weights(found) if self.max_length is None else self._token_ids(found, self.max_length)

    def _token_ids(self, texts: list[list[str]], length: int) -> NDArray[np.int32]:
        rows = np.full((len(texts), length), PADDING, dtype="int32")
        for row, words in zip(rows, texts, strict=True):
            # A text without words gets one unknown word, so that there is something to take the mean of.
            ids = [self.ids.get(word, UNKNOWN) for word in words[:length]] or [UNKNOWN]
            row[: len(ids)] = ids
        return rows

    def _weights(self, texts: list[list[str]]) -> NDArray[np.float32] | csr_matrix:
        places: list[int] = []
        ends = [0]
        for words in texts:
            places += [token_id for word in words if (token_id := self.ids.get(word)) is not None]
            ends.append(len(places))
        shape = (len(texts), self.size)
        rows = csr_matrix((np.ones(len(places)), places, ends), shape=shape)
        rows.sum_duplicates()
        # As scikit-learn's TfidfVectorizer(sublinear_tf=True): the tenth time says less than the first.
        rows.data = (1 + np.log(rows.data)) * self.idf[rows.indices - FIRST]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        rows.data /= np.repeat(lengths, np.diff(rows.indptr))
        rows = rows.astype("float32")
        return rows.toarray() if shape[0] * shape[1] <= _MAX_DENSE else rows

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this vocabulary again, as plain Python values."""
        return {
            "words": list(self.words),
            "idf": self.idf.tolist(),
            "max_length": self.max_length,
            "ngram_range": list(self.ngram_range),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Vocabulary:
        """Makes a vocabulary from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        given = _files.checked_fields(_renamed.vocabulary(config), _CONFIG, "A saved vocabulary")
        words, idf, max_length = given["words"], given["idf"], given["max_length"]
        if len(idf) != (max_length is None) * len(words) or len(set(words)) != len(words):
            raise SavedFileError(
                f"A saved vocabulary has {len(words)} words, weights of {len(idf)}, and reads {max_length} words of a "
                "text, which contradict each other."
            )
        return cls(words, idf, max_length, tuple(given["ngram_range"]))


_CONFIG: dict[str, Callable[[Any], object]] = {
    "words": _files.list_of(_files.is_text),
    "idf": _files.list_of(_files.is_number),
    "max_length": _files.optional(lambda value: _files.is_count(value) and value > 0),
    "ngram_range": lambda value: (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(map(_files.is_count, value))
        and 1 <= value[0] <= value[1]
    ),
}


def learn_vocabulary(
    texts: Sequence[str],
    *,
    max_features: int | None = 20_000,
    min_df: int | float = 2,
    max_length: int | Literal["auto"] | None = None,
    ngram_range: NgramRange = (1, 1),
) -> Vocabulary:
    """Learns words from texts.

    A word is two or more letters or digits, in lower case. Words that occur in more texts come first.

    Example:

    >>> words = learn_vocabulary(["Red apples", "green apples", "red wine"], max_length=3)
    >>> words.words
    ('apples', 'red')
    >>> words.encode(["red wine", "apples"])
    array([[3, 1, 0],
           [2, 0, 0]], dtype=int32)

    Args:
        texts: The training texts.
        max_features: Number of words that are kept at most, those that occur in most texts; `None` for all. Defaults to
            `20_000`.
        min_df: Number of training texts in which a word has to occur, or as a float their fraction. Defaults to `2`.
        max_length: Number of words of a text that are read, in their order; `"auto"` for as many as keep nine of ten
            training texts whole, 256 at most. Defaults to `None`: texts become tf-idf weights.
        ngram_range: The smallest and the largest number of adjacent words that count as one; `(1, 2)` learns single
            words and pairs. Defaults to `(1, 1)`.

    Returns:
        The vocabulary.

    Raises:
        DataError: No word is left.
    """
    found = list(map(_words_of(ngram_range), texts))
    counts = collections.Counter(word for words in found for word in set(words))
    if not counts:
        raise DataError(
            f"There is no word in any of the {len(texts)} texts; the first is {texts[0][:40]!r}. A word is two or more "
            "letters or digits."
        )
    # By name where counts are equal: the vocabulary must not depend on the order of the texts.
    least = min_df if is_whole(min_df) else min_df * len(texts)
    ranked = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))
    words = ranked[:max_features]
    if not words:
        raise DataError(
            f"No word occurs in {least:g} or more of the {len(texts)} texts (`min_df`); the most frequent, "
            f"{max(counts, key=counts.__getitem__)!r}, occurs in {max(counts.values())}. Give more texts, or a smaller "
            "`min_df`."
        )
    if max_length is None:
        document_frequency = np.array([counts[word] for word in words])
        return Vocabulary(words, np.log((1 + len(texts)) / (1 + document_frequency)) + 1, ngram_range=ngram_range)
    if max_length == "auto":
        whole = int(np.quantile([len(words) for words in found], _KEPT_WHOLE, method="higher"))
        max_length = min(_rounded_up(max(whole, 1)), _MAX_LENGTH)
    return Vocabulary(words, max_length=max_length, ngram_range=ngram_range)


def _words_of(ngram_range: NgramRange) -> Callable[[str], list[str]]:
    """A function from a text to its words in their order, shorter n-grams first."""
    return CountVectorizer(ngram_range=ngram_range).build_analyzer()  # type: ignore[no-any-return]


def _rounded_up(number: int) -> int:
    """The next number that is at most three binary digits followed by zeros: a quarter more at most."""
    step = 1 << max(number.bit_length() - 3, 0)
    return -(-number // step) * step
