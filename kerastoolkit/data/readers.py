"""Readers: one way from raw input to the arrays of a network, whatever the input is.

A `Reader` is learned from the rows of `fit` (`Reader.learn`) and encodes any rows by what it learned (`encode`). It
says what a build function needs to know of it (`offered`), which shape a row of its arrays has (`row_shape`), and has a
config, so that a fitted estimator can be saved without pickle. Tables (`TableEncoder`), texts (`Vocabulary`), plain
arrays and images each have one. A new kind of data needs a reader, a function that builds a model for it, and an
estimator that names the reader.

A saved file names a reader by the name under which it was registered:

>>> @register_reader("lengths")
... class Lengths(Reader):
...     def __init__(self, max_length: int) -> None:
...         self.max_length = max_length
...
...     @classmethod
...     def learn(cls, X, **options):
...         return cls(max(map(len, X)))
...
...     def encode(self, X):
...         return np.array([[len(row) / self.max_length] for row in X], "float32")
...
...     @property
...     def row_shape(self):
...         return (1,)
...
...     def get_config(self):
...         return {"max_length": self.max_length}
...
...     @classmethod
...     def from_config(cls, config):
...         return cls(**checked_config(config, {"max_length": int}, "Saved lengths"))
>>> deserialize_reader(serialize_reader(Lengths.learn([[1, 2], [3]]))).encode([[5]])
array([[0.5]], dtype=float32)
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from kerastoolkit import _files
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError

if TYPE_CHECKING:
    import keras

__all__ = [
    "Reader",
    "checked_config",
    "deserialize_reader",
    "get_reader",
    "list_readers",
    "register_reader",
    "serialize_reader",
]

# The shape of a row: that of an array, without its first axis, or a dict or list of such, one for each input.
RowShape: TypeAlias = "tuple[int | None, ...] | Mapping[str, tuple[int | None, ...]] | Sequence[tuple[int | None, ...]]"

Self = TypeVar("Self", bound="Reader")
_Kind = TypeVar("_Kind", bound="type[Reader]")


class Reader(abc.ABC):
    """Learns from raw input and encodes it. A reader that was learned does not change.

    Attributes:
        shown_as: Name under which a fitted estimator shows its reader, beside `reader_`, such as `"columns_"`. Defaults
            to `""`: none.
        offers: Names of the arguments of a build function that `offered` has. Defaults to none.
        n_features: Features of a row, for rows of columns; else `None`.
        feature_names: Names of the columns, shape `(n_features,)`, where they have names; else `None`.
    """

    shown_as: ClassVar[str] = ""
    offers: ClassVar[tuple[str, ...]] = ()
    n_features: int | None = None
    feature_names: np.ndarray | None = None

    @classmethod
    @abc.abstractmethod
    def learn(cls: type[Self], X: Any, **options: Any) -> Self:
        """Learns from the rows of `fit`.

        Args:
            X: The training rows, raw.
            **options: How to learn.

        Raises:
            DataError: Nothing can be learned from `X`; the message says why.
        """

    @classmethod
    def learn_and_encode(cls: type[Self], X: Any, **options: Any) -> tuple[Self, Any]:
        """Learns from rows and encodes the same rows; a reader overrides it that can do both in one pass."""
        reader = cls.learn(X, **options)
        return reader, reader.encode(X)

    @abc.abstractmethod
    def encode(self, X: Any) -> Any:
        """Encodes rows as they were learned.

        Args:
            X: `n` rows, raw.

        Returns:
            What the model takes: an array of shape `(n, ...)`, or a dict or list of them, one for each input.

        Raises:
            DataError: The rows are not of the kind that was learned; the message says where.
        """

    @property
    @abc.abstractmethod
    def row_shape(self) -> RowShape:
        """Shape of a row of what `encode` returns: a tuple, or a dict or list of tuples, one for each input."""

    def offered(self) -> Mapping[str, Any]:
        """Arguments of a build function that are known now, such as `vocabulary_size`, by name; see `offers`."""
        return {}

    def joined(self, model: keras.Model) -> keras.Model:
        """The whole network, from what users know to the output; a reader that is a network stands before the model."""
        return model

    def divided(self: Self, model: keras.Model) -> tuple[Self, keras.Model]:
        """The reader and the model behind it, of a whole network that `joined` made."""
        return self, model

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this reader again, as plain Python values and arrays of NumPy."""

    @classmethod
    @abc.abstractmethod
    def from_config(cls: type[Self], config: Mapping[str, Any]) -> Self:
        """Makes a reader from what `get_config` returned.

        The config may come from a file that a stranger forged: look at every entry (`checked_config`).

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """


