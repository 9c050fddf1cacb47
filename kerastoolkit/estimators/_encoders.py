"""Encoders of a subclass: scikeras' way of changing data between the estimator and its model.

A subclass may define the properties `feature_encoder` and `target_encoder`, each returning a transformer of
scikit-learn's kind. The first changes checked rows into what the model takes (one array into several inputs, flat rows
into pictures); the second takes the place of the `Head`: it encodes `y` for Keras and decodes the model's output.
Where there is none, code that asks for `target_encoder_` or `feature_encoder_` finds one that does what the estimator
does by itself.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.builders.heads import refuse_what_is_no_number
from kerastoolkit.exceptions import ModelMismatchError, SavedFileError

if TYPE_CHECKING:
    import keras


def metadata(encoder: Any) -> dict[str, Any]:
    """What an encoder tells the estimator and the build function: its `get_metadata()`, if it has one."""
    return dict(encoder.get_metadata()) if hasattr(encoder, "get_metadata") else {}


def own_encoder(estimator: Any, name: str) -> Any:
    """An encoder that the class of an estimator has, under `"feature_encoder"` or `"target_encoder"`; None for none."""
    found = inspect.getattr_static(type(estimator), name)
    # Asked directly: Python takes an AttributeError inside a property for a sign that there is no property.
    return found.__get__(estimator) if isinstance(found, property) else getattr(estimator, name)


class TargetEncoder:
    """What scikeras calls `target_encoder_`, where no subclass has an encoder of its own: the head, by other names.

    Args:
        head: The head of the target.
    """

    def __init__(self, head: Head | HeadGroup) -> None:
        self._head = head

    def fit(self, y: Any) -> TargetEncoder:
        """Itself: the head has learned what there is to learn."""
        return self

    def transform(self, y: Any) -> Any:
        """What Keras gets of `y`."""
        return self._head.encode(y)

    def inverse_transform(self, raw: Any, return_proba: bool = False) -> Any:
        """Predictions from the output of the model, or with `return_proba` probabilities.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
        """
        return self._head.probabilities(raw) if return_proba else self._head.decode(raw)

    def get_config(self) -> dict[str, Any]:
        """The head that it is made of, as plain Python values."""
        return {"head": self._head.get_config()}


class FeatureEncoder:
    """What scikeras calls `feature_encoder_`, where no subclass has an encoder of its own: rows stay as they are."""

    def fit(self, X: Any) -> FeatureEncoder:
        """Itself."""
        return self

    def transform(self, X: Any) -> Any:
        """The rows as they are."""
        return X

    def get_config(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class EncoderHead:
    """A target encoder, under the names by which an estimator knows a `Head`.

    Args:
        encoder: A fitted transformer with `transform` and `inverse_transform`; for probabilities its
            `inverse_transform` takes `return_proba=True`.
        task: `"classification"` or `"regression"`.
    """

    one_hot = False
    output = "probability"
    # Only the user knows what fits: the model must be compiled, or the estimator told.
    loss = None
    metrics = None

    def __init__(self, encoder: Any, task: str) -> None:
        known = metadata(encoder)
        self.encoder = encoder
        self.kind = task
        self.classes = known.get("classes_")
        self.n_classes = known.get("n_classes_")
        self.n_outputs = known.get("n_outputs_expected_")

    def bind(self, model: keras.Model) -> EncoderHead:
        """Holds the number of outputs against what the encoder expects.

        Raises:
            ModelMismatchError: They differ, or the model has no loss; the message says which.
        """
        if self.n_outputs is not None and len(model.outputs) != self.n_outputs:
            raise ModelMismatchError(
                f"The model has {len(model.outputs)} outputs, but `target_encoder` expects {self.n_outputs}."
            )
        if not model.loss:
            raise ModelMismatchError(
                "With a `target_encoder` of your own the loss must be named: compile the model, or give `loss`."
            )
        return self

    def encode(self, y: Any) -> Any:
        """What Keras gets of `y`."""
        return self.encoder.transform(y)

    def decode(self, raw: Any) -> Any:
        """Predictions from the model's output.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
        """
        _refuse_what_is_no_number(raw)
        return self.encoder.inverse_transform(raw)

    def probabilities(self, raw: Any) -> Any:
        """Probabilities from the model's output.

        Raises:
            DivergedError: The output for a row is NaN or infinite.
            ModelMismatchError: The encoder makes none.
        """
        _refuse_what_is_no_number(raw)
        if "return_proba" not in inspect.signature(self.encoder.inverse_transform).parameters:
            raise ModelMismatchError(
                f"`target_encoder` is a {type(self.encoder).__name__}, whose inverse_transform takes no "
                "`return_proba`, and so makes no probabilities. Let it take inverse_transform(y, return_proba=False)."
            )
        return self.encoder.inverse_transform(raw, return_proba=True)

    def get_config(self) -> dict[str, Any]:
        """Refuses: an encoder is Python code, which a saved file does not hold.

        Raises:
            SavedFileError: Always.
        """
        raise SavedFileError(
            f"An estimator with a `target_encoder` of its own ({type(self.encoder).__name__}) cannot be saved without "
            "pickle. Save `model_` by Keras, or pickle the estimator."
        )


def _refuse_what_is_no_number(raw: Any) -> None:
    import keras

    for part in keras.tree.flatten(raw):
        refuse_what_is_no_number(part)
