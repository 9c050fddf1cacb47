"""`ImageClassifier` and `ImageRegressor`: transfer learning from a pretrained network.

Either way of training leads to one network of three parts: a pretrained backbone from images to features, their
scaling to mean 0 and standard deviation 1, and a head, which is `builders.mlp`. They differ in what is trained:

- "features": the head alone, on features that are computed once and cached. It is a small dense network like any other,
  so that a search over heads trains as one program.
- "fine_tune": first the head, as above, and then the whole network. Unfreezing the backbone under a head that has
  learned nothing yet would distort its features (Kumar et al., "Fine-tuning can distort pretrained features", 2022).
  With random weights there is nothing to distort, and the whole network is trained at once.

In both cases `model_` is the whole: a Keras model from raw images to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import Tags

from kerastoolkit import builders, transfer
from kerastoolkit._types import Rows, Target
from kerastoolkit.data import images
from kerastoolkit.estimators import _inputs, _objects, _parameters
from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.estimators._fit_arguments import Call
from kerastoolkit.estimators._image_readers import EXTRACTORS, BackboneFeatures, ImageFeatures, ImageReader
from kerastoolkit.estimators._readers import first_of
from kerastoolkit.estimators.classifier import KerasClassifier
from kerastoolkit.estimators.fitted import AnyHead, Fitted
from kerastoolkit.estimators.regressor import KerasRegressor
from kerastoolkit.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import keras

    from kerastoolkit.estimators._readers import Data

Self = TypeVar("Self", bound="_ImageEstimator")

_FINE_TUNING_EPOCHS = 10


class _ImageEstimator(KerasEstimator):
    """What image estimators share.

    Args:
        backbone: Name of a network; `kerastoolkit.transfer.list_backbones()` lists them. Defaults to `"MobileNetV2"`.
        weights: `"imagenet"`, which Keras downloads; a `.weights.h5`, `.keras` or `.h5` file; or `None` for random
            ones. Defaults to `"imagenet"`.
        training: `"features"` trains the head alone, on features that are computed once; `"fine_tune"` first trains the
            head and then the whole network (random weights all at once). Defaults to `"features"`.
        input_size: Height and width to which images are resized, in pixels; smaller is faster. Defaults to `None`: the
            size that the backbone was trained on.
        layer: Name of the layer of the backbone whose output, averaged over the image, is the features. For images
            unlike photographs, a layer in the middle may do better. Defaults to `None`: the last layer.
        hidden: Units of each hidden layer of the head, or one number for one layer. Defaults to `()`: none.
        dropout: Fraction of units dropped after each hidden layer while training. Defaults to `0.0`.
        augment: Keras layers that change each image in each epoch, or `True` to flip it horizontally and shift it by
            up to a tenth; with "fine_tune" only. Defaults to `None`: none.
        unfreeze: The part of the backbone that is fine-tuned: a number of its upper layers, a fraction of them, or the
            name of the layer or block from which on. Defaults to `1.0`: all of it.
        batch_norm: `"inference"` keeps BatchNormalization as it was trained, `"training"` adapts it to the new data.
            Defaults to `None`: inference, which starts where the head ended and is faster (measured in
            `benchmarks/results/transfer.md`), but training where `weights` is `None`. At the end of `fit`, adapted
            statistics are recomputed for the final weights (`kerastoolkit.transfer.update_batch_norm`); `partial_fit`
            leaves the moving averages.
        learning_rate: Learning rate of the head while the whole network is fine-tuned. Defaults to `0.0003`.
        bottom_rate: Learning rate of the lowest layers of the backbone as a fraction of `learning_rate`; the rates in
            between are spaced geometrically. Random weights all have the same rate. Defaults to `0.1`.
        head_epochs: With "fine_tune", number of epochs for which the head is trained first. Defaults to `None`: as many
            as "features" would train.
        cache: Where features are cached: `True` for the user's cache folder, up to 2 GiB; a folder, in which they get a
            subfolder `kerastoolkit-features`; or `False` for nowhere. They are found again by the contents of the image
            and of the weights. Defaults to `True`.
        optimizer: Name, class or instance; fine-tuning makes one of the same kind for each learning rate. Defaults to
            `None`: Adam.
        epochs: Number of epochs to train: of the head with "features", of the whole network with "fine_tune". Defaults
            to `None`: as for a builder of kerastoolkit with "features", 10 with "fine_tune".
        validation_split: Fraction of the images that is held out for validation and not trained on, drawn at random;
            with "fine_tune", the head learns from all of them first. Defaults to `0.0`.
        callbacks: A callback or a list or dict of them, as instances (each fit uses a copy) or classes; with
            "fine_tune", they watch the training of the whole network. Defaults to `()`: none.
        random_state: Seed, or a `RandomState` from which a seed is drawn, for weights, dropout, shuffling and
            `validation_split`. A backbone with random weights under "features" is drawn with this seed, or with 0.
            Defaults to `None`: seeds are drawn from the global generators.
        **params: Arguments of `builders.mlp`, and routed parameters.

    Attributes:
        model_: The whole network, from raw images to the output.
        head_history_: With "fine_tune", the history of the head, which was trained first.
    """

    unused_parameters: tuple[str, ...] = ("model", "build_fn")
    model = build_fn = None  # there is `backbone` instead

    reader_names = ("image", "image_features")

    def __init__(
        self,
        backbone: str = "MobileNetV2",
        *,
        weights: str | Path | None = "imagenet",
        training: Literal["features", "fine_tune"] = "features",
        input_size: int | None = None,
        layer: str | None = None,
        hidden: int | Sequence[int] = (),
        dropout: float = 0.0,
        augment: bool | keras.Layer | Sequence[keras.Layer] | None = None,
        unfreeze: int | float | str = 1.0,
        batch_norm: Literal["inference", "training"] | None = None,
        learning_rate: float = 0.0003,
        bottom_rate: float = 0.1,
        head_epochs: int | None = None,
        cache: bool | str | Path = True,
        **params: Any,
    ) -> None:
        super().__init__(**params)
        self.backbone = backbone
        self.weights = weights
        self.training = training
        self.input_size = input_size
        self.layer = layer
        self.hidden = hidden
        self.dropout = dropout
        self.augment = augment
        self.unfreeze = unfreeze
        self.batch_norm = batch_norm
        self.learning_rate = learning_rate
        self.bottom_rate = bottom_rate
        self.head_epochs = head_epochs
        self.cache = cache

    # -- parameters -----------------------------------------------------------------------------------------------

    def _build_function(self, model: object, build_fn: object) -> Callable[..., Any] | None:
        return self._whole if self.training == "fine_tune" else builders.get("mlp")

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.training not in ("features", "fine_tune"):
            raise ParameterError(f"`training` must be 'features' or 'fine_tune'; got {self.training!r}.")
        if self.batch_norm not in ("inference", "training", None):
            raise ParameterError(f"`batch_norm` must be 'inference', 'training' or None; got {self.batch_norm!r}.")
        if not isinstance(self.cache, (bool, str, Path)):
            raise ParameterError(f"`cache` must be True, False or a folder; got {self.cache!r}.")
        changes = self._changes()
        if self.training == "features" and changes:
            raise ParameterError(
                "`augment` changes the images in each epoch, but training='features' computes the features of each "
                "image only once. Give training='fine_tune', or augment=None."
            )
        if self.training == "fine_tune":
            transfer.check_rates(self.learning_rate, self._bottom_rate)

    def _changes(self) -> list[Any]:
        """New layers of augmentation."""
        import keras

        if self.augment is None or self.augment is False:
            return []
        if self.augment is True:
            return [
                keras.layers.RandomFlip("horizontal", name="augment_flip"),
                keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", name="augment_shift"),
            ]
        several: list[Any] = list(self.augment) if isinstance(self.augment, (list, tuple)) else [self.augment]
        for layer in several:
            if not isinstance(layer, keras.layers.Layer):
                raise ParameterError(
                    f"`augment` must be True, a Keras layer such as keras.layers.RandomFlip('horizontal'), or a list "
                    f"of them; got {layer!r}."
                )
        return [type(layer).from_config(layer.get_config()) for layer in several]

    # -- fitting --------------------------------------------------------------------------------------------------

    def _fit(self: Self, X: Rows, y: Target, sample_weight: ArrayLike | None, call: Call) -> Self:
        self.check_parameters()
        if call.continuing and self._is_whole != (self.training == "fine_tune"):
            raise ParameterError(
                "`training` was changed since the last fit; set warm_start=False to start from scratch."
            )
        X, y = _with_labels(X, y, self._task)
        if images.is_path(call.validation_data):
            call = call._replace(validation_data=_with_labels(call.validation_data, None, self._task))
        if _inputs.kind_of(X) == "dataset":
            raise DataError(
                f"{type(self).__name__} takes arrays, files or a folder, and got a data set of batches. Give the "
                "folder that the data set was made from."
            )
        first = None
        if not call.continuing:
            self._check_names(self._params, self._build_function(None, None))
            X = self._prepared(X)
            if self.training == "fine_tune" and self.weights is not None:
                first = self._head_first(X, y, sample_weight, call)
        # For the time of the fit. The few images of a `partial_fit` say less than the running averages of all so far.
        self._first, self._is_all = first, not call.continuing or self.warm_start
        try:
            super()._fit(X, y, sample_weight, call)
        finally:
            del self._first, self._is_all
        if not call.continuing:
            self._update_fitted(head_history={} if first is None else first.history_)
        return self

    def _train(
        self, arguments: dict[str, Any], seed: int | None, sums_at_first: Callable[[], list[float]]
    ) -> dict[str, list[Any]]:
        rows, batch_size = arguments["x"], arguments["batch_size"] or 32  # without those held out
        history = super()._train(arguments, seed, sums_at_first)
        if self.training == "fine_tune" and self._is_all and self._fitted.divergence is None:
            transfer.update_batch_norm(self._fitted.network.model, rows, batch_size=batch_size)
        return history

    def _prepared(self, X: Any) -> Any:
        """Has the backbone ready before files are read, and before anything is computed."""
        of_files = images.are_paths(X)
        if not of_files:
            X = images.read_images(X, self._size, learning=True)
        found = EXTRACTORS.find({**self._extractor_arguments(), "channels": 3 if of_files else X.shape[-1]})
        if self.training == "fine_tune":
            transfer.first_unfrozen([layer.name for layer in found.model.layers], self.unfreeze)
            X = images.read_images(X, self._size, learning=True)  # once for the head and for the whole
        return X

    @property
    def _bottom_rate(self) -> float:
        return self.bottom_rate if self.weights is not None else 1.0  # random weights are all as new as the head

    def _head_first(self, X: Rows, y: Target, sample_weight: ArrayLike | None, call: Call) -> Any:
        """The same with training="features": the head that fine-tuning starts from."""
        first = clone(self).set_params(
            training="features", augment=None, epochs=self.head_epochs, callbacks=None, validation_split=0.0,
            verbose=0, warm_start=False,
        )  # fmt: skip
        for_fit = ("callbacks", "fit")
        first._params = {
            name: value
            for name, value in first._params.items()
            if name.split("__")[0] not in for_fit or name == "fit__class_weight"
        }
        classes = {"classes": call.fit_params.get("classes")}
        return first._fit(X, y, sample_weight, Call(classes, continuing=False, train=call.train))

    def _extractor_arguments(self) -> dict[str, Any]:
        weights = str(self.weights) if isinstance(self.weights, Path) else self.weights
        # Random weights that differ from fit to fit would run the backbone again in each fold of a search.
        seed = self.random_state if isinstance(self.random_state, (int, np.integer)) else 0
        return {
            "backbone": self.backbone,
            "weights": weights,
            "input_size": self.input_size,
            "layer": self.layer,
            "random_state": int(seed) if self.weights is None else None,
        }

    def _learn_encoder(self, X: Any) -> None:
        """Where the head alone is trained, its rows are features of images."""
        if self.training == "features":
            encoder = BackboneFeatures(self._extractor_arguments(), self.cache).fit(X)
            self._update_fitted(reader=ImageFeatures(self._fitted.reader, encoder))  # type: ignore[arg-type]

    def _make_head(self, data: Data, build: Callable[..., Any] | None, classes: ArrayLike | None) -> AnyHead:
        # That of `mlp`, also where it ends a larger network: the numbers of a regression are trained on in its units.
        return super()._make_head(data, builders.get("mlp"), classes)

    def _default_epochs(self, build: Callable[..., Any] | None, n_rows: int | None, batch_size: int | None) -> int:
        if self.training == "fine_tune":
            return _FINE_TUNING_EPOCHS
        return super()._default_epochs(build, n_rows, batch_size)

    def _whole(
        self,
        input_shape: tuple[int, ...],
        head: AnyHead,
        compile_kwargs: dict[str, Any],
        hidden: int | Sequence[int] = (),
        dropout: float = 0.0,
        activation: str = "relu",
        normalization: Literal["batch", "layer"] | None = None,
        l2: float = 0.0,
    ) -> keras.Model:
        """Builds the network that is fine-tuned, from the head that was trained first."""
        extractor = transfer.feature_extractor(
            **{**self._extractor_arguments(), "weights": None, "random_state": None},
            channels=input_shape[-1],
            augment=self._changes(),
        )
        head_model = builders.get("mlp")(
            extractor.output_shape[-1:],
            head,
            hidden=hidden,
            dropout=dropout,
            activation=activation,
            normalization=normalization,
            l2=l2,
        )
        frozen = EXTRACTORS.find({**self._extractor_arguments(), "channels": input_shape[-1]}).model
        layers = [layer for layer in extractor.layers if not layer.name.startswith("augment_")]
        scaling = BackboneFeatures(self._extractor_arguments())
        if self._first is None:  # random weights: there is nothing to keep
            scaling.scale, scaling.offset = np.ones(head_model.input_shape[1]), np.zeros(head_model.input_shape[1])
        else:
            scaling = self._first.feature_encoder_
            head_model.set_weights(self._first._fitted.network.model.get_weights())
            transfer.copy_weights(frozen, extractor)
        batch_norm = self.batch_norm or ("training" if self.weights is None else "inference")
        trained = transfer.unfreeze(layers, self.unfreeze, batch_norm=batch_norm)
        model = scaling.composed(extractor, head_model)
        compile_kwargs["optimizer"] = transfer.optimizer_by_depth(
            _objects.make_optimizer(compile_kwargs["optimizer"], {}), trained, self.learning_rate, self._bottom_rate
        )
        model.compile(**compile_kwargs)
        return model

    # -- data -----------------------------------------------------------------------------------------------------

    def learn_reader(self, X: Any, n_rows: int | None) -> tuple[ImageReader, Any]:
        return ImageReader.learn_and_encode(X, size=self._size)

    def _encode(self, X: Rows, n_rows: int | None = None) -> Any:
        return first_of(self._fitted.reader).encode(X, owner=self)  # type: ignore[call-arg]

    @property
    def _size(self) -> int:
        """Height and width to which images are resized, in pixels."""
        return transfer.check_size(transfer.get(self.backbone), self.input_size)

    def score(self, X: Rows, y: Target = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean accuracy of a classifier, R2 of a regressor.

        Args:
            X: Images, as for `fit`; a folder has its own labels.
            y: True labels or numbers.
            sample_weight: Weights, shape `(n,)`. Defaults to `None`.

        Returns:
            The score, 1 at best.
        """
        X, y = _with_labels(X, y, self._task)
        return float(super().score(X, y, sample_weight))

    # -- the whole network ----------------------------------------------------------------------------------------

    @property
    def _is_whole(self) -> bool:
        """Whether what was trained takes images, not features."""
        return not isinstance(self._fitted.reader, ImageFeatures)

    def _set_fitted(self, fitted: Fitted) -> None:
        super()._set_fitted(fitted)
        if isinstance(fitted.reader, ImageFeatures):  # where its parameters say, not where somebody else's did
            self._update_fitted(reader=fitted.reader.cached_in(self.cache))

    def _raw_output(self, X: Rows, **predict_params: object) -> Any:
        plain = not (predict_params or _parameters.below(self._params, "predict"))
        if not self.__sklearn_is_fitted__() or self._is_whole or plain:
            return super()._raw_output(X, **predict_params)
        # Arguments of Model.predict are for the whole, and so are images.
        return self.model_.predict(self._encode(X), **{"verbose": 0, **predict_params})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.__sklearn_is_fitted__():
            self._set_fitted(self._fitted)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _with_labels(X: Any, y: Target, task: str) -> tuple[Any, Any]:
    """A folder as its files and their labels."""
    if y is not None or not images.is_path(X):
        return X, y
    if task == "regression":
        raise DataError("A folder has classes, not numbers: give a list of the files, and their numbers as `y`.")
    return images.list_images(X)


