"""Parameters are declared once, and each class of estimator shows all that it takes as if it had listed them itself."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from kerastoolkit import ImageClassifier, ImageRegressor, KerasClassifier, KerasRegressor, KerasTransformer, estimators
from kerastoolkit.builders import get, list_builders
from kerastoolkit.estimators._base import KerasEstimator
from kerastoolkit.estimators._constructors import as_written
from kerastoolkit.estimators._parameters import keras_arguments
from kerastoolkit.exceptions import ParameterError

KINDS = [kind for kind in map(vars(estimators).get, estimators.__all__) if inspect.isclass(kind)]
SHARED = set(inspect.signature(KerasEstimator).parameters)


class Deep(KerasClassifier):
    """A classifier with parameters of its own.

    Args:
        depth: How deep it is. Defaults to `2`.
        epochs: Few. Defaults to `3`.
    """

    def __init__(
        self, depth: int = 2, *, epochs: int = 3, optimizer__learning_rate: float = 0.01, **params: Any
    ) -> None:
        super().__init__(**params)
        self.depth, self.epochs = depth, epochs


class Deeper(Deep):
    """One that adds nothing."""


class Open(Deep):
    """One that hands everything on, as it came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Closed(KerasRegressor):
    """One that hands nothing on."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__(epochs=depth)
        self.depth = depth


class Weighed(KerasRegressor):
    """A regressor that has a parameter which other regressors do without."""

    def __init__(self, model: Any = None, *, class_weight: Any = "by hand", **params: Any) -> None:
        super().__init__(model, **params)
        self.class_weight = class_weight


@pytest.mark.parametrize("kind", KINDS)
def test_each_shows_the_shared_parameters_that_it_takes_with_type_default_and_description(kind: Any) -> None:
    parameters = inspect.signature(kind).parameters
    without = {"class_weight"} if kind in (KerasRegressor, KerasTransformer, ImageRegressor) else set()
    without |= {"model", "build_fn"} if kind in (ImageClassifier, ImageRegressor) else set()
    assert SHARED - set(parameters) == without
    for name, parameter in parameters.items():
        assert parameter.annotation is not parameter.empty, name
        assert re.search(rf"^    (\*\*)?{name}: [A-Z`]", kind.__doc__, re.MULTILINE), name
        if parameter.kind is not parameter.VAR_KEYWORD:
            made = kind().get_params()[name]
            assert made == parameter.default, name
    assert len(re.findall(r"^    \*\*params: ", kind.__doc__, re.MULTILINE)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_descriptions_stand_in_the_order_of_the_signature_and_attributes_after_them(kind: Any) -> None:
    arguments, attributes = kind.__doc__.split("\nArgs:\n")[1].split("\nAttributes:\n")
    assert re.findall(r"^    [*]{0,2}(\w+): ", arguments, re.MULTILINE) == list(inspect.signature(kind).parameters)
    assert {"model_", "history_", "n_iter_", "best_epoch_"} <= set(
        re.findall(r"^    (\w+): ", attributes, re.MULTILINE)
    )


def test_a_subclass_of_the_users_shows_its_own_parameters_first_and_then_those_it_hands_on() -> None:
    for kind in (Deep, Deeper, Open):
        parameters = inspect.signature(kind).parameters
        assert list(parameters)[:3] == ["depth", "epochs", "optimizer__learning_rate"]
        assert set(parameters) == SHARED | {"depth", "optimizer__learning_rate"}
        assert parameters["epochs"].default == 3 and parameters["model"].kind is inspect.Parameter.KEYWORD_ONLY
        made = kind(4, batch_size=8, hidden=(3,))
        expected = {"depth": 4, "epochs": 3, "batch_size": 8, "hidden": (3,), "optimizer__learning_rate": 0.01}
        for one in (made, clone(made), pickle.loads(pickle.dumps(made)), kind().set_params(**expected)):
            assert expected.items() <= one.get_params().items()
        assert repr(kind(4, batch_size=8)) == f"{kind.__name__}(batch_size=8, depth=4)"
    assert re.search(r"^    depth: How deep .*\n    epochs: Few", Deep.__doc__ or "", re.MULTILINE)
    assert "    batch_size: Rows per step" in (Deep.__doc__ or "")
    assert Deeper.__doc__ == "One that adds nothing."  # which lists nothing, and is left as it is
    assert Closed(3).get_params() == {"depth": 3}
    assert Weighed().get_params()["class_weight"] == "by hand"


def test_what_is_written_is_told_from_what_is_added() -> None:
    """So that a journal knows a class again, whatever is added to it."""
    written = as_written(vars(Deep)["__init__"])
    assert written is not None and written.__code__.co_varnames[:2] == ("self", "depth")
    assert as_written(vars(Deeper)["__init__"]) is None
    assert as_written(KerasEstimator.__init__) is KerasEstimator.__init__


@pytest.mark.parametrize("kind", [*KINDS, Deep, Deeper])
def test_more_arguments_by_place_than_there_are_places_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}(\.__init__\(\))? takes .* but \d were given"):
        kind("mlp", (64, 32))
    if kind in (KerasClassifier, ImageClassifier):
        with pytest.raises(TypeError, match=rf"Name the others: {kind.__name__}\('mlp', epochs=10\)"):
            kind("mlp", (64, 32))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (KerasRegressor, "class_weight"),
        (KerasTransformer, "class_weight"),
        (ImageClassifier, "model"),
        (ImageRegressor, "class_weight"),
    ],
)
def test_a_shared_parameter_that_a_class_has_no_use_for_is_refused(kind: Any, name: str) -> None:
    X = np.zeros((4, 8, 8)) if kind in (ImageClassifier, ImageRegressor) else np.zeros((4, 3))
    made = kind(**{name: "mlp"})
    assert made.get_params()[name] == "mlp" and clone(made).get_params() == made.get_params()
    with pytest.raises(ParameterError, match=f"Invalid parameter '{name}' for estimator {kind.__name__}"):
        made.fit(X, np.array([0, 1, 0, 1]))


def test_what_a_subclass_may_set_is_the_name_of_no_parameter() -> None:
    """As an attribute of the class, it would hide the value of an argument of the build function."""
    builds = [get(name) for name in list_builders()]
    arguments = {name for build in builds for name in inspect.signature(build).parameters} - {"X", "y"}
    arguments |= {name for method in ("fit", "compile") for name in keras_arguments(method)} | {
        "task",
        "readers",
        "heads",
    }
    for kind in KINDS:
        public = {name for name in dir(kind) if not name.startswith("_")} - set(inspect.signature(kind).parameters)
        assert public & arguments <= {"model", "build_fn"}, kind
    made = KerasClassifier(lambda input_shape, task, readers: None, task=3, readers=4)
    assert (made.task, made.readers) == (3, 4)


@pytest.mark.parametrize("name", ["reader_names", "unused_parameters"])
def test_one_name_where_several_may_stand_is_refused_as_the_class_is_made(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"`{name}` of Mine must be a tuple of names, .*; got 'class_weight'"):
        type("Mine", (KerasClassifier,), {name: "class_weight"})
    assert (
        "class_weight" not in type("Mine", (KerasClassifier,), {"unused_parameters": ("class_weight",)})().get_params()
    )


def test_values_can_be_checked_before_there_is_data() -> None:
    KerasClassifier(epochs=3).check_parameters()
    with pytest.raises(ParameterError, match="`epochs` must be a whole number.*got 0"):
        KerasClassifier(epochs=0).check_parameters()
