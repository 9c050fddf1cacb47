"""Runs a server: one process, or several workers that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from kerastoolkit._optional import require
from kerastoolkit._values import is_whole, shown
from kerastoolkit._words import printable
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.serving._app import app, check_arguments
from kerastoolkit.serving._guard import say
from kerastoolkit.serving._log import RequestLog
from kerastoolkit.serving._metrics import FOLDER
from kerastoolkit.serving._model import ServedModel, served_model

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

TOKEN = "KERASTOOLKIT_TOKEN"
_MAX_CONNECTIONS = 800  # below the limit of open files that systems set
_BACKLOG = 2048
_MAX_RESTARTS = 10
_SECONDS_TO_LEAVE = 0.5  # for connections to end by themselves, after an answer that says so


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What `app` takes, less the model; it is sent to workers."""

    name: str
    token: str | None
    max_rows: int
    max_body: int
    timeout: float
    log: str | None
    sample: float
    log_exclude: tuple[str, ...]

    def application(self, model: Any) -> Any:
        return app(model, **dataclasses.asdict(self))


def serve(
    model: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    name: str = "model",
    token: str | None = None,
    max_rows: int = 1000,
    max_body: int = 2**20,
    timeout: float = 30.0,
    log: str | Path | None = None,
    sample: float = 1.0,
    log_exclude: Sequence[str] = (),
) -> None:
    """Serves a model until the process is told to stop (Ctrl-C, or SIGTERM), and then answers what it has begun.

    Where it listens is told on the standard output stream; one line of JSON for each request on that for errors.

    Example:

    >>> serve("churn.onnx", port=8000)  # doctest: +SKIP

    Args:
        model: As for `app`.
        host: Address to listen at. Defaults to `"127.0.0.1"`: for this machine alone.
        port: Port to listen at; 0 for any that is free. Defaults to `8000`.
        workers: Processes that share the port and the log. With several, a script must call `serve` below
            `if __name__ == "__main__":`, since each of them reads it. Defaults to `1`.
        name: As for `app`. Defaults to `"model"`.
        token: As for `app`. Defaults to `None`: that of the environment variable `KERASTOOLKIT_TOKEN`, if there is one.
        max_rows: As for `app`. Defaults to `1000`.
        max_body: As for `app`. Defaults to `1048576`.
        timeout: As for `app`; also how long a server that stops waits for what it has begun. Defaults to `30.0`.
        log: As for `app`. Defaults to `None`.
        sample: As for `app`. Defaults to `1.0`.
        log_exclude: As for `app`. Defaults to none.

    Raises:
        ParameterError: An argument cannot be what it is, or the port is taken.
        ExportError, SavedFileError, MissingPackageError: As for `app`.
    """
    require("uvicorn")
    if token is None and (token := os.environ.get(TOKEN)) == "":
        raise ParameterError(f"The environment variable {TOKEN} is empty. Unset it to serve without a token.")
    check_arguments(name=name, token=token, max_rows=max_rows, max_body=max_body, timeout=timeout)
    if not is_whole(workers) or workers < 1:
        raise ParameterError(f"`workers` must be a whole number of at least 1; got {shown(workers)}.")
    if not is_whole(port) or not 0 <= port < 2**16:
        raise ParameterError(f"`port` must be a whole number from 0 to 65535; got {shown(port)}.")
    exclude = tuple(log_exclude)
    settings = _Settings(name, token, max_rows, max_body, timeout, None if log is None else str(log), sample, exclude)
    with contextlib.closing(_listening(host, port)) as listener:
        served = served_model(model)
        if log is not None:  # so that a mistake is told once, before any worker starts
            RequestLog(log, served.spec.column_names, sample=sample, exclude=exclude)
        url = _url(host, listener.getsockname()[1])
        _tell(served, url, host, token)
        if workers == 1:
            _run(settings.application(served), listener, timeout, lambda: _ready(url))
            return
        with _as_file(served, model, workers) as path, _shared_metrics():
            _Workers(settings, path, listener, workers, url).run()


def _tell(served: ServedModel, url: str, host: str, token: str | None) -> None:
    _print(f"Serving {served.spec.name} ({served.spec.task}) over {served.runtime}.")
    if served.note is not None:
        _print(served.note)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        _print(
            f"Warning: whoever can reach {url} can use the model, since there is no token. To ask for one: --token, or "
            f"the environment variable {TOKEN}."
        )


def _ready(url: str) -> None:
    _print(f"Ready: {url}/  (a form to try it; paths at {url}/docs; Ctrl-C stops it)")


