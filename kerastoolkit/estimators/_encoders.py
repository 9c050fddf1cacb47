"""Encoders of a subclass: scikeras' way of changing data between the estimator and its model.

A subclass may define the properties `feature_encoder` and `target_encoder`, each returning a transformer of
scikit-learn's kind. The first turns validated rows into what the model takes (one array into several inputs, flat rows
into images); the second replaces the `Head`: it encodes `y` for Keras and decodes the output of the model. In a class
without them, code that asks for `target_encoder_` or `feature_encoder_` gets one that does what the estimator does
anyway.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from sklearn.base import TransformerMixin

from kerastoolkit._types import OutputArrays, Rows, Target, TargetArrays
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.builders.targets import check_finite
from kerastoolkit.exceptions import ModelMismatchError, SavedFileError

if TYPE_CHECKING:
    import keras

_Rows = TypeVar("_Rows")


def metadata(encoder: TransformerMixin) -> dict[str, Any]:
    """What the estimator and the build function are told by an encoder: its `get_metadata()`, if it has one."""
    return dict(encoder.get_metadata()) if hasattr(encoder, "get_metadata") else {}


def own_encoder(estimator: object, name: str) -> Any:
    """An encoder that the class of an estimator has, under `"feature_encoder"` or `"target_encoder"`; None for none."""
    found = inspect.getattr_static(type(estimator), name)
    # Asked directly: Python takes an AttributeError inside a property for a sign that there is no property.
    return found.__get__(estimator) if isinstance(found, property) else getattr(estimator, name)


def not_for_a_file(name: str, encoder: TransformerMixin) -> SavedFileError:
    """The error for an encoder of the user's: Python code, without which the model predicts something else."""
    return SavedFileError(
        f"An estimator with a `{name}` of its own ({type(encoder).__name__}) cannot be saved without pickle. Save "
        "`model_` with Keras, or pickle the estimator."
    )


class TargetEncoder:
    """scikeras' `target_encoder_` for a class without an encoder of its own: the head, with other method names.

    Args:
        head: The head of the target.
    """

    def __init__(self, head: Head | HeadGroup) -> None:
        self._head = head

    def fit(self, y: Target) -> TargetEncoder:
        """Returns itself: the head is fitted already."""
        return self

    def transform(self, y: Any) -> Any:
        """Encodes `y` for Keras."""
        return self._head.encode(y)

    def inverse_transform(self, raw: Any, return_proba: bool = False) -> Any:
        """Predictions from the output of the model, or with `return_proba` probabilities.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
        """
        return self._head.probabilities(raw) if return_proba else self._head.decode(raw)

    def get_config(self) -> dict[str, Any]:
        """The config of the head, as plain Python values."""
        return {"head": self._head.get_config()}


class FeatureEncoder:
    """scikeras' `feature_encoder_` for a class without an encoder of its own: rows stay as they are."""

    def fit(self, X: Rows) -> FeatureEncoder:
        """Returns itself: there is nothing to learn."""
        return self

    def transform(self, X: _Rows) -> _Rows:
        """The rows as they are."""
        return X

    def get_config(self) -> dict[str, Any]:
        """An empty config."""
        return {}


class EncoderHead:
    """A target encoder with the interface of a `Head`.

    Args:
        encoder: A fitted transformer with `transform` and `inverse_transform`, whose `inverse_transform` takes
            `return_proba=True` if it returns probabilities.
        task: `"classification"` or `"regression"`.
    """

    one_hot = False
    output = "probability"
    # Only the user knows which ones fit: the model has to be compiled, or `loss` and `metrics` given.
    loss = None
    metrics = None

    def __init__(self, encoder: TransformerMixin, task: str) -> None:
        known = metadata(encoder)
        self.encoder = encoder
        self.kind = task
        self.classes = known.get("classes_")
        self.n_classes = known.get("n_classes_")
        self.n_outputs = known.get("n_outputs_expected_")

    def bind(self, model: keras.Model) -> EncoderHead:
        """Compares the number of outputs with what the encoder expects.

        Raises:
            ModelMismatchError: They differ, or the model has no loss; the message says which.
        """
        if self.n_outputs is not None and len(model.outputs) != self.n_outputs:
            raise ModelMismatchError(
                f"The model has {len(model.outputs)} outputs, but `target_encoder` expects {self.n_outputs}."
            )
        if not model.loss:
            raise ModelMismatchError(
                "With a `target_encoder` of your own, the loss has to be given: compile the model, or set `loss`."
            )
        return self

    def encode(self, y: TargetArrays) -> Any:
        """Encodes `y` for Keras."""
        return self.encoder.transform(y)

    def decode(self, raw: OutputArrays) -> Any:
        """Predictions from the model's output.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
        """
        _check_finite(raw)
        return self.encoder.inverse_transform(raw)

    def probabilities(self, raw: OutputArrays) -> Any:
        """Probabilities from the model's output.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
            ModelMismatchError: The encoder does not return any.
        """
        _check_finite(raw)
        if "return_proba" not in inspect.signature(self.encoder.inverse_transform).parameters:
            raise ModelMismatchError(
                f"`target_encoder` is a {type(self.encoder).__name__}, whose inverse_transform has no argument "
                "`return_proba`, and so returns no probabilities. Define inverse_transform(y, return_proba=False)."
            )
        return self.encoder.inverse_transform(raw, return_proba=True)

    def get_config(self) -> dict[str, Any]:
        """Refuses: an encoder is Python code, which a saved file does not hold.

        Raises:
            SavedFileError: Always.
        """
        raise not_for_a_file("target_encoder", self.encoder)


def _check_finite(raw: OutputArrays) -> None:
    import keras

    for part in keras.tree.flatten(raw):
        check_finite(part)
