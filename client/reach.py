"""Whether this hospital reaches the consortium's server, and nothing of it but what a hospital should: one line of `doctor`.

A name, a port, a certificate, a door: each fails in words of its own. Whether the key is enrolled is known to the server alone.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from client.findings import Finding

CONTROL, FLEET = "/v1/control/list-runs", "/v1/fleet/pull-messages"
_PATIENCE_S = 10.0                                           # for one answer
_CLOSED = {403, 404}                                         # what a door says to a path that it does not pass


def check_server(server: str, ca: Path) -> Iterator[Finding]:
    """Connect to `server` (host:port), for which `ca` must vouch, and knock at two paths. Sends nothing of this site."""
    if not server:
        yield Finding("server", "look", "no server is named", "set server in site.toml as the consortium tells you")
        return
    if not ca.is_file():
        yield Finding("server", "refused", f"no certificate at {ca}", "ask the consortium whose certificate vouches for it")
        return
    try:
        trust = ssl.create_default_context(cafile=str(ca))
        control, fleet = (_answer(server, trust, path) for path in (CONTROL, FLEET))
    except (OSError, http.client.HTTPException) as error:
        yield Finding("server", "refused", *_why(error, server))
        return
    if control not in _CLOSED:
        fix = "do not join; tell the consortium to close all but /v1/fleet/"
        yield Finding("server", "refused", f"{server} lets this hospital reach its control paths (answer {control})", fix)
    elif fleet in _CLOSED or fleet >= 502:
        fix = "wait; if it stays so, tell the consortium"
        yield Finding("server", "refused", f"{server} is there, and passes no hospital on (answer {fleet})", fix)
    else:
        yield Finding("server", "ok", f"{server} is who it says, and shows the fleet paths alone")


def _answer(server: str, trust: ssl.SSLContext, path: str) -> int:
    """The status of one empty request."""
    host, _, port = server.rpartition(":")
    line = http.client.HTTPSConnection(host, int(port), timeout=_PATIENCE_S, context=trust)
    try:
        line.request("POST", path, body=b"")
        return line.getresponse().status
    finally:
        line.close()


def _why(error: OSError | http.client.HTTPException, server: str) -> tuple[str, str]:
    """What is wrong, and what to do."""
    match error:
        case socket.gaierror():
            return f"nobody knows the name in {server}", "correct server in site.toml, or ask your network's people"
        case ConnectionRefusedError():
            return f"nothing listens at {server}", "correct the port in site.toml, or ask the consortium whether it serves"
        case TimeoutError():
            return f"{server} says nothing for {_PATIENCE_S:.0f} s", "have the firewall let this host out to it"
        case ssl.SSLCertVerificationError() if "Hostname mismatch" in str(error) or "IP address mismatch" in str(error):
            return f"the certificate at {server} is for another name", "write server in site.toml as the certificate does"
        case ssl.SSLCertVerificationError() if "expired" in str(error) or "not yet valid" in str(error):
            return f"the certificate at {server} is out of its dates", "check this host's clock, then tell the consortium"
        case ssl.SSLCertVerificationError():
            fix = "do not join: somebody may stand between; compare ca.crt with the consortium by telephone"
            return f"your ca.crt does not vouch for what answers at {server}", fix
        case ssl.SSLError():
            return f"what answers at {server}, or ca.crt, is no TLS", "correct server in site.toml, or get ca.crt again"
        case _:
            return f"{server} broke off", "try again; if it stays so, tell the consortium"
