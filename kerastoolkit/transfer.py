"""Starting from a network that is trained already: the zoo of `keras.applications`, its features, nets from nets.

One table names every network of `keras.applications` and what a user has to look up of it: the preprocessing it was
trained with, its sizes, a layer to cut at. `feature_extractor` builds one that takes pictures as they are, 0 to 255,
and `Extractor` runs it over pictures once: features are kept on disk under the content of the picture and of the
weights. `derive` cuts any trained network at a layer and puts a new end on it.

Preprocessing is done inside the network by the module's own `preprocess_input`, operation by operation, so that nothing
of it has to be remembered when predicting, and any Keras reads the saved file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import io
import math
import os
import re
import sqlite3
import stat
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, overload

import numpy as np

from kerastoolkit._cache import Cache
from kerastoolkit._copies import copied
from kerastoolkit._hdf5 import check_plain, longest_text
from kerastoolkit._sqlite import application_of, connect, has_table
from kerastoolkit._values import is_whole
from kerastoolkit._words import did_you_mean
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError, SavedFileError
from kerastoolkit.training import isolated

if TYPE_CHECKING:
    import keras

__all__ = [
    "Backbone",
    "Extractor",
    "FeatureCache",
    "derive",
    "feature_extractor",
    "get",
    "list_backbones",
    "load_weights",
    "optimizer_by_depth",
    "unfreeze",
    "update_batch_norm",
]

# Pictures that go through a network at once. Always so many, filled up: the result of a row then hangs on no other.
_BATCH = 32
_MOST_WEIGHTS = 2**33  # bytes; the largest network of Keras, with all that an optimizer adds, has half of it
_MOST_NAMES = 2**28  # bytes of the names of the weights of a layer

_CHUNK = 1024  # pictures computed between two writes to the disk, so that a run that was stopped goes on


# -- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backbone:
    """What is known of a network of `keras.applications`.

    Attributes:
        name: Name of its constructor.
        module: Name of its module in `keras.applications`, which holds its preprocessing.
        default_size: Height and width of the pictures that it was trained on, in pixels.
        smallest_size: Smallest height and width that it takes, in pixels.
        parameters: Weights without the classifier on top, a number.
        features: Length of its features after average pooling.
        cut: Name of a good layer to cut at: its last map of features that has a name of its own.
    """

    name: str
    module: str
    default_size: int
    smallest_size: int
    parameters: int
    features: int
    cut: str

    @property
    def constructor(self) -> Callable[..., keras.Model]:
        """The function of `keras.applications` that builds it."""
        import keras

        try:
            constructor: Callable[..., Any] = getattr(keras.applications, self.name)
            return constructor
        except AttributeError:
            raise ParameterError(f"`backbone` is {self.name!r}, which Keras {keras.__version__} has not.") from None

    @property
    def preprocess_input(self) -> Callable[..., Any]:
        """Its module's preprocessing of pictures from 0 to 255; some have it inside, and this changes nothing."""
        module: Any = importlib.import_module(f"keras.applications.{self.module}")
        preprocess: Callable[..., Any] = module.preprocess_input
        return preprocess


_TABLE = """
ConvNeXtBase       convnext            224 32  87566464 1024 convnext_base_stage_3_block_2_identity
ConvNeXtLarge      convnext            224 32 196230336 1536 convnext_large_stage_3_block_2_identity
ConvNeXtSmall      convnext            224 32  49454688  768 convnext_small_stage_3_block_2_identity
ConvNeXtTiny       convnext            224 32  27820128  768 convnext_tiny_stage_3_block_2_identity
ConvNeXtXLarge     convnext            224 32 348147968 2048 convnext_xlarge_stage_3_block_2_identity
DenseNet121        densenet            224 32   7037504 1024 relu
DenseNet169        densenet            224 32  12642880 1664 relu
DenseNet201        densenet            224 32  18321984 1920 relu
EfficientNetB0     efficientnet        224 32   4049571 1280 top_activation
EfficientNetB1     efficientnet        240 32   6575239 1280 top_activation
EfficientNetB2     efficientnet        260 32   7768569 1408 top_activation
EfficientNetB3     efficientnet        300 32  10783535 1536 top_activation
EfficientNetB4     efficientnet        380 32  17673823 1792 top_activation
EfficientNetB5     efficientnet        456 32  28513527 2048 top_activation
EfficientNetB6     efficientnet        528 32  40960143 2304 top_activation
EfficientNetB7     efficientnet        600 32  64097687 2560 top_activation
EfficientNetV2B0   efficientnet_v2     224 32   5919312 1280 top_activation
EfficientNetV2B1   efficientnet_v2     240 32   6931124 1280 top_activation
EfficientNetV2B2   efficientnet_v2     260 32   8769374 1408 top_activation
EfficientNetV2B3   efficientnet_v2     300 32  12930622 1536 top_activation
EfficientNetV2L    efficientnet_v2     480 32 117746848 1280 top_activation
EfficientNetV2M    efficientnet_v2     480 32  53150388 1280 top_activation
EfficientNetV2S    efficientnet_v2     384 32  20331360 1280 top_activation
InceptionResNetV2  inception_resnet_v2 299 75  54336736 1536 conv_7b_ac
InceptionV3        inception_v3        299 75  21802784 2048 mixed10
MobileNet          mobilenet           224 32   3228864 1024 conv_pw_13_relu
MobileNetV2        mobilenet_v2        224 32   2257984 1280 block_13_expand_relu
MobileNetV3Large   mobilenet_v3        224 32   2996352  960 conv_1_bn
MobileNetV3Small   mobilenet_v3        224 32    939120  576 conv_1_bn
NASNetLarge        nasnet              331 32  84916818 4032 normal_concat_18
NASNetMobile       nasnet              224 32   4269716 1056 normal_concat_12
ResNet101          resnet              224 32  42658176 2048 conv5_block3_out
ResNet101V2        resnet_v2           224 32  42626560 2048 post_relu
ResNet152          resnet              224 32  58370944 2048 conv5_block3_out
ResNet152V2        resnet_v2           224 32  58331648 2048 post_relu
ResNet50           resnet              224 32  23587712 2048 conv5_block3_out
ResNet50V2         resnet_v2           224 32  23564800 2048 post_relu
VGG16              vgg16               224 32  14714688  512 block5_pool
VGG19              vgg19               224 32  20024384  512 block5_pool
Xception           xception            299 71  20861480 2048 block14_sepconv2_act
"""


