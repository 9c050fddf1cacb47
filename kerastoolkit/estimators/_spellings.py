"""What scikit-learn, Keras, scikeras and skorch call things that are called otherwise here.

Who comes from there writes `hidden_layer_sizes`, `lr` or `max_iter`, which no spelling checker finds near `hidden`,
`optimizer__learning_rate` or `epochs`. And who comes from a pipeline leaves out the name of the step, or writes it
where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kerastoolkit._words import near_misses

__all__ = ["HOW_TO_STOP_EARLY", "meant", "near_miss_elsewhere"]

HOW_TO_STOP_EARLY = (
    "Training is stopped early by a callback: `callbacks=keras.callbacks.EarlyStopping(patience=10)` together with "
    "`validation_split=0.1`; its options are then parameters, such as '{}callbacks__early_stopping__patience'."
)

# Names here, the most likely first, by the names elsewhere.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    # scikit-learn's MLPClassifier and its kin
    "hidden_layer_sizes": ("hidden",),
    "learning_rate_init": ("optimizer__learning_rate",),
    "eta0": ("optimizer__learning_rate",),
    "max_iter": ("epochs",),
    "n_iter": ("epochs",),
    "solver": ("optimizer",),
    "alpha": ("l2", "optimizer__weight_decay"),
    "momentum": ("optimizer__momentum",),
    "nesterovs_momentum": ("optimizer__nesterov",),
    "validation_fraction": ("validation_split",),
    "random_seed": ("random_state",),
    "seed": ("random_state",),
    # Keras, its books and its courses
    "lr": ("optimizer__learning_rate",),
    "learn_rate": ("optimizer__learning_rate",),
    "learning_rate": ("optimizer__learning_rate",),
    "nb_epoch": ("epochs",),
    "num_epochs": ("epochs",),
    "n_epochs": ("epochs",),
    "decay": ("optimizer__weight_decay",),
    "weight_decay": ("optimizer__weight_decay",),
    "beta_1": ("optimizer__beta_1",),
    "beta_2": ("optimizer__beta_2",),
    "epsilon": ("optimizer__epsilon",),
    "nesterov": ("optimizer__nesterov",),
    "rho": ("optimizer__rho",),
    "clipnorm": ("optimizer__clipnorm",),
    "clipvalue": ("optimizer__clipvalue",),
    "label_smoothing": ("head__label_smoothing",),
    "from_logits": ("head__from_logits",),
    "dropout_rate": ("dropout",),
    "drop_rate": ("dropout",),
    "hidden_layers": ("hidden",),
    "hidden_units": ("hidden",),
    "hidden_sizes": ("hidden",),
    "n_hidden": ("hidden",),
    "neurons": ("hidden",),
    "n_neurons": ("hidden",),
    "units": ("hidden",),
    "layers": ("hidden",),
    "activation_function": ("activation",),
    "class_weights": ("class_weight",),
    "callback": ("callbacks",),
    "metric": ("metrics",),
    "loss_function": ("loss",),
    # skorch and others
    "max_epochs": ("epochs",),
    "module": ("model",),
    "criterion": ("loss",),
    "objective": ("loss",),
}

# What has no name of its own here, with what to do instead.
_OTHERWISE: dict[str, str] = {
    "early_stopping": HOW_TO_STOP_EARLY,
    "n_iter_no_change": HOW_TO_STOP_EARLY,
    "patience": HOW_TO_STOP_EARLY,
    "tol": HOW_TO_STOP_EARLY,
    "batch_norm": "Did you mean `normalization='batch'`?",
    "batch_normalization": "Did you mean `normalization='batch'`?",
    "n_jobs": "A network uses all cores by itself; leave it out.",
}


# Options that the default optimizer has not.
_OF = {
    "optimizer__momentum": "optimizer='sgd'",
    "optimizer__nesterov": "optimizer='sgd'",
    "optimizer__rho": "optimizer='rmsprop'",
}

_WHERE_STEPS_ARE_NAMED = (
    " {!r} would be the name of a step of a pipeline, which comes first where the pipeline gets the parameter."
)


def meant(name: str, fits: Callable[[str], bool], places: Sequence[str], *, start: str = "") -> str:
    """A sentence with the name that was meant, after a space, or nothing.

    Args:
        name: A name that reaches nothing.
        fits: Whether the estimator takes a name.
        places: What a routed parameter may begin with, such as `"optimizer"`.
        start: What names begin with where the estimator is a part of another. Defaults to `""`: it is none.
    """
    first, _, rest = name.partition("__")
    for place in near_misses(first, places, n=1) if rest else ():
        if place != first and (routed := _routed(place, rest, fits)):
            return _asked([routed], start)
    for tail, prefix in _tails(name):
        if prefix and fits(tail):
            stands_alone = not start and prefix not in places
            return _asked([tail], start) + (_WHERE_STEPS_ARE_NAMED.format(prefix) if stands_alone else "")
        if known := [other for other in _ELSEWHERE.get(tail.lower(), ()) if fits(other)]:
            return _asked(known, start)
        if tail.lower() in _OTHERWISE:
            return f" {_OTHERWISE[tail.lower()].format(start)}"
    for place in places:
        before, _, rest = name.partition(f"{place}_")
        if not before and rest and not rest.startswith("_") and (routed := _routed(place, rest, fits)):
            return f" Did you mean {start + routed!r}, with two underscores?"
    return ""


def near_miss_elsewhere(name: str, fits: Callable[[str], bool]) -> str:
    """The same for a name that looks like one of another library: `lerning_rate`."""
    for other in near_misses(name, _ELSEWHERE, n=1):
        return meant(other, fits, ())
    return ""


def _asked(names: Sequence[str], start: str) -> str:
    of_one = next((f" It is an option of `{_OF[name]}`." for name in names if name in _OF), "")
    return f" Did you mean {' or '.join(repr(start + name) for name in names)}?{of_one}"


def _routed(place: str, rest: str, fits: Callable[[str], bool]) -> str | None:
    """The name that leads to a place, where that has such an option."""
    known = [other for other in _ELSEWHERE.get(rest.lower(), ()) if other.startswith(f"{place}__")]
    return next((one for one in [*known, f"{place}__{rest}"] if fits(one)), None)


def _tails(name: str) -> Iterator[tuple[str, str]]:
    """A name, and what is left of it without its first parts; each with what was left out."""
    parts = name.split("__")
    for number in range(len(parts)):
        yield "__".join(parts[number:]), "__".join(parts[:number])
