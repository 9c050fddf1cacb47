"""From images to features: a pretrained network that takes images as they are, run once over each image.

`feature_extractor` builds a network that takes images from 0 to 255: resizing and preprocessing are inside, operation
by operation, so that nothing of it has to be remembered when predicting, and any Keras reads the saved file.
`Extractor` runs it, and keeps the features under the content of the image and of the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._cache import Cache
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training import isolated
from kerastoolkit.transfer._graphs import pooled
from kerastoolkit.transfer.cache import FeatureCache, Features
from kerastoolkit.transfer.weights import load_backbone_weights
from kerastoolkit.transfer.zoo import Backbone, check_size, get

if TYPE_CHECKING:
    import keras

__all__ = ["Extractor", "feature_extractor"]

# Images that go through a network at once. Always so many, filled up, so that the features of an image do not depend on
# the other images.
_BATCH = 32
_CHUNK = 1024  # images computed between two writes to the disk, so that an interrupted run resumes


def feature_extractor(
    backbone: str | Backbone,
    weights: str | Path | None = "imagenet",
    *,
    input_size: int | None = None,
    channels: int = 3,
    layer: str | None = None,
    augment: Sequence[keras.layers.Layer] = (),
    random_state: int | None = None,
) -> keras.Model:
    """Builds a pretrained network that takes images as they are and puts out their features.

    Example:

    >>> feature_extractor("MobileNetV2", weights=None, input_size=64).output_shape
    (None, 1280)

    Args:
        backbone: Name of the network; see `list_backbones`.
        weights: `"imagenet"`, which Keras downloads; a `.weights.h5`, `.keras` or `.h5` file; or `None` for random
            weights. Defaults to `"imagenet"`.
        input_size: Height and width to which images are resized, in pixels. Defaults to `None`: the size that the
            network was trained on.
        channels: `3` for colour images, `1` for grey ones. Defaults to `3`.
        layer: Name of the layer whose output is averaged over the image. Defaults to `None`: the last.
        augment: Keras layers that change images while training, between resizing and preprocessing. Defaults to
            none.
        random_state: Seed of random weights. Defaults to `None`: they are drawn from the generators of the process.

    Returns:
        An uncompiled model: input `(batch, height, width, channels)` of any height and width, 0 to 255, output
        `(batch, features)`. Its layers are those of the network, by their own names.

    Raises:
        ParameterError: The name is unknown, the size is too small, the network has no such layer, or the weights
            cannot be loaded or do not fit; the message says which.
    """
    import keras

    known = get(backbone)
    size = check_size(known, input_size)
    with isolated(random_state):
        images = keras.Input((None, None, channels), name="images")
        x: keras.KerasTensor = images if channels == 3 else keras.layers.Concatenate(name="grey_to_rgb")([images] * 3)
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
                raise ParameterError(
                    f"`layer` is {layer!r}, which is not a layer of {known.name}.{did_you_mean(layer, names)}"
                )
            output = pooled(network.get_layer(layer).output)
        model = keras.Model(images, output, name=known.name)
        load_backbone_weights(model, known, weights)
    return model


# Features of whole arrays that were asked for last, in memory: the folds of a search come again and again.
RECENT_FEATURES: Cache[tuple[str, bytes], Features] = Cache(256 * 2**20, size_of=lambda features: features.nbytes)


class Extractor:
    """A frozen network and its features, computed once for each image.

    Example:

    >>> extractor = Extractor(feature_extractor("MobileNetV2", weights=None, input_size=64))
    >>> extractor.features(images, cache="features").shape
    (100, 1280)

    Args:
        model: A model from images to features; its weights must not change from now on.

    Attributes:
        model: That model.
        key: A digest of all that the features depend on beside the images: weights, layers, Keras and its backend.
        n_computed: Number of images that have gone through the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.key = _digest_of_model(model)
        self.n_computed = 0

    def features(self, images: NDArray[Any], cache: bool | str | Path = True) -> Features:
        """Features of images, computed or found in the cache.

        Args:
            images: Shape `(n, height, width, channels)`, 0 to 255.
            cache: Where features are kept: `True` for the user's cache folder; a folder, in which they get one of
                their own (see `FeatureCache`); or `False` to compute them each time. Defaults to `True`.

        Returns:
            Shape `(n, features)`, float32.
        """
        if cache is False or self._n_features is None:
            return self._compute(images)
        digests = [_digest_of_image(image) for image in images]
        recent = self.key, hashlib.blake2b(b"".join(digests)).digest()
        found = RECENT_FEATURES.find(recent)
        if found is None:
            found = self._found_or_computed(images, digests, FeatureCache(None if cache is True else cache))
            RECENT_FEATURES.keep(recent, found)
        return found

    @property
    def _n_features(self) -> int | None:
        """Number of features of an image; None where it is not known, or where an image has more than a row of them."""
        shape = getattr(self.model, "output_shape", None)
        return shape[1] if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], int) else None

    def _found_or_computed(self, images: NDArray[Any], digests: list[bytes], cache: FeatureCache) -> Features:
        known = cache.read(self.key, set(digests), n_features=self._n_features)
        missing = {digest: place for place, digest in enumerate(digests) if digest not in known}
        for start in range(0, len(missing), _CHUNK):
            chunk = list(missing.items())[start : start + _CHUNK]
            computed = self._compute(images[[place for _, place in chunk]])
            fresh = dict(zip([digest for digest, _ in chunk], computed, strict=True))
            cache.write(self.key, fresh)
            known |= fresh
        return np.stack([known[digest] for digest in digests])

    def _compute(self, images: NDArray[Any]) -> Features:
        self.n_computed += len(images)
        filled = np.concatenate([images, np.repeat(images[:1], -len(images) % _BATCH, axis=0)])
        return np.asarray(self.model.predict(filled, batch_size=_BATCH, verbose=0), "float32")[: len(images)]


def _digest_of_image(image: NDArray[Any]) -> bytes:
    image = np.ascontiguousarray(image)
    return hashlib.blake2b(image.tobytes() + f"{image.dtype.str}{image.shape}".encode(), digest_size=16).digest()


def _digest_of_model(model: keras.Model) -> str:
    """A digest of all that the output of a model depends on."""
    import keras

    # The numbers in the names that Keras gives to layers count up through a process.
    form = re.sub(r'_\d+"', '"', model.to_json())
    parts = [form, keras.__version__, keras.config.backend(), keras.config.floatx()]
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=16)
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