def _backbone(line: str) -> Backbone:
    name, module, default, smallest, parameters, features, cut = line.split()
    return Backbone(name, module, int(default), int(smallest), int(parameters), int(features), cut)


_BACKBONES = {backbone.name: backbone for backbone in map(_backbone, _TABLE.strip().splitlines())}


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of the pretrained networks, sorted.

    Example:

    >>> list_backbones("*Mobile*")[:2]
    ['MobileNet', 'MobileNetV2']

    Args:
        pattern: What the names look like, with `*` for anything; capitals make no difference. Defaults to `"*"`.

    Returns:
        Names for `get` and for the `backbone` argument of the estimators.
    """
    return sorted(name for name in _BACKBONES if fnmatch.fnmatchcase(name.lower(), pattern.lower()))


def get(backbone: str | Backbone) -> Backbone:
    """Finds a pretrained network by name.

    Raises:
        ParameterError: No network has that name; the message has the near miss.
    """
    if isinstance(backbone, Backbone):
        return backbone
    found = _BACKBONES.get(backbone) if isinstance(backbone, str) else None
    if found is None:
        close = did_you_mean(backbone, _BACKBONES)
        raise ParameterError(
            f"`backbone` is {backbone!r}, which is not a network of keras.applications.{close} "
            'kerastoolkit.transfer.list_backbones("*Mobile*") lists those of a kind.'
        )
    return found


# -- weights --------------------------------------------------------------------------------------------------------


def load_weights(model: keras.Model, path: str | Path, *, name: str | None = None) -> None:
    """Loads the weights of every layer of a model from a file that may hold more than the model.

    Layers are found by name, those that Keras named (`conv2d_5`) by their place among their kind, so that a file with a
    classifier on top fits a network without one.

    Of a `.keras` file nothing but the weights is read, so that none of its layers is made. HDF5 has no checksums: a
    number that was changed on the way is not noticed as long as it is finite.

    Args:
        model: A built model; its own layers are looked at, not those of models inside it.
        path: A `.weights.h5` or `.keras` file, or an `.h5` file of older Keras, as Keras downloads them.
        name: What the message calls the model. Defaults to the name of the model.

    Raises:
        ParameterError: There is no such file, it is damaged or more than plain arrays, it holds no weights, or layers
            of the model are not in it as they are, with finite numbers; the message names the layers. Nothing is
            loaded then.
    """
    _assign(model, _stored_weights(Path(path)), f"`weights` is {str(path)!r}", name or model.name)


def _assign(model: keras.Model, stored: Mapping[str, list[Any]], source: str, name: str) -> None:
    """Puts arrays into layers, all or none."""
    wanted = [layer for layer in model.layers if layer.weights]
    found = _found_layers([layer.name for layer in wanted], stored)
    problems, values = [], []
    for layer in wanted:
        arrays = stored.get(found.get(layer.name, ""))
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if arrays is None:
            problems.append(f"{layer.name}: not in the file")
        elif [array.shape for array in arrays] != shapes:
            there = ", ".join(str(array.shape) for array in arrays) or "no weights"
            problems.append(f"{layer.name}: the file holds {there}, the layer takes {', '.join(map(str, shapes))}")
        elif not all(np.isfinite(array).all() for array in arrays):
            problems.append(f"{layer.name}: the file holds NaN or infinite numbers")
        else:
            values += list(zip(layer.weights, arrays, strict=True))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        hint = " The file is of another network." if len(problems) == len(wanted) else ""
        raise ParameterError(
            f"{source}, of which {len(problems)} of the {len(wanted)} layers with weights of {name} did not match."
            f"{hint}\n  " + "\n  ".join(problems[:10]) + more
        )
    for variable, array in values:
        variable.assign(array)
    for layer in wanted:
        if hasattr(layer, "finalize_state"):  # Normalization keeps a second copy of its weights
            layer.finalize_state()


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of one extractor into another of the same backbone, which may have more layers."""
    _assign(target, {layer.name: layer.get_weights() for layer in source.layers}, "`source`", source.name)


def _stored_weights(path: Path) -> dict[str, list[Any]]:
    """Arrays of a file by the name of their layer."""
    import h5py

    if not os.path.isfile(path):
        raise ParameterError(f"`weights` is {str(path)!r}, but there is no such file.")
    try:
        is_archive = zipfile.is_zipfile(path)
        with io.BytesIO(_member(path, "model.weights.h5")) if is_archive else open(path, "rb") as opened:
            check_plain(opened, most_bytes=_MOST_WEIGHTS)
            with h5py.File(opened, "r") as file:
                stored = _arrays_by_layer(file, opened)
    except Exception as error:  # of a damaged file h5py and zipfile say nearly anything, RuntimeError among it
        raise ParameterError(
            f"`weights` is {str(path)!r}, which is not a .weights.h5 or .keras file that can be read ({error})."
        ) from error
    if not stored:
        raise ParameterError(
            f"`weights` is {str(path)!r}, which holds no weights by the name of their layers. Load it with the Keras "
            "that wrote it, and save it again by model.save_weights('name.weights.h5')."
        )
    return stored


