"""A file from a stranger: nothing in it is executed, no other file is read, and memory is for what it really holds.

Named forgeries stand here; `forger.py` beside makes others at random, and watches.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from kerastoolkit import ImageClassifier, KerasClassifier, KerasRegressor, TextClassifier, load, save
from kerastoolkit.exceptions import KerasToolkitWarning, SavedFileError

X = np.random.RandomState(0).rand(9, 3).astype("float32")
Y = np.array(["a", "b", "c"])[np.arange(9) % 3]
MARKS: list[str] = []  # of what was called


def mark(*arguments: Any, **options: Any) -> str:
    """What an attacker would have called."""
    MARKS.append("called")
    return "softmax"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("saved")
    return KerasClassifier(hidden=(2,), epochs=1, random_state=0).fit(X, Y).save(folder / "one.zip").read_bytes()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def archive_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target.getvalue()


def with_members(content: bytes, changed: dict[str, bytes]) -> bytes:
    return archive_of(members_of(content) | changed)


def refused(content: bytes, message: str, folder: Path, **options: Any) -> None:
    path = folder / "forged.zip"
    path.write_bytes(content)
    MARKS.clear()
    with pytest.raises(SavedFileError, match=message):
        load(path, **options)
    assert MARKS == []


def with_description(content: bytes, change: Callable[[Any], object]) -> bytes:
    members = members_of(content)
    description = json.loads(members["estimator.json"])
    change(description)
    return archive_of(members | {"estimator.json": json.dumps(description).encode()})


def with_model(content: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    members = members_of(content)
    model = members_of(members["model.keras"])
    change(model)
    return archive_of(members | {"model.keras": archive_of(model)})


def with_config(content: bytes, change: Callable[[Any], object]) -> bytes:
    def changed(model: dict[str, bytes]) -> None:
        config = json.loads(model["config.json"])
        change(config)
        model["config.json"] = json.dumps(config).encode()

    return with_model(content, changed)


def with_weights(content: bytes, folder: Path, change: Callable[[h5py.File], object]) -> bytes:
    def changed(model: dict[str, bytes]) -> None:
        path = folder / "weights.h5"
        path.write_bytes(model["model.weights.h5"])
        with h5py.File(path, "a") as file:
            change(file)
        model["model.weights.h5"] = path.read_bytes()

    return with_model(content, changed)


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    texts = ["red wine", "green apples", "red apples", "green wine"] * 3
    estimator = TextClassifier(epochs=1, embedding="learned", random_state=0).fit(texts, [0, 1] * 6)
    return estimator.save(tmp_path_factory.mktemp("texts") / "texts.zip").read_bytes()


def reader(name: str, **config: Any) -> Any:
    """A reader as a file has it."""
    return {"dict": [["name", name], ["config", {"dict": [list(pair) for pair in config.items()]}]]}


class of_rows:  # noqa: N801
    """Changes the config of the reader in a file."""

    def __init__(self, file: Any) -> None:
        self.entries = dict(file["fitted"]["reader"]["dict"])["config"]["dict"]

    def update(self, **changed: Any) -> None:
        self.entries[:] = [list(pair) for pair in {**dict(self.entries), **changed}.items()]


WORDS: dict[str, Any] = {"words": ["a"], "rarity": [], "length": 10**12, "ngrams": 1}


# -- the description ------------------------------------------------------------------------------------------------

COMMAND = {"reference": f"{__name__}:mark"}
SYSTEM = {"module": "os", "class_name": "system", "config": {}}


@pytest.mark.parametrize(
    "change",
    [
        # `load` set whatever attribute the file named, and called `_after_build` with the head, which it named too.
        lambda file: file["fitted"].update(_head_attributes=COMMAND, head_="touch x"),
        lambda file: file["fitted"].update(n_iter=COMMAND),
        lambda file: file["parameters"].update(predict=COMMAND),
        lambda file: file["parameters"].update(_params={"dict": []}),
        lambda file: file["parameters"].update({"nowhere__rate": 1}),
        lambda file: file["parameters"].update(batch_size="many"),
        lambda file: file["parameters"].update(epochs=COMMAND),
        lambda file: file["fitted"]["head"]["dict"].append(["decode", COMMAND]),
        lambda file: file["fitted"].update(head=COMMAND),
        lambda file: file["fitted"].update(head={"dict": [["class", "Reconstruction"]]}),
        lambda file: file["fitted"].update(generator={"dict": [["bit_generator", "PCG64"]]}),
        lambda file: file.update(task="cooking"),
        lambda file: file.update(base=f"{__name__}:mark"),
        lambda file: file["fitted"].update(reader=reader("text", **WORDS)),
        lambda file: file["fitted"].update(reader=reader("image", size=8, shape={"tuple": [8, 8, 1]})),
        lambda file: file["fitted"].update(reader=reader("encoded")),
        lambda file: file["fitted"].update(reader=reader("os:system", command="touch x")),
        lambda file: file["fitted"].update(reader=reader("array", shape={"tuple": [3]})),
        lambda file: file["fitted"].update(reader=COMMAND),
        lambda file: of_rows(file).update(shape={"tuple": [10**12]}),
        lambda file: of_rows(file).update(n_features=4),
        lambda file: of_rows(file).update(encode=COMMAND),
        lambda file: file.update(more=1),
        lambda file: file.pop("fitted"),
        lambda file: file["fitted"].pop("head"),
        lambda file: of_rows(file).update(feature_names={"array": ["x"], "dtype": "<U400000000"}),
        lambda file: of_rows(file).update(feature_names={"array": [1], "dtype": "O"}),
        lambda file: file["parameters"].update(model={"model": "/etc/passwd.keras"}),
        lambda file: file["parameters"].update(model={"model": "model.keras"}),
        lambda file: file["parameters"].update(epochs={"keras": SYSTEM}),
        lambda file: file["parameters"].update(loss={"keras": SYSTEM | {"module": "keras.utils"}}),
        lambda file: file.update(compiled={"dict": [["run", COMMAND]]}),
        lambda file: file.update(optimizer=[COMMAND]),
    ],
)
def test_an_entry_that_no_estimator_has_is_refused(change: Any, saved: bytes, tmp_path: Path) -> None:
    for safe_mode in (True, False):
        refused(with_description(saved, change), "forged.zip", tmp_path, safe_mode=safe_mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fitted: fitted.pop("reader"), "is read by None, which is no reader of TextClassifier"),
        (lambda fitted: fitted.update(reader=None), "is read by None, which is no reader of TextClassifier"),
        (lambda fitted: fitted.update(reader=reader("array")), "'array', which is no reader of TextClassifier"),
        (lambda fitted: fitted.update(reader=reader("text")), "A saved vocabulary has no field 'words'"),
        (lambda fitted: fitted.update(reader=reader("text", **WORDS)), "A saved vocabulary has 1000000000000 as"),
    ],
)
def test_texts_cannot_be_read_without_words(change: Any, message: str, of_texts: bytes, tmp_path: Path) -> None:
    refused(with_description(of_texts, lambda file: change(file["fitted"])), message, tmp_path)


@pytest.mark.parametrize(
    "reference",
    ["os:system", "subprocess:Popen", "builtins:eval", "numpy:load", f"{__name__}:os.system", f"{__name__}:json.loads"],
)
def test_no_name_leads_out_of_the_users_modules_even_in_a_trusted_file(
    reference: str, saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "one.zip"
    path.write_bytes(with_description(saved, lambda file: file["parameters"].update(model={"reference": reference})))
    for safe_mode in (True, False):
        again = load(path, safe_mode=safe_mode)
        assert repr(again.model) == f"<not loaded: {reference}>"
        assert again.predict(X).shape == (9,)
    module, _, name = reference.partition(":")
    described = SYSTEM | {"module": module, "class_name": name}
    path.write_bytes(with_description(saved, lambda file: file["parameters"].update(loss={"keras": described})))
    again = load(path)
    assert repr(again.loss) == f"<not loaded: a {name}>"
    assert again.predict(X).shape == (9,)


def test_no_callback_of_a_file_writes_files_where_it_likes(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.zip"
    for name, known in (("csv_logger:CSVLogger", False), ("early_stopping:EarlyStopping", True)):
        value = {"reference": f"keras.src.callbacks.{name}"}
        path.write_bytes(with_description(saved, lambda file, value=value: file["parameters"].update(callbacks=value)))
        assert isinstance(load(path).callbacks, type) is known


def test_a_folder_for_the_cache_is_not_taken_from_a_file(tmp_path: Path) -> None:
    from kerastoolkit.estimators import ImageRegressor

    elsewhere, images = tmp_path / "elsewhere", np.random.RandomState(0).randint(0, 255, (4, 8, 8)).astype("uint8")
    estimator = ImageRegressor("MobileNet", weights=None, input_size=32, layer="conv_pw_1_relu", epochs=1, cache=False)
    path = estimator.fit(images, np.arange(4.0)).set_params(cache=str(elsewhere)).save(tmp_path / "one.zip")
    with pytest.warns(KerasToolkitWarning, match="elsewhere', which is not used in safe mode"):
        assert load(path).cache is True
    assert load(path, safe_mode=False).cache == str(elsewhere)


# -- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scale", "offset"])
def test_features_of_images_have_a_scale_each(name: str, tmp_path: Path) -> None:
    estimator = ImageClassifier("MobileNet", weights=None, input_size=32, layer="conv_pw_1_relu", epochs=1, cache=False)
    images = np.random.RandomState(0).randint(0, 255, (4, 8, 8)).astype("uint8")
    content = estimator.fit(images, np.arange(4) % 2).save(tmp_path / "one.zip").read_bytes()

    def add_a_number(config: Any) -> None:
        (scaling,) = [layer for layer in config["config"]["layers"] if layer["config"]["name"] == "standardize"]
        scaling["config"][name].append(1.0)

    refused(with_config(content, add_a_number), "scale", tmp_path)


def layer_of(config: Any, number: int = 1) -> Any:
    return config["config"]["layers"][number]["config"]


def _widen(config: Any) -> None:
    for layer in config["config"]["layers"]:
        layer.pop("build_config", None)
    layer_of(config).update(units=10**9)


def _lead(config: Any, entry: int) -> None:
    """The second layer takes what a later call of the first would make (entry 1), or a second output of it (2)."""
    (tensor,) = config["config"]["layers"][1]["inbound_nodes"][0]["args"]
    tensor["config"]["keras_history"][entry] = 1


LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wAAAAAAAAAA"}}
FUNCTION = {"class_name": "function", "module": __name__, "config": "mark", "registered_name": "mark"}
OF_OS = {"module": "os", "config": "system"}
VGG16 = {"module": "keras.applications", "config": "VGG16"}  # which downloads half a gigabyte
EAGER = {"args": [{"class_name": "__numpy__", "config": {"value": [1.0], "dtype": "float32"}}], "kwargs": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: layer_of(config).update(activation=LAMBDA), "__lambda__"),
        (lambda config: layer_of(config).update(activation=FUNCTION), "names .*mark"),
        (lambda config: layer_of(config).update(activation=FUNCTION | OF_OS), "os.system"),
        (lambda config: layer_of(config).update(activation=FUNCTION | VGG16), "keras.applications.VGG16"),
        (lambda config: config["config"]["layers"][1].update(class_name="TFSMLayer"), "TFSMLayer"),
        (lambda config: config["config"]["layers"][1].update(module="keras.src.saving.saving_lib"), "saving_lib.Dense"),
        (lambda config: config["config"]["layers"][1].pop("module"), "names '.Dense'"),
        (lambda config: layer_of(config).update(vocabulary="/etc/passwd"), "reads its vocabulary from the file"),
        (lambda config: config["config"]["layers"][1].update(inbound_nodes=[EAGER]), "something else than the output"),
        (lambda config: _lead(config, 1), "graph .*loops or disconnected nodes"),
        (lambda config: _lead(config, 2), "graph .*loops or disconnected nodes"),
        (_widen, "asks for .* bytes of weights"),
        (lambda config: layer_of(config).update(units=[2**40, 1]), r"units=\[1099511627776, 1\] in Dense; no backend"),
        (lambda config: layer_of(config).update(use_bias=10**7), "use_bias=10000000 in Dense; it is True or False"),
        (lambda config: layer_of(config).update(power_iterations=10**9), "power_iterations=1000000000; at most"),
    ],
)  # fmt: skip
def test_a_model_names_nothing_but_what_keras_has_and_is_no_larger_than_its_weights(
    change: Any, message: str, saved: bytes, tmp_path: Path
) -> None:
    refused(with_config(saved, change), message, tmp_path)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("MeanIoU", {"num_classes": 30_000}, "asks for .* bytes"),
        ("AUC", {"num_thresholds": 10**9}, "num_thresholds=1000000000"),
    ],
)
def test_a_metric_is_no_larger_than_the_weights_either(
    name: str, config: Any, message: str, saved: bytes, tmp_path: Path
) -> None:
    metric = {"module": "keras.metrics", "class_name": name, "registered_name": None, "config": config}
    compiled = {"dict": [["optimizer", "adam"], ["loss", "mse"], ["metrics", [{"keras": metric}]]]}
    refused(with_description(saved, lambda file: file.update(compiled=compiled)), message, tmp_path)
    # As files without that entry have it, in the model itself.
    in_model = {"optimizer": "adam", "loss": "mse", "metrics": [metric]}
    content = with_config(saved, lambda config: config.update(compile_config=in_model))
    refused(with_description(content, lambda file: file.pop("compiled")), message, tmp_path)


ELSEWHERE = [("/etc/passwd", 0, 12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, at: file.create_dataset(at, (3,), "float32", external=ELSEWHERE), "in another file"),
        (lambda file, at: file.update({at: h5py.ExternalLink("/etc/passwd", "/x")}), "is a link to another place"),
        (lambda file, at: file.update({at: h5py.SoftLink("/layers")}), "is a link to another place"),
        (lambda file, at: file.update({at: file["layers"]}), "under two names"),
        (lambda file, at: file.create_virtual_dataset(at, h5py.VirtualLayout((9,), "float32")), "another|not in"),
        (lambda file, at: file.create_dataset(at, (30_000, 30_000), "float32", compression="gzip"), "compressed"),
        (lambda file, at: file.create_dataset(at, (30_000, 30_000), "float32"), "declares 3,600,000,000 bytes"),
        (lambda file, at: file.create_dataset(at, (3,), h5py.string_dtype()), "does not hold numbers"),
    ],
)
def test_weights_lie_in_their_own_file_and_are_all_there(
    change: Any, message: str, saved: bytes, tmp_path: Path
) -> None:
    for place in ("optimizer/vars/0", "layers/dense/vars/0", "elsewhere"):

        def forge(file: h5py.File, place: str = place) -> None:
            if place in file:
                del file[place]
            change(file, place)

        refused(with_weights(saved, tmp_path, forge), message, tmp_path)


# -- the archive ----------------------------------------------------------------------------------------------------


def _twice(content: bytes) -> bytes:
    target = io.BytesIO(content)
    with zipfile.ZipFile(target, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("estimator.json", b"{}")
    return target.getvalue()


def _in_directory(content: bytes, offset: int, value: bytes) -> bytes:
    """The same with other bytes in the last entry of the archive's directory."""
    place = content.rindex(b"PK\x01\x02") + offset
    return content[:place] + value + content[place + len(value) :]


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda content: with_members(content, {"../evil": b""}), "holds '../evil', which .* never writes"),
        (lambda content: with_members(content, {"code.pkl": b""}), "holds 'code.pkl', which .* never writes"),
        (lambda content: archive_of(members_of(content), zipfile.ZIP_DEFLATED), "is compressed, which .* never does"),
        (_twice, "holds 'estimator.json' twice"),
        (lambda content: _in_directory(content, 8, b"\x01"), "is encrypted"),
        (lambda content: _in_directory(content, 10, b"\x63"), "is compressed"),
        (lambda content: _in_directory(content, 20, b"\xff\xff\xff\x7f" * 2), "more than its"),
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: b"", "is damaged"),
        (lambda content: with_members(content, {"estimator.json": b"[" * 200 + b"]" * 200}), "levels deep"),
        (lambda content: with_members(content, {"estimator.json": b"[" * 10**6}), "levels deep"),
        (lambda content: with_members(content, {"estimator.json": b"[" + b"[]," * 10**7}), "more than is read"),
        (lambda content: with_members(content, {"estimator.json": b"[1, 2]"}), "is not a table of fields"),
        (lambda content: with_members(content, {"estimator.json": b"\xff"}), "is not JSON"),
        (lambda content: with_members(content, {"model.keras": content}), "holds 'estimator.json'|no config"),
    ],
)
def test_an_archive_has_its_members_as_save_wrote_them(forge: Any, message: str, saved: bytes, tmp_path: Path) -> None:
    refused(forge(saved), message, tmp_path)


