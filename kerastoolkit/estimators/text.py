"""`TextClassifier`: texts in, labels out, with the words learned from the texts of `fit`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from kerastoolkit import _keras, builders
from kerastoolkit._values import whole_number_wanted
from kerastoolkit._words import did_you_mean
from kerastoolkit.data.text import FIRST, Vocabulary
from kerastoolkit.data.vectors import check_source, read_vectors
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

# Where `epochs` is not set: as many as make so many steps.
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 2_000, 5, 50


class TextClassifier(KerasClassifier):
    """A Keras model that classifies texts, as a scikit-learn classifier.

    Example:

    >>> texts = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain"] * 10
    >>> weather = TextClassifier(random_state=0).fit(texts, ["good", "bad", "good", "bad"] * 10)
    >>> weather.predict(["a sunny morning", "heavy rain"]).tolist()
    ['good', 'bad']

    Words are learned in `fit`, from its texts alone, so that a search does not see those of the fold that it scores on.
    They go into the file of `save` and into a pickle.

    What a text becomes depends on the model:

    - `"bag"`: the weight of each word (tf-idf: how often the text has it, and how few texts do), whatever their order,
      into the dense layers of `builders.mlp`. With an `embedding`, the mean of the vectors of its words instead.
    - `"conv1d"`, `"rnn"`, `"transformer_encoder"`: the words in their order, each as a vector, into the builder of that
      name.

    The bag is the default: on 20 newsgroups it is the most accurate of them (`benchmarks/results/text.md`).

    Args:
        model: `"bag"`, `"conv1d"`, `"rnn"` or `"transformer_encoder"`; or a function that returns a compiled or
            uncompiled model. A function with an argument `vocabulary_size` gets the numbers of words in their order,
            shape `(length,)`, another the weights of words, shape `(words,)`. Defaults to `None`:
            `"bag"`.
        embedding: `"learned"` for vectors of words that are trained with the rest (`embedding_size` numbers each, the
            transformer's `width`); or vectors to begin with: the path of a text file of words and numbers (GloVe,
            fastText, word2vec), or a pair of paths, of a matrix (`.npy`, `.safetensors`) and of the words of its rows
            (`.txt`, or the `.json` of a tokenizer). Words without a vector there begin at zero. Defaults to `None`:
            none for the bag, learned for the others.
        train_embedding: Whether vectors from a file are trained further. Defaults to `True`.
        max_words: Words that are learned, those of most texts. Defaults to `20_000`.
        min_count: Texts of `fit` that a word must stand in to be learned. Defaults to `2`.
        length: Words of a text that are read, from its beginning; not for a bag of weights, which reads all. Defaults
            to `None`: what keeps nine of ten texts of `fit` whole, 256 at most.
        ngrams: Words that follow each other and count as one more word, at most; for the bag. Defaults to `1`.
        build_fn: As for `KerasClassifier`.
        optimizer: As for `KerasClassifier`.
        loss: As for `KerasClassifier`.
        metrics: As for `KerasClassifier`.
        epochs: Epochs to train. Defaults to `None`: what makes 2,000 steps, from 5 to 50; 1 for a function of yours.
        batch_size: As for `KerasClassifier`.
        validation_batch_size: As for `KerasClassifier`.
        validation_split: As for `KerasClassifier`; words are learned from the texts held out as well.
        shuffle: As for `KerasClassifier`.
        callbacks: As for `KerasClassifier`.
        class_weight: As for `KerasClassifier`.
        warm_start: As for `KerasClassifier`.
        random_state: As for `KerasClassifier`.
        verbose: As for `KerasClassifier`.
        distribution: As for `KerasClassifier`.
        precision: As for `KerasClassifier`.
        **params: Arguments of the build function (`hidden`, `dropout`, `embedding_size`), and routed parameters.

    Attributes:
        words_: The `kerastoolkit.data.Vocabulary` that reads texts.
        vocabulary_: Number of each word in what goes into `model_`.
        model_: The trained `keras.Model`, which takes what `words_.encode(texts)` returns.
        history_: Losses and metrics by name, one number an epoch.
        n_iter_: Epochs trained.
        best_epoch_: Epoch, counted from 1, whose weights `EarlyStopping(restore_best_weights=True)` put back; None
            where none did. `history_["loss"][best_epoch_ - 1]` is its loss.
        classes_: Labels, shape `(n_classes,)`.
    """

    _readers = ("text",)
    _default_model = "bag"

    words_: Vocabulary

    def __init__(
        self,
        model: Any = None,
        *,
        embedding: Any = None,
        train_embedding: bool = True,
        max_words: int = 20_000,
        min_count: int = 2,
        length: int | None = None,
        ngrams: int = 1,
        build_fn: Callable[..., Any] | None = None,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_batch_size: int | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        callbacks: Any = (),
        class_weight: Mapping[Any, float] | list[Mapping[Any, float]] | str | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | str = 0,
        distribution: str | None = None,
        precision: str | None = None,
        **params: Any,
    ) -> None:
        super().__init__(
            model,
            build_fn=build_fn,
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            epochs=epochs,
            batch_size=batch_size,
            validation_batch_size=validation_batch_size,
            validation_split=validation_split,
            shuffle=shuffle,
            callbacks=callbacks,
            class_weight=class_weight,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
            distribution=distribution,
            precision=precision,
            **params,
        )
        self.embedding = embedding
        self.train_embedding = train_embedding
        self.max_words = max_words
        self.min_count = min_count
        self.length = length
        self.ngrams = ngrams

    @property
    def vocabulary_(self) -> dict[str, int]:
        """Number of each word in what goes into `model_`."""
        words = getattr(self, "words_", None)
        if words is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'vocabulary_'")
        return dict(words.numbers)

    # -- parameters -----------------------------------------------------------------------------------------------

    def _build_function(self, model: Any, build_fn: Any) -> Callable[..., Any] | None:
        if isinstance(model, str):
            if model in _MODELS:
                return super()._build_function(_MODELS[model], build_fn)
            raise ParameterError(
                f"`model` is {model!r}, which reads no texts.{did_you_mean(model, _MODELS)} There "
                f"are {', '.join(map(repr, _MODELS))}; or pass a function that returns a keras.Model."
            )
        if model is None and build_fn is None:
            return _MODELS[self._default_model]
        build = super()._build_function(model, build_fn)
        if build is None:
            raise ParameterError(
                f"`model` is a {type(model).__name__} that is already built, but how many words there are is known in "
                "`fit` only. Pass a function that builds it, with an argument `vocabulary_size` or `input_shape`."
            )
        return build

    def _takes_columns(self) -> bool:
        return False

    def _takes_order(self) -> bool:
        """Whether the build function gets the numbers of words, and not their weights."""
        build = self._build_function(self.model, self.build_fn)
        named = "vocabulary_size" in (_parameters.build_arguments(build) or ())
        return named and not (build is builders.mlp and self.embedding is None)

    def _takes_vectors(self) -> bool:
        return self.embedding is not None and not (isinstance(self.embedding, str) and self.embedding == "learned")

    def _check_values(self) -> None:
        super()._check_values()
        problems: list[str] = []
        for name in ("max_words", "min_count", "length", "ngrams"):
            value = getattr(self, name)
            if not (name == "length" and value is None):
                problems += filter(None, [whole_number_wanted(name, value)])
        given = {name.removeprefix("model__") for name in self._params}
        build, ordered = self._build_function(self.model, self.build_fn), self._takes_order()
        if "vocabulary_size" in given:
            problems.append("`vocabulary_size` is known from the texts; set `max_words`, the most there may be.")
        if not ordered and self.length is not None:
            problems.append(f"`length` is {self.length!r}, but a bag of weights reads all words; leave it out.")
        if not ordered and "embedding_size" in given and build is builders.mlp:
            problems.append("`embedding_size` is for `embedding='learned'`; without it words have no vectors.")
        if not ordered and self.embedding is not None:
            problems.append(
                f"`embedding` is {self.embedding!r}, but {_parameters.describe(build)} takes no words: it has no "
                "argument `vocabulary_size`."
            )
        if ordered and build is not builders.mlp and self.ngrams != 1:
            problems.append(
                f"`ngrams` is {self.ngrams!r}, but {self.model!r} reads words in their order, and so sees which follow "
                "each other; `ngrams` is for the bag."
            )
        if self._takes_vectors():
            check_source(self.embedding)
            problems += [
                f"`{name}` is given, but the vectors in `embedding` have their size." for name in _SIZES & given
            ]
        if problems:
            raise ParameterError("\n".join(problems))

    def _default_epochs(self, build: Callable[..., Any] | None, n_rows: int | None, batch_size: int | None) -> int:
        if build not in _MODELS.values() or n_rows is None:
            return super()._default_epochs(build, n_rows, batch_size)
        steps = -(-n_rows // (batch_size or 32))
        return int(np.clip(-(-_STEPS // steps), _FEWEST_EPOCHS, _MOST_EPOCHS))

    # -- texts ----------------------------------------------------------------------------------------------------

    def _learn_reader(self, X: Any, n_rows: int | None) -> tuple[Vocabulary, Any]:
        texts = _read_texts(X, type(self).__name__)
        options = {name: _parameters.plain(getattr(self, name)) for name in ("max_words", "min_count", "ngrams")}
        options["length"] = (_parameters.plain(self.length) or "auto") if self._takes_order() else None
        return Vocabulary.learn_and_encode(texts, **options)

    def _encode(self, X: Any, n_rows: int | None = None) -> Any:
        return super()._encode(_read_texts(X, type(self).__name__))

    def _read_dataset(self, X: Any, y: Any, sample_weight: Any, validation_split: float, *, reset: bool) -> Data:
        raise DataError(_NO_DATA_SET)

    def _raw(self, X: Any, **predict_params: Any) -> Any:
        check_is_fitted(self)
        if _inputs.kind_of(X) == "dataset":
            raise DataError(_NO_DATA_SET)
        return super()._raw(X, **predict_params)

    # -- the model ------------------------------------------------------------------------------------------------

    def _called(self, build: Callable[..., Any] | None) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
        if build is None or not self._takes_vectors():
            return build, {}
        vectors = self._vectors()
        size = int(vectors.shape[1])
        called = functools.partial(_with_vectors, build, vectors, bool(self.train_embedding))
        return called, {name: lambda: size for name in _SIZES}

    def _known_by_itself(self) -> set[str]:
        of_vectors = set() if self.embedding == "learned" or self._takes_order() else {"embedding_size"}
        return super()._known_by_itself() | of_vectors

    def _vectors(self) -> np.ndarray:
        """Starting values of the embedding, shape `(words_.size, numbers)`."""
        found = read_vectors(self.embedding, self.words_.words)
        known = ~np.isnan(found).any(axis=1)
        if not known.any():
            raise DataError(
                f"None of the {len(known)} words of the texts has a vector in `embedding`, {self.embedding!r}; the "
                f"commonest are {', '.join(map(repr, self.words_.words[:5]))}. Is it of another language?"
            )
        if known.mean() < _ENOUGH_VECTORS:
            warnings.warn(
                f"Only {known.sum()} of {len(known)} words of the texts have a vector in `embedding`; the others begin "
                "at zero.",
                KerasToolkitWarning,
                stacklevel=6,
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
_SIZES = {"embedding_size", "width"}  # what builders call the numbers that a word is turned into

_NO_DATA_SET = (
    "X is a data set, whose texts this estimator cannot read: it learns words from all texts at once. Give the texts "
    "as a list, an array or a pandas Series."
)


def _with_vectors(build: Callable[..., keras.Model], vectors: np.ndarray, train: bool, **arguments: Any) -> keras.Model:
    """A model whose embedding of words begins with given vectors."""
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
        f"The model of {_parameters.describe(build)} has no keras.layers.Embedding of {vectors.shape[0]} words "
        f"(`vocabulary_size`) with {vectors.shape[1]} numbers each (`embedding_size`), for the vectors in `embedding`."
    )


def _read_texts(X: Any, owner: str) -> list[str]:
    """The texts as a list.

    Raises:
        DataError: `X` is one text, a table, or has something else than text in it; the message says which and where.
    """
    if isinstance(X, (str, bytes)):
        raise DataError(f"X is one text, {X[:40]!r}; {owner} takes several. For one, give a list of it: [text].")
    if isinstance(X, Mapping) or len(getattr(X, "shape", (0,))) != 1:
        what = f"{type(X).__name__} of the shape {X.shape}" if hasattr(X, "shape") else type(X).__name__
        raise DataError(
            f"X is a {what}; {owner} takes one text a row: a list, an array of one axis, or one column of a table, as "
            "table['text']."
        )
    if not hasattr(X, "__len__"):
        raise DataError(f"X must be a list, array or pandas Series of texts; got {type(X).__name__}.")
    texts = X.tolist() if isinstance(X, (np.ndarray, pd.Series, pd.Index)) else list(X)
    if not texts:
        raise DataError("X holds no texts; at least 1 is needed.")
    others = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if not others:
        return texts
    missing = [row for row in others if _is_missing(texts[row])]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(texts)} texts in X are missing (None or NaN), the first in row {missing[0]}. Drop "
            "those rows, or take them for empty texts: X.fillna('')."
        )
    first = texts[others[0]]
    advice: dict[type, str] = {
        bytes: "Decode it: text.decode('utf-8').",
        list: "Join words that are already split: ' '.join(words).",
    }
    raise DataError(
        f"X must hold texts; row {others[0]} is {type(first).__name__}, {str(first)[:40]!r}. "
        f"{advice.get(type(first), 'For rows of numbers there is KerasClassifier.')}"
    )


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
