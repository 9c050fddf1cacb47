"""Readers: every one comes back from its config, forged configs are refused, users register their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kerastoolkit.data import (
    Reader,
    TableEncoder,
    Vocabulary,
    checked_config,
    deserialize_reader,
    get_reader,
    list_readers,
    readers,
    register_reader,
    serialize_reader,
)
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError

TABLE = pd.DataFrame({"age": [3.0, None, 5.0], "town": ["Ulm", "Ulm", "Bonn"]})
TEXTS = ["red apples", "green apples", "red wine"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The registry as it was before a test."""
    before = dict(readers._READERS)
    yield
    readers._READERS.clear()
    readers._READERS.update(before)


def lengths() -> type[Reader]:
    class Lengths(Reader):
        """Of lists their length, as a fraction of the longest learned."""

        def __init__(self, most: int) -> None:
            self.most = most

        @classmethod
        def learn(cls, X: Any, **options: Any) -> Lengths:
            return cls(max(map(len, X)))

        def encode(self, X: Any) -> Any:
            return np.array([[len(row) / self.most] for row in X], "float32")

        @property
        def row_shape(self) -> Any:
            return (1,)

        def get_config(self) -> dict[str, Any]:
            return {"most": self.most}

        @classmethod
        def from_config(cls, config: Any) -> Lengths:
            return cls(**checked_config(config, {"most": int}, "Saved lengths"))

    return Lengths


@pytest.mark.parametrize(
    ("kind", "X", "options"),
    [
        (TableEncoder, TABLE, {"min_count": 1}),
        (Vocabulary, TEXTS, {}),
        (Vocabulary, TEXTS, {"max_length": 3}),
    ],
)
def test_a_reader_comes_back_from_its_config_and_knows_the_shape_of_its_rows(kind: Any, X: Any, options: Any) -> None:
    reader, arrays = kind.learn_and_encode(X, **options)
    again = deserialize_reader(json.loads(json.dumps(serialize_reader(reader))))
    assert type(again) is kind
    parts, encoded = (list(one.values()) if isinstance(one, dict) else [one] for one in (arrays, again.encode(X)))
    for part, other in zip(parts, encoded, strict=True):
        np.testing.assert_array_equal(part, other)
    shapes = reader.row_shape
    assert shapes == ({k: v.shape[1:] for k, v in arrays.items()} if isinstance(arrays, dict) else arrays.shape[1:])


def test_what_readers_offer_to_a_build_function() -> None:
    table = TableEncoder.learn(TABLE)
    assert table.offered() == {"columns": table}
    assert table.n_features == 2 and list(table.feature_names) == ["age", "town"]
    assert TableEncoder.learn(TABLE.to_numpy()).feature_names is None
    words = Vocabulary.learn(TEXTS, max_length=2)
    assert words.offered() == {"vocabulary_size": words.size}
    assert Vocabulary.learn(TEXTS).offered() == {}


def test_a_reader_of_the_users_is_registered_and_comes_back_from_its_config() -> None:
    kind = register_reader("lengths")(lengths())
    assert get_reader("lengths") is kind and "lengths" in list_readers()
    again = deserialize_reader(serialize_reader(kind.learn([[1, 2], [3]])))
    np.testing.assert_array_equal(again.encode([[5], []]), [[0.5], [0.0]])
    register_reader("lengths")(lengths())  # defined once more, as in a notebook
    other = type("Other", (lengths(),), {})
    with pytest.warns(KerasToolkitWarning, match="The reader 'lengths' was .*Lengths, and is now .*Other"):
        register_reader("lengths")(other)


def test_what_is_no_reader_and_what_has_no_name_is_refused() -> None:
    with pytest.raises(ParameterError, match="'table' is kerastoolkit's own"):
        register_reader("table")(lengths())
    with pytest.raises(ParameterError, match="derived from Reader"):
        register_reader("dict")(dict)  # type: ignore[type-var]
    with pytest.raises(ParameterError, match="`name` must be a text"):
        register_reader("")
    with pytest.raises(ParameterError, match="no reader 'tabel'. Did you mean 'table'"):
        get_reader("tabel")
    with pytest.raises(SavedFileError, match="Lengths cannot be saved.*register_reader"):
        serialize_reader(lengths()(1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is not a table of fields"),
        ({"name": "lengths"}, "has no field 'config'"),
        ({"name": "os.system", "config": {}}, "'os.system' is not registered here"),
        ({"name": ["table"], "config": {}}, "has .*as 'name'"),
        ({"name": "lengths", "config": {"most": 1, "encode": "x"}}, "Saved lengths has an unknown field 'encode'"),
        ({"name": "lengths", "config": {"most": True}}, "Saved lengths has True as 'most'"),
        ({"name": "lengths", "config": {"most": 1.0}}, "Saved lengths has 1.0 as 'most'"),
    ],
)
def test_a_forged_config_is_refused(config: Any, message: str) -> None:
    register_reader("lengths")(lengths())
    with pytest.raises(SavedFileError, match=message):
        deserialize_reader(config)