def test_what_is_no_file_is_refused_and_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SavedFileError, match="is a folder, not a file"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing.zip"):
        load(tmp_path / "nothing.zip")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SavedFileError, match="is a device or a pipe"):
            load(tmp_path / "pipe")


# -- what scikit-learn builds of estimators --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved_vote(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    network = make_pipeline(StandardScaler(), KerasClassifier(hidden=(2,), epochs=1, random_state=0))
    both = VotingClassifier([("network", network), ("forest", RandomForestClassifier(2, random_state=0))])
    return save(both.fit(X, Y), tmp_path_factory.mktemp("vote") / "one.zip").read_bytes()


def with_object(content: bytes, change: Callable[[Any], object]) -> bytes:
    members = members_of(content)
    description = json.loads(members["object.json"])
    change(description)
    return archive_of(members | {"object.json": json.dumps(description).encode()})


def parts_of(value: Any, key: str) -> list[Any]:
    """The dicts of a description that have a key, the last ones first: of what was fitted."""
    found, left = [], [value]
    while left:
        part = left.pop()
        found += [part] if isinstance(part, dict) and key in part else []
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return found


def state_of(file: Any, name: str) -> Any:
    """The attributes of the fitted object of a class."""
    states = [part["state"] for part in parts_of(file, "state") if part["object"].endswith(f":{name}")]
    return next((state for state in states if any(one.endswith("_") for one in state)), states[0])


