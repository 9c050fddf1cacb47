"""Files that were saved under earlier names are read under the names of today."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit import ImageClassifier, KerasClassifier, TextClassifier, _renamed, builders, load
from kerastoolkit.exceptions import SavedFileError

TEXTS = ["a warm and sunny day", "rain and wind all day", "the sunny coast", "wind and heavy rain"] * 5
LABELS = np.array(["good", "bad"] * 10)
IMAGES = np.random.RandomState(0).randint(0, 255, (8, 32, 32)).astype("uint8")


def rewritten(path: Path, **changes: Any) -> Path:
    """The same file with other entries in its description: functions of what stands there."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    description = json.loads(members["estimator.json"])
    for name, change in changes.items():
        description[name] = change(description[name])
    members["estimator.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def old_words(config: Any) -> Any:
    new = dict(config["dict"])
    old = [["words", new["words"]], ["rarity", new["idf"]], ["length", new["max_length"]]]
    return {"dict": [*old, ["ngrams", new["ngram_range"][1]]]}


def old_parameters(names: dict[str, str], **others: Any) -> Any:
    return lambda new: {**{names.get(name, name): value for name, value in new.items()}, **others}


BACK = {"max_features": "max_words", "min_df": "min_count", "max_length": "length", "ngram_range": "ngrams"}


@pytest.mark.parametrize(
    ("model", "names", "others"),
    [
        (TextClassifier(ngram_range=(1, 2), max_features=30, min_df=3), {}, {"ngrams": 2}),
        (TextClassifier("conv1d", max_length=5, embedding_dim=4), {"embedding_dim": "embedding_size"}, {"ngrams": 1}),
        (
            TextClassifier("transformer_encoder", model__embedding_dim=8, num_heads=2, hidden=(4,)),
            {"model__embedding_dim": "model__width"},
            {"ngrams": 1},
        ),
        (
            TextClassifier(builders.rnn, embedding_dim=4, hidden=(4,), max_length=5),
            {"embedding_dim": "embedding_size"},
            {"ngrams": 1},
        ),
    ],
    ids=["bag", "conv1d", "transformer_encoder", "function"],
)
def test_texts(model: TextClassifier, names: dict[str, str], others: dict[str, Any], tmp_path: Path) -> None:
    model.set_params(epochs=1, random_state=0).fit(TEXTS, LABELS)
    path = model.save(tmp_path / "texts.zip")
    again = load(rewritten(path, parameters=old_parameters(BACK | names, **others), words=old_words))
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert again.words_.get_config() == model.words_.get_config()
    with pytest.raises(SavedFileError):
        load(rewritten(path, words=lambda config: {"dict": [*config["dict"][:3], ["ngrams", -1]]}))


def test_images(tmp_path: Path) -> None:
    model = ImageClassifier("MobileNet", weights=None, layer="conv_pw_1_relu", cache=False, epochs=1, random_state=0)
    path = model.fit(IMAGES, np.arange(8) % 2).save(tmp_path / "images.zip")
    again = load(rewritten(path, parameters=old_parameters({"training": "strategy"})))
    assert again.get_params() == model.get_params()
    np.testing.assert_allclose(again.predict_proba(IMAGES), model.predict_proba(IMAGES), rtol=1e-6)


def test_arguments_of_a_users_function_and_of_other_estimators_keep_their_names() -> None:
    saved = {"model": {"reference": "mine:build"}, "width": 3, "length": 5, "strategy": "a", "ngrams": 2}
    assert _renamed.parameters(saved, "KerasClassifier") == saved
    assert _renamed.parameters({**saved, "model": "transformer_encoder"}, "KerasRegressor")["embedding_dim"] == 3
    assert KerasClassifier("transformer_encoder", embedding_dim=8).get_params()["embedding_dim"] == 8
