"""Asks a server, with the standard library and NumPy."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._values import is_number, shown
from kerastoolkit.exceptions import DataError, ModelMismatchError, ParameterError, ServerError

Answers: TypeAlias = "NDArray[Any] | list[NDArray[Any]] | dict[str, NDArray[Any]]"
_MAX_BYTES = 2**30


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to no other address than the one it was given for."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class Client:
    """Asks a server of kerastoolkit as if it were the estimator.

    Example:

    >>> client = Client("http://127.0.0.1:8000")
    >>> client.predict_proba(frame)  # doctest: +SKIP

    Args:
        url: Address of the server, such as `"http://127.0.0.1:8000"`.
        token: Of the server. Defaults to `None`: it needs none.
        timeout: Seconds to wait for it. Defaults to `30.0`.
        max_rows: Rows of a request; more are sent in several. Defaults to `1000`, as that of `serve`.

    Raises:
        ParameterError: `url` is none of HTTP.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0, max_rows: int = 1000) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ParameterError(f'`url` must be an address such as "http://127.0.0.1:8000"; got {shown(url)}.')
        if not is_number(timeout) or timeout <= 0:
            raise ParameterError(f"`timeout` must be a number of seconds above 0; got {shown(timeout)}.")
        self.url, self.timeout, self.max_rows = url.rstrip("/"), timeout, max_rows
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._spec: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    @property
    def spec(self) -> Mapping[str, Any]:
        """What the model takes and answers, as the server tells it."""
        if self._spec is None:
            found = self._ask("/spec")
            if not isinstance(found, dict) or not all(
                isinstance(found.get(one), list) for one in ("inputs", "outputs")
            ):
                raise ServerError(f"{self.url} is no server of kerastoolkit.")
            self._spec = found
        return self._spec

    def predict(self, X: Any) -> Answers:
        """Predicts labels or numbers.

        Args:
            X: Rows as the model takes them: a table, a dict of columns, a list of dicts, an array, a list of texts.

        Returns:
            As the estimator does: shape `(n,)` or `(n, columns)`; where there are several targets a dict by target.

        Raises:
            DataError: The server refused the rows; the message is its own, and names row and column.
            ServerError: The server cannot be reached, or refused or failed to answer.
        """
        return self._answers(X, [one for one in self.spec["outputs"] if one["kind"] != "probabilities"])

    def predict_proba(self, X: Any) -> Answers:
        """Predicts probabilities.

        Args:
            X: As for `predict`.

        Returns:
            Shape `(n, n_classes)`, in the order of `classes`; where there are several targets a dict by target.

        Raises:
            DataError, ServerError: As for `predict`.
            ModelMismatchError: The model has no probabilities.
        """
        wanted = [one for one in self.spec["outputs"] if one["kind"] == "probabilities"]
        if not wanted:
            raise ModelMismatchError(f"The model at {self.url} has no probabilities.")
        return self._answers(X, wanted)

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """Labels in the order of the probabilities; None for a model of numbers, or of several targets."""
        found = [tuple(one["classes"]) for one in self.spec["outputs"] if one["kind"] == "probabilities"]
        return found[0] if len(found) == 1 else None

    def _answers(self, X: Any, wanted: list[Mapping[str, Any]]) -> Answers:
        rows = _rows(X, self.spec["inputs"])
        parts = []
        for start in range(0, len(rows), self.max_rows):
            try:
                parts += self._ask("/predict", {"rows": rows[start : start + self.max_rows]})["predictions"]
            except DataError as error:
                raise DataError(f"{error} (of the rows from {start} on)") if start else error from None
        made = [_array(one, [part[one["name"]] for part in parts]) for one in wanted]
        if all(one["target"] is not None for one in wanted):
            return {str(one["target"]): array for one, array in zip(wanted, made, strict=True)}
        if len(made) == 1:
            return made[0]
        return np.column_stack(made) if all(one.ndim == 1 for one in made) else made

    def _ask(self, path: str, content: object = None) -> Any:
        try:
            body = None if content is None else json.dumps(content, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"X holds what JSON cannot say: {error}.") from None
        request = urllib.request.Request(f"{self.url}{path}", body, self._headers)
        try:
            with _OPENER.open(request, timeout=self.timeout) as answer:
                return json.loads(answer.read(_MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                _raise(error.code, error.read(2**20), self.url)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"{self.url} cannot be asked: {reason}. Is the server running there?") from error


def _raise(status: int, body: bytes, url: str) -> NoReturn:
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode("utf-8", "replace")
    if status in (413, 422):
        raise DataError(message) from None
    raise ServerError(f"{url} answers with status {status}: {message}") from None


def _array(one: Mapping[str, Any], values: list[Any]) -> NDArray[Any]:
    if values and isinstance(values[0], dict):
        values = [list(value.values()) for value in values]
    if one["dtype"] == "string":
        return np.array(values, dtype=object)
    shape = (0, *(size or 0 for size in one["shape"]))
    return np.array(values, one["dtype"]) if values else np.empty(shape, one["dtype"])


# -- rows -----------------------------------------------------------------------------------------------------------


def _rows(X: Any, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Rows as JSON has them."""
    if hasattr(X, "columns") and hasattr(X, "to_dict"):  # a data frame of pandas or polars
        X = {str(name): X[name] for name in X.columns}
    if isinstance(X, Mapping):
        columns = {str(name): _plain(values) for name, values in X.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise DataError("The columns of X have different numbers of rows.")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(X, str) or not (isinstance(X, Sequence) or hasattr(X, "__array__")):
        raise DataError(f"X must be a table, a dict of columns, an array or a list of rows; got {type(X).__name__}.")
    rows: list[Any] = _plain(X)
    if len(inputs) == 1 or (rows and isinstance(rows[0], dict)):
        return rows
    names = [one["name"] for one in inputs]
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        raise DataError(f"X must have {len(names)} columns: {', '.join(names)}.")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _plain(values: Any) -> Any:
    """Arrays, columns and NumPy's numbers as plain Python; what is missing as None."""
    if isinstance(values, Mapping):
        return {str(name): _plain(value) for name, value in values.items()}
    if not isinstance(values, (str, list, tuple)) and hasattr(values, "tolist"):
        values = values.tolist()
    elif hasattr(values, "to_list"):
        values = values.to_list()
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    if type(values).__name__ in ("NAType", "NaTType") or (isinstance(values, float) and math.isnan(values)):
        return None
    return values
