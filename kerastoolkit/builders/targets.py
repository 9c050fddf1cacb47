"""What can be said about a target before there is a model: its kind, its labels and their weights, its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._values import is_number, shown
from kerastoolkit._words import did_you_mean
from kerastoolkit.exceptions import DataError, DivergedError, ParameterError

__all__ = [
    "ONE_COLUMN_PER_LABEL",
    "Array",
    "Kind",
    "NUMERIC_KINDS",
    "Shape",
    "check_finite",
    "check_kind",
    "floatx",
    "is_numeric",
    "offset_and_scale",
    "refuse_label_lists",
    "refuse_vanishing",
    "shortened",
    "to_floatx",
    "type_of_target",
    "weights_of_labels",
    "with_article",
]

Kind: TypeAlias = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "counts"]
Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]

NUMERIC_KINDS = ("regression", "counts")


# -- kinds ----------------------------------------------------------------------------------------------------------


def type_of_target(y: Array) -> str:
    """What scikit-learn calls a target, such as `"multiclass"` or `"continuous"`."""
    from sklearn.utils.multiclass import type_of_target

    if y.ndim == 1 and y.dtype.kind in "bi" and len(y):
        n_classes = len(np.unique(y))
        if n_classes <= len(y) / 4:  # of more, scikit-learn may have something to say
            return "binary" if n_classes <= 2 else "multiclass"
    with np.errstate(invalid="ignore"):  # it asks of each number whether it is whole, also of those beyond any integer
        return str(type_of_target(y, input_name="y"))


def is_numeric(y: Array, kind: str | None, task: str | None) -> bool:
    """Whether a target is numbers to predict, by what the user says and else by what it looks like."""
    if kind is not None or task is not None:
        return kind in NUMERIC_KINDS or (kind is None and task == "regression")
    return type_of_target(y).startswith("continuous")


def check_kind(kind: str, found: str, y: Array) -> None:
    """Refuses a kind that a target cannot be.

    Args:
        kind: What the user says that it is.
        found: What `type_of_target` says.
        y: The target.

    Raises:
        ParameterError: There is no such kind.
        DataError: The target cannot be of that kind.
    """
    kinds = get_args(Kind)
    if not isinstance(kind, str) or kind not in kinds:
        meant = did_you_mean(kind, kinds)
        raise ParameterError(f"`kind` is {kind!r}.{meant} It is one of {', '.join(map(repr, kinds))}.")
    columns = y.ndim > 1 and y.shape[1] > 1
    one_hot = found == "multilabel-indicator" and columns and bool(np.all(y.sum(axis=1) == 1))
    possible = {
        "binary": found == "binary",
        "multiclass": found in ("binary", "multiclass") or one_hot,
        "multilabel": found == "multilabel-indicator",
        "ordinal": found in ("binary", "multiclass") and y.dtype.kind in "fiub",  # names would be in alphabetical order
        "regression": y.dtype.kind in "fiub" or found.startswith("continuous"),
        "counts": y.dtype.kind in "fiub",
    }
    if not possible[kind]:
        raise DataError(
            f"`kind` is {kind!r}, but `y` looks {found}: shape {y.shape}, dtype {y.dtype}, beginning "
            f"{shortened(y.ravel())}."
            + (" Number the classes in their order: 0, 1, 2, ..." if kind == "ordinal" else "")
        )
    if kind == "counts" and y.size and (y.min() < 0 or np.any(y != np.round(y))):
        odd = y.ravel()[(y.ravel() < 0) | (y.ravel() != np.round(y.ravel()))][0]
        raise DataError(f"`kind` is 'counts', which are 0, 1, 2, ..., but `y` holds {odd.item()!r}.")


def refuse_label_lists(y: Array) -> None:
    """Refuses rows of labels in any order, `[["art", "money"], ["money", "sport"]]`, which are not two targets.

    Two questions with the same answers, yes and no, differ from them in that some row has the same answer twice.
    """
    if not all(isinstance(label, str) for label in y.ravel().tolist()):
        return
    columns = [set(column) for column in y.T.tolist()]
    shared = set.union(*(a & b for place, a in enumerate(columns) for b in columns[:place]))
    if shared and all(len(set(row)) == len(row) for row in y.tolist()):
        raise DataError(
            f"{sorted(map(str, shared))[0]!r} stands in several columns of `y`: its rows seem to have several labels "
            f"each. {ONE_COLUMN_PER_LABEL} Several targets that share their labels come as a dict: y={{'first': ..., "
            "'second': ...}."
        )


# What to do about rows with several labels each.
ONE_COLUMN_PER_LABEL = (
    "Give a column of 0 and 1 for each label: y = sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)."
)


# -- weights of labels ------------------------------------------------------------------------------------------------


def weights_of_labels(class_weight: object, classes: Array) -> Array:
    """Weights by label as an array in the order of the classes.

    Args:
        class_weight: A dict of weights by label, or a pandas Series with the labels as its index. A class that it does
            not name weighs 1.
        classes: Labels, shape `(n_classes,)`.

    Returns:
        Shape `(n_classes,)`, float64.

    Raises:
        ParameterError: It is something else, names a label that is not a class, or holds what cannot be a weight.
    """
    if hasattr(class_weight, "to_dict") and hasattr(class_weight, "index"):
        class_weight = class_weight.to_dict()
    if not isinstance(class_weight, Mapping):
        raise ParameterError(
            f"`class_weight` must be a dict of weights by label, 'balanced' or None; got {shown(class_weight)}."
            f"{_as_a_dict(class_weight, classes)}"
        )
    weights = np.ones(len(classes))
    places = {label: _place_of(label, classes) for label in class_weight}
    unknown = [label for label, place in places.items() if place is None]
    if unknown:
        raise ParameterError(f"`class_weight` has weights for {unknown}; the classes are {_labels_of(classes)}.")
    for label, weight in class_weight.items():
        if not is_number(weight) or weight < 0:
            raise ParameterError(
                f"`class_weight` has the weight {shown(weight)} for {label!r}; a weight is a finite number, 0 or more."
            )
        weights[places[label]] = float(weight)
    if not weights.any():
        raise ParameterError("`class_weight` is 0 for every class, which leaves nothing to learn from.")
    return weights


def _place_of(label: object, classes: Array) -> int | None:
    """The place of a label among the classes; a date may be of any type of dates."""
    known: list[Any] = classes.tolist()
    if label in known:
        return known.index(label)
    if classes.dtype.kind not in "Mm" or isinstance(label, (bool, int, float)):
        return None
    try:
        found = np.flatnonzero(classes == np.asarray(label, dtype=classes.dtype))
    except (TypeError, ValueError):
        return None
    return int(found[0]) if len(found) else None


def _labels_of(classes: Array) -> list[Any]:
    """Labels as a user writes them: dates as text, since numpy would make numbers of nanoseconds of them."""
    return list(map(str, classes)) if classes.dtype.kind in "Mm" else classes.tolist()


def _as_a_dict(values: Any, classes: Array) -> str:
    """A sentence with the dict to write, for weights that came without labels."""
    if isinstance(values, str) or np.ndim(values) != 1 or len(values) != len(classes) or len(classes) > 10:
        return ""
    pairs = zip(_labels_of(classes), np.asarray(values).tolist(), strict=True)
    return f" In the order of the classes that would be {dict(pairs)!r}."


# -- numbers ----------------------------------------------------------------------------------------------------------


def to_floatx(values: Array) -> Array:
    """Numbers in the type that Keras computes in.

    Args:
        values: Float64, shape `(n, targets)`.

    Raises:
        DataError: A number is so large that it would be infinite in that type.
    """
    limit = float(np.finfo(floatx()).max)
    if values.size and not (values.max() <= limit and values.min() >= -limit):
        largest = values.flat[int(np.argmax(np.abs(values)))]
        raise DataError(
            f"`y` holds {largest:.4g}, but a network computes in {floatx()}, which ends at {limit:.2g}. "
            f"{_RESCALE_TARGET}"
        )
    return values.astype(floatx(), copy=False)


def refuse_vanishing(values: Array, encoded: Array) -> None:
    """Refuses numbers so small that all of a column became 0 in the type that Keras computes in.

    Args:
        values: The numbers, shape `(n, targets)`.
        encoded: The same, from `to_floatx`.

    Raises:
        DataError: There is such a column.
    """
    gone = ~encoded.any(axis=0) & values.any(axis=0)
    if gone.any():
        largest = np.abs(values[:, int(np.argmax(gone))]).max()
        raise DataError(
            f"`y` holds no number beyond {largest:.4g}, but a network computes in {floatx()}, where that is 0. "
            f"{_RESCALE_TARGET}"
        )


_RESCALE_TARGET = (
    "Give it in another unit, or scale it by sklearn.compose.TransformedTargetRegressor(..., "
    "transformer=StandardScaler()); a builder of kerastoolkit does so by itself."
)


def offset_and_scale(
    columns: Array, kind: Kind, sample_weight: Array | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What numbers are trained on: `(y - offset) / scale`, one number of each for each target.

    Args:
        columns: The target, shape `(n, targets)`, float64.
        kind: `"regression"`, for mean 0 and deviation 1, or `"counts"`, for mean 1.
        sample_weight: Weights of the rows, shape `(n,)`. Defaults to `None`: equal weights.
    """
    # In units of the largest number, since the squares of 1e160 and of 1e-170 are beyond float64.
    unit = np.abs(columns).max(axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    mean = np.average(columns / unit, axis=0, weights=sample_weight)
    if kind == "counts":
        scale = np.where(mean > 0, mean * unit, 1.0)
        return (0.0,) * len(mean), tuple(scale.tolist())
    deviation = np.sqrt(np.average((columns / unit - mean) ** 2, axis=0, weights=sample_weight))
    deviation = np.where(deviation * unit > 0, deviation * unit, 1.0)
    return tuple((mean * unit).tolist()), tuple(deviation.tolist())


def check_finite(raw: Array, *, ruling_out: bool = False) -> None:
    """Refuses output of a network that is NaN or infinite.

    Args:
        raw: The output, shape `(n, ...)`.
        ruling_out: Whether minus infinity rules out a column, as long as another one of the row is left. Defaults to
            `False`.

    Raises:
        DivergedError: There is such a row; the message names the first, and says how many there are.
    """
    if raw.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore", over="ignore"):  # the sum of finite numbers need not be finite
        if np.isfinite(raw.sum()):
            return
    raw = raw.reshape(len(raw), -1)
    finite = np.isfinite(raw)
    if ruling_out:
        finite |= np.isneginf(raw) & finite.any(axis=1, keepdims=True)
    rows = np.flatnonzero(~finite.all(axis=1))
    if len(rows):
        raise DivergedError(
            f"The output of the network is NaN or infinite for {len(rows)} of {len(raw)} rows, the first of them row "
            f"{rows[0]}: {shortened(raw[rows[0]])}. No prediction, probability or score can be made of that. If it is "
            "so for many rows, the network diverged: train it with smaller steps (`optimizer__learning_rate`), clipped "
            "gradients (`optimizer__clipnorm=1.0`) or scaled inputs. If it is so for a few, look at their values: they "
            "take the network beyond the range of floats."
        )


# -- words for messages -----------------------------------------------------------------------------------------------


def floatx() -> str:
    """The type that Keras computes in, such as `"float32"`."""
    import keras

    return str(keras.config.floatx())


def with_article(kind: str) -> str:
    """The name of a kind after "a" or "an"."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def shortened(values: Array, max_shown: int = 10) -> str:
    """The first values of an array, for a message."""
    beginning = ", ".join(repr(value) for value in values[:max_shown].tolist())
    return f"[{beginning}{', ...' if len(values) > max_shown else ''}]"