def _member(path: Path, name: str) -> bytes:
    """A file of an archive; Keras stores them as they are, so that no archive holds more than its own size."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
            raise SavedFileError(f"{name} is compressed in it, which Keras does not do")
        return archive.read(member)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _arrays_by_layer(file: Any, opened: BinaryIO) -> dict[str, list[Any]]:
    """Arrays by the name of their layer; `file` is what h5py makes of the plain file `opened`."""
    left = opened.seek(0, os.SEEK_END)

    def array(group: Any, name: str) -> Any:
        nonlocal left
        found = group[name]
        left -= found.nbytes
        if left < 0:  # a list of names may have the same one many times
            raise SavedFileError("it has arrays under two names")
        numbers = np.asarray(found[()])
        if numbers.dtype.kind == "V" and found.attrs.get("dtype") == "bfloat16":  # the upper half of a float32
            numbers = (numbers.view("<u2").astype("<u4") << 16).view("<f4")
        if numbers.dtype.kind not in "fiub":
            raise SavedFileError(f"{found.name} has numbers of the type {numbers.dtype}")
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)

    if "layer_names" not in file.attrs and "model_weights" in file:
        file = file["model_weights"]
    is_old = "layer_names" in file.attrs  # Keras 2
    longest = longest_text(opened) if is_old else 0
    stored: dict[str, list[Any]] = {}

    def visit(place: str, group: Any) -> None:
        if is_old and "weight_names" in group.attrs and place != "top_level_model_weights":
            if math.prod(group.attrs.get_id("weight_names").shape) * longest > _MOST_NAMES:
                raise SavedFileError(f"the names of the weights of {place} may take all memory")
            stored[place] = [array(group, _text(name)) for name in group.attrs["weight_names"]]
        elif place.rpartition("/")[2] == "vars" and "name" in group.attrs and len(group) and "optimizer" not in place:
            stored[_text(group.attrs["name"])] = [array(group, key) for key in sorted(group, key=int)]

    file.visititems(visit)
    return stored


_NUMBERED = re.compile(
    r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|layer_normalization|normalization|dense)(_\d+)?"
)


def _found_layers(names: Sequence[str], stored: Mapping[str, Any]) -> dict[str, str]:
    """Which layer of a file each layer of a model is."""
    found = {name: name for name in names if name in stored and not _NUMBERED.fullmatch(name)}
    kinds: dict[str, tuple[list[str], list[str]]] = {}
    for place, several in enumerate((names, stored)):
        for name in several:
            match = _NUMBERED.fullmatch(name)
            if match and stored.get(name, True):
                kinds.setdefault(match[1], ([], []))[place].append(name)
    for own, theirs in kinds.values():
        found |= dict(zip(sorted(own, key=_number), sorted(theirs, key=_number), strict=False))
    return found


def _number(name: str) -> int:
    end = name.rpartition("_")[2]
    return int(end) if end.isdigit() else 0


def _load(backbone: Backbone, weights: str | Path | None, network: keras.Model) -> None:
    if weights is None:
        return
    if weights != "imagenet":
        load_weights(network, weights, name=backbone.name)
        return
    try:
        shape = (backbone.default_size, backbone.default_size, 3)
        trained = backbone.constructor(weights="imagenet", include_top=False, input_shape=shape, pooling="avg")
    except Exception as error:  # whatever Keras, the network or the disk say
        raise ParameterError(
            f"The ImageNet weights of {backbone.name} could not be downloaded: {error}\nTwo ways out: on a machine "
            f"with internet run keras.applications.{backbone.name}(include_top=False).save_weights"
            f"('{backbone.name}.weights.h5'), bring the file here and give weights='{backbone.name}.weights.h5'; or "
            "give weights=None, to start from random weights."
        ) from error
    _assign(
        network, {layer.name: layer.get_weights() for layer in trained.layers}, "`weights` are Keras'", backbone.name
    )


# -- from pictures to features --------------------------------------------------------------------------------------


def feature_extractor(
    backbone: str | Backbone,
    weights: str | Path | None = "imagenet",
    *,
    input_size: int | None = None,
    channels: int = 3,
    layer: str | None = None,
    augment: Sequence[keras.layers.Layer] = (),
    seed: int | None = None,
) -> keras.Model:
    """Builds a pretrained network that takes pictures as they are and puts out their features.

    Example:

    >>> feature_extractor("MobileNetV2", weights=None, input_size=64).output_shape
    (None, 1280)

    Args:
        backbone: Name of the network; see `list_backbones`.
        weights: `"imagenet"`, which Keras downloads; a `.weights.h5`, `.keras` or `.h5` file; or `None` for random
            weights. Defaults to `"imagenet"`.
        input_size: Height and width to which pictures are resized, in pixels. Defaults to `None`: those that the
            network was trained on.
        channels: 3 for colour pictures, 1 for grey ones. Defaults to `3`.
        layer: Name of the layer whose output is averaged over the picture. Defaults to `None`: the last.
        augment: Keras layers that change pictures while training, between resizing and preprocessing. Defaults to
            none.
        seed: Seed of random weights. Defaults to `None`: drawn from the generators of the process.

    Returns:
        An uncompiled model: input `(batch, height, width, channels)` of any height and width, 0 to 255, output
        `(batch, features)`. Its layers are those of the network, by their own names.

    Raises:
        ParameterError: The name is unknown, the size too small, the layer not there, or the weights cannot be had or
            do not fit; the message says which.
    """
    import keras

    known = get(backbone)
    size = check_size(known, input_size)
    with isolated(seed):
        pictures = keras.Input((None, None, channels), name="pictures")
        x: Any = pictures if channels == 3 else keras.layers.Concatenate(name="grey_to_rgb")([pictures] * 3)
        # Not the layer Resizing: in a plain call of a model it puts all layers after it into the mode of training.
        x = keras.ops.image.resize(x, (size, size), antialias=True)
        for change in augment:
            x = change(x)
        x = known.preprocess_input(x)
        network = known.constructor(weights=None, include_top=False, input_tensor=x, pooling="avg")
        output = network.output
        if layer is not None:
            names = [one.name for one in network.layers]
            if layer not in names:
                raise ParameterError(f"`layer` is {layer!r}, which {known.name} has not.{did_you_mean(layer, names)}")
            output = _pooled(network.get_layer(layer).output)
        model = keras.Model(pictures, output, name=known.name)
        _load(known, weights, model)
    return model


def check_size(backbone: Backbone, input_size: int | None) -> int:
    """The size to which pictures are resized, in pixels.

    Raises:
        ParameterError: It is no whole number, or smaller than the network takes.
    """
    size = backbone.default_size if input_size is None else input_size
    if not is_whole(size) or size < backbone.smallest_size:
        raise ParameterError(
            f"`input_size` must be a whole number of at least {backbone.smallest_size} pixels for {backbone.name}; got "
            f"{size!r}. Smaller pictures are enlarged to it."
        )
    return int(size)


def _pooled(x: Any) -> Any:
    import keras

    pooling = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
    return pooling[len(x.shape)]()(x) if len(x.shape) in pooling else x


class Extractor:
    """A frozen network and the features that it gives, each picture computed once.

    Example:

    >>> extractor = Extractor(feature_extractor("MobileNetV2", weights=None, input_size=64))
    >>> extractor.features(pictures, cache="features").shape
    (100, 1280)

    Args:
        model: A model from pictures to features; its weights are not changed from now on.

    Attributes:
        model: That model.
        key: What the features hang on beside the pictures, as a text: weights, layers, Keras and its backend.
        n_run: Pictures that have gone through the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.key = _content_of(model)
        self.n_run = 0

    def features(self, pictures: Any, cache: bool | str | Path = True) -> Any:
        """Features of pictures, computed or found.

        Args:
            pictures: Shape `(n, height, width, channels)`, 0 to 255.
            cache: Where features are kept: `True` for the user's folder of caches, a folder, in which they get one of
                their own (see `FeatureCache`), or `False` to compute anew each time. Defaults to `True`.

        Returns:
            Shape `(n, features)`, float32.
        """
        if cache is False or self._length is None:
            return self._run(pictures)
        keys = [_content_of_picture(picture) for picture in pictures]
        recent = self.key, hashlib.blake2b(b"".join(keys)).digest()
        found = _RECENT.find(recent)
        if found is None:
            found = self._found(pictures, keys, FeatureCache(None if cache is True else cache))
            _RECENT.keep(recent, found)
        return found

    @property
    def _length(self) -> int | None:
        """Numbers of a picture; None where the model says nothing of it, or gives more than a row of numbers."""
        shape = getattr(self.model, "output_shape", None)
        return shape[1] if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], int) else None

    def _found(self, pictures: Any, keys: list[bytes], cache: FeatureCache) -> Any:
        known = cache.read(self.key, set(keys), length=self._length)
        missing = {key: place for place, key in enumerate(keys) if key not in known}
        for start in range(0, len(missing), _CHUNK):
            chunk = list(missing.items())[start : start + _CHUNK]
            fresh = dict(zip([key for key, _ in chunk], self._run(pictures[[at for _, at in chunk]]), strict=True))
            cache.write(self.key, fresh)
            known |= fresh
        return np.stack([known[key] for key in keys])

    def _run(self, pictures: Any) -> Any:
        self.n_run += len(pictures)
        filled = np.concatenate([pictures, np.repeat(pictures[:1], -len(pictures) % _BATCH, axis=0)])
        return np.asarray(self.model.predict(filled, batch_size=_BATCH, verbose=0), "float32")[: len(pictures)]


