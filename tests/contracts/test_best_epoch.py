"""Which epoch's weights an estimator has: told where it is known, by whatever way it was trained, and nowhere else."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.callbacks import EarlyStopping
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_validate
from sklearn.preprocessing import scale

from kerastoolkit import KerasClassifier, load
from kerastoolkit.exceptions import SavedFileError
from kerastoolkit.search import GridSearchCV, fused

X, Y = load_iris(return_X_y=True)
# Of half of the flowers the species is drawn by lot, and steps are so large that the losses go up and down: the best
# epoch is not the last.
X = scale(X)
Y = np.where(np.random.RandomState(0).rand(150) < 0.5, np.random.RandomState(1).randint(0, 3, 150), Y)
WATCHED = (X[1::2], Y[1::2])
ZIGZAG = {"hidden": (8,), "epochs": 9, "optimizer__learning_rate": 0.2, "random_state": 3}


def _stop(monitor: str = "val_loss", **options: Any) -> EarlyStopping:
    return EarlyStopping(monitor, **{"patience": 99, "restore_best_weights": True, **options})


def _fitted(*callbacks: Any, **parameters: Any) -> Any:
    estimator = KerasClassifier(callbacks=list(callbacks) or None, **{**ZIGZAG, **parameters})
    return estimator.fit(X[::2], Y[::2], validation_data=WATCHED)


def _has_weights_of(estimator: Any, epochs: int) -> bool:
    """Whether it ended as a network does that is trained for so many epochs and no more."""
    other = _fitted(epochs=epochs).model_.get_weights()
    pairs = zip(estimator.model_.get_weights(), other, strict=True)
    return all(np.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in pairs)


def _looking_at_batches() -> Any:
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: None)


@pytest.mark.parametrize(
    ("options", "best", "by_keras"),
    [
        ({}, np.argmin, False),
        ({}, np.argmin, True),
        ({"patience": 1}, np.argmin, False),  # which stops early
        ({"monitor": "val_accuracy", "mode": "max", "patience": 3}, np.argmax, False),
        ({"monitor": "loss", "start_from_epoch": 4}, np.argmin, False),
    ],
    ids=["to the end", "by Model.fit", "stopped", "of another name", "begun later"],
)
def test_the_best_epoch_is_the_one_whose_weights_the_model_has(options: Any, best: Any, by_keras: bool) -> None:
    found = _fitted(_stop(**options), *([_looking_at_batches()] if by_keras else []))
    first = options.get("start_from_epoch", 0)
    assert found.best_epoch_ == first + 1 + best(found.history_[options.get("monitor", "val_loss")][first:])
    assert (found.n_iter_ < 9) == ("patience" in options)
    assert _has_weights_of(found, found.best_epoch_)
    assert not _has_weights_of(found, found.best_epoch_ + 1)


class _Later(keras.callbacks.Callback):
    """Changes the weights when all other callbacks have ended."""

    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights([value * 0.5 for value in self.model.get_weights()])


class _CountsFromOne(EarlyStopping):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.wait == 0:
            self.best_epoch = epoch + 1


class _CountsFromOneInTheEnd(EarlyStopping):
    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        self.best_epoch += 1


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda folder: [],
        lambda folder: [_stop(restore_best_weights=False)],
        lambda folder: [_stop(), _Later()],
        lambda folder: [_CountsFromOne("val_loss", patience=99, restore_best_weights=True)],
        lambda folder: [_CountsFromOneInTheEnd("val_loss", patience=99, restore_best_weights=True)],
        lambda folder: [_stop(start_from_epoch=50)],
        lambda folder: [
            keras.callbacks.ModelCheckpoint(folder / "best.weights.h5", save_best_only=True, save_weights_only=True)
        ],
    ],
    ids=["none", "not restored", "changed after", "own count", "own count in the end", "never begun", "checkpoint"],
)
def test_where_no_weights_were_put_back_or_it_is_not_known_there_is_no_best_epoch(
    callbacks: Any, tmp_path: Path
) -> None:
    assert _fitted(*callbacks(tmp_path)).best_epoch_ is None


def test_another_callback_that_changes_nothing_is_no_reason_not_to_know() -> None:
    class Looking(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.get_weights()

    assert _fitted(Looking(), _stop(), Looking()).best_epoch_ == _fitted(_stop()).best_epoch_


def test_epochs_of_earlier_calls_are_counted_and_a_call_that_restores_nothing_forgets() -> None:
    found = _fitted(_stop(), warm_start=True)
    assert 1 <= found.best_epoch_ < 9
    found.fit(X[::2], Y[::2], validation_data=WATCHED)
    assert found.n_iter_ == 18
    assert found.best_epoch_ == 10 + np.argmin(found.history_["val_loss"][9:])
    found.set_params(callbacks=None).partial_fit(X, Y, callbacks=[_stop("loss")], epochs=2)
    assert found.best_epoch_ == 19 + np.argmin(found.history_["loss"][18:])
    found.partial_fit(X, Y)
    assert found.best_epoch_ is None
    assert clone(found).set_params(callbacks=_stop("loss")).fit(X, Y).best_epoch_ is not None
    assert found.initialize(X, Y).best_epoch_ is None
    assert not hasattr(clone(found), "best_epoch_")


@pytest.mark.parametrize("by_keras", [False, True], ids=["by a program", "by Model.fit"])
def test_after_an_interrupted_training_it_is_known_where_the_weights_were_put_back(by_keras: bool) -> None:
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 6:
                raise KeyboardInterrupt

    found = KerasClassifier(callbacks=[_stop()], **ZIGZAG)
    callbacks = [Interrupt(), *([_looking_at_batches()] if by_keras else [])]
    with pytest.raises(KeyboardInterrupt):
        found.fit(X[::2], Y[::2], validation_data=WATCHED, callbacks=callbacks)
    best = int(np.argmin(found.history_["val_loss"])) + 1
    assert best < found.n_iter_ == 6
    # Model.fit leaves without a word to its callbacks.
    assert found.best_epoch_ == (None if by_keras else best)
    assert _has_weights_of(found, 6 if by_keras else best)


def test_fits_that_are_trained_together_know_each_its_own() -> None:
    estimator = KerasClassifier(callbacks=_stop(patience=2), validation_split=0.3, **ZIGZAG)
    with fused() as report:
        folds = cross_validate(estimator, X, Y, cv=3, return_estimator=True)["estimator"]
    assert "trained together" in report.explain()
    for one in folds:
        assert one.best_epoch_ == 1 + np.argmin(one.history_["val_loss"])
    search = GridSearchCV(estimator, {"optimizer__learning_rate": [0.2, 0.1]}, cv=2).fit(X, Y)
    best = search.best_estimator_
    assert best.best_epoch_ == 1 + np.argmin(best.history_["val_loss"]) == clone(best).fit(X, Y).best_epoch_


def test_a_file_and_a_pickle_know_it_and_older_ones_do_not(tmp_path: Path) -> None:
    found = _fitted(_stop())
    path = found.save(tmp_path / "one.zip")
    assert load(path).best_epoch_ == pickle.loads(pickle.dumps(found)).best_epoch_ == found.best_epoch_

    def written(change: Any) -> Path:
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        description = json.loads(members["estimator.json"])
        change(description["fitted"])
        members["estimator.json"] = json.dumps(description).encode()
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for name, member in members.items():
                file.writestr(name, member)
        (tmp_path / "other.zip").write_bytes(content.getvalue())
        return tmp_path / "other.zip"

    assert load(written(lambda fitted: fitted.update(best_epoch=None))).best_epoch_ is None
    for wrong in (0, -1, found.n_iter_ + 1, 2.0, True, "3", [1]):
        with pytest.raises(SavedFileError):
            load(written(lambda fitted, wrong=wrong: fitted.update(best_epoch=wrong)))
    with pytest.raises(SavedFileError, match="pickled by an earlier snapshot.*save it by its `save`"):
        found.__setstate__({"model_": found.model_, "history_": found.history_})  # as a pickle had it
