"""The ASGI application: what a server answers at which path."""

from __future__ import annotations

import contextlib
import importlib.resources
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastoolkit._optional import require
from kerastoolkit._values import is_number, is_whole, shown
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.serving._guard import KEY, Application, Guard, Message, Receive, Send, path_of, say
from kerastoolkit.serving._log import RequestLog
from kerastoolkit.serving._model import served_model
from kerastoolkit.serving._openapi import document
from kerastoolkit.serving._protocols import (
    Asked,
    Endpoint,
    Reply,
    as_json,
    open_inference_endpoints,
    own_endpoints,
    tensorflow_serving_endpoints,
)
from kerastoolkit.serving._rows import RequestError
from kerastoolkit.serving._service import Service

if TYPE_CHECKING:
    import fastapi
    from starlette.requests import Request

_PAGES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page/docs.js": ("docs.js", "text/javascript"),
    "/page/form.js": ("form.js", "text/javascript"),
    "/page/page.css": ("page.css", "text/css"),
}
# A page loads nothing from elsewhere, and no other page may show it inside of itself.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def app(
    model: Any,
    *,
    name: str = "model",
    token: str | None = None,
    max_rows: int = 1000,
    max_body: int = 2**20,
    timeout: float = 30.0,
    log: str | Path | None = None,
    sample: float = 1.0,
    log_exclude: Sequence[str] = (),
) -> fastapi.FastAPI:
    """Makes the ASGI application that serves a model, to run with any ASGI server, or to mount in an application.

    Example:

    >>> application = app("churn.onnx", token="secret")  # doctest: +SKIP

    Args:
        model: The path of a file that `export.onnx` wrote, an `OnnxModel`, or whatever `export.onnx` takes: it is
            exported first. What ONNX cannot hold is served with Keras.
        name: Of the model in the paths `/v1/models/NAME` and `/v2/models/NAME`. Defaults to `"model"`.
        token: Requests must bring it as `Authorization: Bearer TOKEN`; only health checks and the pages do without.
            Defaults to `None`: no token is needed.
        max_rows: Rows of a request at most. Defaults to `1000`.
        max_body: Bytes of the body of a request at most. Defaults to `1048576`, one mebibyte.
        timeout: Seconds for a request, its body included. Defaults to `30.0`.
        log: An SQLite file that keeps every row with its answer. Defaults to `None`: nothing is kept.
        sample: Fraction of the requests that are kept. Defaults to `1.0`.
        log_exclude: Names of columns that are not kept. Defaults to none.

    Returns:
        A FastAPI application; paths may be added to it.

    Raises:
        ParameterError: An argument cannot be what it is.
        ExportError: The model can neither be exported nor be served with Keras.
        SavedFileError: The file is damaged or is none of ours.
        MissingPackageError: fastapi, prometheus-client or onnxruntime is not installed.
    """
    require("fastapi")
    check_arguments(name=name, token=token, max_rows=max_rows, max_body=max_body, timeout=timeout)
    served = served_model(model)
    kept = None if log is None else RequestLog(log, served.spec.column_names, sample=sample, exclude=log_exclude)
    service = Service(served, max_rows, kept)
    if kept is not None:
        kept.begin(served.digest, service.answers, _tell_loss(service))
    application = _application(service, name, has_token=token is not None)
    application.add_middleware(
        Guard,
        metrics=service.metrics,
        token=token,
        max_body=max_body,
        timeout=timeout,
    )
    return application


