"""The door that hospitals see: TLS, and of the SuperLink behind it the fleet paths alone.

Whoever reaches a SuperLink's whole port can start code at every hospital and register a node of his own, with TLS and node
keys on (docs/pitfalls.md). So the SuperLink listens on loopback and this is all that others reach.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

FLEET = "/v1/fleet/"
_SLOWEST_S = 600.0                                           # for one request over a bad line
LARGEST_BODY = 64 << 20                                      # bytes; Flower cuts objects into pieces of 5 MiB
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "upgrade", "te", "trailer"}


def door(link: httpx.AsyncClient) -> Starlette:
    """The application: fleet paths go to `link`, everything else is refused and never reaches it."""

    async def passed(request: Request) -> Response:
        if not is_fleet(request.scope["raw_path"]):
            return PlainTextResponse("not exposed to sites", 403)
        try:
            body = await _body(request)
        except ValueError:
            return PlainTextResponse("too large", 413)
        try:
            answer = await link.request(
                request.method, request.url.path, content=body, headers=_kept(request.headers), params=request.query_params
            )
        except httpx.TransportError:
            return PlainTextResponse("the server is starting", 503)
        return Response(answer.content, answer.status_code, _kept(answer.headers, "content-encoding"))

    @contextlib.asynccontextmanager
    async def closing(_: Starlette) -> AsyncIterator[None]:
        yield
        await link.aclose()

    return Starlette(routes=[Route("/{path:path}", passed, methods=["GET", "POST", "PUT", "DELETE"])], lifespan=closing)


def is_fleet(raw_path: bytes) -> bool:
    """Whether the path, as it came, is below /v1/fleet/ in plain letters: no escapes, dots or doubled slashes."""
    path = raw_path.decode("latin-1")
    plain = not any(trick in path for trick in ("%", "..", "//", "\\", ";", "/./"))
    return path.startswith(FLEET) and plain


def serve_door(host: str, port: int, link_port: int, tls: Path) -> None:
    """Listen until the process is told to stop."""
    trust = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    address = f"https://127.0.0.1:{link_port}"
    link = httpx.AsyncClient(base_url=address, verify=trust, timeout=_SLOWEST_S, trust_env=False)
    uvicorn.run(
        door(link), host=host, port=port, ssl_certfile=str(tls / "server.crt"), ssl_keyfile=str(tls / "server.key"),
        log_level="warning", access_log=False, server_header=False,
    )  # fmt: skip


def main() -> None:
    """HOST PORT LINK_PORT TLS_FOLDER, as server/serve.py starts this in a process of its own."""
    host, port, link_port, tls = sys.argv[1:]
    serve_door(host, int(port), int(link_port), Path(tls))


async def _body(request: Request) -> bytes:
    """The whole body. Raises ValueError as soon as it is larger than a fleet message can be."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > LARGEST_BODY:
            raise ValueError("body")
        pieces.append(piece)
    return b"".join(pieces)


def _kept(headers: Mapping[str, str], *more: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | set(more)}


if __name__ == "__main__":
    main()
