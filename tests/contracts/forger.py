"""Damages and forges files of every kind at random, reads them, and watches what happens.

Run as a program of its own, since what watches (an audit hook) stays for the rest of a process:

    python forger.py FOLDER NUMBER_OF_FORGERIES NUMBER_OF_DAMAGES SEED

It prints one line of JSON: how many were refused and how many predicted as before, what went wrong, what was seen that
should not be, and by how many bytes the memory grew.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kerastoolkit import KerasClassifier, KerasRegressor, TextClassifier, load, load_experiment, run_experiment, save
from kerastoolkit.estimators import ImageClassifier, KerasTransformer
from kerastoolkit.exceptions import KerasToolkitError, KerasToolkitWarning
from kerastoolkit.search import GridSearchCV

Members = dict[str, bytes]
Forge = Callable[[random.Random, Path], bool]

RNG = np.random.RandomState(0)
ROWS = RNG.rand(12, 3).astype("float32")
LABELS = np.array(["a", "b", "c"])[np.arange(12) % 3]
TABLE = pd.DataFrame({"age": RNG.rand(12), "town": ["Ulm", "Bonn"] * 6})
TEXTS = ["red wine", "green apples", "red apples", "green wine"] * 3
IMAGES = RNG.randint(0, 255, (12, 8, 8)).astype("uint8")
TO_PREDICT = pd.DataFrame({"age": [0.5, None], "town": ["Ulm", "Rome"], "x": [1.0, 2.0]})


# -- what is forged -------------------------------------------------------------------------------------------------


def write_files(folder: Path) -> dict[str, tuple[Path, Any]]:
    """A file of every kind, and what its estimator is to predict from."""
    given = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    given.compile("adam", "sparse_categorical_crossentropy")
    small = {"weights": None, "input_size": 32, "layer": "conv_pw_1_relu", "cache": False}
    made: dict[str, tuple[Any, Any, Any]] = {
        "classifier": (KerasClassifier(hidden=(2,), random_state=0, epochs=1), ROWS, LABELS),
        "regressor": (KerasRegressor(hidden=(2,), epochs=1, optimizer=keras.optimizers.SGD), ROWS, ROWS[:, 0] * 9),
        "transformer": (KerasTransformer(hidden=(2,), epochs=1), ROWS, None),
        "texts": (TextClassifier(epochs=1, embedding="learned"), TEXTS, LABELS),
        "table": (KerasClassifier("tabular", hidden=(2,), epochs=1), TABLE, LABELS),
        "model": (KerasClassifier(given, epochs=1, loss=keras.losses.SparseCategoricalCrossentropy()), ROWS, LABELS),
        "images": (ImageClassifier("MobileNet", epochs=1, **small), IMAGES, np.arange(12) % 2),
    }
    files = {name: (one.fit(X, y).save(folder / f"{name}.zip"), X) for name, (one, X, y) in made.items()}
    for name, (one, X, y) in objects().items():
        files[name] = (save(one.fit(X, y), folder / f"{name}.zip"), X)
    frame = pd.concat([TABLE] * 3, ignore_index=True).assign(x=np.arange(36.0), y=np.tile(["p", "q"], 18))
    experiment = folder / "experiment"
    run_experiment(frame, "y", cv=2, param_grid={"hidden": [[2]], "epochs": [1]}, out=experiment)
    return {**files, "experiment": (experiment, TO_PREDICT)}


def objects() -> dict[str, tuple[Any, Any, Any]]:
    """What scikit-learn builds of estimators."""
    network = KerasClassifier(hidden=(2,), random_state=0, epochs=1)
    columns = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["town"]), sparse_threshold=0)
    others = [("forest", RandomForestClassifier(3, random_state=0)), ("nearest", KNeighborsClassifier(2))]
    search = GridSearchCV(make_pipeline(StandardScaler(), network), {"kerasclassifier__hidden": [(2,)]}, cv=2)
    return {
        "pipeline": (make_pipeline(columns, network), TABLE, LABELS),
        "search": (search, ROWS, LABELS),
        "voting": (VotingClassifier([("network", network), *others], voting="soft"), ROWS, LABELS),
    }


class PredictError(KerasToolkitError):
    """Of an object of scikit-learn, whose attributes may be anything: reading it, nothing happened."""


def predictions(path: Path, X: Any) -> Any:
    """What a file predicts."""
    if path.is_dir():
        return load_experiment(path).predict(X).to_numpy()
    loaded = load(path)
    try:
        return np.asarray(loaded.predict(X))
    except Exception as error:
        if path.stem not in objects():
            raise
        raise PredictError(str(error)) from error


# -- archives -------------------------------------------------------------------------------------------------------


def members_of(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def archive_of(members: Members) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target.getvalue()


def in_archive(path: Path, names: tuple[str, ...], change: Callable[[bytes], bytes]) -> bool:
    """Changes a member of an archive, or of an archive in it, with right checksums; whether there is one."""
    members = members_of(path.read_bytes())
    if names[0] not in members:
        return False
    if len(names) == 1:
        members[names[0]] = change(members[names[0]])
    else:
        inner = path.with_name(f"inner-{len(names)}")
        inner.write_bytes(members[names[0]])
        if not in_archive(inner, names[1:], change):
            return False
        members[names[0]] = inner.read_bytes()
        inner.unlink()
    path.write_bytes(archive_of(members))
    return True


# -- damages --------------------------------------------------------------------------------------------------------


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A content with some bytes changed, lost, doubled or moved."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 3, 20])):
        place = draw.randrange(max(len(changed), 1))
        size = draw.choice([1, 1, 2, 8, 100])
        kind = draw.randrange(6)
        if kind == 0 and changed:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place : place + size] = draw.randbytes(min(size, len(changed) - place))
        elif kind == 2:
            del changed[place : place + size]
        elif kind == 3:
            changed[place:place] = changed[place : place + size]
        elif kind == 4:
            changed[place : place + size] = bytes(min(size, len(changed) - place))
        elif kind == 5 and draw.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def damage(draw: random.Random, path: Path) -> bool:
    """Damages a file, or one of a folder."""
    target = draw.choice(sorted(path.iterdir())) if path.is_dir() else path
    target.write_bytes(damaged(target.read_bytes(), draw))
    return True


def damage_member(draw: random.Random, path: Path) -> bool:
    """Damages what is in an archive, whose checksums are right again: a digit that changed is as good as another."""
    target = draw.choice(sorted(path.iterdir())) if path.is_dir() else path
    if target.suffix not in (".zip", ".skops"):
        return False
    name = draw.choice(sorted(members_of(target.read_bytes())))
    if name == "model.keras" and draw.random() < 0.7:  # its HDF5 file is for the library that reads it
        return in_archive(target, (name, "config.json"), lambda content: damaged(content, draw))
    return in_archive(target, (name,), lambda content: damaged(content, draw))


# -- forgeries ------------------------------------------------------------------------------------------------------

CANARY = "canary"  # a file that is made by whatever is executed
_EVIL_NAMES = [
    "", "__class__", "__init__", "_head_attributes", "_fitted", "_set_fitted", "classes_", "feature_encoder_",
    "get_params", "head_", "model_", "predict", "score__x", "self", "x y",
]  # fmt: skip


def evil_values(draw: random.Random, folder: Path) -> Any:
    """Something that does not belong there."""
    touch = f"touch {folder / CANARY}"
    deep: Any = 0
    for _ in range(draw.choice([50, 150, 3000])):
        deep = [deep]
    command = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
    values: list[Any] = [
        None, True, -1, 10**9, 10**30, 1e308, "", touch, "nan", [], {}, deep, [[]] * 50, {"a": {"b": touch}},
        {"reference": "os:system"}, {"reference": "subprocess:Popen"}, {"reference": "builtins:eval"},
        {"reference": "kerastoolkit.cli:main"}, {"reference": "numpy:load"}, {"reference": "shutil:rmtree"},
        {"reference": "keras.src.callbacks.csv_logger:CSVLogger"}, {"keras": command},
        {"keras": {"module": "keras.layers", "class_name": "Lambda", "registered_name": None, "config": {
            "name": "x", "function": {"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}}}},
        {"keras": {"module": "subprocess", "class_name": "Popen", "config": {"args": touch}, "registered_name": None}},
        {"keras": {"module": "keras.metrics", "class_name": "AUC", "config": {"num_thresholds": 10**9},
                   "registered_name": None}},
        {"keras": {"module": "keras.metrics", "class_name": "MeanIoU", "config": {"num_classes": 10**6},
                   "registered_name": None}},
        {"array": ["a"], "dtype": "<U500000000"}, {"array": [1], "dtype": "O"},
        {"array": [[1], [2, 3]], "dtype": "<f8"},
        {"model": "/etc/passwd"}, {"model": "../../x.keras"}, {"model": "parameter.keras"}, {"path": "/etc/passwd"},
        {"dict": [[[], 1]]}, {"dict": 3}, {"tuple": "ab"}, {"float": "__import__('os')"},
        {"repr": touch}, {"bytes": "x"},
        {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U500000000"}}, command,
        {"class_name": "__lambda__", "config": {"value": "4wAAAA=="}, "module": "builtins"},
        {"class_name": "Dense", "module": "keras.layers", "config": {"units": 10**9}, "registered_name": None,
         "build_config": {"input_shape": [None, 10**9]}},
        {"class_name": "function", "module": "keras.applications", "config": "VGG16", "registered_name": "VGG16"},
        {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/tmp"}, "registered_name": None},
        {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/etc/passwd"},
         "registered_name": None},
        {"object": "os:_wrap_close", "state": {}}, {"object": "sklearn.pipeline:Pipeline", "state": {"steps": touch}},
        {"object": "kerastoolkit.search.journal:Journal", "state": {"path": "/etc/passwd"}},
        {"made": "os:system", "arguments": {"list": [touch]}}, {"reference": "sklearn.datasets:fetch_openml"},
        {"partial": [{"reference": "numpy:log1p"}, {"list": [touch]}, {"dict": [], "kind": "dict"}]},
        {"array": 0, "dtype": "<f8", "shape": [10**9], "order": "C"}, {"objects": [], "shape": [10**9, 0]},
        {"array": 0, "dtype": "<f8", "shape": [3], "order": "C"}, {"scalar": {}}, {"lost": touch}, {"slice": [1, 2, 3]},
        {"records": [["a", 0, {"array": 0, "dtype": "|u1", "shape": [9], "order": "C"}]], "itemsize": 2**31},
        {"same": 1}, {"same": [1]}, {"estimator": 0}, {"estimator": 10**9}, {"default_dict": [], "default": touch},
        {"distribution": "rv_continuous", "arguments": [[], {}]}, {"dtype": "V999999999"}, {"set": [[]]},
        {"generator": {"dict": [["bit_generator", "seed"]], "kind": "dict"}}, {"random_state": {"dict": []}},
        {"neighbors": "KDTree", "leaf_size": 0}, {"neighbors": "os", "leaf_size": 1}, {"spline": [1, 2, 3, 4, 5]},
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1},
        {"__class__": "FunctionTransformer", "__module__": "sklearn.preprocessing._function_transformer",
         "__loader__": "ObjectNode", "content": {}, "__id__": 1},
    ]  # fmt: skip
    return draw.choice(values)


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every dict and list of a tree with each of its keys."""
    found, left = [], [value]
    while left:
        part = left.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        found += [(part, key) for key in keys]
        left += [part[key] for key in keys]
    return found


