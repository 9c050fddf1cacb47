"""How the model of one fit is made and compiled: from the parameters as they were then, long after, if need be.

A search makes hundreds of fits of whose models nobody ever asks for most. So nothing here holds on to the estimator or
to its rows: an `EstimatorRecipe` has the parameters, what was learned of the data, and a single row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sklearn.utils.multiclass import type_of_target

from kerastoolkit import _copies, _keras, builders
from kerastoolkit._values import is_whole
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.data.readers import Reader
from kerastoolkit.distribution import Strategy, strategy
from kerastoolkit.estimators import _inputs, _objects, _parameters
from kerastoolkit.estimators._encoders import EncoderHead, FeatureEncoder, TargetEncoder, metadata
from kerastoolkit.estimators._readers import Data, EncodedReader
from kerastoolkit.estimators.fitted import AnyHead, Fitted
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.training.network import Recipe

if TYPE_CHECKING:
    import keras

# Parameters of which an object is made anew for each model.
MAKERS: dict[str, Callable[..., Any]] = {
    "optimizer": _objects.make_optimizer,
    "loss": _objects.make_loss,
    "metrics": _objects.make_metrics,
}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters of an estimator at one moment.

    Args:
        values: Those of its constructor and of `KerasEstimator`'s, by name.
        declared: Names of those that users may set; the constructor of a subclass may have fewer.
        others: Arguments of the build function, and routed parameters (`optimizer__learning_rate`), by name.
    """

    values: Mapping[str, Any]
    declared: tuple[str, ...]
    others: Mapping[str, Any]

    def below(self, name: str) -> dict[str, Any]:
        """Parameters that are routed to something, by their own names."""
        return _parameters.below(self.others, name)

    def is_set(self, name: str) -> bool:
        """Whether a declared one says something; of one that does not, a build function keeps its own default."""
        value = self.values[name]
        return value is not None and not (name == "callbacks" and isinstance(value, (list, tuple)) and not value)

    def maker(self, name: str) -> Callable[[], Any]:
        """Makes what a build function gets for a declared one: as it is, or with the options routed to it."""
        spec, options = self.values[name], self.below(name)
        if name not in MAKERS or (not options and isinstance(spec, str)):
            return lambda: spec
        return lambda: MAKERS[name](spec, options)

    def all(self) -> dict[str, Any]:
        """All that users may set, as `get_params` returns them: those of estimators among them as well."""
        found = {name: self.values[name] for name in self.declared}
        for name, value in list(found.items()):
            if hasattr(value, "get_params") and not isinstance(value, type):
                found |= {f"{name}__{inner}": one for inner, one in value.get_params().items()}
        return {**found, **self.others}


def strategy_of(parameters: Parameters) -> Strategy | None:
    """The strategy that the parameters of an estimator ask for; None to leave all to Keras.

    Raises:
        ParameterError: They name none that there is, or one that these processes and devices cannot have.
    """
    name, precision = parameters.values["distribution"], parameters.values["precision"]
    options = parameters.below("distribution")
    if name is None and options:
        raise ParameterError(
            f"`distribution__{next(iter(options))}` is an option of a strategy, and `distribution` names none."
        )
    if name is None and precision is None:
        return None
    if not isinstance(name, (str, type(None))):
        raise ParameterError(
            f"`distribution` must be the name of a strategy, such as 'auto', or None; got {name!r}. "
            "Its options are parameters of their own: distribution__devices, ..."
        )
    with _parameters.named_below("distribution"):
        found = strategy(name or "none", precision=precision, **options)
    if found.n_processes > 1 and parameters.values["random_state"] is None:
        raise ParameterError(
            f"{found.n_processes} processes train one model, and have to begin alike: give `random_state`."
        )
    return None if found.changes_nothing else found


# -- compiling ------------------------------------------------------------------------------------------------------


def compile_arguments(
    parameters: Parameters,
    head: AnyHead,
    *,
    defaults: bool,
    model: keras.Model | None = None,
    to_look_at: bool = False,
) -> dict[str, Any]:
    """Arguments of `Model.compile` that the user set.

    Options without a value of their own (`optimizer__learning_rate` alone) change what the model was compiled with, or
    the default.

    Args:
        parameters: Those of the estimator.
        head: Knows loss and metrics that fit the target.
        defaults: Whether to add those that nobody set.
        model: The model, if it is there. Defaults to `None`.
        to_look_at: Whether the optimizer is only looked at, and need not be made. Defaults to `False`.
    """
    accepted = _parameters.keras_arguments("compile")
    arguments = {name: _parameters.plain(value) for name, value in parameters.others.items() if name in accepted}
    arguments |= parameters.below("compile")
    arguments = {name: _copies.copied(value) for name, value in arguments.items()}
    if arguments.get("weighted_metrics") is not None:
        arguments["weighted_metrics"] = _objects.make_metrics(arguments["weighted_metrics"], {})
    if isinstance(head, (Head, HeadGroup)):
        for metrics in (parameters.values["metrics"], arguments.get("weighted_metrics")):
            head = head.for_metrics(metrics)
    fallback = {"optimizer": "adam", "loss": head.loss, "metrics": head.metrics}
    makers = {**MAKERS, "optimizer": _objects.optimizer_to_look_at} if to_look_at else MAKERS
    if is_whole(arguments.get("loss_weights")):
        arguments["loss_weights"] = float(arguments["loss_weights"])  # Keras takes no other number
    weights = getattr(head, "loss_weights", None)
    if weights is not None and defaults:
        arguments.setdefault("loss_weights", weights)
    for name, make in makers.items():
        options = parameters.below(name)
        spec = parameters.values[name]
        if spec is None and model is not None and model.compiled and options:
            spec = _compiled_with(model, name)
        if spec is None and (defaults or options):
            spec = fallback[name]
        if spec is not None and name not in arguments:
            arguments[name] = make(spec, options)
    return arguments


