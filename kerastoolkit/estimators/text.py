"""`TextClassifier`: texts in, labels out, with the words learned from the texts of `fit`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from kerastoolkit import _keras, builders
from kerastoolkit._types import Dataset, Rows, Target
from kerastoolkit._values import is_whole, whole_number_wanted
from kerastoolkit._words import did_you_mean
from kerastoolkit.data.text import FIRST, NgramRange, Vocabulary
from kerastoolkit.data.vectors import Source, check_source, read_vectors
from kerastoolkit.estimators import _inputs, _parameters
from kerastoolkit.estimators._readers import Data
from kerastoolkit.estimators.classifier import KerasClassifier
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ModelMismatchError, ParameterError

if TYPE_CHECKING:
    import keras

Self = TypeVar("Self", bound="TextClassifier")

_MODELS: dict[str, Callable[..., Any]] = {
    "bag": builders.mlp,
    "conv1d": builders.conv1d,
    "rnn": builders.rnn,
    "transformer_encoder": builders.transformer_encoder,
}

# Where `epochs` is not set: as many as make this number of steps.
_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 2_000, 5, 50


class TextClassifier(KerasClassifier):
    """A Keras model that classifies texts, as a scikit-learn classifier.

    Example:

    >>> texts = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain"] * 10
    >>> weather = TextClassifier(random_state=0).fit(texts, ["good", "bad", "good", "bad"] * 10)
    >>> weather.predict(["a sunny morning", "heavy rain"]).tolist()
    ['good', 'bad']

    The vocabulary is learned in `fit`, from its texts alone, so that a search learns nothing from the fold that it
    scores on. It is saved and pickled with the estimator.

    What a text becomes depends on the model:

    - `"bag"`: a bag of words, whose tf-idf weights go into the dense layers of `builders.mlp`. With an `embedding`, the
      mean of the vectors of its words instead.
    - `"conv1d"`, `"rnn"`, `"transformer_encoder"`: the words in their order, each as a vector, for the builder of that
      name.

    The bag is the default: it is the most accurate of them on 20 newsgroups (`benchmarks/results/text.md`).

    Args:
        model: `"bag"`, `"conv1d"`, `"rnn"` or `"transformer_encoder"`; or a function that returns a compiled or
            uncompiled model. A function with an argument `vocabulary_size` gets token ids, shape `(max_length,)`, any
            other function tf-idf weights, shape `(vocabulary_size,)`. Defaults to `None`: `"bag"`.
        embedding: `"learned"` for word vectors that are trained with the rest, of `embedding_dim` numbers each; or
            word vectors to begin with: the path of a text file of words and numbers (GloVe, fastText, word2vec), or a
            pair of paths, of a matrix (`.npy`, `.safetensors`) and of the words of its rows (`.txt`, or the `.json` of
            a tokenizer). Words without a vector there begin at zero. Defaults to `None`: none for the bag, learned for
            the others.
        train_embedding: Whether vectors from a file are trained further. Defaults to `True`.
        max_features: Number of words that are learned at most, those that occur in most texts; `None` for all. Defaults
            to `20_000`.
        min_df: Number of texts of `fit` in which a word has to occur to be learned, or as a float their fraction.
            Defaults to `2`.
        max_length: Number of words of a text that are read, from its beginning; not for a bag of words, which reads
            them all. Defaults to `None`: as many as keep nine of ten texts of `fit` whole, 256 at most.
        ngram_range: The smallest and the largest number of adjacent words that count as one, for the bag: `(1, 2)`
            learns single words and pairs. Defaults to `(1, 1)`.
        epochs: Number of epochs to train. Defaults to `None`: as many as make 2,000 steps, from 5 to 50; 1 for a
            function of yours.
        validation_split: Fraction of the texts that is held out for validation and not trained on, drawn at random with
            the proportions of the classes kept; words are learned from them all the same. Defaults to `0.0`.
        **params: Arguments of the build function (`hidden`, `dropout`, `embedding_dim`), and routed parameters.

    Attributes:
        words_: The `kerastoolkit.data.Vocabulary` that encodes texts.
        vocabulary_: Column or token id of each word, in what goes into `model_`.
        model_: The trained `keras.Model`, which takes what `words_.encode(texts)` returns.
        classes_: Labels, shape `(n_classes,)`.
    """

    reader_names = ("text",)
    default_model = "bag"

    words_: Vocabulary

    def __init__(
        self,
        model: str | Callable[..., keras.Model] | None = None,
        *,
        embedding: Source | Literal["learned"] | None = None,
        train_embedding: bool = True,
        max_features: int | None = 20_000,
        min_df: int | float = 2,
        max_length: int | None = None,
        ngram_range: NgramRange = (1, 1),
        **params: Any,
    ) -> None:
        super().__init__(model, **params)
        self.embedding = embedding
        self.train_embedding = train_embedding
        self.max_features = max_features
        self.min_df = min_df
        self.max_length = max_length
        self.ngram_range = ngram_range

    @property
    def vocabulary_(self) -> dict[str, int]:
        """Number of each word in what goes into `model_`."""
        words = getattr(self, "words_", None)
        if words is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'vocabulary_'")
        return dict(words.ids)

    # -- parameters -----------------------------------------------------------------------------------------------

    def _build_function(self, model: object, build_fn: object) -> Callable[..., Any] | None:
        if isinstance(model, str):
            if model in _MODELS:
                return super()._build_function(_MODELS[model], build_fn)
            raise ParameterError(
                f"`model` is {model!r}, which does not take texts.{did_you_mean(model, _MODELS)} Those that do are "
                f"{', '.join(map(repr, _MODELS))}; or pass a function that returns a keras.Model."
            )
        if model is None and build_fn is None:
            return _MODELS[self.default_model]
        build = super()._build_function(model, build_fn)
        if build is None:
            raise ParameterError(
                f"`model` is a {type(model).__name__} that is already built, but the size of the vocabulary is known "
                "in `fit` only. Pass a function that builds it, with an argument `vocabulary_size` or `input_shape`."
            )
        return build

    def _takes_columns(self) -> bool:
        return False

    def _takes_token_ids(self) -> bool:
        """Whether the build function gets token ids, and not weights."""
        build = self._build_function(self.model, self.build_fn)
        named = "vocabulary_size" in (_parameters.build_arguments(build) or ())
        return named and not (build is builders.mlp and self.embedding is None)

    def _takes_vectors(self) -> bool:
        return self.embedding is not None and not (isinstance(self.embedding, str) and self.embedding == "learned")

    def check_parameters(self) -> None:
        super().check_parameters()
        problems = self._problems_of_words()
        given = {name.removeprefix("model__") for name in self._params}
        build, ordered = self._build_function(self.model, self.build_fn), self._takes_token_ids()
        if "vocabulary_size" in given:
            problems.append("`vocabulary_size` is learned from the texts; limit it by `max_features`.")
        if not ordered and self.max_length is not None:
            problems.append(f"`max_length` is {self.max_length!r}, but a bag of words reads them all; leave it out.")
        if not ordered and "embedding_dim" in given and build is builders.mlp:
            problems.append("`embedding_dim` is for `embedding='learned'`; without it words have no vectors.")
        if not ordered and self.embedding is not None:
            problems.append(
                f"`embedding` is {self.embedding!r}, but {_parameters.describe(build)} takes no token ids: it has no "
                "argument `vocabulary_size`."
            )
        if ordered and build is not builders.mlp and not problems and tuple(self.ngram_range) != (1, 1):
            problems.append(
                f"`ngram_range` is {self.ngram_range!r}, but {self.model!r} reads words in their order, and so sees "
                "which are adjacent; `ngram_range` is for the bag."
            )
        if self._takes_vectors():
            check_source(self.embedding)
            if "embedding_dim" in given:
                problems.append("`embedding_dim` is given, but the vectors in `embedding` have their size.")
        if problems:
            raise ParameterError("\n".join(problems))

    def _problems_of_words(self) -> list[str]:
        """A sentence for each parameter that no vocabulary can be learned with."""
        problems = []
        for name, value in (("max_features", self.max_features), ("max_length", self.max_length)):
            if value is not None:
                problems.append(whole_number_wanted(name, value, otherwise=", or None"))
        min_df = _parameters.plain(self.min_df)
        if not (isinstance(min_df, float) and 0 < min_df <= 1):
            otherwise = ", or a fraction of the texts, up to 1.0"
            problems.append(whole_number_wanted("min_df", min_df, otherwise=otherwise))
        sizes = self.ngram_range if isinstance(self.ngram_range, (tuple, list)) else ()
        if len(sizes) != 2 or not all(map(is_whole, sizes)) or not 1 <= sizes[0] <= sizes[1]:
            problems.append(
                "`ngram_range` must be a pair of whole numbers, the smallest and the largest number of words, such as "
                f"(1, 2); got {self.ngram_range!r}."
            )
        return [problem for problem in problems if problem is not None]

    def _default_epochs(self, build: Callable[..., Any] | None, n_rows: int | None, batch_size: int | None) -> int:
        if build not in _MODELS.values() or n_rows is None:
            return super()._default_epochs(build, n_rows, batch_size)
        steps = -(-n_rows // (batch_size or 32))
        return int(np.clip(-(-_STEPS // steps), _MIN_EPOCHS, _MAX_EPOCHS))

    # -- texts ----------------------------------------------------------------------------------------------------

    def learn_reader(self, X: Rows, n_rows: int | None) -> tuple[Vocabulary, Any]:
        texts = _read_texts(X, type(self).__name__)
        options = {name: _parameters.plain(getattr(self, name)) for name in ("max_features", "min_df")}
        options["ngram_range"] = tuple(map(_parameters.plain, self.ngram_range))
        options["max_length"] = (_parameters.plain(self.max_length) or "auto") if self._takes_token_ids() else None
        return Vocabulary.learn_and_encode(texts, **options)

    def _encode(self, X: Rows, n_rows: int | None = None) -> Any:
        return super()._encode(_read_texts(X, type(self).__name__))

    def _read_dataset(
        self, X: Dataset, y: Target, sample_weight: ArrayLike | None, validation_split: float, *, reset: bool
    ) -> Data:
        raise DataError(_NO_DATA_SET)

    def _raw_output(self, X: Rows, **predict_params: object) -> Any:
        check_is_fitted(self)
        if _inputs.kind_of(X) == "dataset":
            raise DataError(_NO_DATA_SET)
        return super()._raw_output(X, **predict_params)

    # -- the model ------------------------------------------------------------------------------------------------

    def _wrap_build(self, build: Callable[..., Any] | None) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
        if build is None or not self._takes_vectors():
            return build, {}
        vectors = self._vectors()
        size = int(vectors.shape[1])
        called = functools.partial(_with_vectors, build, vectors, bool(self.train_embedding))
        return called, {"embedding_dim": lambda: size}

    def _filled_in_arguments(self) -> set[str]:
        of_vectors = set() if self.embedding == "learned" or self._takes_token_ids() else {"embedding_dim"}
        return super()._filled_in_arguments() | of_vectors

    def _vectors(self) -> np.ndarray:
        """Initial values of the embedding, shape `(words_.size, embedding_dim)`."""
        found = read_vectors(self.embedding, self.words_.words)  # type: ignore[arg-type]  # since `_takes_vectors`
        known = np.asarray(~np.isnan(found).any(axis=1))
        if not known.any():
            raise DataError(
                f"None of the {len(known)} words of the texts has a vector in `embedding`, {self.embedding!r}; the "
                f"most frequent are {', '.join(map(repr, self.words_.words[:5]))}. Is it of another language?"
            )
        if known.mean() < _ENOUGH_VECTORS:
            warnings.warn(
                f"Only {known.sum()} of {len(known)} words of the texts have a vector in `embedding`; the others begin "
                "at zero.",
                KerasToolkitWarning,
                stacklevel=7,
            )
        vectors = np.zeros((self.words_.size, found.shape[1]), dtype="float32")
        vectors[FIRST : FIRST + len(found)][known] = found[known]
        return vectors

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = tags.input_tags.sparse = False
        return tags


_ENOUGH_VECTORS = 0.5  # fraction of the words

_NO_DATA_SET = (
    "X is a data set, whose texts this estimator cannot read: it learns its vocabulary from all texts at once. Give "
    "the texts as a list, an array or a pandas Series."
)


def _with_vectors(
    build: Callable[..., keras.Model], vectors: np.ndarray, train: bool, **arguments: object
) -> keras.Model:
    """A model whose word embedding begins with given vectors."""
    import keras

    model = build(**arguments)
    if not isinstance(model, keras.Model):
        return model
    for layer in _keras.layers_of(model, itself=False):
        if isinstance(layer, keras.layers.Embedding) and (layer.input_dim, layer.output_dim) == vectors.shape:
            layer.set_weights([vectors])
            layer.trainable = train
            return model
    raise ModelMismatchError(
        f"The model of {_parameters.describe(build)} has no keras.layers.Embedding of {vectors.shape[0]} token ids "
        f"(`vocabulary_size`) with {vectors.shape[1]} numbers each (`embedding_dim`) for the vectors in `embedding`."
    )


def _read_texts(X: Any, owner: str) -> list[str]:
    """The texts as a list.

    Raises:
        DataError: `X` is one text or a table, or contains something other than text; the message says which and where.
    """
    if isinstance(X, (str, bytes)):
        raise DataError(f"X is one text, {X[:40]!r}; {owner} takes several. For one, give a list of it: [text].")
    if isinstance(X, Mapping) or len(getattr(X, "shape", (0,))) != 1:
        what = f"{type(X).__name__} of the shape {X.shape}" if hasattr(X, "shape") else type(X).__name__
        raise DataError(
            f"X is a {what}; {owner} takes one text per row: a list, an array of one axis, or one column of a table, "
            "such as table['text']."
        )
    if not hasattr(X, "__len__"):
        raise DataError(f"X must be a list, array or pandas Series of texts; got {type(X).__name__}.")
    texts = X.tolist() if isinstance(X, (np.ndarray, pd.Series, pd.Index)) else list(X)
    if not texts:
        raise DataError("X contains no texts; at least 1 is needed.")
    others = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if not others:
        return texts
    missing = [row for row in others if _is_missing(texts[row])]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(texts)} texts in X are missing (None or NaN), the first in row {missing[0]}. Drop "
            "those rows, or treat them as empty texts: X.fillna('')."
        )
    first = texts[others[0]]
    advice: dict[type, str] = {
        bytes: "Decode it: text.decode('utf-8').",
        list: "Join the words, which are split already: ' '.join(words).",
    }
    raise DataError(
        f"X must contain texts; row {others[0]} is {type(first).__name__}, {str(first)[:40]!r}. "
        f"{advice.get(type(first), 'For rows of numbers, there is KerasClassifier.')}"
    )


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
