"""Which name was meant by one that reaches nothing: near misses, and names from elsewhere.

A user of scikit-learn, Keras, scikeras or skorch writes `hidden_layer_sizes`, `lr` or `max_iter`, which no spelling
checker finds near `hidden`, `optimizer__learning_rate` or `epochs`; so does a user of names that kerastoolkit had once.
And a user of pipelines leaves out the name of the step, or writes it where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kerastoolkit._words import did_you_mean, near_misses

__all__ = ["HOW_TO_STOP_EARLY", "meant", "near_miss", "near_miss_elsewhere"]

HOW_TO_STOP_EARLY = (
    "Training is stopped early by a callback: `callbacks=keras.callbacks.EarlyStopping(patience=10)` together with "
    "`validation_split=0.1`; its options are then parameters, such as '{}callbacks__early_stopping__patience'."
)

# The names here, the most likely first, by the name elsewhere. An option is named without its place as well, where the
# place is given: of `optimizer__lr` only `lr` is looked up.
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
    "time_limit": ("distribution__timeout",),
    # texts
    "max_words": ("max_features",),
    "num_words": ("max_features",),
    "max_tokens": ("max_features",),
    "vocab_size": ("max_features", "vocabulary_size"),
    "min_count": ("min_df", "columns__min_count"),
    "min_frequency": ("min_df", "columns__min_count"),
    "length": ("max_length",),
    "maxlen": ("max_length",),
    "output_sequence_length": ("max_length",),
    "sequence_length": ("max_length",),
    "ngrams": ("ngram_range",),
    "embedding_size": ("embedding_dim",),
    "embed_dim": ("embedding_dim",),
    "output_dim": ("embedding_dim",),
    "d_model": ("embedding_dim",),
    "width": ("embedding_dim",),
    "n_heads": ("num_heads",),
    "embeddings": ("embedding",),
    # images
    "strategy": ("training", "distribution"),
    "base_model": ("backbone",),
    "model_name": ("backbone",),
    "architecture": ("backbone",),
    "image_size": ("input_size",),
    "img_size": ("input_size",),
    "target_size": ("input_size",),
    "augmentation": ("augment",),
    "data_augmentation": ("augment",),
    "trainable_layers": ("unfreeze",),
    "feature_layer": ("layer",),
    # skorch and others
    "max_epochs": ("epochs",),
    "module": ("model",),
    "criterion": ("loss",),
    "objective": ("loss",),
}

# Names without a counterpart here, and what to do instead.
_OTHERWISE: dict[str, str] = {
    "early_stopping": HOW_TO_STOP_EARLY,
    "n_iter_no_change": HOW_TO_STOP_EARLY,
    "patience": HOW_TO_STOP_EARLY,
    "tol": HOW_TO_STOP_EARLY,
    "batch_norm": "Did you mean `normalization='batch'`?",
    "batch_normalization": "Did you mean `normalization='batch'`?",
    "n_jobs": "A network uses all cores by itself; leave it out.",
}


# Options that the default optimizer does not have.
_OF = {
    "optimizer__momentum": "optimizer='sgd'",
    "optimizer__nesterov": "optimizer='sgd'",
    "optimizer__rho": "optimizer='rmsprop'",
}

_WHERE_STEPS_ARE_NAMED = (
    " {!r} would be the name of a step of a pipeline; it comes first if the pipeline is given the parameter."
)


def meant(name: str, fits: Callable[[str], bool], places: Sequence[str], *, start: str = "") -> str:
    """A sentence with the name that was meant, after a space, or nothing.

    Args:
        name: A name that does not reach anything.
        fits: Whether the estimator takes a name.
        places: What a routed parameter can begin with, such as `"optimizer"`.
        start: What names begin with if the estimator is part of another one. Defaults to `""`: it is not.
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


def near_miss(name: str, candidates: Iterable[str]) -> str:
    """A sentence with the candidate that was meant, after a space, or nothing.

    Args:
        name: What was given, of a routed parameter its last part.
        candidates: What there is.
    """
    known = sorted(set(candidates))
    elsewhere = [one for other in _ELSEWHERE.get(name.lower(), ()) for one in (other, other.rpartition("__")[2])]
    found = next((one for one in elsewhere if one in known), None)
    return f" Did you mean {found!r}?" if found else did_you_mean(name, known)


def near_miss_elsewhere(name: str, fits: Callable[[str], bool]) -> str:
    """The same for a misspelt name of another library, such as `lerning_rate`."""
    for other in near_misses(name, _ELSEWHERE, n=1):
        return meant(other, fits, ())
    return ""


def _asked(names: Sequence[str], start: str) -> str:
    of_one = next((f" It is an option of `{_OF[name]}`." for name in names if name in _OF), "")
    return f" Did you mean {' or '.join(repr(start + name) for name in names)}?{of_one}"


def _routed(place: str, rest: str, fits: Callable[[str], bool]) -> str | None:
    """The name that is routed to a place, if that has such an option."""
    known = [other for other in _ELSEWHERE.get(rest.lower(), ()) if other.startswith(f"{place}__")]
    return next((one for one in [*known, f"{place}__{rest}"] if fits(one)), None)


def _tails(name: str) -> Iterator[tuple[str, str]]:
    """A name without none, one, two, ... of its first parts, each with the parts that were left out."""
    parts = name.split("__")
    for number in range(len(parts)):
        yield "__".join(parts[number:]), "__".join(parts[:number])
