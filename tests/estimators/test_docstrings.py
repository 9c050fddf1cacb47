"""What docstrings say of arguments is read, and a class repeats what its parents say of those it inherits."""

from __future__ import annotations

import functools

import keras
import pytest

from kerastoolkit.estimators._docstrings import completed, documented


class Animal:
    """An animal.

    Args:
        name: What it is called,
            by its friends. Defaults to `"Rex"`.
        legs, eyes: How many.

    Attributes:
        age_: In years.
    """


class Dog(Animal):
    """A dog.

    Args:
        tail: Whether it has a tail to wag. Defaults to `True`.
        name: A dog's name.

    Raises:
        ValueError: It is a cat.
    """


class Puppy(Dog):
    """A young dog.

    Attributes:
        age_: In weeks.
        weight_: In kilograms.

    It sleeps a lot.
    """


class Plain(Dog):
    """A dog of which nothing is said."""


class Silent(Dog):
    pass


def test_inherited_descriptions_stand_beside_the_own_in_the_order_of_the_names() -> None:
    assert completed(Dog, ["legs", "tail", "name", "unknown"]) == (
        "A dog.\n\n"
        "Args:\n"
        "    legs, eyes: How many.\n"
        "    tail: Whether it has a tail to wag. Defaults to `True`.\n"
        "    name: A dog's name.\n\n"
        "Attributes:\n"
        "    age_: In years.\n\n"
        "Raises:\n"
        "    ValueError: It is a cat.\n"
    )
    assert completed(Puppy, ["name"]) == (
        "A young dog.\n\nArgs:\n    name: A dog's name.\n\n"
        "Attributes:\n    age_: In weeks.\n    weight_: In kilograms.\n\nIt sleeps a lot.\n"
    )
    assert "        by its friends." in (completed(Animal, ["name"]) or "")


def test_a_class_that_describes_nothing_stays_as_it_is() -> None:
    assert completed(Plain, ["name"]) == "A dog of which nothing is said."
    assert completed(Silent, ["name"]) is None


def test_the_first_sentence_of_each_argument_is_read() -> None:
    assert documented(Animal) == {
        "name": "What it is called, by its friends.",
        "legs": "How many.",
        "eyes": "How many.",
    }
    assert documented(functools.partial(documented)) == documented(documented)
    assert documented(Silent)["tail"] == "Whether it has a tail to wag."


@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.losses.Huber, keras.callbacks.EarlyStopping])
def test_the_docstrings_of_keras_are_read(kind: type) -> None:
    found = documented(kind)
    assert len(found) >= 3 and all(sentence[:1].isupper() and len(sentence) > 10 for sentence in found.values())
