"""Damages and forges every kind of file that is read beside saved estimators; a program of `test_damaged_stores.py`.

    python stores.py FOLDER DAMAGES FORGERIES SEED

It prints, as JSON, how often each kind of file ended in which way, and how much memory it took. Anything but an error
of ours or a right result ends it, and so does whatever a file might make Python do: see `watch`.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import sqlite3
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import joblib
import keras
import numpy as np
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB

from kerastoolkit.data import read_vectors
from kerastoolkit.exceptions import KerasToolkitError, KerasToolkitWarning
from kerastoolkit.search import OptunaSearchCV
from kerastoolkit.search import journal as journals
from kerastoolkit.search.backend import FusedBackend
from kerastoolkit.transfer import FeatureCache, load_weights

WORDS = ("apple", "pear", "plum")
MATRIX = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 4.0]], dtype="float32")
ROWS = {f"image {n}".encode(): np.arange(n, n + 3, dtype="float32") for n in range(20)}
X = np.random.RandomState(0).normal(size=(60, 2))
Y = (X[:, 0] > 0).astype(int)
SECRET = 1234.5  # stands in a file that no forgery may read

# Whatever a forger may put in the place of a value.
NASTY: list[Any] = [
    None, True, -1, 0, 3, 2**31, 2**63, 2**70, 1e300, float("nan"), float("inf"), "", "x", "../../etc/passwd",
    "os:system", "\x1b[31m", "\ud800", [], {}, [[]], [None], {"a": {}}, "9" * 5000, 10**15,
    json.loads("[" * 50 + "]" * 50),
]  # fmt: skip


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: Of the file.
        make: Writes it.
        use: Reads it, as a user would, and gives what came of it.
        is_right: Whether that may have come of a damaged file.
        forge: Changes a file as a forger would.
    """

    name: str
    make: Callable[[Path], Any]
    use: Callable[[Path], Any]
    is_right: Callable[[Any, Any], bool]
    forge: Callable[[Path, random.Random], Any]


def same(found: Any, expected: Any) -> bool:
    return bool(repr(found) == repr(expected))


# -- vectors of words -----------------------------------------------------------------------------------------------


def vectors(path: Path) -> Any:
    if path.suffix in (".txt", ".gz"):
        return read_vectors(path, WORDS)
    matrix = path if path.suffix != ".json" else path.parent / "right.npy"
    words = path if path.suffix == ".json" else path.parent / "right.json"
    np.save(path.parent / "right.npy", MATRIX)
    if words != path:
        words.write_text(json.dumps(WORDS))
    return read_vectors((matrix, words), WORDS)


def plausible(found: Any, expected: Any) -> bool:
    """These formats have no digests: another number is another number."""
    whole = np.isfinite(found).all(axis=1) | np.isnan(found).all(axis=1)
    return found.dtype == np.float32 and len(found) == len(WORDS) and bool(whole.all())


def text() -> str:
    return "".join(f"{word} {row[0]} {row[1]}\n" for word, row in zip(WORDS, MATRIX, strict=True))


def forge_text(path: Path, rng: random.Random) -> None:
    fields = ["apple", "pear", "1.0", "nan", "-inf", "1e400", "1_0", "", "\t", "0x1", "9" * 400, "\x00", "1e-400", "2"]
    lines = [" ".join(rng.choices(fields, k=rng.choice([0, 1, 2, 3, 3, 3, 40_000]))) for _ in range(rng.randrange(9))]
    content = "\n".join([*rng.choice([[], ["3 2"], ["3 99999999999"]]), *lines]).encode()
    if rng.random() < 0.2:
        content = rng.choice([b"0" * 30_000_000, b"\n" * 3_000_000, b"a 1\n" * 3_000_000])
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def forge_npy(path: Path, rng: random.Random) -> None:
    kinds = [
        "'<f4'",
        "'>f8'",
        "'|O'",
        "'<M8[s]'",
        "[('a', '<f4')]",
        "'<f4, <f4'",
        "('<f4', (2,))",
        "'V99999999'",
        "3",
        "x",
    ]
    shapes = [
        "(3, 2)",
        "(2, 3)",
        "(-3, -2)",
        "(3000000000, 2)",
        "(2**40, 2)",
        "(3, 2, 1)",
        "()",
        "(True, 6)",
        "(3.0, 2)",
    ]
    shapes += ["(" * 90 + "3" + ",)" * 90, "-" * 9000 + "1", "(0, 2)", "(3, 0)", "(1, 99999)"]
    header = f"{{'descr': {rng.choice(kinds)}, 'fortran_order': {rng.choice(['False', 'True', '0'])}, "
    header += f"'shape': {rng.choice(shapes)}{rng.choice(['}', '', ', }', chr(10)])}"
    body = rng.choice([MATRIX.tobytes(), b"", b"cos\nsystem\n(S'touch stolen'\ntR.", bytes(100)])
    length = rng.choice([len(header), 0, 65535]).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY" + bytes([rng.choice([1, 1, 1, 2, 3, 9]), 0]) + length + header.encode() + body)


