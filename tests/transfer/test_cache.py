"""Features on disk are those that were written, private to the user, and no file of others is touched."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit import transfer
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError


def stored(folder: Path) -> Path:
    """The one file of features in a folder."""
    (path,) = (folder / "kerastoolkit-features").glob("*.sqlite")
    return path


def test_two_processes_may_share_a_folder(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from kerastoolkit.transfer import FeatureCache
cache, rng = FeatureCache(sys.argv[1]), np.random.default_rng(0)
for start in range(0, 600, 20):
    cache.write("key", {str(n).encode(): np.full(50, n, "float32") for n in range(start, start + 20)})
"""
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [one.wait(1500) for one in running] == [0, 0]
    found = transfer.FeatureCache(tmp_path).read("key", {str(n).encode() for n in range(700)})
    assert len(found) == 600
    assert all((row == int(image)).all() for image, row in found.items())


def test_the_folder_is_kept_within_its_size(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path, max_bytes=200_000)
    rows = {str(n).encode(): np.zeros(1000, "float32") for n in range(30)}
    for key in ("first", "second", "third"):
        cache.write(key, rows)
    assert cache.n_bytes <= 200_000
    assert len(cache.read("third", set(rows))) == 30
    assert cache.read("first", set(rows)) == {}
    cache.clear()
    assert cache.n_bytes == 0


@pytest.mark.parametrize("folder", [100_000, True, b"folder"])
def test_what_is_no_path_of_a_folder_is_refused(folder: Any) -> None:
    with pytest.raises(ParameterError, match="`folder` must be the path of a folder or None; got"):
        transfer.FeatureCache(folder)


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    database = sqlite3.connect(stored(tmp_path))
    database.execute("INSERT INTO features VALUES (?, ?, ?)", (b"two", b"", b""))
    database.close()  # killed before it was committed
    assert set(cache.read("key", {b"one", b"two"})) == {b"one"}


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.folder.mkdir(mode=0o700)
    image, features = b"one", np.array([1.0, 2.0], "float32").tobytes()
    digest = hashlib.blake2b(digest_size=16)
    for part in (b"key", image, features):
        digest.update(len(part).to_bytes(8, "big") + part)
    path = cache.folder / f"{hashlib.blake2b(b'key', digest_size=16).hexdigest()}.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        columns = "picture BLOB PRIMARY KEY, features BLOB NOT NULL, digest BLOB NOT NULL"
        database.execute(f"CREATE TABLE features ({columns})")
        database.execute("PRAGMA application_id = 1802791782")  # "ktkf" as a number
        database.execute("INSERT INTO features VALUES (?, ?, ?)", (image, features, digest.digest()))
    found = cache.read("key", {image}, n_features=2)
    np.testing.assert_array_equal(found[image], [1.0, 2.0])


# What is done to a row of two that are stored.
_SPOILT = {
    "another number": "UPDATE features SET features = CAST('abcdefghijkl' AS BLOB) WHERE picture = x'6F6E65'",
    "another length": "UPDATE features SET features = zeroblob(8) WHERE picture = x'6F6E65'",
    "no bytes": "UPDATE features SET features = 3 WHERE picture = x'6F6E65'",
    "another digest": "UPDATE features SET digest = zeroblob(16) WHERE picture = x'6F6E65'",
    "that of another": "UPDATE features SET (features, digest) = "
    "(SELECT features, digest FROM features WHERE picture = x'74776F') WHERE picture = x'6F6E65'",
}


