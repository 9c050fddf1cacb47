"""What a fitted estimator is: one record, and a new kind of data is a reader, a builder and a thin estimator."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

from kerastoolkit import KerasClassifier, builders, load
from kerastoolkit.data import Reader, checked_config, readers, register_reader
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import DataError, KerasToolkitWarning, SavedFileError
from kerastoolkit.search import GridSearchCV

X, Y = load_iris(return_X_y=True)
SMALL: dict[str, Any] = {"hidden": (4,), "epochs": 2, "random_state": 0}


def test_an_estimator_keeps_what_it_learned_in_one_record_and_shows_it() -> None:
    estimator = KerasClassifier(**SMALL)
    assert "_fitted" not in vars(estimator)
    assert not hasattr(estimator, "history_") and not hasattr(estimator, "n_features_in_")
    estimator.fit(X, Y)
    assert [name for name in vars(estimator) if name.endswith("_")] == []
    fitted = vars(estimator)["_fitted"]
    assert estimator.history_ is fitted.history and estimator.n_iter_ == fitted.n_iter == 2
    assert estimator.reader_ is fitted.reader and estimator.n_features_in_ == 4
    assert estimator.head_ is fitted.head and estimator.classes_.tolist() == [0, 1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.n_iter = 3
    with pytest.raises(AttributeError, match="no attribute 'columns_'"):
        estimator.columns_  # noqa: B018


def test_a_record_comes_back_from_its_config_and_the_network() -> None:
    estimator = KerasClassifier(**SMALL).fit(X, Y)
    fitted = estimator._fitted
    again = Fitted.from_config(fitted.get_config())
    assert not again.is_complete
    again = again.with_model(fitted.model)
    assert again.get_config().keys() == fitted.get_config().keys()
    assert again.history == fitted.history and again.reader.row_shape == (4,)
    # The generator goes on where that of the record is.
    assert again.generator is not None and fitted.generator is not None
    assert again.generator.randint(1000) == fitted.generator.randint(1000)
    for wrong in ({"n_iter": -1}, {"reader": None}, {"head": {}}, {"best_epoch": 3}, {"more": 1}):
        with pytest.raises(SavedFileError):
            Fitted.from_config({**fitted.get_config(), **wrong})


def test_a_fit_that_fails_leaves_the_record_that_was_there() -> None:
    estimator = KerasClassifier(**SMALL).fit(X, Y)
    before, expected = estimator._fitted, estimator.predict_proba(X)
    for wrong in (Y[:3], np.full(len(Y), np.nan)):
        with pytest.raises(DataError):
            estimator.fit(X, wrong)
    assert estimator._fitted is before
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    fresh = KerasClassifier(**SMALL)
    with pytest.raises(DataError):
        fresh.fit(X, Y[:3])
    assert not fresh.initialized_ and "_fitted" not in vars(fresh)


def test_one_that_is_stopped_before_there_is_a_network_is_what_it_was() -> None:
    def stopped(input_shape: Any, head: Any) -> Any:
        raise KeyboardInterrupt

    estimator = KerasClassifier(**SMALL).fit(X, Y)
    expected = estimator.predict_proba(X)
    estimator._params = {}  # `stopped` takes no `hidden`
    with pytest.raises(KeyboardInterrupt):
        estimator.set_params(model=stopped).fit(X[:, :2], Y)
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)


def test_copies_do_not_hear_of_each_other() -> None:
    estimator = KerasClassifier(**SMALL).fit(X, Y)
    expected = estimator.predict_proba(X)
    for made in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(made.predict_proba(X), expected)
        assert made.partial_fit(X, Y).n_iter_ == 3 and estimator.n_iter_ == 2
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    assert not clone(estimator).initialized_


# -- a new kind of data -----------------------------------------------------------------------------------------------


class EventReader(Reader):
    """Reads rows that are lists of events, `{"type": ..., "value": ...}`."""

    shown_as = "events_"
    offers = ("events",)

    def __init__(self, types: Any, length: int) -> None:
        self.types, self.length = list(types), length

    @classmethod
    def learn(cls, X: Any, *, length: int) -> EventReader:  # type: ignore[override]
        return cls(sorted({event["type"] for row in X for event in row}), length)

    def encode(self, X: Any) -> Any:
        arrays = {"type": np.zeros((len(X), self.length), "int32"), "value": np.zeros((len(X), self.length), "float32")}
        for row, events in enumerate(X):
            for place, event in enumerate(events[: self.length]):
                arrays["type"][row, place] = self.types.index(event["type"]) + 1 if event["type"] in self.types else 0
                arrays["value"][row, place] = event["value"]
        return arrays

    @property
    def row_shape(self) -> Any:
        return {"type": (self.length,), "value": (self.length,)}

    def offered(self) -> Any:
        return {"events": self}

    def get_config(self) -> dict[str, Any]:
        return {"types": self.types, "length": self.length}

    @classmethod
    def from_config(cls, config: Any) -> EventReader:
        return cls(**checked_config(config, {"types": list, "length": int}, "Saved events"))


def event_bag(events: EventReader, head: Any, width: int = 4) -> Any:
    inputs = {name: keras.Input(shape, name=name) for name, shape in events.row_shape.items()}
    types = keras.layers.Embedding(len(events.types) + 1, width)(inputs["type"])
    parts = [keras.layers.GlobalAveragePooling1D()(types), inputs["value"]]
    return keras.Model(inputs, head.output_layer()(keras.layers.Concatenate()(parts)))


class EventClassifier(KerasClassifier):
    """A classifier of rows that are lists of events."""

    reader_names = ("events",)
    default_model = "event_bag"

    def __init__(self, model: Any = None, *, length: int = 6, **params: Any) -> None:
        super().__init__(model, **params)
        self.length = length

    def learn_reader(self, X: Any, n_rows: int | None) -> Any:
        return EventReader.learn_and_encode(X, length=self.length)


def _rows() -> tuple[list[Any], Any]:
    draw, labels = np.random.RandomState(0), np.arange(60) % 2
    kinds = [["click", "buy"][int(draw.rand() < 0.2 + 0.6 * label)] for label in labels for _ in range(5)]
    events = [{"type": kind, "value": float(draw.rand())} for kind in kinds]
    return [events[5 * row : 5 * row + 5] for row in range(60)], labels


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))
    monkeypatch.setattr(builders, "_BUILDERS", dict(builders._BUILDERS))
    register_reader("events")(EventReader)
    builders.register_builder()(event_bag)
    yield


@pytest.mark.usefixtures("events")
def test_a_new_kind_of_data_is_a_reader_a_builder_and_a_thin_estimator(tmp_path: Path) -> None:
    rows, labels = _rows()
    estimator = EventClassifier(epochs=2, random_state=0).fit(rows, labels)
    assert estimator.events_.types == ["buy", "click"] and estimator.predict(rows).shape == (60,)
    path = estimator.save(tmp_path / "events.zip")
    loaded = load(path, custom_objects={"EventClassifier": EventClassifier})
    for again in (loaded, pickle.loads(pickle.dumps(estimator))):
        assert type(again) is EventClassifier
        np.testing.assert_array_equal(again.predict_proba(rows), estimator.predict_proba(rows))
        assert again.partial_fit(rows, labels).n_iter_ == 3
    search = GridSearchCV(EventClassifier(epochs=1, random_state=0), {"width": [2, 3], "length": [4, 6]}, cv=2)
    assert search.fit(rows, labels).best_params_.keys() == {"width", "length"}
    names = {one.name for one in estimator.list_parameters()}
    assert {"width", "length"} <= names and not {"events", "head"} & names


@pytest.mark.usefixtures("events")
def test_a_file_with_a_reader_of_somebodys_needs_it_registered(tmp_path: Path) -> None:
    rows, labels = _rows()
    path = EventClassifier(epochs=1, random_state=0).fit(rows, labels).save(tmp_path / "events.zip")
    with pytest.warns(KerasToolkitWarning, match="EventClassifier', which was not found: it is read as a KerasClas"):
        assert load(path).predict_proba(rows).shape == (60, 2)
    del readers._READERS["events"]
    with pytest.raises(SavedFileError, match="read by 'events', which is no reader of KerasClassifier and none that"):
        load(path)