def tensors() -> dict[str, Any]:
    return {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]},
    }


def write_tensors(path: Path, header: Any, length: int | None = None) -> None:
    encoded = json.dumps(header).encode()
    length = len(encoded) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + encoded + MATRIX.tobytes() + bytes(8))


def mutated(value: Any, rng: random.Random) -> Any:
    """A value in which some part is another one."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        changed = {**value, name: mutated(value[name], rng)}
        if rng.random() < 0.1:
            changed[rng.choice(["x", "", "a"])] = changed.pop(name)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(value[at], rng), *value[at + 1 :]]
    return rng.choice(NASTY)


def forge_json(path: Path, rng: random.Random) -> None:
    vocabulary: Any = {"model": {"type": "BPE", "vocab": {"▁" + word: row for row, word in enumerate(WORDS)}}}
    content = mutated(rng.choice([vocabulary, list(WORDS), [[word, 0.5] for word in WORDS]]), rng)
    deep = rng.choice(["[", '{"model":', '{"model": {"vocab": [']) * 100_000
    path.write_text(deep if rng.random() < 0.1 else json.dumps(content))


# -- weights --------------------------------------------------------------------------------------------------------


def network() -> keras.Model:
    layers = [keras.Input((2,)), keras.layers.Dense(3, name="one"), keras.layers.Dense(2, name="two")]
    return keras.Sequential(layers)


def write_weights(path: Path) -> None:
    model = network()
    model.set_weights([np.full(weight.shape, 0.25 + n, "float32") for n, weight in enumerate(model.weights)])
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)


def weights(path: Path) -> Any:
    model = network()
    before = model.get_weights()
    try:
        load_weights(model, path)
    except KerasToolkitError:
        assert same(model.get_weights(), before)  # all or nothing
        raise
    return model.get_weights()


def finite(found: Any, expected: Any) -> bool:
    return all(np.isfinite(array).all() and not (array == SECRET).any() for array in found)


def forge_weights(path: Path, rng: random.Random) -> None:
    place = f"layers/dense{rng.choice(['', '_1'])}/vars/{rng.randrange(2)}"
    change = rng.choice(list(CHANGES_OF_WEIGHTS))
    with h5py.File(path, "r+") as file:
        if change.startswith("instead"):
            del file[place]
        CHANGES_OF_WEIGHTS[change](file, {"name": place, "shape": (3,), "dtype": "f4"}, rng)


def _deep(file: Any, rest: Any, rng: random.Random) -> None:
    group = file
    for _ in range(rng.choice([50, 500])):
        group = group.create_group("x")
    group.attrs["name"] = "one"


def _old(file: Any, rest: Any, rng: random.Random) -> None:
    file.attrs["layer_names"] = [b"one"] * rng.choice([1, 4000])
    group = file.create_group("one")
    group["kernel"] = np.zeros(rng.choice([3, 100_000]))
    group.attrs["weight_names"] = rng.choice([[b"kernel"] * 4000, [b"kernel", b"../x"], [b"/"], 3, np.zeros(3)])


CHANGES_OF_WEIGHTS: dict[str, Callable[[Any, Any, random.Random], Any]] = {
    "instead external": lambda file, rest, rng: file.create_dataset(**rest, external=[("secret.bin", 0, 12)]),
    "instead external link": lambda file, rest, rng: file.__setitem__(
        rest["name"], h5py.ExternalLink("secret.h5", "/x")
    ),
    "instead soft link": lambda file, rest, rng: file.__setitem__(rest["name"], h5py.SoftLink("/layers")),
    "instead gigabytes": lambda file, rest, rng: file.create_dataset(rest["name"], (2**31,), "f4"),
    "instead pieces": lambda file, rest, rng: file.create_dataset(rest["name"], (2**31,), "f4", chunks=(1000,)),
    "instead compressed": lambda file, rest, rng: file.create_dataset(
        rest["name"], data=np.zeros(2**20, "f4"), compression="gzip"
    ),
    "instead texts": lambda file, rest, rng: file.create_dataset(
        rest["name"], data=["x" * 999] * 3, dtype=h5py.string_dtype()
    ),
    "instead bytes": lambda file, rest, rng: file.create_dataset(
        rest["name"], data=np.zeros(3, rng.choice(["V2", "V9", "S3"]))
    ),
    "instead complex": lambda file, rest, rng: file.create_dataset(rest["name"], data=np.zeros(3, "c8")),
    "instead not finite": lambda file, rest, rng: file.create_dataset(rest["name"], data=[1.0, np.nan, np.inf]),
    "instead nothing": lambda file, rest, rng: file.create_dataset(rest["name"], dtype="f4", data=h5py.Empty("f4")),
    "instead a group": lambda file, rest, rng: file.create_group(rest["name"]),
    "a circle": lambda file, rest, rng: file.__setitem__("circle", file["/"]),
    "a twin": lambda file, rest, rng: file.__setitem__("twin", file["layers"]),
    "a type": lambda file, rest, rng: file.__setitem__("type", np.dtype("f4")),
    "a name": lambda file, rest, rng: file["layers/dense/vars"].attrs.__setitem__(
        "name", rng.choice([3, "x" * 60_000, "two"])
    ),
    "a list": lambda file, rest, rng: file.attrs.__setitem__("more", np.array(["x" * 50_000] * 500, object)),
    "a reference": lambda file, rest, rng: file.attrs.create("more", file.ref, dtype=h5py.ref_dtype),
    "no number": lambda file, rest, rng: file["layers/dense/vars"].create_group(rng.choice(["x", "9" * 5000])),
    "deep": _deep,
    "old": _old,
}


def forge_archive(path: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    inner = path.with_suffix(".inner.h5")
    inner.write_bytes(members["model.weights.h5"])
    if rng.random() < 0.4:
        forge_weights(inner, rng)
    members["model.weights.h5"] = inner.read_bytes()
    config = {"module": "os", "class_name": "system", "config": {"command": "touch stolen"}, "registered_name": None}
    members["config.json"] = json.dumps(
        mutated(json.loads(members["config.json"]), rng) if rng.random() < 0.5 else config
    )
    compression = rng.choice([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name that is in it twice
        for name, content in members.items():
            if rng.random() < 0.1:
                name = rng.choice(["../stolen", "/tmp/stolen", "model.weights.h5", name.upper()])
            archive.writestr(name, bytes(2**26) if rng.random() < 0.05 else content)
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:  # encrypted, of an unknown method, of another length
        at = content.find(b"PK\x01\x02")
        content[at + rng.choice([8, 10, 20, 24, 42]) + rng.randrange(2)] ^= rng.randrange(256)
    path.write_bytes(content)


# -- databases ------------------------------------------------------------------------------------------------------


def write_features(path: Path) -> None:
    cache = FeatureCache(path.parent)
    cache.write("key", ROWS)
    shutil.copy(cache._path("key"), path)


def features(path: Path) -> Any:
    cache = FeatureCache(path.parent)
    shutil.copy(path, cache._path("key"))
    found = cache.read("key", set(ROWS), n_features=3)
    cache.write("key", ROWS)
    cache.max_bytes = 1
    cache._keep_within_size(cache._path("key"))
    return found


def subset(found: Any, expected: Any) -> bool:
    """What is not found is computed anew."""
    return all(same(row, ROWS[image]) for image, row in found.items())


def write_journal(path: Path) -> None:
    with journals.Journal(path) as journal, joblib.parallel_config(backend=FusedBackend(around=journal.around)):
        grid = {"strategy": ["most_frequent", "prior"]}
        GridSearchCV(DummyClassifier(), grid, cv=3, refit=False, scoring=["accuracy", "f1"]).fit(X, Y)


def journal(path: Path) -> Any:
    with journals.Journal(path) as opened:
        return opened.results()


def plain(found: Any, expected: Any) -> bool:
    """A forger may know how to write a digest, but has to keep to the form."""
    return all(
        isinstance(row["parameters"], str)
        and all(isinstance(score, (int, float, dict)) for score in row["scores"].values())
        for row in found
    )


def forge_journal(path: Path, rng: random.Random) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        if rng.random() < 0.5:
            return forge_sql(file, "fits", rng)
        row = list(file.execute("SELECT * FROM fits WHERE rowid = 2").fetchone())[:-1]
        at = rng.randrange(6)
        row[at] = rng.choice([None, 0, -1, 7, "", "x", "9" * 5000, b"", bytes(100)])
        if rng.random() < 0.8:
            content = mutated(json.loads(file.execute("SELECT result FROM fits WHERE rowid = 2").fetchone()[0]), rng)
            row[3] = "[" * 100_000 if rng.random() < 0.1 else json.dumps(content)
        values = (*row, journals._digest_of_row(row))
        file.execute("DELETE FROM fits WHERE rowid = 2")
        file.execute("INSERT OR IGNORE INTO fits VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def forge_sql(file: sqlite3.Connection, table: str, rng: random.Random) -> None:
    """Things that a database may do beside keeping rows."""
    columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
    column = rng.choice(columns)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
    number = rng.choice(["-1", "1e999", "''", "9223372036854775807"])
    changes = [
        f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
        f"CREATE VIEW more AS SELECT * FROM {table}",
        f"ALTER TABLE {table} RENAME TO old; CREATE VIEW {table} AS {endless}"
        + ", ".join(f"i AS {name}" for name in columns)
        + " FROM n",
        f"ALTER TABLE {table} ADD COLUMN more GENERATED ALWAYS AS (hex(zeroblob(400000000)))",
        f"DROP TABLE {table}",
        f"UPDATE OR IGNORE {table} SET {column} = zeroblob(30000000) WHERE rowid < 3",
        f"UPDATE OR IGNORE {table} SET {column} = CAST(x'FFFE' AS TEXT)",
        f"UPDATE OR IGNORE {table} SET {column} = {number}",
        f"DELETE FROM {table} WHERE rowid = 1",
        f"PRAGMA application_id = {rng.choice([0, 1, -1])}",
        f"PRAGMA user_version = {rng.choice([0, 1, 99, -1])}",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')",
        f"PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = rootpage + 1 WHERE name = '{table}'",
        "CREATE TABLE more (x); PRAGMA journal_mode = WAL",
    ]
    with contextlib.suppress(sqlite3.Error):  # some columns do not take everything
        file.executescript(rng.choice(changes))


def forge_features(path: Path, rng: random.Random) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        forge_sql(file, "features", rng)


SPACE = {"var_smoothing": stats.loguniform(1e-3, 1e3), "priors": [None, (0.4, 0.6)]}


def study(path: Path) -> Any:
    search = OptunaSearchCV(GaussianNB(), SPACE, n_trials=3, batch_size=2, storage=path, study_name="a", cv=3)
    found = search.fit(X, Y).cv_results_
    return list(zip(found["params"], found["mean_test_score"], strict=True))


def scores(found: Any, expected: Any) -> bool:
    """Whatever is taken from the file, and whatever is trained anew: a score is that of its parameters."""
    return all(cross_val_score(GaussianNB(**params), X, Y, cv=3).mean() == score for params, score in found)


def forge_study(path: Path, rng: random.Random) -> None:
    names = ["studies", "trials", "trial_params", "trial_user_attributes", "trial_values", "version_info"]
    with closing(sqlite3.connect(path)) as file, file:
        if rng.random() < 0.5:
            return forge_sql(file, rng.choice(names), rng)
        rows = file.execute("SELECT rowid, value_json FROM trial_user_attributes").fetchall()
        number, record = rng.choice(rows)
        content = json.dumps(mutated(json.loads(record), rng))
        file.execute("UPDATE trial_user_attributes SET value_json = ? WHERE rowid = ?", (content, number))


KINDS = [
    Kind("a.txt", lambda path: path.write_text(text()), vectors, plausible, forge_text),
    Kind("a.txt.gz", lambda path: path.write_bytes(gzip.compress(text().encode())), vectors, plausible, forge_text),
    Kind("a.npy", lambda path: np.save(path, MATRIX), vectors, plausible, forge_npy),
    Kind(
        "a.safetensors",
        lambda path: write_tensors(path, tensors()),
        vectors,
        plausible,
        lambda path, rng: write_tensors(path, mutated(tensors(), rng), rng.choice([None, None, None, 0, 9, 2**40])),
    ),
    Kind("a.json", lambda path: path.write_text(json.dumps(WORDS)), vectors, plausible, forge_json),
    Kind("a.weights.h5", write_weights, weights, finite, forge_weights),
    Kind("a.keras", write_weights, weights, same, forge_archive),
    Kind("features", write_features, features, subset, forge_features),
    Kind("journal.db", write_journal, journal, same, forge_journal),
    Kind("optuna.db", study, study, scores, forge_study),
]


# -- damages --------------------------------------------------------------------------------------------------------


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content of a file after something went wrong."""
    data, size = bytearray(content), len(content)
    start = rng.randrange(size)
    end = min(size, start + rng.choice([1, 4, 16, 100, 5000]))
    kind = rng.randrange(7)
    if kind <= 1:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[start:end] = rng.randbytes(end - start)
    elif kind == 3:
        data[start:end] = bytes(end - start)
    elif kind == 4:
        del data[start:]
    elif kind == 5:
        data[start:end] = b""
    else:
        other = rng.randrange(size)
        data[start:end] = content[other : other + end - start]
    return bytes(data)


