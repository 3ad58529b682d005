"""The page of a run for a browser on this machine: made anew when the run has written, asked for by the page itself.

Only 127.0.0.1 is listened on, and only requests that name it as their host are answered: another web site that a
browser has open can make it send requests here under a name of its own (DNS rebinding), and gets nothing.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from firstlight.pipeline.reporting import SAMPLES, gather
from firstlight.report.html import Language
from firstlight.report.page import page
from firstlight.support.console import note
from firstlight.support.errors import ConfigError, FirstlightError
from firstlight.support.files import in_use
from firstlight.training.run_folder import RunFolder

ADDRESS = "127.0.0.1"


class LivePage:
    """The page of a run, made when somebody asks and the run has written since."""

    def __init__(self, run: str | Path, language: Language, interval_seconds: float) -> None:
        """CheckpointError where it is no run folder."""
        self.folder = RunFolder.open(run)
        self._language, self._every = language, max(1, math.ceil(interval_seconds))
        self._made: tuple[str, str] | None = None
        self._lock = Lock()

    def stamp(self) -> str:
        """Changes when the run writes, begins or ends."""
        files = (self.folder.metrics, self.folder.events, self.folder.config_file, self.folder.path / SAMPLES)
        marks = [f"{about.st_mtime_ns}-{about.st_size}" for file in files if (about := _stat(file))]
        return "-".join([*marks, "running" if in_use(self.folder.path) else "still"])

    def text(self) -> str:
        """The page as it is now."""
        with self._lock:
            stamp = self.stamp()
            if self._made is None or self._made[0] != stamp:
                made = page(gather([self.folder.path]), self._language, stamp=stamp, refresh_seconds=self._every)
                self._made = stamp, made
            return self._made[1]


def make_server(live: LivePage, port: int) -> ThreadingHTTPServer:
    """A server that answers for `live` on `port` of this machine alone; 0: any free port. OSError when it is taken."""
    server = ThreadingHTTPServer((ADDRESS, port), _handler(live))
    server.daemon_threads = True
    return server


def serve(run: str | Path, *, port: int, language: Language = "en", interval_seconds: float = 2.0) -> None:
    """Serve the page of a run until Ctrl-C. ConfigError when the port is taken."""
    live = LivePage(run, language, interval_seconds)
    live.text()  # what is wrong with the run is told here, not in the browser
    try:
        server = make_server(live, port)
    except OSError as problem:
        if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise ConfigError(f"--port {port}: {problem.strerror}; choose another, or 0 for any that is free.") from None
    with server:
        note(f"{live.folder.path}: http://{ADDRESS}:{server.server_address[1]}/ (Ctrl-C ends it; the run goes on)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            note("serving ended.")


def _handler(live: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "firstlight", ""
        timeout = 30

        def do_GET(self) -> None:
            if self.headers.get("Host") not in self._names():
                self._answer(HTTPStatus.FORBIDDEN, "this page answers only to this machine's own name.")
                return
            answers: dict[str, tuple[Callable[[], str], str]] = {
                "/": (live.text, "text/html"),
                "/stamp": (live.stamp, "text/plain"),
            }
            if self.path not in answers:
                self._answer(HTTPStatus.NOT_FOUND, "not here; the page is at /.")
                return
            make, kind = answers[self.path]
            try:
                self._answer(HTTPStatus.OK, make(), kind)
            except FirstlightError as problem:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(problem))

        def _names(self) -> tuple[str, str]:
            port = self.connection.getsockname()[1]
            return f"{ADDRESS}:{port}", f"localhost:{port}"

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8")
            self.send_response(status)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a page asks every few seconds."""

    return Handler


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None