def scaler(file: Any) -> Any:
    return state_of(file, "StandardScaler")


def tree(file: Any) -> Any:
    return parts_of(file, "tree")[0]


def column(file: Any, name: str) -> Any:
    """The place in the arrays of a column of the nodes of a tree."""
    return next(one for one in tree(file)["nodes"]["records"] if one[0] == name)[2]


def shared(part: Any) -> Any:
    """A reference to a part of a description."""
    part["id"] = 10**6
    return {"same": 10**6}


BIG = {"array": 0, "dtype": "<f8", "shape": [10**12], "order": "C"}
NAME_ONLY = "by name only"
NO_PLACE = "which cannot stand there"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["object"].update(object="os:system"), NAME_ONLY),
        (lambda file: file["object"].update(object="subprocess:Popen"), NAME_ONLY),
        (lambda file: file["object"].update(object="sklearn.datasets._base:load_files"), NAME_ONLY),
        (lambda file: file["object"].update(object="sklearn.utils._bunch:Bunch"), NAME_ONLY),
        (lambda file: file["object"].update(object="kerastoolkit.search.journal:Journal"), NAME_ONLY),
        (lambda file: file["object"].update(object=3), "which is no name"),
        (lambda file: file["object"].update(state=[]), "no attributes"),
        (lambda file: file["object"].update(more=1), NO_PLACE),
        (lambda file: file.update(object=[]), "has \\[\\] as 'object'"),
        (lambda file: file.pop("versions"), "no field 'versions'"),
        (lambda file: scaler(file).update(mean_={"reference": "os:system"}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"reference": "numpy:load"}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"reference": "numpy:savetxt"}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"reference": "builtins:eval"}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"reference": "sklearn.datasets:fetch_openml"}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"reference": 3}), "which is no name"),
        (lambda file: scaler(file).update(mean_={"partial": [{"reference": "os:system"}, [], {}]}), NAME_ONLY),
        (
            lambda file: scaler(file).update(mean_={"partial": ["os", {"list": []}, {"dict": [], "kind": "dict"}]}),
            "call",
        ),
        (lambda file: scaler(file).update(mean_={"made": "os:system", "arguments": {"list": []}}), "would call"),
        (
            lambda file: scaler(file).update(
                mean_={"made": "sklearn._loss._loss:CyHuberLoss", "arguments": {"list": ["x"]}}
            ),
            "where numbers stand",
        ),
        (lambda file: scaler(file).update(transform={"reference": "numpy:log1p"}), "'transform', which no object can"),
        (lambda file: scaler(file).update(__class__=1), "'__class__', which no object can have"),
        (lambda file: scaler(file).update({"x y": 1}), "'x y', which no object can have"),
        (lambda file: scaler(file).update(mean_={}), NO_PLACE),
        (lambda file: scaler(file).update(mean_=[1]), NO_PLACE),
        (lambda file: scaler(file).update(mean_={"pickle": "gASV"}), NO_PLACE),
        (lambda file: scaler(file).update(mean_=BIG), "bytes of arrays, and speaks of"),
        (lambda file: scaler(file).update(mean_={**BIG, "dtype": "|O"}), "as 'dtype'"),
        (lambda file: scaler(file).update(mean_={**BIG, "dtype": "<U0"}), "empty values|bytes of arrays"),
        (lambda file: scaler(file).update(mean_={**BIG, "shape": [-3]}), "as 'shape'"),
        (lambda file: scaler(file).update(mean_={**BIG, "array": -8, "shape": [1]}), "as 'array'"),
        (lambda file: scaler(file).update(mean_={"objects": [], "shape": [10**9]}), "0 objects in"),
        (
            lambda file: scaler(file).update(mean_={"records": [["a", 0, {**BIG, "shape": [3]}]], "itemsize": 2**30}),
            "records of",
        ),
        (lambda file: scaler(file).update(mean_={"scalar": "x", "dtype": "<f8"}), "has a number 'x'"),
        (lambda file: scaler(file).update(mean_={"scalar": 1, "dtype": "<U99999999"}), "has a number 1 of"),
        (lambda file: scaler(file).update(mean_={"scalar": 2**70, "dtype": "<i8"}), "OverflowError"),
        (lambda file: scaler(file).update(mean_={"error": "BaseException", "text": "x"}), "which is no error"),
        (lambda file: scaler(file).update(mean_={"error": "open", "text": "/etc/passwd"}), "which is no error"),
        (lambda file: scaler(file).update(mean_={"named_tuple": "os:stat_result", "items": []}), NAME_ONLY),
        (lambda file: scaler(file).update(mean_={"named_tuple": "sklearn.pipeline:Pipeline", "items": []}), "no named"),
        (lambda file: scaler(file).update(mean_={"same": 10**6}), "refers to what it has not"),
        (lambda file: scaler(file).update(mean_={"estimator": 99}), "has no estimators/99.zip"),
        (lambda file: scaler(file).update(mean_={"estimator": "0"}), "has no estimator '0'"),
        (lambda file: scaler(file).update(mean_={"list": [{"estimator": 0}, {"estimator": 0}]}), "or has it twice"),
        (
            lambda file: scaler(file).update(mean_={"distribution": "rv_continuous", "arguments": []}),
            "damaged|no distri",
        ),
        (
            lambda file: scaler(file).update(
                mean_={"generator": {"dict": [["bit_generator", "seed"]], "kind": "dict"}}
            ),
            "a generator 'seed'",
        ),
        (lambda file: scaler(file).update(mean_={"dtype": "<f8,<f8"}), "a type '<f8,<f8'"),
        (lambda file: state_of(file, "Pipeline").update(memory="/tmp/elsewhere"), "a 'memory' of its own"),
        (lambda file: tree(file).update(tree=[4, 1, 2]), "nodes do not lead|other features"),
        (lambda file: tree(file).update(tree=[3, 5, 2]), "a tree of"),
        (lambda file: tree(file).update(tree=[2**40, 1, 2]), "a tree of"),
        (lambda file: column(file, "left_child").update(array=column(file, "feature")["array"]), "do not lead to"),
        (lambda file: column(file, "feature").update(array=column(file, "n_node_samples")["array"]), "do not lead to"),
        (lambda file: scaler(file).update(mean_=dict(tree(file))), "where no decision tree is"),
        (lambda file: scaler(file).update(mean_=shared(tree(file))), "refers to what it has not|where no decision"),
        (lambda file: column(file, "right_child").update(shape=[1]), "different lengths"),
        (lambda file: state_of(file, "RandomForestClassifier").pop("n_features_in_"), "a tree for other features"),
        (lambda file: state_of(file, "RandomForestClassifier").update(n_features_in_=9), "a tree for other features"),
    ],
)
def test_an_object_is_made_of_nothing_but_what_is_known(
    change: Any, message: str, saved_vote: bytes, tmp_path: Path
) -> None:
    for safe_mode in (True, False):
        refused(with_object(saved_vote, change), message, tmp_path, safe_mode=safe_mode)


