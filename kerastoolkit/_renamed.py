"""Names in files that were saved before the things they name were given other ones.

Whatever reads such a file asks here, once; the rest of the package knows the names of today alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["parameters", "vocabulary"]

_OF_IMAGES = {"strategy": "training"}
_OF_TEXTS = {"max_words": "max_features", "min_count": "min_df", "length": "max_length", "ngrams": "ngram_range"}
_BY_CLASS = {"ImageClassifier": _OF_IMAGES, "ImageRegressor": _OF_IMAGES, "TextClassifier": _OF_TEXTS}
_OF_VOCABULARIES = {"rarity": "idf", "length": "max_length", "ngrams": "ngram_range"}
_OF_ALL = {"distribution__time_limit": "distribution__timeout"}
# Arguments of builders; a function of the user's may have an argument of that name.
_OF_BUILDERS = {"embedding_size": "embedding_dim", "width": "embedding_dim"}


def parameters(saved: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The parameters of a saved estimator under the names of today.

    Args:
        saved: Values by name, as the file holds them.
        kind: Name of the estimator's class, of a subclass that of the class of ours that it extends.

    Returns:
        The same values by the names of today; the number `ngrams` has become the pair `ngram_range`.
    """
    names = _OF_ALL | _BY_CLASS.get(kind, {})
    model = saved.get("model")
    if model is None or isinstance(model, str) or _is_of_ours(model):
        names |= _OF_BUILDERS | {f"model__{old}": f"model__{new}" for old, new in _OF_BUILDERS.items()}
    found = _renamed(saved, names)
    if "ngrams" in saved and "ngrams" in names:
        found["ngram_range"] = {"tuple": [1, saved["ngrams"]]}  # as files have tuples
    return found


def vocabulary(config: object) -> Any:
    """The config of a saved `Vocabulary` under the names of today; what is no config stays what it is."""
    if not isinstance(config, Mapping) or "ngrams" not in config:
        return config
    return {**_renamed(config, _OF_VOCABULARIES), "ngram_range": [1, config["ngrams"]]}


def _renamed(saved: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in saved.items()}


def _is_of_ours(model: object) -> bool:
    """Whether a file names one of our builders."""
    return isinstance(model, Mapping) and str(model.get("reference")).startswith("kerastoolkit.builders.")