def _compiled_with(model: keras.Model, name: str) -> Any:
    arguments = _keras.compile_arguments(model)
    return getattr(model, name, None) if arguments is None else arguments.get(name)


def _keep_loss_scaling(model: keras.Model) -> None:
    """Compiles a model of half precision with the scaling of its loss.

    Keras adds that by itself, and forgets it when it saves the model: the file could not be read without the same
    policy set.
    """
    import keras

    arguments = _keras.compile_arguments(model)
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) and arguments is not None:
        model.compile(**{**arguments, "optimizer": model.optimizer})


# -- making ---------------------------------------------------------------------------------------------------------


class EstimatorRecipe:
    """How the parameters of an estimator make the models of one fit: what is behind the `Recipe` of its `Network`.

    Args:
        build: The function that builds the model; None for copies of a model that is a parameter.
        parameters: Those of the estimator.
        data: The form of the data, see `Data.form`.
        head: Encodes the target, and knows its loss.
        fitted: What was learned so far.
        task: `"classification"`, `"regression"` or `"reconstruction"`.
        wrapped: What is called in the place of `build`, with its arguments. Defaults to `None`: `build` itself.
        offered: What an estimator hands to every build function that names it. Defaults to nothing.
    """

    def __init__(
        self,
        build: Callable[..., Any] | None,
        parameters: Parameters,
        data: Data,
        head: AnyHead,
        fitted: Fitted,
        task: str,
        *,
        wrapped: Callable[..., Any] | None = None,
        offered: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        self._build, self._wrapped = build, build if wrapped is None else wrapped
        self._parameters, self._data, self._head, self._task = parameters, data, head, task
        self._reader, self._known, self._strategy = fitted.reader, fitted.known, fitted.strategy
        self._offered = {} if offered is None else offered
        self._handed_over: dict[str, Any] = {}  # arguments of `compile` that the build function took
        self._consumed: set[str] = set()  # all arguments that it took

    def for_network(self) -> Recipe:
        """The same as a `Network` takes it."""
        # No structure is shared between models under a strategy and others.
        function = None
        if self._wrapped is not None and self._strategy is None:
            function = (self._wrapped, self._build_arguments())
            if isinstance(self._head, Head) and builders.is_ours(self._wrapped):
                # The unit of a target differs from fold to fold, and no builder of ours looks at it.
                function[1]["head"] = dataclasses.replace(self._head, offset=(), scale=())
        return Recipe(self.build, self.compile, function=function, compile_arguments=self.compile_arguments)

    def build(self) -> keras.Model:
        """A new model, compiled if its function does that."""
        with self._scope():
            if self._wrapped is None:
                values = self._parameters.values
                return copied_model(values["model"] if values["model"] is not None else values["build_fn"])
            model = self._wrapped(**self._build_arguments())
            if not is_built(model):
                raise ParameterError(
                    f"{_parameters.describe(self._wrapped)} returned {model!r}, not a keras.Model. "
                    "Does it end in `return model`?"
                )
            if not model.built:
                model(one_row(self._data))
            return model

    def compile(self, model: keras.Model) -> None:
        """Compiles a model, or compiles it anew where a parameter speaks that its function did not take."""
        head = self._head
        with self._scope():
            if not model.compiled:
                fitting = head.for_model(model) if isinstance(head, Head) else head
                model.compile(**(self._handed_over or compile_arguments(self._parameters, fitting, defaults=True)))
            elif not self._handed_over:
                ours = compile_arguments(self._parameters, head, defaults=False, model=model)
                ours = {name: value for name, value in ours.items() if name not in self._consumed}
                if ours:
                    theirs = _keras.compile_arguments(model) or {"optimizer": model.optimizer, "loss": model.loss}
                    model.compile(**{**theirs, **ours})
            if self._parameters.values["precision"] is not None:
                _keep_loss_scaling(model)

    def compile_arguments(self, compiled: bool) -> Mapping[str, Any]:
        """What `compile` will pass to Keras, to be compared.

        Args:
            compiled: Whether the build function compiles.
        """
        if self._handed_over:
            return {}
        if not compiled:
            return compile_arguments(self._parameters, self._head, defaults=True, to_look_at=True)
        # What a compiled model is compiled with anew is known by the parameters that ask for it.
        named = {*MAKERS, "compile", *_parameters.keras_arguments("compile")}
        routed = {name: value for name, value in self._parameters.others.items() if name.split("__")[0] in named}
        return {"parameters": {**routed, **{name: self._parameters.values[name] for name in MAKERS}}}

    def _scope(self) -> Any:
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def _compile_kwargs(self) -> dict[str, Any]:
        self._handed_over.clear()
        # With a `target_encoder` there is no loss but the user's; scikeras hands over that there is none.
        self._handed_over.update({"loss": None, "metrics": None, "run_eagerly": False})
        self._handed_over.update(compile_arguments(self._parameters, self._head, defaults=True))
        return dict(self._handed_over)

    def _build_arguments(self) -> dict[str, Any]:
        parameters, reader, data = self._parameters, self._reader, self._data
        names = [name for name in parameters.declared if name not in ("model", "build_fn")]
        found = _objects.call_arguments(
            self._build,  # type: ignore[arg-type]
            routed=parameters.below("model"),
            undeclared={name: value for name, value in parameters.others.items() if "__" not in name},
            declared={name: parameters.maker(name) for name in names if parameters.is_set(name)},
            offered={
                "meta": lambda: meta(self._task, reader, self._known, data, self._head),
                "compile_kwargs": self._compile_kwargs,
                "params": lambda: {"run_eagerly": False, **parameters.all()},
                "input_shape": lambda: reader.row_shape if data.y is None else _inputs.shapes_of(data.X),
                "head": lambda: self._head,
                **{name: functools.partial(_itself, value) for name, value in reader.offered().items()},
                **self._offered,
            },
        )
        self._consumed.update(found)
        return found


def _itself(value: object) -> Any:
    return value


def is_built(model: object) -> bool:
    """Whether something is a model, and not what makes one."""
    import keras

    return isinstance(model, keras.Model)


@contextlib.contextmanager
def copying_models() -> Iterator[None]:
    """Keras copies a model by saving it, and warns that the optimizer of an untrained one has nothing to load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer", UserWarning)
        yield


def copied_model(model: keras.Model) -> keras.Model:
    """A copy of a model that a user gave.

    Raises:
        ParameterError: Keras cannot copy it.
    """
    try:
        with copying_models():
            return _copies.copied_model(model)
    except ParameterError:
        raise
    except Exception as error:
        raise ParameterError(
            f"`model` is a {type(model).__name__}, which Keras cannot copy ({error}); each fit works on a copy. "
            "Register its class with @keras.saving.register_keras_serializable(), or pass a function that builds it."
        ) from error


def one_row(data: Data) -> Any:
    """One row, to build a model with."""
    if data.sample is not None:
        import keras

        return keras.tree.map_structure(lambda part: part[:1], data.sample)
    row = _inputs.rows(data.X, slice(0, 1))
    return row.toarray() if hasattr(row, "toarray") else _inputs.for_keras(row)


# -- what scikeras tells --------------------------------------------------------------------------------------------


def meta(task: str, reader: Reader, known: Mapping[str, Any], data: Data, head: AnyHead) -> dict[str, Any]:
    """What scikeras tells a build function about the data, under scikeras' names."""
    n_outputs: Any
    if isinstance(head, EncoderHead):
        n_outputs, expected, kind = 1, head.n_outputs or 1, type_of_target(data.y)
    elif isinstance(head, HeadGroup):
        n_outputs, expected, kind = len(head.heads), len(head.heads), target_type(head)
    else:
        n_outputs = head.units if head.kind in ("multilabel", "regression", "counts") else 1
        expected, kind = 1, target_type(head)
    told: dict[str, Any] = {
        "X_shape_": known.get("X_shape_"),
        "X_dtype_": known.get("X_dtype_"),
        "y_dtype_": getattr(data.y, "dtype", None),
        "y_ndim_": getattr(data.y, "ndim", None),
        "n_features_in_": reader.n_features,
        "n_outputs_": n_outputs,
        "n_outputs_expected_": expected,
        "target_type_": kind,
    }
    if task == "classification":
        told |= {"classes_": head.classes, "n_classes_": head.n_classes}
    if reader.feature_names is not None:
        told["feature_names_in_"] = reader.feature_names
    feature_encoder = reader.encoder if isinstance(reader, EncodedReader) else FeatureEncoder()
    target_encoder = head.encoder if isinstance(head, EncoderHead) else TargetEncoder(head)
    told |= metadata(feature_encoder) | metadata(target_encoder)
    return told | {"feature_encoder_": feature_encoder, "target_encoder_": target_encoder}


def target_type(head: Head | HeadGroup) -> str:
    """scikit-learn's (and scikeras') name for a kind of target."""
    if isinstance(head, HeadGroup):
        return "continuous-multioutput" if head.kind == "regression" else "multiclass-multioutput"
    if head.kind in ("regression", "counts"):
        return "continuous" if head.units == 1 else "continuous-multioutput"
    if head.one_hot:
        return "multiclass-onehot"
    return {"multilabel": "multilabel-indicator", "ordinal": "multiclass"}.get(head.kind, head.kind)
