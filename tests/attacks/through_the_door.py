"""One request through the door, as its HTTP server would hand it over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

import httpx

from server.fleet_door import door

Seen = list[httpx.Request]


def through(method: str, path: str, pieces: Iterable[bytes] = ()) -> tuple[int, Seen]:
    """Status of one request through the door, its body in pieces, and what reached the SuperLink behind it."""
    seen: Seen = []
    body = iter(pieces)

    def superlink(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"ok")

    async def ask() -> int:
        link = httpx.AsyncClient(transport=httpx.MockTransport(superlink), base_url="https://127.0.0.1:1")
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            piece = next(body, None)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        # The door's own interface, as its HTTP server calls it: no client tidies the path up on the way.
        scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": b"",
                 "headers": [], "scheme": "https", "server": ("door", 443), "http_version": "1.1"}  # fmt: skip
        await door(link)(scope, receive, send)
        await link.aclose()
        return int(sent[0]["status"])

    return asyncio.run(ask()), seen
