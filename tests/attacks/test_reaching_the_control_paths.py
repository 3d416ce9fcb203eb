"""Whoever reaches the SuperLink's control paths can run code at every hospital. A hospital reaches the fleet paths alone."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from server.fleet_door import LARGEST_BODY, door, is_fleet

Seen = list[httpx.Request]


def through(method: str, path: str, content: bytes = b"") -> tuple[int, Seen]:
    """Status of one request through the door, and what reached the SuperLink behind it."""
    seen: Seen = []

    def superlink(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"ok")

    async def ask() -> int:
        link = httpx.AsyncClient(transport=httpx.MockTransport(superlink), base_url="https://127.0.0.1:1")
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        # The door's own interface, as its HTTP server calls it: no client tidies the path up on the way.
        scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": b"",
                 "headers": [], "scheme": "https", "server": ("door", 443), "http_version": "1.1"}  # fmt: skip
        await door(link)(scope, receive, send)
        await link.aclose()
        return int(sent[0]["status"])

    return asyncio.run(ask()), seen


def test_a_fleet_request_goes_through_unchanged() -> None:
    status, seen = through("POST", "/v1/fleet/pull-messages", b"\x00\xff")
    assert (status, len(seen)) == (200, 1)
    assert (seen[0].method, seen[0].url.path, seen[0].content) == ("POST", "/v1/fleet/pull-messages", b"\x00\xff")


@pytest.mark.parametrize(
    "path",
    ["/v1/control/start-run", "/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs",
     "/openapi.json", "/health", "/", "/v1/fleet", "/v1/fleetx/y", "/V1/FLEET/x", "/v1/fleet/../control/start-run",
     "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/..%2fcontrol/start-run", "/v1//control/start-run",
     "/v1/fleet//../control/x", "//v1/fleet/x", "/v1/fleet/%2E%2E%2Fcontrol", "/v1/fleet/.%2e/x", "/v1/fleet/./x",
     "/v1/fleet\\..\\control", "/v1/fleet/;/../control", "/v1/fleet/%252e%252e/control"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else_reaches_the_superlink(method: str, path: str) -> None:
    status, seen = through(method, path)
    assert status in {403, 404, 405}
    assert seen == []
    assert not is_fleet(path.encode())


def test_a_message_larger_than_any_is_cut_off_at_the_door() -> None:
    status, seen = through("POST", "/v1/fleet/push-object", bytes(LARGEST_BODY + 1))
    assert (status, seen) == (413, [])


def test_a_superlink_that_is_down_is_told_as_such_and_can_be_retried() -> None:
    async def ask() -> int:
        def dead(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        link = httpx.AsyncClient(transport=httpx.MockTransport(dead), base_url="https://127.0.0.1:1")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door(link)), base_url="https://door") as client:
            return (await client.post("/v1/fleet/pull-messages")).status_code

    assert asyncio.run(ask()) == 503
