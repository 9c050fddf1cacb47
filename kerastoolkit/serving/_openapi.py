"""The OpenAPI document of a server, made from the spec of its model."""

from __future__ import annotations

from typing import Any

from kerastoolkit._optional import require
from kerastoolkit._version import __version__
from kerastoolkit.export._spec import OutputSpec
from kerastoolkit.serving._answers import key_of
from kerastoolkit.serving._service import Service

_REF = "#/components/schemas/{model}"


def document(service: Service, name: str, *, has_token: bool) -> dict[str, Any]:
    """Makes the document.

    Args:
        service: What is served.
        name: Of the model in paths.
        has_token: Whether requests must bring a token.
    """
    schemas = _schemas(service)
    example = service.rows.example()
    spec = service.model.spec
    paths = {
        "/predict": _post("Predict rows", "Rows", {"rows": [example]}, "Predictions"),
        f"/v1/models/{name}:predict": _post(
            "Predict, as TensorFlow Serving does", "Instances", {"instances": [example]}, None
        ),
        f"/v1/models/{name}": _get("State of the model, as TensorFlow Serving tells it"),
        f"/v2/models/{name}/infer": _post("Predict, by the Open Inference Protocol", "Infer", _infer(service), None),
        f"/v2/models/{name}": _get("Inputs and outputs, by the Open Inference Protocol"),
        f"/v2/models/{name}/ready": _get("Whether the model is ready"),
        "/v2": _get("The server, by the Open Inference Protocol"),
        "/v2/health/live": _get("Whether the server runs"),
        "/v2/health/ready": _get("Whether the server takes requests"),
        "/spec": _get("What the model takes and answers, and how it was compared when it was exported"),
        "/health": _get("Whether the server runs"),
        "/ready": _get("Whether the server takes requests"),
        "/metrics": _get("Numbers for Prometheus", "text/plain"),
    }
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"{spec.name} ({spec.task})", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def _schemas(service: Service) -> dict[str, Any]:
    pydantic = require("pydantic")
    kinds = [pydantic.TypeAdapter(one).json_schema(ref_template=_REF) for one in service.rows.row_types.values()]
    schemas: dict[str, Any] = {"Row": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}
    rows = {
        "type": "array",
        "items": {"$ref": _REF.format(model="Row")},
        "minItems": 1,
        "maxItems": service.rows.max_rows,
    }
    schemas["Rows"] = {"anyOf": [_object(rows=rows), rows]}
    schemas["Instances"] = _object(instances=rows)
    schemas["Infer"] = _object(inputs={"type": "array", "items": {"type": "object"}})
    answer = _object(**{one.name: _answer(one) for one in service.model.spec.outputs})
    schemas["Predictions"] = _object(id={"type": "string"}, predictions={"type": "array", "items": answer})
    schemas["Error"] = _object(error={"type": "string"})
    return schemas


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _answer(one: OutputSpec) -> dict[str, Any]:
    if one.kind == "label":
        return {"enum": list(one.classes)} if one.classes else {}
    if one.classes and one.kind in ("labels", "probabilities"):
        value = {"type": "boolean"} if one.kind == "labels" else {"type": "number", "minimum": 0, "maximum": 1}
        return _object(**{key_of(label): value for label in one.classes})
    schema: dict[str, Any] = {"type": "string"} if one.dtype == "string" else {"type": "number"}
    for _ in one.shape:
        schema = {"type": "array", "items": schema}
    return schema


def _infer(service: Service) -> dict[str, Any]:
    """An example of a request of the Open Inference Protocol."""
    import numpy as np

    from kerastoolkit.serving._protocols import _DATATYPES

    arrays = service.rows.arrays(service.rows.of_values([service.rows.example()]))
    inputs = []
    for one in service.model.spec.inputs:
        array = arrays[one.name]
        data = np.ravel(array).tolist()
        data = [None if value != value else value for value in data]
        inputs.append({"name": one.name, "shape": list(array.shape), "datatype": _DATATYPES[one.dtype], "data": data})
    return {"inputs": inputs}


def _post(summary: str, schema: str, example: Any, answer: str | None) -> dict[str, Any]:
    body = {"schema": {"$ref": _REF.format(model=schema)}, "example": example}
    good = {"schema": {"$ref": _REF.format(model=answer)} if answer else {"type": "object"}}
    refused = {"content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": {
                "200": {"description": "Answers", "content": {"application/json": good}},
                "401": {"description": "The token is missing or wrong", **refused},
                "413": {"description": "The body is too large", **refused},
                "422": {"description": "What is wrong, by row and column", **refused},
            },
        }
    }


def _get(summary: str, kind: str = "application/json") -> dict[str, Any]:
    answer = {"description": "Answer", "content": {kind: {}}}
    return {"get": {"summary": summary, "responses": {"200": answer}}}
