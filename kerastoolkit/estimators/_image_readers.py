"""Readers of images: files and folders as one array, and the features that a pretrained network makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from kerastoolkit import _files, transfer
from kerastoolkit._cache import Cache
from kerastoolkit.data.images import ImagesLike, read_images
from kerastoolkit.data.readers import Reader, checked_config, register_reader
from kerastoolkit.estimators._readers import EncodedReader
from kerastoolkit.exceptions import DataError, SavedFileError

if TYPE_CHECKING:
    import keras


@register_reader("image")
class ImageReader(Reader):
    """Reads arrays, files and folders of images as one array.

    Args:
        size: Height and width to which images are resized if they differ in size, in pixels.
        shape: Shape of an image in `fit`: height, width and channels.
    """

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        self.size, self.shape = size, shape

    @classmethod
    def learn(cls, X: ImagesLike, *, size: int) -> ImageReader:  # type: ignore[override]
        """Learns the shape of images; see `learn_and_encode`."""
        return cls.learn_and_encode(X, size=size)[0]

    @classmethod
    def learn_and_encode(cls, X: ImagesLike, *, size: int) -> tuple[ImageReader, Any]:  # type: ignore[override]
        """Reads images to learn from, and their shape.

        Args:
            X: Images, as `kerastoolkit.data.read_images` takes them.
            size: As for the class.
        """
        images = read_images(X, size, learning=True)
        return cls(size, tuple(images.shape[1:])), images

    def encode(self, X: ImagesLike, *, owner: BaseEstimator | None = None) -> Any:
        """Reads images; grey ones get the channels of those in `fit`.

        Args:
            X: Images, as `kerastoolkit.data.read_images` takes them.
            owner: The estimator that reads, for messages. Defaults to `None`.

        Raises:
            DataError: They are in colour, and those in `fit` were grey.
        """
        images = read_images(X, self.size, learning=False)
        channels = self.shape[-1]
        if images.shape[-1] > channels:
            name = "ImageReader" if owner is None else type(owner).__name__
            raise DataError(f"X has the shape {images.shape}, colour images, but {name} was fitted with grey ones.")
        return np.repeat(images, channels, axis=-1) if images.shape[-1] < channels else images

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of an image in `fit`."""
        return self.shape

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this reader again."""
        return {"size": self.size, "shape": self.shape}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageReader:
        """Makes a reader from what `get_config` returned.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        return cls(**checked_config(config, _OF_IMAGES, "What a file says of images"))


_OF_IMAGES = {
    "size": lambda value: _files.is_count(value) and value > 0,
    "shape": lambda value: isinstance(value, tuple) and len(value) == 3 and all(map(_files.is_count, value)),
}


