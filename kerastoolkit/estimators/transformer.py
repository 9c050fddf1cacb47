"""`KerasTransformer`: a network that learns to reproduce its input, as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array

from kerastoolkit._types import Rows, Validation
from kerastoolkit.builders.targets import check_finite
from kerastoolkit.data.readers import Reader
from kerastoolkit.estimators import _inputs
from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.estimators._readers import Data
from kerastoolkit.estimators._reconstruction import Reconstruction
from kerastoolkit.estimators.fitted import Fitted
from kerastoolkit.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import keras

Self = TypeVar("Self", bound="KerasTransformer")


class KerasTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, KerasEstimator):
    """An autoencoder as a scikit-learn transformer: it compresses rows to a few numbers, and reconstructs them.

    Example:

    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data / 16
    >>> codes = KerasTransformer(n_components=8, epochs=5, random_state=0).fit_transform(X)
    >>> codes.shape
    (1797, 8)

    As in PCA, what is learned depends on the scale of each feature: put a `StandardScaler` before it.

    Args:
        model: A builder's name, a function that returns a `keras.Model` whose output has the shape of its input, or
            such a model. Defaults to `None`: `"autoencoder"`.
        code_layer: Name of the layer whose output `transform` returns. Defaults to `"code"`.
        loss: Name, class, function or instance. Defaults to `None`: what the model was compiled with, or mean squared
            error.
        metrics: A metric or a list of them. Defaults to `None`: none.
        **params: Arguments of the build function (`n_components`, `hidden`), and routed parameters.

    Attributes:
        encoder_: The first half of `model_`, from rows to the output of `code_layer`.
        decoder_: The second half, from there back to rows.
        n_features_in_: Number of features per row, for `X` of one array.
        feature_names_in_: Names of the features, for tables with string column names.
    """

    _task = "reconstruction"
    default_model = "autoencoder"
    unused_parameters: tuple[str, ...] = ("class_weight",)
    reader_names = ("array",)
    _heads: Mapping[str, Any] = {"Head": Reconstruction}

    def __init__(
        self,
        model: str | keras.Model | Callable[..., keras.Model] | None = None,
        *,
        code_layer: str = "code",
        **params: Any,
    ) -> None:
        super().__init__(model, **params)
        self.code_layer = code_layer

    def fit(
        self: Self,
        X: Rows,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        validation_data: Rows | Validation = None,
        **fit_params: object,
    ) -> Self:
        """Builds and trains the model.

        Args:
            X: Rows, an array or table of shape `(n, ...)`.
            y: Not used; pipelines pass it.
            sample_weight: Weights of the rows, shape `(n,)`; 0 leaves a row out. Defaults to `None`.
            validation_data: Rows to watch while training. Defaults to `None`.
            **fit_params: Arguments of `keras.Model.fit` for this call, over those of the estimator.

        Returns:
            The estimator itself.

        Raises:
            ParameterError: A parameter could reach nothing or has an impossible value.
            DataError: `X` cannot be learned from.
            ModelMismatchError: The output of the model has not the shape of its input, or it has no `code_layer`.
        """
        return super().fit(X, None, sample_weight, validation_data=validation_data, **fit_params)

    def transform(self, X: Rows) -> Any:
        """Encodes rows.

        Args:
            X: Rows, as for `fit`.

        Returns:
            Output of `code_layer`, shape `(n, n_components)`, float32.

        Raises:
            NotFittedError: `fit` was not called.
            DivergedError: The network diverged in `fit`, or its output for a row is NaN or infinite.
        """
        self._refuse_diverged()
        raw = self._halves_by_rows(self.encoder_, self._encode(X))
        return raw.reshape(len(raw), -1)

    def inverse_transform(self, X: Any) -> Any:
        """Makes rows from what `transform` returned.

        Args:
            X: Shape `(n, n_components)`.

        Returns:
            Rows in the shape of those in `fit`, float32.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: There are more or fewer than `n_components` columns.
            DivergedError: As for `transform`.
        """
        self._refuse_diverged()
        X = check_array(X, dtype="numeric")
        if X.shape[1] != self._n_features_out:
            raise DataError(f"X has {X.shape[1]} columns, but `transform` returns {self._n_features_out}.")
        decoder = self.decoder_
        return self._halves_by_rows(decoder, X.reshape(len(X), *decoder.input_shape[1:]).astype("float32"))

    def score(self, X: Rows, y: object = None) -> float:
        """Minus the mean squared difference of rows and what is made of them, so that larger is better.

        Args:
            X: Rows, as for `fit`.
            y: Not used.

        Returns:
            0 for rows that come back as they were, negative for others, in the squared unit of `X`.
        """
        made = self.predict(X)
        return -float(np.mean((np.asarray(self._encode(X)) - made) ** 2))

    @property
    def encoder_(self) -> keras.Model:
        """From rows to the output of `code_layer`, sharing the weights of `model_`."""
        import keras

        return keras.Model(self._fitted_model.inputs[0], self._fitted_model.get_layer(self.code_layer).output)

    @property
    def decoder_(self) -> keras.Model:
        """From the output of `code_layer` to rows, sharing the weights of `model_`."""
        import keras

        return keras.Model(self._fitted_model.get_layer(self.code_layer).output, self._fitted_model.outputs[0])

    @property
    def _fitted_model(self) -> Any:
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__!r} is not fitted, and has no halves yet.")
        return self.model_

    @property
    def _n_features_out(self) -> int:
        return int(np.prod(self._fitted_model.get_layer(self.code_layer).output.shape[1:]))

    def _halves_by_rows(self, half: keras.Model, X: NDArray[Any]) -> Any:
        import keras

        parts = []
        for start in range(0, len(X), 1024):
            batch = X[start : start + 1024]
            output = half(_inputs.filled(batch, -len(batch) % 32), training=False)
            parts.append(keras.ops.convert_to_numpy(output)[: len(batch)])
        made = np.concatenate(parts)
        check_finite(made)
        return made

    # -- what is other than in a prediction of y -------------------------------------------------------------------

    def learn_reader(self, X: Rows, n_rows: int | None) -> tuple[Reader, Any]:
        _refuse_sparse(X)
        return super().learn_reader(X, n_rows)

    def _encode(self, X: Rows, n_rows: int | None = None) -> Any:
        _refuse_sparse(X)
        return super()._encode(X, n_rows)

    def _read(self, X: Rows, y: object, sample_weight: ArrayLike | None, *, reset: bool) -> Data:
        if reset:
            reader, X = self.learn_reader(X, None)
            known = {"X_shape_": getattr(X, "shape", None), "X_dtype_": getattr(X, "dtype", None)}
            self._fitted = Fitted(reader, known=known)
        else:
            X = self._encode(X)
        if isinstance(X, (dict, list)):
            raise DataError("KerasTransformer takes one array of rows, not several inputs.")
        weights = None if sample_weight is None else _inputs.read_weights(sample_weight, X)
        return Data(X, X, weights)

    def _validation(self, validation_data: Rows | Validation) -> Any:
        rows = validation_data[0] if isinstance(validation_data, tuple) else validation_data
        return super()._validation((rows, None))

    def _make_head(self, data: Data, build: Callable[..., Any] | None, classes: ArrayLike | None) -> Any:
        if not isinstance(self.code_layer, str):
            raise ParameterError(f"`code_layer` must be the name of a layer; got {self.code_layer!r}.")
        return Reconstruction("regression", int(np.prod(data.X.shape[1:])), flat=False, layer=self.code_layer)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.target_tags.required = False
        tags.target_tags.multi_output = False
        return tags


def _refuse_sparse(X: object) -> None:
    if issparse(X):
        raise DataError(
            "Sparse input is not supported by KerasTransformer, whose output would be as large as all its rows. "
            "Use X.toarray() where that fits in memory, or TruncatedSVD first."
        )
