"""The deep part below `KerasClassifier` and `KerasRegressor`: parameters, build, fit, predict, pickling.

The order of a fit: read the data and refuse what cannot be learned from; find the head for the target; build the
model and hold it against the head; train. All of it happens on generators and names of its own (`training.isolated`),
and an estimator whose fit fails is what it was before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from kerastoolkit import _copies, _keras, builders
from kerastoolkit._values import is_whole
from kerastoolkit.builders import Head, HeadGroup
from kerastoolkit.data.columns import TableEncoder
from kerastoolkit.data.readers import Reader
from kerastoolkit.data.splits import holdout_indices
from kerastoolkit.distribution import Strategy
from kerastoolkit.distribution import strategy as find_strategy
from kerastoolkit.estimators import _hints, _inputs, _parameters, _readers, _registry, saving
from kerastoolkit.estimators._divergence import (
    ADVICE,
    find_divergence,
    losses_of_weights,
    words_of_warning,
)
from kerastoolkit.estimators._encoders import EncoderHead, FeatureEncoder, TargetEncoder, metadata
from kerastoolkit.estimators._readers import ArrayReader, Data, EncodedReader
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
from kerastoolkit.training.fused import is_scored
from kerastoolkit.training.fused import train as train_model
from kerastoolkit.training.network import Network, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from kerastoolkit.estimators._listing import ParameterTable

Self = TypeVar("Self", bound="KerasEstimator")

# Builders of kerastoolkit train this many epochs where `epochs` is not set, fewer once that is more than so many steps.
_EPOCHS, _STEPS, _FEWEST_EPOCHS = 100, 20_000, 10


class KerasEstimator(BaseEstimator):
    """What the estimators share. Not to be used directly: use `KerasClassifier` or `KerasRegressor`."""

    _task = ""
    _readers: tuple[str, ...] = ("array", "table")  # what fitted ones may read their input by, as files name it
    _heads: Mapping[str, Any] = {"Head": Head, "HeadGroup": HeadGroup}  # by the name that their configs have for them
    _default_model = "mlp"  # where `model` is not set

    # scikeras' way of subclassing: properties that return transformers. None: no encoder of one's own.
    feature_encoder: Any = None
    target_encoder: Any = None

    # What `fit` learned: the attributes with a trailing underscore are read from there. Not there before `fit`.
    _fitted: Fitted
    _family: str  # of a clone

    head_: Any
    columns_: TableEncoder

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _registry.enter(cls)
        if "__init__" in vars(cls) and any("__" in name for name in inspect.signature(cls).parameters):
            cls.__init__ = _keeping_routed(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        model: Any = None,
        *,
        build_fn: Callable[..., Any] | None = None,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_batch_size: int | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        callbacks: Any = (),
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
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.distribution = distribution
        self.precision = precision
        # Undeclared and routed parameters live together in one place: as attributes they would be taken for the
        # estimator's own. `__getattr__` reads them.
        self._params = params

    # -- parameters -----------------------------------------------------------------------------------------------

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(_declared_names(cls))  # type: ignore[arg-type]

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

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
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

    def _check_names(self, names: Any, build: Callable[..., Any] | None) -> None:
        _parameters.check_names(names, declared=self._get_param_names(), build=build, owner=type(self).__name__)

    def _build_function(self, model: Any, build_fn: Any) -> Callable[..., Any] | None:
        """The function that makes the model; None where the model is there already."""
        if model is not None and build_fn is not None:
            raise ParameterError("`model` and `build_fn` are both given; `build_fn` is the old name. Give `model`.")
        model = model if model is not None else build_fn
        if model is None:
            own: Callable[..., Any] | None = getattr(self, "_keras_build_fn", None)  # scikeras' way of subclassing
            return own if own is not None else builders.get(self._default_model)
        if isinstance(model, str):
            return builders.get(model)
        if callable(model) and not _is_built(model):
            return model  # type: ignore[no-any-return]
        if _is_built(model):
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
        self: Self, X: Any, y: Any = None, sample_weight: Any = None, *, validation_data: Any = None, **fit_params: Any
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

    def partial_fit(self: Self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> Self:
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

    def initialize(self: Self, X: Any, y: Any) -> Self:
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
        X: Any,
        y: Any,
        sample_weight: Any,
        validation_data: Any,
        fit_params: dict[str, Any],
        *,
        continuing: bool,
        train: bool = True,
        classes: Any = None,
    ) -> Self:
        build = self._build_function(self.model, self.build_fn)
        self._check_names(self._params, build)
        self._check_values()
        classes = fit_params.pop("classes", classes)
        class_weight = _parameters.below(self._params, "fit").get("class_weight", getattr(self, "class_weight", None))
        class_weight = fit_params.pop("class_weight", class_weight)
        belonging = {name: fit_params.pop(name, None) for name in ("groups", "time")}
        belonging = {name: values for name, values in belonging.items() if values is not None}
        self._check_fit_params(fit_params)
        strategy = self._find_strategy()
        had_diverged = continuing and self._fitted.has_diverged
        if continuing and self._fitted.to_compile is not None:
            saving.compile_loaded(self)
        with self._unchanged_by_errors():
            if continuing:
                self._move_to(strategy)
            if _inputs.kind_of(X) == "dataset":
                split = self._validation_split(fit_params)
                if belonging:
                    raise ParameterError(f"`{min(belonging)}` has an entry a row, and a data set cannot be divided.")
                data = self._read_dataset(X, y, sample_weight, split, reset=not continuing)
                head = self.head_ if continuing else self._dataset_head(X, classes)
            else:
                data = self._read(X, y, sample_weight, reset=not continuing)
                data.belonging = _by_rows(belonging, _inputs.n_rows(data.X))
                head = self.head_ if continuing else self._make_head(data, build, classes)
            if not continuing:
                generator = None if self.random_state is None else check_random_state(self.random_state)
                self._keep(generator=generator)
            self._keep(strategy=strategy)
            generator = self._fitted.generator
            seed = None if generator is None else int(generator.randint(2**31 - 1))
            with isolated(None):
                if not continuing:
                    self._keep(head=head, known={**self._fitted.known, **self._known_of(data, head)})
                    self._keep(network=Network(self._recipe(build, data, head), seed))
                    head = self._bound(head, data)
                    self._keep(head=head, known={**self._fitted.known, **self._attributes_of(head)})
                arguments = self._fit_arguments(build, data, validation_data, class_weight, fit_params, seed)
            if train:
                self._look(build, data, arguments, continuing=continuing)
            # What is infinite since it diverged is no constant.
            network = self._fitted.network
            sums_at_first = list if had_diverged else network.sums_at_first()
            history: dict[str, list[Any]] = {}
            if train:
                history = self._train(arguments, seed, sums_at_first)
            else:
                self._keep(divergence=find_divergence(network, (), sums_at_first))
        self._tell_of_divergence(history, had_diverged)
        return self

    def _keep(self, **fields: Any) -> None:
        """Puts something else into the record of what was learned."""
        self._fitted = dataclasses.replace(self._fitted, **fields)

    def _take(self, fitted: Fitted) -> None:
        """Takes over a record from elsewhere, such as a file."""
        self._fitted = dataclasses.replace(fitted, known={**self._attributes_of(fitted.head), **fitted.known})

    def _bound(self, head: AnyHead, data: Data) -> AnyHead:
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

    def _look(
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

    def _output(self, X: Any, **predict_params: Any) -> Any:
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
            self._fitted = self._fitted.with_model(_copied(self.model_))
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

    def _read(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> Data:
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

    def _learn_encoder(self, X: Any) -> None:
        """Puts behind the reader what changes its rows: the `feature_encoder` of a subclass."""
        encoder = self._own_encoder("feature_encoder")
        if encoder is not None:
            encoder = encoder.fit(X)
            known = {**self._fitted.known, **metadata(encoder)}
            self._keep(reader=EncodedReader(self._fitted.reader, encoder), known=known)

    def _own_encoder(self, name: str) -> Any:
        """An encoder that a subclass has; None for no encoder."""
        found = inspect.getattr_static(type(self), name)
        # Asked directly: Python takes an AttributeError inside a property for a sign that there is no property.
        return found.__get__(self) if isinstance(found, property) else getattr(self, name)

    def _learn_reader(self, X: Any, n_rows: int | None) -> tuple[Reader, Any]:
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

    def _encode(self, X: Any, n_rows: int | None = None) -> Any:
        """Reads rows as they were learned; what a `feature_encoder` does is left to `_encode_further`."""
        reader = _readers.first_of(self._fitted.reader)
        if isinstance(reader, ArrayReader):
            text = not reader.of_text and self._fitted.is_complete and _inputs.takes_text(self._fitted.network.example)
            return reader.encode(X, n_rows=n_rows, text=text, owner=self)
        return _readers.encode_table(reader, X, self) if isinstance(reader, TableEncoder) else reader.encode(X)

    def _encode_further(self, X: Any) -> Any:
        """What the model gets of checked rows: themselves, or what a `feature_encoder` makes of them."""
        reader = self._fitted.reader
        return reader.transform(X) if isinstance(reader, EncodedReader) else X

    def _takes_columns(self) -> bool:
        """Whether the build function asks for the columns of a table, and so has an input for each."""
        arguments = _parameters.build_arguments(self._build_function(self.model, self.build_fn)) or ()
        return "columns" in arguments and "columns" not in self._params

    def _read_dataset(self, X: Any, y: Any, sample_weight: Any, validation_split: float, *, reset: bool) -> Data:
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
        encoder = self._own_encoder("target_encoder")
        if encoder is not None:
            return EncoderHead(encoder.fit(data.y), self._task)
        if classes is not None:
            classes = _inputs.read_classes(classes)
            known = np.unique(np.concatenate([classes, np.unique(np.asarray(data.y))]))
            if len(known) > len(np.unique(classes)):
                raise DataError(f"`y` holds labels that are not among `classes`, {classes.tolist()}.")
            return self._head_of(known)
        return self._head_of(data.y, standardize=ours, sample_weight=data.weights)

    def _head_of(self, y: Any, **options: Any) -> Head | HeadGroup:
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

    def _dataset_head(self, dataset: Any, classes: Any) -> Head | HeadGroup:
        raise NotImplementedError  # abstract

    def _known_of(self, data: Data, head: AnyHead) -> dict[str, Any]:
        """What is known of the data before there is a model: under scikeras' names, for a build function."""
        known = {name: value for name, value in self._meta(data, head).items() if not name.endswith("_encoder_")}
        return {name: value for name, value in known.items() if value is not None}

    def _attributes_of(self, head: AnyHead) -> dict[str, Any]:
        """Further attributes that are known with the head, by name."""
        return {}

    # -- the model ------------------------------------------------------------------------------------------------

    def _recipe(self, build: Callable[..., Any] | None, data: Data, head: AnyHead) -> Recipe:
        """How the model is made; what goes into it is made anew for each model.

        The model may be made long after: with the parameters of now, and without keeping the rows.
        """
        frozen = object.__new__(type(self))
        frozen.__dict__.update(vars(self))
        return frozen._recipe_of_now(build, data.form(), head)

    def _recipe_of_now(self, build: Callable[..., Any] | None, data: Data, head: AnyHead) -> Recipe:
        handed_over: dict[str, Any] = {}
        consumed: set[str] = set()

        def compile_kwargs() -> dict[str, Any]:
            handed_over.clear()
            # With a `target_encoder` there is no loss but the user's; scikeras hands over that there is none.
            handed_over.update({"loss": None, "metrics": None, "run_eagerly": False})
            handed_over.update(self._compile_arguments(head, defaults=True))
            return dict(handed_over)

        def arguments() -> dict[str, Any]:
            found = self._build_arguments(build, data, head, compile_kwargs)  # type: ignore[arg-type]
            consumed.update(found)
            return found

        scope = contextlib.nullcontext if self._fitted.strategy is None else self._fitted.strategy.scope

        def make() -> keras.Model:
            with scope():
                return made()

        def made() -> keras.Model:
            if build is None:
                return _copied(self.model if self.model is not None else self.build_fn)
            model = build(**arguments())
            if not _is_built(model):
                raise ParameterError(
                    f"{_parameters.describe(build)} returned {model!r}, not a keras.Model. "
                    "Does it end in `return model`?"
                )
            if not model.built:
                model(_sample(data))
            return model

        def compile(model: keras.Model) -> None:
            with scope():
                compiled(model)
                if self.precision is not None:
                    _keep_loss_scaling(model)

        def compiled(model: keras.Model) -> None:
            if not model.compiled:
                fitting = head.for_model(model) if isinstance(head, Head) else head
                model.compile(**(handed_over or self._compile_arguments(fitting, defaults=True)))
            elif not handed_over:
                self._compile_again(model, head, consumed)

        def compile_arguments(compiled: bool) -> Mapping[str, Any]:
            if handed_over:
                return {}
            if not compiled:
                return self._compile_arguments(head, defaults=True, to_look_at=True)
            # What a compiled model is compiled with anew is known by the parameters that ask for it.
            named = {*_MAKERS, "compile", *_parameters.keras_arguments("compile")}
            routed = {name: value for name, value in self._params.items() if name.split("__")[0] in named}
            return {"parameters": {**routed, **{name: getattr(self, name) for name in _MAKERS}}}

        # No structure is shared between models under a strategy and others.
        function = None if build is None or self._fitted.strategy is not None else (build, arguments())
        if function is not None and isinstance(head, Head) and self._is_of_ours(build):
            # The unit of a target differs from fold to fold, and no builder of ours looks at it.
            function[1]["head"] = dataclasses.replace(head, offset=(), scale=())
        return Recipe(make, compile, function=function, compile_arguments=compile_arguments)

    def _build_arguments(
        self, build: Callable[..., Any], data: Data, head: AnyHead, compile_kwargs: Callable[[], Any]
    ) -> dict[str, Any]:
        names = [name for name in self._get_param_names() if name not in ("model", "build_fn")]
        reader = self._fitted.reader
        return _parameters.call_arguments(
            build,
            routed=_parameters.below(self._params, "model"),
            undeclared={name: value for name, value in self._params.items() if "__" not in name},
            declared={name: self._maker(name) for name in names if self._is_set(name)},
            offered={
                "meta": lambda: self._meta(data, head),
                "compile_kwargs": compile_kwargs,
                "params": lambda: {"run_eagerly": False, **self.get_params()},
                "input_shape": lambda: reader.row_shape if data.y is None else _inputs.shapes_of(data.X),
                "head": lambda: head,
                **{name: functools.partial(_itself, value) for name, value in reader.offered().items()},
                **self._offered(),
            },
        )

    def _is_set(self, name: str) -> bool:
        """Whether a declared parameter says something; of one that does not, a build function keeps its own default."""
        value = getattr(self, name)
        return value is not None and not (name == "callbacks" and isinstance(value, (list, tuple)) and not value)

    def _offered(self) -> dict[str, Callable[[], Any]]:
        """What a subclass hands to every build function that names it."""
        return {}

    def _known_by_itself(self) -> set[str]:
        """Arguments of the build function that a subclass fills in, and a user need not."""
        return set()

    def _compile_again(self, model: keras.Model, head: AnyHead, consumed: set[str]) -> None:
        """Compiles anew where a parameter speaks that the build function, which compiled, did not take."""
        ours = self._compile_arguments(head, defaults=False, model=model)
        ours = {name: value for name, value in ours.items() if name not in consumed}
        if ours:
            theirs = _keras.compile_arguments(model) or {"optimizer": model.optimizer, "loss": model.loss}
            model.compile(**{**theirs, **ours})

    def _maker(self, name: str) -> Callable[[], Any]:
        """Makes what a build function gets for a declared parameter: as it is, or with the options routed to it."""
        spec, options = getattr(self, name), _parameters.below(self._params, name)
        if name not in _MAKERS or (not options and isinstance(spec, str)):
            return lambda: spec
        return lambda: _MAKERS[name](spec, options)

    def _compile_arguments(
        self, head: AnyHead, *, defaults: bool, model: keras.Model | None = None, to_look_at: bool = False
    ) -> dict[str, Any]:
        """Arguments of `Model.compile` that the user set; with `defaults`, also those nobody set.

        Options without a value of their own (`optimizer__learning_rate` alone) change what the model was compiled
        with, or the default.
        """
        accepted = _parameters.keras_arguments("compile")
        arguments = {name: _parameters.plain(value) for name, value in self._params.items() if name in accepted}
        arguments |= _parameters.below(self._params, "compile")
        arguments = {name: _copies.copied(value) for name, value in arguments.items()}
        if arguments.get("weighted_metrics") is not None:
            arguments["weighted_metrics"] = _parameters.make_metrics(arguments["weighted_metrics"], {})
        if isinstance(head, (Head, HeadGroup)):
            for metrics in (self.metrics, arguments.get("weighted_metrics")):
                head = head.for_metrics(metrics)
        fallback = {"optimizer": "adam", "loss": head.loss, "metrics": head.metrics}
        makers = {**_MAKERS, "optimizer": _parameters.optimizer_to_look_at} if to_look_at else _MAKERS
        if is_whole(arguments.get("loss_weights")):
            arguments["loss_weights"] = float(arguments["loss_weights"])  # Keras takes no other number
        weights = getattr(head, "loss_weights", None)
        if weights is not None and defaults:
            arguments.setdefault("loss_weights", weights)
        for name, make in makers.items():
            options = _parameters.below(self._params, name)
            spec = getattr(self, name)
            if spec is None and model is not None and model.compiled and options:
                spec = _compiled_with(model, name)
            if spec is None and (defaults or options):
                spec = fallback[name]
            if spec is not None and name not in arguments:
                arguments[name] = make(spec, options)
        return arguments

    def _meta(self, data: Data, head: AnyHead) -> dict[str, Any]:
        """What scikeras tells a build function about the data, under scikeras' names."""
        n_outputs: Any
        if isinstance(head, EncoderHead):
            n_outputs, expected, kind = 1, head.n_outputs or 1, type_of_target(data.y)
        elif isinstance(head, HeadGroup):
            n_outputs, expected, kind = len(head.heads), len(head.heads), _target_type(head)
        else:
            n_outputs = head.units if head.kind in ("multilabel", "regression", "counts") else 1
            expected, kind = 1, _target_type(head)
        meta: dict[str, Any] = {
            "X_shape_": self._fitted.known.get("X_shape_"),
            "X_dtype_": self._fitted.known.get("X_dtype_"),
            "y_dtype_": getattr(data.y, "dtype", None),
            "y_ndim_": getattr(data.y, "ndim", None),
            "n_features_in_": getattr(self, "n_features_in_", None),
            "n_outputs_": n_outputs,
            "n_outputs_expected_": expected,
            "target_type_": kind,
        }
        if self._task == "classification":
            meta |= {"classes_": head.classes, "n_classes_": head.n_classes}
        names = getattr(self, "feature_names_in_", None)
        meta |= {} if names is None else {"feature_names_in_": names}
        reader = self._fitted.reader
        feature_encoder = reader.encoder if isinstance(reader, EncodedReader) else FeatureEncoder()
        target_encoder = head.encoder if isinstance(head, EncoderHead) else TargetEncoder(head)
        meta |= metadata(feature_encoder) | metadata(target_encoder)
        meta |= {"feature_encoder_": feature_encoder, "target_encoder_": target_encoder}
        return meta

    # -- arguments of Model.fit -----------------------------------------------------------------------------------

    def _validation_split(self, fit_params: Mapping[str, Any]) -> Any:
        """The fraction to hold out: of the call, else routed to fit, else the parameter."""
        given = {**_parameters.below(self._params, "fit"), **fit_params}
        return given.get("validation_split", self.validation_split)

    def _check_fit_params(self, fit_params: Mapping[str, Any]) -> None:
        accepted = _parameters.keras_arguments("fit")
        for name in fit_params:
            if name not in accepted:
                raise ParameterError(
                    f"fit() got an unexpected argument {name!r}.{_parameters.near_miss(name, accepted)} It takes: X, "
                    f"y, sample_weight, validation_data, groups, time, {', '.join(sorted(accepted))}. "
                    "Parameters of the estimator are set in the constructor or by set_params."
                )

    @staticmethod
    def _routed_callbacks(routed: dict[str, Any]) -> list[Any]:
        """Makes the callbacks of `fit__callbacks` or `predict__callbacks`, and takes them out of `routed`."""
        made = _parameters.make_callbacks(routed.pop("callbacks", ()), _parameters.below(routed, "callbacks"))
        for name in [name for name in routed if name.startswith("callbacks__")]:
            del routed[name]
        return made

    def _fit_arguments(
        self,
        build: Callable[..., Any] | None,
        data: Data,
        validation_data: Any,
        class_weight: Any,
        fit_params: dict[str, Any],
        seed: int | None,
    ) -> dict[str, Any]:
        taken_by_build = _parameters.build_arguments(build) or set()
        accepted = _parameters.keras_arguments("fit")
        arguments: dict[str, Any] = {
            name: _parameters.plain(getattr(self, name))
            for name in ("epochs", "batch_size", "validation_batch_size", "shuffle", "verbose")
        }
        arguments |= {
            name: _parameters.plain(value)
            for name, value in self._params.items()
            if name in accepted and name not in taken_by_build
        }
        routed = _parameters.below(self._params, "fit")
        routed.pop("class_weight", None)  # which has become weights of rows
        validation_split = self._validation_split(fit_params)
        callbacks = _parameters.make_callbacks(self.callbacks, _parameters.below(self._params, "callbacks"))
        callbacks += self._routed_callbacks(routed)
        callbacks += _parameters.given_callbacks(fit_params.get("callbacks"))
        arguments |= routed
        arguments |= {name: value for name, value in fit_params.items() if name != "callbacks"}
        arguments |= {"callbacks": callbacks, "validation_split": 0.0}

        if data.y is None:
            arguments["x"] = data.X
            arguments["validation_data"] = self._dataset_validation(validation_data)
            arguments.pop("batch_size")  # a data set brings its own batches, and most their own order
            arguments["shuffle"] = _inputs.in_numbered_batches(data.X) and arguments["shuffle"]
            arguments.pop("validation_batch_size")
            arguments["class_weight"] = self._numbered(class_weight)
            data_rows = None
        else:
            data_rows = self._array_arguments(arguments, data, validation_data, validation_split, class_weight, seed)
        if arguments["epochs"] is None:
            arguments["epochs"] = self._default_epochs(build, data_rows, arguments.get("batch_size"))
        return arguments

    def _array_arguments(
        self,
        arguments: dict[str, Any],
        data: Data,
        validation_data: Any,
        validation_split: float,
        class_weight: Any,
        seed: int | None,
    ) -> int:

        X, y, weights, belonging = data.X, data.y, data.weights, data.belonging
        weights = self._with_class_weight(class_weight, y, weights)
        if weights is not None and np.any(weights == 0):  # a row of weight 0 is a row that is not there
            kept = np.flatnonzero(weights)
            X, y, weights = _inputs.rows(X, kept), _target_rows(y, kept), weights[kept]
            belonging = {name: values[kept] for name, values in belonging.items()}
        if validation_split and validation_data is None:
            train, held_out = self._split(y, _inputs.n_rows(X), validation_split, seed, belonging)
            validation_data = (
                _inputs.rows(X, held_out),
                self._for_keras(_target_rows(y, held_out)),
                *(() if weights is None else (self._encoded_weights(weights[held_out]),)),
            )
            X, y = _inputs.rows(X, train), _target_rows(y, train)
            weights = None if weights is None else weights[train]
        elif validation_data is not None:
            validation_data = self._validation(validation_data)
        n_rows = _inputs.n_rows(X)
        if isinstance(validation_data, tuple):  # and no data set
            X, held_out_X = _inputs.dense_if_small(X, validation_data[0])
            validation_data = (held_out_X, *validation_data[1:])
        else:
            (X,) = _inputs.dense_if_small(X)
        strategy = self._fitted.strategy
        if strategy is not None:
            arguments["batch_size"] = strategy.global_batch_size(arguments["batch_size"])
        for name in ("batch_size", "validation_batch_size"):
            if arguments[name] == -1:  # scikeras' spelling of "all rows at once"
                arguments[name] = n_rows
        fixed = _keras.fixed_batch(self._fitted.network.example)
        if fixed is not None:
            _in_batches_of(fixed, arguments, n_rows, validation_data)
        y = self._for_keras(y)
        weights = None if weights is None else self._encoded_weights(weights)
        if hasattr(X, "toarray"):
            batch_size = arguments.pop("batch_size") or 32
            arguments["x"] = _inputs.sparse_batches(X, y, weights, batch_size, shuffle=arguments["shuffle"])
            arguments["shuffle"] = False
        else:
            arguments |= {"x": _inputs.for_keras(X), "y": y, "sample_weight": weights}
        if isinstance(validation_data, tuple) and hasattr(validation_data[0], "toarray"):
            batch_size = arguments.pop("validation_batch_size") or 32
            validation_data = _inputs.sparse_batches(*_three(validation_data), batch_size, shuffle=False)
        elif isinstance(validation_data, tuple):
            validation_data = (_inputs.for_keras(validation_data[0]), *validation_data[1:])
        arguments["validation_data"] = validation_data
        return n_rows

    def _split(
        self, y: Any, n_rows: int, validation_split: float, seed: int | None, belonging: Mapping[str, np.ndarray]
    ) -> tuple[Any, Any]:
        stratify = None
        if isinstance(self.head_, Head) and self.head_.kind in ("binary", "multiclass", "ordinal"):
            stratify = self.head_.class_numbers(y)
        # Where no seed was given, this draws from numpy's generator, as scikit-learn does.
        return holdout_indices(n_rows, validation_split, stratify=stratify, random_state=seed, **belonging)

    def _for_keras(self, y: Any) -> Any:
        """A target as `Model.fit` takes it; of several outputs in a list, a list.

        Keras knows a dict of targets by the names of outputs in a list, but not weights of its rows.
        """
        encoded = self.head_.encode(y)
        model = self._fitted.network.example
        if not isinstance(encoded, dict) or not isinstance(getattr(model, "output", None), (list, tuple)):
            return encoded
        names = model.output_names if set(model.output_names) == set(encoded) else list(encoded)
        return [encoded[name] for name in names]

    def _encoded_weights(self, weights: Any) -> Any:
        weights = _with_mean_one(weights)
        return self.head_.encode_weights(weights) if isinstance(self.head_, Head) else weights

    def _validation(self, validation_data: Any) -> Any:
        if _inputs.kind_of(validation_data) == "dataset":
            return validation_data
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise DataError("`validation_data` must be (X, y), (X, y, sample_weight) or a data set.")
        X, y, *weight = validation_data
        data = self._read(X, y, weight[0] if weight else None, reset=False)
        weights = () if data.weights is None else (self._encoded_weights(data.weights),)
        return (data.X, self._for_keras(data.y), *weights)

    def _dataset_validation(self, validation_data: Any) -> Any:
        return None if validation_data is None else self._validation(validation_data)

    def _with_class_weight(self, class_weight: Any, y: Any, weights: Any) -> Any:
        self._numbered(class_weight)
        return weights

    def _numbered(self, class_weight: Any) -> Any:
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

    def predict(self, X: Any, **predict_params: Any) -> Any:
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

    def _raw(self, X: Any, **predict_params: Any) -> Any:
        """Output of the model as numpy: an array, or a list or dict of arrays."""
        import keras

        check_is_fitted(self)
        routed = _parameters.below(self._params, "predict")
        callbacks = self._routed_callbacks(routed)
        arguments = {**({"callbacks": callbacks} if callbacks else {}), **routed, **predict_params}
        accepted = _parameters.keras_arguments("predict")
        for name in arguments:
            if name not in accepted:
                raise ParameterError(
                    f"predict() got an unexpected argument {name!r}.{_parameters.near_miss(name, accepted)}"
                )
        _parameters.check_values(predict_params)
        if _inputs.kind_of(X) == "dataset":
            with self._scope():
                raw = self.model_.predict(X, **{"verbose": 0, **arguments})
            return keras.tree.map_structure(_in_single_precision, raw)
        X = self._encode_further(self._encode(X))
        network, strategy = self._fitted.network, self._fitted.strategy
        _inputs.check_text(network.example, X)
        batch_size = arguments.pop("batch_size", None)
        if batch_size in (None, -1):
            # That of the estimator is a size to train with, and no row's result depends on it.
            batch_size = max(_parameters.plain(self.batch_size) or 0, _batch_rows(X))
        fixed = _keras.fixed_batch(self._fitted.network.example)
        if fixed is not None:
            return self._raw_in_batches_of(fixed, X, arguments)
        ordinary = type(network.example).predict_step is keras.Model.predict_step and not arguments
        ordinary = ordinary and (strategy is None or strategy.n_devices == 1)
        ordinary = ordinary and not _inputs.holds_text(X)
        if not ordinary and not hasattr(X, "toarray"):
            with self._scope():
                given = _inputs.for_keras(X)
                raw = self.model_.predict(given, **{"verbose": 0, "batch_size": batch_size, **arguments})
            return keras.tree.map_structure(_in_single_precision, raw)
        return self._raw_by_rows(X, batch_size)

    def _raw_in_batches_of(self, size: int, X: Any, arguments: dict[str, Any]) -> Any:
        """Output of a model that takes so many rows at once, and may remember the last of them.

        It begins with nothing remembered, so that predictions depend on the rows alone.
        """
        import keras

        n_rows, model = _inputs.n_rows(X), self.model_
        with self._scope(), _keras.fresh_states(model):
            raw = model.predict(_inputs.filled(X, -n_rows % size), **{"verbose": 0, **arguments, "batch_size": size})
        return keras.tree.map_structure(lambda part: _in_single_precision(part[:n_rows]), raw)

    def _scope(self) -> Any:
        strategy = self._fitted.strategy
        return contextlib.nullcontext() if strategy is None else strategy.scope()

    def _raw_by_rows(self, X: Any, batch_size: int) -> Any:
        """Output for the rows of `X`, each the same whatever rows stand around it.

        `Model.predict` traces a program of its own for every new model, 0.3 s on a CPU; all models of a structure
        share one here. Rows are filled up to a multiple of 32, because matrix products of other shapes add up in
        another order: a row alone would differ in the seventh digit.
        """
        import keras

        parts = []
        for start in range(0, _inputs.n_rows(X), batch_size):
            batch = _inputs.rows(X, slice(start, start + batch_size))
            length = _inputs.n_rows(batch)
            output = self._fitted.network.predict(_inputs.filled(batch, -length % 32))
            parts.append(keras.tree.map_structure(lambda part, n=length: keras.ops.convert_to_numpy(part)[:n], output))
        return keras.tree.map_structure(lambda *part: _in_single_precision(np.concatenate(part)), *parts)

    def _gathered(self, dataset: Any) -> tuple[Any, Any]:
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
        is_built = not isinstance(self.model, (str, type(None))) and _is_built(self.model)
        with _copying_models() if is_built else contextlib.nullcontext():
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

