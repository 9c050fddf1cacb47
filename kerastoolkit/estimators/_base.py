"""What all estimators share: parameters, build, fit, predict, pickling.

The order of a fit: read the data and refuse what cannot be learned from; find the head for the target; build the
model and match it with the head; train; keep what came of it. All of it happens on generators and names of its own
(`training.isolated`), and an estimator whose fit fails is what it was before: what it learned is one record, `Fitted`.

What each step needs stands beside: `_readers` reads rows, `_recipe` makes and compiles models, `_fit_arguments` says
what `Model.fit` is called with, `_output` predicts, `saving` writes a record to a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from kerastoolkit import _copies, builders
from kerastoolkit._types import ClassWeight, Dataset, InputArrays, Rows, Target, TargetArrays, Validation
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.data.columns import TableEncoder
from kerastoolkit.data.readers import Reader, get_reader
from kerastoolkit.distribution import Strategy
from kerastoolkit.distribution import strategy as find_strategy
from kerastoolkit.estimators import (
    _constructors,
    _fit_arguments,
    _hints,
    _inputs,
    _output,
    _parameters,
    _readers,
    _registry,
    saving,
)
from kerastoolkit.estimators._divergence import (
    ADVICE,
    find_divergence,
    losses_of_weights,
    words_of_warning,
)
from kerastoolkit.estimators._encoders import EncoderHead, metadata, own_encoder
from kerastoolkit.estimators._readers import ArrayReader, Data, EncodedReader
from kerastoolkit.estimators._recipe import (
    ModelMaker,
    Parameters,
    copied_model,
    copying_models,
    is_built,
    meta,
    one_row,
)
from kerastoolkit.estimators.fitted import AnyHead, Fitted
from kerastoolkit.exceptions import (
    DataError,
    DivergedError,
    KerasToolkitWarning,
    ModelMismatchError,
    ParameterError,
    SavedFileError,
)
from kerastoolkit.training import Fit, isolated
from kerastoolkit.training.fit import is_scored
from kerastoolkit.training.fit import train as train_model
from kerastoolkit.training.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from kerastoolkit.estimators._listing import ParameterTable

    LossLike: TypeAlias = str | type[keras.Loss] | keras.Loss | Callable[..., Any]
    MetricLike: TypeAlias = str | type[keras.Metric] | keras.Metric | Callable[..., Any]
    CallbackLike: TypeAlias = type[keras.callbacks.Callback] | keras.callbacks.Callback

Self = TypeVar("Self", bound="KerasEstimator")

# Builders of kerastoolkit train this many epochs where `epochs` is not set, fewer once that is more than so many steps.
_EPOCHS, _STEPS, _FEWEST_EPOCHS = 100, 20_000, 10


class KerasEstimator(BaseEstimator):
    """What the estimators share. Not to be used directly: use `KerasClassifier` or `KerasRegressor`.

    Args:
        model: Name of a builder (`builders.list_builders()`); a function (or `keras.Model` class) that returns a
            compiled or uncompiled model; or a `keras.Model`, of which each fit trains a copy. A function may take any
            arguments; `input_shape`, `head` and `columns` are filled in where it has no default for them, `meta`,
            `compile_kwargs` and `params` as scikeras does. With `columns`, X is a table and the model has an input for
            each column. Defaults to `None`: `"mlp"`.
        build_fn: Old name of `model`. Defaults to `None`.
        optimizer: Name, class or instance. Defaults to `None`: what the model was compiled with, or Adam.
        loss: Name, class, function or instance. Defaults to `None`: what the model was compiled with, or the loss
            that fits the target.
        metrics: A metric or a list or dict of them. Defaults to `None`: what the model was compiled with, or those
            that fit the target.
        epochs: Number of epochs to train. Defaults to `None`: 1 for a model of yours, as in Keras; 100 for a builder of
            kerastoolkit, or fewer (but at least 10) where 100 would take more than 20,000 steps.
        batch_size: Rows per step; -1 for all of them. Defaults to `None`: 32, as in Keras.
        validation_batch_size: Rows per step of validation. Defaults to `None`: `batch_size`.
        validation_split: Fraction of the rows that is held out at random for validation, and not trained on. Defaults
            to `0.0`.
        shuffle: Whether to shuffle the rows before each epoch. Defaults to `True`.
        callbacks: A callback or a list or dict of them, as instances (each fit uses a copy) or classes. `None` trains
            without any, even where options of callbacks are set (`callbacks__patience`), as in a grid over
            `[None, EarlyStopping]`. Defaults to `()`: none.
        class_weight: Weights by label, as a dict or a pandas Series of finite numbers of at least 0, where a label that
            is not named weighs 1; a list of those for several targets; or `"balanced"`. Defaults to `None`: all
            labels weigh the same.
        warm_start: Whether `fit` continues to train the model of the last `fit`. Defaults to `False`.
        random_state: Seed, or a `RandomState` from which a seed is drawn, for weights, dropout, shuffling and
            `validation_split`; the global generators are left as they were. Defaults to `None`: seeds are drawn from
            the global generators.
        verbose: Keras' verbosity while training: 0, 1, 2, a bool or `"auto"`. Defaults to `0`.
        distribution: Name of a strategy of `kerastoolkit.distribution`: `"auto"`, `"mirrored"`, `"data_parallel"`, ...
            Its options are routed: `distribution__devices`. Defaults to `None`: what Keras does by itself.
        precision: Precision in which the model is built: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or
            `"auto"`; predictions are float32 or float64 all the same. Defaults to `None`: Keras' setting.
        **params: Arguments of the build function, and routed parameters.

    Attributes:
        model_: The trained `keras.Model`.
        history_: Losses and metrics by name, one number per epoch.
        n_iter_: Number of epochs trained.
        best_epoch_: The epoch, counted from 1, whose weights `EarlyStopping(restore_best_weights=True)` restored; None
            where no callback did. `history_["loss"][best_epoch_ - 1]` is its loss.
        head_: The `Head` that encodes `y` and decodes the output of `model_`.
        callbacks_: The callbacks of the last fit; not pickled.
    """

    _task = ""
    _readers: tuple[str, ...] = ("array", "table")  # what fitted ones may read their input by, as files name it
    _heads: Mapping[str, Any] = {"Head": Head, "HeadGroup": HeadGroup}  # by the name that their configs have for them
    _default_model = "mlp"  # where `model` is not set
    _left_out: tuple[str, ...] = ()  # shared parameters that a subclass has no use for

    # scikeras' way of subclassing: properties that return transformers. None: no encoder of one's own.
    feature_encoder: Any = None
    target_encoder: Any = None

    # What `fit` learned: the attributes with a trailing underscore are read from there. Not there before `fit`.
    _fitted: Fitted
    _family: str  # of a clone

    head_: Any
    columns_: TableEncoder

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        _registry.enter(cls)
        _constructors.complete(cls)

    # The one declaration of the parameters that all estimators share; `_constructors` tells how subclasses come by it.
    def __init__(
        self,
        model: str | keras.Model | Callable[..., keras.Model] | None = None,
        *,
        build_fn: Callable[..., keras.Model] | None = None,
        optimizer: str | type[keras.Optimizer] | keras.Optimizer | None = None,
        loss: LossLike | Sequence[LossLike] | Mapping[str, LossLike] | None = None,
        metrics: MetricLike | Sequence[MetricLike] | Mapping[str, MetricLike] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_batch_size: int | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        callbacks: CallbackLike | Sequence[CallbackLike] | Mapping[str, CallbackLike] | None = (),
        class_weight: Mapping[Any, float] | Sequence[Mapping[Any, float] | None] | str | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | str = 0,
        distribution: str | None = None,
        precision: str | None = None,
        **params: Any,
    ) -> None:
        self.model = model
        self.build_fn = build_fn
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metrics
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_batch_size = validation_batch_size
        self.validation_split = validation_split
        self.shuffle = shuffle
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.distribution = distribution
        self.precision = precision
        for name in _constructors.left_out(type(self)):  # type: ignore[arg-type]
            value = self.__dict__.pop(name)
            if value is not None:  # kept with those that no constructor declares, which `fit` checks
                params[name] = value
        # Undeclared and routed parameters live together in one place: as attributes they would be taken for the
        # estimator's own. `__getattr__` reads them.
        self._params = params

    # -- parameters -----------------------------------------------------------------------------------------------

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(_constructors.declared_names(cls))  # type: ignore[arg-type]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns all parameters: declared, arguments of the build function, and routed.

        Args:
            deep: Whether to look into parameters that are estimators themselves. Defaults to `True`.

        Returns:
            Values by name.
        """
        return {**super().get_params(deep), **self._params}

    def set_params(self: Self, **params: Any) -> Self:
        """Sets parameters: declared, arguments of the build function, or routed (`optimizer__learning_rate`).

        Args:
            **params: Values by name.

        Returns:
            The estimator itself.

        Raises:
            ParameterError: A name could reach nothing; the message names the near miss. Nothing is set then.
        """
        declared = set(self._get_param_names())
        others = {name: value for name, value in params.items() if name not in declared}
        if others:
            # What cannot be a model is refused by `fit`, as scikit-learn has it, and knows no arguments to check.
            try:
                build = self._build_function(params.get("model", self.model), params.get("build_fn", self.build_fn))
            except ParameterError:
                pass
            else:
                self._check_names(others, build)
        for name, value in params.items():
            if name in declared:
                setattr(self, name, value)
        self._params = {**self._params, **others}
        return self

    def list_parameters(self) -> ParameterTable:
        """Lists every parameter that this estimator takes with its model, the value in force and what it does.

        Beside those of the constructor these are the arguments of the function that builds the model (`hidden`,
        `dropout`), and what is routed: `optimizer__learning_rate`, `head__label_smoothing`,
        `callbacks__early_stopping__patience`. Each name is one for `set_params` and for a grid.

        Example:

        >>> table = KerasClassifier(hidden=(64, 32)).list_parameters()  # doctest: +SKIP
        >>> next(one.value for one in table if one.name == "hidden")  # doctest: +SKIP
        (64, 32)

        Returns:
            A tuple of named tuples `(name, value, default, goes_to, meaning)`, which prints as a text and shows as a
            table in a notebook; `pandas.DataFrame` makes a data frame of it.

        Raises:
            ParameterError: `model` is nothing that makes a model.
        """
        from kerastoolkit.estimators._listing import list_parameters

        return list_parameters(self)

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        """What a notebook shows: scikit-learn's diagram, and folded below it every parameter with its value."""
        bundle: dict[str, str] = super()._repr_mimebundle_(**options)
        if "text/html" in bundle:
            with contextlib.suppress(ValueError, TypeError):  # of parameters that `fit` will refuse
                listed = self.list_parameters()._repr_html_()
                bundle["text/html"] += f"<details><summary>All parameters</summary>{listed}</details>"
        return bundle

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        fitted = self.__dict__.get("_fitted")
        if fitted is not None:
            with contextlib.suppress(KeyError):
                return fitted.attribute(name)
        if name in self.__dict__.get("_params", ()):
            return self.__dict__["_params"][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _check_names(self, names: Iterable[str], build: Callable[..., Any] | None) -> None:
        _parameters.check_names(names, declared=self._get_param_names(), build=build, owner=type(self).__name__)

    def _build_function(self, model: object, build_fn: object) -> Callable[..., Any] | None:
        """The function that makes the model; None where the model is there already."""
        if model is not None and build_fn is not None:
            raise ParameterError("`model` and `build_fn` are both given; `build_fn` is the old name. Give `model`.")
        model = model if model is not None else build_fn
        if model is None:
            own: Callable[..., Any] | None = getattr(self, "_keras_build_fn", None)  # scikeras' way of subclassing
            return own if own is not None else builders.get(self._default_model)
        if isinstance(model, str):
            return builders.get(model)
        if callable(model) and not is_built(model):
            return model
        if is_built(model):
            return None
        raise ParameterError(
            f"`model` must be the name of a builder, a function that returns a keras.Model, or a keras.Model; got "
            f"{model!r}."
        )

    def _check_values(self) -> None:
        """Checks every parameter that can be checked before there is data."""
        taken = _parameters.build_arguments(self._build_function(self.model, self.build_fn)) or set()
        bare = (_parameters.keras_arguments("fit") | _parameters.keras_arguments("compile")) - taken
        problems = [
            *_parameters.complaints({name: getattr(self, name) for name in self._get_param_names()}),
            *_parameters.complaints({name: value for name, value in self._params.items() if name in bare}),
            *_parameters.complaints(_parameters.below(self._params, "fit"), "fit__"),
            *_parameters.complaints(_parameters.below(self._params, "predict"), "predict__"),
            *_parameters.complaints(_parameters.below(self._params, "compile"), "compile__"),
        ]
        if problems:
            raise ParameterError("\n".join(problems))
        _parameters.check_random_state(self.random_state)

    def _find_strategy(self) -> Strategy | None:
        """The strategy that the parameters ask for; None to leave all to Keras."""
        options = _parameters.below(self._params, "distribution")
        if self.distribution is None and options:
            raise ParameterError(
                f"`distribution__{next(iter(options))}` is an option of a strategy, and `distribution` names none."
            )
        if self.distribution is None and self.precision is None:
            return None
        if not isinstance(self.distribution, (str, type(None))):
            raise ParameterError(
                f"`distribution` must be the name of a strategy, such as 'auto', or None; got {self.distribution!r}. "
                "Its options are parameters of their own: distribution__devices, ..."
            )
        with _parameters.named_below("distribution"):
            found = find_strategy(self.distribution or "none", precision=self.precision, **options)
        if found.n_processes > 1 and self.random_state is None:
            raise ParameterError(
                f"{found.n_processes} processes train one model, and have to begin alike: give `random_state`."
            )
        return None if found.changes_nothing else found

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(
        self: Self,
        X: Rows,
        y: Target = None,
        sample_weight: ArrayLike | None = None,
        *,
        validation_data: Validation = None,
        **fit_params: object,
    ) -> Self:
        """Builds and trains the model.

        Args:
            X: Rows: an array, table or sparse matrix of shape `(n, ...)`; a dict or list of arrays for a model of
                several inputs; or a `tf.data.Dataset`, `keras.utils.PyDataset` or torch `DataLoader` of batches
                `(x, y)`. A sparse matrix is made dense as a whole where that takes 64 MiB at most, else one batch at a
                time, by `Model.fit`.
            y: Targets, shape `(n,)` or `(n, targets)`, of numbers also `(n, ...)`, such as `(n, steps, targets)`; or a
                dict of targets by output name. Leave it out for a data set.
            sample_weight: Weights of the rows, shape `(n,)`, not negative; only their ratios count, and 0 leaves a
                row out. Defaults to `None`.
            validation_data: `(X, y)` or `(X, y, sample_weight)` to watch while training, in the form of `X` and `y`,
                or a data set. Defaults to `None`.
            **fit_params: Arguments of `keras.Model.fit` for this call, over those of the estimator. Callbacks given
                here are used as they are, beside copies of the estimator's own. `groups` and `time`, shape `(n,)`,
                say what `validation_split` holds out: whole groups, such as patients, or the latest rows, as
                `kerastoolkit.data.holdout_indices` does.

        Returns:
            The estimator itself.

        Raises:
            ParameterError: A parameter could reach nothing or has an impossible value.
            DataError: `X` or `y` cannot be learned from.
            ModelMismatchError: The model does not fit the target.
            DivergedError: The network diverged among fits that are trained together and scored, as in a search of
                `kerastoolkit.search`, where that counts as a fit that failed; or on torch, whose binary crossentropy
                refuses to go on.

        Warns:
            KerasToolkitWarning: The network diverged: weights or loss are NaN or infinite. It is fitted, with its
                `history_`, but whatever would predict with it raises a DivergedError.
        """
        _parameters.check_values(fit_params)
        continuing = self.warm_start and self.__sklearn_is_fitted__()
        return self._fit(X, y, sample_weight, validation_data, fit_params, continuing=continuing)

    def partial_fit(
        self: Self, X: Rows, y: Target = None, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> Self:
        """Trains one more epoch on these rows; the first call builds the model.

        Args:
            X: Rows, as for `fit`.
            y: Targets, as for `fit`.
            sample_weight: Weights, as for `fit`. Defaults to `None`.
            **fit_params: Arguments of `keras.Model.fit` for this call, such as `epochs`.

        Returns:
            The estimator itself.

        Raises:
            The same as `fit`.
        """
        _parameters.check_values(fit_params)
        # Epochs count on, so that schedules and checkpoints by epoch do.
        first, more = self.current_epoch, fit_params.get("epochs")
        fit_params = {"initial_epoch": first, **fit_params, "epochs": first + (1 if more is None else int(more))}
        continuing = self.__sklearn_is_fitted__()
        return self._fit(X, y, sample_weight, None, fit_params, continuing=continuing)

    def initialize(self: Self, X: Rows, y: Target) -> Self:
        """Builds the model and learns the form of the data, without training: for a model that is trained already.

        Args:
            X: Rows, as for `fit`.
            y: Targets, as for `fit`.

        Returns:
            The estimator itself, ready to predict.

        Raises:
            The same as `fit`.
        """
        return self._fit(X, y, None, None, {}, continuing=False, train=False)

    @property
    def initialized_(self) -> bool:
        """Whether there is a model to predict with."""
        return self.__sklearn_is_fitted__()

    @property
    def current_epoch(self) -> int:
        """Epochs trained so far, 0 before `fit`."""
        return self._fitted.n_iter if "_fitted" in self.__dict__ else 0

    def _fit(
        self: Self,
        X: Rows,
        y: Target,
        sample_weight: ArrayLike | None,
        validation_data: Validation,
        fit_params: dict[str, Any],
        *,
        continuing: bool,
        train: bool = True,
        classes: ArrayLike | None = None,
    ) -> Self:
        build = self._build_function(self.model, self.build_fn)
        self._check_names(self._params, build)
        self._check_values()
        class_weight = _parameters.below(self._params, "fit").get("class_weight", getattr(self, "class_weight", None))
        call = _fit_arguments.Call.of(fit_params, classes=classes, class_weight=class_weight)
        strategy = self._find_strategy()
        had_diverged = continuing and self._fitted.has_diverged
        if continuing:
            saving.compile_loaded(self)
        history: dict[str, list[Any]] = {}
        with self._unchanged_by_errors():
            if continuing:
                self._move_to(strategy)
            data = self._read_all(X, y, sample_weight, call, reset=not continuing)
            head = self._fitted.head if continuing else self._head_for(X, data, build, call.classes)
            seed = self._next_seed(reset=not continuing)
            self._keep(strategy=strategy)
            with isolated(None):
                if not continuing:
                    self._build(build, data, head, seed)
                arguments = self._fit_arguments(build, data, validation_data, call.class_weight, call.fit_params, seed)
            network = self._fitted.network
            # What is infinite since it diverged is no constant.
            sums_at_first = list if had_diverged else network.sums_at_first()
            if train:
                self._check_before_training(build, data, arguments, continuing=continuing)
                history = self._train(arguments, seed, sums_at_first)
            else:
                self._keep(divergence=find_divergence(network, (), sums_at_first))
        self._tell_of_divergence(history, had_diverged)
        return self

    def _read_all(
        self, X: Rows, y: Target, sample_weight: ArrayLike | None, call: _fit_arguments.Call, *, reset: bool
    ) -> Data:
        """Reads what `fit` got: rows and targets, or a data set that brings both."""
        if _inputs.kind_of(X) == "dataset":
            if call.belonging:
                name = min(call.belonging)
                raise ParameterError(f"`{name}` has an entry a row, and a data set cannot be divided.")
            return self._read_dataset(X, y, sample_weight, self._validation_split(call.fit_params), reset=reset)
        data = self._read(X, y, sample_weight, reset=reset)
        data.belonging = _fit_arguments.by_rows(call.belonging, _inputs.n_rows(data.X))
        return data

    def _head_for(self, X: Rows, data: Data, build: Callable[..., Any] | None, classes: ArrayLike | None) -> AnyHead:
        """The head of what is to be predicted."""
        return self._dataset_head(X, classes) if data.y is None else self._make_head(data, build, classes)

    def _next_seed(self, *, reset: bool) -> int | None:
        """The seed of this fit: the next of a generator that lives as long as the network."""
        if reset:
            self._keep(generator=None if self.random_state is None else check_random_state(self.random_state))
        generator = self._fitted.generator
        return None if generator is None else int(generator.randint(2**31 - 1))

    def _build(self, build: Callable[..., Any] | None, data: Data, head: AnyHead, seed: int | None) -> None:
        """Builds the network, and holds head and network against each other."""
        self._keep(head=head, known={**self._fitted.known, **self._known_of(data, head)})
        self._keep(network=Network(self._model_maker(build, data, head).recipe(), seed))
        head = self._matched(head, data)
        self._keep(head=head, known={**self._fitted.known, **self._attributes_of(head)})

    def _keep(self, **fields: object) -> None:
        """Puts something else into the record of what was learned."""
        self._fitted = self._fitted.with_fields(**fields)

    def _take(self, fitted: Fitted) -> None:
        """Takes over a record from elsewhere, such as a file."""
        self._fitted = fitted.with_fields(known={**self._attributes_of(fitted.head), **fitted.known})

    def _matched(self, head: AnyHead, data: Data) -> AnyHead:
        """The head, fitted to the model; what a data set brings must have the form that the model takes."""
        model = self._fitted.network.example
        _hints.check_shapes(model, data.rows)
        if data.y is not None:
            _inputs.check_text(model, data.X)
        if isinstance(head, EncoderHead):
            return head.bind(model)
        shapes = _output_shapes(model, data)
        bound = head.bind(model) if shapes is None else head.bind(model, shapes)
        if data.y is None and isinstance(bound, Head):
            bound.check_encoded(data.sample_target)
        if isinstance(bound, Head) or (isinstance(bound, HeadGroup) and data.y is not None):
            bound.check_reach(model, data.sample_target if data.y is None else data.y)
        return bound

    def _check_before_training(
        self, build: Callable[..., Any] | None, data: Data, arguments: dict[str, Any], *, continuing: bool
    ) -> None:
        """Refuses callbacks that would wait for ever, and warns of inputs that are not scaled.

        Of the scale one clone tells for all: a search has as many as it has fits.
        """
        if "initial_epoch" not in arguments:  # one epoch of `partial_fit` is nothing to watch
            validates, of_batches = arguments["validation_data"] is not None, data.y is None
            callbacks = arguments["callbacks"]
            _hints.check_monitors(callbacks, self._fitted.network.example, validates=validates, is_dataset=of_batches)
        if continuing:
            return
        told = _hints.unscaled(self._fitted.network.example, data.rows, self, ours=self._is_of_ours(build))
        if told is not None:
            _hints.tell(self.__dict__.get("_family"), "scale", told, stacklevel=4)

    def _train(
        self, arguments: dict[str, Any], seed: int | None, sums_at_first: Callable[[], list[float]]
    ) -> dict[str, list[Any]]:
        """Trains, and returns the history of this training alone."""
        history = None
        own = {name: arguments.pop(name) for name in _FIT_FIELDS if name in arguments}
        own = {name: value for name, value in own.items() if value is not None}
        arguments = {name: value for name, value in arguments.items() if not _is_default_of_fit(name, value)}
        network = self._fitted.network
        try:
            fit = Fit(network, **own, seed=seed, strategy=self._fitted.strategy, options=arguments)
            history = train_model(fit).history
        except KeyboardInterrupt:
            # The user stopped it: what was trained so far is theirs, in a fitted estimator.
            history = getattr(network.history, "history", {})
            raise
        except RuntimeError as error:
            if "should be between 0 and 1" not in str(error):
                raise
            # So torch refuses NaN, where other backends compute a loss that is NaN.
            found = "its output is NaN, of which torch makes no loss"
            raise DivergedError(f"The network diverged: {found}. {ADVICE}") from error
        finally:
            if history is not None:
                self._remember(history, own["callbacks"])
                losses = losses_of_weights(history.get("loss", ()), own["callbacks"], own.get("initial_epoch", 0))
                self._keep(divergence=find_divergence(network, losses, sums_at_first))
        return dict(history)

    def _tell_of_divergence(self, history: dict[str, list[Any]], had_diverged: bool) -> None:
        """Warns of it once a fit is over and kept; in a search the fit has failed."""
        found = self._fitted.divergence
        if not is_scored():
            told = words_of_warning(found, history, had_diverged)
            if told is not None:
                warnings.warn(told, KerasToolkitWarning, stacklevel=4)
        elif found is not None:
            raise DivergedError(f"The network diverged: {found.words}. {ADVICE}")

    def _output(self, X: Rows, **predict_params: object) -> Any:
        """The same as `_raw`, of a network that did not diverge."""
        self._refuse_diverged()
        return self._raw(X, **predict_params)

    def _refuse_diverged(self) -> None:
        check_is_fitted(self)
        if self._fitted.has_diverged:
            words = self._fitted.divergence.words  # type: ignore[union-attr]
            raise DivergedError(
                f"The network diverged while it was trained: {words}. Nothing can be predicted with it, and it has no "
                f"score. {ADVICE}"
            )

    def _move_to(self, strategy: Strategy | None) -> None:
        """Makes the trained model anew under a strategy, where it was built under another or came from a file."""
        if strategy == self._fitted.strategy:
            return
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            self._fitted = self._fitted.with_model(copied_model(self.model_))
        if strategy is not None:  # its learning rate has been scaled
            strategy.keep_learning_rate(self._fitted.network.model)

    @property
    def model_(self) -> keras.Model:
        """The trained `keras.Model`, made when it is first asked for."""
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'model_'")
        return self._fitted.model

    @model_.setter
    def model_(self, model: keras.Model) -> None:
        self._fitted = self._fitted.with_model(model)

    @property
    def best_epoch_(self) -> int | None:
        """The epoch whose weights the last `fit` put back when it ended, counted from 1.

        It counts all epochs in `history_`, those of earlier calls with `warm_start` or `partial_fit` among them:
        `history_["loss"][best_epoch_ - 1]` is its loss. In a first `fit` it is the number that Keras prints for the
        epoch; `EarlyStopping.best_epoch` counts from 0.

        It is known of `keras.callbacks.EarlyStopping(restore_best_weights=True)`, whatever it monitors and whether or
        not it ended the training early: Keras puts the best weights back in either case. It is None where no such
        callback was there, so that the weights are those of the last epoch; and where the network has other weights
        than the callback kept, because another callback changed them or `Model.fit` was interrupted.
        """
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'best_epoch_'")
        return self._fitted.best_epoch

    def _remember(self, history: Mapping[str, list[Any]], callbacks: list[Any]) -> None:
        fitted = self._fitted
        restored = _restored_epoch(fitted.network, callbacks)
        kept = dict(fitted.history)
        for name, values in history.items():
            kept[name] = [*kept.get(name, []), *map(_number, values)]
        self._keep(
            history=kept, n_iter=len(kept.get("loss", [])), callbacks=callbacks,
            best_epoch=None if restored is None else fitted.n_iter + restored,
        )  # fmt: skip

    @contextlib.contextmanager
    def _unchanged_by_errors(self) -> Iterator[None]:
        before = dict(self.__dict__)
        network = self._fitted.network if self.__sklearn_is_fitted__() else None
        kept = None if network is None else network.snapshot()
        try:
            yield
        except BaseException as error:
            # Of a training that the user stopped, what was trained so far is theirs.
            if isinstance(error, Exception) or not self.__sklearn_is_fitted__():
                self.__dict__.clear()
                self.__dict__.update(before)
                if network is not None:
                    network.restore(kept)
            raise

    # -- data -----------------------------------------------------------------------------------------------------

    def _read(self, X: Rows, y: Target, sample_weight: ArrayLike | None, *, reset: bool) -> Data:
        if y is None:
            raise DataError(f"{type(self).__name__}.fit requires y to be passed, but the target y is None.")
        if reset:
            reader, X = self._learn_reader(X, _inputs.length_of(y))
            known = {"X_shape_": getattr(X, "shape", None), "X_dtype_": getattr(X, "dtype", None)}
            self._fitted = Fitted(reader, known=known)
        else:
            X = self._encode(X, _inputs.length_of(y))
        y = _inputs.read_target(y, X, numeric=self._task == "regression", owner=type(self).__name__)
        weights = None if sample_weight is None else _inputs.read_weights(sample_weight, X)
        if reset:
            self._learn_encoder(X)
        return Data(self._encode_further(X), y, weights)

    def _learn_encoder(self, X: InputArrays) -> None:
        """Puts behind the reader what changes its rows: the `feature_encoder` of a subclass."""
        encoder = own_encoder(self, "feature_encoder")
        if encoder is not None:
            encoder = encoder.fit(X)
            known = {**self._fitted.known, **metadata(encoder)}
            self._keep(reader=EncodedReader(self._fitted.reader, encoder), known=known)

    def _learn_reader(self, X: Rows, n_rows: int | None) -> tuple[Reader, Any]:
        """Learns what reads rows like these; an estimator of another kind of data overrides it.

        Args:
            X: The rows of `fit`, raw.
            n_rows: Rows of the target; None if it is not known.

        Returns:
            The reader, and what it makes of the rows.
        """
        if self._takes_columns():
            with _parameters.named_below("columns"):
                return _readers.learn_table(X, self, **_parameters.below(self._params, "columns"))
        ours = self._is_of_ours(self._build_function(self.model, self.build_fn))
        # A model of the user's may take text, and says so only once it is built.
        return ArrayReader.learn_and_encode(X, n_rows=n_rows, text=not ours, owner=self)

    def _encode(self, X: Rows, n_rows: int | None = None) -> Any:
        """Reads rows as they were learned; what a `feature_encoder` does is left to `_encode_further`."""
        reader = _readers.first_of(self._fitted.reader)
        if isinstance(reader, ArrayReader):
            text = not reader.of_text and self._fitted.is_complete and _inputs.takes_text(self._fitted.network.example)
            return reader.encode(X, n_rows=n_rows, text=text, owner=self)
        return _readers.encode_table(reader, X, self) if isinstance(reader, TableEncoder) else reader.encode(X)

    def _encode_further(self, X: InputArrays) -> Any:
        """What the model gets of checked rows: themselves, or what a `feature_encoder` makes of them."""
        reader = self._fitted.reader
        return reader.transform(X) if isinstance(reader, EncodedReader) else X

    def _takes_columns(self) -> bool:
        """Whether the build function asks for the columns of a table, and so has an input for each."""
        arguments = _parameters.build_arguments(self._build_function(self.model, self.build_fn)) or ()
        return "columns" in arguments and "columns" not in self._params

    def _read_dataset(
        self, X: Dataset, y: Target, sample_weight: ArrayLike | None, validation_split: float, *, reset: bool
    ) -> Data:
        if y is not None or sample_weight is not None:
            raise DataError(
                "X is a data set, which brings its own targets and weights in batches of (x, y) or (x, y, weight); "
                "leave `y` and `sample_weight` out."
            )
        if validation_split:
            raise ParameterError(
                "`validation_split` cannot divide a data set; give fit(dataset, validation_data=another_dataset)."
            )
        first = next(iter(_inputs.batches(X)), None)
        if first is None or first[1] is None:
            raise DataError("The data set holds no batches of (x, y).")
        if reset:
            self._fitted = Fitted(ArrayReader.of_batch(first[0]))
        return Data(X, None, None, sample=first[0], sample_target=first[1])

    def _make_head(self, data: Data, build: Callable[..., Any] | None, classes: Any) -> AnyHead:
        # A target in unusual units trains badly, but only with a builder of ours may we train on other units than
        # those the user's loss and history speak of.
        ours = self._is_of_ours(build)
        if type(self).target_encoder is not None or self.target_encoder is not None:
            # What scikeras knows when it asks.
            kind = "unknown" if isinstance(data.y, Mapping) else type_of_target(data.y)
            told = {"target_type_": kind, "classes_": classes}
            told |= {f"y_{name}_": getattr(data.y, name, None) for name in ("dtype", "ndim")}
            self._keep(known={**self._fitted.known, **told})
        encoder = own_encoder(self, "target_encoder")
        if encoder is not None:
            return EncoderHead(encoder.fit(data.y), self._task)
        if classes is not None:
            classes = _inputs.read_classes(classes)
            known = np.unique(np.concatenate([classes, np.unique(np.asarray(data.y))]))
            if len(known) > len(np.unique(classes)):
                raise DataError(f"`y` holds labels that are not among `classes`, {classes.tolist()}.")
            return self._head_of(known)
        return self._head_of(data.y, standardize=ours, sample_weight=data.weights)

    def _head_of(self, y: TargetArrays, **options: object) -> Head | HeadGroup:
        """The head of a target, with the options routed to it; it must be one that this estimator predicts."""
        with _parameters.named_below("head"):
            made = builders.head(y, task=self._task, **options, **_parameters.below(self._params, "head"))  # type: ignore[arg-type]
        of_numbers = [part.classes is None for part in (made.heads if isinstance(made, HeadGroup) else [made])]
        if any(of_numbers) and self._task == "regression" or not all(of_numbers) and self._task == "classification":
            return made
        kind = self._params["head__kind"]
        raise ParameterError(
            f"`head__kind` is {kind!r}, which {type(self).__name__} does not predict; that is for "
            f"{'KerasRegressor' if self._task == 'classification' else 'KerasClassifier'}."
        )

    def _dataset_head(self, dataset: Dataset, classes: ArrayLike | None) -> Head | HeadGroup:
        raise NotImplementedError  # abstract

    def _known_of(self, data: Data, head: AnyHead) -> dict[str, Any]:
        """What is known of the data before there is a model: under scikeras' names, for a build function."""
        told = meta(self._task, self._fitted.reader, self._fitted.known, data, head)
        known = {name: value for name, value in told.items() if not name.endswith("_encoder_")}
        return {name: value for name, value in known.items() if value is not None}

    def _attributes_of(self, head: AnyHead) -> dict[str, Any]:
        """Further attributes that are known with the head, by name."""
        return {}

    # -- the model ------------------------------------------------------------------------------------------------

    def _model_maker(self, build: Callable[..., Any] | None, data: Data, head: AnyHead) -> ModelMaker:
        """What makes the models of this fit, maybe long after: with the parameters of now, and without the rows."""
        called, offered = self._called(build)
        parameters, fitted = self._parameters_of_now(), self._fitted
        return ModelMaker(
            build, parameters, data.form(), head, fitted, self._task, called=called, offered=offered
        )  # fmt: skip

    def _called(self, build: Callable[..., Any] | None) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
        """What is called to build the model, and what it is offered beside what the reader knows."""
        return build, {}

    def _parameters_of_now(self) -> Parameters:
        names = self._get_param_names()
        values = {name: getattr(self, name, None) for name in {*names, *_constructors.declared_names(KerasEstimator)}}
        return Parameters(values, tuple(names), self._params)

    def _known_by_itself(self) -> set[str]:
        """Arguments of the build function that the reader or a subclass fills in, and a user need not."""
        return {argument for name in self._readers for argument in get_reader(name).offers}

    # -- arguments of Model.fit -----------------------------------------------------------------------------------

    def _validation_split(self, fit_params: Mapping[str, Any]) -> Any:
        """The fraction to hold out: of the call, else routed to fit, else the parameter."""
        given = {**_parameters.below(self._params, "fit"), **fit_params}
        return given.get("validation_split", self.validation_split)

    def _fit_arguments(
        self,
        build: Callable[..., Any] | None,
        data: Data,
        validation_data: Validation,
        class_weight: ClassWeight,
        fit_params: dict[str, Any],
        seed: int | None,
    ) -> dict[str, Any]:
        """Arguments of `Model.fit`."""
        fitted = self._fitted
        arguments = _fit_arguments.from_parameters(self._parameters_of_now(), build, fit_params)
        n_rows = None
        if data.y is None:
            watched = None if validation_data is None else self._validation(validation_data)
            _fit_arguments.with_dataset(arguments, data, watched, self._numbered(class_weight))
        else:
            weights = self._with_class_weight(class_weight, data.y, data.weights)
            fraction = self._validation_split(fit_params) if validation_data is None else 0
            train, held_out = _fit_arguments.split_off(data, weights, fraction, fitted.head, seed)
            if held_out is not None:
                watched = _fit_arguments.as_validation(held_out, fitted.head, fitted.network.example)
            else:
                watched = None if validation_data is None else self._validation(validation_data)
            n_rows = _fit_arguments.with_arrays(arguments, train, watched, fitted)
        if arguments["epochs"] is None:
            arguments["epochs"] = self._default_epochs(build, n_rows, arguments.get("batch_size"))
        return arguments

    def _validation(self, validation_data: Validation) -> Any:
        if _inputs.kind_of(validation_data) == "dataset":
            return validation_data
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise DataError("`validation_data` must be (X, y), (X, y, sample_weight) or a data set.")
        X, y, *weight = validation_data
        data = self._read(X, y, weight[0] if weight else None, reset=False)
        return _fit_arguments.as_validation(data, self._fitted.head, self._fitted.network.example)

    def _with_class_weight(self, class_weight: ClassWeight, y: TargetArrays, weights: NDArray[Any] | None) -> Any:
        self._numbered(class_weight)
        return weights

    def _numbered(self, class_weight: ClassWeight) -> Any:
        if class_weight is not None:
            raise ParameterError(
                f"`class_weight` is for classifiers, and {type(self).__name__} knows no classes. Weigh the rows: "
                "fit(X, y, sample_weight=...)."
            )

    def _default_epochs(self, build: Callable[..., Any] | None, n_rows: int | None, batch_size: int | None) -> int:
        """What `epochs=None` means: see the class docstring."""
        if not self._is_of_ours(build):
            return 1
        if n_rows is None:
            return _FEWEST_EPOCHS
        steps = -(-n_rows // (batch_size or 32))
        return int(np.clip(_STEPS // steps, _FEWEST_EPOCHS, _EPOCHS))

    @staticmethod
    def _is_of_ours(build: Callable[..., Any] | None) -> bool:
        """Whether a function is one of kerastoolkit's builders."""
        return builders.is_ours(build)

    # -- predicting -----------------------------------------------------------------------------------------------

    def predict(self, X: Rows, **predict_params: object) -> Any:
        """Predicts.

        Args:
            X: Rows, as for `fit`, without targets.
            **predict_params: Arguments of `keras.Model.predict` for this call.

        Returns:
            Predictions in the form of `y`: shape `(n,)`, `(n, targets)` or `(n, ...)`, or a dict of them by output
            name.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: `X` has other features or shapes than in `fit`.
            DivergedError: The network diverged in `fit`, or its output for a row is NaN or infinite.
        """
        raw = self._output(X, **predict_params)
        return self.head_.decode(raw)

    def _raw(self, X: Rows, **predict_params: object) -> Any:
        """Output of the model as numpy: an array, or a list or dict of arrays."""
        check_is_fitted(self)
        arguments = _fit_arguments.predict_arguments(self._parameters_of_now(), predict_params)
        if _inputs.kind_of(X) == "dataset":
            return _output.of_dataset(self._fitted, X, arguments)
        X = self._encode_further(self._encode(X))
        # The size of the estimator is one to train with, and no row's result depends on it.
        return _output.of_rows(self._fitted, X, arguments, at_least=_parameters.plain(self.batch_size) or 0)

    def _with_true_target(self, X: Rows, y: Target) -> tuple[Any, Any]:
        """Rows, and what their predictions are compared with; a data set brings both."""
        if _inputs.kind_of(X) == "dataset":
            X, y = self._gathered(X)
        return X, _inputs.true_target(y, numeric=self._task == "regression", owner=type(self).__name__)

    def _gathered(self, dataset: Dataset) -> tuple[Any, Any]:
        """All rows and targets of a data set in one pass, so that a shuffling one keeps them together."""
        import keras

        check_is_fitted(self)
        parts = [(x, y) for x, y in _inputs.batches(dataset)]
        rows = keras.tree.map_structure(
            lambda *batch: np.concatenate([keras.ops.convert_to_numpy(part) for part in batch]), *[x for x, _ in parts]
        )
        return rows, np.concatenate([y for _, y in parts])

    # -- the estimator as an object -------------------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in self.__dict__ and self._fitted.is_complete

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        with contextlib.suppress(ParameterError):  # what is no model is refused by fit
            if self._takes_columns():
                tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def __sklearn_clone__(self: Self) -> Self:
        _copies.register()
        is_model = not isinstance(self.model, (str, type(None))) and is_built(self.model)
        with copying_models() if is_model else contextlib.nullcontext():
            made: Self = super().__sklearn_clone__()
        # Clones know of each other by this name, so that only one of them tells what holds of all.
        made._family = self.__dict__.get("_family") or self.__dict__.setdefault("_clones", uuid.uuid4().hex)
        return made

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        _copies.register()  # Python is about to pickle or to copy the parameters
        return {**state, "_fitted": self._fitted.portable()} if "_fitted" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        import keras  # noqa: F401  # a process of joblib's copies a candidate before it asks the estimator for anything

        _copies.register()
        if "model_" in state:
            raise SavedFileError(
                f"This {type(self).__name__} was pickled by an earlier snapshot of kerastoolkit, which kept what was "
                "learned elsewhere. Unpickle it there and save it by its `save`; `load` reads that here."
            )
        super().__setstate__(state)

    def save(self, path: str | Path) -> Path:
        """Writes the fitted estimator to one file, without pickle.

        The file holds the model in Keras' own format, the head, the parameters and the versions. Functions and
        classes of the user's are kept by name, and are to be handed to `load`.

        Args:
            path: Where to write; an existing file is replaced.

        Returns:
            The path written.

        Raises:
            NotFittedError: `fit` was not called.
            SavedFileError: Something was learned that no file can hold; the message names it.
        """
        return saving.save(self, path)


# Arguments of `Model.fit` that a `Fit` names; the others go to Keras.
_FIT_FIELDS = tuple(
    field.name for field in dataclasses.fields(Fit) if field.name not in ("model", "seed", "strategy", "options")
)


def _is_default_of_fit(name: str, value: object) -> bool:
    # Another Keras, or whoever wraps `Model.fit`, may not name it; our own default is that of Keras.
    default = _defaults_of_fit().get(name, 0.0 if name == "validation_split" else None)
    return value is default or value == default or value is None


@functools.cache
def _defaults_of_fit() -> dict[str, Any]:
    import keras

    return {name: parameter.default for name, parameter in inspect.signature(keras.Model.fit).parameters.items()}


def _restored_epoch(network: Network, callbacks: list[Any]) -> int | None:
    """The epoch of the last training, from 1, whose weights Keras put back; None if it is not known that it did.

    That a callback keeps weights does not say that the network has them: the training may have been interrupted, or
    another callback have changed them after. So they are compared.
    """
    import keras

    keeping, hooks = keras.callbacks.EarlyStopping, ("on_epoch_end", "on_train_end")
    epochs = getattr(network.history, "epoch", [])  # a callback may have let the training begin later than it was told
    weights = None
    for callback in callbacks:
        # What a subclass counts as its best epoch is not known.
        kind = type(callback)
        if not issubclass(kind, keeping) or any(getattr(kind, hook) is not getattr(keeping, hook) for hook in hooks):
            continue
        if callback.best_weights is None or callback.best_epoch not in epochs:
            continue
        weights = network.weights() if weights is None else weights
        if len(weights) == len(callback.best_weights) and all(map(np.array_equal, weights, callback.best_weights)):
            return int(epochs.index(callback.best_epoch)) + 1
    return None


def _output_shapes(model: keras.Model, data: Data) -> list[tuple[int, ...]] | None:
    """Shapes of a row of each output of a subclassed model, which does not tell them itself; None for any other.

    Raises:
        ModelMismatchError: The output has not a row for each row of the input.
    """
    import keras

    try:
        if keras.tree.flatten(model.outputs):
            return None
    except (AttributeError, ValueError):
        pass
    row = one_row(data)
    two = keras.tree.map_structure(lambda part: np.repeat(keras.ops.convert_to_numpy(part), 2, axis=0), row)
    outputs = keras.tree.flatten(model(two, training=False))
    for output in outputs:
        if len(output.shape) < 2 or output.shape[0] != 2:
            raise ModelMismatchError(
                f"The model puts out the shape {tuple(output.shape)} for 2 rows, where (2, units) was expected. Let it "
                "return one prediction for each row, without taking sums or means over the batch."
            )
    return [tuple(output.shape)[1:] for output in outputs]


def _number(value: ArrayLike) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array.tolist()
