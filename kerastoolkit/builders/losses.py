"""Losses and metrics: which fit a target, and in what form those of a user's model compare it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kerastoolkit import _keras
from kerastoolkit._values import flag_wanted, fraction_wanted, number_wanted
from kerastoolkit.builders.targets import NUMERIC_KINDS, Kind, floatx
from kerastoolkit.exceptions import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = [
    "Encoding",
    "Loss",
    "Metrics",
    "accepts",
    "check_loss_options",
    "compiled_metrics",
    "flattened",
    "form_of_metric",
    "is_metric",
    "is_of_keras",
    "loss_for",
    "loss_name",
    "metric_name",
    "metrics_by_target",
    "metrics_for",
    "only_loss",
    "takes_logits",
]

Encoding: TypeAlias = Literal["numbers", "one_hot", "columns"]
Loss: TypeAlias = Any  # as `Model.compile` takes it: a name, a function or a `keras.losses.Loss`; None for none
Metrics: TypeAlias = Any  # as `Model.compile` takes them: names, functions or metrics, in lists or dicts


# -- for a target ---------------------------------------------------------------------------------------------------


def loss_for(kind: Kind, encoding: Encoding, *, from_logits: bool, label_smoothing: float, focal: float) -> Loss:
    """The Keras loss for a target: its name, or a loss where options ask for more than a name.

    Args:
        kind: Kind of the target.
        encoding: What Keras gets as `y`.
        from_logits: Classes: whether the output is logits.
        label_smoothing: Classes: fraction of a label that is spread over all classes.
        focal: Classes: gamma of the focal loss; 0 for the crossentropy.
    """
    if kind in NUMERIC_KINDS:
        return "mse" if kind == "regression" else "poisson"
    options: dict[str, Any] = {"from_logits": True} if from_logits else {}
    options |= {"label_smoothing": label_smoothing} if label_smoothing else {}
    options |= {"gamma": focal} if focal else {}
    if not options:
        if kind != "multiclass":
            return "binary_crossentropy"
        return "categorical_crossentropy" if encoding == "one_hot" else "sparse_categorical_crossentropy"
    import keras

    if kind != "multiclass":
        loss = keras.losses.BinaryFocalCrossentropy if focal else keras.losses.BinaryCrossentropy
    elif focal:
        # Keras' alpha is one factor for all classes: 1 leaves a focal loss of gamma 0 what the crossentropy is.
        loss, options["alpha"] = keras.losses.CategoricalFocalCrossentropy, 1.0
    elif label_smoothing or encoding == "one_hot":  # Keras' sparse loss does not smooth
        loss = keras.losses.CategoricalCrossentropy
    else:
        loss = keras.losses.SparseCategoricalCrossentropy
    return loss(**options)


def metrics_for(kind: Kind, n_axes: int, *, from_logits: bool) -> list[Any]:
    """The Keras metrics that a user expects beside the loss: names, or metrics where a name would not do.

    Args:
        kind: Kind of the target.
        n_axes: Numbers: axes of a row of the output, 0 where that is not known.
        from_logits: Classes: whether the output is logits.
    """
    if kind in NUMERIC_KINDS:
        return ["mae" if n_axes > 1 else "r2_score"]  # Keras' R2 is for two axes
    if kind == "multiclass" or (kind == "binary" and not from_logits):
        return ["accuracy"]
    import keras

    # Keras' "accuracy" compares the largest of several units, and cuts one unit at 0.5, also where it is a logit.
    return [keras.metrics.BinaryAccuracy(threshold=0.0 if from_logits else 0.5, name="accuracy")]


def check_loss_options(label_smoothing: object, from_logits: object, focal: object, weight: object) -> None:
    """Refuses options of a loss that are out of range.

    Raises:
        ParameterError: The message says which, all of them at once.
    """
    problems = [
        fraction_wanted("label_smoothing", label_smoothing),
        None if from_logits is None else flag_wanted("from_logits", from_logits),
        number_wanted("focal", focal),
        number_wanted("weight", weight),
    ]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise ParameterError("\n".join(found))


# -- of a model: losses ---------------------------------------------------------------------------------------------


def only_loss(loss: Loss) -> Loss:
    """The loss of a model of one output, which may be given in a list or dict."""
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        return loss[0]
    return loss


def _unwrapped(loss: Loss) -> Loss:
    """The function, of Keras' or of the user's, behind the name or wrapper that a loss is; else the loss itself."""
    import keras

    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return loss
    wrapped = getattr(loss, "fn", None)
    return wrapped if type(loss).__name__ == "LossFunctionWrapper" and wrapped is not None else loss


def _kind_of_loss(loss: Loss) -> Any:
    """The function or class that says what a loss is; for a class of the user's, the one of Keras' that it extends."""
    import keras

    loss = _unwrapped(loss)
    if not isinstance(loss, keras.losses.Loss):
        return loss
    kinds = [kind for kind in type(loss).__mro__ if kind.__module__.startswith("keras.")]
    special = [kind for kind in kinds if kind.__name__ not in ("Loss", "LossFunctionWrapper", "KerasSaveable")]
    return special[0] if special else type(loss)


def loss_name(loss: Loss) -> str:
    kind = _kind_of_loss(loss)
    name = str(getattr(kind, "__name__", type(kind).__name__))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def is_of_keras(loss: Loss) -> bool:
    kind = _kind_of_loss(loss)
    return str(getattr(kind, "__module__", "") or type(kind).__module__).startswith("keras.")


def takes_logits(loss: Loss) -> bool | None:
    """Whether a loss takes logits; None if it does not say."""
    said = _keras.keywords_of(loss).get("from_logits", getattr(loss, "from_logits", None))
    if said is None and is_of_keras(loss):
        return False
    return None if said is None else bool(said)


def accepts(loss: Loss, form: Encoding, n_classes: int) -> bool:
    """Whether a loss of the user's can be computed for `y` in a form.

    It is tried on more rows than there are classes, since Keras and numpy stretch axes that happen to fit.
    """
    import keras

    numbers = np.arange(n_classes + 2) % n_classes
    y_true = numbers.astype(floatx()) if form == "numbers" else np.eye(n_classes, dtype=floatx())[numbers]
    y_pred = np.full((len(numbers), n_classes), 1.0 / n_classes, dtype=floatx())
    try:
        _unwrapped(loss)(keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred))
    except Exception:  # the user's code may raise anything
        return False
    return True


# -- of a model: metrics ----------------------------------------------------------------------------------------------


def compiled_metrics(model: keras.Model) -> list[Metrics]:
    """The metrics that a model was compiled with, those that are weighted among them."""
    arguments = _keras.compile_arguments(model) or {}
    return [arguments[name] for name in ("metrics", "weighted_metrics") if arguments.get(name)]


def flattened(metrics: Metrics) -> list[Any]:
    """Each metric of lists and dicts."""
    if metrics is None:
        return []
    if isinstance(metrics, Mapping):
        metrics = list(metrics.values())
    return [one for part in metrics for one in flattened(part)] if isinstance(metrics, (list, tuple)) else [metrics]


def metrics_by_target(metrics: Metrics, names: Sequence[str] | None, n_targets: int) -> list[list[Any]]:
    """The metrics of each target, from a dict by name or a list by place, or from several of those.

    Args:
        metrics: The metrics of the model.
        names: Names of the targets, in their order; None if they have none.
        n_targets: Number of targets.
    """
    found: list[list[Any]] = [[] for _ in range(n_targets)]
    if isinstance(metrics, Mapping):
        for number, name in enumerate(list(names or [])[:n_targets]):
            found[number] = flattened(metrics.get(name))
    elif isinstance(metrics, (list, tuple)) and any(isinstance(part, Mapping) for part in metrics):
        for part in metrics:
            found = [one + more for one, more in zip(found, metrics_by_target(part, names, n_targets), strict=True)]
    elif isinstance(metrics, (list, tuple)) and len(metrics) == 1 and isinstance(metrics[0], (list, tuple)):
        return metrics_by_target(metrics[0], names, n_targets)
    elif isinstance(metrics, (list, tuple)) and len(metrics) == n_targets:
        found = [flattened(part) for part in metrics]
    return found


def metric_name(metric: object) -> str:
    if isinstance(metric, str):
        return metric
    kind = metric if isinstance(metric, type) or hasattr(metric, "__name__") else type(metric)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(kind.__name__)).lower()


def is_metric(name: str) -> bool:
    import keras

    try:
        return keras.metrics.get(name) is not None
    except (ValueError, TypeError):
        return False


def form_of_metric(metric: object) -> Literal["numbers", "one_hot", "labels"] | None:
    """The form of `y` that a metric of Keras compares; None for one that takes any, or is the user's."""
    import keras

    if isinstance(metric, str):
        if metric in ("accuracy", "acc", "crossentropy", "ce"):
            return None
        try:
            metric = keras.metrics.get(metric)
        except (ValueError, TypeError):
            return None  # Keras will say so
    kind = metric if isinstance(metric, type) or hasattr(metric, "__name__") else type(metric)
    name = metric_name(metric)
    if not str(kind.__module__).startswith("keras.") or name in ("mean", "sum", "mean_metric_wrapper"):
        return None
    if name == "accuracy" or getattr(metric, "sparse_y_pred", False):
        return "labels"
    if hasattr(metric, "sparse_y_true"):
        return "numbers" if metric.sparse_y_true else "one_hot"
    return "numbers" if name.startswith("sparse") else "one_hot"
