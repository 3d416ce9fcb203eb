"""The cut network notices whoever asks for the outside and lets loopback alone: else finding nothing would mean nothing."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.network import OUTSIDE, cut_network, sent_outside

ASKS = {
    "a connection": "import socket; s = socket.socket(); s.settimeout(0.2); s.connect(('192.0.2.77', 443))",
    "a datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 53))",
    "a name, of a resolver here": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_whoever_asks_for_the_outside_is_noticed(ask: str) -> None:
    with cut_network() as cut:
        if not cut:
            pytest.skip("this machine allows no network namespaces")
        assert sent_outside() == 0
        subprocess.run([sys.executable, "-S", "-c", ask], capture_output=True, timeout=60, check=False)
        assert sent_outside() > 0


def test_loopback_is_no_outside() -> None:
    with cut_network() as cut:
        if not cut:
            pytest.skip("this machine allows no network namespaces")
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5) as one:
            one.sendall(b"hello")
            with server.accept()[0] as other:
                assert other.recv(5) == b"hello"
        assert sent_outside() == 0


def test_the_network_is_back_afterwards() -> None:
    def interfaces() -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    before = interfaces()
    with cut_network() as cut:
        inside = interfaces()
    assert interfaces() == before
    assert not cut or OUTSIDE in inside