_MAKERS: dict[str, Callable[..., Any]] = {
    "optimizer": _parameters.make_optimizer,
    "loss": _parameters.make_loss,
    "metrics": _parameters.make_metrics,
}


@functools.cache
def _declared_names(cls: Any) -> tuple[str, ...]:
    """Parameters of a constructor, and of its parents' as long as each passes `**kwargs` on."""
    names: dict[str, None] = {}
    for parent in cls.__mro__:
        if "__init__" not in vars(parent) or parent is object:
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        own = [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        names |= {name: None for name in own if "__" not in name}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return tuple(sorted(names))


def _is_default_of_fit(name: str, value: Any) -> bool:
    # Another Keras, or whoever wraps `Model.fit`, may not name it; our own default is that of Keras.
    default = _defaults_of_fit().get(name, 0.0 if name == "validation_split" else None)
    return value is default or value == default or value is None


@functools.cache
def _defaults_of_fit() -> dict[str, Any]:
    import keras

    return {name: parameter.default for name, parameter in inspect.signature(keras.Model.fit).parameters.items()}


def _in_single_precision(part: Any) -> Any:
    """Output as numpy; models of mixed precision put out numbers of half precision, which numpy hardly knows."""
    part = np.asarray(part)
    return part.astype("float32") if part.dtype.name in ("bfloat16", "float16") else part


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


def _keeping_routed(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps the routed parameters it names, as `optimizer__learning_rate=0.001`."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def keeping(self: KerasEstimator, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        routed = {name: value for name, value in bound.arguments.items() if "__" in name}
        self._params = {**routed, **self._params}

    return keeping


def _is_built(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Model)


@contextlib.contextmanager
def _copying_models() -> Iterator[None]:
    """Keras copies a model by saving it, and warns that the optimizer of an untrained one has nothing to load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer", UserWarning)
        yield


def _copied(model: keras.Model) -> keras.Model:
    try:
        with _copying_models():
            return _copies.copied_model(model)
    except ParameterError:
        raise
    except Exception as error:
        raise ParameterError(
            f"`model` is a {type(model).__name__}, which Keras cannot copy ({error}); each fit works on a copy. "
            "Register its class with @keras.saving.register_keras_serializable(), or pass a function that builds it."
        ) from error


def _keep_loss_scaling(model: keras.Model) -> None:
    """Compiles a model of half precision with the scaling of its loss.

    Keras adds that by itself, and forgets it when it saves the model: the file could not be read without the same
    policy set.
    """
    import keras

    arguments = _keras.compile_arguments(model)
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) and arguments is not None:
        model.compile(**{**arguments, "optimizer": model.optimizer})


def _compiled_with(model: keras.Model, name: str) -> Any:
    arguments = _keras.compile_arguments(model)
    return getattr(model, name, None) if arguments is None else arguments.get(name)


def _itself(value: Any) -> Any:
    return value


def _sample(data: Data) -> Any:
    """One row, to build a model with."""
    if data.sample is not None:
        import keras

        return keras.tree.map_structure(lambda part: part[:1], data.sample)
    row = _inputs.rows(data.X, slice(0, 1))
    return row.toarray() if hasattr(row, "toarray") else _inputs.for_keras(row)


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
    two = keras.tree.map_structure(lambda part: np.repeat(keras.ops.convert_to_numpy(part), 2, axis=0), _sample(data))
    outputs = keras.tree.flatten(model(two, training=False))
    for output in outputs:
        if len(output.shape) < 2 or output.shape[0] != 2:
            raise ModelMismatchError(
                f"The model puts out the shape {tuple(output.shape)} for 2 rows, where (2, units) was expected. Let it "
                "return one prediction for each row, without taking sums or means over the batch."
            )
    return [tuple(output.shape)[1:] for output in outputs]


def _by_rows(belonging: Mapping[str, Any], n_rows: int) -> dict[str, np.ndarray]:
    found = {name: np.asarray(values) for name, values in belonging.items()}
    for name, values in found.items():
        if values.shape[:1] != (n_rows,):
            raise DataError(f"`{name}` must have an entry for each of the {n_rows} rows of X. Got {values.shape}.")
    return found


def _in_batches_of(size: int, arguments: dict[str, Any], n_rows: int, validation_data: Any) -> None:
    """Sets the batches for a model that takes so many rows at once.

    Raises:
        ParameterError: Another size was asked for.
        DataError: The rows do not fill all batches.
    """
    for name in ("batch_size", "validation_batch_size"):
        if arguments[name] not in (None, size):
            raise ParameterError(
                f"`{name}` is {arguments[name]}, but the model takes batches of {size} rows: its input has a "
                f"batch_shape that begins with {size}. Leave `{name}` out, or build it with keras.Input(shape)."
            )
        arguments[name] = size
    held_out = _inputs.n_rows(validation_data[0]) if isinstance(validation_data, tuple) else 0
    for rows, what in ((n_rows, "to train on"), (held_out, "to validate on")):
        if rows % size:
            raise DataError(
                f"There are {rows} rows {what}, but the model takes batches of exactly {size}: its input has a "
                f"batch_shape that begins with {size}. Give a multiple of {size} rows, for example the first "
                f"{rows // size * size}, or build the model with keras.Input(shape)."
            )


def _target_rows(y: Any, index: Any) -> Any:
    return {name: column[index] for name, column in y.items()} if isinstance(y, Mapping) else y[index]


def _three(data: Any) -> tuple[Any, Any, Any]:
    X, y, *weight = data
    return X, y, weight[0] if weight else None


def _batch_rows(X: Any) -> int:
    """Rows a batch when predicting: about a megabyte of floats, from 32 to 4096 rows."""
    first = next(iter(X.values())) if isinstance(X, Mapping) else X[0] if isinstance(X, list) else X
    size = int(np.prod(first.shape[1:])) or 1
    return int(np.clip(2**18 // size, 32, 4096))


def _target_type(head: Head | HeadGroup) -> str:
    """scikit-learn's (and scikeras') name for a kind of target."""
    if isinstance(head, HeadGroup):
        return "continuous-multioutput" if head.kind == "regression" else "multiclass-multioutput"
    if head.kind in ("regression", "counts"):
        return "continuous" if head.units == 1 else "continuous-multioutput"
    if head.one_hot:
        return "multiclass-onehot"
    return {"multilabel": "multilabel-indicator", "ordinal": "multiclass"}.get(head.kind, head.kind)


def _number(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array.tolist()


def _with_mean_one(weights: Any) -> Any:
    """Weights as Keras gets them.

    Keras divides a weighted loss by the number of rows: with a mean of 1, a weight of 2 means what the same row twice
    means, and neither the size of a step nor `val_loss` depends on the unit of the weights.
    """
    import keras

    weights = _inputs.of_ordinary_size(weights)
    return (weights / weights.mean()).astype(keras.config.floatx())