def test_what_a_search_tried_is_no_way_around_what_it_predicts_with(tmp_path: Path) -> None:
    pipeline = Pipeline([("last", GaussianNB())])
    search = SklearnGridSearchCV(pipeline, {"last": [SVC()]}, cv=3).fit(X, Y)
    with pytest.warns(KerasToolkitWarning, match="The file holds SVC"):
        path = save(search, tmp_path / "one.zip")

    def hide(file: Any) -> None:
        state = file["object"]["state"]
        tried = {**state.pop("best_estimator_"), "id": 10**6}
        given = {"estimator": state.pop("estimator"), "cv": tried}
        file["object"]["state"] = {**given, **state, "cv": tried, "best_estimator_": {"same": 10**6}}

    path.write_bytes(with_object(path.read_bytes(), hide))
    assert repr(load(path).best_estimator_[-1]) == "<not loaded: sklearn.svm._classes:SVC>"


def test_a_function_of_the_users_is_not_followed_in_safe_mode(saved_vote: bytes, tmp_path: Path) -> None:
    for name in ("mark", "json.loads"):
        reference = {"reference": f"{__name__}:{name}"}
        content = with_object(saved_vote, lambda file, value=reference: scaler(file).update(mean_=value))
        refused(content, NAME_ONLY, tmp_path)
    refused(content, NAME_ONLY, tmp_path, safe_mode=False)  # what a module of the user's has imported


