"""Every parameter that an estimator takes, with its current value: more than a signature or the tab key can show.

A signature names the parameters that all models share. The arguments of the function that builds the model, and the
options that are routed to the optimizer, the callbacks or `Model.fit`, depend on the model that was chosen. They are
collected here, each with the first sentence of its own documentation.
"""

from __future__ import annotations

import html
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kerastoolkit import _keras, builders
from kerastoolkit.data import learn_table
from kerastoolkit.distribution import strategy
from kerastoolkit.estimators import _objects, _parameters
from kerastoolkit.estimators._docstrings import documented

if TYPE_CHECKING:
    import keras

    from kerastoolkit.estimators._base import KerasEstimator

# The value of an argument that a build function needs and has not been given yet.
NEEDED = inspect.Parameter.empty


class _Unknown:
    """A value that is known only to the function that builds the model, until that has been called."""

    def __repr__(self) -> str:
        return "(as built)"


UNKNOWN = _Unknown()

# What an estimator fills in itself where a build function names it.
_FILLED_IN = {"args", "columns", "compile_kwargs", "head", "input_shape", "kwargs", "meta", "params"}
_WIDTH = 118


class Parameter(NamedTuple):
    """A parameter that an estimator takes.

    Attributes:
        name: Its name for `set_params` and for a grid.
        value: The current value; `inspect.Parameter.empty` if one is needed and was not given, and a value shown as
            "(as built)" if only the function that builds the model knows it.
        default: The value if it is not set.
        goes_to: Where it goes: `"estimator"`, `"model"`, `"optimizer"`, `"head"`, `"callbacks"`, `"fit"`, ...
        meaning: What it does: the first sentence of its documentation.
    """

    name: str
    value: Any
    default: Any
    goes_to: str
    meaning: str


class ParameterTable(tuple[Parameter, ...]):
    """Parameters as a tuple of named tuples, which prints as text and shows as a table in a notebook.

    `pandas.DataFrame(table)` turns it into a data frame.
    """

    owner: str
    titles: dict[str, str]

    def __new__(cls, parameters: Iterable[Parameter], owner: str, titles: dict[str, str]) -> ParameterTable:
        made = super().__new__(cls, parameters)
        made.owner, made.titles = owner, titles
        return made

    def _groups(self) -> Iterator[tuple[str, list[Parameter]]]:
        for place in dict.fromkeys(parameter.goes_to for parameter in self):
            yield self.titles[place], [parameter for parameter in self if parameter.goes_to == place]

    @property
    def _opening(self) -> str:
        example = next((one.name for one in self if one.goes_to == "model"), "epochs")
        return (
            f"{self.owner} takes {len(self)} parameters. Set them by name, {self.owner}({example}=...), and search "
            f"over them by name, {{{example!r}: [...]}}; in a pipeline, the name of the step comes first, "
            f"{self.owner.lower()}__{example}. Those marked * are set."
        )

    def __repr__(self) -> str:
        lines = textwrap.wrap(self._opening, _WIDTH)
        for title, parameters in self._groups():
            lines += ["", title]
            width = max(len(one.name) for one in parameters)
            values = [_shown(one.value) for one in parameters]
            across = max(map(len, values))
            for one, value in zip(parameters, values, strict=True):
                start = f" {'*' if _is_set(one) else ' '} {one.name:{width}}  {value:{across}}  "
                room = max(_WIDTH - len(start), 40)
                first, *more = textwrap.wrap(one.meaning, room, max_lines=3, placeholder=" ...") or [""]
                lines += [start + first, *(" " * len(start) + line for line in more)]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        rows = []
        for title, parameters in self._groups():
            rows.append(f'<tr><th colspan="3" style="text-align:left">{html.escape(title)}</th></tr>')
            for one in parameters:
                name = f"<b>{html.escape(one.name)}</b>" if _is_set(one) else html.escape(one.name)
                value = html.escape(_shown(one.value))
                cells = (f"<code>{name}</code>", f"<code>{value}</code>", html.escape(one.meaning))
                rows.append("".join(["<tr>", *(f'<td style="text-align:left">{cell}</td>' for cell in cells), "</tr>"]))
        opening = html.escape(self._opening.replace("marked * are", "in bold type are"))
        return f"<p>{opening}</p><table><tbody>{''.join(rows)}</tbody></table>"


def _is_set(parameter: Parameter) -> bool:
    return parameter.value is not parameter.default and repr(parameter.value) != repr(parameter.default)