def forged_json(content: bytes, draw: random.Random, folder: Path) -> bytes:
    """JSON in which a value, a name, or a number of entries is another."""
    tree, limit = json.loads(content), sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # what is nested deeply is to be written, and to be read as usual
    try:
        _forge_tree(tree, draw, folder)
        return json.dumps(tree).encode()
    finally:
        sys.setrecursionlimit(limit)


def _forge_tree(tree: Any, draw: random.Random, folder: Path) -> None:
    places = places_of(tree)
    top = [(tree, key) for key in tree]
    for _ in range(draw.choice([1, 1, 2])):
        part, key = draw.choice(places if draw.random() < 0.6 else top)
        kind = draw.randrange(5)
        if isinstance(part, dict) and key not in part:  # the first change took it away
            continue
        if kind <= 1:
            part[key] = evil_values(draw, folder)
        elif kind == 2 and isinstance(part, dict):
            part[draw.choice(_EVIL_NAMES)] = copy.deepcopy(part[key])
        elif kind == 3 and isinstance(part, dict):
            del part[key]
        elif isinstance(part, dict) and isinstance(part.get(key), dict):
            part[key][draw.choice(_EVIL_NAMES)] = evil_values(draw, folder)
        else:
            part[key] = 2**40 if isinstance(part[key], int) else [part[key]]