def test_texts_are_not_taken_for_names_of_files_in_safe_mode(tmp_path: Path) -> None:
    (tmp_path / "red.txt").write_text("red wine")
    words = make_pipeline(TfidfVectorizer(input="filename"), KerasClassifier(hidden=(2,), epochs=1))
    path = save(words.fit([str(tmp_path / "red.txt")] * 4, [0, 1, 0, 1]), tmp_path / "one.zip")
    refused(path.read_bytes(), "opens the files which rows of text name", tmp_path)
    assert load(path, safe_mode=False)[0].input == "filename"


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (
            lambda content: with_members(content, {"estimators/../../x.zip": b""}),
            "which kerastoolkit.save never writes",
        ),
        (lambda content: with_members(content, {"x.pkl": b""}), "which kerastoolkit.save never writes"),
        (lambda content: archive_of(members_of(content), zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda content: archive_of({**members_of(content), "arrays.bin": b""}), "bytes of arrays, and speaks of"),
        (lambda content: archive_of({"object.json": members_of(content)["object.json"]}), "it has no arrays.bin"),
        (lambda content: with_members(content, {"object.json": b"[" * 10**6}), "levels deep"),
        (lambda content: with_members(content, {"object.json": b"[1]"}), "is not a table of fields"),
        (lambda content: with_members(content, {"estimators/0.zip": content}), "estimators/0.zip' .*estimator.json"),
        (lambda content: with_members(content, {"estimators/0.zip": b""}), "estimators/0.zip' is damaged"),
        (lambda content: content[:-2000], "is damaged"),
    ],
)
def test_an_archive_of_an_object_has_its_members_as_save_wrote_them(
    forge: Any, message: str, saved_vote: bytes, tmp_path: Path
) -> None:
    refused(forge(saved_vote), message, tmp_path)