@register_reader("image_features")
class ImageFeatures(EncodedReader):
    """Reads images as features of a network that is trained already, scaled to mean 0 and standard deviation 1.

    The network is no part of the config: it stands in the model that is saved, from which `divided` takes it.

    Args:
        reader: Reads the images.
        encoder: Makes features of them. Defaults to `None`, until `divided`.
    """

    reader: ImageReader
    encoder: BackboneFeatures

    def __init__(self, reader: ImageReader, encoder: BackboneFeatures | None = None) -> None:
        super().__init__(reader, encoder)

    def joined(self, model: keras.Model) -> keras.Model:
        """The whole network, from images as they are to the output."""
        return self.encoder.whole(model)

    def divided(self, model: keras.Model) -> tuple[ImageFeatures, keras.Model]:
        """The reader with the network in front, and the head behind it."""
        import keras

        *_, scaling, end = model.layers
        extractor = transfer.Extractor(keras.Model(model.inputs[0], scaling.input))
        # The model may be a stranger's, and Keras says nothing of a scale that fits no feature until it predicts.
        if {np.shape(scaling.scale), np.shape(scaling.offset)} != {extractor.model.output_shape[1:]}:
            raise SavedFileError("The features of its images and their scale do not go together.")
        arguments, cache = ({}, True) if self.encoder is None else (self.encoder.arguments, self.encoder.cache)
        encoder = BackboneFeatures(arguments, cache, extractor, scaling.scale, scaling.offset)
        return ImageFeatures(self.reader, encoder), end

    def cached_in(self, cache: bool | str | Path) -> ImageFeatures:
        """The same with features kept elsewhere."""
        old = self.encoder
        return ImageFeatures(
            self.reader, BackboneFeatures(old.arguments, cache, old.extractor, old.scale, old.offset)
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this reader again, beside the network."""
        return self.reader.get_config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageFeatures:
        """Makes a reader from what `get_config` returned; `divided` gives it the network.

        Raises:
            SavedFileError: It is not what `get_config` returns.
        """
        return cls(ImageReader.from_config(config))

    def __getstate__(self) -> dict[str, Any]:
        # The network is pickled as a part of the model; it is made anew from there.
        return {"reader": self.reader, "arguments": self.encoder.arguments, "cache": self.encoder.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["reader"], BackboneFeatures(state["arguments"], state["cache"]))  # type: ignore[misc]


class BackboneFeatures:
    """From images to scaled features, in the form of scikit-learn's transformers.

    Args:
        arguments: Of `transfer.feature_extractor`, which say which features; without the channels of the images.
        cache: Where features are kept, as `Extractor.features` has it. Defaults to `True`.
        extractor: The network that makes them. Defaults to `None`: it is found when fitted.
        scale: What features are multiplied by, one number each. Defaults to `None`: it is learned.
        offset: What is added then. Defaults to `None`: it is learned.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        cache: bool | str | Path = True,
        extractor: transfer.Extractor | None = None,
        scale: Any = None,
        offset: Any = None,
    ) -> None:
        self.arguments, self.cache = dict(arguments), cache
        self._composed: tuple[Any, Any] = (None, None)
        self._learned_from: tuple[Any, Any] = (None, None)
        self.extractor: transfer.Extractor = extractor  # type: ignore[assignment]  # until it is fitted
        self.scale, self.offset = scale, offset
        if scale is not None:
            self.scale, self.offset = np.asarray(scale, "float32"), np.asarray(offset, "float32")

    def fit(self, X: NDArray[Any]) -> BackboneFeatures:
        """Finds the network, and learns the scale of its features."""
        self.extractor = EXTRACTORS.find({**self.arguments, "channels": X.shape[-1]})
        features = self.extractor.features(X, self.cache)
        self._learned_from = X, features  # which the same fit will ask for
        mean, deviation = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64")
        scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
        self.scale, self.offset = scale.astype("float32"), (-mean * scale).astype("float32")
        return self

    def transform(self, X: NDArray[Any]) -> Any:
        """Scaled features, shape `(n, features)`."""
        known, features = self._learned_from
        self._learned_from = None, None
        features = features if known is X else self.extractor.features(X, self.cache)
        return features * self.scale + self.offset

    def composed(self, extractor: keras.Model, end: keras.Model) -> keras.Model:
        """The network from images to the output: its last layer is the head, the one before it the scaling."""
        import keras

        scaling = keras.layers.Rescaling(self.scale.tolist(), self.offset.tolist(), name="standardize")
        return keras.Model(extractor.inputs[0], end(scaling(extractor.output)), name=extractor.name)

    def whole(self, end: keras.Model) -> keras.Model:
        """The same with its own extractor, once for each head."""
        if self._composed[0] is not end:
            self._composed = end, self.composed(self.extractor.model, end)
        return self._composed[1]


class _Extractors:
    """The networks that were used last: all fits of a search share one."""

    def __init__(self, max_kept: int = 2) -> None:
        self._kept: Cache[Any, transfer.Extractor] = Cache(max_kept)

    def find(self, arguments: Mapping[str, Any]) -> transfer.Extractor:
        import keras

        weights = arguments["weights"]
        path = Path(weights) if weights not in (None, "imagenet") else None
        stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path is not None and path.exists() else None
        key = (*arguments.items(), stamp, keras.config.floatx(), keras.config.dtype_policy().name)
        return self._kept.find_or_make(key, lambda: transfer.Extractor(transfer.feature_extractor(**arguments)))


EXTRACTORS = _Extractors()