def forge_description(draw: random.Random, path: Path) -> bool:
    return in_archive(path, ("estimator.json",), lambda content: forged_json(content, draw, path.parent))


def forge_config(draw: random.Random, path: Path) -> bool:
    names = ("model.keras", "config.json")
    return in_archive(path, names, lambda content: forged_json(content, draw, path.parent))


def forge_object(draw: random.Random, path: Path) -> bool:
    return in_archive(path, ("object.json",), lambda content: forged_json(content, draw, path.parent))


def forge_part_of_object(draw: random.Random, path: Path) -> bool:
    names = ("estimators/0.zip", draw.choice([("estimator.json",), ("model.keras", "config.json")]))
    return in_archive(path, (names[0], *names[1]), lambda content: forged_json(content, draw, path.parent))


def forge_sizes(draw: random.Random, path: Path) -> bool:
    """All whole numbers of one name become large."""

    def larger(content: bytes) -> bytes:
        tree = json.loads(content)
        names = {key for part, key in places_of(tree) if isinstance(key, str) and isinstance(part[key], int)}
        name, size = draw.choice(sorted(names)), draw.choice([10**5, 10**7, 10**9, 2**62])
        for part, key in places_of(tree):
            if key == name:
                part[key] = size
        return json.dumps(tree).encode()

    names = draw.choice([("model.keras", "config.json"), ("estimator.json",), ("object.json",)])
    return in_archive(path, names, larger)


