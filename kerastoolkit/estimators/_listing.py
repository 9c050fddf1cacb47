"""Every parameter that an estimator takes, with the value in force: what neither a signature nor a tab key shows.

A signature names what all models have in common. The arguments of the function that builds the model, and what is
routed to the optimizer, the callbacks or `Model.fit`, depend on the model that was chosen, and are gathered here, each
with the first sentence of its own documentation.
"""

from __future__ import annotations

import html
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kerastoolkit import _keras, builders
from kerastoolkit.data import learn_table
from kerastoolkit.distribution import strategy
from kerastoolkit.estimators import _parameters

if TYPE_CHECKING:
    from kerastoolkit.estimators._base import KerasEstimator

# A value that a build function needs and did not get yet.
NEEDED = inspect.Parameter.empty


class _Unknown:
    """A value that the function has which builds the model, and nobody else until it was called."""

    def __repr__(self) -> str:
        return "(as built)"


UNKNOWN = _Unknown()

# What an estimator fills in itself where a build function names it.
_FILLED_IN = {"args", "columns", "compile_kwargs", "head", "input_shape", "kwargs", "meta", "params"}
_WIDTH = 118


class Parameter(NamedTuple):
    """A parameter that an estimator takes.

    Attributes:
        name: As `set_params` and a grid take it.
        value: The value in force; `inspect.Parameter.empty` for one that is needed and not given, and a value shown as
            "(as built)" for one that only the function knows which builds the model.
        default: What it would be if it were not set.
        goes_to: What it reaches: `"estimator"`, `"model"`, `"optimizer"`, `"head"`, `"callbacks"`, `"fit"`, ...
        meaning: What it does, the first sentence of its documentation.
    """

    name: str
    value: Any
    default: Any
    goes_to: str
    meaning: str


class ParameterTable(tuple[Parameter, ...]):
    """Parameters as a tuple of named tuples, which shows itself as text and, in a notebook, as a table.

    `pandas.DataFrame(table)` makes a data frame of it.
    """

    owner: str
    titles: dict[str, str]

    def __new__(cls, parameters: Any, owner: str, titles: dict[str, str]) -> ParameterTable:
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
            f"{self.owner} takes {len(self)} parameters. Each is set by its name, {self.owner}({example}=...), and "
            f"searched by its name, {{{example!r}: [...]}}; in a pipeline the name of the step comes first, "
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


