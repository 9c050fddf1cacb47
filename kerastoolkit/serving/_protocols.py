"""The paths of a server: ours, those of TensorFlow Serving, and those of the Open Inference Protocol (V2).

TensorFlow Serving: https://www.tensorflow.org/tfx/serving/api_rest. Open Inference Protocol:
https://github.com/open-inference-protocol/open-inference-protocol.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerastoolkit._optional import require
from kerastoolkit._version import __version__
from kerastoolkit._words import did_you_mean
from kerastoolkit.export._spec import InputSpec
from kerastoolkit.serving._guard import Message, Passage, Receive, Send
from kerastoolkit.serving._rows import Reader, RequestError, Row, strict_object
from kerastoolkit.serving._service import Service

Endpoint: TypeAlias = "Callable[[Asked], Awaitable[Reply]]"
_ENCODER = json.JSONEncoder(allow_nan=False)
VERSION = "1"  # of the model: there is one at a time


class Reply(NamedTuple):
    """An answer, as little as ASGI needs of one."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Sends it."""
        headers = [(b"content-type", self.kind.encode()), (b"content-length", str(len(self.body)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Asked(NamedTuple):
    """A request to one of our paths."""

    receive: Receive
    passage: Passage

    async def body(self) -> bytes:
        """All of its body."""
        parts = []
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ConnectionAbortedError("whoever asked went away")
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts).removeprefix(codecs.BOM_UTF8)  # which some shells put before what they send


def as_json(content: object, status: int = 200) -> Reply:
    """Answers with JSON."""
    return Reply(_ENCODER.encode(content).encode(), status)


def own_endpoints(service: Service) -> dict[str, tuple[str, Endpoint]]:
    """`/predict` and `/spec`: method and function by path."""
    reader = service.rows.reader(lambda rows: strict_object("Rows", {"rows": rows}))
    spec = json.loads(service.model.spec.to_json())

    async def predict(request: Asked) -> Reply:
        body = await request.body()
        if body.lstrip()[:1] == b"[":
            rows = service.rows.read_list(body)
        else:
            rows = service.rows.as_objects(reader.read(body)["rows"])
        passage = request.passage
        made = await service.answer(rows, passage)
        return as_json({"id": passage.id, "predictions": service.answers.rows(made)})

    async def describe(request: Asked) -> Reply:
        model = service.model
        return as_json({"runtime": model.runtime, "digest": model.digest, "example": service.rows.example(), **spec})

    return {"/predict": ("POST", predict), "/spec": ("GET", describe)}


# -- TensorFlow Serving ---------------------------------------------------------------------------------------------


def tensorflow_serving_endpoints(service: Service, name: str) -> dict[str, tuple[str, Endpoint]]:
    """Method and function by path."""
    from typing import NotRequired

    more = {"inputs": NotRequired[Any], "signature_name": NotRequired[Literal["serving_default"]]}
    reader = service.rows.reader(lambda rows: strict_object("Instances", {"instances": NotRequired[rows], **more}))

    async def predict(request: Asked) -> Reply:
        body = reader.read(await request.body())
        if ("instances" in body) == ("inputs" in body):
            raise RequestError('The body must have either "instances", a list of rows, or "inputs", lists by column.')
        is_by_row = "instances" in body
        rows = service.rows.as_objects(body["instances"]) if is_by_row else _rows_of_inputs(service, body["inputs"])
        made = await service.answer(rows, request.passage)
        lists = {output: array.tolist() for output, array in made.items()}
        if len(lists) == 1:
            (values,) = lists.values()
            return as_json({"predictions" if is_by_row else "outputs": values})
        if not is_by_row:
            return as_json({"outputs": lists})
        return as_json(
            {"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}
        )

    async def state(request: Asked) -> Reply:
        status = {"error_code": "OK", "error_message": ""}
        return as_json({"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]})

    paths = (f"/v1/models/{name}", f"/v1/models/{name}/versions/{VERSION}")
    return {
        **{f"{path}:predict": ("POST", predict) for path in paths},
        **{path: ("GET", state) for path in paths},
    }


def _rows_of_inputs(service: Service, inputs: object) -> list[Row]:
    if isinstance(inputs, list):
        if len(service.model.spec.inputs) > 1:
            raise RequestError('"inputs" must be an object with a list for each column: the model takes several.')
        return service.rows.of_values(inputs)
    if not isinstance(inputs, dict) or not inputs:
        raise RequestError('"inputs" must be an object with a list for each column.')
    return service.rows.of_columns(inputs)


# -- Open Inference Protocol ----------------------------------------------------------------------------------------

_DATATYPES = {
    "bool": "BOOL",
    "float32": "FP32",
    "float64": "FP64",
    "int32": "INT32",
    "int64": "INT64",
    "string": "BYTES",
    "uint8": "UINT8",
}
_MAX_AXES = 8


def open_inference_endpoints(service: Service, name: str) -> dict[str, tuple[str, Endpoint]]:
    """Method and function by path."""
    reader = _reader_of_infer()
    spec = service.model.spec
    metadata = {
        "name": name,
        "versions": [VERSION],
        "platform": f"kerastoolkit_{service.model.runtime}",
        "inputs": [_tensor(one) for one in spec.inputs],
        "outputs": [_tensor(one) for one in spec.outputs],
    }

    async def infer(request: Asked) -> Reply:
        body = reader.read(await request.body())
        wanted = _wanted(service, body.get("outputs"))
        rows = service.rows.of_columns(_columns(service, body["inputs"]))
        passage = request.passage
        made = await service.answer(rows, passage)
        answer: dict[str, Any] = {"model_name": name, "model_version": VERSION, "id": body.get("id", passage.id)}
        answer["outputs"] = [_output(one.name, one.dtype, made[one.name]) for one in spec.outputs if one.name in wanted]
        return as_json(answer)

    async def describe(request: Asked) -> Reply:
        return as_json(metadata)

    async def server(request: Asked) -> Reply:
        return as_json({"name": "kerastoolkit", "version": __version__, "extensions": []})

    made: dict[str, tuple[str, Endpoint]] = {"/v2": ("GET", server)}
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{VERSION}"):
        made |= {path: ("GET", describe), f"{path}/infer": ("POST", infer)}
    return made


def _reader_of_infer() -> Reader:
    from typing import NotRequired

    pydantic: Any = require("pydantic")
    text, whole = pydantic.StrictStr, pydantic.StrictInt
    tensor = {
        "name": text,
        "shape": list[whole],  # type: ignore[valid-type]
        "datatype": Literal[
            tuple(sorted({*_DATATYPES.values(), "FP16", "INT8", "INT16", "UINT16", "UINT32", "UINT64"}))
        ],
        "data": list[Any],
        "parameters": NotRequired[dict[str, Any]],
    }
    output = {"name": text, "parameters": NotRequired[dict[str, Any]]}
    body = {
        "id": NotRequired[text],
        "parameters": NotRequired[dict[str, Any]],
        "inputs": list[strict_object("Input", tensor)],  # type: ignore[misc]
        "outputs": NotRequired[list[strict_object("Output", output)]],  # type: ignore[misc]
    }
    return Reader({"object": pydantic.TypeAdapter(strict_object("Infer", body))})


def _tensor(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "datatype": _DATATYPES[one.dtype],
        "shape": [-1, *(-1 if size is None else size for size in one.shape)],
    }


def _wanted(service: Service, outputs: list[dict[str, Any]] | None) -> set[str]:
    known = [one.name for one in service.model.spec.outputs]
    if not outputs:
        return set(known)
    names = [one["name"] for one in outputs]
    unknown = [one for one in names if one not in known]
    if unknown:
        raise RequestError(f"The model has no output {unknown[0][:100]!r}.{did_you_mean(unknown[0][:100], known)}")
    return set(names)


def _columns(service: Service, tensors: list[dict[str, Any]]) -> dict[str, list[Any]]:
    known: Mapping[str, InputSpec] = {one.name: one for one in service.model.spec.inputs}
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name = tensor["name"]
        if name not in known:
            raise RequestError(f"The model has no input {name[:100]!r}.{did_you_mean(name[:100], list(known))}")
        if name in columns:
            raise RequestError(f"The input {name!r} is given twice.")
        if (tensor["datatype"] == "BYTES") != (known[name].dtype == "string"):
            raise RequestError(f"The input {name!r} has the datatype {_DATATYPES[known[name].dtype]}.")
        columns[name] = _shaped(name, tensor["shape"], tensor["data"], len(known[name].shape) + 1)
    missing = [name for name in known if name not in columns]
    if missing:
        raise RequestError(f"The input {missing[0]!r} is missing.")
    return columns


def _shaped(name: str, shape: list[int], data: list[Any], n_axes: int) -> list[Any]:
    """Flat or nested data as one entry a row."""
    if n_axes == 1 and len(shape) == 2 and shape[1] == 1:  # a column, as many clients send it
        shape = shape[:1]
    if len(shape) != n_axes or len(shape) > _MAX_AXES or min(shape) < 1:
        raise RequestError(f"The input {name!r} must have a shape of {n_axes} positive sizes, rows first; got {shape}.")
    flat = data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(part, list) for part in flat):
            raise RequestError(f"The data of {name!r} is neither flat nor evenly nested.")
        flat = [value for part in flat for value in part]
    if len(flat) != math.prod(shape):
        raise RequestError(f"The input {name!r} has the shape {shape}, but {len(flat)} values.")
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat


def _output(name: str, dtype: str, array: NDArray[Any]) -> dict[str, Any]:
    data = np.ravel(array).tolist()
    return {"name": name, "datatype": _DATATYPES[dtype], "shape": list(array.shape), "data": data}