def _shown(value: object) -> str:
    if value is NEEDED:
        return "(needed)"
    if inspect.isclass(value) or inspect.isfunction(value):
        return str(value.__name__)
    text = " ".join(repr(value).split())
    return text if len(text) <= 32 else f"{type(value).__name__}" if text.startswith("<") else text[:29] + "..."


# -- gathering ------------------------------------------------------------------------------------------------------


def list_parameters(estimator: KerasEstimator) -> ParameterTable:
    """All parameters of an estimator; see `KerasEstimator.list_parameters`."""
    build = estimator._build_function(*(getattr(estimator, name, None) for name in ("model", "build_fn")))
    gathered = _Gathered(estimator, build)
    gathered.declared()
    gathered.of_the_model()
    gathered.of_the_head()
    gathered.of_the_optimizer()
    gathered.of_losses_and_metrics()
    gathered.of_callbacks()
    gathered.of_keras()
    gathered.of_others()
    return ParameterTable(gathered.rows.values(), type(estimator).__name__, gathered.titles)


class _Gathered:
    """Parameters by name, as they are collected."""

    def __init__(self, estimator: KerasEstimator, build: Callable[..., Any] | None) -> None:
        self._estimator, self._build = estimator, build
        self._given = estimator._params
        self.rows: dict[str, Parameter] = {}
        self.titles = {
            "estimator": "The estimator",
            "model": f"The network: arguments of {_parameters.describe(build)}",
            "head": "The target, and the end of the network",
            "fit": "Arguments of Model.fit",
            "predict": "Arguments of Model.predict",
            "compile": "Arguments of Model.compile",
            "columns": "The encoding of columns",
            "distribution": "The strategy of distribution",
            "score": "The score",
        }

    def _add(
        self,
        name: str,
        default: object,
        place: str,
        meaning: str,
        *,
        value: object = None,
        spellings: Iterable[str] = (),
    ) -> None:
        """Adds a parameter that is not listed yet; a value that was given takes precedence over `value` and default."""
        value = default if value is None else value
        for spelling in (*spellings, name):
            value = self._given.get(spelling, value)
        if name not in self.rows:
            self.rows[name] = Parameter(name, value, default, place, meaning)

    def _add_arguments(
        self,
        function: Callable[..., Any],
        place: str,
        *,
        prefixes: Sequence[str],
        names: Collection[str] | None = None,
        made: object = None,
    ) -> None:
        """Adds the arguments of a function or class, all or those in `names`, under the last of the prefixes."""
        arguments, meanings = _parameters.arguments_of(function), documented(function)
        for name, argument in arguments.items():
            if name in ("name", "args", "kwargs") or (names is not None and name not in names):
                continue
            *others, name_here = (prefix + name for prefix in prefixes)
            meaning, value = meanings.get(name, ""), None if made is None else _value_of(made, name)
            self._add(name_here, argument.default, place, meaning, value=value, spellings=others)

    def declared(self) -> None:
        """Parameters of the constructor."""
        estimator, meanings = self._estimator, documented(type(self._estimator))
        defaults = inspect.signature(type(estimator)).parameters
        in_force = self._in_force()
        for name in estimator._get_param_names():
            value, default = getattr(estimator, name), defaults[name].default
            if value is None and name in in_force:
                value = default = in_force[name]
            self.rows[name] = Parameter(name, value, default, "estimator", meanings.get(name, ""))

    def _in_force(self) -> dict[str, Any]:
        """Values that take effect where a parameter of the constructor is not set."""
        estimator, build = self._estimator, self._build
        found: dict[str, Any] = {}
        if "model" in estimator._get_param_names() and not hasattr(estimator, "_keras_build_fn"):
            found["model"] = None if estimator.build_fn is not None else estimator.default_model
        if builders.is_ours(build):
            found["optimizer"] = "adam"
        else:
            found["epochs"] = estimator._default_epochs(build, None, None)
        if estimator.distribution is None:
            found["batch_size"] = 32
            found["validation_batch_size"] = estimator.batch_size or 32
        return found

    def of_the_model(self) -> None:
        """Arguments of the build function."""
        if self._build is None:
            return
        left_out = _FILLED_IN | self._estimator._filled_in_arguments() | set(self.rows)
        names = [name for name in _parameters.arguments_of(self._build) if name not in left_out]
        meanings = documented(self._build)
        for name in names:
            default = _parameters.arguments_of(self._build)[name].default
            self._add(name, default, "model", meanings.get(name, ""), spellings=[f"model__{name}"])
        for name in self._given:  # for a function that takes any
            if "__" not in name and name not in names and _parameters.build_arguments(self._build) is None:
                self._add(name, None, "model", "")

    def of_the_head(self) -> None:
        """Options of the head for this kind of target."""
        names = {"classification": _parameters.OPTIONS_OF_HEAD, "regression": {"kind", "weight"}}
        of_task = names.get(self._estimator._task, set())
        self._add_arguments(builders.head, "head", prefixes=["head__"], names=of_task)

    def of_the_optimizer(self) -> None:
        """Options of the optimizer; only the learning rate if the optimizer is known to the build function alone."""
        spec = self._estimator.optimizer
        fitted = vars(self._estimator).get("_fitted")
        model = fitted.network.example if fitted is not None and fitted.is_complete else self._model()
        spec = getattr(model, "optimizer", None) if spec is None else spec
        if spec is None and builders.is_ours(self._build):
            spec = "adam"
        self.titles["optimizer"] = "The optimizer, as the function that builds the model compiles it"
        if spec is None:
            meaning = "The learning rate. The other options are listed once the model is built."
            self._add("optimizer__learning_rate", UNKNOWN, "optimizer", meaning)
            return
        made = _objects.make_optimizer(spec, {})
        self.titles["optimizer"] = f"The optimizer, {type(made).__name__}"
        given = None if isinstance(spec, str) or inspect.isclass(spec) else made
        self._add_arguments(type(made), "optimizer", prefixes=["optimizer__"], made=given)

    def _model(self) -> keras.Model | None:
        """The model, if it was given as one."""
        return self._estimator.model if self._build is None else None

    def of_losses_and_metrics(self) -> None:
        """Options of the loss and of the metrics that are set."""
        for what in ("loss", "metrics"):
            self.titles[what] = "The loss" if what == "loss" else "The metrics"
            self._add_named(what, getattr(self._estimator, what))

    def of_callbacks(self) -> None:
        """Options of each callback."""
        self.titles["callbacks"] = "The callbacks"
        self._add_named("callbacks", self._estimator.callbacks)

    def _add_named(self, what: str, spec: object) -> None:
        """Adds the options of each of several things that have names, and of one that has none."""
        for aliases, kind, made in _objects.configurable(spec, what):
            *others, name = (f"{what}__{alias}__" if alias else f"{what}__" for alias in aliases[::-1])
            self._add_arguments(kind, what, prefixes=[f"{what}__", *others, name], made=made)

    def of_keras(self) -> None:
        """Other arguments of `Model.fit`, `compile` and `predict`."""
        import keras

        for method in ("fit", "compile", "predict"):
            names = _parameters.keras_arguments(method) - {"callbacks"}
            names = names if method == "predict" else names - set(self.rows)
            function = getattr(keras.Model, method)
            bare = [] if method == "predict" else [""]
            self._add_arguments(function, method, prefixes=[*bare, f"{method}__"], names=names)
        verbose = self.rows["predict__verbose"]
        if "predict__verbose" not in self._given:  # whose default in Keras depends on the terminal
            self.rows["predict__verbose"] = verbose._replace(value=0, default=0)

    def of_others(self) -> None:
        """Options of columns, of a strategy and of the score."""
        from sklearn import metrics

        if self._estimator._takes_columns():
            names = _parameters.options_of("columns")
            self._add_arguments(learn_table, "columns", prefixes=["columns__"], names=names)
        if self._estimator.distribution is not None:
            names = _parameters.options_of("distribution")
            self._add_arguments(strategy, "distribution", prefixes=["distribution__"], names=names)
        scores: dict[str, Callable[..., float]] = {
            "classification": metrics.accuracy_score,
            "regression": metrics.r2_score,
        }
        score = scores.get(self._estimator._task)
        if score is not None:
            names = set(inspect.signature(score).parameters) - {"y_true", "y_pred", "sample_weight"}
            self._add_arguments(score, "score", prefixes=["score__"], names=names)


def _value_of(made: object, name: str) -> Any:
    """The value of an argument of a Keras object; for a loss, not even its config contains all of them."""
    known = _keras.keywords_of(made)
    config = made.get_config() if hasattr(made, "get_config") and name not in known else {}
    return known.get(name, config.get(name, getattr(made, name, None)))