# -- what honest files hold -----------------------------------------------------------------------------------------


def _every_layer(input_shape: Any, head: Any) -> keras.Model:
    """A model that says much in its configuration: operations, shared and nested layers, wrappers, policies."""
    layers = keras.layers
    x = inputs = keras.Input(input_shape)
    x = layers.Normalization(mean=0.5, variance=2.0)(x)
    x = layers.Dense(4, activation=keras.ops.tanh, kernel_constraint=keras.constraints.MaxNorm(2))(x)
    inner = keras.Sequential([keras.Input((4,)), layers.SpectralNormalization(layers.Dense(4)), layers.LeakyReLU(0.1)])
    shared = layers.Dense(4)
    x = keras.ops.concatenate([shared(x), shared(inner(x)) * 2.0 + 1.0], axis=-1)
    x = layers.Reshape((2, 4))(layers.GaussianNoise(0.1, seed=3)(x))
    x = layers.MultiHeadAttention(1, 2)(x, x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(2, dtype="mixed_bfloat16"))(layers.Conv1D(4, 2, padding="same")(x))
    x = layers.Lambda(keras.activations.softplus)(layers.LayerNormalization()(layers.Flatten()(x)))
    model = keras.Model(inputs, head.connect(layers.BatchNormalization()(x[:, :3])))
    rate = keras.optimizers.schedules.CosineDecay(0.01, 10**6)
    model.compile(keras.optimizers.AdamW(rate), head.loss, metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)])
    return model


