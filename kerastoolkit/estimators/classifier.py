"""`KerasClassifier`: what classification adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if

from kerastoolkit._types import ClassWeight, Dataset, Rows, Target, TargetArrays
from kerastoolkit._values import shown
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.builders.targets import weights_of_labels
from kerastoolkit.estimators import _inputs
from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.estimators.fitted import AnyHead
from kerastoolkit.exceptions import DataError, ParameterError

Self = TypeVar("Self", bound="KerasClassifier")


def _single_target(estimator: KerasClassifier) -> bool:
    """Scores have one meaning for one target; for several scikit-learn knows none."""
    return isinstance(getattr(estimator, "head_", None), (Head, type(None)))


def _has_probabilities(estimator: KerasClassifier) -> bool:
    """Margins, and numbers that were fitted to 0 and 1, are no probabilities."""
    return _without_probabilities(estimator) is None


def _without_probabilities(estimator: KerasClassifier) -> Head | None:
    """The head of a fitted classifier whose output is no probability, if there is one."""
    head = estimator._fitted.head if "_fitted" in vars(estimator) else None
    heads = head.heads if isinstance(head, HeadGroup) else (head,)
    of_classes = [part for part in heads if isinstance(part, Head) and part.classes is not None]
    return next((part for part in of_classes if part.output not in ("probability", "logit")), None)


class KerasClassifier(ClassifierMixin, KerasEstimator):
    """A Keras model as a scikit-learn classifier.

    Example:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> cross_val_score(KerasClassifier(random_state=0), X, y, cv=3).min() > 0.9
    True

    A parameter without `__` that is not listed below is an argument of the build function, or else of
    `keras.Model.fit` or `compile`; it can be set, searched over and cloned like any other. A parameter with `__` says
    where it goes:

    - to the network: `model__hidden`, `optimizer__learning_rate`, `loss__label_smoothing`,
      `metrics__auc__num_thresholds`, `callbacks__early_stopping__patience`;
    - to a method of `keras.Model`: `fit__steps_per_epoch`, `predict__batch_size`, `compile__run_eagerly`;
    - to the head, as in `builders.head`: `head__kind`, `head__label_smoothing`, `head__from_logits`, `head__focal`,
      `head__class_weight`, `head__weight`;
    - to the strategy, as in `distribution.strategy`: `distribution__devices` and others;
    - to the columns of a table, as in `data.learn_table`, for a builder that takes them, such as `"tabular"`:
      `columns__categorical`, `columns__min_count`, `columns__max_categories`.

    `list_parameters()` lists all parameters of the model at hand with their values.

    Args:
        loss: Name, class, function or instance. Defaults to `None`: what the model was compiled with, or the
            cross-entropy that fits the labels.
        metrics: A metric or a list or dict of them. Defaults to `None`: what the model was compiled with, or accuracy.
        validation_split: Fraction of the rows that is held out for validation and not trained on, drawn at random with
            the proportions of the classes kept. Defaults to `0.0`.

    Attributes:
        classes_: Labels, shape `(n_classes,)`; for several targets a list of such arrays, one per target.
        n_classes_: Number of classes, or a list of them.
        n_features_in_: Number of features per row, for `X` of one array.
        feature_names_in_: Names of the features, for tables with string column names.
        columns_: The `TableEncoder` of the table, where the builder takes them.
    """

    _task = "classification"

    def partial_fit(  # type: ignore[override]
        self: Self,
        X: Rows,
        y: Target = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: object,
    ) -> Self:
        """Trains one more epoch on these rows; the first call builds the model.

        Args:
            X: Rows, as for `fit`.
            y: Labels, as for `fit`.
            classes: All labels there will be, shape `(n_classes,)`, in the first call. Defaults to `None`: those in
                `y`.
            sample_weight: Weights, as for `fit`. Defaults to `None`.
            **fit_params: Arguments of `keras.Model.fit` for this call, such as `epochs`.

        Returns:
            The estimator itself.

        Raises:
            DataError: `y` holds a label that was in neither `classes` nor the first call.
        """
        return super().partial_fit(X, y, sample_weight, classes=classes, **fit_params)

    def predict_proba(self, X: Rows, **predict_params: object) -> Any:
        """Predicts the probability of each class.

        Args:
            X: Rows, as for `fit`.
            **predict_params: Arguments of `keras.Model.predict` for this call.

        Returns:
            Shape `(n, n_classes)`, float64, in the order of `classes_`, each row adding up to 1; for several labels
            the probability of each label, for several targets a list of arrays.

        Raises:
            NotFittedError: `fit` was not called.
            DivergedError: As for `predict`.
        """
        raw = self._checked_output(X, **predict_params)
        return self.head_.probabilities(raw)

    def predict_log_proba(self, X: Rows, **predict_params: object) -> Any:
        """Predicts the logarithm of the probability of each class; see `predict_proba`."""
        probabilities = self.predict_proba(X, **predict_params)
        with np.errstate(divide="ignore"):
            if isinstance(probabilities, list):
                return [np.log(part) for part in probabilities]
            return np.log(probabilities)

    def decision_function(self, X: Rows, **predict_params: object) -> Any:
        """Scores each class: logits or margins of a model that puts them out, else log-odds of its probabilities.

        Args:
            X: Rows, as for `fit`.
            **predict_params: Arguments of `keras.Model.predict` for this call.

        Returns:
            Shape `(n,)` for two classes, positive where the second is predicted; else `(n, n_classes)`. There is
            none for several targets.

        Raises:
            NotFittedError: `fit` was not called.
            DivergedError: As for `predict`.
        """
        raw = self._checked_output(X, **predict_params)
        return self.head_.scores(raw)

    predict_proba = available_if(_has_probabilities)(predict_proba)
    predict_log_proba = available_if(_has_probabilities)(predict_log_proba)
    decision_function = available_if(_single_target)(decision_function)

    def __getattr__(self, name: str) -> Any:
        head = _without_probabilities(self) if name in ("predict_proba", "predict_log_proba") else None
        if head is not None:
            raise AttributeError(f"{type(self).__name__!r} has no {name!r} here. {head.why_no_probabilities}")
        return super().__getattr__(name)

    def score(self, X: Rows, y: Any = None, sample_weight: Any = None) -> float:
        """Mean accuracy; for several labels or targets a row counts when all of it is right, targets of numbers aside.

        Args:
            X: Rows, as for `fit`; a data set brings its own `y`.
            y: True labels.
            sample_weight: Weights, shape `(n,)`. Defaults to `None`.

        Returns:
            Fraction of 1.
        """
        X, y = self._with_true_target(X, y)
        if isinstance(getattr(self, "head_", None), HeadGroup) and type(self).scorer is KerasClassifier.scorer:
            predicted, true = self.predict(X), y
            if isinstance(predicted, Mapping):
                of_classes = [name for name, part in zip(predicted, self.head_.heads, strict=True) if part.n_classes]
                pairs = [np.asarray(true[name]) == predicted[name] for name in of_classes]
            else:
                pairs = list((np.asarray(true) == predicted).T)
            return float(np.average(np.all(pairs, axis=0), weights=sample_weight))
        return self._scored(y, self.predict(X), sample_weight, ours=KerasClassifier.scorer)

    @staticmethod
    def scorer(y_true: ArrayLike, y_pred: ArrayLike, **options: object) -> float:
        """What `score` computes; override it to score otherwise. `score__` parameters are its options.

        Args:
            y_true: True labels.
            y_pred: Predicted labels.
            **options: Arguments of `sklearn.metrics.accuracy_score`.

        Returns:
            Accuracy, fraction of 1.
        """
        return float(accuracy_score(y_true, y_pred, **options))

    def _head_attributes(self, head: AnyHead) -> dict[str, Any]:
        return {"classes_": head.classes, "n_classes_": head.n_classes}

    def _dataset_head(self, dataset: Dataset, classes: ArrayLike | None) -> Head | HeadGroup:
        if classes is None:
            _inputs.refuse_endless(dataset)
            targets = [y for _, y in _inputs.batches(dataset)]
            if isinstance(targets[0], (Mapping, list, tuple)):
                raise DataError(
                    "The data set has several targets. KerasClassifier reads one from a data set; give arrays, a dict "
                    "of targets as `y`, for several."
                )
            labels = np.concatenate(targets)
            if labels.ndim == 2 and labels.shape[1] > 1:
                return self._head_of(labels.astype(int) if np.array_equal(labels, labels.astype(int)) else labels)
            classes = np.unique(labels)
        classes = np.unique(np.asarray(classes))
        if not np.issubdtype(classes.dtype, np.number) or not np.array_equal(classes, np.arange(len(classes))):
            raise DataError(
                f"A data set goes to Keras as it is, so its labels must be the numbers 0, 1, 2, ...; found "
                f"{classes[:10].tolist()}. Encode them in the data set, or fit on arrays."
            )
        return self._head_of(classes.astype(int))

    def _with_class_weight(self, class_weight: ClassWeight, y: TargetArrays, weights: NDArray[Any] | None) -> Any:
        if class_weight is None:
            of_head = getattr(self.head_, "sample_weight", None)  # an encoder of the user's has none
            by_class = None if of_head is None else of_head(y)
        else:
            by_class = self._weights_by_class(class_weight, y)
        if by_class is None:
            return weights
        made = by_class if weights is None else weights * _inputs.of_ordinary_size(by_class)
        if not made.any():
            raise DataError("`class_weight` and `sample_weight` leave no row to learn from: all weigh 0.")
        return made

    def _weights_by_class(self, class_weight: Any, y: Any) -> Any:
        """Weights of rows, shape `(n,)`, from those of the classes of each target."""
        head = self.head_
        if isinstance(head, Head) and head.kind != "multilabel":
            return _of_one_target(class_weight, np.asarray(head.classes), head.class_numbers(y))
        labels: list[Any]
        if isinstance(head, Head):
            labels = [(np.arange(2), column.astype(int)) for column in np.asarray(y).T]
        elif isinstance(head, HeadGroup):
            pairs = list(zip(head.heads, head.split(y), strict=True))
            if head.names is not None:  # which may be in the order of the model
                by_name = dict(zip(head.names, pairs, strict=True))
                pairs = [by_name[name] for name in y if name in by_name]
            labels = [
                None if part.classes is None else (part.classes, part.class_numbers(column)) for part, column in pairs
            ]
        elif np.ndim(y) == 1:
            return _of_one_target(class_weight, *np.unique(y, return_inverse=True))
        else:
            labels = [np.unique(column, return_inverse=True) for column in np.asarray(y).T]
        each = [class_weight] * len(labels) if _is_balanced(class_weight) else class_weight
        if not isinstance(each, (list, tuple)) or len(each) != len(labels):
            raise ParameterError(
                f"`class_weight` must be a list of {len(labels)} dicts of weights by label, one for each column or "
                f"target of `y`, or 'balanced'; got {shown(class_weight)}."
            )
        found = [_of_one_target(one, *some) for one, some in zip(each, labels, strict=True) if some and one is not None]
        return np.prod(found, axis=0) if found else None

    def _class_weight_by_index(self, class_weight: ClassWeight) -> Any:
        if class_weight is None:
            return None
        if _is_balanced(class_weight):
            raise ParameterError("`class_weight='balanced'` needs all labels at once; give a dict for a data set.")
        if not isinstance(self.head_, Head) or self.head_.kind == "multilabel":
            raise ParameterError("`class_weight` weighs rows of a data set by one class each; these have several.")
        return dict(enumerate(weights_of_labels(class_weight, np.asarray(self.head_.classes)).tolist()))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _is_balanced(class_weight: object) -> bool:
    return isinstance(class_weight, str) and class_weight == "balanced"


def _of_one_target(class_weight: object, classes: NDArray[Any], numbers: NDArray[Any]) -> Any:
    """Weights of rows from the numbers of their classes."""
    if _is_balanced(class_weight):
        return compute_sample_weight("balanced", numbers)
    return weights_of_labels(class_weight, classes)[numbers]
