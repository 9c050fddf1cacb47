"""What every request passes before the application: its token, limits of size and time; and its line in the log."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

from kerastoolkit.serving._metrics import Metrics
from kerastoolkit.serving._rows import RequestError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

KEY = "kerastoolkit"  # of a `Passage` in the scope of a request
OPEN = frozenset({"/", "/docs", "/health", "/ready", "/v2/health/live", "/v2/health/ready"})
_MAX_DRAINED = 64 * 2**20  # bytes of a body that is refused, read so that its sender reads the answer


class Passage:
    """What is known of a request while it is answered."""

    __slots__ = ("error", "id", "n_rows", "path", "status")

    def __init__(self) -> None:
        self.id = os.urandom(12).hex()
        self.path = "other"
        self.n_rows = self.status = 0
        self.error: str | None = None


def path_of(scope: Message) -> str:
    """The path of a request, below where the application is mounted."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware.

    Args:
        application: What answers.
        metrics: Where requests are counted.
        token: That a request must bring; None for none.
        max_body: Bytes of a body at most.
        timeout: Seconds for a request, from its headers to its answer.
        log: Where a line for each request is written. Defaults to the standard error stream.
    """

    def __init__(
        self,
        application: Application,
        *,
        metrics: Metrics,
        token: str | None,
        max_body: int,
        timeout: float,
        log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.application, self.metrics, self.max_body, self.timeout = application, metrics, max_body, timeout
        self._token = None if token is None else token.encode()
        self._log = say if log is None else log

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        passage = scope[KEY] = Passage()
        start = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                passage.status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", passage.id.encode())]
                if getattr(scope["app"].state, "draining", False):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._within_limits(scope, receive, sending, passage)
        finally:
            seconds = time.perf_counter() - start
            self.metrics.request(passage.path, passage.status, seconds)
            self._log(
                {
                    "time": time.time(),
                    "id": passage.id,
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": passage.status,
                    "ms": round(seconds * 1000, 3),
                    "rows": passage.n_rows,
                    **({} if passage.error is None else {"error": passage.error[:500]}),
                }
            )

    async def _within_limits(self, scope: Message, receive: Receive, send: Send, passage: Passage) -> None:
        headers = dict(scope["headers"])
        read = _Reading(receive, self.max_body)
        try:
            async with asyncio.timeout(self.timeout):
                self._check_token(path_of(scope), headers)
                length = headers.get(b"content-length", b"0")
                if not length.isdigit() or int(length[:20]) > self.max_body:
                    raise _TooLargeError
                await self.application(scope, read, send)
        except _TooLargeError:
            await read.drain(self.timeout)
            message = f"The body has more than the {self.max_body} bytes that are taken. Send fewer rows at a time."
            await _refuse(send, passage, 413, message, (b"connection", b"close"))
        except TimeoutError:
            late = "The body did not arrive" if not read.is_complete else "There was no answer"
            message = f"{late} within {self.timeout:g} seconds."
            await _refuse(send, passage, 503 if read.is_complete else 408, message, (b"connection", b"close"))
        except RequestError as error:
            more = ((b"www-authenticate", b"Bearer"),) if error.status == 401 else ()
            await _refuse(send, passage, error.status, error.message, *more, errors=error.errors)
        except Exception as error:  # a fault of ours or of the model: told in the log, not to whoever asks
            if read.is_gone:
                passage.status, passage.error = passage.status or 499, "Whoever asked went away."
                return
            await _refuse(send, passage, 500, "The server failed to answer; its log says why.")
            passage.error = f"{type(error).__name__}: {error}"
            self._log({"time": time.time(), "id": passage.id, "traceback": traceback.format_exc()[-4000:]})

    def _check_token(self, path: str, headers: MutableMapping[bytes, bytes]) -> None:
        if self._token is None or path in OPEN or path.startswith("/page/"):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise RequestError("Give the token of this server in the header 'Authorization: Bearer TOKEN'.", 401)


class _Reading:
    """Reads a body, up to a limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._n_bytes = receive, limit, 0
        self.is_complete = self.is_gone = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.is_gone = message["type"] == "http.disconnect"
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            if self._n_bytes > self._limit:
                raise _TooLargeError
        return message

    async def drain(self, timeout: float) -> None:
        """Reads on for a while: who sends without reading would not see the answer else."""
        try:
            async with asyncio.timeout(timeout):
                while not self.is_complete and self._n_bytes < _MAX_DRAINED:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return
                    self._n_bytes += len(message.get("body", b""))
                    self.is_complete = not message.get("more_body", False)
        except TimeoutError:
            return


async def _refuse(
    send: Send,
    passage: Passage,
    status: int,
    message: str,
    *headers: tuple[bytes, bytes],
    errors: Sequence[Mapping[str, Any]] = (),
) -> None:
    passage.error = message
    if passage.status:  # the answer has begun
        return
    body = json.dumps({"error": message, **({"errors": errors} if errors else {})}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


def say(entry: dict[str, Any]) -> None:
    """Writes one line of JSON to the standard error stream."""
    sys.stderr.write(f"{json.dumps(entry)}\n")
    sys.stderr.flush()