def test_a_model_of_many_kinds_of_layers_is_read() -> None:
    estimator = KerasClassifier(_every_layer, epochs=1, random_state=0).fit(X, Y)
    assert_reads_back(estimator, X)


def test_words_that_a_layer_looks_up_are_read(tmp_path: Path) -> None:
    def build(vocabulary_size: int, head: Any) -> keras.Model:
        inputs = keras.Input((None,), dtype="int32")
        x = keras.layers.Embedding(vocabulary_size, 3)(inputs)
        return keras.Model(inputs, head.connect(keras.layers.GlobalMaxPooling1D()(x)))

    texts = ["red wine", "green apples", "red apples"] * 3
    assert_reads_back(TextClassifier(build, epochs=1).fit(texts, Y), texts)


@pytest.mark.backend("tensorflow")  # the only one with strings
def test_a_model_that_takes_text_itself_is_read() -> None:
    texts = np.array([["red wine"], ["green apples"], ["red apples"]] * 3, dtype=object)

    def build(head: Any) -> keras.Model:
        inputs = keras.Input((1,), dtype="string")
        words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=3)
        words.adapt(texts[:, 0])
        return keras.Model(inputs, head.connect(keras.layers.Flatten()(keras.layers.Embedding(9, 2)(words(inputs)))))

    assert_reads_back(KerasClassifier(build, epochs=1).fit(texts, Y), texts)


def test_an_optimizer_that_keeps_much_is_read() -> None:
    optimizer = keras.optimizers.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    assert_reads_back(KerasRegressor(hidden=(300, 300), optimizer=optimizer, epochs=1).fit(X, X[:, 0]), X)


def assert_reads_back(estimator: Any, rows: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        again = load(estimator.save(Path(folder) / "one.zip"))
    np.testing.assert_array_equal(again.predict(rows), estimator.predict(rows))


# -- at random ------------------------------------------------------------------------------------------------------


@pytest.mark.backend("tensorflow")  # the files are the same on all of them
def test_random_damages_and_forgeries_are_refused_or_change_nothing(tmp_path: Path) -> None:
    n_forgeries = int(os.environ.get("KERASTOOLKIT_TEST_FORGERIES", "24"))
    program = Path(__file__).with_name("forger.py")
    command = [sys.executable, str(program), str(tmp_path), str(n_forgeries), str(4 * n_forgeries), "0"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["wrong"] == []
    assert report["seen"] == {}
    assert not report["executed"]
    assert report["bytes"] < 500e6
    assert report["outcomes"]["SavedFileError"] > n_forgeries
