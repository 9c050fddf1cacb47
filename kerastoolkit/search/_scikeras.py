"""Estimators of scikeras in a search: they are taken over, so that their fits are trained together."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, clone

from kerastoolkit.estimators._scikeras import from_scikeras, is_of_scikeras
from kerastoolkit.exceptions import ParameterError

__all__ = ["take_over"]


def take_over(estimator: BaseEstimator) -> tuple[BaseEstimator, list[str]]:
    """An estimator with those of kerastoolkit in place of those of scikeras.

    What a class of the user's overrides cannot be taken over; such an estimator stays, and trains by itself.

    Args:
        estimator: What is searched: an estimator of scikeras, a pipeline or another that holds some, or anything else.

    Returns:
        The estimator, which is the one that was given if nothing was taken over, and what to tell the user.
    """
    found = _found(estimator)
    ours: dict[str, Any] = {}
    notes = []
    for name, theirs in found.items():
        where = f"`estimator`, at {name!r}," if name else "`estimator`"
        kind = type(theirs).__name__
        try:
            # scikeras writes `verbose=1` out for every estimator, and a bar for each fit keeps fits apart.
            ours[name] = from_scikeras(theirs).set_params(verbose=0)
        except ParameterError as error:
            notes.append(
                f"{where} is a {kind} of scikeras that the search cannot take over, so that it trains one fit after "
                f"the other. {error}"
            )
        else:
            notes.append(
                f"{where} is a {kind} of scikeras. The search takes it over, so that its fits are trained together: "
                f"in `best_estimator_` a kerastoolkit.{type(ours[name]).__name__} stands in its place. To do so "
                "yourself, hand over kerastoolkit.from_scikeras(...)."
            )
    if "" in ours:
        return ours[""], notes
    return (clone(estimator).set_params(**ours) if ours else estimator), notes


def _found(estimator: BaseEstimator) -> dict[str, Any]:
    """Estimators of scikeras by the name of the parameter that they are; the empty name is the estimator itself."""
    if is_of_scikeras(estimator):
        return {"": estimator}
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        return {}
    return {name: value for name, value in estimator.get_params().items() if is_of_scikeras(value)}