@pytest.mark.parametrize("what", _SPOILT)
def test_a_row_that_is_not_as_it_was_written_is_computed_again(what: str, tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    rows = {b"one": np.ones(3, "float32"), b"two": np.full(3, 2, "float32")}
    cache.write("key", rows)
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        assert database.execute(_SPOILT[what]).rowcount == 1
    with pytest.warns(KerasToolkitWarning, match="1 of 2 rows of features in .* computed again and replaced"):
        assert set(cache.read("key", set(rows), n_features=3)) == {b"two"}
    cache.write("key", {b"one": rows[b"one"]})
    assert set(cache.read("key", set(rows), n_features=3)) == set(rows)


def test_a_row_of_another_network_is_not_taken(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    with pytest.warns(KerasToolkitWarning, match="1 of 1 rows"):
        assert cache.read("key", {b"one"}, n_features=4) == {}
    stored(tmp_path).rename(cache._path("other"))
    with pytest.warns(KerasToolkitWarning, match="1 of 1 rows"):
        assert cache.read("other", {b"one"}) == {}


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.array([1.0, np.nan]), b"two": np.array([1.0, np.inf]), b"three": np.ones(2)})
    assert set(cache.read("key", {b"one", b"two", b"three"})) == {b"three"}


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    """Neither in the folder that was given nor in the one of the cache, whatever they are called."""
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    own = stored(tmp_path)
    foreign = [tmp_path / "orders.sqlite", tmp_path / own.name, cache.folder / "orders.sqlite"]
    foreign += [cache.folder / f"{'0' * 32}.sqlite", cache._path("other")]
    for path in foreign:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE orders (amount)")
            database.execute("INSERT INTO orders VALUES (zeroblob(100000))")
    notes = [cache.folder / f"{own.name}-notes", cache.folder / f"{'1' * 32}.sqlite-journal", cache.folder / "a.txt"]
    for path in notes:
        path.write_text("mine")
    before = {path: path.read_bytes() for path in (*foreign, *notes)}
    with pytest.warns(KerasToolkitWarning, match="it is not a file of features"):
        assert cache.read("other", {b"one"}) == {}
    with pytest.warns(KerasToolkitWarning, match="it is not a file of features"):
        cache.write("other", {b"one": np.ones(3)})
    assert cache.n_bytes == own.stat().st_size
    cache.max_bytes = 1
    cache.write("third", {b"one": np.ones(3)})  # beyond the size: all that are ours go
    assert not own.exists()
    cache.clear()
    assert cache.n_bytes == 0
    assert {path: path.read_bytes() for path in (*foreign, *notes)} == before


def test_what_a_killed_process_left_goes_with_its_file(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    left = Path(f"{stored(tmp_path)}-journal")
    left.write_bytes(bytes(1000))
    assert cache.n_bytes == stored(tmp_path).stat().st_size + 1000
    cache.clear()
    assert list(cache.folder.iterdir()) == []


def test_a_file_that_does_more_than_keep_rows_is_not_used(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path)
    cache.write("key", {b"one": np.ones(3)})
    with closing(sqlite3.connect(stored(tmp_path))) as database, database:
        database.execute("CREATE TRIGGER more AFTER INSERT ON features BEGIN DELETE FROM features; END")
    with pytest.warns(KerasToolkitWarning, match="it holds other tables, views or triggers than ours"):
        assert cache.read("key", {b"one"}) == {}


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="is about rights on POSIX")


@posix
def test_features_are_private_to_the_user(tmp_path: Path) -> None:
    cache = transfer.FeatureCache(tmp_path / "new")
    cache.write("key", {b"one": np.ones(3)})
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(tmp_path / "new").stat().st_mode) == 0o600
    cache.folder.chmod(0o777)
    stored(tmp_path / "new").chmod(0o666)
    assert set(cache.read("key", {b"one"})) == {b"one"}
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(tmp_path / "new").stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("what", ["the folder is a link", "the file is a link", "another user's", "a dangling link"])
def test_what_may_be_somebody_elses_is_not_used(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = transfer.FeatureCache(tmp_path / "theirs")
    theirs.write("key", {b"one": np.ones(3)})
    before = stored(tmp_path / "theirs").read_bytes()
    cache = transfer.FeatureCache(tmp_path / "ours")
    cache.folder.parent.mkdir()
    if what == "the folder is a link":
        cache.folder.symlink_to(theirs.folder)
    elif what == "another user's":
        theirs.folder.rename(cache.folder)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        cache.folder.mkdir()
        name = "nothing" if what == "a dangling link" else stored(tmp_path / "theirs").name
        cache._path("key").symlink_to(theirs.folder / name)
    with pytest.warns(KerasToolkitWarning, match="is a link|belongs to another user"):
        assert cache.read("key", {b"one"}) == {}
    with pytest.warns(KerasToolkitWarning, match="is a link|belongs to another user"):
        cache.write("key", {b"two": np.ones(3)})
    assert not (theirs.folder / "nothing").exists()
    monkeypatch.undo()
    assert stored(tmp_path / ("ours" if what == "another user's" else "theirs")).read_bytes() == before
