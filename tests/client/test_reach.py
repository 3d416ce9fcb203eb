"""A server that is not there, not who it says, or open where it must be closed: each is told before joining."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.findings import Finding
from client.reach import CONTROL, FLEET, check_server
from server.certificates import make_test_certificates
from tests.listener import listening

DOOR = {CONTROL: 403, FLEET: 401}                            # Flower's own word to a request without a key is 401


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_test_certificates(folder / "ours", "localhost")
    return folder


def only(server: str, ca: Path) -> Finding:
    (found,) = check_server(server, ca)
    return found


def test_a_server_behind_its_door_is_told_so_and_is_sent_nothing(tls: Path) -> None:
    with listening(tls / "ours", DOOR) as (server, came):
        found = only(server, tls / "ours" / "ca.crt")
    assert (found.state, found.fix) == ("ok", "")
    assert came == [b"", b""]


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_server_whose_control_paths_are_open_is_refused(tls: Path, status: int) -> None:
    with listening(tls / "ours", {**DOOR, CONTROL: status}) as (server, _):
        found = only(server, tls / "ours" / "ca.crt")
    assert found.state == "refused"
    assert "control paths" in found.result
    assert "do not join" in found.fix


@pytest.mark.parametrize("status", [403, 404, 502, 503])
def test_a_door_with_nothing_behind_it_is_told_apart(tls: Path, status: int) -> None:
    with listening(tls / "ours", {**DOOR, FLEET: status}) as (server, _):
        found = only(server, tls / "ours" / "ca.crt")
    assert found.state == "refused"
    assert "passes no hospital on" in found.result


def test_a_certificate_for_another_name_is_told_apart(tls: Path) -> None:
    with listening(tls / "ours", DOOR, at="127.0.0.2") as (server, came):
        found = only(server, tls / "ours" / "ca.crt")
    assert "another name" in found.result
    assert came == []


def plain(tls: Path) -> Iterator[str]:
    with listening(tls / "ours", DOOR, encrypted=False) as (server, _):
        yield server


def closed(tls: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"localhost:{probe.getsockname()[1]}"


def unknown(tls: Path) -> Iterator[str]:
    yield "no-such-host.invalid:8443"


@pytest.mark.parametrize(
    ("what", "words"), [(plain, "is no TLS"), (closed, "nothing listens"), (unknown, "nobody knows the name")]
)
def test_a_server_that_is_not_there_is_told_in_its_own_words(
    tls: Path, what: Callable[[Path], Iterator[str]], words: str
) -> None:
    for server in what(tls):
        found = only(server, tls / "ours" / "ca.crt")
        assert found.state == "refused"
        assert words in found.result
        assert found.fix


def test_without_a_server_or_its_certificate_it_says_what_to_ask_for(tls: Path, tmp_path: Path) -> None:
    assert only("", tls / "ours" / "ca.crt").state == "look"
    missing = only("localhost:1", tmp_path / "ca.crt")
    assert missing.state == "refused"
    assert "no certificate" in missing.result
    (tmp_path / "ca.crt").write_text("not a certificate")
    assert only("localhost:1", tmp_path / "ca.crt").state == "refused"
