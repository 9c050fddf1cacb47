"""What a fitted estimator is: how it reads rows, the network, what its output means, and how it was trained.

An estimator of kerastoolkit keeps all that `fit` learned in one `Fitted`, which never changes: whatever trains on makes
another, so that an estimator whose fit fails goes back by taking its old record. Attributes with a trailing underscore
(`model_`, `history_`, `classes_`) are read from it. A file holds its config, and the network beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kerastoolkit import _files
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.data.readers import Reader, deserialize_reader, serialize_reader
from kerastoolkit.distribution import Strategy
from kerastoolkit.estimators._divergence import Divergence
from kerastoolkit.estimators._encoders import EncoderHead, FeatureEncoder, TargetEncoder
from kerastoolkit.estimators._readers import EncodedReader, first_of
from kerastoolkit.exceptions import SavedFileError
from kerastoolkit.training.network import Network

if TYPE_CHECKING:
    import keras

AnyHead = Head | HeadGroup | EncoderHead


@dataclasses.dataclass(frozen=True)
class ToCompile:
    """What a model from a file is to be compiled with, once it trains.

    Args:
        arguments: Of `keras.Model.compile`, by name.
        state: Values of the optimizer's variables, in their order.
    """

    arguments: Mapping[str, Any]
    state: list[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted estimator.

    Args:
        reader: Turns raw rows into what the network takes.
        head: Encodes targets, and decodes the output of the network. Missing only while `fit` has not come so far.
        network: The network behind the reader. Missing only while `fit` has not come so far.
        history: Losses and metrics by name, one entry an epoch.
        n_iter: Epochs trained. Defaults to `0`.
        best_epoch: Epoch, counted from 1, whose weights Keras put back when the last fit ended. Defaults to `None`.
        divergence: What was found of a network that diverged. Defaults to `None`.
        generator: Draws the seed of each fit. Defaults to `None`: NumPy's own is asked.
        strategy: The strategy under which the network was built. Defaults to `None`: all was left to Keras.
        callbacks: Those of the last fit. Defaults to `None`: it has not trained.
        head_history: The history of the head that was trained before the whole network. Defaults to `None`.
        known: Further attributes that the estimator shows, such as `classes_` and what scikeras tells of the data.
        to_compile: What the model, which came from a file, is to be compiled with. Defaults to `None`.
    """

    reader: Reader
    head: AnyHead = None  # type: ignore[assignment]
    network: Network = None  # type: ignore[assignment]
    history: Mapping[str, list[Any]] = dataclasses.field(default_factory=dict)
    n_iter: int = 0
    best_epoch: int | None = None
    divergence: Divergence | None = None
    generator: np.random.RandomState | None = None
    strategy: Strategy | None = None
    callbacks: list[Any] | None = None
    head_history: Mapping[str, list[Any]] | None = None
    known: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    to_compile: ToCompile | None = None

    @property
    def is_complete(self) -> bool:
        """Whether there is a network to predict with."""
        return self.network is not None

    @property
    def model(self) -> keras.Model:
        """The whole network as a `keras.Model`, from what the reader is given or makes to the output."""
        return self.reader.joined(self.network.model)

    def with_fields(self, **fields: object) -> Fitted:
        """The same with other values in some fields.

        A search does this ten times for each fit, and `dataclasses.replace` takes ten times as long.
        """
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__, **fields)
        return made

    def with_training(self, history: Mapping[str, list[Any]], callbacks: list[Any]) -> Fitted:
        """The same after a further training.

        Args:
            history: That of this training alone.
            callbacks: Those that watched it.
        """
        restored, kept = _restored_epoch(self.network, callbacks), dict(self.history)
        for name, values in history.items():
            kept[name] = [*kept.get(name, []), *map(_as_numbers, values)]
        return self.with_fields(
            history=kept, n_iter=len(kept.get("loss", [])), callbacks=callbacks,
            best_epoch=None if restored is None else self.n_iter + restored,
        )  # fmt: skip

    def with_model(self, model: keras.Model) -> Fitted:
        """The same with another whole network."""
        reader, end = self.reader.divided(model)
        return self.with_fields(reader=reader, network=Network(end))

    @property
    def has_diverged(self) -> bool:
        """Whether the network is one that diverged in the last fit."""
        return self.divergence is not None and self.divergence.is_of(self.network)

    def portable(self) -> Fitted:
        """The same without what belongs to this process: callbacks, which hold what they opened, and devices."""
        return self.with_fields(callbacks=None, strategy=None)

    def attribute(self, name: str) -> Any:
        """What an estimator shows under a name with a trailing underscore.

        Raises:
            KeyError: There is nothing of that name.
        """
        if name in self.known:
            return self.known[name]
        value = _SHOWN[name](self) if name in _SHOWN else None
        if value is None and name == first_of(self.reader).shown_as:
            value = first_of(self.reader)
        if value is None:
            raise KeyError(name)
        return value

    # -- as plain values ------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this record again beside the network, as plain Python values and arrays.

        Raises:
            SavedFileError: Something was learned that no file can hold.
        """
        generator = self.generator
        return {
            "reader": serialize_reader(self.reader),
            "head": self.head.get_config(),
            "history": dict(self.history),
            "n_iter": self.n_iter,
            "best_epoch": self.best_epoch,
            "divergence": None if self.divergence is None else tuple(self.divergence),
            "generator": None if generator is None else generator.get_state(legacy=False),
            "head_history": None if self.head_history is None else dict(self.head_history),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], heads: Mapping[str, Any] | None = None, *, what: str = "A saved estimator"
    ) -> Fitted:
        """Makes a record from what `get_config` returned; `with_model` gives it the network.

        Args:
            config: What `get_config` returned, which may come from a stranger's file.
            heads: Classes of heads by the name that configs have for them. Defaults to `None`: `Head` and `HeadGroup`.
            what: What messages call it. Defaults to `"A saved estimator"`.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        given = _files.checked_fields(config, _FIELDS, what)
        if given["best_epoch"] is not None and not 1 <= given["best_epoch"] <= given["n_iter"]:
            raise SavedFileError(f"{what} has weights of epoch {given['best_epoch']}, which there was not.")
        heads = {"Head": Head, "HeadGroup": HeadGroup} if heads is None else heads
        kind = given["head"].get("class")
        if not isinstance(kind, str) or kind not in heads:
            raise SavedFileError(f"{what} has a head of the class {_files.shown(kind)}, which it cannot have.")
        given["reader"] = deserialize_reader(given["reader"])
        given["head"] = heads[kind].from_config(given["head"])
        given["divergence"] = None if given["divergence"] is None else Divergence(*given["divergence"])
        given["generator"] = _generator_from(given["generator"], what)
        return cls(**given)

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self.portable()), "network": None}
        return {**state, "model": self.model if self.is_complete else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        model = state.pop("model")
        if model is not None:
            state["reader"], end = state["reader"].divided(model)
            state["network"] = Network(end)
        self.__dict__.update(state)


def _as_numbers(value: ArrayLike) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array.tolist()


def _restored_epoch(network: Network, callbacks: list[Any]) -> int | None:
    """The epoch of the last training, from 1, whose weights Keras put back; None if it is not known that it did.

    That a callback keeps weights does not say that the network has them: the training may have been interrupted, or
    another callback have changed them after. So they are compared.
    """
    import keras

    keeping, hooks = keras.callbacks.EarlyStopping, ("on_epoch_end", "on_train_end")
    epochs = getattr(network.history, "epoch", [])  # a callback may have let the training begin later than it was told
    weights = None
    for callback in callbacks:
        # What a subclass counts as its best epoch is not known.
        kind = type(callback)
        if not issubclass(kind, keeping) or any(getattr(kind, hook) is not getattr(keeping, hook) for hook in hooks):
            continue
        if callback.best_weights is None or callback.best_epoch not in epochs:
            continue
        weights = network.weights() if weights is None else weights
        if len(weights) == len(callback.best_weights) and all(map(np.array_equal, weights, callback.best_weights)):
            return int(epochs.index(callback.best_epoch)) + 1
    return None


def _feature_encoder(fitted: Fitted) -> Any:
    if isinstance(fitted.reader, EncodedReader):
        return fitted.reader.encoder
    return None if fitted.head is None else FeatureEncoder()


def _target_encoder(fitted: Fitted) -> Any:
    if isinstance(fitted.head, EncoderHead):
        return fitted.head.encoder
    return None if fitted.head is None else TargetEncoder(fitted.head)


_SHOWN: dict[str, Callable[[Fitted], Any]] = {
    "callbacks_": lambda fitted: fitted.callbacks,
    "feature_encoder_": _feature_encoder,
    "feature_names_in_": lambda fitted: fitted.reader.feature_names,
    "head_": lambda fitted: fitted.head,
    "head_history_": lambda fitted: fitted.head_history,
    "history_": lambda fitted: fitted.history if fitted.is_complete else None,
    "n_features_in_": lambda fitted: fitted.reader.n_features,
    "n_iter_": lambda fitted: fitted.n_iter if fitted.is_complete else None,
    "reader_": lambda fitted: fitted.reader,
    "target_encoder_": _target_encoder,
}

# Names that an estimator shows of a record, which no parameter may have.
SHOWN = frozenset(_SHOWN)


# -- what a config may hold -------------------------------------------------------------------------------------------


def _is_history(value: object) -> bool:
    """Numbers, or lists of numbers, an epoch; a diverged training has NaN among them."""

    def is_entry(entry: object) -> bool:
        return all(map(is_entry, entry)) if isinstance(entry, list) else isinstance(entry, (int, float))

    return _files.dict_of(_files.list_of(is_entry))(value)


def _is_divergence(value: object) -> bool:
    """What was found of a network that diverged: a clause, and the sums of its weights."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return _files.is_text(value[0]) and isinstance(value[1], tuple) and all(isinstance(one, float) for one in value[1])


_FIELDS: dict[str, Callable[[Any], object]] = {
    "reader": lambda value: isinstance(value, dict),
    "head": lambda value: isinstance(value, dict),
    "history": _is_history,
    "n_iter": _files.is_count,
    "best_epoch": _files.optional(_files.is_count),
    "divergence": _files.optional(_is_divergence),
    "generator": lambda value: value is None or isinstance(value, dict),
    "head_history": _files.optional(_is_history),
}
_STATE: dict[str, Callable[[Any], object]] = {
    "bit_generator": _files.one_of("MT19937"),
    "state": lambda value: isinstance(value, dict),
    "has_gauss": lambda value: _files.is_whole(value) and value in (0, 1),
    "gauss": _files.is_number,
}
_KEY: dict[str, Callable[[Any], object]] = {
    "key": lambda value: isinstance(value, np.ndarray) and value.dtype == np.uint32 and value.shape == (624,),
    "pos": lambda value: _files.is_whole(value) and 0 <= value <= 624,
}


def _generator_from(state: object, what: str) -> np.random.RandomState | None:
    if state is None:
        return None
    state = _files.checked_fields(state, _STATE, f"The state of the generator in {what}")
    _files.checked_fields(state["state"], _KEY, f"The state of the generator in {what}")
    made = np.random.RandomState()
    made.set_state(state)
    return made