def forge_weights(draw: random.Random, path: Path) -> bool:
    """The HDF5 file leads elsewhere, or claims more than it has."""
    secret = path.parent / "secret"
    secret.write_bytes(bytes(4096))

    def forged(content: bytes) -> bytes:
        target = path.parent / "forged.h5"
        target.write_bytes(content)
        with h5py.File(target, "a") as file:
            found: list[str] = []
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
            name = draw.choice(found)
            shape, dtype = file[name].shape, file[name].dtype
            del file[name]
            kind = draw.randrange(7)
            if kind == 0:
                external = [(str(secret), 0, max(int(np.prod(shape)) * dtype.itemsize, 1))]
                file.create_dataset(name, shape, dtype, external=external)
            elif kind == 1:
                file[name] = h5py.ExternalLink(str(secret), "/x")
            elif kind == 2:
                file[name] = h5py.SoftLink("/" + draw.choice(found))
            elif kind == 3:
                layout = h5py.VirtualLayout((10,), "float32")
                layout[:] = h5py.VirtualSource(str(secret), "x", (10,))
                file.create_virtual_dataset(name, layout)
            elif kind == 4:
                file.create_dataset(name, (30_000, 30_000), "float32", chunks=True, compression="gzip")
            elif kind == 5:
                file.create_dataset(name, (30_000, 30_000), "float32")
            else:
                file[name] = file
        return target.read_bytes()

    return in_archive(path, ("model.keras", "model.weights.h5"), forged)


def forge_members(draw: random.Random, path: Path) -> bool:
    """The archive has other members, or says something else of them."""
    members = members_of(path.read_bytes())
    name = draw.choice(sorted(members))
    extra = draw.choice(["../../evil", "/tmp/evil", "x.pkl", "model.keras/", "C:\\x"])
    kind, target = draw.randrange(6), io.BytesIO()
    bomb = kind == 4
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", 8 if bomb else 0) as file:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for one, content in members.items():
            if one != name or kind not in (1, 4):
                file.writestr(one, content)
        if kind == 0:
            file.writestr(extra, b"x")
        elif kind == 2:
            file.writestr(name, members[name])
        elif bomb:
            file.writestr(name, bytes(300_000_000))
    content = bytearray(target.getvalue())
    entry = content.rindex(b"PK\x01\x02")  # the last of the directory
    if kind == 3:
        content[entry + 8] |= 1  # encrypted
    elif kind == 5:
        content[entry + 10 : entry + 12] = draw.choice([b"\x63\x00", b"\x0e\x00", b"\x01\x00"])  # a way to compress
    path.write_bytes(content)
    return True


