"""A file of weights holds plain arrays and nothing else, or is refused before anything of it is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kerastoolkit._hdf5 import check_plain, max_text_bytes
from kerastoolkit.exceptions import SavedFileError

_MAX = 2**20


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


def deep(file: Any) -> None:
    group = file
    for _ in range(300):
        group = group.create_group("g")


# What is done to a file, and what the message says of it.
FORGERIES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "numbers in another file": (
        lambda f: f.create_dataset("x", (10,), "f8", external=[("raw", 0, 80)]),
        "another file",
    ),
    "numbers of other files": (virtual, "in pieces"),
    "a link to another file": (lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/x")), "'/x' is a link"),
    "a link to another place": (lambda f: f.__setitem__("x", h5py.SoftLink("/plain")), "'/x' is a link"),
    "one array under two names": (lambda f: f.__setitem__("x", f["plain"]), "two names"),
    "a circle": (lambda f: f.create_group("g").__setitem__("x", f["/"]), "two names"),
    "4 GB never written": (lambda f: f.create_dataset("x", (10**9,), "f4"), "4,000,000,000 bytes that are not"),
    "4 GB in pieces": (lambda f: f.create_dataset("x", (10**9,), "f4", chunks=(100,)), "in pieces"),
    "a compressed array": (lambda f: f.create_dataset("x", data=np.zeros(10**6), compression="gzip"), "compressed"),
    "texts": (lambda f: f.create_dataset("x", data=["a"], dtype=h5py.string_dtype()), "does not hold numbers"),
    "a reference": (lambda f: f.create_dataset("x", data=f.ref, dtype=h5py.ref_dtype), "does not hold numbers"),
    "a reference beside": (lambda f: f.attrs.create("x", f.ref, dtype=h5py.ref_dtype), "neither numbers nor text"),
    "a type": (lambda f: f.__setitem__("x", np.dtype("f4")), "neither a group nor an array"),
    "300 groups": (deep, "too deep"),
    "more than is read": (lambda f: f.create_dataset("x", data=np.zeros(_MAX)), "the most that is read"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_file_that_is_more_than_plain_arrays_is_refused(what: str, tmp_path: Path):
    forge, message = FORGERIES[what]
    path = tmp_path / "forged.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = np.zeros(3)
        forge(file)
    with pytest.raises(SavedFileError, match=message) as error:
        check_plain(path, max_bytes=_MAX)
    assert str(path) in str(error.value)
    with pytest.raises(SavedFileError, match=message):
        check_plain(io.BytesIO(path.read_bytes()), max_bytes=_MAX)


@pytest.mark.parametrize("content", [b"", b"no HDF5", bytes(3000), None], ids=["empty", "short", "zeros", "cut"])
def test_what_is_no_whole_hdf5_file_is_refused(content: bytes | None, tmp_path: Path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["x"] = np.zeros(1000)
    content = (tmp_path / "whole.h5").read_bytes()[:3000] if content is None else content
    with pytest.raises(SavedFileError, match="damaged, or is not an HDF5 file"):
        check_plain(io.BytesIO(content), max_bytes=_MAX)


def test_what_is_no_file_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SavedFileError, match="is not a file"):
            check_plain(path, max_bytes=_MAX)


def test_files_that_keras_writes_are_plain(tmp_path: Path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16"), keras.layers.Dropout(0.1)])
    model.add(keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(1, dtype="mixed_float16")]))
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "b.keras")
    check_plain(tmp_path / "a.weights.h5", max_bytes=_MAX)
    with zipfile.ZipFile(tmp_path / "b.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    check_plain(content, max_bytes=_MAX)
    assert content.tell() == 0  # still open, where it was


def test_an_old_file_of_keras_is_plain(tmp_path: Path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense_1", b"dense_2"]  # as Keras 2 writes it: texts of any length
        file.attrs["backend"] = np.bytes_(b"tensorflow")
        file.create_group("dense_1").attrs["weight_names"] = np.array([])
        file.create_dataset("dense_2/dense_2/kernel:0", (3, 2), "f4")[:] = 1
        file["dense_2"].attrs["weight_names"] = np.array([b"dense_2/kernel:0"])
    check_plain(tmp_path / "old.h5", max_bytes=_MAX)
    with open(tmp_path / "old.h5", "rb") as opened:
        assert max_text_bytes(opened) == 4096  # the least that HDF5 takes for texts of any length


def test_the_max_text_bytes_is_known_before_it_is_read(tmp_path: Path):
    with h5py.File(tmp_path / "texts.h5", "w") as file:
        file.create_dataset("padding", data=np.zeros(2**17))
        file.attrs["long"] = "x" * 100_000
    with open(tmp_path / "texts.h5", "rb") as opened:
        assert 100_000 <= max_text_bytes(opened) < 110_000