def _shown(value: Any) -> str:
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
    """Parameters by name, as they are gathered."""

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
            "columns": "The reading of columns",
            "distribution": "The strategy of distribution",
            "score": "The score",
        }

    def _add(
        self, name: str, default: Any, place: str, meaning: str, *, value: Any = None, spellings: Iterable[str] = ()
    ) -> None:
        """Adds a parameter that was not met before; what was given for it comes before its value and its default."""
        value = default if value is None else value
        for spelling in (*spellings, name):
            value = self._given.get(spelling, value)
        if name not in self.rows:
            self.rows[name] = Parameter(name, value, default, place, meaning)

    def _add_arguments(
        self, function: Any, place: str, *, prefixes: Sequence[str], names: Any = None, made: Any = None
    ) -> None:
        """Adds arguments of a function or class, those named or all, under the last of the prefixes that they have."""
        arguments, documented = _parameters.arguments_of(function), _documented(function)
        for name, argument in arguments.items():
            if name in ("name", "args", "kwargs") or (names is not None and name not in names):
                continue
            *others, name_here = (prefix + name for prefix in prefixes)
            meaning, value = documented.get(name, ""), None if made is None else _value_of(made, name)
            self._add(name_here, argument.default, place, meaning, value=value, spellings=others)

    def declared(self) -> None:
        """Parameters of the constructor."""
        estimator, documented = self._estimator, _documented_of(type(self._estimator))
        defaults: dict[str, Any] = {}
        for kind in reversed(type(estimator).__mro__):
            if "__init__" in vars(kind) and kind is not object:
                defaults |= inspect.signature(vars(kind)["__init__"]).parameters
        in_force = self._in_force()
        for name in estimator._get_param_names():
            value, default = getattr(estimator, name), getattr(defaults.get(name), "default", None)
            if value is None and name in in_force:
                value = default = in_force[name]
            self.rows[name] = Parameter(name, value, default, "estimator", documented.get(name, ""))

    def _in_force(self) -> dict[str, Any]:
        """What is in force where a parameter of the constructor is not set."""
        estimator, build = self._estimator, self._build
        found: dict[str, Any] = {}
        if "model" in estimator._get_param_names() and not hasattr(estimator, "_keras_build_fn"):
            found["model"] = None if estimator.build_fn is not None else estimator._default_model
        if estimator._is_of_ours(build):
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
        left_out = _FILLED_IN | self._estimator._known_by_itself() | set(self.rows)
        names = [name for name in _parameters.arguments_of(self._build) if name not in left_out]
        documented = _documented(self._build)
        for name in names:
            default = _parameters.arguments_of(self._build)[name].default
            self._add(name, default, "model", documented.get(name, ""), spellings=[f"model__{name}"])
        for name in self._given:  # of a function that takes any
            if "__" not in name and name not in names and _parameters.build_arguments(self._build) is None:
                self._add(name, None, "model", "")

    def of_the_head(self) -> None:
        """Options of the head, those that the kind of target has."""
        names = {"classification": _parameters.OPTIONS_OF_HEAD, "regression": {"kind", "weight"}}
        of_task = names.get(self._estimator._task, set())
        self._add_arguments(builders.head, "head", prefixes=["head__"], names=of_task)

    def of_the_optimizer(self) -> None:
        """Options of the optimizer; of one that only the build function knows, the rate that all have."""
        spec = self._estimator.optimizer
        fitted = vars(self._estimator).get("_fitted")
        model = fitted.network.example if fitted is not None and fitted.is_complete else self._model()
        if spec is None and getattr(model, "optimizer", None) is not None:
            spec = model.optimizer
        elif spec is None and self._estimator._is_of_ours(self._build):
            spec = "adam"
        self.titles["optimizer"] = "The optimizer, as the function that builds the model compiles it"
        if spec is None:
            meaning = "Rate at which it learns. Its other options are listed once the model is built."
            self._add("optimizer__learning_rate", UNKNOWN, "optimizer", meaning)
            return
        made = _parameters.make_optimizer(spec, {})
        self.titles["optimizer"] = f"The optimizer, {type(made).__name__}"
        given = None if isinstance(spec, str) or inspect.isclass(spec) else made
        self._add_arguments(type(made), "optimizer", prefixes=["optimizer__"], made=given)

    def _model(self) -> Any:
        """The model that was given as one."""
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

    def _add_named(self, what: str, spec: Any) -> None:
        """Adds the options of each of several things, which have a name each, and share those that have none."""
        for aliases, kind, made in _parameters.configurable(spec, what):
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
        if "predict__verbose" not in self._given:  # which Keras would take from the terminal
            self.rows["predict__verbose"] = verbose._replace(value=0, default=0)

    def of_others(self) -> None:
        """What columns, a strategy and a score take."""
        from sklearn import metrics

        if self._estimator._takes_columns():
            names = _parameters.options_of("columns")
            self._add_arguments(learn_table, "columns", prefixes=["columns__"], names=names)
        if self._estimator.distribution is not None:
            names = _parameters.options_of("distribution")
            self._add_arguments(strategy, "distribution", prefixes=["distribution__"], names=names)
        scores: dict[str, Any] = {"classification": metrics.accuracy_score, "regression": metrics.r2_score}
        score = scores.get(self._estimator._task)
        if score is not None:
            names = set(inspect.signature(score).parameters) - {"y_true", "y_pred", "sample_weight"}
            self._add_arguments(score, "score", prefixes=["score__"], names=names)


def _value_of(made: Any, name: str) -> Any:
    """An argument with which an object of Keras' was made; of a loss, not even its configuration tells all."""
    known = _keras.keywords_of(made)
    config = made.get_config() if hasattr(made, "get_config") and name not in known else {}
    return known.get(name, config.get(name, getattr(made, name, None)))


# -- documentation --------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"^(Args|Arguments|Parameters):?\s*$")
_ENTRY = re.compile(r"^(?P<indent> *)(?P<names>[*`\w]+(?:, *[*`\w]+)*) ?(?:\([^)]*\))?:(?P<text>.*)$")


def _documented_of(kind: type) -> dict[str, str]:
    """Sentences about the parameters of an estimator; what is as for another class is told in its words."""
    from kerastoolkit.estimators.classifier import KerasClassifier

    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        for name, text in _documented(one).items() if one is not object else ():
            found[name] = text
    known = _documented(KerasClassifier)
    return {name: known.get(name, text) if text.startswith("As for `KerasC") else text for name, text in found.items()}


def _documented(thing: Any) -> dict[str, str]:
    """What a docstring in Google's form says of each argument: the first sentence, and what `None` means."""
    text = inspect.getdoc(getattr(thing, "func", thing)) or ""
    entries: dict[str, list[str]] = {}
    names: list[str] = []
    inside, depth = False, 0
    for line in text.splitlines():
        if _HEADING.match(line.strip()) and not inside:
            inside, depth = True, 0
            continue
        if not inside or not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            break
        depth = depth or indent
        entry = _ENTRY.match(line) if indent == depth else None
        if entry is not None:
            names = [name.strip("*` ") for name in entry["names"].split(",")]
            entries |= {name: [] for name in names}
        for name in names:
            entries[name].append(entry["text"] if entry is not None else line)
    return {name: _first_sentence(" ".join(" ".join(lines).split())) for name, lines in entries.items()}


def _first_sentence(text: str) -> str:
    found = re.match(r"(.{20,}?[.])(?= [A-Z`\"]|$)", text)  # Keras begins with the type alone: "Float."
    first = found.group(1) if found else text
    default = re.search(r"Defaults? (?:to|is)? ?`?None`?: ([^.]*(?:\.[^ ][^.]*)*\.)", text)
    return first if default is None or default.group(0) in first else f"{first} None: {default.group(1)}"