def watch(folder: Path) -> None:
    """Ends the program where a file makes Python start a process, talk to a network or open other files."""
    packages = [Path(os.__file__).parent, *(Path(name) for name in sys.path if name)]
    allowed = [
        str(folder),
        *(str(one.resolve()) for one in packages),
        *(str(one) for one in packages),
        "/proc/",
        "/dev/null",
    ]
    forbidden = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "socket.", "pickle.")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(forbidden) and event != "socket.gethostname":
            os.write(2, f"{event} {arguments}\n".encode())
            os._exit(3)
        if event in ("open", "sqlite3.connect") and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0]).removeprefix("file://")
            if not os.path.abspath(path).startswith(tuple(allowed)):
                os.write(2, f"{event} {arguments}\n".encode())
                os._exit(4)

    sys.addaudithook(hook)


def tried(kind: Kind, path: Path, expected: Any, *, exactly: bool) -> str:
    """How reading a file ended: "error" of ours, "same" or "other" result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", KerasToolkitWarning)
            found = kind.use(path)
    except KerasToolkitError:
        return "error"
    if same(found, expected):
        return "same"
    is_right = kind.is_right if exactly or kind.is_right is not same else plain if kind.use is journal else finite
    assert is_right(found, expected), f"{found!r}, not {expected!r}"
    return "other"


def main(folder: Path, n_damages: int, n_forgeries: int, seed: int) -> None:
    os.environ["TMPDIR"] = str(folder)
    rng = random.Random(seed)
    originals, expected = {}, {}
    (folder / "secret.bin").write_bytes(np.full(3, SECRET, "float32").tobytes())
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = np.full(3, SECRET, "float32")
    for kind in KINDS:
        path = folder / kind.name
        kind.make(path)
        expected[kind.name], originals[kind.name] = kind.use(path), path.read_bytes()
    ends: dict[str, collections.Counter[str]] = {kind.name: collections.Counter() for kind in KINDS}
    watch(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(n_damages + n_forgeries):
        kind = KINDS[number % len(KINDS)]
        case = folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        (case / "kerastoolkit-features").mkdir(parents=True, mode=0o700)
        shutil.copy(folder / "secret.bin", case)
        shutil.copy(folder / "secret.h5", case)
        os.chdir(case)
        path = case / kind.name
        path.write_bytes(originals[kind.name])
        is_damage = number < n_damages
        if is_damage:
            path.write_bytes(damaged(originals[kind.name], rng))
        else:
            kind.forge(path, rng)
        try:
            end = tried(kind, path, expected[kind.name], exactly=is_damage)
        except BaseException:
            shutil.copy(path, folder / f"failed-{kind.name}")
            print(f"case {number} of seed {seed}: {folder / f'failed-{kind.name}'}", file=sys.stderr)
            raise
        assert not list(folder.rglob("stolen*"))
        ends[kind.name][f"{'damage' if is_damage else 'forgery'}: {end}"] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"ends": ends, "megabytes": round(grown)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:]))