def _content_of_picture(picture: Any) -> bytes:
    picture = np.ascontiguousarray(picture)
    return hashlib.blake2b(picture.tobytes() + f"{picture.dtype.str}{picture.shape}".encode(), digest_size=16).digest()


def _content_of(model: keras.Model) -> str:
    """A digest of all that the output of a model hangs on."""
    import keras

    # Numbers that Keras gives to layers of a kind count up through a process.
    form = re.sub(r'_\d+"', '"', model.to_json())
    parts = [form, keras.__version__, keras.config.backend(), keras.config.floatx()]
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=16)
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


# Features of whole arrays that were asked for last, in memory: the folds of a search come again and again.
_RECENT: Cache[Any, Any] = Cache(256 * 2**20, size_of=lambda features: int(features.nbytes))


class FeatureCache:
    """Features on disk, one database of SQLite for each network, safe for several processes at once.

    A batch of features is written as one transaction: who is killed leaves what was complete. When the files together
    take more than `size`, those that were not used for longest are deleted.

    The files have a folder of their own, which is private to the user, as they are. No other file is read, counted or
    deleted, whatever its name: each of ours is marked inside. What is not as it was left (another length, other bytes,
    numbers that are not finite) is computed anew and replaced, and a warning says so.

    Example:

    >>> FeatureCache("project").folder.name
    'kerastoolkit-features'

    Args:
        folder: Where the folder `kerastoolkit-features` with the files is; made when first written to. Defaults to
            `None`: the files are in `kerastoolkit/features` in the user's folder of caches (`$XDG_CACHE_HOME` or
            `~/.cache`; `~/Library/Caches` on a Mac; `%LOCALAPPDATA%` on Windows).
        size: Most bytes on disk. Defaults to `2 * 2**30`, about 400,000 pictures of MobileNetV2.

    Attributes:
        folder: The folder of the files.
    """

    def __init__(self, folder: str | Path | None = None, *, size: int = 2 * 2**30) -> None:
        self.folder = _user_folder() if folder is None else Path(folder) / "kerastoolkit-features"
        self.size = size

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return sum(map(_bytes_of, self._files()))

    def read(self, key: str, pictures: set[bytes], *, length: int | None = None) -> dict[bytes, Any]:
        """Features that are there, by the content of their picture.

        Args:
            key: `Extractor.key`.
            pictures: Contents of the pictures.
            length: How many features each must have. Defaults to `None`: any number.

        Returns:
            Arrays of shape `(features,)`, float32, finite.
        """
        path, found, n_spoilt = self._path(key), dict[bytes, Any](), 0
        wanted = list(pictures)
        with self._careful(path, "read"):
            if not self._is_private(path):
                return {}
            with closing(self._open(path)) as database:
                for start in range(0, len(wanted) if has_table(database, "features", _FEATURES) else 0, 500):
                    some = wanted[start : start + 500]
                    marks = ",".join("?" * len(some))
                    for row in database.execute(f"SELECT * FROM features WHERE picture IN ({marks})", some):
                        features = _checked_row(key, row, length)
                        if features is None:
                            n_spoilt += 1
                        else:
                            found[row[0]] = features
            with suppress(FileNotFoundError):  # another process has deleted it since
                os.utime(path)
        if n_spoilt:
            warnings.warn(
                f"{n_spoilt} of {len(wanted)} rows of features in {str(path)!r} are not as they were written. They are "
                "computed anew and replaced.",
                KerasToolkitWarning,
                stacklevel=2,
            )
        return found

    def write(self, key: str, features: Mapping[bytes, Any]) -> None:
        """Keeps features; a disk that cannot be written to is a warning, since they are computed anyway.

        Args:
            key: `Extractor.key`.
            features: Arrays of shape `(features,)` by the content of their picture. Those with NaN or infinite numbers
                are not kept.
        """
        path = self._path(key)
        arrays = {picture: np.asarray(row, "float32") for picture, row in features.items()}
        rows = [(picture, row.tobytes()) for picture, row in arrays.items() if np.isfinite(row).all()]
        with self._careful(path, "written"):
            self._make_private(path)
            with closing(self._open(path)) as database:
                # At once: another process must not begin to write between what is read here and what is written.
                database.execute("BEGIN IMMEDIATE")
                if not has_table(database, "features", _FEATURES):
                    database.execute(_FEATURES)
                    database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.executemany(
                    "INSERT OR REPLACE INTO features VALUES (?, ?, ?)",
                    [(picture, row, _digest_of_row(key, picture, row)) for picture, row in rows],
                )
                database.execute("COMMIT")
            self._keep_within_size(path)

    def clear(self) -> None:
        """Deletes all features of the folder."""
        for path in self._files():
            _delete(path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.sqlite"

    def _files(self) -> list[Path]:
        """Those of the folder that are ours by their name and by what is written in them."""
        files: list[Path] = []
        with self._careful(self.folder, "found"):
            if os.path.lexists(self.folder):
                _check_ours(self.folder, stat.S_ISDIR)
                names = filter(_FILE.fullmatch, sorted(os.listdir(self.folder)))
                files = [self.folder / name for name in names if _is_ours(self.folder / name)]
        return files

    def _is_private(self, path: Path) -> bool:
        """Whether there is a file of ours of that name.

        Raises:
            OSError: It is somebody else's, or its folder is.
        """
        if not os.path.lexists(path):
            return False
        _check_ours(self.folder, stat.S_ISDIR)
        if _check_ours(path, stat.S_ISREG) and application_of(path) != _APPLICATION:
            raise PermissionError("it is not a file of features, or its beginning is damaged")
        return True

    def _make_private(self, path: Path) -> None:
        """Sees to it that there is a file of ours of that name, perhaps an empty one."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        _check_ours(self.folder, stat.S_ISDIR)
        with suppress(FileExistsError):  # SQLite would make one that everybody may read
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._is_private(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        return connect(path, seconds=60, most_bytes=2**24)

    @contextmanager
    def _careful(self, path: Path, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            warnings.warn(
                f"Features in {str(path)!r} cannot be {what} ({error}); they are computed instead. Give another folder "
                "as `cache`, or cache=False, or delete the file if it is of no use to you.",
                KerasToolkitWarning,
                stacklevel=2,
            )

    def _keep_within_size(self, latest: Path) -> None:
        files = sorted(self._files(), key=lambda path: (path == latest, path.stat().st_mtime))
        too_much = sum(map(_bytes_of, files)) - self.size
        for path in files:
            if too_much <= 0:
                break
            too_much -= _bytes_of(path)
            _delete(path)


_APPLICATION = int.from_bytes(b"ktkf", "big")
_FILE = re.compile(r"[0-9a-f]{32}\.sqlite")
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite has beside a file that is written, or was when it was killed

_FEATURES = "CREATE TABLE features (picture BLOB PRIMARY KEY, features BLOB NOT NULL, digest BLOB NOT NULL)"


def _digest_of_row(key: str, picture: bytes, features: bytes) -> bytes:
    # It finds damage, and rows that were put under another picture. It does not find what somebody wrote who may write
    # to the file and can compute a digest as well as we can: against that the folder is private.
    parts = [key.encode(), picture, features]
    content = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.blake2b(content, digest_size=16).digest()


def _checked_row(key: str, row: tuple[Any, ...], length: int | None) -> Any:
    """The features of a row; None if they are not as they were written."""
    if not all(isinstance(part, bytes) for part in row) or _digest_of_row(key, row[0], row[1]) != row[2]:
        return None
    if len(row[1]) % 4 or length not in (None, len(row[1]) // 4):
        return None
    features = np.frombuffer(row[1], "float32")
    return features if np.isfinite(features).all() else None


def _check_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Makes a folder or a file private to the user.

    Returns:
        False for a file that is empty, as one is that was just made.

    Raises:
        OSError: It is another user's, or a link, or of another kind.
    """
    found = os.lstat(path)
    if not is_kind(found.st_mode):
        raise PermissionError(f"{str(path)!r} is a link, or of another kind")
    if hasattr(os, "getuid"):  # on Windows what is in the folder of a user is private already
        if found.st_uid != os.getuid():
            raise PermissionError(f"{str(path)!r} belongs to another user")
        if found.st_mode & 0o077:
            os.chmod(path, found.st_mode & 0o700)
    return found.st_size > 0


def _is_ours(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and application_of(path) == _APPLICATION
    except OSError:  # deleted meanwhile, or nothing that we may read
        return False


def _bytes_of(path: Path) -> int:
    total = 0
    for beside in ("", *_BESIDE):
        with suppress(OSError):  # there is none, or another process deleted it meanwhile
            total += os.lstat(f"{path}{beside}").st_size
    return total


def _delete(path: Path) -> None:
    # The file last: without it, what is beside it would be taken for a part of the next one of its name.
    for beside in (*_BESIDE, ""):
        with suppress(OSError):  # there is none; on Windows, another process reads it
            os.unlink(f"{path}{beside}")


def _user_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kerastoolkit" / "features"


# -- fine-tuning ----------------------------------------------------------------------------------------------------


def unfreeze(
    layers: Sequence[keras.layers.Layer],
    amount: int | float | str = 1.0,
    *,
    batch_norm: Literal["inference", "training"] = "inference",
) -> list[keras.layers.Layer]:
    """Lets the upper layers of a network train, and freezes all others.

    Example:

    >>> model = feature_extractor("MobileNetV2", weights=None, input_size=64)
    >>> unfreeze(model.layers, "block_16")[0].name
    'block_16_expand'

    Args:
        layers: Layers from the bottom to the top, such as `model.layers`.
        amount: How many: a whole number of layers, a fraction of them, or the name of the lowest layer or block to
            train. Defaults to `1.0`: all.
        batch_norm: `"inference"` keeps the statistics of BatchNormalization and its weights as they are; `"training"`
            lets those of the unfrozen layers follow the new data, with a momentum of at most 0.9: call
            `update_batch_norm` when the training is over. Defaults to `"inference"`.

    Returns:
        The layers with weights that train now, from the bottom to the top.

    Raises:
        ParameterError: `amount` is none of the three, or no layer has that name.
    """
    import keras

    first = first_unfrozen([layer.name for layer in layers], amount)
    if batch_norm not in ("inference", "training"):
        raise ParameterError(f"`batch_norm` must be 'inference' or 'training'; got {batch_norm!r}.")
    for place, layer in enumerate(layers):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place >= first and not (normalizes and batch_norm == "inference")
        if normalizes and layer.trainable:
            # At the 0.999 of many networks the statistics would follow thousands of steps behind the weights.
            layer.momentum = min(layer.momentum, 0.9)
    return [layer for layer in layers if layer.trainable_weights]


def update_batch_norm(model: keras.Model, X: Any, *, batch_size: int = 32, most: int = 2048) -> None:
    """Computes the statistics of BatchNormalization anew, for the weights as they are now.

    While a network trains, the means and variances that it will predict with are running averages: each step changes
    the weights, so that most of an average is about weights that are gone. With a large learning rate that is enough to
    make a good network predict badly after one epoch and well after the next. Here they are the averages over batches
    of training rows with the final weights ("precise" batch normalization: Wu and Johnson, "Rethinking 'Batch' in
    BatchNorm", 2021, arXiv:2105.07576). `ImageClassifier` and `ImageRegressor` do this at the end of `fit`.

    Layers that are frozen (`trainable=False`) keep theirs. All other layers work as while training: pictures are
    augmented, units dropped.

    Example:

    >>> model.fit(X, y, epochs=5)
    >>> update_batch_norm(model, X)

    Args:
        model: A trained model with one input.
        X: Rows that it was trained on, shape `(n, ...)`.
        batch_size: Rows of a batch; best as many as in training. Defaults to `32`.
        most: Rows at most; so many are drawn from `X`, always the same ones. Defaults to `2048`.
    """
    import keras

    layers = [layer for layer in _layers_of(model) if isinstance(layer, keras.layers.BatchNormalization)]
    layers = [layer for layer in layers if layer.trainable]
    momenta = [layer.momentum for layer in layers]
    n_rows = len(X) if layers else 0
    chosen = np.random.default_rng(0).permutation(n_rows)[:most]
    try:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            for layer in layers:
                layer.momentum = start / (start + len(batch))  # so that the running average is the plain one
            model(np.asarray(X[batch], "float32"), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Layers of a model and of the models inside it."""
    for layer in model.layers:
        yield from _layers_of(layer) if _has_graph(layer) else [layer]


def first_unfrozen(names: Sequence[str], amount: Any) -> int:
    """The place of the lowest layer that `unfreeze` would let train.

    Raises:
        ParameterError: As `unfreeze`.
    """
    amount = amount.item() if isinstance(amount, np.generic) else amount
    if isinstance(amount, str):
        found = [place for place, name in enumerate(names) if name == amount or name.startswith(amount + "_")]
        if not found:
            raise ParameterError(
                f"`unfreeze` is {amount!r}, but no layer or block is called so.{did_you_mean(amount, names)}"
            )
        return found[0]
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount:
        return max(len(names) - amount, 0)
    if isinstance(amount, float) and 0.0 <= amount <= 1.0:
        return len(names) - round(len(names) * amount)
    raise ParameterError(
        f"`unfreeze` must be a whole number of layers, a fraction of them from 0.0 to 1.0, or the name of a layer or "
        f"block; got {amount!r}."
    )


def check_rates(learning_rate: float, bottom_rate: float) -> None:
    """Refuses rates that `optimizer_by_depth` would refuse.

    Raises:
        ParameterError: A rate is out of range, or this Keras has no `MultiOptimizer`.
    """
    import keras

    if not learning_rate > 0:
        raise ParameterError(f"`learning_rate` must be greater than 0; got {learning_rate!r}.")
    if not 0 < bottom_rate <= 1:
        raise ParameterError(f"`bottom_rate` must be a fraction greater than 0, up to 1; got {bottom_rate!r}.")
    if bottom_rate < 1 and not hasattr(keras.optimizers, "MultiOptimizer"):
        raise ParameterError(
            f"Keras {keras.__version__} has no MultiOptimizer, which learning rates by depth need. Upgrade it (pip "
            "install --upgrade keras), or give bottom_rate=1 for one rate."
        )


_RATES = 5  # as many learning rates as there are layers would mean as many optimizers


def optimizer_by_depth(
    optimizer: keras.optimizers.Optimizer,
    layers: Sequence[keras.layers.Layer],
    learning_rate: float,
    bottom_rate: float = 0.01,
) -> keras.optimizers.Optimizer:
    """An optimizer whose learning rate falls towards the bottom of a network.

    The layers are divided into five groups of about the same number of layers; the rates of the groups are spaced
    geometrically (Howard and Ruder, "Universal language model fine-tuning", 2018). Weights of no layer named here, as
    those of the head, have the full rate.

    Args:
        optimizer: The kind of optimizer, with all but the rate as it should be.
        layers: Built layers that train, from the bottom to the top, as `unfreeze` returns them.
        learning_rate: Rate of the head.
        bottom_rate: Rate of the lowest group as a fraction of that of the head; 1 for one rate. Defaults to `0.01`.

    Returns:
        A `keras.optimizers.MultiOptimizer`, or for one rate an optimizer of the kind given.

    Raises:
        ParameterError: A rate is out of range, or this Keras has no `MultiOptimizer`.
    """
    import keras

    check_rates(learning_rate, bottom_rate)

    def with_rate(rate: float) -> Any:
        return copied(optimizer, {"learning_rate": rate}, "optimizer")

    if bottom_rate == 1 or not layers:
        return with_rate(learning_rate)
    groups = np.array_split(np.asarray(layers, dtype=object), min(_RATES, len(layers)))
    factors = np.geomspace(bottom_rate, 1.0, len(groups) + 1)[:-1]
    # By names, not by a function: the file of a compiled model holds names.
    rates = {
        "|".join(re.escape(weight.path) for layer in group for weight in layer.trainable_weights): with_rate(
            float(learning_rate * factor)
        )
        for group, factor in zip(groups, factors, strict=True)
    }
    rest = with_rate(float(learning_rate))
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, rates))


# -- nets from nets -------------------------------------------------------------------------------------------------


@overload
def derive(source: Any, head: None = None, layer: str | None = None, *, frozen: bool = True) -> _Derived: ...
@overload
def derive(source: Any, head: Head | HeadGroup, layer: str | None = None, *, frozen: bool = True) -> keras.Model: ...
def derive(source: Any, head: Any = None, layer: str | None = None, *, frozen: bool = True) -> Any:
    """Starts a new network from one that is trained: cuts it at a layer and puts a new end on it.

    Example:

    >>> cats = KerasClassifier(hidden=(64, 32)).fit(X, y)
    >>> dogs = KerasClassifier(derive(cats), epochs=20).fit(other_X, other_y)  # the end follows from other_y
    >>> model = derive(cats, Head.multiclass(5), layer="dense_1")  # a keras.Model, not compiled

    Args:
        source: A fitted estimator of kerastoolkit, or a built Sequential or functional `keras.Model`. It is not
            changed: the new network has copies of its layers.
        head: The new end, from `builders.head(y)` or `Head.binary()` and its kin. Defaults to `None`: a function that
            builds the network for the target at hand, as the `model` of an estimator, where `layer` and `frozen` are
            parameters that a search can set.
        layer: Name of the last layer to keep, also of one in a model inside the model. Maps of features are averaged.
            Defaults to `None`: all but the output layers.
        frozen: Whether the layers kept do not train. Defaults to `True`.

    Returns:
        An uncompiled `keras.Model` with the inputs of `source`, or a function that builds it.

    Raises:
        ParameterError: There is no such layer (the message has the near miss), the estimator is not fitted, or the
            model has no graph to cut.
    """
    derived = _Derived(_model_of(source), layer, frozen)
    return derived if head is None else derived(head)


class _Derived:
    """A function that builds networks from a trained one; made by `derive`.

    Args:
        source: The trained model.
        layer: As for `derive`.
        frozen: As for `derive`.
    """

    __name__ = "derive"  # by which messages know it

    def __init__(self, source: keras.Model, layer: str | None, frozen: bool) -> None:
        self._source, self._layer, self._frozen = source, layer, frozen
        _cut(source, layer)  # a wrong name is an error now

    def __call__(self, head: Head | HeadGroup, layer: str | None = None, frozen: bool | None = None) -> keras.Model:
        """Builds the network.

        Args:
            head: The end.
            layer: Name of the last layer to keep. Defaults to `None`: what was given to `derive`.
            frozen: Whether the layers kept do not train. Defaults to `None`: what was given to `derive`.

        Returns:
            An uncompiled model.

        Raises:
            ParameterError: As for `derive`.
        """
        import keras

        inputs, x = _cut(self._source, self._layer if layer is None else layer)
        trunk = keras.Model(inputs, x)
        if self._frozen if frozen is None else frozen:
            trunk.trainable = False
        x = _pooled(x)
        if isinstance(head, HeadGroup):
            return keras.Model(inputs, [made(x) for made in head.output_layers()])
        taken = {one.name for one in trunk.operations}
        name = next(name for name in ("head", *(f"head_{n}" for n in range(1, 1000))) if name not in taken)
        return keras.Model(inputs, head.output_layer(name)(x))

    def __deepcopy__(self, memo: Any) -> _Derived:
        return self  # nothing changes it, and a search makes many copies


def _model_of(source: Any) -> keras.Model:
    import keras

    if isinstance(source, keras.Model):
        model = source
    elif hasattr(type(source), "model_"):
        if getattr(source, "model_", None) is None:
            raise ParameterError(f"`source` is a {type(source).__name__} that is not fitted; fit it first.")
        model = source.model_
    else:
        raise ParameterError(
            f"`source` must be a fitted estimator of kerastoolkit or a keras.Model; got {type(source).__name__}."
        )
    if not _has_graph(model) or not model.built:
        raise ParameterError(
            f"`source` is a {type(model).__name__} whose layers are not a graph that could be cut. Give a built "
            "Sequential or functional model."
        )
    return model


def _has_graph(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations"))


class _Call(NamedTuple):
    """A layer at its place in a graph: what goes in, what comes out."""

    layer: Any
    argument: Any
    output: Any


def _cut(model: keras.Model, layer: str | None) -> tuple[Any, Any]:
    """Inputs and the tensor at which a copy of a model is cut; None for what goes into its output layer."""
    inputs, calls, output = _copied(model)
    if layer is None:
        call = _call_of(output, calls)
        if _has_graph(call.layer):
            return inputs, _part(call.layer, None)(call.argument)
        if isinstance(call.argument, (list, tuple, dict)):
            raise ParameterError(
                f"The output layer of {model.name}, {call.layer.name!r}, has several inputs; say by `layer` where to "
                "cut."
            )
        return inputs, call.argument
    for call in calls:
        if call.layer.name == layer:
            return inputs, call.output
    for call in calls:
        if _has_graph(call.layer) and layer in _names(call.layer):
            return inputs, _part(call.layer, layer)(call.argument)
    names = _names(model)
    raise ParameterError(
        f"`layer` is {layer!r}, which {model.name} has not.{did_you_mean(layer, names)} Its last layers are "
        f"{', '.join(names[-6:])}."
    )


def _call_of(output: Any, calls: Sequence[_Call]) -> _Call:
    """Where an output was computed, before an activation of its own."""
    import keras

    call = next(call for call in calls if any(one is output for one in keras.tree.flatten(call.output)))
    activation = isinstance(call.layer, (keras.layers.Activation, keras.layers.Softmax))
    return _call_of(call.argument, calls) if activation else call


def _part(model: keras.Model, layer: str | None) -> keras.Model:
    import keras

    return keras.Model(*_cut(model, layer), name=model.name)


def _names(model: keras.Model) -> list[str]:
    """Names of the layers, those of models inside it included."""
    return [name for layer in model.layers for name in [*(_names(layer) if _has_graph(layer) else []), layer.name]]


def _copied(model: keras.Model) -> tuple[Any, list[_Call], Any]:
    """Inputs, calls and first output of a copy of a model, with its weights."""
    import keras

    pairs: list[tuple[Any, Any]] = []
    calls: list[_Call] = []

    def copy_of(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation without a state
        copied = keras.models.clone_model(layer) if _has_graph(layer) else type(layer).from_config(layer.get_config())
        copied.trainable = layer.trainable
        pairs.append((layer, copied))
        return copied

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        calls.append(_Call(layer, args[0] if args else kwargs, output))
        return output

    if isinstance(model, keras.Sequential):
        inputs: Any = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype)
        output = inputs
        for layer in model.layers:
            output = call(copy_of(layer), output)
    else:
        copied = keras.models.clone_model(model, clone_function=copy_of, call_function=call)
        inputs, output = copied.input, copied.outputs[0]
    for layer, twin in pairs:
        twin.set_weights(layer.get_weights())
    return inputs, calls, output