def forge_experiment(draw: random.Random, path: Path) -> bool:
    """Something in the folder of an experiment."""
    if not path.is_dir():
        return False
    name = draw.choice(sorted(one.name for one in path.iterdir() if one.name != "report.html"))
    target, kind = path / name, draw.randrange(8)
    if kind == 0:
        target.unlink()
    elif kind == 1:
        target.unlink()
        target.mkdir()
    elif kind == 2:
        target.unlink()
        target.symlink_to("/etc/passwd")
    elif name == "run.json":
        target.write_bytes(forged_json(target.read_bytes(), draw, path.parent))
    elif name == "preprocessing.skops":
        return in_archive(target, ("schema.json",), lambda content: forged_json(content, draw, path.parent))
    elif name == "network.zip":
        return draw.choice(FORGERIES[:-1])(draw, target)
    else:
        target.write_text(target.read_text().replace(draw.choice("0123456789,"), draw.choice(["", "x", '"', "\n"])))
    return True


DAMAGES: list[Forge] = [damage, damage_member]
FORGERIES: list[Forge] = [
    forge_description, forge_description, forge_config, forge_config, forge_sizes, forge_weights, forge_members,
    forge_object, forge_object, forge_part_of_object, forge_experiment,
]  # fmt: skip


# -- watching -------------------------------------------------------------------------------------------------------


class Watch:
    """Notes what a file that is read has no business to do.

    Args:
        folders: Where files may be opened.
    """

    def __init__(self, folders: list[str]) -> None:
        self.folders, self.on, self.seen = tuple(folders), False, Counter[str]()
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.on = True

    def __exit__(self, *error: object) -> None:
        self.on = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event.startswith(_COMMANDS):
            self.seen[event] += 1
        elif event in _WITH_FILES and isinstance(arguments[0], str) and os.path.isabs(arguments[0]):
            if not os.path.realpath(arguments[0]).startswith(self.folders):
                self.seen[f"{event} {arguments[0]}"] += 1
        elif event == "import" and arguments[0].partition(".")[0] not in sys.modules:
            self.seen[f"import {arguments[0]}"] += 1


_COMMANDS = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.", "socket.", "subprocess.")
_WITH_FILES = ("open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "shutil.rmtree")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: Path, n_forgeries: int, n_damages: int, seed: int) -> dict[str, Any]:
    os.environ.update(XDG_CACHE_HOME=str(folder), LOCALAPPDATA=str(folder), HOME=str(folder))  # features of images
    files = write_files(folder)
    expected = {name: predictions(path, X) for name, (path, X) in files.items()}  # and all is imported
    outcomes, wrong = Counter[str](), []
    otherwise: list[str] = []
    # Python's own files are opened by what is imported late; Keras asks how much memory there is.
    ours = [str(folder), tempfile.gettempdir(), sys.prefix, sys.base_prefix, "/proc/meminfo"]
    watch = Watch(list(map(os.path.realpath, ours)))
    scratch = folder / "scratch"
    before = peak()
    plan = [(DAMAGES[at % 2], f"damage {at}") for at in range(n_damages)]
    plan += [(FORGERIES[at % len(FORGERIES)], f"forgery {at}") for at in range(n_forgeries)]
    for forge, what in plan:
        draw = random.Random(f"{seed} {what}")  # the same in each run, though no two files are of one length
        names = ["experiment"] if forge is forge_experiment else sorted(files)
        names = names if forge in (*DAMAGES, forge_experiment) else [one for one in names if one != "experiment"]
        changed = False
        while not changed:  # a file may have nothing to forge in that way
            name = draw.choice(names)
            source, X = files[name]
            copied = scratch / source.name
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            shutil.copytree(source, copied) if source.is_dir() else shutil.copy(source, copied)
            changed = forge(draw, copied)
        try:
            with warnings.catch_warnings(), watch:
                warnings.simplefilter("ignore", KerasToolkitWarning)
                found = predictions(copied, X)
        except KerasToolkitError as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-3:])
            error_text = f"{type(error).__name__}: {str(error)[:300]} {where[-600:]}"
            wrong.append(f"{what}, {forge.__name__} of {name}: {error_text}")
        else:
            same = found.shape == expected[name].shape and bool(np.all(found == expected[name]))
            outcomes["the same" if same else "other predictions"] += 1
            if not same:  # what is forged well may say something else, as a file of its forger's would
                told = wrong if forge is damage else otherwise
                told.append(f"{what}, {forge.__name__} of {name} predicts something else")
    return {
        "outcomes": outcomes,
        "wrong": wrong,
        "otherwise": otherwise,
        "seen": watch.seen,
        "executed": (scratch / CANARY).exists() or (folder / CANARY).exists(),
        "bytes": peak() - before,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