def _print(text: str) -> None:
    print(printable(text), file=sys.stdout, flush=True)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise ParameterError(
            f"The server cannot listen at {host!r}, port {port}: {error}. Give another `port`, or 0 for any free one."
        ) from error


@contextlib.contextmanager
def _as_file(served: ServedModel, model: Any, workers: int) -> Iterator[str]:
    """A path from which each worker reads the model."""
    if served.content is None:
        if isinstance(model, (str, Path)):
            yield str(model)
            return
        raise ParameterError(
            f"`workers` is {workers}, but this model cannot be handed to other processes. Give the path of its file, "
            "or one worker."
        )
    with tempfile.TemporaryDirectory(prefix="kerastoolkit-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(served.content)
        yield str(path)


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder in which the workers add up their numbers."""
    if FOLDER in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kerastoolkit-") as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


# -- one process ----------------------------------------------------------------------------------------------------


def _run(application: Any, listener: socket.socket, timeout: float, when_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT."""
    import uvicorn

    class Server(uvicorn.Server):
        """Stops in the order in which nobody loses an answer."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            when_ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.should_exit = True
            application.state.draining = True  # each answer says from now on that its connection ends

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            door = listener.dup()
            for server in self.servers:
                server.close()
            for connection in _left_waiting(door):
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
            until = time.monotonic() + _SECONDS_TO_LEAVE
            while self.server_state.connections and time.monotonic() < until:
                await asyncio.sleep(0.01)
            await super().shutdown(sockets)

        def _protocol(self) -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            made: asyncio.Protocol = kind(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(timeout)),
    )
    _speak_json()
    Server(config).run([listener])


def _left_waiting(listener: socket.socket) -> list[socket.socket]:
    """Closes a listener, and returns the connections that the system has taken already and would reset else."""
    waiting = []
    with contextlib.closing(listener), contextlib.suppress(OSError):  # there is none left
        listener.setblocking(False)
        while True:
            waiting.append(listener.accept()[0])
    return waiting


def _speak_json() -> None:
    """Lets what uvicorn says be lines of JSON, too."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say({"time": record.created, "event": record.getMessage()[:500], "level": record.levelname.lower()})

    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.WARNING)
    logger.handlers = [Handler()]
    logger.propagate = False


# -- several --------------------------------------------------------------------------------------------------------


class _Workers:
    """Starts workers, starts another for one that dies, and stops them all."""

    def __init__(self, settings: _Settings, path: str, listener: socket.socket, n_workers: int, url: str) -> None:
        self.settings, self.path, self.listener, self.n_workers, self.url = settings, path, listener, n_workers, url
        self._context = multiprocessing.get_context("spawn")
        self._begun = self._context.Semaphore(0)
        self._processes: list[BaseProcess] = []
        self._stopping = False
        self._n_restarts = 0

    def run(self) -> None:
        """Returns when all workers have ended."""
        before = {one: signal.signal(one, self._stop) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._processes = [self._start() for _ in range(self.n_workers)]
            threading.Thread(target=self._tell_ready, daemon=True).start()
            while self._processes:
                multiprocessing.connection.wait([one.sentinel for one in self._processes], timeout=1)
                self._replace_dead()
        finally:
            for process in self._processes:
                process.terminate()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> BaseProcess:
        process = self._context.Process(
            target=_work, args=(self.settings, self.path, self.listener, self._begun), name="kerastoolkit worker"
        )
        process.start()
        return process

    def _tell_ready(self) -> None:
        for _ in range(self.n_workers):
            self._begun.acquire()
        _ready(self.url)

    def _replace_dead(self) -> None:
        for process in [one for one in self._processes if not one.is_alive()]:
            self._processes.remove(process)
            if self._stopping:
                continue
            say(
                {"time": time.time(), "event": "a worker ended", "worker": process.pid, "exit status": process.exitcode}
            )
            self._n_restarts += 1
            if self._n_restarts > _MAX_RESTARTS:
                self._stop(signal.SIGTERM, None)
                raise ParameterError(f"Workers ended {self._n_restarts} times, so the server stops; its log says why.")
            self._processes.append(self._start())

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True
        self.listener.close()  # else the system would go on taking connections that no worker answers
        for process in self._processes:
            if process.is_alive():
                process.terminate()


def _work(settings: _Settings, path: str, listener: socket.socket, begun: Any) -> None:
    """What a worker does."""
    parent = multiprocessing.parent_process()
    if parent is not None:  # not to go on alone, on a port that nobody knows to be taken
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    _run(settings.application(path), listener, settings.timeout, begun.release)


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