# -- the registry ---------------------------------------------------------------------------------------------------

_READERS: dict[str, type[Reader]] = {}


def register_reader(name: str) -> Callable[[_Kind], _Kind]:
    """Registers a class of readers under the name by which saved files know it; a decorator.

    Example:

    >>> @register_reader("events")  # doctest: +SKIP
    ... class EventReader(Reader): ...

    Args:
        name: The name. A later class of the same name takes its place, with a warning, unless it is the same class
            defined once more, as in a notebook.

    Returns:
        The decorator, which returns the class as it is.

    Raises:
        ParameterError: The name is no text, or one of kerastoolkit's own; or the class is no `Reader`.
    """
    if not isinstance(name, str) or not name:
        raise ParameterError(f"`name` must be a text by which files know the reader; got {name!r}.")

    def register(kind: _Kind) -> _Kind:
        if not (isinstance(kind, type) and issubclass(kind, Reader)):
            raise ParameterError(f"@register_reader({name!r}) is for a class derived from Reader; got {kind!r}.")
        known = _READERS.get(name)
        if known is not None and known.__module__.startswith("kerastoolkit.") and _origin_of(known) != _origin_of(kind):
            raise ParameterError(f"The reader {name!r} is kerastoolkit's own; register yours under another name.")
        warn_of_another(f"reader {name!r}", known, kind)
        _READERS[name] = kind
        return kind

    return register


def warn_of_another(what: str, known: object, registered: object) -> None:
    """Warns that something else takes a name that is registered: not for the same defined once more.

    Args:
        what: What has the name, and the name, such as `"reader 'events'"`.
        known: What had it until now; None for nothing.
        registered: What has it from now on.
    """
    if known is not None and _origin_of(known) != _origin_of(registered):
        text = f"The {what} was {_origin_of(known)}, and is now {_origin_of(registered)}."
        warnings.warn(text, KerasToolkitWarning, stacklevel=3)


def _origin_of(thing: object) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"


def list_readers() -> list[str]:
    """Names of the readers that are registered, sorted."""
    return sorted(_READERS)


def get_reader(name: str) -> type[Reader]:
    """Finds a class of readers by its name.

    Raises:
        ParameterError: No reader has that name; the message lists those there are.
    """
    try:
        return _READERS[name]
    except (KeyError, TypeError):
        meant = did_you_mean(name, list_readers()) if isinstance(name, str) else ""
        raise ParameterError(
            f"There is no reader {name!r}.{meant} Registered are: {', '.join(list_readers())}. One of your own is "
            "registered by @kerastoolkit.data.register_reader(name)."
        ) from None


def serialize_reader(reader: Reader) -> dict[str, Any]:
    """A reader as the name of its class and its config.

    Raises:
        SavedFileError: Its class is not registered; or something was learned that no file can hold.
    """
    name = next((name for name, kind in _READERS.items() if kind is type(reader)), None)
    if name is None:
        raise SavedFileError(
            f"A {type(reader).__name__} cannot be saved, since its class is not registered: put "
            "@kerastoolkit.data.register_reader(name) before it."
        )
    return {"name": name, "config": reader.get_config()}


def deserialize_reader(config: object) -> Reader:
    """Makes a reader from what `serialize_reader` returned, which may come from a stranger's file.

    Raises:
        SavedFileError: It is not what `serialize_reader` returns, or its class is not registered here.
    """
    fields = {"name": _files.is_text, "config": lambda value: isinstance(value, Mapping)}
    given = _files.checked_fields(config, fields, "A saved reader")
    if given["name"] not in _READERS:
        raise SavedFileError(
            f"The reader {_files.shown(given['name'])} is not registered here: import the module that defines it."
        )
    return _READERS[given["name"]].from_config(given["config"])


def checked_config(config: object, fields: Mapping[str, type | Callable[[Any], object]], what: str) -> dict[str, Any]:
    """A config that has the entries that it should, each of its type, and no others.

    Args:
        config: What a file holds.
        fields: For each entry its type, or a function that says whether a value may be there. `int` is no truth value,
            and a `float` is finite.
        what: What messages call it, such as `"Saved events"`.

    Returns:
        The entries by name.

    Raises:
        SavedFileError: An entry is missing, unknown or of another type; the message names it.
    """
    of_types: dict[type, Callable[[Any], object]] = {int: _files.is_whole, float: _files.is_number}
    checks: dict[str, Callable[[Any], object]] = {}
    for name, kind in fields.items():
        if isinstance(kind, type):
            checks[name] = of_types.get(kind, lambda value, kind=kind: isinstance(value, kind))  # type: ignore[misc]
        else:
            checks[name] = kind
    return _files.checked_fields(config, checks, what)
