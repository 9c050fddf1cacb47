"""The names of a grid, compared with the estimator before anything trains.

scikit-learn sets the parameters of a candidate when its turn comes, and only then reports an unknown name, without
suggesting the right one. Here the whole grid is checked first, and the error has each unknown name with the full name
to write: for `"lr"`, `"kerasclassifier__optimizer__learning_rate"`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sklearn.base import BaseEstimator

from kerastoolkit import builders
from kerastoolkit._words import did_you_mean
from kerastoolkit.estimators import _parameters, _spellings
from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.exceptions import ParameterError

__all__ = ["check_grid"]


def check_grid(estimator: BaseEstimator, grid: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Refuses names that are no parameter, and values that mean something else than they seem to.

    Args:
        estimator: What is searched: an estimator of ours, or a pipeline or other estimator that contains some.
        grid: A dict of values or distributions by name, or a list of such dicts.

    Raises:
        ParameterError: There are some; the message has all of them, each with what to write.
    """
    if not hasattr(estimator, "get_params"):
        return  # scikit-learn will report it
    complaints: dict[str, None] = {}
    for one in [grid] if isinstance(grid, Mapping) else grid if isinstance(grid, (list, tuple)) else []:
        if isinstance(one, Mapping) and all(isinstance(name, str) for name in one):
            complaints |= dict.fromkeys(_complaints(estimator, one))
    if complaints:
        raise ParameterError("\n".join(complaints))


def _complaints(estimator: BaseEstimator, grid: Mapping[str, Any]) -> Iterator[str]:
    parts = dict(_parts(estimator, ""))
    # Where steps and models are searched as well, their parameters are not known yet.
    replaced = [name for name in grid if f"{name}__" in parts]
    networks = {start: part for start, part in parts.items() if isinstance(part, KerasEstimator)}
    for start, part in networks.items():
        if {start + "model", start + "build_fn", start + "backbone", start + "training"} & set(grid):
            replaced.append(start)
        for name, values in grid.items():
            if start == name[: len(start)] and _is_one_network(part, name[len(start) :], values):
                yield _words_on_layers(name, values)
    for name in grid:
        if networks and not any(name.startswith(one) for one in replaced) and not _is_known(estimator, name):
            if not isinstance(_reached(estimator, name)[0], KerasEstimator) or len(parts) > 1:
                yield _words_on_name(estimator, name, networks)


def _parts(estimator: BaseEstimator, start: str) -> Iterator[tuple[str, BaseEstimator]]:
    """An estimator and those inside it, each with the prefix of the names of its parameters."""
    yield start, estimator
    if isinstance(estimator, KerasEstimator):
        return
    for name, value in estimator.get_params().items():
        if "__" not in name and hasattr(value, "get_params") and not isinstance(value, type):
            yield from _parts(value, f"{start}{name}__")


def _reached(estimator: BaseEstimator, name: str) -> tuple[BaseEstimator, str]:
    """The innermost estimator that a name leads to, and the rest of the name."""
    first, routed, rest = name.partition("__")
    if isinstance(estimator, KerasEstimator) or not routed:
        return estimator, name
    inner = estimator.get_params().get(first)
    return _reached(inner, rest) if hasattr(inner, "get_params") else (estimator, name)


def _is_known(estimator: BaseEstimator, name: str) -> bool:
    part, rest = _reached(estimator, name)
    return _takes(part, rest)


def _takes(part: BaseEstimator, name: str) -> bool:
    """Whether an estimator, or one inside it, has a parameter of this name."""
    if not isinstance(part, KerasEstimator):
        return name in part.get_params()
    try:
        part._check_names([] if name in part._get_param_names() else [name], _build(part))
    except ParameterError:
        return False
    return True


def _words_on_name(estimator: BaseEstimator, name: str, networks: Mapping[str, KerasEstimator]) -> str:
    meant = _meant(estimator, name, networks)
    steps = [step for step, _ in getattr(estimator, "steps", ())]
    hint = (
        f" In a pipeline the name of the step comes first, and two underscores; the steps are: "
        f"{', '.join(map(repr, steps))}."
        if steps
        else ""
    )
    return f"Invalid parameter {name!r} for estimator {type(estimator).__name__}.{meant}{hint}"


def _meant(estimator: BaseEstimator, name: str, networks: Mapping[str, KerasEstimator]) -> str:
    """A sentence with the full name that was probably meant, after a space; or nothing."""
    parts = dict(_parts(estimator, ""))
    tails = ["__".join(name.split("__")[number:]) for number in range(name.count("__") + 1)]
    for tail in tails:
        for start, part in {**networks, **parts}.items():
            if start + tail != name and _takes(part, tail):
                return f" Did you mean {start + tail!r}?"
    for start, part in networks.items():
        for tail in tails:
            fits = functools.partial(_takes, part)
            said = _spellings.meant(tail, fits, _parameters.DESTINATIONS, start=start)
            if said:
                return said
    known = [start + one for start, part in parts.items() for one in _names_of(part)]
    return did_you_mean(name, known)


def _names_of(part: BaseEstimator) -> Sequence[str]:
    names = list(part.get_params(deep=False))
    if isinstance(part, KerasEstimator):
        names += (_parameters.build_arguments(_build(part)) or set()) - {"columns", "head", "input_shape"}
    return names


def _build(part: KerasEstimator) -> Any:
    return part._build_function(getattr(part, "model", None), getattr(part, "build_fn", None))


# -- values ---------------------------------------------------------------------------------------------------------

# Arguments of our builders whose value is a sequence: a number for each layer.
_PER_LAYER = {"filters", "head_hidden", "hidden", "input_hidden"}


def _is_one_network(part: KerasEstimator, name: str, values: object) -> bool:
    """Whether a tuple of numbers seems to be the layers of one network, while a search tries each number by itself."""
    plain = name.removeprefix("model__")
    is_tuple = isinstance(values, tuple) and len(values) > 1 and not isinstance(values[0], (tuple, list))
    return is_tuple and plain in _PER_LAYER and builders.is_ours(_build(part))


def _words_on_layers(name: str, values: tuple[Any, ...]) -> str:
    return (
        f"{name!r} is given as {values!r}, of which a search tries each number by itself, {len(values)} networks of "
        f"one layer. For one network of {len(values)} layers write {{{name!r}: [{values!r}]}}, for {len(values)} "
        f"networks {{{name!r}: {list(values)!r}}}."
    )