def check_arguments(*, name: str, token: str | None, max_rows: int, max_body: int, timeout: float) -> None:
    """Refuses what cannot be, before a model is loaded."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
        raise ParameterError(f"`name` must be letters, digits and any of '_.-'; got {shown(name)}.")
    if token is not None and (not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,1000}", token)):
        raise ParameterError("`token` must be visible ASCII characters without a space, or None for none.")
    for argument, value in (("max_rows", max_rows), ("max_body", max_body)):
        if not is_whole(value) or value < 1:
            raise ParameterError(f"`{argument}` must be a whole number of at least 1; got {shown(value)}.")
    if not is_number(timeout) or timeout <= 0:
        raise ParameterError(f"`timeout` must be a number of seconds above 0; got {shown(timeout)}.")


def _tell_loss(service: Service) -> Any:
    def tell(n_rows: int, why: str) -> None:
        service.metrics.lost.inc(n_rows)
        say({"time": time.time(), "event": "not logged", "rows": n_rows, "error": why})

    return tell


def _application(service: Service, name: str, *, has_token: bool) -> fastapi.FastAPI:
    import fastapi
    from starlette.exceptions import HTTPException

    @contextlib.asynccontextmanager
    async def lifespan(application: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        if service.log is not None:
            service.log.close()

    made = fastapi.FastAPI(
        title=service.model.spec.name, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    made.state.draining = False
    made.state.model, made.state.log = service.model, service.log
    endpoints = {
        **own_endpoints(service),
        **tensorflow_serving_endpoints(service, name),
        **open_inference_endpoints(service, name),
        **_health(made, name),
        **_told(made, service, name, has_token),
    }
    made.add_middleware(_Paths, endpoints=endpoints)

    async def not_found(request: Request, error: Any) -> Reply:
        known = {404: f"There is nothing here; the model is named {name!r}."}
        return as_json({"error": known.get(error.status_code, str(error.detail))}, error.status_code)

    handler: Any = not_found
    made.add_exception_handler(HTTPException, handler)
    return made


class _Paths:
    """Answers our own paths, without asking FastAPI's router, which takes as long as a small model."""

    def __init__(self, application: Application, endpoints: Mapping[str, tuple[str, Endpoint]]) -> None:
        self.application, self.endpoints = application, endpoints

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = path_of(scope) if scope["type"] == "http" else ""
        if path not in self.endpoints:
            await self.application(scope, receive, send)
            return
        method, endpoint = self.endpoints[path]
        passage = scope[KEY]
        passage.path = path
        if scope["method"] not in (method, "HEAD" if method == "GET" else method):
            raise RequestError(f"This path takes {method} alone.", 405)
        reply = await endpoint(Asked(receive, passage))
        await reply(scope, receive, send)


def _health(application: fastapi.FastAPI, name: str) -> dict[str, tuple[str, Endpoint]]:
    async def live(request: Asked) -> Reply:
        return as_json({"live": True})

    async def ready(request: Asked) -> Reply:
        is_ready = not application.state.draining
        return as_json({"ready": is_ready}, 200 if is_ready else 503)

    return {
        "/health": ("GET", live),
        "/ready": ("GET", ready),
        "/v2/health/live": ("GET", live),
        "/v2/health/ready": ("GET", ready),
        f"/v2/models/{name}/ready": ("GET", ready),
        f"/v2/models/{name}/versions/1/ready": ("GET", ready),
    }


def _told(
    application: fastapi.FastAPI, service: Service, name: str, has_token: bool
) -> dict[str, tuple[str, Endpoint]]:
    """What the server tells of itself: numbers, the OpenAPI document, pages."""

    async def metrics(request: Asked) -> Reply:
        return Reply(service.metrics.text(), kind=service.metrics.content_type)

    ours = document(service, name, has_token=has_token)

    async def openapi(request: Asked) -> Reply:
        theirs = application.openapi()  # of paths that a user added
        paths = {**theirs.get("paths", {}), **ours["paths"]}
        components = {**theirs.get("components", {}), **ours["components"]}
        return as_json({**ours, "paths": paths, "components": components})

    told: dict[str, tuple[str, Endpoint]] = {"/metrics": ("GET", metrics), "/openapi.json": ("GET", openapi)}
    for path, (file, kind) in _PAGES.items():
        told[path] = ("GET", _page(file, kind))
    return told


def _page(file: str, kind: str) -> Endpoint:
    content = importlib.resources.files("kerastoolkit.serving").joinpath("page", file).read_bytes()

    async def page(request: Asked) -> Reply:
        return Reply(content, kind=f"{kind}; charset=utf-8", headers=_PAGE_HEADERS)

    return page