class ImageClassifier(_ImageEstimator, KerasClassifier):
    """A classifier of images that starts from a pretrained network.

    Example:

    >>> flowers = ImageClassifier("MobileNetV2").fit("flowers")  # one sub-folder per class; features are cached
    >>> flowers.predict("new_images")
    array(['daisy', 'tulip'], dtype='<U5')
    >>> better = ImageClassifier("MobileNetV2", training="fine_tune", augment=True).fit("flowers")

    Give raw images, from 0 to 255: arrays of shape `(n, height, width)` or `(n, height, width, channels)`, lists of
    images or of files, or the path of a folder. Conversion to colour, resizing, preprocessing and augmentation are
    layers of `model_`, and so are saved with it. Files of different sizes are resized as they are read.

    Parameters that are not listed are those of `KerasClassifier`: `activation`, `normalization` and `l2` for the hidden
    layers of the head, `optimizer__learning_rate` for its training.

    Attributes:
        classes_: Labels, shape `(n_classes,)`; of a folder, names of its sub-folders.
    """


class ImageRegressor(_ImageEstimator, KerasRegressor):
    """A regressor of images that starts from a pretrained network.

    Example:

    >>> ages = ImageRegressor("MobileNetV2", hidden=(64,)).fit(faces, years)
    >>> ages.predict(faces[:2]).shape
    (2,)

    As with `KerasRegressor`, the network trains on `(y - mean) / standard deviation`.

    Args:
        loss: Name, class, function or instance. Defaults to `None`: mean squared error.
        metrics: A metric or a list or dict of them. Defaults to `None`: R2.
    """
