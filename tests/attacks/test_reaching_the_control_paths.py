"""Whoever reaches the SuperLink's control paths can run code at every hospital. A hospital reaches the fleet paths alone."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request

import httpx
import pytest

from server.fleet_door import door, is_fleet
from tests.attacks.through_the_door import through
from tests.end_to_end.hospitals import Consortium


def test_a_fleet_request_goes_through_unchanged() -> None:
    status, seen = through("POST", "/v1/fleet/pull-messages", [b"\x00", b"\xff"])
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


def test_a_superlink_that_is_down_is_told_as_such_and_can_be_retried() -> None:
    async def ask() -> int:
        def dead(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        link = httpx.AsyncClient(transport=httpx.MockTransport(dead), base_url="https://127.0.0.1:1")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door(link)), base_url="https://door") as client:
            return (await client.post("/v1/fleet/pull-messages")).status_code

    assert asyncio.run(ask()) == 503


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/health"]
)
def test_from_outside_only_the_fleet_paths_answer(served: Consortium, path: str) -> None:
    """Of a server as it runs: SuperLink, door and TLS."""
    trust = ssl.create_default_context(cafile=str(served.folder / "tls" / "ca.crt"))
    request = urllib.request.Request(f"https://localhost:{served.port}{path}", data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=trust, timeout=60)  # noqa: S310 - our own door
    assert refused.value.code == 403
    refused.value.close()
