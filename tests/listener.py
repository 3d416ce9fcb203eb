"""A small server on loopback that writes down what it is sent, with or without TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def listening(
    tls: Path, answers: dict[str, int], encrypted: bool = True, at: str = "127.0.0.1"
) -> Iterator[tuple[str, list[bytes]]]:
    """Where a server with these certificates listens, and the bodies that came; another path than those of `answers` is 404."""
    came: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(answers.get(self.path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:          # a client that does not like the certificate hangs up
            pass

    with Quiet((at, 0), Handler) as server:
        if encrypted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.crt", tls / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"{'localhost' if at == '127.0.0.1' else at}:{server.server_address[1]}", came
        finally:
            server.shutdown()
            thread.join()
